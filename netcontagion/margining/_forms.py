"""Forms of price impact as compiled loops: what a sale does to a price, what it brings, how much brings a sum.

Every form is a curve of the price over the cumulative net quantity sold: what was traded before is where the next trade
starts, so that a sale in pieces is the sale at once.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from netcontagion._compile import kernel
from netcontagion.margining._given import choice
from netcontagion.network import read_ladder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = [
    "CONSTANT_PRODUCT",
    "EXPONENTIAL",
    "FORMS",
    "LADDER",
    "LINEAR",
    "NO_LEVELS",
    "SQUARE_ROOT",
    "Forms",
    "PriceCurve",
    "cash_for",
    "coin_fill",
    "fillable",
    "levels_of",
    "marginal_price",
    "read_forms",
    "smooth_cash",
    "smooth_fill",
    "smooth_price",
    "smooth_units",
    "units_for",
]

EXPONENTIAL, LINEAR, SQUARE_ROOT, CONSTANT_PRODUCT, LADDER = range(5)
FORMS = {
    "exponential": EXPONENTIAL,
    "linear": LINEAR,
    "square_root": SQUARE_ROOT,
    "constant_product": CONSTANT_PRODUCT,
    "ladder": LADDER,
}
NO_LEVELS = np.zeros((3, 0))
DRY = 1e-6  # share of a pool that never leaves it: its price would be infinite; of a price, where 1 / price is paid
STEEPEST = 300.0  # largest exponent of a price: nobody sells beyond it, and sums of money stay finite
FARTHEST = 1e12  # most that can be bought, over the depth, where the price rises with it or its root
MOST_PAID = 1e300  # cash over price x depth that no purchase goes beyond
SLACK = 1e-12  # relative rounding that an edge or a profit may miss by


class PriceCurve(NamedTuple):
    """The price of an asset over the net quantity sold, and where on it the market is.

    ``base`` is the price [num/unit] where nothing was sold, ``sold`` the net quantity that still moves the price
    [units], ``depth`` the parameter of the form [units] (inf: no impact; of a ladder: the factor on all its sizes).
    ``levels`` (3, n + 1) of a ladder: edges of the levels in net quantity, rising, asks below 0; cash at base price 1
    between 0 and the edge; relative price from the edge to the next. Other forms: ``NO_LEVELS``.
    """

    form: int
    base: float
    sold: float
    depth: float
    levels: NDArray[np.float64]


def levels_of(text: str) -> NDArray[np.float64]:
    """Turn the text of a depth ladder into the levels of a curve (3, n + 1); refuse what is no ladder."""
    book = read_ladder(text)
    units = np.concatenate([book.ask_units[::-1], book.bid_units])
    price = np.concatenate([book.asks[::-1], book.bids])
    edges, cash = (_from_zero(steps, len(book.asks)) for steps in (units, units * price))
    return np.stack([edges, cash, np.append(price, price[-1])])


@dataclass(frozen=True, eq=False)
class Forms:
    """Impact forms of many books: codes, and where each ladder lies in ``levels``: its columns ``first:last``."""

    form: NDArray[np.uint8]
    first: NDArray[np.int64]
    last: NDArray[np.int64]
    levels: NDArray[np.float64]

    @functools.cached_property
    def used(self) -> list[int]:
        """Codes of the forms that any book has."""
        return [int(code) for code in np.flatnonzero(np.bincount(self.form))]


def read_forms(impact: Sequence[str]) -> Forms:
    """Read the impact of every book: the name of a form or the text of a ladder; equal texts share their levels."""
    texts, which = np.unique(np.asarray(impact, dtype=str), return_inverse=True)
    kinds = [text.partition(" ")[0] for text in texts.tolist()]
    for kind in kinds:
        choice(kind, FORMS, "impact form")
    parts = [
        levels_of(text) if kind == "ladder" else NO_LEVELS for kind, text in zip(kinds, texts.tolist(), strict=True)
    ]
    last = np.cumsum([part.shape[1] for part in parts], dtype=np.int64)
    first = last - np.array([part.shape[1] for part in parts], dtype=np.int64)
    codes = np.array([FORMS[kind] for kind in kinds], dtype=np.uint8)
    return Forms(codes[which], first[which], last[which], np.concatenate([NO_LEVELS, *parts], axis=1))


def _from_zero(steps: NDArray[np.float64], zero: int) -> NDArray[np.float64]:
    """Add up steps to both sides of the edge number ``zero``."""
    below, above = -np.cumsum(steps[:zero][::-1])[::-1], np.cumsum(steps[zero:])
    return np.concatenate([below, [0.0], above])


# one curve ----------------------------------------------------------------------------------------------------------


@kernel
def marginal_price(curve: PriceCurve, units: float, selling: bool) -> float:
    """Price of one more unit after selling ``units`` (buying, where negative); 0 or inf where nobody trades it."""
    if curve.form == LADDER and not np.isinf(curve.depth):
        return float(curve.base * _next_step(curve.levels, (curve.sold + units) / curve.depth, selling))
    filled = smooth_fill(curve.form, curve.sold, curve.depth, units)
    return smooth_price(curve.form, curve.base, curve.sold + filled, curve.depth)


@kernel
def fillable(curve: PriceCurve, units: float) -> float:
    """Part of an order that the market takes: of a ladder the levels, of a pool all but the last.

    No form is bought so far that its price is no number.
    """
    if curve.form == LADDER and not np.isinf(curve.depth):
        most, least = curve.levels[0, -1] * curve.depth - curve.sold, curve.levels[0, 0] * curve.depth - curve.sold
        return float(min(max(units, min(least, 0.0)), max(most, 0.0)))
    return smooth_fill(curve.form, curve.sold, curve.depth, units)


@kernel
def cash_for(curve: PriceCurve, units: float) -> float:
    """Cash for selling units (paid for buying them, where negative), as far as they are filled: the integral of price.

    A price that has reached 0 stays there: what is sold beyond brings nothing.
    """
    if curve.form == LADDER and not np.isinf(curve.depth):
        area = _ladder_area(curve.levels, curve.sold / curve.depth, fillable(curve, units) / curve.depth)
        return float(curve.base * curve.depth * area)
    return smooth_cash(curve.form, curve.base, curve.sold, curve.depth, units)


@kernel
def units_for(curve: PriceCurve, cash: float) -> float:
    """Units whose sale brings the cash (bought for it, where negative), or all that the market pays for.

    The inverse of ``cash_for``. A curve that never pays as much gives the units it pays for: infinitely many where the
    price never reaches 0.
    """
    if curve.base <= 0.0:
        return _units_for_nothing(fillable(curve, -np.inf), cash)
    if curve.form == LADDER and not np.isinf(curve.depth):
        share = max(cash / (curve.base * curve.depth), -MOST_PAID)
        return float(curve.depth * _ladder_inverse(curve.levels, curve.sold / curve.depth, share))
    return smooth_units(curve.form, curve.base, curve.sold, curve.depth, cash)


# forms without steps: numbers only, which costs a hot loop less than handing an array on ----------------------------


@kernel
def smooth_price(form: int, base: float, sold: float, depth: float) -> float:
    """Price of a form that is no ladder [num/unit]."""
    if np.isinf(depth):
        return float(base)
    z = sold / depth
    if form == EXPONENTIAL:
        return float(base * np.exp(-z))
    if form == LINEAR:
        return float(base * max(1.0 - z, 0.0))
    if form == SQUARE_ROOT:
        return float(base * max(1.0 - np.copysign(np.sqrt(abs(z)), z), 0.0))
    return float(base / (1.0 + max(z, DRY - 1.0)) ** 2)


@kernel
def smooth_fill(form: int, sold: float, depth: float, units: float) -> float:
    """``fillable`` of a form that is no ladder."""
    if units >= 0.0 or np.isinf(depth):
        return float(units)
    lowest = -STEEPEST if form == EXPONENTIAL else DRY - 1.0 if form == CONSTANT_PRODUCT else -FARTHEST
    return float(max(units, min(lowest * depth - sold, 0.0)))


@kernel
def coin_fill(form: int, sold: float, depth: float, units: float) -> float:
    """Part of a sale that is filled of what pays 1 / price: until a millionth of the price is left."""
    if units <= 0.0 or form == LADDER or np.isinf(depth):
        return float(units)
    if form == EXPONENTIAL:
        lowest = -np.log(DRY)
    elif form == CONSTANT_PRODUCT:
        lowest = DRY**-0.5 - 1.0
    else:
        lowest = (1.0 - DRY) ** (2 if form == SQUARE_ROOT else 1)
    return float(min(units, max(lowest * depth - sold, 0.0)))


@kernel
def smooth_cash(form: int, base: float, sold: float, depth: float, units: float) -> float:
    """``cash_for`` of a form that is no ladder."""
    if np.isinf(depth):
        return float(base * units)
    units = smooth_fill(form, sold, depth, units)
    if form == EXPONENTIAL:
        if abs(units) < depth:
            return float(-base * np.exp(-sold / depth) * depth * np.expm1(-units / depth))
        return float(base * depth * (np.exp(-sold / depth) - np.exp(-(sold + units) / depth)))
    z, dz = sold / depth, units / depth
    if form == LINEAR:
        return float(base * depth * _linear_area(z, dz))
    if form == SQUARE_ROOT:
        return float(base * depth * _root_area(z, dz))
    return float(base * depth * _product_area(z, dz))


@kernel
def _units_for_nothing(most: float, cash: float) -> float:
    """Units that bring cash at a price of 0: no number is enough; as many as there are are bought."""
    return np.inf if cash > 0.0 else most if cash < 0.0 else 0.0


@kernel
def smooth_units(form: int, base: float, sold: float, depth: float, cash: float) -> float:
    """``units_for`` of a form that is no ladder."""
    if base <= 0.0:
        return _units_for_nothing(smooth_fill(form, sold, depth, -np.inf), cash)
    if np.isinf(depth):
        return float(cash / base)
    share = cash / (base * depth)
    if form == EXPONENTIAL:
        price = np.exp(-sold / depth)
        if abs(share) < 0.5 * price:
            return float(-depth * np.log1p(-share / price))
        if share >= price:
            return np.inf
        return smooth_fill(form, sold, depth, -depth * np.log(price - share) - sold)
    z, share = sold / depth, max(share, -MOST_PAID)
    if form == LINEAR:
        units = depth * _linear_inverse(z, share)
    elif form == SQUARE_ROOT:
        units = depth * _root_inverse(z, share)
    else:
        pool = 1.0 + max(z, DRY - 1.0)
        if share * pool >= 1.0:
            return np.inf
        units = depth * share * pool**2 / (1.0 - share * pool)
    return smooth_fill(form, sold, depth, units)


# linear: area under max(1 - z, 0) -----------------------------------------------------------------------------------


@kernel
def _linear_area(z: float, dz: float) -> float:
    start, end = min(z, 1.0), min(z + dz, 1.0)
    width = dz if z <= 1.0 and z + dz <= 1.0 else end - start
    return width * (1.0 - 0.5 * (start + end))


@kernel
def _linear_inverse(z: float, area: float) -> float:
    beyond, price = max(z - 1.0, 0.0), max(1.0 - z, 0.0)
    if area == 0.0 or (area > 0.0 and price == 0.0):
        return 0.0
    if area >= 0.5 * price * price > 0.0:
        return price
    free = beyond if area < 0.0 else 0.0
    return float(2.0 * area / (price + np.sqrt(price * price - 2.0 * area)) - free)


# square root: area under max(1 - sign(z) sqrt|z|, 0) ----------------------------------------------------------------


@kernel
def _root_area(z: float, dz: float) -> float:
    start, end = min(z, 1.0), min(z + dz, 1.0)
    width = dz if z <= 1.0 and z + dz <= 1.0 else end - start
    a, b = np.sqrt(abs(start)), np.sqrt(abs(end))
    if start * end < 0.0:
        return float(width - 2.0 / 3.0 * (b**3 - a**3))
    if a + b == 0.0:
        return float(width)
    side = 1.0 if start + end > 0.0 else -1.0
    return float(width * (1.0 - side * 2.0 / 3.0 * (a * a + a * b + b * b) / (a + b)))


@kernel
def _root_inverse(z: float, area: float) -> float:
    start, free = min(z, 1.0), max(z - 1.0, 0.0) if area < 0.0 else 0.0
    if area == 0.0 or (area > 0.0 and start == 1.0):
        return 0.0
    target = start - 2.0 / 3.0 * abs(start) ** 1.5 + area
    if target >= 1.0 / 3.0:
        return 1.0 - start
    width = _root_at(target) - start
    for _ in range(2):  # the last digits that the difference of two large areas loses
        end = start + width
        price = 1.0 - np.copysign(np.sqrt(abs(end)), end)
        if price < 1e-3:
            break
        width += (area - _root_area(start, width)) / price
    return float(width - free)


@kernel
def _root_at(area: float) -> float:
    """Where the area under 1 - sign(z) sqrt|z| from 0 to z is ``area`` < 1/3: a cubic in sqrt|z|."""
    if area >= 0.0:
        half = np.arcsin(np.sqrt(3.0 * area)) / 3.0
        return float((2.0 * np.sin(half) * np.sin(half + np.pi / 3.0)) ** 2)
    if area >= -1.0 / 3.0:
        half = np.arcsin(np.sqrt(-3.0 * area)) / 3.0
        return float(-((2.0 * np.sin(half) * np.sin(np.pi / 3.0 - half)) ** 2))
    return float(-((np.cosh(np.arccosh(-6.0 * area - 1.0) / 3.0) - 0.5) ** 2))


# constant product: area under (1 + z)^-2 ----------------------------------------------------------------------------


@kernel
def _product_area(z: float, dz: float) -> float:
    pool = 1.0 + max(z, DRY - 1.0)
    if dz > pool:  # where everything is sold the share is 1, not inf / inf
        return 1.0 / (1.0 + pool / dz) / pool
    return dz / max(pool + dz, DRY) / pool


# ladder: area under steps -------------------------------------------------------------------------------------------


@kernel
def _next_step(levels: NDArray[np.float64], z: float, selling: bool) -> float:
    """Relative price of the level that is traded next; 0 or inf where there is none."""
    last, slack = levels.shape[1] - 2, SLACK * (levels[0, -1] - levels[0, 0])
    if selling:
        at = np.searchsorted(levels[0], z + slack, side="right") - 1
        return 0.0 if at > last else float(levels[2, max(at, 0)])
    at = np.searchsorted(levels[0], z - slack, side="left") - 1
    return np.inf if at < 0 else float(levels[2, min(at, last)])


@kernel
def _ladder_area(levels: NDArray[np.float64], z: float, dz: float) -> float:
    edges, cash, price = levels[0], levels[1], levels[2]
    last = len(edges) - 2
    start = min(max(z, edges[0]), edges[-1])
    end = min(max(z + dz, edges[0]), edges[-1])
    width = dz if start == z and end == z + dz else end - start
    low, high = min(start, end), max(start, end)
    i = min(max(np.searchsorted(edges, low, side="right") - 1, 0), last)
    j = min(max(np.searchsorted(edges, high, side="left") - 1, 0), last)
    if i >= j:
        return float(price[i] * width)
    area = price[i] * (edges[i + 1] - low) + (cash[j] - cash[i + 1]) + price[j] * (high - edges[j])
    return float(np.copysign(area, dz))


@kernel
def _ladder_inverse(levels: NDArray[np.float64], z: float, area: float) -> float:
    edges, cash, price = levels[0], levels[1], levels[2]
    last = len(edges) - 2
    z = min(max(z, edges[0]), edges[-1])
    if area > 0.0:
        i = np.searchsorted(edges, z, side="right") - 1
        if i > last:
            return 0.0
        here = price[i] * (edges[i + 1] - z)
        if area <= here:
            return float(area / price[i])
        target = cash[i + 1] + (area - here)
        j = np.searchsorted(cash, target, side="right") - 1
        return float(edges[-1] - z if j > last else edges[j] - z + (target - cash[j]) / price[j])
    if area < 0.0:
        i = np.searchsorted(edges, z, side="left") - 1
        if i < 0:
            return 0.0
        here = price[i] * (z - edges[i])
        if -area <= here:
            return float(area / price[i])
        target = cash[i] + (area + here)
        j = np.searchsorted(cash, target, side="left") - 1
        return float(edges[0] - z if j < 0 else edges[j + 1] - z - (cash[j + 1] - target) / price[j])
    return 0.0
