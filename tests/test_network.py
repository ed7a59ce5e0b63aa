"""The record: any table in, one frozen network out, its views, health and changes."""

from __future__ import annotations

import copy
import itertools
import math
import pickle

import numpy as np
import pandas as pd
import pytest
from conftest import assert_same, full_tables, lending_tables, permuted, refused
from hypothesis import given, settings
from hypothesis import strategies as st

import netcontagion as nc
from netcontagion.network import schema

TABLES = list(schema())
KINDS = ("traders", "exchanges", "assets", "accounts")
common = settings(max_examples=25, deadline=None, derandomize=True)


def keys_of(name):
    return [column.name for column in schema()[name].values() if column.key]


def book():
    return nc.ExposureNetwork(**lending_tables())


# any table in -----------------------------------------------------------------------------------------------------


def as_columns(tables):
    return {
        name: pd.DataFrame({c: pd.Series(v, dtype=object).infer_objects() for c, v in table.items()})
        for name, table in tables.items()
    }


def as_index(tables):
    frames = as_columns(tables)
    tuples = {"liabilities"} & frames.keys()  # pandas makes no index of labels and tuples
    return {name: frame if name in tuples else frame.set_index(keys_of(name)) for name, frame in frames.items()}


def as_plain_index(tables):
    frames = as_index(tables)
    return {name: frame.rename_axis([None] * frame.index.nlevels) for name, frame in frames.items()}


def as_filtered(tables):
    """Frames with an index of numbers that means nothing."""
    return {name: frame.set_axis(range(7, 7 + len(frame))) for name, frame in as_columns(tables).items()}


def as_categories(tables):
    frames = as_columns(tables)
    for name, frame in frames.items():
        for key in keys_of(name):
            if schema()[name][key].dtype != "number":
                frame[key] = pd.Categorical(frame[key], categories=[*pd.unique(frame[key])[::-1], "never used"])
    return frames


def as_masked(tables):
    """Empty numbers are masked cells over a tempting 0."""
    found = {}
    for name, table in tables.items():
        found[name] = dict(table)
        for column, values in table.items():
            if schema()[name][column].numeric:
                array = np.array(values, dtype=float)
                found[name][column] = np.ma.array(np.where(np.isnan(array), 0.0, array), mask=np.isnan(array))
    return found


def as_nullable(tables):
    frames = as_columns(tables)
    for name, frame in frames.items():
        for column in frame:
            if schema()[name][column].dtype == "number":
                frame[column] = pd.array(pd.Series(tables[name][column]).astype("Float64"))
    return frames


def is_empty(value):
    return value is None or (isinstance(value, float) and math.isnan(value))


def as_polars(tables):
    polars = pytest.importorskip("polars")
    found = {}
    for name, table in tables.items():
        columns = {c: [None if is_empty(v) else v for v in values] for c, values in table.items()}
        found[name] = polars.DataFrame(columns) if name != "liabilities" else table
    return found


def as_lazy_polars(tables):
    pytest.importorskip("polars")
    return {name: table if isinstance(table, dict) else table.lazy() for name, table in as_polars(tables).items()}


def as_arrow(tables):
    pyarrow = pytest.importorskip("pyarrow")
    found = {}
    for name, table in tables.items():
        columns = {c: [None if is_empty(v) else v for v in values] for c, values in table.items()}
        found[name] = pyarrow.table(columns) if name != "liabilities" else table
    return found


FORMS = [
    as_columns,
    as_index,
    as_plain_index,
    as_filtered,
    as_categories,
    as_masked,
    as_nullable,
    as_polars,
    as_lazy_polars,
    as_arrow,
]


@pytest.mark.parametrize("form", FORMS)
def test_the_kind_of_table_does_not_matter(form, full):
    assert_same(nc.ExposureNetwork(**form(full_tables()), numeraire="EUR m"), full)


@pytest.mark.parametrize("form", [as_masked, as_nullable, as_polars, as_arrow, as_columns])
def test_null_never_becomes_zero(form):
    tables = lending_tables()
    tables["markets"]["depth"] = [np.nan, 5.0]
    net = nc.ExposureNetwork(**form(tables))
    assert math.isnan(net.markets.loc[("Lend", "ETH"), "depth"])
    assert math.isinf(net.book.book_depth[0])
    for column in ("deposited", "borrowed"):
        tables = lending_tables()
        tables["balances"][column][2] = np.nan
        assert set(refused(nc.ExposureNetwork, **form(tables))) == {("balances", column, 2)}


def test_masked_labels_are_missing_labels():
    tables = lending_tables()
    tables["balances"]["account"] = np.ma.array(["ann", "ann", "bob", "bob"], mask=[False, True, False, False])
    assert ("balances", "account", 1) in refused(nc.ExposureNetwork, **tables)


def test_arrays_of_the_caller_stay_the_callers():
    units = np.array([1.0, 2.0])
    labels = np.array([4, 9])
    net = nc.ExposureNetwork(
        traders={"trader": labels},
        assets={"asset": ["A"], "price": [1.0]},
        wallets={"trader": labels, "asset": ["A", "A"], "units": units},
    )
    units[:], labels[:] = -1, 0
    assert net.wallets["units"].tolist() == [1.0, 2.0]
    assert net.labels("traders").tolist() == [4, 9]


# inference --------------------------------------------------------------------------------------------------------


def test_a_lending_book_is_balances_and_markets():
    net = book()
    assert net.labels("exchanges").tolist() == ["Lend"]
    assert net.labels("accounts").tolist() == ["ann", "bob", "others@Lend"]
    assert net.accounts["trader"].tolist() == ["ann", "bob", "others@Lend"]
    assert net.assets["price"].to_dict() == {"ETH": 2000.0, "USDC": 1.0}
    assert net.exchanges["rulebook"].tolist() == ["lending"]


def test_banks_are_traders_and_liabilities():
    net = nc.ExposureNetwork(liabilities={"debtor": ["b", "a"], "creditor": ["c", "b"], "amount": [1.0, 2.0]})
    assert net.labels("traders").tolist() == ["a", "b", "c"]
    assert net.health().empty
    assert net.exposures("traders", "traders").matrix.toarray().tolist() == [[0, 2, 0], [0, 0, 1], [0, 0, 0]]


def test_traders_come_from_all_that_name_them():
    tables = full_tables()
    del tables["traders"]
    assert nc.ExposureNetwork(**tables).labels("traders").tolist()[:4] == ["ann", "bob", "hub", "mm"]


def test_only_a_lone_exchange_gives_accounts():
    tables = lending_tables()
    tables["markets"]["exchange"] = ["Lend", "Perp"]
    assert set(refused(nc.ExposureNetwork, **tables)) == {("accounts", None, None)}


def test_marks_that_differ_give_no_price():
    tables = lending_tables(accounts={"account": ["ann", "bob"], "trader": ["ann", "bob"], "exchange": ["Lend"] * 2})
    markets = {name: [*values, values[0]] for name, values in tables["markets"].items()}
    markets["exchange"][2], markets["price"][2] = "Other", 1990.0
    assert set(refused(nc.ExposureNetwork, **tables | {"markets": markets})) == {("assets", "price", None)}
    markets["price"][2] = np.nan
    assert nc.ExposureNetwork(**tables | {"markets": markets}).assets.loc["ETH", "price"] == 2000.0


def test_a_market_without_any_price_is_refused():
    tables = lending_tables()
    tables["markets"]["price"] = [2000.0, np.nan]
    problems = refused(nc.ExposureNetwork, **tables)
    assert set(problems) == {("assets", "price", None)}
    assert "USDC" in problems["assets", "price", None].value


# labels -----------------------------------------------------------------------------------------------------------


def test_integer_labels_stay_integers():
    tables = lending_tables()
    tables["balances"]["account"] = [12, 12, 7, 7]
    tables["markets"]["exchange"] = [3, 3]
    net = nc.ExposureNetwork(**tables)
    assert net.labels("accounts").tolist() == [7, 12, "others@3"]
    assert net.health()[12] == 1.6
    assert_same(net.replace(), net)


def test_the_same_label_on_a_trader_and_an_exchange_is_addressed(full):
    assert full.nodes.tolist() == [
        "ann",
        "bob",
        ("trader", "hub"),
        "mm",
        "others@hub",
        "others@perp",
        ("exchange", "hub"),
        "perp",
    ]
    owed = full.exposures("traders", "traders").matrix.toarray()
    assert owed[0, 2] == 4.0
    assert owed[0, 3] == 0.1
    tables = full_tables()
    tables["liabilities"]["debtor"][1] = "hub"
    problems = refused(nc.ExposureNetwork, **tables)
    assert set(problems) == {("liabilities", "debtor", 1)}
    assert "('exchange', 'hub')" in problems["liabilities", "debtor", 1].cure


@given(st.integers(0, 2**32 - 1))
@common
def test_row_order_never_matters(seed):
    rng = np.random.default_rng(seed)
    tables = full_tables()
    left = nc.ExposureNetwork(**tables)
    right = nc.ExposureNetwork(**{name: permuted(table, rng) for name, table in tables.items()})
    assert_same(left, right)
    assert left.health().equals(right.health())
    for rows, columns in itertools.permutations(KINDS, 2):
        ours, theirs = left.exposures(rows, columns).matrix, right.exposures(rows, columns).matrix
        assert (ours.toarray() == theirs.toarray()).all()


# frozen -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TABLES)
def test_writing_to_a_handed_out_table_leaves_the_network_alone(name, full):
    before = nc.ExposureNetwork(**full_tables(), numeraire="EUR m")
    table = getattr(full, name)
    for column in table:
        values = table[column].to_numpy()
        if values.dtype == object and values.flags.writeable:
            values[0] = None  # looked up labels and words: an array of its own
            continue
        with pytest.raises(ValueError, match="read-only"):
            values[0] = values[-1]
    table.index.names = [None] * table.index.nlevels
    for column in list(table):
        table[column] = 0
        table.pop(column)
    assert list(getattr(full, name).index.names) == keys_of(name)
    assert_same(full, before)
    assert getattr(full, name).equals(getattr(before, name))


@pytest.mark.parametrize("name", TABLES)
def test_arrays_are_read_only(name, full):
    columns = full.columns(name)
    for values in columns.values():
        assert not values.flags.writeable
    with pytest.raises(TypeError):
        columns["new"] = 1
    for field in vars(full.book).values():
        assert not isinstance(field, np.ndarray) or not field.flags.writeable


def test_a_network_is_frozen(full):
    with pytest.raises(AttributeError, match="replace"):
        full.numeraire = "USD"
    with pytest.raises(AttributeError, match="frozen"):
        del full.numeraire
    with pytest.raises(nc.UnknownLabelError, match="traders"):
        full.columns("trader")
    with pytest.raises(nc.UnknownLabelError, match="traders"):
        full.labels("trader")


def test_a_network_can_be_copied_and_sent_to_a_process(full):
    for twin in (pickle.loads(pickle.dumps(full)), copy.deepcopy(full)):
        assert_same(full, twin)
        assert not twin.columns("wallets")["units"].flags.writeable
        assert twin.health().equals(full.health())


# partial books ----------------------------------------------------------------------------------------------------


def test_others_supplies_exactly_the_gap():
    net = book()
    assert net.balances.loc[("others@Lend", "USDC")].tolist() == [2600.0, 0.0]
    assert net.check().endswith("others@Lend supplies 2.6k USD")
    assert net.summary()["others@Lend supplies [USD]"] == 2600.0
    assert "others@Lend supplies 2.6k USD" in net.assumptions
    assert "others@Lend supplies 2.6k USD" in repr(net)
    assert math.isinf(net.health()["others@Lend"])


@given(st.lists(st.tuples(st.floats(0, 1e12), st.floats(0, 1e12)), min_size=1, max_size=8))
@common
def test_deposits_always_cover_loans(amounts):
    held = {"account": [f"a{i}" for i in range(len(amounts))], "asset": ["X"] * len(amounts)}
    held |= {"deposited": [d for d, _ in amounts], "borrowed": [b for _, b in amounts]}
    market = {"exchange": ["E"], "asset": ["X"], "price": [1.0], "liquidation_threshold": [0.8]}
    market |= {"liquidation_bonus": [0.05], "close_factor": [0.5]}
    net = nc.ExposureNetwork(balances=held, markets=market)
    net.check()
    gap = math.fsum(b for _, b in amounts) - math.fsum(d for d, _ in amounts)
    added = net.balances["deposited"].to_dict().get(("others@E", "X"), 0.0)
    assert added == pytest.approx(max(gap, 0.0), rel=1e-9, abs=1e-9 * sum(b for _, b in amounts))


def test_a_complete_book_must_be_complete():
    problems = refused(nc.ExposureNetwork, **lending_tables(), complete=True)
    assert set(problems) == {("balances", "deposited", None)}
    assert "'USDC'" in problems["balances", "deposited", None].value
    tables = lending_tables()
    tables["balances"] = {
        name: [*values, last]
        for (name, values), last in zip(tables["balances"].items(), ["lp", "USDC", 2600.0, 0.0], strict=True)
    }
    net = nc.ExposureNetwork(**tables, complete=True)
    assert net.labels("traders").tolist() == ["ann", "bob", "lp"]
    assert "supplies" not in repr(net)


def test_others_is_derived_anew_on_replace():
    net = book()
    half = net.balances
    half["borrowed"] = half["borrowed"] / 2
    assert net.replace(balances=half).balances.loc[("others@Lend", "USDC"), "deposited"] == 1300.0
    half["borrowed"] = 0.0
    free = net.replace(balances=half)
    assert free.labels("traders").tolist() == free.labels("accounts").tolist() == ["ann", "bob"]
    assert net.labels("traders").tolist()[-1] == "others@Lend"


def test_a_row_that_only_looks_derived_is_refused_not_dropped():
    tables = lending_tables(
        accounts={"account": ["ann", "others@Lend"], "trader": ["ann", "x"], "exchange": ["Lend"] * 2}
    )
    tables["balances"]["account"] = ["ann", "ann", "others@Lend", "others@Lend"]
    assert ("accounts", "account", 1) in refused(nc.ExposureNetwork, **tables)
    assert ("traders", "trader", 0) in refused(nc.ExposureNetwork, traders={"trader": ["others@desk", "a"]})


def contracts(quantities, entries, **changes):
    names = [f"t{i}" for i in range(len(quantities))]
    tables = {
        "assets": {"asset": ["PERP", "USD"], "price": [100.0, 1.0], "kind": ["linear", "token"]},
        "markets": {"exchange": ["X"], "asset": ["PERP"], "maintenance_margin": [0.005]},
        "balances": {"account": names, "asset": ["USD"] * len(names), "deposited": [50.0] * len(names)},
        "positions": {"account": names, "asset": ["PERP"] * len(names), "quantity": quantities, "entry_price": entries},
    }
    return tables | changes


def test_contracts_are_closed_at_what_the_others_paid():
    net = nc.ExposureNetwork(**contracts([10.0, -4.0], [100.0, 90.0]))
    assert net.positions.loc[("others@X", "PERP")].tolist() == [-6.0, 640.0 / 6.0]
    table = net.columns("positions")
    assert (table["quantity"] * table["entry_price"]).sum() == pytest.approx(0.0, abs=1e-9)
    assert net.book.equity().sum() == pytest.approx(100.0)
    assert "others@X holds contracts of 600 USD" in repr(net)
    assert "3 positions with open interest of 1k USD" in repr(net)
    assert net.summary()["open interest [USD]"] == 1000.0
    assert not net.under_water.any()
    problems = refused(nc.ExposureNetwork, **contracts([10.0, -4.0], [100.0, 90.0]), complete=True)
    assert set(problems) == {("positions", "quantity", None)}
    assert nc.ExposureNetwork(**contracts([10.0, -10.0], [100.0, 100.0]), complete=True).check()


def test_what_one_side_paid_the_other_received():
    assert set(refused(nc.ExposureNetwork, **contracts([10.0, -10.0], [100.0, 90.0]))) == {
        ("positions", "entry_price", None)
    }


# health -----------------------------------------------------------------------------------------------------------


def test_health_of_lending_accounts():
    health = book().health()
    assert health["ann"] == 2000 * 0.8 / 1000
    assert health["bob"] == 1.0
    assert health.name == "health"
    assert not book().under_water.any()
    assert nc.ExposureNetwork(**full_tables()).health()["bob@hub"] == pytest.approx((2 * 1990 + 5) * 0.9 / 3000)


def test_health_is_infinite_exactly_without_debt():
    tables = lending_tables()
    tables["balances"]["borrowed"] = [0.0, 0.0, 0.0, 1600.0]
    health = nc.ExposureNetwork(**tables).health()
    assert np.isposinf(health[["ann", "others@Lend"]]).all()
    tables["balances"] |= {"deposited": [0.0] * 4, "borrowed": [0.0, 1e-300, 0.0, 5.0]}
    assert nc.ExposureNetwork(**tables).health()[["ann", "bob"]].tolist() == [0.0, 0.0]


def test_accounts_under_water_are_accepted_and_reported():
    tables = lending_tables()
    tables["balances"]["borrowed"][3] = 1600.0001
    net = nc.ExposureNetwork(**tables)
    assert net.under_water.tolist() == [False, True, False]
    assert net.check().endswith("1 accounts already under water (health below 1)")
    assert "1 accounts below health 1 before the shock" in net.assumptions
    assert net.summary()["accounts below health 1"] == 1


def test_rounding_does_not_call_an_account_at_one():
    tables = lending_tables()
    tables["balances"]["borrowed"][3] = 1600.0 * (1 + 4e-16)
    net = nc.ExposureNetwork(**tables)
    assert net.health()["bob"] < 1
    assert not net.under_water.any()


def test_the_mark_of_the_market_wins_over_the_price_of_the_asset():
    tables = lending_tables(assets={"asset": ["ETH", "USDC"], "price": [1.0, 1.0]})
    assert nc.ExposureNetwork(**tables).health()["ann"] == 1.6


@pytest.mark.parametrize(("side", "mark"), [(1, 95.47738693467338), (-1, 104.47761194029852)])
def test_golden_g4_the_liquidation_price_of_a_contract(side, mark):
    tables = contracts([10.0 * side, -10.0 * side], [100.0, 100.0])
    tables["markets"]["price"] = [mark]
    tables["balances"]["deposited"] = [50.0, 1e6]
    net = nc.ExposureNetwork(**tables)
    assert net.health()["t0"] == pytest.approx(1.0, rel=1e-13)
    assert not net.under_water.any()
    if side > 0:
        assert net.book.equity()[0] == pytest.approx(4.773869346733669, rel=1e-12)
        assert net.book.requirement()[0] == pytest.approx(4.773869346733669, rel=1e-12)
    tables["markets"]["price"] = [mark - side * 1e-6]
    assert nc.ExposureNetwork(**tables).under_water[0]
    tables["markets"]["price"] = [95.0 if side > 0 else 105.0]
    assert nc.ExposureNetwork(**tables).book.equity()[0] == pytest.approx(0.0, abs=1e-12)


TIERS = {
    "exchange": ["X"] * 4,
    "asset": ["PERP"] * 4,
    "floor": [0.0, 50_000.0, 250_000.0, 1_000_000.0],
    "initial_margin": [0.01, 0.01, 0.02, 0.05],
    "maintenance_margin": [0.004, 0.005, 0.01, 0.025],
}


@pytest.mark.parametrize(
    ("notional", "rate", "cumulative"),
    [
        (1e4, 0.004, 0.0),
        (5e4, 0.004, 0.0),
        (5e4, 0.005, 50.0),
        (1e5, 0.005, 50.0),
        (2.5e5, 0.005, 50.0),
        (2.5e5, 0.01, 1300.0),
        (1e6, 0.01, 1300.0),
        (1e6, 0.025, 16300.0),
        (4e6, 0.025, 16300.0),
    ],
)
def test_golden_g7_tiers(notional, rate, cumulative):
    quantity = notional / 100
    net = nc.ExposureNetwork(**contracts([quantity, -quantity], [100.0, 100.0], tiers=TIERS))
    assert net.book.requirement() == pytest.approx([notional * rate - cumulative] * 2, rel=1e-12)
    assert net.health()["t0"] == pytest.approx(50.0 / (notional * rate - cumulative), rel=1e-12)


def test_a_contract_has_a_maintenance_margin_and_tiers_start_at_zero():
    tables = contracts([1.0, -1.0], [100.0, 100.0])
    tables["markets"]["maintenance_margin"] = [np.nan]
    assert set(refused(nc.ExposureNetwork, **tables)) == {("markets", "maintenance_margin", 0)}
    assert nc.ExposureNetwork(**tables, tiers=TIERS).check()
    late = {name: values[:0:-1] for name, values in TIERS.items()}
    assert set(refused(nc.ExposureNetwork, **tables, tiers=late)) == {("tiers", "floor", 2)}
    del tables["markets"]
    assert ("markets", "maintenance_margin", None) in refused(
        nc.ExposureNetwork, **tables, exchanges={"exchange": ["X"]}
    )


def test_health_under_other_prices():
    net = book()
    assert net.book.health(np.array([0.5, 1.0]))[:2].tolist() == [0.8, 0.5]


# exposures --------------------------------------------------------------------------------------------------------


def test_every_pair_of_exposures_and_its_transpose(full):
    for rows, columns in itertools.permutations(KINDS, 2):
        view, back = full.exposures(rows, columns), full.exposures(columns, rows)
        assert view.matrix.shape == (len(view.rows), len(view.columns))
        assert (view.rows.equals(full.labels(rows)), view.columns.equals(full.labels(columns))) == (True, True)
        assert view.unit == back.unit == ("units" if {rows, columns} == {"accounts", "assets"} else "EUR m")
        assert (view.matrix.toarray() == back.matrix.toarray().T).all()
        assert (view.matrix.data > 0).all()
        assert full.exposures(rows, columns) is view
        assert f"{len(view.rows)} {rows[:-1]}s x" in repr(view)
        with pytest.raises(ValueError, match="read-only"):
            view.matrix.data[0] = 1.0


def test_exposures_sum_to_the_totals(full):
    deposits = full.book.deposited * full.book.balance_mark
    free = sum(
        (t["units"] * full.assets["price"].to_numpy()[t["asset"]]).sum()
        for t in map(full.columns, ("wallets", "holdings"))
    )
    for rows, columns in itertools.combinations(KINDS, 2):
        total = full.exposures(rows, columns).matrix.sum()
        if {rows, columns} == {"accounts", "assets"}:
            assert total == pytest.approx(full.balances["deposited"].sum())
        elif {rows, columns} == {"traders", "assets"}:
            assert total == pytest.approx(deposits.sum() + free)
        else:
            assert total == pytest.approx(deposits.sum())
    assert full.exposures("traders", "assets").matrix[1, 4] == pytest.approx(2 * 1990.0)
    assert full.exposures("traders", "assets").matrix[0, 4] == pytest.approx(0.3 * 1999.5)


def test_liabilities_run_from_debtor_to_creditor(full):
    owed = full.exposures("traders", "traders")
    frame = owed.to_frame().set_index(["trader_row", "trader_column"])["value"]
    assert frame[("ann", "hub")] == 4.0
    assert frame[("ann", "mm")] == 0.1
    assert owed.unit == "EUR m"
    assert full.exposures("exchanges", "exchanges").matrix.nnz == 0
    for kind in ("assets", "accounts"):
        with pytest.raises(ValueError, match="owe"):
            full.exposures(kind, kind)
    with pytest.raises(nc.UnknownLabelError, match="traders"):
        full.exposures("trader", "assets")


# changes ----------------------------------------------------------------------------------------------------------


def test_replace_makes_a_new_network(full):
    before = nc.ExposureNetwork(**full_tables(), numeraire="EUR m")
    assert_same(full.replace(), before)
    assert full.replace(numeraire="USD").numeraire == "USD"
    assert full.replace(liabilities=None).liabilities.empty
    markets = full.markets
    markets.loc[("hub", "ETH"), "price"] = 1000.0
    assert full.replace(markets=markets).health()["ann@hub"] < full.health()["ann@hub"]
    assert_same(full, before)
    with pytest.raises(nc.UnknownLabelError, match="markets"):
        full.replace(market=markets)


def test_merge_with_itself_changes_nothing(full):
    assert_same(nc.merge(full), full)
    assert_same(nc.merge(full, full), full)


def test_merge_joins_networks():
    left = book()
    banks = nc.ExposureNetwork(
        liabilities={"debtor": ["ann", "Lend"], "creditor": ["zoe", "ann"], "amount": [1.0, 2.0]}
    )
    joined = nc.merge(left, banks)
    assert joined.labels("traders").tolist() == ["Lend", "ann", "bob", "zoe", "others@Lend"]
    owed = joined.liabilities.reset_index()
    rows = zip(owed["debtor"], owed["creditor"], owed["amount"], strict=True)
    assert (("trader", "Lend"), "ann", 2.0) in list(rows), "a trader there is a trader here"
    assert joined.health().equals(left.health())
    assert_same(nc.merge(banks, left), joined)
    other = lending_tables()
    other["markets"]["exchange"] = ["Lend2"] * 2
    other["balances"]["account"] = ["cat", "cat", "dog", "dog"]
    two = nc.merge(left, nc.ExposureNetwork(**other))
    assert two.labels("accounts").tolist() == ["ann", "bob", "cat", "dog", "others@Lend", "others@Lend2"]


def test_merge_lists_every_contradiction():
    left, other = book(), lending_tables()
    other["markets"] |= {"price": [1900.0, 1.0], "liquidation_bonus": [0.06, 0.05]}
    problems = refused(nc.merge, left, nc.ExposureNetwork(**other))
    assert set(problems) == {
        ("assets", "price", None),
        ("markets", "price", None),
        ("markets", "liquidation_bonus", None),
    }
    assert "1900" in problems["markets", "price", None].value
    more = lending_tables()
    more["balances"]["deposited"][0] = 3.0
    problems = refused(nc.merge, left, nc.ExposureNetwork(**more))
    assert {table for table, _, _ in problems} == {"balances"}
    assert set(refused(nc.merge, left, left.replace(numeraire="EUR"))) == {("network", "numeraire", None)}
    with pytest.raises(ValueError, match="at least one"):
        nc.merge()


def test_merge_lets_a_default_give_way():
    left = nc.ExposureNetwork(traders={"trader": ["a"], "external_assets": [5.0]})
    right = nc.ExposureNetwork(traders={"trader": ["a", "b"], "kind": ["bank", "bank"]})
    assert nc.merge(left, right).traders.loc["a", ["kind", "external_assets"]].tolist() == ["bank", 5.0]


def test_merge_of_many_shared_rows():
    count = 30_000
    names = np.arange(count)
    left = nc.ExposureNetwork(traders={"trader": names, "external_assets": names + 1.0})
    right = nc.ExposureNetwork(traders={"trader": names, "kind": ["bank"] * count, "leverage_limit": names + 1.0})
    joined = nc.merge(left, right).traders
    assert joined["external_assets"].tolist() == joined["leverage_limit"].tolist() == (names + 1.0).tolist()
    assert (joined["kind"] == "bank").all()


def test_merge_says_who_is_at_odds_and_what_each_said():
    nets = [nc.ExposureNetwork(traders={"trader": ["a", "b"], "external_assets": [x, 7.0]}) for x in (0.0, 1.0, 2.0)]
    problems = refused(nc.merge, *nets)
    assert problems["traders", "external_assets", None].value == "'a' is 1.0 and 2.0"
    pairs = []
    for factor in (0.7, 0.8):
        tables = lending_tables()
        tables["markets"]["liquidation_threshold"] = [factor, 0.85]
        pairs.append(nc.ExposureNetwork(**tables))
    problems = refused(nc.merge, *pairs)
    assert problems["markets", "liquidation_threshold", None].value == "('Lend', 'ETH') is 0.7 and 0.8"


# words about it ---------------------------------------------------------------------------------------------------


def test_a_network_says_what_it_is(full):
    assert repr(full).startswith("ExposureNetwork  ")
    assert "| EUR m" in repr(full)
    facts = full.summary()
    assert facts[["traders", "exchanges", "assets", "accounts"]].tolist() == [4, 2, 6, 4]
    assert facts["liabilities [EUR m]"] == pytest.approx(4 + 2.5 + 1 / 7 + 0.1)
    assert facts["deposited [EUR m]"] == pytest.approx(2200 + 12 + 2 * 1990 + 5 + 700)
    assert full.check() in repr(full)
    page = full._repr_html_()
    assert page.count("<tr>") == len(facts)
    odd = nc.ExposureNetwork(traders={"trader": ["<b>"]}, numeraire="<script>")
    assert "<script>" not in odd._repr_html_()


def test_assumptions_name_what_is_left_open():
    found = "; ".join(book().assumptions)
    for words in ("no depth given for ETH, USDC", "no wallets", "no insurance fund", "rulebook of Lend: plain lending"):
        assert words in found
    tables = lending_tables(exchanges={"exchange": ["Lend"], "rulebook": ["aave_v2"], "insurance_fund": [1.0]})
    tables["markets"]["depth"] = [5.0, 6.0]
    tables["wallets"] = {"trader": ["ann"], "asset": ["ETH"], "units": [1.0]}
    assert nc.ExposureNetwork(**tables).assumptions == ("others@Lend supplies 2.6k USD",)


def test_an_empty_corner_is_not_an_error():
    net = nc.ExposureNetwork(traders={"trader": ["a"]})
    assert net.check() == "1 traders"
    assert net.assumptions == ()
    assert net.exposures("traders", "assets").matrix.shape == (1, 0)
    assert all(isinstance(getattr(net, name), pd.DataFrame) for name in TABLES)


@pytest.mark.parametrize("table", ["accounts", "balances", "positions"])
def test_rows_of_others_at_an_exchange_that_is_none_are_refused_not_dropped(table):
    tables = lending_tables()
    tables["balances"] = {key: [*values] for key, values in tables["balances"].items()}
    if table == "accounts":
        tables["accounts"] = {"account": ["ann", "others@x"], "trader": ["ann", "others@x"], "exchange": ["Lend", "x"]}
        tables["exchanges"] = {"exchange": ["Lend"]}
    elif table == "balances":
        tables["balances"]["account"][-1] = "others@Lend2"
    else:
        tables["positions"] = {"account": ["others@Lend2"], "asset": ["ETH"], "quantity": [1.0], "entry_price": [1.0]}
    assert table in {found[0] for found in refused(nc.ExposureNetwork, **tables)}
