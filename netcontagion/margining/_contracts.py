"""Margin arithmetic of derivative contracts on arrays: margin by tiers, gains, closing prices, funding, leverage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion._arrays import freeze
from netcontagion.errors import UnknownLabelError
from netcontagion.network import Tiers

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

__all__ = [
    "LeverageMass",
    "bankruptcy_price",
    "funding_payment",
    "funding_rate",
    "leverage_mass",
    "liquidation_price",
    "maintenance_margin",
    "scenario_margin",
    "skew_funding_rate",
    "unrealised_pnl",
]

KINDS = ("linear", "inverse")


def maintenance_margin(notional: ArrayLike, rate: ArrayLike, *, floor: ArrayLike = 0.0) -> Floats:
    """Compute the margin of a notional whose rate rises by tiers.

    In tier j, cum_j = cum_{j-1} + floor_j (rate_j - rate_{j-1})::

        MM(N) = N rate_j - cum_j

    Parameters
    ----------
    notional : array_like
        Value of the contracts [num], at least 0, any shape.
    rate : float or array_like, shape (tiers,)
        Margin rate of each tier, in (0, 1].
    floor : float or array_like, shape (tiers,), default 0
        Notional from which each rate holds [num]: increasing, the first 0.

    Returns
    -------
    ndarray
        Margin [num], shaped like ``notional``.

    Raises
    ------
    ValueError
        A negative notional, a rate outside (0, 1], floors that do not rise from 0.

    References
    ----------
    Binance, maintenance margin of a position: notional x rate - maintenance amount.

    Examples
    --------
    >>> maintenance_margin([1e5, 4e6], [0.004, 0.005, 0.01, 0.025], floor=[0, 50e3, 250e3, 1e6]).tolist()
    [450.0, 83700.0]
    """
    amount = _numbers("notional", notional, low=0.0)
    tiers = _tiers(rate, floor)
    return tiers.margin(np.zeros(amount.size, dtype=np.int64), amount.ravel()).reshape(amount.shape)


def unrealised_pnl(
    quantity: ArrayLike, entry_price: ArrayLike, mark: ArrayLike, *, kind: str = "linear", multiplier: ArrayLike = 1.0
) -> Floats:
    """Compute the gain of open contracts since they were entered.

    Linear, in money: q (P - E). Inverse, in coins: q x multiplier x (1/E - 1/P).

    Parameters
    ----------
    quantity : array_like
        Contracts, negative for a short [units].
    entry_price, mark : array_like
        Price at entry and now [num/unit]; above 0 for inverse contracts.
    kind : {"linear", "inverse"}
        What the contract pays.
    multiplier : array_like, default 1
        Money behind one inverse contract [num].

    Returns
    -------
    ndarray
        Gain [num, coins if inverse]; what one side gains the other loses.

    Raises
    ------
    ValueError
        What is not finite, prices at or below 0 of an inverse contract.
    UnknownLabelError
        Another kind.

    References
    ----------
    BitMEX, inverse perpetual contracts: contracts x multiplier x (1 / entry price - 1 / exit price).

    Examples
    --------
    >>> unrealised_pnl([10.0, -10.0], 100.0, 93.0).tolist()
    [-70.0, 70.0]
    >>> float(unrealised_pnl(1000.0, 100.0, 200.0, kind="inverse"))
    5.0
    """
    inverse = _inverse(kind)
    least, size = 0.0 if inverse else -np.inf, _numbers("quantity", quantity)
    entry = _numbers("entry_price", entry_price, low=least, open_low=inverse)
    price = _numbers("mark", mark, low=least, open_low=inverse)
    if not inverse:
        return np.asarray(size * (price - entry))
    return np.asarray(size * _numbers("multiplier", multiplier, low=0.0, open_low=True) * (1 / entry - 1 / price))


def bankruptcy_price(
    quantity: ArrayLike, entry_price: ArrayLike, margin: ArrayLike, *, kind: str = "linear", multiplier: ArrayLike = 1.0
) -> Floats:
    """Compute the price at which the margin of a position is used up.

    Linear: E - M / q, floored at 0. Inverse: 1 / P = 1 / E + M / (q x multiplier).

    Parameters
    ----------
    quantity : array_like
        Contracts, negative for a short [units].
    entry_price : array_like
        Price at entry [num/unit].
    margin : array_like
        Margin of the position [num, coins if inverse].
    kind : {"linear", "inverse"}
        What the contract pays.
    multiplier : array_like, default 1
        Money behind one inverse contract [num].

    Returns
    -------
    ndarray
        Price [num/unit]; NaN where no price uses the margin up (quantity 0, a covered inverse short).

    Raises
    ------
    ValueError
        What is not finite, an entry price at or below 0.
    UnknownLabelError
        Another kind.

    Examples
    --------
    >>> bankruptcy_price([10.0, -10.0], 100.0, 50.0).tolist()
    [95.0, 105.0]
    """
    size, entry, cash, face = _position(quantity, entry_price, margin, multiplier)
    inverse = _inverse(kind)
    side = np.sign(size) * (-1 if inverse else 1)
    worth = np.abs(size) * face
    at_entry = worth / entry if inverse else np.abs(size) * entry
    return _price(np.maximum(at_entry - side * cash, 0.0), np.abs(size), worth, inverse)


def liquidation_price(
    quantity: ArrayLike,
    entry_price: ArrayLike,
    margin: ArrayLike,
    rate: ArrayLike,
    *,
    floor: ArrayLike = 0.0,
    kind: str = "linear",
    multiplier: ArrayLike = 1.0,
) -> Floats:
    """Compute the price at which equity falls to the maintenance margin, in the tier of that price.

    ::

        long  P = (q E - M - cum_j) / (q (1 - rate_j)),    short  P = (q E + M + cum_j) / (q (1 + rate_j))

    An inverse contract has the equity of the other side in 1 / P.

    Parameters
    ----------
    quantity : array_like
        Contracts, negative for a short [units].
    entry_price : array_like
        Price at entry [num/unit].
    margin : array_like
        Margin of the position [num, coins if inverse].
    rate : float or array_like, shape (tiers,)
        Maintenance margin rate of each tier, in (0, 1].
    floor : float or array_like, shape (tiers,), default 0
        Notional from which each rate holds [num, coins if inverse].
    kind : {"linear", "inverse"}
        What the contract pays.
    multiplier : array_like, default 1
        Money behind one inverse contract [num].

    Returns
    -------
    ndarray
        Price [num/unit]. Linear: 0 where it would be below. NaN where there is none.

    Raises
    ------
    ValueError
        What is not finite, an entry price at or below 0, rates or floors that are none.
    UnknownLabelError
        Another kind.

    References
    ----------
    Chitra (2025), arXiv:2512.01112; Binance (tiers).

    Examples
    --------
    >>> liquidation_price([10.0, -10.0], 100.0, 50.0, 0.005).round(6).tolist()
    [95.477387, 104.477612]
    """
    size, entry, cash, face = _position(quantity, entry_price, margin, multiplier)
    inverse, tiers = _inverse(kind), _tiers(rate, floor)
    side = np.sign(size) * (-1 if inverse else 1)
    worth = np.abs(size) * face
    at_entry = worth / entry if inverse else np.abs(size) * entry
    level = (cash - side * at_entry).ravel()
    found = tiers.touch(np.zeros(level.size, dtype=np.int64), side.ravel(), level).reshape(size.shape)
    return _price(np.maximum(found, 0.0), np.abs(size), worth, inverse)


def scenario_margin(exposure: ArrayLike, scenarios: ArrayLike, *, add_on: ArrayLike = 0.0) -> Floats:
    """Compute portfolio margin: the worst loss over scenarios, plus add-ons.

    ::

        MM_k = max(0, max_w sum_a -exposure_ka x move_wa) + add_on_k

    Parameters
    ----------
    exposure : array_like or sparse array, shape (accounts, assets)
        Signed value that moves with each price [num].
    scenarios : array_like, shape (scenarios, assets)
        Relative price moves.
    add_on : array_like, default 0
        What is required on top [num], at least 0.

    Returns
    -------
    ndarray, shape (accounts,)
        Margin [num].

    Raises
    ------
    ValueError
        Shapes that do not fit, or what is not finite.

    References
    ----------
    OKX, portfolio margin: the largest loss over a grid of price moves, plus charges.

    Examples
    --------
    >>> scenario_margin([[100.0, -80.0]], [[-0.1, -0.1], [0.1, -0.05]], add_on=1.0).round(6).tolist()
    [3.0]
    """
    moves = _numbers("scenarios", scenarios)
    held: Any = exposure if hasattr(exposure, "tocsr") else _numbers("exposure", exposure)
    if moves.ndim != 2 or held.ndim != 2 or held.shape[1] != moves.shape[1] or not len(moves):
        message = f"exposure is {held.shape}, scenarios {moves.shape}; allowed: (k, a) and (s, a), s at least 1"
        raise ValueError(message)
    worst = np.asarray(-(held @ moves.T)).max(axis=1)
    return np.asarray(np.maximum(worst, 0.0) + _numbers("add_on", add_on, low=0.0))


def funding_rate(
    premium: ArrayLike, *, interest: ArrayLike = 0.0001, clamp: float = 0.0005, hours: float = 8.0
) -> Floats:
    """Compute the funding rate of one interval from the average premium of a perpetual contract.

    ::

        F = [premium + clamp(interest - premium, +- 0.05 %)] / (8 / hours)

    Parameters
    ----------
    premium : array_like
        Average premium of the contract over its index.
    interest : array_like, default 0.0001
        Interest rate of eight hours.
    clamp : float, default 0.0005
        Largest correction towards the interest rate.
    hours : float, default 8
        Length of the interval [hours].

    Returns
    -------
    ndarray
        Share of the notional that longs pay to shorts per interval.

    Raises
    ------
    ValueError
        What is not finite, ``clamp`` below 0, ``hours`` not above 0.

    References
    ----------
    Binance, funding rate since 2025-09-18.

    Examples
    --------
    >>> funding_rate([0.0, 0.002], hours=4.0).round(6).tolist()
    [5e-05, 0.00075]
    """
    index, width = _numbers("premium", premium), _numbers("clamp", clamp, low=0.0)
    length = _numbers("hours", hours, low=0.0, open_low=True)
    return np.asarray((index + np.clip(_numbers("interest", interest) - index, -width, width)) * length / 8.0)


def skew_funding_rate(
    long: ArrayLike, short: ArrayLike, mark: ArrayLike, oracle: ArrayLike, *, sensitivity: float = 1.0
) -> Floats:
    """Compute a funding rate from open interest and the basis: sensitivity x (mark / oracle - long / short).

    Parameters
    ----------
    long, short : array_like
        Open contracts on either side, as they are on record [units]; short above 0.
    mark, oracle : array_like
        Price of the contract and of its oracle [num/unit]; oracle above 0.
    sensitivity : float, default 1
        Factor on the whole.

    Returns
    -------
    ndarray
        Share of the notional that longs pay to shorts. Payments sum to zero only where long equals short.

    Raises
    ------
    ValueError
        What is not finite or below 0.

    References
    ----------
    Chitra (2025), arXiv:2512.01112, where a position receives the negative of this rate.

    Examples
    --------
    >>> skew_funding_rate(3.0, 5.0, 1.4, 1.5).round(4).tolist()
    0.3333
    """
    basis = _numbers("mark", mark, low=0.0) / _numbers("oracle", oracle, low=0.0, open_low=True)
    skew = _numbers("long", long, low=0.0) / _numbers("short", short, low=0.0, open_low=True)
    return np.asarray(_numbers("sensitivity", sensitivity) * (basis - skew))


def funding_payment(quantity: ArrayLike, mark: ArrayLike, rate: ArrayLike) -> Floats:
    """Compute what each position pays in one funding interval: q x P x F, negative for what it receives.

    Parameters
    ----------
    quantity : array_like
        Contracts, negative for a short [units].
    mark : array_like
        Price of the contract [num/unit].
    rate : array_like
        Share of the notional that longs pay to shorts.

    Returns
    -------
    ndarray
        Payment [num]; zero in sum where the quantities are.

    Raises
    ------
    ValueError
        What is not finite.

    Examples
    --------
    >>> funding_payment([2.0, -2.0], 100.0, 0.0001).round(6).tolist()
    [0.02, -0.02]
    """
    return np.asarray(_numbers("quantity", quantity) * _numbers("mark", mark) * _numbers("rate", rate))


@dataclass(frozen=True, eq=False)
class LeverageMass:
    """Leverage of each account, and how much of it stands with accounts that have equity and with those in deficit.

    ``leverage`` = notional / |equity|; ``winners`` and ``losers`` are its sums over accounts with equity above 0 and
    below; ``deficit`` [num] is what the losers lack, ``equity`` [num] what the winners have, ``haircut`` the share of
    it that would pay the deficit (inf where it exceeds any equity).
    """

    leverage: Floats
    winners: float
    losers: float
    deficit: float
    equity: float
    haircut: float


def leverage_mass(notional: ArrayLike, equity: ArrayLike) -> LeverageMass:
    """Compute the leverage of accounts and its mass on either side of a deficit.

    Parameters
    ----------
    notional : array_like, shape (accounts,)
        Value of the contracts of each account [num], without sign.
    equity : array_like, shape (accounts,)
        Marked equity of each account [num], of any sign.

    Returns
    -------
    LeverageMass
        Leverage by account, sums over winners and losers, deficit and the pro rata haircut that pays it.

    Raises
    ------
    ValueError
        What is not finite, a negative notional, shapes that differ.

    References
    ----------
    Chitra (2025), arXiv:2512.01112.

    Examples
    --------
    >>> found = leverage_mass([1.3, 5.2, 1.3], [-0.5, 5.0, 1.0])
    >>> round(found.winners, 2), found.losers, round(found.haircut, 4)
    (2.34, 2.6, 0.0833)
    """
    value, own = np.broadcast_arrays(_numbers("notional", notional, low=0.0), _numbers("equity", equity))
    leverage = np.where(value > 0, np.inf, 0.0)
    np.divide(value, np.abs(own), out=leverage, where=own != 0)
    deficit, covered = float(np.maximum(-own, 0.0).sum()), float(np.maximum(own, 0.0).sum())
    haircut = deficit / covered if covered > 0 else (float("inf") if deficit > 0 else 0.0)
    masses = (float(leverage[own > 0].sum()), float(leverage[own < 0].sum()))
    return LeverageMass(freeze(leverage), *masses, deficit, covered, haircut)


# input ------------------------------------------------------------------------------------------------------------


def _numbers(name: str, values: ArrayLike, *, low: float = -np.inf, open_low: bool = False) -> Floats:
    array = np.asarray(values, dtype=float)
    bad = ~np.isfinite(array) | (array <= low if open_low else array < low)
    if bad.any():
        allowed = "finite" if low == -np.inf else f"finite, {'above' if open_low else 'at least'} {low:g}"
        raise ValueError(f"{name} holds {np.ravel(array[bad])[0]!r}; allowed: {allowed}")
    return array


def _position(
    quantity: ArrayLike, entry_price: ArrayLike, margin: ArrayLike, multiplier: ArrayLike
) -> tuple[Floats, Floats, Floats, Floats]:
    size, entry, cash, face = np.broadcast_arrays(
        _numbers("quantity", quantity),
        _numbers("entry_price", entry_price, low=0.0, open_low=True),
        _numbers("margin", margin),
        _numbers("multiplier", multiplier, low=0.0, open_low=True),
    )
    return size, entry, cash, face


def _inverse(kind: str) -> bool:
    if kind not in KINDS:
        raise UnknownLabelError(kind, KINDS, "kind of contract")
    return kind == "inverse"


def _tiers(rate: ArrayLike, floor: ArrayLike) -> Tiers:
    rates, floors = (np.atleast_1d(_numbers(*given, low=0.0)) for given in (("rate", rate), ("floor", floor)))
    if rates.shape != floors.shape or rates.ndim != 1:
        raise ValueError(f"{rates.shape} rates beside {floors.shape} floors; allowed: one of each per tier")
    if not ((rates > 0) & (rates <= 1)).all():
        raise ValueError(f"rate is {rates.tolist()}; allowed: (0, 1]")
    if floors[0] != 0 or not (np.diff(floors) > 0).all():
        raise ValueError(f"floor is {floors.tolist()}; allowed: rising from 0")
    return Tiers.build(np.zeros(1, dtype=np.int64), np.array([len(rates)]), floors, rates)


def _price(notional: Floats, size: Floats, worth: Floats, inverse: bool) -> Floats:
    """Price of a notional; an inverse contract has none where its notional is 0."""
    price = np.full(notional.shape, np.nan)
    if inverse:
        np.divide(worth, notional, out=price, where=(notional > 0) & (worth > 0))
    else:
        np.divide(notional, size, out=price, where=size > 0)
    return price
