"""Orders of one step of a round that are filled together: on every book all of them get one price.

With Q_b the net quantity sold on book b by all orders of the step, S_b what was sold before and p_b its curve, the
price is the average ``P_b = 1 / Q_b integral of p_b from S_b to S_b + Q_b`` (of inverse contracts the harmonic one, as
gains are paid in coin). What a need decides, such as the sale that pays a debt, is decided at P; so Q is a function of
P, and both are found by repetition on a copy of the board. What a limit decides, such as a liquidator's profit at the
margin, is decided on the curve, on which everybody has come as far, in proportion to what it wants.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from netcontagion._compile import kernel
from netcontagion.margining._margin_sales import coins_for
from netcontagion.margining._state import Ledger
from netcontagion.margining._trading import cash_of, next_price, side_of
from netcontagion.margining._valuation import INVERSE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from netcontagion.margining._state import Board, Live

    Floats = NDArray[np.float64]

__all__ = ["Together"]

PASSES = 200  # repetitions until the last price tried holds
PLAIN = 20  # of them with the price found; then with the mean of it and the last one
CLOSE = 1e-13  # relative difference of two prices, and of two quantities to the depth, that is none
_MOVING = ("markets", "books", "accounts", "entries", "positions", "wallets", "rules")


class Together:
    """Fills of one run; ``unsettled`` counts steps in which all-or-nothing orders left no price that fits them all."""

    def __init__(self) -> None:
        self.unsettled = 0

    @contextmanager
    def filled(self, state: Live, rehearse: Callable[[Board], object]) -> Iterator[None]:
        """Fill together what is traded inside; ``rehearse`` trades the same on a copy of the board."""
        if not np.isfinite(state.books.depth).any():
            yield
            return
        try:
            self.unsettled += not _find_prices(state, rehearse)
            yield
        finally:
            _settle(state)


def _find_prices(state: Live, rehearse: Callable[[Board], object]) -> bool:
    """Find the price of every book, and what is wanted on it; return whether they were found."""
    books, none = state.books, np.zeros(len(state.books))
    price = average_prices(none, state.board)
    for attempt in range(PASSES):
        books["common"] = price
        trial = _copy(state.board)
        rehearse(trial)
        wanted = trial.books.together + trial.books.refused
        books["common"] = np.nan
        found = average_prices(trial.books.together.copy(), state.board)
        near = np.abs(found - price) <= CLOSE * np.abs(price)
        near &= (np.abs(wanted - books.crowd) <= CLOSE * (np.abs(wanted) + books.depth)) | (wanted == books.crowd)
        if near.all():
            books["common"] = price
            return True
        price = found if attempt < PLAIN else 0.5 * (price + found)
        books["crowd"] = wanted
    books["common"] = price
    return False


def _settle(state: Live) -> None:
    """Move every book by what was filled on it, and let it pay each order by its curve again."""
    books = state.books
    state.push(np.arange(len(books)), np.array(books.together))
    books["common"] = np.nan
    for name in ("together", "refused", "crowd"):
        books[name] = 0.0


def _copy(board: Board) -> Board:
    """Copy everything that trades change."""
    tables = {name: getattr(board, name).copy() for name in _MOVING}
    return board._replace(**tables, ledger=Ledger(*(values.copy() for values in board.ledger)))


@kernel
def average_prices(sold: Floats, board: Board) -> Floats:
    """Average price of a net quantity sold on every book, without the spread, over the price where nothing was sold."""
    found = np.ones(len(sold))
    for m in range(len(board.markets)):
        market = board.markets[m]
        book, units = board.books[market.book], sold[market.book]
        if np.isinf(book.depth):
            continue
        if units == 0.0:
            found[market.book] = next_price(1.0, 0.0, True, book, board.levels)
        elif market.kind == INVERSE and market.shocked > 0.0:
            coins = coins_for(market, units, book, board.levels)
            found[market.book] = market.face * units / (coins * market.shocked)
        else:
            found[market.book] = cash_of(1.0, units, book, board.levels) / units
        found[market.book] /= side_of(units >= 0.0, book)
    return found
