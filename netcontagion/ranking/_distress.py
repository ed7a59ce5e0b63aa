"""DebtRank of every node: what others lose when it defaults and distress spreads through what nodes owe each other.

Books are those before the shock. A node without equity has nothing to lose: it takes no distress over, and passes some
on only where it is the one that defaults.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from netcontagion.clearing import debtrank
from netcontagion.ranking._books import blocks, has_equity, of_one_class
from netcontagion.ranking._study import NotApplicable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netcontagion.ranking._study import Floats, Scores, Study

__all__ = ["linear", "single_hit"]

MOST = 2e8
"""Scenarios times debts that are run by default: some ten seconds."""


def linear(study: Study) -> Scores:
    """Score by linear DebtRank: equity that others lose [num]."""
    equity, able = _equity(study)
    owed = study.case.owed_before
    runs = np.count_nonzero(owed.sum(axis=1) > 0)
    if study.quick and runs * owed.nnz > MOST:
        raise NotApplicable(
            f"{runs:,} nodes owe something, and each is a scenario of {owed.nnz:,} debts: name it in by"
        )
    return study.by_kind(_value_lost(study, "linear", np.where(able, equity, 0.0)))


def single_hit(study: Study) -> Scores:
    """Score by DebtRank of 2012: others' distress, weighted by their shares of all claims."""
    claims = study.case.owed_before.sum(axis=0)
    return study.by_kind(_value_lost(study, "single_hit", claims / (claims.sum() or 1.0)))


def _equity(study: Study) -> tuple[Floats, NDArray[np.bool_]]:
    case = study.case
    equity = case.book_equity(case.before)
    return equity, has_equity(equity, case.before.assets + case.owed_before.sum(axis=0))


def _value_lost(study: Study, variant: str, weights: Floats) -> Floats:
    """Let every node that owes something default alone, a block at a time."""
    of_one_class(study)
    owed, (equity, able) = study.case.owed_before.copy(), _equity(study)
    owes = np.flatnonzero(owed.sum(axis=1) > 0)
    if not len(owes):
        raise NotApplicable("nobody owes anybody")
    owed.data = np.where(able[owed.indices], owed.data, 0.0)
    owed.eliminate_zeros()
    value = np.zeros(len(equity))
    for seeds in blocks(owes, len(equity)):
        shock = np.zeros((len(equity), len(seeds)))
        shock[seeds, np.arange(len(seeds))] = 1.0
        found = debtrank(owed, np.where(able, equity, 1.0), shock, variant=variant, weights=weights)
        value[seeds] = found.value
    return np.maximum(value, 0.0)
