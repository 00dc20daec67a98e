"""A check of one instance: which checks run, in which order, and who is told.

The tree first (`cozyfs.vfs.fsck_index`), then one listing of the store against it
(`cozyfs.vfs.fsck_store`), the journal, and at last, if asked, every byte (`cozyfs.vfs.fsck_deep`).
Findings are told as they are found; what is remedied (`cozyfs.vfs.fsck_repair`) is so before the
next is looked for.

Runs beside a mount, whose tree goes on changing: scans have a connection and a thread of their
own, and what may have come about while we looked is looked at twice.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import trio

from cozyfs.errors import CozyError, InstanceError
from cozyfs.index import NO_CHANGES, Scan, Usage
from cozyfs.index.usage import SCAN_INODES, SCAN_TRASH, SCAN_VERSIONS
from cozyfs.vfs import fsck_deep, fsck_index, fsck_journal, fsck_listing, fsck_repair, fsck_store
from cozyfs.vfs.fsck_findings import Finding

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from cozyfs.vfs.fsck_repair import Bench
    from cozyfs.vfs.fsck_store import Candidate, Held

log = logging.getLogger(__name__)

T = TypeVar("T")

YOUNG_S = 600.0
"""On an instance that somebody writes: an object that is not in the tree yet may be about to be.
It is stored first, and its row follows after one request to the store, with all its retries."""

BATCH = 100

HEADS_AT_ONCE = 16

_RECORD = ".cozyfs/instance.json"


@dataclass(frozen=True, slots=True)
class Options:
    """What is asked for."""

    deep: bool = False
    fail_fast: bool = False
    repair: bool = False
    retention_s: float = 86_400.0  # of the mounts of this instance
    is_live: bool = False  # somebody may write it meanwhile
    has_mount: bool = False  # the index is one that requests go on changing


@dataclass(slots=True)
class Progress:
    """How far a check is."""

    phase: str = "index"
    objects: int = 0  # listed
    bytes_read: int = 0
    bytes_total: int = 0  # 0: nothing is read

    def to_json(self) -> dict[str, Any]:
        return {
            "phase": self.phase,
            "objects": self.objects,
            "bytes_read": self.bytes_read,
            "bytes_total": self.bytes_total,
        }


@dataclass(slots=True)
class Summary:
    """How a check ended."""

    findings: int = 0
    repaired: int = 0
    objects: int = 0
    contents_read: int = 0
    by_type: Counter[str] = field(default_factory=Counter)

    @property
    def left(self) -> int:
        return self.findings - self.repaired

    def to_json(self) -> dict[str, Any]:
        return {
            "findings": self.findings,
            "repaired": self.repaired,
            "left": self.left,
            "objects": self.objects,
            "contents_read": self.contents_read,
            "by_type": dict(self.by_type),
        }


async def check(
    bench: Bench,
    options: Options,
    tell: Callable[[Finding], Awaitable[None]],
    progress: Progress | None = None,
) -> Summary:
    """Check the instance of *bench*; *tell* gets each finding. With ``fail_fast`` nothing is
    looked at after the first. Raises StoreError, InstanceError: then not all was looked at."""
    run = _Run(bench, options, tell, progress or Progress())
    with trio.CancelScope() as scope:
        run.scope = scope
        await run.run()
    return run.summary


class _Run:
    def __init__(
        self,
        bench: Bench,
        options: Options,
        tell: Callable[[Finding], Awaitable[None]],
        progress: Progress,
    ) -> None:
        self.summary = Summary()
        self.scope = trio.CancelScope()
        self._bench = bench
        self._options = options
        self._tell = tell
        self._progress = progress
        self._disk = bench.objects.caller.disk
        self._told: set[str] = set()
        self._doubtful: list[Held] = []

    async def run(self) -> None:
        bench, options = self._bench, self._options
        if options.repair:
            bench.index.reload()  # what is wrong may be in memory too
        scan = await self._disk(Scan.open, Path(bench.index.connection.filename))
        try:
            await self._report_all(fsck_index.check_index(scan))
            await self._counters(scan)
            position = bench.index.position
            listed = await self._list(scan)
            await self._contents(scan, listed)
            self._progress.phase = "journal"
            for finding in await fsck_journal.check_journal(
                bench.journal, position, deep=options.deep
            ):
                await self._report(finding)
            if options.deep:
                await self._read_all(scan)
        finally:
            scan.close()

    async def _list(self, scan: Scan) -> fsck_listing.Listed:
        def count(number: int) -> None:
            self._progress.objects = number

        self._progress.phase = "store"
        objects = self._bench.objects
        listed = await objects.caller.store(fsck_listing.fill, scan, objects, count)
        self.summary.objects = listed.objects
        record = "SELECT 1 FROM temp.listed WHERE name = ?"
        if scan.row(record, (_RECORD,)) is None:
            # An empty answer, of a wrong bucket say, must not make everything count as lost.
            raise InstanceError("the store does not show the record of this instance")
        return listed

    async def _contents(self, scan: Scan, listed: fsck_listing.Listed) -> None:
        bench, options = self._bench, self._options
        # By the clock of the store: the lease of whoever writes is renewed every few seconds.
        before = listed.newest - YOUNG_S if options.is_live else float("inf")
        await self._confirm_all(fsck_store.contents(scan, self._doubtful.append))
        reading = fsck_deep.Reading(bench, self._count_bytes)
        for each in self._doubtful if not options.deep else ():
            if not reading.etags_are_md5s:
                break
            if (found := await reading.read_one(each)) is not None:
                await self._report(found)
        await self._confirm_all(fsck_store.unreferenced(scan, before))
        await self._confirm_all(fsck_store.thumbnails(scan, before))
        await self._report_all(fsck_store.unknown(scan))
        await self._report_all(fsck_journal.unknown(scan))
        late_s = options.retention_s + fsck_store.LEFTOVER_S
        queued_before_ns = bench.clock() - int(late_s * 1e9)
        await self._confirm_all(fsck_store.leftovers(scan, queued_before_ns))
        for finding in await fsck_store.unfinished_uploads(bench, bench.clock() / 1e9):
            await self._report(finding)

    async def _read_all(self, scan: Scan) -> None:
        self._progress.phase = "contents"
        self._progress.bytes_total = await self._disk(fsck_deep.total_bytes, scan)
        reading = fsck_deep.Reading(self._bench, self._count_bytes)
        await reading.read_all(fsck_deep.readable(scan, self._told), self._report)
        self.summary.contents_read = reading.read

    def _count_bytes(self, count: int) -> None:
        self._progress.bytes_read += count

    async def _counters(self, scan: Scan) -> None:
        """What a mount counts as it goes against what is there, of one and the same moment."""
        if not self._options.has_mount:
            return  # counted when the index was opened
        index = self._bench.index
        for _ in range(5):
            before = index.usage
            found = await self._disk(_counted, scan)
            if index.usage == before:
                if found != before:
                    await self._report(
                        Finding(
                            "index_bad_counter",
                            f"the usage is said to be {before}, and is {found}",
                            repair="it is counted again",
                            remedy=fsck_repair.count_anew,
                        )
                    )
                return

    # ---- telling

    async def _report_all(self, findings: Iterator[Finding]) -> None:
        try:
            while batch := await self._next(findings):
                for finding in batch:
                    await self._report(finding)
        finally:
            _end(findings)

    async def _confirm_all(self, candidates: Iterator[Candidate]) -> None:
        """Those that hold at a second look, in their order."""
        try:
            while batch := await self._next(candidates):
                for finding in await self._confirmed(batch):
                    await self._report(finding)
        finally:
            _end(candidates)

    async def _confirmed(self, batch: list[Candidate]) -> list[Finding]:
        found: dict[int, Finding | None] = {}
        limit = trio.CapacityLimiter(HEADS_AT_ONCE)

        async def confirm(number: int, candidate: Candidate) -> None:
            async with limit:
                found[number] = await candidate.confirm(self._bench)

        async with trio.open_nursery() as nursery:
            for number, candidate in enumerate(batch):
                nursery.start_soon(confirm, number, candidate)
        return [each for number in range(len(batch)) if (each := found[number]) is not None]

    async def _next(self, items: Iterator[T]) -> list[T]:
        # With a repair in mind one after the other: the next may be of what was repaired.
        size = 1 if self._options.repair or self._options.fail_fast else BATCH
        return await self._disk(lambda: list(islice(items, size)))

    async def _report(self, finding: Finding) -> None:
        if finding.type == "index_removed_leftover":
            assert finding.before is not None
            if self._bench.is_open(finding.before["ino"]):
                return
        if finding.object is not None:
            self._told.add(finding.object)
        if self._options.repair:
            finding = await self._repair(finding)
        self.summary.findings += 1
        self.summary.repaired += finding.repaired is True
        self.summary.by_type[finding.type] += 1
        await self._tell(finding)
        if self._options.fail_fast:
            self.scope.cancel()
            await trio.lowlevel.checkpoint()

    async def _repair(self, finding: Finding) -> Finding:
        bench = self._bench
        if finding.remedy is None:
            return replace(finding, repaired=False)
        await bench.confirm()  # who lost the lease changes nothing any more
        bench.changes = NO_CHANGES
        try:
            await finding.remedy(bench)
        except CozyError as exc:
            return replace(finding, repaired=False, problem=str(exc))
        finally:
            if bench.changes != NO_CHANGES:
                await bench.show(bench.changes)
        log.warning("%s repaired: %s", finding.type, finding.detail)
        return replace(finding, repaired=True)


def _counted(scan: Scan) -> Usage:
    with scan.moment():
        counted = (*scan.row(SCAN_INODES), *scan.row(SCAN_VERSIONS), *scan.row(SCAN_TRASH))
    return Usage(*counted)


def _end(items: Iterator[object]) -> None:
    """A generator that was left early has a transaction open."""
    if isinstance(items, Generator):
        items.close()
