"""The container's health check: asks the process that it runs whether it is alive."""

import os
import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path

TIMEOUT_S = 4.0


def url(command: bytes, environment: Mapping[str, str]) -> str:
    """Return what to ask, by the container's command line as ``/proc`` tells it."""
    if b"extractor" in command.split(b"\0"):
        return f"http://127.0.0.1:{environment.get('DEEPLENS_EXTRACTOR_PORT') or '8001'}/health"
    return f"http://127.0.0.1:{environment.get('DEEPLENS_WEB_PORT') or '8080'}/health/live"


def main() -> int:
    asked = url(Path("/proc/1/cmdline").read_bytes(), os.environ)
    try:
        # Only loopback is asked, by HTTP; an error status raises HTTPError, which is an OSError.
        with urllib.request.urlopen(asked, timeout=TIMEOUT_S):  # noqa: S310 -- built above  # nosec B310
            return 0
    except OSError as error:
        sys.stderr.write(f"{asked}: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
