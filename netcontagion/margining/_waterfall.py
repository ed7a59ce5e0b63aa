"""The loss waterfall of an exchange: insurance fund, own equity, suppliers, in the order of its rulebook."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from netcontagion.margining._state import EXECUTION, MUTUALISATION
from netcontagion.margining._trading import buy_for, cash_of, trade, units_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from netcontagion.margining._state import Live, Row
    from netcontagion.margining._trading import Levels

__all__ = ["cover_holes"]


def cover_holes(state: Live, marks: NDArray[np.float64], record: Callable[..., None]) -> list[int]:
    """Fill the holes of all exchanges layer by layer; return the markets whose suppliers bore a loss.

    ``record(layer, exchange, asset, units, paid=, value=)`` notes every step. What no layer covers the exchange owes:
    ``hole`` of the ledger is empty afterwards.
    """
    ledger, cut = state.ledger, []
    markets = np.flatnonzero(ledger.hole > 0)
    for exchange in np.unique(state.markets.exchange[markets]).tolist():
        own = markets[state.markets.exchange[markets] == exchange].tolist()
        for layer in (*state.layers[exchange], "uncovered"):
            for market in own:
                missing = float(ledger.hole[market])
                if missing <= 0.0:
                    continue
                used, paid = _LAYERS[layer](state, exchange, market, missing, marks)
                if used > 0.0:
                    asset, value = int(state.markets.asset[market]), used * float(marks[market])
                    record(layer, exchange, asset, used, paid=paid, value=value)
                    if layer == "suppliers":
                        cut.append(market)
    return cut


def _from_fund(
    state: Live, exchange: int, market: int, missing: float, marks: NDArray[np.float64]
) -> tuple[float, float]:
    """Pay from the insurance fund, in kind where it holds the asset, else by selling what it holds."""
    held, asset = float(state.fund_units[exchange]), int(state.fund_asset[exchange])
    if held <= 0.0:
        return 0.0, 0.0
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
    cash = _sell_fund(state, exchange, place, _cost(state, market, missing))
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


_LAYERS = {
    "insurance_fund": _from_fund,
    "equity": _from_equity,
    "suppliers": _from_suppliers,
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


def _sell_fund(state: Live, exchange: int, place: int, wanted: float) -> float:
    """Sell what the fund holds for the wanted cash, or all that the book takes; return the cash."""
    base, book, levels = _book(state, place)
    units = float(state.fund_units[exchange])
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
