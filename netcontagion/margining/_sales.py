"""Compiled loops over accounts that trade on books: liquidations and close-outs. Each sale is what the next one finds.

Kernels call kernels of their own module only: a cached one does not notice that another module changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from netcontagion._compile import kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netcontagion.margining._state import Accounts, Board, Books, Entries, Ledger, Markets, Rules

__all__ = ["cash_for", "close_whole", "liquidate", "units_for"]

DUST = 1e-6  # a debt below this share of the account's opening debt is closed in full
SLACK = 1e-12  # relative rounding that a threshold or a profit may miss by


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
    accounts, entries, markets, rules = board.accounts, board.entries, board.markets, board.rules
    books, ledger, n_traders = board.books, board.ledger, len(board.traders.first)
    log = np.empty((len(which), 9))
    logged = 0
    for place in range(len(which)):
        k = which[place]
        if rules.out[accounts.exchange[k]]:
            continue
        d, c, bonus = _pair(k, accounts, entries, markets, marks)
        if d < 0 or c < 0:
            continue
        paid, seized, fee = _terms(k, d, c, bonus, health[place], accounts, entries, markets, books, rules, marks)
        if not paid > 0.0:
            continue
        mc, md, sold = entries.market[c], entries.market[d], seized - fee
        cost, proceeds = _trade_pair(mc, md, sold, paid, markets, books)
        entries.deposited[c] -= seized
        entries.borrowed[d] -= paid
        ledger.fees[mc] += fee
        ledger.bought[mc] += sold
        ledger.bought[md] -= paid
        values = (sold * marks[mc], fee * marks[mc], paid * marks[md])
        _post_pair(accounts.trader[k], n_traders + accounts.exchange[k], values, proceeds - cost, ledger)
        log[logged, 0], log[logged, 1], log[logged, 2] = k, d, c
        log[logged, 3], log[logged, 4], log[logged, 5] = paid, seized, fee
        log[logged, 6], log[logged, 7], log[logged, 8] = cost, proceeds, paid * marks[md]
        logged += 1
    return log[:logged]


@kernel
def _terms(
    k: int,
    d: int,
    c: int,
    bonus: float,
    health: float,
    accounts: Accounts,
    entries: Entries,
    markets: Markets,
    books: Books,
    rules: Rules,
    marks: NDArray[np.float64],
) -> tuple[float, float, float]:
    """Units of debt repaid, units of collateral seized and the fee out of them; all 0 where nobody liquidates."""
    mc, md = entries.market[c], entries.market[d]
    spread, fee_share = 1.0 + bonus, markets.fee[mc] * bonus
    debt, collateral = entries.borrowed[d] * marks[md], entries.deposited[c] * marks[mc]
    repaid = _repayment(k, d, c, bonus, health, accounts, entries, markets, rules, marks)
    if not (np.isnan(repaid) or rules.always[markets.exchange[mc]]):
        repaid = min(repaid, _most_that_pays(mc, md, spread - fee_share, markets, books, marks))
    if not repaid > SLACK * debt:
        return 0.0, 0.0, 0.0
    paid = entries.borrowed[d] if repaid >= debt * (1.0 - SLACK) else repaid / marks[md]
    seized = repaid * spread / marks[mc]
    if repaid * spread >= collateral * (1.0 - SLACK):
        seized = entries.deposited[c]
    return paid, seized, seized * fee_share / spread


@kernel
def _trade_pair(mc: int, md: int, sold: float, paid: float, markets: Markets, books: Books) -> tuple[float, float]:
    """Buy the debt asset and sell the collateral; return cost and proceeds. In one asset only the rest is sold."""
    if markets.book[mc] == markets.book[md]:
        return 0.0, trade(mc, sold - paid, markets, books)
    proceeds = trade(mc, sold, markets, books)
    return -trade(md, -paid, markets, books), proceeds


@kernel
def _post_pair(trader: int, bank: int, values: tuple[float, float, float], cash: float, ledger: Ledger) -> None:
    """Post a liquidation: penalty of the trader, fee of the exchange, profit and slippage of liquidators and market.

    ``values`` holds the collateral passed on, the fee and the debt repaid, at marks; ``cash`` is what trading brought.
    """
    liquidators, market_node = len(ledger.flow) - 3, len(ledger.flow) - 2
    passed, fee, got = values
    penalty, slippage = fee + passed - got, (passed - got) - cash
    ledger.cash[liquidators] += cash
    ledger.cash[market_node] -= cash
    ledger.loss[3, trader] += penalty
    ledger.flow[trader] -= penalty
    ledger.loss[3, bank] -= fee
    ledger.flow[bank] += fee
    ledger.loss[3, liquidators] -= passed - got
    ledger.loss[2, liquidators] += slippage
    ledger.loss[2, market_node] -= slippage
    ledger.flow[market_node] += passed - got


@kernel
def _pair(
    k: int, accounts: Accounts, entries: Entries, markets: Markets, marks: NDArray[np.float64]
) -> tuple[int, int, float]:
    """Entry of the largest debt, entry of the collateral with the highest bonus (by value among equals), that bonus.

    Values that are equal up to rounding count as equal: the first one, by asset, is taken.
    """
    own = accounts.bonus[k]
    d, c, most_debt, most_bonus, most_collateral = -1, -1, 0.0, -1.0, 0.0
    for e in range(accounts.first[k], accounts.last[k]):
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
def _repayment(
    k: int,
    d: int,
    c: int,
    bonus: float,
    health: float,
    accounts: Accounts,
    entries: Entries,
    markets: Markets,
    rules: Rules,
    marks: NDArray[np.float64],
) -> float:
    """Debt that the rulebook lets one liquidation repay [num]."""
    venue, md = accounts.exchange[k], entries.market[d]
    debt, collateral = entries.borrowed[d] * marks[md], entries.deposited[c] * marks[entries.market[c]]
    factor = markets.close_factor[md]
    if np.isnan(factor):
        factor = rules.close_factor[venue]
    full = (
        accounts.forced[k] != 0
        or health <= rules.full_below_health[venue] * (1.0 + SLACK)
        or min(debt, collateral) < rules.full_below_value[venue] * (1.0 - SLACK)
        or debt <= DUST * accounts.opening_debt[k]
    )
    base = _total_debt(k, accounts, entries, marks) if rules.position_base[venue] else debt
    allowed = debt if full else min(debt, factor * base)
    repaid = min(allowed, collateral / (1.0 + bonus))
    left_debt, left_collateral = debt - repaid, collateral - repaid * (1.0 + bonus)
    least = rules.minimum_leftover[venue]
    if left_debt > SLACK * debt and left_collateral > SLACK * collateral and min(left_debt, left_collateral) < least:
        repaid = max(min(repaid, debt - least, (collateral - least) / (1.0 + bonus)), 0.0)
    return float(repaid)


@kernel
def _total_debt(k: int, accounts: Accounts, entries: Entries, marks: NDArray[np.float64]) -> float:
    """Debt of an account in all assets [num]."""
    debt = 0.0
    for e in range(accounts.first[k], accounts.last[k]):
        debt += entries.borrowed[e] * marks[entries.market[e]]
    return debt


@kernel
def _most_that_pays(
    mc: int, md: int, share: float, markets: Markets, books: Books, marks: NDArray[np.float64]
) -> float:
    """Debt whose repayment still pays at the margin [num]; -1 where none does.

    The margin of the r-th unit of money is share x p_c exp(-q / D_c) / M_c - p_d exp(u / D_d) / M_d, with
    q = share x r / M_c units sold and u = r / M_d units bought: the log of the ratio of the two is linear in r.
    """
    bc, bd = markets.book[mc], markets.book[md]
    if bc == bd:  # in one asset the bonus itself is the profit
        return np.inf
    edge = np.log(share * (markets.shocked[mc] / marks[mc]) / (markets.shocked[md] / marks[md]))
    edge += books.sold[bd] / books.depth[bd] - books.sold[bc] / books.depth[bc]
    slope = share / marks[mc] / books.depth[bc] + 1.0 / marks[md] / books.depth[bd]
    if edge < -SLACK:
        return -1.0
    return max(edge, 0.0) / slope if slope > 0.0 else np.inf


# close-out of whole accounts ----------------------------------------------------------------------------------------


@kernel
def close_whole(which: NDArray[np.int64], board: Board, marks: NDArray[np.float64]) -> NDArray[np.float64]:
    """Let the exchange sell all collateral of each account on the market, repay its debts and return the rest in cash.

    Returns a log with columns account, entry, kind (0 sale, 1 purchase), units, cash.
    """
    accounts, entries, markets, rules = board.accounts, board.entries, board.markets, board.rules
    books, ledger = board.books, board.ledger
    size = 0
    for place in range(len(which)):
        size += accounts.last[which[place]] - accounts.first[which[place]]
    log = np.empty((2 * size, 5))
    logged = 0
    for place in range(len(which)):
        k = which[place]
        if rules.out[accounts.exchange[k]]:
            continue
        logged, purse = _sell_deposits(k, logged, log, accounts, entries, markets, books, ledger, marks)
        logged, purse = _repay_debts(k, purse, logged, log, accounts, entries, markets, books, ledger, marks)
        ledger.cash[accounts.trader[k]] += purse
    return log[:logged]


@kernel
def _sell_deposits(
    k: int,
    logged: int,
    log: NDArray[np.float64],
    accounts: Accounts,
    entries: Entries,
    markets: Markets,
    books: Books,
    ledger: Ledger,
    marks: NDArray[np.float64],
) -> tuple[int, float]:
    """Sell every deposit that counts as collateral; return the length of the log, and the cash."""
    purse = 0.0
    for e in range(accounts.first[k], accounts.last[k]):
        m, units = entries.market[e], entries.deposited[e]
        if units <= 0.0 or entries.threshold[e] <= 0.0 or not markets.sellable[m]:
            continue
        cash = _trade_for(accounts.trader[k], m, units, markets, books, ledger, marks)
        entries.deposited[e] = 0.0
        log[logged, 0], log[logged, 1], log[logged, 2] = k, e, 0.0
        log[logged, 3], log[logged, 4] = units, cash
        purse += cash
        logged += 1
    return logged, purse


@kernel
def _repay_debts(
    k: int,
    purse: float,
    logged: int,
    log: NDArray[np.float64],
    accounts: Accounts,
    entries: Entries,
    markets: Markets,
    books: Books,
    ledger: Ledger,
    marks: NDArray[np.float64],
) -> tuple[int, float]:
    """Repay the largest debt, then the next, as far as the cash goes; return the length of the log, and the rest."""
    for _ in range(accounts.last[k] - accounts.first[k]):
        e = _largest_debt(k, accounts, entries, marks)
        if e < 0 or purse <= 0.0:
            break
        m = entries.market[e]
        b = markets.book[m]
        price, sold, depth = markets.shocked[m], books.sold[b], books.depth[b]
        units = -entries.borrowed[e]
        if not -cash_for(price, sold, depth, units) <= purse:
            units = max(units, units_for(price, sold, depth, -purse))
        cash = _trade_for(accounts.trader[k], m, units, markets, books, ledger, marks)
        entries.borrowed[e] += units
        log[logged, 0], log[logged, 1], log[logged, 2] = k, e, 1.0
        log[logged, 3], log[logged, 4] = abs(units), abs(cash)
        purse += cash
        logged += 1
    return logged, purse


@kernel
def _trade_for(
    trader: int, m: int, units: float, markets: Markets, books: Books, ledger: Ledger, marks: NDArray[np.float64]
) -> float:
    """Sell units (buy, where negative) for a trader and post it; return the cash."""
    market_node = len(ledger.flow) - 2
    cash = trade(m, units, markets, books)
    value = units * marks[m]
    ledger.bought[m] += units
    ledger.cash[market_node] -= cash
    ledger.loss[2, trader] += value - cash
    ledger.flow[trader] -= value
    ledger.loss[2, market_node] -= value - cash
    ledger.flow[market_node] += value
    return cash


@kernel
def _largest_debt(k: int, accounts: Accounts, entries: Entries, marks: NDArray[np.float64]) -> int:
    """Entry of the largest debt of an account; -1: none."""
    found, most = -1, 0.0
    for e in range(accounts.first[k], accounts.last[k]):
        owed = entries.borrowed[e] * marks[entries.market[e]]
        if owed > most:
            found, most = e, owed
    return found
