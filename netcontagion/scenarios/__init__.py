"""Scenarios: many shocks with the parameters that made them, and how they are made, read and put together."""

from __future__ import annotations

from netcontagion.scenarios._compare import Comparison, compare
from netcontagion.scenarios._designs import defaults, grid, quasi_random
from netcontagion.scenarios._draws import correlated
from netcontagion.scenarios._reading import OUTPUTS
from netcontagion.scenarios._returns import bootstrap, historical
from netcontagion.scenarios._reverse import ReverseStress, reverse_stress
from netcontagion.scenarios._scenarios import Scenarios, as_scenarios, concat, cross
from netcontagion.scenarios._sweep import sweep
from netcontagion.scenarios._sweep_result import SweepResult
from netcontagion.scenarios._toml import read, settings, write

__all__ = [
    "OUTPUTS",
    "Comparison",
    "ReverseStress",
    "Scenarios",
    "SweepResult",
    "as_scenarios",
    "bootstrap",
    "compare",
    "concat",
    "correlated",
    "cross",
    "defaults",
    "grid",
    "historical",
    "quasi_random",
    "read",
    "reverse_stress",
    "settings",
    "sweep",
    "write",
]
