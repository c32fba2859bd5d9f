"""From pictures to vectors: decoding, the model, and the service that shares it."""

from deeplens_streams.config import Settings
from deeplens_streams.features.base import Extraction, FeatureExtractor, ModelSpec
from deeplens_streams.features.models import choose_model

__all__ = ["Extraction", "FeatureExtractor", "ModelSpec", "choose_model", "open_features"]


def open_features(settings: Settings) -> FeatureExtractor:
    """Return the extractor that `settings` choose; nothing is loaded or called yet.

    torch is never imported by this process: the model runs in a child process or in the
    services that ``DEEPLENS_EXTRACTOR_URL`` names.

    Raises
    ------
    WeightsUnavailable
        ``DEEPLENS_WEIGHTS`` is a path, and it cannot be read.
    """
    model = choose_model(settings)
    if settings.extractor_url:
        from deeplens_streams.features.remote.client import RemoteFeatures  # noqa: PLC0415 -- either one

        return RemoteFeatures(settings, model)
    from deeplens_streams.features.child.client import ChildFeatures  # noqa: PLC0415 -- either one

    return ChildFeatures(settings, model)
