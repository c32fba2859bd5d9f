"""The form of a search, read once into a typed whole."""

from dataclasses import dataclass
from typing import Final, Self

from aiohttp import web

from deeplens_streams.errors import BadRequest
from deeplens_streams.features.base import ModelSpec
from deeplens_streams.identifiers import check_image_id
from deeplens_streams.vectors.base import SearchFilter
from deeplens_streams.web.forms import fields
from deeplens_streams.web.forms.filters import parse_filters
from deeplens_streams.web.forms.multipart import Form
from deeplens_streams.web.middleware.auth import tenant_of

FILE_FIELD: Final = "queryImage"


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchForm:
    """What a search's form says, checked.

    Attributes
    ----------
    image_id : the stored image to search by; None when the query is an image that is sent.
    """

    tenant: str
    model: ModelSpec
    image_id: str | None
    limit: int
    threshold: float
    where: SearchFilter

    @classmethod
    def read(cls, request: web.Request, form: Form, *, size: int, model: ModelSpec) -> Self:
        """Check every field.

        Parameters
        ----------
        size : bytes of the image that was sent.

        Raises
        ------
        BadRequest, UnknownModel
            A field is none of ours; the message names it.
        WrongTenant, TenantNotFound, TenantSuspended, TenantDeleting
            As `tenant_of` says.
        """
        tenant = tenant_of(request, form.one("tenantId", exact=True))
        given_id = form.one("imageId")
        if form.has_file == (given_id is not None):
            raise BadRequest(f"Send either a picture in {FILE_FIELD!r} or an 'imageId'.")
        if form.has_file and size == 0:
            raise BadRequest(f"The picture in the field {FILE_FIELD!r} is empty.")
        image_id = None if given_id is None else check_image_id(given_id)
        if (name := form.one("modelName")) is not None:
            fields.check_model(name, model)
        return cls(
            tenant=tenant,
            model=model,
            image_id=image_id,
            limit=fields.whole_number(form.one("limit"), "limit", default=10, low=1, high=100),
            threshold=fields.number(form, "threshold", default=0.7, low=-1, high=1),
            where=parse_filters(form.one("filters"), exclude_image_id=image_id),
        )
