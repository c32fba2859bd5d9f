"""The client's calls about what could not be processed."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final

from deeplens_streams.client import models
from deeplens_streams.client.http import Http, given

_LETTERS: Final = "/api/v1/dead-letters"
_MOST: Final = 200


class LetterCalls:
    """Part of `Client`."""

    _http: Http

    async def dead_letters(
        self,
        *,
        limit: int = 50,
        cursor: str | None = None,
        filters: Mapping[str, str] | None = None,
    ) -> models.LetterPage:
        """Return a page of dead letters; filters are called as the interface calls them."""
        params = given(limit=str(min(limit, _MOST)), cursor=cursor) | dict(filters or {})
        raw = await self._http.patiently("GET", _LETTERS, lambda _: {"params": params})
        return models.LetterPage.read(raw)

    async def dead_letter(self, letter_id: str) -> models.DeadLetter:
        raw = await self._http.patiently("GET", f"{_LETTERS}/{letter_id}")
        return models.DeadLetter.read(raw["deadLetter"])

    async def retry_letters(
        self,
        ids: Sequence[str] | None = None,
        *,
        force: bool = False,
        filters: Mapping[str, str] | None = None,
    ) -> AsyncIterator[models.LettersChanged]:
        """Retry letters by their IDs, or all that the filters leave; yields each answer."""
        async for changed in self._change("retry", ids, filters, {"force": force}):
            yield changed

    async def discard_letters(
        self,
        ids: Sequence[str] | None = None,
        *,
        reason: str,
        filters: Mapping[str, str] | None = None,
    ) -> AsyncIterator[models.LettersChanged]:
        async for changed in self._change("discard", ids, filters, {"reason": reason}):
            yield changed

    async def _change(
        self,
        what: str,
        ids: Sequence[str] | None,
        filters: Mapping[str, str] | None,
        more: Mapping[str, Any],
    ) -> AsyncIterator[models.LettersChanged]:
        meant = {"ids": list(ids)} if ids is not None else dict(filters or {})
        cursor: str | None = None
        while True:
            body = {**meant, **more, "cursor": cursor}
            raw = await self._http.json("POST", f"{_LETTERS}/{what}", json=body)
            changed = models.LettersChanged.read(raw)
            yield changed
            cursor = changed.next_cursor
            if cursor is None:
                return
