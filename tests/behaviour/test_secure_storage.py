"""Image storage on a real S3 server that wants TLS and the right key."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from deeplens_streams.circuit_breaker import Breakers
from deeplens_streams.config import Settings
from deeplens_streams.errors import ConfigurationError, StorageUnavailable
from deeplens_streams.identifiers import new_image_id
from deeplens_streams.storage import open_storage
from tests.support.certificates import Authority
from tests.support.s3_server import S3Server

pytestmark = pytest.mark.s3

NOON = "2025-03-09T12:00:00.000Z"
BUCKET = "pictures"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def server(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    server = S3Server(tmp_path_factory.mktemp("s3"), tls=authority.issue("storage"))
    server.bucket(BUCKET)
    server.start()
    yield server
    server.kill()


@pytest.fixture(autouse=True)
def _environment(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)


def settings(ca: Path | None) -> Settings:
    return Settings(storage_url=f"s3://{BUCKET}/prefix", storage_ca=ca)


async def test_a_private_authority_is_trusted_by_setting(authority: Authority) -> None:
    storage = open_storage(settings(authority.certificate))
    image_id = new_image_id()
    key = storage.thumbnail_key(tenant="acme-corp", image_id=image_id, uploaded_at=NOON)
    await storage.put_thumbnail(tenant="acme-corp", key=key, data=b"a picture")
    assert await storage.get(tenant="acme-corp", key=key) == b"a picture"
    await storage.ping()


async def test_one_of_several_authorities_in_the_file_is_enough(
    authority: Authority, tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle.pem"
    other = Authority(tmp_path, "other")
    bundle.write_bytes(other.certificate.read_bytes() + authority.certificate.read_bytes())
    await open_storage(settings(bundle)).ping()


async def test_without_it_the_sentence_says_that_nothing_is_trusted() -> None:
    with pytest.raises(StorageUnavailable, match=r"not trusted \(UnknownIssuer\).*STORAGE_CA"):
        await open_storage(settings(None)).ping()


async def test_a_wrong_key_is_one_line_in_the_log_without_the_secret(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    storage = Breakers().guard(open_storage(settings(authority.certificate)), "storage")
    with capture_logs() as logs, pytest.raises(StorageUnavailable) as caught:
        await storage.find(new_image_id())
    (line,) = logs
    assert "refuses access (SignatureDoesNotMatch)" in line["reason"]
    assert "\n" not in line["cause"]
    cause = caught.value.__cause__
    for said in (repr(logs), str(cause), repr(cause), repr(storage), caught.value.message):
        assert "not-the-secret" not in said


async def test_a_file_that_is_no_certificate_is_refused(tmp_path: Path) -> None:
    missing, junk = tmp_path / "missing.pem", tmp_path / "junk.pem"
    junk.write_text("nothing of the kind")
    with pytest.raises(ConfigurationError, match=r"DEEPLENS_STORAGE_CA: .* cannot be read"):
        open_storage(settings(missing))
    with pytest.raises(ConfigurationError, match=r"DEEPLENS_STORAGE_CA: .* holds no certificate"):
        open_storage(settings(junk))
