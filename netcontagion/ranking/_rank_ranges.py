"""How sure ranks are: the range of each node's rank over scenarios, and over networks that could be the true one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion._arrays import as_share
from netcontagion.builders import reconstruct
from netcontagion.errors import ContagionError
from netcontagion.network import ExposureNetwork
from netcontagion.ranking._rank import ranked
from netcontagion.scenarios import as_scenarios

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from netcontagion.network import Shock

__all__ = ["rank_ranges", "reconstructions"]


def rank_ranges(
    nets: ExposureNetwork | Mapping[Any, ExposureNetwork] | Iterable[ExposureNetwork],
    by: str | Iterable[str] | None = None,
    *,
    shocks: Shock | Iterable[Shock] | None = None,
    quantiles: Sequence[float] = (0.05, 0.95),
    n_jobs: int | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Return the range of every node's rank over networks and scenarios.

    Ranks are those of :func:`netcontagion.rank`, from 1 for the most systemic of a kind, for each network under each
    shock; quantiles are the smallest ranks that a share of these rankings does not exceed.

    Parameters
    ----------
    nets : ExposureNetwork, or several
        Networks; nodes of the same kind and label are the same. :func:`reconstructions` makes an ensemble.
    by : str or iterable of str, optional
        Measures, as in :func:`netcontagion.rank`.
    shocks : Scenarios, Shock or iterable of Shock, optional
        What measures see; by default no shock.
    quantiles : sequence of float, default (0.05, 0.95)
        Shares strictly between 0 and 1.
    n_jobs, progress
        As in :func:`netcontagion.sweep`.

    Returns
    -------
    DataFrame
        By measure, kind and node: ``min``, the quantiles as ``q0.05``, and the ``median`` among them, ``max``, and the
        number of ``rankings`` in which the node has a rank. Sorted by measure, then kind, then median, then max.

    Examples
    --------
    >>> import netcontagion as nc
    >>> net = nc.datasets.load("market")
    >>> ranges = nc.ranking.rank_ranges(net, "pagerank", shocks=[nc.Shock(), nc.Shock.depth(0.5)])
    >>> bool((ranges["min"] <= ranges["max"]).all())
    True
    """
    import pandas as pd

    levels = [_share(level) for level in quantiles]
    networks = _networks(nets)
    scenarios: list[Shock | None] = [None] if shocks is None else list(as_scenarios(shocks).shocks)
    means: dict[str, Any] = {"n_jobs": n_jobs, "progress": progress}
    ranks = [_ranks(ranked(net, by, shock=shock, **means)) for net in networks for shock in scenarios]
    wide = pd.concat(ranks, axis=1, sort=False)
    values = wide.to_numpy()
    table = pd.DataFrame({"min": np.nanmin(values, axis=1)}, index=wide.index)
    for level in sorted({*levels, 0.5}):
        name = "median" if level == 0.5 else f"q{level:g}"
        table[name] = np.nanquantile(values, as_share(level), axis=1, method="inverted_cdf")
    table["max"] = np.nanmax(values, axis=1)
    table["rankings"] = np.isfinite(values).sum(axis=1)
    measures = table.index.get_level_values("measure")
    by_measure, by_kind = pd.factorize(measures)[0], pd.factorize(table.index.get_level_values("kind"), sort=True)[0]
    order = np.lexsort([table["max"].to_numpy(), table["median"].to_numpy(), by_kind, by_measure])
    return table.iloc[order]


def reconstructions(
    net: ExposureNetwork,
    n: int = 20,
    *,
    method: str = "gibbs",
    seed: int | np.random.Generator | None = None,
    **options: Any,
) -> list[ExposureNetwork]:
    """Return networks that owe in all what this one owes, by debtor and by creditor, but not to whom.

    Of a network of which only the totals of each node are known, they are what it could be: see
    :func:`netcontagion.builders.reconstruct`.

    Parameters
    ----------
    net : ExposureNetwork
        Network with liabilities, of one seniority.
    n : int, default 20
        How many; "max_entropy" and "min_density" give one.
    method : {"gibbs", "max_entropy", "min_density"}, default "gibbs"
        How liabilities are spread.
    seed : int or numpy Generator, optional
        Of the draws.
    **options
        Of the method: ``link_probability`` and ``rate`` of "gibbs".

    Returns
    -------
    list of ExposureNetwork
        Like ``net`` but for the liabilities, with the same totals for every node to 1e-9.

    Raises
    ------
    ContagionError
        The network has no liabilities, or of several seniorities, which totals cannot tell apart.

    Examples
    --------
    >>> import netcontagion as nc
    >>> net = nc.generators.core_periphery(8, seed=1)
    >>> nets = nc.ranking.reconstructions(net, 3, seed=1, link_probability=0.5)
    >>> ranges = nc.ranking.rank_ranges(nets, "linear_debtrank")
    >>> ranges["rankings"].max().item()
    3
    """
    table = net.columns("liabilities")
    if not len(table["amount"]):
        message = "the network has no liabilities to reconstruct; give one in which nodes owe each other"
        raise ContagionError(message)
    if len(np.unique(table["seniority"])) > 1:
        message = "liabilities have several seniorities, which the totals of nodes cannot tell apart; give them one"
        raise ContagionError(message)
    linked = np.unique(np.concatenate([table["debtor"], table["creditor"]]))
    place = np.searchsorted(linked, np.arange(len(net.nodes) + 1))
    owes, owed = (
        np.bincount(place[table[side]], table["amount"], len(linked)).astype(float) for side in ("debtor", "creditor")
    )
    draws: dict[str, Any] = {"n": n, "seed": seed} if method == "gibbs" else {}
    found = reconstruct(owed, owes, method=method, **draws, **options)
    matrices = found if isinstance(found, list) else [found]
    return [_with_liabilities(net, matrix, net.nodes[linked], int(table["seniority"][0])) for matrix in matrices]


def _with_liabilities(net: ExposureNetwork, matrix: Any, labels: Any, seniority: int) -> ExposureNetwork:
    from scipy.sparse import coo_array

    owed = coo_array(matrix)
    rows = {"debtor": labels[owed.row], "creditor": labels[owed.col], "amount": owed.data}
    return net.replace(liabilities=rows | {"seniority": np.full(len(owed.data), seniority)})


def _share(level: float) -> float:
    if isinstance(level, bool) or not isinstance(level, (int, float)) or not 0 < level < 1:
        raise ValueError(f"a quantile is {level!r}; allowed: a share above 0 and below 1, for example 0.95")
    return float(level)


def _networks(nets: Any) -> list[ExposureNetwork]:
    if isinstance(nets, ExposureNetwork):
        return [nets]
    if not isinstance(nets, Iterable) or isinstance(nets, str):
        raise TypeError(f"the networks come first: an ExposureNetwork or several, not {type(nets).__name__}")
    found = list(nets.values() if isinstance(nets, Mapping) else nets)
    wrong = [type(net).__name__ for net in found if not isinstance(net, ExposureNetwork)]
    if wrong or not found:
        raise TypeError(f"networks are ExposureNetworks: {', '.join(wrong) or 'there is none'}")
    return found


def _ranks(ranking: pd.DataFrame) -> pd.Series:
    """Lay the ranks of one table out by measure, kind and node."""
    import pandas as pd

    names = [name for name in ranking.columns if f"{name}_rank" in ranking.columns]
    nodes = ranking.index.to_numpy(dtype=object)
    keys = [np.repeat(names, len(nodes)), np.tile(ranking["kind"].to_numpy(dtype=object), len(names))]
    labels = pd.Index(np.tile(nodes, len(names)), dtype=object, tupleize_cols=False)
    ranks = [ranking[f"{name}_rank"].to_numpy(dtype=float, na_value=np.nan) for name in names]
    index = pd.MultiIndex.from_arrays([*keys, labels], names=["measure", "kind", "node"])
    return pd.Series(np.concatenate(ranks) if ranks else np.zeros(0), index=index).dropna()
