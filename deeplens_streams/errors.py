"""Every error that a person or a dead letter may see: a class with its code and HTTP status.

The docstring is the default message; it says what to do. Codes are stable.
"""

import inspect
from typing import ClassVar


class DeepLensError(Exception):
    """Something went wrong; look into the log."""

    code: ClassVar[str] = "INTERNAL"
    http_status: ClassVar[int] = 500
    #: Whether the same request or event may succeed later, unchanged.
    retryable: ClassVar[bool] = False

    def __init__(self, message: str | None = None) -> None:
        self.message = message or inspect.cleandoc(type(self).__doc__ or "").partition("\n")[0]
        super().__init__(self.message)


class ConfigurationError(DeepLensError):
    """A setting is wrong."""

    code = "CONFIGURATION"


# Requests ------------------------------------------------------------------------------------


class BadRequest(DeepLensError):
    """The request has a field that cannot be used."""

    code = "BAD_REQUEST"
    http_status = 400


class InvalidImageId(BadRequest):
    """An image ID is img_ followed by a UUID, or the UUID alone."""

    code = "INVALID_IMAGE_ID"


class InvalidTenantId(BadRequest):
    """A tenant ID is 1 to 63 of a-z, 0-9 and -, beginning and ending with a letter or digit."""

    code = "INVALID_TENANT_ID"


class UnknownModel(BadRequest):
    """This system has no such model."""

    code = "UNKNOWN_MODEL"


class NotFound(DeepLensError):
    """There is nothing here."""

    code = "NOT_FOUND"
    http_status = 404


class ImageNotFound(NotFound):
    """No image has this ID."""

    code = "IMAGE_NOT_FOUND"


class TooLarge(DeepLensError):
    """The picture has more bytes than this system takes."""

    code = "TOO_LARGE"
    http_status = 413


class TooManyPixels(TooLarge):
    """The picture has more pixels than this system takes."""

    code = "TOO_MANY_PIXELS"


class UnsupportedFormat(DeepLensError):
    """The file is none of JPEG, PNG, WebP, BMP, TIFF, GIF, AVIF and HEIC by its content."""

    code = "UNSUPPORTED_FORMAT"
    http_status = 415


class ImageNotSearchable(NotFound):
    """This image has no vector yet; follow its status and search when it is completed."""

    code = "IMAGE_NOT_SEARCHABLE"


class RangeNotSatisfiable(DeepLensError):
    """The range lies outside the picture's bytes."""

    code = "RANGE_NOT_SATISFIABLE"
    http_status = 416


# Pictures and events that can never succeed ---------------------------------------------------


class UndecodableImage(DeepLensError):
    """The picture cannot be decoded: it is damaged or cut short."""

    code = "UNDECODABLE_IMAGE"
    http_status = 400


class MalformedEvent(DeepLensError):
    """The message is not an event that this topic carries."""

    code = "MALFORMED_EVENT"


class DimensionMismatch(DeepLensError):
    """The vector has not as many numbers as its model makes."""

    code = "DIMENSION_MISMATCH"


# Dependencies that are away for a while -------------------------------------------------------


class DependencyUnavailable(DeepLensError):
    """A part that this needs does not answer now; try again later."""

    code = "DEPENDENCY_UNAVAILABLE"
    http_status = 503
    retryable = True


class BrokerUnavailable(DependencyUnavailable):
    """Kafka does not take events now; try again later."""

    code = "BROKER_UNAVAILABLE"


class StorageUnavailable(DependencyUnavailable):
    """The image storage does not answer now; try again later."""

    code = "STORAGE_UNAVAILABLE"


class StorageFull(DependencyUnavailable):
    """There is no room left for images; make room and try again."""

    code = "STORAGE_FULL"
    http_status = 507


class VectorsUnavailable(DependencyUnavailable):
    """The vector engine does not answer now; try again later."""

    code = "VECTORS_UNAVAILABLE"


class ExtractorUnavailable(DependencyUnavailable):
    """The model is not ready to answer now; try again later."""

    code = "EXTRACTOR_UNAVAILABLE"


class TableUnavailable(DependencyUnavailable):
    """The status table cannot be read or written now; try again later."""

    code = "TABLE_UNAVAILABLE"


class WeightsUnavailable(ConfigurationError):
    """No weights for the model can be had."""

    code = "WEIGHTS_UNAVAILABLE"


class RowMoving(DependencyUnavailable):
    """The worker that keeps this row is changing; try again in a second."""

    code = "ROW_MOVING"
