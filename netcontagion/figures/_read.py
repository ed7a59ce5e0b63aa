"""The door to what a map shows: the only place that tells networks, results and wrong things apart."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from netcontagion.errors import ContagionError
from netcontagion.figures._collateral import account_flows
from netcontagion.figures._dues import clearing_flows, liability_flows

if TYPE_CHECKING:
    from netcontagion.figures._flows import Flows, Room

__all__ = ["read_flows"]


def read_flows(source: Any, room: Room) -> Flows:
    """Turn a network, a cascade result or a clearing result into layers and links that fit the room.

    Raises
    ------
    TypeError
        When ``source`` is none of these.
    ContagionError
        When it holds neither collateral nor liabilities.
    """
    if inspect.isclass(source):
        raise TypeError(_not_drawn(f"the class {source.__name__} itself"))
    if hasattr(source, "payment_matrix"):
        return clearing_flows(source, room)
    result = source if hasattr(source, "network") and hasattr(source, "accounts") else None
    network = source if result is None else result.network
    if not (callable(getattr(network, "labels", None)) and callable(getattr(network, "columns", None))):
        raise TypeError(_not_drawn(f"{type(source).__name__} {_short(source)}"))
    flows = account_flows(network, result, room)
    cleared: Any = getattr(result, "clearing", None)
    if flows is None and cleared is not None:
        return clearing_flows(cleared, room)
    if flows is None:
        flows = liability_flows(network, room)
    if flows is None:
        message = "nothing to draw: the network has no collateral and no liabilities; give balances or liabilities"
        raise ContagionError(message)
    return flows


def _not_drawn(given: str) -> str:
    return (
        f"contagion_map draws an ExposureNetwork, a CascadeResult or a ClearingResult, not {given}; "
        "run nc.cascade(net, shock) first and give what it returns"
    )


def _short(source: Any) -> str:
    """One line of what was given."""
    text = " ".join(repr(source).split())
    return text if len(text) <= 40 else f"{text[:39]}…"
