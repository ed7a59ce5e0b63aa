"""Compiled loops of DebtRank over many scenarios; the twins in the tests are plain numpy.

Scenarios are rows. ``sweep_scenarios`` takes four of them side by side, the lanes of a node next to each other.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from netcontagion._compile import kernel

__all__ = ["LANES", "sweep_scenarios", "walk_scenarios"]

LANES = 4
"""Scenarios swept side by side: each debt is read once for all of them."""
FIRST_POWER = 3  # sweeps of the certificate at least
DENSE = 4  # a step whose entries are at least 1 / DENSE of the nodes looks at all nodes, else at those it hits


@kernel
def sweep(indptr: Any, indices: Any, impact: Any, x: Any, h: Any) -> int:
    """Renew every node in turn out of the others' newest distress; return how many (node, lane) are distressed."""
    positive, total = 0, np.zeros(LANES)
    for j in range(x.shape[0]):
        a, b, c, d = x[j, 0], x[j, 1], x[j, 2], x[j, 3]
        for place in range(np.uint64(indptr[j]), np.uint64(indptr[j + 1])):
            i, size = np.uint64(indices[place]), impact[place]  # unsigned: no test for places from the end
            a += size * h[i, 0]
            b += size * h[i, 1]
            c += size * h[i, 2]
            d += size * h[i, 3]
        total[0], total[1], total[2], total[3] = a, b, c, d
        for lane in range(LANES):
            h[j, lane] = max(h[j, lane], min(1.0, total[lane]))
            if h[j, lane] > 0.0:
                positive += 1
    return positive


@kernel
def bound(least: Any, before: Any, h: Any, error: float, above: Any, width: Any, moved: Any) -> None:
    """Bound how much larger than ``before`` the solution is, see :func:`sweep_scenarios`; then ``before`` becomes h."""
    for lane in range(LANES):
        above[lane] = 0.0 if error < 0.5 else np.inf
        width[lane], moved[lane] = 0.0, 0.0
    for j in range(h.shape[0]):
        for lane in range(LANES):
            new = h[j, lane]
            if new < 1.0:
                width[lane] = max(width[lane], new)
            if least[j, lane] > 0.0:
                gap = new - before[j, lane] + error * new
                above[lane] = max(above[lane], gap / (least[j, lane] * (1.0 - error)))
            moved[lane] = max(moved[lane], new - before[j, lane])
            before[j, lane] = new
    for lane in range(LANES):
        width[lane] = width[lane] * above[lane] if above[lane] < 0.5 else np.inf


@kernel
def sweep_scenarios(
    indptr: Any, indices: Any, impact: Any, shocks: Any, distress: Any, found: Any, rtol: float, rounding: float,
    sweeps: int, first: int, last: int,
) -> None:  # fmt: skip
    """Sweep ``h_j = min(1, x_j + sum_i W_ij h_i)`` upwards from 0 in the scenarios from first to last.

    ``indptr, indices, impact``: for each node j the i that it is hit by. One sweep Psi is monotone and concave and has
    the fixed points of the map itself. f = Psi^m(0) for an m after which no further node is reached; with p and
    ``r = Psi^m(p) - p`` the solution is at most ``p / (1 - max r / f)``, rounding included. ``found`` takes that
    ``max r / f``, the width it leaves below 1, the change in the last (m or fewer) sweeps, and the sweeps.
    """
    nodes = shocks.shape[1]
    x, h = np.zeros((nodes, LANES)), np.zeros((nodes, LANES))
    least, before = np.zeros((nodes, LANES)), np.zeros((nodes, LANES))
    moved, above, width = np.zeros(LANES), np.zeros(LANES), np.zeros(LANES)
    for start in range(first, last, LANES):
        lanes = min(LANES, last - start)
        for j in range(nodes):
            for lane in range(LANES):
                x[j, lane] = shocks[start + lane, j] if lane < lanes else 0.0
                h[j, lane] = 0.0
        reached, power, since, rounds, going = -1, 0, 0, 0, True
        for lane in range(LANES):
            above[lane], width[lane], moved[lane] = np.inf, np.inf, np.inf
        while going and rounds < sweeps:
            rounds, since = rounds + 1, since + 1
            positive = sweep(indptr, indices, impact, x, h)
            if power == 0:
                if positive == reached and rounds >= FIRST_POWER:
                    power, since = rounds, 0
                    for j in range(nodes):
                        for lane in range(LANES):
                            least[j, lane] = before[j, lane] = h[j, lane]
                reached = positive
            elif since == power:
                since, going = 0, False
                bound(least, before, h, power * rounding, above, width, moved)
                for lane in range(lanes):
                    if width[lane] > rtol and moved[lane] > 0.0:
                        going = True
        for lane in range(lanes):
            row = start + lane
            found[0, row], found[1, row], found[2, row], found[3, row] = above[lane], width[lane], moved[lane], rounds
            for j in range(nodes):
                distress[row, j] = h[j, lane]


@kernel
def walk_scenarios(indptr: Any, indices: Any, impact: Any, distress: Any, steps: Any, first: int, last: int) -> None:
    """Let every distressed node pass its distress on once; ``distress`` holds the shocks and takes the result.

    ``indptr, indices, impact``: for each node i the j that it hits.
    """
    nodes = distress.shape[1]
    fresh, received = np.zeros(nodes, dtype=np.bool_), np.zeros(nodes)
    waiting = np.zeros(nodes, dtype=np.bool_)
    active, touched = np.zeros(nodes, dtype=np.int64), np.zeros(nodes, dtype=np.int64)
    for row in range(first, last):
        h = distress[row]
        count = 0
        for j in range(nodes):
            fresh[j] = h[j] == 0.0
            if h[j] > 0.0:
                active[count] = j
                count += 1
        while count > 0:
            steps[row] += 1
            entries, hit = 0, 0
            for k in range(count):
                entries += indptr[active[k] + 1] - indptr[active[k]]
            dense = DENSE * entries >= nodes
            for k in range(count):
                i = active[k]
                part = h[i]
                if dense:
                    for place in range(np.uint64(indptr[i]), np.uint64(indptr[i + 1])):
                        received[np.uint64(indices[place])] += impact[place] * part
                else:
                    for place in range(indptr[i], indptr[i + 1]):
                        j = indices[place]
                        if not waiting[j]:
                            waiting[j] = True
                            touched[hit] = j
                            hit += 1
                        received[j] += impact[place] * part
            count = 0
            for k in range(nodes if dense else hit):
                j = k if dense else touched[k]
                if received[j] > 0.0:
                    h[j] = min(1.0, h[j] + received[j])
                    received[j] = 0.0
                    if fresh[j]:
                        fresh[j] = False
                        active[count] = j
                        count += 1
                waiting[j] = False
