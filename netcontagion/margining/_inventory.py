"""Collateral that exchanges take over with the debt it secured, and sell later: how it comes in and how it goes out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from netcontagion._arrays import group_sum
from netcontagion.margining._posting import spans
from netcontagion.margining._state import DEFICIT, EXECUTION, PENALTY, records

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netcontagion.margining._state import Live, Lots

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

__all__ = [
    "absorb", "acted_on", "give_back", "join", "make_lots", "no_lots", "offer_stock", "owed_to_holes", "pairs",
    "post_takes", "seize", "settle_stock", "sides", "without",
]  # fmt: skip

SLACK = 1e-12  # relative rounding
_LOT: dict[str, Any] = {
    "exchange": np.int32, "seat": np.int64, "entry": np.int64, "debt_entry": np.int64, "collateral": np.int32,
    "debt": np.int32, "units": float, "tab": float, "owed": float, "opened": float, "top": float, "price": float,
    "start": np.int64, "tried": np.int64, "tried_before": np.int64, "bid": float, "asked": float, "stake": float,
    "bid_round": np.int64, "event": np.int64,
}  # fmt: skip
_NONE = {"seat": -1, "entry": -1, "debt_entry": -1, "tried": -1, "tried_before": -1, "bid_round": -1}


class Side(NamedTuple):
    """Collateral or debts of some accounts: place of the account, entry, market, units, value [num]."""

    place: Ints
    entry: Ints
    market: Ints
    units: Floats
    value: Floats

    def of(self, rows: NDArray[Any]) -> Side:
        """Keep some rows."""
        return Side(*(column[rows] for column in self))


def no_lots() -> Lots:
    """Make a table of lots without a row."""
    return make_lots(0)


def make_lots(size: int, **columns: NDArray[Any]) -> Lots:
    """Make lots of these columns; the others are empty."""
    given = {name: columns.get(name, np.full(size, _NONE.get(name, 0))) for name in _LOT}
    found: Lots = records(**{name: (given[name], kind) for name, kind in _LOT.items()})
    return found


# coming in ----------------------------------------------------------------------------------------------------------


def sides(state: Live, which: Ints, share: Floats, marks: Floats) -> tuple[Side, Side]:
    """Collateral that can be taken from accounts, the share of it, and their debts, in whole."""
    accounts, entries = state.accounts, state.entries
    rows, place = spans(accounts.first[which], accounts.last[which])
    market = entries.market[rows].astype(np.int64)
    units = entries.deposited[rows] * share[place]
    held = Side(place, rows, market, units, units * marks[market])
    owed = Side(place, rows, market, entries.borrowed[rows], entries.borrowed[rows] * marks[market])
    usable = (held.value > 0) & (entries.threshold[rows] > 0) & (state.markets.sellable[market] > 0)
    return held.of(usable), owed.of(owed.value > 0)


def acted_on(which: Ints, share: Floats, held: Side, owed: Side) -> NDArray[np.bool_]:
    """Which accounts have a share to take, collateral and debt."""
    size = len(which)
    return (share > 0) & (np.bincount(held.place, minlength=size) > 0) & (np.bincount(owed.place, minlength=size) > 0)


def pairs(held: Side, owed: Side, size: int) -> tuple[Ints, Ints]:
    """Rows of collateral and of debt of every pair of the two in one account."""
    start = np.searchsorted(owed.place, np.arange(size + 1))
    debt, collateral = spans(start[held.place], start[held.place + 1])
    return collateral, debt


def seize(state: Live, which: Ints, held: Side, owed: Side, marks: Floats) -> None:
    """Move collateral, and debts of these units, from accounts to their exchanges."""
    entries, ledger = state.entries, state.ledger
    entries["deposited"][held.entry] = _less(entries.deposited[held.entry], held.units)
    entries["borrowed"][owed.entry] = _less(entries.borrowed[owed.entry], owed.units)
    np.add.at(ledger.inventory, held.market, held.units)
    net = group_sum(held.place, held.units * marks[held.market], len(which))
    net = net - group_sum(owed.place, owed.units * marks[owed.market], len(which))
    _pass_on(state, which, net)


def _less(units: Floats, taken: Floats) -> Floats:
    return np.where(taken >= units * (1 - SLACK), 0.0, units - taken)


def _pass_on(state: Live, seats: Ints, value: Floats) -> None:
    """Post units worth a value, at marks, that pass from accounts to their exchanges."""
    trader, bank = state.accounts.trader[seats], state.n_traders + state.accounts.exchange[seats]
    for node, lost in ((trader, value), (bank, -value)):
        np.add.at(state.ledger.loss[PENALTY], node, lost)
        np.subtract.at(state.ledger.flow, node, lost)


def factors(state: Live, market: Ints, own: Floats | None = None) -> Floats:
    """Credit over mark for collateral of some markets; ``own`` is the bonus of the accounts, NaN the market's."""
    bonus = state.markets.bonus[market]
    if own is not None:
        bonus = np.where(np.isnan(own), bonus, own)
    fixed = state.rules.factor[state.markets.exchange[market]]
    return np.asarray(np.where(np.isnan(fixed), 1.0 / (1.0 + bonus), fixed))


def absorb(state: Live, which: Ints, share: Floats, marks: Floats) -> tuple[Ints, Floats, tuple[Ints, Floats], Floats]:
    """Take the collateral of accounts, credit it below the mark, and let the credit pay debts, the largest first.

    Credit beyond the debts becomes a deposit in the asset of the largest debt. Where the exchange hands debt on to
    other borrowers, all debt goes to its layers, with the collateral. Returns the accounts, what was repaid of each
    [num], holes by entry and units, and a log with columns account, entry, units, credit.
    """
    held, owed = sides(state, which, share, marks)
    able = acted_on(which, share, held, owed)
    held, owed = held.of(able[held.place]), owed.of(able[owed.place])
    size, exchange = len(which), state.accounts.exchange[which]
    credit = held.value * factors(state, held.market, state.accounts.bonus[which[held.place]])
    total = group_sum(held.place, credit, size)
    hands_on = state.rules.hands_on[exchange] > 0
    owed = owed.of(np.lexsort((owed.entry, -owed.value, owed.place)))
    before = np.cumsum(owed.value) - owed.value
    first = np.flatnonzero(np.diff(owed.place, prepend=-1))
    before -= before[first][np.cumsum(np.diff(owed.place, prepend=-1) != 0) - 1]
    paid = np.clip(total[owed.place] - before, 0.0, owed.value)
    paid = np.where(hands_on[owed.place] | (paid >= owed.value * (1 - SLACK)), owed.value, paid)
    repaid = owed._replace(units=np.where(paid == owed.value, owed.units, paid / marks[owed.market]), value=paid)
    excess = np.maximum(total - group_sum(owed.place, owed.value, size), 0.0)[owed.place[first]]
    excess[excess <= SLACK * total[owed.place[first]]] = 0.0
    seize(state, which, held, repaid, marks)
    base = repaid.of(first)._replace(units=excess / marks[owed.market[first]], value=excess)
    state.entries["deposited"][base.entry] += base.units
    _pass_on(state, which[base.place], -excess)
    passed = hands_on[repaid.place]
    np.add.at(state.ledger.hole, repaid.market[passed], repaid.units[passed])
    name_deficit(state, which[repaid.place[passed]], repaid.value[passed])
    np.add.at(state.ledger.owed, repaid.market[~passed], repaid.units[~passed])
    np.add.at(state.ledger.owed, base.market, base.units)
    taken = repaid.units.copy()
    taken[first] += base.units
    _stock(state, held, repaid._replace(units=taken), (credit / total[held.place], marks))
    log = np.column_stack([which[held.place], held.entry, held.units, credit])
    repaid_by = group_sum(repaid.place[~passed], repaid.value[~passed], size)
    return which[able], repaid_by[able], (repaid.entry[passed], repaid.units[passed]), log


def _stock(state: Live, held: Side, taken: Side, parts: tuple[Floats, Floats]) -> None:
    """Add collateral to the stock of its exchange, one lot for each pair of collateral and debt."""
    weight, marks = parts
    size = int(max(held.place.max(initial=-1), taken.place.max(initial=-1))) + 1
    value = taken.units * marks[taken.market]
    share = value / group_sum(taken.place, value, size)[taken.place]
    c, d = pairs(held, taken, size)
    n_markets = len(state.markets)
    known = state.lots.collateral.astype(np.int64) * n_markets + state.lots.debt
    stock = np.flatnonzero(state.lots.seat < 0)
    key, place = np.unique(
        np.concatenate([known[stock], held.market[c] * n_markets + taken.market[d]]), return_inverse=True
    )
    fresh = key[~np.isin(key, known[stock])]
    collateral, debt = fresh // n_markets, fresh % n_markets
    infinite, exchange = np.full(len(fresh), np.inf), state.markets.exchange[collateral]
    made = make_lots(len(fresh), exchange=exchange, collateral=collateral, debt=debt, tab=infinite)
    order = np.argsort(np.concatenate([known[stock], fresh]))
    state.lots = join(state.lots, made)
    row = np.concatenate([stock, np.arange(len(state.lots) - len(fresh), len(state.lots))])[order]
    target = row[place[len(stock) :]]
    owed = taken.units[d] * weight[c]
    np.add.at(state.lots["units"], target, held.units[c] * share[d])
    np.add.at(state.lots["owed"], target, owed)
    np.add.at(state.lots["opened"], target, owed)


def join(lots: Lots, more: Lots) -> Lots:
    """Return lots with more of them at the end."""
    found: Lots = np.concatenate([lots, more]).view(np.recarray)
    return found


def without(lots: Lots, rows: Ints) -> Lots:
    """Return lots without some of them."""
    kept = np.ones(len(lots), dtype=bool)
    kept[rows] = False
    found: Lots = lots[kept]
    return found


# going out ----------------------------------------------------------------------------------------------------------


def offer_stock(state: Live, marks: Floats) -> Ints:
    """Price the stock of exchanges below the mark, set what each still wants for it; return the lots for sale."""
    lots, rules = state.lots, state.rules
    stock = np.flatnonzero(
        (lots.seat < 0) & (lots.units > 0) & ~((rules.hands_on[lots.exchange] > 0) & (lots.owed > 0))
    )
    if not len(stock):
        return stock
    market = lots.collateral[stock]
    off = rules.store_front[lots.exchange[stock]] * (1.0 - factors(state, market))
    lots["price"][stock] = marks[market] * (1.0 - off)
    rules["wanted"] = np.maximum(rules.target_reserves - reserves(state, marks), 0.0)
    return np.asarray(stock[rules.wanted[lots.exchange[stock]] > 0])


def reserves(state: Live, marks: Floats) -> Floats:
    """Insurance fund and equity, where they are layers, and what sales earned, less what is owed; by exchange [num]."""
    ledger = state.ledger
    prices = np.append(state.marks_outside, 1.0)
    fund = state.fund_units * prices[state.fund_asset]
    kept = [("insurance_fund" in layers, "equity" in layers) for layers in state.layers]
    found = np.array([f * has for f, (has, _) in zip(fund, kept, strict=True)])
    found += np.array([e * has for e, (_, has) in zip(state.equity, kept, strict=True)])
    own = (ledger.fees - ledger.owed - ledger.short - ledger.hole) * marks
    return np.asarray(found + group_sum(state.markets.exchange, own, state.n_exchanges))


def post_takes(state: Live, log: Floats, marks: Floats) -> Floats:
    """Post what buyers took from lots and paid; return the value that each paid of what the exchange was owed [num]."""
    lots, ledger, liquidators, market_node = state.lots, state.ledger, -3, -2
    lot, taken, paid, cash = log[:, 0].astype(np.int64), log[:, 1], log[:, 2], log[:, 3] - log[:, 4]
    c, d, exchange = lots.collateral[lot], lots.debt[lot], lots.exchange[lot]
    np.add.at(ledger.bought, c, taken)
    np.subtract.at(ledger.bought, d, paid)
    np.subtract.at(ledger.inventory, c, taken)
    settled = np.minimum(paid, lots.owed[lot])
    lots["owed"][lot] -= settled
    np.subtract.at(ledger.owed, d, settled)
    np.add.at(ledger.fees, d, paid - settled)
    gap, gas = taken * marks[c] - paid * marks[d], state.rules.gas[exchange]
    np.add.at(ledger.loss[PENALTY], state.n_traders + exchange, gap)
    np.subtract.at(ledger.flow, state.n_traders + exchange, gap)
    ledger.loss[PENALTY, liquidators] -= gap.sum()
    slippage = float((gap - cash + gas).sum())
    ledger.loss[EXECUTION, liquidators] += slippage
    ledger.loss[EXECUTION, market_node] -= slippage
    ledger.flow[market_node] += gap.sum()
    ledger.cash[liquidators] += (cash - gas).sum()
    ledger.cash[market_node] -= (cash - gas).sum()
    return np.asarray(settled * marks[d])


def give_back(state: Live, rows: Ints, marks: Floats) -> Floats:
    """Return what is left of some lots to the accounts they are from; return the units."""
    lots = state.lots
    units = np.array(lots.units[rows])
    np.add.at(state.entries["deposited"], lots.entry[rows], units)
    np.subtract.at(state.ledger.inventory, lots.collateral[rows], units)
    _pass_on(state, lots.seat[rows], -units * marks[lots.collateral[rows]])
    lots["units"][rows] = 0.0
    return units


def owed_to_holes(state: Live, rows: Ints, marks: Floats) -> tuple[Floats, Floats]:
    """Leave what some lots did not raise to the layers of their exchanges; return a log as ``write_off`` does."""
    lots, ledger = state.lots, state.ledger
    units, debt = lots.owed[rows].copy(), lots.debt[rows]
    lots["owed"][rows] = 0.0
    np.subtract.at(ledger.owed, debt, units)
    np.add.at(ledger.hole, debt, units)
    value, seat = units * marks[debt], lots.seat[rows]
    name_deficit(state, seat[seat >= 0], value[seat >= 0])
    return np.column_stack([seat, lots.debt_entry[rows], units]), value


def name_deficit(state: Live, seat: Ints, value: Floats) -> None:
    """Say in the ledger that a value was a deficit of an account, not a lower penalty."""
    loss = state.ledger.loss
    trader, bank = state.accounts.trader[seat], state.n_traders + state.accounts.exchange[seat]
    for node, gain in ((trader, value), (bank, -value)):
        np.subtract.at(loss[DEFICIT], node, gain)
        np.add.at(loss[PENALTY], node, gain)


def settle_stock(state: Live) -> Ints:
    """Return the stock lots that are sold out and did not raise what was owed."""
    lots = state.lots
    return np.flatnonzero((lots.seat < 0) & (lots.units <= 0) & (lots.owed > SLACK * lots.opened))
