"""A layered map as plain arrays and words: all that the drawing code gets to see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Flows", "Layer", "Links", "Room"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Codes = NDArray[np.intp]


class Room(NamedTuple):
    """How much the sheet holds: boxes per layer, links in all, named accounts (None: by the number of accounts)."""

    left: int
    middle: int
    right: int
    links: int
    top: int | None


@dataclass(frozen=True, eq=False)
class Layer:
    """One column of boxes, in the order they are drawn unless reordered; ``hit`` is the distressed part of ``amount``.

    ``marked`` boxes are hatched. ``pinned`` boxes keep their order: those of rank below 0 come first, above 0 last.
    """

    title: str
    names: tuple[str, ...]
    details: tuple[str, ...]
    amount: Floats
    hit: Floats
    marked: Bools
    pinned: Codes

    @property
    def share(self) -> Floats:
        """Distressed share of each box; 0 where the box is empty."""
        return np.divide(self.hit, self.amount, out=np.zeros_like(self.hit), where=self.amount > 0)


@dataclass(frozen=True, eq=False)
class Links:
    """Ribbons from boxes of one layer to boxes of the next, in money; ``hit`` never exceeds ``amount``."""

    source: Codes
    target: Codes
    amount: Floats
    hit: Floats


@dataclass(frozen=True, eq=False)
class Flows:
    """A layered map as plain arrays and words: all that the drawing code gets to see."""

    layers: tuple[Layer, ...]
    links: tuple[Links, ...]
    unit: str
    amount_name: str  # what a grey ribbon is
    hit_name: str  # what its red part is
    hit_word: str  # said after a percentage beside a box
    share_name: str  # title of the colour bar
    mark_name: str  # what a hatched box is
    red: bool  # whether the red parts are drawn
    shaded: bool  # whether boxes are coloured by share
    title: str
    notes: tuple[str, ...]

    @property
    def caption(self) -> str:
        """The sentence under the figure."""
        return " | ".join(self.notes)
