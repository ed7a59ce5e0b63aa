"""Three independent ways to clear agree on seeded random networks."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linprog
from seeds import some_and_slow

from netcontagion.clearing import eisenberg_noe


def random_network(seed):
    """Small random network; many banks without assets of their own, some without debt."""
    random = np.random.default_rng(seed)
    nodes = random.integers(2, 15)
    linked = random.random((nodes, nodes)) < random.choice([0.15, 0.4, 0.9])
    liabilities = np.round(random.exponential(5, (nodes, nodes)), 3) * linked
    np.fill_diagonal(liabilities, 0)
    assets = np.round(random.exponential(4, nodes), 3) * (random.random(nodes) < random.choice([0.4, 0.8, 1.0]))
    external = np.round(random.exponential(4, nodes), 3) * (random.random(nodes) < 0.5)
    return liabilities, assets, external


def by_linear_programme(liabilities, assets, external):
    dues = liabilities.sum(axis=1) + external
    share = np.divide(liabilities, dues[:, None], out=np.zeros_like(liabilities), where=dues[:, None] > 0)
    exact = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
    bounds = np.column_stack([np.zeros(len(dues)), dues])
    solution = linprog(
        -np.ones(len(dues)), np.eye(len(dues)) - share.T, assets, bounds=bounds, method="highs", options=exact
    )
    assert solution.success
    return solution.x


@pytest.mark.parametrize("block", some_and_slow(3, 10))
def test_fictitious_default_fixed_point_and_linear_programme_agree(block):
    for seed in range(30 * block, 30 * block + 30):
        liabilities, assets, external = random_network(seed)
        programme = by_linear_programme(liabilities, assets, external)
        scale = max(1.0, (liabilities.sum(axis=1) + external).max())
        for solver in ("auto", "fixed_point", "fictitious_default"):
            result = eisenberg_noe(liabilities, assets, external, solver=solver)
            assert np.abs(result.payments - programme).max() <= 1e-9 * scale, (seed, solver)
            assert result.enclosure == "concave"
            assert result.width <= 1e-10


@pytest.mark.parametrize("seed", range(0, 300, 10))
def test_solvers_agree_with_senior_external_debt(seed):
    found = [
        eisenberg_noe(*random_network(seed), external_rank="senior", solver=solver)
        for solver in ("auto", "fixed_point", "fictitious_default")
    ]
    for other in found[1:]:
        np.testing.assert_allclose(other.payments, found[0].payments, rtol=0, atol=1e-8)
