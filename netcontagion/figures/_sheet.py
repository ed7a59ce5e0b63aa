"""The paper of a map: its measures, where every box goes, and the words that fit beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion.figures._labels import percent, shorten_all, tell_apart, text_width
from netcontagion.figures._layout import Column, column_tops, fit_scale, order_layers

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from netcontagion.figures._flows import Floats, Flows, Layer

__all__ = ["LINE", "POINTS", "SMALL", "SPACE", "Placed", "Sheet", "Style", "letter_size", "one_line", "place", "points"]

LINE = 1.28  # height of a line of text, in sizes
SPACE = 0.55  # between a name and what stands beside it, in sizes
SMALL = 0.9  # size of what stands beside a name, in sizes
POINTS = 72.0
DETAIL_LEVELS = 4  # ways to say what stands beside a name, from all of it to nothing


@dataclass(frozen=True)
class Style:
    """The few things about a map that may be chosen."""

    max_nodes: int = 60
    max_links: int = 400
    top: int | None = None
    title: str | None = None
    accent: str = "#b3202c"
    cmap: str = "cividis_r"


@dataclass(frozen=True, eq=False)
class Sheet:
    """The paper: width, height and size of letters in points; ``body`` is what the boxes have, from ``roof`` down."""

    width: float
    height: float
    size: float
    roof: float
    body: float


@dataclass(frozen=True, eq=False)
class Placed:
    """A layer on paper: left edge, width of boxes, upper edges, heights, and the words beside each box."""

    layer: Layer
    x: float
    wide: float
    tops: Floats
    heights: Floats
    words: list[tuple[str, str]]
    lines: list[int]


def points(ax: Axes) -> tuple[float, float]:
    """Width and height of axes, in points."""
    figure: Any = ax.get_figure(root=True)
    box = ax.get_window_extent()
    return box.width * POINTS / figure.dpi, box.height * POINTS / figure.dpi


def letter_size(width: float, height: float) -> float:
    """Size of letters that suits a sheet, in points."""
    return float(np.clip(3.8 + 0.0072 * min(width, 1.5 * height), 4.5, 9.0))


def place(flows: Flows, sheet: Sheet) -> tuple[list[Placed], float]:
    """Put every box on paper and choose the words that stand beside it."""
    size, last = sheet.size, len(flows.layers) - 1
    wide = float(np.clip(0.02 * sheet.width, 5.0, 11.0))
    lines = [
        [1] * len(layer.names) if 0 < k < last else _line_counts(layer, sheet, bool(flows.hit_word))
        for k, layer in enumerate(flows.layers)
    ]
    words = [_words(layer, flows.hit_word) for layer in flows.layers]
    side = 0.29 * sheet.width
    left, right = (_fit_side(words[k], lines[k], size, side) for k in (0, last))
    x_first, x_last = left + 0.6 * size, sheet.width - right - 0.6 * size - wide
    xs = np.linspace(x_first, x_last, last + 1)
    if last == 2:
        words[1] = _fit_middle(words[1], size, 0.62 * (x_last - x_first) / 2)
    columns = []
    for k, (order, count) in enumerate(zip(order_layers(flows), lines, strict=True)):
        inside = 0 < k < last
        slot = np.zeros(len(count)) if inside else np.array(count) * LINE * size
        columns.append(Column(order, slot, 1.45 * size if inside else 0.0, (0.2 if inside else 0.3) * size))
    scale = fit_scale(columns, flows.layers, sheet.body)
    placed = []
    for k, layer in enumerate(flows.layers):
        heights = layer.amount * scale
        tops = column_tops(columns[k], heights, sheet.roof, sheet.body, 3.5 * size)
        placed.append(Placed(layer, float(xs[k]), wide, tops, heights, words[k], lines[k]))
    return placed, scale


def _line_counts(layer: Layer, sheet: Sheet, shares: bool) -> list[int]:
    """Two lines a label where they fit, else two for cohorts, else one for all."""
    room = 0.8 * sheet.body / (LINE * sheet.size)
    full = [2 if shares or detail else 1 for detail in layer.details]
    for counts in (full, [2 if detail else 1 for detail in layer.details]):
        if sum(counts) + 0.25 * len(counts) <= room:
            return counts
    return [1] * len(layer.names)


def _words(layer: Layer, hit_word: str) -> list[tuple[str, str]]:
    """Name and what stands beside it: how many accounts, what share is hit."""
    shares = [f"{percent(share)} {hit_word}" if hit_word else "" for share in layer.share]
    return [
        (name, " · ".join(filter(None, (detail, share))))
        for name, detail, share in zip(layer.names, layer.details, shares, strict=True)
    ]


def _fit_side(words: list[tuple[str, str]], lines: list[int], size: float, room: float) -> float:
    """Cut the words of an outer column to the room beside it, alike for all of one kind; return the width needed."""
    rooms = [room] * len(words)  # for each name
    for kind in sorted(set(lines)):
        rows = [i for i, line in enumerate(lines) if line == kind]
        for level in range(DETAIL_LEVELS):
            shown = [_detail(words[i][1], level) for i in rows]
            free = [_name_room(detail, kind, size, room) for detail in shown]
            names = shorten_all([words[i][0] for i in rows], size, free)
            if max(_label_width(pair, kind, size) for pair in zip(names, shown, strict=True)) <= room:
                break
        for i, *pair, wide in zip(rows, names, shown, free, strict=True):
            words[i], rooms[i] = (pair[0], pair[1]), wide
    names = tell_apart([name for name, _ in words], size, rooms)
    words[:] = [(name, detail) for name, (_, detail) in zip(names, words, strict=True)]
    return max((_label_width(pair, kind, size) for pair, kind in zip(words, lines, strict=True)), default=0.0)


def _fit_middle(words: list[tuple[str, str]], size: float, room: float) -> list[tuple[str, str]]:
    """Cut the words over the exchanges to the room between the columns."""
    words = list(words)
    _fit_side(words, [1] * len(words), size, room)
    return words


def _detail(detail: str, level: int) -> str:
    """Say less: first the count goes, then the word after the share, then the share."""
    share = detail.rpartition(" · ")[2]
    return (detail, share, " ".join(share.split()[:2]), "")[level]


def _name_room(detail: str, lines: int, size: float, room: float) -> float:
    """Width that is left for a name."""
    return room if lines == 2 or not detail else max(room - _beside(detail, size), 0.65 * room)


def _label_width(words: tuple[str, str], lines: int, size: float) -> float:
    if lines == 1:
        return one_line(words, size)
    return max(text_width(words[0], size), text_width(words[1], SMALL * size))


def one_line(words: tuple[str, str], size: float) -> float:
    """Width of a name with what stands beside it."""
    name, detail = words
    return text_width(name, size) + _beside(detail, size)


def _beside(detail: str, size: float) -> float:
    return text_width(detail, SMALL * size) + SPACE * size if detail else 0.0
