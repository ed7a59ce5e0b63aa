"""Price impact of sales for whole arrays: the price after a sale, what it brings, and how much brings a sum."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from netcontagion.errors import SchemaError
from netcontagion.margining._forms import (
    CONSTANT_PRODUCT,
    DRY,
    EXPONENTIAL,
    FARTHEST,
    FORMS,
    LADDER,
    LINEAR,
    MOST_PAID,
    NO_LEVELS,
    SLACK,
    SQUARE_ROOT,
    STEEPEST,
    levels_of,
)
from netcontagion.margining._given import POSITIVE, Given, choice

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from netcontagion.margining._forms import Forms

    Floats = NDArray[np.float64]

__all__ = ["Curves", "cash_from_sale", "curves", "price_after_sale", "quotes", "units_for_cash"]


class Curves(NamedTuple):
    """Prices over net quantities sold, all of one form; arrays of one shape (see ``PriceCurve``)."""

    form: int
    base: Floats
    sold: Floats
    depth: Floats
    levels: Floats

    def after(self, units: Floats) -> Curves:
        """Return the curves after a sale, as far as it is filled."""
        return self._replace(sold=self.sold + self.fillable(units))

    def price(self) -> Floats:
        """Price at which each curve stands."""
        with np.errstate(over="ignore"):
            z = self.sold / self.depth
            if self.form == EXPONENTIAL:
                left = np.exp(-z)
            elif self.form == LINEAR:
                left = np.maximum(1.0 - z, 0.0)
            elif self.form == CONSTANT_PRODUCT:
                left = (1.0 + np.maximum(z, DRY - 1.0)) ** -2.0
            elif self.form == LADDER:
                left = _steps(self.levels, z)
            else:
                left = np.maximum(1.0 - np.copysign(np.sqrt(np.abs(z)), z), 0.0)
        return np.asarray(self.base * np.where(np.isinf(self.depth), 1.0, left))

    def fillable(self, units: Floats) -> Floats:
        """Part of each order that the market takes."""
        least, most = _ends(self.form, self.levels)
        with np.errstate(invalid="ignore"):  # 0 x inf where there is no impact
            low = np.minimum(least * self.depth - self.sold, 0.0)
            high = np.maximum(most * self.depth - self.sold, 0.0)
        return np.where(np.isinf(self.depth), units, np.clip(units, low, high))

    def cash(self, units: Floats) -> Floats:
        """Cash for selling units, as far as they are filled."""
        filled = self.fillable(units)
        with np.errstate(over="ignore", invalid="ignore"):
            area = _AREA[self.form](self.levels, self.sold / self.depth, filled / self.depth)
            return np.where(np.isinf(self.depth), self.base * units, self.base * self.depth * area)

    def units(self, cash: Floats) -> Floats:
        """Units whose sale brings the cash, or all that the market pays for."""
        with np.errstate(over="ignore", invalid="ignore"):
            share = np.where(np.isinf(self.depth), 0.0, np.maximum(cash / (self.base * self.depth), -MOST_PAID))
            width = _INVERSE[self.form](self.levels, self.sold / self.depth, share)
            found = np.where(np.isinf(self.depth), cash / self.base, self.depth * width)
        return np.where(np.isinf(found), found, self.fillable(found))


def curves(
    given: Given, units: Floats, form: str, price: ArrayLike, depth: ArrayLike | None, sold: ArrayLike, /
) -> tuple[Curves, Floats]:
    """Check what describes curves and a trade on each; return both, of one shape, or raise all that is wrong."""
    kind = choice("ladder" if str(form).startswith("ladder ") else form, FORMS, "impact form")
    code, levels = FORMS[kind], NO_LEVELS
    if code == LADDER:
        try:
            levels = levels_of(form)
        except SchemaError as error:
            given.problems += error.problems
    elif depth is None:
        given.refuse("depth", None, "nothing", "(0, inf]", "give the depth of the form in units (builders.depth_at)")
    base = given.numbers("price", price, POSITIVE)
    deep = given.numbers("depth", 1.0 if depth is None else depth, "(0, inf]")
    place = given.numbers("sold", sold)
    shape = given.done()
    base, deep, place, units = (np.broadcast_to(array, shape) for array in (base, deep, place, units))
    least, most = _ends(code, levels)
    with np.errstate(invalid="ignore"):
        outside = np.isfinite(deep) & ((place < least * deep) | (place > most * deep))
    for at in np.flatnonzero(outside):
        allowed = f"between {least:g} and {most:g} times the depth"
        given.refuse("sold", int(at), float(place.ravel()[at]), allowed, "no trade can lead there: check sold")
    given.done()
    return Curves(code, base, place, deep, levels), units


def quotes(forms: Forms, base: Floats, sold: Floats, depth: Floats) -> Floats:
    """Compute the price of every book now, whatever its form."""
    codes = forms.used
    if len(codes) == 1 and codes[0] != LADDER:
        return Curves(codes[0], base, sold, depth, NO_LEVELS).price()
    found = np.empty(len(base))
    for code in codes:
        books = np.flatnonzero(forms.form == code)
        for first in np.unique(forms.first[books]) if code == LADDER else [0]:
            some = books[forms.first[books] == first] if code == LADDER else books
            levels = forms.levels[:, first : forms.last[some[0]]] if code == LADDER else NO_LEVELS
            found[some] = Curves(code, base[some], sold[some], depth[some], levels).price()
    return found


def price_after_sale(
    units: ArrayLike,
    *,
    price: ArrayLike,
    depth: ArrayLike | None = None,
    form: str = "exponential",
    sold: ArrayLike = 0.0,
) -> Any:
    """Compute the price after a sale.

    With z = (sold + units) / depth, the price after over the price where nothing was sold is

    ================  ==========================  ==========================================================
    form              price ratio                 cash at price 1 and depth 1, from 0 to z
    ================  ==========================  ==========================================================
    exponential       exp(-z)                     1 - exp(-z)
    linear            max(1 - z, 0)               z - z^2 / 2, at most 1 / 2
    square_root       max(1 - sgn(z) |z|^.5, 0)   z - 2/3 |z|^1.5, at most 1 / 3
    constant_product  (1 + z)^-2                  z / (1 + z); depth: the units in the pool
    ladder            price of the level reached  the levels' units at their prices; unfilled beyond the last
    ================  ==========================  ==========================================================

    Impact is that of the cumulative quantity: a sale in pieces leads where the whole leads, and brings as much.

    Parameters
    ----------
    units : array_like
        Units sold; bought, where negative.
    price : array_like
        Price where nothing was sold [num/unit], above 0.
    depth : array_like
        Parameter of the form [units], above 0; inf for no impact. Of a ladder the factor on all its sizes (1 if
        left out).
    form : str
        ``"exponential"``, ``"linear"``, ``"square_root"``, ``"constant_product"``, or the text of a depth ladder
        (:func:`netcontagion.builders.ladder`).
    sold : array_like
        Net quantity sold before that still moves the price [units].

    Returns
    -------
    ndarray or float
        Price after the sale [num/unit], shaped like the inputs together. What a pool or a ladder does not fill does
        not move it.

    Raises
    ------
    SchemaError
        Listing everything that is wrong with the numbers.
    UnknownLabelError
        A form that does not exist.

    References
    ----------
    Cifuentes, Ferrucci, Shin (2005), doi:10.1162/jeea.2005.3.2-3.556 (exponential); Greenwood, Landier, Thesmar (2015),
    doi:10.1016/j.jfineco.2014.11.006 (linear); Donier, Bonart (2015), doi:10.1142/S2382626615500082 (square root).

    Examples
    --------
    >>> from netcontagion.margining import price_after_sale
    >>> round(float(price_after_sale(50, price=1000.0, depth=1000.0, form="constant_product")), 4)
    907.0295
    """
    given = Given("price_after_sale")
    found, sale = curves(given, given.numbers("units", units), form, price, depth, sold)
    return found.after(sale).price()[()]


def cash_from_sale(
    units: ArrayLike,
    *,
    price: ArrayLike,
    depth: ArrayLike | None = None,
    form: str = "exponential",
    sold: ArrayLike = 0.0,
) -> Any:
    """Compute what a sale brings: the integral of the price over the quantity.

    Never more than units times the price before, never less than units times the price after. Parameters, forms and
    errors are those of :func:`price_after_sale`.

    Parameters
    ----------
    units : array_like
        Units sold; bought, where negative.
    price, depth, form, sold
        See :func:`price_after_sale`.

    Returns
    -------
    ndarray or float
        Cash received [num]; paid, where negative. Only what is filled is paid: a ladder pays for no more than its
        levels, a pool gives all it holds but a millionth.

    Examples
    --------
    >>> from netcontagion.margining import cash_from_sale
    >>> round(float(cash_from_sale(100.0, price=2000.0, depth=1000.0, form="constant_product")), 6)
    181818.181818
    """
    given = Given("cash_from_sale")
    found, sale = curves(given, given.numbers("units", units), form, price, depth, sold)
    return found.cash(sale)[()]


def units_for_cash(
    cash: ArrayLike,
    *,
    price: ArrayLike,
    depth: ArrayLike | None = None,
    form: str = "exponential",
    sold: ArrayLike = 0.0,
) -> Any:
    """Compute how many units must be sold to raise a sum: the inverse of :func:`cash_from_sale`.

    Parameters
    ----------
    cash : array_like
        Cash to raise [num]; to spend, where negative.
    price, depth, form, sold
        See :func:`price_after_sale`.

    Returns
    -------
    ndarray or float
        Units to sell; bought, where negative. Where the market never pays as much: all units that it pays for, which
        is inf for the forms whose price never reaches 0.

    Examples
    --------
    >>> from netcontagion.margining import units_for_cash
    >>> round(float(units_for_cash(181818.181818, price=2000.0, depth=1000.0, form="constant_product")), 6)
    100.0
    """
    given = Given("units_for_cash")
    found, wanted = curves(given, given.numbers("cash", cash), form, price, depth, sold)
    return found.units(wanted)[()]


def _ends(form: int, levels: Floats) -> tuple[float, float]:
    """Least and greatest net quantity, over depth, that trades can lead to."""
    if form == LADDER:
        return float(levels[0, 0]), float(levels[0, -1])
    return {EXPONENTIAL: -STEEPEST, CONSTANT_PRODUCT: DRY - 1.0}.get(form, -FARTHEST), np.inf


# areas under the curves, from z to z + dz, and their inverses ---------------------------------------------------------


def _exponential_area(_: Floats, z: Floats, dz: Floats) -> Floats:
    with np.errstate(over="ignore", invalid="ignore"):
        return np.where(np.abs(dz) < 1, -np.exp(-z) * np.expm1(-dz), np.exp(-z) - np.exp(-(z + dz)))


def _exponential_inverse(_: Floats, z: Floats, area: Floats) -> Floats:
    price = np.exp(-z)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        width = np.where(np.abs(area) < 0.5 * price, -np.log1p(-area / price), -np.log(price - area) - z)
    return np.where(area >= price, np.inf, width)


def _linear_area(_: Floats, z: Floats, dz: Floats) -> Floats:
    start, end = np.minimum(z, 1.0), np.minimum(z + dz, 1.0)
    width = np.where((z <= 1) & (z + dz <= 1), dz, end - start)
    return np.asarray(width * (1.0 - 0.5 * (start + end)))


def _linear_inverse(_: Floats, z: Floats, area: Floats) -> Floats:
    price, free = np.maximum(1.0 - z, 0.0), np.where(area < 0, np.maximum(z - 1.0, 0.0), 0.0)
    paid = np.minimum(area, 0.5 * price * price)
    divisor = price + np.sqrt(np.maximum(price * price - 2.0 * paid, 0.0))
    return np.asarray(np.divide(2.0 * paid, divisor, out=np.zeros_like(divisor), where=divisor > 0) - free)


def _root_area(_: Floats, z: Floats, dz: Floats) -> Floats:
    start, end = np.minimum(z, 1.0), np.minimum(z + dz, 1.0)
    width = np.where((z <= 1) & (z + dz <= 1), dz, end - start)
    a, b = np.sqrt(np.abs(start)), np.sqrt(np.abs(end))
    mean = np.divide(a * a + a * b + b * b, a + b, out=np.zeros_like(a), where=a + b > 0)
    inside = width * (1.0 - np.sign(start + end) * 2 / 3 * mean)
    return np.asarray(np.where(start * end < 0, width - 2 / 3 * (b**3 - a**3), inside), dtype=float)


def _root_inverse(_: Floats, z: Floats, area: Floats) -> Floats:
    start, free = np.minimum(z, 1.0), np.where(area < 0, np.maximum(z - 1.0, 0.0), 0.0)
    target = np.minimum(start - 2 / 3 * np.abs(start) ** 1.5 + area, 1 / 3)
    width = np.where(target < 1 / 3, _root_at(target), 1.0) - start
    for _step in range(2):
        end = start + width
        price = 1.0 - np.copysign(np.sqrt(np.abs(end)), end)
        missing = area - _root_area(_, start, width)
        width = width + np.divide(missing, price, out=np.zeros_like(price), where=(price > 1e-3) & (target < 1 / 3))
    return np.where(area == 0, 0.0, width - free)


def _root_at(area: Floats) -> Floats:
    """Where the area under 1 - sign(z) sqrt|z| from 0 to z is ``area`` <= 1/3: a cubic in sqrt|z|."""
    third = np.arcsin(np.sqrt(np.clip(3.0 * np.abs(area), 0.0, 1.0))) / 3.0
    above = (2.0 * np.sin(third) * np.sin(third + np.pi / 3)) ** 2
    below = -((2.0 * np.sin(third) * np.sin(np.pi / 3 - third)) ** 2)
    far = -((np.cosh(np.arccosh(np.maximum(-6.0 * area - 1.0, 1.0)) / 3.0) - 0.5) ** 2)
    return np.where(area >= 0, above, np.where(area >= -1 / 3, below, far))


def _product_area(_: Floats, z: Floats, dz: Floats) -> Floats:
    pool = 1.0 + z
    rate = np.divide(pool, dz, out=np.full(np.shape(dz), np.inf), where=dz > pool)
    return np.where(dz > pool, 1.0 / (1.0 + rate), dz / np.maximum(pool + np.minimum(dz, pool), DRY)) / pool


def _product_inverse(_: Floats, z: Floats, area: Floats) -> Floats:
    part = area * (1.0 + z)
    rest = np.maximum(1.0 - part, 0.0)
    return np.asarray(np.divide(part * (1.0 + z), rest, out=np.full(rest.shape, np.inf), where=rest > 0))


def _ladder_area(levels: Floats, z: Floats, dz: Floats) -> Floats:
    edges, cash, price = levels
    last = len(edges) - 2
    low, high = np.minimum(z, z + dz), np.maximum(z, z + dz)
    i = np.clip(np.searchsorted(edges, low, side="right") - 1, 0, last)
    j = np.clip(np.searchsorted(edges, high, side="left") - 1, 0, last)
    across = price[i] * (edges[i + 1] - low) + (cash[j] - cash[i + 1]) + price[j] * (high - edges[j])
    return np.asarray(np.where(i >= j, price[i] * dz, np.copysign(across, dz)), dtype=float)


def _ladder_inverse(levels: Floats, z: Floats, area: Floats) -> Floats:
    edges, cash, price = levels
    last = len(edges) - 2
    bid = np.clip(np.searchsorted(edges, z, side="right") - 1, 0, last)
    ask = np.clip(np.searchsorted(edges, z, side="left") - 1, 0, last)
    walked = np.interp(np.interp(z, edges, cash) + area, cash, edges) - z
    sale = np.where(area <= price[bid] * (edges[bid + 1] - z), area / price[bid], walked)
    purchase = np.where(-area <= price[ask] * (z - edges[ask]), area / price[ask], walked)
    return np.where(area > 0, sale, np.where(area < 0, purchase, 0.0))


def _steps(levels: Floats, z: Floats) -> Floats:
    """Relative price of the level that was traded last; 1 where none was."""
    edges, _, price = levels
    slack, zero = 2.0 * SLACK * (edges[-1] - edges[0]), int(np.searchsorted(edges, 0.0))
    sold = price[np.clip(np.searchsorted(edges, z - slack, side="left") - 1, zero, len(edges) - 1)]
    bought = price[np.clip(np.searchsorted(edges, z + slack, side="right") - 1, 0, max(zero - 1, 0))]
    return np.where(z > slack, sold, np.where(z < -slack, bought, 1.0))


_AREA = {
    EXPONENTIAL: _exponential_area,
    LINEAR: _linear_area,
    SQUARE_ROOT: _root_area,
    CONSTANT_PRODUCT: _product_area,
    LADDER: _ladder_area,
}
_INVERSE = {
    EXPONENTIAL: _exponential_inverse,
    LINEAR: _linear_inverse,
    SQUARE_ROOT: _root_inverse,
    CONSTANT_PRODUCT: _product_inverse,
    LADDER: _ladder_inverse,
}
