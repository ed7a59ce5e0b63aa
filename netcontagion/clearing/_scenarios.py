"""Many scenarios of one network: pushed side by side, kept as the shortfalls they have.

Memory grows with the number of defaults in all scenarios; what is dense is made when it is asked for.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy.sparse

from netcontagion._compile import in_threads
from netcontagion.clearing._kernels import SETTLED, push_scenarios, reached
from netcontagion.clearing._shares import share_paid

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netcontagion.clearing._solvers import Solved
    from netcontagion.clearing._system import Bools, Floats, Prepared

__all__ = ["Batch", "ShortfallValues", "push_batch"]

BLOCK = 64  # scenarios a processor takes at a time


class Batch(NamedTuple):
    """Scenarios pushed: which are enclosed to ``rtol``, their rounds, residuals, and shortfalls of all by node."""

    settled: Bools
    rounds: NDArray[np.int64]
    residual: Floats
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


def push_batch(prepared: Prepared, assets: Floats, rtol: float, max_rounds: int, budget: float) -> Batch:
    """Push every column of ``assets``; settled are those in which value reaches all who owe."""
    size, scenarios = assets.shape
    system = prepared.system(np.zeros(size))
    rows = prepared.by_creditor.matrix
    codes, rounds, residual = np.full(scenarios, -1), np.zeros(scenarios, dtype=np.int64), np.zeros(scenarios)
    alive = np.zeros(scenarios, dtype=bool)

    def work(first: int, last: int) -> tuple[Any, Any, Any]:
        incomes = np.ascontiguousarray(assets[:, first:last].T) + system.income
        alive[first:last] = [reached(rows.indptr, rows.indices, system.due, income) for income in incomes]
        return push_scenarios(
            system.owed.indptr, system.owed.indices, system.owed.data, system.due, incomes, system.full,
            system.in_degree, rtol, max_rounds, budget, codes[first:last], rounds[first:last], residual[first:last],
        )  # fmt: skip

    parts = in_threads(work, [(first, min(first + BLOCK, scenarios)) for first in range(0, scenarios, BLOCK)])
    nodes, values = (np.concatenate([part[place] for part in parts]) for place in (0, 1))
    counts = np.concatenate([np.diff(part[2]) for part in parts])
    begins = np.concatenate([[0], np.cumsum(counts)])
    short = Short(*(_columns(values[:, kind].copy(), nodes, begins, size) for kind in range(3)))
    width = np.zeros(scenarios)
    np.maximum.at(width, np.repeat(np.arange(scenarios), counts), (values[:, 2] - values[:, 0]) / system.due[nodes])
    return Batch((codes == SETTLED) & (width <= rtol) & alive, rounds, residual, short)


def _columns(values: Floats, nodes: Any, begins: Any, size: int) -> Any:
    return scipy.sparse.csc_array((values, nodes, begins), shape=(size, len(begins) - 1))


class ShortfallValues:
    """The arrays of a clearing (n, s), read-only, each made from the shortfalls when it is first asked for."""

    default_wave = None

    def __init__(self, prepared: Prepared, assets: Floats, short: Short) -> None:
        self.prepared, self.external_assets, self.short = prepared, assets, short
        assets.setflags(write=False)

    def _paid(self, short: Any) -> Floats:
        """Subtract shortfalls from what is due inside the system."""
        due = self.prepared.internal if self.prepared.senior else self.prepared.dues
        return np.asarray(due[:, None] - short.toarray())

    def _resources(self, short: Any) -> Floats:
        """Add external assets and receipts, when everybody pays all but ``short``."""
        prepared = self.prepared
        due = prepared.internal if prepared.senior else prepared.dues
        lost = prepared.incoming @ _columns(short.data / due[short.indices], short.indices, short.indptr, len(due))
        return np.asarray(self.external_assets + prepared.full[:, None] - lost.toarray())

    @functools.cached_property
    def dues(self) -> Floats:
        """What every node owes."""
        return np.broadcast_to(self.prepared.dues[:, None], self.external_assets.shape)

    @functools.cached_property
    def payments(self) -> Floats:
        """What every node pays."""
        if self.prepared.senior:
            return _frozen(self.payments_internal + self.payments_external)
        return _frozen(self._paid(self.short.near))

    @functools.cached_property
    def payments_internal(self) -> Floats:
        """What every node pays to others of the network."""
        if self.prepared.senior:
            left = self._resources(self.short.near) - self.prepared.external[:, None]
            return _frozen(np.clip(left, 0.0, self.prepared.internal[:, None]))
        return _frozen(share_paid(self.payments, self.dues) * self.prepared.internal[:, None])

    @functools.cached_property
    def payments_external(self) -> Floats:
        """What every node pays outside."""
        if self.prepared.senior:
            return _frozen(np.clip(self._resources(self.short.near), 0.0, self.prepared.external[:, None]))
        return _frozen(share_paid(self.payments, self.dues) * self.prepared.external[:, None])

    @functools.cached_property
    def net_worth(self) -> Floats:
        """External assets and receipts less all dues."""
        prepared = self.prepared
        if prepared.senior:
            share = share_paid(self.payments_internal, np.broadcast_to(prepared.internal[:, None], self.dues.shape))
            return _frozen(self.external_assets + prepared.incoming @ share - self.dues)
        return _frozen(self._resources(self.short.near) - self.dues)

    @functools.cached_property
    def lower(self) -> Floats:
        """Lower bound of the payments."""
        return _frozen(self._bound(self.short.high, -1.0))

    @functools.cached_property
    def upper(self) -> Floats:
        """Upper bound of the payments."""
        return _frozen(self._bound(self.short.low, 1.0))

    def _bound(self, short: Any, outwards: float) -> Floats:
        factor = 1 + outwards * self.prepared.rounding
        paid = self._resources(short) if self.prepared.senior else self._paid(short)
        return np.minimum(paid * factor, self.dues * (factor if self.prepared.senior else 1.0))

    @property
    def shortfall(self) -> Floats:
        """Dues less payments."""
        return self.dues - self.payments

    def defaulted(self, tolerance: float) -> Bools:
        """Whether the shortfall is more than ``tolerance`` times the dues."""
        return np.asarray(self.shortfall > tolerance * self.dues)


def _frozen(values: Floats) -> Floats:
    values.setflags(write=False)
    return values
