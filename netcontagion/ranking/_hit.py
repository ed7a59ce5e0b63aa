"""Nodes that a shock hits, and the shock as it is when it hits only some of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from netcontagion.network import Shock
from netcontagion.ranking._study import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from netcontagion.network import ExposureNetwork

__all__ = ["Hit", "hit_by", "only"]


class Hit(NamedTuple):
    """A node that a shock hits: its kind, and its place among its kind."""

    kind: str
    place: int


def hit_by(net: ExposureNetwork, shock: Shock) -> list[Hit]:
    """List the traders that lose money or default, the exchanges that are out, the assets whose price moves."""
    marked = {
        "trader": (_lost(net, shock) > 0) | shock.defaulted(net),
        "exchange": shock.out(net),
        "asset": shock.price_factors(net) != 1.0,
    }
    return [Hit(kind, place) for kind, mask in marked.items() for place in np.flatnonzero(mask).tolist()]


def only(net: ExposureNetwork, shock: Shock, nodes: Iterable[Hit]) -> Shock:
    """Return the shock as far as it hits these nodes; what it does to all depths stays."""
    chosen = set(nodes)
    places = {kind: sorted(node.place for node in chosen if node.kind == kind) for kind in KINDS}
    lost, failed, factors = _lost(net, shock), shock.defaulted(net), shock.price_factors(net)
    found = Shock() if shock.depth_factor == 1.0 else Shock.depth(shock.depth_factor)
    moved = {net.labels("assets")[place]: factors[place] - 1.0 for place in places["asset"]}
    losses = {("trader", net.labels("traders")[place]): lost[place] for place in places["trader"] if lost[place] > 0}
    defaults: list[Any] = [("trader", net.labels("traders")[place]) for place in places["trader"] if failed[place]]
    outages: list[Any] = [("exchange", net.labels("exchanges")[place]) for place in places["exchange"]]
    found += Shock.price(moved) if moved else Shock()
    found += Shock.loss(losses) if losses else Shock()
    found += Shock.default(*defaults) if defaults else Shock()
    return found + (Shock.outage(*outages) if outages else Shock())


def _lost(net: ExposureNetwork, shock: Shock) -> Any:
    """Money off the external assets of each trader, defaults apart [num]."""
    losing = Shock(losses=shock.losses, loss_shares=shock.loss_shares)
    return net.columns("traders")["external_assets"] - losing.external_assets(net)
