"""Compiled loops over accounts that touch no book: health, and answers of owners.

Kernels call kernels of their own module only: a cached one does not notice that another module changed. Rows of a table
are handed on as one record each: every array that is handed on has to be compiled again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion._compile import kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netcontagion.margining._state import Accounts, Entries, Row, Traders, Wallets

__all__ = ["TARGET_HEALTH", "WITHDRAWAL_HEALTH", "account_health", "respond"]

TARGET_HEALTH = 1.05  # a called account is topped up to this health
WITHDRAWAL_HEALTH = 1.25  # margin is pulled from other accounts down to this health
SLACK = 1e-12  # relative rounding that the target may miss by
ENOUGH = TARGET_HEALTH * (1.0 - SLACK)


# health -------------------------------------------------------------------------------------------------------------


@kernel
def weigh(account: Row, entries: Entries, marks: NDArray[np.float64]) -> tuple[float, float]:
    """Collateral of an account weighted by its thresholds, and its debt [num]; health is their ratio."""
    backing, debt = 0.0, 0.0
    for e in range(account.first, account.last):
        entry = entries[e]
        price = marks[entry.market]
        backing += entry.deposited * price * entry.threshold
        debt += entry.borrowed * price
    return backing, debt


@kernel
def account_health(
    which: NDArray[np.int64], accounts: Accounts, entries: Entries, marks: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Health of some accounts, +inf without debt, and the market of the largest collateral of each (-1: none)."""
    health = np.empty(len(which))
    largest = np.empty(len(which), np.int64)
    for place in range(len(which)):
        account = accounts[which[place]]
        backing, debt = 0.0, 0.0  # as in ``weigh``, in one pass
        most, market = 0.0, -1
        for e in range(account.first, account.last):
            entry = entries[e]
            price = marks[entry.market]
            weighted = entry.deposited * price * entry.threshold
            backing += weighted
            debt += entry.borrowed * price
            if weighted > most:
                most, market = weighted, entry.market
        health[place] = backing / debt if debt > 0.0 else np.inf
        largest[place] = market
    return health, largest


# answers of traders -------------------------------------------------------------------------------------------------


@kernel
def respond(
    which: NDArray[np.int64],
    accounts: Accounts,
    entries: Entries,
    traders: Traders,
    wallets: Wallets,
    assets: NDArray[np.int32],
    marks: NDArray[np.float64],
    barred: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Top accounts up to health 1.05 from the wallet, then from own accounts down to 1.25 there; all or nothing.

    A unit first repays debt in its own asset, then is deposited where the exchange takes it as collateral. ``assets``
    holds the asset of each market; barred accounts give nothing. Returns a log of moves with columns account, target
    entry, source entry (or -1 - wallet place), units repaid, units deposited; accounts that could not be helped are
    not in it.
    """
    log = np.empty((max(len(which), 16), 5))
    need = np.empty(2)  # weighted collateral and debt of the account as planned so far
    logged: Any = np.int64(0)  # of the type it keeps: a plain 0 would compile what it is handed to twice
    for place in range(len(which)):
        k = which[place]
        account = accounts[k]
        trader = traders[account.trader]
        log = _with_room(log, logged, trader, accounts)
        need[0], need[1] = weigh(account, entries, marks)
        planned = _plan_wallets(k, account, trader, logged, log, need, entries, wallets, assets, marks)
        if _short(need) and trader.withdraw:
            planned = _plan_accounts(k, trader, logged, planned, log, need, barred, accounts, entries, assets, marks)
        if _short(need):
            continue
        for p in range(logged, planned):
            _move(log[p], entries, wallets)
        logged = planned
    return log[:logged]


@kernel
def _short(need: NDArray[np.float64]) -> bool:
    """Whether collateral and debt are below the target health."""
    return bool(need[0] < ENOUGH * need[1])


@kernel
def _with_room(log: NDArray[np.float64], used: int, trader: Row, accounts: Accounts) -> NDArray[np.float64]:
    """Return the log, or a longer copy where what the trader can draw on, wallets and entries, might not fit."""
    wanted = used + trader.last_wallet - trader.first_wallet
    for i in range(trader.first, trader.last):
        account = accounts[accounts[i].of_trader]
        wanted += account.last - account.first
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
    account: Row,
    trader: Row,
    first: int,
    log: NDArray[np.float64],
    need: NDArray[np.float64],
    entries: Entries,
    wallets: Wallets,
    assets: NDArray[np.int32],
    marks: NDArray[np.float64],
) -> int:
    """Plan what comes from wallets, in their order, into the log from row ``first``; return the row after the last."""
    planned = first
    if not trader.top_up:
        return planned
    for w in range(trader.first_wallet, trader.last_wallet):
        if not _short(need):
            break
        e = _entry_of(account, wallets[w].asset, entries, assets)
        planned += _plan_move(k, e, -1 - w, wallets[w].units, first, planned, log, need, entries, marks) > 0.0
    return planned


@kernel
def _plan_accounts(
    k: int,
    trader: Row,
    first: int,
    planned: int,
    log: NDArray[np.float64],
    need: NDArray[np.float64],
    barred: NDArray[np.bool_],
    accounts: Accounts,
    entries: Entries,
    assets: NDArray[np.int32],
    marks: NDArray[np.float64],
) -> int:
    """Plan what comes from the owner's other accounts, the healthiest first; return the row after the last."""
    visited = np.zeros(trader.last - trader.first, dtype=np.bool_)
    while _short(need):
        donor = _healthiest(k, trader, visited, barred, accounts, entries, marks)
        if donor < 0:
            break
        planned = _plan_withdrawals(k, donor, first, planned, log, need, accounts, entries, assets, marks)
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
    assets: NDArray[np.int32],
    marks: NDArray[np.float64],
) -> int:
    """Plan what comes from one other account, its largest deposits first, as far as it stays at health 1.25."""
    giver = accounts[donor]
    backing, debt = weigh(giver, entries, marks)
    spare = backing - WITHDRAWAL_HEALTH * debt
    drawn = np.zeros(giver.last - giver.first, dtype=np.bool_)
    while _short(need):
        source = _largest_deposit(giver, drawn, entries, marks)
        if source < 0:
            break
        drawn[source - giver.first] = True
        entry = entries[source]
        units = entry.deposited
        weight = marks[entry.market] * entry.threshold if debt > 0.0 else 0.0
        if weight > 0.0:
            units = min(units, max(spare, 0.0) / weight)
        e = _entry_of(accounts[k], assets[entry.market], entries, assets)
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
    if e < 0 or units <= 0.0:
        return 0.0
    entry = entries[e]
    price = marks[entry.market]
    if price <= 0.0:
        return 0.0
    owed = entry.borrowed
    for p in range(first, planned):
        if log[p, 1] == e:
            owed -= log[p, 3]
    repaid = max(min(need[1] - need[0] / TARGET_HEALTH, units * price, owed * price), 0.0)
    need[1] -= repaid
    posted, factor = 0.0, entry.threshold
    if factor > 0.0 and _short(need):
        posted = min((TARGET_HEALTH * need[1] - need[0]) / factor, units * price - repaid)
        need[0] += posted * factor
    if repaid + posted <= 0.0:
        return 0.0
    log[planned, 0], log[planned, 1], log[planned, 2] = k, e, source
    log[planned, 3], log[planned, 4] = repaid / price, posted / price
    return float((repaid + posted) / price)


@kernel
def _largest_deposit(giver: Row, drawn: NDArray[np.bool_], entries: Entries, marks: NDArray[np.float64]) -> int:
    """Entry of the largest deposit of an account that was not drawn on yet; -1: none."""
    found, most = -1, 0.0
    for e in range(giver.first, giver.last):
        value = entries[e].deposited * marks[entries[e].market]
        if value > most and not drawn[e - giver.first]:
            found, most = e, value
    return found


@kernel
def _healthiest(
    k: int,
    trader: Row,
    visited: NDArray[np.bool_],
    barred: NDArray[np.bool_],
    accounts: Accounts,
    entries: Entries,
    marks: NDArray[np.float64],
) -> int:
    """Healthiest of the owner's accounts above 1.25 that can give to account k, by backing among equals; -1: none."""
    best, best_health, best_backing = -1, WITHDRAWAL_HEALTH, 0.0
    for i in range(len(visited)):
        other = accounts[trader.first + i].of_trader
        if visited[i] or other == k or barred[other]:
            continue
        backing, debt = weigh(accounts[other], entries, marks)
        health = backing / debt if debt > 0.0 else np.inf
        if health > best_health or (best >= 0 and health == best_health and backing > best_backing):
            best, best_health, best_backing = i, health, backing
    if best < 0:
        return -1
    visited[best] = True
    return int(accounts[trader.first + best].of_trader)


@kernel
def _entry_of(account: Row, asset: int, entries: Entries, assets: NDArray[np.int32]) -> int:
    """Entry of an account in an asset; -1: none."""
    for e in range(account.first, account.last):
        if assets[entries[e].market] == asset:
            return e
    return -1


@kernel
def _move(row: NDArray[np.float64], entries: Entries, wallets: Wallets) -> None:
    """Carry out one row of the log of ``respond``."""
    target, source, repaid, posted = entries[int(row[1])], int(row[2]), row[3], row[4]
    units = repaid + posted
    if source < 0:
        wallet = wallets[-1 - source]
        wallet.units = max(wallet.units - units, 0.0)
    else:
        entry = entries[source]
        entry.deposited = max(entry.deposited - units, 0.0)
    target.borrowed = max(target.borrowed - repaid, 0.0)
    target.deposited += posted
