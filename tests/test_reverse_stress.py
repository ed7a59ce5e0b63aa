"""Reverse stress and comparison: known answers, nothing smaller on a finer grid, intervals that pairing narrows."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
from seeds import some_and_slow

import netcontagion as nc

find = functools.partial(nc.reverse_stress, progress=False)


def loan(health=1.6, **changes):
    """One borrower; its health is 1 after a fall of ETH by 1 - 1 / health."""
    return nc.ExposureNetwork(
        assets={"asset": ["ETH", "USDC"], "price": [2000.0, 1.0], "depth": [1e3, np.inf], **changes},
        markets={
            "exchange": ["Lend"] * 2,
            "asset": ["ETH", "USDC"],
            "close_factor": [0.5] * 2,
            "liquidation_threshold": [0.8, 0.85],
            "liquidation_bonus": [0.05] * 2,
        },
        balances={
            "account": ["ann"] * 2,
            "asset": ["ETH", "USDC"],
            "deposited": [1.0, 0.0],
            "borrowed": [0.0, 1600.0 / health],
        },
    )


@pytest.mark.parametrize("health", [1.6, 1.25, 3.0, 1.0001])
def test_a_borrower_is_called_where_its_health_is_one(health):
    found = find(loan(health), {"ETH": 1.0}, 1, measure="called")
    assert found.size == pytest.approx(1 - 1 / health, abs=1e-9)
    below, above = found.bracket
    assert above - below <= 1e-12
    assert not nc.cascade(loan(health), nc.Shock.price({"ETH": -below})).accounts["called"].any()
    assert nc.cascade(loan(health), found.shock).accounts["called"].sum() == 1
    assert not found.guaranteed


def test_a_loss_of_money_is_reached_where_it_is_that_large():
    net = nc.ExposureNetwork(
        traders={"trader": ["a", "b"]},
        assets={"asset": ["ETH"], "price": [2000.0]},
        wallets={"trader": ["a", "b"], "asset": ["ETH", "ETH"], "units": [3.0, 1.0]},
    )
    found = find(net, {"ETH": 1.0}, 2345.0, run=nc.clear)
    assert found.guaranteed
    assert found.size == pytest.approx(2345 / 8000, abs=1e-9)
    assert find(net, {"ETH": 0.5}, 2345.0, run=nc.clear).size == pytest.approx(2 * 2345 / 8000, abs=1e-9)
    by_hand = find(net, lambda size: nc.Shock.price({"ETH": -size / 4}), 1000.0)
    assert by_hand.size == pytest.approx(0.5, abs=1e-9)


def test_defaults_of_a_chain_are_reached_at_the_loss_that_eats_its_equity():
    net = nc.builders.from_matrix(
        [[0, 8, 0], [0, 0, 7.5], [0, 0, 0]], rows="debtor", external_assets=[10, 1, 0], labels=["a", "b", "c"]
    )
    lose = lambda size: nc.Shock.loss({"a": size})  # noqa: E731
    one = find(net, lose, 1, measure="defaults", run=nc.clear, most=10.0, monotone=True)
    assert one.size == pytest.approx(2.0, abs=1e-9)  # a has 10, owes 8
    two = find(net, lose, 2, measure="defaults", run=nc.clear, most=10.0)
    assert two.size == pytest.approx(3.5, abs=1e-9)  # b has 1 + 8 - x, owes 7.5
    assert find(net, lose, 3, measure="defaults", run=nc.clear, most=10.0).size == math.inf


def test_all_crossings_of_a_response_that_turns_are_reported():
    def run(_, shock):
        x = -dict(shock.moves[0][0])["ETH"]
        return {"wave": math.sin(20 * x), "spike": float(abs(x - 0.3371) < 0.002)}

    found = find(loan(), {"ETH": 1.0}, 0.5, measure="wave", run=run)
    first = math.asin(0.5) / 20
    expected = [first, math.pi / 20 - first]
    expected = sorted(edge + turn * math.pi / 10 for edge in expected for turn in range(4))
    expected = [edge for edge in expected if edge < 1]
    np.testing.assert_allclose(found.crossings["above"], expected, atol=1e-9)
    assert found.crossings["rises"].tolist() == [place % 2 == 0 for place in range(len(expected))]
    assert found.size == pytest.approx(first, abs=1e-9)
    assert "crossings in all" in repr(found)
    assert find(loan(), {"ETH": 1.0}, 1, measure="spike", run=run, points=400).size == pytest.approx(0.3351, abs=1e-9)


def test_a_dip_before_the_first_crossing_of_a_grid_is_found_by_the_next():
    def run(_, shock):
        x = -dict(shock.moves[0][0])["ETH"]
        return {"loss": float(x >= 0.5 or 0.14 <= x < 0.16)}

    found = find(loan(), {"ETH": 1.0}, 1, run=run, points=11)
    assert found.size == pytest.approx(0.14, abs=1e-9)
    np.testing.assert_allclose(found.crossings["above"], [0.14, 0.16, 0.5], atol=1e-9)


@pytest.mark.parametrize("seed", some_and_slow(1, 6))
def test_nothing_smaller_reaches_the_threshold_on_a_finer_grid(seed):
    net = nc.generators.market(60, exchanges=2, seed=seed)
    whole = nc.cascade(net, nc.Shock.price({"WETH": -0.6})).figures
    measure = ("liquidated", "bad_debt")[seed % 2]
    threshold = max(0.4 * whole[measure], 1e-3)
    found = find(net, {"WETH": 1.0}, threshold, measure=measure, most=0.6, tolerance=1e-9)
    assert 0 < found.size < 0.6
    value = lambda size: nc.cascade(net, nc.Shock.price({"WETH": -size})).figures[measure]  # noqa: E731
    assert value(found.bracket[0]) < threshold <= value(found.bracket[1])
    assert max(map(value, np.linspace(0, found.bracket[0], 150))) < threshold


def test_the_smallest_of_a_set():
    shocks = [nc.Shock.price({"ETH": fall}) for fall in (-0.8, -0.3, -0.38, -0.5, -0.1)]
    found = find(loan(), shocks, 1, measure="called")
    assert found.shock == shocks[2]
    assert found.bracket == pytest.approx((0.3, 0.38))
    assert found.guaranteed
    assert found.crossings["scenario"].tolist() == [2, 3, 0]
    assert find(loan(), shocks, 2, measure="called").shock is None
    with pytest.raises(ValueError, match="size="):
        find(loan(), [nc.Shock.depth(0.5)], 1, measure="called")


def test_random_runs_have_one_seed_for_all_sizes():
    net = nc.generators.market(60, exchanges=2, seed=2)
    run = functools.partial(nc.cascade, priority="random")
    one, two = (find(net, {"WETH": 1.0}, 5, measure="liquidated", run=run, seed=4, tolerance=1e-6) for _ in range(2))
    assert one.size == two.size
    assert one.evaluated.equals(two.evaluated)


def test_what_cannot_be_searched_is_refused():
    with pytest.raises(nc.UnknownLabelError, match="EHT"):
        find(loan(), {"EHT": 1.0}, 1)
    with pytest.raises(nc.UnknownLabelError, match="called"):
        find(loan(), {"ETH": 1.0}, 1, measure="caled")
    with pytest.raises(ValueError, match="-1"):
        find(loan(), lambda size: nc.Shock.price({"ETH": -2 * size}), 1)
    for options in (
        {"threshold": math.nan},
        {"points": 1},
        {"tolerance": 0.0},
        {"most": -1.0},
        {"direction": {"ETH": 0}},
    ):
        with pytest.raises(ValueError, match=r"allowed|finite"):
            find(**({"net": loan(), "direction": {"ETH": 1.0}, "threshold": 1.0} | options))

    def fails(_, shock):
        raise RuntimeError(str(shock))

    with pytest.raises(nc.ContagionError, match=r"size 0 .*ETH"):
        find(loan(), {"ETH": 1.0}, 1, run=fails)


# comparison --------------------------------------------------------------------------------------------------------


def deeper(net, times):
    return net.replace(assets=net.assets.assign(depth=times * net.assets["depth"]).reset_index())


def test_pairs_make_narrower_intervals():
    net = nc.generators.market(60, exchanges=2, seed=1)
    rng = np.random.default_rng(0)
    falls = [nc.Shock.price({"ETH": -float(x)}, family=True) for x in rng.uniform(0.1, 0.4, 30)]
    found = nc.compare({"now": net, "deep": deeper(net, 4.0)}, falls, progress=False, seed=1)
    paired = found.differences("loss").loc["deep"]
    apart = found.table["loss"].unstack("network")
    assert paired["value"] == pytest.approx((apart["deep"] - apart["now"]).mean())
    assert paired["value"] < 0
    assert paired["upper"] < 0
    spread = math.sqrt(sum(apart[name].var() / 30 for name in apart))
    assert paired["upper"] - paired["lower"] < 0.5 * 2 * 1.96 * spread
    assert found.differences("loss", against="deep").loc["now", "value"] == -paired["value"]
    assert ("loss", "deep") in found.summary().index
    assert "30 scenarios" in repr(found)


def test_a_scenario_has_the_same_random_numbers_on_every_network():
    net = nc.generators.market(20, exchanges=1, seed=1)
    run = lambda _, shock, seed: {"draw": seed % 10_000}  # noqa: E731
    shocks = [nc.Shock.depth(0.5)] * 5
    found = nc.compare({"a": net, "b": net}, shocks, run=run, progress=False, seed=3)
    assert (found.differences("draw")[["value", "lower", "upper"]] == 0).all().all()
    assert found.table["draw"].nunique() == 5
    apart = nc.sweep({"a": net, "b": net}, shocks, run=run, progress=False, seed=3)
    assert apart.table["draw"].nunique() == 10


def test_pairs_with_a_failure_are_left_out():
    net = nc.generators.market(20, exchanges=1, seed=1)

    def run(one, shock):
        if one.data_hash != net.data_hash and shock.depth_factor == 0.5:
            raise RuntimeError
        return {"x": shock.depth_factor}

    shocks = [nc.Shock.depth(0.5), nc.Shock.depth(0.7), nc.Shock.depth(0.9)]
    found = nc.compare({"a": net, "b": deeper(net, 2.0)}, shocks, run=run, progress=False)
    assert found.differences("x").loc["b", "scenarios"] == 2
    with pytest.raises(nc.UnknownLabelError, match="c"):
        found.differences("x", against="c")
    with pytest.raises(ValueError, match="two networks"):
        nc.compare({"a": net}, shocks)
