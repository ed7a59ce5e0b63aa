"""``netcontagion rank``: what it ranks, shows, writes and refuses."""

from __future__ import annotations

import pandas as pd
import pytest

import netcontagion as nc
from netcontagion.cli import main


@pytest.fixture
def calls(monkeypatch):
    """Arguments of nc.rank, which still ranks, by one measure."""
    made, rank = [], nc.rank

    def ranked(net, by=None, **options):
        made.append((net, by, options))
        return rank(net, "pagerank")

    monkeypatch.setattr(nc, "rank", ranked, raising=False)
    return made


def test_a_data_set_is_ranked_shown_and_written(tmp_path, capsys):
    out = tmp_path / "new" / "ranking.csv"
    assert (
        main(["rank", "market", "--by", "pagerank,overlap", "--by", "strength", "--top", "2", "--out", str(out)]) == 0
    )
    said = capsys.readouterr().out
    table = pd.read_csv(out, index_col="node")
    expected = nc.rank(nc.datasets.load("market"), ["pagerank", "overlap", "strength"])
    assert table.index.tolist() == expected.index.tolist()
    assert table.columns.tolist() == expected.columns.tolist()
    pd.testing.assert_series_equal(table["pagerank"], expected["pagerank"], check_index=False)
    assert [path.name for path in out.parent.iterdir()] == ["ranking.csv"]
    shown = expected.groupby("kind").head(2).index
    words = set(said.split())
    assert sum(label in words for label in expected.index) == len(shown)
    assert f"written    {out} ({len(expected)} nodes)" in said


def test_what_was_left_out_is_said(tmp_path, capsys):
    folder = nc.generators.ring(4).save(tmp_path / "banks")
    assert main(["rank", str(folder)]) == 0
    assert "left out   overlap: no asset has a depth" in capsys.readouterr().out


def test_scores_that_are_all_zero_are_said(tmp_path, capsys):
    folder = nc.generators.ring(4, equity=0.8).save(tmp_path / "banks")
    assert main(["rank", str(folder), "--by", "furfine"]) == 0
    assert "all 0      furfine: nobody who has equity fails in the wake of another" in capsys.readouterr().out


def test_settings_reach_the_ranking(calls):
    arguments = ["rank", "market", "--shock", "WETH=-0.3", "--depth", "0.5", "--jobs", "2"]
    assert main(arguments) == 0
    ((net, by, options),) = calls
    assert by is None
    assert net.data_hash == nc.datasets.load("market").data_hash
    assert options == {"shock": nc.Shock.price({"WETH": -0.3}, family=True) + nc.Shock.depth(0.5), "n_jobs": 2}
    assert main(["rank", "market"]) == 0
    assert calls[1][2] == {"shock": nc.Shock(), "n_jobs": None}


def test_a_csv_is_ranked(calls, tmp_path, capsys):
    rows = ["trader,exchange,asset,side,amount,price", "ann,Lend,WETH,collateral,10,2000", "ann,Lend,USDC,debt,14000,1"]
    path = tmp_path / "positions.csv"
    path.write_text("\n".join(rows))
    assert main(["rank", str(path), "--preset", "aave_v3_2023_06", "--rulebook", "aave_v3"]) == 0
    assert "ann" in calls[0][0].labels("traders")
    assert "ann" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "nowhere does not exist"),
        (["market", "--by", "pagerakn"], "unknown measure 'pagerakn'; did you mean 'pagerank'"),
        (["market", "--shock", "WETHH=-0.3"], "did you mean 'WETH'"),
        (["market", "--shock", "WETH=-3"], "-3"),
        (["banks", "--by", "hits"], "measure 'hits' does not apply"),
        (["market", "--out", "file/ranking.csv"], "file cannot be written"),
        (["banks", "--preset", "aave_v3_2023_06"], "preset and rulebook are for a CSV"),
    ],
)
def test_problems_are_one_message_and_nothing_is_written(arguments, said, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    nc.generators.ring(3).save(tmp_path / "banks")
    assert main(["rank", *arguments]) == 1
    told = capsys.readouterr().err
    assert told.startswith("netcontagion: ")
    assert said in told
    assert "Traceback" not in told
    assert {path.name for path in tmp_path.iterdir()} == {"file", "banks"}


@pytest.mark.parametrize("top", ["0", "-1", "x"])
def test_rows_to_show_are_at_least_one(top, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["rank", "market", "--top", top])
    assert caught.value.code == 2
    assert "number of rows, at least 1" in capsys.readouterr().err
