"""What market makers quote: spread and depth that answer to volatility and to what they already hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion.margining._given import AMOUNT, POSITIVE, Given

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["maker_depth", "maker_spread", "update_volatility"]


def update_volatility(volatility: ArrayLike, move: ArrayLike, *, memory: ArrayLike = 0.94) -> Any:
    r"""Update an exponentially weighted volatility with one more return.

    ``sigma_t^2 = memory x sigma_(t-1)^2 + (1 - memory) x move^2``

    Parameters
    ----------
    volatility : array_like
        Volatility before, at least 0.
    move : array_like
        Return of the period.
    memory : array_like
        Weight of the past, in [0, 1].

    Returns
    -------
    ndarray or float
        Volatility after.

    Raises
    ------
    SchemaError
        Listing everything that is wrong with the numbers.

    References
    ----------
    J.P. Morgan, Reuters (1996). RiskMetrics technical document, 4th edition (memory 0.94 for days).

    Examples
    --------
    >>> from netcontagion.margining import update_volatility
    >>> round(float(update_volatility(0.02, -0.10, memory=0.75)), 6)
    0.052915
    """
    given = Given("update_volatility")
    before = given.numbers("volatility", volatility, AMOUNT)
    now = given.numbers("move", move)
    weight = given.numbers("memory", memory, "[0, 1]")
    given.done()
    return np.sqrt(weight * before**2 + (1.0 - weight) * now**2)[()]


def maker_spread(
    spread: ArrayLike,
    volatility: ArrayLike,
    *,
    normal: ArrayLike,
    power: ArrayLike = 1.0,
    inventory: ArrayLike = 0.0,
    inventory_weight: ArrayLike = 0.0,
) -> Any:
    r"""Compute the spread that makers quote: ``spread x (volatility / normal)^power x (1 + weight x \|inventory\|)``.

    Parameters
    ----------
    spread : array_like
        Relative spread at normal volatility, at least 0.
    volatility, normal : array_like
        Volatility now and in normal times (at least 0 and above 0), of the same period.
    power : array_like
        Elasticity of the spread, at least 0; 0: the spread does not answer.
    inventory : array_like
        Inventory over its limit, in [-1, 1].
    inventory_weight : array_like
        Relative widening at full inventory, at least 0.

    Returns
    -------
    ndarray or float
        Relative spread.

    Raises
    ------
    SchemaError
        Listing everything that is wrong with the numbers.

    Examples
    --------
    >>> from netcontagion.margining import maker_spread
    >>> round(float(maker_spread(0.0005, 0.12, normal=0.04, power=2.0)), 6)
    0.0045
    """
    given = Given("maker_spread")
    quoted = given.numbers("spread", spread, AMOUNT)
    now, usual = given.numbers("volatility", volatility, AMOUNT), given.numbers("normal", normal, POSITIVE)
    steep = given.numbers("power", power, AMOUNT)
    held = given.numbers("inventory", inventory, "[-1, 1]")
    weight = given.numbers("inventory_weight", inventory_weight, AMOUNT)
    given.done()
    return (quoted * (now / usual) ** steep * (1.0 + weight * np.abs(held)))[()]


def maker_depth(
    depth: ArrayLike,
    volatility: ArrayLike,
    *,
    normal: ArrayLike,
    power: ArrayLike = 1.0,
    halt: ArrayLike = np.inf,
    inventory: ArrayLike = 0.0,
) -> Any:
    r"""Compute the depth that makers quote: ``depth x (volatility / normal)^-power x (1 - \|inventory\|)``.

    Parameters
    ----------
    depth : array_like
        Depth at normal volatility [units], at least 0.
    volatility, normal : array_like
        Volatility now and in normal times (above 0), of the same period.
    power : array_like
        Elasticity of the depth, at least 0; 0: depth does not answer.
    halt : array_like
        Volatility from which on makers quote nothing.
    inventory : array_like
        Inventory over its limit, in [-1, 1].

    Returns
    -------
    ndarray or float
        Depth [units]; 0 where nobody quotes.

    Raises
    ------
    SchemaError
        Listing everything that is wrong with the numbers.

    Examples
    --------
    >>> from netcontagion.margining import maker_depth
    >>> maker_depth(900.0, [0.04, 0.12, 0.5], normal=0.04, power=2.0, halt=0.5).round(9).tolist()
    [900.0, 100.0, 0.0]
    """
    given = Given("maker_depth")
    quoted = given.numbers("depth", depth, AMOUNT)
    now, usual = given.numbers("volatility", volatility, POSITIVE), given.numbers("normal", normal, POSITIVE)
    steep, stop = given.numbers("power", power, AMOUNT), given.numbers("halt", halt, "(0, inf]")
    held = given.numbers("inventory", inventory, "[-1, 1]")
    given.done()
    return (quoted * (now / usual) ** -steep * np.where(now < stop, 1.0, 0.0) * (1.0 - np.abs(held)))[()]
