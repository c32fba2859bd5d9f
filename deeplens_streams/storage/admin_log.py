"""What operators did, kept where the images are: who, what, to whom, and how it ended."""

from contextlib import aclosing
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import orjson
import structlog

from deeplens_streams.storage import object_keys
from deeplens_streams.storage.blobs.store import Blobs, Write
from deeplens_streams.storage.listing import by_date
from models.admin import AdminAction
from models.events import utc_now
from models.records import MalformedRecord

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ActionPage:
    """Some actions, newest first; `cursor` continues them."""

    actions: list[AdminAction]
    cursor: str | None


class AdminLog:
    """The actions of all operators."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    async def begin(self, *, key_id: str, action: str, path: str, request_id: str) -> AdminAction:
        """Write down what is about to be done."""
        action_id, at = str(uuid4()), utc_now()
        entry = AdminAction(
            actionId=action_id, at=at, keyId=key_id, action=action, path=path, requestId=request_id
        )
        await self._put(entry)
        return entry

    async def tell(self, entry: AdminAction, subject: dict[str, Any]) -> None:
        """Write down whom or what it is about."""
        entry.subject = (entry.subject or {}) | subject
        await self._put(entry)

    async def end(self, entry: AdminAction, status: int) -> None:
        """Write down how it was answered."""
        entry.status = status
        await self._put(entry)

    async def page(self, *, limit: int, cursor: str | None = None) -> ActionPage:
        found: list[AdminAction] = []
        before = object_keys.action_key_of(cursor) if cursor else None
        walk = by_date.walk(
            self._blobs, object_keys.ACTIONS, self._read, before=before, at_once=limit + 1
        )
        last = ""
        async with aclosing(walk) as entries:
            async for key, entry in entries:
                if len(found) == limit:
                    return ActionPage(found, object_keys.action_cursor(last))
                found.append(entry)
                last = key
        return ActionPage(found, None)

    async def _put(self, entry: AdminAction) -> None:
        key = object_keys.action_key(action_id=entry.actionId, ms=object_keys.epoch_ms(entry.at))
        write = Write(key, orjson.dumps(entry.to_wire()))
        await self._blobs.put(write, action="write the admin log")

    async def _read(self, key: str) -> AdminAction | None:
        raw = await self._blobs.get(key, action="read the admin log")
        if raw is None:
            return None
        try:
            return AdminAction.from_wire(orjson.loads(raw))
        except (orjson.JSONDecodeError, MalformedRecord) as error:
            log.error("an entry of the admin log is damaged", key=key, reason=str(error))
            return None
