"""The state of a cascade: everything that moves, as flat arrays grouped by what they describe."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from netcontagion._arrays import blank, freeze, group_sum
from netcontagion.margining._forms import NO_LEVELS, Forms
from netcontagion.margining._impact import quotes
from netcontagion.margining._kept import kept
from netcontagion.margining._valuation import gains
from netcontagion.network import HEALTH_TOL, rulebook

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from netcontagion.margining._investors import Investors
    from netcontagion.margining._overlay import Overlay
    from netcontagion.margining._quotes import Quotes
    from netcontagion.margining._runs import Runs
    from netcontagion.margining._valuation import Terms
    from netcontagion.network import Deficit, ExposureNetwork, Shock

__all__ = [
    "BEARERS",
    "CHANNELS",
    "DEFICIT",
    "EXECUTION",
    "MUTUALISATION",
    "PENALTY",
    "Accounts",
    "Board",
    "Books",
    "Entries",
    "Ledger",
    "Live",
    "Lots",
    "Markets",
    "Positions",
    "Reserves",
    "Row",
    "Rules",
    "State",
    "Taken",
    "Traders",
    "Transit",
    "Wallets",
    "Whole",
    "bearer_labels",
    "bearers",
    "called",
    "longer",
    "no_zeros",
    "records",
    "vaults_of",
]

CHANNELS = ("shock", "impact", "execution", "penalty", "deficit", "mutualisation", "counterparty")
BEARERS = ("liquidators", "market", "external creditors")  # beside traders and exchanges, in every network
FADED = 1e-6  # passing impact of less than this share of the depth has passed
SHOCK, IMPACT, EXECUTION, PENALTY, DEFICIT, MUTUALISATION, COUNTERPARTY = range(7)

Floats = Any
Ints = Any
Row = Any  # of a table


class Columns(np.ndarray[Any, Any]):
    """A record array whose columns are attributes, found ten times as fast as those of ``np.recarray``."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self[name].view(np.ndarray)
        except (ValueError, IndexError) as error:
            raise AttributeError(name) from error

    def __setattr__(self, name: str, value: Any) -> None:
        if self.dtype.names is not None and name in self.dtype.names:
            raise AttributeError(f"write to [{name!r}]")
        super().__setattr__(name, value)


class Table(Protocol):
    """A record array: its columns are its attributes, and so are those of each of its rows."""

    def __len__(self) -> int: ...

    def __getitem__(self, row: Any) -> Row: ...


class Markets(Table, Protocol):
    """One asset on one exchange; ``shocked`` is the mark right after the shock [num/unit].

    ``kind`` is SPOT, LINEAR or INVERSE, ``face`` [num] what one inverse contract is worth, ``settle`` the market a
    contract pays in (-1: none). ``long`` and ``short`` are margin rates on deposits and debts of margin accounts.
    ``room`` is what may still go into liquidation against it in this round [num].
    """

    exchange: Ints
    asset: Ints
    shocked: Floats
    book: Ints
    bonus: Floats
    close_factor: Floats
    fee: Floats
    sellable: Ints
    room: Floats
    kind: Ints
    face: Floats
    settle: Ints
    long: Floats
    short: Floats


class Books(Table, Protocol):
    """Order books: price = shocked price x what its form leaves of it after the net quantity ``sold`` [units].

    ``form`` is a code of ``_forms``; a ladder has the columns ``first:last`` of ``levels``. ``passing`` is the part of
    ``sold`` that fades, all but the share ``permanent`` of every trade; a round leaves the share ``resilience`` of it.

    Who sells gets half of ``spread`` less than the price, who buys pays half of it more.

    While orders are filled together (``_together``) all get ``common``, relative to the price where nothing was sold
    (NaN: each gets what the book pays it); ``together`` is what was filled so far, ``refused`` what limits held back,
    ``crowd`` the net quantity that all of them want [units].
    """

    form: Ints
    first: Ints
    last: Ints
    depth: Floats
    sold: Floats
    passing: Floats
    permanent: Floats
    resilience: Floats
    spread: Floats
    common: Floats
    together: Floats
    refused: Floats
    crowd: Floats


class Accounts(Table, Protocol):
    """Accounts; account k has the entries ``first[k]:last[k]``. ``of_trader`` holds all codes, sorted by trader.

    ``test`` says what health is. A margin account has the positions ``first_position[k]:last_position[k]``; ``gains``
    and ``required`` are their unrealised profit and margin at the marks of the round [num].

    ``waiting`` is the cash [num] of a closed account that waits for a debt nobody sells; its trader's, in the ledger.
    """

    trader: Ints
    exchange: Ints
    first: Ints
    last: Ints
    of_trader: Ints
    bonus: Floats
    opening_debt: Floats
    forced: Ints
    waiting: Floats
    test: Ints
    first_position: Ints
    last_position: Ints
    gains: Floats
    required: Floats


class Positions(Table, Protocol):
    """Contracts by account and market: signed quantity, and the price it was entered at [num/unit].

    ``largest`` is the most that was ever held: less than a rounding of it is nothing.
    """

    account: Ints
    market: Ints
    quantity: Floats
    entry: Floats
    largest: Floats


class Entries(Table, Protocol):
    """Balances by account and market [units], with those that a top-up may open; ``coming`` is in transit to them."""

    account: Ints
    market: Ints
    deposited: Floats
    borrowed: Floats
    threshold: Floats
    coming: Floats


class Traders(Table, Protocol):
    """How traders answer; trader i has ``accounts.of_trader[first[i]:last[i]]`` and wallets likewise.

    ``target`` is the health that called accounts are brought to, ``keep`` the one that others are drawn down to;
    ``lag`` the rounds between call and answer, ``probability`` that there is one.
    """

    first: Ints
    last: Ints
    first_wallet: Ints
    last_wallet: Ints
    top_up: Ints
    withdraw: Ints
    reduce: Ints
    target: Floats
    keep: Floats
    lag: Ints
    probability: Floats


class Wallets(Table, Protocol):
    """Free units, by trader, those in the numeraire first, then by value."""

    trader: Ints
    asset: Ints
    units: Floats


class Rules(Table, Protocol):
    """The rulebook of each exchange as numbers, and what is left in this round of its limits.

    Withdrawals are ``closed``, or ``gated`` by a delay or a cap.
    ``left`` is the money that buyers still have, ``room`` the debt that may still go into liquidation, ``wanted`` what
    the exchange would still take in for its inventory, ``fund_left`` what its insurance fund may still bear [num];
    ``vault`` is the seat of its backstop account (-1: none).
    """

    route: Ints
    collateral_order: Ints
    whole_account: Ints
    position_base: Ints
    close_factor: Floats
    full_below_health: Floats
    full_below_value: Floats
    minimum_leftover: Floats
    always: Ints
    gas: Floats
    capital: Floats
    capacity: Floats
    capacity_per_asset: Floats
    notice: Ints
    cooldown: Ints
    penalty: Floats
    factor: Floats
    store_front: Floats
    target_reserves: Floats
    hands_on: Ints
    fund_cap: Floats
    drawdown: Floats
    fund_peak: Floats
    left: Floats
    room: Floats
    wanted: Floats
    fund_left: Floats
    out: Ints
    reduce: Ints
    target_health: Floats
    slice: Floats
    slice_above: Floats
    order: Ints
    at_bankruptcy: Ints
    fee: Floats
    closed: Ints
    gated: Ints
    deleverages: Ints
    to_vault: Ints
    backstop_below: Floats
    vault: Ints


class Lots(Table, Protocol):
    """Collateral that an exchange took over and has not sold, each lot against one debt.

    ``seat`` is the account it is from (-1: several), ``debt_entry`` and ``entry`` where debt and collateral stood;
    ``units`` of collateral are left, ``tab`` units of the debt asset are asked for, ``owed`` of them the exchange is
    short of; ``opened`` was the tab at first. The price is ``top`` at ``start`` and ``price`` now. ``bid`` units of the
    debt asset for ``asked`` units of collateral, ``stake`` [num], are the last bid; ``tried`` is the start of the last
    run of prices that found no buyer, ``tried_before`` of the one before; ``event`` opened the lot.
    """

    exchange: Ints
    seat: Ints
    entry: Ints
    debt_entry: Ints
    collateral: Ints
    debt: Ints
    units: Floats
    tab: Floats
    owed: Floats
    opened: Floats
    top: Floats
    price: Floats
    start: Ints
    tried: Ints
    tried_before: Ints
    bid: Floats
    asked: Floats
    stake: Floats
    bid_round: Ints
    event: Ints


class Ledger(NamedTuple):
    """Double entry: units and cash of those who trade, and what every bearer lost by channel.

    ``bought`` holds the units that came to the market, by market and then by asset, ``passed`` those of them that did
    not come over a book: contracts closed at the mark, coins that inverse ones are settled in; ``fees`` those that an
    exchange earned, ``pool`` those that gains and losses on contracts were settled with (against cash of the exchange),
    ``hole`` those its waterfall has still to find, ``short`` those it owes after all layers, by market; ``inventory``
    the collateral it took over and has not sold, ``owed`` the debt it must still raise by that. ``minted`` is the money
    paid in for new shares of each exchange: a loss of the old ones, a gain of nobody.
    ``flow`` is the value of units that came in, at the marks of the round: losses by impact follow from it (summation
    by parts).
    """

    loss: Floats
    flow: Floats
    cash: Floats
    bought: Floats
    passed: Floats
    fees: Floats
    pool: Floats
    hole: Floats
    short: Floats
    inventory: Floats
    owed: Floats
    minted: Floats


class Board(NamedTuple):
    """Everything kernels read and write: a record array for each group, so that each kernel is compiled once.

    ``levels`` are those of all ladders, one after the other (``_forms.PriceCurve``); None where there is no ladder.
    """

    markets: Markets
    books: Books
    accounts: Accounts
    entries: Entries
    positions: Positions
    traders: Traders
    wallets: Wallets
    rules: Rules
    ledger: Ledger
    levels: Floats | None


@dataclass(eq=False)
class Reserves:
    """What loss layers draw on, and who owes them, beside balances, funds and equity.

    By exchange: ``skin`` [num], and ``backstop``, the account of the vault (-1: none). By account of the network:
    ``default_fund`` and what of it was ``assessed`` anew [num], and ``claims`` of the exchange on the owner [num]. By
    market: ``surplus`` [units] that closed accounts were charged in this round. ``defaulters`` holds the accounts that
    left a deficit in this round and how much, ``drawn`` what capped layers bore in it, or
    paid before winners were closed, both by exchange.
    """

    skin: NDArray[np.float64]
    backstop: NDArray[np.int64]
    default_fund: NDArray[np.float64]
    assessed: NDArray[np.float64]
    claims: NDArray[np.float64]
    surplus: NDArray[np.float64]
    failed: NDArray[np.bool_]
    defaulters: dict[int, dict[int, float]] = field(default_factory=dict)
    drawn: dict[tuple[str, int], float] = field(default_factory=dict)

    @classmethod
    def of(cls, net: ExposureNetwork) -> Reserves:
        """Lay out the reserves of a network."""
        exchange, size = net.columns("exchanges"), net.book.n_accounts
        recourse = exchange["recourse"].any() or any(
            "recourse" in rulebook(name).layers for name in exchange["rulebook"]
        )
        contributed = kept(net, "_contributions", _contributions)
        return cls(
            skin=np.array(exchange["skin"]),
            backstop=vaults_of(net),
            default_fund=contributed.copy() if len(contributed) else _zeros(size, written=False),
            assessed=_zeros(size, written=len(contributed) > 0),
            claims=_zeros(size, written=bool(recourse)),
            surplus=np.zeros(len(net.book.market_mark)),
            failed=blank(size, bool),
        )

    def __getstate__(self) -> dict[str, Any]:
        return {name: no_zeros(value) for name, value in vars(self).items()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, np.zeros(*value) if isinstance(value, tuple) else value)

    def open_round(self) -> None:
        """Forget what belongs to one round."""
        self.surplus[:] = 0.0
        self.defaulters, self.drawn = {}, {}


def vaults_of(net: ExposureNetwork) -> NDArray[np.int64]:
    """Backstop account of every exchange; -1: none."""
    return kept(net, "_vaults", _vaults)


def _vaults(net: ExposureNetwork) -> NDArray[np.int64]:
    import pandas as pd

    names = net.columns("exchanges")["backstop"]
    found = np.full(len(names), -1)
    named = np.flatnonzero([name is not None for name in names])
    if len(named):  # finding a label takes a table of all of them
        found[named] = net.labels("accounts").get_indexer(pd.Index(names[named], dtype=object))
    return freeze(found)


def _contributions(net: ExposureNetwork) -> NDArray[np.float64]:
    """Default fund contributions by account; empty where there is none."""
    found = net.columns("accounts")["default_fund"]
    return found if found.any() else found[:0]


def _zeros(size: int, *, written: bool) -> NDArray[np.float64]:
    """Zeros; those that nobody writes to take no room."""
    return np.zeros(size) if written else np.broadcast_to(0.0, size)


def no_zeros(value: Any) -> Any:
    """Shape and type of an array of zeros, which need not be kept."""
    return (value.shape, value.dtype) if isinstance(value, np.ndarray) and not value.any() else value


@dataclass(eq=False)
class State:
    """All arrays of one run; the network itself is never written to."""

    net: ExposureNetwork
    shock: Shock
    board: Board
    terms: Terms
    layers: list[tuple[str, ...]]
    deficits: list[Deficit]
    reserves: Reserves
    asset_base: NDArray[np.float64]
    fund_units: NDArray[np.float64]
    fund_asset: NDArray[np.int32]
    equity: NDArray[np.float64]
    marks_outside: NDArray[np.float64]
    quotes: Quotes

    markets, books, accounts, entries, positions, traders, wallets, rules, ledger, levels = (
        property(attrgetter(f"board.{name}")) for name in Board._fields
    )

    @property
    def n_traders(self) -> int:
        """Rows for traders: they stand before all other bearers of the ledger."""
        return len(self.board.traders)

    @property
    def n_exchanges(self) -> int:
        """Number of exchanges."""
        return len(self.net.labels("exchanges"))

    def has_recourse(self, exchange: int) -> bool:
        """Whether traders owe the exchange what their closed accounts lack."""
        by_rule = self.layers[exchange][0] == "recourse"
        return bool(self.net.columns("exchanges")["recourse"][exchange]) or by_rule

    def layers_of(self, exchange: int) -> tuple[str, ...]:
        """Names of the layers of an exchange: with recourse, the traders come first."""
        names = tuple(name for name in self.layers[exchange] if name != "recourse")
        return ("recourse", *names) if self.has_recourse(exchange) else names

    def marks(self) -> NDArray[np.float64]:
        """Mark of every market now: what its price source last said, else the price of the book it trades on."""
        return self._marked(self.book_prices(), self.quotes.marks)

    def opening_marks(self) -> NDArray[np.float64]:
        """Mark of every market right after the shock."""
        return self._marked(np.array(self.markets.shocked), self.quotes.opening)

    def _marked(self, prices: NDArray[np.float64], said: NDArray[np.float64]) -> NDArray[np.float64]:
        prices[self.quotes.market] = said
        return prices

    def book_prices(self) -> NDArray[np.float64]:
        """Price of every market now on the book it trades on: the next unit is sold at it."""
        return np.asarray(self.markets.shocked * self._left()[self.markets.book])

    def prices(self) -> NDArray[np.float64]:
        """Price of every asset on its shared book, then of every market on the book it trades on."""
        left = self._left()
        shared = self.asset_base * left[: len(self.asset_base)]
        return np.concatenate([shared, self.markets.shocked * left[self.markets.book]])

    def asset_prices(self) -> NDArray[np.float64]:
        """Price of every asset outside the exchanges now: the shared book's."""
        return np.asarray(self.asset_base * self._left()[: len(self.asset_base)])

    def _left(self) -> NDArray[np.float64]:
        """Return what trades have left of the price of every book."""
        books = self.books
        return quotes(self.forms, np.ones(len(books)), books.sold, books.depth)

    @functools.cached_property
    def forms(self) -> Forms:
        """Impact forms of all books."""
        books = self.books
        return Forms(books.form, books.first, books.last, NO_LEVELS if self.levels is None else self.levels)

    def push(self, books: Any, units: Any) -> None:
        """Add net quantities sold on some books, each named once."""
        self.books["sold"][books] += units
        self.books["passing"][books] += units * (1.0 - self.books.permanent[books])

    def fade(self) -> None:
        """Let a round pass over the passing impact of every book."""
        gone = self.books.passing * (1.0 - self.books.resilience)
        self.books["sold"] -= gone
        self.books["passing"] -= gone

    def fading(self) -> NDArray[np.float64]:
        """Part of the depth by which every book is still to come back: up, where above 0; 0 where that is nothing."""
        part = np.where(self.books.resilience < 1.0, self.books.passing / self.books.depth, 0.0)
        return np.where(np.abs(part) > FADED, part, 0.0)


class Taken(NamedTuple):
    """What a later shock took: wealth of every bearer [num], the value of their units in it [num], units by asset."""

    wealth: NDArray[np.float64]
    value: NDArray[np.float64]
    units: NDArray[np.float64]


@dataclass(eq=False)
class Transit:
    """Withdrawals on their way, in the order of their requests.

    Each has the entry it goes to (a wallet: -1 - its row) and the one it comes from, units, and the round it is due.
    Those of one ``batch`` were asked for at once.
    """

    target: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    source: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    units: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    due: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    batch: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))


@dataclass(eq=False)
class Live(State):
    """The state while a run goes on: only accounts that can act have a row, a seat; the overlay opens them.

    ``lots`` is what exchanges took over and have not sold, ``auctions`` the terms of their auctions. ``transit`` holds
    withdrawals on their way, ``investors`` the holdings of those who trade without being called, ``runs`` the deposits
    of those who may take fright.
    """

    overlay: Overlay
    lots: Lots
    auctions: Any
    struck_assets: NDArray[np.float64] | None = None  # external assets after a later shock
    taken: list[Taken] = field(default_factory=list)
    transit: Transit = field(default_factory=Transit)
    investors: Investors | None = None
    runs: Runs | None = None

    @property
    def external_assets(self) -> NDArray[np.float64]:
        """External assets of every trader now [num]."""
        return self.shock.external_assets(self.net) if self.struck_assets is None else self.struck_assets


@dataclass(eq=False)
class Whole(State):
    """The state with a row for every trader, account, balance and wallet of the network."""

    holdings: tuple[NDArray[Any], NDArray[Any], NDArray[np.float64]]
    external_assets: NDArray[np.float64]
    transit: tuple[NDArray[Any], NDArray[Any], NDArray[np.float64]]
    taken: list[Taken] = field(default_factory=list)
    opening: dict[str, Any] = field(default_factory=dict)

    def account_equity(self, marks: NDArray[np.float64]) -> NDArray[np.float64]:
        """Signed equity of every account [num]."""
        size, positions = len(self.accounts), self.positions
        held = (self.entries.deposited - self.entries.borrowed) * marks[self.entries.market]
        gained = group_sum(positions.account, gains(self.markets, positions, marks), size)
        return group_sum(self.entries.account, held, size) + gained

    def health(self, marks: NDArray[np.float64]) -> NDArray[np.float64]:
        """Health of every account, +inf where nothing is to be backed."""
        return self.terms.health(self.accounts.test, self.entries, self.positions, marks)


def records(**columns: tuple[ArrayLike, Any]) -> Any:
    """Lay columns (values, dtype) out as one record array of the network's own size, whose fields are its columns."""
    arrays = {name: np.asarray(values) for name, (values, _) in columns.items()}
    dtype = np.dtype([(name, kind) for name, (_, kind) in columns.items()], align=True)
    table = np.zeros(len(next(iter(arrays.values()))), dtype=np.dtype((np.record, dtype)))
    for name, values in arrays.items():
        table[name] = values
    return table.view(Columns)


def longer(table: Any, size: int) -> Any:
    """Return the table, or a longer copy with zeros at its end where it has not that many rows."""
    if size <= len(table):
        return table
    copy = np.zeros(4 * size, dtype=table.dtype)  # pages that are never written to take no memory
    copy[: len(table)] = table
    return copy.view(type(table))


def bearers(net: ExposureNetwork) -> tuple[str, ...]:
    """Bearers beside traders and exchanges: arbitrageurs where the network has any, then those that all have."""
    return ("arbitrageurs", *BEARERS) if (net.columns("assets")["arbitrage"] > 0).any() else BEARERS


def bearer_labels(net: ExposureNetwork) -> list[Any]:
    """Labels of all bearers: nodes, then those that are no node."""
    nodes = net.nodes.to_numpy(dtype=object).tolist()
    return [*nodes, *(("bearer", name) if name in nodes else name for name in bearers(net))]


def called(health: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which healths are below 1, beyond rounding."""
    return health < 1 - HEALTH_TOL
