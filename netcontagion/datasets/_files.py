"""Files of the data sets: bundled with the package, found in a folder, or downloaded and verified."""

from __future__ import annotations

import csv
import hashlib
import logging
import os
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netcontagion.errors import DatasetError, UnknownLabelError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["RegisteredFile", "bundled", "bundled_names", "fetch", "registry"]

FOLDER_VARIABLE = "NETCONTAGION_DATA"
TIMEOUT_SECONDS = 30
STRAY_SECONDS = 86_400

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RegisteredFile:
    """One public file of a data set: where it is, what its bytes must be, whose it is."""

    dataset: str
    file: str
    url: str
    sha256: str
    bytes: int
    licence: str
    source: str


def data_folder() -> Path:
    """Return the folder of the bundled data: inside the installed package, or beside it in a checkout."""
    import netcontagion

    package = Path(str(netcontagion.__file__)).parent
    places = (package / "data", package.parent / "data")
    for place in places:
        if (place / "registry.csv").is_file():
            return place
    raise DatasetError(
        f"the bundled data are missing: no registry.csv in {places[0]} nor in {places[1]}; "
        "cure: install netcontagion again, from its wheel or from a full checkout"
    )


def registry() -> dict[str, tuple[RegisteredFile, ...]]:
    """Return the registered public files by data set."""
    files: dict[str, list[RegisteredFile]] = {}
    with (data_folder() / "registry.csv").open(newline="", encoding="utf-8") as table:
        for row in csv.DictReader(table):
            entry = RegisteredFile(**{**row, "bytes": int(row["bytes"])})  # type: ignore[arg-type]
            files.setdefault(entry.dataset, []).append(entry)
    return {name: tuple(entries) for name, entries in files.items()}


def bundled_names() -> list[str]:
    """Return the names of the data sets that come with the package: the folders of tables in the data folder."""
    return sorted(folder.name for folder in data_folder().iterdir() if folder.is_dir() and any(folder.glob("*.csv")))


def bundled(name: str) -> Path:
    """Return the folder of a data set that comes with the package.

    Parameters
    ----------
    name : str
        Name of a bundled data set, see :func:`netcontagion.datasets.available`.

    Raises
    ------
    UnknownLabelError
        If no bundled data set has that name.
    """
    names = bundled_names()
    if name not in names:
        raise UnknownLabelError(name, names, "bundled data set")
    return data_folder() / name


def fetch(name: str) -> dict[str, Path]:
    """Return the files of a data set on this machine, downloading them once if need be.

    Every file is verified by its sha256 before it is handed out. Where the environment variable ``NETCONTAGION_DATA``
    names a folder, the files are looked for there only, by content: their names and sub-folders do not matter, and
    nothing is downloaded. Otherwise files come from their public address into the cache folder of the user
    (``pooch.os_cache("netcontagion")``); a download that fails, stops or has other bytes leaves no file in the cache.

    Parameters
    ----------
    name : str
        Name of a data set, see :func:`netcontagion.datasets.available`.

    Returns
    -------
    dict of str to Path
        File name as published -> verified file. Licence and source of each are logged and listed by ``available()``.

    Raises
    ------
    UnknownLabelError
        If no data set has that name.
    DatasetError
        If a file is missing, cannot be downloaded or is not the published one; the message says which, and the cure.
    """
    entries = registry()
    if name in entries:
        folder = os.environ.get(FOLDER_VARIABLE)
        found = _from_folder(entries[name], Path(folder)) if folder else _from_network(entries[name])
        for entry in entries[name]:
            logger.info("%s: %s, licence %s, source %s", name, entry.file, entry.licence, entry.source)
        return found
    if name not in bundled_names():
        raise UnknownLabelError(name, [*bundled_names(), *entries], "data set")
    return {path.name: path for path in sorted(bundled(name).iterdir()) if path.is_file()}


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file, in hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _from_folder(entries: Iterable[RegisteredFile], folder: Path) -> dict[str, Path]:
    """Find the files in a folder by content; one error names all that are missing."""
    entries = tuple(entries)
    if not folder.is_dir():
        raise DatasetError(
            f"data set {entries[0].dataset!r}: {FOLDER_VARIABLE} is {str(folder)!r}, which is not a folder; "
            f"cure: let it name the folder that holds the files, or unset it to download them"
        )
    candidates = _files_by_size(folder, {entry.bytes for entry in entries})
    hashes = {path: sha256_of(path) for paths in candidates.values() for path in paths}
    found: dict[str, Path] = {}
    missing: list[RegisteredFile] = []
    for entry in entries:
        same = [path for path in candidates.get(entry.bytes, ()) if hashes[path] == entry.sha256]
        if same:
            found[entry.file] = same[0]
        else:
            missing.append(entry)
    if missing:
        raise DatasetError(_missing_message(missing, folder))
    return found


def _walk(folder: Path) -> Iterator[Path]:
    for place, _, names in sorted(os.walk(folder)):
        for name in sorted(names):
            yield Path(place) / name


def _files_by_size(folder: Path, sizes: set[int]) -> dict[int, list[Path]]:
    """Return the readable files of the wanted sizes, so that no other needs to be hashed."""
    by_size: dict[int, list[Path]] = {}
    for path in _walk(folder):
        if path.is_file() and os.access(path, os.R_OK) and (size := path.stat().st_size) in sizes:
            by_size.setdefault(size, []).append(path)
    return by_size


def _missing_message(missing: list[RegisteredFile], folder: Path) -> str:
    namesakes: dict[str, list[Path]] = {entry.file: [] for entry in missing}
    for path in _walk(folder):
        if path.name in namesakes and path.is_file() and os.access(path, os.R_OK):
            namesakes[path.name].append(path)
    lines = [
        f"data set {missing[0].dataset!r}: {len(missing)} file(s) not found in {FOLDER_VARIABLE}={str(folder)!r} "
        "(looked for by content, in all sub-folders):"
    ]
    for entry in missing:
        others = ", ".join(f"{path} has sha256 {sha256_of(path)}" for path in namesakes[entry.file][:3])
        remark = f"; found other bytes: {others}" if others else ""
        lines.append(f"  - {entry.file}, {entry.bytes} bytes, expected sha256 {entry.sha256}, from {entry.url}{remark}")
    lines.append(f"cure: put these files into the folder, or unset {FOLDER_VARIABLE} to download them")
    return "\n".join(lines)


def _cache_folder() -> Path:
    import pooch

    return Path(pooch.os_cache("netcontagion"))


def _from_network(entries: Iterable[RegisteredFile]) -> dict[str, Path]:
    """Return the files from the cache, downloading what is not there; each is complete and verified, or absent."""
    return {entry.file: _download(entry, _cache_folder() / entry.dataset) for entry in entries}


def _download(entry: RegisteredFile, folder: Path) -> Path:
    import pooch
    import requests

    received: list[str] = []

    def download(url: str, target: str, _: Any) -> None:
        logger.info("downloading %s to %s", url, folder)
        _stream(url, Path(target))
        received.append(sha256_of(Path(target)))

    try:
        _remove_strays(folder)
        with _quiet_pooch():
            path = pooch.retrieve(
                entry.url, known_hash=f"sha256:{entry.sha256}", fname=entry.file, path=folder, downloader=download
            )
    except (OSError, ValueError, requests.RequestException) as error:
        raise DatasetError(_download_message(entry, folder, received, error)) from error
    return Path(path)


def _remove_strays(folder: Path) -> None:
    """Remove what killed downloads left: temporary files, never under the name of a data file, older than a day."""
    for stray in folder.glob("tmp*"):
        if stray.is_file() and time.time() - stray.stat().st_mtime > STRAY_SECONDS:
            stray.unlink(missing_ok=True)


def _stream(url: str, target: Path) -> None:
    """Write the answer of an address to a file, and close the connection however it ends."""
    import requests

    with requests.get(url, stream=True, timeout=TIMEOUT_SECONDS) as response:
        response.raise_for_status()
        with target.open("wb") as stream:
            for chunk in response.iter_content(chunk_size=1 << 16):
                stream.write(chunk)


def _download_message(entry: RegisteredFile, folder: Path, received: list[str], error: Exception) -> str:
    if received and received[-1] != entry.sha256:
        happened = f"the address gave other bytes, found sha256 {received[-1]}"
    else:
        happened = f"not downloaded into {folder}: {type(error).__name__}: {error}"
    return (
        f"data set {entry.dataset!r}, file {entry.file!r}: {happened}; expected sha256 {entry.sha256} "
        f"({entry.bytes} bytes) from {entry.url}; nothing was kept; cure: try again with a working network, or put the "
        f"file into a folder (any name, any sub-folder) and set {FOLDER_VARIABLE} to that folder"
    )


@contextmanager
def _quiet_pooch() -> Iterator[None]:
    """Keep pooch's own logger, which writes to the screen, silent: this room logs by itself."""
    import pooch

    log = pooch.get_logger()
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(level)


def licences(entries: Mapping[str, tuple[RegisteredFile, ...]], name: str) -> tuple[str, int, str]:
    """Return licence, bytes and source (repository and commit) of a registered data set, joined over its files."""
    files = entries[name]
    licence = ", ".join(sorted({entry.licence for entry in files}))
    source = ", ".join(sorted({entry.source.rpartition(":")[0] for entry in files}))
    return licence, sum(entry.bytes for entry in files), source
