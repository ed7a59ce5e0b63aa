"""The book of a network as flat arrays: marks, equity, margin requirement and health of every account."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion._arrays import freeze, group_sum

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["HEALTH_TOL", "Book", "build_book"]

HEALTH_TOL = 1e-12  # relative: an account whose health is 1 up to rounding passes


@dataclass(frozen=True, eq=False)
class Book:
    """Codes and numbers that valuation needs, aligned with the tables; all arrays are read-only.

    ``market_*`` run over (exchange, asset), ``balance_market`` gives the market of each balance, ``threshold`` the
    liquidation threshold that holds for each balance, ``market_book`` the order book a market trades on: the asset's
    shared one (code = asset) or the exchange's own (code = number of assets + market). ``book_depth`` is in units,
    infinite where there is no impact.
    """

    market_exchange: NDArray[np.int32]
    market_asset: NDArray[np.int32]
    market_mark: NDArray[np.float64]
    market_book: NDArray[np.int32]
    book_depth: NDArray[np.float64]
    balance_account: NDArray[np.int32]
    balance_market: NDArray[np.int32]
    balance_mark: NDArray[np.float64]
    deposited: NDArray[np.float64]
    borrowed: NDArray[np.float64]
    threshold: NDArray[np.float64]
    position_account: NDArray[np.int32]
    position_market: NDArray[np.int32]
    quantity: NDArray[np.float64]
    entry_price: NDArray[np.float64]
    maintenance: NDArray[np.float64]
    tier_start: NDArray[np.int64]
    tier_floor: NDArray[np.float64]
    tier_rate: NDArray[np.float64]
    n_accounts: int

    def equity(self, factor: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        """Return the marked equity of each account [num]: balances x mark + sum of quantity x (mark - entry)."""
        mark = self.market_mark if factor is None else self.market_mark * factor
        held = (self.deposited - self.borrowed) * mark[self.balance_market]
        gains = self.quantity * (mark[self.position_market] - self.entry_price)
        size = self.n_accounts
        return group_sum(self.balance_account, held, size) + group_sum(self.position_account, gains, size)

    def requirement(self, factor: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        """Maintenance margin of each account [num], by tiers where the contract has them."""
        mark = self.market_mark if factor is None else self.market_mark * factor
        notional = np.abs(self.quantity) * mark[self.position_market]
        margin = notional * self.maintenance
        for market in np.unique(self.position_market).tolist():
            first, last = self.tier_start[market], self.tier_start[market + 1]
            if last > first:
                rows = self.position_market == market
                margin[rows] = _tiered(notional[rows], self.tier_floor[first:last], self.tier_rate[first:last])
        return group_sum(self.position_account, margin, self.n_accounts)

    def health(self, factor: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        """Health of each account, called below 1; +inf exactly where nothing is owed or required.

        Lending: sum of collateral x mark x threshold over debt value. With positions: equity over maintenance margin.
        """
        mark = self.market_mark if factor is None else self.market_mark * factor
        price = mark[self.balance_market]
        backing = group_sum(self.balance_account, self.deposited * price * self.threshold, self.n_accounts)
        debt = group_sum(self.balance_account, self.borrowed * price, self.n_accounts)
        if len(self.quantity):
            margined = np.zeros(self.n_accounts, dtype=bool)
            margined[self.position_account] = True
            backing = np.where(margined, self.equity(factor), backing)
            debt = np.where(margined, self.requirement(factor), debt)
        health = np.full(self.n_accounts, np.inf)
        with np.errstate(over="ignore"):  # a debt of 1e-320 is a debt
            np.divide(backing, debt, out=health, where=debt > 0)
        return health


def _tiered(
    notional: NDArray[np.float64], floor: NDArray[np.float64], rate: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Maintenance margin N x rate - cum, cum_j = cum_{j-1} + floor_j (rate_j - rate_{j-1})."""
    cumulative = np.cumsum(floor * np.diff(rate, prepend=0.0))
    tier = np.maximum(np.searchsorted(floor, notional, side="right") - 1, 0)
    return np.asarray(notional * rate[tier] - cumulative[tier])


def build_book(columns: Mapping[str, Mapping[str, Any]], n_assets: int) -> Book:
    """Lay the tables out as flat arrays."""
    market, balance, account, asset, position, tier = (
        columns[name] for name in ("markets", "balances", "accounts", "assets", "positions", "tiers")
    )
    key = market["exchange"].astype(np.int64) * n_assets + market["asset"]
    exchange = account["exchange"].astype(np.int64)

    def market_of(table: Mapping[str, Any]) -> NDArray[np.int32]:
        found = np.searchsorted(key, exchange[table["account"]] * n_assets + table["asset"])
        return np.asarray(found, dtype=np.int32)

    own_price, own_depth = market["price"], market["depth"]
    mark = np.where(np.isnan(own_price), asset["price"][market["asset"]], own_price)
    of_balance, of_position = market_of(balance), market_of(position)
    override = account["liquidation_threshold"][balance["account"]]
    threshold = np.where(np.isnan(override), market["liquidation_threshold"][of_balance], override)
    places = np.arange(len(key), dtype=np.int32)
    shared = np.isnan(own_depth)
    depth = np.concatenate([asset["depth"], own_depth])
    tier_key = tier["exchange"].astype(np.int64) * n_assets + tier["asset"]
    arrays: dict[str, Any] = {
        "market_exchange": market["exchange"],
        "market_asset": market["asset"],
        "market_mark": mark,
        "market_book": np.where(shared, market["asset"], n_assets + places).astype(np.int32),
        "book_depth": np.where(np.isnan(depth), np.inf, depth),
        "balance_account": balance["account"],
        "balance_market": of_balance,
        "balance_mark": mark[of_balance],
        "deposited": balance["deposited"],
        "borrowed": balance["borrowed"],
        "threshold": np.nan_to_num(threshold, nan=0.0),
        "position_account": position["account"],
        "position_market": of_position,
        "quantity": position["quantity"],
        "entry_price": position["entry_price"],
        "maintenance": np.nan_to_num(market["maintenance_margin"][of_position], nan=0.0),
        "tier_start": np.searchsorted(tier_key, np.append(key, np.iinfo(np.int64).max)),
        "tier_floor": tier["floor"],
        "tier_rate": tier["maintenance_margin"],
    }
    return Book(**{name: freeze(values) for name, values in arrays.items()}, n_accounts=len(exchange))
