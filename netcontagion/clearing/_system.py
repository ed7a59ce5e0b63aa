"""The equation of a clearing: what all scenarios share, and the system of one of them.

In both ranks of the external debt the payments solve one system, ``p = clip(income + receipts(p), 0, ceiling)``,
where ``receipts(p)`` is what a node gets when each debtor pays p in proportion to its dues (:class:`System`):

* pari passu: income = external assets, a node's dues are internal + external;
* senior: income = external assets - external dues (maybe negative), the dues are the internal ones.
"""

from __future__ import annotations

import functools
from collections import deque
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from netcontagion._arrays import group_sum
from netcontagion.clearing._shares import SOLVENCY_TOLERANCE, share_paid
from netcontagion.clearing._tiles import Tiles

__all__ = ["EPS", "Bools", "Floats", "Prepared", "System"]

Floats: TypeAlias = NDArray[np.float64]
Bools: TypeAlias = NDArray[np.bool_]

EPS = float(np.finfo(float).eps)


def full_receipts(owed: Any) -> Floats:
    """Sum up what is owed to each node."""
    return group_sum(owed.indices, owed.data, owed.shape[0])


def count_claims(owed: Any) -> NDArray[np.int64]:
    """Count who owes each node, and whom each node owes, (2, n)."""
    return np.stack([np.bincount(owed.indices, minlength=owed.shape[0]), np.diff(owed.indptr)]).astype(np.int64)


def push_limits(due: Floats, full: Floats, degrees: NDArray[np.int64]) -> tuple[Any, ...]:
    """Compute what a push knows of a node beside its dues and income.

    What full receipts leave of it after the dues, less a margin (no end where nothing is due); the part by which
    rounding errs, of its income and of the weight that comes next; and how many owe it.
    """
    error, weight = (17.0 * (degrees.sum(axis=0) + 1.0) + 8.0) * EPS, full + due
    return np.where(due > 0, full - due - error * weight, np.inf), error, weight, degrees[0]


class Prepared:
    """What all scenarios share: the matrix, the dues and the size of rounding."""

    def __init__(self, owed: Any, external: Floats, external_rank: str, labels: Any = None) -> None:
        self.labels = labels
        self.spaces: deque[Any] = deque(maxlen=16)  # what pushes work on, kept for the next one
        self.owed, self.external, self.senior = owed, external, external_rank == "senior"
        self.incoming = owed.T
        self.internal: Floats = owed.sum(axis=1)
        self.dues = self.internal + external
        self.leaks = np.zeros(len(external), dtype=bool) if self.senior else external > 0
        self.degrees = count_claims(owed)
        self.rounding = float(self.degrees.max(axis=1, initial=0).sum() + 4) * EPS

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"spaces": deque(maxlen=16)}

    def system(self, assets: Floats) -> System:
        """Return the system of the scenario with these external assets."""
        assets = np.ascontiguousarray(assets)  # kernels are compiled for one layout
        income = assets - self.external if self.senior else assets
        due = self.internal if self.senior else self.dues
        before = self.external if self.senior else None
        incoming = self.__dict__.get("tiles", self.incoming)
        return System(self.owed, incoming, due, income, due, self.leaks, assets, before, self.rounding, self)

    @functools.cached_property
    def tiles(self) -> Tiles:
        """Claims in tiles: a copy, for those who need many products."""
        return Tiles(self.owed)

    @functools.cached_property
    def full(self) -> Floats:
        """What each node receives when everybody pays in full."""
        return full_receipts(self.owed)

    @functools.cached_property
    def limits(self) -> tuple[Any, ...]:
        """What a push knows of the nodes where external debt ranks with the others."""
        return push_limits(self.dues, self.full, self.degrees)

    @functools.cached_property
    def largest(self) -> float:
        """Bound of what a node receives and owes together."""
        with np.errstate(over="ignore"):  # then no scenario is quick to check
            return float(self.full.max(initial=0.0) + self.dues.max(initial=0.0))


@dataclass(frozen=True, eq=False)
class System:
    """Payments ``p = clip(income + receipts(p), 0, ceiling)``; p / due is the share paid.

    ``leaks`` marks nodes that owe outside in the same rank; ``senior`` is what they owe outside before, already taken
    off the ``assets`` in ``income``. ``rounding`` bounds the relative error of one product.
    """

    owed: Any
    incoming: Any
    due: Floats
    income: Floats
    ceiling: Floats
    leaks: Bools
    assets: Floats
    senior: Floats | None
    rounding: float
    shared: Prepared | None = None

    @functools.cached_property
    def limits(self) -> tuple[Any, ...]:
        """What a push knows of the nodes."""
        if self.shared is None:
            return push_limits(self.due, full_receipts(self.owed), count_claims(self.owed))
        if self.senior is None:
            return self.shared.limits
        return push_limits(self.due, self.shared.full, self.shared.degrees)

    def for_many_products(self) -> System:
        """Return the same system with claims stored in tiles."""
        return replace(self, incoming=Tiles(self.owed) if self.shared is None else self.shared.tiles)

    @property
    def concave(self) -> bool:
        """Whether no income is negative, which makes Phi concave as well as monotone."""
        return bool((self.income >= 0).all())

    def receipts(self, payments: Floats) -> Floats:
        """Sum what each node gets when every debtor pays in proportion to its dues."""
        received: Floats = self.incoming @ share_paid(payments, self.due)
        return received

    def available(self, payments: Floats) -> Floats:
        """Sum what each node can pay with when the others pay ``payments``; below 0 where senior debt takes more."""
        return self.income + self.receipts(payments)

    def pay(self, payments: Floats) -> Floats:
        """Phi: what is paid when the others pay ``payments``."""
        return np.clip(self.available(payments), 0.0, self.ceiling)

    def cannot_pay(self, payments: Floats) -> Bools:
        """Mark who cannot pay its dues when the others pay ``payments``."""
        return (self.due > 0) & (self.available(payments) < self.due * (1.0 - SOLVENCY_TOLERANCE))

    def distance(self, one: Floats, other: Floats) -> float:
        """Largest difference relative to what is due."""
        return float(share_paid(np.abs(one - other), self.due).max(initial=0.0))

    def in_all(self, payments: Floats, outwards: float = 0.0, received: Floats | None = None) -> Floats:
        """Pay everybody, senior creditors too, when the others pay ``payments``; maybe rounded outwards."""
        if self.senior is None:
            return payments
        received = self.receipts(payments) if received is None else received
        factor = 1 + outwards * self.rounding
        return np.minimum((self.assets + received) * factor, (self.due + self.senior) * factor)

    def relative(self, distance: Floats) -> float:
        """Largest of some distances relative to all dues."""
        dues = self.due if self.senior is None else self.due + self.senior
        return float(share_paid(distance, dues).max(initial=0.0))

    def width(self, lower: Floats, upper: Floats) -> float:
        """Largest distance of two bounds relative to all dues."""
        return self.relative(self.in_all(upper, 1.0) - self.in_all(lower, -1.0))

    def part(self, nodes: Bools) -> System:
        """Leave out the other nodes, and what they would pay."""
        if nodes.all():
            return self
        fields = {name: getattr(self, name)[nodes] for name in ("due", "income", "ceiling", "leaks", "assets")}
        senior = None if self.senior is None else self.senior[nodes]
        owed = self.owed[nodes][:, nodes]
        return replace(self, owed=owed, incoming=owed.T, senior=senior, shared=None, **fields)

    def nobody(self) -> Bools:
        """Return the empty set of nodes."""
        return np.zeros(len(self.due), dtype=bool)
