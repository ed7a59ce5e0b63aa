"""Stablecoins backed by a leveraged position: deleveraging into inelastic demand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion._status import Status
from netcontagion.errors import NotSettledError
from netcontagion.margining._given import AMOUNT, POSITIVE, Given

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

__all__ = ["StablecoinPath", "stablecoin_deleveraging"]

ROUNDING = 1e-12  # relative: a collateral factor that is missed by less is met


@dataclass(frozen=True, eq=False)
class StablecoinPath:
    """A stablecoin through time, up to the last period in which its collateral factor can be met.

    Attributes
    ----------
    supply : ndarray (t,)
        Coins after each period.
    change : ndarray (t,)
        Coins issued; bought back, where negative.
    price : ndarray (t,)
        Price of the coin [num], ``demand / supply``.
    collateral : ndarray (t,)
        Units of collateral after each period.
    constrained : ndarray of bool (t,)
        Whether the collateral factor, and not the profit, decides the supply.
    status : Status
        SETTLED, or NO_SOLUTION where a period comes that no supply survives (global settlement).
    """

    supply: Floats
    change: Floats
    price: Floats
    collateral: Floats
    constrained: NDArray[np.bool_]
    status: Status


def stablecoin_deleveraging(
    collateral_price: ArrayLike,
    demand: ArrayLike,
    *,
    collateral: float,
    supply: float,
    factor: float = 1.5,
    growth: ArrayLike = 1.0,
    hold: ArrayLike = False,
    strict: bool = True,
) -> StablecoinPath:
    r"""Follow a stablecoin whose issuer keeps the most profitable leverage that its collateral factor allows.

    Holders spend a fixed amount D on L coins, so that a coin is worth D / L. In each period the issuer changes the
    supply to L' at that price, which takes the collateral n to n' = n + (L' - L) D / (L' p), p its price, and solves

    ``max r n' p - L'  subject to  n' p >= beta L'``.

    Unconstrained L' = sqrt(r D L). The constraint holds between the roots of ``beta x^2 - (n p + D) x + D L = 0``;
    where these are not real, no deleveraging saves the coin. Buying coins back raises their price: the more leverage
    is to be shed, the more each coin costs (the deleveraging spiral).

    Parameters
    ----------
    collateral_price : array_like (t,)
        Price of the collateral in each period, p [num/unit].
    demand : array_like (t,)
        What holders spend on coins, D [num].
    collateral : float
        Units of collateral before the first period, n.
    supply : float
        Coins before the first period, L.
    factor : float
        Collateral factor, beta: value of the collateral over coins at face value, at least 1.
    growth : array_like (t,)
        Growth of the collateral's price that the issuer expects, r.
    hold : array_like of bool (t,)
        Periods in which the issuer does nothing.
    strict : bool
        Raise where the coin does not survive; False returns the path up to that period.

    Returns
    -------
    StablecoinPath
        Supply, price and collateral by period.

    Raises
    ------
    SchemaError
        Listing everything that is wrong with the numbers.
    NotSettledError
        Where a period comes that no supply survives; the error carries the path up to it.

    References
    ----------
    Klages-Mundt, A., Minca, A. (2021). (In)Stability for the Blockchain: Deleveraging Spirals and Stablecoin Attacks.
    Cryptoeconomic Systems 1(2). arXiv:1906.02152.

    Examples
    --------
    >>> from netcontagion.margining import stablecoin_deleveraging
    >>> path = stablecoin_deleveraging([83, 82], [100, 100], collateral=1.8, supply=100.583, growth=1.00583)
    >>> path.supply.round(3).tolist(), path.price.round(3).tolist()
    ([97.473, 93.366], [1.026, 1.071])
    """
    given = Given("stablecoin_deleveraging")
    values = given.numbers("collateral_price", collateral_price, POSITIVE, dimensions=1)
    spent = given.numbers("demand", demand, POSITIVE)
    expected = given.numbers("growth", growth, POSITIVE)
    still = given.numbers("hold", hold, "[0, 1]")
    units = given.numbers("collateral", collateral, AMOUNT, dimensions=0)
    coins = given.numbers("supply", supply, POSITIVE, dimensions=0)
    beta = given.numbers("factor", factor, "[1, inf)", dimensions=0)
    shape = given.done()
    periods = zip(*(np.broadcast_to(row, shape).tolist() for row in (values, spent, expected, still)), strict=True)
    path, n, old, status = [], float(units), float(coins), Status.SETTLED
    for p, d, r, waits in periods:
        new, tight = (old, False) if waits else _best_supply(n * p, d, old, r, float(beta))
        if np.isnan(new):
            status = Status.NO_SOLUTION
            break
        n += (new - old) * d / (new * p)
        path.append((new, new - old, d / new, n, tight))
        old = new
    columns: list[Any] = list(np.array(path, dtype=float).reshape(-1, 5).T)
    coins_left, change, price, held, bound = columns
    result = StablecoinPath(coins_left, change, price, held, bound.astype(bool), status)
    if strict and not status.settled:
        raise NotSettledError(
            f"period {len(path)} (of the first: 0) has no supply that meets the factor: global settlement", result
        )
    return result


def _best_supply(backing: float, demand: float, supply: float, growth: float, factor: float) -> tuple[float, bool]:
    """Most profitable supply and whether the constraint decides it; NaN where none meets the constraint."""
    wanted = (growth * demand * supply) ** 0.5
    total = backing + demand
    room = total * total - 4.0 * factor * demand * supply
    if room < -ROUNDING * total * total:
        return np.nan, True
    high = (total + max(room, 0.0) ** 0.5) / (2.0 * factor)
    low = demand * supply / (factor * high)
    return min(max(wanted, low), high), not low <= wanted <= high
