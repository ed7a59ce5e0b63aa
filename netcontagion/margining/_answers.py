"""Compiled loops over accounts that touch no book: health, and answers of owners.

Rows of a table are handed on as one record each: every array that is handed on has to be compiled again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion._compile import kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netcontagion.margining._state import Accounts, Entries, Markets, Row, Traders, Wallets

__all__ = ["TARGET_HEALTH", "WITHDRAWAL_HEALTH", "account_health", "respond"]

TARGET_HEALTH = 1.05  # a called account is topped up to this health
WITHDRAWAL_HEALTH = 1.25  # margin is pulled from other accounts down to this health
SLACK = 1e-12  # relative rounding that the target may miss by
LENDING, MARGIN, PORTFOLIO = range(3)  # how an account is tested; with PORTFOLIO the margin is the worst scenario's


# health -------------------------------------------------------------------------------------------------------------


@kernel
def weigh(account: Row, entries: Entries, markets: Markets, marks: NDArray[np.float64]) -> tuple[float, float]:
    """Weigh what backs an account against what it must back [num]; health is their ratio.

    Lending: collateral weighted by its thresholds, and debt. Margin: equity after haircuts, and maintenance margin;
    gains and margin of positions are those of the round.
    """
    backing, debt = account.gains, account.required
    for e in range(account.first, account.last):
        entry = entries[e]
        price = marks[entry.market]
        backing += entry.deposited * price * entry.threshold
        if account.test == LENDING:
            debt += entry.borrowed * price
        else:
            backing -= entry.borrowed * price
            if account.test == MARGIN:
                market = markets[entry.market]
                debt += (entry.deposited * market.long + entry.borrowed * market.short) * price
    return backing, debt


@kernel
def account_health(
    which: NDArray[np.int64], accounts: Accounts, entries: Entries, markets: Markets, marks: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Health of some accounts, +inf where nothing is to be backed, and the market of the largest collateral (or -1)."""
    health = np.empty(len(which))
    largest = np.empty(len(which), np.int64)
    for place in range(len(which)):
        account = accounts[which[place]]
        backing, debt = weigh(account, entries, markets, marks)
        most, found = 0.0, -1
        for e in range(account.first, account.last):
            weighted = entries[e].deposited * marks[entries[e].market] * entries[e].threshold
            if weighted > most:
                most, found = weighted, entries[e].market
        health[place] = backing / debt if debt > 0.0 else np.inf
        largest[place] = found
    return health, largest


# answers of traders -------------------------------------------------------------------------------------------------


@kernel
def respond(
    which: NDArray[np.int64],
    accounts: Accounts,
    entries: Entries,
    traders: Traders,
    wallets: Wallets,
    markets: Markets,
    marks: NDArray[np.float64],
    barred: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Top accounts up to health 1.05 from the wallet, then from own accounts down to 1.25 there; all or nothing.

    A unit first repays debt in its own asset, then is deposited where the exchange takes it as collateral. Barred
    accounts give nothing. Returns a log of moves with columns account, target
    entry, source entry (or -1 - wallet place), units repaid, units deposited; accounts that could not be helped are
    not in it.
    """
    log = np.empty((max(len(which), 16), 5))
    need = np.empty(3)  # backing of the account as planned so far, what it must back, and the size of its backing
    logged: Any = np.int64(0)  # of the type it keeps: a plain 0 would compile what it is handed to twice
    for place in range(len(which)):
        k = which[place]
        account = accounts[k]
        trader = traders[account.trader]
        log = _with_room(log, logged, trader, accounts)
        need[0], need[1] = weigh(account, entries, markets, marks)
        need[2] = abs(need[0])
        planned = _plan_wallets(k, account, trader, logged, log, need, entries, wallets, markets, marks)
        if _short(need) and trader.withdraw:
            planned = _plan_accounts(k, trader, logged, planned, log, need, barred, accounts, entries, markets, marks)
        if _short(need):
            continue
        for p in range(logged, planned):
            _move(log[p], entries, wallets)
        logged = planned
    return log[:logged]


@kernel
def _short(need: NDArray[np.float64]) -> bool:
    """Whether backing is below the target health, beyond the rounding of what it was or must be."""
    wanted = TARGET_HEALTH * need[1]
    return bool(need[0] < wanted - SLACK * max(wanted, need[2]))


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
    markets: Markets,
    marks: NDArray[np.float64],
) -> int:
    """Plan what comes from wallets, in their order, into the log from row ``first``; return the row after the last."""
    planned = first
    if not trader.top_up:
        return planned
    for w in range(trader.first_wallet, trader.last_wallet):
        if not _short(need):
            break
        e = _entry_of(account, wallets[w].asset, entries, markets)
        planned += (
            _plan_move(account, k, e, -1 - w, wallets[w].units, first, planned, log, need, entries, markets, marks)
            > 0.0
        )
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
    markets: Markets,
    marks: NDArray[np.float64],
) -> int:
    """Plan what comes from the owner's other accounts, the healthiest first; return the row after the last."""
    visited = np.zeros(trader.last - trader.first, dtype=np.bool_)
    while _short(need):
        donor = _healthiest(k, trader, visited, barred, accounts, entries, markets, marks)
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
    giver = accounts[donor]
    backing, debt = weigh(giver, entries, markets, marks)
    spare = backing - WITHDRAWAL_HEALTH * debt
    drawn = np.zeros(giver.last - giver.first, dtype=np.bool_)
    while _short(need):
        source = _largest_deposit(giver, drawn, entries, marks)
        if source < 0:
            break
        drawn[source - giver.first] = True
        entry = entries[source]
        units = entry.deposited
        weight = 0.0
        if debt > 0.0 or giver.test != LENDING:  # what a unit that leaves takes off the spare backing
            tied = markets[entry.market].long if giver.test == MARGIN else 0.0
            weight = marks[entry.market] * (entry.threshold - WITHDRAWAL_HEALTH * tied)
        if weight > 0.0:
            units = min(units, max(spare, 0.0) / weight)
        e = _entry_of(accounts[k], markets[entry.market].asset, entries, markets)
        moved = _plan_move(accounts[k], k, e, source, units, first, planned, log, need, entries, markets, marks)
        planned += moved > 0.0
        spare -= moved * weight
    return planned


@kernel
def _plan_move(
    account: Row,
    k: int,
    e: int,
    source: int,
    units: float,
    first: int,
    planned: int,
    log: NDArray[np.float64],
    need: NDArray[np.float64],
    entries: Entries,
    markets: Markets,
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
    gained, freed, tied = (
        0.0,
        1.0,
        0.0,
    )  # by money repaid: backing, and what must be backed; by money posted: the latter
    if account.test != LENDING:
        gained, freed = 1.0, 0.0
    if account.test == MARGIN:
        freed, tied = markets[entry.market].short, markets[entry.market].long
    missing = TARGET_HEALTH * need[1] - need[0]
    repaid = max(min(missing / (gained + TARGET_HEALTH * freed), units * price, owed * price), 0.0)
    need[0] += repaid * gained
    need[1] -= repaid * freed
    posted, factor = 0.0, entry.threshold
    if factor - TARGET_HEALTH * tied > 0.0 and _short(need):
        posted = min((TARGET_HEALTH * need[1] - need[0]) / (factor - TARGET_HEALTH * tied), units * price - repaid)
        need[0] += posted * factor
        need[1] += posted * tied
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
    markets: Markets,
    marks: NDArray[np.float64],
) -> int:
    """Healthiest of the owner's accounts above 1.25 that can give to account k, by backing among equals; -1: none."""
    best, best_health, best_backing = -1, WITHDRAWAL_HEALTH, 0.0
    for i in range(len(visited)):
        other = accounts[trader.first + i].of_trader
        if visited[i] or other == k or barred[other]:
            continue
        backing, debt = weigh(accounts[other], entries, markets, marks)
        health = backing / debt if debt > 0.0 else np.inf
        if health > best_health or (best >= 0 and health == best_health and backing > best_backing):
            best, best_health, best_backing = i, health, backing
    if best < 0:
        return -1
    visited[best] = True
    return int(accounts[trader.first + best].of_trader)


@kernel
def _entry_of(account: Row, asset: int, entries: Entries, markets: Markets) -> int:
    """Entry of an account in an asset; -1: none."""
    for e in range(account.first, account.last):
        if markets[entries[e].market].asset == asset:
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
