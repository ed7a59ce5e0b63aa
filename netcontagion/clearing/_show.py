"""How a clearing result shows itself: a table of the main figures, text and HTML."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from netcontagion.clearing._result import ClearingResult

__all__ = ["as_html", "as_text", "summary_of"]


def summary_of(result: ClearingResult) -> Any:
    """Return the main figures: a Series, or a DataFrame with a row per scenario."""
    import pandas as pd

    values, several = result.values, result.values.payments.ndim == 2
    table = {
        "model": result.model,
        "external_rank": result.external_rank,
        "which": result.which,
        "status": [str(status) for status in result.statuses] if several else str(result.status),
        "enclosure": result.enclosure,
        "width": result.width,
        "residual": result.residual,
        "iterations": result.iterations,
        "nodes": len(values.payments),
        "defaults": values.defaulted(result.tolerance).sum(axis=0),
        "dues": values.dues.sum(axis=0),
        "payments": values.payments.sum(axis=0),
        "shortfall": values.shortfall.sum(axis=0),
        "numeraire": result.numeraire,
    }
    if not several:
        return pd.Series(table, dtype=object, name="clearing")
    return pd.DataFrame(table, index=pd.RangeIndex(values.payments.shape[1], name="scenario"))


def as_text(result: ClearingResult) -> str:
    """Return what was solved, what came out, how sure it is and what was taken for granted, a line each."""
    width, rounds = np.max(result.width, initial=0.0), np.max(result.iterations, initial=0)
    residual = np.max(result.residual, initial=0.0)
    lines = [
        f"ClearingResult: {result.model}, {result.which} vector, external debt {result.external_rank}: {result.status}",
        f"  {_outcome(result)}",
        f"  enclosure {result.enclosure}, width {width:.3g}, residual {residual:.3g}, rounds {rounds}",
        *(f"  assumes: {sentence}" for sentence in result.assumptions),
    ]
    return "\n".join(lines)


def _outcome(result: ClearingResult) -> str:
    """Say how many nodes there are, how many default and how much is missing."""
    values, unit = result.values, f" {result.numeraire}" if result.numeraire else ""
    defaults = values.defaulted(result.tolerance).sum(axis=0)
    shortfall, dues, size = values.shortfall.sum(axis=0), values.dues.sum(axis=0), f"{len(values.payments)} nodes"
    if values.payments.ndim == 1:
        return f"{size}, {defaults} default, shortfall {shortfall:.6g}{unit} of {dues:.6g} due"
    if not len(dues):
        return f"{size} x 0 scenarios, 0 default, shortfall 0{unit}"
    missing = f"shortfall {shortfall.min():.6g} to {shortfall.max():.6g}{unit} of {dues.max():.6g} due"
    return f"{size} x {len(dues)} scenarios, {defaults.min()} to {defaults.max()} default, {missing}"


def as_html(result: ClearingResult) -> str:
    """Return the summary as a table, and the assumptions as a list."""
    rows = result.summary()
    table: str = (rows.to_frame() if rows.ndim == 1 else rows).to_html()
    notes = "".join(f"<li>{escape(sentence)}</li>" for sentence in result.assumptions)
    return f"{table}<ul>{notes}</ul>" if notes else table
