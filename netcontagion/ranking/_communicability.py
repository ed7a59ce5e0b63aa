"""Who can bring whom down, along chains: the communicability of whole impacts, and what is read off it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion.clearing import Column, checked_nodes
from netcontagion.ranking._dense import check_dense
from netcontagion.ranking._given import labelled

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike

    from netcontagion.ranking._study import Floats

__all__ = ["communicability", "impact_diffusion", "impact_fluidity", "impact_susceptibility"]

WHOLE = 1.0 - 1e-12
"""Impact from which the failure of a node alone uses up the equity of another, up to rounding."""


def communicability(liabilities: Any, equity: ArrayLike) -> Any:
    r"""Return the communicability of who alone can bring whom down: all chains from i to j, those of k links over k!.

    ``exp(V)`` with ``V_ij = 1`` where the debt of i uses up the equity of j, ``L_ij >= equity_j``, else 0.

    Parameters
    ----------
    liabilities : array_like or sparse (n, n)
        What row i owes column j, in money; not negative, nothing on the diagonal.
    equity : array_like (n,)
        Equity of each node, in money; more than 0.

    Returns
    -------
    ndarray (n, n), or DataFrame where the matrix has labels
        Dense.

    Raises
    ------
    SchemaError
        Listing everything that is wrong with the numbers.
    ValueError
        More nodes than a dense matrix allows.

    References
    ----------
    Silva, T. C., Souza, S. R. S., Tabak, B. M. (2016). Network structure analysis of the Brazilian interbank market.
    Emerging Markets Review 26, 130-152. https://doi.org/10.1016/j.ememar.2015.12.004

    Examples
    --------
    >>> from netcontagion.ranking import communicability
    >>> communicability([[0, 5, 0], [0, 0, 10], [0, 0, 0]], [4, 2, 10]).round(9).tolist()
    [[1.0, 1.0, 0.5], [0.0, 1.0, 1.0], [0.0, 0.0, 1.0]]
    """
    links, labels = _links(liabilities, equity)
    return labelled(_communicability(links), labels)


def impact_susceptibility(liabilities: Any, equity: ArrayLike) -> Any:
    """Return how exposed nodes are to chains of failures, per node that can bring them down directly.

    Column sum of :func:`communicability` without the diagonal, over the number of nodes that alone can bring the node
    down: 0 where there is none, 1 where all chains that end there have one link.

    Parameters
    ----------
    liabilities : array_like or sparse (n, n)
        What row i owes column j, in money; not negative, nothing on the diagonal.
    equity : array_like (n,)
        Equity of each node, in money; more than 0.

    Returns
    -------
    ndarray (n,), or Series where the matrix has labels
        0, or at least 1.

    Raises
    ------
    SchemaError
        Listing everything that is wrong with the numbers.
    ValueError
        More nodes than a dense matrix allows.

    References
    ----------
    Silva, Souza and Tabak (2016), https://doi.org/10.1016/j.ememar.2015.12.004

    Examples
    --------
    >>> from netcontagion.ranking import impact_susceptibility
    >>> impact_susceptibility([[0, 5, 0], [0, 0, 10], [0, 0, 0]], [4, 2, 10]).round(9).tolist()
    [0.0, 1.0, 1.5]
    """
    links, labels = _links(liabilities, equity)
    return labelled(_susceptibility(links), labels)


def impact_fluidity(liabilities: Any, equity: ArrayLike) -> float:
    """Return the mean susceptibility of all nodes, see :func:`impact_susceptibility`.

    Parameters
    ----------
    liabilities : array_like or sparse (n, n)
        What row i owes column j, in money; not negative, nothing on the diagonal.
    equity : array_like (n,)
        Equity of each node, in money; more than 0.

    Returns
    -------
    float
        0 without nodes.

    Raises
    ------
    SchemaError
        Listing everything that is wrong with the numbers.
    ValueError
        More nodes than a dense matrix allows.

    Examples
    --------
    >>> from netcontagion.ranking import impact_fluidity
    >>> impact_fluidity([[0, 5], [0, 0]], [4, 2])
    0.5
    """
    links, _ = _links(liabilities, equity)
    found = _susceptibility(links)
    return float(found.mean()) if len(found) else 0.0


def impact_diffusion(liabilities: Any, equity: ArrayLike) -> pd.DataFrame:
    """Return how much communicability a node adds, per node it can bring down: as a start of chains, and inside them.

    The fall of :func:`communicability` when the node can bring nobody down any more: ``start`` is the fall of its own
    row, ``intermediate`` that of all other rows, both over the number of nodes it alone can bring down.

    Parameters
    ----------
    liabilities : array_like or sparse (n, n)
        What row i owes column j, in money; not negative, nothing on the diagonal.
    equity : array_like (n,)
        Equity of each node, in money; more than 0.

    Returns
    -------
    DataFrame
        By node: ``start``, ``intermediate`` and ``total``; 0 where it can bring nobody down.

    Raises
    ------
    SchemaError
        Listing everything that is wrong with the numbers.

    References
    ----------
    Silva, Souza and Tabak (2016), https://doi.org/10.1016/j.ememar.2015.12.004

    Examples
    --------
    >>> from netcontagion.ranking import impact_diffusion
    >>> impact_diffusion([[0, 5, 0], [0, 0, 10], [0, 0, 0]], [4, 2, 10]).round(9).loc[1].tolist()
    [1.0, 0.5, 1.5]
    """
    import pandas as pd

    links, labels = _links(liabilities, equity)
    reached = np.diff(links.indptr)
    everything, table = _row_sums(links), np.zeros((links.shape[0], 2))
    for node in np.flatnonzero(reached).tolist():
        without = links.copy()
        without.data[without.indptr[node] : without.indptr[node + 1]] = 0.0
        fell = everything - _row_sums(without)
        table[node] = fell[node], fell.sum() - fell[node]
        table[node] /= reached[node]
    found = pd.DataFrame(table, columns=["start", "intermediate"], index=labels)
    return found.assign(total=found["start"] + found["intermediate"])


def _links(liabilities: Any, equity: ArrayLike) -> tuple[Any, Any]:
    """Return who alone can bring whom down, as a sparse matrix of 1s, and the labels of the matrix."""
    owed, found, labels = checked_nodes(liabilities, {"equity": Column(equity, least=0.0, open=True, dimensions=(1,))})
    links = owed.copy()
    links.data = (links.data >= WHOLE * found["equity"][links.indices]).astype(float)
    links.eliminate_zeros()
    return links, labels


def _communicability(links: Any) -> Floats:
    import scipy.linalg

    check_dense("communicability", links.shape[0])
    return np.asarray(scipy.linalg.expm(links.toarray())) if links.nnz else np.eye(links.shape[0])


def _row_sums(links: Any) -> Floats:
    """Add communicability up over columns, without the matrix."""
    from scipy.sparse.linalg import expm_multiply

    ones = np.ones(links.shape[0])
    return np.asarray(expm_multiply(links, ones)) if links.nnz else ones


def _susceptibility(links: Any) -> Floats:
    direct, table = links.sum(axis=0), _communicability(links)
    reached = table.sum(axis=0) - table.diagonal()
    return np.asarray(np.divide(reached, direct, out=np.zeros(len(direct)), where=direct > 0))
