"""The event log: append-only, every event with the event that caused it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from netcontagion.margining._state import State
    from netcontagion.network import ExposureNetwork

__all__ = ["TYPES", "Events"]

TYPES = (
    "shock",
    "call",
    "top_up",
    "withdrawal",
    "liquidation",
    "sale",
    "purchase",
    "deficit",
    "insurance_fund",
    "equity",
    "suppliers",
    "uncovered",
)
_CODE = {name: code for code, name in enumerate(TYPES)}
_COLUMNS = ("round", "type", "account", "exchange", "asset", "quantity", "cash", "debit", "credit", "parent")
_TOTALS = ("sold", "bought", "repaid", "deficit", "insurance_fund", "equity", "suppliers", "uncovered")
_LIQUIDATORS, _MARKET = -3, -2  # debit and credit nodes, counted from the end of the bearers


@dataclass(eq=False)
class Events:
    """Collects events as chunks of columns; event 0 is the shock."""

    chunks: list[dict[str, NDArray[Any]]] = field(default_factory=list)
    size: int = 1
    number: int = 0
    call_of: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    counts: dict[str, int] = field(default_factory=dict)
    sums: dict[str, float] = field(default_factory=dict)
    by_exchange: dict[tuple[str, int], float] = field(default_factory=dict)
    last_deficit: dict[int, int] = field(default_factory=dict)

    def open_round(self, number: int) -> None:
        """Start the counts of a round."""
        self.number, self.counts, self.sums = number, {}, dict.fromkeys(_TOTALS, 0.0)

    def count(self, kind: str) -> int:
        """Events of a type in this round."""
        return self.counts.get(kind, 0)

    def totals(self) -> dict[str, float]:
        """Money by channel in this round."""
        return dict(self.sums)

    def _add(self, kind: str, size: int, **columns: Any) -> NDArray[np.int64]:
        ids = np.arange(self.size, self.size + size, dtype=np.int64)
        if size:
            chunk = {"round": self.number, "type": _CODE[kind], "account": -1, "exchange": -1, "asset": -1}
            chunk |= {"quantity": np.nan, "cash": np.nan, "debit": -9, "credit": -9, "parent": 0} | columns
            self.chunks.append({name: np.broadcast_to(np.asarray(chunk[name]), (size,)) for name in _COLUMNS})
            self.size += size
            self.counts[kind] = self.counts.get(kind, 0) + size
        return ids

    def add_calls(self, accounts: NDArray[np.int64], health: NDArray[np.float64], parent: NDArray[np.int64]) -> None:
        """Record first margin calls; ``quantity`` is the health."""
        ids = self._add("call", len(accounts), account=accounts, quantity=health, parent=parent)
        self.call_of[accounts] = ids

    def add_moves(self, state: State, log: NDArray[np.float64], marks: NDArray[np.float64]) -> None:
        """Record what moved into called accounts, from wallets and from own accounts."""
        account, entry = log[:, 0].astype(np.int64), log[:, 1].astype(np.int64)
        market, trader = state.entries.market[entry], state.accounts.trader[account]
        units = log[:, 3] + log[:, 4]
        for kind, rows in (("top_up", log[:, 2] < 0), ("withdrawal", log[:, 2] >= 0)):
            self._add(
                kind,
                int(rows.sum()),
                **_place(state, account[rows], market[rows]),
                quantity=units[rows],
                cash=(units * marks[market])[rows],
                debit=trader[rows],
                credit=trader[rows],
                parent=self.call_of[account[rows]],
            )

    def add_pairs(self, state: State, pairs: NDArray[np.float64], last_fall: NDArray[np.int64]) -> None:
        """Record liquidations at a fixed spread with their sale and purchase; note the sales in ``last_fall``."""
        account, debt, collateral = (pairs[:, column].astype(np.int64) for column in range(3))
        paid, seized, fee, cost, proceeds, value = pairs[:, 3:].T
        market_c, market_d = state.entries.market[collateral], state.entries.market[debt]
        same = state.markets.book[market_c] == state.markets.book[market_d]
        sold = _place(state, account, market_c)
        ids = self._add(
            "liquidation",
            len(pairs),
            **sold,
            quantity=seized,
            cash=value,
            debit=_LIQUIDATORS,
            credit=state.n_traders + sold["exchange"],
            parent=self.call_of[account],
        )
        sales = self._add(
            "sale",
            len(pairs),
            **sold,
            quantity=seized - fee - np.where(same, paid, 0.0),
            cash=proceeds,
            debit=_MARKET,
            credit=_LIQUIDATORS,
            parent=ids,
        )
        rows = ~same
        self._add(
            "purchase",
            int(rows.sum()),
            **_place(state, account[rows], market_d[rows]),
            quantity=paid[rows],
            cash=cost[rows],
            debit=_LIQUIDATORS,
            credit=_MARKET,
            parent=ids[rows],
        )
        last_fall[state.markets.book[market_c]] = sales
        self.sums["repaid"] += float(value.sum())
        self.sums["sold"] += float(proceeds.sum())
        self.sums["bought"] += float(cost.sum())

    def add_fills(
        self, state: State, fills: NDArray[np.float64], repaid: NDArray[np.float64], last_fall: NDArray[np.int64]
    ) -> None:
        """Record sales and purchases of whole accounts, and what they repaid; note the sales in ``last_fall``."""
        account, market = fills[:, 0].astype(np.int64), state.entries.market[fills[:, 1].astype(np.int64)]
        for kind, rows, total in (("sale", fills[:, 2] == 0, "sold"), ("purchase", fills[:, 2] == 1, "bought")):
            place = _place(state, account[rows], market[rows])
            bank = state.n_traders + place["exchange"]
            ids = self._add(
                kind,
                int(rows.sum()),
                **place,
                quantity=fills[rows, 3],
                cash=fills[rows, 4],
                debit=_MARKET if kind == "sale" else bank,
                credit=bank if kind == "sale" else _MARKET,
                parent=self.call_of[account[rows]],
            )
            self.sums[total] += float(fills[rows, 4].sum())
            if kind == "sale":
                last_fall[state.markets.book[market[rows]]] = ids
        self.sums["repaid"] += float(repaid.sum())

    def add_deficits(self, state: State, log: NDArray[np.float64], value: NDArray[np.float64]) -> None:
        """Record debt that no collateral stands behind any more."""
        account, entry = log[:, 0].astype(np.int64), log[:, 1].astype(np.int64)
        place = _place(state, account, state.entries.market[entry])
        ids = self._add(
            "deficit",
            len(log),
            **place,
            quantity=log[:, 2],
            cash=value,
            debit=state.n_traders + place["exchange"],
            credit=state.accounts.trader[account],
            parent=self.call_of[account],
        )
        self.sums["deficit"] += float(value.sum())
        for row, exchange in enumerate(place["exchange"].tolist()):
            self.last_deficit[exchange] = int(ids[row])
            self._tally("deficit", exchange, float(value[row]))

    def add_layer(self, kind: str, exchange: int, asset: int, units: float, *, paid: float, value: float) -> None:
        """Record what one layer of a waterfall paid for the units, and their value at the mark: what it bore."""
        parent = self.last_deficit.get(exchange, 0)
        self._add(kind, 1, exchange=exchange, asset=asset, quantity=units, cash=paid, parent=parent)
        self.sums[kind] += value
        self._tally(kind, exchange, value)

    def _tally(self, kind: str, exchange: int, value: float) -> None:
        self.by_exchange[kind, exchange] = self.by_exchange.get((kind, exchange), 0.0) + value

    # tables -------------------------------------------------------------------------------------------------------

    def columns(self) -> dict[str, NDArray[Any]]:
        """All events as arrays, the shock first."""
        first = {"round": -1, "type": 0, "account": -1, "exchange": -1, "asset": -1, "quantity": np.nan}
        first |= {"cash": np.nan, "debit": -9, "credit": -9, "parent": -1}
        return {name: np.concatenate([[first[name]], *(chunk[name] for chunk in self.chunks)]) for name in _COLUMNS}

    def table(self, net: ExposureNetwork, bearers: pd.Index) -> pd.DataFrame:
        """Return the log as a DataFrame indexed by event."""
        import pandas as pd

        found = self.columns()
        labels = {kind: net.labels(f"{kind}s") for kind in ("account", "exchange", "asset")}

        def named(codes: NDArray[Any], categories: pd.Index) -> pd.Categorical:
            return pd.Categorical.from_codes(codes.astype(np.int64), categories=categories)

        ends = {
            side: np.where(found[side] == -9, -1, np.where(found[side] < -1, len(bearers) + found[side], found[side]))
            for side in ("debit", "credit")
        }
        with np.errstate(invalid="ignore", divide="ignore"):
            price = np.where(found["quantity"] != 0, found["cash"] / found["quantity"], np.nan)
        table = pd.DataFrame(
            {
                "round": found["round"].astype(np.int64),
                "type": named(found["type"], pd.Index(TYPES)),
                **{kind: named(found[kind], labels[kind]) for kind in labels},
                "quantity": found["quantity"],
                "price": price,
                "cash": found["cash"],
                "debit": named(ends["debit"], bearers),
                "credit": named(ends["credit"], bearers),
                "parent": found["parent"].astype(np.int64),
            }
        )
        table.index.name = "event"
        return table


def _place(state: State, account: NDArray[np.int64], market: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Columns that say where something happened: accounts, their exchanges, and the assets of these markets."""
    venue, asset = state.accounts.exchange[account], state.markets.asset[market]
    return {"account": account, "exchange": venue, "asset": asset}
