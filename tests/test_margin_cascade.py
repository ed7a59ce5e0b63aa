"""Margin accounts in the cascade through the public API: golden numbers, published cases, counterexamples."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import scipy.optimize
from test_failure_modes import columns, run

import netcontagion as nc
from netcontagion import generators
from netcontagion.errors import ContagionError, SchemaError

NAN = float("nan")
PERPETUALS = json.loads((Path(__file__).parent / "references" / "perpetuals.json").read_text(encoding="utf-8"))["cases"]
CASES = {case["name"]: case for case in PERPETUALS}
RULES = """name = "{name}"
[health]
test = "equity"
{health}
[amount]
{amount}
[price]
{price}
[inventory]
route = "{route}"
participation = "always"
[deficit]
layers = ["insurance_fund", "equity", "suppliers"]
"""


@pytest.fixture
def rules(tmp_path):
    """Write a rulebook for margin accounts; return its path."""

    def write(amount="whole_account", price="execution", route="market", health=""):
        path = tmp_path / f"rules{len(list(tmp_path.iterdir()))}.toml"
        kinds = (f'rule = "{part}"' if "=" not in part else part for part in (amount, price))
        amount, price = kinds
        path.write_text(
            RULES.format(name=path.stem, amount=amount, price=price, route=route, health=health), encoding="utf-8"
        )
        return str(path)

    return write


def book(accounts, *, rulebook, price=100.0, rate=0.005, depth=None, own=None, markets=None, modes=None, **tables):
    """Exchange X of a linear contract P, an inverse one I (face 10), coin C and money S.

    ``accounts`` are {account: ({asset: units held, owed negative}, {contract: (quantity, entry)})}; the owner is what
    stands before the slash. ``own`` are columns of exchange X, ``modes`` margin modes by account.
    """
    depth, markets, modes = depth or {}, markets or {}, modes or {}
    assets = [
        {"asset": "C", "price": 100.0, "kind": "token"},
        {"asset": "P", "price": price, "kind": "linear", "underlying": "C", "settlement": "S"},
        {"asset": "I", "price": price, "kind": "inverse", "underlying": "C", "settlement": "C", "multiplier": 10.0},
        {"asset": "S", "price": 1.0, "kind": "stable"},
    ]
    listed = [
        {"exchange": "X", "asset": a, "maintenance_margin": rate if a in "PI" else NAN} | markets.get(a, {})
        for a in "CPIS"
    ]
    held = [
        {"account": k, "asset": a, "deposited": max(u, 0.0), "borrowed": max(-u, 0.0)}
        for k, (units, _) in accounts.items()
        for a, u in units.items()
    ]
    positions = [
        {"account": k, "asset": a, "quantity": q, "entry_price": e}
        for k, (_, contracts) in accounts.items()
        for a, (q, e) in contracts.items()
    ]
    given = {
        "assets": columns([{"multiplier": 1.0, "depth": depth.get(row["asset"], NAN)} | row for row in assets]),
        "exchanges": columns([{"exchange": "X", "rulebook": rulebook} | (own or {})]),
        "markets": columns(listed),
        "accounts": columns(
            [
                {"account": k, "trader": k.split("/")[0], "exchange": "X", "mode": modes.get(k, "cross")}
                for k in accounts
            ]
        ),
        "balances": columns(held),
    }
    given |= {"positions": columns(positions)} if positions else {}
    return nc.ExposureNetwork(**(given | {"numeraire": "S"} | tables))


def to(price, start=100.0):
    return nc.Shock.price({"P": price / start - 1})


def failing_price(net, low, high, *, column="called", account="k"):
    """Price of P from which on, falling or rising, something happens to an account."""

    def happens(price):
        value = nc.cascade(net, to(price), channels=("liquidation",)).accounts.loc[account, column]
        return 1.0 if (value > 1e-9) else -1.0

    return scipy.optimize.bisect(happens, low, high, xtol=1e-11, rtol=1e-13)


# golden numbers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("side", "bankrupt", "called"), [(1, 95.0, 95.47738693467338), (-1, 105.0, 104.47761194029852)]
)
def test_g4_a_position_is_called_and_bankrupt_where_the_formulas_say(side, bankrupt, called, rules):
    net = book({"k": ({"S": 50.0}, {"P": (side * 10.0, 100.0)})}, rulebook=rules())
    ends = (80.0, 100.0) if side > 0 else (100.0, 120.0)
    assert failing_price(net, *ends) == pytest.approx(called, rel=1e-10)
    assert failing_price(net, *ends, column="deficit") == pytest.approx(bankrupt, rel=1e-9)


@pytest.mark.parametrize(("side", "mark"), [(1, 93.0), (-1, 107.0)])
def test_g5_a_mark_beyond_the_bankruptcy_price_leaves_its_distance(side, mark, rules):
    accounts = {"k": ({"S": 50.0}, {"P": (side * 10.0, 100.0)}), "c": ({"S": 1e4}, {"P": (-side * 10.0, 100.0)})}
    net = book(accounts, rulebook=rules(), own={"insurance_fund": 15.0, "equity": 2.0})
    found = run(net, to(mark))
    assert found.accounts.loc["k", "deficit"] == pytest.approx(20.0, rel=1e-12)
    borne = found.exchanges.loc["X", ["insurance_fund_used", "equity_used", "socialised"]].tolist()
    assert borne == pytest.approx([15.0, 2.0, 3.0], rel=1e-12)
    assert found.accounts.loc["k", "equity"] == 0.0


def test_g7_the_tiers_call_where_their_margin_says(rules):
    tiers = {"exchange": ["X"] * 4, "asset": ["P"] * 4, "floor": [0.0, 5e4, 2.5e5, 1e6]}
    tiers |= {"maintenance_margin": [0.004, 0.005, 0.01, 0.025], "initial_margin": [0.008, 0.01, 0.02, 0.05]}
    for units, cumulative, rate in (
        (100.0, 0.0, 0.004),
        (1e3, 50.0, 0.005),
        (5e3, 1300.0, 0.01),
        (2e4, 16300.0, 0.025),
    ):
        margin = 0.05 * units * 100.0
        net = book({"k": ({"S": margin}, {"P": (units, 100.0)})}, rulebook=rules(), tiers=tiers)
        expected = (units * 100.0 - margin - cumulative) / (units * (1 - rate))
        assert failing_price(net, 90.0, 100.0) == pytest.approx(expected, rel=1e-9)


def test_margin_utilisation_is_one_over_the_health_of_the_run(rules):
    net = book({"k": ({"S": 50.0}, {"P": (10.0, 100.0)}), "j": ({"S": 90.0}, {"P": (-4.0, 100.0)})}, rulebook=rules())
    shock = to(96.0)
    used = net.margins(shock)["utilisation"]
    health = nc.cascade(net, shock, channels=()).accounts["health_after_shock"]
    assert used.to_dict() == pytest.approx({k: 1 / health[k] for k in ("k", "j")}, rel=1e-12)


# published cases ------------------------------------------------------------------------------------------------------


def five_traders(inputs, equity, mark, rulebook):
    """The accounts of the example at a mark, entered there: what they have is their equity."""
    accounts = {
        name: ({"S": max(worth, 0.0) + 10.0}, {"P": (q * b, mark + (max(worth, 0.0) + 10.0 - worth) / (q * b))})
        for name, q, b, worth in zip(inputs["names"], inputs["q"], inputs["b"], equity, strict=True)
    }
    return book(accounts, rulebook=rulebook, price=mark, rate=inputs.get("mu", 0.1))


def test_bankruptcy_and_liquidation_prices_of_the_five_traders(rules):
    case = CASES["perp_bankruptcy_price"]
    inputs = case["inputs"]
    for place, name in enumerate(inputs["names"]):
        side = inputs["b"][place]
        bankrupt, called = (case["expected"][key][place] for key in ("bankruptcy", "liquidation"))
        accounts = {"k": ({"S": inputs["c"][place]}, {"P": (side * inputs["q"][place], 1.0)})}
        net = book(accounts, rulebook=rules(), price=1.0, rate=inputs["mu"])

        def happens(price, column, net=net):
            found = nc.cascade(net, to(price, 1.0), channels=("liquidation",)).accounts.loc["k", column]
            return 1.0 if found > 1e-12 else -1.0

        if name == "A":  # bears any fall
            assert happens(1e-9, "called") < 0
            continue
        ends = (0.01, 1.0) if side > 0 else (1.0, 3.0)
        for column, expected in (("deficit", bankrupt), ("called", called)):
            found = scipy.optimize.bisect(happens, *ends, args=(column,), xtol=1e-10)
            assert found == pytest.approx(expected, abs=case["tolerance"]["abs"])


def test_whom_the_funding_of_the_five_traders_calls(rules):
    case = CASES["perp_funding_equity"]
    inputs, expected = case["inputs"], case["expected"]
    found = nc.cascade(five_traders(inputs, expected["equity_t1"], inputs["mark"][1], rules()), nc.Shock(), channels=())
    assert found.accounts.loc[inputs["names"], "called"].tolist() == [bool(x) for x in expected["liquidatable_t1"]]
    margins = found.network.margins().loc[inputs["names"], "maintenance_margin"]
    assert margins.tolist() == pytest.approx(expected["maintenance_t1"], rel=1e-9)


def test_the_deficit_of_the_five_traders(rules):
    equity, case = CASES["perp_funding_equity"]["expected"]["equity_t2"], CASES["perp_leverage_mass"]
    net = five_traders(case["inputs"], equity, case["inputs"]["mark"][2], rules())
    found = run(net)
    assert found.exchanges.loc["X", "deficit"] == pytest.approx(
        case["expected"]["deficit_t2"], abs=case["tolerance"]["abs"]
    )
    assert set(found.accounts.index[found.accounts["deficit"] > 0]) == {"B", "D"}


def test_a_margin_check_that_fails(rules):
    case = CASES["paradex_margin_check"]
    inputs, expected = case["inputs"], case["expected"]
    accounts = {"k": ({"S": float(inputs["collateral"])}, {"P": (float(inputs["size"]), float(inputs["entry"]))})}
    net = book(accounts, rulebook=rules(), rate=inputs["imf"])
    shock = to(inputs["mark"])
    row = net.margins(shock).loc["k"]
    assert (row["equity"], row["maintenance_margin"]) == pytest.approx((expected["account_value"], expected["imr_now"]))
    assert nc.cascade(net, nc.Shock(), channels=()).accounts.loc["k", "called"] == (expected["imr_open"] > 100)
    assert nc.cascade(net, shock, channels=()).accounts.loc["k", "called"] == (not expected["passes"])


def test_the_loss_spiral_of_a_small_shock_is_the_linear_one(rules):
    """Brunnermeier-Pedersen, linearised: 100 at leverage 5, impact 0.001 per money: the fall is f / 0.6."""
    shock, gain = 1e-7, 100 * 0.001 * (5 - 1)
    net = book(
        {"k": ({"S": 20.0}, {"P": (1.0, 100.0)})}, rulebook=rules('rule = "reduce"'), rate=0.2, depth={"P": 10.0}
    )
    fall = 1 - run(net, nc.Shock.price({"P": -shock}), strict=False).assets.loc["P", "price"] / 100
    assert fall / shock == pytest.approx(1 / (1 - gain), rel=1e-4)


# isolation and limited liability --------------------------------------------------------------------------------------


def test_a_deficit_never_touches_other_accounts_of_the_trader(rules):
    accounts = {
        "k": ({"S": 1e6}, {}),
        "k/1": ({"S": 50.0}, {"P": (10.0, 100.0)}),
        "k/2": ({"S": 1000.0}, {"P": (1.0, 100.0)}),
    }
    modes, passive = dict.fromkeys(("k/1", "k/2"), "isolated"), {"trader": ["k"], "policy": ["passive"]}
    net = book(accounts, rulebook=rules(), own={"insurance_fund": 1e6}, modes=modes, traders=passive)
    found = run(net, to(80.0)).accounts
    assert found.loc["k/1", "deficit"] == pytest.approx(150.0)
    assert found.loc["k/1", "loss"] == pytest.approx(50.0)
    assert found.loc["k", "equity"] == 1e6
    assert found.loc["k/2", "equity"] == pytest.approx(980.0)


def test_cross_margin_bears_what_isolation_does_not(rules):
    cross = book({"k": ({"S": 500.0}, {"P": (10.0, 100.0)})}, rulebook=rules())
    found = run(cross, to(80.0)).accounts.loc["k"]
    assert (found["liquidated"], found["deficit"], found["equity"]) == (False, 0.0, pytest.approx(300.0))


# both sides -----------------------------------------------------------------------------------------------------------


def test_a_squeeze_of_shorts_mirrors_a_fall_of_longs(rules):
    moved = {}
    for side, price in ((1, 90.0), (-1, 110.0)):
        accounts = {"k": ({"S": 50.0}, {"P": (side * 10.0, 100.0)}), "j": ({"S": 500.0}, {"P": (side * 30.0, 100.0)})}
        found = run(book(accounts, rulebook=rules(), depth={"P": 40.0}), to(price))
        assert found.accounts.loc[["k", "j"], "liquidated"].all()
        moved[side] = math.log(found.assets.loc["P", "price"] / price)
    assert moved[1] == pytest.approx(-1.0, rel=1e-12)
    assert moved[-1] == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize("kind", ["P", "I"])
@pytest.mark.parametrize("side", [1, -1])
def test_without_impact_liquidations_move_nothing_and_cost_nothing(kind, side, rules):
    units = {"P": 10.0, "I": 100.0}[kind]
    held = {"S": 50.0} if kind == "P" else {"C": 0.5}
    accounts = {"k": (held, {kind: (side * units, 100.0)}), "c": ({"S": 1e6}, {kind: (-side * units, 100.0)})}
    net = book(accounts, rulebook=rules(), depth={"P": 5.0, "I": 50.0})
    shock = nc.Shock.price({"P": -0.0475 * side, "I": -0.0475 * side})
    found = run(net, shock, channels=("liquidation",))
    assert found.accounts.loc["k", "liquidated"]
    assert found.assets["impact"].abs().max() == 0.0
    assert found.accounts.loc["k", "deficit"] == 0.0
    assert found.losses.loc["execution"].abs().sum() == pytest.approx(0.0, abs=1e-9)


# how much is closed ---------------------------------------------------------------------------------------------------


def test_a_reduction_restores_the_target_at_the_price_it_pays(rules):
    """The sale itself costs equity: closing what the marks suggest would not be enough."""
    accounts = {"k": ({"S": 60.0}, {"P": (10.0, 100.0)})}
    net = book(accounts, rulebook=rules('rule = "reduce"\ntarget_health = 1.2'), rate=0.05, depth={"P": 400.0})
    found = nc.cascade(net, to(98.0), max_rounds=1, strict=False)
    position = found._state.positions.quantity[0]
    sold = 10.0 - position
    cash = 98.0 * 400.0 * -math.expm1(-sold / 400.0)
    equity = 60.0 + cash - 100.0 * sold + position * (98.0 - 100.0)
    assert 0 < sold < 10
    assert equity == pytest.approx(1.2 * 0.05 * 98.0 * position, rel=1e-10)


def test_a_reduction_that_costs_more_than_it_frees_closes_all(rules):
    """Minimal deleverage x = (mA - E) / (m - cost) has no answer where a sale costs more than the margin it frees."""
    net = book(
        {"k": ({"S": 60.0}, {"P": (10.0, 100.0)})}, rulebook=rules('rule = "reduce"'), rate=0.05, depth={"P": 20.0}
    )
    found = run(net, to(98.0))
    assert found._state.positions.quantity[0] == 0.0


def test_a_broker_sells_no_more_than_the_margin_needs(rules):
    """Regulation T: 100 shares at 100 on a loan of 7,000 and 25 % margin; at 90 equity is 2,000 of 2,250 required."""
    own = {"C": {"maintenance_margin": 0.25}}
    net = book({"k": ({"C": 100.0, "S": -7000.0}, {})}, rulebook=rules("reduce"), markets=own)
    found = run(net, nc.Shock.price({"C": -0.1}))
    assert found.accounts.loc["k", "health"] == pytest.approx(1.0, rel=1e-9)
    assert found.accounts.loc["k", "repaid"] == pytest.approx(1000.0, rel=1e-9)  # (2250 - 2000) / 0.25


@pytest.mark.parametrize("amount", ['rule = "whole_account"\nslice = 0.5', 'rule = "reduce"'])
def test_what_never_recovers_is_closed_after_few_rounds(amount, rules):
    """Halves of halves, or shares of shares, end: contracts too small to matter go in full."""
    scenarios = "scenarios = [{ C = -0.5 }, { C = 0.5 }]"
    accounts = {"k": ({"C": 1.0, "S": -80.0}, {"P": (0.5, 100.0)})}
    margin = rules(amount, health=scenarios)
    net = book(accounts, rulebook=margin, own={"insurance_fund": 1e6}, modes={"k": "portfolio"})
    found = run(net, nc.Shock.price({"C": -0.4}, family=True))
    assert len(found.rounds) < 80
    assert found._state.positions.quantity[0] == 0.0


def test_a_portfolio_is_called_by_its_worst_scenario_and_reduced_to_it(rules):
    scenarios = "scenarios = [{ C = -0.15 }, { C = 0.15 }]"
    accounts = {
        "k": ({"S": 160.0}, {"P": (10.0, 100.0)}),
        "h": ({"S": 160.0}, {"P": (10.0, 100.0), "I": (-100.0, 100.0)}),
    }
    net = book(accounts, rulebook=rules("reduce", health=scenarios), modes=dict.fromkeys(accounts, "portfolio"))
    found = run(net, nc.Shock.price({"C": -0.02}, family=True))
    assert found.accounts["called"].loc[["k", "h"]].tolist() == [True, False]  # the hedge needs next to nothing
    assert found.accounts.loc["k", "health"] == pytest.approx(1.0, rel=1e-9)
    kept = found._state.positions.quantity[found._state.positions.account == list(net.accounts.index).index("k")][0]
    assert kept * 98.0 * 0.15 == pytest.approx(140.0, rel=1e-9)


def test_a_healthy_account_of_a_failed_trader_gets_back_what_is_left(rules):
    accounts = {"k": ({"S": 500.0}, {"P": (10.0, 100.0)})}
    net = book(accounts, rulebook=rules(price="bankruptcy"))
    assert run(net, nc.Shock.default("k")).accounts.loc["k", "equity"] == pytest.approx(500.0)
    assert run(net, to(96.0) + nc.Shock.default("k")).accounts.loc["k", "equity"] == pytest.approx(460.0)


def test_margin_that_backs_a_debt_is_not_withdrawn(rules):
    """An account on borrowed money without a margin rate has health +inf, but not everything in it is free."""
    accounts = {"k": ({"S": 50.0}, {"P": (10.0, 100.0)}), "k/1": ({"C": 1.0, "S": -90.0}, {})}
    found = run(book(accounts, rulebook=rules()), to(95.1)).accounts
    assert found.loc["k/1", "equity"] >= -1e-12


# the vault ------------------------------------------------------------------------------------------------------------


VAULT = {"backstop": "v"}
TAKEN = {"k": ({"S": 50.0}, {"P": (10.0, 100.0)}), "v": ({"S": 1000.0}, {})}


def test_the_vault_takes_positions_and_margin_and_nothing_is_sold(rules):
    amount = 'rule = "whole_account"\nbackstop_below = 0.6'
    net = book(TAKEN, rulebook=rules(amount), rate=0.05, depth={"P": 20.0}, own=VAULT)
    found = run(net, to(97.5))  # equity 25 of 48.75
    taken = found._state.positions[found._state.positions.quantity != 0]
    at = dict(zip(net.labels("accounts")[taken.account], zip(taken.quantity, taken.entry, strict=True), strict=True))
    assert at["v"] == (10.0, 100.0)
    assert "k" not in at
    assert found.assets["impact"].abs().max() == 0.0
    assert found.rounds["sold"].sum() == found.accounts["deficit"].sum() == 0.0
    assert found.accounts.loc["v", "equity"] == pytest.approx(1025.0)
    assert found.accounts.loc["k", "equity"] == 0.0
    assert set(found.events["type"]) == {"shock", "call", "takeover"}
    taken = found.events[found.events["type"] == "takeover"]
    assert taken["credit"].astype(str).tolist() == ["k", "k"]
    assert taken["debit"].astype(str).tolist() == ["v", "v"]


def test_above_the_backstop_and_below_nothing_the_market_takes_it(rules):
    amount = 'rule = "whole_account"\nbackstop_below = 0.6'
    net = book(TAKEN, rulebook=rules(amount), rate=0.05, own=VAULT)
    for price, deficit in ((98.5, 0.0), (93.0, 20.0)):  # health 0.71, equity -20
        found = run(net, to(price))
        assert "takeover" not in set(found.events["type"])
        assert found.accounts.loc["k", "deficit"] == pytest.approx(deficit)


@pytest.mark.parametrize("price", ["bankruptcy", "mark"])
def test_a_vault_that_takes_all_inventory(price, rules):
    net = book(TAKEN, rulebook=rules(price=price, route="vault"), rate=0.05, own=VAULT, depth={"P": 20.0})
    found = run(net, to(97.5))
    equity = found.accounts["equity"]
    expected = {"bankruptcy": (0.0, 1025.0), "mark": (25.0, 1000.0)}[price]
    assert (equity["k"], equity["v"]) == pytest.approx(expected)
    assert found.assets["impact"].abs().max() == 0.0


def test_entry_prices_merge_as_what_was_paid():
    """Linear: weighted mean. Inverse: harmonic, as coins were paid. The other way round: closed, and settled."""
    from netcontagion.margining._takeover import _merged

    class Kind:
        kind = 1

    assert _merged.__wrapped__(Kind, 10.0, 100.0, 30.0, 120.0) == pytest.approx(115.0)
    Kind.kind = 2
    assert _merged.__wrapped__(Kind, 10.0, 100.0, 30.0, 120.0) == pytest.approx(40 / (10 / 100 + 30 / 120))


@pytest.mark.parametrize("held", [-4.0, -10.0, -25.0, 5.0])
@pytest.mark.parametrize("kind", ["P", "I"])
def test_contracts_and_what_was_paid_for_them_sum_to_zero_after_a_takeover(kind, held, rules):
    units = 10.0 if kind == "P" else 100.0
    held *= units / 10
    accounts = {
        "k": ({"S": 40.0, "C": 0.1}, {kind: (units, 100.0)}),
        "v": ({"S": 1000.0, "C": 10.0}, {kind: (held, 103.0)}),
        "c": (
            {"S": 1e5, "C": 1e3},
            {kind: (-units - held, (units * 100.0 + held * 103.0) / (units + held or 1.0) or 1.0)},
        ),
    }
    if units + held == 0:
        del accounts["c"]
    else:
        paid = units * 100.0 + held * 103.0 if kind == "P" else (units + held) / (units / 100.0 + held / 103.0)
        accounts["c"] = (accounts["c"][0], {kind: (-units - held, paid / (units + held) if kind == "P" else paid)})
    if units + held == 0:  # two sides entered at one price
        accounts["v"] = (accounts["v"][0], {kind: (held, 100.0)})
    net = book(accounts, rulebook=rules(price="bankruptcy", route="vault"), rate=0.05, own=VAULT)
    found = run(net, nc.Shock.price({kind: -0.04}), channels=("liquidation",))
    assert "takeover" in set(found.events["type"])
    positions = found._state.positions
    assert positions.quantity.sum() == pytest.approx(0.0, abs=1e-9)
    equity = found.accounts["equity"]
    assert equity["k"] == 0.0
    before = nc.cascade(net, nc.Shock.price({kind: -0.04}), channels=()).accounts["equity"]
    assert equity["v"] == pytest.approx(before["v"] + before["k"], rel=1e-12)


def test_the_vault_is_an_account_like_others(rules):
    """What it cannot bear it sells: the vault cannot pass its positions on to itself."""
    accounts = {"k": ({"S": 50.0}, {"P": (10.0, 100.0)}), "v": ({"S": 1.0}, {})}
    net = book(accounts, rulebook=rules(price="bankruptcy", route="vault"), rate=0.05, own=VAULT, depth={"P": 200.0})
    found = run(net, to(97.5))
    assert found.accounts.loc["v", "liquidated"]
    assert found.assets.loc["P", "impact"] < 0


def test_a_vault_must_be_an_account_of_its_exchange(rules):
    with pytest.raises(SchemaError, match="backstop"):
        book(TAKEN, rulebook=rules(), own={"backstop": "w"})
    with pytest.raises(ContagionError, match=r"exchanges\.backstop of 'X' is empty"):
        nc.cascade(book(TAKEN, rulebook=rules(price="mark", route="vault")), nc.Shock())
    amount = 'rule = "whole_account"\nbackstop_below = 0.6'
    assert any(
        "no backstop vault at X" in line
        for line in nc.cascade(book(TAKEN, rulebook=rules(amount)), nc.Shock()).assumptions
    )


@pytest.mark.parametrize("priority", ["worst_first", "best_first"])
@pytest.mark.parametrize("preset", ["perpetual", "binance", "dydx_v4", "hyperliquid"])
def test_networks_without_anything_in_common_go_their_own_ways(preset, priority):
    """Merged, every account ends as it does alone, whoever else is called between two accounts of an exchange."""
    lend = generators.market(300, exchanges=2, wallets=0.0, under_water=0.1, seed=4)
    perp = generators.market(
        300, exchanges=0, perpetuals=1, wallets=0.0, depth=0.1, prices=lend.assets["price"], seed=4
    )
    perp = perp.replace(exchanges=perp.exchanges.assign(rulebook=preset))
    shock = nc.Shock.price({"ETH": -0.10}, family=True)
    together, *apart = (nc.cascade(net, shock, priority=priority, seed=1) for net in (nc.merge(lend, perp), lend, perp))
    together.check()
    assert (apart[1].events["type"] == "auto_deleveraging").any()
    assert apart[0].accounts["liquidated"].sum() > 5
    for alone in apart:
        found = together.accounts.loc[alone.accounts.index]
        for name in ("health", "equity", "deficit", "loss"):
            np.testing.assert_allclose(found[name], alone.accounts[name], rtol=1e-9, atol=1e-6, err_msg=name)


def test_the_table_of_positions_says_what_everybody_holds_at_the_end():
    net = generators.market(200, exchanges=0, perpetuals=2, seed=1)
    found = nc.cascade(net, nc.Shock.price({"ETH": -0.15}, family=True))
    table = found.positions
    assert table["quantity_before"].to_dict() == net.positions["quantity"].to_dict()
    sold = found.markets["sold"].groupby(level="asset").sum()
    left = table["quantity"].groupby(level="asset").sum()
    assert (left + sold[left.index]).abs().max() < 1e-6
    unit = table.index.get_level_values("account").map(net.accounts["exchange"]).to_numpy()
    mark = found.markets["mark"].loc[list(zip(unit, table.index.get_level_values("asset"), strict=True))].to_numpy()
    np.testing.assert_allclose(table["gain"], table["quantity"] * (mark - table["entry_price"]), atol=1e-6)


def test_a_result_says_what_every_layer_bore_and_leaves_out_rounding():
    net = generators.market(300, exchanges=0, perpetuals=1, depth=0.1, seed=4)
    found = nc.cascade(net, nc.Shock.price({"ETH": -0.10}, family=True))
    assert 0 < found.exchanges["gains_used"].sum() < 1e-6  # rounding
    assert "gains" not in repr(found)
    facts, borne = found.summary(), found.exchanges["auto_deleveraging_used"].sum()
    assert facts["auto deleveraging [USD]"] == borne > 0
    assert not any(str(name).startswith("gains") for name in facts.index)


def test_a_deposit_whose_price_falls_to_nothing_repays_what_it_brought(rules):
    """On a linear book one unit of two takes 55 to 0 and brings 27.5; the rest is worthless, and 72.5 are lacking."""
    net = book({"k": ({"C": 2.0, "S": -100.0}, {})}, rulebook=rules(), markets={"C": {"maintenance_margin": 0.2}})
    assets = net.assets.reset_index()
    assets.loc[assets["asset"] == "C", ["impact", "depth"]] = "linear", 1.0
    found = run(net.replace(assets=assets), nc.Shock.price({"C": -0.45}))
    assert found.status is nc.Status.SETTLED
    assert found.accounts.loc["k", ["repaid", "deficit"]].tolist() == pytest.approx([27.5, 72.5])
    assert found.traders.loc["k", "loss"] == pytest.approx(100.0)
