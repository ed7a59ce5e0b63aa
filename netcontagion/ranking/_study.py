"""What is ranked: a network, the shock that hits it first, and what measures share about the two."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from netcontagion._arrays import group_sum
from netcontagion.clearing import Case
from netcontagion.network import Shock
from netcontagion.ranking._exposures import ExposureGraph

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from netcontagion.network import ExposureNetwork

    Floats = NDArray[np.float64]
    Scores = dict[str, Floats]

__all__ = ["KINDS", "NotApplicable", "Study"]

KINDS = {"trader": "traders", "exchange": "exchanges", "asset": "assets"}
"""Tables of the nodes that are ranked, by kind."""


class NotApplicable(Exception):
    """A measure says nothing about this network; the message says why."""


@dataclass(frozen=True, eq=False)
class Study:
    """A network under a shock, and what its measures share; money in the numeraire.

    A measure is a function of a study that returns scores by kind of node, in the order of the network's labels. Where
    nobody asked for it by name (``quick``) one that would take minutes does not apply.
    """

    net: ExposureNetwork
    shock: Shock = field(default_factory=Shock)
    n_jobs: int | None = None
    progress: bool = True
    quick: bool = False

    def size(self, kind: str) -> int:
        """How many nodes of a kind there are, ``others@`` included."""
        return len(self.net.labels(KINDS[kind]))

    @functools.cached_property
    def case(self) -> Case:
        """What traders and exchanges have and owe each other, before the shock and right after it."""
        return Case.of(self.net, self.shock)

    @functools.cached_property
    def graph(self) -> ExposureGraph:
        """Who is exposed to whom and to what, before the shock."""
        return ExposureGraph(self.net)

    def by_kind(self, values: Floats) -> Scores:
        """Split values of traders, then exchanges, by kind."""
        cut = self.size("trader")
        return {"trader": values[:cut], "exchange": values[cut:]}

    @functools.cached_property
    def gross(self) -> Scores:
        """What each node has before the shock [num].

        Traders: deposits, wallets, holdings, external assets and claims; exchanges: deposits with them, funds, equity
        and claims; assets: all that traders have of them, and half the notional of positions.
        """
        net, cut = self.net, self.size("trader")
        liabilities, book, own = net.columns("liabilities"), net.book, self.case.before.assets
        claims = group_sum(liabilities["creditor"], liabilities["amount"], len(net.nodes))
        lent = group_sum(book.market_exchange[book.balance_market], book.borrowed * book.balance_mark, len(own) - cut)
        held = net.exposures("traders", "assets").matrix.sum(axis=0)
        open_interest = group_sum(net.columns("positions")["asset"], book.notional() / 2, len(held))
        return {
            "trader": own[:cut] + net.exposures("traders", "exchanges").matrix.sum(axis=1) + claims[:cut],
            "exchange": own[cut:] + lent + claims[cut:],
            "asset": held + open_interest,
        }

    @property
    def shares(self) -> Scores:
        """What each node has, as a share of all nodes of its kind."""
        return {kind: values / (values.sum() or 1.0) for kind, values in self.gross.items()}
