"""What traders do by themselves, read from their policies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion.network import policy

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netcontagion.network import ExposureNetwork

__all__ = ["Draws", "by_policy"]

_TYPES = dict.fromkeys(("answers", "buys", "orders", "top_up", "withdraw", "reduce"), bool)
_TYPES |= dict.fromkeys(("target_health", "withdrawal_health", "probability"), float) | {"lag": np.int64}


def by_policy(net: ExposureNetwork, traders: NDArray[Any], *attributes: str) -> list[NDArray[Any]]:
    """Attributes of the policies of some traders."""
    import pandas as pd

    code, names = pd.factorize(net.columns("traders")["policy"][traders])
    known = [policy(name) for name in names]
    return [np.array([getattr(one, name) for one in known], dtype=_TYPES[name])[code] for name in attributes]


class Draws:
    """One draw in [0, 1) for every account of a network, the same whatever the order in which they are asked for."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng, self.drawn = rng, np.zeros(0)

    def of(self, accounts: NDArray[np.int64]) -> NDArray[np.float64]:
        """Draws of some accounts."""
        missing = int(accounts.max(initial=-1)) + 1 - len(self.drawn)
        if missing > 0:
            self.drawn = np.append(self.drawn, self.rng.random(missing))
        return self.drawn[accounts]
