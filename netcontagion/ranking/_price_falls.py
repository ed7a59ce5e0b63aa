"""What a fall of one price costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from netcontagion.network import Shock
from netcontagion.ranking._runs import losses

if TYPE_CHECKING:
    from netcontagion.ranking._study import Scores, Study

__all__ = ["FALL", "price_impact"]

FALL = 0.10
"""Relative fall of a price."""


def price_impact(study: Study) -> Scores:
    """Score by what all nodes lose when the price falls by 10 % on top of the shock, beyond what that costs [num].

    What follows the asset falls with it: a wrapped asset or a contract whose price stayed would be an arbitrage, not a
    shock.
    """
    labels = study.net.labels("assets").tolist()
    falls = [study.shock + Shock.price({label: -FALL}, family=True) for label in labels]
    found = losses(study, [study.shock, *falls])
    return {"asset": found[1:] - found[0]}
