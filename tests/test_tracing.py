"""Who causes whose losses: hand cases, laws on random markets, and plain twins of paths, origins and causes."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from random_markets import random_market
from test_cascade_laws import scaled
from test_cascade_twin import random_shock, random_tables

import netcontagion as nc
from netcontagion.margining import CHANNELS, trace
from netcontagion.margining._tracing import _units
from netcontagion.margining._valuation import worth
from netcontagion.margining._wealth import unit_value
from netcontagion.margining._whole import open_whole
from netcontagion.ranking import amplifiers, contagion_paths, loss_matrix, origins
from netcontagion.ranking._passing import passing_of


def lend(accounts, *, depth=math.nan, rulebook="closeout", funds=0.0, **more):
    """Accounts named trader@exchange with signed units of ETH (at 1000) and USD."""
    rows = [(key, asset, units) for key, held in accounts.items() for asset, units in held.items()]
    venues = sorted({key.split("@")[1] for key in accounts})
    pairs = list(itertools.product(venues, ["ETH", "USD"]))
    return nc.ExposureNetwork(
        assets={"asset": ["ETH", "USD"], "price": [1000.0, 1.0], "depth": [depth, math.nan]},
        exchanges={"exchange": venues, "rulebook": [rulebook] * len(venues), "insurance_fund": [funds] * len(venues)},
        markets={
            "exchange": [venue for venue, _ in pairs], "asset": [asset for _, asset in pairs],
            "liquidation_threshold": [0.8] * len(pairs), "liquidation_bonus": [0.05] * len(pairs),
            "close_factor": [0.5] * len(pairs),
        },
        accounts={"account": list(accounts), "trader": [key.split("@")[0] for key in accounts],
                  "exchange": [key.split("@")[1] for key in accounts]},
        balances={"account": [row[0] for row in rows], "asset": [row[1] for row in rows],
                  "deposited": [max(row[2], 0.0) for row in rows], "borrowed": [max(-row[2], 0.0) for row in rows]},
        **more,
    )  # fmt: skip


def causes(run, channel, bearer):
    """Losses of a bearer by source."""
    table = loss_matrix(run)
    rows = table[(table["channel"] == channel) & (table["bearer"] == bearer)]
    return {(kind, source): loss for kind, source, loss in zip(rows["kind"], rows["source"], rows["loss"], strict=True)}


# clearings by hand --------------------------------------------------------------------------------------------------


def ring(outside):
    """Three nodes owe 100 around; node 0 owes 50 outside and has 20, node 1 has 5, node 2 owes ``outside``."""
    owed = np.zeros((3, 3))
    owed[0, 1] = owed[1, 2] = owed[2, 0] = 100.0
    return nc.clearing.eisenberg_noe(owed, [20.0, 5.0, 0.0], [50.0, 0.0, outside])


def test_a_ring_by_hand():
    # x = 5 + 2/3 (20 + x): nodes 1 and 2 pay 55 each, node 0 pays 75 of 150
    run = ring(0.0)
    np.testing.assert_allclose(run.payments, [75.0, 55.0, 55.0], rtol=1e-12)
    table = loss_matrix(run).set_index(["source", "bearer"])["loss"]
    assert table.to_dict() == pytest.approx({(0, 1): 50.0, (0, "creditors"): 25.0, (1, 2): 45.0, (2, 0): 45.0})
    found = amplifiers(run)
    assert found["received"].tolist() == pytest.approx([75.0, 50.0, 45.0, 25.0])  # 0: its hole of 30, and 45 from 2
    assert found["from_shock"].tolist() == pytest.approx([30.0, 0.0, 0.0, 0.0])
    assert found["amplification"].tolist() == pytest.approx([1.0, 0.9, 1.0, 0.0])
    assert origins(run)["own", 0].tolist() == pytest.approx([1.0] * 4, abs=1e-12)


def test_two_holes_in_a_ring_by_hand():
    run = ring(10.0)
    owes = np.asarray(run.dues - run.payments)
    from_2, from_1 = owes[2] * 100 / 110, owes[1]
    kept = from_1 / (10 + from_1)  # of what goes back to 0 at node 2, which itself lacks 10
    first = 30 / (30 + from_2 * (1 - kept))
    found = origins(run)["own", 0]
    assert [found[0], found[1], found[2]] == pytest.approx([first, first, kept * first], rel=1e-12)
    assert np.allclose(origins(run).sum(axis=1), 1.0, atol=1e-12)


def test_a_chain_loses_what_buffers_take():
    size, buffer, hole = 7, 3.0, 20.0
    owed = np.diag(np.full(size - 1, 50.0), 1)
    run = nc.clearing.eisenberg_noe(owed, [50.0 - hole, *[buffer] * (size - 1)])
    table = loss_matrix(run)
    expected = [max(hole - buffer * step, 0.0) for step in range(size - 1)]
    assert table["loss"].tolist() == pytest.approx([loss for loss in expected if loss])
    assert (origins(run)["own", 0] == 1.0).all()
    assert amplifiers(run)["amplification"][1] == pytest.approx((hole - buffer) / hole)
    longest = contagion_paths(run, longest=3)
    assert longest["steps"].tolist() == [2, 3]
    assert longest["loss"].tolist() == pytest.approx(expected[:2])
    whole = contagion_paths(run, longest=size)
    assert whole["loss"].tolist() == pytest.approx([loss for loss in expected if loss])


def test_costs_of_default_make_an_amplifier():
    owed = np.diag([50.0, 50.0], 1)
    found = amplifiers(nc.clearing.rogers_veraart(owed, [40.0, 5.0, 0.0], alpha=0.5, beta=0.5))
    # 0 lacks 10 and loses 20 more: 1 gets 20; 1 has 25 for 50 and pays half of it
    assert found["passed_on"].tolist()[:2] == pytest.approx([30.0, 37.5])
    assert found["amplification"].tolist()[:2] == pytest.approx([3.0, 1.25])


def test_labels_of_a_network_and_nothing_lost():
    net = nc.generators.ring(5, seed=1)
    run = nc.clear(net, nc.Shock.loss({net.labels("traders")[0]: 1.0}))
    assert set(loss_matrix(run)["bearer"]) <= {*net.nodes, "creditors"}
    calm = nc.clearing.eisenberg_noe([[0.0, 1.0], [0.0, 0.0]], [2.0, 0.0])
    assert loss_matrix(calm).empty
    assert contagion_paths(calm).empty
    assert origins(calm).empty
    assert amplifiers(calm)["amplification"].isna().all()


# cascades by hand ---------------------------------------------------------------------------------------------------


def test_who_sold_lowers_the_price_for_who_holds():
    # ann (2 ETH) and bob (1 ETH) are called by the shock and closed; cat, unindebted, holds 5
    net = lend({"ann@A": {"ETH": 2.0, "USD": -1550.0}, "bob@A": {"ETH": 1.0, "USD": -775.0}, "cat@A": {"ETH": 5.0},
                "dan@A": {"USD": 10_000.0}}, depth=100.0)  # fmt: skip
    run = nc.cascade(net, nc.Shock.price({"ETH": -0.1}))
    price = 900.0 * math.exp(-3 / 100)
    assert run.assets.loc["ETH", "price"] == pytest.approx(price)
    fell = 5 * (900.0 - price)
    found = causes(run, "impact", "cat")
    assert found == pytest.approx({("bearer", "ann"): 2 / 3 * fell, ("bearer", "bob"): 1 / 3 * fell})
    assert causes(run, "shock", "cat") == {("price", "ETH"): pytest.approx(500.0)}
    assert origins(run).columns.tolist() == [("price", "ETH")]
    paths = contagion_paths(run, 3)
    ends = [path[-1] for path in paths["path"]]
    assert ("bearer", "cat") in ends
    assert paths["path"][0][:3] == (("price", "ETH"), ("bearer", "ann"), ("price", "ETH"))


def test_a_call_that_a_sale_brought_is_the_sellers_doing():
    # ann is called by the shock, bob only once ann has sold; bob pays the bonus because of ann
    net = lend({"ann@A": {"ETH": 10.0, "USD": -7900.0}, "bob@B": {"ETH": 10.0, "USD": -7150.0},
                "dan@A": {"USD": 20_000.0}, "eve@B": {"USD": 20_000.0}}, depth=100.0, rulebook="lending")  # fmt: skip
    run = nc.cascade(net, nc.Shock.price({"ETH": -0.1}))
    called = run.accounts["first_round"]
    assert called["ann@A"] < called["bob@B"]
    assert list(causes(run, "penalty", "bob")) == [("bearer", "ann")]
    assert list(causes(run, "penalty", "ann")) == [("price", "ETH")]
    assert causes(run, "penalty", "bob")["bearer", "ann"] == pytest.approx(run.traders.loc["bob", "loss_penalty"])


def test_two_exchanges_share_a_supplier():
    # No fund: what ann leaves at A and bob at B, cat loses on what she lent there. 1 ETH at 500 for 700 and 600.
    net = lend({"ann@A": {"ETH": 1.0, "USD": -700.0}, "bob@B": {"ETH": 1.0, "USD": -600.0},
                "cat@A": {"USD": 3000.0}, "cat@B": {"USD": 1000.0}, "dan@B": {"USD": 1000.0}})  # fmt: skip
    run = nc.cascade(net, nc.Shock.price({"ETH": -0.5}))
    assert causes(run, "mutualisation", "cat") == pytest.approx({("bearer", "ann"): 200.0, ("bearer", "bob"): 50.0})
    assert causes(run, "mutualisation", "dan") == pytest.approx({("bearer", "bob"): 50.0})
    assert causes(run, "deficit", "ann") == pytest.approx({("bearer", "ann"): -200.0})
    found = amplifiers(run)
    assert found.loc["ann", "passed_on"] == pytest.approx(200.0)
    assert found.loc["bob", "amplification"] == pytest.approx(100 / 500)
    best = contagion_paths(run, 1)["path"][0]
    assert best == (("price", "ETH"), ("bearer", "ann"), ("deficits", "A"), ("bearer", "cat"))


def test_a_fund_bears_first_and_a_bank_that_fails_passes_on():
    # ann's hole of 200 takes the fund of 100; hub has lost its 40 and cannot pay ivy what it owes
    net = lend({"ann@A": {"ETH": 1.0, "USD": -700.0}, "cat@A": {"USD": 3000.0}}, funds=100.0,
               traders={"trader": ["ann", "cat", "hub", "ivy"], "external_assets": [0.0, 0.0, 40.0, 0.0]},
               liabilities={"debtor": ["hub"], "creditor": ["ivy"], "amount": [30.0]})  # fmt: skip
    run = nc.cascade(net, nc.Shock.price({"ETH": -0.5}) + nc.Shock.default("hub"))
    assert causes(run, "deficit", "A") == pytest.approx({("bearer", "ann"): 200.0})
    assert causes(run, "mutualisation", "A") == pytest.approx({("bearer", "ann"): -100.0})
    assert amplifiers(run).loc["A", "received"] == pytest.approx(100.0)
    assert causes(run, "mutualisation", "cat") == pytest.approx({("bearer", "ann"): 100.0})
    assert causes(run, "counterparty", "ivy") == pytest.approx({("bearer", "hub"): 30.0})
    assert causes(run, "shock", "hub") == pytest.approx({("own", "hub"): 40.0})
    assert origins(run).loc["ivy", ("own", "hub")] == 1.0
    assert origins(run).loc["cat", ("price", "ETH")] == 1.0


def test_a_price_that_nobody_moved_goes_back_to_the_shock():
    net = lend({"ann@A": {"ETH": 1.0, "USD": -700.0}, "cat@A": {"ETH": 1.0, "USD": 10.0}}, depth=50.0)
    run = nc.cascade(net, nc.Shock.price({"ETH": -0.05}))
    assert not run.accounts["liquidated"].any()
    assert set(loss_matrix(run)["kind"]) == {"price"}
    assert contagion_paths(run).empty
    assert (amplifiers(run)["passed_on"] == 0).all()


def test_bad_input_says_what_is_wrong():
    several = nc.clearing.eisenberg_noe([[0.0, 1.0], [0.0, 0.0]], np.array([[0.5, 0.2], [0.0, 0.0]]))
    with pytest.raises(nc.ContagionError, match="2 scenarios"):
        loss_matrix(several)
    with pytest.raises(TypeError, match="CascadeResult or a ClearingResult, not in ExposureNetwork"):
        amplifiers(nc.generators.ring(3, seed=1))
    with pytest.raises(ValueError, match="n is 0; allowed: a whole number, 1 or more"):
        contagion_paths(ring(0.0), 0)
    with pytest.raises(ValueError, match="longest is 1"):
        contagion_paths(ring(0.0), longest=1)
    net, _ = random_market(31)
    endless = nc.cascade(net, nc.Shock.price({"ETH-INV": -1.0}), strict=False)
    assert endless.status is nc.Status.NONFINITE
    with pytest.raises(nc.ContagionError, match="nothing to trace"):
        origins(endless)


def test_a_matrix_too_large_to_lay_out_is_refused(monkeypatch):
    net = lend({"ann@A": {"ETH": 2.0, "USD": -1550.0}, "cat@A": {"ETH": 5.0}, "dan@A": {"USD": 10_000.0}}, depth=100.0)
    run = nc.cascade(net, nc.Shock.price({"ETH": -0.1}))
    monkeypatch.setattr("netcontagion.ranking._attribution.MOST_CELLS", 1)
    with pytest.raises(nc.ContagionError, match="amplifiers, origins and contagion_paths need none"):
        loss_matrix(run)
    assert len(origins(run))


# laws on random markets ---------------------------------------------------------------------------------------------


def markets_run(seed):
    flaws = (("ties",), ("sources", "passing"), ("thin", "gates"), ("ring", "shared"), ())[seed % 5]
    net, shock = random_market(seed, flaws=flaws)
    if seed % 3 == 2:
        shock = nc.Shock.path([shock, nc.Shock.price({"BTC": -0.1, "ETH": 0.05}, family=True)], every=2)
    return nc.cascade(net, shock, strict=False, max_rounds=3000)


def holds_what_was_lost(run):
    found, size = trace(run), len(run.traders)
    scale = max(float(np.abs(run._bearer_losses).sum()), 1e-300)
    for channel in CHANNELS:
        lost = found.channels[channel].sum(axis=0)
        np.testing.assert_allclose(lost[:size], run.traders[f"loss_{channel}"], atol=1e-12 * scale)
        outside = -len(nc.margining.bearer_labels(run.network)) + len(run.network.nodes)
        np.testing.assert_allclose(lost[outside:], run.losses.loc[channel].to_numpy()[outside:], atol=1e-12 * scale)
    table = loss_matrix(run).groupby(["channel", "bearer"], observed=True)["loss"].sum()
    for channel, bearer in table.index:
        if bearer in run.traders.index:
            assert abs(table[channel, bearer] - run.traders.loc[bearer, f"loss_{channel}"]) <= 1e-9 * scale
    np.testing.assert_allclose(np.asarray(found.feeds.sum(axis=0)), 1.0, atol=1e-12)
    assert (found.feeds.data >= 0).all()
    shares = origins(run)
    np.testing.assert_allclose(shares.sum(axis=1), 1.0, atol=1e-9)
    assert (shares.to_numpy() >= -1e-12).all()
    sums = amplifiers(run).drop(columns="amplification").sum()
    assert abs(sums["received"] - sums["passed_on"] - sums["from_shock"]) <= 1e-9 * scale


def units_are_those_that_are_valued(run):
    state = run._state
    final = np.concatenate([worth(state.markets, state.marks()), state.asset_prices()])
    start = _units(open_whole(run._play.state)) @ state.opening["base"]
    for value, expected in (
        (start, state.opening["unit_value"]),
        (_units(state) @ final, unit_value(state, state.marks(), state.asset_prices())),
    ):
        np.testing.assert_allclose(value, expected, rtol=1e-9, atol=1e-12 * np.abs(expected).sum())


@pytest.mark.parametrize("seed", [0, 1, 3, 4, 5, 6, 8, 9])
def test_columns_are_losses_and_shares_add_up(seed):
    run = markets_run(seed)
    holds_what_was_lost(run)
    units_are_those_that_are_valued(run)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(10))
def test_columns_are_losses_and_shares_add_up_at_length(block):
    for seed in range(100 + 20 * block, 120 + 20 * block):
        run = markets_run(seed)
        if run.status is not nc.Status.NONFINITE:
            holds_what_was_lost(run)
            units_are_those_that_are_valued(run)


def test_no_event_comes_before_its_cause():
    # t3.v2.0 is closed with its exchange in round 0 and called only afterwards
    net, shock = random_market(2, flaws=("thin", "gates"))
    path = nc.Shock.path([shock, nc.Shock.price({"BTC": -0.1, "ETH": 0.05}, family=True)], every=2)
    run = nc.cascade(net, path, strict=False, max_rounds=5)
    events = run.events
    assert (events["parent"] < events.index).all()
    call = events.index[(events["type"] == "call") & (events["account"] == "t3.v2.0")]
    sales = events[(events["type"] == "sale") & (events["account"] == "t3.v2.0")]
    assert (sales.index < call[0]).any()
    holds_what_was_lost(run)


def test_an_equilibrium_is_traced_too():
    accounts = {f"t{n}@{'AB'[n % 2]}": {"ETH": 1.0 + n, "USD": -(700.0 + 20 * n) * (1 + n)} for n in range(6)}
    net = lend(accounts | {"cat@A": {"USD": 30_000.0}, "cat@B": {"USD": 30_000.0}}, depth=60.0)
    run = nc.cascade(net, nc.Shock.price({"ETH": -0.1}), mode="equilibrium")
    assert run.traders["liquidated"].sum() == 6
    holds_what_was_lost(run)
    assert causes(run, "impact", "t0")


@pytest.mark.parametrize("seed", [1, 5])
def test_the_currency_scales_losses_and_nothing_else(seed):
    tables = random_tables(seed)
    shock = random_shock(seed)
    tables["exchanges"]["rulebook"] = ["closeout"] * len(tables["exchanges"]["rulebook"])
    one, other = (nc.cascade(nc.ExposureNetwork(**part), shock) for part in (tables, scaled(tables, money=8, units=4)))
    found, same = amplifiers(one), amplifiers(other)
    np.testing.assert_allclose(same["passed_on"], 32 * found["passed_on"], rtol=1e-8, atol=1e-6)
    np.testing.assert_allclose(origins(other), origins(one), atol=1e-8)
    assert contagion_paths(other, 3)["path"].tolist() == contagion_paths(one, 3)["path"].tolist()


def test_names_change_nothing():
    net = nc.datasets.load("market")
    names = {name: f"n{7919 * (place + 1) % 1009:04d}" for place, name in enumerate(net.labels("traders"))}
    others = {name: name if name.startswith("others@") else new for name, new in names.items()}
    accounts = net.accounts.assign(trader=net.accounts["trader"].astype(object).map(others))
    traders = net.traders.rename(index=others)
    wallets = net.wallets.rename(index=others, level="trader")
    renamed = net.replace(traders=traders, accounts=accounts, wallets=wallets)
    shock = nc.Shock.price({"ETH": -0.3}, family=True)
    one, other = amplifiers(nc.cascade(net, shock)), amplifiers(nc.cascade(renamed, shock))
    one.index = [others.get(name, name) for name in one.index]
    np.testing.assert_allclose(other.loc[one.index].to_numpy(), one.to_numpy(), rtol=1e-7, atol=1e-3)


# twins --------------------------------------------------------------------------------------------------------------


class Plain:
    """What every node's loss comes from, as dicts of shares by source, straight from the trace."""

    def __init__(self, run):
        found = passing_of(run).trace
        self.bearers, self.cut = len(found.bearers), len(found.bearers) + len(found.via)
        self.names = [*(("bearer", label) for label in found.bearers), *found.via, *found.origins]
        total = sum(matrix.toarray() for matrix in found.channels.values())
        first_own = self.cut + len(found.origins) - self.bearers
        self.causes, self.lost = {}, {}
        for node in range(self.bearers):
            causes = {source: loss for source, loss in enumerate(total[:, node]) if loss > 0}
            if found.holes[node] > 0:
                causes[first_own + node] = causes.get(first_own + node, 0.0) + found.holes[node]
            self.lost[node] = sum(causes.values())
            self.causes[node] = {source: loss / self.lost[node] for source, loss in causes.items()}
        for place in range(len(found.via)):
            shares = found.feeds[:, [place]].toarray()[:, 0]
            self.causes[self.bearers + place] = {source: share for source, share in enumerate(shares) if share > 0}
        for node in set(self.causes) - self.fed():
            self.causes[node] = {first_own + node: 1.0} if node < self.bearers else {}

    def fed(self):
        """Nodes above which there is an origin."""
        found = set()
        while True:
            more = {node for node, causes in self.causes.items() if any(s >= self.cut or s in found for s in causes)}
            if more <= found:
                return found
            found |= more

    def goes_back(self, origin):
        """Share of every loss that goes back to an origin, by walking there again and again."""
        share = dict.fromkeys(self.causes, 0.0)
        while True:
            new = {
                node: sum(part * (share.get(source, float(source == origin))) for source, part in causes.items())
                for node, causes in self.causes.items()
            }
            if max(abs(new[node] - share[node]) for node in share) < 1e-14:
                return new
            share = new

    def paths(self, longest):
        """All simple paths from an origin through a node, with what they carry."""

        def walk(nodes, loss):
            if nodes[0] >= self.cut:
                return [(loss, nodes)] if len(nodes) > 2 else []
            if len(nodes) > longest:
                return []
            causes = self.causes[nodes[0]]
            alone = causes.get(nodes[0], 0.0)
            return [
                path
                for source, share in causes.items()
                if source not in nodes
                for path in walk((source, *nodes), loss * share / (1 - alone))
            ]

        return [path for node in range(self.bearers) if self.lost[node] > 0 for path in walk((node,), self.lost[node])]


def traced_runs():
    yield ring(10.0)
    yield from map(markets_run, (0, 3, 6, 9))


def test_origins_are_those_of_a_plain_walk():
    for run in traced_runs():
        plain, table = Plain(run), origins(run)
        for place in range(plain.cut, len(plain.names)):
            if plain.names[place] not in table:
                continue
            expected = plain.goes_back(place)
            for node in range(plain.bearers):
                bearer = plain.names[node][1]
                if bearer in table.index:
                    assert table[plain.names[place]][bearer] == pytest.approx(expected[node], abs=1e-9)


def test_paths_are_the_strongest_of_all():
    for run in traced_runs():
        plain = Plain(run)
        expected = sorted(plain.paths(4), key=lambda path: -path[0])[:40]
        found = contagion_paths(run, 40, longest=4)
        assert found["loss"].tolist() == pytest.approx([loss for loss, _ in expected], rel=1e-9)
        assert len(set(found["path"])) == len(found)
        known = {tuple(plain.names[node] for node in nodes): loss for loss, nodes in plain.paths(4)}
        assert found["loss"].tolist() == pytest.approx([known[path] for path in found["path"]], rel=1e-9)
        assert (found["steps"] <= 4).all()


def plain_actor(events, owner, traders, row):
    """Owner of an event; of one that is nobody's, that of the nearest above it."""
    while row > 0:
        event = events.iloc[row]
        if isinstance(event["account"], str):
            return owner[event["account"]]
        for side in ("credit", "debit"):
            if event[side] in traders:
                return event[side]
        row = event["parent"]
    return None


def plain_cause(events, owner, traders, row):
    """Owner of the nearest event above that is another's; None: the shock."""
    actor, above = plain_actor(events, owner, traders, row), events["parent"].iloc[row]
    while above > 0:
        other = plain_actor(events, owner, traders, above)
        if other is not None and other != actor:
            return other
        above = events["parent"].iloc[above]
    return None


@pytest.mark.parametrize("seed", [0, 3, 4, 6])
def test_causes_are_those_of_a_plain_walk_up_the_log(seed):
    run = markets_run(seed)
    found, events = trace(run), run.events
    owner, traders = run.accounts["trader"].astype(object).to_dict(), set(run.traders.index)
    trades = events[((events["debit"] == "market") | (events["credit"] == "market")) & (events["cash"] > 0)]
    charged = events["type"].isin(["liquidation", "absorb", "charge", "take", "takeover", "auto_deleveraging"])
    weights = {}
    for row in sorted({*trades.index, *events.index[charged & (events["cash"] > 0)]}):
        actor = plain_actor(events, owner, traders, row)
        if actor is not None:
            cause = plain_cause(events, owner, traders, row)
            weights.setdefault(actor, {}).setdefault(cause, 0.0)
            weights[actor][cause] += events["cash"].iloc[row]
    for trader, causes in weights.items():
        place = found.bearers.index(trader)
        for channel in ("execution", "penalty"):
            lost = run.traders.loc[trader, f"loss_{channel}"]
            for cause, money in causes.items():
                if cause is not None and abs(lost) > 1e-6:
                    got = found.channels[channel][found.bearers.index(cause), place]
                    assert got == pytest.approx(lost * money / sum(causes.values()), rel=1e-9, abs=1e-9 * abs(lost))
