"""What varies from scenario to scenario: price changes, depth factors and losses, checked as whole columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from netcontagion._arrays import plain
from netcontagion.errors import Problem, SchemaError
from netcontagion.network import Shock
from netcontagion.scenarios._scenarios import Scenarios

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Seed = int | np.random.Generator | None

__all__ = ["Axis", "axes", "count", "in_order", "price_scenarios", "raise_for", "scenarios_of", "size", "wrong_numbers"]


class Kind(NamedTuple):
    """What numbers of a kind are allowed, in words and as a test of an array."""

    allowed: str
    holds: Callable[[Any], Any]


KINDS = {
    "price": Kind("-1 (worthless) or above; -0.3 is -30 %", lambda x: x >= -1),
    "depth": Kind("a factor above 0", lambda x: x > 0),
    "loss": Kind("a share in [0, 1]", lambda x: (x >= 0) & (x <= 1)),
}


class Axis(NamedTuple):
    """One thing that varies: its kind, its name (an asset, else the kind) and the values given for it."""

    kind: str
    name: Any
    values: Floats

    @property
    def place(self) -> str:
        """Where in the call its values stand."""
        return f"price[{self.name!r}]" if self.kind == "price" else self.kind


def axes(
    maker: str, price: Mapping[Any, Any] | None, depth: Any, loss: Any, *, pair: bool = False
) -> tuple[list[Axis], list[Problem]]:
    """Read what a maker was given, and everything that is wrong with it; ``pair`` asks for (low, high)."""
    if price is not None and not isinstance(price, Mapping):
        cure = "for example price={'ETH': [-0.1, -0.2]}"
        return [], [Problem(maker, "price", None, repr(price), "a mapping of asset to numbers", cure)]
    given = [("price", name, values) for name, values in (price or {}).items()]
    given += [(kind, kind, values) for kind, values in (("depth", depth), ("loss", loss)) if values is not None]
    if not given:
        return [], [Problem(maker, None, None, "nothing varies", "price, depth or loss", "give one of them")]
    found: list[Axis] = []
    problems: list[Problem] = []
    for kind, name, values in given:
        axis = Axis(kind, name, _numbers(values))
        found.append(axis)
        problems += _axis_problems(maker, axis, values, pair=pair)
        if kind == "price" and name in ("depth", "loss"):
            cure = "rename the asset: the tables of a sweep have a column of that name"
            problems.append(Problem(maker, axis.place, None, repr(name), "another name", cure))
    return found, problems


def _numbers(values: Any) -> Floats:
    """Return numbers as an array; what is none becomes NaN, and is reported as it was given."""
    items = list(values) if isinstance(values, Iterable) and not isinstance(values, str) else [values]
    return np.array([_number(item) for item in items], dtype=float)


def _number(item: Any) -> float:
    value = plain(item)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else np.nan


def _axis_problems(maker: str, axis: Axis, given: Any, *, pair: bool) -> list[Problem]:
    if pair and len(axis.values) != 2:
        return [Problem(maker, axis.place, None, repr(given), "(low, high)", "give two numbers")]
    if not len(axis.values):
        return [Problem(maker, axis.place, None, "no value", "at least one number", "give values, or leave it out")]
    problems = wrong_numbers(maker, axis.place, axis.kind, axis.values, given)
    if pair and not problems and axis.values[0] > axis.values[1]:
        problems.append(Problem(maker, axis.place, None, repr(given), "low <= high", "change the order"))
    return problems


def wrong_numbers(maker: str, place: str, kind: str, values: Floats, given: Any = None) -> list[Problem]:
    """List the numbers that are not finite or not allowed for their kind."""
    shown = values if given is None or not isinstance(given, Iterable) or isinstance(given, str) else list(given)
    rows = np.flatnonzero(~(np.isfinite(values) & KINDS[kind].holds(values))).tolist()
    allowed = KINDS[kind].allowed
    return [Problem(maker, place, row, repr(plain(shown[row])), allowed, "correct the number") for row in rows]


def count(maker: str, column: str, value: Any) -> list[Problem]:
    """Say what is wrong with a number of scenarios, rows or periods."""
    if isinstance(plain(value), int) and not isinstance(plain(value), bool) and value >= 1:
        return []
    return [Problem(maker, column, None, repr(value), "a whole number, 1 or more", "correct the number")]


def size(maker: str, column: str, value: Any, *, above: float = 0.0, least: float = -np.inf) -> list[Problem]:
    """Say what is wrong with a finite number that must lie above one bound and not below another."""
    number = _number(value)
    if np.isfinite(number) and number > above and number >= least:
        return []
    allowed = f"{least:g} or more" if least > above else f"above {above:g}"
    return [Problem(maker, column, None, repr(value), f"a number {allowed}", "correct the number")]


def in_order(names: Iterable[Any]) -> list[int]:
    """Places of the names in alphabetical order: draws do not depend on the order in which assets are named."""
    listed = list(names)
    return sorted(range(len(listed)), key=lambda place: repr(listed[place]))


def scenarios_of(
    varied: Sequence[Axis], rows: Floats, *, family: bool, before: Mapping[str, Any] | None = None
) -> Scenarios:
    """Make a scenario of every row of numbers (n, axes), checked before; ``before`` are parameters that come first."""
    import pandas as pd

    ordered = [varied[place] for place in in_order(axis.name for axis in varied)]
    column = {axis.name: place for place, axis in enumerate(varied)}
    named = [(axis.name, column[axis.name]) for axis in ordered if axis.kind == "price"]
    depths, losses = ([column[axis.name] for axis in varied if axis.kind == kind] for kind in ("depth", "loss"))
    shocks = (
        Shock(
            moves=((tuple((name, row[place]) for name, place in named), bool(family)),) if named else (),
            depth_factors=tuple(row[place] for place in depths),
            loss_shares=tuple(row[place] for place in losses),
        )
        for row in rows.tolist()
    )
    columns = {axis.name: rows[:, place] for place, axis in enumerate(varied)}
    return Scenarios(shocks, pd.DataFrame({**(before or {}), **columns}))


def price_scenarios(
    names: Iterable[Any], changes: Floats, *, family: bool, before: Mapping[str, Any] | None = None
) -> Scenarios:
    """Make a scenario of every row of price changes (n, assets)."""
    none_given = np.empty(0)
    return scenarios_of([Axis("price", name, none_given) for name in names], changes, family=family, before=before)


def raise_for(problems: list[Problem]) -> None:
    """Raise one error that lists every problem, where there is any."""
    if problems:
        raise SchemaError(problems)
