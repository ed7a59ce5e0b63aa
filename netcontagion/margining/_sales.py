"""Compiled loops over accounts that trade on books: liquidations and close-outs. Each sale is what the next one finds.

Rows of a table are handed on as one record each: every array that is handed on has to be compiled again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from netcontagion._compile import kernel
from netcontagion.margining._trading import buy_for, most_that_pays, taken, trade

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netcontagion.margining._state import Board, Entries, Ledger, Markets, Row
    from netcontagion.margining._trading import Levels

__all__ = ["close_whole", "liquidate"]

DUST = 1e-6  # a debt below this share of the account's opening debt is closed in full
LEAST = (
    1e-6  # share of what may be traded below which nobody trades: a book that comes back lets a little in every round
)
SLACK = 1e-12  # relative rounding that a threshold or a profit may miss by


# liquidation at a fixed spread --------------------------------------------------------------------------------------


@kernel
def liquidate(
    which: NDArray[np.int64], health: NDArray[np.float64], board: Board, marks: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Let liquidators repay debt for collateral at mark / (1 + bonus), one pair per account, in the given order.

    A liquidator buys the debt asset and sells the collateral on their books. Returns a log with columns account, debt
    entry, collateral entry, repaid units, seized units, fee units, cost of the debt asset, proceeds of the
    collateral, value repaid at marks.
    """
    accounts, entries, markets, books, rules = board.accounts, board.entries, board.markets, board.books, board.rules
    levels = board.levels
    ledger, first_bank = board.ledger, len(board.traders)
    liquidators, market_node = len(ledger.flow) - 3, len(ledger.flow) - 2
    penalties, execution, flow = ledger.loss[3], ledger.loss[2], ledger.flow
    log = np.empty((len(which), 9))
    logged = 0
    for place in range(len(which)):
        account = accounts[which[place]]
        d, c, bonus, owed = _pair(account, entries, markets, marks)
        if d < 0 or c < 0:
            continue
        debt, collateral = entries[d], entries[c]
        mc, md = collateral.market, debt.market
        market_c, market_d = markets[mc], markets[md]
        book_c, book_d, mark_c, mark_d = books[market_c.book], books[market_d.book], marks[mc], marks[md]
        rule = rules[account.exchange]
        repaid = _repayment(
            account,
            rule,
            debt.borrowed * mark_d,
            collateral.deposited * mark_c,
            owed,
            market_d.close_factor,
            bonus,
            health[place],
        )
        fee_share = market_c.fee * bonus
        same = market_c.book == market_d.book  # in one asset the bonus itself is the profit
        share = 1.0 + bonus - fee_share
        allowed = repaid
        if not (same or np.isnan(repaid) or rule.always):
            base_c, base_d = market_c.shocked, market_d.shocked
            repaid = most_that_pays(repaid, share, base_c, base_d, book_c, book_d, mark_c, mark_d, levels)
        repaid = _most_that_is_filled(repaid, share, same, book_c, book_d, mark_c, mark_d, levels)
        if repaid < LEAST * allowed:
            continue
        paid, seized, fee = _terms(repaid, debt, collateral, bonus, fee_share, mark_c, mark_d)
        if not paid > 0.0:
            continue
        sold, cost = seized - fee, 0.0
        if same:  # only the rest is sold
            _, proceeds = trade(market_c.shocked, sold - paid, book_c, levels)
        else:
            _, proceeds = trade(market_c.shocked, sold, book_c, levels)
            cost = -trade(market_d.shocked, -paid, book_d, levels)[1]
        collateral.deposited -= seized
        debt.borrowed -= paid
        ledger.fees[mc] += fee
        ledger.bought[mc] += sold
        ledger.bought[md] -= paid
        # penalty of the trader, fee of the exchange, profit and slippage of liquidators and market
        trader, bank, cash = account.trader, first_bank + account.exchange, proceeds - cost
        passed, fees, got = sold * mark_c, fee * mark_c, paid * mark_d
        penalty, slippage = fees + passed - got, (passed - got) - cash
        ledger.cash[liquidators] += cash
        ledger.cash[market_node] -= cash
        penalties[trader] += penalty
        flow[trader] -= penalty
        penalties[bank] -= fees
        flow[bank] += fees
        penalties[liquidators] -= passed - got
        execution[liquidators] += slippage
        execution[market_node] -= slippage
        flow[market_node] += passed - got
        log[logged, 0], log[logged, 1], log[logged, 2] = which[place], d, c
        log[logged, 3], log[logged, 4], log[logged, 5] = paid, seized, fee
        log[logged, 6], log[logged, 7], log[logged, 8] = cost, proceeds, got
        logged += 1
    return log[:logged]


@kernel
def _pair(
    account: Row, entries: Entries, markets: Markets, marks: NDArray[np.float64]
) -> tuple[int, int, float, float]:
    """Entry of the largest debt, entry of the collateral with the highest bonus (by value among equals), that bonus.

    Values that are equal up to rounding count as equal: the first one, by asset, is taken. The last one returned is the
    debt in all assets [num].
    """
    own, total = account.bonus, 0.0
    d, c, most_debt, most_bonus, most_collateral = -1, -1, 0.0, -1.0, 0.0
    for e in range(account.first, account.last):
        entry = entries[e]
        market, mark = markets[entry.market], marks[entry.market]
        owed, value = entry.borrowed * mark, entry.deposited * mark
        total += owed
        if owed > most_debt * (1.0 + SLACK):
            d, most_debt = e, owed
        if value > 0.0 and entry.threshold > 0.0 and market.sellable:
            bonus = market.bonus if np.isnan(own) else own
            if bonus > most_bonus or (bonus == most_bonus and value > most_collateral * (1.0 + SLACK)):
                c, most_bonus, most_collateral = e, bonus, value
    return d, c, most_bonus, total


@kernel
def _repayment(
    account: Row,
    rule: Row,
    debt: float,
    collateral: float,
    owed: float,
    close_factor: float,
    bonus: float,
    health: float,
) -> float:
    """Debt that the rulebook lets one liquidation repay [num]; ``owed`` is the debt of the account in all assets."""
    factor = rule.close_factor if np.isnan(close_factor) else close_factor
    full = (
        account.forced != 0
        or health <= rule.full_below_health * (1.0 + SLACK)
        or min(debt, collateral) < rule.full_below_value * (1.0 - SLACK)
        or debt <= DUST * account.opening_debt
    )
    base = owed if rule.position_base else debt
    allowed = debt if full else min(debt, factor * base)
    repaid = min(allowed, collateral / (1.0 + bonus))
    left_debt, left_collateral = debt - repaid, collateral - repaid * (1.0 + bonus)
    least = rule.minimum_leftover
    if left_debt > SLACK * debt and left_collateral > SLACK * collateral and min(left_debt, left_collateral) < least:
        repaid = max(min(repaid, debt - least, (collateral - least) / (1.0 + bonus)), 0.0)
    return float(repaid)


@kernel
def _most_that_is_filled(
    repaid: float,
    share: float,
    same: bool,
    book_c: Row,
    book_d: Row,
    mark_c: float,
    mark_d: float,
    levels: Levels,
) -> float:
    """Debt of which the books take both trades of a liquidator [num]; in one asset only the rest is sold."""
    part = (share - 1.0 if same else share) / mark_c
    sold = part * repaid
    filled = taken(sold, book_c, levels)
    if filled < sold:
        repaid = filled / part
    if same:
        return repaid
    bought = repaid / mark_d
    filled = -taken(-bought, book_d, levels)
    return filled * mark_d if filled < bought else repaid


@kernel
def _terms(
    repaid: float, debt: Row, collateral: Row, bonus: float, fee_share: float, mark_c: float, mark_d: float
) -> tuple[float, float, float]:
    """Units of debt repaid, units of collateral seized and the fee out of them; all 0 where nobody liquidates."""
    owed, spread = debt.borrowed * mark_d, 1.0 + bonus
    if not repaid > SLACK * owed:
        return 0.0, 0.0, 0.0
    paid = debt.borrowed if repaid >= owed * (1.0 - SLACK) else repaid / mark_d
    seized = repaid * spread / mark_c
    if repaid * spread >= collateral.deposited * mark_c * (1.0 - SLACK):
        seized = collateral.deposited
    return paid, seized, seized * fee_share / spread


# close-out of whole accounts ----------------------------------------------------------------------------------------


@kernel
def close_whole(which: NDArray[np.int64], board: Board, marks: NDArray[np.float64]) -> NDArray[np.float64]:
    """Let the exchange sell all collateral of each account on the market, repay its debts and return the rest in cash.

    What a book does not take stays in the account, and so does cash that waits for a debt nobody sells. Returns a log
    with columns account, entry, kind (0 sale, 1 purchase), units, cash.
    """
    accounts, entries, markets = board.accounts, board.entries, board.markets
    books, ledger, levels = board.books, board.ledger, board.levels
    size = 0
    for place in range(len(which)):
        size += accounts[which[place]].last - accounts[which[place]].first
    log = np.empty((2 * size, 5))
    logged = 0
    for place in range(len(which)):
        account = accounts[which[place]]
        purse, waiting = account.waiting, 0.0
        for e in range(account.first, account.last):
            entry = entries[e]
            market = markets[entry.market]
            if entry.deposited <= 0.0 or entry.threshold <= 0.0 or not market.sellable:
                continue
            book = books[market.book]
            if taken(entry.deposited, book, levels) < LEAST * entry.deposited:
                continue
            units, cash = trade(market.shocked, entry.deposited, book, levels)
            _post(account.trader, entry.market, units, cash, marks[entry.market], ledger)
            entry.deposited -= units
            log[logged, 0], log[logged, 1], log[logged, 2] = which[place], e, 0.0
            log[logged, 3], log[logged, 4] = units, cash
            purse += cash
            logged += 1
        for _ in range(account.last - account.first):  # the largest debt first, as far as the cash goes
            e = _largest_debt(account, entries, marks)
            if e < 0 or purse <= 0.0:
                break
            entry = entries[e]
            market, owed = markets[entry.market], entry.borrowed
            book = books[market.book]
            supply = -taken(-owed, book, levels)
            if supply < LEAST * owed:
                waiting = 1.0
                break
            units, cash = buy_for(market.shocked, owed, purse, book, levels)
            if supply < owed and -units >= supply * (1.0 - SLACK):  # the book ends before the cash
                waiting = 1.0
            _post(account.trader, entry.market, units, cash, marks[entry.market], ledger)
            entry.borrowed += units
            log[logged, 0], log[logged, 1], log[logged, 2] = which[place], e, 1.0
            log[logged, 3], log[logged, 4] = abs(units), abs(cash)
            purse += cash
            logged += 1
        ledger.cash[account.trader] += purse - account.waiting
        account.waiting = waiting * max(purse, 0.0)
    return log[:logged]


@kernel
def _post(trader: int, m: int, units: float, cash: float, mark: float, ledger: Ledger) -> None:
    """Post units sold (bought, where negative) by a trader for cash."""
    market_node = len(ledger.flow) - 2
    value = units * mark
    ledger.bought[m] += units
    ledger.cash[market_node] -= cash
    ledger.loss[2, trader] += value - cash
    ledger.flow[trader] -= value
    ledger.loss[2, market_node] -= value - cash
    ledger.flow[market_node] += value


@kernel
def _largest_debt(account: Row, entries: Entries, marks: NDArray[np.float64]) -> int:
    """Entry of the largest debt of an account; -1: none."""
    found, most = -1, 0.0
    for e in range(account.first, account.last):
        owed = entries[e].borrowed * marks[entries[e].market]
        if owed > most:
            found, most = e, owed
    return found
