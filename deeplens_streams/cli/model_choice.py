"""Which model ``deeplens up`` runs: as told, as its data folder has, or the first to be had."""

import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from deeplens_streams.config import AUTO, Settings
from deeplens_streams.errors import ConfigurationError, WeightsUnavailable
from deeplens_streams.features.base import ModelSpec, Seed
from deeplens_streams.features.kept_model import kept_model
from deeplens_streams.features.models import RESNET50, TRAINED, choose_model, named
from deeplens_streams.features.weights import find_weights

#: Gets a model's weights from elsewhere and returns None, or a sentence why there are none.
Fetch = Callable[[ModelSpec], Awaitable[str | None]]


@dataclass(frozen=True, slots=True)
class Choice:
    """A model whose weights are here.

    Attributes
    ----------
    why : what it is called and why it is this one, in one line.
    """

    name: str
    why: str


async def choose(settings: Settings, fetch: Fetch) -> Choice:
    """Return the model to run; it may be downloaded for this.

    Raises
    ------
    ConfigurationError
        Two settings name different models, what the data folder has is not known, or the
        weights cannot be had.
    """
    had = kept_model(settings.data_dir) or used_model(settings)
    if settings.model != AUTO or settings.weights != AUTO:
        model = choose_model(settings)
        await _require(settings, model, fetch)
        return Choice(model.name, _as_told(settings, model.name, had))
    if had is not None:
        return await _as_before(settings, had, fetch)
    if settings.extractor_url:
        return Choice(RESNET50.name, f"{RESNET50.name}, of the extraction service")
    return await _first(settings, fetch)


def used_model(settings: Settings) -> str | None:
    """Return the model of a data folder in which none is written down, if it shows in the data.

    That is one of an earlier version, whose collections' names hold the model (of several a trained
    one counts), or one into which a backup was restored: images tell what they were stored for.
    """
    from deeplens_streams.vectors.collection_ref import model_in  # noqa: PLC0415 -- it takes Faust along

    vectors = settings.vectors_path
    names = [each.name for each in vectors.iterdir()] if vectors.is_dir() else []
    found = sorted(model for model in map(model_in, names) if model)
    trained = [each.name for each in TRAINED if each.name in found]
    return next(iter(trained or found), None) or _model_of_images(settings)


def _model_of_images(settings: Settings) -> str | None:
    if not settings.images_url.startswith("file:"):
        return None
    for path in settings.images_path.glob("*/metadata/**/*.json"):
        with suppress(OSError, ValueError, LookupError, TypeError):  # an audit says what it has
            return str(json.loads(path.read_bytes())["processingOptions"]["models"][0])
    return None


def _as_told(settings: Settings, name: str, had: str | None) -> str:
    setting = "DEEPLENS_WEIGHTS" if settings.model == AUTO else "DEEPLENS_MODEL"
    if had in {None, name}:
        return f"{name}, as {setting} says"
    return (
        f"{name}, as {setting} says; until now this data folder had {had}, and what was stored "
        "then is found by that one alone"
    )


async def _as_before(settings: Settings, had: str, fetch: Fetch) -> Choice:
    try:
        model = named(settings, had)
    except ConfigurationError:
        raise ConfigurationError(
            f"The data folder {settings.data_dir} has the model {had}, of weights of your own; set "
            "DEEPLENS_WEIGHTS to their file, or begin with another --data-dir."
        ) from None
    await _require(settings, model, fetch)
    return Choice(
        had, f"{had}, which this data folder has; for another set DEEPLENS_MODEL and --data-dir"
    )


async def _first(settings: Settings, fetch: Fetch) -> Choice:
    reasons = list[str]()
    for model in TRAINED:
        missing = await _missing(settings, model, fetch)
        if missing is None:
            return Choice(model.name, f"{model.name}{''.join(reasons)}")
        reason = missing.partition(";")[0].rstrip(".")
        reasons.append(f", since {model.name} cannot be had: {reason}")
    raise WeightsUnavailable(
        f"There is no trained model{''.join(reasons)}; set DEEPLENS_MODEL=resnet50-untrained to go "
        "on without one."
    )


async def _require(settings: Settings, model: ModelSpec, fetch: Fetch) -> None:
    if not settings.extractor_url:
        missing = await _missing(settings, model, fetch)
        if missing is not None:
            raise WeightsUnavailable(missing)


async def _missing(settings: Settings, model: ModelSpec, fetch: Fetch) -> str | None:
    """Return why a model's weights cannot be had, or None where they are here now."""
    if isinstance(model.weights, Seed) or find_weights(settings, model):
        return None
    return await fetch(model)
