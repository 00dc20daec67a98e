"""Every error cozyfs raises on purpose, and the errno each one has at the mount.

::

    CozyError
    +-- UsageError                 bad input on the command line or in a configuration file
    +-- TreeError                  the tree refuses a request
    |   +-- NotFound  AlreadyExists  NotADirectory  IsADirectory  DirectoryNotEmpty
    |   +-- IllegalName  NameNotUtf8  NameTooLong  ForbiddenMove  NotPermitted  Busy
    |   +-- TooManyLinks  NoSuchAttribute  AttributeTooBig  ReadOnly  StaleHandle
    |   +-- InvalidRequest  FileTooLarge  NotAbsolute  InTrash  NotInTrash
    |   +-- QuotaExceeded  LengthMismatch
    +-- StoreError                 the object store failed or refused
    |   +-- ObjectNotFound  BucketNotFound  AccessDenied  PreconditionFailed
    |   +-- NotSupported  ChecksumMismatch  CorruptObject  StoreUnavailable  StoreFull
    +-- UploadFailed               a draft could not become an object; it is kept and retried
    +-- NoSpace                    the staging disk is full
    +-- SideError                  avatar, thumbnails, assets, previews: what is beside the files
    |   +-- NotStored  TooLarge  WrongContent  NoPicture
    +-- InstanceError              an instance is unknown, exists already, or is in use
    +-- AppRefused                 an app that cannot be installed as it is
    +-- ArchiveError               an export that is damaged, unsafe or does not fit
    +-- JournalError               the tree and its journal in the store do not fit together
    |   +-- JournalDamaged  JournalDiverged  JournalNewer  MomentGone
    +-- LeaseError                 who may write an instance
        +-- LeaseHeld  LeaseLost

Messages say what happened, to which path, and what to do. They never carry bucket names, object
keys, endpoints' answers or credentials: those go to the debug log (credentials nowhere).
"""

from __future__ import annotations

import errno


class CozyError(Exception):
    """Base of all; ``errno`` is what a request at the mount gets."""

    errno: int = errno.EIO


class UsageError(CozyError):
    """Bad input from a person: exit code 2 on the command line."""

    errno = errno.EINVAL


# ---- the tree


class TreeError(CozyError):
    """A request the tree refuses."""


class NotFound(TreeError):
    errno = errno.ENOENT


class AlreadyExists(TreeError):
    errno = errno.EEXIST


class NotADirectory(TreeError):
    errno = errno.ENOTDIR


class IsADirectory(TreeError):
    errno = errno.EISDIR


class DirectoryNotEmpty(TreeError):
    errno = errno.ENOTEMPTY


class IllegalName(TreeError):
    errno = errno.EINVAL


class NameNotUtf8(TreeError):
    # Not EINVAL: EILSEQ is what file systems with a character set answer (see open(2) on vfat).
    errno = errno.EILSEQ


class NameTooLong(TreeError):
    errno = errno.ENAMETOOLONG


class ForbiddenMove(TreeError):
    """A directory into itself or below."""

    errno = errno.EINVAL


class NotPermitted(TreeError):
    errno = errno.EPERM


class Busy(TreeError):
    """The root or the trash would be removed or replaced."""

    errno = errno.EBUSY


class TooManyLinks(TreeError):
    errno = errno.EMLINK


class NoSuchAttribute(TreeError):
    errno = errno.ENODATA


class AttributeTooBig(TreeError):
    errno = errno.ERANGE


class ReadOnly(TreeError):
    errno = errno.EROFS


class StaleHandle(TreeError):
    errno = errno.EBADF


class InvalidRequest(TreeError):
    errno = errno.EINVAL


class NotAbsolute(TreeError):
    """A path that does not start at the root of the instance."""

    errno = errno.EINVAL


class InTrash(TreeError):
    """Something new would be made in the trash."""

    # Not EROFS: what lies in the trash may be changed, moved and removed.
    errno = errno.EPERM


class NotInTrash(TreeError):
    """Only what lies in the trash can be restored or destroyed."""

    errno = errno.EINVAL


class FileTooLarge(TreeError):
    """Beyond 5 TiB, the largest object that S3 keeps."""

    errno = errno.EFBIG


class QuotaExceeded(TreeError):
    """The instance has no room for it; what was there before stays."""

    errno = errno.EDQUOT


class LengthMismatch(TreeError):
    """A content is longer or shorter than it was said to be."""

    errno = errno.EINVAL


# ---- the store


class StoreError(CozyError):
    """The store answered with an error that trying again does not mend."""


class ObjectNotFound(StoreError):
    # The index promised an object that the store does not have: not ENOENT, the name exists.
    errno = errno.EIO


class BucketNotFound(StoreError):
    pass


class AccessDenied(StoreError):
    """Wrong keys or missing rights."""


class PreconditionFailed(StoreError):
    """A conditional PUT found another object, or none, in place."""


class NotSupported(StoreError):
    """This server does not offer the call; the caller has another way."""

    errno = errno.ENOTSUP


class ChecksumMismatch(StoreError):
    """Bytes sent or received differ from their MD5: worth trying again."""


class CorruptObject(StoreError):
    """An object differs from what the index says of it, on every attempt."""


class StoreUnavailable(StoreError):
    """Connection errors, time-outs, 429 and 5xx: worth trying again."""


class StoreFull(StoreError):
    errno = errno.ENOSPC


# ---- drafts and instances


class UploadFailed(CozyError):
    """The old content stays in place; the draft is kept in the state directory and retried."""


class NoSpace(CozyError):
    errno = errno.ENOSPC


class InstanceError(CozyError):
    """An instance is unknown, exists already, is in use, or its index is elsewhere."""


class AppRefused(CozyError):
    """The source of an app is unsafe, damaged, too large, or not what it should be."""

    errno = errno.EINVAL


class ArchiveError(CozyError):
    """An archive of an instance that is damaged, cut short, unsafe, of another kind, or not for
    this instance."""

    errno = errno.EINVAL


# ---- what is stored beside the files


class SideError(CozyError):
    """An avatar, a thumbnail, an asset or a preview cannot be had or is not accepted."""


class NotStored(SideError):
    """There is none."""

    errno = errno.ENOENT


class TooLarge(SideError):
    """More bytes than things of this kind may have."""

    errno = errno.EFBIG


class WrongContent(SideError):
    """Its checksum or its type is not the one that was promised."""

    errno = errno.EINVAL


class NoPicture(SideError):
    """No picture can be made of a file: it is damaged, too large, or of no known format."""


# ---- the journal and the lease


class JournalError(CozyError):
    """The tree on this machine and its journal in the store do not fit together."""


class JournalDamaged(JournalError):
    """A journal object or a snapshot is missing, unreadable, or does not fit the tree."""


class JournalDiverged(JournalError):
    """This machine has changes that were never stored, and another one has written since."""


class JournalNewer(JournalError):
    """A newer cozyfs has written what this one cannot read: nothing is damaged."""


class MomentGone(JournalError):
    """The tree, or some content, of that moment is in the store no more, or was not yet."""


class LeaseError(CozyError):
    """The right to write an instance, which one mount at a time has."""


class LeaseHeld(LeaseError):
    """Another mount has it."""

    errno = errno.EBUSY


class LeaseLost(LeaseError):
    """Another mount has taken it, or may have: nothing is written here any more."""

    # As a disk that was remounted read-only after an error: reading goes on.
    errno = errno.EROFS
