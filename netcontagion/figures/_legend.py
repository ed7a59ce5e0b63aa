"""The legend under a map."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from netcontagion.figures._ink import EXPOSURE, INK, say
from netcontagion.figures._labels import money, nice_below, text_width
from netcontagion.figures._ribbons import boxes
from netcontagion.figures._sheet import SMALL

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from netcontagion.figures._flows import Flows
    from netcontagion.figures._sheet import Sheet, Style

__all__ = ["ROW", "draw_legend", "legend_rows"]

ROW = 2.2  # height of a row of the legend, in sizes


def legend_rows(flows: Flows, width: float, size: float) -> list[list[tuple[str, float]]]:
    """Break the parts of the legend into rows that fit; each part comes with its width."""
    small, unit = SMALL * size, money(5e8, flows.unit)
    parts = [
        ("scale", 1.2 * size + text_width(unit, small)),
        ("grey", 2.2 * size + text_width(flows.amount_name, small)),
    ]
    if flows.red:
        parts.append(("red", 2.2 * size + text_width(flows.hit_name, small)))
    if any(layer.marked.any() for layer in flows.layers):
        parts.append(("hatch", 2.2 * size + text_width(flows.mark_name, small)))
    if flows.shaded:
        ends = text_width("0100 %", small) + 1.2 * size
        parts.append(("bar", text_width(flows.share_name, small) + 0.8 * size + ends + 5.0 * size))
    rows: list[list[tuple[str, float]]] = [[]]
    for part in parts:
        if rows[-1] and sum(w for _, w in rows[-1]) + part[1] + len(rows[-1]) * 0.9 * size > width:
            rows.append([])
        rows[-1].append(part)
    return rows


def draw_legend(
    ax: Axes, rows: list[list[tuple[str, float]]], flows: Flows, *, scale: float, style: Style, sheet: Sheet
) -> None:
    """Draw the rows from the lower edge up."""
    size = sheet.size
    for r, row in enumerate(rows):
        y = (len(rows) - r - 0.5) * ROW * size
        taken = sum(w for _, w in row)
        space = (sheet.width - taken) / (len(row) - 1) if len(row) > 1 else 0.0
        x, space = 0.0, min(space, 3.0 * size)
        for part, wide in row:
            _draw_part(ax, part, (x, y), flows, scale=scale, style=style, size=size)
            x += wide + space


def _draw_part(
    ax: Axes, part: str, at: tuple[float, float], flows: Flows, *, scale: float, style: Style, size: float
) -> None:
    x, y = at
    small = SMALL * size
    if part == "scale":
        _draw_scale(ax, at, flows.unit, scale=scale, size=size)
    elif part == "bar":
        _draw_bar(ax, at, flows.share_name, cmap=style.cmap, size=size)
    else:
        name = {"grey": flows.amount_name, "red": flows.hit_name, "hatch": flows.mark_name}[part]
        corner = [(x, y - 0.45 * size, 1.7 * size, 0.9 * size)]
        if part == "hatch":
            boxes(ax, corner, "white", edgecolors=INK, linewidths=0.45, hatch="//////", zorder=4.0)
        else:
            boxes(ax, corner, EXPOSURE if part == "grey" else style.accent, linewidths=0.0, zorder=4.0)
        say(ax, x + 2.2 * size, y - 0.36 * small, name, small, gid="legend")


def _draw_scale(ax: Axes, at: tuple[float, float], unit: str, *, scale: float, size: float) -> None:
    """Draw a bar as high as a ribbon of a round sum is wide."""
    from matplotlib.collections import LineCollection

    x, y = at
    amount = nice_below(2.0 * size / scale)
    high = amount * scale
    ends = np.array([-0.3, 0.3]) * size + x + 0.3 * size
    middle = x + 0.3 * size
    segments = [[(ends[0], y + s * high / 2), (ends[1], y + s * high / 2)] for s in (-1, 1)]
    segments.append([(middle, y - high / 2), (middle, y + high / 2)])
    ax.add_collection(LineCollection(segments, colors=INK, linewidths=0.8, zorder=4.0), autolim=False)
    say(ax, x + 1.2 * size, y - 0.36 * SMALL * size, money(amount, unit), SMALL * size, gid="legend")


def _draw_bar(ax: Axes, at: tuple[float, float], name: str, *, cmap: str, size: float) -> None:
    """Draw the colour bar inside the axes: no other axes are made or touched."""
    (x, y), small = at, SMALL * size
    base = y - 0.36 * small
    say(ax, x, base, name, small, gid="legend")
    x += text_width(name, small) + 0.8 * size
    say(ax, x, base, "0", small, gid="legend")
    x += text_width("0", small) + 0.5 * size
    wide, high = 5.0 * size, 0.9 * size
    extent = (x, x + wide, y - high / 2, y + high / 2)
    ax.imshow(np.linspace(0, 1, 256)[None, :], cmap=cmap, vmin=0, vmax=1, extent=extent, aspect="auto", zorder=4.0)
    boxes(ax, [(x, y - high / 2, wide, high)], "none", edgecolors=INK, linewidths=0.45, zorder=4.1)
    say(ax, x + wide + 0.5 * size, base, "100 %", small, gid="legend")
