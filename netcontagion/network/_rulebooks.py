"""Rulebooks: dated presets read from TOML into frozen objects (data, no behaviour).

An exchange is five rules: the health test, the amount closed, the price charged, where the collateral goes, and who
bears the deficit. What the rules do stands in ``netcontagion.margining``.
"""

from __future__ import annotations

import functools
import tomllib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from netcontagion.errors import ContagionError, UnknownLabelError, nearest

__all__ = ["Rulebook", "market_presets", "preset_table", "rulebook", "rulebooks"]

_FIELDS: dict[str, dict[str, tuple[Any, ...]]] = {
    "health": {"test": ("weighted_collateral",)},
    "amount": {
        "rule": ("close_factor", "whole_account"),
        "base": ("reserve", "position"),
        "close_factor": (float,),
        "full_below_health": (float,),
        "full_below_value": (float,),
        "minimum_leftover": (float,),
    },
    "price": {"rule": ("fixed_spread", "execution")},
    "inventory": {"route": ("liquidator", "market"), "participation": ("profitable", "always")},
    "deficit": {"layers": ("insurance_fund", "equity", "suppliers")},
}
_TOP = ("name", "date", "source", "note")


@dataclass(frozen=True)
class Rulebook:
    """The five rules of an exchange.

    ``close_factor`` None means that every market gives its own. ``full_below_health`` (inclusive) and
    ``full_below_value`` [num] lift the close factor to 1; ``minimum_leftover`` [num] is the smallest debt and
    collateral a partial liquidation may leave.
    """

    name: str
    date: str
    source: str
    amount: str
    base: str
    close_factor: float | None
    full_below_health: float
    full_below_value: float
    minimum_leftover: float
    price: str
    inventory: str
    participation: str
    layers: tuple[str, ...]

    @property
    def fixed_spread(self) -> bool:
        """Whether collateral is charged at mark / (1 + bonus)."""
        return self.price == "fixed_spread"


def _folder() -> Any:
    return resources.files(__package__).joinpath("rulebooks")


@functools.cache
def rulebooks() -> tuple[str, ...]:
    """Names of the rulebook presets."""
    names = (entry.name for entry in _folder().iterdir() if entry.name.endswith(".toml"))
    return tuple(sorted(name.removesuffix(".toml") for name in names if not name.startswith("markets_")))


@functools.cache
def market_presets() -> tuple[str, ...]:
    """Names of the dated presets of market parameters."""
    names = (entry.name for entry in _folder().iterdir() if entry.name.startswith("markets_"))
    return tuple(sorted(name.removesuffix(".toml").removeprefix("markets_") for name in names))


def preset_table(name: str) -> dict[str, Any]:
    """Read a dated preset of market parameters: ``date``, ``source`` and one table per asset."""
    if name not in market_presets():
        raise UnknownLabelError(name, market_presets(), "market preset")
    return tomllib.loads(_folder().joinpath(f"markets_{name}.toml").read_text(encoding="utf-8"))


@functools.cache
def rulebook(name: str) -> Rulebook:
    """Read a preset by name, or a user's own rulebook from a ``.toml`` file.

    Raises
    ------
    UnknownLabelError
        No preset has that name.
    ContagionError
        The file has an unknown key, a missing rule or a value that is not allowed.
    """
    if name.endswith(".toml"):
        path = Path(name)
        if not path.is_file():
            raise ContagionError(f"rulebook file {name!r} does not exist; presets are {', '.join(rulebooks())}")
        text = path.read_text(encoding="utf-8")
    elif name in rulebooks():
        text = _folder().joinpath(f"{name}.toml").read_text(encoding="utf-8")
    else:
        raise UnknownLabelError(name, rulebooks(), "rulebook")
    try:
        return _read(name, tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ContagionError(f"rulebook {name!r} is not valid TOML: {error}") from error


def _read(name: str, data: dict[str, Any]) -> Rulebook:
    wrong = list(_wrong(data))
    if wrong:
        raise ContagionError(f"rulebook {name!r}: " + "; ".join(wrong))
    amount, inventory = data["amount"], data.get("inventory", {})
    book = Rulebook(
        name=data.get("name", name),
        date=str(data.get("date", "")),
        source=data.get("source", ""),
        amount=amount["rule"],
        base=amount.get("base", "reserve"),
        close_factor=float(amount["close_factor"]) if "close_factor" in amount else None,
        full_below_health=float(amount.get("full_below_health", 0.0)),
        full_below_value=float(amount.get("full_below_value", 0.0)),
        minimum_leftover=float(amount.get("minimum_leftover", 0.0)),
        price=data["price"]["rule"],
        inventory=inventory.get("route", "liquidator"),
        participation=inventory.get("participation", "profitable"),
        layers=tuple(data["deficit"]["layers"]),
    )
    whole = book.amount == "whole_account"
    if whole != (book.price == "execution") or whole != (book.inventory == "market"):
        raise ContagionError(
            f"rulebook {name!r}: whole_account goes with price execution and route market, "
            "close_factor with fixed_spread and liquidator"
        )
    return book if not whole else _without_close_factor(book)


def _without_close_factor(book: Rulebook) -> Rulebook:
    from dataclasses import replace

    return replace(book, close_factor=1.0)


def _wrong(data: dict[str, Any]) -> Any:
    for key in data:
        if key not in _FIELDS and key not in _TOP:
            yield _unknown(key, [*_FIELDS, *_TOP])
    for section in ("amount", "price", "deficit"):
        if section not in data:
            yield f"section [{section}] is missing"
    for section, known in _FIELDS.items():
        for key, value in data.get(section, {}).items():
            if key not in known:
                yield _unknown(f"{section}.{key}", [f"{section}.{name}" for name in known])
            elif known[key] == (float,):
                if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
                    yield f"{section}.{key} is {value!r}, allowed: a number >= 0"
                elif key == "close_factor" and not 0 < value <= 1:
                    yield f"{section}.{key} is {value!r}, allowed: (0, 1]"
            else:
                for item in value if isinstance(value, list) else [value]:
                    if item not in known[key]:
                        yield f"{section}.{key} is {item!r}, allowed: {', '.join(known[key])}"
    for section in ("amount", "price"):
        if section in data and "rule" not in data[section]:
            yield f"{section}.rule is missing"
    if "deficit" in data and data["deficit"].get("layers", [])[-1:] != ["suppliers"]:
        yield "deficit.layers must end with 'suppliers': somebody bears what is left"


def _unknown(key: str, known: list[str]) -> str:
    near = nearest(key, known)
    return f"unknown key {key!r}" + (f", did you mean {near[0]!r}?" if near else "")
