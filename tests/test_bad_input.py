"""Bad input: every problem in one error, with table, row, column, value, range and cure; nothing is half loaded."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from conftest import full_tables, lending_tables, refused

import netcontagion as nc
from netcontagion import builders
from netcontagion._arrays import plain
from netcontagion.errors import SHOWN_PROBLEMS
from netcontagion.network import schema

NULLS = [None, np.nan, pd.NA, pd.NaT, Decimal("nan"), np.float32("nan"), np.ma.masked]
NUMBERS = [
    (column.table, column.name) for table in schema().values() for column in table.values() if column.dtype == "number"
]


def with_cell(tables, table, column, row, value):
    values = list(tables[table][column])
    values[row] = value
    return tables | {table: tables[table] | {column: values}}


# one thing wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", NULLS, ids=str)
@pytest.mark.parametrize("column", ["deposited", "borrowed"])
def test_null_amounts_are_refused(column, value):
    tables = with_cell(lending_tables(), "balances", column, 1, value)
    problems = refused(nc.ExposureNetwork, **tables)
    assert set(problems) == {("balances", column, 1)}
    assert "never read as 0" in problems["balances", column, 1].cure


@pytest.mark.parametrize("value", [-1.0, -1e-300, np.inf, -np.inf, "5", "", True, np.True_, b"5", [1.0], 10**400])
@pytest.mark.parametrize("column", ["deposited", "borrowed"])
def test_amounts_that_are_no_amounts_are_refused(column, value):
    tables = with_cell(lending_tables(), "balances", column, 3, value)
    problems = refused(nc.ExposureNetwork, **tables)
    assert set(problems) == {("balances", column, 3)}
    assert "[0, inf)" in problems["balances", column, 3].allowed
    assert problems["balances", column, 3].value == repr(plain(value))


@pytest.mark.parametrize(("table", "column"), NUMBERS)
def test_every_number_has_bounds(table, column):
    tables = full_tables()
    tables[table].setdefault(column, [np.nan] * len(next(iter(tables[table].values()))))
    low = schema()[table][column].interval.low
    for value in [-np.inf] if low == -np.inf else [low - 1e-9, -np.inf]:
        bad = with_cell(tables, table, column, 0, value)
        assert (table, column, 0) in refused(nc.ExposureNetwork, **bad)
    assert (table, column, 0) in refused(nc.ExposureNetwork, **with_cell(tables, table, column, 0, "1"))


@pytest.mark.parametrize("values", [["1.0"] * 4, [True] * 4, [1j] * 4, pd.to_datetime(["2020-01-01"] * 4)], ids=str)
def test_columns_of_another_type_are_refused(values):
    tables = lending_tables()
    tables["balances"]["borrowed"] = np.array(values)
    assert {(table, column) for table, column, _ in refused(nc.ExposureNetwork, **tables)} == {("balances", "borrowed")}


@pytest.mark.parametrize(("value", "word"), [(1.0, "[0, 1)"), (1.2, "[0, 1)"), (-0.1, "[0, 1)"), (0.96, "< 1")])
def test_a_threshold_must_leave_room_for_the_bonus(value, word):
    problems = refused(nc.ExposureNetwork, **with_cell(lending_tables(), "markets", "liquidation_threshold", 1, value))
    assert len(problems) == 1
    (((table, column, row), problem),) = problems.items()
    assert (table, row) == ("markets", 1)
    assert column == ("liquidation_bonus" if value == 0.96 else "liquidation_threshold")
    assert word in problem.allowed


@pytest.mark.parametrize("column", ["liquidation_threshold", "liquidation_bonus", "close_factor"])
def test_what_decides_who_is_liquidated_has_no_default(column):
    row = 1 if column == "close_factor" else 0
    problems = refused(nc.ExposureNetwork, **with_cell(lending_tables(), "markets", column, row, np.nan))
    assert set(problems) == {("markets", column, row)}
    assert "aave" in problems["markets", column, row].cure
    tables = lending_tables()
    del tables["markets"][column]
    assert ("markets", column, row) in refused(nc.ExposureNetwork, **tables)


def test_a_loan_above_the_threshold_is_refused():
    tables = lending_tables()
    tables["markets"]["loan_to_value"] = [0.81, 0.7]
    assert set(refused(nc.ExposureNetwork, **tables)) == {("markets", "loan_to_value", 0)}


@pytest.mark.parametrize(
    ("table", "column", "row", "value"),
    [
        ("balances", "account", 2, "bbo"),
        ("balances", "asset", 1, "USDc "),
        ("positions", "asset", 1, "ETHPERP"),
        ("accounts", "exchange", 3, "prep"),
        ("accounts", "trader", 0, "an"),
        ("wallets", "trader", 1, None),
        ("holdings", "asset", 0, 5),
        ("liabilities", "creditor", 1, "purp"),
        ("liabilities", "debtor", 2, ("bank", "hub")),
        ("liabilities", "debtor", 0, None),
        ("exchanges", "insurance_asset", 0, "USDT"),
        ("assets", "settlement", 1, "USDT"),
        ("tiers", "asset", 0, "ETHPERP"),
        ("markets", "exchange", 5, True),
    ],
)
def test_unknown_labels_are_refused(table, column, row, value):
    problems = refused(nc.ExposureNetwork, **with_cell(full_tables(), table, column, row, value))
    assert (table, column, row) in problems
    assert repr(value) in problems[table, column, row].value


def test_an_unknown_label_names_the_nearest():
    tables = with_cell(full_tables(), "wallets", "asset", 0, "USDCC")
    assert "did you mean 'USDC'?" in refused(nc.ExposureNetwork, **tables)["wallets", "asset", 0].cure


@pytest.mark.parametrize("table", list(full_tables()))
def test_a_key_stands_once(table):
    tables = full_tables()
    tables[table] = {column: [*values, values[0]] for column, values in tables[table].items()}
    last = len(next(iter(tables[table].values()))) - 1
    problems = refused(nc.ExposureNetwork, **tables)
    assert {(name, row) for name, _, row in problems} == {(table, last)}


def test_debts_of_other_seniority_are_not_repeated_rows():
    tables = full_tables()
    rows = zip(tables["liabilities"].items(), ["ann", "mm", 0, 9.0], strict=True)
    tables["liabilities"] = {name: [*values, last] for (name, values), last in rows}
    assert nc.ExposureNetwork(**tables).exposures("traders", "traders").matrix[0, 3] == 9.1


@pytest.mark.parametrize("table", list(full_tables()))
def test_empty_tables_are_refused(table):
    tables = full_tables() | {table: pd.DataFrame(full_tables()[table]).iloc[:0]}
    problems = refused(nc.ExposureNetwork, **tables)
    assert problems[table, None, None].value == "the table is empty"
    assert {name for name, _, _ in problems} <= {table, "markets"}, "one cause, no echo"


@pytest.mark.parametrize("label", [" ann", "ann ", "ann\t", "\u00a0ann", "", None, 1.5, np.nan, True, ("a", "b"), b"x"])
def test_labels_are_clean_text_or_integers(label):
    problems = refused(nc.ExposureNetwork, traders={"trader": ["x", label], "external_assets": [1.0, 1.0]})
    assert set(problems) == {("traders", "trader", 1)}
    if isinstance(label, str) and label:
        assert problems["traders", "trader", 1].cure == "write 'ann'"


def test_labels_are_of_one_type():
    assert set(refused(nc.ExposureNetwork, traders={"trader": ["x", 1]})) == {("traders", "trader", None)}
    assert set(refused(nc.ExposureNetwork, traders={"trader": [1.0, 2.0]})) == {("traders", "trader", None)}


def test_stray_spaces_are_named_where_they_stand():
    tables = with_cell(lending_tables(), "markets", "asset", 1, "USDC ")
    problems = refused(nc.ExposureNetwork, **tables)
    assert problems["markets", "asset", 1].cure == "write 'USDC'"
    tables = with_cell(with_cell(lending_tables(), "balances", "account", 1, " ann"), "balances", "account", 3, " ann")
    problems = refused(nc.ExposureNetwork, **tables)
    assert set(problems) == {("balances", "account", 1), ("balances", "account", 3)}
    assert {problem.cure for problem in problems.values()} == {"write 'ann'"}


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        ("traders", "policy", "pasive"),
        ("traders", "kind", " bank"),
        ("traders", "kind", 5),
        ("traders", "kind", ""),
        ("traders", "kind", None),
        ("assets", "kind", "option"),
        ("assets", "underlying", ""),
        ("assets", "underlying", "ETH "),
        ("assets", "impact", "linaer"),
        ("assets", "impact", "ladder"),
        ("assets", "impact", "ladder 0.9"),
        ("assets", "impact", "ladder 0.9:5 1.1:3"),
        ("assets", "impact", "ladder 0.9:5 | 0.95:-3"),
        ("accounts", "mode", "Cross"),
        ("exchanges", "rulebook", "aave_v9"),
        ("exchanges", "rulebook", None),
        ("exchanges", "rulebook", 3),
        ("exchanges", "rulebook", "missing.toml"),
        ("exchanges", "recourse", 1),
        ("exchanges", "recourse", "True"),
        ("exchanges", "recourse", None),
        ("liabilities", "seniority", 0.5),
        ("liabilities", "seniority", -1),
        ("liabilities", "seniority", None),
    ],
)
def test_words_flags_and_whole_numbers(table, column, value):
    tables = full_tables()
    tables["assets"]["impact"] = ["exponential"] * 6
    assert set(refused(nc.ExposureNetwork, **with_cell(tables, table, column, 0, value))) == {(table, column, 0)}


def test_numpy_truths_are_truths():
    tables = full_tables()
    tables["exchanges"]["recourse"] = np.array([np.True_, False], dtype=object)
    assert nc.ExposureNetwork(**tables).exchanges["recourse"].tolist() == [True, False]


def test_nobody_owes_itself():
    tables = with_cell(full_tables(), "liabilities", "creditor", 0, "ann")
    assert set(refused(nc.ExposureNetwork, **tables)) == {("liabilities", "creditor", 0)}


def test_an_asset_does_not_underlie_itself():
    tables = with_cell(full_tables(), "assets", "underlying", 0, "stETH")
    assert set(refused(nc.ExposureNetwork, **tables)) == {("assets", "underlying", 0), ("assets", "underlying", 4)}


@pytest.mark.parametrize("table", [5, "text", [1, 2], np.zeros(3), object()], ids=lambda table: type(table).__name__)
def test_what_is_no_table_is_refused(table):
    assert ("traders", None, None) in refused(nc.ExposureNetwork, traders=table)


def test_columns_are_known_and_complete():
    problems = refused(
        nc.ExposureNetwork, **lending_tables(traders={"trader": ["ann", "bob"], "external_asets": [1, 1]})
    )
    assert "rename it to 'external_assets'" in problems["traders", None, None].cure
    twice = pd.DataFrame([["a", 1.0, 2.0]], columns=["trader", "external_assets", "external_assets"])
    assert nc.ExposureNetwork(traders=twice.iloc[:, :2])
    with pytest.raises(nc.SchemaError, match="external_assets"):
        nc.ExposureNetwork(traders=twice)
    tables = lending_tables()
    tables["balances"]["deposited"] = [1.0]
    assert set(refused(nc.ExposureNetwork, **tables)) == {("balances", None, None)}
    assert set(refused(nc.ExposureNetwork, assets={"asset": ["ETH"]})) == {("assets", "price", None)}
    assert set(
        refused(nc.ExposureNetwork, wallets={"trader": ["a"], "units": [1.0]}, assets={"asset": ["X"], "price": [1.0]})
    ) == {("wallets", "asset", None)}
    assert set(refused(nc.ExposureNetwork)) == {("network", None, None)}


# several things wrong ---------------------------------------------------------------------------------------------


def test_every_problem_of_every_table_comes_in_one_error():
    tables = full_tables()
    for table, column, row, value in (
        ("traders", "external_assets", 1, -1.0),
        ("assets", "price", 0, None),
        ("markets", "liquidation_threshold", 3, 1.0),
        ("balances", "borrowed", 4, np.nan),
        ("balances", "asset", 0, "EHT"),
        ("wallets", "units", 1, "7"),
        ("liabilities", "amount", 2, -5),
        ("exchanges", "rulebook", 1, "lendin"),
    ):
        tables = with_cell(tables, table, column, row, value)
    tables["holdings"] |= {"colour": ["red", "blue"]}
    assert set(refused(nc.ExposureNetwork, **tables)) == {
        ("traders", "external_assets", 1),
        ("assets", "price", 0),
        ("markets", "liquidation_threshold", 3),
        ("balances", "borrowed", 4),
        ("balances", "asset", 0),
        ("wallets", "units", 1),
        ("liabilities", "amount", 2),
        ("exchanges", "rulebook", 1),
        ("holdings", None, None),
    }


@pytest.mark.parametrize("seed", range(5))
def test_rows_are_those_of_the_table_as_given(seed):
    """Tables are sorted inside; a problem names the place before that."""
    rng = np.random.default_rng(seed)
    tables = full_tables()
    expected = set()
    for table, column in (
        ("balances", "deposited"),
        ("assets", "price"),
        ("liabilities", "amount"),
        ("tiers", "initial_margin"),
        ("markets", "liquidation_bonus"),
        ("traders", "external_assets"),
        ("positions", "quantity"),
    ):
        size = len(tables[table][column])
        order, bad = rng.permutation(size), int(rng.integers(size))
        tables[table] = {name: [values[place] for place in order] for name, values in tables[table].items()}
        tables = with_cell(tables, table, column, bad, np.inf)
        expected.add((table, column, bad))
    assert set(refused(nc.ExposureNetwork, **tables)) == expected


def test_rows_hold_where_derived_rows_are_left_out(full):
    balances = full.balances.reset_index().astype({"account": object, "asset": object})
    balances = pd.concat([balances[balances["account"] == "others@hub"], balances[balances["account"] != "others@hub"]])
    balances = balances.reset_index(drop=True)
    balances.loc[3, "borrowed"] = -1.0
    assert set(refused(full.replace, balances=balances)) == {("balances", "borrowed", 3)}


def test_rows_hold_among_bad_and_repeated_labels():
    problems = refused(nc.ExposureNetwork, traders={"trader": ["a", " b", "c", None, "c", "a"]})
    assert set(problems) == {("traders", "trader", row) for row in (1, 3, 4, 5)}


def test_a_price_that_is_no_price_is_named_once():
    for value in ("x", -1.0, np.inf):
        tables = with_cell(lending_tables(), "markets", "price", 1, value)
        assert set(refused(nc.ExposureNetwork, **tables)) == {("markets", "price", 1)}


def test_a_long_list_of_problems_is_cut_in_the_message_only():
    count = 40
    with pytest.raises(nc.SchemaError) as caught:
        nc.ExposureNetwork(traders={"trader": [f"t{i}" for i in range(count)], "external_assets": [-1.0] * count})
    assert len(caught.value.problems) == count
    assert f"... and {count - SHOWN_PROBLEMS} more" in str(caught.value)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, nc.ContagionError)


# builders ---------------------------------------------------------------------------------------------------------

MARKETS = {
    "asset": ["ETH", "USDC"],
    "liquidation_threshold": [0.8, 0.85],
    "liquidation_bonus": [0.05, 0.05],
    "close_factor": [0.5, 0.5],
}
LONG = {
    "who": ["ann", "ann", "bob", "bob"],
    "at": ["L", "L", "L", "L"],
    "what": ["ETH", "USDC", "ETH", "USDC"],
    "side": ["collateral", "debt", "collateral", "debt"],
    "units": [1.0, 1000.0, 2.0, 10.0],
}
ROLES = {"trader": "who", "exchange": "at", "asset": "what", "side": "side"}
PRICES = {"ETH": 2000.0, "USDC": 1.0}


def from_long(cells=(), **changes):
    table = {name: list(values) for name, values in LONG.items()}
    for column, row, value in cells:
        table[column][row] = value
    call = {"markets": MARKETS, "prices": PRICES, "amount": "units", **ROLES, **changes}
    return builders.from_table(table, **call)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *(("units", value) for value in [*NULLS, -1.0, np.inf, "1", True]),
        ("side", "short"),
        ("side", None),
        ("who", " bob"),
        ("who", None),
        ("who", 1.5),
        ("at", ""),
        ("what", "USDC "),
        ("what", "USDT"),
    ],
)
def test_from_table_refuses_bad_cells(column, value):
    assert set(refused(from_long, [(column, 3, value)])) == {("table", column, 3)}


def test_from_table_lists_bad_cells_of_all_tables_at_once():
    markets = MARKETS | {"liquidation_threshold": [0.8, 1.5], "liquidation_bonus": [None, 0.05]}
    cells = [("units", 0, -1.0), ("side", 1, "dept"), ("units", 1, None), ("who", 2, "bob ")]
    accounts = {"account": ["bob", "cat"], "liquidation_threshold": [2.0, 0.5]}
    problems = refused(from_long, cells, markets=markets, accounts=accounts, prices={"ETH": -5.0, "USDC": "1"})
    assert {
        ("table", "units", 0),
        ("table", "side", 1),
        ("table", "units", 1),
        ("table", "who", 2),
        ("markets", "liquidation_threshold", 1),
        ("accounts", "liquidation_threshold", 0),
        ("accounts", "account", 1),
        ("prices", "price", 0),
        ("prices", "price", 1),
    } <= set(problems)


def test_from_table_wants_one_of_amount_and_value():
    for changes in (
        {"amount": None},
        {"value": "units"},
        {"amount": 5},
        {"side": None},
        {"collateral": "units"},
        {"side": None, "collateral": "units"},
    ):
        assert ("table", None, None) in refused(from_long, **changes)
    assert set(refused(from_long, trader="whom")) == {("table", "whom", None)}
    wide = {"side": None, "collateral": "units", "debt": "units", "amount": "units"}
    assert ("table", None, None) in refused(from_long, **wide)


def test_from_table_refuses_repeated_rows():
    problems = refused(from_long, [("what", 1, "ETH"), ("side", 1, "collateral")])
    assert set(problems) == {("table", "account, asset, side", 1)}
    table = {"who": ["a", "a"], "at": ["L", "L"], "what": ["ETH", "ETH"], "c": [1.0, 2.0], "d": [0.0, 0.0]}
    call = {"collateral": "c", "debt": "d", "amount": True, "markets": MARKETS, "prices": PRICES, **ROLES, "side": None}
    with pytest.raises(nc.SchemaError) as caught:
        builders.from_table(table, **call)
    assert {(problem.column, problem.row) for problem in caught.value.problems} == {("account, asset, side", 1)}


def test_from_table_refuses_bad_tables_beside():
    assert ("markets", None, None) in refused(from_long, markets=None)
    assert ("markets", "asset", None) in refused(from_long, markets={"liquidation_threshold": [0.5]})
    assert ("markets", None, None) in refused(
        from_long, markets={"asset": ["ETH"], "liquidation_threshold": [0.5, 0.6]}
    )
    assert ("markets", None, None) in refused(from_long, markets=pd.DataFrame(MARKETS).iloc[:0])
    assert ("prices", "price", None) in refused(from_long, prices={})
    assert ("prices", "price", 0) in refused(from_long, prices={("L", "ETH"): None, ("L", "USDC"): 1.0})
    assert ("assets", "price", None) in refused(from_long, prices=None)
    assert ("assets", "price", 1) in refused(from_long, prices={"asset": ["ETH", "USDC"], "price": [1.0, None]})
    assert ("accounts", None, None) in refused(from_long, accounts=7)
    assert ("accounts", "trader", None) in refused(from_long, accounts={"mode": ["cross"]})
    assert ("accounts", "account", 1) in refused(from_long, accounts={"account": ["ann", "ann"]})
    assert ("accounts", "mode", 0) in refused(from_long, accounts={"account": ["ann"], "mode": ["crossed"]})
    assert ("accounts", None, None) in refused(from_long, accounts={"account": ["ann"], "colour": ["red"]})
    assert ("table", None, None) in refused(
        builders.from_table, {name: [] for name in LONG}, **ROLES, amount="units", markets=MARKETS
    )


def test_from_table_names_the_row_of_the_markets_as_given():
    """Markets by asset are repeated on every exchange; the row is the one of the table given."""
    markets = MARKETS | {"liquidation_threshold": [0.8, -0.5]}
    problems = refused(from_long, [("at", 2, "M"), ("at", 3, "M")], markets=markets)
    assert set(problems) == {("markets", "liquidation_threshold", 1)}


def test_from_table_value_needs_a_price_above_zero():
    call = {"amount": None, "value": "units"}
    assert set(refused(from_long, **call, prices=PRICES | {"USDC": 0.0})) == {("table", "what", 1)}
    assert ("prices", "price", 1) in refused(from_long, **call, prices=PRICES | {"USDC": None})
    assert from_long(**call).balances.loc[("ann", "ETH"), "deposited"] == 1.0 / 2000.0


def test_from_table_one_owner_per_account():
    table = LONG | {"acc": ["x", "x", "x", "y"]}
    call = {"amount": "units", "markets": MARKETS, "prices": PRICES, "account": "acc", **ROLES}
    assert ("table", "acc", 2) in refused(builders.from_table, table, **call)


def test_a_trader_called_others_does_not_vanish():
    cells = [("who", 2, "others"), ("who", 3, "others"), ("at", 2, "M"), ("at", 3, "M")]
    with pytest.raises(nc.SchemaError, match="others@"):
        from_long(cells)


@pytest.mark.parametrize("cell", [None, np.nan, -1.0, np.inf])
def test_from_matrix_refuses_bad_cells(cell):
    matrix = [[0.0, 1.0], [cell, 0.0]]
    call = {"rows": "debtor", "external_assets": [1.0, 1.0]}
    assert set(refused(builders.from_matrix, matrix, **call)) == {("matrix", "0", 1)}
    frame = pd.DataFrame(matrix, index=["a", "b"], columns=["a", "b"])
    assert set(refused(builders.from_matrix, frame, **call)) == {("matrix", "'a'", 1)}


def test_from_matrix_lists_every_problem():
    masked = np.ma.array([[0.0, 5.0], [2.0, 1.0]], mask=[[False, True], [False, False]])
    assert set(
        refused(
            builders.from_matrix, masked, rows="debtor", external_assets=[1.0, -1.0], external_liabilities=[None, 0.0]
        )
    ) == {
        ("matrix", "1", 0),
        ("matrix", "1", 1),
        ("traders", "external_assets", 1),
        ("traders", "external_liabilities", 0),
    }
    call = {"rows": "debtor", "external_assets": np.ma.array([1.0, 2.0], mask=[0, 1])}
    assert set(refused(builders.from_matrix, [[0, 1], [1, 0]], **call)) == {("traders", "external_assets", 1)}
    assert ("matrix", "1", 0) in refused(
        builders.from_matrix, [[0, "x"], [1, 0]], rows="debtor", external_assets=[1, 1]
    )
    assert ("matrix", None, None) in refused(
        builders.from_matrix, [[0, 1, 2], [1, 0, 2]], rows="debtor", external_assets=[1, 1]
    )
    assert ("external_assets", None, None) in refused(
        builders.from_matrix, [[0, 1], [1, 0]], rows="debtor", external_assets=[1]
    )
    assert ("labels", None, None) in refused(
        builders.from_matrix, [[0, 1], [1, 0]], rows="debtor", external_assets=[1, 1], labels=["a"]
    )
    assert ("matrix", None, None) in refused(builders.from_matrix, np.zeros((0, 0)), rows="debtor", external_assets=[])


@pytest.mark.parametrize("rows", [None, "", "borrower", 0])
def test_orientation_has_no_default(rows):
    with pytest.raises(ValueError, match="debtor"):
        builders.from_matrix([[0, 1], [1, 0]], rows=rows, external_assets=[1, 1])
    with pytest.raises(TypeError, match="rows"):
        builders.from_matrix([[0, 1], [1, 0]], external_assets=[1, 1])


BANKS = {"bank": ["a", "b", "c"], "total_assets": [10.0, 8.0, 5.0], "equity": [2.0, 3.0, 1.0]}
LOANS = {"lender": ["b", "c"], "borrower": ["a", "a"], "amount": [4.0, 1.0]}


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ([("banks", "equity", 1, None)], ("banks", "equity", 1)),
        ([("banks", "equity", 1, "3")], ("banks", "equity", 1)),
        ([("banks", "total_assets", 2, -5.0)], ("banks", "total_assets", 2)),
        ([("banks", "total_assets", 2, True)], ("banks", "total_assets", 2)),
        ([("banks", "bank", 2, " c")], ("banks", "bank", 2)),
        ([("banks", "bank", 2, None)], ("banks", "bank", 2)),
        ([("banks", "bank", 1, "a")], ("banks", "bank", 1)),
        ([("exposures", "amount", 1, np.nan)], ("exposures", "amount", 1)),
        ([("exposures", "amount", 1, -1.0)], ("exposures", "amount", 1)),
        ([("exposures", "lender", 1, "d")], ("exposures", "lender", 1)),
        ([("exposures", "lender", 1, None)], ("exposures", "lender", 1)),
        ([("exposures", "borrower", 0, "b")], ("exposures", "borrower", 0)),
        ([("banks", "total_assets", 0, 1.0)], ("banks", "external_liabilities", 0)),
        ([("banks", "total_assets", 1, 3.5)], ("banks", "external_assets", 1)),
    ],
)
def test_from_balance_sheets_refuses_bad_cells(cells, expected):
    tables = {"banks": BANKS, "exposures": LOANS}
    for table, column, row, value in cells:
        tables = with_cell(tables, table, column, row, value)
    assert expected in refused(builders.from_balance_sheets, tables["banks"], tables["exposures"])


def test_from_balance_sheets_lists_every_problem():
    banks = with_cell(with_cell({"t": BANKS}, "t", "equity", 0, None), "t", "bank", 2, "c ")["t"]
    loans = with_cell(with_cell({"t": LOANS}, "t", "amount", 0, -1.0), "t", "lender", 1, "zz")["t"]
    held = {"bank": ["a"], "asset": ["X"], "value": [np.nan]}
    assert {
        ("banks", "equity", 0),
        ("banks", "bank", 2),
        ("exposures", "amount", 0),
        ("exposures", "lender", 1),
        ("holdings", "value", 0),
    } <= set(refused(builders.from_balance_sheets, banks, loans, held))


@pytest.mark.parametrize("missing", ["bank", "total_assets", "equity"])
def test_from_balance_sheets_wants_a_sufficient_set(missing):
    banks = {name: values for name, values in BANKS.items() if name != missing}
    assert {table for table, _, _ in refused(builders.from_balance_sheets, banks)} == {"banks"}


def test_from_balance_sheets_refuses_tables_that_are_none():
    assert ("banks", None, None) in refused(builders.from_balance_sheets, 5)
    assert ("banks", None, None) in refused(builders.from_balance_sheets, {name: [] for name in BANKS})
    assert ("exposures", None, None) in refused(builders.from_balance_sheets, BANKS, {name: [] for name in LOANS})
    assert ("exposures", "amount", None) in refused(
        builders.from_balance_sheets, BANKS, {"lender": ["a"], "borrower": ["b"]}
    )
    assert ("banks", None, None) in refused(builders.from_balance_sheets, BANKS | {"equity": [1.0]})


@pytest.mark.parametrize("bad", [0.0, -5.0, np.nan, [10.0, 0.0]])
def test_depth_at_refuses(bad):
    with pytest.raises(ValueError, match="above 0"):
        builders.depth_at(np.asarray(bad))
    with pytest.raises(ValueError, match="impact"):
        builders.depth_at(10.0, impact=1.0)
    with pytest.raises(nc.UnknownLabelError, match="exponential"):
        builders.depth_at(10.0, form="exponentiel")


def test_preset_markets_names_the_nearest():
    with pytest.raises(nc.UnknownLabelError, match="aave_v3_2023_06"):
        builders.preset_markets("aave_v3_2023_6", exchange="x")
    with pytest.raises(nc.UnknownLabelError, match="WETH"):
        builders.preset_markets("aave_v3_2023_06", exchange="x", assets=["wETH "])


@pytest.mark.parametrize(
    ("column", "value", "hint"),
    [
        ("liquidation_threshold", 82.5, "write 0.825 if per cent"),
        ("close_factor", 100.0, "write 1 if per cent"),
        ("liquidation_threshold", 100.0, None),
        ("liquidation_threshold", 820.0, None),
        ("liquidation_threshold", -5.0, None),
        ("price", -5.0, None),
    ],
)
def test_per_cent_where_a_fraction_is_meant_is_guessed(column, value, hint):
    tables = with_cell(lending_tables(), "markets", column, 0, value)
    cure = refused(nc.ExposureNetwork, **tables)["markets", column, 0].cure
    assert hint in cure if hint else "per cent" not in cure


def test_words_are_checked_the_same_in_bulk_and_one_by_one():
    traders = {"trader": ["a", "b", "c"], "policy": ["passive", "pasive", None]}
    bulk = refused(nc.ExposureNetwork, traders=traders)
    mixed = refused(nc.ExposureNetwork, traders={"trader": [*"abcd"], "policy": [*traders["policy"], 5]})
    assert set(bulk) == {("traders", "policy", 1), ("traders", "policy", 2)}
    assert bulk.items() <= mixed.items()
    assert set(mixed) - set(bulk) == {("traders", "policy", 3)}
    assert "'passive'" in bulk["traders", "policy", 1].cure
