"""Numbers per node beside the matrix of liabilities, under names of the model's own: converted once, or refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from netcontagion.clearing._input import checked_input
from netcontagion.errors import Problem, SchemaError

if TYPE_CHECKING:
    import pandas as pd

    from netcontagion.clearing._system import Floats

__all__ = ["Column", "checked_nodes", "marked_nodes", "per_node"]


class Column(NamedTuple):
    """What is given per node, and which numbers are allowed: least <= number <= most, or least < number."""

    given: Any
    least: float = -np.inf
    most: float = np.inf
    open: bool = False
    dimensions: tuple[int, ...] = (1, 2)

    @property
    def allowed(self) -> str:
        """Say which numbers are allowed."""
        if self.most < np.inf:
            return f"finite, from {self.least:g} to {self.most:g}"
        if self.least == -np.inf:
            return "finite"
        return f"finite, {'more than' if self.open else 'at least'} {self.least:g}"

    def allows(self, numbers: Any) -> Any:
        """Tell which of the numbers are allowed."""
        enough = numbers > self.least if self.open else numbers >= self.least
        return np.isfinite(numbers) & (numbers <= self.most) & enough


def checked_nodes(liabilities: Any, columns: dict[str, Column]) -> tuple[Any, dict[str, Floats], Any]:
    """Return the matrix, the numbers of each column and the labels, or raise one SchemaError with all that is wrong.

    Columns with s scenarios must agree on s. A column whose ``given`` is None is left out.
    """
    problems: list[Problem] = []
    owed = _matrix(liabilities, problems)
    labels = liabilities.index if hasattr(liabilities, "columns") and hasattr(liabilities, "index") else None
    numbers = {
        name: _numbers(name, column, labels, problems) for name, column in columns.items() if column.given is not None
    }
    found = {name: array for name, array in numbers.items() if array is not None}
    if owed is not None:
        for name, array in found.items():
            if len(array) != owed.shape[0]:
                cure = "give one row per row of liabilities"
                problems.append(Problem(name, None, None, f"{len(array)} rows", f"{owed.shape[0]} rows", cure))
    widths = {name: array.shape[1] for name, array in found.items() if array.ndim == 2}
    if len(set(widths.values())) > 1:
        problems.append(
            Problem(", ".join(widths), None, None, f"{widths} scenarios", "as many in each", "give one column each")
        )
    if problems or owed is None:
        raise SchemaError(problems)
    return owed, found, labels


def _matrix(liabilities: Any, problems: list[Problem]) -> Any:
    shape = np.shape(liabilities) if not hasattr(liabilities, "shape") else liabilities.shape
    try:
        owed, _, _ = checked_input(liabilities, np.zeros(shape[0] if shape else 0), None)
    except SchemaError as error:
        problems += [problem for problem in error.problems if problem.table == "liabilities"]
        return None
    with np.errstate(over="ignore"):
        claims = owed.sum(axis=0)
    cure = "count in a larger unit of money"
    problems += [
        Problem("liabilities", str(node), None, "claims overflow", "a finite sum", cure)
        for node in np.flatnonzero(~np.isfinite(claims))
    ]
    return owed


def _numbers(name: str, column: Column, labels: Any, problems: list[Problem]) -> Floats | None:
    given = column.given
    if labels is not None and hasattr(given, "reindex"):
        if given.index.has_duplicates or len(given.index.symmetric_difference(labels)):
            cure = "label it as the matrix is, or give plain values"
            problems.append(Problem(name, None, None, "its labels are not the matrix's", "the same labels", cure))
            return None
        given = given.reindex(labels)
    if isinstance(given, np.ma.MaskedArray):
        given = np.ma.filled(given.astype(float), np.nan)
    try:
        array = np.array(given, dtype=float)
    except (TypeError, ValueError) as error:
        problems.append(Problem(name, None, None, str(error), "numbers", "remove what is not a number"))
        return None
    if array.ndim not in column.dimensions:
        allowed = " or ".join("(n,)" if count == 1 else "(n, s)" for count in column.dimensions)
        problems.append(Problem(name, None, None, f"shape {array.shape}", allowed, "give an array of that shape"))
        return None
    if array.size and column.allows(array.min()) and column.allows(array.max()):
        return array
    cure = "give a number in that range for every node"
    for place in np.argwhere(~column.allows(array)):
        scenario = None if array.ndim == 1 else str(place[1])
        value = float(array[tuple(place)])
        problems.append(Problem(name, scenario, int(place[0]), value, column.allowed, cure))
    return array


def marked_nodes(given: Any, nodes: int, labels: pd.Index[Any] | None, *, name: str = "defaulted") -> Any:
    """Return a mask (n,) or (n, s) from a mask, from positions, or from labels of the matrix; None marks nobody."""
    if given is None:
        return np.zeros(nodes, dtype=bool)
    if labels is not None and hasattr(given, "reindex") and given.to_numpy().dtype == bool:
        if given.index.has_duplicates or len(given.index.symmetric_difference(labels)):
            raise _refused(name, "its labels are not the matrix's", "the same labels")
        given = given.reindex(labels)
    array = np.asarray(given)
    if array.dtype == bool:
        if array.ndim not in (1, 2) or len(array) != nodes:
            raise _refused(name, f"a mask of shape {array.shape}", f"({nodes},) or ({nodes}, s)")
        return array.copy()
    mask = np.zeros(nodes, dtype=bool)
    chosen = list(given) if array.ndim else [given]
    if labels is not None:
        import pandas as pd

        places = labels.get_indexer_for(pd.Index(chosen)) if chosen else np.zeros(0, dtype=int)
        wrong = [label for label, place in zip(chosen, places, strict=True) if place < 0]
        if wrong:
            raise _refused(name, f"unknown labels {wrong[:5]}", "labels of the matrix")
    else:
        wrong = [one for one in chosen if not isinstance(one, (int, np.integer)) or not 0 <= one < nodes]
        if wrong:
            raise _refused(name, f"{wrong[:5]}", f"a mask, or positions from 0 to {nodes - 1}")
        places = np.array(chosen, dtype=int)
    mask[places] = True
    return mask


def _refused(name: str, value: str, allowed: str) -> SchemaError:
    return SchemaError([Problem(name, None, None, value, allowed, "name the nodes by mask, position or label")])


def per_node(name: str, given: Any, nodes: int, labels: Any = None, *, least: float = 0.0, most: float = 1.0) -> Floats:
    """Return a parameter, one number or one per node, as (n,); refuse, with a ValueError, what is out of range."""
    if labels is not None and hasattr(given, "reindex"):
        if given.index.has_duplicates or len(given.index.symmetric_difference(labels)):
            raise ValueError(f"{name}: its labels are not those of the matrix")
        given = given.reindex(labels)
    array = np.array(given, dtype=float)
    if array.shape not in ((), (nodes,)):
        raise ValueError(f"{name} of shape {array.shape}: give one number, or one for each of {nodes} nodes")
    if not ((array >= least) & (array <= most)).all():
        raise ValueError(f"{name}={given!r} must be from {least:g} to {most:g}")
    return np.broadcast_to(array, (nodes,))
