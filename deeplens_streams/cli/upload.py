"""``deeplens upload``: files and folders of pictures."""

from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from deeplens_streams.cli import console
from deeplens_streams.cli.options import json_option, tenant_option, url_option
from deeplens_streams.cli.upload_batch import Outcome, UploadRun, count
from deeplens_streams.cli.upload_files import FoundFiles, Unsent, find_files, shown
from deeplens_streams.cli.upload_history import UploadMemory
from deeplens_streams.client import Status
from deeplens_streams.errors import DeepLensError

_SHOWN = 20


@click.command()
@click.argument(
    "paths",
    metavar="FILE|DIR...",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, path_type=Path),
)
@click.option("--again", is_flag=True, help="Send what an earlier run has sent, too.")
@click.option("--follow", is_flag=True, help="Wait until all are processed.")
@click.option("--parallel", type=click.IntRange(1, 64), default=4, show_default=True)
@click.option("--tag", "tags", metavar="KEY=VALUE", multiple=True, help="For every picture.")
@tenant_option
@url_option
@json_option
def upload(
    *,
    paths: tuple[Path, ...],
    again: bool,
    follow: bool,
    parallel: int,
    tags: tuple[str, ...],
    tenant: str,
    url: str,
    as_json: bool,
) -> None:
    """Upload pictures: files, or folders with all that is below them.

    In folders pictures are told by their content; what is passed over is named. A run that was
    interrupted goes on where it was when it is started again. Exits with 1 if any picture failed,
    and says which and why.
    """
    found = find_files(paths)
    if not found.pictures and not found.unreadable:
        if not as_json:
            _print_passed_over(found)
        raise DeepLensError("There is no picture in what you named.")
    run = UploadRun(
        url,
        tenant=tenant,
        parallel=parallel,
        memory=None if again else UploadMemory(url, tenant),
        fields=_tag_fields(tags),
    )
    with closing(run):
        run.api.require()  # before a bar is drawn, and without further attempts
        outcomes = _upload(run, found.pictures)
        ended = _follow(run, outcomes) if follow else []
    lost = [status for status in ended if status.status not in ("completed", "partial")]
    outcomes += [
        Outcome(each.path, "failed", None, "UNREADABLE", each.reason) for each in found.unreadable
    ]
    if as_json:
        console.print_json(_report(outcomes, found.passed_over, ended))
    else:
        _print(outcomes, ended)
        _print_passed_over(found)
    if lost or any(outcome.result == "failed" for outcome in outcomes):
        raise click.exceptions.Exit(1)


def _tag_fields(tags: tuple[str, ...]) -> dict[str, str]:
    fields = {}
    for tag in tags:
        key, separator, value = tag.partition("=")
        if not separator or not key:
            raise click.BadParameter(f"{tag!r} is not KEY=VALUE.", param_hint="--tag")
        fields[f"tags[{key}]"] = value
    return fields


def _upload(run: UploadRun, files: list[Path]) -> list[Outcome]:
    outcomes = []
    with console.progress_bar(console.err()) as progress:
        task = progress.add_task("uploading", total=len(files))
        for outcome in run.upload(files):
            outcomes.append(outcome)
            failed = count(outcomes)["failed"]
            words = f"uploading ({failed} failed)" if failed else "uploading"
            progress.update(task, advance=1, description=words)
    return sorted(outcomes, key=lambda outcome: outcome.path)


def _follow(run: UploadRun, outcomes: list[Outcome]) -> list[Status]:
    # Files with the same bytes are one picture.
    images = list(dict.fromkeys(o.image_id for o in outcomes if o.image_id is not None))
    ended = []
    with console.progress_bar(console.err()) as progress:
        task = progress.add_task("processing", total=len(images))
        for status in run.follow(images):
            ended.append(status)
            progress.advance(task)
    return ended


def _report(
    outcomes: list[Outcome], passed_over: list[Unsent], ended: list[Status]
) -> dict[str, Any]:
    counts = count(outcomes)
    states = {status.image_id: status.status for status in ended}
    return {
        **{name: counts[name] for name in ("uploaded", "duplicate", "skipped", "failed")},
        "passedOver": [{"file": shown(each.path), "reason": each.reason} for each in passed_over],
        "files": [
            {
                "file": shown(outcome.path),
                "result": outcome.result,
                "imageId": outcome.image_id,
                "status": states.get(outcome.image_id or ""),
                "errorCode": outcome.error_code,
                "message": outcome.message,
            }
            for outcome in outcomes
        ],
    }


def _print(outcomes: list[Outcome], ended: list[Status]) -> None:
    counts = count(outcomes)
    words = {
        "uploaded": "uploaded",
        "duplicate": "that the system had",
        "skipped": "sent by an earlier run",
        "failed": "failed",
    }
    parts = [f"{counts[name]} {word}" for name, word in words.items() if counts[name]]
    out = console.out()
    out.print(", ".join(parts))
    if ended:
        states = Counter(status.status for status in ended)
        out.print(", ".join(f"{number} {state}" for state, number in states.items()))
    complaints = [f"{shown(o.path)}: {o.message}" for o in outcomes if o.result == "failed"]
    files = {o.image_id: shown(o.path) for o in reversed(outcomes) if o.image_id}
    complaints += [
        f"{files[status.image_id]} ({status.image_id}): {status.error_message or status.status}"
        for status in ended
        if status.status == "failed"
    ]
    _print_some(complaints)


def _print_passed_over(found: FoundFiles) -> None:
    if found.passed_over:
        console.err().print(f"{len(found.passed_over)} passed over:")
        _print_some([f"  {shown(each.path)}: {each.reason}" for each in found.passed_over])


def _print_some(lines: list[str]) -> None:
    err = console.err()
    for line in lines[:_SHOWN]:
        err.print(line)
    if len(lines) > _SHOWN:
        err.print(f"and {len(lines) - _SHOWN} more; --json names them all")
