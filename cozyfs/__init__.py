"""cozyfs mounts the storage of a Cozy instance as a local directory.

Layers, imports point down only::

    cli            click commands, output for people, exit codes
    mount          builds the parts, runs them until unmounted
    joined         what needs the tree and the side storages: thumbnails, views of apps
    fuse           pyfuse3.Operations: kernel requests <-> vfs calls
    side           avatars, thumbnails, apps, assets: beside the files, over store alone
    vfs            what a Cozy file system means: files, drafts, directories
    index | store  SQLite tree                | objects in buckets (s3, local)
    errors, values, threads, durable            under all of them

A read goes ``Operations.read -> Files.read -> BlockCache.read -> Store.get`` (in a worker
thread). A write stays in the inode's draft until flush, fsync or the last close; then the
draft becomes a new object first, and one index transaction points the inode at it second.
"""

__version__ = "0.1.0"
