"""Wealth of all nodes together at the end of a run, from what it touched and sums that are the same in every run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from netcontagion._arrays import group_sum
from netcontagion.margining._kept import kept
from netcontagion.margining._posting import spans
from netcontagion.margining._state import records
from netcontagion.margining._valuation import coins, gains, paid, worth
from netcontagion.margining._wealth import cash_funds, own_units

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netcontagion.margining._state import Live, Markets
    from netcontagion.network import ExposureNetwork

    Floats = NDArray[np.float64]

__all__ = ["wealth_of_nodes"]


class Stock(NamedTuple):
    """What some traders have together: by market, and by asset outside the exchanges [units]; money paid by market."""

    deposited: Floats
    borrowed: Floats
    contracts: Floats
    coins: Floats
    paid: Floats
    outside: Floats

    def without(self, other: Stock) -> Stock:
        """Take away what others have."""
        return Stock(*(mine - theirs for mine, theirs in zip(self, other, strict=True)))

    def value(self, live: Live, marks: Floats, prices: Floats) -> float:
        """Value at marks of what nobody touched: deposits are what suppliers have left of them."""
        markets = live.markets
        units = self.deposited * live.overlay.share - self.borrowed
        held = np.flatnonzero(self.contracts)
        gained = (
            self.contracts[held] @ worth(markets, marks)[held] + self.coins @ marks[markets.settle] - self.paid.sum()
        )
        return float(units @ marks + gained + self.outside @ prices)


def wealth_of_nodes(live: Live, without: NDArray[np.int64]) -> float | None:
    """Add up the wealth of all nodes but some traders, liabilities apart [num].

    None where the whole network has to be laid out: accounts ended without a seat, holdings were traded, or a later
    shock struck.
    """
    overlay = live.overlay
    if overlay.strokes or live.investors is not None or live.taken:
        return None
    marks, prices = live.marks(), live.asset_prices()
    out = np.zeros(len(overlay.defaulted), dtype=bool)
    out[without] = True
    owner, held = live.net.columns("accounts")["trader"], live.net.columns("holdings")
    gone = np.union1d(overlay.traders, np.flatnonzero(overlay.defaulted | out))
    accounts = np.union1d(overlay.accounts, np.flatnonzero(out[owner]))
    everything = kept(live.net, "_stock", lambda net: _stock(net, live.markets))
    cold = everything.without(_opening(live, accounts, gone))
    total = cold.value(live, marks, prices) + _of_seats(live, marks, prices, without)
    total += _of_exchanges(live, marks, prices)
    ours = _rows(held["trader"], gone)
    ours = ours[~out[held["trader"][ours]]]  # what those who were opened hold was not touched
    total += float(held["units"][ours] @ prices[held["asset"][ours]])
    fund = live.reserves.default_fund - live.reserves.claims
    return total + float(live.external_assets[~out].sum() + fund[~out[owner]].sum())


def _of_seats(live: Live, marks: Floats, prices: Floats, without: NDArray[np.int64]) -> float:
    """Value what seats have now."""
    overlay, accounts, entries = live.overlay, live.accounts, live.entries
    stays = ~np.isin(overlay.traders, without)
    value = (entries.deposited - entries.borrowed) * marks[entries.market]
    total = float(value[stays[accounts.trader[entries.account]]].sum())
    total += float(gains(live.markets, live.positions, marks)[stays[accounts.trader[live.positions.account]]].sum())
    wallets = live.wallets
    total += float((wallets.units * prices[wallets.asset])[stays[wallets.trader]].sum())
    source = live.transit.source
    coming = live.transit.units * marks[entries.market[source]]
    total += float(coming[stays[accounts.trader[entries.account[source]]]].sum())
    return total + float(live.ledger.cash[: len(stays)][stays].sum())


def _of_exchanges(live: Live, marks: Floats, prices: Floats) -> float:
    """Value what exchanges have of their own, claims on owners included."""
    first, size = live.n_traders, live.n_exchanges
    fund_price = np.where(live.fund_asset < 0, 0.0, np.append(prices, 0.0)[live.fund_asset])
    money = live.equity + cash_funds(live) + live.reserves.skin - live.ledger.minted
    own = float(own_units(live) @ marks) + float(live.fund_units @ fund_price) + float(money.sum())
    return own + float(live.ledger.cash[first : first + size].sum() + live.reserves.claims.sum())


def _opening(live: Live, accounts: NDArray[np.int64], traders: NDArray[np.int64]) -> Stock:
    """Return what these accounts and traders had before the run."""
    start, book = live.overlay.index.start, live.net.book
    balances, _ = spans(start[accounts].astype(np.int64), start[accounts + 1].astype(np.int64))
    return _sum_up(live.net, live.markets, balances, _rows(book.position_account, accounts), traders)


def _stock(net: ExposureNetwork, markets: Markets) -> Stock:
    """Sum up what all traders have before a run."""
    book = net.book
    everybody = np.arange(len(net.labels("traders")))
    return _sum_up(net, markets, np.arange(len(book.deposited)), np.arange(len(book.quantity)), everybody)


def _sum_up(
    net: ExposureNetwork,
    markets: Markets,
    balances: NDArray[np.int64],
    contracts: NDArray[np.int64],
    traders: NDArray[np.int64],
) -> Stock:
    book, size = net.book, len(markets)
    market = book.balance_market[balances]
    positions: Any = records(
        market=(book.position_market[contracts], np.int32),
        quantity=(book.quantity[contracts], float),
        entry=(book.entry_price[contracts], float),
    )
    outside = np.zeros(len(net.labels("assets")))
    for name in ("wallets", "holdings"):
        table = net.columns(name)
        rows = _rows(table["trader"], traders)
        outside += group_sum(table["asset"][rows], table["units"][rows], len(outside))
    return Stock(
        group_sum(market, book.deposited[balances], size),
        group_sum(market, book.borrowed[balances], size),
        group_sum(positions.market, positions.quantity, size),
        group_sum(positions.market, coins(markets, positions), size),
        group_sum(positions.market, paid(markets, positions), size),
        outside,
    )


def _rows(sorted_codes: NDArray[Any], wanted: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows of a table in the order of its codes that have one of some sorted codes."""
    first, last = (np.searchsorted(sorted_codes, wanted, side=side) for side in ("left", "right"))
    return spans(first, last)[0]
