"""Stops on contracts: what traders close of their positions once a mark has moved against them by some share.

Those of one contract at one exchange that fire in one round fill together at one price.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from netcontagion.margining._forms import coin_fill
from netcontagion.margining._margin_sales import CLOSING, OPENING, close_at, coins_for
from netcontagion.margining._posting import spans
from netcontagion.margining._state import EXECUTION
from netcontagion.margining._trading import taken, trade
from netcontagion.margining._valuation import INVERSE, worth
from netcontagion.network import policy

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netcontagion.margining._state import Live

__all__ = ["Stops"]

TRIGGER = 1e-12  # relative rounding that a stop may miss by
LITTLE = 1e-6  # share of what is held below which nobody trades


class Stops:
    """Positions with stops, by row, and the levels of each: the adverse move of the mark, and the share closed."""

    def __init__(self, state: Live, traders: NDArray[np.int64]) -> None:
        net, accounts = state.net, state.accounts[: state.overlay.used["accounts"]]
        owner = state.overlay.owner[accounts.trader]
        seats = np.flatnonzero(np.isin(owner, traders))
        self.rows, place = spans(accounts.first_position[seats], accounts.last_position[seats])
        self.seats = seats[place]
        rules = [policy(name).contract_stops for name in net.columns("traders")["policy"][owner[self.seats]]]
        most = max(map(len, rules), default=0)
        self.moves, self.shares = np.full((len(rules), most), np.inf), np.zeros((len(rules), most))
        for row, levels in enumerate(rules):
            self.moves[row, : len(levels)] = [one.drop for one in levels]
            self.shares[row, : len(levels)] = [one.share for one in levels]
        self.opening = np.array(state.positions.quantity[self.rows])
        self.start = net.book.market_mark[state.positions.market[self.rows]]
        self.filled = np.zeros(len(self.rows))

    def fire(self, state: Live, marks: NDArray[np.float64]) -> NDArray[np.float64]:
        """Close what is due; return a log with columns account, position, kind, units, money."""
        market, units = state.positions.market[self.rows], self._due(state, marks)
        log = [
            self._fill(state, np.flatnonzero((market == m) & (units != 0.0)), units, marks)
            for m in np.unique(market[units != 0.0]).tolist()
        ]
        return np.concatenate([np.zeros((0, 5)), *log])

    def _due(self, state: Live, marks: NDArray[np.float64]) -> NDArray[np.float64]:
        """Units that stops close, signed as the position: of every level that the mark has reached, less what was."""
        held, seats = state.positions[self.rows], self.seats
        kept = np.divide(marks[held.market], self.start, out=np.ones(len(held)), where=self.start > 0.0)
        against = np.sign(self.opening) * (1.0 - kept)
        share = np.where(against[:, None] >= self.moves * (1.0 - TRIGGER), self.shares, 0.0).sum(axis=1) - self.filled
        able = (state.accounts.forced[seats] == 0) & (state.rules.out[state.accounts.exchange[seats]] == 0)
        able &= (np.sign(held.quantity) == np.sign(self.opening)) & (share > LITTLE)
        units = np.minimum(share * np.abs(self.opening), np.abs(held.quantity)) * np.sign(self.opening)
        return np.asarray(np.where(able, units, 0.0))

    def _fill(
        self, state: Live, which: NDArray[np.intp], units: NDArray[np.float64], marks: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Trade the units of some stops on one contract, in proportion to what its book takes, and settle them."""
        m, ledger = int(state.positions.market[self.rows[which[0]]]), state.ledger
        market, wanted = state.markets[m], float(units[which].sum())
        book, coin = state.books[int(market.book)], int(market.settle)
        total = float(taken(wanted, book, state.levels))
        if market.kind == INVERSE:
            total = float(coin_fill(int(book.form), float(book.sold), float(book.depth), total))
        if abs(total) <= LITTLE * abs(wanted):
            return np.zeros((0, 5))
        cost = coins_for(market, total, book, state.levels) if market.kind == INVERSE else 0.0
        cash = trade(float(market.shocked), total, book, state.levels)[1]
        received = -cost * marks[coin] if market.kind == INVERSE else cash
        value = total * float(worth(state.markets, marks)[m])
        ledger.bought[m] += total
        ledger.flow[-2] += value
        ledger.loss[EXECUTION, -2] -= value - received
        if market.kind == INVERSE:
            ledger.bought[coin] += cost
            ledger.passed[coin] += cost
            ledger.flow[-2] -= received
        else:
            ledger.cash[-2] -= received
        part = units[which] * (total / wanted)
        price = np.full(len(which), received / total)
        close_at(
            np.column_stack([self.seats[which], self.rows[which], part, price]),
            np.full(len(which), EXECUTION),
            state.board,
            marks,
        )
        self.filled[which] += part / self.opening[which]
        kind = np.where(part > 0.0, CLOSING, OPENING)
        return np.column_stack([self.seats[which], self.rows[which], kind, np.abs(part), np.abs(part * price)])
