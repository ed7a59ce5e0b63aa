"""Wealth of all nodes from what a run touched, against the whole network laid out."""

from __future__ import annotations

import numpy as np
import pytest
from random_markets import FLAWS, random_market

import netcontagion as nc
from netcontagion.margining._stock import wealth_of_nodes


def of_the_whole(run, without):
    traders = (run.traders["wealth_before"] - run.traders["loss"]).to_numpy()
    exchanges = run._state.opening["wealth"][len(traders) :][: len(run.exchanges)] - run.exchanges["loss"].to_numpy()
    return float(np.delete(traders, without).sum() + exchanges.sum()), float(np.abs(traders).sum() + 1.0)


def assert_wealth(net, shock):
    run = nc.cascade(net, shock, seed=0, strict=False)
    quick = 0
    for without in (np.zeros(0, dtype=np.int64), np.array([1]), np.arange(3)):
        expected, scale = of_the_whole(run, without)
        assert run.node_wealth(without) == pytest.approx(expected, abs=1e-11 * scale)
        quick += run.clearing is None and wealth_of_nodes(run._play.state, without) is not None
    return quick


def without_debts(net):
    """The same without what is cleared."""
    return net.replace(liabilities=None, traders=net.traders.assign(external_liabilities=0.0))


def test_wealth_of_a_market():
    net = nc.generators.market(80, exchanges=2, perpetuals=1, seed=5)
    fall = nc.Shock.price({"ETH": -0.3}, family=True)
    for shock in (nc.Shock(), nc.Shock.default(net.labels("traders")[1]), fall):
        assert assert_wealth(net, shock) == 3


@pytest.mark.parametrize("seed", [0, 3, 11])
def test_wealth_of_random_markets(seed):
    net, shock = random_market(seed)
    assert_wealth(net, shock + nc.Shock.default("t1"))
    assert_wealth(without_debts(net), shock + nc.Shock.default("t1"))


def test_wealth_in_an_equilibrium():
    names = [f"k{place}" for place in range(10)]
    net = nc.ExposureNetwork(
        exchanges={"exchange": ["X"], "rulebook": ["closeout"], "equity": [0.5]},
        assets={"asset": ["ETH", "USD"], "price": [1.0, 1.0], "depth": [50.0, np.inf]},
        markets={"exchange": ["X", "X"], "asset": ["ETH", "USD"], "liquidation_threshold": [0.8, 0.0]},
        balances={
            "account": names * 2,
            "asset": ["ETH"] * 10 + ["USD"] * 10,
            "deposited": [1.0] * 10 + [0.0] * 10,
            "borrowed": [0.0] * 10 + [0.72] * 10,
        },
    )
    run = nc.cascade(net, nc.Shock.price({"ETH": -0.2}), mode="equilibrium")
    assert run.least is not None
    for one in (run, run.least):
        assert one.node_wealth() == pytest.approx(of_the_whole(one, [])[0], rel=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize("flaw", FLAWS)
@pytest.mark.parametrize("seed", range(5))
def test_wealth_of_flawed_markets(seed, flaw):
    net, shock = random_market(seed, flaws=(flaw,))
    assert_wealth(net, shock)
    for struck in (shock, nc.Shock.default("t1"), shock + nc.Shock.default("t1")):
        assert_wealth(without_debts(net), struck)


def test_wealth_after_a_path_of_shocks_lays_out_the_whole_network():
    net, shock = random_market(2)
    path = nc.Shock.path([shock, nc.Shock.price({"ETH": -0.1})], every=2)
    run = nc.cascade(net, path, seed=0, strict=False)
    assert wealth_of_nodes(run._play.state, np.zeros(0, dtype=np.int64)) is None
    assert_wealth(net, path)
