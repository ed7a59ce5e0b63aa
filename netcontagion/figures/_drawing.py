"""Drawing a map that was read and placed: ribbons, boxes, words, headers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion.figures._ink import EDGE, EXPOSURE, INK, PLAIN_BOX, SOFT, say
from netcontagion.figures._labels import text_width
from netcontagion.figures._layout import ribbon_ends
from netcontagion.figures._legend import ROW, draw_legend, legend_rows
from netcontagion.figures._ribbons import boxes, ribbon_vertices, ribbons
from netcontagion.figures._sheet import SMALL, SPACE, Sheet, letter_size, one_line, place, points

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from netcontagion.figures._flows import Flows
    from netcontagion.figures._sheet import Placed, Style

__all__ = ["draw_map"]


def draw_map(ax: Axes, flows: Flows, style: Style, title: str) -> Axes:
    """Draw flows on axes."""
    width, height = points(ax)
    ax.set_axis_off()
    ax.set_xlim(0, width)
    ax.set_ylim(0, height)
    ax.set_autoscale_on(False)
    if title:
        ax.set_title(title, fontsize=1.15 * letter_size(width, height), parse_math=False)
    size = letter_size(width, height)
    legend = legend_rows(flows, width, size)
    foot = 1.1 * size + len(legend) * ROW * size
    head = 2.1 * size
    sheet = Sheet(width, height, size, height - head, height - head - foot)
    placed, scale = place(flows, sheet)
    _draw_ribbons(ax, flows, placed, scale=scale, style=style, sheet=sheet)
    _draw_boxes(ax, flows, placed, style)
    _draw_words(ax, placed, sheet)
    _draw_headers(ax, placed, sheet)
    draw_legend(ax, legend, flows, scale=scale, style=style, sheet=sheet)
    return ax


def _draw_ribbons(ax: Axes, flows: Flows, placed: list[Placed], *, scale: float, style: Style, sheet: Sheet) -> None:
    """All grey ribbons as one collection, all red parts as another; a red part lies at the upper edge of its grey."""
    grey, red, wide_grey, wide_red = [], [], [], []
    for k, links in enumerate(flows.links):
        left, right = placed[k], placed[k + 1]
        upper = ribbon_ends(links, (left.tops, right.tops), scale)
        x = (left.x + left.wide, right.x)
        lead = (_lead(left, k, len(placed), sheet), _lead(right, k + 1, len(placed), sheet))
        width, part = links.amount * scale, links.hit * scale
        grey.append(ribbon_vertices(x, lead, upper, width))
        wide_grey.append(width)
        hit = part > 0
        red.append(ribbon_vertices(x, lead, (upper[0][hit], upper[1][hit]), part[hit]))
        wide_red.append(part[hit])
    ribbons(ax, np.concatenate(grey), np.concatenate(wide_grey), colour=EXPOSURE, edge=EDGE, zorder=1.0).set_gid(
        "exposure"
    )
    if flows.red:
        ribbons(ax, np.concatenate(red), np.concatenate(wide_red), colour=style.accent, edge=EDGE, zorder=2.0).set_gid(
            "distress"
        )


def _lead(column: Placed, k: int, count: int, sheet: Sheet) -> float:
    """How far ribbons run level from a box: under an exchange's label as far as the label reaches."""
    if not 0 < k < count - 1:
        return 0.5 * sheet.size
    reach = max(one_line(pair, sheet.size) for pair in column.words) / 2 - column.wide / 2
    return max(reach, 0.5 * sheet.size)


def _draw_boxes(ax: Axes, flows: Flows, placed: list[Placed], style: Style) -> None:
    from matplotlib import colormaps

    corners = [
        (column.x, float(top - height), column.wide, float(height))
        for column in placed
        for top, height in zip(column.tops, column.heights, strict=True)
    ]
    share = np.concatenate([column.layer.share for column in placed])
    faces: Any = colormaps[style.cmap](share) if flows.shaded else [PLAIN_BOX] * len(share)
    boxes(ax, corners, faces, edgecolors=INK, linewidths=0.45, zorder=4.0).set_gid("boxes")
    boxes(ax, corners, "none", edgecolors=INK, linewidths=0.45, zorder=4.6)  # over the hatching
    marked = np.concatenate([column.layer.marked for column in placed])
    dark = _is_dark(np.asarray(faces)) if flows.shaded else np.zeros(len(share), dtype=bool)
    for chosen, colour in ((marked & dark, "white"), (marked & ~dark, INK)):
        if chosen.any():
            _hatch(ax, [corners[i] for i in np.flatnonzero(chosen)], colour)


def _hatch(ax: Axes, corners: list[tuple[float, float, float, float]], colour: str) -> None:
    boxes(ax, corners, "none", edgecolors=colour, linewidths=0.0, hatch="//////", zorder=4.5).set_gid("hatched")


def _is_dark(colours: Any) -> Any:
    return colours[:, :3] @ np.array([0.299, 0.587, 0.114]) < 0.45


# Words ----------------------------------------------------------------------------------------------------------------


def _say_next_to(ax: Axes, anchor: Any, y: float, text: str, *, size: float, side: str, gap: float, **more: Any) -> Any:
    """Write to the left or right of another text, wherever that ends once it is drawn."""
    more.setdefault("color", INK)
    right = side == "right"
    return ax.annotate(
        text,
        (1.0 if right else 0.0, y),
        xycoords=(anchor, "data"),
        xytext=(gap if right else -gap, 0.0),
        textcoords="offset points",
        fontsize=size,
        ha="left" if right else "right",
        va="baseline",
        parse_math=False,
        annotation_clip=False,
        zorder=6.0,
        **more,
    )


def _draw_words(ax: Axes, placed: list[Placed], sheet: Sheet) -> None:
    last = len(placed) - 1
    for k, column in enumerate(placed):
        for i, words in enumerate(column.words):
            top, middle = float(column.tops[i]), float(column.tops[i] - column.heights[i] / 2)
            if 0 < k < last:
                start = column.x + column.wide / 2 - one_line(words, sheet.size) / 2
                _say_line(ax, start, top + 0.38 * sheet.size, words, sheet.size)
            elif k == 0:
                _say_beside(
                    ax, column.x - 0.5 * sheet.size, middle, words, lines=column.lines[i], size=sheet.size, side="right"
                )
            else:
                x = column.x + column.wide + 0.5 * sheet.size
                _say_beside(ax, x, middle, words, lines=column.lines[i], size=sheet.size, side="left")


def _say_line(ax: Axes, x: float, y: float, words: tuple[str, str], size: float, *, side: str = "left") -> None:
    """Write name and detail on one line that starts (left) or ends (right) at x."""
    name, detail = words
    soft: dict[str, Any] = {"color": SOFT, "gid": "label"}
    if side == "right" and detail:
        anchor = say(ax, x, y, detail, SMALL * size, ha="right", **soft)
        _say_next_to(ax, anchor, y, name, size=size, side="left", gap=SPACE * size, gid="label")
        return
    anchor = say(ax, x, y, name, size, ha=side, gid="label")
    if detail:
        _say_next_to(ax, anchor, y, detail, size=SMALL * size, side="right", gap=SPACE * size, **soft)


def _say_beside(ax: Axes, x: float, y: float, words: tuple[str, str], *, lines: int, size: float, side: str) -> None:
    """Write name and detail beside a box, on two lines or on one."""
    name, detail = words
    if lines == 1:
        _say_line(ax, x, y - 0.36 * size, words, size, side=side)
        return
    say(ax, x, y + 0.22 * size, name, size, ha=side, gid="label")
    say(ax, x, y - 0.92 * size, detail, SMALL * size, ha=side, color=SOFT, gid="label")


def _draw_headers(ax: Axes, placed: list[Placed], sheet: Sheet) -> None:
    """Name the columns above them; a long name is cut back to what fits beside the one before it."""
    last, size, taken = len(placed) - 1, sheet.size, 0.0
    for k, column in enumerate(placed):
        for title in _shorter_titles(column.layer.title):
            reach = text_width(title, size)
            if k == 0:
                x = max(column.x + column.wide - reach, 0.0)
            elif k == last:
                x = min(column.x, sheet.width - reach)
            else:
                x = column.x + column.wide / 2 - reach / 2
            if x >= taken:
                at, side = (sheet.width, "right") if k == last and x < column.x else (x, "left")
                say(ax, at, sheet.roof + 0.75 * size, title, size, ha=side, color=SOFT, gid="header")
                taken = x + reach + size
                break


def _shorter_titles(title: str) -> list[str]:
    """List a title and what is left of it as its last parts go: by health, before the shock."""
    return list(dict.fromkeys([title, title.partition(" before")[0], title.partition(" by")[0]]))
