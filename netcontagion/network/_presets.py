"""Presets: TOML files in a folder of this package, by name, or a user's own file by path."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

from netcontagion.errors import ContagionError, UnknownLabelError

__all__ = ["preset_names", "read_preset"]


def preset_names(folder: str, prefix: str = "") -> tuple[str, ...]:
    """Names of the files in a folder of this package, sorted, without ``prefix`` and ending."""
    names = (entry.name for entry in _folder(folder).iterdir())
    chosen = (name for name in names if name.startswith(prefix) and name.endswith(".toml"))
    return tuple(sorted(name.removeprefix(prefix).removesuffix(".toml") for name in chosen))


def read_preset(name: str, folder: str, known: tuple[str, ...], kind: str) -> dict[str, Any]:
    """Read the preset ``name``, one of ``known``, or the file of that path where it ends in ``.toml``."""
    if name.endswith(".toml"):
        path = Path(name)
        if not path.is_file():
            raise ContagionError(f"{kind} file {name!r} does not exist; presets are {', '.join(known)}")
        text = path.read_text(encoding="utf-8")
    elif name in known:
        text = _folder(folder).joinpath(f"{name}.toml").read_text(encoding="utf-8")
    else:
        raise UnknownLabelError(name, known, kind)
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ContagionError(f"{kind} {name!r} is not valid TOML: {error}") from error


def _folder(name: str) -> Any:
    return resources.files(__package__).joinpath(name)
