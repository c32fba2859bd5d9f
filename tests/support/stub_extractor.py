"""An extraction service without a model: ``python -m tests.support.stub_extractor --port N``.

It speaks the service's contract. A vector follows from the picture's bytes, so that tests of
everything around the model need none.
"""

import argparse
import asyncio
import base64
import hashlib
import io

import numpy as np
import orjson
from aiohttp import BodyPartReader, web
from PIL import Image

DIMENSION = 2048
MODEL = "resnet50-untrained"


def vector(data: bytes) -> np.ndarray:  # of float32
    seed = int.from_bytes(hashlib.sha256(data).digest()[:8])
    found = np.random.default_rng(seed).standard_normal(DIMENSION, dtype=np.float32)
    return found / np.linalg.norm(found)


def _thumbnail() -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 12), (90, 90, 90)).save(buffer, "JPEG")
    return base64.b64encode(buffer.getvalue()).decode()


def _is_cut(data: bytes) -> bool:
    """Tell whether a JPEG ends before its end."""
    return data.startswith(b"\xff\xd8") and not data.endswith(b"\xff\xd9")


def application(sleep_ms: float) -> web.Application:
    thumbnail = _thumbnail()

    async def extract(request: web.Request) -> web.Response:
        fields: dict[str, bytes] = {}
        async for part in await request.multipart():
            assert isinstance(part, BodyPartReader)
            fields[part.name or ""] = bytes(await part.read())
        await asyncio.sleep(sleep_ms / 1000)
        if _is_cut(fields["file"]):
            refusal = {"error_code": "UNDECODABLE_IMAGE", "detail": "The picture is cut off."}
            return web.json_response(refusal, status=422)
        answer = {
            "image_id": fields["image_id"].decode(),
            "features": vector(fields["file"]),
            "feature_dimension": DIMENSION,
            "model_name": MODEL,
            "model_version": "stub",
            "processing_time_ms": sleep_ms,
            "image_width": 16,
            "image_height": 12,
            "image_format": "JPEG",
            "thumbnail": thumbnail if "thumbnail_px" in fields else None,
        }
        return web.Response(
            body=orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY),
            content_type="application/json",
        )

    async def health(_request: web.Request) -> web.Response:
        return web.json_response({"status": "healthy", "model_name": MODEL, "model_loaded": True})

    app = web.Application(client_max_size=20_000_000)
    app.router.add_post("/extract-features", extract)
    app.router.add_get("/health", health)
    return app


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--sleep-ms", type=float, default=0.0)
    given = parser.parse_args()
    web.run_app(
        application(given.sleep_ms), host="127.0.0.1", port=given.port, print=None, access_log=None
    )


if __name__ == "__main__":
    main()
