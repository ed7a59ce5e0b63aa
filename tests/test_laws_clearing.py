"""Laws of Eisenberg-Noe clearing: those claimed as properties, those not claimed by a counterexample."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netcontagion.clearing import eisenberg_noe

RANKS = ("pari_passu", "senior")
amounts = st.one_of(st.just(0.0), st.integers(1, 64).map(lambda quarter: quarter / 4))
common = settings(max_examples=60, deadline=None, derandomize=True)


@st.composite
def networks(draw):
    nodes = draw(st.integers(1, 6))
    cells = draw(st.lists(amounts, min_size=nodes * nodes, max_size=nodes * nodes))
    liabilities = np.array(cells).reshape(nodes, nodes)
    np.fill_diagonal(liabilities, 0)
    assets, external = (np.array(draw(st.lists(amounts, min_size=nodes, max_size=nodes))) for _ in range(2))
    return liabilities, assets, external


ranks = st.sampled_from(RANKS)


@given(networks(), ranks, st.sampled_from(["greatest", "least"]))
@common
def test_value_is_conserved_and_liability_limited(network, rank, which):
    assets = network[1]
    result = eisenberg_noe(*network, external_rank=rank, which=which)
    result.check()
    receipts = result.payment_matrix().sum(axis=0)
    scale = 1e-9 * (1 + result.dues.sum())
    assert abs(result.equity.sum() + result.payments_external.sum() - assets.sum()) <= scale
    assert (result.payments <= assets + receipts + scale).all()
    assert (result.payments >= 0).all()
    assert (result.payments <= result.dues * (1 + 1e-12)).all()
    np.testing.assert_allclose(result.shortfall, result.dues - result.payments, atol=1e-12)


@given(networks())
@common
def test_pari_passu_pays_all_creditors_in_proportion(network):
    liabilities, _, external = network
    result = eisenberg_noe(*network)
    rate = result.recovery_rate
    np.testing.assert_allclose(result.payment_matrix().toarray(), liabilities * rate[:, None], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(result.payments_external, external * rate, rtol=1e-9, atol=1e-9)


@given(networks())
@common
def test_senior_creditors_come_first(network):
    result = eisenberg_noe(*network, external_rank="senior")
    unpaid_outside = network[2] - result.payments_external > 1e-9
    assert (result.payments_internal[unpaid_outside] <= 1e-8).all()
    paid = result.payment_matrix().toarray()
    rate = paid.sum(axis=1) / np.maximum(network[0].sum(axis=1), 1e-300)
    np.testing.assert_allclose(paid, network[0] * rate[:, None], rtol=1e-9, atol=1e-9)


@given(networks(), ranks, st.integers(0, 5), st.sampled_from([0.25, 3.0, 50.0]))
@common
def test_payments_and_net_worth_rise_with_external_assets(network, rank, node, more):
    liabilities, assets, external = network
    richer = assets.copy()
    richer[node % len(assets)] += more
    before, after = (eisenberg_noe(liabilities, e, external, external_rank=rank) for e in (assets, richer))
    assert (after.payments >= before.payments - 1e-8).all()
    assert (after.net_worth >= before.net_worth - 1e-8).all()


@given(networks(), ranks, st.randoms(use_true_random=False))
@common
def test_names_of_nodes_do_not_matter(network, rank, random):
    liabilities, assets, external = network
    order = list(range(len(assets)))
    random.shuffle(order)
    plain = eisenberg_noe(*network, external_rank=rank)
    shuffled = eisenberg_noe(liabilities[np.ix_(order, order)], assets[order], external[order], external_rank=rank)
    np.testing.assert_allclose(shuffled.payments, plain.payments[order], rtol=1e-8, atol=1e-8)
    assert shuffled.defaulted.tolist() == plain.defaulted[order].tolist()


@given(networks(), ranks, st.sampled_from([1e-12, 1e-6, 7.0, 1e6, 1e12]))
@common
def test_the_unit_of_money_does_not_matter(network, rank, unit):
    plain = eisenberg_noe(*network, external_rank=rank)
    scaled = eisenberg_noe(*(unit * part for part in network), external_rank=rank)
    np.testing.assert_allclose(scaled.payments / unit, plain.payments, rtol=1e-8, atol=1e-8)
    assert scaled.defaulted.tolist() == plain.defaulted.tolist()


@given(networks(), ranks)
@common
def test_the_greatest_vector_is_not_less_than_the_least_and_equities_agree(network, rank):
    greatest, least = (eisenberg_noe(*network, external_rank=rank, which=which) for which in ("greatest", "least"))
    assert (greatest.payments >= least.payments - 1e-8).all()
    np.testing.assert_allclose(greatest.equity, least.equity, atol=1e-8)


@given(networks())
@common
def test_the_sum_of_payments_is_concave_in_the_assets_pari_passu(network):
    liabilities, assets, external = network
    other = assets[::-1] + 1.0
    low, middle, high = (
        eisenberg_noe(liabilities, e, external).payments.sum() for e in (assets, (assets + other) / 2, other)
    )
    assert middle >= (low + high) / 2 - 1e-8


def test_payments_can_expand_in_the_assets():
    chain = np.zeros((3, 3))
    chain[0, 1] = chain[1, 2] = 1.0
    before, after = (eisenberg_noe(chain, [e, 0.0, 0.0]).payments.sum() for e in (0.5, 0.6))
    assert after - before == pytest.approx(0.2)


def test_final_values_do_not_expand_in_the_assets():
    chain = np.zeros((3, 3))
    chain[0, 1] = chain[1, 2] = 1.0
    before, after = (eisenberg_noe(chain, [e, 0.0, 0.0]).equity for e in (0.5, 0.6))
    assert np.abs(after - before).sum() == pytest.approx(0.1)


def test_payments_are_not_concave_in_the_assets_with_senior_external_debt():
    payments = [
        eisenberg_noe([[0, 2], [0, 0]], [e, 0], [1, 0], external_rank="senior").payments_internal[0] for e in (0, 1, 2)
    ]
    assert payments == [0, 0, 1]
    assert payments[1] < (payments[0] + payments[2]) / 2


def test_least_and_greatest_vector_differ_with_senior_debt_that_the_cycle_itself_pays():
    # Node 0 owes 1 outside first. Out of full payments everybody pays in full; out of none, nobody pays.
    cycle, assets, outside = [[0, 4], [5, 0]], [0.0, 1.0], [1.0, 0.0]
    greatest, least = (
        eisenberg_noe(cycle, assets, outside, external_rank="senior", which=which) for which in ("greatest", "least")
    )
    assert greatest.payments.tolist() == [5.0, 5.0]
    assert least.payments.tolist() == [1.0, 1.0]
    assert greatest.enclosure == least.enclosure == "bracket"
    assert greatest.width > 0.5
    assert any("uncertified" in sentence for sentence in greatest.assumptions)
