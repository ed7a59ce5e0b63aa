"""What traders trade without being called: stops, sales to a leverage, purchases of what fell. All on holdings.

Orders of one kind in one round fill together, each book at one price, the cash over the units of them all: no order
depends on the rows that were given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion._arrays import group_sum
from netcontagion.margining._state import EXECUTION
from netcontagion.margining._trading import cash_of, next_price, trade
from netcontagion.margining._valuation import gains
from netcontagion.network import policy

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netcontagion.margining._state import Live
    from netcontagion.network import ExposureNetwork, Policy

__all__ = ["Investors"]

SLACK = 1e-9  # leverage and demand may be off by this share: less is not traded
TRIGGER = 1e-12  # relative rounding that a stop may miss by
HALVINGS = 64


class Investors:
    """Traders with orders of their own, by seat, and their holdings: rows of trader and asset."""

    def __init__(self, state: Live, traders: NDArray[np.int64]) -> None:
        net = state.net
        self.codes = traders
        seat = np.argsort(state.overlay.traders)
        self.seat = seat[np.searchsorted(state.overlay.traders, traders, sorter=seat)]
        self.policies: list[Policy] = [policy(name) for name in net.columns("traders")["policy"][traders]]
        self.owner, self.asset, self.units = self._rows(net)
        self.opening = self.units.copy()
        self.fired = np.zeros(len(self.owner))  # share of the opening units that stops have sold
        self.bought = np.zeros(len(self.owner))
        kind = net.columns("assets")["kind"][self.asset]
        self.sellable = ~np.isin(kind, ("residual", "linear", "inverse"))
        self.before = net.columns("assets")["price"]
        self.money = int(np.append(np.flatnonzero(net.labels("assets") == net.numeraire), -1)[0])
        self.claims, self.debts = _claims_and_debts(net)
        self.target, self.capital = self._targets(state), self._cash(state)

    def _rows(self, net: ExposureNetwork) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """List the holdings of these traders, and empty ones of all assets for those who buy; by trader and asset."""
        table, n_assets = net.columns("holdings"), len(net.labels("assets"))
        ours = np.isin(table["trader"], self.codes)
        buys = self.codes[[one.buying.demand > 0 for one in self.policies]]
        fresh = (buys[:, None] * n_assets + np.arange(n_assets)).ravel()
        key = np.concatenate([table["trader"][ours].astype(np.int64) * n_assets + table["asset"][ours], fresh])
        units = np.append(table["units"][ours], np.zeros(len(fresh)))
        keys, row = np.unique(key, return_index=True)
        trader, asset = np.divmod(keys, max(n_assets, 1))
        return np.searchsorted(self.codes, trader), asset, units[row]

    def holdings_of_all(self, live: Live) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.float64]]:
        """Return holdings of all traders now: trader, asset, units."""
        table = live.net.columns("holdings")
        rest = ~np.isin(table["trader"], self.codes)
        parts = (table["trader"], self.codes[self.owner]), (table["asset"], self.asset), (table["units"], self.units)
        trader, asset, units = (np.append(theirs[rest], ours) for theirs, ours in parts)
        return trader, asset, units

    # orders -------------------------------------------------------------------------------------------------------

    def able(self, state: Live) -> NDArray[np.bool_]:
        """Which of these traders have not failed."""
        return np.asarray(~state.overlay.has_failed(self.codes))

    def stops(self, state: Live) -> NDArray[np.float64]:
        """Units that stops sell by row: of every level that the price has reached."""
        price, able = state.asset_prices(), self.able(state)
        due = self.fired.copy()
        for row in range(len(self.owner)):
            levels = self.policies[self.owner[row]].holding_stops
            if not levels or not able[self.owner[row]] or not self.sellable[row]:
                continue
            start, now = self.before[self.asset[row]], price[self.asset[row]]
            reached = sum(one.share for one in levels if now <= (1.0 - one.drop) * start * (1.0 + TRIGGER))
            due[row] = max(due[row], reached)
        sold = np.minimum((due - self.fired) * self.opening, self.units)
        self.fired = due
        return np.asarray(sold)

    def to_target(self, state: Live) -> NDArray[np.float64]:
        """Units sold by row (bought where negative) to come back to a leverage, at the prices of now.

        With assets A, equity E, leverage L and expected cost c by value: (A - L E) / (1 - L c), at most all that can
        be sold.
        """
        sold = np.zeros(len(self.owner))
        if np.isnan(self.target).all():
            return sold
        price = state.asset_prices()
        assets, equity = self._balance_sheets(state, state.marks(), price)
        for place in np.flatnonzero(~np.isnan(self.target) & self.able(state)).tolist():
            rule, level = self.policies[place], self.target[place]
            excess = assets[place] - level * equity[place]
            if abs(excess) <= SLACK * assets[place] or (excess < 0 and rule.leverage == "one_sided"):
                continue
            rows = np.flatnonzero((self.owner == place) & self.sellable & (price[self.asset] > 0))
            value = self.units[rows] * price[self.asset[rows]]
            room = 1.0 - level * rule.cost
            wanted = min(excess / room, value.sum()) if room > 0 else value.sum()
            if value.sum() > 0:
                sold[rows] = self._split(state, rows, rule.sell, float(wanted), price)
        return sold

    def _split(
        self, state: Live, rows: NDArray[np.int64], sell: str, wanted: float, price: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Units of some rows worth the wanted money: in proportion, of equal impact, or on the deepest book first."""
        units, unit = self.units[rows], price[self.asset[rows]]
        if sell == "pro_rata" or wanted < 0:
            return np.asarray(units * (wanted / float(units @ unit)))
        depth = state.books.depth[self.asset[rows]]
        if sell == "most_liquid":
            order = np.argsort(-depth * unit, kind="stable")
            before = np.append(0.0, np.cumsum((units * unit)[order])[:-1])
            found = np.zeros(len(rows))
            found[order] = np.clip(wanted - before, 0.0, (units * unit)[order]) / unit[order]
            return found
        return _of_equal_impact(units, unit, depth, wanted)

    def purchases(self, state: Live) -> NDArray[np.float64]:
        """Units bought by row: demand at the price that all of it leads to, as far as the wallets go."""
        found = np.zeros(len(self.owner))
        cash = self._cash(state) * self.able(state)
        rules = [self.policies[place].buying for place in self.owner]
        demand, discount = (np.array([getattr(one, name) for one in rules]) for name in ("demand", "discount"))
        depth, base = state.books.depth[self.asset], state.asset_base[self.asset]
        ready = (
            (demand > 0) & (cash > SLACK * self.capital)[self.owner] & np.isfinite(depth) & self.sellable & (base > 0)
        )
        ready &= self.asset != self.money
        cost = np.zeros(len(self.owner))
        for asset in np.unique(self.asset[ready]).tolist():
            rows = np.flatnonzero(ready & (self.asset == asset))
            wanted, units = self._meet(state, asset, demand[rows], discount[rows], self.bought[rows])
            if units <= SLACK * depth[rows[0]]:
                continue
            found[rows] = wanted
            cost[rows] = wanted * (-_cash(state, asset, -units) / units)
        bill = group_sum(self.owner, cost, len(self.codes))
        share = np.divide(cash, bill, out=np.ones(len(bill)), where=bill > cash)
        found *= share[self.owner]
        self.bought += found
        return found

    def _meet(
        self,
        state: Live,
        asset: int,
        demand: NDArray[np.float64],
        discount: NDArray[np.float64],
        bought: NDArray[np.float64],
    ) -> tuple[NDArray[np.float64], float]:
        """Units that each buyer wants at the price where all wants together lead to it, and their sum."""
        depth, base = float(state.books.depth[asset]), float(state.asset_base[asset])

        def wants(units: float) -> NDArray[np.float64]:
            below = 1.0 - discount - _price_after(state, asset, -units) / base
            return np.maximum(demand * depth * np.maximum(below, 0.0) - bought, 0.0)

        low, high = 0.0, float(wants(0.0).sum())
        for _ in range(HALVINGS):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if wants(middle).sum() > middle else (low, middle)
        found = wants(high)
        total = float(found.sum())
        return (found * (low / total), low) if total > 0 else (found, 0.0)

    def _cash(self, state: Live) -> NDArray[np.float64]:
        """Money in the wallets of these traders [num]."""
        purse = state.wallets[: state.overlay.used["wallets"]]
        held = np.where(purse.asset == self.money, purse.units, 0.0) * state.asset_prices()[self.money]
        return np.asarray(group_sum(purse.trader, held, len(state.traders))[self.seat])

    # fills --------------------------------------------------------------------------------------------------------

    def fill(self, state: Live, sold: NDArray[np.float64], prices: NDArray[np.float64]) -> NDArray[np.float64]:
        """Trade units by row (bought where negative) on the shared books, valued at some prices; return the cash."""
        cash = np.zeros(len(sold))
        first, ledger = len(state.markets), state.ledger
        for asset in np.unique(self.asset[sold != 0]).tolist():
            rows = np.flatnonzero((self.asset == asset) & (sold != 0))
            wanted, gross = float(sold[rows].sum()), float(np.abs(sold[rows]).sum())
            price = _price_after(state, asset, 0.0)
            total, paid = trade(float(state.asset_base[asset]), wanted, state.books[asset], state.levels)
            if abs(wanted) > TRIGGER * gross:
                sold[rows] *= total / wanted
                price = paid / total if total != 0.0 else price
            total = float(sold[rows].sum())
            cash[rows] = sold[rows] * price
            got = float(cash[rows].sum())
            ledger.bought[first + asset] += total
            ledger.cash[-2] -= got
            ledger.loss[EXECUTION, -2] += got - total * prices[asset]
            ledger.flow[-2] += total * prices[asset]
        value, seat = sold * prices[self.asset], self.seat[self.owner]
        np.add.at(ledger.cash, seat, cash)
        np.add.at(ledger.loss[EXECUTION], seat, value - cash)
        np.subtract.at(ledger.flow, seat, value)
        self.units = np.maximum(self.units - sold, 0.0)
        return cash

    def pay(self, state: Live, cash: NDArray[np.float64], prices: NDArray[np.float64]) -> None:
        """Settle what was bought with money of the wallets, in units."""
        bill = group_sum(self.owner, -cash, len(self.codes))
        ledger, price = state.ledger, float(prices[self.money])
        for place in np.flatnonzero(bill > 0).tolist():
            seat, units = int(self.seat[place]), float(bill[place]) / price
            trader = state.traders[seat]
            for wallet in state.wallets[trader.first_wallet : trader.last_wallet]:
                if wallet.asset == self.money:
                    wallet.units = max(wallet.units - units, 0.0)
            for bearer, sign in ((seat, 1.0), (-2, -1.0)):
                ledger.cash[bearer] += sign * bill[place]
                ledger.flow[bearer] -= sign * bill[place]
            ledger.bought[len(state.markets) + self.money] += units

    # balance sheets -----------------------------------------------------------------------------------------------

    def _targets(self, state: Live) -> NDArray[np.float64]:
        """Leverage of each trader to come back to: its limit, or its own before the shock; NaN: none."""
        net = state.net
        limit = net.columns("traders")["leverage_limit"][self.codes]
        wants = np.array([one.leverage != "none" for one in self.policies], dtype=bool)
        own = np.full(len(self.codes), np.nan)
        if (wants & np.isnan(limit)).any():
            external = net.columns("traders")["external_assets"]
            assets, equity = self._balance_sheets(state, net.book.market_mark, self.before, external)
            np.divide(assets, equity, out=own, where=equity > 0)
        return np.where(wants, np.where(np.isnan(limit), own, limit), np.nan)

    def _balance_sheets(
        self,
        state: Live,
        marks: NDArray[np.float64],
        prices: NDArray[np.float64],
        external: NDArray[np.float64] | None = None,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Assets and equity of these traders [num]; cash from sales repays debts, claims count at face."""
        size, used = len(state.traders), state.overlay.used
        entries, purse = state.entries[: used["entries"]], state.wallets[: used["wallets"]]
        positions = state.positions[: used["positions"]]
        owner = state.accounts.trader
        mine = group_sum(purse.trader, purse.units * prices[purse.asset], size)
        mine += group_sum(owner[entries.account], entries.deposited * marks[entries.market], size)
        owed = group_sum(owner[entries.account], entries.borrowed * marks[entries.market], size)
        owed -= group_sum(owner[positions.account], gains(state.markets, positions, marks), size)
        held = group_sum(self.owner, self.units * prices[self.asset], len(self.codes))
        outside = (state.external_assets if external is None else external)[self.codes]
        assets = held + mine[self.seat] + outside + self.claims[self.codes]
        return assets, assets + state.ledger.cash[self.seat] - owed[self.seat] - self.debts[self.codes]


def _claims_and_debts(net: ExposureNetwork) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Add up what others owe each trader, and what it owes inside and outside the network [num]."""
    table, size = net.columns("liabilities"), len(net.nodes)
    claims, debts = (group_sum(table[end], table["amount"], size) for end in ("creditor", "debtor"))
    n_traders = len(net.labels("traders"))
    return claims, debts[:n_traders] + net.columns("traders")["external_liabilities"]


def _of_equal_impact(
    units: NDArray[np.float64], unit: NDArray[np.float64], depth: NDArray[np.float64], wanted: float
) -> NDArray[np.float64]:
    """Units worth the wanted money: the same share of every depth, at most what is held; bottomless books first."""
    free = np.isinf(depth)
    money = float((units * unit)[free].sum())
    if money >= wanted:
        return np.where(free, units * (wanted / money), 0.0)
    wanted -= money
    with np.errstate(invalid="ignore"):
        share = np.where(free, 0.0, units / depth)
    found, last = np.where(free, units, 0.0), 0.0
    open_ = ~free
    for place in np.argsort(share, kind="stable"):
        if free[place]:
            continue
        rate = float((depth * unit)[open_].sum())
        level = min(share[place], last + wanted / rate)
        wanted -= (level - last) * rate
        last = level
        if level < share[place]:
            break
        found[place], open_[place] = units[place], False
    found[open_] = np.minimum(last * depth[open_], units[open_])
    return np.asarray(found)


def _cash(state: Live, asset: int, units: float) -> float:
    """Cash for units sold (paid where negative) on the shared book of an asset, as far as it takes them."""
    return float(cash_of(float(state.asset_base[asset]), units, state.books[asset], state.levels))


def _price_after(state: Live, asset: int, units: float) -> float:
    """Price of an asset once some units more are sold."""
    return float(next_price(float(state.asset_base[asset]), units, units >= 0.0, state.books[asset], state.levels))
