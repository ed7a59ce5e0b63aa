"""From long tables, matrices, balance sheets, graphs and quotes to an exposure network."""

from __future__ import annotations

from netcontagion.builders._balance_sheets import from_balance_sheets
from netcontagion.builders._depth import depth_at, ladder
from netcontagion.builders._graphs import from_igraph, from_networkx
from netcontagion.builders._matrix import from_matrix
from netcontagion.builders._perpetuals import from_perpetuals
from netcontagion.builders._presets import preset_markets
from netcontagion.builders._reconstruct import reconstruct
from netcontagion.builders._table import from_table

__all__ = [
    "depth_at",
    "from_balance_sheets",
    "from_igraph",
    "from_matrix",
    "from_networkx",
    "from_perpetuals",
    "from_table",
    "ladder",
    "preset_markets",
    "reconstruct",
]
