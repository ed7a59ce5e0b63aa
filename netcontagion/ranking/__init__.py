"""Ranking: which nodes matter, and which buffer would have stopped it."""

from __future__ import annotations

from netcontagion.clearing import debtrank
from netcontagion.ranking._buffer_report import BufferReport
from netcontagion.ranking._buffers import buffers
from netcontagion.ranking._rank import rank

__all__ = ["BufferReport", "buffers", "debtrank", "rank"]
