"""Compiled loops of DebtRank over many scenarios; the twins in the tests are plain numpy.

Scenarios are columns. Some are taken side by side, the lanes of a node next to each other, so that each debt is read
once for all of them. The number of lanes is an argument: loops of a known length would not become vector instructions.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from netcontagion._compile import kernel

__all__ = ["LANES", "sweep_scenarios", "walk_scenarios"]

LANES = 16
"""Scenarios taken side by side."""
POWER, FIRST_POWER = 4, 3  # sweeps from one look to the next: with a margin, and at least without
LEAP, LEAPING = 20.0, 200  # a leap is at most so many last changes; after so many sweeps there are none
SLACK = 1.0 + 2.0**-49  # for the rounding of the bounds themselves
FALL, RISE, TOP, MOVED, FRESH = range(5)  # rows of spans: what a look finds in each lane
DENSE = 4  # a step whose entries are at least 1 / DENSE of the nodes looks at all nodes, else at those it hits


# ------------------------------------------------------------------------------------------------------------- linear


@kernel
def sweep(indptr: Any, indices: Any, impact: Any, x: Any, h: Any, total: Any, change: Any, gain: Any) -> None:
    """Renew every node in turn out of the others' newest distress; ``gain`` adds up changes, of the last sweep too."""
    one, two, three, four = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(4)  # no test for places from the end
    for lane in range(len(total)):
        gain[0, lane], gain[1, lane] = gain[1, lane], 0.0
    for j in range(len(x)):
        for lane in range(len(total)):
            total[lane] = x[j, lane]
        place, end = np.uint64(indptr[j]), np.uint64(indptr[j + 1])
        while place + three < end:  # four at a time: totals are loaded and stored a quarter as often
            i, k = np.uint64(indices[place]), np.uint64(indices[place + one])
            m, n = np.uint64(indices[place + two]), np.uint64(indices[place + three])
            a, b, c, d = impact[place], impact[place + one], impact[place + two], impact[place + three]
            for lane in range(len(total)):
                total[lane] += (a * h[i, lane] + b * h[k, lane]) + (c * h[m, lane] + d * h[n, lane])
            place += four
        while place < end:
            i, a = np.uint64(indices[place]), impact[place]
            for lane in range(len(total)):
                total[lane] += a * h[i, lane]
            place += one
        for lane in range(len(total)):
            new = min(1.0, total[lane])
            change[j, lane] = new - h[j, lane]
            gain[1, lane] += new - h[j, lane]
            h[j, lane] = new


@kernel
def leap(h: Any, change: Any, gain: Any, factor: Any, most: float) -> None:
    """Go on as if each lane's changes kept falling at the pace of the last two sweeps; who is distressed stays it."""
    for lane in range(len(factor)):
        pace = gain[1, lane] / gain[0, lane] if gain[0, lane] != 0.0 else 0.0
        factor[lane] = min(most, pace / (1.0 - pace)) if 0.0 < pace < 1.0 else 0.0
    for j in range(len(h)):
        for lane in range(len(factor)):
            new = min(1.0, h[j, lane] + factor[lane] * change[j, lane])
            h[j, lane] = max(0.5 * h[j, lane], new)


@kernel
def look(per: Any, rises: Any, h: Any, change: Any, error: float, spans: Any) -> None:
    """Find each lane's largest fall and rise, ``per`` unit and rounding included, and the rest of the spans."""
    for row in range(len(spans)):
        for lane in range(h.shape[1]):
            spans[row, lane] = 0.0
    for j in range(len(h)):
        for lane in range(h.shape[1]):
            new, noise = h[j, lane], error * h[j, lane]
            spans[FALL, lane] = max(spans[FALL, lane], (noise - rises[j, lane]) * per[j, lane])
            spans[RISE, lane] = max(spans[RISE, lane], (noise + rises[j, lane]) * per[j, lane])
            spans[TOP, lane] = max(spans[TOP, lane], new if new < 1.0 else 0.0)
            spans[MOVED, lane] = max(spans[MOVED, lane], abs(rises[j, lane]))
            if new > 0.0 and change[j, lane] == new:
                spans[FRESH, lane] = 1.0


@kernel
def judge(spans: Any, peak: float, error: float, drift: float, rtol: float, bounded: Any, settled: Any) -> None:
    """Tell which lanes have bounds, and which have narrow ones, or as narrow as rounding allows.

    ``drift``, what rounding may have added while lanes only rose, is 0 with a margin; else fall and rise are from here
    on in units of h.
    """
    floor = 8.0 * error * (1.0 + 2.0 * peak)
    for lane in range(len(bounded)):
        rise = spans[RISE, lane]
        bounded[lane] = spans[FRESH, lane] == 0.0 and (drift == 0.0 or max(error, rise) < 0.5)
        if drift > 0.0:
            spans[FALL, lane] = drift
            if bounded[lane]:
                spans[RISE, lane] = rise / (1.0 - rise)
            narrow = spans[RISE, lane] * spans[TOP, lane] <= rtol or spans[MOVED, lane] == 0.0
        else:
            narrow = 2.0 * error + (spans[FALL, lane] + rise) * peak <= max(rtol, floor)
        settled[lane] = bounded[lane] and narrow


@kernel
def write(x: Any, h: Any, scale: Any, spans: Any, error: float, bounded: Any, now: Any, start: int, out: Any) -> None:
    """Write distress and its bounds for the lanes whose turn it is."""
    for j in range(len(h)):
        for lane in range(len(now)):
            if now[lane]:
                new, low, high = h[j, lane], 0.0, 1.0
                noise, share = error * new, scale[j] if len(scale) > 0 else new
                if bounded[lane] or len(scale) == 0:
                    low = new - (noise + spans[FALL, lane] * share) * SLACK
                if bounded[lane]:
                    high = new + (noise + spans[RISE, lane] * (share + noise)) * SLACK if new > 0.0 else 0.0
                out[0, j, start + lane] = new
                out[1, j, start + lane] = max(x[j, lane], low)
                out[2, j, start + lane] = min(1.0, high)


@kernel
def sweep_scenarios(
    indptr: Any, indices: Any, impact: Any, margin: Any, scale: Any, shocks: Any, out: Any, found: Any,
    rtol: float, rounding: float, sweeps: int, lanes: int, first: int, last: int,
) -> None:  # fmt: skip
    """Sweep ``h_j = min(1, x_j + sum_i W_ij h_i)`` upwards from 0 in the scenarios from first to last.

    ``indptr, indices, impact``: for each node j the i that it is hit by. One sweep Psi is monotone and concave, has the
    fixed points of the map itself, and takes p to q.

    With margin u > 0 and scale s, of a v with ``W^T v <= s`` and ``u + s <= v``, it is ``Psi(p + t v) <= q + t s``,
    which is at most ``p + t v`` for ``t = max (q - p)^+ / u``: the solution is at most ``q + t s``, and likewise not
    below. This holds for any p. So every POWER sweeps, unless that is narrow, h leaps ahead.

    Without them h only rises. f = Psi^m(0) for an m after which no further node is reached, and with p and ``q =
    Psi^m(p)`` the solution is at most ``q / (1 - max (q - p) / f)``.

    Rounding is included. ``out`` takes distress and its bounds; ``found`` whether these are narrow, whether there are
    any, the last change, and the sweeps.
    """
    nodes, known = len(shocks), len(margin) > 0
    x, h, change = np.zeros((nodes, lanes)), np.zeros((nodes, lanes)), np.zeros((nodes, lanes))
    per, rises = np.zeros((nodes, lanes)), change if known else np.zeros((nodes, lanes))
    total, gain, spans = np.zeros(lanes), np.zeros((2, lanes)), np.zeros((5, lanes))
    bounded, settled = np.zeros(lanes, np.bool_), np.zeros(lanes, np.bool_)
    waiting, now = np.zeros(lanes, np.bool_), np.zeros(lanes, np.bool_)
    peak = 0.0
    for j in range(len(scale)):
        peak = max(peak, scale[j])
        for lane in range(lanes):
            per[j, lane] = 1.0 / margin[j]
    for start in range(first, last, lanes):
        for j in range(nodes):
            for lane in range(lanes):
                x[j, lane] = shocks[j, start + lane] if start + lane < last else 0.0
                h[j, lane] = 0.0
        for lane in range(lanes):
            waiting[lane], settled[lane], bounded[lane] = start + lane < last, False, False
            gain[0, lane], gain[1, lane] = 0.0, 0.0
        left = min(lanes, last - start)
        rounds, power, error, spreading = 0, min(POWER, sweeps), rounding, not known
        while spreading and rounds < sweeps:
            sweep(indptr, indices, impact, x, h, total, change, gain)
            look(change, change, h, change, 0.0, spans)
            rounds += 1
            spreading = rounds < FIRST_POWER
            for lane in range(lanes):
                spreading = spreading or spans[FRESH, lane] > 0.0
        if not known:
            power, error = rounds, rounds * rounding
            for j in range(nodes):
                for lane in range(lanes):
                    per[j, lane] = 1.0 / (h[j, lane] * (1.0 - min(error, 0.5))) if h[j, lane] > 0.0 else 0.0
        while left > 0:
            ending = spreading or rounds + power > sweeps
            if not ending:
                if known:
                    leap(h, change, gain, total, LEAP if rounds < LEAPING else 0.0)
                for j in range(0 if known else nodes):
                    for lane in range(lanes):
                        rises[j, lane] = -h[j, lane]
                for _ in range(power):
                    sweep(indptr, indices, impact, x, h, total, change, gain)
                rounds += power
                for j in range(0 if known else nodes):
                    for lane in range(lanes):
                        rises[j, lane] += h[j, lane]
                look(per, rises, h, change, error, spans)
                judge(spans, peak, error, 0.0 if known else 2.0 * rounding * rounds, rtol, bounded, settled)
            for lane in range(lanes):
                now[lane] = waiting[lane] and (settled[lane] or ending)
                if now[lane]:
                    waiting[lane], left, row = False, left - 1, start + lane
                    found[0, row], found[1, row] = settled[lane], bounded[lane]
                    found[2, row], found[3, row] = spans[MOVED, lane], rounds
            write(x, h, scale, spans, error, bounded, now, start, out)


# --------------------------------------------------------------------------------------------------------- single hit


@kernel
def walk_scenarios(
    indptr: Any, indices: Any, impact: Any, shocks: Any, distress: Any, steps: Any, lanes: int, first: int, last: int
) -> None:
    """Let every distressed node pass its distress on once, in the scenarios from first to last.

    ``indptr, indices, impact``: for each node i the j that it hits.
    """
    nodes = len(shocks)
    rows, received, waiting = np.zeros((lanes, nodes)), np.zeros(nodes), np.zeros(nodes, dtype=np.bool_)
    active, touched = np.zeros(nodes, dtype=np.int64), np.zeros(nodes, dtype=np.int64)
    for start in range(first, last, lanes):  # column by column each number would come from a cache line of its own
        taken = min(lanes, last - start)
        for j in range(nodes):
            for lane in range(taken):
                rows[lane, j] = shocks[j, start + lane]
        for lane in range(taken):
            h = rows[lane]
            count = 0
            for j in range(nodes):
                if h[j] > 0.0:
                    active[count] = j
                    count += 1
            while count > 0:
                steps[start + lane] += 1
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
                        if h[j] == 0.0:
                            active[count] = j
                            count += 1
                        h[j] = min(1.0, h[j] + received[j])
                        received[j] = 0.0
                    waiting[j] = False
        for j in range(nodes):
            for lane in range(taken):
                distress[j, start + lane] = rows[lane, j]
