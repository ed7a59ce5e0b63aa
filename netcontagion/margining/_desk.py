"""What loss layers need of a run: seats for those who bear a loss, and what these own."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from netcontagion._arrays import group_sum
from netcontagion.margining._posting import spans, value_positions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netcontagion.margining._cascade import Play
    from netcontagion.margining._state import Live

__all__ = ["Desk"]


@dataclass(eq=False)
class Desk:
    """The play as layers see it. ``torn`` holds the seats whose contracts a layer ended and nobody settled yet."""

    play: Play
    torn: list[NDArray[np.int64]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.seat = np.zeros(0, dtype=np.int64)  # of each account of the network, made when first needed
        self.known = 0

    @property
    def state(self) -> Live:
        """The state; its tables are new ones after accounts were opened."""
        return self.play.state

    @functools.cached_property
    def holds(self) -> NDArray[np.bool_]:
        """Which accounts of the network came with contracts."""
        found = np.zeros(self.state.net.book.n_accounts, dtype=bool)
        found[self.state.net.book.position_account] = True
        return found

    @functools.cached_property
    def money(self) -> int:
        """Code of the numeraire among the assets; -1: it is none."""
        labels = self.state.net.labels("assets")
        found = np.flatnonzero(np.asarray(labels == self.state.net.numeraire, dtype=bool))
        return int(found[0]) if len(found) else -1

    def holders(self, exchange: int) -> NDArray[np.int64]:
        """Accounts of an exchange that came with contracts."""
        return np.flatnonzero(self.holds & (self.state.net.columns("accounts")["exchange"] == exchange))

    def seats_of(self, accounts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Seats of accounts, opened where they have none."""
        if not len(self.seat):
            self.seat = np.full(self.state.net.book.n_accounts, -1, dtype=np.int64)
        self._learn()
        if (self.seat[accounts] < 0).any():
            self.play.open(accounts[self.seat[accounts] < 0])
            self._learn()
        return np.asarray(self.seat[accounts])

    def owners(self, seats: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows of the traders of seats."""
        return np.asarray(self.state.accounts.trader[seats])

    def _learn(self) -> None:
        code = self.state.overlay.accounts
        self.seat[code[self.known :]] = np.arange(self.known, len(code))
        self.known = len(code)

    def equity(self, seats: NDArray[np.int64], marks: NDArray[np.float64]) -> NDArray[np.float64]:
        """Signed equity of seats [num]."""
        state, accounts = self.state, self.state.accounts
        value_positions(state, seats, marks)
        rows, place = spans(accounts.first[seats], accounts.last[seats])
        entries = state.entries[rows]
        held = group_sum(place, (entries.deposited - entries.borrowed) * marks[entries.market], len(seats))
        return np.asarray(held + accounts.gains[seats])

    def touch(self, seats: NDArray[np.int64]) -> None:
        """Value these seats in the next round."""
        self.play.watch.touch(seats)
