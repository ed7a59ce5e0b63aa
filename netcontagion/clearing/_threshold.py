"""Threshold cascades: a node fails when its losses exceed its buffer, and passes a given share of its debt on as loss.

Losses only grow and failures are added from none, so the failed set is the least fixed point: it does not depend on the
order in which nodes are looked at, and is reached in at most n + 1 waves.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from netcontagion._iterate import iterate
from netcontagion._status import Status
from netcontagion.clearing._node_input import Column, checked_nodes, marked_nodes, per_node
from netcontagion.clearing._outcome import Outcome, result_of
from netcontagion.clearing._system import EPS

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from netcontagion.clearing._result import ClearingResult
    from netcontagion.clearing._system import Bools, Floats

__all__ = ["ContagionWindow", "ThresholdResult", "contagion_window", "furfine", "gai_kapadia", "threshold"]

BUFFER_TOLERANCE = 1e-12
"""A node fails when its loss exceeds its buffer by more than this share of the buffer."""


# --------------------------------------------------------------------------------------------------- public functions


def furfine(
    liabilities: Any,
    equity: ArrayLike,
    *,
    defaulted: Any,
    recovery: ArrayLike = 0.0,
    external_liabilities: ArrayLike | None = None,
) -> ClearingResult:
    r"""Follow the default cascade of Furfine: creditors of a failed node lose ``1 - recovery`` of their claims on it.

    The failed set is the smallest that contains ``defaulted`` and every node j with
    ``sum_i L_ij (1 - R_i) > equity_j``, the sum over failed i.

    Parameters
    ----------
    liabilities : array_like or sparse (n, n)
        What row i owes column j, in money; not negative, nothing on the diagonal.
    equity : array_like (n,) or (n, s)
        Equity when every claim is worth its face, in money, after any shock: negative fails at once, 0 without a loss
        does not. s columns are s scenarios.
    defaulted : array_like or None
        Nodes that fail to begin with: a mask (n,) or (n, s), positions, or labels where the matrix has some. Their own
        equity is left as given.
    recovery : float or array_like (n,)
        Share R_i of its debt that a failed node pays, from 0 to 1.
    external_liabilities : array_like (n,), optional
        What each node owes outside the network: counted in ``payments`` and ``shortfall`` only.

    Returns
    -------
    ClearingResult
        ``default_wave`` is 0 for those that fail at once, k for those that fail by the losses of wave k - 1, -1 for
        those that never fail; ``net_worth`` is equity less losses. ``defaulted`` (payments short of dues) is the failed
        set but for nodes that owe nothing or recover in full.

    Raises
    ------
    SchemaError
        Listing everything that is wrong with the numbers.
    ValueError
        A recovery outside [0, 1].

    Notes
    -----
    A node fails when its loss exceeds its equity by more than 1e-12 of it. Recovery is given, not paid from assets:
    neither is liability limited by what there is, nor is value conserved. ``lower`` and ``upper`` are the payments if
    losses within rounding of the equity are, or are not, counted as failures.

    References
    ----------
    Furfine, C. H. (2003). Interbank exposures: quantifying the risk of contagion. Journal of Money, Credit and Banking
    35(1), 111-128. https://doi.org/10.1353/mcb.2003.0004

    Examples
    --------
    >>> from netcontagion.clearing import furfine
    >>> result = furfine([[0, 5, 0], [0, 0, 9], [0, 0, 0]], [1, 4, 6], defaulted=[0], recovery=0.1)
    >>> result.default_wave.tolist(), result.net_worth.round(6).tolist()
    ([0, 1, 2], [1.0, -0.5, -2.1])
    """
    columns = {
        "equity": Column(equity),
        "external_liabilities": Column(external_liabilities, least=0.0, dimensions=(1,)),
    }
    owed, found, labels = checked_nodes(liabilities, columns)
    nodes = owed.shape[0]
    outside = found.get("external_liabilities", np.zeros(nodes))
    paid = per_node("recovery", recovery, nodes, labels)
    start = marked_nodes(defaulted, nodes, labels)
    buffer, none = _scenarios(found["equity"], start)[0], np.zeros(nodes)
    claims = Claims(owed, 1.0 - paid)
    outcomes = []
    for column, marked in zip(*_columns(buffer, _scenarios(start, buffer)[0]), strict=True):
        fallen = _fall(claims, column, marked, none)
        bounds = [np.where(failed, paid, 1.0) for failed in _rounded(claims, column, marked, none, fallen)]
        share = np.where(fallen.wave >= 0, paid, 1.0)
        one = Outcome(share, column - fallen.loss, 0.0, fallen.rounds, fallen.status, wave=fallen.wave)
        outcomes.append(one._replace(lower=bounds[1], upper=bounds[0], enclosure="bracket"))
    dues = owed.sum(axis=1) + outside
    assets = (buffer.T + dues - owed.sum(axis=0)).T
    assumptions: tuple[str, ...] = ("recovery is given, not paid from assets",)
    if external_liabilities is None:
        assumptions += ("no external liabilities were given: all debt is owed inside the network",)
    return result_of(
        outcomes,
        model="furfine",
        owed=owed,
        assets=assets,
        external=outside,
        labels=labels,
        assumptions=assumptions,
        limited=False,
    )


def threshold(
    liabilities: Any,
    buffer: ArrayLike,
    shock: ArrayLike | None = None,
    *,
    defaulted: Any = None,
    loss_given_default: ArrayLike = 1.0,
) -> ThresholdResult:
    r"""Follow a threshold cascade: a node fails when its cumulated loss exceeds its buffer.

    The loss of j is ``shock_j + sum_i L_ij g_i``, the sum over failed i, g the loss given default; the failed set is
    the smallest that contains ``defaulted`` and every node whose loss exceeds its buffer.

    Parameters
    ----------
    liabilities : array_like or sparse (n, n)
        What row i owes column j, in money; not negative, nothing on the diagonal.
    buffer : array_like (n,) or (n, s)
        Loss each node can bear, in money; not negative. A buffer of 0 survives where there is no loss.
    shock : array_like (n,) or (n, s), optional
        Loss from outside, in money; not negative.
    defaulted : array_like, optional
        Nodes that fail whatever they lose: a mask (n,) or (n, s), positions, or labels where the matrix has some.
    loss_given_default : float or array_like (n,)
        Share g_i of its debt that a failed node does not pay, from 0 to 1.

    Returns
    -------
    ThresholdResult
        ``failed``, ``default_wave``, ``loss`` and ``remaining``, each (n,) or (n, s).

    Raises
    ------
    SchemaError
        Listing everything that is wrong with the numbers.
    ValueError
        A loss given default outside [0, 1].

    Notes
    -----
    A node fails when its loss exceeds its buffer by more than 1e-12 of it.

    References
    ----------
    Gai, P., Kapadia, S. (2010). Contagion in financial networks. Proceedings of the Royal Society A 466, 2401-2423.
    https://doi.org/10.1098/rspa.2009.0410

    Examples
    --------
    >>> from netcontagion.clearing import threshold
    >>> result = threshold([[0, 5, 0], [0, 0, 9], [0, 0, 0]], [3, 2, 6], shock=[4, 0, 0], loss_given_default=0.5)
    >>> result.failed.tolist(), result.loss.tolist()
    ([True, True, False], [4.0, 2.5, 4.5])
    """
    columns = {"buffer": Column(buffer, least=0.0), "shock": Column(shock, least=0.0)}
    owed, found, labels = checked_nodes(liabilities, columns)
    nodes = owed.shape[0]
    lost = per_node("loss_given_default", loss_given_default, nodes, labels)
    marked = marked_nodes(defaulted, nodes, labels)
    given = _scenarios(found["buffer"], found.get("shock", np.zeros(nodes)), marked)
    claims, waves, losses, doubtful, rounds = Claims(owed, lost), [], [], [], []
    for column in zip(*_columns(*given), strict=True):
        fallen = _fall(claims, column[0], column[2], column[1])
        sure, possible = _rounded(claims, column[0], column[2], column[1], fallen)
        waves.append(fallen.wave)
        losses.append(fallen.loss)
        doubtful.append(sure != possible)
        rounds.append(fallen.rounds)
    several = given[0].ndim == 2
    stacked = [np.column_stack(part) if part else np.zeros(given[0].shape) for part in (waves, losses, doubtful)]
    wave, loss, doubt = (part if several else part[:, 0] for part in stacked)
    values = ThresholdValues(wave.astype(np.int64), loss, given[0], doubt.astype(bool))
    return ThresholdResult(values, np.array(rounds, dtype=np.int64) if several else rounds[0], labels=labels)


def gai_kapadia(
    links: Any, capital: ArrayLike, *, defaulted: Any, interbank_assets: ArrayLike = 0.2, recovery: ArrayLike = 0.0
) -> ThresholdResult:
    """Follow the cascade of Gai and Kapadia: every bank's interbank assets are spread evenly over its debtors.

    Bank j with k debtors has a claim of ``interbank_assets_j / k`` on each; it fails when f failed debtors cost it
    ``f (1 - recovery) interbank_assets_j / k > capital_j``.

    Parameters
    ----------
    links : array_like or sparse (n, n)
        Where row i owes column j something: any positive number is a link.
    capital : float or array_like (n,)
        Capital buffer, in the unit of ``interbank_assets`` (in the source: a share of total assets); not negative.
    defaulted : array_like
        Banks that fail to begin with: a mask (n,) or (n, s), positions, or labels where the matrix has some.
    interbank_assets : float or array_like (n,)
        Interbank assets of each bank that has a debtor.
    recovery : float or array_like (n,)
        Share of its debt that a failed bank pays, from 0 to 1.

    Returns
    -------
    ThresholdResult
        ``failed``, ``default_wave``, ``loss`` and ``remaining``.

    Raises
    ------
    SchemaError
        Listing everything that is wrong with the links.
    ValueError
        A number that is negative or out of range.

    References
    ----------
    Gai, P., Kapadia, S. (2010). Contagion in financial networks. Proceedings of the Royal Society A 466, 2401-2423.
    https://doi.org/10.1098/rspa.2009.0410

    Examples
    --------
    >>> from netcontagion.clearing import gai_kapadia
    >>> gai_kapadia([[0, 1, 1], [0, 0, 1], [0, 0, 0]], 0.15, defaulted=[0]).failed.tolist()
    [True, True, True]
    """
    owed, _, labels = checked_nodes(links, {})
    nodes = owed.shape[0]
    assets = per_node("interbank_assets", interbank_assets, nodes, labels, most=np.finfo(float).max)
    buffer = per_node("capital", capital, nodes, labels, most=np.finfo(float).max)
    paid = per_node("recovery", recovery, nodes, labels)
    debtors = np.bincount(owed.indices, minlength=nodes)
    owed.data = (assets / np.maximum(debtors, 1))[owed.indices]
    start = marked_nodes(defaulted, nodes, labels)
    result = threshold(owed, buffer, defaulted=start, loss_given_default=1.0 - paid)
    return ThresholdResult(result.values, result.iterations, labels=labels)


class ContagionWindow(NamedTuple):
    """Mean degrees between which a single failure can spread over a random network, to first order.

    Attributes
    ----------
    low, high : float
        Ends of the window; inf and -inf where no mean degree lets a failure spread.
    max_vulnerable_degree : float
        Most debtors with which a bank still fails by the failure of one of them; inf for banks without capital.
    """

    low: float
    high: float
    max_vulnerable_degree: float

    def spreads(self, mean_degree: float) -> bool:
        """Whether a single failure can spread at this mean degree."""
        return self.low <= mean_degree <= self.high


def contagion_window(capital: float, interbank_assets: float = 0.2, *, recovery: float = 0.0) -> ContagionWindow:
    r"""Compute the window of mean degrees z in which a single failure can spread over a Poisson network.

    A bank with j debtors is vulnerable where ``capital < (1 - recovery) interbank_assets / j``, so for j up to some m;
    failures spread where the mean number of vulnerable creditors reached is at least 1:
    ``z P(Poisson(z) <= m - 1) >= 1``.

    Parameters
    ----------
    capital : float
        Capital buffer of every bank, in the unit of ``interbank_assets``; not negative.
    interbank_assets : float
        Interbank assets of every bank; more than 0.
    recovery : float
        Share of its debt that a failed bank pays, from 0 to 1.

    Returns
    -------
    ContagionWindow
        ``low``, ``high`` and ``max_vulnerable_degree``.

    Raises
    ------
    ValueError
        A number that is out of range.

    Notes
    -----
    First order: one failed debtor at a time. Banks hit by several can carry cascades beyond the upper end.

    References
    ----------
    Gai, P., Kapadia, S. (2010). Contagion in financial networks. Proceedings of the Royal Society A 466, 2401-2423.
    https://doi.org/10.1098/rspa.2009.0410

    Examples
    --------
    >>> from netcontagion.clearing import contagion_window
    >>> window = contagion_window(0.04, 0.2)
    >>> round(window.low, 4), round(window.high, 4), window.max_vulnerable_degree
    (1.0207, 5.7647, 4.0)
    """
    if not (0 <= capital < np.inf and 0 < interbank_assets < np.inf and 0 <= recovery <= 1):
        raise ValueError(
            f"capital={capital!r}, interbank_assets={interbank_assets!r}, recovery={recovery!r}: capital at least 0, "
            "interbank_assets more than 0, recovery from 0 to 1"
        )
    exposed = (1.0 - recovery) * interbank_assets
    if exposed == 0:
        return ContagionWindow(np.inf, -np.inf, 0.0)
    with np.errstate(over="ignore", divide="ignore"):
        most = float(np.ceil(np.float64(exposed) / capital * (1 - BUFFER_TOLERANCE)) - 1) if capital > 0 else np.inf
    if np.isinf(most):
        return ContagionWindow(1.0, np.inf, most)
    return ContagionWindow(*_reach_of_one(most), most)


# --------------------------------------------------------------------------------------------------------- the result


@dataclass(frozen=True, eq=False)
class ThresholdValues:
    """Plain read-only arrays of a threshold cascade, each (n,) or (n, s)."""

    default_wave: NDArray[np.int64]
    loss: Floats
    buffer: Floats
    doubtful: Bools

    def __post_init__(self) -> None:
        for field in fields(self):
            getattr(self, field.name).setflags(write=False)


@dataclass(frozen=True, eq=False, repr=False)
class ThresholdResult:
    """Result of a threshold cascade; n nodes, one scenario or s of them.

    Per-node results are arrays (n,) or (n, s); where the matrix has labels they are pandas Series or DataFrames.

    Attributes
    ----------
    values : ThresholdValues
        The plain arrays behind the properties.
    iterations : int or ndarray (s,)
        Waves of failures.
    status : Status
        SETTLED: a cascade ends after at most n waves.
    labels : pandas.Index or None
        Names of the nodes.
    """

    values: ThresholdValues
    iterations: int | NDArray[np.int64]
    status: Status = Status.SETTLED
    labels: Any = None

    @property
    def failed(self) -> Any:
        """Whether a node fails."""
        return self._labelled(self.values.default_wave >= 0)

    @property
    def default_wave(self) -> Any:
        """Wave in which a node fails: 0 at once, k by the losses of wave k - 1, -1 never."""
        return self._labelled(self.values.default_wave)

    @property
    def loss(self) -> Any:
        """Cumulated loss of a node, the shock included, in money."""
        return self._labelled(self.values.loss)

    @property
    def remaining(self) -> Any:
        """Buffer less loss: negative for those that fail by loss."""
        return self._labelled(self.values.buffer - self.values.loss)

    @property
    def doubtful(self) -> Any:
        """Whether rounding decides if a node fails."""
        return self._labelled(self.values.doubtful)

    def __repr__(self) -> str:
        failed = (self.values.default_wave >= 0).sum(axis=0)
        count = f"{failed}" if failed.ndim == 0 else f"{failed.min(initial=0)} to {failed.max(initial=0)}"
        size = "" if failed.ndim == 0 else f" x {len(failed)} scenarios"
        doubts = f", {self.values.doubtful.sum()} by rounding alone" if self.values.doubtful.any() else ""
        return f"ThresholdResult: {len(self.values.loss)} nodes{size}, {count} fail{doubts}: {self.status}"

    def _labelled(self, array: NDArray[Any]) -> Any:
        array.setflags(write=False)
        if self.labels is None:
            return array
        import pandas as pd

        return pd.Series(array, index=self.labels) if array.ndim == 1 else pd.DataFrame(array, index=self.labels)


# --------------------------------------------------------------------------------------------------------- the engine


class Claims:
    """Losses that a failed debtor passes on, by row, and the size of rounding."""

    def __init__(self, owed: Any, lost: Floats) -> None:
        counts = np.diff(owed.indptr)
        self.starts, self.counts, self.creditors = owed.indptr[:-1], counts, owed.indices
        self.amounts = owed.data * np.repeat(lost, counts)
        self.error = float(np.bincount(owed.indices, minlength=len(counts)).max(initial=0) + 4) * EPS

    def of(self, debtors: NDArray[np.intp]) -> tuple[NDArray[Any], Floats]:
        """Creditors of these debtors, and what each loses, an entry per claim."""
        counts = self.counts[debtors]
        ends = np.cumsum(counts)
        places = np.arange(ends[-1] if len(ends) else 0) + np.repeat(self.starts[debtors] - ends + counts, counts)
        return self.creditors[places], self.amounts[places]


class _Fallen(NamedTuple):
    wave: NDArray[np.int64]
    loss: Floats
    rounds: int
    status: Status
    doubtful: bool


def _fall(claims: Claims, buffer: Floats, start: Bools, shock: Floats, outwards: float = 0.0) -> _Fallen:
    """Add failures until there are none; losses count as larger (1) or smaller (-1) by rounding."""
    limit = buffer + BUFFER_TOLERANCE * np.abs(buffer)
    loss, wave = shock.copy(), np.full(len(buffer), -1, dtype=np.int64)
    factor, near = 1.0 + outwards * claims.error, claims.error

    def fails(nodes: Any) -> tuple[Bools, bool]:
        lost = loss[nodes] * factor
        doubtful = (np.abs(lost - limit[nodes]) <= near * np.maximum(lost, np.abs(limit[nodes]))) & (lost > 0)
        return lost > limit[nodes], bool(doubtful.any())

    def step(state: tuple[Any, bool]) -> tuple[tuple[Any, bool], float, Status | None]:
        frontier, doubted = state
        creditors, amounts = claims.of(frontier)
        np.add.at(loss, creditors, amounts)
        touched = np.unique(creditors) if 4 * len(creditors) < len(loss) else np.arange(len(loss))
        touched = touched[wave[touched] < 0]
        failing, doubt = fails(touched)
        new = touched[failing]
        wave[new] = wave[frontier[0]] + 1 if len(frontier) else 0
        return (new, doubted or doubt), float(len(new)), None if len(new) else Status.SETTLED

    at_once, doubt = fails(slice(None))
    first = np.flatnonzero(start | at_once)
    wave[first] = 0
    ending = iterate(step, (first, doubt), max_rounds=len(buffer) + 1)
    return _Fallen(wave, loss, ending.rounds, ending.status, ending.state[1])


def _rounded(claims: Claims, buffer: Floats, start: Bools, shock: Floats, fallen: _Fallen) -> tuple[Bools, Bools]:
    """Nodes that fail surely, and those that fail possibly, when losses are known up to rounding."""
    if not fallen.doubtful:
        return fallen.wave >= 0, fallen.wave >= 0
    sure, possible = (_fall(claims, buffer, start, shock, sign).wave >= 0 for sign in (-1.0, 1.0))
    return sure, possible


def _scenarios(*arrays: Any) -> list[Any]:
    """Give all arrays the scenarios that one of them has."""
    width = next((array.shape[1] for array in arrays if array.ndim == 2), None)
    if width is None:
        return list(arrays)
    if any(array.ndim == 2 and array.shape[1] != width for array in arrays):
        raise ValueError(f"scenarios differ in number: {[array.shape for array in arrays]}")
    return [array if array.ndim == 2 else np.repeat(array[:, None], width, axis=1) for array in arrays]


def _columns(*arrays: Any) -> list[Any]:
    return [np.atleast_2d(array.T) for array in arrays]


def _reach_of_one(most: float) -> tuple[float, float]:
    """Mean degrees z between which ``z P(Poisson(z) <= most - 1)`` is at least 1."""
    from scipy.optimize import brentq
    from scipy.special import gammaln, pdtr

    def excess(z: float) -> float:
        return float(z * pdtr(most - 1, z) - 1)

    if most < 1:
        return np.inf, -np.inf

    # z P(Poisson(z) <= m - 1) rises to one peak, where P = z p(m - 1; z), and falls
    def slope(z: float) -> float:
        return float(pdtr(most - 1, z) - np.exp(most * np.log(z) - z - gammaln(most)))

    peak = brentq(slope, 1e-9, most + 1.0, xtol=1e-14)
    if excess(peak) < 0:
        return np.inf, -np.inf
    far = 2 * most + 50.0
    return brentq(excess, 1e-9, peak, xtol=1e-14, rtol=1e-14), brentq(excess, peak, far, xtol=1e-14, rtol=1e-14)
