"""Compiled loops of owners who answer calls: wallets, own accounts, and reductions elsewhere that free margin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion._compile import kernel
from netcontagion.margining._answers import (
    entry_of,
    log_with_room,
    move,
    need_of,
    plan_accounts,
    plan_wallets,
    plan_withdrawals,
    short,
    weigh,
    worth_of_help,
)
from netcontagion.margining._margin_sales import (
    close_contract,
    freed_by_contract,
    freed_by_debt,
    is_taken,
    largest,
    repay_from,
)
from netcontagion.margining._settling import gain_of, margin_of, unit_value, with_room
from netcontagion.margining._valuation import LENDING, MARGIN, PORTFOLIO

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netcontagion.margining._margin_sales import Tiers
    from netcontagion.margining._state import Board, Row

__all__ = ["respond"]

SLACK = 1e-12  # relative rounding that is no reason to trade
STEPS = 64  # steps of a reduction: each frees what is still missing after the price that the last one paid


@kernel
def respond(
    which: NDArray[np.int64],
    board: Board,
    tiers: Tiers | None,
    marks: NDArray[np.float64],
    barred: NDArray[np.bool_],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Bring accounts to the target health of their owners, in the given order; all or nothing per account.

    First from wallets, then from own accounts down to the health they keep, then by reducing other accounts. A unit
    first repays debt in its own asset, then is deposited where the exchange takes it as collateral. Barred accounts
    give nothing. ``tiers`` are None where nobody holds contracts, so that nothing is compiled for them. Returns a log
    of moves (account, target entry, source entry or -1 - wallet place, units repaid, units deposited), a log of trades
    (account, row, kind, units, cash), and the number of trades for each of the accounts; those that could not be
    helped are in no log.
    """
    accounts, entries, markets = board.accounts, board.entries, board.markets
    log, trades, made = np.empty((max(len(which), 16), 5)), np.empty((16, 5)), np.zeros(len(which), np.int64)
    need = np.empty(4)  # what backs the account and what it must back, as planned so far; see ``need_of``
    logged: Any = np.int64(0)  # of the type it keeps: a plain 0 would compile what it is handed to twice
    traded: Any = np.int64(0)
    for place in range(len(which)):
        k = which[place]
        account = accounts[k]
        trader = board.traders[account.trader]
        log = log_with_room(log, logged, trader, accounts)
        need_of(account, trader, entries, markets, marks, need)
        planned = plan_wallets(k, account, trader, logged, log, need, entries, board.wallets, markets, marks)
        if short(need) and trader.withdraw:
            planned = plan_accounts(k, trader, logged, planned, log, need, barred, accounts, entries, markets, marks)
        if not short(need):
            for p in range(logged, planned):
                move(log[p], board)
            logged = planned
        elif trader.reduce and _worth_trying(k, trader, need, barred, board, marks):
            saved = _saved(trader, board)
            for p in range(logged, planned):
                move(log[p], board)
            planned, sold, log, trades = _reduce_others(
                k, trader, need, barred, planned, log, traded, trades, board, tiers, marks
            )
            if short(need):
                _restore(trader, saved, board)
                continue
            made[place] = sold - traded
            logged, traded = planned, sold
    return log[:logged], trades[:traded], made


# which accounts can be reduced --------------------------------------------------------------------------------------


@kernel
def _reducible(other: int, k: int, barred: NDArray[np.bool_], board: Board) -> bool:
    """Whether an account can be reduced for account k: it owes or holds contracts, tested by debt or by rates."""
    account = board.accounts[other]
    if other == k or barred[other] or account.test == PORTFOLIO:
        return False
    for e in range(account.first, account.last):
        if board.entries[e].borrowed > 0.0:
            return True
    held = 0
    for p in range(account.first_position, account.last_position):
        held += board.positions[p].quantity != 0.0
    return held > 0


@kernel
def _worth_trying(
    k: int,
    trader: Row,
    need: NDArray[np.float64],
    barred: NDArray[np.bool_],
    board: Board,
    marks: NDArray[np.float64],
) -> bool:
    """Whether all equity of the accounts that can be reduced, at marks, would be enough for account k."""
    found = 0.0
    for i in range(trader.first, trader.last):
        other = board.accounts[i].of_trader
        if not _reducible(other, k, barred, board):
            continue
        account = board.accounts[other]
        equity = account.gains
        for e in range(account.first, account.last):
            equity += (board.entries[e].deposited - board.entries[e].borrowed) * marks[board.entries[e].market]
        found += max(equity, 0.0)
    return bool(found * (1.0 + need[2]) >= need[2] * need[1] - need[0])


@kernel
def _next_donor(
    k: int,
    trader: Row,
    visited: NDArray[np.bool_],
    barred: NDArray[np.bool_],
    board: Board,
    marks: NDArray[np.float64],
) -> int:
    """Healthiest of the owner's accounts that can be reduced for account k, by backing among equals; -1: none."""
    best, best_health, best_backing = -1, -np.inf, 0.0
    for i in range(len(visited)):
        other = board.accounts[trader.first + i].of_trader
        if visited[i] or not _reducible(other, k, barred, board):
            continue
        backing, debt = weigh(board.accounts[other], board.entries, board.markets, marks)
        health = backing / debt if debt > 0.0 else np.inf
        if best < 0 or health > best_health or (health == best_health and backing > best_backing):
            best, best_health, best_backing = i, health, backing
    if best < 0:
        return -1
    visited[best] = True
    return int(board.accounts[trader.first + best].of_trader)


# reductions ---------------------------------------------------------------------------------------------------------


@kernel
def _reduce_others(
    k: int,
    trader: Row,
    need: NDArray[np.float64],
    barred: NDArray[np.bool_],
    planned: int,
    log: NDArray[np.float64],
    traded: int,
    trades: NDArray[np.float64],
    board: Board,
    tiers: Tiers | None,
    marks: NDArray[np.float64],
) -> tuple[int, int, NDArray[np.float64], NDArray[np.float64]]:
    """Reduce the owner's other accounts, the healthiest first, and move what is freed, until account k has enough."""
    accounts, entries, markets = board.accounts, board.entries, board.markets
    visited = np.zeros(trader.last - trader.first, dtype=np.bool_)
    while short(need):
        donor = _next_donor(k, trader, visited, barred, board, marks)
        if donor < 0:
            break
        for _ in range(STEPS):
            log = log_with_room(log, planned, trader, accounts)
            before = planned
            planned = plan_withdrawals(
                k, donor, trader.keep, before, before, log, need, accounts, entries, markets, marks
            )
            for p in range(before, planned):
                move(log[p], board)
            if not short(need):
                break
            lack = _lack(k, donor, trader.keep, need, board, marks)
            if not lack > 0.0:
                break
            trades = with_room(trades, traded, 2)
            before = traded
            traded, going = _free(donor, lack, trader.keep, board, tiers, marks, traded, trades)
            if not going:
                break
    return planned, traded, log, trades


@kernel
def _lack(
    k: int, donor: int, keep: float, need: NDArray[np.float64], board: Board, marks: NDArray[np.float64]
) -> float:
    """Weighted margin that an account lacks to give what account k still needs out of its largest useful deposit."""
    giver, account, markets = board.accounts[donor], board.accounts[k], board.markets
    backing, debt = weigh(giver, board.entries, markets, marks)
    most, lack = -1.0, 0.0
    for s in range(giver.first, giver.last):
        source = board.entries[s]
        e = entry_of(account, markets[source.market].asset, board.entries, markets)
        value = source.deposited * marks[source.market]
        if e < 0 or value <= most or (value <= 0.0 and giver.test == LENDING):
            continue
        entry = board.entries[e]
        gained, freed, tied = worth_of_help(account, entry.market, markets)
        help_ = entry.threshold - need[2] * tied
        if entry.borrowed > entry.coming:
            help_ = gained + need[2] * freed
        if help_ <= 0.0:
            continue
        wanted = (need[2] * need[1] - need[0]) / help_
        if giver.test == LENDING:
            wanted = min(wanted, value)
        tied = markets[source.market].long if giver.test == MARGIN else 0.0
        most = value
        lack = wanted * (source.threshold - keep * tied) - (backing - keep * debt)
    return lack


@kernel
def _free(
    donor: int,
    lack: float,
    keep: float,
    board: Board,
    tiers: Tiers | None,
    marks: NDArray[np.float64],
    traded: int,
    trades: NDArray[np.float64],
) -> tuple[int, bool]:
    """Close contracts, then repay debts, to free some weighted margin; tell whether anything was done.

    A Newton step, from below: what is freed falls the slower the more is closed.
    """
    account = board.accounts[donor]
    if tiers is not None:
        p = _largest_position(account, board, marks)
        if p >= 0:
            return _free_contract(donor, p, lack, keep, board, tiers, marks, traded, trades)
    d, c = largest(account, board, marks)
    if d < 0 or c < 0:
        return traded, False
    owed = board.entries[d].borrowed
    freed = freed_by_debt(d, c, keep, board, marks)
    if account.test == LENDING:  # a debt counts by the health that is kept
        freed += (keep - 1.0) * marks[board.entries[d].market]
    if freed <= 0.0:
        return traded, False
    units = owed if lack >= freed * owed * (1.0 - SLACK) else lack / freed
    if units <= SLACK * owed:
        return traded, False
    after = repay_from(donor, d, c, units, board, marks, traded, trades)
    return after, after > traded


@kernel
def _free_contract(
    donor: int,
    p: int,
    lack: float,
    keep: float,
    board: Board,
    tiers: Tiers,
    marks: NDArray[np.float64],
    traded: int,
    trades: NDArray[np.float64],
) -> tuple[int, bool]:
    """Close some of a contract to free some weighted margin, and value what is left of all of them."""
    account, held = board.accounts[donor], board.positions[p].quantity
    freed = freed_by_contract(account, p, keep, board, tiers, marks)
    units = held if lack >= freed * abs(held) * (1.0 - SLACK) else np.sign(held) * lack / freed
    if abs(units) <= SLACK * abs(held) or not is_taken(units, board.positions[p].market, board):
        return traded, False
    close_contract(donor, p, units, board, marks, traded, trades)
    _value_contracts(account, board, tiers, marks)
    return traded + 1, True


@kernel
def _largest_position(account: Row, board: Board, marks: NDArray[np.float64]) -> int:
    """Position with the largest notional; -1: none."""
    found, most = -1, 0.0
    for p in range(account.first_position, account.last_position):
        notional = abs(board.positions[p].quantity * unit_value(board.positions[p].market, board, marks))
        if notional > most:
            found, most = p, notional
    return found


@kernel
def _value_contracts(account: Row, board: Board, tiers: Tiers, marks: NDArray[np.float64]) -> None:
    """Note what the contracts of an account gain and require now."""
    gains, required = 0.0, 0.0
    for p in range(account.first_position, account.last_position):
        position = board.positions[p]
        notional = abs(position.quantity * unit_value(position.market, board, marks))
        gains += gain_of(position, board, marks)
        required += margin_of(position, notional, board, tiers)
    account.gains, account.required = gains, required


# all or nothing -----------------------------------------------------------------------------------------------------


@kernel
def _saved(trader: Row, board: Any) -> Any:
    """Copy everything that reductions for one trader can change."""
    accounts, ledger, first_bank = board.accounts, board.ledger, len(board.traders)
    low, high = accounts[trader.first], accounts[trader.last - 1]
    return (
        accounts[trader.first : trader.last].copy(),
        board.entries[low.first : high.last].copy(),
        board.positions[low.first_position : high.last_position].copy(),
        board.wallets[trader.first_wallet : trader.last_wallet].copy(),
        board.books.copy(),
        ledger.loss[:, low.trader].copy(),
        ledger.loss[:, first_bank:].copy(),
        (ledger.flow[low.trader], ledger.cash[low.trader]),
        ledger.flow[first_bank:].copy(),
        ledger.cash[first_bank:].copy(),
        ledger.bought.copy(),
        ledger.passed.copy(),
        ledger.pool.copy(),
    )


@kernel
def _restore(trader: Row, saved: Any, board: Any) -> None:
    """Put everything back as it was saved."""
    ledger, first_bank, low = board.ledger, len(board.traders), board.accounts[trader.first]
    accounts, entries, positions, wallets, books, own_losses, losses, own, flow, cash, bought, passed, pool = saved
    for i in range(len(accounts)):  # a slice assigned as a whole takes two seconds to compile
        board.accounts[trader.first + i] = accounts[i]
    for i in range(len(entries)):
        board.entries[low.first + i] = entries[i]
    for i in range(len(positions)):
        board.positions[low.first_position + i] = positions[i]
    for i in range(len(wallets)):
        board.wallets[trader.first_wallet + i] = wallets[i]
    for i in range(len(books)):
        board.books[i] = books[i]
    for channel in range(len(losses)):
        ledger.loss[channel, low.trader] = own_losses[channel]
        for i in range(len(flow)):
            ledger.loss[channel, first_bank + i] = losses[channel, i]
    ledger.flow[low.trader], ledger.cash[low.trader] = own
    for i in range(len(flow)):
        ledger.flow[first_bank + i], ledger.cash[first_bank + i] = flow[i], cash[i]
    for m in range(len(bought)):
        ledger.bought[m], ledger.passed[m] = bought[m], passed[m]
    for m in range(len(pool)):
        ledger.pool[m] = pool[m]
