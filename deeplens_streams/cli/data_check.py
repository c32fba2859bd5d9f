"""``deeplens doctor --data``: what is damaged in the data folder of a stopped system."""

import asyncio
import logging
from dataclasses import asdict
from typing import TYPE_CHECKING

import structlog

from deeplens_streams.cli import console
from deeplens_streams.config import Settings
from deeplens_streams.errors import DeepLensError

if TYPE_CHECKING:
    from deeplens_streams.data_check.damage import Damage, Look

#: Things that are looked at between two lines of progress.
_EVERY = 10_000


class DataDamaged(DeepLensError):
    """Something in the data folder is damaged."""

    code = "DATA_DAMAGED"


def check_data(settings: Settings, *, as_json: bool) -> None:
    """Print what is damaged and what mends it.

    Raises
    ------
    DataDamaged
        Something is.
    """
    from deeplens_streams.data_check.damage import Look  # noqa: PLC0415 - loads every engine

    # What is damaged is said once, by us.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    look = Look(settings)
    asyncio.run(_print_all(look, as_json=as_json))
    faults = dict(look.faults)
    if as_json:
        said = {"looked": look.looked, "faults": faults, "leftOut": look.left_out}
        console.print_json({"type": "total", **said})
    else:
        for sentence in look.left_out:
            console.err().print(f"not looked at: {sentence}", soft_wrap=True)
        if not faults:
            console.out().print(
                f"{settings.data_dir}: all is well, {look.looked} things looked at."
            )
    if faults:
        things = ", ".join(f"{count} {fault}" for fault, count in sorted(faults.items()))
        raise DataDamaged(f"{settings.data_dir}: {things}.")


async def _print_all(look: "Look", *, as_json: bool) -> None:
    from deeplens_streams.data_check.run import check  # noqa: PLC0415 - loads every engine

    progress = asyncio.create_task(_progress(look))
    try:
        async for damage in check(look):
            _print(damage, as_json=as_json)
    finally:
        progress.cancel()


def _print(damage: "Damage", *, as_json: bool) -> None:
    if as_json:
        console.print_json({"type": "damage", **asdict(damage)})
        return
    subject = f" ({damage.subject})" if damage.subject else ""
    out = console.out()
    out.print(f"{damage.path}{subject}: {damage.kind}, {damage.detail}")
    out.print(f"    mend: {damage.mend}")


async def _progress(look: "Look") -> None:
    """Say on a terminal how far it is."""
    err = console.err()
    with err.status("", spinner="dots") as status:
        while err.is_terminal:
            status.update(f"{look.part}: {look.looked} looked at")
            await asyncio.sleep(0.5)
