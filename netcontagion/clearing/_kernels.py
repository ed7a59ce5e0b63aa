"""Compiled loops of the clearing solvers: pushing shortfalls from debtors to creditors, and one product.

In a push ``short`` is what a node does not pay of its dues, ``slack`` how much more it could lose before it has to pay
less. A node whose slack is negative pays so much less that ``tol`` x dues of slack are left, and its creditors lose
their parts. Every float operation errs by a part of ``size = |income| + full receipts + dues`` of its node; ``margin``
bounds the sum of these errors over the ``REFRESH`` rounds after which slacks are computed anew.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from netcontagion._compile import kernel

__all__ = ["REFRESH", "SETTLED", "SPENT", "STOPPED", "bracket", "gather", "push_scenarios", "reached"]

REFRESH = 16
EPS = 2.220446049250313e-16
FEW = 50  # a frontier of less than 1 / FEW of the nodes is visited by itself, else all nodes in turn
SETTLED, SPENT, STOPPED = 0, 1, 2  # bounds as near as asked for or as rounding allows; edges or rounds used up
NARROWINGS = 6


@kernel
def margin(size: float, degree: int) -> float:
    """Bound of what rounding adds to a slack between two refreshes."""
    return (17.0 * (degree + 1.0) + 8.0) * EPS * size


@kernel
def refresh(
    indptr: Any, indices: Any, data: Any, due: Any, income: Any, full: Any, degree: Any, short: Any, slack: Any,
    tol: float, sign: float,
) -> None:  # fmt: skip
    """Compute slacks from what is not paid: above the true ones by a margin (sign 1), below (sign -1), or neither."""
    size = len(due)
    for i in range(size):
        if due[i] > 0.0 or sign == 0.0:
            error = margin(abs(income[i]) + full[i] + due[i], degree[i])
            slack[i] = income[i] + full[i] - due[i] + short[i] + (error + tol * due[i] if sign > 0.0 else sign * error)
        else:
            slack[i] = np.inf
    for i in range(size):
        if short[i] > 0.0:
            part = short[i] / due[i]
            for edge in range(indptr[i], indptr[i + 1]):
                slack[indices[edge]] -= data[edge] * part


@kernel
def find_frontier(due: Any, short: Any, slack: Any, frontier: Any, queued: Any) -> int:
    """List who has to pay less."""
    count = 0
    for i in range(len(due)):
        acts = slack[i] < 0.0 and short[i] < due[i]
        queued[i] = acts
        if acts:
            frontier[count] = i
            count += 1
    return count


@kernel
def pay_less(due: Any, short: Any, slack: Any, tol: float, i: int) -> float:
    """Let a node pay less until it has some slack, or pays nothing; return the part of its dues."""
    room = due[i] - short[i]
    less = tol * due[i] - slack[i]
    if less >= room:
        less = room
        short[i] = due[i]
    else:
        short[i] += less
    slack[i] += less
    return float(less / due[i])


@kernel
def push(
    indptr: Any, indices: Any, data: Any, due: Any, income: Any, full: Any, degree: Any, short: Any, slack: Any,
    frontier: Any, queued: Any, tol: float, sign: float, max_rounds: int, budget: float,
) -> tuple[int, float, int]:  # fmt: skip
    """Push shortfalls until nobody has to pay less; return rounds, edges visited and how many still have to."""
    size = len(due)
    count = find_frontier(due, short, slack, frontier, queued)
    rounds, edges = 0, 0.0
    while count > 0 and rounds < max_rounds and edges <= budget:
        rounds += 1
        if FEW * count <= size:
            visit = np.sort(frontier[:count])
            for i in visit:
                queued[i] = False
            count = 0
            for i in visit:
                if slack[i] >= 0.0 or short[i] >= due[i]:
                    continue
                part = pay_less(due, short, slack, tol, i)
                edges += indptr[i + 1] - indptr[i]
                for edge in range(indptr[i], indptr[i + 1]):
                    k = indices[edge]
                    left = slack[k] - data[edge] * part
                    slack[k] = left
                    if left < 0.0 and not queued[k]:
                        queued[k] = True
                        frontier[count] = k
                        count += 1
        else:
            for i in range(size):
                if slack[i] >= 0.0 or short[i] >= due[i]:
                    continue
                part = pay_less(due, short, slack, tol, i)
                edges += indptr[i + 1] - indptr[i]
                for edge in range(indptr[i], indptr[i + 1]):
                    slack[indices[edge]] -= data[edge] * part
            count = find_frontier(due, short, slack, frontier, queued)
        if rounds % REFRESH == 0:
            refresh(indptr, indices, data, due, income, full, degree, short, slack, tol, sign)
            count = find_frontier(due, short, slack, frontier, queued)
    return rounds, edges, count


@kernel
def bracket(
    indptr: Any, indices: Any, data: Any, due: Any, income: Any, full: Any, degree: Any,
    low: Any, near: Any, high: Any, slack: Any, frontier: Any, queued: Any, rtol: float, max_rounds: int, budget: float,
) -> tuple[int, int, float]:  # fmt: skip
    """Enclose the least shortfalls: ``low`` starts and stays below them, ``high`` ends above them.

    ``low`` grows only by what every solution lacks; ``near`` is one step nearer, without the margins of ``low``.
    ``high`` goes on until everybody can pay what it says, rounding included: then it is a lower bound of payments that
    clear. ``slack`` ends as what is left to a node that pays all but ``near``. Returns how it ended, rounds and the
    residual of ``near``.
    """
    tol, rounds, before = rtol / 8.0, 0, np.inf
    for _ in range(NARROWINGS):
        refresh(indptr, indices, data, due, income, full, degree, low, slack, tol, 1.0)
        spent, edges, count = push(
            indptr, indices, data, due, income, full, degree, low, slack, frontier, queued, tol, 1.0,
            max_rounds - rounds, budget,
        )  # fmt: skip
        rounds += spent
        budget -= edges
        if count > 0:
            return (STOPPED if rounds >= max_rounds else SPENT), rounds, np.inf
        for i in range(len(due)):
            error = margin(abs(income[i]) + full[i] + due[i], degree[i]) + tol * due[i]
            near[i] = min(low[i] + max(error - slack[i], 0.0), due[i]) if due[i] > 0.0 else 0.0
        high[:] = low
        refresh(indptr, indices, data, due, income, full, degree, high, slack, tol, -1.0)
        spent, edges, count = push(
            indptr, indices, data, due, income, full, degree, high, slack, frontier, queued, tol, -1.0,
            max(max_rounds - rounds, REFRESH), budget,
        )  # fmt: skip
        rounds += spent
        budget -= edges
        width = 0.0
        for i in range(len(due)):
            if due[i] > 0.0:
                width = max(width, (high[i] - low[i]) / due[i])
        if count > 0:
            return (STOPPED if rounds >= max_rounds else SPENT), rounds, np.inf
        if width <= rtol or width > 0.5 * before:
            break
        tol, before = max(tol * 0.5 * rtol / width, EPS), width
    refresh(indptr, indices, data, due, income, full, degree, near, slack, 0.0, 0.0)
    residual = 0.0
    for i in range(len(due)):
        if due[i] > 0.0:
            paid = due[i] - near[i]
            residual = max(residual, abs(min(max(paid + slack[i], 0.0), due[i]) - paid) / due[i])
    return SETTLED, rounds, residual


@kernel
def reached(begins: Any, debtors: Any, due: Any, income: Any) -> bool:
    """Whether everybody who owes has income, or is owed by somebody who has."""
    for i in range(len(due)):
        if due[i] > 0.0 and income[i] <= 0.0:
            near = False
            for place in range(begins[i], begins[i + 1]):
                near = near or income[debtors[place]] > 0.0
            if not near:
                return False
    return True


@kernel
def push_scenarios(
    indptr: Any, indices: Any, data: Any, due: Any, incomes: Any, full: Any, degree: Any, rtol: float, max_rounds: int,
    budget: float, codes: Any, rounds: Any, residuals: Any,
) -> tuple[Any, Any, Any]:  # fmt: skip
    """Enclose the shortfalls of scenarios, rows of ``incomes``; return those that may be above 0.

    Returns, scenario after scenario, nodes and their shortfalls (lower bound, nearest, upper bound), and where each
    scenario begins.
    """
    size, scenarios = len(due), len(incomes)
    nodes, shorts, begins = np.empty(1024, np.int32), np.empty((1024, 3)), np.zeros(scenarios + 1, np.int64)
    low, near, high, slack = np.empty(size), np.empty(size), np.empty(size), np.empty(size)
    frontier, queued = np.empty(size, np.int64), np.empty(size, np.bool_)
    filled = 0
    for scenario in range(scenarios):
        low[:] = 0.0
        codes[scenario], rounds[scenario], residuals[scenario] = bracket(
            indptr, indices, data, due, incomes[scenario], full, degree, low, near, high, slack, frontier, queued, rtol,
            max_rounds, budget,
        )  # fmt: skip
        if filled + size > len(nodes):
            room = 2 * (filled + size)
            nodes = np.append(nodes[:filled], np.empty(room - filled, np.int32))
            shorts = np.append(shorts[:filled], np.empty((room - filled, 3)), axis=0)
        if codes[scenario] == SETTLED:
            for i in range(size):
                if high[i] > 0.0:
                    nodes[filled] = i
                    shorts[filled, 0], shorts[filled, 1], shorts[filled, 2] = low[i], near[i], high[i]
                    filled += 1
        begins[scenario + 1] = filled
    return nodes[:filled].copy(), shorts[:filled].copy(), begins


@kernel
def gather(indptr: Any, indices: Any, data: Any, vector: Any, out: Any, first: int, last: int) -> None:
    """Multiply rows ``first`` to ``last`` of a matrix by a vector."""
    for row in range(first, last):
        total = 0.0
        for entry in range(indptr[row], indptr[row + 1]):
            total += data[entry] * vector[indices[entry]]
        out[row] = total
