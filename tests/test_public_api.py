"""The pinned names of the package."""

from __future__ import annotations

import inspect
from importlib import import_module, metadata

import pytest

import netcontagion as nc

PINNED = {
    "netcontagion": [
        "ExposureNetwork",
        "Shock",
        "load",
        "merge",
        "clear",
        "cascade",
        "contagion_map",
        "Status",
        "ClearingResult",
        "CascadeResult",
        "SchemaError",
        "UnknownLabelError",
        "NotSettledError",
        "ContagionError",
    ],
    "netcontagion.builders": [
        "from_table",
        "from_balance_sheets",
        "from_matrix",
        "from_networkx",
        "from_igraph",
        "depth_at",
    ],
    "netcontagion.datasets": ["available", "load", "fetch"],
    "netcontagion.clearing": ["eisenberg_noe", "clear"],
    "netcontagion.ranking": ["debtrank", "measures", "pagerank", "rank"],
}


@pytest.mark.parametrize("name", nc.__all__)
def test_every_public_name_is_there_and_listed(name):
    assert getattr(nc, name) is getattr(nc, name)
    assert name in dir(nc)


@pytest.mark.parametrize(("module", "name"), [(module, name) for module, names in PINNED.items() for name in names])
def test_pinned_paths(module, name):
    room = import_module(module)
    assert getattr(room, name)
    assert name in room.__all__
    assert name in dir(room)


def test_names_are_listed_once_and_others_are_refused():
    assert len(set(nc.__all__)) == len(nc.__all__)
    assert "__version__" in dir(nc)
    assert nc.__version__ == metadata.version("netcontagion")
    with pytest.raises(AttributeError, match="exposure_network"):
        nc.exposure_network  # noqa: B018


def parameters(function):
    return {
        name: (value.kind.name, value.default)
        for name, value in inspect.signature(function).parameters.items()
        if name != "self"
    }


def test_pinned_signatures():
    required = inspect.Parameter.empty
    tables = (
        "traders",
        "exchanges",
        "assets",
        "markets",
        "tiers",
        "accounts",
        "balances",
        "positions",
        "wallets",
        "holdings",
        "liabilities",
    )
    expected = dict.fromkeys(tables, ("KEYWORD_ONLY", None))
    expected |= {"numeraire": ("KEYWORD_ONLY", "USD"), "complete": ("KEYWORD_ONLY", False)}
    assert parameters(nc.ExposureNetwork) == expected
    assert list(parameters(nc.ExposureNetwork.exposures)) == ["rows", "columns"]
    assert parameters(nc.Shock.price)["family"] == ("KEYWORD_ONLY", False)
    assert parameters(nc.builders.from_matrix)["rows"] == ("KEYWORD_ONLY", required)
    assert parameters(nc.builders.from_matrix)["external_assets"] == ("KEYWORD_ONLY", required)
    table = parameters(nc.builders.from_table)
    assert [name for name, (_, default) in table.items() if default is required] == [
        "table",
        "trader",
        "exchange",
        "asset",
        "markets",
    ]
    assert {"side", "amount", "value", "collateral", "debt", "account", "accounts", "prices"} <= set(table)
    assert parameters(nc.builders.depth_at) == {
        "amount": ("POSITIONAL_OR_KEYWORD", required),
        "impact": ("KEYWORD_ONLY", 0.01),
        "form": ("KEYWORD_ONLY", "exponential"),
    }
    assert list(parameters(nc.builders.from_balance_sheets))[:3] == ["banks", "exposures", "holdings"]
    assert parameters(nc.clear)["model"] == ("KEYWORD_ONLY", "eisenberg_noe")
    assert {"strict", "seed", "mode", "priority"} <= set(parameters(nc.cascade))
    assert parameters(nc.rank) == {
        "net": ("POSITIONAL_OR_KEYWORD", required),
        "by": ("POSITIONAL_OR_KEYWORD", None),
        "shock": ("KEYWORD_ONLY", None),
        "n_jobs": ("KEYWORD_ONLY", None),
    }


def test_errors_belong_together():
    for error in (nc.SchemaError, nc.UnknownLabelError, nc.NotSettledError, nc.DatasetError):
        assert issubclass(error, nc.ContagionError)
    assert issubclass(nc.SchemaError, ValueError)
    assert issubclass(nc.UnknownLabelError, LookupError)
