"""Small array helpers that know nothing of networks."""

from __future__ import annotations

import mmap
from math import factorial
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = [
    "as_share",
    "blank",
    "distinct",
    "freeze",
    "group_sum",
    "leading_digits",
    "order_by_digits",
    "plain",
    "shapley_weights",
]

_DROPPED = 13  # bits of a mantissa: the 40 that stay are the first twelve decimal digits
_HALF = 1 << (_DROPPED - 1)
LARGE = 2**20  # bytes from which zeros are pages of their own


def as_share(level: float) -> float:
    """Return a share a trace smaller: of 100 values 0.55 are 55, not the one after, which 0.55 * 100 > 55 would be."""
    return level * (1 - 1e-12)


def freeze(values: ArrayLike, dtype: Any = None) -> NDArray[Any]:
    """Return the values as an array that cannot be written to, without touching the caller's own."""
    array = np.asarray(values, dtype=dtype)
    if array.flags.writeable:
        array = array.view()
        array.flags.writeable = False
    return array


def blank(size: int, dtype: Any) -> NDArray[Any]:
    """Return zeros whose memory is taken, page by page, when somebody writes to it."""
    length = size * np.dtype(dtype).itemsize
    return np.frombuffer(mmap.mmap(-1, length), dtype=dtype) if length > LARGE else np.zeros(size, dtype=dtype)


def group_sum(codes: NDArray[np.integer[Any]], values: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Sum values by integer code."""
    return np.bincount(codes, weights=values, minlength=size).astype(np.float64, copy=False)


def distinct(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sort values and drop what comes again: as ``np.unique``, but fast where they are in order already."""
    found = np.sort(values, kind="stable")
    return np.asarray(found[np.diff(found, prepend=found[:1] - 1) != 0])


def leading_digits(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Round to the first twelve digits, so that what differs by rounding ties."""
    kept = _digits(values)
    kept <<= _DROPPED
    return kept.view(np.float64)


def order_by_digits(values: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Rising order by the first twelve digits, ties as they come, and whether each ties with the one before it.

    Key and place in one integer sort twice as fast as places by keys; they fit where values are of like size.
    """
    key = _digits(values + 0.0)
    if not len(key):
        return key, np.zeros(0, dtype=bool)
    if key.min() < 0:
        key ^= (key >> 63) & ((1 << 63 - _DROPPED) - 1)  # negative ones fall as their bits rise
    key -= key.min()
    width = len(key).bit_length()
    if int(key.max()).bit_length() + width < 64:
        key <<= width
        key |= np.arange(len(key))
        key.sort()
        order = key & ((1 << width) - 1)
        key >>= width
    else:
        order = np.argsort(key, kind="stable")
        key = key[order]
    same = np.zeros(len(key), dtype=bool)
    np.equal(key[1:], key[:-1], out=same[1:])
    return order, same


def _digits(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Sign, exponent and first digits of values as integers, rounded, halves to even."""
    bits = np.ascontiguousarray(values, dtype=np.float64).view(np.int64)
    kept = bits >> _DROPPED
    kept &= 1
    kept += _HALF - 1
    kept += bits
    kept >>= _DROPPED
    return kept


def plain(value: Any) -> Any:
    """Turn a numpy scalar into the Python value it stands for."""
    return value.item() if isinstance(value, np.generic) else value


def shapley_weights(size: int, mask: int) -> NDArray[np.float64]:
    """Weights of the value of a set of players, the bits of ``mask``, in the Shapley value of each of ``size``."""
    inside = np.array([mask >> place & 1 for place in range(size)], dtype=bool)
    count = int(inside.sum())
    joined = factorial(max(count - 1, 0)) * factorial(size - count) / factorial(size)
    missed = factorial(count) * factorial(max(size - count - 1, 0)) / factorial(size)
    return np.where(inside, joined, -missed)
