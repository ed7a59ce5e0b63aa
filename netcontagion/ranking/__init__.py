"""Ranking: which nodes matter, and which buffer would have stopped it."""

from __future__ import annotations

from netcontagion.clearing import debtrank
from netcontagion.ranking._measures import measures
from netcontagion.ranking._paths import betweenness, closeness, community, k_core
from netcontagion.ranking._rank import rank
from netcontagion.ranking._structure import (
    CorePeriphery,
    Sides,
    core_periphery,
    overlap,
    participation,
    strength,
)
from netcontagion.ranking._walks import Centrality, TwoSided, birank, eigenvector, hits, katz, pagerank

__all__ = [
    "Centrality",
    "CorePeriphery",
    "Sides",
    "TwoSided",
    "betweenness",
    "birank",
    "closeness",
    "community",
    "core_periphery",
    "debtrank",
    "eigenvector",
    "hits",
    "k_core",
    "katz",
    "measures",
    "overlap",
    "pagerank",
    "participation",
    "rank",
    "strength",
]
