"""Requests to the extraction service, and what answers them without a network."""

import aiohttp

from deeplens_streams.config import Settings
from deeplens_streams.features.models import UNTRAINED
from deeplens_streams.testing.features import MemoryFeatures
from tests.support.photographs import as_jpeg, photograph

SETTINGS = Settings(weights="untrained", max_upload_bytes=300_000, max_pixels=1_000_000)
PICTURE = as_jpeg(photograph("china").data)


def features() -> MemoryFeatures:
    return MemoryFeatures(max_pixels=SETTINGS.max_pixels, model=UNTRAINED)


def form(
    data: bytes | None = PICTURE, *, image_id: str | None = "img_1", **fields: str
) -> aiohttp.FormData:
    built = aiohttp.FormData(default_to_multipart=True)
    if data is not None:
        built.add_field("file", data, filename="picture.jpg", content_type="image/jpeg")
    if image_id is not None:
        fields["image_id"] = image_id
    for name, value in fields.items():
        built.add_field(name, value)
    return built
