"""What a sweep returns: a row per network and scenario, sums by node, and estimates with their intervals."""

from __future__ import annotations

import functools
import html
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from netcontagion._arrays import as_share
from netcontagion.errors import UnknownLabelError
from netcontagion.margining import bearer_labels
from netcontagion.scenarios._reading import RAN
from netcontagion.scenarios._run import SETTLED, TOTAL
from netcontagion.scenarios._statistics import (
    Estimate,
    check_share,
    expected_shortfall,
    mean,
    quantile,
    share,
    shares,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd

    from netcontagion.network import ExposureNetwork
    from netcontagion.scenarios._nodes import Floats, Rows, Segment, Sums

__all__ = ["NetworkSums", "SweepResult", "answered"]

SHOWN = 26  # rows of the summary in the text


class NetworkSums(NamedTuple):
    """Nodes of a network, and their sums over all scenarios and over the tail (None: not added up)."""

    labels: list[Any]
    sums: Sums | None
    tail: Sums | None

    @classmethod
    def of(cls, net: ExposureNetwork, runs: Segment | None, tail: Segment | None) -> NetworkSums:
        """Name the nodes that sums are of: those of the network, and of a cascade also who stands outside."""
        sums = None if runs is None else runs.sums
        if sums is None:
            return cls([], None, None)
        labels = list(net.nodes) if len(sums.loss) == len(net.nodes) else list(bearer_labels(net))
        return cls(labels, sums, None if tail is None else tail.sums)


@dataclass(frozen=True, eq=False, repr=False)
class SweepResult:
    """Result of a sweep. Money is in the numeraire of the networks; every scenario counts alike.

    Attributes
    ----------
    table : DataFrame
        By network and scenario: the parameters, ``status`` (of the run; ``RAN`` where it has none, ``ERROR``),
        ``error`` (empty where there is none), and the outputs (NaN where a scenario failed).
    nodes : DataFrame
        By network and node: ``expected_loss``, ``default_probability`` and ``tail_loss``, over the scenarios that
        ended with an answer. The tail losses of all nodes add up to the expected shortfall of ``loss``. Empty where
        nothing was added up.
    tail : float or None
        Level of the tail losses.
    seed : int
        Entropy of all seeds: ``numpy.random.SeedSequence(seed, spawn_key=(network, scenario))``.
    """

    table: pd.DataFrame
    nodes: pd.DataFrame
    tail: float | None
    seed: int
    outputs: tuple[str, ...]
    _defaults: tuple[Any, ...] = field(default=())

    @classmethod
    def of(
        cls,
        names: Sequence[Any],
        parameters: pd.DataFrame,
        rows: Sequence[Rows],
        sums: Sequence[NetworkSums],
        *,
        tail: float | None,
        seed: int,
    ) -> SweepResult:
        """Put the rows and sums of all networks together."""
        import pandas as pd

        keys = pd.MultiIndex.from_product([list(names), range(len(parameters))], names=["network", "scenario"])
        together = functools.reduce(lambda one, other: one.then(other), rows)
        table = pd.concat([parameters] * len(names), ignore_index=True)
        outputs = tuple(name for name in together.columns if name != TOTAL)
        clash = [name for name in ("status", "error", *outputs) if name in table]
        table = table.rename(columns={name: f"{name} (parameter)" for name in clash})
        table["status"] = pd.Series(together.status.astype(str), dtype=str)
        table["error"] = pd.Series([together.errors.get(row, "") for row in range(len(table))], dtype=str)
        numbers = pd.DataFrame({name: together.columns[name] for name in outputs})
        table = pd.concat([table, numbers], axis=1).set_axis(keys, axis=0)
        counted = [int(answered(one.status).sum()) for one in rows]
        nodes = [_by_node(one, count) for one, count in zip(sums, counted, strict=True)]
        defaults = tuple(
            (one.sums.defaults, count) if one.sums is not None else (np.zeros(0), count)
            for one, count in zip(sums, counted, strict=True)
        )
        return cls(table, pd.concat(nodes, keys=list(names), names=["network", "node"]), tail, seed, outputs, defaults)

    @property
    def failures(self) -> pd.DataFrame:
        """Rows of scenarios that did not end with an answer; no estimate counts them."""
        failed: pd.DataFrame = self.table[~answered(self.table["status"])]
        return failed

    def quantile(self, level: float | Sequence[float], *, output: str = "loss") -> pd.DataFrame:
        """Return quantiles of an output: the smallest values that a share ``level`` of the scenarios does not exceed.

        Parameters
        ----------
        level : float or sequence of float
            Shares between 0 and 1.
        output : str, default "loss"
            Name of an output.

        Returns
        -------
        DataFrame
            Network x level.
        """
        import pandas as pd

        levels = [check_share("level", one) for one in np.atleast_1d(np.asarray(level, dtype=float)).tolist()]
        shares = [as_share(one) for one in levels]
        found = {
            name: np.quantile(values, shares, method="inverted_cdf") for name, values in self._values(output).items()
        }
        table = pd.DataFrame(found.values(), index=pd.Index(found, name="network"), columns=levels)
        return table.rename_axis(columns="level")

    def value_at_risk(self, level: float = 0.95, *, output: str = "loss", confidence: float = 0.95) -> pd.DataFrame:
        """Return the value at risk: the quantile of an output, between two order statistics.

        The number of scenarios below the true quantile is binomial, whatever the distribution: the interval runs
        between the order statistics at that law's quantiles. It is infinite where there are too few scenarios.

        Parameters
        ----------
        level : float, default 0.95
            Share of the scenarios below.
        output : str, default "loss"
            Name of an output.
        confidence : float, default 0.95
            With which the interval holds the true value, if scenarios are independent draws.

        Returns
        -------
        DataFrame
            By network: ``value``, ``lower``, ``upper``, and the number of ``scenarios`` that ended with an answer.
        """
        level, confidence = check_share("level", level), check_share("confidence", confidence)
        return self._estimates(output, lambda values: quantile(values, level, confidence))

    def expected_shortfall(
        self, level: float = 0.95, *, output: str = "loss", confidence: float = 0.95
    ) -> pd.DataFrame:
        """Return the expected shortfall: the mean of an output over the worst share ``1 - level`` of the scenarios.

        The interval is asymptotic: v + max(x - v, 0) / (1 - level), v the quantile, is averaged over the scenarios, and
        its spread taken with Student's factor for as many degrees of freedom as there are scenarios in the tail, less
        one. Where losses have no variance it does not hold.

        Parameters
        ----------
        level, output, confidence
            See :meth:`value_at_risk`.

        Returns
        -------
        DataFrame
            By network: ``value``, ``lower``, ``upper``, ``scenarios``.

        References
        ----------
        Brazauskas, Jones, Puri, Zitikis (2008), Estimating conditional tail expectation with actuarial applications in
        view, Journal of Statistical Planning and Inference 138(11).
        """
        level, confidence = check_share("level", level), check_share("confidence", confidence)
        return self._estimates(output, lambda values: expected_shortfall(values, level, confidence))

    def mean(self, *, output: str = "loss", confidence: float = 0.95) -> pd.DataFrame:
        """Return the mean of an output, with Student's interval, by network."""
        confidence = check_share("confidence", confidence)
        return self._estimates(output, lambda values: mean(values, confidence))

    def probability(self, at_least: float, *, output: str = "defaults", confidence: float = 0.95) -> pd.DataFrame:
        """Return the probability that an output is at least a number, with the interval of Wilson, by network.

        Parameters
        ----------
        at_least : float
            Number to be reached.
        output, confidence
            See :meth:`value_at_risk`.
        """
        confidence = check_share("confidence", confidence)
        return self._estimates(output, lambda values: share(int((values >= at_least).sum()), len(values), confidence))

    def default_probability(self, *, confidence: float = 0.95) -> pd.DataFrame:
        """Return the default probability of every node, with the interval of Wilson.

        Parameters
        ----------
        confidence : float, default 0.95
            With which the interval holds the true value, if scenarios are independent draws.

        Returns
        -------
        DataFrame
            By network and node: ``value``, ``lower``, ``upper``.

        References
        ----------
        Wilson (1927), Probable inference, the law of succession, and statistical inference, Journal of the American
        Statistical Association 22(158).
        """
        import pandas as pd

        confidence = check_share("confidence", confidence)
        parts = [shares(np.asarray(hits, dtype=float), max(count, 1), confidence) for hits, count in self._defaults]
        columns = [np.concatenate([part[place] for part in parts]) for place in range(3)]
        return pd.DataFrame(dict(zip(Estimate._fields, columns, strict=True)), index=self.nodes.index)

    def summary(self, level: float = 0.95) -> pd.DataFrame:
        """Return, by network and output, the scenarios that count, mean, value at risk and expected shortfall."""
        import pandas as pd

        level, rows = check_share("level", level), {}
        for output in self.outputs:
            for name, values in self._values(output).items():
                if len(values):
                    worst = (quantile(values, level, 0.95).value, expected_shortfall(values, level, 0.95).value)
                    rows[name, output] = (len(values), values.mean(), *worst)
        index = pd.MultiIndex.from_tuples(rows, names=["network", "output"])
        columns = ["scenarios", "mean", f"quantile {level:g}", f"mean beyond {level:g}"]
        return pd.DataFrame(rows.values(), index=index, columns=columns).sort_index(level=0, sort_remaining=False)

    def _values(self, output: str) -> dict[Any, Floats]:
        """Return an output by network, of the scenarios that ended with an answer."""
        if output not in self.outputs:
            raise UnknownLabelError(output, self.outputs, "output")
        numbers = self.table.loc[answered(self.table["status"]), output].astype(float)
        names = self.table.index.get_level_values("network")
        groups = dict.fromkeys(names)
        found = numbers.index.get_level_values("network")
        return {name: numbers.to_numpy()[found == name] for name in groups}

    def _estimates(self, output: str, estimate: Callable[[Floats], Estimate]) -> pd.DataFrame:
        import pandas as pd

        rows = {}
        for name, values in self._values(output).items():
            told = estimate(values) if len(values) else Estimate(np.nan, np.nan, np.nan)
            rows[name] = (*told, len(values))
        columns = [*Estimate._fields, "scenarios"]
        return pd.DataFrame(rows.values(), index=pd.Index(rows, name="network"), columns=columns)

    def __repr__(self) -> str:
        shown = self.summary().head(SHOWN)
        lines = shown.to_string(float_format=lambda value: f"{value:,.6g}").splitlines() if len(shown) else []
        return "\n".join([self._headline(), *(f"  {line}" for line in lines)])

    def _repr_html_(self) -> str:
        return f"<div><p><b>{html.escape(self._headline())}</b></p>{self.summary().head(SHOWN).to_html()}</div>"

    def _headline(self) -> str:
        networks = len(self.table.index.unique("network"))
        head = f"Sweep  {len(self.table):,} runs on {networks:,} network{'' if networks == 1 else 's'}"
        return f"{head} | {len(self.failures):,} without an answer | seed {self.seed}"


def answered(status: Any) -> Any:
    """Mark scenarios that ended with an answer."""
    return np.isin(np.asarray(status, dtype=str), [*SETTLED, RAN])


def _by_node(found: NetworkSums, count: int) -> pd.DataFrame:
    import pandas as pd

    columns = {"expected_loss": np.zeros(0), "default_probability": np.zeros(0), "tail_loss": np.zeros(0)}
    if found.sums is not None:
        columns["expected_loss"] = found.sums.loss / count
        columns["default_probability"] = found.sums.defaults / count
        columns["tail_loss"] = np.full(len(found.labels), np.nan) if found.tail is None else found.tail.loss
    if found.tail is None:
        del columns["tail_loss"]
    return pd.DataFrame(columns, index=pd.Index(found.labels, dtype=object, tupleize_cols=False))
