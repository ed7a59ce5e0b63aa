"""The fixed point, accelerated: Anderson mixing, certified afterwards.

The next vector is the mixture of the last images Phi(p) whose residuals Phi(p) - p add up to least, cut to [0, dues].
It is not monotone, so that only a certificate makes an answer of it (Walker, Ni 2011, doi:10.1137/10078356X).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from netcontagion._compile import kernel
from netcontagion._iterate import iterate
from netcontagion._status import Status
from netcontagion.clearing._enclosure import concave_enclosure
from netcontagion.clearing._shares import share_paid
from netcontagion.clearing._solvers import Solved
from netcontagion.clearing._tiles import add_tiles

if TYPE_CHECKING:
    from netcontagion.clearing._enclosure import Enclosure
    from netcontagion.clearing._system import Floats, System

__all__ = ["accelerated"]

WINDOW = 8
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

    ending = iterate(step, _Trial(0.45 * rtol), max_rounds=max_rounds)
    enclosure, status, payments = ending.state.enclosure, ending.status, mixture.image
    if enclosure is None or status is not Status.SETTLED:
        payments = mixture.vector
        enclosure = concave_enclosure(system, payments)
        status = Status.SETTLED if enclosure.kind == "concave" and enclosure.narrow(rtol) else status
    payments = np.clip(payments, enclosure.lower, enclosure.upper)
    return Solved(payments, enclosure, ending.rounds, status, notes=enclosure.doubts(rtol))


class _Mixture:
    """A vector, its image, and the last changes of images and gaps, with the products of the latter.

    The changes are kept in units of the largest dues and in single precision: they only say where to look next.
    """

    def __init__(self, system: System, scale: Floats) -> None:
        size = len(scale)
        self.system, self.per_scale = system, 1.0 / np.maximum(scale, 1e-300)
        self.vector = system.ceiling.copy()
        self.share = share_paid(self.vector, system.due)
        self.image, self.gap, self.fresh = np.empty(size), np.empty(size), np.empty(size)
        self.images, self.gaps = np.empty((2, size, WINDOW), dtype=np.float32)
        self.products, self.against = np.zeros((WINDOW, WINDOW)), np.zeros(WINDOW)
        self.unit = max(float(system.due.max(initial=0.0)), 1e-300)
        self.count = -1  # changes known, -1 before the first image

    def apply(self) -> float:
        """Compute the image of the vector; return the largest gap."""
        system, tiles = self.system, self.system.incoming
        slot = self.count % WINDOW if self.count >= 0 else -1
        used = min(self.count + 1, WINDOW)
        sums = np.zeros((len(tiles.blocks), 2 * used + 1))
        tiles.run(
            lambda block: image_of(
                block, system.income, system.ceiling, self.per_scale, self.vector, self.share, self.fresh, self.image,
                self.gap, self.images, self.gaps, self.unit, slot, used, sums[block], *tiles.arrays,
            )
        )  # fmt: skip
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
        tiles = self.system.incoming
        tiles.run(
            lambda block: combine(
                tiles.bits, block, self.image, self.images, weights, self.unit, self.system.ceiling, self.system.due,
                self.vector, self.share,
            )
        )  # fmt: skip


@kernel
def image_of(
    block: int, income: Any, ceiling: Any, per_scale: Any, vector: Any, share: Any, fresh: Any, image: Any, gap: Any,
    images: Any, gaps: Any, unit: float, slot: int, used: int, sums: Any, begins: Any, creditors: Any, debtors: Any,
    claims: Any, bits: int,
) -> None:  # fmt: skip
    """Compute Phi of a vector for a block of nodes, how it and its gap changed, and what a mixture needs to know.

    ``image`` and ``gap`` hold those of the last vector and are replaced; their changes go to column ``slot`` of
    ``images`` and ``gaps`` (none where it is negative), in ``unit``. ``sums`` adds up products of the changed gaps with
    column ``slot``, then with the gap, and ends with the largest gap times ``per_scale``.
    """
    first = block << bits
    last = min(first + (1 << bits), len(income))
    fresh[first:last] = income[first:last]
    add_tiles(block, share, fresh, begins, creditors, debtors, claims, bits)
    largest, per_unit = 0.0, 1.0 / unit
    sums[:] = 0.0
    for i in range(first, last):
        new = min(max(fresh[i], 0.0), ceiling[i])
        away = new - vector[i]
        largest = max(largest, abs(away) * per_scale[i])
        if slot >= 0:
            images[i, slot] = (new - image[i]) * per_unit
            gaps[i, slot] = (away - gap[i]) * per_unit
            changed, left = np.float64(gaps[i, slot]), away * per_unit
            for column in range(used):
                sums[column] += gaps[i, column] * changed
                sums[used + column] += gaps[i, column] * left
        image[i], gap[i] = new, away
    sums[2 * used] = largest


@kernel
def combine(
    bits: int, block: int, image: Any, images: Any, weights: Any, unit: float, ceiling: Any, due: Any, vector: Any,
    share: Any,
) -> None:  # fmt: skip
    """Mix images of a block of nodes into the next vector, cut to what is due, and divide it by the dues."""
    first = block << bits
    for i in range(first, min(first + (1 << bits), len(image))):
        change = 0.0
        for column in range(len(weights)):
            change += weights[column] * images[i, column]
        vector[i] = min(max(image[i] - change * unit, 0.0), ceiling[i])
        share[i] = vector[i] / due[i] if due[i] > 0.0 else 0.0
