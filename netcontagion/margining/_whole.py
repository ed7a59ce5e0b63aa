"""The state of the whole network, made when somebody asks: right after the shock, and at the end of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from netcontagion._arrays import group_sum
from netcontagion.margining._opening import empty_ledger
from netcontagion.margining._posting import spans
from netcontagion.margining._state import BEARERS, MUTUALISATION, SHOCK, Board, Whole, records
from netcontagion.margining._wealth import cash_funds, unit_value, units_by_asset, units_by_location, wealth

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

    from netcontagion.margining._overlay import Overlay
    from netcontagion.margining._state import Accounts, Entries, Live, Markets, Traders, Wallets
    from netcontagion.network import ExposureNetwork

__all__ = ["final_state", "open_whole"]


def final_state(live: Live) -> Whole:
    """Return what everybody has at the end of a run: as opened, with what happened to those who have a seat."""
    whole = open_whole(live)
    overlay, n_traders = live.overlay, whole.n_traders
    whole.books["sold"] = live.books.sold
    whole.fund_units[:], whole.equity[:] = live.fund_units, live.equity
    whole.marks_outside = live.marks_outside
    _cut_cold(whole, overlay)
    ours, theirs = _rows_of_seats(whole, live)
    for side in ("deposited", "borrowed"):
        whole.entries[side][theirs] = live.entries[side][ours]
    purse = live.wallets[: overlay.used["wallets"]]
    place = np.arange(len(purse)) - live.traders.first_wallet[purse.trader]
    whole.wallets["units"][whole.traders.first_wallet[overlay.owner[purse.trader]] + place] = purse.units
    mine, seats = live.ledger, slice(len(overlay.traders))
    for into, out in ((whole.ledger.loss, mine.loss), (whole.ledger.flow, mine.flow), (whole.ledger.cash, mine.cash)):
        into[..., overlay.traders] += out[..., seats]
        into[..., n_traders:] += out[..., live.n_traders :]
    whole.board = whole.board._replace(
        ledger=whole.ledger._replace(bought=mine.bought, fees=mine.fees, hole=mine.hole, short=mine.short)
    )
    return whole


def _cut_cold(whole: Whole, overlay: Overlay) -> None:
    """Take from accounts without a seat what suppliers lost."""
    if not overlay.cut.any():
        return
    entries, ledger = whole.entries, whole.ledger
    cold = np.ones(len(whole.accounts), dtype=bool)
    cold[overlay.accounts] = False
    rows = np.flatnonzero(cold[entries.account] & (entries.deposited > 0))
    market, trader = entries.market[rows], whole.accounts.trader[entries.account[rows]]
    lost = group_sum(trader, entries.deposited[rows] * overlay.cut[market], whole.n_traders)
    ledger.loss[MUTUALISATION, : whole.n_traders] += lost
    ledger.flow[: whole.n_traders] -= lost
    entries["deposited"][rows] *= overlay.share[market]


def _rows_of_seats(whole: Whole, live: Live) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Entries of the seats, and the rows of the same balances of the network."""
    n_markets, entries = len(whole.markets), live.entries[: live.overlay.used["entries"]]
    keys = whole.entries.account.astype(np.int64) * n_markets + whole.entries.market
    found = np.searchsorted(keys, live.overlay.code[entries.account] * n_markets + entries.market)
    return np.arange(len(entries)), found


def open_whole(live: Live) -> Whole:
    """Lay out the state right after the shock for the whole network."""
    net, shock, overlay = live.net, live.shock, live.overlay
    prices, exchange, defaulted = overlay.prices, net.columns("exchanges"), overlay.defaulted
    markets = live.markets
    wallets = _wallets(net, defaulted, prices)
    entries = _entries(net, wallets)
    holding = net.columns("holdings")
    board = Board(
        markets=markets,
        books=records(depth=(live.books.depth, float), sold=(np.zeros(len(live.books)), float)),
        accounts=_accounts(net, entries, markets, defaulted),
        entries=entries,
        traders=_traders(net, wallets, defaulted, overlay.switches),
        wallets=wallets,
        rules=live.rules,
        ledger=empty_ledger(len(net.nodes) + len(BEARERS), len(markets), len(prices)),
    )
    whole = Whole(
        net=net,
        shock=shock,
        board=board,
        layers=live.layers,
        asset_base=prices,
        holdings=(holding["trader"], holding["asset"], holding["units"]),
        external_assets=shock.external_assets(net),
        fund_units=np.array(exchange["insurance_fund"]),
        fund_asset=exchange["insurance_asset"],
        equity=np.array(exchange["equity"]),
        marks_outside=prices,
    )
    _remember(whole)
    return whole


def _accounts(net: ExposureNetwork, entries: Entries, markets: Markets, defaulted: NDArray[np.bool_]) -> Accounts:
    account = net.columns("accounts")
    size = len(account["trader"])
    start = np.searchsorted(entries.account, np.arange(size + 1))
    found: Accounts = records(
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
    found: Traders = records(
        first=(accounts[:-1], np.int64),
        last=(accounts[1:], np.int64),
        first_wallet=(purse[:-1], np.int64),
        last_wallet=(purse[1:], np.int64),
        top_up=(active & ("top_up" in switches), np.uint8),
        withdraw=(active & ("withdrawal" in switches), np.uint8),
    )
    return found


def _wallets(net: ExposureNetwork, defaulted: NDArray[np.bool_], price: NDArray[np.float64]) -> Wallets:
    table = net.columns("wallets")
    value = table["units"] * price[table["asset"]]
    is_money = net.labels("assets")[table["asset"]] == net.numeraire if len(table["asset"]) else np.zeros(0, bool)
    order = np.lexsort((table["asset"], -value, ~np.asarray(is_money, dtype=bool), table["trader"]))
    trader = table["trader"][order]
    units = np.where(defaulted[trader], 0.0, table["units"][order])
    found: Wallets = records(trader=(trader, np.int32), asset=(table["asset"][order], np.int32), units=(units, float))
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
    found: Entries = records(
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


def _remember(state: Whole) -> None:
    """Keep what the opening looked like: totals for conservation, wealth before and after the shock."""
    net, book = state.net, state.net.book
    state.opening = {
        "units": units_by_asset(state),
        "cash": float(state.equity.sum() + cash_funds(state).sum()),
        "health": book.health(),
        "health_after_shock": state.health(state.marks()),
        "wealth": _wealth_before(state),
        "after_shock": wealth(state, state.marks(), state.asset_prices()),
        "unit_value": unit_value(state, state.marks(), state.asset_prices()),
        "by_location": units_by_location(state),
        "marks": book.market_mark,
        "prices": net.columns("assets")["price"],
    }
    state.ledger.loss[SHOCK] = state.opening["wealth"] - state.opening["after_shock"]


def _wealth_before(state: Whole) -> NDArray[np.float64]:
    """Wealth of every bearer before the shock, with what the shock then takes away."""
    net = state.net
    table = net.columns("wallets")
    owned = wealth(state, net.book.market_mark, net.columns("assets")["price"])
    price = net.columns("assets")["price"]
    left = group_sum(state.wallets.trader, state.wallets.units * price[state.wallets.asset], state.n_traders)
    held = group_sum(table["trader"], table["units"] * price[table["asset"]], state.n_traders)
    owned[: state.n_traders] += held - left + net.columns("traders")["external_assets"] - state.external_assets
    return owned
