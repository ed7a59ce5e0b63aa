"""Files of the data sets: found, downloaded, verified, and what is said when that fails."""

from __future__ import annotations

import hashlib
import http.server
import logging
import math
import os
import socket
import threading
from pathlib import Path

import pytest

from netcontagion import datasets
from netcontagion.datasets import _dex, _files
from netcontagion.errors import DatasetError, UnknownLabelError

SHARED = Path(__file__).parents[2] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the real data are not here: no ../shared/data")

GOOD = b"asset,price\nA,1\n"
AAVE, QUOTES = "aave-steth-2023-06", "dex-quotes-2023-11-20"


class Server:
    """A local web server with a fixed answer to each path; counts what it was asked."""

    def __init__(self, answers):
        self.asked = []
        asked = self.asked

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                asked.append(self.path)
                status, body, promised = answers.get(self.path, (404, b"", 0))
                self.send_response(status)
                self.send_header("Content-Length", str(promised))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def entry(url, content=GOOD, file="good.csv", dataset="toy"):
    return _files.RegisteredFile(
        dataset,
        file,
        url,
        hashlib.sha256(content).hexdigest(),
        len(content),
        "CC0-1.0",
        "somebody/something@0:good.csv",
    )


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setattr(_files, "_cache_folder", lambda: folder)
    monkeypatch.delenv("NETCONTAGION_DATA", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return folder


@pytest.fixture
def register(monkeypatch):
    def set_registry(*entries):
        monkeypatch.setattr(_files, "registry", lambda: {"toy": entries})

    return set_registry


def files_in(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def test_the_registry_is_complete():
    for name, entries in _files.registry().items():
        assert len({one.file for one in entries}) == len(entries)
        for one in entries:
            assert one.dataset == name
            assert len(one.sha256) == 64
            assert one.bytes > 0
            assert one.licence
            assert one.source.rpartition(":")[0].rpartition("@")[2] in one.url  # the commit is part of the address


def test_available_names_licence_and_source_of_every_data_set():
    table = datasets.available()
    assert list(table.columns) == ["name", "kind", "licence", "bytes", "source", "what"]
    assert {AAVE, QUOTES} <= set(table["name"])
    assert set(table["kind"]) <= {"bundled", "download"}
    assert table["name"].is_unique
    assert (table["bytes"] > 0).all()
    assert table.loc[table["name"] == AAVE, "licence"].item() == "GPL-3.0"
    assert table["source"].str.len().gt(0).all()


@pytest.mark.parametrize("call", [datasets.load, datasets.fetch])
def test_an_unknown_name_names_the_nearest(call):
    with pytest.raises(UnknownLabelError, match=AAVE):
        call("aave-steth-2023")
    with pytest.raises(UnknownLabelError):
        _files.bundled("no such thing")


def test_quotes_are_not_a_network():
    with pytest.raises(DatasetError, match="dex_depths"):
        datasets.load(QUOTES)


def test_a_download_is_verified_kept_and_not_repeated(cache, register, caplog):
    with Server({"/good.csv": (200, GOOD, len(GOOD))}) as server:
        register(entry(f"{server.address}/good.csv"))
        with caplog.at_level(logging.INFO, logger="netcontagion"):
            found = datasets.fetch("toy")
        assert found == {"good.csv": cache / "toy" / "good.csv"}
        assert found["good.csv"].read_bytes() == GOOD
        assert datasets.fetch("toy") == found
        assert server.asked == ["/good.csv"]
    assert datasets.fetch("toy") == found  # no server needed
    assert "licence CC0-1.0, source somebody/something" in caplog.text


def test_a_spoilt_file_in_the_cache_is_downloaded_again(cache, register):
    with Server({"/good.csv": (200, GOOD, len(GOOD))}) as server:
        register(entry(f"{server.address}/good.csv"))
        (cache / "toy").mkdir(parents=True)
        (cache / "toy" / "good.csv").write_bytes(b"spoilt")
        assert datasets.fetch("toy")["good.csv"].read_bytes() == GOOD


def test_wrong_bytes_leave_nothing_behind(cache, register):
    other = b"something else"
    with Server({"/good.csv": (200, other, len(other))}) as server:
        one = entry(f"{server.address}/good.csv")
        register(one)
        with pytest.raises(DatasetError) as caught:
            datasets.fetch("toy")
    for part in ("toy", "good.csv", one.url, one.sha256, hashlib.sha256(other).hexdigest(), "NETCONTAGION_DATA"):
        assert part in str(caught.value)
    assert files_in(cache) == []


def test_a_missing_address_leaves_nothing_behind(cache, register):
    with Server({}) as server:
        one = entry(f"{server.address}/gone.csv")
        register(one)
        with pytest.raises(DatasetError, match="404") as caught:
            datasets.fetch("toy")
    for part in ("toy", one.url, one.sha256, "NETCONTAGION_DATA"):
        assert part in str(caught.value)
    assert files_in(cache) == []


def test_a_connection_cut_half_way_leaves_nothing_behind(cache, register):
    with Server({"/good.csv": (200, GOOD[:5], len(GOOD))}) as server:
        register(entry(f"{server.address}/good.csv"))
        with pytest.raises(DatasetError, match=r"good\.csv"):
            datasets.fetch("toy")
    assert files_in(cache) == []


def test_no_network_leaves_nothing_behind(cache, register):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    one = entry(f"http://127.0.0.1:{port}/good.csv")
    register(one)
    with pytest.raises(DatasetError) as caught:
        datasets.fetch("toy")
    for part in ("toy", "good.csv", one.url, one.sha256, "NETCONTAGION_DATA"):
        assert part in str(caught.value)
    assert files_in(cache) == []


def test_an_interrupted_download_leaves_nothing_behind(cache, register, monkeypatch):
    def interrupted(_, target):
        target.write_bytes(GOOD[:5])
        raise KeyboardInterrupt

    monkeypatch.setattr(_files, "_stream", interrupted)
    register(entry("http://127.0.0.1/good.csv"))
    with pytest.raises(KeyboardInterrupt):
        datasets.fetch("toy")
    assert files_in(cache) == []


def test_what_a_killed_download_left_is_removed_later(cache, register):
    folder = cache / "toy"
    folder.mkdir(parents=True)
    for name in ("tmpold", "tmpnew"):
        (folder / name).write_bytes(GOOD[:5])
    os.utime(folder / "tmpold", (0, 0))
    with Server({"/good.csv": (200, GOOD, len(GOOD))}) as server:
        register(entry(f"{server.address}/good.csv"))
        datasets.fetch("toy")
    assert {path.name for path in files_in(cache)} == {"good.csv", "tmpnew"}  # a new one may be another process at work


def test_an_unusable_cache_is_a_dataset_error(cache, register):
    cache.parent.mkdir(exist_ok=True)
    cache.write_bytes(b"a file where the folder should be")
    register(entry("http://127.0.0.1/good.csv"))
    with pytest.raises(DatasetError, match="NETCONTAGION_DATA"):
        datasets.fetch("toy")


def test_files_in_the_folder_are_found_by_content(tmp_path, cache, register, monkeypatch):
    second = GOOD.replace(b"1", b"2")  # of the same size
    place = tmp_path / "mine" / "deep"
    place.mkdir(parents=True)
    (place / "any name").write_bytes(GOOD)
    (place / "other").write_bytes(second)
    monkeypatch.setenv("NETCONTAGION_DATA", str(tmp_path / "mine"))
    register(entry("http://127.0.0.1/1"), entry("http://127.0.0.1/2", second, "second.csv"))
    assert datasets.fetch("toy") == {"good.csv": place / "any name", "second.csv": place / "other"}
    assert not cache.exists()


def test_files_of_other_sizes_are_not_hashed(tmp_path, cache, register, monkeypatch):
    (tmp_path / "large").write_bytes(b"x" * 1000)
    (tmp_path / "good").write_bytes(GOOD)
    hashed = []
    monkeypatch.setattr(_files, "sha256_of", lambda path: hashed.append(path.name) or entry("").sha256)
    monkeypatch.setenv("NETCONTAGION_DATA", str(tmp_path))
    register(entry("http://127.0.0.1/1"))
    datasets.fetch("toy")
    assert hashed == ["good"]


def test_one_error_lists_all_files_missing_from_the_folder(tmp_path, cache, register, monkeypatch):
    (tmp_path / "good.csv").write_bytes(b"not the published one")
    monkeypatch.setenv("NETCONTAGION_DATA", str(tmp_path))
    first, second = entry("http://127.0.0.1/1"), entry("http://127.0.0.1/2", b"2", "second.csv")
    register(first, second)
    with pytest.raises(DatasetError) as caught:
        datasets.fetch("toy")
    found = hashlib.sha256(b"not the published one").hexdigest()
    for part in ("2 file(s)", first.sha256, second.sha256, first.url, second.url, found, "unset NETCONTAGION_DATA"):
        assert part in str(caught.value)
    assert not cache.exists()


def test_a_folder_that_is_not_there_is_an_error(tmp_path, register, monkeypatch):
    monkeypatch.setenv("NETCONTAGION_DATA", str(tmp_path / "nowhere"))
    register(entry("http://127.0.0.1/1"))
    with pytest.raises(DatasetError, match="not a folder"):
        datasets.fetch("toy")


@pytest.mark.parametrize("impact", [1e-6, 0.01, 0.05, 0.3, 0.9])
def test_exponential_depth_inverts_the_average_price(impact):
    depth = _dex.exponential_depth(1000.0, impact)
    x = 1000.0 / depth
    assert 1.0 + math.expm1(-x) / x == pytest.approx(impact, rel=1e-8)


@pytest.mark.parametrize("impact", [0.0, 1.0, -0.1, math.nan])
def test_an_impact_outside_the_open_interval_is_refused(impact):
    with pytest.raises(ValueError, match="impact"):
        datasets.dex_depths(impact)


def test_quotes_of_an_exact_exponential_book_give_its_depth(tmp_path):
    depth = 5000.0
    weth, usdc = (next(a for a, (symbol, _) in _dex.TOKENS.items() if symbol == name) for name in ("WETH", "USDC"))
    lines = ["src,dst,in_amount,out_amount,price,price_impact,timestamp"]
    for round_, price in enumerate((2000.0, 1900.0, 2100.0)):  # the price moves between rounds, the depth does not
        for i, quantity in enumerate([1e-6] * 10 + list(range(10, 2000, 10))):
            money = price * depth * -math.expm1(-quantity / depth)
            lines.append(f"{weth},{usdc},{quantity * 1e18},{money * 1e6},0,0,{round_ * 3600 + i}")
    path = tmp_path / "quotes.csv"
    path.write_text("\n".join(lines))
    depths = _dex._depths(path, 0.05)
    assert list(depths.index) == ["WETH"]
    assert depths["WETH"] == pytest.approx(depth, rel=1e-5)
    assert list(_dex._depths(path, 0.5).index) == []  # never reached


@needs_shared
def test_depths_of_the_real_quotes(monkeypatch):
    import pandas as pd

    monkeypatch.setenv("NETCONTAGION_DATA", str(SHARED))
    published = pd.read_csv(SHARED / "impact" / "dex_impact_depth_2023-11-20.csv")
    published = published[published["dst_asset"] == "USDC"].set_index("src_asset")
    quotes = _dex._read_quotes(datasets.fetch(QUOTES)["quotes.csv"])
    price = quotes.groupby("asset")["price"].median()
    for impact in (0.01, 0.02):
        depths = datasets.dex_depths(impact)
        assert "USDT" not in depths.index
        x = 1.0 / _dex.exponential_depth(1.0, impact)
        for asset in ("WETH", "wstETH", "WBTC"):
            size_usd = depths[asset] * x * price[asset]
            assert size_usd == pytest.approx(published.loc[asset, f"usd_at_{impact}"], rel=0.25)
        assert depths["stETH"] / depths["wstETH"] == pytest.approx(price["wstETH"] / price["WETH"], rel=0.01)
