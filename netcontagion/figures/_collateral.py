"""A map of exposure: collateral and contracts in three layers, from assets over exchanges to accounts."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from netcontagion.figures._flows import Flows
from netcontagion.figures._folds import Fold, fold, folded_layer, folded_links, largest, names_of, sums, thin
from netcontagion.figures._notes import (
    RESIDUAL,
    assumption_note,
    empty_note,
    floor_percent,
    liability_note,
    run_notes,
    supply_note,
    title,
)

if TYPE_CHECKING:
    from netcontagion.figures._flows import Bools, Floats, Layer, Links, Room

__all__ = ["account_flows"]

DEBT_EDGES = (1.1, 1.25, 1.5, 2.0)  # health, of loans
MARGIN_EDGES = (1.1, 1.5, 2.0, 5.0, 20.0)  # where there are contracts: margin is a small part of what is held
AT_RISK = 1.1
NAMED_UP_TO = 100_000  # above this many accounts a single one says little: cohorts only
NAMED = 8


class Exposure(NamedTuple):
    """Exposure in money by balance and position (``value``) and by account (``owned``), without residual suppliers'.

    That of a balance is its deposit at the mark, that of a position its notional, long or short.
    """

    account: Any
    asset: Any
    exchange: Any
    value: Floats
    owned: Floats
    residual: Bools
    supply: float  # of the residual suppliers
    contracts: bool


def account_flows(network: Any, result: Any, room: Room) -> Flows | None:
    """Read where exposure lies and which part of it is in distress; None where there is none."""
    held = _read(network)
    if held is None:
        return None
    health = np.asarray(network.health(), dtype=float)
    hit = _distressed(result, health) & ~held.residual
    total, lost = float(held.owned.sum()), float(np.where(hit, held.owned, 0.0).sum())
    layers, links, by_exchange = _fold_up(network, result, held, health, hit, room)
    kept, share = thin(links, total, room.links)
    names = network.labels
    notes = (
        *run_notes(result),
        f"links drawn carry {floor_percent(share)} of exposure",
        *empty_note(names("exchanges"), by_exchange),
        *supply_note(names("accounts"), held.residual, held.supply, network.numeraire),
        *liability_note(network),
        *assumption_note(result),
    )
    plain, what = result is None, "collateral and notional" if held.contracts else "collateral"
    return Flows(
        layers=layers,
        links=kept,
        unit=network.numeraire,
        amount_name=what,
        hit_name="in liquidated accounts",
        hit_word="at risk" if plain else "hit",
        share_name=f"share of {what} in {'accounts below health 1.1' if plain else 'liquidated accounts'}",
        mark_name="liquidated, in default" if _any(_exchange_defaulted(result)) else "liquidated",
        red=not plain,
        shaded=True,
        title=title(result, lost / total, what),
        notes=notes,
    )


def _read(network: Any) -> Exposure | None:
    """Read balances and positions as money; None where there are none but those of residual suppliers."""
    labels, tables = network.labels("accounts"), [network.columns(name) for name in ("balances", "positions")]
    account, asset = (np.concatenate([table[key] for table in tables]) for key in ("account", "asset"))
    if not len(account):
        return None
    deposits = np.asarray(tables[0]["deposited"], dtype=float) * np.asarray(network.book.balance_mark, dtype=float)
    value = np.concatenate([deposits, network.book.notional()])
    residual, supply = _is_residual(labels), 0.0
    if residual.any():
        outside = residual[account]
        supply = float(value[outside].sum())
        value[outside] = 0.0
    owned = sums(account, value, len(labels))
    if not owned.sum() > 0:
        return None
    exchange = np.asarray(network.columns("accounts")["exchange"])
    return Exposure(account, asset, exchange, value, owned, residual, supply, bool(len(tables[1]["account"])))


def _fold_up(
    network: Any, result: Any, held: Exposure, health: Floats, hit: Bools, room: Room
) -> tuple[tuple[Layer, ...], tuple[Links, ...], Floats]:
    """Add exposure up into boxes and ribbons; return the layers, the links, and the exposure of every exchange."""
    labels = {table: network.labels(table) for table in ("assets", "exchanges", "accounts")}
    value, owned, hit_value = held.value, held.owned, held.value * hit[held.account]
    hit_owned = np.where(hit, owned, 0.0)
    by_asset, hit_by_asset = (sums(held.asset, v, len(labels["assets"])) for v in (value, hit_value))
    by_exchange, hit_by_exchange = (sums(held.exchange, v, len(labels["exchanges"])) for v in (owned, hit_owned))
    assets = fold(labels["assets"], by_asset, hit_by_asset, room.left)
    exchanges = fold(labels["exchanges"], by_exchange, hit_by_exchange, room.middle)
    rank = owned if result is None else _column(result.accounts, "loss", owned)
    groups, details, cohorts = _group_accounts(labels["accounts"], held, health, rank, room)
    layers = (
        folded_layer("assets", assets, by_asset, hit_by_asset),
        folded_layer("exchanges", exchanges, by_exchange, hit_by_exchange, marked=_exchange_defaulted(result)),
        folded_layer(
            _account_title(result, cohorts),
            groups,
            owned,
            hit_owned,
            marked=None if result is None else hit,
            details=details,
        ),
    )
    venue = exchanges.box[held.exchange]
    links = (
        folded_links(assets.box[held.asset], venue[held.account], value, hit_value, len(exchanges.names)),
        folded_links(venue, groups.box, owned, hit_owned, len(groups.names)),
    )
    return layers, links, by_exchange


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
    labels: Any, held: Exposure, health: Floats, rank: Floats, room: Room
) -> tuple[Fold, tuple[str, ...], bool]:
    """Give every account its box: its own, one of the few that lose most, or its cohort by health."""
    box = np.full(len(held.owned), -1, dtype=np.intp)
    holders = held.owned > 0
    count = int(np.count_nonzero(holders))
    if count <= room.right:
        single = np.flatnonzero(holders)
        box[single] = np.arange(count)
        return Fold(box, names_of(labels, single), np.zeros(count, dtype=np.intp)), ("",) * count, False

    top = room.top if room.top is not None else (NAMED if count <= NAMED_UP_TO else 0)
    edges = MARGIN_EDGES if held.contracts else DEBT_EDGES
    cohorts = _cohort_names(edges, held.contracts)
    spare = room.right - 2 * len(cohorts)
    named = largest(np.where(holders, rank, 0.0), max(min(top, spare), min(top, 3)))
    cohort = np.searchsorted(edges, health, side="right")
    cohort[~np.isfinite(health)] = len(edges) + 1
    free = holders
    free[named] = False
    sizes = np.bincount(cohort[free], minlength=len(cohorts))
    used = np.flatnonzero(sizes)
    place = np.full(len(cohorts), -1, dtype=np.intp)
    place[used] = len(named) + np.arange(len(used))
    box[free] = place[cohort[free]]
    box[named] = np.arange(len(named))
    names = names_of(labels, named) + tuple(cohorts[i] for i in used)
    details = ("",) * len(named) + tuple(f"{n:,} account{'s' if n > 1 else ''}" for n in sizes[used])
    return Fold(box, names, np.arange(1, len(names) + 1, dtype=np.intp)), details, True


def _cohort_names(edges: tuple[float, ...], contracts: bool) -> tuple[str, ...]:
    between = (f"{low:g} to {high:g}" for low, high in pairwise(edges))
    nothing = "no debt, no contract" if contracts else "no debt"
    return (f"health < {edges[0]:g}", *between, f"health ≥ {edges[-1]:g}", nothing)
