"""The solvers: all agree on whatever network, scenarios together as alone, kernels as their plain functions."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array, random_array
from seeds import some_and_slow

import netcontagion as nc
from netcontagion import _compile
from netcontagion._status import Status
from netcontagion.clearing import (
    _accelerate,
    _eisenberg_noe,
    _kernels,
    _lanes,
    _push,
    _scenario_assets,
    _scenarios,
    _tiles,
    eisenberg_noe,
    prepare,
)
from netcontagion.errors import NotSettledError, SchemaError

SOLVERS = ("auto", "push", "accelerated", "fixed_point", "fictitious_default")


def network(rng, nodes):
    """Anything goes: zero rows, isolated nodes, cycles without value, hubs, nodes with nothing."""
    owed = rng.lognormal(0, 1.5, (nodes, nodes)) * (rng.random((nodes, nodes)) < rng.choice([0.1, 0.3, 0.8]))
    np.fill_diagonal(owed, 0.0)
    owed[rng.random(nodes) < 0.15] = 0.0
    owed[:, rng.random(nodes) < 0.15] = 0.0
    if nodes > 4 and rng.random() < 0.3:  # a closed cycle without value
        owed[:2], owed[:, :2] = 0.0, 0.0
        owed[0, 1], owed[1, 0] = rng.lognormal(size=2)
    assets = rng.lognormal(0, 1.5, nodes) * (rng.random(nodes) < 0.7)
    outside = rng.lognormal(0, 1, nodes) * (rng.random(nodes) < 0.5)
    if nodes > 4 and owed[0, 1] > 0 and owed[1, 0] > 0 and owed[:2].sum() == owed[0, 1] + owed[1, 0]:
        assets[:2] = outside[:2] = 0.0
    return owed, assets, outside


def agree(owed, assets, outside, rank, solvers=SOLVERS):
    scale = max(owed.sum(axis=1).max() + outside.max(), 1e-300)
    results = {}
    for solver in solvers:
        options = {"external_rank": rank, "solver": solver, "max_rounds": 3000, "strict": False}
        found = results[solver] = eisenberg_noe(owed, assets, outside, **options)
        slow = solver in ("fixed_point", "push") and found.status is Status.MAX_ROUNDS  # cycles that hardly leak
        assert found.status is Status.SETTLED or slow, solver
    exact = results["fictitious_default"]
    for solver, result in results.items():
        assert (result.lower <= exact.upper + 1e-15 * scale).all(), solver
        assert (result.upper >= exact.lower - 1e-15 * scale).all(), solver
        last_bits = 1e-14 * result.dues if rank == "senior" else 0.0  # both ranks are paid out of what is received anew
        assert (result.lower <= result.payments + last_bits).all(), solver
        assert (result.payments <= result.upper + last_bits).all(), solver
        if result.status.settled:
            np.testing.assert_allclose(result.payments, exact.payments, rtol=0, atol=2e-10 * scale, err_msg=solver)
            result.check()


@pytest.mark.parametrize("rank", ["pari_passu", "senior"])
@pytest.mark.parametrize("block", some_and_slow(2, 4))
def test_solvers_agree_on_random_networks(block, rank):
    rng = np.random.default_rng(block)
    for _ in range(25):
        agree(*network(rng, int(rng.integers(1, 12))), rank)


@pytest.mark.slow
@pytest.mark.parametrize("rank", ["pari_passu", "senior"])
@pytest.mark.parametrize("block", some_and_slow(2, 4))
def test_solvers_agree_on_thousands_of_networks(block, rank):
    rng = np.random.default_rng(100 + block)
    for _ in range(600):
        agree(*network(rng, int(rng.integers(1, 40))), rank)


@given(seed=st.integers(0, 10**6), power=st.integers(-12, 12))
@settings(max_examples=40, deadline=None)
def test_currency_does_not_matter(seed, power):
    owed, assets, outside = network(np.random.default_rng(seed), 7)
    unit = 10.0**power
    for solver in ("push", "accelerated"):
        here = eisenberg_noe(owed, assets, outside, solver=solver, strict=False)
        there = eisenberg_noe(owed * unit, assets * unit, outside * unit, solver=solver, strict=False)
        if here.status.settled and there.status.settled:
            tolerance = 4e-10 * here.dues.max(initial=0.0)
            np.testing.assert_allclose(there.payments / unit, here.payments, rtol=0, atol=tolerance)


def large(nodes=600, seed=0, scenarios=None):
    rng = np.random.default_rng(seed)
    owed = csr_array(rng.lognormal(0, 1, (nodes, nodes)) * (rng.random((nodes, nodes)) < 0.02))
    owed.setdiag(0.0)
    owed.eliminate_zeros()
    outside = owed.sum(axis=1) * 0.3 + 0.1
    dues = owed.sum(axis=1) + outside
    assets = np.maximum(dues - owed.sum(axis=0), 0.0) + 0.1 * dues
    if scenarios is not None:
        assets = assets[:, None] * rng.uniform(0.3, 1.0, (nodes, scenarios))
        assets[rng.random(assets.shape) < 0.02] = 0.0
    return owed, assets, outside


@pytest.mark.parametrize("rank", ["pari_passu", "senior"])
@pytest.mark.parametrize("solver", ["auto", "push"])
def test_scenarios_pushed_together_are_those_pushed_alone(solver, rank, monkeypatch):
    monkeypatch.setattr(_eisenberg_noe, "LARGE", 0)
    owed, assets, outside = large(scenarios=70)
    together = eisenberg_noe(owed, assets, outside, external_rank=rank, solver=solver, rtol=1e-9)
    assert isinstance(together.values, _scenarios.ShortfallValues) == (rank == "pari_passu")
    together.check()
    names = ("payments", "payments_internal", "payments_external", "lower", "upper", "net_worth", "shortfall")
    for column in (0, 33, 63, 64, 69):
        alone = eisenberg_noe(owed, assets[:, column], outside, external_rank=rank, solver=solver, rtol=1e-9)
        for name in names:
            ours, theirs = getattr(together, name)[:, column], getattr(alone, name)
            np.testing.assert_allclose(ours, theirs, rtol=1e-13, atol=1e-12, err_msg=name)
        if rank == "pari_passu":
            assert together.payments[:, column].tolist() == alone.payments.tolist()
        assert together.defaulted[:, column].tolist() == alone.defaulted.tolist()
        assert together.iterations[column] == alone.iterations
        assert together.statuses[column] is alone.status
        assert (together.payment_matrix(column) - alone.payment_matrix()).nnz == 0 or rank == "senior"
    assert not together.payments.flags.writeable
    assert len(together.summary()) == 70


def single_shocks(size=300, scenarios=90, seed=4):
    """Scenarios that differ in a node or two: what the push takes as changes of the first."""
    owed, assets, outside = large(size, seed=seed, scenarios=1)
    rng = np.random.default_rng(seed)
    shocked = np.repeat(assets[:, :1], scenarios, axis=1)
    shocked[rng.choice(size, scenarios), np.arange(scenarios)] *= rng.choice([0.0, 0.1, 3.0], scenarios)
    shocked[0, ::7] = 0.0
    return owed, shocked, outside


@pytest.mark.parametrize("seed", range(4))
def test_scenarios_that_change_single_nodes_are_cleared_as_by_themselves(seed, monkeypatch):
    owed, assets, outside = single_shocks(seed=seed)
    found = _scenario_assets.read_scenarios(assets, 1e300)
    assert len(found.rows) == 1, "as changes"
    assert found.table.tolist() == assets.tolist()
    assert not found.table.flags.writeable
    assert [found.of(k).tolist() for k in range(3)] == assets.T[:3].tolist()
    prepared = prepare(owed, outside)
    together = eisenberg_noe(prepared, assets, solver="push")
    monkeypatch.setattr(_scenario_assets, "_changed", lambda *_: None)
    apart = eisenberg_noe(prepared, assets, solver="push")
    alone = [eisenberg_noe(prepared, column, solver="fixed_point", rtol=1e-13).payments for column in assets.T]
    assert (together.defaulted.sum(axis=0) > 0).any()
    np.testing.assert_allclose(together.payments, np.array(alone).T, rtol=1e-9)
    for name in ("payments", "lower", "upper", "net_worth"):
        np.testing.assert_allclose(getattr(together, name), getattr(apart, name), rtol=1e-12, atol=1e-12)
    assert together.iterations.tolist() == apart.iterations.tolist()


def test_a_result_keeps_the_assets_it_was_made_of():
    owed, assets, outside = single_shocks()
    given = assets.copy()
    result = eisenberg_noe(prepare(owed, outside), given, solver="push")
    given[:] = 0.0
    assert result.values.external_assets.tolist() == assets.tolist()


@pytest.mark.parametrize("wrong", [np.nan, -1.0, np.inf])
@pytest.mark.parametrize("column", [0, 40])
def test_a_wrong_number_among_many_scenarios_is_named(wrong, column):
    owed, assets, outside = single_shocks()
    assets[17, column] = wrong
    with pytest.raises(SchemaError) as caught:
        eisenberg_noe(prepare(owed, outside), assets, solver="push")
    assert [problem.row for problem in caught.value.problems] == [17]


def test_scenarios_without_value_somewhere_are_solved_by_themselves():
    cycle = np.zeros((5, 5))
    cycle[0, 1] = cycle[1, 0] = 3.0
    cycle[2, 3] = cycle[3, 4] = 2.0
    assets = np.array([[0, 0, 1, 0, 0], [1, 0, 5, 5, 5]]).T
    together = eisenberg_noe(cycle, assets, solver="push")
    np.testing.assert_allclose(together.payments.T, [[3, 3, 1, 1, 0], [3, 3, 2, 2, 0]], rtol=1e-12)
    assert together.status is Status.SETTLED


def test_results_do_not_depend_on_the_number_of_processors(monkeypatch):
    owed, assets, outside = large(scenarios=200)
    several = eisenberg_noe(owed, assets, outside, solver="push")
    monkeypatch.setattr(_scenarios, "in_threads", lambda work, pieces: [work(*piece) for piece in pieces])
    single = eisenberg_noe(owed, assets, outside, solver="push")
    assert several.payments.tolist() == single.payments.tolist()
    mixed = [eisenberg_noe(owed, assets[:, 0] * 0.1, outside, solver="accelerated").payments.tolist()]
    monkeypatch.setattr(_tiles, "WORTH_THREADS", 0)
    mixed.append(eisenberg_noe(owed, assets[:, 0] * 0.1, outside, solver="accelerated").payments.tolist())
    assert mixed[0] == mixed[1]


@pytest.mark.parametrize("nodes", [1, 7, 1023, 1024, 1025, 5_000])
def test_a_product_of_tiles_is_the_product_of_the_claims(nodes, monkeypatch):
    rng = np.random.default_rng(nodes)
    monkeypatch.setattr(_tiles, "PIECES", 3)
    owed = random_array((nodes, nodes), density=min(1.0, 8 / nodes), format="csr", rng=rng)
    vector = rng.uniform(0, 1, nodes)
    product = _tiles.Tiles(owed) @ vector
    assert product.tolist() == (owed.T.tocsr() @ vector).tolist(), "added up in the same order"
    monkeypatch.setattr(_tiles, "WORTH_THREADS", 0)
    assert (_tiles.Tiles(owed) @ vector).tolist() == product.tolist()


def test_auto_turns_to_mixing_when_a_push_takes_too_long(monkeypatch):
    monkeypatch.setattr(_eisenberg_noe, "LARGE", 0)
    monkeypatch.setattr(_eisenberg_noe, "_limits", lambda owed, _: (100, 0.5 * owed.nnz))
    owed, assets, outside = large()
    result = eisenberg_noe(owed, assets * 0.1, outside)
    assert result.enclosure == "concave"
    exact = eisenberg_noe(owed, assets * 0.1, outside, solver="fictitious_default")
    np.testing.assert_allclose(result.payments, exact.payments, rtol=1e-9)


def test_a_push_visits_defaulters_and_their_creditors_only():
    nodes = 5_000
    owed = csr_array((np.full(nodes - 1, 1.0), (np.arange(nodes - 1), np.arange(1, nodes))), (nodes, nodes))
    assets, outside = np.full(nodes, 1.0), np.full(nodes, 0.5)
    assets[0], assets[10] = 2.0, 0.2  # node 10 owes 1.5 and has 1.2: node 11 loses 0.2, has 1.8 and stands
    system = prepare(owed, outside).system(assets)
    solved = _push.pushed(system, 1e-10, 100, budget=3.0)
    assert solved is not None, "three claims are enough to visit"
    assert np.flatnonzero(system.due - solved.payments > 1e-9).tolist() == [10]
    assert solved.payments[10] == pytest.approx(1.2)
    assert _push.pushed(system, 1e-10, 100, budget=0.0) is None


def test_a_push_ends_at_max_rounds_with_bounds_that_hold():
    ring = np.roll(np.diag(np.full(4, 1.0)), 1, axis=1)
    outside = np.full(4, 1e-7)
    with pytest.raises(NotSettledError, match="MAX_ROUNDS") as caught:
        eisenberg_noe(ring, [1e-9, 0, 0, 0], outside, solver="push", max_rounds=50)
    exact = eisenberg_noe(ring, [1e-9, 0, 0, 0], outside)
    assert (caught.value.result.lower <= exact.payments).all()
    assert (caught.value.result.upper >= exact.payments).all()


def test_mixing_that_makes_no_progress_is_stalled_and_its_bounds_hold(monkeypatch):
    ring, assets = np.roll(np.diag(np.full(60, 1.0)), 1, axis=1), np.zeros(60)
    assets[0], outside = 3e-4, np.full(60, 1e-3)
    exact = eisenberg_noe(ring, assets, outside)
    monkeypatch.setattr(_accelerate, "PATIENCE", -1)
    with pytest.raises(NotSettledError, match="STALLED") as caught:
        eisenberg_noe(ring, assets, outside, solver="accelerated")
    stalled = caught.value.result
    assert stalled.width > 1e-3
    assert ((stalled.lower <= exact.payments) & (exact.payments <= stalled.upper)).all()


# prepare ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", ["pari_passu", "senior"])
def test_a_prepared_network_clears_as_the_network(rank):
    owed, assets, outside = large(50)
    prepared = prepare(owed, outside, external_rank=rank)
    for factor in (1.0, 0.4):
        ours = eisenberg_noe(prepared, factor * assets, external_rank=rank)
        theirs = eisenberg_noe(owed, factor * assets, outside, external_rank=rank)
        assert ours.payments.tolist() == theirs.payments.tolist()
        assert ours.assumptions == theirs.assumptions


def test_a_prepared_network_keeps_its_labels_and_its_external_debt():
    import pandas as pd

    owed = pd.DataFrame([[0, 5.0], [2.0, 0]], index=["a", "b"], columns=["a", "b"])
    prepared = prepare(owed, external_rank="senior")
    result = eisenberg_noe(prepared, pd.Series({"b": 1.0, "a": 4.0}), external_rank="senior")
    assert result.payments.index.tolist() == ["a", "b"]
    assert result.values.external_assets.tolist() == [4.0, 1.0]
    with pytest.raises(ValueError, match="leave them out"):
        eisenberg_noe(prepared, [4, 1], [1, 1], external_rank="senior")
    with pytest.raises(ValueError, match="name their rank"):
        eisenberg_noe(prepared, [4, 1])
    with pytest.raises(nc.SchemaError, match="its labels are not the matrix's"):
        eisenberg_noe(prepared, pd.Series({"c": 1.0, "a": 4.0}), external_rank="senior")
    with pytest.raises(nc.SchemaError, match="3 rows"):
        eisenberg_noe(prepared, [1, 2, 3], external_rank="senior")
    with pytest.raises(nc.SchemaError, match="at least 0"):
        eisenberg_noe(prepared, [1, -2], external_rank="senior")


def test_sums_that_overflow_are_refused():
    with pytest.raises(nc.SchemaError, match="assets overflow"):
        eisenberg_noe([[0, 1e308], [0, 0]], [0, 1e308])
    with pytest.raises(nc.SchemaError, match="dues overflow"):
        eisenberg_noe([[0, 1.5e308], [0, 0]], [0, 0], [1e308, 0])


# scenarios in lanes -----------------------------------------------------------------------------------------------


def batch_of(owed, assets, outside, *, fewest=1, rtol=1e-10, rounds=300, budget=np.inf):
    """Push scenarios, side by side where at least ``fewest`` are many, and list what comes out to the last bit."""
    prepared = prepare(owed, outside)
    given = _scenario_assets.read_scenarios(assets, 1e300)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_scenarios, "FEWEST", fewest)
        batch = _scenarios.push_batch(prepared, given, rtol, rounds, budget * owed.nnz)
    short = [(part.indptr.tolist(), part.indices.tolist(), part.data.tolist()) for part in batch.short]
    return [batch.settled.tolist(), batch.spent.tolist(), batch.rounds.tolist(), batch.width.tolist(), short]


def crises(scenarios, seed=0, size=300):
    """Scenarios in which from a few to nearly all fail at once, some of them without any assets somewhere."""
    owed, assets, outside = large(size, seed=seed, scenarios=scenarios)
    assets *= np.random.default_rng(seed).permutation(np.linspace(0.05, 1.2, scenarios))
    return owed, assets, outside / 6


LIMITS = [{}, {"rtol": 1e-15}, {"rounds": 3}, {"rounds": 18}, {"budget": 9.0}, {"rtol": 1e-4}]


@pytest.mark.parametrize("limits", LIMITS, ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_a_lane_does_what_a_push_alone_does_to_the_last_bit(seed, limits):
    owed, assets, outside = crises(45, seed)
    alone = batch_of(owed, assets, outside, fewest=1_000, **limits)
    assert batch_of(owed, assets, outside, **limits) == alone
    assert any(alone[1]) == ("rounds" in limits or "budget" in limits)
    if not limits:
        assert sum(alone[0]) > 40
        assert max(alone[2]) > 2 * _kernels.REFRESH, "slacks were computed anew on the way"


@pytest.mark.parametrize("lanes", [1, 2, 5, 16])
def test_a_lane_does_not_depend_on_those_beside_it(lanes, monkeypatch):
    owed, assets, outside = crises(40)
    whole = eisenberg_noe(owed, assets, outside, solver="push")
    monkeypatch.setattr(_scenarios, "LANES", lanes)
    monkeypatch.setattr(_scenarios, "FEWEST", 1)
    order = np.random.default_rng(lanes).permutation(40)[:23]
    part = eisenberg_noe(owed, assets[:, order], outside, solver="push")
    for name in ("payments", "lower", "upper", "iterations"):
        assert getattr(part, name).tolist() == getattr(whole, name)[..., order].tolist(), name


def test_lanes_enclose_what_exact_solves_find():
    owed, assets, outside = crises(24, seed=7)
    found = eisenberg_noe(owed, assets, outside, solver="push")
    for scenario in range(24):
        exact = eisenberg_noe(owed, assets[:, scenario], outside, solver="fictitious_default")
        assert (found.lower[:, scenario] <= exact.upper).all()
        assert (exact.lower <= found.upper[:, scenario]).all()
        assert found.defaulted[:, scenario].tolist() == exact.defaulted.tolist()
    assert np.ptp(found.defaulted.mean(axis=0)) > 0.5


@pytest.mark.parametrize("spread", [1.0, 0.97, 0.3])
def test_whoever_is_left_out_of_the_lanes_lacks_nothing_in_any_scenario(spread):
    rng = np.random.default_rng(3)
    owed, assets, outside = large(400, seed=3)
    assets = assets[:, None] * rng.uniform(spread, 1.0, (400, 12)) * 0.9
    prepared = prepare(owed, outside)
    graph = prepared.owed.indptr, prepared.owed.indices, prepared.owed.data
    chosen = _lanes.may_fail(*graph, prepared.dues, assets.T.copy(), prepared.limits)
    assert 0 < len(chosen) < 400
    assert (np.diff(chosen) > 0).all()
    left_out = np.setdiff1d(np.arange(400), chosen)
    for column in assets.T:
        exact = eisenberg_noe(prepared, column, solver="fictitious_default")
        assert (exact.net_worth[left_out] > 0).all()
    starts, creditors, amounts = _lanes.among(*graph, chosen)
    among = csr_array((amounts, creditors, starts), shape=(len(chosen), len(chosen)))
    assert (among.toarray() == prepared.owed.toarray()[np.ix_(chosen, chosen)]).all()


def test_changes_to_a_network_in_crisis_go_in_lanes(monkeypatch):
    owed, assets, outside = single_shocks()
    assets *= 0.2
    calls = []
    push_lanes = _scenarios.push_lanes
    monkeypatch.setattr(_scenarios, "push_lanes", lambda *given: calls.append(1) or push_lanes(*given))
    found = batch_of(owed, assets, outside)
    assert len(calls) == -(-90 // _lanes.LANES)
    assert found == batch_of(owed, assets, outside, fewest=1_000)


# kernels ----------------------------------------------------------------------------------------------------------


def plain_kernels(patch):
    for module in (_kernels, _lanes, _push, _scenario_assets, _scenarios, _tiles, _accelerate):
        for name, value in list(vars(module).items()):
            if hasattr(value, "compiled"):
                patch.setattr(module, name, value.__wrapped__)


@pytest.mark.parametrize("rank", ["pari_passu", "senior"])
def test_kernels_equal_their_plain_functions(rank, monkeypatch):
    owed, assets, outside = large(120, scenarios=3)
    call = {"external_rank": rank, "rtol": 1e-8}
    single = np.repeat(assets[:, :1], 60, axis=1)
    single[np.arange(60), np.arange(60)] = 0.0
    cases = [("push", assets[:, 0]), ("push", assets), ("push", single), ("accelerated", assets[:, 0] * 0.1)]
    cases.append(("push", np.repeat(assets, 2, axis=1) * np.linspace(0.6, 1.0, 6)))
    compiled = [eisenberg_noe(owed, given, outside, solver=solver, **call) for solver, given in cases]
    vector = assets[:, 0].copy()
    product = _tiles.Tiles(owed) @ vector
    with monkeypatch.context() as patch:
        plain_kernels(patch)
        plain = [eisenberg_noe(owed, given, outside, solver=solver, **call) for solver, given in cases]
        np.testing.assert_allclose(_tiles.Tiles(owed) @ vector, product, rtol=1e-15)
    for ours, theirs in zip(compiled, plain, strict=True):
        assert np.array_equal(ours.iterations, theirs.iterations)
        for name in ("payments", "lower", "upper"):
            np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-14, atol=1e-14)


def test_kernels_declared_by_several_threads_leave_the_cache_folder_as_it_was():
    import numba

    kernels = [_compile.kernel(lambda x, k=k: x + k) for k in range(8)]
    folder = numba.config.CACHE_DIR
    threads = [threading.Thread(target=one.compiled) for one in kernels]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert folder == numba.config.CACHE_DIR


# found by trying to break it --------------------------------------------------------------------------------------


@pytest.mark.parametrize("scenarios", [1, 2])
@pytest.mark.parametrize("solver", ["push", "auto"])
def test_small_payments_beside_large_dues_keep_their_bounds(solver, scenarios, monkeypatch):
    monkeypatch.setattr(_eisenberg_noe, "LARGE", -1)
    owed, assets = [[0, 1e9], [0, 0]], np.tile([[0.0], [5e-8]], (1, scenarios))
    senior = eisenberg_noe(owed, assets, [1, 1e-7], external_rank="senior", solver=solver)
    assert senior.payments[1] == pytest.approx(np.full(scenarios, 5e-8))
    assert (senior.lower[1] <= 5e-8 * (1 + 1e-12)).all()
    assert (senior.upper[1] >= 5e-8 * (1 - 1e-12)).all()
    worth = eisenberg_noe(
        [[0, 1e9, 0], [0, 0, 0], [0, 0, 0]], np.tile([[3e-8], [2e-7], [0]], (1, scenarios)), [0, 1e-7, 0], solver=solver
    ).net_worth
    rounding = 1e9 * np.finfo(float).eps if solver == "push" else 1e-12  # a push keeps shortfalls, not payments
    assert worth[1] == pytest.approx(np.full(scenarios, 1.3e-7), abs=rounding)
    auto = eisenberg_noe(owed, np.tile([[5e-8], [0.0]], (1, scenarios)), [0, 1e-7], strict=False)
    assert auto.payments[1] == pytest.approx(np.full(scenarios, 5e-8))


def test_auto_goes_on_where_a_push_hardly_leaks():
    rng = np.random.default_rng(0)
    nodes, count = 5_000, 110_000
    debtor, creditor = rng.integers(2, nodes, count), rng.integers(2, nodes, count)
    keep = debtor != creditor
    ends = (np.r_[debtor[keep], 0, 1, 0], np.r_[creditor[keep], 1, 0, 2])
    owed = csr_array((np.r_[rng.random(keep.sum()), 100.0, 100.0, 0.1], ends), (nodes, nodes))
    assets = owed.sum(axis=1) + 1.0
    assets[:2] = 0.02, 0.03
    for shape in (assets, np.column_stack([assets, assets])):
        result = eisenberg_noe(owed, shape)
        assert result.status is Status.SETTLED
        assert np.max(result.width) <= 1e-10
        assert np.max(result.iterations) < 2_000


def test_whoever_cannot_pay_is_in_default_whatever_the_solver():
    for solver in SOLVERS:
        assert eisenberg_noe([[0, 1], [0, 0]], [1 - 8e-12, 0], [0, 0], solver=solver).defaulted[0], solver
        assert eisenberg_noe([[0, 1], [0, 0]], [1 - 1e-4, 0], solver=solver, rtol=1e-3).defaulted[0], solver


@pytest.mark.parametrize("unit", [1e-160, 1e160])
def test_mixing_takes_amounts_of_any_size(unit):
    rng = np.random.default_rng(1)
    owed = rng.random((30, 30)) * (rng.random((30, 30)) < 0.2)
    np.fill_diagonal(owed, 0.0)
    assets = rng.random(30)
    large_ = eisenberg_noe(owed * unit, assets * unit, solver="accelerated")
    assert large_.payments / unit == pytest.approx(eisenberg_noe(owed, assets).payments, abs=1e-9)


def test_no_scenarios_and_no_matrix():
    assert eisenberg_noe([[0, 1], [1, 0]], np.zeros((2, 0)), solver="push").payments.shape == (2, 0)
    for wrong in (5, [[0, 1], [0]], None):
        with pytest.raises(nc.SchemaError):
            prepare(wrong)


def test_scenarios_that_wipe_out_banks_are_pushed_together(monkeypatch):
    owed, assets, outside = large(scenarios=20)
    assets[:40] = 0.0  # more of them than some have debtors
    together = eisenberg_noe(owed, assets, outside, solver="push")
    assert not together.values.alone
    alone = eisenberg_noe(owed, assets[:, 3], outside, solver="push")
    assert together.payments[:, 3].tolist() == alone.payments.tolist()


def test_a_result_comes_back_from_a_pickle_as_it_was():
    import pickle

    owed, assets, outside = large(60, scenarios=3)
    result = eisenberg_noe(owed, assets, outside, solver="push")
    paid = result.payments.tolist()
    again = pickle.loads(pickle.dumps(result))
    assert again.payments.tolist() == paid
    assert not again.payments.flags.writeable
    assert again.net_worth.tolist() == result.net_worth.tolist()


@pytest.mark.parametrize("rounds", range(1, 6))
@pytest.mark.parametrize("budget", [0.5, 3.0, np.inf])
def test_a_push_that_is_stopped_leaves_its_workspace_as_it_was(rounds, budget):
    rng = np.random.default_rng(rounds)
    owed = csr_array(rng.uniform(0, 1, (7, 7)) * (1 - np.eye(7)))
    prepared = prepare(owed, np.full(7, 1e-4))
    numbers, queued = np.zeros((4, 7)), np.zeros(7, dtype=bool)
    prepared.spaces.append((numbers, np.full((2, 7), 2**60), queued))  # what a list holds beyond its end is anything
    given = _scenario_assets.read_scenarios(np.array([5e-5] * 3 + [1e-4] * 4), 1e300)
    with pytest.MonkeyPatch.context() as patch:
        plain_kernels(patch)  # which check where they write
        batch = _scenarios.push_batch(prepared, given, 1e-10, rounds, budget * owed.nnz)
    assert batch.spent[0]
    assert not queued.any()
    assert not numbers[1:].any()


def test_mixing_stays_in_range_at_both_ends():
    rng = np.random.default_rng(0)
    tiny = csr_array(rng.uniform(0, 1, (6, 6)) * (1 - np.eye(6))) * 2.0**-1030
    assert eisenberg_noe(tiny, np.full(6, 2.0**-1034), np.full(6, 2.0**-1033), solver="accelerated").status.settled
    ring = np.zeros((3, 3))
    ring[0, 1] = ring[1, 2] = ring[2, 0] = 1e307
    call = {"external_liabilities": np.full(3, 1e302), "strict": False}
    huge = eisenberg_noe(ring, np.array([0.2, 0.5, 0.7]) * 1e302, solver="accelerated", **call)
    exact = eisenberg_noe(ring, np.array([0.2, 0.5, 0.7]) * 1e302, solver="fictitious_default", **call)
    assert (huge.lower <= exact.upper * (1 + 1e-12)).all()
    assert (exact.lower <= huge.upper * (1 + 1e-12)).all()


def test_sums_beyond_the_range_of_numbers_do_not_warn():
    owed = [[0, 1e308, 0], [0, 0, 0], [0, 1e307, 0]]
    assert eisenberg_noe(owed, np.zeros(3), solver="push").payments.tolist() == [0, 0, 0]


def test_no_scenarios_leave_the_given_table_as_it_was():
    given = np.ones((3, 0))
    eisenberg_noe(prepare(np.zeros((3, 3))), given, solver="push")
    assert given.flags.writeable


@pytest.mark.parametrize("scale", [1.0, 0.02])
def test_given_assets_stay_the_callers(scale, monkeypatch):
    monkeypatch.setattr(_eisenberg_noe, "LARGE", -1)
    owed, assets, outside = large(200)
    given = assets * scale
    result = eisenberg_noe(prepare(owed, outside), given)
    given[:] = 0.0
    assert result.values.external_assets.tolist() == (assets * scale).tolist()
    with pytest.raises(SchemaError, match="external_assets"):
        eisenberg_noe(prepare(owed, outside), given - 1.0)
    with pytest.raises(SchemaError, match="external_assets"):
        eisenberg_noe(prepare(owed, outside), given[1:])
