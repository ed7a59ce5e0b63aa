"""What it costs to move a price, and what an attacker who borrows against it gains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from netcontagion.margining._forms import (
    CONSTANT_PRODUCT,
    DRY,
    EXPONENTIAL,
    FORMS,
    LADDER,
    LINEAR,
    NO_LEVELS,
)
from netcontagion.margining._given import AMOUNT, POSITIVE, Given, choice
from netcontagion.margining._impact import Curves

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["Manipulation", "attack_profit", "manipulation_cost"]

MOVABLE = tuple(form for form, code in FORMS.items() if code != LADDER)


class Manipulation(NamedTuple):
    """Trade that moves a price.

    Attributes
    ----------
    units : ndarray or float
        Units bought; sold, where negative.
    paid : ndarray or float
        Cash paid, fees included [num]; received, where negative.
    cost : ndarray or float
        What was paid less the units at the price before: lost when the price returns [num].
    """

    units: Any
    paid: Any
    cost: Any


def manipulation_cost(
    ratio: ArrayLike, *, price: ArrayLike, depth: ArrayLike, form: str = "constant_product", fee: ArrayLike = 0.0
) -> Manipulation:
    r"""Compute what it costs to move a price to ``ratio`` times what it is.

    In a pool of x units and y = price x of money, ``cost = y (sqrt(k) + 1 / sqrt(k) - 2)`` with k the ratio;
    exponential: ``price D (k - 1 - ln k)``; linear: ``price D (k - 1)^2 / 2``;
    square root: ``2 / 3 price D \|k - 1\|^3``.

    Parameters
    ----------
    ratio : array_like
        Price wanted over the price now, above 0.
    price : array_like
        Price now [num/unit].
    depth : array_like
        Depth of the form [units]; of a constant product the units in the pool.
    form : {"constant_product", "exponential", "linear", "square_root"}
        Impact form.
    fee : array_like
        Share of what is paid in that goes to those who provide liquidity and does not move the price, in [0, 1).

    Returns
    -------
    Manipulation
        Units bought, cash paid and what is lost when the price returns.

    Raises
    ------
    SchemaError
        Listing everything that is wrong with the numbers.
    UnknownLabelError
        A form that does not exist.

    Examples
    --------
    >>> from netcontagion.margining import manipulation_cost
    >>> [round(float(number), 2) for number in manipulation_cost(2.0, price=1.0, depth=1e6)]
    [292893.22, 414213.56, 121320.34]
    """
    form = choice(form, MOVABLE, "impact form that a price can be moved along")
    given = Given("manipulation_cost")
    k = given.numbers("ratio", ratio, f"(0, {DRY**-2.0:g})" if FORMS[form] == CONSTANT_PRODUCT else POSITIVE)
    base, deep = given.numbers("price", price, POSITIVE), given.numbers("depth", depth, POSITIVE)
    share = given.numbers("fee", fee, "[0, 1)")
    shape = given.done()
    k, base, deep, share = (np.broadcast_to(array, shape) for array in (k, base, deep, share))
    sold = deep * _used(FORMS[form], k)
    received = Curves(FORMS[form], base, np.zeros(shape), deep, NO_LEVELS).cash(sold)
    paid = np.where(sold > 0, -received, -received / (1.0 - share))  # of a sale the fee is taken in units
    units = np.where(sold > 0, -sold / (1.0 - share), -sold)
    return Manipulation(units[()], paid[()], (paid - units * base)[()])


def attack_profit(
    ratio: ArrayLike,
    *,
    price: ArrayLike,
    depth: ArrayLike,
    collateral: ArrayLike,
    loan_to_value: ArrayLike,
    available: ArrayLike = np.inf,
    form: str = "constant_product",
    fee: ArrayLike = 0.0,
) -> Any:
    r"""Compute the profit of raising the price of a collateral, borrowing against it, and walking away.

    ``profit = min(loan_to_value x ratio x price x collateral, available) - price x collateral - cost``, with the cost
    of :func:`manipulation_cost`: the attacker abandons the collateral, and the price returns before what was bought to
    raise it is sold again. Where this is above 0, the market invites the attack.

    Parameters
    ----------
    ratio : array_like
        Price during the attack over the price before, at least 1.
    price, depth, form, fee
        See :func:`manipulation_cost`.
    collateral : array_like
        Units deposited, at least 0.
    loan_to_value : array_like
        Loan over collateral at the raised price, in [0, 1].
    available : array_like
        What there is to borrow [num].

    Returns
    -------
    ndarray or float
        Profit [num]; a loss, where negative.

    Raises
    ------
    SchemaError
        Listing everything that is wrong with the numbers.

    Examples
    --------
    >>> from netcontagion.margining import attack_profit
    >>> round(float(attack_profit(2.0, price=1.0, depth=1e6, collateral=1e6, loan_to_value=0.8)), 2)
    478679.66
    """
    given = Given("attack_profit")
    k = given.numbers("ratio", ratio, "[1, inf)")
    base = given.numbers("price", price, POSITIVE)
    units = given.numbers("collateral", collateral, AMOUNT)
    share = given.numbers("loan_to_value", loan_to_value, "[0, 1]")
    most = given.numbers("available", available, "[0, inf]")
    given.done()
    cost = manipulation_cost(k, price=base, depth=depth, form=form, fee=fee).cost
    return (np.minimum(share * k * base * units, most) - base * units - cost)[()]


def _used(form: int, ratio: Any) -> Any:
    """Share of the depth whose sale takes the price to ``ratio`` times what it was."""
    if form == EXPONENTIAL:
        return -np.log(ratio)
    if form == LINEAR:
        return 1.0 - ratio
    if form == CONSTANT_PRODUCT:
        return np.expm1(-0.5 * np.log(ratio))
    return np.abs(1.0 - ratio) * (1.0 - ratio)
