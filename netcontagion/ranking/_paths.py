"""Scores from shortest paths, cores and communities of a graph: igraph and scipy do the walking."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion._arrays import leading_digits
from netcontagion.errors import ContagionError
from netcontagion.ranking._given import links_of, weights_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_array

    Floats = NDArray[np.float64]

__all__ = ["EXACT_WORK", "betweenness", "closeness", "community", "k_core"]

EXACT_WORK = 500_000_000  # nodes x links up to which all shortest paths take half a minute
ROWS_AT_ONCE = 2**24  # distances kept at a time
REFINEMENTS = 3


def betweenness(matrix: Any, *, pivots: int | None = None, seed: int = 0) -> Floats:
    r"""Compute the share of shortest paths between two other nodes that lead through each node.

    The length of a link is 1 over its weight: what is closely tied is near.

    Parameters
    ----------
    matrix : array_like or sparse (n, n)
        Weights of the links from row to column, not negative; symmetric for a graph without directions.
    pivots : int, optional
        Take paths that start at so many nodes drawn at random, and scale up; by default at all.
    seed : int
        Of the draw.

    Returns
    -------
    ndarray (n,)
        Over the number of ordered pairs of other nodes, (n - 1)(n - 2); unbiased where pivots are drawn.

    Raises
    ------
    SchemaError
        What is no matrix of weights.
    ContagionError
        All pairs of a graph that is too large for it: more than 5e8 nodes x links.
    ValueError
        Pivots that are not between 1 and n.

    References
    ----------
    Freeman, L. C. (1977). A set of measures of centrality based on betweenness. Sociometry 40(1), 35-41.
    Brandes, U., Pich, C. (2007). Centrality estimation in large networks. International Journal of Bifurcation and
    Chaos 17(7), 2303-2318. https://doi.org/10.1142/S0218127407018403

    Examples
    --------
    >>> from netcontagion import ranking
    >>> ranking.betweenness([[0, 1, 1], [1, 0, 0], [1, 0, 0]]).tolist()
    [1.0, 0.0, 0.0]
    """
    weights = weights_of(matrix)
    size = weights.shape[0]
    starts = _starts("betweenness", weights, pivots, seed)
    if size < 3:
        return np.zeros(size)
    graph = _graph(weights)
    paths = graph.betweenness(directed=True, weights=(1.0 / weights.data).tolist(), sources=starts.tolist())
    scale = size / len(starts) / ((size - 1) * (size - 2))
    return np.asarray(np.array(paths, dtype=float) * scale)


def closeness(matrix: Any, *, pivots: int | None = None, seed: int = 0) -> Floats:
    r"""Compute how near each node is to those that can reach it.

    ``(r - 1) / (n - 1)  x  (r - 1) / sum of distances``, r - 1 being the nodes that reach it. The length of a link is 1
    over its weight, so a score is in the unit of the weights.

    Parameters
    ----------
    matrix : array_like or sparse (n, n)
        Weights of the links from row to column, not negative; symmetric for a graph without directions.
    pivots : int, optional
        Take distances from so many nodes drawn at random; by default from all.
    seed : int
        Of the draw.

    Returns
    -------
    ndarray (n,)
        0 where nobody reaches a node.

    Raises
    ------
    SchemaError
        What is no matrix of weights.
    ContagionError
        All pairs of a graph that is too large for it: more than 5e8 nodes x links.
    ValueError
        Pivots that are not between 1 and n.

    References
    ----------
    Freeman, L. C. (1979). Centrality in social networks: conceptual clarification. Social Networks 1(3), 215-239.
    https://doi.org/10.1016/0378-8733(78)90021-7
    Wasserman, S., Faust, K. (1994). Social network analysis. Cambridge University Press (graphs in several parts).
    Eppstein, D., Wang, J. (2004). Fast approximation of centrality. Journal of Graph Algorithms and Applications 8(1),
    39-45. https://doi.org/10.7155/jgaa.00081

    Examples
    --------
    >>> from netcontagion import ranking
    >>> ranking.closeness([[0, 1, 1], [1, 0, 0], [1, 0, 0]]).round(4).tolist()
    [1.0, 0.6667, 0.6667]
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import dijkstra

    weights = weights_of(matrix)
    size = weights.shape[0]
    starts = _starts("closeness", weights, pivots, seed)
    lengths = csr_array((1.0 / weights.data, weights.indices, weights.indptr), shape=weights.shape)
    reached, total = np.zeros(size), np.zeros(size)
    for first in range(0, len(starts), max(ROWS_AT_ONCE // size, 1)):
        distance = dijkstra(lengths, indices=starts[first : first + max(ROWS_AT_ONCE // size, 1)])
        known = np.isfinite(distance)
        reached += known.sum(axis=0)
        total += np.where(known, distance, 0.0).sum(axis=0)
    others = np.full(size, float(len(starts)))
    reached[starts] -= 1
    others[starts] -= 1
    near = np.divide(reached, total, out=np.zeros(size), where=total > 0)
    return np.divide(reached, others, out=np.zeros(size), where=others > 0) * near


def k_core(matrix: Any) -> NDArray[np.int64]:
    """Compute the largest k for which a node belongs to a part where all have k links or more.

    Parameters
    ----------
    matrix : array_like or sparse (n, n)
        Weights of the links, not negative; only whether two nodes are linked, either way, counts.

    Returns
    -------
    ndarray (n,)
        Core number of every node, 0 where it has no link.

    Raises
    ------
    SchemaError
        What is no matrix of weights.

    References
    ----------
    Seidman, S. B. (1983). Network structure and minimum degree. Social Networks 5(3), 269-287.
    https://doi.org/10.1016/0378-8733(83)90028-X

    Examples
    --------
    >>> from netcontagion import ranking
    >>> ranking.k_core([[0, 1, 1, 1], [1, 0, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0]]).tolist()
    [2, 2, 2, 1]
    """
    return np.asarray(_graph(_half(links_of(weights_of(matrix))), directed=False).coreness(), dtype=np.int64)


def community(matrix: Any, *, resolution: float = 1.0, seed: int = 0) -> NDArray[np.int64]:
    r"""Find communities by the Leiden algorithm: groups with more weight inside than chance would put there.

    Modularity of the undirected graph with weights ``W + W^T``, at ``resolution`` times the expected weight.

    Parameters
    ----------
    matrix : array_like or sparse (n, n)
        Weights of the links, not negative.
    resolution : float
        Above 1 for more and smaller communities.
    seed : int
        Of the algorithm, which draws the order in which it looks at nodes.

    Returns
    -------
    ndarray (n,)
        Number of every node's community, from 0 on, the one with most weight first.

    Raises
    ------
    SchemaError
        What is no matrix of weights.
    ValueError
        A resolution that is not above 0.

    Notes
    -----
    Nodes are put in an order of their own weights and their neighbours' before the algorithm sees them: a seed gives
    the same communities in whatever order the rows stand, but for nodes that none of these weights tells apart.

    References
    ----------
    Traag, V. A., Waltman, L., van Eck, N. J. (2019). From Louvain to Leiden: guaranteeing well-connected communities.
    Scientific Reports 9, 5233. https://doi.org/10.1038/s41598-019-41695-z

    Examples
    --------
    >>> from netcontagion import ranking
    >>> ranking.community([[0, 9, 1, 0], [9, 0, 0, 0], [1, 0, 0, 5], [0, 0, 5, 0]]).tolist()
    [0, 0, 1, 1]
    """
    import igraph
    from scipy.sparse import csr_array

    if not 0 < resolution < np.inf:
        raise ValueError(f"resolution={resolution!r} must be above 0")
    weights = weights_of(matrix)
    either = csr_array(weights + weights.T)
    order = _order(either)
    half = _half(csr_array(either[order][:, order]))
    igraph.set_random_number_generator(random.Random(seed))
    try:
        found = _graph(half, directed=False).community_leiden(
            "modularity", weights=half.data.tolist(), resolution=resolution, n_iterations=-1
        )
    finally:
        igraph.set_random_number_generator(random)
    part = np.empty(len(order), dtype=np.int64)
    part[order] = found.membership
    weight = np.bincount(part, np.asarray(either.sum(axis=1)))
    first = np.full(len(weight), len(order))
    np.minimum.at(first, np.asarray(found.membership), np.arange(len(order)))
    rank = np.empty(len(weight), dtype=np.int64)
    rank[np.lexsort((first, -weight))] = np.arange(len(weight))
    return np.asarray(rank[part])


def _starts(name: str, weights: csr_array, pivots: int | None, seed: int) -> NDArray[np.int64]:
    """List the nodes that paths start at: all, or as many as are asked for."""
    size = weights.shape[0]
    if pivots is None:
        if size * weights.nnz > EXACT_WORK:
            raise ContagionError(
                f"{name} of {size:,} nodes and {weights.nnz:,} links would walk {size * weights.nnz:.1e} of them, more "
                f"than {EXACT_WORK:.0e}: give pivots=256, say, to start from nodes drawn at random"
            )
        return np.arange(size)
    if not 1 <= pivots <= size:
        raise ValueError(f"pivots={pivots!r} is not between 1 and the {size:,} nodes there are")
    return np.sort(np.random.default_rng(seed).choice(size, pivots, replace=False))


def _graph(weights: csr_array, *, directed: bool = True) -> Any:
    import igraph

    rows = np.repeat(np.arange(weights.shape[0]), np.diff(weights.indptr))
    edges = np.stack([rows, weights.indices], axis=1)
    return igraph.Graph(n=weights.shape[0], edges=edges, directed=directed)


def _half(symmetric: csr_array) -> csr_array:
    """Keep each link once, and none of a node with itself."""
    from scipy.sparse import csr_array, triu

    return csr_array(triu(symmetric, k=1))


def _order(symmetric: csr_array) -> NDArray[np.intp]:
    """Order nodes by the weight of their links, then of their neighbours', and so on: by nothing that has a place."""
    keys = [np.asarray(symmetric.sum(axis=1)), np.diff(symmetric.indptr).astype(float)]
    for _ in range(REFINEMENTS):
        keys.append(symmetric @ (keys[-1] / max(keys[-1].max(), 1e-300)))
    return np.lexsort([leading_digits(key) for key in reversed(keys)])
