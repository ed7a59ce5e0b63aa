"""What buffers are judged by: one number per scenario, and the target it has to meet."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion.errors import UnknownLabelError
from netcontagion.margining import CascadeResult
from netcontagion.scenarios import OUTPUTS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netcontagion.clearing import ClearingResult

    Floats = NDArray[np.float64]

__all__ = [
    "COUNTS",
    "LIQUIDATORS",
    "LOSS",
    "LOSSES",
    "Deficit",
    "Figure",
    "Target",
    "as_target",
    "known_outcomes",
    "spillover",
]

LOSS = "spillover"
LIQUIDATORS = "liquidator_loss"
LOSSES = ("loss", "direct", "contagion")
COUNTS = ("defaults", "rounds", "called", "liquidated")
OTHERS_BEAR = (
    "socialised",
    "minted",
    "handed_on",
    "vault_used",
    "auto_deleveraging_used",
    "default_fund_used",
    "assessments_used",
    "gains_used",
    "tear_up_used",
)
LEFT_SHORT = ("frozen", "uncovered", "withdrawal_haircut_used", "default_used", "recourse_used")


def known_outcomes(kind: str) -> tuple[str, ...]:
    """Names of outcomes of a run, "cascade" or "clear"."""
    return (LOSS, *OUTPUTS[kind], *([LIQUIDATORS] if kind == "cascade" else []))


def spillover(result: CascadeResult | ClearingResult) -> float:
    """Loss that passes the buffers [num]: what loss layers take from others, and what is left unpaid in the end."""
    if not isinstance(result, CascadeResult):
        return float(result.values.shortfall.sum())
    borne = sum(result.figures.get(name, 0.0) for name in OTHERS_BEAR)
    if result.clearing is not None:
        return float(borne + result.clearing.values.shortfall.sum())
    return float(borne + sum(result.figures.get(name, 0.0) for name in LEFT_SHORT))


@dataclass(frozen=True)
class Figure:
    """One outcome, as a function of a result."""

    name: str

    def __call__(self, result: Any) -> float:
        """Read it."""
        if self.name == LOSS:
            return spillover(result)
        if self.name == LIQUIDATORS:
            return max(float(result.losses.iloc[:, -3].sum()), 0.0)
        if self.name == "defaults":
            return float(np.asarray(result.defaulted).sum())
        if self.name in LOSSES:
            table = result.loss
            return float(table.to_numpy().sum() if self.name == "loss" else table[self.name].sum())
        return float(result.figures[self.name])


@dataclass(frozen=True)
class Deficit:
    """Bad debt of one exchange, as a function of a result."""

    place: int

    def __call__(self, result: Any) -> float:
        """Read it."""
        return float(result.exchanges["deficit"].iloc[self.place])


@dataclass(frozen=True)
class Target:
    """Limits by outcome, which hold in a share of the scenarios (None: in every one); ``slack`` is rounding."""

    limits: tuple[tuple[str, float], ...]
    share: float | None
    slack: float

    def met(self, outcomes: Mapping[str, Floats]) -> NDArray[np.bool_]:
        """Tell in which scenarios all limits hold."""
        parts = [outcomes[name] <= limit + self._slack(name) for name, limit in self.limits]
        return np.asarray(np.logical_and.reduce(parts))

    def needed(self, scenarios: int) -> int:
        """Count the scenarios that have to meet it."""
        return scenarios if self.share is None else max(1, math.ceil(round(self.share * scenarios, 9)))

    def holds(self, outcomes: Mapping[str, Floats]) -> bool:
        """Tell whether enough scenarios meet it."""
        met = self.met(outcomes)
        return bool(met.sum() >= self.needed(len(met)))

    def closest(self, outcomes: Mapping[str, Floats]) -> dict[str, float]:
        """Return by outcome the least limit that would hold."""
        return {name: float(np.sort(outcomes[name])[self.needed(len(outcomes[name])) - 1]) for name, _ in self.limits}

    def _slack(self, name: str) -> float:
        return 0.0 if name in COUNTS else self.slack

    def __str__(self) -> str:
        limits = " and ".join(f"{name} <= {limit:,.6g}" for name, limit in self.limits)
        return limits + (" in every scenario" if self.share is None else f" in {100 * self.share:g} % of the scenarios")


def as_target(given: Any, share: float | None, kind: str, slack: float) -> tuple[Target | None, list[Exception]]:
    """Read a target: a limit of the spillover, or limits by outcome; return it, or what is wrong with it."""
    if given is None:
        return None, []
    limits = given if isinstance(given, Mapping) else {LOSS: given}
    problems: list[Exception] = [] if limits else [ValueError("target is empty; name an outcome and its limit")]
    for name, limit in limits.items():
        if name not in known_outcomes(kind):
            problems.append(UnknownLabelError(name, known_outcomes(kind), "outcome"))
        if isinstance(limit, bool) or not isinstance(limit, (int, float)) or not math.isfinite(limit) or limit < 0:
            problems.append(ValueError(f"target of {name!r} is {limit!r}; allowed: a finite number, 0 or more"))
    if problems:
        return None, problems
    return Target(tuple((str(name), float(limit)) for name, limit in limits.items()), share, slack), []
