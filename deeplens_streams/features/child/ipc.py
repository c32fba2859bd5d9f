"""What a worker and its model's process say to each other: a JSON header and raw bytes."""

import asyncio
import struct
from typing import Any

import orjson

_LENGTHS = struct.Struct("<IQ")

Header = dict[str, Any]


async def read_frame(reader: asyncio.StreamReader) -> tuple[Header, bytes] | None:
    """Return the next frame, or None when the other side is gone."""
    try:
        header_size, body_size = _LENGTHS.unpack(await reader.readexactly(_LENGTHS.size))
        header: Header = orjson.loads(await reader.readexactly(header_size))
        return header, await reader.readexactly(body_size)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


def write_frame(writer: asyncio.StreamWriter, header: Header, *bodies: bytes) -> None:
    """Put one frame into the writer's buffer; the caller drains it."""
    encoded = orjson.dumps(header)
    writer.write(_LENGTHS.pack(len(encoded), sum(map(len, bodies))) + encoded)
    for body in bodies:
        writer.write(body)
