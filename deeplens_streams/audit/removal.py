"""How a repair takes things away: into the trash first, and only then from their place."""

import orjson

from deeplens_streams.audit.context import AuditContext
from deeplens_streams.audit.report import NotRepaired, Repair
from deeplens_streams.storage.trash import WrittenMeanwhile
from deeplens_streams.vectors.base import VectorPoint, VectorStore
from models.trash import TrashKind

_KINDS = {"original": TrashKind.ORIGINAL, "thumbnail": TrashKind.THUMBNAIL}


class Removal:
    """Takes away what is nobody's, in a way that can be taken back."""

    def __init__(self, context: AuditContext) -> None:
        self._context, self._services = context, context.services

    def object(
        self,
        key: str,
        *,
        tenant: str,
        image_id: str | None,
        kind: TrashKind,
        why: str,
        known: bytes | None = None,
    ) -> Repair:
        """Take away an object.

        Parameters
        ----------
        image_id : None where it does not say whose it is.
        known : what it was when it was judged; another one stays.
        """

        async def repair() -> None:
            # Storage that does not work is no proof: it looks as if it had nothing.
            await self._services.storage.ping()
            try:
                await self._services.trash.move(
                    key,
                    kind=kind,
                    tenant=tenant,
                    image_id=image_id,
                    why=self._context.why(why),
                    known=known,
                )
            except WrittenMeanwhile:
                raise NotRepaired("it was written anew meanwhile, and stays") from None

        return repair

    def file(self, key: str, *, tenant: str, image_id: str, why: str) -> Repair:
        """Take away an original or a thumbnail."""
        kind = _KINDS[key.split("/")[1]]
        return self.object(key, tenant=tenant, image_id=image_id, kind=kind, why=why)

    def vector(
        self, vectors: VectorStore, *, tenant: str, model: str, image_id: str, why: str
    ) -> Repair:
        async def repair() -> None:
            await self._services.storage.ping()
            point = await vectors.get_point(tenant=tenant, model=model, image_id=image_id)
            if point is not None:
                await self._services.trash.keep(
                    vector_bytes(point),
                    model,
                    kind=TrashKind.VECTOR,
                    tenant=tenant,
                    image_id=image_id,
                    why=self._context.why(why),
                )
            await vectors.delete([image_id], tenant=tenant, model=model)

        return repair

    def deleted_file(self, key: str, *, tenant: str) -> Repair:
        """Remove a file of an image that a person has deleted: nothing of it is kept."""

        async def repair() -> None:
            await self._services.storage.delete_object(tenant=tenant, key=key)

        return repair

    def deleted_vector(
        self, vectors: VectorStore, *, tenant: str, model: str, image_id: str
    ) -> Repair:
        """Remove a vector of an image that a person has deleted."""

        async def repair() -> None:
            await vectors.delete([image_id], tenant=tenant, model=model)

        return repair

    def listed(self, key: str, *, tenant: str) -> Repair:
        """Remove a write that has not ended: whoever began it was never told that it is stored."""

        async def repair() -> None:
            await self._services.storage.remove_listed(tenant=tenant, key=key)

        return repair


def vector_bytes(point: VectorPoint) -> bytes:
    """Return a vector with its payload as the trash keeps it."""
    said = {"imageId": point.image_id, "vector": point.vector, "payload": point.payload}
    return orjson.dumps(said, option=orjson.OPT_SERIALIZE_NUMPY)
