"""From what each node's debt is worth to a result: the last step of every model that is solved for shares of dues."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from netcontagion._status import Status
from netcontagion.clearing._result import ClearingResult, NodeValues
from netcontagion.clearing._shares import SOLVENCY_TOLERANCE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netcontagion.clearing._system import Floats

__all__ = ["Outcome", "result_of"]


class Outcome(NamedTuple):
    """One scenario solved: shares of the dues, with bounds, and how the solve ended.

    ``external`` is the share paid to creditors outside; where it is None they rank like the others. ``enclosure`` is
    "concave", "bracket" or "none"; without bounds ``lower`` and ``upper`` are None, which stands for 0 and 1.
    """

    share: Floats
    net_worth: Floats
    residual: float
    rounds: int
    status: Status
    lower: Floats | None = None
    upper: Floats | None = None
    enclosure: str = "none"
    external: Floats | None = None
    wave: NDArray[np.int64] | None = None
    notes: tuple[str, ...] = ()


def result_of(
    outcomes: list[Outcome], *, model: str, owed: Any, assets: Floats, external: Floats, **told: Any
) -> ClearingResult:
    """Put scenarios side by side, in the shape of the assets.

    Parameters
    ----------
    outcomes : list of Outcome
        One per scenario: one for assets (n,), s for assets (n, s).
    model : str
        Name of the model.
    owed : csr_array (n, n)
        What row i owes column j [num].
    assets : ndarray (n,) or (n, s)
        External assets [num].
    external : ndarray (n,)
        External liabilities [num].
    **told
        Further fields of the result: ``external_rank``, ``which``, ``conserves``, ``labels``, ``prices``, ``sold``.
    """
    internal: Floats = owed.sum(axis=1)
    dues = internal + external
    columns: dict[str, list[Any]] = {name: [] for name in _NAMES}
    for one in outcomes:
        outside = one.share if one.external is None else one.external
        low = np.zeros(len(dues)) if one.lower is None else one.lower
        high = np.ones(len(dues)) if one.upper is None else one.upper
        paid = {"payments_internal": one.share * internal, "payments_external": outside * external}
        bounds = {"lower": low * dues, "upper": high * dues, "net_worth": one.net_worth}
        row = {"payments": sum(paid.values()), "dues": dues, **paid, **bounds}
        for name, column in columns.items():
            column.append(row[name])
    waves = [one.wave for one in outcomes]
    wave = None if not waves or any(one is None for one in waves) else _stacked(waves, assets)
    values = NodeValues(
        **{name: _stacked(column, assets) for name, column in columns.items()},
        external_assets=assets,
        default_wave=wave,
    )
    several = assets.ndim == 2
    residual, rounds = np.array([one.residual for one in outcomes]), np.array([one.rounds for one in outcomes])
    statuses = tuple(one.status for one in outcomes)
    notes = dict.fromkeys(note for one in outcomes for note in one.notes)
    fields: dict[str, Any] = {"external_rank": "pari_passu", "which": "greatest", "conserves": False} | told
    return ClearingResult(
        values=values,
        liabilities=owed,
        model=model,
        enclosure=min((one.enclosure for one in outcomes), key=("none", "bracket", "concave").index, default="none"),
        residual=residual if several else float(residual[0]),
        iterations=rounds if several else int(rounds[0]),
        status=next((status for status in statuses if not status.settled), Status.SETTLED),
        statuses=statuses,
        tolerance=fields.pop("tolerance", SOLVENCY_TOLERANCE),
        assumptions=(*fields.pop("assumptions", ()), *notes),
        **fields,
    )


_NAMES = ("payments", "payments_internal", "payments_external", "dues", "net_worth", "lower", "upper")


def _stacked(columns: list[Any], assets: Floats) -> Any:
    table = np.column_stack(columns) if columns else np.zeros(assets.shape)
    return table if assets.ndim == 2 else table[:, 0]
