"""Matrices from margins: published numbers, slow twins, exact posteriors; and the balance sheets of neva."""

from __future__ import annotations

import csv
import io
import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from conftest import refused
from hypothesis import given, settings
from hypothesis import strategies as st
from seeds import slow_rows

import netcontagion as nc
from netcontagion.builders import _gibbs as gibbs
from netcontagion.builders import from_balance_sheets, from_matrix, reconstruct
from netcontagion.clearing import eisenberg_noe

HERE = Path(__file__).resolve()
FIXTURE = json.loads((HERE.parent / "references" / "reconstruction.json").read_text(encoding="utf-8"))
SHARED = HERE.parents[2] / "shared" / "reference"
METHODS = {"max_entropy": {}, "min_density": {}, "gibbs": {"link_probability": 0.5, "seed": 0}}
ANAND = ([7, 5, 3, 1, 3, 0, 1], [4, 5, 5, 0, 0, 2, 4])

needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the folder shared/reference is not beside the checkout")


def margins_of(matrix):
    """Assets and liabilities of a matrix whose row i owes column j."""
    return np.asarray(matrix.sum(axis=0)), np.asarray(matrix.sum(axis=1))


def assert_margins(matrix, assets, liabilities, rtol=1e-9):
    held, owed = margins_of(matrix)
    np.testing.assert_allclose(held, assets, rtol=rtol, atol=0)
    np.testing.assert_allclose(owed, liabilities, rtol=rtol, atol=0)


def random_matrix(rng, n, spread=1.0, density=1.0):
    matrix = rng.lognormal(0, spread, (n, n)) * (rng.random((n, n)) < density)
    np.fill_diagonal(matrix, 0)
    return matrix


def ras(assets, liabilities, pattern, rounds=20_000):
    """Scale rows and columns of ones in turn: the slow twin."""
    matrix = np.array(pattern, dtype=float)
    for _ in range(rounds):
        for axis, margin in ((1, liabilities), (0, assets)):
            sums = matrix.sum(axis=axis, keepdims=True)
            target = np.expand_dims(np.asarray(margin, dtype=float), axis)
            matrix *= np.divide(target, sums, out=np.zeros_like(sums), where=sums > 0)
        if np.allclose(matrix.sum(axis=1), liabilities, rtol=1e-13, atol=0):
            break
    return matrix


# orientation and form ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_a_row_owes_its_columns(method):
    chain = np.array([[0, 10.0, 0], [0, 0, 10.0], [0, 0, 0]])
    matrix = reconstruct([0, 10, 10], [10, 10, 0], method=method, **METHODS[method])
    assert isinstance(matrix, scipy.sparse.csr_array)
    np.testing.assert_allclose(matrix.toarray(), chain, rtol=1e-12)
    assert eisenberg_noe(matrix, [4.0, 1.0, 0.0]).payments.tolist() == [4.0, 5.0, 0.0]
    net = from_matrix(matrix, rows="debtor", external_assets=[4.0, 1.0, 0.0])
    assert nc.clear(net).payments.tolist() == [4.0, 5.0, 0.0]
    turned = reconstruct([10, 10, 0], [0, 10, 10], method=method, **METHODS[method])
    np.testing.assert_allclose(turned.toarray(), chain.T, rtol=1e-12)
    assert eisenberg_noe(turned, [4.0, 1.0, 0.0]).payments.tolist() != [4.0, 5.0, 0.0]


@pytest.mark.parametrize("method", METHODS)
def test_labelled_margins_give_a_labelled_matrix(method):
    assets = pd.Series([2.0, 3.0, 4.0], index=["a", "b", "c"])
    owed = pd.Series([3.0, 4.0, 2.0], index=["b", "a", "c"])
    frame = reconstruct(assets, owed, method=method, **METHODS[method])
    assert frame.index.tolist() == frame.columns.tolist() == ["a", "b", "c"]
    assert_margins(frame, [2, 3, 4], [4, 3, 2])
    outside = pd.Series([1.0, 1.0, 1.0], index=["c", "b", "a"])
    assert nc.clear(from_matrix(frame, rows="debtor", external_assets=outside)).status.settled
    assert eisenberg_noe(frame, outside).status.settled
    known = reconstruct(assets, owed, method=method, known={("a", "b"): 2.0}, **METHODS[method])
    np.testing.assert_allclose(known, [[0, 2, 2], [1, 0, 2], [1, 1, 0]])


@pytest.mark.parametrize("method", METHODS)
def test_rows_and_columns_of_different_nodes(method):
    holders, issues = pd.Series([5.0, 1.0, 3.0, 2.0], index=list("wxyz")), pd.Series([4.0, 7.0], index=["gov", "corp"])
    frame = reconstruct(holders, issues, method=method, bipartite=True, **METHODS[method])
    assert frame.shape == (2, 4)
    assert_margins(frame, holders, issues)
    square = reconstruct([1.0, 2.0], [1.0, 2.0], method="max_entropy", bipartite=True).toarray()
    np.testing.assert_allclose(square, np.outer([1, 2], [1, 2]) / 3)
    assert ("liabilities", None, None) in refused(reconstruct, holders.array, issues.array, method=method)


@pytest.mark.parametrize("method", METHODS)
def test_margins_of_zero(method):
    assert reconstruct([0, 0, 0], [0, 0, 0], method=method, **METHODS[method]).nnz == 0
    empty = reconstruct([1, 0, 0], [0, 1, 0], method=method, **METHODS[method])
    assert empty.toarray().tolist() == [[0, 0, 0], [1, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("unit", [1e-12, 1e-3, 7.0, 1e12])
@pytest.mark.parametrize("method", METHODS)
def test_the_unit_of_money_changes_nothing(method, unit):
    assets, owed = np.array([7.1, 5.3, 3.7, 1.9, 3.1]), np.array([4.3, 5.9, 5.1, 2.7, 3.1])
    plain = reconstruct(assets, owed, method=method, **METHODS[method])
    scaled = reconstruct(assets * unit, owed * unit, method=method, **METHODS[method])
    assert_margins(scaled, assets * unit, owed * unit)
    if method == "min_density":  # where margins tie, rounding decides which of the sparsest matrices it is
        assert scaled.nnz == plain.nnz
    elif method == "max_entropy":
        np.testing.assert_allclose(scaled.toarray(), plain.toarray() * unit, rtol=1e-9)


# maximum entropy --------------------------------------------------------------------------------------------------


def answer(case):
    inputs = case["inputs"]
    return reconstruct(inputs["total_assets"], inputs["total_liabilities"], method="max_entropy").toarray().T


@pytest.mark.parametrize("case", FIXTURE["cases"], ids=lambda case: case["name"])
def test_published_maximum_entropy(case):
    expected, tolerance = np.array(case["expected"]["matrix_2dp"]), case["tolerance"]["abs"]
    assert np.abs(answer(case) - expected).max() <= tolerance
    for factor in (0.98, 1.02):
        assert np.abs(answer(case) - expected * factor).max() > tolerance


@pytest.mark.parametrize("oracle", FIXTURE["oracles"], ids=lambda oracle: oracle["network"])
def test_maximum_entropy_of_independent_software(oracle):
    printed = np.array(oracle["matrix"])  # row i has an asset on column j
    found = reconstruct(printed.sum(axis=1), printed.sum(axis=0), method="max_entropy").toarray()
    np.testing.assert_allclose(found.T, printed, rtol=0, atol=1e-10 * printed.max())
    debtor, creditor, amount = zip(*oracle["edges"], strict=True)
    margins = margins_of(scipy.sparse.coo_array((amount, (debtor, creditor)), shape=printed.shape))
    found = reconstruct(*margins, method="max_entropy").toarray()
    assert np.abs(found.T - printed).max() <= 1e-9, "the source stopped at an error of 1e-9"
    assert np.abs(found - printed).max() > 0.1, "transposed"


@needs_shared
@pytest.mark.parametrize("network", ["mild_n20", "mild_n100"])
def test_every_matrix_of_the_shared_reference(network):
    with (SHARED / "oracles" / "outputs" / f"nrm_me_{network}_matrix.csv").open(encoding="utf-8", newline="") as file:
        printed = np.array(list(csv.reader(file))[1:], dtype=float)
    found = reconstruct(printed.sum(axis=1), printed.sum(axis=0), method="max_entropy").toarray()
    np.testing.assert_allclose(found.T, printed, rtol=0, atol=1e-10 * printed.max())


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.integers(3, 8), st.floats(0, 1.5))
def test_maximum_entropy_is_the_limit_of_scaling(seed, n, spread):
    rng = np.random.default_rng(seed)
    assets, owed = margins_of(random_matrix(rng, n, spread))
    found = reconstruct(assets, owed, method="max_entropy").toarray()
    assert_margins(found, assets, owed, rtol=1e-12)
    twin = ras(assets, owed, 1 - np.eye(n))
    assert np.abs(found - twin).max() <= 1e-7 * twin.max()
    order = rng.permutation(n)
    turned = reconstruct(assets[order], owed[order], method="max_entropy").toarray()
    np.testing.assert_allclose(turned, found[np.ix_(order, order)], rtol=1e-8, atol=1e-12 * found.max())


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.integers(3, 30), st.floats(0, 4))
def test_a_product_off_the_diagonal_is_found_again(seed, n, spread):
    rng = np.random.default_rng(seed)
    matrix = np.multiply.outer(rng.lognormal(0, spread, n), rng.lognormal(0, spread, n))
    np.fill_diagonal(matrix, 0)
    factors = reconstruct(*margins_of(matrix), method="max_entropy", form="factors")
    assert_margins(factors, *margins_of(matrix), rtol=1e-11)
    x, y = factors.row_factor, factors.column_factor
    np.testing.assert_allclose(np.asarray(factors), np.outer(x, y) * (1 - np.eye(n)), rtol=1e-15)


def test_one_node_may_be_almost_too_large():
    for slack in (1e-3, 1e-6, 1e-9, 1e-11, 1e-13, 0.0):
        assets = owed = np.array([3 - slack, 1.0, 1.0, 1.0])
        found = reconstruct(assets, owed, method="max_entropy").toarray()
        assert_margins(found, assets, owed, rtol=1e-11)
        assert found[1, 2] == pytest.approx(slack / 6, abs=1e-12)
    assert reconstruct([3, 1, 1, 1], [3, 1, 1, 1], method="max_entropy").nnz == 6
    assert reconstruct([5, 3], [3, 5], method="max_entropy").toarray().tolist() == [[0, 3], [5, 0]]
    assert ("assets", None, 0) in refused(reconstruct, [3.01, 1, 1, 1], [3.01, 1, 1, 1], method="max_entropy")


def test_ten_thousand_nodes_take_linear_memory():
    rng = np.random.default_rng(3)
    assets = rng.lognormal(0, 2, 10_000)
    owed = rng.permutation(assets)
    factors = reconstruct(assets, owed, method="max_entropy", form="factors")
    assert_margins(factors, assets, owed)
    assert "10,000" in repr(factors)
    with pytest.raises(ValueError, match=r"1\.2 GB as a sparse matrix: say form='sparse'"):
        reconstruct(assets, owed, method="max_entropy")


def test_factors_behave_as_the_matrix_they_stand_for():
    rng = np.random.default_rng(5)
    assets, owed = margins_of(random_matrix(rng, 6))
    owed[2], assets[2] = 0, owed[2] + assets[2] - owed[2]
    owed[3] += assets.sum() - owed.sum()
    factors = reconstruct(assets, owed, method="max_entropy", form="factors")
    dense = factors.to_sparse().toarray()
    assert factors.to_sparse().nnz == 5 * 5
    assert (np.asarray(factors) == dense).all()
    assert (np.asarray(factors.T) == dense.T).all()
    vector, block = rng.normal(size=6), rng.normal(size=(6, 3))
    np.testing.assert_allclose(factors @ vector, dense @ vector, atol=1e-13)
    np.testing.assert_allclose(factors.T @ block, dense.T @ block, atol=1e-13)
    np.testing.assert_allclose([factors.sum(), *factors.sum(0), *factors.sum(1)],
                               [dense.sum(), *dense.sum(0), *dense.sum(1)])  # fmt: skip
    np.testing.assert_allclose(eisenberg_noe(factors, np.ones(6)).payments, eisenberg_noe(dense, np.ones(6)).payments)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(4, 8))
def test_known_and_forbidden_cells_against_the_twin(seed, n):
    rng = np.random.default_rng(seed)
    truth = random_matrix(rng, n)
    known = rng.random((n, n)) < 0.15
    closed = ~known & (rng.random((n, n)) < 0.1)
    truth[closed] = 0
    amounts = np.where(known & ~np.eye(n, dtype=bool), truth, np.nan)
    assets, owed = margins_of(truth)
    found = reconstruct(assets, owed, method="max_entropy", known=amounts, forbidden=closed).toarray()
    fixed = np.nan_to_num(amounts)
    pattern = (1 - np.eye(n)) * ~closed * np.isnan(amounts)
    twin = ras(assets - fixed.sum(axis=0), owed - fixed.sum(axis=1), pattern, rounds=3_000) + fixed
    assert_margins(found, assets, owed)
    assert (found[known & ~np.eye(n, dtype=bool)] == truth[known & ~np.eye(n, dtype=bool)]).all()
    assert not found[closed].any()
    if np.allclose(twin.sum(axis=1), owed, rtol=1e-9):
        np.testing.assert_allclose(found, twin, rtol=0, atol=1e-6 * twin.max())


def test_cells_that_can_only_be_zero_do_not_slow_the_scaling():
    """Rows 0 and 1 can owe to columns 2 and 3 only, and fill them: plain scaling converges as 1 / rounds."""
    forbidden = [(0, 1), (1, 0), (0, 4), (1, 4)]
    assets, owed = [1.0, 1.0, 2.0, 3.0, 1.0], [2.0, 3.0, 1.0, 1.0, 1.0]
    found = reconstruct(assets, owed, method="max_entropy", forbidden=forbidden, max_rounds=200).toarray()
    assert_margins(found, assets, owed)
    assert not found[2:, 2:4].any()
    pattern = 1 - np.eye(5)
    for cell in forbidden:
        pattern[cell] = 0
    assert ras(assets, owed, pattern, rounds=200)[4, 2] > 1e-3


def test_how_scaling_can_end():
    call = {"method": "max_entropy", "known": {(0, 1): 1.0}}
    with pytest.raises(nc.NotSettledError, match="max_rounds") as caught:
        reconstruct([3, 2, 4, 3], [4, 3, 2, 3], **call, max_rounds=1)
    assert caught.value.result.shape == (4, 4)
    loose = reconstruct([3, 2, 4, 3], [4, 3, 2, 3], **call, max_rounds=1, strict=False)
    assert loose[0, 1] == 1.0
    margins = margins_of(random_matrix(np.random.default_rng(0), 40))
    with pytest.raises(nc.NotSettledError, match="no further progress"):
        reconstruct(*margins, method="max_entropy", forbidden=[(0, 1)], rtol=1e-30)


# minimum density --------------------------------------------------------------------------------------------------


def most_groups(rows, columns):
    """Most balanced groups that rows and columns fall into, by trying every subset: the slow twin."""
    signed = np.array([*rows, *(-np.asarray(columns))])
    size = len(signed)
    sums = np.array([signed[[bool(code >> k & 1) for k in range(size)]].sum() for code in range(2**size)])
    best = np.zeros(2**size, dtype=int)
    for code in range(1, 2**size):
        if sums[code] == 0:
            part = (code - 1) & code
            best[code] = 1
            while part:
                if sums[part] == 0 and best[part]:
                    best[code] = max(best[code], best[part] + best[code ^ part])
                part = (part - 1) & code
    return best[-1]


@pytest.mark.parametrize("seed", range(6))
def test_the_fewest_links_of_small_systems(seed):
    rng = np.random.default_rng(seed)
    rows = rng.integers(1, 9, 5)
    columns = rng.multinomial(rows.sum() - 4, [0.25] * 4) + 1
    least = 9 - most_groups(rows, columns)
    exact = reconstruct(columns, rows, method="min_density", bipartite=True, solver="exact")
    assert exact.nnz == least
    assert_margins(exact, columns, rows, rtol=1e-12)
    quick = reconstruct(columns, rows, method="min_density", bipartite=True, solver="heuristic")
    assert_margins(quick, columns, rows, rtol=1e-12)
    assert least <= quick.nnz <= least + 1


def test_the_published_minimum_density_has_two_links_too_many():
    published = np.array(FIXTURE["minimum_density"]["matrix"])
    assert (published.sum(axis=1).tolist(), published.sum(axis=0).tolist()) == ANAND
    assert np.count_nonzero(published) == 9
    for solver in ("exact", "heuristic", "auto"):
        found = reconstruct(*ANAND, method="min_density", solver=solver)
        assert found.nnz == 7
        assert_margins(found, *ANAND, rtol=0)
        assert not found.diagonal().any()


@pytest.mark.parametrize("seed", range(4))
def test_the_heuristic_against_the_mixed_integer_programme(seed):
    rng = np.random.default_rng(seed)
    matrix = np.rint(random_matrix(rng, 6, density=0.4) * 5)
    exact = reconstruct(*margins_of(matrix), method="min_density", solver="exact")
    quick = reconstruct(*margins_of(matrix), method="min_density", solver="heuristic")
    assert exact.nnz <= quick.nnz <= exact.nnz + 2
    assert exact.nnz <= np.count_nonzero(matrix)
    for found in (exact, quick):
        assert_margins(found, *margins_of(matrix), rtol=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(3, 40), st.floats(0, 4), st.booleans())
def test_a_vertex_has_no_cycle(seed, n, spread, whole):
    rng = np.random.default_rng(seed)
    matrix = random_matrix(rng, n, spread, density=0.5)
    matrix = np.rint(matrix * 3) if whole else matrix
    assets, owed = margins_of(matrix)
    found = reconstruct(assets, owed, method="min_density", solver="heuristic")
    assert_margins(found, assets, owed)
    assert not found.diagonal().any()
    size = (assets > 0).sum() + (owed > 0).sum()
    cells = found.tocoo()
    graph = scipy.sparse.coo_array((cells.data, (cells.row, cells.col + n)), shape=(2 * n, 2 * n))
    parts = scipy.sparse.csgraph.connected_components(graph, directed=False)[0]
    assert found.nnz == 2 * n - parts, "a forest"
    assert found.nnz >= max((assets > 0).sum(), (owed > 0).sum())
    assert found.nnz <= max(0, size - 1)


def test_minimum_density_with_known_and_forbidden_cells():
    found = reconstruct(*ANAND, method="min_density", known={(0, 1): 2.0}, forbidden=[(1, 0), (2, 1)], solver="exact")
    assert_margins(found, *ANAND, rtol=1e-12)
    assert found[0, 1] == 2.0
    assert found[1, 0] == found[2, 1] == 0.0


def test_an_unproven_number_of_links_is_said():
    rng = np.random.default_rng(0)
    owed = rng.integers(1, 40, 22)
    assets = rng.permutation(owed)
    call = {"method": "min_density", "solver": "exact", "time_limit": 1e-6}
    with pytest.raises(nc.NotSettledError, match=r"links found, \d+ not excluded") as caught:
        reconstruct(assets + np.arange(22), owed + np.arange(22), **call)
    assert_margins(caught.value.result, assets + np.arange(22), owed + np.arange(22))
    assert reconstruct(assets + np.arange(22), owed + np.arange(22), **call, strict=False).nnz


# draws of Gandy and Veraart ---------------------------------------------------------------------------------------


def posterior_of_two_by_three(owed, assets, odds):
    """Mean amounts, chances of a link and of each number of links, by adding up the faces of the polygon.

    A face weighs its volume in the amounts of any of its free cells (the margins are totally unimodular), and odds =
    (1 - p) / (p rate) for every cell that is 0.
    """

    def cells(x, y):
        first = np.array([x, y, owed[0] - x - y])
        return np.array([first, assets - first])

    lines = []  # every cell as a x + b y + c
    for row in range(2):
        for column in range(3):
            base = cells(0, 0)[row, column]
            lines.append((cells(1, 0)[row, column] - base, cells(0, 1)[row, column] - base, base))
    corners = []
    for (k, one), (m, two) in itertools.combinations(enumerate(lines), 2):
        matrix = np.array([one[:2], two[:2]])
        if abs(np.linalg.det(matrix)) > 0.5:
            point = np.linalg.solve(matrix, [-one[2], -two[2]])
            if cells(*point).min() > -1e-9:
                corners.append((point, {k, m}))
    centre = np.mean([point for point, _ in corners], axis=0)
    corners.sort(key=lambda corner: np.arctan2(*(corner[0] - centre)))
    faces = []
    for (one, zero_one), (two, zero_two) in zip(corners, corners[1:] + corners[:1], strict=True):
        faces.append((odds**2, one, zero_one))
        faces.append((odds * np.abs(one - two).max(), (one + two) / 2, zero_one & zero_two))
        u, v = one - centre, two - centre
        faces.append((abs(u[0] * v[1] - u[1] * v[0]) / 2, (one + two + centre) / 3, set()))
    weight = np.array([face[0] for face in faces])
    weight /= weight.sum()
    mean = sum(w * cells(*point) for w, (_, point, _) in zip(weight, faces, strict=True))
    zero = sum(
        w * np.array([k in gone for k in range(6)]).reshape(2, 3) for w, (*_, gone) in zip(weight, faces, strict=True)
    )
    return mean, 1 - zero


@pytest.mark.parametrize(("chance", "rate"), [(0.2, 0.7), (1.0, 1.0), *slow_rows((0.5, 1.0), (0.9, 3.0))])
def test_the_posterior_of_a_two_by_three_system(chance, rate):
    owed, assets = np.array([2.1, 1.3]), np.array([0.7, 1.6, 1.1])
    mean, linked = posterior_of_two_by_three(owed, assets, (1 - chance) / (chance * rate))
    draws = reconstruct(
        assets, owed, method="gibbs", link_probability=chance, rate=rate, n=2_500, seed=11, bipartite=True, thin=4
    )
    found = np.array([matrix.toarray() for matrix in draws])
    assert np.abs(found.mean(axis=0) - mean).max() < 0.04
    assert np.abs((found > 0).mean(axis=0) - linked).max() < 0.04


@pytest.mark.parametrize("chance", [0.5, *slow_rows((0.1,), (0.9,))])
def test_the_posterior_of_three_banks(chance):
    """One free amount t: ends weigh odds each, the inside its length, flat."""
    assets, owed = [2.0, 3.0, 4.0], [3.5, 3.3, 2.2]
    draws = reconstruct(assets, owed, method="gibbs", link_probability=chance, rate=0.5, n=1_500, seed=3, thin=2)
    t = np.array([matrix[0, 1] for matrix in draws])
    odds = (1 - chance) / (chance * 0.5)
    low, high = 0.8, 2.8  # L02 = 3.5 - t, L12 = 0.5 + t, L10 = 2.8 - t, L20 = t - 0.8, L21 = 3 - t
    ends = [np.mean(np.isclose(t, low)), np.mean(np.isclose(t, high))]
    expected = odds / (2 * odds + high - low)
    assert ends == pytest.approx([expected, expected], abs=0.04)
    inner = t[~np.isclose(t, low) & ~np.isclose(t, high)]
    np.testing.assert_allclose(
        np.quantile((inner - low) / (high - low), [0.25, 0.5, 0.75]), [0.25, 0.5, 0.75], atol=0.06
    )


def parts_of(matrix):
    """Count the parts that rows and columns with amounts fall into."""
    row, column = np.nonzero(matrix)
    graph = scipy.sparse.coo_array((np.ones(len(row)), (row, column + len(matrix))), shape=(2 * len(matrix),) * 2)
    _, part = scipy.sparse.csgraph.connected_components(graph, directed=False)
    return len(set(part[row].tolist()))


def test_the_prior_is_found_again_on_average():
    """Draw a matrix from the prior, then one given its margins: it has as many links and as large a cell on average.

    Matrices that fall apart are left out: their margins tie, and the posterior is then that of margins that do not.
    """
    rng = np.random.default_rng(8)
    prior, drawn = [], []
    while len(prior) < 300:
        matrix = np.where(rng.random((4, 4)) < 0.5, rng.exponential(1.0, (4, 4)), 0)
        np.fill_diagonal(matrix, 0)
        if parts_of(matrix) != 1:
            continue
        margins = margins_of(matrix)
        again = reconstruct(*margins, method="gibbs", link_probability=0.5, rate=1.0, seed=rng, burn_in=40, thin=5)
        prior.append((np.count_nonzero(matrix), matrix.max(), (matrix**2).sum()))
        drawn.append((again.nnz, again.max() if again.nnz else 0.0, (again**2).sum()))
        assert_margins(again, *margins)
    gap = np.array(drawn, dtype=float) - np.array(prior)
    assert (np.abs(gap.mean(axis=0)) < 4 * gap.std(axis=0) / 300**0.5).all()


def test_margins_that_tie_are_the_limit_of_margins_that_do_not():
    call = {"method": "gibbs", "link_probability": 0.5, "rate": 1.0, "n": 1_500, "bipartite": True, "thin": 4}
    tied = np.array([m.toarray()[0, 0] for m in reconstruct([1.0, 1.0], [1.0, 1.0], seed=1, **call)])
    near = [m.toarray()[0, 0] for m in reconstruct([1 + 2e-7, 1 - 1e-7], [1 + 1e-7, 1.0], seed=1, **call)]
    for values in (tied, np.round(near, 5)):
        assert [np.mean(values == 0), np.mean(values == 1)] == pytest.approx([1 / 3, 1 / 3], abs=0.05)
    assert {m.nnz for m in reconstruct([1.0, 1.0], [1.0, 1.0], seed=1, **call)} == {2, 4}


def test_draws_are_the_same_for_a_seed_and_leave_global_state_alone():
    np.random.seed(4)  # noqa: NPY002 the state that must not move
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    call = {"method": "gibbs", "link_probability": 0.4, "n": 3}
    one, two, other = (reconstruct(*ANAND, seed=seed, **call) for seed in (1, np.random.default_rng(1), 2))
    assert all((a != b).nnz == 0 for a, b in zip(one, two, strict=True))
    assert any((a != b).nnz for a, b in zip(one, other, strict=True))
    assert (one[0] != one[1]).nnz
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002


def test_known_and_forbidden_cells_hold_in_every_draw():
    rng = np.random.default_rng(2)
    truth = random_matrix(rng, 12, density=0.5)
    known = {(0, 1): truth[0, 1], (3, 4): truth[3, 4], (5, 6): 0.0} if truth[5, 6] == 0 else {(0, 1): truth[0, 1]}
    closed = (truth == 0) & (rng.random((12, 12)) < 0.3)
    np.fill_diagonal(closed, False)
    chance = np.full((12, 12), 0.5)
    chance[7, 8:] = 0 if not truth[7, 8:].any() else 0.5
    for matrix in reconstruct(
        *margins_of(truth), method="gibbs", link_probability=chance, known=known, forbidden=closed, n=20, seed=0
    ):
        assert_margins(matrix, *margins_of(truth), rtol=1e-12)
        assert not matrix.toarray()[closed].any()
        assert not matrix.diagonal().any()
        assert all(matrix[cell] == amount for cell, amount in known.items())
        assert matrix.data.min() > 0


def test_margins_of_very_different_size_hold_in_every_draw():
    rng = np.random.default_rng(6)
    truth = random_matrix(rng, 30, spread=4.0)
    for matrix in reconstruct(*margins_of(truth), method="gibbs", link_probability=0.2, n=5, seed=1):
        assert_margins(matrix, *margins_of(truth))


def test_a_lower_chance_of_a_link_gives_fewer_links():
    rng = np.random.default_rng(1)
    margins = margins_of(random_matrix(rng, 20))
    call = {"method": "gibbs", "rate": 1.0, "n": 5, "seed": 0}
    links = [np.mean([m.nnz for m in reconstruct(*margins, link_probability=p, **call)]) for p in (0.01, 0.1, 0.5, 1.0)]
    assert links == sorted(links)
    assert links[0] < 70
    assert links[-1] == 380


def plain_moves(state, rng, moves):
    """The same loop without compilation."""
    gibbs.move.__wrapped__(state, rng, moves)


def test_the_compiled_chain_is_the_plain_one(monkeypatch):
    problem = gibbs.transport(gibbs_margins())
    odds = np.where(problem.open, problem.rows.sum() / 40.0, 0.0)
    states = [gibbs._start(problem, gibbs.fill(problem), odds, np.random.default_rng(0)) for _ in range(2)]
    gibbs.move(states[0], np.random.default_rng(5), 2_000)
    for name in ("_walk", "_redraw", "_below", "_shift", "_link", "_cut"):
        monkeypatch.setattr(gibbs, name, getattr(gibbs, name).__wrapped__)
    plain_moves(states[1], np.random.default_rng(5), 2_000)
    for one, two in zip(*states, strict=True):
        np.testing.assert_array_equal(one, two)
    for state in states:
        assert (state.amounts.sum(axis=1) == problem.rows).all()
        assert (state.amounts.sum(axis=0) == problem.columns).all()
        assert (state.amounts >= 0).all()
        assert ((state.row_place >= 0) == (state.column_place >= 0).T).all()
        assert not (state.amounts > 0)[state.row_place < 0].any()
        assert np.abs(state.tiny).max() < 100


def gibbs_margins():
    from netcontagion.builders._margins import read_margins

    rng = np.random.default_rng(9)
    assets, owed = margins_of(random_matrix(rng, 8))
    return read_margins(assets, owed, known=None, forbidden=[(0, 1), (4, 2)], bipartite=False)


@pytest.mark.slow
@pytest.mark.parametrize("chance", [0.02, 0.1])
def test_five_hundred_nodes(chance):
    rng = np.random.default_rng(0)
    assets = rng.lognormal(0, 1, 500)
    owed = rng.permutation(assets)
    one, two = (
        reconstruct(assets, owed, method="gibbs", link_probability=chance, n=10, seed=seed, thin=5) for seed in (1, 2)
    )
    for matrix in (*one, *two):
        assert_margins(matrix, assets, owed)
    links = [np.mean([matrix.nnz for matrix in draws]) for draws in (one, two)]
    assert links[0] == pytest.approx(links[1], rel=0.05)


# bad input --------------------------------------------------------------------------------------------------------


def test_every_problem_is_listed_at_once():
    cells = refused(reconstruct, [1, -1, np.nan], [np.inf, 2, 3], method="max_entropy")
    assert set(cells) == {("assets", None, 1), ("assets", None, 2), ("liabilities", None, 0)}
    cells = refused(
        reconstruct,
        [3, 2, 4],
        [4, 3, 3],
        method="gibbs",
        link_probability=0.5,
        known={(0, 1): -1.0, (1, 1): 1.0, (1, 2): 1.0, (0, 9): 1.0},
        forbidden=[(1, 2), (7, 0)],
    )
    assert set(cells) == {
        ("liabilities", None, None),
        ("known", "1", 0),
        ("known", "1", 1),
        ("known", "2", 1),
        ("known", "creditor", 3),
        ("forbidden", "debtor", 1),
    }
    assert "a difference of 1" in str(cells["liabilities", None, None])


@pytest.mark.parametrize("method", METHODS)
def test_margins_that_no_matrix_has(method):
    def call(assets, owed, **cells):
        return refused(reconstruct, assets, owed, method=method, **METHODS[method], **cells)

    problem = call([9.5, 1, 0.5], [2, 4, 5])[("assets", None, 0)]
    assert "9.5 of 0; allowed: at most 9" in str(problem)
    said = str(call([5, 3, 4, 1], [4, 5, 3, 1], forbidden=[(0, 1), (0, 2), (0, 3)])[("liabilities", None, 0)])
    assert "0 have 4 to place" in said
    assert "nobody" in said
    said = str(call([5, 3, 4, 1], [4, 5, 3, 1], forbidden=[(1, 0), (1, 2)])[("liabilities", None, 1)])
    assert "1 have 5 to place" in said
    assert "3 only, who take 1" in said
    assert ("known", "liabilities", 0) in call([5, 3, 4, 1], [4, 5, 3, 1], known={(0, 1): 2.5, (0, 2): 2.5})
    assert ("known", "assets", 1) in call([5, 3, 4, 1], [4, 5, 3, 1], known={(0, 1): 2.5, (2, 1): 1.0})


@pytest.mark.parametrize(
    ("margins", "expected"),
    [
        (([1, 2], [3]), ("liabilities", None, None)),
        (([[1, 2]], [1, 2]), ("assets", None, None)),
        (([], []), ("assets", None, None)),
        ((["a", 2], [1, 2]), ("assets", None, None)),
        (([1e308] * 3, [1e308] * 3), ("assets", None, None)),
        ((np.ma.array([1.0, 2.0], mask=[True, False]), [1, 2]), ("assets", None, 0)),
        ((pd.Series([1, 2], list("ab")), pd.Series([1, 2], list("ac"))), ("liabilities", None, None)),
    ],
)
def test_margins_that_cannot_be_read(margins, expected):
    assert expected in refused(reconstruct, *margins, method="max_entropy")


@pytest.mark.parametrize(
    "cells",
    [
        {"known": np.ones((2, 2))},
        {"known": [["a"] * 3] * 3},
        {"known": pd.DataFrame(np.ones((3, 3)), index=list("abc"), columns=list("abd"))},
        {"known": {"ab": 1.0}},
        {"forbidden": 5},
        {"forbidden": np.full((3, 3), 2)},
        {"forbidden": np.zeros((2, 3), dtype=bool)},
    ],
)
def test_cells_that_cannot_be_read(cells):
    problems = refused(reconstruct, [1, 2, 3], [3, 2, 1], method="max_entropy", **cells)
    assert {table for table, _, _ in problems} == set(cells)


def test_cells_may_come_in_any_form():
    truth = random_matrix(np.random.default_rng(0), 4)
    amounts = np.full((4, 4), np.nan)
    amounts[0, 1], amounts[2, 3] = truth[0, 1], truth[2, 3]
    sparse = scipy.sparse.coo_array((amounts[[0, 2], [1, 3]], ([0, 2], [1, 3])), shape=(4, 4))
    mapping = {(0, 1): truth[0, 1], (2, 3): truth[2, 3]}
    closed = np.zeros((4, 4), dtype=bool)
    closed[1, 0] = True
    truth[1, 0] = 0
    found = [
        reconstruct(*margins_of(truth), method="max_entropy", known=known, forbidden=forbidden).toarray()
        for known in (amounts, sparse, mapping, pd.DataFrame(amounts))
        for forbidden in (closed, scipy.sparse.csr_array(closed), [(1, 0)], pd.DataFrame(closed))
    ]
    assert all((matrix == found[0]).all() for matrix in found)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"method": "ras"}, "'max_entropy', 'min_density', 'gibbs'"),
        ({"method": "max_entropy", "link_probability": 0.5}, "its options: form, rtol, max_rounds, strict"),
        ({"method": "max_entropy", "n": 2}, "n and seed are for method='gibbs'"),
        ({"method": "min_density", "seed": 2}, "n and seed are for method='gibbs'"),
        ({"method": "max_entropy", "form": "dense"}, "form='dense'"),
        ({"method": "max_entropy", "rtol": 0}, "rtol=0"),
        ({"method": "max_entropy", "form": "factors", "forbidden": [(0, 1)]}, "form='factors' holds no"),
        ({"method": "min_density", "solver": "milp"}, "solver='milp'"),
        ({"method": "min_density", "time_limit": 0}, "time_limit=0"),
        ({"method": "gibbs"}, "needs link_probability="),
        ({"method": "gibbs", "link_probability": 0}, r"in \(0, 1\]"),
        ({"method": "gibbs", "link_probability": 0.5, "rate": -1}, "rate=-1"),
        ({"method": "gibbs", "link_probability": 0.5, "thin": 0}, "thin=0"),
        ({"method": "gibbs", "link_probability": 0.5, "n": 0}, "n=0"),
        ({"method": "gibbs", "link_probability": np.full((2, 2), 0.5)}, "link_probability: shape"),
        ({"method": "gibbs", "link_probability": np.full((3, 3), 1.5)}, "9 problems"),
    ],
)
def test_options_that_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        reconstruct([1, 2, 3], [3, 2, 1], **options)


def test_there_is_no_default_method():
    with pytest.raises(TypeError, match="method"):
        reconstruct([1, 2, 3], [3, 2, 1])


# the balance sheets of neva ---------------------------------------------------------------------------------------

BALANCE_SHEETS = """bank_name,external_asset,external_liabilities,sigma_equity,maturity
A,10,4,0.2,1
B,8,3,0.3,1
C,6,2,0.1,1
"""
EXPOSURES = """lender,borrower,amount
A,B,1
A,C,2
B,C,3
A,B,4
C,A,5
"""


def test_the_two_tables_of_neva():
    """Second and later exposures of a lender are kept, repeated pairs are summed: neva's parser loses either."""
    banks, loans = pd.read_csv(io.StringIO(BALANCE_SHEETS)), pd.read_csv(io.StringIO(EXPOSURES))
    net = from_balance_sheets(banks, loans)
    assert net.traders["external_assets"].to_dict() == {"A": 10.0, "B": 8.0, "C": 6.0}
    assert net.traders["external_liabilities"].to_dict() == {"A": 4.0, "B": 3.0, "C": 2.0}
    owed = {("A", "C"): 5.0, ("B", "A"): 5.0, ("C", "A"): 2.0, ("C", "B"): 3.0}
    assert net.liabilities["amount"].to_dict() == owed
    assert from_balance_sheets(banks.set_index("bank_name"), loans).traders.equals(net.traders)


def test_other_layouts_take_no_unknown_columns():
    banks = {"bank": ["A"], "external_assets": [1.0], "external_liabilities": [0.5], "maturity": [1.0]}
    assert ("banks", None, None) in refused(from_balance_sheets, banks)
    half = {"bank_name": ["A"], "external_assets": [1.0], "external_liabilities": [0.5]}
    assert refused(from_balance_sheets, half)
    both = {"bank_name": ["A"], "external_asset": [1.0], "external_liabilities": [0.5], "external_assets": [1.0]}
    assert refused(from_balance_sheets, both)
    extra = pd.read_csv(io.StringIO(EXPOSURES)).assign(note=1)
    assert refused(from_balance_sheets, pd.read_csv(io.StringIO(BALANCE_SHEETS)), extra)
