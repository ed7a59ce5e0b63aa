"""Words on a map: numbers with their unit, names short enough, and their size on paper."""

from __future__ import annotations

import math
import re
from typing import Any

__all__ = ["money", "nice_below", "percent", "shorten", "shorten_all", "tell_apart", "text_width", "wrap"]

SUFFIXES = ((1e12, "tn"), (1e9, "bn"), (1e6, "m"), (1e3, "k"))
SCALED_UNITS = {"k": 1e3, "m": 1e6, "mn": 1e6, "mio": 1e6, "million": 1e6, "bn": 1e9, "billion": 1e9, "tn": 1e12}
ELLIPSIS = "…"
HEADS = (3, 1)  # letters before the cut where a name is cut early, so that what it ends with stays
HINTING = 1.08  # screens draw small letters wider than the font says, by up to a tenth


def money(value: float, unit: str) -> str:
    """Write an amount with three digits, a suffix and its unit: ``451m USD``; a unit such as EUR m is resolved.

    Examples
    --------
    >>> money(451_600_000.0, "USD"), money(2_500.0, "EUR m")
    ('452m USD', '2.5bn EUR')
    """
    base, _, scale = unit.rpartition(" ")
    if base and scale.lower() in SCALED_UNITS:
        value, unit = value * SCALED_UNITS[scale.lower()], base
    for size, suffix in SUFFIXES:
        if abs(value) >= 0.9995 * size:
            digits = value / size
            shown = f"{digits:,.0f}" if abs(digits) >= 99.95 else f"{digits:.3g}"
            return f"{shown}{suffix} {unit}".rstrip()
    return f"{value:.3g} {unit}".rstrip()


def percent(share: float) -> str:
    """Write a share as a whole percentage that never rounds something to nothing nor a part to the whole.

    Examples
    --------
    >>> percent(0.384), percent(0.001), percent(0.9999)
    ('38 %', '<1 %', '>99 %')
    """
    if 0 < share < 0.005:
        return "<1 %"
    if 0.995 <= share < 1 - 1e-9:
        return ">99 %"
    return f"{100 * share:.0f} %"


def nice_below(value: float) -> float:
    """Return the largest of 1, 2, 5 times a power of ten that does not exceed ``value``."""
    power = 10.0 ** math.floor(math.log10(value))
    return next((step * power for step in (5.0, 2.0) if step * power <= value), power)


def text_width(text: str, size: float) -> float:
    """Return the width to keep free for a line, in points, in the font that will draw it."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    if not text:
        return 0.0
    width: Any = text_to_path.get_text_width_height_descent(text, FontProperties(size=size), ismath=False)[0]
    return HINTING * float(width)


def shorten(text: str, size: float, room: float, head: int | None = None) -> str:
    """Cut the middle out of a name so that it fits; both ends of an address tell it apart.

    A name of an address's length is cut even where there is room: nobody reads 42 digits. ``head``: letters to keep
    before the cut, by default half.
    """
    if text.startswith("0x") and len(text) > 20:
        text = f"{text[:6]}{ELLIPSIS}{text[-4:]}"
    elif len(text) > 32:
        text = f"{text[:18]}{ELLIPSIS}{text[-12:]}"
    if text_width(text, size) <= room:
        return text
    text = text.removeprefix("health ")  # the header says so already
    if text_width(text, size) <= room:
        return text
    ends = text.replace(ELLIPSIS, "")
    for kept in range(len(ends) - 1, 2, -1):
        before = kept - kept // 2 if head is None else min(head, kept - 1)
        short = f"{ends[:before]}{ELLIPSIS}{ends[len(ends) - kept + before :]}"
        if text_width(short, size) <= room:
            return short
    return ends[:2] + ELLIPSIS


def shorten_all(names: list[str], size: float, rooms: list[float]) -> list[str]:
    """Cut the names of a column alike, each to its room: where the most of them, and of their numbers, stay apart."""

    def kept(shown: list[str]) -> tuple[int, int]:
        numbers = sum(len(set(_numbers(name)) & set(_numbers(short))) for name, short in zip(names, shown, strict=True))
        return len(set(shown)), numbers

    best = [shorten(name, size, room) for name, room in zip(names, rooms, strict=True)]
    if best == names:
        return best
    others = [[shorten(name, size, room, head) for name, room in zip(names, rooms, strict=True)] for head in HEADS]
    return max([best, *others], key=kept)


def _numbers(text: str) -> list[str]:
    return re.findall(r"\d+", text)


def tell_apart(shown: list[str], size: float, rooms: list[float]) -> list[str]:
    """Give labels that are the same a number each, cut so that they still fit."""
    apart: list[str] = []
    taken = set(shown)
    for i, (label, room) in enumerate(zip(shown, rooms, strict=True)):
        count = shown[:i].count(label)
        new = label
        while count and new in taken:
            count += 1
            mark = f" #{count}"
            new = shorten(label, size, room - text_width(mark, size)) + mark
        taken.add(new)
        apart.append(new)
    return apart


def wrap(text: str, size: float, room: float) -> list[str]:
    """Break a text into lines no wider than ``room`` points."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(longer, size) <= room:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
