"""What a set of closed accounts does to prices, suppliers and healths: a map that only ever closes more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from netcontagion._arrays import group_sum
from netcontagion.margining._forms import Forms, read_forms
from netcontagion.margining._impact import Curves
from netcontagion.margining._posting import GONE, spans
from netcontagion.margining._state import called

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netcontagion.margining._state import Live

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]

__all__ = ["Book", "Outcome"]


class Outcome(NamedTuple):
    """What follows from a set of closed accounts: marks and average prices by market, health, and who is called."""

    marks: Floats
    average: Floats
    health: Floats
    called: Bools


@dataclass(frozen=True, eq=False)
class Book:
    """Some indebted accounts and their balances (by account, then by market), and what nobody's close-out changes.

    ``value`` and ``owed`` are deposits and debts at the marks right after the shock [num], ``weighted`` what a deposit
    counts in health, ``sold`` the units a close-out sells. ``turn`` is the place of a debt in the order of repayment,
    the largest first. ``closes`` tells whose exchange sells, ``bare`` who has no collateral beside what is sold,
    ``kept`` the deposits of everybody else, by market [units], ``shocked`` the marks right after the shock,
    ``forms`` the impact forms of the books: those of the assets, then those of the markets.
    """

    state: Live
    forms: Forms
    shocked: Floats
    accounts: NDArray[np.int64]
    place: NDArray[np.int64]
    market: NDArray[np.int64]
    deposited: Floats
    owed: Floats
    weighted: Floats
    sold: Floats
    turn: NDArray[np.int64]
    closes: Bools
    forced: Bools
    bare: Bools
    kept: Floats

    @classmethod
    def of(cls, state: Live, accounts: NDArray[np.int64], *, liquidates: bool) -> Book:
        """Lay out the balances of some accounts; the others are never closed."""
        book, start, markets = state.net.book, state.overlay.index.start, state.markets
        rows, place = spans(start[accounts].astype(np.int64), start[accounts + 1].astype(np.int64))
        market, deposited = book.balance_market[rows].astype(np.int64), book.deposited[rows]
        mark, threshold = markets.shocked[market], book.threshold[rows]
        owed = book.borrowed[rows] * mark
        weighted = deposited * mark * threshold
        sells = (threshold > 0) & (markets.sellable[market] > 0)
        table, size = state.net.columns("accounts"), len(accounts)
        left = group_sum(place, np.where(sells, 0.0, weighted), size)
        others = np.ones(len(book.deposited), dtype=bool)
        others[rows] = False
        return cls(
            state=state,
            forms=_forms(state),
            shocked=markets.shocked.copy(),
            accounts=accounts,
            place=place,
            market=market,
            deposited=deposited,
            owed=owed,
            weighted=weighted,
            sold=np.where(sells, deposited, 0.0),
            turn=_turns(place, owed),
            closes=liquidates & (state.rules.out[table["exchange"][accounts]] == 0),
            forced=state.overlay.defaulted[table["trader"][accounts]],
            bare=~(left > GONE * group_sum(place, owed, size)),
            kept=group_sum(book.balance_market[others], book.deposited[others], len(markets)),
        )

    def only(self, chosen: Bools, *, liquidates: bool) -> Book:
        """Return the book of some of the accounts; the others are never closed."""
        return Book.of(self.state, self.accounts[chosen], liquidates=liquidates)

    def after(self, chosen: Bools, tilt: float = 0.0) -> Outcome:
        """Work out what follows when the exchanges that sell close the chosen accounts.

        A close-out comes before losses are shared; whether an account is called is asked with the share of the losses
        that it bears if it stays. Every sum, product and price is off by less than a positive ``tilt``, which errs
        towards lower prices, larger losses and lower health; a negative one errs to the other side.
        """
        state, size, more, less = self.state, len(self.accounts), 1.0 + tilt, 1.0 - tilt
        book = state.markets.book
        closed = chosen & self.closes
        units = np.where(closed[self.place], self.sold, 0.0)
        sold = group_sum(book[self.market], units, len(state.books)) * more
        price, mean = (values[book] * less for values in _prices(self.forms, sold, state.books.depth))
        got = group_sum(self.place, units * (self.shocked * mean)[self.market], size) * less
        unpaid = self._unpaid(closed & self.bare, got, more)
        holes = group_sum(self.market, unpaid, len(price)) * more
        kept = (self.kept + group_sum(self.market, self.deposited - units, len(price))) * less
        asked = _asked_of_suppliers(state, holes, kept * self.shocked, less) * more
        stakes = (kept[self.market] + units) * self.shocked[self.market] * less  # with those of an account that stays
        lost = np.divide(asked[self.market], stakes, out=np.zeros(len(stakes)), where=stakes > 0)
        weighted = self.weighted * price[self.market] * np.maximum(1.0 - lost, 0.0)
        backing = group_sum(self.place, weighted, size) * less
        debt = group_sum(self.place, self.owed, size) * more
        health = np.divide(backing, debt, out=np.full(size, np.inf), where=debt > 0)
        low = called(health) | (self.forced & np.isfinite(health))
        return Outcome(self.shocked * price, self.shocked * mean, health, low)

    def _unpaid(self, closed: Bools, got: Floats, more: float) -> Floats:
        """Debts that proceeds do not reach, the largest debt repaid first [num]."""
        left, unpaid = got.copy(), np.zeros(len(self.owed))
        for turn in range(int(self.turn.max(initial=-1)) + 1):
            rows = np.flatnonzero(self.turn == turn)
            rows = rows[closed[self.place[rows]]]
            account, owed = self.place[rows], self.owed[rows] * more
            unpaid[rows] = np.maximum(owed - left[account], 0.0)
            left[account] = np.maximum(left[account] - owed, 0.0)
        return unpaid


def _forms(state: Live) -> Forms:
    """Read the impact form of every book."""
    impact, asset = state.net.columns("assets")["impact"], state.net.book.market_asset
    return read_forms([*impact, *impact[asset]])


def _turns(place: NDArray[np.int64], owed: Floats) -> NDArray[np.int64]:
    """Place of each debt among those of its account, the largest first; -1 where nothing is owed."""
    turn = np.full(len(place), -1)
    debts = np.flatnonzero(owed > 0)
    order = debts[np.lexsort((debts, -owed[debts], place[debts]))]
    opens = np.flatnonzero(np.diff(place[order], prepend=-1))
    turn[order] = np.arange(len(order)) - np.repeat(opens, np.diff(np.append(opens, len(order))))
    return turn


def _prices(forms: Forms, sold: Floats, depth: Floats) -> tuple[Floats, Floats]:
    """Price after a sale, and average price of the sale, of every book where a unit cost 1 before."""
    price, mean = np.ones(len(sold)), np.ones(len(sold))
    for form, first in set(zip(forms.form.tolist(), forms.first.tolist(), strict=True)):
        books = np.flatnonzero((forms.form == form) & (forms.first == first))
        units, levels = sold[books], forms.levels[:, first : forms.last[books[0]]]
        start = Curves(form, np.ones(len(books)), np.zeros(len(books)), depth[books], levels)
        price[books] = start.after(units).price()
        mean[books] = np.divide(start.cash(units), units, out=np.ones(len(books)), where=units > 0)
    return price, mean


def _asked_of_suppliers(state: Live, holes: Floats, worth: Floats, less: float) -> Floats:
    """Work out what waterfalls ask of the suppliers of each market, whose deposits have some worth [num]."""
    asked, markets = np.zeros(len(holes)), state.markets
    short = np.flatnonzero(holes > 0)
    for exchange in np.unique(markets.exchange[short]).tolist():
        missing = {m: float(holes[m]) for m in short[markets.exchange[short] == exchange].tolist()}
        for layer in state.layers_of(exchange):
            if layer == "suppliers":
                for market, value in missing.items():
                    asked[market], missing[market] = value, max(value - float(worth[market]), 0.0)
            else:
                _draw(state, exchange, layer, missing, less)
    return asked


def _draw(state: Live, exchange: int, layer: str, missing: dict[int, float], less: float) -> None:
    """Fill holes from the insurance fund or the equity of an exchange, market by market."""
    fund = layer == "insurance_fund"
    left = float(state.fund_units[exchange] if fund else state.equity[exchange]) * less
    asset = int(state.fund_asset[exchange]) if fund else -1
    for market, value in missing.items():
        in_kind = asset == state.markets.asset[market]
        price = float(state.markets.shocked[market] if in_kind else 1.0 if asset < 0 else state.asset_base[asset])
        paid = min(value, left * price)
        missing[market] = value - paid
        left = max(left - paid / price, 0.0) if price > 0 else left
