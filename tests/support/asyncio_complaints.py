"""What asyncio says of failures that nobody has seen."""

import asyncio
import gc
from collections.abc import Awaitable, Callable


async def complaints_of(doing: Callable[[], Awaitable[None]]) -> list[str]:
    """Return what is said of futures that are left behind by then."""
    said: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, context: said.append(str(context["message"])))
    try:
        await doing()
        await asyncio.sleep(0)
        gc.collect()
    finally:
        loop.set_exception_handler(None)
    return said
