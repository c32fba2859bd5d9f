"""Commands against a running system."""

import os
import subprocess
import sys

from deeplens_streams.config import Settings


def command(settings: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``deeplens …`` against the Kafka and the namespace of `settings`."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DEEPLENS_")}
    where = {"DEEPLENS_BROKER": settings.broker, "DEEPLENS_NAMESPACE": settings.namespace}
    return subprocess.run(
        [sys.executable, "-m", "deeplens_streams.cli.main", *arguments],
        env=clean | where,
        capture_output=True,
        text=True,
        check=False,
    )
