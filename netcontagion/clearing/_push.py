"""Pushing shortfalls: work follows the defaulters, and ends with proven bounds.

Start from what is due. Whoever cannot pay out of what the others pay, pays so much less, and its creditors receive so
much less. Shortfalls rise to the least ones, in whatever order (:mod:`._kernels`): due less shortfall is an upper bound
of the greatest clearing vector at every stop. Then let everybody that lacks something pay a trifle less than needed,
until all can pay what is left: a vector p <= Phi(p), which the greatest one is not below (Tarski).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion._status import Status
from netcontagion.clearing._enclosure import Enclosure
from netcontagion.clearing._kernels import DOUBTFUL, SETTLED, STOPPED, push_scenarios
from netcontagion.clearing._scenario_assets import NO_CHANGES, ScenarioAssets
from netcontagion.clearing._solvers import Solved

if TYPE_CHECKING:
    from netcontagion.clearing._system import Bools, Floats, System

__all__ = ["pushed", "workspace"]


def pushed(system: System, rtol: float, max_rounds: int, budget: float = np.inf) -> Solved | None:
    """Enclose the greatest vector; None where more than ``budget`` edges would have to be visited."""
    code, rounds, width = np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64), np.zeros(1)
    assets = ScenarioAssets(system.income[None], NO_CHANGES, 1)
    nodes, short, _ = push_scenarios(
        *graph_of(system), system.due, assets.rows, *assets.changes, system.limits, rtol, max_rounds, budget,
        np.zeros(1, dtype=np.int64), False, code, rounds, width, *workspace(len(system.due)),
    )  # fmt: skip
    if code[0] not in (SETTLED, STOPPED, DOUBTFUL):
        return None
    low, near, high = np.zeros((3, len(system.due)))
    low[nodes], near[nodes], high[nodes] = short
    status = Status.SETTLED
    if code[0] == STOPPED:
        high, status = system.due, Status.MAX_ROUNDS
    error = system.rounding
    lower, upper = (system.due - high) * (1 - error), np.minimum((system.due - low) * (1 + error), system.due)
    payments = np.clip(system.due - near, lower, upper)
    between = system.width(lower, upper)
    enclosure = Enclosure("bracket", lower, upper, between, between if between > rtol else 0.0)
    return Solved(payments, enclosure, int(rounds[0]), status, notes=_doubts(code[0], between, rtol))


def workspace(size: int) -> tuple[Floats, Any, Bools]:
    """Allocate what a push works on, once for many scenarios."""
    return np.zeros((4, size)), np.empty((2, size), dtype=np.int64), np.zeros(size, dtype=bool)


def graph_of(system: System) -> tuple[Any, Any, Any]:
    """Return the arrays of the matrix of dues, row owes column."""
    return system.owed.indptr, system.owed.indices, system.owed.data


def _doubts(code: int, width: float, rtol: float) -> tuple[str, ...]:
    if code == STOPPED or width <= rtol:
        return ()
    return (f"the bounds are {width:.3g} apart, relative to the dues: rounding allows no better",)
