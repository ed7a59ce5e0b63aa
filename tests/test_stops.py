"""Stops on positions: resting orders that close contracts once the mark has moved against them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from random_markets import random_market
from seeds import some_and_slow
from test_policies import own_policy
from test_soak import flaws_of

import netcontagion as nc


def stop(folder, *levels, answers=True, **keys):
    """Write a policy with stops (drop, share) on positions."""
    text = "" if answers else "top_up = false\nwithdraw = false\nreduce = false\n"
    for drop, share in levels:
        text += f'[[stop_loss]]\ndrop = {drop}\nshare = {share}\nof = "positions"\n'
    text += "".join(f"{key} = {value!r}\n" for key, value in keys.items())
    return own_policy(folder, text, f"s{abs(hash(text))}")


def perpetual(policies, quantity, deposited=1e4, *, depth=188.0, impact="linear", kind="linear", margin=0.05):
    """Traders a, b, .. with contracts at 100 on one exchange, settled in USD or, where inverse, in BTC at 100."""
    names, inverse = [*"abcdef"[: len(quantity)]], kind == "inverse"
    coin, size = "BTC" if inverse else "USD", len(quantity)
    return nc.ExposureNetwork(
        traders={"trader": names, "policy": policies},
        assets={
            "asset": ["C", "BTC", "USD"],
            "price": [100.0, 100.0, 1.0],
            "kind": [kind, "token", "stable"],
            "depth": [depth, math.inf, math.inf],
            "impact": [impact, "exponential", "exponential"],
            "settlement": [coin, None, None],
            "multiplier": [10.0 if inverse else 1.0, 1.0, 1.0],
        },
        exchanges={"exchange": ["X"], "rulebook": ["perpetual"]},
        markets={"exchange": ["X"] * 3, "asset": ["C", "BTC", "USD"], "maintenance_margin": [margin, *[math.nan] * 2]},
        accounts={"account": names, "trader": names, "exchange": ["X"] * size},
        balances={"account": names, "asset": [coin] * size, "deposited": [deposited] * size},
        positions={"account": names, "asset": ["C"] * size, "quantity": quantity, "entry_price": [100.0] * size},
    )


def run(net, move, **options):
    found = nc.cascade(net, nc.Shock.price({"C": move}), **options)
    found.check()
    return found


def fired(found, kind="stop_sale"):
    rows = found.events[found.events["type"] == kind]
    return [*zip(rows["round"], rows["account"].astype(str), rows["quantity"], strict=True)]


def test_stops_on_contracts_fall_like_dominoes(tmp_path):
    """Case liquidation_domino_stops: 94, sell 10 -> 89, sell 8 -> 85, stop; half a unit of price for each contract."""
    rules = [stop(tmp_path, (drop, 1.0)) for drop in (0.05, 0.08, 0.155, 0.2)]
    found = run(perpetual(rules, [10.0, 8.0, 20.0, 5.0]), -0.06)
    assert found.assets.loc["C", "price"] == pytest.approx(85.0, abs=1e-12)
    assert fired(found) == [(0, "a", 10.0), (1, "b", 8.0)]
    gained = found.accounts["equity"] - 1e4
    assert gained[["a", "b"]].tolist() == pytest.approx([10.0 * (91.5 - 100.0), 8.0 * (87.0 - 100.0)])
    parents = found.events.loc[found.events["type"] == "stop_sale", "parent"].tolist()
    assert parents == [0, found.events.index[found.events["type"] == "stop_sale"][0]]


def test_stops_of_shorts_buy(tmp_path):
    """At 106 a short of 10 covers at 106 + 5 x 106 / 188 on average."""
    found = run(perpetual([stop(tmp_path, (0.05, 1.0))], [-10.0]), 0.06)
    assert fired(found, "stop_purchase") == [(0, "a", 10.0)]
    paid = 106.0 * (1.0 + 5.0 / 188.0)
    assert found.accounts.loc["a", "equity"] - 1e4 == pytest.approx(-10.0 * (paid - 100.0))
    assert fired(found) == []


def test_levels_close_shares_of_the_opening_position(tmp_path):
    rule = stop(tmp_path, (0.05, 0.25), (0.1, 0.25), (0.2, 0.5))
    net = perpetual([rule], [8.0], depth=math.inf)
    assert run(net, -0.04).events["type"].tolist() == ["shock"]
    for move, units in ((-0.05, 2.0), (-0.1, 4.0), (-0.2, 8.0)):
        assert [row[2] for row in fired(run(net, move))] == [units]
    shock = nc.Shock.path([nc.Shock.price({"C": -0.06}), nc.Shock.price({"C": -0.06})], every=2)
    found = nc.cascade(net, shock)
    found.check()
    assert fired(found) == [(0, "a", 2.0), (2, "a", 2.0)]


def test_those_that_fire_together_get_one_price(tmp_path):
    rule = stop(tmp_path, (0.05, 1.0))
    found = run(perpetual([rule] * 3, [10.0, 30.0, 5.0]), -0.06)
    price = found.events.loc[found.events["type"] == "stop_sale", "price"]
    assert price.tolist() == pytest.approx([94.0 * (1.0 - 22.5 / 188.0)] * 3)


def test_a_stop_fires_before_the_call(tmp_path):
    """Equity 10 x (97 - 100) + 60 = 30 is below the margin of 48.5: without its stop, a is called and closed."""
    for rule, called in ((stop(tmp_path, (0.02, 0.6), answers=False), False), ("passive", True)):
        found = run(perpetual([rule], [10.0], 60.0, depth=math.inf), -0.03)
        assert found.accounts.loc["a", ["called", "liquidated"]].tolist() == [called, called]


def test_inverse_contracts_settle_in_coins(tmp_path):
    """10 contracts of 10 USD bought at 100 and closed at 80 cost 100 / 80 - 100 / 100 coins."""
    net = perpetual([stop(tmp_path, (0.1, 1.0))], [10.0], 5.0, depth=math.inf, kind="inverse")
    found = run(net, -0.2)
    state = found._state
    assert fired(found) == [(0, "a", 10.0)]
    assert state.entries.deposited.sum() == pytest.approx(5.0 - (100.0 / 80.0 - 1.0))
    thin = run(
        perpetual([stop(tmp_path, (0.1, 1.0))], [10.0], 5.0, depth=50.0, impact="exponential", kind="inverse"), -0.2
    )
    cost = 10.0 / 80.0 * 50.0 * (math.exp(10.0 / 50.0) - 1.0)  # the integral of face over 80 exp(-q / 50)
    assert thin._state.entries.deposited.sum() == pytest.approx(5.0 - (cost - 1.0))


def test_what_a_ladder_does_not_take_rests(tmp_path):
    """A book of 12 contracts fills 12 of 30, in proportion; the rest is closed when nothing takes it: never."""
    rule = stop(tmp_path, (0.05, 1.0))
    found = run(perpetual([rule] * 2, [10.0, 20.0], depth=1.0, impact="ladder 0.99:6 0.95:6 | 1.01:6"), -0.06)
    assert [row[2] for row in fired(found)] == pytest.approx([4.0, 8.0])
    assert found.positions["quantity"].iloc[:2].tolist() == pytest.approx([6.0, 12.0])


def test_off_by_default_and_with_its_channel(tmp_path):
    net = perpetual(["stop_loss"], [10.0])
    assert not fired(run(net, -0.3))
    own = perpetual([stop(tmp_path, (0.05, 1.0))], [10.0])
    assert not fired(run(own, -0.06, channels=("liquidation", "impact")))


def test_more_than_all_of_a_position_is_refused(tmp_path):
    rule = stop(tmp_path, (0.1, 0.7), (0.2, 0.7))
    with pytest.raises(nc.ContagionError, match=r"stop_loss\.share of positions adds up to more than 1"):
        perpetual([rule], [10.0])


@pytest.mark.parametrize("seed", some_and_slow(4, 12))
def test_laws_hold_with_stops_and_runs(tmp_path, seed):
    """A random market of all rulebooks whose traders have stops on positions, runs, or neither."""
    net, shock = random_market(seed, flaws=flaws_of(seed))
    rng = np.random.default_rng([seed, 3])
    both = stop(tmp_path, (0.05, 0.3), (0.15, 0.7)), own_policy(tmp_path, "[run]\nw0 = 0.05\nw1 = 3.0\nlag = 1", "run")
    traders = net.traders[~net.traders.index.str.startswith("others@")].copy()
    traders["policy"] = rng.choice(["default", *both], len(traders)).tolist()
    found = nc.cascade(net.replace(traders=traders), shock, strict=False, max_rounds=2_000)
    if found.status is not nc.Status.NONFINITE:
        found.check()
