"""Every notebook runs from top to bottom.

One whose metadata say ``needs-data`` is skipped where downloaded data are absent; one that ``uses-data`` runs without.
"""

from __future__ import annotations

from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
RAW = ROOT.parent / "shared" / "data" / "raw"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def test_there_are_notebooks():
    assert [path.name for path in NOTEBOOKS] == [
        "01_quickstart.ipynb", "02_aave_steth.ipynb", "03_clearing_models.ipynb", "04_channels.ipynb",
        "05_aave_and_perpetuals.ipynb", "06_scenarios.ipynb", "07_ranking_aave.ipynb", "08_banks.ipynb",
    ]  # fmt: skip


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.filterwarnings("default")  # warnings of the notebook client itself; the notebook's own are errors below
def test_notebook_runs(path, monkeypatch):
    nbformat = pytest.importorskip("nbformat", reason="needs the notebooks extra")
    nbclient = pytest.importorskip("nbclient", reason="needs the notebooks extra")
    notebook = nbformat.read(path, as_version=4)
    wants = notebook.metadata.get("netcontagion", [])
    if "needs-data" in wants and not RAW.is_dir():
        pytest.skip("the downloaded data set is not here: no shared data folder beside the project")
    if RAW.is_dir() and wants:
        monkeypatch.setenv("NETCONTAGION_DATA", str(RAW))
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(path.parent)}}).execute()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_small(path):
    assert path.stat().st_size < 500_000


def test_the_models_are_compared_without_the_data_too(monkeypatch, tmp_path):
    nbformat = pytest.importorskip("nbformat", reason="needs the notebooks extra")
    nbclient = pytest.importorskip("nbclient", reason="needs the notebooks extra")
    (path,) = (path for path in NOTEBOOKS if path.stem == "03_clearing_models")
    notebook = nbformat.read(path, as_version=4)
    monkeypatch.setenv("NETCONTAGION_DATA", str(tmp_path / "nothing"))
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(path.parent)}}).execute()
    said = [out.get("text", "") for cell in notebook.cells if cell.cell_type == "code" for out in cell.outputs]
    assert any(text.startswith("skipped from here on: no eba_2011") for text in said)
