"""``nc.rank``: one table of nodes, with a score and a rank by every measure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion._arrays import leading_digits
from netcontagion.errors import ContagionError, NotSettledError, UnknownLabelError
from netcontagion.network import Shock, check_call
from netcontagion.ranking._measures import MEASURES
from netcontagion.ranking._study import KINDS, NotApplicable, Study

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd
    from numpy.typing import NDArray

    from netcontagion.network import ExposureNetwork
    from netcontagion.ranking._measures import Measure
    from netcontagion.ranking._study import Scores

__all__ = ["rank", "ranked"]


def rank(
    net: ExposureNetwork,
    by: str | Iterable[str] | None = None,
    *,
    shock: Shock | None = None,
    n_jobs: int | None = None,
) -> pd.DataFrame:
    """Rank traders, exchanges and assets by how much they matter, by one measure or many.

    Parameters
    ----------
    net : ExposureNetwork
        The network.
    by : str or iterable of str, optional
        Names of measures (:func:`netcontagion.ranking.measures` lists and explains them). By default those that say
        something in money, or about who depends on whom, and are quick on a million nodes of which few owe something:
        ``linear_debtrank`` runs one scenario for every node that does, minutes for ten thousand banks.
    shock : Shock, optional
        What hits the network first, for measures that count losses; by default nothing does. What nodes have, their
        share of it, and measures of the graph of exposures are those before the shock.
    n_jobs : int, optional
        Processes, for measures that run many scenarios; -1: as many as processors.

    Returns
    -------
    pandas.DataFrame
        By node: ``kind`` (trader, exchange, asset, or others), ``size_share`` (what the node has, as a share of all
        nodes of its kind), and two columns for every measure: its scores, ``NaN`` where it does not score a kind, and
        its ranks, ``<measure>_rank``. ``attrs["left_out"]`` says which default measures do not apply, and why,
        ``attrs["all_zero"]`` which are 0 for all nodes; the table prints both too.

    Raises
    ------
    UnknownLabelError
        A measure that does not exist, naming the nearest ones; or a name in the shock that the network does not know.
    ContagionError
        A measure that was asked for says nothing about this network; the message says why.
    NotSettledError
        A measure that was asked for ended without an answer.
    TypeError
        What is no network, no shock, or no name of a measure.

    Notes
    -----
    Rank 1 is the highest score, the most systemic node of its kind; kinds are ranked apart. Nodes that tie in the first
    twelve digits of their scores share the least of their ranks (1, 2, 2, 4). Rows are in the order of their average
    rank over the measures that score them, then of size, kind and label, so that the first ones are the most systemic
    nodes of every kind.

    ``others@<exchange>``, which stands for all depositors that a partial book does not show, is scored like a trader,
    ranked apart, as a kind of its own, and comes last: no single node stands behind it.

    A label that nodes of several kinds have becomes ``(kind, label)``; ``ranking.xs(("asset", "hub"))`` is its row.

    Examples
    --------
    >>> import netcontagion as nc
    >>> ranking = nc.rank(nc.datasets.load("market"), by=["pagerank", "overlap"])
    >>> ranking.columns.tolist()
    ['kind', 'size_share', 'pagerank', 'pagerank_rank', 'overlap', 'overlap_rank']
    >>> int(ranking.loc["WETH", "pagerank_rank"])
    1
    """
    return ranked(net, by, shock=shock, n_jobs=n_jobs)


def ranked(
    net: ExposureNetwork,
    by: str | Iterable[str] | None = None,
    *,
    shock: Shock | None = None,
    n_jobs: int | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Rank, with or without a bar for runs that take longer than a second."""
    import pandas as pd

    from netcontagion.ranking._table import Ranking, ranks_within

    check_call(net, shock, optional=True)
    study = Study(net, Shock() if shock is None else shock, n_jobs, progress, quick=by is None)
    chosen = _chosen(by)
    scores, left_out = _scored(study, chosen, asked=by is not None)
    kind = _kinds(study)
    columns: dict[str, Any] = {"kind": kind, "size_share": _stacked(study, study.shares)}
    for name, values in scores.items():
        columns[name] = values
        if chosen[name].ranked:
            columns[f"{name}_rank"] = ranks_within(kind, values).array
    table = pd.DataFrame(columns, index=_labels(study))
    table = Ranking(table.iloc[_order(table)])
    table.attrs["left_out"] = left_out
    table.attrs["all_zero"] = {
        name: chosen[name].zero for name, values in scores.items() if chosen[name].ranked and _all_zero(values)
    }
    return table


def _chosen(by: str | Iterable[str] | None) -> dict[str, Measure]:
    if by is None:
        return {name: measure for name, measure in MEASURES.items() if measure.default}
    try:
        names = [by] if isinstance(by, str) else list(dict.fromkeys(by))
    except TypeError:
        raise TypeError(f"by is the name of a measure, or several of them, not {by!r}") from None
    unknown = [UnknownLabelError(name, MEASURES, "measure") for name in names if name not in MEASURES]
    if unknown:
        raise UnknownLabelError.together(unknown)
    return {name: MEASURES[name] for name in names}


def _scored(
    study: Study, chosen: dict[str, Measure], *, asked: bool
) -> tuple[dict[str, NDArray[np.float64]], dict[str, str]]:
    """Score by every measure; say of those that nobody asked for why they have no answer, and refuse the others."""
    scores, left_out = {}, {}
    for name, measure in chosen.items():
        try:
            scores[name] = _stacked(study, _scores_of(study, measure))
        except (NotApplicable, NotSettledError) as why:
            if asked and isinstance(why, NotApplicable):
                raise ContagionError(f"measure {name!r} does not apply: {why}") from None
            if asked:
                raise
            left_out[name] = str(why)
    return scores, left_out


def _scores_of(study: Study, measure: Measure) -> Scores:
    if not any(study.size(kind) for kind in measure.kinds):
        raise NotApplicable(f"it scores {' and '.join(KINDS[kind] for kind in measure.kinds)}; the network has none")
    return measure.scores(study)


def _stacked(study: Study, scores: Scores) -> NDArray[np.float64]:
    """Line scores of some kinds up with all nodes; NaN where a measure does not score a kind."""
    return np.concatenate([scores.get(kind, np.full(study.size(kind), np.nan)) for kind in KINDS])


def _all_zero(values: NDArray[np.float64]) -> bool:
    scored = values[~np.isnan(values)]
    return len(scored) > 0 and not scored.any()


def _kinds(study: Study) -> NDArray[np.object_]:
    kind = np.repeat(np.array(list(KINDS), dtype=object), [study.size(kind) for kind in KINDS])
    last = study.size("trader")
    kind[last - study.net.derived("traders") : last] = "others"
    return kind


def _order(table: pd.DataFrame) -> NDArray[np.intp]:
    """Order rows by their average rank, then by size; those of others@ and without a rank come last."""
    average = table.filter(regex="_rank$").astype(float).mean(axis=1).fillna(np.inf)
    size = -leading_digits(table["size_share"].to_numpy())
    return np.lexsort((size, leading_digits(average.to_numpy()), table["kind"] == "others"))


def _labels(study: Study) -> pd.Index:
    """Label all nodes; what several kinds bear becomes ``(kind, label)``."""
    import pandas as pd

    labels = np.concatenate([np.asarray(study.net.labels(table), dtype=object) for table in KINDS.values()])
    kinds = np.repeat(list(KINDS), [study.size(kind) for kind in KINDS])
    for place in np.flatnonzero(pd.Index(labels, tupleize_cols=False).duplicated(keep=False)).tolist():
        labels[place] = (str(kinds[place]), labels[place])
    return pd.Index(labels, tupleize_cols=False, name="node")
