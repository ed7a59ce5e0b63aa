"""The fixed point, accelerated: Anderson mixing, certified afterwards.

The next vector is the mixture of the last images Phi(p) whose residuals Phi(p) - p add up to least, cut to [0, dues].
It is not monotone, so that only a certificate makes an answer of it (Walker, Ni 2011, doi:10.1137/10078356X).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from netcontagion._iterate import iterate
from netcontagion._status import Status
from netcontagion.clearing._enclosure import concave_enclosure
from netcontagion.clearing._kernels import combine, image_of
from netcontagion.clearing._shares import share_paid
from netcontagion.clearing._solvers import Solved
from netcontagion.clearing._system import run

if TYPE_CHECKING:
    from netcontagion.clearing._enclosure import Enclosure
    from netcontagion.clearing._system import Floats, System

__all__ = ["accelerated"]

WINDOW = 5
PATIENCE = 40
LAST_POWER = 8


class _Trial(NamedTuple):
    """What a mixing knows: the gap at which it tries the certificate, its progress, and the certificate it found."""

    target: float
    best: float = np.inf
    since: int = 0
    enclosure: Enclosure | None = None


def accelerated(system: System, rtol: float, max_rounds: int) -> Solved:
    """Solve a system without negative income; STALLED where no certificate is found."""
    system = system.for_many_products()
    certain = np.where(system.due > 0, np.minimum(system.income, system.ceiling), 1.0)
    scale = certain if (certain > 0).all() else np.where(system.due > 0, system.due, 1.0)
    mixture = _Mixture(system, scale)

    def step(trial: _Trial) -> tuple[_Trial, float, Status | None]:
        gap = mixture.apply()
        if gap <= trial.target:
            vector, image = mixture.vector, mixture.image
            found = concave_enclosure(system, vector, image=image, enough=rtol, last=LAST_POWER)
            trial = trial._replace(enclosure=found, target=gap / 10)
            if found.kind == "concave" and found.narrow(rtol):
                return trial, gap, Status.SETTLED
        since = 0 if gap < trial.best else trial.since + 1
        if since > PATIENCE:
            return trial, gap, Status.STALLED
        mixture.mix()
        return _Trial(trial.target, min(gap, trial.best), since, trial.enclosure), gap, None

    ending = iterate(step, _Trial(rtol / 4), max_rounds=max_rounds)
    enclosure, status, payments = ending.state.enclosure, ending.status, mixture.image
    if enclosure is None or status is not Status.SETTLED:
        payments = mixture.vector
        enclosure = concave_enclosure(system, payments)
        status = Status.SETTLED if enclosure.kind == "concave" and enclosure.narrow(rtol) else status
    payments = np.clip(payments, enclosure.lower, enclosure.upper)
    return Solved(payments, enclosure, ending.rounds, status, notes=enclosure.doubts(rtol))


class _Mixture:
    """A vector, its image, and the last changes of images and gaps, with the products of the latter."""

    def __init__(self, system: System, scale: Floats) -> None:
        size = len(scale)
        self.system, self.scale = system, scale
        self.vector = system.ceiling.copy()
        self.share = share_paid(self.vector, system.due)
        self.image, self.gap = np.empty(size), np.empty(size)
        self.images, self.gaps = np.empty((WINDOW, size)), np.empty((WINDOW, size))
        self.products, self.against = np.zeros((WINDOW, WINDOW)), np.zeros(WINDOW)
        self.unit = float(system.due.max(initial=0.0)) or 1.0
        self.count = -1  # changes known, -1 before the first image

    def apply(self) -> float:
        """Compute the image of the vector; return the largest gap."""
        system, claims = self.system, self.system.incoming
        slot = self.count % WINDOW if self.count >= 0 else -1
        used = min(self.count + 1, WINDOW)
        sums = np.zeros((len(claims.pieces), 2 * used + 1))

        def work(place: int, first: int, last: int) -> None:
            image_of(
                claims.matrix.indptr, claims.matrix.indices, claims.matrix.data, system.income, system.ceiling,
                self.scale, self.vector, self.share, self.image, self.gap, self.images, self.gaps, self.unit, slot,
                used, sums[place], first, last,
            )  # fmt: skip

        run(work, [(place, *piece) for place, piece in enumerate(claims.pieces)], claims.matrix.nnz)
        if slot >= 0:
            added = sums.sum(axis=0)
            self.products[slot, :used] = self.products[:used, slot] = added[:used]
            self.against = added[used : 2 * used]
        self.count += 1
        return float(sums[:, -1].max(initial=0.0))

    def mix(self) -> None:
        """Make the mixture of images with the least gap the next vector."""
        used = min(self.count, WINDOW)
        weights = np.linalg.lstsq(self.products[:used, :used], self.against[:used], rcond=1e-14)[0]

        def work(first: int, last: int) -> None:
            combine(
                self.image, self.images, weights, self.system.ceiling, self.system.due, self.vector, self.share, first,
                last,
            )  # fmt: skip

        claims = self.system.incoming
        run(work, claims.pieces, claims.matrix.nnz)
