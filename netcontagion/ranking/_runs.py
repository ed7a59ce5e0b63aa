"""Runs of a study, and what nodes lose in them.

A network with accounts is played by ``nc.cascade``, where sales and margin calls are the point; one without is cleared
by ``nc.clear``. Losses are those of nodes: traders, ``others@`` included, and exchanges. Who stands outside is not
counted, by neither engine: creditors outside, liquidators, and the market, which buys at prices of its choice.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion.clearing import clear
from netcontagion.errors import ContagionError
from netcontagion.margining import cascade
from netcontagion.scenarios import as_scenarios, sweep

if TYPE_CHECKING:
    from collections.abc import Sequence

    from netcontagion.network import ExposureNetwork, Shock
    from netcontagion.ranking._study import Floats, Study

__all__ = ["contagion_by_node", "loss_by_node", "losses", "play", "plays"]

SEED = 0
"""Of all cascades of a study: runs that are compared draw the same numbers."""


def plays(net: ExposureNetwork) -> bool:
    """Whether a network is played by the cascade: it has accounts."""
    return bool(len(net.labels("accounts")))


def play(net: ExposureNetwork, shock: Shock) -> Any:
    """Run one scenario; it raises where there is no answer."""
    return cascade(net, shock, seed=SEED) if plays(net) else clear(net, shock)


def loss_by_node(net: ExposureNetwork, run: Any) -> Floats:
    """Return what every node lost in a run [num]."""
    return np.asarray(run.loss.to_numpy().sum(axis=1)[: len(net.nodes)])


def contagion_by_node(net: ExposureNetwork, run: Any) -> Floats:
    """Return what every node lost in a run beyond what the shock itself took [num]."""
    return np.asarray(run.loss["contagion"].to_numpy()[: len(net.nodes)])


@dataclass(frozen=True)
class Wealth:
    """Wealth at the end of a cascade of all nodes but those that default by its shock and not by the given one."""

    shock: Shock

    def __call__(self, run: Any) -> float:
        """Add up what they have [num]."""
        own = run.shock.defaulted(run.network) & ~self.shock.defaulted(run.network)
        return float(run.node_wealth(np.flatnonzero(own)))


def losses(study: Study, shocks: Sequence[Shock]) -> Floats:
    """Return what all nodes lose by each shock [num], up to a number that is the same for all.

    In a cascade without those that a shock makes default on top of the study's: then it is less their wealth at the
    end.
    """
    if not len(shocks):
        return np.zeros(0)
    by_cascade = plays(study.net)
    run: Any = functools.partial(cascade, seed=SEED) if by_cascade else clear
    outputs: Any = {"wealth": Wealth(study.shock)} if by_cascade else ("loss",)
    scenarios = as_scenarios(shocks)
    means: Any = {"n_jobs": study.n_jobs, "progress": study.progress}
    found = sweep(study.net, scenarios, run=run, outputs=outputs, nodes=False, tail=None, **means)
    if len(found.failures):
        failed = found.failures.iloc[0]
        why, count = failed["error"] or f"it ended {failed['status']}", f"{len(found.failures)} of {len(shocks)} runs"
        raise ContagionError(f"{count} have no answer, first that of {failed['shock']}: {why}")
    return -found.table["wealth"].to_numpy(dtype=float) if by_cascade else found.table["loss"].to_numpy(dtype=float)
