"""From tables to checked columns of codes and numbers: inference of what was left out, coding of labels."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion._arrays import plain
from netcontagion.errors import Problem, nearest
from netcontagion.network._checks import (
    check_assets,
    check_makers,
    check_margin,
    check_policies,
    check_rulebooks,
    check_sources,
    check_spreads,
    check_tiers,
)
from netcontagion.network._complete import add_missing_markets, complete_book
from netcontagion.network._door import Door
from netcontagion.network._labels import OTHERS, Coded, factorize, is_others
from netcontagion.network._schema import schema

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pandas as pd
    from numpy.typing import NDArray

__all__ = ["Assembly", "assemble", "node_index"]

Columns = dict[str, Any]
_LABELLED = {"exchanges": "exchange", "assets": "asset", "traders": "trader", "accounts": "account"}


@dataclass
class Assembly:
    """Checked columns, labels and what was completed."""

    labels: dict[str, pd.Index] = field(default_factory=dict)
    columns: dict[str, Columns] = field(default_factory=dict)
    order: dict[str, NDArray[np.intp]] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)
    sources: dict[str, list[tuple[str, str]]] = field(default_factory=dict)  # columns a table was inferred from

    def whole(self, *names: str) -> bool:
        """Whether the keys and references of the tables hold, so that checks across them make sense."""
        return not self.broken.intersection(names)


def assemble(tables: Mapping[str, Any], *, complete: bool) -> Assembly:
    """Check every table against the schema and return columns of codes and numbers.

    Raises
    ------
    SchemaError
        Listing everything that is wrong in all tables.
    """
    door, assembly = Door(), Assembly()
    raw = _open(door, assembly, tables)
    _strip_others(door, raw)
    _infer(door, assembly, raw)
    for name in ("assets", "exchanges", "traders", "accounts", "markets", "tiers", "balances", "positions"):
        _code(door, assembly, name, raw)
    if assembly.whole("assets"):
        check_assets(door, assembly)
        check_makers(door, assembly)
        check_spreads(door, assembly)
    if assembly.whole("traders"):
        check_policies(door, assembly)
    rulebooks = check_rulebooks(door, assembly) if assembly.whole("exchanges") else []
    if assembly.whole("tiers"):
        check_tiers(door, assembly)
    if assembly.whole("exchanges", "assets", "markets"):
        check_sources(door, assembly, rulebooks)
    if assembly.whole("assets", "exchanges", "accounts", "markets", "tiers", "balances", "positions"):
        add_missing_markets(assembly)
        check_margin(door, assembly, rulebooks)
        if not door.problems:
            complete_book(door, assembly, complete=complete)
    for name in ("wallets", "holdings", "liabilities"):
        _code(door, assembly, name, raw)
    _check_self_loops(door, assembly)
    door.raise_if_any()
    return assembly


def _open(door: Door, assembly: Assembly, tables: Mapping[str, Any]) -> dict[str, Columns]:
    raw: dict[str, Columns] = {}
    for name, table in tables.items():
        if table is None:
            continue
        columns = door.open(name, table)
        if not columns:
            assembly.broken.add(name)
        elif not len(next(iter(columns.values()))):
            assembly.broken.add(name)
            door.empty(name)
        else:
            raw[name] = columns
    if not raw and not door.problems:
        cure = "give traders and liabilities for a network of banks, or balances and markets for a lending book"
        door.problems.append(Problem("network", None, None, "no table was given", "at least one table", cure))
    return raw


def _strip_others(door: Door, raw: dict[str, Columns]) -> None:
    """Drop the rows of ``others@`` traders: they are always derived anew from the book.

    A row that only looks like one (a trader of another kind, an account of another trader, the name of no exchange) is
    refused, never dropped.
    """
    sources = ["exchanges"] if "exchanges" in raw else ["accounts", "markets", "tiers"]
    names: set[str] | None = None
    for name, key in {"traders": "trader", **dict.fromkeys(("accounts", "balances", "positions"), "account")}.items():
        table = raw.get(name, {})
        like = np.flatnonzero(is_others(table[key])) if key in table else np.zeros(0, dtype=np.intp)
        if not len(like):
            continue
        if names is None:
            names = {f"{OTHERS}{label}" for label in _gather(raw, [(n, "exchange") for n in sources]).tolist()}
        wrong = [row for row in like.tolist() if not _is_derived(name, table, row, names)]
        for row in wrong:
            allowed = f"a label that does not start with {OTHERS!r}, kept for what the network adds"
            door.add(schema()[name][key], row, table[key][row], "give it another name", allowed)
        if not wrong:
            kept = np.setdiff1d(np.arange(len(table[key])), like)
            raw[name] = {column: values[kept] for column, values in table.items()}
            door.given[name] = kept


def _is_derived(name: str, table: Columns, row: int, names: set[str]) -> bool:
    """Tell a row the network added: of a trader of kind ``others``, of that trader's account on its exchange."""
    if name == "traders":
        return table["trader"][row] in names and "kind" in table and table["kind"][row] == "others"
    label = table["account"][row]
    if name == "accounts":
        trader, exchange = (table[column][row] if column in table else None for column in ("trader", "exchange"))
        return label in names and bool(trader == label == f"{OTHERS}{exchange}")
    return label in names


# inference of tables that were left out ---------------------------------------------------------------------------


def _infer(door: Door, assembly: Assembly, raw: dict[str, Columns]) -> None:
    """Make the tables that were left out; one that was given and cannot be read is not made up."""
    for name, infer in (
        ("exchanges", _infer_exchanges),
        ("accounts", _infer_accounts),
        ("traders", _infer_traders),
        ("assets", _infer_assets),
    ):
        if name not in raw and name not in assembly.broken:
            assembly.sources[name] = infer(door, assembly, raw)


def _infer_exchanges(_door: Door, _assembly: Assembly, raw: dict[str, Columns]) -> list[tuple[str, str]]:
    sources = [("accounts", "exchange"), ("markets", "exchange"), ("tiers", "exchange")]
    found = _gather(raw, sources)
    if len(found):
        raw["exchanges"] = {"exchange": found}
    return sources


def _infer_accounts(door: Door, assembly: Assembly, raw: dict[str, Columns]) -> list[tuple[str, str]]:
    sources = [("balances", "account"), ("positions", "account")]
    found = _gather(raw, sources)
    exchanges = raw.get("exchanges", {}).get("exchange", [])
    if len(found) and len(exchanges) != 1:
        if assembly.whole("exchanges", "markets", "tiers"):
            cure = "give accounts with columns account, trader, exchange"
            value = f"left out, and the exchange of an account is not plain from {len(exchanges)} exchanges"
            door.problems.append(Problem("accounts", None, None, value, "one row per account", cure))
        assembly.broken.add("accounts")
    elif len(found):
        raw["accounts"] = {"account": found, "trader": found, "exchange": np.repeat(np.asarray(exchanges), len(found))}
    return sources


def _infer_traders(_door: Door, assembly: Assembly, raw: dict[str, Columns]) -> list[tuple[str, str]]:
    """Owners are traders; so is everybody in ``liabilities`` who is not an exchange."""
    owners = assembly.sources.get("accounts", [("accounts", "trader")])
    sources = [*owners, ("wallets", "trader"), ("holdings", "trader")]
    ends = [("liabilities", "debtor"), ("liabilities", "creditor")]
    found, nodes = _gather(raw, sources), _gather(raw, ends)
    if len(nodes):
        exchanges = set(np.asarray(raw.get("exchanges", {}).get("exchange", [])).tolist())
        addressed = [node[1] for node in nodes if isinstance(node, tuple) and len(node) == 2 and node[0] == "trader"]
        bare = [node for node in nodes.tolist() if not isinstance(node, tuple) and node not in exchanges]
        found = _object_or_int(list(dict.fromkeys([*found.tolist(), *addressed, *bare])))
    found = found[~is_others(found)]
    if len(found):
        raw["traders"] = {"trader": found}
    return sources + ends


def _infer_assets(door: Door, assembly: Assembly, raw: dict[str, Columns]) -> list[tuple[str, str]]:
    """Take the price of an asset from its markets, where they agree."""
    sources = [("markets", "asset")]
    market = raw.get("markets", {})
    if "asset" not in market or "price" not in market:
        if not assembly.whole("markets"):
            assembly.broken.add("assets")
        elif any(name in raw for name in ("markets", "balances", "positions", "wallets", "holdings")):
            cure = "give assets with columns asset and price, or markets.price"
            door.problems.append(Problem("assets", "price", None, "no price is known", "a price per asset", cure))
            assembly.broken.add("assets")
        return sources
    labels = _gather(raw, sources)
    rows, uniques = factorize(market["asset"])
    codes = np.append(_find(labels, list(uniques)), -1)[rows]
    quiet = Door()  # what is wrong with a mark is said where the markets are read
    marks = quiet.numbers(schema()["markets"]["price"], market["price"])
    wrong = [problem.row for problem in quiet.problems]
    refused = np.full(len(labels), None in wrong)
    refused[codes[[row for row in wrong if row is not None]]] = True
    low, high = np.full(len(labels), np.inf), np.full(len(labels), -np.inf)
    given = (codes >= 0) & ~np.isnan(marks) & ~refused[codes]
    np.minimum.at(low, codes[given], marks[given])
    np.maximum.at(high, codes[given], marks[given])
    for place in np.flatnonzero(~refused & ((high - low > 1e-9 * np.abs(high)) | (high < low))).tolist():
        cure = "give assets.price: the price of what is held outside the exchanges"
        value = f"{labels[place]!r} has several marks and no price of its own"
        if high[place] < low[place]:
            cure, value = "fill in markets.price, or give assets.price", f"{labels[place]!r} has no price at all"
        door.problems.append(Problem("assets", "price", None, value, "one price per asset", cure))
    known = ~refused & (low <= high)
    raw["assets"] = {"asset": labels, "price": np.where(known, high, 1.0)}
    return sources


def _gather(raw: dict[str, Columns], places: list[tuple[str, str]]) -> Any:
    """Return the labels in use, each once."""
    import pandas as pd

    given = [raw[table][column] for table, column in places if column in raw.get(table, {})]
    found: list[Any] = []
    for values in given:
        if hasattr(values, "codes"):
            used = np.bincount(values.codes[values.codes >= 0], minlength=len(values.categories)) > 0
            if len(given) == 1 and isinstance(values, Coded) and used.all():
                return Coded(np.arange(len(used)), values.categories)
            found.append(np.asarray(values.categories, dtype=object)[used])
        else:
            found.append(pd.unique(np.asarray(values)))
    found = [_object_or_int(part.tolist()) for part in found]
    if not found:
        return np.array([], dtype=object)
    labels: NDArray[Any] = (
        found[0] if len(found) == 1 else pd.unique(_object_or_int([v for part in found for v in part.tolist()]))
    )
    return np.asarray(labels[~pd.isna(labels)])


def _object_or_int(values: list[Any]) -> NDArray[Any]:
    if values and all(isinstance(value, int) and not isinstance(value, bool) for value in values):
        return np.array(values, dtype=np.int64)
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


# coding -----------------------------------------------------------------------------------------------------------


def _code(door: Door, assembly: Assembly, name: str, raw: Mapping[str, Columns]) -> None:
    spec, table = schema()[name], raw.get(name)
    if table is None:
        _code_absent(assembly, name)
        return
    missing = [column for column in spec.values() if column.required and column.name not in table]
    if missing:
        assembly.broken.add(name)
    if any(column.key for column in missing):
        _code_absent(assembly, name)
        return
    size = len(next(iter(table.values())))
    order: NDArray[np.intp] | None = None
    columns: Columns = {}
    for column in spec.values():
        if column in missing:
            columns[column.name] = np.full(size, -1 if column.refers_to else np.nan, dtype=_dtype(column))
        elif column.dtype == "label":
            before = len(door.problems)
            assembly.labels[name], order = door.labels(column, table[column.name])
            if name in assembly.sources:
                door.problems[before:] = _at_source(door.problems[before:], assembly.sources[name], raw)
        elif column.refers_to == "nodes":
            columns[column.name] = _node_codes(door, assembly, column, table[column.name])
        elif column.refers_to and column.name in table:
            before = len(door.problems)
            columns[column.name] = _reference(door, assembly, column, table[column.name])
            if name in assembly.sources:
                door.problems[before:] = _at_source(door.problems[before:], assembly.sources[name], raw)
        elif column.refers_to:
            columns[column.name] = np.full(size, -1, dtype=np.int32)
        else:
            columns[column.name] = door.values(column, table, size)
    if not any(column.dtype == "label" for column in spec.values()):
        order = _key_order(door, name, table, columns)
    refers = [column.name for column in spec.values() if column.refers_to and not column.nullable]
    if order is None or any((columns[key] < 0).any() for key in refers):
        assembly.broken.add(name)
    order = np.arange(size, dtype=np.intp) if order is None else order
    columns = columns if _sorted(order) else {key: values[order] for key, values in columns.items()}
    assembly.columns[name], assembly.order[name] = columns, order


def _code_absent(assembly: Assembly, name: str) -> None:
    import pandas as pd

    columns = {c.name: np.zeros(0, _dtype(c)) for c in schema()[name].values() if c.dtype != "label"}
    assembly.columns[name], assembly.order[name] = columns, np.zeros(0, dtype=np.intp)
    if name in _LABELLED:
        assembly.labels[name] = pd.Index([], name=_LABELLED[name], dtype="str")


def _reference(door: Door, assembly: Assembly, column: Any, values: Any) -> NDArray[np.int32]:
    """Code labels of another table; where that table could not be read at all, its own problem is enough."""
    labels = assembly.labels[column.refers_to]
    if column.refers_to in assembly.broken and not len(labels):
        return np.full(len(values), -1, dtype=np.int32)
    return door.codes(column, values, labels)


def _at_source(
    problems: list[Problem], sources: list[tuple[str, str]], raw: Mapping[str, Columns]
) -> Iterator[Problem]:
    """Say of a label in an inferred table where it was first given."""
    given = [(table, name) for table, name in sources if name in raw.get(table, {})]
    first: dict[object, tuple[str, str, int]] = {}
    for table, name in given if problems else ():
        for row, value in enumerate(raw[table][name]):
            first.setdefault(repr(plain(value)), (table, name, row))
    for problem in problems:
        place = (*given[0], None) if problem.row is None else first.get(problem.value)
        yield problem if place is None else replace(problem, table=place[0], column=place[1], row=place[2])


def _dtype(column: Any) -> Any:
    if column.refers_to:
        return np.int32
    return {"number": np.float64, "integer": np.int64, "boolean": bool}.get(column.dtype, object)


def _sorted(order: NDArray[np.intp]) -> bool:
    return bool((order[1:] > order[:-1]).all())


def _key_order(door: Door, name: str, raw: Columns, columns: Columns) -> NDArray[np.intp]:
    keys = [column.name for column in schema()[name].values() if column.identity]
    arrays = [columns[key] for key in keys]
    known = np.logical_and.reduce(
        [array >= 0 for key, array in zip(keys, arrays, strict=True) if array.dtype == np.int32]
    )
    order = np.arange(len(arrays[0])) if _in_order(arrays) else np.lexsort(arrays[::-1])
    ranked = order[known[order]]
    door.unique(name, arrays, ranked, [raw.get(key, columns[key]) for key in keys])
    return order


def _in_order(keys: list[NDArray[Any]]) -> bool:
    """Whether rows are sorted by their keys, the first one first."""
    sorted_, tied = True, np.ones(max(len(keys[0]) - 1, 0), dtype=bool)
    for key in keys:
        sorted_ = sorted_ and not (tied & (key[1:] < key[:-1])).any()
        tied &= key[1:] == key[:-1]
    return bool(sorted_)


def node_index(traders: pd.Index, exchanges: pd.Index) -> pd.Index:
    """Join the labels of traders and exchanges; a label that both have becomes ``(kind, label)``."""
    import pandas as pd

    both = set(traders.intersection(exchanges)) if len(exchanges) and len(traders) else set()
    if not both:
        joined = traders.append(exchanges) if len(exchanges) else traders
        return joined.rename("node")
    labels = [("trader", v) if v in both else v for v in traders] + [
        ("exchange", v) if v in both else v for v in exchanges
    ]
    return pd.Index(_object_or_int(labels), tupleize_cols=False, name="node")


def _node_codes(door: Door, assembly: Assembly, column: Any, values: Any) -> NDArray[np.int32]:
    """Code traders, then exchanges; a label that both have must say which it means."""
    traders, exchanges = assembly.labels["traders"], assembly.labels["exchanges"]
    rows, uniques = factorize(values)
    uniques = list(uniques)
    addressed = [isinstance(label, tuple) and len(label) == 2 for label in uniques]
    kinds = np.array([label[0] if pair else None for label, pair in zip(uniques, addressed, strict=True)], dtype=object)
    bare = [label[1] if pair else label for label, pair in zip(uniques, addressed, strict=True)]
    as_trader = np.where((kinds == None) | (kinds == "trader"), _find(traders, bare), -1)  # noqa: E711
    as_exchange = np.where((kinds == None) | (kinds == "exchange"), _find(exchanges, bare), -1)  # noqa: E711
    both = (as_trader >= 0) & (as_exchange >= 0)
    found = np.where(as_trader >= 0, as_trader, np.where(as_exchange >= 0, len(traders) + as_exchange, -1))
    found[both] = -1
    codes = np.where(rows >= 0, np.append(found, -1)[rows], -1).astype(np.int32)
    if any(kind in assembly.broken and not len(assembly.labels[kind]) for kind in ("traders", "exchanges")):
        return codes
    for row in np.flatnonzero(codes < 0).tolist():
        label = None if rows[row] < 0 else uniques[rows[row]]
        near = nearest(label, [*traders, *exchanges]) if label is not None else []
        cure = f"did you mean {near[0]!r}?" if near else "add a row to traders or exchanges, or correct the label"
        if label is not None and both[rows[row]]:
            cure = f"it names a trader and an exchange: write ('trader', {label!r}) or ('exchange', {label!r})"
        door.add(column, row, label, cure, "a label of traders or exchanges")
    return codes


def _find(labels: Any, wanted: list[Any]) -> NDArray[np.intp]:
    import pandas as pd

    if not len(labels) or not wanted:
        return np.full(len(wanted), -1, dtype=np.intp)
    index = pd.Index(labels, tupleize_cols=False)
    return np.asarray(index.get_indexer(pd.Index(_object_or_int(wanted), tupleize_cols=False)))


def _check_self_loops(door: Door, assembly: Assembly) -> None:
    table = assembly.columns["liabilities"]
    debtor = table["debtor"]
    for row in np.flatnonzero((debtor == table["creditor"]) & (debtor >= 0)).tolist():
        column = schema()["liabilities"]["creditor"]
        original = int(assembly.order["liabilities"][row])
        door.add(column, original, "debtor and creditor are the same", "drop the row", "a node other than the debtor")
