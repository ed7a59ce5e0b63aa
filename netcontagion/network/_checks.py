"""Checks that look across columns and tables: asset chains, rulebooks, margin parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion.errors import ContagionError, Problem, SchemaError, nearest
from netcontagion.network._ladder import is_ladder, read_ladder
from netcontagion.network._margin import equity_tested
from netcontagion.network._policies import policies, policy
from netcontagion.network._rule_fields import PLAIN_SOURCES
from netcontagion.network._rulebooks import Rulebook, market_presets, rulebook
from netcontagion.network._schema import schema

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netcontagion.network._assemble import Assembly
    from netcontagion.network._door import Door

__all__ = [
    "check_assets",
    "check_makers",
    "check_margin",
    "check_policies",
    "check_rulebooks",
    "check_sources",
    "check_spreads",
    "check_tiers",
]


def check_assets(door: Door, assembly: Assembly) -> None:
    """Refuse an underlying chain that comes back to itself, and a depth ladder that is none."""
    _check_ladders(door, assembly)
    labels = assembly.labels["assets"]
    parent = dict(zip(labels, assembly.columns["assets"]["underlying"], strict=True))
    for row, label in enumerate(labels):
        seen, name = {label}, parent[label]
        while name in parent and name is not None:
            if name in seen:
                if name == label:
                    column = schema()["assets"]["underlying"]
                    original = int(assembly.order["assets"][row])
                    door.add(column, original, parent[label], "an asset cannot underlie itself", "a chain that ends")
                break
            seen.add(name)
            name = parent[name]


def check_makers(door: Door, assembly: Assembly) -> None:
    """Check that what answers to volatility has a normal one, and that what is arbitraged can be moved."""
    asset = assembly.columns["assets"]
    fixed = (asset["arbitrage"] > 0) & ~np.isin(asset["kind"], ("token", "stable"))
    _note(door, assembly, "assets", "arbitrage", fixed, "0 unless kind is token or stable: nothing else changes hands")
    for part in ("depth", "spread"):
        for row in np.flatnonzero((asset[f"{part}_power"] > 0) & ~(asset["volatility"] > 0)).tolist():
            cure = f"give the volatility at which {part} is as stated, or leave assets.{part}_power out"
            place, value = int(assembly.order["assets"][row]), asset["volatility"][row]
            door.add(schema()["assets"]["volatility"], place, value, cure, f"above 0 with {part}_power")


def check_spreads(door: Door, assembly: Assembly) -> None:
    """Check that a market with a spread of its own has a book of its own."""
    market = assembly.columns["markets"]
    for row in np.flatnonzero(~np.isnan(market["spread"]) & np.isnan(market["depth"])).tolist():
        cure = "give markets.depth (inf: no impact), or the asset a spread: the market trades on its shared book"
        place = int(assembly.order["markets"][row])
        door.add(schema()["markets"]["spread"], place, market["spread"][row], cure, "empty without markets.depth")


def _check_ladders(door: Door, assembly: Assembly) -> None:
    for row, text in enumerate(assembly.columns["assets"]["impact"]):
        if is_ladder(text):
            try:
                read_ladder(text, row=int(assembly.order["assets"][row]))
            except SchemaError as error:
                door.problems += error.problems


def _check_kinds(door: Door, assembly: Assembly) -> None:
    """Check that contracts can be valued: an inverse one needs prices above 0 and a coin to settle in."""
    asset, market, position = (assembly.columns[name] for name in ("assets", "markets", "positions"))
    inverse = asset["kind"] == "inverse"
    _note(door, assembly, "assets", "price", inverse & (asset["price"] == 0), "above 0 for an inverse contract")
    unset = np.asarray(asset["settlement"] < 0) | (asset["settlement"] == np.arange(len(inverse)))
    _note(door, assembly, "assets", "settlement", inverse & unset, "the coin an inverse contract settles in")
    _note(door, assembly, "assets", "multiplier", ~inverse & (asset["multiplier"] != 1), "1 unless kind is inverse")
    own = market["price"] == 0
    _note(door, assembly, "markets", "price", own & inverse[market["asset"]], "above 0 for an inverse contract")
    entered = (position["entry_price"] <= 0) & inverse[position["asset"]]
    _note(door, assembly, "positions", "entry_price", entered, "above 0 for an inverse contract")
    contract = np.isin(asset["kind"], ("linear", "inverse"))
    _note(door, assembly, "positions", "asset", ~contract[position["asset"]], "an asset of kind linear or inverse")


def _check_portfolios(door: Door, assembly: Assembly, rulebooks: list[Rulebook | None]) -> None:
    """Portfolio margin needs the scenarios of a rulebook, on assets or underlyings of the network."""
    account = assembly.columns["accounts"]
    scenarios = [book.health_rule.scenarios if book is not None else () for book in rulebooks]
    bare = np.array([not given for given in scenarios], dtype=bool)
    wrong = (account["mode"] == "portfolio") & (bare[account["exchange"]] if len(bare) else True)
    _note(door, assembly, "accounts", "mode", wrong, "cross or isolated where the rulebook has no health.scenarios")
    asset = assembly.columns["assets"]["underlying"]
    known = {*assembly.labels["assets"], *(name for name in asset if name is not None)}
    for row, given in enumerate(scenarios):
        for name in sorted({name for moves in given for name, _ in moves} - known):
            near = nearest(name, known)
            cure = f"did you mean {near[0]!r}?" if near else "name assets or underlyings of the network"
            value, column = f"a scenario that moves {name!r}", schema()["exchanges"]["rulebook"]
            door.add(column, int(assembly.order["exchanges"][row]), value, cure, "assets and underlyings")


def _check_backstops(door: Door, assembly: Assembly) -> None:
    """Refuse a backstop that is no account of its own exchange."""
    import pandas as pd

    labels, venue = assembly.labels["accounts"], assembly.columns["accounts"]["exchange"]
    named = assembly.columns["exchanges"]["backstop"]
    places = labels.get_indexer(pd.Index(named, dtype=object))
    for row, (label, place) in enumerate(zip(named, places.tolist(), strict=True)):
        if label is not None and (place < 0 or venue[place] != row):
            near = nearest(label, labels[venue == row].tolist())
            cure = f"did you mean {near[0]!r}?" if near else "name an account of this exchange, or leave it empty"
            column, original = schema()["exchanges"]["backstop"], int(assembly.order["exchanges"][row])
            door.add(column, original, label, cure, "an account of the exchange")


def _note(door: Door, assembly: Assembly, table: str, name: str, wrong: NDArray[np.bool_], allowed: str) -> None:
    column = schema()[table][name]
    for row in np.flatnonzero(wrong).tolist():
        value = assembly.columns[table][name][row]
        shown = value if not column.refers_to else None if value < 0 else assembly.labels[column.refers_to][value]
        door.add(column, int(assembly.order[table][row]), shown, f"correct {table}.{name}, or assets.kind", allowed)


def check_rulebooks(door: Door, assembly: Assembly) -> list[Rulebook | None]:
    """Read the rulebook of every exchange; a bad one is a problem of its row."""
    books: list[Rulebook | None] = []
    for row, name in enumerate(assembly.columns["exchanges"]["rulebook"]):
        try:
            books.append(rulebook(name) if isinstance(name, str) else None)
        except ContagionError as error:
            column = schema()["exchanges"]["rulebook"]
            original = int(assembly.order["exchanges"][row])
            door.add(column, original, name, str(error), "a preset or a TOML file")
            books.append(None)
    return books


def check_policies(door: Door, assembly: Assembly) -> None:
    """Read the policy of every trader; a bad one is a problem of each of its rows."""
    names = assembly.columns["traders"]["policy"]
    wrong: dict[str, str] = {}
    for name in {name for name in names if isinstance(name, str)}:
        try:
            policy(name)
        except ContagionError as error:
            wrong[name] = str(error)
    if not wrong:
        return
    column, allowed = schema()["traders"]["policy"], f"a TOML file or one of {', '.join(policies())}"
    for row in np.flatnonzero([name in wrong for name in names]).tolist():
        door.add(column, int(assembly.order["traders"][row]), names[row], wrong[names[row]], allowed)


def check_margin(door: Door, assembly: Assembly, rulebooks: list[Rulebook | None]) -> None:
    """Check what decides who is liquidated: it has no default, and a liquidation must be able to help."""
    market = assembly.columns["markets"]
    _check_kinds(door, assembly)
    _check_portfolios(door, assembly, rulebooks)
    _check_backstops(door, assembly)
    _check_thresholds(door, assembly, market)
    secures, wants_threshold, wants_bonus, lends = _use_of_markets(assembly)
    by_equity = np.array([equity_tested(book) for book in rulebooks], dtype=bool)[market["exchange"]]
    _check_contracts(door, assembly, market)
    labels = [assembly.labels["exchanges"], assembly.labels["assets"]]
    for row in np.flatnonzero((secures | lends) & ~by_equity):
        exchange, asset = int(market["exchange"][row]), int(market["asset"][row])
        book = rulebooks[exchange]
        spread = book is not None and book.fixed_spread
        needed = {
            "liquidation_threshold": wants_threshold[row],
            "liquidation_bonus": wants_bonus[row] and spread,
            "close_factor": lends[row] and book is not None and book.close_factor is None,
        }
        for name in [name for name, wanted in needed.items() if wanted and np.isnan(market[name][row])]:
            pair = (labels[0][exchange], labels[1][asset])
            _missing(door, name, int(assembly.order["markets"][row]), pair, book.name if book else "")


def _missing(door: Door, name: str, row: int, pair: tuple[Any, Any], book: str) -> None:
    column = schema()["markets"][name]
    use = "which is lent there" if name == "close_factor" else "which secures debt there"
    cure = f"fill in markets.{name}; it decides who is liquidated and has no default. "
    if name == "close_factor":
        cure += f"Rulebook {book!r} leaves it to the market; others have their own: "
        cure += "exchanges={'exchange': [...], 'rulebook': ['aave_v3']}, or 'aave_v2'"
    else:
        presets = " or ".join(repr(preset) for preset in market_presets())
        cure += f"Dated values: builders.preset_markets({presets}, exchange=...)"
    value = f"empty for ({pair[0]!r}, {pair[1]!r}), {use}"
    door.problems.append(
        Problem("markets", name, None if row < 0 else row, value, f"a number in {column.allowed}", cure)
    )


def check_sources(door: Door, assembly: Assembly, rulebooks: list[Rulebook | None]) -> None:
    """Check that the price source of every market is one of its exchange's rulebook, or needs none."""
    market = assembly.columns["markets"]
    column = schema()["markets"]["price_source"]
    for row, name in enumerate(market["price_source"]):
        book = rulebooks[int(market["exchange"][row])] if name is not None else None
        if book is None or name in (known := [*(source.name for source in book.sources), *PLAIN_SOURCES]):
            continue
        near = nearest(name, known)
        cure = f"did you mean {near[0]!r}?" if near else f"add [sources.{name}] to rulebook {book.name!r}"
        door.add(column, int(assembly.order["markets"][row]), name, cure, f"{', '.join(known)}, or empty")


def check_tiers(door: Door, assembly: Assembly) -> None:
    """Check that the tiers of every contract start at floor 0: below the first floor no rate would hold."""
    tier = assembly.columns["tiers"]
    first = np.ones(len(tier["floor"]), dtype=bool)
    first[1:] = (np.diff(tier["exchange"]) != 0) | (np.diff(tier["asset"]) != 0)
    for row in np.flatnonzero(first & (tier["floor"] > 0)).tolist():
        column, original = schema()["tiers"]["floor"], int(assembly.order["tiers"][row])
        door.add(column, original, tier["floor"][row], "add the tier that starts at 0", "0 for the first tier")


def _check_contracts(door: Door, assembly: Assembly, market: dict[str, Any]) -> None:
    """Every contract somebody holds has a maintenance margin or tiers."""
    position, account, tier = (assembly.columns[name] for name in ("positions", "accounts", "tiers"))
    n_assets = len(assembly.labels["assets"])
    key = market["exchange"].astype(np.int64) * n_assets + market["asset"]
    held = account["exchange"].astype(np.int64)[position["account"]] * n_assets + position["asset"]
    tiered = tier["exchange"].astype(np.int64) * n_assets + tier["asset"]
    bare = np.isin(key, held) & ~np.isin(key, tiered) & np.isnan(market["maintenance_margin"])
    for row in np.flatnonzero(bare).tolist():
        exchange, asset = (assembly.labels[f"{k}s"][int(market[k][row])] for k in ("exchange", "asset"))
        value = f"empty for ({exchange!r}, {asset!r}), in which positions are held"
        cure = "fill in markets.maintenance_margin, or give tiers; it decides who is liquidated and has no default"
        given = int(assembly.order["markets"][row])
        allowed = f"a number in {schema()['markets']['maintenance_margin'].allowed}"
        door.problems.append(
            Problem("markets", "maintenance_margin", None if given < 0 else given, value, allowed, cure)
        )


def _check_thresholds(door: Door, assembly: Assembly, market: dict[str, Any]) -> None:
    threshold, bonus, loan = (market[n] for n in ("liquidation_threshold", "liquidation_bonus", "loan_to_value"))
    for row in np.flatnonzero((threshold < 1) & (threshold * (1 + bonus) >= 1)):
        column = schema()["markets"]["liquidation_bonus"]
        value = f"threshold {threshold[row]:g} x (1 + bonus {bonus[row]:g}) = {threshold[row] * (1 + bonus[row]):g}"
        cure = "lower the threshold or the bonus: at 1 or above every liquidation worsens health"
        row_given = int(assembly.order["markets"][row])
        door.problems.append(Problem("markets", column.name, row_given, value, "threshold x (1 + bonus) < 1", cure))
    for row in np.flatnonzero(loan > threshold):
        column = schema()["markets"]["loan_to_value"]
        value = f"loan_to_value {loan[row]:g} above liquidation_threshold {threshold[row]:g}"
        row_given = int(assembly.order["markets"][row])
        cure = "a loan at the limit would be called at once"
        door.problems.append(Problem("markets", column.name, row_given, value, "at most the threshold", cure))


def _use_of_markets(assembly: Assembly) -> tuple[NDArray[np.bool_], ...]:
    """Tell what each market is used for: securing debt, with its own threshold, with its own bonus; lending."""
    market, balance, account = (assembly.columns[name] for name in ("markets", "balances", "accounts"))
    n_assets = len(assembly.labels["assets"])
    key = market["exchange"].astype(np.int64) * n_assets + market["asset"]
    owner = balance["account"]
    place = np.searchsorted(key, account["exchange"].astype(np.int64)[owner] * n_assets + balance["asset"])
    in_debt = np.zeros(len(account["trader"]), dtype=bool)
    in_debt[owner[balance["borrowed"] > 0]] = True
    sold = assembly.columns["assets"]["kind"][balance["asset"]] != "residual"
    refused = market["liquidation_threshold"][place] == 0
    own_threshold = ~np.isnan(account["liquidation_threshold"])[owner]
    own_bonus = ~np.isnan(account["liquidation_bonus"])[owner]
    secures = in_debt[owner] & (balance["deposited"] > 0)

    def anywhere(rows: NDArray[np.bool_]) -> NDArray[np.bool_]:
        used = np.zeros(len(key), dtype=bool)
        used[place[rows]] = True
        return used

    return (
        anywhere(secures),
        anywhere(secures & ~own_threshold),
        anywhere(secures & ~own_bonus & sold & (own_threshold | ~refused)),
        anywhere(balance["borrowed"] > 0),
    )
