"""Clearing: who pays whom how much when not everybody can pay in full."""

from __future__ import annotations

from netcontagion.clearing._eisenberg_noe import eisenberg_noe
from netcontagion.clearing._network import Estate, clear, settle
from netcontagion.clearing._result import ClearingResult

__all__ = ["ClearingResult", "Estate", "clear", "eisenberg_noe", "settle"]
