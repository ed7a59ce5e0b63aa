"""Compiled loops that close margin accounts: contracts on their books, gains in kind, debts repaid from deposits.

A contract that leaves an account passes to the market at what the book pays. What the account gained over its entry
price is settled in units of the contract's settlement asset: a loss comes out of the deposit, then becomes a debt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion._compile import kernel
from netcontagion.margining._posting import GONE
from netcontagion.margining._trading import cash_of, next_price, taken, trade, units_of
from netcontagion.margining._valuation import INVERSE, PORTFOLIO

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netcontagion.margining._state import Board, Row
    from netcontagion.margining._trading import Levels

__all__ = [
    "CHARGE",
    "CLOSING",
    "OPENING",
    "PENDING",
    "PURCHASE",
    "SALE",
    "UNFILLED",
    "close_at",
    "close_margin",
    "settle_up",
    "spend",
]

SLACK = 1e-12  # relative rounding that a threshold may miss by
LITTLE = 1e-6  # share of an order below which nobody trades
SALE, PURCHASE, CLOSING, OPENING, CHARGE = range(5)  # rows of the log: balances, long and short contracts, charges
LEAST = 1e-300  # a price below this is no price: what is owed in coin is without bound
UNFILLED, PENDING = 5, 6  # contracts that could not be closed at the bankruptcy price; equity to keep, notional closed
STEPS = 64  # steps of a reduction: each closes what health still lacks after the price that the last one paid
NODES, WEIGHTS = np.polynomial.legendre.leggauss(16)


@kernel
def close_margin(
    which: NDArray[np.int64], board: Board, tiers: tuple[NDArray[Any], ...], marks: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Close margin accounts by the rules of their exchange, in the given order.

    ``tiers`` are first row, count, floor, rate and cumulative amount of each contract, long ones before short ones.
    Where winners are deleveraged, contracts are closed no worse than at the bankruptcy price; what is left of them is
    in the log as UNFILLED, with that price, and the account is settled later (PENDING). Returns a log with columns
    account, row (of entries; of positions for contracts), kind, units, cash.
    """
    accounts, rules = board.accounts, board.rules
    log = np.empty((max(2 * len(which), 64), 5))
    logged: Any = np.int64(0)
    for place in range(len(which)):
        k = which[place]
        account = accounts[k]
        rule = rules[account.exchange]
        worth = _equity(account, board, marks)
        share, closed, before = 1.0, 0.0, logged
        if rule.reduce and not account.forced and not (rule.deleverages and worth <= 0.0):
            if account.test == PORTFOLIO:
                share = _excess(account, rule, board, marks)
                logged, log, closed = _close_positions(k, share, board, marks, logged, log)
            else:
                logged, log, closed = _reduce(k, board, tiers, marks, logged, log)
        else:
            if _notional(account, board, marks) > rule.slice_above and not account.forced:
                share = rule.slice
            if rule.deleverages:
                logged, log, closed = _close_within(k, share, worth, board, tiers, marks, logged, log)
            else:
                logged, log, closed = _close_positions(k, share, board, marks, logged, log)
        keep = max((1.0 - share) * worth, 0.0)
        if logged > before and log[logged - 1, 2] == UNFILLED:
            log = _with_room(log, logged, 1)
            _note(log, logged, k, -1, PENDING, keep, closed)
            logged += 1
        else:
            logged, log = _settle(k, keep, closed, board, marks, logged, log)
    return log[:logged]


@kernel
def _settle(
    k: int,
    keep: float,
    closed: float,
    board: Board,
    marks: NDArray[np.float64],
    logged: int,
    log: NDArray[np.float64],
) -> tuple[int, NDArray[np.float64]]:
    """Repay what an account without contracts owes, and charge it for the notional that was closed."""
    account = board.accounts[k]
    rule = board.rules[account.exchange]
    if _flat(account, board):
        logged, log = _repay(k, np.inf, board, marks, logged, log)
    left = _equity(account, board, marks)
    due = rule.fee * closed
    if rule.at_bankruptcy:
        due = left - keep
        if rule.fee > 0.0:
            due = min(due, rule.fee * closed)
    return _charge(k, min(due, left), board, marks, logged, log)


# what an account is worth -------------------------------------------------------------------------------------------


@kernel
def _equity(account: Row, board: Board, marks: NDArray[np.float64]) -> float:
    """Equity of an account at marks, without haircuts [num]."""
    found = 0.0
    for e in range(account.first, account.last):
        entry = board.entries[e]
        found += (entry.deposited - entry.borrowed) * marks[entry.market]
    for p in range(account.first_position, account.last_position):
        found += _gain(board.positions[p], board, marks)
    return found


@kernel
def _unit(m: int, board: Board, marks: NDArray[np.float64]) -> float:
    """Value of one unit of a market; an inverse contract is a debt of its face, in coin."""
    market = board.markets[m]
    if market.kind == INVERSE:
        return float(-market.face * marks[market.settle] / marks[m])
    return float(marks[m])


@kernel
def _gain(position: Row, board: Board, marks: NDArray[np.float64]) -> float:
    """Unrealised profit of a position [num]."""
    market, unit = board.markets[position.market], _unit(position.market, board, marks)
    if market.kind == INVERSE:
        coin = position.quantity * market.face / position.entry if position.quantity != 0.0 else 0.0
        return float(position.quantity * unit + coin * marks[market.settle])
    return float(position.quantity * (unit - position.entry))


@kernel
def _notional(account: Row, board: Board, marks: NDArray[np.float64]) -> float:
    """Value of all contracts of an account, without sign [num]."""
    found = 0.0
    for p in range(account.first_position, account.last_position):
        position = board.positions[p]
        found += abs(position.quantity * _unit(position.market, board, marks))
    return found


@kernel
def _flat(account: Row, board: Board) -> bool:
    """Whether an account holds no contract any more."""
    held = 0
    for p in range(account.first_position, account.last_position):
        held += board.positions[p].quantity != 0.0
    return held == 0


@kernel
def _tier(row: int, count: int, notional: float, tiers: tuple[NDArray[Any], ...]) -> int:
    """Row of the tier that a notional is in."""
    for _ in range(count - 1):
        if notional < tiers[2][row + 1]:
            break
        row += 1
    return row


@kernel
def _margin(position: Row, notional: float, board: Board, tiers: tuple[NDArray[Any], ...]) -> float:
    """Maintenance margin of a notional in the contract of a position [num]."""
    contract = position.market + (len(board.markets) if position.quantity < 0.0 else 0)
    row = _tier(tiers[0][contract], tiers[1][contract], notional, tiers)
    return float(notional * tiers[3][row] - tiers[4][row])


@kernel
def _notional_of(position: Row, margin: float, most: float, board: Board, tiers: tuple[NDArray[Any], ...]) -> float:
    """Notional up to ``most`` whose maintenance margin is the given one [num]."""
    contract = position.market + (len(board.markets) if position.quantity < 0.0 else 0)
    first = tiers[0][contract]
    row = first
    for _ in range(tiers[1][contract] - 1):
        floor = tiers[2][row + 1]
        if margin < floor * tiers[3][row] - tiers[4][row]:
            break
        row += 1
    rate = tiers[3][row]
    return float(min((margin + tiers[4][row]) / rate, most)) if rate > 0.0 else most


# contracts ----------------------------------------------------------------------------------------------------------


@kernel
def _with_room(log: NDArray[np.float64], used: int, rows: int) -> NDArray[np.float64]:
    """Return the log, or a longer copy where some rows more might not fit."""
    if used + rows <= len(log):
        return log
    longer = np.empty((2 * len(log) + rows, 5))
    for p in range(used):
        for column in range(5):
            longer[p, column] = log[p, column]
    return longer


@kernel
def _note(log: NDArray[np.float64], at: int, k: int, row: int, kind: int, units: float, cash: float) -> None:
    log[at, 0], log[at, 1], log[at, 2], log[at, 3], log[at, 4] = k, row, kind, units, cash


@kernel
def _close_positions(
    k: int, share: float, board: Board, marks: NDArray[np.float64], logged: int, log: NDArray[np.float64]
) -> tuple[int, NDArray[np.float64], float]:
    """Close a share of every contract of an account; return the log and the notional closed."""
    account, closed = board.accounts[k], 0.0
    log = _with_room(log, logged, account.last_position - account.first_position)
    for p in range(account.first_position, account.last_position):
        units = board.positions[p].quantity * share
        if units != 0.0:
            closed += _close(k, p, units, board, marks, logged, log)
            logged += 1
    return logged, log, closed


@kernel
def _close(
    k: int, p: int, units: float, board: Board, marks: NDArray[np.float64], at: int, log: NDArray[np.float64]
) -> float:
    """Close units of a position (signed as its quantity) on the book, and settle; return the notional closed."""
    account, position = board.accounts[k], board.positions[p]
    ledger, m, trader = board.ledger, position.market, account.trader
    bank, market_node = len(board.traders) + account.exchange, len(ledger.flow) - 2
    market = board.markets[m]
    coin, unit = market.settle, _unit(m, board, marks)
    held = coin_entry(account, coin, board)
    book = board.books[market.book]
    if market.kind == INVERSE:
        cost = coins_for(market, units, book, board.levels)
        trade(market.shocked, units, book, board.levels)
        settled = units * market.face / position.entry - cost
        received, money = -cost * marks[coin], abs(cost) * marks[coin]
        ledger.bought[coin] += cost
        ledger.flow[trader] -= cost * marks[coin]
        ledger.flow[market_node] += cost * marks[coin]
    else:
        cash = trade(market.shocked, units, book, board.levels)[1]
        gain = cash - units * position.entry
        settled = 0.0
        received, money = cash, abs(cash)
        ledger.cash[market_node] -= cash
        ledger.cash[bank] += gain
        if marks[coin] > 0.0:
            settled = gain / marks[coin]
            ledger.pool[coin] -= settled
            ledger.flow[trader] += gain
            ledger.flow[bank] -= gain
        else:  # nothing to pay with
            ledger.loss[4, trader] += gain
            ledger.loss[4, bank] -= gain
    value = units * unit
    ledger.bought[m] += units
    ledger.loss[2, trader] += value - received
    ledger.loss[2, market_node] -= value - received
    ledger.flow[trader] -= value
    ledger.flow[market_node] += value
    credit(board.entries[held], settled)
    position.quantity -= units
    if abs(position.quantity) <= SLACK * abs(units):
        position.quantity = 0.0
    _note(log, at, k, p, CLOSING if units > 0.0 else OPENING, abs(units), money)
    return abs(value)


@kernel
def coin_entry(account: Row, m: int, board: Board) -> int:
    """Entry of an account in a market; every margin account has one where its contracts settle."""
    for e in range(account.first, account.last):
        if board.entries[e].market == m:
            return e
    return -1


@kernel
def credit(entry: Row, units: float) -> None:
    """Add units to a balance: they repay its debt, then are deposited; a loss the other way round."""
    if units >= 0.0:
        repaid = min(units, entry.borrowed)
        entry.borrowed -= repaid
        entry.deposited += units - repaid
    else:
        taken = min(-units, entry.deposited)
        entry.deposited -= taken
        entry.borrowed += -units - taken


@kernel
def coins_for(market: Row, units: float, book: Row, levels: Levels) -> float:
    """Coins that buyers of inverse contracts are owed for their entry: the integral of face over price."""
    total = 0.0
    for node in range(len(NODES)):
        sold = 0.5 * units * (1.0 + NODES[node])
        price = next_price(market.shocked, sold, units > 0.0, book, levels)
        total += 0.5 * WEIGHTS[node] * units * market.face / max(price, LEAST)
    return float(total)


# contracts that the bankruptcy price limits ---------------------------------------------------------------------------


@kernel
def _close_within(
    k: int,
    share: float,
    worth: float,
    board: Board,
    tiers: tuple[NDArray[Any], ...],
    marks: NDArray[np.float64],
    logged: int,
    log: NDArray[np.float64],
) -> tuple[int, NDArray[np.float64], float]:
    """Close a share of every contract where the book pays the bankruptcy price; note the rest at the end of the log.

    The price leaves equity 0 when all contracts pass at theirs: each bears equity in proportion to its margin.
    """
    account, closed, total = board.accounts[k], 0.0, 0.0
    first, last = account.first_position, account.last_position
    log = _with_room(log, logged, 2 * (last - first))
    weight, price, left = np.zeros(last - first), np.zeros(last - first), np.zeros(last - first)
    for p in range(first, last):
        position = board.positions[p]
        notional = abs(position.quantity * _unit(position.market, board, marks))
        weight[p - first] = _margin(position, notional, board, tiers)
        total += weight[p - first]
    for p in range(first, last):
        position = board.positions[p]
        units = position.quantity * share
        if units == 0.0:
            continue
        part = weight[p - first] / total if total > 0.0 else 1.0 / (last - first)
        unit = _unit(position.market, board, marks)
        price[p - first] = unit - worth * part / position.quantity
        filled = _within(units, price[p - first], position.market, board, marks)
        if filled != 0.0:
            closed += _close(k, p, filled, board, marks, logged, log)
            logged += 1
        left[p - first] = units - filled
        closed += abs((units - filled) * unit)
    for p in range(first, last):
        if left[p - first] != 0.0:
            _note(log, logged, k, p, UNFILLED, left[p - first], price[p - first])
            logged += 1
    return logged, log, closed


@kernel
def _within(units: float, worst: float, m: int, board: Board, marks: NDArray[np.float64]) -> float:
    """Part of an order to close that its book fills at a value per unit no worse than ``worst``."""
    market, limit = board.markets[m], worst
    book = board.books[market.book]
    if market.kind == INVERSE:
        limit = np.inf
        if worst < 0.0:
            limit = -market.face * marks[market.settle] / worst
    elif worst <= 0.0:
        limit = 0.0
    side = 1.0 if units > 0.0 else -1.0
    most = taken(units, book, board.levels)
    low, high, middle = 0.0, 1.0, 1.0
    for step in range(STEPS):  # all of it, then nothing, then halves
        price = next_price(market.shocked, middle * most, units > 0.0, book, board.levels)
        good = side * (price - limit) >= -SLACK * abs(limit) or limit == 0.0
        if step == 0 and good:
            return most
        if step == 1 and not good:
            return 0.0
        if good:
            low = middle
        else:
            high = middle
        middle = 0.0 if step == 0 else 0.5 * (low + high)
    return low * most if low > LITTLE else 0.0


@kernel
def spend(
    orders: NDArray[np.float64], money: float, board: Board, marks: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Close what is left of orders (account, position, units, value per unit) while others pay what the book lacks.

    Returns a log, the units of each order that were not closed when the money was used up, and the money used.
    """
    log, left = np.empty((len(orders), 5)), np.zeros(len(orders))
    logged, used = 0, 0.0
    for place in range(len(orders)):
        k, p, units, worst = int(orders[place, 0]), int(orders[place, 1]), orders[place, 2], orders[place, 3]
        m = board.positions[p].market
        order = units
        units = taken(order, board.books[board.markets[m].book], board.levels)
        low, high = 0.0, 1.0
        if _lacking(units, worst, m, board, marks) > money - used:
            for _ in range(STEPS):
                middle = 0.5 * (low + high)
                if _lacking(middle * units, worst, m, board, marks) > money - used:
                    high = middle
                else:
                    low = middle
            high = low
        used += max(_lacking(high * units, worst, m, board, marks), 0.0)
        left[place] = order - high * units
        if high * units != 0.0:
            _close(k, p, high * units, board, marks, logged, log)
            logged += 1
    return log[:logged], left, used


@kernel
def _lacking(units: float, worst: float, m: int, board: Board, marks: NDArray[np.float64]) -> float:
    """Return what a book pays less than a value per unit for closing units [num]."""
    market = board.markets[m]
    book = board.books[market.book]
    if market.kind == INVERSE:
        return float(units * worst + coins_for(market, units, book, board.levels) * marks[market.settle])
    return float(units * worst - cash_of(market.shocked, units, book, board.levels))


@kernel
def close_at(orders: NDArray[np.float64], channel: NDArray[np.int64], board: Board, marks: NDArray[np.float64]) -> None:
    """Close contracts (account, position, units, value per unit) without a book, at the given value, and settle."""
    ledger = board.ledger
    for place in range(len(orders)):
        k, p, units, price = int(orders[place, 0]), int(orders[place, 1]), orders[place, 2], orders[place, 3]
        account, position = board.accounts[k], board.positions[p]
        market, trader = board.markets[position.market], account.trader
        coin, bank = market.settle, len(board.traders) + account.exchange
        value, received = units * _unit(position.market, board, marks), units * price
        ledger.loss[channel[place], trader] += value - received
        ledger.flow[trader] += received - value
        if market.kind == INVERSE:
            settled = units * market.face / position.entry
            if marks[coin] > 0.0:
                settled += received / marks[coin]
        else:
            gain = received - units * position.entry
            ledger.cash[bank] += gain
            settled = 0.0
            ledger.flow[trader] += gain - received
            if marks[coin] > 0.0:
                settled = gain / marks[coin]
                ledger.pool[coin] -= settled
                ledger.flow[bank] -= gain
            else:  # nothing to pay with
                ledger.flow[trader] -= gain
                ledger.loss[4, trader] += gain
                ledger.loss[4, bank] -= gain
        credit(board.entries[coin_entry(account, coin, board)], settled)
        position.quantity -= units
        if abs(position.quantity) <= SLACK * abs(units):
            position.quantity = 0.0


@kernel
def settle_up(pending: NDArray[np.float64], board: Board, marks: NDArray[np.float64]) -> NDArray[np.float64]:
    """Settle accounts (account, equity to keep, notional closed) whose contracts are gone; return a log."""
    log = np.empty((max(4 * len(pending), 64), 5))
    logged: Any = np.int64(0)
    for place in range(len(pending)):
        k = int(pending[place, 0])
        logged, log = _settle(k, pending[place, 1], pending[place, 2], board, marks, logged, log)
    return log[:logged]


# reductions ---------------------------------------------------------------------------------------------------------


@kernel
def _weigh(
    account: Row, board: Board, tiers: tuple[NDArray[Any], ...], marks: NDArray[np.float64]
) -> tuple[float, float]:
    """Equity after haircuts and maintenance margin of an account as it is now [num]."""
    backing, must = 0.0, 0.0
    for e in range(account.first, account.last):
        entry = board.entries[e]
        market, mark = board.markets[entry.market], marks[entry.market]
        backing += (entry.deposited * entry.threshold - entry.borrowed) * mark
        must += (entry.deposited * market.long + entry.borrowed * market.short) * mark
    for p in range(account.first_position, account.last_position):
        position = board.positions[p]
        backing += _gain(position, board, marks)
        must += _margin(position, abs(position.quantity * _unit(position.market, board, marks)), board, tiers)
    return backing, must


@kernel
def _excess(account: Row, rule: Row, board: Board, marks: NDArray[np.float64]) -> float:
    """Share of the contracts of a portfolio account to close: its worst loss falls in proportion."""
    equity = account.gains
    for e in range(account.first, account.last):
        entry = board.entries[e]
        equity += (entry.deposited * entry.threshold - entry.borrowed) * marks[entry.market]
    if account.required <= 0.0:
        return 1.0
    return float(min(max(1.0 - equity / (rule.target_health * account.required), 0.0), 1.0))


@kernel
def _reduce(
    k: int,
    board: Board,
    tiers: tuple[NDArray[Any], ...],
    marks: NDArray[np.float64],
    logged: int,
    log: NDArray[np.float64],
) -> tuple[int, NDArray[np.float64], float]:
    """Close the least that restores the target health: contracts in the rulebook's order, then balances."""
    account, closed = board.accounts[k], 0.0
    target = board.rules[account.exchange].target_health
    for _ in range(STEPS):
        backing, must = _weigh(account, board, tiers, marks)
        missing = target * must - backing
        if missing <= SLACK * target * must:
            break
        p = _next_position(account, board, tiers, marks)
        if p >= 0:
            position = board.positions[p]
            notional = abs(position.quantity * _unit(position.market, board, marks))
            margin = _margin(position, notional, board, tiers) - missing / target
            kept = _notional_of(position, margin, notional, board, tiers) if margin > 0.0 and notional > 0.0 else 0.0
            units = position.quantity if notional <= 0.0 else position.quantity * (1.0 - kept / notional)
            if abs(units) <= SLACK * abs(position.quantity):
                units = position.quantity
            log = _with_room(log, logged, 1)
            closed += _close(k, p, units, board, marks, logged, log)
            logged += 1
        else:
            before = logged
            logged, log = _repay(k, missing / target, board, marks, logged, log)
            if logged == before:
                break
    return logged, log, closed


@kernel
def _next_position(account: Row, board: Board, tiers: tuple[NDArray[Any], ...], marks: NDArray[np.float64]) -> int:
    """Position that goes first: the largest, the one that lost most, or that with the most margin; -1: none."""
    order = board.rules[account.exchange].order
    found, most = -1, -np.inf
    for p in range(account.first_position, account.last_position):
        position = board.positions[p]
        if position.quantity == 0.0:
            continue
        notional = abs(position.quantity * _unit(position.market, board, marks))
        rank = notional
        if order == 1:
            rank = -_gain(position, board, marks)
        elif order == 2:
            rank = _margin(position, notional, board, tiers)
        if rank > most:
            found, most = p, rank
    return found


# balances -----------------------------------------------------------------------------------------------------------


@kernel
def _repay(
    k: int, relief: float, board: Board, marks: NDArray[np.float64], logged: int, log: NDArray[np.float64]
) -> tuple[int, NDArray[np.float64]]:
    """Sell deposits to repay debts, the largest of each first, until enough margin is freed or nothing is left."""
    account = board.accounts[k]
    entries, markets, books, ledger = board.entries, board.markets, board.books, board.ledger
    levels = board.levels
    target = board.rules[account.exchange].target_health
    log = _with_room(log, logged, 4 * (account.last - account.first) + 2)
    for _ in range(2 * (account.last - account.first)):
        d, c = _largest(account, board, marks)
        if d < 0 or c < 0 or not relief > 0.0:
            break
        debt, deposit = entries[d], entries[c]
        market_d, market_c = markets[debt.market], markets[deposit.market]
        book_d, book_c = books[market_d.book], books[market_c.book]
        freed = market_c.long + market_d.short + (1.0 - deposit.threshold) / target
        value = min(debt.borrowed * marks[debt.market], deposit.deposited * marks[deposit.market])
        if freed <= 0.0 and not np.isinf(relief):
            break
        if not np.isinf(relief):
            value = min(value, relief / freed)
        wanted = min(value / marks[debt.market], debt.borrowed)
        if value >= debt.borrowed * marks[debt.market] * (1.0 - SLACK):
            wanted = debt.borrowed
        if d == c:
            wanted = min(wanted, deposit.deposited)
            deposit.deposited -= wanted
            debt.borrowed -= wanted
            relief -= wanted * marks[debt.market] * freed
            continue
        supply = -taken(-wanted, book_d, levels)
        cost = -cash_of(market_d.shocked, -supply, book_d, levels)
        units = units_of(market_c.shocked, cost, book_c, levels)
        if not units <= deposit.deposited:
            units = deposit.deposited
        if (
            supply < LITTLE * wanted or taken(units, book_c, levels) < LITTLE * units
        ):  # nobody trades: it stays as it is
            break
        units, cash = trade(market_c.shocked, units, book_c, levels)
        wanted = supply
        if cash < cost:
            wanted = min(supply, -units_of(market_d.shocked, -cash, book_d, levels))
        spent = -trade(market_d.shocked, -wanted, book_d, levels)[1]
        _post(account.trader, deposit.market, units, cash, marks[deposit.market], board)
        _post(account.trader, debt.market, -wanted, -spent, marks[debt.market], board)
        ledger.cash[account.trader] += cash - spent
        deposit.deposited = max(deposit.deposited - units, 0.0)
        debt.borrowed = max(debt.borrowed - wanted, 0.0)
        relief -= wanted * marks[debt.market] * freed
        _note(log, logged, k, c, SALE, units, cash)
        _note(log, logged + 1, k, d, PURCHASE, wanted, spent)
        logged += 2
    return logged, log


@kernel
def _largest(account: Row, board: Board, marks: NDArray[np.float64]) -> tuple[int, int]:
    """Entries of the largest debt, and of the deposit to repay it from: its own asset first, then the largest."""
    d, c, most, best = -1, -1, 0.0, 0.0
    for e in range(account.first, account.last):
        owed = board.entries[e].borrowed * marks[board.entries[e].market]
        if owed > most:
            d, most = e, owed
    for e in range(account.first, account.last):
        entry = board.entries[e]
        value = entry.deposited * marks[entry.market]
        if value <= GONE * most:
            continue
        if e == d:
            return d, d
        if value > best and board.markets[entry.market].sellable:
            c, best = e, value
    return d, c


@kernel
def _post(trader: int, m: int, units: float, cash: float, mark: float, board: Board) -> None:
    """Post units sold (bought, where negative) by a trader for cash."""
    ledger = board.ledger
    market_node, value = len(ledger.flow) - 2, units * mark
    ledger.bought[m] += units
    ledger.cash[market_node] -= cash
    ledger.loss[2, trader] += value - cash
    ledger.flow[trader] -= value
    ledger.loss[2, market_node] -= value - cash
    ledger.flow[market_node] += value


@kernel
def _charge(
    k: int, money: float, board: Board, marks: NDArray[np.float64], logged: int, log: NDArray[np.float64]
) -> tuple[int, NDArray[np.float64]]:
    """Let the exchange take deposits worth some money, the largest first."""
    account, ledger = board.accounts[k], board.ledger
    bank = len(board.traders) + account.exchange
    log = _with_room(log, logged, account.last - account.first)
    for _ in range(account.last - account.first):
        found, most = -1, 0.0
        for e in range(account.first, account.last):
            value = board.entries[e].deposited * marks[board.entries[e].market]
            if value > most:
                found, most = e, value
        if found < 0 or not money > SLACK * most:
            break
        entry = board.entries[found]
        units = entry.deposited if money >= most * (1.0 - SLACK) else money / marks[entry.market]
        value = units * marks[entry.market]
        entry.deposited -= units
        ledger.fees[entry.market] += units
        ledger.loss[3, account.trader] += value
        ledger.flow[account.trader] -= value
        ledger.loss[3, bank] -= value
        ledger.flow[bank] += value
        money -= value
        _note(log, logged, k, found, CHARGE, units, value)
        logged += 1
    return logged, log
