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
    source: str = ""

    def scores(self, study: Study) -> Scores:
        """Score every node of the kinds it knows; NotApplicable where the network lacks what it is about."""
        module, name = self.home.split(":")
        found: Scores = getattr(import_module(f"netcontagion.ranking.{module}"), name)(study)
        return found


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
        "what others lose, at the first-order slope of the books, when the trader sells all it has, in money",
        source="Cont and Schaanning (2019)",
    ),
}
"""By name, in the order of the columns of a ranking."""
