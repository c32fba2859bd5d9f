"""Dead letters, kept until somebody decides what becomes of them."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import orjson
import structlog

from deeplens_streams.errors import DeepLensError
from deeplens_streams.identifiers import check_tenant_id, is_tenant_id
from deeplens_streams.storage import object_keys
from deeplens_streams.storage.blobs.store import AlreadyThere, Blobs, Write
from deeplens_streams.storage.image_objects import DamagedMetadata, reading
from deeplens_streams.storage.listing import by_date
from deeplens_streams.storage.listing.cursor import decode_cursor, encode_cursor
from deeplens_streams.storage.listing.walk import MAX_AT_ONCE, in_order
from models.events import utc_now
from models.letters import DeadLetter, LetterState

log = structlog.get_logger()

#: Letters and tenants that one page looks at; it goes on from the cursor.
MAX_WALK, MAX_TENANTS = 1000, 500


@dataclass(frozen=True, slots=True)
class LetterPage:
    """Some of a tenant's dead letters, newest first; `cursor` continues them.

    Attributes
    ----------
    looked : how many were looked at.
    """

    letters: list[DeadLetter]
    cursor: str | None
    looked: int


class DeadLetterStore:
    """The dead letters of all tenants, and those of nobody (tenant ``""``)."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    async def keep(self, letter: DeadLetter) -> None:
        """Keep a letter; one that is kept already stays as it is."""
        # 1. Pointer, by which its ID alone finds it; IDs are one tenant's, see `kept_as`.
        # The first one counts: a letter that is written again, because of a crash, has another
        # time.
        said = orjson.dumps({"tenantId": letter.tenantId, "at": letter.failedAt})
        pointer = Write(object_keys.letter_pointer_key(letter.letterId), said, if_absent=True)
        try:
            await self._blobs.put(pointer, action="keep a dead letter")
            key = _key(letter.tenantId, letter.letterId, letter.failedAt)
        except AlreadyThere:
            located = await self._locate(letter.letterId)
            key = located or _key(letter.tenantId, letter.letterId, letter.failedAt)
            if located is None:  # it cannot be read
                await self.point(letter, key)
        # 2. Letter.
        write = Write(key, orjson.dumps(letter.to_wire()), if_absent=True)
        with suppress(AlreadyThere):
            await self._blobs.put(write, action="keep a dead letter")

    async def find(self, letter_id: str) -> DeadLetter | None:
        located = await self._locate(letter_id)
        return await self._read(located) if located else None

    async def claim(self, letter: DeadLetter, *, seconds: float) -> bool:
        """Write down that a retry of a letter begins; of several who try, one succeeds.

        Parameters
        ----------
        seconds : for how long the claim of another who said nothing since is respected.

        Returns
        -------
        False where it is gone, does not wait any more, or is another's.
        """
        letter.retryBegunAt = utc_now()

        def is_free(kept: DeadLetter) -> bool:
            return not is_claimed(kept, seconds=seconds)

        return await self._replace(letter, is_free, action="claim a dead letter")

    async def release(self, letter: DeadLetter) -> bool:
        """Take a claim back, so that the next retry need not wait."""
        claim, letter.retryBegunAt = letter.retryBegunAt, None
        return await self._replace(
            letter, lambda kept: kept.retryBegunAt == claim, action="release a dead letter"
        )

    async def resolve(self, letter: DeadLetter, *, key: str | None = None) -> bool:
        """Write down what became of a letter that waits; of several who try, one succeeds.

        Parameters
        ----------
        key : where it was seen, whatever its ID leads to.

        Returns
        -------
        False where it is gone, does not wait any more, or was claimed since it was read.
        """
        claim, letter.retryBegunAt = letter.retryBegunAt, None
        return await self._replace(
            letter, lambda kept: kept.retryBegunAt == claim, action="resolve a dead letter", key=key
        )

    async def _replace(
        self,
        letter: DeadLetter,
        agrees: Callable[[DeadLetter], bool],
        *,
        action: str,
        key: str | None = None,
    ) -> bool:
        """Replace a letter that waits and `agrees`, unless somebody else is faster."""
        located = key or await self._locate(letter.letterId)
        if located is None:
            return False
        raw = await self._blobs.get(located, action="read a dead letter")
        kept = _parsed(located, raw)
        if raw is None or kept is None or kept.state != LetterState.WAITING or not agrees(kept):
            return False
        write = Write(located, orjson.dumps(letter.to_wire()))
        return await self._blobs.swap(write, old=raw, action=action)

    async def point(self, letter: DeadLetter, key: str) -> None:
        """Write the pointer of a letter that was seen at a key, whatever was there."""
        place = object_keys.read_dated_key(key)
        assert place is not None, "it was found by its key"
        said = orjson.dumps({"tenantId": letter.tenantId, "at": object_keys.time_of(place[0])})
        write = Write(object_keys.letter_pointer_key(letter.letterId), said)
        await self._blobs.put(write, action="write a dead letter's pointer")

    async def remove(self, letter_id: str) -> None:
        """Remove a letter; what is gone is no error."""
        located = await self._locate(letter_id)
        if located is not None:
            # 1. letter, 2. pointer, without which the first could not be found again
            await self._blobs.delete(located, action="remove a dead letter")
        await self._blobs.delete(
            object_keys.letter_pointer_key(letter_id), action="remove a dead letter"
        )

    async def page(
        self,
        *,
        tenant: str,
        limit: int,
        wanted: Callable[[DeadLetter], bool],
        cursor: str | None = None,
        most: int = MAX_WALK,
    ) -> LetterPage:
        """Return up to `limit` letters that are wanted, newest first, after `cursor`.

        It looks at `most`, so there may be fewer and yet a cursor.
        """
        before = None
        if cursor:
            ms, uuid = decode_cursor(tenant=tenant, cursor=cursor)
            before = object_keys.letter_key(tenant=tenant, letter_id=uuid, ms=ms)
        found: list[DeadLetter] = []
        last, looked = "", 0
        folder = object_keys.letter_folder(tenant)
        walk = by_date.walk(self._blobs, folder, self._read, before=before)
        async with aclosing(walk) as letters:
            async for key, letter in letters:
                if len(found) == limit or looked == most:
                    return LetterPage(found, encode_cursor(tenant=tenant, key=last), looked)
                last, looked = key, looked + 1
                if wanted(letter):
                    found.append(letter)
        return LetterPage(found, None, looked)

    async def page_of_all(
        self,
        *,
        limit: int,
        wanted: Callable[[DeadLetter], bool],
        serves: Callable[[str], bool],
        cursor: str | None = None,
    ) -> LetterPage:
        """Return letters as `page` does, those of nobody and then of one tenant after the other.

        It looks at `MAX_WALK` letters and into `MAX_TENANTS` tenants at the most.

        Parameters
        ----------
        serves : whether a tenant's letters may be listed.
        """
        first, _, place = (cursor or "").partition(".")
        found: list[DeadLetter] = []
        looked = tenants = 0
        owners = in_order(self._owners(first, serves), self._has_letters, at_once=MAX_AT_ONCE)
        async with aclosing(owners):
            async for tenant, has_letters in owners:
                is_full = len(found) == limit or looked == MAX_WALK
                if tenants == MAX_TENANTS or (has_letters and is_full):
                    return LetterPage(found, f"{tenant}.", looked)
                tenants += 1
                if not has_letters:
                    continue
                page = await self.page(
                    tenant=tenant,
                    limit=limit - len(found),
                    wanted=wanted,
                    cursor=place if tenant == first else None,
                    most=MAX_WALK - looked,
                )
                found += page.letters
                looked += page.looked
                if page.cursor is not None:
                    return LetterPage(found, f"{tenant}.{page.cursor}", looked)
        return LetterPage(found, None, looked)

    async def _owners(self, first: str, serves: Callable[[str], bool]) -> AsyncGenerator[str]:
        """Yield who may have letters, from `first` on; nobody comes before all tenants."""
        names = (path.rstrip("/") for path in await self._blobs.children("", action="list tenants"))
        for tenant in ["", *sorted(filter(is_tenant_id, names))]:
            if tenant >= first and serves(tenant):
                yield tenant

    async def _has_letters(self, tenant: str) -> tuple[str, bool]:
        folder = object_keys.letter_folder(tenant)
        return tenant, bool(await self._blobs.children(folder, action="list dead letters"))

    def walk(self, *, tenant: str) -> AsyncGenerator[DeadLetter]:
        """Yield every letter of a tenant, in no order and in memory that is bounded."""
        return by_date.each(self._blobs, object_keys.letter_folder(tenant), self._read)

    async def _locate(self, letter_id: str) -> str | None:
        raw = await self._blobs.get(
            object_keys.letter_pointer_key(letter_id), action="read a dead letter"
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
        return _parsed(key, await self._blobs.get(key, action="read a dead letter"))


def is_claimed(letter: DeadLetter, *, seconds: float) -> bool:
    """Tell whether somebody began to retry a letter within that time."""
    return is_recent(letter.retryBegunAt, seconds=seconds)


def is_recent(at: str | None, *, seconds: float) -> bool:
    """Tell whether a letter's time, if it has one, is not longer ago.

    One that is ahead by more is of a clock that is wrong, and binds nobody.
    """
    try:
        age = (datetime.now(UTC) - datetime.fromisoformat(at or "")).total_seconds()
    except (ValueError, TypeError):
        return False
    return abs(age) < seconds


def _parsed(key: str, raw: bytes | None) -> DeadLetter | None:
    if raw is not None:
        with suppress(DamagedMetadata):
            return parsed_letter(key, raw)
    return None


def parsed_letter(key: str, raw: bytes) -> DeadLetter:
    """Return the letter at a key.

    Raises
    ------
    DamagedMetadata
        It cannot be read, or is another one.
    """
    with reading("a dead letter", key):
        letter = DeadLetter.from_wire(orjson.loads(raw))
        place = object_keys.read_dated_key(key)
        # Its time may be another: one that is written again lies where the first one was to be.
        is_here = place is not None and place[1] == letter.letterId
        if not is_here or not key.startswith(f"{object_keys.letter_folder(letter.tenantId)}/"):
            raise ValueError("it is another letter")
        object_keys.epoch_ms(letter.failedAt)
        return letter


def _key(tenant: str, letter_id: str, failed_at: str) -> str:
    return object_keys.letter_key(
        tenant=tenant, letter_id=letter_id, ms=object_keys.epoch_ms(failed_at)
    )
