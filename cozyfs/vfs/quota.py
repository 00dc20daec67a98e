"""The quota of an instance: what may be written, and what open files have been promised.

The rule is a Cozy's: a new content must fit, as a whole, into what the quota leaves. The content
that it replaces is not deducted, since it may stay as a version; files in the trash and versions
count as any other. A Cozy knows a content when it arrives; here it grows write by write, so that
a draft is promised room as it grows, and what was promised to one is not promised to another:

- A write is asked for when the draft is begun by it, and whenever it makes the draft longer. Then
  the whole size of the draft has to fit, beside all others. A write inside of what was promised
  is never asked for again.
- Making a file shorter, or empty, is always allowed, and so is storing what was only made
  shorter: whoever is over the quota must be able to get below it. Empty files, directories and
  links take no room.
- When a draft is stored it has to fit once more, since the quota may be another by then.

A refused write leaves a hole in what its program meant to write, so the file as a whole is
refused until the program mends it: `Refused`. What follows from that is in `cozyfs.vfs.files`.

Counters only, no await and no lock: calls on the event loop.
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any, NamedTuple

from cozyfs.errors import FileTooLarge, QuotaExceeded
from cozyfs.values import MAX_FILE_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

    from cozyfs.index import Usage

log = logging.getLogger(__name__)


class Available(NamedTuple):
    """What a new content may be. Bytes."""

    new_size: int | None  # as asked for
    max_size: int | None  # None: there is no quota
    cap_size: int  # from this size on the content raises the alert; 0: it does not


def check_available_space(new_size: int | None, quota: int, usage: int) -> Available:
    """Whether a content of *new_size* bytes (None: not known yet) fits into *quota* (0: none),
    of which *usage* is in use. Raises FileTooLarge, QuotaExceeded."""
    if new_size is not None and new_size > MAX_FILE_SIZE:
        raise FileTooLarge("a file can have at most 5 TiB")
    if quota <= 0:
        return Available(new_size, None, 0)
    # Never negative: that would be no limit at all where sizes below 0 mean so, and an empty
    # content always fits.
    max_size = max(quota - usage, 0)
    if new_size is not None and new_size > max_size:
        raise QuotaExceeded(
            f"{new_size} bytes do not fit: {max_size} of the quota of {quota} are free"
        )
    return Available(new_size, max_size, max(alert_at(quota) - usage, 0))


def alert_at(quota: int) -> int:
    """90 % of the quota: from here on people are told. Bytes."""
    return quota * 9 // 10


class Refused:
    """Where writes to one file were refused, and no later one has made up for it."""

    __slots__ = ("_offsets",)

    def __init__(self) -> None:
        self._offsets: set[int] = set()

    def __bool__(self) -> bool:
        return bool(self._offsets)

    def add(self, offset: int) -> None:
        self._offsets.add(offset)

    def mend(self, start: int, stop: int) -> None:
        """A write of ``[start, stop)`` succeeded: a program that tries again, with fewer bytes
        perhaps, begins where it was refused."""
        if self._offsets:
            self._offsets = {at for at in self._offsets if not start <= at < stop}

    def clear(self) -> None:
        self._offsets.clear()


class Quota:
    """Of one mounted instance. Keys of promises are inode numbers, or any other value."""

    def __init__(self, limit: int, used: Callable[[], int]) -> None:
        """*limit* in bytes, 0 for none; *used* says how much of it is in use."""
        self.limit = limit
        self._used = used
        self._promised: dict[Hashable, int] = {}
        self._total = 0  # of what is promised
        self._shortened: set[Hashable] = set()
        self._storing: dict[Hashable, int] = {}
        self._told = self.alert

    @property
    def promised(self) -> int:
        """Bytes of all drafts that are not stored yet, and of copies being made."""
        return self._total

    @property
    def alert(self) -> bool:
        """Whether 90 % of the quota are in use."""
        return self.limit > 0 and self._used() >= alert_at(self.limit)

    def check(self, size: int) -> None:
        """Raises QuotaExceeded when *size* bytes more do not fit beside all promises."""
        if self.limit > 0:
            check_available_space(size, self.limit, self._used() + self._total)

    # ---- drafts

    def extend(self, key: Hashable, size: int) -> None:
        """Promise *size* bytes in all to what is written as *key*. Raises QuotaExceeded, and then
        the promise is what it was."""
        before = self._promised.get(key)
        if before is not None and before >= size and key not in self._shortened:
            return
        if self.limit > 0:
            used = self._used() + self._total - (before or 0)
            check_available_space(size, self.limit, used)
        self._shortened.discard(key)
        self._promise(key, size)

    def shorten(self, key: Hashable, size: int) -> None:
        """*key* has *size* bytes now, which are not more than before: always possible."""
        if key not in self._promised:
            self._shortened.add(key)
        self._promise(key, size)

    def restore(self, key: Hashable, size: int, *, shortened: bool) -> None:
        """What an earlier process left, whether it fits or not."""
        if shortened:
            self._shortened.add(key)
        self._promise(key, size)

    def release(self, key: Hashable) -> None:
        """*key* is stored, or given up. Idempotent."""
        self._total -= self._promised.pop(key, 0)
        self._shortened.discard(key)

    @contextlib.contextmanager
    def storing(self, key: Hashable, size: int) -> Iterator[None]:
        """While a draft is stored. Raises QuotaExceeded when it does not fit any more, beside
        those that are being stored already."""
        if self.limit > 0 and key not in self._shortened:
            used = self._used() + sum(self._storing.values())
            check_available_space(size, self.limit, used)
        self._storing[key] = size
        try:
            yield
        finally:
            del self._storing[key]

    # ---- others

    @contextlib.contextmanager
    def reserved(self, size: int) -> Iterator[None]:
        """Room for something that is made as a whole. Raises QuotaExceeded."""
        key = object()
        self.extend(key, size)
        try:
            yield
        finally:
            self.release(key)

    def tell(self) -> None:
        """Log when 90 % were reached, or left, since the last call."""
        if self.alert == self._told:
            return
        self._told = not self._told
        if self._told:
            log.warning("90 %% of the quota of %d bytes are used: %d", self.limit, self._used())
        else:
            log.info("less than 90 %% of the quota are used again")

    def _promise(self, key: Hashable, size: int) -> None:
        self._total += size - self._promised.get(key, 0)
        self._promised[key] = size


def report(usage: Usage, quota: int) -> dict[str, Any]:
    """Quota and usage for people and programs; sizes in bytes."""
    return {
        "quota_bytes": quota or None,
        "used_bytes": usage.disk_bytes,
        "free_bytes": max(quota - usage.disk_bytes, 0) if quota else None,
        "quota_alert": quota > 0 and usage.disk_bytes >= alert_at(quota),
        "files": usage.files,
        "file_bytes": usage.file_bytes,
        "versions": usage.versions,
        "version_bytes": usage.version_bytes,
        "trash_bytes": usage.trash_bytes,
        "stored_bytes": usage.stored_bytes,
    }
