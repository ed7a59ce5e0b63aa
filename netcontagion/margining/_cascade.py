"""The cascade: rounds of calls, responses, liquidations and losses until nobody acts any more."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion._arrays import blank, freeze, order_by_digits
from netcontagion._iterate import iterate
from netcontagion._status import Status
from netcontagion.errors import ContagionError, NotSettledError, UnknownLabelError
from netcontagion.margining import _answers, _auctions, _inventory, _limits, _margin_sales, _reductions, _sales
from netcontagion.margining._between import Between
from netcontagion.margining._deleveraging import deleverage
from netcontagion.margining._desk import Desk
from netcontagion.margining._equilibrium import equilibria
from netcontagion.margining._events import Events
from netcontagion.margining._failing import Passes
from netcontagion.margining._investors import Investors
from netcontagion.margining._kept import kept
from netcontagion.margining._layers_money import fund_surplus
from netcontagion.margining._margin_scan import MarginScan
from netcontagion.margining._opening import open_state, settlement
from netcontagion.margining._policies import Draws, traders_who
from netcontagion.margining._posting import post_moves, value_positions, write_off
from netcontagion.margining._runs import Runs, receive
from netcontagion.margining._scan import Exposed, Reach, Scan, Watch
from netcontagion.margining._state import called, longer
from netcontagion.margining._stops import Stops
from netcontagion.margining._strikes import close_down, strike
from netcontagion.margining._strokes import MIX, Strokes, stroke_notes
from netcontagion.margining._supported import check_supported
from netcontagion.margining._together import Together
from netcontagion.margining._transit import moving, settle, submit
from netcontagion.margining._valuation import LENDING, worth
from netcontagion.margining._waterfall import cover_holes, gated, pays_first
from netcontagion.network import check_call, rulebook

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from netcontagion.margining._result import CascadeResult
    from netcontagion.margining._state import Board, Live
    from netcontagion.network import ExposureNetwork, Shock

    Found = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[Any]]  # who, health, market of largest collateral

__all__ = ["PRIORITIES", "SWITCHES", "cascade"]

SWITCHES = ("top_up", "withdrawal", "reduction", "purchase", "liquidation", "impact")  # channels that can be off
_MODES = ("sequential", "equilibrium")
_AT_ONCE, _PART, _WHOLE, _MARGIN = -1, 0, 1, 4  # ways to close accounts: routes of the rulebook, and two more
PRIORITIES = ("worst_first", "best_first", "random", "pro_rata")
PATIENCE = 100  # of so many rounds in which only capped withdrawals went on, as many as this goes into are passed over
LAST = 1_000_000_000  # round from which none is passed over: they are counted in 32 bits


def cascade(
    net: ExposureNetwork,
    shock: Shock,
    *,
    mode: str = "sequential",
    channels: Collection[str] | None = None,
    priority: str = "worst_first",
    seed: int | np.random.Generator | None = None,
    max_rounds: int = 10_000,
    strict: bool = True,
) -> CascadeResult:
    """Run the margin-call cascade that a shock sets off on lending exchanges.

    Every round: accounts below health 1 at the round's marks are called; their owners top up from wallets to health
    1.05, then from own accounts down to 1.25 there, then by reducing positions and borrowings in other accounts, all or
    nothing (``traders.policy`` names other ways to act); what stays below 1 is liquidated by the rules of
    its exchange, in the order of ``priority``; sales move prices by the impact form of the book on its cumulative net
    quantity, of which ``assets.permanent`` stays and the rest halves in ``assets.half_life`` rounds; debt left without
    collateral, max(0, D - C / (1 + bonus)) on a full close-out, runs through insurance fund, equity and suppliers. When
    nobody acts any more, what nodes owe each other is cleared; traders who default in that are closed out, rounds go
    on, and the original claims are cleared again, until nobody new defaults.

    In mode "equilibrium" all of this happens at once: whoever is below health 1 at the end is closed out, every seller
    on a book is paid the one average price of all that is sold there, and losses are shared once. Several sets of
    accounts may call themselves in this way; the result is the equilibrium with the greatest prices, its ``least`` the
    one with the least, and ``gap`` bounds the marks of all.

    Parameters
    ----------
    net : ExposureNetwork
        A network whose exchanges lend (no positions).
    shock : Shock
        What happens from outside, at once or along a path (``Shock.path``).
    mode : {"sequential", "equilibrium"}
        Sales fill one after the other, or prices, close-outs and losses are solved together. The latter needs rules by
        which no close-out saves another account: whole accounts sold on the market, debts and insurance funds in assets
        whose price no sale moves, owners who do not answer (leave "top_up", "withdrawal" and
        "reduction" out of ``channels``).
    channels : collection of str, optional
        Behavioural channels that are on, of "top_up", "withdrawal", "reduction" (of other accounts, and sales by
        choice), "purchase" (of what fell), "liquidation", "impact"; default all.
    priority : {"worst_first", "best_first", "random", "pro_rata"}
        Order in which called accounts respond and are liquidated; ties by account code. "pro_rata": together, first all
        answers, then all liquidations of a round, each book at the average price of all that is sold on it; limits of
        capacity and money are used up worst first. An equilibrium has no order.
    seed : int or numpy Generator, optional
        For ``priority="random"``, and for policies that answer with a probability.
    max_rounds : int
        Most rounds that are played; of each search, for an equilibrium. Where for long nothing but withdrawals under a
        cap goes on, rounds are passed over, and ``assumptions`` say how many.
    strict : bool, default True
        Whether an ending that is no answer raises.

    Returns
    -------
    CascadeResult
        Frozen tables, ``status``, ``assumptions``, ``check()``; of an equilibrium also ``least`` and ``gap``, and its
        rounds are those of the search: who is called once the accounts of all rounds before are closed.

    Raises
    ------
    NotSettledError
        With ``strict``, when ``max_rounds`` is reached; it carries the result.
    ContagionError
        The network holds positions, or an exchange with recourse; or an equilibrium is asked of rules by which closing
        one account can save another: every exchange, rulebook, key, balance and owner concerned is named.

    References
    ----------
    Cifuentes, Ferrucci, Shin (2005), doi:10.1162/jeea.2005.3.2-3.556, for the impact; the protocol rules are dated and
    sourced in the rulebook presets.

    Examples
    --------
    >>> import netcontagion as nc
    >>> net = nc.datasets.load("market")
    >>> run = nc.cascade(net, nc.Shock.price({"ETH": -0.3}, family=True))
    >>> run.status.name
    'SETTLED'

    Ten accounts that no fall of 5 % calls, but that the sale of all ten would:

    >>> names = [f"k{i}" for i in range(10)]
    >>> net = nc.ExposureNetwork(
    ...     exchanges={"exchange": ["X"], "rulebook": ["closeout"]},
    ...     assets={"asset": ["ETH", "USD"], "price": [1.0, 1.0], "depth": [50.0, float("inf")]},
    ...     markets={"exchange": ["X", "X"], "asset": ["ETH", "USD"], "liquidation_threshold": [0.8, 0.0]},
    ...     balances={"account": names * 2, "asset": ["ETH"] * 10 + ["USD"] * 10,
    ...               "deposited": [1.0] * 10 + [0.0] * 10, "borrowed": [0.0] * 10 + [0.72] * 10},
    ... )
    >>> run = nc.cascade(net, nc.Shock.price({"ETH": -0.05}), mode="equilibrium")
    >>> run.gap.loc[("X", "ETH"), ["greatest", "least"]].round(4).tolist()
    [0.95, 0.7778]
    """
    _check_call(net, shock, mode, priority, max_rounds)
    on = _switches(channels)
    if mode == "equilibrium":
        found = equilibria(net, shock, on, max_rounds=max_rounds)
        return _settled(found) if strict else found
    state = open_state(net, shock, switches=on)
    play = Play(state, on, priority, np.random.default_rng(seed), Events())
    with np.errstate(over="ignore", invalid="ignore"):  # numbers without bound end the run as NONFINITE
        ending = iterate(play.round, 0, max_rounds=max_rounds)
    from netcontagion.margining._result import close

    result = close(play, ending, seed=None if isinstance(seed, np.random.Generator) else seed)
    return _settled(result) if strict else result


def _settled(result: CascadeResult) -> CascadeResult:
    """Return the result, or raise where it is no answer."""
    if not result.status.settled:
        raise NotSettledError(f"cascade: {result.status.value}", result)
    return result


def _check_call(net: ExposureNetwork, shock: Shock, mode: str, priority: str, max_rounds: int) -> None:
    check_call(net, shock, path=True)
    kept(net, "_fit_for_cascades", _check_network)
    if mode not in _MODES:
        raise UnknownLabelError(mode, _MODES, "mode")
    if priority not in PRIORITIES:
        raise UnknownLabelError(priority, PRIORITIES, "priority")
    if max_rounds < 1:
        raise ValueError(f"max_rounds is {max_rounds!r}; allowed: 1 or more")


def _seatless(which: NDArray[np.int64]) -> bool:
    """Whether all of these accounts are places of the index."""
    return not len(which) or bool(which.max() < 0)


def _margined(net: ExposureNetwork) -> NDArray[np.bool_]:
    """Which markets are on exchanges that have margin accounts."""
    book, venue = net.book, net.columns("accounts")["exchange"]
    return freeze(np.isin(book.market_exchange, venue[book.margined]))


def _check_network(net: ExposureNetwork) -> None:
    check_supported(net)
    _check_positions(net)
    _check_vaults(net)


def _check_positions(net: ExposureNetwork) -> None:
    """Refuse positions that nobody can close: without margin rules, or an asset that their gains are paid in."""
    book, exchanges, assets = net.book, net.labels("exchanges"), net.labels("assets")
    for market in np.flatnonzero(np.bincount(book.position_market)).tolist():
        exchange, contract = exchanges[book.market_exchange[market]], assets[book.market_asset[market]]
        name = net.columns("exchanges")["rulebook"][book.market_exchange[market]]
        if rulebook(name).health != "equity":
            message = f"positions in {contract!r} at {exchange!r}: its rulebook {name!r} tests debts, not equity"
            raise ContagionError(message + "; choose one for margin accounts, for example 'perpetual'")
        if settlement(net)[market] < 0:
            message = f"assets.settlement of {contract!r} is empty; name the asset, listed at {exchange!r}"
            raise ContagionError(message + ", that its gains are paid in")


def _check_vaults(net: ExposureNetwork) -> None:
    """Refuse an exchange whose rulebook sends positions to a vault that it has not."""
    table = net.columns("exchanges")
    for label, name, vault in zip(net.labels("exchanges"), table["rulebook"], table["backstop"], strict=True):
        if rulebook(name).inventory == "vault" and vault is None:
            message = f"exchanges.backstop of {label!r} is empty; its rulebook {name!r} sends positions to a vault"
            raise ContagionError(message + ": name the account that takes them")


def _switches(channels: Collection[str] | None) -> frozenset[str]:
    if channels is None:
        return frozenset(SWITCHES)
    if isinstance(channels, str):
        raise TypeError(f"channels is {channels!r}; give a collection of {', '.join(SWITCHES)}")
    for name in channels:
        if name not in SWITCHES:
            raise UnknownLabelError(name, SWITCHES, "channel")
    return frozenset(channels)


_NOBODY = np.zeros(0, dtype=np.int64)
_NOTES = np.dtype(
    [
        ("called", bool),
        ("topped_up", bool),
        ("liquidated", bool),
        ("first_round", np.int32),
        ("since", np.int32),
        ("seen", np.int32),
        ("closed", np.int32),
        ("deficit", float),
        ("repaid", float),
        ("inflow", float),
    ],
    align=True,
)  # what happened to each seat; money in the numeraire; rounds of the last call and liquidation count from 1


@dataclass(eq=False)
class Play:
    """One run: the state, what was recorded, and the round as a story of a few calls.

    Accounts are seats, or places of the index (-1 - place) where they end in one stroke.
    """

    state: Live
    on: frozenset[str]
    priority: str
    rng: np.random.Generator
    events: Events
    notes: NDArray[Any] = field(default_factory=lambda: np.zeros(0, dtype=_NOTES))
    rounds: list[dict[str, Any]] = field(default_factory=list)
    unfilled: list[NDArray[np.float64]] = field(default_factory=list)  # contracts that wait for auto-deleveraging

    def __post_init__(self) -> None:
        state, index = self.state, self.state.overlay.index
        self.events.state = state
        self.scan, self.watch, self.strokes = Scan(index), Watch(index), Strokes(state, self.on)
        self.margin = MarginScan(state.net, state.terms)
        self.never_called = len(state.overlay.margin.test) - state.net.derived("accounts")  # others@: from here on
        self.margined = kept(state.net, "_margined", _margined)
        before = state.net.book.market_mark
        self.reach = Reach(index, [np.stack([before, before])])
        self.desk, self.together = Desk(self), Together()
        self.asks_defaulters = np.array(
            [pays_first(state, exchange) for exchange in range(state.n_exchanges)], dtype=bool
        )
        self.last_fall = np.zeros(len(state.books.depth), dtype=np.int64)  # event that last lowered each book
        self.between = Between(self)
        self.last_act, self.last_change, self.last_marks = -1, -1, before  # rounds in which something moved last
        self.draws, self.late = Draws(self.rng.spawn(1)[0]), False
        self.passes = Passes()
        self.planned, self.arrived = 0, 0  # moves that owners began, and that came to their end, in this round
        self.idle, self.passed_over = 0, 0  # rounds passed over before this one, and in all
        self.last_step = -1  # round in which more happened last than arrivals
        if state.shock.defaults:
            self.open_traders(state.overlay.defaulted)
        self.open_investors()
        self.open_runs()
        self.open_vaults()

    def seat(self, accounts: NDArray[np.int64]) -> None:
        """Give seats to those of these accounts that have none."""
        accounts = accounts[~np.isin(accounts, self.state.overlay.accounts)]
        self.scan.opened[self.scan.index.places_of(accounts)] = True
        self.open(accounts)

    def open(self, accounts: NDArray[Any], idle: NDArray[Any] = _NOBODY) -> None:
        """Give seats to accounts, to all others of their traders, and to idle traders: they have no account."""
        overlay = self.state.overlay
        if not len(accounts) and not len(idle):
            return
        accounts, places = overlay.with_peers(accounts)
        self.scan.opened[places] = True
        self.margin.open(accounts)
        self.state.board = overlay.seat(self.state.board, accounts, idle)
        self.notes = longer(self.notes, overlay.used["accounts"])
        self.watch.add(
            self.state.accounts.exchange[overlay.used["accounts"] - len(accounts) : overlay.used["accounts"]]
        )

    def open_investors(self) -> None:
        """Seat those who trade without being called."""
        state, who = self.state, traders_who(self.state.net, "orders")
        if len(who):
            owner = state.net.columns("accounts")["trader"]
            self.seat(np.flatnonzero(np.isin(owner, who)))
            self.open(_NOBODY, np.setdiff1d(who, owner))
            state.investors = Investors(state, who)
        who = traders_who(self.state.net, "contract_stops")
        self.stops = Stops(state, who) if len(who) and "reduction" in self.on else None

    def open_runs(self) -> None:
        """Seat those who may take fright at an exchange."""
        state, who = self.state, traders_who(self.state.net, "runs")
        if len(who) and "withdrawal" in self.on:
            self.seat(np.flatnonzero(np.isin(state.net.columns("accounts")["trader"], who)))
            state.runs = Runs(state, who)

    def open_traders(self, traders: NDArray[np.bool_]) -> None:
        """Give seats to all accounts of some traders that have none, and did not end without one."""
        if traders.any():
            overlay = self.state.overlay
            ours = traders[self.state.net.columns("accounts")["trader"]]
            for stroke in overlay.strokes:
                ours[overlay.index.order[stroke.place]] = False
            self.seat(np.flatnonzero(ours))

    def open_vaults(self) -> None:
        """Give seats to the backstop accounts, which must be ready to take others over, and tell their exchanges."""
        state = self.state
        vault = state.overlay.vault
        named = np.flatnonzero(vault >= 0)
        self.seat(np.unique(vault[named]))
        place = np.argsort(state.overlay.accounts)
        seats = place[np.searchsorted(state.overlay.accounts, vault[named], sorter=place)]
        state.rules["vault"][named] = seats

    def round(self, number: int) -> tuple[int, float, Status | None]:
        """Play one round; the state is settled when nobody acted."""
        state = self.state
        self.events.open_round(number)
        self.between.rest(self.idle)
        self.passed_over += self.idle
        self.strike(number)
        state.fade()
        self.between.advance()
        marks = state.marks()
        if not (np.isfinite(worth(state.markets, marks)).all() and np.isfinite(state.ledger.flow).all()):
            return number, float("nan"), None
        state.marks_outside = state.asset_prices()
        state.reserves.open_round()
        ran = self.run(marks, number) + self.fire_stops(marks)
        which, health = self.find_called(marks, number)
        which, health, answered = self.respond(which, health, marks)
        traded = self.trade()
        moved, sold, holes, waiting = self.close(which, health, marks) if "liquidation" in self.on else (0, 0, 0, 0)
        self.bear_losses(marks)
        self.note_round(number, marks, answered, moved)
        stepped = ran + self.planned + answered + traded + moved + sold + holes > 0
        acted = stepped or self.arrived > 0
        if acted or any(at == number for at, _ in state.shock.later):
            self.last_act = number
        if stepped or not np.array_equal(marks, self.last_marks):
            self.last_step = number
        if acted or self.last_step == number:
            self.last_change, self.last_marks = number, marks
        pending = self.between.pending or waiting > 0 or _auctions.unsettled(state, self.last_change, self.last_act)
        pending = pending or self.late or any(at > number for at, _ in state.shock.later)
        pending = pending or (state.runs is not None and state.runs.pending())
        self.idle = 0 if pending else self.wait(number)
        ending = Status.EXHAUSTED if len(which) or self.unsold() else Status.SETTLED
        goes_on = acted or pending or moving(state) or self.may_return(len(which)) or self.close_out()
        return number + 1 + self.idle, float(len(which)), None if goes_on else ending

    def wait(self, number: int) -> int:
        """Count the rounds to come that are passed over: for long nothing but withdrawals under a cap went on."""
        state = self.state
        alone = moving(state) and state.transit.due.max() <= number and not state.fading().any()
        return (number - self.last_step) // PATIENCE if alone and number < LAST else 0

    def by_account(self, name: str) -> NDArray[Any]:
        """One of the notes by account of the network."""
        overlay = self.state.overlay
        notes = self.notes[name][: len(overlay.accounts)]
        if name == "first_round":
            notes = np.where(self.notes["called"][: len(notes)], notes, -1)
        found = np.full(len(self.state.net.labels("accounts")), -1 if name == "first_round" else 0, dtype=notes.dtype)
        found[overlay.accounts] = notes
        for stroke in overlay.strokes:
            found[overlay.index.order[stroke.place]] = stroke_notes(stroke, overlay.index)[name]
        return found

    def count(self, name: str) -> int:
        """Count the accounts that were called, or liquidated: all that were closed at one stroke, and seats."""
        overlay = self.state.overlay
        seated = np.count_nonzero(self.notes[name][: len(overlay.accounts)])
        return int(seated) + sum(len(stroke.place) for stroke in overlay.strokes)

    def finish(self) -> None:
        """Let go of what only a run that goes on needs."""
        self.state.board = self.state.overlay.trimmed(self.state.board)
        self.notes = self.notes[: len(self.state.accounts)].copy()
        seats = len(self.state.accounts)
        self.events.call_of = longer(self.events.call_of, seats)[:seats].copy()
        del self.draws, self.scan, self.watch, self.strokes, self.margin, self.reach, self.stops
        del self.desk, self.between.play  # they hold the play: what holds itself stays until somebody collects it

    def may_return(self, called: int) -> bool:
        """Whether fading impact can still make somebody act.

        A price that rises can call those who owe the asset, one that falls those whose collateral it is, and either a
        margin account; either can let somebody close an account that nobody could close.
        """
        fading, index = self.state.fading()[self.state.markets.book], self.state.overlay.index
        reaches = (fading > 0) & index.as_debt | (fading < 0) & index.as_collateral | (fading != 0) & self.margined
        return bool(reaches.any() or (called and fading.any()))

    # the steps of a round -----------------------------------------------------------------------------------------

    def strike(self, number: int) -> None:
        """Let the later shocks of this round strike."""
        state = self.state
        for shock in [shock for at, shock in state.shock.later if at == number]:
            failing = shock.defaulted(state.net) & ~state.overlay.defaulted
            self.open_traders(failing)
            books = strike(state, shock)
            self.last_fall[books] = self.events.add_strike()
            self.strokes = Strokes(state, self.on)  # an exchange that is out closes nobody
            self.between.depth.quoted *= shock.depth_factor
            self.touch_all(failing)

    def touch_all(self, traders: NDArray[np.bool_]) -> None:
        """Value all accounts of some traders in the next round."""
        owner = self.state.overlay.owner[self.state.accounts.trader[: self.state.overlay.used["accounts"]]]
        self.watch.touch(np.flatnonzero(traders[owner]))

    def close_out(self) -> bool:
        """Clear what is owed; tell whether somebody defaults whose accounts are to be closed in the next rounds."""
        if "liquidation" not in self.on:
            return False
        who = self.passes.failing(self.state)
        if len(who):
            failing = blank(len(self.state.overlay.insolvent), bool)
            failing[who] = True
            self.open_traders(failing)
            self.state.overlay.insolvent |= failing
            close_down(self.state)
            self.touch_all(failing)
        return len(who) > 0

    def run(self, marks: NDArray[np.float64], number: int) -> int:
        """Let frightened traders withdraw; return from how many balances."""
        state = self.state
        if state.runs is None:
            return 0
        borne = self.events.by_exchange
        shared = np.array([borne.get(("suppliers", exchange), 0.0) for exchange in range(state.n_exchanges)])
        shut = (state.rules.closed != 0) | (state.rules.out != 0) | gated(state)
        log = state.runs.ask(state, shared, shut, number)
        seats, source = log[:, 0].astype(np.int64), log[:, 2].astype(np.int64)
        np.subtract.at(self.notes["inflow"], seats, log[:, 4] * marks[state.entries.market[source]])
        self.watch.touch(np.unique(seats))
        self.events.add_run(log, marks)
        return len(log)

    def fire_stops(self, marks: NDArray[np.float64]) -> int:
        """Let stops on positions fire before anybody is called; return how many did."""
        if self.stops is None:
            return 0
        log = self.stops.fire(self.state, marks)
        self.watch.touch(np.unique(log[:, 0].astype(np.int64)))
        self.events.add_stops(log, self.last_fall)
        return len(log)

    def find_called(self, marks: NDArray[np.float64], number: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Accounts below health 1 and those closed by force, in order of priority."""
        state, share = self.state, self.state.overlay.share
        if self.reach.returns(marks):
            self.scan.restart()
            self.watch.restart()
        reach, account = self.reach.now(marks, share), state.overlay.index.order
        exposed = self.scan.exposed(reach, marks, share)
        at_once = self.strokes.fits(exposed.places) & (self.priority != "pro_rata")
        self.open(account[exposed.places[~at_once]])
        self.open(self.margin.exposed(state.terms, marks, share))
        seats = self._seats_below(self.watch.exposed(reach), marks, len(reach) - 1)
        low = self._places_below(exposed, at_once)
        if len(low[0]) < MIX * np.count_nonzero(~self._shut(seats[0])):
            first = state.overlay.used["accounts"]
            self.open(account[-1 - low[0]])
            low = self._seats_below(np.arange(first, state.overlay.used["accounts"]), marks, len(reach) - 1)
        if self.reach.forget():
            self.scan.rebase(reach)
            self.watch.rebase(reach)
        found = [np.concatenate(pair) for pair in zip(seats, low, strict=True)] if len(seats[0]) else low
        which, health, largest = found
        order = self._order(which, health)
        which = np.take(which, order, mode="clip")
        if _seatless(which):  # nobody asks for the health of who has no seat: it stays in the order it came in
            falls = self.state.quotes.falls(self.last_fall, self.state.markets.book)
            self.events.add_calls(which, health, largest, falls, order)
            return which, health
        health, largest = health[order], largest[order]
        self.note_calls(which, health, largest, number)
        return which, health

    def _seats_below(self, seats: NDArray[np.int64], marks: NDArray[np.float64], row: int) -> Found:
        """Those of these seats that are called now, with health and market of the largest collateral.

        What is left of a closed account is called while it owes more than it has, though nothing is required of it.
        """
        state = self.state
        if not len(seats):
            return seats, np.zeros(0), seats
        value_positions(state, seats, marks)
        health, largest = _answers.account_health(seats, state.accounts, state.entries, state.markets, marks)
        forced = (state.accounts.forced[seats] > 0) & np.isfinite(health)
        self.watch.valued(seats, health, forced | (state.accounts.test[seats] != LENDING), row)
        low = called(health) & (np.isfinite(health) | self.notes["liquidated"][seats]) | forced
        low &= state.overlay.code[seats] < self.never_called
        return seats[low], health[low], largest[low]

    def _places_below(self, exposed: Exposed, at_once: NDArray[np.bool_]) -> Found:
        """Those of these places that are called now, likewise; the others are looked at again."""
        if not at_once.all():
            exposed = Exposed(exposed.places[at_once], exposed.health[at_once], exposed.largest[at_once])
        places, health, largest = exposed
        low = called(health)
        if not low.all():
            self.scan.leave(places[~low])
            places, health, largest = places[low], health[low], largest[low]
        return -1 - places, health, largest

    def _order(self, which: NDArray[np.int64], health: NDArray[np.float64]) -> NDArray[np.intp]:
        """Order of priority; ties, up to rounding, by account code."""
        code = self.state.overlay.codes_of
        if self.priority == "random":
            return np.argsort(code(which))[self.rng.permutation(len(which))]
        order, same = order_by_digits(-health if self.priority == "best_first" else health)
        if same.any():
            tied = np.flatnonzero(same | np.append(same[1:], False))
            order[tied] = order[tied][np.lexsort((code(which[order[tied]]), np.cumsum(~same)[tied]))]
        return order

    def note_calls(
        self, which: NDArray[np.int64], health: NDArray[np.float64], largest: NDArray[np.int64], number: int
    ) -> None:
        """Record first calls; the cause is the last sale on the book of the largest collateral, or the shock."""
        falls = self.state.quotes.falls(self.last_fall, self.state.markets.book)
        seated = which >= 0
        new = ~seated
        new[seated] = ~self.notes["called"][which[seated]]
        seats = which[new & seated]
        self.events.add_calls(which[new], health[new], largest[new], falls)
        self.notes["called"][seats], self.notes["first_round"][seats] = True, number
        seats = which[seated]
        anew = seats[self.notes["seen"][seats] != number - self.idle]
        self.notes["since"][anew] = number
        self.notes["seen"][seats] = number + 1

    def respond(
        self, which: NDArray[np.int64], health: NDArray[np.float64], marks: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], int]:
        """Let owners answer, and what is in transit arrive; return who is left, and how many accounts were helped."""
        state, seated = self.state, which >= 0
        self.planned, self.arrived, self.late = 0, 0, False
        if not (seated.any() or len(state.transit.units)):
            return which, health, 0
        seats = which[seated]
        asked = self.asked(seats[np.isfinite(health[seated])])  # nobody answers for what is left of a closed account
        log = self.answer(seats, asked, marks) if len(asked) else np.zeros((0, 5))
        arrived = settle(state, marks, self.events.number, 1 + self.idle)
        self.planned, self.arrived = len(log), len(arrived)
        home = arrived[:, 1] < 0
        receive(state, arrived[home], marks)
        arrived = arrived[~home]
        if len(arrived):
            self.note_moves(arrived, marks)
        if not (len(log) or len(arrived)):
            return which, health, 0
        helped = np.isin(which, log[:, 0])
        if len(arrived) or len(state.transit.units):  # what is still in transit helps nobody yet
            now, _ = _answers.account_health(seats, state.accounts, state.entries, state.markets, marks)
            helped |= np.isin(which, state.entries.account[arrived[:, 1].astype(np.int64)])
            helped[seated] &= ~called(now)
        self.notes["topped_up"][which[helped]] = True
        return which[~helped], health[~helped], int(helped.sum())

    def asked(self, which: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of the called accounts whose owners answer now."""
        accounts, traders = self.state.accounts, self.state.traders
        owner = accounts.trader[which]
        able = (traders.top_up[owner] | traders.withdraw[owner] | traders.reduce[owner]) > 0
        able &= ~self._shut(which) & (accounts.forced[which] == 0)
        ready = able & (self.events.number - self.notes["first_round"][which] >= traders.lag[owner])
        self.late = bool((able & ~ready).any())
        chancy = np.flatnonzero(ready & (traders.probability[owner] < 1.0))
        drawn = self.draws.of(self.state.overlay.code[which[chancy]])
        ready[chancy] = drawn < traders.probability[owner[chancy]]
        return np.asarray(which[ready])

    def answer(
        self, which: NDArray[np.int64], asked: NDArray[np.int64], marks: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Move what owners plan, at once or into transit; return the log of moves."""
        state = self.state
        accounts, entries = state.accounts, state.entries
        closed = (state.rules.closed != 0) | gated(state)
        barred = self._shut(np.arange(len(accounts))) | closed[accounts.exchange]
        barred[which] = True
        value_positions(state, np.arange(state.overlay.used["accounts"]), marks)
        rates = state.terms.rates if len(state.net.book.position_market) else None

        def trade(board: Board) -> tuple[NDArray[Any], ...]:
            return _reductions.respond(asked, board, rates, marks, barred)

        with self.filling(trade):
            log, trades, made = trade(state.board)
        self.events.add_margin_fills(trades, self.last_fall, np.repeat(asked, made))
        self.watch.touch(trades[:, 0].astype(np.int64))
        own = log[:, 2] >= 0
        source = np.where(own, log[:, 2], 0).astype(np.int64)
        donor = entries.account[source]
        slow = own & (state.rules.gated[accounts.exchange[donor]] != 0) if own.any() else own
        submit(state, log[slow], self.events.number)
        self.events.add_requests(log[slow], marks)
        self.watch.touch(donor[own])
        np.subtract.at(self.notes["inflow"], donor[own], ((log[:, 3] + log[:, 4]) * marks[entries.market[source]])[own])
        self.note_moves(log[~slow], marks)
        return log

    def note_moves(self, log: NDArray[np.float64], marks: NDArray[np.float64]) -> None:
        """Post and record what moved into accounts."""
        entries, entry = self.state.entries, log[:, 1].astype(np.int64)
        post_moves(self.state, log, marks)
        self.watch.touch(entries.account[entry])
        units = log[:, 3] + log[:, 4]
        np.add.at(self.notes["inflow"], entries.account[entry], units * marks[entries.market[entry]])
        self.events.add_moves(log, marks)

    def trade(self) -> int:
        """Let investors trade: stops, sales to a leverage, purchases; return how many orders were filled."""
        investors, state, filled = self.state.investors, self.state, 0
        if investors is None:
            return 0
        steps: tuple[Any, ...] = (("stop_sale", investors.stops, 1.0), ("target_sale", investors.to_target, 1.0))
        steps = steps if "reduction" in self.on else ()
        bids = (("purchase_of_fallen", investors.purchases, -1.0),) if "purchase" in self.on else ()
        for kind, orders, sign in (*steps, *bids):
            sold = sign * orders(state)
            cash = investors.fill(state, sold, state.marks_outside)
            if kind == "purchase_of_fallen":
                investors.pay(state, cash, state.marks_outside)
            for name, rows in ((kind, sold > 0), (kind.replace("target_sale", "target_purchase"), sold < 0)):
                trader, asset = investors.codes[investors.owner[rows]], investors.asset[rows]
                self.events.add_orders(name, trader, asset, np.abs(sold[rows]), np.abs(cash[rows]), self.last_fall)
            filled += int(np.count_nonzero(sold))
        return filled

    def _shut(self, seats: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which accounts are on an exchange that stopped."""
        return np.asarray(self.state.rules.out[self.state.accounts.exchange[seats]] != 0)

    def close(
        self, which: NDArray[np.int64], health: NDArray[np.float64], marks: NDArray[np.float64]
    ) -> tuple[int, int, int, int]:
        """Liquidate, sell what was taken over, write off; return the number of each, and of those who must wait."""
        self.strokes.losses = 0
        _limits.renew(self.state, marks)
        if _seatless(which):
            moved = self._close_at_once(which, marks) if len(which) else 0
            return moved, self.sell_lots(marks), self.strokes.losses, 0
        seated = which >= 0
        noticed, resting, shut = np.zeros((3, len(which)), dtype=bool)
        seats = which[seated]
        shut[seated] = self._shut(seats)
        noticed[seated], resting[seated] = _limits.waiting(self.state, seats, self.notes, self.events.number)
        ready = ~shut & ~noticed & ~resting
        moved = self.liquidate(which[ready], health[ready], marks)
        sold = self.sell_lots(marks)
        holes = self.write_off(which[seated & ~shut & ~noticed], marks) + self.strokes.losses
        return moved, sold, holes, int((~shut & (noticed | resting)).sum())

    def liquidate(self, which: NDArray[np.int64], health: NDArray[np.float64], marks: NDArray[np.float64]) -> int:
        """Close accounts by the rules of their exchange, in the given order; return how many were acted on.

        Auto-deleveraging waits for all of them, so that it does not hang on who else is called.
        """
        state, self.unfilled = self.state, []
        ways = (self._close_part, self._close_whole, self._absorb, self._auction, self._close_margin)
        seated = which >= 0
        seats, way = which[seated], np.full(len(which), _AT_ONCE)
        route = state.rules.route[state.accounts.exchange[seats]].astype(np.int64)
        way[seated] = np.where(state.accounts.test[seats] != LENDING, _MARGIN, route)
        acted = 0
        runs = [run for run in np.split(np.arange(len(which)), np.flatnonzero(np.diff(way)) + 1) if len(run)]
        alike = [(int(way[run[0]]), which[run], health[run]) for run in runs]
        with self.filling(lambda board: self._rehearse(alike, board, marks)):
            for kind, some, healths in alike:
                if kind == _AT_ONCE:
                    acted += self._close_at_once(some, marks)
                else:
                    acted += self._note_closed(ways[kind](some, healths, marks))
        if self.unfilled:
            acted += self._note_closed(self._deleverage(np.concatenate(self.unfilled), marks))
        return acted

    def filling(self, rehearse: Callable[[Board], object]) -> AbstractContextManager[None]:
        """Return the frame of trades that are filled together by the priority "pro_rata", else one by one."""
        return self.together.filled(self.state, rehearse) if self.priority == "pro_rata" else nullcontext()

    def _rehearse(
        self, runs: list[tuple[int, NDArray[np.int64], NDArray[np.float64]]], board: Board, marks: NDArray[np.float64]
    ) -> None:
        """Trade on a board what closing accounts trades, and record nothing."""
        for way, which, health in runs:
            if way == _PART:
                _sales.liquidate(which, health, board, marks)
            elif way == _WHOLE:
                _sales.close_whole(which, _limits.admit(which, board, marks), board, marks)
            elif way == _MARGIN:
                _margin_sales.close_margin(which, health, board, self.state.terms.rates, marks)

    def _note_closed(self, seats: NDArray[np.int64]) -> int:
        """Note who was liquidated in this round; return how many."""
        self.notes["liquidated"][seats] = True
        self.notes["closed"][seats] = self.events.number + 1
        self.watch.touch(seats)
        return int(np.count_nonzero(np.diff(seats, prepend=-1)))

    def _close_at_once(self, which: NDArray[np.int64], marks: NDArray[np.float64]) -> int:
        """Close some accounts without a seat, for good; return how many traded."""
        stroke, did = self.strokes.close(-1 - which, marks, self.events.number)
        self.strokes.losses += did.losses
        self.events.add_stroke(stroke, did, self.last_fall)
        return did.traded

    def _close_whole(
        self, which: NDArray[np.int64], _health: NDArray[np.float64], marks: NDArray[np.float64]
    ) -> NDArray[np.int64]:
        """Sell all collateral of some accounts; return the seat of every fill."""
        share = _limits.admit(which, self.state.board, marks)
        log = _sales.close_whole(which, share, self.state.board, marks)
        seats, bought = log[:, 0].astype(np.int64), log[:, 2] == 1
        market = self.state.entries.market[log[:, 1].astype(np.int64)]
        value = np.where(bought, log[:, 3] * marks[market], 0)
        np.subtract.at(self.notes["inflow"], seats, np.where(bought, -log[:, 4], log[:, 4]))  # the rest is paid out
        np.add.at(self.notes["repaid"], seats, value)
        self.events.add_fills(log, value, self.last_fall)
        return seats

    def _absorb(
        self, which: NDArray[np.int64], _health: NDArray[np.float64], marks: NDArray[np.float64]
    ) -> NDArray[np.int64]:
        """Let exchanges take over some accounts below the mark; return the seats."""
        state = self.state
        share = _limits.admit(which, state.board, marks)
        seats, repaid, (entry, units), log = _inventory.absorb(state, which, share, marks)
        if not len(seats):
            return seats
        self.notes["repaid"][seats] += repaid
        self.events.sums["repaid"] += float(repaid.sum())
        stock = np.isin(state.lots.exchange, state.accounts.exchange[seats]) & (state.lots.seat < 0)
        state.lots["event"][stock] = self.events.add_absorbed(log)
        self._note_deficits(np.column_stack([state.entries.account[entry], entry, units]), marks)
        return seats

    def _auction(
        self, which: NDArray[np.int64], _health: NDArray[np.float64], marks: NDArray[np.float64]
    ) -> NDArray[np.int64]:
        """Open auctions of some accounts; return the seat of every one."""
        state = self.state
        share = _limits.admit(which, state.board, marks)
        lots = _auctions.open_auctions(state, which, share, marks, self.events.number)
        self.events.add_auctions(lots)
        self.events.add_incentives(lots, *_auctions.pay_starters(state, lots, marks))
        return np.asarray(np.unique(state.lots.seat[lots]))

    def sell_lots(self, marks: NDArray[np.float64]) -> int:
        """Let buyers take and bid for what exchanges took over; return how many did, with the auctions that ended."""
        state, number = self.state, self.events.number
        if not len(state.lots):
            return 0
        falling, anew = _auctions.price_lots(state, marks, number)
        self.events.add_incentives(anew, *_auctions.pay_starters(state, anew, marks))
        stock = _inventory.offer_stock(state, marks)
        won = _auctions.winners(state, number)
        awarded = _sales.award(won, state.lots, state.board)
        taken = _sales.take(np.concatenate([stock, falling]), state.lots, state.board, marks)
        log = np.concatenate([awarded, taken])
        self._note_takes(log, marks)
        over = _auctions.close_lots(state, won)
        self._close_lots(over, marks)
        bids = _auctions.bid_on_lots(state, number)
        self.events.add_bids(bids)
        return len(log) + len(over) + len(bids)

    def _note_takes(self, log: NDArray[np.float64], marks: NDArray[np.float64]) -> None:
        """Post and record what buyers took from lots."""
        if not len(log):
            return
        repaid = _inventory.post_takes(self.state, log, marks)
        seat = self.state.lots.seat[log[:, 0].astype(np.int64)]
        np.add.at(self.notes["repaid"], seat[seat >= 0], repaid[seat >= 0])
        self.events.add_takes(log, float(repaid[seat >= 0].sum()), marks, self.last_fall)

    def _close_lots(self, over: NDArray[np.int64], marks: NDArray[np.float64]) -> None:
        """Return what is left of auctions that are over, and leave what lots did not raise to the layers."""
        state = self.state
        self.events.add_returns(over, _inventory.give_back(state, over, marks), marks)
        short = np.concatenate([over[state.lots.owed[over] > 0], _inventory.settle_stock(state)])
        log, value = _inventory.owed_to_holes(state, short, marks)
        seat = log[:, 0].astype(np.int64)
        np.add.at(self.notes["deficit"], seat[seat >= 0], value[seat >= 0])
        self.events.add_shortfalls(short, log[:, 2], value)
        self.watch.touch(state.lots.seat[over])
        state.lots = _inventory.without(state.lots, over)

    def unsold(self) -> bool:
        """Tell whether an auction is open, or an exchange wants to sell what it took over, and nobody buys."""
        lots = self.state.lots
        wanted = (lots.units > 0) & (self.state.rules.wanted[lots.exchange] > 0)
        return bool(((lots.seat >= 0) | wanted).any())

    def _close_part(
        self, which: NDArray[np.int64], health: NDArray[np.float64], marks: NDArray[np.float64]
    ) -> NDArray[np.int64]:
        """Let liquidators repay debt of some accounts, one pair each; return the seat of every pair."""
        log = _sales.liquidate(which, health, self.state.board, marks)
        seats = log[:, 0].astype(np.int64)
        self.notes["repaid"][seats] += log[:, 8]
        self.events.add_pairs(log, self.last_fall)
        return seats

    def _close_margin(
        self, which: NDArray[np.int64], health: NDArray[np.float64], marks: NDArray[np.float64]
    ) -> NDArray[np.int64]:
        """Close contracts of margin accounts, sell deposits for what they owe; return the seat of every fill."""
        log = _margin_sales.close_margin(which, health, self.state.board, self.state.terms.rates, marks)
        left = log[log[:, 2] >= _margin_sales.UNFILLED]
        if len(left):
            self.unfilled.append(left)
        return np.sort(self._note_fills(log, marks))

    def _deleverage(self, left: NDArray[np.float64], marks: NDArray[np.float64]) -> NDArray[np.int64]:
        """Close what no book took at the bankruptcy price, settle those accounts; return who traded or was closed."""
        unfilled, pending = (left[left[:, 2] == kind] for kind in (_margin_sales.UNFILLED, _margin_sales.PENDING))
        rows = unfilled[:, 1].astype(np.int64)
        held = self.state.positions.quantity[rows]
        traded = deleverage(self.desk, unfilled[:, [0, 1, 3, 4]], marks)
        keep = np.ascontiguousarray(pending[:, [0, 3, 4]])
        traded.append(_margin_sales.settle_up(keep, self.state.board, marks))
        closed = unfilled[held != self.state.positions.quantity[rows], 0].astype(np.int64)
        return np.sort(np.concatenate([closed, *(self._note_fills(one, marks) for one in traded)]))

    def _note_fills(self, log: NDArray[np.float64], marks: NDArray[np.float64]) -> NDArray[np.int64]:
        """Record what margin accounts traded and were charged; return the seat of every fill."""
        log = log[log[:, 2] < _margin_sales.UNFILLED]
        seats, row, kind = (log[:, column].astype(np.int64) for column in range(3))
        bought = np.isin(kind, (_margin_sales.PURCHASE, _margin_sales.OFFSET))
        charged = kind == _margin_sales.CHARGE
        market = self.state.entries.market[row[bought]]
        np.add.at(self.notes["repaid"], seats[bought], log[bought, 3] * marks[market])
        np.add.at(self.state.reserves.surplus, self.state.entries.market[row[charged]], log[charged, 3])
        self.events.add_margin_fills(log, self.last_fall)
        return seats

    def write_off(self, which: NDArray[np.int64], marks: NDArray[np.float64]) -> int:
        """Turn debt without collateral into holes of the exchanges; return how many debts were lost."""
        if not len(which):
            return 0
        log = write_off(self.state, which, marks)[0]
        self._note_deficits(log, marks)
        return len(log)

    def _note_deficits(self, log: NDArray[np.float64], marks: NDArray[np.float64]) -> None:
        """Record holes that accounts left: a log with columns account, entry, units."""
        seats = log[:, 0].astype(np.int64)
        value = log[:, 2] * marks[self.state.entries.market[log[:, 1].astype(np.int64)]]
        reserves, venue = self.state.reserves, self.state.accounts.exchange[seats]
        for row in np.flatnonzero(self.asks_defaulters[venue]).tolist():
            mine, seat = reserves.defaulters.setdefault(int(venue[row]), {}), int(seats[row])
            mine[seat] = mine.get(seat, 0.0) + float(value[row])
        reserves.failed[self.state.overlay.code[seats]] = True
        np.add.at(self.notes["deficit"], seats, value)
        self.notes["liquidated"][seats] = True
        self.watch.touch(seats)
        self.events.add_deficits(log, value)

    def bear_losses(self, marks: NDArray[np.float64]) -> None:
        """Run the holes of the round through the waterfalls; contracts that a layer ended may leave new ones."""
        cover_holes(self.desk, marks)
        while self.desk.torn:
            seats = np.unique(np.concatenate(self.desk.torn))
            self.desk.torn.clear()
            keep = np.column_stack([seats, np.full(len(seats), np.inf), np.zeros(len(seats))])
            self._note_fills(_margin_sales.settle_up(keep, self.state.board, marks), marks)
            self.write_off(seats, marks)
            cover_holes(self.desk, marks)
        for exchange in np.unique(self.state.markets.exchange[self.state.reserves.surplus > 0.0]).tolist():
            if "account_surplus" in self.state.layers_of(exchange):
                fund_surplus(self.state, exchange, marks)

    def note_round(self, number: int, marks: NDArray[np.float64], answered: int, moved: int) -> None:
        """Keep one row of aggregates."""
        row: dict[str, float] = {"called": self.events.count("call"), "topped_up": answered, "liquidated": moved}
        row |= self.events.totals()
        before = self.state.net.book.market_mark
        kept = np.divide(marks, before, out=np.ones(len(marks)), where=before > 0)
        self.rounds.append({"round": number, **row, "lowest_mark": float(kept.min()) if len(kept) else 1.0})
