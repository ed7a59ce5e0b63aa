"""Ranked classes of debt with default costs, and a rule of division in each class.

The equation, its solution and its bounds are in :mod:`._costly_ranks`, the rules in :mod:`._divisions`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse

from netcontagion._status import Status
from netcontagion.clearing._costly_ranks import CostlyRanks, bounds_of, debt_of, solve_costly
from netcontagion.clearing._divisions import RULES, DividedClasses, claims_of, division_of
from netcontagion.clearing._elsinger import checked_stakes, place_of_external
from netcontagion.clearing._input import Options
from netcontagion.clearing._node_input import per_node
from netcontagion.clearing._outcome import Outcome, result_of
from netcontagion.clearing._shares import share_paid
from netcontagion.errors import Problem, SchemaError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

    from netcontagion.clearing._costly_ranks import Debt
    from netcontagion.clearing._divisions import Division
    from netcontagion.clearing._elsinger import Stakes
    from netcontagion.clearing._result import ClearingResult
    from netcontagion.clearing._system import Floats

__all__ = ["ranked"]


def ranked(
    liabilities_by_class: Sequence[Any],
    external_assets: ArrayLike,
    external_liabilities: ArrayLike | None = None,
    *,
    alpha: float | ArrayLike = 1.0,
    beta: float | ArrayLike = 1.0,
    division: str | Sequence[str] = "pro_rata",
    priority: Any = None,
    external_class: int | str = 0,
    which: str = "greatest",
    rtol: float = 1e-10,
    max_rounds: int = 10_000,
    strict: bool = True,
) -> ClearingResult:
    r"""Compute clearing payments with classes of debt, default costs, and a rule of division in each class.

    With receipts ``r_i``, dues ``d_is`` in class s and ``d_i`` in all, node i pays all if ``e_i + r_i >= d_i``. Else
    its estate is ``a_i = alpha_i e_i + beta_i r_i``, and class s gets ``p_is = min(d_is, max(0, a_i - sum_{t<s}
    d_it))``. That is divided among the creditors of the class: "pro_rata", ``p_is L^s_ij / d_is``; "queue", one after
    the other in full; "equal_loss", ``max(0, L^s_ij - m)``; "equal_payment", ``min(L^s_ij, m)``, with the m that sums
    to ``p_is``.

    Parameters
    ----------
    liabilities_by_class : sequence of array_like or sparse (n, n)
        What row i owes column j, in money, a matrix per class from the most senior; not negative, nothing on the
        diagonal.
    external_assets : array_like (n,) or (n, s)
        Assets outside the network, in money, not negative; s columns are s scenarios.
    external_liabilities : array_like (n,), optional
        What each node owes outside the network, in money; nothing where omitted. One creditor per node, the last in a
        queue.
    alpha, beta : float or array_like (n,)
        Share of its external assets, and of its receipts, that a defaulter pays out; from 0 to 1.
    division : str or sequence of str
        Rule of all classes, or of each: "pro_rata", "queue", "equal_loss", "equal_payment".
    priority : array_like (n,) or (n, n), optional
        Place in the queues, the lowest first, ties in the order of columns: of a creditor in every queue, or of column
        j in the queue of row i. Where omitted all are the same.
    external_class : int or "senior"
        Class in which external creditors are paid: 0, the default, is the most senior, -1 the most junior. "senior" is
        before every class.
    which : {"greatest", "least"}
        Which solution where there are several.
    rtol : float
        Width of the enclosure, relative to the dues, at which a solve is certified.
    max_rounds : int
        Most rounds per scenario.
    strict : bool
        Raise when a scenario does not settle, instead of returning what was reached.

    Returns
    -------
    ClearingResult
        ``payments`` are sums over the classes, ``payments_by_class`` what is paid inside the network to each;
        ``net_worth`` is before default costs, ``default_costs`` is what defaults destroy.

    Raises
    ------
    SchemaError
        Everything that is wrong with the numbers.
    ValueError
        An option that is not one of those allowed, ``alpha`` or ``beta`` outside [0, 1].
    NotSettledError
        With ``strict``, when the solve ended without an answer; its ``result`` holds what was reached.

    Notes
    -----
    One class divided pro rata is :func:`rogers_veraart`; without default costs classes divided pro rata are
    :func:`elsinger`. Solvency is the weak inequality up to ``SOLVENCY_TOLERANCE`` (1e-12) of all dues. The enclosure is
    "bracket"; it bounds the solution asked for.

    References
    ----------
    Rogers, L. C. G., Veraart, L. A. M. (2013). Failure and rescue in an interbank network. Management Science 59(4),
    882-898. https://doi.org/10.1287/mnsc.1120.1569
    Elsinger, H. (2009). Financial networks, cross holdings, and limited liability. Working Paper 156,
    Oesterreichische Nationalbank.
    Besting, M., Hoefer, M., Huth, L. (2026). Computing Tarski fixed points in financial networks. arXiv:2602.16387.
    Csóka, P., Herings, P. J.-J. (2018). Decentralized clearing in financial networks. Management Science 64(10),
    4681-4699. https://doi.org/10.1287/mnsc.2017.2847

    Examples
    --------
    >>> from netcontagion.clearing import ranked
    >>> run = [[0, 60, 40], [0, 0, 0], [0, 0, 0]]
    >>> [ranked([run], [70, 0, 0], division=rule).net_worth.tolist() for rule in ("queue", "equal_loss")]
    [[-30.0, 60.0, 10.0], [-30.0, 45.0, 25.0]]
    """
    options = Options("pari_passu", which, "auto", rtol, max_rounds, waves=False)
    options.check()
    stakes, places = _input(liabilities_by_class, external_assets, external_liabilities, priority)
    rules = _rules(division, len(stakes.classes))
    nodes, labels = len(stakes.external), stakes.labels
    costs = per_node("alpha", alpha, nodes, labels), per_node("beta", beta, nodes, labels)
    place = place_of_external(external_class, len(rules))
    debt = debt_of(_divisions(stakes, places, rules, place), *costs)
    silent = () if external_liabilities is not None else (_NOTHING_OUTSIDE,)
    with np.errstate(over="ignore", invalid="ignore"):  # the status says so
        parts = [_solved(CostlyRanks(debt, assets), place, options) for assets in np.atleast_2d(stakes.assets.T)]
    result = result_of(
        [part[0] for part in parts],
        model="ranked",
        owed=sum(stakes.classes[1:], stakes.classes[0]).tocsr(),
        assets=stakes.assets,
        external=stakes.external,
        external_rank="senior" if place < 0 else "pari_passu" if len(rules) == 1 else f"class {place}",
        which=which,
        conserves=bool((debt.alpha == 1).all() and (debt.beta == 1).all()),
        labels=labels,
        classes=_divided(stakes, places, rules, [part[1] for part in parts]),
        assumptions=(*_said(debt, rules), *silent),
    )
    return result.raise_for_status() if strict else result


_NOTHING_OUTSIDE = "no external liabilities were given: all debt is owed inside the network"


def _said(debt: Debt, rules: tuple[str, ...]) -> tuple[str, ...]:
    """Say what a default costs, and how classes are divided."""
    alpha, beta = (_range(share) for share in (debt.alpha, debt.beta))
    costs = f"a defaulter pays out {alpha} of its external assets and {beta} of its receipts"
    divided = f"what a class gets is divided: {', '.join(rules)} (from the most senior)"
    return costs, divided if len(rules) > 1 else f"what creditors get is divided: {rules[0]}"


def _range(share: Floats) -> str:
    low, high = (share.min(), share.max()) if len(share) else (1.0, 1.0)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


# ----------------------------------------------------------------------------------------------------------- the input


def _input(by_class: Any, assets: Any, external: Any, priority: Any) -> tuple[Stakes, Any]:
    """Convert once, or raise one SchemaError with everything that is wrong."""
    problems: list[Problem] = []
    stakes = None
    try:
        stakes = checked_stakes(by_class, assets, None, external)
    except SchemaError as error:
        problems += error.problems
    nodes = None if stakes is None else len(stakes.external)
    places = _priority(priority, nodes, None if stakes is None else stakes.labels, problems)
    if problems or stakes is None:
        raise SchemaError(problems)
    return stakes, places


def _priority(given: Any, nodes: int | None, labels: Any, problems: list[Problem]) -> Any:
    """Convert places in queues: None, (n,), or a csr_array (n, n)."""
    if given is None:
        return None
    if labels is not None and hasattr(given, "reindex"):
        axes = [given.index, *([given.columns] if hasattr(given, "columns") else [])]
        if any(axis.has_duplicates or len(axis.symmetric_difference(labels)) for axis in axes):
            cure = "label it as the matrices are, or give plain values"
            problems.append(Problem("priority", None, None, "its labels are not the matrix's", "the same labels", cure))
            return None
        given = given.reindex(**dict(zip(("index", "columns"), [labels] * len(axes), strict=False)))
    try:
        sparse = scipy.sparse.issparse(given)
        array: Any = scipy.sparse.coo_array(given, dtype=float) if sparse else np.array(given, dtype=float)
    except (TypeError, ValueError) as error:
        problems.append(Problem("priority", None, None, str(error), "numbers", "remove what is not a number"))
        return None
    if array.ndim not in (1, 2) or (nodes is not None and array.shape not in ((nodes,), (nodes, nodes))):
        cure = "give a number for each creditor, or for each debtor and creditor"
        problems.append(Problem("priority", None, None, f"shape {array.shape}", "(n,) or (n, n)", cure))
        return None
    values, places = (array.data, array.coords) if sparse else (array.ravel(), np.indices(array.shape))
    places = np.reshape(places, (array.ndim, -1))
    cure = "give every creditor a number, the lowest first"
    for at in np.flatnonzero(~np.isfinite(values)):
        row, *column = places[:, at].tolist()
        problems.append(Problem("priority", str(column[0]) if column else None, row, float(values[at]), "finite", cure))
    return None if problems else array if array.ndim == 1 else scipy.sparse.csr_array(array)


def _rules(division: str | Sequence[str], classes: int) -> tuple[str, ...]:
    rules = (division,) * classes if isinstance(division, str) else tuple(division)
    for rule in rules:
        if rule not in RULES:
            raise ValueError(f"division={rule!r} is not one of {', '.join(map(repr, RULES))}")
    if len(rules) != classes:
        raise ValueError(f"division has {len(rules)} rules for {classes} classes: give one, or one for each class")
    return rules


def _divisions(stakes: Stakes, places: Any, rules: tuple[str, ...], place: int) -> tuple[Division, ...]:
    """Set up the classes; external creditors are in the class of that number, -1 before every class."""
    nodes = len(stakes.external)
    owed, outside = list(stakes.classes), [np.zeros(nodes) for _ in stakes.classes]
    if place < 0:
        owed, outside = [scipy.sparse.csr_array((nodes, nodes)), *owed], [stakes.external, *outside]
        rules = ("pro_rata", *rules)
    else:
        outside[place] = stakes.external
    return tuple(_divided_by(rule, one, places, other) for rule, one, other in zip(rules, owed, outside, strict=True))


def _divided_by(rule: str, owed: Any, places: Any, outside: Floats | None = None) -> Division:
    claims = claims_of(owed, outside)
    return division_of(rule, claims, _places_of(places, claims.debtor, claims.creditor, owed.shape[0]))


def _places_of(places: Any, debtor: Any, creditor: Any, nodes: int) -> Floats:
    """Place of each claim in the queue of its debtor; the outside is last."""
    if places is None:
        return np.zeros(len(debtor))
    if places.ndim == 1:
        given_once: Floats = np.append(places, np.inf)[creditor]
        return given_once
    given = scipy.sparse.coo_array(places)
    key, wanted = given.row * np.int64(nodes) + given.col, debtor * np.int64(nodes) + creditor
    order = np.argsort(key)
    at = np.append(order, 0)[np.searchsorted(key, wanted, sorter=order)]
    found = np.append(key, -1)[at if len(key) else np.full(len(wanted), -1)] == wanted
    return np.where(creditor == nodes, np.inf, np.where(found, np.append(given.data, 0.0)[at], 0.0))


# ------------------------------------------------------------------------------------------------------------- results


def _solved(system: CostlyRanks, place: int, options: Options) -> tuple[Outcome, list[Floats]]:
    """Solve one scenario and bound it; also what is paid inside the network to each class."""
    greatest, debt = options.which == "greatest", system.debt
    received, rounds, status = solve_costly(system, greatest=greatest, max_rounds=options.max_rounds)
    lower, upper = bounds_of(system, received, greatest=greatest)
    received = np.clip(received, lower, upper)
    low, high = system.share(lower, -1.0), system.share(upper, 1.0)
    after = system.value(received)
    residual = float(np.abs(system.share(after) - system.share(received)).max(initial=0.0))
    sides = [_sides(division, paid) for division, paid in zip(debt.divisions, system.paid(received), strict=True)]
    due = [_sides(division, division.claims.amount) for division in debt.divisions]
    (inside, outside), (internal, external) = np.sum(sides, axis=0), np.sum(due, axis=0)
    width = float((high - low).max(initial=0.0))
    if status is Status.SETTLED and not min(width, residual) <= options.rtol:
        status = Status.STALLED
    outcome = Outcome(
        share=np.minimum(share_paid(inside, internal), 1.0),
        net_worth=system.assets + after - debt.dues,
        residual=residual,
        rounds=rounds,
        status=status if np.isfinite(after).all() else Status.NONFINITE,
        lower=low,
        upper=high,
        enclosure="bracket",
        external=np.minimum(share_paid(outside, external), 1.0),
        notes=(f"uncertified: the bracket is {width:.3g} wide, the residual decided",) if width > options.rtol else (),
    )
    return outcome, [one for one, _ in sides][place < 0 :]


def _sides(division: Division, amounts: Floats) -> tuple[Floats, Floats]:
    """Sum up the amounts of each debtor to creditors inside the network, and outside."""
    debtor, creditor, _, due = division.claims
    inside = creditor < len(due)
    sums = [np.bincount(debtor, amounts * side, len(due)).astype(float) for side in (inside, ~inside)]
    return sums[0], sums[1]


def _divided(stakes: Stakes, places: Any, rules: tuple[str, ...], scenarios: list[list[Floats]]) -> DividedClasses:
    """Put what is paid in each class side by side, in the shape of the assets."""
    shape = stakes.assets.shape
    paid = [np.reshape([one[at] for one in scenarios], shape[::-1]).T for at in range(len(rules))]
    divisions = [_divided_by(rule, owed, places) for rule, owed in zip(rules, stakes.classes, strict=True)]
    return DividedClasses(stakes.classes, tuple(paid), tuple(divisions))
