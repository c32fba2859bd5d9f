"""Every error that a person or a dead letter may see: a class with its code and HTTP status.

The docstring is the default message; it says what to do. Codes are stable.
"""

import inspect
from collections.abc import Iterator
from typing import ClassVar


class DeepLensError(Exception):
    """Something went wrong; look into the log."""

    code: ClassVar[str] = "INTERNAL"
    http_status: ClassVar[int] = 500
    #: Whether the same request or event may succeed later, unchanged.
    retryable: ClassVar[bool] = False
    #: Seconds after which it may, where that is known.
    retry_after: int | None = None

    def __init__(self, message: str | None = None) -> None:
        self.message = message or inspect.cleandoc(type(self).__doc__ or "").partition("\n")[0]
        super().__init__(self.message)


def every_error(base: type[DeepLensError] = DeepLensError) -> Iterator[type[DeepLensError]]:
    """Yield `base` and every error below it that is imported."""
    yield base
    for each in base.__subclasses__():
        yield from every_error(each)


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


class UrlRefused(BadRequest):
    """Pictures are not fetched from this address."""

    code = "URL_REFUSED"


class UrlNotFetched(BadRequest):
    """The picture's address does not answer with a picture; look at it in a browser."""

    code = "URL_NOT_FETCHED"


class NotFound(DeepLensError):
    """There is nothing here."""

    code = "NOT_FOUND"
    http_status = 404


class ImageNotFound(NotFound):
    """No image has this ID."""

    code = "IMAGE_NOT_FOUND"


class LetterNotFound(NotFound):
    """No dead letter has this ID."""

    code = "LETTER_NOT_FOUND"


class TableNotFound(NotFound):
    """There is no such table; /tables names those that there are."""

    code = "TABLE_NOT_FOUND"


class TableRowNotFound(NotFound):
    """The table has no row under this key."""

    code = "ROW_NOT_FOUND"


class AlreadyResolved(DeepLensError):
    """This dead letter is not waiting any more."""

    code = "ALREADY_RESOLVED"
    http_status = 409


class RetryUnderWay(DeepLensError):
    """This is being retried already; its status says what becomes of it."""

    code = "RETRY_UNDER_WAY"
    http_status = 409


class NotRetryable(DeepLensError):
    """The same event would fail again; mend the cause and force it, or discard the letter."""

    code = "NOT_RETRYABLE"
    http_status = 409


class NothingToRetry(DeepLensError):
    """No step of this image has failed."""

    code = "NOTHING_TO_RETRY"
    http_status = 409


class CollectionNotFound(NotFound):
    """This tenant has no such collection."""

    code = "COLLECTION_NOT_FOUND"


class DimensionConflict(DeepLensError):
    """There is a collection of this name with vectors of another dimension."""

    code = "DIMENSION_CONFLICT"
    http_status = 409


class TooLarge(DeepLensError):
    """The picture has more bytes than this system takes."""

    code = "TOO_LARGE"
    http_status = 413


class TooManyPixels(TooLarge):
    """The picture has more pixels than this system takes."""

    code = "TOO_MANY_PIXELS"


class TooManyFrames(TooLarge):
    """The picture has more frames or pages than this system takes."""

    code = "TOO_MANY_FRAMES"


class UploadTooSlow(DeepLensError):
    """The request's body came too slowly; send it again over a faster connection."""

    code = "UPLOAD_TOO_SLOW"
    http_status = 408


class UnsupportedFormat(DeepLensError):
    """By content it is none of JPEG, PNG, WebP, BMP, TIFF, GIF, AVIF, HEIC and JPEG 2000."""

    code = "UNSUPPORTED_FORMAT"
    http_status = 415


class UnsupportedKind(UnsupportedFormat):
    """This kind of picture is not supported; convert it to a usual one of its format."""

    code = "UNSUPPORTED_KIND"


class ImageNotSearchable(NotFound):
    """This image has no vector yet; follow its status and search when it is completed."""

    code = "IMAGE_NOT_SEARCHABLE"


class RangeNotSatisfiable(DeepLensError):
    """The range lies outside the picture's bytes."""

    code = "RANGE_NOT_SATISFIABLE"
    http_status = 416


# Keys and tenants ------------------------------------------------------------------------------


class HostRefused(DeepLensError):
    """Call it by a loopback address; for another name set DEEPLENS_ADVERTISED_URL, or use keys."""

    code = "HOST_REFUSED"
    http_status = 421


class OriginRefused(DeepLensError):
    """A page of another origin may do this only if DEEPLENS_CORS_ORIGINS names it."""

    code = "ORIGIN_REFUSED"
    http_status = 403


class KeyRequired(DeepLensError):
    """Send an API key in the header X-API-Key, or as Authorization: Bearer."""

    code = "API_KEY_REQUIRED"
    http_status = 401


class InvalidKey(DeepLensError):
    """This API key is not known."""

    code = "INVALID_API_KEY"
    http_status = 401


class TooManyFailures(DeepLensError):
    """Too many wrong keys came from this address; try again later."""

    code = "TOO_MANY_FAILURES"
    http_status = 429
    retryable = True


class MissingScope(DeepLensError):
    """This key may not do that."""

    code = "MISSING_SCOPE"
    http_status = 403


class WrongTenant(DeepLensError):
    """This key is of another tenant; leave tenantId out, or use that tenant's key."""

    code = "WRONG_TENANT"
    http_status = 403


class TenantSuspended(DeepLensError):
    """This tenant is suspended; ask whoever runs the system to resume it."""

    code = "TENANT_SUSPENDED"
    http_status = 403


class TenantDeleting(DeepLensError):
    """This tenant is being deleted."""

    code = "TENANT_DELETING"
    http_status = 403


class TenantNotFound(NotFound):
    """No tenant has this ID."""

    code = "TENANT_NOT_FOUND"


class TenantExists(DeepLensError):
    """There is a tenant of this ID already."""

    code = "TENANT_EXISTS"
    http_status = 409


class KeyNotFound(NotFound):
    """The tenant has no key of this ID."""

    code = "KEY_NOT_FOUND"


class KeyEnded(DeepLensError):
    """This key was revoked or has expired; make a new one."""

    code = "KEY_ENDED"
    http_status = 409


class QuotaExceeded(DeepLensError):
    """The tenant has as much as it may have; delete pictures, or have its limits raised."""

    code = "QUOTA_EXCEEDED"
    http_status = 429
    retryable = True


class RateLimited(DeepLensError):
    """The tenant has done this as often as it may in a minute; try again in the next one."""

    code = "RATE_LIMITED"
    http_status = 429
    retryable = True


# Pictures and events that can never succeed ---------------------------------------------------


class UndecodableImage(DeepLensError):
    """The picture cannot be decoded: it is damaged or cut short."""

    code = "UNDECODABLE_IMAGE"
    http_status = 400


class OriginalMissing(DeepLensError):
    """The image's bytes are missing from storage; bring them back from a backup, and retry."""

    code = "ORIGINAL_MISSING"
    retryable = True


class MalformedEvent(DeepLensError):
    """The message is not an event that this topic carries."""

    code = "MALFORMED_EVENT"


class NewerVersion(MalformedEvent):
    """This is of a newer version; retry it when every worker has that one."""

    code = "NEWER_VERSION"
    retryable = False  # not by this version


class DimensionMismatch(DeepLensError):
    """The vector has not as many numbers as its model makes."""

    code = "DIMENSION_MISMATCH"


# More than can be taken ------------------------------------------------------------------------


class BacklogFull(DeepLensError):
    """Too many pictures wait to be processed; try again later."""

    code = "BACKLOG_FULL"
    http_status = 429
    retryable = True


class TooManyUploads(DeepLensError):
    """Too many pictures are being sent at once; try again in a few seconds."""

    code = "TOO_MANY_UPLOADS"
    http_status = 429
    retryable = True


class TooManyRequests(DeepLensError):
    """As many requests of this kind as may be are under way; try again in a few seconds."""

    code = "TOO_MANY_REQUESTS"
    http_status = 429
    retryable = True


class CollectionLimit(DeepLensError):
    """This tenant has as many collections as it may have; delete one, or ask for a higher limit."""

    code = "COLLECTION_LIMIT"
    http_status = 429
    retryable = True
    #: Room is made by people.
    retry_after = 3600


# Dependencies that are away for a while -------------------------------------------------------


class DependencyUnavailable(DeepLensError):
    """A part that this needs does not answer now; try again later."""

    code = "DEPENDENCY_UNAVAILABLE"
    http_status = 503
    retryable = True
    #: Which part, as health checks and metrics call it.
    dependency: ClassVar[str] = "dependency"
    #: Whether it may be the fault of one object, as far as the error tells: the dependency itself
    #: is asked before anybody else is refused for it.
    ambiguous = False
    #: What was being done, for the log.
    action: str | None = None


class BrokerUnavailable(DependencyUnavailable):
    """Kafka does not take events now; try again later."""

    code = "BROKER_UNAVAILABLE"
    dependency = "broker"


class BrokerRefused(DeepLensError):
    """Kafka answers, and does not take this very event."""

    code = "BROKER_REFUSED"
    #: What it refuses may be a matter of its settings.
    retryable = True


class StorageUnavailable(DependencyUnavailable):
    """The image storage does not answer now; try again later."""

    code = "STORAGE_UNAVAILABLE"
    dependency = "storage"


class StorageFull(DependencyUnavailable):
    """There is no room left for images; make room and try again."""

    code = "STORAGE_FULL"
    http_status = 507
    dependency = "space"


class VectorsUnavailable(DependencyUnavailable):
    """The vector engine does not answer now; try again later."""

    code = "VECTORS_UNAVAILABLE"
    dependency = "vectors"


class VectorsRefused(DeepLensError):
    """The vector engine answers, and refuses this very request."""

    code = "VECTORS_REFUSED"
    #: What it refuses may be a matter of its settings.
    retryable = True


class ExtractorUnavailable(DependencyUnavailable):
    """The model is not ready to answer now; try again later."""

    code = "EXTRACTOR_UNAVAILABLE"
    dependency = "extractor"


class TableUnavailable(DependencyUnavailable):
    """The status table cannot be read or written now; try again later."""

    code = "TABLE_UNAVAILABLE"
    dependency = "tables"


class RegistryUnavailable(DependencyUnavailable):
    """The registry of tenants does not answer now; try again later."""

    code = "REGISTRY_UNAVAILABLE"
    dependency = "tables"


class WeightsUnavailable(ConfigurationError):
    """No weights for the model can be had."""

    code = "WEIGHTS_UNAVAILABLE"


class RowMoving(DependencyUnavailable):
    """The worker that keeps this row is changing; try again in a second."""

    code = "ROW_MOVING"
    dependency = "tables"
