"""Cascades on books of every impact form, with impact that stays and impact that passes, through the public API."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.integrate

import netcontagion as nc
from netcontagion import builders
from netcontagion.margining import price_after_sale

NAN = math.nan
BOOK = builders.ladder([0.99, 0.95, 0.9, 0.5, 1.01, 1.05], [10, 20, 40, 30, 10, 30])
FORMS = ("exponential", "linear", "square_root", "constant_product", BOOK)


def market(accounts, *, impact="exponential", depth=NAN, rulebook="closeout", price=None, fees=(), **columns):
    """Network of accounts {name: {asset: units}}, owed where negative; books by asset, ETH where none is named."""
    price = {"ETH": 1.0, "USD": 1.0} | (price or {})

    def by_asset(given, default):
        given = given if isinstance(given, dict) else {"ETH": given}
        return [given.get(asset, default) for asset in price]

    names = list(accounts)
    held = [(k, a, max(x, 0.0), max(-x, 0.0)) for k, units in accounts.items() for a, x in units.items()]
    assets = {"asset": list(price), "price": list(price.values()), "impact": by_asset(impact, "exponential")}
    assets |= {"depth": by_asset(depth, NAN), "permanent": by_asset(columns.get("permanent", 1.0), 1.0)}
    assets |= {"half_life": by_asset(columns.get("half_life", NAN), NAN)}
    size, names_of_balances = len(price), ("account", "asset", "deposited", "borrowed")
    return nc.ExposureNetwork(
        assets=assets,
        exchanges={"exchange": ["A"], "rulebook": [rulebook]} | dict(fees),
        markets={
            "exchange": ["A"] * size,
            "asset": list(price),
            "liquidation_threshold": [0.8] * size,
            "liquidation_bonus": [0.05] * size,
            "close_factor": [0.5] * size,
            "depth": columns.get("own", [NAN] * size),
        },
        accounts={"account": names, "trader": names, "exchange": ["A"] * len(names)},
        balances=dict(zip(names_of_balances, map(list, zip(*held, strict=True)), strict=True)),
    )


def run(net, shock=None, **options):
    found = nc.cascade(net, shock or nc.Shock(), **options)
    found.check()
    return found


def sold(found, asset="ETH"):
    """Units sold and their cash."""
    events = found.events
    rows = (events["type"] == "sale") & (events["asset"] == asset)
    return events.loc[rows, "quantity"].sum(), events.loc[rows, "cash"].sum()


def test_g8_a_sale_of_50_on_a_pool_of_1000():
    """Golden check G8: price ratio (1 + .05)^-2, average fill 1 / 1.05 of the price."""
    pool = {"impact": "constant_product", "depth": 1_000.0, "price": {"ETH": 1_000.0}}
    net = market({"k": {"ETH": 50.0, "USD": -45_000.0}}, **pool)
    found = run(net)
    units, cash = sold(found)
    assert units == 50.0
    assert found.assets.loc["ETH", "price"] / 1_000.0 == pytest.approx(0.9070294784580499, rel=1e-14)
    assert cash / units / 1_000.0 == pytest.approx(0.9523809523809516, rel=1e-14)


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_a_sale_brings_the_integral_of_the_price(form, own):
    """On the shared book, and on a book of the exchange, which has the form of the asset."""
    depth = 1.5 if form == BOOK else 300.0
    books = {"own": [depth, NAN]} if own else {"depth": depth}
    net = market({"k": {"ETH": 80.0, "USD": -70.0}}, impact=form, price={"ETH": 0.9}, **books)
    found = run(net)
    units, cash = sold(found)

    def price(q):
        return price_after_sale(q, price=0.9, depth=depth, form=form)

    breaks = np.array([15.0, 45.0]) if form == BOOK else None
    assert units == 80.0
    assert cash == pytest.approx(scipy.integrate.quad(price, 0, 80, points=breaks)[0], rel=1e-7)
    assert found.markets.loc[("A", "ETH"), "mark"] == pytest.approx(price(80.0), rel=1e-14)
    assert found.assets.loc["ETH", "price"] == pytest.approx(0.9 if own else price(80.0), rel=1e-14)


@pytest.mark.parametrize("form", FORMS)
def test_a_sale_in_pieces_is_the_sale_at_once(form):
    """Failure mode 5, for every form: where all impact stays, eight accounts move the price as one."""
    depth = NAN if form == BOOK else 200.0
    one = run(market({"k": {"ETH": 40.0, "USD": -38.0}}, impact=form, depth=depth))
    parts = run(market({f"k{n}": {"ETH": 5.0, "USD": -4.75} for n in range(8)}, impact=form, depth=depth))
    assert sold(parts) == pytest.approx(sold(one), rel=1e-12)
    assert parts.assets.loc["ETH", "price"] == pytest.approx(one.assets.loc["ETH", "price"], rel=1e-12)
    naive = price_after_sale(5.0, price=1.0, depth=1.0 if form == BOOK else 200.0, form=form) ** 8
    if form != "exponential":
        assert naive != pytest.approx(one.assets.loc["ETH", "price"], rel=1e-3)


@pytest.mark.parametrize("form", FORMS)
def test_liquidators_stop_where_the_next_unit_no_longer_pays(form):
    depth = 0.3 if form == BOOK else 100.0 if form != "square_root" else 2_000.0
    found = run(market({"k": {"ETH": 100.0, "USD": -84.0}}, impact=form, depth=depth, rulebook="lending"))
    assert found.status is nc.Status.EXHAUSTED or not found.accounts.loc["k", "health"] < 1
    for _, sale in found.events[found.events["type"] == "sale"].iterrows():
        assert sale["price"] * 1.05 >= found.rounds.loc[sale["round"], "lowest_mark"]
    gain = -found.losses["liquidators"].sum()
    assert gain > 0


def test_a_ladder_fills_no_more_than_its_levels():
    """Sales beyond the last bid stay in the account; its debt is not repaid with what nobody pays."""
    found = run(market({"k": {"ETH": 150.0, "USD": -140.0}}, impact=BOOK))
    units, cash = sold(found)
    assert units == pytest.approx(100.0)
    assert cash == pytest.approx(9.9 + 19.0 + 36.0 + 15.0)
    assert found.status is nc.Status.EXHAUSTED
    assert found.assets.loc["ETH", "price"] == 0.5
    assert found.accounts.loc["k", "deficit"] == 0.0


def test_what_a_ladder_did_not_fill_is_sold_when_it_comes_back():
    net = market({"k": {"ETH": 150.0, "USD": -140.0}}, impact=BOOK, permanent=0.0, half_life=1.0)
    found = run(net)
    units, _ = sold(found)
    by_round = found.events[found.events["type"] == "sale"].groupby("round")["quantity"].sum()
    assert by_round.tolist() == pytest.approx([100.0, 50.0])
    assert units == pytest.approx(150.0)
    assert found.accounts.loc["k", "deficit"] > 0


def test_cash_waits_for_a_debt_that_nobody_sells():
    """40 ETH are for sale, 60 are owed: the rest of the cash is neither paid out nor is the debt written off."""
    net = market({"k": {"USD": 70.0, "ETH": -60.0}}, impact=BOOK)
    found = run(net)
    bought = found.events[found.events["type"] == "purchase"]
    assert bought["quantity"].sum() == pytest.approx(40.0)
    assert bought["cash"].sum() == pytest.approx(10.1 + 31.5)
    assert found.status is nc.Status.EXHAUSTED
    assert found.accounts.loc["k", "deficit"] == 0.0
    again = run(market({"k": {"USD": 70.0, "ETH": -60.0}}, impact=BOOK, permanent=0.0, half_life=1.0))
    assert again.accounts.loc["k", "deficit"] == 0.0
    assert again.events.loc[again.events["type"] == "purchase", "quantity"].sum() == pytest.approx(60.0)
    assert again.status is nc.Status.SETTLED


# permanent and passing impact ---------------------------------------------------------------------------------------


def test_a_flash_crash_comes_back_to_what_is_permanent():
    """log p = -(permanent + passing) / D, and the passing part halves in every round."""
    short = {"ETH": -10.0, "USD": 1_000.0}  # somebody whom a rising price could call
    options = {"depth": 100.0, "permanent": 0.4, "half_life": 1.0}
    found = run(market({"k": {"ETH": 50.0, "USD": -45.0}, "s": short}, **options))
    path = np.log(found.rounds["lowest_mark"].to_numpy())
    assert path[:5] == pytest.approx([0.0, -0.2 - 0.15, -0.2 - 0.075, -0.2 - 0.0375, -0.2 - 0.01875])
    assert found.assets.loc["ETH", "price"] == pytest.approx(math.exp(-0.2), rel=2e-6)
    assert sold(found)[1] == pytest.approx(100.0 * -math.expm1(-0.5))
    alone = run(market({"k": {"ETH": 50.0, "USD": -45.0}}, **options))
    assert len(alone.rounds) == 2  # nobody owes ETH: its recovery can call nobody


def test_a_recovering_price_calls_those_who_owe_the_asset():
    """BTC falls for good and ETH for a while: who owes ETH against BTC is called when ETH is back."""
    crash = {"k": {"ETH": 50.0, "BTC": 50.0, "USD": -90.0}}
    short = {"s": {"BTC": 100.0, "ETH": -70.0}}
    options = {"depth": {"ETH": 100.0, "BTC": 300.0}, "price": {"BTC": 1.0}}
    stays = run(market(crash | short, **options))
    passes = run(market(crash | short, permanent={"ETH": 0.0}, half_life={"ETH": 2.0}, **options))
    assert not stays.accounts.loc["s", "called"]
    assert passes.accounts.loc["s", "called"]
    assert passes.accounts.loc["s", "first_round"] > 2


def test_a_price_that_was_nothing_comes_back_and_calls():
    """A linear book falls to 0 and returns: a debt that was worth nothing is one again."""
    crash = {"k": {"ETH": 200.0, "BTC": 80.0, "USD": -250.0}}
    short = {f"s{n}": {"BTC": 100.0, "ETH": -70.0} for n in range(3)}
    net = market(
        crash | short, impact={"ETH": "linear"}, depth={"ETH": 50.0, "BTC": 300.0}, price={"BTC": 1.0},
        permanent={"ETH": 0.0}, half_life={"ETH": 1.0},
    )  # fmt: skip
    found = run(net)
    assert found.rounds["lowest_mark"].min() == 0.0
    assert found.accounts.loc[list(short), "called"].all()


def test_permanent_one_is_no_memory():
    accounts = {f"k{n}": {"ETH": 50.0, "USD": -40.0 + n} for n in range(-8, 3)}
    plain = run(market(accounts, depth=500.0), nc.Shock.price({"ETH": -0.05}))
    faded = run(market(accounts, depth=500.0, half_life=1.0), nc.Shock.price({"ETH": -0.05}))
    assert plain.events.equals(faded.events)
