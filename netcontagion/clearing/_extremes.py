"""The least and the greatest vector where no income is negative: the living have one solution, the dead may have more.

Where no income is negative the map is concave and the network falls apart: a node is *alive* if value reaches it, that
is if it has income or is owed by a node that is alive. Nothing reaches the dead from outside, so among them only a
closed class (every node of it owes only to the class) can pay anything, and what it pays stays inside it. So the
payments of the living solve a system of their own, which has one solution; those of the dead are 0 in the least vector
and known from the closed classes in the greatest.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse

from netcontagion.clearing._enclosure import concave_enclosure
from netcontagion.clearing._linear import solve_unpaid

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from netcontagion.clearing._solvers import Solved
    from netcontagion.clearing._system import Bools, Floats, System

    Indices = NDArray[np.intp]

__all__ = ["alive_nodes", "with_the_dead"]


def alive_nodes(system: System) -> Bools:
    """Nodes that value reaches: income of their own, or owed by a node that is alive."""
    income: Bools = system.income > 0
    near: Bools = income | (system.due == 0)
    if not near.all():
        near |= system.incoming @ income.astype(float) > 0
    return near if near.all() else _reached(system.owed, income) | (system.due == 0)


def _reached(owed: Any, start: Bools) -> Bools:
    """Nodes that a walk from a node of ``start`` along the liabilities reaches."""
    from scipy.sparse.csgraph import breadth_first_order

    nodes = len(start)
    first = np.flatnonzero(start)  # what the added node, number n, owes
    indptr, indices = np.append(owed.indptr, owed.nnz + len(first)), np.append(owed.indices, first)
    graph = scipy.sparse.csr_array((np.ones(len(indices)), indices, indptr), shape=(nodes + 1, nodes + 1))
    order: Any = breadth_first_order(graph, nodes, directed=True, return_predecessors=False)
    reached = np.zeros(nodes + 1, dtype=bool)
    reached[order] = True
    return reached[:nodes]


def with_the_dead(system: System, alive: Bools, solved: Solved, *, greatest: bool) -> Solved:
    """Put what the dead pay, in the greatest or the least vector, beside the solution of the living."""
    if alive.all():
        return solved
    payments, lower, upper = (np.zeros(len(alive)) for _ in range(3))
    payments[alive], lower[alive], upper[alive] = solved.payments, solved.enclosure.lower, solved.enclosure.upper
    width = solved.enclosure.width
    for nodes in _closed_classes(system, ~alive) if greatest else ():
        payments[nodes], lower[nodes], upper[nodes] = _closed_class(system, nodes)
        width = max(width, float(((upper[nodes] - lower[nodes]) / system.due[nodes]).max()))
    enclosure = solved.enclosure._replace(lower=lower, upper=upper, width=width)
    note = f"no value reaches {int((~alive).sum())} nodes with dues: the clearing vector may not be unique"
    return solved._replace(payments=payments, enclosure=enclosure, notes=(*solved.notes, note))


def _closed_classes(system: System, dead: Bools) -> Iterator[Indices]:
    """Yield the sets of dead nodes that owe each other, directly or not, and owe nothing to anyone else."""
    from scipy.sparse.csgraph import connected_components

    nodes = np.flatnonzero(dead)
    count, label = connected_components(system.owed[dead][:, dead], directed=True, connection="strong")
    label_of = np.full(len(dead), -1)
    label_of[nodes] = label
    size = np.bincount(label, minlength=count)
    debtor = np.repeat(np.arange(len(dead)), np.diff(system.owed.indptr))
    leaves = dead[debtor] & (label_of[debtor] != label_of[system.owed.indices])
    is_open = size < 2
    is_open[label_of[debtor[leaves]]] = True
    is_open[label_of[dead & system.leaks]] = True
    for members in np.split(np.argsort(label, kind="stable"), np.cumsum(size)[:-1]):
        if not is_open[label[members[0]]]:
            yield nodes[members]


def _closed_class(system: System, nodes: Indices) -> tuple[Floats, Floats, Floats]:
    """Greatest payments in a closed class without value, with bounds.

    They are invariant under the shares owed, so c times the payments that follow when the first node pays in full, with
    the greatest c for which nobody pays more than is due.
    """
    due = system.due[nodes]
    linear = _others_of_the_class(system, nodes)
    solution = solve_unpaid(linear, ~linear.nobody(), linear.income, direct=False)
    if solution is None:
        return due.copy(), np.zeros(len(nodes)), due.copy()
    bounds = concave_enclosure(linear, solution)
    low, middle, high = (np.concatenate([due[:1], part]) for part in (bounds.lower, solution, bounds.upper))
    largest = float((due / middle).min())
    certain = float((due / high).min())
    possible = float(np.divide(due, low, out=np.full(len(due), np.inf), where=low > 0).min())
    lower = low * certain * (1 - system.rounding)
    upper = np.minimum(due, high * possible if np.isfinite(high).all() else due) * (1 + system.rounding)
    return np.minimum(due, middle * largest), lower, upper


def _others_of_the_class(system: System, nodes: Indices) -> System:
    """Return the system of the other nodes of a class, without a limit, when the first pays in full."""
    first, others = int(nodes[0]), nodes[1:]
    members = system.nobody()
    members[others] = True
    income = np.ravel(system.owed[[first]][:, others].toarray())
    return replace(system.part(members), income=income, senior=None, ceiling=np.full(len(others), np.inf))
