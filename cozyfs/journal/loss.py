"""What of a journal is lost when a tree goes on from where it is, told for people.

Pure functions of listings: what is damaged cannot say anything itself. Times are the store's.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cozyfs.journal.chain import history, is_void

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cozyfs.index.journal import Position
    from cozyfs.journal.objects import Entry


@dataclass(frozen=True, slots=True)
class Loss:
    """Nothing is lost where *objects* is 0 and the tree is not *whole*ly lost."""

    objects: int  # of the journal: damaged, missing, or after one that is
    since: datetime | None  # when the last that is not lost was stored; of all: the first lost
    until: datetime | None  # when the last that is lost was stored
    whole: bool = False  # no snapshot can be read

    def __bool__(self) -> bool:
        return self.whole or self.objects > 0

    def __str__(self) -> str:
        count = f"{self.objects} journal object{'' if self.objects == 1 else 's'}"
        what = f"the whole tree and {count}" if self.whole else count
        return f"{what}, the changes from {_text(self.since)} to {_text(self.until)}"


def measured(position: Position | None, snapshots: list[Entry], journal: list[Entry]) -> Loss:
    """Of everything that the bucket lists, what is not in a tree at *position*; None: nothing
    is in the tree."""
    objects = history(journal)
    known = objects + [s for s in snapshots if not is_void(s.epoch, s.sequence, journal)]
    if position is None:
        return Loss(len(objects), _first(known), _last(known), whole=True)
    lost = [entry for entry in known if entry.sequence > position.sequence]
    there = [entry for entry in known if entry.sequence <= position.sequence]
    # By sequence: what is missing is counted too, as far as anything after it is there.
    end = max((entry.sequence for entry in lost), default=position.sequence)
    newest = max((entry.sequence for entry in there), default=0)
    since = _first(entry for entry in there if entry.sequence == newest)
    return Loss(end - position.sequence, since, _last(lost))


def _first(entries: Iterable[Entry]) -> datetime | None:
    return min((e.last_modified for e in entries if e.last_modified is not None), default=None)


def _last(entries: Iterable[Entry]) -> datetime | None:
    return max((e.last_modified for e in entries if e.last_modified is not None), default=None)


def _text(moment: datetime | None) -> str:
    if moment is None:
        return "an unknown time"
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
