"""Ranked classes with default costs and division rules: goldens, special cases, all default sets, laws, edges."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from seeds import slow

from netcontagion._status import Status
from netcontagion.clearing import _costly_ranks, _ranked_costs, eisenberg_noe, elsinger, ranked, rogers_veraart
from netcontagion.clearing._divisions import RULES, claims_of, division_of
from netcontagion.errors import ContagionError, NotSettledError, SchemaError

HERE = Path(__file__).resolve()
FIXTURE = json.loads((HERE.parent / "references" / "ranked_costs.json").read_text(encoding="utf-8"))
GOLDEN, CASES = FIXTURE["golden"], FIXTURE["cases"]
SHARED = HERE.parents[2] / "shared" / "reference" / "cases"
EXTREMES = ("greatest", "least")
PLACES = (0, -1, "senior")

both_ends = pytest.mark.parametrize("which", EXTREMES)
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the folder shared/reference is not beside the checkout")


def star(amounts):
    """One debtor, node 0, that owes ``amounts`` to nodes 1, 2..."""
    liabilities = np.zeros((len(amounts) + 1, len(amounts) + 1))
    liabilities[0, 1:] = amounts
    return liabilities


def received(result):
    return result.payment_matrix().sum(axis=0)


# ----------------------------------------------------------------------------------------------- goldens and published


@both_ends
def test_haircuts_on_variation_margin_gains_are_eisenberg_noe_at_the_ccp(which):
    golden = GOLDEN["variation_margin_gains"]
    network = star(golden["gains"]), [golden["collected"], 0, 0, 0]
    result = ranked([network[0]], network[1], which=which)
    assert received(result)[1:] == pytest.approx(golden["paid"], rel=1e-14)
    assert received(result) == pytest.approx(received(eisenberg_noe(*network, which=which)), rel=1e-14)
    junior = ranked([star([10, 10, 10]), network[0]], [golden["collected"] + 30, 0, 0, 0], which=which)
    assert junior.payment_matrix().toarray()[0, 1:] == pytest.approx(np.add(golden["paid"], 10), rel=1e-14)


def test_ring_with_default_costs_has_two_solutions():
    golden = GOLDEN["ring_with_costs"]
    network = [golden["liabilities"]], golden["external_assets"]
    for which in EXTREMES:
        costly = ranked(*network, alpha=golden["alpha"], beta=golden["beta"], which=which)
        assert costly.payments == pytest.approx(golden[which], rel=1e-12)
        assert costly.width <= 1e-12
        assert ranked(*network, which=which).payments == pytest.approx(golden["without_costs"], rel=1e-12)


def test_two_classes():
    golden = GOLDEN["two_classes"]
    result = ranked([star(one) for one in golden["classes"]], [golden["available"], 0, 0])
    assert result.payment_matrix().toarray()[0, 1:] == pytest.approx(np.sum(golden["paid"], axis=0))
    assert [paid[0] for paid in result.payments_by_class] == pytest.approx([80, 20])
    queue = ranked([star(one) for one in golden["classes"]], [golden["available"], 0, 0], division="queue")
    assert queue.payment_matrix().toarray()[0, 1:].tolist() == [70, 30]


@pytest.mark.parametrize("rule", ["queue", "pro_rata", "equal_payment"])
def test_auto_deleveraging_takes_what_the_rule_leaves_unpaid(rule):
    # Winners are owed their profits and the deficit is missing. Whose profits are taken first is paid last.
    golden = GOLDEN["deleveraging"]
    capacity = np.array(golden["capacity"], dtype=float)
    last_first = [0, *range(len(capacity), 0, -1)]
    paid = received(ranked([star(capacity)], [capacity.sum() - golden["deficit"], *capacity * 0], division=rule,
                           priority=last_first))  # fmt: skip
    assert capacity - paid[1:] == pytest.approx(golden[rule], abs=1e-12)
    assert capacity - 1.02 * paid[1:] != pytest.approx(golden[rule], abs=1e-12)


def test_equal_losses_are_the_mirror_of_equal_payments():
    capacity, deficit = np.array([40.0, 25, 20, 10, 5]), 30
    paid = received(ranked([star(capacity)], [deficit, *capacity * 0], division="equal_loss"))[1:]
    assert paid == pytest.approx(GOLDEN["deleveraging"]["equal_payment"], abs=1e-12)


def deleveraging_disagrees(case):
    profits, order = np.array(case["profits"]), case["queue_order"]
    money = [profits.sum() - case["budget"], *profits * 0]
    served = np.zeros(len(profits) + 1)
    served[1:][order] = -np.arange(1, len(profits) + 1)
    found = {
        "queue_seized": profits - received(ranked([star(profits)], money, division="queue", priority=served))[1:],
        "prorata_seized": profits - received(ranked([star(profits)], money))[1:],
    }
    return [name for name, value in found.items() if np.abs(value - case[name]).max() > 1e-12]


def test_published_deleveraging():
    case = CASES["adl_queue_vs_prorata"]
    assert deleveraging_disagrees(case) == []
    changed = case | {name: (np.array(case[name]) * 1.02).tolist() for name in ("queue_seized", "prorata_seized")}
    assert deleveraging_disagrees(changed) == ["queue_seized", "prorata_seized"]


def waterfall(loss, capacity):
    """Layers one after the other: used = min(layer, remaining), a cumulative minimum."""
    upto = np.minimum(np.cumsum(capacity), loss)
    return np.diff(upto, prepend=0.0), loss - upto


def ccp_disagrees(case):
    """Layers in numpy; and as a network: who provides the first layer has the most junior claim on what is left."""
    capacity = [size for _, size in case["layers"]]
    used, remaining = waterfall(case["loss"], capacity)
    nodes = len(capacity) + 2  # the CCP, those it owes the loss, then the providers
    by_class = [np.zeros((nodes, nodes)) for _ in range(nodes - 1)]
    by_class[0][0, 1] = case["loss"]
    for layer, size in enumerate(capacity):
        by_class[-1 - layer][0, 2 + layer] = size
    given_back = received(ranked(by_class, [sum(capacity), *[0.0] * (nodes - 1)]))[2:]
    found = {"used": used, "remaining": remaining, "network": capacity - given_back}
    expected = {"used": case["used"], "remaining": case["remaining"], "network": case["used"]}
    return [name for name, value in found.items() if np.abs(value - expected[name]).max() > 1e-9]


def test_ccp_waterfall_is_a_cumulative_minimum_and_ranked_clearing_read_backwards():
    case = CASES["ccp_waterfall_och"]
    assert ccp_disagrees(case) == []
    changed = case | {name: (np.array(case[name]) * 1.02 + 1).tolist() for name in ("used", "remaining")}
    assert set(ccp_disagrees(changed)) == {"used", "remaining", "network"}


def test_end_of_the_waterfall_is_shared_by_survivors_and_cuts_gains_pro_rata():
    # Loss 5,000 of gains 3,000 and 2,000; layers 2,100, 380, 190 and funds of 900 and 550: 880 is not covered.
    gains, funds = np.array([3_000.0, 2_000]), np.array([900.0, 550])
    used, remaining = waterfall(5_000.0, [2_100, 380, 190, funds.sum()])
    by_class = [np.zeros((6, 6)) for _ in range(3)]
    by_class[0][0, 1:3], by_class[1][0, 3:5], by_class[2][0, 5] = gains, funds, 2_670
    result = ranked(by_class, [4_120, 0, 0, 0, 0, 0])
    assert received(result)[1:3] == pytest.approx(gains * (1 - remaining[-1] / gains.sum()))
    assert received(result)[3:] == pytest.approx([0, 0, 0])
    part = ranked([by_class[0] * 0.7, *by_class[1:]], [4_120, 0, 0, 0, 0, 0])  # a loss of 3,500 uses 830 of 1,450
    assert funds - received(part)[3:5] == pytest.approx(830 * funds / funds.sum())
    assert used.tolist() == [2_100, 380, 190, 1_450]


@needs_shared
def test_every_case_of_the_shared_reference():
    adl = json.loads((SHARED / "adl_queue_vs_prorata.json").read_text(encoding="utf-8"))
    told, expected = adl["inputs"], adl["expected"]
    winners = [number for number, profit in enumerate(told["pnl"]) if profit > 0]
    case = {"profits": [told["pnl"][one] for one in winners], "budget": expected["budget"]}
    case["queue_order"] = [one for one in told["queue_order"] if one in winners]
    case |= {name: [expected[name][one] for one in winners] for name in ("queue_seized", "prorata_seized")}
    assert deleveraging_disagrees(case) == []
    ccp = json.loads((SHARED / "ccp_waterfall_och.json").read_text(encoding="utf-8"))
    assert ccp_disagrees(ccp["inputs"] | ccp["expected"]) == []


def test_a_run_on_deposits_pays_who_comes_first():
    # 70 liquid for deposits of 60 and 40: in the order of arrival, or by shares when everybody waits.
    deposits = star([60, 40])
    first_come = {"division": "queue", "priority": [0, 2, 1]}
    assert received(ranked([deposits], [70, 0, 0], **first_come))[1:].tolist() == [30, 40]
    assert received(ranked([deposits], [70, 0, 0]))[1:] == pytest.approx([42, 28])


# ----------------------------------------------------------------------------------------------------- special cases


def random_network(seed, nodes=None, classes=None):
    random = np.random.default_rng(seed)
    nodes, classes = nodes or int(random.integers(2, 9)), classes or int(random.integers(1, 4))
    by_class = []
    for _ in range(classes):
        one = random.integers(1, 20, (nodes, nodes)) * (random.random((nodes, nodes)) < random.choice([0.15, 0.4, 0.8]))
        np.fill_diagonal(one, 0)
        by_class.append(one.astype(float))
    assets = random.integers(0, 15, nodes) * (random.random(nodes) > 0.3)
    external = random.integers(1, 8, nodes) * (random.random(nodes) < 0.4)
    return by_class, assets.astype(float), external.astype(float)


def assert_same(result, other):
    result.check()
    assert result.width <= 1e-10 or other.width > 1e-10
    np.testing.assert_allclose(result.payments, other.payments, rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(result.payments_external, other.payments_external, rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(result.net_worth, other.net_worth, rtol=1e-11, atol=1e-10)
    np.testing.assert_allclose(
        result.payment_matrix().toarray(), other.payment_matrix().toarray(), rtol=1e-11, atol=1e-11
    )
    assert result.defaulted.tolist() == other.defaulted.tolist()


COSTS = ((1.0, 1.0), (0.5, 0.5), (0.0, 0.75), (1.0, 0.25), (0.75, 0.0), (0.25, 0.9375))
FEW = range(10)
MANY = slow(*(range(10 + 50 * block, 60 + 50 * block) for block in range(4)))
seeds = pytest.mark.parametrize("seeds", [FEW, *MANY], ids=str)


@seeds
@both_ends
@pytest.mark.parametrize("rank", ["pari_passu", "senior"])
def test_one_class_is_rogers_veraart(rank, which, seeds):
    for seed in seeds:
        (owed,), assets, external = random_network(seed, classes=1)
        alpha, beta = COSTS[seed % len(COSTS)]
        options = {"alpha": alpha, "beta": beta, "which": which}
        result = ranked([owed], assets, external, external_class="senior" if rank == "senior" else 0, **options)
        assert_same(result, rogers_veraart(owed, assets, external, external_rank=rank, **options))


@seeds
@both_ends
@pytest.mark.parametrize("rank", ["pari_passu", "senior"])
def test_one_class_without_costs_is_eisenberg_noe(rank, which, seeds):
    for seed in seeds:
        (owed,), assets, external = random_network(1_000 + seed, classes=1)
        result = ranked([owed], assets, external, external_class="senior" if rank == "senior" else -1, which=which)
        assert_same(result, eisenberg_noe(owed, assets, external, external_rank=rank, which=which))


@seeds
@both_ends
@pytest.mark.parametrize("place", PLACES)
def test_classes_without_costs_are_elsinger(place, which, seeds):
    for seed in seeds:
        by_class, assets, external = random_network(2_000 + seed)
        result = ranked(by_class, assets, external, external_class=place, which=which)
        other = elsinger(by_class, assets, None, external, external_class=place, which=which)
        assert_same(result, other)
        for one, two in zip(result.payments_by_class, other.payments_by_class, strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("rule", RULES)
def test_one_creditor_is_paid_the_same_by_every_rule(rule):
    chain = np.diag([10.0, 8, 6], 1)
    result = ranked([chain], [4, 1, 1, 0], alpha=0.5, beta=0.75, division=rule)
    assert result.payments == pytest.approx([2, 2, 2, 0])


@both_ends
def test_a_queue_is_as_many_classes_as_there_are_creditors(which):
    for seed in range(8):
        (owed,), assets, _ = random_network(300 + seed, nodes=5, classes=1)
        columns = [owed * (np.arange(5) == one) for one in range(5)]
        costs = dict(zip(("alpha", "beta"), COSTS[seed % len(COSTS)], strict=True))
        queue = ranked([owed], assets, division="queue", which=which, **costs)
        assert_same(queue, ranked(columns, assets, which=which, **costs))
        backwards = ranked([owed], assets, division="queue", priority=-np.arange(5), which=which, **costs)
        assert_same(backwards, ranked(columns[::-1], assets, which=which, **costs))


# -------------------------------------------------------------------------------------------------- all default sets


def equal_parts(claims, total):
    """Take the same from everybody, or all of a smaller claim."""
    parts, left = [0.0] * len(claims), total
    order = sorted(range(len(claims)), key=lambda one: claims[one])
    for at, one in enumerate(order):
        parts[one] = min(claims[one], left / (len(claims) - at))
        left -= parts[one]
    return parts


def divide(rule, claims, total, places):
    """Divide a payment among the claims of one debtor, one rule after the other."""
    due = sum(claims)
    if rule == "pro_rata":
        return [total * claim / due if due else 0.0 for claim in claims]
    if rule == "equal_payment":
        return equal_parts(claims, total)
    if rule == "equal_loss":
        return [claim - part for claim, part in zip(claims, equal_parts(claims, due - total), strict=True)]
    paid = [0.0] * len(claims)
    for one in sorted(range(len(claims)), key=lambda one: (places[one], one)):
        paid[one] = min(claims[one], total)
        total -= paid[one]
    return paid


def pays_of_class(amounts, rules, places, money):
    """Pay the classes of one debtor, the outside the last column, out of ``money``."""
    paid = [0.0] * len(amounts[0])
    for rule, claims in zip(rules, amounts, strict=True):
        total = min(sum(claims), money)
        money -= total
        for one, part in enumerate(divide(rule, claims, total, places)):
            paid[one] += part
    return paid


def rows_of(by_class, external, place):
    """Amounts owed by each node in each class, the outside as the last column."""
    nodes = len(external)
    classes = [np.zeros((nodes, nodes)), *by_class] if place == "senior" else by_class
    number = 0 if place == "senior" else place % len(classes)
    outside = [external if at == number else np.zeros(nodes) for at in range(len(classes))]
    return [[[*one[i], other[i]] for one, other in zip(classes, outside, strict=True)] for i in range(nodes)]


def all_vectors(by_class, assets, external, alpha, beta, rules, place, priority=None):
    """Receipts of the extreme clearing vectors of every default set that confirms itself."""
    nodes = len(assets)
    rows = rows_of(by_class, external, place)
    rules = ["pro_rata", *rules] if place == "senior" else rules
    places = [*(priority if priority is not None else [0] * nodes), np.inf]
    dues = [sum(map(sum, row)) for row in rows]

    def after(got, failed):
        new = [0.0] * nodes
        for i in range(nodes):
            money = alpha * assets[i] + beta * got[i] if i in failed else dues[i]
            for j, part in enumerate(pays_of_class(rows[i], rules, places, money)[:-1]):
                new[j] += part
        return new

    found = []
    owing = [i for i in range(nodes) if dues[i] > 0]
    for size in range(len(owing) + 1):
        for failed in itertools.combinations(owing, size):
            for start in (after(None, ()), [0.0] * nodes):
                got = start
                for _ in range(3000):
                    got, before = after(got, failed), got
                    if max(abs(one - two) for one, two in zip(got, before, strict=True)) < 1e-15:
                        break
                short = {i for i in owing if assets[i] + got[i] < dues[i] - 1e-9}
                if short == set(failed):
                    found.append(got)
    return np.array(found)


def check_against_all_vectors(seed, nodes=4):
    by_class, assets, external = random_network(seed, nodes)
    random = np.random.default_rng(seed)
    rules = random.choice(RULES, len(by_class)).tolist()
    alpha, beta = COSTS[int(random.integers(len(COSTS)))]
    priority = random.permutation(nodes) if random.random() < 0.5 else None
    place = PLACES[int(random.integers(3))]
    vectors = all_vectors(by_class, assets, external, alpha, beta, rules, place, priority)
    for which in EXTREMES:
        result = ranked(by_class, assets, external, alpha=alpha, beta=beta, division=rules, priority=priority,
                        external_class=place, which=which)  # fmt: skip
        result.check()
        expected = vectors.max(axis=0) if which == "greatest" else vectors.min(axis=0)
        np.testing.assert_allclose(received(result), expected, rtol=0, atol=1e-8, err_msg=f"{seed} {which}")
        assert any(np.allclose(received(result), one, rtol=0, atol=1e-8) for one in vectors)
        assert (result.lower <= result.payments * (1 + 1e-15)).all()
        assert (result.payments <= result.upper * (1 + 1e-15)).all()
        assert result.width <= 1e-10 or any("uncertified" in one for one in result.assumptions)
        assert result.enclosure == "bracket"
    return len(vectors) > 1 and np.ptp(vectors, axis=0).max() > 1e-6


def test_greatest_and_least_of_all_vectors():
    assert sum(check_against_all_vectors(seed) for seed in range(10)) >= 1


@pytest.mark.slow
@pytest.mark.parametrize("block", range(4))
def test_greatest_and_least_of_all_vectors_of_many_networks(block):
    seeds = range(1_000 + 100 * block, 1_100 + 100 * block)
    assert sum(check_against_all_vectors(seed, 4 + seed % 2) for seed in seeds) >= 5


# ---------------------------------------------------------------------------------------------------------- divisions


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_divides_everything_monotonously_as_its_plain_twin(rule):
    for seed in range(30):
        (owed,), _, external = random_network(400 + seed, classes=1)
        claims = claims_of(scipy.sparse.csr_array(owed), external)
        priority = np.random.default_rng(seed).integers(0, 3, len(external) + 1)
        division = division_of(rule, claims, priority[claims.creditor].astype(float))
        given_claims, previous = division.claims, np.zeros(len(claims.amount))
        for share in np.linspace(0, 1, 9):
            paid = division.paid(share * claims.due)
            assert (paid >= previous - 1e-12).all()
            assert (paid <= given_claims.amount * (1 + 1e-15)).all()
            for i in range(len(external)):
                mine = given_claims.debtor == i
                amounts = given_claims.amount[mine].tolist()
                told = divide(rule, amounts, share * claims.due[i], [0] * len(amounts))
                np.testing.assert_allclose(paid[mine], told, rtol=1e-12, atol=1e-12)
            previous = paid
        np.testing.assert_array_equal(division.paid(claims.due), given_claims.amount)


@pytest.mark.parametrize("direction", [1.0, -1.0])
@pytest.mark.parametrize("rule", RULES)
def test_the_next_unit_is_divided_as_said(rule, direction):
    for seed in range(30):
        (owed,), _, external = random_network(500 + seed, classes=1)
        claims = claims_of(scipy.sparse.csr_array(owed), external)
        division = division_of(rule, claims, np.zeros(len(claims.amount)))
        debtor = division.claims.debtor
        for share in (0.0, 0.25, 0.5, 0.9, 1.0):
            total = np.floor(share * claims.due)  # often where a piece ends
            shares, room = division.next_unit(total, direction)
            ahead = (claims.due > 0) & ((total < claims.due) if direction > 0 else (total > 0))
            assert (room[ahead] > 0).all()
            assert (np.bincount(debtor, shares, len(total)) <= 1 + 1e-12).all()
            step = np.where(ahead, room, 0.0)
            for part in (0.3, 1.0):
                there = division.paid(total + direction * part * step)
                expected = division.paid(total) + direction * part * shares * step[debtor]
                np.testing.assert_allclose(there, expected, rtol=1e-11, atol=1e-11)


# --------------------------------------------------------------------------------------------------------------- laws


amounts = st.one_of(st.just(0.0), st.integers(1, 64).map(lambda quarter: quarter / 4))
common = settings(max_examples=15, deadline=None, derandomize=True)
shares = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])
places_of = st.sampled_from(PLACES)
extremes = st.sampled_from(EXTREMES)


@st.composite
def problems(draw):
    """Network and options."""
    nodes = draw(st.integers(1, 5))

    def numbers(entries, size=nodes):
        return np.array(draw(st.lists(entries, min_size=size, max_size=size)), dtype=float)

    by_class = [numbers(amounts, nodes * nodes).reshape(nodes, nodes) for _ in range(draw(st.integers(1, 3)))]
    for one in by_class:
        np.fill_diagonal(one, 0)
    rules = [draw(st.sampled_from(RULES)) for _ in by_class]
    options = {"alpha": numbers(shares), "beta": numbers(shares), "division": rules}
    options |= {"external_class": draw(places_of), "which": draw(extremes), "priority": np.arange(nodes)[::-1]}
    return (by_class, numbers(amounts), numbers(amounts)), options


@given(problems())
@common
def test_liability_is_limited_and_default_costs_bear_what_is_not_conserved(problem):
    (by_class, assets, external), options = problem
    result = ranked(by_class, assets, external, **options)
    result.check()
    scale = 1e-9 * (1 + result.dues.sum() + assets.sum())
    has = assets + received(result)
    assert (result.payments <= has + scale).all()
    np.testing.assert_allclose(result.net_worth, has - result.dues, rtol=0, atol=scale)
    assert (result.default_costs >= -scale).all()
    bearers = result.equity.sum() + result.payments_external.sum() + result.default_costs.sum()
    assert abs(bearers - assets.sum()) <= scale
    estate = options["alpha"] * assets + options["beta"] * received(result)
    failed = result.defaulted
    np.testing.assert_allclose(result.payments[failed], np.minimum(estate, result.dues)[failed], rtol=0, atol=scale)
    np.testing.assert_allclose(sum(result.payments_by_class), result.payments_internal, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(result.payment_matrix().sum(axis=1), result.payments_internal, rtol=1e-9, atol=1e-9)


def test_value_is_not_conserved_without_default_costs_as_a_bearer():
    result = ranked([star([8, 4])], [6, 0, 0], alpha=0.5, division="queue")
    assert result.equity.tolist() == [0, 3, 0]
    assert result.equity.sum() + result.payments_external.sum() < 6
    assert result.default_costs.tolist() == [3, 0, 0]


@given(problems())
@common
def test_a_junior_class_gets_nothing_before_the_senior_ones_are_paid(problem):
    network, options = problem
    result = ranked(*network, **options)
    rates = [
        paid / np.where(owed.sum(axis=1) > 0, owed.sum(axis=1), np.nan)
        for paid, owed in zip(result.payments_by_class, network[0], strict=True)
    ]
    for number, senior in enumerate(rates):
        for junior in rates[number + 1 :]:
            assert (np.nan_to_num(junior)[senior < 1 - 1e-9] <= 1e-9).all()


@given(problems(), st.integers(0, 5), st.sampled_from([0.25, 3.0, 50.0]), st.sampled_from(["assets", "alpha", "beta"]))
@common
def test_payments_and_net_worth_rise_with_assets_and_fall_with_costs(problem, node, more, what):
    (by_class, assets, external), options = problem
    richer, cheaper = assets.copy(), dict(options)
    if what == "assets":
        richer[node % len(assets)] += more
    else:
        cheaper[what] = np.minimum(options[what] + more / 50, 1.0)
    before, after = ranked(by_class, assets, external, **options), ranked(by_class, richer, external, **cheaper)
    assert (after.payments >= before.payments - 1e-8).all()
    assert (after.net_worth >= before.net_worth - 1e-8).all()


def test_payments_jump_with_external_assets():
    chain, options = np.diag([10.0, 8], 1), {"alpha": 0.5, "beta": 0.5, "division": "queue"}
    just, below = (ranked([chain], [10 - less, 0, 0], **options) for less in (0.0, 1e-6))
    assert just.payments.tolist() == [10, 8, 0]
    assert below.payments == pytest.approx([5, 2.5, 0], abs=1e-5)


def test_payments_are_not_concave_in_the_assets():
    middle, ends = (ranked([[[0, 10], [0, 0]]], [has, 0], alpha=0.5).payments[0] for has in (9.0, [8.0, 10.0][1]))
    low = ranked([[[0, 10], [0, 0]]], [8, 0], alpha=0.5).payments[0]
    assert middle < (low + ends) / 2


@given(problems())
@common
def test_greatest_is_not_less_than_least(problem):
    network, options = problem
    low, high = (ranked(*network, **options | {"which": which}) for which in ("least", "greatest"))
    assert (high.payments >= low.payments - 1e-8).all()
    for result in (low, high):
        assert (result.lower <= result.payments * (1 + 1e-15)).all()
        assert (result.payments <= result.upper * (1 + 1e-15)).all()


@given(problems())
@common
def test_without_default_costs_equities_are_the_same_in_all_solutions(problem):
    network, options = problem
    free = options | {"alpha": 1.0, "beta": 1.0}
    low, high = (ranked(*network, **free | {"which": which}) for which in EXTREMES)
    np.testing.assert_allclose(high.equity, low.equity, rtol=1e-8, atol=1e-7)
    np.testing.assert_allclose(high.payments_external, low.payments_external, rtol=1e-8, atol=1e-7)


def test_a_queue_may_pay_itself_or_not_though_everybody_has_assets():
    # Each has the 1 that it owes node 2 first, and owes the other 10 after that. Pro rata there is one solution.
    owed = np.array([[0, 10.0, 1.0], [10.0, 0, 1.0], [0, 0, 0]])
    options = {"division": "queue", "priority": [1, 1, 0]}
    greatest, least = (ranked([owed], [1, 1, 1], which=which, **options) for which in EXTREMES)
    assert greatest.payments == pytest.approx([11, 11, 0])
    assert least.payments == pytest.approx([1, 1, 0])
    assert greatest.equity == pytest.approx(least.equity, abs=1e-9)
    plain = [ranked([owed], [1, 1, 1], which=which).payments for which in EXTREMES]
    np.testing.assert_allclose(plain[0], plain[1], rtol=1e-12)


@given(problems(), st.randoms(use_true_random=False))
@common
def test_names_of_nodes_do_not_matter_when_queues_do_not_go_by_them(problem, random):
    (by_class, assets, external), options = problem
    order = list(range(len(assets)))
    random.shuffle(order)
    turned = np.ix_(order, order)
    moved = {name: options[name][order] for name in ("alpha", "beta", "priority")}
    plain = ranked(by_class, assets, external, **options)
    shuffled = ranked([one[turned] for one in by_class], assets[order], external[order], **options | moved)
    np.testing.assert_allclose(shuffled.payments, plain.payments[order], rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(shuffled.net_worth, plain.net_worth[order], rtol=1e-8, atol=1e-7)


def test_queues_go_by_columns_where_no_priority_is_given():
    first = received(ranked([star([8, 4])], [6, 0, 0], division="queue"))
    turned = received(ranked([star([4, 8])], [6, 0, 0], division="queue"))
    assert first.tolist() == [0, 6, 0]
    assert turned.tolist() == [0, 4, 2]


@given(problems(), st.sampled_from([1e-12, 1e-6, 7.0, 1e6, 1e12]))
@common
def test_the_unit_of_money_does_not_matter(problem, unit):
    (by_class, assets, external), options = problem
    plain = ranked(by_class, assets, external, **options)
    scaled = ranked([unit * one for one in by_class], unit * assets, unit * external, **options)
    np.testing.assert_allclose(scaled.payments / unit, plain.payments, rtol=1e-8, atol=1e-8)
    assert scaled.defaulted.tolist() == plain.defaulted.tolist()


@given(problems())
@common
def test_each_debtor_divides_by_its_rule(problem):
    (by_class, _, _), options = problem
    result = ranked(*problem[0], **options)
    told = [np.zeros_like(by_class[0]) for _ in by_class]
    for matrix, owed, rule, paid in zip(told, by_class, options["division"], result.payments_by_class, strict=True):
        for i, row in enumerate(owed.tolist()):
            matrix[i] = divide(rule, row, float(paid[i]), options["priority"].tolist())
    np.testing.assert_allclose(result.payment_matrix().toarray(), sum(told), rtol=1e-9, atol=1e-9)


# ---------------------------------------------------------------------------------- jumps, knife edges, certificates


def test_the_iteration_from_below_starts_again_where_its_limit_does_not_clear():
    paid = 0.0
    for _ in range(50):  # a plain iteration stalls at 0.5, out of which 0.5 + 0.5 pays the due of 1
        paid = 0.25 + 0.5 * paid
        assert paid <= 0.5
    result = ranked([[[0, 1], [1, 0]]], [0.5, 0.5], alpha=0.5, beta=0.5, which="least")
    assert result.payments == pytest.approx([1, 1], abs=1e-12)
    assert result.iterations < 10


@pytest.mark.parametrize("rule", ["pro_rata", "queue", "equal_loss"])
def test_restarts_follow_one_another(rule):
    # Pairs that stall like the one above, each of which needs what the one before pays when it is back.
    pairs, size = 5, 10
    owed, assets = np.zeros((size, size)), np.full(size, 0.5)
    for pair in range(pairs):
        one, other = 2 * pair, 2 * pair + 1
        owed[one, other] = owed[other, one] = 1.0
        if pair:
            assets[one] -= 0.5
            owed[one - 2, one], assets[one - 2] = 0.5, assets[one - 2] + 0.5
    result = ranked([owed], assets, alpha=0.5, beta=0.5, division=rule, which="least")
    assert not result.defaulted.any()
    assert result.payments == pytest.approx(owed.sum(axis=1))


@both_ends
@pytest.mark.parametrize("rule", RULES)
def test_knife_edge_is_solvent_though_a_default_would_cost(rule, which):
    thirds = np.array([[0, 0.1, 0.2], [0, 0, 0.3], [0, 0, 0]])
    options = {"alpha": 0.1, "beta": 0.1, "which": which, "division": rule}
    result = ranked([thirds], [0.3, 0.2, 0.0], [0.0, 0.0, 0.2 + 0.3], **options)
    assert thirds.sum(axis=1)[0] > 0.3  # by rounding alone
    assert not result.defaulted.any()
    below = ranked([thirds], [0.3 * (1 - 1e-11), 0.2, 0.0], [0.0, 0.0, 0.5], **options)
    assert below.defaulted.tolist() == [True, True, True]


@both_ends
@pytest.mark.parametrize("rule", RULES)
def test_a_circle_that_hardly_leaks_is_solved_in_few_rounds(rule, which):
    # A plain iteration adds or takes 1e-7 a turn: ten million rounds.
    circle = [[0, 1.0, 0], [0, 0, 1.0], [1.0, 0, 0]]
    drained = ranked([circle], [0, 0, 0], [1e-7, 0, 0], division=rule, which=which, external_class="senior")
    assert drained.payments == pytest.approx([0, 0, 0], abs=1e-12)
    filled = ranked([circle], [1e-7, 0, 0], division=rule, which=which)
    assert filled.payments == pytest.approx([1, 1, 1])
    assert max(drained.iterations, filled.iterations) < 60
    assert max(drained.width, filled.width) <= 1e-10


@both_ends
@pytest.mark.parametrize("guess", [0.0, 0.5, 1.5, 4.0, 10.0])
def test_bounds_do_not_trust_what_they_are_given(guess, which):
    stakes, places = _ranked_costs._input([[[0, 10], [10, 0]]], [1, 1], None, None)
    divisions = _ranked_costs._divisions(stakes, places, ("pro_rata",), 0)
    system = _costly_ranks.CostlyRanks(_costly_ranks.debt_of(divisions, *np.full((2, 2), 0.6)), stakes.assets)
    lower, upper = _costly_ranks.bounds_of(system, np.full(2, guess), greatest=which == "greatest")
    answer = 10.0 if which == "greatest" else 1.5
    assert (lower <= answer).all()
    assert (upper >= answer).all()


def test_bounds_do_not_trust_jumps(monkeypatch):
    networks = [random_network(seed, 5) for seed in range(10)]
    options = {"alpha": 0.5, "beta": 0.5, "strict": False}
    right = {which: [ranked(*one, which=which, **options) for one in networks] for which in EXTREMES}
    monkeypatch.setattr(_costly_ranks, "_change", lambda piece, first: np.minimum(10 * first + 1, piece.room))
    misled = 0
    for which in EXTREMES:
        for network, result in zip(networks, right[which], strict=True):
            wrong = ranked(*network, which=which, **options)
            assert (wrong.lower <= result.payments * (1 + 1e-12)).all()
            assert (wrong.upper >= result.payments * (1 - 1e-12)).all()
            misled += not np.allclose(wrong.payments, result.payments)
    assert misled


# ------------------------------------------------------------------------------------------- endings, shapes, labels


def slow_network():
    """A circle where every default spreads slowly."""
    nodes = 12
    owed = np.diag(np.full(nodes - 1, 10.0), 1)
    owed[-1, 0] = 10
    return [owed], np.linspace(0.1, 9.5, nodes), np.full(nodes, 2.0)


@both_ends
def test_too_few_rounds_raise_with_the_result(which):
    network, options = slow_network(), {"alpha": 0.9, "beta": 0.95, "which": which, "max_rounds": 2}
    with pytest.raises(NotSettledError, match="MAX_ROUNDS") as caught:
        ranked(*network, **options)
    assert caught.value.result.status is Status.MAX_ROUNDS
    assert caught.value.result.iterations == 2
    left = ranked(*network, **options, strict=False)
    full = ranked(*network, **options | {"max_rounds": 10_000})
    assert (left.lower <= full.payments * (1 + 1e-12)).all()
    assert (full.payments <= left.upper * (1 + 1e-12)).all()


def test_a_tolerance_below_rounding_stalls():
    stalled = 0
    for seed in range(6):
        by_class, assets, external = random_network(seed, 8, 2)
        network = [one / 3 for one in by_class], assets / 7, external / 3
        options = {"alpha": 0.3, "beta": 0.7}
        assert ranked(*network, **options, rtol=1e-12).status is Status.SETTLED
        result = ranked(*network, **options, rtol=1e-300, strict=False)
        assert result.residual < 1e-14
        if result.status is Status.STALLED:
            stalled += 1
            with pytest.raises(NotSettledError, match="STALLED"):
                ranked(*network, **options, rtol=1e-300)
        assert (result.status is Status.SETTLED) == (result.residual == 0)
    assert stalled


@both_ends
@pytest.mark.parametrize("place", PLACES)
def test_scenarios_are_solved_as_if_alone(place, which):
    by_class, assets, external = random_network(4, 8, 2)
    scenarios = np.column_stack([assets, assets * 0.5, assets * 0.0, assets + 20])
    options = {"alpha": 0.5, "beta": 0.75, "division": ["queue", "equal_loss"], "which": which, "external_class": place}
    together = ranked(by_class, scenarios, external, **options)
    together.check()
    assert together.payments.shape == together.default_costs.shape == (8, 4)
    for column, alone in enumerate(scenarios.T):
        result = ranked(by_class, alone, external, **options)
        assert together.payments[:, column].tolist() == result.payments.tolist()
        assert together.net_worth[:, column].tolist() == result.net_worth.tolist()
        np.testing.assert_array_equal(together.payment_matrix(column).toarray(), result.payment_matrix().toarray())
        for one, two in zip(together.payments_by_class, result.payments_by_class, strict=True):
            assert one[:, column].tolist() == two.tolist()
    empty = ranked(by_class, np.zeros((8, 0)), external, **options)
    assert empty.payments.shape == empty.payments_by_class[0].shape == (8, 0)


@both_ends
@pytest.mark.parametrize("rule", RULES)
def test_edges(rule, which):
    options = {"which": which, "division": rule, "alpha": 0.5, "beta": 0.5}
    assert ranked([np.zeros((0, 0))], [], **options).payments.shape == (0,)
    nothing = ranked([np.zeros((3, 3))] * 2, [1, 0, 2], **options)
    assert nothing.recovery_rate.tolist() == [1, 1, 1]
    assert nothing.equity.tolist() == [1, 0, 2]
    poor = ranked([[[0, 2, 1], [2, 0, 0], [0, 0, 0]]], [0, 0, 0], [0, 0, 1], **options)
    assert poor.payments == pytest.approx([0, 0, 0], abs=1e-12)
    sole = ranked([[[0.0]]], [3.0], [4.0], **options)
    assert sole.payments_external.tolist() == [1.5]


def test_costs_of_each_node_and_of_all():
    owed, assets = [np.diag([10.0, 10.0], 1)], [8.0, 1.0, 0.0]
    each = ranked(owed, assets, alpha=[0.5, 0.25, 0], beta=[1, 0.5, 0])
    assert each.payments.tolist() == [4, 2.25, 0]
    assert ranked(owed, assets, alpha=0.5, beta=0.5).payments.tolist() == [4, 2.5, 0]


def test_external_creditors_are_last_in_a_queue_and_one_claim_of_the_other_rules():
    network = [star([6, 2])], [7, 0, 0], [8, 0, 0]
    found = {rule: ranked(*network, division=rule) for rule in RULES}
    assert {rule: one.payments_external[0] for rule, one in found.items()} == pytest.approx(
        {"pro_rata": 3.5, "queue": 0.0, "equal_loss": 4.5, "equal_payment": 2.5}
    )
    assert received(found["equal_payment"])[1:].tolist() == [2.5, 2]
    with_priority = ranked(*network, division="queue", priority=[0, 99, 98])
    assert with_priority.payments_external[0] == 0
    assert received(with_priority)[1:].tolist() == [5, 2]


@pytest.mark.parametrize("form", [np.array, scipy.sparse.csr_array, pd.DataFrame])
def test_each_debtor_may_have_a_queue_of_its_own(form):
    owed = np.array([[0, 0, 5, 5], [0, 0, 5, 5], [0, 0, 0, 0], [0, 0, 0, 0]], dtype=float)
    places = np.zeros((4, 4))
    places[0, 2] = 1
    result = ranked([owed], [6, 6, 0, 0], division="queue", priority=form(places))
    assert result.payment_matrix().toarray()[:2, 2:].tolist() == [[1, 5], [5, 1]]


def test_labels_and_words():
    names = ["b", "a", "c"]
    owed = pd.DataFrame([[0, 6, 4], [0, 0, 0], [0, 0, 0]], index=names, columns=names)
    junior = pd.DataFrame([[0, 3, 0], [0, 0, 0], [0, 0, 0]], index=["a", "c", "b"], columns=["a", "c", "b"])
    result = ranked(
        [owed, junior],
        pd.Series({"a": 0.0, "c": 2.0, "b": 8.0}),
        alpha=pd.Series({"a": 1.0, "b": 0.5, "c": 1.0}),
        division=["queue", "pro_rata"],
        priority=pd.Series({"c": 0, "a": 1, "b": 2}),
    )
    assert result.payments.index.tolist() == names
    assert result.payments["b"] == 4
    assert received(result).tolist() == [0, 0, 4]
    assert isinstance(result.payments_by_class[1], pd.Series)
    assert "a" in junior.index
    text = repr(result)
    assert "ranked, greatest vector" in text
    assert "0.5 to 1 of its external assets and 1 of its receipts" in text
    assert "queue, pro_rata" in text
    assert "no external liabilities were given" in text


def test_the_check_sees_classes_and_their_division():
    by_class, assets, external = random_network(6, 6, 2)
    result = ranked(by_class, assets, external, division="equal_loss", which="least")
    result.check()
    for change in ({"payments": result.classes.payments[::-1]}, {"divisions": result.classes.divisions[::-1]}):
        wrong = dataclasses.replace(result, classes=dataclasses.replace(result.classes, **change))
        with pytest.raises(ContagionError, match="ranked"):
            wrong.check()
    with pytest.raises(ValueError, match="read-only"):
        result.payments[0] = 1


# ---------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "wrong",
    [
        {"which": "largest"},
        {"division": "fifo"},
        {"division": ["queue", "lottery"]},
        {"division": ["queue"]},
        {"external_class": 2},
        {"external_class": "junior"},
        {"rtol": 0},
        {"max_rounds": 0},
        {"alpha": 1.5},
        {"beta": [0.5, -0.25]},
        {"alpha": [0.5, 0.5, 0.5]},
        {"beta": float("nan")},
    ],
)
def test_options_that_mean_nothing_are_refused(wrong):
    name = next(iter(wrong))
    with pytest.raises(ValueError, match=name) as caught:
        ranked([[[0, 1], [0, 0]]] * 2, [1, 1], **wrong)
    assert not isinstance(caught.value, SchemaError)


def test_everything_wrong_with_the_numbers_is_said_at_once():
    with pytest.raises(SchemaError) as caught:
        ranked([[[1, -1], [np.nan, 0]], [[0, 1], [0, -2]]], [1, -1, 2], [np.inf, 0], priority=[np.nan, 1])
    tables = {problem.table for problem in caught.value.problems}
    assert len(caught.value.problems) >= 7
    assert {"liabilities_by_class[0]", "liabilities_by_class[1]", "external_assets", "priority"} <= tables
    for problem in caught.value.problems:
        assert problem.cure


@pytest.mark.parametrize(
    ("given_classes", "options", "match"),
    [
        ([[0, 1], [0, 0]], {}, "sequence of"),
        ([], {}, "no class"),
        ([np.zeros((2, 2)), np.zeros((3, 3))], {}, "sizes"),
        ([np.zeros((2, 2))], {"priority": [1, 2, 3]}, "priority"),
        ([np.zeros((2, 2))], {"priority": ["a", "b"]}, "priority"),
        ([np.zeros((2, 2))], {"priority": 1}, "priority"),
        ([np.zeros((2, 2))], {"priority": np.zeros((2, 2, 2))}, "priority"),
        ([np.zeros((2, 2))], {"priority": scipy.sparse.csr_array(np.full((2, 2), np.inf))}, "priority"),
        ([pd.DataFrame(np.zeros((2, 2)))], {"priority": pd.Series([1, 2], index=["x", "y"])}, "labels"),
    ],
)
def test_input_of_the_wrong_form_is_refused(given_classes, options, match):
    with pytest.raises(SchemaError, match=match):
        ranked(given_classes, [1, 1], **options)


def test_sums_that_overflow_are_refused():
    with pytest.raises(SchemaError, match="overflow"):
        ranked([[[0, 1.7e308], [0, 0]]], [1.7e308, 1.7e308], alpha=0.5)


# --------------------------------------------------------------------------------------------------------------- size


def big_network(nodes, degree, seed=0):
    random = np.random.default_rng(seed)
    classes = []
    for _ in range(3):
        debtor, creditor = random.integers(0, nodes, (2, nodes * degree))
        keep = debtor != creditor
        amount = random.lognormal(size=int(keep.sum()))
        classes.append(scipy.sparse.coo_array((amount, (debtor[keep], creditor[keep])), shape=(nodes, nodes)).tocsr())
    dues = sum(one.sum(axis=1) for one in classes)
    claims = sum(one.sum(axis=0) for one in classes)
    return classes, np.maximum(dues - claims, 0) * 0.7 + random.random(nodes), 0.2 * dues


@pytest.mark.slow
@both_ends
def test_a_network_of_thousands_is_certified(which):
    network = big_network(20_000, 4)
    result = ranked(*network, alpha=0.8, beta=0.9, division=["pro_rata", "queue", "equal_loss"], which=which)
    result.check()
    assert 0.1 < result.defaulted.mean() < 1
    assert result.width <= 1e-10
