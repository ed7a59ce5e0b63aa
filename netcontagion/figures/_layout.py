"""Where boxes and ribbons go: plain arithmetic in points, no drawing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from netcontagion.figures._flows import Codes, Floats, Flows, Layer, Links

__all__ = ["Column", "column_tops", "fit_scale", "order_layers", "ribbon_ends"]

GAIN = 1e-3  # money crossing money, as a share of all, that a move must save: boxes too small for that stay by size


@dataclass(frozen=True, eq=False)
class Column:
    """One layer's boxes, from the top: ``order[i]`` is the box drawn in row i; all lengths in points.

    ``slot`` is the least height each box needs for its label; ``above`` is kept free over each box.
    """

    order: Codes
    slot: Floats
    above: float
    gap: float


def order_layers(flows: Flows, sweeps: int = 6) -> list[Codes]:
    """Order the boxes of all layers by size, then move boxes to where less money crosses; red counts twice."""
    orders = [np.lexsort((-layer.amount * (layer.pinned == 0), layer.pinned)) for layer in flows.layers]
    for _ in range(sweeps):
        moved = [_settle(orders, k, flows) for k in range(len(orders))]
        if not any(moved):
            break
    return orders


def _settle(orders: list[Codes], k: int, flows: Flows) -> bool:
    """Move single boxes of layer k up or down, the neighbouring layers fixed, as long as a move saves enough."""
    cost = _crossing_costs(orders, k, flows)
    order = list(orders[k])
    free = sum(flows.layers[k].pinned[box] == 0 for box in order)
    changed = False
    for _ in range(free * free):
        start, end = _best_move(np.array(order), free, cost)
        if start == end:
            break
        order.insert(end, order.pop(start))
        changed = True
    orders[k] = np.array(order, dtype=np.intp)
    return changed


def _best_move(order: Codes, free: int, cost: Floats) -> tuple[int, int]:
    """Find the move of one box, from row to row, that saves most; the same row twice when none saves enough."""
    saved = (cost - cost.T)[np.ix_(order, order)]  # saved[i, j]: by having row j above row i instead of below it
    best, move = GAIN, (0, 0)
    for i in range(free):
        down = np.cumsum(saved[i, i + 1 : free])
        up = np.cumsum(saved[:i, i][::-1])
        for gains, rows in ((down, range(i + 1, free)), (up, range(i - 1, -1, -1))):
            if len(gains) and gains.max() > best:
                at = int(gains.argmax())
                best, move = float(gains[at]), (i, rows[at])
    return move


def _crossing_costs(orders: list[Codes], k: int, flows: Flows) -> Floats:
    """Money crossing money when box i of layer k lies above box j, shape (boxes, boxes)."""
    size = len(orders[k])
    cost = np.zeros((size, size))
    for left, links in enumerate(flows.links):
        if k == left:
            here, there, other = links.source, links.target, left + 1
        elif k == left + 1:
            here, there, other = links.target, links.source, left
        else:
            continue
        weight = np.zeros((size, len(orders[other])))
        weight[here, _rank(orders[other])[there]] = links.amount + links.hit
        weight /= weight.sum()
        cost += weight @ (np.cumsum(weight, axis=1) - weight).T
    return cost


def _rank(order: Codes) -> Codes:
    rank = np.empty(len(order), dtype=np.intp)
    rank[order] = np.arange(len(order))
    return rank


def fit_scale(columns: list[Column], layers: tuple[Layer, ...], body: float) -> float:
    """Return the largest number of points per unit of money with which every column fits into the body."""
    low, high = 0.0, body / max(float(layer.amount.sum()) for layer in layers)
    for _ in range(60):
        middle = (low + high) / 2
        fits = all(_height(c, layer.amount * middle) <= body for c, layer in zip(columns, layers, strict=True))
        low, high = (middle, high) if fits else (low, middle)
    return low


def _height(column: Column, heights: Floats) -> float:
    count = len(heights)
    return float(np.maximum(heights, column.slot).sum()) + count * column.above + (count - 1) * column.gap


def column_tops(column: Column, heights: Floats, top: float, body: float, widest_gap: float) -> Floats:
    """Upper edge of each box (by box, not by row), the column centred and its gaps opened up to ``widest_gap``."""
    count = len(heights)
    free = max(body - _height(column, heights), 0.0)
    extra = min(free / (count - 1), widest_gap) if count > 1 else 0.0
    slots = np.maximum(heights, column.slot)[column.order] + column.above
    start = (free - extra * (count - 1)) / 2
    offset = start + np.concatenate([[0.0], np.cumsum(slots + column.gap + extra)[:-1]])
    tops = np.empty(count)
    tops[column.order] = top - offset - column.above - (slots - column.above - heights[column.order]) / 2
    return tops


def ribbon_ends(links: Links, tops: tuple[Floats, Floats], scale: float) -> tuple[Floats, Floats]:
    """Upper edge of each ribbon at its source and at its target: stacked in the order of the other ends."""
    return (
        _stack(links.source, -tops[1][links.target], links.amount * scale, tops[0]),
        _stack(links.target, -tops[0][links.source], links.amount * scale, tops[1]),
    )


def _stack(box: Codes, key: Floats, width: Floats, tops: Floats) -> Floats:
    order = np.lexsort((key, box))
    above = np.concatenate([[0.0], np.cumsum(width[order])[:-1]])
    first = np.searchsorted(box[order], np.arange(len(tops)))
    base = above[np.minimum(first, len(above) - 1)]
    ends = np.empty(len(box))
    ends[order] = tops[box[order]] - (above - base[box[order]])
    return ends
