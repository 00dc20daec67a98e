-- The index of one instance: schema version 3.
--
-- This file makes a new index; cozyfs/index/database.py brings older ones up to it and knows the
-- version (PRAGMA user_version) and the mark of our files (PRAGMA application_id).
--
-- Two kinds of tables:
--   journaled  the tree itself, the same on every machine that mounts the instance. SQLite's session
--              extension records their changes, so each has an explicit PRIMARY KEY without NULLs, no
--              trigger (applying a changeset would fire it again) and no AUTOINCREMENT. A later
--              version may only append columns that have a default: older changesets still apply.
--   local      facts of this machine; never leave it.
-- JOURNALED_TABLES and LOCAL_TABLES in cozyfs/index/database.py say the same; a test compares.
--
-- Times are integers, nanoseconds since 1970 UTC. Sizes are bytes. Names are BLOBs (bytes of UTF-8;
-- cozyfs.vfs validates them), so that SQLite compares them byte by byte.

-- ------------------------------------------------------------------------------------ journaled

-- One row for each file, directory, symbolic link, fifo, socket or device.
-- The columns have the names and the order of cozyfs.values.Inode.
--   ino          1 is the root, 2 is /.cozy_trash; others from facts.ino_limit, never reused
--   doc_id       id of the Cozy document (io.cozy.files)
--   mode         st_mode: type (S_IFMT) and permission bits
--   nlink        entries pointing here; directories: 2 + subdirectories.
--                0: removed, but still open on the writing machine; dropped at its next start
--   rdev         device number; 0 for all but devices
--   size         logical; length of the target for a symbolic link; 0 for directories
--   stored       bytes in the object; less than size when holes were left out
--   atime_ns, mtime_ns, ctime_ns   as in stat(2);  btime_ns  creation
--   target       of a symbolic link; NULL for all others
--   internal_id  with doc_id names the current object; NULL: no object, size zeros
--   md5          16 raw bytes, of the whole content; NULL: not known
--   etag         of the object, opaque; NULL: no object or not known
--   extents      encoded data extents of a sparse content; NULL: dense
--   object_doc_id  the document id in the object's key; NULL: doc_id. Another one after a file was
--               renamed over an older one and took that one's document: objects never move
CREATE TABLE inodes (
    ino         INTEGER PRIMARY KEY,
    doc_id      TEXT    NOT NULL,
    mode        INTEGER NOT NULL,
    nlink       INTEGER NOT NULL,
    uid         INTEGER NOT NULL,
    gid         INTEGER NOT NULL,
    rdev        INTEGER NOT NULL,
    size        INTEGER NOT NULL,
    stored      INTEGER NOT NULL,
    atime_ns    INTEGER NOT NULL,
    mtime_ns    INTEGER NOT NULL,
    ctime_ns    INTEGER NOT NULL,
    btime_ns    INTEGER NOT NULL,
    target      BLOB,
    internal_id TEXT,
    md5         BLOB,
    etag        TEXT,
    extents     BLOB,
    object_doc_id TEXT
) STRICT;

-- Finds what start-up has to drop without reading the whole table; empty nearly always.
CREATE INDEX orphans ON inodes (ino) WHERE nlink = 0;

-- From a document, or an object, to its inode: who still uses an object that is about to be let go.
CREATE INDEX inodes_by_document ON inodes (doc_id);
CREATE INDEX inodes_by_object ON inodes (object_doc_id) WHERE object_doc_id IS NOT NULL;

-- One row for each name in a directory. The root has none.
--   parent  ino of the directory
--   name    bytes, without / and NUL
--   ino     what the name points at; a directory has exactly one entry
CREATE TABLE entries (
    parent INTEGER NOT NULL,
    name   BLOB    NOT NULL,
    ino    INTEGER NOT NULL,
    PRIMARY KEY (parent, name)
) STRICT, WITHOUT ROWID;

-- From an inode to its names: paths, "..", the check for a move into the own subtree.
CREATE INDEX entries_by_ino ON entries (ino);

-- Extended attributes of the user.
--   name   bytes with the namespace, as user.comment
CREATE TABLE xattrs (
    ino   INTEGER NOT NULL,
    name  BLOB    NOT NULL,
    value BLOB    NOT NULL,
    PRIMARY KEY (ino, name)
) STRICT, WITHOUT ROWID;

-- Fields of the Cozy document that are not columns of inodes: tags, metadata, referenced_by, ...
--   fields  a JSON object, never empty; no row: no such fields
CREATE TABLE documents (
    ino    INTEGER PRIMARY KEY,
    fields TEXT NOT NULL
) STRICT;

-- Former contents of files (io.cozy.files.versions).
--   doc_id, internal_id  of the file and of the content: the id of the version's document
--   created_ns           when it became a version: the rules of cleaning go by it
--   updated_ns           mtime of the content
--   size, stored, md5, etag, extents, object_doc_id   as in inodes
--   fields               JSON object: tags, metadata, cozyMetadata of the version's document
CREATE TABLE versions (
    doc_id        TEXT    NOT NULL,
    internal_id   TEXT    NOT NULL,
    created_ns    INTEGER NOT NULL,
    updated_ns    INTEGER NOT NULL,
    size          INTEGER NOT NULL,
    stored        INTEGER NOT NULL,
    md5           BLOB,
    etag          TEXT,
    extents       BLOB,
    object_doc_id TEXT,
    fields        TEXT    NOT NULL,
    PRIMARY KEY (doc_id, internal_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX versions_by_object ON versions (object_doc_id) WHERE object_doc_id IS NOT NULL;

-- What was put into the trash as such; what lies deeper came along with a directory.
--   trashed_ns    when: the automatic cleaning goes by it
--   restore_path  of the directory that it was in, as /a/b
--   name          that it had there; in the trash it may have a suffix
CREATE TABLE trash (
    ino          INTEGER PRIMARY KEY,
    trashed_ns   INTEGER NOT NULL,
    restore_path BLOB    NOT NULL,
    name         BLOB    NOT NULL
) STRICT;

CREATE INDEX trash_by_time ON trash (trashed_ns);

-- Objects that the tree no longer needs, to be deleted from the bucket after the retention.
--   doc_id, internal_id  name the object; the internal id '-' names none: what is to be deleted is
--                        only what a Cozy keeps beside the document (its thumbnails); nor does
--                        '-images': the document was a note, and its images go with it
--   queued_ns            when it was last let go: the retention counts from here
CREATE TABLE deletions (
    doc_id      TEXT    NOT NULL,
    internal_id TEXT    NOT NULL,
    queued_ns   INTEGER NOT NULL,
    PRIMARY KEY (doc_id, internal_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX deletions_by_time ON deletions (queued_ns);

-- Facts about the tree as a whole.
--   ino_limit  every inode number below it may have been given out; numbers are reserved in blocks,
--              so that a create does not have to write here, and the rest of a block is lost at close
--   contents_since_ns  when the last one was let go of the objects that were deleted from the
--              store: trees from before it have lost contents; no row: no object was ever deleted
CREATE TABLE facts (
    name  TEXT    NOT NULL PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- ---------------------------------------------------------------------------------------- local

-- Open contents that are not objects yet; the staging file lives beside the index.
-- A row outlives its inode: it still names a staging file to be removed.
--   record  encoded by cozyfs.vfs
CREATE TABLE drafts (
    ino    INTEGER PRIMARY KEY,
    record BLOB NOT NULL
) STRICT;

-- What this machine remembers between mounts.
CREATE TABLE settings (
    name  TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Changes of the journaled tables that are not in the journal of the bucket yet: one row for each
-- transaction that made any, written by that transaction. Empty where nothing is recorded.
--   seq        in the order of the transactions; counted on while the file is open
--   changeset  as the session extension writes it
CREATE TABLE outbox (
    seq       INTEGER PRIMARY KEY,
    changeset BLOB NOT NULL
) STRICT;
