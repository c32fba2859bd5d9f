"""Whoever pastes the blocks of README and administering.md succeeds, and sees what they show."""

import asyncio
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.support.system import System

pytestmark = pytest.mark.kafka

SCRIPT = Path(__file__).parents[2] / "docs" / "run_readme.py"


def load() -> ModuleType:
    """Return the script as a module; documents are no package."""
    spec = importlib.util.spec_from_file_location("run_readme", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def fields(value: Any) -> Any:
    """Return the names of an answer's fields at every depth, and how long its lists are."""
    if isinstance(value, dict):
        return {name: fields(each) for name, each in value.items()}
    if isinstance(value, list):
        return [fields(each) for each in value]
    return None


#: By name: what depends on the picture, the moment or the model, in README as in any answer.
FREE = {"exifData", "faults", "checks", "outcomes", "processingSteps", "warning"}


def without(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: None if name in FREE else without(each) for name, each in value.items()}
    return [without(each) for each in value] if isinstance(value, list) else value


async def test_every_block_is_answered_as_readme_says(system: System) -> None:
    readme = load()
    worker = await system.started()
    blocks = readme.blocks()
    assert len(blocks) > 20
    printed = await asyncio.to_thread(
        readme.run, [commands for commands, _ in blocks], api=worker.url, python=sys.executable
    )
    for (commands, said), found in zip(blocks, printed, strict=True):
        if said is None:
            continue
        shown, real = readme.answers(said), readme.answers(found)
        assert without(fields(real)) == without(fields(shown)), commands
        outcomes = [
            [(each.get("success"), each.get("errorCode")) for each in answers]
            for answers in (shown, real)
        ]
        assert outcomes[0] == outcomes[1], commands
        if not shown:
            assert found.split() == said.split(), commands
