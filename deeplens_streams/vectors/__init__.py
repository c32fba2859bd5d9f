"""Vector engines: Qdrant Edge in process, a Qdrant server, or memory, behind one interface."""

from deeplens_streams.config import Settings
from deeplens_streams.vectors.base import (
    Hit,
    SearchFilter,
    VectorPoint,
    VectorStore,
    collection_name,
    point_id,
)

__all__ = [
    "Hit",
    "SearchFilter",
    "VectorPoint",
    "VectorStore",
    "collection_name",
    "open_vectors",
    "point_id",
]


def open_vectors(settings: Settings) -> VectorStore:
    """Return the engine that `settings` name; nothing is opened or called yet."""
    if settings.qdrant_url is not None:
        from deeplens_streams.vectors.server import (  # noqa: PLC0415 - a process needs one engine
            ServerVectors,
            connect,
        )

        key = settings.qdrant_api_key
        return ServerVectors(connect(settings.qdrant_url, key.get_secret_value() if key else None))
    from deeplens_streams.vectors.edge import EdgeVectors  # noqa: PLC0415 - as above

    return EdgeVectors(settings.vectors_path, max_open=settings.edge_max_open)
