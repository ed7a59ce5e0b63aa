"""The record: tables, schema, margin arithmetic, rulebooks, shocks, conversion and storage."""

from __future__ import annotations

from netcontagion.network._convert import GraphPart, tables_of_graph
from netcontagion.network._display import money
from netcontagion.network._door import Door, read_columns, unknown_columns
from netcontagion.network._labels import OTHERS, Coded, clean_text, code_labels, factorize, is_others, label_problem
from netcontagion.network._ladder import Ladder, is_ladder, read_ladder, write_ladder
from netcontagion.network._margin import HEALTH_TOL, Book, Tiers
from netcontagion.network._merge import merge
from netcontagion.network._network import ExposureNetwork, LabelledMatrix
from netcontagion.network._policies import Policy, policies, policy
from netcontagion.network._rule_fields import (
    LAYERS,
    Amount,
    Auction,
    Deficit,
    Health,
    Inventory,
    Layer,
    Leg,
    Price,
    Source,
)
from netcontagion.network._rulebooks import Rulebook, market_presets, preset_table, rulebook, rulebooks
from netcontagion.network._schema import Column, schema
from netcontagion.network._shock import Shock, check_call
from netcontagion.network._storage import load, save

__all__ = [
    "HEALTH_TOL",
    "LAYERS",
    "OTHERS",
    "Amount",
    "Auction",
    "Book",
    "Coded",
    "Column",
    "Deficit",
    "Door",
    "ExposureNetwork",
    "GraphPart",
    "Health",
    "Inventory",
    "LabelledMatrix",
    "Ladder",
    "Layer",
    "Leg",
    "Policy",
    "Price",
    "Rulebook",
    "Shock",
    "Source",
    "Tiers",
    "check_call",
    "clean_text",
    "code_labels",
    "factorize",
    "is_ladder",
    "is_others",
    "label_problem",
    "load",
    "market_presets",
    "merge",
    "money",
    "policies",
    "policy",
    "preset_table",
    "read_columns",
    "read_ladder",
    "rulebook",
    "rulebooks",
    "save",
    "schema",
    "tables_of_graph",
    "unknown_columns",
    "write_ladder",
]
