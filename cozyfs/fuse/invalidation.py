"""Telling the kernel what changed behind its back: on mounts that follow another one, where one
request changes more than it names (the trash), and where what was written to a file was given
up."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pyfuse3
import trio

if TYPE_CHECKING:
    from cozyfs.index import Changes
    from cozyfs.vfs.filesystem import FileSystem


def tell_kernel(changes: Changes) -> None:
    """Have the kernel forget attributes, pages and names. Blocks until it has: in a thread, since
    it may wait for requests that the event loop answers. What it does not know is not an error."""
    for ino in changes.inodes:
        with suppress(OSError):
            pyfuse3.invalidate_inode(ino)
    for parent, name in changes.entries:
        with suppress(OSError):
            pyfuse3.invalidate_entry(parent, name)


async def tell_news(fs: FileSystem) -> None:
    """The kernel knows of all that changed by itself until now when this returns."""

    async def tell(changes: Changes) -> None:
        await trio.to_thread.run_sync(tell_kernel, changes)

    await fs.news.deliver(tell)
