"""Compiled loops of the clearing solvers: pushing shortfalls from debtors to creditors, and one product.

In a push ``short`` is what a node does not pay of its dues, ``slack`` what it could lose before it has to pay less,
less a margin. Every float operation errs by a part of ``|income| + full receipts + dues`` of its node; the margin
bounds the sum of these errors over the ``REFRESH`` rounds after which slacks are computed anew. So slack < 0 says that
a node may have to pay less, and slack + 2 margins < 0 that it must.

Numbers of nodes and edges are unsigned in the inner loops: a signed index is checked for counting from the end.

Work and memory that is touched follow the nodes that pay less, but for one pass over all nodes to begin with.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from netcontagion._compile import kernel

__all__ = [
    "DOUBTFUL",
    "REFRESH",
    "SETTLED",
    "SPENT",
    "STOPPED",
    "combine",
    "gather",
    "image_of",
    "push_scenarios",
    "turn",
]

REFRESH = 16
EPS = 2.220446049250313e-16
FEW = 50  # a frontier of less than 1 / FEW of the nodes is visited by itself, else all nodes in turn
# bounds as near as asked for, or as rounding allows; edges, rounds used up; near, but maybe no value reaches somebody
SETTLED, SPENT, STOPPED, DOUBTFUL = 0, 1, 2, 3
NARROWINGS = 6


@kernel
def margin(income: Any, full: Any, due: Any, degrees: Any, i: int) -> float:
    """Bound of what rounding adds to the slack of a node between two refreshes."""
    return float((17.0 * (degrees[0, i] + degrees[1, i] + 1.0) + 8.0) * EPS * (abs(income[i]) + full[i] + due[i]))


@kernel
def open_slack(
    due: Any, income: Any, full: Any, degrees: Any, slack: Any, frontier: Any, queued: Any
) -> tuple[int, bool]:  # fmt: skip
    """Compute the slack of everybody when all pay in full, and list those who have none.

    Those who owe nothing have no end of it. Tells too whether value reaches everybody who owes, for certain: whoever
    has no income has more debtors than there are others without income.
    """
    count, poor, fewest = 0, 0, len(due)
    for i in range(len(due)):
        left = np.inf
        if due[i] > 0.0:
            left = income[i] + full[i] - due[i] - margin(income, full, due, degrees, i)
            if income[i] <= 0.0:
                poor += 1
                fewest = min(fewest, degrees[0, i])
        slack[i] = left
        if left < 0.0:
            queued[i] = True
            frontier[count] = i
            count += 1
    return count, fewest >= poor


@kernel
def slack_of(
    indptr: Any, indices: Any, data: Any, due: Any, income: Any, full: Any, degrees: Any, short: Any, slack: Any,
    frontier: Any, queued: Any,
) -> int:  # fmt: skip
    """Compute the slack of everybody anew, and list those who may have to pay less."""
    open_slack(due, income, full, degrees, slack, frontier, queued)
    for i in range(len(due)):
        if short[i] > 0.0:
            spread(indptr, indices, data, due, slack, i, short[i])
    return find_frontier(due, short, slack, frontier, queued)


@kernel
def spread(indptr: Any, indices: Any, data: Any, due: Any, slack: Any, i: int, less: float) -> None:
    """Let node ``i`` pay less: it has more left, its creditors have less."""
    slack[i] += less
    part = less / due[i]
    for edge in range(np.uintp(indptr[i]), np.uintp(indptr[i + 1])):
        slack[np.uintp(indices[edge])] -= data[edge] * part


@kernel
def less_to_pay(
    due: Any, income: Any, full: Any, degrees: Any, short: Any, slack: Any, tol: float, must: bool, i: int
) -> float:
    """Return how much less a node pays now: what it must, where that is more than ``tol`` x dues, or a trifle more.

    With ``must`` only what every solution lacks; else enough to leave a slack of ``tol`` x dues.
    """
    room = due[i] - short[i]
    if slack[i] >= 0.0 or room <= 0.0:
        return 0.0
    if not must:
        return float(min(tol * due[i] - slack[i], room))
    less = -slack[i] - 2.0 * margin(income, full, due, degrees, i)
    return float(min(less, room)) if less > tol * due[i] else 0.0


@kernel
def find_frontier(due: Any, short: Any, slack: Any, frontier: Any, queued: Any) -> int:
    """List who may have to pay less."""
    count = 0
    for i in range(len(due)):
        queued[i] = slack[i] < 0.0 and short[i] < due[i]
        if queued[i]:
            frontier[count] = i
            count += 1
    return count


@kernel
def push(
    indptr: Any, indices: Any, data: Any, due: Any, income: Any, full: Any, degrees: Any, short: Any, slack: Any,
    frontier: Any, queued: Any, count: int, waiting: Any, waits: int, tol: float, must: bool, rounds: int,
    budget: float,
) -> tuple[int, float, int, int, bool]:  # fmt: skip
    """Push shortfalls until nobody has to pay less.

    ``frontier`` lists those to visit, ``waiting`` those visited that need not pay less, or paid less already. Returns
    rounds, edges visited, how many are still to visit, how many wait, and whether ``waiting`` is no longer complete.
    """
    size, taken, edges, swept = len(due), 0, 0.0, False
    while count > 0 and taken < rounds and edges <= budget:
        taken += 1
        if FEW * count <= size:
            visit = np.sort(frontier[:count])
            for i in visit:
                queued[i] = False
            count = 0
            for i in visit:
                if waits < len(waiting):
                    waiting[waits] = i
                    waits += 1
                else:
                    swept = True
                less = less_to_pay(due, income, full, degrees, short, slack, tol, must, i)
                if less > 0.0:
                    short[i] = due[i] if less >= due[i] - short[i] else short[i] + less
                    slack[i] += less
                    part = less / due[i]
                    edges += indptr[i + 1] - indptr[i]
                    for edge in range(np.uintp(indptr[i]), np.uintp(indptr[i + 1])):
                        k = np.uintp(indices[edge])
                        left = slack[k] - data[edge] * part
                        slack[k] = left
                        if left < 0.0 and not queued[k]:
                            queued[k] = True
                            frontier[count] = k
                            count += 1
        else:
            swept = True
            for i in range(size):
                less = less_to_pay(due, income, full, degrees, short, slack, tol, must, i)
                if less > 0.0:
                    short[i] = due[i] if less >= due[i] - short[i] else short[i] + less
                    spread(indptr, indices, data, due, slack, i, less)
                    edges += indptr[i + 1] - indptr[i]
            count = 0
            for i in range(size):
                queued[i] = less_to_pay(due, income, full, degrees, short, slack, tol, must, i) > 0.0
                if queued[i]:
                    frontier[count] = i
                    count += 1
        if taken % REFRESH == 0:
            swept = True
            count = slack_of(indptr, indices, data, due, income, full, degrees, short, slack, frontier, queued)
    for place in range(count):
        queued[frontier[place]] = False
    return taken, edges, count, waits, swept


@kernel
def bracket(
    indptr: Any, indices: Any, data: Any, due: Any, income: Any, full: Any, degrees: Any,
    low: Any, near: Any, high: Any, slack: Any, frontier: Any, queued: Any, waiting: Any,
    rtol: float, max_rounds: int, budget: float,
) -> tuple[int, int, float, int]:  # fmt: skip
    """Enclose the least shortfalls: ``low`` starts at 0 and stays below them, ``high`` ends above them.

    ``low`` grows only by what every solution lacks; ``near`` is one step nearer, without the margins of ``low``.
    ``high`` goes on until everybody can pay what it says, rounding included: then it is a lower bound of payments that
    clear. Returns how it ended, rounds, the width, and how many of ``waiting`` are all that was touched (-1: perhaps
    everybody).
    """
    size, tol, rounds, before, width, touched = len(due), rtol / 8.0, 0, np.inf, np.inf, 0
    count, alive = open_slack(due, income, full, degrees, slack, frontier, queued)
    for narrowing in range(NARROWINGS):
        taken, edges, count, waits, swept = push(
            indptr, indices, data, due, income, full, degrees, low, slack, frontier, queued, count, waiting, 0, tol,
            True, max_rounds - rounds, budget,
        )  # fmt: skip
        rounds += taken
        budget -= edges
        touched = -1 if swept or narrowing > 0 or touched < 0 else waits
        if count > 0:
            return (STOPPED if rounds >= max_rounds else SPENT), rounds, np.inf, touched
        for place in range(size if touched < 0 else touched):
            i = place if touched < 0 else waiting[place]
            near[i] = high[i] = low[i]
            if slack[i] < 0.0:
                lack = -slack[i] - margin(income, full, due, degrees, i)
                near[i] = min(low[i] + max(lack, 0.0), due[i])
        count = 0
        if touched < 0:
            count = find_frontier(due, high, slack, frontier, queued)
        else:
            for place in range(touched):
                i = waiting[place]
                if slack[i] < 0.0 and high[i] < due[i] and not queued[i]:
                    queued[i] = True
                    frontier[count] = i
                    count += 1
        taken, edges, count, waits, swept = push(
            indptr, indices, data, due, income, full, degrees, high, slack, frontier, queued, count, waiting, waits,
            tol, False, max(max_rounds - rounds, REFRESH), budget,
        )  # fmt: skip
        rounds += taken
        budget -= edges
        touched = -1 if swept or touched < 0 else waits
        if count > 0:
            return (STOPPED if rounds >= max_rounds else SPENT), rounds, np.inf, touched
        width = 0.0
        for place in range(size if touched < 0 else touched):
            i = place if touched < 0 else waiting[place]
            if high[i] > 0.0:
                width = max(width, (high[i] - low[i]) / due[i])
        if width <= rtol or width > 0.5 * before:
            break
        tol, before = max(tol * 0.5 * rtol / width, EPS), width
        count = slack_of(indptr, indices, data, due, income, full, degrees, low, slack, frontier, queued)
    return (SETTLED if alive else DOUBTFUL), rounds, width, touched


@kernel
def turn(table: Any, out: Any, first: int) -> None:
    """Copy columns of a table, from ``first`` on, into the rows of another, a tile at a time."""
    tile = 64
    for top in range(0, table.shape[0], tile):
        for column in range(len(out)):
            for row in range(top, min(top + tile, table.shape[0])):
                out[column, row] = table[row, first + column]


@kernel
def push_scenarios(
    indptr: Any, indices: Any, data: Any, due: Any, incomes: Any, full: Any, degrees: Any, rtol: float, max_rounds: int,
    budget: float, codes: Any, rounds: Any, widths: Any, work: Any, lists: Any, queued: Any,
) -> tuple[Any, Any, Any]:  # fmt: skip
    """Enclose the shortfalls of scenarios, rows of ``incomes``; return those that may be above 0.

    Returns, scenario after scenario, nodes and their shortfalls (lower bound, nearest, upper bound), and where each
    scenario begins. What a scenario that did not settle returns is a lower bound in all three. ``work`` (4, n) is 0 but
    for the first row, ``queued`` false, and so they end.
    """
    size, scenarios = len(due), len(incomes)
    nodes, shorts, begins = np.empty(1024, np.int32), np.empty((1024, 3)), np.zeros(scenarios + 1, np.int64)
    slack, low, near, high = work[0], work[1], work[2], work[3]
    frontier, waiting = lists[0], lists[1]
    filled = 0
    for scenario in range(scenarios):
        codes[scenario], rounds[scenario], widths[scenario], touched = bracket(
            indptr, indices, data, due, incomes[scenario], full, degrees, low, near, high, slack, frontier, queued,
            waiting, rtol, max_rounds, budget,
        )  # fmt: skip
        visited = np.arange(size) if touched < 0 else np.sort(waiting[:touched])
        if filled + len(visited) > len(nodes):
            room = 2 * (filled + len(visited))
            nodes = np.append(nodes[:filled], np.empty(room - filled, np.int32))
            shorts = np.append(shorts[:filled], np.empty((room - filled, 3)), axis=0)
        settled = codes[scenario] == SETTLED or codes[scenario] == DOUBTFUL
        for i in visited:
            if high[i] > 0.0 or near[i] > 0.0 or low[i] > 0.0:
                nodes[filled], shorts[filled, 0] = i, low[i]
                shorts[filled, 1], shorts[filled, 2] = (near[i], high[i]) if settled else (low[i], low[i])
                filled += 1
            low[i], near[i], high[i], queued[i] = 0.0, 0.0, 0.0, False
        begins[scenario + 1] = filled
    return nodes[:filled].copy(), shorts[:filled].copy(), begins


@kernel
def gather(indptr: Any, indices: Any, data: Any, vector: Any, out: Any, first: int, last: int) -> None:
    """Multiply rows ``first`` to ``last`` of a matrix by a vector."""
    for row in range(first, last):
        total = 0.0
        for entry in range(np.uintp(indptr[row]), np.uintp(indptr[row + 1])):
            total += data[entry] * vector[np.uintp(indices[entry])]
        out[row] = total


@kernel
def image_of(
    indptr: Any, indices: Any, data: Any, income: Any, ceiling: Any, scale: Any, vector: Any, share: Any, image: Any,
    gap: Any, images: Any, gaps: Any, unit: float, slot: int, used: int, sums: Any, first: int, last: int,
) -> None:  # fmt: skip
    """Compute Phi of a vector for some nodes, how it and its gap changed, and what a mixture needs to know of that.

    ``image`` and ``gap`` hold those of the last vector and are replaced; their changes go to row ``slot`` of ``images``
    and ``gaps`` (none where it is negative), gaps in ``unit``. ``sums`` adds up products of the changed gaps with row
    ``slot``, then with the gap, and ends with the largest gap relative to ``scale``.
    """
    largest = 0.0
    sums[:] = 0.0
    for i in range(first, last):
        total = income[i]
        for entry in range(np.uintp(indptr[i]), np.uintp(indptr[i + 1])):
            total += data[entry] * share[np.uintp(indices[entry])]
        new = min(max(total, 0.0), ceiling[i])
        away = new - vector[i]
        largest = max(largest, abs(away) / scale[i])
        if slot >= 0:
            images[slot, i] = new - image[i]
            gaps[slot, i] = (away - gap[i]) / unit
        image[i], gap[i] = new, away
    for row in range(used):
        product, with_gap = 0.0, 0.0
        for i in range(first, last):
            product += gaps[row, i] * gaps[slot, i]
            with_gap += gaps[row, i] * (gap[i] / unit)
        sums[row], sums[used + row] = product, with_gap
    sums[2 * used] = largest


@kernel
def combine(
    image: Any, images: Any, weights: Any, ceiling: Any, due: Any, vector: Any, share: Any, first: int, last: int
) -> None:
    """Mix images into the next vector, cut to what is due, and divide it by the dues."""
    for i in range(first, last):
        vector[i] = image[i]
    for row in range(len(weights)):
        weight = weights[row]
        for i in range(first, last):
            vector[i] -= weight * images[row, i]
    for i in range(first, last):
        vector[i] = min(max(vector[i], 0.0), ceiling[i])
        share[i] = vector[i] / due[i] if due[i] > 0.0 else 0.0
