"""Suzuki clearing (XOS): cross-holdings of equity and of debt, given as fractions."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse

from netcontagion.clearing._elsinger import (
    HELD_IN_FULL,
    Stakes,
    checked_holdings,
    cleared,
    held_in_full,
    labelled_alike,
)
from netcontagion.clearing._input import Options, checked_input
from netcontagion.errors import Problem, SchemaError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from netcontagion.clearing._result import ClearingResult

__all__ = ["suzuki"]


def suzuki(
    debts: ArrayLike,
    external_assets: ArrayLike,
    equity_holdings: Any = None,
    debt_holdings: Any = None,
    *,
    which: str = "greatest",
    rtol: float = 1e-10,
    max_rounds: int = 10_000,
    strict: bool = True,
) -> ClearingResult:
    r"""Compute the value of debt and equity of Suzuki, with cross-holdings of both (XOS).

    ``E = max(0, a + Ms E + Md D - d)`` and ``D = min(d, a + Ms E + Md D)``. It is :func:`elsinger` with one class of
    debt, of which ``Md`` says who holds how much; the rest is owed outside the network.

    Parameters
    ----------
    debts : array_like (n,)
        What each node owes in all, d, in money, not negative.
    external_assets : array_like (n,) or (n, s)
        Assets outside the network, a, in money, not negative; s columns are s scenarios.
    equity_holdings, debt_holdings : array_like or sparse (n, n), optional
        Share of the equity (Ms), and of the debt (Md), of column j that row i holds, from 0 to 1; none where omitted.
        Columns add up to 1 at most; no group of nodes may hold all the equity of all its members.
    which : {"greatest", "least"}
        Which solution where there are several; equities are the same in all if each column of ``equity_holdings`` adds
        up to less than 1.
    rtol : float
        Width of the enclosure, relative to the debts, at which a solve is certified.
    max_rounds : int
        Most rounds per scenario.
    strict : bool
        Raise when a scenario does not settle, instead of returning what was reached.

    Returns
    -------
    ClearingResult
        ``payments`` is D and ``equity`` is E; ``liabilities`` is ``(Md d)^T``.

    Raises
    ------
    SchemaError
        Everything that is wrong with the numbers.
    ValueError
        An option that is not one of those allowed.
    NotSettledError
        With ``strict``, when the solve ended without an answer; its ``result`` holds what was reached.

    References
    ----------
    Suzuki, T. (2002). Valuing corporate debt: the effect of cross-holdings of stock and debt. Journal of the
    Operations Research Society of Japan 45(2), 123-144. https://doi.org/10.15807/jorsj.45.123

    Examples
    --------
    >>> from netcontagion.clearing import suzuki
    >>> result = suzuki([10, 4], [6, 5], equity_holdings=[[0, 0.5], [0, 0]], debt_holdings=[[0, 0], [0.25, 0]])
    >>> result.payments.round(4).tolist(), result.equity.round(4).tolist()
    ([7.4286, 4.0], [0.0, 2.8571])
    """
    options = Options("pari_passu", which, "auto", rtol, max_rounds, waves=False)
    options.check()
    stakes = _checked(debts, external_assets, equity_holdings, debt_holdings)
    result = cleared(stakes, 0, options, model="suzuki", assumptions=held_in_full(stakes.holdings))
    return result.raise_for_status() if strict else result


def _checked(debts: Any, assets: Any, equity: Any, debt: Any) -> Stakes:
    """Convert once, or raise one SchemaError with everything that is wrong; fractions of debt become amounts."""
    problems: list[Problem] = []
    labels = next((one.index for one in (equity, debt, debts, assets) if hasattr(one, "reindex")), None)
    (equity,), _ = labelled_alike("equity_holdings", [equity], problems, labels)
    (debt,), _ = labelled_alike("debt_holdings", [debt], problems, labels)
    debts, assets = (_in_order(*one, labels, problems) for one in (("debts", debts), ("external_assets", assets)))
    nodes = len(debts) if np.ndim(debts) else 0
    try:
        _, assets, dues = checked_input(scipy.sparse.csr_array((nodes, nodes)), assets, debts)
    except SchemaError as error:
        problems += [replace(one, table=_NAMES.get(one.table, one.table)) for one in error.problems]
    held = checked_holdings("debt_holdings", debt, nodes, problems, equity=False)
    shares = checked_holdings("equity_holdings", equity, nodes, problems)
    if problems:
        raise SchemaError(problems)
    owed = (scipy.sparse.diags_array(dues) @ held.T).tocsr()
    owed.eliminate_zeros()
    outside = np.where(held.sum(axis=0) < 1 - HELD_IN_FULL, np.maximum(dues - owed.sum(axis=1), 0.0), 0.0)
    return Stakes((owed,), assets, shares, outside, labels)


_NAMES = {"external_liabilities": "debts", "liabilities": "debts"}  # what the checks of the input call them


def _in_order(name: str, given: Any, labels: Any, problems: list[Problem]) -> Any:
    """Put a labelled vector in the order of the labels; labels that differ are a problem."""
    if not hasattr(given, "reindex"):
        return given
    if given.index.has_duplicates or len(given.index.symmetric_difference(labels)):
        cure = "label it as the holdings are, or give plain values"
        problems.append(Problem(name, None, None, "its labels differ", "the same labels", cure))
        return given.to_numpy()
    return given.reindex(labels)
