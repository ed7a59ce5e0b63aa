"""Many scenarios of one network: pushed side by side, kept as the shortfalls they have.

Memory grows with the number of defaults in all scenarios; what is dense is made when it is asked for.
"""

from __future__ import annotations

import functools
import itertools
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy.sparse

from netcontagion._compile import in_threads
from netcontagion.clearing._extremes import alive_nodes
from netcontagion.clearing._kernels import DOUBTFUL, MANY, SETTLED, SPENT, STOPPED, push_scenarios
from netcontagion.clearing._lanes import LANES, TRIFLE, lane_space, push_lanes
from netcontagion.clearing._push import workspace
from netcontagion.clearing._shares import share_paid

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netcontagion.clearing._scenario_assets import ScenarioAssets
    from netcontagion.clearing._solvers import Solved
    from netcontagion.clearing._system import Bools, Floats, Prepared

    Indices = NDArray[np.int64]

__all__ = ["Batch", "ShortfallValues", "push_batch"]


BLOCK = 64  # scenarios a processor takes at a time
FEWEST = 5  # scenarios that are worth lanes


class Batch(NamedTuple):
    """Scenarios pushed: which are enclosed to ``rtol``, which took too many claims, rounds, widths, shortfalls."""

    settled: Bools
    spent: Bools
    rounds: NDArray[np.int64]
    width: Floats
    short: Short


class Short(NamedTuple):
    """Shortfalls of the dues inside the system: csc arrays (n, s) of lower bounds, nearest values, upper bounds."""

    low: Any
    near: Any
    high: Any


def push_batch(prepared: Prepared, assets: ScenarioAssets, rtol: float, max_rounds: int, budget: float) -> Batch:
    """Push every scenario, external debt pari passu; settled are those in which value reaches all who owe.

    Those in which many fail at once are pushed side by side, with others in which about as many do.
    """
    scenarios = assets.count
    codes, rounds, width = np.full(scenarios, -1), np.zeros(scenarios, dtype=np.int64), np.zeros(scenarios)
    graph, limits = (prepared.owed.indptr, prepared.owed.indices, prepared.owed.data, prepared.dues), prepared.limits
    spaces: deque[Any] = deque()

    def push(chosen: Indices, defer: bool) -> _Part:
        space = _taken(prepared.spaces) or workspace(len(prepared.dues))
        part = push_scenarios(
            *graph, assets.rows, *assets.changes, limits, rtol, max_rounds, budget, chosen, defer, codes, rounds, width,
            *space,
        )  # fmt: skip
        prepared.spaces.append(space)
        return _Part(chosen, *part)

    def side_by_side(chosen: Indices) -> _Part:
        (space,) = _taken(spaces) or (lane_space(len(prepared.dues)),)
        incomes = np.stack([assets.of(one) for one in chosen.tolist()])
        told = codes[chosen], rounds[chosen], width[chosen]
        part = push_lanes(*graph, incomes, limits, rtol, max_rounds, budget, *told, space)
        codes[chosen], rounds[chosen], width[chosen] = told
        spaces.append((space,))
        return _Part(chosen, *part)

    defer = scenarios >= FEWEST and rtol <= TRIFLE
    parts = in_threads(push, [(chosen, defer) for chosen in _cut(np.arange(scenarios), BLOCK)])
    many = np.flatnonzero(codes == MANY)
    alike = _cut(many[np.argsort(-rounds[many], kind="stable")], LANES)
    parts += in_threads(side_by_side, [(chosen,) for chosen in alike if len(chosen) >= FEWEST])
    parts += in_threads(push, [(chosen, False) for chosen in _cut(np.flatnonzero(codes == MANY), LANES)])
    near = width <= rtol
    settled = (codes == SETTLED) & near
    for scenario in np.flatnonzero((codes == DOUBTFUL) & near).tolist():
        settled[scenario] = alive_nodes(prepared.system(assets.of(scenario))).all()
    return Batch(settled, (codes == SPENT) | (codes == STOPPED), rounds, width, _joined(parts, scenarios, prepared))


class _Part(NamedTuple):
    """Shortfalls (3, ...) of some scenarios at their nodes, and where each scenario begins."""

    scenarios: Indices
    nodes: Any
    values: Floats
    begins: Any


def _cut(scenarios: Indices, size: int) -> list[Indices]:
    return [scenarios[first : first + size] for first in range(0, len(scenarios), size)]


def _taken(spaces: deque[Any]) -> Any:
    """Take what no other thread works on, if there is any."""
    try:
        return spaces.pop()
    except IndexError:
        return None


def _joined(parts: list[_Part], scenarios: int, prepared: Prepared) -> Short:
    """Put the shortfalls of all parts into columns; of a scenario that several have, those of the last one count."""
    numbers = np.concatenate([part.scenarios for part in parts])
    last = np.empty(scenarios, dtype=np.int64)
    last[numbers] = np.arange(len(numbers))
    lengths = np.concatenate([np.diff(part.begins) for part in parts])[last]
    begins = np.concatenate([[0], np.cumsum(lengths)])
    if len(numbers) == scenarios:  # the parts are in order
        chosen = [(part, 0, len(part.nodes)) for part in parts]
    else:
        pairs = [itertools.pairwise(part.begins.tolist()) for part in parts]
        where = [(part, *pair) for part, several in zip(parts, pairs, strict=True) for pair in several]
        chosen = [where[place] for place in last.tolist()]
    nodes = np.concatenate([part.nodes[begin:end] for part, begin, end in chosen])
    values = [np.concatenate([part.values[kind, begin:end] for part, begin, end in chosen]) for kind in range(3)]
    shape = (len(prepared.dues), scenarios)
    return Short(*(scipy.sparse.csc_array((one, nodes, begins), shape=shape) for one in values))


class ShortfallValues:
    """The arrays of a clearing, (n,) or (n, s), read-only, each made from the shortfalls when it is first asked for.

    External debt ranks with the debt inside the network. ``alone`` are scenarios that were solved by themselves.
    """

    default_wave = None

    def __init__(
        self, prepared: Prepared, assets: ScenarioAssets, short: Short, alone: dict[int, Solved], *, several: bool
    ) -> None:
        self.prepared, self.assets, self.short, self.alone, self.several = prepared, assets, short, alone, several

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        for value in state.values():
            if isinstance(value, np.ndarray):
                value.setflags(write=False)

    def _less(self, short: Any) -> Floats:
        """Subtract shortfalls from what is due, (n, s)."""
        paid: Floats = np.repeat(self.prepared.dues[:, None], short.shape[1], axis=1)
        scenario = np.repeat(np.arange(short.shape[1]), np.diff(short.indptr))
        paid[short.indices, scenario] -= short.data
        return paid

    def _shaped(self, values: Floats) -> Floats:
        shaped = values if self.several else values[:, 0]
        shaped.setflags(write=False)
        return shaped

    @functools.cached_property
    def external_assets(self) -> Floats:
        """What every node has outside."""
        return self._shaped(self.assets.table)

    @functools.cached_property
    def _share(self) -> Floats:
        return share_paid(self.payments, self.dues)

    def _of(self, per_node: Floats) -> Floats:
        """Spread one number per node over the scenarios."""
        return per_node[:, None] if self.several else per_node

    @functools.cached_property
    def dues(self) -> Floats:
        """What every node owes."""
        return self._shaped(np.repeat(self.prepared.dues[:, None], self.short.near.shape[1], axis=1))

    @functools.cached_property
    def payments(self) -> Floats:
        """What every node pays."""
        paid = self._less(self.short.near)
        for scenario, solved in self.alone.items():
            paid[:, scenario] = solved.payments
        return self._shaped(paid)

    @functools.cached_property
    def payments_internal(self) -> Floats:
        """What every node pays to others of the network."""
        return self._frozen(self._share * self._of(self.prepared.internal))

    @functools.cached_property
    def payments_external(self) -> Floats:
        """What every node pays outside."""
        return self._frozen(self._share * self._of(self.prepared.external))

    @functools.cached_property
    def net_worth(self) -> Floats:
        """External assets and receipts less all dues."""
        available: Floats = self.external_assets + self.prepared.incoming @ self._share
        return self._frozen(available - self.dues)

    @functools.cached_property
    def lower(self) -> Floats:
        """Lower bound of the payments."""
        bound = self._less(self.short.high) * (1 - self.prepared.rounding)
        for scenario, solved in self.alone.items():
            bound[:, scenario] = solved.enclosure.lower
        return self._shaped(bound)

    @functools.cached_property
    def upper(self) -> Floats:
        """Upper bound of the payments."""
        dues = self.prepared.dues[:, None]
        bound = np.minimum(self._less(self.short.low) * (1 + self.prepared.rounding), dues)
        for scenario, solved in self.alone.items():
            bound[:, scenario] = solved.enclosure.upper
        return self._shaped(bound)

    @property
    def shortfall(self) -> Floats:
        """Dues less payments."""
        return self.dues - self.payments

    def defaulted(self, tolerance: float) -> Bools:
        """Whether the shortfall is more than ``tolerance`` times the dues."""
        return np.asarray(self.shortfall > tolerance * self.dues)

    def _frozen(self, values: Floats) -> Floats:
        values.setflags(write=False)
        return values
