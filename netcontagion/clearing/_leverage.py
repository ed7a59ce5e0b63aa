"""Fire sales of banks that must keep their leverage below a limit: least and greatest equilibrium of falls in price."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from netcontagion.clearing._impact import FORMS
from netcontagion.clearing._sale_input import AMOUNT, DEPTH, Bounds, Reader, labelled
from netcontagion.clearing._sale_solver import Monotone, solve_monotone
from netcontagion.clearing._shares import SOLVENCY_TOLERANCE
from netcontagion.clearing._system import EPS
from netcontagion.errors import NotSettledError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from netcontagion._status import Status
    from netcontagion.clearing._sale_solver import Enclosed
    from netcontagion.clearing._system import Floats

__all__ = ["LeverageEquilibria", "LeverageEquilibrium", "leverage_fire_sale"]

LEVERAGE = Bounds("finite, at least 1", 1.0, np.inf)
ANY = Bounds("finite", -np.inf, np.inf)
SAME_ROOT = 1e-12  # falls in price nearer than this are one


@dataclass(frozen=True, eq=False)
class LeverageEquilibrium:
    """One equilibrium: falls in price, who sells which part of its securities, and what is left of the equity.

    Attributes
    ----------
    price_fall : ndarray or Series (m,)
        Fall of each price, as a share of the price before.
    sold_part : ndarray or Series (n,)
        Part of its securities that each bank sells (theta).
    sold : ndarray or Series (m,)
        What is sold of each security, in money at the prices before.
    equity : ndarray or Series (n,)
        Equity less the fall in value of all securities held before, in money; may be negative.
    lower, upper : ndarray (m,)
        Proved bounds of the falls in price.
    width, residual : float
        Largest ``upper - lower``, and how much one more round moves a price.
    iterations : int
        Rounds.
    status : Status
        How the solve ended.
    """

    price_fall: Any
    sold_part: Any
    sold: Any
    equity: Any
    lower: Floats
    upper: Floats
    width: float
    residual: float
    iterations: int
    status: Status


@dataclass(frozen=True, eq=False)
class LeverageEquilibria:
    """The least and the greatest equilibrium; every other one lies between them.

    Attributes
    ----------
    least, greatest : LeverageEquilibrium
        With the least and with the greatest falls in price.
    unique : bool
        Whether both are the same, to the width asked for; then there is no other.
    price_falls : ndarray (k,) or None
        With one security: the falls in price of all equilibria, rising.
    stable : ndarray of bool (k,) or None
        With one security: whether a small deviation of the price dies out.
    """

    least: LeverageEquilibrium
    greatest: LeverageEquilibrium
    unique: bool
    price_falls: Floats | None = None
    stable: Any = None

    def __repr__(self) -> str:
        falls = [float(np.max(one.price_fall, initial=0.0)) for one in (self.least, self.greatest)]
        kind = "one equilibrium" if self.unique else "several equilibria"
        found = "" if self.price_falls is None else f"; all falls found: {self.price_falls.tolist()}"
        return (
            f"LeverageEquilibria: {kind}, largest fall in price {falls[0]:.6g} (least) to {falls[1]:.6g} (greatest)"
            f"{found}; {self.least.status}, {self.greatest.status}"
        )


def leverage_fire_sale(
    securities: Any,
    equity: ArrayLike,
    other_assets: ArrayLike,
    *,
    depth: ArrayLike,
    leverage_limit: ArrayLike,
    impact: str = "square_root",
    rtol: float = 1e-10,
    max_rounds: int = 10_000,
    strict: bool = True,
) -> LeverageEquilibria:
    r"""Find the fire-sale equilibria of banks with a leverage limit (Breuer, Summer and Urosevic).

    When prices fall by the shares ``delta_k``, bank i with securities ``S_ik``, equity ``e_i``, other assets ``l_i``
    and limit ``b_i`` sells the part of its securities that brings assets down to ``b_i`` times its equity,

    ``theta_i = clip(1 - (b_i (e_i - sum_k S_ik delta_k) - l_i) / sum_k S_ik (1 - delta_k), 0, 1)``,

    everything where its equity is gone; what is sold, ``q_k = sum_i theta_i S_ik``, makes
    ``delta_k = 1 - f(q_k / D_k)``.

    Parameters
    ----------
    securities : array_like or sparse (n, m)
        Securities of each bank (row) that can be sold, in money at the prices before; not negative.
    equity : array_like (n,)
        Equity of each bank after the shock and before the sales, in money; may be negative.
    other_assets : array_like (n,)
        Loans and all else that is not sold, in money.
    depth : array_like (m,)
        Depth D of each security, in money; ``inf`` for no impact. See :func:`square_root_depth`.
    leverage_limit : float or array_like (n,)
        Largest ratio of assets to equity; at least 1.
    impact : {"square_root", "linear", "exponential"}
        Form f: ``1 - sqrt(z)``, ``1 - z`` (not below 0) or ``exp(-z)``.
    rtol : float
        Width of the bounds, in shares of the price, at which an equilibrium has settled.
    max_rounds : int
        Most rounds for each equilibrium.
    strict : bool
        Raise when an equilibrium does not settle, instead of returning what was reached.

    Returns
    -------
    LeverageEquilibria
        The least and the greatest, whether they are the same, and with one security all of them.

    Raises
    ------
    SchemaError
        Listing everything that is wrong with the numbers.
    ValueError
        An option that is not one of those allowed.
    NotSettledError
        With ``strict``, when a solve ended without an answer; its ``result`` holds what was reached.

    Notes
    -----
    The map from falls to falls is increasing. Iteration from 0 leads to the least equilibrium and from the fall when
    all is sold to the greatest; both are enclosed by proof. A square-root impact has an infinite slope at 0: a part
    sold of up to 1e-12 counts as none, where rounding would otherwise move prices.

    References
    ----------
    Breuer, T., Summer, M., Urosevic, B. (2021). Bank solvency stress tests with fire sales. OeNB Working Paper 235.

    Examples
    --------
    >>> from netcontagion.clearing import leverage_fire_sale
    >>> securities, equity, loans = [[145], [435], [300]], [28, 80, 65], [1170, 1245, 1190]
    >>> found = leverage_fire_sale(securities, equity, loans, depth=1 / 2.2e-5, leverage_limit=44)
    >>> found.unique, found.price_falls.round(5).tolist(), found.stable.tolist()
    (False, [0.05648, 0.11409, 0.13914], [True, False, True])
    """
    if impact not in FORMS:
        raise ValueError(f"impact={impact!r} is not one of {', '.join(map(repr, FORMS))}")
    if not rtol > 0 or max_rounds < 1:
        raise ValueError(f"rtol={rtol!r} must be positive and max_rounds={max_rounds!r} at least 1")
    reader = Reader()
    held = reader.holdings("securities", securities)
    own = reader.per_node("equity", equity, ANY, scalar=False)
    other = reader.per_node("other_assets", other_assets, AMOUNT, scalar=False)
    depths = reader.per_asset("depth", depth, DEPTH)
    limit = reader.per_node("leverage_limit", leverage_limit, LEVERAGE)
    reader.done()
    banks = _Banks(held, held.T, own, other, limit, held.sum(axis=0), depths, impact)
    least, greatest = (
        _equilibrium(banks, _solve(banks, rtol, max_rounds, greatest=which), reader.nodes, reader.assets)
        for which in (False, True)
    )
    falls, stable = _all_of_one_security(banks) if held.shape[1] == 1 else (None, None)
    unique = bool(max(np.max(greatest.upper - least.lower, initial=0.0), 0.0) <= 4 * rtol)
    found = LeverageEquilibria(least, greatest, unique, falls, stable)
    for name, one in (("least", least), ("greatest", greatest)):
        if strict and not one.status.settled:
            message = f"leverage_fire_sale: the {name} equilibrium did not settle: {one.status} ({one.status.value})"
            raise NotSettledError(message, found)
    return found


class _Banks(NamedTuple):
    """The banks and the markets of their securities."""

    securities: Any
    by_asset: Any
    equity: Floats
    other: Floats
    limit: Floats
    supply: Floats
    depth: Floats
    impact: str

    def sold_part(self, fall: Floats, sign: float = 0.0) -> Floats:
        """Theta: which part of its securities each bank sells at these falls; maybe rounded up or down."""
        error = sign * self.rounding
        lost, kept = self.securities @ fall, self.securities @ (1 - fall)
        room = self.limit * (self.equity - lost) - self.other
        room = room - error * (self.limit * (np.abs(self.equity) + lost) + self.other)
        part = np.divide(room, kept, out=np.where(room > 0, 1.0, 0.0), where=kept > 0)
        sold = np.clip(1 - part * (1 - np.sign(part) * error), 0.0, 1.0)
        return np.where((np.diff(self.securities.indptr) > 0) & (sold > SOLVENCY_TOLERANCE), sold, 0.0)

    def step(self, fall: Floats, sign: float = 0.0) -> Floats:
        """Return the falls that follow from these falls; maybe rounded up or down."""
        sold = np.minimum(self.by_asset @ self.sold_part(fall, sign) * (1 + sign * self.rounding), self.supply)
        return np.clip(self.fall_of(sold) * (1 + 8 * EPS * sign), 0.0, 1.0)

    def fall_of(self, sold: Floats) -> Floats:
        """Fall of each price when this is sold."""
        used = sold / self.depth
        if self.impact == "exponential":
            return np.asarray(-np.expm1(-used))
        return np.asarray(np.minimum(used if self.impact == "linear" else np.sqrt(used), 1.0))

    @property
    def rounding(self) -> float:
        """Bound of the relative error of one round."""
        most = np.bincount(self.securities.indices).max(initial=0) + np.diff(self.securities.indptr).max(initial=0)
        return float(most + 16) * EPS


def _solve(banks: _Banks, rtol: float, max_rounds: int, *, greatest: bool) -> Enclosed:
    def distance(one: Floats, other: Floats) -> float:
        return float(np.abs(one - other).max(initial=0.0))

    top = np.minimum(banks.fall_of(banks.supply) * (1 + 8 * EPS), 1.0)
    problem = Monotone(banks.step, banks.step, top, np.zeros(len(top)), distance, distance)
    return solve_monotone(problem, greatest=greatest, rtol=rtol, max_rounds=max_rounds)


def _equilibrium(banks: _Banks, solved: Enclosed, nodes: Any, assets: Any) -> LeverageEquilibrium:
    fall = solved.state
    part = banks.sold_part(fall)
    return LeverageEquilibrium(
        price_fall=labelled(fall, assets),
        sold_part=labelled(part, nodes),
        sold=labelled(banks.by_asset @ part, assets),
        equity=labelled(banks.equity - banks.securities @ fall, nodes),
        lower=solved.lower,
        upper=solved.upper,
        width=solved.width,
        residual=solved.residual,
        iterations=solved.rounds,
        status=solved.status,
    )


# ------------------------------------------------------------------------------------------------------- one security


def _all_of_one_security(banks: _Banks) -> tuple[Floats, Any]:
    """Find every equilibrium of one security, and whether it is stable.

    Between the falls at which a bank begins or ends to sell, what is sold is ``C + A / y`` in the price left y, and
    what is bought at y is ``D g(y)``; their difference has few turning points, all known, so between two neighbours
    there is at most one root.
    """
    places = _turning_points(banks)
    gaps = np.array([_excess(banks, place) for place in places])
    roots = [float(place) for place, gap in zip(places, gaps, strict=True) if abs(gap) <= 4 * EPS]
    from scipy.optimize import brentq

    for left, right, before, after in zip(places[:-1], places[1:], gaps[:-1], gaps[1:], strict=True):
        if before * after < 0 and min(abs(before), abs(after)) > 4 * EPS:
            roots.append(float(brentq(lambda fall: _excess(banks, fall), left, right, xtol=1e-15, rtol=4 * EPS)))
    found = np.array(sorted(roots))
    found = found[np.append(True, np.diff(found) > SAME_ROOT)] if len(found) else found
    return found, np.array([_stable(banks, fall, found) for fall in found], dtype=bool)


def _excess(banks: _Banks, fall: float) -> float:
    """How much further the price falls than by ``fall`` when it falls by that."""
    return float(banks.step(np.array([fall]))[0] - fall)


def _stable(banks: _Banks, fall: float, others: Floats) -> bool:
    """Whether a price a little higher falls, and one a little lower rises."""
    away = np.abs(others - fall)
    near = min(1e-6, float(away[away > 0].min(initial=1.0)) / 4)
    high, low = fall - near, fall + near
    return bool((high < 0 or _excess(banks, high) > 0) and (low > 1 or _excess(banks, low) < 0))


def _turning_points(banks: _Banks) -> Floats:
    """Falls between which what is sold less what is bought is monotone."""
    held = np.ravel(banks.securities.sum(axis=1))
    room = banks.limit * banks.equity - banks.other
    with np.errstate(divide="ignore", invalid="ignore"):
        ends = room / (banks.limit * held)
        starts = (room - held) / ((banks.limit - 1) * held)
    top = float(banks.fall_of(banks.supply)[0])
    kinks = np.concatenate([[0.0, top], ends, starts])
    kinks = np.unique(kinks[np.isfinite(kinks) & (kinks >= 0) & (kinks <= top)])
    depth, extra = float(banks.depth[0]), [kinks]
    for left, right in pairwise(kinks):
        partial = (held > 0) & np.isfinite(ends) & (ends > (left + right) / 2) & (starts < (left + right) / 2)
        whole = (held > 0) & ~partial & (banks.sold_part(np.array([(left + right) / 2])) >= 1)
        level = float(held[whole].sum() + held[partial].sum() - (banks.limit * held)[partial].sum())
        slope = float((banks.limit * held - room)[partial].sum())
        left_over = _turns(depth, level, slope, banks.impact)
        extra.append(1 - left_over[(left_over > 1 - right) & (left_over < 1 - left)])
    return np.unique(np.concatenate(extra))


def _turns(depth: float, level: float, slope: float, impact: str) -> Floats:
    """Prices left y at which ``y D g(y) - level y - slope`` turns (exponential: without the factor y)."""
    if not np.isfinite(depth):
        return np.zeros(0)
    if impact == "exponential":
        return np.array([slope / depth])
    if impact == "linear":
        return np.array([(1 - level / depth) / 2])
    inside = 4.0 - 3.0 * (1 - level / depth)
    return np.array([(2 - np.sqrt(inside)) / 3, (2 + np.sqrt(inside)) / 3]) if inside >= 0 else np.zeros(0)
