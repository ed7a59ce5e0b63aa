"""The five rules of an exchange as frozen data: their keys, what each allows, and which of them go together."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

from netcontagion.network._schema import Interval

__all__ = [
    "COMBINATIONS",
    "FIRST_LAYERS",
    "LAST_LAYERS",
    "LAYERS",
    "MARGIN_LAYERS",
    "ONLY_LAST",
    "PLAIN_SOURCES",
    "SECTIONS",
    "Amount",
    "Auction",
    "Deficit",
    "Health",
    "Inventory",
    "Key",
    "Layer",
    "Leg",
    "Price",
    "Source",
    "count",
    "flag",
    "keys_of",
    "number",
    "summary",
    "word",
]

_NO_VALUE = dataclasses.MISSING


class Key(NamedTuple):
    """One key of a rule: what it means, what it allows, and the values of another key that it belongs to."""

    name: str
    kind: str
    default: Any
    allowed: Any
    unit: str
    meaning: str
    needs: tuple[str, tuple[str, ...]] | None

    @property
    def words(self) -> str:
        """What is allowed, in words."""
        if self.kind == "word":
            return ", ".join(self.allowed)
        plain = {"number": "a number in", "count": "a whole number in"}
        return f"{plain[self.kind]} {self.allowed}" if self.kind in plain else "true or false"

    def holds(self, value: Any) -> bool:
        """Tell whether the key may have the value."""
        if self.kind == "word":
            return isinstance(value, str) and value in self.allowed
        if self.kind == "flag":
            return isinstance(value, bool)
        if isinstance(value, bool) or not isinstance(value, int if self.kind == "count" else (int, float)):
            return False
        return bool(self.allowed.holds(value))

    def clean(self, value: Any) -> Any:
        """Return the value in the type that the rule keeps."""
        return float(value) if self.kind == "number" else value


def _key(kind: str, default: Any, allowed: Any, meaning: str, unit: str, needs: Any) -> Any:
    facts = {"key": Key("", kind, default, allowed, unit, meaning, needs)}
    return dataclasses.field(default=default, metadata=facts)


def word(allowed: tuple[str, ...], meaning: str, default: Any = _NO_VALUE, *, needs: Any = None) -> Any:
    return _key("word", default, allowed, meaning, "", needs)


def number(within: str, default: float | None, meaning: str, *, unit: str = "1", needs: Any = None) -> Any:
    return _key("number", default, Interval.parse(within), meaning, unit, needs)


def count(within: str, default: int, meaning: str, *, unit: str = "rounds", needs: Any = None) -> Any:
    return _key("count", default, Interval.parse(within), meaning, unit, needs)


def flag(default: bool, meaning: str, *, needs: Any = None) -> Any:
    return _key("flag", default, None, meaning, "", needs)


def keys_of(rule: Any) -> dict[str, Key]:
    """Keys of a rule (class or object) by name; what is a table of its own is left out."""
    found = {field.name: field.metadata.get("key") for field in dataclasses.fields(rule)}
    return {name: key._replace(name=name) for name, key in found.items() if key is not None}


_TESTS = ("weighted_collateral", "equity")
_AMOUNTS = ("close_factor", "whole_account", "reduce")
_PRICES = ("fixed_spread", "execution", "bankruptcy", "mark", "liquidation_factor", "auction")
_ROUTES = ("liquidator", "market", "protocol", "vault", "auction")
_EQUITY = ("health.test", ("equity",))
# The keys of the close factor were read, without effect, beside whole_account too: such files stay valid.
_CLOSE = ("amount.rule", ("close_factor", "whole_account"))
_CUT = ("amount.rule", ("whole_account", "reduce"))
_LLTV = ("price.bonus", ("lltv",))
_STORE = ("inventory.route", ("protocol",))
_BUYERS = ("inventory.route", ("liquidator", "protocol", "auction"))
_DUTCH = ("inventory.auction.form", ("dutch",))
_ENGLISH = ("inventory.auction.form", ("english",))
_DEFAULT = ("deficit.layers", ("default",))


@dataclass(frozen=True)
class Health:
    """The test that calls an account: its health is below 1.

    weighted_collateral: sum of collateral x mark x liquidation threshold over the value of all debt. equity: equity at
    marks over the maintenance margin, of contracts (tiers) and of balances; with ``scenarios`` the margin is the
    largest loss over them. ``scenarios`` is a tuple of ((asset, relative move), ...).
    """

    test: str = word(_TESTS, "what health is", "weighted_collateral")
    notice: int = count("[0, inf)", 0, "from the call to the first liquidation")
    volatility_power: float = number(
        "[0, inf)", 0.0, "margin rates x max(1, volatility now over assets.volatility) to this power", needs=_EQUITY
    )
    scenarios: tuple[tuple[tuple[str, float], ...], ...] = ()


@dataclass(frozen=True)
class Amount:
    """How much of a called account is closed at once.

    close_factor: a share of the debt in one asset, or of the position's whole debt. whole_account: everything. reduce:
    the least that brings health to ``target_health``. ``close_factor`` None: every market gives its own.
    """

    rule: str = word(_AMOUNTS, "how much is closed")
    base: str = word(("reserve", "position"), "debt that the close factor is a share of", "reserve", needs=_CLOSE)
    close_factor: float | None = number(
        "(0, 1]", None, "largest share closed by one liquidation; left out: the markets' own", needs=_CLOSE
    )
    full_below_health: float = number("[0, inf]", 0.0, "health up to which (inclusive) all is closed", needs=_CLOSE)
    full_below_value: float = number(
        "[0, inf]", 0.0, "debt or collateral below which all is closed", unit="num", needs=_CLOSE
    )
    minimum_leftover: float = number(
        "[0, inf]", 0.0, "smallest debt and collateral that a part may leave", unit="num", needs=_CLOSE
    )
    target_health: float = number(
        "[1, inf)", 1.0, "health that a reduction restores", needs=("amount.rule", _AMOUNTS[2:])
    )
    slice: float = number("(0, 1]", 1.0, "share of a large account closed at a time", needs=_CUT)
    slice_above: float = number("[0, inf)", 0.0, "value from which an account is large", unit="num", needs=_CUT)
    cooldown: int = count("[0, inf)", 0, "between two liquidations of one account")
    backstop_below: float = number(
        "[0, 1]", 0.0, "health below which the backstop vault takes the account with its margin", needs=_EQUITY
    )
    capacity: float = number("(0, inf]", math.inf, "most value in liquidation at once; open auctions count", unit="num")
    capacity_per_asset: float = number("(0, inf]", math.inf, "the same for one collateral asset", unit="num")
    order: str = word(
        ("bonus", "largest", "worst_pnl", "most_relief"), "which collateral or position goes first", "bonus"
    )


@dataclass(frozen=True)
class Price:
    """The price at which the account is charged for what is taken from it.

    fixed_spread: mark / (1 + bonus), the bonus of the market or ("lltv") min(1 + bonus_cap, 1 / (1 - cursor (1 - LT)))
    - 1 from its threshold. execution: what the sale brings. bankruptcy: the price that leaves equity 0. mark.
    liquidation_factor: mark x ``factor``; None: 1 / (1 + bonus) of the market. auction: what bidders pay.
    """

    rule: str = word(_PRICES, "what the account is charged")
    bonus: str = word(
        ("market", "lltv"), "where the bonus comes from", "market", needs=("price.rule", ("fixed_spread",))
    )
    cursor: float = number("[0, 1)", 0.3, "slope of the bonus in 1 - LT", needs=_LLTV)
    bonus_cap: float = number("[0, inf)", 0.15, "largest bonus", needs=_LLTV)
    factor: float | None = number(
        "(0, 1]",
        None,
        "credit over mark; left out: 1 / (1 + bonus) of the market",
        needs=("price.rule", ("liquidation_factor",)),
    )
    penalty: float = number(
        "[0, inf)", 0.0, "added to the debt that an auction must raise", needs=("price.rule", ("auction",))
    )
    fee: float = number(
        "[0, 1)",
        0.0,
        "share of the closed notional paid to the insurance fund",
        needs=("price.rule", ("execution", "bankruptcy", "mark")),
    )


@dataclass(frozen=True)
class Auction:
    """How collateral is auctioned.

    dutch: starts at mark x ``buffer`` and falls, linear to 0 within ``length``, or by the factor ``cut`` per ``step``
    (stairs or smooth); starts anew after ``tail`` or below ``cusp`` x start. english: bids rise by ``increase``, the
    last one wins after ``bid_length``, or at the end; nothing is too low.
    """

    form: str = word(("dutch", "english"), "falling or rising price", "dutch")
    buffer: float = number("[1, inf)", 1.0, "start over mark", needs=_DUTCH)
    decay: str = word(("linear", "stairs", "exponential"), "how the price falls", "linear", needs=_DUTCH)
    length: int = count("[1, inf)", 1, "until the price is 0 (dutch, linear) or the auction ends (english)")
    step: int = count("[1, inf)", 1, "of one cut", needs=("inventory.auction.decay", ("stairs", "exponential")))
    cut: float = number(
        "(0, 1)", 0.99, "price after over before a step", needs=("inventory.auction.decay", ("stairs", "exponential"))
    )
    tail: float = number("(0, inf]", math.inf, "until it starts anew", unit="rounds", needs=_DUTCH)
    cusp: float = number("[0, 1)", 0.0, "price over start below which it starts anew", needs=_DUTCH)
    tip: float = number("[0, inf)", 0.0, "paid to who starts it, if it is worth as much", unit="num", needs=_DUTCH)
    chip: float = number("[0, 1)", 0.0, "share of the debt paid to who starts it", needs=_DUTCH)
    increase: float = number("[0, inf)", 0.05, "of a bid over the last one, at least", needs=_ENGLISH)
    bid_length: int = count("[1, inf)", 1, "after which the last bid wins", needs=_ENGLISH)
    bidders: float = number(
        "[0, inf]", math.inf, "money of all bidders together; 0: bids of 0 win", unit="num", needs=_ENGLISH
    )


@dataclass(frozen=True)
class Inventory:
    """Where the collateral or the position goes.

    liquidator: buys it, sells it on its book. market: sold on its book. protocol: kept, and sold below mark x (1 -
    store_front (1 - factor)) while reserves are below ``target_reserves``. vault: the backstop account takes it.
    auction: to bidders.
    """

    route: str = word(_ROUTES, "who takes it", "liquidator")
    participation: str = word(("profitable", "always"), "whether buyers act only if it pays", "profitable")
    gas: float = number("[0, inf)", 0.0, "cost of one liquidation", unit="num", needs=_BUYERS)
    capital: float = number("[0, inf]", math.inf, "money that buyers have in a round", unit="num", needs=_BUYERS)
    store_front: float = number("[0, 1]", 0.0, "share of 1 - factor that buyers get off the mark", needs=_STORE)
    target_reserves: float = number(
        "[0, inf]", math.inf, "reserves from which nothing is sold", unit="num", needs=_STORE
    )
    auction: Auction | None = None


@dataclass(frozen=True)
class Layer:
    """One layer of the loss waterfall, with the parameters that its kind has."""

    name: str
    drawdown: float = number(
        "(0, 1]", 1.0, "share of the fund's peak that may go", needs=("layer", ("insurance_fund",))
    )
    cap: float = number(
        "[0, inf]", math.inf, "most that it bears in a round", unit="num", needs=("layer", ("insurance_fund", "vault"))
    )
    allocation: str = word(
        ("queue", "whole_queue", "pro_rata", "water_filling", "random"),
        "how winners share: parts in order of score, whole positions in order, by gain, equal caps, random start",
        "queue",
        needs=("layer", ("auto_deleveraging",)),
    )
    score: str = word(
        ("pnl_leverage", "binance", "hyperliquid", "bluefin", "ethereal", "none"),
        "order of the queue",
        "pnl_leverage",
        needs=("layer", ("auto_deleveraging",)),
    )
    price: str = word(
        ("bankruptcy", "mark"), "at which winners are closed", "bankruptcy", needs=("layer", ("auto_deleveraging",))
    )
    severity: float = number(
        "[0, 1]", 1.0, "share of the deficit that winners bear", needs=("layer", ("auto_deleveraging",))
    )
    multiple: float = number(
        "[0, inf]", 1.0, "assessment over a member's default fund, at most", needs=("layer", ("assessments",))
    )


@dataclass(frozen=True)
class Deficit:
    """Who bears what a closed account leaves: layers in order, then how an exchange in default pays.

    ``alpha`` and ``beta``: share of own resources and of receipts that is left in default. ``division`` of deposits
    then; ``promised``: gains rank below deposits; ``protect_flat``: users without positions bear nothing.
    """

    layers: tuple[Layer, ...]
    alpha: float = number("[0, 1]", 1.0, "share of own resources left in default", needs=_DEFAULT)
    beta: float = number("[0, 1]", 1.0, "share of receipts left in default", needs=_DEFAULT)
    division: str = word(("pro_rata", "queue", "equal_loss"), "how what is left is divided in a class", "pro_rata")
    promised: bool = flag(False, "whether gains rank below deposits", needs=_EQUITY)
    protect_flat: bool = flag(False, "whether users without positions bear nothing", needs=_EQUITY)


@dataclass(frozen=True)
class Leg:
    """One quote of a price source: an asset (empty: the market's own) on an exchange (empty: its shared book)."""

    asset: str = ""
    exchange: str = ""
    weight: float = number("(0, inf)", 1.0, "weight in the index")
    convert: bool = flag(False, "whether the redemption ratio to the market's asset multiplies it")


@dataclass(frozen=True)
class Source:
    """Where a mark comes from: a market names it in ``price_source``.

    spot: the exchange's own book. asset: the shared book. index, median, twap: weighted mean, median, and mean over
    time of the weighted mean, of the legs (none: every exchange that lists the asset, equally). These move the recorded
    mark by as much as their quotes move: a recorded basis stays. pegged: 1 x the one leg. redemption: price of the
    underlying x ratio x backing. These two are levels. Then the mark moves only by ``deviation`` or after
    ``heartbeat``, ``latency`` late, and stays within ``low`` and ``high``.
    """

    name: str
    mode: str = word(("spot", "asset", "index", "median", "twap", "pegged", "redemption"), "what it reads")
    legs: tuple[Leg, ...] = ()
    deviation: float = number("[0, inf)", 0.0, "relative move that updates it; 0: none")
    heartbeat: int = count("[0, inf)", 0, "after which it updates anyway; 0: never, without deviation every round")
    latency: float = number("[0, inf]", 0.0, "delay; inf: frozen", unit="rounds")
    window: int = count("[1, inf)", 1, "of the average", needs=("mode", ("twap",)))
    low: float = number("[0, inf)", 0.0, "lowest price it gives", unit="num/unit")
    high: float = number("(0, inf]", math.inf, "highest price it gives", unit="num/unit")


PLAIN_SOURCES = ("spot", "asset")  # modes that a market may name where no rulebook says more

SECTIONS: dict[str, Any] = {
    "health": Health,
    "amount": Amount,
    "price": Price,
    "inventory": Inventory,
    "deficit": Deficit,
}

# price.rule: the health tests, amounts and routes it goes with
COMBINATIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "fixed_spread": {
        "inventory.route": ("liquidator",),
        "amount.rule": ("close_factor", "whole_account"),
        "health.test": ("weighted_collateral",),
    },
    "execution": {"inventory.route": ("market",), "amount.rule": ("whole_account", "reduce"), "health.test": _TESTS},
    "bankruptcy": {
        "inventory.route": ("market", "vault"),
        "amount.rule": ("whole_account", "reduce"),
        "health.test": ("equity",),
    },
    "mark": {"inventory.route": ("vault",), "amount.rule": ("whole_account", "reduce"), "health.test": ("equity",)},
    "liquidation_factor": {
        "inventory.route": ("protocol",),
        "amount.rule": ("whole_account",),
        "health.test": ("weighted_collateral",),
    },
    "auction": {
        "inventory.route": ("auction",),
        "amount.rule": ("whole_account",),
        "health.test": ("weighted_collateral",),
    },
}

LAYERS: dict[str, str] = {
    "recourse": "the trader owes it; what it pays is known when claims are cleared",
    "account_surplus": "what liquidations of the same round brought above the account's charge",
    "defaulter_fund": "the defaulter's contribution to the default fund",
    "skin": "the exchange's own first share",
    "insurance_fund": "insurance fund, in its asset",
    "vault": "backstop vault",
    "auto_deleveraging": "winners of the other side are closed",
    "default_fund": "default fund of the others, pro rata",
    "assessments": "calls on the others, up to a multiple of their default fund",
    "gains": "gains of the round are cut pro rata",
    "tear_up": "remaining contracts end at the mark",
    "equity": "the exchange's own resources",
    "mint": "new shares of the exchange are sold",
    "co_borrowers": "debt and collateral pass to the other borrowers",
    "suppliers": "deposits of the asset are cut pro rata",
    "withdrawal_haircut": "every withdrawal is cut",
    "frozen": "the exchange stays short of it",
    "default": "the exchange defaults and pays what clearing says",
}
FIRST_LAYERS = ("recourse",)
LAST_LAYERS = ("suppliers", "co_borrowers", "mint", "withdrawal_haircut", "frozen", "default")
ONLY_LAST = ("frozen", "default")
MARGIN_LAYERS = (
    "account_surplus",
    "defaulter_fund",
    "skin",
    "vault",
    "auto_deleveraging",
    "default_fund",
    "assessments",
    "gains",
    "tear_up",
)


def summary(rule: Any) -> str:
    """Say a rule in one line: its kind, and every parameter that differs from its default."""
    keys = keys_of(rule)
    kind = next((name for name in ("rule", "test", "route", "form", "mode") if name in keys), "")
    said = [f"{name} {_text(getattr(rule, name))}" for name, key in keys.items() if _differs(rule, name, key, kind)]
    head = str(getattr(rule, kind)) if kind else ""
    if isinstance(rule, Layer):
        return rule.name + (f" ({', '.join(said)})" if said else "")
    if isinstance(rule, Deficit):
        head = " → ".join(summary(layer) for layer in rule.layers)
    if isinstance(rule, Health) and rule.scenarios:
        said.append(f"{len(rule.scenarios)} scenarios")
    if isinstance(rule, Inventory) and rule.auction is not None:
        said.append(summary(rule.auction))
    return head + (f": {', '.join(said)}" if said else "")


def _differs(rule: Any, name: str, key: Key, kind: str) -> bool:
    if isinstance(rule, Amount) and rule.rule != "close_factor" and key.needs == _CLOSE:
        return False  # without effect
    return name != kind and bool(getattr(rule, name) != key.default)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:,.9g}" if isinstance(value, float) else str(value)
