"""The page on clusters runs as written, on two worker processes of this machine."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

PAGE = (Path(__file__).parents[1] / "docs" / "cluster.md").read_text(encoding="utf-8")
ABSENT = [name for name in ("dask", "distributed") if importlib.util.find_spec(name) is None]
needs_dask = pytest.mark.skipif(bool(ABSENT), reason=f"needs the extra distributed: no {' and no '.join(ABSENT)}")

ASK_WORKERS = """
import sys
from dask.distributed import Client

with Client(sys.argv[1]) as client:
    print(*client.run(lambda: "netcontagion.margining" in __import__("sys").modules).values())
"""


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


def run_script(text, folder, *arguments):
    script = folder / "script.py"
    script.write_text(text)
    environment = os.environ | {"JOBLIB_TEMP_FOLDER": str(folder)}
    done = subprocess.run(
        [sys.executable, str(script), *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextlib.contextmanager
def started(command, folder):
    """Run a command of the page until the end of the block, and end it by its process."""
    with (folder / "log.txt").open("a") as log:
        process = subprocess.Popen([sys.executable, "-m", *command.split()], cwd=folder, stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(60)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port, process):
    while process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)
    pytest.fail("the scheduler has ended")


def test_the_page_has_the_code_that_is_tested():
    assert len(blocks("python")) == 2
    assert [block.split()[:2] for block in blocks("sh")[1:2]] == [["dask", "scheduler"]]
    for block in blocks("python"):
        compile(block, "cluster.md", "exec")


@pytest.mark.slow
@needs_dask
def test_the_local_cluster_of_the_page(tmp_path):
    said = run_script(blocks("python")[0], tmp_path)
    assert "64 runs on 1 network" in said
    assert "0 without an answer" in said
    assert "same tables: True" in said


@pytest.mark.slow
@needs_dask
def test_the_cluster_by_address_of_the_page(tmp_path):
    port = free_port()
    scheduler, worker = (
        line.replace("8786", str(port)).replace("//scheduler", "//127.0.0.1") for line in blocks("sh")[1].splitlines()
    )
    with started(f"{scheduler} --host 127.0.0.1 --no-dashboard", tmp_path) as process:
        wait_for(port, process)
        with started(f"{worker} --no-dashboard", tmp_path):
            address = f"tcp://127.0.0.1:{port}"
            said = run_script(blocks("python")[1], tmp_path, address)
            workers = run_script(ASK_WORKERS, tmp_path, address).split()
    assert "180 runs on 1 network" in said
    assert len(workers) == 2
    assert "True" in workers, "scenarios ran there, not in the script"
    table = pd.read_csv(tmp_path / "falls.csv")
    assert table["ETH"].tolist() == [-x / 100 for x in range(1, 61) for _ in range(3)]
    assert table["error"].isna().all()
    assert any((tmp_path / "falls").iterdir())


KILLS_A_WORKER = """
import os
import signal
import sys
from pathlib import Path

import joblib
from dask.distributed import Client, LocalCluster

import netcontagion as nc
from netcontagion.scenarios import _tasks

_tasks.TASK, _tasks.SAMPLE = 0.0, 0.0
MARK, DRIVER = Path("killed"), os.getpid()


def run(net, shock):
    if os.getpid() != DRIVER and "-22" in str(shock) and not MARK.exists():
        MARK.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return nc.cascade(net, shock)


def main():
    net = nc.generators.market(60, exchanges=2, seed=3)
    falls = [nc.Shock.price({"ETH": -0.02 * step}, family=True) for step in range(18)]
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster):
        with joblib.parallel_config(backend="dask"):
            found = nc.sweep(net, falls, run=run, seed=7, progress=False)
    here = nc.sweep(net, falls, run=run, seed=7, n_jobs=1, progress=False)
    print("killed:", MARK.exists())
    print("same tables:", found.table.equals(here.table) and found.nodes.equals(here.nodes))


if __name__ == "__main__":
    main()
"""


@pytest.mark.slow
@needs_dask
def test_a_killed_worker_of_a_cluster_loses_nothing(tmp_path):
    said = run_script(KILLS_A_WORKER, tmp_path)
    assert "killed: True" in said
    assert "same tables: True" in said
