"""Documents say what the code has: settings, error codes and metrics."""

import re
import runpy
from pathlib import Path

from prometheus_client import Counter, Gauge, Histogram

import deeplens_streams.metrics
import deeplens_streams.web.metrics
from deeplens_streams.cli.commands import OUR_COMMANDS
from deeplens_streams.errors import DeepLensError, every_error

DOCS = Path(__file__).parents[2] / "docs"
CODE = DOCS.parent / "deeplens_streams"


def test_the_configuration_page_is_what_the_settings_say() -> None:
    page = runpy.run_path(str(DOCS / "generate_configuration.py"))["page"]
    assert (DOCS / "configuration.md").read_text(encoding="utf-8") == page(), "run `make docs`"


def test_every_command_is_documented() -> None:
    pages = [*DOCS.glob("*.md"), DOCS.parent / "README.md"]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    assert [name for name in OUR_COMMANDS if f"deeplens {name}" not in text] == []


def test_every_error_code_is_documented_with_its_status() -> None:
    text = (DOCS / "http-api.md").read_text(encoding="utf-8")
    _, _, section = text.partition("## Error codes")
    rows = re.findall(r"^\| `([A-Z_]+)` \| (\d+) \| `(\w+)` \|", section, re.MULTILINE)
    listed = {name: (code, int(status)) for code, status, name in rows}
    general = {
        each.__name__: (each.code, each.http_status)
        for each in every_error()
        if each.__module__ == DeepLensError.__module__
    }
    assert listed == general
    # Those of one place alone, which some of these tests have not imported.
    sources = "\n".join(path.read_text(encoding="utf-8") for path in CODE.rglob("*.py"))
    codes = set(re.findall(r"""^    code\b.* = "([A-Z_]+)"$""", sources, re.MULTILINE))
    assert codes > {code for code, _ in general.values()}
    assert [code for code in sorted(codes) if f"`{code}`" not in section] == []


def test_every_metric_is_documented_and_no_other() -> None:
    text = (DOCS / "operating.md").read_text(encoding="utf-8")
    _, _, section = text.partition("## Metrics")
    section, _, _ = section.partition("\n## ")
    documented = set(re.findall(r"`(deeplens_\w+)`", section))
    kinds = (Counter, Gauge, Histogram)
    made = {
        f"{metric._name}_total" if isinstance(metric, Counter) else metric._name
        for module in (deeplens_streams.metrics, deeplens_streams.web.metrics)
        for metric in vars(module).values()
        if isinstance(metric, kinds)
    }
    assert documented == made
