"""The model that this system answers for, whether this process has loaded it or not."""

from functools import cache

from deeplens_streams.config import Settings
from deeplens_streams.features.base import ModelSpec
from deeplens_streams.features.models import choose_model
from deeplens_streams.services import Services


def configured_model(services: Services) -> ModelSpec:
    if services.features is not None:
        return services.features.model
    return _chosen(services.settings)


@cache  # a file of weights is hashed for its name
def _chosen(settings: Settings) -> ModelSpec:
    return choose_model(settings)
