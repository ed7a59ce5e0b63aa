"""The state of the whole network, made when somebody asks: right after the shock, and at the end of a run."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion._arrays import group_sum
from netcontagion.margining._opening import empty_ledger
from netcontagion.margining._overlay import empty_tables
from netcontagion.margining._state import MUTUALISATION, SHOCK, Board, Reserves, Whole, bearers, longer, records
from netcontagion.margining._strokes import apply_strokes
from netcontagion.margining._valuation import worth
from netcontagion.margining._wealth import cash_of_all, unit_value, units_by_asset, units_by_location, wealth

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netcontagion.margining._overlay import Overlay
    from netcontagion.margining._state import Accounts, Entries, Live, Positions, Wallets

__all__ = ["current_state", "final_state", "open_whole"]


def final_state(live: Live) -> Whole:
    """Return what everybody has at the end of a run, with what the opening looked like."""
    whole = open_whole(live)
    whole.taken = live.taken
    _write(whole, live)
    return whole


def current_state(live: Live) -> Whole:
    """Return what everybody has now."""
    whole = _laid_out(live)
    _write(whole, live)
    return whole


def _write(whole: Whole, live: Live) -> None:
    """Write into the opening what happened since."""
    overlay, n_traders = live.overlay, whole.n_traders
    whole.books[:] = live.books
    whole.markets["long"], whole.markets["short"] = live.markets.long, live.markets.short
    whole.terms = replace(whole.terms, stress=live.terms.stress)
    whole.markets["shocked"], whole.asset_base[:] = live.markets.shocked, live.asset_base
    whole.external_assets = live.external_assets
    whole.wallets["units"][overlay.defaulted[whole.wallets.trader]] = 0.0
    whole.transit = _in_transit(live)
    if live.investors is not None:
        whole.holdings = live.investors.holdings_of_all(live)
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
    keys = whole.wallets.trader.astype(np.int64) * len(whole.asset_base) + whole.wallets.asset
    whole.wallets["units"][np.searchsorted(keys, _purse_keys(live, purse))] = purse.units
    mine, seats = live.ledger, slice(len(overlay.traders))
    for into, out in ((whole.ledger.loss, mine.loss), (whole.ledger.flow, mine.flow), (whole.ledger.cash, mine.cash)):
        into[..., overlay.traders] += out[..., seats]
        into[..., n_traders:] += out[..., live.n_traders :]
    theirs_alone = ("loss", "flow", "cash")
    common = {name: values for name, values in mine._asdict().items() if name not in theirs_alone}
    whole.board = whole.board._replace(ledger=whole.ledger._replace(**common))


def _in_transit(live: Live) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.float64]]:
    """Trader, market of origin and units of all withdrawals on their way."""
    source = live.entries[live.transit.source]
    return live.overlay.owner[live.accounts.trader[source.account]], source.market, live.transit.units


def _cut_cold(whole: Whole, overlay: Overlay) -> None:
    """Take from accounts without a seat what suppliers lost."""
    if (overlay.share == 1.0).all():
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
    """Lay out the state right after the first shock for the whole network, and remember what it looked like."""
    whole = _laid_out(live)
    _remember(whole)
    return whole


def _laid_out(live: Live) -> Whole:
    net, shock = live.net, live.shock
    exchange, factor = net.columns("exchanges"), shock.price_factors(net)
    prices, markets, books = net.columns("assets")["price"] * factor, live.markets.copy(), live.books.copy()
    markets["shocked"] = net.book.market_mark * factor[markets.asset]
    markets["long"], markets["short"] = markets.long / live.terms.stress, markets.short / live.terms.stress
    books["sold"] = books["passing"] = 0.0
    entries, positions = _entries(live), _positions(live)
    holding = net.columns("holdings")
    board = Board(
        markets=markets,
        accounts=_accounts(live, entries, positions),
        books=books,
        levels=live.levels,
        entries=entries,
        positions=positions,
        traders=longer(empty_tables()["traders"], len(net.labels("traders")))[: len(net.labels("traders"))],
        wallets=_wallets(live, shock.defaulted(net)),
        rules=live.rules,
        ledger=empty_ledger(net, len(net.nodes) + len(bearers(net))),
    )
    return Whole(
        net=net,
        shock=shock,
        board=board,
        terms=replace(live.terms, markets=markets, stress=np.ones(len(markets))),
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
        transit=(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0)),
    )


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
        forced=(live.overlay.has_failed(account["trader"]), np.uint8),
        test=(live.overlay.margin.test, np.uint8),
        first_position=(held[:-1], np.int64),
        last_position=(held[1:], np.int64),
        gains=(np.zeros(size), float),
        required=(np.zeros(size), float),
        waiting=(np.zeros(size), float),
    )
    return found


def _wallets(live: Live, defaulted: NDArray[np.bool_]) -> Wallets:
    """Wallets of the network, and empty ones where seats have a row more, by trader and asset."""
    table, purse = live.net.columns("wallets"), live.wallets[: live.overlay.used["wallets"]]
    n_assets = len(live.asset_base)
    key = table["trader"].astype(np.int64) * n_assets + table["asset"]
    keys, row = np.unique(np.concatenate([key, _purse_keys(live, purse)]), return_index=True)
    units = np.where(defaulted[table["trader"]], 0.0, table["units"])
    trader, asset = np.divmod(keys, max(n_assets, 1))
    held = np.append(units, np.zeros(len(purse)))[row]
    found: Wallets = records(trader=(trader, np.int32), asset=(asset, np.int32), units=(held, float))
    return found


def _purse_keys(live: Live, purse: Any) -> NDArray[np.int64]:
    """Trader and asset of wallets of seats as one number."""
    return np.asarray(live.overlay.owner[purse.trader] * len(live.asset_base) + purse.asset)


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
    row = np.minimum(np.searchsorted(key, own), max(len(key) - 1, 0))  # rows lie by account and market
    new = key[row] != own if len(key) else np.ones(len(own), dtype=bool)
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
        "base": np.concatenate([worth(state.markets, marks), prices]),
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
