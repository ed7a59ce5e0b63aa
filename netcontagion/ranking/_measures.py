"""The measures that ``nc.rank`` knows: what each means, which nodes it scores, and the function of a study that does."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from netcontagion.ranking._study import Scores, Study

__all__ = ["MEASURES", "Measure"]


class Measure(NamedTuple):
    """A measure by name; ``home`` is the module and function that scores a study, opened when first asked for."""

    home: str
    kinds: tuple[str, ...]
    meaning: str
    default: bool = False

    def scores(self, study: Study) -> Scores:
        """Score every node of the kinds it knows; NotApplicable where the network lacks what it is about."""
        module, name = self.home.split(":")
        found: Scores = getattr(import_module(f"netcontagion.ranking.{module}"), name)(study)
        return found


NODES = ("trader", "exchange")
ALL = ("trader", "exchange", "asset")

MEASURES = {
    "debtrank": Measure(
        "_distress:single_hit", NODES, "value lost by others when the node defaults, as DebtRank of 2012 counts it"
    ),
    "linear_debtrank": Measure(
        "_distress:linear", NODES, "the same by linear DebtRank of 2015, in money", default=True
    ),
}
"""By name, in the order of the columns of a ranking."""
