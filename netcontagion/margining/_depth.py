"""Depth that answers to volatility and to market makers that are called; spreads and margins that answer to it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion._arrays import freeze, group_sum
from netcontagion.margining._kept import kept
from netcontagion.margining._makers import maker_depth, maker_spread, update_volatility
from netcontagion.network import rulebook

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netcontagion.margining._state import State
    from netcontagion.network import ExposureNetwork

    Floats = NDArray[np.float64]

__all__ = ["Depth"]

MEMORY = 0.94  # of the volatility, by round (RiskMetrics, for days)
LEFT = 0.01  # share of depth that always stays; books have lost about two orders of magnitude within a day
MOST = 30.0  # log of the largest factor on margins: nobody meets it, and sums of money stay finite
WIDEST = 1.0  # spread: who sells gets at least half of the price
DAY = 86_400.0


class Depth:
    """Volatility and depth of every book of one run, shared books first, then the markets' own.

    sigma_t^2 = 0.94 sigma_(t-1)^2 + 0.06 r_t^2, r_t the log return of the book over a round, sigma at the time of
    record the asset's ``volatility`` sigma_0; D_t = D_0 max(1, sigma_t / sigma_0)^-depth_power (1 - w_t), and at least
    a hundredth of D_0; w_t is the share of the market makers that were called. The net quantity sold moves with the
    depth, so that their ratio, and with it the price, stays: for the exponential form the book starts anew at the price
    now, with the new depth. Spreads are s_0 max(1, sigma_t / sigma_0)^spread_power, at most 1. Maintenance margin rates
    of an exchange are multiplied by max(1, sigma_t / sigma_0) to the ``health.volatility_power`` of its rulebook.
    """

    def __init__(self, state: State) -> None:
        net = state.net
        asset = np.concatenate([np.arange(len(net.labels("assets"))), net.book.market_asset])
        self.seconds = _round_seconds(net)
        days = 1.0 if self.seconds is None else self.seconds / DAY
        self.normal = np.nan_to_num(net.columns("assets")["volatility"], nan=0.0)[asset] * np.sqrt(days)
        self.quoted = np.array(state.books.depth)
        power = net.columns("assets")["depth_power"][asset]
        self.gamma = np.array(
            [rulebook(name).health_rule.volatility_power for name in net.columns("exchanges")["rulebook"]]
        )
        self.still = _without_volatility(net, self.gamma)
        self.answering = np.flatnonzero(np.isfinite(self.quoted) & (power > 0))
        self.power = power[self.answering]
        widening = net.columns("assets")["spread_power"][asset]
        self.widening = np.flatnonzero((state.books.spread > 0) & (widening > 0))
        self.spread, self.widening_power = state.books.spread[self.widening], widening[self.widening]
        self.maker, self.made, self.share = _makers(net, self.quoted)
        self.long, self.short = state.markets.long.copy(), state.markets.short.copy()
        self.volatility = self.normal.copy()
        self.price = np.concatenate([net.columns("assets")["price"], net.book.market_mark])
        self.watching = bool(len(self.answering) or len(self.widening) or (self.gamma > 0).any())

    def update(self, state: State, prices: Floats, called: NDArray[Any]) -> None:
        """Note the returns of the round, ``prices`` by book, and quote anew; ``called`` are codes of traders."""
        if self.watching:
            self._observe(prices)
        if (self.gamma > 0).any():
            self._call_for_more(state)
        if len(self.widening):
            normal, now = self.normal[self.widening], self.volatility[self.widening]
            spread = maker_spread(self.spread, np.maximum(now, normal), normal=normal, power=self.widening_power)
            state.books["spread"][self.widening] = np.minimum(spread, WIDEST)
        if not (len(self.answering) or len(self.maker)):
            return
        depth = self.quoted.copy()
        some = self.answering
        if len(some):
            normal = self.normal[some]
            high = np.maximum(self.volatility[some], normal)
            depth[some] = maker_depth(depth[some], high, normal=normal, power=self.power)
        gone = np.isin(self.maker, called)
        withdrawn = group_sum(self.made[gone], self.share[gone], len(depth))
        finite = np.isfinite(depth)
        depth[finite] = np.maximum(depth[finite] * (1.0 - withdrawn[finite]), LEFT * self.quoted[finite])
        books = np.flatnonzero(finite & (depth != state.books.depth))
        for name in ("sold", "passing"):
            state.books[name][books] *= depth[books] / state.books.depth[books]
        state.books["depth"][books] = depth[books]

    def rest(self, rounds: int) -> None:
        """Let volatility fade over rounds without a return."""
        self.volatility = self.volatility * MEMORY ** (0.5 * rounds)

    def _call_for_more(self, state: State) -> None:
        """Multiply maintenance margins by market: max(1, sigma_t / sigma_0)^volatility_power of the exchange."""
        book, power = state.markets.book, self.gamma[state.markets.exchange]
        normal, now = self.normal[book], self.volatility[book]
        ratio = np.divide(now, normal, out=np.ones(len(book)), where=normal > 0)
        stress = np.exp(np.minimum(power * np.log(np.maximum(ratio, 1.0)), MOST))
        state.markets["long"], state.markets["short"] = self.long * stress, self.short * stress
        state.terms = replace(state.terms, stress=stress)

    def _observe(self, prices: Floats) -> None:
        tiny = np.finfo(float).tiny
        with np.errstate(over="ignore", invalid="ignore"):
            move = np.log(np.maximum(prices, tiny) / np.maximum(self.price, tiny))
        move = np.where(np.isfinite(move), move, 0.0)  # a price without bound ends the run
        self.volatility = update_volatility(self.volatility, move, memory=MEMORY)
        self.price = prices

    @property
    def assumptions(self) -> list[str]:
        """What was assumed of volatility and of market makers."""
        found = []
        if self.watching and self.seconds is None:
            found.append("a round counts as one day of volatility: no rulebook gives round_seconds")
        if self.still:
            found.append(f"margins of {', '.join(self.still)} do not answer to volatility: assets.volatility is empty")
        if len(self.maker):
            found.append("market makers share the depth of a book by what they hold of its asset there")
        return found


def _round_seconds(net: ExposureNetwork) -> float | None:
    given = (rulebook(name).round_seconds for name in net.columns("exchanges")["rulebook"])
    return next((seconds for seconds in given if seconds is not None), None)


def _without_volatility(net: ExposureNetwork, gamma: Floats) -> list[str]:
    """Assets with margins that shall answer to a volatility that nobody gave."""
    asks = (gamma > 0)[net.book.market_exchange] & (net.columns("markets")["maintenance_margin"] > 0)
    if not asks.any():
        return []
    asset = np.unique(net.book.market_asset[asks])
    given = net.columns("assets")["volatility"][asset] > 0
    return [str(label) for label in net.labels("assets")[asset[~given]]]


def _are_makers(net: ExposureNetwork) -> NDArray[np.bool_]:
    """Which traders make markets; empty where nobody does."""
    found = np.asarray(net.columns("traders")["kind"] == "market_maker", dtype=bool)
    return freeze(found if found.any() else found[:0])


def _makers(net: ExposureNetwork, depth: Floats) -> tuple[NDArray[Any], NDArray[Any], Floats]:
    """Market makers, books and the share of the depth each quotes: what it holds of the asset there over all of them.

    Counted are deposits and positions in markets on the book and, on a shared book, wallets and holdings of the asset.
    """
    maker = kept(net, "_market_makers", _are_makers)
    none = np.zeros(0, dtype=np.int64)
    if not len(maker):
        return none, none, np.zeros(0)
    book, owner = net.book, net.columns("accounts")["trader"]
    parts = [
        (owner[book.balance_account], book.market_book[book.balance_market], book.deposited),
        (owner[book.position_account], book.market_book[book.position_market], np.abs(book.quantity)),
    ]
    outside = (net.columns("wallets"), net.columns("holdings"))
    parts += [(table["trader"], table["asset"], table["units"]) for table in outside]
    trader, place, units = (np.concatenate(column) for column in zip(*parts, strict=True))
    quoting = maker[trader] & (units > 0) & np.isfinite(depth[place])
    key, where = np.unique(trader[quoting].astype(np.int64) * len(depth) + place[quoting], return_inverse=True)
    held, of = group_sum(where, units[quoting], len(key)), key % len(depth)
    return key // len(depth), of, held / group_sum(of, held, len(depth))[of]
