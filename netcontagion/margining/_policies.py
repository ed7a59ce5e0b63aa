"""What traders do by themselves, read from their policies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion._arrays import freeze
from netcontagion.margining._kept import kept
from netcontagion.network import policy

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netcontagion.network import ExposureNetwork, Policy

__all__ = ["Draws", "by_policy", "traders_who"]

_TYPES: dict[str, Any] = dict.fromkeys(("answers", "buys", "orders", "runs", "top_up", "withdraw", "reduce"), bool)
_TYPES |= dict.fromkeys(("target_health", "withdrawal_health", "probability"), float) | {"lag": np.int64}


def by_policy(net: ExposureNetwork, traders: NDArray[Any], *attributes: str) -> list[NDArray[Any]]:
    """Attributes of the policies of some traders."""
    code, known = _coded(net)
    mine = code[traders]
    return [np.array([getattr(one, name) for one in known], dtype=_TYPES[name])[mine] for name in attributes]


def traders_who(net: ExposureNetwork, attribute: str) -> NDArray[np.int64]:
    """Traders whose policy has an attribute, such as ``orders``: acting without a call."""
    code, known = _coded(net)
    having = np.array([bool(getattr(one, attribute)) for one in known], dtype=bool)
    return np.flatnonzero(having[code]) if having.any() else np.zeros(0, dtype=np.int64)


def _coded(net: ExposureNetwork) -> tuple[NDArray[Any], list[Policy]]:
    """Policies of a network, and which of them each trader has."""
    return kept(net, "_policies", _read)


def _read(net: ExposureNetwork) -> tuple[NDArray[Any], list[Policy]]:
    import pandas as pd

    code, names = pd.factorize(net.columns("traders")["policy"])
    return freeze(code.astype(np.min_scalar_type(len(names)))), [policy(name) for name in names]


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
