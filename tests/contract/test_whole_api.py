"""What schemathesis makes of the document, asked of the web layer: a little of everything."""

from pathlib import Path

from tests.support import api_fuzzing

SEED = 1
CASES = 6


def test_every_answer_is_as_the_document_says(tmp_path: Path) -> None:
    with api_fuzzing.served(tmp_path) as system:
        statuses = api_fuzzing.call_everything(system, cases=CASES, seed=SEED)
    print(f"seed {SEED}: {statuses.total()} calls, {dict(sorted(statuses.items()))}")  # noqa: T201
    assert {200, 202, 400, 404} <= statuses.keys()
