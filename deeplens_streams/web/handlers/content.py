"""``…/content`` and ``…/thumbnail``: the bytes, for browsers too."""

import hashlib
import re
from collections.abc import AsyncGenerator, AsyncIterator
from functools import partial
from typing import Final
from urllib.parse import quote

import structlog
from aiohttp import web

from deeplens_streams.concurrency import ConcurrencyLimit
from deeplens_streams.config import Settings
from deeplens_streams.errors import NotFound, RangeNotSatisfiable, TooManyRequests
from deeplens_streams.imaging.formats import extensions
from deeplens_streams.web.app_keys import CONTEXT, DOWNLOADS
from deeplens_streams.web.lookup import find_shown
from deeplens_streams.web.responses import error_answer
from models.images import StoredImage

log = structlog.get_logger()


#: Bytes of an ID never change; a deleted image is gone from caches after this many seconds.
_CACHE: Final = "private, max-age=300"
#: What Windows takes for a device, whatever the extension.
_DEVICE: Final = re.compile(r"(?i)con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³]")
_RANGE: Final = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")


class ThumbnailNotFound(NotFound):
    """There is no thumbnail of this image yet; it comes when the picture is processed."""

    code = "THUMBNAIL_NOT_FOUND"


async def content(request: web.Request) -> web.StreamResponse:
    image = await find_shown(request)
    headers = {
        "ETag": f'"{image.checksumSha256}"',
        "Cache-Control": _CACHE,
        "Accept-Ranges": "bytes",
        "Content-Disposition": _disposition(_download_name(image)),
    }
    if _is_known(request, headers["ETag"]):
        return web.Response(status=304, headers=headers)
    try:
        part = _asked_part(request, image.fileSize, headers["ETag"])
    except RangeNotSatisfiable as error:
        answer = error_answer(request, error)
        answer.headers["Content-Range"] = f"bytes */{image.fileSize}"
        return answer
    start, end = part or (0, image.fileSize)
    headers |= {"Content-Type": image.contentType, "Content-Length": str(end - start)}
    if part is not None:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{image.fileSize}"
    response = web.StreamResponse(status=200 if part is None else 206, headers=headers)
    with request.app[DOWNLOADS].acquire():
        await _send(request, response, image, start, end)
    return response


async def thumbnail(request: web.Request) -> web.Response:
    image = await find_shown(request)
    storage = request.app[CONTEXT].services.storage
    data = await storage.get(tenant=image.tenantId, key=image.thumbnailKey)
    if data is None:
        if not image.processingOptions.generateThumbnail:
            raise ThumbnailNotFound("No thumbnail of this image was asked for at upload.")
        raise ThumbnailNotFound
    headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "Cache-Control": _CACHE}
    if _is_known(request, headers["ETag"]):
        return web.Response(status=304, headers=headers)
    return web.Response(body=data, content_type="image/jpeg", headers=headers)


def _download_name(image: StoredImage) -> str:
    """Return a name fit for any disk, with an extension that agrees with the content.

    A picture that is a script as well, named ``a.html``, would be opened as one where it is saved.
    """
    name = re.sub(r'[<>:"|?*]', "_", image.fileName).strip(". ") or "image"
    if _DEVICE.fullmatch(name.partition(".")[0].rstrip()):
        name = f"_{name}"
    kept = extensions(image.contentType)
    return name if name.lower().endswith(kept) else name + kept[0]


def _disposition(file_name: str) -> str:
    """Return the header; the name is in it twice, for browsers old and new (RFC 6266)."""
    plain = re.sub(r'[^ -~]|["\\%]', "_", file_name)
    return f"inline; filename=\"{plain}\"; filename*=UTF-8''{quote(file_name, safe='')}"


def _is_known(request: web.Request, etag: str) -> bool:
    """Tell whether the client has these bytes already (If-None-Match compares weakly)."""
    given = request.headers.get("If-None-Match")
    if given is None:
        return False
    known = {each.strip().removeprefix("W/") for each in given.split(",")}
    return "*" in known or etag in known


def _asked_part(request: web.Request, size: int, etag: str) -> tuple[int, int] | None:
    """Return from where to before where, or None for everything.

    Several ranges, or a header of another form, are answered with everything, as RFC 9110
    allows.

    Raises
    ------
    RangeNotSatisfiable
        The range begins behind the end.
    """
    match = _RANGE.fullmatch(request.headers.get("Range", ""))
    # HEAD tells of the whole: a range is a matter of GET alone.
    if match is None or request.method == "HEAD" or request.headers.get("If-Range", etag) != etag:
        return None
    first, last = match.groups()
    if not first and not last:
        return None
    if not first:  # the last so many bytes
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(int(last) + 1, size) if last else size
        if last and int(last) < start:
            return None  # malformed, not unsatisfiable
    if start >= size:
        raise RangeNotSatisfiable
    return start, end


async def _send(
    request: web.Request, response: web.StreamResponse, image: StoredImage, start: int, end: int
) -> None:
    """Stream the bytes; nothing is sent before storage has given the first of them."""
    storage = request.app[CONTEXT].services.storage
    chunks = storage.stream(tenant=image.tenantId, key=image.originalKey, start=start, end=end)
    try:
        first = await anext(chunks, b"")
        await response.prepare(request)
        if request.method == "HEAD":
            return
        await _write(response, first, chunks)
    except ConnectionError:
        raise
    except Exception:
        if not response.prepared:
            raise
        # Half an answer is out: only a broken connection tells the client that it is half.
        log.exception("sending a picture failed", image_id=image.imageId)
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError from None
    finally:
        if isinstance(chunks, AsyncGenerator):
            await chunks.aclose()


async def _write(response: web.StreamResponse, first: bytes, chunks: AsyncIterator[bytes]) -> None:
    await response.write(first)
    async for chunk in chunks:
        await response.write(chunk)
    await response.write_eof()


def turns(settings: Settings) -> ConcurrencyLimit:
    refusal = "Too many pictures are being sent by this server; try again in a few seconds."
    return ConcurrencyLimit(settings.max_downloads, partial(TooManyRequests, refusal))
