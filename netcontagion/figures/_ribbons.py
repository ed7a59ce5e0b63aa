"""Shapes of a layered map: one collection of compound Bezier paths per class of ribbon, one per class of box."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["boxes", "ribbon_vertices", "ribbons"]

HAIRLINE = 0.25  # points: edge of a ribbon too thin to be seen by its area
THIN = 1.5


def ribbon_vertices(
    x: tuple[float, float], lead: tuple[float, float], upper: tuple[Floats, Floats], width: Floats
) -> NDArray[np.float64]:
    """Corners and control points of ribbons, shape (n, 13, 2): level for ``lead`` at both ends, an S between."""
    (x0, x1), (a, b) = x, (x[0] + lead[0], x[1] - lead[1])
    m = (a + b) / 2
    across = np.array([x0, a, m, m, b, x1, x1, b, m, m, a, x0, x0])
    start, end = upper
    low, far = start - width, end - width
    rows = (start, start, start, end, end, end, far, far, far, low, low, low, start)
    points = np.empty((len(width), len(across), 2))
    points[:, :, 0] = across
    points[:, :, 1] = np.column_stack(rows)
    return points


def ribbons(axes: Any, vertices: NDArray[np.float64], width: Floats, *, colour: Any, edge: Any, zorder: float) -> Any:
    """Draw all ribbons of one class as one collection, wide ones first; thin ones keep a hairline of their colour."""
    from matplotlib.collections import PathCollection
    from matplotlib.path import Path

    codes = [Path.MOVETO, Path.LINETO, *[Path.CURVE4] * 3, *[Path.LINETO] * 2, Path.LINETO, *[Path.CURVE4] * 3]
    codes += [Path.LINETO, Path.CLOSEPOLY]
    order = np.argsort(-width, kind="stable")
    collection = PathCollection(
        [Path(vertices[i], codes) for i in order],
        facecolors=[colour],
        edgecolors=[edge if width[i] > THIN else colour for i in order],
        linewidths=[HAIRLINE],
        zorder=zorder,
    )
    axes.add_collection(collection, autolim=False)
    return collection


def boxes(axes: Any, corners: list[tuple[float, float, float, float]], faces: Any, **style: Any) -> Any:
    """Draw boxes (x, y, width, height) of one class as one collection."""
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    collection = PatchCollection([Rectangle((x, y), w, h) for x, y, w, h in corners], facecolors=faces, **style)
    axes.add_collection(collection, autolim=False)
    return collection
