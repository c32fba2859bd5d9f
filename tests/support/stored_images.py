"""An image as storage keeps it, and the storages that tests run on."""

import uuid
from datetime import UTC, datetime
from pathlib import Path

import pytest

from deeplens_streams.config import Settings
from deeplens_streams.identifiers import new_image_id
from deeplens_streams.storage import Blobs, ImageStorage, ObjectImages, open_blobs
from models.events import PictureFacts, ProcessingOptions
from models.images import StoredImage

NOON = datetime(2025, 3, 9, 12, 0, tzinfo=UTC)


@pytest.fixture(
    params=["memory", "local", "local-not-synced", pytest.param("s3", marks=pytest.mark.s3)]
)
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "memory":
        return "memory://"
    if request.param.startswith("local"):
        monkeypatch.setenv("DEEPLENS_SYNC", str(request.param == "local").lower())
        return (tmp_path / "images of mine").as_uri()
    server = request.getfixturevalue("s3_server")
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return f"{server.bucket(f'b{uuid.uuid4()}')}/some/prefix"


@pytest.fixture
def blobs(url: str) -> Blobs:
    return open_blobs(Settings(storage_url=url))


@pytest.fixture
def storage(blobs: Blobs) -> ImageStorage:
    return ObjectImages(blobs)


def iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def image(
    storage: ImageStorage, *, tenant: str = "acme-corp", at: datetime = NOON, name: str = "a.jpg"
) -> StoredImage:
    image_id, uploaded_at = new_image_id(), iso(at)
    return StoredImage(
        imageId=image_id,
        tenantId=tenant,
        correlationId=str(uuid.uuid4()),
        fileName=name,
        originalKey=storage.original_key(
            tenant=tenant, image_id=image_id, uploaded_at=uploaded_at, format="JPEG"
        ),
        thumbnailKey=storage.thumbnail_key(
            tenant=tenant, image_id=image_id, uploaded_at=uploaded_at
        ),
        fileSize=300_000,
        contentType="image/jpeg",
        checksumSha256="0" * 64,
        uploadedAt=uploaded_at,
        metadata=PictureFacts(width=640, height=480, format="JPEG", exifData={"Make": "Größe"}),
        processingOptions=ProcessingOptions(models=["resnet50"]),
        tags={"place": "北京", "a.b": "c=d"},
        uploadedBy="ann",
    )
