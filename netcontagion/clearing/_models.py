"""The models that ``nc.clear`` knows, each as a function of what nodes have and owe before and after a shock."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion._arrays import group_sum
from netcontagion.clearing._debtrank import debtrank as spread_distress
from netcontagion.clearing._eisenberg_noe import eisenberg_noe
from netcontagion.clearing._elsinger import elsinger
from netcontagion.clearing._estate import Estate, estate_of, external_liabilities, obligations, obligations_by_class
from netcontagion.clearing._fire_sale import fire_sale
from netcontagion.clearing._neva import neva
from netcontagion.clearing._outcome import Outcome, result_of
from netcontagion.clearing._rogers_veraart import rogers_veraart
from netcontagion.clearing._shares import share_paid
from netcontagion.clearing._suzuki import suzuki
from netcontagion.clearing._threshold import furfine
from netcontagion.errors import ContagionError
from netcontagion.network import Shock as Event

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from scipy.sparse import csr_array

    from netcontagion.clearing._result import ClearingResult
    from netcontagion.network import ExposureNetwork, Shock

    Floats = NDArray[np.float64]

__all__ = ["MODELS", "Case"]


@dataclass(frozen=True, eq=False)
class Case:
    """A network and a shock as models read them; nodes are traders, then exchanges [num]."""

    net: ExposureNetwork
    shock: Shock
    before: Estate
    after: Estate

    @classmethod
    def of(cls, net: ExposureNetwork, shock: Shock) -> Case:
        """Value everybody before and after a shock."""
        before = estate_of(net, Event())
        return cls(net, shock, before, estate_of(net, shock, before))

    @functools.cached_property
    def owed_before(self) -> csr_array:
        """What row owes column before the shock."""
        return obligations(self.net, self.before.account_equity)

    @functools.cached_property
    def owed(self) -> csr_array:
        """What row owes column after the shock."""
        return obligations(self.net, self.after.account_equity)

    @functools.cached_property
    def outside(self) -> Floats:
        """What each node owes outside the network."""
        return external_liabilities(self.net)

    @property
    def dues(self) -> Floats:
        """Everything each node owes."""
        return np.asarray(self.owed.sum(axis=1) + self.outside)

    def book_equity(self, estate: Estate) -> Floats:
        """Equity when every claim is worth its face."""
        owed = obligations(self.net, estate.account_equity)
        return np.asarray(estate.assets + owed.sum(axis=0) - owed.sum(axis=1) - self.outside)

    @property
    def defaulted(self) -> NDArray[np.bool_]:
        """Which nodes the shock makes fail."""
        mask = np.zeros(len(self.net.nodes), dtype=bool)
        failed = self.shock.defaulted(self.net)
        mask[: len(failed)] = failed
        return mask

    @functools.cached_property
    def relative_loss(self) -> Floats:
        """Share of its equity that a node loses by the shock itself; 1 where it defaults."""
        before, after = self.book_equity(self.before), self.book_equity(self.after)
        lost = share_paid(np.maximum(before - after, 0.0), np.maximum(before, 0.0))
        return np.where(self.defaulted, 1.0, np.minimum(lost, 1.0))

    def of_one_class(self, model: str) -> None:
        """Refuse liabilities of several seniorities, which a model does not rank."""
        found = np.unique(self.net.columns("liabilities")["seniority"])
        if len(found) > 1:
            listed = ", ".join(map(str, found))
            message = f"model {model!r} knows one class of debt; liabilities has seniorities {listed}: use 'elsinger'"
            raise ContagionError(message)


def _payments(case: Case, *, solve: Callable[..., ClearingResult], model: str, **options: Any) -> ClearingResult:
    case.of_one_class(model)
    return solve(case.owed, case.after.assets, case.outside, **options)


def _elsinger(case: Case, **options: Any) -> ClearingResult:
    """Classes by the seniority of ``liabilities``; what exchanges and accounts owe ranks with the most senior."""
    classes = obligations_by_class(case.net, case.after.account_equity)
    return elsinger(classes, case.after.assets, external_liabilities=case.outside, **options)


def _suzuki(case: Case, **options: Any) -> ClearingResult:
    """Debt held as liabilities say; ``equity_holdings`` as in the model."""
    from scipy.sparse import diags_array

    case.of_one_class("suzuki")
    dues = case.dues
    held = (diags_array(share_paid(np.ones(len(dues)), dues)) @ case.owed).T
    return suzuki(dues, case.after.assets, debt_holdings=held, **options)


def _neva(case: Case, **options: Any) -> ClearingResult:
    case.of_one_class("neva")
    options = {"assets_before": case.before.assets} | options
    return neva(case.owed, case.after.assets, case.outside, **options)


def _furfine(case: Case, *, strict: bool = True, **options: Any) -> ClearingResult:
    """Equity after the shock; recovery is given."""
    del strict  # a cascade of failures always ends
    equity = case.book_equity(case.after)
    return furfine(case.owed, equity, defaulted=case.defaulted, external_liabilities=case.outside, **options)


def _threshold(case: Case, *, loss_given_default: Any = 1.0, **options: Any) -> ClearingResult:
    """Furfine's cascade, said by the loss given default instead of the recovery."""
    result = _furfine(case, recovery=1.0 - np.asarray(loss_given_default, dtype=float), **options)
    return replace(result, model="threshold")


def _debtrank(case: Case, *, variant: str, model: str, **options: Any) -> ClearingResult:
    """Distress as a share of equity lost: a node's debt is worth one less its distress."""
    case.of_one_class(model)
    equity, none = case.book_equity(case.before), np.zeros(len(case.net.nodes))
    owed = obligations(case.net, case.before.account_equity)
    linked = (owed.sum(axis=1) > 0) | (owed.sum(axis=0) > 0) | (case.relative_loss > 0)
    if not (equity[linked] > 0).all():
        names = ", ".join(map(repr, case.net.nodes[linked & ~(equity > 0)][:5].tolist()))
        message = f"model {model!r} divides by equity, which is not more than 0 at {names}"
        raise ContagionError(message)
    divisor = np.where(linked, equity, 1.0)
    found = spread_distress(owed, divisor, case.relative_loss, variant=variant, **options)
    distress, lower, upper = found.bounds
    one = Outcome(
        1.0 - distress,
        equity * (1.0 - np.where(linked, distress, 0.0)),
        float(found.residual),
        int(found.iterations),
        found.status,
        lower=1.0 - upper,
        upper=1.0 - lower,
        enclosure=found.enclosure,
        external=np.ones(len(none)),
        notes=("what a node's debt is worth falls with its equity; nothing is paid",),
    )
    return result_of([one], model=model, owed=owed, assets=case.before.assets, external=case.outside, limited=False)


def _fire_sale(case: Case, **options: Any) -> ClearingResult:
    """Traders sell wallets and holdings on the books of the assets; what is known by value only is not sold."""
    from scipy.sparse import coo_array

    case.of_one_class("fire_sale")
    net, asset = case.net, case.net.columns("assets")
    tables = [net.columns(name) for name in ("wallets", "holdings")]
    trader, place, units = (np.concatenate([table[name] for table in tables]) for name in ("trader", "asset", "units"))
    emptied = case.shock.defaulted(net)[tables[0]["trader"]]
    units[: len(emptied)][emptied] = 0.0
    sold = asset["kind"][place] != "residual"
    trader, place, units = trader[sold], place[sold], units[sold]
    price = asset["price"] * case.shock.price_factors(net)
    shape = (len(net.nodes), len(price))
    holdings = coo_array((units, (trader, place)), shape=shape).tocsr()
    cash = np.maximum(case.after.assets - group_sum(trader, units * price[place], shape[0]), 0.0)
    depth = np.where(np.isnan(asset["depth"]), np.inf, asset["depth"]) * case.shock.depth_factor
    forms = {str(asset["impact"][k]) for k in np.unique(place).tolist()}
    if "impact" not in options and len(forms) > 1:
        message = f"fire_sale knows one form of impact; assets.impact has {', '.join(sorted(forms))}: give impact="
        raise ContagionError(message)
    options = {"impact": next(iter(forms), "exponential")} | options
    return fire_sale(case.owed, cash, holdings, prices=price, depth=depth, external_liabilities=case.outside, **options)


MODELS: dict[str, Callable[..., ClearingResult]] = {
    "eisenberg_noe": functools.partial(_payments, solve=eisenberg_noe, model="eisenberg_noe"),
    "rogers_veraart": functools.partial(_payments, solve=rogers_veraart, model="rogers_veraart"),
    "elsinger": _elsinger,
    "suzuki": _suzuki,
    "neva": _neva,
    "furfine": _furfine,
    "threshold": _threshold,
    "debtrank": functools.partial(_debtrank, variant="single_hit", model="debtrank"),
    "linear_debtrank": functools.partial(_debtrank, variant="linear", model="linear_debtrank"),
    "fire_sale": _fire_sale,
}
