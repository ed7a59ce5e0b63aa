"""From a table of positions in perpetual contracts to an exposure network."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion._arrays import group_sum
from netcontagion.builders._side_tables import SideTables
from netcontagion.errors import Problem, SchemaError, nearest
from netcontagion.network import (
    OTHERS,
    Coded,
    Column,
    Door,
    ExposureNetwork,
    clean_text,
    code_labels,
    factorize,
    is_others,
    label_problem,
    read_columns,
    schema,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["from_perpetuals"]

_RULEBOOK = "perpetual"
_BOUNDS = {"quantity": "(-inf, inf)", "entry_price": "(0, inf)", "margin": "[0, inf)"}


def from_perpetuals(
    table: Any,
    *,
    trader: str,
    exchange: str,
    asset: str,
    quantity: str,
    entry_price: str,
    margin: str,
    tiers: Any,
    mode: str | None = None,
    account: str | None = None,
    settlement: Any = None,
    prices: Any = None,
    exchanges: Any = None,
    numeraire: str = "USD",
) -> ExposureNetwork:
    """Build a network from a table of positions in perpetual contracts, one row per position.

    Cross margin: the positions of a trader on an exchange share one account, ``trader@exchange``, which holds the sum
    of their margins. Isolated margin: each position is an account of its own, ``trader@exchange:asset``.

    Parameters
    ----------
    table : table
        pandas, polars, pyarrow, a DuckDB relation or a dict of arrays.
    trader, exchange, asset : str
        Names of the columns that hold the labels; the asset is the contract.
    quantity, entry_price : str
        Columns of contracts held, negative for a short [units], and of the price they were entered at [num/unit].
    margin : str
        Column of units of the settlement asset posted for the position. An account that gives its margin once says 0
        in its other rows.
    tiers : table
        ``initial_margin`` and ``maintenance_margin`` by exchange, asset and ``floor`` [num], or by asset and floor for
        all exchanges; without ``floor`` one rate from 0. Prices may stand there too (``price``, one per contract). No
        default: they decide who is liquidated.
    mode : str, optional
        Column that says "cross" or "isolated"; default: all cross.
    account : str, optional
        Column of account labels, where they are not one per trader and exchange (sub-accounts, hedge mode).
    settlement : label, optional
        Asset the margin is kept in, where the table of assets in ``prices`` does not say it by contract. Default: the
        numeraire, an asset of price 1.
    prices : mapping, Series or table, optional
        Mark by contract, or by exchange and contract; or a table of assets with ``price`` and further columns of
        ``assets`` (kind, settlement, multiplier, underlying, depth). Default: ``tiers.price``.
    exchanges : table, optional
        Rulebook, equity and insurance fund by exchange; default: rulebook "perpetual" without buffers.
    numeraire : str, default "USD"
        Unit of money.

    Returns
    -------
    ExposureNetwork
        A partial book is closed by ``others@<exchange>``; haircuts: ``net.replace(markets=...)``.

    Raises
    ------
    SchemaError
        Listing every problem: missing columns, empty or negative amounts, prices that are none, unknown modes, repeated
        positions, accounts of several owners, contracts without tiers or price.

    Examples
    --------
    >>> from netcontagion import builders
    >>> book = {"who": ["ann", "bob"], "at": ["Perp"] * 2, "what": ["BTC-PERP"] * 2, "size": [10.0, -10.0],
    ...         "entry": [100.0, 100.0], "cash": [50.0, 80.0]}
    >>> tiers = {"asset": ["BTC-PERP"], "initial_margin": [0.01], "maintenance_margin": [0.005]}
    >>> net = builders.from_perpetuals(book, trader="who", exchange="at", asset="what", quantity="size",
    ...                                entry_price="entry", margin="cash", tiers=tiers, prices={"BTC-PERP": 100.0})
    >>> net.health().tolist()
    [10.0, 16.0]
    """
    names: dict[str, str | None] = {"trader": trader, "exchange": exchange, "asset": asset, "quantity": quantity}
    names |= {"entry_price": entry_price, "margin": margin, "mode": mode, "account": account}
    reading = _Reading(read_columns(table), {role: name for role, name in names.items() if name is not None})
    reading.check_call()
    reading.read()
    return reading.network(tiers, prices, settlement, {"exchanges": exchanges, "numeraire": numeraire})


@dataclass
class _Reading:
    """One table on its way in: what was read so far, and what is wrong with it."""

    columns: dict[str, Any]
    names: dict[str, str]
    door: Door = field(default_factory=Door)
    keys: dict[str, Coded] = field(default_factory=dict)
    numbers: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    isolated: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, dtype=bool))
    good: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, dtype=bool))
    beside: SideTables = field(init=False)
    n_tiers: int = 1

    def __post_init__(self) -> None:
        self.beside = SideTables(self.door)

    def problem(self, column: str | None, row: int | None, value: object, allowed: str, cure: str) -> None:
        shown = repr(value) if row is not None else str(value)
        self.door.problems.append(Problem("table", column, row, shown, allowed, cure))

    def check_call(self) -> None:
        """Check that the columns the call names are there."""
        for name in self.names.values():
            if name not in self.columns:
                near = nearest(name, self.columns)
                cure = f"did you mean {near[0]!r}?" if near else f"columns are {', '.join(self.columns)}"
                self.problem(name, None, "the column is missing", "a column of the table", cure)
        sizes = {len(values) for values in self.columns.values()}
        if len(sizes) > 1:
            self.problem(None, None, f"columns of lengths {sorted(sizes)}", "one length", "give one row per position")
        if sizes == {0} or not sizes:
            self.problem(None, None, "the table is empty", "at least one row", "give rows")
        self.door.raise_if_any()

    def read(self) -> None:
        """Read labels, numbers and modes; rows with a problem are noted and left out of what follows."""
        size = len(self.columns[self.names["trader"]])
        self.good = np.ones(size, dtype=bool)
        for role in ("trader", "exchange", "asset", "account"):
            if role in self.names:
                self._read_labels(role)
        for role, bounds in _BOUNDS.items():
            self._read_numbers(role, bounds)
        self.isolated = np.zeros(size, dtype=bool)
        if "mode" in self.names:
            self._read_modes()

    def _read_labels(self, role: str) -> None:
        name = self.names[role]
        codes, uniques = factorize(self.columns[name])
        labels = np.asarray(uniques)
        wrong: list[tuple[str, str] | None] = [None] * len(labels)
        if not clean_text(labels):
            wrong = [label_problem(label) for label in uniques]
        if role in ("trader", "account"):
            kept = (f"a label that does not start with {OTHERS!r}, kept for what the network adds", "give another name")
            wrong = [kept if own else said for said, own in zip(wrong, is_others(labels), strict=True)]
        clean = np.array([*(said is None for said in wrong), False])
        for row in np.flatnonzero(~clean[codes]).tolist():
            code = codes[row]
            said = label_problem(None) if code < 0 else wrong[code]
            self.problem(name, row, None if code < 0 else uniques[code], *(said or ("a label", "name the row")))
        self.good &= clean[codes]
        used = np.bincount(codes[clean[codes]], minlength=len(labels)) > 0
        place = np.cumsum(used) - 1
        self.keys[role] = code_labels(np.where(clean[codes], place[codes], 0), labels[used])

    def _read_numbers(self, role: str, bounds: str) -> None:
        name = self.names[role]
        column = Column("table", name, False, False, "number", "", "required", bounds, "")
        before = len(self.door.problems)
        numbers = self.door.numbers(column, self.columns[name])
        self._spoil(before)
        self.numbers[role] = numbers

    def _read_modes(self) -> None:
        own = schema()["accounts"]["mode"]
        column = replace(own, table="table", name=self.names["mode"])
        before = len(self.door.problems)
        words = self.door.words(column, self.columns[column.name])
        self._spoil(before)
        self.isolated = words == "isolated"

    def _spoil(self, before: int) -> None:
        rows = [problem.row for problem in self.door.problems[before:]]
        self.good[[row for row in rows if row is not None]] = False
        if None in rows:
            self.good[:] = False

    # tables -------------------------------------------------------------------------------------------------------

    def network(self, tiers: Any, prices: Any, settlement: Any, rest: dict[str, Any]) -> ExposureNetwork:
        """Make the tables and open the network; problems of both stages come out together."""
        rows = np.flatnonzero(self.good)
        try:
            coin = (rest["numeraire"], True) if settlement is None else (settlement, False)
            tables = self._tables(rows, tiers, prices, coin)
            if len(rows) and not self.beside.broken:
                net = ExposureNetwork(**tables, **self._rest(rest))
                if not self.door.problems:
                    return net
        except SchemaError as error:
            self.door.problems.extend(self._as_given(problem, rows) for problem in error.problems)
        cells: dict[object, Problem] = {}
        for problem in self.door.problems:
            cell = problem if problem.row is None else (problem.table, problem.column, problem.row)
            cells.setdefault(cell, problem)
        raise SchemaError(cells.values())

    def _as_given(self, problem: Problem, rows: NDArray[np.intp]) -> Problem:
        """Say the column and row of a problem as they stood in the tables that were given."""
        if problem.table == "positions" and problem.row is not None:
            name = self.names.get(problem.column or "", problem.column)
            return replace(problem, table="table", column=name, row=int(rows[problem.row]))
        if problem.table == "tiers" and problem.row is not None:
            return replace(problem, row=problem.row % self.n_tiers)
        return problem

    def _rest(self, rest: dict[str, Any]) -> dict[str, Any]:
        exchanges = rest["exchanges"]
        if exchanges is None:
            exchanges = {"exchange": self.keys["exchange"].categories.to_numpy()}
        columns = self.beside.read("exchanges", exchanges, ("exchange",))
        if columns and "rulebook" not in columns:
            columns["rulebook"] = np.full(len(next(iter(columns.values()))), _RULEBOOK, dtype=object)
        return {**rest, "exchanges": columns or None}

    def _tables(self, rows: NDArray[np.intp], tiers: Any, prices: Any, coin: tuple[Any, bool]) -> dict[str, Any]:
        account, first = self._accounts(rows)
        self._check_accounts(account, first, rows)
        tier_table, markets = self._tiers(tiers)
        assets, _ = self.beside.prices(prices, markets)
        assets = self._assets(_one_price_each(markets) if assets is None else assets, *coin)
        if not len(rows) or self.beside.broken:
            self.beside.broken = True
            return {}
        posted = self._balances(account, rows, assets)
        owner = {role: self.keys[role][rows[first]] for role in ("trader", "exchange")}
        mode = np.where(self.isolated[rows[first]], "isolated", "cross").astype(object)
        return {
            "assets": assets,
            "markets": markets if "price" in markets and len(markets["asset"]) else None,
            "tiers": tier_table,
            "accounts": {"account": account[first], **owner, "mode": mode},
            "balances": posted,
            "positions": {
                "account": account,
                "asset": self.keys["asset"][rows],
                "quantity": self.numbers["quantity"][rows],
                "entry_price": self.numbers["entry_price"][rows],
            },
        }

    def _accounts(self, rows: NDArray[np.intp]) -> tuple[Coded, NDArray[np.intp]]:
        """Account of every row, and the first row of each account, in the order of their labels."""
        account = self.keys["account"][rows] if "account" in self.keys else self._named(rows)
        return account, np.unique(account.codes, return_index=True)[1]

    def _named(self, rows: NDArray[np.intp]) -> Coded:
        """Name accounts by trader and exchange, isolated ones by their contract too."""
        trader, exchange, asset = (self.keys[role] for role in ("trader", "exchange", "asset"))
        n_exchanges, n_pools = len(exchange.categories), len(asset.categories) + 1
        pool = np.where(self.isolated[rows], asset.codes[rows] + 1, 0)
        pair = trader.codes[rows].astype(np.int64) * n_exchanges + exchange.codes[rows]
        distinct, codes = np.unique(pair * n_pools + pool, return_inverse=True)
        pairs, pools = np.divmod(distinct, n_pools)
        who, where = (part.tolist() for part in np.divmod(pairs, max(n_exchanges, 1)))
        owners, venues = trader.categories.tolist(), exchange.categories.tolist()
        tails = ["", *(f":{label}" for label in asset.categories.tolist())]
        parts = zip(who, where, pools.tolist(), strict=True)
        return code_labels(codes, [f"{owners[i]}@{venues[j]}{tails[k]}" for i, j, k in parts])

    def _check_accounts(self, account: Coded, first: NDArray[np.intp], rows: NDArray[np.intp]) -> None:
        """One owner, exchange and mode per account, one row per account and contract."""
        place = np.zeros(len(account.categories), dtype=np.intp)
        place[account.codes[first]] = first
        head = rows[place[account.codes]]
        for role in ("trader", "exchange"):
            codes = self.keys[role].codes
            for row, start in zip(*(part[codes[rows] != codes[head]].tolist() for part in (rows, head)), strict=True):
                cure = f"one {role} per account; give the accounts names of their own"
                self.problem(self.names["account"], row, self.keys[role][row], f"the {role} of row {start}", cure)
        mixed = self.isolated[rows] != self.isolated[head]
        for row, start in zip(rows[mixed].tolist(), head[mixed].tolist(), strict=True):
            mode = "isolated" if self.isolated[row] else "cross"
            self.problem(self.names["mode"], row, mode, f"the mode of row {start}", "one mode per account")
        key = account.codes.astype(np.int64) * len(self.keys["asset"].categories) + self.keys["asset"].codes[rows]
        again = np.ones(len(key), dtype=bool)
        again[np.unique(key, return_index=True)[1]] = False
        for row in np.flatnonzero(again).tolist():
            label = (account[row], self.keys["asset"][rows[row]])
            cure = "net the rows of a contract, or name the accounts with account="
            self.problem("account, asset", int(rows[row]), label, "one row per account and contract", cure)

    def _tiers(self, tiers: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Tiers by exchange, asset and floor; and the markets their prices stand in."""
        nothing: dict[str, Any] = {"exchange": _cells([]), "asset": _cells([])}
        self.beside.given["markets"] = np.zeros(0, dtype=np.int64)
        columns = self.beside.read("tiers", tiers, ("exchange", "asset", "floor"))
        self.n_tiers = size = len(next(iter(columns.values()), ()))
        if not size or "asset" not in columns:
            if columns:
                said = "the column is missing" if size else "the table is empty"
                cure = "give rates by exchange and asset, or by asset: they decide who is liquidated"
                self.door.problems.append(Problem("tiers", "asset", None, said, "one row per contract or more", cure))
            self.beside.broken = True
            return {}, nothing
        columns.setdefault("floor", np.zeros(size))
        if "exchange" not in columns:
            exchanges = self.keys["exchange"].categories.to_numpy()
            columns = {name: np.tile(values, len(exchanges)) for name, values in columns.items()}
            columns["exchange"] = np.repeat(exchanges, size)
        price = columns.pop("price", None)
        if price is None:
            return columns, nothing
        return columns, self._markets_of(columns, price)

    def _markets_of(self, tiers: dict[str, Any], price: NDArray[Any]) -> dict[str, Any]:
        """One row per exchange and contract, with the price that its tiers give."""
        column = Column("tiers", "price", False, False, "number", "num/unit", "empty", "[0, inf)", "")
        numbers = self.door.numbers(column, price)
        marks: dict[tuple[Any, Any], float] = {}
        for row, pair in enumerate(zip(tiers["exchange"].tolist(), tiers["asset"].tolist(), strict=True)):
            if np.isnan(numbers[row]):
                continue
            if marks.setdefault(pair, numbers[row]) != numbers[row]:
                cure, value = "give one price per contract", repr(float(numbers[row]))
                row_given = row % self.n_tiers
                self.door.problems.append(Problem("tiers", "price", row_given, value, repr(float(marks[pair])), cure))
        self.beside.given["markets"] = np.full(len(marks), -1)
        cells = {name: _cells([pair[part] for pair in marks]) for part, name in enumerate(("exchange", "asset"))}
        return {**cells, "price": np.array(list(marks.values()))}

    def _assets(self, table: dict[str, Any], coin: Any, own: bool) -> dict[str, Any]:
        """Complete the table of assets: kinds and settlement of contracts, the numeraire where margin is kept in it."""
        columns = {name: _cells(np.asarray(values).tolist()) for name, values in table.items() if name != "exchange"}
        columns.setdefault("asset", _cells([]))
        labels = columns["asset"].tolist()
        for code, label in enumerate(self.keys["asset"].categories.tolist()):
            if label not in labels:
                near = nearest(label, labels)
                row = int(np.flatnonzero((self.keys["asset"].codes == code) & self.good)[0])
                cure = f"did you mean {near[0]!r}?" if near else "give its price in prices= or tiers.price"
                self.problem(self.names["asset"], row, label, "a contract with a price", cure)
                self.beside.broken = True
        if self.beside.broken:
            return {}
        contract = np.isin(labels, self.keys["asset"].categories.tolist())
        spec = schema()["assets"]
        kinds = columns.get("kind", _cells([None] * len(labels))).tolist()
        columns["kind"] = _cells([k or ("linear" if c else "token") for k, c in zip(kinds, contract, strict=True)])
        settled = columns.get("settlement", _cells([None] * len(labels))).tolist()
        pays = [coin if c and _empty(s) else s for s, c in zip(settled, contract, strict=True)]
        columns["settlement"] = _cells(pays)
        if own and coin not in labels and coin in pays:
            fresh = {"asset": coin, "price": 1.0, "kind": "stable"}
            for name, values in columns.items():
                cell = fresh[name] if name in fresh else spec[name].default_value if name in spec else None
                columns[name] = _cells([*values.tolist(), cell])
        return columns

    def _balances(self, account: Coded, rows: NDArray[np.intp], assets: dict[str, Any]) -> dict[str, Any]:
        """Margin by account and settlement asset, added up."""
        import pandas as pd

        pays = dict(zip(assets["asset"].tolist(), assets["settlement"].tolist(), strict=True))
        coins, labels = pd.factorize(_cells([pays[label] for label in self.keys["asset"].categories.tolist()]))
        key = account.codes.astype(np.int64) * len(labels) + coins[self.keys["asset"].codes[rows]]
        distinct, place = np.unique(key, return_inverse=True)
        posted = group_sum(place, self.numbers["margin"][rows], len(distinct))
        owner, coin = np.divmod(distinct, len(labels))
        kept = _cells(np.asarray(labels)[coin].tolist())
        return {"account": replace(account, codes=owner), "asset": kept, "deposited": posted}


def _one_price_each(markets: dict[str, Any]) -> dict[str, Any]:
    """Price of each contract: the median of its marks."""
    import pandas as pd

    marks = pd.Series(markets.get("price", []), index=pd.Index(markets["asset"].tolist(), dtype=object), dtype=float)
    median = marks.groupby(level=0).median()
    return {"asset": _cells(median.index.tolist()), "price": median.to_numpy()}


def _cells(values: list[Any]) -> NDArray[Any]:
    return np.asarray(read_columns({"cells": values})["cells"])


def _empty(value: Any) -> bool:
    return value is None or value != value  # noqa: PLR0124 NaN of any type
