"""Counters of the web side, served with all others at ``/metrics``."""

from prometheus_client import Counter, Gauge, Histogram

_FAST = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

UPLOADS = Counter(
    "deeplens_uploads",
    "Uploads answered; result is accepted, duplicate or the error's code",
    ["result"],
)
UPLOAD_SECONDS = Histogram(
    "deeplens_upload_seconds",
    "From the first byte of an upload, accepted or a duplicate, to its answer",
    buckets=_FAST,
)
UPLOADED_BYTES = Counter("deeplens_uploaded_bytes", "Bytes of accepted pictures")
SEARCH_SECONDS = Histogram(
    "deeplens_search_seconds", "From an answered search's first byte to its answer", buckets=_FAST
)
SOCKETS_OPEN = Gauge("deeplens_websockets", "Clients that follow a status by websocket")
