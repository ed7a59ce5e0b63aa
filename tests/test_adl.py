"""Auto-deleveraging: published allocations, laws, scores of exchanges and the closing of positions."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from netcontagion import SchemaError, UnknownLabelError
from netcontagion.margining import (
    ALLOCATIONS,
    SCORES,
    adl_score,
    allocate,
    auto_deleverage,
    insurance_drawdown,
)

REFERENCES = json.loads((Path(__file__).parent / "references" / "price_formation.json").read_text(encoding="utf-8"))
CASES = {case["name"]: case for case in REFERENCES["cases"]}
GOLDEN = REFERENCES["golden"]
RULES = tuple(ALLOCATIONS)


# published numbers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["whole_queue", "queue", "pro_rata", "water_filling"])
def test_golden_allocations(rule):
    golden = GOLDEN["allocation"]
    taken = allocate(golden["deficit"], golden["capacity"], rule=rule)
    np.testing.assert_allclose(taken, golden[rule], atol=1e-3 if rule == "water_filling" else 1e-12)
    assert taken.sum() - golden["deficit"] == pytest.approx(10.0 if rule == "whole_queue" else 0.0, abs=1e-12)


def queue_and_pro_rata(inputs):
    cash, pnl = np.array(inputs["cash"]), np.array(inputs["pnl"])
    deficit = -np.minimum(cash + pnl, 0.0).sum()
    capacity, budget = np.maximum(pnl, 0.0), inputs["severity"] * deficit
    score = np.empty(len(pnl))
    score[inputs["queue_order"]] = -np.arange(len(pnl))
    queue = allocate(budget, capacity, score=score)
    pro_rata = allocate(budget, capacity, rule="pro_rata")
    return {
        "deficit": deficit,
        "budget": budget,
        "capacity": capacity.sum(),
        "queue_haircut": np.divide(queue, capacity, out=np.zeros(len(pnl)), where=capacity > 0),
        "queue_seized": queue,
        "queue_equity": cash + pnl - queue,
        "prorata_haircut": pro_rata.sum() / capacity.sum(),
        "prorata_seized": pro_rata,
        "prorata_equity": cash + pnl - pro_rata,
    }


def fund_trigger(inputs):
    limit = -inputs["insurance_pnl_ratio"]
    use = insurance_drawdown(
        inputs["symbol_loss"], peak=inputs["pool_max_balance"], balance=inputs["balance"], limit=limit
    )
    triggered = use.triggered and inputs["balance"] > inputs["trigger_threshold"]
    return {"pnl_ratio": use.ratio, "adl_triggered": triggered, "borne_by_users": use.passed_on}


ADAPTERS = {"adl_queue_vs_prorata": queue_and_pro_rata, "bybit_adl_trigger": fund_trigger}


@pytest.mark.parametrize("name", ADAPTERS)
def test_case(name):
    case, wrong = CASES[name], []
    found = ADAPTERS[name](case["inputs"])
    for key, value in case["expected"].items():
        np.testing.assert_allclose(np.asarray(found[key], float), value, rtol=0, atol=case["tolerance"]["abs"])
        if not isinstance(value, bool):
            moved = np.asarray(value, dtype=float) * 1.02
            wrong.append(np.allclose(np.asarray(found[key], float), moved, rtol=0, atol=case["tolerance"]["abs"]))
    assert not any(wrong), "the case cannot fail"


def test_haircuts_at_the_bankruptcy_price_are_the_deficit():
    golden = GOLDEN["bankruptcy_deleveraging"]
    q, entry, mark, margin = (golden[name] for name in ("quantity", "entry", "mark", "margin"))
    bankrupt = entry - margin / q
    found = auto_deleverage(q, bankrupt, positions=[-4, 3, -9, -2], entry_price=[100, 90, 99, 80], mark_price=mark)
    assert found.haircut.sum() == pytest.approx(golden["deficit"], abs=1e-12)
    assert found.closed.tolist() == [4, 0, 6, 0]  # the long is no winner, nor is the short that loses
    assert found.left == 0.0
    short = auto_deleverage(-q, entry + margin / q, positions=[12], entry_price=[100], mark_price=107.0)
    assert short.haircut.sum() == pytest.approx(golden["deficit"], abs=1e-12)
    assert short.closed.tolist() == [-10]


def test_at_the_mark_nobody_pays():
    found = auto_deleverage(10, 93.0, positions=[-4, -9], entry_price=100, mark_price=93.0)
    assert found.haircut.tolist() == [0, 0]
    assert found.closed.sum() == 10


def test_a_winner_pays_no_more_than_its_profit():
    found = auto_deleverage(10, 95.0, positions=[-8, -8], entry_price=[94.0, 100.0], mark_price=93.0)
    assert found.haircut[0] == pytest.approx(8.0)  # its profit; it closes 4 of its 8
    assert found.closed.tolist() == [4, 6]
    few = auto_deleverage(10, 95.0, positions=[-8], entry_price=[94.0], mark_price=93.0)
    assert (few.closed.tolist(), few.left) == ([4], 6)


# laws ---------------------------------------------------------------------------------------------------------------


capacities = st.lists(
    st.one_of(st.just(0.0), st.floats(1e-6, 1e6), st.integers(1, 5).map(float)), min_size=1, max_size=30
)


@settings(max_examples=80, deadline=None)
@given(capacities, st.floats(0, 1.5), st.sampled_from(RULES), st.integers(0, 99))
def test_what_is_taken_is_the_deficit_or_all_there_is(capacity, share, rule, seed):
    bound = np.array(capacity)
    deficit = share * bound.sum()
    taken = allocate(deficit, bound, rule=rule, seed=seed if rule == "random" else None)
    assert (taken >= 0).all()
    assert (taken <= bound).all()
    enough = min(deficit, bound.sum())
    if rule == "whole_queue":
        assert ((taken == 0) | (taken == bound)).all()
        assert taken.sum() >= enough * (1 - 1e-9)
        if taken.any():  # the last one reached was needed
            assert taken.sum() - taken[np.flatnonzero(taken)[-1]] < deficit
    else:
        assert taken.sum() == pytest.approx(enough, rel=1e-9, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(capacities, st.floats(0, 1.2), st.sampled_from(["queue", "whole_queue"]), st.integers(0, 99))
def test_a_queue_keeps_its_order(capacity, share, rule, seed):
    bound = np.array(capacity)
    score = np.random.default_rng(seed).integers(0, 4, len(bound)).astype(float)
    taken = allocate(share * bound.sum(), bound, rule=rule, score=score)
    order = sorted(range(len(bound)), key=lambda i: (-score[i], i))
    rest = share * bound.sum()
    for i in order:
        part = (
            (bound[i] if rest > 1e-12 * share * bound.sum() else 0.0) if rule == "whole_queue" else min(bound[i], rest)
        )
        if abs(rest) > 1e-9 * bound.sum():  # ties of rounding aside
            assert taken[i] == pytest.approx(part, rel=1e-9, abs=1e-9 * bound.sum())
        rest = max(rest - bound[i], 0.0)


@settings(max_examples=60, deadline=None)
@given(capacities, st.floats(0.01, 0.99))
def test_water_filling_leaves_one_level(capacity, share):
    bound = np.array(capacity)
    assume(bound.sum() > 0)
    left = bound - allocate(share * bound.sum(), bound, rule="water_filling")
    touched = left < bound * (1 - 1e-12)
    level = left.max()
    np.testing.assert_allclose(left[touched], level, rtol=1e-6, atol=1e-9 * bound.max())
    low, high = 0.0, bound.max()  # the level by halving
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if (bound - np.minimum(bound, middle)).sum() > share * bound.sum() else (low, middle)
    assert np.minimum(bound, low).max() == pytest.approx(level, rel=1e-9, abs=1e-9 * bound.max())


@settings(max_examples=60, deadline=None)
@given(
    capacities, st.floats(0, 1.2), st.sampled_from(["queue", "whole_queue", "pro_rata", "water_filling"]), st.randoms()
)
def test_relabelling_changes_nothing(capacity, share, rule, random):
    bound = np.array(capacity)
    score = np.arange(len(bound), dtype=float) if "queue" in rule else None
    order = list(range(len(bound)))
    random.shuffle(order)
    plain = allocate(share * bound.sum(), bound, rule=rule, score=score)
    shuffled = allocate(share * bound.sum(), bound[order], rule=rule, score=None if score is None else score[order])
    np.testing.assert_allclose(shuffled, plain[order], rtol=1e-9, atol=1e-9 * bound.sum())


@settings(max_examples=60, deadline=None)
@given(
    capacities, st.floats(0, 1.0), st.sampled_from([rule for rule in RULES if rule != "random"]), st.floats(1e-3, 1e6)
)
def test_the_currency_does_not_matter(capacity, share, rule, factor):
    bound = np.array(capacity)
    plain = allocate(share * bound.sum(), bound, rule=rule)
    scaled = allocate(share * bound.sum() * factor, bound * factor, rule=rule)
    if rule != "whole_queue":  # where a deficit ends exactly at a position, rounding decides about the next one
        np.testing.assert_allclose(scaled, plain * factor, rtol=1e-9, atol=1e-9 * factor * bound.sum())
    assert (scaled <= bound * factor).all()


def test_the_random_rule_begins_anywhere_and_goes_round():
    capacity = np.array([3.0, 1.0, 2.0, 4.0])
    starts = {tuple(allocate(2.5, capacity, rule="random", seed=seed)) for seed in range(60)}
    assert starts == {(2.5, 0, 0, 0), (0, 1, 1.5, 0), (0, 0, 2, 0.5), (0, 0, 0, 2.5)}
    rng = np.random.default_rng(3)
    counts = sum(allocate(1.0, capacity, rule="random", seed=rng) > 0 for _ in range(2000))
    np.testing.assert_allclose(counts / 2000, 0.25, atol=0.04)
    assert (
        allocate(2.5, capacity, rule="random", seed=7).tolist()
        == allocate(2.5, capacity, rule="random", seed=7).tolist()
    )


def test_a_small_deficit_is_shared_by_equals_to_the_last_digit():
    taken = allocate(1e-6, np.full(7, 1e9), rule="water_filling")
    np.testing.assert_allclose(taken, 1e-6 / 7, rtol=1e-12)


def test_a_queue_that_ends_with_a_position_does_not_reach_the_next():
    capacity = np.full(10, 0.1)
    for count in (3, 8):  # the sums are 0.30000000000000004 and 0.7999999999999999
        assert (allocate(count / 10, capacity, rule="whole_queue") > 0).sum() == count
    assert allocate(0.0, capacity, rule="whole_queue").sum() == 0


def test_no_winners_no_deficit_and_more_deficit_than_winners():
    for rule in RULES:
        assert allocate(5.0, [], rule=rule).tolist() == []
        assert allocate(0.0, [1.0, 2.0], rule=rule).tolist() == [0, 0]
        assert allocate(9.0, [1.0, 0.0, 2.0], rule=rule).tolist() == [1, 0, 2]
        assert allocate(9.0, [0.0], rule=rule).tolist() == [0]


@pytest.mark.parametrize("rule", RULES)
def test_a_million_winners(rule):
    capacity = np.random.default_rng(0).lognormal(3, 2, 1_000_000)
    score = capacity if "queue" in rule else None
    began = time.perf_counter()
    taken = allocate(0.3 * capacity.sum(), capacity, rule=rule, score=score)
    assert time.perf_counter() - began < 5
    if rule != "whole_queue":
        assert taken.sum() == pytest.approx(0.3 * capacity.sum(), rel=1e-9)


# scores -------------------------------------------------------------------------------------------------------------

LONG = {
    "quantity": [2.0, 2.0, 2.0],
    "entry_price": [50.0, 80.0, 125.0],
    "mark_price": 100.0,
    "equity": [100.0, 400.0, 50.0],
}


def test_pnl_and_leverage():
    profit, leverage = np.array([1.0, 0.25, -0.2]), np.array([2.0, 0.5, 4.0])
    np.testing.assert_allclose(adl_score("pnl_leverage", **LONG), [2.0, 0.125, -0.05])
    short = LONG | {"quantity": [-2.0, -2.0, -2.0]}
    np.testing.assert_allclose(
        adl_score("pnl_leverage", **short), np.where(-profit > 0, -profit * leverage, -profit / leverage)
    )


def test_leverage_is_that_to_the_bankruptcy_price():
    """Effective leverage is |mark value| / (mark value - bankrupt value): what is between the two is equity."""
    q, entry, mark, margin = 3.0, 90.0, 100.0, 20.0
    bankrupt = entry - margin / q
    published = (mark - entry) / entry * q * mark / (q * mark - q * bankrupt)
    ours = adl_score(
        "pnl_leverage", quantity=[q], entry_price=entry, mark_price=mark, equity=margin + q * (mark - entry)
    )
    assert ours[0] == pytest.approx(published)


def test_other_scores():
    np.testing.assert_allclose(adl_score("hyperliquid", **LONG), [4.0, 0.625, 3.2])
    more = LONG | {"maintenance_margin": [10.0, 10.0, 60.0]}
    np.testing.assert_allclose(adl_score("bluefin", **more), [1.0 / 0.5, 0.25 / 2.0, 0.0])
    collateral = {"collateral": [50.0, 200.0, 100.0]}
    np.testing.assert_allclose(
        adl_score("binance", **more, **collateral), [100 / 50 * 0.1, 40 / 200 * 0.025, -50 / 100 * 1.2]
    )
    assert adl_score("none", quantity=[1.0, 5.0]).tolist() == [0, 0]


def test_ties_are_broken_by_profit_then_balance_then_age():
    five = {
        "quantity": np.ones(5),
        "mark_price": 100.0,
        "entry_price": [50.0, 60.0, 50.0, 50.0, 50.0],
        "equity": [10.0, 10.0, 10.0, 10.0, 5.0],
        "collateral": [30.0, 1.0, 20.0, 20.0, 99.0],
        "opened": [9.0, 9.0, 1.0, 2.0, 0.0],
    }
    assert adl_score("ethereal", **five).tolist() == [1, 0, 2, 3, 4]
    five["opened"] = [9.0, 9.0, 2.0, 2.0, 0.0]
    assert adl_score("ethereal", **five).tolist() == [1, 0, 2, 2, 3]


@pytest.mark.parametrize("rule", [rule for rule in SCORES if rule != "none"])
def test_scores_have_no_unit_and_no_nan(rule):
    rng = np.random.default_rng(2)
    size = 500
    columns = {
        "quantity": rng.normal(size=size) * (rng.random(size) > 0.1),
        "entry_price": rng.lognormal(4, 0.2, size),
        "mark_price": rng.lognormal(4, 0.2, size),
        "equity": rng.normal(50, 50, size) * (rng.random(size) > 0.1),
        "maintenance_margin": rng.random(size),
        "collateral": rng.lognormal(size=size),
        "opened": rng.random(size),
    }
    used = {name: columns[name] for name in SCORES[rule][1]}
    score = adl_score(rule, **used)
    assert score.shape == (size,)
    assert not np.isnan(score).any()
    money = {"entry_price", "mark_price", "equity", "maintenance_margin", "collateral"}
    scaled = adl_score(rule, **{name: value * 4 if name in money else value for name, value in used.items()})
    np.testing.assert_allclose(scaled, score, rtol=1e-12)


def test_an_account_without_equity_comes_first():
    none_left = LONG | {"equity": [0.0, -5.0, 10.0]}
    assert adl_score("pnl_leverage", **none_left).tolist() == [np.inf, np.inf, pytest.approx(-0.2 / 20)]
    assert allocate(1.0, [1.0, 2.0], score=[0.0, np.inf]).tolist() == [0, 1]


# input --------------------------------------------------------------------------------------------------------------


def test_bad_numbers_are_refused_all_together():
    with pytest.raises(SchemaError) as caught:
        allocate(-1.0, [1.0, np.nan, -2.0])
    assert [(problem.column, problem.row) for problem in caught.value.problems] == [
        ("deficit", None),
        ("capacity", 1),
        ("capacity", 2),
    ]
    with pytest.raises(SchemaError, match="go together"):
        allocate(1.0, [1.0, 2.0], score=[1.0, 2.0, 3.0])
    with pytest.raises(SchemaError, match="score"):
        allocate(1.0, [1.0, 2.0], score=[1.0, np.nan])
    with pytest.raises(UnknownLabelError, match="pro_rata"):
        allocate(1.0, [1.0], rule="prorata")
    with pytest.raises(ValueError, match="'queue' and 'whole_queue'"):
        allocate(1.0, [1.0], rule="pro_rata", score=[1.0])
    with pytest.raises(ValueError, match="seed"):
        allocate(1.0, [1.0], seed=1)


def test_a_score_names_what_it_lacks_and_what_it_does_not_use():
    with pytest.raises(SchemaError) as caught:
        adl_score("binance", quantity=[1.0], entry_price=1.0, mark_price=1.0, equity=1.0, opened=[3.0])
    assert [problem.column for problem in caught.value.problems] == ["collateral", "maintenance_margin", "opened"]
    with pytest.raises(UnknownLabelError, match="hyperliquid"):
        adl_score("hyperliqid", quantity=[1.0])
    with pytest.raises(SchemaError, match="entry_price"):
        adl_score("pnl_leverage", quantity=[1.0], entry_price=0.0, mark_price=1.0, equity=1.0)


def test_a_fund_pays_up_to_its_drawdown_its_balance_and_the_loss():
    assert insurance_drawdown(100.0, peak=1000.0).paid == 100.0
    assert insurance_drawdown(500.0, peak=1000.0, balance=200.0) == (-0.5, True, 200.0, 300.0)
    assert insurance_drawdown(200.0, peak=1000.0, limit=0.3, earlier=200.0) == (-0.4, True, 100.0, 100.0)
    with pytest.raises(SchemaError):
        insurance_drawdown(1.0, peak=0.0, limit=1.5)
