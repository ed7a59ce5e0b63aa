"""The matrix of maximum entropy with given margins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion._iterate import iterate
from netcontagion._status import Status
from netcontagion.builders._transport import DUST, check_plain, fill, transport
from netcontagion.errors import NotSettledError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netcontagion.builders._margins import Margins
    from netcontagion.builders._transport import Transport

__all__ = ["Factors", "maximum_entropy"]

LARGEST_DEFAULT = 2**26
"""Cells above which the caller says which form the result should have (0.8 GB as a sparse matrix)."""
_BLOCK = 2**22  # cells that are made at a time
_HUGE = 2.0**600  # a power of two: dividing by it and multiplying with it is exact, and its square divides to 0
_PATIENCE = 200  # rounds of scaling without a smaller error


@dataclass(frozen=True, eq=False)
class Factors:
    """A matrix row_factor[i] * column_factor[j], with zeros on the diagonal where ``zero_diagonal``; O(n) memory.

    ``factors @ v``, ``factors.T`` and ``factors.sum(axis)`` take O(n); ``to_sparse()`` takes 12 bytes a cell, and
    ``numpy.asarray(factors)`` 8 bytes a cell.
    """

    row_factor: NDArray[np.float64]
    column_factor: NDArray[np.float64]
    zero_diagonal: bool

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and columns."""
        return len(self.row_factor), len(self.column_factor)

    @property
    def T(self) -> Factors:
        """The transposed matrix."""
        return Factors(self.column_factor, self.row_factor, self.zero_diagonal)

    def __matmul__(self, vector: Any) -> NDArray[np.float64]:
        values = np.asarray(vector, dtype=float)
        weighted = (self.column_factor * values.T).T
        inner = _others(weighted) if self.zero_diagonal else weighted.sum(axis=0)
        product: NDArray[np.float64] = (
            self.row_factor * np.broadcast_to(inner.T, values.T.shape[:-1] + self.shape[:1])
        ).T
        return product

    def sum(self, axis: int | None = None) -> Any:
        """Sum over rows (0), over columns (1) or all."""
        rows = self @ np.ones(self.shape[1])
        return rows.sum() if axis is None else rows if axis in (1, -1) else self.T.sum(axis=1)

    def to_sparse(self) -> Any:
        """Return the matrix with every cell above 0 stored."""
        from scipy.sparse import csr_array

        rows, columns = self.row_factor > 0, self.column_factor > 0
        counts = np.where(rows, columns.sum(), 0)
        if self.zero_diagonal:
            counts -= rows & columns
        starts = np.concatenate([[0], np.cumsum(counts)])
        data, indices = np.empty(starts[-1]), np.empty(starts[-1], dtype=np.int32)
        step = max(1, _BLOCK // max(1, self.shape[1]))
        for top in range(0, self.shape[0], step):
            block = np.arange(top, min(top + step, self.shape[0]))
            kept = rows[block, None] & columns
            if self.zero_diagonal:
                kept[np.arange(len(block)), block] = False
            part = slice(starts[block[0]], starts[block[-1] + 1])
            with np.errstate(over="ignore"):  # on the diagonal only
                data[part] = np.multiply.outer(self.row_factor[block], self.column_factor)[kept]
            indices[part] = np.nonzero(kept)[1]
        matrix = csr_array((data, indices, starts), shape=self.shape)
        if not data.all():
            matrix.eliminate_zeros()
        return matrix

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        with np.errstate(over="ignore"):  # on the diagonal only
            matrix = np.multiply.outer(self.row_factor, self.column_factor)
        if self.zero_diagonal:
            np.fill_diagonal(matrix, 0.0)
        return matrix.astype(dtype or float, copy=False)

    def __repr__(self) -> str:
        diagonal = "0 on the diagonal" if self.zero_diagonal else "no cell shut"
        return f"Factors({self.shape[0]:,} x {self.shape[1]:,}, row_factor[i] * column_factor[j], {diagonal})"


def maximum_entropy(
    margins: Margins, *, form: str | None = None, rtol: float = 1e-10, max_rounds: int = 10_000, strict: bool = True
) -> Any:
    """Find the matrix of maximum entropy with these margins."""
    if form not in (None, "sparse", "factors"):
        raise ValueError(f"form={form!r} is not one of None, 'sparse', 'factors'")
    if not rtol > 0 or max_rounds < 1:
        raise ValueError(f"rtol={rtol!r} must be positive and max_rounds={max_rounds!r} at least 1")
    cells = len(margins.rows) * len(margins.columns)
    if form is None and cells > LARGEST_DEFAULT:
        raise ValueError(
            f"{cells:,} cells take {12e-9 * cells:.1f} GB as a sparse matrix: say form='sparse' if you want that, "
            "or form='factors' for the same matrix in O(n) memory"
        )
    if not margins.plain:
        if form == "factors":
            raise ValueError("form='factors' holds no known or forbidden cells; leave form out")
        return _scaled(margins, rtol, max_rounds, strict)
    check_plain(margins)
    factors = _product(margins) if margins.bipartite else _off_diagonal(margins.rows, margins.columns)
    return factors if form == "factors" else factors.to_sparse()


def _product(margins: Margins) -> Factors:
    total = margins.rows.sum()
    return Factors(margins.rows, margins.columns / total if total > 0 else margins.columns, zero_diagonal=False)


# zero diagonal ----------------------------------------------------------------------------------------------------


def _off_diagonal(owed: NDArray[np.float64], held: NDArray[np.float64]) -> Factors:
    """Solve for x_i y_j off the diagonal.

    With xi = x / sum x, eta = y / sum y and u = sum x sum y the margins read u xi_i (1 - eta_i) = owed_i and
    u eta_i (1 - xi_i) = held_i: a quadratic per node given u, and xi + eta = 1 -+ s with
    s_i^2 = (1 - (sqrt held_i + sqrt owed_i)^2 / u) (1 - (sqrt held_i - sqrt owed_i)^2 / u). The sum of all xi + eta
    is 2: one equation for 1 / u, monotone. At most one node has xi + eta above 1, then the one with the largest
    margins.
    """
    total = owed.sum()
    if not total > 0:
        return Factors(owed * 0.0, held * 0.0, zero_diagonal=True)
    owed, held = owed / total, held / total
    outer, inner = (np.sqrt(held) + np.sqrt(owed)) ** 2, (np.sqrt(held) - np.sqrt(owed)) ** 2
    largest = int(outer.argmax())
    if owed[largest] + held[largest] >= 1 - DUST:
        return _star(owed, held, largest, total)
    inverse, above = _inverse_u(outer, inner, largest)
    root = _root(inverse, outer, inner)
    row = 2 * owed / (1 + (owed - held) * inverse + root)
    column = 2 * held / (1 + (held - owed) * inverse + root)
    if above:
        row[largest] = (1 + (owed - held)[largest] * inverse + root[largest]) / (2 * inverse)
        column[largest] = (1 + (held - owed)[largest] * inverse + root[largest]) / (2 * inverse)
    row *= inverse  # now xi, and u eta in column
    for _ in range(2):  # polish what rounding of u left
        row = np.divide(owed, _others(column), out=np.zeros_like(owed), where=owed > 0)
        column = np.divide(held, _others(row), out=np.zeros_like(held), where=held > 0)
    return Factors(row, column * total, zero_diagonal=True)


def _root(inverse: float, outer: NDArray[np.float64], inner: NDArray[np.float64]) -> NDArray[np.float64]:
    root: NDArray[np.float64] = np.sqrt(np.maximum(0.0, 1 - outer * inverse) * np.maximum(0.0, 1 - inner * inverse))
    return root


def _inverse_u(outer: NDArray[np.float64], inner: NDArray[np.float64], largest: int) -> tuple[float, bool]:
    """Return 1 / u, and whether the largest node is on the upper branch."""
    from scipy.optimize import brentq

    def below(inverse: float) -> NDArray[np.float64]:  # (1 - s) u, without cancellation
        together = outer + inner - outer * inner * inverse
        return together / (1 + _root(inverse, outer, inner))

    def lower(inverse: float) -> float:
        return float(inverse * below(inverse).sum() - 2)

    def upper(inverse: float) -> float:
        parts = below(inverse)
        return float(np.delete(parts, largest).sum() - parts[largest])

    most = 1 / float(outer[largest])
    if lower(most) >= 0:
        return brentq(lower, 0.0, most, xtol=1e-300, rtol=1e-15), False
    return brentq(upper, 0.0, most, xtol=1e-300, rtol=1e-15), True


def _star(owed: NDArray[np.float64], held: NDArray[np.float64], centre: int, total: float) -> Factors:
    """All claims are on the centre or its own: the limit of x_i y_j whose other cells are too small for a number."""
    row, column = owed / _HUGE, held / _HUGE
    row[centre] = column[centre] = _HUGE
    return Factors(row, column * total, zero_diagonal=True)


def _others(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum of all but each one, along axis 0, without cancellation at the largest."""
    rest: NDArray[np.float64] = values.sum(axis=0) - values
    largest = np.expand_dims(np.abs(values).argmax(axis=0), 0)
    without = values.copy()
    np.put_along_axis(without, largest, 0.0, axis=0)
    np.put_along_axis(rest, largest, np.expand_dims(without.sum(axis=0), 0), axis=0)
    return rest


# known and forbidden cells ----------------------------------------------------------------------------------------


def _scaled(margins: Margins, rtol: float, max_rounds: int, strict: bool) -> Any:
    """Scale rows and columns of ones on the cells that can be above 0 (RAS)."""
    from scipy.sparse import coo_array, csr_array

    problem = transport(margins)
    pattern = csr_array(_possible(problem, fill(problem)).astype(float))
    across = csr_array(pattern.T)
    owed, held = problem.rows * problem.quantum, problem.columns * problem.quantum

    def step(state: Any) -> tuple[Any, float, Status | None]:
        _, column = state
        with np.errstate(all="ignore"):
            row = owed / (pattern @ column)
            column = held / (across @ row)
            error = float(np.max(np.abs(row * (pattern @ column) / owed - 1), initial=0.0))
        return (row, column), error, Status.SETTLED if error <= rtol else None

    start = np.ones(len(owed)), np.ones(len(held))
    end = iterate(step, start, max_rounds=max_rounds, patience=_PATIENCE)
    cells = pattern.tocoo()
    amounts = end.state[0][cells.row] * end.state[1][cells.col]
    ends = (problem.places[0][cells.row], problem.places[1][cells.col])
    matrix = csr_array(coo_array((amounts, ends), shape=margins.known.shape)) + margins.known
    if strict and not end.status.settled:
        raise NotSettledError(
            f"maximum entropy: {end.status.value}; {end.rounds} rounds, margins off by {end.residual:.1e} of "
            "themselves. It is slow where some cells must be almost 0",
            matrix,
        )
    return matrix


def _possible(problem: Transport, amounts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Open cells that are above 0 in some matrix with these margins: the ends lie on a common cycle of the flow."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    n_rows, n_columns = problem.open.shape
    used = amounts > DUST * problem.smallest()
    heads, tails = np.nonzero(problem.open)
    back, forth = np.nonzero(used)
    start, end = np.concatenate([heads, forth + n_rows]), np.concatenate([tails + n_rows, back])
    size = n_rows + n_columns
    graph = csr_array((np.ones(len(start), dtype=bool), (start, end)), shape=(size, size))
    _, part = connected_components(graph, directed=True, connection="strong")
    possible: NDArray[np.bool_] = problem.open & (part[:n_rows, None] == part[None, n_rows:])
    return possible
