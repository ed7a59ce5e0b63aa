"""Prices between rounds: price sources, arbitrage and redemption, depth under volatility; twins, limits and laws."""

from __future__ import annotations

import copy
import math
import statistics
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from seeds import some_and_slow
from test_cascade_twin import random_shock, random_tables

import netcontagion as nc
from netcontagion.errors import ContagionError, SchemaError
from netcontagion.margining import arbitrage, maker_depth, update_volatility
from netcontagion.margining._quotes import Quotes
from netcontagion.network import Leg, rulebook

NAN = math.nan
ON = frozenset(("top_up", "withdrawal", "liquidation", "impact"))


@pytest.fixture
def book(tmp_path):
    """Write a rulebook: a preset with sources; return its path."""

    def write(sources, preset="lending", name="own"):
        path = tmp_path / f"{name}.toml"
        path.write_text(preset_text(preset) + "\n" + sources, encoding="utf-8")
        return str(path)

    yield write
    rulebook.cache_clear()


def preset_text(name):
    return resources.files("netcontagion.network").joinpath("rulebooks", f"{name}.toml").read_text(encoding="utf-8")


def lend(accounts, assets, *, venues, markets=(), rulebooks=(), **tables):
    """Lending market: accounts {"trader@venue": {asset: units}}, columns by asset, by (venue, asset) and by venue."""
    markets, rulebooks = dict(markets), dict(rulebooks)
    rows = [
        {"exchange": v, "asset": a, "liquidation_threshold": 0.8, "liquidation_bonus": 0.05, "close_factor": 0.5}
        | markets.get((v, a), {})
        for v in venues
        for a in assets
    ]
    owners = [{"account": k, "trader": k.split("@")[0], "exchange": k.split("@")[1]} for k in accounts]
    held = [
        {"account": k, "asset": a, "deposited": max(x, 0.0), "borrowed": max(-x, 0.0)}
        for k, units in accounts.items()
        for a, x in units.items()
    ]
    given = {
        "assets": columns([{"asset": a} | row for a, row in assets.items()]),
        "markets": columns(rows),
        "accounts": columns(owners),
        "balances": columns(held),
        "exchanges": columns([{"exchange": v, "rulebook": "lending"} | dict(rulebooks.get(v, {})) for v in venues]),
    }
    return nc.ExposureNetwork(**(given | tables))


def columns(rows):
    names = dict.fromkeys(name for row in rows for name in row)
    empty = {"price_source": None, "underlying": None}
    return {name: [row.get(name, empty.get(name, DEFAULTS.get(name, NAN))) for row in rows] for name in names}


DEFAULTS = {"arbitrage": 0.0, "ratio": 1.0, "backing_ratio": 1.0, "redemption_open": True, "redemption_cap": math.inf,
            "depth_power": 0.0, "transfers": "open", "kind": "token"}  # fmt: skip


def run(net, shock=None, **options):
    found = nc.cascade(net, shock or nc.Shock(), **options)
    found.check()
    return found


def called(found):
    return set(found.accounts.index[found.accounts["called"]])


# sources against a plain twin -----------------------------------------------------------------------------------------


class Plain:
    """One source, by lists that start at the time of record; prices are {asset: ...} and {(exchange, asset): ...}."""

    def __init__(self, source, net, market, before):
        self.source, self.net, self.market = source, net, market
        self.recorded, self.before = before[market], before
        first = self.value(before) if source.mode in ("pegged", "redemption") else self.recorded
        self.answers, self.told, self.updated = [first], [first], 0

    def value(self, prices):
        source, asset, table = self.source, self.market[1], self.net.assets
        if source.mode == "spot":
            return prices[self.market]
        if source.mode == "asset":
            return prices[asset]
        if source.mode == "redemption":
            row = table.loc[asset]
            return prices[row["underlying"]] * row["ratio"] * row["backing_ratio"]
        quotes, weights = [], []
        for leg in source.legs or [Leg(exchange=v) for v, a in self.net.markets.index if a == asset]:
            name = leg.asset or asset
            quote, below = prices[(leg.exchange, name) if leg.exchange else name], asset
            while leg.convert and below != name:
                quote *= table.loc[below, "ratio"]
                below = table.loc[below, "underlying"]
            quotes.append(quote)
            weights.append(leg.weight)
        if source.mode == "median":
            return statistics.median(quotes)
        return sum(w * q for w, q in zip(weights, quotes, strict=True)) / sum(weights)

    def read(self, prices):
        source = self.source
        value = self.value(prices)
        if source.mode not in ("pegged", "redemption"):
            value = self.recorded * value / self.value(self.before)
        self.answers.append(value)
        window = [self.answers[max(len(self.answers) - 1 - back, 0)] for back in range(source.window)]
        answer, last, now = sum(window) / source.window, self.told[-1], len(self.answers) - 1
        moved = source.deviation > 0 and abs(answer / last - 1) >= source.deviation
        old = source.heartbeat > 0 and now - self.updated >= source.heartbeat
        if moved or old or (source.deviation == 0 and source.heartbeat == 0):
            last, self.updated = answer, now
        self.told.append(last)
        late = 0 if math.isinf(source.latency) else max(now - math.ceil(source.latency), 0)
        return min(max(self.told[late], source.low), source.high)


VENUES, ASSETS = ["A", "B", "C"], ["USD", "X", "wX", "wwX"]


def quoted_net(sources, names, rng):
    """Three exchanges with books of their own; market n names source n."""
    pairs = [(v, a) for v in VENUES for a in ASSETS]
    price = {"USD": 1.0, "X": 50.0, "wX": 55.0, "wwX": 110.0}
    marks = {pair: price[pair[1]] * float(rng.uniform(0.9, 1.1)) for pair in pairs}
    assets = {
        "USD": {"price": 1.0},
        "X": {"price": 50.0, "depth": 10.0},
        "wX": {"price": 55.0, "underlying": "X", "ratio": 1.1, "backing_ratio": 0.9, "depth": 10.0},
        "wwX": {"price": 110.0, "underlying": "wX", "ratio": 2.0},
    }
    markets = {pair: {"price": marks[pair], "depth": 5.0} for pair in pairs}
    for pair, name in zip(pairs, names, strict=True):
        markets[pair]["price_source"] = name
    return lend(
        {"t@A": {"X": 1.0, "USD": -1.0}}, assets, venues=VENUES, markets=markets,
        rulebooks={v: {"rulebook": sources} for v in VENUES},
    )  # fmt: skip


def random_source(rng, name):
    mode = str(rng.choice(["spot", "asset", "index", "median", "twap", "pegged", "redemption"]))
    many = {"pegged": 1, "index": 3, "median": 3, "twap": 2}.get(mode, 0) * int(mode == "pegged" or rng.random() < 0.7)
    legs = []
    for _ in range(many):
        leg = {"weight": round(float(rng.uniform(0.1, 3)), 3)}
        leg |= {"asset": "X", "convert": bool(rng.random() < 0.5)} if rng.random() < 0.5 else {}
        leg |= {"exchange": str(rng.choice(VENUES))} if rng.random() < 0.7 else {}
        legs.append(
            "{" + ", ".join(f"{k} = {str(v).lower() if isinstance(v, bool) else repr(v)}" for k, v in leg.items()) + "}"
        )
    lines = [f"[sources.{name}]", f'mode = "{mode}"'] + ([f"legs = [{', '.join(legs)}]"] if legs else [])
    lines += [f"deviation = {rng.choice([0.01, 0.1, 0.3])}"] if rng.random() < 0.4 else []
    lines += [f"heartbeat = {rng.integers(1, 6)}"] if rng.random() < 0.4 else []
    lines += [f"latency = {rng.choice(['0.5', '1', '3', 'inf'])}"] if rng.random() < 0.5 else []
    lines += [f"window = {rng.integers(1, 5)}"] if mode == "twap" else []
    lines += [f"low = {rng.uniform(1, 60)}"] if rng.random() < 0.3 else []
    lines += [f"high = {rng.uniform(60, 120)}"] if rng.random() < 0.3 else []
    return mode, "\n".join(lines)


@pytest.mark.parametrize("seed", some_and_slow(15, 40))
def test_sources_against_a_plain_twin(book, seed):
    rng = np.random.default_rng(seed)
    text, names = [], []
    for n, (_, asset) in enumerate((v, a) for v in VENUES for a in ASSETS):
        mode, lines = random_source(rng, f"s{n}")
        while (mode == "redemption" and asset in ("USD", "X")) or ("convert = true" in lines and asset == "USD"):
            mode, lines = random_source(rng, f"s{n}")
        text.append(lines)
        names.append(f"s{n}")
    net = quoted_net(book("\n".join(text)), names, rng)
    quotes = Quotes(net)
    pairs, assets = net.markets.index.tolist(), net.labels("assets").tolist()
    before = dict(zip(assets, net.columns("assets")["price"].tolist(), strict=True))
    before |= dict(zip(pairs, net.book.market_mark.tolist(), strict=True))
    known = {source.name: source for source in rulebook(net.exchanges.loc["A", "rulebook"]).sources}
    twins = [
        Plain(known[name], net, pair, before) for name, pair in zip(net.markets["price_source"], pairs, strict=True)
    ]
    prices = dict(before)
    marks = np.array([before[pair] for pair in pairs])
    for number in range(12):
        if number < 8:
            prices = {name: x * float(np.exp(rng.normal(0, 0.1))) for name, x in prices.items()}
        now = np.array([*(prices[a] for a in assets), *(prices[pair] for pair in pairs)])
        if number == 0:
            quotes.open(now)
        quotes.read(now)
        if number == 0:
            assert quotes.opening.tolist() == quotes.marks.tolist()
        marks = now[len(assets) :].copy()
        marks[quotes.market] = quotes.marks
        np.testing.assert_allclose(marks, [twin.read(prices) for twin in twins], rtol=1e-12)
    later = copy.deepcopy(quotes)
    for _ in range(12):
        settled = not later.pending
        said = later.marks
        later.read(now)
        assert not settled or later.marks == pytest.approx(said, rel=1e-12)
    assert not later.pending


def test_pending_is_over_exactly_when_the_last_mark_has_moved(book):
    net = quoted_net(book('[sources.osm]\nmode = "asset"\nlatency = 3\n'), [None] * 4 + ["osm"] + [None] * 7,
                     np.random.default_rng(0))  # fmt: skip
    quotes = Quotes(net)
    assert quotes.market.tolist() == [net.markets.index.get_loc(("B", "USD"))]
    now = np.concatenate([net.columns("assets")["price"], net.book.market_mark])
    pending, marks = [], []
    for number in range(6):
        quotes.read(now * (2.0 if number else 1.0))
        pending.append(quotes.pending)
        marks.append(float(quotes.marks[0] / quotes.recorded[0]))
    assert marks == [1.0, 1.0, 1.0, 1.0, 2.0, 2.0]
    assert pending == [False, True, True, True, False, False]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ('[sources.s]\nmode = "index"\nlegs = [{asset = "Y"}]', "leg 0: the network has no asset 'Y'"),
        ('[sources.s]\nmode = "index"\nlegs = [{}, {exchange = "AA"}]', "leg 1: the network has no exchange 'AA'"),
        ('[sources.s]\nmode = "pegged"\nlegs = [{asset = "X", convert = true}]', "'X' does not underlie 'USD'"),
        ('[sources.s]\nmode = "redemption"', "'USD' has no underlying that is an asset"),
    ],
)
def test_what_the_network_cannot_feed_is_refused_by_name(book, lines, said):
    path = book(lines)
    net = quoted_net(path, ["s"] + [None] * 11, np.random.default_rng(0))
    with pytest.raises(ContagionError) as error:
        nc.cascade(net, nc.Shock())
    assert said in str(error.value)
    assert f"rulebook {path!r}, source 's'" in str(error.value)


def test_a_leg_on_a_market_that_does_not_exist(book):
    path = book('[sources.s]\nmode = "index"\nlegs = [{exchange = "B"}]')
    net = nc.ExposureNetwork(
        assets={"asset": ["X", "USD"], "price": [1.0, 1.0]},
        exchanges={"exchange": ["A", "B"], "rulebook": [path, path]},
        markets={"exchange": ["A", "B"], "asset": ["X", "USD"], "price_source": ["s", None]},
    )
    with pytest.raises(ContagionError, match="exchange 'B' has no market of 'X'"):
        nc.cascade(net, nc.Shock())


def test_the_door_refuses_sources_that_no_rulebook_has():
    with pytest.raises(SchemaError) as error:
        lend({"t@A": {"X": 1.0}}, {"X": {"price": 1.0}}, venues=["A"], markets={("A", "X"): {"price_source": "spott"}})
    assert "'spott'" in str(error.value)
    assert "did you mean 'spot'" in str(error.value)
    with pytest.raises(SchemaError, match=r"add \[sources.osm\] to rulebook 'lending'"):
        lend({"t@A": {"X": 1.0}}, {"X": {"price": 1.0}}, venues=["A"], markets={("A", "X"): {"price_source": "osm"}})
    lend({"t@A": {"X": 1.0}}, {"X": {"price": 1.0}}, venues=["A"], markets={("A", "X"): {"price_source": "osm"}},
         rulebooks={"A": {"rulebook": "maker"}})  # fmt: skip
    with pytest.raises(SchemaError, match="above 0 with depth_power"):
        lend({"t@A": {"X": 1.0}}, {"X": {"price": 1.0, "depth_power": 1.0}}, venues=["A"])


def test_contracts_are_not_arbitraged():
    with pytest.raises(SchemaError, match="0 unless kind is token or stable"):
        lend({"t@A": {"X": 1.0}}, {"X": {"price": 1.0, "arbitrage": 1.0, "kind": "residual"}}, venues=["A"])


def test_markets_the_door_adds_have_no_source():
    net = nc.ExposureNetwork(
        assets={"asset": ["USD", "X"], "price": [1.0, 1.0]},
        markets={"exchange": ["A"], "asset": ["X"], "price_source": ["asset"], "liquidation_threshold": [0.8],
                 "liquidation_bonus": [0.05]},
        exchanges={"exchange": ["A"], "rulebook": ["aave_v3"]},
        accounts={"account": ["k"], "trader": ["t"], "exchange": ["A"]},
        balances={"account": ["k", "k"], "asset": ["X", "USD"], "deposited": [1.0, 0.0], "borrowed": [0.0, 0.1]},
    )  # fmt: skip
    assert net.columns("markets")["price_source"].tolist() == [None, "asset"]
    run(net, nc.Shock.price({"X": -0.5}))


# sources in a cascade -------------------------------------------------------------------------------------------------

LOAN = {"USDe": 100.0, "USD": -75.0}


def depeg(source_a, source_b, **more):
    """USDe at 0.65 on A's own book after a sale there, 0.99 elsewhere; the same loan on both exchanges."""
    return lend(
        {"a@A": LOAN, "b@B": LOAN},
        {"USD": {"price": 1.0}, "USDe": {"price": 0.99, "depth": 1e9}},
        venues=["A", "B"],
        markets={
            ("A", "USDe"): {"price": 0.65, "depth": 1e6, "price_source": source_a},
            ("B", "USDe"): {"depth": 1e6, "price_source": source_b},
        },
        **more,
    )


def test_the_depeg_of_one_exchange_calls_only_where_the_mark_is_the_local_book(book):
    """2025-10-10: USDe printed 0.65 on one exchange and 0.99 on the chain; only local marks called anybody."""
    assert called(run(depeg(None, None))) == {"a@A"}
    assert called(run(depeg("spot", "spot"))) == {"a@A"}
    pegged = book('[sources.hard]\nmode = "pegged"\nlegs = [{asset = "USD"}]\n[sources.outside]\nmode = "pegged"\n'
                  'legs = [{asset = "USDe"}]\n[sources.mixed]\nmode = "median"\n')  # fmt: skip
    rules = {"rulebooks": {v: {"rulebook": pegged} for v in ("A", "B")}}
    for name, mark in (("hard", 1.0), ("outside", 0.99)):
        found = run(depeg(name, name, **rules))
        assert called(found) == set()
        assert found.markets["mark"].xs("USDe", level="asset").tolist() == pytest.approx([mark, mark])


def test_fills_stay_on_the_book_where_the_mark_is_elsewhere(book):
    """The account is called at a pegged mark after the peg falls; what is sold brings what the own book pays."""
    path = book('[sources.outside]\nmode = "pegged"\nlegs = [{asset = "X"}]', preset="closeout")
    net = lend(
        {"a@A": {"X": 10.0, "USD": -7.0}}, {"USD": {"price": 1.0}, "X": {"price": 1.0}}, venues=["A"],
        markets={("A", "X"): {"price": 0.9, "depth": 100.0, "price_source": "outside"}},
        rulebooks={"A": {"rulebook": path}},
    )  # fmt: skip
    found = run(net, nc.Shock.price({"X": -0.2}))
    assert found.markets.loc[("A", "X"), "mark"] == pytest.approx(0.8)
    sale = found.events[found.events["type"] == "sale"].iloc[0]
    assert sale["cash"] == pytest.approx(0.9 * 0.8 * 100.0 * -math.expm1(-10.0 / 100.0))
    assert found.markets.loc[("A", "X"), "mark_after_shock"] == pytest.approx(0.8)


def test_16_the_oracle_is_not_the_market(book):
    """Liquidators do not act while the book is below what the oracle charges them."""
    path = book('[sources.peg]\nmode = "pegged"\nlegs = [{asset = "USD"}]')
    accounts = {"a@A": {"X": 100.0, "USD": -81.0}}
    assets = {"USD": {"price": 1.0}, "X": {"price": 1.0, "depth": 1e9}}
    own = lend(accounts, assets, venues=["A"])
    told = lend(accounts, assets, venues=["A"], markets={("A", "X"): {"price_source": "peg"}},
                rulebooks={"A": {"rulebook": path}})  # fmt: skip
    fall = nc.Shock.price({"X": -0.1})
    assert nc.cascade(own, fall, strict=False).accounts.loc["a@A", "liquidated"]
    found = nc.cascade(told, fall, strict=False)
    found.check()
    assert called(found) == {"a@A"}  # 0.8 x 100 / 81 < 1 at the peg
    assert not found.accounts.loc["a@A", "liquidated"]  # 1 / 1.05 > 0.9


def test_an_oracle_at_its_floor_hides_bad_debt(book):
    """A clipped oracle: collateral falls to 0.1, the oracle stops at 0.9; health stays above 1 and nobody is called."""
    floor = '[sources.floored]\nmode = "asset"\nlow = {}'
    accounts = {"a@A": {"X": 100.0, "USD": -70.0}}
    assets = {"USD": {"price": 1.0}, "X": {"price": 1.0}}

    def market(low, name):
        return lend(accounts, assets, venues=["A"], markets={("A", "X"): {"price_source": "floored"}},
                    rulebooks={"A": {"rulebook": book(floor.format(low), preset="closeout", name=name)}})  # fmt: skip

    fall = nc.Shock.price({"X": -0.9})
    hidden, seen = run(market(0.9, "high"), fall), run(market(0.0, "none"), fall)
    assert hidden.accounts.loc["a@A", "health"] == pytest.approx(0.9 * 0.8 * 100 / 70)
    assert called(hidden) == set()
    assert hidden.exchanges["deficit"].sum() == 0.0
    assert seen.exchanges["deficit"].sum() == pytest.approx(60.0)


def test_a_delayed_oracle_calls_late_and_the_run_waits_for_it(book):
    """Maker's OSM: the shock of round 0 is in the mark 40 rounds later, and only then is anybody called."""
    path = book('[sources.osm]\nmode = "asset"\nlatency = 40', preset="closeout")
    net = lend({"a@A": {"X": 100.0, "USD": -70.0}}, {"USD": {"price": 1.0}, "X": {"price": 1.0, "depth": 1e5}},
               venues=["A"], markets={("A", "X"): {"price_source": "osm"}},
               rulebooks={"A": {"rulebook": path}})  # fmt: skip
    found = run(net, nc.Shock.price({"X": -0.3}))
    assert found.accounts.loc["a@A", "first_round"] == 40
    assert found.accounts.loc["a@A", "health_after_shock"] > 1
    assert found.markets.loc[("A", "X"), "mark_after_shock"] == 1.0
    assert found.status.settled
    assert found.markets.loc[("A", "X"), "mark"] == pytest.approx(found.assets.loc["X", "price"])  # it caught up
    frozen = book('[sources.osm]\nmode = "asset"\nlatency = inf', preset="closeout", name="frozen")
    still = run(net.replace(exchanges={"exchange": ["A"], "rulebook": [frozen]}), nc.Shock.price({"X": -0.3}))
    assert called(still) == set()
    assert len(still.rounds) == 1


MARGIN = """
[health]
test = "equity"
[amount]
rule = "whole_account"
[price]
rule = "execution"
[inventory]
route = "market"
[deficit]
layers = ["insurance_fund", "equity", "suppliers"]
[sources.index]
mode = "index"
legs = [{exchange = "A", weight = 1.0}, {exchange = "B", weight = 3.0}]
"""


@pytest.mark.parametrize("source", [None, "index"])
def test_margin_accounts_are_called_at_the_index(tmp_path, source):
    """A long of 10 at 100 with 60 of margin: A's own book falls by 10 % with a close-out there, the index by 2.5 %."""
    path = tmp_path / "margin.toml"
    path.write_text(MARGIN, encoding="utf-8")
    rulebook.cache_clear()
    accounts = {"k@A": "A", "m@A": "A", "s@A": "A", "z@B": "B"}
    quantity = {"k@A": 10.0, "m@A": 10.0, "s@A": -20.0}
    margin = {"k@A": 4.0, "m@A": 60.0, "s@A": 5000.0, "z@B": 1.0}
    net = nc.ExposureNetwork(
        assets={"asset": ["P", "USD"], "price": [100.0, 1.0], "kind": ["linear", "token"]},
        exchanges={"exchange": ["A", "B"], "rulebook": [str(path)] * 2},
        markets={"exchange": ["A", "B"], "asset": ["P", "P"], "depth": [95.0, 95.0], "maintenance_margin": [0.005] * 2,
                 "price_source": [source, None]},
        accounts={"account": list(accounts), "trader": [k[0] for k in accounts], "exchange": list(accounts.values())},
        balances={"account": list(margin), "asset": ["USD"] * 4, "deposited": list(margin.values()),
                  "borrowed": [0.0] * 4},
        positions={"account": list(quantity), "asset": ["P"] * 3, "quantity": list(quantity.values()),
                   "entry_price": [100.0] * 3},
    )  # fmt: skip
    found = run(net)
    rulebook.cache_clear()
    fall = 1 - math.exp(-10 / 95)
    mark = 100 * (1 - fall if source is None else 1 - fall / 4)
    if source is None:
        assert called(found) == {"k@A", "m@A"}  # 60 - 10 x 10 < 0
    else:
        assert called(found) == {"k@A"}
        assert found.markets.loc[("A", "P"), "mark"] == pytest.approx(mark)


def test_27_stale_index_weights(book):
    """30 % spot + 70 % of the staked coin's rate, before 20 / 80: the weight says how far one book's fall reaches."""
    legs = '[{{exchange = "A", weight = {}}}, {{asset = "SOL", weight = {}, convert = true}}]'
    legs = f'[sources.i]\nmode = "index"\nlegs = {legs}'
    marks = []
    for name, own, rate in (("new", 0.3, 0.7), ("old", 0.2, 0.8)):
        net = lend(
            {"a@A": {"bnSOL": 10.0, "USD": -1.0}},
            {"USD": {"price": 1.0}, "SOL": {"price": 200.0},
             "bnSOL": {"price": 220.0, "underlying": "SOL", "ratio": 1.1}},
            venues=["A"], markets={("A", "bnSOL"): {"price_source": "i"}},
            rulebooks={"A": {"rulebook": book(legs.format(own, rate), name=name)}},
        )  # fmt: skip
        found = run(net, nc.Shock.price({"bnSOL": -0.8}, family=False))
        marks.append(found.markets.loc[("A", "bnSOL"), "mark"])
    assert marks == pytest.approx([0.3 * 44 + 0.7 * 220, 0.2 * 44 + 0.8 * 220])


def test_a_recorded_basis_stays_where_the_source_says_how_far_to_move():
    net = lend({"a@A": {"X": 10.0, "USD": -1.0}}, {"USD": {"price": 1.0}, "X": {"price": 100.0}}, venues=["A"],
               markets={("A", "X"): {"price": 102.0, "depth": 5.0, "price_source": "asset"}})  # fmt: skip
    found = run(net, nc.Shock.price({"X": -0.5}))
    assert found.markets.loc[("A", "X"), "mark"] == pytest.approx(51.0)
    assert run(net).markets.loc[("A", "X"), "mark"] == 102.0


def test_the_cause_of_a_call_is_the_sale_on_the_book_the_source_reads():
    """B's loan is marked by the shared book, which A's close-out lowers; B's own book nobody touched."""
    net = lend(
        {"a@A": {"X": 100.0, "USD": -79.0}, "b@B": {"X": 100.0, "USD": -70.0}},
        {"USD": {"price": 1.0}, "X": {"price": 1.0, "depth": 500.0}}, venues=["A", "B"],
        markets={("B", "X"): {"depth": 1e6, "price_source": "asset"}},
        rulebooks={"A": {"rulebook": "closeout"}, "B": {"rulebook": "closeout"}},
    )  # fmt: skip
    found = run(net, nc.Shock.price({"X": -0.02}))
    events = found.events
    sale = events.index[(events["type"] == "sale") & (events["account"] == "a@A")][0]
    assert events.loc[(events["type"] == "call") & (events["account"] == "b@B"), "parent"].item() == sale


# arbitrage ------------------------------------------------------------------------------------------------------------


def two_books(capital, *, transfers="open", units=50.0):
    """One close-out on A; books of 300 at A and 100 at B, no shared one."""
    return lend(
        {"a@A": {"X": units, "USD": -0.9 * units}, "b@B": {"X": 10.0, "USD": -6.9}},
        {"USD": {"price": 1.0}, "X": {"price": 1.0, "arbitrage": capital}}, venues=["A", "B"],
        markets={("A", "X"): {"depth": 300.0}, ("B", "X"): {"depth": 100.0}},
        rulebooks={"A": {"rulebook": "closeout", "transfers": transfers}, "B": {"rulebook": "closeout"}},
    )  # fmt: skip


def test_full_integration_is_one_book_with_the_depth_of_both():
    found = run(two_books(math.inf))
    one = math.exp(-50.0 / 400.0)
    assert found.markets["mark"].xs("X", level="asset").tolist() == pytest.approx([one, one], rel=1e-12)
    gain = -found.losses["arbitrageurs"].sum()
    step = arbitrage([1.0, 1.0], [300.0, 100.0], sold=[50.0, 0.0])
    assert gain == pytest.approx(step.profit)
    assert gain > 0
    events = found.events[found.events["type"] == "arbitrage"]
    assert len(events) == 2
    assert (events["parent"] == found.events.index[found.events["type"] == "sale"][0]).all()
    assert found.assets.loc["X", "sold"] == pytest.approx(50.0)


def test_without_capital_or_with_closed_transfers_exchanges_stand_apart():
    apart = run(two_books(0.0))
    assert apart.markets["mark"].xs("X", level="asset").tolist() == pytest.approx([math.exp(-50 / 300), 1.0])
    assert "arbitrageurs" not in apart.losses.columns
    for found in (run(two_books(math.inf, transfers="closed")), run(two_books(math.inf), nc.Shock.outage("B"))):
        assert found.markets["mark"].tolist() == pytest.approx(apart.markets["mark"].tolist())
        assert found.losses["arbitrageurs"].tolist() == [0.0] * len(found.losses)


def test_capital_limits_each_round_and_contagion_comes_with_it():
    """A little capital evens out slowly; b at B falls below health 1 only because arbitrage brings the fall there."""
    b_called = {}
    for capital in (0.0, 1.0, math.inf):
        found = run(two_books(capital, units=100.0))
        b_called[capital] = "b@B" in called(found)
        prices = found.markets["mark"].xs("X", level="asset").to_numpy()
        if capital:
            assert prices[0] == pytest.approx(prices[1], rel=1e-8)
        if capital == 1.0:
            assert len(found.rounds) > 10
    assert b_called == {0.0: False, 1.0: True, math.inf: True}


def test_prices_of_a_shared_book_take_part():
    net = lend({"a@A": {"X": 50.0, "USD": -45.0}},
               {"USD": {"price": 1.0}, "X": {"price": 1.0, "depth": 700.0, "arbitrage": math.inf}}, venues=["A"],
               markets={("A", "X"): {"depth": 300.0}}, rulebooks={"A": {"rulebook": "closeout"}})  # fmt: skip
    found = run(net)
    assert found.assets.loc["X", "price"] == pytest.approx(math.exp(-50 / 1000))


# wrapped assets -------------------------------------------------------------------------------------------------------


def wrapped(*, units=50.0, backing=1.0, depth=NAN, **own):
    """A close-out of 50 wX, each redeemable for 2 X; wX has depth 100, X the given depth."""
    return lend(
        {"a@A": {"wX": units, "USD": -1.7 * units}},
        {"USD": {"price": 1.0}, "X": {"price": 1.0, "depth": depth},
         "wX": {"price": 2.0 * backing, "underlying": "X", "ratio": 2.0, "depth": 100.0, "backing_ratio": backing,
                "arbitrage": math.inf} | own},
        venues=["A"], rulebooks={"A": {"rulebook": "closeout"}},
    )  # fmt: skip


def test_redemption_pulls_a_claim_to_its_value():
    found = run(wrapped())
    assert found.assets.loc["wX", "price"] == pytest.approx(2.0, rel=1e-8)
    assert found.assets.loc["X", "price"] == 1.0
    got = 2.0 * 100.0 * (1 - math.exp(-0.5))  # what the sale brought is what redeemers pay; each gives 2
    assert -found.losses["arbitrageurs"].sum() == pytest.approx(50.0 * 2.0 - got)
    deep = run(wrapped(depth=400.0))
    claim, coin = deep.assets.loc["wX", "price"], deep.assets.loc["X", "price"]
    assert claim == pytest.approx(2.0 * coin)
    q = 0.5 / (1 / 100 + 2 / 400)  # 0.5 - q / 100 = 2 q / 400
    assert coin == pytest.approx(math.exp(-2 * q / 400))


def test_a_closed_or_rationed_gate_leaves_the_discount():
    shut = run(wrapped(redemption_open=False))
    assert shut.assets.loc["wX", "price"] == pytest.approx(2.0 * math.exp(-0.5))
    assert shut.losses["arbitrageurs"].abs().sum() == 0.0
    slow = run(wrapped(redemption_cap=1.0))
    assert slow.assets.loc["wX", "price"] == pytest.approx(2.0)
    assert 50 <= len(slow.rounds) <= 53
    poor = run(wrapped(arbitrage=1.0))
    assert poor.assets.loc["wX", "price"] == pytest.approx(2.0)
    assert len(poor.rounds) > 50


def test_a_shock_of_the_claim_moves_the_claim_alone(book):
    path = book('[sources.rate]\nmode = "redemption"', preset="closeout")
    net = wrapped(units=1.0, arbitrage=0.0)
    beta = 0.6
    found = run(net, nc.Shock.price({"wX": beta - 1}, family=False))
    assert found.assets["price_after_shock"].to_dict() == {"USD": 1.0, "X": 1.0, "wX": pytest.approx(2 * beta)}
    half = wrapped(units=1.0, backing=0.5).replace(
        exchanges={"exchange": ["A"], "rulebook": [path]},
    )
    markets = half.markets.assign(price_source=[None, None, "rate"])
    told = run(half.replace(markets=markets), nc.Shock.price({"X": -0.1}))
    assert told.markets.loc[("A", "wX"), "mark"] == pytest.approx(2.0 * 0.5 * 0.9)  # underlying x ratio x backing


# depth ----------------------------------------------------------------------------------------------------------------


def test_depth_follows_volatility_without_moving_the_price():
    """Round 0 sees the shock: sigma^2 = .94 sigma0^2 + .06 r^2; the sale of round 0 finds that depth."""
    net = lend({"a@A": {"X": 10.0, "USD": -9.0}},
               {"USD": {"price": 1.0}, "X": {"price": 1.0, "depth": 1000.0, "volatility": 0.02, "depth_power": 2.0}},
               venues=["A"], rulebooks={"A": {"rulebook": "closeout"}})  # fmt: skip
    found = run(net, nc.Shock.price({"X": -0.3}))
    sigma = update_volatility(0.02, math.log(0.7))
    depth = maker_depth(1000.0, sigma, normal=0.02, power=2.0)
    sale = found.events[found.events["type"] == "sale"].iloc[0]
    assert sale["cash"] == pytest.approx(0.7 * depth * -math.expm1(-10.0 / depth))
    assert found.assets.loc["X", "price"] == pytest.approx(0.7 * math.exp(-10.0 / depth))
    assert any("one day of volatility" in line for line in found.assumptions)
    calm = run(net.replace(assets=net.assets.assign(depth_power=0.0)), nc.Shock.price({"X": -0.3}))
    assert calm.assets.loc["X", "price"] == pytest.approx(0.7 * math.exp(-10.0 / 1000.0))


def test_a_called_market_maker_withdraws_its_share():
    """Makers hold 30 and 90 X: the first quotes a quarter; it is called in round 0, sales of round 1 feel it."""
    accounts = {"m@A": {"X": 30.0, "USD": -29.0}, "n@A": {"X": 90.0}, "t@A": {"X": 10.0, "USD": -7.97}}
    net = lend(accounts, {"USD": {"price": 1.0}, "X": {"price": 1.0, "depth": 5000.0}}, venues=["A"],
               rulebooks={"A": {"rulebook": "closeout"}},
               traders={"trader": ["m", "n", "t"], "kind": ["market_maker", "market_maker", "trader"]})  # fmt: skip
    found = run(net)
    price = math.exp(-30 / 5000)
    assert called(found) == {"m@A", "t@A"}
    sale = found.events[(found.events["type"] == "sale") & (found.events["account"] == "t@A")].iloc[0]
    assert sale["cash"] == pytest.approx(price * 3750 * -math.expm1(-10 / 3750))
    assert any("market makers share the depth" in line for line in found.assumptions)


# margins that answer to volatility ------------------------------------------------------------------------------------


def margined(book, accounts, *, power=0.5, amount='rule = "whole_account"', depth=math.inf, volatility=0.02):
    """Contract P at 100 on exchange A with a margin rate of 5 %; accounts hold (money, quantity)."""
    text = preset_text("perpetual").replace("[health]", f"[health]\nvolatility_power = {power}", 1)
    i, j = text.index("[amount]"), text.index("[price]")
    path = book("", preset="perpetual")
    Path(path).write_text(f"{text[:i]}[amount]\n{amount}\n{text[j:]}", encoding="utf-8")
    rulebook.cache_clear()
    names = list(accounts)
    return nc.ExposureNetwork(
        assets={"asset": ["P", "USD"], "price": [100.0, 1.0], "kind": ["linear", "stable"],
                "settlement": ["USD", None], "depth": [depth, math.inf], "volatility": [volatility, math.nan]},
        exchanges={"exchange": ["A"], "rulebook": [path]},
        markets={"exchange": ["A", "A"], "asset": ["P", "USD"], "maintenance_margin": [0.05, math.nan]},
        accounts={"account": names, "trader": names, "exchange": ["A"] * len(names)},
        balances={"account": names, "asset": ["USD"] * len(names), "deposited": [a[0] for a in accounts.values()]},
        positions={"account": names, "asset": ["P"] * len(names), "quantity": [a[1] for a in accounts.values()],
                   "entry_price": [100.0] * len(names)},
    )  # fmt: skip


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_margins_rise_with_volatility(book, power):
    """Round 0 sees the shock: rate x max(1, sigma / sigma_0)^power of the notional is what an account must back."""
    must = 0.05 * 95.0 * (update_volatility(0.02, math.log(0.95)) / 0.02) ** power
    net = margined(book, {"a": (5.0 + must * 0.999, 1.0), "b": (5.0 + must * 1.001, 1.0)}, power=power)
    found = run(net, nc.Shock.price({"P": -0.05}))
    assert called(found) == {"a"}
    if power == 0.0:
        assert found.accounts.loc["b", "health"] == pytest.approx(1.001, rel=1e-9)
    calm = run(net, nc.Shock.price({"P": 0.0}))
    assert called(calm) == set()
    assert calm.accounts.loc["a", "health"] == pytest.approx((5.0 + must * 0.999) / 5.0)


def test_a_reduction_meets_the_margin_of_the_round(book):
    """Kernels close by the same margin as the call; what is said of the moment after the shock is the margin before."""
    net = margined(book, {"k": (60.0, 10.0)}, amount='rule = "reduce"\ntarget_health = 1.2', depth=400.0)
    found = run(net, nc.Shock.price({"P": -0.02}), max_rounds=1, strict=False)
    position = found._state.positions.quantity[0]
    factor = math.sqrt(max(1.0, update_volatility(0.02, math.log(0.98)) / 0.02))
    cash = 98.0 * 400.0 * -math.expm1(-(10.0 - position) / 400.0)
    equity = 60.0 + cash - 100.0 * (10.0 - position) + position * (98.0 - 100.0)
    assert 0 < position < 10
    assert equity == pytest.approx(1.2 * 0.05 * factor * 98.0 * position, rel=1e-10)
    assert found.accounts.loc["k", "health_after_shock"] == pytest.approx(40.0 / (0.05 * 980.0))


def test_margins_without_a_volatility_stay_and_that_is_said(book):
    net = margined(book, {"a": (10.0, 1.0)}, volatility=math.nan)
    found = run(net, nc.Shock.price({"P": -0.05}))
    assert called(found) == set()
    assert any("margins of P do not answer" in line for line in found.assumptions)


# laws -----------------------------------------------------------------------------------------------------------------

FAMILY = """
[sources.hard]
mode = "pegged"
legs = [{asset = "USDC"}]
[sources.rate]
mode = "redemption"
[sources.all]
mode = "index"
[sources.middle]
mode = "median"
deviation = 0.02
heartbeat = 3
[sources.slow]
mode = "twap"
window = 4
[sources.osm]
mode = "asset"
latency = 5
low = 1.0
[sources.frozen]
mode = "spot"
latency = inf
"""


def sourced_tables(seed, folder):
    """Random markets, with sources, arbitrage, redemption, depth that answers and market makers."""
    rng, tables = np.random.default_rng([seed, 7]), random_tables(seed)
    names = {name: folder / f"{name}.toml" for name in set(tables["exchanges"]["rulebook"])}
    for name, path in names.items():
        path.write_text(preset_text(name) + FAMILY, encoding="utf-8")
    exchanges, assets, markets = tables["exchanges"], tables["assets"], tables["markets"]
    exchanges["rulebook"] = [str(names[name]) for name in exchanges["rulebook"]]
    exchanges["transfers"] = [str(rng.choice(["open", "open", "closed"])) for _ in exchanges["rulebook"]]
    size = len(assets["asset"])
    money = float(rng.choice([0.0, 10.0, math.inf]))
    assets["arbitrage"] = [money if rng.random() < 0.6 else 0.0 for _ in range(size)]
    assets["underlying"] = [{"SOL": "ETH", "USDC": "USD"}.get(name) for name in assets["asset"]]
    assets["ratio"] = [{"SOL": 0.026}.get(name, 1.0) for name in assets["asset"]]
    assets["redemption_open"] = [bool(rng.random() < 0.7) for _ in range(size)]
    assets["volatility"] = [0.03] * size
    assets["depth_power"] = [float(rng.choice([0.0, 1.0])) for _ in range(size)]
    wrapped_only = {"rate": ("SOL", "USDC")}
    words = [None, "spot", "asset", "hard", "rate", "all", "middle", "slow", "osm", "frozen"]
    markets["price_source"] = []
    for asset in markets["asset"]:
        word = words[rng.integers(len(words))]
        markets["price_source"].append(None if asset not in wrapped_only.get(word, (asset,)) else word)
    tables["traders"]["kind"] = [str(rng.choice(["trader", "market_maker"])) for _ in tables["traders"]["trader"]]
    return tables


@pytest.mark.parametrize("part", some_and_slow(1, 8))
def test_laws_hold_on_random_markets_with_random_sources(tmp_path, part):
    folder = tmp_path
    rulebook.cache_clear()
    acted = unsettled = 0
    for seed in range(25 * part, 25 * part + 25):
        net = nc.ExposureNetwork(**sourced_tables(seed, folder))
        found = nc.cascade(net, random_shock(seed), strict=False, max_rounds=300)
        assert found.check().worst <= 1e-9
        unsettled += found.status.name == "MAX_ROUNDS"  # liquidators that wait for arbitrageurs to bring depth
        assert (found.events["parent"].iloc[1:] < found.events.index[1:]).all()
        assert np.isfinite(found.losses.to_numpy()).all()
        acted += int(found.accounts["liquidated"].sum())
        marks, prices = found.markets["mark"], found._state.book_prices()
        own = found.network.markets["price_source"].isin(["spot"]) | found.network.markets["price_source"].isna()
        np.testing.assert_allclose(marks[own.to_numpy()], prices[own.to_numpy()])
    assert acted > 5
    assert unsettled <= 4
    rulebook.cache_clear()


def test_sources_that_say_what_the_book_says_change_nothing():
    for seed in range(12):
        plain = random_tables(seed)
        told = copy.deepcopy(plain)
        told["markets"]["price_source"] = ["spot"] * len(told["markets"]["asset"])
        one, other = (nc.cascade(nc.ExposureNetwork(**t), random_shock(seed)) for t in (plain, told))
        assert one.accounts.equals(other.accounts)
        assert one.losses.equals(other.losses)


def test_the_currency_scales_with_sources(book):
    """Prices, money and clips times 1,000: the same run."""
    text = '[sources.osm]\nmode = "asset"\nlatency = 2\ndeviation = 0.05\nheartbeat = 2\nlow = {}'
    found = []
    for scale in (1.0, 1000.0):
        path = book(text.format(0.55 * scale), preset="closeout", name=f"x{scale:g}")
        net = lend({"a@A": {"X": 100.0, "Y": -70.0}, "b@A": {"X": 50.0, "Y": -31.0}},
                   {"Y": {"price": scale, "arbitrage": 5.0 * scale}, "X": {"price": scale, "depth": 200.0}},
                   venues=["A"], markets={("A", "X"): {"price_source": "osm"}, ("A", "Y"): {"depth": 500.0}},
                   rulebooks={"A": {"rulebook": path}})  # fmt: skip
        found.append(run(net, nc.Shock.price({"X": -0.2})))
    assert found[0].accounts["health"].to_numpy() == pytest.approx(found[1].accounts["health"].to_numpy())
    np.testing.assert_allclose(found[0].losses.to_numpy() * 1000.0, found[1].losses.to_numpy(), rtol=1e-9, atol=1e-7)
