"""How far measures agree with what happens: rank correlations with losses over a sweep, with intervals."""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from netcontagion.errors import ContagionError, UnknownLabelError
from netcontagion.margining import cascade
from netcontagion.ranking._attribution import amplifiers
from netcontagion.ranking._rank import ranked
from netcontagion.ranking._study import KINDS
from netcontagion.scenarios import sweep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import pandas as pd
    from numpy.typing import NDArray

    from netcontagion.network import ExposureNetwork, Shock
    from netcontagion.scenarios import SweepResult

    Floats = NDArray[np.float64]

__all__ = ["agreement"]

REALISED = ("lost", "caused")
ROUNDING = 1e-12
MOST_ORDERED = 8  # nodes of which all orders are counted: 40,320


def agreement(
    net: ExposureNetwork,
    shocks: Shock | Iterable[Shock],
    by: str | Iterable[str] | pd.DataFrame | None = None,
    *,
    realised: str = "lost",
    run: Callable[..., Any] = cascade,
    shock: Shock | None = None,
    confidence: float = 0.95,
    seed: int | np.random.Generator | None = None,
    n_jobs: int | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    r"""Correlate the ranks that measures give with those by realised loss, averaged over the scenarios of a sweep.

    Spearman's rho is the correlation of ranks, ties sharing the average of theirs; Kendall's tau (b) counts pairs that
    both order alike less those that they order differently. Intervals are those of Fisher's z = artanh r, with
    :math:`\mathrm{var}\, z = (1 + \rho^2 / 2) / (n - 3)` for rho (Bonett and Wright 2000) and :math:`0.437 / (n - 4)`
    for tau (Fieller, Hartley and Pearson 1957). They take nodes for independent draws, which nodes of one network are
    not quite, and hold best below 0.95 and with few ties. p-values are for no association: of rho over all orders of up
    to 8 nodes, then by Student's t, but at least 2 / n!; of tau exact for small n without ties, else by the normal.

    Parameters
    ----------
    net : ExposureNetwork
        The network.
    shocks : Scenarios, Shock or iterable of Shock
        Scenarios of the sweep. Those that end without an answer are left out.
    by : str, iterable of str or DataFrame, optional
        Measures, as in :func:`netcontagion.rank`, or what it has returned for this network, which spares scoring anew;
        those that score neither traders nor exchanges are left out.
    realised : {"lost", "caused"}, default "lost"
        What nodes lose themselves, or what they cause others (``passed_on`` of :func:`amplifiers`).
    run : callable, default nc.cascade
        What is run, as in :func:`netcontagion.sweep`.
    shock : Shock, optional
        What measures see, as in :func:`netcontagion.rank`; by default no shock. Not with a ranking, which has seen one.
    confidence : float, default 0.95
        Of the intervals.
    seed, n_jobs, progress
        As in :func:`netcontagion.sweep`.

    Returns
    -------
    DataFrame
        By kind and measure: ``nodes`` that have both, ``spearman`` and ``kendall``, each with ``_low``, ``_high`` and
        ``_p``. NaN where there are fewer than two nodes or all tie, and correlation says nothing; the interval is
        [-1, 1] below five nodes. ``others@`` are left out.

    Raises
    ------
    ContagionError
        No scenario ended with an answer; or as :func:`netcontagion.rank`.

    Examples
    --------
    >>> import netcontagion as nc
    >>> net = nc.datasets.load("market")
    >>> falls = [nc.Shock.price({"ETH": -x}, family=True) for x in (0.1, 0.2, 0.3)]
    >>> found = nc.ranking.agreement(net, falls, "pagerank", progress=False)
    >>> found.index.tolist()
    [('trader', 'pagerank'), ('exchange', 'pagerank')]
    """
    import pandas as pd

    if realised not in REALISED:
        raise UnknownLabelError(realised, REALISED, "value of realised")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence!r}; allowed: a share above 0 and below 1, for example 0.95")
    scores = _scores(net, by, shock, n_jobs=n_jobs, progress=progress)
    lost = _realised(net, shocks, realised, run, {"seed": seed, "n_jobs": n_jobs, "progress": progress})
    happened = np.array([lost.get(node, math.nan) for node in _nodes(net, scores)])
    names = [name for name in scores.columns if f"{name}_rank" in scores.columns]
    rows = {}
    for kind in ("trader", "exchange"):
        here = (scores["kind"] == kind).to_numpy()
        for name in names:
            values = scores[name].to_numpy(dtype=float)
            both = here & np.isfinite(values) & np.isfinite(happened)
            if both.any():
                rows[kind, name] = _correlated(values[both], happened[both], confidence)
    index = pd.MultiIndex.from_tuples(rows, names=["kind", "measure"])
    table = pd.DataFrame(rows.values(), index=index, columns=Agreement._fields)
    table.attrs["left_out"] = scores.attrs.get("left_out", {})
    return table


def _scores(net: ExposureNetwork, by: Any, shock: Shock | None, **means: Any) -> pd.DataFrame:
    """Rank by measures, or take the ranking that was given."""
    import pandas as pd

    if not isinstance(by, pd.DataFrame):
        return ranked(net, by, shock=shock, **means)
    if shock is not None:
        raise TypeError("by is a ranking and has seen its shock; give shock to nc.rank, not here")
    sizes = ranked(net, ())
    strangers = set(zip(by.get("kind", ()), by.index, strict=False)) - set(zip(sizes["kind"], sizes.index, strict=True))
    if strangers or "kind" not in by:
        named = f"; {min(strangers, key=str)[1]!r} is not in it" if strangers else ""
        raise ValueError(f"by is no ranking of this network{named}; give what nc.rank returns")
    return by


class Agreement(NamedTuple):
    """Correlations of two rankings."""

    nodes: int
    spearman: float
    spearman_low: float
    spearman_high: float
    spearman_p: float
    kendall: float
    kendall_low: float
    kendall_high: float
    kendall_p: float


def _correlated(one: Floats, other: Floats, confidence: float) -> Agreement:
    from scipy.stats import kendalltau, spearmanr

    size = len(one)
    if size < 2 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return Agreement(size, *(math.nan,) * 8)
    rho, tau = spearmanr(one, other), kendalltau(one, other)
    first, second = float(rho.statistic), float(tau.statistic)
    least = 2 * math.exp(-math.lgamma(size + 1))  # two of all orders
    p_value = _share_of_orders(one, other) if size <= MOST_ORDERED else max(float(rho.pvalue), least)
    low, high = _interval(first, math.sqrt((1 + first**2 / 2) / max(size - 3, 1)), size, confidence)
    below, above = _interval(second, math.sqrt(0.437 / max(size - 4, 1)), size, confidence)
    return Agreement(size, first, low, high, p_value, second, below, above, float(tau.pvalue))


def _share_of_orders(one: Floats, other: Floats) -> float:
    """Share of all orders of the nodes in which ranks correlate as much as they do, either way."""
    from scipy.stats import rankdata

    first, second = (rankdata(values) - (len(values) + 1) / 2 for values in (one, other))
    found = np.abs(second[_orders(len(one))] @ first)  # exact: multiples of 1 / 4
    return float((found >= found[0]).mean())


@functools.cache
def _orders(size: int) -> NDArray[np.intp]:
    """List all orders of some places, as they are first."""
    return np.array(list(itertools.permutations(range(size))))


def _interval(value: float, spread: float, size: int, confidence: float) -> tuple[float, float]:
    """Interval of a correlation by Fisher's z."""
    from scipy.stats import norm

    if size < 5:
        return -1.0, 1.0
    if abs(value) >= 1 - ROUNDING:
        return value, value
    middle, wide = math.atanh(value), float(norm.ppf((1 + confidence) / 2)) * spread
    return math.tanh(middle - wide), math.tanh(middle + wide)


# what happened ------------------------------------------------------------------------------------------------------


def _realised(
    net: ExposureNetwork, shocks: Any, realised: str, run: Callable[..., Any], means: dict[str, Any]
) -> dict[tuple[str, Any], float]:
    """Average what every trader and exchange lost, or caused, over the scenarios that ended with an answer."""
    labels = [(kind, label) for kind in ("trader", "exchange") for label in net.labels(KINDS[kind])]
    if realised == "lost":
        found = sweep(net, shocks, run=run, outputs=["loss"], tail=None, **means)
        _check_answered(found)
        values = found.nodes["expected_loss"].to_numpy()
    else:
        found = sweep(net, shocks, run=_Caused(run), nodes=False, tail=None, **means)
        _check_answered(found)
        values = found.table[[str(place) for place in range(len(labels))]].drop(found.failures.index).mean().to_numpy()
    return dict(zip(labels, values[: len(labels)].tolist(), strict=True))


def _check_answered(found: SweepResult) -> None:
    if len(found.failures) == len(found.table):
        raise ContagionError(
            f"none of {len(found.table)} scenarios ended with an answer; the first: {found.table['error'].iloc[0]}"
        )


@dataclass(frozen=True)
class _Caused:
    """A run that returns what every node passed on, by place."""

    run: Callable[..., Any]

    def __call__(self, net: ExposureNetwork, shock: Shock, seed: int | None = None) -> dict[str, float]:
        seeded = getattr(self.run, "func", self.run) is cascade
        given = {"seed": seed, **getattr(self.run, "keywords", {})} if seeded else {}
        passed = amplifiers(self.run(net, shock, **given))["passed_on"].to_numpy()
        return {str(place): float(value) for place, value in enumerate(passed[: len(net.nodes)])}


def _nodes(net: ExposureNetwork, scores: pd.DataFrame) -> list[tuple[str, Any]]:
    """Kind and label of every row of a ranking, in which labels that several kinds bear are (kind, label)."""
    known = {kind: set(net.labels(table)) for kind, table in KINDS.items()}
    found = []
    for kind, node in zip(scores["kind"], scores.index, strict=True):
        own = "trader" if kind == "others" else str(kind)
        found.append((own, node if node in known[own] else node[1]))
    return found
