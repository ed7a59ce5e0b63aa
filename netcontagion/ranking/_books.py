"""What measures of obligations share: who has equity, and nodes a block at a time, so that memory stays flat."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from netcontagion.errors import ContagionError
from netcontagion.ranking._study import NotApplicable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from netcontagion.ranking._study import Floats, Study

__all__ = ["NOISE", "blocks", "has_equity", "of_one_class"]

NOISE = 1e-12
"""Equity below this share of what a node has is rounding."""
NUMBERS = 2**22  # of a block of scenarios


def has_equity(equity: Floats, gross: Floats) -> NDArray[np.bool_]:
    """Mark the nodes with more equity than rounding leaves of what they have."""
    return np.asarray(equity > NOISE * np.maximum(gross, 0.0))


def blocks(nodes: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    """Yield nodes, one scenario each, as many at a time as fit into memory whatever the size of the network."""
    step = max(1, NUMBERS // max(size, 1))
    yield from (nodes[first : first + step] for first in range(0, len(nodes), step))


def of_one_class(study: Study) -> None:
    """Refuse liabilities of several seniorities."""
    try:
        study.case.of_one_class("eisenberg_noe")
    except ContagionError:
        raise NotApplicable("liabilities have several seniorities, which it does not rank") from None
