"""Cutting scenarios into tasks of at least half a second, and having them done by whoever joblib finds.

A block of scenarios is the smallest piece of work; how many of them make a task is measured, and changes nothing in
what comes out.
"""

from __future__ import annotations

import time
from concurrent.futures import BrokenExecutor
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from netcontagion.scenarios._nodes import Forest, Segment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from netcontagion.network import Shock
    from netcontagion.scenarios._handle import Handle
    from netcontagion.scenarios._nodes import Floats
    from netcontagion.scenarios._run import Run

    Range = tuple[int, int, int]  # network, first block, one past the last

__all__ = ["Job", "Piece", "carry_out", "seed_of", "work"]

TASK = 0.6  # seconds that a task should take, so that few take less than half
SAMPLE = 0.2  # seconds of blocks that are measured


class Piece(NamedTuple):
    """Blocks of scenarios of one network, one after the other, and all it takes to run them anywhere."""

    run: Run
    handle: Handle
    network: int
    start: int
    size: int
    shocks: tuple[Shock, ...]
    seeds: tuple[int, ...]
    weights: Floats


class Job(NamedTuple):
    """Scenarios to run: by network its handle, the size of a block, numbers of the scenarios, and their weights."""

    run: Run
    shocks: tuple[Shock, ...]
    entropy: int
    common: bool
    handles: tuple[Handle, ...]
    sizes: tuple[int, ...]
    chosen: tuple[NDArray[np.int64], ...]
    weights: tuple[Floats, ...]

    def blocks(self, network: int) -> int:
        """Count the blocks of a network."""
        return -(-len(self.chosen[network]) // self.sizes[network])

    def missing(self, forest: Forest) -> list[Range]:
        """List the ranges of blocks that are not done."""
        networks = range(len(self.handles))
        return [(one, *gap) for one in networks for gap in forest.missing(one, self.blocks(one))]

    def piece(self, where: Range) -> Piece:
        """Cut out a range of blocks."""
        network, first, last = where
        size = self.sizes[network]
        span = slice(first * size, last * size)
        numbers = self.chosen[network][span].tolist()
        key = 0 if self.common else network
        seeds = tuple(seed_of(self.entropy, key, number) if self.run.takes_seed else 0 for number in numbers)
        shocks = tuple(self.shocks[number] for number in numbers)
        return Piece(self.run, self.handles[network], network, first, size, shocks, seeds, self.weights[network][span])


def seed_of(entropy: int, network: int, scenario: int) -> int:
    """Seed of one scenario of one network, whoever runs it and when."""
    return int(np.random.SeedSequence(entropy, spawn_key=(network, scenario)).generate_state(1, np.uint64)[0])


def work(pieces: list[Piece]) -> list[Segment]:
    """Run pieces, block by block; return what can be joined as one."""
    forest = Forest()
    for piece in pieces:
        net = piece.handle.open()
        for block, first in enumerate(range(0, len(piece.shocks), piece.size)):
            span = slice(first, first + piece.size)
            done = piece.run.block(net, piece.shocks[span], piece.seeds[span], piece.weights[span])
            forest.add(Segment(piece.network, piece.start + block, 1, *done))
    return list(forest.segments.values())


def carry_out(job: Job, forest: Forest, take: Callable[[list[Segment]], None], n_jobs: int | None) -> None:
    """Run what is missing in the forest, hand over what comes in, and start again where a worker was lost.

    Raises
    ------
    BrokenExecutor
        Workers are lost before anything gets done.
    """
    from joblib import Parallel, delayed  # type: ignore[import-untyped, unused-ignore]

    pace = _measured(job, forest, take)
    while left := job.missing(forest):
        tasks = _cut(left, max(1, round(TASK / pace + 0.5)))
        came = 0
        try:
            parallel = Parallel(n_jobs=n_jobs, batch_size=1, return_as="generator_unordered")
            for segments in parallel(delayed(work)([job.piece(one) for one in task]) for task in tasks):
                take(segments)
                came += 1
        except BrokenExecutor:
            if not came:
                raise


def _measured(job: Job, forest: Forest, take: Callable[[list[Segment]], None]) -> float:
    """Run the first blocks here; return the seconds that one takes once all is compiled and indexed."""
    spent, count = 0.0, -1
    for where in _single(job.missing(forest)):
        began = time.perf_counter()
        take(work([job.piece(where)]))
        count += 1
        spent += (time.perf_counter() - began) if count else 0.0
        if spent > SAMPLE:
            break
    return max(spent / max(count, 1), 1e-6)


def _single(ranges: list[Range]) -> Iterator[Range]:
    return ((network, block, block + 1) for network, first, last in ranges for block in range(first, last))


def _cut(ranges: list[Range], blocks: int) -> Iterator[list[Range]]:
    """Cut ranges into tasks of so many blocks; a task may reach over several networks."""
    task: list[Range] = []
    room = blocks
    for network, start, last in ranges:
        first = start
        while first < last:
            end = min(last, first + room)
            task.append((network, first, end))
            room -= end - first
            first = end
            if not room:
                yield task
                task, room = [], blocks
    if task:
        yield task
