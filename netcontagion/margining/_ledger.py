"""Adding up: final clearing, losses by channel and bearer, and the laws every run must keep."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from netcontagion._arrays import group_sum
from netcontagion.margining._state import CHANNELS, COUNTERPARTY, IMPACT, SHOCK, Whole, bearer_labels
from netcontagion.margining._valuation import coins, notional, paid, worth
from netcontagion.margining._wealth import (
    cash_of_all,
    money_held,
    unit_value,
    units_by_asset,
    units_by_location,
    wealth,
)
from netcontagion.network import OTHERS

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from numpy.typing import NDArray

    from netcontagion.clearing import ClearingResult
    from netcontagion.network import ExposureNetwork

__all__ = ["Laws", "add_up", "laws_of", "losses_by_bearer"]


@dataclass(frozen=True)
class Laws:
    """Relative errors of the laws of a run; all are 0 up to rounding.

    ``cash`` and ``units``: nothing was created or lost; ``identity``: losses over all bearers equal units times the
    fall in their price, plus what the shock removed; ``channels``: the channels of every bearer add up to its loss;
    ``waterfall``: deficits equal what the layers bore; ``negative``: most negative balance, wallet or fund.
    """

    cash: float
    units: float
    identity: float
    channels: float
    waterfall: float
    negative: float

    @property
    def worst(self) -> float:
        """Largest of the errors."""
        return max(self.cash, self.units, self.identity, self.channels, self.waterfall, self.negative)

    def broken(self, tolerance: float) -> list[str]:
        """Sentences on the laws that do not hold to the tolerance."""
        names = ("cash", "units", "identity", "channels", "waterfall", "negative")
        errors = {name: getattr(self, name) for name in names}
        wrong = {name: error for name, error in errors.items() if not error <= tolerance}
        return [f"law {name!r} is off by {error:.3g} relative" for name, error in wrong.items()]


def add_up(state: Whole, clearing: ClearingResult | None) -> NDArray[np.float64]:
    """Losses of every bearer by channel, (channels, bearers) [num]."""
    losses: NDArray[np.float64] = state.ledger.loss.copy()
    final = unit_value(state, state.marks(), state.asset_prices())
    losses[IMPACT] += state.opening["unit_value"] - final + state.ledger.flow
    for taken in state.taken:
        losses[SHOCK] += taken.wealth
        losses[IMPACT] -= taken.value
    if clearing is not None:
        values = clearing.values
        unpaid = clearing.liabilities - clearing.payment_matrix()
        nodes = len(values.payments)
        owed = values.dues - values.payments
        losses[COUNTERPARTY, :nodes] = np.asarray(unpaid.sum(axis=0)) - owed + default_costs(clearing)
        internal = np.asarray(clearing.liabilities.sum(axis=1))
        losses[COUNTERPARTY, -1] = float((values.dues - internal - values.payments_external).sum())
    return losses


def default_costs(clearing: ClearingResult | None) -> NDArray[np.float64]:
    """Return what defaults destroy of the estate of each node [num]."""
    return np.zeros(1) if clearing is None else np.asarray(clearing.default_costs, dtype=float)


def laws_of(
    state: Whole,
    clearing: ClearingResult | None,
    losses: NDArray[np.float64],
    borne: Mapping[tuple[str, int], float],
) -> Laws:
    """Measure how well the run kept its laws; ``borne`` holds deficits and what each layer bore, by exchange."""
    marks, prices = state.marks(), state.asset_prices()
    opening = state.opening
    gross = float(np.abs(opening["unit_value"]).sum() + np.abs(money_held(state)).sum())
    scale = max(gross, _gross_value(state), float(np.abs(losses).sum()), float(np.abs(state.ledger.flow).sum()), 1e-300)
    cash = cash_of_all(state) - opening["cash"]
    gone = sum((taken.units for taken in state.taken), start=np.zeros(len(opening["units"])))
    moved = np.abs(units_by_asset(state) + gone - opening["units"])
    sizes = np.maximum(_gross_units(state), 1e-300)
    fell = wealth(state, marks, prices)
    own = opening["wealth"] - fell
    lost = _value_lost(state, marks, prices) + float(default_costs(clearing).sum())
    if clearing is not None:
        own = own + losses[COUNTERPARTY]
    return Laws(
        cash=abs(cash) / scale,
        units=float((moved / sizes).max(initial=0.0)),
        identity=abs(float(losses.sum()) - lost) / scale,
        channels=float(np.abs(losses.sum(axis=0) - own).max(initial=0.0)) / scale,
        waterfall=_waterfall_gap(borne) / scale,
        negative=_most_negative(state),
    )


def _value_lost(state: Whole, marks: NDArray[np.float64], prices: NDArray[np.float64]) -> float:
    """Units times the fall in their price where they lie, what shocks removed, and gains of moving between marks."""
    markets = state.markets
    after = np.concatenate([worth(markets, marks), prices])
    before = np.concatenate([worth(markets, state.opening["marks"]), state.opening["prices"]])
    units = state.opening["by_location"]
    fall = float(units @ (before - after))
    moved = float((units - units_by_location(state)) @ after)
    shocked = state.opening["wealth"] - state.opening["after_shock"]
    removed = float(shocked.sum()) - float(units @ (before - state.opening["base"]))
    later = sum(float((taken.wealth - taken.value).sum()) for taken in state.taken)
    return fall + moved + removed + later


def _gross_value(state: Whole) -> float:
    """Value of all balances, at opening or at closing marks, whichever is larger."""
    units, positions = state.entries.deposited + state.entries.borrowed, state.positions
    marks = np.maximum(state.opening["marks"], state.marks())
    contracts = notional(state.markets, positions, marks) + np.abs(paid(state.markets, positions))
    return float((units * marks[state.entries.market]).sum() + contracts.sum())


def _gross_units(state: Whole) -> NDArray[np.float64]:
    net, book = state.net, state.net.book
    size = len(state.asset_base)
    gross = group_sum(book.market_asset[book.balance_market], book.deposited + book.borrowed, size)
    gross = gross + group_sum(book.market_asset[book.position_market], np.abs(book.quantity), size)
    held = np.abs(coins(state.markets, state.positions))
    if held.any():
        gross = gross + group_sum(state.markets.asset[state.markets.settle[state.positions.market]], held, size)
    for name in ("wallets", "holdings"):
        table = net.columns(name)
        gross = gross + group_sum(table["asset"], table["units"], size)
    fund = net.columns("exchanges")
    kept = fund["insurance_asset"] >= 0
    traded = np.concatenate([state.markets.asset, np.arange(size)])
    gross = gross + group_sum(traded, np.abs(state.ledger.bought), size)
    owed = np.abs(state.ledger.pool) + np.abs(state.ledger.short)
    gross = gross + group_sum(state.markets.asset, owed, size)
    gross = gross + group_sum(fund["insurance_asset"][kept], fund["insurance_fund"][kept], size)
    gross = gross + group_sum(traded, np.abs(state.ledger.passed), size)
    return np.asarray(gross)


def _waterfall_gap(borne: Mapping[tuple[str, int], float]) -> float:
    """Largest difference between the deficits of an exchange and what its layers bore [num]."""
    gaps: dict[int, float] = {}
    for (kind, exchange), value in borne.items():
        gaps[exchange] = gaps.get(exchange, 0.0) + (value if kind == "deficit" else -value)
    return max(map(abs, gaps.values()), default=0.0)


def _most_negative(state: Whole) -> float:
    parts = (state.entries.deposited, state.entries.borrowed, state.wallets.units, state.fund_units, state.equity)
    return max(-float(part.min(initial=0.0)) / max(float(np.abs(part).max(initial=0.0)), 1e-300) for part in parts)


def losses_by_bearer(net: ExposureNetwork, losses: NDArray[np.float64]) -> pd.DataFrame:
    """Losses as channel x bearer; traders of the book together, everybody else by name."""
    import pandas as pd

    traders, labels = net.labels("traders"), bearer_labels(net)
    others = np.array([_is_others(label) for label in traders], dtype=bool)
    grouped = losses[:, : len(traders)][:, ~others].sum(axis=1)
    kept = np.append(np.flatnonzero(others), np.arange(len(traders), len(labels)))
    columns = pd.Index(["traders", *(labels[place] for place in kept)], tupleize_cols=False, name="bearer")
    values = np.column_stack([grouped, losses[:, kept]])
    return pd.DataFrame(values, index=pd.Index(CHANNELS, name="channel"), columns=columns)


def _is_others(label: object) -> bool:
    return isinstance(label, str) and label.startswith(OTHERS)
