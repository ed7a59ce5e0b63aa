"""DebtRank of every node: what others lose when it defaults and distress spreads through what nodes owe each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from netcontagion.clearing import debtrank
from netcontagion.ranking._study import NotApplicable

if TYPE_CHECKING:
    from netcontagion.ranking._study import Scores, Study

__all__ = ["linear", "single_hit"]


def linear(study: Study) -> Scores:
    """Score by linear DebtRank."""
    return study.by_kind(_value_lost(study, "linear"))


def single_hit(study: Study) -> Scores:
    """Score by DebtRank of 2012."""
    return study.by_kind(_value_lost(study, "single_hit"))


def _value_lost(study: Study, variant: str) -> np.ndarray:
    case = study.case
    equity = case.book_equity(case.before)
    linked = np.asarray((case.owed_before.sum(axis=1) > 0) | (case.owed_before.sum(axis=0) > 0))
    if not linked.any():
        raise NotApplicable("nobody owes anybody")
    solvent = np.where(equity > 0, equity, 1.0)
    found = debtrank(case.owed_before, solvent, np.eye(len(equity)), variant=variant)
    return np.asarray(found.value)
