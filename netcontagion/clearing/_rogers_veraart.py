"""Rogers-Veraart clearing: a default costs part of what the defaulter has.

The equation, its solves and its bounds are in :mod:`._costly`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion._status import Status
from netcontagion.clearing._costly import bounds_of, costly_system, greatest_vector, least_vector, waves_of
from netcontagion.clearing._input import Options, checked_input
from netcontagion.clearing._outcome import Outcome, result_of
from netcontagion.clearing._shares import share_paid
from netcontagion.clearing._system import Prepared

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from netcontagion.clearing._costly import CostlySystem
    from netcontagion.clearing._result import ClearingResult
    from netcontagion.clearing._system import Floats

__all__ = ["rogers_veraart"]


def rogers_veraart(
    liabilities: Any,
    external_assets: ArrayLike,
    external_liabilities: ArrayLike | None = None,
    *,
    alpha: float,
    beta: float,
    external_rank: str = "pari_passu",
    which: str = "greatest",
    solver: str = "auto",
    rtol: float = 1e-10,
    max_rounds: int = 10_000,
    strict: bool = True,
    waves: bool = False,
) -> ClearingResult:
    r"""Compute the clearing payments of Rogers and Veraart, where default costs.

    With dues ``d_i = sum_j L_ij + b_i`` and receipts ``r_i = sum_j p_j L_ji / d_j``, external debt pari passu, a node
    pays ``p_i = d_i`` if ``e_i + r_i >= d_i``, else ``p_i = alpha e_i + beta r_i``. With external debt senior the same
    amount is paid in all, first to the creditors outside, and what is left in proportion inside the network.

    Parameters
    ----------
    liabilities : array_like or sparse (n, n)
        What row i owes column j, in money; not negative, nothing on the diagonal.
    external_assets : array_like (n,) or (n, s)
        Assets outside the network, in money, not negative; s columns are s scenarios.
    external_liabilities : array_like (n,), optional
        What each node owes outside the network, in money; nothing where omitted.
    alpha, beta : float
        Share of its external assets, and of its receipts, that a defaulter pays out; from 0 to 1. Both 1 is
        :func:`eisenberg_noe`.
    external_rank : {"pari_passu", "senior"}
        Whether external creditors are paid in proportion with the others or before them.
    which : {"greatest", "least"}
        Which solution. Even where Eisenberg-Noe clearing is unique there may be several, with different equities.
    solver : {"auto", "fixed_point", "fictitious_default"}
        ``"fixed_point"``: monotone iteration. ``"fictitious_default"``: exact sparse solves on the growing default set,
        at most n waves; gives ``default_wave``; for the greatest vector only. ``"auto"``: a few rounds of the first,
        then the second from the default set reached.
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
        ``net_worth`` is before default costs; ``default_costs`` is what defaults destroy, so that equities, external
        receipts and default costs add up to the external assets. ``lower`` and ``upper`` bound the vector asked for.

    Raises
    ------
    SchemaError
        Everything that is wrong with the numbers.
    ValueError
        ``alpha`` or ``beta`` outside [0, 1], an option that is not one of those allowed, or a combination that has no
        meaning.
    NotSettledError
        With ``strict``, when the solve ended without an answer; its ``result`` holds what was reached.

    Notes
    -----
    Solvency is the weak inequality up to ``SOLVENCY_TOLERANCE`` (1e-12) of all dues. From below the map is not
    continuous: where the iteration tends to payments out of which somebody can pay, it starts again from there.

    References
    ----------
    Rogers, L. C. G., Veraart, L. A. M. (2013). Failure and rescue in an interbank network. Management Science 59(4),
    882-898. https://doi.org/10.1287/mnsc.1120.1569

    Examples
    --------
    >>> from netcontagion.clearing import rogers_veraart
    >>> pair = {"liabilities": [[0, 10], [10, 0]], "external_assets": [1, 1], "alpha": 0.6, "beta": 0.6}
    >>> [rogers_veraart(**pair, which=which).payments.round(12).tolist() for which in ("greatest", "least")]
    [[10.0, 10.0], [1.5, 1.5]]
    """
    options = Options(external_rank, which, solver, rtol, max_rounds, waves)
    _check(options, alpha, beta)
    owed, assets, external = checked_input(liabilities, external_assets, external_liabilities)
    prepared = Prepared(owed, external, external_rank)
    systems = [costly_system(prepared, column, alpha, beta) for column in np.atleast_2d(assets.T)]
    silent = () if external_liabilities is not None else (_NOTHING_OUTSIDE,)
    with np.errstate(over="ignore", invalid="ignore"):  # the status says so
        outcomes = [_outcome(system, prepared, options) for system in systems]
    result = result_of(
        outcomes,
        model="rogers_veraart",
        owed=owed,
        assets=assets,
        external=external,
        external_rank=external_rank,
        which=which,
        conserves=alpha == beta == 1,
        labels=liabilities.index if hasattr(liabilities, "columns") else None,
        assumptions=(f"a defaulter pays out {alpha:g} of its external assets and {beta:g} of its receipts", *silent),
    )
    return result.raise_for_status() if strict else result


_NOTHING_OUTSIDE = "no external liabilities were given: all debt is owed inside the network"


def _check(options: Options, alpha: float, beta: float) -> None:
    wrong = [f"{name}={value!r}" for name, value in (("alpha", alpha), ("beta", beta)) if not 0 <= value <= 1]
    if wrong:
        raise ValueError(f"{', '.join(wrong)}: the shares a defaulter pays out are from 0 to 1")
    options.check()
    if (options.which, options.solver) == ("least", "fictitious_default"):
        raise ValueError(
            "solver='fictitious_default' finds the greatest vector: for which='least' use 'auto' or 'fixed_point'"
        )


def _outcome(system: CostlySystem, prepared: Prepared, options: Options) -> Outcome:
    """Solve one scenario, bound it, and say how sure it is."""
    greatest = options.which == "greatest"
    found = greatest_vector(system, options) if greatest else least_vector(system, options)
    lower, upper = bounds_of(system, found.payments, greatest=greatest)
    payments = np.clip(found.payments, lower, upper)
    low, high = system.in_all(lower, -1.0), system.in_all(upper, 1.0)
    width = float(share_paid(high - low, system.dues).max(initial=0.0))
    wide = (f"uncertified: the bracket is {width:.3g} wide, the residual decided",) if width > options.rtol else ()
    net_worth = system.plain.assets + system.plain.receipts(payments) - system.dues
    step = np.abs(system.in_all(system.pay(payments)) - system.in_all(payments))
    wave = found.wave if found.wave is not None or not options.waves else waves_of(system)
    return Outcome(
        share=share_paid(system.pay(payments) if prepared.senior else payments, system.plain.due),
        net_worth=net_worth,
        residual=float(share_paid(step, system.dues).max(initial=0.0)),
        rounds=found.rounds,
        status=found.status if np.isfinite(net_worth).all() else Status.NONFINITE,
        lower=share_paid(low, system.dues),
        upper=share_paid(high, system.dues),
        enclosure="bracket",
        external=_outside(system, prepared, payments),
        wave=wave,
        notes=wide,
    )


def _outside(system: CostlySystem, prepared: Prepared, payments: Floats) -> Floats | None:
    """Share paid to creditors outside where they come first."""
    if not prepared.senior:
        return None
    return share_paid(np.minimum(system.in_all(payments), prepared.external), prepared.external)
