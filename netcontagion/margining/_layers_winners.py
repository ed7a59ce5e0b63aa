"""Loss layers that winners bear: cuts of unrealised gains, and contracts that end at the mark."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from netcontagion._arrays import group_sum
from netcontagion.margining._house_trades import buy, cost, post, receive, sell
from netcontagion.margining._margin_sales import close_at
from netcontagion.margining._state import MUTUALISATION
from netcontagion.margining._valuation import INVERSE, gains, worth

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netcontagion.margining._desk import Desk
    from netcontagion.margining._house_trades import Gap
    from netcontagion.margining._state import Live
    from netcontagion.network import Layer

__all__ = ["from_gains", "from_tear_up", "pass_to_market", "rows_at"]


def rows_at(desk: Desk, exchange: int) -> NDArray[np.intp]:
    """Give seats to all who hold contracts at an exchange; return the rows of their positions."""
    desk.seats_of(desk.holders(exchange))
    state = desk.state
    held = state.positions[: state.overlay.used["positions"]]
    return np.flatnonzero((state.markets.exchange[held.market] == exchange) & (held.quantity != 0.0))


def from_gains(desk: Desk, gap: Gap, _rule: Layer) -> tuple[float, float]:
    """Cut the net unrealised gain of every account by one share, min(1, missing / all gains)."""
    wanted = cost(desk.state, gap.market, gap.units)
    cash = _cut_gains(desk, gap, wanted)
    return (buy(desk.state, gap, cash), cash) if cash > 0.0 else (0.0, 0.0)


def _cut_gains(desk: Desk, gap: Gap, wanted: float) -> float:
    """Let winners give up gains for the wanted money; return what the exchange got."""
    rows = rows_at(desk, gap.exchange)
    state, marks = desk.state, gap.marks
    held = state.positions[rows]
    gain, size = gains(state.markets, held, marks), len(state.accounts)
    of_account = np.maximum(group_sum(held.account, gain, size), 0.0)
    total = float(of_account.sum())
    if total <= 0.0 or wanted <= 0.0:
        return 0.0
    winning = np.maximum(gain, 0.0)
    best = group_sum(held.account, winning, size)
    share = np.divide(of_account, best, out=np.zeros(size), where=best > 0.0)[held.account]
    cut = winning * share * min(wanted / total, 1.0)
    np.add.at(state.ledger.loss[MUTUALISATION], state.accounts.trader[held.account], cut)
    inverse = state.markets.kind[held.market] == INVERSE
    _raise_entries(state, rows, cut, inverse, marks)
    cash = float(cut[~inverse].sum())
    receive(state, gap.exchange, cash, MUTUALISATION)
    coins = group_sum(state.markets.settle[held.market[inverse]], cut[inverse], len(marks))
    for market in np.flatnonzero(coins > 0.0).tolist():
        cash += _sell_coins(state, gap.exchange, market, float(coins[market]), float(marks[market]))
    desk.touch(np.unique(held.account[cut > 0.0]))
    return cash


def _raise_entries(
    state: Live,
    rows: NDArray[np.intp],
    cut: NDArray[np.float64],
    inverse: NDArray[np.bool_],
    marks: NDArray[np.float64],
) -> None:
    """Move entry prices towards the mark until that much of each gain is gone."""
    positions, held = state.positions, state.positions[rows]
    linear = ~inverse
    positions["entry"][rows[linear]] += cut[linear] / held.quantity[linear]
    quantity, market = held.quantity[inverse], held.market[inverse]
    face, coin = state.markets.face[market], state.markets.settle[market]
    paid = np.divide(cut[inverse], marks[coin], out=np.zeros(len(coin)), where=marks[coin] > 0.0)
    positions["entry"][rows[inverse]] = quantity * face / (quantity * face / held.entry[inverse] - paid)
    np.subtract.at(state.ledger.flow, state.accounts.trader[held.account[inverse]], cut[inverse])


def _sell_coins(state: Live, exchange: int, market: int, value: float, mark: float) -> float:
    """Book coins that winners gave up as the exchange's own, and sell them."""
    units, bank = value / mark, state.n_traders + exchange
    state.ledger.pool[market] += units
    post(state, exchange, MUTUALISATION, loss=-value, flow=value)
    sold, cash = sell(state, bank, exchange, market, units, np.inf, mark)
    state.ledger.pool[market] -= sold
    return cash


def from_tear_up(desk: Desk, gap: Gap, rule: Layer) -> tuple[float, float]:
    """Cut what is left of gains, then end every contract of the exchange at its mark."""
    found = from_gains(desk, gap, rule)
    rows = rows_at(desk, gap.exchange)
    if len(rows):
        state = desk.state
        held, unit = state.positions[rows], worth(state.markets, gap.marks)
        orders = np.column_stack([held.account, rows, held.quantity, unit[held.market]])
        close_at(orders, np.full(len(rows), MUTUALISATION), state.board, gap.marks)
        left = group_sum(held.market, held.quantity, len(unit))
        for market in np.flatnonzero(left).tolist():
            pass_to_market(state, market, float(left[market]), float(unit[market]), gap.marks)
        desk.touch(np.unique(held.account))
        desk.torn.append(np.unique(held.account).astype(np.int64))
    return found


def pass_to_market(state: Live, market: int, units: float, price: float, marks: NDArray[np.float64]) -> None:
    """Pass contracts to the market node at the mark, without a book, and what their closing brought beyond it to us.

    ``price`` is the value per unit at which they were closed.
    """
    row, unit = state.markets[market], float(worth(state.markets, marks)[market])
    bank, ledger = state.n_traders + int(row.exchange), state.ledger
    ledger.bought[market] += units
    ledger.passed[market] += units
    ledger.flow[-2] += units * unit
    extra = units * (unit - price)  # of the exchange
    coin = int(row.settle)
    ledger.loss[MUTUALISATION, bank] -= extra
    if row.kind == INVERSE:
        coins = 1.0 / float(marks[coin]) if marks[coin] > 0.0 else 0.0  # as in ``close_at``: none for what is worth 0
        ledger.bought[coin] -= units * unit * coins
        ledger.passed[coin] -= units * unit * coins
        ledger.flow[-2] -= units * unit
        ledger.pool[coin] += extra * coins
        ledger.flow[bank] += extra
    else:
        ledger.cash[-2] -= units * unit
        ledger.cash[bank] += extra
