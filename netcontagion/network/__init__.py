"""The record: tables, schema, margin arithmetic, rulebooks, shocks, conversion and storage."""

from __future__ import annotations

from netcontagion.network._margin import HEALTH_TOL, Book
from netcontagion.network._network import ExposureNetwork, LabelledMatrix, merge
from netcontagion.network._rulebooks import Rulebook, market_presets, preset_table, rulebook, rulebooks
from netcontagion.network._schema import schema
from netcontagion.network._shock import Shock, check_call
from netcontagion.network._storage import load, save

__all__ = [
    "HEALTH_TOL",
    "Book",
    "ExposureNetwork",
    "LabelledMatrix",
    "Rulebook",
    "Shock",
    "check_call",
    "load",
    "market_presets",
    "merge",
    "preset_table",
    "rulebook",
    "rulebooks",
    "save",
    "schema",
]
