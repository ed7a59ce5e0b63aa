"""Margins of a matrix that is not observed, with what is known of its cells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from netcontagion._arrays import plain
from netcontagion.errors import Problem, SchemaError, nearest

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

__all__ = ["TOTAL_TOLERANCE", "Margins", "read_margins"]

TOTAL_TOLERANCE = 1e-10
"""Totals of the two margins may differ by this share of them: rounding of a sum, not of the data."""
_ZERO = 1e-12  # of a margin: what known cells leave of it by rounding


class Margins(NamedTuple):
    """What is left to place, and where it may go. Row i owes column j."""

    given: tuple[NDArray[np.float64], NDArray[np.float64]]  # liabilities and assets as they were given
    rows: NDArray[np.float64]  # liabilities less what is known
    columns: NDArray[np.float64]  # assets less what is known, summing to the same
    known: Any  # csr_array of the known amounts
    shut: Any  # csr_array of bool, the cells that take no more: diagonal, forbidden, known
    bipartite: bool
    row_labels: pd.Index | None
    column_labels: pd.Index | None

    @property
    def plain(self) -> bool:
        """Whether nothing is known of single cells beyond the diagonal."""
        return bool(self.shut.nnz == (0 if self.bipartite else len(self.rows)))

    def label(self, side: str, place: int) -> str:
        """Name a row or a column."""
        labels = self.row_labels if side == "liabilities" else self.column_labels
        return str(place) if labels is None else repr(plain(labels[place]))

    def error(self, matrix: Any) -> float:
        """Largest error of a margin, relative to that margin."""
        return max(
            float(
                np.max(np.abs(np.asarray(matrix.sum(axis=axis)) - margin)[margin > 0] / margin[margin > 0], initial=0)
            )
            for axis, margin in ((1, self.given[0]), (0, self.given[1]))
        )


def read_margins(assets: Any, liabilities: Any, *, known: Any, forbidden: Any, bipartite: bool) -> Margins:
    """Read margins and cells once, or raise one SchemaError with everything that is wrong."""
    problems: list[Problem] = []
    if not bipartite:
        assets, liabilities = _joined(assets, liabilities, problems)
    columns, rows = _vector("assets", assets, problems), _vector("liabilities", liabilities, problems)
    if columns is None or rows is None:
        raise SchemaError(problems)
    if not bipartite and len(columns) != len(rows):
        cure = "give both for every node, or say bipartite=True"
        value = f"{len(rows)} values beside {len(columns)} assets"
        problems.append(Problem("liabilities", None, None, value, "one value per node", cure))
        raise SchemaError(problems)
    _check_totals(rows, columns, problems)
    row_labels, column_labels = _labels(liabilities), _labels(assets)
    if not bipartite:
        row_labels = column_labels = row_labels if column_labels is None else column_labels
    axes = (_Axis(len(rows), row_labels), _Axis(len(columns), column_labels))
    amounts = _known(known, axes, problems)
    closed = _forbidden(forbidden, axes, problems)
    _check_cells(amounts, closed, axes, bipartite, problems)
    left = _left(rows, columns, amounts, axes, problems) if not problems else None
    if problems or left is None:
        raise SchemaError(problems)
    shut = closed + amounts.astype(bool)
    if not bipartite:
        from scipy.sparse import eye_array

        shut = shut + eye_array(len(rows), dtype=bool, format="csr")
    values = amounts.copy()
    values.data = np.where(values.data == _KNOWN_ZERO, 0.0, values.data)
    values.eliminate_zeros()
    return Margins((rows, columns), *left, values, shut.tocsr(), bipartite, row_labels, column_labels)


# margins ----------------------------------------------------------------------------------------------------------


def _joined(assets: Any, liabilities: Any, problems: list[Problem]) -> tuple[Any, Any]:
    """Join labelled margins of the same nodes by label, in the order of the assets."""
    if _labels(assets) is None or _labels(liabilities) is None:
        return assets, liabilities
    same = not len(assets.index.symmetric_difference(liabilities.index))
    if not same or assets.index.has_duplicates or liabilities.index.has_duplicates:
        cure = "name the same nodes in both, each once"
        problems.append(
            Problem("liabilities", None, None, "its labels are not those of assets", "the same labels", cure)
        )
        return assets, liabilities
    return assets, liabilities.reindex(assets.index)


def _labels(values: Any) -> pd.Index | None:
    return values.index if hasattr(values, "index") and hasattr(values, "reindex") else None


def _vector(name: str, values: Any, problems: list[Problem]) -> NDArray[np.float64] | None:
    if isinstance(values, np.ma.MaskedArray):
        values = np.ma.filled(values.astype(float), np.nan)
    try:
        array = np.array(values, dtype=float)
    except (TypeError, ValueError) as error:
        problems.append(Problem(name, None, None, str(error), "numbers", "remove what is not a number"))
        return None
    if array.ndim != 1 or not len(array):
        value, cure = f"shape {array.shape}", "give one total per node"
        problems.append(Problem(name, None, None, value, "(n,), n at least 1", cure))
        return None
    for row in np.flatnonzero(~(np.isfinite(array) & (array >= 0))).tolist():
        cure = "give a number for every node, 0 where it has none"
        problems.append(Problem(name, None, row, float(array[row]), "finite, at least 0", cure))
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(array).all() and not np.isfinite(array.sum()):
            problems.append(
                Problem(name, None, None, "the total overflows", "a finite sum", "use a larger unit of money")
            )
    return array


def _check_totals(rows: NDArray[np.float64], columns: NDArray[np.float64], problems: list[Problem]) -> None:
    if problems:
        return
    owed, held = rows.sum(), columns.sum()
    if abs(owed - held) > TOTAL_TOLERANCE * max(owed, held):
        value = f"they sum to {owed:.12g}, assets to {held:.12g}: a difference of {owed - held:.6g}"
        cure = "scale one side, or add a node for the rest of the world"
        problems.append(Problem("liabilities", None, None, value, "the same total as assets", cure))


def _left(
    rows: NDArray[np.float64],
    columns: NDArray[np.float64],
    known: Any,
    axes: tuple[_Axis, _Axis],
    problems: list[Problem],
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Take what is known off the margins."""
    placed = known.copy()
    placed.data = np.where(placed.data == _KNOWN_ZERO, 0.0, placed.data)
    parts: list[NDArray[np.float64]] = []
    for axis, name, margin in ((1, "liabilities", rows), (0, "assets", columns)):
        taken = np.asarray(placed.sum(axis=axis))
        left = margin - taken
        left[np.abs(left) <= _ZERO * margin] = 0.0
        for place in np.flatnonzero(left < 0).tolist():
            who, cure = axes[1 - axis].name(place), "correct the known amounts, or the margin"
            value = f"known amounts of {who} sum to {taken[place]:.12g}"
            problems.append(Problem("known", name, place, value, f"at most {margin[place]:.12g}", cure))
        parts.append(left)
    if problems:
        return None
    totals = [part.sum() for part in parts]
    if 0 in totals and max(totals) > TOTAL_TOLERANCE * rows.sum():
        cure = "correct the known amounts, or the margins"
        value = f"{totals[0]:.6g} of liabilities and {totals[1]:.6g} of assets are left beside them"
        problems.append(Problem("known", None, None, value, "the same left on both sides", cure))
        return None
    scale = totals[0] / totals[1] if min(totals) > 0 else 0.0
    return (parts[0] if scale else parts[0] * 0.0), parts[1] * scale


# cells ------------------------------------------------------------------------------------------------------------

_KNOWN_ZERO = np.finfo(float).tiny  # stands for a known 0 in a sparse matrix, until it is read


class _Axis(NamedTuple):
    size: int
    labels: pd.Index | None

    def name(self, place: int) -> str:
        return str(place) if self.labels is None else repr(plain(self.labels[place]))

    def place(self, label: Any) -> int:
        """Place of a label, -1 where there is none."""
        if self.labels is None:
            whole = isinstance(label, (int, np.integer)) and not isinstance(label, bool)
            return int(label) if whole and 0 <= label < self.size else -1
        try:
            found = self.labels.get_loc(label)
        except (KeyError, TypeError):
            return -1
        return found if isinstance(found, int) else -1

    def near(self, label: Any) -> list[Any]:
        return [] if self.labels is None else nearest(label, self.labels)


def _known(given: Any, axes: tuple[_Axis, _Axis], problems: list[Problem]) -> Any:
    """Amounts that are known, with known zeros stored; from a mapping of pairs, or a matrix with NaN elsewhere."""
    from scipy.sparse import csr_array

    shape = (axes[0].size, axes[1].size)
    if given is None:
        return csr_array(shape)
    rows: Any
    columns: Any
    amounts: Any
    if isinstance(given, Mapping):
        places = _pairs("known", given, axes, problems)
        rows, columns, amounts = [i for i, _, _ in places], [j for _, j, _ in places], [v for *_, v in places]
    else:
        matrix: Any = _matrix("known", given, axes, problems)
        if matrix is None:
            return csr_array(shape)
        if not isinstance(matrix, np.ndarray):
            cells = matrix.tocoo()
            rows, columns, amounts = cells.row, cells.col, cells.data
        else:
            rows, columns = np.nonzero(~np.isnan(matrix))
            amounts = matrix[rows, columns]
    try:
        values = np.array(amounts, dtype=float)
    except (TypeError, ValueError) as error:
        problems.append(Problem("known", None, None, str(error), "numbers", "remove what is not a number"))
        return csr_array(shape)
    for at in np.flatnonzero(~(np.isfinite(values) & (values >= 0))).tolist():
        cell = axes[1].name(int(columns[at]))
        problems.append(Problem("known", cell, int(rows[at]), float(values[at]), "finite, at least 0", "correct it"))
    values[values == 0] = _KNOWN_ZERO
    return csr_array((values, (np.array(rows, dtype=np.intp), np.array(columns, dtype=np.intp))), shape=shape)


def _forbidden(given: Any, axes: tuple[_Axis, _Axis], problems: list[Problem]) -> Any:
    """Cells that must be 0: from pairs, or a matrix that is true there."""
    from scipy.sparse import csr_array, issparse

    shape = (axes[0].size, axes[1].size)
    if given is None:
        return csr_array(shape, dtype=bool)
    if hasattr(given, "shape") and len(given.shape) == 2 and not isinstance(given, Mapping):
        matrix = _matrix("forbidden", given, axes, problems)
        if matrix is None:
            return csr_array(shape, dtype=bool)
        if not issparse(matrix) and not np.isin(matrix, (0, 1)).all():
            cure = "give True where no link may be"
            problems.append(Problem("forbidden", None, None, "cells that are neither", "True or False", cure))
            return csr_array(shape, dtype=bool)
        closed = csr_array(matrix).astype(bool)
        closed.eliminate_zeros()
        return closed
    try:
        wanted = {(row, column): True for row, column in given}  # noqa: C420 pairs only
    except (TypeError, ValueError):
        cure = "give pairs (debtor, creditor), or a matrix of True and False"
        problems.append(Problem("forbidden", None, None, f"{given!r:.60}", "pairs or a matrix", cure))
        return csr_array(shape, dtype=bool)
    places = _pairs("forbidden", wanted, axes, problems)
    ends = ([i for i, _, _ in places], [j for _, j, _ in places])
    return csr_array((np.ones(len(places), dtype=bool), ends), shape=shape)


def _pairs(name: str, cells: Any, axes: tuple[_Axis, _Axis], problems: list[Problem]) -> list[tuple[int, int, Any]]:
    """Places of labelled cells; a label that no node bears is a problem."""
    found = []
    for row, (key, value) in enumerate(cells.items()):
        if not (isinstance(key, tuple) and len(key) == 2):
            cure = "name the two ends of the cell"
            problems.append(Problem(name, None, row, repr(key), "a pair (debtor, creditor)", cure))
            continue
        places = [axis.place(label) for axis, label in zip(axes, key, strict=True)]
        for place, axis, label, side in zip(places, axes, key, ("debtor", "creditor"), strict=True):
            if place < 0:
                near = axis.near(label)
                cure = f"did you mean {near[0]!r}?" if near else "name a node, by its label or its place"
                problems.append(Problem(name, side, row, repr(label), "a node of the margins", cure))
        if min(places) >= 0:
            found.append((places[0], places[1], value))
    return found


def _matrix(name: str, given: Any, axes: tuple[_Axis, _Axis], problems: list[Problem]) -> Any:
    """Read a matrix of the shape of the result; a frame is joined by label."""
    from scipy.sparse import issparse

    if hasattr(given, "columns") and hasattr(given, "index"):
        ends = [axis.labels if axis.labels is not None else range(axis.size) for axis in axes]
        for labels, own in zip((given.index, given.columns), ends, strict=True):
            if labels.has_duplicates or len(labels.symmetric_difference(own)):
                cure = "label it as the margins are"
                problems.append(Problem(name, None, None, "its labels are not those of the margins", "the same", cure))
                return None
        given = given.reindex(index=ends[0], columns=ends[1])
    try:
        matrix: Any = given if issparse(given) else np.array(given, dtype=float)
    except (TypeError, ValueError) as error:
        problems.append(Problem(name, None, None, str(error), "numbers", "remove what is not a number"))
        return None
    if matrix.shape != (axes[0].size, axes[1].size):
        value, allowed = f"shape {matrix.shape}", f"({axes[0].size}, {axes[1].size})"
        problems.append(Problem(name, None, None, value, allowed, "one row per debtor, one column per creditor"))
        return None
    return matrix


def _check_cells(known: Any, closed: Any, axes: tuple[_Axis, _Axis], bipartite: bool, problems: list[Problem]) -> None:
    cells = known.tocoo()
    both = np.asarray(closed[cells.row, cells.col]).ravel() if cells.nnz else np.zeros(0, dtype=bool)
    for at in np.flatnonzero(both & (cells.data > _KNOWN_ZERO)).tolist():
        cell, cure = axes[1].name(int(cells.col[at])), "drop it from known or from forbidden"
        value = f"{cells.data[at]:g} is known where a link is forbidden"
        problems.append(Problem("known", cell, int(cells.row[at]), value, "one of the two", cure))
    if bipartite:
        return
    for at in np.flatnonzero((cells.row == cells.col) & (cells.data > _KNOWN_ZERO)).tolist():
        cell, cure = axes[1].name(int(cells.col[at])), "remove what a node owes itself"
        problems.append(Problem("known", cell, int(cells.row[at]), float(cells.data[at]), "0 on the diagonal", cure))
