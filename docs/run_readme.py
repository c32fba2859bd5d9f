"""Runs the commands of README's "Use it" against a running system, and writes down the answers.

``python docs/run_readme.py`` while ``make run`` runs in another terminal, on a new folder.
"""

import json
import re
import subprocess  # what README says is meant to be pasted into a shell
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

README = Path(__file__).parents[1] / "README.md"
API = "http://127.0.0.1:8080"
WIDTH = 112

#: A block of commands, and the answers where they follow.
_BLOCK = re.compile(
    r"```sh\n(?P<commands>.*?)```(?:\n\n```(?:json|text)\n(?P<answers>.*?)```)?", re.S
)
_SECRET = re.compile(r"(dlk_[a-z0-9]+)_[\w-]+")
_MARK = "<<<end of block>>>"


def section(text: str) -> str:
    """Return the part of README that is meant to be pasted while the system runs."""
    return text[text.index("\n## Use it\n") : text.index("\n## Scale it out\n")]


def blocks(text: str) -> list[tuple[str, str | None]]:
    """Return the commands of each block, and its answers or None."""
    return [(found["commands"], found["answers"]) for found in _BLOCK.finditer(section(text))]


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
        ["/bin/bash"], input=script, capture_output=True, text=True, cwd=README.parent, check=False
    )
    printed = done.stdout.split(f"{_MARK}\n")
    if done.stderr or len(printed) != len(commands) + 1:
        raise RuntimeError(f"README's commands said: {done.stderr[-2000:]}{done.stdout[-500:]}")
    return [_SECRET.sub(r"\1_…", each) for each in printed[:-1]]


def answers(printed: str) -> list[Any]:
    """Return the JSON objects of an output, or of README's account of it, in order."""
    return list(_objects(printed.replace("\n", " ")))


def _objects(text: str) -> Iterator[Any]:
    decoder = json.JSONDecoder()
    at = text.find("{")
    while at >= 0:
        found, end = decoder.raw_decode(text, at)
        yield found
        at = text.find("{", end)


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
    text = README.read_text("utf-8")
    outputs = iter(run([commands for commands, _ in blocks(text)]))

    def renewed(found: re.Match[str]) -> str:
        printed = next(outputs)
        if found["answers"] is None:
            return found[0]
        return found[0].replace(found["answers"], _written(printed))

    fresh = _BLOCK.sub(renewed, section(text))
    README.write_text(text.replace(section(text), fresh), "utf-8")
    sys.stdout.write(f"{README.name} has today's answers\n")


if __name__ == "__main__":
    main()
