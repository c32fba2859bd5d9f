"""Dead letters as tests make them and ask for them."""

import uuid
from typing import Any

from agents import dead_letters as keeper
from deeplens_streams.pipeline.dead_letters import dead_letter, kept_as
from models.events import (
    FeatureExtractionData,
    FeatureExtractionRequested,
    derived_id,
    utc_now,
)
from models.status import Step, StepStatus
from tests.support.photographs import photograph
from tests.support.stage_messages import incoming
from tests.support.web_server import TENANT, Web, report, row_of

LETTERS = "/api/v1/dead-letters"
PICTURE = photograph("rocket").data


async def call(
    served: Web, method: str, path: str, expected: int = 200, body: Any = None
) -> dict[str, Any]:
    async with served.client.request(method, path, json=body) as response:
        answer: dict[str, Any] = await response.json()
        assert response.status == expected, answer
        assert answer["success"] is (expected < 400)
        return answer


async def fail(
    served: Web,
    error: Exception | None = None,
    *,
    tenant: str = TENANT,
    generation: int = 1,
    again: str | None = None,
) -> tuple[str, str]:
    """Upload a picture whose extraction fails; return the image's ID and the letter's.

    Parameters
    ----------
    again : the image, if it is there already.
    """
    answer = again or await served.upload(PICTURE, tenantId=tenant, skipDuplicateCheck="true")
    image_id = answer if isinstance(answer, str) else answer["imageId"]
    model = served.model
    event = FeatureExtractionRequested(
        eventType=FeatureExtractionRequested.EVENT_TYPE,
        eventId=derived_id("extract", image_id, model.name, generation),
        tenantId=tenant,
        timestamp=utc_now(),
        correlationId=str(uuid.uuid4()),
        generation=generation,
        data=FeatureExtractionData(
            imageId=image_id, imagePath="x", modelName=model.name, expectedDimension=2048
        ),
    )
    error = error or RuntimeError("what nobody foresaw")
    message = dead_letter(Step.FEATURE_EXTRACTION, event, error, 3, incoming(b""))
    await keeper.process(message.event, served.context.services)  # a letter
    failed = report(
        Step.FEATURE_EXTRACTION, StepStatus.FAILED, modelName=model.name, generation=generation
    )
    served.rows.held[image_id] = row_of(
        image_id, "failed", [failed], tenantId=tenant, models=[model.name]
    )
    return image_id, kept_as(tenant, message.event.eventId)
