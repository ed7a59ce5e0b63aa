"""``netcontagion sweep``: what it runs, what it writes, what it refuses before any work."""

from __future__ import annotations

import functools
from types import SimpleNamespace

import pandas as pd
import pytest

import netcontagion as nc
from netcontagion.cli import main

FILE = """
[sweep]
network = "market"

[grid]
price = {ETH = [-0.1, -0.2]}
depth = [1.0, 0.5]
family = true
"""


@pytest.fixture
def calls(monkeypatch):
    """Calls of nc.sweep, which does nothing but write them down."""
    made = []

    def sweep(nets, shocks, **options):
        (name, net), *others = nets.items()
        assert not others
        made.append(SimpleNamespace(name=name, net=net, shocks=shocks, **options))
        return SimpleNamespace(table=shocks.parameters, nodes=pd.DataFrame({"expected_loss": [1.0]}))

    monkeypatch.setattr(nc, "sweep", sweep, raising=False)
    return made


@pytest.fixture
def sweep_of(tmp_path):
    """Write a file of scenarios and run the command on it, with its result beside it."""

    def run(text=FILE, *arguments):
        file = tmp_path / "scenarios.toml"
        file.write_text(text)
        return main(["sweep", str(file), "--out", str(tmp_path / "result"), *arguments])

    return run


def test_a_file_is_swept_and_written(calls, sweep_of, tmp_path, capsys):
    assert sweep_of() == 0
    (call,) = calls
    assert call.net.data_hash == nc.datasets.load("market").data_hash
    assert call.shocks == nc.scenarios.grid(price={"ETH": [-0.1, -0.2]}, depth=[1.0, 0.5], family=True)
    assert call.run is nc.cascade
    assert (call.outputs, call.seed, call.n_jobs) == (None, None, None)
    result = tmp_path / "result"
    assert call.checkpoint == result / "checkpoint"
    table = pd.read_csv(result / "table.csv", index_col="scenario")
    assert table["depth"].tolist() == [1.0, 0.5] * 2
    assert {path.name for path in result.iterdir()} == {"table.csv", "nodes.csv", "summary.txt"}
    assert (result / "summary.txt").read_text().strip() in capsys.readouterr().out


def test_a_sweep_is_taken_up_where_it_was_and_only_for_the_same_file(sweep_of, tmp_path, capsys):
    text = FILE.replace("[grid]", "seed = 1\n[grid]").replace("depth = [1.0, 0.5]", "depth = [1.0]")
    assert sweep_of(text) == 0
    result = tmp_path / "result"
    tables = {name: (result / name).read_bytes() for name in ("table.csv", "nodes.csv", "summary.txt")}
    table = pd.read_csv(result / "table.csv", index_col=["network", "scenario"])
    assert table.index.tolist() == [("market", 0), ("market", 1)]
    assert table["error"].isna().all()
    assert (table["loss"] > 0).all()
    parts = {path.name: path.stat().st_mtime_ns for path in (result / "checkpoint").iterdir()}
    (result / "table.csv").unlink()
    assert sweep_of(text) == 0
    assert {name: (result / name).read_bytes() for name in tables} == tables
    assert {path.name: path.stat().st_mtime_ns for path in (result / "checkpoint").iterdir()} == parts
    capsys.readouterr()
    assert sweep_of(text.replace("-0.2", "-0.3")) == 1
    assert "made from other inputs (shocks differ)" in capsys.readouterr().err
    assert (result / "table.csv").read_bytes() == tables["table.csv"]


def test_settings_reach_the_sweep(calls, sweep_of):
    settings = 'outputs = ["loss"]\nseed = 7\noptions = {mode = "equilibrium"}'
    assert sweep_of(FILE.replace("[grid]", f"{settings}\n[grid]"), "--jobs", "2") == 0
    assert (calls[0].outputs, calls[0].seed, calls[0].n_jobs) == (["loss"], 7, 2)
    assert isinstance(calls[0].run, functools.partial)
    assert (calls[0].run.func, calls[0].run.keywords) == (nc.cascade, {"mode": "equilibrium"})


def test_a_model_clears(calls, sweep_of, tmp_path):
    net = nc.generators.ring(3)
    net.save(tmp_path / "banks")
    text = '[sweep]\nnetwork = "banks"\nmodel = "rogers_veraart"\noptions = {alpha = 0.5, beta = 0.5}\n[defaults]\n'
    assert sweep_of(text) == 0
    assert calls[0].net.data_hash == net.data_hash
    assert calls[0].name == "banks"
    assert calls[0].run.func is nc.clear
    assert calls[0].run.keywords == {"model": "rogers_veraart", "alpha": 0.5, "beta": 0.5}
    assert calls[0].shocks == nc.scenarios.defaults(net)


def test_a_csv_is_found_beside_the_file(calls, sweep_of, tmp_path):
    rows = ["trader,exchange,asset,side,amount,price", "ann,Lend,WETH,collateral,10,2000", "ann,Lend,USDC,debt,14000,1"]
    (tmp_path / "positions.csv").write_text("\n".join(rows))
    settings = 'network = "positions.csv"\npreset = "aave_v3_2023_06"\nrulebook = "aave_v3"'
    text = f"[sweep]\n{settings}\n[grid]\nprice = {{WETH = [-0.3]}}"
    assert sweep_of(text) == 0
    assert calls[0].name == "positions"
    assert "ann" in calls[0].net.labels("traders")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("{ETH = [-0.1, -0.2]}", "{ETHH = [-0.1]}", "unknown asset 'ETHH'; did you mean 'ETH'"),
        ("-0.2]", "-1.2]", "grid.price['ETH'], row 1: -1.2; allowed: -1 (worthless) or above"),
        ('network = "market"', "", "sweep.network: missing"),
        ('network = "market"', 'network = "markt"', "markt does not exist"),
        ('network = "market"', 'network = "dex-quotes-2023-11-20"', "is not a network"),
        ('network = "market"', "network = 3\nsed = 1\nseed = true", "did you mean 'seed'"),
        ('network = "market"', 'network = "market"\noutputs = ["loss", 1]', "an array of names"),
        ("[sweep]", "[sweeps]", "sweep.network: missing"),
        ("[grid]", "[gird]", "did you mean 'grid'"),
        ("[grid]", "[grid", "is not TOML"),
        ("[grid]", "[correlated]\nn = 3\nvolatility = {ETH = 0.1}\n[grid]", "correlated.seed: missing"),
    ],
)
def test_bad_files_are_refused_before_any_work(calls, sweep_of, capsys, old, new, said):
    assert old in FILE
    assert sweep_of(FILE.replace(old, new)) == 1
    told = capsys.readouterr().err
    assert told.startswith("netcontagion: ")
    assert said in told
    assert "Traceback" not in told
    assert not calls


def test_a_file_that_is_missing_is_named(calls, tmp_path, capsys):
    assert main(["sweep", str(tmp_path / "nowhere.toml"), "--out", str(tmp_path / "x")]) == 1
    assert "nowhere.toml cannot be read: No such file" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_a_folder_that_cannot_be_written_is_refused_before_any_work(calls, sweep_of, tmp_path, capsys):
    (tmp_path / "result").write_text("a file")
    assert sweep_of() == 1
    assert "result cannot be written" in capsys.readouterr().err
    assert not calls


def test_the_help_shows_a_file_that_runs(calls, sweep_of, capsys):
    with pytest.raises(SystemExit):
        main(["sweep", "--help"])
    said = capsys.readouterr().out
    example = said.partition("example:\n")[2].partition("\n\n  netcontagion sweep")[0]
    text = "\n".join(line.strip() for line in example.splitlines()).replace("my_network/", "market")
    assert sweep_of(text) == 0
    assert len(calls[0].shocks) == 6
