"""Margin accounts that nobody touched yet: which of them can be below health 1, without valuing all of them.

What backs an account, and what it must back, move with the prices of its exchange: of deposits (after cuts of
suppliers), of debts, and of contracts. If none of them moved by more than a share s of itself since a valuation, equity
less margin fell by at most s times all that is exposed: the values of deposits, debts and contracts, the margin on
them, and what the margin on the contracts would gain if they doubled (margins by tiers rise at most so fast up to
there). So an account is safe while s is below its room, equity less margin over that exposure. Where margins answer to
volatility, no bound spans a change of them: everybody is valued again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from netcontagion._arrays import freeze, group_sum
from netcontagion.margining._kept import kept
from netcontagion.margining._posting import spans
from netcontagion.margining._state import records
from netcontagion.margining._valuation import INVERSE, LENDING, MARGIN, PORTFOLIO, coins, notional, worth

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netcontagion.margining._state import Entries, Positions
    from netcontagion.margining._valuation import Terms
    from netcontagion.network import ExposureNetwork

    Floats = NDArray[np.float64]
    Places = NDArray[np.int64]

__all__ = ["MarginIndex", "MarginScan", "margin_index_of"]

NEAR = 1.0 + 1e-9  # health below this is looked at exactly; covers the rounding of bounds, too
REMEMBERED = 64  # valuations whose prices are kept
WIDEST = 2.0  # growth of a price up to which a bound holds


class MarginIndex(NamedTuple):
    """Accounts tested by equity, made once per network; all arrays are read-only.

    ``test`` says how each account of the network is tested and ``weight`` what counts of each balance as collateral.
    ``accounts`` are those tested by equity, without ``others@``; rows of ``entries`` and ``positions`` name them by
    place, from ``first_entry`` and ``first_position`` on. ``position_start`` gives the positions of every account of
    the network.
    """

    test: NDArray[np.uint8]
    weight: Floats
    accounts: Places
    entries: Entries
    positions: Positions
    first_entry: Places
    first_position: Places
    position_start: Places


class Ranking(NamedTuple):
    """Places exchange by exchange (from ``edges`` on), the least ``room`` at the marks of the network first.

    ``room`` is kept as the growth of a price up to which the account is safe: 1 more.
    """

    place: Places
    room: Floats
    edges: Places


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
    size = len(accounts)
    first_entry, first_position = _starts(entries.account, size), _starts(positions.account, size)
    start = _starts(book.position_account, book.n_accounts)
    return MarginIndex(
        freeze(test), freeze(weight), freeze(accounts), entries, positions, first_entry, first_position, start
    )


def _starts(group: NDArray[Any], size: int) -> Places:
    """First row of every group, of rows sorted by group, and one past the last."""
    return freeze(np.concatenate([[0], np.cumsum(np.bincount(group, minlength=size))]))


@dataclass(eq=False)
class MarginScan:
    """The margin accounts of one run that have no seat."""

    net: ExposureNetwork
    terms: Terms

    def __post_init__(self) -> None:
        net, self.index = self.net, margin_index_of(self.net)
        self.steep = self.terms.tiers.steepest()
        self.exchange, self.first = np.unique(net.book.market_exchange, return_index=True)
        before = net.book.market_mark
        self.past = [self._prices(before, np.ones(len(before)))]
        self.seen: Floats | None = None
        self.stress = self.terms.stress
        self.ranking = kept(net, "_margin_ranking", self._rank)
        size = len(self.index.accounts)
        self.waiting, self.row = np.ones(size, dtype=bool), np.zeros(size, dtype=np.int16)
        self.room, self.reached = self.ranking.room.copy(), self.ranking.edges[:-1].copy()

    def _rank(self, net: ExposureNetwork) -> Ranking:
        before, size = net.book.market_mark, len(self.index.accounts)
        _, room = self._value(self.terms, np.arange(size), before, np.ones(len(before)))
        venue = net.columns("accounts")["exchange"][self.index.accounts]
        place = np.lexsort((room, venue))
        return Ranking(freeze(place), freeze(room[place]), _starts(venue, len(net.labels("exchanges"))))

    def open(self, accounts: NDArray[np.int64]) -> None:
        """Stop looking at accounts: they have a seat."""
        known = self.index.accounts
        if len(known):
            place = np.minimum(np.searchsorted(known, accounts), len(known) - 1)
            self.waiting[place[known[place] == accounts]] = False

    def exposed(self, terms: Terms, marks: Floats, share: Floats) -> NDArray[np.int64]:
        """Accounts that may be below health 1 now; ``share`` is what deposits of each market have left of a unit."""
        nobody = np.zeros(0, dtype=np.int64)
        if not self.waiting.any():
            return nobody
        if not np.array_equal(terms.stress, self.stress):
            self._restart(terms)
        now = self._prices(marks, share)
        if self.seen is not None and np.array_equal(now, self.seen):
            return nobody
        self.seen = now
        self.past.append(now)
        growth = self._growth()
        rank = self._within_reach(growth)
        place = self.ranking.place[rank]
        low, room = self._value(terms, place, marks, share)
        self.room[rank], self.row[rank] = room, len(growth) - 1
        if len(self.past) > REMEMBERED:
            self._forget(growth)
        return self.index.accounts[place[low]]

    def _restart(self, terms: Terms) -> None:
        """Value everybody in this round: margins changed."""
        self.stress, self.seen = terms.stress, None
        self.room[:], self.reached = 0.0, self.ranking.edges[1:].copy()

    def _prices(self, marks: Floats, share: Floats) -> Floats:
        """Prices of deposits, debts and contracts, by market."""
        return np.stack([marks * share, marks, worth(self.terms.markets, marks)])

    def _growth(self) -> Floats:
        """Largest growth of a price on each exchange since every valuation, now the last of them; a fall counts too."""
        before, now = np.stack(self.past), self.past[-1]
        found = np.ones((len(before), len(self.ranking.edges) - 1))
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            move = np.abs(np.where(now == before, 0.0, now / before - 1.0)).max(axis=1)
        found[:, self.exchange] = 1.0 + np.maximum.reduceat(move, self.first, axis=1)
        return np.where(found <= WIDEST, found, np.inf)

    def _within_reach(self, growth: Floats) -> Places:
        """Ranks whose room some price of their exchange has left; those beyond the reached ones were never valued."""
        edges = self.ranking.edges
        for exchange in range(len(edges) - 1):
            first, last = self.reached[exchange], edges[exchange + 1]
            self.reached[exchange] += np.searchsorted(self.room[first:last], growth[0, exchange] * NEAR, side="right")
        rank, venue = spans(edges[:-1], self.reached)
        used_up = growth[self.row[rank], venue] * NEAR >= self.room[rank]
        return np.asarray(rank[used_up & self.waiting[self.ranking.place[rank]]])

    def _forget(self, growth: Floats) -> None:
        """Bound all accounts at the prices of the last valuation, which becomes valuation 0."""
        exchange = np.repeat(np.arange(growth.shape[1]), np.diff(self.ranking.edges))
        self.room /= growth[self.row, exchange]
        self.row[:] = 0
        del self.past[:-1]

    def _value(self, terms: Terms, place: Places, marks: Floats, share: Floats) -> tuple[NDArray[np.bool_], Floats]:
        """Which accounts may be below health 1, and the growth of a price up to which they are safe."""
        index = self.index
        test = index.test[index.accounts[place]]
        entries = _rows_of(index.entries, index.first_entry, place)
        entries["deposited"] *= share[entries.market]
        positions = _rows_of(index.positions, index.first_position, place)
        backing, must = terms.weigh(test, entries, positions, marks)
        exposure = self._exposure(terms, test, entries, positions, marks)
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            room = 1.0 + (backing - must * NEAR) / exposure
        room = np.where(exposure > 0, np.where(np.isnan(room), 0.0, room), WIDEST)
        return (must > 0) & (backing < must * NEAR), np.minimum(room, WIDEST)

    def _exposure(
        self, terms: Terms, test: NDArray[Any], entries: Entries, positions: Positions, marks: Floats
    ) -> Floats:
        """Most that equity less margin of each account can fall, over the share by which a price moves [num]."""
        markets, market, contract = terms.markets, entries.market, positions.market.astype(np.int64)
        held, owed = entries.deposited * marks[market], entries.borrowed * marks[market]
        value = notional(markets, positions, marks)
        coin = np.abs(coins(markets, positions)) * marks[markets.settle[contract]]
        side = contract + len(markets) * (positions.quantity < 0)
        margin = terms.stress[contract] * (self.steep.margin(side, 2.0 * value) - self.steep.margin(side, value))
        moves = self._sum(len(test), entries, held * entries.threshold + owed, positions, value + coin)
        rates = held * markets.long[market] + owed * markets.short[market]
        required = self._sum(len(test), entries, rates, positions, margin)
        if (test == PORTFOLIO).any():
            required = np.where(test == PORTFOLIO, moves * self._widest_scenario(), required)
        return moves + NEAR * required

    def _sum(self, size: int, entries: Entries, one: Floats, positions: Positions, other: Floats) -> Floats:
        return group_sum(entries.account, one, size) + group_sum(positions.account, other, size)

    def _widest_scenario(self) -> float:
        """Largest share by which a scenario moves a price; an inverse contract moves with its coin's over its own."""
        factors, markets = self.terms.scenarios, self.terms.markets
        inverse = markets.kind == INVERSE
        with np.errstate(divide="ignore", invalid="ignore"):
            crossed = factors[:, markets.settle[inverse]] / factors[:, inverse]
        moves = np.abs(np.concatenate([factors, crossed], axis=1) - 1.0)
        return float(np.nan_to_num(moves, nan=np.inf, posinf=np.inf).max(initial=0.0))


def _rows_of(table: Any, first: Places, place: Places) -> Any:
    """Rows of some accounts, which name them by their order here."""
    rows, account = spans(first[place], first[place + 1])
    found = table[rows]
    found["account"] = account
    return found
