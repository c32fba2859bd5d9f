"""Where the model's weights are, and getting them when they are nowhere.

``python -m deeplens_streams.features.weights`` prints their path, after a download if one is
needed. Nothing here imports torch: the place, the URL and the check are those of torchvision's
own download, so that both find each other's file, but with a limit on every wait.
"""

import hashlib
import os
import signal
import sys
import tempfile
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from types import FrameType

import click

from deeplens_streams.config import Settings, load_settings
from deeplens_streams.errors import ConfigurationError, WeightsUnavailable
from deeplens_streams.features.models import WEIGHTS_SHA256_PREFIX, WEIGHTS_URL, file_sha256

_CONNECT_TIMEOUT_S = 8.0
_CHUNK = 1 << 18
_REMEDY = "set DEEPLENS_WEIGHTS to the path of a copy, or to untrained to go on without"

Progress = Callable[[int, int | None], None]


def cached_path() -> Path:
    """Return where torch keeps the weights on this machine, whether they are there or not."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    home = Path(os.environ.get("TORCH_HOME") or cache / "torch")
    return home.expanduser() / "hub" / "checkpoints" / WEIGHTS_URL.rpartition("/")[2]


def find_weights(settings: Settings) -> Path | None:
    """Return the configured file, else torch's cached one, or None if there is none.

    Raises
    ------
    WeightsUnavailable
        A file is configured, and it is not there.
    """
    if settings.untrained:
        return None
    if settings.weights == "auto":
        cached = cached_path()
        return cached if cached.is_file() else None
    configured = Path(settings.weights).expanduser()
    if not configured.is_file():
        raise WeightsUnavailable(
            f"DEEPLENS_WEIGHTS: there is no file {configured}; set it to a file of ResNet50 "
            "IMAGENET1K_V2 weights, to auto, or to untrained."
        )
    return configured


def check_weights(path: Path) -> None:
    """Raise `WeightsUnavailable` unless the file is torchvision's, whole and unchanged.

    The model's name and version stand for these weights and for no others.
    """
    if not file_sha256(path).startswith(WEIGHTS_SHA256_PREFIX):
        raise WeightsUnavailable(
            f"{path} is damaged or holds other weights; delete it to have it downloaded again, "
            f"or {_REMEDY}."
        )


def download_weights(report: Progress | None = None) -> Path:
    """Download torchvision's weights into torch's cache and return their path.

    The file appears there whole and checked, or not at all.

    Parameters
    ----------
    report : called with the bytes so far and the bytes in all, if known.

    Raises
    ------
    WeightsUnavailable
        The network, the disk or the check failed.
    """
    target = cached_path()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            prefix=f"{target.name}.", suffix=".partial", dir=target.parent
        )
    except OSError as error:
        raise WeightsUnavailable(
            f"{target.parent} cannot be written ({error.strerror}); {_REMEDY}."
        ) from None
    partial = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            digest = _fetch(file.write, report)
        if not digest.startswith(WEIGHTS_SHA256_PREFIX):
            raise WeightsUnavailable(
                f"What {WEIGHTS_URL} sent is not what it should be (SHA-256 {digest[:8]}…); "
                f"try again, or {_REMEDY}."
            )
        partial.chmod(0o644)
        partial.replace(target)
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise WeightsUnavailable(
            f"The weights cannot be downloaded from {WEIGHTS_URL} ({reason}); {_REMEDY}."
        ) from None
    finally:
        partial.unlink(missing_ok=True)
    return target


def _fetch(write: Callable[[bytes], object], report: Progress | None) -> str:
    """Pass the body on and return its SHA-256 in hex."""
    digest, done = hashlib.sha256(), 0
    request = urllib.request.Request(WEIGHTS_URL, headers={"User-Agent": "deeplens-streams"})  # noqa: S310 -- a constant https URL
    with urllib.request.urlopen(request, timeout=_CONNECT_TIMEOUT_S) as body:  # noqa: S310 -- the same  # nosec B310
        length = body.headers.get("Content-Length")
        total = int(length) if length and length.isdigit() else None
        while chunk := body.read(_CHUNK):
            write(chunk)
            digest.update(chunk)
            done += len(chunk)
            if report is not None:
                report(done, total)
    return digest.hexdigest()


def main() -> int:
    """Print the weights' path; one sentence on stderr and 1 if there are none to be had."""
    signal.signal(signal.SIGTERM, _leave)
    try:
        settings = load_settings()
        if settings.untrained:
            raise WeightsUnavailable("DEEPLENS_WEIGHTS is untrained: no weights are wanted.")
        path = find_weights(settings) or download_weights(_progress_line())
    except ConfigurationError as error:
        click.echo(error.message, err=True)
        return 1
    except KeyboardInterrupt:
        return 130
    click.echo(path)
    return 0


def _progress_line() -> Progress:
    step, live = -1, sys.stderr.isatty()

    def report(done: int, total: int | None) -> None:
        nonlocal step
        reached = done * (100 if live else 10) // total if total else done >> 23
        if reached == step:
            return
        step = reached
        whole = f" of {total / 1e6:.0f}" if total else ""
        end = done == total or not live
        click.echo(f"\rweights: {done / 1e6:.0f}{whole} MB", err=True, nl=end)

    return report


def _leave(_signal: int, _frame: FrameType | None) -> None:
    sys.exit(143)  # through `finally`, which removes the partial file


if __name__ == "__main__":
    sys.exit(main())
