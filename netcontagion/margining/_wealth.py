"""What everybody owns: units by place, and the wealth of every bearer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from netcontagion._arrays import group_sum
from netcontagion.margining._state import bearers
from netcontagion.margining._valuation import INVERSE, coins, paid, worth

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netcontagion.margining._state import State, Whole

__all__ = [
    "cash_funds",
    "cash_of_all",
    "money_against_contracts",
    "money_held",
    "own_units",
    "unit_value",
    "units_by_asset",
    "units_by_location",
    "wealth",
]


def cash_funds(state: State) -> NDArray[np.float64]:
    """Insurance funds kept in the numeraire [num]."""
    return np.where(state.fund_asset < 0, state.fund_units, 0.0)


def cash_of_all(state: Whole) -> float:
    """Money that everybody has together, beside external assets [num]."""
    funds = float(state.equity.sum() + cash_funds(state).sum() + state.ledger.cash.sum())
    funds += float(state.reserves.skin.sum() + state.reserves.default_fund.sum())
    return funds - float(paid(state.markets, state.positions).sum())


def own_units(state: State) -> NDArray[np.float64]:
    """Units that an exchange itself has, less those it owes, by market."""
    ledger = state.ledger
    own = ledger.fees + ledger.pool + ledger.inventory
    return np.asarray(own - ledger.owed - ledger.hole - ledger.short)


def units_by_location(state: Whole) -> NDArray[np.float64]:
    """Units of everybody together, by market and then by asset outside the exchanges."""
    n_markets, n_assets = len(state.markets.shocked), len(state.asset_base)
    inside = group_sum(state.entries.market, state.entries.deposited - state.entries.borrowed, n_markets)
    inside = inside + own_units(state) + _contract_units(state, n_markets)
    inside = inside + group_sum(state.transit[1], state.transit[2], n_markets)
    outside = group_sum(state.wallets.asset, state.wallets.units, n_assets)
    outside = outside + group_sum(state.holdings[1], state.holdings[2], n_assets)
    kept = state.fund_asset >= 0
    outside = outside + group_sum(state.fund_asset[kept], state.fund_units[kept], n_assets)
    return np.asarray(np.concatenate([inside, outside]) + state.ledger.bought)


def _contract_units(state: Whole, n_markets: int) -> NDArray[np.float64]:
    """Contracts held, and the coins that stand against inverse ones, by market."""
    positions = state.positions
    found = group_sum(positions.market, positions.quantity, n_markets)
    if not len(positions):
        return found
    inverse = np.flatnonzero(state.markets.kind[positions.market] == INVERSE)
    coin = state.markets.settle[positions.market[inverse]]
    return found + group_sum(coin, coins(state.markets, positions)[inverse], n_markets)


def money_against_contracts(state: Whole) -> NDArray[np.float64]:
    """Money that stands against the linear contracts of every account [num]."""
    return group_sum(state.positions.account, paid(state.markets, state.positions), len(state.accounts))


def units_by_asset(state: Whole) -> NDArray[np.float64]:
    """Units of everybody together, by asset."""
    n_assets = len(state.asset_base)
    asset = np.concatenate([state.markets.asset, np.arange(n_assets)])
    return group_sum(asset, units_by_location(state), n_assets)


def wealth(state: Whole, marks: NDArray[np.float64], prices: NDArray[np.float64]) -> NDArray[np.float64]:
    """Wealth of every bearer at the given marks, liabilities among nodes apart [num]."""
    return unit_value(state, marks, prices) + money_held(state)


def unit_value(state: Whole, marks: NDArray[np.float64], prices: NDArray[np.float64]) -> NDArray[np.float64]:
    """Value of the units of every bearer: accounts, wallets, holdings, funds, own units, the market's purchases."""
    n_traders, n_exchanges = state.n_traders, state.n_exchanges
    owned = np.zeros(n_traders + n_exchanges + len(bearers(state.net)))
    money = group_sum(state.accounts.trader, money_against_contracts(state), n_traders)
    owned[:n_traders] = group_sum(state.accounts.trader, state.account_equity(marks), n_traders) + money
    owned[:n_traders] += group_sum(state.wallets.trader, state.wallets.units * prices[state.wallets.asset], n_traders)
    trader, asset, units = state.holdings
    owned[:n_traders] += group_sum(trader, units * prices[asset], n_traders)
    trader, market, units = state.transit
    owned[:n_traders] += group_sum(trader, units * marks[market], n_traders)
    fund_price = np.where(state.fund_asset < 0, 0.0, np.append(prices, 0.0)[state.fund_asset])
    own = group_sum(state.markets.exchange, own_units(state) * marks, n_exchanges)
    owned[n_traders : n_traders + n_exchanges] = state.fund_units * fund_price + own
    owned[-2] = float(state.ledger.bought @ np.concatenate([worth(state.markets, marks), prices]))
    return owned


def money_held(state: Whole) -> NDArray[np.float64]:
    """Cash and external assets of every bearer [num]."""
    held: NDArray[np.float64] = state.ledger.cash.copy()
    held[: state.n_traders] += state.external_assets
    held[: state.n_traders] -= group_sum(state.accounts.trader, money_against_contracts(state), state.n_traders)
    reserves, banks = state.reserves, slice(state.n_traders, state.n_traders + state.n_exchanges)
    held[: state.n_traders] += group_sum(
        state.accounts.trader, reserves.default_fund - reserves.claims, state.n_traders
    )
    held[banks] += group_sum(state.accounts.exchange, reserves.claims, state.n_exchanges)
    held[banks] += state.equity + cash_funds(state) + reserves.skin
    held[banks] -= state.ledger.minted
    held[-2] += state.ledger.minted.sum()  # the market has the shares
    return held
