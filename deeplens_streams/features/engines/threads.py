"""How many threads run the model on the CPU."""

import os

from deeplens_streams.config import Settings


def inference_threads(settings: Settings) -> int:
    """Return what `settings` say, or one for each core that this process may use.

    Always set: an engine by itself would see neither a container's quota nor what was asked for.
    """
    if settings.threads is not None:
        return settings.threads
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
