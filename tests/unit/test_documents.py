"""Documents that are made from the code are up to date."""

import runpy
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_the_configuration_page_is_what_the_settings_say() -> None:
    page = runpy.run_path(str(DOCS / "generate_configuration.py"))["page"]
    assert (DOCS / "configuration.md").read_text(encoding="utf-8") == page(), "run `make docs`"
