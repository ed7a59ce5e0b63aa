"""Sums by node over scenarios, and the rows beside them, put together in one order however the work was cut.

Blocks of scenarios are leaves of a binary tree: two halves are added when both are there, whoever made them. A sum is
then the same to the last bit for every cut, and 2 log2(blocks) of them are kept, however many scenarios there are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Floats", "Forest", "Rows", "Segment", "Sums"]

Floats = NDArray[np.float64]


class Sums(NamedTuple):
    """By node: losses times the weight of their scenario, added up; in how many scenarios it defaulted."""

    loss: Floats
    defaults: NDArray[np.int64]

    def plus(self, other: Sums | None) -> Sums:
        """Add those of later scenarios."""
        return self if other is None else Sums(self.loss + other.loss, self.defaults + other.defaults)


class Rows(NamedTuple):
    """One row per scenario: status, error by row, and columns of numbers (NaN where a scenario has none)."""

    status: NDArray[Any]
    errors: dict[int, str]
    columns: dict[str, NDArray[Any]]

    def then(self, other: Rows) -> Rows:
        """Append later rows."""
        size = len(self.status)
        names = dict.fromkeys((*self.columns, *other.columns))
        columns = {name: np.concatenate([self.column(name), other.column(name)]) for name in names}
        errors = self.errors | {size + row: text for row, text in other.errors.items()}
        return Rows(np.concatenate([self.status, other.status]), errors, columns)

    def column(self, name: str) -> NDArray[Any]:
        """Return a column; NaN where there is none."""
        return self.columns[name] if name in self.columns else np.full(len(self.status), np.nan)


class Segment(NamedTuple):
    """What blocks ``start`` to ``start + length`` of a network gave; the length is a power of two that divides it."""

    network: int
    start: int
    length: int
    rows: Rows
    sums: Sums | None

    @property
    def place(self) -> tuple[int, int, int]:
        """Network, first block and number of blocks."""
        return (self.network, self.start, self.length)

    def then(self, other: Segment) -> Segment:
        """Join with the segment that follows."""
        sums = other.sums if self.sums is None else self.sums.plus(other.sums)
        return Segment(self.network, self.start, self.length + other.length, self.rows.then(other.rows), sums)


class Forest:
    """Segments that are not halves of one that is there already."""

    def __init__(self, segments: Iterable[Segment] = ()) -> None:
        self.segments: dict[tuple[int, int, int], Segment] = {}
        for segment in segments:
            self.add(segment)

    def add(self, segment: Segment) -> None:
        """Add a segment, and join halves as long as there are two."""
        while True:
            network, start, length = segment.place
            other = self.segments.pop((network, start ^ length, length), None)
            if other is None:
                break
            segment = segment.then(other) if start & length == 0 else other.then(segment)
        self.segments[segment.place] = segment

    def missing(self, network: int, blocks: int) -> list[tuple[int, int]]:
        """List the ranges of blocks of a network that are not there."""
        gaps, at = [], 0
        for start, length in sorted(place[1:] for place in self.segments if place[0] == network):
            if start > at:
                gaps.append((at, start))
            at = start + length
        return [*gaps, (at, blocks)] if at < blocks else gaps

    def whole(self, network: int) -> Segment:
        """Join all segments of a network, which has no gaps."""
        found = sorted((one for one in self.segments.values() if one.network == network), key=lambda one: one.start)
        total = found[0]
        for segment in found[1:]:
            total = total.then(segment)
        return total
