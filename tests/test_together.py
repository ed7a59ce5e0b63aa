"""Priority "pro_rata": all that is sold on a book in one step of a round gets its average price."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from random_markets import FLAWS, random_market
from scipy.optimize import brentq
from seeds import some_and_slow
from test_cascade_golden import balance, market, network, once, run
from test_cascade_laws import FREE_OF_THRESHOLDS, random_shock, random_tables, scaled
from test_margin_cascade import book, to
from test_margin_cascade import rules as margin_rules
from test_policies import two_exchanges

import netcontagion as nc
from netcontagion.margining import _cascade, _together, cash_from_sale
from netcontagion.network import rulebook

rules = margin_rules
TOGETHER = {"priority": "pro_rata", "seed": 0}
# rulebooks without capacities, auctions and auto-deleveraging, which use up what is scarce one after the other
FREE = ("aave_v2", "aave_v3", "aave_v3_0", "broker", "closeout", "compound_v2", "lending", "morpho")


def average(units, depth, price=1.0):
    """Average price of a sale on an exponential book."""
    return price * depth * -math.expm1(-units / depth) / units


def fills(found, kind):
    """Units and cash of some events, by account."""
    events = found.events[found.events["type"] == kind].set_index("account")
    return events[["quantity", "cash"]].astype(float)


# closed forms -------------------------------------------------------------------------------------------------------


def test_all_sellers_of_a_book_get_its_average_price():
    accounts = {"a": ({"ETH": 10.0}, {"USD": 9.0}), "b": ({"ETH": 30.0}, {"USD": 29.0}), "c": ({"ETH": 5.0}, {})}
    net = network(accounts, depth={"ETH": 100.0}, rulebook="closeout")
    sales = fills(run(net, **TOGETHER), "sale")
    np.testing.assert_allclose(sales["quantity"], [30.0, 10.0])
    np.testing.assert_allclose(sales["cash"] / sales["quantity"], average(40.0, 100.0), rtol=1e-12)
    np.testing.assert_allclose(sales["cash"].sum(), fills(run(net), "sale")["cash"].sum(), rtol=1e-12)


@pytest.mark.parametrize("form", ["linear", "square_root", "constant_product", "ladder 0.9:10 0.8:20 0.4:90 | 1.1:10"])
def test_every_form_has_an_average(form):
    accounts = {"a": ({"ETH": 10.0}, {"USD": 9.0}), "b": ({"ETH": 30.0}, {"USD": 29.0})}
    net = network(accounts, rulebook="closeout")
    depth = [math.nan if " " in form else 100.0, math.nan]
    sales = fills(
        run(net.replace(assets=net.assets.assign(impact=[form, "exponential"], depth=depth)), **TOGETHER), "sale"
    )
    cash = cash_from_sale(40.0, price=1.0, depth=None if " " in form else 100.0, form=form)
    np.testing.assert_allclose(sales["cash"] / sales["quantity"], cash / 40.0, rtol=1e-12)


def test_liquidators_stop_together_where_the_last_unit_pays_no_more():
    """Five equal debts on one thin book: ln(1 + b) D units are sold in the first round, a fifth of them by each."""
    accounts = {f"k{n}": ({"ETH": 100.0}, {"USD": 85.0}) for n in range(5)}
    net = network(accounts, depth={"ETH": 20.0})
    first = fills(once(net, **TOGETHER), "liquidation")
    np.testing.assert_allclose(first["quantity"], 20.0 * math.log(1.05) / 5, rtol=1e-10)
    assert len(fills(once(net), "liquidation")) == 1  # one after the other: the first takes all that pays


def test_a_debt_that_moves_its_price_is_bought_back_at_one_price():
    """Purchases hang on the price that they make: p = average of min(owed, purse / p) over all."""
    accounts = {"a": ({"ETH": 50.0}, {"BTC": 4.5}), "b": ({"ETH": 20.0}, {"BTC": 1.9})}
    prices, depth = {"BTC": 10.0}, {"ETH": 500.0, "BTC": 6.0}
    net = network(accounts, prices=prices, depth=depth, rulebook="closeout")
    found = once(net, **TOGETHER)
    purses = {k: units * average(70.0, 500.0) for k, units in (("a", 50.0), ("b", 20.0))}
    owed = {"a": 4.5, "b": 1.9}

    def gap(price):
        bought = sum(min(owed[k], purses[k] / price) for k in owed)
        return average(-bought, 6.0, 10.0) - price

    price = brentq(gap, 10.0, 40.0, xtol=1e-14)
    purchases = fills(found, "purchase")
    np.testing.assert_allclose(purchases["cash"] / purchases["quantity"], price, rtol=1e-10)
    for k, due in owed.items():
        assert purchases.loc[k, "quantity"] == pytest.approx(min(due, purses[k] / price), rel=1e-10)


def test_a_ladder_that_ends_is_shared_in_proportion():
    accounts = {"a": ({"ETH": 10.0}, {"USD": 9.0}), "b": ({"ETH": 30.0}, {"USD": 29.0})}
    net = network(accounts, rulebook="closeout")
    net = net.replace(assets=net.assets.assign(impact=["ladder 0.9:10 0.5:6 | 1.1:10", "exponential"]))
    sales = fills(once(net, **TOGETHER), "sale")
    assert sales["quantity"].to_dict() == pytest.approx({"a": 4.0, "b": 12.0})
    np.testing.assert_allclose(sales["cash"] / sales["quantity"], (9.0 + 3.0) / 16.0)


@pytest.mark.parametrize("contract", ["P", "I"])
def test_contracts_that_close_both_ways_meet(contract, rules):
    """Longs sell 12, shorts buy 4: the book takes 8; of inverse contracts the price is the harmonic mean."""
    size, coin = (1.0, "S") if contract == "P" else (10.0, "C")
    money = {coin: 200.0 if contract == "P" else 2.0}
    held = {"a": 8.0, "b": 4.0, "c": -4.0}
    accounts = {k: (money, {contract: (size * q, 100.0)}) for k, q in held.items()}
    net = book(accounts, rulebook=rules(), rate=0.9, depth={contract: 40.0 * size})
    found = once(net, **TOGETHER)

    state = found._state
    assert not state.positions.quantity[state.positions.account < 3].any()
    paid = found.traders.loc[["a", "b", "c"], "loss_execution"] / np.array([8.0, 4.0, -4.0])
    np.testing.assert_allclose(paid, paid.iloc[0], rtol=1e-9)
    if contract == "P":
        assert paid.iloc[0] == pytest.approx(100.0 - average(8.0, 40.0, 100.0), rel=1e-9)
    else:  # 10 / price coins per contract, on average over the curve, at 100 each
        coins = 40.0 * math.expm1(8.0 / 40.0) / 8.0 / 10.0
        assert paid.iloc[0] == pytest.approx(size * (coins * 100.0 - 10.0), rel=1e-9)


def test_reductions_elsewhere_are_filled_together():
    """Two owners sell ETH on B to repay there and free margin for A, at one price for both."""
    parts = [two_exchanges(({"ETH": 100.0}, {"USD": owed}), depth=1000.0) for owed in (57.6, 58.0)]
    tables = {}
    for name in ("traders", "accounts", "balances"):
        rows = [getattr(net, name).reset_index() for net in parts]
        rows = [row[~row.iloc[:, 0].astype(str).str.startswith("others")] for row in rows]
        for suffix, row in enumerate(rows):
            for column in {"trader", "account"} & set(row):
                row[column] = row[column].astype(str) + str(suffix)
        tables[name] = pd.concat(rows)
    found = once(parts[0].replace(**tables), nc.Shock.price({"ETH": -0.1}), **TOGETHER)
    sales = found.events[found.events["type"] == "sale"].groupby("account")[["quantity", "cash"]].sum()
    assert sales.index.tolist() == ["b0", "b1"]
    assert found.accounts.loc[["a0", "a1"], "topped_up"].all()
    price = average(sales["quantity"].sum(), 1000.0, 0.9)
    np.testing.assert_allclose(sales["cash"] / sales["quantity"], price, rtol=1e-10)


# laws ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", some_and_slow(10, 40))
def test_nothing_is_made_or_lost(seed):
    flaws = tuple(np.random.default_rng(seed).choice([f for f in FLAWS if f != "worthless"], 2, replace=False))
    net, shock = random_market(seed, flaws=flaws)
    found = nc.cascade(net, shock, strict=False, max_rounds=300, **TOGETHER)
    assert found.check().worst <= 1e-9


@pytest.mark.parametrize("seed", some_and_slow(8, 25))
def test_the_order_of_liquidations_changes_nothing(seed, monkeypatch):
    """What owners share, such as a wallet, has an order; what they sell has none."""
    net, shock = random_market(seed, flaws=("ties",) if seed % 2 else (), rules=FREE)
    on = ("liquidation", "impact", "purchase")
    one = nc.cascade(net, shock, channels=on, strict=False, max_rounds=60, **TOGETHER)
    monkeypatch.setattr(_cascade.Play, "_order", lambda play, which, health: np.argsort(which)[::-1])
    other = nc.cascade(net, shock, channels=on, strict=False, max_rounds=60, **TOGETHER)
    assert len(one.rounds) == len(other.rounds)
    for column in ("health", "deficit", "loss", "repaid"):
        ours, theirs = one.accounts[column], other.accounts[column]
        scale = float(one.accounts["equity_before"].abs().max())
        np.testing.assert_allclose(theirs, ours, rtol=1e-6, atol=1e-8 * scale)


def test_names_decide_nothing_among_equals():
    """Ties go by account code otherwise."""
    for names in (("a", "b", "c"), ("c", "a", "b")):
        accounts = dict(zip(names, [({"ETH": 100.0}, {"USD": 85.0})] * 3, strict=True))
        found = run(network(accounts, depth={"ETH": 30.0}), **TOGETHER)
        facts = found.accounts.loc[list(names), ["health", "loss", "repaid", "deficit"]]
        np.testing.assert_allclose(facts, facts.iloc[[0, 0, 0]], rtol=1e-9, atol=1e-9)
    assert once(network(accounts, depth={"ETH": 30.0})).accounts.loc[list(names), "repaid"].nunique() > 1


@pytest.mark.parametrize("preset", ["lending", "closeout", "aave_v2", "perpetual", "broker"])
def test_who_sells_alone_sells_as_ever(preset, rules):
    if rulebook(preset).health == "equity":
        accounts = {"k": ({"S": 60.0, "C": 1.0}, {"P": (10.0, 100.0)})}
        net, shock = book(accounts, rulebook=preset, rate=0.05, depth={"P": 400.0, "C": 50.0}), to(85.0)
    else:
        debts = {"BTC": 40.0, "USD": 40.0}
        markets = [market("X", asset, close_factor=0.5) for asset in ("ETH", "USD", "BTC")]
        given = {"prices": {"BTC": 1.0}, "depth": {"ETH": 150.0, "BTC": 300.0}, "markets": markets}
        net = network({"k": ({"ETH": 100.0}, debts)}, rulebook=preset, **given)
        shock = nc.Shock.price({"ETH": -0.02})
    one, other = run(net, shock), run(net, shock, **TOGETHER)
    for column in ("health", "deficit", "loss", "repaid"):
        np.testing.assert_allclose(other.accounts[column], one.accounts[column], rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(other.markets["mark"], one.markets["mark"], rtol=1e-10)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("money", "units"), [(1024.0, 1.0), (3.7, 0.013)])
def test_currency_and_size_scale(seed, money, units):
    tables = random_tables(seed)
    books = tables["exchanges"]["rulebook"]
    tables["exchanges"]["rulebook"] = [FREE_OF_THRESHOLDS.get(name, name) for name in books]
    one = nc.cascade(nc.ExposureNetwork(**tables), random_shock(seed), **TOGETHER)
    other = nc.cascade(nc.ExposureNetwork(**scaled(tables, money=money, units=units)), random_shock(seed), **TOGETHER)
    np.testing.assert_allclose(other.markets["mark"], one.markets["mark"] * money, rtol=1e-9)
    size = money * units
    np.testing.assert_allclose(other.losses, one.losses * size, rtol=1e-8, atol=1e-8 * size * 5000)


def test_a_step_without_one_price_is_said(monkeypatch):
    monkeypatch.setattr(_together, "PASSES", 1)
    net = network({"a": ({"ETH": 10.0}, {"USD": 9.0})}, depth={"ETH": 100.0}, rulebook="closeout")
    assert any("no common price" in line for line in run(net, **TOGETHER).assumptions)
    monkeypatch.undo()
    assert not any("no common price" in line for line in run(net, **TOGETHER).assumptions)


# a slow, plain twin -------------------------------------------------------------------------------------------------


def twin(accounts, depth):
    """Fixed-spread liquidations of ETH for dollars, all of a round at the average price; return what is left of each.

    ``accounts`` are [units, debt, bonus], threshold .8 and close factor .5. What profit holds below a
    millionth of the opening debt is not repaid.
    """
    sold, profit = 0.0, 0.0
    accounts = [[*account, account[1]] for account in accounts]
    for _ in range(10_000):
        price = math.exp(-sold / depth)
        called = [a for a in accounts if a[1] > 0 and a[0] * price * 0.8 / a[1] < 1 - 1e-12]
        wanted = []
        for units, debt, bonus, _ in called:
            wanted.append(min(0.5 * debt, units * price / (1 + bonus)))
        crowd = sum(r * (1 + a[2]) / price for r, a in zip(wanted, called, strict=True))
        repaid = []
        for r, a in zip(wanted, called, strict=True):
            part = min(1.0, math.log1p(a[2]) * depth / crowd)
            repaid.append(part * r if part == 1.0 or part * r >= 1e-6 * max(a[3], r) else 0.0)
        if not sum(repaid) > 1e-12:
            return accounts, profit, sold
        seized = [r * (1 + a[2]) / price for r, a in zip(repaid, called, strict=True)]
        profit += sum(seized) * average(sum(seized), depth, price) - sum(repaid)
        sold += sum(seized)
        for account, units, money in zip(called, seized, repaid, strict=True):
            account[0], account[1] = max(account[0] - units, 0.0), account[1] - money
            if account[0] <= 1e-12 * units:
                account[0] = account[1] = 0.0
    raise AssertionError("the twin does not end")


@pytest.mark.parametrize("seed", some_and_slow(5, 12))
def test_liquidations_equal_their_twin(seed):
    rng = np.random.default_rng(seed)
    rows = [[u, u * rng.uniform(0.7, 0.9), b] for u, b in rng.uniform((5, 0.02), (50, 0.1), (8, 2)).tolist()]
    depth = float(rng.choice([20.0, 200.0, 2000.0]))
    names = [f"k{n}" for n in range(8)]
    own = {"liquidation_threshold": 0.8}
    accounts = {
        k: ({"ETH": u}, {"USD": d}, own | {"liquidation_bonus": b}) for k, (u, d, b) in zip(names, rows, strict=True)
    }
    markets = [market("X", "ETH", close_factor=0.5), market("X", "USD", close_factor=0.5)]
    found = run(network(accounts, depth={"ETH": depth}, markets=markets, rulebook="lending"), **TOGETHER)
    left, profit, sold = twin([list(row) for row in rows], depth)
    assert found.assets.loc["ETH", "sold"] == pytest.approx(sold, rel=1e-5)
    assert -found.losses["liquidators"].sum() == pytest.approx(profit, rel=1e-5, abs=1e-5)
    np.testing.assert_allclose(
        [balance(found, k, "ETH")[0] for k in names], [a[0] for a in left], rtol=1e-5, atol=3e-4
    )  # dust
