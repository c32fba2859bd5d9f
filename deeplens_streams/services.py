"""The one place that constructs collaborators, and the bundle that everything is handed."""

from dataclasses import dataclass, field

from deeplens_streams.circuit_breaker import Breakers
from deeplens_streams.config import Role, Settings
from deeplens_streams.features import FeatureExtractor, ModelSpec, choose_model, open_features
from deeplens_streams.storage import Blobs, ImageStorage, ObjectImages, open_blobs
from deeplens_streams.storage.admin_log import AdminLog
from deeplens_streams.storage.dead_letters import DeadLetterStore
from deeplens_streams.storage.duplicate_claims import DuplicateClaims
from deeplens_streams.storage.inventory import Inventory
from deeplens_streams.storage.tenant_records import TenantRecords
from deeplens_streams.storage.tombstones import Tombstones
from deeplens_streams.storage.trash import Trash
from deeplens_streams.vectors import VectorStore, open_vectors


@dataclass(frozen=True, slots=True)
class Services:
    """Collaborators of one process, shared by the apps of all its roles.

    Attributes
    ----------
    model : what pictures of this system are stored for.
    features : None where no role of this process needs a vector from a picture.
    vectors : None where this process may not open the engine: Edge belongs to ``index``.
    breakers : one for each of them, and for what the process has beside them.
    """

    settings: Settings
    storage: ImageStorage
    claims: DuplicateClaims
    letters: DeadLetterStore
    tombstones: Tombstones
    actions: AdminLog
    trash: Trash
    inventory: Inventory
    tenant_records: TenantRecords
    model: ModelSpec
    features: FeatureExtractor | None
    vectors: VectorStore | None
    breakers: Breakers = field(default_factory=Breakers)

    async def start(self) -> None:
        """Take the vector engine and begin to load the model.

        Raises
        ------
        ConfigurationError
            Another process has the engine's folder, or it cannot be written.
        """
        if self.vectors is not None:
            await self.vectors.start()
        if self.features is not None:
            await self.features.start()

    async def close(self) -> None:
        if self.features is not None:
            await self.features.close()
        if self.vectors is not None:
            await self.vectors.close()


def build_services(settings: Settings) -> Services:
    """Construct what the roles of `settings` need; nothing is opened or loaded yet."""
    roles = set(settings.roles)
    has_engine = settings.qdrant_url is not None or Role.INDEX in roles
    # Search needs the model too, where it can search at all.
    needs_model = Role.EXTRACT in roles or (Role.API in roles and has_engine)
    features = open_features(settings) if needs_model else None
    has_vectors = has_engine and roles & {Role.API, Role.INDEX}
    vectors = open_vectors(settings) if has_vectors else None
    breakers = Breakers()
    unguarded = open_blobs(settings)
    blobs = breakers.guard(unguarded, "storage")
    breakers["storage"].ping = ObjectImages(unguarded).ping
    if vectors is not None:
        breakers["vectors"].ping = vectors.ping
    return services_over(
        blobs,
        settings,
        # Choosing may read a whole file of weights, for its name: once is enough.
        model=features.model if features else choose_model(settings),
        features=breakers.guard(features, "extractor") if features else None,
        vectors=breakers.guard(vectors, "vectors") if vectors else None,
        breakers=breakers,
    )


def services_over(
    blobs: Blobs,
    settings: Settings,
    *,
    model: ModelSpec,
    features: FeatureExtractor | None = None,
    vectors: VectorStore | None = None,
    breakers: Breakers | None = None,
) -> Services:
    """Construct everything that is kept in a storage, beside what is given."""
    tombstones = Tombstones(blobs)
    return Services(
        settings=settings,
        storage=ObjectImages(blobs),
        claims=DuplicateClaims(blobs),
        letters=DeadLetterStore(blobs),
        tombstones=tombstones,
        actions=AdminLog(blobs),
        trash=Trash(blobs),
        inventory=Inventory(blobs),
        tenant_records=TenantRecords(blobs, tombstones),
        model=model,
        features=features,
        vectors=vectors,
        breakers=breakers or Breakers(),
    )
