"""Ranked classes of debt with default costs: the equation, its solution and the bounds that prove it.

The unknown is what each node receives, r. A node with ``e + r >= dues`` pays all; one with less pays its classes one
after the other out of its estate, ``alpha e + beta r``. The map from receipts to receipts is increasing, linear in
pieces, and jumps where a node falls: from above it is continuous, from below it is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy.sparse

from netcontagion._iterate import iterate
from netcontagion._status import Status
from netcontagion.clearing._extremes import alive_nodes
from netcontagion.clearing._linear import ROUNDING_RESIDUAL, solve_unpaid
from netcontagion.clearing._shares import SOLVENCY_TOLERANCE, share_paid
from netcontagion.clearing._solvers import fictitious_default
from netcontagion.clearing._system import EPS, System

if TYPE_CHECKING:
    from netcontagion._iterate import Ending
    from netcontagion.clearing._divisions import Division
    from netcontagion.clearing._system import Bools, Floats

__all__ = ["CostlyRanks", "Debt", "Received", "bounds_of", "debt_of", "solve_costly"]

BOUND_ROUNDS = 1_000
FIRST_TRY = 4  # a jump is tried after so many rounds, after 8 and 16,
TRY_AGAIN = 16  # and then every so many
DIRECT_SIZE = 1_000  # up to so many nodes a jump ends in exact solves
FEW_SWEEPS, MANY_SWEEPS = 30, 500  # sweeps before that, and above that size
HARDLY_LEAKS = 1e-3  # a last sweep that adds more than this part of all needs exact solves at any size
WAVES = 100  # most linear systems in one jump
OUTWARDS = 2.0  # a bound near the answer is this many times the rounding away
ATTEMPTS = 3  # to find it
NEAR_AN_END = 1e-9  # next to the end of a piece a bound is looked for with the slope beyond it


@dataclass(frozen=True, eq=False)
class Debt:
    """What all scenarios share: classes from the most senior, what a default costs, how far rounding carries."""

    divisions: tuple[Division, ...]
    start: tuple[Floats, ...]
    dues: Floats
    alpha: Floats
    beta: Floats
    error: Floats
    most: Floats

    @property
    def ends(self) -> tuple[Floats, ...]:
        """Sum of the dues up to and with each class."""
        return (*self.start[1:], self.dues)


def debt_of(divisions: tuple[Division, ...], alpha: Floats, beta: Floats) -> Debt:
    """Sum up the dues of the classes, and bound the rounding."""
    nodes = len(alpha)
    ends = np.cumsum([division.claims.due for division in divisions], axis=0)
    terms, most = np.zeros(nodes), np.zeros(nodes)
    for division in divisions:
        claims = division.claims
        terms += np.bincount(claims.debtor, minlength=nodes) + np.bincount(claims.creditor, minlength=nodes)[:nodes]
        most += np.bincount(claims.creditor, claims.amount, nodes)[:nodes]
    error = (terms + 4 * len(divisions) + 8) * EPS
    return Debt(divisions, (np.zeros(nodes), *ends[:-1]), ends[-1], alpha, beta, error, most * (1 + error))


class _Piece(NamedTuple):
    """One linear piece: row i of ``passes`` is what node i passes on of the next unit, in one direction.

    ``room`` is how far the receipts of a node can go before its piece ends, ``leaks`` marks who passes on less than
    all.
    """

    passes: Any
    room: Floats
    leaks: Bools


@dataclass(frozen=True, eq=False)
class CostlyRanks:
    """One scenario. ``outwards`` rounds everything up (1) or down (-1)."""

    debt: Debt
    assets: Floats

    def fails(self, received: Floats, outwards: float = 0.0) -> Bools:
        """Mark who cannot pay all dues with these receipts."""
        debt = self.debt
        has = (self.assets + received) * (1 + outwards * 4 * EPS)
        return (debt.dues > 0) & (has < debt.dues * (1.0 - SOLVENCY_TOLERANCE))

    def estate(self, received: Floats) -> Floats:
        """Sum what is left of assets and receipts in default."""
        left: Floats = self.debt.alpha * self.assets + self.debt.beta * received
        return left

    def rounding(self, received: Floats) -> Floats:
        """How far rounding can carry what an estate pays; nothing where it is empty."""
        estate = self.estate(received)
        carried: Floats = np.where(estate > 0, self.debt.error * (estate + self.debt.dues), 0.0)
        return carried

    def spends(self, received: Floats, outwards: float = 0.0) -> Floats:
        """Sum what each node pays with: its estate, or no end where it pays all."""
        moved = np.maximum(self.estate(received) + outwards * self.rounding(received), 0.0)
        return np.where(self.fails(received, outwards), moved, np.inf)

    def paid(self, received: Floats, outwards: float = 0.0) -> list[Floats]:
        """Return what each claim of each class is paid when the debtors receive ``received``."""
        spends, debt = self.spends(received, outwards), self.debt
        return [
            division.paid(np.clip(spends - start, 0.0, division.claims.due))
            for division, start in zip(debt.divisions, debt.start, strict=True)
        ]

    def value(self, received: Floats, outwards: float = 0.0) -> Floats:
        """Psi: what is received when all have received ``received``."""
        debt, nodes = self.debt, len(received)
        new = np.zeros(nodes)
        for division, paid in zip(debt.divisions, self.paid(received, outwards), strict=True):
            new = new + np.bincount(division.claims.creditor, paid, nodes)[:nodes]
        value: Floats = new * (1 + outwards * debt.error)
        return value

    def share(self, received: Floats, outwards: float = 0.0) -> Floats:
        """Share of all dues that is paid."""
        debt = self.debt
        paid = share_paid(np.minimum(self.spends(received, outwards), debt.dues), debt.dues)
        return np.where(paid > 0, paid * (1 + outwards * debt.error), 0.0)

    def piece(self, received: Floats, direction: float, outwards: float, ahead: float = 0.0) -> _Piece:
        """Return the linear piece in which receipts rise (1) or fall (-1); maybe that a part ``ahead`` of here."""
        debt, nodes = self.debt, len(received)
        fails = self.fails(received, outwards)
        estate = self.estate(received) * (1 + direction * ahead)
        compare = np.greater_equal if direction > 0 else np.greater
        number = np.sum([compare(estate, end) for end in debt.ends], axis=0, dtype=np.intp)
        room, leaks, entries = np.zeros(nodes), debt.beta < 1, []
        for rank, (division, start) in enumerate(zip(debt.divisions, debt.start, strict=True)):
            claims, here = division.claims, fails & (number == rank)
            shares, left = division.next_unit(np.clip(estate - start, 0.0, claims.due), direction)
            room[here] = left[here]
            some = here[claims.debtor] & (shares > 0)
            leaks[claims.debtor[some & (claims.creditor == nodes)]] = True
            some &= claims.creditor < nodes
            debtor = claims.debtor[some]
            entries.append((shares[some] * debt.beta[debtor], debtor, claims.creditor[some]))
        data, rows, columns = (np.concatenate(part) for part in zip(*entries, strict=True))
        passes = scipy.sparse.coo_array((data, (rows, columns)), shape=(nodes, nodes)).tocsr()
        passes.eliminate_zeros()
        slack = (8 * debt.error if outwards else 0.0) * (self.assets + received + debt.dues)
        return _Piece(passes, self._room(received, fails, room, slack, direction), leaks)

    def _room(self, received: Floats, fails: Bools, left: Floats, slack: Floats | float, direction: float) -> Floats:
        """How far receipts can go before the debtor pays somebody else, falls, or is solvent again."""
        debt, has = self.debt, self.assets + received
        certain = bool(np.any(slack))
        edge = debt.dues * (1.0 - SOLVENCY_TOLERANCE) if certain or direction < 0 else debt.dues
        some = fails & (debt.beta > 0)
        room = np.full(len(received), np.inf)
        room[some] = (left - slack)[some] / debt.beta[some]
        to_edge = direction * (edge - has) - slack
        limited = fails if direction > 0 else ~fails & (debt.dues > 0)
        return np.maximum(np.where(limited, np.minimum(room, to_edge), room), 0.0)


# ------------------------------------------------------------------------------------------------------------ solution


class Received(NamedTuple):
    """What each node receives in one scenario, and how the solve ended."""

    received: Floats
    rounds: int
    status: Status


def solve_costly(system: CostlyRanks, *, greatest: bool, max_rounds: int) -> Received:
    """Find the greatest or the least receipts."""
    return _run(system, -1.0 if greatest else 1.0, 0.0, max_rounds)


class _State(NamedTuple):
    received: Floats
    rounds: int = 0
    next_try: int = FIRST_TRY


def _run(system: CostlyRanks, direction: float, outwards: float, max_rounds: int) -> Received:
    """Iterate down from all dues (direction -1) or up from 0 (1), with jumps to the end of the linear piece reached.

    Rounded outwards, against the direction, no iterate passes the solution on that side.
    """
    nearer = np.maximum if direction > 0 else np.minimum
    dues = system.debt.dues

    def step(state: _State) -> tuple[_State, float, Status | None]:
        new, rounds = nearer(system.value(state.received, outwards), state.received), state.rounds + 1
        moved = _distance(new, state.received, dues)
        if moved > ROUNDING_RESIDUAL and rounds < state.next_try:
            return _State(new, rounds, state.next_try), moved, None
        beyond = nearer(_jump(system, state.received, new, direction, outwards), new)
        moved = max(moved, _distance(beyond, new, dues))
        ended = Status.SETTLED if moved <= ROUNDING_RESIDUAL else None
        return _State(beyond, rounds, rounds + min(rounds, TRY_AGAIN)), moved, ended

    start = np.zeros(len(dues)) if direction > 0 else system.debt.most
    ending = iterate(step, _State(start), max_rounds=max_rounds)
    return Received(ending.state.received, ending.rounds, ending.status)


def _distance(one: Floats, other: Floats, dues: Floats) -> float:
    """Largest change of receipts, relative to what a node receives and owes."""
    return float(share_paid(np.abs(one - other), np.maximum(one, other) + dues).max(initial=0.0))


def _jump(system: CostlyRanks, received: Floats, new: Floats, direction: float, outwards: float) -> Floats:
    """Receipts at the end of the linear piece, or ``new`` where they are not certain to be on this side of the answer.

    Until somebody's piece ends, changes x solve ``x = min(room, first + passes^T x)``. Nobody passes on more than all
    of a change, so a solution short of the receipts z that follow could differ from z only among nodes that pass
    everything on among themselves and where the map leads to z exactly: where it leads further, or part of it leaks,
    there is none.
    """
    first = direction * (new - received)
    if not (first > 0).any():
        return new
    piece = system.piece(received, direction, outwards)
    farthest = np.minimum(received + piece.room, system.debt.most) if outwards else received
    added = system.debt.error * (farthest + new) + piece.passes.T @ system.rounding(farthest)
    first = first - OUTWARDS * added if outwards else np.where(first > added, first, 0.0)
    change = _change(piece, first)
    if change is None or not np.isfinite(change).all():
        return new
    beyond: Floats = np.maximum(received + direction * change, 0.0)
    if outwards:
        ahead = direction * (system.value(beyond, outwards) - beyond)
        if not ((ahead >= 0).all() and ((ahead > 0) | piece.leaks | (change == 0)).all()):
            return new
    return beyond


def _change(piece: _Piece, first: Floats) -> Floats | None:
    """Solve ``x = min(room, first + passes^T x)``, the clearing of a network in which the room is due.

    Few nodes, or a circle that hardly leaks: by exact solves. Else sweeps from 0 do, wherever they end.
    """
    passing = (np.diff(piece.passes.indptr) > 0) & (piece.room > 0)
    if not passing.any():
        return np.clip(first, 0.0, piece.room)
    room, passes = piece.room[passing], piece.passes[passing]
    among = passes[:, passing]
    many = len(room) > DIRECT_SIZE
    swept = _sweep(among.T, room, first[passing], MANY_SWEEPS if many else FEW_SWEEPS)
    changes: Floats | None = swept.state
    if swept.status is not Status.SETTLED and (not many or swept.residual > HARDLY_LEAKS):
        changes = _exact(among, room, first[passing])
    if changes is None:
        return None
    change: Floats = np.clip(first + passes.T @ changes, 0.0, piece.room)
    return change


def _sweep(incoming: Any, room: Floats, first: Floats, most: int) -> Ending[Floats]:
    """Iterate the changes from 0 up; the residual is the part of the last step in what was reached."""

    def step(change: Floats) -> tuple[Floats, float, Status | None]:
        new = np.clip(first + incoming @ change, 0.0, room)
        moved = float(share_paid(new - change, new).max(initial=0.0))
        return new, moved, Status.SETTLED if moved <= ROUNDING_RESIDUAL else None

    return iterate(step, np.zeros(len(room)), max_rounds=most)


def _exact(among: Any, room: Floats, first: Floats) -> Floats | None:
    """Solve for the changes by linear systems; None where that fails."""
    owed = (scipy.sparse.diags_array(room) @ among).tocsr()
    nobody = np.zeros(len(room), dtype=bool)
    system = System(owed, owed.T, room, first, room, nobody, first, None, EPS)
    reached, changes = alive_nodes(system), np.zeros(len(room))
    if reached.any():
        part = system.part(reached)
        fallen = fictitious_default(part, part.nobody(), WAVES, direct=False)
        if fallen.status is not Status.SETTLED:
            return None
        changes[reached] = fallen.payments
    return changes


# -------------------------------------------------------------------------------------------------------------- bounds


def bounds_of(system: CostlyRanks, received: Floats, *, greatest: bool) -> tuple[Floats, Floats]:
    """Bound the greatest (or the least) receipts near ``received``, rounding included.

    Receipts q with Psi(q) >= q are at most the greatest ones, those with Psi(q) <= q at least the least (Tarski). On
    the other side a run from the extreme is a bound; so is one from the other extreme where no such q is found.
    """
    direction = -1.0 if greatest else 1.0
    far = _run(system, direction, -direction, BOUND_ROUNDS).received
    near = _near(system, received, direction)
    if near is None:
        near = _run(system, -direction, direction, BOUND_ROUNDS).received
    return (near, far) if greatest else (far, near)


def _near(system: CostlyRanks, received: Floats, direction: float) -> Floats | None:
    """Receipts a little beyond these that are proved to be a bound; None where none is found.

    What rounding adds in a step, passed on from node to node, is how far it can carry the solution.
    """
    near, size = received, OUTWARDS
    for _ in range(ATTEMPTS):
        passes = system.piece(near, direction, 0.0, NEAR_AN_END).passes  # who fails near here passes it on too
        added = np.abs(system.value(received) - received) + system.debt.error * received
        margin = _passed_on(passes, size * (added + passes.T @ system.rounding(received)))
        if margin is None or not (margin >= 0).all():
            return None
        near, size = np.maximum(received + direction * margin, 0.0), size * 8
        if (direction * (system.value(near, direction) - near) <= 0).all():
            return near
    return None


def _passed_on(passes: Any, right: Floats) -> Floats | None:
    """Solve ``x = right + passes^T x`` among those that anything reaches; None where it fails."""
    ones, nobody = np.ones(len(right)), np.zeros(len(right), dtype=bool)
    system = System(passes, passes.T, ones, right, ones, nobody, right, None, EPS)
    nodes = alive_nodes(system) & (np.diff(passes.indptr) > 0)
    found = solve_unpaid(system, nodes, right[nodes], direct=False)
    if found is None:
        return None
    solution: Floats = right + passes[nodes].T @ found
    return solution
