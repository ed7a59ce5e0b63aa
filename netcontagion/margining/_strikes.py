"""What strikes in the middle of a run: later shocks of a path, what each takes from everybody, and who fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from netcontagion.margining._state import Taken
from netcontagion.margining._wealth import unit_value, units_by_asset, wealth
from netcontagion.margining._whole import current_state

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netcontagion.margining._state import Live
    from netcontagion.network import Shock

__all__ = ["close_down", "strike"]


def strike(state: Live, shock: Shock) -> NDArray[np.int64]:
    """Let a shock strike now, on top of all impact; return the books whose prices it moved."""
    before = current_state(state)
    marks, prices = before.marks(), before.asset_prices()
    owned, had = wealth(before, marks, prices), unit_value(before, marks, prices)
    net, overlay = state.net, state.overlay
    factor = shock.price_factors(net)
    state.asset_base *= factor
    state.markets["shocked"] *= factor[state.markets.asset]
    for name in ("depth", "sold", "passing"):  # the impact so far stays
        state.books[name] *= shock.depth_factor
    state.rules["out"] |= shock.out(net)
    state.struck_assets = shock.external_assets(net, state.external_assets)
    overlay.defaulted |= shock.defaulted(net)
    purse = state.wallets[: overlay.used["wallets"]]
    purse["units"][overlay.defaulted[overlay.traders][purse.trader]] = 0.0
    close_down(state)
    after = current_state(state)
    marks, prices = after.marks(), after.asset_prices()
    has = unit_value(after, marks, prices)
    taken = Taken(owned - wealth(after, marks, prices), had - has, units_by_asset(before) - units_by_asset(after))
    state.taken.append(taken)
    moved = np.flatnonzero(factor[state.markets.asset] != 1)
    return np.unique(np.concatenate([np.flatnonzero(factor != 1), state.markets.book[moved]]))


def close_down(state: Live) -> None:
    """Close the accounts of those who failed, and let them answer no more."""
    overlay = state.overlay
    traders, seats = len(overlay.traders), len(overlay.accounts)
    failed = overlay.has_failed(overlay.traders)
    state.accounts["forced"][:seats] |= failed[state.accounts.trader[:seats]]
    for step in ("top_up", "withdraw", "reduce"):
        state.traders[step][:traders][failed] = 0
