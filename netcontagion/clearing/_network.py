"""Clearing of a network of traders and exchanges: what everybody has, and what everybody owes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion._arrays import group_sum
from netcontagion.clearing._eisenberg_noe import eisenberg_noe
from netcontagion.errors import ContagionError, UnknownLabelError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from scipy.sparse import csr_array

    from netcontagion.clearing._result import ClearingResult
    from netcontagion.network import ExposureNetwork, Shock

__all__ = ["Estate", "clear", "estate_of", "settle"]

_MODELS: dict[str, Callable[..., ClearingResult]] = {"eisenberg_noe": eisenberg_noe}


@dataclass(frozen=True, eq=False)
class Estate:
    """What nodes have and owe, nodes being traders, then exchanges [num].

    ``account_equity`` becomes a due of the exchange where it is positive, and of the trader where it is negative and
    the exchange has recourse. A hole without recourse is owed by nobody. Nothing is set off across accounts.
    """

    assets: NDArray[np.float64]
    account_equity: NDArray[np.float64]


def clear(
    net: ExposureNetwork, shock: Shock | None = None, *, model: str = "eisenberg_noe", **options: Any
) -> ClearingResult:
    """Clear what traders and exchanges owe each other after a shock.

    A trader has external assets, wallets and holdings at post-shock prices; an exchange has custody (balances of its
    accounts at marks), insurance fund and equity. Due are all rows of ``liabilities``; from exchange to trader the
    equity of each account where it is positive; from trader to exchange the hole of an account, with recourse only. No
    price impact and no liquidation: that is :func:`netcontagion.cascade`.

    Parameters
    ----------
    net : ExposureNetwork
        The network before the shock.
    shock : Shock, optional
        Default: none.
    model : {"eisenberg_noe"}
        Clearing model.
    **options
        Of the model: ``external_rank``, ``which``, ``solver``, ``rtol``, ``max_rounds``, ``strict``, ``waves``.

    Returns
    -------
    ClearingResult
        Labelled by node. ``loss``: node x (direct, contagion) in equity [num]; direct is what the shock takes when all
        dues are paid in full, contagion what unpaid claims take on top, against the same network without the shock.

    Raises
    ------
    UnknownLabelError
        No such model, or a name in the shock that the network does not know.
    ContagionError
        ``liabilities`` of several seniorities, which this model does not rank.
    NotSettledError
        With ``strict``, when the solver did not settle.

    References
    ----------
    Eisenberg, Noe, Management Science 47 (2001), doi:10.1287/mnsc.47.2.236.9835.

    Examples
    --------
    >>> import netcontagion as nc
    >>> from netcontagion import builders
    >>> net = builders.from_matrix([[0, 8], [0, 0]], rows="debtor", external_assets=[9, 1], labels=["a", "b"])
    >>> nc.clear(net, nc.Shock.loss({"a": 3.0})).loss.loc["b"].tolist()
    [0.0, 2.0]
    """
    from netcontagion.network import Shock as Event
    from netcontagion.network import check_call

    if model not in _MODELS:
        raise UnknownLabelError(model, _MODELS, "model")
    check_call(net, shock, optional=True)
    before, after = estate_of(net, Event()), estate_of(net, shock or Event())
    result = settle(net, after, model=model, **options)
    calm = settle(net, before, model=model, **options) if shock is not None else result
    notes = result.assumptions
    if (
        shock is not None
        and (shock.losses or shock.loss_shares)
        and not net.columns("traders")["external_assets"].any()
    ):
        notes = (*notes, "no trader has external assets: the loss takes nothing")
    return replace(result, loss=_loss(net, before, after, calm, result), assumptions=notes)


def estate_of(net: ExposureNetwork, shock: Shock) -> Estate:
    """Value every node right after a shock, before anybody acts."""
    book, exchange, asset = net.book, net.columns("exchanges"), net.columns("assets")
    factor = shock.price_factors(net)
    price = asset["price"] * factor
    n_traders, n_exchanges = len(net.labels("traders")), len(net.labels("exchanges"))
    owned = shock.external_assets(net)
    defaulted = shock.defaulted(net)
    for name in ("wallets", "holdings"):
        table = net.columns(name)
        value = group_sum(table["trader"], table["units"] * price[table["asset"]], n_traders)
        owned = owned + (np.where(defaulted, 0.0, value) if name == "wallets" else value)
    mark = book.market_mark * factor[book.market_asset]
    held = (book.deposited - book.borrowed) * mark[book.balance_market]
    custody = group_sum(book.market_exchange[book.balance_market], held, n_exchanges)
    fund_price = np.where(exchange["insurance_asset"] < 0, 1.0, np.append(price, 1.0)[exchange["insurance_asset"]])
    resources = np.maximum(custody, 0.0) + exchange["insurance_fund"] * fund_price + exchange["equity"]
    _check_custody(custody, held)
    equity = book.equity(factor[book.market_asset])
    return Estate(np.concatenate([owned, resources]), equity)


def _check_custody(custody: NDArray[np.float64], held: NDArray[np.float64]) -> None:
    if len(custody) and custody.min() < -1e-9 * np.abs(held).sum():
        message = "an exchange lends more than is deposited with it; net.check() says where"
        raise ContagionError(message)


def settle(net: ExposureNetwork, estate: Estate, *, model: str = "eisenberg_noe", **options: Any) -> ClearingResult:
    """Clear the network with the given resources and account equities; the result is labelled by node."""
    seniority = net.columns("liabilities")["seniority"]
    if len(np.unique(seniority)) > 1:
        found = ", ".join(map(str, np.unique(seniority)))
        raise ContagionError(f"model {model!r} knows one class of debt; liabilities has seniorities {found}")
    strict = options.pop("strict", True)
    outside = np.zeros(len(estate.assets))
    outside[: len(net.labels("traders"))] = net.columns("traders")["external_liabilities"]
    result = _MODELS[model](obligations(net, estate.account_equity), estate.assets, outside, strict=False, **options)
    named = replace(result, labels=net.nodes, numeraire=net.numeraire)
    return named.raise_for_status() if strict else named


def obligations(net: ExposureNetwork, account_equity: NDArray[np.float64]) -> csr_array:
    """Sum up what each node owes each other node [num], as a sparse array: row owes column."""
    from scipy.sparse import coo_array

    table, account = net.columns("liabilities"), net.columns("accounts")
    n_traders, size = len(net.labels("traders")), len(net.nodes)
    exchange = account["exchange"].astype(np.int64) + n_traders
    recourse = np.append(net.columns("exchanges")["recourse"], False)[account["exchange"]]
    owed, hole = account_equity > 0, (account_equity < 0) & recourse
    trader = account["trader"]
    debtor = np.concatenate([table["debtor"], exchange[owed], trader[hole]])
    creditor = np.concatenate([table["creditor"], trader[owed], exchange[hole]])
    amount = np.concatenate([table["amount"], account_equity[owed], -account_equity[hole]])
    return coo_array((amount, (debtor, creditor)), shape=(size, size)).tocsr()


def _loss(net: ExposureNetwork, before: Estate, after: Estate, calm: ClearingResult, result: ClearingResult) -> Any:
    """Split the fall in equity: direct, while debtors pay the share they pay without the shock; contagion, the rest."""
    import pandas as pd

    share = np.asarray(calm.recovery_rate)
    receipts = obligations(net, after.account_equity).T @ share
    untouched = np.asarray(calm.equity)
    shocked = np.maximum(after.assets + receipts - result.values.dues, 0.0)
    direct = untouched - shocked
    fell = untouched - np.asarray(result.equity)
    return pd.DataFrame({"direct": direct, "contagion": fell - direct}, index=net.nodes)
