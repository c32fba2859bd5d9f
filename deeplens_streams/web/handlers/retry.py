"""``POST /api/v1/images/{imageId}/retry``: an image's failed steps once more."""

from typing import Final

from aiohttp import web

from deeplens_streams.client import models
from deeplens_streams.errors import (
    AlreadyResolved,
    DeepLensError,
    ImageNotFound,
    NothingToRetry,
    RetryUnderWay,
)
from deeplens_streams.identifiers import check_image_id
from deeplens_streams.pipeline.dead_letters import letter_id
from deeplens_streams.pipeline.requests import event_id
from deeplens_streams.storage.dead_letters import DeadLetterStore, is_recent
from deeplens_streams.web.app_keys import CONTEXT
from deeplens_streams.web.forms.json_body import flag, read_body
from deeplens_streams.web.lookup import find_row
from deeplens_streams.web.middleware import admin_log
from deeplens_streams.web.middleware.auth import AUTHENTICATOR, tenant_bound
from deeplens_streams.web.responses import json_answer, success
from models.letters import LetterState
from models.status import FINAL_STATES, ImageRow, ImageState, Step, StepStatus

#: Within which an image's row says that it is under way again; then it is for an audit.
SEEN_S: Final = 60.0


async def retry(request: web.Request) -> web.Response:
    """Retry every failed step of an image that has a dead letter."""
    context = request.app[CONTEXT]
    image_id = check_image_id(request.match_info["image_id"])
    tenant = tenant_bound(request, request.query.get("tenantId"))
    row = await find_row(context, image_id)
    if row is None or tenant not in (None, row.tenantId):
        raise ImageNotFound
    request.app[AUTHENTICATOR].check_owner(row.tenantId)
    replay, retried, generation = request.app[CONTEXT].replay, [], None
    force = flag(await read_body(request), "force")
    refused: DeepLensError = _nothing(row)
    # What a newer version's step left is that version's to retry.
    known = [each for each in row.steps if each.step in set(Step)]
    for step in [each for each in known if each.status == StepStatus.FAILED]:
        asked = event_id(row, Step(step.step), step.modelName, step.generation)
        letter = await context.services.letters.find(letter_id(row.tenantId, step.step, asked))
        if letter is None:
            continue
        try:
            generation = await replay.retry(letter, force=force)
        except (RetryUnderWay, AlreadyResolved) as error:
            refused = await _refusal(context.services.letters, letter.letterId, error, refused)
        else:
            retried.append(letter.letterId)
            admin_log.came_of(request, tenantId=row.tenantId, letterIds=retried)
    if not retried:
        raise refused
    answer = {
        **success(models.Retried),
        "message": "What failed is tried again.",
        "imageId": image_id,
        "generation": generation,
        "retried": retried,
    }
    return json_answer(answer, status=202)


def _nothing(row: ImageRow) -> DeepLensError:
    """Return why an image without a letter that waits is not retried."""
    if row.generation > 1 and row.status not in FINAL_STATES:
        return RetryUnderWay(
            f"This image is being retried already, as generation {row.generation}."
        )
    if row.status == ImageState.FAILED:
        return NothingToRetry(
            "What failed has no waiting dead letter; see deeplens audit --repair."
        )
    return NothingToRetry()


async def _refusal(
    letters: DeadLetterStore, letter_id: str, error: DeepLensError, nothing: DeepLensError
) -> DeepLensError:
    """Return why a letter was not retried: by whoever was faster, unless that is long ago."""
    if isinstance(error, RetryUnderWay):
        return error
    kept = await letters.find(letter_id)
    if kept is None or kept.state != LetterState.RETRIED:
        return nothing
    if not is_recent(kept.resolvedAt, seconds=SEEN_S):
        return nothing
    return RetryUnderWay(f"This image is being retried already, as generation {kept.retriedAs}.")
