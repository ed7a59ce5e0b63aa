"""Data sets: bundled ones, and public ones that are downloaded once and verified.

``available()`` lists them with licence and source, ``load(name)`` gives a network, ``fetch(name)`` the verified files,
``dex_depths()`` the depth of on-chain markets. Real data are never part of the package: they come from their public
address, or, where the environment variable ``NETCONTAGION_DATA`` names a folder, from that folder and nowhere else.
"""

from __future__ import annotations

from netcontagion.datasets._catalogue import available, load
from netcontagion.datasets._dex import dex_depths
from netcontagion.datasets._files import fetch

__all__ = ["available", "dex_depths", "fetch", "load"]
