"""The models of answers: what is read into them, what errors answer, and what they follow."""

import pytest

from deeplens_streams.audit.report import COLUMNS
from deeplens_streams.client import NotReachable, models
from deeplens_streams.client.models.base import Answer
from models.letters import DeadLetter
from models.records import WireRecord
from models.tenants import ApiKey
from models.trash import TrashManifest

STEP = {
    "step": "vector_indexing",
    "status": "completed",
    "duration": 12.5,
    "attempt": 1,
    "modelName": "resnet50",
    "collectionName": None,
    "errorMessage": None,
}
STATUS = {
    **models.Status.blank(),
    "success": True,
    "imageId": "img_1",
    "tenantId": "acme",
    "status": "dreaming",
    "processingSteps": [STEP | {"mood": "fine"}],
    "percentComplete": 99,
    "lastUpdated": "2026-01-31T12:00:00Z",
    "uploadedAt": "2026-01-31T12:00:00Z",
    "correlationId": "c",
}


def wire_names(kind: type[Answer]) -> set[str]:
    return {field.alias or name for name, field in kind.model_fields.items()}


def kept(record: type[WireRecord], *but: str) -> set[str]:
    return {*record._options.fields} - {"schemaVersion", *but}


def test_what_is_shown_as_it_is_kept_has_the_record_s_fields() -> None:
    assert wire_names(models.DeadLetter) == kept(DeadLetter)
    large = {"stackTrace", "originalEvent"}
    assert wire_names(models.DeadLetterSummary) == kept(DeadLetter) - large
    assert wire_names(models.KeySummary) == kept(ApiKey, "sha256")
    assert wire_names(models.TrashEntry) == kept(TrashManifest) | {"trashId"}


def test_a_ledger_has_every_column() -> None:
    assert set(COLUMNS) <= wire_names(models.AuditTenant) & wire_names(models.AuditTotal)


def test_an_error_answers_the_fields_null_or_empty_in_their_order() -> None:
    assert models.LettersChanged.blank() == {
        "success": False,
        "message": None,
        "done": [],
        "skipped": [],
        "nextCursor": None,
        "errorCode": None,
    }
    image = models.ImageAnswer.blank()
    assert (image["tags"], image["metadata"]) == ({}, None)  # a map, and a record
    assert list(models.Upload.blank())[:4] == ["success", "imageId", "status", "message"]
    assert list(models.Status.blank())[-2:] == ["errorCode", "errorMessage"]


def test_what_a_newer_version_says_is_read_and_kept() -> None:
    status = models.Status.read(STATUS)
    assert (status.status, status.is_final) == ("dreaming", False)
    assert status.processing_steps[0].model_name == "resnet50"
    assert status.processing_steps[0].raw["mood"] == "fine"
    assert status.raw == STATUS


def test_what_an_older_version_does_not_say_has_a_default() -> None:
    old = {name: value for name, value in STATUS.items() if name != "otherSteps"}
    assert models.Status.read(old).other_steps == []


@pytest.mark.parametrize("wrong", [{}, {**STATUS, "processingSteps": None}, ["no object"]])
def test_what_is_no_answer_of_ours_is_said_so(wrong: models.Raw) -> None:
    with pytest.raises(NotReachable, match="not one of DeepLens"):
        models.Status.read(wrong)
