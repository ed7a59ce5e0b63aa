"""The record: tables, schema, margin arithmetic, rulebooks, shocks, conversion and storage."""

from __future__ import annotations

from netcontagion.network._convert import GraphPart, tables_of_graph
from netcontagion.network._display import money
from netcontagion.network._door import Door, read_columns, unknown_columns
from netcontagion.network._labels import OTHERS, Coded, clean_text, code_labels, factorize, is_others, label_problem
from netcontagion.network._margin import HEALTH_TOL, Book
from netcontagion.network._merge import merge
from netcontagion.network._network import ExposureNetwork, LabelledMatrix
from netcontagion.network._rulebooks import Rulebook, market_presets, preset_table, rulebook, rulebooks
from netcontagion.network._schema import Column, schema
from netcontagion.network._shock import Shock, check_call
from netcontagion.network._storage import load, save

__all__ = [
    "HEALTH_TOL",
    "OTHERS",
    "Book",
    "Coded",
    "Column",
    "Door",
    "ExposureNetwork",
    "GraphPart",
    "LabelledMatrix",
    "Rulebook",
    "Shock",
    "check_call",
    "clean_text",
    "code_labels",
    "factorize",
    "is_others",
    "label_problem",
    "load",
    "market_presets",
    "merge",
    "money",
    "preset_table",
    "read_columns",
    "rulebook",
    "rulebooks",
    "save",
    "schema",
    "tables_of_graph",
    "unknown_columns",
]
