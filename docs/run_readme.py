"""Runs the commands of README's "Use it" and of administering.md, and writes down the answers.

``make readme`` while ``make run ARGS=--no-demo`` runs on a new folder.
"""

import json
import re
import subprocess  # what the pages say is meant to be pasted into a shell
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
#: In the order of pasting, and from where to where.
PAGES = (
    (DOCS.parent / "README.md", "\n## Use it\n", "\n## Scale it out\n"),
    (DOCS / "administering.md", "", ""),
)
API = "http://127.0.0.1:8080"
WIDTH = 112

#: A block of commands, and the answers where they follow.
_BLOCK = re.compile(
    r"```sh\n(?P<commands>.*?)```(?:\n\n```(?:json|text)\n(?P<answers>.*?)```)?", re.DOTALL
)
_SECRET = re.compile(r"(dlk_[a-z0-9]+)_[\w-]+")
#: Its lines are long, and name this machine's folders.
_TRACE = re.compile(r"(Traceback \(most recent call last\):\\n)(?:[^\"\\]|\\.)*")
_MARK = "<<<end of block>>>"


def blocks() -> list[tuple[str, str | None]]:
    """Return the commands of each block of all pages, and its answers or None."""
    return [
        (found["commands"], found["answers"])
        for path, begin, end in PAGES
        for found in _BLOCK.finditer(_part(path.read_text("utf-8"), begin, end))
    ]


def run(commands: Sequence[str], *, api: str = API, python: str | None = None) -> list[str]:
    """Paste blocks into one shell; return what each printed.

    Raises
    ------
    RuntimeError
        Something was said on stderr, or a block was not reached.
    """
    script = "".join(f"{each}\necho '{_MARK}'\n" for each in commands)
    script = script.replace(f"API={API}", f"API={api}")
    if python is not None:
        script = script.replace(".venv/bin/python", python)
    done = subprocess.run(
        ["/bin/bash"], input=script, capture_output=True, text=True, cwd=DOCS.parent, check=False
    )
    printed = done.stdout.split(f"{_MARK}\n")
    if done.stderr or len(printed) != len(commands) + 1:
        raise RuntimeError(f"the commands said: {done.stderr[-2000:]}{done.stdout[-500:]}")
    return [_TRACE.sub(r"\1…", _SECRET.sub(r"\1_…", each)) for each in printed[:-1]]


def answers(printed: str) -> list[Any]:
    """Return the JSON objects of an output, or of a page's account of it, in order."""
    return list(_objects(printed.replace("\n", " ")))


def _objects(text: str) -> Iterator[Any]:
    decoder = json.JSONDecoder()
    at = text.find("{")
    while at >= 0:
        found, end = decoder.raw_decode(text, at)
        yield found
        at = text.find("{", end)


def _part(text: str, begin: str, end: str) -> str:
    start = text.index(begin)
    return text[start : text.index(end, start) if end else len(text)]


def _written(printed: str) -> str:
    found = answers(printed)
    if not found:
        return printed
    lines = (
        textwrap.fill(
            json.dumps(each, ensure_ascii=False),
            WIDTH,
            break_long_words=False,
            break_on_hyphens=False,
        )
        for each in found
    )
    return "".join(f"{line}\n" for line in lines)


def main() -> None:
    outputs = iter(run([commands for commands, _ in blocks()]))

    def renewed(found: re.Match[str]) -> str:
        printed, whole, start = next(outputs), found[0], found.start()
        if found["answers"] is None:
            return whole
        begin, end = found.start("answers") - start, found.end("answers") - start
        return whole[:begin] + _written(printed) + whole[end:]

    for path, begin, end in PAGES:
        text = path.read_text("utf-8")
        part = _part(text, begin, end)
        path.write_text(text.replace(part, _BLOCK.sub(renewed, part)), "utf-8")
        sys.stdout.write(f"{path.name} has today's answers\n")


if __name__ == "__main__":
    main()
