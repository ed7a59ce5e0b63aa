"""The fixed point, accelerated: Anderson mixing, certified afterwards.

The next vector is the mixture of the last images Phi(p) whose residuals Phi(p) - p add up to least, cut to [0, dues].
It is not monotone, so that only a certificate makes an answer of it (Walker, Ni 2011, doi:10.1137/10078356X).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from netcontagion._iterate import iterate
from netcontagion._status import Status
from netcontagion.clearing._enclosure import Enclosure, concave_enclosure
from netcontagion.clearing._solvers import Solved

if TYPE_CHECKING:
    from netcontagion.clearing._system import Floats, System

__all__ = ["accelerated"]

WINDOW = 5
PATIENCE = 40
LAST_POWER = 8


class _Mixing(NamedTuple):
    """Where a mixing stands: the vector, what it should be near to, and the certificate once it was tried."""

    payments: Floats
    target: float
    best: float = np.inf
    since: int = 0
    enclosure: Enclosure | None = None


def accelerated(system: System, rtol: float, max_rounds: int, start: Floats | None = None) -> Solved:
    """Solve a system without negative income; STALLED where no certificate is found."""
    system = system.for_many_products()
    certain = np.where(system.due > 0, np.minimum(system.income, system.ceiling), 1.0)
    scale = certain if (certain > 0).all() else np.where(system.due > 0, system.due, 1.0)
    mixture = _Mixture(len(scale))

    def step(state: _Mixing) -> tuple[_Mixing, float, Status | None]:
        image = system.pay(state.payments)
        gap = image - state.payments
        error = float((np.abs(gap) / scale).max(initial=0.0))
        if error <= state.target:
            found = concave_enclosure(system, state.payments, image=image, enough=rtol, last=LAST_POWER)
            state = state._replace(enclosure=found)
            if found.kind == "concave" and found.narrow(rtol):
                return state, error, Status.SETTLED
            state = state._replace(target=error / 10)
        since = 0 if error < state.best else state.since + 1
        if since > PATIENCE:
            return state, error, Status.STALLED
        mixed = np.clip(mixture.next(image, gap), 0.0, system.ceiling)
        return _Mixing(mixed, state.target, min(error, state.best), since, state.enclosure), error, None

    first = _Mixing(system.ceiling.copy() if start is None else start, rtol / 4)
    ending = iterate(step, first, max_rounds=max_rounds)
    payments, enclosure, status = ending.state.payments, ending.state.enclosure, ending.status
    if enclosure is None or status is not Status.SETTLED:
        enclosure = concave_enclosure(system, payments)
        status = Status.SETTLED if enclosure.kind == "concave" and enclosure.narrow(rtol) else status
    payments = np.clip(payments, enclosure.lower, enclosure.upper)
    return Solved(payments, enclosure, ending.rounds, status, notes=enclosure.doubts(rtol))


class _Mixture:
    """The last differences of images and of residuals, with the products of the latter."""

    def __init__(self, size: int) -> None:
        self.images, self.gaps = np.empty((WINDOW, size)), np.empty((WINDOW, size))
        self.products = np.zeros((WINDOW, WINDOW))
        self.last: tuple[Floats, Floats] | None = None
        self.count = 0

    def next(self, image: Floats, gap: Floats) -> Floats:
        """Return the mixture of the last images whose residual is least."""
        if self.last is not None:
            slot = self.count % WINDOW
            np.subtract(image, self.last[0], out=self.images[slot])
            np.subtract(gap, self.last[1], out=self.gaps[slot])
            self.count += 1
            known = self.gaps[: min(self.count, WINDOW)]
            self.products[slot, : len(known)] = self.products[: len(known), slot] = known @ self.gaps[slot]
        self.last = image, gap
        used = min(self.count, WINDOW)
        if not used:
            return image
        products = self.products[:used, :used]
        weights = np.linalg.lstsq(products, self.gaps[:used] @ gap, rcond=1e-14)[0]
        mixed: Floats = image - weights @ self.images[:used]
        return mixed
