"""The schemas of answers, made from their models."""

from functools import cache
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from deeplens_streams.client import models
from deeplens_streams.client.models import Answer, Reply
from deeplens_streams.client.models.base import RECORD
from deeplens_streams.client.models.json_schemas import (
    NULL,
    PREFIX,
    STRING,
    Schema,
    nullable,
    ref,
    written,
)

#: Endpoints' own objects that a document names: those that say no with fields of their own.
_NAMED: Final[tuple[type[Reply], ...]] = (models.NotReady, models.TenantNotReady)


class _Generator(GenerateJsonSchema):
    """JSON Schema without what says nothing: titles, and the defaults that a client goes by."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def default_schema(self, schema: Any) -> Schema:
        return self.generate_inner(schema["schema"])

    def model_schema(self, schema: Any) -> Schema:
        made = super().model_schema(schema)
        made.pop("title", None)
        return made


@cache
def _schemas() -> dict[str, Schema]:
    known: list[type[BaseModel]] = [
        each
        for each in vars(models).values()
        if isinstance(each, type) and issubclass(each, BaseModel) and each not in (Answer, Reply)
    ]
    _, found = models_json_schema(
        [(each, "serialization") for each in known],
        ref_template=f"{PREFIX}{{model}}",
        schema_generator=_Generator,
    )
    return {name: _with_records(schema) for name, schema in found["$defs"].items()}


def _with_records(schema: Any) -> Any:
    """Return a schema in which each record that a model holds is a reference to its component."""
    if isinstance(schema, list):
        return [_with_records(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if RECORD in schema:
        return ref(schema[RECORD])
    return {name: _with_records(each) for name, each in schema.items()}


def named() -> dict[str, Schema]:
    """Return the components; an endpoint's own object stands where it is answered."""
    return {
        name: schema
        for name, schema in _schemas().items()
        if not issubclass(kind := getattr(models, name), Reply) or kind in _NAMED
    }


def succeeding(kind: type[Reply]) -> Schema:
    """Return the schema of an endpoint's own object as a success answers it."""
    return written({**_properties(kind), "success": {"const": True}})


def refusing(kind: type[Reply]) -> Schema:
    """Return the schema of the same object as its errors answer it: null or empty."""
    blank = kind.blank()
    return written(
        {
            **{name: _empty(blank[name], schema) for name, schema in _properties(kind).items()},
            "success": {"const": False},
            "message": STRING,
            "errorCode": STRING,
        }
    )


def _properties(kind: type[Reply]) -> dict[str, Schema]:
    if kind is Reply:
        both = nullable(STRING)
        return {"success": {"type": "boolean"}, "message": both, "errorCode": both}
    properties = _schemas()[kind.__name__]["properties"]
    return {name: properties[name] for name in kind.blank()}


def _empty(value: Any, schema: Schema) -> Schema:
    if value is None:
        return NULL
    return {**schema, **({"maxItems": 0} if value == [] else {"maxProperties": 0})}
