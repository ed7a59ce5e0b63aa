"""Depth from quotes, and depth ladders from order books."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from netcontagion.errors import Problem, SchemaError, UnknownLabelError
from netcontagion.network import Ladder, write_ladder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import ArrayLike

__all__ = ["depth_at", "ladder"]

Amount = TypeVar("Amount", float, NDArray[np.float64])

_USED: Mapping[str, Callable[[float], float]] = {  # share of the depth whose sale leaves 1 - impact of the price
    "exponential": lambda impact: -math.log1p(-impact),
    "linear": lambda impact: impact,
    "square_root": lambda impact: impact**2,
    "constant_product": lambda impact: math.expm1(-0.5 * math.log1p(-impact)),
}


def depth_at(amount: Amount, *, impact: float = 0.01, form: str = "exponential") -> Amount:
    """Turn a size quoted at an impact into the depth of the impact form.

    With x the impact and q the amount, the price after selling Q units and the depth D are

    ================  ======================  =========================
    form              price / price before    D
    ================  ======================  =========================
    exponential       exp(-Q / D)             -q / ln(1 - x)
    linear            1 - Q / D               q / x
    square_root       1 - sqrt(Q / D)         q / x^2
    constant_product  (1 + Q / D)^-2          q / ((1 - x)^(-1/2) - 1)
    ================  ======================  =========================

    The depth of a constant product is the units of the asset in the pool.

    Parameters
    ----------
    amount : float or ndarray
        Units whose sale moves the price by ``impact`` (the price after the trade, not the average one).
    impact : float, default 0.01
        Relative fall of the price, in (0, 1).
    form : {"exponential", "linear", "square_root", "constant_product"}
        Impact form. A ladder has no depth: :func:`ladder`.

    Returns
    -------
    float or ndarray
        Depth D [units], shaped like ``amount``.

    Raises
    ------
    ValueError
        ``impact`` outside (0, 1), or an amount that is not above 0.
    UnknownLabelError
        A form that does not exist.

    References
    ----------
    Cifuentes, Ferrucci, Shin, Journal of the European Economic Association 3 (2005), doi:10.1162/jeea.2005.3.2-3.556.

    Examples
    --------
    >>> round(depth_at(1000.0, impact=0.01), 1)
    99499.2
    >>> round(depth_at(10.152544552, impact=0.02, form="constant_product"), 6)
    1000.0
    """
    if form not in _USED:
        raise UnknownLabelError(form, _USED, "impact form")
    if not 0 < impact < 1:
        raise ValueError(f"impact is {impact!r}; allowed: (0, 1), 0.01 is one per cent")
    if not np.all(np.asarray(amount) > 0):
        raise ValueError(f"amount is {amount!r}; allowed: units above 0")
    depth: Amount = amount / _USED[form](impact)
    return depth


def ladder(relative_price: ArrayLike, units: ArrayLike) -> str:
    """Write the levels of an order book as the text that the column ``impact`` of the assets takes.

    Sales walk down the bids and purchases up the asks: each level trades its units at its price, and what lies beyond
    the last level stays unfilled.

    Parameters
    ----------
    relative_price : array_like (n,)
        Price of each level over the price of the asset: up to 1 a bid, above 1 an ask. In any order.
    units : array_like (n,)
        Units of each level, above 0; those of one price are added up.

    Returns
    -------
    str
        ``"ladder 0.999:10.0 0.995:25.0 | 1.001:8.0"``.

    Raises
    ------
    SchemaError
        Listing every level that is wrong.

    Examples
    --------
    >>> ladder([0.995, 0.999, 1.001], [25, 10, 8])
    'ladder 0.999:10.0 0.995:25.0 | 1.001:8.0'
    """
    prices, sizes = np.asarray(relative_price, dtype=float), np.asarray(units, dtype=float)
    if prices.ndim != 1 or prices.shape != sizes.shape or not len(prices):
        cure = "give one relative price and one size per level"
        found = f"{prices.shape} and {sizes.shape}"
        raise SchemaError([Problem("ladder", "units", None, found, "two columns of the same length, not empty", cure)])
    problems = [
        Problem("ladder", name, int(row), float(column[row]), "(0, inf)", cure)
        for name, column, cure in (
            ("relative_price", prices, "divide prices by the price of the asset"),
            ("units", sizes, "leave out levels without units"),
        )
        for row in np.flatnonzero(~((column > 0) & np.isfinite(column)))
    ]
    if problems:
        raise SchemaError(problems)
    levels, which = np.unique(prices, return_inverse=True)
    sums = np.bincount(which, weights=sizes).astype(float)
    bid = levels <= 1.0
    return write_ladder(Ladder(levels[bid][::-1], sums[bid][::-1], levels[~bid], sums[~bid]))
