"""Whole instances on the move: exports, imports, and copies between instances.

An instance is a sequence of items (`items`): what it is, its directories, its files with their
versions, then what hangs on them. `source` reads items from a tree, `archive` writes them as a
tar, `tar_reader` and `zip_reader` read them from archives, `importing` makes an instance of them.
So an export is source to archive, an import is a reader to importing, a copy is source to
importing, with contents copied by the server where both are on one.

Stands on the index, the store and the documents of the vfs; no mount is needed. `cozyfs.cli` is
the one above. On trio's loop; requests and disks are in threads of `Caller`.
"""
