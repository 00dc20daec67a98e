"""The journal of an instance in its bucket: written, followed, and turned into a tree again.

Above `cozyfs.index` and `cozyfs.store`, below the mount, beside `cozyfs.vfs`. What the layer above
uses is named in ``__all__``. In the order of a writer's life:

1. :func:`restore` where this machine has no tree;
2. :func:`take` the lease, above :meth:`JournalObjects.highest_epoch`;
3. :meth:`Follower.refresh`, since another machine may have written;
4. ``index.start_recording()``, :meth:`Snapshotter.ensure_first`: the journal has a start;
5. :meth:`Lease.keep`, :meth:`JournalWriter.run` and :meth:`Snapshotter.run` as tasks of the mount.
"""

from cozyfs.journal.follow import Follower
from cozyfs.journal.lease import Lease, LeaseRecord, Owner, take
from cozyfs.journal.objects import JournalObjects
from cozyfs.journal.past import Past, RestoredAt
from cozyfs.journal.restore import RestoredTo, restore
from cozyfs.journal.snapshots import Snapshotter
from cozyfs.journal.writer import JournalWriter

__all__ = [
    "Follower",
    "JournalObjects",
    "JournalWriter",
    "Lease",
    "LeaseRecord",
    "Owner",
    "Past",
    "RestoredAt",
    "RestoredTo",
    "Snapshotter",
    "restore",
    "take",
]
