"""The system from Python: `Client` on asyncio, `SyncClient` without."""

from deeplens_streams.client.client import Client
from deeplens_streams.client.errors import Missing, NotReachable, NotReady, Refused
from deeplens_streams.client.models import (
    FINAL_STATES,
    CollectionMade,
    Deletion,
    Image,
    ImagePage,
    KeyAnswer,
    Keys,
    LetterPage,
    LettersChanged,
    Readiness,
    Retried,
    SearchResults,
    Status,
    TenantAnswer,
    TenantPurge,
    TenantStep,
    TenantUsage,
    TrashEntry,
    TrashPage,
    Upload,
)
from deeplens_streams.client.models import DeadLetterSummary as DeadLetter
from deeplens_streams.client.models import HealthCheck as Check
from deeplens_streams.client.models import KeySummary as Key
from deeplens_streams.client.models import ProcessingStep as Step
from deeplens_streams.client.models import SearchResult as Hit
from deeplens_streams.client.models import SkippedLetter as Skipped
from deeplens_streams.client.models import TenantSummary as Tenant
from deeplens_streams.client.sync import SyncClient

__all__ = [
    "FINAL_STATES",
    "Check",
    "Client",
    "CollectionMade",
    "DeadLetter",
    "Deletion",
    "Hit",
    "Image",
    "ImagePage",
    "Key",
    "KeyAnswer",
    "Keys",
    "LetterPage",
    "LettersChanged",
    "Missing",
    "NotReachable",
    "NotReady",
    "Readiness",
    "Refused",
    "Retried",
    "SearchResults",
    "Skipped",
    "Status",
    "Step",
    "SyncClient",
    "Tenant",
    "TenantAnswer",
    "TenantPurge",
    "TenantStep",
    "TenantUsage",
    "TrashEntry",
    "TrashPage",
    "Upload",
]
