"""Valuation functions of NEVA: what a unit of a node's debt is worth, given its equity and its balance sheet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, final

import numpy as np

from netcontagion.clearing._node_input import per_node
from netcontagion.clearing._shares import SOLVENCY_TOLERANCE
from netcontagion.clearing._system import EPS

if TYPE_CHECKING:
    from netcontagion.clearing._system import Bools, Floats

__all__ = [
    "BalanceSheets",
    "BlackCox",
    "EisenbergNoe",
    "ExAnteMerton",
    "Furfine",
    "LinearDebtRank",
    "RogersVeraart",
    "Valuation",
]


class BalanceSheets(NamedTuple):
    """What a valuation function may know of the nodes beside their equity; arrays (n,) in money.

    Attributes
    ----------
    external_assets : ndarray (n,)
        After the shock (and calibrated, where that was asked for).
    dues : ndarray (n,)
        What is owed in the rank of the claims that are valued: with senior external debt the internal dues, else all.
    senior : ndarray (n,)
        What is owed before: external debt that is senior, else 0.
    equity_before : ndarray (n,) or None
        Book equity before the shock, where ``assets_before`` was given.
    labels : pandas.Index or None
        Names of the nodes.
    """

    external_assets: Floats
    dues: Floats
    senior: Floats
    equity_before: Floats | None = None
    labels: Any = None

    def solvent(self, equity: Floats) -> Bools:
        """Whether equity is at least 0, up to 1e-12 of what is owed."""
        return np.asarray(equity >= -SOLVENCY_TOLERANCE * (self.dues + self.senior))

    def parameter(self, name: str, given: Any, *, most: float = 1.0) -> Floats:
        """Return a parameter of a valuation, one number or one per node, as (n,)."""
        return per_node(name, given, len(self.dues), self.labels, most=most)


class Valuation(Protocol):
    """A function from equity (n,) to what a unit of each node's debt is worth (n,), in [0, 1].

    Any callable will do. One that has an attribute ``monotone = True`` promises not to fall when equity rises, which
    makes the extremes well defined and lets the result be bracketed.
    """

    def __call__(self, equity: Floats, sheets: BalanceSheets, /) -> Floats:
        """Value a unit of each node's debt."""
        ...


@final
@dataclass(frozen=True, eq=False)
class EisenbergNoe:
    """Value debt at what is left to pay it: ``1`` where E >= 0, else ``max(0, (E + d) / d)``."""

    monotone: ClassVar[bool] = True
    conserves: ClassVar[bool] = True

    def __call__(self, equity: Floats, sheets: BalanceSheets, /) -> Floats:
        """Value a unit of each node's debt."""
        return np.where(sheets.solvent(equity), 1.0, _share(equity + sheets.dues, sheets.dues))


@final
@dataclass(frozen=True, eq=False)
class RogersVeraart:
    """Value debt after default costs: ``1`` where E >= 0, else ``(alpha A + beta r - senior) / d`` in [0, 1].

    A are the external assets and r = E + d + senior - A what the claims are worth.
    """

    alpha: Any
    beta: Any
    monotone: ClassVar[bool] = True

    def __call__(self, equity: Floats, sheets: BalanceSheets, /) -> Floats:
        """Value a unit of each node's debt."""
        left = self.estate(equity, sheets) - sheets.senior
        return np.where(sheets.solvent(equity), 1.0, _share(left, sheets.dues))

    def estate(self, equity: Floats, sheets: BalanceSheets) -> Floats:
        """Sum up what there is for creditors of all ranks."""
        whole, assets = equity + sheets.dues + sheets.senior, sheets.external_assets
        alpha, beta = sheets.parameter("alpha", self.alpha), sheets.parameter("beta", self.beta)
        return np.where(sheets.solvent(equity), whole, alpha * assets + beta * np.maximum(whole - assets, 0.0))


@final
@dataclass(frozen=True, eq=False)
class Furfine:
    """Value debt at face where E >= 0, else at a recovery that is given, from 0 to 1."""

    recovery: Any = 0.0
    monotone: ClassVar[bool] = True

    def __call__(self, equity: Floats, sheets: BalanceSheets, /) -> Floats:
        """Value a unit of each node's debt."""
        return np.where(sheets.solvent(equity), 1.0, sheets.parameter("recovery", self.recovery))


@final
@dataclass(frozen=True, eq=False)
class LinearDebtRank:
    """Value debt at the share of equity that is left: ``min(1, max(0, E) / E0)``, E0 the equity before the shock.

    E0 is the book equity before the shock, from ``assets_before``: the convention of Bardoscia et al. To divide by the
    book equity of the shocked sheet instead, as some software does, give the shocked assets as ``assets_before``.
    """

    monotone: ClassVar[bool] = True
    ex_ante: ClassVar[bool] = True

    def __call__(self, equity: Floats, sheets: BalanceSheets, /) -> Floats:
        """Value a unit of each node's debt."""
        if sheets.equity_before is None:
            raise ValueError("LinearDebtRank divides by the equity before the shock: give assets_before")
        if not (sheets.equity_before > 0).all():
            raise ValueError("LinearDebtRank divides by the equity before the shock, which must be more than 0")
        return np.clip(equity / sheets.equity_before, 0.0, 1.0)


@final
@dataclass(frozen=True, eq=False)
class ExAnteMerton:
    r"""Value debt before maturity, external assets A following a geometric Brownian motion of zero drift.

    With Z standard normal and ``E_T = E + A (exp(-s^2 / 2 + s Z) - 1)`` a unit is worth the expectation of 1 where
    E_T >= 0, else of ``recovery * max(0, 1 + E_T / d)``.

    Parameters
    ----------
    volatility : float or array_like (n,)
        s of the external assets until maturity, more than 0.
    recovery : float or array_like (n,)
        Share of the endogenous recovery that is left after the costs of default, from 0 to 1.
    """

    volatility: Any
    recovery: Any = 1.0
    monotone: ClassVar[bool] = True
    ex_ante: ClassVar[bool] = True

    def __call__(self, equity: Floats, sheets: BalanceSheets, /) -> Floats:
        """Value a unit of each node's debt."""
        from scipy.special import ndtr

        spread, recovery = _volatility(sheets, self.volatility), sheets.parameter("recovery", self.recovery)
        assets, dues = sheets.external_assets, sheets.dues
        low, high = (_log_ratio(point, assets) / spread for point in (equity, equity + dues))
        fails = ndtr(low + spread / 2)
        between = fails - ndtr(high + spread / 2)
        mean = ndtr(low - spread / 2) - ndtr(high - spread / 2)
        debt = np.where(dues > 0, dues, 1.0)
        recovered = (1.0 + (equity - assets) / debt) * between + assets / debt * mean
        return np.where(dues > 0, np.clip(1.0 - fails + recovery * recovered, 0.0, 1.0), 1.0)

    def slack(self, equity: Floats, sheets: BalanceSheets) -> Floats:
        """Bound of the rounding of the value."""
        debt = np.where(sheets.dues > 0, sheets.dues, np.inf)
        size = 1.0 + (np.abs(equity) + sheets.external_assets) / debt
        return 32 * EPS * size * (1.0 + 1.0 / _volatility(sheets, self.volatility))


@final
@dataclass(frozen=True, eq=False)
class BlackCox:
    """Value debt when default may come before maturity: ``1 - (1 - recovery) PD``.

    PD is the probability that external assets, a geometric Brownian motion of zero drift, fall by the equity E before
    maturity; 1 where E <= 0.

    Parameters
    ----------
    volatility : float or array_like (n,)
        s of the external assets until maturity, more than 0.
    recovery : float or array_like (n,)
        Value of a unit at default, from 0 to 1.
    """

    volatility: Any
    recovery: Any = 0.0
    monotone: ClassVar[bool] = True
    ex_ante: ClassVar[bool] = True

    def __call__(self, equity: Floats, sheets: BalanceSheets, /) -> Floats:
        """Value a unit of each node's debt."""
        from scipy.special import log_ndtr, ndtr

        spread, recovery = _volatility(sheets, self.volatility), sheets.parameter("recovery", self.recovery)
        log_ratio = _log_ratio(np.maximum(equity, 0.0), sheets.external_assets)
        inside = np.isfinite(log_ratio)
        log_ratio = np.where(inside, log_ratio, 0.0)
        fails = ndtr(log_ratio / spread + spread / 2) + np.exp(log_ndtr(log_ratio / spread - spread / 2) - log_ratio)
        fails = np.where(equity <= 0, 1.0, np.where(inside, np.minimum(fails, 1.0), 0.0))
        return 1.0 - (1.0 - recovery) * fails

    def slack(self, equity: Floats, sheets: BalanceSheets) -> Floats:
        """Bound of the rounding of the value."""
        return np.broadcast_to(64 * EPS * (1.0 + 1.0 / _volatility(sheets, self.volatility)), equity.shape)


def _share(left: Floats, dues: Floats) -> Floats:
    """Divide what is left by the dues, in [0, 1]; 1 where nothing is due."""
    shares = np.divide(left, dues, out=np.ones(np.shape(left)), where=dues > 0)
    return np.clip(shares, 0.0, 1.0)


def _volatility(sheets: BalanceSheets, given: Any) -> Floats:
    return per_node("volatility", given, len(sheets.dues), sheets.labels, least=np.finfo(float).tiny, most=1e6)


def _log_ratio(point: Floats, assets: Floats) -> Floats:
    """Return ln(1 - point / assets): -inf where the point is not below the assets, inf where there are no assets."""
    below = point < assets
    minus = np.divide(-point, assets, out=np.full(np.shape(point), np.inf), where=below & (assets > 0))
    with np.errstate(divide="ignore"):
        return np.where(below, np.log1p(np.where(below, minus, 0.0)), -np.inf)
