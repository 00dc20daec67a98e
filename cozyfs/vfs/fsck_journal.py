"""Whether the tree could be rebuilt from the store: the newest snapshot, and the journal after it.

What a snapshot covers is not asked for: it is kept for the past alone, and removed in time. A
fresh snapshot therefore makes any gap or damage before it harmless, and is the repair of all that
is found here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cozyfs.errors import JournalDamaged, ObjectNotFound
from cozyfs.index.journal import decode, parse_name
from cozyfs.journal.chain import history, is_void
from cozyfs.journal.follow import check_follows
from cozyfs.journal.snapshots import verify
from cozyfs.vfs import fsck_repair as repair
from cozyfs.vfs.fsck_findings import Finding
from cozyfs.vfs.fsck_listing import own_names

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cozyfs.index import Scan
    from cozyfs.index.journal import Position
    from cozyfs.journal import JournalObjects
    from cozyfs.journal.objects import Entry

_JOURNAL, _SNAPSHOTS = ".cozyfs/journal/", ".cozyfs/snapshots/"
_KNOWN = frozenset({".cozyfs/instance.json", ".cozyfs/lease", ".cozyfs/import.json"})
_APPS = (".cozyfs/apps/", ".cozyfs/konnectors/")

_FIXED: dict[str, Any] = {
    "repair": "a fresh snapshot of the tree is stored",
    "remedy": repair.write_snapshot,
}


def unknown(scan: Scan) -> Iterator[Finding]:
    """Objects below .cozyfs that are nothing of this cozyfs."""
    for name, _, _ in own_names(scan):
        prefix = _JOURNAL if name.startswith(_JOURNAL) else _SNAPSHOTS
        if (
            name not in _KNOWN
            and not name.startswith(_APPS)
            and parse_name(name.removeprefix(prefix)) is None
        ):
            yield Finding("unknown_object", "cozyfs does not know what it is", object=name)


async def check_journal(
    objects: JournalObjects, position: Position | None, *, deep: bool
) -> list[Finding]:
    """*position* is where the tree of this machine was before: the journal must lead there.
    *deep* reads what :func:`cozyfs.journal.restore` would. Raises StoreError."""
    if position is None:
        return []
    found, base, after = await _look(objects, position)
    if deep and base is not None:
        found += await _read(objects, base, after)
    return found


async def _look(
    objects: JournalObjects, position: Position
) -> tuple[list[Finding], Entry | None, list[Entry]]:
    snapshots = await objects.snapshots()
    journal = await objects.journal_after()
    good = [entry for entry in snapshots if not is_void(*entry.place, journal)]
    if not good:
        text = "the journal has no snapshot to start from"
        return [Finding("snapshot_missing", text, **_FIXED)], None, []
    base = good[-1]
    after = [entry for entry in history(journal) if entry.place > base.place]
    found: list[Finding] = []
    last = base.sequence
    for entry in after:
        if entry.sequence != last + 1:
            found.append(_gap(last + 1, entry.sequence - 1, _name(objects, entry)))
        last = entry.sequence
    if position.sequence > last:
        found.append(_gap(last + 1, position.sequence, None))
    return found, base, after


def _gap(first: int, last: int, before: str | None) -> Finding:
    what = f"object {first}" if first == last else f"objects {first} to {last}"
    return Finding(
        "journal_gap",
        f"{what} of the journal {'is' if first == last else 'are'} missing:"
        " elsewhere, the tree could be rebuilt only as it was before",
        object=before,
        **_FIXED,
    )


async def _read(objects: JournalObjects, base: Entry, after: list[Entry]) -> list[Finding]:
    try:
        info = await verify(objects, base)
        if info.position.place != base.place:
            raise JournalDamaged("it has another's name")
    except (JournalDamaged, ObjectNotFound) as exc:
        return [Finding("snapshot_damaged", str(exc), object=_name(objects, base), **_FIXED)]
    position = info.position
    async with objects.contents(after) as contents:
        async for entry, data in contents:
            try:
                if isinstance(data, Exception):
                    raise data
                record, reached = await objects.caller.disk(decode, data)
                check_follows(record, position)
            except (JournalDamaged, ObjectNotFound) as exc:
                name = _name(objects, entry)
                return [Finding("journal_damaged", str(exc), object=name, **_FIXED)]
            position = reached
    return []


def _name(objects: JournalObjects, entry: Entry) -> str:
    return entry.key.removeprefix(f"{objects.db_prefix}/")
