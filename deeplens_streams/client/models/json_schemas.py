"""JSON Schema: what the schemas of answers, requests and messages are made of."""

from typing import Any, Final

#: A JSON Schema (2020-12), as OpenAPI 3.1 and AsyncAPI 3 hold it.
Schema = dict[str, Any]

STRING: Final[Schema] = {"type": "string"}
INTEGER: Final[Schema] = {"type": "integer"}
NUMBER: Final[Schema] = {"type": "number"}
BOOLEAN: Final[Schema] = {"type": "boolean"}
NULL: Final[Schema] = {"type": "null"}
IMAGE_ID: Final[Schema] = {
    "type": "string",
    "pattern": "^(img_)?[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$",
    "examples": ["img_6f6cf1a4-1d0b-4d0c-9c55-9a1f0c3b7e11"],
}
TENANT_ID: Final[Schema] = {
    "type": "string",
    "pattern": "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$",
    "examples": ["demo"],
}
LETTER_ID: Final[Schema] = {
    "type": "string",
    "pattern": "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$",
}
TIME: Final[Schema] = {"type": "string", "format": "date-time"}

#: Where a document has its components.
PREFIX: Final = "#/components/schemas/"


def ref(name: str) -> Schema:
    """Return a reference to a schema among the document's components."""
    return {"$ref": PREFIX + name}


def nullable(schema: Schema) -> Schema:
    return {"anyOf": [schema, NULL]}


def array(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def mapping(values: Schema) -> Schema:
    return {"type": "object", "additionalProperties": values}


def choice(*values: str) -> Schema:
    return {"type": "string", "enum": list(values)}


def written(properties: dict[str, Schema]) -> Schema:
    """Return the schema of an object that always has every field, and may get more."""
    return {"type": "object", "properties": properties, "required": list(properties)}
