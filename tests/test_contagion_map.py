"""The contagion map at 10, 1,000 and a million accounts: structure, guards, manners."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

mpl.use("Agg")

import matplotlib.pyplot as plt

import netcontagion as nc
from netcontagion import figures
from netcontagion.errors import ContagionError
from netcontagion.figures import _labels
from netcontagion.figures._flows import Room
from netcontagion.figures._read import read_flows

ROOM = Room(12, 8, 18, 400, None)
SIZES = (10, 1_000, 1_000_000)


def make_network(n, *, seed=0, residual=True, addresses=False, exchanges=6, assets=8):
    """A market with heavy tails, one dominant account, an empty exchange and an asset of next to nothing."""
    rng = np.random.default_rng(seed)
    price = np.exp(rng.normal(3, 2, assets))
    size = np.minimum(rng.pareto(1.2, n) + 0.05, 50.0 * n)
    size[0] = 0.4 * size.sum()
    parts = rng.integers(1, 4, n)
    account = np.repeat(np.arange(n), parts)
    share = np.r_[np.geomspace(1, 0.05, assets - 1), 0.02]
    asset = rng.choice(assets, len(account), p=share / share.sum())
    value = 1e4 * (size / parts)[account]
    value[asset == assets - 1] *= 1e-6
    venue = rng.integers(0, exchanges - 1, n)
    health = 1.02 + rng.gamma(2.0, 0.3, n)
    health[rng.random(n) < 0.08] = np.inf
    names = pd.Index([f"0x{i * 7919 + 1:040x}" if addresses else f"T{i + 1}" for i in range(n)])
    places = pd.Index([f"Lend-{i + 1}" for i in range(exchanges - 1)] + ["Empty"])
    trader = np.arange(n)
    if residual:
        names = names.append(pd.Index(["others@Lend-1"]))
        account, asset = np.append(account, n), np.append(asset, 0)
        value, venue = np.append(value, 5 * value.sum()), np.append(venue, 0)
        health, trader = np.append(health, np.inf), np.append(trader, n)
    labels = {
        "assets": pd.Index([f"TOK{i}" for i in range(assets)]),
        "exchanges": places,
        "accounts": names,
        "traders": names,
    }
    none = np.empty(0, dtype=np.int32)
    columns = {
        "balances": {"account": account, "asset": asset, "deposited": value / price[asset], "borrowed": 0 * value},
        "positions": {"account": none, "asset": none},
        "accounts": {"trader": trader, "exchange": venue},
        "liabilities": {"debtor": none, "creditor": none, "amount": np.empty(0)},
    }
    return SimpleNamespace(
        labels=labels.__getitem__,
        columns=columns.__getitem__,
        nodes=names.append(places),
        book=SimpleNamespace(balance_mark=price[asset], notional=lambda: np.empty(0)),
        health=lambda: pd.Series(health, index=names),
        numeraire="USD",
    )


def make_result(network, *, seed=1, **changes):
    names = network.labels("accounts")
    health = network.health().to_numpy()
    rng = np.random.default_rng(seed)
    hit = health < 1.02 + 0.45 * rng.random(len(names))
    balances = network.columns("balances")
    owned = np.bincount(balances["account"], balances["deposited"] * network.book.balance_mark, len(names))
    frame = pd.DataFrame({"liquidated": hit, "called": hit, "deficit": 0.0, "loss": owned * (0.02 + hit)}, index=names)
    given = {
        "network": network,
        "accounts": frame,
        "exchanges": pd.DataFrame(index=network.labels("exchanges")),
        "status": SimpleNamespace(name="SETTLED"),
        "assumptions": ("no wallets: no top-up", "no depth for TOK1: no impact"),
        "provenance": {"shock": "TOK0 -30 %", "seed": 7, "rounds": 6},
    }
    return SimpleNamespace(**(given | changes))


def make_banks(n, *, seed=0):
    rng = np.random.default_rng(seed)
    due = rng.pareto(1.3, (n, n)) * (rng.random((n, n)) < min(1.0, 6 / n))
    np.fill_diagonal(due, 0.0)
    names = pd.Index([f"Bank {i + 1}" for i in range(n)])
    debtor, creditor = np.nonzero(due)
    none = np.empty(0, dtype=np.int32)
    columns = {
        "balances": {"account": none, "asset": none, "deposited": np.empty(0), "borrowed": np.empty(0)},
        "positions": {"account": none, "asset": none},
        "accounts": {"trader": none, "exchange": none},
        "liabilities": {"debtor": debtor, "creditor": creditor, "amount": due[debtor, creditor]},
    }
    network = SimpleNamespace(
        labels=lambda table: names if table == "traders" else pd.Index([]),
        columns=columns.__getitem__,
        nodes=names,
        book=SimpleNamespace(balance_mark=np.empty(0), notional=lambda: np.empty(0)),
        health=lambda: pd.Series([], dtype=float),
        numeraire="EUR m",
    )
    rate = np.where(rng.random(n) < 0.4, rng.uniform(0.2, 0.9, n), 1.0)
    rate[0] = 0.5
    dues = due.sum(axis=1)
    result = SimpleNamespace(
        labels=names,
        payment_matrix=lambda: sp.csr_array(due * rate[:, None]),
        dues=dues,
        payments=dues * rate,
        defaulted=rate < 1,
        status=SimpleNamespace(name="SETTLED"),
    )
    return network, result, due, rate


@pytest.fixture(scope="module")
def results():
    return {n: make_result(make_network(n, addresses=n == 1_000)) for n in SIZES}


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def words(ax, gid):
    return [text for text in ax.texts if text.get_gid() == gid]


def assert_legible(ax):
    """No two pieces of text overlap, and none leaves the figure."""
    figure = ax.get_figure(root=True)
    figure.canvas.draw()
    found = [text for text in [*ax.texts, *figure.texts, ax.title] if text.get_text()]
    frames = [text.get_window_extent() for text in found]
    page = figure.bbox
    for i, one in enumerate(frames):
        assert one.x0 >= page.x0 - 1, found[i]
        assert one.x1 <= page.x1 + 1, found[i]
        for j in range(i):
            two = frames[j]
            across = min(one.x1, two.x1) - max(one.x0, two.x0)
            down = min(one.y1, two.y1) - max(one.y0, two.y0)
            assert across < 0.5 or down < 0.25 * min(one.height, two.height), (found[i], found[j])


# What is read ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", SIZES)
def test_layers_and_links_add_up(results, n):
    result = results[n]
    flows = read_flows(result, ROOM)
    balances = result.network.columns("balances")
    value = balances["deposited"] * result.network.book.balance_mark
    own = ~result.network.labels("accounts").str.startswith("others@")[balances["account"]]
    hit = result.accounts["liquidated"].to_numpy()[balances["account"]] & own
    for layer in flows.layers:
        assert layer.amount.sum() == pytest.approx(value[own].sum())
        assert layer.hit.sum() == pytest.approx(value[hit].sum())
        assert (layer.share >= 0).all()
        assert (layer.share <= 1).all()
    for k, links in enumerate(flows.links):
        assert (links.hit <= links.amount).all()
        assert links.amount.sum() == pytest.approx(value[own].sum(), rel=0.02)
        for end, layer in ((links.source, flows.layers[k]), (links.target, flows.layers[k + 1])):
            assert (np.bincount(end, links.amount, len(layer.names)) <= layer.amount * (1 + 1e-9)).all()
            assert len(np.unique(end)) == len(layer.names)


def test_boxes_fit_the_room_at_every_size(results):
    for n, result in results.items():
        flows = read_flows(result, ROOM)
        assert all(len(layer.names) <= most for layer, most in zip(flows.layers, ROOM[:3], strict=True)), n


def test_ten_accounts_are_drawn_one_by_one(results):
    layer = read_flows(results[10], ROOM).layers[2]
    assert sorted(layer.names) == sorted(f"T{i + 1}" for i in range(10))
    assert layer.title == "accounts"
    assert set(np.unique(layer.share)) <= {0.0, 1.0}
    assert (layer.marked == (layer.share == 1)).all()


def test_a_thousand_accounts_name_those_that_lose_most(results):
    result = results[1_000]
    layer = read_flows(result, ROOM).layers[2]
    lost = result.accounts["loss"].iloc[:-1].sort_values(ascending=False)
    assert layer.names[:6] == tuple(lost.index[:6])
    assert "health < 1.1" in layer.names
    counted = sum(int(text.split()[0].replace(",", "")) for text in layer.details if text)
    assert counted == 1_000 - 6


def test_a_million_accounts_are_cohorts_only(results):
    layer = read_flows(results[1_000_000], ROOM).layers[2]
    assert layer.names == ("health < 1.1", "1.1 to 1.25", "1.25 to 1.5", "1.5 to 2", "health ≥ 2", "no debt")
    health = results[1_000_000].network.health().to_numpy()
    assert layer.details[0] == f"{np.count_nonzero(health < 1.1):,} accounts"
    named = read_flows(results[1_000_000], ROOM._replace(top=2)).layers[2]
    assert len(named.names) == 8


def test_forced_accounts_count_as_distressed(results):
    result = results[10]
    frame = result.accounts.assign(liquidated=False, forced=True)
    flows = read_flows(make_result(result.network, accounts=frame), ROOM)
    assert flows.layers[2].share == pytest.approx(1.0)


def test_residual_supply_and_empty_exchange_are_left_out_and_said(results):
    flows = read_flows(results[1_000], ROOM)
    assert "Empty" not in flows.layers[1].names
    assert not any(name.startswith("others@") for name in flows.layers[2].names)
    assert "supply of others@Lend-1, " in flows.caption
    assert "Empty without exposure not drawn" in flows.caption


def test_contracts_are_drawn_at_their_notional_beside_collateral():
    net = nc.generators.market(60, exchanges=1, perpetuals=1, seed=3)
    run = nc.cascade(net, nc.Shock.price({"ETH": -0.25}, family=True))
    flows = read_flows(run, ROOM)
    assets = dict(zip(flows.layers[0].names, flows.layers[0].amount, strict=True))
    held = net.positions.reset_index()
    held["notional"] = held["quantity"].abs() * held["asset"].map(net.assets["price"]).astype(float)  # no own prices
    notional = held.groupby(held["asset"].astype(str))["notional"].sum()
    for contract, value in notional.items():
        assert assets[contract] == pytest.approx(value)
    assert "collateral and notional in liquidated accounts" in flows.title
    closed = held["account"].map(run.accounts["liquidated"])
    hit = dict(zip(flows.layers[0].names, flows.layers[0].hit, strict=True))
    assert sum(hit[name] for name in notional.index) == pytest.approx(held.loc[closed.astype(bool), "notional"].sum())
    assert flows.layers[2].names[-1] == "no debt, no contract"


def test_a_network_alone_shows_who_is_at_risk(results):
    network = results[1_000].network
    flows = read_flows(network, ROOM)
    assert not flows.red
    cohort = flows.layers[2].names.index("health < 1.1")
    assert flows.layers[2].share[cohort] == 1
    assert "before any shock" in flows.caption
    assert not any(layer.marked.any() for layer in flows.layers)


def test_what_exceeds_the_room_is_folded_into_other():
    result = make_result(make_network(5_000, exchanges=90, assets=300))
    flows = read_flows(result, Room(9, 7, 15, 60, None))
    assert flows.layers[0].names[-1] == "Other (292)"
    assert flows.layers[1].names[-1] == "Other (83)"
    assert sum(len(links.amount) for links in flows.links) <= 60
    share = float(flows.caption.split("links drawn carry ")[1].split(" %")[0])
    assert 50 < share < 100


def test_integer_and_mixed_labels_are_read(results):
    network = results[10].network
    for index in (pd.RangeIndex(11), pd.Index([*range(10), "others@Lend-1"], dtype=object)):
        other = SimpleNamespace(**vars(network))
        other.labels = lambda table, index=index: index if table == "accounts" else network.labels(table)
        names = read_flows(other, ROOM).layers[2].names
        assert "1" in names
        assert "others@Lend-1" not in names


def test_liabilities_become_debtors_and_creditors():
    network, result, due, rate = make_banks(8)
    plain, solved = read_flows(network, ROOM), read_flows(result, ROOM)
    for flows in (plain, solved):
        assert [layer.title for layer in flows.layers] == ["debtors", "creditors"]
        assert flows.layers[0].amount.sum() == pytest.approx(due.sum())
    assert not plain.red
    assert not plain.shaded
    left = solved.layers[0]
    by_name = {f"Bank {i + 1}": i for i in range(8)}
    for name, share, marked in zip(left.names, left.share, left.marked, strict=True):
        assert share == pytest.approx(1 - rate[by_name[name]], abs=1e-12)
        assert marked == (rate[by_name[name]] < 1)
    assert solved.layers[1].hit.sum() == pytest.approx((due * (1 - rate[:, None])).sum())


def test_dues_are_taken_from_a_network_or_a_matrix_where_there_is_one():
    network, result, due, _ = make_banks(8)
    expected = read_flows(result, ROOM).layers[0].hit
    result.network = network
    assert read_flows(result, ROOM).layers[0].hit == pytest.approx(expected)
    del result.network
    result.dues = sp.csr_array(due)
    assert read_flows(result, ROOM).layers[0].hit == pytest.approx(expected)


def test_nodes_that_pay_nothing_are_missed_only_without_their_dues():
    network, result, due, rate = make_banks(8)
    rate[0] = 0.0
    result.payments = result.dues * rate
    assert "1 node that pays nothing is not drawn" in figures.caption(result)
    result.network = network
    assert "pays nothing" not in figures.caption(result)
    flows = read_flows(result, ROOM)
    assert flows.layers[0].hit.sum() == pytest.approx((due * (1 - rate[:, None])).sum())


def test_nothing_to_draw_is_an_error_that_leaves_no_figure(results):
    network, *_ = make_banks(3)
    network.columns("liabilities")["amount"][:] = 0
    with pytest.raises(ContagionError, match="nothing to draw"):
        figures.contagion_map(network)
    with pytest.raises(TypeError, match="not DataFrame"):
        figures.contagion_map(pd.DataFrame())
    assert not plt.get_fignums()


# What is drawn --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("plain", [False, True])
def test_default_figure(results, n, plain):
    source = results[n].network if plain else results[n]
    ax = figures.contagion_map(source)
    assert isinstance(ax, mpl.axes.Axes)
    figure = ax.figure
    assert [text.get_gid() for text in figure.texts] == ["footer"]
    said = " ".join(figure.texts[0].get_text().split())
    assert said == " ".join(figures.caption(source).split())
    assert_legible(ax)
    assert figure.axes == [ax]
    assert len(ax.get_children()) < 160
    gids = [collection.get_gid() for collection in ax.collections]
    assert gids.count("exposure") == 1
    assert gids.count("distress") == (0 if plain else 1)
    assert len(next(c for c in ax.collections if c.get_gid() == "boxes").get_paths()) <= 60
    shown = {text.get_text() for text in words(ax, "label")}
    flows = read_flows(source, figures._contagion_map._own_room(figures._contagion_map.Style()))
    for layer in flows.layers:
        assert {_labels.shorten(name, 7.0, 999.0) for name in layer.names} <= shown
    legend = [text.get_text() for text in words(ax, "legend")]
    assert legend[0].endswith("USD")
    assert flows.share_name in legend


@pytest.mark.parametrize("n", SIZES)
def test_single_column_axes(results, n):
    figure, (ax, other) = plt.subplots(2, 1, figsize=(3.5, 6))
    plt.figure()
    current = plt.gcf()
    before = (plt.rcParams.copy(), other.get_children(), other.get_xlim())
    assert figures.contagion_map(results[n], ax=ax) is ax
    assert before[0] == plt.rcParams
    assert (other.get_children(), other.get_xlim()) == before[1:]
    assert plt.gcf() is current
    assert figure.axes == [ax, other]
    assert not figure.texts
    assert not ax.get_title()
    other.set_axis_off()
    assert_legible(ax)


@pytest.mark.parametrize("size", [(2.2, 2.0), (3.5, 3.0), (7.0, 3.0), (5.0, 9.0), (16.0, 9.0)])
@pytest.mark.parametrize("many", [False, True])
def test_every_size_of_paper(size, many):
    network = make_network(3_000, exchanges=40, assets=60) if many else make_network(3, exchanges=2, assets=2)
    figure = plt.figure(figsize=size)
    ax = figure.add_axes((0, 0, 1, 1))
    figures.contagion_map(make_result(network), ax=ax)
    assert_legible(ax)


def extent(collection):
    """Height at the ends of each ribbon, keyed by its two upper corners."""
    points = [path.vertices for path in collection.get_paths()]
    return {(round(p[0, 0]), round(p[0, 1], 4), round(p[5, 1], 4)): p[0, 1] - p[11, 1] for p in points}


def test_red_lies_inside_grey(results):
    ax = figures.contagion_map(results[1_000])
    by_gid = {collection.get_gid(): collection for collection in ax.collections}
    grey, red = extent(by_gid["exposure"]), extent(by_gid["distress"])
    assert red
    for corners, wide in red.items():
        assert wide <= grey[corners] + 1e-9


def test_scale_bar_is_as_high_as_it_says(results):
    ax = figures.contagion_map(results[10])
    flows = read_flows(results[10], figures._contagion_map._own_room(figures._contagion_map.Style()))
    grey = next(c for c in ax.collections if c.get_gid() == "exposure")
    heights = sum(p.vertices[0, 1] - p.vertices[11, 1] for p in grey.get_paths())
    scale = heights / sum(links.amount.sum() for links in flows.links)
    bar = next(c for c in ax.collections if isinstance(c, mpl.collections.LineCollection))
    height = float(np.ptp([y for path in bar.get_paths() for y in path.vertices[:, 1]]))
    label = words(ax, "legend")[0].get_text()
    assert label == _labels.money(height / scale, "USD")


def test_banks_are_drawn_by_the_same_code():
    network, result, *_ = make_banks(200)
    for source in (network, result):
        ax = figures.contagion_map(source)
        assert_legible(ax)
        assert any(text.get_text().startswith("Other (") for text in words(ax, "label"))
    assert "of dues" in figures.caption(result)
    assert words(figures.contagion_map(network), "legend")[0].get_text().endswith("EUR")


def test_style_keywords(results):
    ax = figures.contagion_map(results[1_000], title="My title", max_nodes=12, max_links=20, accent="#0000ff", top=1)
    assert ax.get_title(loc="left") == "My title"
    by_gid = {collection.get_gid(): collection for collection in ax.collections}
    assert len(by_gid["boxes"].get_paths()) <= 12 + 3
    assert len(by_gid["exposure"].get_paths()) <= 20
    assert mpl.colors.to_hex(by_gid["distress"].get_facecolor()[0]) == "#0000ff"
    assert figures.contagion_map(results[10], title="").get_title(loc="left") == ""


def test_unknown_keyword_names_the_nearest(results):
    with pytest.raises(TypeError, match="'max_node'; did you mean 'max_nodes'"):
        figures.contagion_map(results[10], max_node=3)
    with pytest.raises(TypeError, match="choose from max_nodes"):
        figures.caption(results[10], zzz=3)
    with pytest.raises(ValueError, match="at least 6"):
        figures.contagion_map(results[10], max_nodes=3)
    assert not plt.get_fignums()


def test_labels_with_dollars_and_percent_survive(results, monkeypatch):
    network = SimpleNamespace(**vars(results[10].network))
    old = network.labels
    odd = pd.Index(["$A_b$", "50%\n x", *[f"T{i}" for i in range(6)]])
    network.labels = lambda table: odd if table == "assets" else old(table)
    ax = figures.contagion_map(network)
    ax.figure.canvas.draw()
    shown = {text.get_text() for text in words(ax, "label")}
    assert {"$A_b$", "50% x"} & shown


def test_caption_says_how_the_run_went(results):
    text = figures.caption(results[1_000])
    assert text.startswith("TOK0 -30 % | 6 rounds, settled | seed 7 | links drawn carry ")
    assert text.endswith("assumed: no wallets: no top-up; no depth for TOK1: no impact")
    figure, ax = plt.subplots(figsize=(2, 2))
    assert figures.caption(results[1_000], ax=ax, max_links=4) != text
    assert not ax.texts
    figure.clear()


def test_same_input_same_picture(results):
    one, two = (figures.contagion_map(results[1_000]).collections[0].get_paths() for _ in range(2))
    assert all(np.array_equal(a.vertices, b.vertices) for a, b in zip(one, two, strict=True))


def test_input_is_left_alone(results):
    balances = results[1_000].network.columns("balances")
    before = {name: column.copy() for name, column in balances.items()}
    for column in balances.values():
        column.setflags(write=False)
    figures.contagion_map(results[1_000])
    assert all(np.array_equal(before[name], balances[name]) for name in before)


def test_importing_figures_loads_no_pyplot():
    code = "import sys, netcontagion.figures; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# Words ----------------------------------------------------------------------------------------------------------------


def test_money():
    assert _labels.money(451e6, "USD") == "451m USD"
    assert _labels.money(999_950, "USD") == "1m USD"
    assert _labels.money(2_500, "EUR m") == "2.5bn EUR"
    assert _labels.money(0.05, "BTC") == "0.05 BTC"
    assert _labels.money(20, "") == "20"


def test_percent():
    assert [_labels.percent(x) for x in (0, 1e-6, 0.384, 0.9999, 1.0)] == ["0 %", "<1 %", "38 %", ">99 %", "100 %"]


def test_nice_below():
    assert [_labels.nice_below(x) for x in (1.0, 4.9, 5.0, 19.0, 0.03)] == [1.0, 2.0, 5.0, 10.0, 0.02]


def test_shorten_keeps_both_ends():
    assert _labels.shorten("0x1234" + "0" * 32 + "abcd", 7.0, 999.0) == "0x1234…abcd"
    short = _labels.shorten("Very long name of an exchange", 7.0, 40.0)
    assert short[0] == "V"
    assert short[-1] == "e"
    assert _labels.text_width(short, 7.0) <= 40.0


def test_what_the_backend_sets_outlives_the_style_of_the_map(tmp_path):
    """The first figure loads the backend; notebooks' backend turns interactive mode on, or later maps are not shown."""
    backend = (
        "import matplotlib\nfrom matplotlib.backends.backend_agg import *\nmatplotlib.rcParams['interactive'] = True\n"
    )
    (tmp_path / "loud.py").write_text(backend)
    code = (
        "import matplotlib, netcontagion as nc\n"
        "nc.contagion_map(nc.datasets.load('market'))\n"
        "assert matplotlib.is_interactive()\n"
    )
    environment = os.environ | {"MPLBACKEND": "module://loud", "PYTHONPATH": str(tmp_path)}
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, cwd=tmp_path, env=environment)


def test_the_map_of_a_cascade_among_banks_is_that_of_its_clearing():
    import netcontagion as nc
    from netcontagion import builders

    owed = [[0, 20, 10], [5, 0, 24], [10, 0, 0]]
    banks = builders.from_matrix(owed, rows="debtor", external_assets=[30, 10, 10], labels=list("abc"))
    run = nc.cascade(banks, nc.Shock.loss(0.8))
    assert run.clearing.defaulted.any()
    shown = [figures.caption(run), figures.caption(run.clearing)]
    assert shown[0] == shown[1]
    assert "before any shock" not in shown[0]


@pytest.mark.parametrize(
    "wrong", [[], "market", None, 3, {"a": 1}, (1, 2), pd.DataFrame({"labels": [1], "columns": [2]})]
)
@pytest.mark.parametrize("draw", [figures.contagion_map, figures.caption])
def test_a_wrong_thing_is_named_with_the_cure(draw, wrong):
    with pytest.raises(TypeError, match=rf"not {type(wrong).__name__} .*; run nc\.cascade\(net, shock\) first"):
        draw(wrong)
    assert not plt.get_fignums()


def test_a_class_or_a_shock_is_named_with_the_cure():
    import netcontagion as nc

    with pytest.raises(TypeError, match="not the class ExposureNetwork itself; run nc"):
        nc.contagion_map(nc.ExposureNetwork)
    with pytest.raises(TypeError, match=r"not Shock .*; run nc"):
        nc.contagion_map(nc.Shock.price({"ETH": -0.3}))


def names_beside(ax):
    return [text.get_text() for text in words(ax, "label") if "@" in text.get_text()]


@pytest.mark.parametrize("size", [(3.5, 3.0), (7.2, 5.2)])
def test_ten_accounts_keep_the_number_of_the_trader(size):
    from netcontagion import generators

    for seed in range(3):
        ax = plt.figure(figsize=size).add_axes((0, 0, 1, 1))
        network = generators.market(10, seed=seed)
        shown = names_beside(figures.contagion_map(network, ax=ax))
        assert len(set(shown)) == len(shown)
        held = network.balances.loc[lambda table: table["deposited"] > 0].reset_index()["account"].unique()
        numbers = sorted(name.partition("@")[0][-4:] for name in map(str, held) if not name.startswith("others@"))
        assert sorted(name.partition("@")[0][-4:] for name in shown) == numbers


def test_no_two_accounts_look_the_same_on_the_smallest_paper():
    from netcontagion import generators

    for seed in range(3):
        ax = plt.figure(figsize=(2.2, 2.0)).add_axes((0, 0, 1, 1))
        figures.contagion_map(generators.market(10, seed=seed), ax=ax)
        right = [text.get_text() for text in words(ax, "label") if text.get_position()[0] > 0.6 * ax.get_xlim()[1]]
        names = [text for text in right if "%" not in text]
        assert len(names) >= 3
        assert len(set(names)) == len(names)


def test_labels_that_would_look_the_same_are_told_apart():
    names = ["0x1234" + middle * 32 + "abcd" for middle in "0123"] + ["USDC"]
    rooms = [60.0] * len(names)
    shown = _labels.tell_apart(_labels.shorten_all(names, 7.0, rooms), 7.0, rooms)
    assert shown[0] == "0x1234…abcd"
    assert shown[-1] == "USDC"
    assert len(set(shown)) == len(names)
    assert all(_labels.text_width(label, 7.0) <= 60.0 for label in shown)


def test_names_cut_alike_keep_their_numbers():
    names = [f"trader-{number:04d}@Lend-{venue}" for number in (1, 2, 12) for venue in (1, 2)]
    rooms = [_labels.text_width("trader-00…Lend-1", 7.0)] * len(names)
    shown = _labels.shorten_all(names, 7.0, rooms)
    assert all(short.endswith(name[7:]) for short, name in zip(shown, names, strict=True))
    assert all(short[0] == "t" for short in shown)


def test_the_footer_says_its_sentences_to_the_end(results):
    import netcontagion as nc

    run = nc.cascade(nc.datasets.load("market"), nc.Shock.price({"ETH": -0.3}, family=True))
    ax = figures.contagion_map(run)
    said = " ".join(ax.figure.texts[0].get_text().split())
    assert said.endswith("; ".join(run.assumptions[-1:]))
    assert "…" not in said
    assert_legible(ax)
    long = make_result(results[10].network, assumptions=("word " * 60,))
    assert figures.caption(long).endswith("word word …")
