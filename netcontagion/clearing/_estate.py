"""What traders and exchanges have and owe right after a shock, before anybody acts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from netcontagion._arrays import group_sum
from netcontagion.clearing._scenario_assets import Changes
from netcontagion.errors import ContagionError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from scipy.sparse import csr_array

    from netcontagion.network import ExposureNetwork, Shock

__all__ = [
    "Estate",
    "Owned",
    "changed_assets",
    "estate_of",
    "external_liabilities",
    "obligations",
    "obligations_by_class",
]


@dataclass(frozen=True, eq=False)
class Estate:
    """What nodes have and owe, nodes being traders, then exchanges [num].

    ``account_equity`` becomes a due of the exchange where it is positive, and of the trader where it is negative and
    the exchange has recourse. A hole without recourse is owed by nobody. Nothing is set off across accounts; what an
    account has in a default fund is part of its equity.
    """

    assets: NDArray[np.float64]
    account_equity: NDArray[np.float64]


def estate_of(
    net: ExposureNetwork, shock: Shock, calm: Estate | None = None, owned_calm: Owned | None = None
) -> Estate:
    """Value every node right after a shock, before anybody acts.

    ``calm`` is the estate without one, and ``owned_calm`` what traders own in it: what a shock that moves no price
    leaves as it is is taken from there.
    """
    factor = shock.price_factors(net)
    before = owned_calm
    if before is None or shock.moves:
        before = Owned.of(net, net.columns("assets")["price"] * factor)
    owned = _left(net, shock, before)
    if calm is not None and not shock.moves:
        return Estate(np.concatenate([owned, calm.assets[len(owned) :]]), calm.account_equity)
    equity = net.book.equity(factor[net.book.market_asset]) + net.columns("accounts")["default_fund"]
    return Estate(np.concatenate([owned, _resources(net, factor)]), equity)


def changed_assets(net: ExposureNetwork, shocks: Sequence[Shock], owned: Owned) -> Changes | None:
    """List what shocks to single traders change in what they have; None where one of the shocks reaches further.

    ``owned`` are wallets and holdings without a shock.
    """
    if any(shock.moves or shock.loss_shares for shock in shocks):
        return None
    external, begins = net.columns("traders")["external_assets"], [0]
    nodes: list[int] = []
    amounts: list[float] = []  # without holdings
    for shock in shocks:
        left = dict.fromkeys(shock.failing(net), 0.0)
        if shock.losses:
            after = shock.after_losses(net, external)
            left = {who: value + owned.wallets[who] for who, value in after.items()} | left
        nodes += left
        amounts += left.values()
        begins.append(len(nodes))
    changed = np.array(nodes, dtype=np.int32)
    return Changes(np.array(begins, dtype=np.int64), changed, np.array(amounts, dtype=float) + owned.holdings[changed])


class Owned(NamedTuple):
    """What wallets and holdings of every trader are worth [num]."""

    wallets: NDArray[np.float64]
    holdings: NDArray[np.float64]

    @classmethod
    def of(cls, net: ExposureNetwork, price: NDArray[np.float64]) -> Owned:
        """Add them up at prices."""
        tables = (net.columns("wallets"), net.columns("holdings"))
        size = len(net.labels("traders"))
        return cls(*(group_sum(table["trader"], table["units"] * price[table["asset"]], size) for table in tables))


def _left(net: ExposureNetwork, shock: Shock, owned: Owned) -> NDArray[np.float64]:
    """Add up external assets, wallets and holdings of traders after a shock."""
    wallets = owned.wallets
    if shock.defaults:
        wallets = wallets.copy()
        wallets[shock.failing(net)] = 0.0
    return shock.external_assets(net) + wallets + owned.holdings


def _resources(net: ExposureNetwork, factor: NDArray[np.float64]) -> NDArray[np.float64]:
    """Add up custody, insurance fund, equity and default fund of exchanges."""
    book, exchange, size = net.book, net.columns("exchanges"), len(net.labels("exchanges"))
    price = net.columns("assets")["price"] * factor
    mark = book.market_mark * factor[book.market_asset]
    held = (book.deposited - book.borrowed) * mark[book.balance_market]
    custody = group_sum(book.market_exchange[book.balance_market], held, size)
    fund_price = np.where(exchange["insurance_asset"] < 0, 1.0, np.append(price, 1.0)[exchange["insurance_asset"]])
    account = net.columns("accounts")
    members = group_sum(account["exchange"], account["default_fund"], size)
    resources = np.maximum(custody, 0.0) + exchange["insurance_fund"] * fund_price + exchange["equity"]
    _check_custody(custody, held)
    total: NDArray[np.float64] = resources + exchange["skin"] + members
    return total


def _check_custody(custody: NDArray[np.float64], held: NDArray[np.float64]) -> None:
    if len(custody) and custody.min() < -1e-9 * np.abs(held).sum():
        message = "an exchange lends more than is deposited with it; net.check() says where"
        raise ContagionError(message)


def external_liabilities(net: ExposureNetwork) -> NDArray[np.float64]:
    """List what each node owes outside the network [num]."""
    outside = np.zeros(len(net.nodes))
    outside[: len(net.labels("traders"))] = net.columns("traders")["external_liabilities"]
    return outside


def obligations(net: ExposureNetwork, account_equity: NDArray[np.float64]) -> csr_array:
    """Sum up what each node owes each other node [num], as a sparse array: row owes column."""
    return _sum_up(net, account_equity, np.ones(len(net.columns("liabilities")["amount"]), dtype=bool))


def obligations_by_class(net: ExposureNetwork, account_equity: NDArray[np.float64]) -> list[csr_array]:
    """Sum up the same by class, the most senior first; what exchanges and accounts owe stands in the first."""
    seniority = net.columns("liabilities")["seniority"]
    none = np.zeros(len(account_equity))
    ranks = np.unique(seniority).tolist() or [0]
    return [_sum_up(net, none if place else account_equity, seniority == rank) for place, rank in enumerate(ranks)]


def _sum_up(net: ExposureNetwork, account_equity: NDArray[np.float64], rows: NDArray[np.bool_]) -> csr_array:
    from scipy.sparse import coo_array

    table, account = net.columns("liabilities"), net.columns("accounts")
    n_traders, size = len(net.labels("traders")), len(net.nodes)
    exchange = account["exchange"].astype(np.int64) + n_traders
    recourse = np.append(net.columns("exchanges")["recourse"], False)[account["exchange"]]
    owed, hole = account_equity > 0, (account_equity < 0) & recourse
    trader = account["trader"]
    debtor = np.concatenate([table["debtor"][rows], exchange[owed], trader[hole]])
    creditor = np.concatenate([table["creditor"][rows], trader[owed], exchange[hole]])
    amount = np.concatenate([table["amount"][rows], account_equity[owed], -account_equity[hole]])
    return coo_array((amount, (debtor, creditor)), shape=(size, size)).tocsr()
