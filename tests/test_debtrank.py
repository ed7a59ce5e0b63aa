"""DebtRank, linear and single hit: published and independent numbers, laws, plain twins, edges and bad input."""

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
from netcontagion.clearing import LinearDebtRank, _debtrank, _debtrank_kernels, debtrank, neva
from netcontagion.errors import NotSettledError, SchemaError

HERE = Path(__file__).resolve()
FIXTURE = json.loads((HERE.parent / "references" / "network_valuation.json").read_text(encoding="utf-8"))
CASES = {case["name"]: case for case in FIXTURE["cases"]}
ORACLES = {oracle["network"]: oracle for oracle in FIXTURE["oracles"]}
SHARED = HERE.parents[2] / "shared" / "reference"
VARIANTS = ("linear", "single_hit")

needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the folder shared/reference is not beside the checkout")
common = settings(max_examples=30, deadline=None, derandomize=True)


def random_network(seed, nodes=12, leverage=1.0, density=0.3):
    random = np.random.default_rng(seed)
    liabilities = random.random((nodes, nodes)) * (random.random((nodes, nodes)) < density)
    np.fill_diagonal(liabilities, 0)
    equity = (liabilities.sum(axis=0) + 0.1) * random.uniform(0.5, 2.0, nodes) / leverage
    shock = random.random(nodes) * (random.random(nodes) < 0.3)
    return liabilities, equity, shock


# ---------------------------------------------------------------------------------------------------------- plain twins


def impact_of(liabilities, equity, cap):
    impact = np.asarray(liabilities, dtype=float) / np.asarray(equity, dtype=float)
    return np.minimum(impact, 1.0) if cap else impact


def linear_twin(liabilities, equity, shock, cap=False, rounds=20_000):
    """Propagate increments, as the paper of 2015 states it."""
    impact = impact_of(liabilities, equity, cap)
    before, now = np.zeros(len(shock)), np.asarray(shock, dtype=float)
    for _ in range(rounds):
        before, now = now, np.minimum(1.0, now + impact.T @ (now - before))
        if (now == before).all():
            break
    return now


def single_hit_twin(liabilities, equity, shock, cap=True):
    """Walk node by node through the states undistressed, distressed and inactive, as the paper of 2012 states it."""
    impact = impact_of(liabilities, equity, cap)
    distress = [float(x) for x in shock]
    state = ["D" if x > 0 else "U" for x in distress]
    while "D" in state:
        new = list(distress)
        for j in range(len(distress)):
            hits = [impact[i, j] * distress[i] for i in range(len(distress)) if state[i] == "D"]
            new[j] = min(1.0, distress[j] + sum(hits))
        state = ["I" if s == "D" else "D" if s == "U" and h > 0 else s for s, h in zip(state, new, strict=True)]
        distress = new
    return np.array(distress)


@pytest.mark.parametrize("cap", [True, False])
@pytest.mark.parametrize("leverage", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("seed", range(8))
def test_linear_agrees_with_the_increments_of_the_paper(seed, leverage, cap):
    network = random_network(seed, leverage=leverage)
    result = debtrank(*network, cap_impact=cap)
    np.testing.assert_allclose(result.distress, linear_twin(*network, cap=cap), rtol=0, atol=2e-10)
    assert result.enclosure == "concave"
    assert result.width <= 1e-10
    assert (result.lower <= result.distress).all()
    assert (result.distress <= result.upper).all()


@pytest.mark.parametrize("cap", [True, False])
@pytest.mark.parametrize("seed", range(12))
def test_single_hit_agrees_with_the_walk_of_the_paper(seed, cap):
    network = random_network(seed, leverage=2.0)
    result = debtrank(*network, variant="single_hit", cap_impact=cap)
    np.testing.assert_allclose(result.distress, single_hit_twin(*network, cap=cap), rtol=0, atol=1e-14)
    assert result.enclosure == "none"


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("nodes", [3, 40])
def test_many_scenarios_side_by_side_are_each_as_if_alone(nodes, variant):
    for density, leverage in ((0.05, 1.5), (0.3, 0.9), (0.3, 3.0)):
        liabilities, equity, _ = random_network(nodes, nodes, leverage=leverage, density=density)
        random = np.random.default_rng(nodes)
        shocks = random.random((nodes, 21)) * (random.random((nodes, 21)) < 0.2)
        shocks[:, 0] = 0.0
        together = debtrank(liabilities, equity, shocks, variant=variant)
        assert together.distress.shape == together.lower.shape == together.upper.shape == shocks.shape
        assert together.value.shape == together.residual.shape == together.iterations.shape == (21,)
        twin = linear_twin if variant == "linear" else single_hit_twin
        for column, shock in enumerate(shocks.T):
            alone = debtrank(liabilities, equity, shock, variant=variant)
            np.testing.assert_allclose(together.distress[:, column], alone.distress, rtol=0, atol=2e-10)
            np.testing.assert_allclose(together.distress[:, column], twin(liabilities, equity, shock), atol=2e-10)
            assert together.value[column] == pytest.approx(alone.value, abs=1e-9)
            if variant == "linear":
                assert (together.lower[:, column] <= alone.upper).all()
                assert (alone.lower <= together.upper[:, column]).all()


def test_many_scenarios_do_not_depend_on_the_number_of_processors(monkeypatch):
    liabilities, equity, _ = random_network(5, 30)
    one = debtrank(liabilities, equity, np.eye(30))
    monkeypatch.setattr(_debtrank, "in_threads", lambda work, pieces: [work(*piece) for piece in pieces])
    other = debtrank(liabilities, equity, np.eye(30))
    assert one.distress.tolist() == other.distress.tolist()


def hits(seed, nodes=40, scenarios=37, leverage=0.9):
    """Draw a network whose impacts shrink where leverage is below 1, and scenarios of few shocks."""
    random = np.random.default_rng(seed)
    liabilities = random.lognormal(0, 1, (nodes, nodes)) * (random.random((nodes, nodes)) < 0.15)
    np.fill_diagonal(liabilities, 0)
    equity = (liabilities.sum(axis=0) + 1e-3) / leverage
    return liabilities, equity, random.random((nodes, scenarios)) * (random.random((nodes, scenarios)) < 0.05)


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_a_scenario_comes_to_does_not_depend_on_those_beside_it(variant):
    liabilities, equity, shocks = hits(0)
    together = debtrank(liabilities, equity, shocks, variant=variant)
    order = np.random.default_rng(1).permutation(37)
    shuffled = debtrank(liabilities, equity, shocks[:, order], variant=variant)
    for name in ("distress", "lower", "upper", "iterations"):
        assert (getattr(shuffled, name) == getattr(together, name)[..., order]).all()
    few = debtrank(liabilities, equity, shocks[:, :9], variant=variant)
    assert (few.distress == together.distress[:, :9]).all()


@pytest.mark.parametrize("leverage", [0.5, 0.95, 1.05, 3.0])
@pytest.mark.parametrize("seed", range(2))
def test_bounds_of_many_scenarios_enclose_what_long_numbers_say(seed, leverage):
    liabilities, equity, shocks = hits(seed, leverage=leverage)
    result = debtrank(liabilities, equity, shocks)
    impact, x = (liabilities / equity).T.astype(np.longdouble), shocks.astype(np.longdouble)
    exact = np.zeros_like(x)
    for _ in range(2_000):
        before, exact = exact, np.minimum(1, x + impact @ exact)
        if (before == exact).all():
            break
    assert (result.lower <= exact * (1 + 1e-17)).all()
    assert (result.upper >= exact * (1 - 1e-17)).all()
    assert (result.lower <= result.distress).all()
    assert (result.distress <= result.upper).all()
    assert result.status is Status.SETTLED


def test_leaps_halve_the_sweeps():
    liabilities, equity, shocks = hits(0, nodes=200)
    impact, distress, rounds = liabilities / equity, np.zeros_like(shocks), 0
    while rounds < 1_000:  # sweep by sweep, node by node, until nothing moves by what the bounds are wide
        before, rounds = distress.copy(), rounds + 1
        for node in range(200):
            distress[node] = np.minimum(1, shocks[node] + impact[:, node] @ distress)
        if np.abs(distress - before).max() <= 1e-11:
            break
    assert debtrank(liabilities, equity, shocks).iterations.max() <= rounds / 2


@pytest.mark.parametrize("leverage", [0.7, 3.0])
def test_compiled_loops_agree_with_plain_ones(leverage):
    liabilities, equity, shocks = hits(2, nodes=9, scenarios=3, leverage=leverage)
    impact = scipy.sparse.csr_array(liabilities / equity)
    into = impact.T.tocsr()
    margin, scale = _debtrank._margin(into)
    assert (len(margin) > 0) == (leverage < 1)
    given = *_debtrank._compressed(into), margin, scale, shocks
    found = []
    for kernel in (_debtrank_kernels.sweep_scenarios, _debtrank_kernels.sweep_scenarios.__wrapped__):
        found.append((np.zeros((3, 9, 3)), np.zeros((4, 3))))
        kernel(*given, *found[-1], 1e-10, _debtrank._rounding(into), 100, 2, 0, 3)
    for compiled, plain in zip(*found, strict=True):
        np.testing.assert_allclose(compiled, plain, rtol=0, atol=1e-15)
    walks = []
    for kernel in (_debtrank_kernels.walk_scenarios, _debtrank_kernels.walk_scenarios.__wrapped__):
        walks.append((np.zeros((9, 3)), np.zeros(3, dtype=np.int64)))
        kernel(*_debtrank._compressed(into), *_debtrank._compressed(impact), shocks, *walks[-1], 2, 0, 3)
    for compiled, plain in zip(*walks, strict=True):
        np.testing.assert_allclose(compiled, plain, rtol=0, atol=1e-15)


# ------------------------------------------------------------------------------------------------------ published cases


def case_answers(case):
    given, name = case["inputs"], case["name"]
    if name == "debtrank_2015_linear_resolvent":
        leverage = np.array(given["leverage"])
        radius = np.abs(np.linalg.eigvals(leverage)).max()
        return {"h": debtrank(leverage.T, np.ones(3), given["h0"]).distress, "spectral_radius": radius}
    impact = without_loops(np.array(given["impact"]))
    if name == "debtrank_order_2cycle":
        return {
            "h_2012": debtrank(impact, np.ones(2), given["h0"], variant="single_hit").distress,
            "h_2015": debtrank(impact, np.ones(2), given["h0"]).distress,
        }
    nodes, size = len(given["weights"]), len(impact)
    weights = np.append(given["weights"], np.zeros(size - nodes))
    result = debtrank(impact, np.ones(size), np.eye(size)[:, :nodes], variant="single_hit", weights=weights)
    distress = result.distress[:nodes]
    answers = {"debtrank": result.value, "additional_defaults": (distress >= 1).sum(axis=0) - 1}
    return answers | {f"final_stress_node{node}": distress[:, node - 1] for node in (2, 4, 6)}


def without_loops(impact):
    """Lead what a node does to itself over a relay: a node that has had its turn only receives, a step later or not."""
    loops = np.flatnonzero(np.diag(impact))
    wide = np.zeros((len(impact) + len(loops),) * 2)
    wide[: len(impact), : len(impact)] = impact - np.diag(np.diag(impact))
    for relay, node in enumerate(loops, start=len(impact)):
        wide[node, relay], wide[relay, node] = impact[node, node], 1.0
    return wide


def disagreements(case):
    found, tolerance = case_answers(case), case["tolerance"]["abs"]
    return [
        name
        for name, value in case["expected"].items()
        if not np.allclose(np.asarray(found[name], dtype=float), value, rtol=0, atol=tolerance)
    ]


DEBTRANK_CASES = [case for name, case in CASES.items() if name.startswith("debtrank")]


@pytest.mark.parametrize("case", DEBTRANK_CASES, ids=lambda case: case["name"])
def test_case(case):
    assert disagreements(case) == []
    for factor in (0.98, 1.02):
        expected = {name: (np.asarray(value) * factor).tolist() for name, value in case["expected"].items()}
        assert disagreements({**case, "expected": expected})


def test_an_inactive_node_still_receives_distress():
    result = debtrank([[0, 0.5], [0.5, 0]], [1, 1], [0.3, 0], variant="single_hit")
    assert result.distress[0] == pytest.approx(0.375)
    assert abs(result.distress[0] - 0.3) > 0.05  # what a node that stops receiving would have


# -------------------------------------------------------------------------------------------------------------- oracles


def oracle_network(oracle):
    debtor, creditor, amount = zip(*oracle["edges"], strict=True)
    nodes = len(oracle["equity_before"])
    liabilities = scipy.sparse.coo_array((amount, (debtor, creditor)), shape=(nodes, nodes))
    equity = np.array(oracle["equity_before"])
    return liabilities, equity, np.minimum(1.0, np.array(oracle["shock"]) / equity)


def shared_oracle(network):
    def column(path, name):
        with path.open(encoding="utf-8", newline="") as file:
            return [float(row[name]) for row in csv.DictReader(file)]

    inputs, outputs = SHARED / "oracles" / "inputs", SHARED / "oracles" / "outputs"
    edges, nodes = inputs / f"{network}_edges.csv", inputs / f"{network}_nodes.csv"
    places = ([int(value) for value in column(edges, name)] for name in ("debtor", "creditor"))
    found = {"edges": list(zip(*places, column(edges, "amount"), strict=True))}
    found |= {"equity_before": column(nodes, "equity0"), "shock": column(nodes, "shock"), "outputs": {}}
    for name in ("nrm_dr", "nrm_dr1"):
        file = outputs / f"{name}_{network}_summary.csv"
        summary = {key: column(file, key)[0] for key in ("original_stress", "additional_stress", "additional_losses")}
        found["outputs"][name] = {"h": column(outputs / f"{name}_{network}.csv", "h"), "summary": summary}
    for name in ("nrm_all", "nrm_all1"):
        file = outputs / f"{name}_{network}.csv"
        if file.exists():
            names = ("original_stress", "additional_stress", "original_losses", "additional_losses")
            found["outputs"][name] = {key: column(file, key) for key in (*names, "additional_defaults")}
    found["outputs"]["neva_lindr"] = {"equity": column(outputs / f"neva_lindr_{network}.csv", "equity")}
    return found


def assert_oracle(oracle, factor=1.0):
    liabilities, equity, shock = oracle_network(oracle)
    outputs = oracle["outputs"]
    for name, variant in (("nrm_dr", "linear"), ("nrm_dr1", "single_hit")):
        result = debtrank(liabilities, equity, shock, variant=variant, cap_impact=False)
        expected = outputs[name]
        capped = np.minimum(1.0, expected["h"])  # printed without a cap
        np.testing.assert_allclose(result.distress, capped * factor, rtol=0, atol=1e-10)
        summary = expected["summary"]
        assert result.weights @ shock == pytest.approx(summary["original_stress"] * factor, abs=1e-12)
        additional = result.weights @ (capped - shock)
        assert result.value == pytest.approx(additional * factor, abs=1e-10)
        if (np.array(expected["h"]) <= 1).all():
            assert result.value == pytest.approx(summary["additional_stress"], abs=1e-10)
    expected = np.clip(1 - np.array(outputs["neva_lindr"]["equity"]) / equity, 0, 1)
    np.testing.assert_allclose(debtrank(liabilities, equity, shock).distress, expected * factor, rtol=0, atol=1e-10)
    for name, variant in (("nrm_all", "linear"), ("nrm_all1", "single_hit")):
        if name in outputs:
            result = debtrank(liabilities, equity, np.eye(len(equity)), variant=variant, cap_impact=False)
            additional = np.array(outputs[name]["additional_stress"])
            np.testing.assert_allclose(result.value, additional * factor, rtol=0, atol=1e-10)
            defaults = (result.distress >= 1).sum(axis=0) - 1
            assert defaults.tolist() == outputs[name]["additional_defaults"]
            losses = equity @ (result.distress - np.eye(len(equity)))
            # the package counts losses beyond all equity of the node shocked, its h is not capped
            assert (losses <= np.array(outputs[name]["additional_losses"]) + 1e-8).all()
            np.testing.assert_allclose(result.weights, outputs[name]["original_stress"], rtol=0, atol=1e-14)


@pytest.mark.parametrize("network", ORACLES)
def test_oracle(network):
    assert_oracle(ORACLES[network])
    with pytest.raises(AssertionError):
        assert_oracle(ORACLES[network], factor=1.02)


@needs_shared
@pytest.mark.parametrize("network", ["mild_n20", "mild_n100", "stress_n20", "stress_n100"])
def test_every_oracle_of_the_shared_reference(network):
    assert_oracle(shared_oracle(network))


def test_a_cap_on_the_impact_changes_single_hit_where_a_package_does_not_cap():
    liabilities, equity, shock = oracle_network(ORACLES["stress_n20"])
    capped, uncapped = (
        debtrank(liabilities, equity, shock, variant="single_hit", cap_impact=cap).distress for cap in (None, False)
    )
    assert np.abs(capped - uncapped).max() > 0.1
    printed = np.minimum(1.0, ORACLES["stress_n20"]["outputs"]["nrm_dr1"]["h"])
    assert np.abs(capped - printed).max() > 0.1


def test_a_stop_at_a_small_step_would_miss_the_tenth_digit():
    # NetworkRiskMeasures stops by default when the 2-norm of a step falls below eps^0.2, about 7e-4
    liabilities, equity, shock = oracle_network(ORACLES["mild_n20"])
    impact, before, now = impact_of(liabilities.toarray(), equity, False), np.zeros(20), shock
    while np.linalg.norm(now - before) > 7e-4:
        before, now = now, np.minimum(1.0, now + impact.T @ (now - before))
    assert np.abs(now - debtrank(liabilities, equity, shock).distress).max() > 1e-5


# ----------------------------------------------------------------------------------------------------------------- laws

shares = st.one_of(st.just(0.0), st.integers(1, 16).map(lambda part: part / 16))


@st.composite
def networks(draw):
    nodes = draw(st.integers(1, 6))
    cells = draw(st.lists(shares, min_size=nodes * nodes, max_size=nodes * nodes))
    liabilities = np.array(cells).reshape(nodes, nodes)
    np.fill_diagonal(liabilities, 0)
    equity = np.array(draw(st.lists(st.integers(1, 40).map(lambda part: part / 8), min_size=nodes, max_size=nodes)))
    shock = np.array(draw(st.lists(shares, min_size=nodes, max_size=nodes)))
    return liabilities, equity, shock


@given(networks(), st.integers(0, 5), st.sampled_from([0.1, 1.0]))
@common
def test_linear_distress_rises_with_the_shock(network, node, more):
    liabilities, equity, shock = network
    larger = shock.copy()
    larger[node % len(shock)] = min(1.0, larger[node % len(shock)] + more)
    before, after = debtrank(*network), debtrank(liabilities, equity, larger)
    assert (after.upper >= before.lower).all()
    assert (after.distress >= before.distress - 1e-9).all()


@given(networks())
@common
def test_linear_distress_is_the_least_fixed_point(network):
    liabilities, equity, shock = network
    result = debtrank(*network, rtol=1e-12)
    impact, below = impact_of(liabilities, equity, False), np.zeros(len(shock))
    image = np.minimum(1.0, shock + impact.T @ result.distress)
    np.testing.assert_allclose(image, result.distress, rtol=0, atol=1e-9)
    for _ in range(50):  # the rounds from 0 are at most the least fixed point
        below = np.minimum(1.0, shock + impact.T @ below)
    assert (below <= result.upper + 1e-15).all()
    reached = shock > 0
    for _ in shock:
        reached = reached | ((impact.T @ reached) > 0)
    assert (result.distress[~reached] == 0).all()


@given(networks(), st.sampled_from(VARIANTS), st.randoms(use_true_random=False))
@common
def test_names_of_nodes_do_not_matter(network, variant, random):
    liabilities, equity, shock = network
    order = list(range(len(shock)))
    random.shuffle(order)
    plain = debtrank(*network, variant=variant)
    shuffled = debtrank(liabilities[np.ix_(order, order)], equity[order], shock[order], variant=variant)
    np.testing.assert_allclose(shuffled.distress, plain.distress[order], rtol=0, atol=3e-10)
    assert shuffled.value == pytest.approx(plain.value, abs=1e-9)


@given(networks(), st.sampled_from(VARIANTS), st.sampled_from([1e-12, 1e-6, 7.0, 1e6, 1e12]))
@common
def test_the_unit_of_money_does_not_matter(network, variant, unit):
    liabilities, equity, shock = network
    plain = debtrank(*network, variant=variant)
    scaled = debtrank(unit * liabilities, unit * equity, shock, variant=variant)
    np.testing.assert_allclose(scaled.distress, plain.distress, rtol=0, atol=3e-10)
    assert scaled.value == pytest.approx(plain.value, abs=1e-9)


@given(networks(), st.booleans())
@common
def test_single_hit_is_at_most_linear(network, cap):
    single, linear = (debtrank(*network, variant=name, cap_impact=cap) for name in ("single_hit", "linear"))
    assert (single.distress <= linear.upper + 1e-12).all()


@given(networks())
@common
def test_linear_is_the_linear_debtrank_of_neva(network):
    liabilities, equity, shock = network
    external = liabilities.sum(axis=0) + 50.0 - liabilities.sum(axis=1) + 1.0  # so that book equity comes out
    assets, outside = np.full(len(shock), 51.0) + equity, external
    valued = neva(liabilities, assets - shock * equity, outside, valuation=LinearDebtRank(), assets_before=assets)
    np.testing.assert_allclose(
        np.clip(1 - valued.net_worth / equity, 0, 1), debtrank(*network).distress, rtol=0, atol=1e-8
    )


def test_single_hit_distress_can_fall_with_the_shock():
    chain = np.diag([1.0, 1.0], 1)
    plain, more = (debtrank(chain, np.ones(3), x, variant="single_hit").distress for x in ([1, 0, 0], [1, 0.01, 0]))
    assert plain.tolist() == [1, 1, 1]
    assert more.tolist() == [1, 1, 0.01]


def test_losses_are_not_conserved_cycles_amplify():
    result = debtrank([[0, 5], [5, 0]], [10, 10], [0.3, 0])
    assert result.distress @ [10, 10] == pytest.approx(6.0, abs=1e-8)  # out of a loss of 3


def test_single_hit_neither_conserves_losses_nor_solves_an_equation():
    cycle, shock = np.array([[0, 5.0], [5, 0]]), np.array([0.3, 0])
    distress = debtrank(cycle, [10, 10], shock, variant="single_hit").distress
    assert distress @ [10, 10] == pytest.approx(5.25)  # out of a loss of 3
    assert np.minimum(1, shock + cycle.T @ distress / 10).tolist() == pytest.approx([0.375, 0.1875])
    assert distress.tolist() == pytest.approx([0.375, 0.15])


def test_of_several_fixed_points_it_is_the_least():
    cycle = np.zeros((3, 3))
    cycle[0, 1] = cycle[1, 0] = 2.0  # amplifies: 0 and 1 are both fixed points without a shock there
    result = debtrank(cycle, np.ones(3), [0, 0, 0.5])
    assert result.distress.tolist() == [0, 0, 0.5]
    assert result.width <= 1e-12
    np.testing.assert_allclose(debtrank(cycle, np.ones(3), [1e-9, 0, 0]).distress, [1, 1, 0], rtol=0, atol=1e-12)


# ---------------------------------------------------------------------------------------------- slow networks, statuses


@pytest.mark.parametrize("gain", [0.9, 0.999, 0.99999])
@pytest.mark.parametrize("scenarios", [1, 20])
def test_slow_cycles_are_exact_and_enclosed(gain, scenarios):
    shock = np.zeros((2, scenarios))
    shock[0] = 1e-6
    result = debtrank([[0, gain], [gain, 0]], [1, 1], shock[:, 0] if scenarios == 1 else shock)
    exact = 1e-6 / (1 - gain**2)
    distress = result.distress.reshape(2, -1)
    np.testing.assert_allclose(distress, np.array([exact, gain * exact])[:, None] * np.ones((1, scenarios)), atol=1e-10)
    assert result.enclosure == "concave"
    assert (result.lower.reshape(2, -1) <= np.array([[exact], [gain * exact]]) * (1 + 1e-12)).all()
    assert (result.upper.reshape(2, -1) >= np.array([[exact], [gain * exact]]) * (1 - 1e-12)).all()
    assert np.max(result.width) <= 1e-9


def test_a_cycle_that_barely_amplifies_ends_at_one():
    result = debtrank([[0, 1.0001], [1.0001, 0]], [1, 1], [1e-4, 0])
    np.testing.assert_allclose(result.distress, [1, 1], rtol=0, atol=1e-9)
    assert result.iterations < 1_000


@pytest.mark.parametrize("scenarios", [1, 10])
def test_too_few_rounds_raise_with_the_result(scenarios):
    shock = np.zeros((2, scenarios))
    shock[0] = 0.01
    network = [[0, 0.9], [0.9, 0]], [1, 1], shock[:, 0] if scenarios == 1 else shock
    with pytest.raises(NotSettledError, match="MAX_ROUNDS") as caught:
        debtrank(*network, max_rounds=6)
    result = caught.value.result
    assert result.status is Status.MAX_ROUNDS
    exact = np.array([0.01, 0.009]) / (1 - 0.81)
    loose = debtrank(*network, max_rounds=6, strict=False)
    assert (exact >= loose.lower.T).all()
    assert (exact <= loose.upper.T).all()
    assert debtrank(*network).status is Status.SETTLED


def test_a_failing_scenario_is_named():
    shocks = np.zeros((2, 9))
    shocks[0, 4] = 0.01
    with pytest.raises(NotSettledError, match="in 1 of 9 scenarios, first 4"):
        debtrank([[0, 0.9], [0.9, 0]], [1, 1], shocks, max_rounds=6)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("scenarios", [1, 9])
def test_a_long_chain_reaches_its_end(variant, scenarios):
    chain = scipy.sparse.diags_array(np.ones(299), offsets=1)
    shock = np.zeros((300, scenarios))
    shock[0] = 0.5
    result = debtrank(chain, np.ones(300), shock if scenarios > 1 else shock[:, 0], variant=variant)
    assert (result.distress == 0.5).all()


# ------------------------------------------------------------------------------------------------------- result, edges


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("scenarios", [None, 0, 9])
def test_edges(variant, scenarios):
    shape = (lambda nodes: (nodes,)) if scenarios is None else (lambda nodes: (nodes, scenarios))
    assert debtrank(np.zeros((0, 0)), [], np.zeros(shape(0)), variant=variant).distress.shape == shape(0)
    alone = debtrank(np.zeros((2, 2)), [1, 1], np.full(shape(2), 0.25), variant=variant)
    assert (alone.distress == 0.25).all()
    assert np.all(alone.value == 0.0)
    calm = debtrank([[0, 5.0], [5.0, 0]], [1, 1], np.zeros(shape(2)), variant=variant)
    assert (calm.distress == 0).all()
    assert (calm.upper == 0).all()
    assert "DebtRankResult" in repr(calm)


def test_orientation_debtors_are_rows():
    chain = [[0, 2, 0], [0, 0, 8], [0, 0, 0]]  # 0 owes 1, 1 owes 2: distress of 0 goes to 1 and on to 2
    result = debtrank(chain, [10, 4, 10], [0.5, 0, 0])
    np.testing.assert_allclose(result.distress, [0.5, 0.25, 0.2], rtol=0, atol=1e-12)
    assert debtrank(np.transpose(chain), [10, 4, 10], [0.5, 0, 0]).distress.tolist() == [0.5, 0, 0]


def test_value_does_not_count_the_shock_and_weights_are_used_as_given():
    chain = [[0, 2, 0], [0, 0, 8], [0, 0, 0]]
    result = debtrank(chain, [10, 4, 10], [0.5, 0, 0])
    np.testing.assert_allclose(result.weights, [0, 0.2, 0.8])
    assert result.value == pytest.approx(0.2 * 0.25 + 0.8 * 0.2, abs=1e-10)
    assert debtrank(chain, [10, 4, 10], [0.5, 0, 0], weights=[100, 10, 1]).value == pytest.approx(2.7, abs=1e-8)


def test_labels_name_the_result():
    names = pd.Index(["a", "b", "c"], name="bank")
    table = pd.DataFrame([[0, 2, 0], [0, 0, 8], [0, 0, 0]], index=names, columns=names)
    equity, shock = pd.Series({"c": 10, "a": 10, "b": 4}), pd.Series({"b": 0, "c": 0, "a": 0.5})
    result = debtrank(table[["c", "b", "a"]], equity, shock)
    assert result.distress.round(9).to_dict() == {"a": 0.5, "b": 0.25, "c": 0.2}
    assert isinstance(debtrank(table, equity, np.eye(3)).upper, pd.DataFrame)


def test_arrays_are_read_only_and_the_input_is_not_changed():
    shock = np.array([0.5, 0, 0])
    matrix = scipy.sparse.csr_array(np.diag([2.0, 8.0], 1))
    result = debtrank(matrix, [10, 4, 10], shock)
    shock[0] = 0.9
    assert result.shock[0] == 0.5
    assert matrix.data.tolist() == [2, 8]
    with pytest.raises(ValueError, match="read-only"):
        result.distress[0] = 0


def test_every_problem_is_listed():
    with pytest.raises(SchemaError) as caught:
        debtrank([[1, -2.0], [np.nan, 0]], [0.0, -1.0], [1.5, np.nan], weights=[-1, 0, 0])
    found = {(problem.table, problem.row) for problem in caught.value.problems}
    assert found == {
        ("liabilities", 0), ("liabilities", 1), ("equity", 0), ("equity", 1), ("shock", 0), ("shock", 1),
        ("weights", 0),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("network", "table"),
    [
        (([[0, 1], [0, 0]], [1, 1, 1], [0, 0]), "equity"),
        (([[0, 1], [0, 0]], [1, 1], [0, 0, 0]), "shock"),
        (([[0, 1], [0, 0]], [1, 1], 0.5), "shock"),
        (([[0, 1], [0, 0]], [1, 1], None), "shock"),
        (([[0, 1], [0, 0]], ["x", 1], [0, 0]), "equity"),
        ((np.zeros((2, 3)), [1, 1], [0, 0]), "liabilities"),
        ((np.zeros(2), [1, 1], [0, 0]), "liabilities"),
        (("x", [1, 1], [0, 0]), "liabilities"),
    ],
)
def test_bad_shapes(network, table):
    with pytest.raises(SchemaError) as caught:
        debtrank(*network)
    assert {problem.table for problem in caught.value.problems} == {table}


@pytest.mark.parametrize(
    "options", [{"variant": "double"}, {"cap_impact": 2.0}, {"rtol": 0.0}, {"rtol": float("nan")}, {"max_rounds": 0}]
)
def test_bad_options(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        debtrank([[0, 1], [0, 0]], [1, 1], [0.5, 0], **options)


@pytest.mark.slow
def test_all_single_defaults_of_a_large_network_agree_with_block_iteration():
    random, nodes, edges = np.random.default_rng(0), 2_000, 40_000
    debtor, creditor = random.integers(0, nodes, edges), random.integers(0, nodes, edges)
    keep = debtor != creditor
    amounts = random.lognormal(0, 1, keep.sum())
    liabilities = scipy.sparse.coo_array((amounts, (debtor[keep], creditor[keep])), shape=(nodes, nodes)).tocsr()
    equity = np.maximum(liabilities.sum(axis=0), 1e-3) / random.uniform(0.4, 0.9, nodes)
    result = debtrank(liabilities, equity, np.eye(nodes))
    into, now = (liabilities / equity).T.tocsr(), np.eye(nodes)[:, :100]
    for _ in range(200):
        now = np.minimum(1.0, np.eye(nodes)[:, :100] + into @ now)
    np.testing.assert_allclose(result.distress[:, :100], now, rtol=0, atol=1.1e-10)
    assert result.enclosure == "concave"


# ----------------------------------------------------------------------------------------------- bounds that must hold


def test_impacts_that_overflow_along_a_way_take_no_bounds_away():
    """A margin of shrinking impacts has no end where impacts multiply to more than numbers hold."""
    random = np.random.default_rng(3)
    owed = np.zeros((34, 34))
    owed[:30, :30] = random.lognormal(0, 1, (30, 30)) * (random.random((30, 30)) < 0.2)
    np.fill_diagonal(owed, 0)
    owed[30, 31] = owed[31, 32] = 1e200
    equity = np.ones(34)
    equity[:30] = (owed[:30, :30].sum(axis=0) + 1e-3) / 0.85
    shocks = np.zeros((34, 8))
    shocks[0], shocks[30] = 0.001, 0.5
    together, alone = debtrank(owed, equity, shocks), debtrank(owed, equity, shocks[:, 0])
    assert (together.width <= 1e-9).all()
    np.testing.assert_allclose(together.distress[:, 0], alone.distress, rtol=0, atol=1e-9)


def test_a_margin_lost_to_rounding_is_none():
    impact = scipy.sparse.csr_array(([0.5, 1e16], ([0, 2], [1, 3])), (4, 4))
    margin, _ = _debtrank._margin(impact.T.tocsr())
    assert (margin > 0).all()


@pytest.mark.parametrize(("size", "weight"), [(30_000, 1 - 1 / 30_000), (5_000, 1.0)])
def test_rounding_along_a_chain_stays_within_the_bounds(size, weight):
    chain = scipy.sparse.csr_array((np.full(size - 1, weight), (np.arange(size - 1), np.arange(1, size))), (size, size))
    shocks = np.zeros((size, 8))
    shocks[0] = 1 / 3
    result = debtrank(chain, np.ones(size), shocks, max_rounds=1_000)
    exact = np.longdouble(shocks[0, 0]) * np.cumprod(np.r_[1.0, np.full(size - 1, weight)].astype(np.longdouble))
    assert (result.lower[:, 0] <= exact).all()
    assert (result.upper[:, 0] >= exact).all()
