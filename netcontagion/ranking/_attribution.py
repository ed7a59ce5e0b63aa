"""Who causes whose losses: the loss matrix, amplifiers, and where losses go back to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion.errors import ContagionError
from netcontagion.ranking._passing import passing_of, trace_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["amplifiers", "loss_matrix", "origins"]

MOST_CELLS = 20_000_000
"""Largest loss matrix that is laid out."""


def loss_matrix(result: Any) -> pd.DataFrame:
    r"""Return who causes whom which loss, by channel.

    Losses of a bearer by a channel are those of ``CascadeResult.losses``; the matrix splits them by source:

    - shock: the assets whose price it moved, and what it took from the bearer itself;
    - impact: who moved the price of a book, in proportion to what they sold there on balance (bought, where more was
      bought);
    - execution and penalty: who made a trader trade, by the event log; of those who trade with them, the traders;
    - deficit and mutualisation: the traders who left the deficits;
    - counterparty: the debtor, with claims x (1 - recovery).

    Gains are negative losses. A defaulter's gain from what it does not pay stands against itself.

    Parameters
    ----------
    result : CascadeResult or ClearingResult
        A clearing has the channel "counterparty" alone: what each creditor loses on each debtor. Losses in its fire
        sales are not traced.

    Returns
    -------
    DataFrame
        Columns channel, kind, source, bearer, ``loss`` [num]; ``kind`` is "bearer", or that of an origin: "price" (an
        asset that the shock moved) or "own" (taken from the source itself). Over sources, losses add up to the loss of
        the bearer by the channel.

    Raises
    ------
    TypeError
        For something that is no result.
    ContagionError
        For a result without numbers, of several scenarios, or with more than twenty million cells.

    Examples
    --------
    >>> import netcontagion as nc
    >>> run = nc.cascade(nc.datasets.load("market"), nc.Shock.price({"ETH": -0.3}, family=True))
    >>> table = nc.ranking.loss_matrix(run)
    >>> bool(abs(table["loss"].sum() - run.losses.to_numpy().sum()) < 1e-9 * abs(table["loss"]).sum())
    True
    """
    import pandas as pd

    found = trace_of(result)
    bearers, via = len(found.bearers), len(found.via)
    kind = np.array(["bearer"] * bearers + [name for name, _ in found.origins], dtype=object)
    label = _labels([*found.bearers, *(name for _, name in found.origins)])
    names = _labels(found.bearers)
    parts = []
    for channel, losses in found.channels.items():
        through = losses[bearers : bearers + via]
        _check_size(found.feeds, through)
        total = (_without_via(losses, bearers, via) + _without_via(found.feeds, bearers, via) @ through).tocoo()
        total.eliminate_zeros()
        order = np.lexsort((total.col, total.row))
        row, column = total.row[order], total.col[order]
        columns = {"channel": channel, "kind": kind[row], "source": label[row], "bearer": names[column]}
        parts.append(pd.DataFrame({**columns, "loss": total.data[order]}))
    table = pd.concat(parts, ignore_index=True)
    table["channel"] = pd.Categorical(table["channel"], categories=list(found.channels))
    return table


def _without_via(matrix: Any, bearers: int, via: int) -> Any:
    from scipy.sparse import vstack

    return vstack([matrix[:bearers], matrix[bearers + via :]]).tocsr()


def _check_size(feeds: Any, through: Any) -> None:
    cells = float(np.diff(feeds.tocsc().indptr) @ np.diff(through.tocsr().indptr))
    if cells > MOST_CELLS:
        raise ContagionError(
            f"the loss matrix would have {cells:,.0f} cells; amplifiers, origins and contagion_paths need none of them"
        )


def _labels(names: list[Any]) -> Any:
    found = np.empty(len(names), dtype=object)
    found[:] = names
    return found


def _index(names: list[Any], name: str) -> pd.Index:
    import pandas as pd

    return pd.Index(_labels(names), dtype=object, tupleize_cols=False, name=name)


def amplifiers(result: Any) -> pd.DataFrame:
    r"""Return what every bearer loses and what it passes on: amplifiers pass on more than they receive.

    With :math:`L_{ij} \ge 0` the loss that i causes j over all channels (gains left out) and :math:`o_j` what the shock
    causes j,

    .. math:: received_j = o_j + \sum_{i \ne j} L_{ij}, \quad passed_i = \sum_{j \ne i} L_{ij}, \quad
        amplification_i = passed_i / received_i.

    An absorber has less than 1. Over all bearers, ``received`` adds up to ``passed_on`` and ``from_shock`` together;
    ``own`` is what a bearer causes itself, in neither. In a clearing :math:`o_j` is the hole that a node has though all
    others pay; it is received by nobody else, so losses enter there.

    Parameters
    ----------
    result : CascadeResult or ClearingResult
        Of one scenario.

    Returns
    -------
    DataFrame
        By bearer: ``received``, ``from_shock`` (part of it), ``passed_on``, ``own`` [num], ``amplification`` (infinite
        where something is passed on and nothing received, NaN where neither).

    Examples
    --------
    >>> import netcontagion as nc
    >>> owed = [[0, 100, 0], [0, 0, 60], [0, 0, 0]]
    >>> found = nc.ranking.amplifiers(nc.clearing.eisenberg_noe(owed, [40, 15, 0]))
    >>> found["passed_on"].tolist()  # 0 lacks 60; 1 has 40 + 15 for the 60 it owes
    [60.0, 5.0, 0.0, 0.0]
    """
    import pandas as pd

    found = passing_of(result)
    passed, own, first = found.passed_on, found.own, found.from_origins
    received = found.lost - own
    least = 1e-12 * float(found.lost.sum())
    passed, received = (np.where(np.abs(part) <= least, 0.0, part) for part in (passed, received))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = passed / received
    columns = {"received": received, "from_shock": first, "passed_on": passed, "own": own, "amplification": ratio}
    return pd.DataFrame(columns, index=_index(found.trace.bearers, "bearer"))


def origins(result: Any) -> pd.DataFrame:
    r"""Return which share of every loss goes back to which origin.

    With :math:`T_{ji}` the share of the loss of j that i causes and :math:`O_{jk}` the share that origin k causes
    directly, both over all channels and without gains, rows of [T, O] add up to 1 and

    .. math:: S = O + T S = (I - T)^{-1} O .

    A bearer that lost nothing and yet caused losses, or that lost only in a circle that no origin feeds, is an origin
    itself.

    Parameters
    ----------
    result : CascadeResult or ClearingResult
        Of one scenario. In a clearing the origins are the holes of nodes that cannot pay though all others do.

    Returns
    -------
    DataFrame
        Bearers with a loss x origins (kind, label); rows add up to 1. ``kind`` is "price" (of an asset that the shock
        moved) or "own" (what was taken from this bearer, or what it lacked).

    Examples
    --------
    >>> import netcontagion as nc
    >>> owed = [[0, 100, 0], [0, 0, 60], [0, 0, 0]]
    >>> nc.ranking.origins(nc.clearing.eisenberg_noe(owed, [40, 15, 0])).loc[2].tolist()
    [1.0]
    """
    import pandas as pd
    from scipy.sparse import eye_array
    from scipy.sparse.linalg import splu

    found = passing_of(result)
    nodes, begun = found.shares()
    lost = np.flatnonzero(found.lost > 1e-12 * float(found.lost.sum()))
    used = np.flatnonzero(np.diff(begun.tocsc().indptr))
    table = np.zeros((len(lost), len(used)))
    if len(lost):
        solve = splu((eye_array(nodes.shape[0]) - nodes).tocsc())
        table = solve.solve(begun[:, used].toarray())[lost]
    index = _index([found.trace.bearers[place] for place in lost], "bearer")
    names = [found.trace.origins[place] for place in used]
    columns = pd.MultiIndex.from_arrays(
        [[kind for kind, _ in names], _labels([label for _, label in names])], names=["kind", "origin"]
    )
    shares = pd.DataFrame(table, index=index, columns=columns)
    return shares.loc[:, (shares > 0).any(axis=0)]
