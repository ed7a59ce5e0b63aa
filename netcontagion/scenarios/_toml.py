"""Scenarios in TOML: shocks one by one, and the makers by their names."""

from __future__ import annotations

import dataclasses
import datetime
import inspect
import itertools
import json
import math
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netcontagion._arrays import plain
from netcontagion.errors import ContagionError, Problem, SchemaError, nearest
from netcontagion.network import Shock
from netcontagion.scenarios._axes import raise_for
from netcontagion.scenarios._designs import defaults, grid, quasi_random
from netcontagion.scenarios._draws import correlated
from netcontagion.scenarios._returns import bootstrap, historical
from netcontagion.scenarios._scenarios import Scenarios, cross

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from netcontagion.network import ExposureNetwork

__all__ = ["read", "settings", "write"]

SWEEP = "sweep"
SCENARIO = "scenario"
_MAKERS: dict[str, Callable[..., Scenarios]] = {
    made.__name__: made for made in (grid, quasi_random, correlated, historical, bootstrap, defaults)
}
_SHOCK_KEYS = ("price", "family", "depth", "loss", "default", "outage", "plus")
_SETTINGS: dict[str, tuple[type, str]] = {
    "network": (str, "a folder of tables, a CSV or a bundled data set"),
    "preset": (str, "the name of dated margin parameters"),
    "rulebook": (str, "the name of a rulebook"),
    "model": (str, "the name of a clearing model"),
    "options": (dict, "a table of options"),
    "outputs": (list, "an array of names"),
    "seed": (int, "a whole number"),
}
_SCENARIO_KEYS = ("name", "parameters", *_SHOCK_KEYS, "later")


def read(source: str | Path, net: ExposureNetwork | None = None) -> Scenarios:
    """Read scenarios from TOML; what its tables make is crossed, in the order in which they stand.

    ``[[scenario]]`` is one shock: ``price`` (a table of changes) with ``family``, ``depth``, ``loss`` (a share, or a
    table of amounts), ``default`` and ``outage`` (a name, or several), ``plus`` (shocks to add), ``later`` (shocks with
    their ``round``); beside it ``name`` and a table ``parameters``. The tables ``[grid]``, ``[quasi_random]``,
    ``[correlated]``, ``[historical]``, ``[bootstrap]`` and ``[defaults]`` hold the arguments of the function of that
    name; ``returns`` is then a CSV file with the date in its first column, from the folder of this file, and ``seed``
    is needed, so that a file always makes the same scenarios. The table ``[sweep]``: :func:`settings`.

    Parameters
    ----------
    source : path or str
        A file, or the text itself, which has a line break or a ``=``.
    net : ExposureNetwork, optional
        The network that ``[defaults]`` is about.

    Returns
    -------
    Scenarios

    Raises
    ------
    ContagionError
        A file that cannot be read, or is no TOML.
    SchemaError
        Every key and value that is not allowed.

    Examples
    --------
    >>> from netcontagion import scenarios
    >>> text = '''
    ... [[scenario]]
    ... name = "slump"
    ... price = {ETH = -0.3}
    ... family = true
    ...
    ... [grid]
    ... depth = [1.0, 0.5]
    ... '''
    >>> [str(shock) for shock in scenarios.read(text)]
    ['ETH family -30 %, depth x 1', 'ETH family -30 %, depth x 0.5']
    """
    document, folder = _document(source)
    problems: list[Problem] = []
    parts: list[Scenarios] = []
    for name, table in document.items():
        if name == SWEEP:
            continue
        try:
            parts.append(_listed(table) if name == SCENARIO else _made(name, table, folder, net))
        except SchemaError as error:
            problems += error.problems
    if not parts and not problems:
        known = ", ".join([f"[[{SCENARIO}]]", *(f"[{name}]" for name in _MAKERS)])
        problems.append(Problem("TOML", None, None, "no scenario", known, "give at least one of these tables"))
    raise_for(problems)
    return cross(*parts) if len(parts) > 1 else parts[0]


def settings(source: str | Path) -> dict[str, Any]:
    """Read the table ``[sweep]`` of a file of scenarios: what ``netcontagion sweep`` runs them on, and how.

    ``network`` is a folder of tables, a CSV (with ``preset`` and ``rulebook``, as for ``netcontagion run``), both named
    from the folder of the file, or a bundled data set; with ``model`` it is cleared, else margins cascade; ``options``
    are those of ``nc.clear`` or ``nc.cascade``; ``outputs`` and ``seed`` are those of ``nc.sweep``.

    Parameters
    ----------
    source : path or str
        A file, or the text itself, which has a line break or a ``=``.

    Returns
    -------
    dict
        Settings by name; ``network`` is there.

    Raises
    ------
    ContagionError
        A file that cannot be read, or is no TOML.
    SchemaError
        Every setting that is missing, unknown or of the wrong kind.

    Examples
    --------
    >>> from netcontagion import scenarios
    >>> scenarios.settings('sweep = {network = "market", seed = 7}')
    {'network': 'market', 'seed': 7}
    """
    table = _document(source)[0].get(SWEEP, {})
    if not isinstance(table, dict):
        raise SchemaError([Problem("TOML", SWEEP, None, repr(table), "a table", f"write [{SWEEP}]")])
    problems = _unknown(SWEEP, table, _SETTINGS)
    if "network" not in table:
        problems.append(Problem(SWEEP, "network", None, "missing", _SETTINGS["network"][1], "say what to run on"))
    for key, (kind, allowed) in _SETTINGS.items():
        wrong = key in table and (not isinstance(table[key], kind) or isinstance(table[key], bool))
        if wrong or (key == "outputs" and not all(isinstance(name, str) for name in table.get(key, []))):
            problems.append(Problem(SWEEP, key, None, repr(table[key]), allowed, "correct it"))
    raise_for(problems)
    return table


def write(shocks: Scenarios, path: str | Path) -> Path:
    """Write scenarios as TOML, one ``[[scenario]]`` each; :func:`read` gives the same shocks and parameters.

    Parameters
    ----------
    shocks : Scenarios
        Their names are text; a parameter that is empty is left out.
    path : path
        The file to write, completely or not at all.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    SchemaError
        Names and parameters that TOML has no word for.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from netcontagion import scenarios
    >>> falls = scenarios.grid(price={"ETH": [-0.1, -0.3]})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = scenarios.write(falls, pathlib.Path(folder, "falls.toml"))
    ...     scenarios.read(file) == falls
    True
    """
    rows = shocks.parameters.to_dict("records")
    entries = []
    problems = []
    for number, (shock, row) in enumerate(zip(shocks, rows, strict=True)):
        entry = {"parameters": {name: value for name, value in row.items() if not _empty(value)}} | _entry(shock)
        try:
            entries.append(
                "\n".join([f"[[{SCENARIO}]]", *(f"{key} = {_toml(entry[key])}" for key in entry if entry[key] != {})])
            )
        except TypeError as error:
            problems.append(Problem(SCENARIO, None, number, str(error), "text, numbers, dates", "rename it"))
    raise_for(problems)
    file = Path(path)
    fresh = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        fresh.write_text("\n\n".join(entries) + "\n", encoding="utf-8")
        return fresh.replace(file)
    finally:
        fresh.unlink(missing_ok=True)


# reading ----------------------------------------------------------------------------------------------------------


def _document(source: str | Path) -> tuple[dict[str, Any], Path]:
    """Parse a file or a text; and the folder from which its files are named."""
    is_text = isinstance(source, str) and ("\n" in source or "=" in source)
    where, folder = ("the text", Path()) if is_text else (str(source), Path(source).parent)
    try:
        text = str(source) if is_text else Path(source).read_text(encoding="utf-8")
        return tomllib.loads(text), folder
    except OSError as error:
        raise ContagionError(f"{where} cannot be read: {error.strerror}; name a TOML file of scenarios") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ContagionError(f"{where} is not TOML: {error}") from error


def _unknown(place: str, keys: Iterable[str], known: Iterable[str]) -> list[Problem]:
    names = list(known)
    found = []
    for key in keys:
        if key not in names:
            near = nearest(key, names)
            cure = f"did you mean {near[0]!r}?" if near else "leave it out"
            found.append(Problem(place, key, None, "unknown", ", ".join(names), cure))
    return found


def _made(name: str, table: Any, folder: Path, net: ExposureNetwork | None) -> Scenarios:
    """Call a maker with the arguments of its table."""
    raise_for(_unknown("TOML", [name], (SCENARIO, *_MAKERS, SWEEP)))
    if not isinstance(table, dict):
        raise SchemaError([Problem("TOML", name, None, repr(table), "a table", f"write [{name}]")])
    parameters = {key: value for key, value in inspect.signature(_MAKERS[name]).parameters.items() if key != "net"}
    problems = _unknown(name, table, parameters)
    for key, parameter in parameters.items():
        if parameter.default is parameter.empty and key not in table:
            problems.append(Problem(name, key, None, "missing", "a value", "give it"))
        if key == "seed" and key not in table:
            allowed, cure = "a whole number", "give one: a file always makes the same scenarios"
            problems.append(Problem(name, key, None, "missing", allowed, cure))
    if name == "defaults" and net is None:
        problems.append(Problem(name, "net", None, "missing", "a network", "read(source, net) says whose traders"))
    raise_for(problems)
    arguments = dict(table)
    if "returns" in table:
        arguments["returns"] = _returns(name, folder, table["returns"])
    return _MAKERS[name](*([net] if name == "defaults" else []), **arguments)


def _returns(name: str, folder: Path, given: Any) -> Any:
    import pandas as pd

    if isinstance(given, dict):
        return given
    try:
        return pd.read_csv(folder / str(given), index_col=0)
    except (OSError, ValueError) as error:
        cure = "name a CSV of simple returns with the date in its first column"
        raise SchemaError([Problem(name, "returns", None, repr(given), "a CSV file", f"{cure} ({error})")]) from error


def _listed(entries: Any) -> Scenarios:
    """Make the scenarios that are listed one by one."""
    if not isinstance(entries, list):
        raise SchemaError([Problem(SCENARIO, None, None, "a single table", "an array", "write [[scenario]]")])
    problems: list[Problem] = []
    shocks = [_shock(entry, row, _SCENARIO_KEYS, problems) for row, entry in enumerate(entries)]
    rows = [_own(entry, row, problems) for row, entry in enumerate(entries)]
    raise_for(problems)
    return Scenarios(shocks, _columns(rows) if any(rows) else None)


def _own(entry: Any, row: int, problems: list[Problem]) -> dict[str, Any]:
    """Return the name and the parameters of an entry, or add to the problems."""
    given = entry if isinstance(entry, dict) else {}
    parameters = given.get("parameters", {})
    if isinstance(parameters, dict):
        return ({"name": given["name"]} if "name" in given else {}) | parameters
    problems.append(Problem(SCENARIO, "parameters", row, repr(parameters), "a table", "write {name = value}"))
    return {}


def _columns(rows: list[dict[str, Any]]) -> Any:
    import pandas as pd

    return pd.DataFrame.from_records(rows, columns=list(dict.fromkeys(itertools.chain.from_iterable(rows))))


def _shock(entry: Any, row: int, keys: tuple[str, ...], problems: list[Problem]) -> Shock:
    """Make the shock of an entry, or add to the problems."""
    if not isinstance(entry, dict):
        problems.append(Problem(SCENARIO, None, row, repr(entry), "a table", "write {price = {ETH = -0.3}}"))
        return Shock()
    problems += [dataclasses.replace(problem, row=row) for problem in _unknown(SCENARIO, entry, keys)]
    shock = Shock()
    for key, make in _SHOCKS.items():
        if key in entry:
            try:
                shock += make(entry)
            except (TypeError, ValueError):
                problems += _refusals(key, entry, row)
    for inner in _entries(entry, "plus", row, problems):
        shock += _shock(inner, row, _SHOCK_KEYS, problems)
    return _with_later(shock, entry, row, problems) if "later" in entry else shock


def _refusals(key: str, entry: dict[str, Any], row: int) -> Iterator[Problem]:
    """Yield what is wrong with a value, name by name where it is a table."""
    given = entry[key]
    pieces = [{name: value} for name, value in given.items()] if isinstance(given, dict) else []
    for piece in pieces or [given]:
        try:
            _SHOCKS[key](entry | {key: piece})
        except (TypeError, ValueError) as error:
            said, _, allowed = str(error).partition("; allowed: ")
            yield Problem(SCENARIO, key, row, said, allowed or f"what Shock.{key} takes", "correct it")


def _price(entry: dict[str, Any]) -> Shock:
    family = entry.get("family", False)
    if not isinstance(family, bool):
        raise TypeError(f"family is {family!r}; allowed: true or false")
    return Shock.price(entry["price"], family=family)


def _names(given: Any) -> list[Any]:
    return given if isinstance(given, list) else [given]


_SHOCKS: dict[str, Callable[[dict[str, Any]], Shock]] = {
    "price": _price,
    "depth": lambda entry: Shock.depth(entry["depth"]),
    "loss": lambda entry: Shock.loss(entry["loss"]),
    "default": lambda entry: Shock.default(*_names(entry["default"])),
    "outage": lambda entry: Shock.outage(*_names(entry["outage"])),
}


def _entries(entry: dict[str, Any], key: str, row: int, problems: list[Problem]) -> list[Any]:
    given = entry.get(key, [])
    if isinstance(given, list):
        return given
    problems.append(Problem(SCENARIO, key, row, repr(given), "an array of tables", "write [{...}, {...}]"))
    return []


def _with_later(shock: Shock, entry: dict[str, Any], row: int, problems: list[Problem]) -> Shock:
    """Let the later shocks of an entry follow at their rounds."""
    rounds: dict[int, Shock] = {}
    for inner in _entries(entry, "later", row, problems):
        at = inner.get("round") if isinstance(inner, dict) else None
        if not isinstance(at, int) or isinstance(at, bool) or not 1 <= at <= 1_000_000 or at in rounds:
            cure = "give each later shock a round of its own"
            problems.append(Problem(SCENARIO, "later.round", row, repr(at), "a whole number, 1 or more", cure))
            continue
        rest = {key: value for key, value in inner.items() if key != "round"}
        rounds[at] = _shock(rest, row, _SHOCK_KEYS, problems)
    return shock + Shock(later=tuple(sorted(rounds.items(), key=lambda strike: strike[0])))


# writing ----------------------------------------------------------------------------------------------------------


def _entry(shock: Shock) -> dict[str, Any]:
    """Return the keys and values that make a shock; what one key cannot say twice comes under ``plus``."""
    parts: list[dict[str, Any]] = []
    parts += [{"price": dict(pairs)} | ({"family": True} if family else {}) for pairs, family in shock.moves]
    parts += [{"depth": factor} for factor in shock.depth_factors]
    parts += [{"loss": share} for share in shock.loss_shares]
    parts += [{"loss": {name: amount}} for name, amount in shock.losses]
    parts += [{"default": sorted(shock.defaults, key=repr)}] if shock.defaults else []
    parts += [{"outage": sorted(shock.outages, key=repr)}] if shock.outages else []
    entry: dict[str, Any] = {}
    plus = []
    for part in parts:
        if entry.keys() & part.keys():
            plus.append(part)
        else:
            entry |= part
    entry |= {"plus": plus} if plus else {}
    later = [{"round": at} | _entry(one) for at, one in shock.later]
    return entry | ({"later": later} if later else {})


def _empty(value: Any) -> bool:
    import pandas as pd

    return value is None or value is pd.NaT or value is pd.NA or (isinstance(value, float) and math.isnan(value))


def _toml(value: Any) -> str:
    """Write a value inline."""
    value = plain(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_text(name)} = {_toml(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    return _text(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is a {type(value).__name__}")
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
