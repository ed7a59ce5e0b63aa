"""Trades of an exchange itself: it sells what it may use, and buys the units that its waterfall lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from netcontagion.margining._state import EXECUTION
from netcontagion.margining._trading import buy_for, cash_of, trade, units_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from netcontagion.margining._state import Live, Row
    from netcontagion.margining._trading import Levels

__all__ = ["Gap", "buy", "cost", "fill", "post", "receive", "sell"]


class Gap(NamedTuple):
    """Units that an exchange lacks in one of its markets, at the marks of the round."""

    exchange: int
    market: int
    units: float
    marks: NDArray[np.float64]

    @property
    def value(self) -> float:
        """Value at the mark [num]."""
        return self.units * float(self.marks[self.market])


def post(state: Live, exchange: int, channel: int, *, loss: float, flow: float) -> None:
    """Post a loss of an exchange, and the value of units that came in."""
    bank = state.n_traders + exchange
    state.ledger.loss[channel, bank] += loss
    state.ledger.flow[bank] += flow


def receive(state: Live, exchange: int, money: float, channel: int) -> None:
    """Let an exchange receive money that others lose."""
    state.ledger.cash[state.n_traders + exchange] += money
    post(state, exchange, channel, loss=-money, flow=0.0)


def fill(state: Live, gap: Gap, units: float) -> None:
    """Put units into the hole."""
    state.ledger.hole[gap.market] = max(state.ledger.hole[gap.market] - units, 0.0)
    post(state, gap.exchange, EXECUTION, loss=0.0, flow=units * float(gap.marks[gap.market]))


def _book(state: Live, place: int) -> tuple[float, Row, Levels]:
    """Return base price, book and levels of a market, or of an asset outside the exchanges."""
    n_markets = len(state.markets.shocked)
    inside = place < n_markets
    book = int(state.markets.book[place]) if inside else place - n_markets
    base = float(state.markets.shocked[place] if inside else state.asset_base[place - n_markets])
    return base, state.books[book], state.levels


def cost(state: Live, place: int, units: float) -> float:
    """Cash that buys the units, as far as somebody sells them."""
    base, book, levels = _book(state, place)
    return -cash_of(base, -units, book, levels)


def buy(state: Live, gap: Gap, cash: float) -> float:
    """Spend money of the exchange on the missing units and put them into the hole; return the units bought."""
    base, book, levels = _book(state, gap.market)
    units = -buy_for(base, gap.units, cash, book, levels)[0]
    value = units * float(gap.marks[gap.market])
    state.ledger.cash[state.n_traders + gap.exchange] -= cash
    state.ledger.bought[gap.market] -= units
    state.ledger.cash[-2] += cash
    state.ledger.loss[EXECUTION, -2] += value - cash
    state.ledger.flow[-2] -= value
    fill(state, gap, units)
    post(state, gap.exchange, EXECUTION, loss=cash - value, flow=0.0)
    return units


def sell(
    state: Live, bearer: int, exchange: int, place: int, held: float, wanted: float, mark: float
) -> tuple[float, float]:
    """Sell units of a bearer for the wanted money, or all that is held; return the units and the exchange's money."""
    base, book, levels = _book(state, place)
    units, cash = held, cash_of(base, held, book, levels)
    if not cash > 0.0:
        return 0.0, 0.0
    if cash > wanted:
        cash, units = wanted, min(units_of(base, wanted, book, levels), held)
    units = trade(base, units, book, levels)[0]
    value, ledger = units * mark, state.ledger
    ledger.bought[place] += units
    ledger.cash[-2] -= cash
    ledger.cash[state.n_traders + exchange] += cash
    ledger.loss[EXECUTION, -2] += cash - value
    ledger.flow[-2] += value
    ledger.loss[EXECUTION, bearer] += value - cash
    ledger.flow[bearer] -= value
    return units, cash
