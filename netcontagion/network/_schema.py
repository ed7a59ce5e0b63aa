"""The schema: every table, column, unit, dtype, default and bound, read once from ``schema.csv``."""

from __future__ import annotations

import csv
import functools
import math
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Column", "Interval", "schema"]


@dataclass(frozen=True)
class Interval:
    """Range of allowed numbers, written as in mathematics: ``[0, inf)``."""

    low: float
    high: float
    low_closed: bool
    high_closed: bool

    @classmethod
    def parse(cls, text: str) -> Interval:
        """Read ``[low, high)``."""
        low, high = (float(part) for part in text[1:-1].split(","))
        return cls(low, high, text[0] == "[", text[-1] == "]")

    def holds(self, values: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Tell which values lie in the interval."""
        above = values >= self.low if self.low_closed else values > self.low
        below = values <= self.high if self.high_closed else values < self.high
        return above & below

    def __str__(self) -> str:
        left, right = "[" if self.low_closed else "(", "]" if self.high_closed else ")"
        return f"{left}{self.low:g}, {self.high:g}{right}"


@dataclass(frozen=True)
class Column:
    """One column of one table."""

    table: str
    name: str
    key: bool
    identity: bool
    dtype: str
    unit: str
    default: str
    allowed: str
    meaning: str

    @property
    def required(self) -> bool:
        """Whether the table is refused without the column."""
        return self.default == "required"

    @property
    def nullable(self) -> bool:
        """Whether a cell may be empty."""
        return self.default == "empty"

    @property
    def refers_to(self) -> str | None:
        """The kind of label the column holds, None where it holds none."""
        return self.dtype.removeprefix("ref:") if self.dtype.startswith("ref:") else None

    @property
    def numeric(self) -> bool:
        """Whether the column holds numbers."""
        return self.dtype in ("number", "integer")

    @property
    def interval(self) -> Interval:
        """Range of allowed numbers."""
        return Interval.parse(self.allowed)

    @property
    def choices(self) -> tuple[str, ...]:
        """Allowed words; empty: any. One that ends in `` ...`` stands for every text that begins like it."""
        return tuple(self.allowed.split("|")) if self.allowed and not self.numeric else ()

    def admits(self, word: str) -> bool:
        """Whether the word is one of the choices, where there are any."""
        opens = tuple(choice.removesuffix("...") for choice in self.choices if choice.endswith(" ..."))
        return not self.choices or word in self.choices or bool(opens and word.startswith(opens))

    @property
    def default_value(self) -> object:
        """What a column left out of the table is filled with."""
        if self.dtype == "number":
            return math.nan if self.nullable else float(self.default)
        if self.dtype == "integer":
            return int(self.default)
        if self.dtype == "boolean":
            return self.default == "True"
        return None if self.nullable else self.default


@functools.cache
def schema() -> dict[str, dict[str, Column]]:
    """Return table -> column name -> :class:`Column`, keys first, in the order of ``schema.csv``."""
    tables: dict[str, dict[str, Column]] = {}
    text = resources.files(__package__).joinpath("schema.csv").read_text(encoding="utf-8")
    for row in csv.DictReader(text.splitlines()):
        column = Column(
            table=row["table"],
            name=row["column"],
            key=row["role"] == "key",
            identity=row["role"] in ("key", "part"),
            dtype=row["dtype"],
            unit=row["unit"],
            default=row["default"],
            allowed=row["allowed"],
            meaning=row["meaning"],
        )
        tables.setdefault(column.table, {})[column.name] = column
    return tables
