"""Loss layers that the users of an exchange bear: members' funds and assessments, claims on traders, deposits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from netcontagion.margining._house_trades import buy, cost, fill, post, receive
from netcontagion.margining._state import DEFICIT, MUTUALISATION

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netcontagion.margining._desk import Desk
    from netcontagion.margining._house_trades import Gap
    from netcontagion.network import Layer

__all__ = ["by_recourse", "from_assessments", "from_default_fund", "from_defaulters", "from_suppliers", "left_short"]


def by_recourse(desk: Desk, gap: Gap, _rule: Layer) -> tuple[float, float]:
    """Turn the gap into claims on those who left it; the exchange stays short until they are cleared."""
    state, owed, found = desk.state, desk.state.reserves.defaulters.get(gap.exchange, {}), 0.0
    bank = state.n_traders + gap.exchange
    for seat, value in owed.items():
        claim = min(value, gap.value - found)
        if claim <= 0.0:
            continue
        trader = int(state.accounts.trader[seat])
        state.reserves.claims[state.overlay.code[seat]] += claim
        state.ledger.loss[DEFICIT, trader] += claim
        state.ledger.loss[DEFICIT, bank] -= claim
        owed[seat] -= claim
        found += claim
    mark = float(gap.marks[gap.market])
    units = min(found / mark, gap.units) if mark > 0.0 else 0.0
    state.ledger.hole[gap.market] -= units
    state.ledger.short[gap.market] += units
    return units, found


def from_defaulters(desk: Desk, gap: Gap, _rule: Layer) -> tuple[float, float]:
    """Use the contributions of those who left the gap."""
    state, owed = desk.state, desk.state.reserves.defaulters.get(gap.exchange, {})
    fund, wanted, cash = state.reserves.default_fund, cost(state, gap.market, gap.units), 0.0
    for seat, value in owed.items():
        account, trader = int(state.overlay.code[seat]), int(state.accounts.trader[seat])
        paid = min(float(fund[account]), value, wanted - cash)
        if paid <= 0.0:
            continue
        fund[account] -= paid
        owed[seat] -= paid
        state.ledger.loss[DEFICIT, trader] += paid
        receive(state, gap.exchange, paid, DEFICIT)
        cash += paid
    return (buy(state, gap, cash), cash) if cash > 0.0 else (0.0, 0.0)


def _survivors(desk: Desk, exchange: int) -> NDArray[np.intp]:
    """Accounts of the network that contributed to the default fund and left no deficit."""
    net, reserves = desk.state.net, desk.state.reserves
    account = net.columns("accounts")
    return np.flatnonzero((account["exchange"] == exchange) & (account["default_fund"] > 0.0) & ~reserves.failed)


def from_default_fund(desk: Desk, gap: Gap, _rule: Layer) -> tuple[float, float]:
    """Use the contributions of the others, pro rata."""
    members, fund = _survivors(desk, gap.exchange), desk.state.reserves.default_fund
    total = float(fund[members].sum())
    if total <= 0.0:
        return 0.0, 0.0
    seats = desk.seats_of(members)
    state = desk.state
    cash = min(cost(state, gap.market, gap.units), total)
    paid = fund[members] * (cash / total)
    fund[members] = np.maximum(fund[members] - paid, 0.0)
    np.add.at(state.ledger.loss[MUTUALISATION], state.accounts.trader[seats], paid)
    receive(state, gap.exchange, float(paid.sum()), MUTUALISATION)
    return buy(state, gap, float(paid.sum())), float(paid.sum())


def from_assessments(desk: Desk, gap: Gap, rule: Layer) -> tuple[float, float]:
    """Call money from the others, pro rata to what they owe at most and have in their wallets."""
    members = _survivors(desk, gap.exchange)
    if not len(members) or desk.money < 0:
        return 0.0, 0.0
    owner = desk.owners(desk.seats_of(members))
    state, reserves = desk.state, desk.state.reserves
    wallet = np.array([_purse(desk, int(trader)) for trader in owner])
    members, wallet = members[wallet >= 0], wallet[wallet >= 0]
    due = rule.multiple * state.net.columns("accounts")["default_fund"][members] - reserves.assessed[members]
    price = float(state.marks_outside[desk.money])
    able = np.minimum(np.maximum(due, 0.0), state.wallets.units[wallet] * price)
    total, wanted, cash = float(able.sum()), cost(state, gap.market, gap.units), 0.0
    for place in np.flatnonzero(able > 0.0).tolist():
        left = float(state.wallets.units[wallet[place]]) * price  # one purse may stand behind several accounts
        paid = min(float(able[place]) * min(wanted / total, 1.0), left)
        cash += _collect(desk, gap.exchange, int(wallet[place]), paid, price)
        reserves.assessed[members[place]] += paid
    return (buy(state, gap, cash), cash) if cash > 0.0 else (0.0, 0.0)


def _purse(desk: Desk, trader: int) -> int:
    """Wallet of a seat's trader that holds the numeraire; -1: none."""
    row, wallets = desk.state.traders[trader], desk.state.wallets
    found = np.flatnonzero(wallets.asset[row.first_wallet : row.last_wallet] == desk.money)
    return int(row.first_wallet + found[0]) if len(found) else -1


def _collect(desk: Desk, exchange: int, wallet: int, money: float, price: float) -> float:
    """Take money out of a wallet: its units pass to the market at their price outside."""
    state, place = desk.state, len(desk.state.markets) + desk.money
    trader, units = int(state.wallets.trader[wallet]), money / price
    state.wallets.units[wallet] = max(state.wallets.units[wallet] - units, 0.0)
    state.ledger.bought[place] += units
    state.ledger.cash[-2] -= money
    state.ledger.flow[-2] += money
    state.ledger.loss[MUTUALISATION, trader] += money
    state.ledger.flow[trader] -= money
    receive(state, exchange, money, MUTUALISATION)
    return money


def from_suppliers(desk: Desk, gap: Gap, _rule: Layer) -> tuple[float, float]:
    """Cut deposits of the market by one share: h = missing / deposited."""
    state, price = desk.state, float(gap.marks[gap.market])
    protects = state.deficits[gap.exchange].protect_flat
    if protects:
        desk.seats_of(desk.holders(gap.exchange))
        state = desk.state
    table = state.entries
    entries = state.overlay.suppliers(table, gap.market)
    if protects:
        entries = entries[desk.holds[state.overlay.code[table.account[entries]]]]
    total = 0.0 if protects else state.overlay.cold_units(gap.market)
    if len(entries):
        total += float(table.deposited[entries].sum())
    if total <= 0.0:
        return 0.0, 0.0
    share = min(gap.units / total, 1.0)
    if not protects:
        state.overlay.cut_suppliers(gap.market, share, price)
    if len(entries):
        supplied = table.deposited[entries]
        cut = supplied * share
        table["deposited"][entries] = supplied - cut
        trader = state.accounts.trader[table.account[entries]]
        np.add.at(state.ledger.loss[MUTUALISATION], trader, cut * price)
        np.add.at(state.ledger.flow, trader, -cut * price)
        desk.touch(table.account[entries])
    units = min(gap.units, total)
    fill(state, gap, units)
    post(state, gap.exchange, MUTUALISATION, loss=-units * price, flow=0.0)
    return units, units * price


def left_short(desk: Desk, gap: Gap, _rule: Layer | None) -> tuple[float, float]:
    """Leave the exchange short of what it owes: what it can pay in the end is cleared."""
    desk.state.ledger.hole[gap.market] -= gap.units
    desk.state.ledger.short[gap.market] += gap.units
    return gap.units, gap.value
