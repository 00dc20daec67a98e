"""What changed in the tree other than by a request of the kernel for exactly that name.

The kernel remembers names, also that there are none, and attributes for ever: it has to be told.
Not before the request at hand is answered, since it may hold what the kernel needs for that; so
changes are collected here, and whoever runs the mount delivers them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from cozyfs.index import NO_CHANGES, Changes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from cozyfs.values import Ino


class News:
    """Collects nothing before :meth:`listen`, nor what the kernel does not know anyway."""

    def __init__(self, is_known: Callable[[Ino], bool]) -> None:
        self._is_known = is_known
        self._listening = False
        self._inodes: set[Ino] = set()
        self._entries: set[tuple[Ino, bytes]] = set()
        self._arrived = trio.Event()
        self._delivering = trio.Lock()

    def listen(self) -> None:
        """From now on somebody delivers."""
        self._listening = True

    def entry(self, parent: Ino, name: bytes) -> None:
        """A name came, went, or means something else; its directory changed with it."""
        if self._listening and self._is_known(parent):
            self._entries.add((parent, name))
            self._inodes.add(parent)
            self._arrived.set()

    def inode(self, ino: Ino) -> None:
        """Its attributes changed."""
        if self._listening and self._is_known(ino):
            self._inodes.add(ino)
            self._arrived.set()

    async def wait(self) -> None:
        """Until there is something to deliver."""
        await self._arrived.wait()

    async def deliver(self, tell: Callable[[Changes], Awaitable[None]]) -> None:
        """All that was collected until now has been told when this returns."""
        async with self._delivering:
            changes = self._take()
            if changes != NO_CHANGES:
                await tell(changes)

    def _take(self) -> Changes:
        changes = Changes(frozenset(self._inodes), frozenset(self._entries))
        self._inodes, self._entries = set(), set()
        self._arrived = trio.Event()
        return changes
