"""A network as a folder of CSV files, written all or nothing, read back exactly."""

from __future__ import annotations

import csv
import json
import os
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from netcontagion.errors import ContagionError
from netcontagion.network._network import ExposureNetwork, _given
from netcontagion.network._schema import schema

__all__ = ["load", "save"]

_KINDS = ("trader", "exchange")
_META = "network.json"
_FORMAT = 1


def save(net: ExposureNetwork, folder: str | Path) -> Path:
    """Write one CSV file per table and ``network.json``; an existing network is exchanged in one step.

    Rows of ``others@<exchange>`` are not written: they are derived when the network is read.

    Raises
    ------
    ContagionError
        The folder exists and holds something else than a saved network.
    """
    target = Path(folder)
    _refuse_foreign(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        _write(net, fresh)
        _exchange(fresh, target)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    return target


def _exchange(fresh: Path, target: Path) -> None:
    """Put the new folder where the old one stood; the old one comes back when that fails."""
    if not target.exists():
        fresh.replace(target)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}-old-", dir=target.parent))
    target.replace(old)
    try:
        fresh.replace(target)
    except BaseException:
        old.replace(target)
        raise
    shutil.rmtree(old)


def _refuse_foreign(target: Path) -> None:
    if target.is_file():
        raise ContagionError(f"{target} is a file; name a folder to save the network in")
    if target.is_dir():
        known = {f"{name}.csv" for name in schema()} | {_META}
        foreign = sorted(entry.name for entry in target.iterdir() if entry.name not in known)
        if foreign:
            raise ContagionError(
                f"{target} holds other files ({', '.join(foreign[:3])}); save into a folder of its own"
            )


def _write(net: ExposureNetwork, folder: Path) -> None:
    folder.chmod(0o777 & ~_umask())
    integer: list[str] = []
    texts = _node_texts(net)
    for name, spec in schema().items():
        table = _given(net, name, addressed=True)
        if not len(table):
            continue
        label = next(iter(spec))
        if spec[label].dtype == "label" and not isinstance(table[label].iloc[0], str):
            integer.append(name)
        for column in spec.values():
            if column.refers_to == "nodes":
                table[column.name] = [texts[value] for value in table[column.name]]
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            table.to_csv(file, index=False, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    meta = {"format": _FORMAT, "numeraire": net.numeraire, "complete": net.complete, "integer_labels": integer}
    (folder / _META).write_text(json.dumps(meta, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _node_texts(net: ExposureNetwork) -> dict[tuple[str, Any], str]:
    """Write a node as its label; as ``trader:x`` or ``exchange:x`` where the label alone would not tell."""
    nodes = [(kind, label) for kind in _KINDS for label in net.labels(f"{kind}s")]
    count = Counter(str(label) for _, label in nodes)
    plain = {node: str(node[1]) for node in nodes}
    unclear = {text for text in count if count[text] > 1 or text.partition(":")[0] in _KINDS}
    return {node: f"{node[0]}:{text}" if text in unclear else text for node, text in plain.items()}


def load(folder: str | Path) -> ExposureNetwork:
    """Read a network from a folder with one CSV file per table, made by :meth:`ExposureNetwork.save` or by hand.

    Without a ``network.json`` labels are text and the numeraire is USD.

    Raises
    ------
    ContagionError
        There is no such folder, or it holds no table.
    SchemaError
        Listing every problem of every table.
    """
    source = Path(folder)
    if not source.is_dir():
        raise ContagionError(f"{source} is not a folder with tables; tables are {', '.join(schema())} (.csv)")
    meta = _read_meta(source / _META)
    integer = set(meta.get("integer_labels", ()))
    tables = {name: _read(source / f"{name}.csv", integer) for name in schema() if (source / f"{name}.csv").is_file()}
    if not tables:
        raise ContagionError(f"{source} holds no table; tables are {', '.join(schema())} (.csv)")
    _read_nodes(tables, integer)
    return ExposureNetwork(**tables, numeraire=meta.get("numeraire", "USD"), complete=meta.get("complete", False))


def _read_meta(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ContagionError(f"{path.name} cannot be read: {error}") from error
    if not isinstance(meta, dict) or meta.get("format", _FORMAT) != _FORMAT:
        raise ContagionError(
            f"{path.name} is not of format {_FORMAT}: a newer netcontagion wrote it, or another program"
        )
    return meta


def _read_csv(path: Path) -> dict[str, Any]:
    """Read the cells of a table as text; rows of another length than the header are refused."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header, *rows = [row for row in csv.reader(file, strict=True) if row] or [[]]
    except (csv.Error, UnicodeDecodeError) as error:
        raise ContagionError(f"{path.name} cannot be read: {error}") from error
    if len(set(header)) < len(header):
        raise ContagionError(f"{path.name} has a column twice: {', '.join(header)}")
    for place, row in enumerate(rows):
        if len(row) != len(header):
            raise ContagionError(f"{path.name}, row {place}: {len(row)} cells under {len(header)} column names")
    return dict(zip(header, zip(*rows, strict=True) if rows else [()] * len(header), strict=True))


def _read(path: Path, integer: set[str]) -> dict[str, Any]:
    spec = schema()[path.stem]
    columns: dict[str, Any] = {}
    for name, texts in _read_csv(path).items():
        column = spec.get(name)
        kind = None if column is None else path.stem if column.dtype == "label" else column.refers_to
        if column is not None and column.dtype == "name":
            kind = path.stem
        parse: Any = str
        if column is not None:
            parse = {"number": float, "integer": float, "boolean": _truth}.get(column.dtype, str)
        columns[name] = _cells(texts, int if kind in integer else parse)
    return columns


def _cells(texts: Any, parse: Any) -> Any:
    """Parse the cells of a column; empty ones are None, those that do not parse stay text for the door to refuse."""

    def cell(text: Any) -> Any:
        if text == "":
            return None
        try:
            return parse(text)
        except ValueError:
            return text

    found = [cell(text) for text in texts]
    if parse in (float, int) and all(isinstance(value, parse) for value in found):
        return np.array(found, dtype=np.int64 if parse is int else np.float64)
    array = np.empty(len(found), dtype=object)
    array[:] = found
    return array


def _truth(text: str) -> bool:
    if text not in ("True", "False"):
        raise ValueError(text)
    return text == "True"


def _read_nodes(tables: dict[str, dict[str, Any]], integer: set[str]) -> None:
    """Read ``trader:x`` and ``exchange:x`` as addresses, and integer nodes as integers."""
    if "liabilities" not in tables:
        return
    names = {
        kind: {str(label) for label in tables.get(table, {}).get(kind, ())}
        for kind, table in (("trader", "traders"), ("exchange", "exchanges"))
    }

    def address(text: Any) -> Any:
        kind, _, bare = str(text).partition(":")
        if bare in names.get(kind, ()):
            return (kind, int(bare) if f"{kind}s" in integer else bare)
        whole = {"traders": "trader", "exchanges": "exchange"}
        if any(str(text) in names[whole[kind]] for kind in integer & set(whole)):
            return int(text)
        return text

    for column in ("debtor", "creditor"):
        if column in tables["liabilities"]:
            found = tables["liabilities"][column]
            tables["liabilities"][column] = np.empty(len(found), dtype=object)
            tables["liabilities"][column][:] = [None if text is None else address(text) for text in found]
