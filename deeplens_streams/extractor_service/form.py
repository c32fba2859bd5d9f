"""The form that the extraction service takes, read as it streams in."""

import asyncio
from dataclasses import dataclass

from aiohttp import BodyPartReader, web

from deeplens_streams.errors import BadRequest, TooLarge, UploadTooSlow
from deeplens_streams.request_body import body_faults

_FIELD_BYTES = 1000
#: Parts of a form, at the most; six have a meaning.
_PARTS = 16
#: Bytes of everything in a form that is not the picture.
_OTHER_BYTES = 64 * 1024
_THUMBNAIL_PX = range(16, 2049)
_FALSE, _TRUE = {"", "false", "0", "no", "off"}, {"true", "1", "yes", "on"}


@dataclass(frozen=True, slots=True)
class Form:
    """What a worker asks for.

    Attributes
    ----------
    picture : the file's bytes, not empty.
    image_id : comes back in the answer.
    wants_metadata : whether size and format do, too.
    thumbnail_px : the thumbnail's longer side, or None if none is wanted.
    model_name : of the model that is asked for, or None for the service's own.
    urgent : whether it goes before those that are not.
    """

    picture: bytes
    image_id: str
    wants_metadata: bool
    thumbnail_px: int | None
    model_name: str | None
    urgent: bool


async def read_form(request: web.Request, *, max_bytes: int, within_s: float) -> Form:
    """Read the request's body; no more than the limits is ever kept.

    Raises
    ------
    BadRequest
        It is no such form, or has more than 16 parts.
    TooLarge
        The picture has more than `max_bytes`, or all else more than its share.
    UploadTooSlow
        It did not come in `within_s` seconds.
    """
    if not request.content_type.startswith("multipart/"):
        raise BadRequest("The request must be multipart/form-data.")
    try:
        async with asyncio.timeout(within_s):
            with body_faults():
                picture, fields = await _read_parts(request, max_bytes)
    except TimeoutError:
        raise UploadTooSlow from None
    except (ValueError, AssertionError) as error:
        raise BadRequest("The multipart form is malformed.") from error
    if not picture:
        raise BadRequest("The form needs a field named file with a picture in it.")
    if "image_id" not in fields:
        raise BadRequest("The form needs a field named image_id.")
    return Form(
        picture,
        fields["image_id"],
        _flag(fields, "return_metadata"),
        _pixels(fields.get("thumbnail_px", "")),
        fields.get("model_name") or None,
        _flag(fields, "urgent"),
    )


async def _read_parts(request: web.Request, max_bytes: int) -> tuple[bytes, dict[str, str]]:
    picture, fields, parts = b"", dict[str, str](), 0
    async for part in await request.multipart():
        parts += 1
        if parts > _PARTS:
            raise BadRequest(f"The form has more than {_PARTS} parts.")
        if not isinstance(part, BodyPartReader) or part.name is None:
            raise BadRequest("The form is nested or has a field without a name.")
        limit = max_bytes if part.name == "file" else _FIELD_BYTES
        read = bytearray()
        while chunk := await part.read_chunk(1 << 16):
            read += chunk
            if len(read) > limit:
                raise TooLarge(f"The field {part.name} has more than {limit:,} bytes.")
            if request.content.total_bytes > max_bytes + _OTHER_BYTES:
                raise TooLarge(f"The form has more than {max_bytes + _OTHER_BYTES:,} bytes.")
        if part.name == "file":
            picture = bytes(read)
        else:
            fields[part.name] = read.decode(errors="replace").strip()
    return picture, fields


def _flag(fields: dict[str, str], name: str) -> bool:
    value = fields.get(name, "").lower()
    if value not in _FALSE | _TRUE:
        raise BadRequest(f"{name} is true or false.")
    return value in _TRUE


def _pixels(value: str) -> int | None:
    if not value:
        return None
    if not value.isascii() or not value.isdigit() or int(value) not in _THUMBNAIL_PX:
        raise BadRequest("thumbnail_px is a whole number from 16 to 2048.")
    return int(value)
