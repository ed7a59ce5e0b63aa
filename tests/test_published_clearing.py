"""Eisenberg-Noe clearing against published numbers and against independent software."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse

from netcontagion.clearing import eisenberg_noe

HERE = Path(__file__).resolve()
FIXTURE = json.loads((HERE.parent / "references" / "eisenberg_noe.json").read_text(encoding="utf-8"))
SHARED = HERE.parents[2] / "shared" / "reference"
SOLVERS = ("auto", "fixed_point", "fictitious_default")
MODELS = ("eisenberg_noe", "eisenberg_noe_ext", "eisenberg_noe_extremes", "eisenberg_noe_net_senior")
NETWORKS = ("mild_n20", "stress_n20", "mild_n100", "stress_n100")
INSIDE = {"neva_en_senior": "payment_interbank"}
SOFTWARE = ("systemicrisk_en", "neva_en", "networkvaluation_en", "neva_en_senior")

needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the folder shared/reference is not beside the checkout")


def answers(case, solver="auto"):
    """Translate the inputs of a case into calls, and the results into the names of its expected numbers."""
    given = case["inputs"]
    liabilities = given["liabilities"]
    if case["model"] == "eisenberg_noe_extremes":
        assets = given["external_assets"]
        extremes = ("greatest", "least")
        return {name: eisenberg_noe(liabilities, assets, which=name, solver=solver).payments for name in extremes}
    if case["model"] == "eisenberg_noe_net_senior":
        net = np.array(given["net_external"])
        result = eisenberg_noe(
            liabilities, np.maximum(net, 0), np.maximum(-net, 0), external_rank="senior", solver=solver
        )
        unpaid = result.liabilities.sum(axis=1) - result.payments_internal
        return {"payments": result.payments_internal, "n_defaults": (unpaid > 1e-9).sum()}
    result = eisenberg_noe(
        liabilities,
        given["external_assets"],
        given.get("external_liabilities"),
        external_rank=given.get("external_seniority", "pari_passu"),
        solver=solver,
    )
    before = result.values.external_assets + result.liabilities.sum(axis=0) - result.dues
    return {
        "payments": result.payments,
        "interbank_payments": result.payments_internal,
        "external_payments": result.payments_external,
        "signed_equity_before": before,
        "signed_equity_after": result.net_worth,
        "default_before": before < 0,
        "default_after": result.defaulted,
    }


def disagreements(case, solver="auto"):
    """Names of the expected numbers that are not met."""
    found, tolerance = answers(case, solver), case["tolerance"]["abs"]
    numbers = {name: value for name, value in case["expected"].items() if not name.endswith("_as_printed_in_readme")}
    return [
        name
        for name, value in numbers.items()
        if not np.allclose(np.asarray(found[name], dtype=float), value, rtol=0, atol=tolerance)
    ]


def changed(case, factor):
    expected = {name: (np.asarray(value) * factor).tolist() for name, value in case["expected"].items()}
    return {**case, "expected": expected}


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("case", FIXTURE["cases"], ids=lambda case: case["name"])
def test_case(case, solver):
    assert disagreements(case, solver) == []


@pytest.mark.parametrize("factor", [0.98, 1.02])
@pytest.mark.parametrize("case", FIXTURE["cases"], ids=lambda case: case["name"])
def test_the_comparison_fails_when_expected_numbers_change_by_two_percent(case, factor):
    assert disagreements(changed(case, factor))


def test_the_readme_of_the_source_prints_a_payment_that_does_not_clear():
    case = next(case for case in FIXTURE["cases"] if case["name"] == "en_siebenbrunner_3banks")
    printed = case["expected"]["payments_as_printed_in_readme"]
    assert np.abs(answers(case)["payments"] - printed).max() > 1


def oracle_result(liabilities, assets, external, software, solver):
    rank = "senior" if software.endswith("senior") else "pari_passu"
    result = eisenberg_noe(liabilities, assets, external, external_rank=rank, solver=solver)
    result.check()
    return result.payments_internal if rank == "senior" else result.payments


def assert_equal_payments(found, expected):
    assert np.abs(found - expected).max() <= 1e-10 * np.max(expected)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("software", FIXTURE["oracle_sources"])
@pytest.mark.parametrize("oracle", FIXTURE["oracles"], ids=lambda oracle: oracle["network"])
def test_oracle(oracle, software, solver):
    debtor, creditor, amount = zip(*oracle["edges"], strict=True)
    liabilities = scipy.sparse.coo_array((amount, (debtor, creditor)), shape=(20, 20))
    found = oracle_result(liabilities, oracle["external_assets"], oracle["external_liabilities"], software, solver)
    assert_equal_payments(found, oracle["outputs"][software])
    with pytest.raises(AssertionError):
        assert_equal_payments(found, np.array(oracle["outputs"][software]) * 1.02)


@needs_shared
def test_every_case_of_the_shared_reference():
    files = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((SHARED / "cases").glob("*.json"))]
    cases = [case for case in files if case["model"] in MODELS]
    assert len(cases) >= len(FIXTURE["cases"])
    wrong = {(case["name"], solver): disagreements(case, solver) for case in cases for solver in SOLVERS}
    assert not {key: names for key, names in wrong.items() if names}


@needs_shared
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("software", SOFTWARE)
@pytest.mark.parametrize("network", NETWORKS)
def test_every_oracle_of_the_shared_reference(network, software, solver):
    def column(path, name):
        with path.open(encoding="utf-8", newline="") as file:
            return np.array([float(row[name]) for row in csv.DictReader(file)])

    inputs = SHARED / "oracles" / "inputs"
    edges, nodes = inputs / f"{network}_edges.csv", inputs / f"{network}_nodes.csv"
    assets, external = column(nodes, "ea_shocked"), column(nodes, "el")
    places = column(edges, "debtor").astype(int), column(edges, "creditor").astype(int)
    liabilities = scipy.sparse.coo_array((column(edges, "amount"), places), shape=(len(assets), len(assets)))
    expected = column(SHARED / "oracles" / "outputs" / f"{software}_{network}.csv", INSIDE.get(software, "payment"))
    assert_equal_payments(oracle_result(liabilities, assets, external, software, solver), expected)
