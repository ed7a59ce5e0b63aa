"""Depth from quotes."""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from netcontagion.errors import UnknownLabelError

__all__ = ["depth_at"]

Amount = TypeVar("Amount", float, NDArray[np.float64])


def depth_at(amount: Amount, *, impact: float = 0.01, form: str = "exponential") -> Amount:
    """Turn a size quoted at an impact into the depth of the impact form.

    Exponential: selling Q units moves the price to price x exp(-Q / D), so D = -Q / ln(1 - impact).

    Parameters
    ----------
    amount : float or ndarray
        Units whose sale moves the price by ``impact`` (the price after the trade, not the average one).
    impact : float, default 0.01
        Relative fall of the price, in (0, 1).
    form : {"exponential"}
        Impact form.

    Returns
    -------
    float or ndarray
        Depth D [units], shaped like ``amount``.

    Raises
    ------
    ValueError
        ``impact`` outside (0, 1), or an amount that is not above 0.

    References
    ----------
    Cifuentes, Ferrucci, Shin, Journal of the European Economic Association 3 (2005), doi:10.1162/jeea.2005.3.2-3.556.

    Examples
    --------
    >>> round(depth_at(1000.0, impact=0.01), 1)
    99499.2
    """
    if form != "exponential":
        raise UnknownLabelError(form, ("exponential",), "impact form")
    if not 0 < impact < 1:
        raise ValueError(f"impact is {impact!r}; allowed: (0, 1), 0.01 is one per cent")
    if not np.all(np.asarray(amount) > 0):
        raise ValueError(f"amount is {amount!r}; allowed: units above 0")
    depth: Amount = amount / -math.log1p(-impact)
    return depth
