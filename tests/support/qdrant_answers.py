"""What Qdrant's server tells of a collection."""

from typing import Any


def info(**more: Any) -> dict[str, Any]:
    vectors = {"size": 4, "distance": "Cosine"}
    return {
        "status": "green",
        "optimizer_status": "ok",
        "indexed_vectors_count": 600,
        "points_count": 1000,
        "segments_count": 3,
        "config": {
            "params": {"vectors": vectors},
            "hnsw_config": {"m": 16, "ef_construct": 100, "full_scan_threshold": 10_000},
            "optimizer_config": {"flush_interval_sec": 5, "default_segment_number": 0}
            | {"deleted_threshold": 0.2, "vacuum_min_vector_number": 1000},
            "wal_config": {"wal_capacity_mb": 32, "wal_segments_ahead": 0},
        },
        "payload_schema": {},
    } | more
