"""Optimizing a Qdrant Edge collection while it is searched and written.

A copy of its files is optimized by a child process, what has changed meanwhile is brought into the
copy, and the copy takes the collection's place. Until then the collection itself is untouched, so
what stops on the way costs nothing but the work.
"""

import asyncio
import os
import shutil
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path

import qdrant_edge as edge
import structlog

from deeplens_streams.errors import DeepLensError, VectorsUnavailable
from deeplens_streams.vectors.edge.engine import EdgeEngine
from deeplens_streams.vectors.edge.sparse_copy import copy_file, disk_bytes

log = structlog.get_logger()

#: Changed points brought over in one job: the process does nothing else for about 20 ms.
_BATCH = 64
#: Times a collection's bytes that its copy and the optimized copy of that may take for a while.
_NEEDED = 3


class EdgeOptimizing:
    """Optimizes one collection after the other.

    Attributes
    ----------
    troubles : why the last optimization of a collection failed, by name.
    """

    def __init__(self, engine: EdgeEngine) -> None:
        self._engine = engine
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._turn = asyncio.Lock()
        self.troubles: dict[str, str] = {}

    def is_at(self, name: str) -> bool:
        """Tell whether a collection is being optimized, or waits for that."""
        return name in self._tasks

    def begin(self, name: str) -> None:
        """Optimize a collection in the background, unless that is under way."""
        if name in self._tasks:
            return
        self.troubles.pop(name, None)
        task = asyncio.create_task(self._optimize(name), name=f"optimizing {name}")
        self._tasks[name] = task
        task.add_done_callback(lambda _done: self._tasks.pop(name, None))

    async def cancel(self, *names: str) -> None:
        """Stop optimizing these collections, which stay as they are; without names, all."""
        tasks = [task for name, task in self._tasks.items() if name in names or not names]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _optimize(self, name: str) -> None:
        async with self._turn:
            log.info("a collection is being optimized", collection=name)
            try:
                # 1. a copy, and a list of what changes from now on
                await self._engine.run(partial(self._copy, name))
                # 2. the work, elsewhere
                if await _optimized(self._engine.shards.copy_path(name)):
                    # 3. what has changed, and the copy in the collection's place
                    await self._bring_over(name)
                    log.info("a collection is optimized", collection=name)
                else:
                    log.info("there was nothing to optimize", collection=name)
            except Exception as error:  # nobody waits for it: the collection's status says so
                ours = DeepLensError(f"Unexpected {type(error).__name__}; look into the log.")
                known = error if isinstance(error, DeepLensError) else ours
                self.troubles[name] = f"The last optimization failed: {known.message}"
                log.warning(
                    "a collection could not be optimized",
                    collection=name,
                    reason=known.message,
                    cause=str(error.__cause__ or error)[:300],
                )
            finally:
                await self._clean(name)

    def _copy(self, name: str) -> None:
        shards = self._engine.shards
        shard = shards.get(name)
        if shard is None:
            raise VectorsUnavailable("The collection is gone.")
        source, target = self._engine.folder / name, shards.copy_path(name)
        self._engine.check_room(_NEEDED * disk_bytes(source))
        shard.flush()
        shards.leave()
        if target.exists():
            shutil.rmtree(target)
        shutil.copytree(source, target, copy_function=copy_file)
        shards.begin_journal(name)

    async def _bring_over(self, name: str) -> None:
        """Repeat on the copy what has changed, then swap; new changes are seen until then."""
        fresh = await self._engine.run(
            lambda: edge.EdgeShard.load(str(self._engine.shards.copy_path(name)))
        )
        try:
            while not await self._engine.run(partial(self._step, name, fresh)):
                pass
        except BaseException:
            # Behind the step that may still be under way.
            await asyncio.shield(self._engine.run(fresh.close))
            raise

    def _step(self, name: str, fresh: edge.EdgeShard) -> bool:
        """Bring some changes over, or swap where there are none, and tell which."""
        shards = self._engine.shards
        journal = shards.begin_journal(name)
        if not journal:
            fresh.flush()
            fresh.close()
            shards.replace(name)
            shards.end_journal(name)
            return True
        self._engine.check_room()
        shard = shards.get(name)
        assert shard is not None, "its removal cancels this"
        ids: list[edge.PointId] = [journal.pop() for _ in range(min(_BATCH, len(journal)))]
        found = shard.retrieve(ids, True, True)
        shards.leave()  # a fault of the copy is none of the collection's
        points = [edge.Point(each.id, each.vector or [], each.payload) for each in found]
        gone = list({str(each) for each in ids} - {str(each.id) for each in found})
        if points:
            fresh.update(edge.UpdateOperation.upsert_points(points))
        if gone:
            fresh.update(edge.UpdateOperation.delete_points([*gone]))
        fresh.flush()  # all at the end would stop the process for as long as all of it takes
        return False

    async def _clean(self, name: str) -> None:
        def clean() -> None:
            self._engine.shards.end_journal(name)
            shutil.rmtree(self._engine.shards.copy_path(name), ignore_errors=True)

        with suppress(DeepLensError):  # closed: the next start does it
            await asyncio.shield(self._engine.run(clean))


async def _optimized(copy: Path) -> bool:
    """Have a child optimize what nobody has open, and tell whether that changed anything."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "deeplens_streams.vectors.edge.optimizer_child",
        str(copy),
        str(os.getpid()),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        said, complaint = await child.communicate()
    except asyncio.CancelledError:
        child.kill()
        await child.wait()
        raise
    if child.returncode != 0:
        reason = complaint.decode(errors="replace").strip().rpartition("\n")[2]
        raise VectorsUnavailable(
            f"its process ended with {child.returncode}; the log has its last words."
        ) from RuntimeError(reason)
    return said == b"changed"
