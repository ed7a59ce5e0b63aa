"""Rulebooks: dated presets read from TOML into frozen objects (data, no behaviour).

An exchange is five rules: the health test, the amount closed, the price charged, where the collateral goes, and who
bears the deficit. What the rules do stands in ``netcontagion.margining``.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from netcontagion.errors import ContagionError, UnknownLabelError
from netcontagion.network._presets import preset_names, read_preset
from netcontagion.network._rule_fields import Amount, Deficit, Health, Inventory, Price, Source, summary
from netcontagion.network._rule_reader import read_rules

__all__ = ["Rulebook", "market_presets", "preset_table", "rulebook", "rulebooks"]


@dataclass(frozen=True)
class Rulebook:
    """The five rules of an exchange, and the price sources its markets may name.

    ``round_seconds`` is what a round stands for where the file counts time in rounds; None: nothing is timed. The
    names without ``_rule`` are short for the keys that lending exchanges have.
    """

    name: str
    date: str
    source: str
    note: str
    round_seconds: float | None
    health_rule: Health
    amount_rule: Amount
    price_rule: Price
    inventory_rule: Inventory
    deficit_rule: Deficit
    sources: tuple[Source, ...] = ()

    @property
    def health(self) -> str:
        """What health is: "weighted_collateral" or "equity"."""
        return self.health_rule.test

    @property
    def amount(self) -> str:
        """How much of a called account is closed at once."""
        return self.amount_rule.rule

    @property
    def base(self) -> str:
        """Debt that the close factor is a share of: "reserve" or "position"."""
        return self.amount_rule.base

    @property
    def close_factor(self) -> float | None:
        """Largest share closed at once; None: every market gives its own."""
        return self.amount_rule.close_factor

    @property
    def full_below_health(self) -> float:
        """Health up to which (inclusive) the close factor is 1."""
        return self.amount_rule.full_below_health

    @property
    def full_below_value(self) -> float:
        """Debt or collateral [num] below which the close factor is 1."""
        return self.amount_rule.full_below_value

    @property
    def minimum_leftover(self) -> float:
        """Smallest debt and collateral [num] that a partial liquidation may leave."""
        return self.amount_rule.minimum_leftover

    @property
    def price(self) -> str:
        """What the account is charged."""
        return self.price_rule.rule

    @property
    def inventory(self) -> str:
        """Who takes the collateral or the position."""
        return self.inventory_rule.route

    @property
    def participation(self) -> str:
        """Whether liquidators act only if it pays."""
        return self.inventory_rule.participation

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers that bear a deficit, in order."""
        return tuple(layer.name for layer in self.deficit_rule.layers)

    @property
    def fixed_spread(self) -> bool:
        """Whether collateral is charged at mark / (1 + the market's bonus), which the market must then give."""
        charged = self.price == "fixed_spread" and self.price_rule.bonus == "market"
        return charged or (self.price == "liquidation_factor" and self.price_rule.factor is None)

    def rules(self) -> dict[str, str]:
        """Say each of the five rules in one line: its kind and what differs from the defaults."""
        parts = {
            "health": self.health_rule,
            "amount": self.amount_rule,
            "price": self.price_rule,
            "inventory": self.inventory_rule,
            "deficit": self.deficit_rule,
        }
        return {name: summary(part) for name, part in parts.items()}


_MARKETS = "markets_"  # files of market parameters begin so, beside the rulebooks


@functools.cache
def rulebooks() -> tuple[str, ...]:
    """Names of the rulebook presets."""
    return tuple(name for name in preset_names("rulebooks") if not name.startswith(_MARKETS))


@functools.cache
def market_presets() -> tuple[str, ...]:
    """Names of the dated presets of market parameters."""
    return preset_names("rulebooks", _MARKETS)


def preset_table(name: str) -> dict[str, Any]:
    """Read a dated preset of market parameters: ``date``, ``source`` and one table per asset."""
    if name not in market_presets():
        raise UnknownLabelError(name, market_presets(), "market preset")
    return read_preset(f"{_MARKETS}{name}", "rulebooks", preset_names("rulebooks"), "market preset")


@functools.cache
def rulebook(name: str) -> Rulebook:
    """Read a preset by name, or a user's own rulebook from a ``.toml`` file.

    Parameters
    ----------
    name : str
        One of :func:`rulebooks`, or the path of a file that ends in ``.toml``.

    Returns
    -------
    Rulebook
        Frozen.

    Raises
    ------
    UnknownLabelError
        No preset has that name.
    ContagionError
        The file has an unknown key, a missing rule, a value that is not allowed or keys that do not go together; all
        of it is in one message.

    Examples
    --------
    >>> book = rulebook("maker")
    >>> book.price, book.layers
    ('auction', ('insurance_fund', 'mint'))
    """
    return _read(name, read_preset(name, "rulebooks", rulebooks(), "rulebook"))


def _read(name: str, data: dict[str, Any]) -> Rulebook:
    rules, wrong = read_rules(data)
    if wrong:
        raise ContagionError(f"rulebook {name!r}: " + "; ".join(wrong))
    seconds = data.get("round_seconds")
    return Rulebook(
        name=data.get("name", name),
        date=str(data.get("date", "")),
        source=_text(data.get("source", "")),
        note=data.get("note", ""),
        round_seconds=None if seconds is None else float(seconds),
        **rules,
    )


def _text(source: str | list[str]) -> str:
    return source if isinstance(source, str) else " ".join(map(str, source))
