"""The book of a network as flat arrays: marks, equity, margin requirement and health of every account."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion._arrays import freeze, group_sum
from netcontagion.errors import ContagionError
from netcontagion.network._ladder import is_ladder
from netcontagion.network._rulebooks import Rulebook, rulebook

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import pandas as pd
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]

__all__ = ["HEALTH_TOL", "Book", "Collateral", "Scenarios", "Tiers", "build_book", "equity_tested"]

HEALTH_TOL = 1e-12  # relative: an account whose health is 1 up to rounding passes


def equity_tested(book: Rulebook | None) -> bool:
    """Whether an exchange calls accounts by equity over margin requirement, not by weighted collateral over debt."""
    return book is not None and book.health == "equity"


@dataclass(frozen=True, eq=False)
class Tiers:
    """Margin rates of several contracts by notional N, those of contract i from row ``first[i]`` on, ``count[i]`` rows.

    The margin is N x rate - cum in the tier of N, cum_j = cum_{j-1} + floor_j (rate_j - rate_{j-1}): each rate holds on
    the part of the notional above its floor.
    """

    first: Integers
    count: Integers
    floor: Floats
    rate: Floats
    cumulative: Floats

    @classmethod
    def build(cls, first: Integers, count: Integers, floor: Floats, rate: Floats) -> Tiers:
        """Add up the cumulative amounts; the first floor of a contract is 0."""
        cumulative = np.zeros(len(floor))
        for step in range(1, int(count.max(initial=0))):
            row = first[count > step] + step
            cumulative[row] = cumulative[row - 1] + floor[row] * (rate[row] - rate[row - 1])
        return cls(*(freeze(values) for values in (first, count, floor, rate, cumulative)))

    def steepest(self) -> Tiers:
        """Return tiers whose rates never fall with the notional: each is the highest up to there."""
        rate = self.rate.copy()
        for step in range(1, int(self.count.max(initial=0))):
            row = self.first[self.count > step] + step
            rate[row] = np.maximum(rate[row], rate[row - 1])
        return Tiers.build(self.first, self.count, self.floor, rate)

    def margin(self, contract: Integers, notional: Floats) -> Floats:
        """Margin of each notional [num]."""
        row = self._row(contract, lambda rows, which: notional[which] >= self.floor[rows])
        return np.asarray(notional * self.rate[row] - self.cumulative[row])

    def touch(self, contract: Integers, side: Floats, level: Floats) -> Floats:
        """Notional at which level + side x notional equals the margin, in the tier of that notional.

        ``side`` is 1 where equity grows with the notional and -1 where it falls. 0 where the account is on one side of
        its requirement at every notional; NaN where equity and requirement grow alike (a rate of 1).
        """

        def beyond(rows: Integers, which: NDArray[np.intp]) -> NDArray[np.bool_]:
            floor = self.floor[rows]
            spare = level[which] + side[which] * floor - (floor * self.rate[rows] - self.cumulative[rows])
            return np.asarray(side[which] * spare <= 0)

        row = self._row(contract, beyond)
        slope = self.rate[row] - side
        found = np.full(len(level), np.nan)
        np.divide(level + self.cumulative[row], slope, out=found, where=slope != 0)
        return np.where(side * level > 0, 0.0, found)

    def _row(self, contract: Integers, reached: Callable[[Integers, NDArray[np.intp]], NDArray[np.bool_]]) -> Integers:
        """Last row of each contract that is reached, climbing from the first."""
        row = self.first[contract].copy()
        climbing = np.arange(len(contract))
        for step in range(1, int(self.count.max(initial=0))):
            climbing = climbing[self.count[contract[climbing]] > step]
            climbing = climbing[reached(row[climbing] + 1, climbing)]
            if not len(climbing):
                break
            row[climbing] += 1
        return row


@dataclass(frozen=True, eq=False)
class Collateral:
    """Balances of the accounts that are tested by equity: ``rows`` of the table, and what counts of each.

    ``weight`` and ``loan_weight`` are the shares of a deposit that count against maintenance and initial margin (1 less
    the haircut); the rates are margin requirements on the value of deposits (``long``) and debts (``short``).
    """

    rows: Integers
    weight: Floats
    loan_weight: Floats
    maintenance_long: Floats
    maintenance_short: Floats
    initial: Floats


@dataclass(frozen=True, eq=False)
class Scenarios:
    """Price factors (scenarios x markets) of the portfolio margin, no move among them, and the accounts that have it.

    The margin of an account is its largest loss of margin equity over the scenarios of its exchange, and at least 0.
    """

    accounts: NDArray[np.bool_]
    factors: Floats


@dataclass(frozen=True, eq=False)
class Book:
    """Codes and numbers that valuation needs, aligned with the tables; all arrays are read-only.

    ``market_*`` run over (exchange, asset), ``balance_market`` gives the market of each balance, ``threshold`` the
    liquidation threshold that holds for each balance, ``market_book`` the order book a market trades on: the asset's
    shared one (code = asset) or the exchange's own (code = number of assets + market). ``book_depth`` is in units,
    infinite where there is no impact; of a ladder it is the factor on all sizes.

    ``margined`` are the accounts tested by equity: all of an exchange with that rule, and all with positions.
    ``contract`` is the place of each position in ``tiers`` and ``initial_tiers``; ``inverse`` are the rows of positions
    in inverse contracts, ``face`` [num] what one of them is worth at entry and ``settlement`` the market of the coin.
    """

    market_exchange: NDArray[np.int32]
    market_asset: NDArray[np.int32]
    market_mark: Floats
    market_book: NDArray[np.int32]
    book_depth: Floats
    balance_account: NDArray[np.int32]
    balance_market: NDArray[np.int32]
    balance_mark: Floats
    deposited: Floats
    borrowed: Floats
    threshold: Floats
    position_account: NDArray[np.int32]
    position_market: NDArray[np.int32]
    quantity: Floats
    entry_price: Floats
    margined: NDArray[np.bool_]
    collateral: Collateral
    contract: Integers
    tiers: Tiers
    initial_tiers: Tiers
    inverse: Integers
    settlement: NDArray[np.int32]
    face: Floats
    scenarios: Scenarios
    n_accounts: int

    def equity(self, factor: Floats | None = None) -> Floats:
        """Return the marked equity of each account [num]: balances x mark + gains of its positions, without haircut."""
        mark = self._marks(factor)
        held = (self.deposited - self.borrowed) * mark[self.balance_market]
        return self._by_account(self.balance_account, held) + self._by_account(self.position_account, self._gains(mark))

    def margin_equity(self, factor: Floats | None = None, *, initial: bool = False) -> Floats:
        """Equity that counts in the test of margin accounts [num]: deposits after haircut, less debts, plus gains."""
        mark, held = self._marks(factor), self.collateral
        weight = held.loan_weight if initial else held.weight
        value = (self.deposited[held.rows] * weight - self.borrowed[held.rows]) * mark[self.balance_market[held.rows]]
        gains = self._by_account(self.position_account, self._gains(mark))
        return self._by_account(self.balance_account[held.rows], value) + gains

    def requirement(self, factor: Floats | None = None) -> Floats:
        """Maintenance margin of each account [num]: of contracts (by tiers) and balances, or the worst scenario."""
        mark, held = self._marks(factor), self.collateral
        margin = self.tiers.margin(self.contract, self._notional(mark))
        required = self._required(margin, mark, held.maintenance_long, held.maintenance_short)
        if not self.scenarios.accounts.any():
            return required
        equity, worst = self.margin_equity(factor), np.zeros(self.n_accounts)
        for moved in self.scenarios.factors:
            stressed = self.margin_equity(moved if factor is None else moved * factor)
            worst = np.maximum(worst, equity - stressed)
        return np.where(self.scenarios.accounts, worst, required)

    def initial_requirement(self, factor: Floats | None = None) -> Floats:
        """Return the initial margin of each account [num]; NaN where an asset, or a portfolio, has none."""
        mark, held = self._marks(factor), self.collateral
        margin = self.initial_tiers.margin(self.contract, self._notional(mark))
        required = self._required(margin, mark, held.initial, held.initial)
        return np.where(self.scenarios.accounts, np.nan, required)

    def notional(self, factor: Floats | None = None) -> Floats:
        """Value of the contracts of each position at marks [num], without sign."""
        return self._notional(self._marks(factor))

    def health(self, factor: Floats | None = None) -> Floats:
        """Health of each account, called below 1; +inf exactly where nothing is owed or required.

        Lending: sum of collateral x mark x threshold over debt value. Margin accounts: equity after haircuts over
        maintenance margin.
        """
        price = self._marks(factor)[self.balance_market]
        backing = self._by_account(self.balance_account, self.deposited * price * self.threshold)
        debt = self._by_account(self.balance_account, self.borrowed * price)
        if self.margined.any():
            backing = np.where(self.margined, self.margin_equity(factor), backing)
            debt = np.where(self.margined, self.requirement(factor), debt)
        health = np.full(self.n_accounts, np.inf)
        with np.errstate(over="ignore"):  # a debt of 1e-320 is a debt
            np.divide(backing, debt, out=health, where=debt > 0)
        return health

    def closing_prices(self, factor: Floats | None = None) -> tuple[Floats, Floats]:
        """Bankruptcy and liquidation price of each position [num/unit]; see ``ExposureNetwork.liquidation_prices``."""
        mark, account = self._marks(factor), self.position_account
        notional = self._notional(mark)
        margin = self.tiers.margin(self.contract, notional)
        of_account = self._by_account(account, margin)[account]
        alone = 1.0 / np.bincount(account, minlength=self.n_accounts)[account]
        share = np.divide(margin, of_account, out=alone, where=of_account > 0)
        side = np.sign(self.quantity)
        side[self.inverse] *= -1
        bankrupt = np.maximum(notional - side * self.equity(factor)[account] * share, 0.0)
        spare = self.margin_equity(factor)[account] - (self.requirement(factor)[account] - margin)
        called = np.maximum(self.tiers.touch(self.contract, side, spare - side * notional), 0.0)
        if self.scenarios.accounts.any():
            called = np.where(self.scenarios.accounts[account], self._stressed_out(side, factor), called)
        return self._price_at(bankrupt, mark), self._price_at(called, mark)

    def _stressed_out(self, side: Floats, factor: Floats | None) -> Floats:
        """Notional of each position at which margin equity is 0 in the first scenario to bring it there.

        Equity is above the worst loss where it stays above 0 in all scenarios, and in each it is linear in a notional.
        """
        found = np.where(side > 0, 0.0, np.inf)
        for moved in self.scenarios.factors:
            here = moved if factor is None else moved * factor
            equity, notional = self.margin_equity(here)[self.position_account], self.notional(here)
            now = self.notional(factor)
            grown = np.divide(notional, now, out=np.ones(len(now)), where=now > 0)
            gone = np.maximum((notional - side * equity) / grown, 0.0)
            found = np.where(side > 0, np.maximum(found, gone), np.minimum(found, gone))
        return found

    def _marks(self, factor: Floats | None) -> Floats:
        return self.market_mark if factor is None else self.market_mark * factor

    def _by_account(self, account: NDArray[Any], values: Floats) -> Floats:
        return group_sum(account, values, self.n_accounts)

    def _gains(self, mark: Floats) -> Floats:
        """Unrealised profit of each position [num]: linear q (P - E), inverse q x face x (1/E - 1/P) coins."""
        gains = self.quantity * (mark[self.position_market] - self.entry_price)
        if len(self.inverse):
            at_entry = mark[self.settlement] / self.entry_price[self.inverse]
            gains[self.inverse] = self.quantity[self.inverse] * self.face * (at_entry - self._coin_over_mark(mark))
        return gains

    def _notional(self, mark: Floats) -> Floats:
        notional = np.abs(self.quantity) * mark[self.position_market]
        if len(self.inverse):
            notional[self.inverse] = np.abs(self.quantity[self.inverse]) * self.face * self._coin_over_mark(mark)
        return notional

    def _coin_over_mark(self, mark: Floats) -> Floats:
        """Price of the coin over the mark of the contract; as before the fall where both are worthless."""
        market = self.position_market[self.inverse]
        coin, own = mark[self.settlement], mark[market]
        if ((own == 0) & (coin > 0)).any():
            message = "an inverse contract pays 1 / price: its price cannot fall to 0 while its coin has one"
            raise ContagionError(message)
        before = self.market_mark[self.settlement] / self.market_mark[market]
        np.divide(coin, own, out=before, where=own > 0)
        return np.asarray(before)

    def _price_at(self, notional: Floats, mark: Floats) -> Floats:
        """Price at which each position has a notional, the coin's price held; NaN where there is none."""
        size = np.abs(self.quantity)
        price = np.full(len(size), np.nan)
        np.divide(notional, size, out=price, where=size > 0)
        if len(self.inverse):
            worth = size[self.inverse] * self.face * mark[self.settlement]
            own = np.full(len(worth), np.nan)
            np.divide(worth, notional[self.inverse], out=own, where=(notional[self.inverse] > 0) & (worth > 0))
            price[self.inverse] = own
        return price

    def _required(self, margin: Floats, mark: Floats, long: Floats, short: Floats) -> Floats:
        rows = self.collateral.rows
        value = (self.deposited[rows] * long + self.borrowed[rows] * short) * mark[self.balance_market[rows]]
        return self._by_account(self.position_account, margin) + self._by_account(self.balance_account[rows], value)


def build_book(columns: Mapping[str, Mapping[str, Any]], assets: pd.Index) -> Book:
    """Lay the tables out as flat arrays."""
    n_assets = len(assets)
    market, balance, account, asset, position = (
        columns[name] for name in ("markets", "balances", "accounts", "assets", "positions")
    )
    key = market["exchange"].astype(np.int64) * n_assets + market["asset"]
    exchange = account["exchange"].astype(np.int64)

    def market_of(accounts: NDArray[Any], assets: NDArray[Any]) -> NDArray[np.int32]:
        return np.asarray(np.searchsorted(key, exchange[accounts] * n_assets + assets), dtype=np.int32)

    own_price, own_depth = market["price"], market["depth"]
    mark = np.where(np.isnan(own_price), asset["price"][market["asset"]], own_price)
    of_balance = market_of(balance["account"], balance["asset"])
    of_position = market_of(position["account"], position["asset"])
    override = account["liquidation_threshold"][balance["account"]]
    threshold = np.where(np.isnan(override), market["liquidation_threshold"][of_balance], override)
    rules = [rulebook(name) for name in columns["exchanges"]["rulebook"]]
    by_equity = np.array([equity_tested(rule) for rule in rules], dtype=bool)
    margined = by_equity[exchange] if len(by_equity) else np.zeros(len(exchange), dtype=bool)
    margined[position["account"]] = True
    inverse = np.flatnonzero((asset["kind"] == "inverse")[position["asset"]])
    of_inverse = {name: position[name][inverse] for name in ("account", "asset")}
    places = np.arange(len(key), dtype=np.int32)
    shared = np.isnan(own_depth)
    ladder = np.array([is_ladder(impact) for impact in asset["impact"]], dtype=bool)
    depth = np.concatenate([np.where(ladder & np.isnan(asset["depth"]), 1.0, asset["depth"]), own_depth])
    arrays: dict[str, Any] = {
        "market_exchange": market["exchange"],
        "market_asset": market["asset"],
        "market_mark": mark,
        "market_book": np.where(shared, market["asset"], n_assets + places).astype(np.int32),
        "book_depth": np.where(np.isnan(depth), np.inf, depth),
        "balance_account": balance["account"],
        "balance_market": of_balance,
        "balance_mark": mark[of_balance],
        "deposited": balance["deposited"],
        "borrowed": balance["borrowed"],
        "threshold": np.nan_to_num(threshold, nan=0.0),
        "position_account": position["account"],
        "position_market": of_position,
        "quantity": position["quantity"],
        "entry_price": position["entry_price"],
        "margined": margined,
        "contract": of_position + len(key) * (position["quantity"] < 0).astype(np.int64),
        "inverse": inverse,
        "settlement": market_of(of_inverse["account"], asset["settlement"][of_inverse["asset"]]),
        "face": asset["multiplier"][of_inverse["asset"]],
    }
    return Book(
        **{name: freeze(values) for name, values in arrays.items()},
        collateral=_collateral(np.flatnonzero(margined[balance["account"]]), market, of_balance, threshold),
        tiers=_tiers(columns, key, n_assets, "maintenance_margin"),
        initial_tiers=_tiers(columns, key, n_assets, "initial_margin"),
        scenarios=_scenarios(columns, rules, assets),
        n_accounts=len(exchange),
    )


def _scenarios(columns: Mapping[str, Mapping[str, Any]], rules: list[Rulebook], assets: pd.Index) -> Scenarios:
    """Price factors of the scenarios of every exchange with accounts on portfolio margin."""
    account, market = columns["accounts"], columns["markets"]
    accounts = np.zeros(len(account["mode"]), dtype=bool)
    if any(rule.health_rule.scenarios for rule in rules):
        accounts |= account["mode"] == "portfolio"
    places = np.unique(account["exchange"][accounts]).tolist()
    chosen = {place: rules[place].health_rule.scenarios for place in places}
    factors = np.ones((max((len(given) + 1 for given in chosen.values()), default=0), len(market["asset"])))
    underlying = dict(zip(assets, columns["assets"]["underlying"], strict=True))
    for place, scenarios in chosen.items():
        rows = np.flatnonzero(market["exchange"] == place)
        for scenario, moves in enumerate(scenarios):
            changes = [_move_of(assets[code], dict(moves), underlying) for code in market["asset"][rows].tolist()]
            factors[scenario, rows] = 1.0 + np.array(changes)
    return Scenarios(freeze(accounts), freeze(factors))


def _move_of(label: Any, moves: Mapping[Any, float], underlying: Mapping[Any, Any]) -> float:
    """Relative move of an asset: its own, or that of the nearest asset its price follows."""
    while label is not None:
        if label in moves:
            return moves[label]
        label = underlying.get(label)
    return 0.0


def _collateral(rows: Integers, market: Mapping[str, Any], of_balance: NDArray[Any], threshold: Floats) -> Collateral:
    """Weights and rates of the balances of margin accounts; an empty threshold is no haircut, an empty rate is 0."""
    place = of_balance[rows]
    weight = np.where(np.isnan(threshold[rows]), 1.0, threshold[rows])
    loan = np.where(np.isnan(market["loan_to_value"][place]), weight, market["loan_to_value"][place])
    long, initial = market["maintenance_margin"][place], market["initial_margin"][place]
    short = _short_rate(market)[place]
    bare = np.isnan(long) & np.isnan(short) & np.isnan(initial)
    initial = np.where(bare, 0.0, initial)
    parts = (rows, weight, loan, np.nan_to_num(long, nan=0.0), np.nan_to_num(short, nan=0.0), initial)
    return Collateral(*(freeze(part) for part in parts))


def _short_rate(market: Mapping[str, Any]) -> Floats:
    own = market["maintenance_margin_short"]
    return np.asarray(np.where(np.isnan(own), market["maintenance_margin"], own))


def _tiers(columns: Mapping[str, Mapping[str, Any]], key: Integers, n_assets: int, rate: str) -> Tiers:
    """Rates of every market, first those of long positions, then those of short ones; one tier where it has none."""
    market, tier = columns["markets"], columns["tiers"]
    tier_key = tier["exchange"].astype(np.int64) * n_assets + tier["asset"]
    start = np.searchsorted(tier_key, key).astype(np.int64)
    count = np.searchsorted(tier_key, key, side="right") - start
    bare = count == 0
    short = _short_rate(market) if rate == "maintenance_margin" else market[rate]
    first = start + np.cumsum(bare) - bare
    floor = np.insert(tier["floor"], start[bare], 0.0)
    rates = [np.insert(tier[rate], start[bare], flat[bare]) for flat in (market[rate], short)]
    return Tiers.build(
        np.concatenate([first, first + len(floor)]),
        np.tile(np.where(bare, 1, count), 2).astype(np.int64),
        np.tile(floor, 2),
        np.concatenate(rates),
    )
