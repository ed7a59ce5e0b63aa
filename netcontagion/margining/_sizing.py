"""How much must be closed, and when closing stops helping: the closed forms behind margin calls and liquidations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion.margining._given import AMOUNT, POSITIVE, Given

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

__all__ = [
    "closeout_deficit",
    "collateral_liquidation_price",
    "health_after_repayment",
    "jump_to_bad_debt",
    "lltv_bonus",
    "minimal_sale",
    "repay_to_target",
    "toxic_health",
]

_ROUNDING = 1e-12  # relative: a sale of everything, and a repayment of everything, are possible ones


def minimal_sale(
    assets: ArrayLike, equity: ArrayLike, *, margin: ArrayLike, cost: ArrayLike = 0.0, target: ArrayLike = 1.0
) -> Any:
    """Find the least sale that restores a margin requirement.

    A sale of x costs phi x, so equity is E - phi x and assets are A - x. The least x with E - phi x >= theta m (A - x)
    is x = (theta m A - E)+ / (theta m - phi). With ``margin`` = 1 / L it restores the leverage L.

    Parameters
    ----------
    assets : array_like
        A >= 0, value of what the margin is asked for [num].
    equity : array_like
        E, of any sign [num].
    margin : array_like
        m in (0, 1], requirement per unit of assets.
    cost : array_like, default 0
        phi in [0, 1), cost of selling a unit of value, impact included.
    target : array_like, default 1
        theta >= 1, requirement to restore over requirement.

    Returns
    -------
    float or ndarray
        Sale [num], shaped as the arguments broadcast; 0 where nothing is missing, inf where even the sale of
        everything is not enough (E < phi A): such an account must be closed.

    Raises
    ------
    SchemaError
        Numbers outside of these ranges; every one of them is listed.

    References
    ----------
    Greenwood, Landier, Thesmar, Journal of Financial Economics 115 (2015), doi:10.1016/j.jfineco.2014.11.006, for
    leverage targets; the cost term is own algebra.

    Examples
    --------
    >>> minimal_sale(1000.0, 30.0, margin=0.05, cost=0.01)
    500.0
    """
    given = Given("minimal_sale")
    a = given.numbers("assets", assets, AMOUNT)
    e = given.numbers("equity", equity)
    m = given.numbers("margin", margin, "(0, 1]")
    phi = given.numbers("cost", cost, "[0, 1)")
    theta = given.numbers("target", target, "[1, inf)")
    given.done()
    missing = theta * m * a - e
    with np.errstate(divide="ignore", invalid="ignore"):
        sale = missing / (theta * m - phi)
    possible = e >= phi * a - _ROUNDING * a
    return _plain(np.where(missing <= 0.0, 0.0, np.where(possible, np.minimum(sale, a), np.inf)))


def repay_to_target(
    collateral: ArrayLike, debt: ArrayLike, threshold: ArrayLike, bonus: ArrayLike, *, target: ArrayLike = 1.0
) -> Any:
    """Find the repayment by a fixed-spread liquidator that restores a health.

    r = (H D - LT C) / (H - LT (1 + b)), from the health LT (C - r (1 + b)) / (D - r) after it.

    Parameters
    ----------
    collateral, debt : array_like
        C >= 0 and D >= 0 [num].
    threshold : array_like
        LT in [0, 1).
    bonus : array_like
        b >= 0; LT (1 + b) must be below the target, or no repayment restores it.
    target : array_like, default 1
        H >= 1.

    Returns
    -------
    float or ndarray
        Repayment [num]; 0 where health is at the target, inf where collateral ends first (C < (1 + b) D).

    Raises
    ------
    SchemaError
        Numbers outside of these ranges; every one of them is listed.

    References
    ----------
    Qin, Zhou, Gamito, Jovanovic, Gervais, An empirical study of DeFi liquidations (2021),
    doi:10.1145/3487552.3487811, for fixed-spread liquidations; the formula follows by algebra.

    Examples
    --------
    >>> round(repay_to_target(1e5, 85e3, 0.83, 0.05, target=1.05), 4)
    35014.0056
    """
    given = Given("repay_to_target")
    c = given.numbers("collateral", collateral, AMOUNT)
    d = given.numbers("debt", debt, AMOUNT)
    lt = given.numbers("threshold", threshold, "[0, 1)")
    b = given.numbers("bonus", bonus, AMOUNT)
    h = given.numbers("target", target, "[1, inf)")
    given.done()
    _refuse(given, "bonus", lt * (1.0 + b) >= h, "threshold x (1 + bonus) below the target")
    missing = h * d - lt * c
    possible = c >= d * (1.0 + b) * (1.0 - _ROUNDING)
    repaid = np.minimum(missing / (h - lt * (1.0 + b)), d)
    return _plain(np.where(missing <= 0.0, 0.0, np.where(possible, repaid, np.inf)))


def health_after_repayment(
    collateral: ArrayLike, debt: ArrayLike, threshold: ArrayLike, bonus: ArrayLike, *, repaid: ArrayLike
) -> Any:
    """Compute health after a fixed-spread liquidation: LT (C - r (1 + b)) / (D - r).

    It rises exactly where health before is above LT (1 + b), :func:`toxic_health`.

    Parameters
    ----------
    collateral, debt : array_like
        C >= 0 and D >= 0 [num].
    threshold, bonus : array_like
        LT in [0, 1) and b >= 0.
    repaid : array_like
        r in [0, min(D, C / (1 + b))] [num].

    Returns
    -------
    float or ndarray
        Health; inf where no debt is left.

    Raises
    ------
    SchemaError
        Numbers outside of these ranges; every one of them is listed.

    Examples
    --------
    >>> health_after_repayment(100.0, 82.0, 0.8, 0.05, repaid=41.0)
    1.111219512195122
    """
    given = Given("health_after_repayment")
    c = given.numbers("collateral", collateral, AMOUNT)
    d = given.numbers("debt", debt, AMOUNT)
    lt = given.numbers("threshold", threshold, "[0, 1)")
    b = given.numbers("bonus", bonus, AMOUNT)
    r = given.numbers("repaid", repaid, AMOUNT)
    given.done()
    most = np.minimum(d, c / (1.0 + b))
    _refuse(given, "repaid", r > most * (1.0 + _ROUNDING), "at most min(D, C / (1 + b))")
    left, owed = np.maximum(c - r * (1.0 + b), 0.0), np.maximum(d - r, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return _plain(np.where(owed > 0.0, lt * left / owed, np.inf))


def toxic_health(threshold: ArrayLike, bonus: ArrayLike) -> Any:
    """Compute the health below which every liquidation at a fixed spread makes health worse: LT (1 + b).

    A sound market has it below 1. For Morpho's bonus it is LLTV x incentive.

    Parameters
    ----------
    threshold, bonus : array_like
        LT in [0, 1) and b >= 0.

    Returns
    -------
    float or ndarray
        Health.

    Raises
    ------
    SchemaError
        Numbers outside of these ranges; every one of them is listed.

    Examples
    --------
    >>> toxic_health(0.8, 0.05)
    0.8400000000000001
    """
    given = Given("toxic_health")
    lt = given.numbers("threshold", threshold, "[0, 1)")
    b = given.numbers("bonus", bonus, AMOUNT)
    given.done()
    return _plain(lt * (1.0 + b))


def jump_to_bad_debt(threshold: ArrayLike, bonus: ArrayLike, *, health: ArrayLike = 1.0) -> Any:
    """Compute the fall of the collateral's price beyond which a full close-out leaves bad debt: 1 - LT (1 + b) / HF.

    Parameters
    ----------
    threshold, bonus : array_like
        LT in [0, 1) and b >= 0.
    health : array_like, default 1
        HF > 0 before the fall.

    Returns
    -------
    float or ndarray
        Relative fall; negative where a close-out leaves bad debt already.

    Raises
    ------
    SchemaError
        Numbers outside of these ranges; every one of them is listed.

    Examples
    --------
    >>> round(jump_to_bad_debt(0.8, 0.05), 12)
    0.16
    """
    given = Given("jump_to_bad_debt")
    lt = given.numbers("threshold", threshold, "[0, 1)")
    b = given.numbers("bonus", bonus, AMOUNT)
    h = given.numbers("health", health, POSITIVE)
    given.done()
    return _plain(1.0 - lt * (1.0 + b) / h)


def closeout_deficit(collateral: ArrayLike, debt: ArrayLike, bonus: ArrayLike) -> Any:
    """Compute the bad debt that a full close-out at a fixed spread leaves: max(0, D - C / (1 + b)).

    Parameters
    ----------
    collateral, debt : array_like
        C >= 0 and D >= 0 [num].
    bonus : array_like
        b >= 0.

    Returns
    -------
    float or ndarray
        Bad debt [num].

    Raises
    ------
    SchemaError
        Numbers outside of these ranges; every one of them is listed.

    Examples
    --------
    >>> round(closeout_deficit(1e5, 98e3, 0.05), 4)
    2761.9048
    """
    given = Given("closeout_deficit")
    c = given.numbers("collateral", collateral, AMOUNT)
    d = given.numbers("debt", debt, AMOUNT)
    b = given.numbers("bonus", bonus, AMOUNT)
    given.done()
    return _plain(np.maximum(d - c / (1.0 + b), 0.0))


def collateral_liquidation_price(units: ArrayLike, debt: ArrayLike, threshold: ArrayLike) -> Any:
    """Compute the price at which a loan on one collateral has health 1: P = D / (LT x units).

    Parameters
    ----------
    units : array_like
        Units of the collateral, >= 0.
    debt : array_like
        D >= 0 [num], of stable value.
    threshold : array_like
        LT in [0, 1).

    Returns
    -------
    float or ndarray
        Price [num/unit]; 0 where nothing is owed, inf where debt has no collateral that counts.

    Raises
    ------
    SchemaError
        Numbers outside of these ranges; every one of them is listed.

    Examples
    --------
    >>> collateral_liquidation_price(2.0, 2400.0, 0.8)
    1500.0
    """
    given = Given("collateral_liquidation_price")
    q = given.numbers("units", units, AMOUNT)
    d = given.numbers("debt", debt, AMOUNT)
    lt = given.numbers("threshold", threshold, "[0, 1)")
    given.done()
    with np.errstate(divide="ignore", invalid="ignore"):
        return _plain(np.where(d > 0.0, d / (lt * q), 0.0))


def lltv_bonus(threshold: ArrayLike, *, cursor: ArrayLike = 0.3, cap: ArrayLike = 0.15) -> Any:
    """Compute the bonus that follows from the threshold: min(1 + cap, 1 / (1 - cursor (1 - LT))) - 1.

    Parameters
    ----------
    threshold : array_like
        LT in [0, 1), Morpho's LLTV.
    cursor : array_like, default 0.3
        In [0, 1).
    cap : array_like, default 0.15
        Largest bonus, >= 0.

    Returns
    -------
    float or ndarray
        Bonus b; the incentive is 1 + b.

    Raises
    ------
    SchemaError
        Numbers outside of these ranges; every one of them is listed.

    References
    ----------
    morpho-org/morpho-blue, ConstantsLib (LIQUIDATION_CURSOR, MAX_LIQUIDATION_INCENTIVE_FACTOR).

    Examples
    --------
    >>> round(lltv_bonus(0.86), 5)
    0.04384
    """
    given = Given("lltv_bonus")
    lt = given.numbers("threshold", threshold, "[0, 1)")
    k = given.numbers("cursor", cursor, "[0, 1)")
    most = given.numbers("cap", cap, AMOUNT)
    given.done()
    return _plain(np.minimum(most, 1.0 / (1.0 - k * (1.0 - lt)) - 1.0))


def _refuse(given: Given, name: str, bad: Any, allowed: str) -> None:
    """Refuse the numbers of one argument that do not go with the others."""
    values = np.broadcast_to(given.read[name], np.shape(bad)).ravel()
    for row in np.flatnonzero(bad).tolist():
        given.refuse(name, row if np.ndim(bad) else None, float(values[row]), allowed, f"correct {name}")
    given.done()


def _plain(values: Floats) -> Any:
    """Return a float where the arguments were numbers."""
    return values if np.ndim(values) else float(values)
