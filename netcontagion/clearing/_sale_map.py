"""The equation of a fire sale: what is paid and sold next, when this is paid and sold now.

The state is one vector ``x = (share of the dues paid by each node, - fraction of its units sold of each asset)``, so
that more is better for everybody and the map is increasing: more paid and less sold means more receipts and higher
prices, hence again more paid and less sold.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy.sparse

from netcontagion._compile import in_threads
from netcontagion.clearing._impact import execution_left, price_left
from netcontagion.clearing._sale_kernels import (
    fill_shelves,
    fill_strips,
    pay_in_turn,
    receive,
    sum_units,
    value_shelves,
)
from netcontagion.clearing._shares import SOLVENCY_TOLERANCE
from netcontagion.clearing._system import EPS

if TYPE_CHECKING:
    from collections.abc import Callable

    from netcontagion.clearing._system import Bools, Floats

__all__ = ["RULES", "Claims", "Holdings", "Market", "SaleMap", "Sales", "stored"]

RULES = ("shortfall", "default")
COMPILED_SIZE = 100_000  # liabilities from which rounds are compiled passes
WORTH_THREADS = 4_000_000  # entries
STRIPS = 16  # of claims about, and pieces of holdings for threads
FEWEST_BITS, MOST_BITS = 10, 16
LEAST_BLOCK, LEAST_SHELF, MOST_BLOCK = 256, 1_024, 65_536  # nodes whose sales are summed together
SHELF = 8  # holdings of an asset in such a block, on average at least
LEAST_NUMBER = 5e-324
PASSES = 4  # of payments per round: prices settle in fewer rounds than payments


class Claims:
    """What the nodes (rows) are owed by the others: ``claims @ shares`` is what they receive.

    Many claims are stored by strips of creditors, in each by debtor, so that a pass reads and adds up close by;
    ``most`` is the most debtors that a node has.
    """

    def __init__(self, owed: Any, *, compiled: bool) -> None:
        self.owed, self.size, self.compiled = owed, owed.shape[0], compiled
        debtors_of = np.bincount(owed.indices, minlength=self.size)
        self.most = int(debtors_of.max(initial=0))
        if compiled:
            self.bits = int(np.clip(np.ceil(np.log2(self.size / STRIPS)), FEWEST_BITS, MOST_BITS))
            counts = np.add.reduceat(debtors_of, np.arange(0, self.size, 1 << self.bits))
            begins = np.concatenate([[0], np.cumsum(counts)])
            creditors, debtors = np.empty(owed.nnz, np.uint16), np.empty(owed.nnz, owed.indices.dtype)
            self.strips = begins, creditors, debtors, np.empty(owed.nnz)
            fill_strips((owed.indptr, owed.indices, owed.data), self.bits, begins.copy(), *self.strips[1:])

    def __matmul__(self, shares: Floats) -> Floats:
        if not self.compiled:
            few: Floats = self.owed.T @ shares
            return few
        received = np.empty(self.size)

        def work(strip: int) -> None:
            receive(self.strips, strip, shares, received[strip << self.bits : (strip + 1) << self.bits])

        _run(work, [(strip,) for strip in range(len(self.strips[0]) - 1)], self.owed.nnz)
        return received

    def pay(self, books: tuple[Floats, Floats, Floats], up: float, rising: bool, shares: Floats) -> Floats:
        """Let the nodes pay in turn, a few times; returns what they received last."""
        cash = np.empty(self.size)
        for _ in range(PASSES):
            pay_in_turn(self.strips, self.bits, books, up, rising, shares, cash)
        return cash


class Holdings:
    """Units held by nodes (rows) of assets: ``holdings @ prices`` is their worth, ``units(parts)`` what is sold.

    Units are summed by block of nodes, then over the blocks, which rounds less than one long sum; ``terms`` is the most
    terms in such a sum. Compiled, each block stores its holdings by asset.
    """

    def __init__(self, matrix: Any, *, compiled: bool) -> None:
        self.matrix, self.compiled = matrix, compiled
        self.nodes, self.assets = matrix.shape
        spread = SHELF * self.nodes * self.assets // max(matrix.nnz, 1)
        least = LEAST_SHELF if compiled else LEAST_BLOCK
        self.block = min(max(int(np.sqrt(self.nodes)), spread, least), MOST_BLOCK)
        self.blocks = -(-self.nodes // self.block)
        cuts = np.linspace(0, self.blocks, (STRIPS if matrix.nnz >= WORTH_THREADS else 1) + 1).astype(int).tolist()
        self.pieces = list(itertools.pairwise(cuts))
        if compiled:
            begins = np.full(self.blocks * self.assets + 1, matrix.nnz)
            self.shelves = begins, np.empty(matrix.nnz, np.uint16), np.empty(matrix.nnz)
            held = matrix.indptr, matrix.indices, matrix.data
            self._run(fill_shelves, held, self.block, self.assets, *self.shelves)
        most = np.diff(self.shelves[0]) if compiled else np.bincount(matrix.indices, minlength=1)
        self.terms = min(self.block, int(most.max(initial=0))) + self.blocks

    @functools.cached_property
    def by_block(self) -> Any:
        """The matrix that sums by block and asset."""
        matrix, shape = self.matrix, (self.blocks * self.assets, self.nodes)
        block = np.repeat(np.arange(self.nodes) // self.block, np.diff(matrix.indptr))
        return scipy.sparse.csc_array((matrix.data, block * self.assets + matrix.indices, matrix.indptr), shape=shape)

    def __matmul__(self, prices: Floats) -> Floats:
        if not self.compiled:
            few: Floats = self.matrix @ prices
            return few
        worth = np.empty(self.nodes)
        self._run(value_shelves, self.shelves, self.block, prices, worth)
        return worth

    def units(self, parts: Floats) -> Floats:
        """Units of each asset that are sold when each node sells this part of what it holds."""
        sums = np.empty((self.blocks, self.assets))
        if self.compiled:
            self._run(sum_units, self.shelves, self.block, parts, sums)
        else:
            sums = (self.by_block @ parts).reshape(sums.shape)
        units: Floats = sums.sum(axis=0)
        return units

    def _run(self, work: Callable[..., None], *given: Any) -> None:
        _run(lambda first, last: work(*given, first, last), self.pieces, self.matrix.nnz)


def stored(owed: Any, held: Any) -> tuple[Claims, Holdings]:
    """Store what is owed and what is held as the size of the network wants it."""
    compiled = owed.nnz > COMPILED_SIZE
    if not compiled:
        return Claims(owed, compiled=False), Holdings(held, compiled=False)
    makes = [(Claims, owed), (Holdings, held)]
    claims, holdings = in_threads(lambda kind, matrix: kind(matrix, compiled=True), makes)
    return claims, holdings


def _run(work: Callable[..., None], pieces: list[Any], entries: int) -> None:
    """Do the pieces of a pass over so many entries, on all processors where that is worth it."""
    if entries < WORTH_THREADS:
        for piece in pieces:
            work(*piece)
    else:
        in_threads(work, pieces)


class Market(NamedTuple):
    """What is held and how prices give way; ``supply`` is what the nodes hold of each asset together [units]."""

    holdings: Holdings
    prices: Floats
    depth: Floats
    supply: Floats
    impact: str
    execution: str

    def quotes(self, fraction: Floats, sign: float = 0.0) -> tuple[Floats, Floats]:
        """End price and price received when these fractions of the supply are sold, maybe rounded up or down."""
        used = fraction * (self.supply / self.depth) * (1 - 8 * EPS * sign)
        up = 1 + 8 * EPS * sign
        end = self.prices * price_left(used, self.impact) * up
        return end, self.prices * execution_left(used, self.impact, self.execution) * up


class Sales(NamedTuple):
    """What one round of the map does: who sells which part of what it holds, at which prices, and who pays how much."""

    sold_part: Floats
    end: Floats
    received: Floats
    worth: Floats
    cash: Floats
    available: Floats
    share: Floats
    fraction: Floats


@dataclass(frozen=True, eq=False)
class SaleMap:
    """The increasing map of one scenario.

    ``due`` is what is owed in the rank of the network, ``before`` what is paid outside before it, ``dues`` both.
    ``rounding`` bounds the relative error of one round.
    """

    incoming: Claims
    due: Floats
    before: Floats | None
    dues: Floats
    assets: Floats
    market: Market
    rule: str
    rounding: float

    def top(self) -> Floats:
        """Everybody pays in full, nobody sells."""
        return np.concatenate([np.ones(len(self.dues)), np.zeros(len(self.market.prices))])

    def bottom(self) -> Floats:
        """Nobody pays, everybody has sold everything."""
        return np.concatenate([np.zeros(len(self.dues)), -(self.market.supply > 0).astype(float)])

    def sales(self, state: Floats, sign: float = 0.0) -> Sales:
        """Let everybody pay and sell at these shares paid and fractions sold, maybe rounded up or down."""
        up = 1 + sign * self.rounding
        share, fraction = state[: len(self.dues)], -state[len(self.dues) :]
        end, received = self.market.quotes(fraction, sign)
        cash = (self.assets + self.incoming @ share) * up
        worth = (self.market.holdings @ received) * up
        part = self._parts_sold(cash, worth, self._held(end, up), up)
        available = cash + worth
        paid = self._share(available, up)
        if self.rule == "default":
            paid = np.where(part > 0, paid, 1.0)
        fraction = self.fraction_of(self.market.holdings.units(part), sign)
        return Sales(part, end, received, worth, cash, available, paid, fraction)

    def step(self, state: Floats, sign: float = 0.0) -> Floats:
        """Return the next state, maybe rounded up or down."""
        now = self.sales(state, sign)
        return np.concatenate([now.share, -now.fraction])

    def sweep(self, state: Floats, sign: float) -> Floats:
        """Return a state as far as the next one or further, in the direction of the sign: each sees those before it.

        An increasing map may be applied node by node in any order, and to some nodes more often than to others, without
        passing the solution it leads to.
        """
        if not self.incoming.compiled:
            return self.step(state, sign)
        nodes, up = len(self.dues), 1 + sign * self.rounding
        end, received = self.market.quotes(-state[nodes:], sign)
        worth = self.market.holdings @ received
        worth *= up
        held = self._held(end, up)
        new = state.copy()
        cash = self.incoming.pay(self._books(worth, held, up), up, sign < 0, new[:nodes])
        cash += self.assets
        cash *= up
        part = self._parts_sold(cash, worth, held, up)
        new[nodes:] = -self.fraction_of(self.market.holdings.units(part), sign)
        return new

    def _books(self, worth: Floats, held: Floats | None, up: float) -> tuple[Floats, Floats, Floats]:
        """Return what nodes have beside what they receive, their dues, and the receipts from which they pay in full."""
        cash = self.assets * up
        own = cash + worth
        if self.before is not None:
            own -= self.before * (2 - up)
        if held is None:
            return own, self._divisor, self._never
        enough = self.dues * (2 - up - SOLVENCY_TOLERANCE) - held - cash
        enough[self._nothing_due] = -np.inf
        return own, self._divisor, enough

    def fraction_of(self, sold: Floats, sign: float) -> Floats:
        """Fraction of the supply that these units are, maybe rounded up (fewer) or down (more)."""
        supply = self.market.supply
        sold = sold * (1 - sign * self.rounding)
        return np.minimum(np.divide(sold, supply, out=np.zeros(len(supply)), where=supply > 0), 1.0)

    def distance(self, one: Floats, other: Floats) -> float:
        """Largest difference of shares of dues, of fractions sold and of prices relative to those before the sale."""
        apart = np.abs(one - other)
        return float(max(apart.max(initial=0.0), self._price_distance(one, other)))

    def width(self, one: Floats, other: Floats) -> float:
        """Largest difference of shares of dues and of prices relative to those before the sale."""
        apart = np.abs(one - other)[: len(self.dues)][self.dues > 0]
        return float(max(apart.max(initial=0.0), self._price_distance(one, other)))

    def _price_distance(self, one: Floats, other: Floats) -> float:
        nodes, market = len(self.dues), self.market
        left = [price_left(-state[nodes:] * (market.supply / market.depth), market.impact) for state in (one, other)]
        return float(np.abs(left[0] - left[1]).max(initial=0.0))

    def _held(self, end: Floats, up: float) -> Floats | None:
        """Value the holdings at the end prices, where the rule asks for it."""
        return (self.market.holdings @ end) * up if self.rule == "default" else None

    def _parts_sold(self, cash: Floats, worth: Floats, held: Floats | None, up: float) -> Floats:
        """Which part of what it holds each node sells."""
        missing = self.dues * (2 - up)
        missing -= cash
        if held is not None:
            return np.asarray(self._short(missing - held), dtype=np.float64)
        missing *= self._short(missing)
        with np.errstate(over="ignore"):
            missing /= np.maximum(worth, LEAST_NUMBER)
        missing *= 2 - up
        return np.minimum(missing, 1.0, out=missing)

    def _short(self, missing: Floats) -> Bools:
        return np.asarray(missing > self.dues * SOLVENCY_TOLERANCE)

    def _share(self, available: Floats, up: float) -> Floats:
        """Share paid of what is due in the rank of the network; 1 where nothing is."""
        left = available if self.before is None else np.maximum(available - self.before * (2 - up), 0.0)
        shares = np.minimum(left * up / self._divisor, 1.0)
        shares[self._nothing_due] = 1.0
        return np.asarray(shares)

    @functools.cached_property
    def _nothing_due(self) -> Bools:
        return np.asarray(self.due == 0)

    @functools.cached_property
    def _never(self) -> Floats:
        return np.where(self._nothing_due, -np.inf, np.inf)

    @functools.cached_property
    def _divisor(self) -> Floats:
        return np.where(self._nothing_due, 1.0, self.due)
