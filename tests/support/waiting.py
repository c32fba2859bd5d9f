"""Waiting for what another process or task changes."""

import asyncio
from collections.abc import Callable


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 -- another process changes it
            await asyncio.sleep(0.01)
