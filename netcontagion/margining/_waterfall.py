"""The loss waterfall of an exchange: its layers, in the order of its rulebook."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING

import numpy as np

from netcontagion.margining import _layers_lending, _layers_members, _layers_money, _layers_winners
from netcontagion.margining._adl import ROUNDING
from netcontagion.margining._house_trades import Gap
from netcontagion.network import rulebook

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from netcontagion.margining._desk import Desk
    from netcontagion.margining._state import Live

__all__ = ["RUN", "cover_holes", "gated", "pays_first"]


def cover_holes(desk: Desk, marks: NDArray[np.float64]) -> None:
    """Fill the holes of all exchanges layer by layer, and record every step.

    What no layer covers the exchange owes: ``hole`` of the ledger is empty afterwards.
    """
    state, hole = desk.state, desk.state.ledger.hole
    rules = state.rules
    rules["fund_left"], rules["fund_peak"] = rules.fund_cap, np.maximum(rules.fund_peak, state.fund_units)
    first, venue = hole.copy(), desk.state.markets.exchange
    for exchange in np.unique(venue[hole > 0.0]).tolist():
        layers = {layer.name: layer for layer in desk.state.deficits[exchange].layers}
        own = np.flatnonzero(venue == exchange)
        for name in (*desk.state.layers_of(exchange), "uncovered"):
            if name in _POTS and _POTS[name](desk.state)[exchange] <= 0.0:
                continue
            for market in own[hole[own] > 0.0].tolist():
                gap = Gap(exchange, market, float(hole[market]), marks)
                used, paid = _LAYERS[name](desk, gap, layers.get(name))
                if hole[market] <= ROUNDING * first[market]:
                    hole[market] = 0.0
                if used > ROUNDING * first[market]:
                    asset, value = int(desk.state.markets.asset[market]), used * float(marks[market])
                    desk.play.events.add_layer(name, exchange, asset, used, paid=paid, value=value)
    lots = desk.state.lots
    lots["owed"][(lots.seat < 0) & (rules.hands_on[lots.exchange] > 0)] = 0.0


def gated(state: Live) -> NDArray[np.bool_]:
    """Which exchanges pay no withdrawal any more: they are short of what only a final clearing divides.

    A lending protocol whose bad debt is frozen goes on paying, first come first served.
    """
    short = np.zeros(state.n_exchanges, dtype=bool)
    short[state.markets.exchange[state.ledger.short > 0.0]] = True
    names = state.net.columns("exchanges")["rulebook"]
    closes = [
        deficit.layers[-1].name in ("withdrawal_haircut", "default")
        or (deficit.layers[-1].name == "frozen" and rulebook(name).health == "equity")
        for deficit, name in zip(state.deficits, names, strict=True)
    ]
    return np.asarray(short & np.array(closes, dtype=bool))


def pays_first(state: Live, exchange: int) -> bool:
    """Tell whether those who leave a deficit are asked for it themselves."""
    return state.has_recourse(exchange) or "defaulter_fund" in state.layers_of(exchange)


def _by_position(_desk: Desk, _gap: Gap, _rule: object) -> tuple[float, float]:
    """Bear nothing: winners are closed against contracts that are left, before an account leaves a hole."""
    return 0.0, 0.0


_POTS = {
    "skin": attrgetter("reserves.skin"),
    "insurance_fund": attrgetter("fund_units"),
    "equity": attrgetter("equity"),
}
"""What layers that pay out of a pot pay with: an empty one fills no hole."""

_LAYERS: Mapping[str, Callable[..., tuple[float, float]]] = {
    "recourse": _layers_members.by_recourse,
    "account_surplus": _layers_money.from_surplus,
    "defaulter_fund": _layers_members.from_defaulters,
    "skin": _layers_money.from_skin,
    "insurance_fund": _layers_money.from_fund,
    "vault": _layers_money.from_vault,
    "auto_deleveraging": _by_position,
    "default_fund": _layers_members.from_default_fund,
    "assessments": _layers_members.from_assessments,
    "gains": _layers_winners.from_gains,
    "tear_up": _layers_winners.from_tear_up,
    "equity": _layers_money.from_equity,
    "suppliers": _layers_members.from_suppliers,
    "surplus": _layers_lending.from_surplus,
    "mint": _layers_lending.from_new_shares,
    "co_borrowers": _layers_lending.to_co_borrowers,
    "frozen": _layers_members.left_short,
    "withdrawal_haircut": _layers_members.left_short,
    "default": _layers_members.left_short,
    "uncovered": _layers_members.left_short,
}
RUN = frozenset(_LAYERS) - {"surplus", "uncovered"}
