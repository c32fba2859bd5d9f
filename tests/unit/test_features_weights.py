"""Finding, naming and downloading weights, without torch."""

import hashlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from deeplens_streams.config import Settings
from deeplens_streams.errors import WeightsUnavailable
from deeplens_streams.features import open_features
from deeplens_streams.features.base import Download
from deeplens_streams.features.in_process import LocalFeatures
from deeplens_streams.features.models import RESNET50, RESNET50_WEIGHTS, UNTRAINED, choose_model
from deeplens_streams.features.weights import cached_path, download_weights, find_weights

BODY = b"weights " * 100_000


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints" / "resnet50-11ad3fa6.pth"


@contextmanager
def serving(body: bytes, *, cut: int = 0, status: int = 200) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) - cut])

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/resnet50-11ad3fa6.pth"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_the_cache_is_torchs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    name = "hub/checkpoints/resnet50-11ad3fa6.pth"
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "a"))
    assert cached_path(RESNET50_WEIGHTS) == tmp_path / "a" / name
    monkeypatch.delenv("TORCH_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "b"))
    assert cached_path(RESNET50_WEIGHTS) == tmp_path / "b/torch" / name


def test_torch_looks_in_the_same_place(cache: Path) -> None:
    import torch.hub  # noqa: PLC0415 -- the one test here that needs torch

    assert cache.parent == Path(torch.hub.get_dir()) / "checkpoints"
    assert cached_path(RESNET50_WEIGHTS) == cache


def test_auto_finds_the_cached_file(cache: Path) -> None:
    assert find_weights(Settings(), RESNET50) is None
    cache.parent.mkdir(parents=True)
    cache.touch()
    assert find_weights(Settings(), RESNET50) == cache
    assert find_weights(Settings(), UNTRAINED) is None


@pytest.fixture
def wrong_cache(cache: Path) -> Path:
    cache.parent.mkdir(parents=True)
    cache.write_bytes(BODY)
    return cache


@pytest.mark.usefixtures("wrong_cache")
async def test_a_cached_file_that_is_not_torchvisions_is_refused() -> None:
    features = LocalFeatures(Settings(), RESNET50)
    with pytest.raises(WeightsUnavailable, match="damaged or holds other weights; delete it"):
        await features.ready()
    await features.close()


def test_a_configured_file_that_is_not_there_is_refused_at_once(tmp_path: Path) -> None:
    missing = Settings(weights=str(tmp_path / "none.pth"))
    for look in (partial(find_weights, model=RESNET50), choose_model, open_features):
        with pytest.raises(WeightsUnavailable, match=r"DEEPLENS_WEIGHTS: .*none\.pth"):
            look(missing)


def test_a_download_is_checked_and_appears_whole(cache: Path) -> None:
    reports: list[tuple[int, int | None]] = []
    prefix = hashlib.sha256(BODY).hexdigest()[:8]
    with serving(BODY) as url:
        found = download_weights(
            Download(url, prefix), lambda done, total: reports.append((done, total))
        )
    assert found == cache
    assert cache.read_bytes() == BODY
    assert reports[-1] == (len(BODY), len(BODY))
    assert list(cache.parent.iterdir()) == [cache]


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ({}, "is not what it should be"),
        ({"cut": 1000}, "is not what it should be|cannot be downloaded"),
        ({"status": 404}, "cannot be downloaded .*Not Found"),
    ],
    ids=["another file", "cut short", "gone"],
)
def test_a_failed_download_leaves_nothing(
    answer: dict[str, int], sentence: str, cache: Path
) -> None:
    with (
        serving(BODY, **answer) as url,
        pytest.raises(WeightsUnavailable, match=sentence),
    ):
        download_weights(Download(url, RESNET50_WEIGHTS.sha256))
    assert list(cache.parent.iterdir()) == []


def test_no_network_is_one_sentence(cache: Path) -> None:
    """The command as users run it, behind a proxy that is not there."""
    done = subprocess.run(
        [sys.executable, "-m", "deeplens_streams.features.weights"],
        env={
            "TORCH_HOME": str(cache.parents[2]),
            "HTTPS_PROXY": "http://127.0.0.1:9",
            "PATH": "/usr/bin:/bin",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "set DEEPLENS_WEIGHTS to the path of a copy, or DEEPLENS_MODEL" in done.stderr
    assert list(cache.parent.iterdir()) == []
