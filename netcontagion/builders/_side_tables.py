"""The tables beside a table of balances: markets, prices and what is known of single accounts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion.errors import Problem, nearest
from netcontagion.network import Column, Door, read_columns, schema

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = ["SideTables", "price_by"]


@dataclass
class SideTables:
    """Reads the tables one after the other; what is wrong with them goes to the door."""

    door: Door
    given: dict[str, NDArray[np.int64]] = field(default_factory=dict)  # rows of markets and accounts as given, -1: none
    broken: bool = False  # a table could not be read at all, so that nothing across tables can be checked

    def read(self, name: str, table: Any, keys: tuple[str, ...]) -> dict[str, Any]:
        """Read a table given beside the first one; index levels without a name are its keys."""
        try:
            columns = read_columns(table)
        except TypeError:
            cure = "give a table, or a dict of columns"
            value = f"{type(table).__name__} {table!r:.60}"
            self.door.problems.append(Problem(name, None, None, value, "anything with columns", cure))
            return {}
        levels = [column for column in columns if column.startswith("index level ")]
        for level, key in zip(levels, keys[-len(levels) :] if levels else (), strict=False):
            values = columns.pop(level)
            columns.setdefault(key, values)
        sizes = sorted({len(values) for values in columns.values()})
        if len(sizes) > 1:
            value = f"columns of lengths {sizes}"
            self.door.problems.append(Problem(name, None, None, value, "one length", "give one row per key"))
            return {}
        return {column: np.asarray(values) for column, values in columns.items()}

    def markets(self, markets: Any, exchanges: NDArray[Any]) -> dict[str, Any]:
        """Markets by exchange and asset; those by asset alone hold on every exchange."""
        columns = self.read("markets", markets, ("exchange", "asset"))
        if not columns:
            self.broken = True
            return {}
        size = len(next(iter(columns.values()), ()))
        self.given["markets"] = np.arange(size)
        if "asset" not in columns:
            cure = "give markets by exchange and asset, or by asset"
            self.door.problems.append(Problem("markets", "asset", None, "the column is missing", "a label", cure))
            self.broken = True
            return {}
        if not size:
            cure = "give one row per asset: they decide who is liquidated"
            self.door.problems.append(Problem("markets", None, None, "the table is empty", "at least one row", cure))
            self.broken = True
            return {}
        if "exchange" in columns:
            return columns
        self.given["markets"] = np.tile(np.arange(size), len(exchanges))
        repeated = {name: np.tile(values, len(exchanges)) for name, values in columns.items()}
        return {"exchange": np.repeat(exchanges, size), **repeated}

    def prices(self, prices: Any, markets: dict[str, Any]) -> tuple[Any, dict[tuple[Any, Any], float]]:
        """Table of assets, and marks by exchange and asset (also written into ``markets``)."""
        import pandas as pd

        if prices is None:
            return None, {}
        if not isinstance(prices, (Mapping, pd.Series)) or {"asset", "price"} <= set(getattr(prices, "keys", dict)()):
            return self.read("assets", prices, ("asset",)), {}
        known = dict(prices.items())
        labels, numbers = list(known), self._prices(known)
        if not all(isinstance(label, tuple) and len(label) == 2 for label in labels):
            return {"asset": labels, "price": numbers}, {}
        marks = dict(zip(labels, numbers.tolist(), strict=True))
        self._write_marks(markets, marks)
        by_asset = pd.Series(numbers, index=pd.Index([name for _, name in labels], tupleize_cols=False))
        median = by_asset.groupby(level=0).median()
        return {"asset": median.index.to_numpy(), "price": median.to_numpy()}, marks

    def _prices(self, known: dict[Any, Any]) -> NDArray[np.float64]:
        """Check prices: none is empty, so that none is made up."""
        if not known:
            cure = "give prices, or leave prices= out"
            self.door.problems.append(Problem("prices", "price", None, "no price", "a price per asset", cure))
            self.broken = True
        door = Door()
        column = Column("prices", "price", False, False, "number", "num/unit", "required", "[0, inf)", "")
        numbers = door.numbers(column, read_columns({"price": list(known.values())})["price"])
        for problem in door.problems:
            label = "" if problem.row is None else f" of {list(known)[problem.row]!r}"
            self.door.problems.append(replace(problem, value=f"{problem.value}{label}"))
        wrong = {problem.row for problem in door.problems}
        return np.array([1.0 if {row, None} & wrong else price for row, price in enumerate(numbers.tolist())])

    def _write_marks(self, markets: dict[str, Any], marks: dict[tuple[Any, Any], float]) -> None:
        """Put the marks into the markets; a pair that has no market gets one."""
        if "asset" not in markets:
            return
        pairs = list(zip(markets["exchange"].tolist(), markets["asset"].tolist(), strict=True))
        extra = [pair for pair in marks if pair not in set(pairs)]
        before = markets.get("price", np.full(len(pairs), np.nan)).tolist()
        own = [marks.get(pair, price) for pair, price in zip(pairs, before, strict=True)]
        spec = schema()["markets"]
        for name, values in list(markets.items()) if extra else []:
            if name in ("exchange", "asset"):
                fresh = _objects([pair[name == "asset"] for pair in extra])
            else:
                fresh = _objects([spec[name].default_value if name in spec else np.nan] * len(extra))
            markets[name] = _objects([*values.tolist(), *fresh.tolist()])
        markets["price"] = _objects([*own, *(marks[pair] for pair in extra)])
        self.given["markets"] = np.append(self.given["markets"], np.full(len(extra), -1))

    def accounts(self, accounts: Any, table: dict[str, Any]) -> dict[str, Any]:
        """Columns of single accounts, joined by label or by trader and exchange; the others keep the defaults."""
        columns = self.read("accounts", accounts, ("account",))
        by = ("account",) if "account" in columns else ("trader", "exchange")
        if any(key not in columns for key in by):
            cure = "name the accounts in a column account, or trader and exchange"
            self.door.problems.append(Problem("accounts", by[0], None, "the column is missing", "a label", cure))
            return {}
        place = {label: row for row, label in enumerate(_labels_of(table, by))}
        given = np.full(len(place), -1, dtype=np.int64)
        for row, label in enumerate(_labels_of(columns, by)):
            found = place.get(label, -1)
            if found >= 0 and given[found] < 0:
                given[found] = row
                continue
            near = nearest(label[0], [known[0] for known in place])
            cure = f"did you mean {near[0]!r}?" if near else "drop the row, or add the account's balances"
            allowed = "an account of the table"
            if found >= 0:
                allowed, cure = "one row per account", "drop one"
            self.door.problems.append(Problem("accounts", ", ".join(by), row, repr(label), allowed, cure))
        self.given["accounts"] = given
        spec, rest = schema()["accounts"], {}
        for name in columns.keys() - {"account", "trader", "exchange"}:
            cells = [*columns[name].tolist(), spec[name].default_value if name in spec else None]
            rest[name] = read_columns({name: [cells[row] for row in given.tolist()]})[name]
        return rest


def _labels_of(table: dict[str, Any], keys: tuple[str, ...]) -> Iterator[tuple[Any, ...]]:
    return zip(*(np.asarray(table[key]).tolist() for key in keys), strict=True)


def price_by(table: dict[str, Any], keys: tuple[str, ...]) -> dict[Any, float]:
    """Prices by key, those that are numbers; the door says what is wrong with the others."""
    if any(name not in table for name in (*keys, "price")):
        return {}
    labels = list(_labels_of(table, keys))
    column = Column("prices", "price", False, False, "number", "num/unit", "empty", "[0, inf)", "")
    numbers = Door().numbers(column, np.asarray(table["price"])).tolist()
    pairs = zip(labels, numbers, strict=True)
    return {label if len(keys) > 1 else label[0]: price for label, price in pairs if not np.isnan(price)}


def _objects(values: list[Any]) -> NDArray[Any]:
    return np.asarray(read_columns({"values": values})["values"])
