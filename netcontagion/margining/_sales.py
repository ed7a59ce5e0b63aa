"""Compiled loops over accounts that trade on books: liquidations and close-outs. Each sale is what the next one finds.

Rows of a table are handed on as one record each: every array that is handed on has to be compiled again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from netcontagion._compile import kernel
from netcontagion.margining._trading import asked, buy_for, cash_of, most_that_pays, taken, trade, units_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netcontagion.margining._state import Board, Entries, Ledger, Lots, Markets, Row
    from netcontagion.margining._trading import Levels

__all__ = ["award", "close_whole", "liquidate", "place_bids", "sell_units", "take"]

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

    A liquidator buys the debt asset and sells the collateral on their books; all of them together within the money
    they have and what may be in liquidation. Returns a log with columns account, debt entry, collateral entry, repaid
    units, seized units, fee units, cost of the debt asset, proceeds of the collateral, value repaid at marks.
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
        rule = rules[account.exchange]
        d, c, bonus, owed = _pair(account, rule.collateral_order, entries, markets, marks)
        if d < 0 or c < 0:
            continue
        debt, collateral = entries[d], entries[c]
        mc, md = collateral.market, debt.market
        market_c, market_d = markets[mc], markets[md]
        book_c, book_d, mark_c, mark_d = books[market_c.book], books[market_d.book], marks[mc], marks[md]
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
        repaid = min(repaid, rule.room, market_c.room)
        fee_share = market_c.fee * bonus
        same = market_c.book == market_d.book  # in one asset the bonus itself is the profit
        share = 1.0 + bonus - fee_share
        allowed = repaid
        if not (same or np.isnan(repaid) or rule.always):
            base_c, base_d = market_c.shocked, market_d.shocked
            repaid = most_that_pays(repaid, share, base_c, base_d, book_c, book_d, mark_c, mark_d, levels)
        repaid = _most_that_is_filled(repaid, share, same, book_c, book_d, mark_c, mark_d, levels)
        if not same and rule.left < np.inf:
            repaid = min(repaid, -units_of(market_d.shocked, -rule.left, book_d, levels) * mark_d)
        if repaid < min(allowed, LEAST * max(allowed, account.opening_debt)):
            if repaid > 0.0 and not np.isnan(book_c.common):  # whoever is left a crumb leaves no room to the others
                book_c.refused += (share - 1.0 if same else share) * repaid / mark_c
                book_d.refused -= 0.0 if same else repaid / mark_d
            continue
        paid, seized, fee = _terms(repaid, debt, collateral, bonus, fee_share, mark_c, mark_d)
        if not (paid > 0.0 and _pays(paid, seized - fee, rule, market_c, market_d, board)):
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
        trader, bank, cash = account.trader, first_bank + account.exchange, proceeds - cost - rule.gas
        passed, fees, got = sold * mark_c, fee * mark_c, paid * mark_d
        rule.left, rule.room, market_c.room = rule.left - cost, rule.room - got, market_c.room - got
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
def _pays(paid: float, sold: float, rule: Row, market_c: Row, market_d: Row, board: Board) -> bool:
    """Whether a purchase of the debt and a sale of the collateral bring what gas costs."""
    if rule.always or not rule.gas > 0.0:
        return True
    book_c, book_d = board.books[market_c.book], board.books[market_d.book]
    if market_c.book == market_d.book:
        return bool(cash_of(market_c.shocked, sold - paid, book_c, board.levels) >= rule.gas)
    brought = cash_of(market_c.shocked, sold, book_c, board.levels)
    return bool(brought + cash_of(market_d.shocked, -paid, book_d, board.levels) >= rule.gas)


@kernel
def _pair(
    account: Row, order: int, entries: Entries, markets: Markets, marks: NDArray[np.float64]
) -> tuple[int, int, float, float]:
    """Entry of the largest debt, entry of the collateral that goes first (by value among equals), its bonus.

    Order 0 takes the highest bonus first, 1 the largest value, 2 what helps health most: the lowest threshold x (1 +
    bonus). Values that are equal up to rounding count as equal: the first one, by asset, is taken. The last one
    returned is the debt in all assets [num].
    """
    own, total = account.bonus, 0.0
    d, c, most_debt, chosen, highest, most_collateral = -1, -1, 0.0, 0.0, -np.inf, 0.0
    for e in range(account.first, account.last):
        entry = entries[e]
        market, mark = markets[entry.market], marks[entry.market]
        owed, value = entry.borrowed * mark, entry.deposited * mark
        total += owed
        if owed > most_debt * (1.0 + SLACK):
            d, most_debt = e, owed
        if value > 0.0 and entry.threshold > 0.0 and market.sellable:
            bonus = market.bonus if np.isnan(own) else own
            score = bonus
            if order > 0:
                score = -entry.threshold * (1.0 + bonus) if order == 2 else 0.0
            if score > highest or (score == highest and value > most_collateral * (1.0 + SLACK)):
                c, chosen, highest, most_collateral = e, bonus, score, value
    return d, c, chosen, total


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
        or rule.whole_account != 0
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
def close_whole(
    which: NDArray[np.int64], share: NDArray[np.float64], board: Board, marks: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Let the exchange sell a share of the collateral of each account, repay its debts and return the rest in cash.

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
            wanted, market = entry.deposited * share[place], markets[entry.market]
            if wanted <= 0.0 or entry.threshold <= 0.0 or not market.sellable:
                continue
            book = books[market.book]
            units = asked(wanted, book, levels)
            if units < LEAST * wanted:
                continue
            units, cash = trade(market.shocked, units, book, levels)
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
            if -units < min(owed, supply):  # the purse is empty
                break
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


# what exchanges took over and sell ----------------------------------------------------------------------------------


@kernel
def take(offers: NDArray[np.int64], lots: Lots, board: Board, marks: NDArray[np.float64]) -> NDArray[np.float64]:
    """Let buyers take from lots at their price, as far as it pays at the margin, one lot after the other.

    A buyer buys the debt asset and sells the collateral on their books; all of them together within the money they
    have, and within what the exchange still wants. Returns a log with columns lot, units taken, units paid, proceeds
    of the collateral, cost of the debt asset.
    """
    log = np.empty((len(offers), 5))
    logged = 0
    for place in range(len(offers)):
        lot = lots[offers[place]]
        rule, market_c, market_d = board.rules[lot.exchange], board.markets[lot.collateral], board.markets[lot.debt]
        book_c, book_d = board.books[market_c.book], board.books[market_d.book]
        mark_c, mark_d, price, levels = marks[lot.collateral], marks[lot.debt], lot.price, board.levels
        if not (mark_c > 0.0 and mark_d > 0.0 and lot.units > 0.0):
            continue
        paid, got = 0.0, lot.units
        if price > 0.0:
            due = allowed = min(lot.units * price, lot.tab * mark_d, rule.wanted)
            if market_c.book != market_d.book:
                base_c, base_d = market_c.shocked, market_d.shocked
                if not rule.always:
                    due = most_that_pays(due, mark_c / price, base_c, base_d, book_c, book_d, mark_c, mark_d, levels)
                if rule.left < np.inf:
                    due = min(due, -units_of(base_d, -rule.left, book_d, levels) * mark_d)
                due = min(due, taken(lot.units, book_c, levels) * price, -taken(-lot.tab, book_d, levels) * mark_d)
            elif not rule.always and price > mark_c * (1.0 + SLACK):
                continue
            if due < min(allowed, LEAST * lot.opened * max(mark_d, market_d.shocked)):
                continue
            if not due > SLACK * lot.opened * mark_d:
                continue
            paid = lot.tab if due >= lot.tab * mark_d * (1.0 - SLACK) else due / mark_d
            got = lot.units if due >= lot.units * price * (1.0 - SLACK) else due / price
            if not _pays(paid, got, rule, market_c, market_d, board):
                continue
            rule.wanted -= due
        elif not _pays(paid, got, rule, market_c, market_d, board):
            continue
        proceeds, cost = _swap(got, paid, market_c, market_d, board)
        rule.left -= cost
        lot.units -= got
        lot.tab -= paid
        log[logged, 0], log[logged, 1], log[logged, 2] = offers[place], got, paid
        log[logged, 3], log[logged, 4] = proceeds, cost
        logged += 1
    return log[:logged]


@kernel
def _swap(got: float, paid: float, market_c: Row, market_d: Row, board: Board) -> tuple[float, float]:
    """Sell collateral and buy the debt asset on their books; return proceeds and cost."""
    book_c, book_d = board.books[market_c.book], board.books[market_d.book]
    if market_c.book == market_d.book:  # only the difference is traded
        return trade(market_c.shocked, got - paid, book_c, board.levels)[1], 0.0
    proceeds = trade(market_c.shocked, got, book_c, board.levels)[1]
    return proceeds, -trade(market_d.shocked, -paid, book_d, board.levels)[1] if paid > 0.0 else 0.0


@kernel
def place_bids(
    offers: NDArray[np.int64],
    lots: Lots,
    board: Board,
    money: NDArray[np.float64],
    increase: NDArray[np.float64],
    number: int,
) -> NDArray[np.int64]:
    """Let bidders bid for lots what these bring on the book, within their money; return the lots with a new bid.

    The bid rises up to the tab; then the units asked for fall. A bid must beat the last one by ``increase`` or reach
    the tab. ``money`` is what the bidders of each exchange have beside their standing bids, and falls by these.
    """
    found = np.empty(len(offers), np.int64)
    count = 0
    for place in range(len(offers)):
        lot = lots[offers[place]]
        rule, market_c, market_d = board.rules[lot.exchange], board.markets[lot.collateral], board.markets[lot.debt]
        purse = money[lot.exchange] + lot.stake
        if market_c.book == market_d.book:
            offer, asked, stake = min(lot.tab, lot.units), min(lot.tab, lot.units), 0.0
        else:
            offer, asked, stake = _best_bid(lot, rule, purse, market_c, market_d, board)
        if offer < 0.0 or not _beats(offer, asked, lot, 1.0 + increase[lot.exchange]):
            continue
        money[lot.exchange] = purse - stake
        lot.bid, lot.asked, lot.stake, lot.bid_round = offer, asked, stake, number
        found[count] = offers[place]
        count += 1
    return found[:count]


@kernel
def _best_bid(
    lot: Row, rule: Row, purse: float, market_c: Row, market_d: Row, board: Board
) -> tuple[float, float, float]:
    """Debt units bid, collateral units asked for and money that takes; a bid below 0 where nobody bids."""
    gas = 0.0 if rule.always else rule.gas
    book_c, book_d, levels = board.books[market_c.book], board.books[market_d.book], board.levels
    worth = cash_of(market_c.shocked, lot.units, book_c, levels) - gas
    whole = -cash_of(market_d.shocked, -lot.tab, book_d, levels)
    if worth < 0.0:
        return -1.0, 0.0, 0.0
    spent = purse if rule.always else min(worth, purse)
    if spent < whole * (1.0 - SLACK):
        spent = max(spent, 0.0)
        return -units_of(market_d.shocked, -spent, book_d, levels), lot.units, spent
    if rule.always or worth <= whole * (1.0 + SLACK):
        return lot.tab, lot.units, whole
    return lot.tab, min(units_of(market_c.shocked, whole + gas, book_c, levels), lot.units), whole


@kernel
def _beats(offer: float, asked: float, lot: Row, rise: float) -> bool:
    """Whether a bid may follow the last one: the first bid, one that is higher, or one that asks for less."""
    if lot.bid_round < 0:
        return True
    if lot.bid < lot.tab:
        return bool(offer >= rise * lot.bid * (1.0 - SLACK) and offer > lot.bid) or bool(offer == lot.tab)
    return bool(offer == lot.tab and asked * rise <= lot.asked * (1.0 + SLACK) and asked < lot.asked)


@kernel
def award(winners: NDArray[np.int64], lots: Lots, board: Board) -> NDArray[np.float64]:
    """Hand lots to their last bidders, who trade on the books; return a log as ``take`` does."""
    log = np.empty((len(winners), 5))
    for place in range(len(winners)):
        lot = lots[winners[place]]
        market_c, market_d = board.markets[lot.collateral], board.markets[lot.debt]
        got, paid = lot.asked, lot.bid
        if market_c.book != market_d.book:  # no more than the books take by now
            share = taken(got, board.books[market_c.book], board.levels) / got if got > 0.0 else 1.0
            if paid > 0.0:
                share = min(share, -taken(-paid, board.books[market_d.book], board.levels) / paid)
            got, paid = share * got, share * paid
        log[place, 0], log[place, 1], log[place, 2] = winners[place], got, paid
        log[place, 3], log[place, 4] = _swap(got, paid, market_c, market_d, board)
        lot.units -= got
        lot.tab -= paid
    return log


@kernel
def sell_units(market: NDArray[np.int64], units: NDArray[np.float64], board: Board) -> NDArray[np.float64]:
    """Sell units of markets on their books, one after the other; return the cash of each."""
    cash = np.empty(len(market))
    for place in range(len(market)):
        row = board.markets[market[place]]
        cash[place] = trade(row.shocked, units[place], board.books[row.book], board.levels)[1]
    return cash
