"""``nc.rank``: one table of nodes, with a score and a rank by every measure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from netcontagion.errors import ContagionError, UnknownLabelError
from netcontagion.network import Shock, check_call
from netcontagion.ranking._measures import MEASURES
from netcontagion.ranking._study import KINDS, NotApplicable, Study

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd

    from netcontagion.network import ExposureNetwork
    from netcontagion.ranking._study import Scores

__all__ = ["rank"]


def rank(
    net: ExposureNetwork,
    by: str | Iterable[str] | None = None,
    *,
    shock: Shock | None = None,
    n_jobs: int | None = None,
) -> pd.DataFrame:
    """Rank traders, exchanges and assets by how much they matter."""
    import pandas as pd

    check_call(net, shock, optional=True)
    study = Study(net, Shock() if shock is None else shock, n_jobs)
    columns = {
        "kind": np.repeat(list(KINDS), [study.size(kind) for kind in KINDS]),
        "size_share": _stacked(study, study.shares),
    }
    left_out = {}
    for name in _chosen(by):
        try:
            columns[name] = _stacked(study, MEASURES[name].scores(study))
        except NotApplicable as why:
            if by is not None:
                raise ContagionError(f"measure {name!r} does not apply: {why}") from None
            left_out[name] = str(why)
    index = pd.Index(np.concatenate([np.asarray(net.labels(table), dtype=object) for table in KINDS.values()]))
    table = pd.DataFrame(columns, index=index.rename("node"))
    table.attrs["left_out"] = left_out
    return table


def _chosen(by: str | Iterable[str] | None) -> list[str]:
    if by is None:
        return [name for name, measure in MEASURES.items() if measure.default]
    chosen = [by] if isinstance(by, str) else list(by)
    unknown = [UnknownLabelError(name, MEASURES, "measure") for name in chosen if name not in MEASURES]
    if unknown:
        raise UnknownLabelError.together(unknown)
    return chosen


def _stacked(study: Study, scores: Scores) -> np.ndarray:
    """Line scores of some kinds up with all nodes; NaN where a measure does not score a kind."""
    return np.concatenate([scores.get(kind, np.full(study.size(kind), np.nan)) for kind in KINDS])
