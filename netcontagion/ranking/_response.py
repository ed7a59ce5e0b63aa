"""What a network does in all scenarios when buffers have other sizes; equal scenarios have equal random numbers."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion._status import Status
from netcontagion.clearing import clear
from netcontagion.errors import ContagionError
from netcontagion.margining import cascade
from netcontagion.ranking._outcomes import LOSS, Deficit, Figure
from netcontagion.scenarios import Scenarios, sweep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from numpy.typing import NDArray

    from netcontagion.network import ExposureNetwork, Shock
    from netcontagion.ranking._tools import Lever

    Floats = NDArray[np.float64]
    Outcomes = dict[str, Floats]

__all__ = ["Response", "engine_of", "fitted"]

ANSWERED = [status.name for status in Status if status.settled]


def engine_of(net: ExposureNetwork, run: Callable[..., Any] | None, seed: int | None) -> tuple[Any, str]:
    """Return the run, seeded, and its kind; by default a cascade where there are accounts, else a clearing."""
    call: Any = run if run is not None else (cascade if len(net.labels("accounts")) else clear)
    inner: Any = call
    given: dict[str, Any] = {}
    while isinstance(inner, functools.partial):
        inner, given = inner.func, {**inner.keywords, **given}
    if inner is cascade:
        return (call if "seed" in given else functools.partial(call, seed=0 if seed is None else seed)), "cascade"
    if inner is clear:
        return call, "clear"
    raise TypeError(f"run is {run!r}; give nc.cascade or nc.clear, or a functools.partial of either with options")


@dataclass(frozen=True, eq=False)
class Response:
    """A network under scenarios, and by what it is judged: ``names`` of outcomes."""

    net: ExposureNetwork
    scenarios: Scenarios
    call: Any
    kind: str
    names: tuple[str, ...]
    n_jobs: int | None

    @property
    def options(self) -> dict[str, Any]:
        """Options of the run."""
        return dict(self.call.keywords) if isinstance(self.call, functools.partial) else {}

    @property
    def model(self) -> str:
        """Model of a clearing; "" of a cascade."""
        return str(self.options.get("model", "eisenberg_noe")) if self.kind == "clear" else ""

    @functools.cached_property
    def now(self) -> Outcomes:
        """What happens to the network as it is."""
        return self._first[0]

    @functools.cached_property
    def deficits(self) -> Floats:
        """Bad debt of each exchange at the marks of its rounds, by scenario [num]; none in a clearing."""
        return self._first[1]

    @functools.cached_property
    def _first(self) -> tuple[Outcomes, Floats]:
        size = len(self.net.labels("exchanges"))
        if self.kind == "clear" or not size:
            return self.of({"as it is": self.net})[0], np.zeros((len(self.scenarios), size))
        figures: dict[str, Callable[[Any], float]] = {name: Figure(name) for name in self.names}
        found = self.read(self.net, figures | {f"deficit {place}": Deficit(place) for place in range(size)})
        return {name: found[name] for name in self.names}, np.stack(
            [found[f"deficit {place}"] for place in range(size)], axis=1
        )

    def at(self, lever: Lever, sizes: Iterable[float], *, strict: bool = True) -> list[Outcomes]:
        """Return what happens at each size of a lever, all else as it is."""
        return self.of({f"{lever} at {size:.17g}": lever.at(self.net, size) for size in sizes}, strict=strict)

    def of(self, nets: Mapping[str, ExposureNetwork], *, strict: bool = True) -> list[Outcomes]:
        """Return the outcomes of some networks, by scenario; inf where there is no answer, or an error if strict."""
        found: dict[str, Outcomes] = {}
        alike: dict[str, ExposureNetwork] = {}
        for name, net in nets.items():
            scenarios = fitted(self.scenarios, net)
            if scenarios is self.scenarios:
                alike[name] = net
            else:
                found |= self._swept({name: net}, scenarios, self.names, strict=strict)
        if alike:
            found |= self._swept(alike, self.scenarios, self.names, strict=strict)
        return [found[name] for name in nets]

    def read(self, net: ExposureNetwork, figures: Mapping[str, Callable[[Any], float]]) -> Outcomes:
        """Return numbers read of the results of one network, by scenario."""
        return self._swept({"": net}, fitted(self.scenarios, net), dict(figures))[""]

    def _swept(
        self, nets: Mapping[str, ExposureNetwork], scenarios: Scenarios, wanted: Any, *, strict: bool = True
    ) -> dict[str, Outcomes]:
        swap = self.kind == "clear" and not isinstance(wanted, dict)
        outputs: Any = wanted
        if swap:  # names are cleared side by side, and there the spillover is the shortfall
            outputs = list(dict.fromkeys("shortfall" if name == LOSS else name for name in wanted))
        elif not isinstance(wanted, dict):
            outputs = {name: Figure(name) for name in wanted}
        table = sweep(
            nets, scenarios, run=self.call, outputs=outputs, nodes=False, tail=None, n_jobs=self.n_jobs,
            progress=False, seed=0,
        ).table  # fmt: skip
        unanswered = ~table["status"].isin(ANSWERED)
        failed = table[unanswered]
        if len(failed) and not strict:
            numbers = list(dict.fromkeys(outputs))
            table = table.assign(**{one: table[one].where(~unanswered, np.inf) for one in numbers})
        elif len(failed):
            (name, scenario), row = failed.index[0], failed.iloc[0]
            where = f"scenario {scenario}" + (f" with {name}" if name else "")
            raise ContagionError(f"{where} ended with {row['status']}: {row['error'] or 'no answer'}")
        rows = {name: table.xs(name, level="network") for name in nets}
        return {
            name: {one: part["shortfall" if swap and one == LOSS else one].to_numpy(dtype=float) for one in wanted}
            for name, part in rows.items()
        }


def fitted(scenarios: Scenarios, net: ExposureNetwork) -> Scenarios:
    """Let no trader lose more than its external assets: scenarios that fit stay what they are."""
    if not any(strike.losses for shock in scenarios for _, strike in shock.strikes):
        return scenarios
    held = dict(zip(net.labels("traders"), net.columns("traders")["external_assets"].tolist(), strict=True))
    cut = [_less(shock, held) for shock in scenarios]
    alike = all(one is other for one, other in zip(cut, scenarios, strict=True))
    return scenarios if alike else Scenarios(cut, scenarios.parameters)


def _less(shock: Shock, held: Mapping[Any, float]) -> Shock:
    """Cut the losses of every strike to what the ones before and its shares leave."""
    room = {_bare(name): held[_bare(name)] for _, strike in shock.strikes for name, _ in strike.losses}
    strikes = []
    for at, strike in shock.strikes:
        left = float(np.prod([1 - share for share in strike.loss_shares]))
        room = {name: money * left for name, money in room.items()}
        cut = []
        for name, amount in strike.losses:
            cut.append((name, min(amount, room[_bare(name)])))
            room[_bare(name)] -= cut[-1][1]
        strikes.append((at, strike if tuple(cut) == strike.losses else dataclasses.replace(strike, losses=tuple(cut))))
    fits = all(one is other for (_, one), (_, other) in zip(strikes[1:], shock.later, strict=True))
    if fits and strikes[0][1].losses == shock.losses:
        return shock
    return dataclasses.replace(strikes[0][1], later=tuple(strikes[1:]))


def _bare(name: Any) -> Any:
    return name[1] if isinstance(name, tuple) and len(name) == 2 and name[0] == "trader" else name
