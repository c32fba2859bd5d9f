"""What schemathesis makes of the document, asked of the web layer: some thousand calls."""

from pathlib import Path

import pytest

from tests.support import api_fuzzing

SEED = 1
#: Of each operation, with valid values and as many with invalid ones.
CASES = 45


@pytest.mark.timeout(1200)
def test_every_answer_is_as_the_document_says(tmp_path: Path) -> None:
    with api_fuzzing.served(tmp_path) as system:
        statuses = api_fuzzing.call_everything(system, cases=CASES, seed=SEED)
    print(f"seed {SEED}: {statuses.total()} calls, {dict(sorted(statuses.items()))}")  # noqa: T201
    assert statuses.total() >= 2000
    assert not [status for status in statuses if status >= 500]
