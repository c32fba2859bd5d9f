"""Vector engines: Qdrant Edge in process, a Qdrant server, or memory, behind one interface."""

from deeplens_streams.config import Settings
from deeplens_streams.credentials import secret
from deeplens_streams.vectors.base import (
    Collection,
    Hit,
    PointPage,
    SearchFilter,
    VectorPoint,
    VectorStore,
    collection_name,
    has_thumbnail,
)

__all__ = [
    "Collection",
    "Hit",
    "PointPage",
    "SearchFilter",
    "VectorPoint",
    "VectorStore",
    "collection_name",
    "has_thumbnail",
    "open_vectors",
]


def open_vectors(settings: Settings) -> VectorStore:
    """Return the engine that `settings` name; nothing is opened or called yet."""
    shared = settings.tenancy == "shared"
    if settings.qdrant_url is not None:
        from deeplens_streams.vectors.qdrant.client import connect  # noqa: PLC0415 - a process needs one
        from deeplens_streams.vectors.qdrant.store import ServerVectors  # noqa: PLC0415 - as above

        key = secret(settings, "qdrant_api_key")
        client = connect(settings.qdrant_url, key, ca=settings.qdrant_ca)
        return ServerVectors(client, shared=shared)
    from deeplens_streams.vectors.edge.store import EdgeVectors  # noqa: PLC0415 - as above

    return EdgeVectors(settings.vectors_path, max_open=settings.edge_max_open, shared=shared)
