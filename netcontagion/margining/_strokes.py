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
from netcontagion.margining._forms import CONSTANT_PRODUCT, LADDER
from netcontagion.margining._posting import spans
from netcontagion.margining._state import DEFICIT, EXECUTION, MUTUALISATION
from netcontagion.margining._trading import buy_for, trade

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

    from netcontagion.margining._index import Index
    from netcontagion.margining._overlay import Overlay
    from netcontagion.margining._state import Books, Ledger, Live, Markets, Whole
    from netcontagion.margining._trading import Levels

__all__ = ["Slots", "Stroke", "Strokes", "Totals", "apply_strokes", "slots_of", "stroke_notes"]

MIX = 64  # accounts that end in one stroke for every other one that is called: with fewer, all get seats
PIECE = 16384  # accounts that one thread values at a time: results do not depend on the number of threads
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
def weigh_places(
    places: NDArray[np.int64],
    first: NDArray[Any],
    amount: NDArray[np.float64],
    slot: NDArray[Any],
    slot_market: NDArray[np.int32],
    slot_weight: NDArray[np.float64],
    slot_is_debt: NDArray[np.bool_],
    marks: NDArray[np.float64],
    share: NDArray[np.float64],
    health: NDArray[np.float64],
    largest: NDArray[np.int32],
) -> None:
    """Health of the accounts at some places, as ``account_health`` has it, and the market of the largest collateral."""
    for i in range(len(places)):
        backing, debt, most = 0.0, 0.0, 0.0
        largest[i] = -1
        for e in range(first[places[i]], first[places[i] + 1]):
            s = slot[e]
            m = slot_market[s]
            if slot_is_debt[s]:
                debt += amount[e] * marks[m]
                continue
            units = amount[e] * share[m]
            backing += units * marks[m] * slot_weight[s]
            if units * marks[m] * slot_weight[s] > most:
                most, largest[i] = units * marks[m] * slot_weight[s], m
        health[i] = backing / debt if debt > 0.0 else np.inf


@kernel
def gather_places(
    places: NDArray[np.int64],
    start: NDArray[np.int64],
    first: NDArray[Any],
    amount: NDArray[np.float64],
    slot: NDArray[Any],
    owned: NDArray[np.float64],
    side: NDArray[Any],
) -> None:
    """Copy amounts and slots of the accounts at some places, one after the other: the next loop need not wait."""
    for i in range(len(places)):
        begin = first[places[i]]
        for k in range(start[i], start[i + 1]):
            owned[k], side[k] = amount[begin + k - start[i]], slot[begin + k - start[i]]


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
    levels: Levels,
    units: NDArray[np.float64],
    cash: NDArray[np.float64],
    total: NDArray[np.float64],
    last_sale: NDArray[np.int64],
    last_loss: NDArray[np.int64],
) -> tuple[int, int, int, int]:
    """Do to accounts without a seat what ``close_whole`` and ``write_off`` do: sell, repay from the largest debt on.

    Returns the numbers of sales, purchases, debts lost and accounts that traded.
    """
    sales, purchases, losses, traded = 0, 0, 0, 0
    for i in range(len(start) - 1):
        purse, debts, before = 0.0, 0, sales
        for k in range(start[i], start[i + 1]):
            units[k], cash[k] = 0.0, 0.0
            m = slot_market[side[k]]
            if slot_is_debt[side[k]]:
                debts += 1
                continue
            held = owned[k] * share[m]
            total[_GONE, m] += owned[k]
            total[_LEFT, m] += 1.0
            if held <= 0.0:
                continue
            market = markets[m]
            units[k], cash[k] = trade(market.shocked, held, books[market.book], levels)
            total[_SOLD, m] += units[k]
            total[_PROCEEDS, m] += cash[k]
            last_sale[market.book] = sales
            purse += cash[k]
            sales += 1
        for _ in range(debts):
            d, most = -1, 0.0
            for k in range(start[i], start[i + 1]):
                if slot_is_debt[side[k]] and units[k] == 0.0:
                    owed = owned[k] * marks[slot_market[side[k]]]
                    if owed > most:
                        d, most = k, owed
            if d < 0 or purse <= 0.0:
                break
            m = slot_market[side[d]]
            market = markets[m]
            bought, paid = buy_for(market.shocked, owned[d], purse, books[market.book], levels)
            units[d], cash[d] = -bought, -paid
            total[_BOUGHT, m] += units[d]
            total[_COST, m] += cash[d]
            purse += paid
            purchases += 1
            if units[d] < owned[d]:  # the purse is empty
                break
        for k in range(start[i], start[i + 1]):
            if slot_is_debt[side[k]] and units[k] < owned[k]:
                m = slot_market[side[k]]
                total[_LOST, m] += owned[k] - units[k]
                last_loss[m] = losses
                losses += 1
        traded += sales > before
    return sales, purchases, losses, traded


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
        here = np.repeat(self.exchanges, np.diff(np.searchsorted(places, self.edges)))
        return np.asarray(here & (self.state.overlay.index.answer[places] <= self.answers))

    def weigh(
        self, places: NDArray[np.int64], marks: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
        """Health of the accounts at some places, and the markets of their largest collateral."""
        index, share = self.state.overlay.index, self.state.overlay.share
        health, largest = np.empty(len(places)), np.empty(len(places), dtype=np.int32)
        slots = (index.first, index.amount, index.slot, index.slot_market, index.slot_weight, index.slot_is_debt)
        in_threads(
            lambda part: weigh_places(places[part], *slots, marks, share, health[part], largest[part]),
            _pieces(len(places)),
        )
        return health, largest

    def close(self, places: NDArray[np.int64], marks: NDArray[np.float64], number: int) -> tuple[Stroke, Totals]:
        """Close the accounts at some places one after the other, post what that did, and note it."""
        state, overlay = self.state, self.state.overlay
        index, share = overlay.index, overlay.share
        start = np.concatenate([[0], np.cumsum(index.first[places + 1] - index.first[places], dtype=np.int64)])
        owned, side = np.empty(start[-1]), np.empty(start[-1], dtype=index.slot.dtype)
        table = (index.first, index.amount, index.slot, owned, side)
        in_threads(lambda part: gather_places(places[part], start[part.start :], *table), _pieces(len(places)))
        units, cash = np.empty((2, len(owned)))
        total = np.zeros((7, len(marks)))
        last_sale, last_loss = np.full(len(state.books), -1), np.full(len(marks), -1)
        given = (start, owned, side, index.slot_market, index.slot_is_debt, marks, share)
        board = (state.markets, state.books, state.levels)
        counts = close_places(*given, *board, units, cash, total, last_sale, last_loss)
        stroke = Stroke(number, places, units, cash, marks.copy(), share.copy(), overlay.cut.copy())
        overlay.strokes.append(stroke)
        overlay.cold -= total[_GONE]
        overlay.holders -= total[_LEFT].astype(np.int64)
        _post(state.ledger, total, marks, state.markets.exchange + state.n_traders)
        return stroke, Totals(total, *counts, last_sale, last_loss)


def _pieces(size: int) -> list[tuple[slice]]:
    return [(slice(low, low + PIECE),) for low in range(0, size, PIECE)]


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
