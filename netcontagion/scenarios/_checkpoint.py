"""A folder that a sweep can be taken up from: parts written whole or not at all, and a manifest of what made them.

A part is a segment of blocks. Two halves are replaced by what they make together, so that there are few parts; one that
is still there beside the whole it is in, because the process died in between, is passed over.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import tempfile
from dataclasses import fields
from pathlib import Path
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion.errors import ContagionError
from netcontagion.scenarios._nodes import Forest, Rows, Segment, Sums

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from netcontagion.network import ExposureNetwork, Shock
    from netcontagion.scenarios._run import Run

__all__ = ["Checkpoint", "digest_of"]

MANIFEST = "sweep.json"
FORMAT = 1
SEED = "seed"


class Checkpoint:
    """Parts of a sweep in a folder.

    Parameters
    ----------
    folder : path
        New, empty, or of a sweep with the same inputs.
    made_from : dict
        What the sweep is made from, as digests by name.
    entropy : int
        Entropy of its seeds; a folder that is taken up has its own where no seed was asked for.
    """

    def __init__(self, folder: str | Path, made_from: dict[str, str], entropy: int) -> None:
        self.folder, self.made_from = Path(folder), {"format": str(FORMAT)} | made_from
        self.entropy = self._take_up() if self._is_ours() else self._begin(entropy)

    def _is_ours(self) -> bool:
        if self.folder.exists() and not self.folder.is_dir():
            raise ContagionError(f"checkpoint {self.folder} is a file; name a folder")
        if (self.folder / MANIFEST).is_file():
            return True
        if self.folder.is_dir():
            strangers = [path.name for path in self.folder.iterdir() if not path.name.startswith(".part-")]
            if strangers:
                message = f"checkpoint {self.folder} holds something else ({', '.join(sorted(strangers)[:3])})"
                raise ContagionError(message + "; name a folder of its own")
        return False

    def _begin(self, entropy: int) -> int:
        text = json.dumps(self.made_from | {"entropy": str(entropy)}, indent=1)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._put(MANIFEST, lambda file: file.write(text.encode()))
        except OSError as error:
            raise ContagionError(f"checkpoint {self.folder} cannot be written: {error}") from error
        return entropy

    def _take_up(self) -> int:
        try:
            manifest = json.loads((self.folder / MANIFEST).read_text(encoding="utf-8"))
            entropy = int(manifest.pop("entropy"))
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise ContagionError(f"checkpoint {self.folder}: {MANIFEST} cannot be read: {error}") from error
        other = [name for name in self.made_from | manifest if self.made_from.get(name) != manifest.get(name)]
        if other:
            message = f"checkpoint {self.folder} was made from other inputs ({', '.join(other)} differ)"
            raise ContagionError(message + "; name another folder, or delete this one to start anew")
        if not os.access(self.folder, os.W_OK):
            raise ContagionError(f"checkpoint {self.folder} cannot be written")
        return entropy

    def parts(self, stage: str) -> Forest:
        """Read the parts of a stage; those that are in another one go."""
        places = sorted((self._place(path) for path in self.folder.glob(f"{stage}-*.npz")), key=lambda at: -at[2])
        kept: list[tuple[int, int, int]] = []
        for network, start, length in places:
            inside = any(net == network and at <= start < at + size for net, at, size in kept)
            if inside:
                self._path(stage, (network, start, length)).unlink(missing_ok=True)
            else:
                kept.append((network, start, length))
        return Forest(_read(self._path(stage, place), place) for place in kept)

    def keep(self, stage: str, forest: Forest, known: set[tuple[int, int, int]]) -> None:
        """Write the segments of a forest that are not known, then drop those that went into them."""
        for place in forest.segments.keys() - known:
            segment = forest.segments[place]
            self._put(self._path(stage, place).name, functools.partial(_write, segment))
        for place in known - forest.segments.keys():
            self._path(stage, place).unlink(missing_ok=True)

    def _path(self, stage: str, place: tuple[int, int, int]) -> Path:
        return self.folder / f"{stage}-{'-'.join(map(str, place))}.npz"

    @staticmethod
    def _place(path: Path) -> tuple[int, int, int]:
        network, start, length = map(int, path.stem.rsplit("-", 3)[1:])
        return network, start, length

    def _put(self, name: str, write: Callable[[Any], Any]) -> None:
        """Write a file under another name, and give it its own when it is complete."""
        handle, fresh = tempfile.mkstemp(prefix=".part-", dir=self.folder)
        try:
            with os.fdopen(handle, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            Path(fresh).replace(self.folder / name)
        except BaseException:
            Path(fresh).unlink(missing_ok=True)
            raise


def _write(segment: Segment, file: Any) -> None:
    rows, sums = segment.rows, segment.sums
    arrays: dict[str, Any] = {f"column {place}": values for place, values in enumerate(rows.columns.values())}
    if sums is not None:
        arrays |= {"loss": sums.loss, "defaults": sums.defaults}
    told = json.dumps({"columns": list(rows.columns), "errors": rows.errors})
    np.savez(file, told=np.array(told), status=rows.status.astype(str), **arrays)


def _read(path: Path, place: tuple[int, int, int]) -> Segment:
    try:
        with np.load(path) as part:
            told = json.loads(str(part["told"]))
            columns = {name: part[f"column {number}"] for number, name in enumerate(told["columns"])}
            errors = {int(row): text for row, text in told["errors"].items()}
            sums = Sums(part["loss"], part["defaults"]) if "loss" in part else None
            return Segment(*place, Rows(part["status"].astype(object), errors, columns), sums)
    except (OSError, ValueError, KeyError) as error:
        raise ContagionError(
            f"checkpoint part {path} cannot be read: {error}; delete it, and it is run again"
        ) from error


def digest_of(
    nets: Sequence[ExposureNetwork], names: Sequence[Any], shocks: Sequence[Shock], run: Run
) -> dict[str, str]:
    """Digest what a sweep is made from, by name."""
    from importlib.metadata import version

    networks = [f"{name!r} {net.data_hash}" for name, net in zip(names, nets, strict=True)]
    return {
        "version": version("netcontagion"),
        "networks": _sha(networks),
        "shocks": _sha(map(_shock_text, shocks)),
        "run": _sha([_call_text(run.call)]),
        "outputs": _sha([_outputs_text(run.outputs), str(run.nodes)]),
    }


def _sha(texts: Any) -> str:
    found = hashlib.sha256()
    for text in texts:
        found.update(text.encode() + b"\n")
    return found.hexdigest()


def _shock_text(shock: Shock) -> str:
    """Write a shock out exactly, sets in order."""
    parts = []
    for at, one in shock.strikes:
        values = [getattr(one, field.name) for field in fields(one) if field.name != "later"]
        parts.append(
            f"{at}: {[sorted(value, key=repr) if isinstance(value, frozenset) else value for value in values]!r}"
        )
    return "; ".join(parts)


def _outputs_text(outputs: Any) -> str:
    if not isinstance(outputs, dict):
        return repr(outputs)
    return "; ".join(f"{name}={_call_text(function)}" for name, function in outputs.items())


def _call_text(call: Any) -> str:
    """Describe a function by its name, its code and its options, so that another process describes it alike."""
    import joblib  # type: ignore[import-untyped, unused-ignore]

    if isinstance(call, functools.partial):
        options = sorted(call.keywords.items())
        return f"{_call_text(call.func)}({[(name, _option_text(value)) for name, value in options]})"
    if isinstance(call, FunctionType):
        inside = call.__module__ or ""
        if inside.startswith("netcontagion."):
            return f"{inside}.{call.__qualname__}"
        held = [_option_text(cell.cell_contents) for cell in call.__closure__ or ()]
        return f"{call.__qualname__} {_code_text(call.__code__)} {held} {call.__defaults__!r} {call.__kwdefaults__!r}"
    return f"{type(call).__qualname__} {joblib.hash(call)}"


def _option_text(value: Any) -> str:
    import joblib  # type: ignore[import-untyped, unused-ignore]

    return _call_text(value) if callable(value) and not isinstance(value, type) else str(joblib.hash(value))


def _code_text(code: CodeType) -> str:
    constants = [_code_text(one) if isinstance(one, CodeType) else repr(one) for one in code.co_consts]
    return f"{code.co_code.hex()} {constants} {code.co_names}"
