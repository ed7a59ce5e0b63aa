"""Spreads of books: what sellers get and buyers pay beside the price, and how it answers to volatility."""

from __future__ import annotations

import math

import numpy as np
import pytest
from random_markets import FLAWS, random_market
from seeds import some_and_slow
from test_cascade_golden import NAN, market, network, once, run
from test_margin_cascade import book, to
from test_margin_cascade import rules as margin_rules
from test_quotes import lend
from test_together import FREE, average, fills

import netcontagion as nc
from netcontagion._status import Status
from netcontagion.errors import ContagionError, SchemaError
from netcontagion.margining import maker_spread, update_volatility

rules = margin_rules


def with_spread(net, **columns):
    """Give assets spreads: columns of {asset: value}."""
    table = net.assets
    for name, values in columns.items():
        table = table.assign(**{name: [values.get(label, 0.0) for label in table.index]})
    return net.replace(assets=table)


@pytest.mark.parametrize("priority", ["worst_first", "pro_rata"])
def test_sellers_get_half_of_it_less_and_buyers_pay_half_of_it_more(priority):
    net = network({"k": ({"ETH": 100.0}, {"BTC": 8.5})}, prices={"BTC": 10.0}, depth={"ETH": 900.0, "BTC": 50.0},
                  rulebook="closeout")  # fmt: skip
    found = once(with_spread(net, spread={"ETH": 0.04, "BTC": 0.1}), priority=priority)
    sale, purchase = fills(found, "sale").loc["k"], fills(found, "purchase").loc["k"]
    assert sale["cash"] == pytest.approx(100.0 * 0.98 * average(100.0, 900.0), rel=1e-12)
    bought = 50.0 * math.log1p(sale["cash"] / 1.05 / 10.0 / 50.0)
    assert purchase["quantity"] == pytest.approx(min(bought, 8.5), rel=1e-12)
    assert purchase["cash"] == pytest.approx(1.05 * 10.0 * 50.0 * math.expm1(purchase["quantity"] / 50.0), rel=1e-12)
    assert found.assets.loc["ETH", "price"] == pytest.approx(math.exp(-100.0 / 900.0))  # between bid and ask


def test_a_spread_costs_where_nothing_moves_the_price():
    net = network({"k": ({"ETH": 100.0}, {"USD": 90.0})}, rulebook="closeout")
    found = run(with_spread(net, spread={"ETH": 0.02}))
    assert fills(found, "sale").loc["k", "cash"] == pytest.approx(99.0)
    assert found.traders.loc["k", "loss_execution"] == pytest.approx(1.0)
    assert found.losses.loc["execution", "market"] == pytest.approx(-1.0)


def test_liquidators_weigh_the_spread_against_the_bonus():
    """D ln((1 + b) (1 - s / 2)) units are sold in a round; with s = .1 a bonus of 5 % pays nobody."""
    net = network({"k": ({"ETH": 100.0}, {"USD": 85.0})}, depth={"ETH": 20.0})
    first = fills(once(with_spread(net, spread={"ETH": 0.04})), "liquidation")
    assert first["quantity"].iloc[0] == pytest.approx(20.0 * math.log(1.05 * 0.98), rel=1e-10)
    wide = run(with_spread(net, spread={"ETH": 0.1}))
    assert wide.status is Status.EXHAUSTED
    assert not wide.accounts["liquidated"].any()
    assert once(with_spread(net, spread={"ETH": 0.095})).accounts["liquidated"].any()  # 1.05 x .9525 > 1


@pytest.mark.parametrize("contract", ["P", "I"])
def test_contracts_close_at_bid_and_ask(contract, rules):
    """A long of 10 leaves at 98 x .98: of an inverse contract 10 / that price coins for each."""
    money = {"S": 60.0} if contract == "P" else {"C": 0.5}
    net = book({"k": (money, {contract: (10.0, 100.0)})}, rulebook=rules(), rate=0.9)
    found = once(with_spread(net, spread={contract: 0.04}), nc.Shock.price({contract: -0.02}))
    worse = 10.0 * 98.0 * 0.02 if contract == "P" else 10.0 * 10.0 / 98.0 * (1 / 0.98 - 1) * 100.0
    assert found.traders.loc["k", "loss_execution"] == pytest.approx(worse, rel=1e-9)


def test_spreads_widen_with_volatility():
    """Round 0 sees the shock: s = s_0 (sigma / sigma_0)^a, at most 1."""
    net = network({"k": ({"ETH": 100.0}, {"USD": 90.0})}, rulebook="closeout")
    sigma = update_volatility(0.02, math.log(0.7))
    for power, quoted in ((0.5, 0.01), (1.0, 0.01), (3.0, 0.2)):
        given = {"spread": {"ETH": quoted}, "spread_power": {"ETH": power}, "volatility": {"ETH": 0.02}}
        found = run(with_spread(net, **given), nc.Shock.price({"ETH": -0.3}))
        spread = min(maker_spread(quoted, sigma, normal=0.02, power=power), 1.0)
        assert fills(found, "sale").loc["k", "cash"] == pytest.approx(70.0 * (1.0 - spread / 2), rel=1e-12)
        assert any("one day of volatility" in line for line in found.assumptions)


def test_an_own_book_has_its_own_spread():
    accounts = {"k": ({"ETH": 100.0}, {"USD": 90.0})}
    rows = [market("X", "ETH", depth=1e12) | {"spread": 0.08}, market("X", "USD") | {"spread": NAN}]
    net = network(accounts, markets=rows, rulebook="closeout")
    assert fills(run(with_spread(net, spread={"ETH": 0.02})), "sale").loc["k", "cash"] == pytest.approx(96.0)
    rows[0]["spread"] = NAN
    net = network(accounts, markets=rows, rulebook="closeout")
    assert fills(run(with_spread(net, spread={"ETH": 0.02})), "sale").loc["k", "cash"] == pytest.approx(99.0)
    rows[0] |= {"spread": 0.08, "depth": NAN}
    with pytest.raises(SchemaError, match=r"markets.spread, row 0: .*empty without markets.depth"):
        network(accounts, markets=rows, rulebook="closeout")


def test_what_a_spread_needs():
    net = network({"k": ({"ETH": 100.0}, {"USD": 50.0})}, rulebook="closeout")
    with pytest.raises(SchemaError, match="above 0 with spread_power"):
        with_spread(net, spread={"ETH": 0.1}, spread_power={"ETH": 1.0})
    with pytest.raises(ContagionError, match=r"'ETH': spread is 0\.1"):
        nc.cascade(with_spread(net, spread={"ETH": 0.1}), nc.Shock(), mode="equilibrium")


@pytest.mark.parametrize(("spread", "gap"), [(0.0, 0.0), (0.02, -2 * math.log(0.99)), (0.2, math.log(1.1))])
def test_arbitrage_stops_where_it_does_not_pay_the_spread(spread, gap):
    """The log difference of two books of one asset falls to what selling on one and buying on the other costs."""
    net = lend(
        {"a@A": {"X": 1.0}, "b@B": {"X": 1.0}},
        {"X": {"price": 1.0, "depth": 100.0, "arbitrage": math.inf}},
        venues=["A", "B"],
        markets={("B", "X"): {"price": 1.1, "depth": 50.0}},
    )
    found = run(with_spread(net, spread={"X": spread}))
    marks = found.markets["mark"]
    assert abs(math.log(marks.loc[("B", "X")] / marks.loc[("A", "X")])) == pytest.approx(gap, abs=1e-8)
    assert -found.losses["arbitrageurs"].sum() >= -1e-12


def test_redemption_stops_where_it_does_not_pay_the_spread():
    """A claim on one coin at a discount: bought at the ask, and the coin sold at the bid, on a book without end."""
    assets = {"C": {"price": 1.0}, "W": {"price": 0.9, "underlying": "C", "arbitrage": math.inf, "depth": 100.0}}
    net = lend({"a@A": {"W": 1.0, "C": 1.0}}, assets, venues=["A"])
    for spread, price in ((0.0, 1.0), (0.1, 0.95 / 1.05), (0.3, 0.9)):
        found = run(with_spread(net, spread={"C": spread, "W": spread}))
        assert found.assets.loc["W", "price"] == pytest.approx(price, rel=1e-8)
        assert -found.losses["arbitrageurs"].sum() >= -1e-12


def test_who_sells_alone_sells_as_ever_with_a_spread(rules):
    net = book({"k": ({"S": 60.0}, {"P": (10.0, 100.0)})}, rulebook=rules("reduce"), rate=0.05, depth={"P": 400.0})
    net = with_spread(net, spread={"P": 0.01})
    one, other = run(net, to(98.0)), run(net, to(98.0), priority="pro_rata")
    assert other._state.positions.quantity[0] == pytest.approx(one._state.positions.quantity[0], rel=1e-9)
    np.testing.assert_allclose(other.accounts["loss"], one.accounts["loss"], rtol=1e-9)


@pytest.mark.parametrize("priority", ["worst_first", "pro_rata"])
@pytest.mark.parametrize("seed", some_and_slow(6, 20))
def test_nothing_is_made_or_lost(seed, priority):
    flaws = tuple(np.random.default_rng(seed).choice([f for f in FLAWS if f != "worthless"], 2, replace=False))
    net, shock = random_market(seed, flaws=flaws, rules=FREE if seed % 2 else ())
    rng = np.random.default_rng(seed)
    names = [name for name in net.assets.index if name != net.numeraire]
    spread, power = (dict(zip(names, rng.uniform(0, top, len(names)), strict=True)) for top in (0.2, 2.0))
    net = with_spread(net, spread=spread, spread_power=power, volatility=dict.fromkeys(names, 0.03))
    found = nc.cascade(net, shock, priority=priority, seed=seed, strict=False, max_rounds=200)
    assert found.check().worst <= 1e-9
