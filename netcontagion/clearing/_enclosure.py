"""Certificates: bounds that enclose the payments asked for, rounding included."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from netcontagion._iterate import iterate
from netcontagion._status import Status
from netcontagion.clearing._system import EPS

if TYPE_CHECKING:
    from netcontagion.clearing._system import Floats, System

__all__ = ["KINDS", "Enclosure", "certify", "concave_enclosure"]

KINDS = ("none", "bracket", "concave")
"""Kinds of certificate, the weakest first."""

FIRST_POWER, USUAL_POWER = 4, 64  # k of the certificate: first tried, and the last where value reaches all nodes
ENOUGH = 1e-12  # a width that a higher k need not improve
BRACKET_ROUNDS = 1_000


class Enclosure(NamedTuple):
    """Bounds of the payments; ``floor`` is the width that rounding alone would leave."""

    kind: str
    lower: Floats
    upper: Floats
    width: float
    floor: float

    def narrow(self, rtol: float) -> bool:
        """Whether the bounds are as near as asked for, or as rounding allows."""
        return self.width <= max(rtol, 4 * self.floor)

    def doubts(self, rtol: float) -> tuple[str, ...]:
        """Say what is not certain."""
        if self.kind == "none":
            return ("uncertified: no bounds but the dues, the residual decided",)
        if self.width <= rtol:
            return ()
        if self.kind == "bracket":
            return (f"uncertified: the bracket is {self.width:.3g} wide, least and greatest vector may differ",)
        return (f"the bounds are {self.width:.3g} apart, relative to the dues: rounding allows no better",)


def certify(system: System, payments: Floats, rtol: float) -> Enclosure:
    """Enclose the solution near ``payments``: by a proof where Phi is concave, else between the extremes."""
    return concave_enclosure(system, payments) if system.concave else _bracket(system, payments, rtol)


def concave_enclosure(
    system: System, payments: Floats, *, image: Floats | None = None, enough: float = 0.0, last: int = 0
) -> Enclosure:
    """Bound the solution near ``payments``, rounding included.

    With f = Phi^k(0) > 0 and r = Phi^k(p) - p, Phi monotone and concave:
    ``p / (1 + max r^- / f) <= p* <= p / (1 - max r^+ / f)``, the last where its denominator is positive.
    A computed Phi^k is within the factor 1 +- k * rounding of the true one. k doubles, from 1 where ``image`` = Phi(p)
    is known, until the width is ``enough`` or k reaches ``last``.
    """
    due = system.due > 0
    if not due.any():
        return Enclosure("concave", payments.copy(), payments.copy(), system.width(payments, payments), EPS)
    lower, upper = np.zeros(len(payments)), system.ceiling * (1 + system.rounding)
    width, floor = np.inf, np.inf
    known, least, image, power = image, np.zeros(len(payments)), payments, 0
    last = last or int(np.clip(2e8 / (system.owed.nnz + len(payments) + 1), USUAL_POWER, 10_000))
    while power < last:
        rounds = min(max(power, FIRST_POWER), last - power) if known is None else 1
        for _ in range(rounds):
            first = system.pay(image) if known is None else known
            least, image, known = system.pay(least), first, None
        power += rounds
        error = power * system.rounding
        if (least[due] > 0).all() and error < 0.5:
            low, high, limit = _concave_bounds(payments[due], image[due], least[due], error)
            lower[due], upper[due] = np.maximum(lower[due], low), np.minimum(upper[due], high)
            width, floor = system.width(lower, upper), min(floor, limit)
            if power >= USUAL_POWER or width <= enough or width <= 4 * floor <= ENOUGH:
                break
    if np.isfinite(width) and (lower[due] > 0).all():
        return Enclosure("concave", lower, upper, width, floor)
    return Enclosure("none", lower, upper, system.width(lower, upper), 0.0)


def _concave_bounds(payments: Floats, image: Floats, least: Floats, error: float) -> tuple[Floats, Floats, float]:
    """Lower and upper bound from p, Phi^k(p) and Phi^k(0), and the width that the error alone would leave."""
    margin, certain = error * np.maximum(payments, image), least * (1 - error)
    below = float(((np.maximum(payments - image, 0.0) + margin) / certain).max())
    above = float(((np.maximum(image - payments, 0.0) + margin) / certain).max())
    lower = payments / (1 + below) * (1 - 4 * EPS)
    upper = payments / (1 - above) * (1 + 4 * EPS) if above < 1 else np.full(len(payments), np.inf)
    return lower, upper, 2 * float((margin / certain).max()) + 8 * EPS


def _bracket(system: System, payments: Floats, rtol: float) -> Enclosure:
    """Run from below and from above, rounding outwards, until both are near the payments or stand still."""
    ceiling = system.ceiling * (1 + system.rounding)
    senior = 0.0 if system.senior is None else system.senior

    def run(start: Floats, sign: float) -> Floats:
        there = system.in_all(payments, -sign)

        def step(state: tuple[Floats, Floats]) -> tuple[tuple[Floats, Floats], float, Status | None]:
            bound, received = state
            error = system.rounding * (system.assets + senior + received)
            new = np.clip(system.income + received + sign * error, 0.0, ceiling)
            new = np.minimum(new, bound) if sign > 0 else np.maximum(new, bound)
            received, moved = system.receipts(new), system.distance(new, bound)
            away = system.relative(sign * (system.in_all(new, sign, received) - there))
            return (new, received), moved, Status.SETTLED if away <= rtol / 4 or moved <= EPS else None

        return iterate(step, (start, system.receipts(start)), max_rounds=BRACKET_ROUNDS).state[0]

    lower, upper = run(np.zeros(len(payments)), -1.0), run(ceiling.copy(), 1.0)
    return Enclosure("bracket", lower, upper, system.width(lower, upper), 0.0)
