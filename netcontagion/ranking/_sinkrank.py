"""SinkRank: how soon money that moves at random along payments comes to a node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse.csgraph import connected_components

from netcontagion.clearing import checked_nodes
from netcontagion.ranking._dense import check_dense
from netcontagion.ranking._given import labelled
from netcontagion.ranking._study import NotApplicable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netcontagion.ranking._study import Floats, Scores, Study

__all__ = ["of_dues", "sinkrank"]


def sinkrank(flows: Any) -> Any:
    r"""Compute SinkRank: the inverse of the mean number of steps after which random payments end at a node.

    A unit of money at a node moves on along a payment, in proportion to its size. With S_k the transition matrix
    without row and column of node k, ``(n - 1) / sum((I - S_k)^-1)``: one over the mean number of steps in which money
    that starts at any other node first comes to k; at most 1, where every payment goes there.

    Parameters
    ----------
    flows : array_like or sparse (n, n)
        Payments from row i to column j; not negative, nothing on the diagonal.

    Returns
    -------
    ndarray (n,), or Series where the matrix has labels
        SinkRank of every node; 0 where money from some node may never come there.

    Raises
    ------
    SchemaError
        Listing everything that is wrong with the numbers.
    ValueError
        More nodes than a dense matrix allows.

    Notes
    -----
    Nodes that neither pay nor receive have 0 and are not among the n. All sinks are solved together: steps from i to k
    are ``(Z_kk - Z_ik) / pi_k``, with pi the stationary distribution and ``Z = (I - S + 1 pi)^-1`` (Kemeny and Snell,
    Finite Markov Chains, 1960, theorem 4.4.7).

    References
    ----------
    Soramaki, K., Cook, S. (2013). SinkRank: an algorithm for identifying systemically important banks in payment
    systems. Economics: The Open-Access, Open-Assessment E-Journal 7, 2013-28.
    https://doi.org/10.5018/economics-ejournal.ja.2013-28

    Examples
    --------
    >>> from netcontagion.ranking import sinkrank
    >>> sinkrank([[0, 1, 1, 1], [1, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0]]).round(6).tolist()
    [1.0, 0.176471, 0.176471, 0.176471]
    """
    paid, _, labels = checked_nodes(flows, {})
    return labelled(_scores(paid), labels)


def _scores(paid: Any) -> Floats:
    """Score the one closed part of the network that money from everywhere comes to; all other nodes have 0."""
    size = paid.shape[0]
    found = np.zeros(size)
    moved = _moved(paid)
    check_dense("sinkrank", len(moved))
    part = paid[moved][:, moved].tocsr()
    closed = _closed(part)
    if closed.any():
        shares = part.toarray()
        shares /= np.maximum(shares.sum(axis=1), np.finfo(float).tiny)[:, None]
        found[moved[closed]] = (len(moved) - 1) / _steps(shares, closed)
    return found


def _moved(paid: Any) -> NDArray[np.intp]:
    """List the nodes that pay or receive."""
    return np.flatnonzero((paid.sum(axis=0) > 0) | (paid.sum(axis=1) > 0))


def _closed(paid: Any) -> NDArray[np.bool_]:
    """Mark the nodes that money never leaves once it is there, if all of them are linked with each other."""
    count, part = connected_components(paid, connection="strong")
    payer = np.repeat(part, np.diff(paid.indptr))
    open_parts = payer[payer != part[paid.indices]]
    closed = np.setdiff1d(np.arange(count), open_parts)
    return np.asarray(part == closed[0]) if len(closed) == 1 else np.zeros(len(part), dtype=bool)


def _steps(shares: Floats, closed: NDArray[np.bool_]) -> Floats:
    """Sum, over all starts, the mean steps to every node of the closed part."""
    inner, outer = shares[closed][:, closed], shares[~closed][:, ~closed]
    visits = np.linalg.solve(np.eye(len(outer)) - outer.T, np.ones(len(outer)))  # before money comes to the closed part
    starts = 1.0 + shares[~closed][:, closed].T @ visits
    size = len(inner)
    balance = np.eye(size) - inner
    stationary = np.linalg.solve(np.vstack([balance.T[1:], np.ones(size)]), np.append(np.zeros(size - 1), 1.0))
    fundamental = np.linalg.inv(balance + stationary)
    steps = (starts.sum() * fundamental.diagonal() - starts @ fundamental) / stationary
    return np.asarray(visits.sum() + steps)


# as a measure of a study ------------------------------------------------------------------------------------------


def of_dues(study: Study) -> Scores:
    """Score by SinkRank of what nodes owe each other after the shock."""
    owed = study.case.owed
    check_dense("sinkrank", len(_moved(owed)), NotApplicable)
    found = _scores(owed)
    if not found.any():
        raise NotApplicable("there is no node that money from everywhere comes to along what nodes owe each other")
    return study.by_kind(found)
