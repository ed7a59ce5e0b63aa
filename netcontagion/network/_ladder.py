"""Depth ladders: the levels of an order book as one text, as a cell of a table holds it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from netcontagion.errors import Problem, SchemaError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["LADDER", "Ladder", "is_ladder", "read_ladder", "write_ladder"]

LADDER = "ladder"
WRITTEN = "ladder 0.999:10 0.995:25 | 1.001:8, bids before the bar and asks after it, each relative price:units"


class Ladder(NamedTuple):
    """Levels of a book: relative prices and units of the bids, best first, then of the asks, best first."""

    bids: NDArray[np.float64]
    bid_units: NDArray[np.float64]
    asks: NDArray[np.float64]
    ask_units: NDArray[np.float64]


def is_ladder(impact: object) -> bool:
    """Tell whether a cell of the column ``impact`` is the text of a ladder, be it right or wrong."""
    return isinstance(impact, str) and impact.startswith(LADDER)


def write_ladder(ladder: Ladder) -> str:
    """Write a ladder as the text that :func:`read_ladder` reads; every number comes back exactly."""

    def side(prices: NDArray[np.float64], units: NDArray[np.float64]) -> list[str]:
        return [f"{price!r}:{size!r}" for price, size in zip(prices.tolist(), units.tolist(), strict=True)]

    bids, asks = side(ladder.bids, ladder.bid_units), side(ladder.asks, ladder.ask_units)
    text = " ".join([LADDER, *bids, *(["|", *asks] if asks else [])])
    read_ladder(text)
    return text


def read_ladder(text: str, *, table: str = "assets", row: int | None = None, column: str = "impact") -> Ladder:
    """Read ``"ladder 0.999:10 0.995:25 | 1.001:8"``: bids, best first, then asks, best first, as relative price:units.

    Parameters
    ----------
    text : str
        The word ``ladder`` and the levels. Relative prices are prices over the price of the asset: bids in (0, 1] and
        falling, asks from 1 on and rising. Units are those of one level, above 0. Either side may be empty, not both.
    table, row, column : str, int, str
        Where the text stands, for the message of the error.

    Returns
    -------
    Ladder
        Relative prices and units of both sides.

    Raises
    ------
    SchemaError
        Listing every level that is wrong.

    Examples
    --------
    >>> from netcontagion.network import read_ladder
    >>> read_ladder("ladder 0.999:10 0.995:25 | 1.001:8").bid_units.tolist()
    [10.0, 25.0]
    """
    problems: list[Problem] = []

    def refuse(value: object, allowed: str, cure: str) -> None:
        problems.append(Problem(table, column, row, value, allowed, cure))

    head, _, levels = str(text).strip().partition(" ")
    bid_text, _, ask_text = levels.partition("|")
    if head != LADDER or not bid_text.split() + ask_text.split():
        refuse(repr(text), WRITTEN, "write the word ladder and at least one level")
    sides = []
    for name, side in (("bid", bid_text), ("ask", ask_text)):
        pairs = [_level(level, name, refuse) for level in side.split()]
        prices, units = np.array(pairs, dtype=float).reshape(-1, 2).T
        known = prices[np.isfinite(prices)]
        if ((np.diff(known) >= 0) if name == "bid" else (np.diff(known) <= 0)).any():
            order = "falling" if name == "bid" else "rising"
            refuse(f"the {name}s {' '.join(side.split())}", f"{order} prices, the best first", "sort the levels")
        sides += [prices, units]
    if problems:
        raise SchemaError(problems)
    return Ladder(*sides)


def _level(level: str, side: str, refuse: Callable[[object, str, str], None]) -> tuple[float, float]:
    """Read ``price:units``; NaN, and a problem, where that is no level of the side."""
    try:
        price, units = (float(part) for part in level.split(":"))
    except ValueError:
        refuse(repr(level), WRITTEN, "write price:units")
        return np.nan, np.nan
    if not (0.0 < price <= 1.0 if side == "bid" else 1.0 <= price < np.inf):
        allowed = "relative price of a bid in (0, 1]" if side == "bid" else "relative price of an ask in [1, inf)"
        refuse(repr(level), allowed, "divide prices by the price of the asset")
        price = np.nan
    if not 0.0 < units < np.inf:
        refuse(repr(level), "units in (0, inf)", "leave out levels without units")
    return price, units
