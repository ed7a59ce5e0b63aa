"""Joint equilibria of prices, close-outs and losses: the greatest prices and the least, where closing only lowers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from netcontagion._iterate import Ending, iterate
from netcontagion._status import Status
from netcontagion.errors import ContagionError
from netcontagion.margining._answers import account_health
from netcontagion.margining._closed import Book
from netcontagion.margining._events import Events
from netcontagion.margining._opening import open_state
from netcontagion.margining._policies import by_policy, traders_who
from netcontagion.margining._state import called
from netcontagion.margining._supported import only_closes_out
from netcontagion.network import is_ladder, rulebook

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from netcontagion.margining._cascade import Play
    from netcontagion.margining._result import CascadeResult
    from netcontagion.margining._state import Live
    from netcontagion.network import ExposureNetwork, Shock

    Bools = NDArray[np.bool_]

__all__ = ["Bounds", "equilibria"]


class Bounds(NamedTuple):
    """Marks between which all equilibria lie, rounding included, by market."""

    lower: NDArray[np.float64]
    upper: NDArray[np.float64]


class _Found(NamedTuple):
    """A set of called accounts, the round of the search in which each one joined it (-1: never), and its health then.

    ``marks`` are those of every round of the search, ``average`` the average prices of the last one, by market.
    """

    chosen: Bools
    joined: NDArray[np.int64]
    health: NDArray[np.float64]
    marks: list[NDArray[np.float64]]
    average: NDArray[np.float64]


def equilibria(net: ExposureNetwork, shock: Shock, on: frozenset[str], *, max_rounds: int) -> CascadeResult:
    """Find the equilibrium with the greatest prices and the one with the least; return the former, with the latter."""
    from netcontagion.margining._result import close

    check_isotone(net, shock, on)
    states = [open_state(net, shock, switches=on) for _ in range(2)]
    rounding = (len(net.book.deposited) + 64) * 2.0**-52  # sums of as many terms, and a few operations more
    book = _book(states[0], rounding, liquidates="liquidation" in on)
    outer = _fall(book, np.ones(len(book.accounts), dtype=bool), rounding, max_rounds)
    upper, rise = (_rise(book, tilt, max_rounds) for tilt in (-rounding, 0.0))
    fall = _fall(book, outer.state.chosen, 0.0, max_rounds)
    sets = (rise.state, _in_rounds(fall.state, rise.state))
    plays = [_play(state, book, found, on) for state, found in zip(states, sets, strict=True)]
    ends = [_ending(play, (outer, upper, rise, fall)) for play in plays]
    greatest, least = (close(*pair, mode="equilibrium", seed=None) for pair in zip(plays, ends, strict=True))
    bounds = Bounds(*(one.state.marks[-1] for one in (outer, upper)))
    return replace(greatest, least=replace(least, which="least"), bounds=bounds)


# what makes the map isotone -----------------------------------------------------------------------------------------


def check_isotone(net: ExposureNetwork, shock: Shock, on: frozenset[str]) -> None:
    """Refuse a network in which closing one account can save another, naming the rule, the table and the row."""
    wrong = [*_active_rules(net), *_live_prices(net)]
    depth = net.book.book_depth * shock.depth_factor
    if "impact" in on:
        wrong += [*_moving_debts(net, depth), *_moving_funds(net, depth)]
    if "liquidation" in on:
        wrong += _answers(net, shock, on)
    wrong += _orders(net, on)
    if shock.later:
        wrong.append(f"a path of shocks needs rounds: {shock}")
    if wrong:
        message = "no equilibrium is computed where closing one account can save another (mode='sequential' runs it): "
        raise ContagionError(message + "; ".join(wrong))


def _active_rules(net: ExposureNetwork) -> Iterator[str]:
    names = net.columns("exchanges")["rulebook"]
    for label, name in zip(net.labels("exchanges").tolist(), names, strict=True):
        if found := only_closes_out(rulebook(name)):
            yield f"exchange {label!r}, rulebook {name!r}: {', '.join(found)}"
    for label in net.labels("exchanges")[net.columns("exchanges")["recourse"]].tolist():
        yield f"exchanges, {label!r}: it has recourse, and its traders pay before its suppliers"


def _live_prices(net: ExposureNetwork) -> Iterator[str]:
    """Prices that move by more than what is sold: they would have to be part of the fixed point."""
    asset, labels = net.columns("assets"), net.labels("assets").tolist()
    for label, form, permanent, half_life, capital, power, spread in zip(
        labels,
        *(asset[name] for name in ("impact", "permanent", "half_life", "arbitrage", "depth_power", "spread")),
        strict=True,
    ):
        if is_ladder(form):
            yield f"assets, {label!r}: a ladder as impact, which may leave a sale unfilled"
        if permanent < 1 and not np.isnan(half_life):
            yield f"assets, {label!r}: permanent is {permanent:g}, so that its price comes back"
        if capital > 0:
            yield f"assets, {label!r}: arbitrage is {capital:g}"
        if power > 0:
            yield f"assets, {label!r}: depth_power is {power:g}"
        if spread > 0:
            yield f"assets, {label!r}: spread is {spread:g}"
    for row in np.flatnonzero(net.columns("markets")["spread"] > 0).tolist():
        exchange = net.labels("exchanges")[net.columns("markets")["exchange"][row]]
        yield f"markets, exchange {exchange!r}, {labels[net.columns('markets')['asset'][row]]!r}: it has a spread"
    named = net.columns("markets")["price_source"]
    for row in np.flatnonzero([name not in (None, "spot") for name in named]).tolist():
        exchange, name = net.labels("exchanges")[net.columns("markets")["exchange"][row]], named[row]
        yield f"markets, exchange {exchange!r}, {labels[net.columns('markets')['asset'][row]]!r}: price_source {name!r}"


def _moving_debts(net: ExposureNetwork, depth: NDArray[np.float64]) -> Iterator[str]:
    book = net.book
    rows = np.flatnonzero(book.borrowed > 0)
    rows = rows[np.isfinite(depth[book.market_book[book.balance_market[rows]]])]
    market, first = np.unique(book.balance_market[rows], return_index=True)
    for m, row in zip(market.tolist(), rows[first].tolist(), strict=True):
        exchange, asset = net.labels("exchanges")[book.market_exchange[m]], net.labels("assets")[book.market_asset[m]]
        account = net.labels("accounts")[book.balance_account[row]]
        yield (
            f"balances, exchange {exchange!r}: account {account!r} borrowed {book.borrowed[row]:.6g} {asset!r}, whose "
            f"depth is {depth[book.market_book[m]]:.6g}, so that repaying lifts its price; leave its depth empty"
        )


def _moving_funds(net: ExposureNetwork, depth: NDArray[np.float64]) -> Iterator[str]:
    table = net.columns("exchanges")
    asset = table["insurance_asset"]
    moves = (table["insurance_fund"] > 0) & (asset >= 0)
    moves[moves] = np.isfinite(depth[asset[moves]])
    for place in np.flatnonzero(moves).tolist():
        kept, label = net.labels("assets")[asset[place]], net.labels("exchanges")[place]
        yield f"exchanges, {label!r}: the insurance_fund is sold in {kept!r}, whose price moves; keep it in money"


def _answers(net: ExposureNetwork, shock: Shock, on: frozenset[str]) -> Iterator[str]:
    """Owners who can answer: all or nothing, so that a lower price may leave for one account what another needed."""
    size, account, book = len(net.labels("traders")), net.columns("accounts")["trader"], net.book
    owes = np.bincount(account[book.balance_account[book.borrowed > 0]], minlength=size) > 0
    able = owes & by_policy(net, np.arange(size), "answers")[0] & ~shock.defaulted(net)
    wallet = net.columns("wallets")
    purse = np.bincount(wallet["trader"][wallet["units"] > 0], minlength=size) > 0
    several = np.bincount(account, minlength=size) > 1
    means_of = {"top_up": (purse, "a wallet"), "withdrawal": (several, "several accounts")}
    means_of["reduction"] = means_of["withdrawal"]
    for channel, (means, what) in means_of.items():
        who = np.flatnonzero(able & means)
        if channel in on and len(who):
            label, more = net.labels("traders")[who[0]], f" and {len(who) - 1} more" if len(who) > 1 else ""
            yield f"channel {channel!r}: trader {label!r}{more} answers calls out of {what}; leave it out of channels"


def _orders(net: ExposureNetwork, on: frozenset[str]) -> Iterator[str]:
    """Owners who trade without a call: what they buy can save an account."""
    who = traders_who(net, "orders")
    if len(who) and on & {"reduction", "purchase"}:
        name = net.columns("traders")["policy"][who[0]]
        yield f"traders, {net.labels('traders')[who[0]]!r}: policy {name!r} trades without a call"
    who = traders_who(net, "runs")
    if len(who) and "withdrawal" in on:
        name = net.columns("traders")["policy"][who[0]]
        yield f"traders, {net.labels('traders')[who[0]]!r}: policy {name!r} withdraws from round to round"


# the two ends -------------------------------------------------------------------------------------------------------


def _book(state: Live, rounding: float, *, liquidates: bool) -> Book:
    """Lay out the accounts that are called when all are closed; the others, and others@, never are."""
    named = len(state.net.labels("accounts")) - state.net.derived("accounts")
    order = state.overlay.index.order
    everybody = Book.of(state, np.sort(order[order < named]).astype(np.int64), liquidates=liquidates)
    low = everybody.after(np.ones(len(everybody.accounts), dtype=bool), rounding).called
    return everybody.only(low, liquidates=liquidates)


def _from(book: Book, chosen: Bools) -> _Found:
    """Start a search from a set of accounts."""
    size = len(chosen)
    return _Found(chosen, np.full(size, -1), np.full(size, np.nan), [], book.shocked)


def _rise(book: Book, tilt: float, max_rounds: int) -> Ending[_Found]:
    """Close whoever is called, from nobody on: the smallest set, with the greatest prices."""

    def step(found: _Found) -> tuple[_Found, float, Status | None]:
        outcome = book.after(found.chosen, tilt)
        new = outcome.called & ~found.chosen
        joined, health = np.where(new, len(found.marks), found.joined), np.where(new, outcome.health, found.health)
        after = _Found(found.chosen | new, joined, health, [*found.marks, outcome.marks], outcome.average)
        return after, float(new.sum()), None if new.any() else Status.SETTLED

    return iterate(step, _from(book, np.zeros(len(book.accounts), dtype=bool)), max_rounds=max_rounds)


def _fall(book: Book, chosen: Bools, tilt: float, max_rounds: int) -> Ending[_Found]:
    """Spare whoever is not called, from all of ``chosen`` on: the largest set, with the least prices."""

    def step(found: _Found) -> tuple[_Found, float, Status | None]:
        outcome = book.after(found.chosen, tilt)
        kept = found.chosen & outcome.called
        spared = float((found.chosen & ~kept).sum())
        after = _Found(kept, found.joined, outcome.health, [outcome.marks], outcome.average)
        return after, spared, None if spared else Status.SETTLED

    return iterate(step, _from(book, chosen), max_rounds=max_rounds)


def _in_rounds(fall: _Found, rise: _Found) -> _Found:
    """Give the larger set the rounds of the smaller one; all others join after it at once: they call each other."""
    last, late = int(rise.joined.max(initial=-1)) + 1, fall.chosen & ~rise.chosen
    joined, health = np.where(late, last, rise.joined), np.where(late, fall.health, rise.health)
    return _Found(fall.chosen, joined, health, [*rise.marks[:last], *fall.marks], fall.average)


# the run that leads there -------------------------------------------------------------------------------------------


def _play(state: Live, book: Book, found: _Found, on: frozenset[str]) -> Play:
    """Post calls, close-outs at the one average price of each book, and losses, as a run with rounds."""
    from netcontagion.margining._cascade import Play

    play = Play(state, on, "worst_first", np.random.default_rng(0), Events())
    order = np.flatnonzero(found.chosen)
    order = order[np.lexsort((order, found.health[order], found.joined[order]))]
    accounts = book.accounts[order]
    play.open(np.setdiff1d(accounts, state.overlay.accounts))
    by_code = np.argsort(state.overlay.accounts)
    seats = by_code[np.searchsorted(state.overlay.accounts, accounts, sorter=by_code)]
    board, average = state.board, found.average
    state.board = board._replace(markets=_with(board.markets, shocked=average), books=_with(board.books, depth=np.inf))
    rounds = np.split(np.arange(len(order)), np.flatnonzero(np.diff(found.joined[order])) + 1) if len(order) else []
    for number, rows in enumerate(rounds):
        marks, health = found.marks[number], found.health[order[rows]]
        play.events.open_round(number)
        _, largest = account_health(seats[rows], state.accounts, state.entries, state.markets, marks)
        play.note_calls(seats[rows], health, largest, number)
        moved = play.close(seats[rows], health, average)[0] if "liquidation" in on else 0
        play.note_round(number, marks, 0, moved)
    state.board = state.board._replace(markets=board.markets, books=_with(state.board.books, depth=board.books.depth))
    _share_losses(play, len(rounds))
    return play


def _share_losses(play: Play, number: int) -> None:
    """Run the holes of all close-outs together through the waterfalls, in a last round."""
    state = play.state
    marks, state.marks_outside = state.marks(), state.asset_prices()
    play.events.open_round(number)
    play.bear_losses(marks)
    play.note_round(number, marks, 0, 0)


def _with(table: Any, **columns: Any) -> Any:
    """Return a copy of a table with other columns."""
    copy = table.copy()
    for name, values in columns.items():
        copy[name] = values
    return copy


def _ending(play: Play, searches: Iterable[Ending[_Found]]) -> Ending[int]:
    """Say whether the searches settled, and whether somebody is left whom nobody closes."""
    state, rounds = play.state, len(play.rounds)
    wrong = [one.status for one in searches if not one.status.settled]
    seats = np.flatnonzero(play.notes["called"][: len(state.overlay.accounts)])
    health, _ = account_health(seats, state.accounts, state.entries, state.markets, state.marks())
    left = called(health) | ((state.accounts.forced[seats] > 0) & np.isfinite(health))
    status = wrong[0] if wrong else Status.EXHAUSTED if left.any() else Status.SETTLED
    return Ending(rounds, rounds, status, float(left.sum()))
