"""How a cascade opens: a network and a shock laid out as the state right after it, and what the opening looked like."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion._arrays import group_sum
from netcontagion.margining._posting import spans
from netcontagion.margining._state import BEARERS, CHANNELS, SHOCK, Board, Ledger, State
from netcontagion.margining._wealth import cash_funds, unit_value, units_by_asset, units_by_location, wealth
from netcontagion.network import rulebook

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import ArrayLike, NDArray

    from netcontagion.margining._state import Accounts, Entries, Markets, Rules, Traders, Wallets
    from netcontagion.network import ExposureNetwork, Shock

__all__ = ["open_state"]


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
    board = Board(
        markets=markets,
        books=_records(depth=(depth, float), sold=(np.zeros(len(depth)), float)),
        accounts=_accounts(net, entries, markets, defaulted),
        entries=entries,
        traders=_traders(net, wallets, defaulted, switches),
        wallets=wallets,
        rules=_rules(net, shock),
        ledger=_ledger(len(net.nodes) + len(BEARERS), len(markets.shocked), len(prices)),
    )
    state = State(
        net=net,
        shock=shock,
        board=board,
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
    has = np.unique(trader.astype(np.int64) * n_assets + asset)
    start = np.searchsorted(has, np.arange(n_traders + 1) * n_assets)
    rows = np.flatnonzero(wanted)
    owners = account["trader"][rows]
    found, place = spans(start[owners], start[owners + 1])
    where, what = rows[place], has[found] % n_assets
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
        "cash": float(state.equity.sum() + cash_funds(state).sum()),
        "health": book.health(),
        "wealth": _wealth_before(state),
        "after_shock": wealth(state, state.marks(), state.asset_prices()),
        "unit_value": unit_value(state, state.marks(), state.asset_prices()),
        "by_location": units_by_location(state),
        "marks": book.market_mark,
        "prices": net.columns("assets")["price"],
    }
    state.ledger.loss[SHOCK] = state.opening["wealth"] - state.opening["after_shock"]


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
