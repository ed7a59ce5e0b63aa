"""Price impact: what is left of a price after a sale, and what the sale brings on average."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from netcontagion.clearing._system import Floats

__all__ = ["EXECUTIONS", "FORMS", "check_form", "execution_left", "price_left", "square_root_depth"]

FORMS = ("exponential", "linear", "square_root")
EXECUTIONS = ("average", "terminal")


def square_root_depth(volume: ArrayLike, volatility: ArrayLike, *, coefficient: float = 1.0) -> Any:
    r"""Compute the depth at which the square-root impact is ``coefficient * volatility * sqrt(quantity / volume)``.

    ``depth = volume / (coefficient * volatility)^2``, infinite where the volatility is 0.

    Parameters
    ----------
    volume : array_like
        Average daily volume, in the unit in which sales are counted; positive.
    volatility : array_like
        Daily volatility of returns, not negative.
    coefficient : float
        The constant of the law, of order one.

    Returns
    -------
    ndarray or float
        Depth, in the unit of ``volume``.

    Raises
    ------
    ValueError
        Where a volume or the coefficient is not positive, or a volatility is negative.

    References
    ----------
    Breuer, T., Summer, M., Urosevic, B. (2021). Bank solvency stress tests with fire sales. OeNB Working Paper 235.

    Examples
    --------
    >>> from netcontagion.clearing import square_root_depth
    >>> float(square_root_depth(100.0, 0.5))
    400.0
    """
    traded, moves = np.asarray(volume, dtype=float), np.asarray(volatility, dtype=float)
    if not ((traded > 0).all() and (moves >= 0).all() and coefficient > 0):
        raise ValueError("volume and coefficient must be positive, volatility must not be negative")
    scale = (coefficient * moves) ** 2
    shape = np.broadcast_shapes(traded.shape, moves.shape)
    return np.divide(traded, scale, out=np.full(shape, np.inf), where=scale > 0)[()]


def check_form(impact: str, execution: str = "average") -> None:
    """Refuse a form of impact or an execution that does not exist."""
    for name, value, allowed in (("impact", impact, FORMS), ("execution", execution, EXECUTIONS)):
        if value not in allowed:
            raise ValueError(f"{name}={value!r} is not one of {', '.join(map(repr, allowed))}")


def price_left(used: Floats, form: str) -> Floats:
    """Share of the price left when ``used`` = quantity / depth was sold."""
    if form == "exponential":
        left = np.exp(-used)
    else:
        left = np.maximum(1.0 - (used if form == "linear" else np.sqrt(used)), 0.0)
    return np.asarray(left)


def execution_left(used: Floats, form: str, execution: str = "average") -> Floats:
    """Share of the price that a sale of ``used`` = quantity / depth brings per unit.

    "average": the integral of :func:`price_left` over the quantity sold; "terminal": everything at the end price.
    """
    if execution == "terminal":
        return price_left(used, form)
    inside = np.minimum(used, 1.0)
    if form == "linear":
        brought, sold = 1.0 - inside / 2, used
    elif form == "square_root":
        brought, sold = 1.0 - np.sqrt(inside) * (2 / 3), used
    else:
        return np.divide(-np.expm1(-used), used, out=np.ones(used.shape), where=used > 0)
    return np.divide(brought * inside, sold, out=np.ones(used.shape), where=sold > 0)
