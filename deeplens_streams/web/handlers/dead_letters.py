"""``/api/v1/dead-letters``: what could not be processed, why, and what becomes of it."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final

from aiohttp import web

from deeplens_streams.client import models
from deeplens_streams.errors import (
    AlreadyResolved,
    BadRequest,
    ImageNotFound,
    LetterNotFound,
    NotRetryable,
    RetryUnderWay,
    TenantDeleting,
    TenantSuspended,
)
from deeplens_streams.storage.dead_letters import LetterPage
from deeplens_streams.timestamps import parse_time
from deeplens_streams.web.app_keys import CONTEXT
from deeplens_streams.web.forms.json_body import flag, read_body, text
from deeplens_streams.web.forms.page import PageQuery
from deeplens_streams.web.middleware import admin_log
from deeplens_streams.web.middleware.auth import AUTHENTICATOR, CALLER, tenant_bound
from deeplens_streams.web.responses import json_answer, success
from models.letters import DeadLetter, LetterState

#: Letters that one request retries or discards; it goes on from the cursor.
MAX_AT_ONCE: Final = 200
MAX_REASON: Final = 500
_LETTER_ID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
#: Only looked at one letter at a time: traces and events may be large.
LARGE: Final = ("stackTrace", "originalEvent")
#: What the tenant of messages that could not be read is called in a query.
NOBODY: Final = "-"


@dataclass(frozen=True, slots=True)
class _Filter:
    """Which letters a request means; a tenant of None means everybody's."""

    tenant: str | None
    step: str | None
    code: str | None
    since: datetime | None
    until: datetime | None
    state: LetterState | None

    def matches(self, letter: DeadLetter) -> bool:
        failed_at = parse_time(letter.failedAt)
        return (
            self.step in (None, letter.failedStep)
            and self.code in (None, letter.errorCode)
            and (self.state is None or self.state == letter.state)
            and (self.since is None or (failed_at is not None and failed_at >= self.since))
            and (self.until is None or (failed_at is not None and failed_at < self.until))
        )


async def listing(request: web.Request) -> web.Response:
    """Answer a tenant's dead letters, newest first."""
    wanted, asked = _filter(request, request.query.get), PageQuery.read(request.query)
    page = await _page(request, wanted, limit=asked.limit, cursor=asked.cursor)
    answer = {
        **success(models.LetterPage),
        "deadLetters": [_summary(letter) for letter in page.letters],
        "nextCursor": page.cursor,
    }
    return json_answer(answer)


async def inspect(request: web.Request) -> web.Response:
    """Answer one dead letter, its event and its stack trace included."""
    letter = await _find(request)
    if not request[CALLER].is_operator:
        letter.stackTrace = None  # it speaks of the system, not of the picture
    return json_answer({**success(models.WholeLetter), "deadLetter": letter.known_fields()})


async def retry(request: web.Request) -> web.Response:
    """Send a dead letter's event again."""
    letter = await _find(request)
    body = await read_body(request)
    generation = await request.app[CONTEXT].replay.retry(letter, force=flag(body, "force"))
    message = f"The step {letter.failedStep} is tried again, as generation {generation}."
    return json_answer(
        {**success(models.ChangedLetter), "message": message, "deadLetter": _summary(letter)}
    )


async def discard(request: web.Request) -> web.Response:
    """Decide that a dead letter is not to be retried."""
    letter = await _find(request)
    reason = _reason(await read_body(request))
    await request.app[CONTEXT].replay.discard(letter, reason)
    return json_answer({**success(models.ChangedLetter), "deadLetter": _summary(letter)})


async def retry_many(request: web.Request) -> web.Response:
    """Retry the letters that the body names by ``ids`` or by the listing's filters."""
    body = await read_body(request)
    force, replay = flag(body, "force"), request.app[CONTEXT].replay

    async def one(letter: DeadLetter) -> None:
        await replay.retry(letter, force=force)

    return await _many(request, body, one)


async def discard_many(request: web.Request) -> web.Response:
    """Discard the letters that the body names; it says why in ``reason``."""
    body = await read_body(request)
    reason, replay = _reason(body), request.app[CONTEXT].replay

    async def one(letter: DeadLetter) -> None:
        await replay.discard(letter, reason)

    return await _many(request, body, one)


async def _many(
    request: web.Request, body: dict[str, Any], one: Callable[..., Any]
) -> web.Response:
    """Do `one` for each letter that the body means; what cannot be done is skipped and said."""
    letters, after = await _meant(request, body)
    await admin_log.about(request, letterIds=[letter.letterId for letter in letters])
    done: list[str] = []
    skipped: list[dict[str, str]] = []
    for letter in letters:
        try:
            await one(letter)
        except (AlreadyResolved, RetryUnderWay, NotRetryable, ImageNotFound) as error:
            skipped.append(
                {"letterId": letter.letterId, "errorCode": error.code, "message": error.message}
            )
        else:
            done.append(letter.letterId)
    admin_log.came_of(request, letterIds=done, skipped=len(skipped))
    answer = {
        **success(models.LettersChanged),
        "message": f"{len(done)} done, {len(skipped)} skipped.",
        "done": done,
        "skipped": skipped,
        "nextCursor": after,
    }
    return json_answer(answer)


async def _meant(request: web.Request, body: dict[str, Any]) -> tuple[list[DeadLetter], str | None]:
    store = request.app[CONTEXT].services.letters
    ids = body.get("ids")
    # Checked beside IDs, too: what cannot be meant is not passed over.
    wanted, cursor = _filter(request, lambda name: text(body, name)), text(body, "cursor")
    if ids is None:
        page = await _page(request, wanted, limit=MAX_AT_ONCE, cursor=cursor)
        return page.letters, page.cursor
    if not isinstance(ids, list) or len(ids) > MAX_AT_ONCE:
        raise BadRequest(f"ids is a list of up to {MAX_AT_ONCE} IDs of dead letters.")
    found = []
    for each in ids:
        letter = await store.find(_check_letter_id(each))
        if letter is None or wanted.tenant not in (None, letter.tenantId):
            raise LetterNotFound(f"No dead letter has the ID {each}; nothing was done.")
        request.app[AUTHENTICATOR].check_owner(letter.tenantId)
        found.append(letter)
    return found, None


async def _page(
    request: web.Request, wanted: _Filter, *, limit: int, cursor: str | None
) -> LetterPage:
    """Return letters of one tenant, or of one tenant after the other, newest first each."""
    store = request.app[CONTEXT].services.letters
    if wanted.tenant is not None:
        return await store.page(
            tenant=wanted.tenant, limit=limit, wanted=wanted.matches, cursor=cursor or None
        )
    return await store.page_of_all(
        limit=limit,
        wanted=wanted.matches,
        serves=partial(_is_served, request),
        cursor=cursor or None,
    )


def _filter(request: web.Request, get: Callable[[str], str | None]) -> _Filter:
    """Read the filters of a listing; ``state`` is ``waiting`` unless it says otherwise."""
    tenant, state = get("tenantId"), get("state")
    is_nobodys = tenant == NOBODY and request[CALLER].tenant is None
    whose = "" if is_nobodys else tenant_bound(request, tenant)
    if whose is not None:
        request.app[AUTHENTICATOR].check_owner(whose)
    return _Filter(
        tenant=whose,
        step=get("step") or None,
        code=get("code") or None,
        since=_time(get, "since"),
        until=_time(get, "until"),
        state=_state(state),
    )


def _state(text: str | None) -> LetterState | None:
    if text is None:
        return LetterState.WAITING
    if text == "all":
        return None
    try:
        return LetterState(text)
    except ValueError:
        known = ", ".join(state.value for state in LetterState)
        raise BadRequest(f"The state is one of {known}, or all.") from None


def _time(get: Callable[[str], str | None], name: str) -> datetime | None:
    text = get(name)
    if text is None:
        return None
    when = parse_time(text)
    if when is None:
        raise BadRequest(f"{name} is a time such as 2026-01-31T12:00:00Z.")
    return when


async def _find(request: web.Request) -> DeadLetter:
    letter_id = _check_letter_id(request.match_info["letter_id"])
    letter = await request.app[CONTEXT].services.letters.find(letter_id)
    tenant = tenant_bound(request, request.query.get("tenantId"))
    if letter is None or tenant not in (None, letter.tenantId):
        raise LetterNotFound
    request.app[AUTHENTICATOR].check_owner(letter.tenantId)
    return letter


def _is_served(request: web.Request, tenant: str) -> bool:
    """Tell whether a listing of everybody's letters has those of `tenant`, or of nobody."""
    try:
        request.app[AUTHENTICATOR].check_owner(tenant)
    except (TenantSuspended, TenantDeleting):
        return False
    return True


def _check_letter_id(value: Any) -> str:
    if not isinstance(value, str) or not _LETTER_ID.fullmatch(value):
        raise BadRequest("The ID of a dead letter is a UUID.")
    return value


def _reason(body: dict[str, Any]) -> str:
    reason = (text(body, "reason") or "").strip()
    if not reason or len(reason) > MAX_REASON or not reason.isprintable():
        raise BadRequest(f"Say why in reason: one line of up to {MAX_REASON} characters.")
    return reason


def _summary(letter: DeadLetter) -> dict[str, Any]:
    return {name: value for name, value in letter.known_fields().items() if name not in LARGE}
