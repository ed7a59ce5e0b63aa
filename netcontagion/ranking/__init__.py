"""Ranking: which nodes matter, and which buffer would have stopped it."""

from __future__ import annotations

from netcontagion.clearing import debtrank
from netcontagion.ranking._balance_sheets import glasserman_young
from netcontagion.ranking._communicability import (
    communicability,
    impact_diffusion,
    impact_fluidity,
    impact_matrix,
    impact_susceptibility,
)
from netcontagion.ranking._failures import contagion_index
from netcontagion.ranking._rank import rank
from netcontagion.ranking._shapley import shapley
from netcontagion.ranking._sinkrank import sinkrank

__all__ = [
    "communicability",
    "contagion_index",
    "debtrank",
    "glasserman_young",
    "impact_diffusion",
    "impact_fluidity",
    "impact_matrix",
    "impact_susceptibility",
    "rank",
    "shapley",
    "sinkrank",
]
