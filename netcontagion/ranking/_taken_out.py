"""What others lose by contagion because a node is there: the same shock with the node taken out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion.clearing import eisenberg_noe, prepare
from netcontagion.ranking._books import blocks, of_one_class
from netcontagion.ranking._defaults import can_hurt
from netcontagion.ranking._hit import Hit, hit_by, only
from netcontagion.ranking._runs import contagion_by_node, play, plays
from netcontagion.ranking._study import NotApplicable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from netcontagion.network import ExposureNetwork, Shock
    from netcontagion.ranking._study import Floats, Scores, Study

__all__ = ["leave_one_out", "taken_out"]


def leave_one_out(study: Study) -> Scores:
    """Score by what others lose by contagion under the shock, less what they lose with the node taken out [num].

    Taken out, a trader has neither debts to exchanges nor contracts, nobody has either at an exchange; the shock passes
    it by, and it pays whatever it owes. Its deposits stay where they are. Below 0 where it absorbs what others would
    bear. The other side of its contracts falls to ``others@``, which here counts without what impact costs it; taking
    ``others@`` out makes no sense: NaN.
    """
    of_one_class(study)
    scores = _played(study) if plays(study.net) else _cleared(study)
    return study.by_kind(scores)


# without accounts: one clearing of many scenarios -----------------------------------------------------------------


def _cleared(study: Study) -> Floats:
    """Clear the network with each node that cannot pay made able to."""
    case = study.case
    prepared = prepare(case.owed, case.outside)
    now, failing = _contagion(case, prepared, case.before.assets, case.after.assets)
    _someone_loses(now)
    found = np.zeros(len(now))
    for nodes in blocks(np.flatnonzero(failing), len(now)):
        own = (nodes, np.arange(len(nodes)))
        before, after = (np.repeat(one.assets[:, None], len(nodes), axis=1) for one in (case.before, case.after))
        before[own] += case.dues[nodes]
        after[own] = before[own]
        saved = now[:, None] - _contagion(case, prepared, before, after)[0]
        saved[own] = 0.0
        found[nodes] = saved.sum(axis=0)
    return found


def _contagion(case: Any, prepared: Any, before: Floats, after: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Return what unpaid claims take on top of a shock, as ``nc.clear`` counts it, and who cannot pay at all times."""
    calm, run = (eisenberg_noe(prepared, assets) for assets in (before, after))
    shocked = np.maximum(calm.values.net_worth - before + after, 0.0)
    failing = np.asarray(calm.defaulted) | np.asarray(run.defaulted)
    return shocked - np.maximum(run.values.net_worth, 0.0), failing


# with accounts: one network and one cascade each ------------------------------------------------------------------


def _played(study: Study) -> Floats:
    """Play the shock without each node that had a part in it."""
    net, cut = study.net, study.size("trader")
    run = play(net, study.shock)
    now = _counted(net, run)
    _someone_loses(now)
    found = np.zeros(len(now))
    found[cut - net.derived("traders") : cut] = np.nan
    nodes = [*np.flatnonzero(_took_part(study, run)).tolist(), *range(cut, len(now))]
    left = _each(study, nodes)
    found[nodes] = now.sum() - now[nodes] - left
    return found


def _took_part(study: Study, run: Any) -> NDArray[np.bool_]:
    """Mark the traders without whom the run may have been another."""
    net, table = study.net, run.traders
    marked = (table["called"] > 0) | (table["liquidated"] > 0) | table["defaulted"]
    found: NDArray[np.bool_] = marked.to_numpy(dtype=bool, copy=True)
    found[[node.place for node in hit_by(net, study.shock) if node.kind == "trader"]] = True
    owner = net.columns("accounts")["trader"]
    shares = np.asarray(table["loss_mutualisation"].to_numpy() != 0)
    found[owner[net.book.position_account]] |= shares[owner[net.book.position_account]]
    found[np.isin(net.columns("traders")["policy"], ("default", "passive"), invert=True)] = True
    found &= can_hurt(net)
    found[len(found) - net.derived("traders") :] = False
    return found


def _each(study: Study, nodes: Sequence[int]) -> Floats:
    """Return what all others lose with each of the nodes taken out."""
    dues, jobs = study.case.dues, study.n_jobs
    work = [(study.net, study.shock, node, float(dues[node])) for node in nodes]
    if jobs is None or jobs == 1:
        return np.array([_others_lose(*one) for one in work])
    from joblib import Parallel, delayed  # type: ignore[import-untyped, import-not-found, unused-ignore]

    return np.array(Parallel(n_jobs=jobs)(delayed(_others_lose)(*one) for one in work))


def _others_lose(net: ExposureNetwork, shock: Shock, node: int, dues: float) -> float:
    cut = len(net.labels("traders"))
    kind, place = ("trader", node) if node < cut else ("exchange", node - cut)
    without = taken_out(net, kind, place, dues)
    left = [one for one in hit_by(net, shock) if one != Hit(kind, place)]
    loss = _counted(without, play(without, only(net, shock, left)))
    own = place if kind == "trader" else len(without.labels("traders")) + place
    return float(loss.sum() - loss[own])


def taken_out(net: ExposureNetwork, kind: str, place: int, dues: float) -> ExposureNetwork:
    """Return the network where a node has money for all its dues, and its accounts no debts and no contracts."""
    ours = np.flatnonzero(net.columns("accounts")[kind] == place)
    balances, positions, nodes = net.balances, net.positions, getattr(net, f"{kind}s")
    borrowed = balances["borrowed"].to_numpy(copy=True)
    borrowed[np.isin(net.columns("balances")["account"], ours)] = 0.0
    balances["borrowed"] = borrowed
    money = "external_assets" if kind == "trader" else "equity"
    values = nodes[money].to_numpy(copy=True)
    values[place] += dues
    nodes[money] = values
    if kind == "trader":
        policies = nodes["policy"].to_numpy(dtype=object, copy=True)
        policies[place] = "passive"
        nodes["policy"] = policies
    kept = ~np.isin(net.columns("positions")["account"], ours)
    left = positions[kept] if kept.any() else None
    return net.replace(balances=balances, positions=left, **{f"{kind}s": nodes})


def _counted(net: ExposureNetwork, run: Any) -> Floats:
    """Contagion by node; of ``others@`` without impact."""
    found = contagion_by_node(net, run).copy()
    last = len(net.labels("traders"))
    others = slice(last - net.derived("traders"), last)
    found[others] -= run.traders["loss_impact"].to_numpy()[others]
    return found


def _someone_loses(contagion: Floats) -> None:
    if not (np.abs(contagion) > 0).any():
        raise NotApplicable("nobody loses by contagion under this shock; give a shock under which somebody does")
