"""Colours of a map, and how it writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["EDGE", "EXPOSURE", "INK", "PLAIN_BOX", "SOFT", "say"]

INK, SOFT = "#222222", "#6b6b6b"
EXPOSURE, EDGE = "#d6d8dc", "#ffffff"
PLAIN_BOX = "#8d949e"


def say(ax: Axes, x: float, y: float, text: str, size: float, **more: Any) -> Any:
    """Write a line of text at a point."""
    more.setdefault("color", INK)
    more.setdefault("va", "baseline")
    return ax.text(x, y, text, fontsize=size, parse_math=False, zorder=6.0, **more)
