"""Finding, naming and downloading weights, without torch."""

import hashlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from deeplens_streams.config import Settings
from deeplens_streams.errors import WeightsUnavailable
from deeplens_streams.features import models, open_features, weights
from deeplens_streams.features.local import LocalFeatures
from deeplens_streams.features.models import RESNET50, UNTRAINED, choose_model
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
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "a"))
    assert cached_path() == tmp_path / "a/hub/checkpoints/resnet50-11ad3fa6.pth"
    monkeypatch.delenv("TORCH_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "b"))
    assert cached_path() == tmp_path / "b/torch/hub/checkpoints/resnet50-11ad3fa6.pth"


def test_torch_looks_in_the_same_place(cache: Path) -> None:
    import torch.hub  # noqa: PLC0415 -- the one test here that needs torch

    assert cache.parent == Path(torch.hub.get_dir()) / "checkpoints"
    assert cached_path() == cache


def test_auto_finds_the_cached_file(cache: Path) -> None:
    assert find_weights(Settings(weights="auto")) is None
    cache.parent.mkdir(parents=True)
    cache.touch()
    assert find_weights(Settings(weights="auto")) == cache
    assert find_weights(Settings(weights="untrained")) is None


@pytest.fixture
def wrong_cache(cache: Path) -> Path:
    cache.parent.mkdir(parents=True)
    cache.write_bytes(BODY)
    return cache


@pytest.mark.usefixtures("wrong_cache")
async def test_a_cached_file_that_is_not_torchvisions_is_refused() -> None:
    features = LocalFeatures(Settings(weights="auto"), RESNET50)
    with pytest.raises(WeightsUnavailable, match="damaged or holds other weights; delete it"):
        await features.ready()
    await features.close()


def test_a_configured_file_that_is_not_there_is_refused_at_once(tmp_path: Path) -> None:
    missing = Settings(weights=str(tmp_path / "none.pth"))
    for look in (find_weights, choose_model, open_features):
        with pytest.raises(WeightsUnavailable, match=r"DEEPLENS_WEIGHTS: .*none\.pth"):
            look(missing)


def test_other_weights_are_another_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "own.pth"
    path.write_bytes(BODY)
    digest = hashlib.sha256(BODY).hexdigest()
    own = choose_model(Settings(weights=str(path)))
    assert own.name == f"resnet50-{digest[:8]}"
    assert digest.startswith(own.version.removeprefix("sha256-"))
    monkeypatch.setattr(models, "WEIGHTS_SHA256_PREFIX", digest[:8])
    assert choose_model(Settings(weights=str(path))) == RESNET50
    assert choose_model(Settings(weights="auto")) == RESNET50
    assert choose_model(Settings(weights="untrained")) == UNTRAINED
    assert UNTRAINED.warning


def test_a_download_is_checked_and_appears_whole(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports: list[tuple[int, int | None]] = []
    monkeypatch.setattr(weights, "WEIGHTS_SHA256_PREFIX", hashlib.sha256(BODY).hexdigest()[:8])
    with serving(BODY) as url:
        monkeypatch.setattr(weights, "WEIGHTS_URL", url)
        assert download_weights(lambda done, total: reports.append((done, total))) == cache
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
    answer: dict[str, int], sentence: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(BODY, **answer) as url:
        monkeypatch.setattr(weights, "WEIGHTS_URL", url)
        with pytest.raises(WeightsUnavailable, match=sentence):
            download_weights()
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
    assert "set DEEPLENS_WEIGHTS to the path of a copy, or to untrained" in done.stderr
    assert list(cache.parent.iterdir()) == []
