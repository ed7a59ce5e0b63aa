"""The event log: append-only, every event with the event that caused it."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from netcontagion.margining._margin_sales import CLOSING
from netcontagion.margining._state import longer
from netcontagion.margining._strokes import slots_of
from netcontagion.margining._takeover import TAKEN_CONTRACT

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd
    from numpy.typing import NDArray

    from netcontagion.margining._arbitrageurs import Trade
    from netcontagion.margining._strokes import Slots, Stroke, Totals
    from netcontagion.network import ExposureNetwork

__all__ = ["LAYERS", "TYPES", "Events"]

TYPES = (
    "shock",
    "call",
    "top_up",
    "withdrawal",
    "liquidation",
    "sale",
    "purchase",
    "contract_sale",
    "contract_purchase",
    "charge",
    "request",
    "stop_sale",
    "target_sale",
    "target_purchase",
    "purchase_of_fallen",
    "offset",
    "takeover",
    "deficit",
    "insurance_fund",
    "equity",
    "suppliers",
    "uncovered",
    "arbitrage",
    "redemption",
    "absorb",
    "auction",
    "incentive",
    "bid",
    "take",
    "return",
    "surplus",
    "mint",
    "co_borrowers",
    "frozen",
    "recourse",
    "account_surplus",
    "defaulter_fund",
    "skin",
    "vault",
    "auto_deleveraging",
    "default_fund",
    "assessments",
    "gains",
    "tear_up",
    "withdrawal_haircut",
    "default",
    "run",
    "stop_purchase",
)
_CODE = {name: code for code, name in enumerate(TYPES)}
LAYERS = ("insurance_fund", "equity", "suppliers", "uncovered", "surplus", "mint", "co_borrowers", "frozen")
_TOTALS = ("sold", "bought", "repaid", "deficit", *LAYERS)
_ARBITRAGEURS, _LIQUIDATORS, _MARKET = -4, -3, -2  # debit and credit nodes, counted from the end of the bearers
_NOBODY = -9
_MARGIN_FILLS = (  # by the kind of row of the log of ``close_margin``
    "sale",
    "purchase",
    "contract_sale",
    "contract_purchase",
    "charge",
    "offset",
    "takeover",
    "takeover",
)


class Chunk(NamedTuple):
    """Some events of one type and round, with ids from ``first`` on; ``columns(events)`` makes what is not default."""

    kind: str
    number: int
    first: int
    size: int
    columns: Callable[[Events], dict[str, Any]]


@dataclass(eq=False)
class Events:
    """Collects events as chunks that know how to make their columns; event 0 is the shock.

    During a run only what decides ids and totals is worked out; ``call_of`` holds the first call of every seat.
    """

    chunks: list[Chunk] = field(default_factory=list)
    size: int = 1
    number: int = 0
    call_of: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    counts: dict[str, int] = field(default_factory=dict)
    sums: dict[str, float] = field(default_factory=dict)
    by_exchange: dict[tuple[str, int], float] = field(default_factory=dict)
    last_deficit: dict[int, int] = field(default_factory=dict)
    state: Any = None

    def open_round(self, number: int) -> None:
        """Start the counts of a round."""
        layers = {name: 0.0 for exchange in range(self.state.n_exchanges) for name in self.state.layers_of(exchange)}
        self.number, self.counts, self.sums = number, {}, dict.fromkeys(_TOTALS, 0.0) | layers

    def count(self, kind: str) -> int:
        """Events of a type in this round."""
        return self.counts.get(kind, 0)

    def totals(self) -> dict[str, float]:
        """Money by channel in this round."""
        return dict(self.sums)

    def _add(self, kind: str, size: int, make: Callable[..., dict[str, Any]], *given: Any) -> int:
        """Note a chunk; return the id of its first event."""
        first = self.size
        if size:
            self.chunks.append(Chunk(kind, self.number, first, size, functools.partial(make, *given)))
            self.size += size
            self.counts[kind] = self.counts.get(kind, 0) + size
        return first

    def add_strike(self) -> int:
        """Record a later shock; return its id."""
        return self._add("shock", 1, _layer, {"parent": 0})

    def add_calls(
        self,
        who: NDArray[np.int64],
        health: NDArray[np.float64],
        market: NDArray[Any],
        falls: NDArray[np.int64],
        order: Any = slice(None),
    ) -> None:
        """Record first margin calls of seats, or of places (-1 - place); ``quantity`` is the health.

        The cause is the last fall of the price in the ``market`` of the largest collateral (-1: none). Healths and
        markets come in another ``order``.
        """
        first = self._add("call", len(who), _calls, who, health, market, falls, order)
        seated = np.flatnonzero(who >= 0)
        if len(seated):
            self.call_of = longer(self.call_of, self.state.overlay.used["accounts"])
            self.call_of[who[seated]] = first + seated

    def add_moves(self, log: NDArray[np.float64], marks: NDArray[np.float64]) -> None:
        """Record what moved into called accounts, from wallets and from own accounts."""
        own = log[:, 2] >= 0
        self._add("top_up", int((~own).sum()), _top_ups, log[~own], marks)
        self._add("withdrawal", int(own.sum()), _withdrawals, log[own], marks)

    def add_requests(self, log: NDArray[np.float64], marks: NDArray[np.float64]) -> None:
        """Record withdrawals that are on their way."""
        self._add("request", len(log), _withdrawals, log, marks)

    def add_run(self, log: NDArray[np.float64], marks: NDArray[np.float64]) -> None:
        """Record what frightened traders withdraw; the cause is the last deficit of the exchange, or the shock."""
        venue = self.state.accounts.exchange[log[:, 0].astype(np.int64)]
        parent = np.array([self.last_deficit.get(exchange, 0) for exchange in venue.tolist()], dtype=np.int64)
        self._add("run", len(log), _run, log, marks, parent)

    def add_orders(
        self,
        kind: str,
        trader: NDArray[np.int64],
        asset: NDArray[np.int64],
        units: NDArray[np.float64],
        cash: NDArray[np.float64],
        last_fall: NDArray[np.int64],
    ) -> None:
        """Record what traders traded without a call; note sales in ``last_fall``."""
        sale = kind.endswith("sale")
        ends = {"debit": _MARKET, "credit": trader} if sale else {"debit": trader, "credit": _MARKET}
        columns = {"asset": asset, "quantity": units, "cash": cash, **ends, "parent": last_fall[asset].copy()}
        first = self._add(kind, len(trader), _layer, columns)
        self.sums["sold" if sale else "bought"] += float(cash.sum())
        if sale:
            last_fall[asset] = np.arange(first, first + len(trader))

    def add_stops(self, log: NDArray[np.float64], last_fall: NDArray[np.int64]) -> None:
        """Record stops on positions; the cause is what last lowered the book; note sales in ``last_fall``."""
        state, row = self.state, log[:, 1].astype(np.int64)
        book = state.markets.book[state.positions.market[row]]
        parent, sale = last_fall[book].copy(), log[:, 2] == CLOSING
        for kind, rows, total in (("stop_sale", sale, "sold"), ("stop_purchase", ~sale, "bought")):
            first = self._add(kind, int(rows.sum()), _stops, log[rows], kind, parent[rows])
            self.sums[total] += float(log[rows, 4].sum())
            if kind == "stop_sale":
                last_fall[book[rows]] = np.arange(first, first + int(rows.sum()))

    def add_pairs(self, log: NDArray[np.float64], last_fall: NDArray[np.int64]) -> None:
        """Record liquidations at a fixed spread with their sale and purchase; note the sales in ``last_fall``."""
        state = self.state
        book_d, book_c = (state.markets.book[state.entries.market[log[:, side].astype(np.int64)]] for side in (1, 2))
        rows = book_c != book_d
        first = self._add("liquidation", len(log), _liquidations, log)
        sales = self._add("sale", len(log), _sales, log, rows, first)
        self._add("purchase", int(rows.sum()), _purchases, log, rows, first)
        last_fall[book_c] = np.arange(sales, sales + len(log))
        self.sums["repaid"] += float(log[:, 8].sum())
        self.sums["sold"] += float(log[:, 7].sum())
        self.sums["bought"] += float(log[:, 6].sum())

    def add_fills(self, fills: NDArray[np.float64], repaid: NDArray[np.float64], last_fall: NDArray[np.int64]) -> None:
        """Record sales and purchases of whole accounts, and what they repaid; note the sales in ``last_fall``."""
        for kind, rows, total in (("sale", fills[:, 2] == 0, "sold"), ("purchase", fills[:, 2] == 1, "bought")):
            log = fills[rows]
            first = self._add(kind, len(log), _fills, log, kind, log[:, 0].astype(np.int64))
            self.sums[total] += float(log[:, 4].sum())
            if kind == "sale":
                book = self.state.markets.book[self.state.entries.market[log[:, 1].astype(np.int64)]]
                last_fall[book] = np.arange(first, first + len(log))
        self.sums["repaid"] += float(repaid.sum())

    def add_stroke(self, stroke: Stroke, did: Totals, last_fall: NDArray[np.int64]) -> None:
        """Record what accounts without a seat sold, bought and lost; note the sales in ``last_fall``."""
        state = self.state
        first = self._add("sale", did.sales, _stroke_fills, stroke, "sale")
        book = np.flatnonzero(did.last_sale >= 0)
        last_fall[book] = first + did.last_sale[book]
        self._add("purchase", did.purchases, _stroke_fills, stroke, "purchase")
        first = self._add("deficit", did.losses, _stroke_losses, stroke)
        money = did.money(stroke.marks)
        for name, value in money.items():
            self.sums[name] += float(value.sum())
        for market in np.flatnonzero(did.last_loss >= 0).tolist():
            exchange = int(state.markets.exchange[market])
            self.last_deficit[exchange] = max(self.last_deficit.get(exchange, 0), first + int(did.last_loss[market]))
            self._tally("deficit", exchange, float(money["deficit"][market]))

    @functools.cached_property
    def call_at(self) -> NDArray[np.int64]:
        """The call of every account that has no seat, by place in the index."""
        found = np.zeros(len(self.state.overlay.index.order), dtype=np.int64)
        for chunk in self.chunks:
            if chunk.kind == "call":
                who = chunk.columns.args[0]  # type: ignore[attr-defined]
                bare = np.flatnonzero(who < 0)
                found[-1 - who[bare]] = chunk.first + bare
        return found

    def add_margin_fills(
        self, log: NDArray[np.float64], last_fall: NDArray[np.int64], cause: NDArray[np.int64] | None = None
    ) -> None:
        """Record what accounts traded, by kind, and what they were charged; note sales in ``last_fall``.

        ``cause`` is the called account that each row was traded for, by default its own.
        """
        cause = log[:, 0].astype(np.int64) if cause is None else cause
        state = self.state
        totals = {"sale": "sold", "purchase": "bought", "contract_sale": "sold", "contract_purchase": "bought"}
        for code, kind in enumerate(_MARGIN_FILLS):
            rows = log[log[:, 2] == code]
            contracts = kind.startswith("contract")
            if kind == "takeover":
                self._add(kind, len(rows), _takeovers, rows, "positions" if code == TAKEN_CONTRACT else "entries")
                continue
            first = self._add(kind, len(rows), _fills, rows, kind, cause[log[:, 2] == code])
            if kind in totals:
                self.sums[totals[kind]] += float(rows[:, 4].sum())
            if totals.get(kind) == "sold":
                table = state.positions if contracts else state.entries
                book = state.markets.book[table.market[rows[:, 1].astype(np.int64)]]
                last_fall[book] = np.arange(first, first + len(rows))

    def add_deficits(self, log: NDArray[np.float64], value: NDArray[np.float64]) -> None:
        """Record debt that no collateral stands behind any more."""
        first = self._add("deficit", len(log), _deficits, log, value)
        self.sums["deficit"] += float(value.sum())
        venue = self.state.accounts.exchange[log[:, 0].astype(np.int64)]
        for exchange in np.unique(venue).tolist():
            here = np.flatnonzero(venue == exchange)
            self.last_deficit[exchange] = first + int(here[-1])
            self._tally("deficit", exchange, float(value[here].sum()))

    def add_absorbed(self, log: NDArray[np.float64]) -> int:
        """Record collateral that exchanges took over and credited; return the id of the last event."""
        return self._add("absorb", len(log), _absorbed, log) + len(log) - 1

    def add_auctions(self, rows: NDArray[np.int64]) -> None:
        """Record auctions that start, and note their events in the lots."""
        lots = self.state.lots
        first = self._add("auction", len(rows), _lots, lots[rows].copy(), "tab")
        lots["event"][rows] = np.arange(first, first + len(rows))

    def add_bids(self, rows: NDArray[np.int64]) -> None:
        """Record new bids on rising auctions."""
        self._add("bid", len(rows), _lots, self.state.lots[rows].copy(), "bid")

    def add_incentives(self, rows: NDArray[np.int64], units: NDArray[np.float64], cash: NDArray[np.float64]) -> None:
        """Record what exchanges owed to who started auctions, and what that brought."""
        paid = units > 0
        self._add("incentive", int(paid.sum()), _given, self.state.lots[rows[paid]].copy(), units[paid], cash[paid])

    def add_returns(self, rows: NDArray[np.int64], units: NDArray[np.float64], marks: NDArray[np.float64]) -> None:
        """Record collateral that was left of auctions and went back."""
        lots, left = self.state.lots, units > 0
        value = units[left] * marks[lots.collateral[rows[left]]]
        self._add("return", int(left.sum()), _returned, lots[rows[left]].copy(), units[left], value)

    def add_takes(
        self, log: NDArray[np.float64], repaid: float, marks: NDArray[np.float64], last_fall: NDArray[np.int64]
    ) -> None:
        """Record what buyers took from lots, with their sale and purchase; note the sales in ``last_fall``."""
        rows, markets = self.state.lots[log[:, 0].astype(np.int64)].copy(), self.state.markets
        both = (markets.book[rows.collateral] != markets.book[rows.debt]) & (log[:, 2] > 0)
        first = self._add("take", len(log), _takes, log, rows, log[:, 2] * marks[rows.debt])
        sold = log[:, 1] - np.where(markets.book[rows.collateral] == markets.book[rows.debt], log[:, 2], 0.0)
        ids = np.arange(first, first + len(log))
        sales = self._add("sale", len(log), _lot_sales, rows, sold, log[:, 3], ids)
        self._add("purchase", int(both.sum()), _lot_purchases, rows[both], log[both], ids[both])
        last_fall[markets.book[rows.collateral]] = np.arange(sales, sales + len(log))
        self.sums["repaid"] += repaid
        self.sums["sold"] += float(log[:, 3].sum())
        self.sums["bought"] += float(log[:, 4].sum())

    def add_shortfalls(self, rows: NDArray[np.int64], units: NDArray[np.float64], value: NDArray[np.float64]) -> None:
        """Record what the sale of lots did not raise; ``units`` of the debt asset."""
        lots = self.state.lots[rows].copy()
        first = self._add("deficit", len(rows), _shortfalls, lots, units, value)
        self.sums["deficit"] += float(value.sum())
        for place, exchange in enumerate(lots.exchange.tolist()):
            self.last_deficit[exchange] = first + place
            self._tally("deficit", exchange, float(value[place]))

    def add_layer(self, kind: str, exchange: int, asset: int, units: float, *, paid: float, value: float) -> None:
        """Record what one layer of a waterfall paid for the units, and their value at the mark: what it bore."""
        columns = {"exchange": exchange, "asset": asset, "quantity": units, "cash": paid}
        self._add(kind, 1, _layer, columns | {"parent": self.last_deficit.get(exchange, 0)})
        self.sums[kind] += value
        self._tally(kind, exchange, value)

    def add_trades(self, trades: list[Trade], asset: NDArray[np.int64], last_fall: NDArray[np.int64]) -> None:
        """Record what arbitrageurs trade, ``asset`` by book; the cause is what last lowered a book they buy on."""
        before, n_assets = last_fall.copy(), len(self.state.asset_base)
        for trade in trades:
            exchange = int(self.state.markets.exchange[trade.book - n_assets]) if trade.book >= n_assets else -1
            columns = {"exchange": exchange, "asset": int(asset[trade.book]), "quantity": abs(trade.units)}
            columns |= {"cash": abs(trade.cash), "parent": int(before[trade.cheap].max())}
            ends = (_MARKET, _ARBITRAGEURS) if trade.units > 0 else (_ARBITRAGEURS, _MARKET)
            event = self._add(trade.kind, 1, _layer, columns | {"debit": ends[0], "credit": ends[1]})
            if trade.units > 0:
                last_fall[trade.book] = event

    def add_deleveraging(
        self,
        exchange: int,
        asset: int,
        ours: NDArray[np.float64],
        theirs: NDArray[np.float64],
        lost: NDArray[np.float64],
    ) -> None:
        """Record contracts closed against winners (account, position, units, price): deficits, then who bore them."""
        place = {"exchange": exchange, "asset": asset}
        bad = np.flatnonzero(lost > 0.0)
        first = self._add("deficit", len(bad), _closed, place, ours[bad], lost[bad])
        if len(bad):
            self.last_deficit[exchange] = first + len(bad) - 1
        parent = self.last_deficit.get(exchange, 0) if len(bad) else int(self.call_of[int(ours[0, 0])])
        money = np.abs(theirs[:, 2] * theirs[:, 3])
        self._add("auto_deleveraging", len(theirs), _closed, place | {"parent": parent}, theirs, money)
        for kind in ("deficit", "auto_deleveraging"):
            self.sums[kind] += float(lost.sum())
            self._tally(kind, exchange, float(lost.sum()))

    def _tally(self, kind: str, exchange: int, value: float) -> None:
        self.by_exchange[kind, exchange] = self.by_exchange.get((kind, exchange), 0.0) + value

    # tables -------------------------------------------------------------------------------------------------------

    def columns(self) -> dict[str, NDArray[Any]]:
        """All events as arrays, the shock first."""
        first = {"round": -1, "type": 0, "account": -1, "exchange": -1, "asset": -1, "quantity": np.nan}
        first |= {"cash": np.nan, "debit": _NOBODY, "credit": _NOBODY, "parent": -1}
        found: dict[str, NDArray[Any]] = {}
        for name, value in first.items():
            found[name] = np.empty(self.size, dtype=float if name in ("quantity", "cash") else np.int64)
            found[name][0] = value
        for chunk in self.chunks:
            made = first | {"round": chunk.number, "type": _CODE[chunk.kind]} | chunk.columns(self)
            for name, values in made.items():
                found[name][chunk.first : chunk.first + chunk.size] = values
        found["parent"][found["parent"] >= np.arange(self.size)] = 0  # closed with its exchange, called only later
        return found

    def table(self, net: ExposureNetwork, bearers: pd.Index) -> pd.DataFrame:
        """Return the log as a DataFrame indexed by event."""
        import pandas as pd

        found = self.columns()
        labels = {kind: net.labels(f"{kind}s") for kind in ("account", "exchange", "asset")}

        def named(codes: NDArray[Any], categories: pd.Index) -> pd.Categorical:
            return pd.Categorical.from_codes(codes.astype(np.int64), categories=categories)

        ends = {
            side: np.where(
                found[side] == _NOBODY, -1, np.where(found[side] < -1, len(bearers) + found[side], found[side])
            )
            for side in ("debit", "credit")
        }
        with np.errstate(invalid="ignore", divide="ignore"):
            price = np.where(found["quantity"] != 0, found["cash"] / found["quantity"], np.nan)
        table = pd.DataFrame(
            {
                "round": found["round"].astype(np.int64),
                "type": named(found["type"], pd.Index(TYPES)),
                **{kind: named(found[kind], labels[kind]) for kind in labels},
                "quantity": found["quantity"],
                "price": price,
                "cash": found["cash"],
                "debit": named(ends["debit"], bearers),
                "credit": named(ends["credit"], bearers),
                "parent": found["parent"].astype(np.int64),
            }
        )
        table.index.name = "event"
        return table


# columns of each type ------------------------------------------------------------------------------------------------


def _place(events: Events, seat: NDArray[np.int64], row: NDArray[np.int64], table: str = "entries") -> dict[str, Any]:
    """Columns that say where something happened: accounts, their exchanges, and the assets of these rows of a table."""
    state = events.state
    asset = state.markets.asset[getattr(state, table).market[row]]
    account = state.overlay.code[seat]
    return {"account": account, "exchange": state.accounts.exchange[seat], "asset": asset}


def _ends_of(log: NDArray[np.float64], column: int = 1) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Seats and entries of a log."""
    return log[:, 0].astype(np.int64), log[:, column].astype(np.int64)


def _bank(events: Events, place: dict[str, Any]) -> NDArray[np.int64]:
    return np.asarray(place["exchange"] + len(events.state.net.labels("traders")), dtype=np.int64)


def _trader(events: Events, seat: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.asarray(events.state.overlay.owner[events.state.accounts.trader[seat]])


def _calls(
    who: NDArray[np.int64],
    health: NDArray[np.float64],
    market: NDArray[Any],
    falls: NDArray[np.int64],
    order: Any,
    events: Events,
) -> dict[str, Any]:
    where = market[order]
    parent = np.where(where >= 0, falls[where], 0)
    return {"account": events.state.overlay.codes_of(who), "quantity": health[order], "parent": parent}


def _stroke_place(found: Slots, rows: NDArray[np.int64], stroke: Stroke, events: Events) -> dict[str, Any]:
    """Columns that say where something happened to accounts without a seat, and the calls that caused it."""
    markets, market = events.state.markets, found.market[rows]
    place = {"account": found.account[rows], "exchange": markets.exchange[market], "asset": markets.asset[market]}
    return place | {"parent": events.call_at[stroke.place[found.row[rows]]]}


def _stroke_fills(stroke: Stroke, kind: str, events: Events) -> dict[str, Any]:
    found, sale = slots_of(stroke, events.state.overlay.index), kind == "sale"
    rows = np.flatnonzero((found.is_debt != sale) & (found.units > 0))
    place = _stroke_place(found, rows, stroke, events)
    bank = _bank(events, place)
    place |= {"quantity": found.units[rows], "cash": found.cash[rows]}
    return place | {"debit": _MARKET if sale else bank, "credit": bank if sale else _MARKET}


def _stroke_losses(stroke: Stroke, events: Events) -> dict[str, Any]:
    found, owner = slots_of(stroke, events.state.overlay.index), events.state.net.columns("accounts")["trader"]
    rows = np.flatnonzero(found.lost > 0)
    place, units = _stroke_place(found, rows, stroke, events), found.lost[rows]
    place |= {"quantity": units, "cash": units * stroke.marks[found.market[rows]]}
    return place | {"debit": _bank(events, place), "credit": owner[place["account"]]}


def _top_ups(log: NDArray[np.float64], marks: NDArray[np.float64], events: Events) -> dict[str, Any]:
    seat, entry = _ends_of(log)
    units, trader = log[:, 3] + log[:, 4], _trader(events, seat)
    found = _place(events, seat, entry) | {"quantity": units, "cash": units * marks[events.state.entries.market[entry]]}
    return found | {"debit": trader, "credit": trader, "parent": events.call_of[seat]}


def _withdrawals(log: NDArray[np.float64], marks: NDArray[np.float64], events: Events) -> dict[str, Any]:
    """Name the account that units leave; the cause is the call of the one they go to."""
    called, entry = _ends_of(log, 2)
    seat = events.state.entries.account[entry]
    units, trader = log[:, 3] + log[:, 4], _trader(events, seat)
    found = _place(events, seat, entry) | {"quantity": units, "cash": units * marks[events.state.entries.market[entry]]}
    return found | {"debit": trader, "credit": trader, "parent": events.call_of[called]}


def _stops(log: NDArray[np.float64], kind: str, parent: NDArray[np.int64], events: Events) -> dict[str, Any]:
    place = _place(events, *_ends_of(log), "positions")
    bank, sale = _bank(events, place), kind.endswith("sale")
    found = place | {"quantity": log[:, 3], "cash": log[:, 4], "parent": parent}
    return found | {"debit": _MARKET if sale else bank, "credit": bank if sale else _MARKET}


def _run(
    log: NDArray[np.float64], marks: NDArray[np.float64], parent: NDArray[np.int64], events: Events
) -> dict[str, Any]:
    return _withdrawals(log, marks, events) | {"parent": parent}


def _liquidations(log: NDArray[np.float64], events: Events) -> dict[str, Any]:
    seat, entry = _ends_of(log, 2)
    place = _place(events, seat, entry)
    found = place | {"quantity": log[:, 4], "cash": log[:, 8], "debit": _LIQUIDATORS, "credit": _bank(events, place)}
    return found | {"parent": events.call_of[seat]}


def _sales(log: NDArray[np.float64], rows: NDArray[np.bool_], first: int, events: Events) -> dict[str, Any]:
    sold = log[:, 4] - log[:, 5] - np.where(rows, 0.0, log[:, 3])
    found = _place(events, *_ends_of(log, 2)) | {"quantity": sold, "cash": log[:, 7]}
    return found | {"debit": _MARKET, "credit": _LIQUIDATORS, "parent": np.arange(first, first + len(log))}


def _purchases(log: NDArray[np.float64], rows: NDArray[np.bool_], first: int, events: Events) -> dict[str, Any]:
    bought = log[rows]
    found = _place(events, *_ends_of(bought)) | {"quantity": bought[:, 3], "cash": bought[:, 6]}
    return found | {"debit": _LIQUIDATORS, "credit": _MARKET, "parent": first + np.flatnonzero(rows)}


def _fills(log: NDArray[np.float64], kind: str, cause: NDArray[np.int64], events: Events) -> dict[str, Any]:
    place = _place(events, *_ends_of(log), "positions" if kind.startswith("contract") else "entries")
    bank, sale = _bank(events, place), kind.endswith("sale")
    found = place | {"quantity": log[:, 3], "cash": log[:, 4], "parent": events.call_of[cause]}
    if kind in ("charge", "offset"):
        return found | {"debit": bank, "credit": _trader(events, log[:, 0].astype(np.int64))}
    return found | {"debit": _MARKET if sale else bank, "credit": bank if sale else _MARKET}


def _takeovers(log: NDArray[np.float64], table: str, events: Events) -> dict[str, Any]:
    state, seat = events.state, log[:, 0].astype(np.int64)
    found = _place(events, *_ends_of(log), table)
    vault = state.rules.vault[found["exchange"]]
    found |= {"quantity": log[:, 3], "cash": log[:, 4], "parent": events.call_of[seat]}
    return found | {"debit": _trader(events, vault), "credit": _trader(events, seat)}


def _deficits(log: NDArray[np.float64], value: NDArray[np.float64], events: Events) -> dict[str, Any]:
    seat, entry = _ends_of(log)
    place = _place(events, seat, entry)
    found = place | {"quantity": log[:, 2], "cash": value, "parent": events.call_of[seat]}
    return found | {"debit": _bank(events, place), "credit": _trader(events, seat)}


def _closed(place: dict[str, Any], log: NDArray[np.float64], cash: Any, events: Events) -> dict[str, Any]:
    seat = log[:, 0].astype(np.int64)
    bank = place["exchange"] + len(events.state.net.labels("traders"))
    found = {"account": events.state.overlay.code[seat], "quantity": np.abs(log[:, 2]), "cash": cash, **place}
    return {"parent": events.call_of[seat], "debit": bank, "credit": _trader(events, seat)} | found


def _layer(columns: dict[str, Any], _events: Events) -> dict[str, Any]:
    return columns


def _absorbed(log: NDArray[np.float64], events: Events) -> dict[str, Any]:
    seat, entry = _ends_of(log)
    place = _place(events, seat, entry)
    found = place | {"quantity": log[:, 2], "cash": log[:, 3], "parent": events.call_of[seat]}
    return found | {"debit": _bank(events, place), "credit": _trader(events, seat)}


def _lot_place(events: Events, lots: Any, side: str) -> dict[str, Any]:
    """Columns that say where a lot is: its account (-1: several), exchange, and the asset of one side."""
    account = np.where(lots.seat < 0, -1, events.state.overlay.code[lots.seat])
    return {"account": account, "exchange": lots.exchange, "asset": events.state.markets.asset[lots[side]]}


def _lots(lots: Any, what: str, events: Events) -> dict[str, Any]:
    place = _lot_place(events, lots, "collateral")
    bank, bids = _bank(events, place), what == "bid"
    found = place | {"quantity": lots.asked if bids else lots.units, "cash": lots.stake if bids else np.nan}
    found |= {"parent": lots.event if bids else events.call_of[lots.seat], "debit": _LIQUIDATORS if bids else bank}
    return found | {"credit": bank if bids else _trader(events, lots.seat)}


def _given(lots: Any, units: NDArray[np.float64], cash: NDArray[np.float64], events: Events) -> dict[str, Any]:
    place = _lot_place(events, lots, "debt")
    found = place | {"quantity": units, "cash": cash, "parent": lots.event}
    return found | {"debit": _LIQUIDATORS, "credit": _bank(events, place)}


def _returned(lots: Any, units: NDArray[np.float64], value: NDArray[np.float64], events: Events) -> dict[str, Any]:
    place = _lot_place(events, lots, "collateral")
    found = place | {"quantity": units, "cash": value, "parent": lots.event}
    return found | {"debit": _trader(events, lots.seat), "credit": _bank(events, place)}


def _takes(log: NDArray[np.float64], lots: Any, paid: NDArray[np.float64], events: Events) -> dict[str, Any]:
    place = _lot_place(events, lots, "collateral")
    found = place | {"quantity": log[:, 1], "cash": paid, "parent": lots.event}
    return found | {"debit": _LIQUIDATORS, "credit": _bank(events, place)}


def _lot_sales(
    lots: Any, sold: NDArray[np.float64], cash: NDArray[np.float64], parent: NDArray[np.int64], events: Events
) -> dict[str, Any]:
    found = _lot_place(events, lots, "collateral") | {"quantity": sold, "cash": cash, "parent": parent}
    return found | {"debit": _MARKET, "credit": _LIQUIDATORS}


def _lot_purchases(lots: Any, log: NDArray[np.float64], parent: NDArray[np.int64], events: Events) -> dict[str, Any]:
    found = _lot_place(events, lots, "debt") | {"quantity": log[:, 2], "cash": log[:, 4], "parent": parent}
    return found | {"debit": _LIQUIDATORS, "credit": _MARKET}


def _shortfalls(lots: Any, units: NDArray[np.float64], value: NDArray[np.float64], events: Events) -> dict[str, Any]:
    place = _lot_place(events, lots, "debt")
    found = place | {"quantity": units, "cash": value, "parent": lots.event}
    trader = np.where(lots.seat < 0, _NOBODY, _trader(events, np.maximum(lots.seat, 0)))
    return found | {"debit": _bank(events, place), "credit": trader}
