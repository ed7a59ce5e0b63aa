"""The solvers: monotone fixed points from above and below, fictitious default, and a mixture of them.

Each solves any system of :mod:`._system`; what makes one vector of several the answer is up to the caller.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from netcontagion._iterate import iterate
from netcontagion._status import Status
from netcontagion.clearing._enclosure import Enclosure, certify
from netcontagion.clearing._linear import ROUNDING_RESIDUAL, solve_unpaid

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netcontagion.clearing._input import Options
    from netcontagion.clearing._system import Bools, Floats, System

__all__ = ["Solved", "auto", "concluded", "fictitious_default", "from_above", "from_below"]

AUTO_ROUNDS = 20  # rounds of the fixed point before "auto" turns to the default set


class Solved(NamedTuple):
    """Payments of one scenario in a system, how sure they are and how the solve ended."""

    payments: Floats
    enclosure: Enclosure
    rounds: int
    status: Status
    wave: NDArray[np.int64] | None = None
    notes: tuple[str, ...] = ()
    loose: bool = False


# ------------------------------------------------------------------------------------------------------ fixed points


class _Descent(NamedTuple):
    payments: Floats
    target: float
    enclosure: Enclosure | None = None


def from_above(system: System, options: Options) -> Solved:
    """Iterate Phi downwards from what is due until the enclosure is narrow enough.

    A small step is no proof: the step at which the enclosure is tried next shrinks with the width found.
    """

    def step(state: _Descent) -> tuple[_Descent, float, Status | None]:
        new, residual = _one_down(system, state.payments)
        if not residual <= state.target:
            return _Descent(new, state.target), residual, None
        enclosure = certify(system, new, options.rtol)
        if enclosure.narrow(options.rtol) or residual <= ROUNDING_RESIDUAL:
            return _Descent(new, state.target, enclosure), residual, Status.SETTLED
        return _Descent(new, residual * min(0.3, options.rtol / enclosure.width)), residual, None

    ending = iterate(step, _Descent(system.ceiling.copy(), options.rtol), max_rounds=options.max_rounds)
    payments = ending.state.payments
    enclosure = ending.state.enclosure or certify(system, payments, options.rtol)
    payments = np.clip(payments, enclosure.lower, enclosure.upper)
    return Solved(payments, enclosure, ending.rounds, ending.status, notes=enclosure.doubts(options.rtol))


def _one_down(system: System, payments: Floats) -> tuple[Floats, float]:
    """Return the next payments from above, and how far they moved."""
    new = np.minimum(payments, system.pay(payments))
    return new, system.distance(new, payments)


class _Ascent(NamedTuple):
    payments: Floats
    rounds: int
    next_try: int
    exact: bool = False


def from_below(system: System, options: Options) -> Solved:
    """Find the least vector: monotone from 0, ended by an exact solve where that is proved to be the least.

    "auto" tries the exact solve after 1, 2, 4... rounds, "fixed_point" first when the residual is small.
    """

    def step(state: _Ascent) -> tuple[_Ascent, float, Status | None]:
        new, rounds = np.maximum(state.payments, system.pay(state.payments)), state.rounds + 1
        residual, next_try = system.distance(new, state.payments), state.next_try
        if rounds >= next_try or (residual <= options.rtol and next_try > options.max_rounds):
            exact, next_try = _same_pattern(system, new), 2 * rounds
            if exact is not None:
                return _Ascent(exact, rounds, next_try, exact=True), residual, Status.SETTLED
        return _Ascent(new, rounds, next_try), residual, Status.SETTLED if residual <= ROUNDING_RESIDUAL else None

    first_try = 1 if options.solver == "auto" else options.max_rounds + 1
    ending = iterate(step, _Ascent(np.zeros(len(system.due)), 0, first_try), max_rounds=options.max_rounds)
    enclosure = certify(system, ending.state.payments, options.rtol)
    payments = np.clip(ending.state.payments, enclosure.lower, enclosure.upper)
    notes, loose = enclosure.doubts(options.rtol), not ending.state.exact
    return Solved(payments, enclosure, ending.rounds, ending.status, notes=notes, loose=loose)


def _same_pattern(system: System, below: Floats) -> Floats | None:
    """Solve for the payments whose full payers, zero payers and others are those of ``below``.

    If the solution has the same three sets and ``below`` is a monotone iterate, at most the least vector, then the
    least vector lies between the two, has the same sets too, and so is the solution.
    """
    full, none = _pattern(system, below)
    between = ~full & ~none
    payments = np.where(full, system.ceiling, 0.0)
    found = solve_unpaid(system, between, system.available(payments)[between], direct=True)
    if found is None or (found < below[between] - 1e-9 * system.due[between]).any():
        return None
    payments[between] = found
    same = all(np.array_equal(one, other) for one, other in zip(_pattern(system, payments), (full, none), strict=True))
    return system.pay(payments) if same else None


def _pattern(system: System, payments: Floats) -> tuple[Bools, Bools]:
    """Nodes that pay in full, nodes that pay nothing."""
    return ~system.cannot_pay(payments), (system.due > 0) & (system.available(payments) <= 0)


# ----------------------------------------------------------------------------------------------- fictitious default


class Fallen(NamedTuple):
    """Where fictitious default ended: payments, and the wave in which each node fell (-1 never)."""

    payments: Floats
    wave: NDArray[np.int64]
    rounds: int
    status: Status


def fictitious_default(system: System, start: Bools, max_rounds: int, *, direct: bool) -> Fallen:
    """Solve for the payments of the default set, add who cannot pay out of them, until nobody is added."""
    wave = np.where(start, 0, -1)

    def step(state: tuple[Bools, Floats]) -> tuple[tuple[Bools, Floats], float, Status | None]:
        fallen, _ = state
        payments = _pay_with_defaults(system, fallen, direct=direct)
        if payments is None:
            return state, 0.0, Status.STALLED
        new = system.cannot_pay(payments) & ~fallen
        if not new.any():
            return (fallen, payments), 0.0, Status.SETTLED
        wave[new] = wave.max(initial=-1) + 1
        return (fallen | new, payments), float(new.sum()), None

    ending = iterate(step, (start, system.ceiling.copy()), max_rounds=min(max_rounds, len(start) + 1))
    return Fallen(system.pay(ending.state[1]), wave.astype(np.int64), ending.rounds, ending.status)


def _pay_with_defaults(system: System, fallen: Bools, *, direct: bool) -> Floats | None:
    """Payments when ``fallen`` pay what they have and all others pay in full; None if no solve succeeds.

    With negative incomes the fallen solve ``p = max(0, q + receipts)``. The set of those who pay something grows from
    those with q > 0: every solve is a lower bound of the solution, so who can pay out of it pays in the solution.
    """
    payments = np.where(fallen, 0.0, system.ceiling)
    available = system.available(payments)
    pays = fallen & (available > 0)
    for _ in range(len(fallen) + 1):
        found = solve_unpaid(system, pays, available[pays], direct=direct)
        if found is None:
            return None
        payments[pays] = np.clip(found, 0.0, system.ceiling[pays])
        more = fallen & ~pays & (system.available(payments) > 0)
        if not more.any():
            break
        pays |= more
    return payments


def concluded(system: System, fallen: Fallen, rtol: float) -> Solved:
    """Settle an exact solve by its certificate where that is a proof, else by its residual."""
    payments, status = fallen.payments, fallen.status
    enclosure = certify(system, payments, rtol)
    if enclosure.kind == "concave":
        good = enclosure.narrow(rtol)
    else:
        good = system.distance(system.pay(payments), payments) <= rtol
    if status is Status.SETTLED and not good:
        status = Status.STALLED
    return Solved(payments, enclosure, fallen.rounds, status, notes=enclosure.doubts(rtol))


# --------------------------------------------------------------------------------------------------------- the mixture


def auto(system: System, options: Options) -> Solved:
    """Turn from a few rounds from above to fictitious default, starting with the default set they reach.

    Every iterate from above is at least the greatest vector p*, so a node that cannot pay out of it cannot pay out of
    p* either: the default set reached is part of the final one. Fictitious default needs no more to end at p*: while
    its set is part of the final one, the payments it solves for, everybody else paying in full, are at least p*, so
    whoever cannot pay out of them defaults in p* too; when nobody is added they are a clearing vector, at least p*.
    Where its solves fail the fixed point takes the rounds that are left.
    """
    start, spent = _first_rounds(system, options.max_rounds)
    fallen = fictitious_default(system, start, options.max_rounds - spent, direct=False)
    solved = concluded(system, fallen, options.rtol)
    rounds = spent + fallen.rounds
    if solved.status is Status.STALLED and rounds < options.max_rounds:
        solved = from_above(system, options._replace(max_rounds=options.max_rounds - rounds))
        rounds += solved.rounds
    return solved._replace(rounds=rounds)


def _first_rounds(system: System, max_rounds: int) -> tuple[Bools, int]:
    """Default set after a few rounds from above, one left for the next solver, and how many they were."""

    def step(payments: Floats) -> tuple[Floats, float, Status | None]:
        new, residual = _one_down(system, payments)
        return new, residual, Status.SETTLED if residual <= ROUNDING_RESIDUAL else None

    if max_rounds == 1:
        return system.nobody(), 0
    ending = iterate(step, system.ceiling.copy(), max_rounds=min(AUTO_ROUNDS, max_rounds - 1))
    return system.cannot_pay(ending.state), ending.rounds
