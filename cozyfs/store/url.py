"""fs URLs, in the Cozy server's form, and what else a store needs to be opened.

Pure functions and values; which URL counts is decided by :mod:`cozyfs.config`. Errors are
UsageErrors of one line that never repeat a key of the URL.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from cozyfs.errors import UsageError
from cozyfs.store.buckets import DEFAULT_PREFIX, check_prefix

if TYPE_CHECKING:
    from collections.abc import Mapping

_PARAMETERS = ("access_key", "secret_key", "region", "bucket_prefix", "use_ssl")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)(:\d{1,5})?")
_REGION = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class FsUrl:
    """A parsed fs URL: S3 where *host* is set, a local folder where *path* is."""

    host: str = ""  # host[:port]
    path: str = ""  # absolute
    access_key: str = field(default="", repr=False)
    secret_key: str = field(default="", repr=False)
    region: str = ""
    bucket_prefix: str = DEFAULT_PREFIX  # sanitised
    use_ssl: bool = True

    def __str__(self) -> str:
        """For logs and people: without the keys."""
        if self.path:
            return f"file://{quote(self.path)}"
        parts = [f"bucket_prefix={self.bucket_prefix}"]
        if self.region:
            parts.append(f"region={self.region}")
        if not self.use_ssl:
            parts.append("use_ssl=false")
        return f"s3://{self.host}?{'&'.join(parts)}"


def parse_fs_url(text: str) -> FsUrl:
    """``s3://host[:port]?…``, ``file:///dir`` or ``/dir``."""
    text = text.strip()
    if text.startswith("/"):
        return _local(text)
    scheme = text.partition(":")[0].lower() if ":" in text else ""
    if scheme == "s3":
        return _s3(text)
    if scheme == "file":
        return _local(unquote(urlsplit(text).path))
    if scheme in ("mem", "swift", "swift+https", "swift+http"):
        raise UsageError(f"fs.url: {scheme} storage cannot be mounted; s3:// and file:// can")
    raise UsageError("fs.url: expected s3://host?…, file:///folder or /folder")


def _local(path: str) -> FsUrl:
    if not path.startswith("/") or "\0" in path:
        raise UsageError("fs.url: a local folder is given by its absolute path, file:///folder")
    normal = os.path.normpath(path)
    if normal.strip("/") == "":
        raise UsageError("fs.url: the root folder cannot be a store")
    return FsUrl(path=normal)


def _s3(text: str) -> FsUrl:
    try:
        url = urlsplit(text)
    except ValueError as exc:
        raise UsageError("fs.url: the host is not valid") from exc
    # As the Cozy server does, a path and a user are ignored; keys there would be ignored too.
    host = url.netloc.rpartition("@")[2]
    if not _HOST.fullmatch(host) or not _port_is_valid(host):
        raise UsageError("fs.url: the host is not valid, expected s3://host[:port]?…")
    values = _parameters(url.query)
    region = values.get("region", "")
    if region and not _REGION.fullmatch(region):
        raise UsageError("fs.url: the region is not valid")
    access_key, secret_key = values.get("access_key", ""), values.get("secret_key", "")
    if bool(access_key) != bool(secret_key):
        raise UsageError("fs.url: access_key and secret_key go together")
    try:
        prefix = check_prefix(values.get("bucket_prefix", ""))
    except UsageError as exc:
        raise UsageError(f"fs.url: {exc}") from exc
    return FsUrl(
        host=host,
        access_key=access_key,
        secret_key=secret_key,
        region=region,
        bucket_prefix=prefix,
        # Exactly so on the Cozy server: whatever else stands there means TLS.
        use_ssl=values.get("use_ssl") != "false",
    )


def _port_is_valid(host: str) -> bool:
    port = re.search(r":(\d+)$", host)
    return port is None or 0 < int(port[1]) < 65536


def _parameters(query: str) -> dict[str, str]:
    values: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in _PARAMETERS:
            # Not repeated as it is: behind an unescaped "&" of a key, it is a piece of the key.
            raise UsageError(
                f"fs.url: unknown parameter; known are {', '.join(_PARAMETERS)} "
                "(in their values, write % & + as %25 %26 %2B)"
            )
        values.setdefault(name, value)
    return values


@dataclass(frozen=True, slots=True)
class Settings:
    """The ``fs`` section, resolved. Paths are of PEM files."""

    url: FsUrl
    root_ca: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    insecure_skip_validation: bool = False
    section: Mapping[str, object] = field(default_factory=dict, repr=False)
    """The whole ``fs`` section as it was read, for keys of other layers (versioning, trash)."""
