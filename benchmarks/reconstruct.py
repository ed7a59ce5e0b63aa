"""Time the reconstruction of matrices from margins, and count the links of the sparse ones.

    python benchmarks/reconstruct.py --nodes 10000 --seed 0

Prints maximum entropy (factors, and sparse with --sparse: 1.2 GB at 10,000 nodes), minimum density against the most
links of a vertex and, on small systems, the optimum, and seconds per draw of the ensemble. Gates nothing.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from netcontagion.builders import reconstruct


def timed(call):
    start = time.perf_counter()
    return call(), time.perf_counter() - start


def margins(nodes: int, rng: np.random.Generator, *, whole: bool = False):
    if whole:
        assets = rng.integers(1, 1000, nodes).astype(float)
        return assets, rng.permutation(assets)
    assets, owed = rng.lognormal(0, 1, (2, nodes))
    return assets, owed * (assets.sum() / owed.sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sparse", action="store_true")
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)

    assets, owed = margins(options.nodes, rng)
    factors, seconds = timed(lambda: reconstruct(assets, owed, method="max_entropy", form="factors"))
    error = np.abs(factors.sum(axis=0) / assets - 1).max()
    print(f"max_entropy, {options.nodes:,} nodes, factors {seconds:8.3f} s, margins to {error:.0e}")
    if options.sparse:
        matrix, seconds = timed(lambda: reconstruct(assets, owed, method="max_entropy", form="sparse"))
        print(f"max_entropy, {options.nodes:,} nodes, sparse  {seconds:8.3f} s, {matrix.nnz:,} cells")
    for nodes in (100, 1000):
        for whole in (False, True):
            given = margins(nodes, rng, whole=whole)
            matrix, seconds = timed(lambda given=given: reconstruct(*given, method="min_density"))
            kind, most = "whole" if whole else "real", 2 * nodes - 1
            print(f"min_density, {nodes:,} nodes, {kind:5} {seconds:8.3f} s, {matrix.nnz:,} links, at most {most:,}")
    excess, times = [], []
    for _ in range(20):
        given = rng.integers(1, 12, 8).astype(float)
        given = given, rng.permutation(given)
        exact, seconds = timed(
            lambda given=given: reconstruct(*given, method="min_density", solver="exact", strict=False)
        )
        quick = reconstruct(*given, method="min_density", solver="heuristic")
        excess.append(quick.nnz - exact.nnz)
        times.append(seconds)
    print(f"min_density, 8 nodes: excess of the heuristic {np.bincount(excess).tolist()} (0, 1, .. links), "
          f"exact in {np.median(times):.2f} s, at most {max(times):.2f} s")  # fmt: skip
    reconstruct([1, 2, 3], [3, 2, 1], method="gibbs", link_probability=0.5, seed=0)  # compiles, or reads the cache
    for nodes, chance in ((100, 0.1), (300, 0.05), (500, 0.02), (500, 0.1)):
        assets, owed = margins(nodes, rng)
        call = {"method": "gibbs", "link_probability": chance, "seed": 0}
        _, first = timed(lambda a=assets, b=owed, c=call: reconstruct(a, b, **c))
        draws, eleven = timed(lambda a=assets, b=owed, c=call: reconstruct(a, b, n=11, **c))
        links = np.mean([matrix.nnz for matrix in draws])
        print(f"gibbs, {nodes} nodes, p = {chance}: first {first:7.2f} s, then {(eleven - first) / 10:7.3f} s a draw, "
              f"{links:,.0f} links")  # fmt: skip


if __name__ == "__main__":
    main()
