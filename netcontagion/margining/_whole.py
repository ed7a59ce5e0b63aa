"""The state of the whole network, made when somebody asks: right after the shock, and at the end of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion._arrays import group_sum
from netcontagion.margining._opening import empty_ledger
from netcontagion.margining._state import MUTUALISATION, SHOCK, Board, Reserves, Whole, bearers, records
from netcontagion.margining._strokes import apply_strokes
from netcontagion.margining._wealth import cash_of_all, unit_value, units_by_asset, units_by_location, wealth

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

    from netcontagion.margining._overlay import Overlay
    from netcontagion.margining._state import Accounts, Entries, Live, Positions, Traders, Wallets
    from netcontagion.network import ExposureNetwork

__all__ = ["final_state", "open_whole"]


def final_state(live: Live) -> Whole:
    """Return what everybody has at the end of a run: as opened, with what happened to those who were called."""
    whole = open_whole(live)
    overlay, n_traders = live.overlay, whole.n_traders
    whole.books[:] = live.books
    whole.fund_units[:], whole.equity[:] = live.fund_units, live.equity
    whole.marks_outside, whole.reserves = live.marks_outside, live.reserves
    apply_strokes(whole, overlay)
    _cut_cold(whole, overlay)
    for name, columns in (("entries", ("deposited", "borrowed")), ("positions", ("quantity", "entry"))):
        ours, theirs = getattr(live, name)[: overlay.used[name]], getattr(whole, name)
        rows = _rows_of_seats(theirs, ours, overlay, len(whole.markets))
        for column in columns:
            theirs[column][rows] = ours[column]
    purse = live.wallets[: overlay.used["wallets"]]
    place = np.arange(len(purse)) - live.traders.first_wallet[purse.trader]
    whole.wallets["units"][whole.traders.first_wallet[overlay.owner[purse.trader]] + place] = purse.units
    mine, seats = live.ledger, slice(len(overlay.traders))
    for into, out in ((whole.ledger.loss, mine.loss), (whole.ledger.flow, mine.flow), (whole.ledger.cash, mine.cash)):
        into[..., overlay.traders] += out[..., seats]
        into[..., n_traders:] += out[..., live.n_traders :]
    theirs_alone = ("loss", "flow", "cash")
    common = {name: values for name, values in mine._asdict().items() if name not in theirs_alone}
    whole.board = whole.board._replace(ledger=whole.ledger._replace(**common))
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


def _rows_of_seats(whole: Any, seats: Any, overlay: Overlay, n_markets: int) -> NDArray[np.intp]:
    """Rows of the whole network that are the same balances or positions as those of the seats."""
    keys = whole.account.astype(np.int64) * n_markets + whole.market
    return np.asarray(np.searchsorted(keys, overlay.code[seats.account] * n_markets + seats.market))


def open_whole(live: Live) -> Whole:
    """Lay out the state right after the shock for the whole network."""
    net, shock, overlay = live.net, live.shock, live.overlay
    prices, exchange, defaulted = overlay.prices, net.columns("exchanges"), overlay.defaulted
    markets, books = live.markets, live.books.copy()
    books["sold"] = books["passing"] = 0.0
    wallets = _wallets(net, defaulted, prices)
    entries, positions = _entries(live), _positions(live)
    holding = net.columns("holdings")
    board = Board(
        markets=markets,
        accounts=_accounts(live, entries, positions),
        books=books,
        levels=live.levels,
        entries=entries,
        positions=positions,
        traders=_traders(net, wallets, defaulted, overlay.switches),
        wallets=wallets,
        rules=live.rules,
        ledger=empty_ledger(net, len(net.nodes) + len(bearers(net))),
    )
    whole = Whole(
        net=net,
        shock=shock,
        board=board,
        terms=live.terms,
        layers=live.layers,
        deficits=live.deficits,
        reserves=Reserves.of(net),
        asset_base=prices,
        holdings=(holding["trader"], holding["asset"], holding["units"]),
        external_assets=shock.external_assets(net),
        fund_units=np.array(exchange["insurance_fund"]),
        fund_asset=exchange["insurance_asset"],
        equity=np.array(exchange["equity"]),
        marks_outside=prices,
        quotes=live.quotes,
    )
    _remember(whole)
    return whole


def _accounts(live: Live, entries: Entries, positions: Positions) -> Accounts:
    account, size = live.net.columns("accounts"), live.net.book.n_accounts
    start, held = (np.searchsorted(rows.account, np.arange(size + 1)) for rows in (entries, positions))
    debt = group_sum(entries.account, entries.borrowed * live.overlay.shocked[entries.market], size)
    found: Accounts = records(
        trader=(account["trader"], np.int32),
        exchange=(account["exchange"], np.int32),
        first=(start[:-1], np.int64),
        last=(start[1:], np.int64),
        of_trader=(np.argsort(account["trader"], kind="stable"), np.int64),
        bonus=(account["liquidation_bonus"], float),
        opening_debt=(debt, float),
        forced=(live.overlay.defaulted[account["trader"]], np.uint8),
        test=(live.overlay.margin.test, np.uint8),
        first_position=(held[:-1], np.int64),
        last_position=(held[1:], np.int64),
        gains=(np.zeros(size), float),
        required=(np.zeros(size), float),
        waiting=(np.zeros(size), float),
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


def _entries(live: Live) -> Entries:
    """Balances of the network, and empty ones where seats have a row more."""
    book, seats = live.net.book, live.entries[: live.overlay.used["entries"]]
    known = {"deposited": book.deposited, "borrowed": book.borrowed, "threshold": live.overlay.margin.weight}
    none = np.zeros(len(seats))
    fresh = {"deposited": none, "borrowed": none, "threshold": seats.threshold}
    found: Entries = _united(live, (book.balance_account, book.balance_market), seats, known, fresh)
    return found


def _positions(live: Live) -> Positions:
    """Positions of the network, and empty ones where seats have a row more."""
    book, seats = live.net.book, live.positions[: live.overlay.used["positions"]]
    none = np.zeros(len(seats))
    known, fresh = {"quantity": book.quantity, "entry": book.entry_price}, {"quantity": none, "entry": none}
    found: Positions = _united(live, (book.position_account, book.position_market), seats, known, fresh)
    return found


def _united(
    live: Live,
    at: tuple[NDArray[Any], NDArray[Any]],
    seats: Any,
    known: dict[str, NDArray[np.float64]],
    fresh: dict[str, NDArray[np.float64]],
) -> Any:
    """Rows of the network (known) and of seats that it lacks (fresh), by account and market."""
    n_markets = len(live.markets)
    key = at[0].astype(np.int64) * n_markets + at[1]
    own, first = np.unique(live.overlay.code[seats.account] * n_markets + seats.market, return_index=True)
    new = ~np.isin(own, key)
    merged = np.concatenate([key, own[new]])
    order = np.argsort(merged, kind="stable")
    account, market = np.divmod(merged[order], max(n_markets, 1))
    columns = {name: (np.concatenate([known[name], fresh[name][first[new]]])[order], float) for name in known}
    return records(account=(account, np.int32), market=(market, np.int32), **columns)


def _remember(state: Whole) -> None:
    """Keep what the opening looked like: totals for conservation, wealth before and after the shock."""
    net, book = state.net, state.net.book
    marks, prices = state.opening_marks(), state.asset_base
    state.opening = {
        "units": units_by_asset(state),
        "cash": cash_of_all(state),
        "health": book.health(),
        "health_after_shock": state.health(marks),
        "wealth": _wealth_before(state),
        "after_shock": wealth(state, marks, prices),
        "unit_value": unit_value(state, marks, prices),
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
