"""What needs no compiled loop: posting the moves of owners, and writing off debt that nobody pays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from netcontagion._arrays import group_sum
from netcontagion.margining._state import DEFICIT, EXECUTION
from netcontagion.margining._valuation import INVERSE, LENDING, PORTFOLIO

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netcontagion.margining._state import Live

__all__ = ["post_moves", "spans", "value_positions", "write_off"]

GONE = 1e-12  # collateral below this share of the account's debt (at the opening, where it is tested by debt) is none


def spans(first: NDArray[np.int64], last: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of all the spans ``first[i]:last[i]``, one after the other, and the span that each is of."""
    length = last - first
    span = np.repeat(np.arange(len(first)), length)
    return np.arange(len(span)) + (first - (np.cumsum(length) - length))[span], span


def post_moves(state: Live, log: NDArray[np.float64], marks: NDArray[np.float64]) -> None:
    """Post the log of ``respond``: what moves between marks gains or loses on the way."""
    entries, wallets, ledger = state.entries, state.wallets, state.ledger
    target, source = (log[:, column].astype(np.int64) for column in (1, 2))
    outside, units = source < 0, log[:, 3] + log[:, 4]
    price_from = np.empty(len(log))
    price_from[outside] = state.marks_outside[wallets.asset[-1 - source[outside]]]
    price_from[~outside] = marks[entries.market[source[~outside]]]
    gain = units * (marks[entries.market[target]] - price_from)
    trader = state.accounts.trader[entries.account[target]]
    np.subtract.at(ledger.loss[EXECUTION], trader, gain)
    np.add.at(ledger.flow, trader, gain)


def value_positions(state: Live, seats: NDArray[np.int64], marks: NDArray[np.float64]) -> None:
    """Note in the table of accounts what the positions of margin accounts gain and require at these marks."""
    accounts, terms = state.accounts, state.terms
    seats = seats[accounts.test[seats] != LENDING]
    if not len(seats):
        return
    rows, place = spans(accounts.first_position[seats], accounts.last_position[seats])
    positions = state.positions[rows]
    positions["account"] = place
    accounts.gains[seats], accounts.required[seats] = terms.of_positions(len(seats), positions, marks)
    stressed = np.flatnonzero(accounts.test[seats] == PORTFOLIO)
    if len(stressed):
        held, whose = spans(accounts.first[seats], accounts.last[seats])
        entries = state.entries[held]
        entries["account"] = whose
        loss = terms.worst_loss(len(seats), entries, positions, marks)
        accounts.required[seats[stressed]] = loss[stressed]


def _has_positions(state: Live, which: NDArray[np.int64], marks: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which accounts hold contracts; inverse ones in a worthless coin are worth and owe nothing."""
    rows, place = spans(state.accounts.first_position[which], state.accounts.last_position[which])
    held, markets = state.positions[rows], state.markets
    nothing = (markets.kind[held.market] == INVERSE) & (marks[markets.settle[held.market]] <= 0.0)
    return np.bincount(place, (held.quantity != 0) & ~nothing, len(which)) > 0


def write_off(
    state: Live, which: NDArray[np.int64], marks: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Take the debt of accounts that have no collateral and no cash left onto their exchange, as a hole in its book.

    Returns a log with columns account, entry, units, and the values at marks.
    """
    accounts, entries, ledger = state.accounts, state.entries, state.ledger
    rows, place = spans(accounts.first[which], accounts.last[which])
    market, by_equity = entries.market[rows], accounts.test[which] != LENDING
    counts = np.where(by_equity[place], state.markets.sellable[market], entries.threshold[rows])
    backing = entries.deposited[rows] * marks[market] * counts
    owed = group_sum(place, entries.borrowed[rows] * marks[market], len(which))
    scale = np.where(by_equity, owed, accounts.opening_debt[which])
    bare = ~(group_sum(place, backing, len(which)) > GONE * scale) & ~_has_positions(state, which, marks)
    bare &= accounts.waiting[which] <= 0.0
    lost = bare[place] & (entries.borrowed[rows] > 0.0)
    entry, account = rows[lost], which[place[lost]]
    units, market = entries.borrowed[entry], entries.market[entry]
    value = units * marks[market]
    entries.borrowed[entry] = 0.0
    np.add.at(ledger.hole, market, units)
    trader, bank = accounts.trader[account], state.n_traders + accounts.exchange[account]
    for node, gain in ((trader, value), (bank, -value)):
        np.subtract.at(ledger.loss[DEFICIT], node, gain)
        np.add.at(ledger.flow, node, gain)
    return np.column_stack([account, entry, units]), value
