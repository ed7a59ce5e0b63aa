"""Compiled loops that push shortfalls from debtors to creditors.

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
    "MANY",
    "REFRESH",
    "SETTLED",
    "SPENT",
    "STOPPED",
    "push_scenarios",
]

REFRESH = 16
EPS = 2.220446049250313e-16
STRIP = 64  # nodes looked at together for some that lack something
FEW = 50  # a frontier of less than 1 / FEW of the nodes is visited by itself, else all nodes in turn
# bounds as near as asked for, or as rounding allows; edges, rounds used up; near, but maybe no value reaches somebody;
# not begun, as many fail at once
SETTLED, SPENT, STOPPED, DOUBTFUL, MANY = 0, 1, 2, 3, 4
NARROWINGS = 6
VISITS = 8  # a push takes of each edge of those who fail at once, if they are many: without a budget it is not begun


@kernel
def margin(income: Any, limits: Any, i: int) -> float:
    """Bound of what rounding adds to the slack of a node between two refreshes."""
    _, error, weight, _ = limits
    return float(error[i] * (abs(income[i]) + weight[i]))


@kernel
def open_slack(due: Any, income: Any, limits: Any, slack: Any, frontier: Any, queued: Any) -> tuple[int, int, int]:
    """Compute the slack of everybody when all pay in full, and list those who have none.

    Those who owe nothing have no end of it. Returns how many have none; how many owe and have no income; and the fewest
    debtors of one of the latter: where these are no fewer than the poor, value reaches everybody who owes.
    """
    left_over, error, _, debtors = limits
    count, poor, fewest = 0, 0, len(due)
    for start in range(0, len(due), STRIP):
        end = start + STRIP
        ready, left, errs, now = income[start:end], left_over[start:end], error[start:end], slack[start:end]
        lacking, without = 0, 0
        for i in range(len(now)):
            now[i] = ready[i] + left[i] - errs[i] * abs(ready[i])
            lacking += now[i] < 0.0
            without += ready[i] <= 0.0
        for i in range(start, start + len(now) if lacking > 0 else start):
            if slack[i] < 0.0:
                queued[i] = True
                frontier[count] = i
                count += 1
        for i in range(start, start + len(now) if without > 0 else start):
            if income[i] <= 0.0 and due[i] > 0.0:
                poor += 1
                fewest = min(fewest, debtors[i])
    return count, poor, fewest


@kernel
def change_slack(
    due: Any, income: Any, limits: Any, changed: Any, amounts: Any, base: Any, slack: Any, frontier: Any, queued: Any,
    poor: int, fewest: int,
) -> tuple[int, int, int]:  # fmt: skip
    """Give some nodes another income, and list who has no slack: of them, and of ``base``, who had none before."""
    left_over, error, _, debtors = limits
    count = 0
    for place in range(len(changed)):
        i = changed[place]
        income[i] = amounts[place]
        slack[i] = income[i] + left_over[i] - error[i] * abs(income[i])
        if income[i] <= 0.0 and due[i] > 0.0:
            poor += 1
            fewest = min(fewest, debtors[i])
        if slack[i] < 0.0:
            queued[i] = True
            frontier[count] = i
            count += 1
    for i in base:
        if slack[i] < 0.0 and not queued[i]:
            queued[i] = True
            frontier[count] = i
            count += 1
    return count, poor, fewest


@kernel
def slack_of(
    indptr: Any, indices: Any, data: Any, due: Any, income: Any, limits: Any, short: Any, slack: Any,
    frontier: Any, queued: Any,
) -> int:  # fmt: skip
    """Compute the slack of everybody anew, and list those who may have to pay less."""
    open_slack(due, income, limits, slack, frontier, queued)
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
def less_to_pay(due: Any, income: Any, limits: Any, short: Any, slack: Any, tol: float, must: bool, i: int) -> float:
    """Return how much less a node pays now: what it must, where that is more than ``tol`` x dues, or a trifle more.

    With ``must`` only what every solution lacks; else enough to leave a slack of ``tol`` x dues.
    """
    room = due[i] - short[i]
    if slack[i] >= 0.0 or room <= 0.0:
        return 0.0
    if not must:
        return float(min(tol * due[i] - slack[i], room))
    less = -slack[i] - 2.0 * margin(income, limits, i)
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
def sweep(
    indptr: Any, indices: Any, data: Any, due: Any, income: Any, limits: Any, short: Any, slack: Any, frontier: Any,
    queued: Any, tol: float, must: bool, rounds: int, budget: float,
) -> tuple[int, float, int]:  # fmt: skip
    """Visit all nodes in turn until nobody who owes inside has to pay less.

    Returns rounds, edges visited, and how many of them in the last round.
    """
    taken, edges, count = 0, 0.0, 1
    while count > 0 and taken < rounds and edges <= budget:
        taken, count = taken + 1, 0
        for i in range(len(due)):
            less = less_to_pay(due, income, limits, short, slack, tol, must, i)
            if less > 0.0:
                short[i] = due[i] if less >= due[i] - short[i] else short[i] + less
                spread(indptr, indices, data, due, slack, i, less)
                count += indptr[i + 1] - indptr[i]
        edges += count
        if taken % REFRESH == 0 and count > 0:
            slack_of(indptr, indices, data, due, income, limits, short, slack, frontier, queued)
            queued[:] = False
    return taken, edges, count


@kernel
def push(
    indptr: Any, indices: Any, data: Any, due: Any, income: Any, limits: Any, short: Any, slack: Any,
    frontier: Any, queued: Any, count: int, many: bool, waiting: Any, waits: int, tol: float, must: bool, rounds: int,
    budget: float,
) -> tuple[int, float, int, int, bool]:  # fmt: skip
    """Push shortfalls until nobody has to pay less.

    ``frontier`` lists those to visit while they are few; once they are ``many``, all nodes are swept. ``waiting`` lists
    those visited that need not pay less, or paid less already. Returns rounds, edges visited, how many are still to
    visit, how many wait, and whether ``waiting`` is no longer complete.
    """
    size, taken, edges, swept = len(due), 0, 0.0, False
    while not many and 0 < FEW * count <= size and taken < rounds and edges <= budget:
        taken += 1
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
            less = less_to_pay(due, income, limits, short, slack, tol, must, i)
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
        if taken % REFRESH == 0:
            swept = True
            count = slack_of(indptr, indices, data, due, income, limits, short, slack, frontier, queued)
    for place in range(count):
        queued[frontier[place]] = False
    if (many or FEW * count > size) and taken < rounds and edges <= budget:
        swept = True
        more, visited, count = sweep(
            indptr, indices, data, due, income, limits, short, slack, frontier, queued, tol, must, rounds - taken,
            budget - edges,
        )  # fmt: skip
        taken, edges = taken + more, edges + visited
    return taken, edges, count, waits, swept


@kernel
def count_edges(indptr: Any, nodes: Any, count: int) -> int:
    """Count what the first ``count`` nodes of a list owe."""
    edges = 0
    for place in range(count):
        edges += indptr[nodes[place] + 1] - indptr[nodes[place]]
    return edges


@kernel
def bracket(
    indptr: Any, indices: Any, data: Any, due: Any, income: Any, limits: Any,
    low: Any, near: Any, high: Any, slack: Any, frontier: Any, queued: Any, waiting: Any,
    count: int, many: bool, rtol: float, max_rounds: int, budget: float,
) -> tuple[int, int, float, int]:  # fmt: skip
    """Enclose the least shortfalls: ``low`` starts at 0 and stays below them, ``high`` ends above them.

    ``low`` grows only by what every solution lacks; ``near`` is one step nearer, without the margins of ``low``.
    ``high`` goes on until everybody can pay what it says, rounding included: then it is a lower bound of payments that
    clear. ``slack`` is that of full payment, ``frontier`` lists the ``count`` nodes that have none. Returns how it
    ended, rounds, the width, and how many of ``waiting`` are all that was touched (-1: perhaps everybody).
    """
    size, tol, rounds, before, width, touched = len(due), rtol / 8.0, 0, np.inf, np.inf, 0
    for narrowing in range(NARROWINGS):
        taken, edges, count, waits, swept = push(
            indptr, indices, data, due, income, limits, low, slack, frontier, queued, count, many, waiting, 0,
            tol, True, max_rounds - rounds, budget,
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
                lack = -slack[i] - margin(income, limits, i)
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
            indptr, indices, data, due, income, limits, high, slack, frontier, queued, count, many, waiting,
            waits, tol, False, max(max_rounds - rounds, REFRESH), budget,
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
        count = slack_of(indptr, indices, data, due, income, limits, low, slack, frontier, queued)
    return SETTLED, rounds, width, touched


@kernel
def push_scenarios(
    indptr: Any, indices: Any, data: Any, due: Any, incomes: Any, begins: Any, changed: Any, amounts: Any, limits: Any,
    rtol: float, max_rounds: int, budget: float, chosen: Any, defer: bool, codes: Any, rounds: Any, widths: Any,
    work: Any, lists: Any, queued: Any,
) -> tuple[Any, Any, Any]:  # fmt: skip
    """Enclose the shortfalls of the ``chosen`` scenarios; return those that may be above 0.

    Scenarios are rows of ``incomes``, or changes of the only row, which begin where ``begins`` says. Returns, scenario
    after scenario, nodes and their shortfalls (3, ...: lower bound, nearest, upper bound), and where each scenario
    begins. What a scenario that did not settle returns is a lower bound in all three. Where so many fail at once that
    ``budget`` will not do, nothing is tried; with ``defer`` neither where many do: their number stands for the rounds.
    ``work`` (4, n) is 0 but for the first row, ``queued`` false, and so they end.
    """
    size, together, filled = len(due), len(begins) > 0, 0
    nodes, shorts, ends = np.empty(1024, np.int32), np.empty((3, 1024)), np.zeros(len(chosen) + 1, np.int64)
    slack, low, near, high = work[0], work[1], work[2], work[3]
    frontier, waiting = lists[0], lists[1]
    income = incomes[0].copy() if together else incomes[chosen[0]]
    count, poor, fewest = open_slack(due, income, limits, slack, frontier, queued)
    opening, base = slack[: size if together else 0].copy(), frontier[:count].copy()
    for turn in range(len(chosen)):
        scenario = chosen[turn]
        first, last = (begins[scenario], begins[scenario + 1]) if together else (0, 0)
        if together:
            for i in base:
                queued[i] = False
            count, without, least = change_slack(
                due, income, limits, changed[first:last], amounts[first:last], base, slack, frontier, queued, poor,
                fewest,
            )  # fmt: skip
        else:
            if turn > 0:
                income = incomes[scenario]
                count, poor, fewest = open_slack(due, income, limits, slack, frontier, queued)
            without, least = poor, fewest
        many, touched = FEW * count > size, 0
        hopeless = many and count_edges(indptr, frontier, count) > budget / VISITS
        if hopeless or (many and defer):
            code, rounds[scenario], widths[scenario] = (SPENT, 0, np.inf) if hopeless else (MANY, count, np.inf)
            for place in range(count):
                queued[frontier[place]] = False
        else:
            code, rounds[scenario], widths[scenario], touched = bracket(
                indptr, indices, data, due, income, limits, low, near, high, slack, frontier, queued, waiting, count,
                many, rtol, max_rounds, budget,
            )  # fmt: skip
        codes[scenario] = DOUBTFUL if code == SETTLED and least < without else code
        visited = np.arange(size) if touched < 0 else np.sort(waiting[:touched])
        if filled + len(visited) > len(nodes):
            room = 2 * (filled + len(visited))
            nodes = np.append(nodes[:filled], np.empty(room - filled, np.int32))
            shorts = np.append(shorts[:, :filled], np.empty((3, room - filled)), axis=1)
        for i in visited:
            if high[i] > 0.0 or near[i] > 0.0 or low[i] > 0.0:
                nodes[filled], shorts[0, filled] = i, low[i]
                shorts[1, filled], shorts[2, filled] = (near[i], high[i]) if code == SETTLED else (low[i], low[i])
                filled += 1
                if together and touched >= 0:
                    restore(indptr, indices, slack, opening, int(i))
            low[i], near[i], high[i], queued[i] = 0.0, 0.0, 0.0, False
        ends[turn + 1] = filled
        if together:
            if touched < 0:
                slack[:] = opening
            for place in range(first, last):
                i = changed[place]
                income[i], slack[i] = incomes[0, i], opening[i]
    for i in base:
        queued[i] = False
    return nodes[:filled].copy(), shorts[:, :filled].copy(), ends


@kernel
def restore(indptr: Any, indices: Any, slack: Any, opening: Any, i: int) -> None:
    """Give a node and its creditors the slack that they had before."""
    slack[i] = opening[i]
    for edge in range(np.uintp(indptr[i]), np.uintp(indptr[i + 1])):
        k = np.uintp(indices[edge])
        slack[k] = opening[k]
