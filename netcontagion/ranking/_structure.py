"""Scores that a node has from its own links, or from sums over what they lead to: no matrix of pairs is formed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from netcontagion._arrays import group_sum
from netcontagion.errors import Problem, SchemaError
from netcontagion.ranking._given import links_of, weights_of

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

__all__ = ["CorePeriphery", "Sides", "core_periphery", "overlap", "participation", "strength"]


class Sides(NamedTuple):
    """Scores of the rows and of the columns of a matrix."""

    rows: Floats
    columns: Floats


def strength(matrix: Any) -> Sides:
    """Add up the weights of every node's links.

    Parameters
    ----------
    matrix : array_like or sparse (n, m)
        Weights of the links from row to column, not negative.

    Returns
    -------
    Sides
        Sums of the rows (what leads out of a node) and of the columns (what leads into it).

    Raises
    ------
    SchemaError
        What is no matrix of weights.

    References
    ----------
    Barrat, A., Barthelemy, M., Pastor-Satorras, R., Vespignani, A. (2004). The architecture of complex weighted
    networks. PNAS 101(11), 3747-3752. https://doi.org/10.1073/pnas.0400087101

    Examples
    --------
    >>> from netcontagion import ranking
    >>> ranking.strength([[1, 2], [0, 3]]).columns.tolist()
    [1.0, 5.0]
    """
    weights = weights_of(matrix, square=False)
    return Sides(np.asarray(weights.sum(axis=1)), np.asarray(weights.sum(axis=0)))


def overlap(holdings: Any, depth: ArrayLike) -> Sides:
    r"""Add up the liquidity-weighted overlap of each portfolio with all others, and through each asset.

    ``sum over j != i of O_ij``, ``O = X D^-1 X^T``: what the others lose, under linear impact, when i sells all it has;
    as much as i loses when all others do. Through asset k runs ``sum over i != j of X_ik X_jk / D_k``. Both sides
    have the same sum. O itself, where an asset held by c nodes makes c^2 entries, is not formed.

    Parameters
    ----------
    holdings : array_like or sparse (n, m)
        What row holds of column, X, in money; not negative.
    depth : float or array_like (m,)
        Depth of each asset, D, in money; ``inf`` for no impact.

    Returns
    -------
    Sides
        Overlap of every holder and through every asset, in money.

    Raises
    ------
    SchemaError
        What is no matrix of holdings, or a depth that is not above 0.

    See Also
    --------
    netcontagion.clearing.indirect_exposure : O itself.

    References
    ----------
    Cont, R., Schaanning, E. (2019). Monitoring indirect contagion. Journal of Banking and Finance 104, 85-102.
    https://doi.org/10.1016/j.jbankfin.2019.04.007

    Examples
    --------
    >>> from netcontagion import ranking
    >>> ranking.overlap([[4, 0], [2, 3]], [8, 1])
    Sides(rows=array([1., 1.]), columns=array([2., 0.]))
    """
    held = weights_of(holdings, square=False)
    size = held.shape[1]
    deep = np.asarray(depth, dtype=float)
    deep = np.full(size, deep) if deep.ndim == 0 else deep
    if deep.shape != (size,):
        raise SchemaError([Problem("depth", None, None, f"shape {deep.shape}", f"({size},)", "give one per asset")])
    bad = np.flatnonzero(~(deep > 0)).tolist()
    if bad:
        allowed, cure = "above 0 (inf: no impact)", "give what may be sold before the price is gone"
        raise SchemaError(Problem("depth", None, at, float(deep[at]), allowed, cure) for at in bad)
    asset = held.indices
    beside = np.maximum(np.asarray(held.sum(axis=0))[asset] - held.data, 0.0)
    beside[np.bincount(asset, minlength=size)[asset] == 1] = 0.0
    lost = held.data * beside / deep[asset]
    row = np.repeat(np.arange(held.shape[0]), np.diff(held.indptr))
    return Sides(group_sum(row, lost, held.shape[0]), group_sum(asset, lost, size))


def participation(matrix: Any, groups: ArrayLike) -> Floats:
    r"""Compute how evenly the links of each row are spread over groups of columns.

    ``1 - sum over groups c of (k_ic / k_i)^2``: 0 where all lead into one group (or there are none), close to 1 where
    they are spread over many.

    Parameters
    ----------
    matrix : array_like or sparse (n, m)
        Weights of the links of row with column, not negative.
    groups : array_like (m,)
        Group of every column, whole numbers from 0 on, as :func:`community` gives them.

    Returns
    -------
    ndarray (n,)
        Between 0 and 1 - 1 / number of groups.

    Raises
    ------
    SchemaError
        What is no matrix of weights, or groups that are not numbered.

    References
    ----------
    Guimera, R., Amaral, L. A. N. (2005). Functional cartography of complex metabolic networks. Nature 433, 895-900.
    https://doi.org/10.1038/nature03288

    Examples
    --------
    >>> from netcontagion import ranking
    >>> ranking.participation([[1, 1, 2], [0, 0, 5]], [0, 0, 1]).tolist()
    [0.5, 0.0]
    """
    from scipy.sparse import csr_array

    weights = weights_of(matrix, square=False)
    size = weights.shape[1]
    codes = np.asarray(groups)
    if codes.shape != (size,) or codes.dtype.kind not in "iu" or codes.min() < 0:
        value, cure = f"{codes.dtype} of shape {codes.shape}", "number the groups 0, 1, 2, ..."
        raise SchemaError([Problem("groups", None, None, value, f"whole numbers from 0 on, ({size},)", cure)])
    members = csr_array((np.ones(size), codes, np.arange(size + 1)), shape=(size, int(codes.max()) + 1))
    by_group = csr_array(weights @ members)
    row = np.repeat(np.arange(weights.shape[0]), np.diff(by_group.indptr))
    total = np.asarray(weights.sum(axis=1))
    share = by_group.data / total[row]
    even = 1.0 - np.bincount(row, share**2, weights.shape[0])
    even[np.diff(by_group.indptr) <= 1] = 0.0
    return np.asarray(even)


@dataclass(frozen=True, eq=False)
class CorePeriphery:
    """The best split of a graph into a core and its periphery.

    Attributes
    ----------
    scores : ndarray (n,)
        Links of a node, less the other nodes of the core: how many errors more there would be with the node on the
        other side, with a minus in the periphery.
    membership : ndarray (n,)
        1 in the core, 0 in the periphery; between them for nodes with equally many links of which some belong to the
        core, no matter which: the share that does.
    size : int
        Nodes of the core.
    errors : int
        Links missing in the core and links within the periphery.
    """

    scores: Floats
    membership: Floats
    size: int
    errors: int


def core_periphery(matrix: Any) -> CorePeriphery:
    r"""Split a graph into a core, ideally with all links among its nodes, and a periphery, ideally with none.

    The discrete model of Borgatti and Everett; links between core and periphery count neither way. With a core S of m
    links, ``m + |S| (|S| - 1) / 2 - sum over S of the degrees`` are missing in it or within the periphery: the best
    core of each size has the nodes with the most links, so the best of all is found by sorting. Of equally good ones
    it is the smallest.

    Parameters
    ----------
    matrix : array_like or sparse (n, n)
        Weights of the links, not negative; only whether two nodes are linked, either way, counts.

    Returns
    -------
    CorePeriphery
        Scores, membership, size of the core and errors.

    Raises
    ------
    SchemaError
        What is no matrix of weights.

    References
    ----------
    Borgatti, S. P., Everett, M. G. (2000). Models of core/periphery structures. Social Networks 21(4), 375-395.
    https://doi.org/10.1016/S0378-8733(99)00019-2
    Lip, S. Z. W. (2011). A fast algorithm for the discrete core/periphery bipartitioning problem. arXiv:1102.5511.

    Examples
    --------
    >>> from netcontagion import ranking
    >>> star = ranking.core_periphery([[0, 1, 1], [1, 0, 0], [1, 0, 0]])
    >>> star.membership.tolist(), star.scores.tolist(), star.errors
    ([1.0, 0.0, 0.0], [2.0, 0.0, 0.0], 0)
    """
    degree = np.diff(links_of(weights_of(matrix)).indptr)
    falling = np.sort(degree)[::-1]
    size = int((falling > np.arange(len(falling))).sum())
    threshold = falling[size - 1] if size else 0
    above, level = degree > threshold, degree == threshold
    share = (size - int(above.sum())) / int(level.sum()) if size else 0.0
    membership = np.where(above, 1.0, np.where(level, share, 0.0))
    errors = size * (size - 1) // 2 + int(degree.sum()) // 2 - int(falling[:size].sum())
    return CorePeriphery(degree - size + membership, membership, size, errors)
