"""Sparse views of the tables, each of which names its rows, columns and unit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion.errors import UnknownLabelError
from netcontagion.network._network import LabelledMatrix

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_array

    from netcontagion.network._network import ExposureNetwork

__all__ = ["exposures"]

_KINDS = ("traders", "exchanges", "assets", "accounts")


def exposures(net: ExposureNetwork, rows: str, columns: str) -> LabelledMatrix:
    """Sum the tables into a sparse matrix; see :meth:`ExposureNetwork.exposures`."""
    for kind in (rows, columns):
        if kind not in _KINDS:
            raise UnknownLabelError(kind, _KINDS, "kind of node")
    cache = net.__dict__.setdefault("_views", {})
    if (rows, columns) not in cache:
        cache[rows, columns] = _build(net, rows, columns)
    view: LabelledMatrix = cache[rows, columns]
    return view


def _build(net: ExposureNetwork, rows: str, columns: str) -> LabelledMatrix:
    if rows == columns:
        return _liabilities(net, rows)
    unit = "units" if {rows, columns} == {"accounts", "assets"} else net.numeraire
    book = net.book
    account = net.columns("accounts")
    amount = book.deposited if unit == "units" else book.deposited * book.balance_mark
    owner = account["trader"][book.balance_account]
    place: dict[str, NDArray[Any]] = {
        "accounts": book.balance_account,
        "assets": net.columns("balances")["asset"],
        "traders": owner,
        "exchanges": book.market_exchange[book.balance_market],
    }
    entries = [(place[rows], place[columns], amount)]
    if {rows, columns} == {"traders", "assets"}:
        price = net.columns("assets")["price"]
        for name in ("wallets", "holdings"):
            table = net.columns(name)
            ends = {"traders": table["trader"], "assets": table["asset"]}
            entries.append((ends[rows], ends[columns], table["units"] * price[table["asset"]]))
    row, column, value = (np.concatenate(parts) for parts in zip(*entries, strict=True))
    keep = value > 0
    matrix = _sum(row[keep], column[keep], value[keep], (len(net.labels(rows)), len(net.labels(columns))))
    return LabelledMatrix(matrix, net.labels(rows), net.labels(columns), unit)


def _liabilities(net: ExposureNetwork, kind: str) -> LabelledMatrix:
    if kind not in ("traders", "exchanges"):
        raise ValueError(f"{kind} x {kind}: only traders and exchanges owe each other")
    table, labels = net.columns("liabilities"), net.labels(kind)
    first = 0 if kind == "traders" else len(net.labels("traders"))
    debtor, creditor = table["debtor"] - first, table["creditor"] - first
    size = len(labels)
    keep = (debtor >= 0) & (debtor < size) & (creditor >= 0) & (creditor < size)
    matrix = _sum(debtor[keep], creditor[keep], table["amount"][keep], (size, size))
    return LabelledMatrix(matrix, labels, labels, net.numeraire)


def _sum(row: NDArray[Any], column: NDArray[Any], value: NDArray[Any], shape: tuple[int, int]) -> csr_array:
    from scipy.sparse import coo_array

    matrix = coo_array((value, (row, column)), shape=shape).tocsr()
    matrix.sum_duplicates()
    for array in (matrix.data, matrix.indices, matrix.indptr):
        array.flags.writeable = False
    return matrix
