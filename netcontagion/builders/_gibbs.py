"""Matrices drawn from the posterior of Gandy and Veraart, given the margins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from netcontagion._compile import kernel
from netcontagion.builders._transport import check_plain, fill, transport
from netcontagion.errors import Problem, SchemaError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netcontagion.builders._margins import Margins
    from netcontagion.builders._transport import Transport

__all__ = ["State", "draw", "move"]

BURN_IN, THIN = 300, 30
"""Sweeps before the first draw and between draws; a sweep is as many moves as there are links."""


class State(NamedTuple):
    """The matrix and its links, as lists per row and per column.

    ``tiny`` orders amounts that are equal: the margins are read as the limit of margins that differ slightly,
    in which no two partial sums are equal. So a move takes exactly one link away where several amounts reach 0
    together.
    """

    amounts: NDArray[np.int64]
    tiny: NDArray[np.float64]
    odds: NDArray[np.float64]  # (1 - p) / (p rate), in quanta: weight of a missing link against a unit of amount
    open: NDArray[np.bool_]
    row_links: NDArray[np.int32]  # columns a row has links to
    row_place: NDArray[np.int32]  # place of a column among them, -1: no link
    row_degree: NDArray[np.int32]
    column_links: NDArray[np.int32]  # by column
    column_place: NDArray[np.int32]  # by column
    column_degree: NDArray[np.int32]
    walk: NDArray[np.int32]  # rows and columns of the cycle at hand
    seen: NDArray[np.int64]  # count of the walk that met a row or column last


def draw(
    margins: Margins,
    n: int,
    rng: np.random.Generator,
    *,
    link_probability: Any = None,
    rate: float | None = None,
    burn_in: int = BURN_IN,
    thin: int = THIN,
) -> list[Any]:
    """Draw ``n`` matrices."""
    margins, chance = _prior(margins, link_probability)
    check_plain(margins)
    problem = transport(margins)
    cells = int(problem.open.sum())
    if not cells:
        fill(problem)
        return [margins.known.copy() for _ in range(n)]
    chance = chance[np.ix_(*problem.places)]
    mean = margins.rows.sum() / chance[problem.open].sum()
    if rate is None:
        rate = 1 / mean
    if not (rate > 0 and np.isfinite(rate)):
        raise ValueError(f"rate={rate!r} must be positive: 1 / rate is the mean amount of a link, in money")
    if burn_in < 0 or thin < 1:
        raise ValueError(f"burn_in={burn_in!r} must be at least 0 and thin={thin!r} at least 1 (sweeps of the chain)")
    with np.errstate(divide="ignore"):
        odds = np.where(problem.open, (1 - chance) / (chance * (rate * problem.quantum)), 0.0)
    state = _start(problem, fill(problem), odds, rng)
    for _ in range(burn_in):
        move(state, rng, int(state.row_degree.sum()))
    moves, drawn = thin * int(state.row_degree.sum()), []
    for _ in range(n):
        move(state, rng, moves)
        drawn.append(problem.to_sparse(state.amounts))
    return drawn


def _prior(margins: Margins, link_probability: Any) -> tuple[Margins, NDArray[np.float64]]:
    """Probability of a link on every cell; where it is 0 the cell is shut."""
    from scipy.sparse import csr_array

    shape = margins.known.shape
    if link_probability is None:
        raise ValueError("method 'gibbs' needs link_probability=: the prior chance of a link, a number or a matrix")
    chance = np.array(link_probability, dtype=float)
    if chance.ndim == 0:
        if not 0 < chance <= 1:
            raise ValueError(f"link_probability={link_probability!r} must be in (0, 1]")
        return margins, np.full(shape, float(chance))
    if chance.shape != shape:
        allowed = f"a number, or a matrix of shape {shape}"
        raise SchemaError([Problem("link_probability", None, None, f"shape {chance.shape}", allowed, "one per cell")])
    wrong = np.argwhere(~((chance >= 0) & (chance <= 1)))
    if len(wrong):
        raise SchemaError(
            Problem("link_probability", str(j), int(i), float(chance[i, j]), "[0, 1]", "give a probability")
            for i, j in wrong.tolist()
        )
    return margins._replace(shut=margins.shut + csr_array(chance == 0)), chance


def _start(problem: Transport, amounts: Any, odds: Any, rng: np.random.Generator) -> State:
    """Start with the links of one matrix, and those that connect its parts: they hold nothing yet."""
    linked = (amounts > 0) | _connecting(problem.open, amounts)
    n_rows, n_columns = linked.shape
    lists: list[Any] = []
    for cells in (linked, linked.T):
        place = np.where(cells, np.cumsum(cells, axis=1) - 1, -1).astype(np.int32)
        lists += [np.argsort(~cells, axis=1, kind="stable").astype(np.int32), place, cells.sum(axis=1).astype(np.int32)]
    tiny = np.where(linked, rng.uniform(0.5, 1.5, linked.shape), 0.0)
    walk = np.zeros((2, min(n_rows, n_columns) + 1), dtype=np.int32)
    seen = np.zeros(n_rows + n_columns, dtype=np.int64)
    arrays: list[Any] = [amounts, tiny, odds, problem.open, *lists, walk, seen]
    return State(*(np.ascontiguousarray(array) for array in arrays))


def _connecting(opened: NDArray[np.bool_], amounts: NDArray[np.int64]) -> Any:
    """Cells of a spanning tree of the open cells that takes those with amounts first."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import minimum_spanning_tree

    n_rows, n_columns = opened.shape
    row, column = np.nonzero(opened)
    weight = np.where(amounts[row, column] > 0, 1.0, 2.0)
    size = n_rows + n_columns
    tree = minimum_spanning_tree(coo_array((weight, (row, column + n_rows)), shape=(size, size)).tocsr()).tocoo()
    cells = np.zeros(opened.shape, dtype=bool)
    cells[tree.row, tree.col - n_rows] = True
    return cells


# the chain --------------------------------------------------------------------------------------------------------


@kernel
def move(state: State, rng: np.random.Generator, moves: int) -> None:
    """Walk along links, close the walk to a cycle, and draw the amounts on the cycle anew; so many times."""
    amounts, tiny, odds, opened, walk, seen = state.amounts, state.tiny, state.odds, state.open, state.walk, state.seen
    row_links, row_place, row_degree = state.row_links, state.row_place, state.row_degree
    column_links, column_place, column_degree = state.column_links, state.column_place, state.column_degree
    rows, columns = walk[0], walk[1]
    stamp = seen.max()
    for count in range(moves):
        length = _walk(
            rows, columns, seen, stamp + count + 1, row_links, row_place, row_degree, column_links, column_place,
            column_degree, rng,
        )  # fmt: skip
        if not length or not opened[rows[0], columns[length - 1]]:
            continue
        first, last = rows[0], columns[length - 1]
        linked = row_place[first, last] >= 0
        if not linked:
            _link(row_links, row_place, row_degree, first, last)
            _link(column_links, column_place, column_degree, last, first)
        row, column = _redraw(rows, columns, length, linked, amounts, tiny, odds, row_degree, column_degree, rng)
        if row >= 0:
            amounts[row, column], tiny[row, column] = 0, 0.0
            _cut(row_links, row_place, row_degree, row, column)
            _cut(column_links, column_place, column_degree, column, row)


@kernel
def _walk(
    rows: Any, columns: Any, seen: Any, stamp: int, row_links: Any, row_place: Any, row_degree: Any, column_links: Any,
    column_place: Any, column_degree: Any, rng: np.random.Generator,
) -> int:  # fmt: skip
    """Walk row, column, row, ... along links without meeting a node twice; 0 where it cannot."""
    n_rows = len(row_degree)
    most = min(n_rows, len(column_degree))
    if most < 2:
        return 0
    length = int(min(1 / np.sqrt(1 - rng.random()), most)) + 1  # P(length >= m) = 1 / (m - 1)^2
    if length > most:
        length = 2
    row = int(rng.random() * n_rows)
    column = row_links[row, int(rng.random() * row_degree[row])]
    rows[0], columns[0] = row, column
    seen[row], seen[n_rows + column] = stamp, stamp
    for place in range(1, length):
        if column_degree[column] < 2:
            return 0
        pick = int(rng.random() * (column_degree[column] - 1))
        if pick >= column_place[column, row]:
            pick += 1
        row = column_links[column, pick]
        if seen[row] == stamp or row_degree[row] < 2:
            return 0
        pick = int(rng.random() * (row_degree[row] - 1))
        if pick >= row_place[row, column]:
            pick += 1
        column = row_links[row, pick]
        if seen[n_rows + column] == stamp:
            return 0
        rows[place], columns[place] = row, column
        seen[row], seen[n_rows + column] = stamp, stamp
    return length


@kernel
def _redraw(
    rows: Any, columns: Any, length: int, linked: bool, amounts: Any, tiny: Any, odds: Any, row_degree: Any,
    column_degree: Any, rng: np.random.Generator,
) -> tuple[int, int]:  # fmt: skip
    """Draw from the posterior along the cycle, weighted by how likely the walk finds it; return the link that is lost.

    Cells (row t, column t) gain what (row t + 1, column t) lose. Inside, every cell is a link and the density is flat;
    at either end the smallest cell is no link and weighs its odds. The walk finds a cycle of links by any of its cells
    being the one that closes it, with chance proportional to (1 - 1 / row degree) (column degree - 1) each; where one
    link is missing only by that cell, with chance proportional to column degree - 1. Degrees are those with all links.
    Without any weight (p = 1, no room) the cycle stays as it is.
    """
    ways, gap = 0.0, 0.0
    low_row, low_column, high_row, high_column = rows[0], columns[0], rows[0], columns[length - 1]
    for t in range(length):
        row, after, column = rows[t], rows[(t + 1) % length], columns[t]
        if _below(amounts, tiny, row, column, low_row, low_column):
            low_row, low_column = row, column
        if linked and _below(amounts, tiny, after, column, high_row, high_column):
            high_row, high_column = after, column
        ways += (2 - 1.0 / row_degree[row] - 1.0 / row_degree[after]) * (column_degree[column] - 1)
        gap += tiny[after, column] - tiny[row, column]
    least, most = -amounts[low_row, low_column], amounts[high_row, high_column]
    inside = float(most - least) * ways if most - least > 1 else 0.0
    at_low = odds[low_row, low_column] * (column_degree[low_column] - 1)
    at_high = odds[high_row, high_column] * (column_degree[high_column] - 1)
    draw = rng.random() * (inside + at_low + at_high)
    if draw < inside:  # all amounts are above 0 there: any shift of the tiny parts will do, this one keeps them small
        amount = least + 1 + int(rng.random() * (most - least - 1))
        _shift(rows, columns, length, amounts, tiny, amount, gap / (2 * length))
        return -1, -1
    if draw < inside + at_low:
        _shift(rows, columns, length, amounts, tiny, least, -tiny[low_row, low_column])
        return low_row, low_column
    if at_high > 0:
        _shift(rows, columns, length, amounts, tiny, most, tiny[high_row, high_column])
        return high_row, high_column
    return (-1, -1) if linked else (rows[0], columns[length - 1])


@kernel
def _below(amounts: Any, tiny: Any, row: int, column: int, other_row: int, other_column: int) -> bool:
    first, second = amounts[row, column], amounts[other_row, other_column]
    return bool(first < second or (first == second and tiny[row, column] < tiny[other_row, other_column]))


@kernel
def _shift(rows: Any, columns: Any, length: int, amounts: Any, tiny: Any, amount: int, part: float) -> None:
    for t in range(length):
        row, after, column = rows[t], rows[(t + 1) % length], columns[t]
        amounts[row, column] += amount
        tiny[row, column] += part
        amounts[after, column] -= amount
        tiny[after, column] -= part


@kernel
def _link(links: Any, place: Any, degree: Any, node: int, other: int) -> None:
    place[node, other] = degree[node]
    links[node, degree[node]] = other
    degree[node] += 1


@kernel
def _cut(links: Any, place: Any, degree: Any, node: int, other: int) -> None:
    """Take a link away; the last of the list takes its place."""
    degree[node] -= 1
    moved = links[node, degree[node]]
    links[node, place[node, other]] = moved
    place[node, moved] = place[node, other]
    place[node, other] = -1
