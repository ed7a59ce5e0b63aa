"""A network as a folder: written all or nothing, read back exactly."""

from __future__ import annotations

import csv
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import assert_same, full_tables, lending_tables
from hypothesis import given, settings
from hypothesis import strategies as st

import netcontagion as nc
from netcontagion.network import schema

common = settings(max_examples=40, deadline=None, derandomize=True)
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6).filter(
    lambda text: text == text.strip() and not text.startswith("others@")
)
odd = st.sampled_from(
    ["NA", "nan", "007", "1e5", "None", "True", "a,b", 'q"q', "a\nb", "a\rb", "trader:a", "exchange:NA", "-1", "#x"]
)
floats = st.floats(0, allow_infinity=False)


def round_trip(net, folder):
    twin = nc.load(net.save(folder))
    assert_same(net, twin)
    return twin


def test_every_table_comes_back_exactly(full, tmp_path):
    folder = tmp_path / "deep" / "net"
    round_trip(full, folder)
    assert {path.name for path in folder.iterdir()} == {f"{name}.csv" for name in schema()} | {"network.json"}
    assert "others@" not in "".join(path.read_text(encoding="utf-8") for path in folder.iterdir())
    assert [path.name for path in folder.parent.iterdir()] == ["net"]


def test_saving_again_writes_the_same_bytes(full, tmp_path):
    full.save(tmp_path / "a")
    nc.load(tmp_path / "a").save(tmp_path / "b")
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


@given(st.lists(st.one_of(odd, texts), min_size=1, max_size=5, unique=True), st.data())
@common
def test_labels_and_floats_come_back_exactly(tmp_path_factory, labels, data):
    exchanges = data.draw(st.lists(st.one_of(st.sampled_from(labels), odd), max_size=3, unique=True))
    draw = [data.draw(floats) for _ in labels]
    nodes = [("trader", label) for label in labels] + [("exchange", label) for label in exchanges]
    owed = data.draw(st.lists(st.tuples(st.sampled_from(nodes), st.sampled_from(nodes)), unique=True, max_size=5))
    owed = [(debtor, creditor) for debtor, creditor in owed if debtor != creditor]
    debts = {"debtor": [d for d, _ in owed], "creditor": [c for _, c in owed], "amount": [0.1] * len(owed)}
    net = nc.ExposureNetwork(
        traders={"trader": labels, "external_assets": draw, "kind": labels},
        exchanges={"exchange": exchanges, "equity": [5e-324] * len(exchanges)} if exchanges else None,
        assets={"asset": labels, "price": draw, "underlying": [None, *("root" for _ in labels[1:])]},
        wallets={"trader": labels, "asset": labels, "units": draw},
        liabilities=debts if owed else None,
        numeraire=labels[0],
    )
    round_trip(net, tmp_path_factory.mktemp("net") / "x")


def test_integer_labels_come_back_as_integers(tmp_path):
    tables = lending_tables(
        assets={"asset": [7, 9], "price": [2000.0, 1.0], "underlying": [9, None], "settlement": [None, 9]}
    )
    tables["balances"] |= {"account": [12, 12, 7, 7], "asset": [7, 9, 7, 9]}
    tables["markets"] |= {"asset": [7, 9], "exchange": [12, 12]}
    tables["liabilities"] = {"debtor": [("trader", 12), 7], "creditor": [7, ("exchange", 12)], "amount": [1.0, 2.0]}
    net = nc.ExposureNetwork(**tables)
    assert net.labels("traders").tolist() == [7, 12, "others@12"]
    round_trip(net, tmp_path / "net")


def test_a_number_and_its_text_stay_apart(tmp_path):
    tables = {"traders": {"trader": [1, 2]}, "exchanges": {"exchange": ["1", "x"]}}
    tables["liabilities"] = {"debtor": [1, 2], "creditor": ["1", "1"], "amount": [1.0, 2.0]}
    twin = round_trip(nc.ExposureNetwork(**tables), tmp_path / "net")
    assert twin.liabilities.index.tolist() == [(1, "1"), (2, "1")]


def test_what_others_holds_comes_back(tmp_path):
    tables = lending_tables(wallets={"trader": ["others@Lend"], "asset": ["ETH"], "units": [3.0]})
    tables["liabilities"] = {"debtor": ["Lend"], "creditor": ["others@Lend"], "amount": [1.5]}
    round_trip(nc.ExposureNetwork(**tables), tmp_path / "net")


def test_complete_and_numeraire_come_back(tmp_path):
    round_trip(nc.ExposureNetwork(traders={"trader": ["a"]}, numeraire="EUR m", complete=True), tmp_path / "net")


# all or nothing ---------------------------------------------------------------------------------------------------


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_saving_over_a_network_exchanges_it(full, tmp_path):
    folder = full.save(tmp_path / "net")
    banks = nc.ExposureNetwork(traders={"trader": ["a"]})
    round_trip(banks, folder)
    assert {path.name for path in folder.iterdir()} == {"traders.csv", "network.json"}
    assert [path.name for path in tmp_path.iterdir()] == ["net"]


@pytest.mark.parametrize("broken", ["table", "meta", "exchange"])
def test_a_failing_write_leaves_everything_as_it_was(full, tmp_path, monkeypatch, broken):
    folder = nc.ExposureNetwork(traders={"trader": ["a"]}).save(tmp_path / "net")
    before = contents(tmp_path)
    fail = OSError("disk full")

    def boom(*_args, **_kwargs):
        raise fail

    if broken == "table":
        monkeypatch.setattr(Path, "open", boom)
    elif broken == "meta":
        monkeypatch.setattr(Path, "write_text", boom)
    else:
        rename = Path.replace
        monkeypatch.setattr(
            Path,
            "replace",
            lambda path, to: boom() if Path(to) == folder and "-old-" not in path.name else rename(path, to),
        )
    with pytest.raises(OSError, match="disk full"):
        full.save(folder)
    with pytest.raises(OSError, match="disk full"):
        full.save(tmp_path / "net") if broken == "exchange" else full.save(tmp_path / "new")
    monkeypatch.undo()
    assert contents(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["net"]


def test_a_folder_of_something_else_is_left_alone(full, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work", encoding="utf-8")
    with pytest.raises(nc.ContagionError, match=r"thesis\.tex"):
        full.save(tmp_path)
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(nc.ContagionError, match="is a file"):
        full.save(tmp_path / "file")
    assert {path.name for path in tmp_path.iterdir()} == {"thesis.tex", "file"}


def test_the_folder_follows_the_umask(full, tmp_path):
    old = os.umask(0o027)
    try:
        assert full.save(tmp_path / "net").stat().st_mode & 0o777 == 0o750
    finally:
        os.umask(old)


# made by hand -----------------------------------------------------------------------------------------------------


def write(folder, **tables):
    for name, text in tables.items():
        (folder / name.replace("__", ".")).write_text(text, encoding="utf-8")


def test_a_folder_made_by_hand(tmp_path):
    write(
        tmp_path,
        traders__csv="\ufefftrader,external_assets\n007,4\nNA,3\n\nX,0\n",
        exchanges__csv="exchange\nX\n",
        liabilities__csv="debtor,creditor,amount\n007,NA,10\nNA,trader:X,10\nexchange:X,NA,1\n",
    )
    net = nc.load(tmp_path)
    assert net.labels("traders").tolist() == ["007", "NA", "X"]
    assert net.numeraire == "USD"
    assert net.exposures("traders", "traders").matrix.toarray().tolist() == [[0, 10, 0], [0, 0, 10], [0, 0, 0]]
    assert net.liabilities.index.tolist()[2] == (("exchange", "X"), "NA")


def test_bad_cells_of_a_file_are_named_like_any_other(tmp_path):
    write(
        tmp_path,
        assets__csv="asset,price\nA,1\nB,\nC,x\nD,-1\nE, 2\n",
        exchanges__csv="exchange,recourse\nX,yes\nY,\n",
        traders__csv="trader\na\n a\n",
        wallets__csv="trader,asset,units\na,A,\n",
    )
    with pytest.raises(nc.SchemaError) as caught:
        nc.load(tmp_path)
    assert {(p.table, p.column, p.row) for p in caught.value.problems} == {
        ("assets", "price", 1),
        ("assets", "price", 2),
        ("assets", "price", 3),
        ("exchanges", "recourse", 0),
        ("exchanges", "recourse", 1),
        ("traders", "trader", 1),
        ("wallets", "units", 0),
    }


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "no table"),
        ({"traders__csv": ""}, r"traders"),
        ({"traders__csv": "trader,kind\na\n"}, r"traders\.csv, row 0: 1 cells under 2"),
        ({"traders__csv": "trader,kind\na,b,c\n"}, r"traders\.csv, row 0: 3 cells under 2"),
        ({"traders__csv": "trader,trader\na,b\n"}, "twice"),
        ({"traders__csv": "trader\n"}, "empty"),
        ({"traders__csv": 'trader\n"a\n'}, "cannot be read"),
        ({"traders__csv": "trader\na\n", "network__json": "{"}, r"network\.json cannot be read"),
        ({"traders__csv": "trader\na\n", "network__json": "[]"}, "format"),
        ({"traders__csv": "trader\na\n", "network__json": '{"format": 99}'}, "format"),
    ],
)
def test_folders_that_cannot_be_read(tmp_path, files, words):
    write(tmp_path, **files)
    with pytest.raises(nc.ContagionError, match=words):
        nc.load(tmp_path)


def test_what_is_no_folder_is_refused(tmp_path):
    with pytest.raises(nc.ContagionError, match="not a folder"):
        nc.load(tmp_path / "missing")
    (tmp_path / "traders.csv").write_bytes(b"trader\n\xff\xfe\n")
    with pytest.raises(nc.ContagionError, match="cannot be read"):
        nc.load(tmp_path)


def test_health_survives_to_the_last_bit(tmp_path):
    net = nc.ExposureNetwork(**full_tables())
    assert np.array_equal(net.health(), nc.load(net.save(tmp_path / "net")).health())


def test_the_file_is_what_pandas_would_write(full, tmp_path):
    folder = full.save(tmp_path / "net")
    for name in ("traders", "exchanges", "assets", "markets", "tiers", "wallets", "holdings"):
        table = getattr(full, name).reset_index()
        table = table[[not str(label).startswith("others@") for label in table.iloc[:, 0]]]
        text = table.to_csv(index=False, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
        assert (folder / f"{name}.csv").read_text(encoding="utf-8") == text


def python_calls(work):
    """Count calls of Python functions: a machine under load makes as many as an idle one."""
    calls = 0

    def count(_frame, event, _argument):
        nonlocal calls
        calls += event == "call"

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(before)
    return calls


def test_saving_and_loading_do_not_look_at_cells_one_by_one(tmp_path):
    size = 5_000
    names = [f"bank-{number:05d}" for number in range(size)]
    net = nc.ExposureNetwork(traders={"trader": names, "external_assets": np.arange(size) / 7})
    net.check()
    assert python_calls(lambda: net.save(tmp_path / "net")) < size
    assert python_calls(lambda: nc.load(tmp_path / "net")) < 4 * size, "there are six cells in a row"
    assert nc.load(tmp_path / "net").data_hash == net.data_hash
