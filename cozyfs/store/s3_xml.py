"""The XML documents of the S3 API that the store reads and writes. Pure functions.

minio has parsers of its own; a listing of a million keys spends most of its time there, and
they take any document for a success. These are a few times faster and refuse what is not the
document asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import unquote_plus
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from cozyfs.errors import StoreError
from cozyfs.store.base import ObjectInfo, PendingUpload

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True, slots=True)
class Page:
    """One answer to a listing; *token* continues it, "" at the end."""

    objects: list[ObjectInfo]
    prefixes: list[str]
    token: str


@dataclass(frozen=True, slots=True)
class UploadsPage:
    uploads: list[PendingUpload]
    key_marker: str
    id_marker: str
    truncated: bool


def fields(body: bytes, *roots: str) -> dict[str, str]:
    """The texts of the direct children of a document that must be one of *roots*."""
    return _fields(_document(body, *roots))


def _document(body: bytes, *roots: str) -> ElementTree.Element:
    try:
        element = ElementTree.fromstring(body)
    except ElementTree.ParseError as exc:
        raise StoreError("this is not the answer of an S3 server (no XML)") from exc
    if _tag(element) not in roots:
        raise StoreError(f"this is not the answer of an S3 server ({roots[0]} expected)")
    return element


def _tag(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _fields(element: ElementTree.Element) -> dict[str, str]:
    return {child.tag.rpartition("}")[2]: child.text or "" for child in element}


def _time(text: str) -> datetime | None:
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return None
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def unquoted(etag: str) -> str:
    return etag.strip('"')


def listing(body: bytes) -> Page:
    """ListObjectsV2."""
    root = _document(body, "ListBucketResult")
    head = _fields(root)
    encoded = head.get("EncodingType") == "url"
    objects: list[ObjectInfo] = []
    prefixes: list[str] = []
    for child in root:
        tag = _tag(child)
        if tag == "Contents":
            found = _fields(child)
            key = found["Key"]
            objects.append(
                ObjectInfo(
                    key=unquote_plus(key) if encoded else key,
                    size=int(found["Size"]),
                    etag=unquoted(found.get("ETag", "")),
                    last_modified=_time(found.get("LastModified", "")),
                )
            )
        elif tag == "CommonPrefixes":
            prefix = _fields(child)["Prefix"]
            prefixes.append(unquote_plus(prefix) if encoded else prefix)
    truncated = head.get("IsTruncated", "").lower() == "true"
    return Page(objects, prefixes, head.get("NextContinuationToken", "") if truncated else "")


def uploads(body: bytes) -> UploadsPage:
    """ListMultipartUploads."""
    root = _document(body, "ListMultipartUploadsResult")
    head = _fields(root)
    encoded = head.get("EncodingType") == "url"

    def decoded(text: str) -> str:
        return unquote_plus(text) if encoded else text

    found = [_fields(child) for child in root if _tag(child) == "Upload"]
    return UploadsPage(
        uploads=[
            PendingUpload(
                key=decoded(upload["Key"]),
                upload_id=upload["UploadId"],
                initiated=_time(upload.get("Initiated", "")),
            )
            for upload in found
        ],
        key_marker=decoded(head.get("NextKeyMarker", "")),
        id_marker=head.get("NextUploadIdMarker", ""),
        truncated=head.get("IsTruncated", "").lower() == "true",
    )


def delete_request(keys: Iterable[str]) -> bytes:
    """DeleteObjects, quiet: only what could not be deleted is answered."""
    objects = "".join(f"<Object><Key>{_text(key)}</Key></Object>" for key in keys)
    return f"<Delete><Quiet>true</Quiet>{objects}</Delete>".encode()


def _text(key: str) -> str:
    """A bare CR would be read as LF by XML parsers."""
    return escape(key, {"\r": "&#13;"})


def delete_failures(body: bytes) -> list[tuple[str, str]]:
    """(key, error code) of each object that is still there."""
    root = _document(body, "DeleteResult")
    failed = [_fields(child) for child in root if _tag(child) == "Error"]
    return [(error.get("Key", ""), error.get("Code", "")) for error in failed]


def complete_request(parts: Sequence[tuple[int, str]]) -> bytes:
    """CompleteMultipartUpload, with parts as (number, ETag)."""
    listed = "".join(
        f'<Part><PartNumber>{number}</PartNumber><ETag>"{escape(etag)}"</ETag></Part>'
        for number, etag in parts
    )
    return f"<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>".encode()


def bucket_names(body: bytes) -> list[str]:
    """ListBuckets."""
    root = _document(body, "ListAllMyBucketsResult")
    buckets = next((child for child in root if _tag(child) == "Buckets"), ())
    return [_fields(bucket)["Name"] for bucket in buckets]


def location_request(region: str) -> bytes:
    """CreateBucket anywhere but in us-east-1."""
    location = f"<LocationConstraint>{escape(region)}</LocationConstraint>"
    return f"<CreateBucketConfiguration>{location}</CreateBucketConfiguration>".encode()


def upload_id(body: bytes) -> str:
    """CreateMultipartUpload. rclone's root element lacks the last word."""
    found = fields(body, "InitiateMultipartUploadResult", "InitiateMultipartUpload")
    if not found.get("UploadId"):
        raise StoreError("the S3 server began an upload without naming it")
    return found["UploadId"]
