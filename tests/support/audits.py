"""Audits as tests ask for them, and what they look at."""

import json
from typing import Any

from aiohttp import ClientResponse

from deeplens_streams.broker.topology import PROGRESS
from deeplens_streams.storage import image_objects
from deeplens_streams.storage.blobs.store import Write
from models.events import utc_now
from models.images import StoredImage
from models.status import ImageProgress
from tables import image_status
from tests.support.openapi_answers import breaches_of
from tests.support.photographs import photograph
from tests.support.web_server import TENANT, Web

AUDIT = "/api/v1/admin/audit"
PICTURE = photograph("rocket").data


async def lines_of(response: ClientResponse) -> list[dict[str, Any]]:
    """Return an audit's lines, each as the OpenAPI document has it."""
    lines = [json.loads(line) for line in (await response.text()).splitlines()]
    assert [breach for line in lines for breach in breaches_of("AuditLine", line)] == []
    return lines


async def audited(served: Web, query: str = "") -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the findings and the ledger of all."""
    async with served.client.post(f"{AUDIT}?{query}") as response:
        assert response.status == 200
        lines = await lines_of(response)
    assert lines[-1]["type"] == "total"
    return [line for line in lines if line["type"] == "finding"], lines[-1]


def faults(findings: list[dict[str, Any]]) -> list[str]:
    """Return what was found, in order, but for claims: they are made behind the answer."""
    found = [each["fault"] for each in findings]
    return sorted(each for each in found if each != "claim_orphaned")


async def completed(served: Web, tenant: str = TENANT) -> str:
    answer = await served.upload(PICTURE, tenantId=tenant, skipDuplicateCheck="true")
    await served.index(answer["imageId"])
    image_id: str = answer["imageId"]
    return image_id


async def stored(served: Web, image_id: str) -> StoredImage:
    image = await served.storage.find(image_id)
    assert image is not None
    return image


async def damage(served: Web, image: StoredImage, data: bytes = b"{") -> None:
    key, _ = image_objects.metadata_of(image)
    await served.blobs.put(Write(key, data), action="damage")


async def remove(served: Web, key: str) -> None:
    await served.blobs.delete(key, action="damage")


def follow(served: Web) -> None:
    """Do the status table's work for what was sent."""
    for message in served.sent:
        if message.topic is PROGRESS and isinstance(message.event, ImageProgress):
            image_id = message.event.data.imageId
            row = image_status.joined(served.rows.held.get(image_id), message.event, now=utc_now())
            if row is not None:
                served.rows.held[image_id] = row
    served.sent.clear()
