"""The strongest ways that losses took, from an origin to who bears them."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from netcontagion.ranking._passing import passing_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Codes = NDArray[np.intp]

__all__ = ["contagion_paths"]

DIGITS = 12  # of the loss that paths are ordered by: what ties within them ties


def contagion_paths(result: Any, n: int = 10, *, longest: int = 6) -> pd.DataFrame:
    r"""Return the n contagion paths along which most is lost.

    A path starts at an origin of the shock, passes at least one other node, and ends at a bearer k. With :math:`S_{ji}`
    the share of the loss of j that i causes, what j causes itself left out, and :math:`L_k` the loss of k, it carries

    .. math:: L_k S_{k,x_m} S_{x_m,x_{m-1}} \cdots S_{x_1,origin} .

    Over all walks to k, the direct one included, that adds up to :math:`L_k`. No path meets a node twice.

    Parameters
    ----------
    result : CascadeResult or ClearingResult
        Of one scenario.
    n : int, default 10
        How many paths, 1 or more; fewer where there are fewer.
    longest : int, default 6
        Most steps of a path, 2 or more.

    Returns
    -------
    DataFrame
        The strongest first: ``loss`` [num], ``share`` of the loss of the bearer at the end, ``steps``, ``path``: a
        tuple of (kind, label), where kind is "price" or "own" of the origin, then "bearer", "price" (of a book that
        was moved; label asset, or (asset, exchange) for a book of its own) or "deficits" (of an exchange). Equal
        losses are ordered by the place of their nodes.

    Examples
    --------
    >>> import netcontagion as nc
    >>> owed = [[0, 100, 0], [0, 0, 60], [0, 0, 0]]
    >>> paths = nc.ranking.contagion_paths(nc.clearing.eisenberg_noe(owed, [40, 15, 0]))
    >>> paths["path"].tolist()[1]
    (('own', 0), ('bearer', 0), ('bearer', 1), ('bearer', 2))
    """
    import pandas as pd

    for name, value, least in (("n", n, 1), ("longest", longest, 2)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
            raise ValueError(f"{name} is {value!r}; allowed: a whole number, {least} or more")
    found = passing_of(result)
    steps = _Steps(found, int(longest))
    names = [
        *(("bearer", label) for label in found.trace.bearers),
        *found.trace.via,
        *found.trace.origins,
    ]
    rows: list[tuple[float, float, int, Any]] = []
    for loss, codes in _strongest(steps):
        if len(rows) == n:
            break
        rows.append((loss, loss / float(found.lost[codes[-1]]), len(codes) - 1, tuple(names[code] for code in codes)))
    columns = {"loss": float, "share": float, "steps": int, "path": object}
    return pd.DataFrame(rows, columns=list(columns)).astype(columns)


class _Steps:
    """Steps backwards, from a node to what caused its loss, by the most that can be carried to an origin that way."""

    def __init__(self, found: Any, longest: int) -> None:
        from scipy.sparse import csr_array, diags_array, hstack

        nodes, origins = found.shares()
        size = self.size = nodes.shape[0]
        self.longest, self.lost, self.n_bearers = longest, found.lost, found.n_bearers
        alone = np.asarray(nodes.diagonal())
        others = (nodes - diags_array(alone)).tocsr()
        scale = np.divide(1.0, 1.0 - alone, out=np.zeros(size), where=alone < 1)
        self.shares = csr_array(diags_array(scale) @ hstack([others, origins]).tocsr())
        self.shares.eliminate_zeros()
        self.shares.sort_indices()
        best = np.zeros(size + origins.shape[1])
        best[size:] = 1.0
        self.reach = [best]
        for _ in range(longest):
            self.reach.append(self._one_more(self.reach[-1]))
        self.known: dict[tuple[int, int], tuple[Codes, Floats, Floats]] = {}

    def _one_more(self, best: Floats) -> Floats:
        """Most of a unit of loss that can be carried to an origin in one step more, or fewer."""
        after, table = best.copy(), self.shares
        carried = table.data * best[table.indices]
        full = np.flatnonzero(np.diff(table.indptr))
        if len(full):
            after[full] = np.maximum(best[full], np.maximum.reduceat(carried, table.indptr[full]))
        return after

    def back(self, node: int, left: int) -> tuple[Codes, Floats, Floats]:
        """List sources of a node, the most promising with so many steps left first; their shares, the most carried."""
        if (node, left) not in self.known:
            row = slice(self.shares.indptr[node], self.shares.indptr[node + 1])
            source, share = self.shares.indices[row], self.shares.data[row]
            promise = share * self.reach[left - 1][source]
            order = np.lexsort((source, -_rounded(promise)))
            order = order[promise[order] > 0]
            self.known[node, left] = source[order], share[order], promise[order]
        return self.known[node, left]


class _Branch(NamedTuple):
    """A path from ``nodes[0]`` to its bearer that carries ``loss``, and which source of ``nodes[0]`` comes next."""

    nodes: tuple[int, ...]
    loss: float
    rank: int


def _strongest(steps: _Steps) -> Iterator[tuple[float, tuple[int, ...]]]:
    """Yield paths by falling loss: the most promising branch grows first, so that none is ever overtaken."""
    heap: list[tuple[float, tuple[int, ...], _Branch]] = []
    ends = np.flatnonzero(steps.lost > 0)
    promise = _rounded(steps.lost[ends] * steps.reach[-1][ends])
    order = np.argsort(-promise, kind="stable")
    waiting = list(zip(ends[order].tolist(), promise[order].tolist(), strict=True))[::-1]
    while heap or waiting:
        while waiting and (not heap or waiting[-1][1] >= -heap[0][0]):
            end = waiting.pop()[0]
            _push(heap, steps, _Branch((end,), float(steps.lost[end]), 0))
        if not heap:
            return
        _, nodes, branch = heapq.heappop(heap)
        if nodes[0] >= steps.size:
            if len(nodes) > 2:
                yield branch.loss, nodes
            continue
        source, share, _ = steps.back(nodes[0], steps.longest - len(nodes) + 1)
        _push(heap, steps, branch._replace(rank=branch.rank + 1))
        grown = int(source[branch.rank])
        if grown not in nodes:
            loss = branch.loss * float(share[branch.rank])
            _push(heap, steps, _Branch((grown, *nodes), loss, 0))


def _push(heap: list[tuple[float, tuple[int, ...], _Branch]], steps: _Steps, branch: _Branch) -> None:
    if branch.nodes[0] >= steps.size:
        heapq.heappush(heap, (-float(_rounded(branch.loss)), branch.nodes, branch))
        return
    left = steps.longest - len(branch.nodes) + 1
    if left < 1:
        return
    promise = steps.back(branch.nodes[0], left)[2]
    if branch.rank < len(promise):
        heapq.heappush(heap, (-float(_rounded(branch.loss * promise[branch.rank])), branch.nodes, branch))


def _rounded(values: Any) -> Any:
    part, power = np.frexp(values)
    return np.ldexp(np.round(part, DIGITS), power)
