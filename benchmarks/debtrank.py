"""Time DebtRank of every single default against block iteration; figures are ratios of one run.

    python benchmarks/debtrank.py --nodes 5000 --degree 20 --seed 0

The baseline is what a competent user would write: scenarios side by side, a block at a time, ``impact.T @ distress`` in
CSR. Linear: ``h = min(1, x + W^T h)`` until a round moves nothing by more than 1e-10. Single hit: nodes that are
distressed for the first time pass their distress on, until nobody is. The matrix of impacts is made beforehand on the
baseline's side. Gates nothing.

Clearing of 1,000 single defaults against a loop is in ``benchmarks/clearing.py``, "single nodes".
"""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_array

from netcontagion.ranking import debtrank

if TYPE_CHECKING:
    from collections.abc import Callable

BLOCK = 256
STEP = 1e-10


def banks(nodes: int, degree: int, seed: int) -> tuple[csr_array, np.ndarray]:
    """Debts to anybody, and equity above what each is owed in most cases: distress fades, slowly."""
    rng = np.random.default_rng(seed)
    debtor = np.repeat(np.arange(nodes), degree)
    creditor = rng.integers(0, nodes, nodes * degree)
    keep = debtor != creditor
    owed = csr_array((rng.lognormal(0, 1, keep.sum()), (debtor[keep], creditor[keep])), (nodes, nodes))
    owed.sum_duplicates()
    return owed, np.maximum(owed.sum(axis=0), 1e-3) / rng.uniform(0.4, 0.9, nodes)


def linear(into: csr_array, shock: np.ndarray) -> np.ndarray:
    """Iterate a block of scenarios to its fixed point."""
    distress = shock
    while True:
        fresh = np.minimum(1.0, shock + into @ distress)
        if np.abs(fresh - distress).max() <= STEP:
            return fresh
        distress = fresh


def single_hit(into: csr_array, shock: np.ndarray) -> np.ndarray:
    """Let every node of a block of scenarios pass its distress on once."""
    distress, active, untouched = shock.copy(), shock > 0, shock == 0
    while active.any():
        distress = np.minimum(1.0, distress + into @ np.where(active, distress, 0.0))
        active = untouched & (distress > 0)
        untouched &= ~active
    return distress


def of_every_default(value: Callable[[np.ndarray], np.ndarray], nodes: int) -> np.ndarray:
    """Value of every default alone, a block at a time."""
    found = np.zeros(nodes)
    for first in range(0, nodes, BLOCK):
        shock = np.zeros((nodes, min(BLOCK, nodes - first)))
        shock[np.arange(first, first + shock.shape[1]), np.arange(shock.shape[1])] = 1.0
        found[first : first + shock.shape[1]] = value(shock)
    return found


def race(variant: str, owed: csr_array, equity: np.ndarray) -> None:
    capped = variant == "single_hit"
    impact = csr_array((owed.data / equity[owed.indices], owed.indices, owed.indptr), owed.shape)
    impact.data = np.minimum(impact.data, 1.0) if capped else impact.data
    into, weights = impact.T.tocsr(), equity / equity.sum()
    spread = single_hit if capped else linear

    def plain(shock: np.ndarray) -> np.ndarray:
        return weights @ (spread(into, shock) - shock)

    def ours(shock: np.ndarray) -> np.ndarray:
        return debtrank(owed, equity, shock, variant=variant, weights=weights).value

    ours(np.eye(len(equity))[:, :8])
    start = time.perf_counter()
    expected = of_every_default(plain, len(equity))
    between = time.perf_counter()
    gap = np.abs(of_every_default(ours, len(equity)) - expected).max()
    mine, theirs = time.perf_counter() - between, between - start
    ratio = f"{theirs / mine:5.1f} x, off by up to {gap:.0e}"
    print(f"{variant:11} {mine:8.3f} s; block iteration {theirs:8.3f} s: {ratio}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=5_000)
    parser.add_argument("--degree", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(f"{options.nodes:,} nodes, {options.nodes * options.degree:,} debts, every single default")
    owed, equity = banks(options.nodes, options.degree, options.seed)
    for variant in ("linear", "single_hit"):
        race(variant, owed, equity)


if __name__ == "__main__":
    main()
