"""Failure modes of naive simulators, numbered, each in the smallest market that shows it.

Every test works out the naive answer by hand, runs the package, and asserts that the two differ and that ours is right.
"""

from __future__ import annotations

import math
from importlib import resources

import numpy as np
import pytest

import netcontagion as nc
from netcontagion import clearing

NAN = math.nan
DEFAULTS = {
    "price": NAN, "liquidation_threshold": 0.8, "liquidation_bonus": 0.05, "close_factor": 0.5, "depth": NAN,
}  # fmt: skip


def lend(accounts, *, prices, depth=(), rulebook="lending", markets=(), modes=(), exchanges=(), **tables):
    """Lending market of accounts {"trader@exchange": {asset: units}}, where units owed are negative.

    ``markets`` replaces parameters by asset or by (exchange, asset), ``modes`` columns of accounts by account,
    ``exchanges`` columns of exchanges by exchange; "trader@exchange/2" is another account there.
    """
    parts = {k: (k.split("@")[0], k.split("@")[1].split("/")[0]) for k in accounts}
    venues = list(dict.fromkeys(venue for _, venue in parts.values()))
    markets, modes, depth, exchanges = dict(markets), dict(modes), dict(depth), dict(exchanges)
    rows = [
        {"exchange": v, "asset": a} | DEFAULTS | markets.get(a, {}) | markets.get((v, a), {})
        for v in venues for a in prices
    ]  # fmt: skip
    owners = [{"account": k, "trader": t, "exchange": v} | modes.get(k, {}) for k, (t, v) in parts.items()]
    banks = [{"exchange": v, "rulebook": rulebook} | exchanges.get(v, {}) for v in venues]
    held = [
        {"account": k, "asset": a, "deposited": max(x, 0.0), "borrowed": max(-x, 0.0)}
        for k, units in accounts.items() for a, x in units.items()
    ]  # fmt: skip
    assets = {"asset": list(prices), "price": list(prices.values()), "depth": [depth.get(a, NAN) for a in prices]}
    given = {"assets": assets, "markets": columns(rows), "accounts": columns(owners), "exchanges": columns(banks)}
    return nc.ExposureNetwork(**(given | {"balances": columns(held)} | tables))


def perpetuals(accounts, *, rulebook, depth=math.inf, **exchange):
    """Exchange P of one linear contract at 100, maintenance margin 0.5 %; accounts are {name: (cash, units, entry)}."""
    contracts = [{"account": k, "asset": "PERP", "quantity": q, "entry_price": e} for k, (_, q, e) in accounts.items()]
    return nc.ExposureNetwork(
        assets={"asset": ["PERP", "USD"], "price": [100.0, 1.0], "kind": ["linear", "stable"],
                "underlying": ["BTC", None], "settlement": ["USD", None], "depth": [depth, NAN]},
        exchanges=columns([{"exchange": "P", "rulebook": rulebook} | exchange]),
        markets={"exchange": ["P"] * 2, "asset": ["PERP", "USD"], "maintenance_margin": [0.005, NAN]},
        accounts={"account": list(accounts), "trader": list(accounts), "exchange": ["P"] * len(accounts)},
        balances={"account": list(accounts), "asset": ["USD"] * len(accounts),
                  "deposited": [cash for cash, _, _ in accounts.values()]},
        positions=columns([row for row in contracts if row["quantity"]]),
    )  # fmt: skip


def with_sources(folder, preset, sources):
    """Write a preset with price sources; return its path."""
    path = folder / f"{preset}_{len(list(folder.iterdir()))}.toml"
    text = resources.files("netcontagion.network").joinpath("rulebooks", f"{preset}.toml").read_text(encoding="utf-8")
    path.write_text(f"{text}\n{sources}", encoding="utf-8")
    return str(path)


def columns(rows):
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def run(net, shock=None, **options):
    found = nc.cascade(net, shock or nc.Shock(), **options)
    found.check()
    return found


def called(found):
    return set(found.accounts.index[found.accounts["called"]])


def liquidated(found):
    return set(found.accounts.index[found.accounts["liquidated"]])


def money(found, kind):
    """Cash of all events of one type."""
    return float(found.events.loc[found.events["type"] == kind, "cash"].sum())


PAIR = {"ETH": 1.0, "USD": 1.0}
PASSIVE = {"trader": ["t"], "policy": ["passive"]}


def test_01_one_price_per_asset():
    """A token at 0.65 on A and 0.99 on B: equal accounts, and only the one at A is called."""
    alike = {"TKN": 100.0, "USD": -70.0}
    marks = {("A", "TKN"): {"price": 0.65, "depth": 1_000.0}, ("B", "TKN"): {"price": 0.99, "depth": 1_000.0}}
    net = lend({"a@A": alike, "b@B": alike}, prices={"TKN": 1.0, "USD": 1.0}, markets=marks, rulebook="closeout")
    found = run(net)
    for price in (0.65, 0.82, 0.99):  # whatever the one price is, equal accounts fare alike
        naive = {k for k in ("a@A", "b@B") if 0.8 * 100 * price < 70}
        assert naive != called(found)
    assert called(found) == {"a@A"}
    assert found.markets.loc[("A", "TKN"), "mark"] == pytest.approx(0.65 * math.exp(-0.1))
    assert found.markets.loc[("B", "TKN"), "mark"] == 0.99


def test_02_sales_at_the_shock_price_or_at_the_last_price():
    """A sale brings the integral of the price: less than at the price of the shock, more than at the last one."""
    net = lend({"k@A": {"ETH": 100.0, "USD": -75.0}}, prices=PAIR, depth={"ETH": 500.0}, rulebook="closeout")
    found = run(net, nc.Shock.price({"ETH": -0.1}))
    at_shock, at_end = 100 * 0.9, 100 * 0.9 * math.exp(-0.2)
    ours = 0.9 * 500 * -math.expm1(-0.2)
    assert money(found, "sale") == pytest.approx(ours, rel=1e-12)
    assert at_end < 75 < ours < at_shock  # the last price would have left bad debt
    assert found.accounts.loc["k@A", "deficit"] == 0.0
    assert found.traders.loc["k", "loss"] == pytest.approx(100 - ours)


def test_03_bad_debt_without_the_bonus():
    """Collateral of 100 for a debt of 98: max(D - C, 0) = 0, but the bonus takes 4.76 of it."""
    net = lend({"k@A": {"ETH": 100.0, "USD": -98.0}}, prices=PAIR, markets={"USD": {"close_factor": 1.0}})
    found = run(net)
    naive = max(98.0 - 100.0, 0.0)
    assert found.accounts.loc["k@A", "deficit"] == pytest.approx(98 - 100 / 1.05, rel=1e-12)
    assert found.accounts.loc["k@A", "deficit"] > naive + 2


def test_04_liquidators_with_free_cash():
    """The bonus is no income: liquidators pay for the debt asset and sell what they seize, at what the book pays."""
    net = lend({"k@A": {"ETH": 100.0, "USD": -81.0}}, prices=PAIR, depth={"ETH": 1_000.0})
    found = run(net)
    repaid = 40.5
    naive = repaid * 0.05
    gain = -found.losses["liquidators"].sum()
    assert gain == pytest.approx(1_000 * -math.expm1(-repaid * 1.05 / 1_000) - repaid, rel=1e-9)
    assert gain == pytest.approx(money(found, "sale") - money(found, "purchase"), rel=1e-12)
    assert 0 < gain < 0.6 * naive
    fall = 100 * (1 - found.assets.loc["ETH", "price"])  # losses of all are units x fall: nothing is created
    everybody = found.losses.to_numpy().sum()
    assert everybody == pytest.approx(fall, rel=1e-12)
    assert everybody - (naive - gain) != pytest.approx(fall, rel=1e-3)


def test_05_square_root_impact_per_sale():
    """A square root of each sale makes many small sales dearer than one; the quantity must be cumulative."""

    def price_after(sellers):
        return clearing.fire_sale(
            np.zeros((sellers, sellers)), np.zeros(sellers), np.full((sellers, 1), 36.0 / sellers), prices=[1.0],
            depth=[100.0], external_liabilities=np.full(sellers, 50.0), impact="square_root",
        ).prices[0]  # fmt: skip

    def naive(sales):
        return (1 - math.sqrt(36.0 / sales / 100)) ** sales

    assert price_after(1) == pytest.approx(0.4) == naive(1)
    assert price_after(9) == pytest.approx(0.4)
    assert naive(9) < 0.14


LONG = {"long": (50.0, 10.0, 100.0), "next": (750.0, 100.0, 100.0), "short": (9e3, -110.0, 100.0)}


def test_06_gross_liquidations_as_net_selling():
    """Winners and vaults take contracts over without an order: the price stays, and the next long is not called."""
    naive = 93 * math.exp(-10 / 200)
    assert 750 + 100 * (naive - 100) < 0 < 0.005 * 100 * 93 < 750 + 100 * (93 - 100.0)
    fall = nc.Shock.price({"PERP": -0.07})
    won = run(perpetuals(LONG, rulebook="perpetual", depth=200.0), fall)
    rich = LONG | {"long": (71.0, 10.0, 100.0), "vault": (500.0, 0.0, 0.0)}  # equity of 1, under two thirds of 4.65
    taken = run(perpetuals(rich, rulebook="hyperliquid", depth=200.0, backstop="vault"), fall)
    for found, kind in ((won, "auto_deleveraging"), (taken, "takeover")):
        moved = found.events[(found.events["type"] == kind) & (found.events["asset"] == "PERP")]
        assert moved["quantity"].tolist() == [10.0]  # the gross notional is there
        assert liquidated(found) == called(found) == {"long"}
        assert found.assets.loc["PERP", ["price", "sold"]].tolist() == [93.0, 0.0]
        assert found.rounds["sold"].sum() == 0.0
    sold = run(perpetuals(LONG, rulebook="perpetual", depth=200.0, insurance_fund=1e6), fall)
    assert called(sold) == {"long", "next"}  # where the book takes it, the naive answer is right
    assert sold.events.loc[sold.events["type"] == "contract_sale", "quantity"].iloc[0] == 10.0


def test_07_both_sides_of_a_trade():
    """A liquidation has a liquidated and a liquidating side, and is followed by trades: it counts once."""
    found = run(lend({"k@A": {"ETH": 100.0, "USD": -81.0}}, prices=PAIR))
    naive = sum(money(found, kind) for kind in ("liquidation", "sale", "purchase"))
    assert money(found, "liquidation") == pytest.approx(40.5)
    assert found.accounts["repaid"].sum() == pytest.approx(40.5)
    assert found.rounds["repaid"].sum() == pytest.approx(40.5)
    assert naive > 3 * 40.5
    seized = found.events.loc[found.events["type"] == "liquidation", "quantity"].sum()
    assert found.assets.loc["ETH", "sold"] == pytest.approx(seized) == 42.525


def test_08_liquidations_summed_over_sources():
    """Two records of one exchange share an account: joined, it is liquidated once."""
    one = {"ETH": 100.0, "USD": -81.0}
    records = [lend(dict.fromkeys(names, one), prices=PAIR) for names in (("a@A", "b@A"), ("b@A", "c@A"))]
    naive = sum(run(net).accounts["repaid"].sum() for net in records)
    found = run(nc.merge(*records))
    assert naive == pytest.approx(4 * 40.5)
    assert found.accounts["repaid"].sum() == pytest.approx(3 * 40.5)


def test_09_profits_of_deleveraged_traders_as_income_of_the_exchange():
    """Winners closed at 95 realise 50, their own; over all accounts profit and loss sum to zero."""
    accounts = {"long": (50.0, 10.0, 100.0), "a": (100.0, -6.0, 100.0), "b": (100.0, -4.0, 100.0)}
    found = run(perpetuals(accounts, rulebook="perpetual"), nc.Shock.price({"PERP": -0.07}))
    closed = found.events[found.events["type"] == "auto_deleveraging"]
    realised = float((closed["quantity"] * (100 - closed["price"])).sum())
    naive = realised - found.exchanges.loc["P", "deficit"]
    assert naive == pytest.approx(50 - 20)
    assert found.exchanges.loc["P", "loss"] == pytest.approx(0.0, abs=1e-9)
    loss = found.traders["loss"]
    assert loss[["long", "a", "b"]].tolist() == pytest.approx([50.0, -30.0, -20.0])
    assert loss.sum() == pytest.approx(0.0, abs=1e-9)
    assert -loss[["a", "b"]].sum() == pytest.approx(realised) == 10 * (100 - 93) - 20  # less than at the mark


def test_10_isolated_deficit_charged_to_another_account():
    """The other account of the trader could pay for the hole three times over, and does not."""
    accounts = {"t@A/1": {"ETH": 100.0, "USD": -75.0}, "t@A/2": {"USD": 100.0}}
    modes = {name: {"mode": "isolated"} for name in accounts}
    net = lend(
        accounts, prices=PAIR, modes=modes, traders=PASSIVE, rulebook="closeout", exchanges={"A": {"equity": 1e3}}
    )
    found = run(net, nc.Shock.price({"ETH": -0.5}))
    naive = max(0.0, 75 - 50 - 100)
    assert naive == 0.0
    assert found.accounts["deficit"].loc[["t@A/1", "t@A/2"]].tolist() == [25.0, 0.0]
    assert found.accounts.loc["t@A/2", ["loss", "equity"]].tolist() == [0.0, 100.0]
    assert found.exchanges.loc["A", "equity_used"] == pytest.approx(25.0)
    assert found.traders.loc["t", "loss"] == pytest.approx(25.0)  # its collateral of 100 is gone, and its debt of 75


def test_11_insurance_fund_without_its_asset():
    """A fund of 30 in ether covers a hole of 25 until ether has halved."""
    fund = {"A": {"insurance_fund": 30.0, "insurance_asset": "ETH", "equity": 1e3}}
    net = lend({"k@A": {"ETH": 100.0, "USD": -75.0}}, prices=PAIR, rulebook="closeout", exchanges=fund)
    found = run(net, nc.Shock.price({"ETH": -0.5}))
    hole = found.exchanges.loc["A", "deficit"]
    naive = min(30.0, hole)
    assert hole == pytest.approx(25.0) == naive
    assert found.exchanges.loc["A", "insurance_fund_used"] == pytest.approx(15.0)
    assert found.exchanges.loc["A", "equity_used"] == pytest.approx(10.0)


def test_12_unlimited_top_ups():
    """A wallet that saves either account does not save both."""
    accounts = {f"t@{v}": {"ETH": 100.0, "USD": -82.0} for v in "AB"}
    missing = 82 - 80 / 1.05  # debt to repay for health 1.05
    wallets = {"trader": ["t"], "asset": ["USD"], "units": [1.5 * missing]}
    naive = [liquidated(run(lend({k: units}, prices=PAIR, wallets=wallets))) for k, units in accounts.items()]
    found = run(lend(accounts, prices=PAIR, wallets=wallets))
    assert naive == [set(), set()]
    assert len(liquidated(found)) == 1 == found.accounts["topped_up"].sum()
    assert money(found, "top_up") == pytest.approx(missing)


def test_13_withdrawals_from_an_exchange_that_is_shut():
    """Margin at an exchange that stopped is not there when it is needed."""
    accounts = {"t@A": {"ETH": 100.0, "USD": -82.0}, "t@B": {"USD": 100.0}}
    net = lend(accounts, prices=PAIR)
    naive, found = run(net), run(net, nc.Shock.outage("B"))
    assert liquidated(naive) == set()
    assert money(naive, "withdrawal") == pytest.approx(82 - 80 / 1.05)
    assert liquidated(found) == {"t@A"}
    assert found.accounts.loc["t@B", "loss"] == 0.0


def test_14_fixed_depth_in_a_crash():
    """Where a crash leaves a tenth of the depth, the same sale moves the price ten times as far."""
    accounts = {"a@A": {"ETH": 10.0, "USD": -7.5}, "b@A": {"ETH": 10.0, "USD": -6.8}}
    net = lend(accounts, prices=PAIR, depth={"ETH": 500.0}, rulebook="closeout")
    fall = nc.Shock.price({"ETH": -0.1})
    naive, found = run(net, fall), run(net, fall + nc.Shock.depth(0.1))
    assert liquidated(naive) == {"a@A"}
    assert naive.assets.loc["ETH", "price"] == pytest.approx(0.9 * math.exp(-10 / 500))
    assert liquidated(found) == {"a@A", "b@A"}
    assert found.assets.loc["ETH", "price"] == pytest.approx(0.9 * math.exp(-20 / 50))


def test_15_nobody_buys_what_fell():
    """Without demand every sale stays on the price; buyers lift it, as far as their own money goes."""
    accounts = {"a@A": {"ETH": 10.0, "USD": -7.5}, "b@A": {"ETH": 10.0, "USD": -6.8}}
    who = {"traders": {"trader": ["a", "b", "buyer"], "policy": ["default", "default", "contrarian"]}}
    prices = []
    for cash in (0.0, 1.0, 100.0):
        purse = {"wallets": {"trader": ["buyer"], "asset": ["USD"], "units": [cash]}}
        net = lend(accounts, prices=PAIR, depth={"ETH": 50.0}, rulebook="closeout", **who, **purse)
        found = run(net, nc.Shock.price({"ETH": -0.1}))
        bought = found.events.loc[found.events["type"] == "purchase_of_fallen", "cash"].sum()
        assert bought <= cash * (1 + 1e-12)
        prices.append(found.assets.loc["ETH", "price"])
    assert prices[0] == pytest.approx(0.9 * math.exp(-20 / 50))  # the naive answer, whatever buyers there are
    assert prices[0] < prices[1] < prices[2] < 0.9


def test_16_oracle_and_book(tmp_path):
    """A lends at B's price: a sale on B's book calls at A, where the account is sold for what A's own book pays."""
    accounts = {"b@B": {"ETH": 40.0, "USD": -35.0}, "a@A": {"ETH": 100.0, "USD": -65.0}}
    rules = with_sources(tmp_path, "closeout", '[sources.of_b]\nmode = "index"\nlegs = [{exchange = "B"}]')
    books = {("B", "ETH"): {"price": 1.0, "depth": 100.0}, ("A", "ETH"): {"price": 1.0, "depth": 1_000.0}}
    read = books | {("A", "ETH"): books["A", "ETH"] | {"price_source": "of_b"}}
    naive, found = (run(lend(accounts, prices=PAIR, rulebook=rules, markets=given)) for given in (books, read))
    assert called(naive) == {"b@B"}
    assert called(found) == {"b@B", "a@A"}
    mark = math.exp(-0.4)
    assert found.markets.loc[("A", "ETH"), "mark"] == pytest.approx(mark)
    assert found.markets.loc[("A", "ETH"), "price"] == pytest.approx(math.exp(-0.1))
    sales = found.events[(found.events["type"] == "sale") & (found.events["account"] == "a@A")]
    ours = 1_000 * -math.expm1(-0.1)
    assert sales["cash"].sum() == pytest.approx(ours)
    assert found.traders.loc["a", "loss"] == pytest.approx(100 - ours)
    assert ours - 65 > 10 * (100 * mark - 65)  # what a sale at the mark would have left


def test_17_all_of_a_debt_where_the_close_factor_is_half():
    """And half of it where everything is closed."""
    accounts, half = {"k@A": {"ETH": 100.0, "USD": -81.0}}, {a: {"close_factor": NAN} for a in PAIR}
    found = {book: run(lend(accounts, prices=PAIR, markets=half, rulebook=book)) for book in ("aave_v2", "closeout")}
    repaid = {book: result.accounts.loc["k@A", "repaid"] for book, result in found.items()}
    assert repaid == {"aave_v2": pytest.approx(40.5), "closeout": pytest.approx(81.0)}
    assert found["aave_v2"].accounts.loc["k@A", "health"] == pytest.approx(0.8 * (100 - 42.525) / 40.5)
    assert found["closeout"].accounts.loc["k@A", "health"] == math.inf


def test_18_close_factor_of_the_reserve_or_of_the_position():
    """Half of one debt of 6,000 until Aave v3.2; half of all debts of 10,000 since v3.3."""
    accounts = {"k@A": {"ETH": 12_400.0, "USD": -6_000.0, "DAI": -4_000.0}}
    prices = PAIR | {"DAI": 1.0}
    own = {a: {"close_factor": NAN} for a in prices}
    repaid = {}
    for book in ("aave_v3_0", "aave_v3"):
        net = lend(accounts, prices=prices, markets=own, rulebook=book)
        found = nc.cascade(net, nc.Shock(), max_rounds=1, strict=False)
        found.check()
        repaid[book] = found.accounts.loc["k@A", "repaid"]
    assert repaid == {"aave_v3_0": pytest.approx(3_000.0), "aave_v3": pytest.approx(5_000.0)}


def test_19_e_mode_under_independent_stablecoins():
    """Threshold .975, bonus 1 %: nothing happens when both coins fall together, bad debt when one of them does."""
    mode = {"k@A": {"liquidation_threshold": 0.975, "liquidation_bonus": 0.01}}
    assets = {"asset": ["USDA", "USDB"], "price": [1.0, 1.0], "underlying": ["dollar", "dollar"], "depth": [NAN, NAN]}
    net = lend({"k@A": {"USDA": 100.0, "USDB": -97.0}}, prices={"USDA": 1.0, "USDB": 1.0}, modes=mode, assets=assets)
    together = run(net, nc.Shock.price({"dollar": -0.05}, family=True))
    naive = run(net, nc.Shock.price({"USDA": -0.05}))  # the other coin drawn by itself, and stays
    assert called(together) == set()
    assert together.accounts.loc["k@A", "health"] == pytest.approx(0.975 / 0.97)
    assert liquidated(naive) == {"k@A"}
    assert naive.accounts.loc["k@A", "deficit"] > 0
    assert run(net, nc.Shock.price({"USDA": -0.01})).accounts.loc["k@A", "called"]  # the margin is 0.5 %


def test_20_liquidations_that_do_not_pay():
    """A thin book takes only what pays at the margin; without a bonus nobody comes, and the account stays."""
    accounts, thin = {"k@A": {"ETH": 100.0, "USD": -81.0}}, {"ETH": 10.0}
    naive = 0.5 * 81
    first = nc.cascade(lend(accounts, prices=PAIR, depth=thin), nc.Shock(), max_rounds=1, strict=False)
    first.check()
    assert first.accounts.loc["k@A", "repaid"] == pytest.approx(10 * math.log(1.05) / 1.05)
    assert first.accounts.loc["k@A", "repaid"] < 0.02 * naive
    unpaid = run(lend(accounts, prices=PAIR, depth=thin, markets={"ETH": {"liquidation_bonus": 0.0}}))
    assert unpaid.status is nc.Status.EXHAUSTED
    assert liquidated(unpaid) == set()
    assert unpaid.accounts.loc["k@A", "health"] == pytest.approx(80 / 81)


def test_21_buy_backs_of_shorts():
    """Who owes ether is called when it rises and buys it back: that lifts the price, and calls the next one."""
    accounts = {"a@A": {"USD": 100.0, "ETH": -75.0}, "b@A": {"USD": 100.0, "ETH": -70.0}}
    net = lend(accounts, prices=PAIR, depth={"ETH": 1_000.0}, rulebook="closeout")
    found = run(net, nc.Shock.price({"ETH": 0.1}))
    ignored, wrong_sign = 1.1, 1.1 * math.exp(-75 / 1_000)
    price = found.assets.loc["ETH", "price"]
    assert price == pytest.approx(1.1 * math.exp((75 + 70) / 1_000))
    assert wrong_sign < ignored < price
    assert 80 / (70 * ignored) > 1  # b is called by the purchase of a, not by the shock
    assert called(found) == {"a@A", "b@A"}
    assert called(run(net, nc.Shock.price({"ETH": -0.1}))) == set()


def test_22_holes_that_nobody_owes_as_debts_of_traders():
    """Without recourse the hole stays with the exchange, and the trader's bank is paid in full."""
    net = lend(
        {"t@A": {"ETH": 100.0, "USD": -75.0}}, prices=PAIR, rulebook="closeout", exchanges={"A": {"equity": 40.0}},
        traders={"trader": ["t", "bank"], "external_assets": [50.0, 0.0], "policy": ["passive"] * 2},
        liabilities={"debtor": ["t"], "creditor": ["bank"], "amount": [50.0]},
    )  # fmt: skip
    found = run(net, nc.Shock.price({"ETH": -0.5}))
    naive = clearing.eisenberg_noe([[0.0, 50.0, 25.0], [0.0] * 3, [0.0] * 3], [50.0, 0.0, 40.0])
    assert naive.equity[1] == pytest.approx(50 * 50 / 75)  # what the bank would get
    assert found.traders.loc["bank", "loss"] == 0.0
    assert not found.traders.loc["t", "defaulted"]
    assert found.exchanges.loc["A", "equity_used"] == pytest.approx(25.0)


def test_23_the_iteration_from_zero_with_default_costs():
    """Two banks owe each other 10 and have 1: from zero they never pay more than 1.5, though both can pay in full."""
    net = nc.ExposureNetwork(
        traders={"trader": ["a", "b"], "external_assets": [1.0, 1.0]},
        liabilities={"debtor": ["a", "b"], "creditor": ["b", "a"], "amount": [10.0, 10.0]},
    )
    naive = 0.0
    for _ in range(200):
        naive = 10.0 if 1 + naive >= 10 else 0.6 * 1 + 0.6 * naive
    assert naive == pytest.approx(1.5)
    found = nc.clear(net, model="rogers_veraart", alpha=0.6, beta=0.6)
    assert np.asarray(found.payments).tolist() == [10.0, 10.0]
    least = nc.clear(net, model="rogers_veraart", alpha=0.6, beta=0.6, which="least")
    assert np.asarray(least.payments) == pytest.approx([1.5, 1.5])


def test_24_thresholds_and_ties_in_floating_point():
    """Health .95 is inclusive and equal debts are a tie, whatever the last bit of a product or a sum says."""
    prices = PAIR | {"AAA": 1.0, "BBB": 1.0}
    own = {a: {"close_factor": NAN} for a in prices}
    naive, ours = [], []
    for scale in np.random.default_rng(0).uniform(1e4, 1e6, 30).tolist():
        collateral = scale * 0.95 / 0.8
        naive.append(collateral * 0.8 / scale <= 0.95)
        net = lend({"k@A": {"ETH": collateral, "USD": -scale}}, prices=prices, markets=own, rulebook="aave_v3_0")
        found = nc.cascade(net, nc.Shock(), max_rounds=1, strict=False)
        ours.append(found.accounts.loc["k@A", "repaid"] == pytest.approx(scale))
    assert all(ours)
    assert not all(naive)
    repaid = []
    pairs = ((0.3, 0.1 + 0.2), (0.1 + 0.2, 0.3))
    for one, other in pairs:
        net = lend({"k@A": {"ETH": 0.74, "AAA": -one, "BBB": -other}}, prices=prices)
        found = nc.cascade(net, nc.Shock(), max_rounds=1, strict=False)
        repaid.append(found.events.loc[found.events["type"] == "purchase", "asset"].tolist())
    assert repaid == [["AAA"], ["AAA"]]
    first_of = [max([("AAA", one), ("BBB", other)], key=lambda owed: owed[1])[0] for one, other in pairs]
    assert first_of == ["BBB", "AAA"]  # a plain comparison goes by the last bit


def test_25_health_of_totals():
    """A trader at 1.28 in all is called in the account that is below 1."""
    accounts = {"t@A/1": {"ETH": 100.0, "USD": -85.0}, "t@A/2": {"ETH": 100.0, "USD": -40.0}}
    found = run(lend(accounts, prices=PAIR, traders=PASSIVE))
    naive = 0.8 * 200 / 125
    assert naive == pytest.approx(1.28)
    assert called(found) == liquidated(found) == {"t@A/1"}


def test_26_deposits_cut_where_only_gains_are():
    """A hole of 20: gains of 42 and 28 bear it; who holds no contract keeps 40."""
    accounts = {"long": (50.0, 10.0, 100.0), "a": (100.0, -6.0, 100.0), "b": (100.0, -4.0, 100.0)}
    accounts |= {"flat": (40.0, 0.0, 0.0)}
    found = run(perpetuals(accounts, rulebook="deribit"), nc.Shock.price({"PERP": -0.07}))
    naive = np.array([142.0, 128.0, 40.0]) - 20 * np.array([100, 100, 40]) / 240
    ours = found.accounts.loc[["a", "b", "flat"], "equity"].to_numpy()
    assert found.exchanges.loc["P", ["gains_used", "socialised"]].tolist() == pytest.approx([20.0, 0.0])
    assert ours == pytest.approx([142 - 12, 128 - 8, 40.0])
    assert ours.sum() == pytest.approx(naive.sum())
    assert ours[2] > naive[2] + 3


def test_27_index_weights_of_another_day(tmp_path):
    """A wrapped token falls by 80 % on the book that has 30 % of the index: weights are those of the day's rulebook."""
    legs = 'mode = "index"\nlegs = [{{weight = {}}}, {{asset = "ETH", convert = true, weight = {}}}]'
    accounts = {"k@A": {"wETH": 100.0, "USD": -65.0}, "j@A": {"wETH": 100.0, "USD": -55.0}}
    assets = {"asset": ["ETH", "wETH", "USD"], "price": [1.0] * 3, "underlying": [None, "ETH", None]}
    marked = {"wETH": {"price_source": "blend"}}

    def on(sources):
        rules = with_sources(tmp_path, "closeout", f"[sources.blend]\n{sources}")
        net = lend(accounts, prices=PAIR | {"wETH": 1.0}, rulebook=rules, markets=marked, assets=assets)
        return run(net, nc.Shock.price({"wETH": -0.8}))

    before, found, after = on(legs.format(5, 5)), on(legs.format(3, 7)), on('mode = "redemption"')
    marks = [one.markets.loc[("A", "wETH"), "mark_after_shock"] for one in (before, found, after)]
    assert marks == pytest.approx([0.5 * 0.2 + 0.5, 0.3 * 0.2 + 0.7, 1.0])
    assert called(found) == {"k@A"}
    assert called(before) == {"k@A", "j@A"}
    assert called(after) == set()


def test_28_open_interest_as_a_measure_of_liquidations():
    """A liquidated long of 10: sold or taken over, open interest stays; it falls by what winners are closed for."""
    accounts = {"long": (50.0, 10.0, 100.0), "a": (100.0, -6.0, 100.0), "b": (100.0, -4.0, 100.0)}
    rich = accounts | {"long": (71.0, 10.0, 100.0), "vault": (500.0, 0.0, 0.0)}
    fall = nc.Shock.price({"PERP": -0.07})
    markets = {
        "won": perpetuals(accounts, rulebook="perpetual"),
        "part": perpetuals(accounts, rulebook="perpetual", insurance_fund=8.0),  # pays for orders of 4
        "sold": perpetuals(accounts, rulebook="perpetual", insurance_fund=20.0),
        "taken": perpetuals(rich, rulebook="hyperliquid", backstop="vault"),
    }
    found = {name: run(net, fall) for name, net in markets.items()}
    assert all(liquidated(one) == {"long"} for one in found.values())  # 10 contracts, each time
    naive = {name: 10.0 + one._state.positions.quantity.clip(max=0).sum() for name, one in found.items()}
    assert naive == pytest.approx({"won": 10.0, "part": 6.0, "sold": 0.0, "taken": 0.0})  # the fall of open interest
    for name, one in found.items():
        closed = one.events.loc[one.events["type"] == "auto_deleveraging", "quantity"].sum()
        assert closed == pytest.approx(naive[name])
        moved = one.events[one.events["type"].isin(["contract_sale", "takeover"]) & (one.events["asset"] == "PERP")]
        assert moved["quantity"].sum() + closed == pytest.approx(10.0)
