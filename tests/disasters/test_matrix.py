"""Each part, damaged in each way: nothing accepted is forgotten, and one command brings it back."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.disasters.damage import Damage, copy, do
from tests.disasters.home import Home
from tests.disasters.matrix import CELLS, PARTS, SAMPLE, Part
from tests.disasters.past import Past, originals
from tests.support.fault_injection import StubExtractor

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

OPERATING = Path(__file__).parents[2] / "docs" / "operating.md"


@pytest.fixture
def home(past: Past, stub: StubExtractor, tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path / "home", stub.url, keys=dict(past.keys))
    copy(past.now, home.data)
    yield home
    home.stop()


def _cell(part: Part, damage: Damage) -> Any:
    marks = [pytest.mark.sample] if (part.name, damage) in SAMPLE else []
    return pytest.param(part, damage, id=f"{part.name}, {damage.value}", marks=marks)


@pytest.mark.parametrize(("part", "damage"), [_cell(*each) for each in CELLS])
def test_it_comes_back(part: Part, damage: Damage, past: Past, home: Home) -> None:
    for path in part.files(home.data):
        do(damage, path, data=home.data, older=past.older)
    left = originals(home.data) & originals(past.now)  # what is cut short is none of them
    assert part.holds_originals or left == originals(past.now)
    home.start()
    _, lines = home.audit()
    said = {line["fault"] for line in lines if line["type"] == "finding"}
    expected = part.said.get(damage)
    assert expected is None or expected in said or expected in home.words(), said
    if part.holds_originals:
        restored = home.run("restore", "--into-existing", str(past.backup))
        assert restored.code == 0, restored
    home.audit(repair=True)
    found = home.until_final({image_id: tenant for image_id, (tenant, _) in past.images.items()})
    assert set(found.values()) == {"completed"}
    for image_id, (tenant, picture) in past.images.items():
        assert image_id in home.finds(tenant, picture)
        assert home.upload(tenant, picture) == image_id  # the same bytes are a duplicate
    for image_id, tenant in past.failed.items():
        assert home.status(tenant, image_id) == "failed"
    for image_id, tenant in past.deleted.items():
        assert home.status(tenant, image_id) == "deleted"
    assert not left - originals(home.data)
    code, lines = home.audit()
    assert (code, lines[-1]["accepted"]) == (0, past.accepted), lines


@pytest.mark.sample
def test_the_documents_have_a_row_for_each_part() -> None:
    _, _, chapter = OPERATING.read_text(encoding="utf-8").partition("## Disasters")
    table, _, _ = chapter.partition("\n## ")
    rows = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| ")]
    assert rows[1:] == [part.name for part in PARTS]
    for part in PARTS:
        if not part.one:
            (row,) = [line for line in table.splitlines() if line.startswith(f"| {part.name} |")]
            assert [said for said in part.said.values() if said not in row] == []
