"""Passes of the final clearing: who defaults in one is closed out, then the original claims are cleared again.

Nothing is paid in between: every pass clears all claims with what everybody then has, and only the last one is posted.
Who could not pay without the shock either is not closed out: a market that is not shocked stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from netcontagion._arrays import freeze
from netcontagion.margining._final import clear_up, is_due
from netcontagion.margining._kept import kept
from netcontagion.margining._opening import open_state
from netcontagion.margining._whole import current_state
from netcontagion.network import Shock

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netcontagion.clearing import ClearingResult
    from netcontagion.margining._state import Live, Whole
    from netcontagion.network import ExposureNetwork

__all__ = ["Passes"]


@dataclass(eq=False)
class Passes:
    """How often somebody was closed out after a clearing, and the last clearing if nobody was closed out after it."""

    count: int = 0
    last: ClearingResult | None = None

    def failing(self, state: Live) -> NDArray[np.int64]:
        """Clear what is owed now; return which traders default by then and have something to close."""
        able = kept(state.net, "_exposed", lambda _: _exposed(state))
        able = able[~state.overlay.has_failed(able)]
        whole = current_state(state) if len(able) else None
        if whole is None or not is_due(whole):
            return able[:0]
        result = clear_up(whole)
        fresh = able[np.asarray(result.defaulted)[able] & _open(whole)[able]]
        if len(fresh):
            fresh = fresh[~kept(state.net, "_insolvent", _insolvent)[fresh]]
        self.last = None if len(fresh) else result
        self.count += int(len(fresh) > 0)
        return fresh


def _exposed(state: Live) -> NDArray[np.int64]:
    """Find the traders who may owe something and came with debts or contracts: only they can be closed out."""
    net, size = state.net, len(state.net.labels("traders"))
    owes = net.columns("traders")["external_liabilities"] > 0
    debtor = net.columns("liabilities")["debtor"]
    owes[debtor[debtor < size]] = True
    book, account = net.book, net.columns("accounts")
    recourse = np.array([state.has_recourse(exchange) for exchange in range(state.n_exchanges)], dtype=bool)
    if recourse.any():
        owes[account["trader"][recourse[account["exchange"]]]] = True
    trades = np.zeros(size, dtype=bool)
    if owes.any():
        trades[account["trader"][book.balance_account[book.borrowed > 0]]] = True
        trades[account["trader"][book.position_account]] = True
        trades[account["trader"][len(account["trader"]) - net.derived("accounts") :]] = False
    return freeze(np.flatnonzero(owes & trades))


def _insolvent(net: ExposureNetwork) -> NDArray[np.bool_]:
    """Which traders of a network default without any shock."""
    calm = current_state(open_state(net, Shock(), switches=()))
    failing = np.zeros(calm.n_traders, dtype=bool)
    if is_due(calm):
        failing |= np.asarray(clear_up(calm).defaulted)[: len(failing)]
    return freeze(failing)


def _open(state: Whole) -> NDArray[np.bool_]:
    """Which traders have an account with a debt or a contract."""
    found = np.zeros(state.n_traders, dtype=bool)
    found[state.accounts.trader[np.isfinite(state.health(state.marks()))]] = True
    return found
