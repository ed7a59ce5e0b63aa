"""A network on its way to other processes: written to a folder once, mapped into memory where it is opened."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion.errors import ContagionError
from netcontagion.network import ExposureNetwork

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

__all__ = ["Handle", "Handles"]

OPEN_AT_ONCE = 2  # networks that a process keeps, with what was worked out for them
_opened: OrderedDict[str, ExposureNetwork] = OrderedDict()
_opening = threading.Lock()


class Handle:
    """A network here, a path elsewhere: pickling it writes the network, once, and takes the path along."""

    def __init__(self, net: ExposureNetwork, path: Path) -> None:
        self.net: ExposureNetwork | None = net
        self.path, self.digest, self._writing = path, "", threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        with self._writing:
            if self.net is not None and not self.path.exists():
                self.digest = self.net.data_hash
                _write(self.net, self.path)
        return {"path": self.path, "digest": self.digest}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.net, self._writing = None, threading.Lock()
        self.__dict__.update(state)

    def open(self) -> ExposureNetwork:
        """Return the network; a process maps it once and keeps what is worked out for it."""
        return self.net if self.net is not None else _open(self.digest, self.path)


class Handles:
    """Handles of several networks, and the folder they are written to, which goes when the work is done.

    The folder is made in ``JOBLIB_TEMP_FOLDER``, or else where temporary files are; machines of a cluster must share
    it.
    """

    def __init__(self, nets: Sequence[ExposureNetwork]) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="netcontagion-", dir=os.environ.get("JOBLIB_TEMP_FOLDER")))
        self.all = [Handle(net, self.folder / f"{place}.network") for place, net in enumerate(nets)]

    def __enter__(self) -> list[Handle]:
        return self.all

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def _write(net: ExposureNetwork, path: Path) -> None:
    import joblib  # type: ignore[import-untyped, unused-ignore]

    fresh = path.with_suffix(".part")
    joblib.dump(net, fresh)
    fresh.replace(path)


def _open(digest: str, path: Path) -> ExposureNetwork:
    import joblib  # type: ignore[import-untyped, unused-ignore]

    with _opening:
        if digest not in _opened:
            try:
                mapped: ExposureNetwork = joblib.load(path, mmap_mode="r")
            except FileNotFoundError as error:
                message = f"{path} cannot be seen here; set JOBLIB_TEMP_FOLDER to a folder that all machines share"
                raise ContagionError(message) from error
            _opened[digest] = _plain(mapped)
        _opened.move_to_end(digest)
        while len(_opened) > OPEN_AT_ONCE:
            _opened.popitem(last=False)
        return _opened[digest]


def _plain(net: ExposureNetwork) -> ExposureNetwork:
    """Return the same network with its arrays as plain views of the mapped file."""
    state = net.__getstate__()
    state["columns"] = {
        name: {column: np.asarray(values) for column, values in table.items()}
        for name, table in state["columns"].items()
    }
    plain = ExposureNetwork.__new__(ExposureNetwork)
    plain.__setstate__(state)
    return plain
