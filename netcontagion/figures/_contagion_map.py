"""The contagion map: layered ribbons from assets over exchanges to accounts, or from debtors to creditors."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netcontagion.errors import nearest
from netcontagion.figures._drawing import draw_map
from netcontagion.figures._flows import Room
from netcontagion.figures._ink import SOFT
from netcontagion.figures._labels import wrap
from netcontagion.figures._read import read_flows
from netcontagion.figures._sheet import LINE, POINTS, Style, letter_size, points

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from netcontagion.figures._flows import Flows

__all__ = ["caption", "contagion_map"]

SHEET = Path(__file__).with_name("netcontagion.mplstyle")
FIGURE_SIZE = (7.2, 5.2)  # inches: the width of two columns of a journal
MARGIN = 8.0  # points around the map in a figure of our own


def contagion_map(network_or_result: Any, ax: Axes | None = None, **style: Any) -> Axes:
    """Draw who is exposed to what, where, and which part of it is in distress.

    Ribbons run from assets over exchanges to accounts; their width is the value of the collateral before the shock,
    and the notional of contracts, long or short. The red part of a ribbon is what accounts have that were liquidated.
    Boxes are coloured by the share of it that is in distress and hatched when they are liquidated or in default. Few
    accounts are drawn one by one; of many, those that lose most are named and the rest is drawn by health before the
    shock; above 100,000 only by health. A network without a result is drawn in grey, with boxes coloured by the share
    in accounts below health 1.1. A network of liabilities alone, or a clearing result, is drawn from debtors to
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
            width, height = points(ax)
            flows = read_flows(network_or_result, _room(width, height, chosen))
            return draw_map(ax, flows, chosen, chosen.title or "")

    flows = read_flows(network_or_result, _own_room(chosen))  # before a figure is made, so that an error leaves none
    import matplotlib.pyplot as plt

    # made outside of the style: the first figure chooses the backend, which may set lasting options of its own
    figure = plt.figure(figsize=FIGURE_SIZE, facecolor="white")
    with matplotlib.style.context(SHEET):
        ax = _own_axes(figure, flows)
        return draw_map(ax, flows, chosen, flows.title if chosen.title is None else chosen.title)


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
    room = _own_room(chosen) if ax is None else _room(*points(ax), chosen)
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


def _room(width: float, height: float, style: Style) -> Room:
    """How many boxes can be labelled on this sheet."""
    size = letter_size(width, height)
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
