"""Read the numbers of array functions: all of them checked, one error for everything that is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion.errors import Problem, SchemaError, UnknownLabelError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import ArrayLike, NDArray

__all__ = ["AMOUNT", "ANY", "POSITIVE", "Given", "choice"]

ANY = "(-inf, inf)"
AMOUNT = "[0, inf)"
POSITIVE = "(0, inf)"


class Given:
    """Numbers that a caller gives to ``function``, read one by one; :meth:`done` raises what is wrong with them."""

    def __init__(self, function: str) -> None:
        self.function = function
        self.problems: list[Problem] = []
        self.read: dict[str, NDArray[np.float64]] = {}

    def numbers(self, name: str, values: ArrayLike, allowed: str = ANY, *, dimensions: int | None = None) -> Any:
        """Read numbers in an interval such as ``(0, inf]``; a problem for each that is not in it."""
        try:
            array = np.asarray(values, dtype=float)
        except (TypeError, ValueError):
            self.refuse(name, None, repr(values)[:60], "numbers", "remove what is not a number")
            return np.zeros(())
        if dimensions is not None and array.ndim != dimensions:
            shape = {0: "one number", 1: "(n,)"}.get(dimensions, f"{dimensions} dimensions")
            self.refuse(name, None, f"shape {array.shape}", shape, f"give {name} that way")
        low, high = (float(end) for end in allowed[1:-1].split(","))
        above = array >= low if allowed[0] == "[" else array > low
        below = array <= high if allowed[-1] == "]" else array < high
        for at in np.flatnonzero(~(above & below)):
            self.refuse(name, int(at) if array.ndim else None, float(array.ravel()[at]), allowed, f"check {name}")
        self.read[name] = array
        return array

    def refuse(self, name: str, row: int | None, value: object, allowed: str, cure: str) -> None:
        """Note a problem."""
        self.problems.append(Problem(self.function, name, row, value, allowed, cure))

    def done(self) -> tuple[int, ...]:
        """Raise what is wrong, shapes that do not go together included; return the common shape."""
        try:
            shape = np.broadcast_shapes(*(array.shape for array in self.read.values()))
        except ValueError:
            shapes = ", ".join(f"{name} {array.shape}" for name, array in self.read.items())
            self.refuse(next(iter(self.read)), None, shapes, "shapes that go together", "give arrays of one shape")
            shape = ()
        if self.problems:
            raise SchemaError(self.problems)
        return shape


def choice(value: str, known: Iterable[str], what: str) -> str:
    """Return an option that exists; refuse others, naming the nearest."""
    if value not in known:
        raise UnknownLabelError(value, known, what)
    return value
