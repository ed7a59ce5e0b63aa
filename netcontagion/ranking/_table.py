"""The table of a ranking: a DataFrame that also says which measures were left out or are all 0, and why."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

import pandas as pd

from netcontagion._arrays import leading_digits

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Ranking", "ranks_within"]


class Ranking(pd.DataFrame):
    """A table of nodes; ``attrs`` map measures ``left_out`` and ``all_zero`` to the reason. Parts of it are plain."""

    @property
    def _notes(self) -> list[str]:
        said = {"left out": self.attrs.get("left_out", {}), "all 0": self.attrs.get("all_zero", {})}
        return [f"{what}: {name} ({why})" for what, reasons in said.items() for name, why in reasons.items()]

    def __repr__(self) -> str:
        return "\n".join([super().__repr__(), *self._notes])

    def _repr_html_(self) -> str:
        notes = "".join(f"<p>{html.escape(line)}</p>" for line in self._notes)
        return f"{super()._repr_html_()}{notes}"  # type: ignore[misc]


def ranks_within(kind: NDArray[np.object_], scores: NDArray[np.float64]) -> pd.Series:
    """Rank scores within each kind, the highest first; those that tie share the least rank, NaN has none."""
    ranks = pd.Series(-leading_digits(scores)).groupby(kind).rank(method="min")
    return ranks.astype("Int64")
