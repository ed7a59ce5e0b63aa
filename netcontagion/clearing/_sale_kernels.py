"""The compiled round of a fire sale: payments in one pass over the nodes instead of a dozen over arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from netcontagion._compile import kernel

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from netcontagion.clearing._system import Floats

    Csr: TypeAlias = tuple[NDArray[np.integer], NDArray[np.integer], Floats]

__all__ = ["pay_and_sell"]


@kernel
def pay_and_sell(incoming: Csr, books: Floats, shares: Floats, paid: Floats, parts: Floats, how: Floats) -> None:
    """Let every node pay, and decide which part of what it holds it sells.

    Where ``paid`` is ``shares`` each node sees what those before it just did. ``books`` (6, n): cash, dues of the rank,
    dues paid before, all dues, what its holdings bring and what they are worth at end prices; ``how``: the factor of
    rounding, the tolerance of solvency, 1 for the rule "default", and the direction in which shares may move (1 down,
    -1 up, 0 both).
    """
    starts, debtors, owed = incoming
    up, tolerance, all_or_nothing, direction = how[0], how[1], how[2] > 0, how[3]
    for node in range(len(shares)):
        cash = 0.0
        for at in range(starts[node], starts[node + 1]):
            cash += owed[at] * shares[debtors[at]]
        cash = (cash + books[0, node]) * up
        missing = books[3, node] * (2 - up) - cash
        new, part = 1.0, 0.0
        if missing > 0:
            worth, allowed = books[4, node], books[3, node] * tolerance
            if all_or_nothing:
                part = 1.0 if missing - books[5, node] > allowed else 0.0
            elif missing > allowed:
                part = min(missing / worth * (2 - up), 1.0) if worth > 0 else 1.0
            if books[1, node] > 0 and not (all_or_nothing and part == 0):
                new = min(max(cash + worth - books[2, node] * (2 - up), 0.0) * up / books[1, node], 1.0)
        if direction > 0:
            new = min(new, shares[node])
        elif direction < 0:
            new = max(new, shares[node])
        paid[node], parts[node] = new, part
