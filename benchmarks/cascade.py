"""Time the cascade against full revaluation of every account in every round; figures are ratios of one run.

    python benchmarks/cascade.py --accounts 10000000 --seed 0

The baseline is what a competent user would write: one sparse product a round for all accounts, whole accounts closed
out at the prices after impact, the same accounts and the same prices in the end (checked). The market is made of
arrays and codes, without labels; the index that all runs of a network share is preparation, as the baseline's matrices
are, and reported apart. Figures vary with what else the machine does; gates nothing.
"""

from __future__ import annotations

import argparse
import resource
import time
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

import netcontagion as nc
from netcontagion.margining._index import index_of

EXCHANGES, ASSETS, STABLE = 4, 30, 6
CASES = {"< 1 %": (-0.02, 12.0), "12 %": (-0.08, 4.0), "> 40 %": (-0.1, 2.0)}  # fall of four assets, depth of books
HALF = {"54 %": (-0.1, 2.0), "88 %": (-0.3, 1.2)}


def market(accounts: int, seed: int) -> nc.ExposureNetwork:
    """Lending accounts with one or two collaterals and one debt in a stablecoin, 2.65 balances each, as arrays."""
    rng = np.random.default_rng(seed)
    frame = _template()
    volatile = ASSETS - STABLE
    weight = 1.0 / np.arange(1, volatile + 1)
    price = frame["assets"]["price"]
    first = rng.choice(volatile, accounts, p=weight / weight.sum())
    second = (first + rng.integers(1, volatile, accounts)) % volatile
    has_second = rng.random(accounts) < 0.65
    stable = volatile + rng.integers(0, STABLE, accounts)
    value = np.exp(rng.normal(9, 2, accounts))
    part = np.where(has_second, rng.uniform(0.6, 0.95, accounts), 1.0)
    debt = 0.75 * value / (1.005 + np.exp(rng.normal(-1.2, 1.2, accounts)))
    owner = np.arange(accounts)
    account = np.concatenate([owner, owner[has_second], owner])
    asset = np.concatenate([first, second[has_second], stable])
    money = np.concatenate([value * part, (value * (1 - part))[has_second], debt])
    owed = np.concatenate([np.zeros(accounts + int(has_second.sum()), dtype=bool), np.ones(accounts, dtype=bool)])
    order = np.argsort(account.astype(np.int64) * ASSETS + asset)
    account, asset, owed, units = account[order], asset[order], owed[order], (money / price[asset])[order]
    exchange = rng.integers(0, EXCHANGES, accounts)
    lent = np.bincount(exchange[account[owed]] * ASSETS + asset[owed], units[owed], EXCHANGES * ASSETS)
    supplied = np.flatnonzero(lent)
    balances = {
        "account": np.concatenate([account, accounts + supplied // ASSETS]).astype(np.int32),
        "asset": np.concatenate([asset, supplied % ASSETS]).astype(np.int32),
        "deposited": np.concatenate([np.where(owed, 0.0, units), lent[supplied]]),
        "borrowed": np.concatenate([np.where(owed, units, 0.0), np.zeros(len(supplied))]),
    }
    size = accounts + EXCHANGES
    frame["balances"] = {name: balances.get(name) for name in frame["balances"]}
    given = {"trader": np.arange(size, dtype=np.int32)}
    given["exchange"] = np.concatenate([exchange, np.arange(EXCHANGES)]).astype(np.int32)
    for name in ("accounts", "traders"):
        frame[name] = {key: given.get(key, _repeated(values, size)) for key, values in frame[name].items()}
    names = {"exchanges": [f"Lend-{n}" for n in range(EXCHANGES)], "assets": [f"A{n:02d}" for n in range(ASSETS)]}
    labels = {kind: pd.Index(found) for kind, found in names.items()}
    labels |= {kind: pd.RangeIndex(size, name=kind[:-1]) for kind in ("accounts", "traders")}
    net = nc.ExposureNetwork.__new__(nc.ExposureNetwork)
    net.__setstate__({"columns": frame, "labels": labels, "money": ("USD", False)})
    return net


def _repeated(values: np.ndarray, size: int) -> np.ndarray:
    return np.full(size, values[0], dtype=values.dtype)


def _template() -> dict[str, dict[str, Any]]:
    """All tables of the same market with one account on each exchange."""
    exchanges = [f"Lend-{n}" for n in range(EXCHANGES)]
    assets = [f"A{n:02d}" for n in range(ASSETS)]
    volatile = np.arange(ASSETS) < ASSETS - STABLE
    price = np.where(volatile, 2000.0 / np.arange(1, ASSETS + 1), 1.0)
    named = {"exchange": np.repeat(exchanges, ASSETS), "asset": np.tile(assets, EXCHANGES)}
    small = nc.ExposureNetwork(
        assets={"asset": assets, "price": price},
        exchanges={"exchange": exchanges, "rulebook": ["closeout"] * EXCHANGES},
        markets=named | {"liquidation_threshold": np.tile(np.where(volatile, 0.75, 0.0), EXCHANGES)},
        accounts={"account": exchanges, "trader": exchanges, "exchange": exchanges},
        balances={"account": exchanges, "asset": ["A29"] * EXCHANGES, "deposited": [1.0] * EXCHANGES},
    )
    return {name: dict(small.columns(name)) for name in small._TABLES}


def with_depth(net: nc.ExposureNetwork, times: float) -> nc.ExposureNetwork:
    """Return the market with books as deep as some times the collateral on them; the index is not kept."""
    book = net.book
    held = np.bincount(book.market_asset[book.balance_market], book.deposited, ASSETS)
    depth = np.where(np.arange(ASSETS) < ASSETS - STABLE, held * times, np.inf)
    columns = {name: dict(net.columns(name)) for name in net._TABLES}
    columns["assets"]["depth"] = depth
    deep = nc.ExposureNetwork.__new__(nc.ExposureNetwork)
    labels = {kind: net.labels(kind) for kind in ("exchanges", "assets", "traders", "accounts")}
    deep.__setstate__({"columns": columns, "labels": labels, "money": ("USD", False)})
    return deep


class Plain:
    """Full revaluation each round: sparse products over all accounts, then masks; matrices are made beforehand.

    The same rules: whole accounts are sold at prices after impact (all of a round at the average price of the round),
    repay their debt and keep the rest; what is missing is taken from the suppliers of the market, share by share.
    """

    def __init__(self, net: nc.ExposureNetwork) -> None:
        book = net.book
        self.shape = (book.n_accounts, len(book.market_mark))
        self.start = np.searchsorted(book.balance_account, np.arange(book.n_accounts + 1))
        self.market, self.account = book.balance_market, book.balance_account
        self.asset, self.threshold = book.market_asset, book.threshold
        self.deposited, self.borrowed = book.deposited, book.borrowed
        self.price, self.depth = net.columns("assets")["price"], book.book_depth[:ASSETS]

    def matrix(self, values: np.ndarray) -> csr_array:
        return csr_array((values, self.market, self.start), self.shape)

    def run(self, factor: np.ndarray) -> tuple[int, int, np.ndarray]:
        """Return accounts closed out, rounds and final prices."""
        weighted = self.matrix(self.deposited * self.threshold)
        deposited, borrowed = self.matrix(self.deposited.copy()), self.matrix(self.borrowed.copy())
        base, sold, rounds, closed = self.price * factor, np.zeros(ASSETS), 0, 0
        kept, deep = np.ones(self.shape[0]), np.isinf(self.depth)
        finite = np.where(deep, 0.0, self.depth)
        while True:
            rounds += 1
            price = base * np.exp(-sold / self.depth)
            debt = borrowed @ price[self.asset]
            backing = weighted @ price[self.asset]
            low = np.flatnonzero(backing < debt * (1 - 1e-12))
            if not len(low):
                return closed, rounds, price
            closed += len(low)
            theirs = deposited[low]
            units = np.bincount(self.asset, theirs.sum(axis=0), ASSETS)
            drop = np.exp(-sold / self.depth) - np.exp(-(sold + units) / self.depth)
            income = base * np.where(deep, units, finite * drop)
            mean = np.divide(income, units, out=price.copy(), where=units > 0)
            cash = theirs @ mean[self.asset]
            missing = np.maximum(1 - cash / debt[low], 0.0)
            kept[low] = 0.0
            hole = borrowed[low].T @ missing
            supply = deposited.sum(axis=0)
            left = 1 - np.divide(hole, supply, out=np.zeros(len(hole)), where=supply > 0)
            keep = kept[self.account]
            borrowed.data *= keep
            keep *= left[self.market]
            deposited.data *= keep
            weighted.data *= keep
            sold = sold + np.where(deep, 0.0, units)


def compare(name: str, net: nc.ExposureNetwork, fall: float) -> None:
    """Print one line: seconds of both, and their ratio."""
    shock = nc.Shock.price({f"A{n:02d}": fall for n in range(4)})
    plain = Plain(net)
    started = time.perf_counter()
    index = index_of(net)
    built = time.perf_counter() - started
    ours, run = _best(lambda: nc.cascade(net, shock), seconds=1.0)
    theirs, (closed, rounds, price) = _best(lambda: plain.run(shock.price_factors(net)))
    called = int(run.rounds["called"].sum())
    np.testing.assert_allclose(run.assets["price"], price, rtol=1e-9)
    assert called == closed, (called, closed)
    accounts, balances = len(index.order), len(index.amount)
    memory = index.nbytes / (10 * balances + 16 * accounts)
    print(
        f"{accounts:>10,} accounts, {name:>6}: {called / accounts:6.2%} touched, {len(run.rounds):3} rounds  "
        f"ours {ours:7.3f} s  plain {theirs:7.2f} s in {rounds} rounds  {theirs / ours:6.1f} x  "
        f"(index {built:.1f} s, {index.nbytes / 2**20:,.0f} MiB, {memory:.2f} of 10 B a balance + 16 B an account)"
    )


def _best(work: Any, seconds: float = 0.0) -> tuple[float, Any]:
    """Time of the fastest call of those that fit into some seconds, at least three where any; and its outcome."""
    best, found, spent, calls = np.inf, None, 0.0, 0
    while calls == 0 or (seconds > 0.0 and (calls < 3 or spent < seconds)):
        started = time.perf_counter()
        found = work()
        took = time.perf_counter() - started
        best, spent, calls = min(best, took), spent + took, calls + 1
    return best, found


def scenarios(net: nc.ExposureNetwork, number: int, seed: int) -> None:
    """Print one line for many price scenarios on one network, its index included."""
    rng = np.random.default_rng(seed)
    falls = -rng.uniform(0.0, 0.15, (number, 8))
    shocks = [nc.Shock.price({f"A{n:02d}": x for n, x in enumerate(row.tolist())}) for row in falls]
    plain = Plain(net)
    started = time.perf_counter()
    called = [int(nc.cascade(net, shock).rounds["called"].sum()) for shock in shocks]
    ours = time.perf_counter() - started
    started = time.perf_counter()
    closed = [plain.run(shock.price_factors(net))[0] for shock in shocks]
    theirs = time.perf_counter() - started
    assert called == closed
    print(
        f"{len(index_of(net).order):>10,} accounts, {number} scenarios, index included: "
        f"{np.min(called) / len(index_of(net).order):.1%} to {np.max(called) / len(index_of(net).order):.1%} touched  "
        f"ours {ours:.2f} s  plain {theirs:.2f} s  {theirs / ours:.1f} x"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accounts", type=int, default=10_000_000)
    parser.add_argument("--scenarios", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    nc.cascade(with_depth(market(10_000, options.seed), 1.0), nc.Shock.price({"A00": -0.3}))  # compiles
    for accounts, cases in ((options.accounts, CASES), (max(options.accounts // 10, 1), HALF)):
        started = time.perf_counter()
        net = market(accounts, options.seed)
        print(f"market of {accounts:,} accounts as arrays: {time.perf_counter() - started:.1f} s")
        for name, (fall, depth) in cases.items():
            compare(name, with_depth(net, depth), fall)
    scenarios(with_depth(net, 20.0), options.scenarios, options.seed)
    print(
        f"largest resident memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB, tables included"
    )


if __name__ == "__main__":
    main()
