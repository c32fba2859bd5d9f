"""Dead letters, kept until somebody decides what becomes of them."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass

import orjson
import structlog

from deeplens_streams.errors import DeepLensError
from deeplens_streams.identifiers import check_tenant_id
from deeplens_streams.storage import dated, layout
from deeplens_streams.storage.blobs import AlreadyThere, Blobs, Write
from deeplens_streams.storage.cursor import decode_cursor, encode_cursor
from models.letters import DeadLetter
from models.records import MalformedRecord

log = structlog.get_logger()

#: Letters that one page looks at; it goes on from the cursor.
MAX_WALK = 1000


@dataclass(frozen=True, slots=True)
class LetterPage:
    """Some of a tenant's dead letters, newest first; `cursor` continues them."""

    letters: list[DeadLetter]
    cursor: str | None


class LetterShelf:
    """The dead letters of all tenants, and those of nobody (tenant ``""``)."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    async def keep(self, letter: DeadLetter) -> None:
        """Keep a letter; one that is kept already stays as it is."""
        # 1. Pointer, by which its ID alone finds it; IDs are one tenant's, see `letters.kept_as`.
        # The first one counts: a letter that is written again, because of a crash, has another
        # time.
        said = orjson.dumps({"tenantId": letter.tenantId, "at": letter.failedAt})
        pointer = Write(layout.letter_pointer_key(letter.letterId), said, if_absent=True)
        try:
            await self._blobs.put(pointer, action="keep a dead letter")
            key = _key(letter.tenantId, letter.letterId, letter.failedAt)
        except AlreadyThere:
            located = await self._locate(letter.letterId)
            if located is None:
                return
            key = located
        # 2. Letter.
        write = Write(key, orjson.dumps(letter.to_wire()), if_absent=True)
        with suppress(AlreadyThere):
            await self._blobs.put(write, action="keep a dead letter")

    async def find(self, letter_id: str) -> DeadLetter | None:
        located = await self._locate(letter_id)
        return await self._read(located) if located else None

    async def resolve(self, letter: DeadLetter) -> None:
        """Write down what became of a letter."""
        located = await self._locate(letter.letterId)
        if located is not None:
            write = Write(located, orjson.dumps(letter.to_wire()))
            await self._blobs.put(write, action="resolve a dead letter")

    async def remove(self, letter_id: str) -> None:
        """Remove a letter; what is gone is no error."""
        located = await self._locate(letter_id)
        if located is not None:
            # 1. letter, 2. pointer, without which the first could not be found again
            await self._blobs.delete(located, action="remove a dead letter")
        await self._blobs.delete(
            layout.letter_pointer_key(letter_id), action="remove a dead letter"
        )

    async def page(
        self,
        *,
        tenant: str,
        limit: int,
        wanted: Callable[[DeadLetter], bool],
        cursor: str | None = None,
    ) -> LetterPage:
        """Return up to `limit` letters that are wanted, newest first, after `cursor`.

        It looks at `MAX_WALK` at the most, so there may be fewer and yet a cursor.
        """
        before = None
        if cursor:
            ms, uuid = decode_cursor(tenant=tenant, cursor=cursor)
            before = layout.letter_key(tenant=tenant, letter_id=uuid, ms=ms)
        found: list[DeadLetter] = []
        last, looked = "", 0
        folder = layout.letter_folder(tenant)
        walk = dated.walk(self._blobs, folder, self._read, before=before)
        async with aclosing(walk) as letters:
            async for key, letter in letters:
                if len(found) == limit or looked == MAX_WALK:
                    return LetterPage(found, encode_cursor(tenant=tenant, key=last))
                last, looked = key, looked + 1
                if wanted(letter):
                    found.append(letter)
        return LetterPage(found, None)

    def walk(self, *, tenant: str) -> AsyncGenerator[DeadLetter]:
        """Yield every letter of a tenant, in no order and in memory that is bounded."""
        return dated.each(self._blobs, layout.letter_folder(tenant), self._read)

    async def _locate(self, letter_id: str) -> str | None:
        raw = await self._blobs.get(
            layout.letter_pointer_key(letter_id), action="read a dead letter"
        )
        if raw is None:
            return None
        try:
            said = orjson.loads(raw)
            tenant = check_tenant_id(said["tenantId"]) if said["tenantId"] else ""
            return _key(tenant, letter_id, said["at"])
        except (ValueError, KeyError, TypeError, DeepLensError) as error:
            log.error("a dead letter's pointer is damaged", letter_id=letter_id, reason=str(error))
            return None

    async def _read(self, key: str) -> DeadLetter | None:
        raw = await self._blobs.get(key, action="read a dead letter")
        if raw is None:
            return None
        try:
            return DeadLetter.from_wire(orjson.loads(raw))
        except (orjson.JSONDecodeError, MalformedRecord) as error:
            log.error("a dead letter is damaged", key=key, reason=str(error))
            return None


def _key(tenant: str, letter_id: str, failed_at: str) -> str:
    return layout.letter_key(tenant=tenant, letter_id=letter_id, ms=layout.epoch_ms(failed_at))
