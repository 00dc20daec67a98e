"""Where the storage is: which fs URL counts, the ``fs`` section of a YAML file, directories.

A Cozy server's own ``cozy.yaml`` can be given as it is: only its ``fs`` section is read. What an
fs URL means is in :mod:`cozyfs.store.url`. Nothing here opens a store or asks the network.
Errors are UsageErrors of one line that never repeat a key of the URL.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from cozyfs.durations import parse_duration
from cozyfs.errors import UsageError
from cozyfs.store.url import FsUrl, Settings, parse_fs_url

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "FsUrl",
    "Settings",
    "data_dir",
    "load_settings",
    "parse_fs_url",
    "state_dir",
    "trashed_after",
]


def load_settings(
    fs_url: str | None = None,
    config: str | os.PathLike[str] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """*fs_url*, else COZYFS_FS_URL, else ``fs.url`` of the YAML file, else a folder of ours.

    The file is *config*, else COZYFS_CONFIG, else ``~/.config/cozyfs/cozyfs.yaml`` if there is
    one. Its TLS keys count wherever the URL came from.
    """
    environ = os.environ if environ is None else environ
    section = _read_section(config or environ.get("COZYFS_CONFIG") or None, environ)
    text = fs_url or environ.get("COZYFS_FS_URL") or _text(section, "url")
    if _text(section, "pinned_key"):
        raise UsageError("fs.pinned_key is not supported; use fs.root_ca with the server's own CA")
    skip = section.get("insecure_skip_validation") or False
    if not isinstance(skip, bool):
        raise UsageError("fs.insecure_skip_validation must be true or false")
    return Settings(
        url=parse_fs_url(text) if text else FsUrl(path=str(data_dir(environ) / "storage")),
        root_ca=_text(section, "root_ca"),
        client_cert=_text(section, "client_cert"),
        client_key=_text(section, "client_key"),
        insecure_skip_validation=skip,
        section=section,
    )


def _read_section(
    config: str | os.PathLike[str] | None, environ: Mapping[str, str]
) -> Mapping[str, object]:
    path = Path(config) if config else _home(environ, "XDG_CONFIG_HOME", ".config") / "cozyfs.yaml"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if config is None:
            return {}
        raise UsageError(f"{path}: no such file") from None
    except OSError as exc:
        raise UsageError(f"{path}: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise UsageError(f"{path}: not UTF-8") from exc
    except yaml.YAMLError as exc:
        mark = getattr(exc, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise UsageError(f"{path}: not valid YAML{line}") from exc
    section = content.get("fs") if isinstance(content, dict) else None
    if section is None:
        return {}
    if not isinstance(section, dict):
        raise UsageError(f"{path}: 'fs' must be a section")
    return section


def trashed_after(section: Mapping[str, object], context: str) -> float | None:
    """Seconds after which what is in the trash is removed in instances of *context*, by the key
    ``auto_clean_trashed_after`` of the section ``fs``; None where it does not say. UsageError."""
    contexts = section.get("auto_clean_trashed_after")
    if contexts is None:
        return None
    if not isinstance(contexts, dict):
        raise UsageError("fs.auto_clean_trashed_after must be a section: context to duration")
    text = contexts.get(context)
    if text is None:
        return None
    seconds = parse_duration(str(text))
    if seconds is None:
        raise UsageError(
            f"fs.auto_clean_trashed_after: {text!r} is not a duration such as 30D, 2W or 3M"
        )
    return seconds


def _text(section: Mapping[str, object], key: str) -> str | None:
    value = section.get(key)
    if value is not None and not isinstance(value, str):
        raise UsageError(f"fs.{key} must be a text")
    return value or None


def _home(environ: Mapping[str, str], variable: str, default: str) -> Path:
    """The cozyfs folder of an XDG base directory; relative values are to be ignored (XDG)."""
    base = environ.get(variable, "")
    if not base.startswith("/"):
        base = os.path.join(environ.get("HOME") or os.path.expanduser("~"), default)
    return Path(base) / "cozyfs"


def data_dir(environ: Mapping[str, str] | None = None) -> Path:
    """Where the default local store is: ``/var/lib/cozyfs`` for root, else the XDG data home."""
    environ = os.environ if environ is None else environ
    if os.geteuid() == 0:
        return Path("/var/lib/cozyfs")
    return _home(environ, "XDG_DATA_HOME", ".local/share")


def state_dir(
    explicit: str | os.PathLike[str] | None = None, *, environ: Mapping[str, str] | None = None
) -> Path:
    """*explicit*, else COZYFS_STATE_DIR, else ``/var/lib/cozyfs`` for root and the XDG state
    home for others; created, for its owner alone, where it is missing."""
    environ = os.environ if environ is None else environ
    chosen = explicit or environ.get("COZYFS_STATE_DIR")
    if chosen:
        path = Path(chosen).absolute()
    elif os.geteuid() == 0:
        path = Path("/var/lib/cozyfs")
    else:
        path = _home(environ, "XDG_STATE_HOME", ".local/state")
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise UsageError(f"{path}: the state directory cannot be made: {exc.strerror}") from exc
    return path
