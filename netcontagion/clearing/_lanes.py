"""Compiled loops that push the shortfalls of several scenarios side by side.

The lanes of a node stand next to each other, so that a claim is read, and its creditor fetched, once for all of them. A
lane does what :func:`._kernels.bracket` does where many fail at once, operation for operation. It tries once; bounds
that are not near enough are left to that.

Only those are visited who fail in the worst of the scenarios (payments are monotone in what nodes have), and only what
they owe each other. So what comes out does not depend on the scenarios beside it, but for a node so near to failing
that what others pay less in the upper bound decides: there that bound may, and still bounds. The loops over lanes are
short and plain, for a compiler to do several lanes in one instruction.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from netcontagion._compile import kernel
from netcontagion.clearing._kernels import DOUBTFUL, REFRESH, SETTLED, SPENT, STOPPED, margin, open_slack, sweep

__all__ = ["LANES", "TRIFLE", "lane_space", "push_lanes"]

LANES = 16
"""Most scenarios pushed side by side: their numbers fill two lines of the cache."""
LINE = 64  # bytes of it
TABLES = 5
TRIFLE = 2.0**-8  # of the dues: what whoever fails in the worst scenario pays less than it must
PATIENCE = 40  # rounds until nobody is left out


def lane_space(size: int) -> Any:
    """Allocate what lanes work on, from where a line of the cache begins."""
    room = np.empty(TABLES * size * LANES + LINE // 8)
    return room[-room.ctypes.data % LINE // 8 :]


@kernel
def open_lanes(limits: Any, income: Any, going: Any, slack: Any) -> None:
    """Compute the slack of everybody when all pay in full, in the lanes that are going."""
    left_over, error, _, _ = limits
    for i in range(len(slack)):
        for lane in range(len(going)):
            ready = income[i, lane]
            now = ready + left_over[i] - error[i] * abs(ready)
            slack[i, lane] = now if going[lane] else slack[i, lane]


@kernel
def spread_lanes(indptr: Any, indices: Any, data: Any, slack: Any, i: int, part: Any) -> None:
    """Let the creditors of node ``i`` have less: in every lane a part of what they are owed."""
    lanes = slack.shape[1]
    for edge in range(np.uintp(indptr[i]), np.uintp(indptr[i + 1])):
        k, owed = np.uintp(indices[edge]), data[edge]
        for lane in range(lanes):
            slack[k, lane] -= owed * part[lane]


@kernel
def sweep_lanes(
    indptr: Any, indices: Any, data: Any, due: Any, claims: Any, limits: Any, income: Any, slack: Any, short: Any,
    tol: float, must: bool, going: Any, edges: Any, less: Any, part: Any,
) -> None:  # fmt: skip
    """Visit all nodes in turn, and add up the claims visited by lane.

    How much less is that of :func:`._kernels.less_to_pay`.
    """
    _, error, weight, _ = limits
    lanes = len(going)
    for i in range(len(due)):
        some = 0
        for lane in range(lanes):
            some += slack[i, lane] < 0.0
        if some == 0:
            continue
        owes, trifle = due[i], tol * due[i]
        twice, heavy = 2.0 * error[i], weight[i]
        if must:
            for lane in range(lanes):
                lack, room = -slack[i, lane] - twice * (abs(income[i, lane]) + heavy), owes - short[i, lane]
                less[lane] = (lack if lack < room else room) if (lack > trifle) & going[lane] else 0.0
        else:
            for lane in range(lanes):
                lack, room = trifle - slack[i, lane], owes - short[i, lane]
                less[lane] = (lack if lack < room else room) if (slack[i, lane] < 0.0) & going[lane] else 0.0
        some = 0
        for lane in range(lanes):
            some += less[lane] > 0.0
        if some > 0:
            for lane in range(lanes):
                slack[i, lane] += less[lane]
                part[lane] = less[lane] / owes
                short[i, lane] = owes if less[lane] >= owes - short[i, lane] else short[i, lane] + less[lane]
            visited = claims[i]
            for lane in range(lanes):
                edges[lane] += visited if less[lane] > 0.0 else 0.0
            spread_lanes(indptr, indices, data, slack, i, part)


@kernel
def settle_lanes(
    indptr: Any, indices: Any, data: Any, due: Any, claims: Any, limits: Any, income: Any, slack: Any, short: Any,
    tol: float, must: bool, going: Any, rounds: Any, most: Any, edges: Any, budget: float,
) -> None:  # fmt: skip
    """Push in the lanes that are ``going`` until nobody has to pay less; those that did not get there stay marked."""
    lanes, taken, left = len(going), 0, going.copy()
    before, less, part = np.empty(lanes), np.empty(lanes), np.empty(lanes)
    while left.any():
        taken += 1
        before[:] = edges
        sweep_lanes(
            indptr, indices, data, due, claims, limits, income, slack, short, tol, must, left, edges, less, part
        )
        for lane in range(lanes):
            if left[lane]:
                rounds[lane] += 1
                going[lane] = edges[lane] > before[lane]
                left[lane] = going[lane] and rounds[lane] < most[lane] and edges[lane] <= budget
        if taken % REFRESH == 0 and left.any():
            open_lanes(limits, income, left, slack)
            for i in range(len(due)):
                some = 0
                for lane in range(lanes):
                    less[lane] = short[i, lane] if left[lane] else 0.0
                for lane in range(lanes):
                    some += less[lane] > 0.0
                if some > 0:
                    for lane in range(lanes):
                        slack[i, lane] += less[lane]
                        part[lane] = less[lane] / due[i]
                    spread_lanes(indptr, indices, data, slack, i, part)


@kernel
def may_fail(indptr: Any, indices: Any, data: Any, due: Any, incomes: Any, limits: Any) -> Any:
    """List who fails when every node has the least of its incomes: nobody else lacks anything in any scenario.

    Whoever fails there pays a trifle too little: so shortfalls are upper bounds, soon. Two margins are between the
    slacks of two runs, by rounding.
    """
    size = len(due)
    least, most = incomes[0].copy(), incomes[0].copy()
    for lane in range(1, len(incomes)):
        for i in range(size):
            least[i], most[i] = min(least[i], incomes[lane, i]), max(most[i], incomes[lane, i])
    short, slack, frontier, queued = np.zeros(size), np.empty(size), np.empty(size, np.int64), np.zeros(size, np.bool_)
    open_slack(due, least, limits, slack, frontier, queued)
    _, _, count = sweep(
        indptr, indices, data, due, least, limits, short, slack, frontier, queued, TRIFLE, False, PATIENCE, np.inf
    )
    found = 0
    for i in range(size):
        if count > 0 or short[i] > 0.0 or slack[i] < 2.0 * margin(most, limits, i):
            frontier[found] = i
            found += 1
    return frontier[:found]


@kernel
def among(indptr: Any, indices: Any, data: Any, nodes: Any) -> tuple[Any, Any, Any]:
    """Return what some nodes owe each other: CSR arrays of places among them."""
    place = np.full(len(indptr) - 1, -1, np.int32)
    for k in range(len(nodes)):
        place[nodes[k]] = k
    starts, count = np.zeros(len(nodes) + 1, np.int64), 0
    for k in range(len(nodes)):
        count += indptr[nodes[k] + 1] - indptr[nodes[k]]
    creditors, amounts, count = np.empty(count, np.int32), np.empty(count), 0
    for k in range(len(nodes)):
        for edge in range(indptr[nodes[k]], indptr[nodes[k] + 1]):
            if place[indices[edge]] >= 0:
                creditors[count], amounts[count] = place[indices[edge]], data[edge]
                count += 1
        starts[k + 1] = count
    return starts, creditors, amounts


@kernel
def value_may_miss(due: Any, incomes: Any, debtors: Any) -> Any:
    """Mark the scenarios in which maybe no value reaches somebody, as :func:`._kernels.open_slack` tells."""
    doubtful = np.zeros(len(incomes), np.bool_)
    for lane in range(len(incomes)):
        poor, fewest = 0, len(due)
        for i in range(len(due)):
            if incomes[lane, i] <= 0.0 and due[i] > 0.0:
                poor += 1
                fewest = min(fewest, debtors[i])
        doubtful[lane] = fewest < poor
    return doubtful


@kernel
def widths_of(due: Any, low: Any, high: Any) -> tuple[Any, Any]:
    """Measure how far bounds are apart, relative to the dues, and count who may lack something, by lane."""
    widths, counts = np.zeros(low.shape[1]), np.zeros(low.shape[1], np.int64)
    for i in range(len(due)):
        for lane in range(len(widths)):
            if high[i, lane] > 0.0:
                widths[lane] = max(widths[lane], (high[i, lane] - low[i, lane]) / due[i])
                counts[lane] += 1
    return widths, counts


@kernel
def listed(chosen: Any, low: Any, near: Any, high: Any, failed: Any, counts: Any) -> tuple[Any, Any, Any]:
    """List nodes and shortfalls lane after lane, and where each begins; of lanes that failed the lower bounds only."""
    ends = np.zeros(len(counts) + 1, np.int64)
    ends[1:] = np.cumsum(counts)
    nodes, shorts, at = np.empty(ends[-1], np.int32), np.empty((3, ends[-1])), ends[:-1].copy()
    for i in range(len(chosen)):
        for lane in range(len(counts)):
            if high[i, lane] > 0.0 and counts[lane] > 0:
                place, least = at[lane], low[i, lane]
                nodes[place], shorts[0, place] = chosen[i], least
                shorts[1, place] = least if failed[lane] else near[i, lane]
                shorts[2, place] = least if failed[lane] else high[i, lane]
                at[lane] = place + 1
    return nodes, shorts, ends


@kernel
def push_lanes(
    indptr: Any, indices: Any, data: Any, due: Any, incomes: Any, limits: Any, rtol: float, max_rounds: int,
    budget: float, codes: Any, rounds: Any, widths: Any, work: Any,
) -> tuple[Any, Any, Any]:  # fmt: skip
    """Enclose the shortfalls of at most ``LANES`` scenarios, the rows of ``incomes``; return those that may be above 0.

    Takes and returns what :func:`._kernels.push_scenarios` does. Bounds wider than ``rtol`` leave the code as it was,
    and return nothing.
    """
    chosen = may_fail(indptr, indices, data, due, incomes, limits)
    graph, claims = among(indptr, indices, data, chosen), indptr[chosen + 1] - indptr[chosen]
    lanes, size, owed, tol = len(incomes), len(chosen), due[chosen], rtol / 8.0
    known = limits[0][chosen], limits[1][chosen], limits[2][chosen], limits[3][chosen]
    tables = work[: TABLES * size * lanes].reshape(TABLES, size, lanes)
    income, slack, low, near, high = tables[0], tables[1], tables[2], tables[3], tables[4]
    for i in range(size):
        for lane in range(lanes):
            income[i, lane], low[i, lane] = incomes[lane, chosen[i]], 0.0

    going, edges, most = np.ones(lanes, np.bool_), np.zeros(lanes), np.full(lanes, max_rounds)
    rounds[:] = 0
    open_lanes(known, income, going, slack)
    settle_lanes(*graph, owed, claims, known, income, slack, low, tol, True, going, rounds, most, edges, budget)
    failed = going.copy()
    for i in range(size):
        for lane in range(lanes):
            lack = max(-slack[i, lane] - known[1][i] * (abs(income[i, lane]) + known[2][i]), 0.0)
            near[i, lane], high[i, lane] = min(low[i, lane] + lack, owed[i]), low[i, lane]
    for lane in range(lanes):
        going[lane], most[lane] = not failed[lane], rounds[lane] + max(max_rounds - rounds[lane], REFRESH)
    settle_lanes(*graph, owed, claims, known, income, slack, high, tol, False, going, rounds, most, edges, budget)

    widths[:], counts = widths_of(owed, low, high)
    doubtful = value_may_miss(due, incomes, limits[3])
    for lane in range(lanes):
        failed[lane] |= going[lane]
        if failed[lane]:
            codes[lane], widths[lane] = STOPPED if rounds[lane] >= max_rounds else SPENT, np.inf
        elif widths[lane] <= rtol:
            codes[lane] = DOUBTFUL if doubtful[lane] else SETTLED
        else:
            counts[lane] = 0
    return listed(chosen, low, near, high, failed, counts)
