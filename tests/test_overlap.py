"""Overlapping portfolios: one round of deleveraging, rounds of it, default liquidation, overlaps and spirals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from netcontagion._status import Status
from netcontagion.clearing import (
    branching_matrix,
    cont_schaanning,
    default_liquidation,
    greenwood_landier_thesmar,
    indirect_exposure,
    largest_eigenvalue,
    loss_spiral,
)
from netcontagion.errors import NotSettledError, SchemaError

HERE = Path(__file__).resolve()
REFERENCES = json.loads((HERE.parent / "references" / "fire_sale.json").read_text(encoding="utf-8"))
CASES = {case["name"]: case for case in REFERENCES["cases"]}
SHARED = HERE.parents[2] / "shared" / "reference" / "cases"
common = settings(max_examples=25, deadline=None, derandomize=True)


def answers(case):
    """Translate the inputs of a case into calls, and the results into the names of its expected numbers."""
    inputs = case["inputs"]
    if case["model"] == "greenwood_landier_thesmar":
        holdings = np.array(inputs["assets"])[:, None] * inputs["weights"]
        found = greenwood_landier_thesmar(holdings, inputs["equity"], inputs["shock"], liquidity=inputs["liquidity"])
        return {
            "sales": found.sales,
            "price_drop": found.price_fall,
            "aggregate_vulnerability": found.aggregate_vulnerability,
            "systemicness": found.systemicness,
        }
    if case["model"] == "firesale_default_liquidation":
        end = default_liquidation(
            inputs["holdings"], inputs["equity"], shock=inputs["shock"], alpha=inputs["alpha"]
        )  # fmt: skip
        order = [np.flatnonzero(end.wave == wave).tolist() for wave in range(end.waves)]
        return {"default_order": order, "final_price": end.price}
    spiral = loss_spiral(
        inputs["position"], inputs["leverage"], impact=inputs["impact_per_dollar"], shock=inputs["shock"]
    )
    return {"loop_gain": spiral.loop_gain, "total_fall": spiral.total_fall}


def disagreements(case, factor=1.0):
    found, tolerance = answers(case), case["tolerance"]["abs"]
    return [
        name
        for name, value in case["expected"].items()
        if (found[name] != value if name == "default_order" else not np.allclose(
            found[name], factor * np.asarray(value, dtype=float), rtol=0, atol=tolerance))
    ]  # fmt: skip


MINE = ["firesale_exponential_2banks", "glt_two_banks_one_asset", "linear_margin_spiral"]


@pytest.mark.parametrize("name", MINE)
def test_case(name):
    assert disagreements(CASES[name]) == []
    assert disagreements(CASES[name], 0.98)
    assert disagreements(CASES[name], 1.02)


@pytest.mark.parametrize("name", MINE)
def test_case_as_shared(name):
    if not SHARED.is_dir():
        pytest.skip("the folder shared/reference is not beside the checkout")
    assert disagreements(json.loads((SHARED / f"{name}.json").read_text(encoding="utf-8"))) == []


@st.composite
def books(draw):
    banks, assets = draw(st.integers(1, 6)), draw(st.integers(1, 4))
    cells = draw(st.lists(st.integers(0, 30), min_size=banks * assets, max_size=banks * assets))
    holdings = np.array(cells, dtype=float).reshape(banks, assets)
    equity = np.array(draw(st.lists(st.integers(1, 12), min_size=banks, max_size=banks)), dtype=float)
    shock = np.array(draw(st.lists(st.integers(0, 8), min_size=assets, max_size=assets))) / 20
    return holdings, equity, shock


# ------------------------------------------------------------------------------------------- Greenwood-Landier-Thesmar


@given(books(), st.randoms(use_true_random=False), st.sampled_from([1e-12, 1e12]))
@common
def test_vulnerability_sums_node_by_node_and_knows_neither_names_nor_units(book, random, unit):
    holdings, equity, shock = book
    holdings = holdings + np.where(np.arange(holdings.shape[1]) == 0, 12.0, 0.0)
    banks, assets = holdings.shape
    impact = np.linspace(1e-4, 5e-4, assets)
    found = greenwood_landier_thesmar(holdings, equity, shock, liquidity=impact)
    total, fall = holdings.sum(axis=1), np.zeros(assets)
    for i in range(banks):
        sale = (total[i] - equity[i]) / equity[i] * sum(holdings[i, k] * shock[k] for k in range(assets))
        assert found.sales[i] == pytest.approx(sale, rel=1e-12, abs=1e-12)
        for k in range(assets):
            fall[k] += impact[k] * holdings[i, k] / total[i] * sale
    assert found.price_fall == pytest.approx(fall, rel=1e-11, abs=1e-14)
    assert found.indirect_loss == pytest.approx([holdings[i] @ fall for i in range(banks)], rel=1e-11, abs=1e-12)
    assert found.systemicness.sum() == pytest.approx(found.aggregate_vulnerability, rel=1e-11, abs=1e-15)
    weight = equity / equity.sum()
    assert found.vulnerability @ weight == pytest.approx(found.aggregate_vulnerability, rel=1e-11, abs=1e-15)
    order = list(range(banks))
    random.shuffle(order)
    other = greenwood_landier_thesmar(unit * holdings[order], unit * equity[order], shock, liquidity=impact / unit)
    np.testing.assert_allclose(other.systemicness, found.systemicness[order], rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(other.price_fall, found.price_fall, rtol=1e-9, atol=1e-15)


def test_vulnerability_by_scenario_and_label():
    holdings = pd.DataFrame([[60.0, 40.0], [0.0, 50.0]], ["ann", "bob"], ["ETH", "BTC"])
    several = greenwood_landier_thesmar(holdings, [10, 10], [[0.1, 0.0], [0.0, 0.2]], liquidity=1e-4)
    alone = greenwood_landier_thesmar(
        holdings, pd.Series([10, 10], ["bob", "ann"]), pd.Series([0.0, 0.1], ["BTC", "ETH"]), liquidity=1e-4
    )
    assert several.sales.loc["ann"].tolist()[0] == alone.sales["ann"] == pytest.approx(54.0)
    assert several.aggregate_vulnerability.shape == (2,)
    assert several.aggregate_vulnerability[0] == pytest.approx(alone.aggregate_vulnerability)
    assert alone.price_fall.index.tolist() == ["ETH", "BTC"]


@given(books(), st.sampled_from([0.25, 1.0, 3.0]))
@common
def test_vulnerability_is_linear_in_the_shock(book, factor):
    holdings, equity, shock = book
    holdings = holdings + np.where(np.arange(holdings.shape[1]) == 0, 12.0, 0.0)
    one, other = shock / 5, shock[::-1] / 5
    single, second, both = (
        greenwood_landier_thesmar(holdings, equity, fall, liquidity=2e-4) for fall in (one, other, factor * one + other)
    )
    for name in ("sales", "price_fall", "indirect_loss", "systemicness"):
        total = factor * getattr(single, name) + getattr(second, name)
        np.testing.assert_allclose(getattr(both, name), total, rtol=1e-10, atol=1e-12)
        assert (getattr(both, name) >= 0).all()


def test_the_linear_model_does_not_limit_what_is_sold():
    # leverage 49, a fall of a tenth: five times what it holds
    found = greenwood_landier_thesmar([[50.0]], [1.0], [0.1], liquidity=0.01)
    assert found.sales[0] == pytest.approx(245)
    assert found.price_fall[0] > 1


# ----------------------------------------------------------------------------------------------------- Cont-Schaanning


def rounds_by_hand(holdings, equity, other, shock, depth, limit, target, form):
    """Bank by bank, keeping every position in money."""
    own = list(equity - holdings @ shock)
    price = 1 - shock
    positions = holdings * price
    first, rounds = [-1] * len(own), 0
    for _ in range(10_000):
        quantity, sales = np.zeros(len(depth)), np.zeros_like(positions)
        for i in range(len(own)):
            marketable, assets = positions[i].sum(), other[i] + positions[i].sum()
            if marketable > 0 and assets - limit * own[i] > 1e-12 * assets:
                part = min(1.0, (assets - target * max(own[i], 0)) / marketable)
                sales[i] = part * positions[i]
                first[i] = rounds if first[i] < 0 else first[i]
        quantity = sales.sum(axis=0)
        if not quantity.any():
            break
        used = quantity / depth
        if form == "linear":
            after = np.maximum(1 - used, 0)
            got = np.where(used <= 1, 1 - used / 2, 0.5 / np.maximum(used, 1e-300))
        else:
            after = np.exp(-used)
            got = np.where(used > 0, -np.expm1(-used) / np.where(used > 0, used, 1), 1.0)
        for i in range(len(own)):
            kept = positions[i] - sales[i]
            own[i] -= (kept * (1 - after)).sum() + (sales[i] * (1 - got)).sum()
            positions[i] = kept * after
        price = price * after
        rounds += 1
    return price, np.array(own), first, rounds


@given(books(), st.sampled_from(["linear", "exponential"]), st.sampled_from([3.0, 8.0, 15.0]), st.integers(2, 60))
@common
def test_deleveraging_agrees_with_banks_one_by_one_and_conserves(book, form, limit, liquidity):
    holdings, equity, shock = book
    other, depth = equity[::-1] * 5, np.full(len(shock), 20.0 * liquidity)
    end = cont_schaanning(holdings, equity, other, shock, depth=depth, leverage_limit=limit, impact=form)
    price, own, first, rounds = rounds_by_hand(
        holdings, equity, other, shock, depth, limit, max(0.95 * limit, 1.0), form
    )
    assert end.price == pytest.approx(price, rel=1e-10, abs=1e-12)
    assert end.equity == pytest.approx(own, rel=1e-9, abs=1e-9)
    assert end.first_round.tolist() == first
    assert end.rounds == rounds
    kept = (1 - end.kept_part) @ holdings  # units sold, at prices before the shock
    assert end.proceeds.sum() == pytest.approx(end.bought.sum(), rel=1e-10, abs=1e-10)
    buyers = kept @ end.price - end.bought.sum()
    lost = holdings.sum(axis=0) @ (1 - end.price)
    assert end.direct_loss.sum() + end.fire_sale_loss.sum() - buyers == pytest.approx(lost, rel=1e-9, abs=1e-9)
    assert end.status in (Status.SETTLED, Status.EXHAUSTED)
    assets = other + end.kept_part * (holdings @ end.price)
    above = assets > limit * end.equity + 1e-9
    assert (end.kept_part[above] * (holdings @ end.price)[above] <= 1e-12).all()
    assert (end.status is Status.EXHAUSTED) == bool(above.any())


@given(books(), st.randoms(use_true_random=False), st.sampled_from([1e-12, 1e12]))
@common
def test_deleveraging_knows_neither_names_nor_units(book, random, unit):
    holdings, equity, shock = book
    other, depth = equity * 6, np.full(len(shock), 400.0)
    plain = cont_schaanning(holdings, equity, other, shock, depth=depth, leverage_limit=7)
    order = list(range(len(equity)))
    random.shuffle(order)
    moved = cont_schaanning(
        unit * holdings[order], unit * equity[order], unit * other[order], shock, depth=unit * depth, leverage_limit=7
    )
    np.testing.assert_allclose(moved.price, plain.price, rtol=1e-9)
    np.testing.assert_allclose(moved.equity / unit, plain.equity[order], rtol=1e-7, atol=1e-9)


def test_a_greater_shock_may_end_with_a_higher_price():
    """Not claimed: prices and equity need not fall with the shock, as who sells more at once may sell less in all."""
    small, large = (
        cont_schaanning([[50.0]], [5.0], [50.0], [shock], depth=50.0, leverage_limit=20.0) for shock in (0.005, 0.01)
    )
    assert large.price[0] > small.price[0] + 0.05
    assert large.equity[0] > small.equity[0] + 0.4


def test_a_greater_shock_may_have_a_smaller_fire_sale_part():
    given_ = {"depth": 1000.0, "leverage_limit": 20.0}
    prices = [
        cont_schaanning([[50.0]], [6.0], [50.0], [shock], **given_).price[0] / (1 - shock)
        for shock in np.linspace(0, 0.1, 200)
    ]
    fire_sale_part = 1 - np.array(prices)
    assert (np.diff(fire_sale_part) < 0).any()


def test_deleveraging_ends_by_the_limit_of_rounds_or_with_nothing_left():
    book = [[50.0], [50.0]], [5.0, 20.0], [50.0, 50.0], [0.02]
    with pytest.raises(NotSettledError) as caught:
        cont_schaanning(*book, depth=1000, leverage_limit=22, max_rounds=1)
    assert caught.value.result.status is Status.MAX_ROUNDS
    assert caught.value.result.rounds == 1
    gone = cont_schaanning([[50.0]], [-5.0], [50.0], [0.0], depth=np.inf, leverage_limit=22)
    assert gone.status is Status.EXHAUSTED
    assert gone.kept_part.tolist() == [0.0]
    assert gone.price.tolist() == [1.0]
    calm = cont_schaanning([[50.0]], [50.0], [50.0], [0.0], depth=10, leverage_limit=22)
    assert calm.status is Status.SETTLED
    assert calm.first_round.tolist() == [-1]


def test_selling_at_the_end_price_costs_more():
    book = [[50.0], [50.0]], [5.0, 20.0], [50.0, 50.0], [0.02]
    average, terminal = (
        cont_schaanning(*book, depth=1000, leverage_limit=22, execution=one) for one in ("average", "terminal")
    )
    assert terminal.fire_sale_loss[0] > average.fire_sale_loss[0]


# --------------------------------------------------------------------------------------------------- indirect exposure


@given(books(), st.sampled_from([1.0, 1e-6, 1e9]))
@common
def test_overlap_is_what_is_lost_when_another_sells_everything(book, unit):
    holdings, _, _ = book
    depth = np.linspace(1000, 3000, holdings.shape[1])
    depth[0] = np.inf
    overlap = indirect_exposure(unit * holdings, unit * depth)
    assert scipy.sparse.issparse(overlap)
    for i in range(len(holdings)):
        for j in range(len(holdings)):
            expected = sum(holdings[i, k] * holdings[j, k] / depth[k] for k in range(len(depth)))
            assert overlap[i, j] == pytest.approx(unit * expected, rel=1e-12)
    np.testing.assert_array_equal(overlap.toarray(), overlap.toarray().T)
    assert (overlap.data != 0).all()


def test_overlap_with_labels():
    table = indirect_exposure(pd.DataFrame([[4.0, 0], [2, 3]], ["ann", "bob"], ["ETH", "BTC"]), [8, 1])
    assert table.loc["ann", "bob"] == 1.0
    assert table.loc["bob", "bob"] == 9.5


# ------------------------------------------------------------------------------------------------- default liquidation


def waves_by_hand(holdings, equity, shock, alpha):
    failed, wave, number = set(), [-1] * len(equity), 0
    while True:
        price = []
        for k in range(len(shock)):
            total = holdings[:, k].sum()
            part = sum(holdings[i, k] for i in failed) / total if total else 0.0
            price.append((1 - shock[k]) * np.exp(-alpha * part))
        new = [
            i
            for i in range(len(equity))
            if i not in failed
            and sum(holdings[i, k] * (1 - price[k]) for k in range(len(shock))) > equity[i] * (1 + 1e-12)
        ]
        if not new:
            return wave, price
        for i in new:
            wave[i] = number
        failed |= set(new)
        number += 1


@given(books(), st.sampled_from([0.0, 0.2, 1.0536]), st.randoms(use_true_random=False), st.sampled_from([1e-12, 1e12]))
@common
def test_waves_agree_with_banks_one_by_one(book, alpha, random, unit):
    holdings, equity, shock = book
    end = default_liquidation(holdings, equity, shock=shock, alpha=alpha)
    wave, price = waves_by_hand(holdings, equity, shock, alpha)
    assert end.wave.tolist() == wave
    assert end.price == pytest.approx(price, rel=1e-12)
    assert end.waves <= len(equity)
    order = list(range(len(equity)))
    random.shuffle(order)
    other = default_liquidation(unit * holdings[order], unit * equity[order], shock=shock, alpha=alpha)
    assert other.wave.tolist() == end.wave[order].tolist()


@given(books(), st.sampled_from([0.05, 0.2]))
@common
def test_failures_grow_with_the_shock_with_impact_and_with_failures_before(book, more):
    holdings, equity, shock = book
    less = default_liquidation(holdings, equity, shock=shock, alpha=0.5)
    for bigger in (
        default_liquidation(holdings, equity, shock=np.minimum(shock + more, 1), alpha=0.5),
        default_liquidation(holdings, equity, shock=shock, alpha=0.5 + more),
        default_liquidation(holdings, equity, shock=shock, alpha=0.5, defaulted=np.arange(len(equity)) == 0),
    ):
        assert (bigger.failed >= less.failed).all()
        assert (bigger.price <= less.price + 1e-15).all()


def test_the_least_set_of_failures_is_found_though_a_greater_one_reproduces_itself():
    # if all failed, the fall of 65 % would make each of them fail; without a shock nobody does
    holdings, equity = np.full((3, 1), 10.0), np.full(3, 4.0)
    assert not default_liquidation(holdings, equity).failed.any()
    everybody = default_liquidation(holdings, equity, defaulted=[1, 1, 1])
    assert everybody.failed.all()
    assert everybody.status is Status.EXHAUSTED
    assert (everybody.net_worth < 0).all()


def test_a_loss_equal_to_the_equity_is_borne():
    assert default_liquidation([[10.0]], [3.0], shock=[0.3]).failed.tolist() == [False]
    assert default_liquidation([[10.0]], [3.0 - 1e-9], shock=[0.3]).failed.tolist() == [True]
    assert default_liquidation([[10.0]], [0.0]).failed.tolist() == [False]


# ----------------------------------------------------------------------------------------------------------- branching


@given(books())
@common
def test_the_branching_matrix_says_who_falls_in_the_next_wave(book):
    holdings, equity, _ = book
    banks = len(equity)
    matrix = branching_matrix(holdings, equity, alpha=0.8).toarray()
    for i in range(banks):
        end = default_liquidation(holdings, equity, alpha=0.8, defaulted=np.arange(banks) == i)
        assert matrix[i].tolist() == (end.wave == 1).astype(float).tolist()
    groups = np.arange(banks) % 2
    by_group = branching_matrix(holdings, equity, alpha=0.8, groups=groups).toarray()
    for g in range(by_group.shape[0]):
        for h in range(by_group.shape[0]):
            expected = matrix[np.ix_(groups == g, groups == h)].sum(axis=1).mean()
            assert by_group[g, h] == pytest.approx(expected)


@given(st.integers(1, 7), st.integers(0, 200))
@common
def test_the_largest_eigenvalue_is_that_of_a_dense_solver(size, seed):
    rng = np.random.default_rng(seed)
    matrix = rng.uniform(0, 3, (size, size)) * (rng.random((size, size)) < 0.35)
    expected = np.abs(np.linalg.eigvals(matrix)).max()
    found = largest_eigenvalue(matrix)
    if found == 0:  # a matrix without a cycle: a dense solver finds 0 up to a root of rounding
        assert expected < 1e-1
        assert not np.linalg.matrix_power(matrix, size).any()
    else:
        assert found == pytest.approx(expected, rel=1e-6)


def test_an_eigenvalue_below_one_does_not_limit_a_cascade_in_a_given_network():
    # each of two failures takes 3.9 of 4 from the third, which survives either and not both
    holdings = [[10.0, 0, 0], [0, 10.0, 0], [10.0, 10.0, 0]]
    equity, alpha = [1.0, 1.0, 4.0], 0.97
    assert largest_eigenvalue(branching_matrix(holdings, equity, alpha=alpha)) == pytest.approx(0)
    end = default_liquidation(holdings, equity, shock=[0.12, 0.12, 0], alpha=alpha)
    assert end.wave.tolist() == [0, 0, 1]


def test_the_largest_eigenvalue_of_special_matrices():
    assert largest_eigenvalue(np.zeros((3, 3))) == 0
    assert largest_eigenvalue([[0.0, 5.0], [0.0, 0.0]]) == 0
    assert largest_eigenvalue(np.diag([0.5, 2.5])) == 2.5
    ring = np.roll(np.eye(6), 1, axis=1)
    assert largest_eigenvalue(1e-9 * ring) == pytest.approx(1e-9)
    with pytest.raises(SchemaError, match="square"):
        largest_eigenvalue([[1.0, 2.0]])


# ---------------------------------------------------------------------------------------------------- spiral and input


@given(st.floats(0, 300), st.floats(1, 9), st.floats(0, 0.002), st.floats(0, 1))
@common
def test_the_spiral_sums_its_turns(position, leverage, impact, shock):
    spiral = loss_spiral(position, leverage, impact=impact, shock=shock)
    gain = impact * position * (leverage - 1)
    assert spiral.explosive == (gain >= 1)
    if gain < 0.97:
        total = sum(shock * gain**turn for turn in range(2000))
        assert spiral.total_fall == pytest.approx(total, rel=1e-9, abs=1e-300)
    if gain >= 1 and shock > 0:
        assert spiral.total_fall == np.inf
    if shock == 0:
        assert spiral.total_fall == 0


@pytest.mark.parametrize("wrong", [{"shock": np.nan}, {"impact": -1.0}, {"leverage": 0.5}, {"position": np.inf}])
def test_the_spiral_refuses_bad_numbers(wrong):
    numbers = {"position": 100, "leverage": 5, "impact": 0.001, "shock": 0.02} | wrong
    with pytest.raises(ValueError, match=next(iter(wrong))):
        loss_spiral(**numbers)


def test_one_error_lists_everything():
    with pytest.raises(SchemaError) as caught:
        greenwood_landier_thesmar([[1, -2], [3, 4]], [100, 0], [2, 0.1], liquidity=-1)
    assert {problem.table for problem in caught.value.problems} == {"holdings", "equity", "shock", "liquidity"}
    with pytest.raises(SchemaError) as caught:
        cont_schaanning(
            [[np.nan]], [np.inf], [-1], [2], depth=0, leverage_limit=[0.5], leverage_target=[np.nan]
        )  # fmt: skip
    assert len({problem.table for problem in caught.value.problems}) == 7
    with pytest.raises(SchemaError) as caught:
        default_liquidation([[1, 1]], [-1], shock=[2, 0], alpha=-1, defaulted=[2])
    assert {problem.table for problem in caught.value.problems} == {"equity", "shock", "alpha", "defaulted"}
    with pytest.raises(SchemaError, match="leverage_target"):
        cont_schaanning([[1]], [1], [1], [0], depth=1, leverage_limit=10, leverage_target=11)
    with pytest.raises(SchemaError, match="whole"):
        branching_matrix([[1]], [1], groups=[0.5])
    with pytest.raises(SchemaError, match="shape"):
        indirect_exposure([1, 2], 3)
    with pytest.raises(SchemaError, match="labels"):
        greenwood_landier_thesmar(
            pd.DataFrame([[5.0]], ["ann"], ["ETH"]), pd.Series([1.0], ["bob"]), [0.1], liquidity=0
        )
    with pytest.raises(SchemaError, match="finite"):
        greenwood_landier_thesmar([[5.0]], np.ma.masked_array([1.0], [True]), [0.1], liquidity=0)
    for option in ({"impact": "cubic"}, {"execution": "best"}, {"max_rounds": 0}):
        with pytest.raises(ValueError, match=next(iter(option))):
            cont_schaanning([[1]], [1], [1], [0], depth=1, leverage_limit=10, **option)
