"""Compiled loops over accounts that touch no book: health, and what owners plan to move into called accounts.

Rows of a table are handed on as one record each: every array that is handed on has to be compiled again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from netcontagion._compile import kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netcontagion.margining._state import Accounts, Board, Entries, Markets, Row, Wallets

__all__ = [
    "account_health",
    "entry_of",
    "log_with_room",
    "move",
    "need_of",
    "plan_accounts",
    "plan_wallets",
    "plan_withdrawals",
    "short",
    "weigh",
    "worth_of_help",
]

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
    """Health of some accounts, and the market of the largest collateral (or -1).

    Where nothing is to be backed health is +inf, but -inf of a margin account that owes more than it has.
    """
    health = np.empty(len(which))
    largest = np.empty(len(which), np.int64)
    for place in range(len(which)):
        account = accounts[which[place]]
        backing, debt = weigh(account, entries, markets, marks)
        most, found, owed = 0.0, -1, 0.0
        for e in range(account.first, account.last):
            weighted = entries[e].deposited * marks[entries[e].market] * entries[e].threshold
            owed += entries[e].borrowed * marks[entries[e].market]
            if weighted > most:
                most, found = weighted, entries[e].market
        health[place] = backing / debt if debt > 0.0 else -np.inf if backing < -SLACK * owed else np.inf
        largest[place] = found
    return health, largest


# answers of traders -------------------------------------------------------------------------------------------------


@kernel
def need_of(
    account: Row,
    trader: Row,
    entries: Entries,
    markets: Markets,
    marks: NDArray[np.float64],
    need: NDArray[np.float64],
) -> None:
    """Write into ``need`` what backs an account and what it must back once all in transit has come.

    Then the target health, and the size of the backing.
    """
    backing, debt = weigh(account, entries, markets, marks)
    for e in range(account.first, account.last):
        entry = entries[e]
        if entry.coming > 0.0:
            gained, freed, tied = worth_of_help(account, entry.market, markets)
            repaid = min(entry.coming, entry.borrowed) * marks[entry.market]
            posted = entry.coming * marks[entry.market] - repaid
            backing += repaid * gained + posted * entry.threshold
            debt += posted * tied - repaid * freed
    need[0], need[1], need[2], need[3] = backing, debt, trader.target, abs(backing)


@kernel
def worth_of_help(account: Row, m: int, markets: Markets) -> tuple[float, float, float]:
    """By money repaid: what is gained in backing and freed of what must be backed; by money posted: what it ties up."""
    if account.test == LENDING:
        return 0.0, 1.0, 0.0
    if account.test == MARGIN:
        return 1.0, markets[m].short, markets[m].long
    return 1.0, 0.0, 0.0


@kernel
def short(need: NDArray[np.float64]) -> bool:
    """Whether backing is below the target health, beyond the rounding of what it was or must be."""
    wanted = need[2] * need[1]
    return bool(need[0] < wanted - SLACK * max(wanted, need[3]))


@kernel
def log_with_room(log: NDArray[np.float64], used: int, trader: Row, accounts: Accounts) -> NDArray[np.float64]:
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
def plan_wallets(
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
        if not short(need):
            break
        e = entry_of(account, wallets[w].asset, entries, markets)
        planned += (
            _plan_move(account, k, e, -1 - w, wallets[w].units, first, planned, log, need, entries, markets, marks)
            > 0.0
        )
    return planned


@kernel
def plan_accounts(
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
    while short(need):
        donor = _healthiest(k, trader, visited, barred, accounts, entries, markets, marks)
        if donor < 0:
            break
        planned = plan_withdrawals(k, donor, trader.keep, first, planned, log, need, accounts, entries, markets, marks)
    return planned


@kernel
def plan_withdrawals(
    k: int,
    donor: int,
    keep: float,
    first: int,
    planned: int,
    log: NDArray[np.float64],
    need: NDArray[np.float64],
    accounts: Accounts,
    entries: Entries,
    markets: Markets,
    marks: NDArray[np.float64],
) -> int:
    """Plan what comes from one other account, its largest deposits first, as far as it stays at a health."""
    giver = accounts[donor]
    backing, debt = weigh(giver, entries, markets, marks)
    spare = backing - keep * debt
    drawn = np.zeros(giver.last - giver.first, dtype=np.bool_)
    while short(need):
        source = _largest_deposit(giver, drawn, entries, marks)
        if source < 0:
            break
        drawn[source - giver.first] = True
        entry = entries[source]
        units = entry.deposited
        weight = 0.0
        if debt > 0.0 or giver.test != LENDING:  # what a unit that leaves takes off the spare backing
            tied = markets[entry.market].long if giver.test == MARGIN else 0.0
            weight = marks[entry.market] * (entry.threshold - keep * tied)
        if weight > 0.0:
            units = min(units, max(spare, 0.0) / weight)
        e = entry_of(accounts[k], markets[entry.market].asset, entries, markets)
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
    owed = max(entry.borrowed - entry.coming, 0.0)
    for p in range(first, planned):
        if log[p, 1] == e:
            owed -= log[p, 3]
    gained, freed, tied = worth_of_help(account, entry.market, markets)
    missing = need[2] * need[1] - need[0]
    repaid = max(min(missing / (gained + need[2] * freed), units * price, owed * price), 0.0)
    need[0] += repaid * gained
    need[1] -= repaid * freed
    posted, factor = 0.0, entry.threshold
    if factor - need[2] * tied > 0.0 and short(need):
        posted = min((need[2] * need[1] - need[0]) / (factor - need[2] * tied), units * price - repaid)
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
    """Healthiest of the owner's accounts that can give to account k, by backing among equals; -1: none."""
    best, best_health, best_backing = -1, trader.keep, 0.0
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
def entry_of(account: Row, asset: int, entries: Entries, markets: Markets) -> int:
    """Entry of an account in an asset; -1: none."""
    for e in range(account.first, account.last):
        if markets[entries[e].market].asset == asset:
            return e
    return -1


@kernel
def move(row: NDArray[np.float64], board: Board) -> None:
    """Carry out one row of a plan; what leaves a gated exchange is in transit first."""
    target, source, repaid, posted = board.entries[int(row[1])], int(row[2]), row[3], row[4]
    units = repaid + posted
    if source < 0:
        wallet = board.wallets[-1 - source]
        wallet.units = max(wallet.units - units, 0.0)
    else:
        entry = board.entries[source]
        entry.deposited = max(entry.deposited - units, 0.0)
        if board.rules[board.accounts[entry.account].exchange].gated:
            target.coming += units
            return
    target.borrowed = max(target.borrowed - repaid, 0.0)
    target.deposited += posted
