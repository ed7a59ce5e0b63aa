"""Measures of a graph on arrays: networkx, slow twins, closed forms, laws, endings and bad input."""

from __future__ import annotations

import itertools
import math

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import scipy.sparse

import netcontagion as nc
from netcontagion import ranking
from netcontagion._status import Status
from netcontagion.errors import ContagionError, NotSettledError, SchemaError
from netcontagion.ranking import _paths

KINDS = ("undirected", "directed", "bipartite")
TOLERANCE = {"rtol": 1e-8, "atol": 1e-10}


def random_graph(seed, kind=None):
    """Return a connected weighted graph; directed ones are strongly connected and have no period."""
    rng = np.random.default_rng([seed, 606])
    kind = kind or KINDS[seed % 3]
    size = int(rng.integers(5, 13))
    matrix = rng.lognormal(0.0, 1.0, (size, size)) * (rng.random((size, size)) < 0.3)
    ring = np.roll(np.eye(size), 1, axis=1) * rng.uniform(0.5, 2.0, size)
    np.fill_diagonal(matrix, 0.0)
    if kind == "bipartite":
        side = np.arange(size) % 2
        matrix = (matrix + ring) * (side[:, None] != side)
        matrix[:-1] += np.diag(np.full(size - 1, 0.7), 1)[:-1]
        return matrix + matrix.T
    matrix = np.where(matrix > 0, matrix, ring)
    if kind == "undirected":
        return matrix + matrix.T
    matrix[0, 2] += 0.5
    return matrix


def rectangle(seed, rows=6, columns=4):
    rng = np.random.default_rng([seed, 607])
    matrix = rng.lognormal(0.0, 1.0, (rows, columns)) * (rng.random((rows, columns)) < 0.6)
    matrix[:, 0] += 0.1
    matrix[0, :] += 0.1
    return matrix


def directed(matrix):
    """Return the networkx graph of a matrix, with lengths 1 / weight."""
    graph = nx.DiGraph()
    graph.add_nodes_from(range(len(matrix)))
    for row, column in zip(*np.nonzero(matrix), strict=True):
        weight = float(matrix[row, column])
        graph.add_edge(int(row), int(column), weight=weight, length=1.0 / weight)
    return graph


def values(scores):
    return np.array([scores[node] for node in sorted(scores)])


graphs = pytest.mark.parametrize("seed", range(50))

# networkx -----------------------------------------------------------------------------------------------------------


@graphs
def test_walks_are_those_of_networkx(seed):
    matrix = random_graph(seed)
    graph = directed(matrix)
    found = ranking.pagerank(matrix, damping=0.9, rtol=1e-13)
    np.testing.assert_allclose(found.scores, values(nx.pagerank(graph, 0.9, tol=1e-15, max_iter=9999)), **TOLERANCE)
    found = ranking.eigenvector(matrix, rtol=1e-12)
    expected = nx.eigenvector_centrality_numpy(graph, weight="weight")
    np.testing.assert_allclose(found.scores, values(expected), rtol=1e-7, atol=1e-8)
    alpha = 0.7 / abs(np.linalg.eigvals(matrix)).max()
    expected = nx.katz_centrality_numpy(graph, alpha, normalized=False, weight="weight")
    np.testing.assert_allclose(ranking.katz(matrix, alpha=alpha).scores, values(expected), **TOLERANCE)


@graphs
def test_hubs_and_authorities_are_those_of_networkx(seed):
    matrix = rectangle(seed)
    rows, columns = matrix.shape
    whole = np.zeros((rows + columns,) * 2)
    whole[:rows, rows:] = matrix
    hubs, authorities = (values(side) for side in nx.hits(directed(whole), max_iter=9999, tol=1e-15))
    found = ranking.hits(matrix, rtol=1e-12)
    np.testing.assert_allclose(found.rows, hubs[:rows], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(found.columns, authorities[rows:], rtol=1e-6, atol=1e-9)


@graphs
def test_paths_and_cores_are_those_of_networkx(seed):
    matrix = random_graph(seed)
    graph = directed(matrix)
    between = nx.betweenness_centrality(graph, weight="length")
    np.testing.assert_allclose(ranking.betweenness(matrix), values(between), **TOLERANCE)
    near = nx.closeness_centrality(graph, distance="length")
    np.testing.assert_allclose(ranking.closeness(matrix), values(near), **TOLERANCE)
    core = nx.core_number(graph.to_undirected())
    assert ranking.k_core(matrix).tolist() == values(core).tolist()


@graphs
def test_graphs_in_parts_without_weights_are_those_of_networkx(seed):
    rng = np.random.default_rng([seed, 608])
    matrix = (rng.random((9, 9)) < 0.18).astype(float)
    np.fill_diagonal(matrix, 0.0)
    graph = directed(matrix)
    between = nx.betweenness_centrality(graph)
    np.testing.assert_allclose(ranking.betweenness(matrix), values(between), **TOLERANCE)
    np.testing.assert_allclose(ranking.closeness(matrix), values(nx.closeness_centrality(graph)), **TOLERANCE)
    start = rng.random(9)
    expected = nx.pagerank(graph, personalization=dict(enumerate(start)), tol=1e-15, max_iter=9999)
    found = ranking.pagerank(matrix, personalization=start, rtol=1e-13)
    np.testing.assert_allclose(found.scores, values(expected), **TOLERANCE)
    undirected = graph.to_undirected()
    np.testing.assert_allclose(
        ranking.betweenness(np.maximum(matrix, matrix.T)), values(nx.betweenness_centrality(undirected)), **TOLERANCE
    )


# twins --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(10))
def test_birank_solves_its_equations(seed):
    matrix, rng = rectangle(seed), np.random.default_rng(seed)
    matrix[3] = 0.0
    of_columns, of_rows = rng.uniform(0.2, 0.95, 2)
    queries = rng.random(len(matrix)), rng.random(matrix.shape[1])
    rows, columns = matrix.sum(axis=1), matrix.sum(axis=0)
    smooth = np.zeros_like(matrix)
    for i, j in zip(*np.nonzero(matrix), strict=True):
        smooth[i, j] = matrix[i, j] / math.sqrt(rows[i] * columns[j])
    n, m = matrix.shape
    system = np.block([[np.eye(n), -of_columns * smooth], [-of_rows * smooth.T, np.eye(m)]])
    own = [(1 - of_columns) * queries[0] / queries[0].sum(), (1 - of_rows) * queries[1] / queries[1].sum()]
    expected = np.linalg.solve(system, np.concatenate(own))
    found = ranking.birank(matrix, damping=(of_columns, of_rows), queries=queries)
    np.testing.assert_allclose(np.concatenate([found.rows, found.columns]), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("seed", range(10))
def test_overlap_adds_up_the_matrix_of_pairs(seed):
    held, depth = rectangle(seed), np.random.default_rng(seed).uniform(1, 9, 4)
    depth[seed % 4] = np.inf
    pairs = nc.clearing.indirect_exposure(held, depth).toarray()
    np.fill_diagonal(pairs, 0.0)
    found = ranking.overlap(held, depth)
    np.testing.assert_allclose(found.rows, pairs.sum(axis=1), rtol=1e-12)
    assert found.columns.sum() == pytest.approx(pairs.sum(), rel=1e-12)
    for asset, through in enumerate(found.columns):
        only = nc.clearing.indirect_exposure(held[:, [asset]], depth[[asset]]).toarray()
        assert through == pytest.approx(only.sum() - np.trace(only), rel=1e-12, abs=1e-12)


def test_what_one_holder_has_alone_overlaps_with_nothing():
    held = [[0.1, 0.7], [0.3, 0.0]]
    assert ranking.overlap(held, 2.0).columns[1] == 0.0
    assert ranking.overlap(np.array(held)[:1], 2.0).rows.tolist() == [0.0]


@pytest.mark.parametrize("seed", range(10))
def test_participation_by_hand(seed):
    matrix, rng = random_graph(seed), np.random.default_rng(seed)
    groups = rng.integers(0, 3, len(matrix))
    found = ranking.participation(matrix, groups)
    for node, links in enumerate(matrix):
        shares = [links[groups == group].sum() / links.sum() for group in range(3)]
        assert found[node] == pytest.approx(1 - sum(share**2 for share in shares), abs=1e-12)


def errors(linked, core):
    size = len(linked)
    missing = sum(not linked[i, j] for i, j in itertools.combinations(sorted(core), 2))
    outside = [node for node in range(size) if node not in core]
    return missing + sum(bool(linked[i, j]) for i, j in itertools.combinations(outside, 2))


@pytest.mark.parametrize("seed", range(12))
def test_no_core_has_fewer_errors(seed):
    rng = np.random.default_rng([seed, 609])
    linked = np.triu(rng.random((7, 7)) < rng.uniform(0.2, 0.7), 1)
    linked = linked | linked.T
    every = [set(core) for count in range(8) for core in itertools.combinations(range(7), count)]
    count = {frozenset(core): errors(linked, core) for core in every}
    found = ranking.core_periphery(linked)
    assert found.errors == min(count.values())
    best = [core for core, wrong in count.items() if wrong == found.errors and len(core) == found.size]
    assert found.size == min(len(core) for core, wrong in count.items() if wrong == found.errors)
    share = np.mean([[node in core for node in range(7)] for core in best], axis=0)
    np.testing.assert_allclose(found.membership, share, atol=1e-12)
    for node in np.flatnonzero((share == 0) | (share == 1)).tolist():
        moved = count[best[0] ^ {node}] - found.errors
        assert moved == (found.scores[node] if node in best[0] else -found.scores[node])


def modularity(matrix, part):
    total, degree = matrix.sum(), matrix.sum(axis=1)
    same = np.equal.outer(part, part)
    return float(((matrix - np.outer(degree, degree) / total) * same).sum() / total)


def partitions(size):
    """Every way to number the groups of nodes, in the order in which they come."""
    if size == 0:
        yield ()
        return
    for first in partitions(size - 1):
        for group in range(max(first, default=-1) + 2):
            yield (*first, group)


@pytest.mark.parametrize("seed", range(8))
def test_no_partition_has_more_modularity(seed):
    matrix = np.random.default_rng([seed, 610]).random((6, 6)) ** 3
    matrix = np.triu(matrix, 1) + np.triu(matrix, 1).T
    best = max(modularity(matrix, np.array(part)) for part in partitions(6))
    found = ranking.community(matrix)
    assert modularity(matrix, found) == pytest.approx(best, abs=1e-12)


def test_communities_are_found_and_numbered_by_weight():
    rng = np.random.default_rng(5)
    part = np.repeat([0, 1, 2], [12, 18, 10])
    weight = np.array([1.0, 5.0, 2.0])[part]
    matrix = np.where(np.equal.outer(part, part), weight[:, None], 0.02) * rng.uniform(0.5, 1.5, (40, 40))
    np.fill_diagonal(matrix, 0.0)
    assert ranking.community(matrix).tolist() == np.array([2, 0, 1])[part].tolist()
    assert ranking.community(matrix, resolution=50.0).max() > 2


# closed forms -------------------------------------------------------------------------------------------------------


def star(leaves):
    matrix = np.zeros((leaves + 1,) * 2)
    matrix[0, 1:] = matrix[1:, 0] = 1.0
    return matrix


@pytest.mark.parametrize("leaves", [2, 5, 30])
def test_a_star(leaves):
    matrix = star(leaves)
    hub, leaf = ranking.eigenvector(matrix).scores[:2]
    assert hub == pytest.approx(math.sqrt(0.5))
    assert leaf == pytest.approx(math.sqrt(0.5 / leaves))
    alpha = 0.5 / math.sqrt(leaves)
    katz = ranking.katz(matrix).scores  # alpha = 0.85 / sqrt(leaves)
    assert katz[0] == pytest.approx((1 + 0.85 * math.sqrt(leaves)) / (1 - 0.85**2), rel=1e-5)
    katz = ranking.katz(matrix, alpha=alpha).scores
    assert katz[0] == pytest.approx((1 + alpha * leaves) / (1 - alpha**2 * leaves))
    assert katz[1] == pytest.approx(1 + alpha * katz[0])
    size = leaves + 1
    assert ranking.pagerank(matrix).scores[0] == pytest.approx((0.15 / size + 0.85) / 1.85)
    assert ranking.betweenness(matrix).tolist() == [1.0] + [0.0] * leaves
    assert ranking.closeness(matrix)[0] == 1.0
    assert ranking.closeness(matrix)[1] == pytest.approx(leaves / (2 * leaves - 1))
    assert ranking.k_core(matrix).tolist() == [1] * size
    core = ranking.core_periphery(matrix)
    assert (core.size, core.errors, core.membership.tolist()) == (1, 0, [1.0] + [0.0] * leaves)
    assert ranking.strength(matrix).rows.tolist() == [leaves] + [1.0] * leaves


@pytest.mark.parametrize("size", [3, 6, 9])
def test_a_ring_has_no_first(size):
    matrix = np.roll(np.eye(size), 1, axis=1)
    for one in (matrix, matrix + matrix.T):
        for scores in (
            ranking.eigenvector(one).scores,
            ranking.katz(one).scores,
            ranking.pagerank(one).scores,
            ranking.hits(one).rows,
            ranking.birank(one).columns,
            ranking.betweenness(one),
            ranking.closeness(one),
            ranking.k_core(one),
            ranking.core_periphery(one).membership,
        ):
            np.testing.assert_allclose(scores, scores[0], rtol=1e-9)
    assert ranking.closeness(matrix)[0] == pytest.approx(2 / size)
    assert ranking.katz(matrix, alpha=0.5).scores[0] == pytest.approx(2.0)
    assert ranking.k_core(matrix)[0] == 2


# laws ---------------------------------------------------------------------------------------------------------------

ON_NODES = {
    "strength": lambda w: ranking.strength(w).rows,
    "pagerank": lambda w: ranking.pagerank(w).scores,
    "eigenvector": lambda w: ranking.eigenvector(w).scores,
    "katz": lambda w: ranking.katz(w).scores,
    "hubs": lambda w: ranking.hits(w).rows,
    "authorities": lambda w: ranking.hits(w).columns,
    "birank": lambda w: ranking.birank(w).rows,
    "overlap": lambda w: ranking.overlap(w, 2.0).rows,
    "betweenness": ranking.betweenness,
    "closeness": ranking.closeness,
    "k_core": ranking.k_core,
    "core": lambda w: ranking.core_periphery(w).scores,
    "community": ranking.community,
    "participation": lambda w: ranking.participation(w, ranking.community(w)),
}
DEGREE = {"strength": 1, "closeness": 1, "overlap": 2}  # powers of the unit of money


@pytest.mark.parametrize("name", ON_NODES)
@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_rows_and_the_currency_do_not_matter(name, seed):
    matrix, measure = random_graph(seed), ON_NODES[name]
    order = np.random.default_rng(seed).permutation(len(matrix))
    found = measure(matrix)
    np.testing.assert_allclose(measure(matrix[order][:, order]), found[order], rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(measure(matrix * 7.3), found * 7.3 ** DEGREE.get(name, 0), rtol=1e-7, atol=1e-8)
    sparse = scipy.sparse.coo_array(matrix)
    np.testing.assert_array_equal(measure(sparse), found)
    np.testing.assert_array_equal(measure(pd.DataFrame(matrix)), found)


def test_communities_do_not_hang_on_the_order_of_many_rows():
    rng = np.random.default_rng(3)
    matrix = scipy.sparse.random_array((300, 300), density=0.02, rng=rng, format="csr")
    matrix = scipy.sparse.csr_array(matrix + matrix.T)
    found = ranking.community(matrix)
    assert found.max() > 3
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(300)
        assert ranking.community(matrix[order][:, order]).tolist() == found[order].tolist()
    assert (ranking.community(matrix, seed=1) != found).any()


def test_a_part_with_smaller_links_has_no_eigenvector_score_and_copies_score_alike():
    small, large = star(3), 2 * star(3)
    both = scipy.sparse.block_diag([small, large, large]).toarray()
    found = ranking.eigenvector(both).scores
    np.testing.assert_allclose(found[:4], 0.0, atol=1e-8)
    np.testing.assert_allclose(found[4:8], found[8:], rtol=1e-9)


def test_pivots_are_drawn_with_a_seed_and_have_no_bias():
    matrix = random_graph(3, "directed")
    size = len(matrix)
    for measure in (ranking.betweenness, ranking.closeness):
        np.testing.assert_allclose(measure(matrix, pivots=size), measure(matrix), rtol=1e-12)
        one, other = (measure(matrix, pivots=3, seed=seed) for seed in (4, 5))
        np.testing.assert_array_equal(one, measure(matrix, pivots=3, seed=4))
        assert (one != other).any()
    drawn = np.array([ranking.betweenness(matrix, pivots=3, seed=seed) for seed in range(400)])
    error = drawn.std(axis=0) / math.sqrt(len(drawn))
    assert (np.abs(drawn.mean(axis=0) - ranking.betweenness(matrix)) <= 4 * error + 1e-12).all()


def test_a_network_view_is_a_matrix():
    view = nc.datasets.load("market").exposures("traders", "assets")
    np.testing.assert_array_equal(ranking.strength(view).columns, view.matrix.sum(axis=0))


def test_the_matrix_is_left_as_it_was():
    matrix = scipy.sparse.coo_array(([1.0, 2.0, 0.0, 3.0], ([0, 0, 1, 1], [1, 1, 0, 0])), shape=(2, 2)).tocsr()
    matrix.has_canonical_format = False
    before = matrix.copy()
    assert ranking.strength(matrix).rows.tolist() == [3.0, 3.0]
    np.testing.assert_array_equal(matrix.data, before.data)
    np.testing.assert_array_equal(matrix.indices, before.indices)


# endings ------------------------------------------------------------------------------------------------------------


def test_residuals_bound_errors():
    matrix = random_graph(4, "directed")
    for rtol in (1e-2, 1e-4, 1e-6):
        for measure in (ranking.pagerank, lambda w, rtol: ranking.katz(w, alpha=0.1, rtol=rtol)):
            near, exact = measure(matrix, rtol=rtol), measure(matrix, rtol=1e-14)
            assert near.residual <= rtol
            assert near.rounds < exact.rounds
            assert np.abs(near.scores - exact.scores).sum() <= near.residual * exact.scores.sum() + 1e-13
        near, exact = ranking.birank(matrix, rtol=rtol), ranking.birank(matrix, rtol=1e-14)
        for one, other in ((near.rows, exact.rows), (near.columns, exact.columns)):
            assert np.linalg.norm(one - other) <= near.residual * np.linalg.norm(one) * (1 + 1e-9)


@pytest.mark.parametrize("measure", [ranking.pagerank, ranking.eigenvector, ranking.katz, ranking.hits, ranking.birank])
def test_what_does_not_settle_is_said(measure):
    matrix = random_graph(1)
    options = {"alpha": 0.01} if measure is ranking.katz else {}
    with pytest.raises(NotSettledError, match="ended after 2 rounds") as caught:
        measure(matrix, max_rounds=2, **options)
    result = measure(matrix, max_rounds=2, strict=False, **options)
    assert result.status is caught.value.result.status is Status.MAX_ROUNDS
    assert result.residual == caught.value.result.residual > 0


@pytest.mark.parametrize("seed", range(8))
def test_what_nothing_leads_to_scores_exactly_zero(seed):
    random = np.random.default_rng(seed)
    weights = np.zeros((30, 30))
    weights[:20, :20] = random.lognormal(0, 4, (20, 20))
    assert (ranking.hits(weights).columns[20:] == 0).all()
    assert (ranking.eigenvector(weights + weights.T).scores[20:] == 0).all()


def test_small_scores_are_as_exact_as_the_large_ones_they_come_from():
    weights = np.zeros((12, 12))
    weights[0, 1:] = weights[1:, 0] = 10.0 ** -np.arange(11)  # a star: scores are in proportion to links
    found = ranking.eigenvector(weights, rtol=1e-6).scores
    np.testing.assert_allclose(found[1:] / found[1], weights[0, 1:], rtol=1e-12)


def test_close_eigenvalues_do_not_settle_silently():
    path = scipy.sparse.diags_array([np.ones(149), np.ones(149)], offsets=[1, -1]).toarray()
    with pytest.raises(NotSettledError, match="eigenvector ended after 40 rounds"):
        ranking.eigenvector(path, max_rounds=40)
    expected = np.sin(np.pi * np.arange(1, 151) / 151)
    found = ranking.eigenvector(path, rtol=1e-12)
    np.testing.assert_allclose(found.scores, expected / np.linalg.norm(expected), atol=1e-7)


def test_katz_needs_an_alpha_below_the_inverse_of_the_eigenvalue():
    ring = np.roll(np.eye(4), 1, axis=1)
    assert ranking.katz(ring, alpha=0.99).scores[0] == pytest.approx(100)
    with pytest.raises(NotSettledError, match="1 over the largest eigenvalue is too much"):
        ranking.katz(ring, alpha=1.0)
    with pytest.raises(NotSettledError, match="NaN or infinite"):
        ranking.katz(ring, alpha=2.0)
    with pytest.raises(ContagionError, match="give alpha"):
        ranking.katz(np.zeros((3, 3)))
    assert ranking.katz(np.zeros((3, 3)), alpha=1.0).scores.tolist() == [1.0] * 3


@pytest.mark.parametrize("size", [2, 3, 12, 40])
def test_a_graph_without_cycles_has_no_eigenvector(size):
    path = np.diag(np.arange(1.0, size), 1)
    with pytest.raises(NotSettledError, match="no solution"):
        ranking.eigenvector(path)
    with pytest.raises(ContagionError, match="give alpha"):
        ranking.katz(path)
    assert ranking.katz(path, alpha=1.0).scores[1] == 2.0
    path[path == 0] = 1e-3
    assert ranking.eigenvector(path).status is Status.SETTLED


def test_no_eigenvalue_is_made_up_by_rounding():
    settled = 0
    for seed in range(60):
        rng = np.random.default_rng([seed, 611])
        size = int(rng.integers(20, 60))
        matrix = rng.lognormal(0.0, 3.0, (size, size)) * (rng.random((size, size)) < 1 / size)
        found = ranking.eigenvector(matrix, strict=False)
        if found.status is Status.SETTLED:
            settled += 1
            value = found.scores @ matrix.T @ found.scores
            assert value == pytest.approx(abs(np.linalg.eigvals(matrix)).max(), rel=1e-5)
    assert settled > 20
    chain = np.diag(np.full(29, 1e6), 1)
    chain[1, 0] = 1e-12
    with pytest.raises(NotSettledError, match="no further progress above rounding"):
        ranking.eigenvector(chain)


def test_a_graph_without_links_has_no_eigenvector():
    for measure in (ranking.eigenvector, ranking.hits):
        with pytest.raises(NotSettledError, match="no solution"):
            measure(np.zeros((3, 3)))
    assert ranking.pagerank(np.zeros((2, 2))).scores.tolist() == [0.5, 0.5]
    assert ranking.betweenness(np.zeros((3, 3))).tolist() == [0.0] * 3
    assert ranking.closeness([[0.0]]).tolist() == [0.0]
    assert ranking.k_core(np.zeros((2, 2))).tolist() == [0, 0]
    assert ranking.community(np.zeros((2, 2))).max() == 1
    core = ranking.core_periphery(np.zeros((2, 2)))
    assert (core.errors, core.membership.sum()) == (0, core.size)


# bad input ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([[0, -1], [1, 0]], "matrix.1, row 0: -1.0"),
        ([[0, 1], [math.nan, 0]], "matrix.0, row 1: nan"),
        ([[0, math.inf], [1, 0]], "inf"),
        ([[0, 1, 2], [1, 0, 1]], "a square matrix"),
        ([1.0, 2.0], "a square matrix"),
        ([["a", "b"], ["c", "d"]], "could not convert"),
        (np.zeros((0, 0)), "at least one node"),
    ],
)
@pytest.mark.parametrize(
    "measure",
    [
        ranking.pagerank,
        ranking.eigenvector,
        ranking.katz,
        ranking.betweenness,
        ranking.closeness,
        ranking.k_core,
        ranking.core_periphery,
        ranking.community,
    ],
)
def test_bad_matrices_are_refused(measure, given, said):
    with pytest.raises(SchemaError, match=said):
        measure(given)


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda: ranking.strength([1.0]), SchemaError, r"\(n, m\)"),
        (lambda: ranking.hits([[0, -1]]), SchemaError, "row 0: -1"),
        (lambda: ranking.pagerank([[1]], damping=1.0), ValueError, r"damping=1.0 is not in \[0, 1\)"),
        (lambda: ranking.pagerank([[1]], personalization=[0]), SchemaError, "all 0"),
        (lambda: ranking.pagerank([[1]], personalization=[1, 2]), SchemaError, r"shape \(2,\)"),
        (lambda: ranking.pagerank([[1]], personalization=[-1]), SchemaError, "personalization, row 0: -1"),
        (lambda: ranking.katz([[1]], alpha=-1.0), ValueError, "alpha=-1.0"),
        (lambda: ranking.katz([[1]], beta=0.0), SchemaError, "all 0"),
        (lambda: ranking.katz([[1, 0], [0, 1]], beta=[1, 0]), ValueError, "beta is above 0"),
        (lambda: ranking.birank([[1]], damping=(1.0, 0.5)), ValueError, "damping"),
        (lambda: ranking.birank([[1]], queries=([1], [0])), SchemaError, r"queries\[1\]: all 0"),
        (lambda: ranking.overlap([[1, 1]], [1, 0]), SchemaError, "depth, row 1: 0.0"),
        (lambda: ranking.overlap([[1, 1]], [1]), SchemaError, r"shape \(1,\)"),
        (lambda: ranking.participation([[1, 1]], [0.5, 1]), SchemaError, "number the groups"),
        (lambda: ranking.participation([[1, 1]], [0, -1]), SchemaError, "number the groups"),
        (lambda: ranking.community([[1]], resolution=0), ValueError, "resolution=0"),
        (lambda: ranking.betweenness([[1]], pivots=2), ValueError, "pivots=2 is not between 1 and the 1 nodes"),
    ],
)
def test_bad_options_are_refused(call, error, said):
    with pytest.raises(error, match=said):
        call()


@pytest.mark.parametrize("name", ["betweenness", "closeness"])
def test_all_paths_of_a_large_graph_are_refused(name, monkeypatch):
    monkeypatch.setattr(_paths, "EXACT_WORK", 100)
    measure = getattr(ranking, name)
    with pytest.raises(ContagionError, match=f"{name} of 11 nodes and 20 links .* give pivots=256"):
        measure(star(10))
    assert measure(star(10), pivots=5).shape == (11,)
