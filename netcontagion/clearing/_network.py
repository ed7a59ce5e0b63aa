"""Clearing of a network of traders and exchanges: what everybody has, and what everybody owes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion.clearing._eisenberg_noe import eisenberg_noe
from netcontagion.clearing._estate import external_liabilities, obligations, obligations_by_class
from netcontagion.clearing._models import MODELS, Case
from netcontagion.clearing._ranked_costs import ranked
from netcontagion.clearing._shares import share_paid
from netcontagion.errors import ContagionError, UnknownLabelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from netcontagion.clearing._result import ClearingResult
    from netcontagion.network import ExposureNetwork, Shock

__all__ = ["clear", "settle"]


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
    model : str
        "eisenberg_noe"; "rogers_veraart" (needs ``alpha=``, ``beta=``); "elsinger" (classes by ``seniority``);
        "suzuki"; "neva" (needs ``valuation=``); "furfine" (``recovery=``); "threshold" (``loss_given_default=``);
        "debtrank" (2012); "linear_debtrank" (2015); "fire_sale" (traders sell wallets and holdings on the books of the
        assets).
    **options
        Of the model: see the function of its name in :mod:`netcontagion.clearing`.

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

    if model not in MODELS:
        raise UnknownLabelError(model, MODELS, "model")
    check_call(net, shock, optional=True)
    strict = options.pop("strict", True)
    case = Case.of(net, Event() if shock is None else shock)
    calm_case = Case(net, Event(), case.before, case.before)
    result = MODELS[model](case, strict=False, **options)
    calm = result if shock is None else MODELS[model](calm_case, strict=False, **options)
    notes = result.assumptions
    if (
        shock is not None
        and (shock.losses or shock.loss_shares)
        and not net.columns("traders")["external_assets"].any()
    ):
        notes = (*notes, "no trader has external assets: the loss takes nothing")
    loss = _loss(case, calm, result)
    named = replace(result, labels=net.nodes, numeraire=net.numeraire, loss=loss, assumptions=notes)
    if named.prices is not None:
        named = _by_asset(net, named)
    return named.raise_for_status() if strict else named


def _by_asset(net: ExposureNetwork, result: ClearingResult) -> ClearingResult:
    import pandas as pd

    prices, sold = (pd.Series(values, index=net.labels("assets")) for values in (result.prices, result.sold))
    return replace(result, prices=prices, sold=sold)


def settle(
    net: ExposureNetwork,
    assets: NDArray[np.float64],
    owed: Sequence[Any],
    *,
    base: int = 0,
    which: str = "greatest",
    **options: Any,
) -> ClearingResult:
    """Clear what nodes owe each other by class, and outside, with the given resources; the result is labelled by node.

    ``owed`` are matrices (row owes column), the most senior class first; ``liabilities`` and external debt are added to
    class ``base``. Options are those of ``ranked``; one class without any is Eisenberg-Noe.
    """
    seniority = net.columns("liabilities")["seniority"]
    if len(np.unique(seniority)) > 1:
        found = ", ".join(map(str, np.unique(seniority)))
        raise ContagionError(f"a cascade settles one class of debt; liabilities has seniorities {found}")
    classes = list(owed)
    classes[base] = classes[base] + obligations(net, np.zeros(len(net.labels("accounts"))))
    if len(classes) == 1 and not options:
        result = eisenberg_noe(classes[0], assets, external_liabilities(net), strict=False, which=which)
    else:
        result = ranked(
            classes, assets, external_liabilities(net), external_class=base, strict=False, which=which, **options
        )
    return replace(result, labels=net.nodes, numeraire=net.numeraire)


def _loss(case: Case, calm: ClearingResult, result: ClearingResult) -> Any:
    """Split the fall in equity: direct, while debtors pay the share they pay without the shock; contagion, the rest."""
    import pandas as pd

    receipts = _receipts(case, calm)
    untouched, assets = np.asarray(calm.equity), case.after.assets
    if calm.prices is not None or calm.model == "neva":  # what is sold, or set right, without the shock too
        assets = assets + calm.values.external_assets - case.before.assets
    shocked = np.maximum(assets + receipts - case.dues, 0.0)
    direct = untouched - shocked
    fell = untouched - np.asarray(result.equity)
    return pd.DataFrame({"direct": direct, "contagion": fell - direct}, index=case.net.nodes)


def _receipts(case: Case, calm: ClearingResult) -> Any:
    """Sum what each node gets of its claims after the shock, while debtors pay the share they pay without it."""
    if calm.classes is None:
        internal = calm.liabilities.sum(axis=1)
        return case.owed.T @ share_paid(calm.values.payments_internal, internal, empty=1.0)
    receipts = calm.classes.holdings @ np.asarray(calm.equity)
    classes = obligations_by_class(case.net, case.after.account_equity)
    for owed, due, paid in zip(classes, calm.classes.liabilities, calm.classes.payments, strict=True):
        receipts = receipts + owed.T @ share_paid(paid, due.sum(axis=1), empty=1.0)
    return receipts
