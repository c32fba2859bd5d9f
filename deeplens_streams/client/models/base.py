"""What every answer is, to those who write it, read it, or read what is written of it."""

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Final, Self, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.fields import FieldInfo

from deeplens_streams.client.errors import NotReachable
from deeplens_streams.client.models.json_schemas import IMAGE_ID, LETTER_ID, TENANT_ID, TIME, choice
from models.states import ImageState

Raw = Mapping[str, Any]
#: In a model's schema: the record whose schema stands for it, which pydantic does not know.
RECORD: Final = "x-record"


def one_of(*values: str) -> WithJsonSchema:
    """Describe a string that is one of `values`; a client takes one of a newer version, too."""
    return WithJsonSchema(choice(*values))


def record(name: str) -> WithJsonSchema:
    """Describe a record that is shown as it is kept; it is an object to the client."""
    return WithJsonSchema({RECORD: name})


ImageId = Annotated[str, WithJsonSchema(IMAGE_ID)]
TenantId = Annotated[str, WithJsonSchema(TENANT_ID)]
LetterId = Annotated[str, WithJsonSchema(LETTER_ID)]
Time = Annotated[str, WithJsonSchema(TIME)]
State = Annotated[str, one_of(*ImageState)]
Cursor = Annotated[str, Field(description="For the next page; null at the end.")] | None


class Answer(BaseModel):
    """An object of the interface; its fields are camelCase there.

    A field with a default is one that a client does without, where an older version answers; what
    is written has every field.
    """

    # Built when first needed: whoever imports the client asks for few of them.
    model_config = ConfigDict(
        alias_generator=to_camel,
        frozen=True,
        protected_namespaces=(),
        defer_build=True,
        json_schema_serialization_defaults_required=True,
    )

    _raw: Raw = PrivateAttr(default_factory=dict)

    @property
    def raw(self) -> Raw:
        """The object as it came, with the fields that this version does not know."""
        return self._raw

    @classmethod
    def read(cls, raw: Raw) -> Self:
        """Read an answer.

        Raises
        ------
        NotReachable
            It is no such object: what answers is not DeepLens, or of another time.
        """
        try:
            return cls.model_validate(raw)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise NotReachable(
                f"The answer is not one of DeepLens ({where}: {first['msg']}); check the URL."
            ) from None

    @model_validator(mode="wrap")
    @classmethod
    def _keep_raw(cls, raw: Any, build: ModelWrapValidatorHandler[Self]) -> Self:
        found = build(raw)
        if isinstance(raw, Mapping):
            found._raw = raw  # noqa: SLF001 - its own class
        return found


class Reply(Answer):
    """An endpoint's own object, as a success and as an error answers it."""

    success: bool
    message: str | None
    error_code: str | None

    @classmethod
    @cache
    def blank(cls) -> Mapping[str, Any]:
        """Return what an error answers of the object: null or empty, in the order of the fields."""
        own = dict.fromkeys(
            name
            for each in reversed(cls.__mro__)
            if issubclass(each, Answer) and each not in (Answer, Reply)
            for name in each.__annotations__
        )
        first = [name for name in ("success", "message") if name not in own]
        last = [name for name in ("error_code",) if name not in own]
        fields = cls.model_fields
        return {
            fields[name].alias or name: _empty(fields[name]) for name in (*first, *own, *last)
        } | {"success": False}


def _empty(field: FieldInfo) -> Any:
    """Return what stands for nothing: records are null, as are all that is no list or map."""
    if get_origin(field.annotation) is list:
        return []
    is_record = any(isinstance(each, WithJsonSchema) for each in field.metadata)
    return {} if get_origin(field.annotation) is dict and not is_record else None
