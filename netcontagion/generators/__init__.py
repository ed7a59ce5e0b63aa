"""Seeded synthetic markets and textbook networks of banks."""

from __future__ import annotations

from netcontagion.generators._market import market
from netcontagion.generators._textbook import complete, core_periphery, erdos_renyi, ring, scale_free

__all__ = ["complete", "core_periphery", "erdos_renyi", "market", "ring", "scale_free"]
