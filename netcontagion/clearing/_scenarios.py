"""Many scenarios of one network: pushed side by side, kept as the shortfalls they have.

Memory grows with the number of defaults in all scenarios; what is dense is made when it is asked for.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy.sparse

from netcontagion._compile import in_threads
from netcontagion.clearing._kernels import SETTLED, SPENT, push_scenarios, turn
from netcontagion.clearing._push import workspace
from netcontagion.clearing._shares import share_paid

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netcontagion.clearing._solvers import Solved
    from netcontagion.clearing._system import Bools, Floats, Prepared

__all__ = ["Batch", "ShortfallValues", "by_scenario", "push_batch"]

BLOCK = 64  # scenarios a processor takes at a time


class Batch(NamedTuple):
    """Scenarios pushed: which are enclosed to ``rtol``, which took too many claims, rounds, widths, shortfalls."""

    settled: Bools
    spent: Bools
    rounds: NDArray[np.int64]
    width: Floats
    short: Short

    def with_columns(self, prepared: Prepared, alone: dict[int, Solved]) -> Short:
        """Return the shortfalls with the columns of scenarios that were solved by themselves."""
        if not alone:
            return self.short
        due = prepared.internal if prepared.senior else prepared.dues
        places = {scenario: place for place, scenario in enumerate(alone)}
        order = [places.get(scenario, len(alone) + scenario) for scenario in range(len(self.settled))]
        bounds = [
            [due - one.enclosure.upper for one in alone.values()],
            [due - one.payments for one in alone.values()],
            [due - one.enclosure.lower for one in alone.values()],
        ]
        return Short(
            *(
                scipy.sparse.hstack([np.maximum(np.column_stack(own), 0.0), pushed], format="csc")[:, order]
                for own, pushed in zip(bounds, self.short, strict=True)
            )
        )


class Short(NamedTuple):
    """Shortfalls of the dues inside the system: csc arrays (n, s) of lower bounds, nearest values, upper bounds."""

    low: Any
    near: Any
    high: Any


def push_batch(prepared: Prepared, incomes: Floats, rtol: float, max_rounds: int, budget: float) -> Batch:
    """Push every scenario, rows of ``incomes``; settled are those in which value reaches all who owe."""
    scenarios, size = incomes.shape
    codes, rounds, width = np.full(scenarios, -1), np.zeros(scenarios, dtype=np.int64), np.zeros(scenarios)
    owed, due = prepared.owed, prepared.internal if prepared.senior else prepared.dues
    full = prepared.full

    def work(first: int, last: int) -> tuple[Any, Any, Any]:
        try:
            space = prepared.spaces.pop()
        except IndexError:
            space = workspace(size)
        found: tuple[Any, Any, Any] = push_scenarios(
            owed.indptr, owed.indices, owed.data, due, incomes[first:last], full, prepared.in_degree, rtol, max_rounds,
            budget, codes[first:last], rounds[first:last], width[first:last], *space,
        )  # fmt: skip
        prepared.spaces.append(space)
        return found

    parts = in_threads(work, blocks(scenarios))
    nodes, values = (np.concatenate([part[place] for part in parts]) for place in (0, 1))
    counts = np.concatenate([np.diff(part[2]) for part in parts])
    begins = np.concatenate([[0], np.cumsum(counts)])
    short = Short(*(_columns(values[:, kind].copy(), nodes, begins, size) for kind in range(3)))
    return Batch((codes == SETTLED) & (width <= rtol), codes == SPENT, rounds, width, short)


def blocks(scenarios: int) -> list[tuple[int, int]]:
    """Cut scenarios into pieces of work, the same for every number of processors."""
    return [(first, min(first + BLOCK, scenarios)) for first in range(0, scenarios, BLOCK)]


def by_scenario(assets: Floats) -> Floats:
    """Copy a table (n, s) or (n,), so that each scenario is contiguous."""
    if assets.ndim == 1:
        return assets[None].copy()
    rows = np.empty(assets.shape[::-1])
    in_threads(lambda first, last: turn(assets, rows[first:last], first), blocks(len(rows)))
    return rows


def _columns(values: Floats, nodes: Any, begins: Any, size: int) -> Any:
    return scipy.sparse.csc_array((values, nodes, begins), shape=(size, len(begins) - 1))


class ShortfallValues:
    """The arrays of a clearing, (n,) or (n, s), read-only, each made from the shortfalls when it is first asked for."""

    default_wave = None

    def __init__(self, prepared: Prepared, assets: Floats, short: Short) -> None:
        self.prepared, self.external_assets, self.short = prepared, assets, short
        assets.setflags(write=False)

    @property
    def _assets(self) -> Floats:
        given: Floats = self.external_assets
        return given[:, None] if given.ndim == 1 else given

    def _shaped(self, values: Floats) -> Floats:
        shaped = values[:, 0] if self.external_assets.ndim == 1 else values
        shaped.setflags(write=False)
        return shaped

    @property
    def _due(self) -> Floats:
        """What is due inside the system."""
        due: Floats = self.prepared.internal if self.prepared.senior else self.prepared.dues
        return due[:, None]

    def _resources(self, short: Any) -> Floats:
        """Add external assets and receipts, when everybody pays all but ``short``."""
        due = self._due[:, 0]
        lost = self.prepared.incoming @ _columns(short.data / due[short.indices], short.indices, short.indptr, len(due))
        return np.asarray(self._assets + self.prepared.full[:, None] - lost.toarray())

    def _paid(self, short: Any) -> Floats:
        """Subtract shortfalls from what is due inside the system."""
        paid: Floats = np.array(np.broadcast_to(self._due, short.shape))
        scenario = np.repeat(np.arange(short.shape[1]), np.diff(short.indptr))
        paid[short.indices, scenario] -= short.data
        return paid

    def _internal(self) -> Floats:
        if self.prepared.senior:
            left = self._resources(self.short.near) - self.prepared.external[:, None]
            return np.clip(left, 0.0, self._due)
        paid = self._paid(self.short.near)
        due = np.broadcast_to(self._due, paid.shape)
        inside: Floats = share_paid(paid, due) * self.prepared.internal[:, None]
        return inside

    def _external(self) -> Floats:
        if self.prepared.senior:
            return np.clip(self._resources(self.short.near), 0.0, self.prepared.external[:, None])
        paid = self._paid(self.short.near)
        outside: Floats = share_paid(paid, np.broadcast_to(self._due, paid.shape)) * self.prepared.external[:, None]
        return outside

    def _bound(self, short: Any, outwards: float) -> Floats:
        factor, dues = 1 + outwards * self.prepared.rounding, self.prepared.dues[:, None]
        if self.prepared.senior:
            bound: Floats = np.minimum(self._resources(short) * factor, dues * factor)
        else:
            bound = np.minimum(self._paid(short) * factor, dues)
        return bound

    @functools.cached_property
    def dues(self) -> Floats:
        """What every node owes."""
        return self._shaped(np.array(np.broadcast_to(self.prepared.dues[:, None], self._assets.shape)))

    @functools.cached_property
    def payments(self) -> Floats:
        """What every node pays."""
        if self.prepared.senior:
            return self._shaped(self._internal() + self._external())
        return self._shaped(self._paid(self.short.near))

    @functools.cached_property
    def payments_internal(self) -> Floats:
        """What every node pays to others of the network."""
        return self._shaped(self._internal())

    @functools.cached_property
    def payments_external(self) -> Floats:
        """What every node pays outside."""
        return self._shaped(self._external())

    @functools.cached_property
    def net_worth(self) -> Floats:
        """External assets and receipts less all dues."""
        dues = self.prepared.dues[:, None]
        if self.prepared.senior:
            paid = self._internal()
            received = self.prepared.incoming @ share_paid(paid, np.broadcast_to(self._due, paid.shape))
            return self._shaped(self._assets + received - dues)
        return self._shaped(self._resources(self.short.near) - dues)

    @functools.cached_property
    def lower(self) -> Floats:
        """Lower bound of the payments."""
        return self._shaped(self._bound(self.short.high, -1.0))

    @functools.cached_property
    def upper(self) -> Floats:
        """Upper bound of the payments."""
        return self._shaped(self._bound(self.short.low, 1.0))

    @property
    def shortfall(self) -> Floats:
        """Dues less payments."""
        return self.dues - self.payments

    def defaulted(self, tolerance: float) -> Bools:
        """Whether the shortfall is more than ``tolerance`` times the dues."""
        return np.asarray(self.shortfall > tolerance * self.dues)
