"""The same client for programs without asyncio: a loop on a thread, and calls that block."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from deeplens_streams.client.client import Client
from deeplens_streams.client.http import ATTEMPTS, Pause

P = ParamSpec("P")
T = TypeVar("T")


def _blocking(
    method: Callable[Concatenate[Client, P], Coroutine[Any, Any, T]],
) -> "Callable[Concatenate[SyncClient, P], T]":
    @wraps(method)
    def call(self: "SyncClient", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.run(method(self.client, *args, **kwargs))

    return call


def _iterating(
    method: Callable[Concatenate[Client, P], AsyncIterator[T]],
) -> "Callable[Concatenate[SyncClient, P], Iterator[T]]":
    @wraps(method)
    def call(self: "SyncClient", /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        iterator = method(self.client, *args, **kwargs)
        close = getattr(iterator, "aclose", None)
        try:
            while True:
                try:
                    found = self.run(_next(iterator))
                except StopAsyncIteration:
                    return
                yield found
        finally:
            if close is not None:
                self.run(close())

    return call


async def _next(iterator: AsyncIterator[T]) -> T:
    return await anext(iterator)


class SyncClient:
    """What `Client` does, and raises, with calls that return when they are done.

    Safe to use from several threads. Close it, or use it in a ``with``.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8080",
        *,
        api_key: str | None = None,
        timeout_s: float = 60.0,
        attempts: int = ATTEMPTS,
        pause: Pause = asyncio.sleep,
    ) -> None:
        self.client = Client(
            url, api_key=api_key, timeout_s=timeout_s, attempts=attempts, pause=pause
        )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="deeplens-client", daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        return self.client.url

    upload = _blocking(Client.upload)
    search = _blocking(Client.search)
    status = _blocking(Client.status)
    follow = _iterating(Client.follow)
    image = _blocking(Client.image)
    images = _blocking(Client.images)
    content = _blocking(Client.content)
    thumbnail = _blocking(Client.thumbnail)
    delete = _blocking(Client.delete)
    retry = _blocking(Client.retry)
    dead_letters = _blocking(Client.dead_letters)
    dead_letter = _blocking(Client.dead_letter)
    retry_letters = _iterating(Client.retry_letters)
    discard_letters = _iterating(Client.discard_letters)
    create_tenant = _blocking(Client.create_tenant)
    tenant = _blocking(Client.tenant)
    tenants = _iterating(Client.tenants)
    limit_tenant = _blocking(Client.limit_tenant)
    suspend_tenant = _blocking(Client.suspend_tenant)
    resume_tenant = _blocking(Client.resume_tenant)
    check_tenant = _blocking(Client.check_tenant)
    tenant_usage = _blocking(Client.tenant_usage)
    keys = _blocking(Client.keys)
    create_key = _blocking(Client.create_key)
    rotate_key = _blocking(Client.rotate_key)
    revoke_key = _blocking(Client.revoke_key)
    create_collection = _blocking(Client.create_collection)
    delete_tenant = _blocking(Client.delete_tenant)
    tenant_purge = _blocking(Client.tenant_purge)
    audit = _iterating(Client.audit)
    trash = _blocking(Client.trash)
    restore_trash = _blocking(Client.restore_trash)
    remove_trash = _blocking(Client.remove_trash)
    empty_trash = _blocking(Client.empty_trash)
    readiness = _blocking(Client.readiness)
    require = _blocking(Client.require)

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        """Return what the client's own loop makes of `call`."""
        future = asyncio.run_coroutine_threadsafe(call, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # whoever was interrupted waits for it no more
            raise

    def close(self) -> None:
        if self._loop.is_closed():
            return
        self.run(self.client.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
