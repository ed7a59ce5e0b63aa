"""A rulebook file read into the five rules, with everything that is wrong with it said at once."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from netcontagion.errors import nearest
from netcontagion.network._rule_fields import (
    COMBINATIONS,
    FIRST_LAYERS,
    LAST_LAYERS,
    LAYERS,
    MARGIN_LAYERS,
    ONLY_LAST,
    SECTIONS,
    Amount,
    Auction,
    Deficit,
    Health,
    Inventory,
    Key,
    Layer,
    Leg,
    Price,
    Source,
    keys_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["TOP", "read_rules"]

TOP = ("name", "date", "source", "note", "round_seconds")
_TABLES = {"inventory": ("auction",), "deficit": ("layers", *LAYERS), "health": ("scenarios",)}
_REQUIRED = ("amount", "price", "deficit")


def read_rules(data: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Read the tables of a rulebook file; return the rules by name and a list of everything that is wrong."""
    reader = _Reader(data)
    rules = reader.rules()
    return rules, reader.wrong


class _Reader:
    """Reads table by table; ``values`` holds what every key ends up with, ``given`` the keys that the file has."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.data = data
        self.wrong: list[str] = []
        self.values: dict[str, Any] = {}
        self.given: dict[str, Key] = {}

    def rules(self) -> dict[str, Any]:
        """Read all sections; what they say together is judged once each was read."""
        self._top()
        found = {name: self._section(name, rule) for name, rule in SECTIONS.items()}
        scenarios, auction = self._scenarios(), self._auction()
        layers, sources = self._layers(), self._sources()
        self._needs()
        self._combination()
        if self.wrong:
            return {}
        if self.values["amount.rule"] != "close_factor":
            found["amount"]["close_factor"] = 1.0
        return {
            "health_rule": Health(**found["health"], scenarios=scenarios),
            "amount_rule": Amount(**found["amount"]),
            "price_rule": Price(**found["price"]),
            "inventory_rule": Inventory(**found["inventory"], auction=auction),
            "deficit_rule": Deficit(layers=layers, **found["deficit"]),
            "sources": sources,
        }

    # tables -----------------------------------------------------------------------------------------------------------

    def _top(self) -> None:
        known = [*SECTIONS, "sources", *TOP]
        for name, value in self.data.items():
            if name not in known:
                self._unknown(name, known)
            elif name in (*SECTIONS, "sources") and not isinstance(value, dict):
                self.wrong.append(f"{name} is {value!r}, allowed: a table [{name}]")
        self.wrong += [f"section [{name}] is missing" for name in _REQUIRED if name not in self.data]
        seconds = self.data.get("round_seconds", 1)
        if not _number(seconds) or not 0 < seconds < math.inf:
            self.wrong.append(f"round_seconds is {seconds!r}, allowed: a number in (0, inf)")
        for name in ("name", "note", "source"):
            value = self.data.get(name, "")
            lines = value if name == "source" and isinstance(value, list) else [value]
            if not all(isinstance(line, str) for line in lines):
                self.wrong.append(f"{name} is {value!r}, allowed: text")

    def _table(self, name: str) -> dict[str, Any]:
        table = self.data.get(name, {})
        return table if isinstance(table, dict) else {}

    def _section(self, name: str, rule: Any) -> dict[str, Any]:
        given = {key: value for key, value in self._table(name).items() if key not in _TABLES.get(name, ())}
        return self._keys(name, rule, given, extra=_TABLES.get(name, ()))

    def _keys(self, place: str, rule: Any, given: Mapping[str, Any], extra: Iterable[str] = ()) -> dict[str, Any]:
        """Check the keys of one table; return those that are right."""
        keys, found = keys_of(rule), {}
        for name, value in given.items():
            if name not in keys:
                self._unknown(f"{place}.{name}", [f"{place}.{known}" for known in (*keys, *extra)])
            elif not keys[name].holds(value):
                self.wrong.append(f"{place}.{name} is {value!r}, allowed: {keys[name].words}")
            else:
                found[name] = keys[name].clean(value)
                self.given[f"{place}.{name}"] = keys[name]
        for name, key in keys.items():
            if name in found or key.default is not dataclasses.MISSING:
                self.values[f"{place}.{name}"] = found.get(name, key.default)
            elif name not in given and (place in self.data or place not in SECTIONS):
                self.wrong.append(f"{place}.{name} is missing, allowed: {key.words}")
        return found

    def _auction(self) -> Auction | None:
        given = self._table("inventory").get("auction")
        route = self.values.get("inventory.route")
        if given is None:
            if route == "auction":
                self.wrong.append("inventory.route = 'auction' needs a table [inventory.auction]")
            return None
        if not isinstance(given, dict):
            self.wrong.append(f"inventory.auction is {given!r}, allowed: a table [inventory.auction]")
            return None
        found = self._keys("inventory.auction", Auction, given)
        if route is not None and route != "auction":
            self.wrong.append(f"[inventory.auction] needs inventory.route = 'auction', not {route!r}")
        ends = found.get("form") == "english" or found.get("decay", "linear") == "linear"
        if ends and "length" not in given:
            self.wrong.append("inventory.auction.length is missing: rounds until the auction ends")
        if not ends and "length" in given:
            self.wrong.append(
                f"inventory.auction.length does not go with inventory.auction.decay = {found['decay']!r}: "
                "'linear' ends after length, the others start anew after tail"
            )
        return Auction(**found)

    def _scenarios(self) -> tuple[tuple[tuple[str, float], ...], ...]:
        given = self._table("health").get("scenarios", [])
        allowed = "a list of tables {asset = relative move > -1}"
        right = isinstance(given, list) and all(isinstance(one, dict) and one for one in given)
        moves = [move for one in given for move in one.values()] if right else []
        if not right or not all(_number(move) and -1.0 < move < math.inf for move in moves):
            self.wrong.append(f"health.scenarios is {given!r}, allowed: {allowed}")
            return ()
        if given and self.values.get("health.test") == "weighted_collateral":
            self.wrong.append("health.scenarios needs health.test = 'equity', not 'weighted_collateral'")
        return tuple(tuple(sorted((str(asset), float(move)) for asset, move in one.items())) for one in given)

    def _layers(self) -> tuple[Layer, ...]:
        table = self._table("deficit")
        names = table.get("layers")
        if names is None:
            if "deficit" in self.data:
                self.wrong.append(f"deficit.layers is missing, allowed: a list of {', '.join(LAYERS)}")
            return ()
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            self.wrong.append(f"deficit.layers is {names!r}, allowed: a list of {', '.join(LAYERS)}")
            return ()
        self.values["deficit.layers"] = tuple(names)
        self._order(names)
        found = []
        for name in dict.fromkeys([*names, *(key for key in table if key in LAYERS)]):
            given = table.get(name, {})
            if not isinstance(given, dict):
                self.wrong.append(f"deficit.{name} is {given!r}, allowed: a table [deficit.{name}]")
            elif name not in names:
                self.wrong.append(f"[deficit.{name}] has parameters, but deficit.layers does not name {name!r}")
            elif name in LAYERS:
                found.append(self._layer(name, given))
        return tuple(found)

    def _order(self, names: list[str]) -> None:
        for name in names:
            if name not in LAYERS:
                near = nearest(name, LAYERS)
                hint = f", did you mean {near[0]!r}?" if near else ""
                self.wrong.append(f"deficit.layers is {name!r}{hint}; allowed: {', '.join(LAYERS)}")
        twice = sorted({name for name in names if names.count(name) > 1})
        self.wrong += [f"deficit.layers names {name!r} twice" for name in twice]
        if names[-1] not in LAST_LAYERS:
            last = ", ".join(map(repr, LAST_LAYERS))
            self.wrong.append(f"deficit.layers must end with one of {last}: somebody bears what is left")
        self.wrong += [f"deficit.layers: {name!r} must be the first" for name in FIRST_LAYERS if name in names[1:]]
        self.wrong += [f"deficit.layers: {name!r} must be the last" for name in ONLY_LAST if name in names[:-1]]

    def _layer(self, name: str, given: Mapping[str, Any]) -> Layer:
        place = f"deficit.{name}"
        own = {key for key, facts in keys_of(Layer).items() if facts.needs and name in facts.needs[1]}
        known = {key: value for key, value in given.items() if key in own}
        for key in given:
            if key not in own:
                self._unknown(f"{place}.{key}", [f"{place}.{one}" for one in sorted(own)])
        found = self._keys(place, Layer, known)
        allocation = found.get("allocation", "queue")
        if name == "auto_deleveraging" and allocation not in ("queue", "whole_queue"):
            if found.get("score", "none") != "none":
                self.wrong.append(
                    f"{place}.score does not go with {place}.allocation = {allocation!r}: only a queue is ordered"
                )
            found["score"] = "none"
        elif found.get("score") == "none":
            self.wrong.append(f"{place}.allocation = {allocation!r} needs {place}.score, not 'none'")
        return Layer(name=name, **found)

    def _sources(self) -> tuple[Source, ...]:
        found = []
        for name, given in self._table("sources").items():
            place = f"sources.{name}"
            if not isinstance(given, dict):
                self.wrong.append(f"{place} is {given!r}, allowed: a table [{place}]")
                continue
            keys = {key: value for key, value in given.items() if key != "legs"}
            right = self._keys(place, Source, keys, extra=("legs",))
            legs = self._legs(place, given.get("legs", []))
            mode = right.get("mode")
            if mode == "pegged" and len(legs) != 1:
                self.wrong.append(f"{place}.mode = 'pegged' needs exactly one leg in {place}.legs, not {len(legs)}")
            if legs and mode in ("spot", "asset", "redemption"):
                self.wrong.append(f"{place}.legs does not go with {place}.mode = {mode!r}")
            if right.get("low", 0.0) > right.get("high", math.inf):
                self.wrong.append(f"{place}.low is above {place}.high")
            if mode is not None:
                found.append(Source(name=name, legs=legs, **right))
        return tuple(found)

    def _legs(self, place: str, given: Any) -> tuple[Leg, ...]:
        if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
            self.wrong.append(
                f"{place}.legs is {given!r}, allowed: a list of tables {{asset, exchange, weight, convert}}"
            )
            return ()
        found = []
        for n, one in enumerate(given):
            names = {key: one[key] for key in ("asset", "exchange") if key in one}
            for key, value in names.items():
                if not isinstance(value, str):
                    self.wrong.append(f"{place}.legs[{n}].{key} is {value!r}, allowed: a label")
            rest = {key: value for key, value in one.items() if key not in names}
            found.append(Leg(**names, **self._keys(f"{place}.legs[{n}]", Leg, rest, extra=("asset", "exchange"))))
        return tuple(found)

    # what goes together -----------------------------------------------------------------------------------------------

    def _needs(self) -> None:
        """Check the keys that belong to certain values of another key."""
        for place, key in self.given.items():
            if key.needs is None or key.needs[0] == "layer" or self.values[place] == key.default:
                continue
            other, values = key.needs
            other = other if "." in other else f"{place.rpartition('.')[0]}.{other}"
            actual = self.values.get(other)
            if actual is None:
                continue
            if isinstance(actual, tuple):
                if values[0] not in actual:
                    self.wrong.append(f"{place} needs {values[0]!r} in {other}")
            elif actual not in values:
                wanted = " or ".join(map(repr, values))
                self.wrong.append(f"{place} = {_shown(self.values[place])} needs {other} = {wanted}, not {actual!r}")

    def _combination(self) -> None:
        """Check that price, amount, route and test describe one way of closing an account."""
        price = self.values.get("price.rule")
        for other, values in COMBINATIONS.get(str(price), {}).items():
            actual = self.values.get(other)
            if actual is not None and actual not in values:
                wanted = " or ".join(map(repr, values))
                self.wrong.append(f"price.rule = {price!r} does not go with {other} = {actual!r}, only with {wanted}")
        if self.values.get("health.test") == "weighted_collateral":
            layers = [name for name in self.values.get("deficit.layers", ()) if name in MARGIN_LAYERS]
            self.wrong += [f"{name!r} in deficit.layers needs health.test = 'equity'" for name in layers]

    def _unknown(self, key: str, known: list[str]) -> None:
        near = nearest(key, known)
        self.wrong.append(f"unknown key {key!r}" + (f", did you mean {near[0]!r}?" if near else ""))


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    return f"{value:.12g}" if isinstance(value, float) else repr(value)
