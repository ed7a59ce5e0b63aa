"""Whole-account close-out with numeraire debts: the liquidated set is the least fixed point, whatever the order."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from seeds import slow

import netcontagion as nc

ON = ("liquidation", "impact")
TOLERANCE = 1e-9  # draws whose health comes this close to 1 are drawn again: their answer is rounding


def random_book(rng):
    """Accounts with collateral in one to three assets and debt in money, close to their limit."""
    size, assets = int(rng.integers(3, 10)), int(rng.integers(1, 4))
    price = rng.uniform(1, 100, assets)
    threshold = rng.uniform(0.6, 0.9, assets)
    held = rng.exponential(10, (size, assets)) * (rng.random((size, assets)) < 0.7)
    held[np.arange(size), rng.integers(0, assets, size)] += rng.exponential(5, size)
    debt = (held * price * threshold).sum(axis=1) / rng.uniform(1.0, 1.4, size)
    depth = held.sum(axis=0) * rng.uniform(0.5, 20) + 1e-3
    return held, debt, price, threshold, depth


def build(held, debt, price, threshold, depth, order):
    names = [f"a{j}" for j in range(len(price))]
    rows = [
        {"account": f"k{k}", "asset": names[j], "deposited": held[k, j], "borrowed": 0.0}
        for k, j in itertools.product(range(len(debt)), range(len(names)))
        if held[k, j] > 0
    ]
    rows += [{"account": f"k{k}", "asset": "USD", "deposited": 0.0, "borrowed": debt[k]} for k in range(len(debt))]
    rows = [rows[i] for i in order.permutation(len(rows))]
    return nc.ExposureNetwork(
        exchanges={"exchange": ["X"], "rulebook": ["closeout"]},
        assets={"asset": [*names, "USD"], "price": [*price, 1.0], "depth": [*depth, math.inf]},
        markets={"exchange": ["X"] * (len(names) + 1), "asset": [*names, "USD"],
                 "liquidation_threshold": [*threshold, 0.0]},
        balances={name: [row[name] for row in rows] for name in rows[0]},
    )  # fmt: skip


def least_fixed_point(held, debt, price, threshold, depth):
    """Smallest S with S = {k: health_k at the prices after all collateral of S is sold} < 1}, by trying all subsets."""
    size = len(debt)
    members = (np.arange(2**size)[:, None] >> np.arange(size)) & 1
    prices = price * np.exp(-(members @ held) / depth)
    health = (prices * threshold) @ held.T / debt
    if np.abs(health - 1).min() < TOLERANCE:
        return None
    fixed = [set(np.flatnonzero(row).tolist()) for row in members[((health < 1) == members).all(axis=1)]]
    least = min(fixed, key=len)
    assert all(least <= other for other in fixed)
    return least, price * np.exp(-held[sorted(least)].sum(axis=0) / depth)


def markets(count, seed):
    rng = np.random.default_rng(seed)
    found = 0
    while found < count:
        held, debt, price, threshold, depth = random_book(rng)
        fall = rng.uniform(0.0, 0.3, len(price))
        answer = least_fixed_point(held, debt, price * (1 - fall), threshold, depth)
        if answer is not None:
            found += 1
            yield (held, debt, price, threshold, depth), fall, answer, rng


@pytest.mark.parametrize("number", [50, *slow(80, 200)])
def test_liquidated_set_is_the_least_fixed_point(number):
    sizes = []
    for (held, debt, price, threshold, depth), fall, (least, prices), rng in markets(number, 7):
        shock = nc.Shock.price({f"a{j}": -fall[j] for j in range(len(fall))})
        for priority in ("worst_first", "best_first", "random"):
            net = build(held, debt, price, threshold, depth, rng)
            run = nc.cascade(net, shock, channels=ON, priority=priority, seed=1)
            run.check()
            accounts = run.accounts
            assert {int(k[1:]) for k in accounts.index[accounts["liquidated"]]} == least
            np.testing.assert_allclose(run.assets["price"].drop("USD"), prices, rtol=1e-12)
        sizes.append((len(least), len(debt), len(run.rounds)))
    some = [size for size in sizes if 0 < size[0] < size[1]]
    assert len(some) > number / 5
    assert sum(size[2] > 2 for size in sizes) > number / 10  # cascades, not only first falls


def test_larger_shock_lowers_prices_and_widens_the_liquidated_set():
    """I7, price triggers and full close-out."""
    for (held, debt, price, threshold, depth), fall, _, rng in markets(40, 11):
        net = build(held, debt, price, threshold, depth, rng)
        gone, prices = set(), np.full(len(price), np.inf)
        for factor in (0.0, 0.5, 1.0, 1.5, 2.5):
            run = nc.cascade(net, nc.Shock.price({f"a{j}": -factor * fall[j] for j in range(len(fall))}), channels=ON)
            run.check()
            now = run.accounts
            assert gone <= set(now.index[now["liquidated"]])
            assert (run.assets["price"].drop("USD").to_numpy() <= prices * (1 + 1e-12)).all()
            gone, prices = set(now.index[now["liquidated"]]), run.assets["price"].drop("USD").to_numpy()


def test_thinner_depth_lowers_prices_and_widens_the_liquidated_set():
    for (held, debt, price, threshold, depth), fall, _, rng in markets(20, 13):
        net = build(held, debt, price, threshold, depth, rng)
        shock = nc.Shock.price({f"a{j}": -fall[j] for j in range(len(fall))})
        gone, prices = set(), np.full(len(price), np.inf)
        for factor in (100.0, 2.0, 1.0, 0.5):
            run = nc.cascade(net, shock + nc.Shock.depth(factor), channels=ON)
            run.check()
            now = run.accounts
            assert gone <= set(now.index[now["liquidated"]])
            assert (run.assets["price"].drop("USD").to_numpy() <= prices * (1 + 1e-12)).all()
            gone, prices = set(now.index[now["liquidated"]]), run.assets["price"].drop("USD").to_numpy()


def bad_debt(collateral, debts, fall, depth, priority="worst_first"):
    held = np.array(collateral, dtype=float)[:, None]
    net = build(held, np.array(debts, dtype=float), np.array([1.0]), np.array([0.8]), np.array([depth]),
                np.random.default_rng(0))  # fmt: skip
    run = nc.cascade(net, nc.Shock.price({"a0": -fall}), channels=ON, priority=priority)
    run.check()
    accounts = run.accounts
    return float(accounts["deficit"].sum()), sorted(accounts.index[accounts["liquidated"]])


def test_larger_shock_can_lower_bad_debt_under_sequential_fills():
    """I7 does not claim bad debt: the larger shock calls both at once, and the better one sells at better prices."""
    less, small = bad_debt([14, 8], [9.2, 5.3], 0.1736, 29, "best_first")
    more, large = bad_debt([14, 8], [9.2, 5.3], 0.1836, 29, "best_first")
    assert small == large == ["k0", "k1"]
    assert (less, more) == (pytest.approx(2.2355, abs=1e-3), pytest.approx(1.9125, abs=2e-3))


def test_more_margin_on_one_account_can_raise_bad_debt_under_sequential_fills():
    """The account with more margin is called later and sells last, into the price the other one left."""
    thin, first = bad_debt([12, 3], [8.8, 2.3], 0.1, 50)
    thick, second = bad_debt([12, 3], [8.8, 2.185], 0.1, 50)
    assert first == second == ["k0", "k1"]
    assert (thin, thick) == (0.0, pytest.approx(0.123566, abs=1e-6))
