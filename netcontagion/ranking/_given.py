"""What the caller of a measure on arrays gives and gets: weights, read once or refused, and scores with labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion.errors import Problem, SchemaError
from netcontagion.network import LabelledMatrix

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray
    from scipy.sparse import csr_array

    Floats = NDArray[np.float64]

__all__ = ["labelled", "links_of", "per_node", "weights_of"]

SHOWN = 25


def weights_of(given: Any, *, square: bool = True) -> csr_array:
    """Read weights as a csr_array without zeros; the caller's own arrays are used where they will do.

    Raises
    ------
    SchemaError
        No matrix, not square where it has to be, or weights that are negative or not finite.
    """
    from scipy.sparse import csr_array, issparse

    given = given.matrix if isinstance(given, LabelledMatrix) else given
    try:
        plain: Any = given if issparse(given) else np.asarray(given, dtype=float)
        matrix = csr_array(plain, dtype=float) if plain.ndim == 2 else None
    except (TypeError, ValueError) as error:
        raise SchemaError(
            [Problem("matrix", None, None, str(error), "numbers", "give a number for every link")]
        ) from None
    if matrix is None or (square and matrix.shape[0] != matrix.shape[1]):
        allowed, cure = ("a square matrix", "rows and columns are the same nodes") if square else ("(n, m)", "give one")
        raise SchemaError([Problem("matrix", None, None, f"shape {plain.shape}", allowed, cure)])
    if 0 in matrix.shape:
        raise SchemaError([Problem("matrix", None, None, f"shape {matrix.shape}", "at least one node", "give nodes")])
    if not matrix.has_canonical_format:
        matrix = csr_array(matrix, copy=True)
        matrix.sum_duplicates()
    _check(matrix)
    if not matrix.data.all():
        matrix = csr_array(matrix, copy=True)
        matrix.eliminate_zeros()
    if matrix.indices.dtype != np.int32 and max(matrix.nnz, *matrix.shape) <= np.iinfo(np.int32).max:
        indices, indptr = matrix.indices.astype(np.int32), matrix.indptr.astype(np.int32)
        matrix = csr_array((matrix.data, indices, indptr), shape=matrix.shape)  # half the memory in every product
    return matrix


def _check(matrix: csr_array) -> None:
    low, high = matrix.data.min(initial=0.0), matrix.data.max(initial=0.0)
    if low >= 0 and high < np.inf:  # false with NaN
        return
    bad = np.flatnonzero(~(np.isfinite(matrix.data) & (matrix.data >= 0)))
    rows = np.searchsorted(matrix.indptr, bad, side="right") - 1
    raise SchemaError(
        Problem("matrix", str(matrix.indices[at]), int(row), float(matrix.data[at]), "finite, at least 0", cure)
        for at, row in zip(bad.tolist(), rows.tolist(), strict=True)
        for cure in ("give the size of the link, 0 where there is none",)
    )


def per_node(name: str, given: ArrayLike, size: int) -> Floats:
    """Read one amount per node, not all of them 0."""
    numbers = np.asarray(given, dtype=float)
    if numbers.shape != (size,):
        raise SchemaError([Problem(name, None, None, f"shape {numbers.shape}", f"({size},)", "give one per node")])
    bad = np.flatnonzero(~(np.isfinite(numbers) & (numbers >= 0)))
    problems = [
        Problem(name, None, int(row), float(numbers[row]), "finite, at least 0", "give an amount")
        for row in bad[:SHOWN]
    ]
    if not problems and not numbers.any():
        problems = [Problem(name, None, None, "all 0", "at least one above 0", "give an amount to some node")]
    if problems:
        raise SchemaError(problems)
    return numbers


def labelled(values: Floats, labels: Any) -> Any:
    """Put labels on numbers by node, or by pair of nodes, where there are any."""
    if labels is None:
        return values
    import pandas as pd

    return pd.Series(values, labels) if values.ndim == 1 else pd.DataFrame(values, labels, labels)


def links_of(matrix: csr_array) -> csr_array:
    """Return which nodes are linked, either way, as ones; nobody is linked to itself."""
    from scipy.sparse import csr_array

    either = csr_array(matrix + matrix.T)
    coo = either.tocoo()
    keep = coo.row != coo.col
    return csr_array((np.ones(int(keep.sum())), (coo.row[keep], coo.col[keep])), shape=matrix.shape)
