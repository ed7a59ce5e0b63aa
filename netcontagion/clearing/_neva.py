"""Network valuation (NEVA): claims worth what a valuation function makes of the debtor's equity."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from netcontagion._iterate import iterate
from netcontagion._status import Status
from netcontagion.clearing._input import EXTREMES, RANKS
from netcontagion.clearing._linear import ROUNDING_RESIDUAL
from netcontagion.clearing._node_input import Column, checked_nodes
from netcontagion.clearing._outcome import Outcome, result_of
from netcontagion.clearing._shares import SOLVENCY_TOLERANCE
from netcontagion.clearing._system import EPS
from netcontagion.clearing._valuations import BalanceSheets, EisenbergNoe, LinearDebtRank, RogersVeraart

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike

    from netcontagion._iterate import Ending
    from netcontagion.clearing._result import ClearingResult
    from netcontagion.clearing._system import Floats
    from netcontagion.clearing._valuations import Valuation

__all__ = ["neva"]

PATIENCE = 200
"""Rounds without progress after which a valuation that promises no monotony counts as stalled."""
BRACKET_ROUNDS = 1_000
CALIBRATED = 1e-14
"""Change of the calibrated assets, relative to the balance sheet, below which they stand."""


def neva(
    liabilities: Any,
    external_assets: ArrayLike,
    external_liabilities: ArrayLike | None = None,
    *,
    valuation: Valuation | Callable[[Any, Any], Any],
    external_rank: str = "pari_passu",
    assets_before: ArrayLike | None = None,
    calibrate: bool = False,
    which: str = "greatest",
    rtol: float = 1e-10,
    max_rounds: int = 10_000,
    strict: bool = True,
) -> ClearingResult:
    r"""Value a network of debt: ``E_j = A_j - B_j - sum_k L_jk + sum_i L_ij V_i(E_i)``.

    A are external assets, B external liabilities, and ``V_i(E_i)`` in [0, 1] is what a unit of i's debt is worth when
    its equity is E_i. The greatest solution is found by iteration from book equity (every V at 1) downwards, the least
    from every V at 0 upwards.

    Parameters
    ----------
    liabilities : array_like or sparse (n, n)
        What row i owes column j, in money; not negative, nothing on the diagonal.
    external_assets : array_like (n,) or (n, s)
        Assets outside the network after the shock, in money, not negative; s columns are s scenarios.
    external_liabilities : array_like (n,), optional
        What each node owes outside the network, in money; nothing where omitted.
    valuation : callable
        ``EisenbergNoe()``, ``RogersVeraart(alpha, beta)``, ``Furfine(recovery)``, ``LinearDebtRank()``,
        ``ExAnteMerton(volatility, recovery)``, ``BlackCox(volatility, recovery)``, or any
        ``valuation(equity, sheets) -> values`` from signed equity (n,) and :class:`BalanceSheets` to numbers (n,) in
        [0, 1]. Only one with an attribute ``monotone = True`` (it does not fall when equity rises) has extremes and is
        bracketed.
    external_rank : {"pari_passu", "senior"}
        Whether external creditors are paid in proportion with the others or before them: decides which dues the
        valuation sees.
    assets_before : array_like (n,), optional
        External assets before the shock. ``LinearDebtRank`` divides by the book equity they give; ``calibrate`` makes
        that equity consistent.
    calibrate : bool
        Add to the external assets what the claims are worth less than face when every node has its book equity before
        the shock, ``sum_i L_ij (1 - V_i(E_i))``: then that book equity is a solution without a shock, and every loss is
        due to the shock. Volatilities stay as given. The greatest solution is then the greatest that is not above the
        book equity after the shock.
    which : {"greatest", "least"}
        Which solution where there are several.
    rtol : float
        Width of the bracket of the values, relative to the dues, at which a solve has settled; for a valuation that
        promises no monotony the last change.
    max_rounds : int
        Most rounds per scenario.
    strict : bool
        Raise when a scenario does not settle, instead of returning what was reached.

    Returns
    -------
    ClearingResult
        ``recovery_rate`` is what a unit of a node's debt is worth, ``payments`` that value of all its dues,
        ``net_worth`` the signed equity E. With an ex-ante valuation these are values today, not payments.

    Raises
    ------
    SchemaError
        Listing everything that is wrong with the numbers.
    ValueError
        An option that is not allowed, or a valuation that returns something else than (n,) numbers in [0, 1].
    NotSettledError
        With ``strict``, when the solve ended without an answer; its ``result`` holds what was reached.

    Notes
    -----
    A node is solvent when its equity is at least 0, up to 1e-12 of what it owes. The bracket is verified: monotone runs
    from below and from above, rounded outwards. Convergence is linear; for Eisenberg-Noe and Rogers-Veraart the
    functions of that name solve exactly.

    References
    ----------
    Barucca, P., Bardoscia, M., Caccioli, F., D'Errico, M., Visentin, G., Battiston, S., Caldarelli, G. (2020). Network
    valuation in financial systems. Mathematical Finance 30(4), 1181-1204. https://doi.org/10.1111/mafi.12272

    Examples
    --------
    >>> from netcontagion.clearing import EisenbergNoe, neva
    >>> cycle = [[0, 4, 0], [0, 0, 3], [2, 0, 0]]
    >>> neva(cycle, [18, 18, 9], [17, 18, 8], valuation=EisenbergNoe(), external_rank="senior").net_worth.tolist()
    [-1.0, 0.0, 2.0]
    """
    _check_options(external_rank, which, rtol, max_rounds, calibrate=calibrate, before=assets_before)
    if not callable(valuation):
        raise ValueError(f"valuation={valuation!r} is not callable: give EisenbergNoe() or a function")  # noqa: TRY004
    network = _Network.read(liabilities, external_assets, external_liabilities, external_rank, assets_before)
    if isinstance(valuation, LinearDebtRank):
        network.check_equity_before()
    limits = _Limits(which, rtol, max_rounds)
    added, failed = _calibration(network, valuation, limits) if calibrate else (None, None)
    assets = network.assets if added is None else (network.assets.T + added).T
    outcomes = []
    for given, column in zip(np.atleast_2d(network.assets.T), np.atleast_2d(assets.T), strict=True):
        problem = _Valued(network, column, valuation)
        start = None if added is None else problem.book_value(given)
        known = start is not None and which == "greatest" and bool((given == network.before).all())
        one = _solve(problem, limits, start, known=known)
        outcomes.append(one if failed is None else one._replace(status=failed))
    result = result_of(
        outcomes,
        model="neva",
        owed=network.owed,
        assets=assets,
        external=network.external,
        external_rank=external_rank,
        which=which,
        labels=network.labels,
        conserves=getattr(valuation, "conserves", False),
        limited=isinstance(valuation, (EisenbergNoe, RogersVeraart)),
        tolerance=max(SOLVENCY_TOLERANCE, 10 * rtol if which == "least" else 0.0),
        assumptions=tuple(_assumptions(valuation, added, told_external=external_liabilities is not None)),
    )
    return result.raise_for_status() if strict else result


def _check_options(rank: str, which: str, rtol: float, max_rounds: int, *, calibrate: bool, before: Any) -> None:
    for name, value, allowed in (("external_rank", rank, RANKS), ("which", which, EXTREMES)):
        if value not in allowed:
            raise ValueError(f"{name}={value!r} is not one of {', '.join(map(repr, allowed))}")
    if not rtol > 0:
        raise ValueError(f"rtol={rtol!r} must be positive")
    if max_rounds < 1:
        raise ValueError(f"max_rounds={max_rounds!r} must be at least 1")
    if calibrate and before is None:
        raise ValueError("calibrate=True needs assets_before: the external assets of the system without the shock")


def _assumptions(valuation: Any, added: Floats | None, *, told_external: bool) -> list[str]:
    name = type(valuation).__name__ if hasattr(type(valuation), "monotone") else getattr(valuation, "__name__", "given")
    said = [f"debt is valued by {name}"]
    if getattr(valuation, "ex_ante", False):
        said.append("payments are values before maturity: debt can be worth less than face though nobody is insolvent")
    if added is not None:
        said.append(f"external assets are calibrated: {added.sum():.6g} added, so that book equities hold unshocked")
    if not told_external:
        said.append("no external liabilities were given: all debt is owed inside the network")
    return said


# ---------------------------------------------------------------------------------------------------------- the network


class _Limits(NamedTuple):
    which: str
    rtol: float
    max_rounds: int


class _Network(NamedTuple):
    """What all scenarios share."""

    owed: Any
    assets: Floats
    external: Floats
    before: Floats | None
    senior: bool
    labels: Any

    @classmethod
    def read(cls, liabilities: Any, assets: Any, external: Any, rank: str, before: Any) -> _Network:
        columns = {
            "external_assets": Column(np.nan if assets is None else assets, least=0.0),
            "external_liabilities": Column(external, least=0.0, dimensions=(1,)),
            "assets_before": Column(before, least=0.0, dimensions=(1,)),
        }
        owed, found, labels = checked_nodes(liabilities, columns)
        outside = found.get("external_liabilities", np.zeros(owed.shape[0]))
        return cls(owed, found["external_assets"], outside, found.get("assets_before"), rank == "senior", labels)

    def book_equity(self, assets: Floats) -> Floats:
        """Equity when every claim is worth its face."""
        equity: Floats = assets + self.owed.sum(axis=0) - self.owed.sum(axis=1) - self.external
        return equity

    def sheets(self, assets: Floats) -> BalanceSheets:
        internal, nothing = self.owed.sum(axis=1), np.zeros(len(self.external))
        before = None if self.before is None else self.book_equity(self.before)
        dues, senior = (internal, self.external) if self.senior else (internal + self.external, nothing)
        return BalanceSheets(assets, dues, senior, before, self.labels)

    def check_equity_before(self) -> None:
        """Refuse what cannot be divided by: with one SchemaError for all nodes."""
        if self.before is None:
            raise ValueError("LinearDebtRank divides by the equity before the shock: give assets_before")
        columns = {"equity before the shock": Column(self.book_equity(self.before), least=0.0, open=True)}
        checked_nodes(self.owed, columns)


def _calibration(network: _Network, valuation: Any, limits: _Limits) -> tuple[Floats, Status | None]:
    """Return what to add to the external assets, and how the search ended where it did not settle."""
    before = network.before
    assert before is not None
    book, owed_to = network.book_equity(before), network.owed.T
    size = before + owed_to.sum(axis=1)
    size = np.where(size > 0, size, 1.0)

    def step(added: Floats) -> tuple[Floats, float]:
        value = _valued(valuation, book, network.sheets(before + added))
        new = owed_to @ (1.0 - value)
        return new, float((np.abs(new - added) / size).max(initial=0.0))

    ending = _until_still(step, np.zeros(len(before)), CALIBRATED, limits.max_rounds)
    return ending.state.value, None if ending.status.settled else ending.status


# ----------------------------------------------------------------------------------------------------------- the solver


class _Tried(NamedTuple):
    value: Floats
    best: float = np.inf
    since: int = 0


def _until_still(
    step: Callable[[Floats], tuple[Floats, float]], first: Floats, least: float, max_rounds: int
) -> Ending[_Tried]:
    """Repeat what promises nothing until it moves no more than ``least``; STALLED where that does not come nearer."""

    def watched(state: _Tried) -> tuple[_Tried, float, Status | None]:
        value, moved = step(state.value)
        since = 0 if moved < state.best else state.since + 1
        ended = Status.SETTLED if moved <= least else Status.STALLED if since >= PATIENCE else None
        return _Tried(value, min(state.best, moved), since), moved, ended

    return iterate(watched, _Tried(first), max_rounds=max_rounds)


def _valued(valuation: Any, equity: Floats, sheets: BalanceSheets) -> Floats:
    """Value debt, and refuse what is no value; where nothing is due it is 1."""
    values = np.asarray(valuation(equity, sheets), dtype=float)
    if values.shape != equity.shape:
        raise ValueError(f"the valuation returned shape {values.shape} for equity of shape {equity.shape}")
    if ((values < -SOLVENCY_TOLERANCE) | (values > 1 + SOLVENCY_TOLERANCE)).any():
        raise ValueError(f"the valuation returned {values.min():.6g} to {values.max():.6g}; allowed: from 0 to 1")
    return np.where(sheets.dues > 0, np.clip(values, 0.0, 1.0), 1.0)


class _Valued:
    """One scenario: the map from values of debt to values of debt."""

    def __init__(self, network: _Network, assets: Floats, valuation: Any) -> None:
        self.valuation, self.owed, self.external, self.senior = (
            valuation,
            network.owed,
            network.external,
            network.senior,
        )
        self.sheets, self.owed_to = network.sheets(assets), network.owed.T
        self.internal: Floats = network.owed.sum(axis=1)
        self.claims: Floats = network.owed.sum(axis=0)
        degrees = np.diff(network.owed.indptr), np.bincount(network.owed.indices, minlength=len(assets))
        self.error = float(sum(degree.max(initial=0) for degree in degrees) + 6) * EPS
        self.monotone = bool(getattr(valuation, "monotone", False))

    def equity(self, value: Floats) -> Floats:
        """Signed equity when debt is worth ``value``."""
        equity: Floats = self.sheets.external_assets + self.owed_to @ value - self.internal - self.external
        return equity

    def next(self, value: Floats, outwards: float = 0.0) -> Floats:
        """Value debt out of the equity that ``value`` gives, maybe rounded up (1) or down (-1)."""
        equity = self.equity(value)
        if not outwards:
            return _valued(self.valuation, equity, self.sheets)
        size = self.sheets.external_assets + self.claims + self.internal + self.external
        equity += outwards * self.error * size
        new = _valued(self.valuation, equity, self.sheets)
        slack = getattr(self.valuation, "slack", None)
        return np.clip(new + outwards * (8 * EPS if slack is None else slack(equity, self.sheets)), 0.0, 1.0)

    def book_value(self, assets: Floats) -> Floats | None:
        """Value of debt at book equity with these external assets; None where it would rise from there."""
        equity = assets + self.claims - self.internal - self.external
        value = _valued(self.valuation, equity, self.sheets)
        return value if (self.next(value) <= value + SOLVENCY_TOLERANCE).all() else None

    def external_share(self, value: Floats) -> Floats | None:
        """Return what a unit of senior external debt gets; None where it ranks with the rest."""
        if not self.senior:
            return None
        equity, estate = self.equity(value), getattr(self.valuation, "estate", None)
        left = equity + self.internal + self.external if estate is None else estate(equity, self.sheets)
        shares = np.divide(left, self.external, out=np.ones(len(left)), where=self.external > 0)
        return np.clip(np.where(self.sheets.solvent(equity), 1.0, shares), 0.0, 1.0)

    def in_all(self, value: Floats, outwards: float = 0.0) -> Floats:
        """Value of a unit of all a node owes, in either rank, maybe rounded outwards."""
        outside, dues = self.external_share(value), self.internal + self.external
        if outside is None:
            return value
        whole = np.divide(value * self.internal + outside * self.external, dues, out=np.ones(len(dues)), where=dues > 0)
        return np.clip(whole * (1 + outwards * self.error), 0.0, 1.0)

    def distance(self, one: Floats, other: Floats) -> float:
        """Largest difference of two values where something is due."""
        return float(np.where(self.sheets.dues > 0, np.abs(one - other), 0.0).max(initial=0.0))


class _Bounds(NamedTuple):
    lower: Floats
    upper: Floats
    width: float


class _State(NamedTuple):
    value: Floats
    target: float
    bounds: _Bounds | None = None


def _solve(problem: _Valued, limits: _Limits, start: Floats | None, *, known: bool) -> Outcome:
    """Solve one scenario, from the values of the start (all 1 where there is none) or, for the least, from 0.

    ``known``: the start is a solution by calibration, if perhaps one that rounding would lead away from.
    """
    top = np.ones(len(problem.internal)) if start is None else start
    if not problem.monotone:
        return _solve_uncertified(problem, limits, top)
    downwards = limits.which == "greatest"
    bottom = np.where(problem.sheets.dues > 0, 0.0, 1.0)

    def step(state: _State) -> tuple[_State, float, Status | None]:
        new = problem.next(state.value)
        new = np.minimum(new, state.value) if downwards else np.maximum(new, state.value)
        residual = problem.distance(new, state.value)
        if known and residual <= SOLVENCY_TOLERANCE:
            new, residual = top, 0.0
        if not residual <= state.target:
            return _State(new, state.target), residual, None
        bounds = _bracket(problem, new, top, bottom, limits.rtol)
        if bounds.width <= limits.rtol or residual <= ROUNDING_RESIDUAL:
            return _State(new, state.target, bounds), residual, Status.SETTLED
        return _State(new, residual * min(0.3, limits.rtol / bounds.width)), residual, None

    ending = iterate(step, _State(top if downwards else bottom, limits.rtol), max_rounds=limits.max_rounds)
    value = ending.state.value
    if ending.status is Status.NONFINITE:
        return _outcome(problem, value, ending.rounds, ending.status)
    bounds = ending.state.bounds or _bracket(problem, value, top, bottom, limits.rtol)
    value = np.clip(value, bounds.lower, bounds.upper)
    doubts: tuple[str, ...] = ()
    if bounds.width > limits.rtol:
        doubts = (f"uncertified: the bracket is {bounds.width:.3g} wide, least and greatest solution may differ",)
    one = _outcome(problem, value, ending.rounds, ending.status)
    lower, upper = problem.in_all(bounds.lower, -1.0), problem.in_all(bounds.upper, 1.0)
    return one._replace(lower=lower, upper=upper, enclosure="bracket", notes=doubts)


def _solve_uncertified(problem: _Valued, limits: _Limits, start: Floats) -> Outcome:
    """Iterate a valuation that promises no monotony until it stands still, or until it is seen not to."""

    def step(value: Floats) -> tuple[Floats, float]:
        new = problem.next(value)
        return new, problem.distance(new, value)

    first = start if limits.which == "greatest" else np.where(problem.sheets.dues > 0, 0.0, 1.0)
    ending = _until_still(step, first, limits.rtol, limits.max_rounds)
    note = "uncertified: the valuation promises no monotony (attribute monotone), the last change decided"
    return _outcome(problem, ending.state.value, ending.rounds, ending.status)._replace(notes=(note,))


def _outcome(problem: _Valued, value: Floats, rounds: int, status: Status) -> Outcome:
    residual = problem.distance(problem.next(value), value)
    return Outcome(value, problem.equity(value), residual, rounds, status, external=problem.external_share(value))


def _bracket(problem: _Valued, value: Floats, top: Floats, bottom: Floats, rtol: float) -> _Bounds:
    """Run from below and from above, rounding outwards, until both are near the values or stand still."""

    def run(start: Floats, sign: float) -> Floats:
        def step(bound: Floats) -> tuple[Floats, float, Status | None]:
            new = problem.next(bound, sign)
            new = np.minimum(new, bound) if sign > 0 else np.maximum(new, bound)
            moved, away = problem.distance(new, bound), problem.distance(new, value)
            return new, moved, Status.SETTLED if away <= rtol / 4 or moved <= EPS else None

        return iterate(step, start, max_rounds=BRACKET_ROUNDS).state

    lower, upper = run(bottom, -1.0), run(top, 1.0)
    return _Bounds(lower, upper, problem.distance(problem.in_all(upper, 1.0), problem.in_all(lower, -1.0)))
