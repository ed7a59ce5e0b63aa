"""What the engine of the cascade runs of a rulebook today; everything else is refused by name, never ignored."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from netcontagion.errors import ContagionError
from netcontagion.margining._waterfall import RUN
from netcontagion.network import rulebook

if TYPE_CHECKING:
    from collections.abc import Iterator

    from netcontagion.network import ExposureNetwork, Rulebook

__all__ = ["check_supported", "only_closes_out", "unsupported"]

# The four values that make one way of closing an account. Whoever teaches the engine a way adds its line.
_CHOICES = ("health.test", "amount.rule", "price.rule", "inventory.route")
_WAYS = (
    ("weighted_collateral", "close_factor", "fixed_spread", "liquidator"),
    ("weighted_collateral", "whole_account", "fixed_spread", "liquidator"),
    ("weighted_collateral", "whole_account", "liquidation_factor", "protocol"),
    ("weighted_collateral", "whole_account", "auction", "auction"),
    ("weighted_collateral", "whole_account", "execution", "market"),
    ("equity", "whole_account", "execution", "market"),
    ("equity", "whole_account", "bankruptcy", "market"),
    ("equity", "whole_account", "bankruptcy", "vault"),
    ("equity", "whole_account", "mark", "vault"),
    ("equity", "reduce", "execution", "market"),
    ("equity", "reduce", "bankruptcy", "market"),
)
# Keys that may have any value. A key named neither here nor above must have its default.
_ANY_VALUE = frozenset(
    {
        "amount.base",
        "amount.close_factor",
        "amount.cooldown",
        "amount.full_below_health",
        "amount.full_below_value",
        "amount.minimum_leftover",
        "deficit.alpha",
        "deficit.assessments.multiple",
        "deficit.auto_deleveraging.allocation",
        "deficit.auto_deleveraging.price",
        "deficit.auto_deleveraging.score",
        "deficit.auto_deleveraging.severity",
        "deficit.beta",
        "deficit.insurance_fund.cap",
        "deficit.insurance_fund.drawdown",
        "deficit.promised",
        "deficit.protect_flat",
        "deficit.vault.cap",
        "health.notice",
        "inventory.auction",
        "inventory.capital",
        "inventory.gas",
        "inventory.participation",
        "inventory.store_front",
        "inventory.target_reserves",
        "price.bonus",
        "price.bonus_cap",
        "price.cursor",
        "price.factor",
        "price.penalty",
    }
)
# Keys of that kind on exchanges of one health test only.
_ANY_VALUE_BY_TEST = {
    "equity": frozenset(
        {
            "amount.backstop_below",
            "amount.order",
            "amount.slice",
            "amount.slice_above",
            "amount.target_health",
            "health.scenarios",
            "health.volatility_power",
            "price.fee",
        }
    ),
    "weighted_collateral": frozenset({"amount.capacity", "amount.capacity_per_asset"}),
}
_COLLATERAL_ORDERS = ("bonus", "largest", "most_relief")
_LAYERS = RUN
# A way of closing whose sales only grow when prices fall, and the keys that change nothing in it.
_ISOTONE = ("weighted_collateral", "whole_account", "execution", "market")
_WITHOUT_EFFECT = frozenset(
    {
        "amount.base",
        "amount.close_factor",
        "amount.full_below_health",
        "amount.full_below_value",
        "amount.minimum_leftover",
        "inventory.participation",
    }
)
_ISOTONE_LAYERS = frozenset({"insurance_fund", "equity", "suppliers"})


def unsupported(book: Rulebook) -> tuple[str, ...]:
    """Name the keys of a rulebook, with their values, that the engine cannot run.

    Parameters
    ----------
    book : Rulebook
        From ``netcontagion.network.rulebook``.

    Returns
    -------
    tuple of str
        ``"price.rule = 'auction'"`` and the like; empty where ``nc.cascade`` runs every rule as it stands.

    Examples
    --------
    >>> from netcontagion.network import rulebook
    >>> unsupported(rulebook("aave_v3"))
    ()
    >>> unsupported(rulebook("perpetual"))
    ()
    """
    values = dict(_values(book))
    found = _unknown_way(tuple(values[key] for key in _CHOICES))
    found += [f"{key} = {_shown(value)}" for key, value in values.items() if key not in _CHOICES and value is not None]
    found += [f"{layer!r} in deficit.layers" for layer in book.layers if layer not in _LAYERS]
    return tuple(found)


def _unknown_way(way: tuple[str, ...]) -> list[str]:
    """Name the choices that no known way has, or, where each is known, all four together."""
    if way in _WAYS:
        return []
    said = [f"{key} = {value!r}" for key, value in zip(_CHOICES, way, strict=True)]
    known = [{one[place] for one in _WAYS} for place in range(len(_CHOICES))]
    strange = [text for text, value, ones in zip(said, way, known, strict=True) if value not in ones]
    return strange or [" with ".join(said)]


def only_closes_out(book: Rulebook) -> tuple[str, ...]:
    """Name the keys of a rulebook, with their values, by which one close-out could lift a price or save an account."""
    values, way = dict(_values(book, _WITHOUT_EFFECT)), dict(zip(_CHOICES, _ISOTONE, strict=True))
    found = [f"{key} = {_shown(value)}" for key, value in values.items() if value is not None and value != way.get(key)]
    found += [f"{layer!r} in deficit.layers" for layer in book.layers if layer not in _ISOTONE_LAYERS]
    return (*found, *(f"sources.{source.name}" for source in book.sources))


def _values(book: Rulebook, free: frozenset[str] | None = None) -> Iterator[tuple[str, Any]]:
    """Yield the four choices, and every other key, unless it is free, that must have its default and has not."""
    parts: dict[str, Any] = {"health": book.health_rule, "amount": book.amount_rule, "price": book.price_rule}
    parts |= {"inventory": book.inventory_rule, "deficit": book.deficit_rule}
    parts |= {f"deficit.{layer.name}": layer for layer in book.deficit_rule.layers}
    if free is None:
        free = _ANY_VALUE | _ANY_VALUE_BY_TEST[book.health]
        free |= {"amount.order"} if book.amount_rule.order in _COLLATERAL_ORDERS else set()
        if book.layers[-1] in ("default", "withdrawal_haircut"):
            free |= {"deficit.division"}  # of what clearing pays
    for section, part in parts.items():
        for field in dataclasses.fields(part):
            key, value = f"{section}.{field.name}", getattr(part, field.name)
            if key in _CHOICES or not (key in free or field.name in ("layers", "name") or value == field.default):
                yield key, value


def _shown(value: Any) -> str:
    if dataclasses.is_dataclass(value):
        return f"[{type(value).__name__.lower()}]"
    return f"{value:.12g}" if isinstance(value, float) else repr(value)


def check_supported(net: ExposureNetwork) -> None:
    """Refuse a network with a rulebook that the engine cannot run, naming every exchange, rulebook, key and value.

    Parameters
    ----------
    net : ExposureNetwork
        Its table ``exchanges`` names the rulebooks.

    Raises
    ------
    ContagionError
        An exchange has a rule that ``nc.cascade`` does not run, or exchanges count time in rounds of different length.
    """
    names = net.columns("exchanges")["rulebook"]
    books = {name: rulebook(name) for name in names}
    refused = {name: found for name, book in books.items() if (found := unsupported(book))}
    wrong = [
        f"exchange {label!r}, rulebook {name!r}: {', '.join(refused[name])}"
        for label, name in zip(net.labels("exchanges").tolist(), names, strict=True)
        if name in refused
    ]
    seconds = {name: book.round_seconds for name, book in books.items() if book.round_seconds is not None}
    if len(set(seconds.values())) > 1:
        wrong.append("rounds of different length: " + ", ".join(f"{n!r} {s:g} seconds" for n, s in seconds.items()))
    if wrong:
        raise ContagionError("the cascade does not run these rules yet: " + "; ".join(wrong))
