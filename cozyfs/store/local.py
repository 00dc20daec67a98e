"""The store contract in a folder of this machine: ``file:///dir``.

::

    <root>/.cozyfs-store                    marks the folder as ours (`cozyfs.store.local_root`)
    <root>/<bucket>/<key's path>            objects (paths: `cozyfs.store.local_names`)
    <root>/<bucket>/.cozyfs-meta/<path>     their type, metadata and ETag, as JSON
    <root>/<bucket>/.cozyfs-uploads/<id>/   multipart uploads: info.json, and parts by number-MD5
    <root>/<bucket>/.cozyfs-tmp/            what is being written
    <root>/<bucket>/.cozyfs-locks/          lock files; a key's is found by its hash

An object is written beside the tree, synced, and renamed into it, so a reader sees the old or
the new one whole. Its JSON is renamed into place first, both under the key's lock; it names the
size and mtime of its object and counts for nothing when they do not agree, as after a crash
between the two renames. Blocking; any number of threads and processes at once.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import zlib
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from cozyfs.errors import (
    BucketNotFound,
    ChecksumMismatch,
    ObjectNotFound,
    PreconditionFailed,
    StoreError,
)
from cozyfs.store import local_root
from cozyfs.store.base import (
    MAX_PARTS,
    MAX_PUT_SIZE,
    MIN_PART_SIZE,
    Body,
    ObjectInfo,
    PendingUpload,
)
from cozyfs.store.body import BytesBody
from cozyfs.store.keys import check_metadata
from cozyfs.store.local_files import (
    copy_range,
    locked,
    md5_of_file,
    move_into_place,
    opened,
    read_range,
    remove_with_empty_folders,
    sync_folder,
    translated,
    write_all,
)
from cozyfs.store.local_names import OWN_PREFIX, is_bucket_name, key_part, relative_path
from cozyfs.store.multipart import composite_etag

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

DEFAULT_TYPE = "application/octet-stream"

_META = OWN_PREFIX + b"meta"
_UPLOADS = OWN_PREFIX + b"uploads"
_TMP = OWN_PREFIX + b"tmp"
_LOCKS = OWN_PREFIX + b"locks"
_LOCK_COUNT = 64


class _Facts(NamedTuple):
    """What the sidecar of an object keeps."""

    etag: str
    content_type: str
    metadata: Mapping[str, str]


class LocalStore:
    """Objects below *root*, which is made when it is missing or empty, and refused with a
    UsageError when it holds anything else than a store of ours. Without *durable*, what was
    written survives the end of the process but maybe not that of the machine."""

    def __init__(self, root: str | os.PathLike[str], *, durable: bool = True) -> None:
        path = os.path.abspath(root)
        local_root.claim(path)
        self._root = os.fsencode(path)
        self._durable = durable
        self.description = f"local folder {path}"

    def close(self) -> None:
        pass

    # ---- buckets

    def check(self) -> None:
        local_root.check(os.fsdecode(self._root))

    def ensure_bucket(self, bucket: str) -> None:
        if not is_bucket_name(bucket):
            raise StoreError("this is not a valid bucket name")
        folder = os.path.join(self._root, bucket.encode())
        with translated():
            for own in (_META, _UPLOADS, _LOCKS, _TMP):
                os.makedirs(os.path.join(folder, own), exist_ok=True)
            self._sync({folder, self._root})

    def list_buckets(self) -> list[str]:
        with translated(), os.scandir(os.fsdecode(self._root)) as entries:
            names = [entry.name for entry in entries if entry.is_dir()]
        return sorted(filter(is_bucket_name, names))

    def _folder(self, bucket: str) -> bytes:
        """The folder of a bucket that exists; else BucketNotFound."""
        folder = os.path.join(self._root, bucket.encode())
        if not is_bucket_name(bucket) or not os.path.isdir(os.path.join(folder, _TMP)):
            raise BucketNotFound("the bucket is not in the storage")
        return folder

    def _folder_to_read(self, bucket: str) -> bytes:
        try:
            return self._folder(bucket)
        except BucketNotFound as exc:
            raise ObjectNotFound("the object is not in the storage") from exc

    # ---- reading

    def head(self, bucket: str, key: str) -> ObjectInfo:
        path = relative_path(key)
        return self._info(self._folder_to_read(bucket), path, key)

    def get(self, bucket: str, key: str, start: int = 0, stop: int | None = None) -> bytes:
        path = relative_path(key)
        with translated(), opened(os.path.join(self._folder_to_read(bucket), path)) as fd:
            size = os.fstat(fd).st_size
            return read_range(fd, start, size if stop is None else min(stop, size))

    def list(self, bucket: str, prefix: str = "", start_after: str = "") -> Iterator[ObjectInfo]:
        try:
            folder = self._folder(bucket)
        except BucketNotFound:
            return
        for key in _keys(folder, b"", b"", prefix.encode(), start_after.encode()):
            with suppress(ObjectNotFound):  # deleted meanwhile
                yield self._listed(folder, relative_path(key), key)

    def list_prefixes(self, bucket: str, prefix: str = "") -> Iterator[str]:
        try:
            folder = self._folder(bucket)
            base = prefix[: prefix.rfind("/") + 1].encode()
            path = os.path.dirname(relative_path(base.decode() + "_"))
        except StoreError:  # no bucket, or a prefix that no key can have
            return
        for key, name, is_folder in _entries(folder, path, base):
            if is_folder and key.startswith(prefix.encode()):
                below = _keys(folder, os.path.join(path, name), key, b"", b"")
                if next(below, None) is not None:  # a folder left over by a crash is none
                    yield key.decode()

    def _listed(self, folder: bytes, path: bytes, key: str) -> ObjectInfo:
        """As much of :meth:`head` as a listing tells, without opening the object if possible."""
        with translated():
            status = os.lstat(os.path.join(folder, path))
            facts = _read_sidecar(os.path.join(folder, _META, path), status)
        if facts is None:
            info = self._info(folder, path, key)
            return ObjectInfo(info.key, info.size, info.etag, info.last_modified)
        modified = datetime.fromtimestamp(status.st_mtime, UTC)
        return ObjectInfo(key, status.st_size, facts.etag, modified)

    def _info(self, folder: bytes, path: bytes, key: str) -> ObjectInfo:
        with translated(), opened(os.path.join(folder, path)) as fd:
            status = os.fstat(fd)
            facts = _read_sidecar(os.path.join(folder, _META, path), status)
            if facts is None:
                facts = _Facts(md5_of_file(fd).hex(), DEFAULT_TYPE, {})
        return ObjectInfo(
            key=key,
            size=status.st_size,
            etag=facts.etag,
            last_modified=datetime.fromtimestamp(status.st_mtime, UTC),
            content_type=facts.content_type,
            metadata=facts.metadata,
        )

    # ---- writing

    def put(
        self,
        bucket: str,
        key: str,
        body: Body | bytes,
        *,
        md5: bytes | None = None,
        content_type: str = DEFAULT_TYPE,
        metadata: Mapping[str, str] | None = None,
        if_absent: bool = False,
        if_match: str | None = None,
    ) -> str:
        path = relative_path(key)
        folder = self._folder(bucket)
        with self._temporary(folder) as (temporary, fd):
            etag = self._receive(fd, body, md5)
            facts = _Facts(etag, content_type, check_metadata(metadata or {}))
            with self._commit(folder, path, temporary, fd, facts):
                if if_absent and os.path.lexists(os.path.join(folder, path)):
                    raise PreconditionFailed("another object is in place")
                if if_match is not None and not self._matches(folder, path, if_match):
                    raise PreconditionFailed("another object is in place")
        return etag

    def _matches(self, folder: bytes, path: bytes, etag: str) -> bool:
        try:
            return self._info(folder, path, "").etag == etag
        except ObjectNotFound:
            return False

    def copy(self, bucket: str, source_key: str, target_bucket: str, target_key: str) -> str:
        source = self.head(bucket, source_key)
        facts = _Facts(source.etag, source.content_type or DEFAULT_TYPE, source.metadata)
        folder = self._folder(target_bucket)
        source_path = os.path.join(self._folder(bucket), relative_path(source_key))
        with (
            translated(),
            opened(source_path) as source_fd,
            self._temporary(folder) as (temporary, fd),
        ):
            if copy_range(source_fd, 0, source.size, fd) != source.size:
                raise StoreError("the object changed while it was copied")
            with self._commit(folder, relative_path(target_key), temporary, fd, facts):
                pass
        return source.etag

    @contextmanager
    def _temporary(self, folder: bytes) -> Iterator[tuple[bytes, int]]:
        """(path, descriptor) of a new file; removed unless it was moved away."""
        path = os.path.join(folder, _TMP, secrets.token_hex(8).encode())
        with translated():
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            yield path, fd
        finally:
            os.close(fd)
            with suppress(FileNotFoundError):
                os.unlink(path)

    def _receive(self, fd: int, body: Body | bytes, md5: bytes | None) -> str:
        """Writes *body*; the hexadecimal MD5 of what was written."""
        body = BytesBody(body) if isinstance(body, bytes) else body
        if body.size > MAX_PUT_SIZE:
            raise StoreError("more than 5 GiB cannot be sent in one request")
        digest = hashlib.md5(usedforsecurity=False)
        with translated():
            for chunk in body.chunks():
                digest.update(chunk)
                write_all(fd, chunk)
            if os.fstat(fd).st_size != body.size:
                raise StoreError("the staged data are not as long as they should be")
        if md5 is not None and digest.digest() != md5:
            raise ChecksumMismatch("what was stored is not what was sent")
        return digest.hexdigest()

    @contextmanager
    def _commit(
        self, folder: bytes, path: bytes, temporary: bytes, fd: int, facts: _Facts
    ) -> Iterator[None]:
        """Puts a written file in place, after the ``with`` block, which may refuse it: it runs
        under the key's lock."""
        with translated(), self._temporary(folder) as (sidecar, sidecar_fd):
            write_all(sidecar_fd, _sidecar(facts, os.fstat(fd)))
            if self._durable:
                os.fsync(fd)
                os.fsync(sidecar_fd)
            with locked(_lock_of(folder, path)):
                yield
                changed = move_into_place(sidecar, os.path.join(folder, _META, path))
                changed |= move_into_place(temporary, os.path.join(folder, path))
            self._sync(changed)

    def _sync(self, folders: set[bytes]) -> None:
        if self._durable:
            for folder in folders:
                sync_folder(folder)

    # ---- multipart uploads

    def create_multipart(
        self,
        bucket: str,
        key: str,
        *,
        content_type: str,
        metadata: Mapping[str, str] | None = None,
    ) -> str:
        relative_path(key)  # refuses now what could not be completed
        upload_id = secrets.token_hex(16)
        info = {
            "key": key,
            "content_type": content_type,
            "metadata": dict(check_metadata(metadata or {})),
            "initiated": datetime.now(UTC).isoformat(),
        }
        folder = self._folder(bucket)
        upload = os.path.join(folder, _UPLOADS, upload_id.encode())
        with self._temporary(folder) as (temporary, fd), translated():
            write_all(fd, json.dumps(info).encode())
            os.mkdir(upload)
            os.replace(temporary, os.path.join(upload, b"info.json"))
        return upload_id

    def upload_part(
        self,
        bucket: str,
        key: str,
        upload_id: str,
        number: int,
        body: Body | bytes,
        *,
        md5: bytes | None = None,
    ) -> str:
        folder = self._folder(bucket)
        upload, _ = _upload(folder, key, upload_id)
        with self._temporary(folder) as (temporary, fd), translated():
            etag = self._receive(fd, body, md5)
            os.replace(temporary, _part(upload, number, etag))
        return etag

    def copy_part(
        self,
        bucket: str,
        key: str,
        upload_id: str,
        number: int,
        source_bucket: str,
        source_key: str,
        start: int,
        stop: int,
    ) -> str:
        folder = self._folder(bucket)
        upload, _ = _upload(folder, key, upload_id)
        source = os.path.join(self._folder(source_bucket), relative_path(source_key))
        with translated(), opened(source) as source_fd, self._temporary(folder) as (temporary, fd):
            if copy_range(source_fd, start, stop - start, fd) != stop - start:
                raise StoreError("the range to copy is beyond the end of the object")
            etag = md5_of_file(fd).hex()
            os.replace(temporary, _part(upload, number, etag))
        return etag

    def complete_multipart(
        self, bucket: str, key: str, upload_id: str, parts: Sequence[tuple[int, str]]
    ) -> str:
        folder, path = self._folder(bucket), relative_path(key)
        etag = _check_parts(parts)
        try:
            upload, info = _upload(folder, key, upload_id)
        except ObjectNotFound:
            with suppress(ObjectNotFound):
                if self._info(folder, path, key).etag == etag:  # completed before
                    return etag
            raise StoreError("the upload is unknown: aborted, or completed long ago") from None
        facts = _Facts(etag, info["content_type"], info["metadata"])
        with translated(), self._temporary(folder) as (temporary, fd):
            for number, part_etag in parts:
                last = number == parts[-1][0]
                _append_part(_part(upload, number, part_etag), fd, last=last)
            with self._commit(folder, path, temporary, fd, facts):
                pass
        shutil.rmtree(upload, ignore_errors=True)
        return etag

    def abort_multipart(self, bucket: str, key: str, upload_id: str) -> None:
        with suppress(ObjectNotFound, BucketNotFound):
            upload, _ = _upload(self._folder(bucket), key, upload_id)
            shutil.rmtree(upload, ignore_errors=True)

    def list_multipart(self, bucket: str, prefix: str) -> Iterator[PendingUpload]:
        try:
            folder = self._folder(bucket)
        except BucketNotFound:
            return
        found = []
        for name in os.listdir(os.path.join(folder, _UPLOADS)):
            with suppress(ObjectNotFound):
                info = _upload_info(os.path.join(folder, _UPLOADS, name))
                if info["key"].startswith(prefix):
                    initiated = datetime.fromisoformat(info["initiated"])
                    found.append(PendingUpload(info["key"], os.fsdecode(name), initiated))
        yield from sorted(found, key=lambda upload: (upload.key.encode(), upload.upload_id))

    # ---- deleting

    def delete(self, bucket: str, key: str) -> None:
        path = relative_path(key)
        with suppress(BucketNotFound), translated():
            folder = self._folder(bucket)
            with locked(_lock_of(folder, path)):
                remove_with_empty_folders(os.path.join(folder, path), folder)
                meta = os.path.join(folder, _META)
                remove_with_empty_folders(os.path.join(meta, path), meta)

    def delete_many(self, bucket: str, keys: Iterable[str]) -> None:
        for key in keys:
            self.delete(bucket, key)

    def delete_prefix(self, bucket: str, prefix: str) -> int:
        count = 0
        for info in self.list(bucket, prefix):
            self.delete(bucket, info.key)
            count += 1
        return count


def _entries(folder: bytes, path: bytes, base: bytes) -> list[tuple[bytes, bytes, bool]]:
    """(key, name, is a folder) of what is in *path*, whose own key is *base*, in the order of the
    keys. A folder's key ends in ``/``, so that ``a/`` sorts after ``a-`` and before ``a0``."""
    found = []
    with (
        suppress(ObjectNotFound),  # removed meanwhile
        translated(),
        suppress(NotADirectoryError),  # asked for what would be below an object
        os.scandir(os.path.join(folder, path)) as names,
    ):
        for entry in names:
            if not path and entry.name.startswith(OWN_PREFIX):
                continue
            key = base + key_part(entry.name)
            if entry.is_dir(follow_symlinks=False):
                found.append((key + b"/", entry.name, True))
            elif entry.is_file(follow_symlinks=False):
                found.append((key, entry.name, False))
    return sorted(found)


def _keys(
    folder: bytes, path: bytes, base: bytes, prefix: bytes, start_after: bytes
) -> Iterator[str]:
    """The keys in order, one folder's names in memory at a time; folders without any key that is
    asked for are not read."""
    for key, name, is_folder in _entries(folder, path, base):
        if is_folder:
            wanted = key.startswith(prefix) or prefix.startswith(key)
            if wanted and (key > start_after or start_after.startswith(key)):
                yield from _keys(folder, os.path.join(path, name), key, prefix, start_after)
        elif key.startswith(prefix) and key > start_after:
            with suppress(UnicodeDecodeError):  # a file that no key of ours has made
                yield key.decode()


def _lock_of(folder: bytes, path: bytes) -> bytes:
    return os.path.join(folder, _LOCKS, b"%d" % (zlib.crc32(path) % _LOCK_COUNT))


def _sidecar(facts: _Facts, status: os.stat_result) -> bytes:
    fields = {
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "etag": facts.etag,
        "content_type": facts.content_type,
        "metadata": dict(facts.metadata),
    }
    return json.dumps(fields).encode()


def _read_sidecar(path: bytes, status: os.stat_result) -> _Facts | None:
    """None when there is none, or it belongs to other content than *status* does."""
    try:
        with open(path, "rb") as file:
            fields = json.load(file)
        if (fields["size"], fields["mtime_ns"]) != (status.st_size, status.st_mtime_ns):
            return None
        return _Facts(fields["etag"], fields["content_type"], fields["metadata"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _upload(folder: bytes, key: str, upload_id: str) -> tuple[bytes, dict[str, Any]]:
    """(folder, info) of an upload; ObjectNotFound when there is none of this key."""
    if not re.fullmatch(r"[0-9a-f]{32}", upload_id):
        raise ObjectNotFound("the upload is unknown")
    path = os.path.join(folder, _UPLOADS, upload_id.encode())
    info = _upload_info(path)
    if info["key"] != key:
        raise ObjectNotFound("the upload is unknown")
    return path, info


def _upload_info(path: bytes) -> dict[str, Any]:
    try:
        with open(os.path.join(path, b"info.json"), "rb") as file:
            info: dict[str, Any] = json.load(file)
            return info
    except (OSError, ValueError) as exc:
        raise ObjectNotFound("the upload is unknown") from exc


def _part(upload: bytes, number: int, etag: str) -> bytes:
    if not 1 <= number <= MAX_PARTS:
        raise StoreError(f"an upload has parts 1 to {MAX_PARTS}, not {number}")
    return os.path.join(upload, f"{number:05d}-{etag}".encode())


def _check_parts(parts: Sequence[tuple[int, str]]) -> str:
    """The ETag to be; StoreError for a list that no upload can have."""
    numbers = [number for number, _ in parts]
    if not numbers or numbers != sorted(set(numbers)):
        raise StoreError("the parts of an upload are missing or out of order")
    if not all(re.fullmatch(r"[0-9a-f]{32}", etag) for _, etag in parts):
        raise StoreError("a part of the upload was never sent")
    return composite_etag([bytes.fromhex(etag) for _, etag in parts])


def _append_part(path: bytes, target: int, *, last: bool) -> None:
    try:
        with opened(path) as fd:
            size = os.fstat(fd).st_size
            if size < MIN_PART_SIZE and not last:  # as S3 does
                raise StoreError("a part of the upload is smaller than 5 MiB")
            if copy_range(fd, 0, size, target) != size:
                raise StoreError("a part of the upload is damaged")
    except FileNotFoundError as exc:
        raise StoreError("a part of the upload was never sent") from exc
