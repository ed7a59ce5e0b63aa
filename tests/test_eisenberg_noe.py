"""Eisenberg-Noe clearing: by hand, at the edges, with exact arithmetic, and with input that is wrong."""

from __future__ import annotations

import dataclasses
import functools
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from seeds import some_and_slow

from netcontagion._status import Status
from netcontagion.clearing import ClearingResult, _linear, _solvers, eisenberg_noe
from netcontagion.errors import ContagionError, NotSettledError, SchemaError

SOLVERS = ["auto", "push", "accelerated", "fixed_point", "fictitious_default"]
BANKS = np.array([[0.0, 20.0, 10.0], [5.0, 0.0, 24.0], [10.0, 0.0, 0.0]])


def random_network(seed, nodes=8, without_assets=0.4):
    random = np.random.default_rng(seed)
    liabilities = random.integers(1, 20, (nodes, nodes)) * (random.random((nodes, nodes)) < random.choice([0.2, 0.5]))
    np.fill_diagonal(liabilities, 0)
    assets = random.integers(1, 15, nodes) * (random.random(nodes) > without_assets)
    external = random.integers(1, 10, nodes) * (random.random(nodes) < 0.4)
    return liabilities.astype(float), assets.astype(float), external.astype(float)


# ------------------------------------------------------------------------------------------------------- exact twins


def solve_exactly(matrix, right):
    """Gauss-Jordan elimination in fractions."""
    rows = [[*row, value] for row, value in zip(matrix, right, strict=True)]
    for i in range(len(rows)):
        pivot = next(k for k in range(i, len(rows)) if rows[k][i] != 0)
        rows[i], rows[pivot] = rows[pivot], rows[i]
        rows[i] = [value / rows[i][i] for value in rows[i]]
        for k in range(len(rows)):
            if k != i and rows[k][i] != 0:
                rows[k] = [a - rows[k][i] * b for a, b in zip(rows[k], rows[i], strict=True)]
    return [row[-1] for row in rows]


def clear_exactly(liabilities, assets, external):
    """Find the greatest clearing vector, pari passu, and its waves by fictitious default in fractions."""
    nodes = range(len(assets))
    owed = [[Fraction(value) for value in row] for row in np.asarray(liabilities).tolist()]
    assets = [Fraction(value) for value in np.asarray(assets).tolist()]
    external = [Fraction(value) for value in np.asarray(external).tolist()]
    dues = [sum(owed[i]) + external[i] for i in nodes]
    share = [[owed[i][j] / dues[i] if dues[i] else Fraction(0) for j in nodes] for i in nodes]
    wave, payments = [-1] * len(dues), dues
    for number in range(len(dues) + 1):
        has = [assets[i] + sum(share[j][i] * payments[j] for j in nodes) for i in nodes]
        new = [i for i in nodes if wave[i] < 0 and has[i] < dues[i]]
        if not new:
            break
        for i in new:
            wave[i] = number
        fallen = [i for i in nodes if wave[i] >= 0]
        matrix = [[Fraction(i == j) - share[j][i] for j in fallen] for i in fallen]
        right = [assets[i] + sum(share[j][i] * dues[j] for j in nodes if wave[j] < 0) for i in fallen]
        found = dict(zip(fallen, solve_exactly(matrix, right), strict=True))
        payments = [found.get(i, dues[i]) for i in nodes]
    return payments, wave


@functools.cache
def clear_random_exactly(seed, nodes=8):
    return clear_exactly(*random_network(seed, nodes))


def assert_encloses(result, exact):
    for node, value in enumerate(exact):
        assert Fraction(float(result.lower[node])) <= value <= Fraction(float(result.upper[node])), node


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("seed", some_and_slow(25, 40))
def test_bounds_enclose_the_exact_vector(seed, solver):
    network = random_network(seed)
    exact, _ = clear_random_exactly(seed)
    result = eisenberg_noe(*network, solver=solver)
    assert result.enclosure == ("bracket" if solver == "push" else "concave")
    assert_encloses(result, exact)
    np.testing.assert_allclose(
        result.payments, [float(value) for value in exact], rtol=0, atol=1e-10 * result.dues.max()
    )


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("leak", [1e-2, 1e-6, 1e-9])
@pytest.mark.parametrize("nodes", [2, 3, 5])
def test_bounds_enclose_the_exact_vector_of_slow_cycles(nodes, leak, solver):
    liabilities, external = np.roll(np.diag(np.full(nodes, 0.7)), 1, axis=1), np.full(nodes, 0.7 * leak)
    assets = np.zeros(nodes)
    assets[0] = 0.3 * leak
    rounds = {"max_rounds": 300, "strict": False} if solver in ("fixed_point", "push") else {}
    result = eisenberg_noe(liabilities, assets, external, solver=solver, **rounds)
    exact, _ = clear_exactly(liabilities, assets, external)
    assert_encloses(result, exact)
    if not rounds:
        assert result.status is Status.SETTLED
        assert result.width < 1e-5
        assert result.width <= 1e-10 or any("rounding" in sentence for sentence in result.assumptions)


def many_small_creditors():
    """Build a cycle that leaks only by 400 debts, all lost if the dues were summed one after the other."""
    nodes, large = 402, 2.0**30
    liabilities = np.zeros((nodes, nodes))
    liabilities[0, 1], liabilities[0, 2:], liabilities[1, 0] = large, 0.49 * 2.0**-22, 2 * large
    return liabilities, np.concatenate([[1e-14 * large], np.zeros(nodes - 1)])


def test_bounds_allow_for_the_rounding_of_the_dues_of_a_node_with_many_creditors():
    liabilities, assets = many_small_creditors()
    assert_encloses(eisenberg_noe(liabilities, assets), clear_exactly_two(liabilities, Fraction(float(assets[0]))))


def clear_exactly_two(liabilities, asset):
    row = [Fraction(value) for value in liabilities[0].tolist()]
    dues = sum(row)
    first = asset / (1 - row[1] / dues)
    assert first < dues
    assert first * row[1] / dues < Fraction(float(liabilities[1, 0]))
    return [first, first * row[1] / dues, *[Fraction(0)] * (len(row) - 2)]


def test_value_that_enters_at_one_end_of_a_long_ring_is_certified():
    nodes = 100
    ring, external = np.roll(np.diag(np.full(nodes, 10.0)), 1, axis=1), np.full(nodes, 0.25)
    assets = np.zeros(nodes)
    assets[0] = 1.0
    exact, _ = clear_exactly(ring, assets, external)
    for solver in SOLVERS:
        result = eisenberg_noe(ring, assets, external, solver=solver)
        assert result.enclosure == ("bracket" if solver == "push" else "concave"), solver
        assert result.width <= 1e-10, solver
        assert_encloses(result, exact)


# ------------------------------------------------------------------------------------------------------------- waves


@pytest.mark.parametrize("seed", some_and_slow(30, 60))
def test_waves_are_those_of_fictitious_default(seed):
    network = random_network(seed, nodes=10)
    expected = clear_exactly(*network)[1]
    assert eisenberg_noe(*network, solver="fictitious_default").default_wave.tolist() == expected
    assert eisenberg_noe(*network, solver="fixed_point", waves=True).default_wave.tolist() == expected
    assert eisenberg_noe(*network).default_wave is None


def test_waves_count_from_nodes_that_cannot_pay_though_all_others_do():
    chain = np.diag([10.0, 10.0, 10.0], 1)
    # Only 0 fails by itself; 1 could pay out of ten but gets eight; then 2 gets nine.
    result = eisenberg_noe(chain, [8.0, 1.0, 0.5, 0.0], waves=True)
    assert result.payments.tolist() == [8, 9, 9.5, 0]
    assert result.default_wave.tolist() == [0, 1, 2, -1]


@pytest.mark.parametrize("solver", SOLVERS)
def test_zero_payers_inside_the_default_set_with_senior_debt(solver):
    # Node 0 is hopeless, node 1 hangs on it, node 2 on node 1: 0 pays nothing, 1 its three, 2 its two and three.
    chain = np.diag([5.0, 6.0, 9.0], 1)
    result = eisenberg_noe(chain, [1, 3, 2, 0], [9, 0, 0, 1], external_rank="senior", solver=solver, waves=True)
    assert result.payments_internal.tolist() == [0, 3, 5, 0]
    assert result.payments_external.tolist() == [1, 0, 0, 1]
    assert result.net_worth.tolist() == [-13, -3, -4, 4]
    assert result.default_wave.tolist() == [0, 1, 0, -1]


# ------------------------------------------------------------------------------------------------------------- edges


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("which", ["greatest", "least"])
class TestEdges:
    def test_no_nodes(self, solver, which):
        result = eisenberg_noe(np.zeros((0, 0)), [], solver=solver, which=which)
        assert result.payments.shape == (0,)
        assert result.status is Status.SETTLED
        result.check()

    def test_nobody_owes_anything(self, solver, which):
        result = eisenberg_noe(np.zeros((3, 3)), [1, 0, 2], solver=solver, which=which)
        assert result.payments.tolist() == [0, 0, 0]
        assert result.recovery_rate.tolist() == [1, 1, 1]
        assert not result.defaulted.any()
        assert result.equity.tolist() == [1, 0, 2]

    def test_knife_edge_is_solvent(self, solver, which):
        thirds = np.array([[0, 0.1, 0.2], [0, 0, 0.3], [0, 0, 0]])
        result = eisenberg_noe(thirds, [0.3, 0.2, 0.0], solver=solver, which=which)
        assert not result.defaulted.any()

    def test_nobody_has_anything(self, solver, which):
        result = eisenberg_noe([[0, 2, 1], [2, 0, 0], [0, 0, 0]], [0, 0, 0], solver=solver, which=which)
        assert result.payments.tolist() == [0, 0, 0]
        assert result.defaulted.tolist() == [True, True, False]
        assert result.width == 0

    def test_closed_cycle_without_value_is_not_unique(self, solver, which):
        cycle = scipy.sparse.block_diag([[[0, 4], [6, 0]], BANKS])
        result = eisenberg_noe(cycle, [0, 0, 10, 10, 10], solver=solver, which=which)
        assert result.payments[:2] == pytest.approx([4, 4] if which == "greatest" else [0, 0], abs=1e-12)
        assert result.payments[2:] == pytest.approx([270 / 11, 290 / 11, 10])
        assert result.enclosure == ("bracket" if solver == "push" else "concave")
        assert result.width <= 1e-10
        assert any("no value reaches 2 nodes" in sentence for sentence in result.assumptions)

    def test_cycle_without_value_and_with_a_leak_pays_nothing(self, solver, which):
        result = eisenberg_noe([[0, 4], [6, 0]], [0, 0], [0, 1e-9], solver=solver, which=which)
        assert result.payments == pytest.approx([0, 0], abs=1e-12)
        assert result.upper.tolist() == [0, 0]

    def test_two_external_creditors_only(self, solver, which):
        result = eisenberg_noe(np.zeros((2, 2)), [3, 1], [2, 2], solver=solver, which=which)
        assert result.payments.tolist() == result.payments_external.tolist() == [2, 1]


def test_unequal_closed_class_pays_the_greatest_invariant_vector():
    liabilities = np.array([[0, 3.0, 1.0], [2.0, 0, 7.0], [1.0, 8.0, 0]])
    result = eisenberg_noe(liabilities, [0, 0, 0])
    share = liabilities / liabilities.sum(axis=1)[:, None]
    np.testing.assert_allclose(share.T @ result.payments, result.payments, rtol=1e-12)
    assert (result.dues - result.payments).min() == pytest.approx(0, abs=1e-12)
    assert_encloses(result, clear_exactly(liabilities, np.zeros(3), np.zeros(3))[0])


@pytest.mark.parametrize("density", [0.02, 0.05])  # at 0.05 a refinement breaks down at rounding level
def test_large_default_sets_are_solved_by_iteration_and_agree(density, monkeypatch):
    monkeypatch.setattr(_linear, "DIRECT_SIZE", 5)
    random = np.random.default_rng(3)
    liabilities = random.random((400, 400)) * (random.random((400, 400)) < density)
    np.fill_diagonal(liabilities, 0)
    assets = random.random(400) * 0.5
    auto, exact = (eisenberg_noe(liabilities, assets, assets, solver=name) for name in ("auto", "fictitious_default"))
    assert exact.defaulted.sum() > 20
    assert auto.iterations < 30  # the iteration did not fail, else the fixed point would have taken over
    np.testing.assert_allclose(auto.payments, exact.payments, rtol=1e-10)
    assert auto.width <= 1e-10


@pytest.mark.parametrize("rank", ["pari_passu", "senior"])
def test_auto_goes_back_to_the_fixed_point_where_its_linear_solve_fails(rank, monkeypatch):
    monkeypatch.setattr(_solvers, "solve_unpaid", lambda *_, direct: None)
    network = random_network(2, nodes=12, without_assets=0.0)
    result, slow = (eisenberg_noe(*network, external_rank=rank, solver=name) for name in ("auto", "fixed_point"))
    assert result.status is Status.SETTLED
    assert result.iterations > slow.iterations  # those before it failed count too
    np.testing.assert_allclose(result.payments, slow.payments, atol=1e-9)
    with pytest.raises(NotSettledError, match="MAX_ROUNDS") as caught:
        eisenberg_noe(*network, external_rank=rank, max_rounds=25)
    assert caught.value.result.iterations == 25


@pytest.mark.parametrize("seed", range(30))
def test_least_vector_with_senior_debt_is_where_the_iteration_from_below_ends(seed):
    liabilities, assets, external = random_network(seed)
    internal = liabilities.sum(axis=1)
    share = np.divide(liabilities, internal[:, None], out=np.zeros_like(liabilities), where=internal[:, None] > 0)
    payments = np.zeros(len(assets))
    for _ in range(20_000):
        before, payments = payments, np.clip(assets - external + share.T @ payments, 0, internal)
        if (payments == before).all():
            break
    for solver in ("auto", "fixed_point"):
        result = eisenberg_noe(liabilities, assets, external, external_rank="senior", which="least", solver=solver)
        np.testing.assert_allclose(result.payments_internal, payments, atol=1e-8)


# --------------------------------------------------------------------------------------------- scenarios, status, input


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("rank", ["pari_passu", "senior"])
def test_scenarios_are_solved_as_if_alone(rank, solver):
    liabilities, assets, external = random_network(4)
    scenarios = np.column_stack([assets, assets * 0.5, assets * 0.0, assets + 20])
    together = eisenberg_noe(liabilities, scenarios, external, external_rank=rank, solver=solver, waves=True)
    assert together.payments.shape == together.lower.shape == together.default_wave.shape == scenarios.shape
    assert together.residual.shape == together.iterations.shape == together.width.shape == (4,)
    together.check()
    for column, alone in enumerate(scenarios.T):
        result = eisenberg_noe(liabilities, alone, external, external_rank=rank, solver=solver, waves=True)
        assert together.payments[:, column].tolist() == result.payments.tolist()
        assert together.default_wave[:, column].tolist() == result.default_wave.tolist()
        paid = together.payment_matrix(scenario=column) - result.payment_matrix()
        assert abs(paid).max() == 0
    assert len(together.summary()) == 4
    assert "4 scenarios" in repr(together)
    with pytest.raises(ValueError, match="choose one with scenario="):
        together.payment_matrix()


def test_no_scenarios():
    result = eisenberg_noe(BANKS, np.zeros((3, 0)))
    assert result.payments.shape == (3, 0)
    assert result.status is Status.SETTLED
    assert "0 scenarios" in repr(result)
    result.check()


def slow_cycle(**options):
    return eisenberg_noe([[0, 1], [1, 0]], [0.001, 0], [0.01, 0.01], max_rounds=5, solver="fixed_point", **options)


def test_too_few_rounds_raise_with_the_result():
    with pytest.raises(NotSettledError, match="MAX_ROUNDS") as caught:
        slow_cycle()
    result = caught.value.result
    assert isinstance(result, ClearingResult)
    assert result.status is Status.MAX_ROUNDS
    assert result.iterations == 5
    assert result.residual > 1e-10


def test_too_few_rounds_return_valid_bounds_when_not_strict():
    result = slow_cycle(strict=False)
    assert result.status is Status.MAX_ROUNDS
    assert_encloses(result, clear_exactly([[0, 1], [1, 0]], [0.001, 0], [0.01, 0.01])[0])


def test_a_small_step_does_not_settle_a_slow_cycle():
    network = [[0, 1], [1, 0]], [0.005, 0], [0.01, 0.01]
    result = eisenberg_noe(*network, solver="fixed_point", rtol=1e-6)
    assert result.width <= 1e-6
    assert result.residual < 1e-7
    exact = clear_exactly(*network)[0]
    np.testing.assert_allclose(result.payments, [float(value) for value in exact], rtol=0, atol=1.02e-6)


@pytest.mark.parametrize("solver", ["auto", "fictitious_default"])
def test_waves_count_as_rounds(solver):
    chain = np.diag(np.full(9, 10.0), 1)
    assets = np.zeros(10)
    with pytest.raises(NotSettledError, match="MAX_ROUNDS"):
        eisenberg_noe(chain, assets + 0.5, np.full(10, 0.1), solver=solver, max_rounds=1)


def test_one_failing_scenario_is_named():
    scenarios = np.array([[10.0, 0.001], [10.0, 0.0]])
    with pytest.raises(NotSettledError, match="in 1 of 2 scenarios, first 1"):
        eisenberg_noe([[0, 1], [1, 0]], scenarios, [0.01, 0.01], max_rounds=5, solver="fixed_point")


def problems_of(*network, **options):
    with pytest.raises(SchemaError) as caught:
        eisenberg_noe(*network, **options)
    return {(problem.table, problem.column, problem.row) for problem in caught.value.problems}


def test_every_problem_is_listed():
    liabilities = np.array([[1.0, -2.0, 0.0], [np.nan, 0.0, np.inf], [0.0, 0.0, 0.0]])
    found = problems_of(liabilities, [1.0, -1.0, np.nan], [0.0, np.inf, -3.0])
    assert found == {
        ("liabilities", "0", 0),
        ("liabilities", "1", 0),
        ("liabilities", "0", 1),
        ("liabilities", "2", 1),
        ("external_assets", None, 1),
        ("external_assets", None, 2),
        ("external_liabilities", None, 1),
        ("external_liabilities", None, 2),
    }


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        ((np.zeros((2, 3)), [1, 1]), {("liabilities", None, None)}),
        ((np.zeros(4), [1, 1]), {("liabilities", None, None)}),
        (([[0, 1], [0, 0]], [1, 1, 1]), {("external_assets", None, None)}),
        (([[0, 1], [0, 0]], [1, 1], [1]), {("external_liabilities", None, None)}),
        (([[0, 1], [0, 0]], [1, 1], [[1], [1]]), {("external_liabilities", None, None)}),
        (([[0, 1], [0, 0]], 3.0), {("external_assets", None, None)}),
        (([[0, 1], [0, 0]], None), {("external_assets", None, None)}),
        (([[0, "x"], [0, 0]], [1, "y"]), {("liabilities", None, None), ("external_assets", None, None)}),
        (([[0, 1], [0, 0]], [[1, 2], [3, -4]]), {("external_assets", "1", 1)}),
        (([[0, 1e308, 1e308], [0, 0, 0], [0, 0, 0]], [1, 1, 1]), {("liabilities", None, 0)}),
    ],
)
def test_bad_shapes_and_numbers(network, expected):
    assert problems_of(*network) == expected


def test_a_negative_external_asset_names_the_cure():
    with pytest.raises(SchemaError, match="external_rank='senior'"):
        eisenberg_noe(BANKS, [-1, 0, 0], external_rank="senior")


@pytest.mark.parametrize(
    "options",
    [
        {"external_rank": "junior"},
        {"which": "largest"},
        {"solver": "newton"},
        {"rtol": 0.0},
        {"rtol": float("nan")},
        {"max_rounds": 0},
        {"which": "least", "waves": True},
        {"which": "least", "solver": "fictitious_default", "external_rank": "senior"},
    ],
)
def test_bad_options_and_combinations(options):
    with pytest.raises(ValueError, match=str(next(iter(options)))):
        eisenberg_noe(BANKS, [10, 10, 10], **options)


def test_the_input_is_not_changed():
    matrix = scipy.sparse.coo_array(([1.0, 2.0, 0.0], ([0, 0, 1], [1, 1, 0])), shape=(2, 2))
    assets = np.array([2.0, 0.0])
    result = eisenberg_noe(matrix, assets)
    assert result.dues.tolist() == [3, 0]
    assert matrix.nnz == 3
    assets[0] = 9.0
    assert result.values.external_assets.tolist() == [2, 0]
    assert assets.flags.writeable


# ----------------------------------------------------------------------------------------------------------- the result


def banks(**options):
    return eisenberg_noe(BANKS, [10, 10, 10], **options)


def test_result_prints_what_matters():
    text = repr(dataclasses.replace(banks(), numeraire="EUR m"))
    assert "external debt pari_passu: SETTLED" in text
    assert "2 default" in text
    assert "shortfall 8.09091 EUR m of 69 due" in text
    assert "enclosure concave" in text
    assert "assumes: no external liabilities were given" in text
    assert "<table" in banks()._repr_html_()
    assert banks().summary()["defaults"] == 2


def test_one_scenario_is_not_chosen_from():
    with pytest.raises(ValueError, match="leave it out"):
        banks().payment_matrix(scenario=0)


def test_arrays_are_read_only():
    result = banks()
    for name in ("payments", "shortfall", "recovery_rate", "defaulted", "net_worth", "equity", "lower", "dues"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(result, name)[0] = 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.status = Status.STALLED


def test_labels_name_every_property():
    labels = pd.Index(["a", "b", "c"], name="bank")
    one = dataclasses.replace(banks(solver="fictitious_default"), labels=labels)
    several = dataclasses.replace(eisenberg_noe(BANKS, np.full((3, 2), 10.0), waves=True), labels=labels)
    for name in ("payments", "payments_internal", "payments_external", "shortfall", "recovery_rate", "defaulted"):
        assert getattr(one, name).index.equals(labels)
        assert getattr(several, name).shape == (3, 2)
    for name in ("net_worth", "equity", "default_wave", "lower", "upper", "dues"):
        assert isinstance(getattr(one, name), pd.Series)
        assert isinstance(getattr(several, name), pd.DataFrame)
    assert one.defaulted["b"]
    one.check()
    assert "2 default" in repr(one)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"payments": 1.1}, "payments"),
        ({"payments": 1.05, "payments_internal": 1.05}, "more than it has"),
        ({"payments": 0.9, "payments_internal": 0.9}, "differ from the external assets"),
        ({"payments": float("nan")}, "outside"),
    ],
)
def test_check_finds_broken_laws(change, message):
    result = eisenberg_noe(BANKS, [10, 10, 10], [1, 0, 0])
    result.check()
    values = {name: getattr(result.values, name) * factor for name, factor in change.items()}
    if "payments_internal" in values:
        values["payments"] = values["payments_internal"] + result.values.payments_external
    broken = dataclasses.replace(result, values=dataclasses.replace(result.values, **values))
    with pytest.raises(ContagionError, match=message):
        broken.check()
