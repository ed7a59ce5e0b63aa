"""The cascade: rounds of calls, responses, liquidations and losses until nobody acts any more."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion._iterate import iterate
from netcontagion._status import Status
from netcontagion.errors import ContagionError, NotSettledError, UnknownLabelError
from netcontagion.margining import _answers, _sales
from netcontagion.margining._events import Events
from netcontagion.margining._opening import open_state
from netcontagion.margining._posting import post_moves, write_off
from netcontagion.margining._state import State, called
from netcontagion.margining._waterfall import cover_holes
from netcontagion.network import check_call

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

    from netcontagion.margining._result import CascadeResult
    from netcontagion.network import ExposureNetwork, Shock

__all__ = ["SWITCHES", "cascade"]

SWITCHES = ("top_up", "withdrawal", "liquidation", "impact")  # behavioural channels that can be switched off
_PRIORITIES = ("worst_first", "best_first", "random")


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
    1.05, then from own accounts down to 1.25 there, all or nothing; what stays below 1 is liquidated by the rules of
    its exchange, in the order of ``priority``; sales move prices (price x exp(-Q / depth) on the cumulative net
    quantity); debt left without collateral, max(0, D - C / (1 + bonus)) on a full close-out, runs through insurance
    fund, equity and suppliers. When nobody acts any more, what nodes owe each other is cleared.

    Parameters
    ----------
    net : ExposureNetwork
        A network whose exchanges lend (no positions).
    shock : Shock
        What happens from outside.
    mode : {"sequential"}
        Sales fill one after the other.
    channels : collection of str, optional
        Behavioural channels that are on, of "top_up", "withdrawal", "liquidation", "impact"; default all.
    priority : {"worst_first", "best_first", "random"}
        Order in which called accounts respond and are liquidated; ties by account code.
    seed : int or numpy Generator, optional
        For ``priority="random"``.
    max_rounds : int
        Most rounds.
    strict : bool, default True
        Whether an ending that is no answer raises.

    Returns
    -------
    CascadeResult
        Frozen tables, ``status``, ``assumptions``, ``check()``.

    Raises
    ------
    NotSettledError
        With ``strict``, when ``max_rounds`` is reached; it carries the result.
    ContagionError
        The network holds positions, or an exchange with recourse.

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
    """
    _check_call(net, shock, mode, priority, max_rounds)
    on = _switches(channels)
    state = open_state(net, shock, switches=on)
    play = Play(state, on, priority, np.random.default_rng(seed), Events())
    ending = iterate(play.round, 0, max_rounds=max_rounds)
    from netcontagion.margining._result import close

    result = close(play, ending, seed=None if isinstance(seed, np.random.Generator) else seed)
    if strict and not ending.status.settled:
        raise NotSettledError(f"cascade: {ending.status.value}", result)
    return result


def _check_call(net: ExposureNetwork, shock: Shock, mode: str, priority: str, max_rounds: int) -> None:
    check_call(net, shock)
    if mode != "sequential":
        raise UnknownLabelError(mode, ("sequential",), "mode")
    if priority not in _PRIORITIES:
        raise UnknownLabelError(priority, _PRIORITIES, "priority")
    if max_rounds < 1:
        raise ValueError(f"max_rounds is {max_rounds!r}; allowed: 1 or more")
    if len(net.columns("positions")["quantity"]):
        message = "the cascade runs exchanges that lend; this network holds positions in contracts"
        raise ContagionError(message)
    recourse = net.labels("exchanges")[net.columns("exchanges")["recourse"]]
    if len(recourse):
        message = f"the cascade settles non-recourse accounts; {recourse[0]!r} has recourse (nc.clear settles it)"
        raise ContagionError(message)


def _switches(channels: Collection[str] | None) -> frozenset[str]:
    if channels is None:
        return frozenset(SWITCHES)
    if isinstance(channels, str):
        raise TypeError(f"channels is {channels!r}; give a collection of {', '.join(SWITCHES)}")
    for name in channels:
        if name not in SWITCHES:
            raise UnknownLabelError(name, SWITCHES, "channel")
    return frozenset(channels)


@dataclass(eq=False)
class Play:
    """One run: the state, what was recorded, and the round as a story of a few calls."""

    state: State
    on: frozenset[str]
    priority: str
    rng: np.random.Generator
    events: Events
    screen: Screen = field(init=False)
    shut: NDArray[np.bool_] = field(init=False)
    ever_called: NDArray[np.bool_] = field(init=False)
    topped_up: NDArray[np.bool_] = field(init=False)
    liquidated: NDArray[np.bool_] = field(init=False)
    first_round: NDArray[np.int32] = field(init=False)
    deficit: NDArray[np.float64] = field(init=False)
    repaid: NDArray[np.float64] = field(init=False)
    inflow: NDArray[np.float64] = field(init=False)
    rounds: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        size = len(self.state.accounts.trader)
        self.ever_called, self.topped_up, self.liquidated = (np.zeros(size, dtype=bool) for _ in range(3))
        self.shut = self.state.rules.out[self.state.accounts.exchange] != 0  # accounts on exchanges that stopped
        self.first_round = np.full(size, -1, dtype=np.int32)
        self.deficit, self.repaid, self.inflow = (np.zeros(size) for _ in range(3))
        self.events.call_of = np.zeros(size, dtype=np.int64)
        self.health_after_shock = self.state.health(self.state.marks())
        self.screen = Screen(self.health_after_shock, self.state)
        self.last_fall = np.zeros(len(self.state.books.depth), dtype=np.int64)  # event that last lowered each book

    def round(self, number: int) -> tuple[int, float, Status | None]:
        """Play one round; the state is settled when nobody acted."""
        state = self.state
        marks = state.marks()
        if not np.isfinite(marks).all():
            return number, float("nan"), None
        state.marks_outside = state.asset_prices()
        self.events.open_round(number)
        which, health = self.find_called(marks, number)
        which, health, answered = self.respond(which, health, marks)
        moved = self.liquidate(which, health, marks) if "liquidation" in self.on else 0
        holes = self.write_off(which, marks) if "liquidation" in self.on else 0
        self.bear_losses(marks)
        self.note_round(number, marks, answered, moved)
        acted = answered + moved + holes > 0
        ending = Status.EXHAUSTED if len(which) else Status.SETTLED
        return number + 1, float(len(which)), None if acted else ending

    # the steps of a round -----------------------------------------------------------------------------------------

    def find_called(self, marks: NDArray[np.float64], number: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Accounts below health 1 and those closed by force, in order of priority."""
        state = self.state
        candidates = self.screen.candidates(marks)
        health, largest = _answers.account_health(candidates, state.accounts, state.entries, marks)
        low = called(health) | ((state.accounts.forced[candidates] > 0) & np.isfinite(health))
        which, health, largest = candidates[low], health[low], largest[low]
        order = self._order(which, health)
        self.note_calls(which[order], health[order], largest[order], number)
        return which[order], health[order]

    def _order(self, which: NDArray[np.int64], health: NDArray[np.float64]) -> NDArray[np.intp]:
        if self.priority == "random":
            return self.rng.permutation(len(which))
        return np.lexsort((which, health if self.priority == "worst_first" else -health))

    def note_calls(
        self, which: NDArray[np.int64], health: NDArray[np.float64], largest: NDArray[np.int64], number: int
    ) -> None:
        """Record first calls; the cause is the last sale on the book of the largest collateral, or the shock."""
        new = ~self.ever_called[which]
        accounts, market = which[new], largest[new]
        parent = np.where(market >= 0, self.last_fall[self.state.markets.book[market]], 0)
        self.events.add_calls(accounts, health[new], parent)
        self.ever_called[accounts] = True
        self.first_round[accounts] = number

    def respond(
        self, which: NDArray[np.int64], health: NDArray[np.float64], marks: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], int]:
        """Let owners top up and withdraw; return who is left, and how many accounts were helped."""
        state = self.state
        if not len(which):
            return which, health, 0
        accounts, entries = state.accounts, state.entries
        asked = which[~self.shut[which] & (accounts.forced[which] == 0)]
        barred = self.shut.copy()
        barred[which] = True
        assets = state.net.book.market_asset
        log = _answers.respond(asked, accounts, entries, state.traders, state.wallets, assets, marks, barred)
        helped = np.isin(which, log[:, 0])
        self.topped_up[which[helped]] = True
        post_moves(state, log, marks)
        entry, source = log[:, 1].astype(np.int64), np.maximum(log[:, 2].astype(np.int64), 0)
        own, units = log[:, 2] >= 0, log[:, 3] + log[:, 4]
        target, donor = entries.account[entry], entries.account[source[own]]
        self.screen.watch(target)
        self.screen.watch(donor)
        np.add.at(self.inflow, target, units * marks[entries.market[entry]])
        np.subtract.at(self.inflow, donor, (units * marks[entries.market[source]])[own])
        self.events.add_moves(state, log, marks)
        return which[~helped], health[~helped], int(helped.sum())

    def liquidate(self, which: NDArray[np.int64], health: NDArray[np.float64], marks: NDArray[np.float64]) -> int:
        """Close accounts by the rules of their exchange, in the given order; return how many were acted on."""
        state = self.state
        accounts, entries, rules = state.accounts, state.entries, state.rules
        reached = ~self.shut[which]
        which, health = which[reached], health[reached]
        whole = rules.whole_account[accounts.exchange[which]]
        acted = 0
        for run in np.split(np.arange(len(which)), np.flatnonzero(np.diff(whole)) + 1):
            if not len(run):
                continue
            if whole[run[0]]:
                log = _sales.close_whole(which[run], state.board, marks)
                account, cash = log[:, 0].astype(np.int64), np.where(log[:, 2] == 1, -log[:, 4], log[:, 4])
                value = np.where(log[:, 2] == 1, log[:, 3] * marks[entries.market[log[:, 1].astype(np.int64)]], 0)
                np.subtract.at(self.inflow, account, cash)  # what is left of the proceeds is paid out
                self.events.add_fills(state, log, value, self.last_fall)
            else:
                log = _sales.liquidate(which[run], health[run], state.board, marks)
                account, value = log[:, 0].astype(np.int64), log[:, 8]
                self.events.add_pairs(state, log, self.last_fall)
            np.add.at(self.repaid, account, value)
            self.liquidated[account] = True
            self.screen.watch(account)
            acted += len(np.unique(account))
        return acted

    def write_off(self, which: NDArray[np.int64], marks: NDArray[np.float64]) -> int:
        """Turn debt without collateral into holes of the exchanges."""
        state = self.state
        if not len(which):
            return 0
        log, value = write_off(state, which[~self.shut[which]], marks)
        account = log[:, 0].astype(np.int64)
        np.add.at(self.deficit, account, value)
        self.liquidated[account] = True
        self.events.add_deficits(state, log, value)
        return len(log)

    def bear_losses(self, marks: NDArray[np.float64]) -> None:
        """Run the holes of the round through the waterfalls."""
        hit = cover_holes(self.state, marks, self.events.add_layer)
        for market in hit.tolist():
            self.screen.watch(self.state.entries.account[self.state.entries_of_market(market)])

    def note_round(self, number: int, marks: NDArray[np.float64], answered: int, moved: int) -> None:
        """Keep one row of aggregates."""
        row: dict[str, float] = {"called": self.events.count("call"), "topped_up": answered, "liquidated": moved}
        row |= self.events.totals()
        before = self.state.opening["marks"]
        kept = np.divide(marks, before, out=np.ones(len(marks)), where=before > 0)
        self.rounds.append({"round": number, **row, "lowest_mark": float(kept.min()) if len(kept) else 1.0})


@dataclass(eq=False)
class Screen:
    """Knows which accounts can be below health 1 without valuing all of them.

    Health now is at least health after the shock x (lowest price ratio) / (highest price ratio), so only a prefix of
    the accounts, sorted by health after the shock, is exposed; accounts whose balances changed are always looked at.
    """

    health: NDArray[np.float64]
    state: State

    def __post_init__(self) -> None:
        self.order = np.argsort(self.health, kind="stable")
        self.ranked = self.health[self.order]
        self.watched = np.zeros(len(self.health), dtype=bool)
        self.watched[(self.state.accounts.forced > 0) & np.isfinite(self.health)] = True
        self.base = self.state.markets.shocked

    def watch(self, accounts: NDArray[Any]) -> None:
        """Look at these accounts in every round from now on."""
        self.watched[accounts] = True

    def candidates(self, marks: NDArray[np.float64]) -> NDArray[np.int64]:
        """Codes of all accounts that may be below health 1, in order of code."""
        priced = self.base > 0
        ratio = marks[priced] / self.base[priced]
        bound = float(ratio.min() / ratio.max()) if len(ratio) else 1.0
        reach = np.inf if bound <= 0 else (1 + 1e-9) / bound
        exposed = self.order[: np.searchsorted(self.ranked, reach, side="left")]
        mask = self.watched.copy()
        mask[exposed] = True
        return np.flatnonzero(mask)
