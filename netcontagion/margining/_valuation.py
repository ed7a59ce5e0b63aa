"""What contracts are worth and what accounts must back, as whole arrays: gains, notional, margin, health."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion._arrays import group_sum

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netcontagion.margining._state import Entries, Markets, Positions
    from netcontagion.network import ExposureNetwork, Tiers

    Floats = NDArray[np.float64]

__all__ = [
    "INVERSE",
    "LENDING",
    "LINEAR",
    "MARGIN",
    "PORTFOLIO",
    "SPOT",
    "Terms",
    "coins",
    "gains",
    "notional",
    "paid",
    "worth",
]

SPOT, LINEAR, INVERSE = range(3)  # kinds of market
LENDING, MARGIN, PORTFOLIO = range(3)  # how an account is tested: debt, margin by rates, margin by scenarios


def worth(markets: Markets, marks: Floats) -> Floats:
    """Value of one unit of every market [num]; an inverse contract is a debt of its face, in coin."""
    if not (markets.kind == INVERSE).any():
        return marks
    found = marks.copy()
    rows = np.flatnonzero(markets.kind == INVERSE)
    with np.errstate(divide="ignore", invalid="ignore"):
        found[rows] = -markets.face[rows] * marks[markets.settle[rows]] / marks[rows]
    return found


def coins(markets: Markets, positions: Positions) -> Floats:
    """Coins that stand against each inverse position [units of its settlement]: quantity x face / entry price."""
    market = positions.market
    inverse = (markets.kind[market] == INVERSE) & (positions.quantity != 0)
    found = np.zeros(len(positions))
    np.divide(positions.quantity * markets.face[market], positions.entry, out=found, where=inverse)
    return found


def paid(markets: Markets, positions: Positions) -> Floats:
    """Money that stands against each linear position [num]: quantity x entry price."""
    linear = markets.kind[positions.market] == LINEAR
    return np.where(linear, positions.quantity * positions.entry, 0.0)


def gains(markets: Markets, positions: Positions, marks: Floats) -> Floats:
    """Unrealised profit of each position [num]: linear q (P - E), inverse q x face x (1 / E - 1 / P) coins."""
    unit = worth(markets, marks)
    found = positions.quantity * unit[positions.market] - paid(markets, positions)
    if unit is not marks:
        found += coins(markets, positions) * marks[markets.settle[positions.market]]
    return np.asarray(found)


def notional(markets: Markets, positions: Positions, marks: Floats) -> Floats:
    """Value of the contracts of each position, without sign [num]."""
    return np.asarray(np.abs(positions.quantity * worth(markets, marks)[positions.market]))


@dataclass(frozen=True, eq=False)
class Terms:
    """What decides the margin of positions in one run: markets, tiers, scenarios (factors by scenario and market).

    ``stress`` multiplies the tiers of every market, and has multiplied the rates of balances in ``markets``.
    """

    markets: Markets
    tiers: Tiers
    scenarios: Floats
    stress: Floats

    @classmethod
    def of(cls, net: ExposureNetwork, markets: Markets) -> Terms:
        """Read the terms of a network."""
        return cls(markets, net.book.tiers, net.book.scenarios.factors, np.ones(len(markets)))

    @property
    def rates(self) -> tuple[NDArray[Any], ...]:
        """Tiers as arrays for kernels: first row and count by contract, then floor, rate and cumulative amount."""
        tiers = self.tiers
        times = np.repeat(np.tile(self.stress, 2), tiers.count)  # rows follow each other as contracts do
        return tiers.first, tiers.count, tiers.floor, tiers.rate * times, tiers.cumulative * times

    def margin(self, positions: Positions, marks: Floats) -> Floats:
        """Maintenance margin of each position by the tiers of its contract [num]."""
        market = positions.market.astype(np.int64)
        contract = market + len(self.markets) * (positions.quantity < 0)
        margin = self.tiers.margin(contract, notional(self.markets, positions, marks))
        return np.asarray(self.stress[market] * margin)

    def of_positions(self, size: int, positions: Positions, marks: Floats) -> tuple[Floats, Floats]:
        """Gains and margin of positions, added up by account [num]."""
        gain = group_sum(positions.account, gains(self.markets, positions, marks), size)
        return gain, group_sum(positions.account, self.margin(positions, marks), size)

    def equity(self, size: int, entries: Entries, positions: Positions, marks: Floats) -> Floats:
        """Equity after haircuts of each account [num]."""
        held = (entries.deposited * entries.threshold - entries.borrowed) * marks[entries.market]
        return group_sum(entries.account, held, size) + group_sum(
            positions.account, gains(self.markets, positions, marks), size
        )

    def worst_loss(self, size: int, entries: Entries, positions: Positions, marks: Floats) -> Floats:
        """Largest loss of equity after haircuts of each account over the scenarios, at least 0 [num]."""
        now, worst = self.equity(size, entries, positions, marks), np.zeros(size)
        for factors in self.scenarios:
            worst = np.maximum(worst, now - self.equity(size, entries, positions, marks * factors))
        return worst

    def weigh(self, test: NDArray[Any], entries: Entries, positions: Positions, marks: Floats) -> tuple[Floats, Floats]:
        """Weigh what backs every account against what it must back [num]; rows of the tables name accounts by place."""
        size, price = len(test), marks[entries.market]
        backing = group_sum(entries.account, entries.deposited * price * entries.threshold, size)
        owed = group_sum(entries.account, entries.borrowed * price, size)
        if not test.any():
            return backing, owed
        gain, margin = self.of_positions(size, positions, marks)
        rates = entries.deposited * self.markets.long[entries.market]
        rates = rates + entries.borrowed * self.markets.short[entries.market]
        required = margin + group_sum(entries.account, rates * price, size)
        if (test == PORTFOLIO).any():
            required = np.where(test == PORTFOLIO, self.worst_loss(size, entries, positions, marks), required)
        by_equity = test != LENDING
        return np.where(by_equity, backing - owed + gain, backing), np.where(by_equity, required, owed)

    def health(self, test: NDArray[Any], entries: Entries, positions: Positions, marks: Floats) -> Floats:
        """Health of every account, +inf where nothing is to be backed."""
        backing, must = self.weigh(test, entries, positions, marks)
        found = np.full(len(test), np.inf)
        with np.errstate(over="ignore"):
            np.divide(backing, must, out=found, where=must > 0)
        return found
