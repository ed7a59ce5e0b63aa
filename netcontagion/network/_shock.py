"""Shocks: what happens to a network from outside, as frozen, composable values."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion._arrays import blank, plain
from netcontagion.errors import UnknownLabelError

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd
    from numpy.typing import NDArray

    from netcontagion.network._network import ExposureNetwork

__all__ = ["Shock", "check_call"]

_PriceMove = tuple[tuple[tuple[Any, float], ...], bool]


@dataclass(frozen=True)
class Shock:
    """An outside event: price moves, losses, defaults, outages, thinner depth. Made by the class methods, added by +.

    ``a + b``: price and depth factors multiply, shares compound, money adds up, sets unite; the order does not matter.

    Examples
    --------
    >>> import netcontagion as nc
    >>> shock = nc.Shock.price({"ETH": -0.3}, family=True) + nc.Shock.depth(0.5)
    >>> print(shock)
    ETH family -30 %, depth x 0.5
    """

    moves: tuple[_PriceMove, ...] = ()
    losses: tuple[tuple[Any, float], ...] = ()
    loss_shares: tuple[float, ...] = ()
    defaults: frozenset[Any] = frozenset()
    outages: frozenset[Any] = frozenset()
    depth_factors: tuple[float, ...] = ()
    later: tuple[tuple[int, Shock], ...] = ()

    @classmethod
    def path(cls, shocks: Iterable[Shock], *, every: int = 1) -> Shock:
        """Let shocks strike one after the other: the first before round 0, shock i at the start of round i x every.

        Later price changes multiply the price after the shocks before, with all impact since. A path of one shock is
        that shock.

        Parameters
        ----------
        shocks : iterable of Shock
            In the order in which they strike; ``nc.Shock()`` is a pause.
        every : int, default 1
            Rounds between two of them.

        Examples
        --------
        >>> import netcontagion as nc
        >>> print(nc.Shock.path([nc.Shock.price({"ETH": -0.1}), nc.Shock.price({"ETH": -0.2})], every=6))
        ETH -10 %; round 6: ETH -20 %
        """
        strikes = list(shocks)
        if not strikes or not all(isinstance(one, Shock) and not one.later for one in strikes):
            raise ValueError(f"a path is a list of shocks that are no paths themselves, not {shocks!r}")
        if not isinstance(every, int) or isinstance(every, bool) or every < 1:
            raise ValueError(f"every is {every!r}; allowed: a whole number of rounds, 1 or more")
        return dataclasses.replace(strikes[0], later=tuple((i * every, one) for i, one in enumerate(strikes) if i))

    @property
    def strikes(self) -> tuple[tuple[int, Shock], ...]:
        """Round and shock of every strike, the first at round 0."""
        return ((0, dataclasses.replace(self, later=())), *self.later) if self.later else ((0, self),)

    @classmethod
    def price(cls, changes: Mapping[Any, float], *, family: bool = False) -> Shock:
        """Multiply prices by 1 + change before round 0.

        Parameters
        ----------
        changes : mapping
            Relative change by asset, -0.3 for minus 30 %; at least -1.
        family : bool, default False
            Whether assets whose ``underlying`` chain reaches a named one move by the same factor. An asset that is
            named itself keeps its own.
        """
        if not isinstance(changes, Mapping) or not changes:
            raise ValueError(f"price changes are a mapping of asset to relative change, not {changes!r}")
        for name, change in changes.items():
            if not _number(change) or not math.isfinite(change) or change < -1:
                raise ValueError(
                    f"price change of {name!r} is {change!r}; allowed: -1 (worthless) or above, -0.3 is -30 %"
                )
        pairs = tuple(sorted(((name, float(x)) for name, x in changes.items()), key=repr))
        return cls(moves=((pairs, bool(family)),))

    @classmethod
    def loss(cls, amount: Mapping[Any, float] | float) -> Shock:
        """Take money off ``external_assets``: an amount by trader [num], or one share for all."""
        if isinstance(amount, Mapping):
            if not amount:
                message = "name at least one trader that loses money"
                raise ValueError(message)
            for name, value in amount.items():
                if not _number(value) or not math.isfinite(value) or value < 0:
                    raise ValueError(f"loss of {name!r} is {value!r}; allowed: money, 0 or more")
            return cls(losses=tuple(sorted(((name, float(v)) for name, v in amount.items()), key=repr)))
        if not _number(amount) or not 0 <= amount <= 1:
            raise ValueError(f"a loss for all is {amount!r}; allowed: a share in [0, 1]")
        return cls(loss_shares=(float(amount),))

    @classmethod
    def default(cls, *nodes: Any) -> Shock:
        """Let traders fail: wallets and external assets become 0, accounts are closed out, they stop responding."""
        for node in nodes:
            if isinstance(node, (list, set, dict)):
                raise TypeError(f"name traders one by one, Shock.default('a', 'b'), not as a {type(node).__name__}")
        if not nodes:
            message = "name at least one trader that defaults"
            raise ValueError(message)
        return cls(defaults=frozenset(nodes))

    @classmethod
    def outage(cls, *exchanges: Any) -> Shock:
        """Stop exchanges: no deposit, withdrawal or liquidation there; marks still move."""
        if not exchanges:
            message = "name at least one exchange that is out"
            raise ValueError(message)
        return cls(outages=frozenset(exchanges))

    @classmethod
    def depth(cls, factor: float) -> Shock:
        """Multiply all depths."""
        if not _number(factor) or not math.isfinite(factor) or factor <= 0:
            raise ValueError(f"depth factor is {factor!r}; allowed: above 0")
        return cls(depth_factors=(float(factor),))

    def __add__(self, other: Shock) -> Shock:
        if not isinstance(other, Shock):
            return NotImplemented
        return Shock(
            moves=tuple(sorted(self.moves + other.moves, key=repr)),
            losses=tuple(sorted(self.losses + other.losses, key=repr)),
            loss_shares=tuple(sorted(self.loss_shares + other.loss_shares)),
            defaults=self.defaults | other.defaults,
            outages=self.outages | other.outages,
            depth_factors=tuple(sorted(self.depth_factors + other.depth_factors)),
            later=_united(self.later, other.later),
        )

    @property
    def depth_factor(self) -> float:
        """Product of all depth factors."""
        return math.prod(self.depth_factors)

    # what it does to a network ------------------------------------------------------------------------------------

    def price_factors(self, net: ExposureNetwork) -> NDArray[np.float64]:
        """Factor on the price of each asset, in the order of ``net.labels("assets")``."""
        underlying, known = net.underlyings
        factors = np.ones(len(underlying))
        for pairs, family in self.moves:
            named = dict(pairs)
            for name in named:
                if name not in known:
                    raise UnknownLabelError(name, known, "asset")
                if not family and name not in underlying:
                    followers = [asset for asset, parent in underlying.items() if parent == name]
                    raise UnknownLabelError(name, followers, "asset (an underlying: family=True moves what follows it)")
            for place, label in enumerate(underlying):
                change = _change(label, named, underlying) if family else named.get(label)
                factors[place] *= 1 + (change or 0.0)
        return factors

    def external_assets(self, net: ExposureNetwork, before: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        """External assets of each trader after losses and defaults [num]; before, by default, those of the network."""
        after = np.array(net.columns("traders")["external_assets"] if before is None else before)
        for share in self.loss_shares:
            after *= 1 - share
        for place, left in self.after_losses(net, after).items():
            after[place] = left
        after[self.failing(net)] = 0.0
        return after

    def after_losses(self, net: ExposureNetwork, before: NDArray[np.float64]) -> dict[int, float]:
        """External assets of the traders that losses name, by code [num]."""
        after: dict[int, float] = {}
        for name, amount in self.losses:
            place = _trader(net, name)
            held = after.get(place, float(before[place]))
            if held - amount < -1e-12 * amount:
                raise ValueError(f"the loss of {name!r} exceeds its external assets, {held:g} {net.numeraire}")
            after[place] = max(held - amount, 0.0)
        return after

    def failing(self, net: ExposureNetwork) -> list[int]:
        """Codes of the traders that the shock makes fail."""
        return [_trader(net, name) for name in self.defaults]

    def defaulted(self, net: ExposureNetwork) -> NDArray[np.bool_]:
        """Which traders the shock makes fail."""
        mask = blank(len(net.labels("traders")), bool)
        mask[self.failing(net)] = True
        return mask

    def out(self, net: ExposureNetwork) -> NDArray[np.bool_]:
        """Which exchanges are out."""
        labels = net.labels("exchanges")
        mask = np.zeros(len(labels), dtype=bool)
        for name in self.outages:
            mask[_place(labels, name, "exchange")] = True
        return mask

    def __str__(self) -> str:
        parts = []
        for pairs, family in self.moves:
            names = ", ".join(f"{name}{' family' if family else ''} {100 * x:+g} %" for name, x in pairs)
            parts.append(names)
        parts += [f"loss of {amount:,.6g} at {name}" for name, amount in self.losses]
        parts += [f"loss of {100 * share:g} % of external assets" for share in self.loss_shares]
        if self.defaults:
            parts.append(f"default of {', '.join(sorted(map(str, self.defaults)))}")
        if self.outages:
            parts.append(f"outage of {', '.join(sorted(map(str, self.outages)))}")
        if self.depth_factors:
            parts.append(f"depth x {self.depth_factor:g}")
        return "; ".join([", ".join(parts) or "no shock", *(f"round {at}: {one}" for at, one in self.later)])


def check_call(net: object, shock: object, *, optional: bool = False, path: bool = False) -> None:
    """Refuse, before any work, what is no network, no shock, or a shock with a name the network does not know.

    A path of shocks is refused where ``path`` does not allow it: only a run in rounds can play it.

    Raises
    ------
    TypeError
        Not an ``ExposureNetwork``, or not a ``Shock``.
    ValueError
        A path of shocks where there are no rounds.
    UnknownLabelError
        Naming the nearest labels.
    """
    from netcontagion.network._network import ExposureNetwork

    if not isinstance(net, ExposureNetwork):
        raise TypeError(f"the network comes first and is an ExposureNetwork, not {type(net).__name__}")
    if shock is None and optional:
        return
    if not isinstance(shock, Shock):
        raise TypeError(f"the shock is a Shock, for example Shock.price({{'ETH': -0.3}}), not {type(shock).__name__}")
    if shock.later and not path:
        raise ValueError(f"a path of shocks needs rounds, nc.cascade plays it; give one shock instead of {shock}")
    external = None
    for _, strike in shock.strikes:
        strike.price_factors(net)
        if strike.losses or strike.defaults:  # else no trader is named, and there is no need to go through all of them
            external = strike.external_assets(net, external)
        strike.out(net)


def _united(one: tuple[tuple[int, Shock], ...], other: tuple[tuple[int, Shock], ...]) -> tuple[tuple[int, Shock], ...]:
    """Later strikes of two paths together; those of one round are added."""
    found: dict[int, Shock] = {}
    for at, shock in (*one, *other):
        found[at] = found[at] + shock if at in found else shock
    return tuple(sorted(found.items(), key=lambda strike: strike[0]))


def _number(value: object) -> bool:
    return isinstance(plain(value), (int, float)) and not isinstance(plain(value), bool)


def _change(label: Any, named: dict[Any, float], underlying: dict[Any, Any]) -> float | None:
    """Change of the nearest named asset up the chain of underlyings; the label itself comes first."""
    name = label
    while name is not None:
        if name in named:
            return named[name]
        name = underlying.get(name)
    return None


def _trader(net: ExposureNetwork, name: Any) -> int:
    """Code of a trader; a plain name that was found once is not looked for again."""
    if type(name) not in (str, int):
        return _place(net.labels("traders"), name, "trader")
    known: dict[Any, int] = net.__dict__.setdefault("_named_traders", {})
    place = known.get(name)
    if place is None:
        place = known[name] = _place(net.labels("traders"), name, "trader")
    return place


def _place(labels: pd.Index, name: Any, kind: str) -> int:
    """Code of a label, bare or as ``(kind, label)``."""
    bare = name[1] if isinstance(name, tuple) and len(name) == 2 and name[0] == kind else name
    if type(bare) in (str, int) and bare in labels:
        return int(labels.get_loc(bare))  # type: ignore[arg-type]  # labels are unique: a place, no mask
    import pandas as pd

    place = int(labels.get_indexer(pd.Index([bare], tupleize_cols=False))[0]) if len(labels) else -1
    if place < 0:
        raise UnknownLabelError(name, labels, kind)
    return place
