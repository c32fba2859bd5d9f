"""``deeplens topics``: what there must be at the broker, and what there is."""

import asyncio

import click
from rich.table import Table
from rich.text import Text

from deeplens_streams.cli import console
from deeplens_streams.cli.broker import partition_counts
from deeplens_streams.cli.options import json_option
from deeplens_streams.config import Settings, load_settings
from deeplens_streams.topic_creation import ensure_topics
from deeplens_streams.topics import TOPICS, Topic


@click.command()
@click.option("--create", is_flag=True, help="Create those that are missing.")
@click.option("--broker", help="Default: DEEPLENS_BROKER, else kafka://127.0.0.1:9092.")
@json_option
def topics(*, create: bool, broker: str | None, as_json: bool) -> None:
    """List the topics, and whether the broker has them as they must be.

    Exits with 1 if one is missing or has another number of partitions.
    """
    settings = load_settings(**({"broker": broker} if broker else {}))
    console.quiet_clients()
    found = asyncio.run(_found(settings, create=create))
    rows = [_row(topic, settings, found) for topic in TOPICS]
    if as_json:
        console.print_json({"broker": settings.broker, "topics": rows})
    else:
        console.out().print(_table(rows))
    if any(row["state"] != "ok" for row in rows):
        raise click.exceptions.Exit(1)


async def _found(settings: Settings, *, create: bool) -> dict[str, int]:
    if create:
        await ensure_topics(settings)
    return await partition_counts(settings)


def _row(topic: Topic, settings: Settings, found: dict[str, int]) -> dict[str, object]:
    name = topic.name(settings.namespace)
    count = found.get(name)
    state = "missing" if count is None else "ok" if count == topic.partitions else "wrong count"
    days = getattr(settings, topic.retention) if topic.retention else None
    return {
        "name": name,
        "partitions": topic.partitions,
        "found": count,
        "retentionDays": days,
        "purpose": topic.purpose,
        "state": state,
    }


def _table(rows: list[dict[str, object]]) -> Table:
    table = Table(
        "topic", "partitions", "kept", "state", "purpose", box=None, pad_edge=False, padding=(0, 2)
    )
    for row in rows:
        state, days = str(row["state"]), row["retentionDays"]
        table.add_row(
            str(row["name"]),
            str(row["partitions"]),
            "compacted" if days is None else f"{days} d",
            Text(state, style="green" if state == "ok" else "red"),
            str(row["purpose"]),
        )
    for column in table.columns[:4]:
        column.no_wrap = True
    return table
