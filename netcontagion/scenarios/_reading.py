"""What a sweep writes down of a result: numbers by name, and what every node lost and who defaulted."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from netcontagion.clearing import ClearingResult
from netcontagion.errors import UnknownLabelError
from netcontagion.margining import CascadeResult

if TYPE_CHECKING:
    from netcontagion.scenarios._nodes import Floats

    Outputs = Mapping[str, Callable[[Any], float]] | tuple[str, ...] | None

__all__ = ["OF_NODES", "OUTPUTS", "Read", "check_outputs", "read"]

OF_NODES = ("loss", "direct", "contagion", "defaults")  # sums over nodes
CASCADE = (
    "rounds",
    "called",
    "liquidated",
    "sold",
    "bad_debt",
    "insurance_fund_used",
    "equity_used",
    "socialised",
    "uncovered",
)
OUTPUTS = {"cascade": (*OF_NODES, *CASCADE), "clear": (*OF_NODES, "rounds", "shortfall")}
"""Outputs of a sweep that have a name, by kind of run."""
RAN = "RAN"  # status of what has none of its own


class Read(NamedTuple):
    """Status, numbers by name, and by node the loss [num] and whether it defaulted (None: not asked for)."""

    status: str
    numbers: dict[str, float]
    loss: Floats | None = None
    defaulted: Any = None


def check_outputs(outputs: Any, kind: str) -> Outputs:
    """Return outputs as names, as functions by name, or None; refuse what is neither, or unknown to the kind of run."""
    if outputs is None:
        return None
    if isinstance(outputs, Mapping):
        wrong = [name for name, function in outputs.items() if not isinstance(name, str) or not callable(function)]
        if wrong or not outputs:
            raise TypeError(f"outputs {wrong or outputs!r}: give names, or functions of a result by name")
        return dict(outputs)
    if isinstance(outputs, str) or not isinstance(outputs, Iterable):
        raise TypeError(f"outputs is {outputs!r}; give a collection of names, or functions of a result by name")
    names = tuple(outputs)
    known = OUTPUTS.get(kind)
    for name in names:
        if not isinstance(name, str) or (known is not None and name not in known):
            raise UnknownLabelError(name, known or (), "output")
    return names


def read(result: Any, outputs: Outputs, *, nodes: bool) -> Read:
    """Read a result, or the numbers that a run of one's own returned."""
    status = getattr(getattr(result, "status", None), "name", RAN)
    contagion = isinstance(result, (CascadeResult, ClearingResult))
    loss = defaulted = None
    sums: dict[str, float] = {}
    if contagion and (nodes or (not isinstance(outputs, Mapping) and set(outputs or ()) & set(OF_NODES))):
        loss, defaulted, sums = _of_nodes(result)
    if isinstance(outputs, Mapping):
        return Read(
            status, {name: _number(name, function(result)) for name, function in outputs.items()}, loss, defaulted
        )
    found = sums | _figures(result) if contagion else _given(result)
    wanted = outputs if outputs is not None else tuple(found)
    missing = [name for name in wanted if name not in found]
    if missing:
        raise UnknownLabelError(missing[0], found, "output")
    return Read(status, {name: found[name] for name in wanted}, loss, defaulted)


def _of_nodes(result: CascadeResult | ClearingResult) -> tuple[Floats, Any, dict[str, float]]:
    """Loss by node, who defaulted, and the sums of both; those who stand outside the network do not default."""
    table: Any = result.loss
    direct, contagion = table["direct"].to_numpy(), table["contagion"].to_numpy()
    defaulted = np.zeros(len(table), dtype=bool)
    marked = np.asarray(result.defaulted)
    defaulted[: len(marked)] = marked
    loss = direct + contagion
    sums = (float(loss.sum()), float(direct.sum()), float(contagion.sum()), int(defaulted.sum()))
    return loss, defaulted, dict(zip(OF_NODES, sums, strict=True))


def _figures(result: CascadeResult | ClearingResult) -> dict[str, float]:
    if isinstance(result, CascadeResult):
        return {name: result.figures[name] for name in CASCADE}
    return {"rounds": int(np.max(result.iterations)), "shortfall": float(result.values.shortfall.sum())}


def _given(result: Any) -> dict[str, float]:
    if not isinstance(result, Mapping):
        message = f"the run returned a {type(result).__name__}; return numbers by name, or read it with outputs="
        raise TypeError(message)
    return {str(name): _number(name, value) for name, value in result.items()}


def _number(name: Any, value: Any) -> float:
    """Return a plain number; what is none, or NaN, is refused."""
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
        value = value.item()
    if not isinstance(value, (int, float)):
        raise TypeError(f"output {name!r} is {value!r}, which is no number")
    if math.isnan(value):
        raise ValueError(f"output {name!r} is not a number (NaN)")
    return value
