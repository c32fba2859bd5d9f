"""The two forms that carry a picture, field by field."""

from typing import Final

from deeplens_streams.client.models.json_schemas import (
    IMAGE_ID,
    TENANT_ID,
    TIME,
    Schema,
    array,
    choice,
)
from deeplens_streams.web.forms import fields, filters, search, upload
from deeplens_streams.web.openapi import parts

_FILE: Final[Schema] = {
    "type": "string",
    "format": "binary",
    "description": "JPEG, PNG, WebP, BMP, TIFF, GIF, AVIF, HEIC or JPEG 2000 by its content.",
}
_FLAG: Final = choice("true", "false")
UPLOAD: Final[Schema] = {
    "type": "object",
    "properties": {
        upload.FILE_FIELD: _FILE,
        "tenantId": TENANT_ID,
        "uploadedBy": {"type": "string", "maxLength": fields.MAX_UPLOADED_BY},
        "models": array(parts.MODEL) | {"description": "Default: the system's model."},
        "priority": choice(*fields.PRIORITIES) | {"default": "normal"},
        "skipDuplicateCheck": _FLAG | {"default": "false"},
        "generateThumbnail": _FLAG | {"default": "true"},
        "keepGps": _FLAG
        | {"default": "false", "description": "Keep EXIF's place in the metadata."},
        upload.URL_FIELD: {
            "type": "string",
            "description": "Instead of the picture its address, where that is switched on.",
        },
    },
    "patternProperties": {
        r"^tags\[[A-Za-z0-9_-]{1,64}\]$": {"type": "string", "maxLength": fields.MAX_TAG_VALUE}
    },
    "description": f"One of `{upload.FILE_FIELD}` and `{upload.URL_FIELD}`; `tenantId` is needed "
    "where the key names none.",
}
_VALUE: Final[Schema] = {"type": "string", "maxLength": filters.MAX_VALUE_LENGTH}
_VALUES: Final[Schema] = {
    "anyOf": [_VALUE, array(_VALUE) | {"minItems": 1, "maxItems": filters.MAX_VALUES}],
    "description": "One of these.",
}
#: An object in a form is a part that holds JSON.
_FILTERS: Final[Schema] = {
    "type": "object",
    "description": "All must hold.",
    "properties": {
        "fileName": _VALUES,
        "contentType": _VALUES,
        "uploadedBy": _VALUES,
        "uploadedAt": {
            "type": "object",
            "properties": {"gte": TIME, "lt": TIME},
            "additionalProperties": False,
            "minProperties": 1,
        },
    },
    "patternProperties": {r"^tags\.[A-Za-z0-9_-]{1,64}$": _VALUES},
    "additionalProperties": False,
    "maxProperties": filters.MAX_CONDITIONS,
    "examples": [{"contentType": ["image/png", "image/webp"]}],
}
SEARCH: Final[Schema] = {
    "type": "object",
    "description": f"Exactly one of `{search.FILE_FIELD}` and `imageId`; `tenantId` is needed "
    "where the key names none.",
    "properties": {
        search.FILE_FIELD: _FILE,
        "imageId": IMAGE_ID,
        "tenantId": TENANT_ID,
        "limit": {"type": "integer", "minimum": 1, "maximum": 100, "default": 10},
        "threshold": {"type": "number", "minimum": -1, "maximum": 1, "default": 0.7},
        "filters": _FILTERS,
        "modelName": parts.MODEL,
    },
}
