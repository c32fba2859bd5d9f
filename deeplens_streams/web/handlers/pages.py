"""The pages, and what they load."""

from aiohttp import web

from deeplens_streams.errors import DeepLensError
from deeplens_streams.web.assets import is_for_people, static_file, tables_page


async def index(request: web.Request) -> web.Response:
    return static_file(request, "index.html")


async def tables_refused(request: web.Request, error: DeepLensError) -> web.Response:
    """Answer the page to a browser without a key: it is empty, and asks for one."""
    if not is_for_people(request):
        raise error
    return tables_page(request)


async def api_page(request: web.Request) -> web.Response:
    return static_file(request, "api.html")


async def asset(request: web.Request) -> web.Response:
    return static_file(request, request.match_info["name"])
