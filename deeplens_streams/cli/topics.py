"""``deeplens topics``: what there must be at the broker, and what there is."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import click
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from rich.table import Table
from rich.text import Text

from deeplens_streams.broker.admin import admin_client
from deeplens_streams.broker.described import Described, describe_topics, set_overrides
from deeplens_streams.broker.mending import mend
from deeplens_streams.broker.partitions import count_fault
from deeplens_streams.broker.provisioning import DECLARED, create_missing
from deeplens_streams.broker.topic_settings import Deviation, corrected, deviations
from deeplens_streams.broker.topics import Topic
from deeplens_streams.cli import console
from deeplens_streams.cli.broker import beside_up
from deeplens_streams.cli.options import json_option
from deeplens_streams.config import Settings, load_settings
from deeplens_streams.embedded_kafka.server import KafkaServer
from deeplens_streams.errors import ConfigurationError
from deeplens_streams.host.folder_lock import FolderLock

Found = Mapping[Topic, Described]


@click.command()
@click.option("--create", is_flag=True, help="Create those that are missing.")
@click.option("--apply", is_flag=True, help="Set what is set otherwise; other settings stay.")
@click.option(
    "--mend",
    "mending",
    is_flag=True,
    help="Make those again that have another number of partitions, and keep what is on them. "
    "All workers have to be stopped.",
)
@click.option(
    "--aside",
    type=click.Path(path_type=Path, file_okay=False),
    help="With --mend: where what is on a topic is kept meanwhile, and afterwards as a copy. "
    "Default: mended-topics in the data folder.",
)
@click.option(
    "--embedded",
    is_flag=True,
    help="Those of deeplens up, which has to be stopped: its Kafka runs while this does.",
)
@click.option(
    "--broker",
    help="Default: DEEPLENS_BROKER, else that of deeplens up in the data folder where it runs, "
    "else kafka://127.0.0.1:9092.",
)
@json_option
def topics(
    *,
    create: bool,
    apply: bool,
    mending: bool,
    aside: Path | None,
    embedded: bool,
    broker: str | None,
    as_json: bool,
) -> None:
    """List the topics, and whether the broker has them as they must be.

    Exits with 1 if one is missing, has a number of partitions that it cannot have, or a setting
    that is not as it must be.
    """
    settings = load_settings(**({"broker": broker} if broker else {}))
    console.quiet_clients()
    with _kafka(settings) if embedded else nullcontext(beside_up(settings)) as settings:
        if mending:
            asyncio.run(_mend(settings, aside or settings.data_dir / "mended-topics"))
        found = asyncio.run(_found(settings, create=create, apply=apply))
    rows = [_row(topic, settings, found) for topic in DECLARED]
    if as_json:
        console.print_json({"broker": settings.broker, "topics": rows})
    else:
        console.out().print(_table(rows))
        _print_faults(rows)
    if any(row["state"] != "ok" for row in rows):
        raise click.exceptions.Exit(1)


@contextmanager
def _kafka(settings: Settings) -> Iterator[Settings]:
    """Run the data folder's own Kafka, and yield the settings that lead to it."""
    folder = settings.data_dir / "kafka"
    if not folder.exists():
        raise ConfigurationError(f"There is no Kafka in {folder}; set DEEPLENS_DATA_DIR.")
    with FolderLock(settings.data_dir, "stop it first"), KafkaServer(folder) as server:
        yield settings.model_copy(update={"broker": f"kafka://{server.bootstrap}"})


async def _mend(settings: Settings, folder: Path) -> None:
    try:
        async with admin_client(settings) as admin:
            async for done in mend(admin, DECLARED, settings, folder):
                console.err().print(done)
    except (KafkaError, OSError) as error:
        reason = str(error) or type(error).__name__
        raise ConfigurationError(
            f"It was cut off ({reason}); run it again, which goes on where it was."
        ) from None


async def _found(settings: Settings, *, create: bool, apply: bool) -> Found:
    async with admin_client(settings) as admin:
        found = await describe_topics(admin, DECLARED, settings.namespace)
        if create:
            await create_missing(admin, found, settings)
        if apply:
            await _apply(admin, found, settings)
        if create or apply:
            found = await describe_topics(admin, DECLARED, settings.namespace)
        return found


async def _apply(admin: AIOKafkaAdminClient, found: Found, settings: Settings) -> None:
    for topic, each in found.items():
        faults = [fault for fault in deviations(topic, each, settings) if fault.cure is None]
        if not faults:
            continue
        name = topic.name(settings.namespace)
        try:
            await set_overrides(admin, {name: corrected(each, faults)})
        except KafkaError as error:
            raise ConfigurationError(str(error.args[0] if error.args else error)) from None
        for fault in faults:
            console.err().print(f"{name}: {fault.setting}={fault.must_be} (was {fault.found})")


def _row(topic: Topic, settings: Settings, found: Found) -> dict[str, Any]:
    there = found.get(topic)
    fault = there and count_fault(topic, there.partitions, settings.namespace)
    wrong = [] if there is None else deviations(topic, there, settings)
    if there is None:
        state = "missing"
    elif fault:
        state = "wrong count"
    elif wrong:
        state = "wrong setting"
    else:
        state = "ok" if there.settings is not None else "settings not shown"
    days = getattr(settings, topic.retention) if topic.retention else None
    return {
        "name": topic.name(settings.namespace),
        "partitions": topic.partitions,
        "found": None if there is None else there.partitions,
        "replicas": None if there is None else there.replicas,
        "retentionDays": days,
        "purpose": topic.purpose,
        "state": state,
        "fault": fault,
        "deviations": [_deviation(each) for each in wrong],
    }


def _deviation(each: Deviation) -> dict[str, Any]:
    return {
        "setting": each.setting,
        "found": each.found,
        "mustBe": each.must_be,
        "why": each.why,
        "cure": each.cure or "deeplens topics --apply",
        "refused": each.loses,
    }


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(
        "topic", "partitions", "kept", "state", "purpose", box=None, pad_edge=False, padding=(0, 2)
    )
    for row in rows:
        state, days = str(row["state"]), row["retentionDays"]
        more = row["found"] is not None and row["found"] != row["partitions"]
        table.add_row(
            str(row["name"]),
            f"{row['found']} of {row['partitions']}" if more else str(row["partitions"]),
            "compacted" if days is None else f"{days} d",
            Text(state, style="green" if state == "ok" else "red"),
            str(row["purpose"]),
        )
    for column in table.columns[:4]:
        column.no_wrap = True
    return table


def _print_faults(rows: list[dict[str, Any]]) -> None:
    err = console.err()
    for row in rows:
        if row["fault"]:
            err.print(row["fault"])
        for each in row["deviations"]:
            err.print(
                f"{row['name']}: {each['setting']} is {each['found']} and must be "
                f"{each['mustBe']}, because {each['why']}; {each['cure']}"
            )
