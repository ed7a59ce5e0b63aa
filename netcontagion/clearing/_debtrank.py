"""DebtRank: distress that creditors take over from their debtors in proportion to what they lose of their equity.

Linear DebtRank is the least fixed point of ``h = min(1, x + W^T h)``, F for short. Among the nodes that distress
reaches, F is monotone, concave and after some rounds k positive at 0: its solution h* is unique there, and enclosed
with f = F^k(0) and r = F^k(p) - p: ``p / (1 + max r^- / f) <= h* <= p / (1 - max r^+ / f)``. Few scenarios are
iterated one by one, many are swept side by side (:mod:`._debtrank_kernels`). There, where impacts shrink some v > 0,
``W^T v < v``, F is a contraction, and one sweep bounds every scenario from any start.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy.sparse

from netcontagion._compile import in_threads
from netcontagion._iterate import iterate
from netcontagion._status import Status
from netcontagion.clearing._impact_matrix import impacts
from netcontagion.clearing._node_input import Column, checked_nodes
from netcontagion.clearing._system import EPS
from netcontagion.clearing._threshold import Claims
from netcontagion.errors import NotSettledError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

    from netcontagion.clearing._system import Bools, Floats

__all__ = ["DebtRankResult", "debtrank"]

VARIANTS = ("linear", "single_hit")
BATCH = 8
"""Scenarios from which a compiled kernel pays."""
SWEEPS = 1_000
"""Most sweeps side by side; scenarios that need more are solved one by one."""
PIECES = 64  # of the scenarios, whatever the number of processors
TERMS = 32  # most terms of the vector that shows how impacts shrink
FIRST_POWER, FIRST_SOLVE = 4, 128  # rounds of the certificate at least, and before an exact solve is tried
DIRECT_SIZE, SOLVES = 1_000, 20  # nodes up to which a solve is direct, and how often clipped nodes may join


def debtrank(
    liabilities: Any,
    equity: ArrayLike,
    shock: ArrayLike,
    *,
    variant: str = "linear",
    cap_impact: bool | None = None,
    weights: ArrayLike | None = None,
    rtol: float = 1e-10,
    max_rounds: int = 10_000,
    strict: bool = True,
) -> DebtRankResult:
    r"""Compute DebtRank: how far distress spreads when creditors lose in proportion to their debtors' distress.

    The impact of i on j is ``W_ij = L_ij / equity_j``, h the share of its equity that a node has lost, x the shock.
    Linear (2015): ``h_j(t + 1) = min(1, h_j(t) + sum_i W_ij (h_i(t) - h_i(t - 1)))``, whose limit is the least solution
    of ``h = min(1, x + W^T h)``. Single hit (2012): a node passes its distress on once, in the step after it is first
    distressed, ``h_j(t + 1) = min(1, h_j(t) + sum_i W_ij h_i(t))`` over the nodes i whose turn it is.

    Parameters
    ----------
    liabilities : array_like or sparse (n, n)
        What row i owes column j, in money; not negative, nothing on the diagonal.
    equity : array_like (n,)
        Equity before the shock, in money; more than 0.
    shock : array_like (n,) or (n, s)
        Relative loss of equity by the shock, from 0 to 1 (1: default); s columns are s scenarios.
    variant : {"linear", "single_hit"}
        DebtRank of Bardoscia et al. (2015), or of Battiston et al. (2012).
    cap_impact : bool, optional
        Whether an impact is at most 1; by default as published: in "single_hit", not in "linear".
    weights : array_like (n,), optional
        Weights of the nodes in ``value``, used as given; by default each node's share of all interbank assets.
    rtol : float
        Width of the bounds of the distress at which a solve has settled; "linear" only.
    max_rounds : int
        Most rounds per scenario; "linear" only.
    strict : bool
        Raise when a scenario does not settle, instead of returning what was reached.

    Returns
    -------
    DebtRankResult
        ``distress`` (n,) or (n, s) and ``value``, ``sum_i weights_i (h_i - x_i)``: the shock itself is not counted.

    Raises
    ------
    SchemaError
        Listing everything that is wrong with the numbers; equity that is not more than 0 is among it.
    ValueError
        An option that is not one of those allowed.
    NotSettledError
        With ``strict``, when the solve ended without an answer; its ``result`` holds what was reached.

    Notes
    -----
    ``linear``: ``enclosure`` is "concave", a proof of ``lower`` and ``upper``, rounding included. ``single_hit`` ends
    by itself after at most n steps; a node that has had its turn still takes distress over. More shock can mean less
    distress there, as a node that is distressed early passes on less.

    References
    ----------
    Battiston, S., Puliga, M., Kaushik, R., Tasca, P., Caldarelli, G. (2012). DebtRank: too central to fail? Scientific
    Reports 2, 541. https://doi.org/10.1038/srep00541

    Bardoscia, M., Battiston, S., Caccioli, F., Caldarelli, G. (2015). DebtRank: a microscopic foundation for shock
    propagation. PLoS ONE 10(6), e0130406. https://doi.org/10.1371/journal.pone.0130406

    Examples
    --------
    >>> from netcontagion.clearing import debtrank
    >>> cycle = [[0, 5], [5, 0]]
    >>> debtrank(cycle, [10, 10], [0.3, 0]).distress.round(9).tolist()
    [0.4, 0.2]
    >>> debtrank(cycle, [10, 10], [0.3, 0], variant="single_hit").distress.round(9).tolist()
    [0.375, 0.15]
    """
    _check_options(variant, cap_impact, rtol, max_rounds)
    columns = {
        "equity": Column(equity, least=0.0, open=True, dimensions=(1,)),
        "shock": Column(np.nan if shock is None else shock, least=0.0, most=1.0),
        "weights": Column(weights, least=0.0, dimensions=(1,)),
    }
    owed, found, labels = checked_nodes(liabilities, columns)
    single_hit = variant == "single_hit"
    capped = single_hit if cap_impact is None else cap_impact
    impact = impacts(owed, found["equity"], capped=capped)
    given = found["shock"]
    several = given.ndim == 2
    scenarios = np.ascontiguousarray(given if several else given[:, None])
    spread = _walk_all(impact, scenarios) if single_hit else _spread_all(impact, scenarios, rtol, max_rounds)
    weight = found.get("weights")
    result = DebtRankResult(
        shock=_frozen(given),
        weights=_frozen(_interbank_shares(owed) if weight is None else weight),
        variant=variant,
        cap_impact=capped,
        bounds=tuple(
            _frozen(part if several else part[:, 0]) for part in (spread.distress, spread.lower, spread.upper)
        ),
        enclosure="none" if single_hit or not spread.certified.all() else "concave",
        residual=spread.residual if several else float(spread.residual[0]),
        iterations=spread.rounds if several else int(spread.rounds[0]),
        status=next((status for status in spread.statuses if not status.settled), Status.SETTLED),
        statuses=spread.statuses,
        labels=labels,
    )
    return result.raise_for_status() if strict else result


def _check_options(variant: str, cap_impact: bool | None, rtol: float, max_rounds: int) -> None:
    if variant not in VARIANTS:
        raise ValueError(f"variant={variant!r} is not one of {', '.join(map(repr, VARIANTS))}")
    if cap_impact not in (None, True, False):
        raise ValueError(f"cap_impact={cap_impact!r} is not one of None, True, False")
    if not rtol > 0:
        raise ValueError(f"rtol={rtol!r} must be positive")
    if max_rounds < 1:
        raise ValueError(f"max_rounds={max_rounds!r} must be at least 1")


def _interbank_shares(owed: Any) -> Floats:
    claims = owed.sum(axis=0)
    total = claims.sum()
    shares: Floats = claims / total if total > 0 else np.zeros(len(claims))
    return shares


def _frozen(array: Any) -> Any:
    array.setflags(write=False)
    return array


# --------------------------------------------------------------------------------------------------------- the result


@dataclass(frozen=True, eq=False, repr=False)
class DebtRankResult:
    """Result of DebtRank; n nodes, one scenario or s of them.

    ``distress``, ``lower`` and ``upper`` are arrays (n,) or (n, s); where the matrix has labels they are pandas Series
    or DataFrames.

    Attributes
    ----------
    shock : ndarray (n,) or (n, s)
        Relative loss of equity by the shock.
    weights : ndarray (n,)
        Weights of the nodes in ``value``.
    variant : {"linear", "single_hit"}
        What was computed.
    cap_impact : bool
        Whether an impact is at most 1.
    bounds : tuple of ndarray
        Distress, and its lower and upper bound.
    enclosure : {"concave", "none"}
        How ``lower`` and ``upper`` are known; with "none" they are the distress itself.
    residual : float or ndarray (s,)
        Largest change of the distress in the last round.
    iterations : int or ndarray (s,)
        Rounds, sweeps or steps.
    status : Status
        How the solve ended; of several scenarios the first that did not settle. All: ``statuses``.
    labels : pandas.Index or None
        Names of the nodes.
    """

    shock: Floats
    weights: Floats
    variant: str
    cap_impact: bool
    bounds: tuple[Floats, ...]
    enclosure: str
    residual: float | Floats
    iterations: int | NDArray[np.int64]
    status: Status
    statuses: tuple[Status, ...] = ()
    labels: Any = None

    @property
    def distress(self) -> Any:
        """Share of its equity that a node has lost in the end, the shock included."""
        return self._labelled(self.bounds[0])

    @property
    def lower(self) -> Any:
        """Lower bound of the distress."""
        return self._labelled(self.bounds[1])

    @property
    def upper(self) -> Any:
        """Upper bound of the distress."""
        return self._labelled(self.bounds[2])

    @property
    def value(self) -> Any:
        """DebtRank: weighted distress beyond the shock; a float, or an array (s,)."""
        # not by a product of matrices: the threads that numpy starts for one spin on when they are done
        after, before = (np.einsum("i,i...->...", self.weights, part) for part in (self.bounds[0], self.shock))
        return float(after - before) if after.ndim == 0 else after - before

    @property
    def width(self) -> Any:
        """Largest difference of the bounds: a float, or an array (s,)."""
        width = (self.bounds[2] - self.bounds[1]).max(axis=0, initial=0.0)
        return float(width) if width.ndim == 0 else width

    def raise_for_status(self) -> DebtRankResult:
        """Return this result, or raise ``NotSettledError`` carrying it where a scenario did not settle."""
        if self.status.settled:
            return self
        failed = [column for column, status in enumerate(self.statuses) if not status.settled]
        several = len(self.statuses) > 1
        place = f" in {len(failed)} of {len(self.statuses)} scenarios, first {failed[0]}" if several else ""
        raise NotSettledError(f"debtrank did not settle{place}: {self.status} ({self.status.value})", self)

    def __repr__(self) -> str:
        distress, value = self.bounds[0], np.atleast_1d(self.value)
        size = f"{len(distress)} nodes" + (f" x {distress.shape[1]} scenarios" if distress.ndim == 2 else "")
        worst = f"DebtRank up to {value.max():.6g}" if distress.ndim == 2 and len(value) else ""
        worst = f"DebtRank {value[0]:.6g}" if distress.ndim == 1 else worst
        cap = "impact at most 1" if self.cap_impact else "impact not capped"
        width = f", width {np.max(self.width, initial=0.0):.3g}" if self.enclosure != "none" else ""
        return (
            f"DebtRankResult: {self.variant}, {cap}, {size}: {worst}, enclosure {self.enclosure}{width}: {self.status}"
        )

    def _labelled(self, array: Floats) -> Any:
        if self.labels is None:
            return array
        import pandas as pd

        return pd.Series(array, index=self.labels) if array.ndim == 1 else pd.DataFrame(array, index=self.labels)


class _Spread(NamedTuple):
    """All scenarios solved, one per column."""

    distress: Floats
    lower: Floats
    upper: Floats
    residual: Floats
    rounds: NDArray[np.int64]
    statuses: tuple[Status, ...]
    certified: Bools


# ------------------------------------------------------------------------------------------------------------- linear


class _One(NamedTuple):
    """One scenario solved."""

    distress: Floats
    lower: Floats
    upper: Floats
    residual: float
    rounds: int
    status: Status
    certified: bool


def _spread_all(impact: Any, shocks: Floats, rtol: float, max_rounds: int) -> _Spread:
    into = impact.T.tocsr()
    size = shocks.shape[1]
    if size >= BATCH:
        swept = _sweep_all(into, shocks, rtol, min(max_rounds, SWEEPS))
        left = [column for column, status in enumerate(swept.statuses) if not status.settled and max_rounds > SWEEPS]
    else:
        low, middle, high = np.zeros((3, *shocks.shape))
        statuses = (Status.SETTLED,) * size
        swept = _Spread(middle, low, high, np.zeros(size), np.zeros(size, np.int64), statuses, np.ones(size, bool))
        left = list(range(size))
    return _replaced(swept, {column: _spread_one(into, shocks[:, column], rtol, max_rounds) for column in left})


def _replaced(spread: _Spread, columns: dict[int, _One]) -> _Spread:
    """Put scenarios that were solved one by one among the others."""
    statuses = list(spread.statuses)
    for column, one in columns.items():
        for whole, part in zip(spread[:3], one[:3], strict=True):
            whole[:, column] = part
        spread.residual[column], spread.rounds[column] = one.residual, spread.rounds[column] + one.rounds
        statuses[column], spread.certified[column] = one.status, one.certified
    return spread._replace(statuses=tuple(statuses))


def _sweep_all(into: Any, shocks: Floats, rtol: float, sweeps: int) -> _Spread:
    """Sweep all scenarios on all processors."""
    from netcontagion.clearing._debtrank_kernels import longest_run, sweep_scenarios

    out, found = np.empty((3, *shocks.shape)), np.empty((4, shocks.shape[1]))
    matrix, margin, rounding = _compressed(into), _margin(into), _rounding(into)
    if not len(margin[0]):  # a sweep hands rounding on all along a run
        rounding *= longest_run(*matrix[:2])
    given = *matrix, *margin, shocks, out, found, rtol, rounding, sweeps
    _side_by_side(functools.partial(sweep_scenarios, *given), shocks.shape[1])
    settled, bounded, moved, rounds = found
    statuses = tuple(Status.SETTLED if one else Status.MAX_ROUNDS for one in settled)
    return _Spread(out[0], out[1], out[2], np.minimum(moved, 1.0), rounds.astype(np.int64), statuses, bounded > 0)


def _margin(into: Any) -> tuple[Floats, Floats]:
    """Return ``v - s`` and s, at least ``W^T v``, of a v that impacts shrink everywhere; empty where none is found.

    v is ``1 + W^T 1 + ...`` up to a term that is small.
    """
    nothing = np.empty(0), np.empty(0)
    v, term = np.zeros(into.shape[0]), np.ones(into.shape[0])
    with np.errstate(over="ignore", invalid="ignore"):  # impacts along a way may multiply without end
        for _ in range(TERMS):
            v, term = v + term, into @ term
            if term.max(initial=0.0) <= 0.1:
                scale = (into @ v) * (1 + 2 * _rounding(into))
                margin = (v - scale) * (1 - 4 * EPS)
                return (margin, scale) if np.isfinite(scale).all() and (margin > 0).all() else nothing
    return nothing


def _side_by_side(run: Callable[[int, int, int], None], scenarios: int) -> None:
    """Run a kernel on pieces of the scenarios, the same for every number of processors, on all of them."""
    from netcontagion.clearing._debtrank_kernels import LANES

    lanes = LANES if scenarios > LANES else LANES // 2
    cuts = np.linspace(0, -(-scenarios // lanes), PIECES + 1).astype(int) * lanes
    pieces = ((first, min(last, scenarios)) for first, last in itertools.pairwise(cuts.tolist()) if first < last)
    in_threads(functools.partial(run, lanes), pieces)


def _compressed(matrix: Any) -> tuple[Any, Any, Floats]:
    """Return the arrays of a matrix in the types that the kernels are compiled for."""
    return matrix.indptr.astype(np.int64, copy=False), matrix.indices.astype(np.int32, copy=False), matrix.data


def _rounding(into: Any) -> float:
    """Bound of the relative error of one round."""
    return float(np.diff(into.indptr).max(initial=0) + 4) * EPS


class _Bounds(NamedTuple):
    """Bounds of the solution; ``floor`` is the width that rounding alone would leave."""

    lower: Floats
    upper: Floats
    floor: float = 0.0

    def narrow(self, rtol: float) -> bool:
        """Whether the bounds are as near as asked for, or as rounding allows."""
        return float((self.upper - self.lower).max(initial=0.0)) <= max(rtol, 4 * self.floor)


class _Climb(NamedTuple):
    """Distress after some rounds from 0; ``least`` of ``power`` rounds, ``before`` of ``power`` rounds ago."""

    distress: Floats
    rounds: int = 0
    reached: int = -1
    power: int = 0
    least: Floats | None = None
    before: Floats | None = None
    next_try: int = FIRST_SOLVE
    found: Floats | None = None
    bounds: _Bounds | None = None


def _spread_one(into: Any, shock: Floats, rtol: float, max_rounds: int) -> _One:
    """Iterate upwards from 0 until the bounds are narrow; now and then try what solves the unclipped nodes exactly."""
    rounding = _rounding(into)

    def next_of(distress: Floats) -> Floats:
        new: Floats = np.minimum(1.0, shock + into @ distress)
        return new

    def step(state: _Climb) -> tuple[_Climb, float, Status | None]:
        new = np.maximum(state.distress, next_of(state.distress))
        moved = float((new - state.distress).max(initial=0.0))
        state = state._replace(distress=new, rounds=state.rounds + 1)
        if not state.power:
            reached = int(np.count_nonzero(new))
            if reached == state.reached and state.rounds >= FIRST_POWER:
                state = state._replace(power=state.rounds, least=new, before=new)
            return state._replace(reached=reached), moved, None
        if state.rounds % state.power:
            return state, moved, None
        assert state.before is not None
        bounds = _bounds(state, state.before, new, rounding)
        state = state._replace(before=new, found=new, bounds=bounds)
        if bounds.narrow(rtol):
            return state, moved, Status.SETTLED
        if state.rounds < state.next_try:
            return state, moved, None
        state = state._replace(next_try=2 * state.rounds)
        solved = _solved(into, shock, new)
        if solved is not None:
            image = solved
            for _ in range(state.power):
                image = next_of(image)
            bounds = _bounds(state, solved, image, rounding)
            if bounds.narrow(rtol):
                return state._replace(found=solved, bounds=bounds), moved, Status.SETTLED
        return state, moved, None

    ending = iterate(step, _Climb(np.zeros(len(shock))), max_rounds=max_rounds)
    state, ones = ending.state, np.ones(len(shock))
    lower, upper, _ = state.bounds or _Bounds(state.distress / (1 + 2 * rounding * state.rounds), ones)
    lower, upper = np.maximum(lower, shock), np.minimum(upper, 1.0)
    distress = np.clip(state.distress if state.found is None else state.found, lower, upper)
    residual = float(np.abs(next_of(distress) - distress).max(initial=0.0))
    certified = state.bounds is not None
    return _One(distress, lower, upper, residual, state.rounds, ending.status, certified=certified)


def _bounds(state: _Climb, start: Floats, image: Floats, rounding: float) -> _Bounds:
    """Bound the solution from p and F^k(p), f = F^k(0): p / (1 + max r^- / f) to p / (1 - max r^+ / f)."""
    assert state.least is not None
    error, some = state.power * rounding, state.least > 0
    if error >= 0.5:
        return _Bounds(np.zeros(len(start)), np.where(some, 1.0, 0.0))
    certain = state.least[some] * (1 - error)
    margin = error * np.maximum(start, image)[some]
    rise = image[some] - start[some]
    below = float(((np.maximum(-rise, 0.0) + margin) / certain).max(initial=0.0))
    above = float(((np.maximum(rise, 0.0) + margin) / certain).max(initial=0.0))
    lower = start / (1 + below) * (1 - 4 * EPS)
    upper = start / (1 - above) * (1 + 4 * EPS) if above < 1 else np.where(some, 1.0, 0.0)
    return _Bounds(lower, np.minimum(upper, 1.0), 2 * float((margin / certain).max(initial=0.0)) + 8 * EPS)


def _solved(into: Any, shock: Floats, below: Floats) -> Floats | None:
    """Solve the nodes not at 1 exactly, the others being at 1; whoever is then above 1 joins these. A guess only."""
    from scipy.sparse.linalg import bicgstab, splu

    full, distress = below >= 1.0, below.copy()
    for _ in range(SOLVES):
        part = ~full & (below > 0)
        if not part.any():
            return np.where(full, 1.0, distress)
        matrix = (scipy.sparse.eye_array(int(part.sum())) - into[part][:, part]).tocsc()
        right = shock[part] + into[part] @ full.astype(float)
        try:
            if len(right) <= DIRECT_SIZE or matrix.nnz <= 4 * len(right):
                found = splu(matrix).solve(right)
            else:
                found, _ = bicgstab(matrix, right, x0=below[part], rtol=1e-14, maxiter=500)
        except RuntimeError:  # exactly singular
            return None
        if not np.isfinite(found).all():
            return None
        distress[full], distress[part] = 1.0, np.clip(found, below[part], 1.0)
        # a negative value says that the nodes left amplify: all distress there ends at 1
        over = (found >= 1.0) | (found < 0)
        if not over.any():
            return distress
        full[np.flatnonzero(part)[over]] = True
    return distress


# --------------------------------------------------------------------------------------------------------- single hit


def _walk_all(impact: Any, shocks: Floats) -> _Spread:
    size = shocks.shape[1]
    distress, rounds = np.empty_like(shocks), np.zeros(size, dtype=np.int64)
    if size >= BATCH:
        from netcontagion.clearing._debtrank_kernels import walk_scenarios

        given = *_compressed(impact.T.tocsr()), *_compressed(impact), shocks, distress, rounds
        _side_by_side(functools.partial(walk_scenarios, *given), size)
    else:
        rows = Claims(impact, np.ones(impact.shape[0]))
        for column in range(size):
            distress[:, column], rounds[column] = _walk(rows, shocks[:, column])
    statuses = (Status.SETTLED,) * size
    return _Spread(distress, distress, distress, np.zeros(size), rounds, statuses, np.zeros(size, bool))


def _walk(rows: Claims, shock: Floats) -> tuple[Floats, int]:
    """Let every node pass its distress on once, in the step after it is first distressed."""
    distress, fresh = shock.copy(), shock == 0

    def step(active: NDArray[np.intp]) -> tuple[NDArray[np.intp], float, Status | None]:
        reached, impact = rows.of(active)
        received = impact * np.repeat(distress[active], rows.counts[active])
        touched, place = np.unique(reached, return_inverse=True)
        more = np.bincount(place, weights=received, minlength=len(touched))
        distress[touched] = np.minimum(1.0, distress[touched] + more)
        new = touched[fresh[touched] & (distress[touched] > 0)]
        fresh[new] = False
        return new, float(len(new)), None if len(new) else Status.SETTLED

    ending = iterate(step, np.flatnonzero(shock), max_rounds=len(shock) + 1)
    return distress, ending.rounds
