"""What a point's payload is indexed by."""

from typing import Any

from deeplens_streams.vectors.collection_ref import place_of
from deeplens_streams.vectors.filters import TERMS, stored_payload

PLACE = place_of(tenant="acme-corp", model="resnet50", shared=False)
#: Of a text that is longer, Qdrant's index has a piece of memory for each point.
IN_PLACE = 15
MANY = 5000


def terms(**payload: Any) -> list[str]:
    found: list[str] = stored_payload(payload, PLACE)[TERMS]
    return found


def test_terms_are_short_whatever_they_stand_for() -> None:
    found = terms(
        fileName="a" * 255,
        contentType="image/jpeg",
        uploadedBy="somebody with a long name",
        tags={"a" * 64: "b" * 256, "京": "北京"},
    )
    assert len(found) == 5
    assert max(len(term.encode()) for term in found) <= IN_PLACE


def test_many_file_names_have_few_terms() -> None:
    found = {each for i in range(MANY) for each in terms(fileName=f"{i:05d}-0.jpg")}
    assert 500 < len(found) <= 1024


def test_values_and_tags_have_a_term_each() -> None:
    found = [each for i in range(MANY) for each in terms(uploadedBy=f"{i}", tags={"n": f"{i}"})]
    assert len(set(found)) == len(found) == 2 * MANY
    assert terms(tags={"a": "bc"}) != terms(tags={"ab": "c"})
    assert terms(tags={"uploadedBy": "ann"}) != terms(uploadedBy="ann")
