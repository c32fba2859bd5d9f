"""A system of many images on parts in memory, damaged at random, and its audits."""

import hashlib
import io
import random
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from PIL import Image

from deeplens_streams.audit.context import DamagedRow
from deeplens_streams.audit.runner import Audit
from deeplens_streams.storage import object_keys
from deeplens_streams.storage.blobs.store import Write
from models.images import StoredImage
from models.status import ImageRow
from tests.support.killed_systems import TENANT, Fuse, System
from tests.support.stored_images import NOON
from tests.support.stored_images import image as made_image

#: Of ten images, one cannot be decoded and one is deleted.
_TENTH = 10
#: Images that are looked for: in memory, each search compares with all.
_SEARCHED = 50
#: Where each kind of object lies.
KINDS = {
    "original": f"{TENANT}/original",
    "thumbnail": f"{TENANT}/thumbnail",
    "metadata": f"{TENANT}/metadata",
    "tombstone": f"{TENANT}/deleted",
    "claim": f"{TENANT}/checksum",
    "letter": f"{TENANT}/failed",
    "pointer": "index",
    "letter's pointer": "failed",
}


def picture(number: int, *, is_broken: bool) -> bytes:
    """Return a small JPEG unlike any other, or one that lacks more than a row of blocks."""
    pixels = np.random.default_rng(number).integers(0, 255, (24, 24, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=80)
    data = buffer.getvalue()
    return data[: len(data) * 7 // 10] if is_broken else data


@dataclass
class Audited:
    """What an audit said."""

    findings: list[dict[str, Any]]
    total: dict[str, Any]

    @property
    def told(self) -> list[tuple[str, str, bool]]:
        return sorted((each["imageId"], each["fault"], each["repaired"]) for each in self.findings)


class ManyImages(System):
    """Images that are completed, failed or deleted, and what happens to their objects."""

    read_up_to: datetime | None = None

    def __init__(self) -> None:
        super().__init__(Fuse())
        self.images: dict[str, StoredImage] = {}
        self.failed: set[str] = set()
        self.deleted: set[str] = set()

    async def build(self, count: int) -> None:
        for number in range(count):
            is_broken = number % _TENTH == 1
            data = picture(number, is_broken=is_broken)
            image = await self.upload_whole(data, NOON + timedelta(hours=number))
            self.images[image.imageId] = image
            if is_broken:
                self.failed.add(image.imageId)
        await self.acceptance.background.settled()
        await self.settle()
        for number, image_id in enumerate(self.images):
            if number % _TENTH == 2:
                await self.delete(image_id)
                self.deleted.add(image_id)
        await self.settle()

    async def upload_whole(self, data: bytes, at: datetime) -> StoredImage:
        image = made_image(self.services.storage, at=at)
        image.fileSize, image.checksumSha256 = len(data), hashlib.sha256(data).hexdigest()
        image.tags, image.uploadedBy = {"a": image.imageId}, "somebody"
        image.processingOptions.models = [self.services.model.name]
        accepted = await self.acceptance.accept(image, data)
        assert accepted.image is image
        return image

    async def damage(self, seed: int, share: float) -> set[str]:
        """Lose, empty or cut so many objects of each kind; return whose originals are hit."""
        chosen, hit = random.Random(seed), set[str]()
        for kind, folder in KINDS.items():
            keys = sorted([key async for key in self.blobs.walk(folder, action="damage")])
            for key in keys:
                if chosen.random() < share:
                    await self.hurt(key, chosen.choice(("lost", "emptied", "cut")))
                    if kind == "original":
                        hit.add(object_keys.read_image_id(key))
        for image_id in sorted(self.images):
            if chosen.random() < share:
                await self.vectors.delete([image_id], tenant=TENANT, model=self.services.model.name)
            if chosen.random() < share and image_id not in self.deleted:
                self.table.pop(image_id.encode(), None)
        return hit

    async def hurt(self, key: str, how: str) -> None:
        data = await self.blobs.get(key, action="damage") or b""
        if how == "lost":
            await self.blobs.delete(key, action="damage")
        else:
            cut = b"" if how == "emptied" else data[: len(data) // 2]
            await self.blobs.put(Write(key, cut), action="damage")

    async def audit(self, *, repair: bool, settle: bool = True) -> Audited:
        """Audit, and have the pipeline do what came of it."""
        self.read_up_to = datetime.now(UTC) + timedelta(hours=1)
        work = Audit(self.services, self, self.all_rows, self.send, self, repair=repair)
        async with aclosing(work.run([TENANT], is_all=True)) as lines:
            said = [line async for line in lines]
        if settle:
            await self.settle()
        findings = [line for line in said if line["type"] == "finding"]
        return Audited(findings, said[-1])

    async def all_rows(self) -> AsyncGenerator[list[ImageRow | DamagedRow]]:
        yield list(self.table.values())

    async def originals(self) -> Counter[bytes]:
        """Return the bytes of every original, those in the trash included."""
        found = Counter[bytes]()
        async for key in self.blobs.walk(KINDS["original"], action="count"):
            found[await self.blobs.get(key, action="count") or b""] += 1
        page, cursor = None, None
        while page is None or cursor is not None:
            page = await self.services.trash.page(limit=100, cursor=cursor)
            for entry in page.entries:
                if entry.manifest.kind == "original":
                    found[await self.services.trash.content(entry)] += 1
            cursor = page.cursor
        return found


async def check(count: int, seed: int) -> dict[str, int]:
    """Repair a damaged system five times; return how many of each fault the first one found."""
    system = ManyImages()
    await system.build(count)
    whole = await system.audit(repair=False)
    assert (whole.findings, whole.total["accepted"]) == ([], count)
    hit = await system.damage(seed, 0.05)
    before = await system.originals()
    damaged = await system.audit(repair=False)
    assert damaged.total["accepted"] == count
    first = await system.audit(repair=True)
    assert first.total["accepted"] == count
    staying: list[tuple[str, str, bool]] | None = None
    for _ in range(4):
        again = await system.audit(repair=True)
        assert again.total["accepted"] == count
        assert not any(repaired for _, _, repaired in again.told), again.told
        assert staying in (None, again.told)
        staying = again.told
    assert {image_id for image_id, _, _ in staying or []} <= hit
    assert await system.originals() == before
    await _check_sound(system, hit)
    return dict(first.total["faults"])


async def _check_sound(system: ManyImages, hit: set[str]) -> None:
    """Check that every image whose original is whole is where it was, and is found."""
    sound = system.images.keys() - hit - system.failed - system.deleted
    model = system.services.model.name
    rows = await system.rows(sorted(sound))
    assert {row.status for row in rows.values()} == {"completed"}
    assert rows.keys() == sound
    assert await system.vectors.present(sorted(sound), tenant=TENANT, model=model) == sound
    for image_id in sorted(sound):
        found = await system.services.storage.find(image_id)
        assert found is not None
        image = system.images[image_id]
        assert (found.checksumSha256, found.originalKey) == (
            image.checksumSha256,
            image.originalKey,
        )
        claim = await system.services.claims.find(tenant=TENANT, checksum=image.checksumSha256)
        assert claim is not None
        assert claim.image_id == image_id
    for image_id in sorted(sound)[:: max(1, len(sound) // _SEARCHED)]:
        vector = await system.vectors.get_vector(tenant=TENANT, model=model, image_id=image_id)
        assert vector is not None
        hits = await system.vectors.search(
            vector, tenant=TENANT, model=model, limit=1, threshold=-1
        )
        assert hits[0].score > 0.999
    for image_id in sorted(system.failed - hit):
        assert (await system.rows([image_id]))[image_id].status == "failed"
    for image_id in sorted(system.deleted):
        assert await system.services.storage.find(image_id) is None
