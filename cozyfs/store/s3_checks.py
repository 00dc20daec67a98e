"""What is checked on the way out and back: lengths, ranges, ETags. Pure but for reading bodies."""

from __future__ import annotations

import re
from contextlib import closing
from typing import TYPE_CHECKING
from urllib.parse import quote

from cozyfs.errors import AccessDenied, ChecksumMismatch, StoreError, StoreUnavailable
from cozyfs.store import s3_metadata, s3_xml
from cozyfs.store.multipart import composite_etag
from cozyfs.store.s3_client import BLOCK_SIZE
from cozyfs.store.s3_errors import from_document

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from urllib3.response import BaseHTTPResponse

    from cozyfs.store.base import Body


def blocks(body: Body | bytes) -> Generator[bytes | memoryview]:
    """The body in blocks; StoreError when it turns out shorter than its size."""
    if isinstance(body, bytes):
        view = memoryview(body)
        for start in range(0, len(view), BLOCK_SIZE):
            yield view[start : start + BLOCK_SIZE]
        return
    try:
        reader = body.open()
        with closing(reader):
            left = body.size
            while left:
                block = reader.read(min(left, BLOCK_SIZE))
                if not block:
                    raise StoreError("the staged data are shorter than they should be")
                left -= len(block)
                yield block
    except OSError as exc:
        raise StoreError(f"the staged data cannot be read: {exc.strerror}") from exc


def wanted_range(answer: BaseHTTPResponse, data: bytes, start: int, stop: int | None) -> bytes:
    """Exactly the range asked for, or StoreUnavailable; urllib3 has compared Content-Length."""
    given = answer.headers.get("content-range")
    # Not the status alone: rclone answers ranges with 200.
    if answer.status != 206 and given is None:
        declared = answer.headers.get("content-length")
        if declared is not None and int(declared) != len(data):
            raise StoreUnavailable("the answer of the S3 server was cut short")
        return data if start == 0 and stop is None else data[start:stop]
    match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", given or "")
    if match is None:
        raise StoreError("this is not the answer of an S3 server (no Content-Range)")
    first, last = int(match[1]), int(match[2])
    total = last + 1 if match[3] == "*" else int(match[3])
    end = total if stop is None else min(stop, total)
    if first != start or last + 1 != end or len(data) != end - start:
        raise StoreUnavailable("the S3 server answered another range than was asked for")
    return data


def compare_etag(etag: str, headers: Mapping[str, str], md5: bytes) -> None:
    stored = s3_metadata.etag_md5(etag, headers)
    if stored is not None and stored != md5:
        raise ChecksumMismatch("what the S3 server stored is not what was sent")


def expected_composite(parts: Sequence[tuple[int, str]]) -> str | None:
    """The ETag to expect, where all parts' ETags are MD5s."""
    if not all(re.fullmatch(r"[0-9a-f]{32}", etag) for _, etag in parts):
        return None
    return composite_etag([bytes.fromhex(etag) for _, etag in parts])


def etag_in(answer: BaseHTTPResponse, root: str, *, method: str = "PUT") -> str:
    """The ETag in a document, which may also be the report of a failure."""
    failure = from_document(method, answer.data, has_key=True)
    if failure is not None:
        raise failure
    return s3_xml.unquoted(s3_xml.fields(answer.data, root).get("ETag", ""))


def copy_source(bucket: str, key: str) -> str:
    return quote(f"/{bucket}/{key}")


def raise_delete_failure(codes: Sequence[str]) -> None:
    denied = sum(code == "AccessDenied" for code in codes)
    message = f"{len(codes)} objects could not be deleted"
    if denied == len(codes):
        raise AccessDenied(f"{message}: the S3 access key lacks the right to do this")
    if all(code in ("InternalError", "SlowDown", "ServiceUnavailable") for code in codes):
        raise StoreUnavailable(f"{message}: the S3 server is busy")
    raise StoreError(message)
