"""Eisenberg-Noe clearing: everybody pays what is due, or everything there is, in proportion to the dues.

The equation is in :mod:`._system`, what makes its solution unique in :mod:`._extremes`, how it is solved in
:mod:`._solvers` and what proves a solution in :mod:`._enclosure`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion._status import Status
from netcontagion.clearing._accelerate import accelerated
from netcontagion.clearing._enclosure import KINDS, Enclosure
from netcontagion.clearing._extremes import alive_nodes, with_the_dead
from netcontagion.clearing._input import Options, checked_assets, checked_input
from netcontagion.clearing._push import pushed
from netcontagion.clearing._result import ClearingResult, NodeValues
from netcontagion.clearing._scenario_assets import read_scenarios
from netcontagion.clearing._scenarios import ShortfallValues, push_batch
from netcontagion.clearing._shares import SOLVENCY_TOLERANCE, share_paid
from netcontagion.clearing._solvers import Solved, auto, concluded, fictitious_default, from_above, from_below
from netcontagion.clearing._system import Prepared

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from netcontagion.clearing._scenario_assets import ScenarioAssets
    from netcontagion.clearing._system import Bools, Floats, System

__all__ = ["SOLVERS", "clear_scenarios", "eisenberg_noe", "prepare"]

SOLVERS = ("auto", "push", "accelerated", "fixed_point", "fictitious_default")
PUSH_ROUNDS = 300  # of a push before "auto" mixes
LARGE = 100_000  # claims from which "auto" begins with a push


def eisenberg_noe(
    liabilities: Any,
    external_assets: ArrayLike,
    external_liabilities: ArrayLike | None = None,
    *,
    external_rank: str = "pari_passu",
    which: str = "greatest",
    solver: str = "auto",
    rtol: float = 1e-10,
    max_rounds: int = 10_000,
    strict: bool = True,
    waves: bool = False,
) -> ClearingResult:
    r"""Compute the clearing payments of Eisenberg and Noe.

    With dues ``d_i = sum_j L_ij + b_i``, external debt pari passu, every node pays
    ``p_i = min(d_i, e_i + sum_j p_j L_ji / d_j)``. With external debt senior, what is paid inside the network is
    ``p_i = min(sum_j L_ij, max(0, e_i - b_i + sum_j p_j L_ji / sum_k L_jk))`` and what is paid outside
    ``min(b_i, e_i + receipts_i)``.

    Parameters
    ----------
    liabilities : array_like or sparse (n, n), or Prepared
        What row i owes column j, in money; not negative, nothing on the diagonal. What :func:`prepare` returns spares
        the checks and sums of a network that is cleared many times.
    external_assets : array_like (n,) or (n, s)
        Assets outside the network, in money, not negative; s columns are s scenarios. A negative net position
        goes into ``external_liabilities`` with ``external_rank="senior"``.
    external_liabilities : array_like (n,), optional
        What each node owes outside the network, in money; nothing where omitted.
    external_rank : {"pari_passu", "senior"}
        Whether external creditors are paid in proportion with the others or before them.
    which : {"greatest", "least"}
        Which solution where there are several; equities are the same in all.
    solver : {"auto", "push", "accelerated", "fixed_point", "fictitious_default"}
        ``"push"``: shortfalls are pushed from defaulters to their creditors; work follows the defaulters, bounds are
        proved. ``"accelerated"``: Anderson mixing, certified afterwards, for systems where many default.
        ``"fixed_point"``: monotone iteration. ``"fictitious_default"``: exact sparse solves on the growing default set,
        at most n waves; gives ``default_wave``. For the least vector with senior external debt only ``"fixed_point"``
        or ``"auto"``. ``"auto"``: below 100,000 claims a few rounds of the fixed point, then fictitious default from
        the default set reached; above, push, then accelerated when push would visit all claims too often; what
        fails to be certified falls back to the slower ones.
    rtol : float
        Width of the enclosure, relative to the dues, at which a solve has settled.
    max_rounds : int
        Most rounds (waves included) per scenario.
    strict : bool
        Raise when a scenario does not settle, instead of returning what was reached.
    waves : bool
        Compute ``default_wave`` with any solver; for the greatest vector only.

    Returns
    -------
    ClearingResult
        Payments, defaults, bounds, residual and status; arrays shaped like ``external_assets``.

    Raises
    ------
    SchemaError
        Listing everything that is wrong with the numbers.
    ValueError
        An option that is not one of those allowed, or a combination that has no meaning.
    NotSettledError
        With ``strict``, when the solve ended without an answer; its ``result`` holds what was reached.

    Notes
    -----
    Solvency is the weak inequality up to ``SOLVENCY_TOLERANCE`` (1e-12) of the dues. The enclosure is "concave" (a
    proof for the vector asked for, rounding included) where no external asset is smaller than the external debt senior
    to the network, else "bracket": monotone runs from below and above, which bound the least and the greatest vector. A
    push gives a "bracket" of the greatest vector, in either rank.

    References
    ----------
    Eisenberg, L., Noe, T. H. (2001). Systemic risk in financial systems. Management Science 47(2), 236-249.
    https://doi.org/10.1287/mnsc.47.2.236.9835

    Examples
    --------
    >>> from netcontagion.clearing import eisenberg_noe
    >>> result = eisenberg_noe([[0, 20, 10], [5, 0, 24], [10, 0, 0]], external_assets=[10, 10, 10])
    >>> result.payments.round(4).tolist(), result.defaulted.tolist()
    ([24.5455, 26.3636, 10.0], [True, True, False])
    """
    options = Options(external_rank, which, solver, rtol, max_rounds, waves)
    options.check(SOLVERS)
    prepared, assets = _read(liabilities, external_assets, external_liabilities, options)
    told = external_liabilities is not None or bool(prepared.external.any())
    if assets.size and _pushes_first(prepared.owed, options):
        result = _together(prepared, assets, options, told_external=told)
    else:
        result = _one_by_one(prepared, assets, options, told_external=told)
    result = replace(result, labels=prepared.labels)
    return result.raise_for_status() if strict else result


def prepare(
    liabilities: Any, external_liabilities: ArrayLike | None = None, *, external_rank: str = "pari_passu"
) -> Prepared:
    """Check and sum up a network once, to clear it many times.

    Parameters
    ----------
    liabilities : array_like or sparse (n, n)
        What row i owes column j, in money; not negative, nothing on the diagonal.
    external_liabilities : array_like (n,), optional
        What each node owes outside the network, in money; nothing where omitted.
    external_rank : {"pari_passu", "senior"}
        Whether external creditors are paid in proportion with the others or before them.

    Returns
    -------
    Prepared
        Goes to :func:`eisenberg_noe` in the place of ``liabilities``; memory: 12 bytes per claim, 72 per node.

    Raises
    ------
    SchemaError
        Listing everything that is wrong with the numbers.

    Examples
    --------
    >>> from netcontagion.clearing import eisenberg_noe, prepare
    >>> prepared = prepare([[0, 20, 10], [5, 0, 24], [10, 0, 0]])
    >>> eisenberg_noe(prepared, [10, 10, 10]).payments.round(4).tolist()
    [24.5455, 26.3636, 10.0]
    """
    Options(external_rank, "greatest", "auto", 1e-10, 1, waves=False).check()
    owed, _, external = checked_input(liabilities, None, external_liabilities, assets_needed=False)
    labels = liabilities.index if hasattr(liabilities, "columns") else None
    return Prepared(owed, external, external_rank, labels)


def _read(liabilities: Any, assets: Any, external: Any, options: Options) -> tuple[Prepared, Floats]:
    """Check what is given; assets of a prepared network that is pushed are checked on the way."""
    rank = options.external_rank
    if isinstance(liabilities, Prepared):
        if external is not None or (rank == "senior") != liabilities.senior:
            raise ValueError("a prepared network has its external liabilities: leave them out, and name their rank")
        table = type(assets) is np.ndarray and assets.dtype == np.float64 and assets.ndim in (1, 2) and assets.size > 0
        if table and len(assets) == liabilities.owed.shape[0] and _pushes_first(liabilities.owed, options):
            return liabilities, assets
        return liabilities, checked_assets(assets, liabilities)
    owed, numbers, outside = checked_input(liabilities, assets, external)
    return Prepared(owed, outside, rank, liabilities.index if hasattr(liabilities, "columns") else None), numbers


# -------------------------------------------------------------------------------------------------------- the solution


def _one_by_one(
    prepared: Prepared, assets: Floats, options: Options, *, told_external: bool, spent: bool = False
) -> ClearingResult:
    columns = np.atleast_2d(assets.T)
    solved = [_solve(prepared.system(column), options, spent=spent) for column in columns]
    parts = [_node_values(prepared, prepared.system(column), one) for column, one in zip(columns, solved, strict=True)]
    values = _values(parts, assets, [one.wave for one in solved])
    residual = np.array([part["residual"] for part in parts])
    told = residual if assets.ndim == 2 else float(residual[0])
    return _result(values, prepared.owed, told, solved, options, told_external=told_external)


def _pushes_first(owed: Any, options: Options) -> bool:
    first = options.solver == "push" or (options.solver == "auto" and owed.nnz > LARGE)
    return first and options.external_rank == "pari_passu" and options.which == "greatest" and not options.waves


def clear_scenarios(prepared: Prepared, given: ScenarioAssets, **chosen: Any) -> ClearingResult:
    """Do what :func:`eisenberg_noe` does, without raising, for scenarios known by what they change."""
    options = Options(**chosen)
    options.check(SOLVERS)
    if not (given.count and _pushes_first(prepared.owed, options) and given.fits(_most(prepared))):
        return eisenberg_noe(prepared, given.table, strict=False, **chosen)
    told = bool(prepared.external.any())
    return replace(_pushed(prepared, given, options, several=True, told_external=told), labels=prepared.labels)


def _most(prepared: Prepared) -> float:
    """Return the most that a node can have outside, so that no sum of money is without bound."""
    return float(np.finfo(float).max) - prepared.largest


def _together(prepared: Prepared, assets: Floats, options: Options, *, told_external: bool) -> ClearingResult:
    """Push all scenarios at once, where their assets are right."""
    given = read_scenarios(assets, _most(prepared))
    if given is None:
        return _one_by_one(prepared, checked_assets(assets, prepared), options, told_external=told_external)
    return _pushed(prepared, given, options, several=assets.ndim == 2, told_external=told_external)


def _pushed(
    prepared: Prepared, given: ScenarioAssets, options: Options, *, several: bool, told_external: bool
) -> ClearingResult:
    """Push all scenarios at once, and solve by themselves those that a push does not settle."""
    batch = push_batch(prepared, given, options.rtol, *_limits(prepared.owed, options))
    if not several and not batch.settled[0]:
        return _one_by_one(prepared, given.of(0), options, told_external=told_external, spent=bool(batch.spent[0]))
    alone, residual = {}, batch.width.copy()  # at most the width: p <= Phi(p) at one bound, p >= Phi(p) at the other
    for scenario in np.flatnonzero(~batch.settled).tolist():
        system = prepared.system(given.of(scenario))
        solved = _solve(system, options, spent=bool(batch.spent[scenario]))
        alone[scenario] = solved
        batch.rounds[scenario] = solved.rounds
        residual[scenario] = _node_values(prepared, system, solved)["residual"]
    values: Any = ShortfallValues(prepared, given, batch.short, alone, several=several)
    ready = Solved(np.empty(0), Enclosure("bracket", np.empty(0), np.empty(0), 0.0, 0.0), 0, Status.SETTLED)
    solved_all = [alone.get(scenario, ready) for scenario in range(given.count)]
    told = residual if several else float(residual[0])
    result = _result(values, prepared.owed, told, solved_all, options, told_external=told_external)
    return replace(result, iterations=batch.rounds if several else int(batch.rounds[0]))


def _limits(owed: Any, options: Options) -> tuple[int, float]:
    """Limit the rounds and claims of a push before "auto" mixes: it is quick while its slacks stay in the cache."""
    if options.solver == "push":
        return options.max_rounds, np.inf
    often = 60.0 if owed.shape[0] <= 20_000 else 2.0
    return min(options.max_rounds, PUSH_ROUNDS), often * owed.nnz


def _solve(system: System, options: Options, *, spent: bool = False) -> Solved:
    """Solve one scenario; ``spent`` says that a push was tried and visited too many claims.

    Where no income is negative the living have one solution, and the dead are put beside them. Else (senior external
    debt exceeds the external assets of a node) Phi is monotone but not concave, and from below is another solve.
    """
    if not system.concave and options.which == "least":
        return from_below(system, options)
    greatest = options.which == "greatest"
    alive = alive_nodes(system) if system.concave else ~system.nobody()
    if options.solver == "fictitious_default":
        solved = _by_default_sets(system, alive, options)
    else:
        solved = _of_the_living(system.part(alive), options, spent=spent)
    solved = with_the_dead(system, alive, solved, greatest=greatest)
    if options.waves and solved.wave is None:
        fallen = fictitious_default(system, system.nobody(), len(alive) + 1, direct=True)
        solved = solved._replace(wave=fallen.wave)
    return solved


def _of_the_living(system: System, options: Options, *, spent: bool) -> Solved:
    """Solve by the solver asked for; "auto" takes the next one where one gives up."""
    rtol, rounds, taken = options.rtol, options.max_rounds, 0
    large = options.solver == "auto" and system.owed.nnz > LARGE
    if (large and not spent) or options.solver == "push":
        solved = pushed(system, rtol, *_limits(system.owed, options))
        if solved is not None and (not large or (solved.status.settled and solved.enclosure.width <= rtol)):
            return solved
    if system.concave and (large or options.solver == "accelerated"):
        solved = accelerated(system, rtol, rounds)
        if solved.status.settled or not large:
            return solved
        taken = solved.rounds
    left = options._replace(max_rounds=max(rounds - taken, 1))
    solved = auto(system, left) if options.solver == "auto" else from_above(system, left)
    return solved._replace(rounds=taken + solved.rounds)


def _by_default_sets(system: System, alive: Bools, options: Options) -> Solved:
    """Solve the living by fictitious default; the waves are those of the greatest vector, with the dead among them."""
    living = system.part(alive)
    if options.which == "least":
        fallen = fictitious_default(living, living.nobody(), options.max_rounds, direct=True)
        return concluded(living, fallen, options.rtol)
    fallen = fictitious_default(system, system.nobody(), options.max_rounds, direct=True)
    solved = concluded(living, fallen._replace(payments=fallen.payments[alive]), options.rtol)
    return solved._replace(wave=fallen.wave)


# ---------------------------------------------------------------------------------------------------------- the result


def _node_values(prepared: Prepared, system: System, solved: Solved) -> dict[str, Any]:
    """Split what a scenario's nodes pay into inside and outside; bounds and residual in all dues."""
    paid = solved.payments
    if prepared.senior:
        available = system.available(paid)
        outside = np.clip(available + prepared.external, 0.0, prepared.external)
        inside = paid = np.clip(available, 0.0, system.ceiling)  # so that both ranks are paid out of the same receipts
        available = system.available(paid)
    else:
        available = system.available(paid)
        share = share_paid(paid, system.due)
        inside, outside = share * prepared.internal, share * prepared.external
    step = np.abs(np.clip(available, 0.0, system.ceiling) - paid)
    return {
        "payments": inside + outside if prepared.senior else paid,
        "payments_internal": inside,
        "payments_external": outside,
        "dues": prepared.dues,
        "net_worth": available - (system.due if prepared.senior else prepared.dues),
        "lower": system.in_all(solved.enclosure.lower, -1.0),
        "upper": system.in_all(solved.enclosure.upper, 1.0),
        "residual": float(share_paid(step, prepared.dues).max(initial=0.0)),
    }


def _values(parts: list[dict[str, Any]], assets: Floats, waves: list[Any]) -> NodeValues:
    """Put the scenarios side by side, in the shape of the assets."""

    def stacked(columns: list[Any]) -> Any:
        table = np.column_stack(columns) if columns else np.zeros(assets.shape)
        return table if assets.ndim == 2 else table[:, 0]

    names = ("payments", "payments_internal", "payments_external", "dues", "net_worth", "lower", "upper")
    arrays = {name: stacked([part[name] for part in parts]) for name in names}
    wave = None if not waves or any(one is None for one in waves) else stacked(waves)
    return NodeValues(**arrays, external_assets=assets, default_wave=wave)


def _result(
    values: Any, owed: Any, residual: Floats | float, solved: list[Solved], options: Options, *, told_external: bool
) -> ClearingResult:
    several = isinstance(residual, np.ndarray)
    rounds = np.array([one.rounds for one in solved], dtype=np.int64)
    statuses = tuple(one.status for one in solved)
    notes = dict.fromkeys(note for one in solved for note in one.notes)
    silent = () if told_external else ("no external liabilities were given: all debt is owed inside the network",)
    return ClearingResult(
        values=values,
        liabilities=owed,
        model="eisenberg_noe",
        external_rank=options.external_rank,
        which=options.which,
        enclosure=min((one.enclosure.kind for one in solved), key=KINDS.index, default="concave"),
        residual=residual,
        iterations=rounds if several else int(rounds[0]),
        status=next((status for status in statuses if not status.settled), Status.SETTLED),
        statuses=statuses,
        tolerance=max(SOLVENCY_TOLERANCE, 10 * options.rtol if any(one.loose for one in solved) else 0.0),
        assumptions=(*silent, *notes),
    )
