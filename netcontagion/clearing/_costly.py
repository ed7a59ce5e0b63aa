"""Clearing where default costs: the equation, its solves and the bounds that prove them.

A node that can pay all its dues pays them. One that cannot keeps only ``alpha`` of its external assets and ``beta`` of
its receipts: its *estate*. The map is monotone and jumps where a node falls, so several vectors can clear. All vectors
here are payments to the creditors who share with the network, as in :mod:`._system`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from netcontagion._iterate import iterate
from netcontagion._status import Status
from netcontagion.clearing._extremes import alive_nodes
from netcontagion.clearing._linear import ROUNDING_RESIDUAL, solve_unpaid
from netcontagion.clearing._shares import SOLVENCY_TOLERANCE
from netcontagion.clearing._system import EPS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netcontagion.clearing._input import Options
    from netcontagion.clearing._system import Bools, Floats, Prepared, System

__all__ = ["CostlySystem", "Found", "bounds_of", "costly_system", "greatest_vector", "least_vector", "waves_of"]

AUTO_ROUNDS = 20  # rounds from above before "auto" turns to the default set
BRACKET_ROUNDS = 1_000
OUTWARDS = 4.0  # a bound near the payments is this many times the rounding away


@dataclass(frozen=True, eq=False)
class CostlySystem:
    """One scenario: ``plain`` without costs, ``estate`` with the haircuts in its income and in its matrix."""

    plain: System
    estate: System
    dues: Floats
    beta: float

    @property
    def ceiling(self) -> Floats:
        """What is paid without default."""
        return self.plain.ceiling

    @property
    def error(self) -> float:
        """Bound of the relative error of one evaluation."""
        return self.plain.rounding + 8 * EPS

    @property
    def senior(self) -> Floats | float:
        """What is owed outside before anybody in the network."""
        return 0.0 if self.plain.senior is None else self.plain.senior

    def fails(self, payments: Floats, outwards: float = 0.0) -> Bools:
        """Mark who cannot pay all dues when the others pay ``payments``."""
        return self._short(self.plain.receipts(payments), outwards)

    def _short(self, received: Floats, outwards: float) -> Bools:
        has = (self.plain.assets + received) * (1 + outwards * self.error)
        return (self.dues > 0) & (has < self.dues * (1.0 - SOLVENCY_TOLERANCE))

    def pay(self, payments: Floats, outwards: float = 0.0) -> Floats:
        """Phi: what is paid when the others pay ``payments``; maybe rounded up (1) or down (-1)."""
        received, error = self.plain.receipts(payments), outwards * self.error
        size = self.estate.assets + self.senior + self.beta * received
        ceiling = self.ceiling * (1 + error)
        estate = np.clip(self.estate.income + self.beta * received + error * size, 0.0, ceiling)
        paid: Floats = np.where(self._short(received, outwards), estate, ceiling)
        return paid

    def in_all(self, payments: Floats, outwards: float = 0.0) -> Floats:
        """Pay everybody, senior creditors too, when the others pay ``payments``."""
        if self.plain.senior is None:
            return payments
        received, error = self.plain.receipts(payments), 1 + outwards * self.error
        estate = np.minimum(self.dues, self.estate.assets + self.beta * received)
        paid: Floats = np.where(self._short(received, outwards), estate, self.dues) * error
        return paid


def costly_system(prepared: Prepared, assets: Floats, alpha: float, beta: float) -> CostlySystem:
    """Return the system of the scenario with these external assets."""
    left = beta * prepared.owed
    left.eliminate_zeros()
    estate = replace(prepared.system(alpha * assets), owed=left, incoming=left.T)
    return CostlySystem(prepared.system(assets), estate, prepared.dues, beta)


class Found(NamedTuple):
    """Payments of one scenario, and how the solve ended."""

    payments: Floats
    rounds: int
    status: Status
    wave: NDArray[np.int64] | None = None


# -------------------------------------------------------------------------------------------------- the greatest vector


def greatest_vector(system: CostlySystem, options: Options) -> Found:
    """Find the greatest vector by the solver asked for.

    "auto": every iterate from above is at least the greatest vector, so who fails out of it fails in the greatest
    vector too: fictitious default may start from there. Where its solves fail the fixed point takes what is left.
    """
    nobody = np.zeros(len(system.dues), dtype=bool)
    if options.solver == "fixed_point":
        return _from_above(system, options)
    if options.solver == "fictitious_default":
        return _concluded(system, _fictitious_default(system, nobody, options.max_rounds, direct=True), options.rtol)
    start, spent = _first_rounds(system, options.max_rounds)
    found = _fictitious_default(system, start, options.max_rounds - spent, direct=False)
    found = _concluded(system, found._replace(wave=None), options.rtol)
    rounds = spent + found.rounds
    if found.status is Status.STALLED and rounds < options.max_rounds:
        found = _from_above(system, options._replace(max_rounds=options.max_rounds - rounds))
        rounds += found.rounds
    return found._replace(rounds=rounds)


def waves_of(system: CostlySystem) -> NDArray[np.int64] | None:
    """Compute the waves in which nodes fall, by solves from nobody; by factors where an iteration fails."""
    nobody = np.zeros(len(system.dues), dtype=bool)
    found = _fictitious_default(system, nobody, len(nobody) + 1, direct=False)
    if found.status is not Status.SETTLED:
        found = _fictitious_default(system, nobody, len(nobody) + 1, direct=True)
    return found.wave


def _one_down(system: CostlySystem, payments: Floats) -> tuple[Floats, float]:
    new = np.minimum(payments, system.pay(payments))
    return new, system.plain.distance(new, payments)


def _first_rounds(system: CostlySystem, max_rounds: int) -> tuple[Bools, int]:
    """Default set after a few rounds from above, one left for the next solver, and how many they were."""

    def step(payments: Floats) -> tuple[Floats, float, Status | None]:
        new, residual = _one_down(system, payments)
        return new, residual, Status.SETTLED if residual <= ROUNDING_RESIDUAL else None

    if max_rounds == 1:
        return np.zeros(len(system.dues), dtype=bool), 0
    ending = iterate(step, system.ceiling.copy(), max_rounds=min(AUTO_ROUNDS, max_rounds - 1))
    return system.fails(ending.state), ending.rounds


def _from_above(system: CostlySystem, options: Options) -> Found:
    """Iterate downwards until the bounds are near, or the payments stand still; a small step alone is no proof."""

    def step(state: tuple[Floats, float]) -> tuple[tuple[Floats, float], float, Status | None]:
        new, residual = _one_down(system, state[0])
        if not residual <= state[1]:
            return (new, state[1]), residual, None
        if residual <= ROUNDING_RESIDUAL:
            return (new, state[1]), residual, Status.SETTLED
        lower, upper = bounds_of(system, new, greatest=True)
        width = system.plain.distance(lower, upper)
        ending = Status.SETTLED if width <= options.rtol else None
        return (new, residual * min(0.3, options.rtol / max(width, EPS))), residual, ending

    ending = iterate(step, (system.ceiling.copy(), options.rtol), max_rounds=options.max_rounds)
    return Found(ending.state[0], ending.rounds, ending.status)


def _fictitious_default(system: CostlySystem, start: Bools, max_rounds: int, *, direct: bool) -> Found:
    """Solve for the estates of the default set, add who cannot pay out of them, until nobody is added."""
    wave = np.where(start, 0, -1)

    def step(state: tuple[Bools, Floats]) -> tuple[tuple[Bools, Floats], float, Status | None]:
        fallen = state[0]
        payments = _pay_estates(system, fallen, direct=direct)
        if payments is None:
            return state, 0.0, Status.STALLED
        new = system.fails(payments) & ~fallen
        if not new.any():
            return (fallen, payments), 0.0, Status.SETTLED
        wave[new] = wave.max(initial=-1) + 1
        return (fallen | new, payments), float(new.sum()), None

    ending = iterate(step, (start, system.ceiling.copy()), max_rounds=min(max_rounds, len(start) + 1))
    return Found(system.pay(ending.state[1]), ending.rounds, ending.status, wave.astype(np.int64))


def _pay_estates(system: CostlySystem, fallen: Bools, *, direct: bool) -> Floats | None:
    """Payments when the estates of ``fallen`` are shared out and all others pay in full; None if no solve succeeds.

    Whoever value reaches pays something. Where senior debt takes part of it that is not known beforehand, and the set
    grows from those who pay out of what they have: every solve is a lower bound, so who pays out of it pays at last.
    """
    estate = system.estate
    payments = np.where(fallen, 0.0, system.ceiling)
    available = estate.available(payments)
    pays = fallen & (available > 0)
    if estate.senior is None:
        pays[fallen] |= alive_nodes(replace(estate.part(fallen), income=available[fallen]))
    for _ in range(len(fallen) + 1):
        found = solve_unpaid(estate, pays, available[pays], direct=direct)
        if found is None:
            return None
        payments[pays] = np.clip(found, 0.0, system.ceiling[pays])
        more = fallen & ~pays & (estate.due > 0) & (estate.available(payments) > 0)
        if not more.any():
            break
        pays |= more
    return payments


def _concluded(system: CostlySystem, found: Found, rtol: float) -> Found:
    good = system.plain.distance(system.pay(found.payments), found.payments) <= rtol
    return found if good or found.status is not Status.SETTLED else found._replace(status=Status.STALLED)


# ----------------------------------------------------------------------------------------------------- the least vector


class _Ascent(NamedTuple):
    payments: Floats
    rounds: int
    next_try: int


def least_vector(system: CostlySystem, options: Options) -> Found:
    """Find the least vector: monotone from 0, and from the limit of the iteration on where that does not clear.

    While the same nodes fail the limit is the solution of a linear system, at most the least vector; who can pay out
    of it pays in the least vector too, though the iteration never gets there. "auto" looks for the limit after 1, 2,
    4... rounds and at once after every restart, "fixed_point" first when the steps are small.
    """

    def step(state: _Ascent) -> tuple[_Ascent, float, Status | None]:
        new, rounds, next_try = np.maximum(state.payments, system.pay(state.payments)), state.rounds + 1, state.next_try
        residual = system.plain.distance(new, state.payments)
        if rounds >= next_try or (residual <= options.rtol and next_try > options.max_rounds):
            limit, next_try = _limit(system, new), 2 * rounds
            if limit is not None:
                above = system.pay(limit)
                ended = system.plain.distance(np.maximum(limit, above), limit) <= 4 * system.error
                return _Ascent(above, rounds, rounds + 1), residual, Status.SETTLED if ended else None
        return _Ascent(new, rounds, next_try), residual, Status.SETTLED if residual <= ROUNDING_RESIDUAL else None

    first_try = 1 if options.solver == "auto" else options.max_rounds + 1
    ending = iterate(step, _Ascent(np.zeros(len(system.dues)), 0, first_try), max_rounds=options.max_rounds)
    return Found(ending.state.payments, ending.rounds, ending.status)


def _limit(system: CostlySystem, below: Floats) -> Floats | None:
    """Limit of the iteration from ``below`` while the same nodes fail; None where it leaves what is due."""
    estate, failed = system.estate, system.fails(below)
    pays = failed & (estate.due > 0) & (estate.available(below) > 0)
    payments = np.where(failed, 0.0, system.ceiling)
    found = solve_unpaid(estate, pays, estate.available(payments)[pays], direct=False)
    if found is None:
        return None
    slack = 1e-9 * estate.due[pays]
    if not ((found >= below[pays] - slack) & (found <= estate.due[pays] + slack)).all():
        return None
    payments[pays] = np.clip(found, below[pays], system.ceiling[pays])
    return payments


# -------------------------------------------------------------------------------------------------------------- bounds


def bounds_of(system: CostlySystem, payments: Floats, *, greatest: bool) -> tuple[Floats, Floats]:
    """Bound the greatest (or the least) vector near ``payments`` from below and above, rounding included.

    A vector q with Phi(q) >= q is at most the greatest one, a vector q with Phi(q) <= q at least the least one
    (Tarski). The bound on the other side needs the default set: a run from all dues (from 0) proves that the nodes
    failing here fail (pay) in the vector asked for, and with that set the equation has one solution. Where a vector
    near the payments is no proof, the run goes on until it stands still.
    """
    failed = system.fails(payments)
    margin = _margin(system, payments, failed)
    bounds = []
    for sign in (-1.0, 1.0):
        near = None if margin is None else _near(system, payments, failed, margin, sign)
        if near is not None and not (sign * (system.pay(near, sign) - near) <= 0).all():
            near = None
        if near is not None and (sign > 0) is not greatest:
            bounds.append(near)
        else:
            bounds.append(_from_extreme(system, failed, near, sign, proves=(sign > 0) is greatest))
    return bounds[0], bounds[1]


def _near(system: CostlySystem, payments: Floats, failed: Bools, margin: Floats, sign: float) -> Floats:
    ceiling = system.ceiling * (1 + sign * system.error)
    near: Floats = np.where(failed, np.clip(payments + sign * margin, 0.0, ceiling), ceiling)
    return near


def _margin(system: CostlySystem, payments: Floats, failed: Bools) -> Floats | None:
    """How far rounding can carry the payments of the failed: what it adds in one step, passed on among them."""
    estate = system.estate
    received = system.beta * system.plain.receipts(payments)
    added = np.abs(system.pay(payments) - payments) + system.error * (estate.assets + system.senior + received)
    nodes = failed & (estate.due > 0) & (estate.income + received + 2 * OUTWARDS * added > 0)
    found = solve_unpaid(estate, nodes, OUTWARDS * added[nodes], direct=False)
    if found is None or not (found >= 0).all():
        return None
    margin = np.zeros(len(payments))
    margin[nodes] = found
    return margin


def _from_extreme(system: CostlySystem, failed: Bools, near: Floats | None, sign: float, *, proves: bool) -> Floats:
    """Run from all dues (sign 1) or from 0 (-1), rounding outwards, until ``near`` is proved or nothing moves."""
    ceiling = system.ceiling * (1 + system.error)
    proves = proves and near is not None and _has_one_solution(system, failed)

    def known(bound: Floats) -> bool:
        fails = system.fails(bound, sign)
        return bool((failed <= fails).all() if sign > 0 else (fails <= failed).all())

    def step(bound: Floats) -> tuple[Floats, float, Status | None]:
        new = system.pay(bound, sign)
        new = np.minimum(new, bound) if sign > 0 else np.maximum(new, bound)
        moved = system.plain.distance(new, bound)
        return new, moved, Status.SETTLED if moved <= EPS or (proves and known(new)) else None

    bound = iterate(step, ceiling if sign > 0 else np.zeros(len(ceiling)), max_rounds=BRACKET_ROUNDS).state
    if not proves or near is None or not known(bound):
        return bound
    return np.minimum(bound, near) if sign > 0 else np.maximum(bound, near)


def _has_one_solution(system: CostlySystem, failed: Bools) -> bool:
    """Whether the estates of the failed have one solution: a positive vector shrinks when they pass it on."""
    if system.beta * (1 + system.error) < 1:
        return True
    estate = system.estate
    nodes = failed & (estate.due > 0)
    found = solve_unpaid(estate, nodes, estate.due[nodes], direct=False)
    if found is None or not (found > 0).all():
        return False
    vector = np.zeros(len(failed))
    vector[nodes] = found
    return bool((estate.receipts(vector)[nodes] * (1 + system.error) < found).all())
