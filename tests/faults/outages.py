"""What a worker says in an outage, and which step an image has come to."""

import json
from collections import Counter
from typing import Any

from tests.support.system import Client, Worker

#: Of one stage in one outage.
MAX_LINES = 10
STAGES = 4


#: Lines that come with each picture, whatever else happens.
PER_PICTURE = {"upload accepted", "picture completed", "upload is a duplicate"}


def lines_of(worker: Worker, begin: int) -> Counter[str]:
    """Count what was logged behind `begin`, but for what comes with each picture."""
    said: Counter[str] = Counter()
    for line in worker.log()[begin:].splitlines():
        try:
            event = json.loads(line)["event"]
        except (ValueError, KeyError):
            event = line[:80]
        if event not in PER_PICTURE:
            said[event] += 1
    return said


async def steps_of(client: Client, image_id: str) -> dict[str, dict[str, Any]]:
    status = await client.status(image_id)
    return {step["step"]: step for step in status["processingSteps"]}
