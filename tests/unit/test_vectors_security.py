"""That a Qdrant server's key and TLS arrive as they should.

Against a small HTTPS server of ours that speaks as much of Qdrant's REST as one upsert takes:
Qdrant's own server is no test dependency, so what it makes of a key is not tested here.
"""

import ssl
import warnings
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from pydantic import SecretStr
from structlog.testing import capture_logs

from deeplens_streams.cli.doctor_checks import vectors as doctors_check
from deeplens_streams.config import Settings
from deeplens_streams.errors import ConfigurationError, VectorsUnavailable
from deeplens_streams.identifiers import new_image_id
from deeplens_streams.vectors import VectorPoint, VectorStore, open_vectors
from deeplens_streams.vectors.qdrant.client import connect
from tests.support.certificates import Authority

HERE = {"tenant": "acme-corp", "model": "resnet50"}
KEY = "a-very-secret-key"
_INFO = {
    "status": "green",
    "optimizer_status": "ok",
    "segments_count": 1,
    "payload_schema": {},
    "config": {
        "params": {"vectors": {"size": 4, "distance": "Cosine"}},
        "hnsw_config": {"m": 16, "ef_construct": 100, "full_scan_threshold": 10000},
        "optimizer_config": {
            "deleted_threshold": 0.2,
            "vacuum_min_vector_number": 1000,
            "default_segment_number": 0,
            "flush_interval_sec": 5,
        },
    },
}


class KeyedServer:
    """Answers who has the key, and keeps what was asked."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.asked: list[str] = []
        self._made = False
        self._context = context
        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", self._answer)
        self._server = TestServer(app, scheme="https")

    async def start(self) -> str:
        await self._server.start_server(ssl=self._context)
        return f"https://127.0.0.1:{self._server.port}"

    async def close(self) -> None:
        await self._server.close()

    async def _answer(self, request: web.Request) -> web.Response:
        assert request.secure
        if request.headers.get("api-key") != KEY:
            # In the server's own words.
            return web.Response(status=401, text="Must provide an API key or an Authorization")
        self.asked.append(f"{request.method} {request.path}")
        return web.json_response({"result": self._result(request), "status": "ok", "time": 0.0})

    def _result(self, request: web.Request) -> Any:
        if request.path == "/collections":
            return {"collections": []}
        if request.method == "GET":
            if not self._made:
                raise web.HTTPNotFound(text="{}", content_type="application/json")
            return _INFO
        self._made = True
        points = "/index" in request.path or "/points" in request.path
        return {"operation_id": 1, "status": "completed"} if points else True


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
async def server(authority: Authority) -> AsyncIterator[KeyedServer]:
    pair = authority.issue("qdrant")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    server = KeyedServer(context)
    yield server
    await server.close()


def upsert(vectors: VectorStore) -> Any:
    vector = np.array([1, 0, 0, 0], dtype=np.float32)
    image_id = new_image_id()
    return vectors.upsert([VectorPoint(image_id, vector, {"imageId": image_id})], **HERE)


async def test_every_request_has_the_key_and_tls(server: KeyedServer, authority: Authority) -> None:
    settings = Settings(
        qdrant_url=await server.start(),
        qdrant_api_key=SecretStr(KEY),
        qdrant_ca=authority.certificate,
    )
    with warnings.catch_warnings(), capture_logs() as logs:
        warnings.simplefilter("error")
        vectors = open_vectors(settings)
        await vectors.ping()
        await upsert(vectors)
        await vectors.close()
    assert server.asked[0] == "GET /collections"
    assert server.asked[-1] == "PUT /collections/tenant_acme-corp_resnet50_vectors/points"
    assert logs == []
    assert await doctors_check(settings) == ("ok", f"{settings.qdrant_url} answers")


async def test_the_key_may_be_in_a_file(
    server: KeyedServer, authority: Authority, tmp_path: Path
) -> None:
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    settings = Settings(
        qdrant_url=await server.start(), qdrant_api_key_file=file, qdrant_ca=authority.certificate
    )
    vectors = open_vectors(settings)
    await vectors.ping()
    await vectors.close()


async def test_a_wrong_key_is_named_and_not_shown(
    server: KeyedServer, authority: Authority
) -> None:
    settings = Settings(
        qdrant_url=await server.start(),
        qdrant_api_key=SecretStr("wrong-key"),
        qdrant_ca=authority.certificate,
    )
    vectors = open_vectors(settings)
    with capture_logs() as logs, pytest.raises(VectorsUnavailable) as caught:
        await vectors.ping()
    await vectors.close()
    state, detail = await doctors_check(settings)
    assert state == "fail"
    assert "401" in detail
    assert "DEEPLENS_QDRANT_API_KEY" in detail
    for said in (repr(logs), repr(caught.value), str(caught.value.__cause__), detail):
        assert "wrong-key" not in said


async def test_a_server_that_nobody_vouches_for_gets_nothing(server: KeyedServer) -> None:
    settings = Settings(qdrant_url=await server.start(), qdrant_api_key=SecretStr(KEY))
    vectors = open_vectors(settings)
    with pytest.raises(VectorsUnavailable) as caught:
        await upsert(vectors)
    await vectors.close()
    assert "CERTIFICATE_VERIFY_FAILED" in str(caught.value.__cause__)
    assert server.asked == []


@pytest.mark.parametrize(
    ("url", "lines"),
    [
        ("http://qdrant.example:6333", 1),
        ("http://10.0.0.7:6333", 1),
        ("http://127.0.0.1:6333", 0),
        ("http://[::1]:6333", 0),
        ("http://localhost:6333", 0),
        ("https://qdrant.example:6333", 0),
    ],
)
async def test_a_key_without_tls_is_one_line_in_the_log(url: str, lines: int) -> None:
    with warnings.catch_warnings(), capture_logs() as logs:
        warnings.simplefilter("error")
        await connect(url, KEY).close()
    assert len(logs) == lines
    assert KEY not in repr(logs)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"qdrant_url": "http://q:6333", "qdrant_ca": "/x"}, "DEEPLENS_QDRANT_CA .* not https"),
        ({"qdrant_url": "https://q:6333", "qdrant_ca": "/x"}, "DEEPLENS_QDRANT_CA: /x cannot be"),
        ({"qdrant_url": f"https://me:{KEY}@q"}, "DEEPLENS_QDRANT_URL holds a user"),
        ({"qdrant_url": "https://q", "qdrant_api_key": f"{KEY}\n"}, "DEEPLENS_QDRANT_API_KEY has"),
        ({"qdrant_url": "https://q", "qdrant_api_key": f"{KEY}ß"}, "DEEPLENS_QDRANT_API_KEY has"),
        (
            {"qdrant_url": "https://q", "qdrant_api_key": KEY, "qdrant_api_key_file": "/x"},
            "DEEPLENS_QDRANT_API_KEY and DEEPLENS_QDRANT_API_KEY_FILE are both set",
        ),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        open_vectors(Settings(**settings))
    assert KEY not in caught.value.message
