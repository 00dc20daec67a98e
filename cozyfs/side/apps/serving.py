"""Files of apps as answers to HTTP requests, without any server: values in, values out.

What is stored compressed is sent as it is to clients that take it, and decompressed on the way to
others. Nothing is cut: contents are streams of any length, and one that turns out other than
promised ends with an error, which a server turns into a broken connection.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cozyfs.side.apps.encoding import type_of_name
from cozyfs.side.apps.negotiation import accepts, has_etag

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from cozyfs.side.apps.files import AppFile, AppFiles

OK = 200
NOT_MODIFIED = 304

_ETAG_LENGTH = 10

_HASHED = re.compile(r"\.[0-9a-fA-F]{10,}\.")
_FOR_EVER = "max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class Request:
    """What counts of a request."""

    method: str = "GET"  # or HEAD
    headers: Mapping[str, str] = field(default_factory=dict)

    def header(self, name: str) -> str | None:
        """Names of headers are the same in any case."""
        for given, value in self.headers.items():
            if given.lower() == name.lower():
                return value
        return None


@dataclass(frozen=True, slots=True)
class Response:
    """*body* is None where there is none: to HEAD, and with 304. Else it is to be closed."""

    status: int
    headers: dict[str, str]
    body: AsyncGenerator[bytes, None] | None


async def serve(files: AppFiles, slug: str, version: str, name: str, request: Request) -> Response:
    """The answer to a request for the file *name*. Raises NotFound, StoreError."""
    return answer(await files.open(slug, version, name), request)


def answer(file: AppFile, request: Request) -> Response:
    """The answer with the content of *file*."""
    headers = {}
    if file.encoding:
        headers["Vary"] = "Accept-Encoding"
    if _HASHED.search(file.name.rpartition("/")[2]):  # another content has another name
        headers["Cache-Control"] = _FOR_EVER
    etag = f'"{file.info.etag[:_ETAG_LENGTH]}"' if file.info.etag else ""
    # A client that says how it caches wants to see the content, as on the Cozy server.
    if etag and request.header("Cache-Control") is None:
        headers["Etag"] = etag
        if has_etag(request.header("If-None-Match") or "", etag):
            return Response(NOT_MODIFIED, headers, None)
    headers["Content-Type"] = _content_type(file)
    as_stored = bool(file.encoding) and accepts(
        request.header("Accept-Encoding") or "", file.encoding
    )
    if as_stored:
        headers["Content-Encoding"] = file.encoding
    size = file.info.size if as_stored else file.size
    if size:
        headers["Content-Length"] = str(size)
    if request.method == "HEAD":
        return Response(OK, headers, None)
    return Response(OK, headers, file.raw() if as_stored else file.chunks())


def _content_type(file: AppFile) -> str:
    kept = file.info.content_type or type_of_name(file.name) or "application/octet-stream"
    if kept.partition(";")[0].strip() == "text/xml" and file.name.endswith(".svg"):
        return "image/svg+xml"
    return kept
