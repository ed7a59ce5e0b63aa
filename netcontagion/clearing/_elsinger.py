"""Elsinger clearing: debt in classes of seniority, and equity of the network held within it.

The equation, its solution and its bounds are in :mod:`._ranked`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy.sparse

from netcontagion.clearing._classes import DebtClasses
from netcontagion.clearing._input import Options, checked_input
from netcontagion.clearing._outcome import Outcome, result_of
from netcontagion.clearing._ranked import RankedSystem, bounds_of, ranks_of, solve_ranked
from netcontagion.clearing._shares import share_paid
from netcontagion.errors import Problem, SchemaError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import ArrayLike

    from netcontagion.clearing._ranked import Reached
    from netcontagion.clearing._result import ClearingResult
    from netcontagion.clearing._system import Floats

__all__ = [
    "HELD_IN_FULL",
    "Stakes",
    "checked_holdings",
    "checked_stakes",
    "cleared",
    "elsinger",
    "held_in_full",
    "labelled_alike",
    "place_of_external",
]

HELD_IN_FULL = 1e-12
"""An outside share of equity below this counts as none."""


def elsinger(
    liabilities_by_class: Sequence[Any],
    external_assets: ArrayLike,
    holdings: Any = None,
    external_liabilities: ArrayLike | None = None,
    *,
    external_class: int | str = 0,
    which: str = "greatest",
    rtol: float = 1e-10,
    max_rounds: int = 10_000,
    strict: bool = True,
) -> ClearingResult:
    r"""Compute the clearing payments of Elsinger: several classes of debt, and cross-holdings of equity.

    What node i has is ``R_i = e_i + sum_s sum_j p_js L^s_ji / d_js + sum_j H_ij max(0, R_j - d_j)``, where ``d_is`` is
    what it owes in class s and ``d_i`` in all. It pays one class after the other, each in proportion:
    ``p_is = min(d_is, max(0, R_i - sum_{r<s} d_ir))``. What is left is its equity, shared out among its holders.

    Parameters
    ----------
    liabilities_by_class : sequence of array_like or sparse (n, n)
        What row i owes column j, in money, a matrix per class from the most senior; not negative, nothing on the
        diagonal.
    external_assets : array_like (n,) or (n, s)
        Assets outside the network, in money, not negative; s columns are s scenarios.
    holdings : array_like or sparse (n, n), optional
        Share of the equity of column j that row i holds, from 0 to 1 (holders are rows); none where omitted. A column
        adds up to 1 at most, and no group of nodes may hold all the equity of all its members: it would have no
        owner, and a value out of nothing.
    external_liabilities : array_like (n,), optional
        What each node owes outside the network, in money; nothing where omitted.
    external_class : int or "senior"
        Class in which external creditors are paid, in proportion with it: 0, the default, is the most senior, -1 the
        most junior. "senior" is before every class. With one class 0 is ``external_rank="pari_passu"`` of
        :func:`eisenberg_noe`.
    which : {"greatest", "least"}
        Which solution where there are several; equities and what external creditors get are the same in all if each
        column of ``holdings`` adds up to less than 1.
    rtol : float
        Width of the enclosure, relative to the dues, at which a solve is certified.
    max_rounds : int
        Most rounds per scenario.
    strict : bool
        Raise when a scenario does not settle, instead of returning what was reached.

    Returns
    -------
    ClearingResult
        ``payments`` are sums over the classes, ``payments_by_class`` what is paid inside the network to each.
        ``net_worth`` counts the equity held in others.

    Raises
    ------
    SchemaError
        Everything that is wrong with the numbers, holdings without an outside owner among it.
    ValueError
        An option that is not one of those allowed.
    NotSettledError
        With ``strict``, when the solve ended without an answer; its ``result`` holds what was reached.

    Notes
    -----
    With several classes the solution need not be unique even if all external assets are positive: debt of a junior
    class in a circle may be paid out of itself. The enclosure is "bracket"; it bounds the solution asked for.

    References
    ----------
    Elsinger, H. (2009). Financial networks, cross holdings, and limited liability. Working Paper 156,
    Oesterreichische Nationalbank.

    Examples
    --------
    >>> from netcontagion.clearing import elsinger
    >>> senior, junior = [[0, 3], [0, 0]], [[0, 6], [0, 0]]
    >>> result = elsinger([senior, junior], external_assets=[5, 1], holdings=[[0, 0.5], [0, 0]])
    >>> [paid.tolist() for paid in result.payments_by_class], result.net_worth.tolist()
    ([[3.0, 0.0], [6.0, 0.0]], [1.0, 10.0])
    """
    options = Options("pari_passu", which, "auto", rtol, max_rounds, waves=False)
    options.check()
    stakes = checked_stakes(liabilities_by_class, external_assets, holdings, external_liabilities)
    place = place_of_external(external_class, len(stakes.classes))
    silent = () if external_liabilities is not None else (_NOTHING_OUTSIDE,)
    result = cleared(stakes, place, options, model="elsinger", assumptions=(*silent, *held_in_full(stakes.holdings)))
    return result.raise_for_status() if strict else result


_NOTHING_OUTSIDE = "no external liabilities were given: all debt is owed inside the network"


def place_of_external(external_class: int | str, classes: int) -> int:
    """Return the number of the class in which external creditors are paid, -1 before every class."""
    if external_class == "senior":
        return -1
    if isinstance(external_class, str) or not -classes <= external_class < classes:
        last = f"{-classes} to {classes - 1}"
        raise ValueError(f"external_class={external_class!r} is neither 'senior' nor the number of a class, {last}")
    return int(external_class) % classes


# ----------------------------------------------------------------------------------------------------------- the input


class Stakes(NamedTuple):
    """Input that was checked: matrices of the classes and of the holdings, and vectors, in one order of nodes."""

    classes: tuple[Any, ...]
    assets: Floats
    holdings: Any
    external: Floats
    labels: pd.Index[Any] | None = None


def checked_stakes(by_class: Any, assets: Any, holdings: Any, external: Any) -> Stakes:
    """Convert once, or raise one SchemaError with everything that is wrong."""
    matrices = _sequence(by_class)
    problems: list[Problem] = []
    matrices, labels = labelled_alike("liabilities_by_class", matrices, problems)
    (holdings,), _ = labelled_alike("holdings", [holdings], problems, labels)
    checked = [_one_class(number, one, assets, external, problems) for number, one in enumerate(matrices)]
    sizes = {one[0].shape[0] for one in checked if one is not None}
    if len(sizes) > 1:
        cure = "give every class a matrix of all nodes"
        problems.append(Problem("liabilities_by_class", None, None, f"sizes {sorted(sizes)}", "one size", cure))
    shares = checked_holdings("holdings", holdings, max(sizes, default=0), problems)
    if problems:
        raise SchemaError(problems)
    found = [one for one in checked if one is not None]
    classes = tuple(one[0] for one in found)
    checked_input(sum(classes[1:], classes[0]), found[0][1], found[0][2])  # the dues of all classes are finite too
    return Stakes(classes, found[0][1], shares, found[0][2], labels)


def _sequence(by_class: Any) -> list[Any]:
    one = scipy.sparse.issparse(by_class) or hasattr(by_class, "columns")
    matrices = [] if one else list(by_class)
    if matrices and len(_shape(matrices[0])) == 1:
        matrices, one = [], True
    labelled = {hasattr(matrix, "columns") for matrix in matrices}
    if len(labelled) == 2:
        cure = "give all classes with labels, or none"
        raise SchemaError([Problem("liabilities_by_class", None, None, "some have labels", "all or none", cure)])
    if not matrices:
        cure = "give a list of matrices, from the most senior class: [liabilities] for one class"
        found = "one matrix" if one or matrices else "no class"
        raise SchemaError([Problem("liabilities_by_class", None, None, found, "a sequence of (n, n) matrices", cure)])
    return matrices


def _shape(given: Any) -> tuple[int, ...]:
    """Return the shape of what is given, (0, 0) where it has none."""
    try:
        return np.shape(given)
    except ValueError:
        return (0, 0)


def _one_class(
    number: int, matrix: Any, assets: Any, external: Any, problems: list[Problem]
) -> tuple[Any, Floats, Floats] | None:
    """Check one class; the vectors are checked once, with the first."""
    if number:
        assets, external = np.zeros(_shape(matrix)[:1]), None
    try:
        return checked_input(matrix, assets, external)
    except SchemaError as error:
        for problem in error.problems:
            if problem.table == "liabilities":
                problems.append(replace(problem, table=f"liabilities_by_class[{number}]"))
            else:
                problems.append(problem)
    return None


def labelled_alike(
    table: str, matrices: list[Any], problems: list[Problem], labels: Any = None
) -> tuple[list[Any], Any]:
    """Put labelled matrices in one order, that of the first; labels that differ are problems."""
    ordered = []
    for matrix in matrices:
        if not (hasattr(matrix, "columns") and hasattr(matrix, "index")):
            ordered.append(matrix)
            continue
        labels = matrix.index if labels is None else labels
        alike = all(
            not axis.has_duplicates and not len(axis.symmetric_difference(labels))
            for axis in (matrix.index, matrix.columns)
        )
        if not alike:
            cure = "name the same nodes in rows and columns of every matrix, each once"
            problems.append(Problem(table, None, None, "labels differ", "the same labels", cure))
        ordered.append(matrix.reindex(index=labels, columns=labels) if alike else matrix.to_numpy())
    return ordered, labels


def checked_holdings(table: str, holdings: Any, nodes: int, problems: list[Problem], *, equity: bool = True) -> Any:
    """Convert shares held, holders in rows, and list what is wrong with them; of equity somebody outside owns some."""
    if holdings is None:
        return scipy.sparse.csr_array((nodes, nodes))
    try:
        shares = checked_input(holdings, np.zeros(_shape(holdings)[:1] or 1), None)[0]
    except SchemaError as error:
        problems += [replace(one, table=table, cure=_CURES.get(one.allowed, one.cure)) for one in error.problems]
        return None
    if nodes and shares.shape[0] != nodes:
        cure = "give one row and one column per node"
        problems.append(Problem(table, None, None, f"shape {shares.shape}", f"({nodes}, {nodes})", cure))
        return None
    held = shares.sum(axis=0)
    over = np.flatnonzero(held > 1 + HELD_IN_FULL)
    cure = "holders are rows: transpose the matrix if they are columns"
    problems += [Problem(table, str(at), None, float(held[at]), "a column adds up to 1 at most", cure) for at in over]
    for at in np.flatnonzero(~_owned_outside(shares, held)) if equity and not len(over) else ():
        cure = "leave a share to owners outside the network"
        problems.append(Problem(table, str(at), None, "held in full in a closed circle", "an outside owner", cure))
    return shares


_CURES = {
    "finite, at least 0": "give shares from 0 to 1",
    "0 on the diagonal": "leave out what a node holds of itself",
    "a square matrix": "rows are holders, columns what they hold, of the same nodes",
}


def _owned_outside(shares: Any, held: Floats) -> Any:
    """Mark nodes of which somebody outside owns a share, if only through others."""
    owned = held < 1 - HELD_IN_FULL
    while True:
        more = owned | (shares.T @ owned.astype(float) > 0)
        if (more == owned).all():
            return owned
        owned = more


def held_in_full(holdings: Any) -> tuple[str, ...]:
    """Say of how many nodes the network holds all equity: equities need not be the same in all solutions then."""
    count = int((holdings.sum(axis=0) >= 1 - HELD_IN_FULL).sum())
    return (f"the network holds all the equity of {count} nodes: equities may not be unique",) if count else ()


# ------------------------------------------------------------------------------------------------------------ clearing


def cleared(
    stakes: Stakes, place: int, options: Options, *, model: str, assumptions: tuple[str, ...]
) -> ClearingResult:
    """Solve every scenario; external creditors are paid in the class of that number, -1 before every class."""
    nodes = len(stakes.external)
    nothing = np.zeros(nodes)
    owed, outside = list(stakes.classes), [nothing] * len(stakes.classes)
    if place < 0:
        owed, outside = [scipy.sparse.csr_array((nodes, nodes)), *owed], [stakes.external, *outside]
    else:
        outside[place] = stakes.external
    ranks = ranks_of(tuple(owed), tuple(outside), stakes.holdings)
    systems = [RankedSystem(ranks, column) for column in np.atleast_2d(stakes.assets.T)]
    total = sum(stakes.classes[1:], stakes.classes[0])
    with np.errstate(over="ignore", invalid="ignore"):  # the status says so
        parts = [_solved(system, place, total.sum(axis=1), options) for system in systems]
    several = stakes.assets.ndim == 2
    paid = [
        np.array([part[1][rank] for part in parts]).reshape(-1, nodes).T if several else parts[0][1][rank]
        for rank in range(len(stakes.classes))
    ]
    rank = "senior" if place < 0 else "pari_passu" if len(stakes.classes) == 1 else f"class {place}"
    return result_of(
        [part[0] for part in parts],
        model=model,
        owed=total.tocsr(),
        assets=stakes.assets,
        external=stakes.external,
        external_rank=rank,
        which=options.which,
        conserves=True,
        labels=stakes.labels,
        classes=DebtClasses(stakes.classes, tuple(paid), stakes.holdings),
        assumptions=assumptions,
    )


def _solved(system: RankedSystem, place: int, internal: Floats, options: Options) -> tuple[Outcome, list[Floats]]:
    """Solve one scenario and bound it; also what is paid inside the network to each class."""
    greatest, dues = options.which == "greatest", system.ranks.dues
    reached = solve_ranked(system, greatest=greatest, max_rounds=options.max_rounds)
    lower, upper = bounds_of(system, reached.has, greatest=greatest)
    has = np.clip(reached.has, lower, upper)
    error = system.ranks.error
    low, high = (share_paid(np.minimum(bound, dues), dues) for bound in (lower, upper))
    low, high = low * (1 - error), high * (1 + error)
    width = float((high - low).max(initial=0.0))
    shares = system.paid(has)
    inside = [share * owed.sum(axis=1) for share, owed in zip(shares, system.ranks.owed, strict=True)]
    after = system.value(has)
    outcome = Outcome(
        share=share_paid(np.sum(inside, axis=0), internal),
        net_worth=after - dues,
        residual=_residual(system, has, after),
        rounds=reached.rounds,
        status=reached.status,
        lower=low,
        upper=high,
        enclosure="bracket",
        external=shares[max(place, 0)],
        notes=_doubts(reached, width, options.rtol),
    )
    return outcome, inside if place >= 0 else inside[1:]


def _residual(system: RankedSystem, has: Floats, after: Floats) -> float:
    if not np.isfinite(after).all():
        return float(np.nan)
    scale = np.maximum(np.maximum(has, after), system.ranks.dues)
    return float(share_paid(np.abs(after - has), scale).max(initial=0.0))


def _doubts(reached: Reached, width: float, rtol: float) -> tuple[str, ...]:
    if not reached.status.settled or width <= rtol:
        return ()
    return (f"uncertified: the bracket is {width:.3g} wide, the residual decided",)
