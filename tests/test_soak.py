"""Laws on random markets that mix every preset, both kinds of contracts, every impact form, and what breaks simulators.

The plain suite runs a few hundred; ``slow`` runs ``NETCONTAGION_SOAK`` markets (1,000 by default) with fixed seeds.
"""

from __future__ import annotations

import os

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_markets import FLAWS, presets, random_market
from seeds import slow

import netcontagion as nc
from netcontagion.margining._waterfall import RUN as LAYERS
from netcontagion.network import rulebook, schema

PRIORITIES = ("worst_first", "best_first", "random")
ABSOLUTE = ("aave_v3", "comet", "hyperliquid", "maker", "maker_flip")  # thresholds in money


def flaws_of(seed: int) -> tuple[str, ...]:
    """No flaws for even seeds, up to three for odd ones."""
    rng = np.random.default_rng(seed)
    return tuple(rng.choice(FLAWS, rng.integers(0, 4), replace=False).tolist()) if seed % 2 else ()


def run_of(seed: int, **options) -> nc.margining.CascadeResult:
    net, shock = random_market(seed, flaws=flaws_of(seed))
    options = {"priority": PRIORITIES[seed % 3], "seed": seed, "strict": False, "max_rounds": 20_000} | options
    return nc.cascade(net, shock, **options)


def keeps_the_laws(seed: int) -> nc.margining.CascadeResult:
    run = run_of(seed)
    net, name = run.network, run.status.name
    assert name in ("SETTLED", "EXHAUSTED"), (seed, run.status)
    run.check()
    for table in (run.accounts, run.traders, run.exchanges, run.assets, run.markets, run.losses, run.rounds):
        numbers = table.select_dtypes("number")
        numbers = numbers.drop(columns=[column for column in numbers if column.startswith("health")])
        assert np.isfinite(numbers.to_numpy(dtype=float)).all(), (seed, list(table.columns))
    assert (run.assets["price"] >= 0).all()
    assert (run.markets["mark"] >= 0).all()
    assert (run.accounts["deficit"] >= 0).all()
    cash = run._state.ledger.cash[: len(run.traders)]  # what trades brought: nobody buys with money that is not there
    assert (cash >= -1e-9 * np.maximum(run.traders["loss"].abs(), 1.0)).all(), (seed, "money from nowhere")
    layers = run.events[run.events["type"].isin(LAYERS - {"auto_deleveraging"})]
    most = layers.groupby(["parent", "exchange", "asset"], observed=True)["quantity"].transform("max")
    assert (layers["quantity"] > 1e-13 * most).all(), (seed, "a layer fills a gap that is rounding")
    named = len(run.accounts) - net.derived("accounts")
    owed = net.exchanges["recourse"].to_numpy() | np.array(
        ["recourse" in rulebook(book).layers for book in net.exchanges["rulebook"]]
    )
    left = run.accounts.iloc[:named]
    with_recourse = net.exchanges.index[owed]
    bare = left["liquidated"] & (left["deficit"] > 0) & ~left["exchange"].isin(with_recourse)
    scale = np.maximum(left["equity_before"].abs() + left["deficit"], 1.0)
    closed = bare & ~np.isfinite(left["health"])
    assert (left["equity"][closed] >= -1e-9 * scale[closed]).all(), (seed, "limited liability")
    return run


@pytest.mark.parametrize("first", [0, 15, *slow(30, 45)])
def test_laws_hold(first):
    for seed in range(first, first + 15):
        keeps_the_laws(seed)


@given(st.integers(10_000, 10_000_000))
@settings(max_examples=10, derandomize=True)
def test_laws_hold_for_any_seed(seed):
    keeps_the_laws(seed)


# A worthless coin that contracts are settled in, books that ran dry before a debt was repaid, or whose price is 0;
# contracts that neither a book nor a winner takes; suppliers of an asset that is worth nothing.
RARE = (1041, 1450, 1503, 1593, 2275, 3630, 5131, 5493)


@pytest.mark.parametrize("seed", RARE)
def test_laws_hold_where_what_is_rare_happens(seed):
    keeps_the_laws(seed)


# Purchases from lots, or liquidations, that feed each other crumb by crumb; an auction that nobody ever buys from, and
# whose starters move a price each time; an inverse contract on a book that has ended.
ENDLESS = (5_578, 11_776, 9_802, 12_142)


@pytest.mark.parametrize("seed", [*ENDLESS[:2], *slow(*ENDLESS[2:])])
def test_a_run_ends_where_it_could_go_on_for_ever(seed):
    keeps_the_laws(seed)


@pytest.mark.slow
def test_a_run_ends_where_a_cap_lets_little_through():
    """Withdrawals that take two hundred thousand rounds, with liquidations now and then."""
    run = keeps_the_laws(6_633)
    stuck = run.accounts.index[run.accounts["health"] < 1.0]
    since = pd.Series(run._play.by_account("since"), run.network.labels("accounts"))[stuck]
    assert len(since) > 1
    assert (since < 1_000).all(), "rounds that are passed over end no call, and begin no notice"


@pytest.mark.slow
@pytest.mark.parametrize("block", range(20))
def test_soak(block):
    size = int(os.environ.get("NETCONTAGION_SOAK", "1000")) // 20
    for seed in range(1_000 + block * size, 1_000 + (block + 1) * size):
        keeps_the_laws(seed)


@pytest.mark.parametrize("preset", presets())
def test_every_preset_keeps_the_laws_alone(preset):
    for seed in range(2):
        net, shock = random_market(seed, rules=(preset,))
        run = nc.cascade(net, shock, strict=False, max_rounds=5_000)
        run.check()
        assert run.status.name in ("SETTLED", "EXHAUSTED"), (preset, seed)


def test_an_inverse_contract_that_is_shocked_to_nothing_ends_as_nonfinite():
    """It pays 1 / price, which has no bound; sales alone never take it there (market 31)."""
    keeps_the_laws(31)
    net, _ = random_market(31)
    with pytest.raises(nc.NotSettledError) as caught:
        nc.cascade(net, nc.Shock.price({"ETH-INV": -1.0}))
    assert caught.value.result.status is nc.Status.NONFINITE
    with pytest.raises(nc.ContagionError, match="law"):
        caught.value.result.check()


@pytest.mark.parametrize("seed", range(12))
def test_the_same_seed_gives_the_same_log(seed):
    pd.testing.assert_frame_equal(run_of(seed).events, run_of(seed).events)


def shuffled(net: nc.ExposureNetwork, rng: np.random.Generator) -> nc.ExposureNetwork:
    """Return the same network, made from rows in another order."""
    tables = {name: getattr(net, name).reset_index() for name in schema()}
    tables = {name: table.iloc[rng.permutation(len(table))] for name, table in tables.items() if len(table)}
    return nc.ExposureNetwork(**tables, numeraire=net.numeraire)


@pytest.mark.parametrize("seed", range(0, 16, 2))
def test_the_order_of_rows_changes_nothing(seed):
    net, shock = random_market(seed)
    runs = [nc.cascade(one, shock, strict=False, seed=1) for one in (net, shuffled(net, np.random.default_rng(seed)))]
    pd.testing.assert_frame_equal(runs[0].events, runs[1].events)
    pd.testing.assert_frame_equal(runs[0].accounts, runs[1].accounts)


def scaled(net: nc.ExposureNetwork, factor: float, units: tuple[str, ...], but: tuple[str, ...] = ()) -> dict:
    """Tables with every column of some units multiplied."""
    tables = {}
    for name, columns in schema().items():
        table = getattr(net, name).reset_index()
        for column in columns.values():
            if column.unit in units and column.name not in but and len(table):
                rows = (table["kind"] == "inverse") | (column.name != "multiplier") if name == "assets" else slice(None)
                table.loc[rows, column.name] *= factor
        if len(table):
            tables[name] = table
    if "num/unit" in units:  # a fund in the numeraire is money
        money = tables["exchanges"]["insurance_asset"].isna()
        tables["exchanges"].loc[money, "insurance_fund"] *= factor
    return tables


@pytest.mark.parametrize("seed", [*range(0, 8, 2), *slow(*range(8, 24, 2))])
def test_another_currency_changes_nothing_but_prices(seed):
    rules = tuple(name for name in presets() if name not in ABSOLUTE)
    net, shock = random_market(seed, rules=rules)
    cents = nc.ExposureNetwork(**scaled(net, 4.0, ("num", "num/unit")), numeraire=net.numeraire)
    runs = [nc.cascade(one, shock, strict=False) for one in (net, cents)]
    np.testing.assert_allclose(runs[1].assets["price"], 4.0 * runs[0].assets["price"], rtol=1e-9)
    np.testing.assert_allclose(runs[1].accounts["deficit"], 4.0 * runs[0].accounts["deficit"], rtol=1e-9, atol=1e-9)
    assert (runs[0].accounts["liquidated"] == runs[1].accounts["liquidated"]).all()


@pytest.mark.parametrize("seed", [*range(0, 8, 2), *slow(*range(8, 24, 2))])
def test_a_market_of_another_size_has_the_same_prices(seed):
    rules = tuple(name for name in presets() if name not in ABSOLUTE)
    net, shock = random_market(seed, rules=rules)
    size = scaled(net, 8.0, ("num", "units", "units/day"), but=("multiplier",))
    runs = [nc.cascade(one, shock, strict=False) for one in (net, nc.ExposureNetwork(**size, numeraire=net.numeraire))]
    np.testing.assert_allclose(runs[1].assets["price"], runs[0].assets["price"], rtol=1e-9)
    assert (runs[0].accounts["liquidated"] == runs[1].accounts["liquidated"]).all()


@pytest.mark.parametrize("seed", [*range(0, 20, 2), *slow(*range(20, 60, 2))])
def test_nothing_happens_without_a_shock_to_a_healthy_market(seed):
    net, _ = random_market(seed)
    calm = net.health().to_numpy() >= 1.0
    calm[len(calm) - net.derived("accounts") :] = True
    if not calm.all():
        keep = net.accounts.index[calm][: calm.sum() - net.derived("accounts")]
        parts = {
            name: getattr(net, name).loc[lambda table: table.index.get_level_values(0).isin(keep)].reset_index()
            for name in ("accounts", "balances", "positions")
        }
        parts = {name: table for name, table in parts.items() if len(table)}
        others = ("traders", "exchanges", "assets", "markets", "tiers")
        kept = {name: getattr(net, name).reset_index() for name in others if len(getattr(net, name))}
        kept["traders"] = kept["traders"][~kept["traders"]["trader"].astype(str).str.startswith("others@")]
        net = nc.ExposureNetwork(**parts, **kept, numeraire=net.numeraire)
    run = nc.cascade(net, nc.Shock())
    assert len(run.events) == 1, run.events.head()
