"""Whose doing a loss is: losses of every bearer by channel and cause, read from the ledger and the event log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from netcontagion._arrays import group_sum
from netcontagion.errors import ContagionError
from netcontagion.margining._events import TYPES
from netcontagion.margining._ledger import default_costs
from netcontagion.margining._state import (
    CHANNELS,
    COUNTERPARTY,
    DEFICIT,
    EXECUTION,
    IMPACT,
    MUTUALISATION,
    PENALTY,
    SHOCK,
    bearer_labels,
)
from netcontagion.margining._valuation import INVERSE, coins, worth
from netcontagion.margining._whole import open_whole

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netcontagion.margining._result import CascadeResult
    from netcontagion.margining._state import Whole

    Floats = NDArray[np.float64]
    Codes = NDArray[np.int64]

__all__ = ["Trace", "trace"]


class Trace(NamedTuple):
    """Losses by channel and cause; sources are bearers, then ``via``, then ``origins``.

    ``channels`` holds a csr_array (sources, bearers) of losses [num] for every channel: its columns add up to what
    bearers lose by it. Between who acts and who loses stand ``via``: the price of a book, the deficits of an exchange.
    ``feeds`` (sources, via) says who moved them, each column in shares of 1. ``origins`` are (kind, label): the price
    of an asset that the shock moved, or a bearer by itself. ``holes`` (bearers) is what bearers lack by themselves.
    """

    bearers: list[Any]
    via: list[tuple[str, Any]]
    origins: list[tuple[str, Any]]
    channels: dict[str, Any]
    feeds: Any
    holes: Floats


def trace(run: CascadeResult) -> Trace:
    """Split the losses of a cascade by who caused them.

    Every column below is split in shares that are not negative, so it adds up to the loss in the ledger:

    shock
        By asset: units before the shock times the fall of their price; the rest is the bearer's own.
    impact
        By book: units in the middle between opening and end, times the fall of the mark. What trades in between were
        worth more or less than that lies on the books whose units changed, by change of units times fall. A book was
        moved by those who sold there on balance, in proportion (by buyers where more was bought).
    execution, penalty
        Of traders: by whoever made them trade, in proportion to the money traded. That is the owner of the nearest
        event up the log that is not their own, or the shock. Of all others: by those who traded, by money too.
    deficit, mutualisation
        By the traders who left deficits. What a trader gains by its own hole stands against itself.
    counterparty
        By the debtor who did not pay; what a debtor keeps stands against itself.

    Parameters
    ----------
    run : CascadeResult
        What a cascade returned.

    Returns
    -------
    Trace
        Losses by channel, source and bearer as sparse arrays.

    Raises
    ------
    ContagionError
        Losses are no number: the run ended as NONFINITE.

    Examples
    --------
    >>> import netcontagion as nc
    >>> run = nc.cascade(nc.datasets.load("market"), nc.Shock.price({"ETH": -0.3}, family=True))
    >>> found = nc.margining.trace(run)
    >>> [float(round(found.channels[name].sum() / 1e6, 2)) for name in ("shock", "impact")]
    [14.35, 6.69]
    """
    if not np.isfinite(run._bearer_losses).all():
        message = f"losses are no number in a run that ended {run.status.name}: there is nothing to trace"
        raise ContagionError(message)
    return _Tracing(run).trace()


class _Tracing:
    """The parts of a trace, in codes: bearers, then books and exchanges, then assets and bearers by themselves."""

    def __init__(self, run: CascadeResult) -> None:
        self.run, self.state, self.losses = run, run._state, run._bearer_losses
        net = self.net = run.network
        self.start = open_whole(run._play.state)
        self.n_assets, self.n_traders = len(net.labels("assets")), len(net.labels("traders"))
        self.n_exchanges, self.n_markets = len(net.labels("exchanges")), len(net.book.market_mark)
        self.n_books = self.n_assets + self.n_markets
        self.n_bearers = self.losses.shape[1]
        self.first_via = self.n_bearers
        self.first_asset = self.first_via + self.n_books + self.n_exchanges
        self.first_own = self.first_asset + self.n_assets
        self.size = self.first_own + self.n_bearers
        self.asset_of = np.concatenate([net.book.market_asset.astype(np.int64), np.arange(self.n_assets)])
        self.book_of = np.concatenate([self.state.markets.book.astype(np.int64), np.arange(self.n_assets)])
        self.events = _Log(run, self.book_of)

    def trace(self) -> Trace:
        shock = self._shock()
        by_shock = self._start_of(shock)
        channels = {
            SHOCK: shock,
            IMPACT: self._impact(),
            EXECUTION: self._trading(EXECUTION, by_shock),
            PENALTY: self._trading(PENALTY, by_shock),
            DEFICIT: self._deficit(),
            MUTUALISATION: self._mutualisation(),
            COUNTERPARTY: self._counterparty(),
        }
        net, used = self.net, bearer_labels(self.net)
        assets, exchanges = list(net.labels("assets")), list(net.labels("exchanges"))
        book = net.book
        own = [
            (assets[asset], exchanges[place])
            for asset, place in zip(book.market_asset.tolist(), book.market_exchange.tolist(), strict=True)
        ]
        return Trace(
            bearers=used,
            via=[("price", name) for name in (*assets, *own)] + [("deficits", name) for name in exchanges],
            origins=[("price", name) for name in assets] + [("own", name) for name in used],
            channels={name: channels[place] for place, name in enumerate(CHANNELS)},
            feeds=self._feeds(),
            holes=np.zeros(self.n_bearers),
        )

    # channels -----------------------------------------------------------------------------------------------------

    def _shock(self) -> Any:
        """Price falls of the shock by asset, what it took otherwise by bearer; later shocks by the units at first."""
        opening, size = self.state.opening, len(self.asset_of)
        before = np.concatenate([worth(self.start.markets, opening["marks"]), opening["prices"]])
        units = _units(self.start)
        falls = units.multiply(before - opening["base"]).tocoo()
        first = self.losses[SHOCK] - sum((taken.wealth for taken in self.state.taken), np.zeros(self.n_bearers))
        own = first - np.asarray(falls.sum(axis=1))
        entries = [(self.first_asset + self.asset_of[falls.col], falls.row, falls.data)]
        if self.state.taken:
            own = own + sum(taken.wealth - taken.value for taken in self.state.taken)
            value = np.asarray(sum(taken.value for taken in self.state.taken))
            weights = units.multiply(np.abs(opening["base"] * (1 - self._later_factors(size)))).tocoo()
            rows = (self.first_asset + self.asset_of[weights.col], weights.row, np.abs(weights.data))
            later = self._split([rows], value, self.first_own + np.arange(self.n_bearers)).tocoo()
            entries.append((later.row, later.col, later.data))
        least = 1e-12 * np.maximum(np.abs(self.losses[SHOCK]), np.abs(opening["wealth"]))
        rounding = np.abs(own) <= least  # goes to where most of the fall is
        spread = self._split([entries[0]], np.where(rounding, own, 0.0), self.first_own + np.arange(self.n_bearers))
        spread = spread.tocoo()
        real = np.flatnonzero(~rounding)
        entries += [(spread.row, spread.col, spread.data), (self.first_own + real, real, own[real])]
        return self._matrix(entries)

    def _later_factors(self, size: int) -> Floats:
        """Factor of all later shocks on the worth of each place."""
        shared = np.ones(self.n_assets)
        for _, strike in self.run.shock.strikes[1:]:
            shared = shared * strike.price_factors(self.net)
        found: Floats = shared[self.asset_of]
        markets = self.start.markets
        inverse = np.flatnonzero(markets.kind == INVERSE)
        found[inverse] = np.divide(
            found[markets.settle[inverse]], found[inverse], out=np.zeros(len(inverse)), where=found[inverse] > 0
        )
        return found[:size]

    def _impact(self) -> Any:
        opening, state = self.state.opening, self.state
        base = opening["base"] * self._later_factors(len(self.asset_of))
        fall = base - np.concatenate([worth(state.markets, state.marks()), state.asset_prices()])
        start, end = _units(self.start), _units(state)
        middle = ((start + end) * 0.5).multiply(fall).tocsr()
        changed = abs((end - start).multiply(fall))
        weights = (changed + abs(middle) if state.taken else changed).tocoo()
        rest = self.losses[IMPACT] - np.asarray(middle.sum(axis=1))
        main = middle.tocoo()
        rows = (self.first_via + self.book_of[weights.col], weights.row, weights.data)
        fallback = self._largest(main)
        spread = self._split([rows], rest, fallback).tocoo()
        return self._matrix(
            [(self.first_via + self.book_of[main.col], main.row, main.data), (spread.row, spread.col, spread.data)]
        )

    def _largest(self, held: Any) -> Codes:
        """Find the place where each bearer is moved most by prices; itself where none moves it."""
        found: Codes = self.first_own + np.arange(self.n_bearers)
        order = np.argsort(np.abs(held.data), kind="stable")
        found[held.row[order]] = self.first_via + self.book_of[held.col[order]]
        return found

    def _trading(self, channel: int, by_shock: Codes) -> Any:
        """Split what a trader loses by who made it trade, what others lose by the traders that made them trade."""
        log, cut = self.events, self.n_traders
        rows = np.flatnonzero((log.cash > 0) & log.traded & (log.actor >= 0) & (log.actor < cut))
        actor, exchange, cash = log.actor[rows], log.exchange[rows], log.cash[rows]
        here, outside = np.flatnonzero(exchange >= 0), np.arange(cut + self.n_exchanges, self.n_bearers)
        traded = group_sum(actor, cash, cut)
        busy = np.flatnonzero(traded)
        weights = [
            (np.where(log.cause[rows] >= 0, log.cause[rows], by_shock[actor]), actor, cash),
            (actor[here], cut + exchange[here], cash[here]),
            (np.tile(busy, len(outside)), np.repeat(outside, len(busy)), np.tile(traded[busy], len(outside))),
        ]
        fallback = self.first_own + np.arange(self.n_bearers)
        fallback[:cut] = by_shock[:cut]
        return self._split(weights, self.losses[channel], fallback)

    def _start_of(self, shock: Any) -> Codes:
        """Origin through which the shock hit each bearer hardest; itself where it did not."""
        entries = shock.tocoo()
        found: Codes = self.first_own + np.arange(self.n_bearers)
        hit = np.flatnonzero(entries.data > 0)
        order = hit[np.lexsort((-entries.row[hit], entries.data[hit]))]
        found[entries.col[order]] = entries.row[order]
        return found

    def _deficit(self) -> Any:
        losses, cut = self.losses[DEFICIT], self.n_traders
        own = losses.copy()
        own[cut:] = 0.0
        traders = np.flatnonzero(own)
        mine = self._matrix([(traders, traders, own[traders])])
        actor, exchange, left = self.events.deficits
        return mine + self._split([(actor, cut + exchange, left)], losses - own, np.arange(self.n_bearers))

    def _mutualisation(self) -> Any:
        """By exchange: by the deposits of the assets in which it had deficits; who has none, by all it has there.

        What exchanges hand on they got from those who left the deficits.
        """
        book, account = self.net.book, self.net.columns("accounts")
        owner, venue = account["trader"].astype(np.int64), account["exchange"].astype(np.int64)
        actor, exchange, left = self.events.deficits
        lost = group_sum(exchange, left, self.n_exchanges)
        missing = group_sum(self.events.deficit_place, left, len(self.asset_of))[: self.n_markets]
        deposits = book.deposited * book.balance_mark
        supplied = (
            deposits * _per(missing, group_sum(book.balance_market, deposits, self.n_markets))[book.balance_market]
        )
        suppliers = book.balance_account
        held = group_sum(book.balance_account, deposits, len(owner)) + account["default_fund"]
        held = held + group_sum(book.position_account, np.asarray(book.notional()), len(owner))
        held = held * _per(lost, group_sum(venue, held, self.n_exchanges))[venue]
        held[group_sum(owner[suppliers], supplied, self.n_traders)[owner] > 0] = 0.0
        pools = self.first_via + self.n_books
        fallback = self.first_own + np.arange(self.n_bearers)
        if lost.any():
            fallback[:] = pools + int(np.argmax(lost))
        weights = [
            (pools + venue[suppliers], owner[suppliers], supplied),
            (pools + venue, owner, held),
            (actor, self.n_traders + exchange, left),
        ]
        return self._split(weights, self.losses[MUTUALISATION], fallback)

    def _counterparty(self) -> Any:
        clearing = self.run.clearing
        if clearing is None:
            return self._matrix([])
        values, nodes = clearing.values, len(self.net.nodes)
        unpaid = (clearing.liabilities - clearing.payment_matrix()).tocoo()
        kept = default_costs(clearing) - (values.dues - values.payments)
        outside = values.dues - np.asarray(clearing.liabilities.sum(axis=1)) - values.payments_external
        places = np.arange(nodes)
        last = np.full(nodes, self.n_bearers - 1)
        return self._matrix([(unpaid.row, unpaid.col, unpaid.data), (places, places, kept), (places, last, outside)])

    # who moved prices and left deficits ---------------------------------------------------------------------------

    def _feeds(self) -> Any:
        from scipy.sparse import coo_array, csc_array

        log, width = self.events, self.n_books + self.n_exchanges
        sold = self._sold()
        total = np.asarray(sold.sum(axis=0))
        signed = (sold.multiply(np.where(total >= 0, 1.0, -1.0))).tocoo()
        keep = signed.data > 0
        source, book, data = signed.row[keep], signed.col[keep], signed.data[keep]
        lone = np.setdiff1d(np.arange(self.n_books), book)
        asset = np.concatenate([np.arange(self.n_assets), self.net.book.market_asset])
        source = np.concatenate([source, self.first_asset + asset[lone]])
        book, data = np.concatenate([book, lone]), np.concatenate([data, np.ones(len(lone))])
        actor, exchange, left = log.deficits
        idle = np.setdiff1d(np.arange(self.n_exchanges), exchange)
        source = np.concatenate([source, actor, self.first_own + self.n_traders + idle])
        pool = np.concatenate([exchange, idle])
        column = np.concatenate([book, self.n_books + pool])
        data = np.concatenate([data, left, np.ones(len(idle))])
        feeds = csc_array(coo_array((data, (source, column)), shape=(self.size, width)))
        return feeds.multiply(1.0 / np.asarray(feeds.sum(axis=0))).tocsr()

    def _sold(self) -> Any:
        """Units sold on each book on balance, by source; what the log does not show exchanges sold themselves.

        Marks of a book on which nobody traded follow other books: those of the asset, then those of its underlying.
        """
        from scipy.sparse import coo_array

        log, shape = self.events, (self.size, self.n_books)
        actor = np.where(log.actor >= 0, log.actor, self.first_asset + log.asset)
        rows = np.flatnonzero((log.sign != 0) & (log.quantity > 0))
        units = log.sign[rows] * log.quantity[rows]
        net_sold = self.state.ledger.bought - self.state.ledger.passed
        place = log.place[rows]
        unseen = net_sold - group_sum(place, units, len(self.asset_of))
        scale = np.maximum(group_sum(place, np.abs(units), len(self.asset_of)), np.abs(net_sold))
        house = np.flatnonzero(np.abs(unseen[: self.n_markets]) > 1e-9 * scale[: self.n_markets])
        seller = self.n_traders + self.net.book.market_exchange[house].astype(np.int64)
        data = np.concatenate([units, unseen[house]])
        source = np.concatenate([actor[rows], seller])
        sold = coo_array((data, (source, np.concatenate([self.book_of[place], self.book_of[house]]))), shape=shape)
        sold = sold.tocsr()
        return sold + self._followed(sold)

    def _followed(self, sold: Any) -> Any:
        """Return what was sold elsewhere of the asset of a book on which nobody traded, or of its underlying."""
        from scipy.sparse import coo_array

        asset = np.concatenate([np.arange(self.n_assets), self.net.book.market_asset]).astype(np.int64)
        by_asset = sold @ coo_array(
            (np.ones(self.n_books), (np.arange(self.n_books), asset)), shape=(self.n_books, self.n_assets)
        )
        silent = np.flatnonzero(np.diff(sold.tocsc().indptr) == 0)
        codes = {name: place for place, name in enumerate(self.net.labels("assets"))}
        parents = [codes.get(name, -1) for name in self.net.columns("assets")["underlying"]]
        busy = np.diff(by_asset.tocsc().indptr) > 0
        leader = np.where(busy, np.arange(self.n_assets), parents)[asset[silent]]
        known = (leader >= 0) & busy[leader]
        pick = coo_array(
            (np.ones(int(known.sum())), (leader[known], silent[known])), shape=(self.n_assets, self.n_books)
        )
        return by_asset @ pick

    # matrices -----------------------------------------------------------------------------------------------------

    def _matrix(self, entries: list[tuple[Any, Any, Any]]) -> Any:
        from scipy.sparse import coo_array

        if not entries:
            return coo_array((self.size, self.n_bearers)).tocsr()
        row, column, data = (np.concatenate([np.asarray(entry[place]) for entry in entries]) for place in range(3))
        return coo_array((data, (row, column)), shape=(self.size, self.n_bearers)).tocsr()

    def _split(self, weights: list[tuple[Any, Any, Any]], amounts: Floats, fallback: Codes) -> Any:
        """Split the amount of every bearer in proportion to weights of its sources; without any, one source has all."""
        shares = self._matrix([(row, column, np.abs(data)) for row, column, data in weights])
        total = np.asarray(shares.sum(axis=0))
        scale = np.divide(amounts, total, out=np.zeros(len(amounts)), where=total > 0)
        bare = np.flatnonzero((total <= 0) & (amounts != 0))
        return shares.multiply(scale).tocsr() + self._matrix([(fallback[bare], bare, amounts[bare])])


class _Log:
    """What tracing reads of the event log: actors, exchanges, places, units, money, and who caused what."""

    def __init__(self, run: CascadeResult, book_of: Codes) -> None:
        net, play = run.network, run._play
        columns = play.events.columns()
        owner = net.columns("accounts")["trader"].astype(np.int64)
        n_traders, n_assets = len(net.labels("traders")), len(net.labels("assets"))
        account = columns["account"]
        debit, credit = columns["debit"], columns["credit"]
        named = np.where(
            (credit >= 0) & (credit < n_traders), credit, np.where((debit >= 0) & (debit < n_traders), debit, -1)
        )
        known = owner[account] if len(owner) else account
        actor = np.where(account >= 0, known, named)
        market = -2
        self.sign = np.where(debit == market, 1.0, np.where(credit == market, -1.0, 0.0))
        self.exchange, self.asset = columns["exchange"], columns["asset"]
        self.quantity, self.cash = np.nan_to_num(columns["quantity"]), np.nan_to_num(columns["cash"])
        self.actor, self.cause = _causes(actor, columns["parent"])
        kinds = columns["type"]
        types = {name: code for code, name in enumerate(TYPES)}
        left = np.flatnonzero((kinds == types["deficit"]) & (self.actor >= 0) & (self.cash > 0))
        self.traded = (self.sign != 0) | np.isin(kinds, [types[name] for name in _CHARGED])
        book, exchange = net.book, np.maximum(self.exchange, 0)
        key = book.market_exchange.astype(np.int64) * n_assets + book.market_asset
        wanted = exchange * n_assets + self.asset
        row = np.minimum(np.searchsorted(key, wanted), max(len(key) - 1, 0))
        inside = (self.exchange >= 0) & (key[row] == wanted) if len(key) else np.zeros(len(wanted), dtype=bool)
        self.place = np.where(inside, row, len(key) + self.asset)
        self.deficits = (self.actor[left], self.exchange[left], self.cash[left])
        self.deficit_place = self.place[left]


_CHARGED = ("liquidation", "absorb", "charge", "take", "takeover", "auto_deleveraging")


def _per(amount: Floats, total: Floats) -> Floats:
    return np.divide(amount, total, out=np.zeros(len(amount)), where=total > 0)


def _causes(actor: Codes, parent: Codes) -> tuple[Codes, Codes]:
    """Name the actor of every event, and whose event led to it (-1: the shock).

    An event of nobody is that of the nearest one above it; who leads to an event is the nearest above that is another.
    """
    found, above = actor.copy(), parent.copy()
    open_rows = np.flatnonzero((found < 0) & (above > 0))
    while len(open_rows):
        found[open_rows] = actor[above[open_rows]]
        above[open_rows] = parent[above[open_rows]]
        open_rows = open_rows[(found[open_rows] < 0) & (above[open_rows] > 0)]
    above = parent.copy()
    open_rows = np.flatnonzero(above > 0)
    open_rows = open_rows[(found[above[open_rows]] == found[open_rows]) | (found[above[open_rows]] < 0)]
    while len(open_rows):
        above[open_rows] = parent[above[open_rows]]
        open_rows = open_rows[above[open_rows] > 0]
        open_rows = open_rows[(found[above[open_rows]] == found[open_rows]) | (found[above[open_rows]] < 0)]
    return found, np.where(above > 0, found[np.maximum(above, 0)], -1)


def _units(state: Whole) -> Any:
    """Units of every bearer by place: markets, then assets outside exchanges; what ``unit_value`` is the value of."""
    from scipy.sparse import coo_array

    n_traders, markets, ledger = state.n_traders, len(state.markets), state.ledger
    entries, positions, wallets = state.entries, state.positions, state.wallets
    owner = state.accounts.trader
    holder, asset, units = state.holdings
    mover, origin, moving = state.transit
    places, outside = np.arange(markets), np.flatnonzero(state.fund_asset >= 0)
    own = ledger.fees + ledger.pool + ledger.inventory - ledger.owed - ledger.hole - ledger.short
    bought = np.flatnonzero(ledger.bought)
    parts = [
        (owner[entries.account], entries.market, entries.deposited - entries.borrowed),
        (owner[positions.account], positions.market, positions.quantity),
        (wallets.trader, markets + wallets.asset.astype(np.int64), wallets.units),
        (holder, markets + np.asarray(asset, dtype=np.int64), units),
        (mover, origin, moving),
        (n_traders + outside, markets + state.fund_asset[outside].astype(np.int64), state.fund_units[outside]),
        (n_traders + state.markets.exchange.astype(np.int64), places, own),
        (np.full(len(bought), len(ledger.cash) - 2), bought, ledger.bought[bought]),
    ]
    inverse = np.flatnonzero(state.markets.kind[positions.market] == INVERSE)
    if len(inverse):
        coin = state.markets.settle[positions.market[inverse]]
        parts.append((owner[positions.account[inverse]], coin, coins(state.markets, positions)[inverse]))
    row, column, data = (np.concatenate([np.asarray(part[side]) for part in parts]) for side in range(3))
    shape = (len(ledger.cash), markets + len(state.asset_base))
    return coo_array((data, (row, column)), shape=shape).tocsr()
