"""``nc.buffers``: hand cases, marginal values, required sizes, sizing, allocation, rescue, and what is refused."""

from __future__ import annotations

import doctest
import functools
import importlib
import itertools
import math
import pickle

import numpy as np
import pandas as pd
import pytest
from random_markets import random_market
from seeds import slow, slow_rows, some_and_slow

import netcontagion as nc
from netcontagion.clearing import eisenberg_noe, sensitivity
from netcontagion.margining import with_amounts
from netcontagion.ranking._allocation import Programme
from netcontagion.ranking._buffers import _Ask, _levers
from netcontagion.ranking._marginal import marginals
from netcontagion.ranking._outcomes import spillover
from netcontagion.ranking._sizing import sizing

SALES_ONLY = functools.partial(nc.cascade, channels=("liquidation", "impact"))
DEEP = {"assets": {"asset": ["ETH", "USD"], "price": [2000.0, 1.0], "depth": [math.inf, math.inf]}}
FALL = nc.Shock.price({"ETH": -0.3})
HOLE = 1600 - 1400 / 1.05  # debt less what the collateral pays after the fall, at a bonus of 5 %


def lender(fund=100.0, equity=0.0, kept=None, money=1.0, **market):
    """One borrower, 1 ETH of 2000 against a debt of 1600; a fall of 30 % leaves a hole."""
    columns = {"liquidation_threshold": [0.85, 0.0], "liquidation_bonus": [0.05, 0.0], "close_factor": [1.0, 1.0]}
    prices = {"price": [2000.0 * money, money]}
    return nc.ExposureNetwork(
        exchanges={"exchange": ["Lend"], "rulebook": ["lending"], "insurance_fund": [fund], "insurance_asset": [kept],
                   "equity": [equity * money]},
        assets=DEEP["assets"] | prices,
        markets={"exchange": ["Lend"] * 2, "asset": ["ETH", "USD"]} | columns | market,
        balances={"account": ["ann", "ann", "sue"], "asset": ["ETH", "USD", "USD"],
                  "deposited": [1.0, 0.0, 5000.0], "borrowed": [0.0, 1600.0, 0.0]},
    )  # fmt: skip


def banks(rng, n=6, share=0.5):
    owed = rng.uniform(1, 10, (n, n)) * (rng.random((n, n)) < share)
    np.fill_diagonal(owed, 0.0)
    return owed, rng.uniform(0.5, 12, n), rng.uniform(0, 3, n)


def network(owed, assets, outside):
    """Banks with external assets, named b0, b1, ..."""
    net = nc.builders.from_matrix(
        owed, rows="debtor", external_assets=assets, labels=[f"b{i}" for i in range(len(assets))]
    )
    return net.replace(traders=net.traders.assign(external_liabilities=outside).reset_index())


def row(report, tool, node):
    return report.buffers.loc[(tool, node)]


# by hand ------------------------------------------------------------------------------------------------------------


def test_a_fund_takes_what_it_holds_and_suppliers_the_rest():
    report = nc.buffers(lender(equity=50.0), FALL, tools=("insurance_fund", "exchange_equity"))
    fund, equity = row(report, "insurance_fund", "Lend"), row(report, "exchange_equity", "Lend")
    assert report.loss == pytest.approx(HOLE - 150)
    assert fund[["held", "used", "reached"]].tolist() == pytest.approx([100, 100, HOLE])
    assert fund["absorption"] == pytest.approx(100 / HOLE)
    assert equity[["held", "used", "reached"]].tolist() == pytest.approx([50, 50, HOLE - 100])
    assert (fund["exhausted"], fund["first_exhausted"]) == (1.0, 0.0)
    assert fund["firewall"] == pytest.approx(100)
    assert equity["firewall"] == pytest.approx(50)
    assert fund[["marginal", "marginal_less", "step"]].tolist() == pytest.approx([1, 1, 1])


def test_a_fund_that_is_not_exhausted_is_worth_nothing_more():
    fund = row(nc.buffers(lender(fund=300.0), FALL), "insurance_fund", "Lend")
    assert (fund["absorption"], fund["exhausted"], fund["marginal"]) == (pytest.approx(1), 0, 0)
    assert math.isnan(fund["first_exhausted"])
    assert fund["firewall"] == pytest.approx(HOLE)


def test_the_required_fund_is_the_hole_and_proved():
    report = nc.buffers(lender(), FALL, target=0, tolerance=1e-9, grid=3)
    found = report.required.loc[("insurance_fund", "Lend")]
    assert found["required"] == pytest.approx(HOLE, rel=1e-8)
    assert found["required"] >= HOLE * (1 - 1e-12)
    assert found["guaranteed"]
    assert found["added"] == found["required"] - 100
    part = nc.buffers(lender(), FALL, target=60.0, grid=3).required.loc[("insurance_fund", "Lend")]
    assert part["required"] == pytest.approx(HOLE - 60, rel=1e-5)
    assert not part["guaranteed"], "a larger fund is felt, so that the sizes between are not proved"


def test_a_fund_in_an_asset_that_falls_has_to_be_larger_before_the_shock():
    report = nc.buffers(lender(fund=0.01, kept="ETH"), FALL, target=0, quantile=0.5, tolerance=1e-9, grid=3)
    found = report.required.loc[("insurance_fund", "Lend")]
    assert found["units"] == pytest.approx(HOLE / 1400, rel=1e-6)
    assert found["required"] == pytest.approx(HOLE / 0.7, rel=1e-6)
    sized = report.sizing.loc["Lend"]
    assert sized[["units", "money", "covered"]].tolist() == pytest.approx([HOLE / 1400, HOLE, 0])


def test_what_a_scenario_did_stands_by_scenario():
    report = nc.buffers(lender(), [nc.Shock.price({"ETH": -x}) for x in (0.1, 0.3)])
    one = report.scenarios.loc[("insurance_fund", "Lend")]
    assert one["reached"].tolist() == pytest.approx([0, HOLE])
    assert one["used"].tolist() == pytest.approx([0, 100])
    assert math.isnan(one["exhausted"][0])
    assert report.outcomes["spillover"].tolist() == pytest.approx([0, HOLE - 100])
    assert row(report, "insurance_fund", "Lend")["exhausted"] == 0.5


def test_margin_bears_before_the_exchange_does():
    report = nc.buffers(lender(), FALL, tools="trader_margin", target={"bad_debt": 0}, run=SALES_ONLY, grid=3)
    margin = row(report, "trader_margin", "ann")
    assert margin["held"] == 2000
    assert margin["used"] == pytest.approx(400)  # what the account was worth
    assert margin["reached"] == pytest.approx(400 + HOLE)
    assert (margin["exhausted"], margin["first_exhausted"]) == (1, 0)
    # collateral that pays 1600 after the fall, at a bonus of 5 %: 1600 x 1.05 / 0.7
    assert report.required.loc[("trader_margin", "ann"), "required"] == pytest.approx(2400, rel=1e-5)


def test_without_margin_all_of_the_debt_is_bad():
    report = nc.buffers(lender(fund=0.0), FALL, tools="trader_margin", outcome="bad_debt")
    assert row(report, "trader_margin", "ann")["firewall"] == pytest.approx(1600 - HOLE)


def test_a_complete_record_keeps_the_supply_of_its_loans():
    """Ann's own deposit is lent to bob: it can grow, and cannot be taken away."""
    net = nc.ExposureNetwork(
        exchanges={"exchange": ["X"], "rulebook": ["lending"]},
        assets={"asset": ["ETH", "USD"], "price": [1.0, 1.0], "depth": [math.inf, math.inf]},
        markets={"exchange": ["X", "X"], "asset": ["ETH", "USD"], "liquidation_threshold": [0.8, 0.8],
                 "liquidation_bonus": [0.05, 0.05], "close_factor": [1.0, 1.0]},
        balances={"account": ["ann", "ann", "bob", "bob"], "asset": ["ETH", "USD"] * 2,
                  "deposited": [0.0, 10.0, 10.0, 0.0], "borrowed": [5.0, 0.0, 0.0, 7.5]},
        complete=True,
    )  # fmt: skip
    report = nc.buffers(net, FALL, tools="trader_margin", target={"bad_debt": 0}, run=SALES_ONLY, grid=3)
    everybody = report.buffers.loc[("trader_margin", "all")]
    assert math.isnan(everybody["firewall"])
    assert report.tried["size"].min() == everybody["held"] == 20
    # bob owes 7.5, and has x / 2 of ETH at 0.7, at a bonus of 5 %
    assert report.required.loc[("trader_margin", "all"), "required"] == pytest.approx(2 * 7.5 * 1.05 / 0.7, rel=1e-5)


# rates and depth ----------------------------------------------------------------------------------------------------


def test_a_lower_threshold_is_the_larger_buffer():
    falls = [nc.Shock.path([nc.Shock.price({"ETH": -0.05}), nc.Shock.price({"ETH": -0.3})], every=5)]
    report = nc.buffers(lender(), falls, tools="liquidation_threshold", target={"bad_debt": 0}, run=SALES_ONLY, grid=3)
    found = report.required.loc[("liquidation_threshold", "ETH")]
    assert found["held"] == 0.85
    assert found["required"] == pytest.approx(1600 / 1900, rel=1e-5), "called by the first fall, which pays all"
    above = lender(liquidation_threshold=[found["required"] + 1e-4, 0.0])
    at = lender(liquidation_threshold=[found["required"], 0.0])
    assert nc.cascade(above, falls[0]).figures["bad_debt"] > 0
    assert nc.cascade(at, falls[0]).figures["bad_debt"] == 0
    crossing = report.crossings.iloc[0]
    assert crossing["larger"] < crossing["smaller"]
    assert crossing["gained"]


def test_a_bonus_stays_below_what_worsens_health_and_leaves_a_profit():
    report = nc.buffers(lender(), FALL, tools="liquidation_bonus", target={"bad_debt": 420.0}, grid=3)
    sizes = report.tried["size"]
    assert sizes.min() == 0
    assert 0.85 * (1 + sizes.max()) < 1
    assert (report.tried["liquidator_loss"] <= 1e-9).all()
    np.testing.assert_allclose(report.tried["bad_debt"], 1600 - 1400 / (1 + sizes), rtol=1e-9)
    assert report.required.loc[("liquidation_bonus", "ETH"), "required"] == 0
    with pytest.raises(nc.ContagionError, match=r"LT \(1 \+ b\) < 1 bounds it by 0.176"):
        nc.buffers(lender(), FALL, tools="liquidation_bonus", target={"bad_debt": HOLE}, grid=3)


def test_the_close_factor_is_tried_up_to_one():
    falls = nc.Shock.path([nc.Shock.price({"ETH": -0.1}), nc.Shock.price({"ETH": -0.3})], every=1)
    report = nc.buffers(lender(), falls, tools="close_factor", target={"bad_debt": 1e3}, outcome="bad_debt", grid=4)
    assert report.tried["size"].max() == 1
    assert report.buffers["unit"].tolist() == ["1"]
    assert math.isnan(report.buffers["firewall"].iloc[0])


def test_depth_is_money_on_the_books():
    thin = lender().replace(assets={"asset": ["ETH", "USD"], "price": [2000.0, 1.0], "depth": [3.0, math.inf]})
    report = nc.buffers(thin, FALL, tools="depth", target={"bad_debt": HOLE + 50}, outcome="bad_debt", grid=3)
    depth = report.required.loc[("depth", "ETH")]
    assert depth["held"] == 6000
    deep = lender().replace(
        assets={"asset": ["ETH", "USD"], "price": [2000.0, 1.0], "depth": [depth["required"] / 2000, math.inf]}
    )
    assert nc.cascade(deep, FALL).figures["bad_debt"] <= HOLE + 50


# marginal values ----------------------------------------------------------------------------------------------------


def shortfall(owed, assets, outside):
    result = eisenberg_noe(owed, assets, outside, rtol=1e-13)
    return result.values.shortfall.sum(axis=0)


@pytest.mark.parametrize("seeds", [range(6), *slow(range(6, 200))], ids=len)
def test_marginal_values_are_central_differences_away_from_kinks(seeds):
    """Networks of five, two scenarios each: a share and an amount are lost; the derivative is that before the loss."""
    compared = skipped = 0
    for seed in seeds:
        rng = np.random.default_rng(seed)
        owed, assets, outside = banks(rng, 5)
        net, amount = network(owed, assets, outside), 0.2 * assets[0]
        shocks = [nc.Shock.loss(0.3), nc.Shock.loss({"b0": amount})]
        ask = _Ask.of(net, shocks, "trader_margin", None, None, None, "spillover", None, 17, 0.01, 1e-6, None, None)
        levers = _levers(ask, np.zeros(0))
        found = marginals(ask.response, levers, "spillover", {}, 0.01)
        assert all(one.step == 0 for one in found)
        h = 1e-5
        moved = assets[:, None] + np.concatenate([h * np.eye(5), -h * np.eye(5), np.zeros((5, 1))], axis=1)
        lost = moved.copy()
        lost[0] -= amount
        value = (shortfall(owed, 0.7 * moved, outside) + shortfall(owed, lost, outside)) / 2
        up, down = (value[10] - value[:5]) / h, (value[5:10] - value[10]) / h
        smooth = np.abs(up - down) < 1e-7
        central = (value[5:10] - value[:5]) / (2 * h)
        mine = np.array([one.more for one in found[:5]])
        assert np.abs(mine - central)[smooth].max(initial=0) < 1e-6
        together = (central * assets / assets.sum()).sum()
        assert not smooth.all() or abs(found[5].more - together) < 1e-6
        compared, skipped = compared + smooth.sum(), skipped + (~smooth).sum()
    assert compared > 4 * len(seeds)
    assert skipped < len(seeds)


def test_at_a_kink_there_are_two_marginal_values():
    """Bank a has exactly what it owes: more saves nothing, less is missing with its creditor."""
    net = nc.builders.from_matrix([[0, 8], [0, 0]], rows="debtor", external_assets=[9, 0], labels=["a", "b"])
    one = row(nc.buffers(net, nc.Shock.loss({"a": 1.0}), tools="trader_margin"), "trader_margin", "a")
    assert (one["marginal"], one["marginal_less"], one["step"]) == (0, 1, 0)


def test_other_models_are_bumped():
    owed, assets, outside = banks(np.random.default_rng(5))
    net, run = network(owed, assets, outside), functools.partial(nc.clear, model="rogers_veraart", alpha=0.7, beta=0.8)
    report = nc.buffers(net, nc.Shock.loss(0.3), tools={"trader_margin": ["b1"]}, run=run)
    one, h = row(report, "trader_margin", "b1"), 0.01 * assets[1]
    assert one["step"] == pytest.approx(h)

    def missing(change):
        more = assets + change * np.eye(6)[1]
        return nc.clearing.rogers_veraart(owed, 0.7 * more, outside, alpha=0.7, beta=0.8).values.shortfall.sum()

    assert one["marginal"] == pytest.approx((missing(0) - missing(h)) / h, abs=1e-6)
    assert one["marginal_less"] == pytest.approx((missing(-h) - missing(0)) / h, abs=1e-6)


def test_the_firewall_of_a_bank_is_what_it_holds_taken_away():
    owed, assets, outside = banks(np.random.default_rng(3))
    report = nc.buffers(network(owed, assets, outside), nc.Shock.loss({"b2": 0.5}), tools="trader_margin")
    for place in range(6):
        less = assets - 0.5 * np.eye(6)[2]
        less[place] = 0.0
        base = shortfall(owed, assets - 0.5 * np.eye(6)[2], outside)
        gap = row(report, "trader_margin", f"b{place}")["firewall"]
        assert gap == pytest.approx(shortfall(owed, less, outside) - base, abs=1e-8)


# required sizes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [None, *slow(0.5)])
def test_required_sizes_of_a_clearing_hold_on_a_fine_grid(share):
    owed, assets, outside = banks(np.random.default_rng(11))
    losses, now = (0.2, 0.5, 0.6, 0.9), []
    shocks = [nc.Shock.loss(loss) for loss in losses]
    now = [float(shortfall(owed, (1 - loss) * assets, outside)) for loss in losses]
    limit = 0.7 * sorted(now)[3 if share is None else 1]
    report = nc.buffers(network(owed, assets, outside), shocks, tools="trader_margin", target=limit, quantile=share,
                        tolerance=1e-9)  # fmt: skip
    found = report.required.loc[("trader_margin", "all")]
    assert found["guaranteed"]
    needed = 4 if share is None else 2
    grid = np.linspace(0, 3 * assets.sum(), 16)

    def meets(size):
        scaled = assets * size / assets.sum()
        return sum(shortfall(owed, (1 - loss) * scaled, outside) <= limit * (1 + 1e-7) for loss in losses) >= needed

    assert [meets(size) for size in grid] == [size >= found["required"] * (1 - 1e-7) for size in grid]
    assert not meets(found["required"] * (1 - 1e-5))


def test_required_funds_of_a_cascade_hold_on_a_fine_grid():
    net, falls = lender(), [nc.Shock.price({"ETH": -x}) for x in (0.25, 0.35)]
    found = nc.buffers(net, falls, target=50.0, tolerance=1e-9, grid=3).required.loc[
        ("insurance_fund", "Lend"), "required"
    ]
    for size in [*np.linspace(0, 3 * found, 8), found * (1 - 1e-6), found]:
        sized = with_amounts(net, "exchanges", "insurance_fund", [size])
        met = max(nc.cascade(sized, fall).figures["socialised"] for fall in falls) <= 50.0 * (1 + 1e-9)
        assert met == (size >= found * (1 - 1e-7)), size


def test_where_more_margin_does_harm_all_crossings_are_told_and_nothing_is_claimed():
    """Two accounts sold one after the other: with more margin the small one comes second, at a lower price."""
    net = nc.ExposureNetwork(
        exchanges={"exchange": ["X"], "rulebook": ["closeout"]},
        assets={"asset": ["ETH", "USD"], "price": [1.0, 1.0], "depth": [50.0, math.inf]},
        markets={"exchange": ["X", "X"], "asset": ["ETH", "USD"], "liquidation_threshold": [0.8, 0.0]},
        balances={"account": ["big", "small"] * 2, "asset": ["ETH"] * 2 + ["USD"] * 2,
                  "deposited": [12.0, 3.0, 0.0, 0.0], "borrowed": [0.0, 0.0, 8.8, 2.3]},
    )  # fmt: skip
    sizes, limit = np.arange(2, 4, 0.25), 0.05
    report = nc.buffers(net, nc.Shock.price({"ETH": -0.1}), tools={"trader_margin": ["small"]}, run=SALES_ONLY,
                        target={"bad_debt": limit}, grid={"trader_margin": sizes.tolist()}, tolerance=1e-4)  # fmt: skip
    found = report.required.loc[("trader_margin", "small")]
    assert report.crossings["gained"].tolist() == [True, False, True]
    assert not found["guaranteed"]
    assert 3.25 < found["required"] < 3.5
    held = {}
    for size in [*sizes, *report.crossings["smaller"], *report.crossings["larger"]]:
        table = net.balances.reset_index().query("not account.str.startswith('others@')")
        table.loc[(table["account"] == "small") & (table["asset"] == "ETH"), "deposited"] = size
        run = SALES_ONLY(net.replace(balances=table), nc.Shock.price({"ETH": -0.1}))
        held[size] = run.figures["bad_debt"] <= limit
    assert all(held[size] for size in held if size >= found["required"])
    for crossing in report.crossings.itertuples():
        assert (held[crossing.smaller], held[crossing.larger]) == (not crossing.gained, crossing.gained)
    assert any("not between them" in line for line in report.assumptions)


# sizing -------------------------------------------------------------------------------------------------------------


def test_a_fund_is_sized_at_a_quantile_of_what_reaches_it():
    falls = np.round(np.linspace(0.02, 0.6, 8), 6)
    shocks = [nc.Shock.price({"ETH": -x}) for x in np.random.default_rng(0).permutation(falls)]
    sized = nc.buffers(lender(kept="ETH", fund=0.1), shocks, quantile=0.8).sizing.loc["Lend"]
    holes = np.maximum(1600 - 2000 * (1 - falls) / 1.05, 0.0) * (0.85 * 2000 * (1 - falls) < 1600)
    ranked = int(np.ceil(0.8 * 8)) - 1
    assert sized["money"] == pytest.approx(np.sort(holes)[ranked])
    assert sized["units"] == pytest.approx(np.sort(holes / (2000 * (1 - falls)))[ranked])
    worth = 200 * (1 - falls)
    assert sized["covered"] == (worth >= holes).mean()
    assert "cover_1" not in sized


def test_cover_one_and_two_come_out_of_single_defaults():
    """Accounts are closed out whole on a book of depth D: q units bring D p (1 - exp(-q / D))."""
    units, debts, depth = np.array([4.0, 3.0, 2.0]), np.array([3.9, 2.95, 1.5]), 20.0
    net = nc.ExposureNetwork(
        exchanges={"exchange": ["X"], "rulebook": ["closeout"], "insurance_fund": [0.1]},
        assets={"asset": ["ETH", "USD"], "price": [1.0, 1.0], "depth": [depth, math.inf]},
        markets={"exchange": ["X", "X"], "asset": ["ETH", "USD"], "liquidation_threshold": [0.99, 0.0]},
        balances={"account": ["a", "b", "c"] * 2, "asset": ["ETH"] * 3 + ["USD"] * 3,
                  "deposited": [*units, 0.0, 0.0, 0.0], "borrowed": [0.0, 0.0, 0.0, *debts]},
    )  # fmt: skip
    run = functools.partial(nc.cascade, channels=("liquidation",))
    holes = np.maximum(debts - units, 0.0)
    assert not holes.any()
    impact = functools.partial(nc.cascade, channels=("liquidation", "impact"))
    alone = [impact(net, nc.Shock.default(name)).figures["bad_debt"] for name in "abc"]
    sized = nc.buffers(net, nc.scenarios.defaults(net), quantile=0.6, run=impact).sizing.loc["X"]
    worst = sorted(alone, reverse=True)
    assert worst[1] > 0
    assert sized[["cover_1", "cover_2"]].tolist() == pytest.approx([worst[0], worst[0] + worst[1]])
    assert sized["money"] == pytest.approx(worst[1])
    assert nc.buffers(net, nc.scenarios.defaults(net), quantile=0.6, run=run).sizing.loc["X", "cover_1"] == 0


# allocation ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", some_and_slow(1, 20))
def test_a_linear_programme_spends_a_budget_as_brute_force_does(seed):
    rng = np.random.default_rng(seed)
    owed, assets, outside = banks(rng, 3, 0.9)
    losses, budget = (0.4, 0.8), 4.0
    report = nc.buffers(network(owed, assets, outside), [nc.Shock.loss(loss) for loss in losses],
                        tools="trader_margin", budget=budget)  # fmt: skip
    steps = 8
    parts = np.array([(i, j, steps - i - j) for i in range(steps + 1) for j in range(steps + 1 - i)]) / steps
    tried = assets + budget * parts
    means = sum(shortfall(owed, (1 - loss) * tried.T, outside) for loss in losses) / 2
    told = report.allocation.attrs
    assert told["after"] <= means.min() + 1e-9
    assert told["after"] >= means.min() - budget / steps  # payments grow by at most n per unit, on a grid this fine
    assert told["bound"] == pytest.approx(told["after"], abs=1e-7)
    assert report.allocation["money"].sum() <= budget * (1 + 1e-12)
    assert told["before"] == pytest.approx(report.loss)


def test_defaulted_banks_and_prices_are_felt_by_a_budget():
    """Money of a bank that fails is gone; that of the other arrives."""
    net = nc.builders.from_matrix([[0, 8, 0], [0, 0, 5], [0, 0, 0]], rows="debtor", external_assets=[8, 0, 0],
                                  labels=["a", "b", "c"])  # fmt: skip
    report = nc.buffers(net, nc.Shock.default("a"), tools="trader_margin", budget=3.0)
    assert report.allocation["money"].to_dict() == pytest.approx(
        {("trader_margin", "a"): 0, ("trader_margin", "b"): 3, ("trader_margin", "c"): 0}
    )
    assert report.allocation.attrs["after"] == pytest.approx(8 + 2)


def test_a_budget_of_a_cascade_goes_where_the_hole_is():
    report = nc.buffers(lender(fund=0.0), FALL, tools=("insurance_fund", "trader_margin"), budget=100.0, run=SALES_ONLY)
    told = report.allocation.attrs
    assert told["before"] == pytest.approx(HOLE)
    assert told["after"] == pytest.approx(HOLE - 100)
    assert told["bound"] == 0
    assert "no bound is known" in told["method"]
    assert report.allocation.loc[("insurance_fund", "Lend"), "money"] == pytest.approx(100)


def rescued(owed, assets, outside, chosen):
    """Assets with which the chosen pay whatever happens."""
    return assets + np.where(chosen, owed.sum(axis=1) + outside, 0.0)


RESCUES = list(itertools.product(range(20), (None, 0.5)))
PLAIN = ((1, 0.5),)


@pytest.mark.parametrize(
    ("seed", "share"),
    [*PLAIN, *slow_rows(*(case for case in RESCUES if case not in PLAIN))],
)
def test_the_fewest_nodes_to_rescue_are_those_of_brute_force(seed, share):
    owed, assets, outside = banks(np.random.default_rng([seed, 9]), 5)
    losses = (0.5, 0.9)
    target = {"spillover": 6.0} if seed % 2 else {"defaults": 1}
    report = nc.buffers(network(owed, assets, outside), [nc.Shock.loss(loss) for loss in losses],
                        tools="trader_margin", target=target | {"spillover": 1e3} if seed % 2 == 0 else target,
                        quantile=share)  # fmt: skip

    def meets(chosen):
        chosen = np.array(chosen)
        met = 0
        for loss in losses:
            result = eisenberg_noe(owed, rescued(owed, (1 - loss) * assets, outside, chosen), outside)
            left = result.values.shortfall.sum() if seed % 2 else result.defaulted.sum()
            met += bool(left <= (6.0 + 1e-7 if seed % 2 else 1))
        return met >= (2 if share is None else 1)

    fewest = min(sum(chosen) for chosen in itertools.product([False, True], repeat=5) if meets(chosen))
    found = report.rescue
    assert len(found) == fewest
    assert meets([f"b{i}" in found for i in range(5)])


# laws ---------------------------------------------------------------------------------------------------------------


def test_sizes_follow_the_currency():
    one, other = (
        nc.buffers(lender(equity=50.0, fund=0.05, kept="ETH", money=money), FALL,
                   tools=("insurance_fund", "exchange_equity"),
                   target=60.0 * money, quantile=0.5, grid=2)
        for money in (1.0, 0.25)
    )  # fmt: skip
    money = ["held", "reached", "used", "firewall", "step"]
    same = ["absorption", "exhausted", "first_exhausted", "marginal", "marginal_less"]
    np.testing.assert_allclose(other.buffers[money], 0.25 * one.buffers[money], rtol=1e-9)
    np.testing.assert_allclose(other.buffers[same].astype(float), one.buffers[same].astype(float), rtol=1e-9)
    np.testing.assert_allclose(other.required["required"], 0.25 * one.required["required"], rtol=1e-5)
    np.testing.assert_allclose(other.sizing["units"], one.sizing["units"], rtol=1e-12)


def test_nothing_depends_on_the_order_in_which_things_are_given():
    owed, assets, outside = banks(np.random.default_rng(2), 4)
    shocks = [nc.Shock.loss(loss) for loss in (0.3, 0.6, 0.8)]
    net = network(owed, assets, outside)
    order = np.random.default_rng(0).permutation(4)
    mixed = nc.builders.from_matrix(owed[np.ix_(order, order)], rows="debtor", external_assets=assets[order],
                                    labels=[f"b{i}" for i in order])  # fmt: skip
    outside_of = pd.Series(outside, index=[f"b{i}" for i in range(4)])
    mixed = mixed.replace(traders=mixed.traders.assign(external_liabilities=outside_of).reset_index())
    one, other = (
        nc.buffers(who, given, tools={"trader_margin": names}, target=3.0, budget=2.0)
        for who, given, names in ((net, shocks, ["b0", "b3"]), (mixed, shocks[::-1], ["b3", "b0"]))
    )
    for name in ("buffers", "required", "allocation"):
        pd.testing.assert_frame_equal(getattr(one, name), getattr(other, name), rtol=1e-12)


@pytest.mark.slow
def test_nothing_depends_on_the_number_of_processes():
    net = nc.datasets.load("market")
    falls = [nc.Shock.price({"ETH": -x}, family=True) for x in (0.2, 0.3)]
    one, other = (nc.buffers(net, falls, target=5e5, grid=3, tolerance=0.1, n_jobs=jobs) for jobs in (1, 2))
    for name in ("buffers", "scenarios", "required", "tried"):
        pd.testing.assert_frame_equal(getattr(one, name), getattr(other, name))


@pytest.mark.slow
def test_random_orders_are_the_same_for_every_size():
    run = functools.partial(nc.cascade, priority="random")
    one, other = (nc.buffers(lender(), [FALL, FALL], run=run, target=10.0, seed=3, grid=3) for _ in range(2))
    pd.testing.assert_frame_equal(one.tried, other.tried)


def test_a_network_with_other_amounts_shares_its_index_and_is_what_replace_makes():
    net = nc.datasets.load("market")
    nc.cascade(net, nc.Shock.price({"ETH": -0.2}, family=True))
    equity = np.arange(4.0)
    mine = with_amounts(net, "exchanges", "equity", equity)
    theirs = net.replace(exchanges=net.exchanges.assign(equity=equity).reset_index())
    assert mine.data_hash == theirs.data_hash
    assert mine.__dict__["_cascade_index"] is net.__dict__["_cascade_index"]
    shock = nc.Shock.price({"ETH": -0.3}, family=True)
    pd.testing.assert_frame_equal(nc.cascade(mine, shock).exchanges, nc.cascade(theirs, shock).exchanges)
    assert float(net.exchanges["equity"].sum()) == 187600
    for column, amounts in (
        ("skin", [0.0] * 4),
        ("equity", [1.0]),
        ("equity", [0, 0, 0, -1]),
        ("equity", [np.nan] * 4),
    ):
        with pytest.raises(ValueError, match=column):
            with_amounts(net, "exchanges", column, amounts)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_nothing_that_is_shared_depends_on_the_amounts(seed):
    net, shock = random_market(seed)
    nc.cascade(net, shock)
    table, draw = net.exchanges, np.random.default_rng(seed)
    fund, equity = (table[name].to_numpy() * draw.uniform(0, 3, len(table)) for name in ("insurance_fund", "equity"))
    external = net.traders["external_assets"].to_numpy() * draw.uniform(0, 3, len(net.traders))
    mine = with_amounts(with_amounts(net, "exchanges", "insurance_fund", fund), "exchanges", "equity", equity)
    mine = with_amounts(mine, "traders", "external_assets", external)
    theirs = net.replace(
        exchanges=table.assign(insurance_fund=fund, equity=equity).reset_index(),
        traders=net.traders.assign(external_assets=external).reset_index(),
    )
    assert mine.data_hash == theirs.data_hash
    one, other = nc.cascade(mine, shock, seed=1), nc.cascade(theirs, shock, seed=1)
    one.check()
    for name in ("exchanges", "traders", "accounts", "losses"):
        pd.testing.assert_frame_equal(getattr(one, name), getattr(other, name))


def test_a_larger_fund_in_an_asset_that_falls_loses_more_and_is_not_proved():
    """Nothing reaches the fund, so none is enough for a limit of losses; fifty coins of it lose far more."""
    fall, limit = nc.Shock.price({"ETH": -0.1}), {"loss": 2000.0}
    for kept, proved in (("ETH", False), (None, True)):
        sizes = {"insurance_fund": [0.0, 1000.0]}
        found = nc.buffers(lender(fund=0.1, kept=kept), fall, target=limit, grid=sizes).required.iloc[0]
        assert (found["required"], found["guaranteed"]) == (0.0, proved)
    assert nc.cascade(lender(fund=50.0, kept="ETH"), fall).loss.to_numpy().sum() > 10_000


@pytest.mark.parametrize("model", ["eisenberg_noe", "rogers_veraart"])
def test_counts_that_do_not_move_do_not_end_the_search(model):
    """A bank that owes a hundred times what it has defaults still with eight times as much."""
    options = {"alpha": 0.0, "beta": 0.0} if model == "rogers_veraart" else {}
    run = functools.partial(nc.clear, model=model, **options)
    net = nc.builders.from_matrix([[0, 100.0], [0, 0]], rows="debtor", external_assets=[1.0, 1.0], labels=["a", "b"])
    found = nc.buffers(net, nc.Shock(), tools={"trader_margin": ["a"]}, target={"defaults": 0}, run=run).required
    alone = found.loc[("trader_margin", "a")]
    assert (alone["required"], alone["guaranteed"]) == (pytest.approx(100, rel=1e-3), True)
    rich = nc.builders.from_matrix(
        [[0, 100.0, 0], [0, 0, 0], [0, 0, 0]], rows="debtor", external_assets=[1.0, 1.0, 9998.0], labels=["a", "b", "c"]
    )
    found = nc.buffers(rich, nc.Shock(), tools="trader_margin", target={"defaults": 0}, run=run).required
    assert found.loc[("trader_margin", "all"), "required"] == pytest.approx(1e6, rel=1e-3)  # a has a ten thousandth
    with pytest.raises(nc.ContagionError, match="from 2 on more of it changes nothing"):
        nc.buffers(net, nc.Shock.default("a"), tools={"trader_margin": ["b"]}, target={"defaults": 0}, run=run)


def test_a_loss_of_more_than_there_is_is_refused_as_by_a_run():
    net = nc.builders.from_matrix([[0, 8.0], [0, 0]], rows="debtor", external_assets=[9.0, 1.0], labels=["a", "b"])
    with pytest.raises(ValueError, match="the loss of 'a' exceeds its external assets"):
        nc.buffers(net, [nc.Shock.loss({"a": 30.0}), nc.Shock()], tools="trader_margin")


def test_a_node_may_be_called_all():
    net = nc.builders.from_matrix([[0, 8.0], [0, 0]], rows="debtor", external_assets=[9.0, 5.0], labels=["a", "all"])
    report = nc.buffers(net, nc.Shock.loss({"a": 3.0}), tools="trader_margin", target=0, budget=1.0)
    assert report.buffers.index.get_level_values("node").tolist() == ["a", "all", "all"]
    assert report.buffers["held"].tolist() == [9, 5, 14]
    assert report.allocation["money"].tolist() == [1, 0]
    assert report.allocation.index.tolist() == [("trader_margin", "a"), ("trader_margin", "all")]


def test_banks_alone_can_be_run_in_rounds():
    net = nc.builders.from_matrix([[0, 8.0], [0, 0]], rows="debtor", external_assets=[9.0, 5.0], labels=["a", "b"])
    path = nc.Shock.path([nc.Shock.loss({"a": 1.0}), nc.Shock.loss({"a": 2.0})])
    for shock in (nc.Shock.loss({"a": 3.0}), path):
        report = nc.buffers(net, shock, tools={"trader_margin": "a"}, run=nc.cascade, target=0, grid=5, tolerance=1e-9)
        assert report.loss == pytest.approx(2)
        found = report.required.loc[("trader_margin", "a")]
        assert found["required"] == pytest.approx(11, rel=1e-6)


def test_a_quantile_is_not_off_by_one_where_its_share_is_rounded():
    reached = np.arange(1.0, 101)[:, None]
    net, calm = lender(), nc.scenarios.Scenarios([nc.Shock()] * 100)
    for share in (0.07, 0.28, 0.55, 0.56, 0.99):
        assert sizing(net, calm, reached, share)["money"].tolist() == [round(100 * share)]


# words and refusals -------------------------------------------------------------------------------------------------


def test_a_report_says_what_it_found():
    report = nc.buffers(lender(), FALL, target=0, quantile=0.9, budget=10.0, grid=3)
    text, page = repr(report), report._repr_html_()
    for said in ("required for spillover <= 0 in 90 % of the scenarios", "funds for 90 %", "budget 10", "assumed"):
        assert said in text
        assert said.replace("<", "&lt;") in page
    assert report.provenance["target"] == "spillover <= 0 in 90 % of the scenarios"
    assert report.provenance["run"] == "cascade"
    again = pickle.loads(pickle.dumps(report))
    pd.testing.assert_frame_equal(again.buffers, report.buffers)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tools": "insurance_fundd"}, "unknown tool 'insurance_fundd'; did you mean 'insurance_fund'"),
        ({"target": {"bad_det": 1}}, "unknown outcome 'bad_det'; did you mean 'bad_debt'"),
        ({"outcome": "spilover"}, "unknown outcome 'spilover'; did you mean 'spillover'"),
        ({"tools": {"insurance_fund": ["Lnd"]}}, "unknown exchange 'Lnd'; did you mean 'Lend'"),
        ({"tools": {"trader_margin": "sue"}}, "does not apply to 'sue': it has nothing of the kind"),
        ({"tools": ()}, "tools is empty"),
        ({"tools": "depth"}, "'depth' does not apply: no book has a finite depth"),
        ({"target": -1}, "target of 'spillover' is -1"),
        ({"target": {}}, "target is empty"),
        ({"target": True}, "target of 'spillover' is True"),
        ({"quantile": 1.0}, "quantile is 1.0; allowed: a share above 0 and below 1"),
        ({"tools": "exchange_equity", "quantile": 0.5}, "quantile needs a target"),
        ({"budget": 0}, "budget is 0; allowed: money above 0"),
        ({"budget": float("nan")}, "budget is nan"),
        ({"budget": 1, "tools": "close_factor"}, "close_factor cost none"),
        ({"grid": 1}, "grid is 1; allowed: 2 points or more"),
        ({"grid": {"insurance_fund": [1.0, -1.0]}}, "allowed: two sizes or more, finite, not below 0"),
        ({"grid": {"depth": [1.0, 2.0]}}, "unknown tool 'depth'"),
        ({"step": 0}, "step is 0"),
        ({"tolerance": 2}, "tolerance is 2"),
        ({"shocks": []}, "there is no scenario to run"),
        ({"shocks": nc.Shock.price({"ETHH": -0.1})}, "unknown asset 'ETHH'; did you mean 'ETH'"),
        ({"run": max}, "give nc.cascade or nc.clear"),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_cure(options, said):
    with pytest.raises((nc.ContagionError, ValueError, TypeError)) as caught:
        nc.buffers(lender(), options.pop("shocks", FALL), **options)
    assert said in str(caught.value)


def test_all_problems_are_one_error():
    with pytest.raises(ValueError, match="4 things are wrong") as caught:
        nc.buffers(lender(), FALL, tools=("insurance_fundd", "depth"), target={"bad_det": 1}, quantile=2)
    for said in ("insurance_fundd", "no book has a finite depth", "bad_det", "quantile is 2"):
        assert said in str(caught.value)
    with pytest.raises(nc.UnknownLabelError, match="2 names are unknown"):
        nc.buffers(lender(), nc.Shock.price({"ETHH": -0.1}), outcome="bad_det")
    with pytest.raises(TypeError, match="tools is 5"):
        nc.buffers(lender(), FALL, tools=5)
    with pytest.raises(TypeError, match="the network comes first"):
        nc.buffers(FALL, lender())


def test_tools_that_a_network_lacks_say_why():
    net = network(*banks(np.random.default_rng(0)))
    with pytest.raises(nc.ContagionError, match="'insurance_fund' does not apply: the network has no exchanges"):
        nc.buffers(net, nc.Shock.loss(0.1))
    frozen = lender().replace(exchanges={"exchange": ["Lend"], "rulebook": ["lending"], "insurance_fund": [1.0]})
    closeout = frozen.replace(exchanges={"exchange": ["Lend"], "rulebook": ["closeout"]})
    with pytest.raises(nc.ContagionError, match="no exchange leaves the close factor to its markets"):
        nc.buffers(closeout, FALL, tools="close_factor")


def test_a_target_out_of_reach_says_how_close_one_gets_and_why():
    with pytest.raises(nc.ContagionError) as caught:
        nc.buffers(lender(), [FALL, nc.Shock()], target={"bad_debt": 10.0})
    said = str(caught.value)
    assert "the target bad_debt <= 10 in every scenario cannot be met" in said
    assert f"insurance_fund of 'Lend' comes closest at 533.333: bad_debt {HOLE:,.6g}" in said
    assert "met in 1 of 2 scenarios; from 533.333 on more of it changes nothing" in said


def test_a_rescue_needs_what_it_is_about():
    report = nc.buffers(lender(), FALL)
    with pytest.raises(nc.ContagionError, match="rescue needs a target, and clearing"):
        report.rescue  # noqa: B018


def test_a_run_without_an_answer_is_named():
    run = functools.partial(nc.cascade, max_rounds=1)
    with pytest.raises(nc.ContagionError, match="scenario 0 ended with MAX_ROUNDS"):
        nc.buffers(lender(), FALL, run=run)


def test_payments_of_the_programme_are_the_clearing():
    """With a budget of next to nothing the programme's least shortfall is that of the clearing."""
    owed, assets, outside = banks(np.random.default_rng(21))
    report = nc.buffers(network(owed, assets, outside), nc.Shock.loss(0.5), tools="trader_margin", budget=1e-9)
    assert report.allocation.attrs["bound"] == pytest.approx(report.loss, rel=1e-7)
    assert Programme.of(report._response).assets.shape == (1, 6)
    assert sensitivity(nc.clear(report._response.net, nc.Shock.loss(0.5))).threat_index.max() > 0


@pytest.mark.parametrize("module", ["ranking._buffers", "margining._kept"])
def test_examples_run(module):
    found = doctest.testmod(importlib.import_module(f"netcontagion.{module}"))
    assert found.attempted
    assert not found.failed


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(14))
def test_where_a_size_is_guaranteed_more_changes_nothing(seed):
    """On markets of every kind: what a fund or equity that is never exhausted cannot cover, ten times it cannot."""
    net, shock = random_market(seed)
    for tool, column in (("insurance_fund", "insurance_fund"), ("exchange_equity", "equity")):
        try:
            required = nc.buffers(net, shock, tools=tool, target=0, grid=3, tolerance=1e-3).required
        except nc.ContagionError as error:
            if "cannot be met" not in str(error) and "does not apply" not in str(error):
                raise
            continue
        for (_, node), found in required[required["guaranteed"]].iterrows():
            if node == "all":
                continue
            figures, size = [], found["units" if tool == "insurance_fund" else "required"]
            for factor in (1.0, 1.5, 10.0):
                sizes = np.array(net.columns("exchanges")[column])
                sizes[net.labels("exchanges").get_loc(node)] = factor * size
                figures.append(spillover(nc.cascade(with_amounts(net, "exchanges", column, sizes), shock, seed=0)))
            assert figures == pytest.approx([figures[0]] * 3, rel=1e-9, abs=1e-6)


def test_a_size_without_an_answer_does_not_meet_the_target():
    net = nc.datasets.load("market")
    fall = nc.Shock.price({"ETH": -0.3}, family=True)
    short = functools.partial(nc.cascade, max_rounds=len(nc.cascade(net, fall).rounds) + 1)
    grid = {"depth": [1e3, 1e6, 1e8]}  # thin books take more rounds
    report = nc.buffers(net, fall, tools={"depth": ["WETH"]}, target={"bad_debt": 1e6}, run=short, grid=grid)
    tried = report.tried.set_index("size")
    assert np.isinf(tried["bad_debt"][[1e3, 1e6]]).all()
    assert (tried["meet"][[1e3, 1e6, 1e8]] == [0, 0, 1]).all()
    assert 1e6 < report.required["required"].iloc[0] < 1e8
    assert any("without an answer" in text for text in report.assumptions)
