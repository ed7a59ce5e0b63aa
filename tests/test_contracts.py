"""Margin arithmetic of contracts on arrays: published cases, golden numbers, a slow twin, and laws."""

from __future__ import annotations

import doctest
import importlib
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import netcontagion as nc
from netcontagion import builders, margining

HERE = Path(__file__).resolve()
FIXTURE = json.loads((HERE.parent / "references" / "perpetuals.json").read_text(encoding="utf-8"))
SHARED = HERE.parents[2] / "shared" / "reference"
MODELS = ("perp_prices", "perp_equity", "perp_leverage_mass", "perp_margin")
common = settings(max_examples=60, deadline=None, derandomize=True)


# published cases --------------------------------------------------------------------------------------------------


def prices(given):
    size = np.array(given["q"]) * np.array(given["b"])
    found = margining.bankruptcy_price(size, given["entry"], given["c"])
    return {
        "bankruptcy": found,
        "liquidation": margining.liquidation_price(size, given["entry"], given["c"], given["mu"]),
    }


def equity(given):
    """Open interest as it is on record, funding paid by both sides, equity after two steps."""
    held, cash, mark, oracle = (np.array(given[name], dtype=float) for name in ("q", "c", "mark", "oracle"))
    signed = held * np.array(given["b"])
    sides = np.array([held[signed > 0].sum(), held[signed < 0].sum()])
    interest = np.append(sides, sides.sum())
    rate = margining.skew_funding_rate(*sides, mark[1:], oracle[1:], sensitivity=given["kappa"])
    received = [-margining.funding_payment(signed, price, each) for price, each in zip(mark[1:], rate, strict=True)]
    moved = [margining.unrealised_pnl(signed, before, after) for before, after in itertools.pairwise(mark)]
    gained = np.cumsum([pay + move for pay, move in zip(received, moved, strict=True)], axis=0)
    required = margining.maintenance_margin(held * mark[1], given.get("mu", 0.1))
    return {
        "open_interest_t0": interest * mark[0],
        "open_interest_t1": interest * mark[1],
        "initial_leverage": margining.leverage_mass(held * mark[0], cash).leverage,
        "leverage_t1": margining.leverage_mass(held * mark[1], cash).leverage,
        "gamma": -rate,
        "funding_t1": received[0],
        "funding_t2": received[1],
        "pnl_01": gained[0],
        "pnl_02": gained[1],
        "equity_t1": cash + gained[0],
        "equity_t2": cash + gained[1],
        "maintenance_t1": required,
        "liquidatable_t1": cash + gained[0] < required,
    }


def masses(given):
    held, mark, after = np.array(given["q"], dtype=float), given["mark"], equity(given)
    one = margining.leverage_mass(held * mark[1], after["equity_t1"]).leverage
    two = margining.leverage_mass(held * mark[2], after["equity_t2"])
    by_name = dict(zip(given["names"], zip(two.leverage, after["equity_t2"], strict=True), strict=True))
    return {
        "lam_plus_t2": {name: value for name, (value, own) in by_name.items() if own > 0},
        "lam_minus_t2": {name: value for name, (value, own) in by_name.items() if own < 0},
        "mass_plus_t2": two.winners,
        "mass_minus_t2": two.losers,
        "deficit_t2": two.deficit,
        "winner_equity_t2": two.equity,
        "pro_rata_haircut": two.haircut,
        "lam_plus_t1_ABC": one[:3],
        "lam_plus_t1_DE": one[3:],
    }


def one_position(given, mark):
    return builders.from_perpetuals(
        {"who": ["k"], "at": ["X"], "what": ["P"], "size": [given["size"]], "in": [given["entry"]],
         "cash": [given["collateral"]]},
        trader="who", exchange="at", asset="what", quantity="size", entry_price="in", margin="cash",
        tiers={"asset": ["P"], "initial_margin": [given["imf"]], "maintenance_margin": [given["imf"] / 2]},
        prices={"P": float(mark)},
    )  # fmt: skip


def checked_margin(given):
    opening = one_position(given, given["entry"]).margins().loc["k@X"]
    now = one_position(given, given["mark"]).margins().loc["k@X"]
    return {
        "imr_open": opening["initial_margin"],
        "imr_now": now["initial_margin"],
        "upnl": margining.unrealised_pnl(given["size"], given["entry"], given["mark"]),
        "account_value": now["equity"],
        "passes": now["free"] >= 0,
    }


ADAPTERS = dict(zip(MODELS, (prices, equity, masses, checked_margin), strict=True))
LOOSE = ("lam_minus_t2", "mass_minus_t2", "lam_plus_t1_ABC", "lam_plus_t1_DE", "winner_equity_t2")


def flat(value):
    return np.array(list(value.values()) if isinstance(value, dict) else value, dtype=float)


def disagreements(case):
    """Names of the expected numbers that are not met."""
    found, tolerance = ADAPTERS[case["model"]](case["inputs"]), case["tolerance"]
    wrong = []
    for name, value in case["expected"].items():
        allowed = tolerance["abs_loose"] if name in LOOSE and "abs_loose" in tolerance else tolerance["abs"]
        named = isinstance(value, dict) and list(value) != list(found[name])
        if named or not np.allclose(flat(found[name]), flat(value), rtol=0, atol=allowed):
            wrong.append(name)
    return wrong


def changed(case, factor):
    def scale(value):
        if isinstance(value, dict):
            return {name: scale(part) for name, part in value.items()}
        return (np.asarray(value) * factor).tolist()

    return {**case, "expected": {name: scale(value) for name, value in case["expected"].items()}}


@pytest.mark.parametrize("case", FIXTURE["cases"], ids=lambda case: case["name"])
def test_case(case):
    assert disagreements(case) == []


@pytest.mark.parametrize("factor", [0.98, 1.02])
@pytest.mark.parametrize("case", FIXTURE["cases"], ids=lambda case: case["name"])
def test_the_comparison_fails_when_expected_numbers_change_by_two_percent(case, factor):
    assert disagreements(changed(case, factor))


@pytest.mark.skipif(not SHARED.is_dir(), reason="the folder shared/reference is not beside the checkout")
def test_every_case_of_the_shared_reference():
    files = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((SHARED / "cases").glob("*.json"))]
    cases = [case for case in files if case["model"] in MODELS]
    assert len(cases) >= len(FIXTURE["cases"])
    assert {case["name"]: disagreements(case) for case in cases if disagreements(case)} == {}


# golden numbers -----------------------------------------------------------------------------------------------------

FLOORS, RATES = [0.0, 50e3, 250e3, 1e6], [0.004, 0.005, 0.01, 0.025]


def test_golden_g4_closing_prices():
    size, entry, cash = np.array([10.0, -10.0]), 100.0, 50.0
    assert margining.bankruptcy_price(size, entry, cash).tolist() == [95.0, 105.0]
    called = margining.liquidation_price(size, entry, cash, 0.005)
    np.testing.assert_allclose(called, [95.47738693467338, 104.47761194029852], rtol=1e-14)
    own = cash + margining.unrealised_pnl(size, entry, called)
    np.testing.assert_allclose(own, margining.maintenance_margin(10 * called, 0.005), rtol=1e-12)
    assert own[0] == pytest.approx(4.773869346733669, rel=1e-12)


def test_golden_g4_in_the_form_of_free_margin():
    """P - s x margin available / q / (1 - l s), from any mark."""
    for mark in (93.0, 99.0, 120.0):
        free = 50 + 10 * (mark - 100) - 0.005 * 10 * mark
        assert mark - free / 10 / (1 - 0.005) == pytest.approx(95.47738693467336, rel=1e-13)


def test_golden_g7_cumulative_amounts():
    for floor, rate, cumulative in zip(FLOORS, RATES, (0.0, 50.0, 1300.0, 16300.0), strict=True):
        for notional in (floor, 1.3 * floor + 10):
            expected = notional * rate - cumulative
            found = margining.maintenance_margin(notional, RATES, floor=FLOORS)
            assert float(found) == pytest.approx(expected, rel=1e-13)


def test_funding_of_an_interval():
    """[premium + clamp(0.01 % - premium, +-0.05 %)] / (8 / N), by hand."""
    found = margining.funding_rate([0.0, 0.0001, 0.001, -0.002])
    np.testing.assert_allclose(found, [0.0001, 0.0001, 0.0005, -0.0015], rtol=1e-12)
    np.testing.assert_allclose(margining.funding_rate(0.001, hours=1.0), 0.0005 / 8, rtol=1e-12)


def test_portfolio_margin_by_hand():
    held = [[100.0, -100.0], [100.0, 0.0], [-50.0, 0.0]]
    moves = [[-0.2, -0.2], [0.2, 0.2], [0.1, -0.1]]
    np.testing.assert_allclose(margining.scenario_margin(held, moves), [0.0, 20.0, 10.0], atol=1e-12)
    found = margining.scenario_margin(held, moves, add_on=[1.0, 0.0, 2.5])
    np.testing.assert_allclose(found, [1.0, 20.0, 12.5], rtol=1e-12)


# a slow twin, and laws ----------------------------------------------------------------------------------------------


def slow_margin(notional, floors, rates):
    """Each rate on the part of the notional in its tier."""
    ends = [*floors[1:], float("inf")]
    return sum(
        rate * max(0.0, min(notional, end) - floor) for floor, end, rate in zip(floors, ends, rates, strict=True)
    )


@st.composite
def schedules(draw):
    count = draw(st.integers(1, 5))
    steps = [draw(st.floats(1.0, 1e4)) for _ in range(count - 1)]
    rates = sorted(draw(st.floats(0.001, 0.9)) for _ in range(count))
    return np.cumsum([0.0, *steps]), np.array(rates if draw(st.booleans()) else rates[::-1])


@given(schedules(), st.floats(0, 1e5))
@common
def test_margin_is_the_sum_over_tiers(schedule, notional):
    floors, rates = schedule
    found = float(margining.maintenance_margin(notional, rates, floor=floors))
    assert found == pytest.approx(slow_margin(notional, floors, rates), rel=1e-9, abs=1e-9)


@given(schedules(), st.sampled_from([-1.0, 1.0]), st.floats(0.01, 1e3), st.floats(0.1, 1e3), st.floats(-1e4, 1e5))
@common
def test_the_linear_liquidation_price_is_where_the_account_is_called(schedule, side, size, entry, cash):
    """Bisection on the definition: equity at P less margin at P, which has one root at most."""
    floors, rates = schedule
    signed = side * size

    def spare(price):
        return cash + signed * (price - entry) - slow_margin(size * price, floors, rates)

    found = float(margining.liquidation_price(signed, entry, cash, rates, floor=floors))
    scale = abs(cash) + size * entry
    if spare(0.0) * side > 0:
        assert found == 0.0
        return
    low, high = 0.0, 1.0
    while spare(high) * side < 0:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if spare(middle) * side < 0 else (low, middle)
    assert abs(spare(found)) <= 1e-9 * (scale + size * found)
    assert found == pytest.approx(high, rel=1e-6, abs=1e-6 * scale / size)


@given(schedules(), st.sampled_from([-1.0, 1.0]), st.floats(1, 1e4), st.floats(0.1, 1e3), st.floats(-10, 100))
@common
def test_the_inverse_liquidation_price_is_where_the_account_is_called(schedule, side, size, entry, coins):
    floors, rates = schedule
    signed = side * size

    def spare(price):
        gain = margining.unrealised_pnl(signed, entry, price, kind="inverse", multiplier=2.0)
        return coins + float(gain) - slow_margin(2.0 * size / price, floors, rates)

    found = float(
        margining.liquidation_price(signed, entry, coins, rates, floor=floors, kind="inverse", multiplier=2.0)
    )
    scale = abs(coins) + 2 * size / entry
    if np.isnan(found):
        assert spare(1e12) * side < 1e-6 * scale if side > 0 else spare(1e12) > -1e-6 * scale
    else:
        assert found > 0
        assert abs(spare(found)) <= 1e-9 * (scale + 2 * size / found)
        assert spare(found * (1 + 1e-4)) * side > spare(found * (1 - 1e-4)) * side


@given(st.floats(-1e3, 1e3), st.floats(0.1, 1e3), st.floats(0.001, 1e3), st.sampled_from(["linear", "inverse"]))
@common
def test_at_the_bankruptcy_price_nothing_is_left(size, entry, cash, kind):
    found = float(margining.bankruptcy_price(size, entry, cash, kind=kind))
    if np.isnan(found) or found == 0:
        low = 1e-9 * entry if kind == "linear" else 1e12
        left = cash + float(margining.unrealised_pnl(size, entry, low, kind=kind))
        assert size == 0 or left >= -1e-6 * (cash + abs(size) * (entry + 1 / entry))
    else:
        gain = float(margining.unrealised_pnl(size, entry, found, kind=kind))
        assert cash + gain == pytest.approx(0.0, abs=1e-9 * (cash + abs(size) * (entry + 1 / entry + found)))


@given(st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(0.1, 1e3)), min_size=1, max_size=6), st.floats(0.1, 1e3))
@common
def test_what_one_side_gains_the_other_loses(legs, mark):
    size, entry = (np.array(part) for part in zip(*legs, strict=True))
    for kind in ("linear", "inverse"):
        both = margining.unrealised_pnl(np.append(size, -size), np.append(entry, entry), mark, kind=kind)
        assert abs(both.sum()) <= 1e-12 * np.abs(both).sum()
    assert abs(margining.funding_payment(np.append(size, -size), mark, 1e-4).sum()) <= 1e-12 * np.abs(size).sum() * mark


@given(st.floats(1.0, 1e3), st.floats(0.1, 1e3), st.floats(1e-3, 1e3))
@common
def test_an_inverse_long_is_called_between_entry_and_ruin(size, entry, coins):
    ruin = margining.bankruptcy_price(size, entry, coins, kind="inverse")
    called = margining.liquidation_price(size, entry, coins, 0.01, kind="inverse")
    assert 0 < ruin < called
    assert called < entry * 1.0100001


@given(st.floats(0.5, 2.0), st.sampled_from([-1.0, 1.0]), st.sampled_from(["linear", "inverse"]))
@common
def test_prices_scale_with_the_currency(factor, side, kind):
    """Another unit of money scales prices; coins stay, so does the margin of an inverse contract."""
    linear = kind == "linear"
    cash, face = (50.0, 1.0) if linear else (0.05, 10.0)
    floors, rates = np.array([0.0, 500.0 if linear else 0.9]), np.array([0.01, 0.03])
    before = margining.liquidation_price(10 * side, 100.0, cash, rates, floor=floors, kind=kind, multiplier=face)
    money = factor if linear else 1.0
    after = margining.liquidation_price(
        10 * side, factor * 100.0, money * cash, rates, floor=money * floors, kind=kind, multiplier=factor * face
    )
    np.testing.assert_allclose(after, factor * before, rtol=1e-12)


def test_shapes_are_kept_and_broadcast():
    size = np.array([[1.0, -2.0, 0.0], [3.0, -4.0, 5.0]])
    for function, more in ((margining.bankruptcy_price, ()), (margining.liquidation_price, (0.01,))):
        found = function(size, 100.0, np.array([10.0, 20.0, 30.0]), *more)
        assert found.shape == size.shape
        assert np.isnan(found[0, 2])
        assert np.isnan(found).sum() == 1
    assert margining.maintenance_margin(np.ones((2, 3)), 0.01).shape == (2, 3)


def test_leverage_masses_without_deficit_or_equity():
    none = margining.leverage_mass([1.0, 2.0, 0.0], [1.0, 4.0, 0.0])
    assert (none.deficit, none.haircut, none.losers) == (0.0, 0.0, 0.0)
    assert none.leverage.tolist() == [1.0, 0.5, 0.0]
    assert margining.leverage_mass([1.0], [-1.0]).haircut == np.inf
    assert margining.leverage_mass([1.0], [0.0]).leverage.tolist() == [np.inf]


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: margining.maintenance_margin(-1.0, 0.1), "notional"),
        (lambda: margining.maintenance_margin(np.nan, 0.1), "notional"),
        (lambda: margining.maintenance_margin(1.0, 0.0), "rate"),
        (lambda: margining.maintenance_margin(1.0, 1.1), "rate"),
        (lambda: margining.maintenance_margin(1.0, [0.1, 0.2]), "floors"),
        (lambda: margining.maintenance_margin(1.0, [0.1, 0.2], floor=[5.0, 9.0]), "floor"),
        (lambda: margining.maintenance_margin(1.0, [0.1, 0.2, 0.3], floor=[0.0, 9.0, 9.0]), "floor"),
        (lambda: margining.bankruptcy_price(np.inf, 1.0, 1.0), "quantity"),
        (lambda: margining.bankruptcy_price(1.0, 0.0, 1.0), "entry_price"),
        (lambda: margining.liquidation_price(1.0, 1.0, np.nan, 0.1), "margin"),
        (lambda: margining.liquidation_price(1.0, 1.0, 1.0, 0.1, multiplier=0.0), "multiplier"),
        (lambda: margining.unrealised_pnl(1.0, 1.0, 0.0, kind="inverse"), "mark"),
        (lambda: margining.skew_funding_rate(1.0, 0.0, 1.0, 1.0), "short"),
        (lambda: margining.funding_rate(0.0, hours=0.0), "hours"),
        (lambda: margining.scenario_margin([1.0], [[1.0]]), "exposure"),
        (lambda: margining.scenario_margin([[1.0]], np.zeros((0, 1))), "scenarios"),
        (lambda: margining.leverage_mass(-1.0, 1.0), "notional"),
    ],
)
def test_bad_numbers_are_refused(call, word):
    with pytest.raises(ValueError, match=word):
        call()


def test_another_kind_is_refused():
    with pytest.raises(nc.UnknownLabelError, match="inverse"):
        margining.unrealised_pnl(1.0, 1.0, 1.0, kind="invers")


def test_examples():
    found = doctest.testmod(importlib.import_module("netcontagion.margining._contracts"))
    assert found.attempted
    assert not found.failed
