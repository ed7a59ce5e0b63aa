"""Pictures of networks and of finished results; every function takes ``ax`` and returns the ``Axes`` it drew on.

Figures draw and never solve, never call ``show``, and leave the settings of matplotlib as they found them.
Importing this room imports no part of matplotlib.
"""

from __future__ import annotations

from netcontagion.figures._contagion_map import caption, contagion_map

__all__ = ["caption", "contagion_map"]
