"""setup.cfg names every module in its order of layers, and every package that the code imports."""

import ast
import re
import sys
from configparser import ConfigParser
from importlib.metadata import packages_distributions
from pathlib import Path

import deeplens_streams

ROOT = Path(__file__).parents[2]
SETUP = ConfigParser()
SETUP.read(ROOT / "setup.cfg", encoding="utf-8")
OURS = SETUP["importlinter"]["root_packages"].split()


def test_every_module_has_its_layer() -> None:
    layers = re.findall(r"[\w.]+", SETUP["importlinter:contract:direction"]["layers"])
    folder = Path(deeplens_streams.__file__).parent
    modules = {each.stem for each in folder.glob("*.py") if not each.stem.startswith("__")}
    modules |= {each.parent.name for each in folder.glob("*/__init__.py")}
    wanted = {f"deeplens_streams.{name}" for name in modules} | set(OURS) - {"deeplens_streams"}
    assert set(layers) ^ wanted == set()


def imported(path: Path) -> set[str]:
    """Return the top-level packages that a file imports, in functions, too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
    return {name.partition(".")[0] for name in found}


def as_name(requirement: str) -> str:
    """Return what a package index calls the package."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", requirement)[0]).lower()


def test_every_imported_package_is_declared() -> None:
    extras = SETUP["options.extras_require"]
    wanted = SETUP["options"]["install_requires"] + extras["model"] + extras["embedded"]
    declared = {as_name(line) for line in wanted.splitlines() if line}
    files = [path for name in OURS for path in (ROOT / name).rglob("*.py")]
    names = set().union(*map(imported, files)) - sys.stdlib_module_names - set(OURS)
    assert "aiohttp" in names
    installed = packages_distributions()
    undeclared = {
        name: installed.get(name)
        for name in names
        if not declared & {as_name(each) for each in installed.get(name, ())}
    }
    assert undeclared == {}


def test_what_an_agent_needs_is_given_to_it() -> None:
    """Nor for its types does one know the apps that run it: import-linter passes over those."""
    for path in (ROOT / "agents").glob("*.py"):
        assert "deeplens_streams.runtime" not in path.read_text(), path
