"""Margin-call cascades: calls, responses, liquidations, prices, waterfalls and the ledger behind them."""

from __future__ import annotations

from netcontagion.margining._cascade import SWITCHES, cascade
from netcontagion.margining._result import CascadeResult
from netcontagion.margining._state import CHANNELS

__all__ = ["CHANNELS", "SWITCHES", "CascadeResult", "cascade"]
