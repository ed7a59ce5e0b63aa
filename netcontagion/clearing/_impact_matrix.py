"""Impacts: what a debtor's default costs each of its creditors, as a share of the creditor's equity."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion.clearing._node_input import Column, checked_nodes

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from netcontagion.clearing._system import Floats

__all__ = ["impact_matrix", "impacts"]

LARGEST = 1e300
"""Beyond this an impact is a default whatever reaches it; sums of impacts stay finite."""


def impact_matrix(liabilities: Any, equity: ArrayLike, *, cap_impact: bool = True) -> Any:
    """Return the impact of row i on column j: the share of its equity that j loses when i pays nothing.

    ``W_ij = L_ij / equity_j``, at most 1 with ``cap_impact``.

    Parameters
    ----------
    liabilities : array_like or sparse (n, n)
        What row i owes column j, in money; not negative, nothing on the diagonal.
    equity : array_like (n,)
        Equity of each node, in money; more than 0.
    cap_impact : bool, default True
        Whether an impact is at most 1; without it, at most 1e300.

    Returns
    -------
    csr_array (n, n)

    Raises
    ------
    SchemaError
        Listing everything that is wrong with the numbers.

    References
    ----------
    Battiston, S., Puliga, M., Kaushik, R., Tasca, P., Caldarelli, G. (2012). DebtRank: too central to fail? Scientific
    Reports 2, 541. https://doi.org/10.1038/srep00541

    Examples
    --------
    >>> from netcontagion.clearing import impact_matrix
    >>> impact_matrix([[0, 5, 1], [0, 0, 3], [0, 0, 0]], [4, 2, 10]).toarray().tolist()
    [[0.0, 1.0, 0.1], [0.0, 0.0, 0.3], [0.0, 0.0, 0.0]]
    """
    owed, found, _ = checked_nodes(liabilities, {"equity": Column(equity, least=0.0, open=True, dimensions=(1,))})
    return impacts(owed, found["equity"], capped=cap_impact)


def impacts(owed: Any, equity: Floats, *, capped: bool) -> Any:
    """Divide what row i owes column j by the equity of j."""
    found = owed.copy()
    with np.errstate(over="ignore"):
        found.data = found.data / equity[found.indices]
    found.data = np.minimum(found.data, 1.0 if capped else LARGEST)
    return found
