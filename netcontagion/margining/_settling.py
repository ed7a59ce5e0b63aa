"""What a margin account is worth in a compiled loop, and how gains on its contracts are settled in kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion._compile import kernel
from netcontagion.margining._valuation import INVERSE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netcontagion.margining._state import Board, Row

__all__ = [
    "coin_entry",
    "credit",
    "equity_of",
    "gain_of",
    "is_flat",
    "margin_of",
    "notional_of",
    "pay",
    "tier_of",
    "unit_value",
    "weigh",
    "with_room",
]


@kernel
def equity_of(account: Row, board: Board, marks: NDArray[np.float64]) -> float:
    """Equity of an account at marks, without haircuts [num]."""
    found = 0.0
    for e in range(account.first, account.last):
        entry = board.entries[e]
        found += (entry.deposited - entry.borrowed) * marks[entry.market]
    for p in range(account.first_position, account.last_position):
        found += gain_of(board.positions[p], board, marks)
    return found


@kernel
def unit_value(m: int, board: Board, marks: NDArray[np.float64]) -> float:
    """Value of one unit of a market; an inverse contract is a debt of its face, in coin."""
    market = board.markets[m]
    if market.kind == INVERSE:
        return float(-market.face * marks[market.settle] / marks[m])
    return float(marks[m])


@kernel
def gain_of(position: Row, board: Board, marks: NDArray[np.float64]) -> float:
    """Unrealised profit of a position [num]."""
    market, unit = board.markets[position.market], unit_value(position.market, board, marks)
    if market.kind == INVERSE:
        coin = position.quantity * market.face / position.entry if position.quantity != 0.0 else 0.0
        return float(position.quantity * unit + coin * marks[market.settle])
    return float(position.quantity * (unit - position.entry))


@kernel
def notional_of(account: Row, board: Board, marks: NDArray[np.float64]) -> float:
    """Value of all contracts of an account, without sign [num]."""
    found = 0.0
    for p in range(account.first_position, account.last_position):
        position = board.positions[p]
        found += abs(position.quantity * unit_value(position.market, board, marks))
    return found


@kernel
def is_flat(account: Row, board: Board, marks: NDArray[np.float64]) -> bool:
    """Whether an account holds no contract any more; inverse ones in a worthless coin are worth and owe nothing."""
    held = 0
    for p in range(account.first_position, account.last_position):
        market = board.markets[board.positions[p].market]
        nothing = market.kind == INVERSE and marks[market.settle] <= 0.0
        held += board.positions[p].quantity != 0.0 and not nothing
    return held == 0


@kernel
def tier_of(row: int, count: int, notional: float, tiers: tuple[NDArray[Any], ...]) -> int:
    """Row of the tier that a notional is in."""
    for _ in range(count - 1):
        if notional < tiers[2][row + 1]:
            break
        row += 1
    return row


@kernel
def margin_of(position: Row, notional: float, board: Board, tiers: tuple[NDArray[Any], ...]) -> float:
    """Maintenance margin of a notional in the contract of a position [num]."""
    contract = position.market + (len(board.markets) if position.quantity < 0.0 else 0)
    row = tier_of(tiers[0][contract], tiers[1][contract], notional, tiers)
    return float(notional * tiers[3][row] - tiers[4][row])


@kernel
def weigh(
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
        backing += gain_of(position, board, marks)
        must += margin_of(position, abs(position.quantity * unit_value(position.market, board, marks)), board, tiers)
    return backing, must


@kernel
def pay(k: int, coin: int, money: float, board: Board, marks: NDArray[np.float64]) -> None:
    """Let the exchange pay a gain to an account, or take a loss, in units of the coin that its contract settles in."""
    account, ledger = board.accounts[k], board.ledger
    trader, bank = account.trader, len(board.traders) + account.exchange
    ledger.cash[bank] += money
    if marks[coin] > 0.0:
        units = money / marks[coin]
        ledger.pool[coin] -= units
        ledger.flow[trader] += money
        ledger.flow[bank] -= money
        credit(board.entries[coin_entry(account, coin, board)], units)
    else:  # nothing to pay with
        ledger.loss[4, trader] += money
        ledger.loss[4, bank] -= money


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
def with_room(log: NDArray[np.float64], used: int, rows: int) -> NDArray[np.float64]:
    """Return the log, or a longer copy where some rows more might not fit."""
    if used + rows <= len(log):
        return log
    longer = np.empty((2 * len(log) + rows, 5))
    for p in range(used):
        for column in range(5):
            longer[p, column] = log[p, column]
    return longer
