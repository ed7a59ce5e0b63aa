"""Trades on the books of a board as compiled loops: every book follows its form, from where trades before have led.

While orders are filled together (``_together``), a book stays where it was: limits look at its curve, each order at its
part of all, and money passes at the common price. ``levels`` are those of all ladders; None where there is no ladder,
so that nothing is compiled for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from netcontagion._compile import kernel
from netcontagion.margining._forms import (
    EXPONENTIAL,
    LADDER,
    SLACK,
    PriceCurve,
    cash_for,
    fillable,
    marginal_price,
    smooth_cash,
    smooth_fill,
    smooth_price,
    smooth_units,
    units_for,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netcontagion.margining._state import Row

    Levels = NDArray[np.float64] | None

__all__ = [
    "asked",
    "buy_for",
    "cash_of",
    "crowding",
    "limit_price",
    "most_that_pays",
    "next_price",
    "side_of",
    "taken",
    "trade",
    "units_of",
]

HALVINGS = 200


@kernel
def _curve(base: float, sold: float, book: Row, levels: NDArray[np.float64]) -> PriceCurve:
    return PriceCurve(book.form, base, sold, book.depth, levels[:, book.first : book.last])


@kernel
def side_of(selling: bool, book: Row) -> float:
    """Bid or ask of a book over its price."""
    return float(1.0 - 0.5 * book.spread if selling else 1.0 + 0.5 * book.spread)


@kernel
def taken(units: float, book: Row, levels: Levels) -> float:
    """Part of an order that a book takes: ladders and pools end, and no price rises without bound."""
    if np.isinf(book.depth):
        return units
    sold = book.sold + book.together
    if levels is None or book.form != LADDER:
        return smooth_fill(book.form, sold, book.depth, units)
    return fillable(_curve(1.0, sold, book, levels), units)


@kernel
def crowding(units: float, book: Row) -> float:
    """How many times an order all those filled together with it want the same way, at least 1."""
    return float(book.crowd / units) if book.crowd * units > units * units else 1.0


@kernel
def asked(units: float, book: Row, levels: Levels) -> float:
    """Part of an order that a book takes, the same of all that are filled together."""
    if np.isinf(book.depth) or np.isnan(book.common):
        return taken(units, book, levels)
    everybody = units * crowding(units, book)
    if levels is None or book.form != LADDER:
        filled = smooth_fill(book.form, book.sold, book.depth, everybody)
    else:
        filled = fillable(_curve(1.0, book.sold, book, levels), everybody)
    found = units * (filled / everybody) if everybody != 0.0 else 0.0
    book.refused += units - found
    return float(found)


@kernel
def cash_of(base: float, units: float, book: Row, levels: Levels) -> float:
    """Cash that a sale on a book would bring (a purchase cost, where negative), as far as the book takes it."""
    base *= side_of(units > 0.0, book)
    if not np.isnan(book.common):
        return float(base * book.common * taken(units, book, levels))
    if levels is None:
        return smooth_cash(book.form, base, book.sold, book.depth, units)
    return cash_for(_curve(base, book.sold, book, levels), units)


@kernel
def units_of(base: float, cash: float, book: Row, levels: Levels) -> float:
    """Units whose sale on a book brings the cash (negative: that it buys, where negative): inverse of ``cash_of``."""
    base *= side_of(cash > 0.0, book)
    if not np.isnan(book.common):
        price = base * book.common
        return taken(cash / price if price > 0.0 else np.copysign(np.inf, cash), book, levels)
    if levels is None:
        return smooth_units(book.form, base, book.sold, book.depth, cash)
    return units_for(_curve(base, book.sold, book, levels), cash)


@kernel
def next_price(base: float, units: float, selling: bool, book: Row, levels: Levels) -> float:
    """Price of one more unit after a trade on a book; 0 or inf where nobody trades it."""
    if not np.isnan(book.common):
        return float(base * side_of(selling, book) * book.common)
    return limit_price(base, units, selling, book, levels)


@kernel
def limit_price(base: float, units: float, selling: bool, book: Row, levels: Levels) -> float:
    """Price of one more unit on the curve of a book, after a trade from where it was before what is filled together."""
    base *= side_of(selling, book)
    if levels is None:
        filled = smooth_fill(book.form, book.sold, book.depth, units)
        return smooth_price(book.form, base, book.sold + filled, book.depth)
    return marginal_price(_curve(base, book.sold, book, levels), units, selling)


@kernel
def trade(base: float, units: float, book: Row, levels: Levels) -> tuple[float, float]:
    """Sell units on a book (buy, where negative), as far as it takes them; return what was filled, and the cash."""
    filled = taken(units, book, levels)
    cash = cash_of(base, filled, book, levels)
    if np.isnan(book.common):
        book.sold += filled
        book.passing += (1.0 - book.permanent) * filled
    else:
        book.together += filled
    return filled, cash


@kernel
def buy_for(base: float, units: float, purse: float, book: Row, levels: Levels) -> tuple[float, float]:
    """Buy units on a book as far as the cash in the purse goes; return what was filled (negative), and the cash."""
    if -cash_of(base, -units, book, levels) > purse:
        units = min(units, -units_of(base, -purse, book, levels))
    return trade(base, -units, book, levels)


@kernel
def most_that_pays(
    wanted: float,
    share: float,
    base_c: float,
    base_d: float,
    book_c: Row,
    book_d: Row,
    mark_c: float,
    mark_d: float,
    levels: Levels,
) -> float:
    """Part of a repayment that still pays at the margin [num], collateral and debt on two books; -1 where none does.

    The r-th unit of money brings share x price of collateral / mark_c, after share x r / mark_c units were sold, and
    costs price of debt / mark_d, after r / mark_d units were bought. Among repayments that are filled together all
    have come as far as this one.
    """
    all_c = crowding(share * wanted / mark_c, book_c) * share / mark_c
    all_d = crowding(-wanted / mark_d, book_d) / mark_d
    found = _most_that_pays(wanted, share, all_c, all_d, base_c, base_d, book_c, book_d, mark_c, mark_d, levels)
    if found >= 0.0 and not np.isnan(book_c.common):
        book_c.refused += share * (wanted - found) / mark_c
        book_d.refused -= (wanted - found) / mark_d
    return found


@kernel
def _most_that_pays(
    wanted: float,
    share: float,
    all_c: float,
    all_d: float,
    base_c: float,
    base_d: float,
    book_c: Row,
    book_d: Row,
    mark_c: float,
    mark_d: float,
    levels: Levels,
) -> float:
    """Do that where ``all_c`` units are sold and ``all_d`` bought per unit of money."""
    smooth_c = book_c.form == EXPONENTIAL or np.isinf(book_c.depth)
    smooth_d = book_d.form == EXPONENTIAL or np.isinf(book_d.depth)
    if smooth_c and smooth_d:  # the log of the ratio of the two is linear in r
        bid, ask = base_c * side_of(True, book_c), base_d * side_of(False, book_d)
        edge = np.log(share * (bid / mark_c) / (ask / mark_d))
        edge += book_d.sold / book_d.depth - book_c.sold / book_c.depth
        slope = all_c / book_c.depth + all_d / book_d.depth
        if edge < -SLACK:
            return -1.0
        return min(wanted, max(edge, 0.0) / slope) if slope > 0.0 else wanted
    low, high, middle = 0.0, wanted, 0.0
    for step in range(HALVINGS):  # first nothing, then everything, then halves
        brought = share / mark_c * limit_price(base_c, all_c * middle, True, book_c, levels)
        paid = limit_price(base_d, -all_d * middle, False, book_d, levels) / mark_d
        if step == 0 and brought < paid * (1.0 - SLACK):
            return -1.0
        if brought >= paid:
            low = middle
        elif step > 0:
            high = middle
        middle = high if step == 0 else 0.5 * (low + high)
        if step > 0 and not low < middle < high:
            break
    return low
