"""Withdrawals that a gate delays or caps: on their way from an account to another one, or to a wallet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from netcontagion.margining._state import Transit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netcontagion.margining._state import Live

__all__ = ["moving", "settle", "submit"]

SLACK = 1e-12  # relative rounding that leaves nothing on its way


def submit(state: Live, log: NDArray[np.float64], number: int, *, at_once: bool = False) -> None:
    """Put requests on their way: rows of account, target entry, source entry, and units in two parts.

    They come one after the other, or all those of an exchange at once.
    """
    source = log[:, 2].astype(np.int64)
    delay = state.net.columns("exchanges")["withdraw_delay"]
    venue = state.accounts.exchange[state.entries.account[source]]
    due = number + delay[venue]
    ours = state.transit
    batch = ours.batch.max(initial=-1) + 1 + (venue if at_once else np.arange(len(log)))
    state.transit = Transit(
        np.append(ours.target, log[:, 1].astype(np.int64)),
        np.append(ours.source, source),
        np.append(ours.units, log[:, 3] + log[:, 4]),
        np.append(ours.due, due),
        np.append(ours.batch, batch),
    )


def settle(state: Live, marks: NDArray[np.float64], number: int, rounds: int) -> NDArray[np.float64]:
    """Pay out what is due, first come, first served, up to the caps [num] of the rounds since the last one played.

    What was asked for at once is paid in proportion. Returns a log of moves with columns account, target, source,
    units repaid, units deposited.
    """
    ours, entries = state.transit, state.entries
    if not len(ours.units):
        return np.zeros((0, 5))
    from_entry = entries[ours.source]
    venue = state.accounts.exchange[from_entry.account]
    cap = np.nan_to_num(state.net.columns("exchanges")["withdraw_cap"], nan=np.inf)
    left, price, log = rounds * cap, marks[from_entry.market], []
    due = np.flatnonzero((ours.due <= number) & (state.rules.out[venue] == 0))
    for rows in np.split(due, np.flatnonzero(np.diff(ours.batch[due])) + 1):
        if not len(rows):
            continue
        exchange = venue[rows[0]]
        new = ours.due[rows[0]] == number  # it is not paid by the caps of rounds before
        most = float(min(left[exchange], cap[exchange]) if new else left[exchange])
        worth = float(ours.units[rows] @ price[rows])
        share = 1.0 if worth <= most * (1.0 + SLACK) else most / worth
        if share <= 0.0:
            continue
        left[exchange] = most - worth if worth < most * (1.0 - SLACK) else 0.0
        for row in rows.tolist():
            units = share * float(ours.units[row])
            ours.units[row] -= units
            log.append(_arrive(state, int(ours.target[row]), int(ours.source[row]), units))
    kept = ours.units > 0.0
    state.transit = Transit(ours.target[kept], ours.source[kept], ours.units[kept], ours.due[kept], ours.batch[kept])
    return np.array(log).reshape(-1, 5)


def _arrive(state: Live, target: int, source: int, units: float) -> tuple[float, ...]:
    """Pay units into an entry, its debt first, or into a wallet; return the row of the log."""
    if target < 0:
        state.wallets["units"][-1 - target] += units
        return (state.entries.account[source], target, source, 0.0, units)
    entry = state.entries[target]
    repaid = min(units, float(entry.borrowed))
    entry.borrowed -= repaid
    entry.deposited += units - repaid
    entry.coming = max(entry.coming - units, 0.0)
    return (entry.account, target, source, repaid, units - repaid)


def moving(state: Live) -> bool:
    """Whether anything on its way can still arrive."""
    source = state.entries.account[state.transit.source]
    return bool((state.rules.out[state.accounts.exchange[source]] == 0).any())
