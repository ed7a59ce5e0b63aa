"""Auctions of collateral, which last rounds: what they ask for, when they start anew, who wins, and how they end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion._arrays import group_sum
from netcontagion.margining import _sales
from netcontagion.margining._inventory import acted_on, join, make_lots, pairs, seize, sides
from netcontagion.margining._state import EXECUTION, PENALTY, records
from netcontagion.network import rulebook

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netcontagion.margining._state import Live
    from netcontagion.network import ExposureNetwork

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

__all__ = [
    "auction_terms", "bid_on_lots", "close_lots", "open_auctions", "pay_starters", "price_lots", "unsettled", "winners",
]  # fmt: skip

SLACK = 1e-12  # relative rounding, and the share of the first price below which a price is none
_DECAYS = ("linear", "stairs", "exponential")


def auction_terms(net: ExposureNetwork) -> Any:
    """Terms of the auctions of every exchange as numbers; NaN and 0 where it holds none."""
    auctions = [rulebook(name).inventory_rule.auction for name in net.columns("exchanges")["rulebook"]]

    def numbers(name: str) -> list[float]:
        return [np.nan if one is None else float(getattr(one, name)) for one in auctions]

    names = ("buffer", "length", "step", "cut", "tail", "cusp", "tip", "chip", "increase", "bid_length", "bidders")
    return records(
        english=([one is not None and one.form == "english" for one in auctions], np.uint8),
        decay=([0 if one is None else _DECAYS.index(one.decay) for one in auctions], np.uint8),
        **{name: (numbers(name), float) for name in names},
    )


def open_auctions(state: Live, which: Ints, share: Floats, marks: Floats, number: int) -> Ints:
    """Take a share of accounts and open one auction for every pair of collateral and debt; return the new lots."""
    held, owed = sides(state, which, share, marks)
    able = acted_on(which, share, held, owed)
    held, owed = held.of(able[held.place]), owed.of(able[owed.place])
    owed = owed._replace(units=owed.units * share[owed.place], value=owed.value * share[owed.place])
    size = len(which)
    seize(state, which, held, owed, marks)
    np.add.at(state.ledger.owed, owed.market, owed.units)
    of_collateral = held.value / group_sum(held.place, held.value, size)[held.place]
    of_debt = owed.value / group_sum(owed.place, owed.value, size)[owed.place]
    c, d = pairs(held, owed, size)
    seat = which[held.place[c]]
    exchange = state.accounts.exchange[seat]
    debt = owed.units[d] * of_collateral[c]
    tab = debt * (1.0 + state.rules.penalty[exchange])
    first = len(state.lots)
    columns = {"exchange": exchange, "seat": seat, "entry": held.entry[c], "debt_entry": owed.entry[d]}
    columns |= {"collateral": held.market[c], "debt": owed.market[d], "units": held.units[c] * of_debt[d]}
    columns |= {"tab": tab, "owed": debt, "opened": tab}
    state.lots = join(state.lots, make_lots(len(c), **columns))
    found = np.arange(first, first + len(c))
    _start(state, found, marks, number)
    return found


def _start(state: Live, rows: Ints, marks: Floats, number: int) -> None:
    """Set the first price of auctions that start, or start anew."""
    lots = state.lots
    buffer = np.nan_to_num(state.auctions.buffer[lots.exchange[rows]], nan=1.0)
    lots["top"][rows] = marks[lots.collateral[rows]] * buffer
    lots["start"][rows] = number
    lots["bid_round"][rows] = -1


def price_lots(state: Live, marks: Floats, number: int) -> tuple[Ints, Ints]:
    """Set the price of every auction that falls; return their lots, and those lots of all that start anew."""
    lots, terms = state.lots, state.auctions
    rows = np.flatnonzero(lots.seat >= 0)
    rule, age = terms[lots.exchange[rows]], number - lots.start[rows]
    price = lots.top[rows] * _fallen(rule, age)
    low = price < rule.cusp * lots.top[rows] * (1 - SLACK)
    dutch = rule.english == 0
    over = dutch & ((age > rule.tail) | low)
    silent = ~dutch & (lots.bid_round[rows] < 0) & (age >= rule.length)
    spent = dutch & (price <= SLACK * lots.top[rows]) & (age > 0)
    anew = rows[over | silent]
    lots["tried"][rows[spent]] = number  # this is the lowest price, and stays it
    lots["tried_before"][anew] = lots.tried[anew]
    lots["tried"][anew] = lots.start[anew]
    lots["price"][rows] = price
    _start(state, anew, marks, number)
    lots["price"][anew] = lots.top[anew]
    return rows[dutch], anew


def _fallen(rule: Any, age: Ints) -> Floats:
    """Price over first price after some rounds."""
    length, step, cut = (np.nan_to_num(rule[name], nan=1.0) for name in ("length", "step", "cut"))
    steps = np.where(rule.decay == 1, np.floor(age / step), age / step)
    return np.asarray(np.where(rule.decay == 0, np.maximum(1.0 - age / length, 0.0), cut**steps))


def pay_starters(state: Live, rows: Ints, marks: Floats) -> tuple[Floats, Floats]:
    """Owe tip and chip to who started auctions, in the debt asset, which they sell; return units and proceeds.

    Auctions of less than that, in debt or in collateral, pay nothing.
    """
    lots, ledger, rule = state.lots, state.ledger, state.auctions[state.lots.exchange[rows]]
    debt = lots.debt[rows].astype(np.int64)
    price = marks[debt]
    value = np.nan_to_num(rule.tip) + np.nan_to_num(rule.chip) * lots.tab[rows] * price
    worth = np.minimum(lots.tab[rows] * price, lots.units[rows] * marks[lots.collateral[rows]])
    paid = (value > 0) & (value <= worth) & (rule.english == 0)
    units = np.divide(value, price, out=np.zeros(len(rows)), where=paid)
    cash, worth = np.zeros(len(rows)), units * price
    cash[paid] = _sales.sell_units(debt[paid], units[paid], state.board)
    np.add.at(lots["owed"], rows, units)
    np.add.at(ledger.owed, debt, units)
    np.add.at(ledger.bought, debt, units)
    bank = state.n_traders + lots.exchange[rows]
    np.add.at(ledger.loss[PENALTY], bank, worth)
    np.subtract.at(ledger.flow, bank, worth)
    ledger.loss[PENALTY, -3] -= worth.sum()
    ledger.loss[EXECUTION, -3] += (worth - cash).sum()
    ledger.loss[EXECUTION, -2] -= (worth - cash).sum()
    ledger.flow[-2] += worth.sum()
    ledger.cash[-3] += cash.sum()
    ledger.cash[-2] -= cash.sum()
    return units, cash


def bid_on_lots(state: Live, number: int) -> Ints:
    """Let bidders bid on rising auctions; return the lots with a new bid."""
    lots, terms = state.lots, state.auctions
    rows = np.flatnonzero((lots.seat >= 0) & (terms.english[lots.exchange] > 0))
    if not len(rows):
        return rows
    money = terms.bidders - group_sum(lots.exchange[rows], lots.stake[rows], len(terms))
    return _sales.place_bids(rows, lots, state.board, money, terms.increase, number)


def winners(state: Live, number: int) -> Ints:
    """Lots whose last bid wins now: it stood long enough, or the auction is at its end."""
    lots, terms = state.lots, state.auctions
    rule = terms[lots.exchange]
    old = number - lots.bid_round >= rule.bid_length
    ended = number - lots.start >= rule.length
    return np.flatnonzero((lots.seat >= 0) & (rule.english > 0) & (lots.bid_round >= 0) & (old | ended))


def close_lots(state: Live, won: Ints) -> Ints:
    """Return the auctions that are over: won, paid in full, or without collateral."""
    lots = state.lots
    over = (lots.seat >= 0) & ((lots.units <= 0) | (lots.tab <= SLACK * lots.opened))
    over[won] = True
    return np.flatnonzero(over)


def unsettled(state: Live, last_change: int, last_act: int) -> bool:
    """Tell whether an auction is open that may still find a buyer.

    One whose prices fell to their end without a buyer, and without any change since they began, never will; nor will
    one that they did twice since somebody acted: what moved then may be what its starters sold.
    """
    lots = state.lots
    return bool(((lots.seat >= 0) & (lots.tried <= last_change) & (lots.tried_before <= last_act)).any())
