"""Accounts opened in one run: only they can act, only they are written to. Everybody else is as the network says.

A trader takes part with all accounts at once: a called account may be helped from another one. Seats are numbered in
the order of opening; the tables of the board have a row for each, and room for more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from netcontagion._arrays import blank, distinct, group_sum
from netcontagion._compile import kernel
from netcontagion.margining._index import index_of
from netcontagion.margining._margin_scan import margin_index_of
from netcontagion.margining._policies import by_policy
from netcontagion.margining._posting import spans
from netcontagion.margining._state import MUTUALISATION, longer, no_zeros, records, vaults_of
from netcontagion.margining._valuation import LENDING

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

    from netcontagion.margining._index import Index
    from netcontagion.margining._margin_scan import MarginIndex
    from netcontagion.margining._state import Board, Entries, Ledger
    from netcontagion.margining._strokes import Stroke
    from netcontagion.network import ExposureNetwork

__all__ = ["Overlay", "empty_tables"]

NOISE = 1e-5  # of a market's deposits: less may be nothing but rounding
MANY = 4096  # accounts opened together that are copied by a compiled loop
_LAYOUTS: dict[str, dict[str, Any]] = {
    "accounts": {
        "trader": np.int32,
        "exchange": np.int32,
        "first": np.int64,
        "last": np.int64,
        "of_trader": np.int64,
        "bonus": float,
        "opening_debt": float,
        "forced": np.uint8,
        "test": np.uint8,
        "first_position": np.int64,
        "last_position": np.int64,
        "gains": float,
        "required": float,
        "waiting": float,
    },
    "entries": {
        "account": np.int32,
        "market": np.int32,
        "deposited": float,
        "borrowed": float,
        "threshold": float,
        "coming": float,
    },
    "positions": {"account": np.int32, "market": np.int32, "quantity": float, "entry": float, "largest": float},
    "traders": {
        "first": np.int64,
        "last": np.int64,
        "first_wallet": np.int64,
        "last_wallet": np.int64,
        "top_up": np.uint8,
        "withdraw": np.uint8,
        "reduce": np.uint8,
        "target": float,
        "keep": float,
        "lag": np.int64,
        "probability": float,
    },
    "wallets": {"trader": np.int32, "asset": np.int32, "units": float},
}


class Balances(NamedTuple):
    """Rows of some accounts: place of the account, market, units and threshold; by account, then by market."""

    place: NDArray[Any]
    market: NDArray[Any]
    deposited: NDArray[np.float64]
    borrowed: NDArray[np.float64]
    threshold: NDArray[np.float64]


class Held(NamedTuple):
    """Contracts of some accounts: place of the account, market, quantity and entry price; by account and market."""

    place: NDArray[Any]
    market: NDArray[Any]
    quantity: NDArray[np.float64]
    entry: NDArray[np.float64]


def empty_tables() -> dict[str, Any]:
    """Tables of a board without a row."""
    return {
        name: records(**{key: (np.zeros(0), kind) for key, kind in part.items()}) for name, part in _LAYOUTS.items()
    }


@kernel
def copy_balances(
    accounts: NDArray[np.int64],
    start: NDArray[Any],
    market: NDArray[np.int32],
    deposited: NDArray[np.float64],
    borrowed: NDArray[np.float64],
    threshold: NDArray[np.float64],
    numbers: NDArray[np.float64],
    entries: Entries,
    seat: int,
    place: int,
    trader: NDArray[np.int64],
    lost: NDArray[np.float64],
    debt: NDArray[np.float64],
) -> None:
    """Copy the balances of accounts into entries from ``place`` on; add up what was lost by trader, and debts.

    ``numbers`` holds by market the shocked mark, the share suppliers have left, the value a unit lost, and the units
    and the number of deposits without a seat, which fall.
    """
    e = place
    for i in range(len(accounts)):
        owed = 0.0
        for row in range(start[accounts[i]], start[accounts[i] + 1]):
            m, units, entry = market[row], deposited[row], entries[e]
            entry.account, entry.market = seat + i, m
            entry.deposited, entry.borrowed = units * numbers[1, m], borrowed[row]
            entry.threshold = threshold[row]
            if units > 0.0:
                lost[trader[i]] += units * numbers[2, m]
                numbers[3, m] -= units
                numbers[4, m] -= 1.0
            owed += borrowed[row] * numbers[0, m]
            e += 1
        debt[i] = owed


@dataclass(eq=False)
class Overlay:
    """Seats of one run. ``code`` is the account of each seat, ``owner`` the trader of each of their traders.

    ``defaulted`` marks traders that a shock made fail, with nothing left, ``insolvent`` those who cannot pay dues.
    ``share`` is what suppliers of a market have left of a unit, ``cut`` the value a unit lost when it was taken [num];
    ``cold`` and ``holders`` count the deposits of accounts not opened, by market, in units of the network; ``strokes``
    are those accounts without a seat that sold all their collateral.
    """

    net: ExposureNetwork
    switches: Collection[str]
    defaulted: NDArray[np.bool_]
    prices: NDArray[np.float64]
    shocked: NDArray[np.float64]
    settle: NDArray[np.int64]

    def __post_init__(self) -> None:
        n_markets = len(self.shocked)
        self.code, self.owner = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        self.insolvent = blank(len(self.defaulted), bool)
        self.used = dict.fromkeys(_LAYOUTS, 0)
        self.share, self.cut = np.ones(n_markets), np.zeros(n_markets)
        self.cold, self.holders = self.index.supply.copy(), self.index.suppliers.copy()
        self.sorted = [(np.zeros(0, dtype=np.int64), np.zeros(n_markets + 1, dtype=np.int64))]
        self.sorted_to = 0
        self.strokes: list[Stroke] = []

    def __getstate__(self) -> dict[str, Any]:
        return {name: no_zeros(value) for name, value in vars(self).items()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, np.zeros(*value) if isinstance(value, tuple) else value)

    @property
    def index(self) -> Index:
        """Indebted accounts of the network."""
        return index_of(self.net)

    @property
    def margin(self) -> MarginIndex:
        """Margin accounts of the network."""
        return margin_index_of(self.net)

    def has_failed(self, traders: NDArray[Any]) -> NDArray[np.bool_]:
        """Which of these traders have their accounts closed by force, and answer no more."""
        return np.asarray(self.defaulted[traders] | self.insolvent[traders])

    @property
    def vault(self) -> NDArray[np.int64]:
        """Backstop account of every exchange."""
        return vaults_of(self.net)

    @property
    def accounts(self) -> NDArray[np.int64]:
        """Accounts that have a seat, in the order of their seats."""
        return self.code[: self.used["accounts"]]

    @property
    def traders(self) -> NDArray[np.int64]:
        """Traders that have a seat, in the order of their seats."""
        return self.owner[: self.used["traders"]]

    def codes_of(self, who: NDArray[np.int64]) -> NDArray[np.int64]:
        """Accounts of seats, or of places without one (-1 - place)."""
        bare = who < 0
        found = np.empty(len(who), dtype=np.int64)
        found[~bare], found[bare] = self.code[who[~bare]], self.index.order[-1 - who[bare]]
        return found

    def cold_units(self, market: int) -> float:
        """Units that accounts without a seat still have deposited in a market."""
        if not self.holders[market]:
            return 0.0
        if self.cold[market] < NOISE * self.index.supply[market]:  # a difference of large numbers: add up instead
            book, seated = self.net.book, np.zeros(len(self.index.start), dtype=bool)
            seated[self.accounts] = True
            rows = np.flatnonzero((book.balance_market == market) & ~seated[book.balance_account])
            sold = np.zeros(len(seated), dtype=bool)
            for stroke in self.strokes:
                sold[self.index.order[stroke.place]] = True
            rows = rows[~(sold[book.balance_account[rows]] & (book.threshold[rows] > 0))]
            self.cold[market] = book.deposited[rows].sum()
        return float(self.cold[market]) * float(self.share[market])

    def suppliers(self, entries: Entries, market: int) -> NDArray[np.int64]:
        """Entries of seats that hold, or may come to hold, deposits in a market."""
        first, last = self.sorted_to, self.used["entries"]
        if first < last:
            fresh = entries[first:last]
            credited = (fresh.borrowed > 0) & self.index.credits[fresh.market]
            rows = np.flatnonzero((fresh.deposited > 0) | (fresh.threshold > 0) | credited)
            venue = fresh.market[rows]
            order = np.argsort(venue, kind="stable")
            start = np.searchsorted(venue[order], np.arange(len(self.shocked) + 1))
            self.sorted.append((rows[order] + first, start))
            self.sorted_to = last
        return np.concatenate([rows[start[market] : start[market + 1]] for rows, start in self.sorted])

    def cut_suppliers(self, market: int, share: float, price: float) -> None:
        """Take a share of all deposits in a market from accounts without a seat, at a price."""
        self.cut[market] += self.share[market] * share * price
        self.share[market] *= 1.0 - share

    # opening ------------------------------------------------------------------------------------------------------

    def with_peers(self, accounts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return these accounts and all others of their traders, by trader, and the places of the added ones."""
        index = self.index
        if not len(index.shared):
            return np.sort(accounts), np.zeros(0, dtype=np.int64)
        owner = self.net.columns("accounts")["trader"][accounts]
        found = np.minimum(np.searchsorted(index.shared, owner), len(index.shared) - 1)
        several = index.shared[found] == owner
        group = np.unique(found[several])
        rows, _ = spans(index.peer_start[group], index.peer_start[group + 1])
        place = index.peer_place[rows]
        return np.concatenate([np.sort(accounts[~several]), index.peer_account[rows]]), place[place >= 0]

    def seat(self, board: Board, accounts: NDArray[np.int64], idle: NDArray[np.int64]) -> Board:
        """Return the board with seats for accounts, whole traders one by one, and for idle traders: they have none."""
        table, start = self.net.columns("accounts"), self.index.start
        owner = table["trader"][accounts]
        opens = np.diff(owner, prepend=-1) != 0
        owners, trader = np.concatenate([owner[opens], idle]), np.cumsum(opens) - 1
        wallets, purse = self._purses(owners)
        several = np.bincount(trader, minlength=len(owners)) > 1
        answers = self._answers(owners, several | (np.bincount(purse, minlength=len(owners)) > 0))
        test = self.margin.test[accounts]
        plain = len(accounts) >= MANY and not answers.any() and not test.any()
        balances, length = None, (start[accounts + 1] - start[accounts]).astype(np.int64)
        if not plain:
            balances = self._balances(accounts)
            if test.any():
                balances = self._with_room_to_settle(balances, accounts)
            if answers.any():
                balances = self._with_room_for_top_ups(balances, accounts, trader, answers, several, (purse, wallets))
            length = np.bincount(balances.place, minlength=len(accounts))
        begin = dict(self.used)
        held = self._held(accounts)
        sizes = (len(accounts), int(length.sum()), len(held.place), len(owners), len(purse))
        board = self._grown(board, dict(zip(_LAYOUTS, sizes, strict=True)))
        spots = {name: slice(begin[name], self.used[name]) for name in _LAYOUTS}
        self.code[spots["accounts"]], self.owner[spots["traders"]] = accounts, owners
        last = np.cumsum(length) + begin["entries"]
        lost, debt = np.zeros(len(owners)), np.empty(len(accounts))
        if balances is None:
            self._copy(board.entries, accounts, (begin["accounts"], begin["entries"]), trader, lost, debt)
        else:
            self._write(board.entries[spots["entries"]], balances, begin["accounts"], trader, lost, debt)
        board.ledger.loss[MUTUALISATION, spots["traders"]] += lost
        board.ledger.flow[spots["traders"]] -= lost
        rows: dict[str, dict[str, Any]] = {
            "accounts": {
                "trader": trader + begin["traders"],
                "exchange": table["exchange"][accounts],
                "first": last - length,
                "last": last,
                "of_trader": np.arange(begin["accounts"], self.used["accounts"]),
                "bonus": table["liquidation_bonus"][accounts],
                "opening_debt": debt,
                "forced": self.has_failed(owner),
                "waiting": 0.0,
                "test": test,
                **_ends("_position", held.place, len(accounts), begin["positions"]),
            },
            "positions": {
                "account": held.place + begin["accounts"],
                "market": held.market,
                "quantity": held.quantity,
                "entry": held.entry,
                "largest": np.abs(held.quantity),
            },
            "traders": {
                **_ends("", trader, len(owners), begin["accounts"]),
                **_ends("_wallet", purse, len(owners), begin["wallets"]),
                **self._manners(owners, answers),
            },
            "wallets": {"trader": purse + begin["traders"], **wallets},
        }
        for name, columns in rows.items():
            part = getattr(board, name)[spots[name]]
            for column, values in columns.items():
                part[column] = values
        return board

    def _write(
        self,
        entries: Any,
        balances: Balances,
        seat: int,
        trader: NDArray[np.int64],
        lost: NDArray[np.float64],
        debt: NDArray[np.float64],
    ) -> None:
        """Write balances into entries; note what each trader lost as a supplier so far, and debts by account."""
        market, size = balances.market, len(self.shocked)
        entries["account"], entries["market"] = balances.place + seat, market
        entries["deposited"] = balances.deposited * self.share[market]
        entries["borrowed"], entries["threshold"] = balances.borrowed, balances.threshold
        self.cold -= group_sum(market, balances.deposited, size)
        self.holders -= np.bincount(market[balances.deposited > 0], minlength=size)
        if self.cut.any():
            lost += group_sum(trader[balances.place], balances.deposited * self.cut[market], len(lost))
        debt[:] = group_sum(balances.place, balances.borrowed * self.shocked[market], len(debt))

    def _copy(
        self,
        entries: Entries,
        accounts: NDArray[np.int64],
        begin: tuple[int, int],
        trader: NDArray[np.int64],
        lost: NDArray[np.float64],
        debt: NDArray[np.float64],
    ) -> None:
        """Do what ``_write`` does, for many accounts."""
        book = self.net.book
        columns = (book.balance_market, book.deposited, book.borrowed, self.margin.weight)
        numbers = np.stack([self.shocked, self.share, self.cut, self.cold, self.holders.astype(float)])
        copy_balances(accounts, self.index.start, *columns, numbers, entries, *begin, trader, lost, debt)
        self.cold[:], self.holders[:] = numbers[3], numbers[4]

    def trimmed(self, board: Board) -> Board:
        """Return the board without room for more rows: nobody is opened any more."""
        tables = {name: getattr(board, name)[:used].copy() for name, used in self.used.items()}
        self.code, self.owner = self.accounts.copy(), self.traders.copy()
        spare = slice(self.used["traders"], len(board.traders))
        kept = {name: np.delete(getattr(board.ledger, name), spare, axis=-1) for name in ("loss", "flow", "cash")}
        return board._replace(**tables, ledger=board.ledger._replace(**kept))

    def _purses(self, owners: NDArray[Any]) -> tuple[dict[str, NDArray[Any]], NDArray[np.int64]]:
        """Wallets of some traders, the numeraire before the rest, then by value, and the place of the trader.

        Those who may run have one, which may be empty, for everything that can be withdrawn.
        """
        table, runs = self.net.columns("wallets"), by_policy(self.net, owners, "runs")[0]
        runs &= "withdrawal" in self.switches
        if not len(table["trader"]) and not runs.any():
            return {"asset": np.zeros(0, dtype=np.int32), "units": np.zeros(0)}, np.zeros(0, dtype=np.int64)
        ends = [np.searchsorted(table["trader"], owners, side=side) for side in ("left", "right")]
        rows, purse = spans(ends[0], ends[1])
        asset, held = table["asset"][rows], table["units"][rows]
        if runs.any():
            purse, asset, held = self._with_empty(np.flatnonzero(runs), purse, asset, held)
        is_money = np.asarray(self.net.labels("assets") == self.net.numeraire, dtype=bool)
        value = held * self.prices[asset]
        order = np.lexsort((asset, -value, ~is_money[asset], purse))
        units = np.where(self.defaulted[owners[purse]], 0.0, held)
        return {"asset": asset[order], "units": units[order]}, purse[order]

    def _with_empty(
        self, places: NDArray[np.int64], purse: NDArray[np.int64], asset: NDArray[Any], held: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[Any], NDArray[np.float64]]:
        """Add empty wallets, where the traders at these places have none, of all that is no contract."""
        n_assets = len(self.prices)
        spot = np.flatnonzero(~np.isin(self.net.columns("assets")["kind"], ("linear", "inverse")))
        fresh = np.setdiff1d((places[:, None] * n_assets + spot).ravel(), purse * n_assets + asset)
        place, what = np.divmod(fresh, n_assets)
        return np.append(purse, place), np.append(asset, what), np.append(held, np.zeros(len(fresh)))

    def _answers(self, owners: NDArray[Any], able: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which of the traders that have the means respond to a call."""
        found = able & ~self.has_failed(owners)
        found[found] = by_policy(self.net, owners[found], "answers")[0]
        return np.asarray(found)

    def _manners(self, owners: NDArray[Any], answers: NDArray[np.bool_]) -> dict[str, NDArray[Any]]:
        """How traders answer a call: the steps they take, and the healths they aim at."""
        steps = {"top_up": "top_up", "withdraw": "withdrawal", "reduce": "reduction"}
        found: dict[str, NDArray[Any]] = {name: np.zeros(len(owners), dtype=bool) for name in steps}
        found |= {name: np.zeros(len(owners)) for name in ("target", "keep", "lag", "probability")}
        keys = (*steps, "target_health", "withdrawal_health", "lag", "probability")
        read = by_policy(self.net, owners[answers], *keys)
        for (name, column), values in zip(found.items(), read, strict=True):
            column[answers] = values & (steps[name] in self.switches) if name in steps else values
        return found

    def _balances(self, accounts: NDArray[np.int64]) -> Balances:
        book, start = self.net.book, self.index.start
        rows, place = spans(start[accounts].astype(np.int64), start[accounts + 1].astype(np.int64))
        market = book.balance_market[rows]
        return Balances(place, market, book.deposited[rows], book.borrowed[rows], self.margin.weight[rows])

    def _with_room_for_top_ups(
        self,
        balances: Balances,
        accounts: NDArray[np.int64],
        trader: NDArray[np.int64],
        answers: NDArray[np.bool_],
        several: NDArray[np.bool_],
        purse: tuple[NDArray[np.int64], dict[str, NDArray[Any]]],
    ) -> Balances:
        """Add empty balances where an indebted account could take as collateral what its owner holds elsewhere."""
        net, book, n_markets = self.net, self.net.book, len(self.shocked)
        n_assets = len(self.prices)
        by_equity = self.margin.test[accounts] != LENDING
        in_debt = by_equity.copy()
        in_debt[balances.place[balances.borrowed > 0]] = True
        wanted = np.flatnonzero(in_debt & answers[trader])
        held = (balances.deposited > 0) | ((balances.borrowed > 0) & self.index.credits[balances.market])
        held |= by_equity[balances.place]  # what contracts gain arrives later
        elsewhere = (several[trader])[balances.place] & held
        holder = np.concatenate([purse[0], trader[balances.place[elsewhere]]])
        asset = np.concatenate([purse[1]["asset"], book.market_asset[balances.market[elsewhere]]])
        has = distinct(holder.astype(np.int64) * n_assets + asset)
        start = np.searchsorted(has, np.arange(len(answers) + 1) * n_assets)
        found, row = spans(start[trader[wanted]], start[trader[wanted] + 1])
        place, what = wanted[row], has[found] % n_assets
        exchange = net.columns("accounts")["exchange"][accounts[place]].astype(np.int64)
        pair, pairs = exchange * n_assets + what, book.market_exchange.astype(np.int64) * n_assets + book.market_asset
        market = np.minimum(np.searchsorted(pairs, pair), n_markets - 1)
        found_there = pairs[market] == pair
        place, market = place[found_there], market[found_there]
        return self._joined(balances, accounts, place, market, self._weight(accounts[place], market) > 0)

    def _held(self, accounts: NDArray[np.int64]) -> Held:
        """Contracts of accounts, and empty ones in all contracts of its exchange where an account is a vault."""
        book, start = self.net.book, self.margin.position_start
        rows, place = spans(start[accounts], start[accounts + 1])
        found = Held(place, book.position_market[rows], book.quantity[rows], book.entry_price[rows])
        vault, listed = self._listed_at_vaults(accounts)
        kind = self.net.columns("assets")["kind"][book.market_asset[listed]]
        wanted = (kind == "linear") | (kind == "inverse")
        if not wanted.any():
            return found
        n_markets = len(self.shocked)
        known = found.place * n_markets + found.market
        fresh = np.setdiff1d(vault[wanted] * n_markets + listed[wanted], known)
        if not len(fresh):
            return found
        place, market = np.divmod(fresh, n_markets)
        none = np.zeros(len(place))
        joined = [np.concatenate(parts) for parts in zip(found, (place, market, none, none), strict=True)]
        order = np.argsort(joined[0] * n_markets + joined[1], kind="stable")
        return Held(*(part[order] for part in joined))

    def _listed_at_vaults(self, accounts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Places of the accounts that are a vault, once for each market of its exchange, and these markets."""
        place = np.flatnonzero(np.isin(accounts, self.vault))
        venue = self.net.book.market_exchange
        start = np.searchsorted(venue, np.arange(len(self.vault) + 1))
        exchange = self.net.columns("accounts")["exchange"][accounts[place]]
        market, which = spans(start[exchange], start[exchange + 1])
        return place[which], market

    def _with_room_to_settle(self, balances: Balances, accounts: NDArray[np.int64]) -> Balances:
        """Add empty balances where the positions of margin accounts settle, and all of its exchange to a vault."""
        start = self.margin.position_start
        held, place = spans(start[accounts], start[accounts + 1])
        market = self.settle[self.net.book.position_market[held]]
        vault, listed = self._listed_at_vaults(accounts)
        place, market = np.concatenate([place, vault]), np.concatenate([market, listed])
        return self._joined(balances, accounts, place, market, market >= 0)

    def _weight(self, accounts: NDArray[np.int64], market: NDArray[np.int64]) -> NDArray[np.float64]:
        """Share of a deposit that counts: an account's own, the market's, or, without one, all in a margin account."""
        own = self.net.columns("accounts")["liquidation_threshold"][accounts]
        listed = self.net.columns("markets")["liquidation_threshold"][market]
        found = np.where(np.isnan(own), listed, own)
        bare = np.where(self.margin.test[accounts] == LENDING, 0.0, 1.0)
        refused = (self.margin.test[accounts] == LENDING) & ~(listed > 0)  # an e-mode opens no other market
        return np.where(np.isnan(found), bare, np.where(refused, 0.0, found))

    def _joined(
        self,
        balances: Balances,
        accounts: NDArray[np.int64],
        place: NDArray[np.int64],
        market: NDArray[np.int64],
        wanted: NDArray[np.bool_],
    ) -> Balances:
        """Return the balances with empty ones in the wanted of these markets, where there is none yet."""
        n_markets = len(self.shocked)
        known = np.append(balances.place.astype(np.int64) * n_markets + balances.market, np.iinfo(np.int64).max)
        fresh = distinct((place.astype(np.int64) * n_markets + market)[wanted])
        fresh = fresh[known[np.searchsorted(known, fresh)] != fresh]
        place, market = np.divmod(fresh, n_markets)
        none = np.zeros(len(place))
        added = Balances(place, market, none, none, self._weight(accounts[place], market))
        joined: list[Any] = [np.concatenate(parts) for parts in zip(balances, added, strict=True)]
        order = np.argsort(joined[0] * n_markets + joined[1], kind="stable")
        return Balances(*(part[order] for part in joined))

    def _grown(self, board: Board, sizes: dict[str, int]) -> Board:
        """Return the board with room for more rows, and count them as used."""
        before = len(board.traders)
        for name, size in sizes.items():
            self.used[name] += size
        tables = {name: longer(getattr(board, name), self.used[name]) for name in sizes}
        self.code = longer(self.code, self.used["accounts"])
        self.owner = longer(self.owner, self.used["traders"])
        after = len(tables["traders"])
        ledger = board.ledger if after == before else _spread(board.ledger, before, after)
        return board._replace(**tables, ledger=ledger)


def _ends(suffix: str, group: NDArray[np.int64], size: int, begin: int) -> dict[str, NDArray[np.int64]]:
    """First row of every group, and one past its last, of rows sorted by group that begin somewhere."""
    last = np.cumsum(np.bincount(group, minlength=size)) + begin
    return {f"first{suffix}": np.concatenate([[begin], last[:-1]]), f"last{suffix}": last}


def _spread(ledger: Ledger, before: int, after: int) -> Ledger:
    """Return the ledger with room for more traders, who stand before all other bearers."""

    def wider(values: NDArray[np.float64]) -> NDArray[np.float64]:
        found = np.zeros((*values.shape[:-1], values.shape[-1] + after - before))
        found[..., :before], found[..., after:] = values[..., :before], values[..., before:]
        return found

    return ledger._replace(loss=wider(ledger.loss), flow=wider(ledger.flow), cash=wider(ledger.cash))
