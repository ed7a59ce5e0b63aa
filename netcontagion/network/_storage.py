"""A network as a folder of CSV files, written all or nothing, read back exactly."""

from __future__ import annotations

import csv
import json
import os
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion.errors import ContagionError
from netcontagion.network._labels import factorize
from netcontagion.network._network import ExposureNetwork
from netcontagion.network._schema import schema
from netcontagion.network._tables import own_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from netcontagion.network._schema import Column

__all__ = ["load", "save"]

_KINDS = ("trader", "exchange")
_LABELLED = ("traders", "exchanges", "assets", "accounts")
_EMPTY = '""'
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
    nodes = _node_texts(net)
    for name, spec in schema().items():
        size = own_rows(net, name)
        if not size:
            continue
        columns = [_texts(net, column, size, nodes) for column in spec.values()]
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            file.write("\n".join([",".join(_quoted(list(spec))), *map(",".join, zip(*columns, strict=True)), ""]))
    integer = [kind for kind in _LABELLED if own_rows(net, kind) and not isinstance(net.labels(kind)[0], str)]
    meta = {"format": _FORMAT, "numeraire": net.numeraire, "complete": net.complete, "integer_labels": integer}
    (folder / _META).write_text(json.dumps(meta, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _texts(net: ExposureNetwork, column: Column, size: int, nodes: list[str]) -> list[str]:
    """Cells of a column as they stand in the file: text in quotes, numbers exact, an empty cell as empty quotes."""
    if column.dtype == "label":
        return _quoted(net.labels(column.table)[:size].tolist())
    values = net.columns(column.table)[column.name][:size]
    if column.refers_to:
        texts = nodes if column.refers_to == "nodes" else net.labels(column.refers_to).tolist()
        return _taken(_quoted(texts), values)
    if column.dtype in ("text", "name"):
        codes, distinct = factorize(values)
        return _taken(_quoted(list(distinct)), codes)
    texts = list(map(repr, values.tolist()))
    return [_EMPTY if text == "nan" else text for text in texts] if column.nullable else texts


def _taken(texts: list[str], codes: NDArray[Any]) -> list[str]:
    """Text of every code; -1 is an empty cell."""
    return list(map([*texts, _EMPTY].__getitem__, codes.tolist()))


def _quoted(labels: list[Any]) -> list[str]:
    if labels and not isinstance(labels[0], str):
        return list(map(str, labels))
    clean = '"' not in "".join(labels)
    return [f'"{text}"' for text in labels] if clean else ['"' + text.replace('"', '""') + '"' for text in labels]


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _node_texts(net: ExposureNetwork) -> list[str]:
    """Write a node as its label; as ``trader:x`` or ``exchange:x`` where the label alone would not tell."""
    if not own_rows(net, "liabilities"):
        return []
    nodes = [(kind, str(label)) for kind in _KINDS for label in net.labels(f"{kind}s").tolist()]
    count = Counter(text for _, text in nodes)
    unclear = {text for text in count if count[text] > 1 or text.partition(":")[0] in _KINDS}
    return [f"{kind}:{text}" if text in unclear else text for kind, text in nodes]


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


def _read_csv(path: Path) -> dict[str, list[str]]:
    """Read the cells of a table as text; rows of another length than the header are refused."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = filter(None, csv.reader(file, strict=True))
            header = next(rows, [])
            if len(set(header)) < len(header):
                raise ContagionError(f"{path.name} has a column twice: {', '.join(header)}")
            cells: list[str] = []  # one after the other: a list per row would cost more than reading it
            for row in rows:
                if len(row) != len(header):
                    place = len(cells) // len(header)
                    raise ContagionError(f"{path.name}, row {place}: {len(row)} cells under {len(header)} column names")
                cells += row
    except (csv.Error, UnicodeDecodeError) as error:
        raise ContagionError(f"{path.name} cannot be read: {error}") from error
    return {name: cells[place :: len(header)] for place, name in enumerate(header)}


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


def _cells(texts: Sequence[str], parse: Any) -> Any:
    """Parse the cells of a column; empty ones are None, those that do not parse stay text for the door to refuse."""
    whole = np.int64 if parse is int else np.float64
    try:
        if parse in (float, int) and "" not in texts:
            return np.fromiter(map(parse, texts), whole, len(texts))
        if parse is float:
            return np.array([float(text) if text else np.nan for text in texts])
    except (ValueError, OverflowError):
        pass
    array = np.empty(len(texts), dtype=object)
    array[:] = texts if parse is str else [_cell(text, parse) for text in texts]
    if parse is str and "" in texts:
        array[array == ""] = None
    return array


def _cell(text: str, parse: Any) -> Any:
    try:
        return parse(text) if text else None
    except ValueError:
        return text


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
