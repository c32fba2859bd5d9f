"""Progress events on their way through the agent that keeps the status table."""

from agents import status_tracking
from deeplens_streams.broker.topics import Message
from deeplens_streams.services import Services
from models.status import ImageProgress, ImageRow
from tests.support.killed_systems import Fuse, System
from tests.support.tenant_changes import Registry

SERVICES = System(Fuse()).services


async def process(
    event: ImageProgress,
    rows: dict[bytes, ImageRow],
    services: Services = SERVICES,
    *,
    known: bool = True,
) -> list[Message]:
    """Have an event tracked whose tenant is known to be there, or is not."""
    return await status_tracking.process(event, rows, services, Registry(knows=known))
