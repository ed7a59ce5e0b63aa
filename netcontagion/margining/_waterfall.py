"""The loss waterfall of an exchange: who bears a hole, in the order of its rulebook."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from netcontagion._arrays import group_sum
from netcontagion.margining._state import EXECUTION, MUTUALISATION
from netcontagion.margining._trading import buy_for, cash_of, trade, units_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from netcontagion.margining._state import Live, Row
    from netcontagion.margining._trading import Levels

__all__ = ["cover_holes"]

SLACK = 1e-12  # relative rounding


def cover_holes(
    state: Live,
    marks: NDArray[np.float64],
    record: Callable[..., None],
    seat: Callable[[NDArray[np.int64]], None],
) -> list[int]:
    """Fill the holes of all exchanges layer by layer; return the markets in which accounts bore a loss.

    ``record(layer, exchange, asset, units, paid=, value=)`` notes every step, ``seat`` opens accounts that bear one.
    What no layer covers the exchange owes: ``hole`` of the ledger is empty afterwards.
    """
    ledger, cut, rules = state.ledger, [], state.rules
    markets = np.flatnonzero(ledger.hole > 0)
    rules["fund_left"], rules["fund_peak"] = rules.fund_cap, np.maximum(rules.fund_peak, state.fund_units)
    for exchange in np.unique(state.markets.exchange[markets]).tolist():
        own = markets[state.markets.exchange[markets] == exchange].tolist()
        for layer in (*state.layers[exchange], "uncovered"):
            for market in own:
                missing = float(ledger.hole[market])
                if missing <= 0.0:
                    continue
                if layer == "co_borrowers":
                    open_co_borrowers(state, market, seat)
                used, paid = _LAYERS[layer](state, exchange, market, missing, marks)
                if used > 0.0:
                    asset, value = int(state.markets.asset[market]), used * float(marks[market])
                    record(layer, exchange, asset, used, paid=paid, value=value)
                    if layer in ("suppliers", "co_borrowers"):
                        cut.append(market)
    state.lots["owed"][(state.lots.seat < 0) & (rules.hands_on[state.lots.exchange] > 0)] = 0.0
    return cut


def _from_fund(
    state: Live, exchange: int, market: int, missing: float, marks: NDArray[np.float64]
) -> tuple[float, float]:
    """Pay from the insurance fund, within what it may bear and what must stay in it."""
    rule, mark = state.rules[exchange], float(marks[market])
    held = float(state.fund_units[exchange] - (1.0 - rule.drawdown) * rule.fund_peak)
    if rule.fund_left < np.inf and mark > 0.0:
        missing = min(missing, float(rule.fund_left) / mark)
    if held <= 0.0 or missing <= 0.0:
        return 0.0, 0.0
    used, paid = _spend_fund(state, exchange, market, (missing, held), marks)
    rule["fund_left"] -= used * mark
    return used, paid


def _spend_fund(
    state: Live, exchange: int, market: int, limits: tuple[float, float], marks: NDArray[np.float64]
) -> tuple[float, float]:
    """Pay missing units, in kind where the fund holds the asset, else by selling what it has for this, in its asset."""
    (missing, held), asset = limits, int(state.fund_asset[exchange])
    if asset == state.markets.asset[market]:
        units = min(held, missing)
        price = float(state.marks_outside[asset])
        state.fund_units[exchange] -= units
        _fill(state, exchange, market, units, marks)
        basis = units * (price - float(marks[market]))
        _post(state, exchange, EXECUTION, loss=basis, flow=-units * price)
        return units, units * price
    if asset < 0:
        cost = min(_cost(state, market, missing), held)
        state.fund_units[exchange] -= cost
        return _buy(state, exchange, market, missing, cost, marks), cost
    place = len(state.markets.shocked) + asset
    cash = _sell_fund(state, exchange, (place, held), _cost(state, market, missing))
    return _buy(state, exchange, market, missing, cash, marks), cash


def _from_equity(
    state: Live, exchange: int, market: int, missing: float, marks: NDArray[np.float64]
) -> tuple[float, float]:
    cash = min(_cost(state, market, missing), float(state.equity[exchange]))
    if cash <= 0.0:
        return 0.0, 0.0
    state.equity[exchange] -= cash
    return _buy(state, exchange, market, missing, cash, marks), cash


def _from_suppliers(
    state: Live, exchange: int, market: int, missing: float, marks: NDArray[np.float64]
) -> tuple[float, float]:
    """Cut every deposit of the market by one share: h = missing / deposited."""
    overlay, table = state.overlay, state.entries
    entries = overlay.suppliers(table, market)
    supplied = table.deposited[entries]
    total = float(supplied.sum()) + overlay.cold_units(market)
    if total <= 0.0:
        return 0.0, 0.0
    share, price = min(missing / total, 1.0), float(marks[market])
    cut = supplied * share
    table["deposited"][entries] = supplied - cut
    overlay.cut_suppliers(market, share, price)
    trader = state.accounts.trader[table.account[entries]]
    np.add.at(state.ledger.loss[MUTUALISATION], trader, cut * price)
    np.add.at(state.ledger.flow, trader, -cut * price)
    units = min(missing, total)
    _fill(state, exchange, market, units, marks)
    _post(state, exchange, MUTUALISATION, loss=-units * price, flow=0.0)
    return units, units * price


def _uncovered(
    state: Live, _exchange: int, market: int, missing: float, marks: NDArray[np.float64]
) -> tuple[float, float]:
    """Leave the exchange short: collateral that was paid out in kind is not there to be cut."""
    state.ledger.hole[market] -= missing
    state.ledger.short[market] += missing
    return missing, missing * float(marks[market])


def _from_surplus(
    state: Live, exchange: int, market: int, missing: float, marks: NDArray[np.float64]
) -> tuple[float, float]:
    """Use what sales of collateral raised beyond the debt."""
    units = min(float(state.ledger.fees[market]), missing)
    if units <= 0.0:
        return 0.0, 0.0
    value = units * float(marks[market])
    state.ledger.fees[market] -= units
    _fill(state, exchange, market, units, marks)
    _post(state, exchange, EXECUTION, loss=0.0, flow=-value)
    return units, value


def _from_new_shares(
    state: Live, exchange: int, market: int, missing: float, marks: NDArray[np.float64]
) -> tuple[float, float]:
    """Sell new shares for what the missing units cost: their buyers pay, the old ones lose it."""
    cash = _cost(state, market, missing)
    if not 0.0 < cash < np.inf:
        return 0.0, 0.0
    state.ledger.minted[exchange] += cash
    state.ledger.cash[-2] -= cash
    return _buy(state, exchange, market, missing, cash, marks), cash


def open_co_borrowers(state: Live, market: int, seat: Callable[[NDArray[np.int64]], None]) -> None:
    """Give seats to all accounts that owe an asset on an exchange."""
    book = state.net.book
    seat(np.unique(book.balance_account[(book.balance_market == market) & (book.borrowed > 0)]))


def _to_co_borrowers(
    state: Live, exchange: int, market: int, missing: float, marks: NDArray[np.float64]
) -> tuple[float, float]:
    """Pass debt, with the collateral it came with, to the others who owe the asset, in proportion to collateral."""
    table = state.entries[: state.overlay.used["entries"]]
    debts = np.flatnonzero((table.market == market) & (table.borrowed > 0))
    rows = np.flatnonzero((table.deposited > 0) & (table.threshold > 0))
    value = table.deposited[rows] * marks[table.market[rows]]
    weight = group_sum(table.account[rows], value, len(state.accounts))[table.account[debts]]
    if not weight.sum() > 0.0:
        return 0.0, 0.0
    part, price = weight / weight.sum(), float(marks[market])
    table["borrowed"][debts] += missing * part
    _move(state, exchange, table.account[debts], missing * part * price)
    _hand_on_collateral(state, exchange, market, (missing, table.account[debts], part), marks)
    state.ledger.hole[market] = max(state.ledger.hole[market] - missing, 0.0)
    return missing, missing * price


def _hand_on_collateral(
    state: Live,
    exchange: int,
    market: int,
    takers: tuple[float, NDArray[np.int64], NDArray[np.float64]],
    marks: NDArray[np.float64],
) -> None:
    """Pass the stock that stands against a debt on with it, to those takers of the debt who hold the asset."""
    (missing, seats, part), lots, table = takers, state.lots, state.entries
    against = np.flatnonzero((lots.seat < 0) & (lots.debt == market) & (lots.owed > 0) & (lots.units > 0))
    total = float(lots.owed[against].sum())
    share = np.zeros(len(state.accounts))
    share[seats] = part
    for lot in against.tolist():
        collateral = int(lots.collateral[lot])
        used = state.overlay.used["entries"]
        rows = np.flatnonzero((table.market[:used] == collateral) & (share[table.account[:used]] > 0))
        rows = rows[(table.deposited[rows] > 0) & (table.threshold[rows] > 0)]
        weight = share[table.account[rows]]
        if not weight.sum() > 0.0:
            continue
        handed = float(lots.units[lot]) * min(missing / total, 1.0)
        units = handed * weight / weight.sum()
        table["deposited"][rows] += units
        left = float(lots.units[lot]) - handed
        lots["units"][lot] = left if left > SLACK * handed else 0.0
        state.ledger.inventory[collateral] -= handed
        _move(state, exchange, table.account[rows], -units * float(marks[collateral]))


def _move(state: Live, exchange: int, seats: NDArray[np.int64], value: NDArray[np.float64]) -> None:
    """Post a loss of accounts as a gain of their exchange."""
    trader = state.accounts.trader[seats]
    np.add.at(state.ledger.loss[MUTUALISATION], trader, value)
    np.subtract.at(state.ledger.flow, trader, value)
    _post(state, exchange, MUTUALISATION, loss=-float(value.sum()), flow=float(value.sum()))


_LAYERS = {
    "surplus": _from_surplus,
    "insurance_fund": _from_fund,
    "equity": _from_equity,
    "suppliers": _from_suppliers,
    "mint": _from_new_shares,
    "co_borrowers": _to_co_borrowers,
    "frozen": _uncovered,
    "uncovered": _uncovered,
}


def _fill(state: Live, exchange: int, market: int, units: float, marks: NDArray[np.float64]) -> None:
    state.ledger.hole[market] = max(state.ledger.hole[market] - units, 0.0)
    _post(state, exchange, EXECUTION, loss=0.0, flow=units * float(marks[market]))


def _post(state: Live, exchange: int, channel: int, *, loss: float, flow: float) -> None:
    bank = state.n_traders + exchange
    state.ledger.loss[channel, bank] += loss
    state.ledger.flow[bank] += flow


# trades of the exchange itself --------------------------------------------------------------------------------------


def _book(state: Live, place: int) -> tuple[float, Row, Levels]:
    """Return base price, book and levels of a market, or of an asset outside the exchanges."""
    n_markets = len(state.markets.shocked)
    inside = place < n_markets
    book = int(state.markets.book[place]) if inside else place - n_markets
    base = float(state.markets.shocked[place] if inside else state.asset_base[place - n_markets])
    return base, state.books[book], state.levels


def _cost(state: Live, place: int, units: float) -> float:
    """Cash that buys the units, as far as somebody sells them."""
    base, book, levels = _book(state, place)
    return -cash_of(base, -units, book, levels)


def _buy(state: Live, exchange: int, market: int, missing: float, cash: float, marks: NDArray[np.float64]) -> float:
    """Spend cash on the missing units and put them into the hole; return the units bought."""
    base, book, levels = _book(state, market)
    units = -buy_for(base, missing, cash, book, levels)[0]
    value = units * float(marks[market])
    state.ledger.bought[market] -= units
    state.ledger.cash[-2] += cash
    state.ledger.loss[EXECUTION, -2] += value - cash
    state.ledger.flow[-2] -= value
    _fill(state, exchange, market, units, marks)
    _post(state, exchange, EXECUTION, loss=cash - value, flow=0.0)
    return units


def _sell_fund(state: Live, exchange: int, stock: tuple[int, float], wanted: float) -> float:
    """Sell units of the fund, at a place, for the wanted cash, or all that the book takes; return the cash."""
    place, units = stock
    base, book, levels = _book(state, place)
    cash = cash_of(base, units, book, levels)
    if cash <= 0.0:
        return 0.0
    if cash > wanted:
        cash, units = wanted, min(units_of(base, wanted, book, levels), units)
    units = trade(base, units, book, levels)[0]
    mark = float(state.marks_outside[place - len(state.markets.shocked)])
    state.fund_units[exchange] -= units
    value = units * mark
    state.ledger.bought[place] += units
    state.ledger.cash[-2] -= cash
    state.ledger.loss[EXECUTION, -2] += cash - value
    state.ledger.flow[-2] += value
    _post(state, exchange, EXECUTION, loss=value - cash, flow=-value)
    return cash
