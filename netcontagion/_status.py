"""How a solve or a cascade ended: the ending is part of the answer."""

from __future__ import annotations

from enum import Enum

__all__ = ["Status"]


class Status(Enum):
    """Ending of a solve or a cascade; the value says what happened and what to try."""

    SETTLED = "settled"
    EXHAUSTED = "nothing left that anybody can or will sell; accounts below margin remain as they are"
    MAX_ROUNDS = "stopped at max_rounds before settling; raise max_rounds or use another solver"
    STALLED = "no further progress above rounding; loosen rtol or use another solver"
    NONFINITE = "a value became NaN or infinite; look for extreme inputs and rescale them"
    NO_SOLUTION = "the model has no solution for this input"

    @property
    def settled(self) -> bool:
        """Whether the ending is an answer (settled or exhausted)."""
        return self in (Status.SETTLED, Status.EXHAUSTED)

    def __str__(self) -> str:
        return self.name
