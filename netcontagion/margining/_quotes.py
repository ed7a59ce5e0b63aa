"""Marks that come from elsewhere than the exchange's own book: price sources, read once a round."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from netcontagion.errors import ContagionError, nearest
from netcontagion.network import Leg, Source, rulebook

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from netcontagion.network import ExposureNetwork

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]

__all__ = ["Quotes"]

SAME = 1e-12  # relative: prices that are nearer are one price
_LEVELS = ("pegged", "redemption")  # modes that say the mark itself; the others say how far the recorded mark moves


class _Reading(NamedTuple):
    """What the sources see and say in one round."""

    answer: Floats
    mean: Floats
    due: NDArray[np.bool_]
    told: Floats
    marks: Floats


class Quotes:
    """Price sources of one run: ``marks`` [num/unit] of the markets ``market``, as of the last round read.

    With V_t what a source's quotes are worth in round t, and -1 the time of record, a market marked at m answers
    ``a_t = m V_t / V_-1`` (pegged and redemption: ``a_t = V_t``); twap takes the mean of the last ``window`` answers.
    The source tells a_t where it moved by ``deviation`` from what it told last, or ``heartbeat`` rounds after that; the
    mark is what it told ``latency`` rounds ago (before round 0: what it told at the time of record), between ``low``
    and ``high``. Quotes are prices of shared books, one for each asset, then of the books that markets trade on.
    """

    def __init__(self, net: ExposureNetwork) -> None:
        named = _named(net)
        self.market = np.array([market for market, _ in named], dtype=np.int64)
        sources = [source for _, source in named]
        self.place, self.weight, self.convert = _legs(net, named)
        self.median = np.array([source.mode == "median" for source in sources], dtype=bool)
        self.level = np.array([source.mode in _LEVELS for source in sources], dtype=bool)
        self.window, self.heartbeat = (
            np.array([getattr(source, name) for source in sources], dtype=np.int64) for name in ("window", "heartbeat")
        )
        self.deviation, self.lag, self.low, self.high = (
            np.array([getattr(source, name) for source in sources], dtype=float)
            for name in ("deviation", "latency", "low", "high")
        )
        self.lag = np.ceil(self.lag)
        book = net.book
        self.recorded = book.market_mark[self.market]
        self.before = self._value(np.concatenate([net.columns("assets")["price"], book.market_mark]))
        self.start = np.where(self.level, self.before, self.recorded)
        self.answers: deque[Floats] = deque(maxlen=int(self.window.max(initial=1)))
        self.said: deque[Floats] = deque(maxlen=1 + int(self.lag[np.isfinite(self.lag)].max(initial=0)))
        self.round, self.last = -1, self.start
        self.mean = self.start
        self.updated = np.full(len(sources), -1)
        self.moved, self.changed = (np.full(len(sources), np.iinfo(np.int64).min // 2) for _ in range(2))
        self.opening = self.marks = self.start
        self.books = np.concatenate([np.arange(len(net.labels("assets"))), book.market_book])[self.place]

    def open(self, prices: Floats) -> None:
        """Note what the sources say right after the shock, at these quotes, before anybody acts."""
        if not len(self.market):
            return
        self.opening = self.marks = self._reading(prices).marks

    def read(self, prices: Floats) -> None:
        """Read all sources for the next round, at these quotes."""
        if not len(self.market):
            return
        now, before = self._reading(prices), self.answers[-1] if self.answers else self.start
        self.round += 1
        self.moved[_differ(now.answer, before)] = self.round
        self.changed[_differ(now.told, self.last)] = self.round
        self.updated[now.due] = self.round
        self.answers.append(now.answer)
        self.said.append(now.told)
        self.mean, self.last, self.marks = now.mean, now.told, now.marks

    @property
    def pending(self) -> bool:
        """Whether a mark can still move though no quote moves any more."""
        late = (self.lag > 0) & (self.changed > self.round - self.lag)
        averaging = self.moved > self.round - self.window + 1
        waiting = (self.heartbeat > 0) & _differ(self.last, self.mean)
        return bool((np.isfinite(self.lag) & (late | averaging | waiting)).any())

    def falls(self, last_fall: Integers, book: Integers) -> Integers:
        """Event that last lowered the mark of each market: a sale on a book its source reads, or on its own."""
        found = np.asarray(last_fall[book])
        if len(self.market):
            found[self.market] = np.where(self.weight > 0, last_fall[self.books], 0).max(axis=1)
        return found

    # one round ----------------------------------------------------------------------------------------------------

    def _reading(self, prices: Floats) -> _Reading:
        with np.errstate(over="ignore", invalid="ignore"):  # a price without bound ends the run as NONFINITE
            value = self._value(prices)
            moved = np.divide(value, self.before, out=np.ones(len(value)), where=self.before > 0)
            answer = np.where(self.level, value, self.recorded * moved)
            mean = self._mean(answer)
            due = self._due(mean)
            told = np.where(due, mean, self.last)
            return _Reading(answer, mean, due, told, np.clip(self._delayed(told), self.low, self.high))

    def _value(self, prices: Floats) -> Floats:
        """Value of the quotes of each source."""
        quotes = np.where(self.weight > 0, prices[self.place] * self.convert, np.nan)
        found = np.nansum(self.weight * quotes, axis=1)
        if self.median.any():
            found[self.median] = np.nanmedian(quotes[self.median], axis=1)
        return np.where(np.isfinite(prices[self.place]).all(axis=1), found, np.nan)

    def _mean(self, answer: Floats) -> Floats:
        """Mean over the window of each source; rounds before round 0 were like the time of record."""
        found = answer.copy()
        for window in np.unique(self.window[self.window > 1]).tolist():
            rows = np.flatnonzero(self.window == window)
            past = [answers[rows] for answers in self.answers][-(window - 1) :]
            missing = window - 1 - len(past)
            found[rows] = (np.sum(past, axis=0) + answer[rows] + missing * self.start[rows]) / window
        return found

    def _due(self, mean: Floats) -> NDArray[np.bool_]:
        """Which sources tell something new."""
        far = np.abs(mean - self.last) >= self.deviation * np.abs(self.last) * (1.0 - SAME)
        old = self.round + 1 - self.updated >= self.heartbeat
        always = (self.deviation <= 0) & (self.heartbeat == 0)
        return np.asarray(always | ((self.deviation > 0) & far) | ((self.heartbeat > 0) & old))

    def _delayed(self, told: Floats) -> Floats:
        """Look up what each source told as many rounds ago as it is late."""
        found = told.copy()
        for lag in np.unique(self.lag[self.lag > 0]).tolist():
            rows = self.lag == lag
            found[rows] = (self.said[-int(lag)] if lag <= len(self.said) else self.start)[rows]
        return found


def _differ(one: Floats, other: Floats) -> NDArray[np.bool_]:
    return np.asarray(np.abs(one - other) > SAME * np.abs(other))


# what the markets name ------------------------------------------------------------------------------------------------


def _named(net: ExposureNetwork) -> list[tuple[int, Source]]:
    """Markets with a source that is more than the own book, and the source."""
    market, exchange = net.columns("markets"), net.columns("exchanges")["rulebook"]
    found = []
    for row, name in enumerate(market["price_source"]):
        if name is None:
            continue
        known = {source.name: source for source in rulebook(exchange[market["exchange"][row]]).sources}
        source = known.get(name, Source(name=name, mode=name))
        if source != Source(name=name, mode="spot"):
            found.append((row, source))
    return found


def _legs(net: ExposureNetwork, named: list[tuple[int, Source]]) -> tuple[Integers, Floats, Floats]:
    """Quotes of each source, (sources, most legs): place among all quotes, weight (0: none) and conversion."""
    finder, wrong = _Finder(net), []
    rows = []
    for market, source in named:
        found, problems = finder.quotes(market, source)
        rows.append(found)
        wrong += problems
    if wrong:
        raise ContagionError("price sources that the network cannot feed: " + "; ".join(dict.fromkeys(wrong)))
    shape = (len(rows), max(map(len, rows), default=1))
    place, weight, convert = np.zeros(shape, dtype=np.int64), np.zeros(shape), np.ones(shape)
    for row, found in enumerate(rows):
        total = sum(leg[1] for leg in found)
        for column, (where, share, ratio) in enumerate(found):
            place[row, column], weight[row, column], convert[row, column] = where, share / total, ratio
        place[row, len(found) :] = place[row, 0]
    return place, weight, convert


class _Finder:
    """Finds the quotes that sources name in a network."""

    def __init__(self, net: ExposureNetwork) -> None:
        self.net, self.columns = net, net.columns("assets")
        self.assets, self.exchanges = (
            {str(label): code for code, label in enumerate(net.labels(kind).tolist())}
            for kind in ("assets", "exchanges")
        )
        book = net.book
        pairs = zip(book.market_exchange.tolist(), book.market_asset.tolist(), strict=True)
        self.markets = {pair: row for row, pair in enumerate(pairs)}

    def quotes(self, market: int, source: Source) -> tuple[list[tuple[int, float, float]], list[str]]:
        """Place, weight and conversion of every quote of a source, and what is wrong with it."""
        book, own = self.net.book, int(self.net.book.market_asset[market])
        name = self.net.columns("exchanges")["rulebook"][book.market_exchange[market]]
        where = f"rulebook {name!r}, source {source.name!r}"
        if source.mode in ("spot", "asset"):
            return [(len(self.assets) + market if source.mode == "spot" else own, 1.0, 1.0)], []
        if source.mode == "redemption":
            behind = self._behind(own)
            if behind is None:
                return [], [f"{where}: {self._label(own)!r} has no underlying that is an asset"]
            return [(behind, 1.0, float(self.columns["ratio"][own] * self.columns["backing_ratio"][own]))], []
        if not source.legs:
            listed = np.flatnonzero(book.market_asset == own).tolist()
            return [(len(self.assets) + row, 1.0, 1.0) for row in listed], []
        found, wrong = [], []
        for n, leg in enumerate(source.legs):
            try:
                found.append(self._quote(own, leg))
            except ContagionError as error:
                wrong.append(f"{where}, leg {n}: {error}")
        return found, wrong

    def _quote(self, own: int, leg: Leg) -> tuple[int, float, float]:
        asset = self._code(leg.asset, self.assets, "asset") if leg.asset else own
        place = asset
        if leg.exchange:
            exchange = self._code(leg.exchange, self.exchanges, "exchange")
            if (exchange, asset) not in self.markets:
                raise ContagionError(f"exchange {leg.exchange!r} has no market of {self._label(asset)!r}")
            place = len(self.assets) + self.markets[exchange, asset]
        return place, leg.weight, self._ratio(own, asset) if leg.convert else 1.0

    def _ratio(self, own: int, asset: int) -> float:
        """Units of ``asset`` behind one unit of ``own``, along the chain of underlyings."""
        ratio, place = 1.0, own
        while place != asset:
            behind = self._behind(place)
            if behind is None:
                raise ContagionError(
                    f"{self._label(asset)!r} does not underlie {self._label(own)!r}: nothing to convert"
                )
            ratio, place = ratio * float(self.columns["ratio"][place]), behind
        return ratio

    def _behind(self, asset: int) -> int | None:
        return self.assets.get(str(self.columns["underlying"][asset]))

    def _label(self, asset: int) -> Any:
        return self.net.labels("assets")[asset]

    @staticmethod
    def _code(label: str, known: dict[str, int], kind: str) -> int:
        if label not in known:
            near: Iterable[str] = nearest(label, list(known))
            hint = "".join(f", did you mean {one!r}?" for one in list(near)[:1])
            raise ContagionError(f"the network has no {kind} {label!r}{hint}")
        return known[label]
