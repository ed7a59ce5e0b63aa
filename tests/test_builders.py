"""Builders: one book, whatever form it comes in; who owes whom is never guessed."""

from __future__ import annotations

import igraph as ig
import networkx as nx
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from conftest import assert_same, refused

import netcontagion as nc
from netcontagion import builders
from netcontagion.clearing import eisenberg_noe
from netcontagion.network import market_presets

MARKETS = pd.DataFrame(
    {"liquidation_threshold": [0.8, 0.85], "liquidation_bonus": [0.05, 0.05], "close_factor": [0.5, 0.5]},
    index=pd.Index(["ETH", "USDC"], name="asset"),
)
PRICES = {"ETH": 2000.0, "USDC": 1.0}
LONG = pd.DataFrame(
    [
        ("ann", "L", "ETH", "collateral", 1.0),
        ("ann", "L", "USDC", "debt", 1000.0),
        ("bob", "M", "ETH", "deposited", 2.0),
        ("bob", "M", "USDC", "borrowed", 10.0),
        ("ann", "M", "USDC", "supplied", 7.0),
    ],
    columns=["who", "at", "what", "side", "units"],
)
ROLES = {"trader": "who", "exchange": "at", "asset": "what"}


def from_long(table=LONG, **changes):
    call = {"side": "side", "amount": "units", "markets": MARKETS, "prices": PRICES, **ROLES, **changes}
    return builders.from_table(table, **call)


# from_table -------------------------------------------------------------------------------------------------------


def test_a_long_table():
    net = from_long()
    assert net.labels("accounts").tolist() == ["ann@L", "ann@M", "bob@M", "others@L", "others@M"]
    assert net.balances.loc[("ann@L", "ETH")].tolist() == [1.0, 0.0]
    assert net.balances.loc[("bob@M", "USDC")].tolist() == [0.0, 10.0]
    assert net.health()["ann@L"] == 1.6
    assert net.markets.index.tolist() == [("L", "ETH"), ("L", "USDC"), ("M", "ETH"), ("M", "USDC")]


def test_one_exchange_names_accounts_after_traders():
    assert from_long(LONG[LONG["at"] == "L"]).labels("accounts").tolist() == ["ann", "others@L"]


def test_row_order_and_kind_of_table_do_not_matter():
    net = from_long()
    assert_same(from_long(LONG.sample(frac=1, random_state=3)), net)
    assert_same(from_long(LONG.to_dict("list")), net)
    assert_same(from_long(LONG.astype(dict.fromkeys(("who", "at", "what", "side"), "category"))), net)
    polars = pytest.importorskip("polars")
    assert_same(from_long(polars.DataFrame(LONG.to_dict("list"))), net)


def test_categories_out_of_use_add_nothing():
    table = LONG.astype({"at": "category", "who": "category"})
    assert_same(from_long(table[table["at"] == "L"]), from_long(LONG[LONG["at"] == "L"]))


def test_a_wide_table_is_the_same_book():
    long = LONG[LONG["who"] == "ann"]
    wide = pd.DataFrame(
        {
            "who": ["ann"] * 3,
            "at": ["L", "L", "M"],
            "what": ["ETH", "USDC", "USDC"],
            "plus": [1.0, 0.0, 7.0],
            "minus": [0.0, 1000.0, 0.0],
        }
    )
    assert_same(from_long(wide, side=None, collateral="plus", debt="minus", amount=True), from_long(long))
    money = wide.assign(plus=[2000.0, 0.0, 7.0])
    call = {"side": None, "collateral": "plus", "debt": "minus", "amount": None, "value": True}
    assert_same(from_long(money, **call), from_long(long))


def test_value_is_money():
    money = LONG.assign(money=LONG["units"] * LONG["what"].map(PRICES))
    assert_same(from_long(money, amount=None, value="money"), from_long())
    marks = {("L", "ETH"): 1000.0, ("M", "ETH"): 500.0, ("L", "USDC"): 1.0, ("M", "USDC"): 1.0}
    net = from_long(money, amount=None, value="money", prices=marks)
    assert net.balances.loc[("bob@M", "ETH"), "deposited"] == 4000.0 / 500.0


def test_prices_in_every_form():
    net = from_long()
    assert_same(from_long(prices=pd.Series(PRICES)), net)
    assert_same(from_long(prices=pd.DataFrame({"price": PRICES})), net)
    assert_same(from_long(prices={"asset": list(PRICES), "price": list(PRICES.values())}), net)
    assert_same(from_long(prices=None, markets=MARKETS.assign(price=[2000.0, 1.0])).replace(markets=net.markets), net)
    rich = pd.DataFrame(
        {"price": [2000.0, 1.0], "kind": ["token", "stable"], "depth": [5.0, np.nan]}, index=list(PRICES)
    )
    assert from_long(prices=rich).assets["depth"].tolist()[0] == 5.0


def test_marks_by_exchange():
    marks = {("L", "ETH"): 2000.0, ("M", "ETH"): 1000.0, ("L", "USDC"): 1.0, ("M", "USDC"): 1.0}
    net = from_long(prices=marks)
    assert net.assets["price"].to_dict() == {"ETH": 1500.0, "USDC": 1.0}
    assert net.markets["price"].tolist() == [2000.0, 1.0, 1000.0, 1.0]
    assert net.health()["bob@M"] == 2 * 1000 * 0.8 / 10
    given = MARKETS.assign(price=[1900.0, 1.0])
    kept = from_long(markets=given, prices={("L", "ETH"): 2000.0, ("L", "USDC"): 1.0})
    assert kept.markets["price"].tolist() == [2000.0, 1.0, 1900.0, 1.0], "a mark given in markets is kept"


def test_markets_by_exchange_and_asset():
    markets = pd.concat({"L": MARKETS, "M": MARKETS * 0.5}, names=["exchange"])
    net = from_long(markets=markets)
    assert net.markets.loc[("M", "ETH"), "liquidation_threshold"] == 0.4
    assert_same(from_long(markets=markets.rename_axis([None, None])), net)
    assert_same(from_long(markets=markets.reset_index()), net)


def test_what_is_known_of_accounts():
    by_label = from_long(accounts={"account": ["bob@M"], "liquidation_threshold": [0.9], "mode": ["isolated"]})
    assert by_label.accounts.loc["bob@M", ["liquidation_threshold", "mode"]].tolist() == [0.9, "isolated"]
    assert by_label.accounts["mode"].tolist() == ["cross", "cross", "isolated", "cross", "cross"]
    by_ends = pd.DataFrame({"trader": ["bob"], "exchange": ["M"], "liquidation_threshold": [0.9], "mode": ["isolated"]})
    assert_same(from_long(accounts=by_ends), by_label)
    named = pd.DataFrame({"liquidation_threshold": [0.9], "mode": ["isolated"]}, index=["bob@M"])
    assert_same(from_long(accounts=named), by_label)
    assert by_label.health()["bob@M"] == 2 * 2000 * 0.9 / 10
    own = from_long(LONG.assign(acc=["x", "x", "y", "y", "z"]), account="acc")
    assert own.labels("accounts").tolist()[:3] == ["x", "y", "z"]
    assert own.accounts["trader"].tolist()[:3] == ["ann", "bob", "ann"]


def test_integer_labels():
    net = from_long(LONG.assign(who=[1, 1, 2, 2, 1]))
    assert net.labels("traders").tolist() == [1, 2, "others@L", "others@M"]
    assert net.labels("accounts").tolist()[0] == "1@L"


def test_the_table_of_the_caller_stays_as_it_was():
    before, markets = LONG.copy(deep=True), MARKETS.to_dict("list") | {"asset": ["ETH", "USDC"]}
    kept = {name: list(values) for name, values in markets.items()}
    from_long(markets=markets, prices={("L", "ETH"): 2000.0, ("L", "USDC"): 1.0, ("M", "USDC"): 1.0, ("M", "ETH"): 1.0})
    assert LONG.equals(before)
    assert markets == kept


# from_matrix ------------------------------------------------------------------------------------------------------

# Node 0 owes node 1 ten and has four; node 1 owes node 2 ten and has three; node 2 owes nothing.
CHAIN = np.array([[0.0, 10.0, 0.0], [0.0, 0.0, 10.0], [0.0, 0.0, 0.0]])
ASSETS = [4.0, 3.0, 1.0]
PAYMENTS = [4.0, 7.0, 0.0]
NAMES = ["a", "b", "c"]


def payments(net):
    order = net.exposures("traders", "traders")
    result = eisenberg_noe(order.matrix, net.traders["external_assets"].to_numpy())
    return dict(zip(order.rows, result.payments.tolist(), strict=True))


def loans(forward):
    pairs = [("a", "b", 6.0), ("b", "c", 10.0), ("a", "b", 4.0)]
    return pairs if forward else [(creditor, debtor, amount) for debtor, creditor, amount in pairs]


def foreign_networkx(forward):
    graph = nx.MultiDiGraph()
    graph.add_nodes_from((name, {"external_assets": value}) for name, value in zip(NAMES, ASSETS, strict=True))
    graph.add_weighted_edges_from(loans(forward))
    return graph


def foreign_igraph(forward):
    graph = ig.Graph(
        n=3, edges=[(NAMES.index(tail), NAMES.index(head)) for tail, head, _ in loans(forward)], directed=True
    )
    graph.vs["name"], graph.vs["external_assets"] = NAMES, ASSETS
    graph.es["weight"] = [weight for _, _, weight in loans(forward)]
    return graph


def balance_sheets():
    exposures = {
        "borrower": [d for d, _, _ in loans(True)],
        "lender": [c for _, c, _ in loans(True)],
        "amount": [a for _, _, a in loans(True)],
    }
    return builders.from_balance_sheets(
        {"bank": NAMES, "external_assets": ASSETS, "external_liabilities": [0.0] * 3}, exposures
    )


ENTRIES = {
    "matrix of debtors": lambda: builders.from_matrix(CHAIN, rows="debtor", external_assets=ASSETS, labels=NAMES),
    "matrix of creditors": lambda: builders.from_matrix(CHAIN.T, rows="creditor", external_assets=ASSETS, labels=NAMES),
    "balance sheets": balance_sheets,
    "networkx": lambda: builders.from_networkx(foreign_networkx(True), edges="debtor_to_creditor"),
    "networkx, turned": lambda: builders.from_networkx(foreign_networkx(False), edges="creditor_to_debtor"),
    "igraph": lambda: builders.from_igraph(foreign_igraph(True), edges="debtor_to_creditor"),
    "igraph, turned": lambda: builders.from_igraph(foreign_igraph(False), edges="creditor_to_debtor"),
    "liabilities": lambda: nc.ExposureNetwork(
        traders={"trader": NAMES, "external_assets": ASSETS},
        liabilities={"debtor": ["a", "b"], "creditor": ["b", "c"], "amount": [10.0, 10.0]},
    ),
}


@pytest.mark.parametrize("entry", ENTRIES)
def test_who_owes_whom_at_every_entry(entry):
    net = ENTRIES[entry]()
    assert payments(net) == dict(zip(NAMES, PAYMENTS, strict=True))
    assert (net.exposures("traders", "traders").matrix.toarray() == CHAIN).all()


def test_the_chain_tells_a_transposed_network():
    turned = builders.from_matrix(CHAIN, rows="creditor", external_assets=ASSETS, labels=NAMES)
    assert payments(turned) == {"a": 0.0, "b": 4.0, "c": 1.0}
    assert payments(builders.from_networkx(foreign_networkx(True), edges="creditor_to_debtor")) == payments(turned)


FORMS = [
    np.array,
    np.ndarray.tolist,
    np.ma.array,
    scipy.sparse.csr_array,
    scipy.sparse.csc_matrix,
    scipy.sparse.coo_array,
]


@pytest.mark.parametrize("form", FORMS)
def test_matrices_of_any_form(form):
    net = builders.from_matrix(form(CHAIN), rows="debtor", external_assets=ASSETS, external_liabilities=[1, 2, 3])
    assert net.labels("traders").tolist() == [0, 1, 2]
    assert (net.exposures("traders", "traders").matrix.toarray() == CHAIN).all()
    assert net.traders["external_liabilities"].tolist() == [1.0, 2.0, 3.0]


def test_a_frame_is_joined_by_label():
    frame = pd.DataFrame(CHAIN, index=NAMES, columns=NAMES)[["c", "a", "b"]]
    net = builders.from_matrix(frame, rows="debtor", external_assets=pd.Series(ASSETS, NAMES)[["b", "c", "a"]])
    assert payments(net) == dict(zip(NAMES, PAYMENTS, strict=True))
    call = {"rows": "debtor", "external_assets": ASSETS}
    for bad in (
        frame[["c", "a"]],
        pd.DataFrame(CHAIN, index=NAMES, columns=["a", "b", "x"]),
        pd.DataFrame(CHAIN, index=["a", "a", "b"], columns=["a", "a", "b"]),
    ):
        assert ("matrix", None, None) in refused(builders.from_matrix, bad, **call)
    assert ("matrix", None, None) in refused(builders.from_matrix, frame, **call, labels=["x", "y", "z"])
    wrong = pd.Series(ASSETS, ["a", "b", "x"])
    assert ("external_assets", None, None) in refused(builders.from_matrix, frame, rows="debtor", external_assets=wrong)


def test_sparse_duplicates_are_summed_and_the_callers_matrix_is_left_alone():
    matrix = scipy.sparse.coo_array(([6.0, 4.0, 10.0, 0.0], ([0, 0, 1, 2], [1, 1, 2, 2])), shape=(3, 3))
    net = builders.from_matrix(matrix, rows="debtor", external_assets=ASSETS)
    assert (net.exposures("traders", "traders").matrix.toarray() == CHAIN).all()
    assert matrix.nnz == 4


def test_a_matrix_of_zeros_is_a_network_without_debts():
    assert builders.from_matrix(np.zeros((2, 2)), rows="debtor", external_assets=[1, 2]).liabilities.empty


# from_balance_sheets ----------------------------------------------------------------------------------------------

SHEET = {
    "total_assets": [16.0, 20.0],
    "equity": [3.0, 5.0],
    "external_assets": [12.0, 15.0],
    "external_liabilities": [8.0, 11.0],
}
EXPOSURES = {"lender": ["a", "b", "a"], "borrower": ["b", "a", "b"], "amount": [1.0, 5.0, 3.0]}


@pytest.mark.parametrize("assets", [["total_assets"], ["external_assets"], ["total_assets", "external_assets"]])
@pytest.mark.parametrize("debt", [["equity"], ["external_liabilities"], ["equity", "external_liabilities"]])
def test_any_sufficient_set_gives_the_same_network(assets, debt):
    banks = {"bank": ["a", "b"]} | {name: SHEET[name] for name in [*assets, *debt]}
    net = builders.from_balance_sheets(banks, EXPOSURES)
    assert net.traders["external_assets"].tolist() == [12.0, 15.0]
    assert net.traders["external_liabilities"].tolist() == [8.0, 11.0]
    assert net.liabilities["amount"].to_dict() == {("a", "b"): 5.0, ("b", "a"): 4.0}
    assert net.traders["kind"].tolist() == ["bank", "bank"]


@pytest.mark.parametrize("name", ["total_assets", "equity"])
def test_what_is_given_twice_must_agree(name):
    banks = {"bank": ["a", "b"], **SHEET, name: [SHEET[name][0], SHEET[name][1] + 0.01]}
    assert ("banks", name, 1) in refused(builders.from_balance_sheets, banks, EXPOSURES)
    banks[name] = [value * (1 + 1e-8) for value in SHEET[name]]
    assert builders.from_balance_sheets(banks, EXPOSURES)


def test_marketable_assets_are_holdings_of_price_one():
    held = {"bank": ["a", "a", "b"], "asset": ["gov", "gov", "corp"], "value": [1.0, 2.0, 5.0]}
    net = builders.from_balance_sheets(
        {"bank": ["a", "b"], "total_assets": [16.0, 20.0], "equity": [3.0, 5.0]}, EXPOSURES, held
    )
    assert net.traders["external_assets"].tolist() == [9.0, 10.0]
    assert net.holdings["units"].to_dict() == {("a", "gov"): 3.0, ("b", "corp"): 5.0}
    assert net.assets["price"].tolist() == [1.0, 1.0]


def test_balance_sheets_from_indexed_and_categorical_tables():
    banks = pd.DataFrame({name: SHEET[name] for name in ("total_assets", "equity")}, index=["a", "b"])
    net = builders.from_balance_sheets(
        banks, pd.DataFrame(EXPOSURES).astype({"lender": "category", "borrower": "category"})
    )
    assert_same(net, builders.from_balance_sheets(banks.rename_axis("bank"), EXPOSURES))
    assert builders.from_balance_sheets(
        {"bank": [2, 1], "total_assets": [9.0, 9.0], "equity": [1.0, -1.0]},
        {"lender": [1], "borrower": [2], "amount": [4.0]},
    ).labels("traders").tolist() == [1, 2]


# depth and presets ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("impact", [0.001, 0.01, 0.5])
def test_depth_at_gives_back_the_quote(impact):
    depth = builders.depth_at(1000.0, impact=impact)
    assert np.exp(-1000.0 / depth) == pytest.approx(1 - impact, rel=1e-12)
    assert builders.depth_at(np.array([1.0, 1000.0]), impact=impact)[1] == depth


@pytest.mark.parametrize("name", market_presets())
def test_presets_are_dated_tables_of_markets(name):
    table = builders.preset_markets(name, exchange="Aave")
    assert table.index.names == ["exchange", "asset"]
    assert table.attrs["preset"] == name
    assert table.attrs["date"]
    assert table.attrs["source"]
    known = table.dropna()
    assert (known["liquidation_threshold"] * (1 + known["liquidation_bonus"]) < 1).all()
    assert (known["loan_to_value"] <= known["liquidation_threshold"]).all()
    some = builders.preset_markets(name, exchange="Aave", assets=["USDC"])
    assert some.index.tolist() == [("Aave", "USDC")]


def test_a_preset_completes_a_book():
    markets = builders.preset_markets("aave_v3_2023_06", exchange="L", assets=["WETH", "USDC"])
    table = LONG[LONG["at"] == "L"].replace({"what": {"ETH": "WETH"}})
    net = from_long(table, markets=markets.assign(close_factor=0.5), prices={"WETH": 2000.0, "USDC": 1.0})
    assert net.health()["ann"] > 1


def test_accounts_sort_by_their_own_names_where_one_trader_begins_like_another():
    table = LONG.replace({"who": {"bob": "ann!"}})  # "ann!@M" sorts before "ann@L", though "ann" sorts before "ann!"
    net = from_long(table)
    assert net.labels("accounts").tolist() == ["ann!@M", "ann@L", "ann@M", "others@L", "others@M"]
    assert net.accounts["trader"].tolist()[:3] == ["ann!", "ann", "ann"]
    assert net.balances.loc[("ann!@M", "ETH"), "deposited"] == 2.0
    tables = {name: getattr(net, name).reset_index() for name in ("accounts", "balances", "markets", "assets")}
    assert_same(nc.ExposureNetwork(**tables), net)


def test_two_accounts_that_would_bear_one_name_are_refused():
    table = pd.DataFrame({"who": ["a@L", "a"], "at": ["M", "L@M"], "what": "ETH", "side": "collateral", "units": 1.0})
    assert ("accounts", "account", 1) in refused(from_long, table)


def test_numbered_traders_sort_as_numbers():
    net = from_long(LONG.replace({"who": {"ann": 10, "bob": 9}}).loc[lambda t: t["at"] == "M"])
    assert net.labels("traders").tolist() == [9, 10, "others@M"]
    assert net.balances.loc[(9, "ETH"), "deposited"] == 2.0


def test_a_trader_of_a_reserved_name_is_refused_where_it_stands():
    for table in (LONG, LONG[LONG["at"] == "M"]):
        found = refused(from_long, table.replace({"who": {"bob": "others@desk"}}))
        assert {(name, column) for name, column, _ in found} == {("table", "who")}


def test_rows_that_the_network_added_are_derived_anew():
    net = from_long()
    held = net.balances.reset_index().merge(net.accounts[["trader", "exchange"]].reset_index(), on="account")
    roles = {"trader": "trader", "exchange": "exchange", "asset": "asset"}
    again = builders.from_table(
        held, **roles, collateral="deposited", debt="borrowed", amount=True, markets=MARKETS, prices=PRICES
    )
    assert_same(again, net)


def test_columns_of_balance_sheets_that_nobody_would_read_are_refused():
    banks = {"bank": ["a", "b"], "total_assets": [9.0, 9.0], "equity": [2.0, 2.0], "external_asset": [3.0, 9.0]}
    owed = {"lender": ["b"], "borrower": ["a"], "amount": [4.0], "colour": ["red"]}
    held = {"bank": ["a"], "asset": ["X"], "value": [2.0], "amount": [5.0]}
    with pytest.raises(nc.SchemaError) as caught:
        builders.from_balance_sheets(banks, owed, held)
    said = {(problem.table, problem.value): problem.cure for problem in caught.value.problems}
    assert said == {
        ("banks", "unknown column 'external_asset'"): "rename it to 'external_assets'",
        ("exposures", "unknown column 'colour'"): "leave it out",
        ("holdings", "unknown column 'amount'"): "leave it out",
    }
    frame = pd.DataFrame({name: values for name, values in banks.items() if name != "external_asset"}, index=[5, 3])
    assert len(builders.from_balance_sheets(frame).traders) == 2, "row numbers are no column"
