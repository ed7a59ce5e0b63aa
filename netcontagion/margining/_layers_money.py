"""Loss layers that pay with what an exchange has: fund, surplus of liquidations, own money, its backstop vault.

A layer is given the desk, the gap and its rule, and returns the units it found and the money it spent on them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from netcontagion.margining._house_trades import buy, cost, fill, post, sell
from netcontagion.margining._state import EXECUTION, MUTUALISATION

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netcontagion.margining._desk import Desk
    from netcontagion.margining._house_trades import Gap
    from netcontagion.margining._state import Live
    from netcontagion.network import Layer

__all__ = ["from_equity", "from_fund", "from_skin", "from_surplus", "from_vault", "fund_surplus", "means"]


def from_fund(desk: Desk, gap: Gap, _rule: Layer) -> tuple[float, float]:
    """Pay from the insurance fund, within what it may bear and what must stay in it."""
    state, exchange = desk.state, gap.exchange
    rule, mark = state.rules[exchange], float(gap.marks[gap.market])
    held = float(state.fund_units[exchange] - (1.0 - rule.drawdown) * rule.fund_peak)
    if rule.fund_left < np.inf and mark > 0.0:
        gap = gap._replace(units=min(gap.units, float(rule.fund_left) / mark))
    if held <= 0.0 or gap.units <= 0.0:
        return 0.0, 0.0
    used, paid = _spend_fund(state, gap, held)
    rule["fund_left"] -= used * mark
    return used, paid


def _spend_fund(state: Live, gap: Gap, held: float) -> tuple[float, float]:
    """Pay in kind where the fund holds the asset, else by selling what it has for this, in its asset."""
    exchange, asset = gap.exchange, int(state.fund_asset[gap.exchange])
    if asset == state.markets.asset[gap.market]:
        units = min(held, gap.units)
        price = float(state.marks_outside[asset])
        state.fund_units[exchange] -= units
        fill(state, gap, units)
        basis = units * (price - float(gap.marks[gap.market]))
        post(state, exchange, EXECUTION, loss=basis, flow=-units * price)
        return units, units * price
    wanted, bank = cost(state, gap.market, gap.units), state.n_traders + exchange
    if asset < 0:
        cash = min(wanted, held)
        state.fund_units[exchange] -= cash
        state.ledger.cash[bank] += cash
    else:
        place, mark = len(state.markets.shocked) + asset, float(state.marks_outside[asset])
        units, cash = sell(state, bank, exchange, place, held, wanted, mark)
        state.fund_units[exchange] -= units
    return buy(state, gap, cash), cash


def from_surplus(desk: Desk, gap: Gap, _rule: Layer) -> tuple[float, float]:
    """Pay from what closed accounts were charged in this round: in kind first, then by sale."""
    state, surplus, own = desk.state, desk.state.reserves.surplus, 0.0
    units = min(float(surplus[gap.market]), gap.units)
    if units > 0.0:  # a unit of the exchange fills its own hole: its wealth is the same
        surplus[gap.market] -= units
        state.ledger.fees[gap.market] -= units
        state.ledger.hole[gap.market] -= units
        own, gap = units * float(gap.marks[gap.market]), gap._replace(units=gap.units - units)
    cash, wanted = 0.0, cost(state, gap.market, gap.units) if gap.units > 0.0 else 0.0
    for market in _surplus_of(state, gap.exchange).tolist():
        if cash < wanted:
            cash += _sell_surplus(state, gap.exchange, market, wanted - cash, gap.marks)
    return units + (buy(state, gap, cash) if cash > 0.0 else 0.0), own + cash


def _surplus_of(state: Live, exchange: int) -> NDArray[np.intp]:
    return np.flatnonzero((state.reserves.surplus > 0.0) & (state.markets.exchange == exchange))


def _sell_surplus(state: Live, exchange: int, market: int, wanted: float, marks: NDArray[np.float64]) -> float:
    held, bank = float(state.reserves.surplus[market]), state.n_traders + exchange
    units, cash = sell(state, bank, exchange, market, held, wanted, float(marks[market]))
    state.reserves.surplus[market] -= units
    state.ledger.fees[market] -= units
    return cash


def fund_surplus(state: Live, exchange: int, marks: NDArray[np.float64]) -> None:
    """Pass what was charged in the round and not used to the insurance fund, where the fund can keep it."""
    asset, reserves, bank = int(state.fund_asset[exchange]), state.reserves, state.n_traders + exchange
    for market in _surplus_of(state, exchange).tolist():
        units = float(reserves.surplus[market])
        if asset == state.markets.asset[market]:
            price = float(state.marks_outside[asset])
            state.ledger.fees[market] -= units
            state.fund_units[exchange] += units
            gain = units * (price - float(marks[market]))
            post(state, exchange, EXECUTION, loss=-gain, flow=gain)
        elif asset < 0:
            cash = _sell_surplus(state, exchange, market, np.inf, marks)
            state.ledger.cash[bank] -= cash
            state.fund_units[exchange] += cash
        reserves.surplus[market] = 0.0


def from_equity(desk: Desk, gap: Gap, _rule: Layer) -> tuple[float, float]:
    """Pay with the exchange's own resources."""
    return _own_money(desk.state, desk.state.equity, gap)


def from_skin(desk: Desk, gap: Gap, _rule: Layer) -> tuple[float, float]:
    """Pay with the share that the exchange put before its members."""
    return _own_money(desk.state, desk.state.reserves.skin, gap)


def _own_money(state: Live, pot: NDArray[np.float64], gap: Gap) -> tuple[float, float]:
    cash = min(cost(state, gap.market, gap.units), float(pot[gap.exchange]))
    if cash <= 0.0:
        return 0.0, 0.0
    pot[gap.exchange] -= cash
    state.ledger.cash[state.n_traders + gap.exchange] += cash
    return buy(state, gap, cash), cash


def from_vault(desk: Desk, gap: Gap, rule: Layer) -> tuple[float, float]:
    """Take deposits of the backstop account, up to its equity and the cap of the round: in kind first, then by sale."""
    account, drawn = int(desk.state.reserves.backstop[gap.exchange]), desk.state.reserves.drawn
    if account < 0:
        return 0.0, 0.0
    seat = int(desk.seats_of(np.array([account]))[0])
    state, key = desk.state, (rule.name, gap.exchange)
    room = min(rule.cap - drawn.get(key, 0.0), desk.equity(np.array([seat]), gap.marks)[0])
    row = state.accounts[seat]
    found = paid = 0.0
    own = np.arange(row.first, row.last)
    value = state.entries.deposited[own] * gap.marks[state.entries.market[own]]
    for e in own[np.lexsort((-value, state.entries.market[own] != gap.market))].tolist():
        missing = gap._replace(units=gap.units - found)
        market = int(state.entries.market[e])
        mark, held = float(gap.marks[market]), float(state.entries.deposited[e])
        if min(missing.units, held, room) <= 0.0 or not mark > 0.0 or not state.markets.sellable[market]:
            continue
        held = min(held, room / mark)
        if market == gap.market:
            units = min(held, missing.units)
            fill(state, missing, units)
            post(state, gap.exchange, MUTUALISATION, loss=-units * mark, flow=0.0)
            state.ledger.loss[MUTUALISATION, row.trader] += units * mark
            state.ledger.flow[row.trader] -= units * mark
            found, cash = found + units, units * mark
        else:
            wanted = cost(state, gap.market, missing.units)
            units, cash = sell(state, row.trader, gap.exchange, market, held, wanted, mark)
            state.ledger.loss[MUTUALISATION, row.trader] += cash
            post(state, gap.exchange, MUTUALISATION, loss=-cash, flow=0.0)
            found += buy(state, missing, cash) if cash > 0.0 else 0.0
        state.entries.deposited[e] -= units
        room, paid = room - units * mark, paid + cash
        drawn[key] = drawn.get(key, 0.0) + units * mark
    desk.touch(np.array([seat]))
    return found, paid


def means(state: Live, exchange: int, name: str, marks: NDArray[np.float64]) -> float:
    """Money at marks that a layer of the exchange itself can still pay; 0 of others."""
    if name == "insurance_fund":
        asset, rule = int(state.fund_asset[exchange]), state.rules[exchange]
        peak = max(float(rule.fund_peak), float(state.fund_units[exchange]))
        held = max(float(state.fund_units[exchange]) - (1.0 - rule.drawdown) * peak, 0.0)
        return float(min(held * (1.0 if asset < 0 else float(state.marks_outside[asset])), rule.fund_cap))
    if name == "account_surplus":
        own = _surplus_of(state, exchange)
        return float(state.reserves.surplus[own] @ marks[own])
    pots = {"equity": state.equity, "skin": state.reserves.skin}
    return float(pots[name][exchange]) if name in pots else 0.0
