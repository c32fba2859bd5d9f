"""``/openapi.json`` and ``/asyncapi.json``: what there is, for machines."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp import web

from deeplens_streams.web.assets import Asset, asset_answer, asset_of


@dataclass(frozen=True, slots=True)
class Documents:
    openapi: Asset
    asyncapi: Asset


#: Under which the application holds them, made once.
DOCUMENTS: web.AppKey[Documents] = web.AppKey("deeplens_documents", Documents)


def as_asset(document: Mapping[str, Any]) -> Asset:
    return asset_of(orjson.dumps(document), "application/json")


async def openapi(request: web.Request) -> web.Response:
    return asset_answer(request, request.app[DOCUMENTS].openapi)


async def asyncapi(request: web.Request) -> web.Response:
    return asset_answer(request, request.app[DOCUMENTS].asyncapi)
