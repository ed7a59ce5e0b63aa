"""The matrix with the fewest links that has given margins."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion.builders._transport import check_plain, fill, transport
from netcontagion.errors import NotSettledError, SchemaError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netcontagion.builders._margins import Margins
    from netcontagion.builders._transport import Transport

__all__ = ["minimum_density"]

SOLVERS = ("auto", "exact", "heuristic")
EXACT_UP_TO = 24
"""Margins above 0, rows and columns together, up to which ``solver="auto"`` is exact."""
_HALVES_UP_TO = 44  # margins whose partial sums can all be compared
_QUADS_UP_TO = 4_000  # margins of which balanced fours are looked for
_SAME = 2**8  # quanta: sums of money that differ by less differ by rounding (2e-16 of the total)
_CUTS = 200
_TRIES, _TRIED_MARGINS = 32, 2_000  # orders in which groups are looked for: fewer where there are many margins


def minimum_density(margins: Margins, *, solver: str = "auto", time_limit: float = 30.0, strict: bool = True) -> Any:
    """Find a matrix with few links, the fewest where ``solver`` is exact."""
    if solver not in SOLVERS:
        raise ValueError(f"solver={solver!r} is not one of {', '.join(map(repr, SOLVERS))}")
    if not time_limit > 0:
        raise ValueError(f"time_limit={time_limit!r} must be positive (seconds)")
    check_plain(margins)
    problem = transport(margins)
    amounts = _few(problem)
    size = sum(problem.open.shape)
    if solver == "heuristic" or (solver == "auto" and size > EXACT_UP_TO):
        return problem.to_sparse(amounts)
    amounts, least = _fewest(problem, amounts, time_limit)
    links = int(np.count_nonzero(amounts))
    matrix = problem.to_sparse(amounts)
    if strict and solver == "exact" and least < links:
        raise NotSettledError(
            f"minimum density: {links} links found, {least} not excluded after {time_limit:g} s; "
            "give more time_limit, or take solver='heuristic'",
            matrix,
        )
    return matrix


# heuristic --------------------------------------------------------------------------------------------------------


def _few(problem: Transport) -> NDArray[np.int64]:
    """Match the smallest balanced groups first, each a link cheaper than its nodes, and the rest as a forest.

    A vertex of the margins' polytope is a forest: rows + columns - groups links, a group being a tree whose own margins
    balance. So the fewest links are those of the most groups; where no partial sums agree every vertex is the best.
    """
    best = _forest(problem, fill(problem))
    size = sum(problem.open.shape)
    rng = np.random.default_rng(0)
    for _ in range(min(_TRIES, max(2, _TRIED_MARGINS // size)) if size else 0):
        first = _groups(problem, rng.permutation(size))
        if not first.any():
            break
        try:
            found = _forest(problem, fill(problem, first))
        except SchemaError:
            continue
        if np.count_nonzero(found) < np.count_nonzero(best):
            best = found
    return best


def _groups(problem: Transport, ranking: NDArray[np.intp]) -> NDArray[np.int64]:
    """Place balanced groups of two, three and four margins, looked for in the order of a ranking."""
    amounts = np.zeros(problem.open.shape, dtype=np.int64)
    n_rows = len(problem.rows)
    signed = np.concatenate([problem.rows, -problem.columns])
    free = np.ones(len(signed), dtype=bool)
    for find in (_twos, _threes, _fours):
        for group in find(signed, ranking[free[ranking]]):
            rows, columns = group[group < n_rows], group[group >= n_rows] - n_rows
            if not free[group].all() or not len(rows) or not len(columns) or not _leaves_room(problem, free, group):
                continue
            placed = _tree(problem, rows, columns)
            if placed is not None:
                amounts[np.ix_(rows, columns)] = placed
                free[group] = False
    return amounts


def _leaves_room(problem: Transport, free: NDArray[np.bool_], group: NDArray[np.intp]) -> bool:
    """Whether no node is too large for the others once a group is taken out."""
    if problem.margins.bipartite:
        return True
    left = free.copy()
    left[group] = False
    n_rows = len(problem.rows)
    both = np.zeros(problem.margins.known.shape[0])
    rows = np.where(left[:n_rows], problem.rows, 0)
    both[problem.places[0]] += rows
    both[problem.places[1]] += np.where(left[n_rows:], problem.columns, 0)
    return bool(both.max() <= rows.sum() + _SAME)


def _tree(problem: Transport, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> NDArray[np.int64] | None:
    """Place a group on its own open cells; None where they do not allow it."""
    part = problem._replace(
        rows=problem.rows[rows],
        columns=problem.columns[columns],
        open=problem.open[np.ix_(rows, columns)],
        places=(problem.places[0][rows], problem.places[1][columns]),
    )
    try:
        amounts = fill(part)
    except SchemaError:
        return None
    return _forest(part, amounts)


def _twos(signed: NDArray[np.int64], order: NDArray[np.intp]) -> Any:
    """Pairs whose sum is 0."""
    values = signed[order]
    for low, high in _matches(values, values):
        if low < high:
            yield order[[low, high]]


def _threes(signed: NDArray[np.int64], order: NDArray[np.intp]) -> Any:
    """Threes whose sum is 0."""
    if len(order) > _QUADS_UP_TO:
        return
    one, two = np.triu_indices(len(order), 1)
    values = signed[order]
    for pair, third in _matches(values[one] + values[two], values):
        if third > two[pair]:
            yield order[[one[pair], two[pair], third]]


def _fours(signed: NDArray[np.int64], order: NDArray[np.intp]) -> Any:
    """Fours whose sum is 0."""
    if len(order) > _QUADS_UP_TO:
        return
    one, two = np.triu_indices(len(order), 1)
    sums = signed[order][one] + signed[order][two]
    for pair, other in _matches(sums, sums):
        if two[pair] < one[other]:
            yield order[[one[pair], two[pair], one[other], two[other]]]


def _matches(left: NDArray[np.int64], right: NDArray[np.int64]) -> Any:
    """Places where left + right is 0 up to rounding, those with the first match only where there are many."""
    by_size = np.argsort(right, kind="stable")
    ranked = right[by_size]
    start = np.searchsorted(ranked, -left - _SAME)
    end = np.searchsorted(ranked, -left + _SAME, side="right")
    for place in np.flatnonzero(end > start).tolist():
        for rank in range(start[place], min(end[place], start[place] + 8)):
            yield place, int(by_size[rank])


def _forest(problem: Transport, amounts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Cancel cycles: shift amounts along each until a link is gone."""
    amounts = amounts.copy()
    n_rows = amounts.shape[0]
    near: list[set[int]] = [set() for _ in range(sum(amounts.shape))]
    rows, columns = np.nonzero(amounts)
    order = np.argsort(-amounts[rows, columns], kind="stable")
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        path = _way(near, row, column + n_rows)
        near[row].add(column + n_rows)
        near[column + n_rows].add(row)
        if path:
            _cancel(amounts, near, [*path, row], n_rows)
    return amounts


def _way(near: list[set[int]], start: int, end: int) -> list[int]:
    """Find the nodes from one to another in a forest, [] where there is no way."""
    if not near[start] or not near[end]:
        return []
    before, edge = {start: start}, [start]
    while edge:
        node = edge.pop()
        for other in near[node]:
            if other not in before:
                before[other] = node
                edge.append(other)
        if end in before:
            break
    else:
        return []
    path = [end]
    while path[-1] != start:
        path.append(before[path[-1]])
    return path[::-1]


def _cancel(amounts: NDArray[np.int64], near: list[set[int]], path: list[int], n_rows: int) -> None:
    cells = [(min(ends), max(ends) - n_rows) for ends in pairwise(path)]
    least = min(range(len(cells)), key=lambda place: amounts[cells[place]])
    amount = amounts[cells[least]]
    for place, cell in enumerate(cells):
        amounts[cell] += amount if (place - least) % 2 else -amount
        if amounts[cell] == 0:
            near[cell[0]].discard(cell[1] + n_rows)
            near[cell[1] + n_rows].discard(cell[0])


# exact ------------------------------------------------------------------------------------------------------------


def _fewest(problem: Transport, amounts: NDArray[np.int64], time_limit: float) -> tuple[NDArray[np.int64], int]:
    """Improve to the fewest links; return also the number below which none can be."""
    size, links = sum(problem.open.shape), int(np.count_nonzero(amounts))
    least = max(problem.open.shape)
    if links <= least or (size <= _HALVES_UP_TO and links == size - 1 and not _has_balanced_part(problem)):
        return amounts, links
    deadline = time.monotonic() + time_limit
    outside: list[Any] = []
    for _ in range(_CUTS):
        left = deadline - time.monotonic()
        if left <= 0:
            break
        support, bound = _milp(problem, outside, links, left)
        least = max(least, bound)
        if support is None:
            return amounts, min(links, least)
        try:
            found = _forest(problem, fill(problem._replace(open=support)))
        except SchemaError:  # the margins fit this support by the solver's tolerance only
            outside.append(~support & problem.open)
            continue
        if np.count_nonzero(found) < links:
            amounts, links = found, int(np.count_nonzero(found))
        return amounts, min(links, least)
    return amounts, min(links, least)


def _has_balanced_part(problem: Transport) -> bool:
    """Whether some, not all, of the rows and columns have the same sum: sums of two halves are compared."""
    signed = np.concatenate([problem.rows, -problem.columns])
    half = len(signed) // 2
    sums = []
    for part in (signed[:half], signed[half:]):
        totals = np.zeros(1, dtype=np.int64)
        for value in part.tolist():
            totals = np.concatenate([totals, totals + value])
        sums.append(totals)
    ranked = np.sort(sums[1])
    start = np.searchsorted(ranked, -sums[0] - _SAME)
    end = np.searchsorted(ranked, -sums[0] + _SAME, side="right")
    return int((end - start).sum()) > 2  # the empty part and the whole are always there


def _milp(problem: Transport, outside: list[Any], links: int, time_limit: float) -> tuple[Any, int]:
    """Fixed-charge transport: the fewest cells that can carry the margins; None where no fewer than ``links`` can."""
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array, eye_array, hstack

    row, column = np.nonzero(problem.open)
    n_cells = len(row)
    unit = float(problem.rows.sum()) / sum(problem.open.shape)
    owed, held = problem.rows / unit, problem.columns / unit
    ones, at = np.ones(n_cells), np.arange(n_cells)
    by_row = csr_array((ones, (row, at)), shape=(len(owed), n_cells))
    by_column = csr_array((ones, (column, at)), shape=(len(held), n_cells))
    most = np.minimum(owed[row], held[column])
    amount_of = [csr_array(eye_array(n_cells) * 1.0), csr_array(eye_array(n_cells) * 1.0)]
    amount_of[1].data = -most
    none = csr_array((1, n_cells))
    constraints = [
        LinearConstraint(hstack([by_row, by_row * 0.0]), owed, owed),
        LinearConstraint(hstack([by_column, by_column * 0.0]), held, held),
        LinearConstraint(hstack(amount_of), -np.inf, 0.0),
        LinearConstraint(hstack([by_row * 0.0, by_row]), _least_partners(owed, held, problem.open), np.inf),
        LinearConstraint(hstack([by_column * 0.0, by_column]), _least_partners(held, owed, problem.open.T), np.inf),
    ]
    for cells in outside:
        here = csr_array(cells[row, column][None, :].astype(float))
        constraints.append(LinearConstraint(hstack([none, here]), 1.0, np.inf))
    solved = milp(
        np.concatenate([np.zeros(n_cells), ones]),
        integrality=np.concatenate([np.zeros(n_cells), ones]),
        bounds=Bounds(np.zeros(2 * n_cells), np.concatenate([most, ones])),
        constraints=constraints,
        options={"time_limit": time_limit, "mip_rel_gap": 0.0},
    )
    bound = solved.mip_dual_bound
    bound = int(np.ceil(bound - 1e-6)) if bound is not None and np.isfinite(bound) else 0
    if solved.x is None or bound >= links:
        return None, min(bound, links)
    support = np.zeros(problem.open.shape, dtype=bool)
    chosen = solved.x[n_cells:] > 0.5
    support[row[chosen], column[chosen]] = True
    return support, bound


def _least_partners(margin: Any, others: Any, opened: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Fewest open partners that can take a margin: the largest of them first."""
    ranked = -np.sort(-np.where(opened, others, 0.0), axis=1)
    short = np.cumsum(ranked, axis=1) < margin[:, None] * (1 - 1e-6)
    least: NDArray[np.float64] = np.minimum(short.sum(axis=1) + 1, opened.sum(axis=1)).astype(float)
    return least
