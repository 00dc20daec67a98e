"""What a running mount takes from its instance's record, read again while it runs; and its usage.

The record may be changed by any machine at any time. A mount looks at it now and then, and when a
command on this machine says that it has changed it (the request ``reread``).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import trio

from cozyfs import instances
from cozyfs.errors import CozyError
from cozyfs.vfs.quota import report

if TYPE_CHECKING:
    from cozyfs.control import Send
    from cozyfs.vfs.filesystem import FileSystem

log = logging.getLogger(__name__)

PAUSE_S = 30.0
"""Between looks: one small GET, and a new quota need not be known at once everywhere."""


async def reread(fs: FileSystem) -> None:
    """Follow the record as it is now. Raises InstanceError, StoreError."""
    objects = fs.objects
    record = await objects.caller.store(instances.reread, objects.store, fs.instance)
    if record.quota != fs.quota.limit:
        log.info("the quota is %d bytes now (0: none)", record.quota)
        fs.quota.limit = record.quota


async def reread_now_and_then(fs: FileSystem) -> None:
    """Until cancelled. What goes wrong changes nothing: the quota stays as it was."""
    while True:
        await trio.sleep(PAUSE_S)
        try:
            await reread(fs)
        except CozyError as exc:
            log.debug("the instance's record cannot be read: %s", exc)
        except Exception:
            log.exception("the instance's record cannot be read")
        fs.quota.tell()


async def answer_reread(fs: FileSystem, request: dict[str, Any], send: Send) -> None:
    """The record was changed."""
    await reread(fs)
    fs.quota.tell()
    await send({"quota_bytes": fs.quota.limit or None})


async def answer_usage(fs: FileSystem, request: dict[str, Any], send: Send) -> None:
    """`cozyfs.vfs.quota.report`."""
    await send(report(fs.index.usage, fs.quota.limit))
