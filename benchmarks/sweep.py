"""Time sweeps against a plain loop over scenarios; figures are ratios of one run.

    python benchmarks/sweep.py --seed 0

Clearing: the loop is a fixed point from above in CSR for every scenario, with its sums by node. Prices: full
revaluation of every account in every round, as in ``cascade.py``; the sweep counts calls and leaves sums by node out,
as the loop does, and builds its index. A loop that would take too long is timed on a sample and scaled. Gates nothing.
"""

from __future__ import annotations

import argparse
import importlib
import resource
import time
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

import netcontagion as nc

if TYPE_CHECKING:
    from scipy.sparse import csr_array

cascade, clearing = (importlib.import_module(name) for name in ("cascade", "clearing"))  # beside this file


def banks(nodes: int, seed: int) -> tuple[nc.ExposureNetwork, csr_array, np.ndarray]:
    """Banks with twenty debts each, of which hardly any defaults without a shock."""
    owed = clearing.claims(nodes, seed)
    assets, outside, _ = clearing.case("local", owed, seed)
    coo = owed.tocoo()
    dues = owed.sum(axis=1) + outside
    net = nc.ExposureNetwork(
        traders={"trader": np.arange(nodes), "external_assets": assets, "external_liabilities": outside},
        liabilities=pd.DataFrame({"debtor": coo.row, "creditor": coo.col, "amount": coo.data}),
    )
    return net, clearing.weights_of(owed, dues), dues


def loop(net: nc.ExposureNetwork, shocks: list[nc.Shock], weights: csr_array, dues: np.ndarray) -> list[int]:
    """Clear one scenario after the other; return how many default in each."""
    found, losses, fails = [], np.zeros(len(dues)), np.zeros(len(dues))
    before = None
    for shock in [nc.Shock(), *shocks]:
        assets = shock.external_assets(net)
        paid, _ = clearing.plain(weights, assets, dues, 1e-10)
        equity = np.maximum(assets + weights @ paid - dues, 0.0)
        if before is None:
            before = equity
            continue
        failed = dues - paid > 1e-9 * dues
        losses += before - equity
        fails += failed
        found.append(int(failed.sum()))
    return found


def clear_many(name: str, nodes: int, number: int, sample: int, seed: int) -> None:
    """Print one line for scenarios of a clearing: the default of one bank, or a loss of all."""
    net, weights, dues = banks(nodes, seed)
    rng = np.random.default_rng(seed)
    if name == "one default":
        shocks = [nc.Shock.default(int(bank)) for bank in rng.integers(0, nodes, number)]
    else:
        shocks = [nc.Shock.loss(float(share)) for share in rng.uniform(0.0, 0.4, number)]
    nc.sweep(net, shocks[:16], run=nc.clear, progress=False)  # compiles
    started = time.perf_counter()
    found = nc.sweep(net, shocks, run=nc.clear, tail=None, progress=False)
    ours = time.perf_counter() - started
    started = time.perf_counter()
    defaults = loop(net, shocks[:sample], weights, dues)
    theirs = (time.perf_counter() - started) / sample * number
    different = int((found.table["defaults"].to_numpy()[:sample] != defaults).sum())
    print(
        f"{number:,} scenarios, {name}, {nodes:,} nodes: ours {ours:.1f} s  plain {theirs:.1f} s (of {sample})  "
        f"{theirs / ours:.1f} x  ({np.mean(defaults):,.0f} defaults on average, {different} of {sample} differ)"
    )


def cascade_many(accounts: int, number: int, sample: int, seed: int, n_jobs: int) -> None:
    """Print one line for price scenarios of one lending market."""
    net = cascade.with_depth(cascade.market(accounts, seed), 20.0)
    nc.cascade(cascade.with_depth(cascade.market(10_000, seed), 1.0), nc.Shock.price({"A00": -0.3}))  # compiles
    falls = -np.random.default_rng(seed).uniform(0.0, 0.15, (number, 8))
    shocks = [nc.Shock.price({f"A{n:02d}": x for n, x in enumerate(row.tolist())}) for row in falls]
    started = time.perf_counter()
    found = nc.sweep(net, shocks, outputs=["called", "liquidated"], nodes=False, n_jobs=n_jobs, progress=False)
    ours = time.perf_counter() - started
    plain = cascade.Plain(net)
    started = time.perf_counter()
    closed = [plain.run(shock.price_factors(net))[0] for shock in shocks[:sample]]
    theirs = (time.perf_counter() - started) / sample * number
    assert found.table["called"].tolist()[:sample] == closed
    print(
        f"{number:,} price scenarios, {accounts:,} accounts, index included: ours {ours:.1f} s  plain {theirs:.1f} s "
        f"(of {sample})  {theirs / ours:.1f} x"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=10_000)
    parser.add_argument("--clearings", type=int, default=10_000)
    parser.add_argument("--accounts", type=int, default=1_000_000)
    parser.add_argument("--scenarios", type=int, nargs="+", default=[200, 1_000])
    parser.add_argument("--sample", type=int, default=60)
    parser.add_argument("--n-jobs", type=int, default=1, help="processes; threads use all processors in one, too")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    sample = min(options.sample, options.clearings)
    for name in ("one default", "loss of all"):
        clear_many(name, options.nodes, options.clearings, sample, options.seed)
    for number in options.scenarios:
        cascade_many(options.accounts, number, min(options.sample, number), options.seed, options.n_jobs)
    print(f"largest resident memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB")


if __name__ == "__main__":
    main()
