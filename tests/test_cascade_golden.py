"""Numbers of one liquidation worked out by hand or published, and one small market for each rule of the cascade."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

import netcontagion as nc

NAN = math.nan


def market(exchange, asset, **parameters):
    row = {"exchange": exchange, "asset": asset, "liquidation_threshold": 0.8, "liquidation_bonus": 0.05}
    return row | {"close_factor": NAN, "protocol_fee": 0.0, "depth": NAN, "price": NAN} | parameters


def columns(rows):
    return {name: [row[name] for row in rows] for name in rows[0]}


def network(accounts, *, prices=None, depth=None, rulebook="aave_v2", markets=None, exchanges=None, **tables):
    """Accounts as {name: (deposits, debts)} on exchange X, or {name: (deposits, debts, {column: value})}."""
    prices = {"ETH": 1.0, "USD": 1.0} | (prices or {})
    rows = [
        {"account": k, "asset": a, "deposited": given[0].get(a, 0.0), "borrowed": given[1].get(a, 0.0)}
        for k, given in accounts.items()
        for a in {**given[0], **given[1]}
    ]
    base = {"trader": None, "exchange": "X", "liquidation_threshold": NAN, "liquidation_bonus": NAN}
    owners = [{"account": k} | base | {"trader": k} | (g[2] if len(g) > 2 else {}) for k, g in accounts.items()]
    given = {
        "assets": {
            "asset": list(prices),
            "price": list(prices.values()),
            "depth": [(depth or {}).get(a, NAN) for a in prices],
        },
        "exchanges": exchanges or {"exchange": ["X"], "rulebook": [rulebook]},
        "markets": columns(markets or [market("X", a) for a in prices]),
        "accounts": columns(owners),
        "balances": columns(rows),
    }
    return nc.ExposureNetwork(**(given | tables))


def run(net, shock=None, **options):
    found = nc.cascade(net, shock or nc.Shock(), **options)
    found.check()
    return found


def balance(found, account, asset):
    """Deposited and borrowed units at the end."""
    state, net = found._state, found.network
    k, a = net.labels("accounts").get_loc(account), net.labels("assets").get_loc(asset)
    here = (state.entries.account == k) & (state.markets.asset[state.entries.market] == a)
    return float(state.entries.deposited[here].sum()), float(state.entries.borrowed[here].sum())


def once(net, shock=None, **options):
    """Only the first round."""
    found = nc.cascade(net, shock or nc.Shock(), max_rounds=1, strict=False, **options)
    found.check()
    return found


# published and derived numbers --------------------------------------------------------------------------------------


def test_g1_aave_one_liquidation():
    """G1: C = 100,000, D = 83,000 / 0.97, threshold .83, bonus 5 %, fee 10 % of the bonus."""
    rows = [market("X", "ETH", liquidation_threshold=0.83, protocol_fee=0.1), market("X", "USD")]
    net = network({"k": ({"ETH": 100_000.0}, {"USD": 83_000 / 0.97})}, markets=rows)
    found = run(net)
    assert balance(found, "k", "ETH")[0] == pytest.approx(55_077.31958762886, rel=1e-12)
    assert balance(found, "k", "USD")[1] == pytest.approx(42_783.50515463918, rel=1e-12)
    assert found.exchanges.loc["X", "fees"] == pytest.approx(213.91752577319642, rel=1e-10)
    assert -found.losses["liquidators"].sum() == pytest.approx(1_925.2577319587654, rel=1e-10)
    assert found.accounts.loc["k", "health"] == pytest.approx(1.0685, abs=5e-5)
    assert found.accounts.loc["k", "repaid"] == pytest.approx(42_783.50515463918)


def test_g2_aave_under_water():
    """G2 and I6: borrower loss = liquidator gain + fee; deficit = D - C / (1 + b)."""
    rows = [market("X", "ETH", liquidation_threshold=0.83, protocol_fee=0.1), market("X", "USD")]
    found = run(network({"k": ({"ETH": 100_000.0}, {"USD": 98_000.0})}, markets=rows, rulebook="aave_v3"))
    assert balance(found, "k", "ETH") == (0.0, 0.0)
    assert found.accounts.loc["k", "deficit"] == pytest.approx(2_761.9047619047633, rel=1e-12)
    assert found.exchanges.loc["X", "fees"] == pytest.approx(476.1904761904764, rel=1e-10)
    assert -found.losses["liquidators"].sum() == pytest.approx(4_285.71428571429, rel=1e-10)
    assert found.losses.loc["penalty", "traders"] == pytest.approx(4_761.9047619, rel=1e-9)
    assert found.losses.loc["deficit", "traders"] == pytest.approx(-2_761.9047619, rel=1e-9)
    assert found.exchanges.loc["X", "socialised"] == pytest.approx(2_761.9047619, rel=1e-9)
    assert found.losses.loc["mutualisation", "others@X"] == pytest.approx(2_761.9047619, rel=1e-9)


def test_g12_repayment_that_reaches_a_target():
    """G12: r = (H D - LT C) / (H - LT (1 + b)) repaid by liquidation leaves health H = 1.05."""
    repay, debt = 35_014.005602240875, 85_000.0
    rows = [market("X", "ETH", liquidation_threshold=0.83), market("X", "USD", close_factor=repay / debt)]
    found = once(network({"k": ({"ETH": 100_000.0}, {"USD": debt})}, markets=rows, rulebook="lending"))
    assert found.accounts.loc["k", "repaid"] == pytest.approx(repay, rel=1e-12)
    assert found.accounts.loc["k", "health"] == pytest.approx(1.05, rel=1e-12)


def test_lending_hf_change():
    """Case lending_hf_change; formula published in solanaqubits/leanbook docs/release-v0.5.62.en.md."""
    found = once(network({"k": ({"ETH": 100.0}, {"USD": 82.0})}))
    row = found.accounts.loc["k"]
    assert row["health_after_shock"] == pytest.approx(0.975609756097561, abs=1e-12)
    assert row["health"] == pytest.approx(1.111219512195122, abs=1e-12)
    assert row["equity"] == pytest.approx(15.95, abs=1e-12)


@pytest.mark.parametrize(("bonus", "seized"), [(0.05, 2.625), (0.15, 2.875)])
def test_aave_faq_liquidation(bonus, seized):
    """Case aave_faq_liquidation: Aave FAQ, debt worth 5 ETH, half is repaid."""
    rows = [market("X", "ETH", liquidation_bonus=bonus), market("X", "USD")]
    found = once(network({"k": ({"ETH": 6.2}, {"USD": 5.0})}, markets=rows))
    event = found.events[found.events["type"] == "liquidation"].iloc[0]
    assert event["cash"] == pytest.approx(2.5, abs=1e-12)
    assert event["quantity"] == pytest.approx(seized, abs=1e-12)


def test_domino_stops():
    """Exponential analogue of the case liquidation_domino_stops: two accounts fall, the price stops above the third.

    Price 100 falls to 94; accounts have liquidation prices 95, 92, 84.5, 80 and quantities 10, 8, 20, 5; depth 170.
    After the first the price is 94 exp(-10 / 170) = 88.63 < 92, after the second 94 exp(-18 / 170) = 84.556 > 84.5: the
    domino stops. With depth 160 it is 94 exp(-18 / 160) = 84.0 < 84.5, and all fall.
    """
    accounts = {f"k{i}": ({"ETH": q}, {"USD": p * q * 0.8}) for i, (p, q) in
                enumerate([(95, 10.0), (92, 8.0), (84.5, 20.0), (80, 5.0)])}  # fmt: skip
    net = network(accounts, prices={"ETH": 100.0}, depth={"ETH": 170.0}, rulebook="closeout")
    found = run(net, nc.Shock.price({"ETH": -0.06}))
    assert found.accounts["liquidated"].drop("others@X").tolist() == [True, True, False, False]
    assert found.accounts["first_round"].drop("others@X").tolist() == [0, 1, -1, -1]
    assert found.assets.loc["ETH", "price"] == pytest.approx(94 * math.exp(-18 / 170), rel=1e-13)
    thinner = run(net, nc.Shock.price({"ETH": -0.06}) + nc.Shock.depth(160 / 170))
    assert thinner.accounts["liquidated"].drop("others@X").tolist() == [True, True, True, True]


# identities of the health factor --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_liquidation_helps_exactly_above_threshold_times_one_plus_bonus(seed):
    """HF' > HF iff HF > LT (1 + b); HF' = LT (C - r (1 + b)) / (D - r)."""
    rng = np.random.default_rng(seed)
    for _ in range(20):
        threshold, bonus = rng.uniform(0.5, 0.85), rng.uniform(0.01, 0.15)
        factor, health = rng.uniform(0.05, 0.5), rng.uniform(0.6, 0.999)
        debt = threshold * 100.0 / health
        if factor * debt * (1 + bonus) > 100:
            continue
        rows = [market("X", "ETH", liquidation_threshold=threshold, liquidation_bonus=bonus)]
        rows += [market("X", "USD", close_factor=factor)]
        after = once(network({"k": ({"ETH": 100.0}, {"USD": debt})}, markets=rows)).accounts.loc["k", "health"]
        repaid = factor * debt
        assert after == pytest.approx(threshold * (100 - repaid * (1 + bonus)) / (debt - repaid), rel=1e-12)
        assert (after > health) == (health > threshold * (1 + bonus))


@pytest.mark.parametrize(("beyond", "deficit"), [(-1e-6, False), (1e-6, True)])
def test_jump_to_bad_debt(beyond, deficit):
    """From health 1, a fall of the collateral by more than 1 - LT (1 + b) leaves a deficit on a full close-out."""
    net = network({"k": ({"ETH": 100.0}, {"USD": 80.0})}, rulebook="aave_v3")
    found = run(net, nc.Shock.price({"ETH": -(1 - 0.8 * 1.05) - beyond}))
    assert bool(found.accounts.loc["k", "deficit"] > 0) is deficit


# close factors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rulebook", "health", "size", "share"),
    [
        ("aave_v2", 0.99, 1e4, 0.5),
        ("aave_v2", 0.90, 1e4, 0.5),
        ("aave_v3_0", 0.99, 1e4, 0.5),
        ("aave_v3_0", 0.95, 1e4, 1.0),  # inclusive
        ("aave_v3_0", 0.9501, 1e4, 0.5),
        ("aave_v3_0", 0.99, 1e3, 0.5),  # no thresholds in money yet
        ("aave_v3", 0.99, 1e4, 0.5),
        ("aave_v3", 0.95, 1e4, 1.0),
        ("aave_v3", 0.9501, 1e4, 0.5),
        ("aave_v3", 0.99, 1999.0, 1.0),  # debt below 2,000
        ("aave_v3", 0.99, 2000.0, 0.5),  # exactly 2,000 is not below
    ],
)
def test_close_factor_of_aave(rulebook, health, size, share):
    net = network({"k": ({"ETH": size * health / 0.8}, {"USD": size})}, rulebook=rulebook)
    row = once(net).accounts.loc["k"]
    assert row["repaid"] == pytest.approx(share * size, rel=1e-12)


def test_health_of_the_full_close_out_is_inclusive_up_to_rounding():
    for scale in np.random.default_rng(0).uniform(1e4, 1e6, 50):
        net = network({"k": ({"ETH": scale * 0.95 / 0.8}, {"USD": scale})}, rulebook="aave_v3_0")
        assert once(net).accounts.loc["k", "repaid"] == pytest.approx(scale)


@pytest.mark.parametrize(("rulebook", "repaid"), [("aave_v2", 3_000.0), ("aave_v3_0", 3_000.0), ("aave_v3", 5_000.0)])
def test_close_factor_is_of_the_reserve_until_v3_3_and_of_the_position_since(rulebook, repaid):
    net = network({"k": ({"ETH": 12_400.0}, {"USD": 6_000.0, "DAI": 4_000.0})}, prices={"DAI": 1.0}, rulebook=rulebook)
    assert once(net).accounts.loc["k", "repaid"] == pytest.approx(repaid)


def test_v3_collateral_below_2000_in_its_reserve_lifts_the_close_factor():
    rows = [market("X", "ETH"), market("X", "BTC", liquidation_bonus=0.1), market("X", "USD")]
    deposits = {"ETH": 11_000.0, "BTC": 1_375.0}
    net = network({"k": (deposits, {"USD": 10_000.0})}, prices={"BTC": 1.0}, markets=rows, rulebook="aave_v3")
    found = once(net)
    assert balance(found, "k", "BTC") == (0.0, 0.0)
    assert found.accounts.loc["k", "repaid"] == pytest.approx(1_375 / 1.1)


def test_v3_leaves_at_least_1000_of_both():
    """Two debts of 2,500 and 2,000: half of all is 2,250, which would leave 250; so 1,500 is repaid and 1,000 left."""
    net = network({"k": ({"ETH": 5_600.0}, {"USD": 2_500.0, "DAI": 2_000.0})}, prices={"DAI": 1.0}, rulebook="aave_v3")
    found = once(net)
    assert found.accounts.loc["k", "repaid"] == pytest.approx(1_500.0)
    assert balance(found, "k", "USD")[1] == pytest.approx(1_000.0)


def test_v3_leftover_rule_does_not_bind_when_one_side_is_gone():
    """Repaying all 2,300 of one debt leaves 70 of the collateral: allowed, as nothing is owed in that reserve."""
    rows = [market("X", "ETH", liquidation_bonus=0.1), *(market("X", a) for a in ("BTC", "USD", "DAI", "EUR"))]
    net = network(
        {"k": ({"ETH": 2_600.0, "BTC": 5_600.0}, {"USD": 2_300.0, "DAI": 2_200.0, "EUR": 2_200.0})},
        prices={"DAI": 1.0, "BTC": 1.0, "EUR": 1.0},
        markets=rows,
        rulebook="aave_v3",
    )
    found = once(net)
    assert 0.95 < found.accounts.loc["k", "health_after_shock"] < 1
    assert found.accounts.loc["k", "repaid"] == pytest.approx(2_300.0)
    assert balance(found, "k", "ETH")[0] == pytest.approx(70.0)


def test_dust_is_closed_in_full():
    """Halving for ever ends: a debt below 1e-6 of the opening debt goes as a whole."""
    rows = [market("X", "ETH", liquidation_threshold=0.94, liquidation_bonus=0.06), market("X", "USD")]
    found = run(network({"k": ({"ETH": 100.0}, {"USD": 98.0})}, markets=rows))
    assert len(found.rounds) < 60
    assert found.status is nc.Status.SETTLED


# prices -------------------------------------------------------------------------------------------------------------


def test_sale_is_paid_the_integral_of_the_price():
    found = run(network({"k": ({"ETH": 100.0}, {"USD": 90.0})}, depth={"ETH": 50.0}, rulebook="closeout"))
    proceeds = 50 * (1 - math.exp(-2))
    assert found.rounds["sold"].sum() == pytest.approx(proceeds, rel=1e-14)
    assert found.assets.loc["ETH", "price"] == pytest.approx(math.exp(-2), rel=1e-14)
    assert found.accounts.loc["k", "deficit"] == pytest.approx(90 - proceeds, rel=1e-13)
    assert found.losses.loc["execution", "traders"] == pytest.approx(100 - proceeds)
    assert found.losses.loc["execution", "market"] == pytest.approx(proceeds - 100)


def test_close_out_returns_what_is_left_in_cash():
    found = run(network({"k": ({"ETH": 100.0}, {"USD": 81.0})}, depth={"ETH": 1e4}, rulebook="closeout"))
    proceeds = 1e4 * -math.expm1(-0.01)
    assert balance(found, "k", "USD") == (0.0, 0.0)
    assert found.traders.loc["k", "loss"] == pytest.approx(100 - proceeds)
    assert found.accounts.loc["k", "loss"] == pytest.approx(100 - proceeds)
    assert found.accounts.loc["k", "repaid"] == pytest.approx(81.0)


def test_buying_back_debt_raises_its_price():
    net = network({"k": ({"USD": 100.0}, {"ETH": 81.0})}, depth={"ETH": 1_000.0}, rulebook="closeout")
    found = run(net)
    units = 81.0
    cost = 1_000 * math.expm1(units / 1_000)
    assert found.assets.loc["ETH", "price"] == pytest.approx(math.exp(units / 1_000), rel=1e-13)
    assert found.rounds["bought"].sum() == pytest.approx(cost)
    assert found.assets.loc["ETH", "sold"] == pytest.approx(-units)
    spread = run(network({"k": ({"USD": 100.0}, {"ETH": 81.0})}, depth={"ETH": 1_000.0}))
    assert spread.assets.loc["ETH", "price"] > 1


def test_own_depth_wins_over_the_shared_book():
    rows = [market("X", "ETH", depth=50.0), market("X", "USD")]
    net = network({"k": ({"ETH": 100.0}, {"USD": 90.0})}, depth={"ETH": 1e6}, markets=rows, rulebook="closeout")
    found = run(net)
    assert found.markets.loc[("X", "ETH"), "mark"] == pytest.approx(math.exp(-2))
    assert found.assets.loc["ETH", "price"] == 1.0


def test_shared_book_carries_the_fall_to_another_exchange():
    exchanges = {"exchange": ["X", "Y"], "rulebook": ["closeout", "closeout"]}
    rows = [market(v, a) for v in "XY" for a in ("ETH", "USD")]
    accounts = {"a": ({"ETH": 10.0}, {"USD": 7.99}), "b": ({"ETH": 10.0}, {"USD": 7.5}, {"exchange": "Y"})}
    net = network(accounts, exchanges=exchanges, markets=rows, depth={"ETH": 100.0})
    found = run(net, nc.Shock.price({"ETH": -0.01}))
    assert found.accounts.loc[["a", "b"], "first_round"].tolist() == [0, 1]
    call = found.events[(found.events["type"] == "call") & (found.events["account"] == "b")].iloc[0]
    assert found.events.loc[call["parent"], "type"] == "sale"
    alone = run(net, nc.Shock.price({"ETH": -0.01}), channels={"liquidation"})
    assert not alone.accounts.loc["b", "called"]


def test_shock_depth_multiplies_depths():
    net = network({"k": ({"ETH": 100.0}, {"USD": 90.0})}, depth={"ETH": 100.0}, rulebook="closeout")
    assert run(net, nc.Shock.depth(0.5)).assets.loc["ETH", "price"] == pytest.approx(math.exp(-2))


def test_liquidator_repays_no_more_than_pays_at_the_margin():
    """One liquidator stops where 1.05 exp(-1.05 r / D) = 1."""
    rows = [market("X", "ETH"), market("X", "USD")]
    net = network({"k": ({"ETH": 100.0}, {"USD": 81.0})}, markets=rows, depth={"ETH": 10.0})
    assert once(net).accounts.loc["k", "repaid"] == pytest.approx(10 * math.log(1.05) / 1.05)


def test_unprofitable_liquidation_leaves_the_account():
    """Dear debt: buying it costs more than the mark, so that a bonus of 1 % does not pay."""
    rows = [market("X", "ETH", liquidation_bonus=0.0), market("X", "USD")]
    found = run(network({"k": ({"ETH": 100.0}, {"USD": 81.0})}, markets=rows, depth={"ETH": 10.0}))
    assert found.status is nc.Status.EXHAUSTED
    assert found.summary()["left below health 1"] == 1
    assert not found.accounts.loc["k", "liquidated"]
    assert "left below health 1" in repr(found)


# accounts -----------------------------------------------------------------------------------------------------------


def test_account_threshold_and_bonus_replace_those_of_the_markets():
    e_mode = {"liquidation_threshold": 0.95, "liquidation_bonus": 0.01}
    net = network({"k": ({"ETH": 100.0}, {"USD": 94.0}, e_mode), "l": ({"ETH": 100.0}, {"USD": 81.0})})
    assert run(net).accounts.loc["k", "health"] == pytest.approx(95 / 94)
    found = once(net, nc.Shock.price({"ETH": -0.02}))
    event = found.events[(found.events["type"] == "liquidation") & (found.events["account"] == "k")].iloc[0]
    assert event["quantity"] * 0.98 == pytest.approx(event["cash"] * 1.01)


def test_health_of_exactly_one_passes():
    net = network({f"k{i}": ({"ETH": x}, {"USD": x * 0.8}) for i, x in enumerate([1.0, 0.1, 0.3, 7.7, 1e9 / 3])})
    assert not run(net).accounts["called"].any()


def test_highest_bonus_is_seized_first_and_the_largest_debt_repaid_first():
    rows = [market("X", "ETH"), market("X", "BTC", liquidation_bonus=0.1), market("X", "USD"), market("X", "DAI")]
    net = network({"k": ({"ETH": 60.0, "BTC": 40.0}, {"USD": 30.0, "DAI": 51.0})}, prices={"BTC": 1.0, "DAI": 1.0},
                  markets=rows)  # fmt: skip
    found = once(net)
    assert balance(found, "k", "ETH")[0] == 60.0
    assert balance(found, "k", "BTC")[0] == pytest.approx(40 - 25.5 * 1.1)
    assert balance(found, "k", "DAI")[1] == pytest.approx(25.5)


def test_same_asset_deposited_and_borrowed():
    found = run(network({"k": ({"ETH": 100.0}, {"ETH": 81.0})}, depth={"ETH": 10.0}))
    units = 81.0 * 0.5
    assert found.assets.loc["ETH", "sold"] == pytest.approx(units * 0.05)  # only the bonus reaches the market


def test_residual_is_never_sold():
    assets = {"asset": ["REST", "USD"], "price": [1.0, 1.0], "kind": ["residual", "token"]}
    for rulebook in ("aave_v2", "closeout"):
        net = network({"k": ({"REST": 100.0}, {"USD": 90.0})}, assets=assets, rulebook=rulebook,
                      markets=[market("X", "REST"), market("X", "USD")])  # fmt: skip
        found = run(net)
        assert found.status is nc.Status.EXHAUSTED
        assert balance(found, "k", "REST")[0] == 100.0
        assert found.accounts.loc["k", "deficit"] == 0.0


def test_deposit_that_is_no_collateral_stays_with_its_owner():
    rows = [market("X", "ETH"), market("X", "DAI", liquidation_threshold=0.0), market("X", "USD")]
    net = network({"k": ({"ETH": 10.0, "DAI": 50.0}, {"USD": 10.0})}, prices={"DAI": 1.0}, markets=rows)
    found = run(net)
    assert found.accounts.loc["k", "deficit"] > 0
    assert balance(found, "k", "DAI")[0] == 50.0


# waterfall ----------------------------------------------------------------------------------------------------------


def hole(depth=None, **exchange):
    """Exchange with a debt of 100 in DAI that has no collateral, lent by two suppliers (300 and 100)."""
    exchanges = {name: [value] for name, value in ({"exchange": "X", "rulebook": "aave_v2"} | exchange).items()}
    accounts = {"k": ({}, {"DAI": 100.0}), "s": ({"DAI": 300.0}, {}), "t": ({"DAI": 100.0}, {})}
    return network(accounts, prices={"DAI": 2.0}, exchanges=exchanges, depth=depth)


def used(found):
    row = found.exchanges.loc["X", ["deficit", "insurance_fund_used", "equity_used", "socialised", "uncovered"]]
    return row.astype(float).tolist()


def test_fund_in_cash_then_equity_then_suppliers():
    found = run(hole(insurance_fund=50.0, equity=70.0))
    assert used(found) == pytest.approx([200.0, 50.0, 70.0, 80.0, 0.0])
    assert found.traders["loss_mutualisation"].loc[["s", "t"]].tolist() == pytest.approx([60.0, 20.0])
    assert balance(found, "s", "DAI")[0] == pytest.approx(300 - 30)


def test_fund_in_the_debt_asset_pays_in_kind():
    found = run(hole(insurance_fund=30.0, insurance_asset="DAI", depth={"DAI": 10.0}))
    assert used(found) == pytest.approx([200.0, 60.0, 0.0, 140.0, 0.0])
    assert found.assets.loc["DAI", "price"] == 2.0


def test_fund_in_another_asset_is_sold_and_falls_with_its_price():
    found = run(hole(insurance_fund=30.0, insurance_asset="ETH", depth={"ETH": 15.0}), nc.Shock.price({"ETH": -0.5}))
    cash = 0.5 * 15 * -math.expm1(-2)
    assert used(found) == pytest.approx([200.0, cash, 0.0, 200 - cash, 0.0])
    assert found.assets.loc["ETH", "price"] == pytest.approx(0.5 * math.exp(-2))


def test_fund_in_another_asset_sells_no_more_than_it_needs():
    found = run(hole(insurance_fund=1_000.0, insurance_asset="ETH", depth={"ETH": 1_000.0}))
    assert used(found) == pytest.approx([200.0, 200.0, 0.0, 0.0, 0.0])
    assert found.assets.loc["ETH", "sold"] == pytest.approx(-1_000 * math.log1p(-200 / 1_000))


def test_exchange_buys_the_missing_units_on_the_book():
    """The layer bears the hole at the mark; what the book costs on top is execution."""
    found = run(hole(equity=1e6, depth={"DAI": 50.0}))
    cost = 2 * 50 * math.expm1(2)
    assert used(found) == pytest.approx([200.0, 0.0, 200.0, 0.0, 0.0])
    assert found.losses.loc["execution", "X"] == pytest.approx(cost - 200)
    assert float(found._state.equity[0]) == pytest.approx(1e6 - cost)


def test_tiny_depth_of_the_missing_asset_ends_in_the_next_layer():
    found = run(hole(equity=100.0, depth={"DAI": 1e-6}))
    assert found.exchanges.loc["X", "equity_used"] < 1e-3
    assert found.exchanges.loc["X", "socialised"] == pytest.approx(200.0, abs=1e-3)


def test_others_bear_their_share():
    net = network({"k": ({}, {"DAI": 100.0}), "s": ({"DAI": 25.0}, {})}, prices={"DAI": 1.0})
    found = run(net)
    assert found.losses.loc["mutualisation", ["traders", "others@X"]].tolist() == pytest.approx([25.0, 75.0])


def test_holes_without_supply_are_uncovered():
    """All ether deposited is seized and paid out while somebody still owes ether: the exchange stays short."""
    accounts = {"a": ({"ETH": 100.0}, {"USD": 79.0}), "b": ({"BTC": 150.0}, {"ETH": 100.0})}
    net = network(accounts, prices={"BTC": 1.0}, rulebook="aave_v3")
    found = run(net, nc.Shock.price({"ETH": -0.4, "BTC": -0.9}))
    assert found.exchanges.loc["X", "uncovered"] > 0
    assert sum(used(found)[1:]) == pytest.approx(used(found)[0])


# answers of traders -------------------------------------------------------------------------------------------------


def test_top_up_reaches_1_05_from_the_wallet():
    net = network({"k": ({"ETH": 100.0}, {"USD": 81.0})}, wallets={"trader": ["k"], "asset": ["ETH"], "units": [50.0]})
    found = run(net)
    assert found.accounts.loc["k", "health"] == pytest.approx(1.05)
    assert balance(found, "k", "ETH")[0] == pytest.approx(81 * 1.05 / 0.8)
    assert found.traders.loc["k", "loss"] == pytest.approx(0.0)
    assert found.accounts.loc["k", "loss"] == pytest.approx(0.0)


def test_wallet_repays_debt_in_its_own_asset():
    net = network({"k": ({"ETH": 100.0}, {"USD": 81.0})}, wallets={"trader": ["k"], "asset": ["USD"], "units": [50.0]})
    assert balance(run(net), "k", "USD")[1] == pytest.approx(80 / 1.05)


def test_numeraire_goes_first_then_the_most_valuable_wallet():
    wallets = {"trader": ["k"] * 3, "asset": ["BTC", "USD", "DAI"], "units": [3.0, 1.0, 2.0]}
    net = network({"k": ({"ETH": 100.0}, {"USD": 81.0})}, prices={"BTC": 1.0, "DAI": 1.0}, wallets=wallets)
    moves = run(net).events.query("type == 'top_up'")
    assert moves["asset"].tolist() == ["USD", "BTC", "DAI"]
    assert moves["quantity"].tolist()[:2] == [1.0, 3.0]


def test_top_up_is_all_or_nothing():
    net = network({"k": ({"ETH": 100.0}, {"USD": 81.0})}, wallets={"trader": ["k"], "asset": ["USD"], "units": [4.0]})
    found = run(net)
    assert found.accounts.loc["k", "liquidated"]
    assert found._state.wallets.units.tolist() == [4.0]


def test_wallet_serves_the_worst_account_first():
    wallets = {"trader": ["t"], "asset": ["USD"], "units": [6.0]}
    own = {"trader": "t"}
    accounts = {"a": ({"ETH": 100.0}, {"USD": 80.5}, own), "b": ({"ETH": 100.0}, {"USD": 81.5}, own)}
    worst = run(network(accounts, wallets=wallets)).accounts
    assert worst.loc[["a", "b"], "topped_up"].tolist() == [False, True]
    best = run(network(accounts, wallets=wallets), priority="best_first").accounts
    assert best.loc[["a", "b"], "topped_up"].tolist() == [True, False]


def test_withdrawal_takes_from_the_healthiest_account_down_to_1_25():
    own = {"trader": "t"}
    accounts = {
        "a": ({"ETH": 100.0}, {"USD": 90.0}, own),
        "b": ({"ETH": 100.0}, {"USD": 55.0}, own),  # health 1.4545: may give 14.06
        "c": ({"ETH": 100.0}, {"USD": 60.0}, own),  # health 1.3333: may give 6.25
    }
    found = run(network(accounts))
    assert found.accounts.loc["a", "health"] == pytest.approx(1.05)
    assert found.accounts.loc["b", "health"] == pytest.approx(1.25)
    assert 1.25 < found.accounts.loc["c", "health"] < 1.3333
    assert set(found.events["type"]) == {"shock", "call", "withdrawal"}
    withdrawn = found.events[found.events["type"] == "withdrawal"]
    assert withdrawn["account"].tolist() == ["b", "c"]
    assert found.events.loc[withdrawn["parent"], "account"].tolist() == ["a", "a"]
    assert found.traders.loc["t", "loss"] == pytest.approx(0.0, abs=1e-12)


def test_withdrawal_that_is_not_enough_takes_nothing():
    own = {"trader": "t"}
    accounts = {"a": ({"ETH": 100.0}, {"USD": 95.0}, own), "b": ({"ETH": 100.0}, {"USD": 60.0}, own)}
    found = once(network(accounts), channels=("withdrawal", "liquidation"))
    assert found.accounts.loc["a", ["topped_up", "liquidated"]].tolist() == [False, True]
    assert balance(found, "b", "ETH")[0] == 100.0


def test_nothing_is_withdrawn_from_a_called_account():
    own = {"trader": "t"}
    accounts = {"a": ({"ETH": 100.0}, {"USD": 81.0}, own), "b": ({"ETH": 100.0}, {"USD": 82.0}, own)}
    found = run(network(accounts))
    assert not found.accounts["topped_up"].any()


def test_one_debt_is_not_repaid_twice_by_two_sources():
    """Regression: a plan with two sources in the asset of one debt repaid that debt from both."""
    own = {"trader": "t"}
    accounts = {
        "a": ({"ETH": 100.0}, {"DAI": 4.0, "USD": 86.0}, own),
        "b": ({"DAI": 10.0}, {}, own),
        "c": ({"DAI": 10.0}, {}, own),
    }
    found = run(network(accounts, prices={"DAI": 1.0}))
    assert balance(found, "a", "DAI")[1] == 0.0
    total = sum(balance(found, k, "DAI")[0] for k in "abc")
    assert total == pytest.approx(16.0)


def test_passive_trader_does_not_answer():
    net = network(
        {"k": ({"ETH": 100.0}, {"USD": 81.0})},
        wallets={"trader": ["k"], "asset": ["USD"], "units": [50.0]},
        traders={"trader": ["k"], "policy": ["passive"]},
    )
    found = run(net)
    assert found.accounts.loc["k", ["topped_up", "liquidated"]].tolist() == [False, True]


# shocks -------------------------------------------------------------------------------------------------------------


def test_default_closes_accounts_and_empties_wallets():
    own = {"trader": "t"}
    accounts = {"a": ({"ETH": 100.0}, {"USD": 40.0}, own), "b": ({"ETH": 5.0}, {}, own)}
    net = network(accounts, wallets={"trader": ["t"], "asset": ["USD"], "units": [9.0]})
    found = run(net, nc.Shock.default("t"))
    assert balance(found, "a", "USD") == (0.0, 0.0)
    assert balance(found, "a", "ETH")[0] == pytest.approx(100 - 40 * 1.05)
    assert balance(found, "b", "ETH")[0] == 5.0
    assert found.losses.loc["shock", "traders"] == pytest.approx(9.0)
    assert found.accounts.loc["a", "forced"]


@pytest.mark.parametrize("rulebook", ["aave_v2", "closeout"])
def test_outage_stops_everything_at_the_exchange(rulebook):
    net = network({"k": ({"ETH": 100.0}, {"USD": 90.0})}, rulebook=rulebook,
                  wallets={"trader": ["k"], "asset": ["USD"], "units": [50.0]})  # fmt: skip
    found = run(net, nc.Shock.outage("X") + nc.Shock.price({"ETH": -0.1}))
    assert found.status is nc.Status.EXHAUSTED
    assert set(found.events["type"]) == {"shock", "call"}
    assert found.markets.loc[("X", "ETH"), "mark"] == pytest.approx(0.9)


def test_zero_shock_on_a_healthy_book_gives_no_event():
    """I11."""
    found = run(nc.generators.market(80, exchanges=3, seed=3))
    assert len(found.events) == 1
    assert found.status is nc.Status.SETTLED
    assert float(np.abs(found.losses.to_numpy()).max()) == 0.0


def test_worthless_assets():
    accounts = {"k": ({"ETH": 100.0}, {"USD": 50.0}), "l": ({"USD": 100.0}, {"ETH": 10.0})}
    for rulebook in ("aave_v2", "closeout"):
        found = run(network(accounts, rulebook=rulebook), nc.Shock.price({"ETH": -1.0}))
        assert found.accounts.loc["k", "deficit"] == pytest.approx(50.0)
        assert found.accounts.loc["l", "health"] == math.inf
    worthless = network({"k": ({"ETH": 100.0, "BAD": 5.0}, {"USD": 90.0, "BAD": 3.0})}, prices={"BAD": 0.0})
    assert run(worthless, nc.Shock.price({"BAD": 1.0})).accounts.loc["k", "liquidated"]


# options ------------------------------------------------------------------------------------------------------------


def test_channels_can_be_switched_off():
    net = network({"k": ({"ETH": 100.0}, {"USD": 81.0})}, depth={"ETH": 10.0},
                  wallets={"trader": ["k"], "asset": ["USD"], "units": [50.0]})  # fmt: skip
    assert run(net, channels={"liquidation", "impact"}).accounts.loc["k", "liquidated"]
    off = run(net, channels=set())
    assert off.status is nc.Status.EXHAUSTED
    assert set(off.events["type"]) == {"shock", "call"}
    assert any("switched off" in line for line in off.assumptions)
    flat = run(net, channels=["liquidation"])
    assert flat.assets.loc["ETH", "price"] == 1.0
    with pytest.raises(nc.UnknownLabelError, match="liquidation"):
        nc.cascade(net, nc.Shock(), channels=["liquidations"])
    with pytest.raises(TypeError, match="collection"):
        nc.cascade(net, nc.Shock(), channels="impact")


def test_random_priority_is_seeded():
    net = nc.generators.market(150, exchanges=3, seed=5, depth=0.2)
    shock = nc.Shock.price({"ETH": -0.35}, family=True)
    one, same, other = (run(net, shock, priority="random", seed=seed) for seed in (1, 1, 2))
    assert one.events.equals(same.events)
    assert not one.events.equals(other.events)
    assert one.provenance["seed"] == 1
    assert run(net, shock, priority="random", seed=np.random.default_rng(1)).events.equals(one.events)


def test_max_rounds_raises_and_carries_the_result():
    net = network({"k": ({"ETH": 100.0}, {"USD": 81.0})}, depth={"ETH": 10.0})
    with pytest.raises(nc.NotSettledError, match="max_rounds") as caught:
        nc.cascade(net, nc.Shock(), max_rounds=2)
    caught.value.result.check()
    assert caught.value.result.status is nc.Status.MAX_ROUNDS
    assert len(caught.value.result.rounds) == 2
    assert nc.cascade(net, nc.Shock(), max_rounds=2, strict=False).status is nc.Status.MAX_ROUNDS
    with pytest.raises(ValueError, match="max_rounds"):
        nc.cascade(net, nc.Shock(), max_rounds=0)


def test_what_the_cascade_refuses():
    net = network({"k": ({"ETH": 100.0}, {"USD": 50.0})})
    with pytest.raises(nc.UnknownLabelError, match="sequential"):
        nc.cascade(net, nc.Shock(), mode="sequentil")
    with pytest.raises(nc.UnknownLabelError, match="worst_first"):
        nc.cascade(net, nc.Shock(), priority="worst")
    with pytest.raises(nc.UnknownLabelError):
        nc.cascade(net, nc.Shock.price({"ETZ": -0.1}))
    contract = nc.ExposureNetwork(
        assets={"asset": ["P", "USD"], "price": [100.0, 1.0], "kind": ["linear", "token"]},
        markets={"exchange": ["X"], "asset": ["P"], "maintenance_margin": [0.05]},
        balances={"account": ["k"], "asset": ["USD"], "deposited": [50.0]},
        positions={"account": ["k"], "asset": ["P"], "quantity": [1.0], "entry_price": [100.0]},
    )
    with pytest.raises(nc.ContagionError, match="positions"):
        nc.cascade(contract, nc.Shock())


# result -------------------------------------------------------------------------------------------------------------


def test_banks_only_is_a_clearing():
    net = nc.ExposureNetwork(
        traders={"trader": ["a", "b", "c"], "external_assets": [4.0, 3.0, 1.0]},
        liabilities={"debtor": ["a", "b"], "creditor": ["b", "c"], "amount": [10.0, 10.0]},
    )
    found = run(net)
    assert found.clearing.payments.tolist() == [4.0, 7.0, 0.0]
    assert found.traders["loss_counterparty"].tolist() == [-6.0, 6.0 - 3.0, 3.0]
    assert found.losses.to_numpy().sum() == pytest.approx(0.0)
    assert repr(found)


def test_bearers_that_share_a_name_with_a_node_stay_apart():
    net = network({"market": ({"ETH": 100.0}, {"USD": 90.0}), "liquidators": ({"USD": 500.0}, {})})
    found = run(net)
    assert ("bearer", "market") in found.losses.columns
    assert found.losses.to_numpy().sum() == pytest.approx(found.summary()["loss of all bearers [USD]"])
    assert len(found.events)


def test_result_prints_and_serialises():
    found = run(nc.generators.market(60, exchanges=2, seed=2, depth=0.3), nc.Shock.price({"ETH": -0.4}, family=True))
    assert "bad debt" in repr(found)
    assert found._repr_html_().startswith("<div>")
    assert json.dumps({str(k): str(v) for k, v in found.summary().items()})
    events = found.events
    assert (events["parent"].iloc[1:] < events.index[1:]).all()
    assert found.rounds["repaid"].sum() == pytest.approx(found.accounts["repaid"].sum())
    np.testing.assert_allclose(
        found.exchanges["deficit"],
        found.exchanges[["insurance_fund_used", "equity_used", "socialised", "uncovered"]].sum(axis=1),
        rtol=1e-9,
    )


def test_equal_debts_are_a_tie_whatever_the_rounding():
    """0.1 + 0.2 is not 0.3: which of two equal debts is repaid must not hang on the last bit."""
    for owed in ((0.3, 0.1 + 0.2), (0.1 + 0.2, 0.3)):
        net = network({"k": ({"ETH": 0.74}, {"AAA": owed[0], "BBB": owed[1]})}, prices={"AAA": 1.0, "BBB": 1.0})
        found = once(net)
        assert balance(found, "k", "AAA")[1] == pytest.approx(0.15)


def test_no_price_rises_without_bound(tmp_path):
    """Liquidators who act whatever it costs want 1e6 units on a book of depth 1: nobody sells beyond exp(300)."""
    text = """
[amount]
rule = "close_factor"
close_factor = 1.0
[price]
rule = "fixed_spread"
[inventory]
participation = "always"
[deficit]
layers = ["suppliers"]
"""
    (tmp_path / "reckless.toml").write_text(text, encoding="utf-8")
    net = network({"k": ({"USD": 1e6}, {"ETH": 0.9e6})}, depth={"ETH": 1.0}, rulebook=str(tmp_path / "reckless.toml"))
    run = nc.cascade(net, nc.Shock())
    assert run.status is nc.Status.EXHAUSTED
    assert run.assets.loc["ETH", "price"] == pytest.approx(math.exp(300.0))
    assert run.assets.loc["ETH", "sold"] == pytest.approx(-300.0)
    run.check()
