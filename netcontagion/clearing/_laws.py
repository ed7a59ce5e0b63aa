"""The laws that every clearing result keeps: payments in range, limited liability, conservation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from netcontagion.clearing._shares import share_paid

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netcontagion.clearing._result import ClearingResult, NodeValues

__all__ = ["broken_laws"]

CHECK_TOLERANCE = 1e-9
"""Relative tolerance of :meth:`ClearingResult.check`."""


def broken_laws(result: ClearingResult) -> list[str]:
    """Name every law that does not hold, and the node where it fails most."""
    values, tolerance = result.values, max(CHECK_TOLERANCE, float(np.max(result.residual, initial=0.0)))
    resources = _resources(result)
    wrong = _out_of_range(values, tolerance)
    if result.limited:
        wrong += _liability_unlimited(values, resources, tolerance)
    return [*wrong, *_not_conserved(result, resources, tolerance)] if result.conserves else wrong


def _resources(result: ClearingResult) -> NDArray[np.float64]:
    """External assets plus receipts, of debt and of equity held, anew from what each node pays."""
    if result.classes is not None:
        received = result.classes.receipts(np.maximum(result.values.net_worth, 0.0))
        return np.asarray(result.values.external_assets + received)
    internal, paid = result.liabilities.sum(axis=1), result.values.payments_internal
    share = share_paid(paid, internal if paid.ndim == 1 else np.broadcast_to(internal[:, None], paid.shape))
    resources: NDArray[np.float64] = result.values.external_assets + result.liabilities.T @ share
    return resources


def _out_of_range(values: NodeValues, tolerance: float) -> list[str]:
    payments, dues = values.payments, values.dues
    excess = np.maximum(payments - dues, -payments) - tolerance * dues
    split = np.abs(values.payments_internal + values.payments_external - payments) - tolerance * dues
    wrong = [f"payments outside [0, dues] at {_where(excess)}"] if not (excess <= 0).all() else []
    return [*wrong, f"payments differ from internal plus external at {_where(split)}"] if (split > 0).any() else wrong


def _liability_unlimited(values: NodeValues, resources: NDArray[np.float64], tolerance: float) -> list[str]:
    excess = values.payments - resources - tolerance * values.dues
    return [f"a node pays more than it has at {_where(excess)}"] if not (excess <= 0).all() else []


def _not_conserved(result: ClearingResult, resources: NDArray[np.float64], tolerance: float) -> list[str]:
    values = result.values
    equity, assets = np.maximum(resources - values.dues, 0.0), values.external_assets.sum(axis=0)
    owned = equity.sum(axis=0) if result.classes is None else result.classes.held_outside @ equity
    gap = owned + values.payments_external.sum(axis=0) - assets
    if np.all(np.abs(gap) <= tolerance * np.maximum(assets, values.dues.sum(axis=0))):
        return []
    return [f"equities plus external receipts differ from the external assets by {np.abs(gap).max():.6g}"]


def _where(excess: NDArray[np.float64]) -> str:
    place = np.unravel_index(int(np.argmax(excess)), excess.shape)
    return f"node {place[0]}" + (f", scenario {place[1]}" if len(place) == 2 else "")
