"""Compiled loops over accounts. Each is sequential by nature: what one account does is what the next one finds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from netcontagion._compile import kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netcontagion.margining._state import Accounts, Board, Books, Entries, Markets

__all__ = [
    "TARGET_HEALTH",
    "WITHDRAWAL_HEALTH",
    "account_health",
    "cash_for",
    "close_whole",
    "liquidate",
    "respond",
    "units_for",
    "write_off",
]

TARGET_HEALTH = 1.05  # a called account is topped up to this health
WITHDRAWAL_HEALTH = 1.25  # margin is pulled from other accounts down to this health
DUST = 1e-6  # a debt below this share of the account's opening debt is closed in full
GONE = 1e-12  # collateral below this share of the account's opening debt is no collateral
SLACK = 1e-12  # relative rounding that a target, a threshold or a profit may miss by


# prices -------------------------------------------------------------------------------------------------------------


@kernel
def cash_for(base: float, sold: float, depth: float, units: float) -> float:
    """Cash for selling units (paid for buying them, where negative): the integral of base exp(-Q / depth) over Q."""
    if np.isinf(depth):
        return base * units
    if abs(units) < depth:
        return float(-base * np.exp(-sold / depth) * depth * np.expm1(-units / depth))
    return float(base * depth * (np.exp(-sold / depth) - np.exp(-(sold + units) / depth)))


@kernel
def units_for(base: float, sold: float, depth: float, cash: float) -> float:
    """Units whose sale brings the cash (bought for it, where negative): the inverse of ``cash_for``."""
    if np.isinf(depth):
        return cash / base
    share = cash / (base * depth)
    price = np.exp(-sold / depth)
    if abs(share) < 0.5 * price:
        return float(-depth * np.log1p(-share / price))
    return float(-depth * np.log(price - share) - sold)


@kernel
def trade(m: int, units: float, markets: Markets, books: Books) -> float:
    """Sell units (buy, where negative) on the book of a market; return the cash."""
    b = markets.book[m]
    cash = cash_for(markets.shocked[m], books.sold[b], books.depth[b], units)
    books.sold[b] += units
    return cash


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
    accounts, entries, traders, wallets = board.accounts, board.entries, board.traders, board.wallets
    responded = np.zeros(len(which), dtype=np.bool_)
    log = np.empty((max(len(which), 16), 5))
    logged = 0
    enough = TARGET_HEALTH * (1.0 - SLACK)
    for place in range(len(which)):
        k = which[place]
        trader = accounts.trader[k]
        if board.rules.out[accounts.exchange[k]] or accounts.forced[k]:
            continue
        backing, debt = weigh(k, accounts, entries, marks)
        planned = logged
        wallet = traders.first_wallet[trader]
        last_wallet = traders.last_wallet[trader] if traders.top_up[trader] else wallet
        n_own = traders.last[trader] - traders.first[trader] if traders.withdraw[trader] else 0
        visited = np.zeros(n_own, dtype=np.bool_)
        drawn = np.zeros(0, dtype=np.bool_)  # entries of the donor that were looked at
        donor, spare, donor_debt, source = -1, 0.0, 0.0, 0
        while backing < enough * debt:
            # the next source: wallets in their order, then the largest deposit of the healthiest other account
            weight = 0.0
            if wallet < last_wallet:
                source = -1 - wallet
                asset, units = wallets.asset[wallet], wallets.units[wallet]
                wallet += 1
            else:
                source = -1
                if donor >= 0:
                    source = _largest_deposit(donor, drawn, accounts, entries, marks)
                if source < 0:
                    donor = _healthiest(k, trader, visited, board, marks, called)
                    if donor < 0:
                        break
                    own_backing, donor_debt = weigh(donor, accounts, entries, marks)
                    spare = own_backing - WITHDRAWAL_HEALTH * donor_debt
                    drawn = np.zeros(accounts.last[donor] - accounts.first[donor], dtype=np.bool_)
                    continue
                drawn[source - accounts.first[donor]] = True
                asset, units = board.markets.asset[entries.market[source]], entries.deposited[source]
                if donor_debt > 0.0:
                    weight = marks[entries.market[source]] * entries.threshold[source]
                if weight > 0.0:
                    units = min(units, max(spare, 0.0) / weight)
            e = _entry_of(k, asset, board)
            price = marks[entries.market[e]] if e >= 0 else 0.0
            if units <= 0.0 or price <= 0.0:
                continue
            owed = entries.borrowed[e]
            for p in range(logged, planned):
                if log[p, 1] == e:
                    owed -= log[p, 3]
            repaid = max(min(debt - backing / TARGET_HEALTH, units * price, owed * price), 0.0)
            debt -= repaid
            posted, factor = 0.0, entries.threshold[e]
            if factor > 0.0 and backing < enough * debt:
                posted = min((TARGET_HEALTH * debt - backing) / factor, units * price - repaid)
                backing += posted * factor
            if repaid + posted <= 0.0:
                continue
            spare -= (repaid + posted) / price * weight
            if planned == len(log):
                longer = np.empty((2 * len(log), 5))
                for p in range(planned):  # a slice assigned as a whole takes two seconds to compile
                    for column in range(5):
                        longer[p, column] = log[p, column]
                log = longer
            log[planned, 0] = k
            log[planned, 1] = e
            log[planned, 2] = source
            log[planned, 3] = repaid / price
            log[planned, 4] = posted / price
            planned += 1
        if backing < enough * debt or planned == logged:
            continue
        responded[place] = True
        for p in range(logged, planned):
            _move(p, log, board, marks, prices)
        logged = planned
    return responded, log[:logged]


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
    trader: int,
    visited: NDArray[np.bool_],
    board: Board,
    marks: NDArray[np.float64],
    called: NDArray[np.bool_],
) -> int:
    """Healthiest account of a trader above 1.25 that can give to account k, by backing among equals; -1: none."""
    accounts, first = board.accounts, board.traders.first[trader]
    best, best_health, best_backing = -1, WITHDRAWAL_HEALTH, 0.0
    for i in range(len(visited)):
        other = accounts.of_trader[first + i]
        if visited[i] or other == k or called[other] or board.rules.out[accounts.exchange[other]]:
            continue
        backing, debt = weigh(other, accounts, board.entries, marks)
        health = backing / debt if debt > 0.0 else np.inf
        if health > best_health or (best >= 0 and health == best_health and backing > best_backing):
            best, best_health, best_backing = i, health, backing
    if best < 0:
        return -1
    visited[best] = True
    return int(accounts.of_trader[first + best])


@kernel
def _entry_of(k: int, asset: int, board: Board) -> int:
    """Entry of an account in an asset; -1: none."""
    for e in range(board.accounts.first[k], board.accounts.last[k]):
        if board.markets.asset[board.entries.market[e]] == asset:
            return e
    return -1


@kernel
def _move(
    p: int, log: NDArray[np.float64], board: Board, marks: NDArray[np.float64], prices: NDArray[np.float64]
) -> None:
    """Carry out one row of the log of ``respond``; what moves between marks gains or loses on the way."""
    entries, wallets = board.entries, board.wallets
    trader = board.accounts.trader[int(log[p, 0])]
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
    board.ledger.loss[2, trader] -= gain
    board.ledger.flow[trader] += gain


# liquidation --------------------------------------------------------------------------------------------------------


@kernel
def liquidate(
    which: NDArray[np.int64], health: NDArray[np.float64], board: Board, marks: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Let liquidators repay debt for collateral at mark / (1 + bonus), one pair per account, in the given order.

    A liquidator buys the debt asset and sells the collateral on their books. Returns a log with columns account, debt
    entry, collateral entry, repaid units, seized units, fee units, cost of the debt asset, proceeds of the
    collateral, value repaid at marks.
    """
    accounts, entries, markets, ledger = board.accounts, board.entries, board.markets, board.ledger
    n_traders = len(board.traders.first)
    liquidators, market_node = len(ledger.flow) - 3, len(ledger.flow) - 2
    log = np.empty((len(which), 9))
    logged = 0
    for place in range(len(which)):
        k = which[place]
        if board.rules.out[accounts.exchange[k]]:
            continue
        d, c, bonus = _pair(k, board, marks)
        if d < 0 or c < 0:
            continue
        mc, md = entries.market[c], entries.market[d]
        spread, fee_share = 1.0 + bonus, markets.fee[mc] * bonus
        repaid = _repayment(k, d, c, bonus, health[place], board, marks)
        debt, collateral = entries.borrowed[d] * marks[md], entries.deposited[c] * marks[mc]
        if not np.isnan(repaid):
            repaid = min(repaid, _most_that_pays(mc, md, spread - fee_share, board, marks))
        if not repaid > SLACK * debt:
            continue
        paid = entries.borrowed[d] if repaid >= debt * (1.0 - SLACK) else repaid / marks[md]
        seized = repaid * spread / marks[mc]
        if repaid * spread >= collateral * (1.0 - SLACK):
            seized = entries.deposited[c]
        fee = seized * fee_share / spread
        sold = seized - fee
        cost = 0.0
        if markets.book[mc] == markets.book[md]:
            proceeds = trade(mc, sold - paid, markets, board.books)
        else:
            proceeds = trade(mc, sold, markets, board.books)
            cost = -trade(md, -paid, markets, board.books)
        entries.deposited[c] -= seized
        entries.borrowed[d] -= paid
        trader, bank = accounts.trader[k], n_traders + accounts.exchange[k]
        fee_value, passed, got = fee * marks[mc], sold * marks[mc], paid * marks[md]
        penalty, slippage = fee_value + passed - got, (passed - got) - (proceeds - cost)
        ledger.fees[mc] += fee
        ledger.bought[mc] += sold
        ledger.bought[md] -= paid
        ledger.cash[liquidators] += proceeds - cost
        ledger.cash[market_node] -= proceeds - cost
        ledger.loss[3, trader] += penalty
        ledger.flow[trader] -= penalty
        ledger.loss[3, bank] -= fee_value
        ledger.flow[bank] += fee_value
        ledger.loss[3, liquidators] -= passed - got
        ledger.loss[2, liquidators] += slippage
        ledger.loss[2, market_node] -= slippage
        ledger.flow[market_node] += passed - got
        log[logged, 0] = k
        log[logged, 1] = d
        log[logged, 2] = c
        log[logged, 3] = paid
        log[logged, 4] = seized
        log[logged, 5] = fee
        log[logged, 6] = cost
        log[logged, 7] = proceeds
        log[logged, 8] = got
        logged += 1
    return log[:logged]


@kernel
def _pair(k: int, board: Board, marks: NDArray[np.float64]) -> tuple[int, int, float]:
    """Entry of the largest debt, entry of the collateral with the highest bonus (by value among equals), that bonus.

    Values that are equal up to rounding count as equal: the first one, by asset, is taken.
    """
    entries, markets, own = board.entries, board.markets, board.accounts.bonus[k]
    d, c, most_debt, most_bonus, most_collateral = -1, -1, 0.0, -1.0, 0.0
    for e in range(board.accounts.first[k], board.accounts.last[k]):
        m = entries.market[e]
        owed, value = entries.borrowed[e] * marks[m], entries.deposited[e] * marks[m]
        if owed > most_debt * (1.0 + SLACK):
            d, most_debt = e, owed
        if value > 0.0 and entries.threshold[e] > 0.0 and markets.sellable[m]:
            bonus = markets.bonus[m] if np.isnan(own) else own
            if bonus > most_bonus or (bonus == most_bonus and value > most_collateral * (1.0 + SLACK)):
                c, most_bonus, most_collateral = e, bonus, value
    return d, c, most_bonus


@kernel
def _repayment(k: int, d: int, c: int, bonus: float, health: float, board: Board, marks: NDArray[np.float64]) -> float:
    """Debt that the rulebook lets one liquidation repay [num]."""
    accounts, entries, rules = board.accounts, board.entries, board.rules
    venue, md = accounts.exchange[k], entries.market[d]
    debt, collateral = entries.borrowed[d] * marks[md], entries.deposited[c] * marks[entries.market[c]]
    factor = board.markets.close_factor[md]
    if np.isnan(factor):
        factor = rules.close_factor[venue]
    full = (
        accounts.forced[k] != 0
        or health <= rules.full_below_health[venue] * (1.0 + SLACK)
        or min(debt, collateral) < rules.full_below_value[venue] * (1.0 - SLACK)
        or debt <= DUST * accounts.opening_debt[k]
    )
    base = weigh(k, accounts, entries, marks)[1] if rules.position_base[venue] else debt
    allowed = debt if full else min(debt, factor * base)
    repaid = min(allowed, collateral / (1.0 + bonus))
    left_debt, left_collateral = debt - repaid, collateral - repaid * (1.0 + bonus)
    least = rules.minimum_leftover[venue]
    if left_debt > SLACK * debt and left_collateral > SLACK * collateral and min(left_debt, left_collateral) < least:
        repaid = max(min(repaid, debt - least, (collateral - least) / (1.0 + bonus)), 0.0)
    return float(repaid)


@kernel
def _most_that_pays(mc: int, md: int, share: float, board: Board, marks: NDArray[np.float64]) -> float:
    """Debt whose repayment still pays at the margin [num]; -1 where none does.

    The margin of the r-th unit of money is share x p_c exp(-q / D_c) / M_c - p_d exp(u / D_d) / M_d, with
    q = share x r / M_c units sold and u = r / M_d units bought: the log of the ratio of the two is linear in r.
    """
    markets, books = board.markets, board.books
    bc, bd = markets.book[mc], markets.book[md]
    if bc == bd or board.rules.always[markets.exchange[mc]]:  # in one asset the bonus itself is the profit
        return np.inf
    edge = np.log(share * (markets.shocked[mc] / marks[mc]) / (markets.shocked[md] / marks[md]))
    edge += books.sold[bd] / books.depth[bd] - books.sold[bc] / books.depth[bc]
    slope = share / marks[mc] / books.depth[bc] + 1.0 / marks[md] / books.depth[bd]
    if edge < -SLACK:
        return -1.0
    return max(edge, 0.0) / slope if slope > 0.0 else np.inf


@kernel
def close_whole(which: NDArray[np.int64], board: Board, marks: NDArray[np.float64]) -> NDArray[np.float64]:
    """Let the exchange sell all collateral of each account on the market, repay its debts and return the rest in cash.

    Returns a log with columns account, entry, kind (0 sale, 1 purchase), units, cash.
    """
    accounts, entries, markets, ledger = board.accounts, board.entries, board.markets, board.ledger
    market_node = len(ledger.flow) - 2
    size = 0
    for place in range(len(which)):
        size += accounts.last[which[place]] - accounts.first[which[place]]
    log = np.empty((2 * size, 5))
    logged = 0
    for place in range(len(which)):
        k = which[place]
        if board.rules.out[accounts.exchange[k]]:
            continue
        trader, first, last = accounts.trader[k], accounts.first[k], accounts.last[k]
        purse = 0.0
        for step in range(2 * (last - first)):
            # first every entry is sold, then the largest debt is repaid, and so on
            buying = step >= last - first
            if buying:
                e = _largest_debt(k, accounts, entries, marks)
                if e < 0 or purse <= 0.0:
                    break
            else:
                e = first + step
            m = entries.market[e]
            if buying:
                b = markets.book[m]
                price, sold, depth = markets.shocked[m], board.books.sold[b], board.books.depth[b]
                units = -entries.borrowed[e]
                if not -cash_for(price, sold, depth, units) <= purse:
                    units = max(units, units_for(price, sold, depth, -purse))
            else:
                units = entries.deposited[e]
                if units <= 0.0 or entries.threshold[e] <= 0.0 or not markets.sellable[m]:
                    continue
            cash = trade(m, units, markets, board.books)  # units sold, negative where bought
            purse += cash
            if buying:
                entries.borrowed[e] += units
            else:
                entries.deposited[e] = 0.0
            value = units * marks[m]
            ledger.bought[m] += units
            ledger.cash[market_node] -= cash
            ledger.loss[2, trader] += value - cash
            ledger.flow[trader] -= value
            ledger.loss[2, market_node] -= value - cash
            ledger.flow[market_node] += value
            log[logged, 0] = k
            log[logged, 1] = e
            log[logged, 2] = buying
            log[logged, 3] = abs(units)
            log[logged, 4] = abs(cash)
            logged += 1
        ledger.cash[trader] += purse
    return log[:logged]


@kernel
def _largest_debt(k: int, accounts: Accounts, entries: Entries, marks: NDArray[np.float64]) -> int:
    """Entry of the largest debt of an account; -1: none."""
    found, most = -1, 0.0
    for e in range(accounts.first[k], accounts.last[k]):
        owed = entries.borrowed[e] * marks[entries.market[e]]
        if owed > most:
            found, most = e, owed
    return found


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
