"""Perpetual books: from tables of positions to a network, and perpetual exchanges of the synthetic market."""

from __future__ import annotations

import doctest
import hashlib
import importlib
import inspect

import numpy as np
import pandas as pd
import pytest
from conftest import assert_same, lending_tables, refused
from hypothesis import given, settings
from hypothesis import strategies as st

import netcontagion as nc
from netcontagion import builders, generators

common = settings(max_examples=25, deadline=None, derandomize=True)
NAMES = {"trader": "who", "exchange": "at", "asset": "what", "quantity": "size", "entry_price": "in", "margin": "cash"}
TIERS = {"asset": ["BTC-PERP", "ETH-PERP"], "initial_margin": [0.01, 0.02], "maintenance_margin": [0.005, 0.01]}
PRICES = {"BTC-PERP": 100.0, "ETH-PERP": 10.0}


def book(**changes):
    table = {
        "who": ["ann", "ann", "ann", "bob", "bob"],
        "at": ["Perp", "Perp", "Swap", "Perp", "Swap"],
        "what": ["BTC-PERP", "ETH-PERP", "BTC-PERP", "BTC-PERP", "BTC-PERP"],
        "size": [10.0, -50.0, 2.0, -10.0, -1.0],
        "in": [98.0, 9.5, 101.0, 98.0, 99.0],
        "cash": [50.0, 30.0, 20.0, 90.0, 70.0],
        "how": ["cross", "isolated", "cross", "cross", "isolated"],
    }
    return table | changes


def build(table=None, **changes):
    options = {**NAMES, "tiers": TIERS, "prices": PRICES} | changes
    return builders.from_perpetuals(book() if table is None else table, **options)


# accounts -------------------------------------------------------------------------------------------------------------


def test_cross_margin_is_one_account_per_trader_and_exchange():
    net = build()
    assert [label for label in net.labels("accounts") if "others" not in label] == [
        "ann@Perp", "ann@Swap", "bob@Perp", "bob@Swap",
    ]  # fmt: skip
    assert net.balances.loc[("ann@Perp", "USD"), "deposited"] == 80.0
    assert set(net.accounts["mode"]) == {"cross"}
    row = net.margins().loc["ann@Perp"]
    assert row["equity"] == 80 + 10 * (100 - 98) - 50 * (10 - 9.5)
    assert row["maintenance_margin"] == 1000 * 0.005 + 500 * 0.01
    assert net.exchanges["rulebook"].tolist() == ["perpetual", "perpetual"]
    assert net.assets.loc["BTC-PERP", ["kind", "settlement"]].tolist() == ["linear", "USD"]
    assert net.assets.loc["USD", "price"] == 1.0


def test_isolated_margin_is_one_account_per_position():
    net = build(mode="how")
    found = [label for label in net.labels("accounts") if "others" not in label]
    assert found == ["ann@Perp", "ann@Perp:ETH-PERP", "ann@Swap", "bob@Perp", "bob@Swap:BTC-PERP"]
    assert net.accounts.loc["ann@Perp:ETH-PERP", ["trader", "mode"]].tolist() == ["ann", "isolated"]
    assert net.margins()["equity"].to_dict() == {
        "ann@Perp": 70.0, "ann@Perp:ETH-PERP": 5.0, "ann@Swap": 18.0, "bob@Perp": 70.0, "bob@Swap:BTC-PERP": 69.0,
    }  # fmt: skip


def test_an_isolated_hole_leaves_the_other_accounts_alone():
    """The loss of one ring-fenced position stops at its margin; in a cross account it eats the rest."""
    shock = nc.Shock.price({"ETH-PERP": 0.3})
    apart, together = build(mode="how").margins(shock), build().margins(shock)
    assert apart.loc["ann@Perp:ETH-PERP", "equity"] < 0
    assert apart.loc["ann@Perp", "health"] > 1
    assert together.loc["ann@Perp", "equity"] == apart.loc[["ann@Perp", "ann@Perp:ETH-PERP"], "equity"].sum()
    assert together.loc["ann@Perp", "health"] < 1


def test_a_closed_book_needs_no_others_and_an_open_one_gets_them():
    two = {name: [values[i] for i in (0, 3)] for name, values in book().items()}
    net = build(two)
    assert net.derived("accounts") == 0
    assert net.book.equity().sum() == 140.0
    assert build().derived("accounts") == 2
    assert build().book.equity().sum() == pytest.approx(260.0)


def test_accounts_may_have_names_of_their_own():
    table = book(sub=["a1", "a1", "a2", "b1", "b2"])
    net = build(table, account="sub")
    assert net.labels("accounts")[:4].tolist() == ["a1", "a2", "b1", "b2"]
    assert net.accounts.loc["a1", ["trader", "exchange"]].tolist() == ["ann", "Perp"]
    hedged = book(what=["BTC-PERP"] * 5, size=[10.0, -10.0, 2.0, -10.0, -1.0], sub=["long", "short", "x", "y", "z"])
    assert build(hedged, account="sub").positions.loc[("short", "BTC-PERP"), "quantity"] == -10.0


# forms of tables ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["pandas", "polars", "indexed"])
def test_the_kind_of_table_does_not_matter(form):
    if form == "polars":
        polars = pytest.importorskip("polars")
        table, tiers, prices = polars.DataFrame(book()), polars.DataFrame(TIERS), pd.Series(PRICES)
    else:
        table, tiers = pd.DataFrame(book()), pd.DataFrame(TIERS)
        prices = pd.DataFrame({"asset": list(PRICES), "price": list(PRICES.values())})
        tiers = tiers.set_index("asset") if form == "indexed" else tiers
    assert_same(build(table, tiers=tiers, prices=prices, mode="how"), build(mode="how"))


def test_tiers_by_exchange_and_with_prices():
    tiers = {
        "exchange": ["Perp", "Perp", "Perp", "Swap"],
        "asset": ["BTC-PERP", "BTC-PERP", "ETH-PERP", "BTC-PERP"],
        "floor": [0.0, 500.0, 0.0, 0.0],
        "initial_margin": [0.01, 0.02, 0.02, 0.01],
        "maintenance_margin": [0.005, 0.01, 0.01, 0.02],
        "price": [100.0, np.nan, 10.0, 100.5],
    }
    net = build(tiers=tiers, prices=None)
    assert net.margins().loc["bob@Perp", "maintenance_margin"] == pytest.approx(1000 * 0.01 - 2.5)
    assert net.margins().loc["ann@Swap", "maintenance_margin"] == pytest.approx(201 * 0.02)
    assert net.markets.loc[("Swap", "BTC-PERP"), "price"] == 100.5
    assert net.assets.loc["BTC-PERP", "price"] == 100.25
    marks = {("Perp", "BTC-PERP"): 100.0, ("Swap", "BTC-PERP"): 100.5, ("Perp", "ETH-PERP"): 10.0}
    assert build(prices=marks).markets.loc[("Swap", "BTC-PERP"), "price"] == 100.5


def test_contracts_of_several_settlements_and_an_inverse_one():
    prices = {
        "asset": ["BTC-PERP", "ETH-PERP", "BTC", "USDC"],
        "price": [100.0, 10.0, 100.0, 0.99],
        "kind": ["inverse", "linear", "token", "stable"],
        "settlement": ["BTC", None, None, None],
        "multiplier": [5.0, 1.0, 1.0, 1.0],
        "underlying": ["BTC", "ETH", None, None],
    }
    net = build(prices=prices, settlement="USDC")
    held = net.balances["deposited"]
    assert held["ann@Perp", "BTC"] == 50.0
    assert held["ann@Perp", "USDC"] == 30.0
    assert "USD" not in net.labels("assets")
    gain = 10 * 5 * (1 / 98 - 1 / 100) * 100
    assert net.margins().loc["ann@Perp", "equity"] == pytest.approx(5000 + 29.7 + gain - 25)


def test_exchanges_keep_what_they_say():
    exchanges = {"exchange": ["Perp", "Swap"], "insurance_fund": [10.0, 0.0], "insurance_asset": ["USD", None]}
    net = build(exchanges=exchanges)
    assert net.exchanges["insurance_fund"].tolist() == [10.0, 0.0]
    assert net.exchanges["rulebook"].tolist() == ["perpetual"] * 2
    assert build(exchanges=exchanges | {"rulebook": ["bitmex", "deribit"]}).exchanges["rulebook"].tolist() == [
        "bitmex", "deribit",
    ]  # fmt: skip
    assert build(numeraire="EUR").assets.loc["EUR", "price"] == 1.0


@given(st.permutations(range(5)))
@common
def test_row_order_never_matters(order):
    shuffled = {name: [values[i] for i in order] for name, values in book().items()}
    assert_same(build(shuffled, mode="how"), build(mode="how"))


def test_integer_labels_of_exchanges_and_contracts_make_named_accounts():
    table = book(who=[1, 1, 1, 2, 2])
    assert build(table).labels("accounts")[0] == "1@Perp"


def test_a_large_table():
    rng, size = np.random.default_rng(0), 100_000
    table = {
        "who": np.arange(size) // 2,
        "at": np.where(np.arange(size) % 2, "Perp", "Swap").astype(object),
        "what": rng.choice(["BTC-PERP", "ETH-PERP"], size).astype(object),
        "size": rng.normal(0, 1, size),
        "in": rng.uniform(50, 150, size),
        "cash": rng.exponential(100, size),
    }
    table["who"] = np.char.add("t", table["who"].astype(str)).astype(object)
    net = build(table)
    assert len(net.margins()) == size
    assert np.isfinite(net.liquidation_prices()["bankruptcy_price"]).all()


# bad input ------------------------------------------------------------------------------------------------------------


def bad(table=None, **changes):
    options = {**NAMES, "tiers": TIERS, "prices": PRICES} | changes
    return refused(builders.from_perpetuals, book() if table is None else table, **options)


@pytest.mark.parametrize(
    ("column", "row", "value"),
    [
        ("size", 1, None),
        ("size", 0, np.inf),
        ("size", 2, "10"),
        ("in", 0, 0.0),
        ("in", 3, -98.0),
        ("cash", 4, -1.0),
        ("cash", 4, np.nan),
        ("who", 0, None),
        ("who", 1, " ann"),
        ("who", 2, "others@Perp"),
        ("at", 3, ""),
        ("what", 0, 1.5),
        ("what", 4, "BTC_PERP"),
        ("how", 2, "crossed"),
        ("how", 2, None),
    ],
)
def test_one_bad_cell(column, row, value):
    table = book()
    table[column][row] = value
    assert ("table", column, row) in bad(table, mode="how")


def test_every_problem_comes_in_one_error():
    table = book(
        size=[10.0, -50.0, None, -10.0, -1.0], what=["BTC-PERP", "ETH-PERP", "BTC-PERP", "BTC-PEPR", "BTC-PERP"]
    )
    table["cash"][0] = -5.0
    assert {("table", "size", 2), ("table", "what", 3), ("table", "cash", 0)} <= set(bad(table))


@pytest.mark.parametrize("tiers", [{"asset": ["BTC-PERP"]}, {"asset": []}, {"maintenance_margin": [0.1]}, 5])
def test_rates_have_no_default(tiers):
    problems = bad(tiers=tiers)
    assert {table for table, _, _ in problems} == {"tiers"}


def test_a_contract_without_tiers_is_named():
    tiers = {name: values[:1] for name, values in TIERS.items()}
    problems = bad(tiers=tiers)
    assert {(table, column) for table, column, _ in problems} == {("markets", "maintenance_margin")}
    assert any("ETH-PERP" in problem.value for problem in problems.values())


def test_a_bad_tier_is_named_once_where_it_stands():
    assert set(bad(tiers=TIERS | {"maintenance_margin": [0.005, 0.0]})) == {("tiers", "maintenance_margin", 1)}
    two = {"asset": ["BTC-PERP"] * 2 + ["ETH-PERP"], "floor": [0.0, 50.0, 0.0], "initial_margin": [0.1] * 3,
           "maintenance_margin": [0.05] * 3, "price": [100.0, 101.0, 10.0]}  # fmt: skip
    assert ("tiers", "price", 1) in bad(tiers=two, prices=None)


def test_a_price_is_needed():
    assert ("table", "what", 1) in bad(prices={"BTC-PERP": 100.0})
    assert ("table", "what", 0) in bad(prices=None)
    assert ("prices", "price", 1) in bad(prices=PRICES | {"ETH-PERP": -1.0})
    assert ("assets", "settlement", 0) in bad(settlement="USDC")


def test_a_position_stands_once():
    problems = bad(book(what=["BTC-PERP"] * 5))
    assert set(problems) == {("table", "account, asset", 1)}
    assert "account=" in problems["table", "account, asset", 1].cure


def test_an_account_has_one_owner_and_one_mode():
    assert ("table", "sub", 3) in bad(book(sub=["a", "a", "b", "b", "c"]), account="sub")
    assert ("table", "how", 1) in bad(book(sub=["a", "a", "b", "c", "d"]), account="sub", mode="how")


@pytest.mark.parametrize(
    ("changes", "column"), [({"margin": "csh"}, "csh"), ({"mode": "hwo"}, "hwo"), ({"trader": "trader"}, "trader")]
)
def test_a_missing_column_is_named(changes, column):
    assert ("table", column, None) in bad(**changes)


def test_an_empty_table_is_refused():
    assert ("table", None, None) in bad({name: [] for name in book()})


def test_the_pinned_signature():
    names = list(inspect.signature(builders.from_perpetuals).parameters)
    assert names[:8] == ["table", "trader", "exchange", "asset", "quantity", "entry_price", "margin", "tiers"]


# the cascade waits ----------------------------------------------------------------------------------------------------


def test_clearing_reads_margin_accounts():
    """A short squeezed beyond its margin leaves its exchange short by exactly its hole."""
    two = {name: [values[i] for i in (0, 3)] for name, values in book().items()}
    result = nc.clear(build(two), nc.Shock.price({"BTC-PERP": 0.2}))
    result.check()
    assert result.shortfall["Perp"] == pytest.approx(10 * (120 - 98) - 90)


# the synthetic market -------------------------------------------------------------------------------------------------


def text_of(net):
    return hashlib.sha256("".join(getattr(net, name).to_csv() for name in nc.network.schema()).encode()).hexdigest()


def test_perpetuals_leave_the_lending_market_as_it_was():
    plain, mixed = (
        generators.market(120, exchanges=3, seed=5),
        generators.market(120, exchanges=3, perpetuals=2, seed=5),
    )
    assert text_of(plain) == text_of(generators.market(120, exchanges=3, perpetuals=0, owners=["x"], seed=5))
    accounts = [label for label in plain.labels("accounts") if "others@" not in label]
    assert mixed.health()[accounts].tolist() == plain.health()[accounts].tolist()
    assert set(mixed.labels("exchanges")) == {*plain.labels("exchanges"), "Perp-1", "Perp-2"}


@pytest.mark.parametrize("seed", range(6))
def test_perpetual_exchanges_are_closed_and_healthy(seed):
    net = generators.market(80, exchanges=2, perpetuals=3, seed=seed)
    net.check()
    assert not net.under_water.any()
    assert not [label for label in net.labels("accounts") if label.startswith("others@Perp")]
    position = net.columns("positions")
    value = position["quantity"] * position["entry_price"]
    assert abs(value.sum()) <= 1e-9 * np.abs(value).sum()
    table = net.margins()
    assert (table["health"] >= 1.049).all()
    assert (net.balances["deposited"] >= 0).all()
    assert (position["entry_price"] > 0).all()
    assert set(net.exchanges["rulebook"]) >= {"perpetual", "aave_v2"}


def test_a_quarter_of_the_accounts_is_isolated_and_stands_alone():
    net = generators.market(2000, exchanges=0, perpetuals=2, seed=1)
    accounts = net.accounts[net.traders.loc[net.accounts["trader"], "kind"].to_numpy() == "margin trader"]
    assert (accounts["mode"] == "isolated").mean() == pytest.approx(0.25, abs=0.03)
    legs = net.positions.groupby("account", observed=True).size()
    alone = legs[[label for label in legs.index if ":" in label]]
    assert (alone == 1).all()
    assert (legs == 2).mean() == pytest.approx(0.75 * 0.3, abs=0.03)
    each = accounts.groupby("trader", observed=True)["exchange"].nunique()
    assert (each > 1).mean() == pytest.approx(0.2, abs=0.02)


def test_traders_lend_and_hold_contracts():
    net = generators.market(400, exchanges=2, perpetuals=2, shared=0.3, seed=2)
    accounts = net.accounts.reset_index()
    places = accounts.groupby("trader", observed=True)["exchange"].agg(list)
    both = [names for names in places if any("Perp" in n for n in names) and any("Lend" in n for n in names)]
    assert len(both) == 120
    makers = net.traders[net.traders["kind"] == "market_maker"].index
    assert all(len(places[maker]) == 2 for maker in makers)


def test_under_water_accounts_are_drawn_on_request():
    net = generators.market(800, exchanges=0, perpetuals=1, under_water=0.3, seed=3)
    health = net.margins()["health"]
    assert (health < 1).mean() == pytest.approx(0.3, abs=0.05)
    assert (health > 0.89).all()


def test_equal_seeds_give_equal_markets():
    options = {"exchanges": 2, "perpetuals": 2, "owners": ["ann", "bob"]}
    assert_same(generators.market(60, **options, seed=3), generators.market(60, **options, seed=3))
    assert text_of(generators.market(60, **options, seed=3)) != text_of(generators.market(60, **options, seed=4))


def test_a_market_of_traders_and_prices_known_elsewhere_merges():
    """The same trader borrows in the other network and holds contracts here; prices agree."""
    tables = lending_tables()
    other = nc.ExposureNetwork(
        assets={"asset": ["WETH", "USDC"], "price": [2000.0, 1.01], "kind": ["token", "stable"],
                "underlying": ["ETH", None]},
        accounts={"account": ["ann@Lend", "bob@Lend"], "trader": ["ann", "bob"], "exchange": ["Lend"] * 2},
        markets=tables["markets"] | {"asset": ["WETH", "USDC"], "price": [2000.0, 1.01]},
        balances=tables["balances"] | {"account": ["ann@Lend", "ann@Lend", "bob@Lend", "bob@Lend"],
                                       "asset": ["WETH", "USDC"] * 2},
    )  # fmt: skip
    perps = generators.market(
        40, exchanges=0, perpetuals=2, owners=other.labels("traders"), prices=other.assets["price"], seed=1
    )
    assert perps.assets.loc["ETH-PERP", "price"] == 2000.0
    net = nc.merge(other, perps)
    net.check()
    ann = net.accounts[net.accounts["trader"] == "ann"]
    assert "Lend" in set(ann["exchange"])
    assert len(ann) == 2
    health = net.health()
    for part in (other, perps):
        own = [label for label in part.labels("accounts") if "others@" not in label]
        assert health[own].tolist() == part.health()[own].tolist()


def test_prices_of_a_family_move_together():
    net = generators.market(50, exchanges=1, perpetuals=1, prices={"WETH": 3440.0, "nothing": 7.0}, seed=1)
    price = net.assets["price"]
    assert price[["WETH", "stETH", "ETH-PERP"]].tolist() == [3440.0] * 3
    assert price["wstETH"] == pytest.approx(2 * 1941.54)
    assert price["WBTC"] == 26700.0
    own = generators.market(50, exchanges=1, perpetuals=1, prices={"ETH-PERP": 1700.0, "stETH": 1650.0}, seed=1)
    assert own.assets.loc[["ETH-PERP", "stETH", "WETH"], "price"].tolist() == [1700.0, 1650.0, 1720.0]
    assert own.health().min() > 1


@pytest.mark.parametrize("perpetuals", [1, 3])
def test_tiny_markets(perpetuals):
    for size in range(1, 12):
        net = generators.market(size, exchanges=0, perpetuals=perpetuals, shared=0.5, owners=["x"], seed=size)
        net.check()
        assert not net.under_water.any()
        assert (net.positions["entry_price"] > 0).all()
        own = sum(not label.startswith("maker-") for label in net.labels("accounts"))
        assert own == size


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"perpetuals": -1}, "perpetuals"),
        ({"perpetuals": []}, "perpetuals"),
        ({"perpetuals": ["a", "a"]}, "perpetuals"),
        ({"perpetuals": ["Lend-1"]}, "perpetuals"),
        ({"exchanges": 0}, "exchanges"),
        ({"prices": {"WETH": 0.0}}, "price"),
        ({"prices": {"USDC": float("nan")}}, "price"),
    ],
)
def test_a_market_refuses_what_makes_no_sense(options, word):
    with pytest.raises(ValueError, match=f"{word} .*allowed"):
        generators.market(**options, seed=0)


def test_named_perpetual_exchanges():
    net = generators.market(20, exchanges=0, perpetuals=["north", "south"], seed=0)
    assert net.labels("exchanges").tolist() == ["north", "south"]


def test_examples():
    found = doctest.testmod(importlib.import_module("netcontagion.builders._perpetuals"))
    assert found.attempted
    assert not found.failed


@pytest.mark.slow
def test_a_million_positions():
    net = generators.market(820_000, exchanges=0, perpetuals=4, seed=1)
    assert len(net.positions) > 1_000_000
    assert (net.margins()["health"] > 1).all()
    prices = net.liquidation_prices()
    assert np.isfinite(prices).all(axis=None)
