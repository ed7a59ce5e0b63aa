"""How much must be closed: golden numbers, identities, and a search that knows no formula."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import netcontagion as nc
from netcontagion.margining import (
    closeout_deficit,
    collateral_liquidation_price,
    health_after_repayment,
    jump_to_bad_debt,
    lltv_bonus,
    minimal_sale,
    repay_to_target,
    toxic_health,
)
from netcontagion.network import rulebook

MONEY = st.floats(1e-3, 1e9)
THRESHOLD = st.floats(0.05, 0.95)
BONUS = st.floats(0.0, 0.3)


def sound(threshold, bonus):
    return threshold * (1 + bonus) < 0.99


# golden numbers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lltv", "incentive", "toxic"),
    [
        (0.385, 1.15, 0.4427),
        (0.625, 1.12676, 0.7042),
        (0.77, 1.07411, 0.8271),
        (0.86, 1.04384, 0.8977),
        (0.915, 1.02617, 0.9389),
        (0.945, 1.01678, 0.9609),
        (0.98, 1.00604, 0.9859),
    ],
)
def test_g3_incentive_of_morpho(lltv, incentive, toxic):
    price = rulebook("morpho").price_rule
    bonus = lltv_bonus(lltv, cursor=price.cursor, cap=price.bonus_cap)
    assert bonus == lltv_bonus(lltv)
    assert 1 + bonus == pytest.approx(incentive, abs=5e-6)
    # the table prints .4427 for .385 x 1.15 = .44275
    assert toxic_health(lltv, bonus) == pytest.approx(toxic, abs=5.1e-5)


def test_g11_minimal_deleverage():
    assert minimal_sale(1000.0, 30.0, margin=0.05, cost=0.01) == pytest.approx(500.0, rel=1e-14)
    left = 30.0 - 0.01 * 500.0
    assert left == pytest.approx(0.05 * (1000.0 - 500.0))  # residual 0
    sale = minimal_sale(1000.0, 80.0, margin=1 / 10, cost=0.01)
    assert sale == pytest.approx((1000 - 10 * 80) / (1 - 10 * 0.01), rel=1e-14)
    assert (1000.0 - sale) / (80.0 - 0.01 * sale) == pytest.approx(10.0, rel=1e-13)


def test_g12_repayment_to_a_target():
    assert repay_to_target(1e5, 85e3, 0.83, 0.05, target=1.05) == pytest.approx(35_014.005602240875, rel=1e-13)


def test_g1_and_g2():
    debt = 83_000 / 0.97
    assert health_after_repayment(1e5, debt, 0.83, 0.05, repaid=debt / 2) == pytest.approx(1.0685, rel=1e-12)
    assert closeout_deficit(1e5, 98e3, 0.05) == pytest.approx(2_761.9047619047633, rel=1e-12)


def test_published_change_of_health():
    """Case lending_hf_change: HF' - HF = r (HF - LT (1 + b)) / (D - r); solanaqubits/leanbook release v0.5.62."""
    before = 0.8 * 100 / 82
    after = health_after_repayment(100.0, 82.0, 0.8, 0.05, repaid=41.0)
    assert after == pytest.approx(1.111219512195122, abs=1e-12)
    assert after - before == pytest.approx(41 * (before - toxic_health(0.8, 0.05)) / (82 - 41), abs=1e-12)


# identities ---------------------------------------------------------------------------------------------------------


@given(debt=MONEY, health=st.floats(0.2, 3.0), threshold=THRESHOLD, bonus=BONUS, part=st.floats(0.01, 0.99))
def test_a_liquidation_helps_exactly_above_the_toxic_health(debt, health, threshold, bonus, part):
    """HF' - HF = r (HF - LT (1 + b)) / (D - r), so HF' > HF iff HF > LT (1 + b)."""
    collateral = health * debt / threshold
    repaid = part * min(debt, collateral / (1 + bonus))
    after = health_after_repayment(collateral, debt, threshold, bonus, repaid=repaid)
    gap = health - toxic_health(threshold, bonus)
    assert after - health == pytest.approx(repaid * gap / (debt - repaid), rel=1e-7, abs=1e-9)
    if abs(gap) > 1e-6:
        assert (after > health) == (gap > 0)


@given(debt=MONEY, health=st.floats(0.2, 2.0), threshold=THRESHOLD, bonus=BONUS, target=st.floats(1.0, 1.5))
def test_repayment_is_the_least_that_reaches_the_target(debt, health, threshold, bonus, target):
    """It reaches the target, less of it does not; where it is inf, no repayment does."""
    if not sound(threshold, bonus):
        return
    collateral = health * debt / threshold
    repaid = repay_to_target(collateral, debt, threshold, bonus, target=target)
    if health >= target * (1 + 1e-12):
        assert repaid == 0.0
    elif math.isinf(repaid):
        assert collateral < debt * (1 + bonus)
        most = min(debt, collateral / (1 + bonus))
        tries = np.linspace(0.0, most, 50) * (1 - 1e-12)
        assert (health_after_repayment(collateral, debt, threshold, bonus, repaid=tries) < target).all()
    else:
        # to reach a health within 1e-9, stay clear of the end where both debt and collateral vanish
        if debt - repaid > 1e-6 * debt:
            after = health_after_repayment(
                collateral, debt, threshold, bonus, repaid=min(repaid, collateral / (1 + bonus))
            )
            assert after == pytest.approx(target, rel=1e-6) or repaid == 0.0
        if repaid > 1e-6 * debt:
            assert health_after_repayment(collateral, debt, threshold, bonus, repaid=0.999 * repaid) < target


@given(debt=MONEY, health=st.floats(0.3, 2.0), threshold=THRESHOLD, bonus=BONUS)
def test_the_jump_to_bad_debt_is_where_a_close_out_begins_to_leave_some(debt, health, threshold, bonus):
    collateral = health * debt / threshold
    fall = jump_to_bad_debt(threshold, bonus, health=health)
    if not -5 < fall < 0.999:
        return
    just = collateral * (1 - fall)
    assert closeout_deficit(just * (1 + 1e-9), debt, bonus) == pytest.approx(0.0, abs=1e-8 * debt)
    assert closeout_deficit(just * 0.99, debt, bonus) > 0.0
    if health == 1.0:
        assert fall == 1 - toxic_health(threshold, bonus)


@given(units=MONEY, debt=MONEY, threshold=THRESHOLD)
def test_health_is_one_at_the_liquidation_price(units, debt, threshold):
    price = collateral_liquidation_price(units, debt, threshold)
    assert threshold * units * price / debt == pytest.approx(1.0, rel=1e-12)


@given(
    assets=MONEY,
    leverage=st.floats(0.5, 100.0),
    margin=st.floats(0.01, 1.0),
    cost=st.floats(0.0, 0.3),
    target=st.floats(1.0, 2.0),
)
@settings(max_examples=200)
def test_a_search_over_sales_finds_the_same(assets, leverage, margin, cost, target):
    """The least x with E - phi x >= theta m (A - x), by a fine grid of shares; none where inf."""
    equity = assets / leverage
    sale = minimal_sale(assets, equity, margin=margin, cost=cost, target=target)
    share = np.linspace(0.0, 1.0, 2001)
    slack = (equity - cost * share * assets) - target * margin * (1 - share) * assets
    met = np.flatnonzero(slack >= -1e-9 * assets)
    if math.isinf(sale):
        assert not len(met) or abs(equity - cost * assets) < 1e-8 * assets
    else:
        assert len(met)
        step = assets / 2000
        steep = abs(target * margin - cost) > 1e-3
        if steep and sale > 0:
            assert share[met[0]] * assets == pytest.approx(sale, abs=step * 1.01 + 1e-5 * assets)


@given(factor=st.floats(1e-3, 1e3))
def test_currency_does_not_matter(factor):
    one = repay_to_target(1e5, 85e3, 0.83, 0.05, target=1.05)
    assert repay_to_target(1e5 * factor, 85e3 * factor, 0.83, 0.05, target=1.05) == pytest.approx(one * factor)
    assert minimal_sale(1e3 * factor, 30 * factor, margin=0.05, cost=0.01) == pytest.approx(500 * factor)


# edges and arrays ---------------------------------------------------------------------------------------------------


def test_edges():
    assert minimal_sale(1000.0, 50.0, margin=0.05) == 0.0
    assert minimal_sale(1000.0, 0.0, margin=0.05) == 1000.0  # all of it, without cost
    assert minimal_sale(1000.0, 10.0, margin=0.05, cost=0.01) == pytest.approx(1000.0)
    assert minimal_sale(1000.0, 9.0, margin=0.05, cost=0.01) == math.inf
    assert minimal_sale(1000.0, -1.0, margin=0.05) == math.inf
    assert minimal_sale(1000.0, 30.0, margin=0.05, cost=0.05) == math.inf  # selling costs what it frees
    assert minimal_sale(0.0, 0.0, margin=0.05) == 0.0
    assert repay_to_target(105.0, 100.0, 0.8, 0.05) == pytest.approx(100.0)
    assert repay_to_target(104.9, 100.0, 0.8, 0.05) == math.inf
    assert repay_to_target(1.0, 0.0, 0.8, 0.05) == 0.0
    assert health_after_repayment(200.0, 100.0, 0.8, 0.05, repaid=100.0) == math.inf
    assert health_after_repayment(105.0, 200.0, 0.8, 0.05, repaid=100.0) == 0.0
    assert collateral_liquidation_price(0.0, 0.0, 0.8) == 0.0
    assert collateral_liquidation_price(0.0, 1.0, 0.8) == math.inf
    assert collateral_liquidation_price(1.0, 1.0, 0.0) == math.inf


def test_arrays_go_through_as_they_are():
    debts = np.array([[85e3, 100e3], [50e3, 0.0]])
    found = repay_to_target(1e5, debts, 0.83, 0.05, target=1.05)
    assert found.shape == (2, 2)
    for place in np.ndindex(2, 2):
        assert found[place] == repay_to_target(1e5, debts[place], 0.83, 0.05, target=1.05)
    assert isinstance(repay_to_target(1e5, 85e3, 0.83, 0.05), float)
    assert isinstance(minimal_sale(1.0, 1.0, margin=0.1), float)
    assert minimal_sale([1000.0, 10.0], 30.0, margin=0.05, cost=0.01) == pytest.approx([500.0, 0.0])


def test_everything_out_of_range_is_in_one_error():
    with pytest.raises(nc.SchemaError) as caught:
        repay_to_target([1e5, -1.0, np.nan], [1.0, 2.0, 3.0], 1.0, "b", target=0.5)
    cells = {(problem.column, problem.row) for problem in caught.value.problems}
    assert cells == {("collateral", 1), ("collateral", 2), ("threshold", None), ("bonus", None), ("target", None)}
    with pytest.raises(nc.SchemaError, match="threshold x"):
        repay_to_target(1.0, 1.0, 0.96, 0.05)
    with pytest.raises(nc.SchemaError, match="at most min"):
        health_after_repayment(100.0, 200.0, 0.8, 0.05, repaid=[1.0, 96.0])
    with pytest.raises(nc.SchemaError, match="shapes that go together"):
        minimal_sale([1.0, 2.0], [1.0, 2.0, 3.0], margin=0.1)
    for wrong in ({"margin": 0.0}, {"margin": 0.1, "cost": 1.0}, {"margin": 0.1, "target": 0.9}):
        with pytest.raises(nc.SchemaError):
            minimal_sale(1.0, 1.0, **wrong)
