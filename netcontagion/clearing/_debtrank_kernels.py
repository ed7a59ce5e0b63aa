"""Compiled loops of DebtRank over many scenarios; the twins in the tests are plain numpy.

Scenarios are columns. Some are taken side by side, the lanes of a node next to each other, so that each debt is read
once for all of them. The number of lanes is an argument: loops of a known length would not become vector instructions.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from netcontagion._compile import kernel

__all__ = ["LANES", "longest_run", "sweep_scenarios", "walk_scenarios"]

LANES = 16
"""Scenarios taken side by side."""
POWER, FIRST_POWER = 4, 3  # sweeps from one look to the next: with a margin, and at least without
LEAP, LEAPING = 20.0, 200  # a leap is at most so many last changes; after so many sweeps there are none
SLACK = 1.0 + 2.0**-49  # for the rounding of the bounds themselves
FALL, RISE, TOP, MOVED, FRESH = range(5)  # rows of spans: what a look finds in each lane
DENSE = 2  # a step in which at least 1 / DENSE of all debts have their turn asks each node who hits it
MANY = 8  # of the nodes at least 1 / MANY are found in order by looking at all, fewer by sorting


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
def longest_run(indptr: Any, indices: Any) -> int:
    """Count the nodes of the longest way along which indices rise: what one sweep can pass on from node to node."""
    run, longest = np.ones(len(indptr) - 1, np.int64), 1
    for j in range(len(run)):
        for place in range(indptr[j], indptr[j + 1]):
            if indices[place] < j:
                run[j] = max(run[j], run[indices[place]] + 1)
        longest = max(longest, run[j])
    return longest


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
def pull(
    indptr: Any, indices: Any, impact: Any, h: Any, active: Any, total: Any, fresh: Any, going: Any, turn: Any
) -> int:
    """Let every node add up what it is hit by; list the nodes whose first distress that is in some lane."""
    # the sums are written out here and in ``sweep``: a kernel that both call costs a fifth of the speed
    one, two, three, four = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(4)
    turns = 0
    for j in range(len(h)):
        for lane in range(len(total)):
            total[lane] = 0.0
        place, end = np.uint64(indptr[j]), np.uint64(indptr[j + 1])
        while place + three < end:
            i, k = np.uint64(indices[place]), np.uint64(indices[place + one])
            m, n = np.uint64(indices[place + two]), np.uint64(indices[place + three])
            a, b, c, d = impact[place], impact[place + one], impact[place + two], impact[place + three]
            for lane in range(len(total)):  # one after the other, as where it is pushed
                new = total[lane] + a * active[i, lane] + b * active[k, lane]
                total[lane] = new + c * active[m, lane] + d * active[n, lane]
            place += four
        while place < end:
            i, a = np.uint64(indices[place]), impact[place]
            for lane in range(len(total)):
                total[lane] += a * active[i, lane]
            place += one
        for lane in range(len(total)):
            new = min(1.0, h[j, lane] + total[lane])
            fresh[j, lane] = new if h[j, lane] == 0.0 else 0.0
            h[j, lane] = new
        most = 0.0
        for lane in range(len(total)):
            most += fresh[j, lane]
        if most > 0.0:
            for lane in range(len(total)):
                going[lane] = max(going[lane], fresh[j, lane])
            turn[turns] = j
            turns += 1
    return turns


@kernel
def walk_scenarios(
    indptr: Any, indices: Any, impact: Any, at: Any, to: Any, size: Any, shocks: Any, distress: Any, steps: Any,
    lanes: int, first: int, last: int,
) -> None:  # fmt: skip
    """Let every distressed node pass its distress on once, in the scenarios from first to last.

    ``indptr, indices, impact``: for each node j the i that it is hit by; ``at, to, size``: for each i the j that it
    hits. Either way what a node receives is added up in the order of the i, whoever else is active in other lanes.
    """
    nodes = len(shocks)
    h, received = np.zeros((nodes, lanes)), np.zeros((nodes, lanes))
    active, fresh = np.zeros((nodes, lanes)), np.zeros((nodes, lanes))
    turn, hit, marked = np.zeros(nodes, np.int64), np.zeros(nodes, np.int64), np.zeros(nodes, np.bool_)
    going, total = np.zeros(lanes), np.zeros(lanes)
    for start in range(first, last, lanes):
        for j in range(nodes):
            marked[j] = True
            for lane in range(lanes):
                h[j, lane] = active[j, lane] = 0.0
                received[j, lane] = shocks[j, start + lane] if start + lane < last else 0.0
        hits = nodes
        while hits > 0:
            many = MANY * hits >= nodes
            if not many:
                hit[:hits] = np.sort(hit[:hits])
            turns = 0
            for k in range(nodes if many else hits):
                j = k if many else hit[k]
                if not marked[j]:
                    continue
                marked[j] = False
                most = 0.0
                for lane in range(lanes):
                    new = min(1.0, h[j, lane] + received[j, lane])
                    active[j, lane] = new if h[j, lane] == 0.0 else 0.0
                    h[j, lane], received[j, lane] = new, 0.0
                    most += active[j, lane]
                if most > 0.0:
                    for lane in range(lanes):
                        going[lane] = max(going[lane], active[j, lane])
                    turn[turns] = j
                    turns += 1
            pulling = True
            while pulling:
                debts = 0
                for k in range(turns):
                    debts += at[turn[k] + 1] - at[turn[k]]
                for lane in range(lanes):
                    if going[lane] > 0.0:
                        steps[start + lane] += 1
                        going[lane] = 0.0
                pulling = turns > 0 and DENSE * debts >= len(impact)
                if pulling:
                    turns = pull(indptr, indices, impact, h, active, total, fresh, going, turn)
                    active, fresh = fresh, active
            hits = 0
            for k in range(turns):
                i = turn[k]
                for place in range(np.uint64(at[i]), np.uint64(at[i + 1])):
                    creditor, share = np.uint64(to[place]), size[place]
                    for lane in range(lanes):
                        received[creditor, lane] += share * active[i, lane]
                    if not marked[creditor]:
                        marked[creditor] = True
                        hit[hits] = creditor
                        hits += 1
            for k in range(turns):
                for lane in range(lanes):
                    active[turn[k], lane] = 0.0
        for j in range(nodes):
            for lane in range(min(lanes, last - start)):
                distress[j, start + lane] = h[j, lane]
