"""Clearing of ranked debt with cross-holdings of equity: the equation, its solution and the bounds that prove it.

The unknown is what each node has, R. It pays its ranks one after the other, and what is left is its equity, of which
others hold shares: ``R = e + sum_k L_k^T x_k(R) + H (R - dues)^+``. The map is monotone and linear in pieces: in each
piece a node passes what is added to it on to one rank, or to the holders of its equity.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy.sparse

from netcontagion._iterate import iterate
from netcontagion._status import Status
from netcontagion.clearing._linear import ROUNDING_RESIDUAL, solve_unpaid
from netcontagion.clearing._shares import SOLVENCY_TOLERANCE, share_paid
from netcontagion.clearing._system import EPS, System

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netcontagion.clearing._system import Floats

    Pieces = NDArray[np.intp]

__all__ = ["RankedSystem", "Ranks", "Reached", "bounds_of", "ranks_of", "solve_ranked"]

BRACKET_ROUNDS = 1_000
SUMMED_ROUNDS = 200
OUTWARDS = 4.0  # a bound near the solution is this many times the rounding away
NEAR_AN_END = 1e-9  # next to the end of a piece a bound is looked for with the slope beyond it


@dataclass(frozen=True, eq=False)
class Ranks:
    """What all scenarios share: ranks from the most senior, with what is owed in each, and the holdings."""

    owed: tuple[Any, ...]
    incoming: tuple[Any, ...]
    due: tuple[Floats, ...]
    start: tuple[Floats, ...]
    dues: Floats
    holdings: Any
    error: float

    @property
    def ends(self) -> tuple[Floats, ...]:
        """Sum of the dues up to and with each rank."""
        return (*self.start[1:], self.dues)


def ranks_of(owed: tuple[Any, ...], outside: tuple[Floats, ...], holdings: Any) -> Ranks:
    """Put together what is owed inside and outside in each rank."""
    due = tuple(one.sum(axis=1) + external for one, external in zip(owed, outside, strict=True))
    ends = np.cumsum(due, axis=0)
    nodes = holdings.shape[0]
    terms = np.diff(holdings.indptr)
    for one in owed:
        terms = terms + np.diff(one.indptr) + np.bincount(one.indices, minlength=nodes)
    error = float(2 * terms.max(initial=0) + 4 * len(owed) + 8) * EPS
    start = (np.zeros(nodes), *ends[:-1])
    return Ranks(owed, tuple(one.T for one in owed), due, start, ends[-1], holdings, error)


class _Piece(NamedTuple):
    """One linear piece: row i of ``passes`` is what node i passes on, ``fixed`` what everybody has at its start."""

    passes: Any
    fixed: Floats
    start: Floats


@dataclass(frozen=True, eq=False)
class RankedSystem:
    """One scenario."""

    ranks: Ranks
    assets: Floats

    def paid(self, has: Floats) -> list[Floats]:
        """Share of each rank that is paid out of ``has``."""
        ranks = self.ranks
        pairs = zip(ranks.start, ranks.due, strict=True)
        return [share_paid(np.clip(has - start, 0.0, due), due) for start, due in pairs]

    def value(self, has: Floats, outwards: float = 0.0) -> Floats:
        """Sum what each node has when all have ``has``; maybe rounded up (1) or down (-1)."""
        ranks, error = self.ranks, outwards * self.ranks.error
        moved = has + error * (has + ranks.dues)
        worth = ranks.holdings @ np.maximum(moved - ranks.dues, 0.0) + self.assets
        for incoming, share in zip(ranks.incoming, self.paid(moved), strict=True):
            worth = worth + incoming @ share
        value: Floats = worth * (1 + error)
        return value

    def most(self) -> Floats:
        """Return an upper bound: what each has when everybody is paid in full and all of it is equity.

        What is owned in a circle counts again and again, so it is the solution of a linear system, and somewhat more.
        """
        ranks, most = self.ranks, self.assets
        for incoming, due in zip(ranks.incoming, ranks.due, strict=True):
            most = most + incoming @ (due > 0).astype(float)
        if not ranks.holdings.nnz:
            return most
        for slack in (1e-9, 1e-6, 1e-3):
            more = slack * most.max(initial=0.0)
            found = _passed_on(ranks.holdings, most + more, more / 4)
            if found is not None and ((most + ranks.holdings @ found) * (1 + ranks.error) <= found).all():
                return found
        return np.full(len(most), np.inf)

    def piece(self, has: Floats, slack: float) -> Pieces:
        """Return the number of the rank that each node is paying; how many ranks there are where it pays all."""
        reached: Pieces = np.sum([has >= end * (1 - slack) for end in self.ranks.ends], axis=0, dtype=np.intp)
        return reached

    def linear(self, piece: Pieces) -> _Piece:
        """Return the linear map of a piece."""
        ranks, rows = self.ranks, []
        fixed, start = self.assets, np.where(piece == len(ranks.owed), ranks.dues, 0.0)
        for rank, (owed, due) in enumerate(zip(ranks.owed, ranks.due, strict=True)):
            pays = piece == rank
            fixed = fixed + ranks.incoming[rank] @ ((piece > rank) & (due > 0)).astype(float)
            start = np.where(pays, ranks.start[rank], start)
            rows.append(scipy.sparse.diags_array(share_paid(pays.astype(float), due)) @ owed)
        rows.append(scipy.sparse.diags_array((piece == len(ranks.owed)).astype(float)) @ ranks.holdings.T)
        passes = scipy.sparse.csr_array(sum(rows[1:], rows[0]))
        passes.eliminate_zeros()
        return _Piece(passes, fixed, start)


def _passed_on(holdings: Any, right: Floats, near: float) -> Floats | None:
    """Solve ``x = right + holdings x``: by summing up, which takes few rounds unless nearly all equity is held."""

    def step(found: Floats) -> tuple[Floats, float, Status | None]:
        new = right + holdings @ found
        moved = float(np.abs(new - found).max(initial=0.0))
        return new, moved, Status.SETTLED if moved <= near else None

    ending = iterate(step, right, max_rounds=SUMMED_ROUNDS)
    return ending.state if ending.status is Status.SETTLED else _solve(holdings.T, right)


def _solve(passes: Any, right: Floats) -> Floats | None:
    """Solve ``x = right + passes^T x``, first among the nodes that pass something on; None where it fails."""
    nodes = np.diff(passes.tocsr().indptr) > 0
    ones, none = np.ones(len(right)), np.zeros(len(right), dtype=bool)
    system = System(passes.tocsr(), passes.T, ones, right, np.inf * ones, none, right, None, EPS)
    found = solve_unpaid(system, nodes, right[nodes], direct=False)
    if found is None:
        return None
    solution: Floats = right + passes.T @ _placed(found, nodes)
    return solution


def _placed(found: Floats, nodes: NDArray[np.bool_]) -> Floats:
    placed = np.zeros(len(nodes))
    placed[nodes] = found
    return placed


# ------------------------------------------------------------------------------------------------------------ solution


class Reached(NamedTuple):
    """What each node has in one scenario, and how the solve ended."""

    has: Floats
    rounds: int
    status: Status


class _State(NamedTuple):
    has: Floats
    rounds: int
    next_try: int


def solve_ranked(system: RankedSystem, *, greatest: bool, max_rounds: int) -> Reached:
    """Iterate from the extreme; after 1, 2, 4... rounds solve the linear piece reached.

    The solution of the piece is the answer if it is in the piece and beyond the iterate: between the two the map is
    linear, the answer lies there, and a linear map has one fixed point.
    """
    most = system.most()
    nearer = np.minimum if greatest else np.maximum

    def step(state: _State) -> tuple[_State, float, Status | None]:
        new, rounds = nearer(state.has, system.value(state.has)), state.rounds + 1
        residual = _distance(new, state.has, most)
        if rounds < state.next_try:
            return _State(new, rounds, state.next_try), residual, _stands_still(residual)
        exact = _in_the_piece(system, new, most, greatest=greatest)
        if exact is not None:
            return _State(exact, rounds, 0), residual, Status.SETTLED
        return _State(new, rounds, 2 * rounds), residual, _stands_still(residual)

    start = most if greatest else np.zeros(len(most))
    ending = iterate(step, _State(start, 0, 1), max_rounds=max_rounds)
    return Reached(ending.state.has, ending.rounds, ending.status)


def _stands_still(residual: float) -> Status | None:
    return Status.SETTLED if residual <= ROUNDING_RESIDUAL else None


def _distance(one: Floats, other: Floats, most: Floats) -> float:
    return float(share_paid(np.abs(one - other), most).max(initial=0.0))


def _in_the_piece(system: RankedSystem, has: Floats, most: Floats, *, greatest: bool) -> Floats | None:
    piece = system.piece(has, SOLVENCY_TOLERANCE)
    linear = system.linear(piece)
    beyond = _solve(linear.passes, linear.fixed - linear.start)
    if beyond is None:
        return None
    found: Floats = beyond + linear.start
    ahead = found - has if greatest else has - found
    if not (ahead <= 1e-9 * most).all() or (system.piece(found, SOLVENCY_TOLERANCE) != piece).any():
        return None
    return system.value(found)


# -------------------------------------------------------------------------------------------------------------- bounds


def bounds_of(system: RankedSystem, has: Floats, *, greatest: bool) -> tuple[Floats, Floats]:
    """Bound what each has in the greatest (or the least) solution, near ``has``, rounding included.

    A vector q with Psi(q) >= q is at most the greatest solution, one with Psi(q) <= q at least the least (Tarski). On
    the other side a run from the extreme goes on until it is in the same linear piece as such a q, which then bounds
    the one fixed point there is in the piece, or until nothing moves.
    """
    lower, upper = (_one_side(system, has, sign, extreme=(sign > 0) is greatest) for sign in (-1.0, 1.0))
    return lower, upper


def _one_side(system: RankedSystem, has: Floats, sign: float, *, extreme: bool) -> Floats:
    piece = system.piece(has, sign * NEAR_AN_END)
    passes = system.linear(piece).passes
    near, contracts = _near(system, has, passes, sign)
    if near is not None and not extreme:
        return near
    if near is None or not contracts:
        return _from_extreme(system, sign, None, piece)
    return _from_extreme(system, sign, near, piece)


def _near(system: RankedSystem, has: Floats, passes: Any, sign: float) -> tuple[Floats | None, bool]:
    """Vector a little beyond ``has`` that is a bound, None if it proves to be none; whether the piece has one solution.

    What rounding adds in a step, passed on from node to node, is how far it can carry the solution. As more is added
    than is passed on, that vector also proves that the map of the piece contracts.
    """
    error = system.ranks.error
    added = np.abs(system.value(has) - has) + error * (has + passes.T @ (has + system.ranks.dues))
    margin = _solve(passes, OUTWARDS * added)
    if margin is None or not (margin >= 0).all():
        return None, False
    near = np.maximum(has + sign * margin, 0.0)
    if not (sign * (system.value(near, sign) - near) <= 0).all():
        return None, False
    passed = (passes.T @ margin) * (1 + error)
    return near, bool(((passed < margin) | ((margin == 0) & (passed == 0))).all())


def _from_extreme(system: RankedSystem, sign: float, near: Floats | None, piece: Pieces) -> Floats:
    """Run from the most (sign 1) or from 0 (-1), rounding outwards, until ``near`` is proved or nothing moves."""
    most = system.most()
    start = most * (1 + system.ranks.error) if sign > 0 else np.zeros(len(most))

    def step(bound: Floats) -> tuple[Floats, float, Status | None]:
        new = system.value(bound, sign)
        new = np.minimum(new, bound) if sign > 0 else np.maximum(new, bound)
        moved = _distance(new, bound, most)
        ended = moved <= EPS or (near is not None and _same_piece(system, near, new, sign, piece))
        return new, moved, Status.SETTLED if ended else None

    bound = iterate(step, start, max_rounds=BRACKET_ROUNDS).state
    if near is None or not _same_piece(system, near, bound, sign, piece):
        return bound
    return np.minimum(bound, near) if sign > 0 else np.maximum(bound, near)


def _same_piece(system: RankedSystem, near: Floats, bound: Floats, sign: float, piece: Pieces) -> bool:
    """Whether everything between ``near`` and ``bound``, rounding included, is in ``piece``."""
    slack = 4 * system.ranks.error
    low, high = (near, bound) if sign > 0 else (bound, near)
    return bool(((system.piece(low, slack) == piece) & (system.piece(high, -slack) <= piece)).all())
