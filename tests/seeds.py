"""Parameters of tests that repeat: the first ones in every run, the others in the slow ones."""

from __future__ import annotations

import pytest


def some_and_slow(some, count):
    """Numbers from 0, the first of them in every run and the others in the slow ones."""
    return [*range(some), *slow(*range(some, count))]


def slow(*cases):
    """These parameters, in the slow runs alone."""
    return [pytest.param(case, marks=pytest.mark.slow) for case in cases]


def slow_rows(*rows):
    """These parameters of several names each, in the slow runs alone."""
    return [pytest.param(*row, marks=pytest.mark.slow) for row in rows]
