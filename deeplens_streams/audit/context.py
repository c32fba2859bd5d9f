"""What all walks of an audit work with."""

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

from deeplens_streams.audit.disk_index import DiskIndex
from deeplens_streams.audit.report import Rows
from deeplens_streams.audit.settled import SettledBefore, Watermark
from deeplens_streams.audit.sightings import Sightings
from deeplens_streams.broker.topics import Publish
from deeplens_streams.services import Services
from deeplens_streams.storage.trash import Reason
from models.status import ImageRow


@dataclass(frozen=True, slots=True)
class DamagedRow:
    """A row of the status table that cannot be read.

    Attributes
    ----------
    tenant : as far as it tells, else empty.
    """

    key: str
    tenant: str
    reason: str


#: Yields every row of the status table, in pages.
AllRows = Callable[[], AsyncGenerator[list[ImageRow | DamagedRow]]]


@dataclass(frozen=True, slots=True)
class AuditContext:
    """What all walks work with.

    Attributes
    ----------
    audit_id : what it takes away is marked with it.
    checksums : whether originals are read and their SHA-256 is compared.
    outdated : whether it is a fault that an older preprocessing made something.
    index : what was listed of each tenant.
    """

    services: Services
    rows: Rows
    all_rows: AllRows
    publish: Publish
    watermark: Watermark
    audit_id: str
    checksums: bool
    outdated: bool
    index: DiskIndex
    sightings: Sightings

    def settled_before(self) -> SettledBefore:
        return SettledBefore(self.watermark)

    def why(self, text: str) -> Reason:
        """Return the reason with which something goes to the trash."""
        return Reason(text, self.audit_id)
