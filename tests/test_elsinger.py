"""Elsinger and Suzuki clearing: published numbers, other software, plain twins, laws, edges, bad input."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from netcontagion._status import Status
from netcontagion.clearing import _ranked, eisenberg_noe, elsinger, suzuki
from netcontagion.errors import ContagionError, NotSettledError, SchemaError

HERE = Path(__file__).resolve()
FIXTURE = json.loads((HERE.parent / "references" / "elsinger.json").read_text(encoding="utf-8"))
NETWORKS = json.loads((HERE.parent / "references" / "eisenberg_noe.json").read_text(encoding="utf-8"))["oracles"]
SHARED = HERE.parents[2] / "shared" / "reference"
EXTREMES = ("greatest", "least")
COLUMNS = ("pay_senior_external", "pay_junior_interbank", "equity")

needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the folder shared/reference is not beside the checkout")


# ------------------------------------------------------------------------------------------------- published numbers


def disagreements(case, which):
    """Names of the expected numbers that are not met; the source has what is held in rows."""
    given = case["inputs"]
    held = np.array(given["equity_holdings"]).T
    result = elsinger(given["liabilities_by_seniority"], given["external_assets"], held, which=which)
    result.check()
    found = {"signed_equity_after": result.net_worth, "default_after": result.defaulted.astype(float)}
    tolerance = case["tolerance"]["abs"]
    return [name for name, value in case["expected"].items() if np.abs(found[name] - value).max() > tolerance]


@pytest.mark.parametrize("which", EXTREMES)
@pytest.mark.parametrize("case", FIXTURE["cases"], ids=lambda case: case["name"])
def test_case(case, which):
    assert disagreements(case, which) == []
    for factor in (0.98, 1.02):
        changed = {name: (np.array(value) * factor).tolist() for name, value in case["expected"].items()}
        assert set(disagreements({**case, "expected": changed}, which)) == set(changed)


def test_the_case_pays_its_classes_one_after_the_other_and_tells_the_orientation_of_holdings():
    given = FIXTURE["cases"][0]["inputs"]
    held, network = np.array(given["equity_holdings"]), (given["liabilities_by_seniority"], given["external_assets"])
    senior, junior = elsinger(*network, held.T).payments_by_class
    assert senior == pytest.approx([25, 45, 10])
    assert junior == pytest.approx([0, 65 / 3, 10])
    turned = elsinger(*network, held)
    assert np.abs(turned.net_worth - FIXTURE["cases"][0]["expected"]["signed_equity_after"]).max() > 1


def oracle_network(network):
    debtor, creditor, amount = zip(*network["edges"], strict=True)
    liabilities = scipy.sparse.coo_array((amount, (debtor, creditor)), shape=(20, 20))
    return liabilities, np.array(network["external_assets"]), np.array(network["external_liabilities"])


def assert_senior_outside(liabilities, assets, external, inside, columns=None):
    for which in EXTREMES:
        result = elsinger([liabilities], assets, None, external, external_class="senior", which=which)
        result.check()
        found = {"payments_internal": (result.payments_internal, inside)}
        if columns is not None:
            values = result.payments_external, result.payments_internal, result.net_worth
            found |= {name: (value, columns[name]) for name, value in zip(COLUMNS, values, strict=True)}
        for name, (value, told) in found.items():
            expected = np.asarray(told)
            assert np.abs(value - expected).max() <= 1e-10 * np.abs(expected).max(), name
            assert np.abs(value - expected * 1.02).max() > 1e-10 * np.abs(expected).max(), name
        assert result.external_rank == "senior"
        assert result.width <= 1e-10


@pytest.mark.parametrize("network", NETWORKS, ids=lambda one: one["network"])
def test_oracle_with_external_debt_before_everybody(network):
    told = FIXTURE["oracles"][network["network"]]
    assert_senior_outside(*oracle_network(network), told["neva_en_senior"], told.get("networkvaluation_elsinger"))


@needs_shared
@pytest.mark.parametrize("network", ["mild_n20", "stress_n20", "mild_n100", "stress_n100"])
def test_every_oracle_of_the_shared_reference(network):
    def column(path, name):
        with path.open(encoding="utf-8", newline="") as file:
            return np.array([float(row[name]) for row in csv.DictReader(file)])

    inputs, outputs = SHARED / "oracles" / "inputs", SHARED / "oracles" / "outputs"
    edges, nodes = inputs / f"{network}_edges.csv", inputs / f"{network}_nodes.csv"
    assets, external = column(nodes, "ea_shocked"), column(nodes, "el")
    places = column(edges, "debtor").astype(int), column(edges, "creditor").astype(int)
    liabilities = scipy.sparse.coo_array((column(edges, "amount"), places), shape=(len(assets), len(assets)))
    inside = column(outputs / f"neva_en_senior_{network}.csv", "payment_interbank")
    told = outputs / f"networkvaluation_elsinger_{network}.csv"
    columns = {name: column(told, name) for name in COLUMNS} if told.exists() else None
    assert (columns is None) == network.startswith("stress")
    assert_senior_outside(liabilities, assets, external, inside, columns)


@needs_shared
def test_every_case_of_the_shared_reference():
    files = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((SHARED / "cases").glob("*.json"))]
    cases = [case for case in files if case["model"] == "elsinger"]
    assert len(cases) >= len(FIXTURE["cases"])
    assert not {case["name"]: disagreements(case, "greatest") for case in cases if disagreements(case, "greatest")}


# -------------------------------------------------------------------------------------- mistakes made by other software


def test_junior_receipts_that_cross_into_the_senior_class_are_not_lost():
    # NetworkValuation pays 1.0 here: what the bank got from its junior claims is gone once it pays its senior class.
    senior, junior = np.zeros((3, 3)), np.zeros((3, 3))
    senior[:2, 2] = 3, 0.5
    junior[0, 1], junior[1, 0] = 4, 3
    for which in EXTREMES:
        result = elsinger([senior, junior], [1, 1, 0], which=which)
        assert result.payments_by_class[0] == pytest.approx([1.5, 0.5, 0])
        assert result.payments_by_class[1] == pytest.approx([0, 0.5, 0])
        result.check()


def test_holdings_are_valued_by_the_fixed_point_and_not_by_one_pass():
    # A published CoCo example adds holdings once: 10 + 5 each here. The fixed point is E = 10 + E / 2.
    result = elsinger([np.zeros((2, 2))], [10, 10], [[0, 0.5], [0.5, 0]])
    assert result.net_worth == pytest.approx([20, 20])
    # and it counts for a default: 1 owes 12, and half of the equity of 0 (3 + half of nothing) is not enough
    owed = np.array([[0, 0, 7], [0, 0, 12], [0, 0, 0]])
    held = np.array([[0, 0.5, 0], [0.5, 0, 0], [0, 0, 0]])
    result = elsinger([owed], [10, 10, 0], held)
    assert result.net_worth == pytest.approx([3, -0.5, 18.5])
    assert result.defaulted.tolist() == [False, True, False]


# -------------------------------------------------------------------------------------------------------- plain twins


def twin(by_class, assets, holdings, external, place, which):
    """Iterate payments of every class and equities separately, dense and slowly, from above or from 0."""
    nodes = len(assets)
    owed = [np.asarray(one, dtype=float) for one in by_class]
    outside = [np.zeros(nodes) for _ in owed]
    if place == "senior":
        owed, outside = [np.zeros((nodes, nodes)), *owed], [np.asarray(external, dtype=float), *outside]
    else:
        outside[place] = np.asarray(external, dtype=float)
    due = [one.sum(axis=1) + other for one, other in zip(owed, outside, strict=True)]
    share = [one / np.where(d > 0, d, 1)[:, None] for one, d in zip(owed, due, strict=True)]
    paid, equity = [d * 0.0 for d in due], np.zeros(nodes)
    if which == "greatest":
        all_in = assets + sum(one.sum(axis=0) for one in owed)
        paid, equity = [d.copy() for d in due], np.linalg.solve(np.eye(nodes) - holdings, all_in)
    for _ in range(200_000):
        before = [*paid, equity]
        has = assets + sum(s.T @ p for s, p in zip(share, paid, strict=True)) + holdings @ equity
        left, paid = has, []
        for d in due:
            paid.append(np.minimum(d, left))
            left = left - paid[-1]
        equity = left
        if max(np.abs(one - two).max() for one, two in zip(before, [*paid, equity], strict=True)) < 1e-15:
            break
    total = sum(due)
    inside = [p * s.sum(axis=1) for p, s in zip(paid, share, strict=True)]
    return inside[1:] if place == "senior" else inside, sum(paid), has - total


def random_network(seed, nodes=7, classes=3):
    random = np.random.default_rng(seed)
    by_class = []
    for _ in range(classes):
        one = random.integers(1, 20, (nodes, nodes)) * (random.random((nodes, nodes)) < random.choice([0.1, 0.3]))
        np.fill_diagonal(one, 0)
        by_class.append(one.astype(float))
    assets = random.integers(0, 30, nodes) * (random.random(nodes) > 0.3)
    external = random.integers(1, 10, nodes) * (random.random(nodes) < 0.5)
    holdings = random.random((nodes, nodes)) * (random.random((nodes, nodes)) < 0.3)
    np.fill_diagonal(holdings, 0)
    holdings *= 0.8 * random.random(nodes) / np.maximum(holdings.sum(axis=0), 1e-9)
    return by_class, assets.astype(float), holdings, external.astype(float)


@pytest.mark.parametrize("place", [0, 1, 2, "senior"])
@pytest.mark.parametrize("seed", range(8))
def test_the_plain_twin_agrees(seed, place):
    by_class, assets, holdings, external = random_network(seed)
    for which in EXTREMES:
        result = elsinger(by_class, assets, holdings, external, external_class=place, which=which)
        result.check()
        inside, paid, worth = twin(by_class, assets, holdings, external, place, which)
        for one, other in zip(result.payments_by_class, inside, strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-9)
        np.testing.assert_allclose(result.payments, paid, rtol=0, atol=1e-9)
        np.testing.assert_allclose(result.net_worth, worth, rtol=0, atol=1e-9)
        assert (result.lower <= result.payments).all()
        assert (result.payments <= result.upper).all()
        assert result.width <= 1e-10


@pytest.mark.slow
@pytest.mark.parametrize("nodes", [4, 9, 15])
def test_the_plain_twin_agrees_on_many_networks(nodes):
    for seed in range(100, 140):
        network = random_network(seed, nodes)
        for which in EXTREMES:
            result = elsinger(*network, which=which)
            _, paid, worth = twin(*network, 0, which)
            np.testing.assert_allclose(result.payments, paid, rtol=0, atol=1e-8)
            np.testing.assert_allclose(result.net_worth, worth, rtol=0, atol=1e-8)
            assert (result.lower <= result.payments).all()
            assert (result.payments <= result.upper).all()


def twin_of_suzuki(debts, assets, equity_held, debt_held):
    worth, paid = np.zeros(len(assets)), np.zeros(len(assets))
    for _ in range(1000):
        has = assets + equity_held @ worth + debt_held @ paid
        before, worth, paid = (worth, paid), np.maximum(has - debts, 0), np.minimum(debts, has)
        if (worth == before[0]).all() and (paid == before[1]).all():
            break
    return worth, paid


@pytest.mark.parametrize("seed", range(15))
def test_suzuki_is_its_own_equations_and_elsinger_with_one_class(seed):
    random = np.random.default_rng(seed)
    _, assets, equity_held, _ = random_network(seed)
    _, _, debt_held, _ = random_network(seed + 50)
    debts = random.integers(0, 40, len(assets)) * 1.0
    for which in EXTREMES:
        result = suzuki(debts, assets, equity_held, debt_held, which=which)
        result.check()
        worth, paid = twin_of_suzuki(debts, assets, equity_held, debt_held)
        np.testing.assert_allclose(result.equity, worth, rtol=0, atol=1e-9)
        np.testing.assert_allclose(result.payments, paid, rtol=0, atol=1e-9)
        owed = debt_held.T * debts[:, None]
        same = elsinger([owed], assets, equity_held, debts - owed.sum(axis=1), which=which)
        np.testing.assert_allclose(result.payments, same.payments, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(result.net_worth, same.net_worth, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(result.payment_matrix().toarray(), same.payment_matrix().toarray(), atol=1e-12)


def test_suzuki_by_hand_and_orientation():
    # E_1 = 5 + D_0 / 4 - 4 and D_0 = 6 + E_1 / 2, so D_0 = 6.5 / (1 - 1 / 8)
    equity_held, debt_held = np.array([[0, 0.5], [0, 0]]), np.array([[0, 0], [0.25, 0]])
    result = suzuki([10, 4], [6, 5], equity_held, debt_held)
    assert result.payments == pytest.approx([52 / 7, 4])
    assert result.equity == pytest.approx([0, 20 / 7])
    assert result.payments_external == pytest.approx([39 / 7, 4])
    assert np.abs(suzuki([10, 4], [6, 5], equity_held.T, debt_held.T).payments - [52 / 7, 4]).max() > 0.1
    assert suzuki([10, 4], [6, 5]).payments.tolist() == [6, 4]
    whole = suzuki([10, 4], [6, 5], None, [[0, 1.0], [1.0, 0]])
    assert whole.payments_external.tolist() == [0, 0]


# ------------------------------------------------------------------------------------------------------------- laws


amounts = st.one_of(st.just(0.0), st.integers(1, 64).map(lambda quarter: quarter / 4))
common = settings(max_examples=20, deadline=None, derandomize=True)


@st.composite
def networks(draw, holders=True):
    nodes = draw(st.integers(1, 5))

    def square(entries):
        cells = draw(st.lists(entries, min_size=nodes * nodes, max_size=nodes * nodes))
        matrix = np.array(cells, dtype=float).reshape(nodes, nodes)
        np.fill_diagonal(matrix, 0)
        return matrix

    by_class = [square(amounts) for _ in range(draw(st.integers(1, 3)))]
    assets, external = (np.array(draw(st.lists(amounts, min_size=nodes, max_size=nodes))) for _ in range(2))
    parts = st.integers(0, 16) if holders else st.just(0)
    holdings = square(parts)
    holdings /= np.maximum(holdings.sum(axis=0) * 1.25, 16)
    return by_class, assets, holdings, external


extremes = st.sampled_from(EXTREMES)
places = st.sampled_from([0, -1, "senior"])


@given(networks(), extremes, places)
@common
def test_liability_is_limited_and_outsiders_get_what_there_is(network, which, place):
    _, assets, holdings, _ = network
    result = elsinger(*network, which=which, external_class=place)
    result.check()
    scale = 1e-9 * (1 + result.dues.sum() + assets.sum())
    outside = ((1 - holdings.sum(axis=0)) * result.equity).sum() + result.payments_external.sum()
    assert abs(outside - assets.sum()) <= scale
    has = assets + result.payment_matrix().sum(axis=0) + holdings @ result.equity
    assert (result.payments <= has + scale).all()
    np.testing.assert_allclose(result.net_worth, has - result.dues, rtol=0, atol=scale)
    np.testing.assert_allclose(result.default_costs, 0, rtol=0, atol=scale)
    np.testing.assert_allclose(sum(result.payments_by_class), result.payments_internal, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(result.payment_matrix().sum(axis=1), result.payments_internal, rtol=1e-9, atol=1e-9)


@given(networks(), extremes)
@common
def test_a_junior_class_gets_nothing_before_the_senior_ones_are_paid(network, which):
    by_class, _, _, external = network
    result = elsinger(*network, which=which, external_class=0)
    rates = [
        paid / np.where(owed.sum(axis=1) > 0, owed.sum(axis=1), np.nan)
        for paid, owed in zip(result.payments_by_class, by_class, strict=True)
    ]
    for number, senior in enumerate(rates):
        unpaid = senior < 1 - 1e-9
        for junior in rates[number + 1 :]:
            assert (np.nan_to_num(junior)[unpaid] <= 1e-9).all()
    owes = ~np.isnan(rates[0])
    np.testing.assert_allclose(result.payments_external[owes], (external * rates[0])[owes], rtol=1e-9, atol=1e-9)


@given(networks(), extremes, places, st.integers(0, 5), st.sampled_from([0.25, 3.0, 50.0]))
@common
def test_payments_and_net_worth_rise_with_external_assets(network, which, place, node, more):
    by_class, assets, holdings, external = network
    richer = assets.copy()
    richer[node % len(assets)] += more
    options = {"which": which, "external_class": place}
    before, after = (elsinger(by_class, e, holdings, external, **options) for e in (assets, richer))
    assert (after.payments >= before.payments - 1e-8).all()
    assert (after.net_worth >= before.net_worth - 1e-8).all()


@given(networks(), places)
@common
def test_greatest_is_not_less_than_least_and_equities_agree(network, place):
    low, high = (elsinger(*network, which=which, external_class=place) for which in ("least", "greatest"))
    assert (high.payments >= low.payments - 1e-8).all()
    np.testing.assert_allclose(high.equity, low.equity, rtol=1e-8, atol=1e-7)
    np.testing.assert_allclose(high.payments_external, low.payments_external, rtol=1e-8, atol=1e-7)
    for result in (low, high):
        assert (result.lower <= result.payments).all()
        assert (result.payments <= result.upper).all()


@given(networks(), extremes, places, st.randoms(use_true_random=False))
@common
def test_names_of_nodes_do_not_matter(network, which, place, random):
    by_class, assets, holdings, external = network
    order = list(range(len(assets)))
    random.shuffle(order)
    turned = np.ix_(order, order)
    options = {"which": which, "external_class": place}
    plain = elsinger(*network, **options)
    shuffled = elsinger([one[turned] for one in by_class], assets[order], holdings[turned], external[order], **options)
    np.testing.assert_allclose(shuffled.payments, plain.payments[order], rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(shuffled.net_worth, plain.net_worth[order], rtol=1e-8, atol=1e-7)


@given(networks(), extremes, st.sampled_from([1e-12, 1e-6, 7.0, 1e6, 1e12]))
@common
def test_the_unit_of_money_does_not_matter(network, which, unit):
    by_class, assets, holdings, external = network
    plain = elsinger(*network, which=which)
    scaled = elsinger([unit * one for one in by_class], unit * assets, holdings, unit * external, which=which)
    np.testing.assert_allclose(scaled.payments / unit, plain.payments, rtol=1e-8, atol=1e-8)
    assert scaled.defaulted.tolist() == plain.defaulted.tolist()


@given(networks(holders=False), extremes)
@common
def test_one_class_without_holdings_is_eisenberg_noe(network, which):
    (owed, *_), assets, _, external = network
    for place, rank in ((0, "pari_passu"), ("senior", "senior")):
        result = elsinger([owed], assets, None, external, external_class=place, which=which)
        plain = eisenberg_noe(owed, assets, external, external_rank=rank, which=which)
        np.testing.assert_allclose(result.payments, plain.payments, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(result.payments_external, plain.payments_external, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(result.net_worth, plain.net_worth, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(result.payment_matrix().toarray(), plain.payment_matrix().toarray(), atol=1e-8)
        assert result.external_rank == rank


def test_a_class_that_is_split_into_two_equal_ones_only_reorders_creditors():
    owed = np.array([[0, 4.0, 2.0], [3.0, 0, 5.0], [1.0, 0, 0]])
    whole, split = elsinger([owed], [1, 2, 3]), elsinger([owed * 0.5, owed * 0.5], [1, 2, 3])
    np.testing.assert_allclose(split.payments, whole.payments)
    np.testing.assert_allclose(split.payment_matrix().toarray(), whole.payment_matrix().toarray())


def test_junior_debt_in_a_circle_pays_itself_or_not_though_everybody_has_assets():
    # External creditors take the 1 of each. Every payment from 0 to 1 round the circle clears.
    nothing, circle = np.zeros((2, 2)), [[0, 1.0], [1.0, 0]]
    greatest, least = (elsinger([nothing, circle], [1, 1], None, [1, 1], which=which) for which in EXTREMES)
    assert greatest.payments.tolist() == [2, 2]
    assert least.payments.tolist() == [1, 1]
    for result in (greatest, least):
        result.check()
        assert result.equity.tolist() == [0, 0]
        assert result.status is Status.SETTLED
        assert any("uncertified" in sentence for sentence in result.assumptions)
        assert (result.lower <= least.payments).all()
        assert (result.upper >= greatest.payments).all()


@pytest.mark.parametrize("has", [1.0, 1.5, 2.0])
def test_bounds_do_not_trust_what_they_are_given(has):
    nothing, circle = scipy.sparse.csr_array((2, 2)), scipy.sparse.csr_array([[0, 1.0], [1.0, 0]])
    ranks = _ranked.ranks_of((nothing, circle), (np.ones(2), np.zeros(2)), nothing)
    system = _ranked.RankedSystem(ranks, np.ones(2))
    assert system.value(np.full(2, has)).tolist() == [has, has]
    for greatest, answer in ((True, 2.0), (False, 1.0)):
        lower, upper = _ranked.bounds_of(system, np.full(2, has), greatest=greatest)
        assert (lower <= answer).all()
        assert (upper >= answer).all()


def test_equities_are_not_unique_where_the_network_holds_all_the_equity_of_a_node():
    # 1 has nothing but a claim of 1 on 0; 0 has nothing but all the equity of 1.
    owed, held = [[0, 1.0], [0, 0]], [[0, 1.0], [0, 0]]
    greatest, least = (elsinger([owed], [0, 0], held, which=which) for which in EXTREMES)
    assert greatest.equity == pytest.approx([0, 1])
    assert least.equity.tolist() == [0, 0]
    for result in (greatest, least):
        assert any("holds all the equity of 1 nodes" in sentence for sentence in result.assumptions)
        result.check()


# ------------------------------------------------------------------------------------ the check knows classes, holdings


def test_the_check_sees_holdings_and_classes():
    import dataclasses

    network = random_network(3)
    result = elsinger(*network)
    result.check()
    for change in ({"holdings": result.classes.holdings * 0.5}, {"payments": result.classes.payments[::-1]}):
        wrong = dataclasses.replace(result, classes=dataclasses.replace(result.classes, **change))
        with pytest.raises(ContagionError, match="elsinger"):
            wrong.check()
    with pytest.raises(ContagionError):
        dataclasses.replace(result, classes=None).check()


# ------------------------------------------------------------------------------------------------ edges, scenarios


@pytest.mark.parametrize("which", EXTREMES)
@pytest.mark.parametrize("place", [0, "senior"])
def test_edges(which, place):
    options = {"which": which, "external_class": place}
    assert elsinger([np.zeros((0, 0))], [], **options).payments.shape == (0,)
    nothing = elsinger([np.zeros((3, 3))] * 2, [1, 0, 2], **options)
    assert nothing.recovery_rate.tolist() == [1, 1, 1]
    assert nothing.equity.tolist() == [1, 0, 2]
    poor = elsinger([[[0, 2, 1], [2, 0, 0], [0, 0, 0]]], [0, 0, 0], None, [0, 0, 1], **options)
    assert poor.payments == pytest.approx([0, 0, 0], abs=1e-12)
    cycle = elsinger([[[0, 4], [6, 0]]], [0, 0], **options)
    assert cycle.payments == pytest.approx([4, 4] if which == "greatest" else [0, 0], abs=1e-12)
    edge = elsinger([np.array([[0, 0.1, 0.2], [0, 0, 0.3], [0, 0, 0]])], [0.3, 0.2, 0.0], **options)
    assert not edge.defaulted.any()


def test_holdings_in_a_long_chain_and_in_a_circle_with_a_small_owner_outside():
    nodes = 200
    chain = np.diag(np.full(nodes - 1, 0.5), 1)
    result = elsinger([np.zeros((nodes, nodes))], np.eye(nodes)[-1], chain)
    assert result.net_worth == pytest.approx(0.5 ** np.arange(nodes - 1, -1, -1.0))
    held = 1 - 2.0**-20
    circle = elsinger([np.zeros((2, 2))], [1, 1], [[0, held], [held, 0]])
    assert circle.net_worth == pytest.approx([2.0**20, 2.0**20], rel=1e-9)
    circle.check()


@pytest.mark.parametrize("which", EXTREMES)
def test_scenarios_are_solved_as_if_alone(which):
    by_class, assets, holdings, external = random_network(4)
    scenarios = np.column_stack([assets, assets * 0.5, assets * 0.0, assets + 20])
    together = elsinger(by_class, scenarios, holdings, external, which=which)
    together.check()
    assert [paid.shape for paid in together.payments_by_class] == [(7, 4)] * 3
    for column, alone in enumerate(scenarios.T):
        result = elsinger(by_class, alone, holdings, external, which=which)
        assert together.payments[:, column].tolist() == result.payments.tolist()
        assert together.payments_by_class[1][:, column].tolist() == result.payments_by_class[1].tolist()
        assert abs(together.payment_matrix(scenario=column) - result.payment_matrix()).max() == 0
    with pytest.raises(ValueError, match="choose one with scenario="):
        together.payment_matrix()
    none = elsinger(by_class, np.zeros((7, 0)), holdings, external, which=which)
    assert none.payments.shape == none.payments_by_class[0].shape == (7, 0)


def test_labels_join_by_name_and_words_are_said():
    names, other = ["b", "a", "c"], ["c", "a", "b"]
    by_class, assets, holdings, external = random_network(6, nodes=3)
    plain = elsinger(by_class, assets, holdings, external, external_class=1)
    frames = [pd.DataFrame(one, index=names, columns=names) for one in by_class]
    frames[1] = frames[1].reindex(index=other, columns=names)
    named = elsinger(
        frames,
        pd.Series(assets, index=names).reindex(other),
        pd.DataFrame(holdings, index=names, columns=names).reindex(index=other),
        pd.Series(external, index=names).reindex(other),
        external_class=1,
    )
    assert named.payments.index.tolist() == names
    assert named.payments.tolist() == plain.payments.tolist()
    assert named.payments_by_class[1]["c"] == plain.payments_by_class[1][2]
    assert "elsinger, greatest vector, external debt class 1" in repr(named)
    assert "no external liabilities were given" in repr(elsinger(by_class, assets))
    assert named.classes.liabilities[0].shape == (3, 3)
    with pytest.raises(ValueError, match="read-only"):
        plain.payments_by_class[0][0] = 1
    held = pd.DataFrame(holdings, index=names, columns=names)
    result = suzuki(pd.Series([3.0, 4, 5], index=names).reindex(other), [1, 2, 3], held)
    assert result.payments.index.tolist() == names
    assert result.dues.tolist() == [3, 4, 5]


# ------------------------------------------------------------------------------------------------------------ endings


def test_too_few_rounds_raise_with_the_result(monkeypatch):
    monkeypatch.setattr(_ranked, "solve_unpaid", lambda *_, direct: None)
    network = [[0, 1], [1, 0]], [1e-3, 0]
    with pytest.raises(NotSettledError, match="MAX_ROUNDS") as caught:
        elsinger([network[0]], network[1], which="least", max_rounds=5)
    assert caught.value.result.status is Status.MAX_ROUNDS
    assert caught.value.result.iterations == 5
    assert caught.value.result.residual > 5e-4
    settled = elsinger([network[0]], network[1], which="least", max_rounds=3_000)
    assert settled.payments == pytest.approx([1, 1])
    assert (settled.lower <= settled.payments).all()


def test_without_linear_solves_it_iterates_and_bounds_with_runs(monkeypatch):
    by_class, assets, _, external = random_network(2)
    exact = [elsinger(by_class, assets, None, external, which=which) for which in EXTREMES]
    monkeypatch.setattr(_ranked, "solve_unpaid", lambda *_, direct: None)
    for which, one in zip(EXTREMES, exact, strict=True):
        slow = elsinger(by_class, assets, None, external, which=which)
        assert slow.status is Status.SETTLED
        np.testing.assert_allclose(slow.payments, one.payments, rtol=0, atol=1e-9)
        assert (slow.lower <= slow.payments).all()
        assert (slow.payments <= slow.upper).all()


def test_sums_that_overflow_are_refused():
    with pytest.raises(SchemaError, match="assets overflow"):
        elsinger([[[0, 1.7e308], [0, 0]]], [1.7e308, 1.7e308])


# ---------------------------------------------------------------------------------------------------------- bad input


ZERO = np.zeros((2, 2))


@pytest.mark.parametrize(
    ("holdings", "message"),
    [
        ([[0, 1.5], [0, 0]], "adds up to 1 at most"),
        ([[0, 1.0], [1.0, 0]], "an outside owner"),
        ([[0, -0.1], [0, 0]], "shares from 0 to 1"),
        ([[0.2, 0], [0, 0]], "holds of itself"),
        ([[0, np.nan], [0, 0]], "shares from 0 to 1"),
        (np.zeros((3, 3)), "one row and one column per node"),
        (np.zeros((2, 3)), "rows are holders"),
        (0.5, "square|shape"),
        ([[0, "much"], [0, 0]], "not a number"),
        ([[0, 1], [0]], "not a number"),
    ],
)
def test_holdings_that_cannot_be_are_refused(holdings, message):
    for call in (lambda: elsinger([ZERO], [1, 1], holdings), lambda: suzuki([1, 1], [1, 1], holdings)):
        with pytest.raises(SchemaError, match=message) as caught:
            call()
        assert all("holdings" in problem.table for problem in caught.value.problems)


def test_equity_held_in_full_is_allowed_where_an_owner_outside_holds_the_holder():
    assert elsinger([ZERO], [1, 1], [[0, 1.0], [0, 0]]).net_worth.tolist() == pytest.approx([2, 1])
    thirds = np.zeros((4, 4))
    thirds[:3, 3] = 1 / 3
    elsinger([np.zeros((4, 4))], [1, 1, 1, 1], thirds).check()
    three = np.zeros((5, 5))
    three[0, 1] = three[1, 2] = three[2, 0] = three[0, 3] = 1.0  # 4 is owned outside, 3 only by the closed circle
    with pytest.raises(SchemaError) as caught:
        elsinger([np.zeros((5, 5))], [1] * 5, three)
    assert [problem.column for problem in caught.value.problems] == ["0", "1", "2", "3"]


def test_debt_may_be_held_in_full_in_a_circle():
    result = suzuki([4, 4], [1, 1], None, [[0, 1.0], [1.0, 0]])
    assert result.payments.tolist() == [4, 4]
    with pytest.raises(SchemaError, match="adds up to 1 at most"):
        suzuki([4, 4], [1, 1], None, [[0, 1.1], [1.0, 0]])


@pytest.mark.parametrize(
    ("by_class", "message"),
    [
        (ZERO, "a list of matrices"),
        (scipy.sparse.csr_array(ZERO), "a list of matrices"),
        (pd.DataFrame(ZERO), "a list of matrices"),
        ([], "no class"),
        ([ZERO, np.zeros((3, 3))], "sizes"),
        ([ZERO, pd.DataFrame(ZERO)], "labels"),
        ([pd.DataFrame(ZERO), pd.DataFrame(ZERO, index=[0, 2], columns=[0, 2])], "labels differ"),
        ([ZERO, [[0, -1], [0, 0]]], r"liabilities_by_class\[1\]"),
        ([[1, 2], [3, 4]], "list of matrices"),
        ([ZERO, [[1, 2], [3]]], r"liabilities_by_class\[1\]"),
        ([[[1, 2], [3]]], r"liabilities_by_class\[0\]"),
    ],
)
def test_classes_that_cannot_be_are_refused(by_class, message):
    with pytest.raises(SchemaError, match=message):
        elsinger(by_class, [1, 1])


def test_everything_wrong_with_the_numbers_is_said_at_once():
    with pytest.raises(SchemaError) as caught:
        elsinger([[[0, -1], [0, 0]], [[1, 0], [0, 0]]], [1, -1], [[0, 2], [0, 0]], [np.inf, 0])
    tables = [problem.table for problem in caught.value.problems]
    expected = ["liabilities_by_class[0]", "external_assets", "external_liabilities", "liabilities_by_class[1]"]
    assert tables == [*expected, "holdings"]
    with pytest.raises(SchemaError) as caught:
        suzuki([-1, 1], [1, np.nan], [[0, 2], [0, 0]], [[0, 0], [2, 0]])
    assert {problem.table for problem in caught.value.problems} == {
        "debts",
        "external_assets",
        "equity_holdings",
        "debt_holdings",
    }
    with pytest.raises(SchemaError, match="finite"):
        elsinger([[[0, 1e308], [0, 0]]] * 2, [1, 1])


@pytest.mark.parametrize(
    "wrong", [{"which": "largest"}, {"rtol": 0}, {"max_rounds": 0}, {"external_class": 1}, {"external_class": "junior"}]
)
def test_options_that_mean_nothing_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        elsinger([ZERO], [1, 1], **wrong)
    if "external_class" not in wrong:
        with pytest.raises(ValueError, match=next(iter(wrong))):
            suzuki([1, 1], [1, 1], **wrong)
