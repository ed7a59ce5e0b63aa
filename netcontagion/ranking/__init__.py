"""Ranking: which nodes matter, and which buffer would have stopped it."""

from __future__ import annotations

from netcontagion.clearing import debtrank
from netcontagion.ranking._agreement import agreement
from netcontagion.ranking._attribution import amplifiers, loss_matrix, origins
from netcontagion.ranking._contagion_paths import contagion_paths
from netcontagion.ranking._rank import rank
from netcontagion.ranking._rank_ranges import rank_ranges, reconstructions

__all__ = [
    "agreement",
    "amplifiers",
    "contagion_paths",
    "debtrank",
    "loss_matrix",
    "origins",
    "rank",
    "rank_ranges",
    "reconstructions",
]
