"""Time measures of a graph on a CSR matrix against igraph, its graph build included; figures are ratios of one run.

    python benchmarks/ranking.py --nodes 1000000 --seed 0

Ten weighted links per node. Both get the same matrix. igraph builds its graph of it and computes PageRank (PRPACK),
eigenvector centrality and HITS (ARPACK). It has no Katz centrality: its eigenvalue gives alpha, and the sum is what its
users would write, products in scipy of the matrix at hand. Scores are compared. Peak memory is that of the whole
process. Gates nothing.
"""

from __future__ import annotations

import argparse
import resource
import time
from typing import TYPE_CHECKING, Any

import igraph
import numpy as np
from scipy.sparse import csr_array

from netcontagion import ranking

if TYPE_CHECKING:
    from collections.abc import Callable

DEGREE = 10


def links(nodes: int, seed: int) -> csr_array:
    """Ten links per node, to nodes of which a few have most."""
    rng = np.random.default_rng(seed)
    row = np.repeat(np.arange(nodes), DEGREE)
    column = (nodes * rng.random(nodes * DEGREE) ** 2).astype(np.int64)
    keep = row != column
    matrix = csr_array((rng.lognormal(0, 1, keep.sum()), (row[keep], column[keep])), (nodes, nodes))
    matrix.sum_duplicates()
    return matrix


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    started = time.perf_counter()
    found = call()
    return found, time.perf_counter() - started


def build(matrix: csr_array) -> tuple[igraph.Graph, list[float]]:
    row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    graph = igraph.Graph(n=matrix.shape[0], edges=np.stack([row, matrix.indices], axis=1), directed=True)
    return graph, matrix.data.tolist()


def katz(graph: igraph.Graph, weights: list[float], matrix: csr_array) -> np.ndarray:
    """Add up walks until a step adds no more than 1e-10 to any score, alpha 0.85 over the largest eigenvalue."""
    _, eigenvalue = graph.eigenvector_centrality(directed=True, weights=weights, return_eigenvalue=True)
    into, alpha = matrix.T.tocsr(), 0.85 / eigenvalue
    scores = np.ones(matrix.shape[0])
    while True:
        fresh = alpha * (into @ scores) + 1.0
        if np.abs(fresh - scores).max() <= 1e-10:
            return fresh
        scores = fresh


def share(scores: Any) -> np.ndarray:
    values = np.asarray(scores, dtype=float)
    return values / values.sum()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--nodes", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    matrix = links(arguments.nodes, arguments.seed)
    (graph, weights), building = timed(lambda: build(matrix))
    print(f"{arguments.nodes:,} nodes, {matrix.nnz:,} links; igraph builds its graph in {building:.2f} s")
    both = {
        "PageRank": (lambda: ranking.pagerank(matrix), lambda: graph.pagerank(weights=weights)),
        "eigenvector": (
            lambda: ranking.eigenvector(matrix),
            lambda: graph.eigenvector_centrality(directed=True, weights=weights),
        ),
        "HITS": (
            lambda: ranking.hits(matrix),
            lambda: (graph.hub_score(weights=weights), graph.authority_score(weights=weights))[1],
        ),
        "Katz": (lambda: ranking.katz(matrix), lambda: katz(graph, weights, matrix)),
    }
    for name, (ours, theirs) in both.items():
        found, own = timed(ours)
        expected, other = timed(theirs)
        scores = found.columns if hasattr(found, "columns") else found.scores
        apart = np.abs(share(scores) - share(expected)).sum()
        print(
            f"  {name:<12} {own:6.2f} s, {found.rounds} rounds; igraph {building + other:6.2f} s with its build, "
            f"{other:.2f} s without: {(building + other) / own:.1f} x  (scores apart by {apart:.0e})"
        )
    print(f"  peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GB")


if __name__ == "__main__":
    main()
