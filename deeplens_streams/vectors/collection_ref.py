"""Where a tenant's vectors of a model are: in a collection of their own, or in a shared one."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deeplens_streams.errors import UnknownModel
from deeplens_streams.identifiers import check_tenant_id, is_tenant_id
from deeplens_streams.vectors.base import collection_name
from models.events import derived_id

#: The payload field that says whose a point of a shared collection is.
TENANT_FIELD = "_tenant"

#: The payload field of a marker: the point by which a tenant has a collection that may be empty,
#: where collections are shared. It has no `TENANT_FIELD`, so nothing that a tenant asks finds it.
MARKER_FIELD = "_collection"

_MODEL = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,61}[a-z0-9])?", re.ASCII)


@dataclass(frozen=True, slots=True)
class CollectionRef:
    """A tenant's collection of a model.

    Attributes
    ----------
    shared : whether the engine's collection holds other tenants' vectors, too.
    """

    tenant: str
    model: str
    shared: bool

    @property
    def name(self) -> str:
        """What the engine calls the collection; it is safe as a folder's name, too."""
        if self.shared:
            return shared_name(self.model)
        return collection_name(tenant=self.tenant, model=self.model)

    @property
    def owner(self) -> str | None:
        """What a point's `TENANT_FIELD` must say; None where a collection has one tenant."""
        return self.tenant if self.shared else None

    @property
    def marker_id(self) -> str:
        return derived_id("collection", self.tenant, self.model)

    def point_id(self, image_id: str) -> str:
        """Return the UUID of an image's point, the same at every redelivery."""
        if self.shared:
            return derived_id("point", self.tenant, image_id, self.model)
        return derived_id("point", image_id, self.model)

    def owned(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Return `payload` with the mark of its owner."""
        return {**payload, TENANT_FIELD: self.tenant} if self.shared else dict(payload)


def place_of(*, tenant: str, model: str, shared: bool) -> CollectionRef:
    """Return the place of a tenant's vectors.

    Raises
    ------
    InvalidTenantId, UnknownModel
        An ID that no tenant or no model can have.
    """
    if not _MODEL.fullmatch(model):
        raise UnknownModel(
            f"{model[:60]!r} is no model name: 1 to 63 of a-z, 0-9, - and ., beginning and ending "
            "with a letter or digit."
        )
    return CollectionRef(check_tenant_id(tenant), model, shared)


def shared_name(model: str) -> str:
    """Return ``shared_{model}_vectors``, which no tenant's own collection is called."""
    return f"shared_{model}_vectors"


def place_named(name: str, *, tenant: str, shared: bool) -> CollectionRef | None:
    """Return the place of `tenant` in the engine's collection `name`, or None if it has none."""
    match _parts(name):
        case owner, model if owner == (None if shared else tenant) and _MODEL.fullmatch(model):
            return CollectionRef(tenant, model, shared)
        case _:
            return None


def tenant_in(name: str) -> str | None:
    """Return whose the engine's collection `name` is; None where it is shared, or none of ours."""
    match _parts(name):
        case owner, model if _MODEL.fullmatch(model):
            return owner
        case _:
            return None


def model_in(name: str) -> str | None:
    """Return of which model the engine's collection `name` is; None where it is none of ours."""
    match _parts(name):
        case _, model if _MODEL.fullmatch(model):
            return model
        case _:
            return None


def is_shared(name: str) -> bool:
    """Tell whether the engine's collection `name` is one that tenants share."""
    match _parts(name):
        case None, model:
            return _MODEL.fullmatch(model) is not None
        case _:
            return False


def owner_in(payload: Mapping[str, Any]) -> str | None:
    """Return whose a point of a shared collection is, be it a marker or a picture's."""
    owner = payload.get(TENANT_FIELD, payload.get(MARKER_FIELD))
    return owner if is_tenant_id(owner) else None


def is_of_other_tenancy(name: str, *, shared: bool) -> bool:
    """Tell whether the engine's collection `name` was made under the other tenancy."""
    parts = _parts(name)
    return parts is not None and (parts[0] is None) != shared


def _parts(name: str) -> tuple[str | None, str] | None:
    """Return tenant (None where it is shared) and model of a collection; None if it is not ours.

    No ID has an underscore, so a name comes apart in one way only.
    """
    match name.split("_"):
        case ["shared", model, "vectors"]:
            return None, model
        case ["tenant", owner, model, "vectors"] if is_tenant_id(owner):
            return owner, model
        case _:
            return None
