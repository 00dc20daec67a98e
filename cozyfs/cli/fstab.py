"""What may stand behind ``-o``: a comma list, as in fstab(5).

Three kinds: options that the kernel or libfuse understand (passed on), options that mount(8)
itself acts on (accepted, without effect here), and options of ``cozyfs mount`` itself, so that
a line of fstab can carry them. Anything else is refused: an option that is silently dropped is
found out too late.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from cozyfs.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

PASSED_ON = frozenset(
    (
        "allow_other", "allow_root", "suid", "nosuid", "dev", "nodev", "exec", "noexec",
        "noatime", "nodiratime", "sync", "dirsync",
    )
)  # fmt: skip
# mount(8)'s own, and those that already describe how cozyfs behaves (atime is not kept).
WITHOUT_EFFECT = frozenset(
    (
        "defaults", "async", "auto", "noauto", "user", "nouser", "users", "owner", "group",
        "nofail", "_netdev", "relatime", "norelatime", "strictatime", "nostrictatime",
        "lazytime", "nolazytime", "atime", "diratime", "subtype", "comment",
    )
)  # fmt: skip
# Name behind -o -> parameter of the mount command.
OF_COZYFS = {
    name: name
    for name in (
        "fs_url", "config", "state_dir", "org", "db_prefix", "write_buffer", "cache_size",
        "timeout", "parallel", "retention", "journal_interval", "refresh", "log_file", "log_level",
        "max_versions", "version_delay", "trash_age", "at",
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class FstabOptions:
    """Parsed ``-o``. ``settings`` holds options of ``cozyfs mount``, still as text."""

    read_only: bool | None = None
    create: bool = False
    trash: bool = True
    thumbs: bool = True
    default_permissions: bool = True
    uid: int | None = None
    gid: int | None = None
    umask: int | None = None
    fuse_options: frozenset[str] = frozenset()
    settings: Mapping[str, str] = field(default_factory=dict)


def parse(texts: tuple[str, ...]) -> FstabOptions:
    """Each text is one ``-o``. A later option wins over an earlier one, as with mount(8).
    Raises UsageError."""
    options = FstabOptions()
    for word in ",".join(texts).split(","):
        if word.strip():
            options = _with(options, word.strip())
    if {"allow_other", "allow_root"} <= options.fuse_options:
        raise UsageError("-o allow_other and -o allow_root exclude each other")
    return options


def _with(options: FstabOptions, word: str) -> FstabOptions:
    name, equals, value = word.partition("=")
    if name in OF_COZYFS or name in {"uid", "gid", "umask", "fsname"}:
        if not value:
            raise UsageError(f"-o {name} needs a value: {name}=...")
    elif name == "subtype" or name.lower().startswith("x-") or name == "comment":
        return options
    elif equals:
        raise UsageError(f"unknown mount option: {word}")

    match name:
        case "ro":
            return replace(options, read_only=True)
        case "rw":
            return replace(options, read_only=False)
        case "create":
            return replace(options, create=True)
        case "trash" | "notrash":
            return replace(options, trash=name == "trash")
        case "thumbs" | "nothumbs":
            return replace(options, thumbs=name == "thumbs")
        case "default_permissions":
            return replace(options, default_permissions=True)
        case "nodefault_permissions":
            return replace(options, default_permissions=False)
        case "uid":
            return replace(options, uid=_number(word, value, 10))
        case "gid":
            return replace(options, gid=_number(word, value, 10))
        case "umask":
            return replace(options, umask=_number(word, value, 8, 0o777))
        case "fsname":
            return _passed_on(options, word)
    if name in OF_COZYFS:
        return replace(options, settings={**options.settings, OF_COZYFS[name]: value})
    if name in PASSED_ON:
        return _passed_on(options, name)
    if name in WITHOUT_EFFECT:
        # "async" takes back an earlier "sync", "atime" an earlier "noatime".
        taken_back = {"no" + name, name.removeprefix("a")} & {"noatime", "nodiratime", "sync"}
        return replace(options, fuse_options=options.fuse_options - taken_back)
    raise UsageError(f"unknown mount option: {word}")


def _passed_on(options: FstabOptions, word: str) -> FstabOptions:
    kept = options.fuse_options
    name = word.partition("=")[0]
    opposite = name[2:] if name.startswith("no") else "no" + name
    kept -= {opposite} | {old for old in kept if old.startswith(name + "=")}
    return replace(options, fuse_options=kept | {word})


def _number(word: str, value: str, base: int, most: int = (1 << 32) - 2) -> int:
    try:
        number = int(value, base)
    except ValueError:
        number = -1
    if not 0 <= number <= most:
        kind = "an octal number up to 777" if base == 8 else "a number"
        raise UsageError(f"-o {word}: {value!r} is not {kind}")
    return number
