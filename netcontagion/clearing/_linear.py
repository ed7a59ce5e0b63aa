"""Linear systems among defaulters: what they pay when all they have goes to their creditors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse

from netcontagion.clearing._system import EPS

if TYPE_CHECKING:
    from netcontagion.clearing._system import Bools, Floats, System

__all__ = ["ROUNDING_RESIDUAL", "solve_unpaid"]

DIRECT_SIZE = 1_000  # above it a solve that need not be direct is an iteration
ROUNDING_RESIDUAL = 8 * EPS  # a residual that further rounds do not improve


def solve_unpaid(system: System, nodes: Bools, available: Floats, *, direct: bool) -> Floats | None:
    """Solve ``p = available + receipts(p)`` among ``nodes``; None where that fails.

    In shares x = p / due of the dues: ``(diag(due) - L^T) x = available``, column diagonally dominant.
    """
    if not nodes.any():
        return np.zeros(0)
    due = system.due[nodes]
    among = system.owed[nodes][:, nodes]
    matrix = (scipy.sparse.diags_array(due) - among.T).tocsc()
    few = len(due) <= DIRECT_SIZE or among.nnz <= 2 * len(due)
    shares = _by_factors(matrix, available) if direct or few else _by_krylov(matrix, due, available)
    return None if shares is None or not np.isfinite(shares).all() else shares * due


def _by_factors(matrix: Any, right: Floats) -> Floats | None:
    from scipy.sparse.linalg import splu

    try:
        factors = splu(matrix)
    except RuntimeError:  # exactly singular
        return None
    found: Floats = factors.solve(right)
    refined: Floats = found + factors.solve(right - matrix @ found)
    return refined


def _by_krylov(matrix: Any, due: Floats, right: Floats) -> Floats | None:
    from scipy.sparse.linalg import LinearOperator, bicgstab

    scaled = LinearOperator(matrix.shape, matvec=lambda vector: (matrix @ vector) / due, dtype=float)
    found = np.zeros(len(right))
    for attempt in range(4):
        missing = (right - matrix @ found) / due
        if np.abs(missing).max(initial=0.0) <= ROUNDING_RESIDUAL:
            break
        correction, failed = bicgstab(scaled, missing, rtol=1e-6, maxiter=1_000)
        if failed:  # a refinement may break down at rounding level: what was found stands, the certificate judges it
            return found if attempt else None
        found = found + correction
    return found
