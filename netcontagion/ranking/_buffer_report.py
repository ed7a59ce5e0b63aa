"""What ``nc.buffers`` returns: tables of what buffers did, what they are worth, and how large they have to be."""

from __future__ import annotations

import functools
import html
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion.errors import ContagionError
from netcontagion.ranking._allocation import Programme, is_linear

if TYPE_CHECKING:
    import pandas as pd

    from netcontagion.ranking._outcomes import Target
    from netcontagion.ranking._response import Response

__all__ = ["BufferReport"]

SHOWN = 20  # rows of a table in the text


@dataclass(frozen=True, eq=False, repr=False)
class BufferReport:
    """What buffers did, are worth, and have to be. Money is in the numeraire, at prices before the shock if held.

    Attributes
    ----------
    buffers : DataFrame
        By tool and node ("all": together): ``held``; ``reached``, ``used``: mean over scenarios of the loss that
        reached it and of what it took; ``absorption`` = used / reached over all scenarios; ``exhausted``: share of the
        scenarios in which more came than it had, ``first_exhausted``: earliest round of that; ``firewall``: mean
        outcome with it at zero less that with it; ``marginal``: fall of the mean outcome by one more unit,
        ``marginal_less``: its rise by one less, ``step``: the bump they were measured with (0: a derivative).
    scenarios : DataFrame
        By tool, node and scenario: ``reached``, ``used``, ``exhausted`` (round; NaN: never).
    outcomes : DataFrame
        By scenario: what buffers are judged by, as the network is.
    required : DataFrame or None
        By tool and node: ``required`` size, ``guaranteed`` (no larger size fails: proved), ``held``, ``added``,
        ``units`` (of the insurance asset), ``closest`` size and ``why`` where the target cannot be met.
    crossings : DataFrame or None
        Every change found between sizes: ``smaller`` and ``larger`` buffer, whether the target is ``gained``, and in
        how many scenarios it is met at both.
    tried : DataFrame or None
        Every size that was run: scenarios that ``meet`` the target, and by outcome the least limit that would hold.
    sizing : DataFrame or None
        By exchange, with ``quantile``: ``units`` of the insurance asset and ``money`` that the loss reaching the fund
        does not exceed in that share of the scenarios; ``covered``: share that the fund of today covers at once;
        ``cover_1``, ``cover_2``: largest loss, and largest two, where every scenario is one default.
    allocation : DataFrame or None
        By tool and node, with ``budget``: ``money``; ``attrs`` hold outcome ``before`` and ``after``, ``bound`` that no
        allocation goes below, and ``method``.
    assumptions : tuple of str
        What was assumed.
    """

    buffers: pd.DataFrame
    scenarios: pd.DataFrame
    outcomes: pd.DataFrame
    required: pd.DataFrame | None
    crossings: pd.DataFrame | None
    tried: pd.DataFrame | None
    sizing: pd.DataFrame | None
    allocation: pd.DataFrame | None
    assumptions: tuple[str, ...]
    outcome: str
    target: Target | None
    quantile: float | None
    budget: float | None
    _response: Response

    @property
    def loss(self) -> float:
        """Mean of the outcome as the network is."""
        return float(self.outcomes[self.outcome].mean())

    @functools.cached_property
    def rescue(self) -> pd.Index:
        """Fewest nodes whose dues have to be guaranteed for the target to hold, by mixed-integer programme.

        Raises
        ------
        ContagionError
            No target, a target of other outcomes than shortfall and defaults, or a run that is not Eisenberg-Noe.
        """
        if self.target is None or not is_linear(self._response):
            message = "rescue needs a target, and clearing by Eisenberg and Noe without accounts"
            raise ContagionError(message)
        wrong = [name for name, _ in self.target.limits if name not in ("spillover", "shortfall", "defaults")]
        if wrong:
            raise ContagionError(f"rescue knows limits of spillover, shortfall and defaults, not of {', '.join(wrong)}")
        found = Programme.of(self._response).rescue(self.target)
        return self._response.net.nodes[np.flatnonzero(found)]

    @functools.cached_property
    def provenance(self) -> dict[str, Any]:
        """What was run on what: versions, options, scenarios, sha256 of the data."""
        response = self._response
        return {
            "run": response.model or "cascade",
            "options": {name: value for name, value in response.options.items() if name != "model"},
            "scenarios": len(response.scenarios),
            "outcome": self.outcome,
            "target": None if self.target is None else str(self.target),
            "quantile": self.quantile,
            "budget": self.budget,
            "versions": {name: version(name) for name in ("netcontagion", "numpy", "scipy", "pandas", "numba")},
            "data_sha256": response.net.data_hash,
        }

    def _parts(self) -> dict[str, pd.DataFrame]:
        """Tables to show, by title."""
        parts = {"buffers": self.buffers.dropna(axis=1, how="all")}
        if self.required is not None:
            parts[f"required for {self.target}"] = self.required.dropna(axis=1, how="all")
        if self.sizing is not None and self.quantile is not None:
            parts[f"funds for {100 * self.quantile:g} % of the scenarios"] = self.sizing
        if self.allocation is not None:
            told = self.allocation.attrs
            title = f"budget {self.budget:,.6g}: {self.outcome} {told['before']:,.6g} -> {told['after']:,.6g}"
            parts[f"{title}, at best {told['bound']:,.6g} ({told['method']})"] = self.allocation
        return parts

    def _headline(self) -> str:
        number = len(self.outcomes)
        scenarios = f"{number:,} scenario{'' if number == 1 else 's'}"
        money = self._response.net.numeraire
        return f"Buffers  {scenarios} | mean {self.outcome} {self.loss:,.6g} | {money}"

    def __repr__(self) -> str:
        lines = [self._headline()]
        for title, table in self._parts().items():
            text = table.head(SHOWN).to_string(float_format=lambda value: f"{value:,.6g}")
            lines += [f"  {title}", *(f"    {line}" for line in text.splitlines())]
        return "\n".join([*lines, "  assumed    " + "; ".join(self.assumptions)])

    def _repr_html_(self) -> str:
        parts = "".join(
            f"<p>{html.escape(title)}</p>{table.head(SHOWN).to_html()}" for title, table in self._parts().items()
        )
        assumed = "".join(f"<li>{html.escape(line)}</li>" for line in self.assumptions)
        return f"<div><p><b>{html.escape(self._headline())}</b></p>{parts}<p>assumed</p><ul>{assumed}</ul></div>"
