"""What the caller of a fire sale gives: numbers that are converted once or refused all together, and their labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy.sparse

from netcontagion.errors import Problem, SchemaError

if TYPE_CHECKING:
    from netcontagion.clearing._system import Floats

__all__ = ["AMOUNT", "DEPTH", "POSITIVE", "SHARE", "Bounds", "Reader", "labelled"]


class Bounds(NamedTuple):
    """What numbers are allowed, in words and as limits."""

    allowed: str
    low: float
    high: float
    open_low: bool = False
    infinite: bool = False

    def bad(self, numbers: Floats) -> Any:
        """Mark the numbers that are not allowed."""
        low = numbers > self.low if self.open_low else numbers >= self.low
        return ~(low & (numbers <= self.high) & (np.isfinite(numbers) | (self.infinite & (numbers == np.inf))))

    def where_bad(self, numbers: Floats) -> Any:
        """Find the numbers that are not allowed; two passes where there are none."""
        ends = np.array([numbers.min(initial=np.inf), numbers.max(initial=-np.inf)])  # NaN where there is one
        return np.flatnonzero(self.bad(numbers)) if numbers.size and self.bad(ends).any() else np.zeros(0, dtype=int)


AMOUNT = Bounds("finite, at least 0", 0.0, np.inf)
POSITIVE = Bounds("finite, above 0", 0.0, np.inf, open_low=True)
DEPTH = Bounds("above 0 (inf: no impact)", 0.0, np.inf, open_low=True, infinite=True)
SHARE = Bounds("between 0 and 1", 0.0, 1.0)


class Reader:
    """Read tables one by one, and collect what is wrong with them.

    ``nodes`` and ``assets`` are the labels (None where there are none) in whose order everything is put.
    """

    def __init__(self, nodes: Any = None) -> None:
        self.problems: list[Problem] = []
        self.nodes, self.assets = nodes, None
        self.shape: tuple[int, int] | None = None

    def holdings(self, name: str, given: Any, bounds: Bounds = AMOUNT) -> Any:
        """Read the matrix of holders (rows) and assets (columns); None, and a problem, where it is no matrix."""
        if hasattr(given, "columns") and hasattr(given, "index"):
            if given.columns.has_duplicates:
                self._add(name, None, None, "an asset twice", "each asset once", "add up the columns")
                return None
            self.assets = given.columns
            given = self._aligned(name, given, self.nodes)
            self.nodes = given.index if self.nodes is None else self.nodes
        given = _unmasked(given)
        try:
            given = given if scipy.sparse.issparse(given) else np.asarray(given, dtype=float)
            matrix = scipy.sparse.csr_array(given, dtype=float, copy=True) if given.ndim == 2 else None
        except (TypeError, ValueError) as error:
            self._add(name, None, None, str(error), "numbers", "remove what is not a number")
            return None
        if matrix is None:
            self._add(name, None, None, f"shape {given.shape}", "(n, m)", "rows are holders, columns assets")
            return None
        matrix.sum_duplicates()
        if not matrix.data.all():
            matrix.eliminate_zeros()
        for at in bounds.where_bad(matrix.data):
            cure = "give units held; short positions cannot be sold"
            row = int(np.searchsorted(matrix.indptr, at, side="right")) - 1
            self._add(name, str(matrix.indices[at]), row, float(matrix.data[at]), bounds.allowed, cure)
        self.shape = matrix.shape
        return matrix

    def per_node(self, name: str, given: Any, bounds: Bounds, *, several: bool = False, scalar: bool = True) -> Any:
        """Read numbers by node: (n,), where allowed a scalar or (n, s)."""
        rows = None if self.shape is None else self.shape[0]
        return self._numbers(name, self._aligned(name, given, self.nodes), bounds, rows, several, scalar)

    def per_asset(self, name: str, given: Any, bounds: Bounds, *, several: bool = False, scalar: bool = True) -> Any:
        """Read numbers by asset: (m,), where allowed a scalar or (m, s)."""
        rows = None if self.shape is None else self.shape[1]
        return self._numbers(name, self._aligned(name, given, self.assets), bounds, rows, several, scalar)

    def refuse(self, name: str, row: int | None, value: object, allowed: str, cure: str) -> None:
        """Add a problem found by the caller."""
        self._add(name, None, row, value, allowed, cure)

    def done(self) -> None:
        """Raise one SchemaError with everything that is wrong, if anything is."""
        if self.problems:
            raise SchemaError(self.problems)

    def _numbers(self, name: str, given: Any, bounds: Bounds, rows: int | None, several: bool, scalar: bool) -> Any:
        try:
            array: Any = np.array(_unmasked(given), dtype=float)
        except (TypeError, ValueError) as error:
            self._add(name, None, None, str(error), "numbers", "remove what is not a number")
            return None
        if array.ndim == 0 and scalar and rows is not None:
            array = np.full(rows, float(array))
        if array.ndim not in ((1, 2) if several else (1,)) or (rows is not None and len(array) != rows):
            count = "n" if rows is None else rows
            allowed = f"({count},)" + (f" or ({count}, s)" if several else "")
            self._add(name, None, None, f"shape {array.shape}", allowed, "give one row per row of the holdings' axis")
            return None
        for place in np.argwhere(bounds.bad(array)):
            column = None if array.ndim == 1 else str(place[1])
            cure = "give a number that is allowed for every cell"
            self._add(name, column, int(place[0]), float(array[tuple(place)]), bounds.allowed, cure)
        return array

    def _aligned(self, name: str, given: Any, labels: Any) -> Any:
        """Put labelled input in the order of the labels; labels that differ are a problem."""
        if labels is None or not hasattr(given, "reindex"):
            return given
        if given.index.has_duplicates or len(given.index.symmetric_difference(labels)):
            self._add(
                name, None, None, "its labels are other ones", "the same labels", "label it alike, or give values"
            )
            return given
        return given.reindex(labels)

    def _add(self, table: str, column: str | None, row: int | None, value: object, allowed: str, cure: str) -> None:
        self.problems.append(Problem(table, column, row, value, allowed, cure))


def _unmasked(given: Any) -> Any:
    return np.ma.filled(given.astype(float), np.nan) if isinstance(given, np.ma.MaskedArray) else given


def labelled(numbers: Any, labels: Any) -> Any:
    """Label numbers, as a Series or a DataFrame of scenarios, where there are labels; else the array, read-only."""
    if labels is None:
        numbers.setflags(write=False)
        return numbers
    import pandas as pd

    return pd.Series(numbers, index=labels) if numbers.ndim == 1 else pd.DataFrame(numbers, index=labels)
