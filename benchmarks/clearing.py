"""Time Eisenberg-Noe clearing against a plain fixed point; figures are ratios of one run.

    python benchmarks/clearing.py --nodes 1000000 --seed 0

The baseline is what a competent user would write: ``p = min(dues, assets + W @ p)`` from above, W in CSR, until a step
is at most rtol. Checks, sums and W are made beforehand on both sides. Gates nothing.
"""

from __future__ import annotations

import argparse
import time
from itertools import pairwise

import numpy as np
from scipy.sparse import csr_array

from netcontagion.clearing import eisenberg_noe, prepare

DEGREE = 20


def claims(nodes: int, seed: int, *, clustered: bool = False) -> csr_array:
    """Twenty debts per node, to anybody, or to one of a thousand neighbours in 95 of 100 cases."""
    rng = np.random.default_rng(seed)
    debtor = np.repeat(np.arange(nodes), DEGREE)
    creditor = rng.integers(0, nodes, nodes * DEGREE)
    if clustered:
        near = rng.random(len(debtor)) < 0.95
        creditor[near] = np.minimum(debtor[near] // 1000 * 1000 + rng.integers(0, 1000, near.sum()), nodes - 1)
    keep = debtor != creditor
    owed = csr_array((rng.lognormal(0, 1, keep.sum()), (debtor[keep], creditor[keep])), (nodes, nodes))
    owed.sum_duplicates()
    return owed


def case(name: str, owed: csr_array, seed: int) -> tuple[np.ndarray, np.ndarray, float]:
    """External assets, external liabilities and rtol of a shock: local, mid or systemic."""
    rng = np.random.default_rng(seed + 1)
    inside, claims_ = owed.sum(axis=1), owed.sum(axis=0)
    if name.startswith("systemic"):
        outside = inside * 0.03 / 0.97
        assets = (inside + outside) * 0.03 * 0.8 * rng.lognormal(-0.125, 0.5, len(inside))
        return assets, outside, 1e-7
    outside = inside * 0.1 / 0.9
    dues = inside + outside
    assets = np.maximum(dues - claims_, 0.0) + rng.uniform(0.02, 0.2, len(dues)) * dues
    if name == "local":
        assets[rng.random(len(dues)) < 0.012] *= 0.3
    else:
        assets *= rng.uniform(0.75, 1.0, len(dues))
    return assets, outside, 1e-10


def plain(weights: csr_array, assets: np.ndarray, dues: np.ndarray, rtol: float) -> tuple[np.ndarray, int]:
    """Fixed point from above."""
    paid, rounds = dues, 0
    while True:
        rounds += 1
        fresh = np.minimum(dues, assets + weights @ paid)
        if np.max(np.abs(fresh - paid) / dues) <= rtol:
            return fresh, rounds
        paid = fresh


def weights_of(owed: csr_array, dues: np.ndarray) -> csr_array:
    shares = csr_array((owed.data / np.repeat(dues, np.diff(owed.indptr)), owed.indices, owed.indptr), owed.shape)
    return shares.T.tocsr()


def single(name: str, owed: csr_array, seed: int) -> None:
    assets, outside, rtol = case(name, owed, seed)
    prepared = prepare(owed, outside)
    dues = prepared.dues
    weights = weights_of(owed, dues)
    prepared.full, prepared.tiles  # noqa: B018 sums and the copy that the baseline has too
    eisenberg_noe(prepared, assets, rtol=rtol)
    start = time.perf_counter()
    expected, rounds = plain(weights, assets, dues, rtol)
    between = time.perf_counter()
    result = eisenberg_noe(prepared, assets, rtol=rtol)
    result.payments  # noqa: B018 made when asked for
    ours, theirs = time.perf_counter() - between, between - start
    exact = float(np.max((expected - result.values.lower) / dues))
    print(
        f"{name:20} {ours:8.3f} s, width {result.width:.0e} {result.enclosure}, "
        f"{result.values.defaulted(1e-12).mean():6.1%} default; plain {theirs:7.3f} s, {rounds} products, "
        f"off by up to {exact:.0e}: {theirs / ours:6.1f} x"
    )


def batch(name: str, scenarios: int, seed: int) -> None:
    nodes = 10_000
    owed = claims(nodes, seed)
    assets, outside, rtol = case("local", owed, seed)
    rng = np.random.default_rng(seed + 2)
    if name == "single nodes":
        shocked = np.repeat(assets[:, None], scenarios, axis=1)
        shocked[rng.choice(nodes, scenarios, replace=False), np.arange(scenarios)] = 0.0
    else:
        shocked = assets[:, None] * rng.uniform(0.6, 1.0, (1, scenarios)) * rng.uniform(0.8, 1.0, (nodes, scenarios))
    prepared = prepare(owed, outside)
    weights = weights_of(owed, prepared.dues)
    eisenberg_noe(prepared, shocked[:, :2].copy())
    start = time.perf_counter()
    for first, last in pairwise(range(scenarios + 1)):
        plain(weights, shocked[:, first:last][:, 0], prepared.dues, rtol)
    between = time.perf_counter()
    result = eisenberg_noe(prepared, shocked)
    ours, theirs = time.perf_counter() - between, between - start
    print(
        f"{scenarios} scenarios, {name:14} {ours:6.3f} s, width {np.max(result.width):.0e}; "
        f"loop of plain {theirs:7.3f} s: {theirs / ours:6.1f} x"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=1_000_000)
    parser.add_argument("--scenarios", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(f"{options.nodes:,} nodes, {DEGREE * options.nodes:,} claims")
    owed = claims(options.nodes, options.seed)
    for name in ("local", "mid", "systemic, random"):
        single(name, owed, options.seed)
    single("systemic, clustered", claims(options.nodes, options.seed, clustered=True), options.seed)
    for name in ("single nodes", "whole system"):
        batch(name, options.scenarios, options.seed)


if __name__ == "__main__":
    main()
