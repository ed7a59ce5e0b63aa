"""Shares of dues, and how near to its dues a node counts as solvent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["SOLVENCY_TOLERANCE", "share_paid"]

SOLVENCY_TOLERANCE = 1e-12
"""A node is solvent when it can pay its dues up to this share of them (weak inequality)."""


def share_paid(payments: NDArray[np.float64], dues: NDArray[np.float64], *, empty: float = 0.0) -> NDArray[np.float64]:
    """Divide payments by dues; where nothing is due the share is ``empty``."""
    shares: NDArray[np.float64] = np.divide(payments, dues, out=np.full(payments.shape, empty), where=dues > 0)
    return shares
