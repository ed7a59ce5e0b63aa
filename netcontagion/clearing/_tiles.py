"""Claims in square tiles: products whose vectors stay in the cache, on all processors.

A product reads what every debtor pays at random places of a long vector. A tile is small enough that what it reads and
what it adds up stay near the processor, and numbers its nodes by 16 bits: 12 bytes per claim, as by rows. Each creditor
is added up by one processor, debtor after debtor, as in ``owed.T @ vector``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion._compile import in_threads, kernel

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["Tiles", "add_tiles"]

PIECES = 16  # of a product at least, whatever the number of processors
FEWEST_BITS, MOST_BITS = 10, 16
WORTH_THREADS = 500_000  # claims


@kernel
def count_tiles(indptr: Any, indices: Any, bits: int, side: int, counts: Any) -> None:
    """Count the claims of every tile; a row of tiles is a block of creditors."""
    for debtor in range(len(indptr) - 1):
        for edge in range(indptr[debtor], indptr[debtor + 1]):
            counts[(indices[edge] >> bits) * side + (debtor >> bits)] += 1


@kernel
def fill_tiles(
    indptr: Any, indices: Any, data: Any, bits: int, side: int, free: Any, creditors: Any, debtors: Any, claims: Any
) -> None:  # fmt: skip
    """Put every claim at the next free place of its tile."""
    within = (1 << bits) - 1
    for debtor in range(len(indptr) - 1):
        for edge in range(indptr[debtor], indptr[debtor + 1]):
            tile = (indices[edge] >> bits) * side + (debtor >> bits)
            place = free[tile]
            free[tile] = place + 1
            creditors[place], debtors[place], claims[place] = indices[edge] & within, debtor & within, data[edge]


@kernel
def add_tiles(
    block: int, vector: Any, out: Any, begins: Any, creditors: Any, debtors: Any, claims: Any, bits: int
) -> None:  # fmt: skip
    """Add up what a block of creditors gets, on top of what is in ``out``."""
    side = (len(vector) - 1 + (1 << bits)) >> bits
    received = out[block << bits : (block + 1) << bits]
    for other in range(side):
        tile, paid = block * side + other, vector[other << bits : (other + 1) << bits]
        for place in range(np.uintp(begins[tile]), np.uintp(begins[tile + 1])):
            received[np.uintp(creditors[place])] += claims[place] * paid[np.uintp(debtors[place])]


class Tiles:
    """The claims of creditors (rows) on debtors (columns), made from a CSR matrix in which rows owe columns."""

    def __init__(self, owed: Any) -> None:
        self.size = owed.shape[0]
        self.bits = int(np.clip(np.ceil(np.log2(max(self.size, 1) / PIECES)), FEWEST_BITS, MOST_BITS))
        side = -(-self.size >> self.bits)
        counts = np.zeros(side * side, dtype=np.int64)
        count_tiles(owed.indptr, owed.indices, self.bits, side, counts)
        begins = np.concatenate([[0], np.cumsum(counts)])
        (creditors, debtors), claims = np.empty((2, owed.nnz), dtype=np.uint16), np.empty(owed.nnz)
        fill_tiles(
            owed.indptr, owed.indices, owed.data, self.bits, side, begins.copy(), creditors, debtors, claims
        )  # fmt: skip
        self.arrays: Any = (begins, creditors, debtors, claims, self.bits)
        self.blocks = list(range(side))

    def __matmul__(self, vector: NDArray[np.float64]) -> NDArray[np.float64]:
        out = np.zeros(self.size)
        self.run(lambda block: add_tiles(block, vector, out, *self.arrays))
        return out

    def run(self, work: Callable[[int], None]) -> None:
        """Do the work of all blocks of creditors, on all processors where that is worth it."""
        if len(self.arrays[3]) < WORTH_THREADS:
            for block in self.blocks:
                work(block)
        else:
            in_threads(work, [(block,) for block in self.blocks])
