"""Ranking: which nodes matter, and which buffer would have stopped it.

The table of nodes: ``_rank`` scores a ``_study`` by the measures that ``_measures`` lists and makes a ``_table``.

Measures by loss, from ``_runs``: ``_defaults``, ``_taken_out``, ``_price_falls``, ``_shapley`` (over whom the shock
``_hit``); from sales: ``_portfolios``; from who owes whom: ``_distress``, ``_failures``, ``_balance_sheets``,
``_sinkrank``, ``_communicability``. They share ``_books`` and ``_dense``.

Measures on the graph of ``_exposures``, in the table by ``_graph_measures``: ``_walks``, ``_paths`` and ``_structure``
take any matrix that ``_given`` lets in.

Attribution of one run: ``_passing`` is the graph of who causes whose losses, ``_attribution`` and ``_contagion_paths``
read it.

Buffers: ``_buffers`` puts together a ``_buffer_report`` of ``_tools`` by their ``_outcomes``: what they did
(``_stocks``), what a unit saves (``_marginal``), how large they have to be (``_search``, ``_sizing``), where a budget
goes (``_allocation``); ``_response`` runs the network for all of them.

Agreement and uncertainty: ``_agreement`` of ranks with losses, ``_rank_ranges`` over scenarios and networks.
"""

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
