"""Scenarios: many shocks with the parameters that made them, and how they are made, read and put together."""

from __future__ import annotations

from netcontagion.scenarios._scenarios import Scenarios, as_scenarios, concat, cross

__all__ = ["Scenarios", "as_scenarios", "concat", "cross"]
