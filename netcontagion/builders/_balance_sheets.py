"""From balance sheets and bilateral exposures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion.errors import Problem, SchemaError, nearest
from netcontagion.network import Column, Door, ExposureNetwork, factorize, label_problem, read_columns, unknown_columns

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

__all__ = ["from_balance_sheets"]

_ITEMS = ("total_assets", "equity", "external_assets", "external_liabilities")
_NEVA = {
    "bank_name": "bank",
    "external_asset": "external_assets",
    "external_liabilities": "external_liabilities",
}
_LABELS = ("bank", "lender", "borrower", "asset")
_RTOL = 1e-6  # relative to total assets: printed balance sheets are rounded


def from_balance_sheets(
    banks: Any, exposures: Any = None, holdings: Any = None, *, numeraire: str = "USD"
) -> ExposureNetwork:
    """Build a network of banks from balance sheets.

    Identities: total_assets = external_assets + interbank assets + holdings, and
    total_assets = equity + external_liabilities + interbank liabilities.

    Parameters
    ----------
    banks : table
        Column (or index) ``bank``, and any sufficient set of ``total_assets``, ``equity``, ``external_assets``,
        ``external_liabilities`` [num]: one of total_assets and external_assets, and one of equity and
        external_liabilities. Or the balance sheets of neva, with columns ``bank_name``, ``external_asset``,
        ``external_liabilities``, where further columns are left out.
    exposures : table, optional
        Columns ``lender``, ``borrower``, ``amount`` [num]: the borrower owes the lender. Repeated pairs are summed.
    holdings : table, optional
        Columns ``bank``, ``asset``, ``value`` [num]: marketable assets, kept as units of price 1. Not part of
        ``external_assets``.
    numeraire : str, default "USD"
        Unit of money.

    Raises
    ------
    SchemaError
        Listing every problem: too little given, items that contradict each other by more than 1e-6 of total assets,
        unknown banks, negative or empty amounts.

    Examples
    --------
    >>> from netcontagion import builders
    >>> net = builders.from_balance_sheets(
    ...     {"bank": ["a", "b"], "total_assets": [10.0, 8.0], "equity": [2.0, 3.0]},
    ...     {"lender": ["b"], "borrower": ["a"], "amount": [4.0]})
    >>> net.traders["external_liabilities"].tolist()
    [4.0, 5.0]
    """
    problems: list[Problem] = []
    sheet = _sheet(banks, problems)
    loans = _long(exposures, "exposures", ("lender", "borrower", "amount"), problems)
    held = _long(holdings, "holdings", ("bank", "asset", "value"), problems)
    if any(problem.row is None for problem in problems):
        raise SchemaError(problems)
    for table, name, ends in ((loans, "exposures", ("lender", "borrower")), (held, "holdings", ("bank",))):
        _check_rows(table, name, ends, sheet.index, problems)
    if problems:
        raise SchemaError(problems)
    lent = _sum_by(loans, "lender", "amount", sheet.index)
    owed = _sum_by(loans, "borrower", "amount", sheet.index)
    marketable = _sum_by(held, "bank", "value", sheet.index)
    outside = _solve(sheet, lent, owed, marketable, problems)
    if problems:
        raise SchemaError(problems)
    summed = loans.groupby(["borrower", "lender"], sort=True)["amount"].sum().reset_index()
    tables: dict[str, Any] = {"traders": {"trader": sheet.index.to_numpy(), "kind": ["bank"] * len(sheet), **outside}}
    if len(summed):
        tables["liabilities"] = {"debtor": summed["borrower"], "creditor": summed["lender"], "amount": summed["amount"]}
    if len(held):
        units = held.groupby(["bank", "asset"], sort=True)["value"].sum().reset_index()
        tables["assets"] = {"asset": units["asset"].unique(), "price": np.ones(units["asset"].nunique())}
        tables["holdings"] = {"trader": units["bank"], "asset": units["asset"], "units": units["value"]}
    return ExposureNetwork(**tables, numeraire=numeraire)


def _sheet(banks: Any, problems: list[Problem]) -> pd.DataFrame:
    import pandas as pd

    columns = _read(banks, "banks", ("bank",), problems)
    if not columns:
        return pd.DataFrame(index=pd.Index([], name="bank"))
    frame = pd.DataFrame({name: columns[name] for name in ("bank", *_ITEMS) if name in columns}).set_index("bank")
    problems.extend(
        Problem("banks", "bank", row, repr(frame.index[row]), "no label twice", "keep one row")
        for row in np.flatnonzero(frame.index.duplicated() & frame.index.notna()).tolist()
    )
    for needed in (("total_assets", "external_assets"), ("equity", "external_liabilities")):
        if not any(name in frame for name in needed):
            value = f"neither {needed[0]} nor {needed[1]} is given"
            problems.append(Problem("banks", None, None, value, f"{needed[0]} or {needed[1]}", "give one of them"))
    return frame


def _long(table: Any, name: str, wanted: tuple[str, ...], problems: list[Problem]) -> pd.DataFrame:
    import pandas as pd

    columns = {} if table is None else _read(table, name, wanted, problems)
    if not columns:
        return pd.DataFrame({column: pd.Series(dtype=float if column == wanted[-1] else object) for column in wanted})
    return pd.DataFrame({column: columns[column] for column in wanted})


def _read(table: Any, name: str, wanted: tuple[str, ...], problems: list[Problem]) -> dict[str, Any]:
    """Read labels and numbers; nothing where the table as a whole cannot be read."""
    try:
        columns = read_columns(table)
    except TypeError:
        value, cure = f"{type(table).__name__} {table!r:.60}", "give a table, or a dict of columns"
        problems.append(Problem(name, None, None, value, "anything with columns", cure))
        return {}
    if wanted[0] not in columns and "index level 0" in columns:
        columns[wanted[0]] = columns.pop("index level 0")
    columns = {column: values for column, values in columns.items() if not column.startswith("index level ")}
    if name == "banks":
        columns = _from_neva(columns)
    known = wanted if name != "banks" else (*wanted, *_ITEMS)
    problems += unknown_columns(name, columns, known)
    missing = [column for column in wanted if column not in columns]
    for column in missing:
        near = nearest(column, columns)
        cure = f"rename {near[0]!r} to {column!r}" if near else f"give a column {column!r}"
        problems.append(Problem(name, column, None, "the column is missing", ", ".join(wanted), cure))
    sizes = sorted({len(values) for values in columns.values()})
    if len(sizes) > 1:
        problems.append(Problem(name, None, None, f"columns of lengths {sizes}", "one length", "give one row per key"))
    if sizes == [0]:
        cure = "give rows, or leave the table out" if name != "banks" else "give rows"
        problems.append(Problem(name, None, None, "the table is empty", "at least one row", cure))
    if missing or sizes == [0] or len(sizes) > 1:
        return {}
    door = Door()
    for column in wanted:
        if column in _LABELS:
            columns[column] = _labels(columns[column], name, column, problems)
    for column in known:
        if column in columns and column not in _LABELS:
            allowed = "(-inf, inf)" if column == "equity" else "[0, inf)"
            spec = Column(name, column, False, False, "number", "num", "required", allowed, "")
            columns[column] = door.numbers(spec, columns[column])
    problems += door.problems
    return columns


def _from_neva(columns: dict[str, Any]) -> dict[str, Any]:
    """Rename the columns of neva's balance sheets; its parameters of banks are left out, other tables as they are."""
    if not set(_NEVA) <= set(columns) or {"bank", "external_assets"} & set(columns):
        return columns
    renamed = {_NEVA.get(column, column): values for column, values in columns.items()}
    return {column: values for column, values in renamed.items() if column in ("bank", *_ITEMS)}


def _labels(values: Any, table: str, name: str, problems: list[Problem]) -> NDArray[np.object_]:
    """Return labels as Python values; those that cannot be labels are problems and become None."""
    codes, uniques = factorize(values)
    labels = np.empty(len(uniques) + 1, dtype=object)
    labels[:-1], labels[-1] = list(uniques), None
    wrong = [label_problem(label) for label in labels.tolist()]
    for row, code in enumerate(codes.tolist()):
        said = wrong[code]
        if said is not None:
            problems.append(Problem(table, name, row, repr(labels[code]), *said))
    labels[[said is not None for said in wrong]] = None
    return labels[codes]


def _check_rows(table: pd.DataFrame, name: str, ends: tuple[str, ...], banks: Any, problems: list[Problem]) -> None:
    for end in ends:
        for row in np.flatnonzero(table[end].notna() & ~table[end].isin(banks)).tolist():
            label = table[end].iloc[row]
            near = nearest(label, banks)
            cure = f"did you mean {near[0]!r}?" if near else "add the bank, or correct the label"
            problems.append(Problem(name, end, row, repr(label), "a label of banks", cure))
    if len(ends) == 2:
        for row in np.flatnonzero(table[ends[0]] == table[ends[1]]).tolist():
            value = f"{table[ends[0]].iloc[row]!r} lends to itself"
            problems.append(Problem(name, ends[1], row, value, "another bank", "drop the row"))


def _sum_by(table: pd.DataFrame, key: str, value: str, banks: Any) -> NDArray[np.float64]:
    summed = table.groupby(key)[value].sum().reindex(banks, fill_value=0.0)
    return summed.to_numpy(dtype=float)


def _solve(
    sheet: pd.DataFrame,
    lent: NDArray[np.float64],
    owed: NDArray[np.float64],
    marketable: NDArray[np.float64],
    problems: list[Problem],
) -> dict[str, NDArray[np.float64]]:
    """Find external assets and liabilities from what is given; what is given twice must agree."""
    given = {name: np.array(sheet[name], dtype=float) for name in _ITEMS if name in sheet}
    assets = given.get("external_assets", given.get("total_assets", 0.0) - lent - marketable)
    total = assets + lent + marketable
    debt = given.get("external_liabilities", total - owed - given.get("equity", 0.0))
    implied = {"total_assets": total, "equity": total - owed - debt, "external_assets": assets}
    scale = np.maximum(np.abs(total), 1e-300)
    for name in ("total_assets", "equity"):
        if name in given:
            for row in np.flatnonzero(np.abs(given[name] - implied[name]) > _RTOL * scale).tolist():
                value = f"{given[name][row]:g} of {sheet.index[row]!r}, but the other items give {implied[name][row]:g}"
                cure = "correct one of the items, or leave the redundant one out"
                problems.append(Problem("banks", name, row, value, "items that agree", cure))
    for name, values in (("external_assets", assets), ("external_liabilities", debt)):
        small = (values < 0) & (values >= -_RTOL * scale)
        values[small] = 0.0
        for row in np.flatnonzero(values < 0).tolist():
            value = f"{values[row]:g} follows for {sheet.index[row]!r}"
            cure = "total assets (or liabilities) must cover the interbank part"
            problems.append(Problem("banks", name, row, value, "0 or more", cure))
    return {"external_assets": assets, "external_liabilities": debt}
