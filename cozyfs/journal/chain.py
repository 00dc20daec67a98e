"""Which journal objects are the history of the tree, where more than one claims to follow another.

A writer that was overtaken (stopped, cut off) may still send objects under its old epoch. They
follow a place that the new writer has followed already. The rule, on which every reader and
writer agrees: where two objects have the same sequence, the higher epoch holds, and of the lower
epoch all that comes after is void too. Since a new writer reads the journal to its end after it
has the lease, whatever the old one was told to be stored is below the new one's first sequence.

Pure functions of listings; the checksums that link objects are compared by those who read them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cozyfs.index.journal import Position
    from cozyfs.journal.objects import Entry


def history(entries: Iterable[Entry]) -> list[Entry]:
    """*entries* without the void ones, in order. Gaps are not looked for."""
    kept: list[Entry] = []
    for entry in sorted(entries, reverse=True):
        if not kept or entry.sequence < kept[-1].sequence:
            kept.append(entry)
    kept.reverse()
    return kept


def is_void(epoch: int, sequence: int, journal: Iterable[Entry]) -> bool:
    """Whether a newer writer's journal has this place filled with something else."""
    return any(entry.epoch > epoch and entry.sequence <= sequence for entry in journal)


def leads_elsewhere(position: Position, newer: Iterable[Entry]) -> bool:
    """Whether *position* is void, seen from the objects after it."""
    return is_void(position.epoch, position.sequence, newer)
