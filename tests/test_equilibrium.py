"""Joint equilibria of prices, close-outs and losses, where closing an account can save none."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from seeds import slow
from test_cascade_fixed_point import build, markets
from test_cascade_laws import check

import netcontagion as nc
from netcontagion.clearing import fire_sale
from netcontagion.margining._closed import Book
from netcontagion.margining._equilibrium import _fall, _rise
from netcontagion.margining._forms import read_forms
from netcontagion.margining._opening import open_state
from netcontagion.margining._supported import only_closes_out
from netcontagion.network import HEALTH_TOL, rulebook

REFERENCES = json.loads((Path(__file__).parent / "references" / "fire_sale.json").read_text(encoding="utf-8"))
CASES = {case["name"]: case for case in REFERENCES["cases"]}
NOBODY_ANSWERS = ("liquidation", "impact")
SEEDS = st.integers(0, 2**32 - 1)
LAYERS = ("insurance_fund_used", "equity_used", "socialised", "uncovered")


def solve(net, shock, **options):
    run = nc.cascade(net, shock, mode="equilibrium", channels=NOBODY_ANSWERS, **options)
    for one in (run, run.least):
        check(one)
        assert one.status.settled
    bounds = run.gap
    assert (bounds["lower"] <= bounds["least"]).all()
    assert (bounds["least"] <= bounds["greatest"] * (1 + 1e-15)).all()
    assert (bounds["greatest"] <= bounds["upper"]).all()
    return run


def gone(run):
    return set(run.accounts.index[run.accounts["liquidated"]])


def ten_accounts():
    names = [f"k{i}" for i in range(10)]
    return nc.ExposureNetwork(
        exchanges={"exchange": ["X"], "rulebook": ["closeout"]},
        assets={"asset": ["ETH", "USD"], "price": [1.0, 1.0], "depth": [50.0, math.inf]},
        markets={"exchange": ["X", "X"], "asset": ["ETH", "USD"], "liquidation_threshold": [0.8, 0.0]},
        balances={"account": names * 2, "asset": ["ETH"] * 10 + ["USD"] * 10,
                  "deposited": [1.0] * 10 + [0.0] * 10, "borrowed": [0.0] * 10 + [0.9 * 0.8] * 10},
    )  # fmt: skip


def altered(**changes):
    kept = ("exchanges", "assets", "markets", "balances")
    tables = {name: getattr(ten_accounts(), name).reset_index() for name in kept}
    tables["balances"] = tables["balances"].query("not account.str.startswith('others@')")
    for name, columns in changes.items():
        tables[name] = tables[name].assign(**columns) if name in tables else columns
    return nc.ExposureNetwork(**tables)


# published and closed-form numbers ----------------------------------------------------------------------------------


def test_a_cascade_that_did_not_happen_stands_beside_one_that_did():
    """Ten accounts with trigger 0.9, a unit each, price 0.95 exp(-0.02 Q)."""
    run = solve(ten_accounts(), nc.Shock.price({"ETH": -0.05}))
    assert run.assets.loc["ETH", "price"] == pytest.approx(0.95, rel=1e-15)
    assert run.least.assets.loc["ETH", "price"] == pytest.approx(0.7777942154240827, rel=1e-14)
    assert (len(gone(run)), len(gone(run.least))) == (0, 10)
    np.testing.assert_allclose(run.gap.loc[("X", "ETH")], [0.95, 0.7777942154240827, 0.7777942154240827, 0.95])
    facts = run.summary()
    assert (facts["liquidated"], facts["liquidated, least"]) == (0, 10)
    assert facts["lowest mark, least over greatest"] == pytest.approx(math.exp(-0.2))
    assert "least      10 liquidated" in repr(run)
    assert "greatest equilibrium" in repr(run)
    assert "least equilibrium" in repr(run.least)
    assert run.least.least is None
    fills = run.least.events.query("type == 'sale'")
    assert fills["price"].to_numpy() == pytest.approx(np.full(10, 0.95 * (1 - math.exp(-0.2)) / 0.2))
    assert nc.cascade(ten_accounts(), nc.Shock.price({"ETH": -0.05})).gap is None


def test_a_shock_to_the_trigger_leaves_one_equilibrium():
    run = solve(ten_accounts(), nc.Shock.price({"ETH": -0.11}))
    assert gone(run) == gone(run.least)
    assert len(gone(run)) == 10
    assert run.gap["lower"].to_numpy() == pytest.approx(run.gap["upper"].to_numpy(), rel=1e-12)


def test_health_of_exactly_one_is_in_the_greatest_equilibrium():
    """0.9 x 0.8 against a debt of 0.72 passes; a price lower by 1e-9 does not."""
    assert not gone(solve(ten_accounts(), nc.Shock.price({"ETH": -0.1})))
    assert len(gone(solve(ten_accounts(), nc.Shock.price({"ETH": -0.1 - 1e-9})))) == 10


def test_bounds_hold_both_answers_where_rounding_decides():
    """Health within rounding of where a call begins: nobody knows whether the ten are called by the shock itself."""
    net = altered(balances={"borrowed": [0.0, 0.8 * 0.95 / (1 - HEALTH_TOL)] * 10})
    run = solve(net, nc.Shock.price({"ETH": -0.05}))
    np.testing.assert_allclose(run.gap.loc[("X", "ETH"), ["lower", "upper"]], [0.95 * math.exp(-0.2), 0.95])


def test_two_banks_sell_everything_in_default():
    """Caccioli, Shrestha, Moore, Farmer (2014): who defaults sells all, p = exp(-alpha x), alpha = 1.0536."""
    case = CASES["firesale_exponential_2banks"]
    held, given_ = np.array(case["inputs"]["holdings"], dtype=float), case["inputs"]
    debt = held.sum(axis=1) - given_["equity"]
    threshold, depth = np.full(3, 1 - 1e-9), held.sum(axis=0) / given_["alpha"]
    net = build(held, debt, np.ones(3), threshold, depth, np.random.default_rng(0))
    run = solve(net, nc.Shock.price({f"a{j}": -fall for j, fall in enumerate(given_["shock"])}))
    np.testing.assert_allclose(run.assets["price"].drop("USD"), case["expected"]["final_price"], rtol=1e-9)
    waves = [[int(k) for k in wave] for wave in case["expected"]["default_order"]]
    found = run.accounts["first_round"]
    assert [[k for k in range(2) if found[f"k{k}"] == number] for number in range(2)] == waves


def test_banks_at_a_leverage_limit_have_the_two_published_equilibria():
    """Breuer, Summer, Urosevic, OeNB Working Paper 235, table 5: one bank sells all it has, or all three do.

    Leverage above 44, A / (A - D) > 44, is health A (1 - 1 / 44) / D < 1. The impact is that of the square root.
    """
    case = CASES["bsu_multiple_equilibria"]
    given_, expected = case["inputs"], case["expected"]
    securities, loans, equity = (np.array(given_[name], dtype=float) for name in ("securities", "loans", "equity"))
    threshold = np.full(2, 1 - 1 / given_["leverage_threshold"])
    held, depth = np.column_stack([securities, loans]), np.array([1 / given_["impact_coefficient"], math.inf])
    net = build(held, held.sum(axis=1) - equity, np.ones(2), threshold, depth, np.random.default_rng(0))
    book = Book.of(open_state(net, nc.Shock(), switches=NOBODY_ANSWERS), np.arange(3), liquidates=True)
    form = {"a0": "square_root", "a1": "exponential", "USD": "exponential"}
    book = replace(book, forms=read_forms([form[name] for name in [*net.labels("assets"), *net.labels("assets")]]))
    rise, fall = _rise(book, 0.0, 10).state, _fall(book, np.ones(3, dtype=bool), 0.0, 10).state
    found = [(one.chosen.tolist(), 1 - one.marks[-1].min()) for one in (rise, fall)]
    for (chosen, delta), end in zip(found, ("lower", "upper"), strict=True):
        assert chosen == [part == 1 for part in expected[f"theta_{end}"]]
        assert delta == pytest.approx(expected[f"delta_{end}"], abs=1e-9)


# the slow twin ------------------------------------------------------------------------------------------------------

ASSETS = ("a0", "a1", "USD", "DAI")  # the first two have impact, the others are borrowed
PLACE = {name: place for place, name in enumerate(ASSETS)}


def random_case(rng):
    size = int(rng.integers(3, 8))
    price, threshold = np.append(rng.uniform(1, 20, 2), [1.0, 1.1]), np.append(rng.uniform(0.6, 0.9, 2), [0.9, 0.0])
    if rng.random() < 0.5:
        threshold[3] = 0.85
    held = rng.exponential(10, (size, 4)) * (rng.random((size, 4)) < [0.6, 0.6, 0.4, 0.3]) / price
    held[:, 0] += rng.exponential(2, size)
    owed = np.zeros((size, 4))
    owed[:, 2:] = rng.dirichlet([1, 1], size) * (rng.random((size, 1)) < 0.8)
    owed[:, 3] *= rng.random(size) < 0.5
    backing = (held * price * threshold).sum(axis=1)
    owed *= (backing / np.maximum(owed @ price, 1e-12) / rng.uniform(0.95, 1.6, size))[:, None]
    return {
        "held": held, "owed": owed, "price": price, "threshold": threshold,
        "depth": held[:, :2].sum(axis=0) * rng.uniform(0.6, 6) + 1e-3,
        "exchange": rng.integers(0, 2, size),
        "equity": rng.exponential(2, 2) * (rng.random(2) < 0.6), "fund": rng.exponential(1, 2) * (rng.random(2) < 0.6),
        "fall": rng.uniform(0.0, 0.5, 2), "out": bool(rng.random() < 0.15), "default": bool(rng.random() < 0.2),
    }  # fmt: skip


def network(case):
    size = len(case["held"])
    cells = [c for c in itertools.product(range(size), range(4)) if case["held"][c] > 0 or case["owed"][c] > 0]
    return nc.ExposureNetwork(
        exchanges={"exchange": ["X", "Y"], "rulebook": ["closeout"] * 2, "equity": case["equity"],
                   "insurance_fund": case["fund"], "insurance_asset": ["DAI", None]},
        assets={"asset": list(ASSETS), "price": case["price"], "depth": [*case["depth"], math.inf, math.inf]},
        markets={"exchange": ["X"] * 4 + ["Y"] * 4, "asset": list(ASSETS) * 2,
                 "liquidation_threshold": [*case["threshold"]] * 2},
        accounts={"account": [f"k{k}" for k in range(size)], "trader": [f"t{k}" for k in range(size)],
                  "exchange": ["XY"[v] for v in case["exchange"]]},
        balances={"account": [f"k{k}" for k, _ in cells], "asset": [ASSETS[j] for _, j in cells],
                  "deposited": [case["held"][c] for c in cells], "borrowed": [case["owed"][c] for c in cells]},
    )  # fmt: skip


def shock_of(case):
    shock = nc.Shock.price({"a0": -case["fall"][0], "a1": -case["fall"][1]})
    if case["out"]:
        shock = shock + nc.Shock.outage("Y")
    return shock + nc.Shock.default("t0") if case["default"] else shock


def follow(case, book, chosen):
    """Prices, deficits, layers and healths when the chosen accounts are closed, account by account.

    ``book`` holds the deposits of the derived lenders by exchange and asset.
    """
    size = len(case["held"])
    price = case["price"].copy()
    price[:2] *= 1 - case["fall"]
    closed = [k for k in chosen if not (case["out"] and case["exchange"][k] == 1)]
    end, mean = price.copy(), price.copy()
    for j in range(2):
        units = sum(case["held"][k, j] for k in closed)
        if units:
            z = units / case["depth"][j]
            end[j], mean[j] = price[j] * math.exp(-z), price[j] * (1 - math.exp(-z)) / z
    missing, deficit, supply = np.zeros((2, 4)), np.zeros(size), book.copy()
    for k in range(size):
        supply[case["exchange"][k]] += np.where((k in closed) & (case["threshold"] > 0), 0.0, case["held"][k])
    for k in closed:
        cash = sum(case["held"][k, j] * mean[j] for j in range(4) if case["threshold"][j] > 0)
        for j in sorted(range(4), key=lambda j: -case["owed"][k, j] * price[j]):
            due = case["owed"][k, j] * price[j]
            unpaid = max(due - cash, 0.0)
            cash = max(cash - due, 0.0)
            missing[case["exchange"][k], j] += unpaid
            deficit[k] += unpaid
    asked, used = np.zeros((2, 4)), np.zeros((2, 4))
    for v in range(2):
        fund = case["fund"][v] * (price[3] if v == 0 else 1.0)
        for layer, pool in enumerate((fund, case["equity"][v])):
            for j in (3, 2):  # by asset
                paid = min(pool - used[v, layer], missing[v, j])
                missing[v, j] -= paid
                used[v, layer] += paid
        for j in range(4):
            worth = supply[v, j] * price[j]
            paid = min(worth, missing[v, j])
            asked[v, j] = missing[v, j]
            used[v, 2] += paid
            used[v, 3] += missing[v, j] - paid
    health = np.full(size, math.inf)
    for k in range(size):
        debt = sum(case["owed"][k, j] * price[j] for j in range(4))
        if debt > 0:
            backing, v = 0.0, case["exchange"][k]
            for j in range(4):
                stays = supply[v, j] + (case["held"][k, j] if k in closed and case["threshold"][j] > 0 else 0.0)
                share = max(1 - asked[v, j] / (stays * price[j]), 0.0) if asked[v, j] > 0 and stays > 0 else 1.0
                backing += case["held"][k, j] * share * end[j] * case["threshold"][j]
            health[k] = backing / debt
    return end, deficit, used, health


def all_equilibria(case, net):
    """Every set of accounts that is the set of those called when it is closed, by trying all sets; None near ties."""
    size = len(case["held"])
    book = np.zeros((2, 4))
    table = net.balances.reset_index()
    for account, asset, units in zip(table["account"], table["asset"], table["deposited"], strict=True):
        if account.startswith("others@"):
            book["XY".index(account[-1]), PLACE[asset]] += units
    found = {}
    for bits in itertools.product((False, True), repeat=size):
        chosen = frozenset(np.flatnonzero(bits).tolist())
        end, deficit, used, health = follow(case, book, sorted(chosen))
        if np.abs(health - 1).min() < 1e-9:
            return None
        low = {k for k in range(size) if health[k] < 1 or (case["default"] and k == 0 and health[k] < math.inf)}
        if low == chosen:
            found[chosen] = (end, deficit, used)
    return found


def cases(count, seed):
    rng = np.random.default_rng(seed)
    while count:
        case = random_case(rng)
        net = network(case)
        found = all_equilibria(case, net)
        if found is not None:
            count -= 1
            yield case, net, found


@pytest.mark.parametrize("number", [40, *slow(100)])
def test_both_ends_agree_with_a_search_of_all_sets(number):
    several = cut = waves = 0
    for case, net, found in cases(number, 5):
        run = solve(net, shock_of(case))
        least_set, greatest_set = min(found, key=len), max(found, key=len)
        assert all(least_set <= one <= greatest_set for one in found)
        for one, chosen in ((run, least_set), (run.least, greatest_set)):
            end, deficit, used = found[chosen]
            assert set(np.flatnonzero(one.accounts["called"].to_numpy()[: len(deficit)])) == set(chosen)
            np.testing.assert_allclose(one.assets["price"], end[[PLACE[a] for a in one.assets.index]], rtol=1e-12)
            own = one.accounts["deficit"].to_numpy()[: len(deficit)]
            np.testing.assert_allclose(own, deficit, rtol=1e-9, atol=1e-9)
            np.testing.assert_allclose(one.exchanges[list(LAYERS)], used, rtol=1e-9, atol=1e-9)
        several += len(least_set) < len(greatest_set)
        cut += used[:, 2].sum() > 0
        waves += len(run.rounds) > 2
    assert min(several, cut, waves) > number / 10


def test_nobody_left_below_health_one_unless_the_exchange_is_out():
    for case, net, _ in cases(40, 6):
        run = solve(net, shock_of(case))
        for one in (run, run.least):
            table = one.accounts
            below = table.index[(table["health"] < 1 - 1e-9)]
            assert case["out"] or not len(below)
            assert set(below) <= set(table.index[table["called"] & (table["exchange"] == "Y")])
            assert one.status is (nc.Status.SETTLED if not len(below) else nc.Status.EXHAUSTED)


# equilibrium and sequential runs ------------------------------------------------------------------------------------


def test_greatest_equilibrium_has_the_prices_and_the_set_of_a_run_in_sequence():
    """Who is closed follows from prices alone; only what each one is paid depends on the order."""
    differ = 0
    for (held, debt, price, threshold, depth), fall, (least, prices), rng in markets(50, 3):
        net = build(held, debt, price, threshold, depth, rng)
        shock = nc.Shock.price({f"a{j}": -fall[j] for j in range(len(fall))})
        run, other = solve(net, shock), nc.cascade(net, shock, channels=NOBODY_ANSWERS)
        assert gone(run) == gone(other) == {f"k{k}" for k in least}
        np.testing.assert_allclose(run.assets["price"].drop("USD"), prices, rtol=1e-12)
        np.testing.assert_allclose(run.assets["price"], other.assets["price"], rtol=1e-12)
        np.testing.assert_allclose(run.losses.loc[:, "market"].sum(), other.losses.loc[:, "market"].sum(), atol=1e-9)
        differ += abs(run.exchanges["deficit"].sum() - other.exchanges["deficit"].sum()) > 1e-6
    assert differ > 5


def test_equal_accounts_leave_no_more_bad_debt_at_the_average_than_in_sequence():
    """Sum of (D - V_k)^+ over equal debts is least where all V_k are equal (Jensen)."""
    strict = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        size = int(rng.integers(2, 9))
        held, debt = np.full((size, 1), rng.uniform(1, 5)), np.full(size, 1.0)
        debt *= held[0, 0] * rng.uniform(0.6, 0.79)
        net = build(held, debt, np.ones(1), np.array([0.8]), np.array([held.sum() * rng.uniform(1, 8)]), rng)
        shock = nc.Shock.price({"a0": -float(rng.uniform(0.2, 0.35))})
        equal, other = solve(net, shock), nc.cascade(net, shock, channels=NOBODY_ANSWERS)
        ours, theirs = equal.exchanges["deficit"].sum(), other.exchanges["deficit"].sum()
        assert ours <= theirs * (1 + 1e-12) + 1e-12
        strict += ours < theirs * (1 - 1e-9)
    assert strict > 10


def test_unequal_accounts_can_leave_more_bad_debt_at_the_average_than_in_sequence():
    """In sequence the weak account sells first, at better prices; the strong one bears the fall out of its surplus."""
    net = build(np.array([[10.0], [10.0]]), np.array([7.9, 7.0]), np.ones(1), np.array([0.8]), np.array([60.0]),
                np.random.default_rng(0))  # fmt: skip
    shock = nc.Shock.price({"a0": -0.13})
    run, other = solve(net, shock), nc.cascade(net, shock, channels=NOBODY_ANSWERS)
    assert gone(run) == gone(other) == {"k0", "k1"}
    z = 10 / 60
    first, both = 0.87 * 60 * (1 - math.exp(-z)), 0.87 * 30 * (1 - math.exp(-2 * z))
    assert other.exchanges["deficit"].sum() == pytest.approx(7.0 - first * math.exp(-z))
    assert run.exchanges["deficit"].sum() == pytest.approx(7.9 - both)
    assert 7.9 - both > 7.0 - first * math.exp(-z) > 0 > 7.9 - first


# monotone -----------------------------------------------------------------------------------------------------------


def outcome(case, shock):
    run = solve(network(case), shock)
    return [
        (gone(one), one.assets["price"].to_numpy(), one.exchanges["deficit"].to_numpy()) for one in (run, run.least)
    ]


def assert_worse(before, after):
    for (set_0, price_0, deficit_0), (set_1, price_1, deficit_1) in zip(before, after, strict=True):
        assert set_0 <= set_1
        assert (price_1 <= price_0 * (1 + 1e-12)).all()
        assert (deficit_1 >= deficit_0 * (1 - 1e-9) - 1e-9).all()


def calm(seed):
    case = random_case(np.random.default_rng(seed))
    return case | {"default": False}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(SEEDS, st.floats(0.0, 0.3))
def test_a_larger_shock_is_worse(seed, more):
    case = calm(seed)
    larger = case | {"fall": 1 - (1 - case["fall"]) * (1 - more)}
    assert_worse(outcome(case, shock_of(case)), outcome(larger, shock_of(larger)))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(SEEDS, st.floats(0.1, 1.0))
def test_a_thinner_book_is_worse(seed, factor):
    case = calm(seed)
    shock = shock_of(case)
    assert_worse(outcome(case, shock), outcome(case, shock + nc.Shock.depth(factor)))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(SEEDS, st.floats(0.5, 1.0), st.booleans())
def test_less_margin_is_worse(seed, factor, by_threshold):
    """More debt in what is owed, or a lower threshold: either calls sooner. The lenders' supply stays the same."""
    case = calm(seed)
    lenders = case | {"held": np.vstack([case["held"], np.diag([0, 0, 1e3, 1e3])[2:], np.diag([0, 0, 1e3, 1e3])[2:]]),
                      "owed": np.vstack([case["owed"], np.zeros((4, 4))]),
                      "exchange": np.append(case["exchange"], [0, 0, 1, 1])}  # fmt: skip
    if by_threshold:
        accepted = lenders["threshold"] > 0
        thinner = lenders | {"threshold": np.where(accepted, np.maximum(lenders["threshold"] * factor, 0.01), 0.0)}
    else:
        thinner = lenders | {"owed": lenders["owed"] / factor}
    assert_worse(outcome(lenders, shock_of(lenders)), outcome(thinner, shock_of(thinner)))


@pytest.mark.parametrize("falls", [(0.1736, 0.1836), (0.15, 0.1736)])
def test_books_in_which_a_larger_shock_lowers_bad_debt_in_sequence_are_monotone_here(falls):
    """The book of the counterexample under sequential fills."""
    held, debt = np.array([[14.0], [8.0]]), np.array([9.2, 5.3])
    net = build(held, debt, np.ones(1), np.array([0.8]), np.array([29.0]), np.random.default_rng(0))
    less, more = (solve(net, nc.Shock.price({"a0": -fall})).exchanges["deficit"].sum() for fall in falls)
    assert less <= more


def test_more_margin_on_one_account_lowers_bad_debt_where_it_raises_it_in_sequence():
    debts = [np.array([8.8, 2.3]), np.array([8.8, 2.185])]
    found, in_sequence = [], []
    for debt in debts:
        net = build(np.array([[12.0], [3.0]]), debt, np.ones(1), np.array([0.8]), np.array([50.0]),
                    np.random.default_rng(0))  # fmt: skip
        shock = nc.Shock.price({"a0": -0.1})
        found.append(solve(net, shock).exchanges["deficit"].sum())
        in_sequence.append(nc.cascade(net, shock, channels=NOBODY_ANSWERS).exchanges["deficit"].sum())
    assert in_sequence[0] < in_sequence[1]
    assert found[0] >= found[1]


# one model beside another -------------------------------------------------------------------------------------------


def test_ends_are_those_of_a_fire_sale_in_which_who_defaults_sells_everything():
    """A threshold of nearly 1 calls an account where its end value is below its debt: the rule "default"."""
    several = 0
    for (held, _, price, _, depth), fall, _, rng in markets(30, 21):
        debt = (held * price * (1 - fall)).sum(axis=1) / rng.uniform(0.97, 1.3, len(held))
        net = build(held, debt, price, np.full(len(price), 1 - 1e-12), depth / 5, rng)
        run = solve(net, nc.Shock.price({f"a{j}": -fall[j] for j in range(len(fall))}))
        names = [f"k{k}" for k in range(len(held))]
        for which, one in (("greatest", run), ("least", run.least)):
            sale = fire_sale(np.zeros((len(held), len(held))), np.zeros(len(held)), held, prices=price * (1 - fall),
                             depth=depth / 5, external_liabilities=debt, rule="default", which=which)  # fmt: skip
            np.testing.assert_allclose(one.assets["price"].drop("USD"), sale.prices, rtol=1e-9)
            np.testing.assert_allclose(one.assets["sold"].drop("USD"), sale.sold, rtol=1e-9, atol=1e-9)
            paid = debt - one.accounts["deficit"][names].to_numpy()
            np.testing.assert_allclose(paid, sale.payments, rtol=1e-9)
        several += len(gone(run)) < len(gone(run.least))
    assert several > 5


def test_nodes_are_cleared_by_the_greatest_payments_and_by_the_least():
    """Two traders who owe each other 5 and have nothing: both pay, or neither does."""
    net = altered(
        traders={"trader": [*(f"k{i}" for i in range(10)), "t1", "t2"]},
        liabilities={"debtor": ["t1", "t2"], "creditor": ["t2", "t1"], "amount": [5.0, 5.0]},
    )
    run = solve(net, nc.Shock.price({"ETH": -0.05}))
    assert run.clearing.payments[["t1", "t2"]].tolist() == [5.0, 5.0]
    assert run.least.clearing.payments[["t1", "t2"]].tolist() == [0.0, 0.0]


def test_a_trader_can_pay_more_in_the_least_equilibrium():
    """A closed account is paid the average of the sale, which is above the mark that it is valued at if it stays."""
    net = nc.ExposureNetwork(
        exchanges={"exchange": ["X"], "rulebook": ["closeout"]},
        assets={"asset": ["ETH", "USD"], "price": [1.0, 1.0], "depth": [50.0, math.inf]},
        markets={"exchange": ["X", "X"], "asset": ["ETH", "USD"], "liquidation_threshold": [0.8, 0.0]},
        traders={"trader": ["large", "small"], "external_liabilities": [0.0, 0.2]},
        accounts={"account": ["A", "B"], "trader": ["large", "small"], "exchange": ["X", "X"]},
        balances={"account": ["A", "A", "B", "B"], "asset": ["ETH", "USD"] * 2, "deposited": [10.0, 0.0, 1.0, 0.0],
                  "borrowed": [0.0, 7.7, 0.0, 0.8 * 0.77]},
    )  # fmt: skip
    run = solve(net, nc.Shock.price({"ETH": -0.05}))
    assert (gone(run), gone(run.least)) == ({"A"}, {"A", "B"})
    assert run.clearing.payments["small"] == pytest.approx(0.95 * math.exp(-0.2) - 0.8 * 0.77)
    assert run.least.clearing.payments["small"] == pytest.approx(0.2)


# names, currency, channels ------------------------------------------------------------------------------------------


def test_names_and_currency_change_nothing():
    for number, (case, net, _) in enumerate(cases(12, 9)):
        order = np.random.default_rng(number).permutation(len(case["held"]))
        renamed = case | {key: case[key][order] for key in ("held", "owed", "exchange")} | {"default": False}
        dearer = case | {"price": case["price"] * 8.0, "equity": case["equity"] * 8.0, "default": False}
        dearer |= {"fund": case["fund"] * [1.0, 8.0]}
        runs = [solve(network(one), shock_of(one)) for one in (case | {"default": False}, renamed, dearer)]
        for pick in (lambda run: run, lambda run: run.least):
            one, other, money = (pick(run) for run in runs)
            size = len(order)
            np.testing.assert_allclose(other.markets["mark"], one.markets["mark"], rtol=1e-12)
            np.testing.assert_allclose(money.markets["mark"], one.markets["mark"] * 8, rtol=1e-12)
            deficit = one.accounts["deficit"].to_numpy()[:size]
            np.testing.assert_allclose(other.accounts["deficit"].to_numpy()[:size], deficit[order], atol=1e-9)
            np.testing.assert_allclose(money.losses, one.losses * 8, rtol=1e-9, atol=1e-8)
        del net


def test_without_liquidation_nothing_is_sold_and_without_impact_nothing_moves():
    net, shock = ten_accounts(), nc.Shock.price({"ETH": -0.3})
    still = nc.cascade(net, shock, mode="equilibrium", channels=["impact"])
    assert (still.accounts["called"].sum(), still.accounts["liquidated"].sum()) == (10, 0)
    assert still.status is nc.Status.EXHAUSTED
    deep = nc.cascade(net, shock, mode="equilibrium", channels=["liquidation"])
    assert deep.accounts["liquidated"].sum() == 10
    assert deep.assets.loc["ETH", "price"] == pytest.approx(0.7)
    assert gone(deep) == gone(deep.least)
    for one in (still, deep):
        check(one)


def test_a_network_without_debt_has_nothing_to_close():
    exchanges = {"exchange": ["X"], "rulebook": ["closeout"]}
    net = nc.ExposureNetwork(exchanges=exchanges, assets={"asset": ["ETH"], "price": [1.0]})
    run = nc.cascade(net, nc.Shock.price({"ETH": -0.5}), mode="equilibrium")
    assert run.status is nc.Status.SETTLED
    check(run)


def test_rounds_are_those_of_the_search_and_run_out():
    """A chain in which each account's sale calls the next one."""
    size = 6
    debt = 0.8 * np.exp(-np.arange(size) / 50.0 - 1e-4)
    net = build(np.ones((size, 1)), debt, np.ones(1), np.array([0.8]), np.array([50.0]), np.random.default_rng(0))
    shock = nc.Shock.price({"a0": -2e-4})
    run = solve(net, shock)
    assert run.accounts["first_round"][[f"k{k}" for k in range(size)]].tolist() == list(range(size))
    assert run.rounds["called"].tolist() == [1] * size + [0]
    calls, sales = (run.events.query(f"type == '{kind}'") for kind in ("call", "sale"))
    assert calls["parent"].tolist() == [0, *sales.index[:-1]]
    with pytest.raises(nc.NotSettledError, match="rounds") as failed:
        nc.cascade(net, shock, mode="equilibrium", max_rounds=3)
    assert failed.value.result.status is nc.Status.MAX_ROUNDS
    check(failed.value.result)


# refusals -----------------------------------------------------------------------------------------------------------


REFUSED = {
    "part": (
        {"exchanges": {"rulebook": "aave_v3_0"}, "markets": {"liquidation_bonus": 0.05, "close_factor": 0.5}},
        "exchange 'X', rulebook 'aave_v3_0': .*amount.rule = 'close_factor'.*price.rule = 'fixed_spread'",
    ),
    "debt": (
        {"assets": {"depth": [50.0, 1000.0]}},
        "exchange 'X': account 'k0' borrowed 0.72 'USD', whose depth is 1000",
    ),
    "fund": (
        {"exchanges": {"insurance_fund": 3.0, "insurance_asset": "ETH"}},
        "exchanges, 'X': the insurance_fund is sold in 'ETH'",
    ),
    "wallet": (
        {"wallets": {"trader": ["k0"], "asset": ["USD"], "units": [1.0]}},
        "channel 'top_up': trader 'k0' answers calls out of a wallet",
    ),
    "accounts": (
        {"accounts": {"account": [f"k{i}" for i in range(10)], "trader": [*"ttabcdefgh"], "exchange": ["X"] * 10}},
        "channel 'withdrawal': trader 't' answers calls out of several accounts",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_rules_that_are_not_monotone_are_refused_by_name(name):
    changes, message = REFUSED[name]
    with pytest.raises(nc.ContagionError, match=message):
        nc.cascade(altered(**changes), nc.Shock(), mode="equilibrium")


@pytest.mark.parametrize(
    ("name", "key"),
    [("lending", "amount.rule"), ("maker", "price.rule"), ("perpetual", "health.test"), ("comet", "'frozen'")],
)
def test_presets_say_what_keeps_them_out(name, key):
    assert any(key in found for found in only_closes_out(rulebook(name)))
    assert only_closes_out(rulebook("closeout")) == ()


def test_modes_are_named():
    with pytest.raises(nc.UnknownLabelError, match="equilibrium"):
        nc.cascade(ten_accounts(), nc.Shock(), mode="equilibrum")


def test_top_ups_let_a_larger_shock_save_an_account():
    """Why they are refused: A takes from the wallet what B would have needed, unless A needs more than there is."""
    net = nc.ExposureNetwork(
        exchanges={"exchange": ["X"], "rulebook": ["closeout"]},
        assets={"asset": ["a", "b", "USD"], "price": [1.0, 1.0, 1.0]},
        markets={"exchange": ["X"] * 3, "asset": ["a", "b", "USD"], "liquidation_threshold": [0.8, 0.8, 0.0]},
        accounts={"account": ["A", "B"], "trader": ["t", "t"], "exchange": ["X", "X"]},
        balances={"account": ["A", "A", "B", "B"], "asset": ["a", "USD", "b", "USD"],
                  "deposited": [100.0, 0.0, 50.0, 0.0], "borrowed": [0.0, 75.0, 0.0, 39.5]},
        wallets={"trader": ["t"], "asset": ["USD"], "units": [7.0]},
    )  # fmt: skip
    less, more = (nc.cascade(net, nc.Shock.price({"a": -fall, "b": -0.02}), channels=["top_up", "liquidation"])
                  for fall in (0.10, 0.12))  # fmt: skip
    assert gone(less) == {"B"}
    assert gone(more) == {"A"}
