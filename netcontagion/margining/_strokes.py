"""Accounts that end in one stroke: called, closed out in full by their exchange, and done, without ever having a seat.

Nobody answers for them, their books take whatever is sold, and what they still owe is written off: nothing about them
has to be kept but what every sale and purchase brought. The rest is worked out from that log when somebody asks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from netcontagion._arrays import group_sum
from netcontagion._compile import in_threads, kernel
from netcontagion.margining._forms import (
    CONSTANT_PRODUCT,
    EXPONENTIAL,
    LADDER,
    smooth_cash,
    smooth_fill,
    smooth_units,
)
from netcontagion.margining._posting import spans
from netcontagion.margining._state import DEFICIT, EXECUTION, MUTUALISATION
from netcontagion.margining._trading import side_of

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

    from netcontagion.margining._index import Index
    from netcontagion.margining._overlay import Overlay
    from netcontagion.margining._state import Books, Ledger, Live, Markets, Whole

__all__ = ["Slots", "Stroke", "Strokes", "Totals", "apply_strokes", "slots_of", "stroke_notes"]

MIX = 64  # accounts that end in one stroke for every other one that is called: with fewer, all get seats
PIECE = 4096  # accounts that one thread closes at a time at least: results do not depend on the number of threads
PIECES = 16  # and into how many pieces many accounts are cut
_MARKET = 1  # the route of exchanges that sell whole accounts on the market
_LAYERS = {"insurance_fund", "equity", "suppliers", "uncovered"}  # that need not know who left a hole
_SOLD, _PROCEEDS, _BOUGHT, _COST, _LOST, _GONE, _LEFT = range(7)  # rows of the totals by market


class Stroke(NamedTuple):
    """Accounts closed one after the other in one round, and what each side of their balances brought.

    ``place`` are their places in the index; slot by slot, ``units`` were sold of collateral or bought of a debt, for
    ``cash``. ``marks``, ``share`` and ``cut`` are those of the round.
    """

    number: int
    place: NDArray[np.int64]
    units: NDArray[np.float64]
    cash: NDArray[np.float64]
    marks: NDArray[np.float64]
    share: NDArray[np.float64]
    cut: NDArray[np.float64]


class Totals(NamedTuple):
    """What a stroke did: totals by market, events, accounts that traded, last sale by book and last loss."""

    by_market: NDArray[np.float64]
    sales: int
    purchases: int
    losses: int
    traded: int
    last_sale: NDArray[np.int64]
    last_loss: NDArray[np.int64]

    def money(self, marks: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """Add up what was sold, bought, repaid and lost, by market [num]."""
        total = self.by_market
        repaid, lost = total[_BOUGHT] * marks, total[_LOST] * marks
        return {"sold": total[_PROCEEDS], "bought": total[_COST], "repaid": repaid, "deficit": lost}


@kernel
def gather_places(
    begin: NDArray[Any],
    start: NDArray[np.int64],
    amount: NDArray[np.float64],
    slot: NDArray[Any],
    slot_market: NDArray[np.int32],
    slot_sells: NDArray[np.float64],
    owned: NDArray[np.float64],
    side: NDArray[Any],
    sold: NDArray[np.float64],
) -> None:
    """Copy amounts and slots of some accounts, one after the other, and add up what will be sold by market.

    Nothing that is copied decides where the next load is from: the processor need not wait for one to begin another.
    """
    size = len(begin)
    for i in range(size):
        shift = begin[i] - start[i]
        for k in range(np.uint64(start[i]), np.uint64(start[i + 1])):  # unsigned: no test for places from the end
            e = np.uint64(shift + k)
            owned[k], side[k] = amount[e], slot[e]
    for k in range(np.uint64(start[0]), np.uint64(start[size])):
        sold[slot_market[side[k]]] += owned[k] * slot_sells[side[k]]


@kernel
def close_places(
    start: NDArray[np.int64],
    owned: NDArray[np.float64],
    side: NDArray[Any],
    slot_market: NDArray[np.int32],
    slot_is_debt: NDArray[np.bool_],
    marks: NDArray[np.float64],
    share: NDArray[np.float64],
    markets: Markets,
    books: Books,
    met: NDArray[np.float64],
    units: NDArray[np.float64],
    cash: NDArray[np.float64],
    total: NDArray[np.float64],
    last_sale: NDArray[np.int64],
    last_loss: NDArray[np.int64],
) -> tuple[int, int, int, int]:
    """Do to accounts without a seat what ``close_whole`` and ``write_off`` do: sell, repay from the largest debt on.

    Their books end nowhere: forms without steps, or without impact. ``met`` is the net quantity on each book that the
    first account finds. Returns the numbers of sales, purchases, debts lost and accounts that traded.
    """
    book, bid, ask, depth, form, sold, left = _unfolded(markets, books, met)
    sales, purchases, losses, traded = 0, 0, 0, 0
    for i in range(len(start) - 1):
        purse, debts, before = 0.0, 0, sales
        d: Any = -1
        for k in range(np.uint64(start[i]), np.uint64(start[i + 1])):
            units[k], cash[k] = 0.0, 0.0
            m = np.uint64(slot_market[side[k]])
            if slot_is_debt[side[k]]:
                debts, d = debts + 1, np.int64(k)
                continue
            held = owned[k] * share[m]
            total[m, _GONE] += owned[k]
            total[m, _LEFT] += 1.0
            if held <= 0.0:
                continue
            q = book[m]
            if form[q] == EXPONENTIAL and held < 0.5 * depth[q] < np.inf:
                fall = left[q] * _fallen(held / depth[q])
                paid = bid[m] * depth[q] * fall
                sold[q] += held
                left[q] -= fall
            else:
                paid = smooth_cash(form[q], bid[m], sold[q], depth[q], held)
                sold[q] += held
                left[q] = _left(sold[q], depth[q])
            units[k], cash[k] = held, paid
            total[m, _SOLD] += held
            total[m, _PROCEEDS] += paid
            last_sale[q] = sales
            purse += paid
            sales += 1
        traded += sales > before
        for _ in range(debts):
            if debts > 1:
                d = _largest_debt(start[i], start[i + 1], owned, side, slot_market, slot_is_debt, marks, units)
            if d < 0 or purse <= 0.0 or owned[d] * marks[slot_market[side[d]]] <= 0.0:
                break
            m = np.uint64(slot_market[side[d]])
            q = book[m]
            bought, paid = owned[d], -smooth_cash(form[q], ask[m], sold[q], depth[q], -owned[d])
            if paid > purse:
                bought = min(bought, -smooth_units(form[q], ask[m], sold[q], depth[q], -purse))
                paid = -smooth_cash(form[q], ask[m], sold[q], depth[q], -bought)
            bought = -smooth_fill(form[q], sold[q], depth[q], -bought)
            units[d], cash[d] = bought, paid
            total[m, _BOUGHT] += bought
            total[m, _COST] += paid
            sold[q] -= bought
            left[q] = _left(sold[q], depth[q])
            purse -= paid
            purchases += 1
            if bought < owned[d]:  # the purse is empty
                break
        for k in range(np.uint64(start[i]), np.uint64(start[i + 1])):
            if slot_is_debt[side[k]] and units[k] < owned[k]:
                m = np.uint64(slot_market[side[k]])
                total[m, _LOST] += owned[k] - units[k]
                last_loss[m] = losses
                losses += 1
    return sales, purchases, losses, traded


@kernel
def _unfolded(markets: Markets, books: Books, met: NDArray[np.float64]) -> tuple[NDArray[Any], ...]:
    """Book, bid and ask of markets, and depth, form, net quantity and what is left of the price of books, as arrays."""
    size = len(markets)
    book, bid, ask = np.empty(size, np.uint64), np.empty(size), np.empty(size)
    for m in range(size):
        market = markets[m]
        book[m] = market.book
        bid[m] = market.shocked * side_of(True, books[market.book])
        ask[m] = market.shocked * side_of(False, books[market.book])
    depth, form, left = np.empty(len(met)), np.empty(len(met), np.int64), np.empty(len(met))
    for q in range(len(met)):
        depth[q], form[q], left[q] = books[q].depth, books[q].form, _left(met[q], books[q].depth)
    return book, bid, ask, depth, form, met.copy(), left


@kernel
def _left(sold: float, depth: float) -> float:
    """Return what is left of an exponential price."""
    return 1.0 if np.isinf(depth) else float(np.exp(-sold / depth))


@kernel
def _fallen(x: float) -> float:
    """1 - exp(-x): most sales are small, and a few terms exact."""
    if x < 1e-3:
        return x * (1.0 - x * (1 / 2 - x * (1 / 6 - x * (1 / 24 - x * (1 / 120)))))
    return float(-np.expm1(-x))


@kernel
def _largest_debt(
    first: int,
    last: int,
    owned: NDArray[np.float64],
    side: NDArray[Any],
    slot_market: NDArray[np.int32],
    slot_is_debt: NDArray[np.bool_],
    marks: NDArray[np.float64],
    units: NDArray[np.float64],
) -> int:
    """Largest debt of an account of which nothing was bought yet; -1 where there is none."""
    d, most = -1, 0.0
    for k in range(first, last):
        if slot_is_debt[side[k]] and units[k] == 0.0:
            owed = owned[k] * marks[slot_market[side[k]]]
            if owed > most:
                d, most = k, owed
    return d


@dataclass(eq=False)
class Strokes:
    """The accounts of one run that may end, or ended, in one stroke."""

    state: Live
    switches: Collection[str]

    def __post_init__(self) -> None:
        index = self.state.overlay.index
        most = 0 if "top_up" in self.switches else 1
        exchanges = np.zeros(len(index.segment_first), dtype=bool)
        if "liquidation" in self.switches:
            exchanges = self._closes_at_once()[self.state.markets.exchange[index.segment_first]]
        self.answers, self.exchanges, self.losses = most, exchanges, 0  # debts lost in a round
        self.edges = index.block_first[np.searchsorted(index.block_segment, np.arange(len(exchanges) + 1))]
        self.everybody = bool(exchanges.all()) and bool((index.answer <= most).all())
        self.apart = bool(np.isinf(self.state.books.depth[self.state.markets.book[index.as_debt]]).all())

    def _closes_at_once(self) -> NDArray[np.bool_]:
        """Exchanges that sell whole accounts, all of whose books take what is sold and sell what is wanted."""
        state, index = self.state, self.state.overlay.index
        books, markets, rules = state.books, state.markets, state.rules
        ends = ((books.form == LADDER) | (books.form == CONSTANT_PRODUCT)) & ~np.isinf(books.depth)
        stuck = ends[markets.book] | (index.as_collateral & (markets.sellable == 0))
        held_up = np.bincount(markets.exchange[stuck], minlength=len(rules)) > 0
        free = (
            np.isinf(rules.capacity) & np.isinf(rules.capacity_per_asset) & (rules.notice == 0) & (rules.cooldown == 0)
        )
        plain = np.array([set(state.layers_of(n)) <= _LAYERS for n in range(len(rules))], dtype=bool)
        return np.asarray((rules.route == _MARKET) & free & (rules.out == 0) & ~held_up & plain)

    def fits(self, places: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of these places, in rising order, hold accounts that would end in one stroke."""
        if self.everybody:
            return np.ones(len(places), dtype=bool)
        here = np.repeat(self.exchanges, np.diff(np.searchsorted(places, self.edges)))
        return np.asarray(here & (self.state.overlay.index.answer[places] <= self.answers))

    def close(self, places: NDArray[np.int64], marks: NDArray[np.float64], number: int) -> tuple[Stroke, Totals]:
        """Close the accounts at some places one after the other, post what that did, and note it.

        Where no purchase moves a price, what those before sold tells where an account finds its books: pieces of the
        accounts are closed side by side.
        """
        state, overlay = self.state, self.state.overlay
        index, share, pieces = overlay.index, overlay.share, _pieces(len(places))
        start, owned, side, sold = self._laid_out(places, pieces)
        if not self.apart:
            pieces, sold = [slice(0, len(places))], sold[:1]
        units, cash = np.empty((2, len(owned)))
        given = (owned, side, index.slot_market, index.slot_is_debt, marks, share, state.markets, state.books)

        def work(part: slice, met: NDArray[np.float64]) -> Totals:
            total, last_loss = np.zeros((len(marks), 7)), np.full(len(marks), -1)
            last_sale = np.full(len(met), -1)
            made = (units, cash, total, last_sale, last_loss)
            counts = close_places(start[part.start : part.stop + 1], *given, met, *made)
            return Totals(total.T, *counts, last_sale, last_loss)

        did = _added_up(in_threads(work, zip(pieces, self._met(sold), strict=True)))
        stroke = Stroke(number, places, units, cash, marks.copy(), share.copy(), overlay.cut.copy())
        overlay.strokes.append(stroke)
        overlay.cold -= did.by_market[_GONE]
        overlay.holders -= did.by_market[_LEFT].astype(np.int64)
        _advance(state.books, state.markets.book, did.by_market[_SOLD] - did.by_market[_BOUGHT])
        _post(state.ledger, did.by_market, marks, state.markets.exchange + state.n_traders)
        return stroke, did

    def _laid_out(self, places: NDArray[np.int64], pieces: list[slice]) -> tuple[NDArray[Any], ...]:
        """Where each account starts in them, amounts and slots one after the other, and units to sell by piece."""
        index, share = self.state.overlay.index, self.state.overlay.share
        begin, end = (np.take(index.first[n:], places, mode="clip") for n in (0, 1))
        start = np.zeros(len(places) + 1, dtype=np.int64)
        np.cumsum(end - begin, out=start[1:])
        owned, side = np.empty(start[-1]), np.empty(start[-1], dtype=index.slot.dtype)
        sold = np.zeros((len(pieces), len(share)))
        sells = np.where(index.slot_is_debt, 0.0, share[index.slot_market])
        table = (index.amount, index.slot, index.slot_market, sells, owned, side)

        def gather(part: slice, units: NDArray[np.float64]) -> None:
            gather_places(begin[part], start[part.start :], *table, units)

        in_threads(gather, zip(pieces, sold, strict=True))
        return start, owned, side, sold

    def _met(self, sold: NDArray[np.float64]) -> NDArray[np.float64]:
        """Net quantity on each book as each piece of the accounts finds it, when those before it have sold."""
        books, book = self.state.books, self.state.markets.book
        added = np.zeros((len(books), len(sold)))
        np.add.at(added, book, sold.T)
        return np.ascontiguousarray(books.sold + (np.cumsum(added, axis=1) - added).T)


def _pieces(size: int) -> list[slice]:
    step = max(PIECE, -(-size // PIECES))
    return [slice(low, min(low + step, size)) for low in range(0, size, step)]


def _advance(books: Any, book: NDArray[Any], net: NDArray[np.float64]) -> None:
    """Lead books on by net sales, by market."""
    units = group_sum(book, net, len(books))
    books["sold"] += units
    books["passing"] += (1.0 - books.permanent) * units


def _added_up(parts: list[Totals]) -> Totals:
    """Add up what pieces of a stroke did."""
    counts = np.array([part[1:5] for part in parts])
    last_sale = _last([part.last_sale for part in parts], counts[:, 0])
    last_loss = _last([part.last_loss for part in parts], counts[:, 2])
    sales, purchases, losses, traded = counts.sum(axis=0).tolist()
    by_market = np.sum([part.by_market for part in parts], axis=0)
    return Totals(by_market, sales, purchases, losses, traded, last_sale, last_loss)


def _last(found: list[NDArray[np.int64]], number: NDArray[np.int64]) -> NDArray[np.int64]:
    """Last of what each piece numbered from 0 on, in the numbers of the whole; -1: none."""
    last, before = np.array(found), (np.cumsum(number) - number)[:, None]
    return np.asarray(np.where(last >= 0, last + before, -1).max(axis=0))


def _post(ledger: Ledger, total: NDArray[np.float64], marks: NDArray[np.float64], bank: NDArray[Any]) -> None:
    """Post to market and exchanges what accounts sold, bought and lost."""
    net, cash = total[_SOLD] - total[_BOUGHT], float((total[_PROCEEDS] - total[_COST]).sum())
    value, lost = float(net @ marks), total[_LOST] * marks
    ledger.bought[: len(marks)] += net
    ledger.cash[-2] -= cash
    ledger.loss[EXECUTION, -2] -= value - cash
    ledger.flow[-2] += value
    ledger.hole[:] += total[_LOST]
    np.add.at(ledger.loss[DEFICIT], bank, lost)
    np.subtract.at(ledger.flow, bank, lost)


# afterwards -----------------------------------------------------------------------------------------------------------


class Slots(NamedTuple):
    """The sides of the balances of a stroke: place in the stroke, account, market, side, and what happened to them.

    ``lost`` are the units of a debt that nobody repaid, ``cut`` is what a deposit had lost as a supplier before [num].
    """

    row: NDArray[np.int64]
    account: NDArray[Any]
    market: NDArray[np.int32]
    is_debt: NDArray[np.bool_]
    units: NDArray[np.float64]
    cash: NDArray[np.float64]
    lost: NDArray[np.float64]
    cut: NDArray[np.float64]


def slots_of(stroke: Stroke, index: Index) -> Slots:
    """Lay out what a stroke did by side of a balance."""
    begin, end = (index.first[stroke.place + n].astype(np.int64) for n in (0, 1))
    rows, row = spans(begin, end)
    slot, amount = index.slot[rows], index.amount[rows]
    market, is_debt = index.slot_market[slot], index.slot_is_debt[slot]
    lost = np.where(is_debt, amount - stroke.units, 0.0)
    cut = np.where(is_debt, 0.0, amount * stroke.cut[market])
    account = index.order[stroke.place[row]]
    return Slots(row, account, market, is_debt, stroke.units, stroke.cash, lost, cut)


def stroke_notes(stroke: Stroke, index: Index) -> dict[str, NDArray[Any] | float]:
    """Work out for the accounts of a stroke what ``Play.notes`` holds for seats."""
    found = slots_of(stroke, index)
    mark, size = stroke.marks[found.market], len(stroke.place)
    sign = np.where(found.is_debt, -1.0, 1.0)
    return {
        "called": True,
        "liquidated": True,
        "topped_up": False,
        "first_round": stroke.number,
        "repaid": group_sum(found.row, np.where(found.is_debt, found.units * mark, 0.0), size),
        "deficit": group_sum(found.row, found.lost * mark, size),
        "inflow": -group_sum(found.row, sign * found.cash, size),
    }


def apply_strokes(whole: Whole, overlay: Overlay) -> None:
    """Post to the state of the whole network what accounts that never had a seat did and lost."""
    entries, ledger, n_markets = whole.entries, whole.ledger, len(whole.markets)
    key = entries.account.astype(np.int64) * n_markets + entries.market
    for stroke in overlay.strokes:
        found = slots_of(stroke, overlay.index)
        mark, trader = stroke.marks[found.market], whole.accounts.trader[found.account]
        rows = np.searchsorted(key, found.account.astype(np.int64) * n_markets + found.market)
        entries["deposited"][rows[~found.is_debt]] = 0.0
        entries["borrowed"][rows[found.is_debt]] = 0.0
        sign = np.where(found.is_debt, -1.0, 1.0)
        value, cash, lost = sign * found.units * mark, sign * found.cash, found.lost * mark
        for channel, loss in ((EXECUTION, value - cash), (DEFICIT, -lost), (MUTUALISATION, found.cut)):
            ledger.loss[channel, : whole.n_traders] += group_sum(trader, loss, whole.n_traders)
        ledger.flow[: whole.n_traders] += group_sum(trader, lost - value - found.cut, whole.n_traders)
        ledger.cash[: whole.n_traders] += group_sum(trader, cash, whole.n_traders)
