"""Overlapping portfolios: what the sales of a trader cost those who hold the same assets.

Portfolios are deposits, wallets and holdings at marks before the shock. A price falls per unit of money sold as it does
over its first 1 %; what has no depth, and what is known by value only, moves no price.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy.sparse

from netcontagion._arrays import group_sum
from netcontagion.clearing import greenwood_landier_thesmar
from netcontagion.ranking._books import has_equity
from netcontagion.ranking._exposures import depths
from netcontagion.ranking._structure import overlap
from netcontagion.ranking._study import NotApplicable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netcontagion.clearing import Vulnerability
    from netcontagion.ranking._study import Floats, Scores, Study

__all__ = ["indirect_exposure", "systemicness", "vulnerability"]


def systemicness(study: Study) -> Scores:
    """Score by what the sales of each trader cost all, over the equity of all, in one round of deleveraging."""
    return _scored(study, "systemicness")


def vulnerability(study: Study) -> Scores:
    """Score by what the sales of all cost each trader, over its equity, in one round of deleveraging."""
    return _scored(study, "vulnerability")


def indirect_exposure(study: Study) -> Scores:
    """Score by what others lose when the trader sells all it has [num]: liquidity-weighted overlap with them."""
    held, depth = study.net.exposures("traders", "assets").matrix, depths(study.net) * study.shock.depth_factor
    if not np.isfinite(depth[held.indices]).any():
        raise NotApplicable("no asset that traders have has a depth")
    return {"trader": overlap(held, depth).rows}


class _Banks(NamedTuple):
    """Portfolios (n, m + 1) of the traders that have equity, the last column what else they have; who they are."""

    held: Any
    equity: Floats
    able: NDArray[np.bool_]


def _scored(study: Study, what: str) -> Scores:
    banks, found = _one_round(study)
    scores = np.full(study.size("trader"), np.nan)
    scores[banks.able] = getattr(found, what)
    return {"trader": scores}


def _one_round(study: Study) -> tuple[_Banks, Vulnerability]:
    falls = np.clip(1.0 - study.shock.price_factors(study.net), 0.0, 1.0)
    if not falls.any():
        raise NotApplicable("the shock lowers no price; give one that does, for example Shock.price({'ETH': -0.1})")
    liquidity = _fall_per_money(study)
    if not liquidity.any():
        raise NotApplicable("no asset has a depth, so no sale moves a price")
    banks = _banks(study)
    if not len(banks.equity):
        raise NotApplicable("no trader has equity")
    return banks, greenwood_landier_thesmar(
        banks.held, banks.equity, np.append(falls, 0.0), liquidity=np.append(liquidity, 0.0)
    )


def _banks(study: Study) -> _Banks:
    net, cut = study.net, study.size("trader")
    held = net.exposures("traders", "assets").matrix
    equity = study.case.book_equity(study.case.before)[:cut]
    owned, table = held.sum(axis=1), net.columns("liabilities")
    claims = group_sum(table["creditor"], table["amount"], len(net.nodes))[:cut]
    other = np.maximum(net.columns("traders")["external_assets"] + claims, equity - owned)  # gains on contracts too
    able = has_equity(equity, owned + other)
    full = scipy.sparse.hstack([held, scipy.sparse.csr_array(other[:, None])], format="csr")[able]
    equity = equity[able]
    return _Banks(full, np.minimum(equity, full.sum(axis=1)), able)


def _fall_per_money(study: Study) -> Floats:
    """Relative fall of the price of each asset per unit of money sold of it at first; 0 where nothing moves it."""
    return np.asarray(1.0 / (depths(study.net) * study.shock.depth_factor))
