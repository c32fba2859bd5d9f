"""The HTTP interface as machines read it: OpenAPI 3.1, made from the routes and their errors."""

from deeplens_streams.web.openapi.document import AUTHENTICATION_ERRORS, OPERATIONS, document

__all__ = ["AUTHENTICATION_ERRORS", "OPERATIONS", "document"]
