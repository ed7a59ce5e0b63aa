"""Compiled loops by which a backstop vault takes accounts over: contracts, deposits and debts, and nothing is sold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from netcontagion._compile import kernel
from netcontagion.margining._settling import coin_entry, credit, pay, unit_value, with_room
from netcontagion.margining._valuation import INVERSE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netcontagion.margining._state import Board, Row

    Floats = NDArray[np.float64]

__all__ = ["TAKEN_BALANCE", "TAKEN_CONTRACT", "sell_to_vault", "take_account"]

SLACK = 1e-12  # relative rounding of what is left of a position
TAKEN_CONTRACT, TAKEN_BALANCE = 6, 7  # rows of the log of ``close_margin``
EXECUTION, PENALTY = 2, 3  # channels of the ledger


@kernel
def take_account(
    k: int, vault: int, share: float, board: Board, marks: Floats, logged: int, log: Floats
) -> tuple[int, Floats]:
    """Pass a share of an account, equity included, to the vault: the price is the account's bankruptcy price."""
    account, taker, penalties = board.accounts[k], board.accounts[vault], board.ledger.loss[PENALTY]
    log = with_room(log, logged, account.last - account.first + account.last_position - account.first_position)
    for p in range(account.first_position, account.last_position):
        if board.positions[p].quantity != 0.0:
            _pass_contract(k, p, vault, share, board.positions[p].entry, penalties, board, marks, log[logged])
            logged += 1
    for e in range(account.first, account.last):
        entry = board.entries[e]
        deposited, borrowed = entry.deposited * share, entry.borrowed * share
        if deposited == 0.0 and borrowed == 0.0:
            continue
        into = board.entries[coin_entry(taker, entry.market, board)]
        entry.deposited -= deposited
        entry.borrowed -= borrowed
        into.deposited += deposited
        into.borrowed += borrowed
        units = deposited - borrowed
        _post(account.trader, taker.trader, units * marks[entry.market], board.ledger.flow, penalties)
        _note(log[logged], k, e, TAKEN_BALANCE, units, units * marks[entry.market])
        logged += 1
    return logged, log


@kernel
def sell_to_vault(
    k: int, vault: int, share: float, board: Board, marks: Floats, logged: int, log: Floats
) -> tuple[int, Floats, float]:
    """Pass a share of the contracts of an account to the vault at the mark; return the log and the notional closed."""
    account, closed = board.accounts[k], 0.0
    log = with_room(log, logged, account.last_position - account.first_position)
    for p in range(account.first_position, account.last_position):
        m = board.positions[p].market
        if board.positions[p].quantity != 0.0:
            closed += abs(board.positions[p].quantity * share * unit_value(m, board, marks))
            _pass_contract(k, p, vault, share, marks[m], board.ledger.loss[EXECUTION], board, marks, log[logged])
            logged += 1
    return logged, log, closed


@kernel
def _pass_contract(
    k: int, p: int, vault: int, share: float, price: float, loss: Floats, board: Board, marks: Floats, row: Floats
) -> None:
    """Pass a share of a position to the vault at a price: both settle what they gain on contracts they close.

    ``loss`` is the channel of the ledger for what the price differs from the mark by.
    """
    position = board.positions[p]
    m, units, entry = position.market, position.quantity * share, position.entry
    market, unit = board.markets[m], unit_value(m, board, marks)
    held = board.positions[_position_of(board.accounts[vault], m, board)]
    giver, taker = board.accounts[k].trader, board.accounts[vault].trader
    value = units * unit
    if market.kind == INVERSE:
        value += units * market.face / price * marks[market.settle]
        _post(giver, taker, value, board.ledger.flow, loss)
    else:
        board.ledger.flow[giver] -= value
        board.ledger.flow[taker] += value
        loss[giver] += value - units * price
        loss[taker] -= value - units * price
    position.quantity -= units
    _settle(k, m, units, entry, price, board, marks)
    closed = 0.0  # of what the vault held the other way round
    if units * held.quantity < 0.0:
        closed = -np.sign(units) * min(abs(units), abs(held.quantity))
        _settle(vault, m, closed, held.entry, price, board, marks)
    kept, opened = held.quantity - closed, units + closed
    held.quantity = kept + opened
    held.largest = max(held.largest, abs(held.quantity))
    if abs(held.quantity) <= SLACK * held.largest:
        held.quantity = 0.0
    elif kept == 0.0:
        held.entry = price
    elif opened != 0.0:
        held.entry = _merged(market, kept, held.entry, opened, price)
    _note(row, k, p, TAKEN_CONTRACT, units, abs(units * unit))


@kernel
def _merged(market: Row, held: float, entry: float, units: float, price: float) -> float:
    """Entry price of contracts entered at two prices: the mean of what was paid, in money or in coin."""
    if market.kind == INVERSE:
        return float((held + units) / (held / entry + units / price))
    return float((held * entry + units * price) / (held + units))


@kernel
def _settle(k: int, m: int, units: float, entry: float, price: float, board: Board, marks: Floats) -> None:
    """Settle what an account gained on contracts that it closes at a price."""
    market = board.markets[m]
    if market.kind == INVERSE:
        coins = units * market.face * (1.0 / entry - 1.0 / price)
        credit(board.entries[coin_entry(board.accounts[k], market.settle, board)], coins)
    elif price != entry:
        pay(k, market.settle, units * (price - entry), board, marks)


@kernel
def _position_of(account: Row, m: int, board: Board) -> int:
    """Position of an account in a contract; the vault has one in every contract of its exchange."""
    for p in range(account.first_position, account.last_position):
        if board.positions[p].market == m:
            return p
    return -1


@kernel
def _post(giver: int, taker: int, value: float, flow: Floats, loss: Floats) -> None:
    """Post units worth some money that pass from one trader to another for nothing, on a channel of the ledger."""
    flow[giver] -= value
    flow[taker] += value
    loss[giver] += value
    loss[taker] -= value


@kernel
def _note(row: Floats, k: int, at: int, kind: int, units: float, cash: float) -> None:
    row[0], row[1], row[2], row[3], row[4] = k, at, kind, units, cash
