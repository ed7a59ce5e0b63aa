"""The measures that ``nc.rank`` knows: what each means, which nodes it scores, and the function that does."""

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
    "strength": Measure(
        "_graph_measures:strength",
        ALL,
        "money of all exposures of the node and to it",
        source="Barrat, Barthelemy, Pastor-Satorras and Vespignani (2004)",
    ),
    "pagerank": Measure(
        "_graph_measures:pagerank",
        ALL,
        "where money ends up that goes on and on from nodes to what they are exposed to: what hangs on the node",
        default=True,
        source="Page, Brin, Motwani and Winograd (1999)",
    ),
    "eigenvector": Measure(
        "_graph_measures:eigenvector",
        ALL,
        "exposures to nodes that score high themselves; only the part of the network with the largest ones scores",
        source="Bonacich (1972)",
    ),
    "katz": Measure(
        "_graph_measures:katz",
        ALL,
        "chains of exposures of any length that end at the node, longer ones counting less",
        source="Katz (1953)",
    ),
    "hits": Measure(
        "_graph_measures:hits",
        ALL,
        "traders and exchanges as hubs, exposed to the assets that matter; assets as authorities, on which hubs depend",
        source="Kleinberg (1999)",
    ),
    "birank": Measure(
        "_graph_measures:birank",
        ALL,
        "scores of traders and exchanges from their assets and of assets from those exposed to them, sizes evened out",
        source="He, Gao, Kan and Wang (2017)",
    ),
    "overlap": Measure(
        "_graph_measures:overlap",
        ALL,
        "what others of its kind lose, under linear impact, when a trader, or what lies with an exchange, is sold; "
        "of an asset: the part that runs through it, in money",
        default=True,
        source="Cont and Schaanning (2019)",
    ),
    "betweenness": Measure(
        "_graph_measures:betweenness",
        ALL,
        "share of the shortest chains of exposures between two others that lead through the node",
        source="Freeman (1977), sampled as by Brandes and Pich (2007)",
    ),
    "closeness": Measure(
        "_graph_measures:closeness",
        ALL,
        "how few and how large exposures lead from the node to all others, in money",
        source="Freeman (1979), sampled as by Eppstein and Wang (2004)",
    ),
    "k_core": Measure(
        "_graph_measures:k_core",
        ALL,
        "largest k for which the node belongs to a part of the network where all have k links",
        source="Seidman (1983)",
    ),
    "participation": Measure(
        "_graph_measures:participation",
        ALL,
        "how evenly the node's exposures are spread over communities: high for bridges between them",
        source="Guimera and Amaral (2005)",
    ),
    "core_periphery": Measure(
        "_graph_measures:core_periphery",
        ALL,
        "links of the node beyond those that the core asks of its members; below 0 in the periphery",
        source="Borgatti and Everett (2000), exact by Lip (2011)",
    ),
    "community": Measure(
        "_graph_measures:community",
        ALL,
        "number of the node's community, 0 the one with most exposures; a name, so it has no rank",
        source="Traag, Waltman and van Eck (2019)",
        ranked=False,
    ),
}
"""By name, in the order of the columns of a ranking."""
