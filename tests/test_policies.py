"""Policies of traders: answers, reductions elsewhere, gates, stops, leverage targets, buyers; paths of shocks."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from seeds import slow, some_and_slow
from test_cascade_laws import assert_same, check, facts
from test_cascade_twin import random_shock, random_tables

import netcontagion as nc
from netcontagion.errors import ContagionError
from netcontagion.margining._transit import settle, submit
from netcontagion.network import policies, policy

ALL = ("contrarian", "default", "deleveraging", "leverage_target", "passive", "runner", "stop_loss")


def own_policy(folder, text, name="own"):
    path = folder / f"{name}.toml"
    path.write_text(text)
    return str(path)


def two_exchanges(b=({"ETH": 100.0}, {}), *, depth=math.inf, debt=75.0, policy="default", **exchanges):
    """Account a at A owes 75 USD against 100 ETH; b of the same owner is at B. Threshold 0.8, bonus 5 %."""
    rows = [("a", "ETH", 100.0, 0.0), ("a", "USD", 0.0, debt)]
    rows += [("b", name, b[0].get(name, 0.0), b[1].get(name, 0.0)) for name in {**b[0], **b[1]}]
    account, asset, deposited, borrowed = zip(*rows, strict=True)
    return nc.ExposureNetwork(
        traders={"trader": ["t"], "policy": [policy]},
        assets={"asset": ["ETH", "USD"], "price": [1.0, 1.0], "depth": [depth, np.inf]},
        exchanges={"exchange": ["A", "B"], "rulebook": ["lending"] * 2, **exchanges},
        markets={
            "exchange": [*"AABB"],
            "asset": ["ETH", "USD"] * 2,
            "liquidation_threshold": [0.8, 0.0] * 2,
            "liquidation_bonus": [0.05] * 4,
            "close_factor": [0.5] * 4,
        },
        accounts={"account": ["a", "b"], "trader": ["t", "t"], "exchange": ["A", "B"]},
        balances={"account": account, "asset": asset, "deposited": deposited, "borrowed": borrowed},
    )


def run(net, shock=None, **options):
    found = nc.cascade(net, shock or nc.Shock.price({"ETH": -0.1}), **options)
    check(found)
    return found


# policies as data ----------------------------------------------------------------------------------------------------


def test_presets():
    assert policies() == ALL
    default, passive = policy("default"), policy("passive")
    assert (default.target_health, default.withdrawal_health) == (1.05, 1.25)
    assert default.answers
    assert not default.orders
    assert not passive.answers


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("target_helth = 1.1", "did you mean 'target_health'"),
        ("target_health = 0.9", r"\[1, inf\)"),
        ("top_up = 1", "true or false"),
        ("sell = 'all'", "pro_rata, liquidity, most_liquid"),
        ("target_health = 1.5", "withdrawal_health is below target_health"),
        ("[[stop_loss]]\nshare = 0.5", "stop_loss.drop is missing"),
        ("[[stop_loss]]\ndrop = 0.1\nshare = 0.7\n[[stop_loss]]\ndrop = 0.2\nshare = 0.7", "more than 1"),
        ("[buy]\ndemnd = 1.0", "did you mean 'buy.demand'"),
        ("buy = 1", r"a table \[buy\]"),
        ("top_up = ", "not valid TOML"),
    ],
)
def test_bad_policy_files_name_key_and_cure(tmp_path, text, words):
    with pytest.raises(ContagionError, match=words):
        policy(own_policy(tmp_path, text))


def test_a_bad_policy_is_a_problem_of_its_row():
    with pytest.raises(nc.SchemaError, match=r"traders.policy, row 1: 'contrarain'.*did you mean 'contrarian'"):
        nc.ExposureNetwork(traders={"trader": ["a", "b"], "policy": ["default", "contrarain"]})
    with pytest.raises(nc.SchemaError, match="does not exist"):
        nc.ExposureNetwork(traders={"trader": ["a"], "policy": ["missing.toml"]})


def test_target_and_withdrawal_health_are_the_policys(tmp_path):
    """b owes 20: weighted 72; down to health 2 it may give (72 - 40) / 0.72 = 44.4 of the units a needs."""
    name = own_policy(tmp_path, "target_health = 1.2\nwithdrawal_health = 2.0")
    found = run(two_exchanges(({"ETH": 100.0}, {"USD": 20.0}), policy=name))
    assert found.accounts.loc["a", "health"] == pytest.approx(1.2)
    moved = found.events[found.events["type"] == "withdrawal"]["quantity"].sum()
    assert moved == pytest.approx((1.2 * 75 - 72) / 0.72)
    assert found.accounts.loc["b", "health"] == pytest.approx(0.72 * (100 - moved) / 20)


def test_lag_and_probability(tmp_path):
    """An answer that comes a round late finds half of the debt closed; probability 0 is no answer at all."""
    late = run(two_exchanges(policy=own_policy(tmp_path, "lag = 1", "late")))
    assert late.accounts.loc["a", "liquidated"]
    never = run(two_exchanges(policy=own_policy(tmp_path, "probability = 0.0", "never")))
    passive = run(two_exchanges(policy="passive"))
    pd.testing.assert_frame_equal(never.events, passive.events)


# step 3: reductions elsewhere ----------------------------------------------------------------------------------------


def test_borrowing_elsewhere_is_reduced_to_free_margin():
    """a lacks (1.05 x 75 - 72) / 0.72 = 9.375 ETH; b has health 72 / 57.6 = 1.25, nothing to spare.

    Repaying r frees 1.25 r - 0.8 r = 0.45 r of weighted margin; 9.375 ETH of 0.9 are 8.4375, weighted 6.75: r = 15.
    """
    found = run(two_exchanges(({"ETH": 100.0}, {"USD": 57.6})))
    assert found.accounts.loc["a", ["topped_up", "liquidated"]].tolist() == [True, False]
    assert found.accounts.loc["a", "health"] == pytest.approx(1.05)
    assert found.accounts.loc["b", "health"] == pytest.approx(1.25)
    sums = found.events.groupby("type")["quantity"].sum()
    assert sums["withdrawal"] == pytest.approx(9.375)
    assert sums["purchase"] == pytest.approx(15.0)
    assert sums["sale"] == pytest.approx(15.0 / 0.9)
    calls = found.events[found.events["type"] == "call"].index
    assert found.events.loc[found.events["type"] == "sale", "parent"].isin(calls).all()
    off = run(two_exchanges(({"ETH": 100.0}, {"USD": 57.6})), channels=("withdrawal", "liquidation"))
    assert off.accounts.loc["a", "liquidated"]


@pytest.mark.parametrize("depth", [math.inf, 300.0, 1000.0])
def test_a_reduction_pays_what_the_book_asks(depth):
    """With impact more is sold, and both healths still end on their targets at the marks of the round."""
    found = nc.cascade(
        two_exchanges(({"ETH": 100.0}, {"USD": 57.6}), depth=depth),
        nc.Shock.price({"ETH": -0.1}),
        max_rounds=1,
        strict=False,
    )
    check(found)
    state = found._state
    units = state.entries.deposited[state.entries.deposited > 0]
    sold = found.assets.loc["ETH", "sold"]
    assert units[:2].sum() == pytest.approx(200.0 - sold)
    assert sold >= 15 / 0.9 * (1 - 1e-12)
    assert (sold > 15 / 0.9 * 1.001) == math.isfinite(depth)
    assert found.accounts.loc["a", "topped_up"]


def test_a_reduction_that_is_not_enough_changes_nothing():
    """The other account has 10 of equity: not enough, and everything is as if it had not been asked."""
    net = two_exchanges(({"ETH": 100.0}, {"USD": 70.0}), debt=89.0, depth=50.0)
    found = run(net, max_rounds=1, strict=False)
    without = run(net, channels=("liquidation", "impact"), max_rounds=1, strict=False)
    assert found.accounts.loc["a", "liquidated"]
    pd.testing.assert_frame_equal(found.accounts, without.accounts)
    pd.testing.assert_frame_equal(found.losses, without.losses)
    pd.testing.assert_frame_equal(found.events, without.events)


# gates ---------------------------------------------------------------------------------------------------------------


def test_a_closed_exchange_pays_nothing_out():
    """Failure mode 13: withdrawals during gating."""
    found = run(two_exchanges(withdraw_status=["open", "closed"]))
    assert found.accounts.loc["a", "liquidated"]
    assert not (found.events["type"].isin(["request", "withdrawal"])).any()


def test_a_delayed_withdrawal_is_in_transit_and_comes_too_late():
    found = run(two_exchanges(withdraw_delay=[0, 2]))
    events = found.events.set_index("type")
    assert events.loc["request", ["round", "quantity"]].tolist() == [0, pytest.approx(9.375)]
    assert events.loc[["request", "withdrawal"], ["account", "exchange"]].to_numpy().tolist() == [["b", "B"]] * 2
    assert events.loc["withdrawal", ["round", "quantity"]].tolist() == [2, pytest.approx(9.375)]
    assert found.accounts.loc["a", "liquidated"]
    stopped = nc.cascade(
        two_exchanges(withdraw_delay=[0, 2]), nc.Shock.price({"ETH": -0.1}), max_rounds=1, strict=False
    )
    check(stopped)
    assert stopped._state.transit[2].sum() == pytest.approx(9.375)


def test_a_cap_pays_out_first_come_first_served():
    """Cap 3 a round, ETH at 0.9 in round 0: 3 / 0.9 units at once, the rest later."""
    found = run(two_exchanges(withdraw_cap=[math.nan, 3.0]))
    paid = found.events[found.events["type"] == "withdrawal"]
    assert paid["round"].tolist() == [0, 1, 2]
    assert paid["quantity"].sum() == pytest.approx(9.375)
    assert paid["cash"].max() == pytest.approx(3.0)
    wide = run(two_exchanges(withdraw_cap=[math.nan, 100.0]))
    assert wide.accounts.loc["a", ["topped_up", "liquidated"]].tolist() == [True, False]


@pytest.mark.parametrize("cap", [1e-2, *slow(1e-3)])
def test_of_a_long_queue_rounds_are_passed_over_and_change_nothing_else(cap, monkeypatch):
    """What trickles in over thousands of rounds comes to the same, one percent later at most, never above the cap."""
    net = two_exchanges(withdraw_cap=[math.nan, cap], depth=1e3)
    net = net.replace(assets=net.assets.assign(volatility=0.05, depth_power=1.0).reset_index())
    fast = run(net)
    monkeypatch.setattr("netcontagion.margining._cascade.PATIENCE", 10**9)
    slow = run(net)
    assert (slow.status, fast.status) == (nc.Status.SETTLED, nc.Status.SETTLED)
    assert len(fast.rounds) < (0.4 if cap == 1e-2 else 0.08) * len(slow.rounds)
    paid, plain = (one.events[one.events["type"] == "withdrawal"] for one in (fast, slow))
    assert fast.rounds.index[-1] <= 1.01 * slow.rounds.index[-1]
    assert paid["cash"].sum() == pytest.approx(plain["cash"].sum(), rel=1e-9)
    assert (paid["cash"].cumsum() <= cap * (paid["round"] + 1) * (1 + 1e-9)).all()
    assert paid["cash"].to_numpy()[:-1] == pytest.approx(cap * np.diff(paid["round"], prepend=-1)[:-1])
    for name in ("accounts", "traders", "exchanges", "assets", "losses"):
        numbers = (getattr(one, name).select_dtypes("number") for one in (fast, slow))
        pd.testing.assert_frame_equal(*numbers, rtol=1e-9, atol=1e-9)
    faded = [0.94 ** (-0.5 * one.rounds.index[-1]) * one._play.between.depth.volatility for one in (fast, slow)]
    assert faded[0] == pytest.approx(faded[1], rel=1e-9)
    assert faded[0].max() > 0
    passed = fast.rounds.index[-1] + 1 - len(fast.rounds)
    assert f"{passed} rounds of capped withdrawals alone are passed over" in fast.assumptions
    assert not any("passed over" in line for line in slow.assumptions)


def test_caps_of_rounds_that_were_passed_over_pay_nothing_that_is_asked_for_after_them():
    """Six rounds of cap 1 pay 6 of what waits, six more the rest of it; a new request has the cap of its own round."""
    state = run(two_exchanges(withdraw_cap=[math.nan, 1.0]), max_rounds=1, strict=False)._play.state
    marks, old = state.marks(), state.transit
    entry = np.array([[0.0, old.target[0], old.source[0], 0.0, 1.0 / 0.9]])
    waits = 8.4375 - 1.0
    submit(state, entry * [1, 1, 1, 1, 3], 6)
    paid = settle(state, marks, 6, 6)
    assert (paid[:, 3:].sum(axis=1) * 0.9).tolist() == pytest.approx([6.0])
    paid = settle(state, marks, 12, 6)
    assert (paid[:, 3:].sum(axis=1) * 0.9).tolist() == pytest.approx([waits - 6.0, 3.0])
    submit(state, entry * [1, 1, 1, 1, 3], 18)
    paid = settle(state, marks, 18, 6)
    assert (paid[:, 3:].sum(axis=1) * 0.9).tolist() == pytest.approx([1.0])


# stops, leverage, buyers ---------------------------------------------------------------------------------------------


def test_stops_fall_like_dominoes(tmp_path):
    """Case liquidation_domino_stops: 94, sell 10 -> 89, sell 8 -> 85, stop; half a unit of price for each unit sold."""
    names = [own_policy(tmp_path, f"[[stop_loss]]\ndrop = {drop}", f"s{drop}") for drop in (0.05, 0.08, 0.155, 0.2)]
    net = nc.ExposureNetwork(
        traders={"trader": [*"abcd"], "policy": names},
        assets={"asset": ["ETH"], "price": [100.0], "depth": [188.0], "impact": ["linear"]},
        holdings={"trader": [*"abcd"], "asset": ["ETH"] * 4, "units": [10.0, 8.0, 20.0, 5.0]},
    )
    found = run(net, nc.Shock.price({"ETH": -0.06}))
    assert found.assets.loc["ETH", "price"] == pytest.approx(85.0, abs=1e-12)
    stops = found.events[found.events["type"] == "stop_sale"]
    assert stops[["round", "credit", "quantity"]].to_numpy().tolist() == [[0, "a", 10.0], [1, "b", 8.0]]


@pytest.mark.parametrize(("cost", "sold"), [(0.01, 500.0), (0.0, 400.0)])
def test_minimal_deleverage(tmp_path, cost, sold):
    """G11: A = 1000, E = 30, margin 5 % (leverage 20), unit cost 1 %: x = (A - L E) / (1 - L c) = 500."""
    net = nc.ExposureNetwork(
        traders={
            "trader": ["t"],
            "policy": [own_policy(tmp_path, f'leverage = "one_sided"\ncost = {cost}')],
            "leverage_limit": [20.0],
            "external_liabilities": [970.0],
        },
        assets={"asset": ["X"], "price": [1.0]},
        holdings={"trader": ["t"], "asset": ["X"], "units": [1000.0]},
    )
    assert run(net, nc.Shock()).assets.loc["X", "sold"] == pytest.approx(sold, abs=1e-9)


def two_banks(policy):
    return nc.ExposureNetwork(
        traders={"trader": ["a", "b"], "policy": [policy] * 2, "external_liabilities": [90.0, 40.0]},
        assets={"asset": ["X"], "price": [1.0]},
        holdings={"trader": ["a", "b"], "asset": ["X"] * 2, "units": [100.0, 50.0]},
    )


def test_leverage_targeting_sells_debt_over_equity_times_the_loss():
    """Greenwood, Landier, Thesmar (2015): sales B x loss, 9 x 1 and 4 x 0.5, after a fall of 1 %."""
    found = run(two_banks("leverage_target"), nc.Shock.price({"X": -0.01}))
    assert found.events[found.events["type"] == "target_sale"]["cash"].tolist() == pytest.approx([9.0, 2.0])


def test_one_sided_targets_do_not_react_to_gains():
    rise = nc.Shock.price({"X": 0.01})
    bought = run(two_banks("leverage_target"), rise).events
    assert bought[bought["type"] == "target_purchase"]["cash"].tolist() == pytest.approx([9.0, 2.0])
    assert run(two_banks("deleveraging"), rise).events["type"].tolist() == ["shock"]


@pytest.mark.parametrize(
    ("sell", "units"), [("pro_rata", [30.0, 15.0]), ("liquidity", [22.5, 22.5]), ("most_liquid", [0.0, 45.0])]
)
def test_what_is_sold(tmp_path, sell, units):
    """45 of 90 + 45 in units of price 1: in proportion; the same share of each depth; the deeper book, all of it."""
    depth = [1e6, 1e6] if sell == "liquidity" else [1e6, 2e6]
    net = nc.ExposureNetwork(
        traders={
            "trader": ["t"],
            "policy": [own_policy(tmp_path, f'leverage = "one_sided"\nsell = "{sell}"')],
            "leverage_limit": [2.0],
            "external_liabilities": [90.0],
        },
        assets={"asset": ["X", "Y"], "price": [1.0, 1.0], "depth": depth},
        holdings={"trader": ["t"] * 2, "asset": ["X", "Y"], "units": [90.0, 45.0]},
    )
    found = nc.cascade(net, nc.Shock(), max_rounds=1, strict=False)
    check(found)
    assert found.assets["sold"].tolist() == pytest.approx(units)


def crash(cash):
    return nc.ExposureNetwork(
        traders={"trader": ["a", "m"], "policy": ["stop_loss", "contrarian"]},
        assets={"asset": ["ETH", "USD"], "price": [100.0, 1.0], "depth": [50.0, np.inf]},
        holdings={"trader": ["a"], "asset": ["ETH"], "units": [40.0]},
        wallets={"trader": ["m"], "asset": ["USD"], "units": [cash]},
    )


def test_buyers_make_the_bottom():
    """Failure mode 15: without demand the price ends at 75 exp(-0.8); with it, where q = D (1 - p / f)."""
    shock = nc.Shock.price({"ETH": -0.25})
    prices = []
    for cash in (0.0, 100.0, 1e6):
        found = run(crash(cash), shock)
        prices.append(found.assets.loc["ETH", "price"])
        left = found._state.wallets.units.sum()
        assert 0 <= left <= cash
    assert prices[0] == pytest.approx(75 * math.exp(-0.8))
    assert prices[0] < prices[1] < prices[2] < 75
    bought = 50 * (1 - prices[2] / 75)
    assert prices[2] == pytest.approx(75 * math.exp(-(40 - bought) / 50))
    assert run(crash(1e6), shock, channels=("reduction", "impact")).assets.loc["ETH", "price"] == pytest.approx(
        prices[0]
    )


# paths of shocks -----------------------------------------------------------------------------------------------------


def test_a_path_of_one_shock_is_the_shock():
    shock = random_shock(3)
    assert nc.Shock.path([shock]) == shock
    one, two = nc.Shock.price({"ETH": -0.1}), nc.Shock.depth(0.5)
    assert nc.Shock.path([one, two], every=3).later == ((3, two),)
    path = nc.Shock.path([one, two])
    assert path + two == two + path
    for wrong in ([], [path, one], one):
        with pytest.raises((ValueError, TypeError)):
            nc.Shock.path(wrong)
    with pytest.raises(ValueError, match="path of shocks needs rounds"):
        nc.clear(two_exchanges(), path)


def test_a_path_strikes_in_its_rounds_and_impact_stays():
    """0.9 x 0.9: nobody is called; the third strike calls a at 0.9^3 x 0.8 x 100 / 60 = 0.972."""
    fall = nc.Shock.price({"ETH": -0.1})
    found = run(two_exchanges(policy="passive", debt=60.0), nc.Shock.path([fall, fall, fall], every=4))
    assert found.accounts.loc["a", "first_round"] == 8
    assert found.events.query("type == 'shock'")["round"].tolist() == [-1, 4, 8]
    assert found.assets.loc["ETH", "price"] == pytest.approx(0.729)
    assert found.losses.loc["shock"].sum() == pytest.approx(0.271 * 200)
    call = found.events[found.events["type"] == "call"].iloc[0]
    assert found.events.loc[call["parent"], "type"] == "shock"
    assert "round 8: ETH -10 %" in found.facts["shock"]


def test_losses_and_defaults_strike_late():
    net = nc.ExposureNetwork(
        traders={"trader": ["a", "b"], "external_assets": [10.0, 20.0]},
        assets={"asset": ["X"], "price": [2.0]},
        wallets={"trader": ["a", "b"], "asset": ["X", "X"], "units": [3.0, 4.0]},
    )
    found = run(net, nc.Shock.path([nc.Shock.loss(0.5), nc.Shock.loss({"b": 10.0}), nc.Shock.default("a")]))
    assert found.traders["loss_shock"].tolist() == pytest.approx([5.0 + 5.0 + 6.0, 20.0])
    with pytest.raises(ValueError, match="exceeds"):
        nc.cascade(net, nc.Shock.path([nc.Shock.loss(0.5), nc.Shock.loss({"b": 11.0})]))


# laws ----------------------------------------------------------------------------------------------------------------


def lively(seed):
    """A random market whose traders have all kinds of policies and holdings, and whose exchanges have gates."""
    tables, rng = random_tables(seed), np.random.default_rng([seed, 7])
    traders, venues = tables["traders"]["trader"], tables["exchanges"]["exchange"]
    tables["traders"]["policy"] = [str(rng.choice(ALL)) for _ in traders]
    value = {asset: float(rng.exponential(500.0)) for asset in ("BTC", "ETH")}
    price = dict(zip(tables["assets"]["asset"], tables["assets"]["price"], strict=True))
    rows = [(t, a, value[a] / price[a] * rng.random()) for t in traders for a in value if rng.random() < 0.6]
    if rows:
        tables["holdings"] = dict(zip(("trader", "asset", "units"), map(list, zip(*rows, strict=True)), strict=True))
    tables["exchanges"] |= {
        "withdraw_status": [str(rng.choice(["open", "open", "closed"])) for _ in venues],
        "withdraw_delay": rng.integers(0, 3, len(venues)).tolist(),
        "withdraw_cap": [float(rng.choice([math.nan, 50.0])) for _ in venues],
    }
    shock = random_shock(seed)
    if rng.random() < 0.6:
        later = [nc.Shock.price({"BTC": float(rng.uniform(-0.3, 0.1))}), nc.Shock.default("t1") + nc.Shock.depth(0.7)]
        shock = nc.Shock.path([shock, *later], every=int(rng.integers(1, 4)))
    return tables, shock


@pytest.mark.parametrize("seed", some_and_slow(8, 25))
def test_laws_hold_whatever_traders_do(seed):
    tables, shock = lively(seed)
    check(nc.cascade(nc.ExposureNetwork(**tables), shock, max_rounds=400, strict=False))


@pytest.mark.parametrize("seed", range(6))
def test_neither_rows_nor_repetition_change_anything(seed):
    tables, shock = lively(seed)
    rng = np.random.default_rng(seed)
    shuffled = {}
    for name, table in tables.items():
        order = rng.permutation(len(next(iter(table.values()))))
        shuffled[name] = {column: [values[i] for i in order] for column, values in table.items()}
    options = {"max_rounds": 100, "strict": False, "seed": 5}
    one, other = (nc.cascade(nc.ExposureNetwork(**each), shock, **options) for each in (tables, shuffled))
    assert_same(facts(one), facts(other))
    pd.testing.assert_frame_equal(one.events, other.events)
