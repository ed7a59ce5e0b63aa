"""How a block of scenarios of one network is run: one by one, or side by side where the model can."""

from __future__ import annotations

import functools
import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion._status import Status
from netcontagion.clearing import clear, clear_together
from netcontagion.errors import ContagionError, NotSettledError
from netcontagion.margining import cascade
from netcontagion.network import check_call
from netcontagion.scenarios._nodes import Rows, Sums
from netcontagion.scenarios._reading import OF_NODES, Read, check_outputs, read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from netcontagion.network import ExposureNetwork, Shock
    from netcontagion.scenarios._nodes import Floats
    from netcontagion.scenarios._reading import Outputs
    from netcontagion.scenarios._scenarios import Scenarios

__all__ = ["ERROR", "TOTAL", "Run", "as_run"]

ERROR = "ERROR"
TOTAL = " loss"  # hidden column: what all nodes lost, for the tail
SIDE_BY_SIDE = 256  # most scenarios that are cleared together
NUMBERS = 2**22  # most numbers of them
SETTLED = {status.name for status in Status if status.settled}


@dataclass(frozen=True)
class Run:
    """A run of one scenario with its options, and what is read of its result.

    ``kind`` is "cascade", "clear" or "own"; ``together`` are the options of a clearing side by side, None where
    scenarios are run one by one.
    """

    call: Callable[..., Any]
    kind: str
    outputs: Outputs
    nodes: bool
    takes_seed: bool
    together: dict[str, Any] | None

    def size(self, net: ExposureNetwork) -> int:
        """Scenarios of a block: it depends on nothing but the network, so that results depend on nothing else."""
        if self.together is None:
            return 1
        room = NUMBERS // max(len(net.nodes), 1)
        return int(max(1, min(SIDE_BY_SIDE, 2 ** (room.bit_length() - 1))))

    def check(self, net: ExposureNetwork, scenarios: Scenarios) -> None:
        """Refuse, before any work, names that the network does not know, and paths where there are no rounds."""
        if self.kind == "own":
            return
        scenarios.check(net)
        longest = next((shock for shock in scenarios if shock.later), None)
        if longest is not None:
            check_call(net, longest, path=self.kind == "cascade")

    def block(
        self, net: ExposureNetwork, shocks: Sequence[Shock], seeds: Sequence[int], weights: Floats
    ) -> tuple[Rows, Sums | None]:
        """Run a block; return its rows, and the weighted sums over its scenarios by node."""
        found = self._side_by_side(net, shocks, weights)
        return self._one_by_one(net, shocks, seeds, weights) if found is None else found

    def one(self, net: ExposureNetwork, shock: Shock, seed: int) -> Read | str:
        """Run one scenario; return what was read, or the error in a sentence."""
        options = {"seed": seed} if self.takes_seed else {}
        try:
            try:
                result = self.call(net, shock, **options)
            except NotSettledError as error:
                result = error.result
            return read(result, self.outputs, nodes=self.nodes)
        except Exception as error:
            return f"{type(error).__name__}: {error}"

    def _one_by_one(
        self, net: ExposureNetwork, shocks: Sequence[Shock], seeds: Sequence[int], weights: Floats
    ) -> tuple[Rows, Sums | None]:
        status, errors, numbers, sums = [], {}, [], None
        for row, (shock, seed, weight) in enumerate(zip(shocks, seeds, weights.tolist(), strict=True)):
            found = self.one(net, shock, seed)
            if isinstance(found, str):
                errors[row], found = found, Read(ERROR, {})
            status.append(found.status)
            total = {} if found.loss is None else {TOTAL: float(found.loss.sum())}
            numbers.append(found.numbers | total)
            if self.nodes and found.loss is not None and found.status in SETTLED:
                fresh = Sums(found.loss * weight, found.defaulted.astype(np.int64))
                sums = fresh if sums is None else sums.plus(fresh)
        return Rows(np.array(status, dtype=object), errors, _columns(numbers)), sums

    def _side_by_side(
        self, net: ExposureNetwork, shocks: Sequence[Shock], weights: Floats
    ) -> tuple[Rows, Sums | None] | None:
        """Clear a block together; None where that cannot be done, or where a scenario fails."""
        if self.together is None:
            return None
        try:
            found = clear_together(net, shocks, weights, **self.together)
        except (ContagionError, ValueError):
            return None
        if found is None:
            return None
        known: dict[str, Any] = {
            "loss": found.direct + found.contagion,
            "direct": found.direct,
            "contagion": found.contagion,
        }
        known |= {"defaults": found.defaults, "rounds": found.rounds, "shortfall": found.shortfall}
        names: Iterable[str] = self._default() if self.outputs is None else tuple(self.outputs)
        columns = {name: known[name] for name in names}
        rows = Rows(np.array([status.name for status in found.statuses], dtype=object), {}, columns)
        if not self.nodes:
            return rows, None
        columns[TOTAL] = known["loss"]
        return rows, Sums(found.node_loss, found.node_defaults)

    def _default(self) -> tuple[str, ...]:
        return (*(OF_NODES if self.nodes else ()), "rounds", "shortfall")


def as_run(run: Any, outputs: Any, *, nodes: bool) -> Run:
    """Recognise a run: the engines of the package, with or without options, or a function of one's own."""
    if not callable(run):
        raise TypeError(
            f"run is {run!r}; give nc.cascade, nc.clear, either as functools.partial with options, or f(net, shock)"
        )
    inner: Any = run
    given: dict[str, Any] = {}
    while isinstance(inner, functools.partial):
        if inner.args:
            message = f"run has the positional options {inner.args!r}; the network and the shock come first: name them"
            raise TypeError(message)
        inner, given = inner.func, {**inner.keywords, **given}
    kind = "cascade" if inner is cascade else "clear" if inner is clear else "own"
    wanted = check_outputs(outputs, kind)
    if kind == "own":
        return Run(run, kind, wanted, nodes, _takes_seed(run), None)
    if "strict" not in given:
        run = functools.partial(run, strict=False)
    side_by_side = kind == "clear" and given.get("model", "eisenberg_noe") == "eisenberg_noe"
    together = {name: value for name, value in given.items() if name not in ("model", "strict")}
    plain = side_by_side and not isinstance(wanted, dict)
    return Run(run, kind, wanted, nodes, kind == "cascade" and "seed" not in given, together if plain else None)


def _takes_seed(run: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(run).parameters
    except (TypeError, ValueError):
        return False
    fixed = isinstance(run, functools.partial) and "seed" in run.keywords
    return "seed" in parameters and not fixed


def _columns(numbers: list[dict[str, float]]) -> dict[str, Any]:
    names = dict.fromkeys(name for row in numbers for name in row)
    return {name: np.array([row.get(name, np.nan) for row in numbers]) for name in names}
