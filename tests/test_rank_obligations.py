"""Rankings from who owes whom: published and independent numbers, plain twins, laws, defects found elsewhere, input."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.linalg

import netcontagion as nc
from netcontagion import clearing
from netcontagion.clearing import debtrank, eisenberg_noe, greenwood_landier_thesmar, sensitivity
from netcontagion.errors import SchemaError
from netcontagion.ranking import (
    _dense,
    _failures,
    communicability,
    contagion_index,
    glasserman_young,
    impact_diffusion,
    impact_fluidity,
    impact_matrix,
    impact_susceptibility,
    sinkrank,
)

HERE = Path(__file__).resolve()
REFERENCES = HERE.parent / "references"
FIXTURE = json.loads((REFERENCES / "ranking.json").read_text(encoding="utf-8"))
CASES = {case["name"]: case for case in FIXTURE["cases"]}
NETWORKS = {
    oracle["network"]: oracle
    for oracle in json.loads((REFERENCES / "network_valuation.json").read_text(encoding="utf-8"))["oracles"]
}
CLEARED = {
    case["name"]: case for case in json.loads((REFERENCES / "eisenberg_noe.json").read_text(encoding="utf-8"))["cases"]
}
SHARED = HERE.parents[2] / "shared" / "reference"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the folder shared/reference is not beside the checkout")
SEEDS = range(6)


def random_debts(seed, nodes=9, density=0.35):
    random = np.random.default_rng(seed)
    owed = random.uniform(0, 5, (nodes, nodes)) * (random.random((nodes, nodes)) < density)
    np.fill_diagonal(owed, 0)
    return owed, random.uniform(0, 6, nodes), random


# published and independent numbers ---------------------------------------------------------------------------------


def answers(case):
    given = case["inputs"]
    if case["name"] == "sinkrank_star4":
        return {"sinkrank": sinkrank(given["flows"])}
    owed = np.array(given["liabilities"], dtype=float)
    own = np.diag(owed) / np.array(given["buffer"])  # what a node owes itself: below 1 here, so no link
    assert (own < 1).all()
    np.fill_diagonal(owed, 0.0)
    return {
        "impact_capped": impact_matrix(owed, given["buffer"]).toarray() + np.diag(own),
        "communicability_of_binary_impact": communicability(owed, given["buffer"]),
    }


@pytest.mark.parametrize("name", CASES)
def test_case(name):
    case = CASES[name]
    found, tolerance = answers(case), case["tolerance"]["abs"]
    for key, expected in case["expected"].items():
        np.testing.assert_allclose(found[key], expected, rtol=0, atol=tolerance)
        assert not np.allclose(found[key], np.array(expected) * 1.02, rtol=0, atol=tolerance)


@needs_shared
@pytest.mark.parametrize("name", CASES)
def test_case_as_shared(name):
    assert json.loads((SHARED / "cases" / f"{name}.json").read_text(encoding="utf-8")) == CASES[name]


def debts_and_equity(network):
    debtor, creditor, amount = zip(*network["edges"], strict=True)
    owed = np.zeros((len(network["equity_before"]),) * 2)
    owed[debtor, creditor] = amount
    return owed, np.array(network["equity_before"])


def assert_susceptibility(owed, equity, expected):
    np.testing.assert_allclose(impact_susceptibility(owed, equity), expected["susceptibility"], rtol=0, atol=1e-10)
    assert impact_fluidity(owed, equity) == pytest.approx(expected["fluidity"], abs=1e-10)


def test_susceptibility_of_an_oracle():
    (oracle,) = FIXTURE["oracles"]
    owed, equity = debts_and_equity(NETWORKS[oracle["network"]])
    assert_susceptibility(owed, equity, oracle["outputs"]["nrm_comm"])
    links = impact_matrix(owed, equity).toarray() >= 1
    assert links.any()
    with pytest.raises(AssertionError):
        assert_susceptibility(owed.T, equity, oracle["outputs"]["nrm_comm"])


@needs_shared
@pytest.mark.parametrize("network", ["mild_n20", "mild_n100"])
def test_susceptibility_of_every_shared_oracle(network):
    def column(path, name):
        with path.open(encoding="utf-8", newline="") as file:
            return [float(row[name]) for row in csv.DictReader(file)]

    edges = SHARED / "oracles" / "inputs" / f"{network}_edges.csv"
    equity = np.array(column(SHARED / "oracles" / "inputs" / f"{network}_nodes.csv", "equity0"))
    owed = np.zeros((len(equity), len(equity)))
    places = tuple(np.array(column(edges, name), dtype=int) for name in ("debtor", "creditor"))
    np.add.at(owed, places, column(edges, "amount"))
    output = SHARED / "oracles" / "outputs" / f"nrm_comm_{network}.csv"
    expected = {"susceptibility": column(output, "susceptibility"), "fluidity": column(output, "fluidity")[0]}
    assert_susceptibility(owed, equity, expected)


def test_threat_index_of_the_ring_of_acemoglu():
    """A unit at bank i goes on to all banks down to bank 0, whose outside creditors have it in the end."""
    case = CLEARED["acemoglu_ring_large"]["inputs"]
    net = np.array(case["net_external"])
    cleared = eisenberg_noe(case["liabilities"], np.maximum(net, 0), np.maximum(-net, 0), external_rank="senior")
    np.testing.assert_allclose(cleared.payments_internal, CLEARED["acemoglu_ring_large"]["expected"]["payments"])
    expected = [1.0, *range(10, 1, -1)]
    np.testing.assert_allclose(sensitivity(cleared).threat_index, expected, rtol=0, atol=1e-10)


def test_vulnerable_banks_of_the_published_form():
    found = greenwood_landier_thesmar([[100], [50]], [10, 10], [0.01], liquidity=[1e-4])
    np.testing.assert_allclose(found.systemicness, [0.00675, 0.0015], rtol=0, atol=1e-12)


# plain twins and laws ---------------------------------------------------------------------------------------------


def sinkrank_twin(flows):
    """Invert I - S_k for every sink; 0 where money can miss it."""
    flows = np.asarray(flows, dtype=float)
    moved = np.flatnonzero(flows.any(axis=0) | flows.any(axis=1))
    flows = flows[np.ix_(moved, moved)]
    size, out = len(flows), flows.sum(axis=1)
    shares = np.divide(flows, out[:, None], out=np.zeros_like(flows), where=out[:, None] > 0)
    found = np.zeros(size)
    reach = np.linalg.matrix_power(np.eye(size) + (flows > 0), size) > 0
    for k in range(size):
        others = np.delete(np.arange(size), k)
        if reach[others, k].all() and (out[others] > 0).all():
            found[k] = (size - 1) / np.linalg.inv(np.eye(size - 1) - shares[np.ix_(others, others)]).sum()
    return moved, found


@pytest.mark.parametrize("seed", range(12))
def test_sinkrank_inverts_one_matrix_for_every_sink(seed):
    flows = random_debts(seed, 8, density=[0.6, 0.3, 0.2][seed % 3])[0]
    if seed % 4 == 3:
        flows[:3, 3:] = 0.0  # nodes that money only comes to
        flows[3:, 0] += 1.0
    moved, expected = sinkrank_twin(flows)
    np.testing.assert_allclose(sinkrank(flows)[moved], expected, rtol=1e-9, atol=1e-12)


def test_sinkrank_is_zero_where_money_may_never_come():
    two_ends = [[0, 1, 1], [0, 0, 0], [0, 0, 0]]
    assert sinkrank(two_ends).tolist() == [0, 0, 0]
    one_end = [[0, 1, 0], [0, 0, 1], [0, 0, 0]]
    np.testing.assert_allclose(sinkrank(one_end), [0, 0, 2 / 3])
    idle = np.zeros((4, 4))
    idle[0, 1] = idle[1, 0] = 3.0
    assert sinkrank(idle).tolist() == [1, 1, 0, 0]
    assert sinkrank(np.zeros((2, 2))).tolist() == [0, 0]


def contagion_twin(owed, equity, first, recovery):
    """Let one node fail after the other, by hand."""
    size, found = len(equity), np.zeros(len(equity))
    for node in range(size):
        loss, failed = np.array(first, dtype=float), set()
        fresh = {node} | {j for j in range(size) if first[j] > equity[j]}
        while fresh:
            failed |= fresh
            for i in fresh:
                loss += owed[i] * (1 - recovery)
            fresh = {j for j in range(size) if j not in failed and loss[j] > equity[j] * (1 + 1e-12)}
        more = np.minimum(loss, equity) - np.minimum(first, equity)
        found[node] = more.sum() - more[node]
    return found


@pytest.mark.parametrize("recovery", [0.0, 0.4])
@pytest.mark.parametrize("seed", SEEDS)
def test_contagion_index_agrees_with_failures_one_by_one(seed, recovery):
    owed, equity, random = random_debts(seed)
    losses = equity[:, None] * random.uniform(0, [0.5, 1.3][seed % 2], (len(equity), 4))
    weights = random.uniform(0, 1, 4)
    twins = [contagion_twin(owed, equity, first, recovery) for first in losses.T]
    expected = np.average(twins, axis=0, weights=weights)
    found = contagion_index(owed, equity, losses, probabilities=weights, recovery=recovery)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    alone = contagion_index(owed, equity, recovery=recovery)
    np.testing.assert_allclose(alone, contagion_twin(owed, equity, np.zeros(9), recovery), rtol=1e-12, atol=1e-12)


def test_failures_that_come_anyway_are_one_run(monkeypatch):
    owed, equity = np.zeros((50, 50)), np.ones(50)
    owed[0, 1], owed[1, 2], owed[3, 2] = 5.0, 5.0, 0.5
    first = np.zeros(50)
    first[0] = 2.0
    runs = []
    threshold = _failures.threshold

    def counted(*arguments, **options):
        runs.append(np.shape(options.get("defaulted", ()))[1:] or (1,))
        return threshold(*arguments, **options)

    monkeypatch.setattr(_failures, "threshold", counted)
    expected = contagion_twin(owed, equity, first, 0.0)
    np.testing.assert_allclose(contagion_index(owed, equity, first), expected, rtol=1e-12, atol=1e-12)
    assert sum(columns for (columns,) in runs) == 2  # what comes anyway, and node 3: the others that owe fail anyway


@pytest.mark.parametrize("loss", [15.0, 19.0])
def test_whom_the_shock_takes_more_than_its_equity_fails_by_the_shock(loss):
    debts = {"debtor": ["a", "b", "d"], "creditor": ["b", "c", "c"], "amount": [12.0, 9.0, 7.0]}
    own = {"trader": list("abcd"), "external_assets": [20.0, 5.0, 5.0, 10.0]}
    net, shock = nc.ExposureNetwork(traders=own, liabilities=debts), nc.Shock.loss({"a": loss})
    failed = nc.clear(net, shock, model="furfine").defaulted
    assert failed.tolist() == [True, True, False, False]
    assert nc.rank(net, "furfine", shock=shock)["furfine"].tolist() == [0.0] * 4  # who fails anyway takes nobody along
    assert nc.rank(net, "furfine")["furfine"].to_dict() == {"a": 8.0, "b": 0.0, "c": 0.0, "d": 0.0}
    left = np.array([0.0, 8.0, 21.0, 3.0])
    first = np.where(left > 0, left * np.array([[0.0], [0.1], [0.2], [0.3], [0.4], [0.5]]), 1.0)
    owed = np.array([[0, 12, 0, 0], [0, 0, 9, 0], [0, 0, 0, 0], [0, 0, 7, 0]])
    expected = np.mean([contagion_twin(owed, left, one, 0.0) for one in first], axis=0)
    found = nc.rank(net, "contagion_index", shock=shock)["contagion_index"]
    np.testing.assert_allclose(found.reindex(list("abcd")), expected, rtol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_contagion_index_rises_with_exposures_and_falls_with_recovery(seed):
    owed, equity, _ = random_debts(seed)
    base = contagion_index(owed, equity)
    assert (contagion_index(owed * 1.3, equity) >= base - 1e-12).all()
    assert (contagion_index(owed, equity, recovery=0.5) <= base + 1e-12).all()
    assert (base <= equity.sum() - equity + 1e-12).all()


@pytest.mark.parametrize("measure", ["contagion_index", "glasserman_young", "sinkrank", "impact_susceptibility"])
@pytest.mark.parametrize("seed", SEEDS[:3])
def test_names_and_the_unit_of_money_do_not_matter(seed, measure):
    owed, equity, random = random_debts(seed)
    function = getattr(nc.ranking, measure)
    arguments = () if measure == "sinkrank" else (equity + 0.1,)
    unit = 1.0 if measure in ("sinkrank", "impact_susceptibility") else 1e-9
    base = function(owed, *arguments)
    scaled = function(owed * 1e-9, *(one * 1e-9 for one in arguments))
    np.testing.assert_allclose(scaled, base * unit, rtol=1e-9, atol=1e-25)
    order = random.permutation(len(equity))
    moved = function(owed[np.ix_(order, order)], *(one[order] for one in arguments))
    np.testing.assert_allclose(moved, np.asarray(base)[order], rtol=1e-9, atol=1e-12)
    names = pd.Index([f"bank-{i}" for i in range(len(equity))])
    labelled = function(pd.DataFrame(owed, names, names), *arguments)
    assert labelled.index.equals(names)
    np.testing.assert_allclose(labelled, base, rtol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_glasserman_young_by_its_parts(seed):
    owed, outside, random = random_debts(seed)
    external = random.uniform(0, 3, len(outside))
    worth = outside + owed.sum(axis=0) - owed.sum(axis=1) - external
    with np.errstate(divide="ignore", invalid="ignore"):
        beta = np.nan_to_num(owed.sum(axis=1) / (owed.sum(axis=1) + external))
    np.testing.assert_allclose(glasserman_young(owed, outside, external), worth * beta * (outside / worth - 1))


def test_glasserman_young_bounds_the_loss_that_reaches_others():
    """What a bank whose outside assets are all lost leaves unpaid inside is its index, where all others pay in full."""
    owed = np.array([[0, 6.0, 2.0], [1.0, 0, 0], [0, 1.0, 0]])
    outside, external = np.array([20.0, 9.0, 9.0]), np.array([10.0, 1.0, 1.0])
    shocked = np.array([0.0, 9.0, 9.0])
    short = eisenberg_noe(owed, shocked, external)
    unpaid = owed.sum(axis=1) - np.asarray(short.payments_internal)
    assert unpaid[1:].tolist() == [0, 0]
    assert unpaid[0] == pytest.approx(glasserman_young(owed, outside, external)[0])


@pytest.mark.parametrize("seed", SEEDS)
def test_communicability_counts_chains(seed):
    owed, equity, _ = random_debts(seed)
    links = (owed / (equity + 0.1) >= 1).astype(float)
    chains, expected = np.eye(9), np.zeros((9, 9))
    for length in range(40):
        expected += chains / math.factorial(length)
        chains = chains @ links
    table = communicability(owed, equity + 0.1)
    np.testing.assert_allclose(table, expected, rtol=1e-9, atol=1e-12)
    diffusion = impact_diffusion(owed, equity + 0.1)
    for node in range(9):
        cut = links.copy()
        cut[node] = 0
        fell = expected - sum(np.linalg.matrix_power(cut, k) / math.factorial(k) for k in range(40))
        out = max(links[node].sum(), 1)
        assert diffusion.loc[node, "start"] == pytest.approx(fell[node].sum() / out, abs=1e-9)
        assert diffusion.loc[node, "total"] == pytest.approx(fell.sum() / out, abs=1e-9)


@pytest.mark.parametrize("cap", [True, False])
def test_impacts_are_the_first_step_of_debtrank(cap):
    owed, equity, random = random_debts(1)
    shock = 0.01 * random.random(9)
    impact = impact_matrix(owed, equity + 0.1, cap_impact=cap)
    assert (impact.max() > 1) != cap
    first = debtrank(owed, equity + 0.1, shock, cap_impact=cap, max_rounds=2, strict=False).distress
    np.testing.assert_allclose(first, np.minimum(1, shock + impact.T @ shock), rtol=1e-12)


def test_impacts_stay_finite():
    assert impact_matrix([[0, 1e200], [0, 0]], [1, 1e-200], cap_impact=False).max() == 1e300
    assert clearing.impact_matrix is impact_matrix


def diffusion_twin(owed, equity):
    """Take a dense exponential for every node that is cut off."""
    links = (owed / equity >= 1).astype(float)
    table = np.zeros((len(links), 2))
    for node in np.flatnonzero(links.any(axis=1)):
        without = links.copy()
        without[node] = 0
        fell = (scipy.linalg.expm(links) - scipy.linalg.expm(without)).sum(axis=1)
        table[node] = np.array([fell[node], fell.sum() - fell[node]]) / links[node].sum()
    return table


@pytest.mark.parametrize("seed", SEEDS)
def test_diffusion_takes_no_matrix_exponential(seed):
    owed, equity, _ = random_debts(seed, nodes=30, density=0.1 * (1 + seed % 3))
    expected = diffusion_twin(owed, equity + 0.1)
    assert expected.any()
    found = impact_diffusion(owed, equity + 0.1)
    np.testing.assert_allclose(found[["start", "intermediate"]], expected, rtol=1e-9, atol=1e-9)


def test_what_takes_a_dense_matrix_says_how_many_nodes_it_allows(monkeypatch):
    monkeypatch.setattr(_dense, "MOST_NODES", 2)
    chain, equity = np.diag([5.0, 5.0], k=1), [4, 4, 4]
    for call in (communicability, impact_susceptibility, impact_fluidity):
        with pytest.raises(ValueError, match=r"communicability of 3 nodes.* allowed: 2 nodes; take the part"):
            call(chain, equity)
    with pytest.raises(ValueError, match=r"sinkrank of 3 nodes.* allowed: 2 nodes; take the part"):
        sinkrank(chain)
    assert impact_diffusion(chain, equity)["start"].round(9).tolist() == [1.5, 1.0, 0.0]
    assert sinkrank(np.pad([[0, 1], [1, 0]], (0, 5))).tolist() == [1, 1, 0, 0, 0, 0, 0]
    banks = nc.ExposureNetwork(
        traders={"trader": [*"abc"]},
        liabilities={"debtor": [*"ab"], "creditor": [*"bc"], "amount": [5.0, 5.0]},
    )
    with pytest.raises(nc.ContagionError, match="does not apply: sinkrank of 3 nodes"):
        nc.rank(banks, "sinkrank")


@pytest.mark.parametrize("nothing", [np.zeros((0, 0)), np.zeros((3, 3))])
def test_without_links_chains_lead_nowhere(nothing):
    equity = np.ones(len(nothing))
    np.testing.assert_array_equal(communicability(nothing, equity), np.eye(len(nothing)))
    assert impact_susceptibility(nothing, equity).tolist() == [0] * len(nothing)
    assert impact_fluidity(nothing, equity) == 0
    assert not impact_diffusion(nothing, equity).to_numpy().any()


# defects found in other software ----------------------------------------------------------------------------------


def test_losses_are_over_each_banks_own_equity_not_over_the_last_ones():
    """Defect of neva 0.3: ``linear_dr`` closes over a loop variable and divides by the equity of the last bank."""
    owed, equity = debts_and_equity(NETWORKS["mild_n20"])
    shock = np.minimum(1.0, np.array(NETWORKS["mild_n20"]["shock"]) / equity)
    expected = np.clip(1 - np.array(NETWORKS["mild_n20"]["outputs"]["neva_lindr"]["equity"]) / equity, 0, 1)
    np.testing.assert_allclose(debtrank(owed, equity, shock).distress, expected, rtol=0, atol=1e-10)
    wrong = debtrank(owed, np.full(20, equity[-1]), shock).distress
    assert np.abs(wrong - expected).max() > 0.1


def test_distress_ends_at_one_where_a_package_goes_beyond():
    """Defect of NetworkRiskMeasures 0.1.7: its final h is not capped."""
    owed, equity = debts_and_equity(NETWORKS["mild_n20"])
    shock = np.minimum(1.0, np.array(NETWORKS["mild_n20"]["shock"]) / equity)
    assert max(NETWORKS["mild_n20"]["outputs"]["nrm_dr"]["h"]) > 1.1
    assert debtrank(owed, equity, shock).distress.max() == 1.0


def test_weights_may_be_left_out_and_a_buffer_of_nothing_is_no_error():
    """Defects of NetworkRiskMeasures 0.1.7: ``contagion()`` needs weights, and refuses a buffer of 0."""
    assert debtrank([[0, 5], [0, 0]], [10, 10], [1, 0]).value == 0.5
    assert contagion_index([[0, 5, 0], [0, 0, 3], [0, 0, 0]], [1, 0, 2]).tolist() == [2.0, 2.0, 0.0]


def test_sizes_of_money_do_not_decide_who_fails():
    """Defect of systemicrisk 0.4.3: an absolute threshold of 1e-7 decides who defaults."""
    chain, equity = np.array([[0, 5.0, 0], [0, 0, 9.0], [0, 0, 0]]), np.array([1.0, 4.0, 6.0])
    for unit in (1e-12, 1.0, 1e12):
        np.testing.assert_allclose(contagion_index(chain * unit, equity * unit), np.array([10, 6, 0]) * unit)
        assert impact_susceptibility(chain * unit, equity * unit).round(9).tolist() == [0.0, 1.0, 1.5]


# input ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: contagion_index([[0, 1], [0, 0]], [1, -1]), "equity"),
        (lambda: contagion_index([[0, 1], [0, 0]], [1, 1], [[1], [-1]]), "losses"),
        (lambda: glasserman_young([[0, -1], [0, 0]], [1, 1]), "liabilities"),
        (lambda: glasserman_young([[0, 1], [0, 0]], [1, np.nan]), "external_assets"),
        (lambda: sinkrank([[1, 1], [0, 0]]), "liabilities"),
        (lambda: impact_susceptibility([[0, 1], [0, 0]], [0, 1]), "equity"),
    ],
)
def test_bad_numbers_are_named(call, word):
    with pytest.raises(SchemaError, match=word):
        call()


def test_probabilities_are_checked():
    with pytest.raises(ValueError, match="give 2 numbers"):
        contagion_index([[0, 1], [0, 0]], [1, 1], np.zeros((2, 2)), probabilities=[1.0])
    with pytest.raises(ValueError, match="not all 0"):
        contagion_index([[0, 1], [0, 0]], [1, 1], probabilities=[0.0])


def test_orientation_debtors_are_rows():
    chain = np.array([[0, 5.0, 0], [0, 0, 5.0], [0, 0, 0]])
    assert contagion_index(chain, [4, 4, 4]).tolist() == [8, 4, 0]
    assert contagion_index(chain.T, [4, 4, 4]).tolist() == [0, 4, 8]
    assert impact_susceptibility(chain, [4, 4, 4])[0] == 0 == impact_susceptibility(chain.T, [4, 4, 4])[2]
