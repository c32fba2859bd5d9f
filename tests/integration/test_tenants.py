"""Tenants on a real Kafka: quotas over two workers, keys after restarts, and nothing left."""

import asyncio
import os
import re
import sys
from collections import Counter

import orjson

from deeplens_streams.broker.topology import CHANGELOGS, STATUS, TENANTS
from tests.support.operators import OPERATOR, admin
from tests.support.pipeline import count_points, read_all, small_picture
from tests.support.system import Client, System, Worker, until

LIMIT = 100


async def test_a_quota_holds_over_two_workers_and_the_count_is_exact(system: System) -> None:
    one = await system.started("one", ADMIN_KEY=OPERATOR)
    two = await system.started("two", roles="api", ADMIN_KEY=OPERATOR)
    operator = system.client(one, key=OPERATOR)
    made = await admin(
        operator, "POST", "tenants", {"tenantId": "acme-corp", "limits": {"images": LIMIT}}
    )
    clients = [system.client(worker, key=made["apiKey"]) for worker in (one, two)]
    answers: Counter[tuple[int, str | None]] = Counter()
    ids: list[str] = []

    async def upload(number: int) -> None:
        """Upload until the quota is full, to one worker and the other in turn."""
        refused = 0
        while refused < 2:
            client = clients[(number + len(ids)) % 2]
            form = {"file": small_picture(), "skipDuplicateCheck": "true"}
            status, answer = await client.post("/api/v1/images/upload", form)
            answers[(status, answer["errorCode"])] += 1
            if status == 202:
                ids.append(answer["imageId"])
            else:
                refused += 1

    await asyncio.gather(*(upload(number) for number in range(20)))
    assert set(answers) == {(202, None), (429, "QUOTA_EXCEEDED")}, answers
    # At most one lease beyond the limit is promised; the leases themselves never pass it.
    assert answers[(202, None)] == LIMIT

    await clients[0].until_final(ids)
    size = len(small_picture())

    async def usage(client: Client, images: int) -> None:
        async def is_exact() -> bool:
            async with client.http.get("/api/v1/usage") as response:
                answer = await response.json()
            return (answer["images"], answer["bytes"]) == (images, images * size)

        await until(is_exact, f"{images} pictures are counted")

    for client in clients:
        await usage(client, LIMIT)
    # Who counts is killed; who comes after it counts on, and does not count twice.
    two.kill()
    one.kill()
    again = await system.started("one", ADMIN_KEY=OPERATOR)
    client = system.client(again, key=made["apiKey"])
    for image_id in ids[:3]:
        async with client.http.delete(f"/api/v1/images/{image_id}") as response:
            assert response.status in (200, 202), await response.text()
    await usage(client, LIMIT - 3)
    status, answer = await client.post(
        "/api/v1/images/upload", {"file": small_picture(), "skipDuplicateCheck": "true"}
    )
    assert status == 202, answer
    await client.until_final([answer["imageId"]])
    await usage(client, LIMIT - 2)


async def run(worker: Worker, *arguments: str, key: str | None = OPERATOR) -> tuple[int, str, str]:
    """Run ``deeplens tenants``; return its exit code and what it said."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("DEEPLENS_")}
    if key:
        env["DEEPLENS_API_KEY"] = key
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "deeplens_streams.cli.main", "tenants", *arguments),
        *("--url", worker.url),
        env=env,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_the_tenant_manager(system: System) -> None:
    worker = await system.started("one", ADMIN_KEY=OPERATOR)
    code, out, err = await run(worker, "create", "acme", "other", "--max-images", "7")
    assert code == 0, err
    steps = [line.split()[0] for line in out.splitlines() if " ok " in line]
    assert steps == 2 * ["registry", "storage", "collections", "first_key", "ready"]
    assert out.count("Everything that it needs answers.") == 2
    first = re.search(r"acme: API key (dlk_\S+)", out)
    assert first is not None
    client = system.client(worker, key=first[1])
    await client.until_final([(await upload_one(client))])

    assert (await run(worker, "create", "acme"))[0] == 1
    code, out, err = await run(worker, "create", "acme", "--model", "vit-b", "--dimension", "768")
    assert (code, "tenant_acme_vit-b_vectors" in out) == (0, True), err
    assert (await run(worker, "create", "acme", "--model", "vit-b"))[0] == 2

    async def shows_usage() -> bool:
        code, out, _ = await run(worker, "usage", "acme", "--json")
        return code == 0 and orjson.loads(out)["images"] == 1

    await until(shows_usage, "the usage is counted", poll_s=0.5)
    code, out, _ = await run(worker, "usage", "acme")
    assert "images  1 of 7" in out
    code, out, _ = await run(worker, "list")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["tenant", "acme", "other"]
    code, out, _ = await run(worker, "limit", "acme", "--max-bytes", "1000")
    assert "limit of bytes" in out

    code, out, err = await run(worker, "keys", "create", "--tenant", "acme", "--scope", "read")
    assert code == 0, err
    made = out.strip()
    async with system.client(worker, key=made).http.get("/api/v1/images") as response:
        assert response.status == 200
    code, out, _ = await run(worker, "keys", "list", "--tenant", "acme", "--json")
    assert [each["scopes"] for each in orjson.loads(out)["keys"]][1] == ["read"]
    key_id = orjson.loads(out)["keys"][1]["keyId"]
    code, out, _ = await run(worker, "keys", "rotate", key_id, "--tenant", "acme")
    assert (code, out.startswith("dlk_")) == (0, True)
    assert (await run(worker, "keys", "revoke", key_id, "--tenant", "acme"))[0] == 0
    async with system.client(worker, key=made).http.get("/api/v1/images") as response:
        assert response.status == 401

    assert (await run(worker, "suspend", "acme"))[0] == 0
    code, out, _ = await run(worker, "check", "acme")
    assert (code, "failed" in out) == (3, True)
    assert (await run(worker, "resume", "acme"))[0] == 0
    assert (await run(worker, "check", "acme"))[0] == 0

    code, _, err = await run(worker, "list", key=None)
    assert (code, "API key" in err, "Traceback" in err) == (1, True, False)
    code, _, err = await run(worker, "show", "nobody")
    assert (code, "No tenant" in err) == (1, True)

    code, out, err = await run(worker, "delete", "acme", "--yes")
    assert (code, "Nothing is left" in out) == (0, True), err
    assert (await run(worker, "show", "acme"))[0] == 1


async def upload_one(client: Client) -> str:
    status, answer = await client.post("/api/v1/images/upload", {"file": small_picture()})
    assert status == 202, answer
    image_id: str = answer["imageId"]
    return image_id


async def upload_until_refused(client: Client, ids: list[str]) -> None:
    """Upload one picture after the other, until their tenant is deleted."""
    form = {"file": small_picture(), "skipDuplicateCheck": "true"}
    while True:
        status, answer = await client.post("/api/v1/images/upload", form)
        if status != 202:
            refusals = {"TENANT_DELETING", "TENANT_NOT_FOUND", "INVALID_API_KEY"}
            assert answer["errorCode"] in refusals, answer
            return
        ids.append(answer["imageId"])


async def is_forgotten(system: System, tenant: str, images: list[str]) -> bool:
    """Tell whether the last record of every key in a compacted topic is a tombstone."""
    rows, tenants = CHANGELOGS
    last = {
        topic: {each.key.decode(): each.value for each in await read_all(system, topic)}
        for topic in (TENANTS, tenants, STATUS, rows)
    }
    ended = [last[topic].get(tenant, b"") for topic in (TENANTS, tenants)]
    ended += [last[STATUS].get(image_id, b"") for image_id in images]
    # Where the purge was faster than a picture's first report, there was no row.
    ended += [last[rows].get(image_id) for image_id in images]
    return not any(value is not None for value in ended)


async def test_a_tenant_that_is_deleted_while_it_is_used_leaves_nothing(system: System) -> None:
    worker = await system.started("one", ADMIN_KEY=OPERATOR)
    operator = system.client(worker, key=OPERATOR)
    keys = {
        name: (await admin(operator, "POST", "tenants", {"tenantId": name}))["apiKey"]
        for name in ("acme", "acme-corp")
    }
    clients = {name: system.client(worker, key=key) for name, key in keys.items()}
    images: dict[str, list[str]] = {}
    for name, client in clients.items():
        images[name] = [await upload_one(client)]
        form = {"file": small_picture(), "skipDuplicateCheck": "true"}
        for _ in range(5):
            images[name].append((await client.post("/api/v1/images/upload", form))[1]["imageId"])
        await client.until_final(images[name])
    gone, survivor = clients["acme"], clients["acme-corp"]
    async with gone.http.delete(f"/api/v1/images/{images['acme'][1]}") as response:
        assert response.status in (200, 202)

    uploads = [asyncio.create_task(upload_until_refused(gone, images["acme"])) for _ in range(8)]

    async def is_busy() -> bool:
        return len(images["acme"]) > 40

    await until(is_busy, "uploads are under way")
    # Twice, as from somebody who is in a hurry: two workers may be at it then.
    delete = admin(operator, "DELETE", "tenants/acme?confirm=acme")
    await asyncio.gather(delete, admin(operator, "DELETE", "tenants/acme?confirm=acme"))
    await asyncio.gather(*uploads)

    async def is_gone() -> bool:
        async with operator.http.get("/api/v1/admin/tenants/acme") as response:
            return response.status == 404

    await until(is_gone, "the registry has forgotten the tenant")
    async with gone.http.get("/api/v1/images") as response:
        assert response.status == 401

    async def forgotten() -> bool:
        return await is_forgotten(system, "acme", images["acme"])

    async def has_no_file() -> bool:
        left = [path for path in system.data_dir.rglob("*") if "acme" in path.parts]
        return not any(path.is_file() for path in left)

    async def nothing_is_left() -> None:
        await until(forgotten, "the last record of every key is a tombstone", poll_s=1)
        assert await is_gone()
        # A stage that had a picture in hand may write behind the purge, and takes that back.
        await until(has_no_file, "no file of the tenant is left")
        async with operator.http.post("/api/v1/admin/audit") as response:
            lines = [orjson.loads(line) async for line in response.content]
        # A name is told from one that it begins.
        assert [each["tenantId"] for each in lines if each["type"] == "tenant"] == ["acme-corp"]
        assert [each for each in lines if each["type"] == "finding"] == []

    await nothing_is_left()
    # Whatever was on its way is behind us when pictures that came later are at their end.
    images["acme-corp"] += [await survivor.upload(small_picture()) for _ in range(24)]
    await survivor.until_final(images["acme-corp"])
    await nothing_is_left()
    async with survivor.http.get("/api/v1/images?limit=200") as response:
        page = await response.json()
    assert {each["imageId"] for each in page["images"]} == set(images["acme-corp"])

    # A tenant of the same name is another one.
    made = await admin(operator, "POST", "tenants", {"tenantId": "acme"})
    again = system.client(worker, "acme", key=made["apiKey"])
    assert set((await again.until_final([await upload_one(again)])).values()) == {"completed"}

    async def counts_one() -> bool:
        return (await admin(operator, "GET", "tenants/acme/usage"))["images"] == 1

    await until(counts_one, "its picture is counted")
    worker.stop()
    assert await count_points(system, "acme") == 1
    assert await count_points(system, "acme-corp") == 30
