"""``netcontagion buffers``: what it asks for, what it writes, what it refuses before any work."""

from __future__ import annotations

import pandas as pd
import pytest

import netcontagion as nc
from netcontagion.cli import main


class Report:
    """What a command needs of a report."""

    required = crossings = tried = sizing = allocation = None

    def __init__(self):
        self.buffers = self.scenarios = self.outcomes = pd.DataFrame({"held": [1.0]})

    def __repr__(self):
        return "Buffers  told"


@pytest.fixture
def calls(monkeypatch):
    """Calls of nc.buffers, which does nothing but write them down."""
    made = []

    def buffers(net, shocks, **options):
        made.append((net, shocks, options))
        return Report()

    monkeypatch.setattr(nc, "buffers", buffers, raising=False)
    return made


def command(tmp_path, *arguments):
    return main(["buffers", *arguments, "--out", str(tmp_path / "result")])


def test_a_shock_and_its_options_reach_the_function(calls, tmp_path, capsys):
    options = ["--shock", "ETH=-0.3", "--tool", "insurance_fund=Lend-1, Lend-2", "--tool", "depth"]
    options += ["--target", "bad_debt=1e6", "--target", "5", "--quantile", "0.9", "--budget", "100", "--seed", "4"]
    options += ["--outcome", "contagion", "--grid", "5", "--jobs", "2"]
    assert command(tmp_path, "market", *options) == 0
    ((net, shock, given),) = calls
    assert net.data_hash == nc.datasets.load("market").data_hash
    assert shock == nc.Shock.price({"ETH": -0.3}, family=True)
    assert given == {
        "tools": {"insurance_fund": ["Lend-1", "Lend-2"], "depth": None},
        "target": {"bad_debt": 1e6, "spillover": 5.0},
        "quantile": 0.9,
        "budget": 100.0,
        "outcome": "contagion",
        "grid": 5,
        "n_jobs": 2,
        "seed": 4,
    }
    assert {path.name for path in (tmp_path / "result").iterdir()} == {
        "buffers.csv", "scenarios.csv", "outcomes.csv", "summary.txt",
    }  # fmt: skip
    assert "Buffers  told" in capsys.readouterr().out


def test_scenarios_of_a_file_stand_for_the_shock(calls, tmp_path):
    file = tmp_path / "scenarios.toml"
    file.write_text("[grid]\nprice = {ETH = [-0.1, -0.2]}\nfamily = true\n")
    assert command(tmp_path, "market", "--scenarios", str(file)) == 0
    assert calls[0][1] == nc.scenarios.grid(price={"ETH": [-0.1, -0.2]}, family=True)
    assert calls[0][2]["tools"] == {"insurance_fund": None}
    assert calls[0][2]["target"] is None


def test_a_folder_of_banks_is_cleared_and_written(tmp_path, capsys):
    net = nc.builders.from_matrix([[0, 8], [0, 0]], rows="debtor", external_assets=[9, 1], labels=["a", "b"])
    net.save(tmp_path / "banks")
    (tmp_path / "losses.toml").write_text("[[scenario]]\nloss = {a = 3.0}\n")
    options = ["--scenarios", str(tmp_path / "losses.toml"), "--tool", "trader_margin=a", "--target", "0.5"]
    assert command(tmp_path, str(tmp_path / "banks"), *options, "--budget", "1") == 0
    required = pd.read_csv(tmp_path / "result" / "required.csv")
    assert required["required"].tolist() == pytest.approx([10.5], rel=1e-5)
    assert pd.read_csv(tmp_path / "result" / "allocation.csv")["money"].tolist() == [1.0]
    assert (tmp_path / "result" / "summary.txt").read_text().strip() in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["market"], "no shock given"),
        (["market", "--shock", "ETH=-0.1", "--tool", "depth", "--tool", "depth=ETH"], "--tool names 'depth' twice"),
        (["market", "--shock", "ETH=-0.1", "--scenarios", "x.toml"], "--scenarios stands for all shocks"),
        (["markt", "--shock", "ETH=-0.1"], "markt does not exist"),
        (["market", "--shock", "ETH=-0.1", "--tool", "insurance_fnd"], "unknown tool 'insurance_fnd'; did you mean"),
        (["market", "--shock", "ETH=-0.1", "--target", "bad=3"], "unknown outcome 'bad'"),
        (["market", "--shock", "ETH=-0.1", "--quantile", "2"], "quantile is 2.0"),
    ],
)
def test_what_makes_no_sense_is_one_message(tmp_path, capsys, arguments, said):
    assert command(tmp_path, *arguments) == 1
    told = capsys.readouterr().err
    assert told.startswith("netcontagion: ")
    assert said in told


def test_a_limit_that_is_no_number_is_wrong_usage(tmp_path, capsys):
    with pytest.raises(SystemExit):
        command(tmp_path, "market", "--shock", "ETH=-0.1", "--target", "bad_debt=much")
    assert "'bad_debt=much' is not [OUTCOME=]LIMIT" in capsys.readouterr().err
