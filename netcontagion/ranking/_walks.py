"""Scores that nodes get from the scores of their neighbours: eigenvector, Katz, PageRank, HITS, BiRank.

Rows point to columns: a node scores high where those that point to it do. All are repeated products with a sparse
matrix, and each knows how far it may be from the answer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from netcontagion._iterate import Ending, iterate
from netcontagion._status import Status
from netcontagion.errors import ContagionError, NotSettledError
from netcontagion.ranking._given import per_node, weights_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray
    from scipy.sparse import csr_array

    Floats = NDArray[np.float64]

__all__ = ["Centrality", "TwoSided", "birank", "eigenvector", "hits", "katz", "pagerank"]

KATZ_SHARE = 0.85
EIGENVALUE_RTOL = 1e-6  # within which two ways to find an eigenvalue agree
DIRECTIONS = 16  # in which an eigenvector is looked for at a time


@dataclass(frozen=True, eq=False)
class Centrality:
    """Scores of nodes, and how they were found.

    Attributes
    ----------
    scores : ndarray (n,)
        One per node.
    rounds : int
        Products taken.
    status : Status
        How it ended.
    residual : float
        How far the scores may be from the answer; what it measures is said by the function.
    """

    scores: Floats
    rounds: int
    status: Status
    residual: float


@dataclass(frozen=True, eq=False)
class TwoSided:
    """Scores of the rows and the columns of a matrix, and how they were found.

    Attributes
    ----------
    rows, columns : ndarray (n,), (m,)
        Scores.
    rounds : int
        Pairs of products taken.
    status : Status
        How it ended.
    residual : float
        How far the scores may be from the answer; what it measures is said by the function.
    """

    rows: Floats
    columns: Floats
    rounds: int
    status: Status
    residual: float


Result = TypeVar("Result", Centrality, TwoSided)


def pagerank(
    matrix: Any,
    *,
    damping: float = 0.85,
    personalization: ArrayLike | None = None,
    rtol: float = 1e-10,
    max_rounds: int = 1_000,
    strict: bool = True,
) -> Centrality:
    r"""Compute PageRank: where a walker ends up who follows links by weight, and sometimes starts anew.

    ``x = d (P^T x + v sum of x over nodes without links out) + (1 - d) v``, ``P_ij = W_ij / sum_k W_ik``.

    Parameters
    ----------
    matrix : array_like or sparse (n, n)
        Weights W of the links from row to column, not negative.
    damping : float
        Chance d that the walker goes on, in [0, 1).
    personalization : array_like (n,), optional
        Where it starts anew, v, in any unit; by default everywhere alike.
    rtol : float
        Largest error of all scores together.
    max_rounds : int
        Most products.
    strict : bool
        Whether to raise where it does not settle.

    Returns
    -------
    Centrality
        Scores that sum to 1; ``residual`` bounds the sum of their errors, d / (1 - d) times the last step.

    Raises
    ------
    SchemaError
        What is no matrix of weights, or no personalization.
    ValueError
        A damping outside [0, 1).
    NotSettledError
        Not settled in ``max_rounds``; ``.result`` has what was reached.

    References
    ----------
    Page, L., Brin, S., Motwani, R., Winograd, T. (1999). The PageRank citation ranking. Stanford InfoLab 1999-66.

    Examples
    --------
    >>> from netcontagion import ranking
    >>> ranking.pagerank([[0, 1, 0], [0, 0, 1], [1, 0, 0]]).scores.round(4).tolist()
    [0.3333, 0.3333, 0.3333]
    """
    weights = weights_of(matrix)
    if not 0 <= damping < 1:
        raise ValueError(f"damping={damping!r} is not in [0, 1): at 1 a walker never starts anew")
    size = weights.shape[0]
    start = np.ones(size) if personalization is None else per_node("personalization", personalization, size)
    start = start / start.sum()
    out = np.asarray(weights.sum(axis=1))
    share = np.divide(damping, out, out=np.zeros(size), where=out > 0)
    stuck = out == 0
    into = _transposed(weights)

    def step(x: Floats) -> tuple[Floats, float, Status | None]:
        anew = into @ (share * x)
        anew += start * (1.0 - damping + damping * float(x[stuck].sum()))
        anew /= anew.sum()
        bound = damping / (1 - damping) * float(np.abs(anew - x).sum())
        return anew, bound, Status.SETTLED if bound <= rtol else None

    return _one_sided("pagerank", iterate(step, start, max_rounds=max_rounds), strict)


def eigenvector(matrix: Any, *, rtol: float = 1e-10, max_rounds: int = 10_000, strict: bool = True) -> Centrality:
    r"""Compute eigenvector centrality: ``lambda x = W^T x`` for the largest eigenvalue.

    Looked for among combinations of 1, ``W^T 1``, ``(W^T)^2 1``, ..., started anew every 16 (Arnoldi). Powers alone
    swing for ever between the sides of a bipartite graph, and take long where eigenvalues are close to the largest.

    Parameters
    ----------
    matrix : array_like or sparse (n, n)
        Weights W of the links from row to column, not negative; symmetric for a graph without directions.
    rtol : float
        Largest norm of ``W^T x - lambda x``, over lambda.
    max_rounds : int
        Most products.
    strict : bool
        Whether to raise where it does not settle.

    Returns
    -------
    Centrality
        Scores of Euclidean norm 1; ``residual`` is the norm of ``W^T x - lambda x`` over lambda.

    Raises
    ------
    SchemaError
        What is no matrix of weights.
    NotSettledError
        Not settled in ``max_rounds`` (two largest eigenvalues are close); no eigenvalue above 0, where the graph has no
        cycle; or one that rounding makes up, out of long ways without return. ``.result`` has what was reached.

    Notes
    -----
    Of a graph in several parts only those with the largest eigenvalue score above 0, up to what ``rtol`` leaves of the
    others; where several parts have it, each has the share that equal scores of all nodes have in it, so that copies of
    a part score alike.

    References
    ----------
    Bonacich, P. (1972). Factoring and weighting approaches to status scores and clique identification. Journal of
    Mathematical Sociology 2(1), 113-120. https://doi.org/10.1080/0022250X.1972.9989806

    Examples
    --------
    >>> from netcontagion import ranking
    >>> ranking.eigenvector([[0, 1, 1], [1, 0, 0], [1, 0, 0]]).scores.round(4).tolist()
    [0.7071, 0.5, 0.5]
    """
    found = _centre(_transposed(weights_of(matrix)), rtol, max_rounds)
    return _one_sided("eigenvector", found, strict)


def katz(
    matrix: Any,
    *,
    alpha: float | None = None,
    beta: ArrayLike = 1.0,
    rtol: float = 1e-10,
    max_rounds: int = 10_000,
    strict: bool = True,
) -> Centrality:
    r"""Compute Katz centrality: all walks that end at a node, each step worth ``alpha`` times its weight.

    ``x = alpha W^T x + beta``, summed up as ``beta + alpha W^T beta + (alpha W^T)^2 beta + ...``, the end of the sum as
    the geometric one that its last summands look like.

    Parameters
    ----------
    matrix : array_like or sparse (n, n)
        Weights W of the links from row to column, not negative.
    alpha : float, optional
        Attenuation, below 1 over the largest eigenvalue of W; by default 0.85 over it, which makes scores free of the
        unit of money.
    beta : float or array_like (n,)
        What every node has of itself, above 0.
    rtol : float
        Largest relative error of a score.
    max_rounds : int
        Most products.
    strict : bool
        Whether to raise where it does not settle.

    Returns
    -------
    Centrality
        Scores; ``residual``, the largest of ``|beta + alpha W^T x - x|`` over beta, bounds their relative errors.

    Raises
    ------
    SchemaError
        What is no matrix of weights, or no amount per node.
    ContagionError
        No default for alpha: the graph has no cycle, so no eigenvalue above 0.
    ValueError
        An alpha that is not a number, or below 0.
    NotSettledError
        Not settled in ``max_rounds``, or alpha is so large that the sum has no end.

    References
    ----------
    Katz, L. (1953). A new status index derived from sociometric analysis. Psychometrika 18, 39-43.
    https://doi.org/10.1007/BF02289026

    Examples
    --------
    >>> from netcontagion import ranking
    >>> ranking.katz([[0, 1], [0, 0]], alpha=0.5).scores.tolist()
    [1.0, 1.5]
    """
    weights = weights_of(matrix)
    size, into = weights.shape[0], _transposed(weights)
    own = per_node("beta", np.full(size, beta) if np.ndim(beta) == 0 else beta, size)
    if not own.all():
        raise ValueError("beta is above 0 at every node: a relative error needs something to relate to")
    if alpha is None:
        found = _centre(into, rtol, max_rounds)
        if not found.status.settled:
            raise ContagionError(f"no default for alpha: no largest eigenvalue found ({found.status}); give alpha")
        alpha = KATZ_SHARE / found.state[1]
    if not 0 <= alpha < np.inf:
        raise ValueError(f"alpha={alpha!r} must be a number, at least 0")

    def step(state: tuple[Floats, Floats, Floats]) -> tuple[tuple[Floats, Floats, Floats], float, Status | None]:
        _, total, last = state
        with np.errstate(over="ignore", invalid="ignore"):  # a sum without end is seen by its residual
            new = alpha * (into @ last)
            ratio = float(new.sum() / (last.sum() or 1.0))
            left, scores = float((new / own).max()), total
            if ratio < 1:
                ahead = float(np.abs((new - ratio * last) / own).max()) / (1 - ratio)
                if ahead < left:
                    left, scores = ahead, total + ratio / (1 - ratio) * last
            return (scores, total + new, new), left, Status.SETTLED if left <= rtol else None

    found_sum = iterate(step, (own, own, own), max_rounds=max_rounds)
    return _one_sided(f"katz with alpha={alpha:.6g} (1 over the largest eigenvalue is too much)", found_sum, strict)


def hits(matrix: Any, *, rtol: float = 1e-10, max_rounds: int = 10_000, strict: bool = True) -> TwoSided:
    r"""Compute hubs and authorities: rows that point to good columns, columns that good rows point to.

    ``a = W^T h``, ``h = W a``: the first singular vectors of W, of the rows (hubs) and the columns (authorities).

    Parameters
    ----------
    matrix : array_like or sparse (n, m)
        Weights W of the links from row to column, not negative; rows and columns may be the same nodes or not.
    rtol : float
        Largest norm of ``W^T W a - sigma^2 a``, over sigma^2.
    max_rounds : int
        Most pairs of products.
    strict : bool
        Whether to raise where it does not settle.

    Returns
    -------
    TwoSided
        Hubs by row and authorities by column, each summing to 1; ``residual`` as above.

    Raises
    ------
    SchemaError
        What is no matrix of weights.
    NotSettledError
        Not settled in ``max_rounds`` (two largest singular values are close), or no link at all.

    Notes
    -----
    Of a graph in several parts only those with the largest singular value score above 0; see :func:`eigenvector`.

    References
    ----------
    Kleinberg, J. M. (1999). Authoritative sources in a hyperlinked environment. Journal of the ACM 46(5), 604-632.
    https://doi.org/10.1145/324133.324140

    Examples
    --------
    >>> from netcontagion import ranking
    >>> ranking.hits([[3, 1], [1, 0]]).columns.round(4).tolist()
    [0.7676, 0.2324]
    """
    weights = weights_of(matrix, square=False)
    into = _transposed(weights)
    found = _principal(lambda a: into @ (weights @ a), weights.shape[1], rtol, max_rounds)
    authorities = found.state[0]
    hubs = weights @ authorities
    sides = tuple(side / (side.sum() or 1.0) for side in (hubs, authorities))
    return _two_sided("hits", sides, found, strict)


def birank(
    matrix: Any,
    *,
    damping: tuple[float, float] = (0.85, 0.85),
    queries: tuple[ArrayLike, ArrayLike] | None = None,
    rtol: float = 1e-10,
    max_rounds: int = 10_000,
    strict: bool = True,
) -> TwoSided:
    r"""Compute BiRank: scores of both sides of a bipartite graph, each smoothed over its links to the other.

    ``u = b S p + (1 - b) u_0``, ``p = a S^T u + (1 - a) p_0``, ``S_ij = W_ij / sqrt(sum_k W_ik sum_l W_lj)``.

    Parameters
    ----------
    matrix : array_like or sparse (n, m)
        Weights W between rows (u) and columns (p), not negative.
    damping : (float, float)
        Weights b of the columns in the scores of the rows, and a of the rows in those of the columns, in [0, 1).
    queries : (array_like (n,), array_like (m,)), optional
        What each node has of itself, u_0 and p_0, in any unit; by default all alike. Scaled to sum to 1.
    rtol : float
        Largest error of the scores of the rows, and of the columns, over their norm.
    max_rounds : int
        Most pairs of products.
    strict : bool
        Whether to raise where it does not settle.

    Returns
    -------
    TwoSided
        Scores; ``residual`` bounds the errors as above.

    Raises
    ------
    SchemaError
        What is no matrix of weights, or no queries.
    ValueError
        Damping that is not allowed.
    NotSettledError
        Not settled in ``max_rounds``.

    References
    ----------
    He, X., Gao, M., Kan, M.-Y., Wang, D. (2017). BiRank: towards ranking on bipartite graphs. IEEE Transactions on
    Knowledge and Data Engineering 29(1), 57-71. https://doi.org/10.1109/TKDE.2016.2611584

    Examples
    --------
    >>> from netcontagion import ranking
    >>> found = ranking.birank([[1, 1], [0, 1]])
    >>> found.rows.round(4).tolist(), found.columns.round(4).tolist()
    ([0.5618, 0.4126], [0.4126, 0.5618])
    """
    weights = weights_of(matrix, square=False)
    of_columns, of_rows = damping
    if not (0 <= of_columns < 1 and 0 <= of_rows < 1):
        raise ValueError(f"damping={damping!r} is not two numbers in [0, 1)")
    given = (np.ones(weights.shape[0]), np.ones(weights.shape[1])) if queries is None else queries
    named = zip(("queries[0]", "queries[1]"), given, weights.shape, strict=True)
    row_query, column_query = (one / one.sum() for one in (per_node(*each) for each in named))
    row_root, column_root = (_inverse_root(np.asarray(weights.sum(axis=axis))) for axis in (1, 0))
    into = _transposed(weights)
    gain = of_columns * of_rows

    def columns(rows: Floats) -> Floats:
        return np.asarray(of_rows * column_root * (into @ (row_root * rows)) + (1 - of_rows) * column_query)

    def step(sides: tuple[Floats, Floats]) -> tuple[tuple[Floats, Floats], float, Status | None]:
        rows = of_columns * row_root * (weights @ (column_root * sides[1])) + (1 - of_columns) * row_query
        anew = rows, columns(rows)
        bound = gain / (1 - gain) * _norm(rows - sides[0]) / min(_norm(anew[0]), _norm(anew[1]))
        return anew, bound, Status.SETTLED if bound <= rtol else None

    found = iterate(step, (row_query, columns(row_query)), max_rounds=max_rounds)
    return _two_sided("birank", found.state, found, strict)


def _centre(into: csr_array, rtol: float, max_rounds: int) -> Ending[tuple[Floats, float]]:
    """Find the eigenvector of the largest eigenvalue; NO_SOLUTION where that is 0, in a graph without cycles.

    Long ways in one direction can look like an eigenvector, up to rounding. The eigenvalue is that of links within
    strongly connected parts alone: where it is not, the search is STALLED.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    size = into.shape[0]
    part = connected_components(into, connection="strong")[1]
    row = np.repeat(np.arange(size), np.diff(into.indptr))
    within = part[row] == part[into.indices]
    if not within.any():
        return Ending((np.zeros(size), 0.0), 0, Status.NO_SOLUTION, 0.0)
    found = _principal(lambda x: into @ x, size, rtol, max_rounds)
    if within.all() or not found.status.settled:
        return found
    parts = csr_array((into.data[within], (row[within], into.indices[within])), shape=into.shape)
    alone = _principal(lambda x: parts @ x, size, rtol, max_rounds)
    off = abs(found.state[1] / alone.state[1] - 1)
    if off <= EIGENVALUE_RTOL:
        return found
    return Ending(found.state, found.rounds, Status.STALLED, off)


def _principal(
    apply: Callable[[Floats], Floats], size: int, rtol: float, max_rounds: int
) -> Ending[tuple[Floats, float]]:
    """Find the eigenvector of the largest eigenvalue, from equal scores; NO_SOLUTION where nothing is linked.

    Arnoldi's method: each product adds a direction to a space, in which the eigenvector is looked for; a full space is
    started anew from the best vector in it.
    """
    basis, inside = np.zeros((DIRECTIONS + 1, size)), np.zeros((DIRECTIONS + 1, DIRECTIONS))
    basis[0] = size**-0.5

    def step(state: tuple[int, Floats, float]) -> tuple[tuple[int, Floats, float], float, Status | None]:
        last, weights, value = state
        if last == DIRECTIONS:
            basis[0] = _combined(weights, basis)
            last = 0
        new = apply(basis[last])
        if last == 0 and not new.any():
            return (0, np.ones(1), 0.0), 0.0, Status.NO_SOLUTION
        known = basis[: last + 1]
        inside[: last + 1, last] = 0.0
        for _ in range(2):  # once more, for what rounding left
            along = _einsum("ij,j->i", known, new)
            new -= _einsum("i,ij->j", along, known)
            inside[: last + 1, last] += along
        beyond = _norm(new)
        values, vectors = np.linalg.eig(inside[: last + 1, : last + 1])
        best = int(np.argmax(values.real))
        weights, value = vectors[:, best].real, float(values[best].real)
        residual = beyond * abs(vectors[-1, best]) / value if value > 0 else 1.0
        if residual <= rtol:
            return (last, weights, value), residual, Status.SETTLED
        inside[last + 1, last] = beyond
        if last + 1 < DIRECTIONS and beyond > 0:
            basis[last + 1] = new / beyond
            return (last + 1, weights, value), residual, None
        return (DIRECTIONS, weights, value), residual, None

    found = iterate(step, (0, np.ones(1), 0.0), max_rounds=max_rounds)
    _, weights, value = found.state
    vector = _combined(weights, basis)
    once_more = apply(vector)  # 0 again where nothing leads, and small scores as exact as those they come from
    length = _norm(once_more)
    vector = once_more / length if length > 0 else vector
    return Ending((vector, value), found.rounds, found.status, found.residual)


def _combined(weights: Floats, basis: Floats) -> Floats:
    """Combine directions to a vector of norm 1 without negative entries, which are rounding."""
    vector = _einsum("i,ij->j", weights, basis[: len(weights)])
    vector = np.maximum(vector if vector.sum() >= 0 else -vector, 0.0)
    return vector / _norm(vector)


def _norm(vector: Floats) -> float:
    return math.sqrt(_einsum("i,i->", vector, vector))


def _einsum(sums: str, *arrays: Floats) -> Floats:
    """Add up products here: threads of a linear algebra library wait for each other where processors are busy."""
    return np.asarray(np.einsum(sums, *arrays))


def _transposed(weights: csr_array) -> csr_array:
    """Transpose by rows: a product reads at random places, but writes in order."""
    from scipy.sparse import csr_array

    return csr_array(weights.T)


def _inverse_root(sums: Floats) -> Floats:
    return np.asarray(np.sqrt(np.divide(1.0, sums, out=np.zeros(len(sums)), where=sums > 0)))


def _one_sided(name: str, found: Ending[Any], strict: bool) -> Centrality:
    scores = found.state[0] if isinstance(found.state, tuple) else found.state
    return _settled(name, Centrality(scores, found.rounds, found.status, found.residual), strict)


def _two_sided(name: str, sides: tuple[Floats, ...], found: Ending[Any], strict: bool) -> TwoSided:
    return _settled(name, TwoSided(sides[0], sides[1], found.rounds, found.status, found.residual), strict)


def _settled(name: str, result: Result, strict: bool) -> Result:
    if strict and not result.status.settled:
        message = f"{name} ended after {result.rounds} rounds: {result.status.value}; residual {result.residual:.3g}"
        raise NotSettledError(message, result)
    return result
