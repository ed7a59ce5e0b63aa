"""Which accounts that nobody touched yet can be below health 1, without valuing all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from netcontagion._arrays import blank
from netcontagion._compile import in_threads, kernel
from netcontagion.margining._index import BLOCK
from netcontagion.margining._state import longer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netcontagion.margining._index import Index

__all__ = ["Exposed", "Reach", "Scan", "Slots", "Watch", "scan"]

NEAR = 1.0 + 1e-9  # health below this is looked at exactly
CHUNK = 128  # blocks that one thread values at a time at least: results do not depend on the number of threads
CHUNKS = 32  # and into how many pieces many blocks are cut
REMEMBERED = 64  # rounds whose prices are kept
LARGEST = 1e100  # growth of a ratio beyond which it makes no difference


@kernel
def scan(
    blocks: NDArray[np.int64],
    block_first: NDArray[np.int64],
    first: NDArray[Any],
    amount: NDArray[np.float64],
    slot: NDArray[Any],
    slots: Slots,
    opened: NDArray[np.uint8],
    worst: NDArray[np.float64],
    places: NDArray[np.int64],
    health: NDArray[np.float64],
    largest: NDArray[np.int32],
) -> int:
    """Value the accounts of some blocks; note those that may be below health 1, open them, return how many.

    Of these go the health, as ``account_health`` has it, and the market of the largest collateral into ``health`` and
    ``largest``. ``worst`` of each block becomes the highest debt over weighted collateral of the accounts left.
    Accounts that were opened are passed over.
    """
    count, one = np.uint64(0), np.uint64(1)
    for i in range(len(blocks)):
        highest, start = 0.0, np.uint64(block_first[blocks[i]])  # unsigned: no test for places from the end
        end = np.uint64(first[start])
        for place in range(start, np.uint64(block_first[blocks[i] + 1])):
            begin, end = end, np.uint64(first[place + one])
            if opened[place]:
                continue
            backing, debt = 0.0, 0.0
            for e in range(begin, end):
                backing += amount[e] * slots.backing[slot[e]]
                debt += amount[e] * slots.owed[slot[e]]
            if backing < debt * NEAR:
                backing, most = 0.0, 0.0
                where: Any = -1
                for e in range(begin, end):
                    s = slot[e]
                    value = amount[e] * slots.share[s] * slots.mark[s] * slots.weight[s]
                    backing += value
                    where = np.int64(s) if value > most else where
                    most = max(most, value)
                places[count], health[count], largest[count] = place, backing / debt, where
                opened[place] = 1
                count += one
            elif debt > highest * backing:
                highest = debt / backing
        worst[blocks[i]] = highest
    for k in range(count):
        largest[k] = slots.market[largest[k]] if largest[k] >= 0 else -1
    return int(count)


class Slots(NamedTuple):
    """What a unit of each slot counts for: ``backing`` and ``owed`` [num], and what the first is the product of.

    ``share`` is 0 for debts.
    """

    backing: NDArray[np.float64]
    owed: NDArray[np.float64]
    share: NDArray[np.float64]
    mark: NDArray[np.float64]
    weight: NDArray[np.float64]
    market: NDArray[np.int32]

    @classmethod
    def of(cls, index: Index, marks: NDArray[np.float64], share: NDArray[np.float64]) -> Slots:
        """Value the slots of an index."""
        market, debt = index.slot_market, index.slot_is_debt
        mark, left = marks[market], np.where(debt, 0.0, share[market])
        weight = index.slot_weight
        return cls(mark * left * weight, np.where(debt, mark, 0.0), left, mark, weight, market)


class Exposed(NamedTuple):
    """Places that may be below health 1, rising, with their health and the market of their largest collateral."""

    places: NDArray[np.int64]
    health: NDArray[np.float64]
    largest: NDArray[np.int32]


@dataclass(eq=False)
class Reach:
    """How much debt over weighted collateral can have grown on each exchange since each earlier valuation.

    The growth is at most the highest price ratio among debts over the lowest one among collateral, where prices of
    collateral include what suppliers were cut by. Valuation 0 is the one at the marks before the shock.
    """

    index: Index
    past: list[NDArray[np.float64]]  # prices of collateral, then of debts, by market

    def now(self, marks: NDArray[np.float64], share: NDArray[np.float64]) -> NDArray[np.float64]:
        """Growth since each valuation, (valuations, segments); now is the last of them."""
        index = self.index
        left = np.maximum(share, 1.0 / LARGEST)  # a seat can deposit anew where suppliers lost everything
        self.past.append(np.stack([marks * left, marks]))
        if not len(index.segment_first):
            return np.ones((len(self.past), 1))
        before, prices = np.stack(self.past), self.past[-1]
        with np.errstate(over="ignore", divide="ignore"):
            ratio = np.divide(prices, before, out=np.ones_like(before), where=before > 0)
            ratio[:, 0, ~index.as_collateral] = ratio[:, 1, ~index.as_debt] = 1.0
            lowest = np.minimum(np.minimum.reduceat(ratio[:, 0], index.segment_first, axis=1), 1.0)
            highest = np.maximum(np.maximum.reduceat(ratio[:, 1], index.segment_first, axis=1), 1.0)
            return np.minimum(highest / lowest, LARGEST)

    def returns(self, marks: NDArray[np.float64]) -> bool:
        """Whether something owed has a price again that had none: no bound on the growth of a debt spans that."""
        return bool(((self.past[-1][1] == 0) & (marks > 0) & self.index.as_debt).any())

    def forget(self) -> bool:
        """Keep only the last valuation where too many are remembered."""
        full = len(self.past) > REMEMBERED
        if full:
            del self.past[:-1]
        return full


@dataclass(eq=False)
class Scan:
    """The blocks of one run: which of them can hold an account below 1 that was not opened yet."""

    index: Index

    def __post_init__(self) -> None:
        index = self.index
        self.worst = index.block_worst.copy()
        self.cell = index.block_segment.copy()  # of the table of growths: valuation x segments + segment
        self.bound = np.empty(len(self.worst))
        self.opened = blank(len(index.order), np.uint8)

    def exposed(self, reach: NDArray[np.float64], marks: NDArray[np.float64], share: NDArray[np.float64]) -> Exposed:
        """Places that may be below health 1 now; ``reach`` is the growth since every valuation, now the last one."""
        index = self.index
        with np.errstate(over="ignore"):
            bound = np.take(reach.ravel(), self.cell, out=self.bound, mode="clip")
            bound *= self.worst
        blocks = np.flatnonzero(bound >= 1.0 / NEAR)
        if not len(blocks):
            return Exposed(blocks, np.zeros(0), np.zeros(0, dtype=np.int32))
        slots = Slots.of(index, marks, share)
        given = (index.block_first, index.first, index.amount, index.slot, slots, self.opened, self.worst)

        def value(chunk: NDArray[np.int64]) -> tuple[NDArray[Any], ...]:
            most = len(chunk) * BLOCK
            found = np.empty(most, dtype=np.int64), np.empty(most), np.empty(most, dtype=np.int32)
            size = scan(chunk, *given, *found)
            return tuple(column[:size] for column in found)

        step = max(CHUNK, -(-len(blocks) // CHUNKS))
        parts = in_threads(value, [(blocks[low : low + step],) for low in range(0, len(blocks), step)])
        self.cell[blocks] = index.block_segment[blocks] + (reach.size - reach.shape[1])
        return Exposed(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def leave(self, places: NDArray[np.int64]) -> None:
        """Look again, in the next round, at places that were found but are not below 1."""
        self.opened[places] = 0
        blocks = np.searchsorted(self.index.block_first, places, side="right") - 1
        self.worst[blocks] = LARGEST

    def restart(self) -> None:
        """Value every block in the next round."""
        self.worst[:] = LARGEST

    def rebase(self, reach: NDArray[np.float64]) -> None:
        """Bound every block at the prices of the last valuation, which becomes valuation 0."""
        with np.errstate(over="ignore"):
            self.worst = np.minimum(self.worst * reach.ravel()[self.cell], LARGEST)
        self.cell = self.index.block_segment.copy()


@dataclass(eq=False)
class Watch:
    """The seats of one run: which of them can be below health 1. Those without debt are never looked at again."""

    index: Index

    def __post_init__(self) -> None:
        self.worst, self.row = np.zeros(0), np.zeros(0, dtype=np.int16)
        self.segment, self.active = np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.int64)

    def add(self, exchange: NDArray[np.int32]) -> None:
        """Look at fresh seats on these exchanges."""
        first, last = len(self.segment), len(self.segment) + len(exchange)
        self.worst, self.row = longer(self.worst, last), longer(self.row, last)
        self.worst[first:last] = np.inf
        self.segment = np.append(self.segment, self.index.segment_of[exchange])
        self.active = np.append(self.active, np.arange(first, last))

    def touch(self, seats: NDArray[np.int64]) -> None:
        """Value these seats in the next round whatever happens to prices."""
        self.worst[seats] = np.inf

    def restart(self) -> None:
        """Value every seat in the next round, those without debt too."""
        self.active = np.arange(len(self.segment))
        self.touch(self.active)

    def exposed(self, reach: NDArray[np.float64]) -> NDArray[np.int64]:
        """Seats that may be below health 1 now."""
        active = self.active
        with np.errstate(over="ignore"):
            bound = self.worst[active] * reach[self.row[active], self.segment[active]]
        return active[bound * NEAR >= 1.0]

    def valued(
        self, seats: NDArray[np.int64], health: NDArray[np.float64], always: NDArray[np.bool_], row: int
    ) -> None:
        """Note the health of seats at a valuation; some are looked at every time."""
        with np.errstate(over="ignore"):
            worst = np.divide(1.0, health, out=np.full(len(health), np.inf), where=health > 0)
        self.worst[seats], self.row[seats] = np.where(always, np.inf, worst), row
        if not worst.all():
            self.active = self.active[self.worst[self.active] > 0]

    def rebase(self, reach: NDArray[np.float64]) -> None:
        """Bound every seat at the prices of the last valuation, which becomes valuation 0."""
        size = len(self.segment)
        with np.errstate(over="ignore"):
            self.worst[:size] *= reach[self.row[:size], self.segment]
        self.row[:] = 0
