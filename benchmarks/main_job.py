"""Time the main job against what a competent user would write with numpy and scipy; figures are ratios of one run.

    python benchmarks/main_job.py --accounts 1000000 --seed 0

Prints the import, the build from a long table with string ids, a cascade against full revaluation each round, the map,
and clearing against a plain fixed point. Gates nothing.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from contextlib import contextmanager

import numpy as np
import pandas as pd
from scipy.sparse import coo_array, csr_array

os.environ.setdefault("MPLBACKEND", "Agg")


@contextmanager
def timed(name: str, times: dict[str, float]):
    start = time.perf_counter()
    yield
    times[name] = time.perf_counter() - start


def import_seconds() -> float:
    """CPU seconds of ``import netcontagion`` in a fresh process, less those of a bare interpreter."""

    def cpu(code: str) -> float:
        program = f"import time; {code}; print(time.process_time())"
        return min(float(subprocess.check_output([sys.executable, "-c", program])) for _ in range(5))

    return cpu("import netcontagion") - cpu("pass")


def long_table(accounts: int, seed: int) -> pd.DataFrame:
    """A long table with string ids: one or two collaterals and one debt per account, rows in random order."""
    rng = np.random.default_rng(seed)
    ids = np.array([f"0x{number:040x}" for number in rng.integers(0, 2**62, accounts)], dtype=object)
    venue = np.array(["Lend-1", "Lend-2", "Lend-3", "Lend-4"], dtype=object)[rng.integers(0, 4, accounts)]
    collateral = np.array(["ETH", "WBTC", "stETH"], dtype=object)[rng.integers(0, 3, accounts)]
    value = np.exp(rng.normal(9, 2, accounts))
    debt = 0.75 * value / (1.02 + np.exp(rng.normal(-0.2, 1, accounts)))
    second = rng.random(accounts) < 0.65
    parts = [
        (ids, venue, collateral, "collateral", value),
        (
            ids[second],
            venue[second],
            np.full(int(second.sum()), "LINK", dtype=object),
            "collateral",
            0.2 * value[second],
        ),
        (ids, venue, np.full(accounts, "USDC", dtype=object), "debt", debt),
    ]
    frames = [
        pd.DataFrame({"wallet": who, "protocol": where, "token": what, "side": side, "usd": usd})
        for who, where, what, side, usd in parts
    ]
    table = pd.concat(frames, ignore_index=True)
    return table.iloc[rng.permutation(len(table))].reset_index(drop=True)


def build(table: pd.DataFrame):
    from netcontagion import builders

    markets = {
        "asset": ["ETH", "WBTC", "stETH", "LINK", "USDC"],
        "liquidation_threshold": [0.80, 0.75, 0.78, 0.70, 0.85],
        "liquidation_bonus": [0.05, 0.06, 0.07, 0.07, 0.04],
        "close_factor": [0.5] * 5,
    }
    total = table.loc[table["side"] == "debt", "usd"].sum()
    prices = pd.DataFrame(
        {
            "price": [2000.0, 30_000.0, 1990.0, 10.0, 1.0],
            "underlying": [None, None, "ETH", None, None],
            "depth": [2 * total / 2000, total / 30_000, total / 1990, 0.5 * total / 10, np.inf],
        },
        index=pd.Index(markets["asset"], name="asset"),
    )
    return builders.from_table(
        table,
        trader="wallet",
        exchange="protocol",
        asset="token",
        side="side",
        value="usd",
        markets=markets,
        prices=prices,
        exchanges={"exchange": [f"Lend-{n}" for n in range(1, 5)], "rulebook": ["closeout"] * 4},
    )


def plain_cascade(net, factor: np.ndarray) -> tuple[int, int]:
    """Whole-account close-outs by full revaluation of every account in every round, with scipy.sparse products."""
    book, n_assets = net.book, len(net.labels("assets"))
    shape = (book.n_accounts, n_assets)
    asset = book.market_asset[book.balance_market]
    weighted = csr_array(coo_array((book.deposited * book.threshold, (book.balance_account, asset)), shape))
    deposited = csr_array(coo_array((book.deposited, (book.balance_account, asset)), shape))
    borrowed = csr_array(coo_array((book.borrowed, (book.balance_account, asset)), shape))
    price = net.columns("assets")["price"] * factor
    depth = book.book_depth[:n_assets]
    open_, sold, rounds = np.ones(book.n_accounts, dtype=bool), np.zeros(n_assets), 0
    while True:
        rounds += 1
        now = price * np.exp(-sold / depth)
        low = open_ & (weighted @ now < borrowed @ now)
        if not low.any():
            return int((~open_).sum()), rounds
        sold = sold + deposited.T @ low.astype(float)
        open_ &= ~low


def plain_clearing(owed: csr_array, assets: np.ndarray) -> np.ndarray:
    """Fixed point from above."""
    dues = np.asarray(owed.sum(axis=1))
    share = owed.T.tocsr() @ csr_array(coo_array((1 / np.where(dues > 0, dues, 1), (range(len(dues)),) * 2)))
    paid = dues
    while True:
        fresh = np.minimum(dues, assets + share @ paid)
        if np.abs(fresh - paid).max() <= 1e-10 * dues.max():
            return fresh
        paid = fresh


def clearing_case(nodes: int, seed: int) -> tuple[csr_array, np.ndarray]:
    rng = np.random.default_rng(seed)
    edges = 20 * nodes
    debtor, creditor = rng.integers(0, nodes, edges), rng.integers(0, nodes, edges)
    keep = debtor != creditor
    owed = coo_array((rng.lognormal(0, 1, edges)[keep], (debtor[keep], creditor[keep])), (nodes, nodes)).tocsr()
    net = np.asarray(owed.sum(axis=1)) - np.asarray(owed.sum(axis=0))
    return owed, np.maximum(net, 0) + rng.lognormal(0, 1, nodes) * 5 * (rng.random(nodes) < 0.7)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accounts", type=int, default=1_000_000)
    parser.add_argument("--nodes", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    import netcontagion as nc
    from netcontagion.clearing import eisenberg_noe

    times: dict[str, float] = {}
    print(f"import netcontagion      {import_seconds():8.3f} s CPU beyond the interpreter")
    table = long_table(options.accounts, options.seed)
    with timed("build", times):
        net = build(table)
    print(f"build from {len(table):>10,} rows {times['build']:8.2f} s")
    nc.cascade(nc.datasets.load("market"), nc.Shock.price({"ETH": -0.1}, family=True))  # compiles, or reads the cache
    for fall in (0.02, 0.10, 0.30):
        shock = nc.Shock.price({"ETH": -fall}, family=True)
        with timed("ours", times):
            run = nc.cascade(net, shock)
        with timed("plain", times):
            closed, rounds = plain_cascade(net, shock.price_factors(net))
        run.check()
        ours = int(run.accounts["liquidated"].sum())
        print(
            f"cascade, ETH -{fall:3.0%}       {times['ours']:8.2f} s, {ours:,} liquidated in {len(run.rounds)} rounds; "
            f"plain {times['plain']:.2f} s, {closed:,} in {rounds}: {times['plain'] / times['ours']:.2f} x"
        )
    with timed("map", times):
        nc.contagion_map(run)
    print(f"contagion map            {times['map']:8.2f} s")
    owed, assets = clearing_case(options.nodes, options.seed)
    eisenberg_noe(owed, assets)  # compiles, or reads the cache
    with timed("ours", times):
        result = eisenberg_noe(owed, assets)
    with timed("plain", times):
        paid = plain_clearing(owed, assets)
    error = np.abs(paid - result.payments).max() / result.dues.max()
    print(
        f"clearing, {options.nodes:,} nodes {times['ours']:8.2f} s certified to {float(result.width):.0e}, "
        f"{result.defaulted.mean():.0%} default; plain {times['plain']:.2f} s, uncertified, off by {error:.0e}: "
        f"{times['plain'] / times['ours']:.2f} x"
    )


if __name__ == "__main__":
    main()
