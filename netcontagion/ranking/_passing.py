"""How losses pass from node to node: one graph from the trace of a cascade, or from what a clearing leaves unpaid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from netcontagion.clearing import ClearingResult
from netcontagion.errors import ContagionError
from netcontagion.margining import CascadeResult, Trace, trace

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["Passing", "passing_of", "trace_of"]


def trace_of(result: Any) -> Trace:
    """Trace a result; kept with a cascade, whose trace takes a while."""
    if isinstance(result, CascadeResult):
        known = result.__dict__.get("_trace")
        if known is None:
            known = trace(result)
            object.__setattr__(result, "_trace", known)
        return known
    if isinstance(result, ClearingResult):
        return _unpaid(result)
    raise TypeError(f"losses are traced in a CascadeResult or a ClearingResult, not in {type(result).__name__}")


def _unpaid(result: ClearingResult) -> Trace:
    """Trace what creditors lose: claims less what debtors pay; each debtor's own hole is where it starts."""
    from scipy.sparse import coo_array, csr_array

    values = result.values
    if values.payments.ndim != 1:
        raise ContagionError(
            f"this result has {values.payments.shape[1]} scenarios; trace one: clear it with one shock, or external "
            "assets (n,)"
        )
    size = len(values.payments)
    labels = list(range(size)) if result.labels is None else result.labels.to_numpy(dtype=object).tolist()
    outside = values.dues - np.asarray(result.liabilities.sum(axis=1)) - values.payments_external
    unpaid = (result.liabilities - result.payment_matrix()).tocoo()
    least = 1e-12 * values.dues
    keep = unpaid.data > least[unpaid.row]
    debtors = np.flatnonzero(outside > least)
    row = np.concatenate([unpaid.row[keep], debtors])
    column = np.concatenate([unpaid.col[keep], np.full(len(debtors), size)])
    data = np.concatenate([unpaid.data[keep], outside[debtors]])
    lost = coo_array((data, (row, column)), shape=(2 * (size + 1), size + 1)).tocsr()
    if_paid = values.net_worth + np.asarray(lost.sum(axis=0))[:size]
    bearers = [*labels, ("bearer", "creditors") if "creditors" in labels else "creditors"]
    return Trace(
        bearers=bearers,
        via=[],
        origins=[("own", name) for name in bearers],
        channels={"counterparty": lost},
        feeds=csr_array((2 * (size + 1), 0)),
        holes=np.append(np.maximum(-if_paid, 0.0), 0.0),
    )


class Shares(NamedTuple):
    """Where losses come from, each row in shares of 1: from ``nodes`` (bearers and via) and from ``origins``."""

    nodes: Any
    origins: Any


@dataclass(frozen=True, eq=False)
class Passing:
    """Losses that one node causes another, over all channels, gains left out [num].

    ``nodes`` are bearers, then what stands between them (prices, deficits). ``caused`` (nodes, bearers) and ``begun``
    (origins, bearers) are losses; ``moved`` (nodes, via) and ``opened`` (origins, via) shares of what stands between.
    """

    trace: Trace
    caused: Any
    begun: Any
    moved: Any
    opened: Any

    @property
    def n_bearers(self) -> int:
        """How many bearers there are."""
        return len(self.trace.bearers)

    @property
    def n_nodes(self) -> int:
        """Bearers and what stands between them."""
        return self.n_bearers + len(self.trace.via)

    @property
    def lost(self) -> Floats:
        """Losses of every bearer over all sources, gains left out [num]."""
        return np.asarray(self.caused.sum(axis=0) + self.begun.sum(axis=0))

    @property
    def own(self) -> Floats:
        """What bearers cause themselves, without anybody in between or through a price that they moved [num]."""
        size = self.n_bearers
        through = self.moved[:size].multiply(self.caused[size:].T).sum(axis=1)
        return np.asarray(self.caused.diagonal()[:size] + through)

    @property
    def passed_on(self) -> Floats:
        """What every bearer causes others [num]."""
        size = self.n_bearers
        between = np.asarray(self.caused[size:].sum(axis=1))
        return np.asarray(self.caused[:size].sum(axis=1) + self.moved[:size] @ between - self.own)

    @property
    def from_origins(self) -> Floats:
        """What the shock causes every bearer, directly and through prices that nobody moved [num]."""
        opened = np.asarray(self.opened.sum(axis=0))
        return np.asarray(self.begun.sum(axis=0) + self.caused[self.n_bearers :].T @ opened)

    def shares(self) -> Shares:
        """Divide every node's loss by source; who lost nothing, or in a circle that no origin feeds, is an origin."""
        from scipy.sparse import csr_array, diags_array, vstack

        lost = self.lost
        scale = np.divide(1.0, lost, out=np.zeros(len(lost)), where=lost > 0)
        over = diags_array(scale)
        nodes = vstack([over @ self.caused.T, self.moved.T]).tocsr()
        origins = vstack([over @ self.begun.T, self.opened.T]).tocsr()
        named = np.diff(nodes.tocsc().indptr) + np.diff(nodes.indptr) + np.diff(origins.indptr) > 0
        without = np.flatnonzero(named & ~_fed(nodes, np.diff(origins.indptr) > 0))
        if len(without):
            keep = np.ones(nodes.shape[0])
            keep[without] = 0.0
            nodes, origins = (diags_array(keep) @ part for part in (nodes, origins))
            bare = without[without < self.n_bearers]
            first = origins.shape[1] - self.n_bearers
            start = csr_array((np.ones(len(bare)), (bare, first + bare)), shape=origins.shape)
            origins = origins + start
        return Shares(csr_array(nodes), csr_array(origins))


def _fed(nodes: Any, direct: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Tell which nodes have an origin somewhere above them."""
    fed, reached = direct.copy(), int(direct.sum())
    pattern = nodes.copy()
    pattern.data = (pattern.data > 0).astype(float)
    while True:
        fed |= (pattern @ fed.astype(float)) > 0
        now = int(fed.sum())
        if now == reached:
            return fed
        reached = now


def passing_of(result: Any) -> Passing:
    """Add the channels of a trace up, and leave gains out."""
    from scipy.sparse import csr_array

    found = trace_of(result)
    total = sum(found.channels.values())
    total = csr_array(total).copy()
    total.sum_duplicates()
    total.data = np.maximum(total.data, 0.0)
    total.eliminate_zeros()
    cut = len(found.bearers) + len(found.via)
    holes = np.flatnonzero(found.holes)
    first = len(found.origins) - len(found.bearers)
    begun = total[cut:] + csr_array((found.holes[holes], (first + holes, holes)), shape=total[cut:].shape)
    return Passing(found, total[:cut], csr_array(begun), found.feeds[:cut], found.feeds[cut:])
