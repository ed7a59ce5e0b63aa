"""How a run opens: prices, books and rules right after the shock; accounts are opened when they can act."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion._arrays import freeze
from netcontagion.margining._auctions import auction_terms
from netcontagion.margining._forms import LADDER, read_forms
from netcontagion.margining._inventory import no_lots
from netcontagion.margining._kept import kept
from netcontagion.margining._overlay import Overlay, empty_tables
from netcontagion.margining._quotes import Quotes
from netcontagion.margining._sizing import lltv_bonus
from netcontagion.margining._state import CHANNELS, Board, Ledger, Live, Reserves, bearers, records
from netcontagion.margining._valuation import INVERSE, LINEAR, Terms
from netcontagion.network import rulebook

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

    from netcontagion.margining._forms import Forms
    from netcontagion.margining._state import Books, Markets, Rules
    from netcontagion.network import ExposureNetwork, Rulebook, Shock

__all__ = ["empty_ledger", "open_state", "settlement"]

_ORDERS = {"bonus": 0, "largest": 0, "worst_pnl": 1, "most_relief": 2}  # of the contracts of an account

_ROUTES = ("liquidator", "market", "protocol", "auction", "vault")
_COLLATERAL_ORDERS = {"bonus": 0, "largest": 1, "most_relief": 2, "worst_pnl": 0}


def open_state(net: ExposureNetwork, shock: Shock, *, switches: Collection[str]) -> Live:
    """Lay out the state right after the shock, before round 0, with some behavioural channels on."""
    book, exchange = net.book, net.columns("exchanges")
    factor = shock.price_factors(net)
    prices = net.columns("assets")["price"] * factor
    depth = book.book_depth * shock.depth_factor if "impact" in switches else np.full(len(book.book_depth), np.inf)
    markets = _markets(net, factor)
    quotes = kept(net, "_without_sources", _without_sources) or Quotes(net)
    quotes.open(np.concatenate([prices, markets.shocked]))
    opening = np.array(markets.shocked)
    opening[quotes.market] = quotes.opening
    overlay = Overlay(net, switches, shock.defaulted(net), prices, opening, markets.settle)
    books, levels = _books(net, depth)
    board = Board(
        markets=markets,
        books=books,
        levels=levels,
        rules=_rules(net, shock),
        ledger=empty_ledger(net, len(exchange["equity"]) + len(bearers(net))),
        **empty_tables(),
    )
    return Live(
        net=net,
        shock=shock,
        board=board,
        terms=Terms.of(net, markets),
        layers=[_layers(rulebook(name)) for name in exchange["rulebook"]],
        deficits=[rulebook(name).deficit_rule for name in exchange["rulebook"]],
        reserves=Reserves.of(net),
        asset_base=prices,
        fund_units=np.array(exchange["insurance_fund"]),
        fund_asset=exchange["insurance_asset"],
        equity=np.array(exchange["equity"]),
        marks_outside=prices,
        quotes=quotes,
        overlay=overlay,
        lots=no_lots(),
        auctions=auction_terms(net),
    )


def _without_sources(net: ExposureNetwork) -> Quotes | None:
    """Quotes where no market names a source: no run changes them."""
    quotes = Quotes(net)
    return None if len(quotes.market) else quotes


def _markets(net: ExposureNetwork, factor: NDArray[np.float64]) -> Markets:
    book, market = net.book, net.columns("markets")
    kind = net.columns("assets")["kind"][book.market_asset]
    long, short = market["maintenance_margin"], market["maintenance_margin_short"]
    found: Markets = records(
        exchange=(book.market_exchange, np.int32),
        asset=(book.market_asset, np.int32),
        shocked=(book.market_mark * factor[book.market_asset], float),
        book=(book.market_book, np.int32),
        bonus=(_bonus(net), float),
        close_factor=(market["close_factor"], float),
        fee=(market["protocol_fee"], float),
        sellable=(kind != "residual", np.uint8),
        room=(np.full(len(book.market_mark), np.inf), float),
        kind=((kind == "linear") * LINEAR + (kind == "inverse") * INVERSE, np.uint8),
        face=(net.columns("assets")["multiplier"][book.market_asset], float),
        settle=(settlement(net), np.int64),
        long=(np.nan_to_num(long, nan=0.0), float),
        short=(np.nan_to_num(np.where(np.isnan(short), long, short), nan=0.0), float),
    )
    return found


def settlement(net: ExposureNetwork) -> NDArray[np.int64]:
    """Market that each contract pays in, on its own exchange, by default that of the numeraire; -1: none."""
    return kept(net, "_settlement", _settlement)


def _settlement(net: ExposureNetwork) -> NDArray[np.int64]:
    import pandas as pd

    book, n_assets = net.book, len(net.labels("assets"))
    money = int(net.labels("assets").get_indexer(pd.Index([net.numeraire], dtype=object))[0])
    coin = net.columns("assets")["settlement"][book.market_asset].astype(np.int64)
    coin = np.where(coin < 0, money, coin)
    key = book.market_exchange.astype(np.int64) * n_assets + book.market_asset
    wanted = book.market_exchange.astype(np.int64) * n_assets + coin
    place = np.minimum(np.searchsorted(key, wanted), max(len(key) - 1, 0))
    return freeze(
        np.where((coin >= 0) & (key[place] == wanted), place, -1) if len(key) else np.zeros(0, dtype=np.int64)
    )


def _books(net: ExposureNetwork, depth: NDArray[np.float64]) -> tuple[Books, NDArray[np.float64] | None]:
    """Books on which nothing was traded yet, those of the assets first, and the levels of their ladders."""
    found = kept(net, "_unused_books", _unused_books).copy()
    found["depth"] = depth
    forms = kept(net, "_impact_forms", _impact_forms)
    return found, forms.levels if (forms.form == LADDER).any() else None


def _impact_forms(net: ExposureNetwork) -> Forms:
    return read_forms(net.columns("assets")["impact"].tolist())


def _unused_books(net: ExposureNetwork) -> Any:
    asset, none = net.columns("assets"), np.zeros(len(net.book.book_depth))
    of_book = np.concatenate([np.arange(len(asset["price"])), net.book.market_asset])
    forms = kept(net, "_impact_forms", _impact_forms)
    own, of_asset = net.columns("markets")["spread"], asset["spread"][net.book.market_asset]
    resilience = np.where(np.isnan(asset["half_life"]), 1.0, 0.5 ** (1.0 / asset["half_life"]))
    return records(
        form=(forms.form[of_book], np.uint8),
        first=(forms.first[of_book], np.int64),
        last=(forms.last[of_book], np.int64),
        depth=(none, float),
        sold=(none, float),
        passing=(none, float),
        permanent=(asset["permanent"][of_book], float),
        resilience=(resilience[of_book], float),
        spread=(np.append(asset["spread"], np.where(np.isnan(own), of_asset, own)), float),
        common=(np.full(len(none), np.nan), float),
        together=(none, float),
        refused=(none, float),
        crowd=(none, float),
    )


def _bonus(net: ExposureNetwork) -> NDArray[np.float64]:
    """Bonus of every market: its own, or what its threshold makes of it."""
    market = net.columns("markets")
    found: NDArray[np.float64] = np.nan_to_num(market["liquidation_bonus"], nan=0.0)
    for exchange, name in enumerate(net.columns("exchanges")["rulebook"]):
        rule = rulebook(name).price_rule
        if rule.bonus == "lltv":
            here = (net.book.market_exchange == exchange) & (market["liquidation_threshold"] > 0)
            threshold = market["liquidation_threshold"][here]
            found[here] = lltv_bonus(threshold, cursor=rule.cursor, cap=rule.bonus_cap)
    return found


def _rules(net: ExposureNetwork, shock: Shock) -> Rules:
    found = kept(net, "_rules_of_exchanges", _rules_of).copy()
    found["out"] = shock.out(net)
    rules: Rules = found
    return rules


def _rules_of(net: ExposureNetwork) -> Any:
    exchange = net.columns("exchanges")
    books = [rulebook(name) for name in exchange["rulebook"]]
    funds = [
        next((layer for layer in book.deficit_rule.layers if layer.name == "insurance_fund"), None) for book in books
    ]
    none = np.full(len(books), np.inf)

    def numbers(part: str, name: str) -> list[float]:
        values = [getattr(getattr(book, f"{part}_rule"), name) for book in books]
        return [np.nan if value is None else value for value in values]

    return records(
        route=([_ROUTES.index(book.inventory) for book in books], np.uint8),
        collateral_order=([_COLLATERAL_ORDERS[book.amount_rule.order] for book in books], np.uint8),
        whole_account=([book.amount == "whole_account" for book in books], np.uint8),
        position_base=([book.base == "position" for book in books], np.uint8),
        close_factor=(numbers("amount", "close_factor"), float),
        full_below_health=(numbers("amount", "full_below_health"), float),
        full_below_value=(numbers("amount", "full_below_value"), float),
        minimum_leftover=(numbers("amount", "minimum_leftover"), float),
        always=([book.participation == "always" for book in books], np.uint8),
        gas=(numbers("inventory", "gas"), float),
        capital=(numbers("inventory", "capital"), float),
        capacity=(numbers("amount", "capacity"), float),
        capacity_per_asset=(numbers("amount", "capacity_per_asset"), float),
        notice=(numbers("health", "notice"), np.int64),
        cooldown=(numbers("amount", "cooldown"), np.int64),
        penalty=(numbers("price", "penalty"), float),
        factor=(numbers("price", "factor"), float),
        store_front=(numbers("inventory", "store_front"), float),
        target_reserves=(numbers("inventory", "target_reserves"), float),
        hands_on=(["co_borrowers" in book.layers for book in books], np.uint8),
        fund_cap=([np.inf if fund is None else fund.cap for fund in funds], float),
        drawdown=([1.0 if fund is None else fund.drawdown for fund in funds], float),
        fund_peak=(net.columns("exchanges")["insurance_fund"], float),
        left=(none, float),
        room=(none, float),
        wanted=(none, float),
        fund_left=(none, float),
        out=(np.zeros(len(books)), np.uint8),
        reduce=([book.amount == "reduce" for book in books], np.uint8),
        target_health=([book.amount_rule.target_health for book in books], float),
        slice=([book.amount_rule.slice for book in books], float),
        slice_above=([book.amount_rule.slice_above for book in books], float),
        order=([_ORDERS[book.amount_rule.order] for book in books], np.uint8),
        at_bankruptcy=([book.price == "bankruptcy" for book in books], np.uint8),
        fee=([book.price_rule.fee for book in books], float),
        closed=(exchange["withdraw_status"] == "closed", np.uint8),
        gated=((exchange["withdraw_delay"] > 0) | ~np.isnan(exchange["withdraw_cap"]), np.uint8),
        deleverages=(["auto_deleveraging" in book.layers for book in books], np.uint8),
        to_vault=([book.inventory == "vault" for book in books], np.uint8),
        backstop_below=([book.amount_rule.backstop_below for book in books], float),
        vault=(np.full(len(books), -1), np.int64),
    )


def _layers(book: Rulebook) -> tuple[str, ...]:
    """Layers of a rulebook; an exchange that sells what it took over first uses what such sales earned."""
    return (("surplus",) if book.inventory in ("protocol", "auction") else ()) + book.layers


def empty_ledger(net: ExposureNetwork, n_bearers: int) -> Ledger:
    """Make a ledger in which nothing was posted yet."""
    n_markets, n_assets = len(net.book.market_mark), len(net.labels("assets"))
    return Ledger(
        loss=np.zeros((len(CHANNELS), n_bearers)),
        flow=np.zeros(n_bearers),
        cash=np.zeros(n_bearers),
        bought=np.zeros(n_markets + n_assets),
        passed=np.zeros(n_markets + n_assets),
        fees=np.zeros(n_markets),
        pool=np.zeros(n_markets),
        hole=np.zeros(n_markets),
        short=np.zeros(n_markets),
        inventory=np.zeros(n_markets),
        owed=np.zeros(n_markets),
        minted=np.zeros(len(net.labels("exchanges"))),
    )
