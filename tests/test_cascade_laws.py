"""Laws that every cascade keeps, on random, adversarial and many markets."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from seeds import some_and_slow
from test_cascade_twin import random_shock, random_tables

import netcontagion as nc

SEEDS = st.integers(0, 2**32 - 1)
LAYERS = ["insurance_fund_used", "equity_used", "socialised", "uncovered"]
FREE_OF_THRESHOLDS = {"aave_v3": "aave_v3_0"}  # absolute money thresholds do not scale


def check(run):
    """Every law: those of check(), and those that can be seen from the tables alone."""
    laws = run.check()
    assert laws.worst <= 1e-9
    losses, exchanges, accounts = run.losses, run.exchanges, run.accounts
    scale = max(float(np.abs(losses.to_numpy()).sum()), float(accounts["equity_before"].abs().sum()), 1.0)
    traders = run.traders
    by_channel = traders[[name for name in traders if name.startswith("loss_")]].sum(axis=1)
    np.testing.assert_allclose(traders["loss"], by_channel, rtol=0, atol=1e-9 * scale)
    np.testing.assert_allclose(exchanges["deficit"], exchanges[LAYERS].sum(axis=1), rtol=1e-9, atol=1e-9)
    assert accounts["deficit"].sum() == pytest.approx(exchanges["deficit"].sum(), rel=1e-9, abs=1e-9)
    state = run._state
    for part in (state.entries.deposited, state.entries.borrowed, state.wallets.units, state.fund_units, state.equity):
        assert (part >= 0).all()
    assert (run.assets["price"] >= 0).all()
    assert np.isfinite(losses.to_numpy()).all()
    closed = accounts["deficit"] > 0
    assert (accounts["equity"][closed] >= -1e-9 * scale).all()  # a closed account owes nothing
    assert ((accounts["health"] == math.inf) == (state.health(state.marks()) == math.inf)).all()
    assert (run.events["parent"].iloc[1:] < run.events.index[1:]).all()


def play(number, **options):
    run = nc.cascade(nc.ExposureNetwork(**random_tables(number)), random_shock(number), **options)
    check(run)
    return run


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(SEEDS)
def test_laws_hold_on_random_markets(seed):
    play(seed)


@pytest.mark.parametrize("seed", some_and_slow(3, 6))
@pytest.mark.parametrize("fall", [-0.2, -0.5])
def test_laws_hold_on_generated_markets(seed, fall):
    net = nc.generators.market(150, exchanges=4, seed=seed, depth=0.2)
    check(nc.cascade(net, nc.Shock.price({"ETH": fall}, family=True)))


@pytest.mark.slow
def test_laws_hold_on_many_markets():
    for seed in range(10_000, 12_000):
        play(seed, priority=("worst_first", "best_first", "random")[seed % 3], seed=seed)


# names and orders ---------------------------------------------------------------------------------------------------


def facts(run):
    accounts = run.accounts[["health", "deficit", "loss", "liquidated", "topped_up", "repaid"]].sort_index()
    return accounts, run.markets["mark"].sort_index(), run.losses.sort_index(axis=1)


def assert_same(ours, theirs, scale=1.0):
    for one, other in zip(ours, theirs, strict=True):
        kind = pd.testing.assert_series_equal if isinstance(one, pd.Series) else pd.testing.assert_frame_equal
        kind(one, other, rtol=1e-9, atol=1e-9 * scale, check_categorical=False)


@pytest.mark.parametrize("seed", some_and_slow(5, 12))
def test_row_order_of_the_tables_changes_nothing(seed):
    tables, rng = random_tables(seed), np.random.default_rng(seed)
    shuffled = {}
    for name, table in tables.items():
        order = rng.permutation(len(next(iter(table.values()))))
        shuffled[name] = {column: [values[i] for i in order] for column, values in table.items()}
    one = nc.cascade(nc.ExposureNetwork(**tables), random_shock(seed))
    other = nc.cascade(nc.ExposureNetwork(**shuffled), random_shock(seed))
    check(other)
    assert_same(facts(one), facts(other))
    pd.testing.assert_frame_equal(one.events, other.events)


@pytest.mark.parametrize("seed", some_and_slow(5, 12))
def test_names_change_nothing(seed):
    tables = random_tables(seed)
    rng = np.random.default_rng(seed)
    names = {}
    for table, column in (("traders", "trader"), ("exchanges", "exchange"), ("accounts", "account")):
        labels = tables[table][column]
        names |= dict(zip(labels, [f"n{i:03d}{column}" for i in rng.permutation(len(labels))], strict=True))
    renamed = {
        name: {c: [names.get(v, v) if isinstance(v, str) else v for v in values] for c, values in table.items()}
        for name, table in tables.items()
    }
    shock = nc.Shock.price({"BTC": -0.2, "ETH": -0.3})
    one, other = nc.cascade(nc.ExposureNetwork(**tables), shock), nc.cascade(nc.ExposureNetwork(**renamed), shock)
    check(other)
    for column in ("health", "deficit", "loss", "repaid"):
        ours = one.accounts[column].rename(lambda k: names.get(k, k))
        ours.index = [k if not k.startswith("others@") else f"others@{names[k[7:]]}" for k in ours.index]
        theirs = other.accounts[column]
        assert ours.to_dict() == pytest.approx(theirs.to_dict(), rel=1e-9, abs=1e-8)


def test_event_log_is_determined_by_the_seed():
    """I13."""
    logs = [play(11, priority="random", seed=4).events for _ in range(3)]
    assert logs[0].equals(logs[1])
    assert logs[0].equals(logs[2])


# scaling, I10 -------------------------------------------------------------------------------------------------------


def scaled(tables, *, money, units):
    """Multiply money per unit by ``money`` and units by ``units``; amounts of money by both."""
    factors = {
        "assets": {"price": money, "depth": units},
        "markets": {"price": money, "depth": units},
        "exchanges": {"equity": money * units},
        "balances": {"deposited": units, "borrowed": units},
        "wallets": {"units": units},
    }
    new = {name: dict(table) for name, table in tables.items()}
    for name, columns in factors.items():
        for column, factor in columns.items():
            if name in new:
                new[name][column] = [value * factor for value in new[name][column]]
    kept = new["exchanges"]["insurance_asset"]
    fund = new["exchanges"]["insurance_fund"]
    new["exchanges"]["insurance_fund"] = [
        x * units * (money if a is None else 1.0) for x, a in zip(fund, kept, strict=True)
    ]
    return new


@pytest.mark.parametrize("seed", some_and_slow(3, 10))
@pytest.mark.parametrize(("money", "units"), [(1024.0, 1.0), (1.0, 1024.0), (3.7, 0.013)])
def test_currency_and_size_scale(seed, money, units):
    tables = random_tables(seed)
    books = tables["exchanges"]["rulebook"]
    tables["exchanges"]["rulebook"] = [FREE_OF_THRESHOLDS.get(book, book) for book in books]
    one = nc.cascade(nc.ExposureNetwork(**tables), random_shock(seed))
    other = nc.cascade(nc.ExposureNetwork(**scaled(tables, money=money, units=units)), random_shock(seed))
    check(other)
    np.testing.assert_allclose(other.markets["mark"], one.markets["mark"] * money, rtol=1e-9)
    np.testing.assert_allclose(other.accounts["health"], one.accounts["health"], rtol=1e-8, atol=1e-8)
    size = money * units
    np.testing.assert_allclose(other.losses, one.losses * size, rtol=1e-8, atol=1e-8 * size * 5000)
    assert other.accounts["liquidated"].equals(one.accounts["liquidated"])


# adversarial markets ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", some_and_slow(5, 15))
@pytest.mark.parametrize("depth", [1e-2, 1e-6, 1e-12])
def test_tiny_depth(seed, depth):
    net = nc.ExposureNetwork(**random_tables(seed))
    run = nc.cascade(net, random_shock(seed) + nc.Shock.depth(depth), strict=False, max_rounds=300)
    check(run)
    assert run.status in (nc.Status.SETTLED, nc.Status.EXHAUSTED, nc.Status.MAX_ROUNDS)


@pytest.mark.parametrize("seed", range(10))
def test_all_accounts_of_one_trader(seed):
    tables = random_tables(seed)
    tables["accounts"]["trader"] = ["t0"] * len(tables["accounts"]["trader"])
    check(nc.cascade(nc.ExposureNetwork(**tables), random_shock(seed)))


@pytest.mark.parametrize("rulebook", ["lending", "closeout", "aave_v3_0"])
@pytest.mark.parametrize("seed", range(4))
def test_rings_of_collateral_and_debt(rulebook, seed):
    """X owes a1 against a3, Y a2 against a1, Z a3 against a2: every liquidation lifts what it buys back."""
    rng, names = np.random.default_rng(seed), ["a1", "a2", "a3"]
    rows = [
        (f"{k}{n}", names[(i + side) % 3], *(((1.2, 0.0), (0.0, 1.0))[side]))
        for n in range(4)
        for i, k in enumerate("XYZ")
        for side in (0, 1)
    ]
    net = nc.ExposureNetwork(
        exchanges={"exchange": ["V"], "rulebook": [rulebook]},
        assets={"asset": names, "price": [1.0] * 3, "depth": rng.uniform(3, 30, 3)},
        markets={"exchange": ["V"] * 3, "asset": names, "liquidation_threshold": [0.84] * 3,
                 "liquidation_bonus": [0.05] * 3, "close_factor": [0.5] * 3},
        balances={"account": [r[0] for r in rows], "asset": [r[1] for r in rows],
                  "deposited": [r[2] * rng.uniform(1, 1.1) for r in rows], "borrowed": [r[3] for r in rows]},
    )  # fmt: skip
    check(nc.cascade(net, nc.Shock.price({"a1": -0.15})))


@pytest.mark.parametrize("rulebook", ["lending", "closeout", "aave_v3"])
def test_dust_and_ties(rulebook):
    """Equal accounts exactly at, just above and just below health 1, of sizes from 1e-9 to 1e12."""
    sizes = np.logspace(-9, 12, 22).tolist()
    accounts = [(f"k{i}.{j}", x, x * 0.8 * part) for i, x in enumerate(sizes) for j, part in
                enumerate((1.0, 1.0, 1 + 1e-9, 1 - 1e-9, 1.1))]  # fmt: skip
    net = nc.ExposureNetwork(
        exchanges={"exchange": ["V"], "rulebook": [rulebook]},
        assets={"asset": ["ETH", "USD"], "price": [1.0, 1.0], "depth": [1e13, math.nan]},
        markets={"exchange": ["V"] * 2, "asset": ["ETH", "USD"], "liquidation_threshold": [0.8] * 2,
                 "liquidation_bonus": [0.05] * 2, "close_factor": [0.5] * 2},
        balances={"account": [a[0] for a in accounts] * 2, "asset": ["ETH"] * len(accounts) + ["USD"] * len(accounts),
                  "deposited": [a[1] for a in accounts] + [0.0] * len(accounts),
                  "borrowed": [0.0] * len(accounts) + [a[2] for a in accounts]},
    )  # fmt: skip
    calm = nc.cascade(net, nc.Shock(), channels=[])
    assert set(calm.accounts.index[calm.accounts["called"]]) == {a[0] for a in accounts if a[0][-1] in "24"}
    check(nc.cascade(net, nc.Shock()))
    check(nc.cascade(net, nc.Shock.price({"ETH": -0.3})))


@pytest.mark.parametrize("seed", range(8))
def test_under_water_from_the_start(seed):
    net = nc.generators.market(100, exchanges=3, seed=seed, under_water=0.3, depth=0.3)
    run = nc.cascade(net, nc.Shock())
    check(run)
    assert run.accounts["called"].any()
    check(nc.cascade(net, nc.Shock.price({"ETH": -0.9}, family=True)))


@pytest.mark.parametrize("seed", range(8))
def test_all_in_one_asset(seed):
    """Everybody deposits and owes the same asset."""
    tables = random_tables(seed)
    table = tables["balances"]
    merged = {}
    for k, deposited, borrowed in zip(table["account"], table["deposited"], table["borrowed"], strict=True):
        sums = merged.setdefault(k, [0.0, 0.0])
        sums[0] += deposited
        sums[1] += borrowed
    tables["balances"] = {
        "account": list(merged),
        "asset": ["ETH"] * len(merged),
        "deposited": [v[0] for v in merged.values()],
        "borrowed": [v[1] for v in merged.values()],
    }
    check(nc.cascade(nc.ExposureNetwork(**tables), random_shock(seed)))
