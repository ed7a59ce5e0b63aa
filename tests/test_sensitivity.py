"""Sensitivities of Eisenberg-Noe clearing: finite differences, duals, both sides of kinks, and where payments jump."""

from __future__ import annotations

import dataclasses
from functools import cache

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from netcontagion._status import Status
from netcontagion.clearing import eisenberg_noe, sensitivity
from netcontagion.errors import ContagionError, NotSettledError

RANKS = ("pari_passu", "senior")
OUTCOMES = ("payments", "equity", "external")
CHAIN = np.diag([10.0, 8.0, 6.0], 1)  # 0 -> 1 -> 2 -> 3


def random_network(seed, nodes=9):
    """Build a network without knife edges: amounts from a continuum, everybody with some assets."""
    random = np.random.default_rng(seed)
    density, plenty = random.choice([0.15, 0.4, 0.8]), random.choice([0.3, 1.0, 3.0])
    liabilities = random.random((nodes, nodes)) * (random.random((nodes, nodes)) < density)
    np.fill_diagonal(liabilities, 0)
    external = random.random(nodes) * (random.random(nodes) < 0.5)
    assets = plenty * random.random(nodes) * (random.random(nodes) < 0.7) + 1e-3
    return liabilities, assets, external


def outcome(result, of):
    return {"payments": result.payments, "equity": result.equity, "external": result.payments_external}[of]


def near_a_kink(result, margin=1e-3):
    """Whether a node may change state within the reach of a finite difference."""
    owing = result.dues > 0
    distances = [result.net_worth[owing]]
    if result.external_rank == "senior":
        distances.append((result.net_worth + result.liabilities.sum(axis=1))[owing])  # what is left for the network
    return np.abs(np.concatenate(distances)).min(initial=1) <= margin


@cache
def smooth_networks(rank, count):
    """Build random networks in which nobody is near a kink, and clear them."""
    found = []
    for seed in range(10 * count):
        network = random_network(seed)
        result = eisenberg_noe(*network, external_rank=rank)
        if not near_a_kink(result):
            found.append((network, result))
        if len(found) == count:
            return found
    raise AssertionError("too many networks are near a kink")


def slopes_by_differences(network, directions, rank, step=1e-5):
    """Derivatives of every outcome along one direction of (liabilities, assets, external), by central differences."""
    ends = []
    for side in (step, -step):
        moved = [part + side * move for part, move in zip(network, directions, strict=True)]
        result = eisenberg_noe(*moved, external_rank=rank)
        ends.append({of: outcome(result, of) for of in OUTCOMES})
    return {of: (ends[0][of] - ends[1][of]) / (2 * step) for of in OUTCOMES}


# --------------------------------------------------------------------------------------------------- finite differences


def check_against_differences(rank, count):
    for number, (network, result) in enumerate(smooth_networks(rank, count)):
        liabilities, assets, external = network
        random = np.random.default_rng(number)
        edges = random.standard_normal(liabilities.shape) * liabilities
        rise, outside = random.standard_normal(len(assets)), random.standard_normal(len(assets)) * external
        slopes = sensitivity(result)
        expected = slopes_by_differences(network, (edges, rise, outside), rank)
        flat = np.concatenate([edges[liabilities > 0], outside])
        for of in OUTCOMES:
            found = slopes.by_external_assets(of) @ rise + slopes.by_liabilities(of) @ flat
            assert np.abs(found - expected[of]).max() <= 1e-6 * max(1, np.abs(expected[of]).max()), (number, of)


@pytest.mark.parametrize("rank", RANKS)
def test_derivatives_are_finite_differences(rank):
    check_against_differences(rank, 30 if rank == "pari_passu" else 12)


@pytest.mark.slow
@pytest.mark.parametrize("rank", RANKS)
def test_derivatives_are_finite_differences_on_many_networks(rank):
    check_against_differences(rank, 400)


@pytest.mark.parametrize("rank", RANKS)
def test_the_threat_index_is_the_change_of_all_payments_for_each_node(rank):
    for (liabilities, assets, external), result in smooth_networks(rank, 30 if rank == "pari_passu" else 12)[:3]:
        step = 1e-4 * np.eye(len(assets))
        scenarios = assets[:, None] + np.hstack([step, -step])
        paid = eisenberg_noe(liabilities, scenarios, external, external_rank=rank).payments.sum(axis=0)
        expected = (paid[: len(assets)] - paid[len(assets) :]) / 2e-4
        np.testing.assert_allclose(sensitivity(result).threat_index, expected, rtol=1e-6, atol=1e-6)


def test_a_new_external_liability_of_a_node_without_one_counts_too():
    # 0 pays 4 of 8 to 1; a first external debt of 0 takes its share: -4/8 per unit from 1, to first order
    slopes = sensitivity(eisenberg_noe([[0, 8], [0, 0]], [4, 0]))
    move = np.array([0.0, 1.0, 0.0])  # edge, external debt of 0, of 1
    assert slopes.by_liabilities("external") @ move == pytest.approx([0.5, 0])
    assert slopes.by_liabilities("equity") @ move == pytest.approx([0, -0.5])
    assert slopes.by_liabilities("payments") @ move == pytest.approx([0, 0])


# ----------------------------------------------------------------------------------------------------- the threat index


def slow_threat(liabilities, dues, defaulted):
    """Sum the series 1 + Pi_DD 1 + Pi_DD^2 1 + ..., one debtor and one creditor at a time."""
    nodes, total = range(len(dues)), np.where(defaulted, 1.0, 0.0)
    term = total.copy()
    for _ in range(3000):
        passed = [sum(liabilities[i, j] * term[j] for j in nodes) / dues[i] if defaulted[i] else 0.0 for i in nodes]
        term = np.array(passed)
        total = total + term
        if term.max() < 1e-15:
            return total
    raise AssertionError("the series did not end")


def test_the_threat_index_is_the_series_over_the_defaulters():
    for seed in range(25):
        network = random_network(seed, nodes=7)
        result = eisenberg_noe(*network)
        expected = slow_threat(network[0], result.dues, result.defaulted)
        np.testing.assert_allclose(sensitivity(result).threat_index, expected, rtol=1e-9, atol=1e-12)


def test_the_threat_index_knows_who_owes_whom():
    chain = eisenberg_noe(CHAIN, [1, 1, 1, 1])
    assert sensitivity(chain).threat_index.tolist() == [3, 2, 1, 0]
    assert sensitivity(eisenberg_noe(CHAIN.T, [1, 1, 1, 1])).threat_index.tolist() == [0, 1, 2, 3]


def test_with_senior_external_debt_a_unit_may_go_outside_and_end_there():
    result = eisenberg_noe(CHAIN, [1, 1, 1, 1], [5, 0, 0, 0], external_rank="senior")
    slopes = sensitivity(result)
    assert slopes.threat_index.tolist() == [1, 2, 1, 0]
    assert slopes.adjoint(external=1).external_assets.tolist() == [1, 0, 0, 0]


def linear_programme(result):
    """Dual values of p <= e + Pi^T p."""
    assets, inside = result.values.external_assets, result.liabilities.toarray()
    if result.external_rank == "senior":
        assets, due = assets - result.values.payments_external, inside.sum(axis=1)
    else:
        due = result.dues
    share = inside / np.where(due > 0, due, 1.0)[:, None]
    bounds = [(0, ceiling) for ceiling in due]
    solved = linprog(-np.ones(len(due)), A_ub=np.eye(len(due)) - share.T, b_ub=assets, bounds=bounds, method="highs")
    assert solved.success
    return -solved.ineqlin.marginals


def test_shadow_prices_are_the_duals_of_the_linear_programme():
    for _, result in smooth_networks("pari_passu", 60):
        slopes = sensitivity(result)
        np.testing.assert_allclose(slopes.shadow_prices, linear_programme(result), rtol=1e-8, atol=1e-9)
        np.testing.assert_array_equal(slopes.shadow_prices, slopes.threat_index)


def test_shadow_prices_with_senior_debt_that_the_assets_cover():
    for seed in range(40):
        liabilities, assets, external = random_network(seed)
        result = eisenberg_noe(liabilities, assets + external, external, external_rank="senior")
        np.testing.assert_allclose(sensitivity(result).shadow_prices, linear_programme(result), rtol=1e-8, atol=1e-9)


def test_no_shadow_prices_where_there_is_no_linear_programme():
    slopes = sensitivity(eisenberg_noe(CHAIN, [1, 1, 1, 1], [5, 0, 0, 0], external_rank="senior"))
    with pytest.raises(ContagionError, match="threat_index"):
        _ = slopes.shadow_prices


# ----------------------------------------------------------------------------------------------------------------- laws

amounts = st.one_of(st.just(0.0), st.integers(1, 12).map(float))
common = settings(max_examples=20, deadline=None, derandomize=True)


@st.composite
def networks(draw):
    """Build small integers, so that knife edges are frequent."""
    nodes = draw(st.integers(1, 5))
    cells = draw(st.lists(amounts, min_size=nodes * nodes, max_size=nodes * nodes))
    liabilities = np.array(cells).reshape(nodes, nodes)
    np.fill_diagonal(liabilities, 0)
    assets, external = (np.array(draw(st.lists(amounts, min_size=nodes, max_size=nodes))) for _ in range(2))
    return liabilities, assets, external


def slopes_or_none(network, rank, direction):
    try:
        return sensitivity(eisenberg_noe(*network, external_rank=rank), direction=direction)
    except ContagionError:
        assert rank == "senior", "the greatest vector, pari passu, has one-sided derivatives"
        return None


@given(networks(), st.sampled_from(RANKS), st.sampled_from(["up", "down"]))
@common
def test_values_outside_and_equities_take_every_unit(network, rank, direction):
    slopes = slopes_or_none(network, rank, direction)
    if slopes is None:
        return
    gradient = slopes.adjoint(equity=1, external=1)
    np.testing.assert_allclose(gradient.external_assets, 1, rtol=1e-9)  # equities + external receipts = assets
    np.testing.assert_allclose(gradient.liabilities.data, 0, atol=1e-9)
    np.testing.assert_allclose(gradient.external_liabilities, 0, atol=1e-9)


@given(networks(), st.sampled_from(RANKS), st.sampled_from(["up", "down"]))
@common
def test_operators_and_their_transposes_agree(network, rank, direction):
    slopes = slopes_or_none(network, rank, direction)
    if slopes is None:
        return
    random = np.random.default_rng(1)
    for of in OUTCOMES:
        for operator in (slopes.by_external_assets(of), slopes.by_liabilities(of)):
            move, weights = random.standard_normal(operator.shape[1]), random.standard_normal(operator.shape[0])
            one, other = float((operator @ move) @ weights), float(move @ (operator.T @ weights))
            assert one == pytest.approx(other, rel=1e-10, abs=1e-9)


@given(networks(), st.sampled_from(RANKS), st.sampled_from(["up", "down"]))
@common
def test_one_sided_derivatives_are_those_of_a_small_step_to_that_side(network, rank, direction):
    slopes = slopes_or_none(network, rank, direction)
    if slopes is None:
        return
    liabilities, assets, external = network
    step = 1e-6 * (1 if direction == "up" else -1)
    base = eisenberg_noe(*network, external_rank=rank)
    able = np.flatnonzero(assets + step >= 0)
    moved = assets[:, None] + step * np.eye(len(assets))[:, able]
    after = eisenberg_noe(liabilities, moved, external, external_rank=rank)
    for of in OUTCOMES:
        expected = (outcome(after, of) - outcome(base, of)[:, None]) / step
        found = (slopes.by_external_assets(of) @ np.eye(len(assets)))[:, able]
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@given(networks())
@common
def test_the_threat_index_falls_as_assets_rise_and_is_at_least_one_among_defaulters(network):
    liabilities, assets, external = network
    up, down = (slopes_or_none(network, "pari_passu", side).threat_index for side in ("up", "down"))
    defaulted = eisenberg_noe(*network).defaulted
    assert (down >= up - 1e-9).all()  # concave: the slope falls as assets rise
    assert (up[defaulted] >= 1 - 1e-12).all()
    assert (up[~defaulted] == 0).all()
    richer = slopes_or_none((liabilities, assets + 1, external), "pari_passu", "down").threat_index
    assert (richer <= up + 1e-9).all()


@given(networks(), st.sampled_from(RANKS), st.randoms(use_true_random=False))
@common
def test_names_of_nodes_do_not_matter(network, rank, random):
    liabilities, assets, external = network
    order = list(range(len(assets)))
    random.shuffle(order)
    plain = slopes_or_none(network, rank, "up")
    shuffled = slopes_or_none((liabilities[np.ix_(order, order)], assets[order], external[order]), rank, "up")
    assert (plain is None) == (shuffled is None)
    if plain is None:
        return
    np.testing.assert_allclose(shuffled.threat_index, plain.threat_index[order], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(
        shuffled.adjoint(equity=1).liabilities.toarray(),
        plain.adjoint(equity=1).liabilities.toarray()[np.ix_(order, order)],
        rtol=1e-9,
        atol=1e-9,
    )
    assert sorted(order[place] for place in shuffled.kinks) == plain.kinks.tolist()


@given(networks(), st.sampled_from(RANKS), st.sampled_from([1e-12, 1e-3, 7.0, 1e12]))
@common
def test_the_unit_of_money_does_not_matter(network, rank, unit):
    plain = slopes_or_none(network, rank, "up")
    scaled = slopes_or_none(tuple(unit * part for part in network), rank, "up")
    assert (plain is None) == (scaled is None)
    if plain is None:
        return
    for parts in zip(scaled.adjoint(payments=1, external=2), plain.adjoint(payments=1, external=2), strict=True):
        found, expected = (part.data if scipy.sparse.issparse(part) else part for part in parts)
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def test_a_unit_can_add_more_than_one_to_payments_but_not_to_final_values():
    slopes = sensitivity(eisenberg_noe(CHAIN, [1, 1, 1, 1]))
    assert slopes.threat_index[0] == 3
    assert slopes.adjoint(equity=1).external_assets.tolist() == [1, 1, 1, 1]


# ---------------------------------------------------------------------------------------------------------------- kinks


def test_both_sides_of_a_node_that_is_exactly_solvent():
    liabilities, assets = [[0, 4, 0], [0, 0, 5], [0, 0, 0]], [4, 1, 0]  # 0 and 1 can just pay
    result = eisenberg_noe(liabilities, assets)
    up, down = (sensitivity(result, direction=side) for side in ("up", "down"))
    assert up.kinks.tolist() == down.kinks.tolist() == [0, 1]
    assert up.threat_index.tolist() == [0, 0, 0]
    assert down.threat_index.tolist() == [2, 1, 0]
    assert (up.by_external_assets("equity") @ [1, 0, 0]).tolist() == [1, 0, 0]
    assert (down.by_external_assets("equity") @ [1, 0, 0]).tolist() == [0, 0, 1]
    dual = linear_programme(result)
    assert (up.shadow_prices - 1e-9 <= dual).all()
    assert (dual <= down.shadow_prices + 1e-9).all()


def test_both_sides_of_a_node_that_just_covers_its_senior_debt():
    result = eisenberg_noe([[0, 4], [0, 0]], [3, 0], [3, 0], external_rank="senior")
    up, down = (sensitivity(result, direction=side) for side in ("up", "down"))
    assert up.kinks.tolist() == [0]
    assert (up.by_external_assets("equity") @ [1, 0]).tolist() == [0, 1]
    assert (up.by_external_assets("external") @ [1, 0]).tolist() == [0, 0]
    assert (down.by_external_assets("equity") @ [1, 0]).tolist() == [0, 0]
    assert (down.by_external_assets("external") @ [1, 0]).tolist() == [1, 0]


def test_a_change_that_helps_one_node_at_a_kink_and_hurts_another_is_covered_by_neither_side():
    liabilities, assets = np.array([[0.0, 4, 0, 0], [0, 0, 0, 0], [0, 0, 0, 3], [0, 0, 0, 0]]), np.array([4.0, 0, 3, 0])
    move, step = np.array([1.0, 0, -1, 0]), 1e-6
    base, after = (eisenberg_noe(liabilities, assets + size * move).payments.sum() for size in (0, step))
    true = (after - base) / step
    sides = [sensitivity(eisenberg_noe(liabilities, assets), direction=side) for side in ("up", "down")]
    assert true == pytest.approx(-1)
    assert [float((one.by_external_assets() @ move).sum()) for one in sides] == [0, 0]


def test_how_near_to_a_kink_counts_as_at_it():
    result = eisenberg_noe([[0, 4], [0, 0]], [4 - 1e-6, 0])
    assert sensitivity(result).kinks.tolist() == []
    assert sensitivity(result).threat_index.tolist() == [1, 0]
    near = sensitivity(result, tolerance=1e-6)
    assert near.kinks.tolist() == [0]
    assert near.threat_index.tolist() == [0, 0]


# ----------------------------------------------------------------------------------------------------- cycles and jumps

CYCLE = np.array([[0.0, 2, 0], [2, 0, 0], [0, 0, 0]])


@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_cycle_that_no_value_reaches_pays_in_full_in_the_greatest_vector(direction):
    slopes = sensitivity(eisenberg_noe(CYCLE, [0, 0, 1]), direction=direction)
    assert slopes.threat_index.tolist() == [0, 0, 0]
    assert slopes.kinks.tolist() == []


@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_cycle_without_value_that_pays_less_than_all_it_owes(direction):
    liabilities = np.array([[0.0, 2], [5, 0]])  # 1 gets 2 and owes 5: pays 2
    result = eisenberg_noe(liabilities, [0, 0])
    assert result.payments.tolist() == [2, 2]
    slopes = sensitivity(result, direction=direction)
    assert slopes.threat_index.tolist() == [0, 1]  # what 1 gets more ends with 0, who is solvent
    after = eisenberg_noe(liabilities, [0, 1e-3]).payments.sum()
    assert (after - 4) / 1e-3 == pytest.approx(1)


@pytest.mark.parametrize("direction", ["up", "down"])
def test_the_least_vector_jumps_in_a_cycle_that_no_value_reaches(direction):
    result = eisenberg_noe(CYCLE, [0, 0, 1], which="least")
    assert result.payments.tolist() == [0, 0, 0]
    assert eisenberg_noe(CYCLE, [1e-9, 0, 1], which="least").payments.tolist() == [2, 2, 0]
    with pytest.raises(ContagionError, match=r"2 nodes, first 0.*'least'"):
        sensitivity(result, direction=direction)


def test_greatest_payments_with_senior_debt_jump_down_and_do_not_jump_up():
    cycle, assets, outside = np.array([[0.0, 9], [9, 0]]), np.array([1.0, 0]), np.array([0.0, 1])
    result = eisenberg_noe(cycle, assets, outside, external_rank="senior")
    assert result.payments.tolist() == [9, 9]
    lower = eisenberg_noe(cycle, assets - [1e-6, 0], outside, external_rank="senior")
    assert lower.payments_internal.sum() < 3  # from 17
    with pytest.raises(ContagionError, match="when external assets fall"):
        sensitivity(result, direction="down")
    assert sensitivity(result, direction="up").threat_index.tolist() == [0, 1]


@pytest.mark.parametrize("direction", ["up", "down"])
def test_assets_that_all_go_to_senior_creditors_bring_no_value_to_a_cycle(direction):
    liabilities = np.array([[0.0, 1, 0], [0, 0, 2], [0, 2, 0]])
    result = eisenberg_noe(liabilities, [1, 0, 0], [5, 0, 0], external_rank="senior")
    assert result.payments.tolist() == [1, 2, 2]
    slopes = sensitivity(result, direction=direction)
    assert slopes.threat_index.tolist() == [1, 0, 0]
    assert slopes.kinks.tolist() == []


def test_a_cycle_with_a_small_leak_is_no_jump():
    leak = 1e-6
    slopes = sensitivity(eisenberg_noe([[0, 1], [1, 0]], [leak / 4, 0], [leak, 0]))
    assert slopes.threat_index == pytest.approx([2 / leak + 2, 2 / leak + 1], rel=1e-6)


def test_the_dead_whose_payments_leave_them_have_a_derivative():
    result = eisenberg_noe([[0, 2, 0], [0, 0, 2], [0, 0, 0]], [0, 0, 0], which="least")
    assert sensitivity(result).threat_index.tolist() == [2, 1, 0]


# ------------------------------------------------------------------------------------------------------- size and shape


def test_many_defaulters_are_solved_by_iteration():
    random = np.random.default_rng(5)
    nodes, edges = 3_000, 30_000
    places = random.integers(0, nodes, (2, edges))
    keep = places[0] != places[1]
    liabilities = scipy.sparse.coo_array((random.random(keep.sum()), tuple(places[:, keep])), shape=(nodes, nodes))
    assets, external = random.random(nodes) * 1e-12, random.random(nodes) * 0.5
    result = eisenberg_noe(1e12 * liabilities, 1e12 * assets, 1e12 * external)
    slopes = sensitivity(result)
    assert result.defaulted.sum() > 2_000
    np.testing.assert_allclose(slopes.adjoint(equity=1, external=1).external_assets, 1, rtol=1e-10)
    operator, weights = slopes.by_liabilities(), random.standard_normal(nodes)
    move = random.standard_normal(operator.shape[1])
    change = operator @ move
    assert change @ weights == pytest.approx(move @ (operator.T @ weights), rel=1e-9)
    np.testing.assert_allclose(operator @ (1e-6 * move), 1e-6 * change, rtol=1e-8, atol=1e-15 * np.abs(change).max())


def test_a_scenario_is_chosen():
    scenarios = np.array([[1.0, 20.0], [1, 1], [1, 1], [1, 1]])
    result = eisenberg_noe(CHAIN, scenarios)
    assert sensitivity(result, scenario=0).threat_index.tolist() == [3, 2, 1, 0]
    assert sensitivity(result, scenario=1).threat_index.tolist() == [0, 0, 0, 0]
    with pytest.raises(ValueError, match="choose one with scenario="):
        sensitivity(result)
    with pytest.raises(ValueError, match="leave it out"):
        sensitivity(eisenberg_noe(CHAIN, [1, 1, 1, 1]), scenario=0)


def test_labels_name_what_is_found():
    names = pd.Index(["a", "b", "c", "d"])
    result = eisenberg_noe(pd.DataFrame(CHAIN, names, names), [10, 1, 1, 1])
    slopes = sensitivity(result)
    assert slopes.kinks.tolist() == ["a"]
    assert slopes.threat_index.index.equals(names)
    weights = pd.Series({"d": 4.0, "b": 2.0, "c": 3.0, "a": 1.0})
    one, other = (slopes.adjoint(equity=given).external_assets for given in (weights, [1, 2, 3, 4]))
    pd.testing.assert_series_equal(one, other)
    assert "1 at a kink" in repr(slopes)
    assert "direction up" in repr(slopes)


def test_the_gradient_has_the_edges_of_the_liabilities():
    result = eisenberg_noe(CHAIN, [1, 1, 1, 1])
    gradient = sensitivity(result).adjoint(equity=1)
    assert gradient.liabilities.indices.tolist() == result.liabilities.indices.tolist()
    assert gradient.liabilities.data.flags.writeable
    assert gradient.liabilities.nnz == 3


def test_bad_options():
    result = eisenberg_noe(CHAIN, [1, 1, 1, 1])
    with pytest.raises(ValueError, match="direction"):
        sensitivity(result, direction="left")
    with pytest.raises(ValueError, match="tolerance"):
        sensitivity(result, tolerance=np.nan)
    with pytest.raises(ValueError, match="'furfine'"):
        sensitivity(dataclasses.replace(result, model="furfine"))
    with pytest.raises(ValueError, match="of="):
        sensitivity(result).by_liabilities("losses")
    with pytest.raises(ValueError, match="equity: weights"):
        sensitivity(result).adjoint(equity=[1, 2])
    with pytest.raises(ValueError, match="payments: weights"):
        sensitivity(result).adjoint(payments=np.nan)
    unsettled = dataclasses.replace(result, status=Status.MAX_ROUNDS, statuses=(Status.MAX_ROUNDS,))
    with pytest.raises(NotSettledError):
        sensitivity(unsettled)
