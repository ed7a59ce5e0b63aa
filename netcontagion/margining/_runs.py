"""Runs: traders who take their free deposits out of exchanges that frighten them.

Everybody asks at once. Of each asset an exchange pays what it holds and has not lent, in proportion to what is asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from netcontagion._arrays import group_sum
from netcontagion.margining._final import coverage
from netcontagion.margining._posting import spans, value_positions
from netcontagion.margining._state import EXECUTION
from netcontagion.margining._transit import submit
from netcontagion.margining._valuation import LENDING, MARGIN
from netcontagion.margining._whole import current_state
from netcontagion.network import policy

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netcontagion.margining._state import Live, Whole

__all__ = ["Runs", "receive"]

CRUMB = 1e-6  # of the most that was ever deposited: less is not withdrawn
SURE = 1e-9  # coverage may be below the level by this much without frightening anybody


class Runs:
    """The accounts of traders who may run, by row of their balances, and the coverage that they may know of.

    ``known`` has a row for every lag, the newest first; +inf where nobody knew of anything yet.
    """

    def __init__(self, state: Live, traders: NDArray[np.int64]) -> None:
        owner = state.overlay.owner[state.accounts.trader[: state.overlay.used["accounts"]]]
        self.seats = np.flatnonzero(np.isin(owner, traders))
        self.rows, self.place = spans(state.accounts.first[self.seats], state.accounts.last[self.seats])
        self.trader, self.venue = owner[self.seats], state.accounts.exchange[self.seats].astype(np.int64)
        names = state.net.columns("traders")["policy"][self.trader]
        rules = [policy(name) for name in names]
        columns = [(one.run.w0, one.run.w1, one.run.coverage, one.withdrawal_health) for one in rules]
        self.w0, self.w1, self.level, self.keep = np.array(columns).reshape(-1, 4).T
        self.lag = np.array([one.run.lag for one in rules], dtype=np.int64)
        self.wallet = self._wallets(state)
        self.most = np.zeros(len(self.rows))
        self.known = np.full((self.lag.max(initial=0) + 1, state.n_exchanges), np.inf)
        self.heard = -1  # round of the newest row

    def _wallets(self, state: Live) -> NDArray[np.int64]:
        """Row of the wallet that takes what is withdrawn, by row of balances."""
        purse, n_assets = state.wallets[: state.overlay.used["wallets"]], len(state.asset_base)
        key = purse.trader.astype(np.int64) * n_assets + purse.asset
        order = np.argsort(key)
        asset = state.markets.asset[state.entries.market[self.rows]]
        wanted = state.accounts.trader[self.seats[self.place]].astype(np.int64) * n_assets + asset
        return np.asarray(order[np.searchsorted(key, wanted, sorter=order)])

    def ask(
        self, state: Live, shared: NDArray[np.float64], shut: NDArray[np.bool_], number: int
    ) -> NDArray[np.float64]:
        """Take what is withdrawn in this round out of accounts: account, wallet (-1 - row), balance, 0, units."""
        whole, marks = current_state(state), state.marks()
        self._learn(coverage(whole, shared), number)
        share = self._intensity() * ~(shut[self.venue] | state.overlay.has_failed(self.trader))
        units = share[self.place] * self._free(state, marks)
        market = state.entries.market[self.rows]
        asked = group_sum(market, units, len(marks))
        units *= np.divide(_at_hand(whole), asked, out=np.ones(len(asked)), where=asked > 0.0).clip(max=1.0)[market]
        self.most = np.maximum(self.most, state.entries.deposited[self.rows])
        found = np.flatnonzero(units > CRUMB * self.most)
        found = found[np.argsort(self.venue[self.place[found]], kind="stable")]
        rows = self.rows[found]
        left = state.entries.deposited[rows] - units[found]
        state.entries["deposited"][rows] = np.maximum(left, 0.0)
        seats, wallet = self.seats[self.place[found]], -1 - self.wallet[found]
        log = np.column_stack([seats, wallet, rows, np.zeros(len(rows)), units[found]])
        gated = state.rules.gated[self.venue[self.place[found]]] != 0
        submit(state, log[gated], number, at_once=True)
        np.add.at(state.wallets["units"], self.wallet[found[~gated]], units[found[~gated]])
        receive(state, log[~gated], marks)
        return log

    def pending(self) -> bool:
        """Whether news is on its way that somebody does not know of."""
        lags = [(lag, self.venue[self.lag == lag]) for lag in np.unique(self.lag).tolist()]
        pairs = [(self.known[:lag, venue], self.known[lag, venue]) for lag, venue in lags]
        return not all(np.allclose(newer, heard, rtol=0.0, atol=SURE) for newer, heard in pairs)

    def _learn(self, news: NDArray[np.float64], number: int) -> None:
        """Put the coverage of a round first; in rounds that were not played it was that of the last one."""
        idle = min(number - self.heard - 1, len(self.known) - 1)
        older = np.concatenate([np.repeat(self.known[:1], idle, axis=0), self.known])
        self.known, self.heard = np.concatenate([news[None], older])[: len(self.known)], number

    def _intensity(self) -> NDArray[np.float64]:
        """Share of free deposits that each account withdraws: min(1, w0 + w1 (level - coverage)+)."""
        gap = self.level - self.known[self.lag, self.venue]
        return np.asarray(np.minimum(self.w0 + self.w1 * np.where(gap > SURE, gap, 0.0), 1.0))

    def _free(self, state: Live, marks: NDArray[np.float64]) -> NDArray[np.float64]:
        """Units that each balance can do without while its account keeps a health, all collateral drawn on alike."""
        value_positions(state, self.seats, marks)
        accounts, entries = state.accounts[self.seats], state.entries[self.rows]
        market, size, place = state.markets[entries.market], len(self.seats), self.place
        test, keep, price = accounts.test[place], self.keep[place], marks[entries.market]
        by_debt, by_margin = test == LENDING, test == MARGIN
        owed = entries.borrowed * price
        tied = (entries.deposited * market.long + entries.borrowed * market.short) * price * by_margin
        backing = accounts.gains + group_sum(
            place, entries.deposited * price * entries.threshold - owed * ~by_debt, size
        )
        must = accounts.required + group_sum(place, owed * by_debt + tied, size)
        bound = (must > 0.0) | (accounts.test != LENDING)
        weight = price * np.maximum(entries.threshold - keep * market.long * by_margin, 0.0) * bound[place]
        spare = backing - self.keep * must
        drawn = group_sum(place, weight * entries.deposited, size)
        share = np.divide(spare, drawn, out=np.ones(size), where=drawn > 0.0).clip(0.0, 1.0)
        held = entries.deposited * (spare >= 0.0)[place]
        return np.asarray(np.where(weight > 0.0, share[place], 1.0) * held)


def receive(state: Live, log: NDArray[np.float64], marks: NDArray[np.float64]) -> None:
    """Post what came into wallets from accounts: outside its mark a unit may be worth something else."""
    source = log[:, 2].astype(np.int64)
    market = state.entries.market[source]
    gain = log[:, 4] * (state.marks_outside[state.markets.asset[market]] - marks[market])
    trader = state.accounts.trader[state.entries.account[source]]
    np.subtract.at(state.ledger.loss[EXECUTION], trader, gain)
    np.add.at(state.ledger.flow, trader, gain)


def _at_hand(state: Whole) -> NDArray[np.float64]:
    """Units of every market that its exchange holds and has not lent, beside its inventory."""
    entries, ledger = state.entries, state.ledger
    held = group_sum(entries.market, entries.deposited - entries.borrowed, len(state.markets))
    own = ledger.fees + ledger.pool - ledger.owed - ledger.hole - ledger.short
    return np.asarray(np.maximum(held + own, 0.0))
