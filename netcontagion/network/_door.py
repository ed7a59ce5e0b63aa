"""The door: tables of any kind in, checked columns of numbers and integer codes out.

Nothing is half loaded: every problem of every table is collected and raised in one ``SchemaError``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion._arrays import plain
from netcontagion.errors import SHOWN_PROBLEMS, Problem, SchemaError, nearest
from netcontagion.network._labels import Coded, clean_text, factorize, is_null, label_problem, rank
from netcontagion.network._schema import Column, schema

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

__all__ = ["Door", "read_columns", "unknown_columns"]


def read_columns(table: Any) -> dict[str, Any]:
    """Read anything with columns: pandas, polars, pyarrow, a DuckDB relation, a dict of arrays.

    NULL stays NULL: masked arrays become NaN or None, never 0. Index levels of a pandas table come as columns, those of
    a ``MultiIndex`` as categoricals, so that no label is copied.
    """
    import pandas as pd

    if isinstance(table, pd.Series):
        table = table.to_frame()
    if isinstance(table, pd.DataFrame):
        return _read_pandas(table)
    if isinstance(table, Mapping):
        return {str(name): _one_dimensional(values) for name, values in table.items()}
    import narwhals as nw

    frame: Any = nw.from_native(table)
    if isinstance(frame, nw.LazyFrame):
        frame = frame.collect()
    return {name: frame[name].to_numpy() for name in frame.columns}


def _one_dimensional(values: Any) -> Any:
    if isinstance(values, np.ma.MaskedArray):
        mask, number = np.ma.getmaskarray(values), values.dtype.kind in "iuf"
        values = np.array(values.data, dtype=float if number else object)
        values[mask] = np.nan if number else None
    if hasattr(values, "categories") or (isinstance(values, np.ndarray) and values.ndim == 1):
        return values
    if hasattr(values, "to_numpy"):
        return values.to_numpy()
    items = [values] if isinstance(values, str) or not isinstance(values, Iterable) else list(values)
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return _natural(array)


def _natural(array: NDArray[Any]) -> NDArray[Any]:
    """Turn an object array of numbers into a numeric one; leave text, booleans and mixtures alone."""
    if all(isinstance(v, (int, float, np.integer, np.floating)) and not isinstance(v, bool) for v in array):
        return np.array(array.tolist())
    return array


def _read_pandas(table: pd.DataFrame) -> dict[str, Any]:
    import pandas as pd

    columns: dict[str, Any] = {}
    index = table.index
    if isinstance(index, pd.MultiIndex):
        for level, name in enumerate(index.names):
            categories, codes = index.levels[level], index.codes[level]
            columns[_level_name(name, level)] = pd.Categorical.from_codes(codes, categories=categories)
    elif index.name is not None or not isinstance(index, pd.RangeIndex):
        columns[_level_name(index.name, 0)] = index.to_numpy()
    for place, again in enumerate(table.columns.duplicated()):
        values, name = table.iloc[:, place], str(table.columns[place])
        columns[f"{name} (again)" if again else name] = (
            values.array if isinstance(values.dtype, pd.CategoricalDtype) else values.to_numpy()
        )
    return columns


def _level_name(name: Any, level: int) -> str:
    return f"index level {level}" if name is None else str(name)


def unknown_columns(table: str, columns: Iterable[str], known: Iterable[str]) -> list[Problem]:
    """Note every column that nobody would read, with the name it may have been meant for."""
    allowed = list(known)
    problems = []
    for unknown in [column for column in columns if column not in allowed]:
        near = nearest(unknown, allowed)
        cure = f"rename it to {near[0]!r}" if near else "leave it out"
        problems.append(Problem(table, None, None, f"unknown column {unknown!r}", ", ".join(allowed), cure))
    return problems


@dataclass
class Door:
    """Reads the tables one after the other and keeps what is wrong with them."""

    problems: list[Problem] = field(default_factory=list)
    given: dict[str, NDArray[np.intp]] = field(default_factory=dict)  # rows of a table that were kept

    def add(self, column: Column, row: int | None, value: object, cure: str, allowed: str | None = None) -> None:
        """Note one problem."""
        shown = repr(plain(value)) if row is not None else str(value)
        self.problems.append(
            Problem(column.table, column.name, row, shown, allowed or _allowed(column), cure),
        )

    def raise_if_any(self) -> None:
        """Raise what was collected, all of it at once: one problem per cell, rows as in the tables that were given."""
        cells: dict[object, Problem] = {}
        for place, problem in enumerate(self.problems):
            cell = place if problem.row is None else (problem.table, problem.column, problem.row)
            cells.setdefault(cell, problem)
        if cells:
            raise SchemaError(self._as_given(problem) for problem in cells.values())

    def _as_given(self, problem: Problem) -> Problem:
        if problem.row is None or problem.table not in self.given:
            return problem
        return replace(problem, row=int(self.given[problem.table][problem.row]))

    def open(self, name: str, table: Any) -> dict[str, Any]:
        """Read one table: known columns only, keys present, columns of one length."""
        known = schema()[name]
        try:
            columns = self._name_index(name, read_columns(table))
        except TypeError:
            cure = "give a pandas, polars or pyarrow table, or a dict of columns"
            self._table_problem(name, f"{type(table).__name__} {table!r:.60}", "anything with columns", cure)
            return {}
        lengths = {len(values) for values in columns.values()}
        if len(lengths) > 1:
            self._table_problem(name, f"columns of lengths {sorted(lengths)}", "one length", "give one row per key")
            return {}
        self.problems += unknown_columns(name, columns, known)
        columns = {column: values for column, values in columns.items() if column in known}
        for column in known.values():
            if column.required and column.name not in columns:
                self.add(column, None, "the column is missing", f"give {name}.{column.name}", _allowed(column))
        return columns

    def _name_index(self, name: str, columns: dict[str, Any]) -> dict[str, Any]:
        keys = [column.name for column in schema()[name].values() if column.key]
        unnamed = [column for column in columns if column.startswith("index level ")]
        missing = [key for key in keys if key not in columns]
        if len(unnamed) == len(missing):
            return {missing[unnamed.index(c)] if c in unnamed else c: values for c, values in columns.items()}
        return {column: values for column, values in columns.items() if column not in unnamed}

    def _table_problem(self, table: str, value: str, allowed: str, cure: str) -> None:
        self.problems.append(Problem(table, None, None, value, allowed, cure))

    def empty(self, name: str) -> None:
        """Note that a table that was given has no rows."""
        self._table_problem(name, "the table is empty", "at least one row", "give rows, or leave the table out")

    # labels -------------------------------------------------------------------------------------------------------

    def labels(self, column: Column, values: Any) -> tuple[pd.Index, NDArray[np.intp] | None]:
        """Check a key of labels; return them sorted, and the order that sorts them (None where they do not hold)."""
        import pandas as pd

        if isinstance(values, Coded) and values.is_key:
            return values.categories.rename(column.name), np.arange(len(values))
        array = values if isinstance(values, np.ndarray) else np.asarray(values)
        bad = self._label_problems(column, array)
        index = pd.Index(array[~bad] if bad.any() else array, tupleize_cols=False, name=column.name)
        order = None if bad.any() else rank(index)
        if order is not None:
            return index[order], order
        rows = np.flatnonzero(~bad)
        for place in np.flatnonzero(index.duplicated()).tolist():
            self.add(column, int(rows[place]), index[place], "keep one row of each key", "no label twice")
        return index.unique(), None

    def _label_problems(self, column: Column, array: NDArray[Any]) -> NDArray[np.bool_]:
        bad = np.zeros(len(array), dtype=bool)
        if array.dtype.kind in "iu":
            return bad
        if array.dtype.kind not in "OUT":
            self.add(column, None, f"labels of type {array.dtype}", "give text or whole numbers", "text or integers")
            return ~bad
        if clean_text(array):
            return bad
        kinds = set()
        for row, value in enumerate(array.tolist()):
            problem = label_problem(value)
            kinds.add(isinstance(value, str))
            if problem is not None:
                bad[row] = True
                self.add(column, row, value, problem[1], problem[0])
        if len(kinds) > 1 and not bad.any():
            self.add(column, None, "text and numbers mixed", "use one type of label", "all text or all integers")
            bad[:] = True
        return bad

    def codes(self, column: Column, values: Any, labels: pd.Index) -> NDArray[np.int32]:
        """Turn labels into integer codes; unknown and empty ones are problems (empty is -1 where allowed)."""
        if isinstance(values, Coded) and values.ranked and values.categories.is_(labels):
            return values.codes.astype(np.int32)
        rows, uniques = factorize(values)
        where = labels.get_indexer(_plain_index(uniques))
        codes = np.where(rows >= 0, where[rows], -1).astype(np.int32) if len(where) else np.full(len(rows), -1, "i4")
        wrong = np.flatnonzero((codes < 0) & ((rows >= 0) | (not column.nullable)))
        cures: dict[int, str] = {}
        for row in wrong.tolist():
            if rows[row] < 0:
                self.add(column, row, None, f"name a row of {column.refers_to}")
            else:
                label = uniques[rows[row]]
                if rows[row] not in cures:  # near names are looked for once per label, and for as many as are shown
                    known = labels if len(cures) < SHOWN_PROBLEMS else labels[:0]
                    cures[rows[row]] = _unknown_cure(label, known, column)
                stray = isinstance(label, str) and label != label.strip()
                allowed = "no spaces around a label" if stray else f"a label of {column.refers_to}"
                self.add(column, row, label, cures[rows[row]], allowed)
        return codes

    # values -------------------------------------------------------------------------------------------------------

    def numbers(self, column: Column, values: Any) -> NDArray[Any]:
        """Check a column of numbers: no text, no NULL where none is allowed, everything inside the bounds."""
        array = _as_float(self, column, values)
        if array is None:
            return np.zeros(len(values))
        empty = np.isnan(array)
        if not column.nullable:
            for row in np.flatnonzero(empty).tolist():
                if is_null(plain(values[row])):
                    self.add(column, row, None, _null_cure(column))
        outside = ~empty & ~column.interval.holds(array)
        for row in np.flatnonzero(outside).tolist():
            self.add(column, row, array[row], f"correct {column.table}.{column.name}{_as_fraction(column, array[row])}")
        if column.dtype == "integer":
            for row in np.flatnonzero(~empty & ~outside & (array != np.floor(array))).tolist():
                self.add(column, row, array[row], "give a whole number")
            return np.where(empty, 0, array).astype(np.int64)
        return array

    def words(self, column: Column, values: Any) -> NDArray[np.object_]:
        """Check a column of text: words of the list where there is one, no stray spaces."""
        import pandas as pd

        array = np.asarray(values, dtype=object)
        if pd.api.types.infer_dtype(array, skipna=True) == "string":
            codes, distinct = pd.factorize(array)
            if (column.nullable or (codes >= 0).all()) and not any(_word_problem(column, word) for word in distinct):
                return np.array([*distinct, None], dtype=object)[codes]
        words = np.array([None if is_null(value) else value for value in array.tolist()], dtype=object)
        for row, word in enumerate(words.tolist()):
            problem = _word_problem(column, word)
            if problem is not None:
                self.add(column, row, word, *problem)
        return words

    def flags(self, column: Column, values: Any) -> NDArray[np.bool_]:
        """Check a column of booleans."""
        array = np.asarray(values)
        if array.dtype.kind == "b":
            return array.astype(bool)
        for row, value in enumerate(array.tolist()):
            if not isinstance(value, (bool, np.bool_)):
                self.add(column, row, value, "give True or False", "True or False")
        return np.array([isinstance(value, (bool, np.bool_)) and bool(value) for value in array.tolist()], dtype=bool)

    def values(self, column: Column, columns: Mapping[str, Any], size: int) -> NDArray[Any]:
        """Check a column of any kind but labels, filling in the default of one that was left out."""
        if column.name not in columns:
            kind = {"number": float, "integer": np.int64, "boolean": bool}.get(column.dtype, object)
            return np.full(size, column.default_value, dtype=kind)
        given = columns[column.name]
        if column.numeric:
            return self.numbers(column, given)
        return self.flags(column, given) if column.dtype == "boolean" else self.words(column, given)

    def unique(self, table: str, keys: list[NDArray[Any]], order: NDArray[np.intp], shown: list[Any]) -> None:
        """Note every row whose key stood before; ``order`` sorts the keys."""
        same = np.ones(max(len(order) - 1, 0), dtype=bool)
        for key in keys:
            ranked = key[order]
            same &= ranked[1:] == ranked[:-1]
        names = [column.name for column in schema()[table].values() if column.identity]
        for place in np.flatnonzero(same).tolist():
            row = int(order[place + 1])
            label = tuple(plain(values[row]) for values in shown)
            self.problems.append(
                Problem(table, ", ".join(names), row, f"{label!r} stands twice", "one row per key", "sum or drop one"),
            )


def _word_problem(column: Column, word: Any) -> tuple[str, str | None] | None:
    """Return the cure of a word that cannot stand in the column, and what is allowed where that is not plain."""
    if word is None:
        return None if column.nullable else (_null_cure(column), None)
    if not isinstance(word, str):
        return None if column.dtype == "name" and isinstance(word, int) else ("give text", None)
    if word != word.strip():
        return f"write {word.strip()!r}", "no spaces around a name"
    if word == "":
        return "write something, or leave the cell empty", "text that is not empty"
    if not column.admits(word):
        near = nearest(word, column.choices)
        return f"did you mean {near[0]!r}?" if near else "choose one of the list", None
    return None


def _allowed(column: Column) -> str:
    if column.numeric:
        return f"a number in {column.interval}" + (" or empty" if column.nullable else "")
    if column.refers_to:
        return f"a label of {column.refers_to}" + (" or empty" if column.nullable else "")
    return " or ".join(column.choices) if column.choices else "text"


def _as_fraction(column: Column, value: float) -> str:
    """Guess per cent where a fraction was meant."""
    percent = (
        column.unit == "1" and column.interval.high <= 1 < value and column.interval.holds(np.asarray(value / 100))
    )
    return f", or write {value / 100:g} if per cent was meant" if percent else ""


def _null_cure(column: Column) -> str:
    if column.required:
        return f"fill in {column.name}; an empty cell is never read as 0"
    return (
        f"fill in {column.name}, or leave the whole column out for {column.default}; an empty cell is never read as 0"
    )


def _as_float(door: Door, column: Column, values: Any) -> NDArray[np.float64] | None:
    array = np.asarray(values)
    if array.dtype.kind in "iuf":
        return array.astype(np.float64)
    if array.dtype.kind != "O":
        door.add(column, None, f"the column holds {array.dtype}", "give numbers", f"numbers, {_allowed(column)}")
        return None
    result = np.full(len(array), np.nan)
    for row, value in enumerate(array.tolist()):
        if is_null(value):
            continue
        if isinstance(value, (bool, np.bool_, str, bytes, np.ndarray)) or not hasattr(value, "__float__"):
            door.add(column, row, value, "give a number, not text")
            continue
        try:
            result[row] = float(value)
        except OverflowError:
            door.add(column, row, value, "give a number that fits 64 bits")
    return result


def _plain_index(uniques: Any) -> pd.Index:
    import pandas as pd

    return uniques if isinstance(uniques, pd.Index) else pd.Index(uniques, tupleize_cols=False)


def _unknown_cure(label: Any, labels: pd.Index, column: Column) -> str:
    near = nearest(label, labels)
    if isinstance(label, str) and label != label.strip():
        return f"write {label.strip()!r}"
    if near:
        return f"did you mean {near[0]!r}?"
    return f"add a row to {column.refers_to}, or correct the label"
