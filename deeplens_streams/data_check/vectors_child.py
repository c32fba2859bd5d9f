"""Reads every point of a collection: ``python -m …vectors_child FOLDER DIMENSION``; prints JSON."""

import json
import sys

import numpy as np
import qdrant_edge as edge

#: Points in memory together.
_PAGE = 256


def main() -> None:
    folder, size = sys.argv[1], int(sys.argv[2])
    said: dict[str, object] = {"points": 0, "wrong": None}
    try:
        said["points"], said["wrong"] = _read(folder, size)
    except BaseException as error:  # a panic of the engine is none of Exception
        said["wrong"] = str(error).partition("\n")[0][:300] or type(error).__name__
    sys.stdout.write(json.dumps(said))
    sys.stdout.flush()


def _read(folder: str, size: int) -> tuple[int, str | None]:
    shard = edge.EdgeShard.load(folder)
    count, after = 0, None
    while True:
        request = edge.ScrollRequest(offset=after, limit=_PAGE, with_payload=True, with_vector=True)
        points, after = shard.scroll(request)
        for point in points:
            vector = np.asarray(point.vector, dtype=np.float32)
            size = size or vector.size
            if vector.shape != (size,) or not np.isfinite(vector).all() or not vector.any():
                return count, f"point {point.id} has no vector of {size} numbers"
            if not (point.payload or {}).get("imageId"):
                return count, f"point {point.id} names no image"
            count += 1
        if after is None:
            break
    told = shard.count(edge.CountRequest(exact=True))
    return count, None if told == count else f"it has {count} points and counts {told}"


if __name__ == "__main__":
    main()
