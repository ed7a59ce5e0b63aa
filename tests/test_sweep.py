"""Sweeps: the same table for every cut of the work, resumed after a kill, estimates that hold what they say."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from scipy.stats import expon, norm
from seeds import slow

import netcontagion as nc
from netcontagion.clearing import _scenarios as clearing_scenarios
from netcontagion.clearing import _together as clearing_together
from netcontagion.scenarios import _tasks
from netcontagion.scenarios._handle import Handles, _open
from netcontagion.scenarios._nodes import Forest, Rows, Segment, Sums
from netcontagion.scenarios._statistics import expected_shortfall, quantile, share, shares, tail_weights

FALLS = [nc.Shock.price({"ETH": -0.02 * step}, family=True) for step in range(18)]
quiet = functools.partial(nc.sweep, progress=False)


@pytest.fixture(scope="module")
def market():
    return nc.generators.market(60, exchanges=2, seed=3)


def banks(size=40, seed=0, labels="b"):
    """Banks that owe each other, so that some losses of all make many default."""
    rng = np.random.default_rng(seed)
    owed = rng.random((size, size)) * (rng.random((size, size)) < 0.3)
    np.fill_diagonal(owed, 0)
    return nc.builders.from_matrix(
        owed,
        rows="debtor",
        external_assets=rng.random(size) * 3,
        external_liabilities=rng.random(size),
        labels=[f"{labels}{place}" for place in range(size)],
    )


def large(size=700, degree=160):
    """Banks with more claims than a push begins at."""
    rng = np.random.default_rng(5)
    debtor = np.repeat(np.arange(size), degree)
    table = pd.DataFrame({"debtor": debtor, "creditor": rng.integers(0, size, len(debtor))})
    table = table[table["debtor"] != table["creditor"]].drop_duplicates()
    table["amount"] = rng.random(len(table))
    assets = rng.random(size) * 12
    outside = rng.random(size) * 8
    traders = {"trader": np.arange(size), "external_assets": assets, "external_liabilities": outside}
    return nc.ExposureNetwork(traders=traders, liabilities=table)


def same(one, other):
    pd.testing.assert_frame_equal(one.table, other.table, check_exact=True)
    pd.testing.assert_frame_equal(one.nodes, other.nodes, check_exact=True)


# one answer whoever works ------------------------------------------------------------------------------------------


def test_the_table_is_the_same_for_every_number_of_processes_and_size_of_task(market, monkeypatch):
    run = functools.partial(nc.cascade, priority="random")
    nets = {"a": market, "b": nc.generators.market(40, exchanges=1, seed=4)}
    one = quiet(nets, FALLS, run=run, seed=5)
    with joblib.parallel_config(backend="threading"):
        same(one, quiet(nets, FALLS, run=run, seed=5, n_jobs=3))
    monkeypatch.setattr(_tasks, "SAMPLE", 0.0)
    for processes in (2, 4):
        same(one, quiet(nets, FALLS, run=run, seed=5, n_jobs=processes))
    for task in (0.0, 1e9):
        monkeypatch.setattr(_tasks, "TASK", task)
        same(one, quiet(nets, FALLS, run=run, seed=5))
    assert one.table["liquidated"].nunique() > 3
    assert not one.table["loss"].equals(quiet(nets, FALLS, run=run, seed=6).table["loss"])


def test_a_row_is_what_the_run_by_itself_gives(market):
    found = quiet(market, FALLS, seed=5)
    for scenario in (0, 7, 17):
        result = nc.cascade(market, FALLS[scenario])
        row = found.table.loc[(0, scenario)]
        assert row["called"] == result.accounts["called"].sum()
        assert row["liquidated"] == result.accounts["liquidated"].sum()
        assert row["bad_debt"] == pytest.approx(result.exchanges["deficit"].sum(), rel=1e-12)
        assert row["loss"] == pytest.approx(result.losses.to_numpy().sum(), rel=1e-9, abs=1e-3)
        assert row["sold"] == result.rounds["sold"].sum()
        assert row["status"] == result.status.name
    runs = [nc.cascade(market, shock) for shock in FALLS]
    nodes = found.nodes.loc[0]
    for table in ("traders", "exchanges"):
        losses = sum(getattr(run, table)["loss"] for run in runs) / len(runs)
        np.testing.assert_allclose(nodes["expected_loss"][losses.index], losses, rtol=1e-9, atol=1e-6)
    assert set(nodes.index) - set(market.nodes) == {"liquidators", "market", "external creditors"}


@pytest.mark.parametrize("make", [banks, large])
def test_clearing_side_by_side_is_clearing_one_by_one(make):
    net = make()
    rng = np.random.default_rng(1)
    traders = net.labels("traders").tolist()
    shocks = [nc.Shock.loss(float(x)) for x in rng.random(12)]
    shocks += [nc.Shock.default(trader) + nc.Shock.loss(0.05) for trader in traders[:8]]
    found = quiet(net, shocks, run=nc.clear, tail=0.8)
    losses, failed = [], []
    for scenario, shock in enumerate(shocks):
        result = nc.clear(net, shock)
        row = found.table.loc[(0, scenario)]
        direct, contagion = result.loss["direct"].sum(), result.loss["contagion"].sum()
        assert row["direct"] == pytest.approx(direct, rel=1e-9, abs=1e-9)
        assert row["contagion"] == pytest.approx(contagion, rel=1e-7, abs=1e-7)
        assert row["shortfall"] == pytest.approx(result.shortfall.sum(), rel=1e-7, abs=1e-7)
        assert row["defaults"] == result.defaulted.sum()
        losses.append(result.loss.sum(axis=1).to_numpy())
        failed.append(result.defaulted.to_numpy())
    assert 0 < np.sum(failed) < np.size(failed)
    np.testing.assert_allclose(found.nodes["expected_loss"], np.mean(losses, axis=0), rtol=1e-7, atol=1e-7)
    np.testing.assert_array_equal(found.nodes["default_probability"], np.mean(failed, axis=0))
    same(found, quiet(net, shocks, run=nc.clear, tail=0.8, n_jobs=2))


def test_scenarios_side_by_side_are_added_up_in_pieces():
    """What a scenario gives is the same to the last bit whatever is beside it; sums by node are those of the parts."""
    net, size = large(), clearing_together.PIECE
    shocks = [nc.Shock.loss(float(x)) for x in np.random.default_rng(2).random(size + 9)]
    shocks += [nc.Shock.loss({trader: 1e-3}) + nc.Shock.loss(0.5) for trader in (3, 600)]
    weights = np.linspace(0.1, 1.0, len(shocks))
    whole = nc.clearing.clear_together(net, shocks, weights)
    cuts = [slice(0, size), slice(size, size + 8), slice(size + 8, None)]
    parts = [nc.clearing.clear_together(net, shocks[cut], weights[cut]) for cut in cuts]
    for name in ("rounds", "shortfall", "direct", "contagion", "defaults"):
        assert getattr(whole, name).tolist() == [x for part in parts for x in getattr(part, name)], name
    np.testing.assert_allclose(whole.node_loss, sum(part.node_loss for part in parts), rtol=1e-12)
    assert whole.node_defaults.tolist() == sum(part.node_defaults for part in parts).tolist()
    with pytest.MonkeyPatch.context() as patch:
        for module in (clearing_together, clearing_scenarios):
            patch.setattr(module, "in_threads", lambda work, pieces: [work(*piece) for piece in pieces])
        single = nc.clearing.clear_together(net, shocks, weights)
    assert single.node_loss.tolist() == whole.node_loss.tolist()


def test_where_dues_change_clearing_goes_one_by_one(market):
    found = quiet(market, FALLS[:6], run=nc.clear)
    alone = [nc.clear(market, shock).loss.to_numpy().sum() for shock in FALLS[:6]]
    np.testing.assert_allclose(found.table["loss"], alone, rtol=1e-12)


@pytest.mark.parametrize("level", [0.8, 0.95, 0.999])
def test_tail_losses_of_nodes_add_up_to_the_expected_shortfall(market, level):
    found = quiet(market, FALLS, tail=level)
    total = found.expected_shortfall(level)["value"].item()
    assert found.nodes["tail_loss"].sum() == pytest.approx(total, rel=1e-12)
    worst = found.table["loss"].nlargest(1).index[0][1]
    if level == 0.999:
        alone = nc.cascade(market, FALLS[worst]).traders["loss"]
        np.testing.assert_allclose(found.nodes["tail_loss"].loc[0][alone.index], alone, rtol=1e-9, atol=1e-6)


def test_models_and_functions_of_ones_own():
    net = banks()
    shocks = [nc.Shock.loss(0.1 * step) for step in range(5)]
    costs = quiet(net, shocks, run=functools.partial(nc.clear, model="rogers_veraart", alpha=0.5, beta=0.5))
    plain = quiet(net, shocks, run=nc.clear)
    assert (costs.table["shortfall"] > plain.table["shortfall"]).all()
    own = quiet(net, shocks, run=lambda _, shock, seed: {"share": shock.loss_shares[0], "draw": seed % 1000}, seed=1)
    assert own.outputs == ("share", "draw")
    assert own.table["status"].unique().tolist() == ["RAN"]
    assert own.table["draw"].nunique() > 2
    assert own.nodes.empty
    read = quiet(net, shocks, run=nc.clear, outputs={"worst": lambda result: result.loss["contagion"].max()})
    assert read.table["worst"].max() > 0
    assert read.nodes["expected_loss"].sum() == pytest.approx(plain.nodes["expected_loss"].sum(), rel=1e-9)


def test_a_scenario_that_fails_is_a_row_with_its_error(market):
    def run(net, shock):
        if shock == FALLS[3]:
            message = "no such day"
            raise RuntimeError(message)
        return nc.cascade(net, shock, max_rounds=2, strict=shock == FALLS[5])

    found = quiet(market, FALLS, run=run)
    assert found.table["error"].loc[0, 3] == "RuntimeError: no such day"
    assert found.table["status"].loc[0, 3] == "ERROR"
    assert np.isnan(found.table["loss"].loc[0, 3])
    assert found.table["status"].loc[0, 17] == "MAX_ROUNDS"
    left = len(FALLS) - len(found.failures)
    assert found.value_at_risk()["scenarios"].item() == left < len(FALLS) - 2
    assert np.isfinite(found.nodes.to_numpy()).all()
    nothing = quiet(banks(), FALLS[:2], run=lambda *_: {"x": float("nan")})
    assert nothing.table["error"].str.contains("NaN").all()
    assert "2 without an answer" in repr(nothing)


def test_a_loss_that_is_too_large_spoils_no_other_scenario_of_its_block():
    net = banks()
    found = quiet(net, [nc.Shock.loss(0.2), nc.Shock.loss({"b1": 1e9}), nc.Shock.loss(0.3)], run=nc.clear)
    assert found.table["status"].tolist() == ["SETTLED", "ERROR", "SETTLED"]
    assert found.table["loss"].iloc[0] == pytest.approx(nc.clear(net, nc.Shock.loss(0.2)).loss.to_numpy().sum())


def test_networks_travel_as_files_that_are_mapped(market):
    with Handles([market]) as (handle,):
        state = handle.__getstate__()
        found = _open("a digest of its own", state["path"])
        values = found.columns("balances")["deposited"]
        assert isinstance(values.base, np.memmap) or isinstance(values.base.base, np.memmap)
        assert not values.flags.writeable
        assert found.data_hash == market.data_hash
        assert nc.cascade(found, FALLS[9]).losses.equals(nc.cascade(market, FALLS[9]).losses)
        assert list(handle.path.parent.iterdir()) == [handle.path]
    assert not handle.path.parent.exists()


# sums --------------------------------------------------------------------------------------------------------------


def leaf(block, rng):
    return Segment(0, block, 1, Rows(np.array(["RAN"]), {}, {"x": rng.random(1)}), Sums(rng.random(3), np.ones(3, int)))


@pytest.mark.parametrize("seed", range(5))
def test_sums_do_not_depend_on_the_order_in_which_blocks_come(seed):
    rng = np.random.default_rng(seed)
    leaves = [leaf(block, rng) for block in range(23)]
    first = Forest(leaves).whole(0)
    for _ in range(5):
        cuts = np.sort(rng.integers(0, 23, 4)).tolist()
        parts = [Forest(leaves[a:b]) for a, b in zip([0, *cuts], [*cuts, 23], strict=True)]
        segments = [segment for part in parts for segment in part.segments.values()]
        other = Forest([segments[place] for place in rng.permutation(len(segments))])
        assert len(other.segments) <= 5
        whole = other.whole(0)
        np.testing.assert_array_equal(whole.sums.loss, first.sums.loss)
        np.testing.assert_array_equal(whole.rows.columns["x"], first.rows.columns["x"])
    assert Forest(leaves[3:9] + leaves[12:20]).missing(0, 23) == [(0, 3), (9, 12), (20, 23)]


# checkpoints -------------------------------------------------------------------------------------------------------

DRIVER = """
import os, signal, sys
import netcontagion as nc
from netcontagion.scenarios import _checkpoint, _tasks

_tasks.TASK, _tasks.SAMPLE = 0.0, 0.0
keep, count = _checkpoint.Checkpoint.keep, 0
def counted(self, stage, forest, known):
    global count
    count += 1
    if count == int(sys.argv[2]):
        for place in forest.segments.keys() - known:  # dies between writing the whole and dropping its halves
            self._put(self._path(stage, place).name, lambda file: _checkpoint._write(forest.segments[place], file))
        os.kill(os.getpid(), signal.SIGKILL)
    keep(self, stage, forest, known)
_checkpoint.Checkpoint.keep = counted
net = nc.generators.market(60, exchanges=2, seed=3)
falls = [nc.Shock.price({"ETH": -0.02 * step}, family=True) for step in range(18)]
nc.sweep(net, falls, seed=5, progress=False, checkpoint=sys.argv[1])
"""


@pytest.mark.parametrize("parts", [8, *slow(1)])
def test_a_killed_driver_is_taken_up_where_it_was(market, tmp_path, parts):
    folder = tmp_path / "sweep"
    command = [sys.executable, "-c", DRIVER, str(folder), str(parts)]
    env = os.environ | {"PYTHONPATH": str(Path(nc.__file__).parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env, timeout=300)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert list(folder.glob("runs-*.npz"))
    same(quiet(market, FALLS, seed=5, checkpoint=folder), quiet(market, FALLS, seed=5))
    assert len(list(folder.glob("runs-*.npz"))) == 2  # 16 + 2


RAN = []


def counted(net, shock):
    RAN.append(shock)
    return nc.cascade(net, shock)


def test_what_is_done_is_not_run_again(market, tmp_path):
    RAN.clear()
    one = quiet(market, FALLS, run=counted, checkpoint=tmp_path / "sweep", tail=None)
    assert list(map(str, RAN)) == list(map(str, FALLS))
    same(one, quiet(market, FALLS, run=counted, checkpoint=tmp_path / "sweep", tail=None))
    next((tmp_path / "sweep").glob("runs-0-16-2.npz")).unlink()
    same(one, quiet(market, FALLS, run=counted, checkpoint=tmp_path / "sweep", tail=None))
    assert len(RAN) == len(FALLS) + 2


def test_a_killed_worker_loses_nothing(market, tmp_path, monkeypatch):
    monkeypatch.setattr(_tasks, "TASK", 0.0)
    monkeypatch.setattr(_tasks, "SAMPLE", 0.0)
    driver, mark = os.getpid(), tmp_path / "killed"

    def run(net, shock):
        if os.getpid() != driver and shock == FALLS[11] and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return nc.cascade(net, shock)

    found = quiet(market, FALLS, run=run, n_jobs=2, seed=5)
    assert mark.exists()
    same(found, quiet(market, FALLS, run=run, seed=5))


def test_a_folder_of_other_inputs_is_refused(market, tmp_path):
    folder = tmp_path / "sweep"
    quiet(market, FALLS[:3], seed=5, checkpoint=folder)
    others = {
        "shocks": {"shocks": FALLS[:2], "seed": 5},
        "seed": {"shocks": FALLS[:3], "seed": 6},
        "run": {"shocks": FALLS[:3], "seed": 5, "run": functools.partial(nc.cascade, priority="best_first")},
        "outputs": {"shocks": FALLS[:3], "seed": 5, "outputs": ["loss"]},
    }
    for name, options in others.items():
        with pytest.raises(nc.ContagionError, match=f"other inputs.*{name}"):
            quiet(market, checkpoint=folder, **options)
    with pytest.raises(nc.ContagionError, match=r"other inputs.*networks"):
        quiet(banks(), [nc.Shock.loss(0.1)], run=nc.clear, seed=5, checkpoint=folder)
    (folder / "sweep.json").write_text("{")
    with pytest.raises(nc.ContagionError, match="cannot be read"):
        quiet(market, FALLS[:3], seed=5, checkpoint=folder)


def test_a_seed_that_was_drawn_is_taken_up(market, tmp_path):
    run = functools.partial(nc.cascade, priority="random")
    one = quiet(market, FALLS[:4], run=run, checkpoint=tmp_path / "sweep")
    assert json.loads((tmp_path / "sweep" / "sweep.json").read_text())["entropy"] == str(one.seed)
    same(one, quiet(market, FALLS[:4], run=run, checkpoint=tmp_path / "sweep"))
    same(one, quiet(market, FALLS[:4], run=run, seed=one.seed))


def test_folders_that_cannot_be_written_are_refused_before_any_work(market, tmp_path):
    def never(net, shock):
        raise AssertionError

    (tmp_path / "file").write_text("")
    with pytest.raises(nc.ContagionError, match="is a file"):
        quiet(market, FALLS, run=never, checkpoint=tmp_path / "file")
    with pytest.raises(nc.ContagionError, match="cannot be written"):
        quiet(market, FALLS, run=never, checkpoint=tmp_path / "file" / "inside")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("")
    with pytest.raises(nc.ContagionError, match=r"thesis\.tex"):
        quiet(market, FALLS, run=never, checkpoint=tmp_path / "full")


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"shocks": [*FALLS, nc.Shock.price({"EHT": -0.1})]}, nc.UnknownLabelError, "EHT.*ETH"),
        ({"shocks": [FALLS[0], "ETH"]}, nc.SchemaError, "a Shock"),
        ({"shocks": []}, ValueError, "no scenario"),
        ({"nets": {"a": 1}}, TypeError, "'a' is a int"),
        ({"nets": []}, TypeError, "there is none"),
        ({"nets": 3}, TypeError, "the networks come first"),
        ({"run": "cascade"}, TypeError, "run is 'cascade'"),
        ({"outputs": ["los"]}, nc.UnknownLabelError, "loss"),
        ({"outputs": "loss"}, TypeError, "collection"),
        ({"outputs": {"loss": 1}}, TypeError, "functions"),
        ({"seed": -1}, ValueError, "seed"),
        ({"tail": 1.0}, ValueError, "tail"),
        ({"run": nc.clear, "shocks": [nc.Shock.path([FALLS[1], FALLS[1]])]}, ValueError, "path"),
    ],
)
def test_bad_input_is_refused_before_any_work(market, monkeypatch, change, error, words):
    monkeypatch.setattr(_tasks, "work", None)
    with pytest.raises(error, match=words):
        quiet(**({"nets": market, "shocks": FALLS} | change))


# estimates ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("law", [norm(), expon()], ids=["normal", "exponential"])
def test_intervals_hold_the_true_value_as_often_as_they_say(law):
    level, held = 0.9, np.zeros(4)
    at = law.ppf(level)
    beyond = law.pdf(at) / (1 - level) if law.dist.name == "norm" else at + 1
    for seed in range(200):
        losses = law.rvs(1000, random_state=seed)
        estimates = quantile(losses, level, 0.95), expected_shortfall(losses, level, 0.95)
        hit = share(int((losses >= 1.5).sum()), 1000, 0.95)
        rare = share(int((losses >= at).sum()), 1000, 0.95)
        truths = (at, beyond, law.sf(1.5), 1 - level)
        held += [one.lower <= true <= one.upper for one, true in zip((*estimates, hit, rare), truths, strict=True)]
    assert (held >= 180).all(), held
    assert (held <= 198).all(), held


def test_estimates_of_a_few_scenarios_say_that_they_know_little():
    losses = np.arange(10.0)
    assert quantile(losses, 0.95, 0.95).upper == np.inf
    assert quantile(losses, 0.5, 0.95).value == 4.0
    assert expected_shortfall(losses, 0.8, 0.95).value == pytest.approx(8.5)
    assert expected_shortfall(losses, 0.75, 0.95).value == pytest.approx((9 + 8 + 0.5 * 7) / 2.5)
    assert expected_shortfall(losses[:1], 0.95, 0.95) == (0.0, -np.inf, np.inf)
    assert tail_weights(losses, 0.75).sum() == pytest.approx(1)
    low, high = share(0, 20, 0.95)[1:]
    assert low == 0
    assert high == pytest.approx(3.8414588 / (20 + 3.8414588))  # Wilson with no hit: z^2 / (n + z^2)
    np.testing.assert_allclose(shares(np.array([20.0]), 20, 0.95)[2], 1.0)


def test_estimates_of_a_sweep(market):
    found = quiet({"a": market, "b": market}, FALLS, outputs=["loss", "called"])
    table = found.quantile([0.5, 0.9])
    losses = found.table["loss"].loc["a"].to_numpy()
    assert table.loc["a", 0.5] == np.sort(losses)[8]
    assert table.loc["b"].equals(table.loc["a"])
    assert found.probability(1, output="called").loc["a", "value"] == (found.table["called"].loc["a"] >= 1).mean()
    assert found.mean(output="called").loc["a", "value"] == found.table["called"].loc["a"].mean()
    default = found.default_probability()
    assert default.index.equals(found.nodes.index)
    assert ((default["lower"] <= default["value"]) & (default["value"] <= default["upper"])).all()
    assert found.summary().loc[("a", "called"), "mean"] == found.table["called"].loc["a"].mean()
    assert "36 runs on 2 networks" in found._repr_html_()
    with pytest.raises(nc.UnknownLabelError, match="loss"):
        found.value_at_risk(output="los")
    with pytest.raises(ValueError, match="level"):
        found.quantile(1.5)


# another engine ----------------------------------------------------------------------------------------------------

CLUSTER = textwrap.dedent(
    """
    import sys
    import joblib
    import netcontagion as nc
    from dask.distributed import Client, LocalCluster
    from netcontagion.scenarios import _tasks

    if __name__ == "__main__":
        _tasks.TASK, _tasks.SAMPLE = 0.0, 0.0
        net = nc.generators.market(60, exchanges=2, seed=3)
        falls = [nc.Shock.price({"ETH": -0.02 * step}, family=True) for step in range(18)]
        with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster):
            with joblib.parallel_config(backend="dask"):
                found = nc.sweep(net, falls, seed=5, progress=False)
        found.table.to_pickle(sys.argv[1])
        found.nodes.to_pickle(sys.argv[2])
    """
)


@pytest.mark.slow
def test_a_local_cluster_gives_the_same_table(market, tmp_path):
    pytest.importorskip("distributed", reason="dask.distributed is not installed")
    script, table, nodes = tmp_path / "run.py", tmp_path / "table", tmp_path / "nodes"
    script.write_text(CLUSTER)
    paths = [str(Path(nc.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, str(script), str(table), str(nodes)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env, timeout=600)
    assert done.returncode == 0, done.stderr
    one = quiet(market, FALLS, seed=5)
    pd.testing.assert_frame_equal(pd.read_pickle(table), one.table, check_exact=True)
    pd.testing.assert_frame_equal(pd.read_pickle(nodes), one.nodes, check_exact=True)
