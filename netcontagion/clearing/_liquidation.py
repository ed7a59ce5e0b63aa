"""Default liquidation: a bank that fails sells all it holds, and brings down those who hold the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse

from netcontagion._iterate import iterate
from netcontagion._status import Status
from netcontagion.clearing._sale_input import AMOUNT, SHARE, Bounds, Reader, labelled
from netcontagion.clearing._shares import SOLVENCY_TOLERANCE

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from netcontagion.clearing._system import Bools, Floats

__all__ = ["LiquidationWaves", "branching_matrix", "default_liquidation", "largest_eigenvalue"]

CACCIOLI = 1.0536  # selling a tenth of an asset takes a tenth off its price
FLAG = Bounds("0 or 1", 0.0, 1.0)


@dataclass(frozen=True, eq=False)
class LiquidationWaves:
    """Who fails in which wave when those who fail sell everything.

    Attributes
    ----------
    failed : ndarray or Series of bool (n,)
        Who fails.
    wave : ndarray or Series of int (n,)
        Wave in which a bank fails: 0 by the shock or from the start, k by the sales of waves before k; -1 never.
    price : ndarray or Series (m,)
        What is left of each price, shock included, as a share.
    sold_part : ndarray or Series (m,)
        Part of all that the banks hold of each asset that is sold.
    net_worth : ndarray or Series (n,)
        Equity less the loss on what was held at first, at the last prices, in money; signed.
    waves : int
        Number of waves with failures.
    residual : float
        0: the set of those who fail reproduces itself.
    status : Status
        EXHAUSTED where everything held is sold, else SETTLED.
    enclosure : str
        "none": a set, found exactly; no amounts to bound.
    """

    failed: Any
    wave: Any
    price: Any
    sold_part: Any
    net_worth: Any
    waves: int
    residual: float
    status: Status
    enclosure: str = "none"


def default_liquidation(
    holdings: Any,
    equity: ArrayLike,
    *,
    shock: ArrayLike = 0.0,
    alpha: ArrayLike = CACCIOLI,
    defaulted: ArrayLike | None = None,
) -> LiquidationWaves:
    r"""Let failing banks sell everything, wave by wave, until nobody else fails (Huang et al.; Caccioli et al.).

    ``p_k = (1 - f_k) exp(-alpha_k x_k)``, ``x_k`` the part sold so far of all that banks hold of asset k; bank i fails
    when ``sum_k H_ik (1 - p_k)`` exceeds its equity.

    Parameters
    ----------
    holdings : array_like or sparse (n, m)
        What each bank holds, in money at the prices before the shock; not negative.
    equity : array_like (n,)
        Equity of each bank before the shock, in money; not negative.
    shock : float or array_like (m,)
        First fall of each price, as a share between 0 and 1.
    alpha : float or array_like (m,)
        Impact of selling everything: what is left is ``exp(-alpha)``. 1.0536: the first tenth takes off a tenth.
    defaulted : array_like of bool (n,), optional
        Banks that have failed for another reason.

    Returns
    -------
    LiquidationWaves
        The least set of failures that reproduces itself, its waves, prices and net worth. At most n waves.

    Raises
    ------
    SchemaError
        Listing everything that is wrong with the numbers.

    Notes
    -----
    A loss equal to the equity, up to 1e-12 of it, is borne. Failures are added to none, so the set is the least of
    those that reproduce themselves: it grows with the shock and with alpha.

    References
    ----------
    Caccioli, F., Shrestha, M., Moore, C., Farmer, J. D. (2014). Stability analysis of financial contagion due to
    overlapping portfolios. Journal of Banking and Finance 46, 233-245. https://doi.org/10.1016/j.jbankfin.2014.05.021
    Huang, X., Vodenska, I., Havlin, S., Stanley, H. E. (2013). Cascading failures in bi-partite graphs: model for
    systemic risk propagation. Scientific Reports 3, 1219. https://doi.org/10.1038/srep01219

    Examples
    --------
    >>> from netcontagion.clearing import default_liquidation
    >>> end = default_liquidation([[60, 40, 0], [30, 0, 70]], [10, 3], shock=[0, 0.3, 0])
    >>> end.wave.tolist(), end.price.round(4).tolist()
    ([0, 1], [0.3487, 0.2441, 0.3487])
    """
    reader = Reader()
    held = reader.holdings("holdings", holdings)
    own = reader.per_node("equity", equity, AMOUNT, scalar=False)
    falls = reader.per_asset("shock", shock, SHARE)
    impact = reader.per_asset("alpha", alpha, AMOUNT)
    first = None if defaulted is None else reader.per_node("defaulted", defaulted, FLAG, scalar=False)
    reader.done()
    nodes, supply = len(own), held.sum(axis=0)

    def prices(failed: Bools) -> tuple[Floats, Floats]:
        sold = np.divide(held.T @ failed.astype(float), supply, out=np.zeros(len(supply)), where=supply > 0)
        return (1 - falls) * np.exp(-impact * sold), sold

    def add_wave(wave: NDArray[np.int64]) -> tuple[NDArray[np.int64], float, Status | None]:
        price, _ = prices(wave >= 0)
        new = (wave < 0) & (held @ (1 - price) > own * (1 + SOLVENCY_TOLERANCE))
        if not new.any():
            return wave, 0.0, Status.SETTLED
        return np.where(new, wave.max(initial=-1) + 1, wave), float(new.sum()), None

    start = np.full(nodes, -1, dtype=np.int64)
    if first is not None:
        start[first > 0] = 0
    # those who fail by the shock are in wave 0, also where others have failed before it
    start[(start < 0) & (held @ falls > own * (1 + SOLVENCY_TOLERANCE))] = 0
    wave = iterate(add_wave, start, max_rounds=nodes + 1).state
    failed = wave >= 0
    price, sold = prices(failed)
    everything = bool(failed.any() and (sold[supply > 0] >= 1 - 1e-12).all())
    return LiquidationWaves(
        failed=labelled(failed, reader.nodes),
        wave=labelled(wave, reader.nodes),
        price=labelled(price, reader.assets),
        sold_part=labelled(sold, reader.assets),
        net_worth=labelled(own - held @ (1 - price), reader.nodes),
        waves=int(wave.max(initial=-1)) + 1,
        residual=0.0,
        status=Status.EXHAUSTED if everything else Status.SETTLED,
    )


def branching_matrix(
    holdings: Any, equity: ArrayLike, *, alpha: ArrayLike = CACCIOLI, groups: ArrayLike | None = None
) -> Any:
    r"""Compute how many banks of each group the failure of one bank brings down at once, on average by group.

    ``N_gh`` is the mean, over the banks i of group g, of the number of other banks j of group h with
    ``sum_k H_jk (1 - exp(-alpha_k H_ik / sum_l H_lk)) > equity_j``. Contagion dies out, in expectation and as long as
    failures do not add up at one bank, where the largest eigenvalue is below 1.

    Parameters
    ----------
    holdings : array_like or sparse (n, m)
        What each bank holds, in money; not negative.
    equity : array_like (n,)
        Equity of each bank, in money; not negative.
    alpha : float or array_like (m,)
        Impact of selling everything, as in :func:`default_liquidation`.
    groups : array_like of int (n,), optional
        Number of the group of each bank, from 0; each bank is its own where omitted.

    Returns
    -------
    csr_array (g, g)
        Rows are those who fail, columns those they bring down; 0 or 1 where each bank is its own group.

    Raises
    ------
    SchemaError
        Listing everything that is wrong with the numbers.

    Notes
    -----
    A mean over a large random market, as in the source: in one given network an eigenvalue below 1 is no proof. With
    each bank its own group it is 0 or at least 1, as there is no cycle of banks that bring each other down, or one.

    References
    ----------
    Caccioli, F., Shrestha, M., Moore, C., Farmer, J. D. (2014). Stability analysis of financial contagion due to
    overlapping portfolios. Journal of Banking and Finance 46, 233-245. https://doi.org/10.1016/j.jbankfin.2014.05.021

    Examples
    --------
    >>> from netcontagion.clearing import branching_matrix, largest_eigenvalue
    >>> matrix = branching_matrix([[60, 40, 0], [30, 0, 70]], [10, 3])
    >>> matrix.toarray().tolist(), largest_eigenvalue(matrix)
    ([[0.0, 1.0], [1.0, 0.0]], 1.0)
    """
    reader = Reader()
    held = reader.holdings("holdings", holdings)
    own = reader.per_node("equity", equity, AMOUNT, scalar=False)
    impact = reader.per_asset("alpha", alpha, AMOUNT)
    codes = None if groups is None else reader.per_node("groups", groups, AMOUNT, scalar=False)
    if codes is not None and not (codes == np.floor(codes)).all():
        reader.refuse("groups", None, "not whole numbers", "0, 1, 2, ...", "number the groups from 0")
    reader.done()
    supply = held.sum(axis=0)
    fall = held.copy()
    fall.data = -np.expm1(-impact[held.indices] * held.data / supply[held.indices])
    loss = scipy.sparse.coo_array(fall @ held.T)
    hit = (loss.row != loss.col) & (loss.data > own[loss.col] * (1 + SOLVENCY_TOLERANCE))
    members = np.arange(len(own)) if codes is None else codes.astype(np.int64)
    count = int(members.max(initial=-1)) + 1
    size = np.bincount(members, minlength=count)
    who, whom = members[loss.row[hit]], members[loss.col[hit]]
    matrix = scipy.sparse.coo_array((1 / size[who], (who, whom)), shape=(count, count)).tocsr()
    matrix.sum_duplicates()
    return matrix


def largest_eigenvalue(matrix: Any, *, rtol: float = 1e-12, max_rounds: int = 100_000) -> float:
    r"""Compute the largest eigenvalue of a matrix without negative entries.

    It is the largest over the strongly connected parts; in each, with ``x > 0`` and ``y = A x``, it lies between
    ``min y / x`` and ``max y / x`` (Collatz, Wielandt), which close in when ``A + c I`` is applied again and again.

    Parameters
    ----------
    matrix : array_like or sparse (n, n)
        Not negative, finite.
    rtol : float
        Distance of both bounds at which it is found, relative to the upper one.
    max_rounds : int
        Most products for each part.

    Returns
    -------
    float
        The largest eigenvalue (spectral radius); 0 where the matrix has no cycle. Where the rounds do not suffice, the
        upper bound.

    Raises
    ------
    SchemaError
        Where the matrix is not square, or an entry is negative or not finite.

    References
    ----------
    Wielandt, H. (1950). Unzerlegbare, nicht negative Matrizen. Mathematische Zeitschrift 52, 642-648.

    Examples
    --------
    >>> from netcontagion.clearing import largest_eigenvalue
    >>> largest_eigenvalue([[0, 4], [1, 0]])
    2.0
    """
    from scipy.sparse.csgraph import connected_components

    reader = Reader()
    entries = reader.holdings("matrix", matrix)
    if entries is not None and entries.shape[0] != entries.shape[1]:
        reader.refuse("matrix", None, f"shape {entries.shape}", "a square matrix", "give one row per column")
    reader.done()
    if not entries.nnz:
        return 0.0
    count, label = connected_components(entries, directed=True, connection="strong")
    rows = np.repeat(np.arange(entries.shape[0]), np.diff(entries.indptr))
    inside = label[rows] == label[entries.indices]
    cyclic = np.unique(label[rows[inside]])
    own = entries.diagonal()
    alone = np.bincount(label, minlength=count) == 1
    values = [float(own[alone[label]].max(initial=0.0))]
    for part in cyclic[~alone[cyclic]]:
        nodes = np.flatnonzero(label == part)
        values.append(_of_one_part(entries[nodes][:, nodes], rtol, max_rounds))
    return max(values)


def _of_one_part(matrix: Any, rtol: float, max_rounds: int) -> float:
    shift = float(matrix.sum(axis=1).max()) / 2
    scale = np.ones(matrix.shape[0])

    def step(state: tuple[Floats, float]) -> tuple[tuple[Floats, float], float, Status | None]:
        product = matrix @ state[0]
        ratio = product / state[0]
        high, low = float(ratio.max()), float(ratio.min())
        new = product + shift * state[0]
        width = (high - low) / high
        return (new / new.max(), high), width, Status.SETTLED if width <= rtol else None

    return iterate(step, (scale, np.inf), max_rounds=max_rounds).state[1]
