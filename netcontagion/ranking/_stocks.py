"""What buffers did in each scenario: what reached them, what they took of it, and the round in which more came."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from netcontagion.network import Shock, rulebook
from netcontagion.ranking._response import fitted
from netcontagion.ranking._tools import TOOLS, margin_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from netcontagion.network import ExposureNetwork
    from netcontagion.ranking._response import Response
    from netcontagion.ranking._tools import Lever

    Floats = NDArray[np.float64]

__all__ = ["Stock", "exhausted", "stocks"]

_LAYER = {"insurance_fund": "insurance_fund", "exchange_equity": "equity"}
_COLUMN = {
    "equity": "equity_used",
    "insurance_fund": "insurance_fund_used",
    "suppliers": "socialised",
    "mint": "minted",
    "co_borrowers": "handed_on",
    "frozen": "frozen",
    "uncovered": "uncovered",
}  # of the table of exchanges, by layer; others are called <layer>_used


class Stock(NamedTuple):
    """By scenario: loss that reached a buffer [num], what it took, and when more came than it had (NaN: never)."""

    reached: Floats
    used: Floats
    exhausted: Floats


def stocks(response: Response, levers: Sequence[Lever]) -> list[Stock]:
    """Return what each lever did; levers are of tools that drain."""
    return _of_clearing(response, levers) if response.kind == "clear" else _of_cascade(response, levers)


# cascades -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _OfExchanges:
    """A number of one layer of some exchanges: "reached", "used" or "exhausted"."""

    layer: str
    places: tuple[int, ...]
    what: str

    def __call__(self, result: Any) -> float:
        if self.what == "exhausted":
            return min(self._round(result, place) for place in self.places)
        table = result.exchanges
        return float(sum(self._money(table, _layers(result.network, place), place) for place in self.places))

    def _money(self, table: Any, layers: tuple[str, ...], place: int) -> float:
        if self.layer not in layers:
            return 0.0
        first = layers.index(self.layer)
        names = layers[first : first + 1] if self.what == "used" else layers[first:]
        columns = [_COLUMN.get(name, f"{name}_used") for name in names]
        return float(table[[name for name in columns if name in table]].iloc[place].sum())

    def _round(self, result: Any, place: int) -> float:
        """First round in which a later layer bears something; inf: none."""
        layers = _layers(result.network, place)
        if self.layer not in layers:
            return np.inf
        later = layers[layers.index(self.layer) + 1 :]
        events = result.events
        name = result.network.labels("exchanges")[place]
        rows = events[events["type"].isin(later) & (events["exchange"] == name)]
        return float(rows["round"].min()) if len(rows) else np.inf


@dataclass(frozen=True)
class _OfTraders:
    """A number of the margin accounts of some traders."""

    traders: tuple[int, ...]
    what: str

    def __call__(self, result: Any) -> float:
        rows, trader, _ = margin_rows(result.network)
        mine = np.unique(result.network.book.balance_account[rows[np.isin(trader, self.traders)]])
        if self.what == "exhausted":
            names = result.network.labels("accounts")[mine]
            events = result.events
            fell = events[(events["type"] == "deficit") & events["account"].isin(names)]
            return float(fell["round"].min()) if len(fell) else np.inf
        table = result.accounts.iloc[mine]
        used = float(np.maximum(table["loss"], 0.0).sum())
        return used if self.what == "used" else used + float(table["deficit"].sum())


def _layers(net: ExposureNetwork, place: int) -> tuple[str, ...]:
    """Layers of an exchange in the order in which they bear, as its rulebook and its recourse say."""
    table = net.columns("exchanges")
    names = rulebook(table["rulebook"][place]).layers
    first = ("recourse",) if table["recourse"][place] and "recourse" not in names else ()
    return ("surplus", *first, *names, "uncovered")


def _of_cascade(response: Response, levers: Sequence[Lever]) -> list[Stock]:
    figures: dict[str, Callable[[Any], float]] = {}
    for number, lever in enumerate(levers):
        for what in Stock._fields:
            of_exchanges = TOOLS[lever.tool].nodes == "exchanges"
            read = _OfExchanges(_LAYER[lever.tool], lever.places, what) if of_exchanges else None
            figures[f"{number} {what}"] = read or _OfTraders(lever.places, what)
    if not figures:
        return []
    found = response.read(response.net, figures)
    by_lever = [Stock(*(found[f"{number} {what}"] for what in Stock._fields)) for number in range(len(levers))]
    return [one._replace(exhausted=np.where(np.isinf(one.exhausted), np.nan, one.exhausted)) for one in by_lever]


@dataclass(frozen=True)
class _PastUse:
    """Whether more of a layer could still change anything: a later one bore something, or an exchange fell short."""

    layer: str
    places: tuple[int, ...]

    def __call__(self, result: Any) -> float:
        past = np.isfinite(_OfExchanges(self.layer, self.places, "exhausted")(result))
        banks = len(result.network.labels("traders")) + np.array(self.places)
        return float(past or (result.clearing is not None and np.asarray(result.defaulted)[banks].any()))


def exhausted(response: Response, lever: Lever, size: float) -> bool:
    """Tell whether a fund or equity of a size is exhausted in any scenario."""
    net = lever.at(response.net, size)
    return bool(response.read(net, {"past": _PastUse(_LAYER[lever.tool], lever.places)})["past"].any())


# clearings ------------------------------------------------------------------------------------------------------------


def _of_clearing(response: Response, levers: Sequence[Lever]) -> list[Stock]:
    """Read nodes: what its equity took, what it left unpaid beyond, and the wave in which it defaults, if known."""
    net, cut = response.net, len(response.net.labels("traders"))
    calm = response.call(net, Shock())
    size = (len(response.scenarios), len(net.nodes))
    used, short, wave = np.zeros(size), np.zeros(size), np.full(size, np.nan)
    greatest = response.options.get("which", "greatest") == "greatest"
    more = {"waves": True} if response.model in ("eisenberg_noe", "rogers_veraart") and greatest else {}
    for row, shock in enumerate(fitted(response.scenarios, net)):
        result = response.call(net, shock, **more)
        used[row] = np.maximum(np.asarray(calm.equity) - np.asarray(result.equity), 0.0)
        short[row] = np.maximum(result.values.shortfall - calm.values.shortfall, 0.0)
        defaulted = np.asarray(result.defaulted)
        waves = getattr(result, "default_wave", None)
        wave[row] = np.where(defaulted, 0.0 if waves is None else np.asarray(waves), np.nan)
    found = []
    for lever in levers:
        nodes = np.array(lever.places) + (cut if TOOLS[lever.tool].nodes == "exchanges" else 0)
        took, left = used[:, nodes].sum(axis=1), short[:, nodes].sum(axis=1)
        first = np.where(np.isnan(wave[:, nodes]), np.inf, wave[:, nodes]).min(axis=1)
        found.append(Stock(took + left, took, np.where(np.isinf(first), np.nan, first)))
    return found
