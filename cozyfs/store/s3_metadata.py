"""User metadata and other object facts as HTTP headers, both ways. Pure functions.

Header values are ASCII. Others travel as encoded words of RFC 2047, which is what S3 itself
answers for values that are not ASCII, so any text comes back as it was.
"""

from __future__ import annotations

import base64
import binascii
import re
from email.header import decode_header, make_header
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from cozyfs.store.base import ObjectInfo
from cozyfs.store.keys import check_metadata
from cozyfs.store.s3_xml import unquoted

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

_PREFIX = "x-amz-meta-"
_PLAIN = re.compile(r"[!-~]([ -~]*[!-~])?")


def to_headers(metadata: Mapping[str, str]) -> dict[str, str]:
    """Names in lower case, of letters, digits and ``-``; StoreError for others."""
    metadata = check_metadata(metadata)
    return {_PREFIX + name: _encoded(value) for name, value in metadata.items()}


def _encoded(value: str) -> str:
    # Two spaces in a row would be folded in the signature; "=?" would be taken as encoded.
    if not value or (_PLAIN.fullmatch(value) and "=?" not in value and "  " not in value):
        return value
    return f"=?UTF-8?B?{base64.b64encode(value.encode()).decode()}?="


def _decoded(value: str) -> str:
    if "=?" not in value:
        return value
    try:
        return str(make_header(decode_header(value)))
    except (binascii.Error, LookupError, UnicodeError, ValueError):
        return value  # written by someone else, and only alike


def object_info(key: str, headers: Mapping[str, str]) -> ObjectInfo:
    """What an answer to HEAD says."""
    return ObjectInfo(
        key=key,
        size=int(headers.get("content-length", "0")),
        etag=unquoted(headers.get("etag", "")),
        last_modified=_http_date(headers.get("last-modified", "")),
        content_type=headers.get("content-type"),
        metadata={
            name.lower()[len(_PREFIX) :]: _decoded(value)
            for name, value in headers.items()
            if name.lower().startswith(_PREFIX)
        },
    )


def _http_date(text: str) -> datetime | None:
    try:
        return parsedate_to_datetime(text)
    except ValueError:
        return None


def md5_header(md5: bytes) -> str:
    return base64.b64encode(md5).decode()


def etag_md5(etag: str, headers: Mapping[str, str]) -> bytes | None:
    """The MD5 that an ETag is, or None where it is something else: of several parts, or of an
    object that the server encrypts with KMS or the client's own key."""
    if len(etag) != 32 or not re.fullmatch(r"[0-9a-f]{32}", etag):
        return None
    if headers.get("x-amz-server-side-encryption", "").startswith("aws:kms"):
        return None
    if headers.get("x-amz-server-side-encryption-customer-algorithm"):
        return None
    return bytes.fromhex(etag)
