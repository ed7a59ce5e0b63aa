"""Margin accounts that nobody touched yet: which of them are below health 1. All are valued whenever a mark moved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from netcontagion._arrays import freeze
from netcontagion.margining._kept import kept
from netcontagion.margining._state import records
from netcontagion.margining._valuation import LENDING, MARGIN, PORTFOLIO

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netcontagion.margining._state import Entries, Positions
    from netcontagion.margining._valuation import Terms
    from netcontagion.network import ExposureNetwork

__all__ = ["MarginIndex", "MarginScan", "margin_index_of"]

NEAR = 1.0 + 1e-9  # health below this is looked at exactly


class MarginIndex(NamedTuple):
    """Accounts tested by equity, made once per network; all arrays are read-only.

    ``test`` says how each account of the network is tested and ``weight`` what counts of each balance as collateral.
    ``accounts`` are those tested by equity, without ``others@``; rows of ``entries`` and ``positions`` name them by
    place. ``position_start`` gives the positions of every account of the network.
    """

    test: NDArray[np.uint8]
    weight: NDArray[np.float64]
    accounts: NDArray[np.int64]
    entries: Entries
    positions: Positions
    position_start: NDArray[np.int64]


def margin_index_of(net: ExposureNetwork) -> MarginIndex:
    """Index of the margin accounts of a network, made on first use."""
    return kept(net, "_margin_index", _build)


def _build(net: ExposureNetwork) -> MarginIndex:
    book = net.book
    test = np.where(book.margined, MARGIN, LENDING).astype(np.uint8)
    test[book.scenarios.accounts] = PORTFOLIO
    weight = book.threshold
    if len(book.collateral.rows):
        weight = weight.copy()
        weight[book.collateral.rows] = book.collateral.weight
    ours = book.margined.copy()
    ours[len(ours) - net.derived("accounts") :] = False
    accounts = np.flatnonzero(ours)
    place = np.cumsum(ours) - 1
    rows = np.flatnonzero(ours[book.balance_account])
    entries = records(
        account=(place[book.balance_account[rows]], np.int32),
        market=(book.balance_market[rows], np.int32),
        deposited=(book.deposited[rows], float),
        borrowed=(book.borrowed[rows], float),
        threshold=(weight[rows], float),
    )
    rows = np.flatnonzero(ours[book.position_account])
    positions = records(
        account=(place[book.position_account[rows]], np.int32),
        market=(book.position_market[rows], np.int32),
        quantity=(book.quantity[rows], float),
        entry=(book.entry_price[rows], float),
    )
    start = np.concatenate([[0], np.cumsum(np.bincount(book.position_account, minlength=book.n_accounts))])
    return MarginIndex(freeze(test), freeze(weight), freeze(accounts), entries, positions, freeze(start))


@dataclass(eq=False)
class MarginScan:
    """The margin accounts of one run that have no seat."""

    index: MarginIndex

    def __post_init__(self) -> None:
        self.waiting = np.ones(len(self.index.accounts), dtype=bool)
        self.seen: tuple[NDArray[np.float64], ...] = ()

    def open(self, accounts: NDArray[np.int64]) -> None:
        """Stop looking at accounts: they have a seat."""
        known = self.index.accounts
        if len(known):
            place = np.minimum(np.searchsorted(known, accounts), len(known) - 1)
            self.waiting[place[known[place] == accounts]] = False

    def exposed(self, terms: Terms, marks: NDArray[np.float64], share: NDArray[np.float64]) -> NDArray[np.int64]:
        """Accounts that may be below health 1 now; ``share`` is what deposits of each market have left of a unit."""
        index = self.index
        now = (marks, share, terms.stress)
        if not self.waiting.any() or (self.seen and all(map(np.array_equal, self.seen, now))):
            return np.zeros(0, dtype=np.int64)
        self.seen = marks.copy(), share.copy(), terms.stress
        entries: Any = index.entries
        if (share < 1.0).any():
            entries = entries.copy()
            entries["deposited"] *= share[entries.market]
        backing, must = terms.weigh(index.test[index.accounts], entries, index.positions, marks)
        return index.accounts[self.waiting & (must > 0) & (backing < must * NEAR)]
