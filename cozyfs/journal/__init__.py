"""The journal of an instance in its bucket: written, followed, and turned into a tree again.

Above `cozyfs.index` and `cozyfs.store`, below the mount, beside `cozyfs.vfs`. What the layer above
uses is named in ``__all__``. In the order of a writer's life:

1. :func:`restore` where this machine has no tree;
2. :func:`take` the lease, above :meth:`JournalObjects.highest_epoch`; :meth:`Lease.keep` from now
   on;
3. :meth:`Follower.refresh`, since another machine may have written; :meth:`Rejoiner.rejoin` where
   the journal cannot be followed any more;
4. ``index.start_recording()``, :meth:`Snapshotter.ensure_first`: the journal has a start;
5. :meth:`JournalWriter.run` and :meth:`Snapshotter.run` as tasks of the mount.
"""

from cozyfs.journal.follow import Follower
from cozyfs.journal.lease import Lease, LeaseRecord, Owner, take
from cozyfs.journal.loss import Loss
from cozyfs.journal.objects import JournalObjects
from cozyfs.journal.past import Past, RestoredAt
from cozyfs.journal.rejoin import Rejoiner
from cozyfs.journal.restore import RestoredTo, restore
from cozyfs.journal.snapshots import Snapshotter
from cozyfs.journal.writer import JournalWriter

__all__ = [
    "Follower",
    "JournalObjects",
    "JournalWriter",
    "Lease",
    "LeaseRecord",
    "Loss",
    "Owner",
    "Past",
    "Rejoiner",
    "RestoredAt",
    "RestoredTo",
    "Snapshotter",
    "restore",
    "take",
]
