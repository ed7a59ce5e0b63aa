"""The only loop that can fail to end. It watches for NaN, infinity, stalls and the number of rounds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from netcontagion._status import Status

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Ending", "iterate"]

S = TypeVar("S")


@dataclass(frozen=True)
class Ending(Generic[S]):
    """Where an iteration stopped, after how many rounds, why, and with what residual."""

    state: S
    rounds: int
    status: Status
    residual: float


def iterate(
    step: Callable[[S], tuple[S, float, Status | None]],
    state: S,
    *,
    max_rounds: int,
    patience: int | None = None,
) -> Ending[S]:
    """Repeat ``step`` until it returns a status, or until something is wrong.

    Parameters
    ----------
    step : callable
        Takes the state, returns the new state, a residual (0 is perfect) and a status, None to go on. A residual that
        is NaN or infinite ends the loop as NONFINITE, whatever the status.
    state : object
        The starting state.
    max_rounds : int
        Most steps to take.
    patience : int, optional
        Steps without a lower residual after which the loop is STALLED; None never stalls.
    """
    best, since, residual = math.inf, 0, math.inf
    for count in range(1, max_rounds + 1):
        state, residual, status = step(state)
        if not math.isfinite(residual):
            return Ending(state, count, Status.NONFINITE, residual)
        if status is not None:
            return Ending(state, count, status, residual)
        since = 0 if residual < best else since + 1
        best = min(best, residual)
        if patience is not None and since >= patience:
            return Ending(state, count, Status.STALLED, residual)
    return Ending(state, max_rounds, Status.MAX_ROUNDS, residual)
