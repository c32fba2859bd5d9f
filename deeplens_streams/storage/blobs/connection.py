"""From a URL to an object store with bounded waits."""

import os
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from obstore.exceptions import BaseError
from obstore.store import HTTPStore, from_url

from deeplens_streams.credentials import tls_context
from deeplens_streams.errors import ConfigurationError

if TYPE_CHECKING:
    from obstore.store import ClientConfig, ObjectStore, RetryConfig

#: One request to a remote backend; 10 MB in 15 s needs 5 Mbit/s.
CLIENT: "ClientConfig" = {
    "connect_timeout": timedelta(seconds=2),
    "timeout": timedelta(seconds=15),
}

#: The library's own would go on for 3 minutes while a client waits for its upload.
RETRIES: "RetryConfig" = {
    "max_retries": 2,
    "retry_timeout": timedelta(seconds=10),
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=1)},
}


def connect(url: str, *, ca: Path | None = None) -> "ObjectStore":
    """Return the store at `url`; a local folder is made if it is missing.

    Parameters
    ----------
    ca : certificates that a server may show, beside those that the system trusts.

    Raises
    ------
    ConfigurationError
        The URL names no storage, the folder cannot be made, or `ca` cannot be used.
    """
    scheme = url.partition(":")[0].lower()
    try:
        if scheme == "file":
            return from_url(url, mkdir=True)
        if scheme == "memory":
            return from_url(url)
        # The options that are given replace those that the library reads from the environment.
        client: ClientConfig = {**CLIENT, "allow_http": _allows_http()}
        if ca is not None:
            tls_context(ca, "DEEPLENS_STORAGE_CA")  # which says what is wrong with it
            client["root_certificate"] = ca.read_bytes()
        store = from_url(url, client_options=client, retry_config=RETRIES)
    except (BaseError, OSError, ValueError) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise ConfigurationError(f"Images cannot be kept at {url}: {reason}.") from error
    if isinstance(store, HTTPStore):
        raise ConfigurationError(
            f"Images cannot be kept at {url}: DEEPLENS_STORAGE_URL takes file:, s3:, gs: and az:."
        )
    return store


def _allows_http() -> bool:
    """Whether the operator lets a backend be reached without TLS."""
    names = ("AWS_ALLOW_HTTP", "AZURE_ALLOW_HTTP", "GOOGLE_ALLOW_HTTP")
    return any(os.environ.get(name, "").lower() in ("1", "true", "yes", "on") for name in names)
