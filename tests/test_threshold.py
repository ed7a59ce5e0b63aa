"""Furfine and threshold cascades, and the contagion window: independent numbers, twins, laws, edges and bad input."""

from __future__ import annotations

import csv
import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import poisson

from netcontagion._status import Status
from netcontagion.clearing import Furfine, contagion_window, furfine, gai_kapadia, neva, threshold
from netcontagion.errors import SchemaError

HERE = Path(__file__).resolve()
FIXTURE = json.loads((HERE.parent / "references" / "network_valuation.json").read_text(encoding="utf-8"))
CASES = {case["name"]: case for case in FIXTURE["cases"]}
ORACLES = {oracle["network"]: oracle for oracle in FIXTURE["oracles"]}
SHARED = HERE.parents[2] / "shared" / "reference"
CHAIN = [[0, 5, 0], [0, 0, 9], [0, 0, 0]]

needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the folder shared/reference is not beside the checkout")
common = settings(max_examples=45, deadline=None, derandomize=True)


# ---------------------------------------------------------------------------------------------------------- plain twins


def fails(loss, buffer):
    return loss > buffer + 1e-12 * abs(buffer)


def in_any_order(liabilities, buffer, start, lost, shock, random):
    """Fail one node at a time, whichever comes up."""
    failed = {node for node in range(len(buffer)) if start[node]}
    while True:
        ready = [
            j
            for j in range(len(buffer))
            if j not in failed and fails(shock[j] + sum(liabilities[i][j] * lost[i] for i in sorted(failed)), buffer[j])
        ]
        if not ready:
            return [node in failed for node in range(len(buffer))]
        failed.add(int(random.choice(ready)))


def smallest_closed_set(liabilities, buffer, start, lost, shock):
    """Intersect all sets that contain the start and everybody whom the set makes fail."""
    nodes, best = range(len(buffer)), set(range(len(buffer)))
    for size in range(len(buffer) + 1):
        for chosen in map(set, itertools.combinations(nodes, size)):
            loss = [shock[j] + sum(liabilities[i][j] * lost[i] for i in sorted(chosen)) for j in nodes]
            if all(j in chosen for j in nodes if start[j] or fails(loss[j], buffer[j])):
                best &= chosen
    return [node in best for node in nodes]


amounts = st.one_of(st.just(0.0), st.integers(1, 64).map(lambda quarter: quarter / 4))


@st.composite
def networks(draw, most=6):
    nodes = draw(st.integers(1, most))
    cells = draw(st.lists(amounts, min_size=nodes * nodes, max_size=nodes * nodes))
    liabilities = np.array(cells).reshape(nodes, nodes)
    np.fill_diagonal(liabilities, 0)
    buffer, shock = (np.array(draw(st.lists(amounts, min_size=nodes, max_size=nodes))) for _ in range(2))
    start = np.array(draw(st.lists(st.booleans(), min_size=nodes, max_size=nodes)))
    lost = np.array(draw(st.lists(st.sampled_from([0.0, 0.25, 1.0]), min_size=nodes, max_size=nodes)))
    return liabilities, buffer, shock, start, lost


def run(network):
    liabilities, buffer, shock, start, lost = network
    return threshold(liabilities, buffer, shock, defaulted=start, loss_given_default=lost)


@given(networks(), st.integers(0, 2**32 - 1))
@common
def test_the_failed_set_does_not_depend_on_the_order(network, seed):
    liabilities, buffer, shock, start, lost = network
    expected = in_any_order(liabilities.tolist(), buffer, start, lost, shock, np.random.default_rng(seed))
    result = run(network)
    assert result.failed.tolist() == expected
    np.testing.assert_allclose(result.loss, shock + liabilities.T @ (lost * expected), atol=1e-9)
    np.testing.assert_allclose(result.remaining, buffer - result.loss, atol=1e-9)
    assert result.status is Status.SETTLED


@given(networks(most=5))
@common
def test_the_failed_set_is_the_least_of_all_closed_sets(network):
    liabilities, buffer, shock, start, lost = network
    assert run(network).failed.tolist() == smallest_closed_set(liabilities.tolist(), buffer, start, lost, shock)


@given(networks())
@common
def test_waves_are_synchronous_rounds(network):
    liabilities, buffer, shock, start, lost = network
    wave, failed = np.full(len(buffer), -1), np.zeros(len(buffer), dtype=bool)
    for number in range(len(buffer) + 1):
        loss = shock + liabilities.T @ (lost * failed)
        new = (start | np.array([fails(*pair) for pair in zip(loss, buffer, strict=True)])) & ~failed
        wave[new] = number
        failed |= new
    assert run(network).default_wave.tolist() == wave.tolist()


@given(networks(), st.integers(0, 5), st.sampled_from([0.25, 2.0, 100.0]))
@common
def test_the_failed_set_grows_with_the_shock_and_shrinks_with_the_buffer(network, node, more):
    liabilities, buffer, shock, start, lost = network
    step = np.zeros(len(buffer))
    step[node % len(buffer)] = more
    before = run(network)
    shocked = threshold(liabilities, buffer, shock + step, defaulted=start, loss_given_default=lost)
    safer = threshold(liabilities, buffer + step, shock, defaulted=start, loss_given_default=lost)
    assert (shocked.failed >= before.failed).all()
    assert (shocked.loss >= before.loss - 1e-9).all()
    assert (safer.failed <= before.failed).all()


@given(networks(), st.randoms(use_true_random=False))
@common
def test_names_of_nodes_do_not_matter(network, random):
    liabilities, buffer, shock, start, lost = network
    order = list(range(len(buffer)))
    random.shuffle(order)
    mixed = run((liabilities[np.ix_(order, order)], buffer[order], shock[order], start[order], lost[order]))
    assert mixed.default_wave.tolist() == run(network).default_wave[order].tolist()


@given(networks(), st.sampled_from([1e-12, 1e-6, 7.0, 1e6, 1e12]))
@common
def test_the_unit_of_money_does_not_matter(network, unit):
    liabilities, buffer, shock, start, lost = network
    scaled = run((liabilities * unit, buffer * unit, shock * unit, start, lost))
    assert scaled.default_wave.tolist() == run(network).default_wave.tolist()


@given(networks(), st.sampled_from([0.0, 0.6, 1.0]))
@common
def test_furfine_is_the_threshold_cascade_of_equity(network, recovery):
    liabilities, buffer, shock, start, _ = network
    cascade = threshold(liabilities, buffer, shock, defaulted=start, loss_given_default=1 - recovery)
    result = furfine(liabilities, buffer - shock, defaulted=start, recovery=recovery)
    assert result.default_wave.tolist() == cascade.default_wave.tolist()
    np.testing.assert_allclose(result.net_worth, cascade.remaining, atol=1e-9)
    paid = np.where(cascade.failed, recovery, 1.0) * liabilities.sum(axis=1)
    np.testing.assert_allclose(result.payments, paid, atol=1e-12)
    failed_with_dues = cascade.failed & (liabilities.sum(axis=1) > 0) & (recovery < 1)
    assert result.defaulted.tolist() == failed_with_dues.tolist()


@given(networks(), st.sampled_from([0.0, 0.6]))
@common
def test_furfine_is_the_valuation_of_neva(network, recovery):
    liabilities, buffer, _, _, _ = network
    fill = np.maximum(liabilities.sum(axis=0) - liabilities.sum(axis=1), 0)
    assets = buffer + liabilities.sum(axis=1) + fill - liabilities.sum(axis=0)
    assets = np.maximum(assets, 0)
    equity = assets + liabilities.sum(axis=0) - liabilities.sum(axis=1) - fill
    hit = np.minimum(assets, np.where(np.arange(len(buffer)) == 0, 5.0, 0.0))
    valued = neva(liabilities, assets - hit, fill, valuation=Furfine(recovery))
    result = furfine(liabilities, equity - hit, defaulted=None, recovery=recovery, external_liabilities=fill)
    np.testing.assert_allclose(valued.net_worth, result.net_worth, atol=1e-9)
    np.testing.assert_allclose(valued.payments, result.payments, atol=1e-9)


# -------------------------------------------------------------------------------------------------------------- oracles


def read_oracle(network):
    def column(path, name):
        with path.open(encoding="utf-8", newline="") as file:
            return [float(row[name]) for row in csv.DictReader(file)]

    inputs, outputs = SHARED / "oracles" / "inputs", SHARED / "oracles" / "outputs"
    edges, nodes = inputs / f"{network}_edges.csv", inputs / f"{network}_nodes.csv"
    places = ([int(value) for value in column(edges, name)] for name in ("debtor", "creditor"))
    return {
        "edges": list(zip(*places, column(edges, "amount"), strict=True)),
        "equity_before": column(nodes, "equity0"),
        "shock": column(nodes, "shock"),
        "outputs": {
            name: {key: column(outputs / f"{name}_{network}.csv", key)}
            for name, key in (
                ("systemicrisk_cascade0", "default"),
                ("systemicrisk_cascade04", "default"),
                ("neva_furfine", "equity"),
                ("neva_rb06", "equity"),
                ("nrm_thr", "h"),
            )
        },
    }


def assert_oracle(oracle):
    debtor, creditor, amount = zip(*oracle["edges"], strict=True)
    before, shock, outputs = np.array(oracle["equity_before"]), np.array(oracle["shock"]), oracle["outputs"]
    liabilities = scipy.sparse.coo_array((amount, (debtor, creditor)), shape=(len(before), len(before)))
    for name, recovery in (("cascade0", 0.0), ("cascade04", 0.4)):
        result = furfine(liabilities, before - shock, defaulted=None, recovery=recovery)
        assert (result.default_wave >= 0).tolist() == [x == 1 for x in outputs[f"systemicrisk_{name}"]["default"]]
        assert result.width == 0
    for name, recovery in (("furfine", 0.0), ("rb06", 0.6)):
        expected = np.array(outputs[f"neva_{name}"]["equity"])
        result = furfine(liabilities, before - shock, defaulted=[], recovery=recovery)
        assert np.abs(result.net_worth - expected).max() <= 1e-10 * np.abs(expected).max()
    cascade, h = threshold(liabilities, before, shock), np.array(outputs["nrm_thr"]["h"])
    assert cascade.failed.tolist() == (h >= 1).tolist()
    np.testing.assert_allclose(np.minimum(1, cascade.loss / before), np.minimum(1, h), rtol=0, atol=1e-10)


@pytest.mark.parametrize("network", ORACLES)
def test_oracle(network):
    oracle = ORACLES[network]
    assert_oracle(oracle)
    summary = oracle["outputs"]["nrm_thr"]["summary"]
    lost = np.minimum(oracle["shock"], oracle["equity_before"])
    assert summary["original_losses"] == pytest.approx(lost.sum())
    with pytest.raises(AssertionError):
        assert_oracle({**oracle, "shock": (np.array(oracle["shock"]) * 1.02).tolist()})


@needs_shared
@pytest.mark.parametrize("network", ["mild_n20", "mild_n100", "stress_n20", "stress_n100"])
def test_every_oracle_of_the_shared_reference(network):
    assert_oracle(read_oracle(network))


# ---------------------------------------------------------------------------------------------------- knife edges, laws


def test_a_node_without_buffer_and_without_loss_survives():
    result = furfine(CHAIN, [0, 0, 0], defaulted=None)
    assert not result.defaulted.any()
    assert result.default_wave.tolist() == [-1, -1, -1]
    assert threshold(CHAIN, [0, 0, 0], [0, 1e-300, 0]).default_wave.tolist() == [-1, 0, 1]


@pytest.mark.parametrize("unit", [1e-9, 1.0, 1e9])
def test_a_loss_of_all_the_buffer_is_borne_and_rounding_does_not_decide(unit):
    owed = np.array([[0, 0, 0.1], [0, 0, 0.2], [0, 0, 0]]) * unit
    assert furfine(owed, [0, 0, 0.3 * unit], defaulted=[0, 1]).default_wave.tolist() == [0, 0, -1]
    assert furfine(owed, [0, 0, 0.2999999 * unit], defaulted=[0, 1]).default_wave.tolist() == [0, 0, 1]


def test_where_rounding_decides_the_result_says_so():
    owed = [[0, 1.0 + 1e-12], [0, 0]]
    result = threshold(owed, [0, 1.0], defaulted=[0])
    assert result.doubtful.tolist() == [False, True]
    assert "by rounding alone" in repr(result)
    wide = furfine([[0, 1.0 + 1e-12, 0], [0, 0, 7.0], [0, 0, 0]], [0, 1.0, 0], defaulted=[0])
    assert (wide.lower[1], wide.upper[1]) == (0.0, 7.0)
    assert wide.width == 1.0
    assert not threshold(owed, [0, 1.1], defaulted=[0]).doubtful.any()


def test_negative_equity_fails_at_once_and_zero_does_not():
    result = furfine(CHAIN, [-1e-9, 4, 100], defaulted=None, recovery=0.5)
    assert result.default_wave.tolist() == [0, -1, -1]
    assert result.net_worth.tolist() == [-1e-9, 1.5, 100]


def test_recovery_is_given_neither_limited_by_assets_nor_conserved():
    result = furfine([[0, 10], [0, 0]], [-9.0, 20], defaulted=None, recovery=0.6)
    assert result.values.external_assets.tolist() == [1.0, 10.0]
    assert result.payments[0] == 6.0  # out of 1
    assert not result.conserves
    total = result.equity.sum() + result.payments_external.sum()
    assert total == pytest.approx(16.0)
    assert total > result.values.external_assets.sum()


def test_external_debt_counts_in_the_payments_only():
    inside = furfine(CHAIN, [1, 4, 6], defaulted=[0], recovery=0.1)
    outside = furfine(CHAIN, [1, 4, 6], defaulted=[0], recovery=0.1, external_liabilities=[10, 0, 3])
    assert outside.net_worth.tolist() == inside.net_worth.tolist()
    assert outside.payments_external.tolist() == pytest.approx([1, 0, 0.3])
    assert outside.shortfall.tolist() == pytest.approx([13.5, 8.1, 2.7])


def test_orientation_debtors_are_rows():
    assert threshold(CHAIN, [9, 4, 6], defaulted=[0]).failed.tolist() == [True, True, True]
    assert threshold(np.transpose(CHAIN), [9, 4, 6], defaulted=[0]).failed.tolist() == [True, False, False]


def test_a_long_chain_falls_wave_by_wave():
    nodes = 3_000
    chain = scipy.sparse.diags_array(np.ones(nodes - 1), offsets=1)
    result = threshold(chain, np.full(nodes, 0.5), defaulted=[0])
    assert result.default_wave.tolist() == list(range(nodes))
    assert result.iterations == nodes


# --------------------------------------------------------------------------------------------------- contagion window


def test_case():
    case = CASES["gai_kapadia_window"]
    window = contagion_window(case["inputs"]["capital"], case["inputs"]["interbank_assets"])
    expected, tolerance = case["expected"], case["tolerance"]["abs"]
    assert window.low == pytest.approx(expected["z_low"], abs=tolerance)
    assert window.high == pytest.approx(expected["z_high"], abs=tolerance)
    assert window.max_vulnerable_degree == expected["max_vulnerable_degree"]
    for factor in (0.98, 1.02):
        assert abs(window.low - factor * expected["z_low"]) > tolerance
        assert abs(window.high - factor * expected["z_high"]) > tolerance


@pytest.mark.parametrize("capital", [0.001, 0.03, 0.04, 0.05, 0.06])
@pytest.mark.parametrize("recovery", [0.0, 0.25])
def test_the_window_is_where_a_failure_meets_one_vulnerable_creditor_or_more(capital, recovery):
    window = contagion_window(capital, 0.2, recovery=recovery)
    most = max(j for j in range(1, 1_000) if (1 - recovery) * 0.2 / j > capital * (1 + 1e-12))
    assert window.max_vulnerable_degree == most
    degrees = np.arange(400)
    for mean in (0.5, 0.99, 1.05, 2.0, 3.0, 5.0, 5.9, 8.0, 12.0):
        # sum over in-degrees j up to most, and out-degrees k: j k p_jk >= z, independent Poisson degrees
        weights = poisson.pmf(degrees, mean)
        reached = (degrees * weights)[: most + 1].sum() * (degrees * weights).sum() / mean
        assert window.spreads(mean) == (reached >= 1), mean


def test_windows_at_the_ends():
    assert contagion_window(0.0) == (1.0, np.inf, np.inf)
    assert contagion_window(0.04, recovery=1.0) == (np.inf, -np.inf, 0.0)
    closed = contagion_window(0.15, 0.2)  # only banks with one debtor: z exp(-z) stays below 1
    assert closed == (np.inf, -np.inf, 1.0)
    assert not closed.spreads(1.5)
    for bad in ({"capital": -1}, {"capital": float("nan")}, {"capital": 0.1, "interbank_assets": 0}):
        with pytest.raises(ValueError, match="capital"):
            contagion_window(**bad)
    with pytest.raises(ValueError, match="recovery"):
        contagion_window(0.04, recovery=2.0)


def random_links(nodes, mean, seed):
    random = np.random.default_rng(seed)
    count = random.poisson(nodes * mean)
    debtor, creditor = random.integers(0, nodes, count), random.integers(0, nodes, count)
    keep = debtor != creditor
    links = scipy.sparse.coo_array((np.ones(keep.sum()), (debtor[keep], creditor[keep])), shape=(nodes, nodes)).tocsr()
    links.data[:] = 1.0
    return links


@pytest.mark.parametrize(("mean", "spreads"), [(0.5, False), (2.0, True), (3.5, True), (5.0, True), (12.0, False)])
def test_cascades_occur_inside_the_window_and_not_far_outside(mean, spreads):
    nodes, large = 1_000, 0
    assert contagion_window(0.04).spreads(mean) == spreads
    for seed in range(3):
        links = random_links(nodes, mean, seed)
        starts = np.zeros((nodes, 20), dtype=bool)
        starts[np.random.default_rng(seed).permutation(nodes)[:20], np.arange(20)] = True
        result = gai_kapadia(links, 0.04, defaulted=starts)
        large += (result.failed.mean(axis=0) > 0.1).sum()
    assert large >= 6 if spreads else large == 0


def test_gai_kapadia_spreads_interbank_assets_evenly():
    links = [[0, 3, 1], [0, 0, 7], [0, 0, 0]]
    result = gai_kapadia(links, [0.1, 0.1, 0.06], defaulted=[0], recovery=0.5)
    assert result.loss.tolist() == [0, 0.1, 0.05]  # 0.2 x 1/2 of one debtor, 0.1 x 1/2 of the first of two
    assert result.failed.tolist() == [True, False, False]
    assert gai_kapadia(links, [0.1, 0.09, 0.06], defaulted=[0], recovery=0.5).failed.tolist() == [True, True, True]
    with pytest.raises(ValueError, match="capital"):
        gai_kapadia(links, -0.1, defaulted=[0])
    with pytest.raises(ValueError, match="interbank_assets"):
        gai_kapadia(links, 0.1, interbank_assets=[1, 2], defaulted=[0])


# ------------------------------------------------------------------------------------------------------- result, edges


def test_scenarios_are_solved_as_if_alone():
    random = np.random.default_rng(0)
    liabilities = random.random((9, 9)) * (random.random((9, 9)) < 0.3)
    np.fill_diagonal(liabilities, 0)
    buffer, shocks = random.random(9) * 0.8, random.random((9, 5)) * (random.random((9, 5)) < 0.3)
    starts = np.eye(9, 5, dtype=bool)
    together = threshold(liabilities, buffer, shocks, defaulted=starts)
    furfines = furfine(liabilities, (buffer - shocks.T).T, defaulted=starts)
    assert together.failed.shape == furfines.default_wave.shape == furfines.payments.shape == (9, 5)
    assert together.iterations.shape == (5,)
    for column in range(5):
        alone = threshold(liabilities, buffer, shocks[:, column], defaulted=starts[:, column])
        assert together.default_wave[:, column].tolist() == alone.default_wave.tolist()
        assert together.loss[:, column].tolist() == alone.loss.tolist()
        assert furfines.default_wave[:, column].tolist() == alone.default_wave.tolist()
    assert "9 nodes x 5 scenarios" in repr(together)


def test_one_equity_and_many_defaults():
    result = furfine(CHAIN, [1, 4, 6], defaulted=np.eye(3, dtype=bool))
    assert result.default_wave.T.tolist() == [[0, 1, 2], [-1, 0, 1], [-1, -1, 0]]


def test_edges():
    empty = threshold(np.zeros((0, 0)), [])
    assert empty.failed.shape == (0,)
    assert "0 nodes" in repr(empty)
    assert furfine(np.zeros((0, 0)), [], defaulted=None).payments.shape == (0,)
    none = threshold(CHAIN, np.zeros((3, 0)))
    assert none.failed.shape == (3, 0)
    assert furfine(CHAIN, np.zeros((3, 0)), defaulted=None).payments.shape == (3, 0)
    assert threshold(np.zeros((2, 2)), [1, 1], [2, 0]).failed.tolist() == [True, False]


def test_labels_name_the_result_and_the_defaulted():
    names = pd.Index(["a", "b", "c"], name="bank")
    table = pd.DataFrame(CHAIN, index=names, columns=names)
    equity = pd.Series({"c": 6.0, "b": 4.0, "a": 9.0})
    for chosen in (["a"], pd.Series({"c": False, "a": True, "b": False}), np.array([True, False, False])):
        result = furfine(table, equity, defaulted=chosen, recovery=pd.Series({"b": 0.9, "a": 0.0, "c": 0.0}))
        assert result.default_wave.to_dict() == {"a": 0, "b": 1, "c": -1}
        assert result.net_worth.round(9).to_dict() == {"a": 9.0, "b": -1.0, "c": 5.1}
    cascade = threshold(table, equity, defaulted=["b"])
    assert cascade.failed.to_dict() == {"a": False, "b": True, "c": True}
    assert isinstance(threshold(table, np.ones((3, 2))).loss, pd.DataFrame)
    assert gai_kapadia(table, 0.1, defaulted=["a"]).failed.index.equals(names)
    with pytest.raises(SchemaError, match="unknown labels"):
        furfine(table, equity, defaulted=["z"])


def test_arrays_are_read_only_and_the_input_is_not_changed():
    matrix, buffer = scipy.sparse.csr_array(np.array(CHAIN, dtype=float)), np.array([9.0, 4, 6])
    result = threshold(matrix, buffer, defaulted=[0], loss_given_default=0.5)
    buffer[0] = 0.0
    assert result.remaining.tolist() == [9, 1.5, 6]
    assert matrix.data.tolist() == [5, 9]
    for name in ("failed", "default_wave", "loss", "remaining"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(result, name)[0] = 0


def test_every_problem_is_listed():
    with pytest.raises(SchemaError) as caught:
        threshold([[1, -2.0], [np.nan, 0]], [-1.0, np.nan], [np.inf, -3.0])
    found = {(problem.table, problem.row) for problem in caught.value.problems}
    assert found == {(table, row) for table in ("liabilities", "buffer", "shock") for row in (0, 1)}
    with pytest.raises(SchemaError) as caught:
        furfine(CHAIN, [1, np.nan, 2, 3], defaulted=None, external_liabilities=[-1, 0, 0])
    found = {(problem.table, problem.row) for problem in caught.value.problems}
    assert found == {("equity", 1), ("equity", None), ("external_liabilities", 0)}


@pytest.mark.parametrize("defaulted", [[3], [-1], [0.5], ["a"], np.ones(2, dtype=bool), np.ones((3, 1, 1), dtype=bool)])
def test_nodes_that_are_not_there_are_refused(defaulted):
    with pytest.raises(SchemaError, match="defaulted"):
        furfine(CHAIN, [1, 1, 1], defaulted=defaulted)


def test_scenarios_that_differ_in_number_are_refused():
    with pytest.raises(SchemaError, match="scenarios"):
        threshold(CHAIN, np.ones((3, 2)), np.ones((3, 4)))
    with pytest.raises(ValueError, match="scenarios"):
        threshold(CHAIN, np.ones((3, 2)), defaulted=np.ones((3, 4), dtype=bool))


@pytest.mark.parametrize("wrong", [-0.1, 1.1, float("nan"), [0.1, 0.2]])
def test_shares_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match="recovery"):
        furfine(CHAIN, [1, 1, 1], defaulted=[0], recovery=wrong)
    with pytest.raises(ValueError, match="loss_given_default"):
        threshold(CHAIN, [1, 1, 1], defaulted=[0], loss_given_default=wrong)
