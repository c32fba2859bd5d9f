"""What others do between an audit's look and its repair stays as they did it."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from deeplens_streams.audit import settled
from deeplens_streams.storage import object_keys
from deeplens_streams.storage.blobs.store import Write
from deeplens_streams.storage.trash import Trash
from deeplens_streams.storage.trash_entries import TrashEntry
from tests.support.audits import PICTURE, audited, faults, remove, stored
from tests.support.dead_letters import fail
from tests.support.web_server import TENANT, Web, row_of, running


@pytest.fixture
async def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Web]:
    monkeypatch.setattr(settled, "GRACE_S", -1.0)
    async with running(tmp_path) as found:
        yield found


async def orphaned_letter(served: Web) -> str:
    """Return a letter that waits, of an image that is gone."""
    image_id, letter_id = await fail(served)
    image = await stored(served, image_id)
    await served.storage.delete_metadata(tenant=TENANT, image_id=image_id)
    await remove(served, image.originalKey)
    served.rows.held[image_id] = row_of(image_id, "deleted", [])
    return letter_id


async def trash_of(served: Web, kind: str) -> list[TrashEntry]:
    entries = (await served.services.trash.page(limit=9)).entries
    return [each for each in entries if each.manifest.kind == kind]


async def test_a_letter_that_somebody_retries_is_not_closed(
    served: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    letter_id = await orphaned_letter(served)
    letters, copy = served.services.letters, Trash.copy

    async def claimed(self: Trash, key: str, **said: Any) -> TrashEntry | None:
        kept = await copy(self, key, **said)
        letter = await letters.find(letter_id)
        assert letter is not None
        assert await letters.claim(letter, seconds=60)
        return kept

    monkeypatch.setattr(Trash, "copy", claimed)
    findings, _ = await audited(served, "repair=true")
    (finding,) = [each for each in findings if each["fault"] == "letter_orphaned"]
    assert finding["repaired"] is False
    assert "in hand" in finding["detail"]
    letter = await letters.find(letter_id)
    assert letter is not None
    assert (letter.state, letter.retryBegunAt is not None) == ("waiting", True)
    assert await trash_of(served, "letter") == []


async def test_of_two_letters_of_one_id_each_is_closed_where_it_lies(served: Web) -> None:
    letter_id = await orphaned_letter(served)
    letters = served.services.letters
    letter = await letters.find(letter_id)
    assert letter is not None
    letter.reason = "another"
    other = object_keys.letter_key(tenant=TENANT, letter_id=letter_id, ms=1_000)
    await letters._blobs.put(Write(other, orjson.dumps(letter.to_wire())), action="test")
    findings, _ = await audited(served, "repair=true")
    assert faults(findings) == ["letter_orphaned", "letter_orphaned"]
    assert all(each["repaired"] for each in findings)
    assert len(await trash_of(served, "letter")) == 2
    assert (await audited(served))[0] == []


async def test_a_claim_that_is_taken_over_meanwhile_stays(
    served: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    image_id = (await served.upload(PICTURE))["imageId"]
    image = await stored(served, image_id)
    await served.storage.delete_metadata(tenant=TENANT, image_id=image_id)
    await remove(served, image.originalKey)
    key = object_keys.claim_key(tenant=TENANT, checksum=image.checksumSha256)
    move, taken = Trash.move, b"another's"

    async def overtaken(self: Trash, moved: str, **said: Any) -> bool:
        await served.blobs.put(Write(moved, taken), action="take over")
        return await move(self, moved, **said)

    monkeypatch.setattr(Trash, "move", overtaken)
    findings, _ = await audited(served, f"repair=true&tenantId={TENANT}")
    assert [(each["fault"], each["repaired"]) for each in findings] == [("claim_orphaned", False)]
    assert "stays" in findings[0]["detail"]
    assert await served.blobs.get(key, action="look") == taken
