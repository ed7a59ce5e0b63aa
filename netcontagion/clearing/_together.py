"""Many shocks to one network cleared side by side, where what nodes owe is the same in all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.sparse import csc_array

from netcontagion.clearing._eisenberg_noe import eisenberg_noe, prepare
from netcontagion.clearing._estate import estate_of, external_liabilities, obligations
from netcontagion.clearing._scenarios import ShortfallValues

if TYPE_CHECKING:
    from collections.abc import Sequence

    from netcontagion._status import Status
    from netcontagion.clearing._estate import Estate
    from netcontagion.clearing._result import ClearingResult
    from netcontagion.clearing._system import Floats, Prepared
    from netcontagion.network import ExposureNetwork, Shock

__all__ = ["Together", "clear_together"]


class Together(NamedTuple):
    """Scenarios cleared side by side; what nodes lose and who defaults are csc arrays (n, s), in money and as marks."""

    statuses: tuple[Status, ...]
    rounds: Floats
    shortfall: Floats
    direct: Any
    contagion: Any
    defaulted: Any


class _Calm(NamedTuple):
    """The network without any shock."""

    estate: Estate
    prepared: Prepared
    result: ClearingResult


def clear_together(net: ExposureNetwork, shocks: Sequence[Shock], **options: Any) -> Together | None:
    """Clear scenarios of one network by Eisenberg and Noe, as :func:`clear` does one by one.

    Parameters
    ----------
    net : ExposureNetwork
        The network before the shocks.
    shocks : sequence of Shock
        s of them; none is a path.
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
    >>> import netcontagion as nc
    >>> net = nc.builders.from_matrix([[0, 8], [0, 0]], rows="debtor", external_assets=[9, 1], labels=["a", "b"])
    >>> shocks = [nc.Shock.loss({"a": loss}) for loss in (1.0, 3.0)]
    >>> nc.clearing.clear_together(net, shocks).contagion.toarray()[1].tolist()
    [0.0, 2.0]
    """
    options = {name: value for name, value in options.items() if name != "strict"}
    calm = _calm(net, options)
    if calm is None:
        return None
    estates = [estate_of(net, shock) for shock in shocks]
    if not all(np.array_equal(one.account_equity, calm.estate.account_equity) for one in estates):
        return None
    assets = np.column_stack([one.assets for one in estates])
    result = eisenberg_noe(calm.prepared, assets, strict=False, **options)
    fell = csc_array(assets - calm.estate.assets[:, None])
    values: Any = result.values
    by_push = isinstance(values, ShortfallValues) and not values.alone
    short, receipts = _pushed(calm, values.short.near) if by_push else _solved(calm, result, fell)
    fails = short.data > result.tolerance * calm.prepared.dues[short.indices]
    defaulted = csc_array((fails, short.indices, short.indptr), shape=short.shape)
    direct = _lost(calm, fell)
    return Together(
        statuses=result.statuses,
        rounds=np.asarray(result.iterations),
        shortfall=np.asarray(short.sum(axis=0)),
        direct=direct,
        contagion=csc_array(_lost(calm, fell + receipts) - direct),
        defaulted=defaulted,
    )


def _calm(net: ExposureNetwork, options: dict[str, Any]) -> _Calm | None:
    """Clear the network without a shock, once per network and options; None with debt of several seniorities."""
    from netcontagion.network import Shock as Event

    if len(np.unique(net.columns("liabilities")["seniority"])) > 1:
        return None
    key = f"_cleared_calm {sorted(options.items())}"
    if key not in net.__dict__:
        estate = estate_of(net, Event())
        owed = obligations(net, estate.account_equity)
        rank = options.get("external_rank", "pari_passu")
        prepared = prepare(owed, external_liabilities(net), external_rank=rank)
        result = eisenberg_noe(prepared, estate.assets, strict=False, **options)
        net.__dict__[key] = _Calm(estate, prepared, result)
    found: _Calm = net.__dict__[key]
    return found


def _pushed(calm: _Calm, short: Any) -> tuple[Any, Any]:
    """Return shortfalls, and what receipts change by, as csc arrays; work follows the defaulters."""
    dues, scenarios = calm.prepared.dues, short.shape[1]
    before = dues - calm.result.values.payments
    known = np.flatnonzero(before)
    begins = np.arange(scenarios + 1) * len(known)
    calm_short = csc_array((np.tile(before[known], scenarios), np.tile(known, scenarios), begins), shape=short.shape)
    unpaid = csc_array(short - calm_short)
    unpaid.data = unpaid.data / dues[unpaid.indices]
    return short, csc_array(-(calm.prepared.incoming @ unpaid))


def _solved(calm: _Calm, result: ClearingResult, fell: Any) -> tuple[Any, Any]:
    """Return the same of scenarios of which some were solved in full."""
    worth = result.values.net_worth - calm.result.values.net_worth[:, None]
    return csc_array(result.values.shortfall), csc_array(worth - fell.toarray())


def _lost(calm: _Calm, change: Any) -> Any:
    """What nodes lose in equity when their net worth changes."""
    lost, worth = csc_array(change), calm.result.values.net_worth
    before = worth[lost.indices]
    lost.data = np.maximum(before, 0.0) - np.maximum(before + lost.data, 0.0)
    return lost
