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

    ``ranked`` is False where scores are names of groups, which have no order; ``zero`` says what it means that all
    scores are 0.
    """

    home: str
    kinds: tuple[str, ...]
    meaning: str
    default: bool = False
    source: str = ""
    ranked: bool = True
    zero: str = "it tells no node from another"

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
    "loss_if_defaults": Measure(
        "_defaults:loss_if_defaults",
        NODES,
        "what other nodes lose when the node defaults, in money",
        source="Upper (2011), of failures one at a time",
    ),
    "leave_one_out": Measure(
        "_taken_out:leave_one_out",
        NODES,
        "what other nodes lose by contagion because the node is there, in money; one network and one run for each",
        source="this package",
    ),
    "price_impact": Measure(
        "_price_falls:price_impact",
        ("asset",),
        "what all nodes lose when the price, and those that follow it, fall by 10 %, in money",
        source="this package",
    ),
    "shapley": Measure(
        "_shapley:of_the_shocked",
        ALL,
        "what a node that the shock hits adds to the loss of all nodes, over all orders of hitting them, in money",
        source="Shapley (1953)",
    ),
    "debtrank": Measure(
        "_distress:single_hit",
        NODES,
        "share of all claims that others lose when the node defaults, as DebtRank of 2012 counts it",
        source="Battiston, Puliga, Kaushik, Tasca and Caldarelli (2012)",
    ),
    "linear_debtrank": Measure(
        "_distress:linear",
        NODES,
        "equity that others lose when the node defaults, by linear DebtRank of 2015, in money",
        default=True,
        source="Bardoscia, Battiston, Caccioli and Caldarelli (2015)",
    ),
    "furfine": Measure(
        "_failures:furfine",
        NODES,
        "equity of the other nodes that fail in the wake of the node, recovery 0, in money",
        source="Furfine (2003)",
        zero="nobody who has equity fails in the wake of another; contagion_index counts losses short of failure",
    ),
    "contagion_index": Measure(
        "_failures:expected_loss",
        NODES,
        "what others lose when the node defaults, recovery 0, on average over common losses of 0 to 50 % of equity",
        source="Cont, Moussa and Santos (2013)",
    ),
    "glasserman_young": Measure(
        "_balance_sheets:outside_leverage",
        NODES,
        "how much of the losses of the node can reach others: share of its debt owed inside x (outside assets - worth)",
        source="Glasserman and Young (2015)",
    ),
    "threat_index": Measure(
        "_balance_sheets:threat_index",
        NODES,
        "what one more unit of money at the node adds to the payments of all, under the shock",
        source="Demange (2018)",
    ),
    "sinkrank": Measure(
        "_sinkrank:of_dues",
        NODES,
        "one over the mean number of steps in which money that moves along dues comes to the node",
        source="Soramaki and Cook (2013)",
    ),
    "systemicness": Measure(
        "_portfolios:systemicness",
        ("trader",),
        "what the sales of the trader, back to its leverage after the shock, cost all, over the equity of all",
        source="Greenwood, Landier and Thesmar (2015)",
    ),
    "vulnerability": Measure(
        "_portfolios:vulnerability",
        ("trader",),
        "what such sales of all cost the trader, over its equity",
        source="Greenwood, Landier and Thesmar (2015)",
    ),
    "indirect_exposure": Measure(
        "_portfolios:indirect_exposure",
        ("trader",),
        "what others lose, under linear impact, when the trader sells all it has, in money",
        source="Cont and Schaanning (2019)",
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
