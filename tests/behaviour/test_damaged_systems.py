"""Audits of systems that are damaged at random: repairs lose nothing, and nothing ends them."""

import random
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from deeplens_streams.audit import settled
from deeplens_streams.storage.blobs.store import Write
from deeplens_streams.storage.image_objects import metadata_key_of
from tests.support.damaged_systems import KINDS, ManyImages, check
from tests.support.killed_systems import TENANT, Killed


@pytest.fixture(autouse=True)
def _everything_is_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settled, "GRACE_S", -1.0)


@pytest.mark.parametrize("seed", [1, 2])
async def test_repairs_lose_nothing(seed: int) -> None:
    """The set of originals' bytes is the same, and every whole image is completed and found."""
    faults = await check(150, seed)
    assert {"pointer_missing", "metadata_missing", "metadata_damaged"} <= faults.keys()


#: JSON that nobody writes.
ODD: tuple[Any, ...] = (
    None,
    True,
    7,
    1e308,
    -1,
    2**63,
    "",
    "\0",
    "then",
    "9999-12-31T23:59:59.999-23:59",
    "0001-01-01T00:00:00+23:59",
    "2026-03-09T12:00:00",
    "../../etc/passwd",
    "another-tenant",
    "img_00000000-0000-4000-8000-000000000000",
    [],
    [[[]]],
    {},
    {"a": {"b": None}},
)


def spoiled(data: bytes, chosen: random.Random, others: list[bytes]) -> bytes:
    """Return what may lie where an object lay."""
    ways: list[Callable[[], bytes]] = [
        lambda: b"",
        lambda: data[: chosen.randrange(len(data) + 1)],
        lambda: chosen.randbytes(chosen.choice((1, len(data) + 1))),
        lambda: bytes(len(data)),
        lambda: chosen.choice(others),
        lambda: orjson.dumps(chosen.choice(ODD)),
        lambda: b"[" * 100_000,
        lambda: data + data,
        lambda: _with_odd_fields(data, chosen),
        lambda: _with_odd_fields(data, chosen),
        lambda: _with_odd_fields(data, chosen),
    ]
    return chosen.choice(ways)()


def _with_odd_fields(data: bytes, chosen: random.Random) -> bytes:
    try:
        said = orjson.loads(data)
    except orjson.JSONDecodeError:
        return b"\0"
    for name in chosen.sample(sorted(said), k=min(chosen.randint(1, 3), len(said))):
        odd = chosen.choice(ODD)
        if chosen.random() < 0.2:
            del said[name]
        elif isinstance(said[name], dict) and said[name]:
            said[name][chosen.choice(sorted(said[name]))] = odd
        else:
            said[name] = odd
    return orjson.dumps(said)


@pytest.mark.parametrize("seed", range(6))
async def test_nothing_ends_an_audit_whatever_is_in_it(seed: int) -> None:
    """Every second object, row and payload is nonsense; its tenant and its image are named."""
    system, chosen = ManyImages(), random.Random(seed)
    await system.build(40)
    keys = {
        key: await system.blobs.get(key, action="read") or b""
        for folder in KINDS.values()
        async for key in system.blobs.walk(folder, action="list")
    }
    everything = list(keys.values())
    for key, data in keys.items():
        if chosen.random() < 0.5:
            await system.blobs.put(Write(key, spoiled(data, chosen, everything)), action="damage")
    _spoil_rows(system, chosen)
    _spoil_payloads(system, chosen)
    for repair in (False, True, True):
        said = await system.audit(repair=repair, settle=False)
        assert said.total["type"] == "total"
        assert said.total["accepted"] == 40
        named = [each for each in said.findings if each["imageId"] or "acme" in each["detail"]]
        assert len(named) > len(said.findings) // 2
    assert {each["tenantId"] for each in said.findings} >= {TENANT}


def _spoil_rows(system: ManyImages, chosen: random.Random) -> None:
    fields = ("uploadedAt", "lastUpdated", "models", "steps", "generation", "status", "fileSize")
    for row in list(system.table.values()):
        if chosen.random() < 0.3:
            # Typed as it is read, but whatever a stranger may have written.
            name = chosen.choice(fields)
            known = type(getattr(row, name))
            odd = [each for each in ODD if type(each) is known] or [None]
            setattr(row, name, chosen.choice(odd))


def _spoil_payloads(system: ManyImages, chosen: random.Random) -> None:
    for stored in system.vectors._collections.values():
        for _, payload in stored.rows.values():
            if chosen.random() < 0.3:
                payload[chosen.choice(sorted(payload))] = chosen.choice(ODD)


async def test_a_repair_that_is_killed_leaves_everything_in_one_place_at_least() -> None:
    """Behind each of its writes, in turn; the next one ends what it began."""
    at, ended = 0, False
    while not ended:
        at += 1
        system = ManyImages()
        await system.build(4)
        image = next(iter(system.images.values()))
        # Of one upload nothing tells that it was answered; of another the object is damaged.
        key = image.originalKey.replace(image.imageId[4:], image.imageId[4:-4] + "beef")
        await system.blobs.put(Write(key, b"never answered"), action="test")
        await system.hurt(metadata_key_of(image), "cut")
        before = await system.originals()
        system.fuse.at = system.fuse.writes + at
        try:
            await system.audit(repair=True, settle=False)
            ended = True
        except Killed:
            assert (await system.originals()).keys() == before.keys()
        said = await system.audit(repair=True)
        assert said.total["accepted"] == 4
        assert (await system.originals()).keys() == before.keys()
        assert (await system.services.storage.find(image.imageId)) is not None
        assert (await system.audit(repair=True)).findings == []
    assert at > 8
