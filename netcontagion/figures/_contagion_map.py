"""The contagion map: layered ribbons from assets over exchanges to accounts, or from debtors to creditors."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion.errors import nearest
from netcontagion.figures._flows import Flows, Layer, Room, read_flows
from netcontagion.figures._labels import money, nice_below, percent, shorten, text_width, wrap
from netcontagion.figures._layout import Column, column_tops, fit_scale, order_layers, ribbon_ends
from netcontagion.figures._ribbons import boxes, ribbon_vertices, ribbons

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from netcontagion.figures._flows import Floats

__all__ = ["caption", "contagion_map"]

SHEET = Path(__file__).with_name("netcontagion.mplstyle")
FIGURE_SIZE = (7.2, 5.2)  # inches: the width of two columns of a journal
MARGIN = 8.0  # points around the map in a figure of our own
INK, SOFT = "#222222", "#6b6b6b"
EXPOSURE, EDGE = "#d6d8dc", "#ffffff"
PLAIN_BOX = "#8d949e"
LINE = 1.28  # height of a line of text, in sizes
SPACE = 0.55  # between a name and what stands beside it, in sizes
SMALL = 0.9  # size of what stands beside a name, in sizes
POINTS = 72.0
DETAIL_LEVELS = 4  # ways to say what stands beside a name, from all of it to nothing
ROW = 2.2  # height of a row of the legend, in sizes


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


def contagion_map(network_or_result: Any, ax: Axes | None = None, **style: Any) -> Axes:
    """Draw who is exposed to what, where, and which part of it is in distress.

    Ribbons run from assets over exchanges to accounts; their width is the value of the collateral before the shock.
    The red part of a ribbon is the collateral of accounts that were liquidated. Boxes are coloured by the share of
    their collateral that is in distress and hatched when they are liquidated or in default. Few accounts are drawn one
    by one; of many, those that lose most are named and the rest is drawn by health before the shock; above 100,000
    only by health. A network without a result is drawn in grey, with boxes coloured by the share of collateral in
    accounts below health 1.1. A network of liabilities alone, or a clearing result, is drawn from debtors to
    creditors, red where dues stay unpaid.

    Letters and gaps are laid out for the size that the axes have when this is called: set the size first.

    Parameters
    ----------
    network_or_result : ExposureNetwork, CascadeResult or ClearingResult
        What to draw. Nothing is solved.
    ax : matplotlib.axes.Axes, optional
        Where to draw. Without it a figure is made, with a title, and a footer that says shock, rounds, seed, the share
        shown and the assumptions; with it that text is what :func:`caption` returns.
    **style
        ``max_nodes=60`` boxes and ``max_links=400`` ribbons at most; the rest is added up or left out, and the footer
        says so. ``top``: how many accounts are named beside the cohorts. ``title``: text, or "" for none.
        ``accent="#b3202c"``: colour of distress. ``cmap="cividis_r"``: colours of the share in distress.

    Returns
    -------
    matplotlib.axes.Axes
        The axes drawn on; its data units are points.

    Raises
    ------
    TypeError
        For an unknown keyword or something that cannot be drawn.
    ContagionError
        When there is neither collateral nor a liability.

    Examples
    --------
    >>> from netcontagion import contagion_map, generators
    >>> contagion_map(generators.market(seed=1)).figure.savefig("map.pdf")  # doctest: +SKIP
    """
    import matplotlib.style

    chosen = _style(style)
    if ax is not None:
        with matplotlib.style.context(SHEET):
            width, height = _points(ax)
            flows = read_flows(network_or_result, _room(width, height, chosen))
            return _draw(ax, flows, chosen, chosen.title or "")

    flows = read_flows(network_or_result, _own_room(chosen))  # before a figure is made, so that an error leaves none
    import matplotlib.pyplot as plt

    # made outside of the style: the first figure chooses the backend, which may set lasting options of its own
    figure = plt.figure(figsize=FIGURE_SIZE, facecolor="white")
    with matplotlib.style.context(SHEET):
        ax = _own_axes(figure, flows)
        return _draw(ax, flows, chosen, flows.title if chosen.title is None else chosen.title)


def caption(network_or_result: Any, ax: Axes | None = None, **style: Any) -> str:
    """Return the footer of a contagion map: shock, rounds, ending, seed, share shown, assumptions.

    How many boxes fit depends on the size of the axes: give the same ``ax`` and style as to :func:`contagion_map` and
    the share shown is that of the map.

    Parameters
    ----------
    network_or_result : ExposureNetwork, CascadeResult or ClearingResult
        What was drawn.
    ax : matplotlib.axes.Axes, optional
        Where it was drawn; without it, in a figure of the default size.
    **style
        As for :func:`contagion_map`.

    Returns
    -------
    str
        One line.
    """
    chosen = _style(style)
    room = _own_room(chosen) if ax is None else _room(*_points(ax), chosen)
    return read_flows(network_or_result, room).caption


def _style(given: dict[str, Any]) -> Style:
    known = [field.name for field in fields(Style)]
    for name in given:
        if name not in known:
            near = nearest(name, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(known)}"
            raise TypeError(f"contagion_map() got an unexpected style keyword {name!r}; {hint}")
    style = Style(**given)
    if style.max_nodes < 6 or style.max_links < 2:
        raise ValueError(
            f"max_nodes must be at least 6 and max_links at least 2, not {style.max_nodes}, {style.max_links}"
        )
    return style


# Sizes ----------------------------------------------------------------------------------------------------------------


def _points(ax: Axes) -> tuple[float, float]:
    figure: Any = ax.get_figure(root=True)
    box = ax.get_window_extent()
    return box.width * POINTS / figure.dpi, box.height * POINTS / figure.dpi


def _letter_size(width: float, height: float) -> float:
    return float(np.clip(3.8 + 0.0072 * min(width, 1.5 * height), 4.5, 9.0))


def _room(width: float, height: float, style: Style) -> Room:
    """How many boxes can be labelled on this sheet."""
    size = _letter_size(width, height)
    body = height - 9.0 * size
    sides = max(int(0.8 * body / (1.5 * size)), 3)
    rooms = [sides, max(int(0.55 * body / (1.6 * size)), 3), sides]
    while sum(rooms) > max(style.max_nodes, 6):
        rooms[rooms.index(max(rooms))] -= 1
    left, middle, right = rooms
    return Room(left, middle, right, style.max_links, style.top)


def _own_room(style: Style) -> Room:
    width, height = (POINTS * side for side in FIGURE_SIZE)
    return _room(width - 2 * MARGIN, height - 2 * MARGIN - 40.0, style)


def _own_axes(figure: Any, flows: Flows) -> Axes:
    """Axes that leave room for the title above and the footer below, and the footer itself."""
    width, height = (POINTS * side for side in FIGURE_SIZE)
    size = 6.5
    lines = wrap(flows.caption, size, width - 2 * MARGIN)
    foot = MARGIN + len(lines) * size * LINE + 5.0
    figure.text(
        MARGIN / width,
        MARGIN / height,
        "\n".join(lines),
        fontsize=size,
        color=SOFT,
        va="bottom",
        linespacing=LINE / 1.17,
        parse_math=False,
        gid="footer",
    )
    ax: Axes = figure.add_axes(
        (MARGIN / width, foot / height, 1 - 2 * MARGIN / width, 1 - (foot + MARGIN + 16.0) / height)
    )
    return ax


# Drawing --------------------------------------------------------------------------------------------------------------


def _draw(ax: Axes, flows: Flows, style: Style, title: str) -> Axes:
    width, height = _points(ax)
    ax.set_axis_off()
    ax.set_xlim(0, width)
    ax.set_ylim(0, height)
    ax.set_autoscale_on(False)
    if title:
        ax.set_title(title, fontsize=1.15 * _letter_size(width, height), parse_math=False)
    size = _letter_size(width, height)
    legend = _legend_rows(flows, width, size)
    foot = 1.1 * size + len(legend) * ROW * size
    head = 2.1 * size
    sheet = Sheet(width, height, size, height - head, height - head - foot)
    placed, scale = _place(flows, sheet)
    _draw_ribbons(ax, flows, placed, scale=scale, style=style, sheet=sheet)
    _draw_boxes(ax, flows, placed, style)
    _draw_words(ax, placed, sheet)
    _draw_headers(ax, placed, sheet)
    _draw_legend(ax, legend, flows, scale=scale, style=style, sheet=sheet)
    return ax


def _place(flows: Flows, sheet: Sheet) -> tuple[list[Placed], float]:
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
    widest = 0.0
    for kind in sorted(set(lines)):
        rows = [i for i, line in enumerate(lines) if line == kind]
        for level in range(DETAIL_LEVELS):
            cut = [_cut(words[i], level, kind, size, room) for i in rows]
            width = max(_label_width(pair, kind, size) for pair in cut)
            if width <= room:
                break
        for i, pair in zip(rows, cut, strict=True):
            words[i] = pair
        widest = max(widest, width)
    return widest


def _fit_middle(words: list[tuple[str, str]], size: float, room: float) -> list[tuple[str, str]]:
    """Cut the words over the exchanges to the room between the columns."""
    words = list(words)
    _fit_side(words, [1] * len(words), size, room)
    return words


def _cut(words: tuple[str, str], level: int, lines: int, size: float, room: float) -> tuple[str, str]:
    """Say less: first the count goes, then the word after the share, then the share; then the name is cut."""
    name, detail = words
    share = detail.rpartition(" · ")[2]
    shown = (detail, share, " ".join(share.split()[:2]), "")[level]
    for_name = room if lines == 2 or not shown else max(room - _beside(shown, size), 0.65 * room)
    if text_width(name, size) > for_name:
        name = name.removeprefix("health ")  # the header says so already
    return shorten(name, size, for_name), shown


def _label_width(words: tuple[str, str], lines: int, size: float) -> float:
    if lines == 1:
        return _one_line(words, size)
    return max(text_width(words[0], size), text_width(words[1], SMALL * size))


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
    reach = max(_one_line(pair, sheet.size) for pair in column.words) / 2 - column.wide / 2
    return max(reach, 0.5 * sheet.size)


def _one_line(words: tuple[str, str], size: float) -> float:
    name, detail = words
    return text_width(name, size) + _beside(detail, size)


def _beside(detail: str, size: float) -> float:
    return text_width(detail, SMALL * size) + SPACE * size if detail else 0.0


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


def _say(ax: Axes, x: float, y: float, text: str, size: float, **more: Any) -> Any:
    more.setdefault("color", INK)
    more.setdefault("va", "baseline")
    return ax.text(x, y, text, fontsize=size, parse_math=False, zorder=6.0, **more)


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
                start = column.x + column.wide / 2 - _one_line(words, sheet.size) / 2
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
        anchor = _say(ax, x, y, detail, SMALL * size, ha="right", **soft)
        _say_next_to(ax, anchor, y, name, size=size, side="left", gap=SPACE * size, gid="label")
        return
    anchor = _say(ax, x, y, name, size, ha=side, gid="label")
    if detail:
        _say_next_to(ax, anchor, y, detail, size=SMALL * size, side="right", gap=SPACE * size, **soft)


def _say_beside(ax: Axes, x: float, y: float, words: tuple[str, str], *, lines: int, size: float, side: str) -> None:
    """Write name and detail beside a box, on two lines or on one."""
    name, detail = words
    if lines == 1:
        _say_line(ax, x, y - 0.36 * size, words, size, side=side)
        return
    _say(ax, x, y + 0.22 * size, name, size, ha=side, gid="label")
    _say(ax, x, y - 0.92 * size, detail, SMALL * size, ha=side, color=SOFT, gid="label")


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
                _say(ax, at, sheet.roof + 0.75 * size, title, size, ha=side, color=SOFT, gid="header")
                taken = x + reach + size
                break


def _shorter_titles(title: str) -> list[str]:
    """List a title and what is left of it as its last parts go: by health, before the shock."""
    return list(dict.fromkeys([title, title.partition(" before")[0], title.partition(" by")[0]]))


# Legend ---------------------------------------------------------------------------------------------------------------


def _legend_rows(flows: Flows, width: float, size: float) -> list[list[tuple[str, float]]]:
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


def _draw_legend(
    ax: Axes, rows: list[list[tuple[str, float]]], flows: Flows, *, scale: float, style: Style, sheet: Sheet
) -> None:
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
        _say(ax, x + 2.2 * size, y - 0.36 * small, name, small, gid="legend")


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
    _say(ax, x + 1.2 * size, y - 0.36 * SMALL * size, money(amount, unit), SMALL * size, gid="legend")


def _draw_bar(ax: Axes, at: tuple[float, float], name: str, *, cmap: str, size: float) -> None:
    """Draw the colour bar inside the axes: no other axes are made or touched."""
    (x, y), small = at, SMALL * size
    base = y - 0.36 * small
    _say(ax, x, base, name, small, gid="legend")
    x += text_width(name, small) + 0.8 * size
    _say(ax, x, base, "0", small, gid="legend")
    x += text_width("0", small) + 0.5 * size
    wide, high = 5.0 * size, 0.9 * size
    extent = (x, x + wide, y - high / 2, y + high / 2)
    ax.imshow(np.linspace(0, 1, 256)[None, :], cmap=cmap, vmin=0, vmax=1, extent=extent, aspect="auto", zorder=4.0)
    boxes(ax, [(x, y - high / 2, wide, high)], "none", edgecolors=INK, linewidths=0.45, zorder=4.1)
    _say(ax, x + wide + 0.5 * size, base, "100 %", small, gid="legend")
