"""Compiled loops over accounts that touch no book: health, answers of owners, write-offs.

Kernels call kernels of their own module only: a cached one does not notice that another module changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from netcontagion._compile import kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netcontagion.margining._state import Accounts, Board, Entries, Ledger, Markets, Rules, Traders, Wallets

__all__ = ["TARGET_HEALTH", "WITHDRAWAL_HEALTH", "account_health", "respond", "write_off"]

TARGET_HEALTH = 1.05  # a called account is topped up to this health
WITHDRAWAL_HEALTH = 1.25  # margin is pulled from other accounts down to this health
SLACK = 1e-12  # relative rounding that the target may miss by
ENOUGH = TARGET_HEALTH * (1.0 - SLACK)
GONE = 1e-12  # collateral below this share of the account's opening debt is no collateral


# health -------------------------------------------------------------------------------------------------------------


@kernel
def weigh(k: int, accounts: Accounts, entries: Entries, marks: NDArray[np.float64]) -> tuple[float, float]:
    """Collateral of an account weighted by its thresholds, and its debt [num]; health is their ratio."""
    backing, debt = 0.0, 0.0
    for e in range(accounts.first[k], accounts.last[k]):
        price = marks[entries.market[e]]
        backing += entries.deposited[e] * price * entries.threshold[e]
        debt += entries.borrowed[e] * price
    return backing, debt


@kernel
def account_health(
    which: NDArray[np.int64], accounts: Accounts, entries: Entries, marks: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Health of some accounts, +inf without debt, and the market of the largest collateral of each (-1: none)."""
    health = np.empty(len(which))
    largest = np.full(len(which), -1, dtype=np.int64)
    for place in range(len(which)):
        k = which[place]
        backing, debt = weigh(k, accounts, entries, marks)
        health[place] = backing / debt if debt > 0.0 else np.inf
        most = 0.0
        for e in range(accounts.first[k], accounts.last[k]):
            weighted = entries.deposited[e] * marks[entries.market[e]] * entries.threshold[e]
            if weighted > most:
                most = weighted
                largest[place] = entries.market[e]
    return health, largest


# answers of traders -------------------------------------------------------------------------------------------------


@kernel
def respond(
    which: NDArray[np.int64],
    board: Board,
    marks: NDArray[np.float64],
    prices: NDArray[np.float64],
    called: NDArray[np.bool_],
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Top called accounts up to health 1.05 from the wallet, then from own accounts down to 1.25 there; all or nothing.

    A unit first repays debt in its own asset, then is deposited where the exchange takes it as collateral. Returns
    whether each account responded, and a log of moves with columns account, target entry, source entry (or
    -1 - wallet place), units repaid, units deposited.
    """
    accounts, entries, markets, rules = board.accounts, board.entries, board.markets, board.rules
    traders, wallets, ledger = board.traders, board.wallets, board.ledger
    responded = np.zeros(len(which), dtype=np.bool_)
    log = np.empty((max(len(which), 16), 5))
    need = np.empty(2)  # weighted collateral and debt of the account as planned so far
    logged = 0
    for place in range(len(which)):
        k = which[place]
        if rules.out[accounts.exchange[k]] or accounts.forced[k]:
            continue
        trader = accounts.trader[k]
        log = _with_room(log, logged, logged + _most_moves(trader, traders, accounts))
        need[0], need[1] = weigh(k, accounts, entries, marks)
        planned = _plan_wallets(k, logged, log, need, traders, wallets, accounts, entries, markets, marks)
        if _short(need) and traders.withdraw[trader]:
            own = accounts.of_trader[traders.first[trader] : traders.last[trader]]
            planned = _plan_accounts(
                k, own, logged, planned, log, need, called, accounts, entries, markets, rules, marks
            )
        if _short(need) or planned == logged:
            continue
        responded[place] = True
        for p in range(logged, planned):
            _move(p, log, trader, entries, wallets, ledger, marks, prices)
        logged = planned
    return responded, log[:logged]


@kernel
def _short(need: NDArray[np.float64]) -> bool:
    """Whether collateral and debt are below the target health."""
    return bool(need[0] < ENOUGH * need[1])


@kernel
def _most_moves(trader: int, traders: Traders, accounts: Accounts) -> int:
    """Wallets and entries that a trader can draw on."""
    most = traders.last_wallet[trader] - traders.first_wallet[trader]
    for i in range(traders.first[trader], traders.last[trader]):
        k = accounts.of_trader[i]
        most += accounts.last[k] - accounts.first[k]
    return int(most)


@kernel
def _with_room(log: NDArray[np.float64], used: int, wanted: int) -> NDArray[np.float64]:
    """Return the log, or a longer copy where the wanted rows do not fit."""
    if wanted <= len(log):
        return log
    longer = np.empty((max(2 * len(log), wanted), 5))
    for p in range(used):  # a slice assigned as a whole takes two seconds to compile
        for column in range(5):
            longer[p, column] = log[p, column]
    return longer


@kernel
def _plan_wallets(
    k: int,
    first: int,
    log: NDArray[np.float64],
    need: NDArray[np.float64],
    traders: Traders,
    wallets: Wallets,
    accounts: Accounts,
    entries: Entries,
    markets: Markets,
    marks: NDArray[np.float64],
) -> int:
    """Plan what comes from wallets, in their order, into the log from row ``first``; return the row after the last."""
    trader, planned = accounts.trader[k], first
    if not traders.top_up[trader]:
        return planned
    for w in range(traders.first_wallet[trader], traders.last_wallet[trader]):
        if not _short(need):
            break
        e = _entry_of(k, wallets.asset[w], accounts, entries, markets)
        planned += _plan_move(k, e, -1 - w, wallets.units[w], first, planned, log, need, entries, marks) > 0.0
    return planned


@kernel
def _plan_accounts(
    k: int,
    own: NDArray[np.int64],
    first: int,
    planned: int,
    log: NDArray[np.float64],
    need: NDArray[np.float64],
    called: NDArray[np.bool_],
    accounts: Accounts,
    entries: Entries,
    markets: Markets,
    rules: Rules,
    marks: NDArray[np.float64],
) -> int:
    """Plan what comes from the owner's other accounts, the healthiest first; return the row after the last."""
    visited = np.zeros(len(own), dtype=np.bool_)
    while _short(need):
        donor = _healthiest(k, own, visited, called, accounts, entries, rules, marks)
        if donor < 0:
            break
        planned = _plan_withdrawals(k, donor, first, planned, log, need, accounts, entries, markets, marks)
    return planned


@kernel
def _plan_withdrawals(
    k: int,
    donor: int,
    first: int,
    planned: int,
    log: NDArray[np.float64],
    need: NDArray[np.float64],
    accounts: Accounts,
    entries: Entries,
    markets: Markets,
    marks: NDArray[np.float64],
) -> int:
    """Plan what comes from one other account, its largest deposits first, as far as it stays at health 1.25."""
    backing, debt = weigh(donor, accounts, entries, marks)
    spare = backing - WITHDRAWAL_HEALTH * debt
    drawn = np.zeros(accounts.last[donor] - accounts.first[donor], dtype=np.bool_)
    while _short(need):
        source = _largest_deposit(donor, drawn, accounts, entries, marks)
        if source < 0:
            break
        drawn[source - accounts.first[donor]] = True
        m, units = entries.market[source], entries.deposited[source]
        weight = marks[m] * entries.threshold[source] if debt > 0.0 else 0.0
        if weight > 0.0:
            units = min(units, max(spare, 0.0) / weight)
        e = _entry_of(k, markets.asset[m], accounts, entries, markets)
        moved = _plan_move(k, e, source, units, first, planned, log, need, entries, marks)
        planned += moved > 0.0
        spare -= moved * weight
    return planned


@kernel
def _plan_move(
    k: int,
    e: int,
    source: int,
    units: float,
    first: int,
    planned: int,
    log: NDArray[np.float64],
    need: NDArray[np.float64],
    entries: Entries,
    marks: NDArray[np.float64],
) -> float:
    """Plan to use up to some units in entry e of account k; return how many are used, 0 for none."""
    price = marks[entries.market[e]] if e >= 0 else 0.0
    if units <= 0.0 or price <= 0.0:
        return 0.0
    owed = entries.borrowed[e]
    for p in range(first, planned):
        if log[p, 1] == e:
            owed -= log[p, 3]
    repaid = max(min(need[1] - need[0] / TARGET_HEALTH, units * price, owed * price), 0.0)
    need[1] -= repaid
    posted, factor = 0.0, entries.threshold[e]
    if factor > 0.0 and _short(need):
        posted = min((TARGET_HEALTH * need[1] - need[0]) / factor, units * price - repaid)
        need[0] += posted * factor
    if repaid + posted <= 0.0:
        return 0.0
    log[planned, 0], log[planned, 1], log[planned, 2] = k, e, source
    log[planned, 3], log[planned, 4] = repaid / price, posted / price
    return float((repaid + posted) / price)


@kernel
def _largest_deposit(
    k: int, drawn: NDArray[np.bool_], accounts: Accounts, entries: Entries, marks: NDArray[np.float64]
) -> int:
    """Entry of the largest deposit of an account that was not drawn on yet; -1: none."""
    found, most = -1, 0.0
    for e in range(accounts.first[k], accounts.last[k]):
        value = entries.deposited[e] * marks[entries.market[e]]
        if value > most and not drawn[e - accounts.first[k]]:
            found, most = e, value
    return found


@kernel
def _healthiest(
    k: int,
    own: NDArray[np.int64],
    visited: NDArray[np.bool_],
    called: NDArray[np.bool_],
    accounts: Accounts,
    entries: Entries,
    rules: Rules,
    marks: NDArray[np.float64],
) -> int:
    """Healthiest of the owner's accounts above 1.25 that can give to account k, by backing among equals; -1: none."""
    best, best_health, best_backing = -1, WITHDRAWAL_HEALTH, 0.0
    for i in range(len(own)):
        other = own[i]
        if visited[i] or other == k or called[other] or rules.out[accounts.exchange[other]]:
            continue
        backing, debt = weigh(other, accounts, entries, marks)
        health = backing / debt if debt > 0.0 else np.inf
        if health > best_health or (best >= 0 and health == best_health and backing > best_backing):
            best, best_health, best_backing = i, health, backing
    if best < 0:
        return -1
    visited[best] = True
    return int(own[best])


@kernel
def _entry_of(k: int, asset: int, accounts: Accounts, entries: Entries, markets: Markets) -> int:
    """Entry of an account in an asset; -1: none."""
    for e in range(accounts.first[k], accounts.last[k]):
        if markets.asset[entries.market[e]] == asset:
            return e
    return -1


@kernel
def _move(
    p: int,
    log: NDArray[np.float64],
    trader: int,
    entries: Entries,
    wallets: Wallets,
    ledger: Ledger,
    marks: NDArray[np.float64],
    prices: NDArray[np.float64],
) -> None:
    """Carry out one row of the log of ``respond``; what moves between marks gains or loses on the way."""
    e, source, repaid, posted = int(log[p, 1]), int(log[p, 2]), log[p, 3], log[p, 4]
    units = repaid + posted
    if source < 0:
        w = -1 - source
        wallets.units[w] = max(wallets.units[w] - units, 0.0)
        price_from = prices[wallets.asset[w]]
    else:
        entries.deposited[source] = max(entries.deposited[source] - units, 0.0)
        price_from = marks[entries.market[source]]
    entries.borrowed[e] = max(entries.borrowed[e] - repaid, 0.0)
    entries.deposited[e] += posted
    gain = units * (marks[entries.market[e]] - price_from)
    ledger.loss[2, trader] -= gain
    ledger.flow[trader] += gain


# debt that nobody pays --------------------------------------------------------------------------------------------


@kernel
def write_off(which: NDArray[np.int64], board: Board, marks: NDArray[np.float64]) -> NDArray[np.float64]:
    """Take the debt of accounts that have no collateral left onto their exchange, as a hole in its book.

    Returns a log with columns account, entry, units.
    """
    accounts, entries, ledger = board.accounts, board.entries, board.ledger
    n_traders = len(board.traders.first)
    size = 0
    for place in range(len(which)):
        size += accounts.last[which[place]] - accounts.first[which[place]]
    log = np.empty((size, 3))
    logged = 0
    for place in range(len(which)):
        k = which[place]
        trader, bank = accounts.trader[k], n_traders + accounts.exchange[k]
        if board.rules.out[accounts.exchange[k]]:
            continue
        if weigh(k, accounts, entries, marks)[0] > GONE * accounts.opening_debt[k]:
            continue
        for e in range(accounts.first[k], accounts.last[k]):
            units = entries.borrowed[e]
            if units <= 0.0:
                continue
            value = units * marks[entries.market[e]]
            entries.borrowed[e] = 0.0
            ledger.hole[entries.market[e]] += units
            ledger.loss[4, trader] -= value
            ledger.flow[trader] += value
            ledger.loss[4, bank] += value
            ledger.flow[bank] -= value
            log[logged, 0] = k
            log[logged, 1] = e
            log[logged, 2] = units
            logged += 1
    return log[:logged]
