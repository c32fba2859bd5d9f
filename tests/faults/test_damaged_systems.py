"""`audit --repair`, five times over a system of 2,000 images that is damaged at random."""

import pytest

from deeplens_streams.audit import settled
from tests.support.damaged_systems import check

#: It takes the time of one core, about a minute.
pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]


async def test_repairs_of_two_thousand_images_lose_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(settled, "GRACE_S", -1.0)
    faults = await check(2_000, seed=3)
    assert {
        "pointer_missing",
        "pointer_damaged",
        "metadata_missing",
        "metadata_damaged",
        "original_missing",
        "original_damaged",
        "thumbnail_missing",
        "thumbnail_damaged",
        "vector_missing",
        "letter_missing",
        "letter_damaged",
        "claim_missing",
        "claim_orphaned",
        "stuck",
    } <= faults.keys()
