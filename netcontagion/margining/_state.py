"""The state of a cascade: everything that moves, as flat arrays grouped by what they describe."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from netcontagion._arrays import group_sum
from netcontagion.network import HEALTH_TOL, rulebook

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import ArrayLike, NDArray

    from netcontagion.network import ExposureNetwork, Shock

__all__ = [
    "BEARERS",
    "CHANNELS",
    "DEFICIT",
    "EXECUTION",
    "MUTUALISATION",
    "PENALTY",
    "Accounts",
    "Board",
    "Books",
    "Entries",
    "Ledger",
    "Markets",
    "Rules",
    "State",
    "Traders",
    "Wallets",
    "bearer_labels",
    "called",
    "money_held",
    "open_state",
    "unit_value",
    "units_by_asset",
    "units_by_location",
    "wealth",
]

CHANNELS = ("shock", "impact", "execution", "penalty", "deficit", "mutualisation", "counterparty")
BEARERS = ("liquidators", "market", "external creditors")  # beside traders and exchanges
SHOCK, IMPACT, EXECUTION, PENALTY, DEFICIT, MUTUALISATION, COUNTERPARTY = range(7)

Floats = Any
Ints = Any


class Markets(Protocol):
    """One asset on one exchange; ``shocked`` is the mark right after the shock [num/unit]."""

    exchange: Ints
    asset: Ints
    shocked: Floats
    book: Ints
    bonus: Floats
    close_factor: Floats
    fee: Floats
    sellable: Ints


class Books(Protocol):
    """Order books: price = shocked price x exp(-sold / depth), ``sold`` the cumulative net quantity [units]."""

    depth: Floats
    sold: Floats


class Accounts(Protocol):
    """Accounts; account k has the entries ``first[k]:last[k]``. ``of_trader`` holds all codes, sorted by trader."""

    trader: Ints
    exchange: Ints
    first: Ints
    last: Ints
    of_trader: Ints
    bonus: Floats
    opening_debt: Floats
    forced: Ints


class Entries(Protocol):
    """Balances by account and market [units], with those that a top-up may open."""

    account: Ints
    market: Ints
    deposited: Floats
    borrowed: Floats
    threshold: Floats


class Traders(Protocol):
    """How traders answer; trader i has ``accounts.of_trader[first[i]:last[i]]`` and wallets likewise."""

    first: Ints
    last: Ints
    first_wallet: Ints
    last_wallet: Ints
    top_up: Ints
    withdraw: Ints


class Wallets(Protocol):
    """Free units, by trader, those in the numeraire first, then by value."""

    trader: Ints
    asset: Ints
    units: Floats


class Rules(Protocol):
    """The rulebook of each exchange as numbers."""

    whole_account: Ints
    position_base: Ints
    close_factor: Floats
    full_below_health: Floats
    full_below_value: Floats
    minimum_leftover: Floats
    always: Ints
    out: Ints


class Ledger(NamedTuple):
    """Double entry: units and cash of those who trade, and what every bearer lost by channel.

    ``bought`` holds the units that the market bought, by market and then by asset; ``fees`` the units an exchange
    earned, ``hole`` those its waterfall has still to find, ``short`` those it owes after all layers, by market.
    ``flow`` is the value of units that came in, at the marks of the round: losses by impact follow from it (summation
    by parts).
    """

    loss: Floats
    flow: Floats
    cash: Floats
    bought: Floats
    fees: Floats
    hole: Floats
    short: Floats


class Board(NamedTuple):
    """Everything kernels read and write: a record array for each group, so that each kernel is compiled once."""

    markets: Markets
    books: Books
    accounts: Accounts
    entries: Entries
    traders: Traders
    wallets: Wallets
    rules: Rules
    ledger: Ledger


@dataclass(eq=False)
class State:
    """All arrays of one run; the network itself is never written to."""

    net: ExposureNetwork
    shock: Shock
    markets: Markets
    books: Books
    accounts: Accounts
    entries: Entries
    traders: Traders
    wallets: Wallets
    rules: Rules
    ledger: Ledger
    layers: list[tuple[str, ...]]
    asset_base: NDArray[np.float64]
    holdings: tuple[NDArray[Any], NDArray[Any], NDArray[np.float64]]
    external_assets: NDArray[np.float64]
    fund_units: NDArray[np.float64]
    fund_asset: NDArray[np.int32]
    equity: NDArray[np.float64]
    marks_outside: NDArray[np.float64]
    by_market: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None
    opening: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.board = Board(
            self.markets,
            self.books,
            self.accounts,
            self.entries,
            self.traders,
            self.wallets,
            self.rules,
            self.ledger,
        )

    @property
    def n_traders(self) -> int:
        """Number of traders."""
        return len(self.net.labels("traders"))

    @property
    def n_exchanges(self) -> int:
        """Number of exchanges."""
        return len(self.net.labels("exchanges"))

    def marks(self) -> NDArray[np.float64]:
        """Mark of every market now."""
        return np.asarray(self.markets.shocked * self._factor(self.markets.book))

    def asset_prices(self) -> NDArray[np.float64]:
        """Price of every asset outside the exchanges now: the shared book's."""
        return np.asarray(self.asset_base * self._factor(np.arange(len(self.asset_base))))

    def _factor(self, book: NDArray[Any]) -> NDArray[np.float64]:
        with np.errstate(over="ignore"):  # a price without bound ends the run as NONFINITE
            return np.asarray(np.exp(-self.books.sold[book] / self.books.depth[book]))

    def entries_of_market(self, market: int) -> NDArray[np.int64]:
        """Entries of one market, through an index made on first use."""
        if self.by_market is None:
            order = np.argsort(self.entries.market, kind="stable")
            start = np.searchsorted(self.entries.market[order], np.arange(len(self.markets.shocked) + 1))
            self.by_market = (order, start)
        order, start = self.by_market
        return order[start[market] : start[market + 1]]

    def account_equity(self, marks: NDArray[np.float64]) -> NDArray[np.float64]:
        """Signed equity of every account [num]."""
        held = (self.entries.deposited - self.entries.borrowed) * marks[self.entries.market]
        return group_sum(self.entries.account, held, len(self.accounts.trader))

    def health(self, marks: NDArray[np.float64]) -> NDArray[np.float64]:
        """Health of every account, +inf without debt."""
        size = len(self.accounts.trader)
        price = marks[self.entries.market]
        backing = group_sum(self.entries.account, self.entries.deposited * price * self.entries.threshold, size)
        debt = group_sum(self.entries.account, self.entries.borrowed * price, size)
        return np.asarray(np.divide(backing, debt, out=np.full(size, np.inf), where=debt > 0))


def open_state(net: ExposureNetwork, shock: Shock, *, switches: Collection[str]) -> State:
    """Lay out the state right after the shock, before round 0, with some behavioural channels on."""
    book, exchange = net.book, net.columns("exchanges")
    factor = shock.price_factors(net)
    prices = net.columns("assets")["price"] * factor
    defaulted = shock.defaulted(net)
    depth = book.book_depth * shock.depth_factor if "impact" in switches else np.full(len(book.book_depth), np.inf)
    markets = _markets(net, factor)
    wallets = _wallets(net, defaulted, prices)
    entries = _entries(net, wallets)
    holding = net.columns("holdings")
    state = State(
        net=net,
        shock=shock,
        markets=markets,
        books=_records(depth=(depth, float), sold=(np.zeros(len(depth)), float)),
        accounts=_accounts(net, entries, markets, defaulted),
        entries=entries,
        traders=_traders(net, wallets, defaulted, switches),
        wallets=wallets,
        rules=_rules(net, shock),
        ledger=_ledger(len(net.nodes) + len(BEARERS), len(markets.shocked), len(prices)),
        layers=[rulebook(name).layers for name in exchange["rulebook"]],
        asset_base=prices,
        holdings=(holding["trader"], holding["asset"], holding["units"]),
        external_assets=shock.external_assets(net),
        fund_units=np.array(exchange["insurance_fund"]),
        fund_asset=exchange["insurance_asset"],
        equity=np.array(exchange["equity"]),
        marks_outside=prices,
    )
    _remember(state)
    return state


def _records(**columns: tuple[ArrayLike, Any]) -> Any:
    """Lay columns (values, dtype) out as one record array of the network's own size, whose fields are its columns."""
    arrays = {name: np.asarray(values) for name, (values, _) in columns.items()}
    dtype = np.dtype([(name, kind) for name, (_, kind) in columns.items()], align=True)
    table = np.zeros(len(next(iter(arrays.values()))), dtype=dtype)
    for name, values in arrays.items():
        table[name] = values
    return table.view(np.recarray)


def _markets(net: ExposureNetwork, factor: NDArray[np.float64]) -> Markets:
    book, market = net.book, net.columns("markets")
    found: Markets = _records(
        exchange=(book.market_exchange, np.int32),
        asset=(book.market_asset, np.int32),
        shocked=(book.market_mark * factor[book.market_asset], float),
        book=(book.market_book, np.int32),
        bonus=(np.nan_to_num(market["liquidation_bonus"], nan=0.0), float),
        close_factor=(market["close_factor"], float),
        fee=(market["protocol_fee"], float),
        sellable=(net.columns("assets")["kind"][book.market_asset] != "residual", np.uint8),
    )
    return found


def _accounts(net: ExposureNetwork, entries: Entries, markets: Markets, defaulted: NDArray[np.bool_]) -> Accounts:
    account = net.columns("accounts")
    size = len(account["trader"])
    start = np.searchsorted(entries.account, np.arange(size + 1))
    found: Accounts = _records(
        trader=(account["trader"], np.int32),
        exchange=(account["exchange"], np.int32),
        first=(start[:-1], np.int64),
        last=(start[1:], np.int64),
        of_trader=(np.argsort(account["trader"], kind="stable"), np.int64),
        bonus=(account["liquidation_bonus"], float),
        opening_debt=(group_sum(entries.account, entries.borrowed * markets.shocked[entries.market], size), float),
        forced=(defaulted[account["trader"]], np.uint8),
    )
    return found


def _traders(
    net: ExposureNetwork, wallets: Wallets, defaulted: NDArray[np.bool_], switches: Collection[str]
) -> Traders:
    active = (net.columns("traders")["policy"] != "passive") & ~defaulted
    ends = np.arange(len(active) + 1)
    accounts = np.searchsorted(np.sort(net.columns("accounts")["trader"]), ends)
    purse = np.searchsorted(wallets.trader, ends)
    found: Traders = _records(
        first=(accounts[:-1], np.int64),
        last=(accounts[1:], np.int64),
        first_wallet=(purse[:-1], np.int64),
        last_wallet=(purse[1:], np.int64),
        top_up=(active & ("top_up" in switches), np.uint8),
        withdraw=(active & ("withdrawal" in switches), np.uint8),
    )
    return found


def _ledger(n_bearers: int, n_markets: int, n_assets: int) -> Ledger:
    return Ledger(
        loss=np.zeros((len(CHANNELS), n_bearers)),
        flow=np.zeros(n_bearers),
        cash=np.zeros(n_bearers),
        bought=np.zeros(n_markets + n_assets),
        fees=np.zeros(n_markets),
        hole=np.zeros(n_markets),
        short=np.zeros(n_markets),
    )


def _wallets(net: ExposureNetwork, defaulted: NDArray[np.bool_], price: NDArray[np.float64]) -> Wallets:
    table = net.columns("wallets")
    value = table["units"] * price[table["asset"]]
    is_money = net.labels("assets")[table["asset"]] == net.numeraire if len(table["asset"]) else np.zeros(0, bool)
    order = np.lexsort((table["asset"], -value, ~np.asarray(is_money, dtype=bool), table["trader"]))
    trader = table["trader"][order]
    units = np.where(defaulted[trader], 0.0, table["units"][order])
    found: Wallets = _records(trader=(trader, np.int32), asset=(table["asset"][order], np.int32), units=(units, float))
    return found


def _entries(net: ExposureNetwork, wallets: Wallets) -> Entries:
    """Balances, and empty ones where the owner could top up with what the exchange takes as collateral."""
    book = net.book
    balance, account = net.columns("balances"), net.columns("accounts")
    n_assets = len(net.labels("assets"))
    key = balance["account"].astype(np.int64) * n_assets + balance["asset"]
    possible = _possible_top_ups(net, wallets)
    fresh = possible[~np.isin(possible, key)]
    merged = np.concatenate([key, fresh])
    order = np.argsort(merged, kind="stable")
    owner = (merged[order] // n_assets).astype(np.int32)
    pair = account["exchange"].astype(np.int64)[owner] * n_assets + merged[order] % n_assets
    markets = book.market_exchange.astype(np.int64) * n_assets + book.market_asset
    place = np.searchsorted(markets, pair).astype(np.int32)
    none = np.zeros(len(fresh))
    override = account["liquidation_threshold"][owner]
    listed = net.columns("markets")["liquidation_threshold"][place]
    threshold = np.nan_to_num(np.where(np.isnan(override), listed, override), nan=0.0)
    found: Entries = _records(
        account=(owner, np.int32),
        market=(place, np.int32),
        deposited=(np.concatenate([balance["deposited"], none])[order], float),
        borrowed=(np.concatenate([balance["borrowed"], none])[order], float),
        threshold=(threshold, float),
    )
    return found


def _possible_top_ups(net: ExposureNetwork, wallets: Wallets) -> NDArray[np.int64]:
    """Pairs of indebted account and asset its owner holds elsewhere, as account x number of assets + asset."""
    from scipy.sparse import coo_array

    book, account = net.book, net.columns("accounts")
    n_traders, n_assets, n_accounts = (len(net.labels(kind)) for kind in ("traders", "assets", "accounts"))
    active = net.columns("traders")["policy"] != "passive"
    several = np.bincount(account["trader"], minlength=n_traders) > 1
    has_wallet = np.bincount(wallets.trader, minlength=n_traders) > 0
    in_debt = np.zeros(n_accounts, dtype=bool)
    in_debt[book.balance_account[book.borrowed > 0]] = True
    wanted = in_debt & (active & (several | has_wallet))[account["trader"]]
    if not wanted.any():
        return np.zeros(0, dtype=np.int64)
    owner = account["trader"][book.balance_account]
    elsewhere = several[owner] & (book.deposited > 0)
    trader = np.concatenate([wallets.trader, owner[elsewhere]])
    asset = np.concatenate([wallets.asset, net.columns("balances")["asset"][elsewhere]])
    has = coo_array((np.ones(len(trader)), (trader, asset)), shape=(n_traders, n_assets)).tocsr()
    rows = np.flatnonzero(wanted)
    own = has[account["trader"][rows]].tocoo()
    where, what = rows[own.row], own.col
    listed = np.full((len(net.labels("exchanges")), n_assets), np.nan)
    listed[book.market_exchange, book.market_asset] = net.columns("markets")["liquidation_threshold"]
    accepted = listed[account["exchange"][where], what] > 0
    return np.sort(where[accepted].astype(np.int64) * n_assets + what[accepted])


def _rules(net: ExposureNetwork, shock: Shock) -> Rules:
    books = [rulebook(name) for name in net.columns("exchanges")["rulebook"]]
    found: Rules = _records(
        whole_account=([book.amount == "whole_account" for book in books], np.uint8),
        position_base=([book.base == "position" for book in books], np.uint8),
        close_factor=([np.nan if book.close_factor is None else book.close_factor for book in books], float),
        full_below_health=([book.full_below_health for book in books], float),
        full_below_value=([book.full_below_value for book in books], float),
        minimum_leftover=([book.minimum_leftover for book in books], float),
        always=([book.participation == "always" for book in books], np.uint8),
        out=(shock.out(net), np.uint8),
    )
    return found


def _remember(state: State) -> None:
    """Keep what the opening looked like: totals for conservation, wealth before and after the shock."""
    net, book = state.net, state.net.book
    state.opening = {
        "units": units_by_asset(state),
        "cash": float(state.equity.sum() + _cash_funds(state).sum()),
        "health": book.health(),
        "wealth": _wealth_before(state),
        "after_shock": wealth(state, state.marks(), state.asset_prices()),
        "unit_value": unit_value(state, state.marks(), state.asset_prices()),
        "by_location": units_by_location(state),
        "marks": book.market_mark,
        "prices": net.columns("assets")["price"],
    }
    state.ledger.loss[SHOCK] = state.opening["wealth"] - state.opening["after_shock"]


def _cash_funds(state: State) -> NDArray[np.float64]:
    """Insurance funds kept in the numeraire [num]."""
    return np.where(state.fund_asset < 0, state.fund_units, 0.0)


def _own_units(state: State) -> NDArray[np.float64]:
    """Units that an exchange itself has, less those it owes, by market."""
    return np.asarray(state.ledger.fees - state.ledger.hole - state.ledger.short)


def units_by_location(state: State) -> NDArray[np.float64]:
    """Units of everybody together, by market and then by asset outside the exchanges."""
    n_markets, n_assets = len(state.markets.shocked), len(state.asset_base)
    inside = group_sum(state.entries.market, state.entries.deposited - state.entries.borrowed, n_markets)
    inside = inside + _own_units(state)
    outside = group_sum(state.wallets.asset, state.wallets.units, n_assets)
    outside = outside + group_sum(state.holdings[1], state.holdings[2], n_assets)
    kept = state.fund_asset >= 0
    outside = outside + group_sum(state.fund_asset[kept], state.fund_units[kept], n_assets)
    return np.asarray(np.concatenate([inside, outside]) + state.ledger.bought)


def units_by_asset(state: State) -> NDArray[np.float64]:
    """Units of everybody together, by asset."""
    n_assets = len(state.asset_base)
    asset = np.concatenate([state.markets.asset, np.arange(n_assets)])
    return group_sum(asset, units_by_location(state), n_assets)


def wealth(state: State, marks: NDArray[np.float64], prices: NDArray[np.float64]) -> NDArray[np.float64]:
    """Wealth of every bearer at the given marks, liabilities among nodes apart [num]."""
    return unit_value(state, marks, prices) + money_held(state)


def unit_value(state: State, marks: NDArray[np.float64], prices: NDArray[np.float64]) -> NDArray[np.float64]:
    """Value of the units of every bearer: accounts, wallets, holdings, funds, own units, the market's purchases."""
    n_traders, n_exchanges = state.n_traders, state.n_exchanges
    owned = np.zeros(n_traders + n_exchanges + len(BEARERS))
    held = (state.entries.deposited - state.entries.borrowed) * marks[state.entries.market]
    owned[:n_traders] = group_sum(state.accounts.trader[state.entries.account], held, n_traders)
    owned[:n_traders] += group_sum(state.wallets.trader, state.wallets.units * prices[state.wallets.asset], n_traders)
    trader, asset, units = state.holdings
    owned[:n_traders] += group_sum(trader, units * prices[asset], n_traders)
    fund_price = np.where(state.fund_asset < 0, 0.0, np.append(prices, 0.0)[state.fund_asset])
    own = group_sum(state.markets.exchange, _own_units(state) * marks, n_exchanges)
    owned[n_traders : n_traders + n_exchanges] = state.fund_units * fund_price + own
    owned[-2] = float(state.ledger.bought @ np.concatenate([marks, prices]))
    return owned


def money_held(state: State) -> NDArray[np.float64]:
    """Cash and external assets of every bearer [num]."""
    held: NDArray[np.float64] = state.ledger.cash.copy()
    held[: state.n_traders] += state.external_assets
    held[state.n_traders : state.n_traders + state.n_exchanges] += state.equity + _cash_funds(state)
    return held


def _wealth_before(state: State) -> NDArray[np.float64]:
    """Wealth of every bearer before the shock, with what the shock then takes away."""
    net = state.net
    table = net.columns("wallets")
    owned = wealth(state, net.book.market_mark, net.columns("assets")["price"])
    price = net.columns("assets")["price"]
    left = group_sum(state.wallets.trader, state.wallets.units * price[state.wallets.asset], state.n_traders)
    held = group_sum(table["trader"], table["units"] * price[table["asset"]], state.n_traders)
    owned[: state.n_traders] += held - left + net.columns("traders")["external_assets"] - state.external_assets
    return owned


def bearer_labels(net: ExposureNetwork) -> list[Any]:
    """Labels of all bearers: nodes, then liquidators, market and external creditors."""
    nodes = net.nodes.to_numpy(dtype=object).tolist()
    return [*nodes, *(("bearer", name) if name in nodes else name for name in BEARERS)]


def called(health: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which healths are below 1, beyond rounding."""
    return health < 1 - HEALTH_TOL
