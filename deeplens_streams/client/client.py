"""The system's HTTP interface, for programs that run on asyncio."""

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import ExitStack, aclosing
from pathlib import Path
from typing import Any, Final, Self

import aiohttp
import orjson

from deeplens_streams.client import models
from deeplens_streams.client.admin import OperatorCalls
from deeplens_streams.client.dead_letters import LetterCalls
from deeplens_streams.client.http import ATTEMPTS, Http, Pause, given
from deeplens_streams.client.tenants import TenantCalls
from deeplens_streams.client.trash import TrashCalls

_IMAGES: Final = "/api/v1/images"
SOCKET_PATH: Final = "/hub/processing-status"
_POLL_S: Final = 0.25


class Client(LetterCalls, TenantCalls, OperatorCalls, TrashCalls):
    """One system at one URL.

    Reading, uploading (bytes that are there are not stored twice), deleting and searching are
    tried again while the system is busy (429, 503) or away for a moment; retrying and
    discarding are sent once. Every call raises `NotReachable` where nothing answers, and
    `Refused` with the system's own message, code and ``retry_after``: `Missing` is a 404,
    `NotReady` a 503.

    Parameters
    ----------
    api_key : for a system that asks for one.
    timeout_s : for one answer.
    attempts : of one call, in all.
    pause : waits between attempts.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8080",
        *,
        api_key: str | None = None,
        timeout_s: float = 60.0,
        attempts: int = ATTEMPTS,
        pause: Pause = asyncio.sleep,
    ) -> None:
        self._pause = pause
        self._http = Http(url, api_key=api_key, timeout_s=timeout_s, attempts=attempts, pause=pause)

    @property
    def url(self) -> str:
        return self._http.url

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.close()

    async def upload(
        self,
        picture: Path | bytes,
        *,
        tenant: str,
        name: str | None = None,
        fields: Mapping[str, str] | None = None,
    ) -> models.Upload:
        """Upload one picture; a file is streamed.

        Parameters
        ----------
        name : what the picture is called; the file's own name unless it is said.
        fields : further fields of the form, such as ``tags[colour]``.
        """
        plain = {"tenantId": tenant, **(fields or {})}
        raw = await self._http.patiently(
            "POST",
            f"{_IMAGES}/upload",
            lambda opened: {"data": _form(plain, "file", picture, name, opened)},
        )
        return models.Upload.read(raw)

    async def search(
        self,
        query: Path | bytes | str,
        *,
        tenant: str,
        limit: int | None = None,
        threshold: float | None = None,
        filters: Mapping[str, Any] | str | None = None,
        model: str | None = None,
    ) -> models.SearchResults:
        """Search by a picture (a path or its bytes) or by an image ID."""
        given = {
            "tenantId": tenant,
            "limit": limit,
            "threshold": threshold,
            "filters": json.dumps(filters) if isinstance(filters, Mapping) else filters,
            "modelName": model,
            "imageId": query if isinstance(query, str) else None,
        }
        plain = {key: str(value) for key, value in given.items() if value is not None}
        picture = None if isinstance(query, str) else query
        raw = await self._http.patiently(
            "POST",
            f"{_IMAGES}/search",
            lambda opened: {"data": _form(plain, "queryImage", picture, None, opened)},
        )
        return models.SearchResults.read(raw)

    async def status(self, image_id: str) -> models.Status:
        """Return where a picture is on its way; asked once, for whoever asks again and again."""
        raw = await self._http.json("GET", f"{_IMAGES}/{image_id}/status")
        return models.Status.read(raw)

    async def follow(self, image_id: str) -> AsyncGenerator[models.Status]:
        """Yield the status at once and after every change, up to the last one.

        The system tells the changes; where it cannot, it is asked for them.
        """
        last = None
        async with aclosing(self._changes(image_id)) as changes:
            async for status in changes:
                seen = {**status.raw, "estimatedTimeRemainingSeconds": None}
                if seen != last:
                    yield status
                    last = seen
                if status.is_final:
                    return

    async def _changes(self, image_id: str) -> AsyncGenerator[models.Status]:
        yield await self.status(image_id)
        socket = await self._http.socket(SOCKET_PATH, imageId=image_id)
        if socket is not None:
            async with socket:
                async for message in socket:
                    if message.type is aiohttp.WSMsgType.TEXT:
                        yield models.Status.read(orjson.loads(message.data))
        async for status in self._ask(image_id):
            yield status

    async def _ask(self, image_id: str) -> AsyncGenerator[models.Status]:
        while True:
            yield await self.status(image_id)
            await self._pause(_POLL_S)

    async def image(self, image_id: str) -> models.Image:
        raw = await self._http.patiently("GET", f"{_IMAGES}/{image_id}")
        return models.Image.read(raw)

    async def images(
        self,
        *,
        tenant: str,
        limit: int = 50,
        cursor: str | None = None,
        status: str | None = None,
    ) -> models.ImagePage:
        """Return a page of a tenant's pictures, newest first."""
        params = given(tenantId=tenant, limit=str(limit), cursor=cursor, status=status)
        raw = await self._http.patiently("GET", _IMAGES, lambda _: {"params": params})
        return models.ImagePage.read(raw)

    async def content(self, image_id: str) -> bytes:
        """Return a picture's bytes as they were uploaded."""
        async with self._http.answer("GET", f"{_IMAGES}/{image_id}/content") as response:
            return await response.read()

    async def thumbnail(self, image_id: str) -> bytes:
        async with self._http.answer("GET", f"{_IMAGES}/{image_id}/thumbnail") as response:
            return await response.read()

    async def delete(self, image_id: str) -> models.Deletion:
        """Delete a picture, or tell how far its purge is."""
        raw = await self._http.patiently("DELETE", f"{_IMAGES}/{image_id}")
        return models.Deletion.read(raw)

    async def retry(self, image_id: str, *, force: bool = False) -> models.Retried:
        """Try a picture's failed steps once more."""
        raw = await self._http.json("POST", f"{_IMAGES}/{image_id}/retry", json={"force": force})
        return models.Retried.read(raw)


def _form(
    plain: Mapping[str, str],
    field: str,
    picture: Path | bytes | None,
    name: str | None,
    opened: ExitStack,
) -> aiohttp.FormData:
    # Names as they are, as browsers send them; multipart also where there is no file.
    form = aiohttp.FormData(quote_fields=False, default_to_multipart=True)
    for key, value in plain.items():
        form.add_field(key, value)
    if isinstance(picture, bytes):
        form.add_field(field, picture, filename=_form_name(name or "picture"))
    elif picture is not None:
        file = opened.enter_context(picture.open("rb"))
        # aiohttp would look at what the file is called, too, and fail where that is no UTF-8.
        content = aiohttp.payload.BufferedReaderPayload(file, filename="")
        form.add_field(field, content, filename=_form_name(name or picture.name))
    return form


def _form_name(name: str) -> str:
    """Return a file name as a form takes it: UTF-8, line ends as browsers write them.

    Other control characters, which a header may not hold, are left out.
    """
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    text = text.replace("\r", "%0D").replace("\n", "%0A")
    return re.sub(r"[\x00-\x1f\x7f]", "", text)
