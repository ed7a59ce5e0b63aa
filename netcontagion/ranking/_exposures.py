"""The graph of exposures that measures of a graph see: who is exposed to whom and to what, in money at marks."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion._arrays import group_sum
from netcontagion.builders import depth_at
from netcontagion.network import is_ladder, read_ladder

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_array

    from netcontagion.network import ExposureNetwork

    Floats = NDArray[np.float64]

__all__ = ["ExposureGraph", "depths"]

IMPACT = 0.01  # fall of a price at which depths of different forms are compared


@dataclass(frozen=True, eq=False)
class ExposureGraph:
    """Traders, then exchanges, then assets, linked by exposures of row to column [num] before any shock.

    A trader is exposed to an asset by deposits, debts, wallets, holdings and the notional of contracts, an exchange by
    those of its accounts and by its insurance fund; a trader to an exchange by deposits, an exchange to a trader by
    debts, a creditor to its debtor by liabilities.
    """

    net: ExposureNetwork

    @functools.cached_property
    def directed(self) -> csr_array:
        """Exposures of row to column."""
        from scipy.sparse import coo_array

        parts = list(_exposures(self.net))
        row, column, money = (np.concatenate(one) for one in zip(*parts, strict=True))
        keep = money > 0
        size = len(self.net.nodes) + len(self.net.labels("assets"))
        graph = coo_array((money[keep], (row[keep], column[keep])), shape=(size, size)).tocsr()
        graph.sum_duplicates()
        return graph

    @functools.cached_property
    def either_way(self) -> csr_array:
        """Exposures of two nodes to each other, whichever way."""
        from scipy.sparse import csr_array

        return csr_array(self.directed + self.directed.T)

    @functools.cached_property
    def to_assets(self) -> csr_array:
        """Exposures of traders and exchanges (rows) to assets (columns)."""
        nodes = len(self.net.nodes)
        return self.directed[:nodes, nodes:]

    @functools.cached_property
    def communities(self) -> NDArray[np.int64]:
        """Community of every node."""
        from netcontagion.ranking._paths import community

        return community(self.either_way)


def _exposures(net: ExposureNetwork) -> Any:
    """List what is exposed to what, and for how much, table by table."""
    book, account = net.book, net.columns("accounts")
    traders, nodes = len(net.labels("traders")), len(net.nodes)
    has, owes = book.deposited * book.balance_mark, book.borrowed * book.balance_mark
    for of_account, market, value in (
        (book.balance_account, book.balance_market, has + owes),
        (book.position_account, book.position_market, book.notional()),
    ):
        asset = nodes + book.market_asset[market]
        yield account["trader"][of_account], asset, value
        yield traders + account["exchange"][of_account], asset, value
    trader, exchange = (account[name][book.balance_account] for name in ("trader", "exchange"))
    yield trader, traders + exchange, has
    yield traders + exchange, trader, owes
    price = net.columns("assets")["price"]
    for name in ("wallets", "holdings"):
        table = net.columns(name)
        yield table["trader"], nodes + table["asset"], table["units"] * price[table["asset"]]
    fund = net.columns("exchanges")
    kept = np.flatnonzero(fund["insurance_asset"] >= 0)
    asset = fund["insurance_asset"][kept]
    yield traders + kept, nodes + asset, fund["insurance_fund"][kept] * price[asset]
    owed = net.columns("liabilities")
    yield owed["creditor"], owed["debtor"], owed["amount"]


def depths(net: ExposureNetwork) -> Floats:
    """Value each asset's depth: money sold per fall of the price, over the first 1 %; ``inf`` for no impact [num].

    All books of an asset add up, its shared one and those of exchanges of their own. A ladder counts to its first level
    1 % below the price, or to its last.
    """
    asset, book = net.columns("assets"), net.book
    size = len(asset["price"])
    ladder = np.array([is_ladder(impact) for impact in asset["impact"]], dtype=bool)
    shared = np.where(np.isnan(asset["depth"]), np.where(ladder, 1.0, 0.0), asset["depth"])
    own = book.market_book >= size
    units = shared + group_sum(book.market_asset[own], book.book_depth[book.market_book[own]], size)
    per_unit = np.array([_linear_depth(impact) for impact in asset["impact"]], dtype=float)
    with np.errstate(invalid="ignore"):  # 0 x inf where nobody buys, or the price is 0
        depth = units * per_unit * asset["price"]
    return np.where((depth > 0) & (asset["kind"] != "residual"), depth, np.inf)


@functools.cache
def _linear_depth(impact: str) -> float:
    """Depth of the linear form that falls as much over the first 1 %, over the depth of this one."""
    if not is_ladder(impact):
        return float(1.0 / (depth_at(1.0, impact=IMPACT, form=impact) * IMPACT))
    book = read_ladder(impact)
    if not len(book.bids):
        return 0.0
    last = min(int((book.bids > 1 - IMPACT).sum()), len(book.bids) - 1)
    fall = 1.0 - float(book.bids[last])
    return float(book.bid_units[: last + 1].sum() / fall) if fall > 0 else np.inf
