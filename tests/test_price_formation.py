"""Arbitrage between exchanges, market makers and manipulation: closed forms against searches, laws and limits."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st

from netcontagion import SchemaError, UnknownLabelError
from netcontagion.margining import (
    arbitrage,
    attack_profit,
    cash_from_sale,
    maker_depth,
    maker_spread,
    manipulation_cost,
    price_after_sale,
    update_volatility,
)

REFERENCES = json.loads((Path(__file__).parent / "references" / "price_formation.json").read_text(encoding="utf-8"))
SHARED = Path(__file__).resolve().parents[2] / "shared" / "reference" / "cases"
FORMS = ("exponential", "linear", "square_root", "constant_product")


@pytest.mark.skipif(not SHARED.is_dir(), reason="the folder shared/reference is not beside the checkout")
@pytest.mark.parametrize("case", REFERENCES["cases"], ids=lambda case: case["name"])
def test_the_fixture_is_the_shared_case(case):
    assert case == json.loads((SHARED / f"{case['name']}.json").read_text(encoding="utf-8"))


# arbitrage ------------------------------------------------------------------------------------------------------------


def balanced(price, depth, limit, cost):
    """Find the trades by halving the common log price."""
    logs = np.log(price)

    def trades(mu):
        out = []
        for log, deep, most, fee in zip(logs, depth, limit, cost, strict=True):
            want = deep * (log - fee - mu) if log - fee > mu else min(deep * (log + fee - mu), 0.0)
            out.append(min(max(want, -most), most))
        return np.array(out)

    low, high = (logs - cost).min(), (logs + cost).max()
    for _ in range(200):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if trades(middle).sum() > 0 else (low, middle)
    return trades(0.5 * (low + high))


@st.composite
def markets(draw):
    size = draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    capacity = rng.lognormal(1, 1.5, size) if draw(st.booleans()) else np.full(size, np.inf)
    cost = rng.choice([0.0, 0.01, 0.05], size) if draw(st.booleans()) else np.zeros(size)
    closed = rng.random(size) < 0.2
    return 100 * rng.lognormal(0, 0.15, size), rng.lognormal(3, 1, size), capacity, cost, closed


@settings(max_examples=80, deadline=None)
@given(markets())
def test_the_closed_form_is_what_halving_finds(market):
    price, depth, capacity, cost, closed = market
    found = arbitrage(price, depth, capacity=capacity, cost=cost, closed=closed)
    twin = balanced(price, depth, np.where(closed, 0.0, capacity), cost)
    np.testing.assert_allclose(found.trades, twin, atol=1e-7 * depth.max())


@pytest.mark.parametrize("form", FORMS)
def test_nobody_trades_alone(form):
    found = arbitrage([100.62366699, 96.10789009], [5.58721577, 22.91128868], closed=[True, False], form=form)
    assert found.trades.tolist() == [0.0, 0.0]


@settings(max_examples=80, deadline=None)
@given(markets(), st.sampled_from(FORMS))
def test_arbitrage_conserves_pays_and_narrows(market, form):
    price, depth, capacity, cost, closed = market
    found = arbitrage(price, depth, capacity=capacity, cost=cost, closed=closed, form=form)
    limit = np.where(closed, 0.0, capacity)
    assert abs(found.trades.sum()) <= 1e-9 * np.abs(found.trades).sum()
    assert (np.abs(found.trades) <= limit * (1 + 1e-12)).all()
    assert found.profit >= -1e-9 * np.abs(found.cash).sum()
    np.testing.assert_allclose(found.cash, cash_from_sale(found.trades, price=price, depth=depth, form=form))
    np.testing.assert_allclose(found.prices, price_after_sale(found.trades, price=price, depth=depth, form=form))
    logs = np.log(found.prices)
    free = np.abs(found.trades) < limit * (1 - 1e-9)
    for v in np.flatnonzero(free):  # nobody could gain by one more unit
        for w in np.flatnonzero(free):
            assert logs[v] - logs[w] <= cost[v] + cost[w] + 1e-6
    np.testing.assert_array_less(np.ptp(logs), np.ptp(np.log(price)) + 1e-9)


@settings(max_examples=25, deadline=None)
@given(markets())
def test_the_closed_form_is_the_least_square(market):
    price, depth, capacity, _, closed = market
    limit = np.minimum(np.where(closed, 0.0, capacity), 1e3)
    logs = np.log(price)
    mean = (depth * logs).sum() / depth.sum()

    def distance(trades):
        return (depth * (logs - trades / depth - mean) ** 2).sum()

    ours = arbitrage(price, depth, capacity=limit, closed=closed).trades
    best = scipy.optimize.minimize(
        distance,
        np.zeros(len(price)),
        bounds=list(zip(-limit, limit, strict=True)),
        constraints={"type": "eq", "fun": np.sum},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert distance(ours) <= best.fun + 1e-7 * distance(np.zeros(len(price))) + 1e-12


def test_full_integration_is_one_market_and_no_capital_is_none():
    price, depth = np.array([0.65, 0.92, 0.99]), np.array([50.0, 200.0, 750.0])
    whole = arbitrage(price, depth)
    common = math.exp((depth * np.log(price)).sum() / depth.sum())
    np.testing.assert_allclose(whole.prices, common, rtol=1e-12)
    assert whole.profit > 0
    for nothing in (arbitrage(price, depth, capacity=0.0), arbitrage(price, depth, closed=True)):
        assert nothing.trades.tolist() == [0, 0, 0]
        assert nothing.prices.tolist() == pytest.approx(price.tolist(), rel=1e-15)
        assert nothing.profit == 0.0
    one_depth = price_after_sale(30.0, price=common, depth=depth.sum())
    after = arbitrage(price, depth, sold=[30.0, 0.0, 0.0])
    np.testing.assert_allclose(after.prices, one_depth, rtol=1e-12)  # a sale anywhere is a sale everywhere


def test_a_closed_exchange_keeps_its_price():
    found = arbitrage([0.65, 0.92, 0.99], 100.0, closed=[True, False, False])
    assert found.prices[0] == 0.65
    assert found.prices[1] == pytest.approx(math.sqrt(0.92 * 0.99))
    assert found.trades[0] == 0.0


def test_costs_leave_a_band():
    near = arbitrage([100.0, 101.0], 50.0, cost=[0.004, 0.006])
    assert near.trades.tolist() == [0, 0]
    wide = arbitrage([100.0, 110.0], 50.0, cost=[0.004, 0.006])
    assert math.log(wide.prices[1] / wide.prices[0]) == pytest.approx(0.01)
    assert wide.trades.sum() == pytest.approx(0.0, abs=1e-12)


def test_an_exchange_without_a_bid_is_bought_up():
    found = arbitrage([1.0, 1.0], 100.0, sold=[150.0, 0.0], form="linear")
    assert found.prices == pytest.approx([0.25, 0.25], rel=1e-9)
    assert found.trades == pytest.approx([-75.0, 75.0], rel=1e-9)


def test_relabelling_exchanges_changes_nothing():
    price, depth, capacity = np.array([1.0, 1.2, 0.9, 1.1]), np.array([5.0, 7.0, 11.0, 3.0]), np.array([0.2, 9, 9, 0.1])
    order = [2, 0, 3, 1]
    plain = arbitrage(price, depth, capacity=capacity).trades
    moved = arbitrage(price[order], depth[order], capacity=capacity[order]).trades
    np.testing.assert_allclose(moved, plain[order], atol=1e-12)


def test_no_exchange_no_arbitrage():
    assert arbitrage([], []).trades.shape == (0,)
    assert arbitrage([2.0], [5.0]).trades.tolist() == [0.0]


def test_arbitrage_refuses():
    with pytest.raises(SchemaError) as caught:
        arbitrage([1.0, -1.0], [np.inf, 1.0], capacity=-1.0, cost=np.nan)
    assert {problem.column for problem in caught.value.problems} == {"price", "depth", "capacity", "cost"}
    with pytest.raises(UnknownLabelError):
        arbitrage([1.0], [1.0], form="ladder")


# market makers --------------------------------------------------------------------------------------------------------


def test_volatility_forgets_at_its_rate():
    sigma = 0.02
    for _ in range(200):
        sigma = update_volatility(sigma, 0.05, memory=0.9)
    assert sigma == pytest.approx(0.05, rel=1e-6)
    assert update_volatility(0.02, -0.1, memory=0.0) == pytest.approx(0.1)
    assert update_volatility(0.02, 0.1, memory=1.0) == pytest.approx(0.02)
    half = update_volatility(1.0, 0.0, memory=0.5 ** (1 / 10))
    assert half**2 == pytest.approx(0.5**0.1)


def test_spread_and_depth_answer_to_volatility_and_inventory():
    calm = {"volatility": 0.04, "normal": 0.04}
    assert maker_spread(0.0005, **calm, power=3.0) == pytest.approx(0.0005)
    assert maker_depth(900.0, **calm, power=3.0) == pytest.approx(900.0)
    assert maker_spread(0.0005, 0.4, normal=0.04, power=1.5) == pytest.approx(0.0005 * 10**1.5)
    assert maker_depth(900.0, 0.4, normal=0.04, power=1.5) == pytest.approx(900 / 10**1.5)
    assert maker_spread(0.001, **calm, inventory=-0.5, inventory_weight=2.0) == pytest.approx(0.002)
    assert maker_depth(100.0, **calm, inventory=[-1.0, 0.25, 1.0]).tolist() == pytest.approx([0.0, 75.0, 0.0])
    assert maker_depth(100.0, [0.1, 0.2, 0.3], normal=0.1, power=0.0, halt=0.2).tolist() == [100.0, 0.0, 0.0]
    assert maker_spread(0.001, 0.0, normal=0.1, power=0.0) == 0.001


def test_makers_refuse():
    with pytest.raises(SchemaError) as caught:
        maker_depth(-1.0, 0.0, normal=0.1, power=-1.0, inventory=2.0)
    assert len(caught.value.problems) == 4
    with pytest.raises(SchemaError):
        maker_spread(0.1, -0.1, normal=0.0)
    with pytest.raises(SchemaError):
        update_volatility(0.1, 0.1, memory=1.1)


# manipulation ---------------------------------------------------------------------------------------------------------


def test_the_golden_manipulation():
    golden = REFERENCES["golden"]["manipulation"]
    found = manipulation_cost(golden["ratio"], price=1.0, depth=golden["pool"])
    assert found.paid == pytest.approx(golden["paid"], rel=1e-12)
    assert found.units == pytest.approx(golden["units"], rel=1e-12)
    assert found.cost == pytest.approx(golden["cost"], rel=1e-10)


@pytest.mark.parametrize("ratio", [0.3, 0.9, 1.0, 1.1, 2.0, 7.0])
def test_the_cost_has_a_closed_form(ratio):
    k, p, d = ratio, 3.0, 500.0
    closed = {
        "constant_product": p * d * (math.sqrt(k) + 1 / math.sqrt(k) - 2),
        "exponential": p * d * (k - 1 - math.log(k)),
        "linear": p * d * (k - 1) ** 2 / 2,
        "square_root": p * d * abs(k - 1) ** 3 * 2 / 3,
    }
    for form, cost in closed.items():
        found = manipulation_cost(k, price=p, depth=d, form=form)
        assert found.cost == pytest.approx(cost, rel=1e-9, abs=1e-9)
        assert price_after_sale(-found.units, price=p, depth=d, form=form) == pytest.approx(k * p, rel=1e-9)
        assert found.paid == pytest.approx(-cash_from_sale(-found.units, price=p, depth=d, form=form), abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.floats(0.05, 20), st.floats(0, 0.3), st.sampled_from(FORMS))
def test_moving_a_price_never_pays_by_itself(ratio, fee, form):
    cost = manipulation_cost(ratio, price=2.0, depth=100.0, form=form, fee=fee).cost
    free = manipulation_cost(ratio, price=2.0, depth=100.0, form=form).cost
    assert cost >= free - 1e-9 >= -2e-9


def test_a_fee_is_paid_on_what_goes_in():
    free = manipulation_cost([2.0, 0.5], price=1.0, depth=100.0)
    paid = manipulation_cost([2.0, 0.5], price=1.0, depth=100.0, fee=0.01)
    assert paid.paid[0] == pytest.approx(free.paid[0] / 0.99)
    assert paid.units[0] == pytest.approx(free.units[0])
    assert paid.units[1] == pytest.approx(free.units[1] / 0.99)
    assert paid.paid[1] == pytest.approx(free.paid[1])


def test_an_attack_pays_where_collateral_is_large_for_the_pool():
    attack = {"price": 1.0, "depth": 1e6, "loan_to_value": 0.8}
    assert attack_profit(2.0, collateral=1e6, **attack) == pytest.approx(0.8 * 2e6 - 1e6 - 121_320.34355964261)
    assert attack_profit(2.0, collateral=1e5, **attack) < 0
    assert attack_profit(1.0, collateral=1e6, **attack) == pytest.approx(-2e5)  # the loan is less than the collateral
    assert attack_profit(2.0, collateral=1e6, available=0.5e6, **attack) == pytest.approx(-0.5e6 - 121_320.34355964261)
    profits = attack_profit(np.linspace(1.3, 9, 30), collateral=1e6, **attack)
    assert (np.diff(profits) > 0).all()


def test_manipulation_refuses():
    with pytest.raises(SchemaError) as caught:
        manipulation_cost(0.0, price=-1.0, depth=np.inf, fee=1.0)
    assert {problem.column for problem in caught.value.problems} == {"ratio", "price", "depth", "fee"}
    with pytest.raises(UnknownLabelError):
        manipulation_cost(2.0, price=1.0, depth=1.0, form="ladder 0.9:1")
    with pytest.raises(SchemaError):
        manipulation_cost(1e13, price=1.0, depth=1.0)
    with pytest.raises(SchemaError):
        attack_profit(0.5, price=1.0, depth=1.0, collateral=1.0, loan_to_value=2.0)
