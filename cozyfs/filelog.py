"""The request ``log`` of the control socket: what happened to a file, told as it is found.

Joins the tree of the mount, which knows the file by its path, with the journal in the bucket.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from cozyfs import moments
from cozyfs.control import text_in
from cozyfs.errors import InvalidRequest, NotADirectory, NotFound, ObjectNotFound
from cozyfs.journal import JournalObjects, LeaseRecord
from cozyfs.journal.happened import text
from cozyfs.journal.lease import lease_key
from cozyfs.journal.log import Logged, log_of
from cozyfs.nurseries import background_tasks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cozyfs.control import Send
    from cozyfs.vfs.filesystem import FileSystem

PROGRESS_PAUSE_S = 0.5
"""Between signs of life while nothing is found."""

SCRATCH = "log.db"
"""Beside the index of the mount: what a killed one left there makes way for the next."""

_alone = trio.Lock()
"""One log at a time: each reads the whole journal, and has a tree on disk meanwhile."""


async def answer_log(fs: FileSystem, request: dict[str, Any], send: Send) -> None:
    """The log of ``path``, from the root of the instance: first ``since``, then one answer for
    each event, the oldest first, at last ``done``. Raises CozyError."""
    path = text_in(request, "path").encode("utf-8", "surrogateescape")
    if not path.startswith(b"/"):
        raise InvalidRequest("the request needs a path from the root")
    ino = None
    with contextlib.suppress(NotFound, NotADirectory):
        ino = fs.index.resolve(path).ino
    objects = JournalObjects(fs.objects.store, fs.objects.bucket, fs.objects.db_prefix)
    scratch = Path(fs.index.connection.filename).with_name(SCRATCH)
    one = trio.Lock()  # an answer at a time
    hosts: dict[int, str] = {}

    async def tell(logged: Logged | int) -> None:
        for answer in _answers(logged, hosts):
            async with one:
                await send(answer)

    async with background_tasks() as nursery:
        nursery.start_soon(_show_life, send, one)
        await fs.sync_tree()  # what has happened until now is in the journal
        async with _alone:
            hosts = await _hosts(objects)
            await log_of(objects, path, ino, scratch, tell)
    await send({"done": True})


def _answers(logged: Logged | int, hosts: dict[int, str]) -> Iterator[dict[str, Any]]:
    if isinstance(logged, int):
        yield {"since": moments.to_iso(logged)}
        return
    epoch, sequence = logged.place
    for event in logged.events:
        yield {
            "time": moments.to_iso(logged.moment_ns),
            "journal": f"{epoch}-{sequence}",
            "host": hosts.get(epoch),
            "event": event.what,
            "path": text(event.path),
            "ino": event.ino,
            **event.details,
        }


async def _hosts(objects: JournalObjects) -> dict[int, str]:
    """Of the epochs that are known: the journal does not tell, the lease tells the last one's."""
    try:
        record = LeaseRecord.decode(await objects.get(lease_key(objects)))
    except ObjectNotFound:
        return {}
    return {} if record is None else {record.epoch: record.host}


async def _show_life(send: Send, one: trio.Lock) -> None:
    while True:
        await trio.sleep(PROGRESS_PAUSE_S)
        async with one:
            await send({"reading": True})
