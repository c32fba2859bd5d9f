"""What an OpenAPI document has lost, gained and changed against an older one.

Usage: ``python -m docs.compare_openapi BASE [NEW]``. Either is a commit or a JSON file; NEW is this
tree unless it is said. Exits with 1 when anything is lost or changed but words. What a request
must bring beside what it had to is among what is added: that list is for a person to read.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.checkout import HERE, commit_of, git

#: One thing that the document says: where, about what, and the value. Of what may have several
#: values, such as an enum, each is one.
Facts = dict[tuple[str, ...], str]
#: Which of a schema's fields are for people: another wording is no loss.
_WORDS: Final = frozenset({"description", "summary", "title"})
_METHODS: Final = frozenset({"get", "put", "post", "delete", "patch", "head", "options"})
_NULL: Final = {"type": "null"}
_WRITE: Final = """\
import json
from deeplens_streams.web.openapi import document
from deeplens_streams.web import ROUTES
print(json.dumps(document(ROUTES)))
"""


@dataclass(frozen=True, slots=True)
class Difference:
    """What two documents do not have in common, as lines; `reworded` are changes of words."""

    lost: list[str]
    changed: list[str]
    reworded: list[str]
    added: list[str]

    @property
    def breaks(self) -> bool:
        return bool(self.lost or self.changed)


def compare(base: Mapping[str, Any], new: Mapping[str, Any]) -> Difference:
    """Compare two documents by what they say, wherever in their components they say it."""
    before, after = dict(_document(base)), dict(_document(new))
    both = before.keys() & after.keys()
    other = sorted(key for key in both if before[key] != after[key])
    return Difference(
        lost=_lines(before, before.keys() - after.keys()),
        changed=[_change(key, before, after) for key in other if key[-1] not in _WORDS],
        reworded=[_change(key, before, after) for key in other if key[-1] in _WORDS],
        added=_lines(after, after.keys() - before.keys()),
    )


def _lines(facts: Facts, keys: Set[tuple[str, ...]]) -> list[str]:
    """Return lines of `keys`, without those of what is inside another one of them."""
    whole = [
        key for key in sorted(keys) if not any(key[:end] in keys for end in range(1, len(key)))
    ]
    return [f"{' '.join(key)}{f': {facts[key]}' if facts[key] else ''}" for key in whole]


def _change(key: tuple[str, ...], before: Facts, after: Facts) -> str:
    return f"{' '.join(key)}: {before[key]} -> {after[key]}"


def _document(document: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], str]]:
    for name, scheme in document["components"]["securitySchemes"].items():
        yield from _plain(("security scheme", name), scheme)
    for name in document["components"]["schemas"]:
        yield ("component", name), ""
    for path, operations in document["paths"].items():
        for method in sorted(_METHODS & operations.keys()):
            yield from _operation((f"{method.upper()} {path}",), operations[method], document)


def _operation(
    at: tuple[str, ...], operation: Mapping[str, Any], document: Mapping[str, Any]
) -> Iterator[tuple[tuple[str, ...], str]]:
    yield at, ""
    for name in ("operationId", "tags", "summary", "description", "security"):
        if name in operation:
            yield from _plain((*at, name), operation[name])
    for each in operation.get("parameters", ()):
        place = (*at, f"{each['in']} {each['name']}")
        yield from _plain(place, {"required": False, **_without(each, "schema")})
        yield from _schema(place, each["schema"], document)
    body = operation.get("requestBody")
    if body is not None:
        yield from _plain((*at, "body"), _without(body, "content"))
        yield from _content((*at, "body"), body, document)
    for status, answer in operation["responses"].items():
        yield (*at, status), ""
        yield from _plain((*at, status), _without(answer, "content"))
        yield from _content((*at, status), answer, document)


def _content(
    at: tuple[str, ...], holder: Mapping[str, Any], document: Mapping[str, Any]
) -> Iterator[tuple[tuple[str, ...], str]]:
    for media_type, content in holder.get("content", {}).items():
        yield (*at, media_type), ""
        yield from _schema((*at, media_type), content["schema"], document)
        yield from _plain((*at, media_type), _without(content, "schema"))


def _schema(
    at: tuple[str, ...], schema: Mapping[str, Any], document: Mapping[str, Any], seen: str = ""
) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield what a schema says, whatever of it stands among the components."""
    name = schema.get("$ref", "").rpartition("/")[2]
    if name:
        if f"/{name}/" in seen:
            yield (*at, "recurs"), name
            return
        inner, seen = document["components"]["schemas"][name], f"{seen}/{name}/"
        # What stands beside a reference takes the place of its own words.
        schema = {**inner, **_without(schema, "$ref")}
    for keyword, said in schema.items():
        value: Any = {} if said is True and keyword == "additionalProperties" else said
        if keyword in ("properties", "patternProperties"):
            for field, inner in value.items():
                yield (*at, f".{field}"), ""
                yield from _schema((*at, f".{field}"), inner, document, seen)
        elif keyword in ("items", "additionalProperties", "propertyNames", "not") and isinstance(
            value, Mapping
        ):
            yield (*at, f"{keyword}:"), ""
            yield from _schema((*at, f"{keyword}:"), value, document, seen)
        elif keyword in ("anyOf", "oneOf", "allOf"):
            yield from _branches(at, keyword, value, document, seen)
        elif keyword == "const":  # the only value of an enum
            yield from _plain((*at, "enum"), [value])
        else:
            yield from _plain((*at, keyword), value)


def _branches(
    at: tuple[str, ...],
    keyword: str,
    branches: list[Mapping[str, Any]],
    document: Mapping[str, Any],
    seen: str,
) -> Iterator[tuple[tuple[str, ...], str]]:
    rest = [each for each in branches if each != _NULL]
    if len(rest) < len(branches):
        yield (*at, "or null"), ""
    for number, each in enumerate(rest):
        # One thing or null is that thing; all of several are one.
        is_one = keyword == "allOf" or len(rest) == 1
        yield from _schema(at if is_one else (*at, f"{keyword} {number}"), each, document, seen)


def _plain(at: tuple[str, ...], value: Any) -> Iterator[tuple[tuple[str, ...], str]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _plain((*at, name), inner)
    elif isinstance(value, list):
        for each in value:
            yield (*at, json.dumps(each, sort_keys=True)), ""
    else:
        yield at, json.dumps(value)


def _without(mapping: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in mapping.items() if key != name}


def document_of(name: str | None) -> dict[str, Any]:
    """Return the document in a JSON file or of a commit; of this tree where there is no name."""
    if name is None:
        return _written_in(HERE)
    if Path(name).is_file():
        return dict(json.loads(Path(name).read_text("utf-8")))
    commit = commit_of(name)
    with tempfile.TemporaryDirectory(prefix="deeplens-base-") as folder:
        tree = Path(folder) / commit
        git("worktree", "add", "--detach", str(tree), commit)
        try:
            return _written_in(tree)
        finally:
            git("worktree", "remove", "--force", str(tree))


def _written_in(tree: Path) -> dict[str, Any]:
    # With the packages of this environment: what a document says is of the tree alone.
    answer = subprocess.run(  # noqa: S603 - this interpreter and a text of this file
        [sys.executable, "-c", _WRITE],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode:
        raise SystemExit(f"{tree} writes no document: {answer.stderr.strip()}")
    return dict(json.loads(answer.stdout))


def main() -> int:
    """Print the difference of two documents; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base", help="a commit or a JSON file")
    parser.add_argument("new", nargs="?", help="the same; this tree unless it is said")
    given = parser.parse_args()
    found = compare(document_of(given.base), document_of(given.new))
    for title, lines in (
        ("Lost", found.lost),
        ("Changed", found.changed),
        ("Reworded", found.reworded),
        ("Added", found.added),
    ):
        sys.stdout.write("\n  ".join([f"{title}: {len(lines)}", *lines]) + "\n")
    return 1 if found.breaks else 0


if __name__ == "__main__":
    raise SystemExit(main())
