"""What a map shows, read once from a network or a result into plain arrays.

This is the only module of the map that knows networks and results. Millions of accounts are added up with
``np.bincount`` into a few boxes per layer; nothing here loops over accounts, and nothing here draws.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from netcontagion.errors import ContagionError
from netcontagion.figures._labels import money, percent

__all__ = ["Flows", "Layer", "Links", "Room", "read_flows"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Codes = NDArray[np.intp]

HEALTH_EDGES = (1.1, 1.25, 1.5, 2.0)
HEALTH_NAMES = ("health < 1.1", "1.1 to 1.25", "1.25 to 1.5", "1.5 to 2", "health ≥ 2", "no debt")
AT_RISK = 1.1
NAMED_UP_TO = 100_000  # above this many accounts a single one says little: cohorts only
NAMED = 8
SMALLEST_LINK = 1e-3  # share of the total below which a ribbon is left out
RESIDUAL = "others@"


class Room(NamedTuple):
    """How much the sheet holds: boxes per layer, links in all, named accounts (None: by the number of accounts)."""

    left: int
    middle: int
    right: int
    links: int
    top: int | None


@dataclass(frozen=True, eq=False)
class Layer:
    """One column of boxes, in the order they are drawn unless reordered; ``hit`` is the distressed part of ``amount``.

    ``marked`` boxes are hatched. ``pinned`` boxes keep their order: those of rank below 0 come first, above 0 last.
    """

    title: str
    names: tuple[str, ...]
    details: tuple[str, ...]
    amount: Floats
    hit: Floats
    marked: Bools
    pinned: Codes

    @property
    def share(self) -> Floats:
        """Distressed share of each box; 0 where the box is empty."""
        return np.divide(self.hit, self.amount, out=np.zeros_like(self.hit), where=self.amount > 0)


@dataclass(frozen=True, eq=False)
class Links:
    """Ribbons from boxes of one layer to boxes of the next, in money; ``hit`` never exceeds ``amount``."""

    source: Codes
    target: Codes
    amount: Floats
    hit: Floats


@dataclass(frozen=True, eq=False)
class Flows:
    """A layered map as plain arrays and words: all that the drawing code gets to see."""

    layers: tuple[Layer, ...]
    links: tuple[Links, ...]
    unit: str
    amount_name: str  # what a grey ribbon is
    hit_name: str  # what its red part is
    hit_word: str  # said after a percentage beside a box
    share_name: str  # title of the colour bar
    mark_name: str  # what a hatched box is
    red: bool  # whether the red parts are drawn
    shaded: bool  # whether boxes are coloured by share
    title: str
    notes: tuple[str, ...]

    @property
    def caption(self) -> str:
        """The sentence under the figure."""
        return " | ".join(self.notes)


class Fold(NamedTuple):
    """Which box each code goes to (-1: none), and the names of the boxes."""

    box: Codes
    names: tuple[str, ...]
    pinned: Codes


def read_flows(source: Any, room: Room) -> Flows:
    """Turn a network, a cascade result or a clearing result into layers and links that fit the room.

    Raises
    ------
    TypeError
        When ``source`` is none of these.
    ContagionError
        When it holds neither collateral nor liabilities.
    """
    if hasattr(source, "payment_matrix"):
        return _clearing_flows(source, room)
    result = source if hasattr(source, "network") and hasattr(source, "accounts") else None
    network = source if result is None else result.network
    if not (hasattr(network, "labels") and hasattr(network, "columns")):
        raise TypeError(
            f"contagion_map draws an ExposureNetwork, a CascadeResult or a ClearingResult, not {type(source).__name__}"
        )
    flows = _account_flows(network, result, room)
    cleared: Any = getattr(result, "clearing", None)
    if flows is None and cleared is not None:
        return _clearing_flows(cleared, room)
    if flows is None:
        flows = _liability_flows(network, room)
    if flows is None:
        message = "nothing to draw: the network has no collateral and no liabilities; give balances or liabilities"
        raise ContagionError(message)
    return flows


# Three layers: assets -> exchanges -> accounts ------------------------------------------------------------------------


def _account_flows(network: Any, result: Any, room: Room) -> Flows | None:
    balances, accounts = network.columns("balances"), network.columns("accounts")
    account, asset = np.asarray(balances["account"]), np.asarray(balances["asset"])
    exchange = np.asarray(accounts["exchange"])
    labels = {table: network.labels(table) for table in ("assets", "exchanges", "accounts")}
    count = len(labels["accounts"])
    if not len(account):
        return None
    value = np.asarray(balances["deposited"], dtype=float) * np.asarray(network.book.balance_mark, dtype=float)
    residual = _is_residual(labels["accounts"])
    supply = 0.0
    if residual.any():
        outside = residual[account]
        supply = float(value[outside].sum())
        value[outside] = 0.0
    owned = _sums(account, value, count)
    total = float(owned.sum())
    if not total > 0:
        return None
    health = np.asarray(network.health(), dtype=float)
    hit = _distressed(result, health) & ~residual
    hit_value = value * hit[account]
    hit_owned = np.where(hit, owned, 0.0)

    by_asset, hit_by_asset = (_sums(asset, v, len(labels["assets"])) for v in (value, hit_value))
    by_exchange, hit_by_exchange = (_sums(exchange, v, len(labels["exchanges"])) for v in (owned, hit_owned))
    assets = _fold(labels["assets"], by_asset, hit_by_asset, room.left)
    exchanges = _fold(labels["exchanges"], by_exchange, hit_by_exchange, room.middle)
    rank = owned if result is None else _column(result.accounts, "loss", owned)
    groups, details, cohorts = _group_accounts(labels["accounts"], owned, health, rank, room)

    exchange_box = exchanges.box[exchange]
    first = _links(assets.box[asset], exchange_box[account], value, hit_value, len(exchanges.names))
    second = _links(exchange_box, groups.box, owned, hit_owned, len(groups.names))
    kept, share = _thin((first, second), total, room.links)
    layers = (
        _layer("assets", assets, by_asset, hit_by_asset),
        _layer("exchanges", exchanges, by_exchange, hit_by_exchange, marked=_exchange_defaulted(result)),
        _layer(
            _account_title(result, cohorts),
            groups,
            owned,
            hit_owned,
            marked=None if result is None else hit,
            details=details,
        ),
    )
    notes = (
        *_run_notes(result),
        f"links drawn carry {_floor_percent(share)} of exposure",
        *_empty_note(labels["exchanges"], by_exchange),
        *_supply_note(labels["accounts"], residual, supply, network.numeraire),
        *_liability_note(network),
        *_assumption_note(result),
    )
    return Flows(
        layers=layers,
        links=kept,
        unit=network.numeraire,
        amount_name="collateral",
        hit_name="in liquidated accounts",
        hit_word="at risk" if result is None else "hit",
        share_name="share of collateral in accounts below health 1.1"
        if result is None
        else "share of collateral in liquidated accounts",
        mark_name="liquidated" if not _any(_exchange_defaulted(result)) else "liquidated, in default",
        red=result is not None,
        shaded=True,
        title=_title(result, float(hit_owned.sum()) / total),
        notes=notes,
    )


def _is_residual(labels: Any) -> Bools:
    """Find the accounts of the residual suppliers, others@<exchange>, by comparison: a prefix is a range of texts."""
    names = labels.to_numpy()
    if names.dtype.kind in "iuf":
        return np.zeros(len(names), dtype=bool)
    try:
        return np.asarray((names >= RESIDUAL) & (names < RESIDUAL[:-1] + chr(ord(RESIDUAL[-1]) + 1)), dtype=bool)
    except TypeError:  # labels of several kinds
        return np.array([str(name).startswith(RESIDUAL) for name in names], dtype=bool)


def _distressed(result: Any, health: Floats) -> Bools:
    """Liquidated or forced accounts; without a result those at risk."""
    if result is None:
        return np.asarray(health < AT_RISK)
    hit = np.asarray(result.accounts["liquidated"], dtype=bool)
    if "forced" in result.accounts:
        hit = hit | np.asarray(result.accounts["forced"], dtype=bool)
    return hit


def _exchange_defaulted(result: Any) -> Bools | None:
    table = getattr(result, "exchanges", None)
    if table is None or "defaulted" not in table:
        return None
    return np.asarray(table["defaulted"], dtype=bool)


def _any(flags: Bools | None) -> bool:
    return flags is not None and bool(flags.any())


def _account_title(result: Any, cohorts: bool) -> str:
    if not cohorts:
        return "accounts"
    return "accounts by health" if result is None else "accounts by health before the shock"


def _column(table: Any, name: str, default: Floats) -> Floats:
    return np.asarray(table[name], dtype=float) if name in table else default


def _group_accounts(
    labels: Any, owned: Floats, health: Floats, rank: Floats, room: Room
) -> tuple[Fold, tuple[str, ...], bool]:
    """Give every account its box: its own, one of the few that lose most, or its cohort by health."""
    box = np.full(len(owned), -1, dtype=np.intp)
    holders = owned > 0
    count = int(np.count_nonzero(holders))
    if count <= room.right:
        single = np.flatnonzero(holders)
        box[single] = np.arange(count)
        return Fold(box, _names(labels, single), np.zeros(count, dtype=np.intp)), ("",) * count, False

    top = room.top if room.top is not None else (NAMED if count <= NAMED_UP_TO else 0)
    spare = room.right - 2 * len(HEALTH_NAMES)
    named = _largest(np.where(holders, rank, 0.0), max(min(top, spare), min(top, 3)))
    cohort = np.searchsorted(HEALTH_EDGES, health, side="right")
    cohort[~np.isfinite(health)] = len(HEALTH_EDGES) + 1
    free = holders
    free[named] = False
    sizes = np.bincount(cohort[free], minlength=len(HEALTH_NAMES))
    used = np.flatnonzero(sizes)
    place = np.full(len(HEALTH_NAMES), -1, dtype=np.intp)
    place[used] = len(named) + np.arange(len(used))
    box[free] = place[cohort[free]]
    box[named] = np.arange(len(named))
    names = _names(labels, named) + tuple(HEALTH_NAMES[i] for i in used)
    details = ("",) * len(named) + tuple(f"{n:,} account{'s' if n > 1 else ''}" for n in sizes[used])
    return Fold(box, names, np.arange(1, len(names) + 1, dtype=np.intp)), details, True


def _largest(score: Floats, count: int) -> Codes:
    """Positions of the largest positive scores, largest first."""
    count = min(count, int(np.count_nonzero(score > 0)))
    if count <= 0:
        return np.empty(0, dtype=np.intp)
    best = np.argpartition(score, len(score) - count)[len(score) - count :]
    return np.asarray(best[np.argsort(-score[best], kind="stable")], dtype=np.intp)


# Two layers: debtors -> creditors -------------------------------------------------------------------------------------


def _liability_flows(network: Any, room: Room) -> Flows | None:
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


def _clearing_flows(result: Any, room: Room) -> Flows:
    labels = _labels_of(result)
    paid = result.payment_matrix().tocoo()
    debtor, creditor, due, missing = _dues(result, paid, len(labels))
    settled = np.zeros(len(due))
    matched = _match(debtor * len(labels) + creditor, paid.row.astype(np.intp) * len(labels) + paid.col)
    np.add.at(settled, matched[0], paid.data[matched[1]])
    unpaid = np.clip(due - settled, 0.0, due)
    unpaid[unpaid <= 1e-9 * due] = 0.0
    notes = (*_run_notes(result), *missing)
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
        return keys // count, keys % count, _sums(where, np.asarray(table["amount"], dtype=float), len(keys)), ()
    if hasattr(result.dues, "tocoo"):
        dues = result.dues.tocoo()
        return dues.row.astype(np.intp), dues.col.astype(np.intp), np.asarray(dues.data, dtype=float), ()
    owed = np.asarray(result.dues, dtype=float)
    payments = np.asarray(getattr(result, "payments", _sums(paid.row, paid.data, count)), dtype=float)
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
    owes, fails = _sums(debtor, due, count), _sums(debtor, unpaid, count)
    owns, loses = _sums(creditor, due, count), _sums(creditor, unpaid, count)
    left, right = _fold(labels, owes, fails, room.left), _fold(labels, owns, loses, room.right)
    links = _links(left.box[debtor], right.box[creditor], due, unpaid, len(right.names))
    kept, share = _thin((links,), total, room.links)
    solved = defaulted is not None
    layers = (
        _layer("debtors", left, owes, fails, marked=defaulted),
        _layer("creditors", right, owns, loses, marked=defaulted),
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
        notes=(*notes, f"links drawn carry {_floor_percent(share)} of dues"),
    )


# Aggregation ----------------------------------------------------------------------------------------------------------


def _sums(codes: Any, weights: Floats, count: int = 0) -> Floats:
    """Add weights up by code."""
    return np.asarray(np.bincount(codes, weights, count), dtype=float)


def _fold(labels: Any, amount: Floats, hit: Floats, room: int) -> Fold:
    """Give the boxes that matter (by size or by distress) a place of their own and put the rest into one."""
    used = np.flatnonzero(amount > 0)
    weight = amount / amount.sum() + hit / (hit.sum() or 1.0)
    box = np.full(len(amount), -1, dtype=np.intp)
    if len(used) > room:
        keep = _largest(np.where(amount > 0, weight, 0.0), room - 1)
        box[used] = room - 1
    else:
        keep = used
    keep = keep[np.argsort(-amount[keep], kind="stable")]
    box[keep] = np.arange(len(keep))
    names, pinned = _names(labels, keep), np.zeros(len(keep), dtype=np.intp)
    if len(used) > len(keep):
        names, pinned = (*names, f"Other ({len(used) - len(keep):,})"), np.append(pinned, 1)
    return Fold(box, names, pinned)


def _names(labels: Any, codes: Codes) -> tuple[str, ...]:
    return tuple(" ".join(str(label).split()) for label in labels[codes])


def _layer(
    title: str, fold: Fold, amount: Floats, hit: Floats, *, marked: Bools | None = None, details: tuple[str, ...] = ()
) -> Layer:
    """Add a column up into its boxes; a box is hatched when all that it holds is marked."""
    count, inside = len(fold.names), fold.box >= 0
    box = fold.box[inside]
    total, part = _sums(box, amount[inside], count), _sums(box, hit[inside], count)
    members = np.bincount(box, minlength=count)
    flag = (
        np.zeros(count, dtype=bool) if marked is None else np.bincount(box[marked[inside]], minlength=count) == members
    )
    part = np.minimum(part, total)
    return Layer(title, fold.names, details or ("",) * count, total, part, flag, fold.pinned)


def _links(source: Codes, target: Codes, amount: Floats, hit: Floats, targets: int) -> Links:
    """Add up what goes from each box to each box."""
    pair = source * targets + target
    if (source < 0).any() or (target < 0).any():
        inside = (source >= 0) & (target >= 0)
        pair, amount, hit = pair[inside], amount[inside], hit[inside]
    flow, part = _sums(pair, amount), _sums(pair, hit)
    used = np.flatnonzero(flow > 0)
    return Links(used // targets, used % targets, flow[used], np.minimum(part[used], flow[used]))


def _thin(all_links: tuple[Links, ...], total: float, most: int) -> tuple[tuple[Links, ...], float]:
    """Leave out ribbons below a thousandth, and the smallest above ``most``; say what share is kept."""
    amount = np.concatenate([links.amount for links in all_links])
    floor = SMALLEST_LINK * total
    if np.count_nonzero(amount >= floor) > most:
        floor = max(floor, float(np.sort(amount)[-most]))
    kept, budget = [], most
    for links in all_links:
        chosen = np.flatnonzero((links.amount >= floor) | _only_link(links, floor))
        chosen = np.sort(chosen[np.argsort(-links.amount[chosen], kind="stable")][:budget])
        budget -= len(chosen)
        kept.append(Links(links.source[chosen], links.target[chosen], links.amount[chosen], links.hit[chosen]))
    drawn = sum(float(links.amount.sum()) for links in kept)
    return tuple(kept), drawn / float(amount.sum())


def _only_link(links: Links, floor: float) -> Bools:
    """Keep the largest ribbon of a box of which every ribbon would be left out."""
    alone = np.zeros(len(links.amount), dtype=bool)
    for end in (links.source, links.target):
        order = np.lexsort((-links.amount, end))
        first = order[np.unique(end[order], return_index=True)[1]]
        alone[first[links.amount[first] < floor]] = True
    return alone


# Words ----------------------------------------------------------------------------------------------------------------


def _title(result: Any, share: float) -> str:
    if result is None:
        return f"{percent(share)} of collateral in accounts below health 1.1"
    shock = _provenance(result).get("shock")
    head = f"{shock}: " if shock else ""
    return f"{head}{percent(share)} of collateral in liquidated accounts"


def _provenance(result: Any) -> dict[str, Any]:
    """Return what was run; ``facts`` spare the hash of the data that ``provenance`` holds."""
    return dict(getattr(result, "facts", None) or getattr(result, "provenance", None) or {})


def _run_notes(result: Any) -> tuple[str, ...]:
    """Shock, rounds, ending and seed, as far as they are known."""
    if result is None:
        return ("before any shock",)
    known = _provenance(result)
    notes = [str(known["shock"])] if known.get("shock") else []
    status = getattr(result, "status", None)
    ending = str(getattr(status, "name", status)).lower().replace("_", " ") if status is not None else ""
    rounds = known.get("rounds", len(result.rounds) if hasattr(result, "rounds") else None)
    turns = "" if rounds is None else f"{rounds} round{'' if rounds == 1 else 's'}"
    notes += [part for part in (", ".join(filter(None, (turns, ending))),) if part]
    if known.get("seed") is not None:
        notes.append(f"seed {known['seed']}")
    return tuple(notes)


def _empty_note(exchanges: Any, amount: Floats) -> tuple[str, ...]:
    empty = np.flatnonzero(~(amount > 0))
    if not len(empty):
        return ()
    what = str(exchanges[empty[0]]) if len(empty) == 1 else f"{len(empty):,} exchanges"
    return (f"{what} without collateral not drawn",)


def _supply_note(labels: Any, residual: Bools, supply: float, unit: str) -> tuple[str, ...]:
    if not supply > 0:
        return ()
    which = np.flatnonzero(residual)
    name = str(labels[which[0]]) if len(which) == 1 else f"{RESIDUAL}… ({len(which)} exchanges)"
    return (f"supply of {name}, {money(supply, unit)}, not drawn",)


def _liability_note(network: Any) -> tuple[str, ...]:
    owed = float(np.sum(np.asarray(network.columns("liabilities")["amount"], dtype=float)))
    return (f"liabilities of {money(owed, network.numeraire)} not drawn",) if owed > 0 else ()


def _assumption_note(result: Any) -> tuple[str, ...]:
    given = [text for text in getattr(result, "assumptions", ()) or () if not str(text).startswith(RESIDUAL)]
    if not given:
        return ()
    shown = [text if len(text) <= 60 else text[:59].rstrip() + "…" for text in map(str, given[:3])]
    more = f"; and {len(given) - 3} more" if len(given) > 3 else ""
    return (f"assumed: {'; '.join(shown)}{more}",)


def _floor_percent(share: float) -> str:
    """Percentage to one decimal, never rounded up to more than is drawn."""
    tenths = int(share * 1000 + 1e-6)
    return "100 %" if tenths >= 1000 else f"{tenths / 10:.1f} %"
