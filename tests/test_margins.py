"""Margin accounts of a network: margins, closing prices, haircuts, inverse contracts, portfolios, brokers."""

from __future__ import annotations

import doctest
import importlib

import numpy as np
import pytest
from conftest import assert_same, permuted, refused
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import netcontagion as nc
from netcontagion import generators

NAN = float("nan")
common = settings(max_examples=12, deadline=None, derandomize=True)
SCENARIOS = [{"ETH": -0.2}, {"ETH": 0.2}, {"BTC": -0.15, "ETH": -0.1}, {"BTC": 0.15}]


@pytest.fixture(scope="module")
def portfolio_rules(tmp_path_factory):
    """A user's rulebook: that of perpetuals with scenarios."""
    from importlib import resources

    text = resources.files("netcontagion.network").joinpath("rulebooks/perpetual.toml").read_text(encoding="utf-8")
    moves = ["{ " + ", ".join(f"{name} = {move}" for name, move in each.items()) + " }" for each in SCENARIOS]
    path = tmp_path_factory.mktemp("rules") / "portfolio.toml"
    scenarios = f'test = "equity"\nscenarios = [{", ".join(moves)}]'
    path.write_text(text.replace('test = "equity"', scenarios), encoding="utf-8")
    return str(path)


def single(kind="linear", **changes):
    """One account with 10 contracts bought at 100, 50 of margin in its settlement asset, and its counterparty."""
    linear = kind == "linear"
    tables = {
        "assets": {"asset": ["P", "S"], "price": [100.0, 1.0 if linear else 100.0], "kind": [kind, "token"],
                   "settlement": ["S", None]},
        "exchanges": {"exchange": ["X"], "rulebook": ["perpetual"]},
        "markets": {"exchange": ["X"], "asset": ["P"], "initial_margin": [0.01], "maintenance_margin": [0.005]},
        "accounts": {"account": ["k", "c"], "trader": ["k", "c"], "exchange": ["X", "X"]},
        "balances": {"account": ["k", "c"], "asset": ["S", "S"], "deposited": [50.0, 1e6]},
        "positions": {"account": ["k", "c"], "asset": ["P", "P"], "quantity": [10.0, -10.0],
                      "entry_price": [100.0, 100.0]},
    }  # fmt: skip
    return tables | changes


# a slow twin: one account at a time, from the formulas ---------------------------------------------------------------


def random_tables(seed, rules="perpetual"):
    """A margin exchange of linear and inverse contracts, haircuts, tiers, debts and portfolios."""
    rng = np.random.default_rng(seed)
    assets = {
        "asset": ["BTC", "BTC-INV", "BTC-PERP", "ETH", "ETH-PERP", "USD"],
        "price": [100.0, float(rng.uniform(95, 105)), float(rng.uniform(95, 105)), 10.0, 10.1, 1.0],
        "kind": ["token", "inverse", "linear", "token", "linear", "token"],
        "underlying": [None, "BTC", "BTC", None, "ETH", None],
        "settlement": [None, "BTC", "USD", None, "USD", None],
        "multiplier": [1.0, float(rng.choice([1.0, 100.0])), 1.0, 1.0, 1.0, 1.0],
    }
    n = int(rng.integers(2, 9))
    accounts = [f"k{i}" for i in range(n)]
    modes = [str(m) for m in rng.choice(["cross", "portfolio"], n)] if rules != "perpetual" else ["cross"] * n
    held = [(k, a) for k in accounts for a in ("BTC", "ETH", "USD") if rng.random() < 0.7] or [("k0", "USD")]
    legs = [(k, a) for k in accounts for a in ("BTC-INV", "BTC-PERP", "ETH-PERP") if rng.random() < 0.6]
    legs = legs or [("k0", "BTC-PERP")]
    price = dict(zip(assets["asset"], assets["price"], strict=True))
    size = rng.normal(0, 50, len(legs)) / [price[a] if a != "BTC-INV" else 1.0 for _, a in legs]
    given = [a for a in ("BTC", "ETH", "USD") if rng.random() < 0.7]
    return {
        "assets": assets,
        "exchanges": {"exchange": ["X"], "rulebook": [rules]},
        "markets": {
            "exchange": ["X"] * (len(given) + 3),
            "asset": [*given, "BTC-INV", "BTC-PERP", "ETH-PERP"],
            "liquidation_threshold": [*(float(rng.choice([NAN, 0.9, 0.5, 0.0])) for _ in given), NAN, NAN, NAN],
            "maintenance_margin": [*(float(rng.choice([NAN, 0.25])) for _ in given), 0.01, 0.02, NAN],
            "maintenance_margin_short": [*(float(rng.choice([NAN, 0.3])) for _ in given), 0.015, NAN, NAN],
            "initial_margin": [*[NAN] * len(given), 0.02, NAN, NAN],
            "price": [*[NAN] * len(given), NAN, float(rng.uniform(95, 105)), NAN],
        },
        "tiers": {"exchange": ["X"] * 3, "asset": ["ETH-PERP"] * 3, "floor": [0.0, 30.0, 80.0],
                  "initial_margin": [0.02, 0.04, 0.2], "maintenance_margin": [0.01, 0.02, 0.1]},
        "accounts": {"account": accounts, "trader": accounts, "exchange": ["X"] * n, "mode": modes},
        "balances": {"account": [k for k, _ in held], "asset": [a for _, a in held],
                     "deposited": rng.exponential(8, len(held)) / [price[a] / 10 for _, a in held],
                     "borrowed": rng.exponential(2, len(held)) * rng.integers(0, 2, len(held))
                     / [price[a] / 10 for _, a in held]},
        "positions": {"account": [k for k, _ in legs], "asset": [a for _, a in legs], "quantity": size,
                      "entry_price": [price[a] * rng.uniform(0.8, 1.2) for _, a in legs]},
    }  # fmt: skip


class Twin:
    """Valuation of one account from the handed out tables, with prices that may be changed."""

    def __init__(self, net):
        self.net, self.labels = net, net.labels("assets")
        self.assets = net.assets.to_dict("index")
        self.markets = {asset: row for (_, asset), row in net.markets.to_dict("index").items()}
        self.mark = {a: self.market(a, "price") or self.assets[a]["price"] for a in self.labels}
        self.modes = net.accounts["mode"].to_dict()
        self.tiers = {}
        for (_, asset, floor), rate in net.tiers["maintenance_margin"].items():
            self.tiers.setdefault(asset, []).append((floor, rate))
        self.rows = {name: {} for name in ("balances", "positions")}
        for name, rows in self.rows.items():
            for row in getattr(net, name).reset_index().to_dict("records"):
                rows.setdefault(row["account"], []).append(row)

    def legs(self, account):
        return self.rows["positions"].get(account, [])

    def balances(self, account):
        return self.rows["balances"].get(account, [])

    def gain(self, leg, mark):
        contract = self.assets[leg["asset"]]
        if contract["kind"] == "linear":
            return leg["quantity"] * (mark[leg["asset"]] - leg["entry_price"])
        coins = leg["quantity"] * contract["multiplier"] * (1 / leg["entry_price"] - 1 / mark[leg["asset"]])
        return coins * mark[contract["settlement"]]

    def notional(self, leg, mark):
        contract = self.assets[leg["asset"]]
        if contract["kind"] == "linear":
            return abs(leg["quantity"]) * mark[leg["asset"]]
        return abs(leg["quantity"]) * contract["multiplier"] * mark[contract["settlement"]] / mark[leg["asset"]]

    def market(self, asset, column):
        value = self.markets.get(asset, {}).get(column, NAN)
        return None if np.isnan(value) else value

    def equity(self, account, mark, haircut=False):
        total = sum(self.gain(leg, mark) for leg in self.legs(account))
        for row in self.balances(account):
            weight = self.market(row["asset"], "liquidation_threshold") if haircut else None
            weight = 1.0 if weight is None else weight
            total += (weight * row["deposited"] - row["borrowed"]) * mark[row["asset"]]
        return total

    def leg_margin(self, leg, mark):
        notional = self.notional(leg, mark)
        if leg["asset"] in self.tiers:
            floors, rates = zip(*self.tiers[leg["asset"]], strict=True)
            parts = zip(floors, [*floors[1:], float("inf")], rates, strict=True)
            return sum(rate * max(0.0, min(notional, end) - floor) for floor, end, rate in parts)
        rate = self.market(leg["asset"], "maintenance_margin")
        if leg["quantity"] < 0 and self.market(leg["asset"], "maintenance_margin_short") is not None:
            rate = self.market(leg["asset"], "maintenance_margin_short")
        return rate * notional

    def requirement(self, account, mark):
        if self.modes[account] == "portfolio":
            before = self.equity(account, mark, haircut=True)
            return max([0.0, *(before - self.equity(account, self.moved(mark, moves), True) for moves in SCENARIOS)])
        total = sum(self.leg_margin(leg, mark) for leg in self.legs(account))
        for row in self.balances(account):
            long, short = (self.market(row["asset"], f"maintenance_margin{tail}") for tail in ("", "_short"))
            short = long if short is None else short
            total += ((long or 0.0) * row["deposited"] + (short or 0.0) * row["borrowed"]) * mark[row["asset"]]
        return total

    def moved(self, mark, moves):
        after = {}
        for asset, price in mark.items():
            follows = self.assets[asset]["underlying"]
            after[asset] = price * (1 + moves.get(asset, moves.get(follows, 0.0)))
        return after


def own(net):
    return [label for label in net.labels("accounts") if not label.startswith("others@")]


@pytest.mark.parametrize("seed", range(8))
def test_margins_are_those_of_a_slow_twin(seed, portfolio_rules):
    net = nc.ExposureNetwork(**random_tables(seed, portfolio_rules if seed % 2 else "perpetual"))
    net.check()
    for moves in ({}, {"BTC": -0.1}, {"BTC": 0.2, "ETH": -0.3}):
        shock = nc.Shock.price(moves, family=True) if moves else None
        twin, table = Twin(net), net.margins(shock)
        mark = twin.moved(twin.mark, moves)
        assert table.index.tolist() == own(net)
        for account, row in table.iterrows():
            equity, required = twin.equity(account, mark, haircut=True), twin.requirement(account, mark)
            scale = 1e-9 * (1 + sum(twin.notional(leg, mark) for leg in twin.legs(account)))
            assert row["equity"] == pytest.approx(twin.equity(account, mark), rel=1e-9, abs=scale)
            assert row["margin_equity"] == pytest.approx(equity, rel=1e-9, abs=scale)
            assert row["maintenance_margin"] == pytest.approx(required, rel=1e-9, abs=scale)
            if row["maintenance_margin"] > scale:
                assert row["health"] == pytest.approx(row["margin_equity"] / row["maintenance_margin"], rel=1e-12)
                expected = row["maintenance_margin"] / row["margin_equity"] if row["margin_equity"] > 0 else np.inf
                assert row["utilisation"] == pytest.approx(expected, rel=1e-12)
        if not moves:
            assert net.health()[own(net)].tolist() == table["health"].tolist()


@pytest.mark.parametrize("seed", range(8))
def test_closing_prices_are_where_the_definition_says(seed, portfolio_rules):
    """At the liquidation price of a leg, all else as it is, equity is the requirement; at those of ruin, 0."""
    net = nc.ExposureNetwork(**random_tables(seed, portfolio_rules if seed % 2 else "perpetual"))
    twin, table = Twin(net), net.liquidation_prices()
    for account in own(net):
        legs, worth = twin.legs(account), twin.equity(account, twin.mark)
        gained = 0.0
        for leg in legs:
            called = table.loc[(account, leg["asset"]), "liquidation_price"]
            long = leg["quantity"] > 0

            def spare(price, leg=leg, account=account):
                mark = twin.mark | {leg["asset"]: price}
                return twin.equity(account, mark, haircut=True) - twin.requirement(account, mark)

            scale = 1e-8 * (1 + abs(worth) + sum(twin.notional(each, twin.mark) for each in legs))
            low, high = 1e-7 * twin.mark[leg["asset"]], 1e9 * twin.mark[leg["asset"]]
            if called == 0:
                assert spare(low) > -scale if long else spare(low) < scale
            elif np.isnan(called):
                assert twin.assets[leg["asset"]]["kind"] == "inverse"
                assert spare(high) < scale if long else spare(high) > -scale
            else:
                grown = scale + 1e-9 * twin.notional(leg, twin.mark | {leg["asset"]: called})
                assert abs(spare(called)) < grown
                assert (spare(1.001 * called) > spare(0.999 * called)) == long
                assert (spare(twin.mark[leg["asset"]]) < 0) == ((twin.mark[leg["asset"]] < called) == long) or (
                    abs(spare(twin.mark[leg["asset"]])) < grown
                )
            ruin = table.loc[(account, leg["asset"]), "bankruptcy_price"]
            at_ruin = twin.mark | {leg["asset"]: ruin}
            gained += twin.gain(leg, at_ruin) - twin.gain(leg, twin.mark) if ruin > 0 else NAN
        if legs and not np.isnan(gained):
            assert worth + gained == pytest.approx(0.0, abs=1e-8 * (1 + abs(worth)))


def test_legs_bear_equity_by_their_margin():
    """Two legs with maintenance 1 and 3: a quarter and three quarters of the equity."""
    tables = single()
    tables["assets"] = {"asset": ["P", "Q", "S"], "price": [100.0, 10.0, 1.0], "kind": ["linear", "linear", "token"]}
    tables["markets"] = {"exchange": ["X", "X"], "asset": ["P", "Q"], "maintenance_margin": [0.01, 0.03]}
    tables["positions"] = {"account": ["k", "k"], "asset": ["P", "Q"], "quantity": [1.0, -10.0],
                           "entry_price": [100.0, 10.0]}  # fmt: skip
    found = nc.ExposureNetwork(**tables).liquidation_prices()["bankruptcy_price"]
    assert found["k", "P"] == pytest.approx(100 - 50 / 4)
    assert found["k", "Q"] == pytest.approx(10 + 0.75 * 50 / 10)


# single accounts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mark", [80.0, 97.0, 100.0, 130.0])
@pytest.mark.parametrize(("side", "ruin", "called"), [(1, 95, 95.47738693467338), (-1, 105, 104.47761194029852)])
def test_golden_g4_from_any_mark(side, ruin, called, mark):
    tables = single()
    tables["positions"]["quantity"] = [10.0 * side, -10.0 * side]
    tables["markets"]["price"] = [mark]
    found = nc.ExposureNetwork(**tables).liquidation_prices().loc[("k", "P")]
    assert found.tolist() == pytest.approx([ruin, called], rel=1e-12)


def test_the_tier_is_that_of_the_liquidation_price():
    """At the mark the notional is in the second tier, at the liquidation price in the first."""
    tables = single(tiers={"exchange": ["X"] * 2, "asset": ["P"] * 2, "floor": [0.0, 960.0],
                           "initial_margin": [0.01, 0.1], "maintenance_margin": [0.005, 0.05]})  # fmt: skip
    net = nc.ExposureNetwork(**tables)
    assert net.margins().loc["k", "maintenance_margin"] == pytest.approx(1000 * 0.05 - 960 * 0.045)
    assert net.liquidation_prices().loc[("k", "P"), "liquidation_price"] == pytest.approx(950 / (10 * 0.995))


def test_a_long_that_nothing_calls_and_a_short_called_at_every_price():
    tables = single()
    tables["balances"]["deposited"] = [2000.0, 1e6]
    assert nc.ExposureNetwork(**tables).liquidation_prices().loc[("k", "P")].tolist() == [0.0, 0.0]
    tables["balances"] |= {"deposited": [0.0, 1e6], "borrowed": [2000.0, 0.0]}
    tables["positions"]["quantity"] = [-10.0, 10.0]
    found = nc.ExposureNetwork(**tables)
    assert found.liquidation_prices().loc[("k", "P")].tolist() == [0.0, 0.0]
    assert found.margins().loc["k", "utilisation"] == np.inf


def test_others_are_never_called_and_in_no_sum():
    tables = single()
    tables["positions"] = {name: values[:1] for name, values in tables["positions"].items()}
    net = nc.ExposureNetwork(**tables)
    prices = net.liquidation_prices()
    assert np.isnan(prices.loc[("others@X", "P"), "liquidation_price"])
    assert "others@X" not in net.margins().index
    curve = net.maintenance_curve({"P": [0.0]})
    assert curve["maintenance_margin"].tolist() == [5.0]
    assert curve["equity"].tolist() == [50.0 + 1e6]


def test_a_flat_account_on_a_margin_exchange_is_safe():
    """Failure of the rule by positions: a flat account has equity, owes no margin, and is no lending account."""
    net = nc.ExposureNetwork(**single(positions=None, balances={"account": ["k", "c"], "asset": ["S", "S"],
                                      "deposited": [50.0, 1.0], "borrowed": [0.0, 0.0]}))  # fmt: skip
    row = net.margins().loc["k"]
    assert row[["equity", "maintenance_margin", "health", "utilisation", "free"]].tolist() == [50, 0, np.inf, 0, 50]


def test_lending_accounts_are_in_no_margin_table():
    net = generators.market(30, exchanges=1, seed=0)
    assert net.margins().empty
    assert net.liquidation_prices().empty
    assert net.maintenance_curve({"ETH": [-0.1]}).empty


# haircuts -------------------------------------------------------------------------------------------------------------


def test_a_haircut_counts_in_health_and_not_in_wealth():
    tables = single()
    tables["markets"] = {"exchange": ["X", "X"], "asset": ["P", "S"], "maintenance_margin": [0.005, NAN],
                         "liquidation_threshold": [NAN, 0.9], "initial_margin": [0.01, NAN],
                         "loan_to_value": [NAN, 0.8]}  # fmt: skip
    net = nc.ExposureNetwork(**tables)
    row = net.margins().loc["k"]
    assert row["equity"] == 50.0
    assert row["margin_equity"] == 45.0
    assert row["health"] == pytest.approx(45 / 5)
    assert row["free"] == pytest.approx(40 - 10)
    assert net.book.equity()[net.labels("accounts").get_loc("k")] == 50.0
    prices = net.liquidation_prices().loc[("k", "P")]
    assert prices["bankruptcy_price"] == pytest.approx(95.0)
    assert prices["liquidation_price"] == pytest.approx((1000 - 45) / 9.95)
    claims = nc.clear(net, nc.Shock())
    assert claims.payments["X"] == pytest.approx(50.0 + 1e6)


def test_a_haircut_of_one_account():
    tables = single()
    tables["accounts"]["liquidation_threshold"] = [0.5, NAN]
    assert nc.ExposureNetwork(**tables).margins()["margin_equity"].to_dict() == {"c": 1e6, "k": 25.0}


@given(st.floats(0.0, 0.99), st.floats(0.0, 0.99))
@common
def test_a_larger_haircut_never_helps(one, other):
    def health(weight):
        tables = single()
        tables["markets"] = {"exchange": ["X", "X"], "asset": ["P", "S"], "maintenance_margin": [0.005, NAN],
                             "liquidation_threshold": [NAN, weight]}  # fmt: skip
        return nc.ExposureNetwork(**tables).health()["k"]

    low, high = sorted((one, other))
    assert health(low) <= health(high)


# brokers --------------------------------------------------------------------------------------------------------------


def broker(**changes):
    """Margin loans: ann is long 100 of X on credit, bob is short 100."""
    tables = {
        "assets": {"asset": ["STK", "USD"], "price": [100.0, 1.0]},
        "exchanges": {"exchange": ["B"], "rulebook": ["broker"], "recourse": [True]},
        "markets": {"exchange": ["B"], "asset": ["STK"], "initial_margin": [0.5], "maintenance_margin": [0.25],
                    "maintenance_margin_short": [0.3]},
        "accounts": {"account": ["ann", "bob"], "trader": ["ann", "bob"], "exchange": ["B", "B"]},
        "balances": {"account": ["ann", "ann", "bob", "bob"], "asset": ["STK", "USD", "STK", "USD"],
                     "deposited": [100.0, 0.0, 0.0, 15_000.0], "borrowed": [0.0, 5000.0, 100.0, 0.0]},
    }  # fmt: skip
    return tables | changes


@pytest.mark.parametrize(("account", "price"), [("ann", 5000 / (100 * 0.75)), ("bob", 15_000 / (100 * 1.3))])
def test_the_call_price_of_a_margin_loan(account, price):
    """Loan / (q (1 - m)) long, (proceeds + deposit) / (q (1 + m)) short."""
    tables = broker()
    tables["assets"]["price"] = [price, 1.0]
    assert nc.ExposureNetwork(**tables).health()[account] == pytest.approx(1.0, rel=1e-12)


def test_a_broker_needs_no_liquidation_bonus_and_asks_for_initial_margin():
    table = nc.ExposureNetwork(**broker()).margins()
    assert table["maintenance_margin"].to_dict() == {"ann": 2500.0, "bob": 3000.0}
    assert table["initial_margin"].to_dict() == {"ann": 5000.0, "bob": 5000.0}
    assert table["free"].to_dict() == {"ann": 0.0, "bob": 0.0}


# inverse contracts ----------------------------------------------------------------------------------------------------


def inverse(quantities, entries, coins=1.0, price=100.0, **changes):
    names = [f"t{i}" for i in range(len(quantities))]
    tables = {
        "assets": {"asset": ["COIN", "INV"], "price": [price, price], "kind": ["token", "inverse"],
                   "underlying": [None, "COIN"], "settlement": [None, "COIN"], "multiplier": [1.0, 10.0]},
        "exchanges": {"exchange": ["X"], "rulebook": ["perpetual"]},
        "markets": {"exchange": ["X"], "asset": ["INV"], "maintenance_margin": [0.005]},
        "accounts": {"account": names, "trader": names, "exchange": ["X"] * len(names)},
        "balances": {"account": names, "asset": ["COIN"] * len(names), "deposited": [coins] * len(names)},
        "positions": {"account": names, "asset": ["INV"] * len(names), "quantity": quantities,
                      "entry_price": entries},
    }  # fmt: skip
    return tables | changes


def test_an_inverse_contract_pays_coins():
    """Bought 100 x 10 USD at 100, price 80: 1000 (1/100 - 1/80) = -2.5 coins of 80; notional stays 1000 USD."""
    net = nc.ExposureNetwork(**inverse([100.0, -100.0], [100.0, 100.0], coins=5.0, price=80.0))
    assert net.book.equity().tolist() == pytest.approx([2.5 * 80, 7.5 * 80])
    assert net.book.notional().tolist() == pytest.approx([1000.0, 1000.0])
    assert net.margins()["maintenance_margin"].tolist() == pytest.approx([5.0, 5.0])
    prices = net.liquidation_prices()
    assert prices.loc[("t0", "INV"), "bankruptcy_price"] == pytest.approx(1 / (1 / 100 + 5 / 1000))
    assert prices.loc[("t1", "INV"), "bankruptcy_price"] == pytest.approx(1 / (1 / 100 - 5 / 1000))
    assert prices.loc[("t0", "INV"), "liquidation_price"] == pytest.approx(1.005 / (1 / 100 + 5 / 1000))


def test_a_covered_inverse_short_is_never_called():
    """Ten coins against 1000 USD sold at 100: a dollar position that no price touches."""
    net = nc.ExposureNetwork(**inverse([100.0, -100.0], [100.0, 100.0], coins=10.1))
    assert np.isnan(net.liquidation_prices().loc[("t1", "INV"), "liquidation_price"])
    assert net.margins(nc.Shock.price({"COIN": 50.0}, family=True)).loc["t1", "health"] > 1


@pytest.mark.parametrize("move", [-0.5, -0.1, 0.3])
def test_collateral_in_the_coin_makes_an_inverse_long_convex(move):
    """Both fall together: value at P is P (M + F/E) - F, linear in P, twice as steep as the coins alone."""
    net = nc.ExposureNetwork(**inverse([100.0, -100.0], [100.0, 100.0], coins=10.0))
    after = net.margins(nc.Shock.price({"COIN": move}, family=True)).loc["t0", "equity"]
    assert after == pytest.approx(100 * (1 + move) * (10 + 10) - 1000)


@given(st.lists(st.tuples(st.floats(-50, 50), st.floats(20, 500)), min_size=1, max_size=6), st.floats(-0.6, 2.0))
@common
def test_others_close_an_inverse_book_in_coins(legs, move):
    """Entry by 1 / E: the completed book neither creates nor destroys coins, at any price."""
    legs = [(q, e) for q, e in legs if abs(q) > 1e-3] or [(1.0, 100.0)]
    assume(abs(sum(q for q, _ in legs)) > 1e-6)  # quantities that cancel with entries that do not are refused
    net = nc.ExposureNetwork(**inverse([q for q, _ in legs], [e for _, e in legs]))
    net.check()
    table = net.columns("positions")
    paid = table["quantity"] / table["entry_price"]
    assert abs(table["quantity"].sum()) <= 1e-9 * np.abs(table["quantity"]).sum()
    assert abs(paid.sum()) <= 1e-9 * np.abs(paid).sum()
    factor = nc.Shock.price({"COIN": move}, family=True).price_factors(net)[net.book.market_asset]
    coins = net.book.equity(factor) / (100 * (1 + move))
    assert coins.sum() == pytest.approx(len(legs), rel=1e-6, abs=1e-6 * np.abs(paid).sum() * 10)


def test_the_wrong_average_would_create_coins():
    """Long 10 at 50 and 10 at 200: the other side entered at 80 (harmonic), not at 125."""
    net = nc.ExposureNetwork(**inverse([10.0, 10.0], [50.0, 200.0]))
    assert net.positions.loc[("others@X", "INV")].tolist() == pytest.approx([-20.0, 80.0])


@pytest.mark.parametrize(
    ("table", "column", "row", "value"),
    [
        ("assets", "settlement", 1, None),
        ("assets", "settlement", 1, "INV"),
        ("assets", "price", 1, 0.0),
        ("assets", "multiplier", 0, 2.0),
        ("assets", "multiplier", 1, 0.0),
        ("positions", "entry_price", 0, 0.0),
        ("positions", "entry_price", 1, -5.0),
        ("positions", "asset", 0, "COIN"),
        ("markets", "price", 0, 0.0),
        ("markets", "maintenance_margin_short", 0, 1.5),
        ("accounts", "mode", 1, "portfolio"),
    ],
)
def test_contracts_that_cannot_be_valued_are_refused(table, column, row, value):
    tables = inverse([1.0, -1.0], [100.0, 100.0])
    tables["markets"] |= {"price": [100.0], "maintenance_margin_short": [0.01]}
    tables["accounts"]["mode"] = ["cross", "cross"]
    tables[table][column][row] = value
    beside = {("markets", "maintenance_margin", None)} if value == "COIN" else set()  # a position needs a rate
    assert set(refused(nc.ExposureNetwork, **tables)) == {(table, column, row)} | beside


def test_an_inverse_contract_has_no_value_at_price_zero():
    net = nc.ExposureNetwork(**inverse([1.0, -1.0], [100.0, 100.0]))
    with pytest.raises(nc.ContagionError, match="inverse"):
        net.margins(nc.Shock.price({"INV": -1.0}))
    both = net.margins(nc.Shock.price({"COIN": -1.0}, family=True))
    assert both["equity"].tolist() == pytest.approx([-10.0, 10.0])  # the limit: what was bought is worth nothing


# portfolio margin -----------------------------------------------------------------------------------------------------


def test_a_hedged_portfolio_needs_less_than_its_legs(portfolio_rules):
    tables = single(exchanges={"exchange": ["X"], "rulebook": [portfolio_rules]})
    tables["assets"] = {"asset": ["BTC", "ETH", "P", "S"], "price": [100.0, 10.0, 100.0, 1.0],
                        "kind": ["token", "token", "linear", "token"],
                        "underlying": [None, None, "BTC", None]}  # fmt: skip
    tables["balances"] = {"account": ["k", "k"], "asset": ["BTC", "S"], "deposited": [10.0, 50.0]}
    tables["positions"]["quantity"] = [-10.0, 10.0]
    plain = nc.ExposureNetwork(**tables).margins().loc["k"]
    tables["accounts"]["mode"] = ["portfolio", "cross"]
    hedged = nc.ExposureNetwork(**tables).margins().loc["k"]
    assert plain["maintenance_margin"] == 5.0
    assert hedged["maintenance_margin"] == pytest.approx(0.0, abs=1e-9)
    assert hedged["equity"] == plain["equity"] == 1050.0
    assert np.isnan(hedged["initial_margin"])
    tables["balances"] = {"account": ["k"], "asset": ["S"], "deposited": [500.0]}
    assert nc.ExposureNetwork(**tables).margins().loc["k", "maintenance_margin"] == pytest.approx(150.0)


def test_scenarios_name_assets_or_underlyings(portfolio_rules):
    tables = single(exchanges={"exchange": ["X"], "rulebook": [portfolio_rules]})
    assert set(refused(nc.ExposureNetwork, **tables)) == {("exchanges", "rulebook", 0)}


# curves ---------------------------------------------------------------------------------------------------------------


def test_the_curve_sums_the_margins_of_every_price():
    net = generators.market(120, exchanges=1, perpetuals=2, seed=4)
    grid = [-0.3, -0.05, 0.0, 0.2]
    for by, kind in (("exchange", "exchange"), ("trader", "trader")):
        curve = net.maintenance_curve({"BTC": grid}, by=by)
        group = net.accounts[kind]
        for change in grid:
            table = net.margins(nc.Shock.price({"BTC": change}, family=True))
            sums = table.groupby(group.loc[table.index], observed=True)[["margin_equity", "maintenance_margin"]].sum()
            found = curve.loc[change]
            np.testing.assert_allclose(found["maintenance_margin"], sums["maintenance_margin"].loc[found.index])
            np.testing.assert_allclose(found["equity"], sums["margin_equity"].loc[found.index], rtol=1e-9)
            np.testing.assert_allclose(found["coverage"], found["equity"] / found["maintenance_margin"])
    two = net.maintenance_curve({"BTC": [-0.1, 0.1], "ETH": [-0.2, 0.2]})
    assert two.index.names == ["BTC", "ETH", "exchange"]
    assert two.loc[(-0.1, -0.2)].shape == (2, 3)


@pytest.mark.parametrize("changes", [{}, {"BTC": []}, {"BTC": [0.1], "ETH": [0.1, 0.2]}, [0.1]])
def test_a_curve_needs_a_grid(changes):
    net = generators.market(20, exchanges=0, perpetuals=1, seed=0)
    with pytest.raises(ValueError, match="grid"):
        net.maintenance_curve(changes)


def test_names_are_checked():
    net = generators.market(20, exchanges=0, perpetuals=1, seed=0)
    with pytest.raises(nc.UnknownLabelError, match="exchange"):
        net.maintenance_curve({"BTC": [0.1]}, by="exchanges")
    for call in (net.margins, net.liquidation_prices):
        with pytest.raises(nc.UnknownLabelError):
            call(nc.Shock.price({"BTX": 0.1}))
    with pytest.raises(nc.UnknownLabelError):
        net.maintenance_curve({"BTX": [0.1]})
    with pytest.raises(TypeError, match="Shock"):
        net.margins(0.1)


# laws -----------------------------------------------------------------------------------------------------------------


@given(st.integers(0, 10_000))
@common
def test_row_order_never_matters(seed):
    tables, rng = random_tables(seed), np.random.default_rng(seed)
    left = nc.ExposureNetwork(**tables)
    right = nc.ExposureNetwork(**{name: permuted(table, rng) for name, table in tables.items()})
    assert_same(left, right)
    assert left.margins().equals(right.margins())
    assert left.liquidation_prices().equals(right.liquidation_prices())


@given(st.integers(0, 10_000), st.floats(0.01, 100))
@common
def test_the_unit_of_money_does_not_matter(seed, factor):
    tables = random_tables(seed)
    left = nc.ExposureNetwork(**tables)
    money = {
        "assets": ("price", "multiplier"),
        "markets": ("price",),
        "tiers": ("floor",),
        "positions": ("entry_price",),
    }
    scaled = {name: dict(table) for name, table in tables.items()}
    for name, columns in money.items():
        for column in columns:
            values = np.array(scaled[name][column], dtype=float) * factor
            kept = column == "multiplier"
            scaled[name][column] = (
                np.where(np.array(tables["assets"]["kind"]) != "inverse", 1.0, values) if kept else values
            )
    right = nc.ExposureNetwork(**scaled)
    assert left.health().to_numpy() == pytest.approx(right.health().to_numpy(), rel=1e-6)
    for name in ("bankruptcy_price", "liquidation_price"):
        ours, theirs = left.liquidation_prices()[name].to_numpy(), right.liquidation_prices()[name].to_numpy()
        np.testing.assert_allclose(theirs, ours * factor, rtol=1e-6, atol=1e-6 * factor)


@given(st.integers(0, 10_000))
@common
def test_gains_sum_to_zero_per_contract(seed):
    net = nc.ExposureNetwork(**random_tables(seed))
    book = net.book
    custody = (book.deposited - book.borrowed) * book.balance_mark
    scale = np.abs(custody).sum() + book.notional().sum()
    assert book.equity().sum() == pytest.approx(custody.sum(), abs=1e-9 * scale)


@given(st.integers(0, 10_000), st.floats(0.1, 50))
@common
def test_more_margin_never_calls_an_account(seed, more):
    tables = random_tables(seed)
    tables["markets"]["maintenance_margin"] = [
        NAN if asset in ("BTC", "ETH", "USD") else rate
        for asset, rate in zip(tables["markets"]["asset"], tables["markets"]["maintenance_margin"], strict=True)
    ]
    tables["markets"]["maintenance_margin_short"] = [NAN] * len(tables["markets"]["asset"])
    before = nc.ExposureNetwork(**tables).health()
    richer = {name: dict(table) for name, table in tables.items()}
    richer["balances"]["deposited"] = np.array(tables["balances"]["deposited"]) + more
    after = nc.ExposureNetwork(**richer).health()
    kept = [label for label in before.index if not label.startswith("others@")]
    assert (after[kept] >= before[kept] - 1e-9 * before[kept].abs().clip(upper=1e12)).all()


def test_examples():
    found = doctest.testmod(importlib.import_module("netcontagion.network._network"))
    assert found.attempted
    assert not found.failed


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8, 300))
def test_many_slow_twins(seed, portfolio_rules):
    test_margins_are_those_of_a_slow_twin(seed, portfolio_rules)
    test_closing_prices_are_where_the_definition_says(seed, portfolio_rules)


def test_what_is_assumed_of_margin_accounts_is_printed():
    tables = single()
    said = repr(nc.ExposureNetwork(**tables))
    assert "no haircut given for S" in said
    assert "entry prices of others@" not in said
    markets = {"exchange": ["X", "X"], "asset": ["P", "S"], "initial_margin": [0.01, None],
               "maintenance_margin": [0.005, None], "liquidation_threshold": [None, 0.9]}  # fmt: skip
    assert "no haircut" not in repr(nc.ExposureNetwork(**tables | {"markets": markets}))
    positions = {"account": ["k"], "asset": ["P"], "quantity": [10.0], "entry_price": [100.0]}
    assert "entry prices of others@<exchange>" in repr(nc.ExposureNetwork(**tables | {"positions": positions}))
