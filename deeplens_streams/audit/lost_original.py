"""The original of an image without a metadata object: where it lies, and whether it is whole."""

import asyncio
import tempfile
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from deeplens_streams.audit.context import AuditContext
from deeplens_streams.audit.guard import unless_damaged
from deeplens_streams.audit.report import NotRepaired
from deeplens_streams.errors import DeepLensError, ExtractorUnavailable
from deeplens_streams.imaging.header import PictureHeader, inspect
from deeplens_streams.storage import object_keys
from deeplens_streams.storage.blobs.memory_budget import MIB
from deeplens_streams.storage.duplicate_claims import Claim, read_claim
from deeplens_streams.storage.listing.walk import MAX_AT_ONCE, in_order
from deeplens_streams.storage.measured import Measured, measured
from models.images import StoredImage
from models.status import ImageRow

#: Bytes of an original that are held in memory while it is looked at; more lie on the disk.
_IN_MEMORY = 4 * MIB
#: What is left to do for a person.
WAY_OUT = "bring its metadata object back from a backup, or delete the image"
#: A kind of listing.
_CLAIMS = "claims"


@dataclass(frozen=True, slots=True)
class Lost:
    """An image without a metadata object that can be read.

    Attributes
    ----------
    damaged_key : where the one lies that cannot be read.
    times : when it may have been uploaded, ISO-8601, the surest first; whatever parts of it say.
    original_key : where its original lies, if that is known.
    """

    tenant: str
    image_id: str
    row: ImageRow | None
    times: tuple[str, ...] = ()
    damaged_key: str | None = None
    original_key: str | None = None


@dataclass(frozen=True, slots=True)
class Original:
    """An original as it was read.

    Attributes
    ----------
    ms : when it was uploaded.
    doubt : what nobody can tell of its bytes, a sentence's end; None where they are whole.
    """

    key: str
    ms: int
    size: int
    checksum: str
    header: PictureHeader
    doubt: str | None


class LostOriginals:
    """Finds and reads originals."""

    def __init__(self, context: AuditContext) -> None:
        self._context, self._services = context, context.services

    async def read(self, lost: Lost, payload: dict[str, Any] | None) -> Original:
        """Return an image's original.

        Parameters
        ----------
        payload : what the image's vector says of it, or None if it has none.

        Raises
        ------
        NotRepaired
            It is not there, or is not what was uploaded.
        """
        key, ms = await self._place(lost, payload)
        with tempfile.SpooledTemporaryFile(_IN_MEMORY) as spooled:
            file = cast(BinaryIO, spooled)
            read = await self._read(lost.tenant, key, file)
            header = await self._header(file)
            claim = await self._services.claims.find(tenant=lost.tenant, checksum=read.sha256)
            doubt = await self._doubt(lost, payload or {}, read, claim, file)
        if claim is not None and claim.image_id == lost.image_id and lost.damaged_key is None:
            # More than a file's day tells.
            with suppress(ValueError):
                claimed_ms = object_keys.epoch_ms(claim.uploaded_at)
                ms = claimed_ms if object_keys.day_of(claimed_ms) == object_keys.day_of(ms) else ms
        return Original(key, ms, read.size, read.sha256, header, doubt)

    async def header(self, image: StoredImage) -> PictureHeader:
        """Return what an image's original says of itself, by what reads headers now.

        Raises
        ------
        NotRepaired
            It was taken once, and would not be now.
        """
        with tempfile.SpooledTemporaryFile(_IN_MEMORY) as spooled:
            file = cast(BinaryIO, spooled)
            await self._read(image.tenantId, image.originalKey, file)
            try:
                return await self._inspected(file, keep_gps=_tells_places(image))
            except DeepLensError as error:
                why = error.message.rstrip(".")
                raise NotRepaired(f"what is there of it stays: {why}") from None

    async def _place(self, lost: Lost, payload: dict[str, Any] | None) -> tuple[str, int]:
        """Return where the original lies, and when it was uploaded."""
        async with aclosing(self._moments(lost, payload)) as moments:
            async for ms in moments:
                key = lost.original_key or await self._services.inventory.find_original(
                    tenant=lost.tenant, image_id=lost.image_id, ms=ms
                )
                if key is not None and object_keys.read_file_day(key) == object_keys.day_of(ms):
                    return key, ms
        if lost.original_key is not None:
            return lost.original_key, await self._written_ms(lost.original_key)
        raise NotRepaired(f"its original is not there, either; {WAY_OUT}")

    async def _moments(self, lost: Lost, payload: dict[str, Any] | None) -> AsyncGenerator[int]:
        """Yield when the image may have been uploaded, the surest first."""
        if lost.damaged_key is not None:
            place = object_keys.read_dated_key(lost.damaged_key)
            assert place is not None, "it was found by its key"
            yield place[0]
            return  # it must lie where the damaged one lies
        said = (payload or {}).get("uploadedAt")
        for text in (*lost.times, said):
            with suppress(ValueError):
                if isinstance(text, str):
                    yield object_keys.epoch_ms(text)
        pointer = await self._context.sightings.pointer(lost.image_id)
        if pointer is not None and pointer.tenant == lost.tenant:
            yield pointer.ms

    async def _written_ms(self, key: str) -> int:
        """Return when a file was written, kept within the day that its key names."""
        day = object_keys.read_file_day(key)
        first = object_keys.epoch_ms(f"{day}T00:00:00+00:00")
        written = await self._services.inventory.written_at(key)
        ms = first if written is None else int(written.timestamp() * 1000)
        return min(max(first, ms), first + 86_400_000 - 1)

    async def _read(self, tenant: str, key: str, file: BinaryIO) -> Measured:
        found = await measured(self._services.storage.stream(tenant=tenant, key=key), into=file)
        file.seek(0)
        return found

    async def _header(self, file: BinaryIO) -> PictureHeader:
        try:
            return await self._inspected(file)
        except DeepLensError as error:
            raise _damaged(error.message) from None

    async def _inspected(self, file: BinaryIO, *, keep_gps: bool = False) -> PictureHeader:
        limit = self._services.settings.max_pixels
        return await asyncio.to_thread(inspect, file, max_pixels=limit, keep_gps=keep_gps)

    # Whether it is whole -------------------------------------------------------------------

    async def _doubt(
        self,
        lost: Lost,
        payload: dict[str, Any],
        read: Measured,
        claim: Claim | None,
        file: BinaryIO,
    ) -> str | None:
        """Return what nobody can tell of the bytes, a sentence's end; None where they are whole.

        Raises
        ------
        NotRepaired
            They are others than were uploaded, or end early.
        """
        said, stored = payload.get("checksumSha256"), lost.row.fileSize if lost.row else None
        if isinstance(said, str) and object_keys.is_checksum(said):
            if said != read.sha256:
                raise _damaged("its vector is of other bytes")
            return None
        if claim is not None and claim.image_id == lost.image_id:
            return None
        if await self._claimed(lost) - {read.sha256}:
            raise _damaged("it has claimed other bytes")
        if stored is not None and stored != read.size:
            raise _damaged(f"it has {read.size} of {stored} bytes")
        if claim is not None or stored is not None:
            return None  # just these were uploaded, if for another image; or as many
        return await self._decoded(file)

    async def _claimed(self, lost: Lost) -> set[str]:
        """Return the checksums of all bytes that the image has claimed."""
        index = self._context.index
        await index.fill(_CLAIMS, lost.tenant, self._claims(lost.tenant))
        return index.said(_CLAIMS, lost.image_id, tenant=lost.tenant)

    async def _claims(self, tenant: str) -> AsyncGenerator[tuple[str, str]]:
        keys = self._services.inventory.keys(object_keys.claim_folder(tenant))
        async with aclosing(in_order(keys, self._claim, at_once=MAX_AT_ONCE)) as claims:
            async for found in claims:
                if found is not None:
                    yield found

    async def _claim(self, key: str) -> tuple[str, str] | None:
        """Return the image that a claim names, and its checksum; None where nobody can tell."""
        checksum = key.rpartition("/")[2].removesuffix(".json")
        work = self._services.inventory.read(key)
        raw = await unless_damaged(work, None, self._services, key=key)
        image_id = "" if raw is None else read_claim(raw).image_id
        return (image_id, checksum) if image_id and object_keys.is_checksum(checksum) else None

    async def _decoded(self, file: BinaryIO) -> str:
        """Have the original decoded, which is all that can be known of it."""
        features = self._services.features
        if features is None:
            return "nothing tells whether its original is whole, but what becomes of it now"
        file.seek(0)
        try:
            await features.extract(await asyncio.to_thread(file.read))
        except ExtractorUnavailable:
            raise NotRepaired(
                "nothing tells whether its original is whole, and the model that could decode it "
                "does not answer; repair again when it does"
            ) from None
        except DeepLensError as error:
            raise _damaged(error.message) from None
        return "that its original can be decoded is all that tells that it is whole"


def _tells_places(image: StoredImage) -> bool:
    """Tell whether its places were asked for at upload."""
    return "GPSInfo" in (image.metadata.exifData or {})


def _damaged(why: str) -> NotRepaired:
    return NotRepaired(f"its original is damaged, too: {why.rstrip('.')}; {WAY_OUT}")
