"""Where the content of a new asset comes from: a file of this machine, or an HTTP server.

Blocking. What is fetched is held in memory, at most ``MAX_ASSET_SIZE`` of it.
"""

from __future__ import annotations

import logging
import re
import time
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import urllib3

from cozyfs.errors import SideError, TooLarge, UsageError

if TYPE_CHECKING:
    from urllib3.response import BaseHTTPResponse

log = logging.getLogger(__name__)

MAX_ASSET_SIZE = 50 << 20
"""Bytes. The Cozy server has no limit; this one is that of the files of its applications."""

FETCH_TIMEOUT_S = 30.0
_SILENCE_S = 10.0
_REDIRECTS = 10
_BLOCK = 64 << 10


def fetch(source: str) -> bytes:
    """The content of *source*: a path, or a URL with ``file``, ``http`` or ``https``. Raises
    UsageError for another scheme, TooLarge, OSError for the file, SideError for the server."""
    url = re.match(r"(file):|(https?)://|([A-Za-z][A-Za-z0-9+.-]*)://", source, re.IGNORECASE)
    if url is None:
        return _read_file(source)
    if url[1]:
        return _read_file(_path_of(source))
    if url[2]:
        return _download(source)
    raise UsageError(f"an asset cannot be taken from {url[3]}://; http, https and file can")


def _path_of(source: str) -> str:
    parts = urlsplit(source)
    if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
        raise UsageError(f"{source} does not name a file of this machine: expected file:///PATH")
    return unquote(parts.path)


def _read_file(path: str) -> bytes:
    with open(path, "rb") as file:
        data = file.read(MAX_ASSET_SIZE + 1)
    return _checked(data, path)


def _checked(data: bytes, where: str) -> bytes:
    if len(data) > MAX_ASSET_SIZE:
        raise TooLarge(f"{where} has more than the {MAX_ASSET_SIZE} bytes that an asset can have")
    return data


def _download(url: str) -> bytes:
    """200 only, redirects followed, all within the time-out but for one last silence."""
    try:
        parts = urlsplit(url)
        urllib3.util.parse_url(url)
    except ValueError as exc:
        raise UsageError("the URL of the asset is not valid") from exc
    if not parts.hostname:
        raise UsageError("the URL of the asset names no host")
    where = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    deadline = time.monotonic() + FETCH_TIMEOUT_S
    with urllib3.PoolManager(
        headers={"User-Agent": "cozyfs", "Accept-Encoding": "identity"},
        timeout=urllib3.Timeout(connect=_SILENCE_S, read=_SILENCE_S),
        retries=urllib3.Retry(total=_REDIRECTS, connect=0, read=0, status=0, other=0),
    ) as http:
        try:
            answer = http.request("GET", url, preload_content=False)
            try:
                if answer.status != 200:
                    raise SideError(f"{where} answered {answer.status} instead of the asset")
                return _checked(_body(answer, deadline, where), where)
            finally:
                answer.close()
        except urllib3.exceptions.HTTPError as exc:
            log.debug("fetching an asset: %r", exc)
            raise SideError(f"the asset cannot be fetched from {where}: {_reason(exc)}") from exc


def _body(answer: BaseHTTPResponse, deadline: float, where: str) -> bytes:
    data = bytearray()
    while len(data) <= MAX_ASSET_SIZE:
        if time.monotonic() > deadline:
            raise SideError(f"{where} took longer than {FETCH_TIMEOUT_S:.0f} s for the asset")
        # Not read(): it would go on for as long as a slow server sends a little now and then.
        block = answer.read1(_BLOCK)
        if not block:
            break
        data += block
    return bytes(data)


def _reason(error: urllib3.exceptions.HTTPError) -> str:
    cause = error.reason if isinstance(error, urllib3.exceptions.MaxRetryError) else error
    match cause:
        case urllib3.exceptions.NameResolutionError():
            return "its name is not known"
        case urllib3.exceptions.SSLError():
            return "its certificate is not trusted, or it speaks no TLS"
        case urllib3.exceptions.NewConnectionError():  # a TimeoutError too, by its classes
            return "no connection"
        case urllib3.exceptions.TimeoutError():
            return "no answer in time"
        case urllib3.exceptions.ResponseError():
            return "too many redirects"
    return "the connection was cut, or this is no HTTP server"
