"""Who has which bytes: a tenant's second upload of the same picture finds the first.

A claim is one object, named by tenant and SHA-256, that a conditional write makes: of two uploads
at the same moment, one is first. It is *pending* until its picture is accepted, because nobody may
be referred to a picture that is refused in the end.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass

import orjson

from deeplens_streams.identifiers import check_image_id
from deeplens_streams.storage import object_keys
from deeplens_streams.storage.blobs.store import AlreadyThere, Blobs, Write
from deeplens_streams.storage.image_objects import DamagedMetadata, reading
from deeplens_streams.storage.object_keys import epoch_ms
from models.events import utc_now
from models.images import StoredImage


@dataclass(frozen=True, slots=True)
class Claim:
    """What a claim says.

    Attributes
    ----------
    at : when it was made, ISO-8601 UTC.
    raw : its bytes, by which it is told from a later one.
    """

    image_id: str
    uploaded_at: str
    confirmed: bool
    at: str
    raw: bytes


class DuplicateClaims:
    """The claims of all tenants."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    async def find(self, *, tenant: str, checksum: str) -> Claim | None:
        """Return who has these bytes, or None if nobody has."""
        raw = await self._blobs.get(
            object_keys.claim_key(tenant=tenant, checksum=checksum), action="read a claim"
        )
        return None if raw is None else read_claim(raw)

    async def walk(self, *, tenant: str) -> AsyncGenerator[tuple[str, Claim]]:
        """Yield checksum and claim of everything that a tenant has claimed.

        One that is damaged is of no image (``""``).
        """
        folder = object_keys.claim_folder(tenant)
        async with aclosing(self._blobs.walk(folder, action="list claims")) as keys:
            async for key in keys:
                checksum = key.rpartition("/")[2].removesuffix(".json")
                claim = await self.find(tenant=tenant, checksum=checksum)
                if claim is not None:
                    yield checksum, claim

    @staticmethod
    def pending(image: StoredImage) -> Write:
        """Return the write that claims the image's bytes, if nobody else has them."""
        return Write(_key(image), lambda: _said(image, confirmed=False), if_absent=True)

    async def take_over(self, image: StoredImage, old: Claim) -> bool:
        """Claim for `image` what `old` claimed; False if that claim is no longer there."""
        write = Write(_key(image), _said(image, confirmed=False))
        return await self._blobs.swap(write, old=old.raw, action="take over a claim")

    async def confirm(self, image: StoredImage) -> None:
        """Say that the image is accepted; a claim that is another's by now stays theirs.

        One that cannot be read is nobody's.
        """
        old = await self.find(tenant=image.tenantId, checksum=image.checksumSha256)
        said = _said(image, confirmed=True)
        if old is None:  # it was uploaded without a look at duplicates
            with suppress(AlreadyThere):
                write = Write(_key(image), said, if_absent=True)
                await self._blobs.put(write, action="confirm a claim")
        elif not old.image_id or (old.image_id == image.imageId and not old.confirmed):
            await self._blobs.swap(Write(_key(image), said), old=old.raw, action="confirm a claim")

    async def release(self, *, tenant: str, checksum: str, image_id: str) -> None:
        """Remove the claim if it is this image's.

        An upload that takes it over between the look and the removal goes unclaimed: then a later
        one of the same bytes is processed as if they were new.
        """
        found = await self.find(tenant=tenant, checksum=checksum)
        if found is not None and found.image_id == image_id:
            await self._blobs.delete(
                object_keys.claim_key(tenant=tenant, checksum=checksum), action="release a claim"
            )


def _key(image: StoredImage) -> str:
    return object_keys.claim_key(tenant=image.tenantId, checksum=image.checksumSha256)


def _said(image: StoredImage, *, confirmed: bool) -> bytes:
    said = {
        "imageId": image.imageId,
        "uploadedAt": image.uploadedAt,
        "confirmed": confirmed,
        "at": utc_now(),
    }
    return orjson.dumps(said)


def read_claim(raw: bytes) -> Claim:
    """Return the claim; a damaged one is nobody's, so that it can be taken over."""
    with suppress(DamagedMetadata), reading("a claim", "of a checksum"):
        said = orjson.loads(raw)
        claim = Claim(
            image_id=check_image_id(said["imageId"]),
            uploaded_at=said["uploadedAt"],
            confirmed=said["confirmed"] is True,
            at=said["at"],
            raw=raw,
        )
        for moment in (claim.uploaded_at, claim.at):
            epoch_ms(moment)
        return claim
    return Claim(image_id="", uploaded_at="", confirmed=True, at="", raw=raw)
