"""The form of an upload, read once into a typed whole."""

from dataclasses import dataclass
from typing import Final, Self

from aiohttp import web

from deeplens_streams.features.base import ModelSpec
from deeplens_streams.web.forms import fields
from deeplens_streams.web.forms.multipart import Form
from deeplens_streams.web.middleware.auth import tenant_of
from models.events import ProcessingOptions

FILE_FIELD: Final = "file"
URL_FIELD: Final = "url"


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadForm:
    """What an upload's form says, checked.

    Attributes
    ----------
    file_name : the client's word for the file that is sent; None where none is.
    url : where the image is to be fetched instead.
    """

    tenant: str
    uploaded_by: str | None
    tags: dict[str, str]
    keep_gps: bool
    options: ProcessingOptions
    file_name: str | None
    url: str | None

    @classmethod
    def read(cls, request: web.Request, form: Form, *, model: ModelSpec) -> Self:
        """Check every field.

        Raises
        ------
        BadRequest, UnknownModel
            A field is none of ours; the message names it.
        WrongTenant, TenantNotFound, TenantSuspended, TenantDeleting
            As `tenant_of` says.
        """
        return cls(
            tenant=tenant_of(request, form.one("tenantId", exact=True)),
            uploaded_by=fields.plain_text(
                form.one("uploadedBy"), "uploadedBy", limit=fields.MAX_UPLOADED_BY
            ),
            tags=fields.tags(form),
            keep_gps=fields.boolean(form, "keepGps", default=False),
            options=fields.processing_options(form, model),
            file_name=form.file_name,
            url=form.one(URL_FIELD),
        )
