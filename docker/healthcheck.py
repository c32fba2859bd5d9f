"""The container's health check: asks what it runs whether it is alive."""

import os
import sys
import urllib.request
from pathlib import Path

TIMEOUT_S = 4.0


def url() -> str | None:
    """Return what to ask, or None for a worker without HTTP."""
    if b"extractor" in Path("/proc/1/cmdline").read_bytes().split(b"\0"):
        port = os.environ.get("DEEPLENS_EXTRACTOR_PORT") or "8001"
        return f"http://127.0.0.1:{port}/health"
    roles = (os.environ.get("DEEPLENS_ROLES") or "all").replace(" ", "").split(",")
    if not {"all", "api"} & set(roles):
        return None
    port = os.environ.get("DEEPLENS_WEB_PORT") or "8080"
    return f"http://127.0.0.1:{port}/health/live"


def main() -> int:
    asked = url()
    if asked is None:
        return 0
    try:
        # Only loopback is asked, by HTTP; an error status raises HTTPError, which is an OSError.
        with urllib.request.urlopen(asked, timeout=TIMEOUT_S):  # noqa: S310 -- built above
            return 0
    except OSError as error:
        sys.stderr.write(f"{asked}: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
