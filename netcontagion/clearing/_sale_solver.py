"""Solve an increasing map from above (greatest solution) or from below (least), and enclose what was found.

A monotone run from the top, rounded upwards, never falls below the greatest solution. A state y with ``y <= map(y)``,
rounded downwards, never lies above it (Tarski). Both together enclose the greatest solution, whether or not there are
others; the least one the other way round.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from netcontagion._iterate import iterate
from netcontagion._status import Status
from netcontagion.clearing._linear import ROUNDING_RESIDUAL

if TYPE_CHECKING:
    from collections.abc import Callable

    from netcontagion.clearing._system import Floats

__all__ = ["Enclosed", "Monotone", "solve_monotone"]

ATTEMPTS = 40  # rounds of one attempt to enclose
SAFETY = 1.02


class Monotone(NamedTuple):
    """An increasing map between ``bottom`` and ``top``; ``step(state, sign)`` rounds up (+1), down (-1) or not (0).

    ``sweep`` goes at least as far as a step, and never beyond the solution.
    """

    step: Callable[[Floats, float], Floats]
    sweep: Callable[[Floats, float], Floats]
    top: Floats
    bottom: Floats
    distance: Callable[[Floats, Floats], float]
    width: Callable[[Floats, Floats], float]


class Enclosed(NamedTuple):
    """A solution with bounds that are proved, how wide they are, and how the solve ended."""

    state: Floats
    lower: Floats
    upper: Floats
    width: float
    residual: float
    rounds: int
    status: Status

    def doubts(self, rtol: float) -> tuple[str, ...]:
        """Say what is not certain."""
        if self.width <= rtol:
            return ()
        return (f"uncertified: the bracket is {self.width:.3g} wide, the residual decided",)


class _Run(NamedTuple):
    state: Floats
    moved: float = np.inf
    try_at: float = np.inf
    bound: Floats | None = None
    extra: int = 0


def solve_monotone(problem: Monotone, *, greatest: bool, rtol: float, max_rounds: int) -> Enclosed:
    """Find the greatest or the least solution, with bounds on both sides of it."""
    sign = 1.0 if greatest else -1.0

    def step(run: _Run) -> tuple[_Run, float, Status | None]:
        new = _nearer(problem.sweep(run.state, sign), run.state, sign)
        moved = problem.distance(new, run.state)
        rate = min(moved / run.moved, 0.999) if np.isfinite(run.moved) and run.moved > 0 else 0.5
        still = moved <= ROUNDING_RESIDUAL
        ahead = moved * rate / (1 - rate)
        if not still and ahead > min(rtol / 4, run.try_at):
            return run._replace(state=new, moved=moved), moved, None
        slack = (1 - rate) / 10 if run.extra == 0 else 0.0
        bound, used = _other_side(problem, new, (run.state - new) * (rate / (1 - rate)), sign, rtol, slack)
        extra = run.extra + used
        if bound is not None:
            return _Run(new, moved, bound=bound, extra=extra), moved, Status.SETTLED
        return _Run(new, moved, ahead / 10, extra=extra), moved, Status.SETTLED if still else None

    ending = iterate(step, _Run(problem.top if greatest else problem.bottom), max_rounds=max_rounds)
    near, far, extra = ending.state.state, ending.state.bound, ending.state.extra
    if far is None:
        far, used = _from_the_other_end(problem, near, sign, rtol, max_rounds)
        extra += used
    lower, upper = (far, near) if greatest else (near, far)
    state = np.clip(problem.step(near, 0.0), lower, upper)
    residual = problem.distance(state, near)
    status = ending.status if np.isfinite(residual) else Status.NONFINITE
    return Enclosed(state, lower, upper, problem.width(lower, upper), residual, ending.rounds + extra, status)


def _nearer(new: Floats, old: Floats, sign: float) -> Floats:
    return np.minimum(new, old) if sign > 0 else np.maximum(new, old)


def _other_side(
    problem: Monotone, near: Floats, ahead: Floats, sign: float, rtol: float, slack: float
) -> tuple[Floats | None, int]:
    """Move a state away from ``near``, beyond the solution, until the map leads back towards it; None where that fails.

    The distance kept is a little more than what the map makes of it, which ends where the map contracts. What is 0 (an
    asset that nobody sells) stays 0 unless it must move: next to 0 a square root is steep.
    """
    far_end = problem.bottom if sign > 0 else problem.top
    tiny = (ROUNDING_RESIDUAL + slack * rtol) * np.abs(near)
    gap = np.abs(ahead)
    predicted = problem.width(near - sign * gap, near)
    gap = gap * (max(2.0, 0.3 * rtol / predicted) if predicted > 0 else 2.0) + tiny
    for used in range(1, ATTEMPTS + 1):
        tried = near - sign * gap
        tried = np.maximum(tried, far_end) if sign > 0 else np.minimum(tried, far_end)
        image = problem.step(tried, -sign)
        if (sign * (image - tried) >= 0).all():
            return (tried, used) if problem.width(tried, near) <= rtol else (None, used)
        if not problem.width(tried, near) <= rtol:
            return None, used
        gap = np.maximum(sign * (near - image), 0.0) * SAFETY + tiny
    return None, ATTEMPTS


def _from_the_other_end(
    problem: Monotone, near: Floats, sign: float, rtol: float, max_rounds: int
) -> tuple[Floats, int]:
    """Run from the other end of the range: at most the least solution, or at least the greatest."""

    def step(state: Floats) -> tuple[Floats, float, Status | None]:
        new = _nearer(problem.sweep(state, -sign), state, -sign)
        moved = problem.distance(new, state)
        done = moved <= ROUNDING_RESIDUAL or problem.width(new, near) <= rtol
        return new, moved, Status.SETTLED if done else None

    ending = iterate(step, problem.bottom if sign > 0 else problem.top, max_rounds=max_rounds)
    return ending.state, ending.rounds
