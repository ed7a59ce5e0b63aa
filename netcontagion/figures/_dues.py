"""A map of who owes whom: two layers, from debtors to creditors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion.errors import ContagionError
from netcontagion.figures._flows import Flows
from netcontagion.figures._folds import fold, folded_layer, folded_links, sums, thin
from netcontagion.figures._labels import percent
from netcontagion.figures._notes import floor_percent, run_notes

if TYPE_CHECKING:
    from netcontagion.figures._flows import Bools, Codes, Floats, Room

__all__ = ["clearing_flows", "liability_flows"]


def liability_flows(network: Any, room: Room) -> Flows | None:
    table = network.columns("liabilities")
    due = np.asarray(table["amount"], dtype=float)
    debtor, creditor = np.asarray(table["debtor"]), np.asarray(table["creditor"])
    return _due_flows(
        network.nodes,
        debtor,
        creditor,
        due,
        room,
        unpaid=np.zeros_like(due),
        defaulted=None,
        unit=network.numeraire,
        notes=("before any shock",),
    )


def clearing_flows(result: Any, room: Room) -> Flows:
    labels = _labels_of(result)
    paid = result.payment_matrix().tocoo()
    debtor, creditor, due, missing = _dues(result, paid, len(labels))
    settled = np.zeros(len(due))
    matched = _match(debtor * len(labels) + creditor, paid.row.astype(np.intp) * len(labels) + paid.col)
    np.add.at(settled, matched[0], paid.data[matched[1]])
    unpaid = np.clip(due - settled, 0.0, due)
    unpaid[unpaid <= 1e-9 * due] = 0.0
    notes = (*run_notes(result), *missing)
    unit = str(getattr(getattr(result, "network", None), "numeraire", getattr(result, "numeraire", "")))
    defaulted = np.asarray(result.defaulted, dtype=bool)
    flows = _due_flows(labels, debtor, creditor, due, room, unpaid=unpaid, defaulted=defaulted, unit=unit, notes=notes)
    if flows is None:
        message = "nothing to draw: no node owes another one anything"
        raise ContagionError(message)
    return flows


def _labels_of(result: Any) -> Any:
    import pandas as pd

    return pd.RangeIndex(len(result.defaulted), name="node") if result.labels is None else result.labels


def _dues(result: Any, paid: Any, count: int) -> tuple[Codes, Codes, Floats, tuple[str, ...]]:
    """Find what nodes owe each other: from the network, from a matrix of dues, or from payments and their rate."""
    owing: Any = getattr(result, "liabilities", None)
    if hasattr(owing, "tocoo"):
        entries = owing.tocoo()
        return entries.row.astype(np.intp), entries.col.astype(np.intp), np.asarray(entries.data, dtype=float), ()
    network = getattr(result, "network", None)
    if network is not None and len(network.nodes) == count:
        table = network.columns("liabilities")
        pairs = np.asarray(table["debtor"], dtype=np.intp) * count + np.asarray(table["creditor"], dtype=np.intp)
        keys, where = np.unique(pairs, return_inverse=True)
        return keys // count, keys % count, sums(where, np.asarray(table["amount"], dtype=float), len(keys)), ()
    if hasattr(result.dues, "tocoo"):
        dues = result.dues.tocoo()
        return dues.row.astype(np.intp), dues.col.astype(np.intp), np.asarray(dues.data, dtype=float), ()
    owed = np.asarray(result.dues, dtype=float)
    payments = np.asarray(getattr(result, "payments", sums(paid.row, paid.data, count)), dtype=float)
    rate = np.divide(payments, owed, out=np.ones(count), where=owed > 0)
    known = rate[paid.row] > 0
    row, col = paid.row[known].astype(np.intp), paid.col[known].astype(np.intp)
    silent = int(np.count_nonzero((rate <= 0) & (owed > 0)))
    which = "node that pays nothing is" if silent == 1 else "nodes that pay nothing are"
    missing = (f"{silent:,} {which} not drawn",) if silent else ()
    return row, col, paid.data[known] / rate[row], missing


def _match(keys: Codes, wanted: Codes) -> tuple[Codes, Codes]:
    """Positions in ``keys`` of those ``wanted`` that occur there, and which of them these are."""
    order = np.argsort(keys, kind="stable")
    at = np.searchsorted(keys[order], wanted)
    found = np.flatnonzero(at < len(keys))
    found = found[keys[order][at[found]] == wanted[found]]
    return order[at[found]], found


def _due_flows(
    labels: Any,
    debtor: Codes,
    creditor: Codes,
    due: Floats,
    room: Room,
    *,
    unpaid: Floats,
    defaulted: Bools | None,
    unit: str,
    notes: tuple[str, ...],
) -> Flows | None:
    total = float(due.sum())
    if not total > 0:
        return None
    count = len(labels)
    owes, fails = sums(debtor, due, count), sums(debtor, unpaid, count)
    owns, loses = sums(creditor, due, count), sums(creditor, unpaid, count)
    left, right = fold(labels, owes, fails, room.left), fold(labels, owns, loses, room.right)
    links = folded_links(left.box[debtor], right.box[creditor], due, unpaid, len(right.names))
    kept, share = thin((links,), total, room.links)
    solved = defaulted is not None
    layers = (
        folded_layer("debtors", left, owes, fails, marked=defaulted),
        folded_layer("creditors", right, owns, loses, marked=defaulted),
    )
    lost = float(unpaid.sum()) / total
    return Flows(
        layers=layers,
        links=kept,
        unit=unit,
        amount_name="due",
        hit_name="unpaid",
        hit_word="unpaid" if solved else "",
        share_name="share of dues unpaid",
        mark_name="in default",
        red=solved,
        shaded=solved,
        title=f"{percent(lost)} of dues unpaid" if solved else "who owes whom",
        notes=(*notes, f"links drawn carry {floor_percent(share)} of dues"),
    )
