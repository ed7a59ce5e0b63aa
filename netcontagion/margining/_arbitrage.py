"""Arbitrage of one asset between exchanges: who buys where, and what is left of the differences."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from netcontagion.margining._forms import CONSTANT_PRODUCT, DRY, EXPONENTIAL, FORMS, LADDER, LINEAR
from netcontagion.margining._given import AMOUNT, Given, choice
from netcontagion.margining._impact import Curves, curves

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

__all__ = ["Arbitrage", "arbitrage"]

FORMS_TRADED = tuple(form for form, code in FORMS.items() if code != LADDER)


class Arbitrage(NamedTuple):
    """Trades of arbitrageurs in one asset.

    Attributes
    ----------
    trades : ndarray (n,)
        Units sold on each exchange; bought, where negative. They add up to 0.
    prices : ndarray (n,)
        Prices after [num/unit].
    cash : ndarray (n,)
        Cash received on each exchange [num]; paid, where negative.
    profit : float
        Cash of all exchanges, less the costs [num].
    """

    trades: Floats
    prices: Floats
    cash: Floats
    profit: float


def arbitrage(
    price: ArrayLike,
    depth: ArrayLike,
    *,
    sold: ArrayLike = 0.0,
    capacity: ArrayLike = np.inf,
    cost: ArrayLike = 0.0,
    closed: ArrayLike = False,
    form: str = "exponential",
) -> Arbitrage:
    r"""Buy an asset where it is cheap and sell it where it is dear, as far as capital goes and costs allow.

    With exponential impact, a_v units sold on exchange v of depth D_v and l_v the log of its price, the trades solve

    ``min sum_v D_v (l_v - a_v / D_v - mean)^2  subject to  sum_v a_v = 0,  |a_v| <= capacity_v``,

    so that ``a_v = D_v (l_v - mu)``, held inside its capacity, with the one mu for which the trades add up to 0. Costs
    c_v leave ``l_v - c_v - mu`` to sell for and ``mu - l_v - c_v`` to buy for: two prices whose logs are nearer than
    the sum of their costs are left alone. Without limits and costs all exchanges end at one price, the mean of the logs
    weighted by depth; with capacity 0 each keeps its own. Other forms: the same, with the units that take each price to
    mu.

    Parameters
    ----------
    price : array_like (n,)
        Price on each exchange where nothing was sold [num/unit], above 0.
    depth : array_like (n,)
        Depth of each exchange [units], finite: a price that nobody can move is no market to arbitrage.
    sold : array_like (n,)
        Net quantity sold on each exchange before, which moves its price.
    capacity : array_like (n,)
        Most that arbitrageurs can trade on each exchange [units], at least 0; their capital there over the price.
    cost : array_like (n,)
        Cost of trading on each exchange, as a log difference of prices (about a share of the price), at least 0.
    closed : array_like of bool (n,)
        Exchanges that let nothing in or out: nothing is traded there.
    form : {"exponential", "linear", "square_root", "constant_product"}
        Impact form of all exchanges.

    Returns
    -------
    Arbitrage
        Trades, prices, cash and profit.

    Raises
    ------
    SchemaError
        Listing everything that is wrong with the numbers.
    UnknownLabelError
        A form that does not exist.

    Examples
    --------
    >>> from netcontagion.margining import arbitrage
    >>> found = arbitrage([0.65, 0.99], [100.0, 300.0])
    >>> found.trades.round(3).tolist(), found.prices.round(4).tolist()
    ([-31.555, 31.555], [0.8912, 0.8912])
    >>> arbitrage([0.65, 0.99], [100.0, 300.0], closed=[True, False]).prices.tolist()
    [0.65, 0.99]
    """
    choice(form, FORMS_TRADED, "impact form that exchanges can be arbitraged with")
    given = Given("arbitrage")
    prices = given.numbers("price", price, dimensions=1)
    given.numbers("depth", depth, "(0, inf)")
    limit = given.numbers("capacity", capacity, "[0, inf]")
    costs = given.numbers("cost", cost, AMOUNT)
    shut = given.numbers("closed", closed, "[0, 1]")
    books, _ = curves(given, np.zeros(prices.shape), form, price, depth, sold)
    limit, costs = np.where(shut > 0, 0.0, limit), np.broadcast_to(costs, prices.shape)
    limit = np.broadcast_to(limit, prices.shape)
    market = _Market(books, np.log(books.price().clip(min=np.finfo(float).tiny)), limit, costs)
    trades = np.zeros(0)
    if len(prices):
        trades = _balanced(market, _common(market) if books.form == EXPONENTIAL else _bisected(market))
    cash = books.cash(trades)
    paid = float((cash * -np.expm1(-np.sign(cash) * costs)).sum())
    return Arbitrage(trades, books.after(trades).price(), cash, float(cash.sum()) - paid)


class _Market(NamedTuple):
    books: Curves
    logs: Floats
    limit: Floats
    cost: Floats

    def trades(self, mu: float) -> Floats:
        """Units that pay to sell on each exchange where the asset is worth exp(mu) elsewhere."""
        dear, cheap = self.logs - self.cost - mu, self.logs + self.cost - mu
        target = np.where(dear > 0, mu + self.cost, np.where(cheap < 0, mu - self.cost, self.logs))
        if self.books.form == EXPONENTIAL:
            units = self.books.depth * (self.logs - target)
        else:
            units = np.where(target == self.logs, 0.0, _units_to(self.books, np.exp(target)))
        return np.clip(units, -self.limit, self.limit)


def _common(market: _Market) -> float:
    """Log price at which exponential trades add up to 0: linear between the points where one begins or ends."""
    logs, cost, depth = market.logs, market.cost, market.books.depth
    reach = market.limit / depth
    ends = np.concatenate([logs - cost, logs + cost, logs - cost - reach, logs + cost + reach])
    ends = np.unique(ends[np.isfinite(ends)])
    low, high = 0, len(ends) - 1  # the sum of the trades is not negative at the lowest end, not positive at the highest
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if market.trades(ends[middle]).sum() > 0 else (low, middle)
    inside = 0.5 * (ends[low] + ends[high])
    trades = market.trades(inside)
    moving = (trades != 0) & (np.abs(trades) < market.limit)
    slope = float(depth[moving].sum())
    return float(np.clip(inside + trades.sum() / slope, ends[low], ends[high])) if slope > 0 else float(inside)


def _bisected(market: _Market) -> float:
    """Log price at which trades add up to 0, by halving: they fall as it rises."""
    low, high = float((market.logs - market.cost).min()), float((market.logs + market.cost).max())
    for _ in range(200):
        middle = 0.5 * (low + high)
        if not low < middle < high:
            break
        low, high = (middle, high) if market.trades(middle).sum() > 0 else (low, middle)
    return 0.5 * (low + high)


def _balanced(market: _Market, mu: float) -> Floats:
    """Trades at a common price, the longer side shortened by what rounding leaves."""
    trades = market.trades(mu)
    sold, bought = float(trades.clip(min=0.0).sum()), float(-trades.clip(max=0.0).sum())
    both = min(sold, bought)
    if both <= 0:
        return np.zeros(len(trades))
    return trades * np.where(trades > 0, both / sold, both / bought)


def _units_to(books: Curves, price: Floats) -> Floats:
    """Units to sell on each exchange until its price is ``price``."""
    left = price / books.base
    if books.form == LINEAR:
        used = 1.0 - left
    elif books.form == CONSTANT_PRODUCT:
        used = np.maximum(left**-0.5 - 1.0, DRY - 1.0)
    else:
        used = (1.0 - left) * np.abs(1.0 - left)
    return np.asarray(books.depth * used - books.sold)
