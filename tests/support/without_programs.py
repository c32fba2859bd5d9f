"""Run what needs more than Python packages where that is not: nothing but skips may come of it.

`make test-without-programs`. The programs are taken off the PATH, those of CI's own folder and
Kafka's jars are hidden, and Maven Central is out of reach.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree as ET  # what pytest itself has just written

from tests.support.programs import NEEDS, ROOT

#: Names of programs that are hidden, beside those of NEEDS.
MORE = {"chromium-browser", "mount", "java", "npm"}
#: Nobody listens there.
NOWHERE = "http://127.0.0.1:9"


def path_without(hidden: set[str], folder: Path) -> None:
    """Fill a folder with links to every program on PATH but those."""
    for part in os.get_exec_path():
        for program in Path(part).iterdir() if Path(part).is_dir() else ():
            link = folder / program.name
            if program.name not in hidden and not link.is_symlink():
                link.symlink_to(program)


def environment(folder: Path) -> dict[str, str]:
    """Return that of a machine with Python, make and git alone."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("DEEPLENS_") and name != "JAVA_HOME"
    }
    (folder / "bin").mkdir()
    path_without({*NEEDS, *MORE}, folder / "bin")
    empty = {"DEEPLENS_TOOLS": "tools", "M2_REPO": "repository"}
    for name in empty.values():
        (folder / name).mkdir()
    return {
        **kept,
        "PATH": str(folder / "bin"),
        **{name: str(folder / place) for name, place in empty.items()},
        **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), NOWHERE),
        "no_proxy": "127.0.0.1,localhost",
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        report = folder / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-o", "addopts=", "-m", "needs"]
        ended = subprocess.run(
            [*command, f"--junitxml={report}", "tests"],
            env=environment(folder),
            cwd=ROOT,
            check=False,
        )
        cases = list(ET.parse(report).iter("testcase"))
    wrong = [f"{case.get('classname')}::{case.get('name')}" for case in cases if not skipped(case)]
    if ended.returncode or wrong or not cases:
        sys.exit("\n".join(["not skipped, of all that needs something:", *wrong]))


def skipped(case: ET.Element) -> bool:
    return [part.tag for part in case] == ["skipped"]


if __name__ == "__main__":
    main()
