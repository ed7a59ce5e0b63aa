"""Withdrawals that a gate delays or caps: on their way from one account to another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from netcontagion.margining._state import Transit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netcontagion.margining._state import Live

__all__ = ["moving", "settle", "submit"]

SLACK = 1e-12  # relative rounding that leaves nothing on its way


def submit(state: Live, log: NDArray[np.float64], number: int) -> None:
    """Put requests on their way: rows of account, target entry, source entry, and units in two parts."""
    source = log[:, 2].astype(np.int64)
    delay = state.net.columns("exchanges")["withdraw_delay"]
    due = number + delay[state.accounts.exchange[state.entries.account[source]]]
    ours = state.transit
    state.transit = Transit(
        np.append(ours.target, log[:, 1].astype(np.int64)),
        np.append(ours.source, source),
        np.append(ours.units, log[:, 3] + log[:, 4]),
        np.append(ours.due, due),
    )


def settle(state: Live, marks: NDArray[np.float64], number: int) -> NDArray[np.float64]:
    """Pay out what is due, first come, first served, up to the caps of the round [num].

    Returns a log of moves with columns account, target, source, units repaid, units deposited.
    """
    ours, entries = state.transit, state.entries
    from_entry = entries[ours.source]
    venue = state.accounts.exchange[from_entry.account]
    left = np.nan_to_num(state.net.columns("exchanges")["withdraw_cap"], nan=np.inf)
    price, log = marks[from_entry.market], []
    for row in np.flatnonzero((ours.due <= number) & (state.rules.out[venue] == 0)).tolist():
        wanted, target = float(ours.units[row]), int(ours.target[row])
        worth, most = wanted * price[row], left[venue[row]]
        units = wanted if worth <= most * (1.0 + SLACK) else most / price[row]
        if units <= 0.0:
            continue
        left[venue[row]] = max(most - units * price[row], 0.0)
        ours.units[row] -= units
        entry = entries[target]
        repaid = min(units, float(entry.borrowed))
        entry.borrowed -= repaid
        entry.deposited += units - repaid
        entry.coming = max(entry.coming - units, 0.0)
        log.append((entry.account, target, ours.source[row], repaid, units - repaid))
    kept = ours.units > 0.0
    state.transit = Transit(ours.target[kept], ours.source[kept], ours.units[kept], ours.due[kept])
    return np.array(log).reshape(-1, 5)


def moving(state: Live) -> bool:
    """Whether anything on its way can still arrive."""
    source = state.entries.account[state.transit.source]
    return bool((state.rules.out[state.accounts.exchange[source]] == 0).any())
