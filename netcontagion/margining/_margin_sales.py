"""Compiled loops that close margin accounts: contracts on their books, gains in kind, debts repaid from deposits.

A contract that leaves an account passes to the market at what the book pays, or to the backstop vault. What the account
gained over its entry price is settled in units of the contract's settlement asset: a loss comes out of the deposit,
then becomes a debt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion._compile import kernel
from netcontagion.margining._forms import LADDER, coin_fill
from netcontagion.margining._posting import GONE
from netcontagion.margining._settling import (
    coin_entry,
    credit,
    equity_of,
    gain_of,
    is_flat,
    margin_of,
    notional_of,
    pay,
    tier_of,
    unit_value,
    weigh,
    with_room,
)
from netcontagion.margining._takeover import sell_to_vault, take_account
from netcontagion.margining._trading import (
    asked,
    cash_of,
    crowding,
    limit_price,
    next_price,
    taken,
    trade,
    units_of,
)
from netcontagion.margining._valuation import INVERSE, PORTFOLIO

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netcontagion.margining._state import Board, Row
    from netcontagion.margining._trading import Levels

    Tiers = tuple[NDArray[Any], ...]
    Floats = NDArray[np.float64]

__all__ = [
    "CHARGE",
    "CLOSING",
    "OFFSET",
    "OPENING",
    "PENDING",
    "PURCHASE",
    "SALE",
    "UNFILLED",
    "close_at",
    "close_contract",
    "close_margin",
    "freed_by_contract",
    "freed_by_debt",
    "is_taken",
    "largest",
    "repay_from",
    "settle_up",
    "spend",
]

SLACK = 1e-12  # relative rounding that a threshold may miss by
DUST = 1e-6  # contracts below this share of the account's balances, or of its margin, are closed in full
SALE, PURCHASE, CLOSING, OPENING, CHARGE, OFFSET = range(6)  # rows of the log; CLOSING and OPENING are of contracts
LITTLE = 1e-6  # share of an order below which nobody trades
LEAST = 1e-300  # a price below this is no price: what is owed in coin is without bound
UNFILLED, PENDING = 8, 9  # contracts that could not be closed at the bankruptcy price; equity to keep, notional closed
STEPS = 64  # Newton steps of a reduction
NODES, WEIGHTS = np.polynomial.legendre.leggauss(16)


@kernel
def close_margin(
    which: NDArray[np.int64], health: Floats, board: Board, tiers: Tiers, marks: Floats
) -> NDArray[np.float64]:
    """Close margin accounts by the rules of their exchange, in the given order.

    An account closed by force is closed whole; its owner keeps what is left unless health was below 1. ``tiers`` are
    first row, count, floor, rate and cumulative amount of each contract, long ones before short ones. Where winners are
    deleveraged, contracts are closed no worse than at the bankruptcy price; what is left of them is in the log as
    UNFILLED, with that price, and the account is settled later (PENDING). Returns a log with columns account, row (of
    entries; of positions for contracts), kind, units, cash.
    """
    log = np.empty((max(2 * len(which), 64), 5))
    logged: Any = np.int64(0)
    for place in range(len(which)):
        k = which[place]
        account = board.accounts[k]
        rule = board.rules[account.exchange]
        worth = equity_of(account, board, marks)
        backstopped = rule.vault >= 0 and rule.vault != k and health[place] < rule.backstop_below and worth >= 0.0
        share, closed, before = _share(account, rule, board, marks), 0.0, logged
        to_vault, charged = rule.to_vault and rule.vault != k, rule.at_bankruptcy and health[place] < 1.0
        if backstopped or (to_vault and charged):
            share = 1.0 if backstopped else share
            due = rule.fee * share * notional_of(account, board, marks)
            logged, log = _charge(k, min(due, share * worth), board, marks, logged, log)
            logged, log = take_account(k, rule.vault, share, board, marks, logged, log)
            continue
        reduces = rule.reduce and not account.forced and account.test != PORTFOLIO
        reduces = reduces and not (rule.deleverages and worth <= 0.0)
        if to_vault:
            logged, log, closed = sell_to_vault(k, rule.vault, share, board, marks, logged, log)
        elif reduces:
            logged, log, closed = _reduce(k, board, tiers, marks, logged, log)
        elif rule.deleverages:
            logged, log, closed = _close_within(k, share, worth, board, tiers, marks, logged, log)
        else:
            logged, log, closed = _close_positions(k, share, board, marks, logged, log)
        keep = max((1.0 - share) * worth, 0.0) if charged else np.inf
        if logged > before and log[logged - 1, 2] == UNFILLED:
            log = with_room(log, logged, 1)
            _note(log, logged, k, -1, PENDING, keep, closed)
            logged += 1
        else:
            logged, log = _settle(k, reduces, keep, closed, board, marks, logged, log)
    return log[:logged]


@kernel
def _settle(
    k: int, reduces: bool, keep: float, closed: float, board: Board, marks: Floats, logged: int, log: Floats
) -> tuple[int, NDArray[np.float64]]:
    """Repay what an account without contracts owes, unless it is only reduced, and charge it for what was closed.

    At the bankruptcy price an account keeps no more than ``keep``, nothing once its contracts are gone.
    """
    account = board.accounts[k]
    rule, flat = board.rules[account.exchange], is_flat(account, board, marks)
    if flat and not reduces:
        logged, log = _repay(k, board, marks, logged, log)
    left, due = equity_of(account, board, marks), rule.fee * closed
    if keep < np.inf and (not rule.reduce or (flat and closed > 0.0)):
        surplus = left - (0.0 if flat else keep)
        due = min(surplus, due) if rule.fee > 0.0 else surplus
    return _charge(k, min(due, left), board, marks, logged, log)


@kernel
def _share(account: Row, rule: Row, board: Board, marks: Floats) -> float:
    """Share of the contracts that is closed now: a slice of large accounts, of a portfolio what its margin lacks."""
    if account.forced:
        return 1.0
    backing, gross = account.gains, 0.0
    for e in range(account.first, account.last):
        entry, mark = board.entries[e], marks[board.entries[e].market]
        backing += (entry.deposited * entry.threshold - entry.borrowed) * mark
        gross += (entry.deposited + entry.borrowed) * mark
    notional = notional_of(account, board, marks)
    if rule.reduce:
        if account.required <= 0.0 or notional <= DUST * account.required:
            return 1.0
        return float(min(max(1.0 - backing / (rule.target_health * account.required), 0.0), 1.0))
    return float(rule.slice) if notional > max(rule.slice_above, DUST * gross) else 1.0


# contracts ----------------------------------------------------------------------------------------------------------


@kernel
def _note(log: NDArray[np.float64], at: int, k: int, row: int, kind: int, units: float, cash: float) -> None:
    log[at, 0], log[at, 1], log[at, 2], log[at, 3], log[at, 4] = k, row, kind, units, cash


@kernel
def _close_positions(
    k: int, share: float, board: Board, marks: NDArray[np.float64], logged: int, log: NDArray[np.float64]
) -> tuple[int, NDArray[np.float64], float]:
    """Close a share of every contract of an account; return the log and the notional closed."""
    account, closed = board.accounts[k], 0.0
    log = with_room(log, logged, account.last_position - account.first_position)
    for p in range(account.first_position, account.last_position):
        units = board.positions[p].quantity * share
        filled = _asked(units, board.positions[p].market, board)
        if abs(filled) > LITTLE * abs(units):
            closed += close_contract(k, p, filled, board, marks, logged, log)
            logged += 1
    return logged, log, closed


@kernel
def is_taken(units: float, m: int, board: Board) -> bool:
    """Whether the book of a market takes more than a trace of an order."""
    return bool(abs(_filled(units, m, board)) > LITTLE * abs(units))


@kernel
def _filled(units: float, m: int, board: Board) -> float:
    """Part of an order in a market that its book takes."""
    market = board.markets[m]
    book = board.books[market.book]
    units = taken(units, book, board.levels)
    return coin_fill(book.form, book.sold, book.depth, units) if market.kind == INVERSE else units


@kernel
def _asked(units: float, m: int, board: Board) -> float:
    """Part of an order in a market that its book takes, the same of all that are filled together."""
    market = board.markets[m]
    book = board.books[market.book]
    units = asked(units, book, board.levels)
    return coin_fill(book.form, book.sold, book.depth, units) if market.kind == INVERSE else units


@kernel
def close_contract(
    k: int, p: int, units: float, board: Board, marks: NDArray[np.float64], at: int, log: NDArray[np.float64]
) -> float:
    """Close units of a position (signed as its quantity), as far as the book takes them, and settle.

    Returns the notional closed.
    """
    account, position = board.accounts[k], board.positions[p]
    ledger, m, trader = board.ledger, position.market, account.trader
    market, market_node = board.markets[m], len(ledger.flow) - 2
    coin, book = market.settle, board.books[market.book]
    units = _filled(units, m, board)
    value = units * unit_value(m, board, marks)
    if market.kind == INVERSE:
        cost = coins_for(market, units, book, board.levels)
        trade(market.shocked, units, book, board.levels)
        received, money = -cost * marks[coin], abs(cost) * marks[coin]
        ledger.bought[coin] += cost
        ledger.passed[coin] += cost
        ledger.flow[trader] -= cost * marks[coin]
        ledger.flow[market_node] += cost * marks[coin]
        credit(board.entries[coin_entry(account, coin, board)], units * market.face / position.entry - cost)
    else:
        cash = trade(market.shocked, units, book, board.levels)[1]
        received, money = cash, abs(cash)
        ledger.cash[market_node] -= cash
        pay(k, coin, cash - units * position.entry, board, marks)
    ledger.bought[m] += units
    ledger.loss[2, trader] += value - received
    ledger.loss[2, market_node] -= value - received
    ledger.flow[trader] -= value
    ledger.flow[market_node] += value
    position.quantity -= units
    if abs(position.quantity) <= SLACK * position.largest:
        position.quantity = 0.0
    _note(log, at, k, p, CLOSING if units > 0.0 else OPENING, abs(units), money)
    return abs(value)


@kernel
def coins_for(market: Row, units: float, book: Row, levels: Levels) -> float:
    """Coins that buyers of inverse contracts are owed for their entry: the integral of face over price."""
    if levels is None or book.form != LADDER:
        return _coins_between(market, 0.0, units, book, levels)
    total, start = 0.0, 0.0
    for step in range(book.last - book.first):  # every level has one price
        e = book.first + step if units > 0.0 else book.last - 1 - step
        end = levels[0, e] * book.depth - book.sold
        if (end - start) * units > 0.0 and abs(end) < abs(units):
            total += _coins_between(market, start, end, book, levels)
            start = end
    return total + _coins_between(market, start, units, book, levels)


@kernel
def _coins_between(market: Row, start: float, end: float, book: Row, levels: Levels) -> float:
    """Part of the integral of face over price between two quantities sold, by Gauss-Legendre quadrature."""
    total = 0.0
    for node in range(len(NODES)):
        sold = start + 0.5 * (end - start) * (1.0 + NODES[node])
        price = next_price(market.shocked, sold, end > start, book, levels)
        total += 0.5 * WEIGHTS[node] * (end - start) * market.face / max(price, LEAST)
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
    log = with_room(log, logged, 2 * (last - first))
    weight, price, left = np.zeros(last - first), np.zeros(last - first), np.zeros(last - first)
    for p in range(first, last):
        position = board.positions[p]
        notional = abs(position.quantity * unit_value(position.market, board, marks))
        weight[p - first] = margin_of(position, notional, board, tiers)
        total += weight[p - first]
    for p in range(first, last):
        position = board.positions[p]
        units = position.quantity * share
        if units == 0.0:
            continue
        part = weight[p - first] / total if total > 0.0 else 1.0 / (last - first)
        unit = unit_value(position.market, board, marks)
        price[p - first] = unit - worth * part / position.quantity
        filled = _within(units, price[p - first], position.market, board, marks)
        if filled != 0.0:
            closed += close_contract(k, p, filled, board, marks, logged, log)
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
    most = _asked(units, m, board)
    if abs(most) <= LITTLE * abs(units):
        return 0.0
    everybody = most * crowding(units, book)
    low, high, middle = 0.0, 1.0, 1.0
    for step in range(STEPS):  # all of it, then nothing, then halves
        price = limit_price(market.shocked, middle * everybody, units > 0.0, book, board.levels)
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
    if low <= LITTLE:
        return 0.0
    if not np.isnan(book.common):
        book.refused += (1.0 - low) * most
    return low * most


@kernel
def spend(
    orders: NDArray[np.float64], money: float, board: Board, marks: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Close what is left of orders (account, position, units, value per unit) while others pay what the book lacks.

    Returns a log, the units of each order that were not closed when the money was used up, and the money used.
    """
    log, left, used = np.empty((len(orders), 5)), np.zeros(len(orders)), 0.0
    logged: Any = np.int64(0)
    for place in range(len(orders)):
        k, p, units, worst = int(orders[place, 0]), int(orders[place, 1]), orders[place, 2], orders[place, 3]
        m = board.positions[p].market
        order = units
        units = _filled(order, m, board)
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
            close_contract(k, p, high * units, board, marks, logged, log)
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
        value, received = units * unit_value(position.market, board, marks), units * price
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
        if abs(position.quantity) <= SLACK * position.largest:
            position.quantity = 0.0


@kernel
def settle_up(pending: NDArray[np.float64], board: Board, marks: NDArray[np.float64]) -> NDArray[np.float64]:
    """Settle accounts (account, equity to keep, notional closed) whose contracts are gone; return a log."""
    log = np.empty((max(4 * len(pending), 64), 5))
    logged: Any = np.int64(0)
    reduces: Any = np.bool_(False)
    for place in range(len(pending)):
        k = int(pending[place, 0])
        logged, log = _settle(k, reduces, pending[place, 1], pending[place, 2], board, marks, logged, log)
    return log[:logged]


# reductions ---------------------------------------------------------------------------------------------------------


@kernel
def _reduce(
    k: int,
    board: Board,
    tiers: tuple[NDArray[Any], ...],
    marks: NDArray[np.float64],
    logged: int,
    log: NDArray[np.float64],
) -> tuple[int, NDArray[np.float64], float]:
    """Close the least that restores the target health: contracts in the rulebook's order, then balances.

    What is missing falls the slower the more is closed, as prices get worse and tiers lower: Newton steps from below
    never go too far. What frees no margin at the margin is closed in full.
    """
    account, closed = board.accounts[k], 0.0
    target = board.rules[account.exchange].target_health
    p, d, c = -1, -1, -1
    for _ in range(STEPS * (account.last - account.first + account.last_position - account.first_position)):
        backing, must = weigh(account, board, tiers, marks)
        missing = target * must - backing
        if missing <= SLACK * target * must:
            break
        log = with_room(log, logged, 2)
        if p < 0 or board.positions[p].quantity == 0.0:
            p = _next_position(account, board, tiers, marks)
        if p >= 0:
            held = board.positions[p].quantity
            freed = freed_by_contract(account, p, target, board, tiers, marks)
            units = held if missing >= freed * abs(held) * (1.0 - SLACK) else np.sign(held) * missing / freed
            if not is_taken(units, board.positions[p].market, board):
                break
            closed += close_contract(k, p, units, board, marks, logged, log)
            logged += 1
            continue
        if d < 0 or not (board.entries[d].borrowed > 0.0 and board.entries[c].deposited > 0.0):
            d, c = largest(account, board, marks)
        if d < 0 or c < 0:
            break
        freed = freed_by_debt(d, c, target, board, marks)
        units = board.entries[d].borrowed
        units = units if missing >= freed * units * (1.0 - SLACK) else missing / freed
        before, logged = logged, repay_from(k, d, c, units, board, marks, logged, log)
        if logged == before:
            break
    return logged, log, closed


@kernel
def freed_by_contract(account: Row, p: int, target: float, board: Board, tiers: Tiers, marks: Floats) -> float:
    """Weigh what closing the next unit of a position takes off target x margin - equity [num]; below 0: it adds."""
    position = board.positions[p]
    m, side = position.market, np.sign(position.quantity)
    market = board.markets[m]
    unit = unit_value(m, board, marks)
    price = next_price(market.shocked, 0.0, side > 0.0, board.books[market.book], board.levels)
    if not LEAST < price < np.inf:
        return -1.0
    if market.kind == INVERSE:
        coins = market.face / position.entry
        settled = side * (coins - market.face / price) * marks[market.settle]
        given_up = side * (unit + coins * marks[market.settle])
    else:
        settled, given_up = side * (price - position.entry), side * (unit - position.entry)
    contract = m + (len(board.markets) if side < 0.0 else 0)
    row = tier_of(tiers[0][contract], tiers[1][contract], abs(position.quantity * unit), tiers)
    coin, entry = board.markets[market.settle], board.entries[coin_entry(account, market.settle, board)]
    weight, rate = entry.threshold, coin.long
    if (settled >= 0.0 and entry.borrowed > 0.0) or (settled < 0.0 and entry.deposited <= 0.0):
        weight, rate = 1.0, -coin.short
    return float(target * (tiers[3][row] * abs(unit) - rate * settled) + weight * settled - given_up)


@kernel
def freed_by_debt(d: int, c: int, target: float, board: Board, marks: Floats) -> float:
    """Weigh what repaying the next unit of a debt from a deposit takes off target x margin - equity [num]."""
    debt, deposit = board.entries[d], board.entries[c]
    market_d, market_c = board.markets[debt.market], board.markets[deposit.market]
    spent = marks[debt.market]
    if d != c:
        paid = next_price(market_d.shocked, 0.0, False, board.books[market_d.book], board.levels)
        got = next_price(market_c.shocked, 0.0, True, board.books[market_c.book], board.levels)
        if not (got > LEAST and paid < np.inf):
            return -1.0
        spent = paid / got * marks[deposit.market]
    freed = target * (market_d.short * marks[debt.market] + market_c.long * spent)
    return float(freed + marks[debt.market] - deposit.threshold * spent)


@kernel
def _next_position(account: Row, board: Board, tiers: tuple[NDArray[Any], ...], marks: NDArray[np.float64]) -> int:
    """Position that goes first: the largest, the one that lost most, or that with the most margin; -1: none."""
    order = board.rules[account.exchange].order
    found, most = -1, -np.inf
    for p in range(account.first_position, account.last_position):
        position = board.positions[p]
        if position.quantity == 0.0:
            continue
        notional = abs(position.quantity * unit_value(position.market, board, marks))
        rank = notional
        if order == 1:
            rank = -gain_of(position, board, marks)
        elif order == 2:
            rank = margin_of(position, notional, board, tiers)
        if rank > most:
            found, most = p, rank
    return found


# balances -----------------------------------------------------------------------------------------------------------


@kernel
def _repay(
    k: int, board: Board, marks: NDArray[np.float64], logged: int, log: NDArray[np.float64]
) -> tuple[int, NDArray[np.float64]]:
    """Sell deposits to repay debts, the largest of each first, until one of them is gone."""
    account = board.accounts[k]
    log = with_room(log, logged, 4 * (account.last - account.first))
    for _ in range(2 * (account.last - account.first)):
        d, c = largest(account, board, marks)
        if d < 0 or c < 0:
            break
        before, logged = logged, repay_from(k, d, c, board.entries[d].borrowed, board, marks, logged, log)
        if logged == before:
            break
    return logged, log


@kernel
def repay_from(
    k: int, d: int, c: int, wanted: float, board: Board, marks: NDArray[np.float64], at: int, log: NDArray[np.float64]
) -> int:
    """Repay units of a debt from a deposit, as far as it and the books go; return the log's end.

    The same asset repays in kind, another one is sold. Where nobody trades all stays as it is.
    """
    account, ledger = board.accounts[k], board.ledger
    debt, deposit = board.entries[d], board.entries[c]
    if d == c:
        wanted = min(wanted, deposit.deposited)
        deposit.deposited -= wanted
        debt.borrowed -= wanted
        _note(log, at, k, d, OFFSET, wanted, wanted * marks[debt.market])
        return at + 1
    market_d, market_c = board.markets[debt.market], board.markets[deposit.market]
    book_d, book_c = board.books[market_d.book], board.books[market_c.book]
    levels, supply = board.levels, -taken(-wanted, book_d, board.levels)
    cost = -cash_of(market_d.shocked, -supply, book_d, levels)
    units = units_of(market_c.shocked, cost, book_c, levels)
    if not units < deposit.deposited:
        units = deposit.deposited
    filled = taken(units, book_c, levels)
    if supply < LITTLE * wanted or filled < LITTLE * units:
        return at
    whole, wanted = filled == units < deposit.deposited, supply
    units, cash = trade(market_c.shocked, units, book_c, levels)
    if not whole or cash < cost * (1.0 - SLACK):  # a price that reaches 0 brings no more
        wanted = min(supply, -units_of(market_d.shocked, -cash, book_d, levels))
    spent = -trade(market_d.shocked, -wanted, book_d, levels)[1]
    _post(account.trader, deposit.market, units, cash, marks[deposit.market], board)
    _post(account.trader, debt.market, -wanted, -spent, marks[debt.market], board)
    ledger.cash[account.trader] += cash - spent
    deposit.deposited = max(deposit.deposited - units, 0.0)
    debt.borrowed = max(debt.borrowed - wanted, 0.0)
    if debt.borrowed <= SLACK * wanted:
        debt.borrowed = 0.0
    _note(log, at, k, c, SALE, units, cash)
    _note(log, at + 1, k, d, PURCHASE, wanted, spent)
    return at + 2


@kernel
def largest(account: Row, board: Board, marks: NDArray[np.float64]) -> tuple[int, int]:
    """Entries of the largest debt, and of the deposit to repay it from: its own asset first, then the largest.

    Debts that nobody sells wait, and so do deposits that nobody pays for.
    """
    d, c, most, best = -1, -1, 0.0, 0.0
    for e in range(account.first, account.last):
        entry = board.entries[e]
        owed, value = entry.borrowed * marks[entry.market], entry.deposited * marks[entry.market]
        if owed > most and (value > GONE * owed or is_taken(-entry.borrowed, entry.market, board)):
            d, most = e, owed
    for e in range(account.first, account.last):
        entry = board.entries[e]
        value = entry.deposited * marks[entry.market]
        if value <= GONE * most:
            continue
        if e == d:
            return d, d
        if value > best and board.markets[entry.market].sellable and _pays(entry.market, board):
            c, best = e, value
    return d, c


@kernel
def _pays(m: int, board: Board) -> bool:
    """Whether the book of a market pays anything for one more unit."""
    market = board.markets[m]
    return bool(next_price(market.shocked, 0.0, True, board.books[market.book], board.levels) > 0.0)


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
    log = with_room(log, logged, account.last - account.first)
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
