"""Measures of the graph of exposures, as functions of a study."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion.ranking import _paths, _structure, _walks
from netcontagion.ranking._exposures import depths
from netcontagion.ranking._study import NotApplicable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netcontagion.ranking._study import Scores, Study

    Floats = NDArray[np.float64]

__all__ = [
    "betweenness",
    "birank",
    "closeness",
    "community",
    "core_periphery",
    "eigenvector",
    "hits",
    "k_core",
    "katz",
    "overlap",
    "pagerank",
    "participation",
    "strength",
]

PIVOTS = 256


def strength(study: Study) -> Scores:
    """Score by all exposures, either way."""
    return _of_all(study, _structure.strength(_linked(study)).rows)


def eigenvector(study: Study) -> Scores:
    """Score by the principal eigenvector of exposures, either way."""
    return _of_all(study, _walks.eigenvector(_linked(study)).scores)


def katz(study: Study) -> Scores:
    """Score by Katz centrality of exposures, either way."""
    return _of_all(study, _walks.katz(_linked(study)).scores)


def pagerank(study: Study) -> Scores:
    """Score by PageRank of exposures; walks start anew where most money is exposed."""
    _linked(study)
    exposed = study.graph.directed
    return _of_all(study, _walks.pagerank(exposed, personalization=exposed.sum(axis=1)).scores)


def hits(study: Study) -> Scores:
    """Score traders and exchanges as hubs, assets as authorities."""
    return _of_sides(study, _walks.hits(_held(study)))


def birank(study: Study) -> Scores:
    """Score by BiRank between traders and exchanges on the one side, assets on the other."""
    held = _held(study)
    return _of_sides(study, _walks.birank(held, queries=(held.sum(axis=1), held.sum(axis=0))))


def betweenness(study: Study) -> Scores:
    """Score by betweenness of exposures, either way."""
    return _of_all(study, _paths.betweenness(_linked(study), pivots=_pivots(study)))


def closeness(study: Study) -> Scores:
    """Score by closeness over exposures, either way."""
    return _of_all(study, _paths.closeness(_linked(study), pivots=_pivots(study)))


def k_core(study: Study) -> Scores:
    """Score by core number."""
    return _of_all(study, _paths.k_core(_linked(study)).astype(float))


def overlap(study: Study) -> Scores:
    """Score by the overlap with others of the kind (of exchanges: of what lies with them), and through assets."""
    depth = depths(study.net)
    if not np.isfinite(depth).any():
        raise NotApplicable("no asset has a depth, so no sale moves a price")
    scores = {"trader": np.zeros(0), "asset": np.zeros(len(depth))}
    if study.size("trader"):
        scores["trader"], scores["asset"] = _structure.overlap(study.net.exposures("traders", "assets"), depth)
    if study.size("exchange"):
        scores["exchange"] = _structure.overlap(study.net.exposures("exchanges", "assets"), depth).rows
    return scores


def participation(study: Study) -> Scores:
    """Score by how evenly exposures are spread over communities."""
    return _of_all(study, _structure.participation(_linked(study), study.graph.communities))


def core_periphery(study: Study) -> Scores:
    """Score by how firmly a node belongs to the core."""
    return _of_all(study, _structure.core_periphery(_linked(study)).scores)


def community(study: Study) -> Scores:
    """Return the number of every node's community."""
    _linked(study)
    return _of_all(study, study.graph.communities.astype(float))


def _linked(study: Study) -> Any:
    if not study.graph.either_way.nnz:
        raise NotApplicable("nobody is exposed to anybody or anything")
    return study.graph.either_way


def _held(study: Study) -> Any:
    if not study.graph.to_assets.nnz:
        raise NotApplicable("nobody is exposed to an asset")
    return study.graph.to_assets


def _pivots(study: Study) -> int | None:
    graph = study.graph.either_way
    return PIVOTS if graph.shape[0] * graph.nnz > _paths.EXACT_WORK else None


def _of_all(study: Study, values: Floats) -> Scores:
    nodes = len(study.net.nodes)
    return study.by_kind(values[:nodes]) | {"asset": values[nodes:]}


def _of_sides(study: Study, found: _walks.TwoSided) -> Scores:
    return study.by_kind(found.rows) | {"asset": found.columns}
