"""Network valuation (NEVA): published and independent numbers, twins, laws of each valuation, calibration, edges."""

from __future__ import annotations

import csv
import itertools
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.integrate
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from seeds import some_and_slow

from netcontagion._status import Status
from netcontagion.clearing import (
    BalanceSheets,
    BlackCox,
    EisenbergNoe,
    ExAnteMerton,
    Furfine,
    LinearDebtRank,
    RogersVeraart,
    eisenberg_noe,
    neva,
)
from netcontagion.errors import NotSettledError, SchemaError

HERE = Path(__file__).resolve()
FIXTURE = json.loads((HERE.parent / "references" / "network_valuation.json").read_text(encoding="utf-8"))
CASES = {case["name"]: case for case in FIXTURE["cases"]}
ORACLES = {oracle["network"]: oracle for oracle in FIXTURE["oracles"]}
SHARED = HERE.parents[2] / "shared" / "reference"
RANKS = ("pari_passu", "senior")
VALUATIONS = {
    "en": EisenbergNoe(),
    "rv": RogersVeraart(0.5, 0.7),
    "furfine": Furfine(),
    "rb06": Furfine(0.6),
    "lindr": LinearDebtRank(),
    "merton": ExAnteMerton(0.2, 0.6),
    "blackcox": BlackCox(0.2, 0.4),
}

needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the folder shared/reference is not beside the checkout")


common = settings(max_examples=28, deadline=None, derandomize=True)


def sheets(equity, assets, dues, senior=0.0, before=None):
    size = np.shape(equity)
    wide = (np.broadcast_to(np.asarray(one, dtype=float), size) for one in (assets, dues, senior))
    return BalanceSheets(*wide, None if before is None else np.broadcast_to(np.asarray(before, dtype=float), size))


def random_network(seed, nodes=8, margin=1.2):
    """Build balance sheets whose book equity is positive before a shock."""
    random = np.random.default_rng(seed)
    liabilities = random.random((nodes, nodes)) * 10 * (random.random((nodes, nodes)) < 0.4)
    np.fill_diagonal(liabilities, 0)
    external = random.random(nodes) * 10
    dues, claims = liabilities.sum(axis=1) + external, liabilities.sum(axis=0)
    before = np.maximum(dues * random.uniform(1.02, margin, nodes) - claims, 0) + 0.1
    return liabilities, before * (1 - 0.5 * random.random(nodes) * (random.random(nodes) < 0.4)), external, before


# ---------------------------------------------------------------------------------------------------------- plain twins


def phi(x):
    return 0.5 * math.erfc(-x / math.sqrt(2))


def pd_lognormal(equity, assets, s):
    return phi((s * s / 2 + math.log(1 - equity / assets)) / s) if equity < assets else 0.0


def conditional_lognormal(equity, assets, dues, s):
    low = phi((math.log(1 - equity / assets) - s * s / 2) / s) if equity < assets else 0.0
    high = phi((math.log(1 - (equity + dues) / assets) - s * s / 2) / s) if equity + dues < assets else 0.0
    return assets * (low - high)


def scalar_value(name, equity, assets, dues, senior, before):
    """Value a unit of one node's debt, written as the sources state it."""
    if name == "lindr":
        return min(1.0, max(0.0, equity) / before)
    if name == "merton":
        default = pd_lognormal(equity, assets, 0.2)
        far = pd_lognormal(equity + dues, assets, 0.2)
        mean = conditional_lognormal(equity, assets, dues, 0.2)
        return 1 - default + 0.6 * ((1 + (equity - assets) / dues) * (default - far) + mean / dues)
    if name == "blackcox":
        if equity <= 0:
            return 0.4
        if equity >= assets:
            return 1.0
        log = math.log(1 - equity / assets)
        return 1 - 0.6 * (phi(log / 0.2 + 0.1) + assets / (assets - equity) * phi(log / 0.2 - 0.1))
    if equity >= -1e-12 * (dues + senior):
        return 1.0
    if name == "en":
        return max(0.0, (equity + dues) / dues)
    if name == "rv":
        left = (0.5 - 0.7) * assets + 0.7 * (equity + dues) - (1 - 0.7) * senior
        return min(1.0, max(0.0, left / dues))
    return {"furfine": 0.0, "rb06": 0.6}[name]


def twin(name, liabilities, assets, external, before, rank):
    """Iterate from book equity downwards, node by node."""
    nodes = range(len(assets))
    internal = [sum(row) for row in liabilities.tolist()]
    dues = internal if rank == "senior" else [internal[i] + external[i] for i in nodes]
    senior = external if rank == "senior" else [0.0 for _ in nodes]
    rest = [sum(liabilities[k][i] for k in nodes) - internal[i] - external[i] for i in nodes]
    book = [before[i] + rest[i] for i in nodes]
    equity = [assets[i] + rest[i] for i in nodes]
    for _ in range(20_000):
        value = [
            scalar_value(name, equity[i], assets[i], dues[i], senior[i], book[i]) if dues[i] else 1.0 for i in nodes
        ]
        received = [sum(liabilities[k][i] * value[k] for k in nodes) for i in nodes]
        new = [assets[i] - external[i] - internal[i] + received[i] for i in nodes]
        if max(abs(a - b) for a, b in zip(new, equity, strict=True)) < 1e-15:
            break
        equity = new
    return np.array(equity)


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("name", VALUATIONS)
@pytest.mark.parametrize("seed", some_and_slow(4, 6))
def test_every_valuation_agrees_with_its_plain_twin(seed, name, rank):
    liabilities, assets, external, before = random_network(seed)
    result = neva(
        liabilities, assets, external, valuation=VALUATIONS[name], external_rank=rank, assets_before=before, rtol=1e-12
    )
    expected = twin(name, liabilities, assets.tolist(), external.tolist(), before.tolist(), rank)
    np.testing.assert_allclose(result.net_worth, expected, rtol=0, atol=1e-9)
    assert result.enclosure == "bracket"
    assert (result.lower <= result.payments + 1e-12).all()
    assert (result.payments <= result.upper + 1e-12).all()


@pytest.mark.parametrize("recovery", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("volatility", [0.02, 0.1, 0.8])
@pytest.mark.parametrize("equity", [-6.0, -0.5, 0.0, 0.3, 2.0, 9.0])
def test_merton_is_the_expectation_it_stands_for(equity, volatility, recovery):
    assets, dues = 5.0, 4.5

    def integrand(z):
        final = equity + assets * (math.exp(-(volatility**2) / 2 + volatility * z) - 1)
        payoff = 1.0 if final >= 0 else recovery * max(0.0, 1 + final / dues)
        return payoff * math.exp(-z * z / 2) / math.sqrt(2 * math.pi)

    kinks = [math.log(1 - x / assets) for x in (equity, equity + dues) if x < assets]
    points = [(kink + volatility**2 / 2) / volatility for kink in kinks]
    points = sorted({-12.0, 12.0, *(min(12.0, max(-12.0, point)) for point in points)})
    expected = sum(
        scipy.integrate.quad(integrand, a, b, epsabs=1e-13, epsrel=1e-13)[0] for a, b in itertools.pairwise(points)
    )
    found = ExAnteMerton(volatility, recovery)(np.array([equity]), sheets([equity], assets, dues))
    assert found[0] == pytest.approx(expected, abs=1e-11)


def test_valuations_without_assets_or_dues():
    equity = np.array([-3.0, -1.0, 0.0, 1.0])
    bare = sheets(equity, 0.0, 2.0)
    assert ExAnteMerton(0.1, 1.0)(equity, bare).tolist() == EisenbergNoe()(equity, bare).tolist() == [0, 0.5, 1, 1]
    assert BlackCox(0.1, 0.25)(equity, bare).tolist() == [0.25, 0.25, 0.25, 1]
    for valuation in (EisenbergNoe(), RogersVeraart(0, 0), ExAnteMerton(0.1, 0)):
        assert valuation(equity, sheets(equity, 1.0, 0.0))[2:].tolist() == [1, 1]
    near = np.array([np.nextafter(1.0, 0.0), 1.0, np.nextafter(1.0, 2.0)])
    for valuation in (ExAnteMerton(0.1, 0.5), BlackCox(0.1, 0.5)):
        np.testing.assert_allclose(valuation(near, sheets(near, 1.0, 2.0)), 1.0, atol=1e-15)


@given(
    st.sampled_from(sorted(VALUATIONS)),
    st.floats(-20, 20),
    st.floats(0, 5),
    st.floats(0, 10),
    st.floats(0.01, 10),
    st.floats(0, 5),
)
@settings(max_examples=300, deadline=None, derandomize=True)
def test_every_valuation_is_a_share_and_does_not_fall_when_equity_rises(name, equity, more, assets, dues, senior):
    points = np.array([equity, equity + more])
    low, high = VALUATIONS[name](points, sheets(points, assets, dues, senior, before=2.5))
    assert 0 <= low <= high + 1e-13
    assert high <= 1


# ---------------------------------------------------------------------------------------------------- published numbers


def case_answers(case):
    given, name = case["inputs"], case["name"]
    if name == "barucca_bdf_exercise":
        before, external = np.array(given["external_assets"], dtype=float), given["external_liabilities"]
        liabilities, after = np.array(given["liabilities"]), before * (1 - given["shock_fraction"])
        naive = liabilities.sum(axis=0) - liabilities.sum(axis=1) - external
        found = {
            f"equity_{key}": neva(
                liabilities, after, external, valuation=valuation, external_rank="senior", assets_before=before
            ).net_worth
            for key, valuation in (("en", EisenbergNoe()), ("linear_dr", LinearDebtRank()))
        }
        return found | {"equity_before": before + naive, "equity_shocked_naive": after + naive}
    grid = np.array(given["grid"]).T
    equity, book = grid[0], sheets(grid[0], grid[1], grid[2])
    simple = np.array(given["en"]["equity"], dtype=float)
    linear = np.array(given["linear_dr"]["equity"], dtype=float)
    return {
        "merton": ExAnteMerton(grid[4], grid[3])(equity, book),
        "blackcox": BlackCox(grid[4], grid[3])(equity, book),
        "en": EisenbergNoe()(simple, sheets(simple, 0, given["en"]["total_liab"])),
        "furfine": Furfine()(simple, sheets(simple, 0, given["en"]["total_liab"])),
        "linear_dr": LinearDebtRank()(linear, sheets(linear, 0, 1, before=given["linear_dr"]["equity0"])),
    }


def disagreements(case):
    found, tolerance = case_answers(case), case["tolerance"]["abs"]
    return [
        name
        for name, value in case["expected"].items()
        if not np.allclose(np.asarray(found[name], dtype=float), value, rtol=0, atol=tolerance)
    ]


@pytest.mark.parametrize("name", ["barucca_bdf_exercise", "neva_valuation_functions"])
def test_case(name):
    case = CASES[name]
    assert disagreements(case) == []
    for factor in (0.98, 1.02):
        expected = {key: (np.asarray(value) * factor).tolist() for key, value in case["expected"].items()}
        assert disagreements({**case, "expected": expected})


def read_oracle(network):
    def column(path, name):
        with path.open(encoding="utf-8", newline="") as file:
            return [float(row[name]) for row in csv.DictReader(file)]

    inputs, outputs = SHARED / "oracles" / "inputs", SHARED / "oracles" / "outputs"
    edges, nodes = inputs / f"{network}_edges.csv", inputs / f"{network}_nodes.csv"
    places = ([int(value) for value in column(edges, name)] for name in ("debtor", "creditor"))
    return {
        "edges": list(zip(*places, column(edges, "amount"), strict=True)),
        "assets_before": column(nodes, "ea"),
        "external_assets": column(nodes, "ea_shocked"),
        "external_liabilities": column(nodes, "el"),
        "equity_before": column(nodes, "equity0"),
        "outputs": {
            f"neva_{model}": {"equity": column(outputs / f"neva_{model}_{network}.csv", "equity")}
            for model in ("en", "en_senior", "rv", "furfine", "rb06", "lindr")
        },
    }


def solve_oracle(oracle, model):
    debtor, creditor, amount = zip(*oracle["edges"], strict=True)
    nodes = len(oracle["assets_before"])
    return neva(
        scipy.sparse.coo_array((amount, (debtor, creditor)), shape=(nodes, nodes)),
        oracle["external_assets"],
        oracle["external_liabilities"],
        valuation=VALUATIONS[model.removesuffix("_senior")],
        external_rank="senior" if model.endswith("senior") else "pari_passu",
        assets_before=oracle["assets_before"],
    )


def assert_oracle(oracle, model, factor=1.0):
    expected = np.array(oracle["outputs"][f"neva_{model}"]["equity"]) * factor
    found = solve_oracle(oracle, model)
    assert found.status is Status.SETTLED
    assert np.abs(found.net_worth - expected).max() <= 1e-10 * np.abs(expected).max()


MODELS = ("en", "en_senior", "rv", "furfine", "rb06", "lindr")


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("network", ORACLES)
def test_oracle(network, model):
    assert_oracle(ORACLES[network], model)
    with pytest.raises(AssertionError):
        assert_oracle(ORACLES[network], model, factor=1.02)


@needs_shared
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("network", ["mild_n20", "mild_n100", "stress_n20", "stress_n100"])
def test_every_oracle_of_the_shared_reference(network, model):
    assert_oracle(read_oracle(network), model)


def test_every_node_has_its_own_reference_equity():
    # neva 0.3, shock_and_solve(..., "linear_dr"): a closure over the loop variable gave every bank the last one's
    oracle = ORACLES["mild_n20"]
    right = solve_oracle(oracle, "lindr").net_worth
    last = oracle["equity_before"][-1]

    def of_the_last_bank(equity, _):
        return np.clip(equity / last, 0, 1)

    of_the_last_bank.monotone = True
    debtor, creditor, amount = zip(*oracle["edges"], strict=True)
    liabilities = scipy.sparse.coo_array((amount, (debtor, creditor)), shape=(20, 20))
    wrong = neva(liabilities, oracle["external_assets"], oracle["external_liabilities"], valuation=of_the_last_bank)
    assert (np.abs(wrong.net_worth - right) / oracle["equity_before"]).max() > 0.1


def test_reference_equity_before_and_after_the_shock_are_two_conventions():
    cycle, before, external = [[0, 4, 0], [0, 0, 3], [2, 0, 0]], np.array([20.0, 20, 10]), [15, 15, 5]
    after = before - [1.0, 0, 0]
    original, shocked = (
        neva(cycle, after, external, valuation=LinearDebtRank(), assets_before=given).net_worth
        for given in (before, after)
    )
    assert (original < shocked).all()
    assert shocked.tolist() == [2, 6, 6]  # nobody has lost anything of the shocked sheet's equity


# ------------------------------------------------------------------------------------------------ against other solvers


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("which", ["greatest", "least"])
@pytest.mark.parametrize("seed", some_and_slow(5, 10))
def test_eisenberg_noe_as_a_valuation_is_eisenberg_noe(seed, which, rank):
    liabilities, assets, external, _ = random_network(seed)
    assets = assets * 0.6 + 0.01
    valued = neva(liabilities, assets, external, valuation=EisenbergNoe(), external_rank=rank, which=which, rtol=1e-12)
    cleared = eisenberg_noe(liabilities, assets, external, external_rank=rank, which=which)
    for name in ("payments", "payments_internal", "payments_external", "net_worth"):
        np.testing.assert_allclose(getattr(valued, name), getattr(cleared, name), rtol=0, atol=1e-8)
    valued.check()


def rogers_veraart_twin(liabilities, assets, external, alpha, beta, rank):
    """Rogers-Veraart payments by default sets from none, in all dues (pari passu) or inside only (senior)."""
    internal = liabilities.sum(axis=1)
    dues = internal if rank == "senior" else internal + external
    first = external if rank == "senior" else np.zeros(len(assets))
    share = liabilities / np.maximum(dues, 1e-300)[:, None]
    fallen, payments = np.zeros(len(assets), dtype=bool), dues.copy()
    while True:
        has = assets + share.T @ payments
        new = (has < (first + dues) * (1 - 1e-12)) & ~fallen
        if not new.any():
            return payments
        fallen |= new
        for _ in range(5_000):
            before, after = payments, np.clip(alpha * assets + beta * (share.T @ payments) - first, 0, dues)
            payments = np.where(fallen, after, dues)
            if (payments == before).all():
                break


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("seed", range(10))
def test_rogers_veraart_as_a_valuation_is_rogers_veraart(seed, rank):
    liabilities, assets, external, _ = random_network(seed, nodes=6)
    valued = neva(liabilities, assets, external, valuation=RogersVeraart(0.6, 0.8), external_rank=rank, rtol=1e-12)
    expected = rogers_veraart_twin(liabilities, assets, external, 0.6, 0.8, rank)
    inside = valued.payments_internal if rank == "senior" else valued.payments
    np.testing.assert_allclose(inside, expected, rtol=0, atol=1e-8)


def test_rogers_veraart_without_costs_is_eisenberg_noe():
    liabilities, assets, external, _ = random_network(3)
    one, other = (neva(liabilities, assets * 0.7, external, valuation=v) for v in (RogersVeraart(1, 1), EisenbergNoe()))
    np.testing.assert_allclose(one.payments, other.payments, atol=1e-8)


def test_costs_can_make_two_solutions_where_eisenberg_noe_has_one():
    cycle = [[0, 1], [1, 0]]
    for which, expected in (("greatest", [1, 1]), ("least", [0.4, 0.4])):
        result = neva(cycle, [0.4, 0.4], valuation=RogersVeraart(0.5, 0.5), which=which)
        np.testing.assert_allclose(result.payments, expected, atol=1e-9)
        assert result.width == pytest.approx(0.6)
        assert any("least and greatest solution may differ" in note for note in result.assumptions)
        single = neva(cycle, [0.4, 0.4], valuation=EisenbergNoe(), which=which)
        np.testing.assert_allclose(single.payments, [1, 1], atol=1e-9)


def test_from_below_a_jump_is_taken_where_the_iteration_would_stall():
    # iteration from 0 tends to 1/2, where equity is 0: solvent, so both pay in full
    result = neva([[0, 1], [1, 0]], [0.5, 0.5], valuation=RogersVeraart(0.5, 0.5), which="least")
    np.testing.assert_allclose(result.payments, [1, 1], atol=1e-12)


# ---------------------------------------------------------------------------------------------------------- calibration


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("name", VALUATIONS)
@pytest.mark.parametrize("seed", some_and_slow(2, 4))
def test_the_calibrated_system_without_a_shock_has_its_book_equity(seed, name, rank):
    liabilities, _, external, before = random_network(seed)
    book = before + liabilities.sum(axis=0) - liabilities.sum(axis=1) - external
    options = {"valuation": VALUATIONS[name], "external_rank": rank, "assets_before": before}
    result = neva(liabilities, before, external, calibrate=True, **options)
    np.testing.assert_allclose(result.net_worth, book, rtol=0, atol=1e-12 * before.max())
    plain = neva(liabilities, before, external, **options)
    if name in ("merton", "blackcox"):
        assert (plain.net_worth < book - 1e-6).any()  # value is lost before any shock
        assert any("calibrated" in note for note in result.assumptions)
    else:
        np.testing.assert_allclose(plain.net_worth, book, atol=1e-12 * before.max())


def test_calibration_adds_what_claims_are_worth_less_than_face():
    liabilities, assets, external, before = random_network(1)
    valuation = ExAnteMerton(0.3, 0.5)
    scenarios = np.column_stack([before, assets])
    result = neva(liabilities, scenarios, external, valuation=valuation, assets_before=before, calibrate=True)
    added = result.values.external_assets[:, 0] - before
    np.testing.assert_allclose(result.values.external_assets[:, 1] - assets, added, atol=1e-12)
    np.testing.assert_allclose(added, liabilities.T @ (1 - result.recovery_rate[:, 0]), atol=1e-10)
    assert (result.net_worth[:, 1] <= result.net_worth[:, 0] + 1e-12).all()
    direct = (before - assets)[assets < before]
    lost = (result.net_worth[:, 0] - result.net_worth[:, 1])[assets < before]
    assert (lost >= direct - 1e-9).all()


def test_an_unstable_calibrated_system_stands_without_a_shock_and_falls_with_the_least_one():
    cycle, before, external = [[0, 100.0], [100.0, 0]], np.array([10.0, 10.0]), [9.0, 9.0]
    options = {"external_liabilities": external, "valuation": BlackCox(0.2), "assets_before": before, "calibrate": True}
    calm = neva(cycle, before, **options)
    np.testing.assert_allclose(calm.net_worth, [1, 1], rtol=0, atol=1e-12)
    shaken = neva(cycle, before - 1e-6, **options)
    assert (shaken.net_worth < 0.5).all()


def test_gains_start_from_face_value():
    liabilities, _, external, before = random_network(2)
    options = {"valuation": ExAnteMerton(0.2, 0.5), "assets_before": before, "calibrate": True}
    calm, richer = (neva(liabilities, assets, external, **options) for assets in (before, before * 1.1))
    assert (richer.net_worth >= calm.net_worth + 0.1 * before - 1e-9).all()


# ----------------------------------------------------------------------------------------------------------------- laws

amounts = st.one_of(st.just(0.0), st.integers(1, 64).map(lambda quarter: quarter / 4))
names = st.sampled_from(sorted(VALUATIONS))
ranks = st.sampled_from(RANKS)


@st.composite
def networks(draw):
    nodes = draw(st.integers(1, 5))
    cells = draw(st.lists(amounts, min_size=nodes * nodes, max_size=nodes * nodes))
    liabilities = np.array(cells).reshape(nodes, nodes)
    np.fill_diagonal(liabilities, 0)
    external = np.array(draw(st.lists(amounts, min_size=nodes, max_size=nodes)))
    capital = np.array(draw(st.lists(st.integers(1, 40).map(lambda q: q / 4), min_size=nodes, max_size=nodes)))
    before = np.maximum(liabilities.sum(axis=1) + external - liabilities.sum(axis=0), 0) + capital
    left = np.array(draw(st.lists(st.integers(0, 8).map(lambda part: part / 8), min_size=nodes, max_size=nodes)))
    return liabilities, before * left, external, before


def value(network, name, rank, **options):
    liabilities, assets, external, before = network
    given = {"valuation": VALUATIONS[name], "external_rank": rank, "assets_before": before, "strict": False}
    return neva(liabilities, assets, external, **given | options)


@given(networks(), names, ranks, st.integers(0, 4), st.sampled_from([0.25, 3.0, 50.0]))
@common
def test_values_rise_with_external_assets(network, name, rank, node, more):
    liabilities, assets, external, before = network
    richer = assets.copy()
    richer[node % len(assets)] += more
    low, high = (value((liabilities, given, external, before), name, rank) for given in (assets, richer))
    assert (high.net_worth >= low.net_worth - 1e-7).all()


@given(networks(), names, ranks)
@common
def test_least_and_greatest_solution_are_bracketed(network, name, rank):
    greatest, least = (value(network, name, rank, which=which) for which in ("greatest", "least"))
    assert greatest.enclosure == least.enclosure == "bracket"
    assert (greatest.net_worth >= least.net_worth - 1e-7).all()
    for result in (greatest, least):
        assert (result.lower <= result.payments + 1e-9).all()
        assert (result.payments <= result.upper + 1e-9).all()
        assert np.max(result.residual) <= 1e-9


@given(networks(), names, ranks, st.randoms(use_true_random=False))
@common
def test_names_of_nodes_do_not_matter(network, name, rank, random):
    liabilities, assets, external, before = network
    order = list(range(len(assets)))
    random.shuffle(order)
    plain = value(network, name, rank)
    mixed = value((liabilities[np.ix_(order, order)], assets[order], external[order], before[order]), name, rank)
    np.testing.assert_allclose(mixed.net_worth, plain.net_worth[order], rtol=0, atol=1e-7)


@given(networks(), names, ranks, st.sampled_from([1e-12, 1e-6, 7.0, 1e6, 1e12]))
@common
def test_the_unit_of_money_does_not_matter(network, name, rank, unit):
    plain, scaled = value(network, name, rank), value(tuple(unit * part for part in network), name, rank)
    np.testing.assert_allclose(scaled.net_worth / unit, plain.net_worth, rtol=0, atol=1e-7)
    assert scaled.status is plain.status


@given(networks(), ranks)
@common
def test_eisenberg_noe_conserves_value_and_limits_liability(network, rank):
    result = value(network, "en", rank)
    result.check()
    assert result.conserves
    assert result.equity.sum() + result.payments_external.sum() == pytest.approx(network[1].sum(), abs=1e-7)


def test_other_valuations_do_not_conserve_and_given_recovery_does_not_limit_liability():
    chain = [[0, 10], [0, 0]]
    result = neva(chain, [1, 0], valuation=Furfine(0.6))
    assert result.payments[0] == 6.0  # out of assets of 1
    assert result.equity.sum() + result.payments_external.sum() == 6.0  # out of 1
    assert not result.conserves
    lost = neva(chain, [9, 0], valuation=Furfine(0.0))
    assert lost.equity.sum() == 0.0  # out of 9


def test_values_before_maturity_can_exceed_what_there_is_and_are_not_conserved():
    chain = [[0, 10], [0, 0]]  # 0 has 4; it may have more, or less, before it has to pay
    for valuation in (ExAnteMerton(0.8, 0.6), BlackCox(0.8, 0.6)):
        solvent, insolvent = (neva(chain, [assets, 0], valuation=valuation) for assets in (12, 4))
        assert solvent.net_worth[0] > 0
        assert solvent.payments[0] < 10  # less than due though it could pay
        assert solvent.equity.sum() < 12 - 1e-3
        assert not solvent.conserves
        assert not solvent.limited
    assert insolvent.payments[0] == 6.0  # of the last: a recovery that is given, out of assets of 4


def test_a_falling_valuation_loses_monotony():
    def falling(equity, _):
        return 1 / (1 + np.exp(equity))

    chain = [[0, 10], [0, 0]]
    low, high = (neva(chain, [assets, 0], valuation=falling) for assets in (5.0, 12.0))
    assert high.payments[0] < low.payments[0]
    assert low.enclosure == "none"


# ------------------------------------------------------------------------------------------------------ statuses, edges


def test_too_few_rounds_raise_with_the_result():
    network = {"liabilities": [[0, 1], [1, 0]], "external_assets": [0.001, 0], "external_liabilities": [0.01, 0.01]}
    with pytest.raises(NotSettledError, match="MAX_ROUNDS") as caught:
        neva(**network, valuation=EisenbergNoe(), max_rounds=5)
    assert caught.value.result.status is Status.MAX_ROUNDS
    loose = neva(**network, valuation=EisenbergNoe(), max_rounds=5, strict=False)
    exact = eisenberg_noe(*network.values()).payments
    assert (loose.lower <= exact + 1e-15).all()
    assert (exact <= loose.upper + 1e-15).all()


def test_a_valuation_that_flips_stalls():
    def flips(equity, _):
        return np.where(equity < 0, 1.0, 0.0)

    with pytest.raises(NotSettledError, match="STALLED"):
        neva([[0, 1], [1, 0]], [0.5, 0.5], valuation=flips)


def test_a_valuation_that_is_no_number_is_nonfinite():
    def broken(equity, _):
        return np.full(equity.shape, np.nan)

    for monotone in (True, False):
        broken.monotone = monotone
        with pytest.raises(NotSettledError, match="NONFINITE"):
            neva([[0, 1], [1, 0]], [0.5, 0.5], valuation=broken)


@pytest.mark.parametrize("answer", [1.5, -0.1, [1.0]])
def test_a_valuation_that_returns_no_value_is_refused(answer):
    with pytest.raises(ValueError, match="valuation returned"):
        neva([[0, 1], [1, 0]], [0.5, 0.5], valuation=lambda equity, _: np.array(answer) + 0 * equity[: np.size(answer)])


def test_a_plain_function_will_do():
    result = neva([[0, 10], [0, 0]], [4, 0], valuation=lambda equity, sheets: 0.5 + 0 * equity)
    assert result.net_worth.tolist() == [-6, 5]
    assert result.enclosure == "none"
    assert any("<lambda>" in note for note in result.assumptions)


@pytest.mark.parametrize("name", VALUATIONS)
def test_edges(name):
    options = {"valuation": VALUATIONS[name]}
    assert neva(np.zeros((0, 0)), [], assets_before=[], **options).payments.shape == (0,)
    assert neva(np.zeros((2, 2)), np.zeros((2, 0)), assets_before=[1, 1], **options).payments.shape == (2, 0)
    alone = neva(np.zeros((2, 2)), [3, 1], [0, 0.5], assets_before=[3, 1], **options)
    assert alone.net_worth.tolist() == [3, 0.5]


@pytest.mark.parametrize("rank", RANKS)
def test_scenarios_are_solved_as_if_alone(rank):
    liabilities, assets, external, before = random_network(4)
    scenarios = np.column_stack([assets, assets * 0.5, before])
    together = neva(
        liabilities, scenarios, external, valuation=RogersVeraart(0.5, 0.7), external_rank=rank, assets_before=before
    )
    for column, alone in enumerate(scenarios.T):
        result = neva(liabilities, alone, external, valuation=RogersVeraart(0.5, 0.7), external_rank=rank)
        assert together.net_worth[:, column].tolist() == result.net_worth.tolist()
        assert together.payments_external[:, column].tolist() == result.payments_external.tolist()
    assert together.residual.shape == together.iterations.shape == (3,)


def test_orientation_debtors_are_rows():
    chain = [[0, 10, 0], [0, 0, 10], [0, 0, 0]]
    assert neva(chain, [8, 1, 0], valuation=EisenbergNoe()).payments.tolist() == [8, 9, 0]
    assert neva(np.transpose(chain), [8, 1, 0], valuation=EisenbergNoe()).payments.tolist() == [0, 1, 0]


def test_labels_join_by_name():
    rows = pd.Index(["a", "b", "c"], name="bank")
    table = pd.DataFrame([[0, 10, 0], [0, 0, 10], [0, 0, 0]], index=rows, columns=rows)
    assets = pd.Series({"c": 0.0, "a": 8.0, "b": 1.0})
    recovery = pd.Series({"b": 0.5, "c": 0.9, "a": 0.1})
    result = neva(table, assets, valuation=Furfine(recovery))
    assert result.payments.to_dict() == {"a": 1.0, "b": 5.0, "c": 0.0}
    with pytest.raises(SchemaError, match="labels"):
        neva(table, pd.Series({"a": 1.0, "b": 1.0, "x": 1.0}), valuation=Furfine())
    with pytest.raises(ValueError, match="labels"):
        neva(table, assets, valuation=Furfine(pd.Series({"a": 0.1})))


def test_every_problem_is_listed():
    with pytest.raises(SchemaError) as caught:
        neva(
            [[1, -2.0], [np.nan, 0]], [-1.0, np.inf], [np.nan, -3.0], valuation=EisenbergNoe(), assets_before=[1, 2, 3j]
        )
    found = {(problem.table, problem.row) for problem in caught.value.problems}
    assert found == {
        ("liabilities", 0),
        ("liabilities", 1),
        ("external_assets", 0),
        ("external_assets", 1),
        ("external_liabilities", 0),
        ("external_liabilities", 1),
        ("assets_before", None),
    }


def test_linear_debtrank_needs_positive_equity_before_the_shock():
    with pytest.raises(ValueError, match="assets_before"):
        neva([[0, 1], [0, 0]], [1, 1], valuation=LinearDebtRank())
    with pytest.raises(SchemaError, match="equity before the shock"):
        neva([[0, 1], [0, 0]], [1, 1], valuation=LinearDebtRank(), assets_before=[1, 1])
    with pytest.raises(ValueError, match="assets_before"):
        LinearDebtRank()(np.ones(1), sheets([1.0], 1, 1))
    with pytest.raises(ValueError, match="more than 0"):
        LinearDebtRank()(np.ones(1), sheets([1.0], 1, 1, before=0.0))


@pytest.mark.parametrize(
    "options",
    [
        {"external_rank": "junior"},
        {"which": "largest"},
        {"rtol": 0.0},
        {"max_rounds": 0},
        {"calibrate": True},
        {"valuation": 3},
        {"valuation": "furfine"},
    ],
)
def test_bad_options(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        neva([[0, 1], [0, 0]], [1, 1], **{"valuation": EisenbergNoe()} | options)


@pytest.mark.parametrize(
    ("valuation", "name"),
    [
        (Furfine(1.5), "recovery"),
        (Furfine([0.1, 0.2, 0.3]), "recovery"),
        (RogersVeraart(-0.1, 1), "alpha"),
        (RogersVeraart(1, float("nan")), "beta"),
        (ExAnteMerton(0.0), "volatility"),
        (BlackCox(-1.0), "volatility"),
        (BlackCox(0.1, 2.0), "recovery"),
    ],
)
def test_bad_parameters_of_valuations(valuation, name):
    with pytest.raises(ValueError, match=name):
        neva([[0, 1], [0, 0]], [0.5, 1], valuation=valuation)


def test_the_result_says_what_it_assumes():
    liabilities, assets, external, before = random_network(0)
    text = repr(neva(liabilities, assets, external, valuation=ExAnteMerton(0.1), assets_before=before))
    assert "debt is valued by ExAnteMerton" in text
    assert "values before maturity" in text
