"""The command line: what it writes, what it says, how it exits."""

from __future__ import annotations

import pandas as pd
import pytest

import netcontagion as nc
from netcontagion import cli, datasets
from netcontagion.cli import main
from netcontagion.margining._cascade import PRIORITIES

POSITIONS = """\
trader,exchange,asset,side,amount,price
ann,Lend,WETH,collateral,10,2000
ann,Lend,USDC,debt,14000,1
bob,Lend,USDC,collateral,30000,1
bob,Lend,WETH,debt,2,2000
"""
PRESET = ["--preset", "aave_v3_2023_06", "--rulebook", "aave_v3"]


@pytest.fixture
def positions(tmp_path):
    path = tmp_path / "positions.csv"
    path.write_text(POSITIONS)
    return path


def test_demo_prints_the_summary_and_writes_the_map(tmp_path, capsys):
    picture = tmp_path / "map.png"
    assert main(["demo", "--out", str(picture)]) == 0
    said = capsys.readouterr().out
    assert "Cascade  ETH family -30 %" in said
    assert "accounting check" in said
    assert "OK" in said
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert [path.name for path in tmp_path.iterdir()] == ["map.png"]


def test_run_on_a_csv_writes_every_table(positions, tmp_path, capsys):
    out = tmp_path / "result"
    assert main(["run", str(positions), *PRESET, "--shock", "WETH=-0.3", "--out", str(out)]) == 0
    assert "1 liquidated" in capsys.readouterr().out
    written = {path.name for path in out.iterdir()}
    tables = {
        f"{name}.csv"
        for name in ("rounds", "events", "accounts", "traders", "exchanges", "assets", "markets", "losses")
    }
    assert written == tables | {"summary.txt", "contagion_map.png"}
    accounts = pd.read_csv(out / "accounts.csv", index_col="account")
    assert accounts.loc["ann", "liquidated"]
    assert "accounting error" in (out / "summary.txt").read_text()


@pytest.mark.parametrize("priority", PRIORITIES)
def test_run_knows_every_priority(positions, tmp_path, priority):
    out = tmp_path / "out"
    arguments = ["--shock", "WETH=-0.3", "--priority", priority, "--out", str(out)]
    assert main(["run", str(positions), *PRESET, *arguments]) == 0
    assert pd.read_csv(out / "accounts.csv", index_col="account").loc["ann", "liquidated"]


def test_run_on_a_folder_gives_what_the_csv_gives(positions, tmp_path, capsys):
    from netcontagion import builders

    table = pd.read_csv(positions)
    net = builders.from_table(
        table.drop(columns="price"),
        trader="trader",
        exchange="exchange",
        asset="asset",
        side="side",
        amount="amount",
        prices={"WETH": 2000.0, "USDC": 1.0},
        markets=builders.preset_markets("aave_v3_2023_06", exchange="Lend", assets=["WETH", "USDC"]),
        exchanges={"exchange": ["Lend"], "rulebook": ["aave_v3"]},
    )
    folder = net.save(tmp_path / "network")
    shock = ["--shock", "WETH=-0.3"]
    assert main(["run", str(folder), *shock, "--out", str(tmp_path / "one")]) == 0
    assert main(["run", str(positions), *PRESET, *shock, "--out", str(tmp_path / "two")]) == 0
    for name in ("accounts", "events", "losses"):
        assert (tmp_path / "one" / f"{name}.csv").read_text() == (tmp_path / "two" / f"{name}.csv").read_text()


def test_data_list_shows_licence_and_source(capsys):
    assert main(["data", "list"]) == 0
    said = capsys.readouterr().out
    for name in datasets.available()["name"]:
        assert name in said
    assert "GPL-3.0" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "nowhere", "--shock", "ETH=-0.3", "--out", "x"], "does not exist"),
        (["run", "{csv}", *PRESET, "--out", "x"], "no shock given"),
        (["run", "{csv}", *PRESET, "--shock", "WETH=-1.5", "--out", "x"], "-1.5"),
        (["run", "{csv}", *PRESET, "--shock", "WETHH=-0.5", "--out", "x"], "did you mean 'WETH'"),
        (["run", "{csv}", "--shock", "WETH=-0.5", "--out", "x"], "aave_v3_2023_06"),
        (["run", "{csv}", "--preset", "aave_v9", "--shock", "WETH=-0.5", "--out", "x"], "unknown market preset"),
        (["run", "{csv}", *PRESET[:2], "--rulebook", "aavev3", "--shock", "WETH=-0.5", "--out", "x"], "did you mean"),
        (["data", "fetch", "aave"], "unknown data set"),
    ],
)
def test_problems_are_one_message_and_exit_code_1(arguments, words, positions, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([part.format(csv=positions) for part in arguments]) == 1
    heard = capsys.readouterr()
    assert heard.err.startswith("netcontagion: ")
    assert words in heard.err
    assert "Traceback" not in heard.err
    assert not (tmp_path / "x").exists()


def test_every_problem_of_a_csv_is_listed(tmp_path, capsys):
    path = tmp_path / "bad.csv"
    path.write_text(POSITIONS.replace("14000", "").replace("debt,2,", "debts,-2,"))
    assert main(["run", str(path), *PRESET, "--shock", "WETH=-0.3", "--out", str(tmp_path / "x")]) == 1
    heard = capsys.readouterr().err
    assert "row 1" in heard
    assert "'debts'" in heard
    assert "-2" in heard


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (POSITIONS + "cleo,Lend,WETH,collateral,1,17\n", ["row 4", "17", "2000"]),
        (POSITIONS.replace("trader,exchange", "wallet,venue"), ["CSV.trader", "CSV.exchange", "'wallet'"]),
        (POSITIONS.replace(",price", ",depth"), ["CSV.price", "CSV.depth", "unknown"]),
        (POSITIONS.splitlines()[0] + "\n", ["empty"]),
        (POSITIONS.replace(",1\n", ",one\n"), ["'one'"]),
    ],
)
def test_a_csv_at_odds_with_itself_is_refused(rows, words, tmp_path, capsys):
    path = tmp_path / "bad.csv"
    path.write_text(rows)
    assert main(["run", str(path), *PRESET, "--shock", "WETH=-0.3", "--out", str(tmp_path / "x")]) == 1
    heard = capsys.readouterr().err
    for word in words:
        assert word in heard


def test_presets_know_what_an_asset_follows(positions, tmp_path, capsys):
    assert main(["run", str(positions), *PRESET, "--shock", "ETH=-0.3", "--out", str(tmp_path / "x")]) == 0
    assert "moved      WETH" in capsys.readouterr().out


def test_one_asset_is_shocked_once(positions, tmp_path, capsys):
    shocks = ["--shock", "ETH=-0.3", "--shock", "ETH=-0.1"]
    assert main(["run", str(positions), *PRESET, *shocks, "--out", str(tmp_path / "x")]) == 1
    assert "twice" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["run"], ["nonsense"], ["run", "a", "--shock", "ETH", "--out", "b"]])
def test_wrong_usage_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["demo", "--help"], ["data", "--help"]])
def test_help_exits_with_0(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 0
    assert "netcontagion" in capsys.readouterr().out


def numbered(folder):
    from conftest import lending_tables

    tables = lending_tables()
    tables["markets"] |= {"exchange": [12, 12], "asset": [7, 9]}
    tables["balances"] |= {"account": [3, 3, 5, 5], "asset": [7, 9, 7, 9]}
    return str(nc.ExposureNetwork(**tables).save(folder / "net"))


@pytest.mark.parametrize(
    ("shock", "words"),
    [
        (["--shock", "7=-0.3"], "7 family -30 %"),
        (["--default", "3", "--depth", "0.5"], "default of 3"),
        (["--outage", "12", "--shock", "7=-0.1"], "outage of 12"),
        (["--default", "others@12", "--shock", "7=-0.1"], "default of others@12"),
    ],
)
def test_whole_numbers_name_nodes_too(shock, words, tmp_path, capsys):
    assert main(["run", numbered(tmp_path), *shock, "--out", str(tmp_path / "x")]) == 0
    assert words in capsys.readouterr().out


@pytest.mark.parametrize("shock", [["--shock", "8=-0.3"], ["--default", "33"], ["--outage", "+12"]])
def test_numbers_that_name_nothing_are_told(shock, tmp_path, capsys):
    assert main(["run", numbered(tmp_path), *shock, "--out", str(tmp_path / "x")]) == 1
    assert "unknown" in capsys.readouterr().err


def test_a_text_comes_before_the_number_written_so():
    assert cli._label("7", ["7", 7]) == "7"
    assert cli._label("7", [7, 8]) == 7
    assert cli._label("07", [7, 8]) == "07"
