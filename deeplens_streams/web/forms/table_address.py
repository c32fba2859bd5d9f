"""Which table and which of its rows an address names."""

from typing import Final

from aiohttp import web

from deeplens_streams.errors import TableNotFound, TableRowNotFound
from deeplens_streams.identifiers import check_image_id
from deeplens_streams.interactive_queries.sources import TableSource
from tables import image_status

#: Bytes of a key, at the most; those of our tables are far shorter.
_MAX_KEY: Final = 512


def table_name(request: web.Request, source: TableSource) -> str:
    """Return the name of the address, of a table that there is."""
    name = request.match_info["name"]
    if name not in {each.name for each in source.known()}:
        raise TableNotFound
    return name


def asked_after(request: web.Request, name: str) -> str | None:
    after = request.query.get("after")
    return None if after is None else asked_key(name, after)


def asked_key(name: str, key: str) -> str:
    """Return a key as the table has it."""
    if name == image_status.NAME:
        return check_image_id(key)
    if len(key.encode("utf-8", "surrogatepass")) > _MAX_KEY:
        raise TableRowNotFound
    return key
