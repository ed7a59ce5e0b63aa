"""Networks compared under the same scenarios and the same random numbers."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from netcontagion.errors import UnknownLabelError
from netcontagion.margining import cascade
from netcontagion.scenarios._run import as_run
from netcontagion.scenarios._statistics import Estimate, check_share, mean
from netcontagion.scenarios._sweep import Means, Plan, play

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import pandas as pd

    from netcontagion.network import ExposureNetwork, Shock
    from netcontagion.scenarios._sweep_result import SweepResult

__all__ = ["Comparison", "compare"]


def compare(
    nets: Mapping[Any, ExposureNetwork],
    shocks: Shock | Iterable[Shock],
    *,
    run: Callable[..., Any] = cascade,
    outputs: Iterable[str] | Mapping[str, Callable[[Any], float]] | None = None,
    n_jobs: int | None = None,
    progress: bool = True,
    seed: int | np.random.Generator | None = None,
    checkpoint: str | Path | None = None,
) -> Comparison:
    """Run the same scenarios on several networks, with the same random numbers, and compare pair by pair.

    What a scenario does to all networks alike cancels in the differences: their intervals are narrower than those of
    networks swept by themselves wherever outputs move together.

    Parameters
    ----------
    nets : mapping of name to ExposureNetwork
        Two networks or more; the first is what the others are compared with.
    shocks, run, outputs, n_jobs, progress, seed, checkpoint
        As in :func:`netcontagion.sweep`; a scenario has the same seed on every network.

    Returns
    -------
    Comparison
        ``table`` of all runs, ``differences()``.

    Raises
    ------
    ValueError
        Fewer than two networks; and as :func:`netcontagion.sweep`.

    Examples
    --------
    >>> import netcontagion as nc
    >>> net = nc.datasets.load("market")
    >>> deep = net.replace(assets=net.assets.assign(depth=2 * net.assets["depth"]).reset_index())
    >>> falls = nc.scenarios.as_scenarios([nc.Shock.price({"ETH": -x / 20}, family=True) for x in range(8)])
    >>> found = nc.compare({"as it is": net, "deep": deep}, falls, progress=False)
    >>> bool(found.differences("contagion").loc["deep", "value"] < 0)
    True
    """
    if not isinstance(nets, Mapping) or len(nets) < 2:
        message = "give two networks or more, by name: compare({'now': net, 'reform': other}, shocks)"
        raise ValueError(message)
    plan = Plan.of(nets, shocks, as_run(run, outputs, nodes=True), seed, common=True)
    return Comparison(play(plan, Means(n_jobs, progress, checkpoint), None))


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """Networks under the same scenarios.

    Attributes
    ----------
    sweep : SweepResult
        All runs.
    """

    sweep: SweepResult

    @property
    def table(self) -> pd.DataFrame:
        """All runs, by network and scenario."""
        return self.sweep.table

    @property
    def names(self) -> tuple[Any, ...]:
        """Names of the networks; the first is what the others are compared with."""
        return tuple(self.sweep.table.index.unique("network"))

    def differences(self, output: str = "loss", *, against: Any = None, confidence: float = 0.95) -> pd.DataFrame:
        """Return the mean difference of an output, network less the one compared with, scenario by scenario.

        Parameters
        ----------
        output : str, default "loss"
            Name of an output.
        against : label, optional
            Network that is compared with; default the first.
        confidence : float, default 0.95
            Of Student's interval of the mean of paired differences.

        Returns
        -------
        DataFrame
            By network: ``value``, ``lower``, ``upper``, and the number of ``scenarios`` in which both runs ended with
            an answer.
        """
        import pandas as pd

        confidence = check_share("confidence", confidence)
        if output not in self.sweep.outputs:
            raise UnknownLabelError(output, self.sweep.outputs, "output")
        base = self.names[0] if against is None else against
        if base not in self.names:
            raise UnknownLabelError(base, self.names, "network")
        answered = self.table.drop(self.sweep.failures.index)
        wide = answered[output].astype(float).unstack("network")
        wide, rows = wide.reindex(columns=list(self.names)), {}
        for name in self.names:
            if name != base:
                pairs = (wide[name] - wide[base]).dropna().to_numpy()
                told = mean(pairs, confidence) if len(pairs) else Estimate(float("nan"), float("nan"), float("nan"))
                rows[name] = (*told, len(pairs))
        index = pd.Index(rows, name="network")
        return pd.DataFrame(rows.values(), index=index, columns=[*Estimate._fields, "scenarios"])

    def summary(self) -> pd.DataFrame:
        """Return the differences of every output, with intervals of 95 %, by output and network."""
        import pandas as pd

        parts = [self.differences(output) for output in self.sweep.outputs]
        return pd.concat(parts, keys=self.sweep.outputs, names=["output"])

    def __repr__(self) -> str:
        lines = self.summary().to_string(float_format=lambda value: f"{value:,.6g}").splitlines()
        return "\n".join([self._headline(), *(f"  {line}" for line in lines)])

    def _repr_html_(self) -> str:
        return f"<div><p><b>{html.escape(self._headline())}</b></p>{self.summary().to_html()}</div>"

    def _headline(self) -> str:
        number = len(self.table) // len(self.names)
        return f"Comparison  {number:,} scenarios, differences from {self.names[0]} | seed {self.sweep.seed}"
