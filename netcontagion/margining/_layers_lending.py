"""Loss layers of lending exchanges: what sales of collateral earned, new shares, the other borrowers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from netcontagion._arrays import group_sum
from netcontagion.margining._house_trades import buy, cost, fill, post
from netcontagion.margining._state import EXECUTION, MUTUALISATION

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netcontagion.margining._desk import Desk
    from netcontagion.margining._house_trades import Gap
    from netcontagion.margining._state import Live
    from netcontagion.network import Layer

__all__ = ["from_new_shares", "from_surplus", "to_co_borrowers"]

SLACK = 1e-12  # relative rounding


def from_surplus(desk: Desk, gap: Gap, _rule: Layer) -> tuple[float, float]:
    """Use what sales of collateral raised beyond the debt."""
    state, exchange, (market, missing, marks) = desk.state, gap.exchange, gap[1:]
    units = min(float(state.ledger.fees[market]), missing)
    if units <= 0.0:
        return 0.0, 0.0
    value = units * float(marks[market])
    state.ledger.fees[market] -= units
    fill(state, gap, units)
    post(state, exchange, EXECUTION, loss=0.0, flow=-value)
    return units, value


def from_new_shares(desk: Desk, gap: Gap, _rule: Layer) -> tuple[float, float]:
    """Sell new shares for what the missing units cost: their buyers pay, the old ones lose it."""
    state, exchange = desk.state, gap.exchange
    cash = cost(state, gap.market, gap.units)
    if not 0.0 < cash < np.inf:
        return 0.0, 0.0
    state.ledger.minted[exchange] += cash
    state.ledger.cash[-2] -= cash
    state.ledger.cash[state.n_traders + exchange] += cash
    return buy(state, gap, cash), cash


def to_co_borrowers(desk: Desk, gap: Gap, _rule: Layer) -> tuple[float, float]:
    """Pass debt, with the collateral it came with, to the others who owe the asset, in proportion to collateral."""
    book = desk.state.net.book
    desk.seats_of(np.unique(book.balance_account[(book.balance_market == gap.market) & (book.borrowed > 0)]))
    state, exchange, (market, missing, marks) = desk.state, gap.exchange, gap[1:]
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
    desk.touch(np.unique(np.concatenate([table.account[debts], table.account[state.overlay.suppliers(table, market)]])))
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
    post(state, exchange, MUTUALISATION, loss=-float(value.sum()), flow=float(value.sum()))
