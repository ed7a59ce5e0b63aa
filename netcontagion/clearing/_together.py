"""Many shocks to one network cleared side by side, where what nodes owe is the same in all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from netcontagion._compile import in_threads, kernel
from netcontagion.clearing._eisenberg_noe import clear_scenarios, eisenberg_noe, prepare
from netcontagion.clearing._estate import Owned, changed_assets, estate_of, external_liabilities, obligations
from netcontagion.clearing._scenario_assets import NO_CHANGES, ScenarioAssets
from netcontagion.clearing._scenarios import ShortfallValues

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from netcontagion._status import Status
    from netcontagion.clearing._estate import Estate
    from netcontagion.clearing._result import ClearingResult
    from netcontagion.clearing._system import Floats, Prepared
    from netcontagion.network import ExposureNetwork, Shock

__all__ = ["Together", "clear_together"]

PIECE = 64  # scenarios that a processor adds up at a time


class Together(NamedTuple):
    """Scenarios cleared side by side: by scenario (s,), and by node (n,) summed over those that settled.

    ``node_loss`` is weighted; money in the numeraire.
    """

    statuses: tuple[Status, ...]
    rounds: NDArray[np.int64]
    shortfall: Floats
    direct: Floats
    contagion: Floats
    defaults: NDArray[np.int64]
    node_loss: Floats
    node_defaults: NDArray[np.int64]


class _Calm(NamedTuple):
    """The network without any shock."""

    estate: Estate
    owned: Owned
    prepared: Prepared
    result: ClearingResult


def clear_together(net: ExposureNetwork, shocks: Sequence[Shock], weights: Floats, **options: Any) -> Together | None:
    """Clear scenarios of one network by Eisenberg and Noe, as :func:`clear` does one by one, and add them up.

    Parameters
    ----------
    net : ExposureNetwork
        The network before the shocks.
    shocks : sequence of Shock
        s of them; none is a path.
    weights : ndarray (s,)
        Weight of each scenario in the losses by node.
    **options
        Those of :func:`eisenberg_noe`.

    Returns
    -------
    Together or None
        Nodes are those of ``net.nodes``. None where a shock changes what nodes owe each other.

    Raises
    ------
    ValueError, ContagionError
        What a shock does to the network is not possible, or an option is not.

    Examples
    --------
    >>> import numpy as np
    >>> import netcontagion as nc
    >>> net = nc.builders.from_matrix([[0, 8], [0, 0]], rows="debtor", external_assets=[9, 1], labels=["a", "b"])
    >>> shocks = [nc.Shock.loss({"a": loss}) for loss in (1.0, 3.0)]
    >>> nc.clearing.clear_together(net, shocks, np.ones(2)).contagion.tolist()
    [0.0, 2.0]
    """
    options = {name: value for name, value in options.items() if name != "strict"}
    calm = _calm(net, options)
    given = None if calm is None else _assets_of(net, shocks, calm)
    if calm is None or given is None:
        return None
    result = clear_scenarios(calm.prepared, given, **options)
    settled = np.array([status.settled for status in result.statuses])
    values: Any = result.values
    by_push = isinstance(values, ShortfallValues) and not values.alone
    add_up = _of_shortfalls if by_push else _of_values
    sums = add_up(calm, result, given, np.where(settled, weights, 0.0), settled)
    return Together(result.statuses, np.asarray(result.iterations), *sums)


def _assets_of(net: ExposureNetwork, shocks: Sequence[Shock], calm: _Calm) -> ScenarioAssets | None:
    """Return what everybody has in every scenario; None where a shock changes what nodes owe each other."""
    changes = changed_assets(net, shocks, calm.owned)
    if changes is not None:
        return ScenarioAssets(calm.estate.assets[None], changes, len(shocks))
    rows, due = np.empty((len(shocks), len(calm.estate.assets))), calm.estate.account_equity
    for row, shock in zip(rows, shocks, strict=True):
        estate = estate_of(net, shock, calm.estate, calm.owned)
        if estate.account_equity is not due and not np.array_equal(estate.account_equity, due):
            return None
        row[:] = estate.assets
    return ScenarioAssets(rows, NO_CHANGES, len(shocks))


def _calm(net: ExposureNetwork, options: dict[str, Any]) -> _Calm | None:
    """Clear the network without a shock, once per network and options; None with debt of several seniorities."""
    from netcontagion.network import Shock as Event

    key = f"_cleared_calm {sorted(options.items())}"
    if key not in net.__dict__ and len(np.unique(net.columns("liabilities")["seniority"])) > 1:
        net.__dict__[key] = None
    if key not in net.__dict__:
        estate = estate_of(net, Event())
        owed = obligations(net, estate.account_equity)
        rank = options.get("external_rank", "pari_passu")
        prepared = prepare(owed, external_liabilities(net), external_rank=rank)
        result = eisenberg_noe(prepared, estate.assets, strict=False, **options)
        net.__dict__[key] = _Calm(estate, Owned.of(net, net.columns("assets")["price"]), prepared, result)
    found: _Calm | None = net.__dict__[key]
    return found


def _of_shortfalls(
    calm: _Calm, result: ClearingResult, given: ScenarioAssets, weights: Floats, settled: Any
) -> tuple[Any, ...]:
    """Add up scenarios known by their shortfalls: work follows the defaulters, and no array (n, s) is made."""
    values: Any = result.values
    short, prepared = values.short.near, calm.prepared
    found_calm: Any = calm.result.values
    by_push = isinstance(found_calm, ShortfallValues) and not found_calm.alone
    before = found_calm.short.near.toarray()[:, 0] if by_push else prepared.dues - found_calm.payments

    def add_up(first: int, last: int) -> tuple[Any, ...]:
        chosen = slice(first, last)
        found: tuple[Any, ...] = add_up_shortfalls(
            *given.block(first, last), calm.estate.assets, found_calm.net_worth, before, prepared.dues,
            prepared.owed.indptr, prepared.owed.indices, prepared.owed.data,
            short.indptr[first : last + 1], short.indices, short.data, result.tolerance,
            weights[chosen], settled[chosen],
        )  # fmt: skip
        return found

    pieces = [(first, min(first + PIECE, given.count)) for first in range(0, given.count, PIECE)]
    *by_scenario, losses, failed = zip(*in_threads(add_up, pieces), strict=True)
    return (*map(np.concatenate, by_scenario), np.sum(losses, axis=0), np.sum(failed, axis=0))


def _of_values(
    calm: _Calm, result: ClearingResult, given: ScenarioAssets, weights: Floats, settled: Any
) -> tuple[Any, ...]:
    """Add up scenarios of which some were solved in full."""
    worth = calm.result.values.net_worth[:, None]
    shocked = np.maximum(worth + (given.table - calm.estate.assets[:, None]), 0.0)
    direct = np.maximum(worth, 0.0) - shocked
    contagion = shocked - np.maximum(result.values.net_worth, 0.0)
    failed = result.values.defaulted(result.tolerance)
    return (
        result.values.shortfall.sum(axis=0),
        direct.sum(axis=0),
        contagion.sum(axis=0),
        failed.sum(axis=0),
        (direct + contagion) @ weights,
        failed[:, settled].sum(axis=1),
    )


@kernel
def lost(worth: float, taken: float, received: float) -> tuple[float, float]:
    """Return what a node loses by the shock, and by the others after it, down to nothing."""
    shocked = worth + taken
    left = max(shocked, 0.0)
    return max(worth, 0.0) - left, left - max(shocked + received, 0.0)


@kernel
def add_up_shortfalls(
    rows: Any, firsts: Any, changed: Any, changes: Any, assets: Any, worth: Any, before: Any, dues: Any, starts: Any,
    creditors: Any, amounts: Any, begins: Any, nodes: Any, values: Any, tolerance: float, weights: Any, settled: Any,
) -> tuple[Any, ...]:  # fmt: skip
    """Add up by scenario and by node what is lost, when receipts fall by what debtors leave unpaid of each claim.

    External assets are ``rows`` (s, n), or ``changes`` at ``changed`` nodes of the only row, from ``firsts`` on;
    ``assets`` and ``worth`` are those without a shock and the net worth they make, ``before`` what is unpaid without
    one. Claims are csr arrays, shortfalls csc arrays. Of the only row, work follows what a scenario changes.
    """
    scenarios, size, together = len(weights), len(dues), len(firsts) > 0
    shortfall, direct, contagion = np.zeros(scenarios), np.zeros(scenarios), np.zeros(scenarios)
    defaults, node_defaults = np.zeros(scenarios, np.int64), np.zeros(size, np.int64)
    node_loss, short, receipts, taken = np.zeros(size), np.zeros(size), np.zeros(size), np.zeros(size)
    calm_short, listed = np.flatnonzero(before), np.zeros(size, np.bool_)
    touched = np.empty(size, np.int64)
    for scenario in range(scenarios):
        count = 0
        if together:
            for place in range(firsts[scenario], firsts[scenario + 1]):
                node = changed[place]
                taken[node] = changes[place] - assets[node]
                touched[count], listed[node] = node, True
                count += 1
        else:
            taken[:] = rows[scenario] - assets
        for place in range(begins[scenario], begins[scenario + 1]):
            node, value = nodes[place], values[place]
            short[node] = value
            shortfall[scenario] += value
            if value > tolerance * dues[node]:
                defaults[scenario] += 1
                node_defaults[node] += settled[scenario]
        owing = begins[scenario + 1] - begins[scenario]
        for turn in range(owing + len(calm_short)):
            debtor = nodes[begins[scenario] + turn] if turn < owing else calm_short[turn - owing]
            if turn >= owing and short[debtor] > 0.0:
                continue  # had its turn
            more = short[debtor] - before[debtor]
            if more != 0.0:
                share, first, last = more / dues[debtor], np.uintp(starts[debtor]), np.uintp(starts[debtor + 1])
                for claim in range(first, last):
                    receipts[np.uintp(creditors[claim])] -= share * amounts[claim]
                for claim in range(first, last if together else first):
                    node = creditors[claim]
                    if not listed[node]:
                        touched[count], listed[node] = node, True
                        count += 1
        for place in range(begins[scenario], begins[scenario + 1]):
            short[nodes[place]] = 0.0
        weight, by_shock, by_others = weights[scenario], 0.0, 0.0
        if together:
            for node in np.sort(touched[:count]):
                at_once, after = lost(worth[node], taken[node], receipts[node])
                by_shock, by_others = by_shock + at_once, by_others + after
                node_loss[node] += weight * (at_once + after)
                receipts[node], taken[node], listed[node] = 0.0, 0.0, False
        else:
            for node in range(size):
                at_once, after = lost(worth[node], taken[node], receipts[node])
                by_shock, by_others = by_shock + at_once, by_others + after
                node_loss[node] += weight * (at_once + after)
            receipts[:] = 0.0
        direct[scenario], contagion[scenario] = by_shock, by_others
    return shortfall, direct, contagion, defaults, node_loss, node_defaults
