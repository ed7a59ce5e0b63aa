"""Errors, all under :class:`ContagionError`. Each says what is wrong and what cures it."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = [
    "ContagionError",
    "DatasetError",
    "NotSettledError",
    "Problem",
    "SchemaError",
    "UnknownLabelError",
    "nearest",
]

SHOWN_PROBLEMS = 25


class ContagionError(Exception):
    """Base class of every error that the package raises on purpose; it travels between processes with all it holds."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self), self.args, self.__dict__)


def _restored(kind: type[ContagionError], args: tuple[Any, ...], state: dict[str, Any]) -> ContagionError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


@dataclass(frozen=True)
class Problem:
    """One thing wrong with one cell (or column, or table) of the input.

    ``row`` is the position of the row in the table as it was given, counted from 0.
    """

    table: str
    column: str | None
    row: int | None
    value: object
    allowed: str
    cure: str

    def __str__(self) -> str:
        place = self.table + (f".{self.column}" if self.column else "")
        row = "" if self.row is None else f", row {self.row}"
        return f"{place}{row}: {self.value}; allowed: {self.allowed}; cure: {self.cure}"


class SchemaError(ContagionError, ValueError):
    """The input does not fit the schema; ``problems`` lists everything that is wrong with it."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(problems)
        count = len(self.problems)
        head = "1 problem" if count == 1 else f"{count} problems"
        lines = [f"  - {problem}" for problem in self.problems[:SHOWN_PROBLEMS]]
        if count > SHOWN_PROBLEMS:
            lines.append(f"  ... and {count - SHOWN_PROBLEMS} more in SchemaError.problems")
        super().__init__("\n".join([f"{head} in the input, nothing was loaded:", *lines]))


class UnknownLabelError(ContagionError, LookupError):
    """A name that the network (or the option) does not know; the message names the nearest ones."""

    def __init__(self, label: object, known: Iterable[Any], what: str = "label") -> None:
        self.label = label
        self.near = nearest(label, known)
        hint = f"; did you mean {', '.join(repr(name) for name in self.near)}?" if self.near else ""
        super().__init__(f"unknown {what} {label!r}{hint}")

    @classmethod
    def together(cls, errors: Sequence[UnknownLabelError]) -> UnknownLabelError:
        """Make one error of several; ``label`` and ``near`` are those of the first."""
        if len(errors) == 1:
            return errors[0]
        joined = cls.__new__(cls)
        joined.label, joined.near = errors[0].label, errors[0].near
        shown = [f"  - {error}" for error in errors[:SHOWN_PROBLEMS]]
        shown += [f"  ... and {len(errors) - SHOWN_PROBLEMS} more"] if len(errors) > SHOWN_PROBLEMS else []
        joined.args = ("\n".join([f"{len(errors)} names are unknown:", *shown]),)
        return joined


class NotSettledError(ContagionError, RuntimeError):
    """A solve or a cascade ended without settling; ``result`` holds what it had reached."""

    def __init__(self, message: str, result: object) -> None:
        self.result = result
        super().__init__(f"{message} (the unsettled result is in this error's .result; strict=False returns it)")


class DatasetError(ContagionError, OSError):
    """A data set could not be found, downloaded or verified; nothing was left half written."""


def nearest(label: object, known: Iterable[Any], count: int = 3) -> list[Any]:
    """Return the known names closest to a misspelt one, best first."""
    names: dict[str, Any] = {}
    for name in known:
        names.setdefault(str(name).strip().casefold(), name)
        if len(names) >= 100_000:
            break
    close: Sequence[str] = difflib.get_close_matches(str(label).strip().casefold(), list(names), n=count, cutoff=0.6)
    return [names[name] for name in close]
