"""Matrices of bilateral amounts from margins."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from netcontagion.builders._gibbs import draw
from netcontagion.builders._margins import Margins, read_margins
from netcontagion.builders._maximum_entropy import Factors, maximum_entropy
from netcontagion.builders._minimum_density import minimum_density
from netcontagion.errors import NotSettledError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

__all__ = ["reconstruct"]

_METHODS: dict[str, Callable[..., Any]] = {
    "max_entropy": maximum_entropy,
    "min_density": minimum_density,
    "gibbs": draw,
}
_MARGIN_ERROR = 1e-9
"""Every matrix has its margins up to this share of each of them, or is not returned."""


def reconstruct(
    assets: Any,
    liabilities: Any,
    *,
    method: str,
    n: int = 1,
    seed: int | np.random.Generator | None = None,
    known: Any = None,
    forbidden: Any = None,
    bipartite: bool = False,
    **options: Any,
) -> Any:
    r"""Reconstruct who owes whom from what each node is owed and owes inside the network.

    The result L has :math:`\sum_j L_{ij} = liabilities_i` and :math:`\sum_i L_{ij} = assets_j`: **row i owes column
    j**, as :func:`from_matrix` with ``rows="debtor"`` and :func:`netcontagion.clearing.eisenberg_noe` read it. Every
    margin holds to 1e-9 of itself, and the diagonal is 0.

    Parameters
    ----------
    assets : (n,) array or Series
        What each node is owed inside the network [num].
    liabilities : (n,) array or Series
        What each node owes inside the network [num]. Series are joined by label.
    method : {"max_entropy", "min_density", "gibbs"}
        What stands for the cells that are not observed; the answers differ widely, so there is no default.

        - ``"max_entropy"``: :math:`L_{ij} = x_i y_j` off the diagonal, the most even spread (Upper and Worm 2004), the
          limit of scaling rows and columns of ones in turn (RAS). One matrix with n (n - 1) links; it hides
          concentration.
        - ``"min_density"``: as few links as the margins allow (Anand, Craig and von Peter 2015). One matrix.
        - ``"gibbs"``: draws from the posterior of Gandy and Veraart (2017), where each cell is a link with probability
          ``link_probability`` and an exponential amount of rate ``rate``, given the margins.
    n : int, default 1
        Draws of the ensemble ("gibbs" only: the other matrices are unique, or the same each time).
    seed : int, Generator or None
        Seed of the draws ("gibbs" only).
    known : mapping, array, sparse array or DataFrame, optional
        Amounts that are observed: ``{(debtor, creditor): amount}``, or a matrix with NaN where nothing is known (of a
        sparse one: what is stored). They are part of the margins.
    forbidden : iterable of (debtor, creditor), boolean matrix or DataFrame, optional
        Cells that are 0.
    bipartite : bool, default False
        Rows and columns are different nodes, and no cell is shut: ``liabilities`` by issuer (rows), ``assets`` by
        holder (columns). Take ``.T`` for holders in rows.
    **options
        Of ``"max_entropy"``: ``form``, ``"sparse"`` (12 bytes a cell; must be said above 2**26 cells) or ``"factors"``,
        an object in O(n) memory with ``@``, ``.T``, ``.sum``, ``.to_sparse()``; with known or forbidden cells also
        ``rtol=1e-10``, ``max_rounds=10_000`` and ``strict=True``.

        Of ``"min_density"``: ``solver``, ``"heuristic"``, ``"exact"`` (mixed-integer programme; raises where
        ``time_limit=30.0`` seconds do not prove the fewest links, unless ``strict=False``) or ``"auto"`` (exact within
        the time limit up to 24 margins above 0, else the heuristic).

        Of ``"gibbs"``: ``link_probability`` (required; a number in (0, 1] or a matrix), ``rate`` (1 / mean amount of a
        link [1/num], default such that the prior total is the given one), ``burn_in=300`` sweeps before the
        first draw and ``thin=30`` between draws; a sweep is as many moves as there are links. Sparse matrices of
        hundreds of nodes forget their start slowly: compare seeds.

    Returns
    -------
    csr_array, or DataFrame where margins are labelled
        The matrix; with ``n > 1`` a list of them. ``Factors`` with ``form="factors"``.

    Raises
    ------
    SchemaError
        Listing every problem: negative or NaN margins, totals that differ (by how much), cells both known and
        forbidden, margins that no matrix has (which, and what they could be at most).
    ValueError
        An option that the method does not have, or outside its bounds.
    NotSettledError
        Carrying the matrix: scaling that did not reach ``rtol``, or a number of links that was not proven.

    Notes
    -----
    Without known cells a matrix exists iff assets + liabilities of no node exceed the total. The chain of "gibbs"
    counts in whole quanta (2**-59 of the total or less), so that it keeps margins exactly. Where partial sums of the
    margins agree its posterior is that of margins that differ slightly: conditioned on the exact numbers it would be
    all on matrices that fall apart there, an artefact of rounded data. A move redraws a cycle of any length, found by
    walking along links. Memory while solving, a cell: 41 bytes for "gibbs", 10 for "min_density", 24 with known or
    forbidden cells for "max_entropy".

    References
    ----------
    Upper, Worm, European Economic Review 48 (2004), doi:10.1016/j.euroecorev.2003.12.009. Anand, Craig, von Peter,
    Quantitative Finance 15 (2015), doi:10.1080/14697688.2014.968195. Gandy, Veraart, Management Science 63 (2017),
    doi:10.1287/mnsc.2016.2546.

    Examples
    --------
    >>> from netcontagion import builders
    >>> matrix = builders.reconstruct([1, 2, 3], [3, 2, 1], method="min_density")
    >>> matrix.nnz, matrix.sum(axis=1).tolist(), matrix.sum(axis=0).tolist()
    (4, [3.0, 2.0, 1.0], [1.0, 2.0, 3.0])
    """
    solve = _checked(method, n, seed, options)
    margins = read_margins(assets, liabilities, known=known, forbidden=forbidden, bipartite=bipartite)
    if method == "gibbs":
        import numpy as np

        matrices = solve(margins, n, np.random.default_rng(seed), **options)
    else:
        matrices = [solve(margins, **options)]
    verify = options.get("strict", True)
    found = [_finished(matrix, margins, verify=verify) for matrix in matrices]
    return found if n > 1 else found[0]


def _checked(method: str, n: int, seed: Any, options: dict[str, Any]) -> Callable[..., Any]:
    """Find the method; refuse what it does not have."""
    if method not in _METHODS:
        raise ValueError(f"method={method!r} is not one of {', '.join(map(repr, _METHODS))}")
    parameters = inspect.signature(_METHODS[method]).parameters.values()
    allowed = [value.name for value in parameters if value.kind is inspect.Parameter.KEYWORD_ONLY]
    for name in options:
        if name not in allowed:
            raise ValueError(f"method={method!r} has no option {name!r}; its options: {', '.join(allowed)}")
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ValueError(f"n={n!r} must be a whole number, at least 1")
    if method != "gibbs" and (n != 1 or seed is not None):
        raise ValueError(f"n and seed are for method='gibbs': method={method!r} gives one matrix")
    return _METHODS[method]


def _finished(matrix: Any, margins: Margins, *, verify: bool) -> Any:
    """Verify the margins, and label the matrix where they are labelled."""
    error = margins.error(matrix)
    if verify and not error <= _MARGIN_ERROR:
        raise NotSettledError(f"margins are off by {error:.1e} of themselves: they differ too much in size", matrix)
    if isinstance(matrix, Factors) or (margins.row_labels is None and margins.column_labels is None):
        return matrix
    import pandas as pd

    return pd.DataFrame(matrix.toarray(), index=margins.row_labels, columns=margins.column_labels)
