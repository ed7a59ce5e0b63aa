"""Trader policies: presets read from TOML into frozen objects (data, no behaviour)."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from netcontagion.errors import ContagionError, nearest
from netcontagion.network._presets import preset_names, read_preset
from netcontagion.network._rule_fields import count, flag, keys_of, number, word

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Buying", "Policy", "Run", "Stop", "policies", "policy"]

_HEADER = ("name", "note")
_REQUIRED: Any = dataclasses.MISSING


@dataclass(frozen=True)
class Stop:
    """A resting order to sell a share of every holding once its price has fallen by some share of the opening price.

    Or to close a share of every position once its mark has moved against it by some share of the opening mark.
    """

    drop: float = number("(0, 1)", _REQUIRED, "adverse move of the price at which the order fires")
    share: float = number("(0, 1]", 1.0, "share of the opening units sold")
    of: str = word(("holdings", "positions"), "what is sold or closed", "holdings")


@dataclass(frozen=True)
class Buying:
    """Demand of ``demand x depth x (1 - discount - p / f)+`` units of each asset at price p, f after the shock."""

    demand: float = number("[0, inf)", 0.0, "units bought per relative discount, in depths of the book")
    discount: float = number("[0, 1)", 0.0, "discount from which the trader buys")


@dataclass(frozen=True)
class Run:
    """Withdrawal of the share ``w0 + w1 x (coverage - c)+``, at most 1, of free deposits in a round.

    c is what an exchange has over what it owed its accounts before losses were shared, ``lag`` rounds ago.
    """

    w0: float = number("[0, 1]", 0.0, "share of free deposits withdrawn in a round from any exchange")
    w1: float = number("[0, inf)", 0.0, "share more for each unit that coverage is below the level")
    coverage: float = number("(0, inf)", 1.0, "level of coverage below which the trader is frightened")
    lag: int = count("[0, 1000]", 0, "rounds until the trader learns of the coverage")


@dataclass(frozen=True)
class Policy:
    """What a trader does by itself: answers to margin calls, sales to a leverage, stops, purchases, runs."""

    name: str
    note: str = ""
    top_up: bool = flag(True, "whether called accounts are topped up from wallets")
    withdraw: bool = flag(True, "whether margin is pulled from own accounts")
    reduce: bool = flag(True, "whether positions and borrowings elsewhere are reduced to free margin")
    target_health: float = number("[1, inf)", 1.05, "health that called accounts are brought to")
    withdrawal_health: float = number("[1, inf)", 1.25, "health down to which margin is pulled from own accounts")
    lag: int = count("[0, 1000]", 0, "rounds between a call and the answer")
    probability: float = number("[0, 1]", 1.0, "probability that a called account is answered for at all")
    leverage: str = word(
        ("none", "one_sided", "symmetric"), "whether holdings are sold (and bought) to a leverage", "none"
    )
    cost: float = number("[0, 1)", 0.0, "cost by value sold that such sales allow for")
    sell: str = word(("pro_rata", "liquidity", "most_liquid"), "which holdings are sold first", "pro_rata")
    stops: tuple[Stop, ...] = ()
    buying: Buying = Buying()
    run: Run = Run()

    @property
    def answers(self) -> bool:
        """Whether the trader answers margin calls in any way."""
        return (self.top_up or self.withdraw or self.reduce) and self.probability > 0

    @property
    def buys(self) -> bool:
        """Whether the trader buys what fell."""
        return self.buying.demand > 0

    @property
    def holding_stops(self) -> tuple[Stop, ...]:
        """Stops on holdings."""
        return tuple(one for one in self.stops if one.of == "holdings")

    @property
    def contract_stops(self) -> tuple[Stop, ...]:
        """Stops on positions."""
        return tuple(one for one in self.stops if one.of == "positions")

    @property
    def runs(self) -> bool:
        """Whether the trader can take fright at an exchange, or leaves it anyway."""
        return self.run.w0 > 0 or self.run.w1 > 0

    @property
    def orders(self) -> bool:
        """Whether the trader acts without being called."""
        return bool(self.leverage != "none" or self.stops or self.buys)


_PARTS = {"buy": ("buying", Buying), "run": ("run", Run)}


@functools.cache
def policies() -> tuple[str, ...]:
    """Names of the policy presets."""
    return preset_names("policies")


@functools.cache
def policy(name: str) -> Policy:
    """Read a preset by name, or a user's own policy from a ``.toml`` file.

    Parameters
    ----------
    name : str
        One of :func:`policies`, or the path of a file that ends in ``.toml``.

    Returns
    -------
    Policy
        Frozen.

    Raises
    ------
    UnknownLabelError
        No preset has that name.
    ContagionError
        The file has an unknown key or a value that is not allowed; all of it is in one message.

    Examples
    --------
    >>> policy("default").target_health
    1.05
    """
    return _read(name, read_preset(name, "policies", policies(), "policy"))


def _read(name: str, data: dict[str, Any]) -> Policy:
    wrong: list[str] = []
    tables = {key: data[key] for key in (*_PARTS, "stop_loss") if key in data}
    plain = {key: value for key, value in data.items() if key not in (*tables, *_HEADER)}
    found = _keys("", Policy, plain, (*_HEADER, *_PARTS, "stop_loss"), wrong)
    for key, (field, kind) in _PARTS.items():
        if isinstance(given := tables.get(key, {}), dict):
            found[field] = kind(**_keys(f"{key}.", kind, given, (), wrong))
        else:
            wrong.append(f"{key} is {given!r}, allowed: a table [{key}]")
    stops = tables.get("stop_loss", [])
    if not isinstance(stops, list) or not all(isinstance(one, dict) for one in stops):
        wrong.append(f"stop_loss is {stops!r}, allowed: tables [[stop_loss]]")
        stops = []
    levels = [_keys("stop_loss.", Stop, one, (), wrong) for one in stops]
    wrong += ["stop_loss.drop is missing, allowed: a number in (0, 1)" for one in stops if "drop" not in one]
    for key in _HEADER:
        if not isinstance(data.get(key, ""), str):
            wrong.append(f"{key} is {data[key]!r}, allowed: text")
    for what in ("holdings", "positions"):
        if sum(level.get("share", 1.0) for level in levels if level.get("of", "holdings") == what) > 1 + 1e-12:
            wrong.append(f"stop_loss.share of {what} adds up to more than 1")
    if found.get("withdrawal_health", 1.25) < found.get("target_health", 1.05):
        wrong.append("withdrawal_health is below target_health: what gives would be worse off than what it helps")
    if wrong:
        raise ContagionError(f"policy {name!r}: " + "; ".join(wrong))
    stops = tuple(Stop(**level) for level in levels)
    return Policy(name=data.get("name", name), note=data.get("note", ""), stops=stops, **found)


def _keys(place: str, kind: Any, given: Mapping[str, Any], extra: tuple[str, ...], wrong: list[str]) -> dict[str, Any]:
    """Check the keys of one table; return those that are right, and say what is wrong with the others."""
    keys, found = keys_of(kind), {}
    for name, value in given.items():
        if name not in keys:
            near = nearest(f"{place}{name}", [f"{place}{one}" for one in (*keys, *extra)])
            wrong.append(f"unknown key {place + name!r}" + (f", did you mean {near[0]!r}?" if near else ""))
        elif not keys[name].holds(value):
            wrong.append(f"{place}{name} is {value!r}, allowed: {keys[name].words}")
        else:
            found[name] = keys[name].clean(value)
    return found
