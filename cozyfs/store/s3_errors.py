"""One edge for the failures of S3: answers and transport errors become classes of `cozyfs.errors`.

Messages name the host at most. What the server said beyond its error code goes to the debug
log. Each error has an :class:`Answer` or the foreign exception as its cause.
"""

from __future__ import annotations

import logging
import re
import socket
import ssl
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import urllib3.exceptions as http

from cozyfs.errors import (
    AccessDenied,
    BucketNotFound,
    ChecksumMismatch,
    NotSupported,
    ObjectNotFound,
    PreconditionFailed,
    StoreError,
    StoreFull,
    StoreUnavailable,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger(__name__)


class Answer(Exception):
    """What the server said: HTTP status and S3 error code ("" when it gave none)."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(f"{status} {code}".rstrip())
        self.status = status
        self.code = code


def code_of(error: BaseException) -> str:
    """The S3 error code behind *error*, or ""."""
    return error.__cause__.code if isinstance(error.__cause__, Answer) else ""


def status_of(error: BaseException) -> int:
    """The HTTP status behind *error*, or 0."""
    return error.__cause__.status if isinstance(error.__cause__, Answer) else 0


_BUSY = "the S3 server is busy or has a problem of its own"
_FULL = "the S3 storage is full"
_REGION = "the S3 region is not the one of the storage; set region=… in fs.url"
_SENT_WRONG = "what arrived at the S3 server is not what was sent"
_NO_CALL = "the S3 server does not offer this call"
_TOO_LARGE = "the object is too large for the S3 server"

_BY_CODE: dict[str, tuple[type[StoreError], str]] = {
    "NoSuchKey": (ObjectNotFound, "the object is not in the storage"),
    "NoSuchVersion": (ObjectNotFound, "the object is not in the storage"),
    "NoSuchUpload": (ObjectNotFound, "the upload is unknown"),
    "NoSuchBucket": (BucketNotFound, "the bucket is not in the storage"),
    "AccessDenied": (AccessDenied, "the S3 access key lacks the right to do this"),
    "AllAccessDisabled": (AccessDenied, "the S3 account is disabled"),
    "AccountProblem": (AccessDenied, "the S3 account is disabled"),
    "InvalidAccessKeyId": (AccessDenied, "the S3 server does not know the access key"),
    "SignatureDoesNotMatch": (AccessDenied, "the S3 secret key is wrong"),
    "ExpiredToken": (AccessDenied, "the S3 credentials have expired"),
    "TokenRefreshRequired": (AccessDenied, "the S3 credentials have expired"),
    "InvalidToken": (AccessDenied, "the S3 session token is wrong"),
    "InvalidTokenId": (AccessDenied, "the S3 session token is wrong"),
    "RequestTimeTooSkewed": (StoreError, "this machine's clock differs from the S3 server's"),
    "PreconditionFailed": (PreconditionFailed, "another object is in place"),
    # Two conditional requests at once: which one holds is not known before trying again.
    "ConditionalRequestConflict": (StoreUnavailable, "another conditional request was under way"),
    "OperationAborted": (StoreUnavailable, "another request of this kind was under way"),
    "BadDigest": (ChecksumMismatch, _SENT_WRONG),
    "XAmzContentSHA256Mismatch": (ChecksumMismatch, _SENT_WRONG),
    "XAmzContentChecksumMismatch": (ChecksumMismatch, _SENT_WRONG),
    "IncompleteBody": (StoreUnavailable, "the connection to the S3 server was cut"),
    "EntityTooLarge": (StoreError, _TOO_LARGE),
    "EntityTooSmall": (StoreError, "a part of the upload is smaller than the S3 server takes"),
    "KeyTooLongError": (StoreError, "the object key is too long for the S3 server"),
    "MetadataTooLarge": (StoreError, "the object's metadata are too long for the S3 server"),
    "XMinioStorageFull": (StoreFull, _FULL),
    "XMinioAdminBucketQuotaExceeded": (StoreFull, _FULL),
    "QuotaExceeded": (StoreFull, _FULL),
    "InsufficientStorage": (StoreFull, _FULL),
    "NotImplemented": (NotSupported, _NO_CALL),
    "MethodNotAllowed": (NotSupported, _NO_CALL),
    "SlowDown": (StoreUnavailable, _BUSY),
    "SlowDownRead": (StoreUnavailable, _BUSY),
    "SlowDownWrite": (StoreUnavailable, _BUSY),
    "TooManyRequests": (StoreUnavailable, _BUSY),
    "RequestLimitExceeded": (StoreUnavailable, _BUSY),
    "BandwidthLimitExceeded": (StoreUnavailable, _BUSY),
    "InternalError": (StoreUnavailable, _BUSY),
    "InternalFailure": (StoreUnavailable, _BUSY),
    "ServiceUnavailable": (StoreUnavailable, _BUSY),
    "ServerBusy": (StoreUnavailable, _BUSY),
    "XMinioServerNotInitialized": (StoreUnavailable, _BUSY),
    "RequestTimeout": (StoreUnavailable, "the S3 server waited too long for the data"),
    "AuthorizationHeaderMalformed": (StoreError, _REGION),
    "AuthorizationQueryParametersError": (StoreError, _REGION),
    "InvalidRegion": (StoreError, _REGION),
    "IllegalLocationConstraintException": (StoreError, _REGION),
    "PermanentRedirect": (StoreError, _REGION),
    "TemporaryRedirect": (StoreUnavailable, "the S3 server is moving the bucket"),
    "Redirect": (StoreUnavailable, "the S3 server is moving the bucket"),
}

_BY_STATUS: dict[int, tuple[type[StoreError], str]] = {
    301: (StoreError, _REGION),
    307: (StoreUnavailable, "the S3 server is moving the bucket"),
    308: (StoreError, _REGION),
    401: (AccessDenied, "the S3 server refused the credentials"),
    403: (AccessDenied, "the S3 server refused access"),
    405: (NotSupported, _NO_CALL),
    408: (StoreUnavailable, "the S3 server waited too long for the data"),
    409: (StoreUnavailable, "another request was under way"),
    412: (PreconditionFailed, "another object is in place"),
    413: (StoreError, _TOO_LARGE),
    429: (StoreUnavailable, _BUSY),
    501: (NotSupported, _NO_CALL),
    507: (StoreFull, _FULL),
}


def from_answer(
    method: str, status: int, headers: Mapping[str, str], body: bytes, *, has_key: bool
) -> StoreError:
    """The error for an answer that is not a success, with an :class:`Answer` as its cause."""
    code, text = _parse(body)
    log.debug("S3 %s answered %d %s: %s", method, status, code, text)
    kind, message = _classify(method, status, code, has_key=has_key)
    region = headers.get("x-amz-bucket-region", "")
    if message is _REGION and re.fullmatch(r"[a-z0-9-]{1,40}", region):
        message = f"the S3 region is not the one of the storage; set region={region} in fs.url"
    error = kind(message)
    error.__cause__ = Answer(status, code)
    return error


def _classify(
    method: str, status: int, code: str, *, has_key: bool
) -> tuple[type[StoreError], str]:
    if code in _BY_CODE:
        return _BY_CODE[code]
    if not code and status == 404 and method == "HEAD":  # an answer to HEAD has no body
        return _BY_CODE["NoSuchKey" if has_key else "NoSuchBucket"]
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status >= 500:
        return StoreUnavailable, _BUSY
    if code:
        return StoreError, f"the S3 server refused the request ({code})"
    if method == "HEAD":
        return StoreError, f"the S3 server refused the request (status {status})"
    return StoreError, f"this is not the answer of an S3 server (status {status})"


def _parse(body: bytes) -> tuple[str, str]:
    """(code, message) of an error document; ("", "") when *body* is none."""
    if not body:
        return "", ""
    try:
        root = ElementTree.fromstring(body)
    except ElementTree.ParseError:
        return "", "no XML"
    found = {child.tag.rpartition("}")[2]: (child.text or "").strip() for child in root}
    code = found.get("Code", "")
    return (code if re.fullmatch(r"[A-Za-z0-9.]{1,64}", code) else ""), found.get("Message", "")


def from_document(method: str, body: bytes, *, has_key: bool) -> StoreError | None:
    """The error of an answer of status 200 whose document is an error after all: S3 answers so
    to long calls (CompleteMultipartUpload, CopyObject) that fail after their first byte."""
    if b"<Error" not in body[:300]:
        return None
    return from_answer(method, 500, {}, body, has_key=has_key)


def from_transport(error: Exception, host: str) -> StoreError:
    """The error for a failure before there was an answer, or in its middle."""
    log.debug("S3 at %s: %r", host, error)
    root = _root_cause(error)
    if isinstance(root, ssl.SSLCertVerificationError):
        mapped: StoreError = StoreError(
            f"the certificate of S3 server {host} is not trusted: {root.verify_message}"
        )
    elif isinstance(root, socket.gaierror) or isinstance(error, http.NameResolutionError):
        mapped = StoreUnavailable(f"cannot reach S3 server {host}: its name is not known")
    elif isinstance(root, ConnectionRefusedError):
        mapped = StoreUnavailable(f"cannot reach S3 server {host}: connection refused")
    elif isinstance(error, http.NewConnectionError):
        mapped = StoreUnavailable(f"cannot reach S3 server {host}: no route to it")
    elif isinstance(error, http.ConnectTimeoutError):
        mapped = StoreUnavailable(f"cannot reach S3 server {host}: no answer in time")
    elif isinstance(error, http.ReadTimeoutError) or isinstance(root, TimeoutError):
        mapped = StoreUnavailable(f"S3 server {host} did not answer in time")
    elif isinstance(root, ssl.SSLError):
        mapped = StoreUnavailable(f"no TLS connection to S3 server {host}; is use_ssl right?")
    else:
        mapped = StoreUnavailable(f"the connection to S3 server {host} was cut")
    mapped.__cause__ = error
    return mapped


def _root_cause(error: BaseException) -> BaseException:
    """The innermost exception: urllib3 keeps it as an argument, a cause or a context."""
    seen: list[BaseException] = []
    while error not in seen:
        seen.append(error)
        inner = [arg for arg in error.args if isinstance(arg, BaseException)]
        error = (inner[0] if inner else None) or error.__cause__ or error.__context__ or error
    return error
