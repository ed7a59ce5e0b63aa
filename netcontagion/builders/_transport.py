"""One matrix with given margins and shut cells, in whole quanta: exact, or the margins that allow none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from netcontagion.errors import Problem, SchemaError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netcontagion.builders._margins import Margins

__all__ = ["DUST", "Transport", "check_plain", "fill", "transport"]

DUST = 1e-12
"""A cell below this share of the smaller of its two margins is rounding, not a link."""
_BITS = 59  # the total is 2**59 quanta or more: sums stay exact in 64 bits
_SHORT = 1e-9  # of a margin: what may stay unplaced
_SHOWN = 5


class Transport(NamedTuple):
    """Margins above 0 in quanta (a power of two of money), and the cells that are open."""

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    open: NDArray[np.bool_]
    quantum: float
    places: tuple[NDArray[np.intp], NDArray[np.intp]]  # of rows and columns among all nodes
    margins: Margins

    def smallest(self) -> NDArray[np.int64]:
        """Return the smaller of the two margins of every cell."""
        return np.minimum.outer(self.rows, self.columns)

    def to_sparse(self, amounts: NDArray[np.int64]) -> Any:
        """Return the amounts in money, with the known ones."""
        from scipy.sparse import coo_array, csr_array

        row, column = np.nonzero(amounts)
        cells = amounts[row, column]
        kept = cells > DUST * np.minimum(self.rows[row], self.columns[column])
        row, column, cells = row[kept], column[kept], cells[kept]
        ends = (self.places[0][row], self.places[1][column])
        placed = coo_array((cells * self.quantum, ends), shape=self.margins.known.shape)
        return csr_array(placed) + self.margins.known


def check_plain(margins: Margins) -> None:
    """Check that every node can be placed beside the others: assets + liabilities of a node within the total."""
    if margins.bipartite or not margins.plain:
        return
    rows, columns = margins.rows, margins.columns
    for place in np.flatnonzero(rows + columns > rows.sum() * (1 + DUST)).tolist():
        most = rows.sum() - rows[place]
        value = f"{columns[place]:.12g} of {margins.label('assets', place)}"
        cure = "a node holds claims on others only: correct its assets or the liabilities of the others"
        raise SchemaError([Problem("assets", None, place, value, f"at most {most:.12g}, what the others owe", cure)])


def transport(margins: Margins) -> Transport:
    """Count the margins in quanta."""
    places = (np.flatnonzero(margins.rows > 0), np.flatnonzero(margins.columns > 0))
    total = margins.rows.sum()
    quantum = float(np.exp2(np.floor(np.log2(total)) - _BITS)) if total > 0 else 1.0
    rows, columns = (
        np.rint(margin[kept] / quantum).astype(np.int64)
        for margin, kept in zip((margins.rows, margins.columns), places, strict=True)
    )
    if len(rows):
        columns[columns.argmax()] += rows.sum() - columns.sum()
    opened = np.asarray(margins.shut[places[0]][:, places[1]].toarray() == 0)
    return Transport(rows, columns, opened, quantum, places, margins)


def fill(problem: Transport, first: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """Place the margins: the largest first, then along augmenting paths; a SchemaError where no matrix has them.

    The result is exact up to rounding of the margins themselves. ``first``: amounts placed beforehand.
    """
    amounts = np.zeros(problem.open.shape, dtype=np.int64) if first is None else first.copy()
    left = (problem.rows - amounts.sum(axis=1), problem.columns - amounts.sum(axis=0))
    _place_largest(problem.open, amounts, left)
    while left[0].any():
        path = _path(problem.open, amounts, left)
        if isinstance(path, _Cut):
            _check_unplaced(problem, left, path)
            break
        _push(amounts, left, path)
    return amounts


def _place_largest(opened: NDArray[np.bool_], amounts: NDArray[np.int64], left: tuple[Any, Any]) -> None:
    """Close the largest row with the largest column it may meet, again and again."""
    rows, columns = left
    waiting = rows.copy()
    while waiting.any():
        row = int(waiting.argmax())
        meets = np.where(opened[row], columns, 0)
        column = int(meets.argmax())
        amount = min(rows[row], meets[column])
        if not amount:
            waiting[row] = 0
            continue
        amounts[row, column] += amount
        rows[row] -= amount
        columns[column] -= amount
        waiting[row] = rows[row]


class _Cut(NamedTuple):
    rows: NDArray[np.bool_]
    columns: NDArray[np.bool_]


def _path(opened: NDArray[np.bool_], amounts: NDArray[np.int64], left: tuple[Any, Any]) -> list[tuple[int, int]] | _Cut:
    """Find the cells of a shortest augmenting path, forward and back in turn; or the nodes within reach of none."""
    seen = _Cut(left[0] > 0, np.zeros(opened.shape[1], dtype=bool))
    from_row, from_column = np.zeros(opened.shape[1], dtype=np.intp), np.zeros(opened.shape[0], dtype=np.intp)
    edge = np.flatnonzero(seen.rows)
    while len(edge):
        fresh = np.flatnonzero(opened[edge].any(axis=0) & ~seen.columns)
        from_row[fresh] = edge[opened[np.ix_(edge, fresh)].argmax(axis=0)]
        seen.columns[fresh] = True
        ends = fresh[left[1][fresh] > 0]
        if len(ends):
            return _trace(int(ends[0]), from_row, from_column, left[0])
        if not len(fresh):
            break
        edge = np.flatnonzero((amounts[:, fresh] > 0).any(axis=1) & ~seen.rows)
        from_column[edge] = fresh[(amounts[np.ix_(edge, fresh)] > 0).argmax(axis=1)]
        seen.rows[edge] = True
    return seen


def _trace(column: int, from_row: Any, from_column: Any, left: Any) -> list[tuple[int, int]]:
    cells = []
    while True:
        row = int(from_row[column])
        cells.append((row, column))
        if left[row] > 0:
            return cells
        column = int(from_column[row])
        cells.append((row, column))


def _push(amounts: NDArray[np.int64], left: tuple[Any, Any], path: list[tuple[int, int]]) -> None:
    back = path[1::2]
    amount = min([left[0][path[-1][0]], left[1][path[0][1]], *(amounts[cell] for cell in back)])
    for cell in path[::2]:
        amounts[cell] += amount
    for cell in back:
        amounts[cell] -= amount
    left[0][path[-1][0]] -= amount
    left[1][path[0][1]] -= amount


def _check_unplaced(problem: Transport, left: tuple[Any, Any], cut: _Cut) -> None:
    """Name the rows that owe more than the columns open to them can take."""
    short = (left[0] > _SHORT * problem.rows).any() or (left[1] > _SHORT * problem.columns).any()
    if not short:
        return
    margins = problem.margins
    rows, columns = (places[seen] for places, seen in zip(problem.places, cut, strict=True))
    owed, room = margins.rows[rows].sum(), margins.columns[columns].sum()
    names = [
        ", ".join(margins.label(side, place) for place in places[:_SHOWN]) + (" ..." if len(places) > _SHOWN else "")
        for side, places in (("liabilities", rows.tolist()), ("assets", columns.tolist()))
    ]
    value = f"{names[0]} have {owed:.12g} to place, but may owe {names[1] or 'nobody'} only, who take {room:.12g}"
    cure = "open cells (forbidden, known, the diagonal), or correct these margins"
    raise SchemaError([Problem("liabilities", None, int(rows[0]), value, f"at most {room:.12g}", cure)])
