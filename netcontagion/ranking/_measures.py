"""The measures that ``nc.rank`` knows: what each means, which nodes it scores, and the function of a study that does."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import pandas as pd

    from netcontagion.ranking._study import Scores, Study

__all__ = ["MEASURES", "Measure", "measures"]


class Measure(NamedTuple):
    """A measure by name; ``home`` is the module and function that scores a study, opened when first asked for.

    ``ranked`` is False where scores are names of groups, which have no order.
    """

    home: str
    kinds: tuple[str, ...]
    meaning: str
    default: bool = False
    source: str = ""
    ranked: bool = True

    def scores(self, study: Study) -> Scores:
        """Score every node of the kinds it knows; NotApplicable where the network lacks what it is about."""
        module, name = self.home.split(":")
        found: Scores = getattr(import_module(f"netcontagion.ranking.{module}"), name)(study)
        return found


def measures() -> pd.DataFrame:
    """List the measures that :func:`netcontagion.rank` knows.

    Returns
    -------
    pandas.DataFrame
        By name, in the order of the columns of a ranking: ``kinds`` of nodes it scores, whether it is among the
        ``default`` ones, its ``meaning``, its ``source``.

    Examples
    --------
    >>> from netcontagion import ranking
    >>> ranking.measures().loc["pagerank", "kinds"]
    'trader, exchange, asset'
    """
    import pandas as pd

    rows = [(", ".join(one.kinds), one.default, one.meaning, one.source) for one in MEASURES.values()]
    index = pd.Index(MEASURES, name="measure")
    return pd.DataFrame(rows, index=index, columns=["kinds", "default", "meaning", "source"])


NODES = ("trader", "exchange")
ALL = ("trader", "exchange", "asset")

MEASURES = {
    "debtrank": Measure(
        "_distress:single_hit",
        NODES,
        "value lost by others when the node defaults, as DebtRank of 2012 counts it",
        source="Battiston, Puliga, Kaushik, Tasca and Caldarelli (2012)",
    ),
    "linear_debtrank": Measure(
        "_distress:linear",
        NODES,
        "the same by linear DebtRank of 2015, in money",
        default=True,
        source="Bardoscia, Battiston, Caccioli and Caldarelli (2015)",
    ),
}
"""By name, in the order of the columns of a ranking."""
