"""Arbitrageurs of one run: they even out the books of an asset, and redeem wrapped assets that trade below their value.

They hold nothing from one round to the next: what they buy on one book they sell on another in the same round, to the
bearer ``market``, and their profit is cash of the bearer ``arbitrageurs``. What is redeemed goes to the issuer, whose
reserves lie outside the network with the bearer ``market``: that one gives the claim for cash, gets it back for the
underlying, and buys the underlying for cash, so that no units of any asset appear or vanish.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from netcontagion.margining._arbitrage import FORMS_TRADED, arbitrage
from netcontagion.margining._forms import FORMS, NO_LEVELS
from netcontagion.margining._given import choice
from netcontagion.margining._impact import Curves
from netcontagion.margining._state import EXECUTION

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netcontagion.margining._state import Live
    from netcontagion.network import ExposureNetwork, Shock

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]

__all__ = ["EVEN", "Arbitrageurs", "Trade"]

ROUNDING = 4 * np.finfo(float).eps
EVEN = 1e-9  # relative difference of prices that nobody trades for
_TRADED = "impact form of an asset with arbitrage"
_ARBITRAGEURS, _MARKET = -4, -2  # bearers, from the end


class Trade(NamedTuple):
    """Units sold on a book (bought, where negative) for cash [num]; ``cheap`` are the books of the deal bought on."""

    kind: str
    book: int
    units: float
    cash: float
    cheap: list[int]


class _Group(NamedTuple):
    """Books of one asset that units can be brought between."""

    capital: float
    form: str
    books: Integers


class _Claim(NamedTuple):
    """Books of a wrapped asset, the shared book of what it redeems for, and how many units of that one unit gives."""

    capital: float
    cap: float
    form: str
    books: Integers
    underlying: int
    underlying_form: str
    ratio: float


class Arbitrageurs:
    """Who may trade what, found once; ``trade`` is their part of a round."""

    def __init__(self, net: ExposureNetwork, shock: Shock, depth: Floats) -> None:
        self.asset = np.concatenate([np.arange(len(net.labels("assets"))), net.book.market_asset])
        self.groups: list[_Group] = []
        self.claims: list[_Claim] = []
        table = net.columns("assets")
        traded = np.flatnonzero(table["arbitrage"] > 0)
        if not len(traded):
            return
        place = {str(label): code for code, label in enumerate(net.labels("assets").tolist())}
        open_books = np.isfinite(depth) & np.concatenate([np.ones(len(place), bool), ~_closed(net, shock)])
        for asset in traded.tolist():
            form = choice(table["impact"][asset], FORMS_TRADED, _TRADED)
            capital, books = float(table["arbitrage"][asset]), np.flatnonzero(open_books & (self.asset == asset))
            if len(books) > 1:
                self.groups.append(_Group(capital, form, books))
            behind = place.get(str(table["underlying"][asset]))
            ratio = float(table["ratio"][asset] * table["backing_ratio"][asset])
            if behind is not None and table["redemption_open"][asset] and ratio > 0 and len(books):
                cap = float(table["redemption_cap"][asset])
                under = choice(table["impact"][behind], FORMS_TRADED, _TRADED)
                self.claims.append(_Claim(capital, cap, form, books, behind, under, ratio))

    def trade(self, state: Live) -> list[Trade]:
        """Trade once for every asset; post what was traded and return it."""
        done: list[Trade] = []
        for group in self.groups:
            done += _even_out(state, group)
        for claim in self.claims:
            done += _redeem(state, claim)
        return done


def _closed(net: ExposureNetwork, shock: Shock) -> NDArray[np.bool_]:
    """Markets on exchanges that let nothing in or out."""
    shut = (net.columns("exchanges")["transfers"] == "closed") | shock.out(net)
    return np.asarray(shut[net.book.market_exchange], dtype=bool)


# between exchanges --------------------------------------------------------------------------------------------------


def _even_out(state: Live, group: _Group) -> list[Trade]:
    """Buy where the asset is cheap, sell where it is dear, as far as the money goes on each book."""
    books, base = group.books, _bases(state)[group.books]
    prices = state.prices()[books]
    if not ((base > 0) & (prices > 0) & np.isfinite(prices)).all() or np.log(prices.max() / prices.min()) <= EVEN:
        return []
    found = arbitrage(
        base,
        state.books.depth[books],
        sold=state.books.sold[books],
        capacity=group.capital / prices,
        cost=-np.log(1.0 - 0.5 * state.books.spread[books]),
        form=group.form,
    )
    done, cheap = [], books[found.trades < 0].tolist()
    paid = found.cash * _sides(state, books, found.trades > 0)
    for book, units, cash, price in zip(*(x.tolist() for x in (books, found.trades, paid, prices)), strict=True):
        if units:
            _post(state, book, units, cash, price)
            done.append(Trade("arbitrage", book, units, cash, cheap))
    state.push(books, found.trades)
    return done


def _post(state: Live, book: int, units: float, cash: float, price: float) -> None:
    """Post units sold on a book for cash, at its price before: the market takes them, arbitrageurs keep nothing."""
    ledger, n_assets, value = state.ledger, len(state.asset_base), units * price
    ledger.bought[book - n_assets if book >= n_assets else len(state.markets) + book] += units
    ledger.flow[_MARKET] += value
    ledger.loss[EXECUTION, _MARKET] -= value
    _pay(state, cash)


def _pay(state: Live, cash: float) -> None:
    """Post cash that arbitrageurs get from the market."""
    for node, gain in ((_ARBITRAGEURS, cash), (_MARKET, -cash)):
        state.ledger.cash[node] += gain
        state.ledger.loss[EXECUTION, node] -= gain


# redemption -----------------------------------------------------------------------------------------------------------


def _redeem(state: Live, claim: _Claim) -> list[Trade]:
    """Buy a claim below what it redeems for, redeem it and sell the underlying, as far as it pays."""
    done: list[Trade] = []
    left = claim.cap
    for book in claim.books.tolist():
        units = min(_redeemable(state, claim, book), left)
        if not units > 0:
            continue
        curve, under = _curve(state, book, claim.form), _underlying(state, claim)
        ask, bid = _sides(state, [book, claim.underlying], [False, True])
        paid, got = ask * float(curve.cash(np.array(-units))), bid * float(under.cash(np.array(units * claim.ratio)))
        state.push(book, -units)
        state.push(claim.underlying, units * claim.ratio)
        _pay(state, paid + got)
        done += [
            Trade("redemption", book, -units, paid, [book]),
            Trade("redemption", claim.underlying, units * claim.ratio, got, [book]),
        ]
        left -= units
    return done


def _redeemable(state: Live, claim: _Claim, book: int) -> float:
    """Units after which redeeming pays no more, or the money is spent."""
    from scipy.optimize import brentq

    curve, under = _curve(state, book, claim.form), _underlying(state, claim)
    ask, bid = _sides(state, [book, claim.underlying], [False, True])

    def gap(units: float) -> float:
        claims, behind = curve.after(np.array(-units)), under.after(np.array(units * claim.ratio))
        return float(np.log(ask * claims.price() / (bid * claim.ratio * behind.price())))

    price, behind = float(curve.price()), float(under.price())
    if not (0 < price < np.inf and 0 < behind < np.inf) or gap(0.0) >= -EVEN:
        return 0.0
    limit = claim.capital / price
    most = min(-gap(0.0) * float(curve.depth), limit)
    while most < limit and gap(most) < 0:
        most = min(2.0 * most, limit)
    return float(brentq(gap, 0.0, most, xtol=1e-300, rtol=ROUNDING)) if gap(most) > 0 else most


def _curve(state: Live, book: int, form: str) -> Curves:
    books = state.books
    base, sold, depth = _bases(state)[book], books.sold[book], books.depth[book]
    return Curves(FORMS[form], np.asarray(base), np.asarray(sold), np.asarray(depth), NO_LEVELS)


def _underlying(state: Live, claim: _Claim) -> Curves:
    return _curve(state, claim.underlying, claim.underlying_form)


def _sides(state: Live, books: Any, selling: Any) -> Floats:
    """Bid or ask of some books over their prices."""
    half = 0.5 * state.books.spread[books]
    return np.asarray(np.where(selling, 1.0 - half, 1.0 + half))


def _bases(state: Live) -> Floats:
    """Price of every book where nothing was sold."""
    return np.concatenate([state.asset_base, state.markets.shocked])
