"""Kafka is lost, storage is not: tenants, keys and limits are back, and usage after an audit."""

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from deeplens_streams.config import load_settings
from deeplens_streams.deletion import image as deletion
from deeplens_streams.services import Services, build_services
from models.deletion import PurgeStep
from models.events import wire_time
from tests.support.operators import OPERATOR, admin
from tests.support.pipeline import small_picture
from tests.support.stored_images import image as made_image
from tests.support.system import Client, System, until


async def answered(client: Client, path: str = "/api/v1/usage") -> tuple[int, Any]:
    async with client.http.get(path) as response:
        return response.status, await response.json()


async def repaired(client: Client) -> dict[str, Any]:
    """Audit everything with repairs; return the last line."""
    async with client.http.post("/api/v1/admin/audit?repair=true") as response:
        lines = [line async for line in response.content]
    last: dict[str, Any] = orjson.loads(lines[-1])
    assert last["type"] == "total", last
    return last


def services_of(system: System) -> Services:
    """Return the storage that the workers have."""
    return build_services(load_settings(roles="api", data_dir=system.data_dir, weights="untrained"))


async def deleted_long_ago(system: System) -> str:
    """Have an image be there that was purged a year ago; return its ID."""
    services, ago = services_of(system), datetime.now(UTC) - timedelta(days=365)
    image = made_image(services.storage, at=ago)
    await services.storage.put_image(image, small_picture())
    tombstone = await deletion.bury(image, services)
    await services.storage.delete_object(tenant=image.tenantId, key=image.originalKey)
    tombstone.completedAt = wire_time(ago)
    tombstone.steps = {step.value: tombstone.completedAt for step in PurgeStep}
    await services.tombstones.put(tombstone)
    return image.imageId


async def test_everything_of_tenants_comes_back_from_storage(system: System) -> None:
    worker = await system.started("one", ADMIN_KEY=OPERATOR)
    operator = system.client(worker, key=OPERATOR)
    keys: dict[str, str] = {}
    for tenant in ("acme-corp", "sleeping", "gone"):
        body = {"tenantId": tenant, "limits": {"images": 50}}
        keys[tenant] = (await admin(operator, "POST", "tenants", body))["apiKey"]
    second = await admin(operator, "POST", "tenants/acme-corp/keys", {"name": "second"})
    revoked = await admin(operator, "POST", "tenants/acme-corp/keys", {"name": "revoked"})
    await admin(operator, "DELETE", f"tenants/acme-corp/keys/{revoked['key']['keyId']}")
    night = (await admin(operator, "POST", "keys", {"name": "night shift"}))["apiKey"]
    await admin(operator, "POST", "tenants/sleeping/suspend")
    client = system.client(worker, key=keys["acme-corp"])
    form = {"file": small_picture(), "skipDuplicateCheck": "true"}
    ids = [(await client.post("/api/v1/images/upload", form))[1]["imageId"] for _ in range(3)]
    await client.until_final(ids)
    await admin(operator, "DELETE", "tenants/gone?confirm=gone")

    async def is_gone() -> bool:
        status, answer = await answered(operator, "/api/v1/admin/tenants/gone/purge")
        return status == 200 and answer["completedAt"] is not None

    await until(is_gone, "the tenant is gone")
    worker.stop()
    forgotten = await deleted_long_ago(system)

    # Topics, groups, changelogs and state are new; images and vectors are the same.
    lost = {"ADMIN_KEY": OPERATOR, "NAMESPACE": f"{system.namespace}-2"}
    worker = system.worker("two", **lost)
    worker._args = ["tests.support.impatient_worker", "worker", "-l", "info"]
    worker.start()
    await worker.until_ready()
    # The third is the operators' own.
    assert '"tenants": 3, "event": "tenants are read back from storage' in worker.log()
    for key in (keys["acme-corp"], second["apiKey"]):
        status, usage = await answered(system.client(worker, key=key))
        assert (status, usage["limits"]["images"]) == (200, 50), usage
    assert (await answered(system.client(worker, key=keys["sleeping"])))[0] == 403
    for key in (keys["gone"], revoked["apiKey"]):
        assert (await answered(system.client(worker, key=key)))[0] == 401
    operator = system.client(worker, key=night)
    assert (await answered(operator, "/api/v1/admin/tenants/sleeping"))[1]["tenant"]["state"] == (
        "suspended"
    )
    made = await admin(operator, "POST", "tenants/acme-corp/keys", {"name": "third"})

    async def is_counted() -> bool:
        answer = await admin(operator, "GET", "tenants/acme-corp/usage")
        return (answer["images"], answer["bytes"]) == (3, 3 * len(small_picture()))

    async def is_whole() -> bool:
        await repaired(operator)
        return await is_counted()

    await until(is_whole, "usage is what is stored", poll_s=1.0, seconds=120)
    client = system.client(worker, key=made["apiKey"])
    await client.until_final(ids)
    status, answer = await client.post("/api/v1/images/upload", form)
    assert status == 202, answer
    await client.until_final([answer["imageId"]])

    async def counts_on() -> bool:
        return (await admin(operator, "GET", "tenants/acme-corp/usage"))["images"] == 4

    await until(counts_on, "what comes is counted")

    async def is_forgotten() -> bool:
        async with operator.http.get("/metrics") as response:
            return "deeplens_tombstones_aged_total 1.0" in await response.text()

    await until(is_forgotten, "what was deleted long ago is forgotten")
    assert await services_of(system).tombstones.find(forgotten) is None
