"""Who may be liquidated in a round, and how much of it: notice, cooldown, capacity, and the money of buyers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion._arrays import group_sum
from netcontagion._compile import kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netcontagion.margining._state import Board, Live

__all__ = ["admit", "renew", "waiting"]

CRUMB = 1e-6  # of an account, or of the capacity where that is smaller: less room than this is no room


def waiting(
    state: Live, which: NDArray[np.int64], notes: NDArray[Any], number: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which accounts are still in their notice, and which were liquidated too short a time ago.

    Who is closed by force gets no notice.
    """
    rules, exchange = state.rules, state.accounts.exchange[which]
    rows = notes[which]
    noticed = number - rows["since"] < rules.notice[exchange]
    noticed &= state.accounts.forced[which] == 0
    closed = rows["closed"] - 1  # the round of the last liquidation; -1: none
    return noticed, (closed >= 0) & (number - closed < rules.cooldown[exchange])


def renew(state: Live, marks: NDArray[np.float64]) -> None:
    """Set what is left of the limits of every exchange at the start of a round; open auctions count."""
    rules, markets, lots = state.rules, state.markets, state.lots
    rules["left"], rules["room"] = rules.capital, rules.capacity
    markets["room"] = rules.capacity_per_asset[markets.exchange]
    timed = np.isfinite(lots.tab)
    if timed.any():
        value = lots.tab[timed] * marks[lots.debt[timed]]
        rules["room"] -= group_sum(lots.exchange[timed], value, len(rules))
        markets["room"] -= group_sum(lots.collateral[timed], value, len(markets))


@kernel
def admit(which: NDArray[np.int64], board: Board, marks: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of each account that the capacities leave room for, one account after the other.

    What counts is the debt, with the penalty; against a collateral asset its share of the collateral.
    """
    shares = np.ones(len(which))
    value = np.zeros(len(board.markets))
    for place in range(len(which)):
        account = board.accounts[which[place]]
        rule = board.rules[account.exchange]
        if rule.capacity == np.inf and rule.capacity_per_asset == np.inf:
            continue
        debt, held = 0.0, 0.0
        for e in range(account.first, account.last):
            entry = board.entries[e]
            debt += entry.borrowed * marks[entry.market] * (1.0 + rule.penalty)
            value[entry.market] = 0.0
            if entry.threshold > 0.0 and board.markets[entry.market].sellable:
                value[entry.market] = entry.deposited * marks[entry.market]
                held += value[entry.market]
        if not (debt > 0.0 and held > 0.0):
            continue
        share = min(1.0, rule.room / debt)
        for e in range(account.first, account.last):
            m = board.entries[e].market
            if value[m] > 0.0:
                share = min(share, board.markets[m].room * held / (value[m] * debt))
        if share < CRUMB or share * debt < CRUMB * min(debt, rule.capacity, rule.capacity_per_asset):
            shares[place] = 0.0
            continue
        shares[place] = share
        rule.room -= share * debt
        for e in range(account.first, account.last):
            m = board.entries[e].market
            board.markets[m].room -= share * debt * value[m] / held
    return shares
