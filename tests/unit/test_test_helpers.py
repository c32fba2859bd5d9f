"""Helpers of tests lie in tests/support, or beside the tests of the one folder that uses them."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: What else lives on helpers of tests.
OTHERS = ("benchmarks", "docs")


def is_test(name: str) -> bool:
    return name.startswith(("test_", "conftest"))


def imported(path: Path) -> Iterator[tuple[str, ...]]:
    """Yield the modules of tests/ that a file imports, each as its parts."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [each.name for each in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            names = [f"{node.module}.{each.name}" for each in node.names]
        for name in names:
            parts = tuple(name.split("."))
            if parts[0] == "tests":
                if not (ROOT.joinpath(*parts).with_suffix(".py").exists()):
                    parts = parts[:-1]  # a name in the module
                yield parts


def uses() -> Iterator[tuple[Path, tuple[str, ...]]]:
    for folder in ("tests", *OTHERS):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for parts in imported(path):
                yield path.relative_to(ROOT), parts


def test_nothing_is_imported_from_a_test_module() -> None:
    wrong = [f"{path}: {'.'.join(parts)}" for path, parts in uses() if is_test(parts[-1])]
    assert not wrong


def test_a_helper_outside_of_support_serves_its_own_folder_alone() -> None:
    wrong = [
        f"{path}: {'.'.join(parts)}"
        for path, parts in uses()
        if parts[1] != "support" and path.parts[:-1] != parts[:-1]
    ]
    assert not wrong


def test_no_helper_lies_flat_in_tests() -> None:
    flat = {path.name for path in (ROOT / "tests").glob("*.py")}
    assert flat <= {"__init__.py", "conftest.py"}


def test_support_holds_no_tests() -> None:
    assert not list((ROOT / "tests" / "support").rglob("test_*.py"))
