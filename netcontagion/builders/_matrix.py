"""From a liability matrix whose orientation is named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion._arrays import plain
from netcontagion.errors import Problem, SchemaError
from netcontagion.network import Column, Door, ExposureNetwork, read_columns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

__all__ = ["from_matrix"]


def from_matrix(
    matrix: Any,
    *,
    rows: str,
    external_assets: ArrayLike,
    external_liabilities: ArrayLike | None = None,
    labels: Sequence[Any] | None = None,
    numeraire: str = "USD",
) -> ExposureNetwork:
    """Build a network of banks from a square matrix of what they owe each other.

    Parameters
    ----------
    matrix : (n, n) array, scipy sparse array or DataFrame
        Amounts [num]. A DataFrame names its nodes and is joined by label.
    rows : {"debtor", "creditor"}
        What a row is: ``"debtor"`` when entry (i, j) is what i owes j, ``"creditor"`` when it is i's claim on j.
        There is no default: a transposed network still solves, and looks plausible.
    external_assets : (n,) array
        Assets outside the network [num]. A Series with labels is joined by label.
    external_liabilities : (n,) array, optional
        Debt to outside creditors [num], default 0.
    labels : sequence, optional
        Names of the nodes; default 0, 1, ..., or the index of a DataFrame.
    numeraire : str, default "USD"
        Unit of money.

    Raises
    ------
    SchemaError
        Listing every problem: not square, wrong length, negative or NaN amounts, amounts on the diagonal.

    Examples
    --------
    >>> from netcontagion import builders
    >>> net = builders.from_matrix([[0, 5], [2, 0]], rows="debtor", external_assets=[4, 1], labels=["a", "b"])
    >>> float(net.liabilities.loc[("a", "b"), "amount"])
    5.0
    """
    if rows not in ("debtor", "creditor"):
        cure = "say what a row is: it has no default, a transposed network still solves"
        allowed = "'debtor' (row owes column) or 'creditor' (row has a claim on column)"
        raise SchemaError([Problem("matrix", "rows", None, repr(rows), allowed, cure)])
    names, entries, problems = _read(matrix, labels)
    outside = {"external_assets": external_assets, "external_liabilities": external_liabilities}
    vectors: dict[str, Any] = {}
    for name, values in outside.items():
        if values is not None:
            vectors[name] = _vector(name, values, names, problems)
    if problems:
        raise SchemaError(problems)
    keep = entries.data != 0
    ends = {"debtor": entries.row[keep], "creditor": entries.col[keep]}
    if rows == "creditor":
        ends = {"debtor": ends["creditor"], "creditor": ends["debtor"]}
    liabilities = {name: names[codes] for name, codes in ends.items()} | {"amount": entries.data[keep]}
    return ExposureNetwork(
        traders={"trader": names, **vectors},
        liabilities=liabilities if keep.any() else None,
        numeraire=numeraire,
    )


def _read(matrix: Any, labels: Any) -> tuple[NDArray[Any], Any, list[Problem]]:
    """Return the names of the nodes and the entries (a copy), or what is wrong with them."""
    import pandas as pd
    from scipy.sparse import coo_array, issparse

    problems: list[Problem] = []
    if isinstance(matrix, pd.DataFrame):
        problems += _name_problems(matrix, labels)
        if problems:
            return np.zeros(0, dtype=object), None, problems
        matrix, labels = matrix[matrix.index], matrix.index
    if not issparse(matrix):
        matrix = _dense(matrix, labels, problems)
    shape = matrix.shape
    if len(shape) != 2 or shape[0] != shape[1] or not shape[0]:
        problems.append(
            Problem("matrix", None, None, f"shape {shape}", "a square matrix", "one row and column per node")
        )
        return np.zeros(0, dtype=object), None, problems
    names = np.arange(shape[0]) if labels is None else np.asarray(read_columns({"labels": labels})["labels"])
    if names.shape != (shape[0],):
        cure = "give one name per row of the matrix"
        problems.append(Problem("labels", None, None, f"shape {names.shape}", f"({shape[0]},)", cure))
        names = np.arange(shape[0])
    entries = coo_array(matrix, copy=True).astype(float)
    entries.sum_duplicates()
    for row, column, value in zip(*_refused(entries), strict=True):
        cell = repr(plain(names[column]))
        if value > 0 and np.isfinite(value):
            cure = "take it out: no node owes itself"
            problems.append(Problem("matrix", cell, int(row), f"{value:g} on the diagonal", "0 on the diagonal", cure))
        elif not any(problem.row == row and problem.column == cell for problem in problems):
            cure = "correct it; an empty cell is never read as 0"
            problems.append(Problem("matrix", cell, int(row), repr(float(value)), "a number in [0, inf)", cure))
    return names, entries, problems


def _dense(matrix: Any, labels: Any, problems: list[Problem]) -> NDArray[np.float64]:
    """Turn rows of numbers into floats: what is masked or empty becomes NaN, text is a problem."""
    if isinstance(matrix, np.ma.MaskedArray):
        return np.ma.filled(matrix.astype(float), np.nan)
    array = np.asarray(matrix)
    if array.dtype.kind in "iuf":
        return array.astype(float)
    array, door = np.array(matrix, dtype=object), Door()
    numbers = np.full(array.shape, np.nan)
    for column in range(array.shape[1] if array.ndim == 2 else 0):
        name = column if labels is None else plain(list(labels)[column])
        spec = Column("matrix", repr(name), False, False, "number", "num", "empty", "(-inf, inf)", "")
        numbers[:, column] = door.numbers(spec, array[:, column])
    problems += door.problems
    return numbers


def _refused(entries: Any) -> tuple[Any, ...]:
    with np.errstate(invalid="ignore"):
        wrong = ~((entries.data >= 0) & np.isfinite(entries.data)) | (
            (entries.row == entries.col) & (entries.data != 0)
        )
    return entries.row[wrong], entries.col[wrong], entries.data[wrong]


def _name_problems(matrix: Any, labels: Any) -> list[Problem]:
    if labels is not None and list(labels) != list(matrix.index):
        return [Problem("matrix", None, None, "labels differ from the index", "one set of labels", "leave labels out")]
    missing = matrix.index.symmetric_difference(matrix.columns)
    if matrix.index.has_duplicates or matrix.columns.has_duplicates:
        return [Problem("matrix", None, None, "a label stands twice", "no label twice", "sum or drop one")]
    if len(missing):
        value = f"rows and columns name different nodes: {', '.join(map(str, missing[:5]))}"
        return [Problem("matrix", None, None, value, "the same labels on both sides", "reindex the matrix")]
    return []


def _vector(name: str, values: Any, names: NDArray[Any], problems: list[Problem]) -> Any:
    """Read one value per node: a Series with labels of its own is joined by label, anything else by place."""
    import pandas as pd

    whole = np.asarray(names).dtype.kind in "iu"
    if isinstance(values, pd.Series) and (whole or not isinstance(values.index, pd.RangeIndex)):
        index = pd.Index(names, tupleize_cols=False)
        if values.index.has_duplicates or len(values.index.symmetric_difference(index)):
            cure = "give one value per node, or leave the labels out"
            problems.append(Problem(name, None, None, "its labels are not the matrix's", "the same labels", cure))
            return values
        values = values.reindex(index)
    column = read_columns({name: values})[name]
    if len(names) and len(column) != len(names):
        cure = "give one value per row of the matrix"
        problems.append(Problem(name, None, None, f"shape ({len(column)},)", f"({len(names)},)", cure))
        return column
    door = Door()
    door.numbers(Column("traders", name, False, False, "number", "num", "required", "[0, inf)", ""), column)
    problems += door.problems
    return column
