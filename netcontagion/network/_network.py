"""The record: an exposure network of traders, exchanges and collateral assets, checked once and frozen."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from netcontagion._arrays import freeze, group_sum
from netcontagion.errors import ContagionError, UnknownLabelError
from netcontagion.network._assemble import Assembly, assemble, node_index
from netcontagion.network._labels import OTHERS
from netcontagion.network._margin import HEALTH_TOL, Book, build_book
from netcontagion.network._schema import schema
from netcontagion.network._tables import frame, own_tables

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import igraph
    import networkx
    import pandas as pd
    from numpy.typing import NDArray
    from scipy.sparse import csr_array

    from netcontagion.network._shock import Shock

__all__ = ["ExposureNetwork", "LabelledMatrix"]

_NODE_KINDS = ("traders", "exchanges", "assets", "accounts")


@dataclass(frozen=True, eq=False)
class LabelledMatrix:
    """A sparse view of the tables that names its rows, its columns and its unit."""

    matrix: csr_array
    rows: pd.Index
    columns: pd.Index
    unit: str

    def to_frame(self) -> pd.DataFrame:
        """Return the stored entries as a long table (row, column, value)."""
        import pandas as pd

        coo = self.matrix.tocoo()
        names = [self.rows.name or "row", self.columns.name or "column"]
        if names[0] == names[1]:
            names = [f"{names[0]}_row", f"{names[1]}_column"]
        return pd.DataFrame({names[0]: self.rows[coo.row], names[1]: self.columns[coo.col], "value": coo.data})

    def __repr__(self) -> str:
        rows, columns = self.matrix.shape
        ends = f"{rows:,} {self.rows.name}s x {columns:,} {self.columns.name}s"
        return f"LabelledMatrix({ends}, {self.matrix.nnz:,} entries, {self.unit})"


class ExposureNetwork:
    """A weighted bipartite network of traders, exchanges and assets, with the margin accounts that link them.

    Every table is a pandas DataFrame, or anything else with columns (polars, pyarrow, DuckDB relation, dict of arrays).
    Tables that follow from others may be left out. All tables are checked once against the schema; the network never
    changes afterwards. Units: prices in numeraire per unit, amounts in numeraire, balances in units of their asset.

    Parameters
    ----------
    traders, exchanges, assets, markets, tiers, accounts, balances, positions, wallets, holdings, liabilities : table
        See ``netcontagion/network/schema.csv`` for every column, unit, default and bound.
        ``liabilities``: the debtor owes the creditor.
    numeraire : str, default "USD"
        Unit of money, shown on every axis and table.
    complete : bool, default False
        Whether the book is said to be complete. A partial book, where more is borrowed from an exchange than is
        deposited there, is completed with a trader ``others@<exchange>``; with ``complete=True`` it is an error.

    Raises
    ------
    SchemaError
        Listing every problem of every table: table, row, column, value, allowed range, cure. Nothing is half loaded.

    Examples
    --------
    >>> import netcontagion as nc
    >>> net = nc.ExposureNetwork(
    ...     markets={"exchange": ["Lend"] * 2, "asset": ["ETH", "USDC"], "price": [2000, 1],
    ...              "close_factor": [0.5] * 2, "liquidation_threshold": [0.8, 0.85], "liquidation_bonus": [0.05] * 2},
    ...     balances={"account": ["ann", "ann"], "asset": ["ETH", "USDC"],
    ...               "deposited": [1.0, 0.0], "borrowed": [0.0, 1000.0]})
    >>> float(net.health()["ann"])
    1.6
    """

    _TABLES: ClassVar[tuple[str, ...]] = tuple(schema())

    numeraire: str
    complete: bool
    _columns: dict[str, Mapping[str, NDArray[Any]]]
    _labels: dict[str, pd.Index]

    def __init__(
        self,
        *,
        traders: Any = None,
        exchanges: Any = None,
        assets: Any = None,
        markets: Any = None,
        tiers: Any = None,
        accounts: Any = None,
        balances: Any = None,
        positions: Any = None,
        wallets: Any = None,
        holdings: Any = None,
        liabilities: Any = None,
        numeraire: str = "USD",
        complete: bool = False,
    ) -> None:
        given = {
            "traders": traders,
            "exchanges": exchanges,
            "assets": assets,
            "markets": markets,
            "tiers": tiers,
            "accounts": accounts,
            "balances": balances,
            "positions": positions,
            "wallets": wallets,
            "holdings": holdings,
            "liabilities": liabilities,
        }
        self._seal(assemble(given, complete=complete), numeraire, complete)

    def _seal(self, assembly: Assembly, numeraire: str, complete: bool) -> None:
        columns = {
            name: MappingProxyType({column: freeze(values) for column, values in table.items()})
            for name, table in assembly.columns.items()
        }
        for name, value in (
            ("_columns", columns),
            ("_labels", assembly.labels),
            ("numeraire", numeraire),
            ("complete", complete),
        ):
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a network is frozen; net.replace({name}=...) makes a new one")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a network is frozen; {name!r} cannot be deleted")

    def __getstate__(self) -> dict[str, Any]:
        columns = {name: dict(table) for name, table in self._columns.items()}
        return {"columns": columns, "labels": self._labels, "money": (self.numeraire, self.complete)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._seal(Assembly(labels=state["labels"], columns=state["columns"]), *state["money"])

    # tables -------------------------------------------------------------------------------------------------------

    def labels(self, kind: str) -> pd.Index:
        """Return the labels of "traders", "exchanges", "assets" or "accounts", in the order of their codes."""
        if kind not in _NODE_KINDS:
            raise UnknownLabelError(kind, _NODE_KINDS, "kind of node")
        index: pd.Index = self._labels[kind]
        return index

    @functools.cached_property
    def nodes(self) -> pd.Index:
        """Labels of traders, then exchanges; ``(kind, label)`` where both have the label."""
        return node_index(self._labels["traders"], self._labels["exchanges"])

    @functools.cached_property
    def underlyings(self) -> tuple[dict[Any, Any], frozenset[Any]]:
        """The underlying of every asset, in the order of their labels, and all names that a price move can name."""
        found = dict(zip(self.labels("assets").tolist(), self.columns("assets")["underlying"].tolist(), strict=True))
        return found, frozenset(found) | {name for name in found.values() if name is not None}

    def columns(self, table: str) -> Mapping[str, NDArray[Any]]:
        """Return a table as read-only arrays: integer codes for labels (-1: empty), numbers, words."""
        if table not in self._columns:
            raise UnknownLabelError(table, self._TABLES, "table")
        columns: Mapping[str, NDArray[Any]] = self._columns[table]
        return columns

    def _table(self, name: str) -> pd.DataFrame:
        frames = self.__dict__.setdefault("_frames", {})
        if name not in frames:
            frames[name] = frame(self, name)
        return frames[name].copy(deep=False)  # type: ignore[no-any-return]

    @property
    def traders(self) -> pd.DataFrame:
        """Traders by label, ``others@<exchange>`` last."""
        return self._table("traders")

    @property
    def exchanges(self) -> pd.DataFrame:
        """Exchanges by label."""
        return self._table("exchanges")

    @property
    def assets(self) -> pd.DataFrame:
        """Assets by label."""
        return self._table("assets")

    @property
    def markets(self) -> pd.DataFrame:
        """Markets by exchange and asset."""
        return self._table("markets")

    @property
    def tiers(self) -> pd.DataFrame:
        """Margin tiers by exchange, asset and floor."""
        return self._table("tiers")

    @property
    def accounts(self) -> pd.DataFrame:
        """Accounts by label."""
        return self._table("accounts")

    @property
    def balances(self) -> pd.DataFrame:
        """Balances by account and asset [units]."""
        return self._table("balances")

    @property
    def positions(self) -> pd.DataFrame:
        """Positions by account and contract."""
        return self._table("positions")

    @property
    def wallets(self) -> pd.DataFrame:
        """Wallets by trader and asset [units]."""
        return self._table("wallets")

    @property
    def holdings(self) -> pd.DataFrame:
        """Long-term holdings by trader and asset [units]."""
        return self._table("holdings")

    @property
    def liabilities(self) -> pd.DataFrame:
        """Liabilities by debtor and creditor [num]: the debtor owes the creditor."""
        return self._table("liabilities")

    # views --------------------------------------------------------------------------------------------------------

    @functools.cached_property
    def book(self) -> Book:
        """The book as flat arrays, for engines."""
        return build_book(self._columns, self._labels["assets"])

    def health(self) -> pd.Series:
        """Return the health of every account, called below 1: collateral x threshold / debt, or equity / requirement.

        Returns
        -------
        pandas.Series
            By account; +inf exactly where nothing is owed.
        """
        import pandas as pd

        return pd.Series(self.book.health(), index=self._labels["accounts"], name="health")

    def margins(self, shock: Shock | None = None) -> pd.DataFrame:
        """Return what every margin account has and needs: accounts of exchanges that test equity, or with positions.

        Equity E = sum of (deposited - borrowed) x mark + sum of gains; a linear contract gains q (P - E_0), an inverse
        one q x multiplier x (1/E_0 - 1/P) coins. In margin equity a deposit counts with ``liquidation_threshold`` = 1 -
        haircut (empty: in full). The requirement of a contract of notional N is N x rate - cum in the tier of N, that
        of an account on portfolio margin its largest loss of margin equity over the scenarios of the rulebook.

        Parameters
        ----------
        shock : Shock, optional
            Prices at which to value; default: marks as they are.

        Returns
        -------
        pandas.DataFrame
            By account, without ``others@`` [num]: ``equity`` at marks, ``margin_equity`` after haircuts,
            ``initial_margin`` (NaN where an asset or a portfolio has none), ``maintenance_margin``, ``health`` = margin
            equity / maintenance margin, ``utilisation`` = 1 / health (inf where no equity is left), ``free`` = equity
            after the haircuts of ``loan_to_value`` (empty: as above) less initial margin, negative where none can be
            withdrawn.

        Raises
        ------
        UnknownLabelError
            The shock names what the network does not know.

        References
        ----------
        Binance, maintenance margin by tiers: notional x rate - maintenance amount.

        Examples
        --------
        >>> import netcontagion as nc
        >>> net = nc.builders.from_perpetuals(
        ...     {"who": ["ann"], "at": ["Perp"], "what": ["BTC-PERP"], "size": [10], "entry": [100], "cash": [50]},
        ...     trader="who", exchange="at", asset="what", quantity="size", entry_price="entry", margin="cash",
        ...     tiers={"asset": ["BTC-PERP"], "initial_margin": [0.01], "maintenance_margin": [0.005]},
        ...     prices={"BTC-PERP": 96.0})
        >>> net.margins().loc["ann@Perp", ["equity", "maintenance_margin"]].tolist()
        [10.0, 4.8]
        """
        from netcontagion.network._margin_tables import margins

        return margins(self, shock)

    def liquidation_prices(self, shock: Shock | None = None) -> pd.DataFrame:
        """Return the prices of each contract at which its account is called, and at which it is worth nothing.

        The liquidation price is the mark of that contract at which margin equity equals the maintenance margin, all
        other marks as they are, in the tier of that price: long (q E_0 - M - cum) / (q (1 - rate)), short (q E_0 + M +
        cum) / (q (1 + rate)). The bankruptcy price leaves the whole account with equity 0 when each leg is closed at
        its own, legs bearing equity in proportion to their maintenance margin: E_0 -+ M / q for a single leg.

        Parameters
        ----------
        shock : Shock, optional
            Prices at which the other legs and the collateral are valued; default: marks as they are.

        Returns
        -------
        pandas.DataFrame
            By account and asset [num/unit]: ``bankruptcy_price``, ``liquidation_price``. Linear: 0 where it would be
            below (a long that nothing calls, a short called at every price). NaN where no price does: inverse
            contracts without a finite one, quantity 0; the liquidation price of ``others@``, which is never called.

        Raises
        ------
        UnknownLabelError
            The shock names what the network does not know.

        References
        ----------
        dYdX v4, x/clob/keeper/liquidations.go (the split of an account's equity over its legs).

        Examples
        --------
        >>> import netcontagion as nc
        >>> net = nc.builders.from_perpetuals(
        ...     {"who": ["ann"], "at": ["Perp"], "what": ["BTC-PERP"], "size": [10], "entry": [100], "cash": [50]},
        ...     trader="who", exchange="at", asset="what", quantity="size", entry_price="entry", margin="cash",
        ...     tiers={"asset": ["BTC-PERP"], "initial_margin": [0.01], "maintenance_margin": [0.005]},
        ...     prices={"BTC-PERP": 100.0})
        >>> net.liquidation_prices().loc[("ann@Perp", "BTC-PERP")].round(4).tolist()
        [95.0, 95.4774]
        """
        from netcontagion.network._margin_tables import liquidation_prices

        return liquidation_prices(self, shock)

    def maintenance_curve(
        self, changes: Mapping[Any, Any], *, by: str = "exchange", family: bool = True
    ) -> pd.DataFrame:
        """Sum equity and maintenance margin of margin accounts over a grid of prices.

        Parameters
        ----------
        changes : mapping
            Relative changes by asset or underlying, ``{"BTC": [-0.3, -0.2, -0.1]}``; several assets move together.
        by : {"exchange", "trader"}
            Whose accounts are added up.
        family : bool, default True
            Whether everything whose ``underlying`` chain reaches a named asset moves too (see :meth:`Shock.price`).

        Returns
        -------
        pandas.DataFrame
            By change and group, without ``others@``: ``equity`` after haircuts and ``maintenance_margin`` [num],
            ``coverage`` = equity / maintenance margin (inf where nothing is required).

        Raises
        ------
        ValueError
            No grid, or grids of different lengths.
        UnknownLabelError
            A name that is neither asset nor underlying, or another group.

        Examples
        --------
        >>> import netcontagion as nc
        >>> net = nc.generators.market(40, exchanges=0, perpetuals=2, seed=1)
        >>> curve = net.maintenance_curve({"BTC": [-0.1, 0.0]})
        >>> curve.shape
        (4, 3)
        """
        from netcontagion.network._margin_tables import maintenance_curve

        return maintenance_curve(self, changes, by, family)

    def exposures(self, rows: str, columns: str) -> LabelledMatrix:
        """Sum the tables into a sparse matrix between two kinds of nodes.

        Parameters
        ----------
        rows, columns : {"traders", "exchanges", "assets", "accounts"}
            ``accounts x assets`` holds deposited units. Every other pair holds money at marks: deposits, and for
            ``traders x assets`` wallets and holdings too. ``traders x traders`` and ``exchanges x exchanges`` hold
            liabilities: row owes column.

        Returns
        -------
        LabelledMatrix
            ``.matrix`` (csr_array), ``.rows``, ``.columns``, ``.unit``.
        """
        from netcontagion.network._views import exposures

        return exposures(self, rows, columns)

    # changes ------------------------------------------------------------------------------------------------------

    @functools.cached_property
    def data_hash(self) -> str:
        """Sha256 of all labels and tables; the same for every order of the rows that were given."""
        digest = hashlib.sha256(f"{self.numeraire}|{self.complete}".encode())
        for kind in _NODE_KINDS:
            digest.update(_text_bytes(self._labels[kind].to_numpy(dtype=object)))
        for name, table in self._columns.items():
            for column, values in table.items():
                digest.update(f"|{name}.{column}|".encode())
                digest.update(_word_bytes(values) if values.dtype == object else values.tobytes())
        return digest.hexdigest()

    def replace(self, **changes: Any) -> ExposureNetwork:
        """Return a new network with some tables (or numeraire, complete) exchanged; None drops a table.

        Rows of ``others@<exchange>`` are derived anew.
        """
        known = (*self._TABLES, "numeraire", "complete")
        for name in changes:
            if name not in known:
                raise UnknownLabelError(name, known, "table")
        kept = own_tables(self, [name for name in self._TABLES if name not in changes])
        merged: dict[str, Any] = {**kept, "numeraire": self.numeraire, "complete": self.complete, **changes}
        return ExposureNetwork(**merged)

    def to_networkx(self) -> networkx.MultiDiGraph[Any]:
        """Return the network as a networkx graph that ``builders.from_networkx`` reads back exactly."""
        from netcontagion.network._convert import to_networkx

        return to_networkx(self)

    def to_igraph(self) -> igraph.Graph:
        """Return the network as an igraph graph that ``builders.from_igraph`` reads back exactly."""
        from netcontagion.network._convert import to_igraph

        return to_igraph(self)

    def save(self, folder: str | Path) -> Path:
        """Write the tables as a folder of CSV files, all or nothing; ``nc.load`` reads them back exactly."""
        from netcontagion.network._storage import save

        return save(self, folder)

    # words about it -----------------------------------------------------------------------------------------------

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What the tables leave open, and what is assumed for it."""
        from netcontagion.network._display import assumptions

        return assumptions(self)

    def summary(self) -> pd.Series:
        """Return counts, totals in the numeraire, accounts under water and completed supply."""
        from netcontagion.network._display import summary

        return summary(self)

    def check(self) -> str:
        """Check the record against itself and return one line that describes it.

        Raises
        ------
        ContagionError
            More is borrowed from a market than is deposited in it, or a contract is not zero-sum.
        """
        from netcontagion.network._display import describe

        self._check_supply()
        return describe(self)

    def _check_supply(self) -> None:
        book = self.book
        size = len(book.market_mark)
        custody = group_sum(book.balance_market, book.deposited - book.borrowed, size)
        gross = group_sum(book.balance_market, book.deposited + book.borrowed, size)
        if (custody < -1e-9 * gross).any():
            message = "more is borrowed from a market than is deposited in it"
            raise ContagionError(message)
        if len(book.quantity):
            net = group_sum(book.position_market, book.quantity, size)
            if (np.abs(net) > 1e-9 * group_sum(book.position_market, np.abs(book.quantity), size)).any():
                message = "positions of a contract do not sum to zero"
                raise ContagionError(message)

    def derived(self, kind: str) -> int:
        """Count the ``others@`` among "traders" or "accounts": they stand last, at most one per exchange."""
        labels = self.labels(kind)
        tail = labels[max(len(labels) - len(self._labels["exchanges"]), 0) :]
        return sum(isinstance(label, str) and label.startswith(OTHERS) for label in tail)

    @property
    def under_water(self) -> NDArray[np.bool_]:
        """Which accounts are below health 1 before any shock; ``others@`` is never called."""
        below = self.book.health() < 1 - HEALTH_TOL
        below[len(below) - self.derived("accounts") :] = False
        return below

    def __repr__(self) -> str:
        from netcontagion.network._display import text

        return text(self)

    def _repr_html_(self) -> str:
        from netcontagion.network._display import html

        return html(self)


def _text_bytes(labels: NDArray[Any]) -> bytes:
    names = labels.tolist()
    return "\n".join(names if all(type(name) is str for name in names) else map(repr, names)).encode()


def _word_bytes(words: NDArray[Any]) -> bytes:
    """Bytes of a column of few different words: each once, then their codes."""
    import pandas as pd

    codes, distinct = pd.factorize(words)
    return _text_bytes(np.asarray(distinct, dtype=object)) + codes.astype(np.int32).tobytes()
