"""Synthetic markets and textbook networks: calibration, structure, determinism, and the bundled market."""

from __future__ import annotations

import csv
import doctest
import importlib
import random
import runpy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import netcontagion as nc
from netcontagion import datasets, generators
from netcontagion.errors import SchemaError
from netcontagion.generators import _calibration
from netcontagion.network import rulebook

DATA = Path(__file__).parents[1] / "data"
TABLES = ("traders", "exchanges", "assets", "markets", "accounts", "balances", "wallets", "liabilities")
BANKS = {
    "ring": {"n": 12},
    "complete": {"n": 12},
    "core_periphery": {"n": 30, "core": 5},
    "erdos_renyi": {"n": 40, "p": 0.1},
    "scale_free": {"n": 60, "links": 2},
}


def same(one, other):
    for name in TABLES:
        pd.testing.assert_frame_equal(getattr(one, name), getattr(other, name))


def sums(net, factor=None):
    """Debt and collateral [USD] of each account."""
    book = net.book
    mark = book.balance_mark if factor is None else book.balance_mark * factor[book.balance_market]
    return tuple(
        np.bincount(book.balance_account, units * mark, book.n_accounts) for units in (book.borrowed, book.deposited)
    )


def called(net, fall):
    """Share of debt below health 1 after a fall of the ETH family, and how many accounts do not cover it with bonus."""
    factor = nc.Shock.price({"ETH": -fall}, family=True).price_factors(net)[net.columns("markets")["asset"]]
    debt, collateral = sums(net, factor)
    below = net.book.health(factor) < 1
    return debt[below].sum() / debt.sum(), ((debt > 0) & (collateral < 1.05 * debt)).sum(), below


# ---------------------------------------------------------------------------------------------------------- calibration


@pytest.fixture(scope="module", params=[0, 1, 2])
def snapshot(request):
    """About as many borrowers as Aave v2 has in the snapshot."""
    net = generators.market(1530, seed=request.param)
    debt = sums(net)[0]
    borrowers = debt > 0
    return net, debt[borrowers], net.book.health()[borrowers]


def test_health_has_the_published_quantiles(snapshot):
    # both exchanges of the snapshot, v2 then v3: 1.16 1.06, 1.38 1.23, 1.81 1.73, 2.61 2.50, 4.91 4.61
    bands = {0.05: (1.04, 1.20), 0.25: (1.20, 1.42), 0.50: (1.62, 1.90), 0.75: (2.30, 2.75), 0.95: (4.2, 5.4)}
    for level, (low, high) in bands.items():
        assert low < np.quantile(snapshot[2], level) < high


def test_debt_has_the_published_quantiles(snapshot):
    published = {0.10: 0.7e3, 0.25: 3.5e3, 0.50: 21e3, 0.75: 125e3, 0.90: 778e3, 0.99: 17.5e6}
    for level, value in published.items():
        assert np.quantile(snapshot[1], level) == pytest.approx(value, rel=0.2)


def test_debt_is_as_concentrated_as_published(snapshot):
    shares = np.sort(snapshot[1])[::-1] / snapshot[1].sum()
    assert 0.44 < shares[:10].sum() < 0.56
    assert shares[0] < 0.101


def test_large_debts_have_lower_health(snapshot):
    ranks = [pd.Series(values).rank() for values in snapshot[1:]]
    assert -0.36 < np.corrcoef(*ranks)[0, 1] < -0.12  # published -0.24


def test_debt_below_1_1_is_as_published(snapshot):
    low = snapshot[1][snapshot[2] < 1.1].sum() / snapshot[1].sum()
    assert 0.08 < low < 0.35  # 8 % (v2), 27 % (v3)


def test_a_small_market_is_not_one_trader():
    for seed in range(5):
        debt = np.sort(sums(generators.market(seed=seed))[0])[::-1]
        assert debt[0] < 0.101 * debt.sum()
        assert 0.45 < debt[:10].sum() / debt.sum() < 0.62


def test_a_fall_of_30_percent_calls_some():
    shares = []
    for seed in range(10):
        share, uncovered, _ = called(generators.market(seed=seed), 0.3)
        shares.append(share)
        assert uncovered >= 1
    assert 0.10 < np.median(shares) < 0.25


# ------------------------------------------------------------------------------------------------------------ structure


def test_nobody_is_under_water_unless_asked():
    for seed in range(20):
        assert not generators.market(300, seed=seed).under_water.any()
    net = generators.market(2000, under_water=0.1, seed=0)
    assert 0.05 * 1700 < net.under_water.sum() < 0.15 * 1700
    assert net.book.health().min() > 0.89


def test_a_liquidation_always_helps():
    net = generators.market(seed=0)
    for table in (net.markets, net.accounts):
        share = (table["liquidation_threshold"] * (1 + table["liquidation_bonus"])).dropna()
        assert len(share)
        assert (share < 1).all()


def test_loops_owe_weth_against_staked_ether():
    net = generators.market(2000, exchanges=3, loops=0.2, seed=4)
    accounts, balances = net.accounts, net.balances.reset_index()
    e_mode = accounts.index[accounts["liquidation_threshold"].notna()]
    assert len(e_mode) > 10
    assert (accounts["liquidation_threshold"].dropna() == 0.93).all()
    assert (accounts["liquidation_bonus"].dropna() == 0.01).all()
    assert set(net.exchanges["rulebook"][accounts.loc[e_mode, "exchange"].unique().astype(str)]) <= {
        "aave_v3_0",
        "aave_v3",
    }
    rows = balances[balances["account"].isin(e_mode)]
    assert set(rows["asset"][rows["borrowed"] > 0]) == {"WETH"}
    assert set(rows["asset"][rows["deposited"] > 0]) == {"wstETH"}
    assert net.health()[e_mode].between(1.0199, 1.1001).all()
    assert not generators.market(300, loops=0.0, seed=1).accounts["liquidation_threshold"].notna().any()


@pytest.mark.parametrize("share", [0.05, 0.18, 0.5])
def test_loops_stay_below_their_share_of_debt(share):
    rng = np.random.default_rng(0)
    debts = _calibration.draw_debts(rng, 1300)
    looped = _calibration.draw_loops(rng, debts, share)
    assert 0.7 * share < debts[looped].sum() / debts.sum() <= share


@pytest.mark.parametrize("shared", [0.0, 0.2, 1.0])
def test_shared_traders(shared):
    accounts = generators.market(2000, shared=shared, seed=5).accounts
    accounts = accounts[accounts["trader"].astype(str).str.startswith("trader-")]
    each = accounts.groupby("trader", observed=True)["exchange"].agg(["size", "nunique"])
    assert (each["size"] == each["nunique"]).all()
    assert (each["size"] > 1).mean() == pytest.approx(shared, abs=0.01)
    assert (each["size"] > 2).mean() == pytest.approx(shared / 4, abs=0.01)


def test_accounts_hold_one_to_three_assets_and_owe_one_or_two():
    net = generators.market(3000, loops=0.0, seed=6)
    balances = net.balances.reset_index()
    balances = balances[balances["account"].astype(str).str.startswith("trader-")]
    assert not ((balances["deposited"] > 0) & (balances["borrowed"] > 0)).any()
    for column, shares in (("deposited", (0.67, 0.29, 0.04)), ("borrowed", (0.83, 0.17))):
        count = balances[balances[column] > 0].groupby("account", observed=True).size()
        for number, share in enumerate(shares, 1):
            assert (count == number).mean() == pytest.approx(share, abs=0.03)
        assert count.max() == len(shares)


def test_wallets_are_a_fraction_of_debt():
    net = generators.market(2000, wallets=0.4, seed=7)
    debt = pd.Series(sums(net)[0]).groupby(net.columns("accounts")["trader"]).sum()
    wallets = net.columns("wallets")
    ratio = wallets["units"] * net.columns("assets")["price"][wallets["asset"]] / debt[wallets["trader"]].to_numpy()
    assert ((ratio > 0.0199) & (ratio < 0.5001)).all()
    assert len(ratio) == pytest.approx(0.4 * (debt > 0).sum(), rel=0.1)
    assert not len(generators.market(50, wallets=0.0, seed=1).wallets)


def test_lenders_leave_only_the_last_exchange_partial():
    net = generators.market(400, seed=8)
    accounts = [label for label in net.labels("accounts") if label.startswith("others@")]
    assert accounts == ["others@Lend-4"]
    net = generators.market(400, exchanges=1, seed=8)
    assert not [label for label in net.labels("accounts") if label.startswith("others@")]
    lent = net.balances.groupby("asset", observed=True)["borrowed"].sum()
    held = net.balances.groupby("asset", observed=True)["deposited"].sum()
    assert (lent / held).max() == pytest.approx(0.8, rel=1e-5)
    generators.market(400, lenders=0.0, seed=8).check()


def test_exchanges_take_the_rulebooks_by_turns():
    net = generators.market(100, exchanges=4, seed=0)
    assert net.exchanges["rulebook"].tolist() == ["aave_v2", "aave_v3_0", "aave_v3", "aave_v2"]
    assert {rulebook(name).fixed_spread for name in net.exchanges["rulebook"]} == {True}
    named = generators.market(100, exchanges=["south", "north"], seed=0)
    assert named.exchanges["rulebook"].to_dict() == {"south": "aave_v2", "north": "aave_v3_0"}
    assert (named.exchanges[["equity", "insurance_fund"]] > 0).all(axis=None)
    many = generators.market(100, exchanges=12, seed=0)
    assert many.labels("exchanges")[0] == "Lend-01"


def test_depth_is_the_published_one_and_grows_with_the_debt():
    for n_accounts, factor in ((100, 1.0), (1000, 0.1)):
        net = generators.market(n_accounts, depth=factor, seed=9)
        debt, assets = sums(net)[0].sum(), net.assets
        for name, size in {"WETH": 27e6, "stETH": 27e6, "wstETH": 27e6, "WBTC": 6.8e6}.items():
            units = factor * size * debt / 1_282.4e6 / assets.loc[name, "price"]
            assert np.exp(-units / assets.loc[name, "depth"]) == pytest.approx(0.99, rel=1e-6)
    assert assets.loc[["USDC", "USDT", "DAI"], "depth"].isna().all()


def test_wrapped_ether_follows_ether():
    assets = generators.market(50, seed=0).assets
    family = assets[assets["underlying"] == "ETH"]
    assert set(family.index) == {"WETH", "stETH", "wstETH"}
    np.testing.assert_allclose(family["price"] / family["ratio"], 1720.0, rtol=1e-4)


def test_amounts_have_six_significant_digits():
    values = np.array([0.0, 1e-7, 0.123456789, 1.0, 999999.5, 1234567.8, 9.87654321e11])
    expected = [0.0, 1e-7, 0.123457, 1.0, 1e6, 1234570.0, 987654000000.0]
    assert _calibration.significant(values).tolist() == expected
    units = generators.market(300, seed=2).wallets["units"]
    assert all(float(f"{value:.6g}") == value for value in units)


@pytest.mark.parametrize("exchanges", [1, 2, 3, 5])
def test_tiny_markets(exchanges):
    for n_accounts in range(1, 25):
        for shared in (0.2, 1.0):
            net = generators.market(n_accounts, exchanges=exchanges, shared=shared, seed=n_accounts)
            assert sum(not label.startswith("others@") for label in net.labels("accounts")) == n_accounts
            assert not net.under_water.any()


def test_a_large_market():
    net = generators.market(50_000, seed=1)
    assert len(net.accounts) == 50_001
    assert len(net.exposures("accounts", "assets").matrix.data) > 50_000


# ---------------------------------------------------------------------------------------------------------- determinism


def test_equal_seeds_give_equal_markets():
    same(generators.market(seed=3), generators.market(seed=3))
    same(generators.market(seed=3), generators.market(seed=np.random.default_rng(3)))
    assert not generators.market(seed=3).balances.equals(generators.market(seed=4).balances)


@pytest.mark.parametrize("name", BANKS)
def test_equal_seeds_give_equal_banks(name):
    draw = getattr(generators, name)
    options = BANKS[name] | {"dispersion": 1.0}
    same(draw(**options, seed=3), draw(**options, seed=np.random.default_rng(3)))
    assert not draw(**options, seed=3).liabilities.equals(draw(**options, seed=4).liabilities)


def test_global_randomness_is_left_alone():
    before = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    generators.market(50, seed=1)
    generators.scale_free(50, seed=1)
    assert before == (random.getstate(), np.random.get_state()[1].tolist())  # noqa: NPY002


# --------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"n_accounts": 0}, "n_accounts"),
        ({"exchanges": 0}, "exchanges"),
        ({"exchanges": []}, "exchanges"),
        ({"exchanges": ["a", "a"]}, "exchanges"),
        ({"lenders": 1.0}, "lenders"),
        ({"shared": 1.1}, "shared"),
        ({"wallets": -0.1}, "wallets"),
        ({"loops": 1.0}, "loops"),
        ({"loops": float("nan")}, "loops"),
        ({"under_water": 2}, "under_water"),
        ({"depth": 0.0}, "depth"),
        ({"depth": float("inf")}, "depth"),
    ],
)
def test_a_market_refuses_what_makes_no_sense(options, word):
    with pytest.raises(ValueError, match=f"{word} is .*allowed"):
        generators.market(**options, seed=0)


def test_a_market_refuses_an_exchange_without_a_name():
    with pytest.raises(SchemaError, match=r"exchanges\.exchange"):
        generators.market(exchanges=["a", ""], seed=0)


@pytest.mark.parametrize(
    ("name", "options", "word"),
    [
        ("ring", {"n": 1}, "n is 1"),
        ("complete", {"n": 3, "liability": 0.0}, "liability"),
        ("ring", {"n": 3, "dispersion": -1.0}, "dispersion"),
        ("ring", {"n": 3, "equity": 0.9}, "equity"),
        ("ring", {"n": 3, "external_assets": [1.0, 2.0]}, "shape"),
        ("ring", {"n": 3, "external_assets": -1.0}, "negative"),
        ("ring", {"n": 3, "external_liabilities": float("nan")}, "not finite"),
        ("ring", {"n": 3, "external_assets": 0.0}, "external_liabilities of bank 1 would be -0.05"),
        ("core_periphery", {"n": 3, "core": 4}, "core"),
        ("erdos_renyi", {"n": 3, "p": 1.5}, "p is 1.5"),
        ("scale_free", {"n": 3, "links": 0}, "links"),
    ],
)
def test_banks_refuse_what_makes_no_sense(name, options, word):
    with pytest.raises(ValueError, match=word):
        getattr(generators, name)(**options)


# ---------------------------------------------------------------------------------------------------------------- banks


def matrix(net):
    return net.exposures("traders", "traders").matrix.toarray()


def sheets(net):
    """Total assets and book equity of each bank."""
    owed, columns = matrix(net), net.columns("traders")
    total = owed.sum(axis=0) + columns["external_assets"]
    return total, total - owed.sum(axis=1) - columns["external_liabilities"]


@pytest.mark.parametrize("name", BANKS)
@pytest.mark.parametrize("dispersion", [0.0, 1.5])
def test_amounts_and_equity_are_as_stated(name, dispersion):
    options = BANKS[name]
    net = getattr(generators, name)(**options, liability=3.0, dispersion=dispersion, equity=0.08, seed=2)
    owed = matrix(net)
    assert owed.sum() == pytest.approx(3.0 * options["n"])
    assert (np.ptp(owed[owed > 0]) < 1e-12) == (dispersion == 0)
    assert not owed.diagonal().any()
    total, equity = sheets(net)
    np.testing.assert_allclose(equity, 0.08 * total, rtol=1e-9)
    larger = np.maximum(owed.sum(axis=0), owed.sum(axis=1))
    np.testing.assert_allclose(np.where(larger > 0, larger, 3.0), 0.2 * total)
    assert set(net.traders["kind"]) == {"bank"}


def test_external_amounts_of_ones_own():
    owner = generators.ring(4, external_assets=5.0, equity=0.1)
    np.testing.assert_allclose(sheets(owner)[1], 0.6)
    assert (owner.traders["external_assets"] == 5.0).all()
    debtor = generators.ring(4, external_liabilities=[3.5, 8.0, 0.8, 0.8], equity=0.1)
    np.testing.assert_allclose(debtor.traders["external_assets"], [4.0, 9.0, 1.0, 1.0])
    both = generators.ring(4, external_assets=2.0, external_liabilities=3.0, equity=0.5)
    np.testing.assert_allclose(sheets(both)[1], -1.0)


def test_a_ring_owes_the_next():
    np.testing.assert_array_equal(matrix(generators.ring(5, liability=2.0)), 2.0 * np.roll(np.eye(5), 1, axis=1))


def test_complete_owes_everybody():
    np.testing.assert_allclose(matrix(generators.complete(5, liability=2.0)), 0.5 * (1 - np.eye(5)))


@pytest.mark.parametrize(("n", "core"), [(30, 5), (9, 6), (6, 6), (8, 1)])
def test_core_and_periphery(n, core):
    link = matrix(generators.core_periphery(n, core=core, seed=1)) > 0
    assert (link[:core, :core] == ~np.eye(core, dtype=bool)).all()
    assert not link[core:, core:].any()
    assert (link[core:, :core].sum(axis=1) == 1).all()
    assert (link[:core, core:].sum(axis=0) == 1).all()
    if n - core >= core:
        assert link[core:, :core].any(axis=0).all()
        assert link[:core, core:].any(axis=1).all()


def test_erdos_renyi_links_have_their_probability():
    n, p = 400, 0.05
    counts = [len(generators.erdos_renyi(n, p, seed=seed).liabilities) for seed in range(10)]
    mean, spread = n * (n - 1) * p, (n * (n - 1) * p * (1 - p)) ** 0.5
    assert abs(np.mean(counts) - mean) < 4 * spread / 10**0.5
    link = sum(matrix(generators.erdos_renyi(8, 0.3, seed=seed)) > 0 for seed in range(600)) / 600
    off = ~np.eye(8, dtype=bool)
    assert np.abs(link[off] - 0.3).max() < 0.1
    assert not link[~off].any()


def test_erdos_renyi_at_the_ends():
    assert not len(generators.erdos_renyi(5, 0.0, seed=0).liabilities)
    assert len(generators.erdos_renyi(5, 1.0, seed=0).liabilities) == 20


def test_scale_free_degrees_fall_as_the_cube():
    links, n = 2, 20_000
    net = generators.scale_free(n, links=links, seed=0)
    ends = net.columns("liabilities")
    degree = np.bincount(np.concatenate([ends["debtor"], ends["creditor"]]), minlength=n)
    for k in (2, 3, 4, 8):  # Bollobás et al. 2001: 2 m (m + 1) / (k (k + 1) (k + 2))
        assert (degree == k).mean() == pytest.approx(2 * links * (links + 1) / (k * (k + 1) * (k + 2)), rel=0.12)
    assert degree.max() > 100
    out = np.bincount(ends["debtor"], minlength=n).sum() / len(ends["debtor"])
    assert out == 1


def test_who_owes_is_a_fair_coin():
    ends = generators.scale_free(5000, seed=1).columns("liabilities")
    assert (ends["debtor"] < ends["creditor"]).mean() == pytest.approx(0.5, abs=0.02)


# ----------------------------------------------------------------------------------------------------- the bundled data


def test_the_bundled_market_is_what_its_script_writes(tmp_path):
    script = runpy.run_path(str(DATA / "scripts" / "market.py"))
    folder = tmp_path / "market"
    for _ in range(2):  # the second run exchanges the first
        script["main"](folder)
        written = {path.name: path.read_bytes() for path in folder.iterdir()}
        assert written == {path.name: path.read_bytes() for path in (DATA / "market").iterdir()}
    assert sum(map(len, written.values())) < 100_000
    assert not list(tmp_path.glob(".*"))


def test_the_bundled_market_reads_back_exactly():
    made = runpy.run_path(str(DATA / "scripts" / "market.py"))
    same(datasets.load("market"), generators.market(made["ACCOUNTS"], depth=made["DEPTH"], seed=made["SEED"]))


def test_the_bundled_market_is_described():
    source = (DATA / "market" / "SOURCE.md").read_text(encoding="utf-8")
    named = {line.split(":")[0] for line in source.splitlines() if line.startswith("- `")}
    found = {"- `network.json`"}
    for path in (DATA / "market").glob("*.csv"):
        with path.open(newline="", encoding="utf-8") as table:
            found |= {f"- `{path.name}` {column}" for column in next(csv.reader(table))}
    assert named == found
    available = datasets.available().set_index("name")
    assert f"# {available.loc['market', 'what']}" == source.splitlines()[0]


def test_the_bundled_market_is_a_demo():
    """A fall of ETH by 30 % calls a few accounts at once, and through prices more of them, on every exchange."""
    net = datasets.load("market")
    share, uncovered, _ = called(net, 0.3)
    assert 0.10 < share < 0.30
    assert uncovered >= 5
    assert not net.under_water.any()
    run = nc.cascade(net, nc.Shock.price({"ETH": -0.3}, family=True))
    run.check()
    assert run.status is nc.Status.SETTLED
    assert (run.accounts["first_round"] == 0).sum() >= 10
    assert (run.accounts["first_round"] > 0).sum() >= 20
    assert (run.accounts["topped_up"] & ~run.accounts["liquidated"]).sum() >= 10
    assert (run.exchanges["deficit"] > 0).all()
    assert (run.exchanges[["insurance_fund_used", "equity_used", "socialised"]].sum() > 0).all()


@pytest.mark.parametrize("module", ["_market", "_textbook"])
def test_examples(module):
    found = doctest.testmod(importlib.import_module(f"netcontagion.generators.{module}"))
    assert found.attempted
    assert not found.failed
