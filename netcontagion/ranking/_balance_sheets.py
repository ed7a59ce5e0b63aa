"""Measures read off balance sheets and their clearing: how much a node can pass on, and what a unit of money saves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion.clearing import Column, checked_nodes, eisenberg_noe, sensitivity
from netcontagion.errors import ContagionError
from netcontagion.ranking._books import of_one_class
from netcontagion.ranking._given import labelled
from netcontagion.ranking._study import NotApplicable

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from netcontagion.ranking._study import Floats, Scores, Study

__all__ = ["glasserman_young", "outside_leverage", "threat_index"]


def glasserman_young(
    liabilities: Any, external_assets: ArrayLike, external_liabilities: ArrayLike | None = None
) -> Any:
    r"""Compute the contagion index of Glasserman and Young: how much of a node's loss can reach other nodes.

    With net worth w, outside assets c, outside leverage ``lambda = c / w`` and ``beta`` the share of its debt that a
    node owes inside the network, the index is ``w beta (lambda - 1) = beta (c - w)``. Contagion from i to a set D is
    weak, no likelier than a direct shock to D, where the net worth of D exceeds it.

    Parameters
    ----------
    liabilities : array_like or sparse (n, n)
        What row i owes column j, in money; not negative, nothing on the diagonal.
    external_assets : array_like (n,)
        Assets outside the network, in money; not negative.
    external_liabilities : array_like (n,), optional
        Debt to creditors outside the network, in money; nothing where omitted.

    Returns
    -------
    ndarray (n,), or Series where the matrix has labels
        Index of every node, in money; negative where losing all outside assets leaves it solvent.

    Raises
    ------
    SchemaError
        Listing everything that is wrong with the numbers.

    References
    ----------
    Glasserman, P., Young, H. P. (2015). How likely is contagion in financial networks? Journal of Banking and Finance
    50, 383-399. https://doi.org/10.1016/j.jbankfin.2014.02.006

    Examples
    --------
    >>> from netcontagion.ranking import glasserman_young
    >>> glasserman_young([[0, 8], [0, 0]], [20, 5], [8, 3]).tolist()
    [8.0, 0.0]
    """
    columns = {
        "external_assets": Column(external_assets, least=0.0, dimensions=(1,)),
        "external_liabilities": Column(external_liabilities, least=0.0, dimensions=(1,)),
    }
    owed, found, labels = checked_nodes(liabilities, columns)
    outside = found["external_assets"]
    return labelled(_index(owed, outside, found.get("external_liabilities", np.zeros(len(outside)))), labels)


def _index(owed: Any, assets: Floats, external: Floats) -> Floats:
    inside = owed.sum(axis=1)
    dues = inside + external
    worth = assets + owed.sum(axis=0) - dues
    connected = np.divide(inside, dues, out=np.zeros(len(dues)), where=dues > 0)
    return np.asarray(connected * (assets - worth) + 0.0)


# as measures of a study -------------------------------------------------------------------------------------------


def outside_leverage(study: Study) -> Scores:
    """Score by the index of Glasserman and Young after the shock; what an exchange holds for others is outside."""
    case = study.case
    if not case.owed.nnz:
        raise NotApplicable("nobody owes anybody")
    return study.by_kind(_index(case.owed, case.after.assets, case.outside))


def threat_index(study: Study) -> Scores:
    """Score by what one more unit of money at the node adds to the payments of all, after the shock."""
    of_one_class(study)
    case = study.case
    if not case.owed.nnz:
        raise NotApplicable("nobody owes anybody")
    cleared = eisenberg_noe(case.owed, case.after.assets, case.outside)
    if not np.asarray(cleared.defaulted).any():
        raise NotApplicable("all pay in full, so a unit more changes no payment; give a shock under which some do not")
    try:
        return study.by_kind(np.asarray(sensitivity(cleared).threat_index))
    except ContagionError as error:
        raise NotApplicable(str(error)) from None
