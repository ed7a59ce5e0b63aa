"""The external assets of many scenarios: one by one, or as what each changes in the first.

Shocks to single nodes leave nearly all assets as they are: then nothing is copied but the changes, and a push starts
from what all scenarios have in common.
"""

from __future__ import annotations

import functools
import itertools
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.sparse import coo_array

from netcontagion._compile import in_threads, kernel

if TYPE_CHECKING:
    from netcontagion.clearing._system import Floats

__all__ = ["NO_CHANGES", "Changes", "ScenarioAssets", "read_scenarios"]

BLOCK = 64  # scenarios a processor turns at a time
TILE = 64  # nodes turned together
PIECES = 16  # of the nodes that are compared at the same time
FEW = 0.02  # share of the numbers that may change


class Changes(NamedTuple):
    """What scenarios change, one after the other: where each begins, nodes, their assets."""

    begins: Any
    nodes: Any
    amounts: Floats


NO_CHANGES = Changes(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int32), np.empty(0))


class ScenarioAssets:
    """Assets of ``count`` scenarios: ``rows`` (count, n), or the first one alone and the changes to it."""

    def __init__(self, rows: Floats, changes: Changes, count: int) -> None:
        self.rows, self.changes, self.count = rows, changes, count

    def block(self, first: int, last: int) -> tuple[Floats, Any, Any, Floats]:
        """Return rows, and the changes to the only row, for some scenarios."""
        begins, nodes, amounts = self.changes
        return (self.rows if len(begins) else self.rows[first:last], begins[first : last + 1], nodes, amounts)

    def of(self, scenario: int) -> Floats:
        """Return the assets of a scenario."""
        begins, nodes, amounts = self.changes
        if not len(begins):
            row: Floats = self.rows[scenario]
            return row
        row = self.rows[0].copy()
        changed = slice(begins[scenario], begins[scenario + 1])
        row[nodes[changed]] = amounts[changed]
        return row

    def fits(self, most: float) -> bool:
        """Whether every number is in [0, most]."""
        return all(bool(((part >= 0.0) & (part <= most)).all()) for part in (self.rows, self.changes.amounts))

    @functools.cached_property
    def table(self) -> Floats:
        """All assets, (n, count), read-only."""
        begins, nodes, amounts = self.changes
        rows = np.repeat(self.rows, self.count, axis=0) if len(begins) else self.rows
        if len(begins):
            rows[np.repeat(np.arange(self.count), np.diff(begins)), nodes] = amounts
        rows.setflags(write=False)
        table: Floats = rows.T
        return table


def read_scenarios(assets: Floats, most: float) -> ScenarioAssets | None:
    """Copy a table (n, s), or (n,); None where a number is not in [0, most]."""
    table = assets[:, None] if assets.ndim == 1 else assets
    size, count = table.shape
    if count > 1:
        found = _changed(table, most)
        if found is not None:
            changes, right = found
            return ScenarioAssets(table[:, 0][None].copy(), changes, count) if right == table.size else None
    rows = np.empty((count, size))
    pieces = [(first, min(first + BLOCK, count)) for first in range(0, count, BLOCK)]
    right = sum(in_threads(lambda first, last: turn(table, rows[first:last], first, most), pieces))
    return ScenarioAssets(rows, NO_CHANGES, count) if right == table.size else None


def _changed(table: Floats, most: float) -> tuple[Changes, int] | None:
    """Find what scenarios change in the first, and count the numbers that are right; None where much changes."""
    size, count = table.shape
    cuts = np.linspace(0, size, PIECES + 1).astype(np.int64).tolist()
    room = int(FEW * table.size / PIECES) + count
    sample = min(PIECES, size)
    if changes_in(table, 0, sample, most, room)[1] > FEW * count * sample + count:
        return None
    pieces = list(itertools.pairwise(cuts))
    parts = in_threads(lambda first, last: changes_in(table, first, last, most, room), pieces)
    if any(found > room for _, found, *_ in parts):
        return None
    nodes, scenarios, amounts = (np.concatenate([part[place] for part in parts]) for place in (2, 3, 4))
    changed = coo_array((amounts, (nodes, scenarios)), shape=table.shape).tocsc()
    return Changes(changed.indptr.astype(np.int64), changed.indices.astype(np.int32), changed.data), sum(
        part[0] for part in parts
    )


@kernel
def changes_in(table: Any, first: int, last: int, most: float, room: int) -> tuple[int, int, Any, Any, Any]:
    """List what columns have other than the first one in some rows, at most ``room``; count what is in [0, most]."""
    right, found, columns = 0, 0, table.shape[1]
    nodes, scenarios, amounts = np.empty(room, np.int32), np.empty(room, np.int32), np.empty(room)
    for row in range(first, last):
        values, base, others = table[row], table[row, 0], 0
        for column in range(columns):
            value = values[column]
            right += (value >= 0.0) & (value <= most)
            others += value != base
        if others > 0:
            for column in range(columns):
                if values[column] != base:
                    if found < room:
                        nodes[found], scenarios[found], amounts[found] = row, column, values[column]
                    found += 1
        if found > room:
            break
    kept = min(found, room)
    return right, found, nodes[:kept].copy(), scenarios[:kept].copy(), amounts[:kept].copy()


@kernel
def turn(table: Any, out: Any, first: int, most: float) -> int:
    """Copy columns of a table, from ``first`` on, into the rows of another; count what is in [0, most]."""
    right = 0
    for top in range(0, table.shape[0], TILE):
        end = min(top + TILE, table.shape[0])
        for column in range(len(out)):
            for row in range(top, end):
                value = table[row, first + column]
                out[column, row] = value
                right += (value >= 0.0) & (value <= most)
    return right
