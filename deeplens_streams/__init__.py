"""DeepLens Streams: multi-tenant image similarity search on Kafka, Faust and Qdrant."""

from typing import Any

__version__ = "0.2.0"


def __getattr__(name: str) -> Any:
    """Build ``app`` when it is first asked for: importing the package builds nothing.

    ``faust -A deeplens_streams`` looks for that name.
    """
    if name == "app":
        from deeplens_streams.cli.faust_plugin import app_for_faust  # noqa: PLC0415

        globals()["app"] = app_for_faust()
        return globals()["app"]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
