"""Ranking: which nodes matter, and which buffer would have stopped it."""

from __future__ import annotations

from netcontagion.clearing import debtrank, impact_matrix
from netcontagion.ranking._agreement import agreement
from netcontagion.ranking._attribution import amplifiers, loss_matrix, origins
from netcontagion.ranking._balance_sheets import glasserman_young
from netcontagion.ranking._buffer_report import BufferReport
from netcontagion.ranking._buffers import buffers
from netcontagion.ranking._communicability import (
    communicability,
    impact_diffusion,
    impact_fluidity,
    impact_susceptibility,
)
from netcontagion.ranking._contagion_paths import contagion_paths
from netcontagion.ranking._failures import contagion_index
from netcontagion.ranking._measures import measures
from netcontagion.ranking._paths import betweenness, closeness, community, k_core
from netcontagion.ranking._rank import rank
from netcontagion.ranking._rank_ranges import rank_ranges, reconstructions
from netcontagion.ranking._shapley import shapley
from netcontagion.ranking._sinkrank import sinkrank
from netcontagion.ranking._structure import CorePeriphery, Sides, core_periphery, overlap, participation, strength
from netcontagion.ranking._walks import Centrality, TwoSided, birank, eigenvector, hits, katz, pagerank

__all__ = [
    "BufferReport",
    "Centrality",
    "CorePeriphery",
    "Sides",
    "TwoSided",
    "agreement",
    "amplifiers",
    "betweenness",
    "birank",
    "buffers",
    "closeness",
    "communicability",
    "community",
    "contagion_index",
    "contagion_paths",
    "core_periphery",
    "debtrank",
    "eigenvector",
    "glasserman_young",
    "hits",
    "impact_diffusion",
    "impact_fluidity",
    "impact_matrix",
    "impact_susceptibility",
    "k_core",
    "katz",
    "loss_matrix",
    "measures",
    "origins",
    "overlap",
    "pagerank",
    "participation",
    "rank",
    "rank_ranges",
    "reconstructions",
    "shapley",
    "sinkrank",
    "strength",
]
