"""The glossary runs as written, and has every term of the field that the package computes."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "glossary.md"
TERMS = [
    "Aggregate maintenance margin",
    "Isolated margin mechanics",
    "Cross-chain asset contagion",
    "Margin call threshold monitoring",
    "Margin call threshold dynamics",
    "Deficit coverage mechanism",
    "Systemic contagion buffer",
    "Risk mitigation funding",
    "Penalty fee optimisation",
    "Contagion mapping",
    "Margin utilisation",
    "Cross-margin liquidation",
    "Flash crash dynamics",
    "Stop-loss cascades",
    "Portfolio solvency",
    "Transaction speed",
    "Partial asset settlement",
    "Asset price detachment",
    "Market maker spread expansion",
    "Exchange system stability",
    "Cross-platform collateralisation",
    "Liquidity deployment",
    "Market risk mitigation",
    "Volatility amplification",
    "Exogenous market shocks",
    "Market interconnectivity",
    "Flash loan attack surface",
    "Systemic bad debt",
    "Liquidation buffer optimisation",
]


def sections():
    parts = re.split(r"^### (.+)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_term_stands_on_the_page_once():
    found = re.findall(r"^### (.+)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert sorted(found) == sorted(TERMS)


@pytest.mark.parametrize("term", TERMS)
def test_a_term_has_a_meaning_and_an_example_that_says_something(term):
    text, _, code = sections()[term].partition("```python\n")
    assert len(text.split()) >= 15
    examples = doctest.DocTestParser().get_examples(code)
    assert any(example.want for example in examples)


def test_the_page_runs_as_written():
    failed, tried = doctest.testfile(str(PAGE), module_relative=False)
    assert tried > 100
    assert failed == 0
