"""The tree of an instance for somebody who only asks: no lease, no mount, nothing is changed.

The tree on this machine is used where the journal in the bucket does not know more; else a copy is
restored from the bucket, into a folder that goes away again.
"""

from __future__ import annotations

import contextlib
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from cozyfs.errors import InstanceError, JournalDamaged
from cozyfs.index import Index
from cozyfs.journal import JournalObjects, restore

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from cozyfs.state import InstanceState
    from cozyfs.store.base import Store
    from cozyfs.values import Instance


@contextlib.asynccontextmanager
async def newest_tree(
    instance: Instance, store: Store, state: InstanceState
) -> AsyncGenerator[Index, None]:
    """The tree of *instance*, to be read only. *state* need not exist. Raises InstanceError where
    there is none, JournalDamaged, StoreError, NoSpace."""
    objects = JournalObjects(store, instance.bucket, instance.db_prefix)
    with contextlib.ExitStack() as ends:
        index = await _local(objects, state, store.description)
        if index is None:
            folder = ends.enter_context(tempfile.TemporaryDirectory(prefix="cozyfs-"))
            index = await _restored(instance, objects, Path(folder) / "index.db")
        ends.enter_context(index)
        yield index


async def _local(objects: JournalObjects, state: InstanceState, store: str) -> Index | None:
    """The tree on this machine; None where it cannot be used."""
    if not state.index_path.exists() or not state.belongs_to(store):
        return None
    with suppress(InstanceError):  # of another version, or damaged: the bucket has it
        index = Index.open(state.index_path, read_only=True)
        try:
            if not await objects.journal_after(index.position):
                return index
        except BaseException:
            index.close()
            raise
        index.close()
    return None


async def _restored(instance: Instance, objects: JournalObjects, path: Path) -> Index:
    restored = await restore(objects, path)
    if restored is None:
        raise InstanceError(f"{instance.domain} has no tree yet: mount it for writing once")
    if not restored.is_complete:
        raise JournalDamaged(
            f"the tree of {instance.domain} cannot be restored as a whole:"
            f" {'; '.join(restored.problems)}"
        )
    return Index.open(path, read_only=True)
