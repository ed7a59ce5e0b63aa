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
from netcontagion.clearing._kernels import SETTLED, STOPPED, bracket
from netcontagion.clearing._solvers import Solved

if TYPE_CHECKING:
    from netcontagion.clearing._system import System

__all__ = ["endings", "pushed"]


def pushed(system: System, rtol: float, max_rounds: int, budget: float = np.inf) -> Solved | None:
    """Enclose the greatest vector; None where more than ``budget`` edges would have to be visited."""
    size = len(system.due)
    low, near, high, slack = np.zeros(size), np.zeros(size), np.zeros(size), np.empty(size)
    frontier, queued = np.empty(size, dtype=np.int64), np.zeros(size, dtype=bool)
    code, rounds, _ = bracket(
        *graph_of(system), system.due, system.income, system.full, system.in_degree,
        low, near, high, slack, frontier, queued, rtol, max_rounds, budget,
    )  # fmt: skip
    if code not in (SETTLED, STOPPED):
        return None
    if code == STOPPED:
        near, high = low, system.due
    available = system.due - near + slack if code == SETTLED else None
    lower, upper, error = system.due - high, system.due - low, system.rounding
    lower, upper = lower * (1 - error), np.minimum(upper * (1 + error), system.due)
    payments = np.clip(system.due - near, lower, upper)
    width = system.width(lower, upper)
    enclosure = Enclosure("bracket", lower, upper, width, width if width > rtol else 0.0)
    return Solved(payments, enclosure, rounds, endings(code), notes=_doubts(code, width, rtol), available=available)


def graph_of(system: System) -> tuple[Any, Any, Any]:
    """Return the arrays of the matrix of dues, row owes column."""
    return system.owed.indptr, system.owed.indices, system.owed.data


def endings(code: int) -> Status:
    """Say how a push ended."""
    return Status.SETTLED if code == SETTLED else Status.MAX_ROUNDS


def _doubts(code: int, width: float, rtol: float) -> tuple[str, ...]:
    if code != SETTLED or width <= rtol:
        return ()
    return (f"the bounds are {width:.3g} apart, relative to the dues: rounding allows no better",)
