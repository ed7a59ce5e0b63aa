"""The equation of a fire sale: what is paid and sold next, when this is paid and sold now.

The state is one vector ``x = (share of the dues paid by each node, - fraction of its units sold of each asset)``, so
that more is better for everybody and the map is increasing: more paid and less sold means more receipts and higher
prices, hence again more paid and less sold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy.sparse

from netcontagion.clearing._impact import execution_left, price_left
from netcontagion.clearing._sale_kernels import pay_and_sell
from netcontagion.clearing._shares import SOLVENCY_TOLERANCE
from netcontagion.clearing._system import EPS

if TYPE_CHECKING:
    from netcontagion.clearing._system import Bools, Floats

__all__ = ["RULES", "Market", "SaleMap", "Sales", "sum_of_blocks", "summed_by_block"]

RULES = ("shortfall", "default")
LEAST_BLOCK = 256  # nodes that are summed one after the other
COMPILED_SIZE = 100_000  # liabilities from which a round is a compiled pass


class Market(NamedTuple):
    """What is held and how prices give way; ``supply`` is what the nodes hold of each asset together [units].

    ``by_block`` sums units by block of nodes and asset: a sum of sums, which rounds less than one long sum.
    """

    holdings: Any
    by_block: Any
    prices: Floats
    depth: Floats
    supply: Floats
    impact: str
    execution: str

    def units_sold(self, parts: Floats) -> Floats:
        """Units of each asset that are sold when each node sells this part of what it holds."""
        return sum_of_blocks(self.by_block, parts, len(self.prices))

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

    incoming: Any
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
        part = self._parts_sold(cash, worth, end, up)
        available = cash + worth
        paid = self._share(available, up)
        if self.rule == "default":
            paid = np.where(part > 0, paid, 1.0)
        fraction = self.fraction_of(self.market.units_sold(part), sign)
        return Sales(part, end, received, cash, available, paid, fraction)

    def step(self, state: Floats, sign: float = 0.0) -> Floats:
        """Return the next state, maybe rounded up or down."""
        if self.large:
            return self._passed(state, sign, at_once=False)
        now = self.sales(state, sign)
        return np.concatenate([now.share, -now.fraction])

    @property
    def large(self) -> bool:
        """Whether a compiled pass is worth its compilation."""
        return bool(self.incoming.nnz > COMPILED_SIZE)

    def sweep(self, state: Floats, sign: float) -> Floats:
        """Return a state as far as the next one or further, in the direction of the sign: each sees those before it.

        An increasing map may be applied node by node in any order without passing the solution it leads to.
        """
        return self._passed(state, sign, at_once=True) if self.large else self.step(state, sign)

    def _passed(self, state: Floats, sign: float, *, at_once: bool) -> Floats:
        nodes, up = len(self.dues), 1 + sign * self.rounding
        end, received = self.market.quotes(-state[nodes:], sign)
        worth, default = (self.market.holdings @ received) * up, self.rule == "default"
        held = (self.market.holdings @ end) * up if default else worth
        before = np.zeros(nodes) if self.before is None else self.before
        books = np.stack([self.assets, self.due, before, self.dues, worth, held])
        how = np.array([up, SOLVENCY_TOLERANCE, float(default), sign if at_once else 0.0])
        shares, parts = state[:nodes].copy(), np.empty(nodes)
        paid = shares if at_once else np.empty(nodes)
        incoming = (self.incoming.indptr, self.incoming.indices, self.incoming.data)
        pay_and_sell(incoming, books, shares, paid, parts, how)
        return np.concatenate([paid, -self.fraction_of(self.market.units_sold(parts), sign)])

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

    def _parts_sold(self, cash: Floats, worth: Floats, end: Floats, up: float) -> Floats:
        """Which part of what it holds each node sells."""
        missing = self.dues * (2 - up) - cash
        if self.rule == "default":
            held = (self.market.holdings @ end) * up
            return np.asarray(self._short(missing - held), dtype=np.float64)
        short = self._short(missing)
        part = np.divide(missing, worth, out=short.astype(float), where=short & (worth > 0))
        return np.asarray(np.minimum(part * (2 - up), 1.0))

    def _short(self, missing: Floats) -> Bools:
        return np.asarray(missing > self.dues * SOLVENCY_TOLERANCE)

    def _share(self, available: Floats, up: float) -> Floats:
        """Share paid of what is due in the rank of the network; 1 where nothing is."""
        left = available if self.before is None else np.maximum(available - self.before * (2 - up), 0.0)
        shares = np.divide(left * up, self.due, out=np.ones(len(left)), where=self.due > 0)
        return np.minimum(shares, 1.0)


def sum_of_blocks(by_block: Any, parts: Floats, assets: int) -> Floats:
    """Sum by asset what :func:`summed_by_block` sums by block and asset."""
    blocks = by_block.shape[0] // max(assets, 1)
    units: Floats = (by_block @ parts).reshape(blocks, assets).sum(axis=0)
    return units


def summed_by_block(holdings: Any) -> tuple[Any, int]:
    """Return the matrix that sums holdings by block of nodes and asset, and the most terms in a sum of such sums."""
    nodes, assets = holdings.shape
    size = max(int(np.sqrt(nodes)), LEAST_BLOCK)
    block = np.repeat(np.arange(nodes) // size, np.diff(holdings.indptr))
    count = -(-nodes // size)
    places = block * assets + holdings.indices
    shape = (count * assets, nodes)
    return scipy.sparse.csc_array((holdings.data, places, holdings.indptr), shape=shape), size + count
