"""Network contagion in margined markets.

The house, from the top; imports go down only::

    windows   figures  cli                    draw and write
    analysis  ranking  scenarios              ranking -> scenarios
    engines   clearing  margining             margining -> clearing
    sources   builders  generators  datasets  datasets -> builders
    record    network                         schema, network, rulebooks, shock, convert, storage
    ground    errors  _status  _iterate  _arrays  _compile

``tables -> ExposureNetwork -> Shock -> clear() / cascade() -> frozen result -> tables and figures``.
Names are loaded when they are first used, so that the import is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from netcontagion import builders, clearing, datasets, figures, generators, ranking, scenarios
    from netcontagion._status import Status
    from netcontagion.clearing import ClearingResult, clear
    from netcontagion.errors import ContagionError, DatasetError, NotSettledError, SchemaError, UnknownLabelError
    from netcontagion.figures import contagion_map
    from netcontagion.margining import CascadeResult, cascade
    from netcontagion.network import ExposureNetwork, LabelledMatrix, Shock, load, merge
    from netcontagion.ranking import BufferReport, buffers, rank
    from netcontagion.scenarios import SweepResult, compare, reverse_stress, sweep

_HOME = {
    "ExposureNetwork": "network",
    "LabelledMatrix": "network",
    "Shock": "network",
    "load": "network",
    "merge": "network",
    "clear": "clearing",
    "ClearingResult": "clearing",
    "cascade": "margining",
    "CascadeResult": "margining",
    "sweep": "scenarios",
    "reverse_stress": "scenarios",
    "compare": "scenarios",
    "SweepResult": "scenarios",
    "rank": "ranking",
    "buffers": "ranking",
    "BufferReport": "ranking",
    "contagion_map": "figures",
    "Status": "_status",
    "ContagionError": "errors",
    "DatasetError": "errors",
    "NotSettledError": "errors",
    "SchemaError": "errors",
    "UnknownLabelError": "errors",
}
_ROOMS = ("builders", "clearing", "datasets", "figures", "generators", "margining", "network", "ranking", "scenarios")

__all__ = [
    "BufferReport",
    "CascadeResult",
    "ClearingResult",
    "ContagionError",
    "DatasetError",
    "ExposureNetwork",
    "LabelledMatrix",
    "NotSettledError",
    "SchemaError",
    "Shock",
    "Status",
    "SweepResult",
    "UnknownLabelError",
    "buffers",
    "builders",
    "cascade",
    "clear",
    "clearing",
    "compare",
    "contagion_map",
    "datasets",
    "figures",
    "generators",
    "load",
    "merge",
    "rank",
    "ranking",
    "reverse_stress",
    "scenarios",
    "sweep",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("netcontagion")
    if name in _ROOMS:
        return import_module(f"{__name__}.{name}")
    if name in _HOME:
        value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, "__version__"])
