"""The store contract on S3: one HTTP request per call, translated both ways.

Here is what the calls mean; how a request is signed and sent is :mod:`cozyfs.store.s3_client`,
documents are :mod:`cozyfs.store.s3_xml`, failures :mod:`cozyfs.store.s3_errors`. All methods
block and may be called from any number of threads. The only state is what was learnt about the
server: whether it honours conditional PUTs.
"""

from __future__ import annotations

import logging
import re
from contextlib import closing, contextmanager, suppress
from itertools import islice
from typing import TYPE_CHECKING

from cozyfs.errors import (
    AccessDenied,
    BucketNotFound,
    ChecksumMismatch,
    NotSupported,
    ObjectNotFound,
    PreconditionFailed,
    StoreError,
)
from cozyfs.store import s3_metadata, s3_xml
from cozyfs.store.base import MAX_PUT_SIZE, Body, ObjectInfo, PendingUpload
from cozyfs.store.body import md5_of
from cozyfs.store.keys import check_key
from cozyfs.store.s3_checks import (
    blocks,
    compare_etag,
    copy_source,
    etag_in,
    expected_composite,
    raise_delete_failure,
    wanted_range,
)
from cozyfs.store.s3_client import BLOCK_SIZE, Client
from cozyfs.store.s3_conditions import Conditions
from cozyfs.store.s3_errors import code_of
from cozyfs.store.s3_options import READ_TIMEOUT_S, TlsOptions

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence


log = logging.getLogger(__name__)

_DELETE_BATCH = 1000
_COPY_PART_SIZE = 1 << 30


class S3Store:
    """Objects of an S3 server. *endpoint* is host[:port]; without *access_key* the credentials
    come from the environment or the files that AWS's and MinIO's own tools use. *parallel* is
    how many calls may run at once without opening further connections."""

    def __init__(
        self,
        endpoint: str,
        *,
        access_key: str = "",
        secret_key: str = "",
        use_ssl: bool = True,
        region: str = "",
        parallel: int = 32,
        read_timeout_s: float = READ_TIMEOUT_S,
        tls: TlsOptions | None = None,
    ) -> None:
        self._client = Client(
            endpoint,
            access_key=access_key,
            secret_key=secret_key,
            secure=use_ssl,
            region=region,
            parallel=parallel,
            read_timeout_s=read_timeout_s,
            tls=tls,
        )
        self.description = f"S3 at {self._client.host}"
        self._conditions = Conditions(self._send_empty, self.delete)

    def close(self) -> None:
        self._client.close()

    # ---- buckets

    def check(self) -> None:
        """ListBuckets. A key that may not list buckets was recognised all the same."""
        try:
            self._client.call("GET")
        except AccessDenied as exc:
            if code_of(exc) != "AccessDenied":
                raise
            log.debug("these credentials may not list buckets")

    def list_buckets(self) -> list[str]:
        body = self._client.call("GET").data
        return s3_xml.bucket_names(body)

    def ensure_bucket(self, bucket: str) -> None:
        # HEAD first: keys that may use a bucket often may not create one.
        if self._has_bucket(bucket):
            return
        try:
            self._create_bucket(bucket)
        except StoreError as exc:
            if code_of(exc) == "BucketAlreadyOwnedByYou":
                return
            if code_of(exc) != "BucketAlreadyExists":
                raise
            # AWS says so of other people's buckets, others of one's own: see which it is.
            with suppress(AccessDenied):
                if self._has_bucket(bucket):
                    return
            raise StoreError(
                "the bucket exists but belongs to another account; choose another bucket_prefix"
            ) from exc

    def _has_bucket(self, bucket: str) -> bool:
        try:
            self._client.call("HEAD", bucket)
        except BucketNotFound:
            return False
        return True

    def _create_bucket(self, bucket: str) -> None:
        region = self._client.location
        body = None
        if region not in ("", "us-east-1"):
            body = s3_xml.location_request(region)
        self._client.call("PUT", bucket, body=body)

    # ---- reading

    def head(self, bucket: str, key: str) -> ObjectInfo:
        with _missing_bucket_is_missing_object():
            answer = self._client.call("HEAD", bucket, check_key(key))
        return s3_metadata.object_info(key, answer.headers)

    def get(self, bucket: str, key: str, start: int = 0, stop: int | None = None) -> bytes:
        check_key(key)
        if stop is not None and stop <= start:
            return b""
        headers: dict[str, str] = {}
        if start or stop is not None:
            headers["Range"] = f"bytes={start}-{'' if stop is None else stop - 1}"
        try:
            with _missing_bucket_is_missing_object():
                answer = self._client.call("GET", bucket, key, headers=headers, stream=True)
        except StoreError as exc:
            if code_of(exc) == "InvalidRange":  # the object ends before start
                return b""
            raise
        try:
            with self._client.transport_errors():
                data = answer.read()
        finally:
            answer.release_conn()
        return wanted_range(answer, data, start, stop)

    def list(self, bucket: str, prefix: str = "", start_after: str = "") -> Iterator[ObjectInfo]:
        for page in self._pages(bucket, prefix, start_after=start_after):
            for info in page.objects:
                # Some servers do not know start-after: then it is done here.
                if info.key > start_after:
                    yield info

    def list_prefixes(self, bucket: str, prefix: str = "") -> Iterator[str]:
        for page in self._pages(bucket, prefix, delimiter="/"):
            yield from page.prefixes

    def _pages(
        self, bucket: str, prefix: str, *, start_after: str = "", delimiter: str = ""
    ) -> Iterator[s3_xml.Page]:
        """A missing bucket has none."""
        query = {
            "list-type": "2",
            "encoding-type": "url",
            "max-keys": "1000",
            "prefix": prefix,
            "delimiter": delimiter,
        }
        if start_after.startswith(prefix):
            query["start-after"] = start_after
        elif start_after > prefix:
            return  # all that is asked for comes before; MinIO's code would answer 501
        while True:
            try:
                page = s3_xml.listing(self._client.call("GET", bucket, query=query).data)
            except BucketNotFound:
                return
            yield page
            if not page.token:
                return
            if query.get("continuation-token") == page.token:
                raise StoreError("the S3 server repeats the same page of a listing")
            query["continuation-token"] = page.token

    # ---- writing

    def put(
        self,
        bucket: str,
        key: str,
        body: Body | bytes,
        *,
        md5: bytes | None = None,
        content_type: str = "application/octet-stream",
        metadata: Mapping[str, str] | None = None,
        if_absent: bool = False,
        if_match: str | None = None,
    ) -> str:
        headers = {"Content-Type": content_type, **s3_metadata.to_headers(metadata or {})}
        if if_absent:
            self._conditions.require(bucket, key, "If-None-Match")
            headers["If-None-Match"] = "*"
        if if_match is not None:
            self._conditions.require(bucket, key, "If-Match")
            headers["If-Match"] = f'"{if_match}"'
        try:
            return self._send(bucket, check_key(key), body, md5, headers=headers)
        except ObjectNotFound as exc:
            if if_match is None:
                raise
            raise PreconditionFailed("the object to replace is gone") from exc

    def _send(
        self,
        bucket: str,
        key: str,
        body: Body | bytes,
        md5: bytes | None,
        *,
        headers: dict[str, str],
        query: Mapping[str, str] | None = None,
    ) -> str:
        """A PUT with Content-MD5, streamed; the ETag, compared."""
        if md5 is None:
            md5 = md5_of(body)
        size = len(body) if isinstance(body, bytes) else body.size
        if size > MAX_PUT_SIZE:
            raise StoreError("more than 5 GiB cannot be sent in one request")
        headers["Content-MD5"] = s3_metadata.md5_header(md5)
        headers["Content-Length"] = str(size)
        if isinstance(body, bytes) and size <= BLOCK_SIZE:
            answer = self._client.call("PUT", bucket, key, query=query, headers=headers, body=body)
        else:
            with closing(blocks(body)) as pieces:
                answer = self._client.call(
                    "PUT", bucket, key, query=query, headers=headers, body=pieces
                )
        etag = s3_xml.unquoted(answer.headers.get("etag", ""))
        compare_etag(etag, answer.headers, md5)
        return etag

    def _send_empty(self, bucket: str, key: str, headers: dict[str, str]) -> str:
        return self._send(bucket, key, b"", None, headers=dict(headers))

    def copy(self, bucket: str, source_key: str, target_bucket: str, target_key: str) -> str:
        headers = {"x-amz-copy-source": copy_source(bucket, check_key(source_key))}
        try:
            answer = self._client.call(
                "PUT", target_bucket, check_key(target_key), headers=headers
            )
            return etag_in(answer, "CopyObjectResult")
        except StoreError as exc:
            # One CopyObject takes 5 GiB; asking for the size before each copy would cost more.
            if code_of(exc) not in ("InvalidRequest", "EntityTooLarge", "InvalidArgument"):
                raise
            source = self.head(bucket, source_key)
            if source.size <= MAX_PUT_SIZE:
                raise
        return self._copy_in_parts(bucket, source, target_bucket, target_key)

    def _copy_in_parts(
        self, bucket: str, source: ObjectInfo, target_bucket: str, target_key: str
    ) -> str:
        upload_id = self.create_multipart(
            target_bucket,
            target_key,
            content_type=source.content_type or "application/octet-stream",
            metadata=source.metadata,
        )
        try:
            parts = []
            for number, start in enumerate(range(0, source.size, _COPY_PART_SIZE), 1):
                stop = min(start + _COPY_PART_SIZE, source.size)
                etag = self._copy_part(
                    bucket, source.key, target_bucket, target_key, upload_id, number, start, stop
                )
                parts.append((number, etag))
            return self.complete_multipart(target_bucket, target_key, upload_id, parts)
        except BaseException:
            with suppress(StoreError):
                self.abort_multipart(target_bucket, target_key, upload_id)
            raise

    # ---- multipart uploads

    def create_multipart(
        self,
        bucket: str,
        key: str,
        *,
        content_type: str,
        metadata: Mapping[str, str] | None = None,
    ) -> str:
        headers = {"Content-Type": content_type, **s3_metadata.to_headers(metadata or {})}
        answer = self._client.call(
            "POST", bucket, check_key(key), query={"uploads": ""}, headers=headers
        )
        return s3_xml.upload_id(answer.data)

    def upload_part(
        self,
        bucket: str,
        key: str,
        upload_id: str,
        number: int,
        body: Body | bytes,
        *,
        md5: bytes | None = None,
    ) -> str:
        query = {"partNumber": str(number), "uploadId": upload_id}
        return self._send(bucket, check_key(key), body, md5, headers={}, query=query)

    def copy_part(
        self,
        bucket: str,
        key: str,
        upload_id: str,
        number: int,
        source_bucket: str,
        source_key: str,
        start: int,
        stop: int,
    ) -> str:
        return self._copy_part(
            source_bucket, source_key, bucket, key, upload_id, number, start, stop
        )

    def _copy_part(
        self,
        source_bucket: str,
        source_key: str,
        bucket: str,
        key: str,
        upload_id: str,
        number: int,
        start: int,
        stop: int,
    ) -> str:
        headers = {
            "x-amz-copy-source": copy_source(source_bucket, check_key(source_key)),
            "x-amz-copy-source-range": f"bytes={start}-{stop - 1}",
        }
        query = {"partNumber": str(number), "uploadId": upload_id}
        answer = self._client.call("PUT", bucket, check_key(key), query=query, headers=headers)
        if not answer.data:
            # A server that does not know the header has taken this for an empty part.
            raise NotSupported("the S3 server does not copy parts")
        return etag_in(answer, "CopyPartResult")

    def complete_multipart(
        self, bucket: str, key: str, upload_id: str, parts: Sequence[tuple[int, str]]
    ) -> str:
        body = s3_xml.complete_request(parts)
        expected = expected_composite(parts)
        try:
            answer = self._client.call(
                "POST", bucket, check_key(key), query={"uploadId": upload_id}, body=body
            )
            etag = etag_in(answer, "CompleteMultipartUploadResult", method="POST")
        except StoreError as exc:
            if code_of(exc) != "NoSuchUpload":
                raise
            etag = self._completed_before(bucket, key, expected, exc)
        if expected and re.fullmatch(r"[0-9a-f]{32}-\d+", etag) and etag != expected:
            raise ChecksumMismatch("the S3 server joined other parts than were sent")
        return etag

    def _completed_before(
        self, bucket: str, key: str, expected: str | None, refusal: StoreError
    ) -> str:
        """The upload is unknown: its completion's answer may have been lost on the way."""
        try:
            etag = self.head(bucket, key).etag
        except ObjectNotFound:
            raise refusal from refusal.__cause__
        if expected and re.fullmatch(r"[0-9a-f]{32}-\d+", etag) and etag != expected:
            raise refusal  # another object stands there
        return etag

    def abort_multipart(self, bucket: str, key: str, upload_id: str) -> None:
        try:
            self._client.call("DELETE", bucket, check_key(key), query={"uploadId": upload_id})
        except StoreError as exc:
            if code_of(exc) != "NoSuchUpload" and not isinstance(
                exc, ObjectNotFound | BucketNotFound
            ):
                raise

    def list_multipart(self, bucket: str, prefix: str) -> Iterator[PendingUpload]:
        query = {
            "uploads": "",
            "encoding-type": "url",
            "max-uploads": "1000",
            "delimiter": "",
            "prefix": prefix,
        }
        while True:
            try:
                page = s3_xml.uploads(self._client.call("GET", bucket, query=query).data)
            except BucketNotFound:
                return
            # Some servers do not know the prefix: then it is done here.
            yield from (upload for upload in page.uploads if upload.key.startswith(prefix))
            marker = {"key-marker": page.key_marker, "upload-id-marker": page.id_marker}
            if not page.truncated:
                return
            if not page.key_marker or marker.items() <= query.items():
                raise StoreError("the S3 server repeats the same page of a listing")
            query.update(marker)

    # ---- deleting

    def delete(self, bucket: str, key: str) -> None:
        with suppress(ObjectNotFound, BucketNotFound):
            self._client.call("DELETE", bucket, check_key(key))

    def delete_many(self, bucket: str, keys: Iterable[str]) -> None:
        source = iter(keys)
        while batch := list(islice(source, _DELETE_BATCH)):
            self._delete_batch(bucket, batch)

    def _delete_batch(self, bucket: str, keys: Sequence[str]) -> None:
        body = s3_xml.delete_request(keys)
        headers = {"Content-MD5": s3_metadata.md5_header(md5_of(body))}
        try:
            answer = self._client.call(
                "POST", bucket, query={"delete": ""}, headers=headers, body=body
            )
        except BucketNotFound:
            return
        except NotSupported:
            for key in keys:
                self.delete(bucket, key)
            return
        failures = [code for _, code in s3_xml.delete_failures(answer.data) if code != "NoSuchKey"]
        if failures:
            raise_delete_failure(failures)

    def delete_prefix(self, bucket: str, prefix: str) -> int:
        count = 0
        found = (info.key for info in self.list(bucket, prefix))
        while batch := list(islice(found, _DELETE_BATCH)):
            self._delete_batch(bucket, batch)
            count += len(batch)
        return count


@contextmanager
def _missing_bucket_is_missing_object() -> Iterator[None]:
    try:
        yield
    except BucketNotFound as exc:
        raise ObjectNotFound("the object is not in the storage") from exc
