"""From a table of balances, long or wide, to an exposure network."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion.builders._side_tables import SideTables, price_by
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
)

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

__all__ = ["from_table"]

_SIDES = {
    "collateral": 0,
    "deposit": 0,
    "deposited": 0,
    "supplied": 0,
    "debt": 1,
    "borrow": 1,
    "borrowed": 1,
}


def from_table(
    table: Any,
    *,
    trader: str,
    exchange: str,
    asset: str,
    markets: Any,
    side: str | None = None,
    amount: str | bool | None = None,
    value: str | bool | None = None,
    collateral: str | None = None,
    debt: str | None = None,
    account: str | None = None,
    accounts: Any = None,
    prices: Any = None,
    exchanges: Any = None,
    numeraire: str = "USD",
) -> ExposureNetwork:
    """Build a network from a table of deposits and loans.

    A long table has one row per balance and a ``side`` column ("collateral" or "debt"); a wide one has a ``collateral``
    and a ``debt`` column. Quantities are units (``amount``) or money (``value``), exactly one of the two.

    Parameters
    ----------
    table : table
        pandas, polars, pyarrow, a DuckDB relation or a dict of arrays.
    trader, exchange, asset : str
        Names of the columns that hold the labels.
    markets : table
        Margin parameters by exchange and asset, or by asset alone for all exchanges: liquidation_threshold,
        liquidation_bonus and so on. No default: they decide who is liquidated.
    side : str, optional
        Column that says "collateral" or "debt" (long table).
    amount, value : str, optional
        Long table: column of units, or of money. Wide table: ``amount=True`` (units) or ``value=True`` (money).
    collateral, debt : str, optional
        Columns of a wide table.
    account : str, optional
        Column of account labels. Default: one account per trader and exchange, named like the trader on a single
        exchange and ``trader@exchange`` on several.
    accounts : table, optional
        What is known of single accounts, by account label (or by trader and exchange): liquidation_threshold, mode.
    prices : mapping, Series or table, optional
        Price by asset, or by exchange and asset (marks that differ); or a table of assets with a ``price`` column and
        further columns of ``assets``. Default: ``markets.price``.
    exchanges : table, optional
        Rulebook, equity and insurance fund by exchange; default: plain lending without buffers.
    numeraire : str, default "USD"
        Unit of money.

    Raises
    ------
    SchemaError
        Listing every problem: empty or negative amounts, unknown sides, labels with spaces, repeated rows, unknown
        prices, missing thresholds, both or neither of amount and value.

    Examples
    --------
    >>> from netcontagion import builders
    >>> book = {"who": ["ann", "ann"], "at": ["Lend"] * 2, "what": ["ETH", "USDC"],
    ...         "side": ["collateral", "debt"], "units": [1.0, 1000.0]}
    >>> markets = {"asset": ["ETH", "USDC"], "liquidation_threshold": [0.8, 0.85],
    ...            "liquidation_bonus": [0.05, 0.05], "close_factor": [0.5, 0.5]}
    >>> net = builders.from_table(book, trader="who", exchange="at", asset="what", side="side", amount="units",
    ...                           markets=markets, prices={"ETH": 2000.0, "USDC": 1.0})
    >>> float(net.health()["ann"])
    1.6
    """
    names = {"trader": trader, "exchange": exchange, "asset": asset, "side": side, "account": account}
    names |= {"collateral": collateral, "debt": debt}
    reading = _Reading(read_columns(table), names, amount, value)
    reading.check_call()
    reading.read()
    return reading.network(markets, accounts, prices, {"exchanges": exchanges, "numeraire": numeraire})


@dataclass
class _Reading:
    """One table on its way in: what was read so far, and what is wrong with it."""

    columns: dict[str, Any]
    names: dict[str, str | None]
    amount: str | bool | None
    value: str | bool | None
    door: Door = field(default_factory=Door)
    keys: dict[str, Coded] = field(default_factory=dict)  # trader, exchange, asset and, where given, account
    quantities: list[tuple[int, NDArray[np.float64], NDArray[np.bool_]]] = field(default_factory=list)
    good: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, dtype=bool))
    beside: SideTables = field(init=False)

    def __post_init__(self) -> None:
        self.beside = SideTables(self.door)

    def problem(self, column: str | None, row: int | None, value: object, allowed: str, cure: str) -> None:
        shown = repr(value) if row is not None else str(value)
        self.door.problems.append(Problem("table", column, row, shown, allowed, cure))

    @property
    def wide(self) -> bool:
        return self.names["side"] is None

    def check_call(self) -> None:
        """Check that the call says what the table is."""
        if (self.amount is None) == (self.value is None):
            said = "both" if self.amount is not None else "neither"
            cure = "amount= names units, value= names money"
            self.problem(None, None, f"{said} of amount and value given", "exactly one", cure)
        pair = [self.names["collateral"], self.names["debt"]]
        if self.wide and None in pair:
            cure = "side= for a long table, collateral= and debt= for a wide one"
            self.problem(None, None, "no side column, and not both of collateral and debt", "long or wide", cure)
        if not self.wide and pair != [None, None]:
            self.problem(None, None, "side together with collateral or debt", "long or wide", "leave one form out")
        quantity = self.amount if self.amount is not None else self.value
        if not self.wide and quantity is not None and not isinstance(quantity, str):
            self.problem(None, None, f"quantity column is {quantity!r}", "a column name", "name the column")
        if self.wide and quantity is not True and quantity is not None:
            cure = "collateral= and debt= name the columns of a wide table"
            self.problem(None, None, f"quantity is {quantity!r}", "amount=True or value=True", cure)
        for name in [*self.names.values(), quantity if not self.wide else None]:
            if isinstance(name, str) and name not in self.columns:
                near = nearest(name, self.columns)
                cure = f"did you mean {near[0]!r}?" if near else f"columns are {', '.join(self.columns)}"
                self.problem(name, None, "the column is missing", "a column of the table", cure)
        sizes = {len(values) for values in self.columns.values()}
        if len(sizes) > 1:
            self.problem(None, None, f"columns of lengths {sorted(sizes)}", "one length", "give one row per balance")
        if sizes == {0} or not sizes:
            self.problem(None, None, "the table is empty", "at least one row", "give rows")
        self.door.raise_if_any()

    def read(self) -> None:
        """Read labels and quantities; rows with a problem are noted and left out of what follows."""
        self.good = np.ones(len(self.columns[str(self.names["trader"])]), dtype=bool)
        for role in ("trader", "exchange", "asset", "account"):
            if self.names[role] is not None:
                self._read_labels(role)
        self._drop_others()
        if self.wide:
            for place, role in enumerate(("collateral", "debt")):
                units = self._read_numbers(str(self.names[role]))
                self.quantities.append((place, units, np.ones(len(units), dtype=bool)))
        else:
            quantity = self.amount if self.amount is not None else self.value
            numbers, sides = self._read_numbers(str(quantity)), self._read_sides()
            self.quantities = [(place, numbers, sides == place) for place in (0, 1)]

    def _read_labels(self, role: str) -> None:
        """Read labels and number those in use; a row whose label cannot be one is no good."""
        name = str(self.names[role])
        values = self.columns[name]
        codes, uniques = factorize(values)
        used = np.zeros(len(uniques) + 1, dtype=bool)
        used[codes] = True
        used[-1] = False
        wrong: list[tuple[str, str] | None] = [None] * len(uniques)
        if not clean_text(np.asarray(uniques)):
            wrong = [label_problem(label) if use else None for label, use in zip(uniques, used[:-1], strict=True)]
        clean = used & np.array([*(said is None for said in wrong), False])
        for row in np.flatnonzero(~clean[codes]).tolist():
            code = codes[row]
            said = label_problem(None) if code < 0 else wrong[code]
            self.problem(name, row, None if code < 0 else uniques[code], *(said or ("a label", "")))
        self.good &= clean[codes]
        place = np.where(clean, np.cumsum(clean) - 1, 0)
        self.keys[role] = code_labels(place[codes], np.asarray(uniques)[clean[:-1]])

    def _drop_others(self) -> None:
        """Leave out the rows of ``others@<exchange>``, which the network derives; no other trader has such a name."""
        for role, keys in ((role, self.keys[role]) for role in ("trader", "account") if role in self.keys):
            for row in np.flatnonzero(is_others(keys) & self.good).tolist():
                self.good[row] = False
                if keys[row] != f"{OTHERS}{self.keys['exchange'][row]}":
                    allowed = f"a label that does not start with {OTHERS!r}, kept for what the network adds"
                    self.problem(self.names[role], row, keys[row], allowed, "give it another name")

    def _read_numbers(self, name: str) -> NDArray[np.float64]:
        column = Column("table", name, False, False, "number", "", "required", "[0, inf)", "")
        before = len(self.door.problems)
        numbers = self.door.numbers(column, self.columns[name])
        rows = [problem.row for problem in self.door.problems[before:]]
        self.good[[row for row in rows if row is not None]] = False
        if None in rows:
            self.good[:] = False
        return np.where(self.good, numbers, 0.0)

    def _read_sides(self) -> NDArray[np.int64]:
        import pandas as pd

        name = str(self.names["side"])
        codes, uniques = pd.factorize(np.asarray(self.columns[name], dtype=object))
        place = np.array([_SIDES.get(label, -1) if isinstance(label, str) else -1 for label in uniques], dtype=np.int64)
        sides = np.append(place, -1)[codes]
        for row in np.flatnonzero(sides < 0).tolist():
            label = None if codes[row] < 0 else uniques[codes[row]]
            near = nearest(label, _SIDES) if label is not None else []
            cure = f"did you mean {near[0]!r}?" if near else "say collateral or debt"
            self.problem(name, row, label, ", ".join(_SIDES), cure)
        self.good &= sides >= 0
        return sides

    # tables -------------------------------------------------------------------------------------------------------

    def network(self, markets: Any, accounts: Any, prices: Any, rest: dict[str, Any]) -> ExposureNetwork:
        """Make the tables and open the network; problems of both stages come out together."""
        try:
            tables = self._tables(markets, accounts, prices)
            if not self.door.problems:
                return ExposureNetwork(**tables, **rest)
            if self.good.any():
                ExposureNetwork(**tables, **rest)
        except SchemaError as error:
            self.door.problems.extend(map(self._as_given, error.problems))
        raise SchemaError(dict.fromkeys(self.door.problems))

    def _as_given(self, problem: Problem) -> Problem:
        """Say the row of a problem as it stood in the markets or accounts that were given."""
        if problem.row is None or problem.table not in self.beside.given:
            return problem
        row = int(self.beside.given[problem.table][problem.row])
        return replace(problem, row=None if row < 0 else row)

    def _tables(self, markets: Any, accounts: Any, prices: Any) -> dict[str, Any]:
        account = self._accounts()
        market_table = self.beside.markets(markets, self.keys["exchange"].categories.to_numpy())
        asset_table, marks = self.beside.prices(prices, market_table)
        if self.beside.broken:
            self.good[:] = False
        self._check_assets(asset_table, market_table)
        units = self._balances(account, marks, asset_table, market_table)
        rows = _first_rows(account, np.flatnonzero(self.good))
        rows = rows[rows >= 0]
        account_table = {"account": account[rows]} | {role: self.keys[role][rows] for role in ("trader", "exchange")}
        self._check_one_owner()
        if accounts is not None:
            account_table |= self.beside.accounts(accounts, account_table)
        tables = {"markets": market_table, "accounts": account_table, "balances": units}
        if asset_table is not None:
            tables["assets"] = asset_table
        return tables

    def _accounts(self) -> Coded:
        """Find the account of every row."""
        trader, exchange = self.keys["trader"], self.keys["exchange"]
        if "account" in self.keys or len(exchange.categories) == 1:
            return self.keys.get("account", trader)
        import pandas as pd

        codes, n_exchanges = np.zeros(len(trader), dtype=np.int64), len(exchange.categories)
        codes[self.good], pairs = pd.factorize((trader.codes * n_exchanges + exchange.codes)[self.good], sort=True)
        who, where = np.divmod(pairs, n_exchanges)
        named = zip(trader.categories[who].tolist(), exchange.categories[where].tolist(), strict=True)
        return code_labels(codes, [f"{owner}@{venue}" for owner, venue in named])

    def _check_one_owner(self) -> None:
        """Check that an account belongs to one trader on one exchange."""
        if "account" not in self.keys:
            return
        account, rows = self.keys["account"], np.flatnonzero(self.good)
        first = _first_rows(account, rows)[account.codes]
        for role in ("trader", "exchange"):
            keys = self.keys[role]
            for row in rows[keys.codes[rows] != keys.codes[first[rows]]].tolist():
                cure = f"one {role} per account; give the accounts names of their own"
                self.problem(self.names["account"], row, keys[row], f"the {role} of row {first[row]}", cure)

    def _balances(
        self,
        account: Coded,
        marks: dict[tuple[Any, Any], float],
        asset_table: Any,
        market_table: Any,
    ) -> dict[str, Any]:
        rate = self._unit_values(marks, asset_table, market_table) if self.value is not None else None
        asset = self.keys["asset"]
        n_assets = len(asset.categories)
        keys, parts = [], []
        for place, numbers, chosen in self.quantities:
            rows = np.flatnonzero(chosen & self.good)
            key = account.codes[rows] * n_assets + asset.codes[rows]
            amounts = numbers[rows] if rate is None else numbers[rows] / rate[rows]
            order = np.argsort(key, kind="stable")  # found in order, a place in ``distinct`` costs no cache miss
            key, rows = key[order], rows[order]
            self._check_repeats(key, rows, account.categories, place)
            keys.append(key)
            parts.append((place, amounts[order]))
        joined = np.sort(np.concatenate(keys))
        distinct = joined[np.append(True, joined[1:] != joined[:-1])] if len(joined) else joined
        filled = np.zeros((2, len(distinct)))
        for key, (place, amounts) in zip(keys, parts, strict=True):
            filled[place, np.searchsorted(distinct, key)] = amounts
        return {
            "account": replace(account, codes=distinct // n_assets),
            "asset": replace(asset, codes=distinct % n_assets),
            "deposited": filled[0],
            "borrowed": filled[1],
        }

    def _check_repeats(self, key: NDArray[np.int64], rows: NDArray[np.intp], labels: pd.Index, place: int) -> None:
        """Note the rows whose key stood before; both come sorted by key."""
        assets = self.keys["asset"].categories
        same = np.flatnonzero(key[1:] == key[:-1]) + 1
        for row, code in sorted(zip(rows[same].tolist(), key[same].tolist(), strict=True)):
            label = (labels[code // len(assets)], assets[code % len(assets)], ("collateral", "debt")[place])
            self.problem("account, asset, side", row, label, "one row per key", "sum or drop the repeated rows")

    def _check_assets(self, assets: Any, markets: dict[str, Any]) -> None:
        """Every asset of the table has a price; the first row of one that has none is a problem."""
        if assets is None and "price" not in markets:
            return  # no price at all: the network says so once
        known = set((markets if assets is None else assets).get("asset", ()))
        asset = self.keys["asset"]
        for code, label in enumerate(asset.categories.tolist()):
            if label in known:
                continue
            rows = np.flatnonzero((asset.codes == code) & self.good)
            if len(rows):
                near = nearest(label, known)
                cure = f"did you mean {near[0]!r}?" if near else "give its price in prices= or markets.price"
                self.problem(self.names["asset"], int(rows[0]), label, "an asset with a price", cure)
                self.good[rows] = False

    def _unit_values(
        self, marks: dict[tuple[Any, Any], float], assets: Any, markets: dict[str, Any]
    ) -> NDArray[np.float64]:
        """Price per unit on each row, to turn money into units."""
        by_asset = price_by(assets, ("asset",)) if assets is not None else {}
        own = price_by(markets, ("exchange", "asset")) | marks
        exchange, asset = self.keys["exchange"], self.keys["asset"]
        venues, names = exchange.categories.tolist(), asset.categories.tolist()
        pairs = [(venue, name) for venue in venues for name in names]
        grid = np.array([own.get(pair, by_asset.get(pair[1], np.nan)) for pair in pairs]).reshape(
            len(venues), len(names)
        )
        rate = grid[exchange.codes, asset.codes] if grid.size else np.ones(len(self.good))
        wrong = self.good & ~((rate > 0) & np.isfinite(rate))
        shown = set()
        for row in np.flatnonzero(wrong).tolist():
            pair = (exchange[row], asset[row])
            if pair not in shown:
                shown.add(pair)
                cure = "give prices= or markets.price; what is known by value only has price 1 and kind residual"
                self.problem(self.names["asset"], row, pair, "an asset with a price above 0", cure)
        self.good &= ~wrong
        return np.where(self.good, rate, 1.0)


def _first_rows(keys: Coded, rows: NDArray[np.intp]) -> NDArray[np.int64]:
    """Row of the first mention of every label among some rows, -1: none."""
    first = np.full(len(keys.categories), -1, dtype=np.int64)
    first[keys.codes[rows][::-1]] = rows[::-1]
    return first
