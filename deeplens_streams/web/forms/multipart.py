"""A form with one picture, read as it arrives: fields into memory, the picture into the spool.

aiohttp's own reader hands out 8 KiB at a time and needs the parts in turn; python-multipart
takes whatever the socket gave.
"""

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import unquote

from aiohttp import web
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from deeplens_streams.errors import BadRequest, TooLarge
from deeplens_streams.ingest.spool import SpooledFile
from deeplens_streams.request_body import body_faults
from deeplens_streams.web.app_keys import BODY_RATE

#: Parts of one form, at the most; 32 tags and every field leave plenty of room.
MAX_PARTS: Final = 100
#: Bytes of one field's value, at the most.
MAX_FIELD_BYTES: Final = 16_384
#: Bytes of everything in a form that is not the picture.
_MAX_OTHER_BYTES: Final = 1_000_000
_QUOTED: Final = re.compile(rb'"(?:[^"\\]|\\.)*"')
_EXTENDED_NAME: Final = re.compile(
    rb";\s*filename\*\s*=\s*(utf-8|iso-8859-1)'[^';]*'([^;\s]+)", re.IGNORECASE
)


class Form:
    """What a client sent.

    Attributes
    ----------
    fields : name and value of each field, in order.
    file_name : the client's word, or None if there was no picture part.
    """

    def __init__(self) -> None:
        self.fields: list[tuple[str, str]] = []
        self.file_name: str | None = None

    @property
    def has_file(self) -> bool:
        return self.file_name is not None

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key == name]

    def one(self, name: str, *, exact: bool = False) -> str | None:
        """Return the field's value, unless `exact` without surrounding blanks.

        An empty one is as none.

        Raises
        ------
        BadRequest
            The field is there more than once.
        """
        found = self.all(name)
        if len(found) > 1:
            raise BadRequest(f"The field {name!r} is there more than once; send it once.")
        if not found:
            return None
        return (found[0] if exact else found[0].strip()) or None

    def entries(self, prefix: str) -> Iterator[tuple[str, str]]:
        """Yield key and value of fields named ``prefix[key]``."""
        for name, value in self.fields:
            if name.startswith(f"{prefix}[") and name.endswith("]"):
                yield name[len(prefix) + 1 : -1], value


async def read_form(
    request: web.Request, *, file_field: str, into: SpooledFile, max_bytes: int
) -> Form:
    """Read the request's body, in a turn; the picture goes into `into` while it is counted.

    Raises
    ------
    BadRequest
        The body is no such form.
    TooLarge
        The picture has more than `max_bytes`; reading stops there.
    UploadTooSlow, TooManyUploads
        As `BodyRateLimit` says.
    """
    if (request.content_length or 0) > max_bytes + _MAX_OTHER_BYTES:
        raise _too_large(max_bytes)
    parts = _Reader(_boundary(request, file_field), file_field, into)
    received = 0
    try:
        with body_faults(), request.app[BODY_RATE].reader(request.remote) as reader:
            while chunk := await reader.next_chunk(request.content):
                received += len(chunk)
                parts.feed(chunk)
                if into.size > max_bytes or received > max_bytes + _MAX_OTHER_BYTES:
                    raise _too_large(max_bytes)
                await into.settle()
    except FormParserError as error:
        raise BadRequest("The form in the request's body is malformed.") from error
    if not parts.ended:
        raise BadRequest("The form in the request's body ends early; send it whole.")
    return parts.form


def _too_large(max_bytes: int) -> TooLarge:
    return TooLarge(f"The picture has more than {max_bytes:,} bytes; send a smaller one.")


def _boundary(request: web.Request, file_field: str) -> bytes:
    kind, options = parse_options_header(request.headers.get("Content-Type"))
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise BadRequest(f"Send multipart/form-data, with the picture in the field {file_field!r}.")
    return boundary


class _Reader:
    """The parser's callbacks: which part is being read, and where it goes."""

    def __init__(self, boundary: bytes, file_field: str, into: SpooledFile) -> None:
        self.form = Form()
        self.ended = False
        self._file_field = file_field
        self._into = into
        self._parts = 0
        self._header_name = b""
        self._header_value = b""
        self._headers: dict[bytes, bytes] = {}
        self._name = ""
        self._value = bytearray()
        self._is_file = False
        self._is_dropped = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._on_part_begin,
                    "on_header_begin": self._on_header_begin,
                    "on_header_field": self._on_header_field,
                    "on_header_value": self._on_header_value,
                    "on_header_end": self._on_header_end,
                    "on_headers_finished": self._on_headers_finished,
                    "on_part_data": self._on_part_data,
                    "on_part_end": self._on_part_end,
                    "on_end": self._on_end,
                },
            )
        except FormParserError as error:
            raise BadRequest("The boundary in the Content-Type header is too long.") from error

    def feed(self, chunk: bytes) -> None:
        self._parser.write(chunk)

    def _on_part_begin(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise BadRequest(f"The form has more than {MAX_PARTS} parts.")
        self._headers = {}

    def _on_header_begin(self) -> None:
        self._header_name = self._header_value = b""

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _on_header_end(self) -> None:
        self._headers[self._header_name.lower()] = self._header_value

    def _on_headers_finished(self) -> None:
        header = self._headers.get(b"content-disposition", b"")
        kind, options = parse_options_header(header)
        name = options.get(b"name")
        if kind != b"form-data" or name is None:
            raise BadRequest("A part of the form has no name.")
        self._name = name.decode("utf-8", "replace")
        self._value = bytearray()
        self._is_file = self._name == self._file_field
        # A file in another field is nobody's: it is counted, and not kept.
        file_name = _file_name(header, options)
        self._is_dropped = not self._is_file and file_name is not None
        if self._is_file:
            if self.form.has_file:
                raise BadRequest(
                    f"The form has more than one picture in {self._file_field!r}; send one."
                )
            self.form.file_name = file_name or ""

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self._into.take(memoryview(data)[start:end])
        elif not self._is_dropped:
            self._value += data[start:end]
            if len(self._value) > MAX_FIELD_BYTES:
                raise BadRequest(
                    f"The field {self._name[:60]!r} has more than {MAX_FIELD_BYTES:,} bytes."
                )

    def _on_part_end(self) -> None:
        if self._is_file or self._is_dropped:
            return
        try:
            self.form.fields.append((self._name, self._value.decode()))
        except UnicodeDecodeError:
            raise BadRequest(f"The field {self._name[:60]!r} is not UTF-8.") from None

    def _on_end(self) -> None:
        self.ended = True


def _file_name(header: bytes, options: dict[bytes, bytes]) -> str | None:
    """Return what a part's header calls its file, ``filename*`` before ``filename``.

    RFC 7578 forbids the first in forms, yet .NET and older Python clients send names that are not
    ASCII in it, beside one that is garbled, or none.
    """
    if extended := _EXTENDED_NAME.search(_QUOTED.sub(b'""', header)):
        charset, name = (each.decode("latin-1") for each in extended.groups())
        return unquote(name, charset, errors="replace")
    plain = options.get(b"filename")
    return None if plain is None else _unescaped(plain)


def _unescaped(file_name: bytes) -> str:
    """Undo what browsers escape in a file name, and nothing else."""
    text = file_name.decode("utf-8", "replace")
    return text.replace("%22", '"').replace("%0D", "\r").replace("%0A", "\n")
