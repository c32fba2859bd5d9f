"""How the commands reach a system: once, with the key that the environment has."""

import asyncio
import os

from deeplens_streams.client import SyncClient
from deeplens_streams.client.http import Pause

#: The key that commands send, where a system asks for one.
API_KEY_VARIABLE = "DEEPLENS_API_KEY"


def connect(url: str, *, attempts: int = 1, pause: Pause = asyncio.sleep) -> SyncClient:
    """Return a client; whoever waits at a terminal is told at once what went wrong."""
    key = os.environ.get(API_KEY_VARIABLE) or None
    return SyncClient(url, api_key=key, attempts=attempts, pause=pause)
