"""Real backends that the behaviour suites run on."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from qdrant_client import AsyncQdrantClient

from deeplens_streams.vectors import VectorStore
from deeplens_streams.vectors.edge import EdgeVectors
from deeplens_streams.vectors.memory import MemoryVectors
from deeplens_streams.vectors.server import ServerVectors
from tests.certificates import Pair

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class S3Server:
    """versitygw, a real S3 server over a folder, and the variables that lead a client to it."""

    folder: Path
    environment: dict[str, str]

    def bucket(self, name: str) -> str:
        """Make a bucket and return its URL."""
        (self.folder / name).mkdir()
        return f"s3://{name}"


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with running_s3(tmp_path_factory.mktemp("s3")) as server:
        yield server


@contextmanager
def running_s3(folder: Path, tls: Pair | None = None) -> Iterator[S3Server]:
    """Start a server in `folder`, with TLS where it gets a certificate."""
    binary = _versitygw()
    buckets, sidecar = folder / "buckets", folder / "sidecar"
    buckets.mkdir()
    sidecar.mkdir()
    port = free_port()
    keys = {"ROOT_ACCESS_KEY": "behaviour", "ROOT_SECRET_KEY": "behaviour-secret"}
    options = ["--port", f"127.0.0.1:{port}"]
    if tls:
        options += ["--cert", str(tls.certificate), "--key", str(tls.key)]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [binary, *options, "posix", "--sidecar", sidecar, buckets],
            env=os.environ | keys,
            stdout=log,
            stderr=log,
        )
    try:
        wait_until(lambda: server.poll() is not None or answers(port))
        assert server.poll() is None, (folder / "log").read_text()
        yield S3Server(
            buckets,
            {
                "AWS_ENDPOINT_URL": f"http{'s' if tls else ''}://127.0.0.1:{port}",
                "AWS_ALLOW_HTTP": "false" if tls else "true",
                "AWS_REGION": "us-east-1",
                "AWS_ACCESS_KEY_ID": keys["ROOT_ACCESS_KEY"],
                "AWS_SECRET_ACCESS_KEY": keys["ROOT_SECRET_KEY"],
            },
        )
    finally:
        server.terminate()
        server.wait(10)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def _versitygw() -> str:
    local = ROOT / ".tools" / "bin" / "versitygw"
    found = os.environ.get("DEEPLENS_VERSITYGW") or shutil.which("versitygw")
    if found is None and local.exists():
        found = str(local)
    if found is None:
        reason = "no S3 server: put versitygw on PATH or into .tools/bin, or set DEEPLENS_VERSITYGW"
        if os.environ.get("DEEPLENS_REQUIRE_S3") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@pytest.fixture(params=["collection", "shared"])
def shared(request: pytest.FixtureRequest) -> bool:
    """Both tenancies: everything below holds in each."""
    return bool(request.param == "shared")


@pytest.fixture(params=["memory", "edge", "client"])
async def vectors(
    request: pytest.FixtureRequest, tmp_path: Path, shared: bool
) -> AsyncIterator[VectorStore]:
    store: VectorStore
    if request.param == "memory":
        store = MemoryVectors(shared=shared)
    elif request.param == "edge":
        store = EdgeVectors(tmp_path / "vectors", max_open=4, shared=shared)
    else:
        store = ServerVectors(AsyncQdrantClient(":memory:"), shared=shared)
    yield store
    await store.close()
