"""Ranking: which nodes matter, and which buffer would have stopped it."""

from __future__ import annotations

from netcontagion.clearing import debtrank
from netcontagion.ranking._measures import measures
from netcontagion.ranking._rank import rank

__all__ = ["debtrank", "measures", "rank"]
