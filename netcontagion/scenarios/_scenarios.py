"""Many shocks beside the parameters that made them, and how they are put together."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

from netcontagion.errors import Problem, SchemaError, UnknownLabelError
from netcontagion.network import Shock

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

    from netcontagion.network import ExposureNetwork

    Names = Iterator[tuple[str, Any, bool]]

__all__ = ["Scenarios", "as_scenarios", "concat", "cross"]

INDEX = "scenario"
SHOWN = 60  # rows of the table in a notebook


class Scenarios(Sequence[Shock]):
    """Shocks in a fixed order, each with the parameters that made it; made by the functions of this room.

    ``scenarios + shock`` adds the shock to each, ``scenarios + scenarios`` of one length adds one by one,
    :func:`cross` takes every combination, :func:`concat` one after the other. A slice is again scenarios.

    Parameters
    ----------
    shocks : iterable of Shock
        One per scenario.
    parameters : DataFrame or mapping of columns, optional
        One row per scenario, in the same order; by default the column ``shock``, what each says of itself.

    Raises
    ------
    SchemaError
        Something that is no shock; every such item is listed.
    ValueError
        As many rows as shocks are needed.

    Examples
    --------
    >>> from netcontagion import Shock, scenarios
    >>> falls = scenarios.grid(price={"ETH": [-0.1, -0.3]}, family=True)
    >>> print((falls + Shock.depth(0.5))[1])
    ETH family -30 %, depth x 0.5
    >>> falls.parameters["ETH"].tolist()
    [-0.1, -0.3]
    """

    __slots__ = ("_parameters", "_shocks")

    def __init__(self, shocks: Iterable[Shock], parameters: pd.DataFrame | Mapping[str, Any] | None = None) -> None:
        import pandas as pd

        self._shocks = _checked(shocks)
        given = (
            {"shock": pd.Series([str(one) for one in self._shocks], dtype=str)} if parameters is None else parameters
        )
        table = pd.DataFrame(given).reset_index(drop=True)
        if len(table) != len(self._shocks):
            if len(table.columns):
                raise ValueError(
                    f"{len(self._shocks)} shocks have {len(table)} rows of parameters; give a row for each"
                )
            table = pd.DataFrame(index=range(len(self._shocks)))
        self._parameters = table.rename_axis(index=INDEX)

    @property
    def shocks(self) -> tuple[Shock, ...]:
        """The shocks, in order."""
        return self._shocks

    @property
    def parameters(self) -> pd.DataFrame:
        """What made each scenario, one row each, index ``scenario`` from 0."""
        return self._parameters.copy(deep=False)

    def check(self, net: ExposureNetwork) -> None:
        """Refuse names that the network does not know; the error lists every one, with its nearest labels.

        Parameters
        ----------
        net : ExposureNetwork
            Network the shocks are for.

        Raises
        ------
        UnknownLabelError
            Assets, traders or exchanges that the network does not know.
        """
        errors = []
        known = {"trader": net.labels("traders"), "exchange": net.labels("exchanges")}
        for kind, name, family in dict.fromkeys(itertools.chain.from_iterable(map(_names, self._shocks))):
            if type(name) in (str, int) and name in known.get(kind, ()):
                continue
            try:
                _look_up(net, kind, name, family=family)
            except UnknownLabelError as error:
                errors.append(error)
        if errors:
            raise UnknownLabelError.together(errors)

    def __len__(self) -> int:
        return len(self._shocks)

    @overload
    def __getitem__(self, place: int) -> Shock: ...
    @overload
    def __getitem__(self, place: slice) -> Scenarios: ...
    def __getitem__(self, place: int | slice) -> Shock | Scenarios:
        if isinstance(place, slice):
            return Scenarios(self._shocks[place], self._parameters.iloc[place])
        return self._shocks[place]

    def __add__(self, other: Shock | Scenarios) -> Scenarios:
        if isinstance(other, Shock):
            return Scenarios([one + other for one in self._shocks], self._parameters)
        if not isinstance(other, Scenarios):
            return NotImplemented
        if len(self) != len(other):
            message = (
                f"{len(self)} and {len(other)} scenarios cannot be added one by one; cross() takes every combination"
            )
            raise ValueError(message)
        shocks = [one + two for one, two in zip(self._shocks, other._shocks, strict=True)]
        return Scenarios(shocks, _beside([self._parameters, other._parameters]))

    __radd__ = __add__

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Scenarios):
            return NotImplemented
        return self._shocks == other._shocks and self._parameters.equals(other._parameters)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{self._headline()}\n{self._parameters}"

    def _repr_html_(self) -> str:
        return f"<p>{self._headline()}</p>{self._parameters.to_html(max_rows=SHOWN)}"

    def _headline(self) -> str:
        return f"{len(self):,} scenario{'' if len(self) == 1 else 's'}"


def as_scenarios(shocks: Shock | Iterable[Shock]) -> Scenarios:
    """Turn a shock, several, or scenarios into scenarios.

    Parameters
    ----------
    shocks : Shock, iterable of Shock, or Scenarios
        Scenarios are given back as they are.

    Returns
    -------
    Scenarios

    Raises
    ------
    SchemaError
        Something that is no shock; every such item is listed.

    Examples
    --------
    >>> from netcontagion import Shock, scenarios
    >>> scenarios.as_scenarios([Shock.depth(0.5), Shock.loss(0.1)]).parameters["shock"].tolist()
    ['depth x 0.5', 'loss of 10 % of external assets']
    """
    if isinstance(shocks, Scenarios):
        return shocks
    return Scenarios([shocks] if isinstance(shocks, Shock) else shocks)


def cross(*several: Shock | Iterable[Shock]) -> Scenarios:
    """Combine every scenario of each with every one of the others, the last changing fastest.

    Parameters
    ----------
    *several : Scenarios, Shock or iterable of Shock
        What to combine. A parameter that comes twice with other values is numbered: ``ETH``, ``ETH (2)``.

    Returns
    -------
    Scenarios
        len(a) x len(b) x ... scenarios.

    Examples
    --------
    >>> from netcontagion import scenarios
    >>> both = scenarios.cross(scenarios.grid(price={"ETH": [-0.1, -0.2]}), scenarios.grid(depth=[1.0, 0.5]))
    >>> both.parameters["depth"].tolist()
    [1.0, 0.5, 1.0, 0.5]
    """
    import numpy as np

    parts = _parts(several)
    shocks = [sum(combined, Shock()) for combined in itertools.product(*(part.shocks for part in parts))]
    places = np.unravel_index(np.arange(len(shocks)), [len(part) for part in parts])
    rows = [part.parameters.iloc[place].reset_index(drop=True) for part, place in zip(parts, places, strict=True)]
    return Scenarios(shocks, _beside(rows))


def concat(*several: Shock | Iterable[Shock]) -> Scenarios:
    """Put scenarios one after the other.

    Parameters
    ----------
    *several : Scenarios, Shock or iterable of Shock
        In order. A parameter that one of them does not have is empty there.

    Returns
    -------
    Scenarios

    Examples
    --------
    >>> from netcontagion import Shock, scenarios
    >>> both = scenarios.concat(scenarios.grid(depth=[1.0, 0.5]), scenarios.grid(loss=[0.1]))
    >>> both.parameters["depth"].tolist()
    [1.0, 0.5, nan]
    """
    import pandas as pd

    parts = _parts(several)
    shocks = itertools.chain.from_iterable(part.shocks for part in parts)
    return Scenarios(shocks, pd.concat([part.parameters for part in parts], ignore_index=True))


def _checked(shocks: Iterable[Shock]) -> tuple[Shock, ...]:
    """Return the shocks as a tuple, or one error about every item that is none."""
    cure = "for example Shock.price({'ETH': -0.3})"
    if isinstance(shocks, (str, Mapping)) or not isinstance(shocks, Iterable):
        raise SchemaError([Problem("scenarios", None, None, f"{shocks!r}", "a Shock, or several in a list", cure)])
    found = tuple(shocks)
    wrong = [place for place, one in enumerate(found) if not isinstance(one, Shock)]
    if wrong:
        raise SchemaError(Problem("scenarios", None, at, f"{found[at]!r}", "a Shock", cure) for at in wrong)
    return found


def _parts(several: tuple[Shock | Iterable[Shock], ...]) -> list[Scenarios]:
    if not several:
        message = "give at least one Scenarios"
        raise ValueError(message)
    return [as_scenarios(one) for one in several]


def _beside(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """Join tables of one length side by side; a column that comes again with other values is numbered."""
    joined = tables[0].copy(deep=False)
    for table in tables[1:]:
        for name, values in table.items():
            if name in joined and joined[name].equals(values):
                continue
            numbered = (f"{name} ({number})" for number in itertools.count(2))
            joined[name if name not in joined else next(new for new in numbered if new not in joined)] = values
    return joined


def _names(shock: Shock) -> Names:
    """Yield kind, name and whether its family follows, for every name of a shock."""
    for _, strike in shock.strikes:
        for pairs, family in strike.moves:
            yield from (("asset", name, family) for name, _ in pairs)
        for name, _ in strike.losses:
            yield "trader", name, False
        for name in _sorted(strike.defaults):
            yield "trader", name, False
        for name in _sorted(strike.outages):
            yield "exchange", name, False


def _sorted(names: frozenset[Any]) -> Iterable[Any]:
    return sorted(names, key=repr) if len(names) > 1 else names


def _look_up(net: ExposureNetwork, kind: str, name: Any, *, family: bool) -> None:
    """Refuse a name the network does not know."""
    if kind == "asset":
        Shock.price({name: 0.0}, family=family).price_factors(net)
    elif kind == "trader":
        Shock.default(name).failing(net)
    else:
        Shock.outage(name).out(net)
