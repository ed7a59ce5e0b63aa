"""What happens to prices between two rounds: arbitrage, depth, and what price sources say; in this order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from netcontagion.margining._arbitrageurs import EVEN, Arbitrageurs
from netcontagion.margining._depth import Depth

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netcontagion.margining._cascade import Play

__all__ = ["Between"]


class Between:
    """The phases before the marks of a round are read; each costs nothing where no data ask for it."""

    def __init__(self, play: Play) -> None:
        self.play, state = play, play.state
        self.arbitrageurs = Arbitrageurs(state.net, state.shock, state.books.depth)
        self.depth = Depth(state)
        self.prices, self.moving = state.prices(), False

    def advance(self) -> None:
        """Let arbitrageurs trade, makers quote, and sources be read."""
        play, state = self.play, self.play.state
        trades = self.arbitrageurs.trade(state)
        play.events.add_trades(trades, self.arbitrageurs.asset, play.last_fall)
        prices = state.prices()
        with np.errstate(invalid="ignore"):
            self.moving = bool(trades) and bool((np.abs(prices - self.prices) > EVEN * np.abs(self.prices)).any())
        self.prices = prices
        self.depth.update(state, prices, self._called())
        state.quotes.read(prices)

    def rest(self, rounds: int) -> None:
        """Let rounds pass in which no price moves."""
        self.depth.rest(rounds)

    @property
    def pending(self) -> bool:
        """Whether marks can move in the next round though nobody acts in this one."""
        return self.moving or self.play.state.quotes.pending

    @property
    def assumptions(self) -> list[str]:
        """What was assumed about prices between rounds."""
        found = self.depth.assumptions
        if self.arbitrageurs.claims:
            found.append("issuers redeem from reserves outside the network, which the bearer 'market' holds")
        return found

    def _called(self) -> NDArray[np.int64]:
        """Traders that were called so far."""
        play, overlay = self.play, self.play.state.overlay
        if not len(self.depth.maker):
            return np.zeros(0, dtype=np.int64)
        seats = np.flatnonzero(play.notes["called"][: overlay.used["accounts"]])
        bare = [overlay.index.order[stroke.place] for stroke in overlay.strokes]
        owners = [play.state.net.columns("accounts")["trader"][accounts] for accounts in bare]
        return np.unique(np.concatenate([overlay.owner[play.state.accounts.trader[seats]], *owners]))
