"""The topology holds together, and topics and stages are named in it alone."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from agents import AGENTS
from deeplens_streams.broker import topology
from deeplens_streams.broker.topics import Topic
from deeplens_streams.broker.topology import (
    CHANGELOGS,
    READERS,
    STAGES,
    STEP_STAGES,
    TOPICS,
    group_id,
    readers,
    writers,
)
from deeplens_streams.config import Role, Settings
from models.status import Step

ROOT = Path(__file__).parents[2]
CODE = ("deeplens_streams", "agents", "tables", "models")

#: Names that may be written elsewhere, by file and with the reason.
ALLOWED = {
    # The words of steps on the wire and in rows; models know no topology. And of what is removed of
    # a deleted image: its dead letters.
    "models/states.py": {step.value for step in Step} | {"dead_letters"},
}
#: It is the stage's name, and a command, a table and a field of answers besides.
COMMON_WORD = "tenants"


def test_every_topic_is_listed_and_carries_one_event() -> None:
    declared = [each for each in vars(topology).values() if isinstance(each, Topic)]
    assert declared == list(TOPICS)
    assert len({topic.event for topic in TOPICS} - {None}) == len(TOPICS)


def test_each_stage_reads_a_topic_of_its_own() -> None:
    declared = [each for each in vars(topology).values() if isinstance(each, topology.StageSpec)]
    assert declared == list(STAGES)
    for part in ("name", "agent", "topic"):
        assert len({getattr(stage, part) for stage in STAGES}) == len(STAGES)
    assert all(stage.topic in TOPICS and set(stage.writes) <= set(TOPICS) for stage in STAGES)


def test_steps_are_called_as_their_stages() -> None:
    assert all(stage.name == step.value and stage.id_word for step, stage in STEP_STAGES.items())
    assert [step for step in Step if step in STEP_STAGES] == list(STEP_STAGES)


def test_what_is_done_for_all_models_comes_before_what_is_done_for_each() -> None:
    by_model = [stage.by_model for stage in STEP_STAGES.values()]
    assert by_model == sorted(by_model)


def test_every_stage_has_its_agent() -> None:
    names = [module.__name__ for modules in AGENTS.values() for module in modules]
    assert sorted(names) == sorted(f"agents.{stage.name}" for stage in STAGES)


def literals(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the texts in a module's code, without docstrings."""
    tree = ast.parse(path.read_bytes())
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if id(node) in docstrings or not isinstance(node, ast.Constant):
            continue
        if isinstance(node.value, str):
            yield node.lineno, node.value


def named(path: Path) -> Iterator[str]:
    """Yield where a module names a topic, a stage, an agent or a consumer group by itself."""
    name = path.relative_to(ROOT).as_posix()
    names = {step.value for step in Step} | {stage.name for stage in STAGES} - {COMMON_WORD}
    names |= {stage.agent for stage in STAGES}
    names |= {group_id(role, "") for role in Role}
    names -= ALLOWED.get(name, set())
    topics = [topic.base for topic in (*TOPICS, *CHANGELOGS)]
    for line, text in literals(path):
        if text in names or any(topic in text for topic in topics):
            yield f"{name}:{line}: {text[:60]!r}"


def test_topics_and_stages_are_named_in_the_topology_alone() -> None:
    files = [path for folder in CODE for path in sorted((ROOT / folder).rglob("*.py"))]
    others = [path for path in files if path != Path(topology.__file__)]
    assert len(others) == len(files) - 1
    assert [found for path in others for found in named(path)] == []


def test_what_may_be_named_elsewhere_is() -> None:
    for name, words in ALLOWED.items():
        assert words <= {text for _, text in literals(ROOT / name)}


def rows(page: str, heading: str) -> list[list[str]]:
    """Return the rows of a document's table by how its heading begins, without marks of code."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    lines = text[text.index(f"\n| {heading}") + 1 :].splitlines()[2:]
    table = lines[: next(i for i, line in enumerate(lines) if not line.startswith("|"))]
    return [[cell.strip().replace("`", "") for cell in line.split("|")[1:-1]] for line in table]


def test_the_page_of_events_has_the_topics() -> None:
    said = [
        (topic, kind.removesuffix(" (internal)"), *who)
        for topic, kind, *who in rows("events.md", "topic | `eventType` | written by | read by")
    ]
    wanted = [
        (topic.base, topic.event.EVENT_TYPE, writers(topic), readers(topic))
        for topic in TOPICS
        if topic.event is not None
    ]
    assert sorted(said) == sorted(wanted)


def test_the_page_of_events_has_every_stage_that_may_fail() -> None:
    text = (ROOT / "docs" / "events.md").read_text(encoding="utf-8")
    sentence = text[text.index("\n`failedStep` is") :].split("\n\n")[0]
    assert set(re.findall(r"`(\w+)`", sentence)) == {"failedStep"} | {s.name for s in STAGES}


def kept(topic: Topic) -> str:
    """Return how long a topic keeps its messages, in the documents' words."""
    if topic.retention is None:
        return "compacted"
    days = Settings.model_fields[topic.retention].default
    return f"DEEPLENS_{topic.retention.upper()} ({days})"


def test_the_page_of_architecture_has_the_topics() -> None:
    said = {row[0]: row[1:] for row in rows("architecture.md", "topic | partitions | kept")}
    assert set(said) == {topic.base for topic in TOPICS}
    for topic in TOPICS:
        partitions, how_long, carries = said[topic.base]
        assert (partitions, how_long) == (str(topic.partitions), kept(topic))
        assert carries.startswith(topic.purpose)


def test_the_page_of_architecture_has_the_roles() -> None:
    said = [row[:3] for row in rows("architecture.md", "role | Faust app")]
    assert said == [
        [role.value, group_id(role, ""), ", ".join(s.agent for s in STAGES if s.role is role)]
        for role in Role
    ]


@pytest.mark.parametrize("role", [role for role in Role if role is not Role.API])
def test_the_page_of_deployment_has_what_scales(role: Role) -> None:
    said = {row[0]: row[1:] for row in rows("deploying.md", "stage | consumer group")}
    group, topics, at_most = said[role.value]
    read = [topic for topic, stage in READERS.items() if stage.role is role]
    assert group == group_id(role, "")
    assert re.findall(r"deeplens\.[\w.]+", topics) == [topic.base for topic in read]
    assert at_most == str(max(topic.partitions for topic in read))
