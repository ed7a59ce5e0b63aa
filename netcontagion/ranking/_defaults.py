"""What others lose when a node defaults: every node of the network, in one batch of runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion.clearing import Case, eisenberg_noe, prepare
from netcontagion.network import Shock, policy
from netcontagion.ranking._books import blocks, of_one_class
from netcontagion.ranking._runs import loss_by_node, losses, play, plays

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netcontagion.network import ExposureNetwork
    from netcontagion.ranking._study import Floats, Scores, Study

__all__ = ["bare", "can_hurt", "loss_if_defaults", "named"]


def loss_if_defaults(study: Study) -> Scores:
    """Score by what others lose when the node defaults on top of the shock, beyond what the shock costs them [num].

    A trader loses wallets and external assets, and its accounts are closed out; an exchange loses fund, equity and
    skin, and is out, while deposits there stay its clients'. Both stop to pay what they cannot. ``others@`` is no node
    that can default: NaN.
    """
    of_one_class(study)
    if not plays(study.net):
        return _cleared(study)
    return {"trader": _traders(study), "exchange": _exchanges(study)}


# without accounts: one clearing of many scenarios -----------------------------------------------------------------


def _cleared(study: Study) -> Scores:
    """Clear the network once for every node that owes something, a block at a time."""
    case = study.case
    left = _left_of_defaulters(study)
    prepared = prepare(case.owed, case.outside)
    calm = np.maximum(eisenberg_noe(prepared, case.after.assets).values.net_worth, 0.0)
    found = np.zeros(len(left))
    for nodes in blocks(np.flatnonzero(case.owed.sum(axis=1) > 0), len(left)):
        assets = np.repeat(case.after.assets[:, None], len(nodes), axis=1)
        own = (nodes, np.arange(len(nodes)))
        assets[own] = left[nodes]
        lost = calm[:, None] - np.maximum(eisenberg_noe(prepared, assets).values.net_worth, 0.0)
        lost[own] = 0.0
        found[nodes] = lost.sum(axis=0)
    return study.by_kind(found)


def _left_of_defaulters(study: Study) -> Floats:
    """Assets that a default leaves each node [num]: a trader its holdings, an exchange nothing."""
    left = np.zeros(len(study.net.nodes))
    traders = study.net.labels("traders").tolist()
    if traders:
        shock = study.shock + Shock.default(*traders)
        left[: len(traders)] = Case.of(study.net, shock).after.assets[: len(traders)]
    return left


# with accounts: one cascade each ----------------------------------------------------------------------------------


def _traders(study: Study) -> Floats:
    """Play the default of every trader that owes something; that of any other costs nobody else anything."""
    net = study.net
    found = np.zeros(study.size("trader"))
    last = len(found) - net.derived("traders")
    found[last:] = np.nan
    places = np.flatnonzero(can_hurt(net)[:last] & ~study.shock.defaulted(net)[:last])
    if not len(places):
        return found
    calm = play(net, study.shock)
    own = (calm.traders["wealth_before"] - calm.traders["loss"]).to_numpy()
    shocks = [study.shock + Shock.default(named(label, "trader")) for label in net.labels("traders")[places].tolist()]
    found[places] = losses(study, shocks) + calm.node_wealth() - own[places]
    return found


def can_hurt(net: ExposureNetwork) -> NDArray[np.bool_]:
    """Mark the traders whose default can cost others something.

    They owe a node, have debts or contracts, have paid into a default fund, keep a backstop, or act without being
    called.
    """
    traders, book, account = net.columns("traders"), net.book, net.columns("accounts")
    size = len(traders["policy"])
    found = np.zeros(size, dtype=bool)
    debtor = net.columns("liabilities")["debtor"]
    found[debtor[debtor < size]] = True
    found[account["trader"][book.balance_account[book.borrowed > 0]]] = True
    found[account["trader"][book.position_account]] = True
    found[account["trader"][account["default_fund"] > 0]] = True
    vaults = [name for name in net.columns("exchanges")["backstop"].tolist() if name is not None]
    if vaults:
        found[account["trader"][net.labels("accounts").isin(vaults)]] = True
    names = traders["policy"]
    acting = [name for name in set(names.tolist()) if policy(name).orders or policy(name).runs]
    return np.asarray(found | np.isin(names, acting))


def _exchanges(study: Study) -> Floats:
    net, cut = study.net, study.size("trader")
    calm = loss_by_node(net, play(net, study.shock))
    found = np.zeros(study.size("exchange"))
    for place, label in enumerate(net.labels("exchanges").tolist()):
        without = bare(net, place)
        loss = loss_by_node(without, play(without, study.shock + Shock.outage(named(label, "exchange"))))
        found[place] = np.delete(loss - calm, cut + place).sum()
    return found


def bare(net: ExposureNetwork, place: int) -> ExposureNetwork:
    """Return the network where an exchange has no money of its own."""
    table = net.exchanges
    for column in ("equity", "insurance_fund", "skin"):
        values = table[column].to_numpy(copy=True)
        values[place] = 0.0
        table[column] = values
    return net.replace(exchanges=table)


def named(label: Any, kind: str) -> tuple[str, Any]:
    """Address a node so that it is the one of its kind, whoever else bears the label."""
    return (kind, label)
