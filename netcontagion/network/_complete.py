"""Partial books: what an account holds but no table says, and ``others@`` for what is missing on the other side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion._arrays import group_sum
from netcontagion.errors import Problem
from netcontagion.network._labels import OTHERS
from netcontagion.network._schema import schema

if TYPE_CHECKING:
    from netcontagion.network._assemble import Assembly
    from netcontagion.network._door import Door

__all__ = ["add_missing_markets", "complete_book"]

_COMPLETE_RTOL = 1e-12  # a gap below this share of the borrowed units is rounding, not a partial book


def add_missing_markets(assembly: Assembly) -> None:
    """Give a market row to all that accounts hold a balance or position in, and to what their contracts settle in."""
    assets = len(assembly.labels["assets"])
    exchange = assembly.columns["accounts"]["exchange"].astype(np.int64)
    held = [assembly.columns[name] for name in ("balances", "positions")]
    used = np.zeros(len(assembly.labels["exchanges"]) * assets, dtype=bool)
    for table in held:
        used[exchange[table["account"]] * assets + table["asset"]] = True
    asset, position = assembly.columns["assets"], assembly.columns["positions"]
    coin = asset["settlement"][position["asset"]]
    used[(exchange[position["account"]] * assets + coin)[coin >= 0]] = True
    pairs = np.flatnonzero(used)
    market = assembly.columns["markets"]
    known = market["exchange"].astype(np.int64) * assets + market["asset"]
    new = np.setdiff1d(pairs, known)
    if not len(new):
        return
    order = np.argsort(np.concatenate([known, new]), kind="stable")
    filled: dict[str, Any] = {}
    for column in schema()["markets"].values():
        fresh: Any = np.full(len(new), column.default_value, dtype=float if column.dtype == "number" else object)
        if column.name == "exchange":
            fresh = (new // assets).astype(np.int32)
        elif column.name == "asset":
            fresh = (new % assets).astype(np.int32)
        filled[column.name] = np.concatenate([market[column.name], fresh])[order]
    assembly.columns["markets"] = filled
    assembly.order["markets"] = np.concatenate([assembly.order["markets"], np.full(len(new), -1, dtype=np.intp)])[order]


def complete_book(door: Door, assembly: Assembly, *, complete: bool) -> None:
    """Add ``others@<exchange>``, which supplies what is borrowed beyond deposits and closes open contracts."""
    n_assets, n_exchanges = len(assembly.labels["assets"]), len(assembly.labels["exchanges"])
    supply = _missing_supply(assembly, n_exchanges, n_assets)
    contracts = _missing_contracts(door, assembly, n_assets)
    exchanges = sorted({exchange for exchange, _ in supply} | {exchange for exchange, _ in contracts})
    if not exchanges:
        return
    names = assembly.labels["exchanges"]
    if complete:
        for (exchange, asset), units in supply.items():
            value = f"{names[exchange]!r} lends {units:g} {assembly.labels['assets'][asset]!r} more than is deposited"
            cure = "add the missing depositors, or complete=False to add others@<exchange>"
            door.problems.append(Problem("balances", "deposited", None, value, "deposits that cover the loans", cure))
        for exchange, asset in contracts:
            value = f"positions in {assembly.labels['assets'][asset]!r} at {names[exchange]!r} do not sum to zero"
            cure = "add the missing side, or complete=False to add others@<exchange>"
            door.problems.append(Problem("positions", "quantity", None, value, "a zero-sum contract", cure))
        return
    account_of = _append_others(assembly, [f"{OTHERS}{names[exchange]}" for exchange in exchanges], exchanges)
    _append_rows(
        assembly,
        "balances",
        [
            {"account": account_of[exchange], "asset": asset, "deposited": units, "borrowed": 0.0}
            for (exchange, asset), units in sorted(supply.items())
        ],
    )
    _append_rows(
        assembly,
        "positions",
        [
            {"account": account_of[exchange], "asset": asset, "quantity": quantity, "entry_price": entry}
            for (exchange, asset), (quantity, entry) in sorted(contracts.items())
        ],
    )


def _missing_supply(assembly: Assembly, n_exchanges: int, n_assets: int) -> dict[tuple[int, int], float]:
    table = assembly.columns["balances"]
    if not len(table["account"]):
        return {}
    place = assembly.columns["accounts"]["exchange"].astype(np.int64)[table["account"]] * n_assets + table["asset"]
    deposited = group_sum(place, table["deposited"], n_exchanges * n_assets)
    borrowed = group_sum(place, table["borrowed"], n_exchanges * n_assets)
    gap = borrowed - deposited
    short = np.flatnonzero(gap > _COMPLETE_RTOL * borrowed)
    return {(int(key // n_assets), int(key % n_assets)): float(gap[key]) for key in short}


def _missing_contracts(door: Door, assembly: Assembly, n_assets: int) -> dict[tuple[int, int], tuple[float, float]]:
    table = assembly.columns["positions"]
    if not len(table["account"]):
        return {}
    place = assembly.columns["accounts"]["exchange"].astype(np.int64)[table["account"]] * n_assets + table["asset"]
    size = int(place.max()) + 1
    quantity = group_sum(place, table["quantity"], size)
    gross = group_sum(place, np.abs(table["quantity"]), size)
    entry = table["entry_price"]
    inverse = (assembly.columns["assets"]["kind"] == "inverse")[np.arange(size) % n_assets]
    paid = table["quantity"] * np.where(inverse[place], 1 / np.where(inverse[place], entry, 1.0), entry)
    cost, gross_cost = group_sum(place, paid, size), group_sum(place, np.abs(paid), size)
    missing: dict[tuple[int, int], tuple[float, float]] = {}
    for key in np.unique(place).tolist():
        if abs(quantity[key]) > _COMPLETE_RTOL * gross[key]:
            entered = _price_paid(cost[key] / quantity[key], inverse[key])
            missing[key // n_assets, key % n_assets] = (-quantity[key], entered)
        elif abs(cost[key]) > 1e-9 * gross_cost[key]:
            label = assembly.labels["assets"][key % n_assets]
            value = f"quantities of {label!r} sum to zero but entry values do not ({cost[key]:g})"
            cure = "correct the entry prices: what one side paid the other received"
            door.problems.append(Problem("positions", "entry_price", None, value, "a zero-sum contract", cure))
    return missing


def _price_paid(each: float, inverse: bool) -> float:
    """Entry price of what was paid per contract: money if linear, coins of 1 / price if inverse."""
    if not inverse:
        return each
    return 1 / each if each else np.inf


def _append_others(assembly: Assembly, labels: list[str], exchanges: list[int]) -> dict[int, int]:
    import pandas as pd

    first_trader, first_account = len(assembly.labels["traders"]), len(assembly.labels["accounts"])
    for name in ("traders", "accounts"):
        index = assembly.labels[name]
        assembly.labels[name] = index.append(pd.Index(labels, name=index.name))
    traders = [{"kind": "others", "policy": "passive"} for _ in labels]
    _append_rows(assembly, "traders", traders)
    _append_rows(
        assembly,
        "accounts",
        [{"trader": first_trader + place, "exchange": exchange} for place, exchange in enumerate(exchanges)],
    )
    return {exchange: first_account + place for place, exchange in enumerate(exchanges)}


def _append_rows(assembly: Assembly, name: str, rows: list[dict[str, Any]]) -> None:
    columns = assembly.columns[name]
    for column, values in columns.items() if rows else ():
        spec = schema()[name][column]
        default = None if spec.required else spec.default_value
        fresh = np.array([row.get(column, default) for row in rows], dtype=values.dtype)
        columns[column] = np.concatenate([values, fresh])
