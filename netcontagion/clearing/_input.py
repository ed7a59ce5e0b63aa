"""What the caller gives: options that are allowed, and numbers that are converted once or refused all together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy.sparse

from netcontagion.errors import Problem, SchemaError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netcontagion.clearing._system import Floats, Prepared

__all__ = ["Options", "checked_assets", "checked_input"]

RANKS = ("pari_passu", "senior")
EXTREMES = ("greatest", "least")
SOLVERS = ("auto", "fixed_point", "fictitious_default")


class Options(NamedTuple):
    """How to solve: the keywords of the public function."""

    external_rank: str = "pari_passu"
    which: str = "greatest"
    solver: str = "auto"
    rtol: float = 1e-10
    max_rounds: int = 10_000
    waves: bool = False

    def check(self, solvers: tuple[str, ...] = SOLVERS) -> None:
        """Refuse, with a ValueError, what is not allowed or has no meaning together."""
        for name, allowed in (("external_rank", RANKS), ("which", EXTREMES), ("solver", solvers)):
            value = getattr(self, name)
            if value not in allowed:
                raise ValueError(f"{name}={value!r} is not one of {', '.join(map(repr, allowed))}")
        if not self.rtol > 0:
            raise ValueError(f"rtol={self.rtol!r} must be positive")
        if self.max_rounds < 1:
            raise ValueError(f"max_rounds={self.max_rounds!r} must be at least 1")
        if self.which == "least" and self.waves:
            raise ValueError(
                f"waves=True needs which='greatest', not {self.which!r}: the waves lead to the greatest vector"
            )
        if (self.external_rank, self.which) == ("senior", "least") and self.solver not in ("auto", "fixed_point"):
            raise ValueError(
                f"solver={self.solver!r} finds the greatest vector: for which='least' with external_rank='senior' "
                "use solver='auto' or 'fixed_point'"
            )


def checked_input(
    liabilities: Any, external_assets: Any, external_liabilities: Any, *, assets_needed: bool = True
) -> tuple[Any, Floats, Floats]:
    """Convert once, or raise one SchemaError with everything that is wrong."""
    problems: list[Problem] = []
    liabilities, external_assets, external_liabilities = (
        _unmasked(given) for given in _by_label(liabilities, external_assets, external_liabilities, problems)
    )
    owed = _matrix(liabilities, problems)
    if external_liabilities is None and owed is not None:
        external_liabilities = np.zeros(owed.shape[0])
    if not assets_needed and owed is not None:
        external_assets = np.zeros(owed.shape[0])
    assets = (
        _numbers("external_assets", external_assets, (1, 2), problems) if assets_needed or owed is not None else None
    )
    external = None
    if external_liabilities is not None:
        external = _numbers("external_liabilities", external_liabilities, (1,), problems)
    if owed is not None:
        _check_rows("external_assets", assets, owed.shape[0], problems)
        _check_rows("external_liabilities", external, owed.shape[0], problems)
    if problems or owed is None or assets is None or external is None:
        raise SchemaError(problems)
    _check_sums(owed, assets, external)
    return owed, assets, external


def checked_assets(external_assets: Any, prepared: Prepared) -> Floats:
    """Convert the assets of a prepared network, or raise one SchemaError with everything that is wrong."""
    problems: list[Problem] = []
    if prepared.labels is not None and hasattr(external_assets, "reindex"):
        index = external_assets.index
        if index.has_duplicates or len(index.symmetric_difference(prepared.labels)):
            cure = "label it as the matrix is, or give plain values"
            raise SchemaError(
                [Problem("external_assets", None, None, "its labels are not the matrix's", "the same labels", cure)]
            )
        external_assets = external_assets.reindex(prepared.labels)
    assets = _numbers("external_assets", _unmasked(external_assets), (1, 2), problems)
    _check_rows("external_assets", assets, prepared.owed.shape[0], problems)
    if problems or assets is None:
        raise SchemaError(problems)
    if not np.isfinite(assets.max(initial=0.0) + prepared.largest):
        _check_finite(assets, prepared.full, prepared.dues)
    return assets


def _by_label(owed: Any, assets: Any, external: Any, problems: list[Problem]) -> tuple[Any, Any, Any]:
    """Join labelled input by label, in the order of the rows of the matrix; labels that differ are problems."""
    if not (hasattr(owed, "columns") and hasattr(owed, "index")):
        return owed, assets, external
    rows = owed.index
    if rows.has_duplicates or len(rows.symmetric_difference(owed.columns)):
        cure = "name the same nodes in rows and columns, each once"
        problems.append(Problem("liabilities", None, None, "rows and columns differ", "the same labels", cure))
        return owed, assets, external
    joined: list[Any] = []
    for name, given in (("external_assets", assets), ("external_liabilities", external)):
        if not hasattr(given, "reindex"):
            joined.append(given)
        elif given.index.has_duplicates or len(given.index.symmetric_difference(rows)):
            cure = "label it as the matrix is, or give plain values"
            problems.append(Problem(name, None, None, "its labels are not the matrix's", "the same labels", cure))
            joined.append(given)
        else:
            joined.append(given.reindex(rows))
    return owed[rows], joined[0], joined[1]


def _unmasked(given: Any) -> Any:
    """Make what is masked NaN, so that it is refused and not read as what lies under the mask."""
    return np.ma.filled(given.astype(float), np.nan) if isinstance(given, np.ma.MaskedArray) else given


def _matrix(liabilities: Any, problems: list[Problem]) -> Any:
    """Convert to a csr_array of the caller's numbers, without zeros; None, and a problem, where it is no matrix."""
    try:
        given: Any = liabilities if scipy.sparse.issparse(liabilities) else np.asarray(liabilities, dtype=float)
        owed = scipy.sparse.csr_array(given, dtype=float, copy=True) if given.ndim == 2 else None
    except (TypeError, ValueError) as error:
        problems.append(_not_numbers("liabilities", error))
        return None
    if owed is None or owed.shape[0] != owed.shape[1]:
        cure = "rows are debtors, columns creditors, of the same nodes"
        problems.append(Problem("liabilities", None, None, f"shape {given.shape}", "a square matrix", cure))
        return None
    owed.sum_duplicates()
    owed.eliminate_zeros()
    if max(owed.nnz, *owed.shape) <= np.iinfo(np.int32).max:  # half the memory to read in every product
        owed.indices, owed.indptr = owed.indices.astype(np.int32), owed.indptr.astype(np.int32)
    _check_cells(owed, problems)
    return owed


def _check_cells(owed: Any, problems: list[Problem]) -> None:
    rows, columns = np.repeat(np.arange(owed.shape[0]), np.diff(owed.indptr)), owed.indices
    bad = _bad(owed.data)
    problems += [_bad_amount("liabilities", str(columns[at]), int(rows[at]), float(owed.data[at])) for at in bad[:, 0]]
    own = [(int(rows[at]), float(owed.data[at])) for at in np.flatnonzero(rows == columns)]
    cure = "remove what a node owes itself"
    problems += [Problem("liabilities", str(row), row, value, "0 on the diagonal", cure) for row, value in own]


def _numbers(table: str, given: Any, dimensions: tuple[int, ...], problems: list[Problem]) -> Floats | None:
    try:
        array = np.array(given, dtype=float)
    except (TypeError, ValueError) as error:
        problems.append(_not_numbers(table, error))
        return None
    if array.ndim not in dimensions:
        allowed = " or ".join("(n,)" if count == 1 else "(n, s)" for count in dimensions)
        problems.append(Problem(table, None, None, f"shape {array.shape}", allowed, "give an array of that shape"))
        return None
    for place in _bad(array):
        column = None if array.ndim == 1 else str(place[1])
        problems.append(_bad_amount(table, column, int(place[0]), float(array[tuple(place)])))
    return array


def _check_rows(table: str, array: Floats | None, nodes: int, problems: list[Problem]) -> None:
    if array is not None and len(array) != nodes:
        cure = "give one row per row of liabilities"
        problems.append(Problem(table, None, None, f"{len(array)} rows", f"{nodes} rows", cure))


def _check_sums(owed: Any, assets: Floats, external: Floats) -> None:
    """Check that what a node owes, and what it may have, are finite sums."""
    with np.errstate(over="ignore"):
        _check_finite(assets, owed.sum(axis=0), owed.sum(axis=1) + external)


def _check_finite(assets: Floats, claims: Floats, dues: Floats) -> None:
    cure = "count in a larger unit of money"
    with np.errstate(over="ignore"):
        most = assets if assets.ndim == 1 else assets.max(axis=1, initial=0.0)
        whole = most + claims + dues
    for values, table, said in ((dues, "liabilities", "dues overflow"), (whole, "external_assets", "assets overflow")):
        rows = np.flatnonzero(~np.isfinite(values))
        if len(rows):
            raise SchemaError(Problem(table, None, int(row), said, "a finite sum", cure) for row in rows)


def _bad(amounts: Floats) -> NDArray[np.intp]:
    """Places of what is no amount of money, a row of indices each."""
    if not amounts.size or (amounts.min() >= 0 and amounts.max() < np.inf):  # false with NaN
        return np.empty((0, amounts.ndim), dtype=np.intp)
    return np.argwhere(~(np.isfinite(amounts) & (amounts >= 0)))


def _bad_amount(table: str, column: str | None, row: int, value: float) -> Problem:
    cure = "give a number for every cell (0 where there is nothing)"
    if value < 0:
        cure = {
            "liabilities": "turn the entry round: what the creditor owes the debtor",
            "external_assets": "put a negative net position into external_liabilities with external_rank='senior', "
            "and 0 here",
            "external_liabilities": "put it into external_assets",
        }[table]
    return Problem(table, column, row, value, "finite, at least 0", cure)


def _not_numbers(table: str, error: Exception) -> Problem:
    return Problem(table, None, None, str(error), "numbers", "remove what is not a number")
