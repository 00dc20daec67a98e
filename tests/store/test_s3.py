"""What is S3's alone: how failures are told, what is sent, what is checked."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import ssl
import subprocess
import sys
import textwrap
import threading
import time

import pytest
from failing_server import Answer, FailingServer, error

from cozyfs.config import parse_fs_url
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
    UsageError,
)
from cozyfs.store import MIN_PART_SIZE, TlsOptions, composite_etag
from cozyfs.store.s3 import S3Store
from cozyfs.store.s3_errors import from_transport


@pytest.fixture
def server():
    server = FailingServer()
    yield server
    server.close()


@pytest.fixture
def store(server):
    store = S3Store(
        server.host,
        access_key="secret-access",
        secret_key="secret-secret",
        use_ssl=False,
        read_timeout_s=5.0,
    )
    yield store
    store.close()


def etag(data):
    return {"ETag": f'"{hashlib.md5(data).hexdigest()}"'}


def completed(whole):
    root = "CompleteMultipartUploadResult"
    return Answer(200, f"<{root}><ETag>&quot;{whole}&quot;</ETag></{root}>".encode())


# ---- errors


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (error(404, "NoSuchKey"), ObjectNotFound),
        (error(404, "NoSuchUpload"), ObjectNotFound),
        (error(404, "NoSuchBucket"), ObjectNotFound),
        (error(403, "AccessDenied"), AccessDenied),
        (error(403, "InvalidAccessKeyId"), AccessDenied),
        (error(403, "SignatureDoesNotMatch"), AccessDenied),
        (error(400, "ExpiredToken"), AccessDenied),
        (Answer(403, b"<html>no</html>"), AccessDenied),
        (error(503, "SlowDown"), StoreUnavailable),
        (error(500, "InternalError"), StoreUnavailable),
        (error(400, "RequestTimeout"), StoreUnavailable),
        (error(503, "XMinioServerNotInitialized"), StoreUnavailable),
        (error(418, "ServerBusy"), StoreUnavailable),
        (Answer(429), StoreUnavailable),
        (Answer(500), StoreUnavailable),
        (Answer(502, b"<html>bad gateway</html>"), StoreUnavailable),
        (Answer(503), StoreUnavailable),
        (Answer(504), StoreUnavailable),
        (error(400, "BadDigest"), ChecksumMismatch),
        (error(400, "EntityTooLarge"), StoreError),
        (error(507, "XMinioStorageFull"), StoreFull),
        (Answer(507), StoreFull),
        (error(412, "PreconditionFailed"), PreconditionFailed),
        (error(409, "ConditionalRequestConflict"), StoreUnavailable),
        (error(501, "NotImplemented"), NotSupported),
        (Answer(501), NotSupported),
        (error(301, "PermanentRedirect"), StoreError),
        (error(400, "SomethingNew"), StoreError),
        (Answer(404, b"<html>this is not S3</html>"), StoreError),
        (Answer(reset=True), StoreUnavailable),
        (Answer(200, b"0123456789", cut=4), StoreUnavailable),
    ],
)
def test_every_failure_has_its_class_and_one_line_without_secrets(
    server, store, caplog, answer, expected
):
    caplog.set_level(logging.DEBUG)
    server.answers = [answer]

    with pytest.raises(StoreError) as caught:
        store.get("secret-bucket", "secret-key")

    assert type(caught.value) is expected
    message = str(caught.value)
    assert message
    assert "\n" not in message
    assert not any(name in message for name in ("secret-bucket", "secret-key", "secret-access"))
    assert "secret-access" not in caplog.text
    assert "secret-secret" not in caplog.text


def test_each_call_is_one_attempt(server, store):
    server.answers = [Answer(503), Answer(200, b"later")]

    with pytest.raises(StoreUnavailable):
        store.get("bucket", "key")

    assert len(server.requests) == 1
    assert store.get("bucket", "key") == b"later"


def test_a_store_works_again_after_a_burst_of_failures(server, store):
    burst = [Answer(503), Answer(reset=True), Answer(200, b"0123456789", cut=4), Answer(502)]
    server.answers = [*burst, Answer(200, b"0123456789")]

    for _ in burst:
        with pytest.raises(StoreUnavailable):
            store.get("bucket", "key")

    assert store.get("bucket", "key") == b"0123456789"


def test_a_server_that_says_nothing_is_unavailable_after_the_time_out(server):
    server.answers = [Answer(silent=True)]
    store = S3Store(server.host, access_key="a", secret_key="s", use_ssl=False, read_timeout_s=0.2)

    with pytest.raises(StoreUnavailable, match="did not answer in time"):
        store.get("bucket", "key")


def test_a_refused_connection_names_the_host(server):
    host = server.host
    server.close()
    store = S3Store(host, access_key="a", secret_key="s", use_ssl=False)

    with pytest.raises(StoreUnavailable) as caught:
        store.check()

    assert str(caught.value) == f"cannot reach S3 server {host}: connection refused"


def test_an_unknown_host_is_told_as_such():
    store = S3Store("no-such-host.invalid", access_key="a", secret_key="s")

    with pytest.raises(StoreUnavailable, match=r"cannot reach S3 server no-such-host\.invalid"):
        store.check()


def test_tls_to_a_server_without_it_asks_about_use_ssl(server):
    server.answers = [Answer()]
    store = S3Store(server.host, access_key="a", secret_key="s")

    with pytest.raises(StoreUnavailable):
        store.check()


def test_an_untrusted_certificate_is_not_worth_another_attempt():
    failure = ssl.SSLCertVerificationError(1, "certificate verify failed: self-signed certificate")
    failure.verify_message = "self-signed certificate"

    mapped = from_transport(OSError("wrapped", failure), "s3.example.com")

    assert type(mapped) is StoreError
    assert "self-signed certificate" in str(mapped)


def test_another_error_is_not_taken_for_a_missing_object(server, store):
    server.answers = [Answer(404), Answer(500)]

    with pytest.raises(ObjectNotFound):
        store.head("bucket", "key")
    with pytest.raises(StoreUnavailable):
        store.head("bucket", "key")


def test_a_wrong_region_tells_the_right_one(server, store):
    answer = error(400, "AuthorizationHeaderMalformed")
    answer.headers["x-amz-bucket-region"] = "eu-west-3"
    server.answers = [answer]

    with pytest.raises(StoreError, match="region=eu-west-3"):
        store.get("bucket", "key")


def test_keys_that_may_not_list_buckets_pass_the_check_but_wrong_keys_do_not(server, store):
    server.answers = [error(403, "AccessDenied"), error(403, "InvalidAccessKeyId")]

    store.check()
    with pytest.raises(AccessDenied, match="does not know the access key"):
        store.check()


# ---- buckets


def test_a_bucket_of_our_own_needs_no_creation(server, store):
    server.answers = [Answer(200)]

    store.ensure_bucket("bucket")

    assert [request[0] for request in server.requests] == ["HEAD"]


@pytest.mark.parametrize(
    "answers",
    [
        [Answer(404), Answer(200)],
        [Answer(404), error(409, "BucketAlreadyOwnedByYou")],
        [Answer(404), error(409, "BucketAlreadyExists"), Answer(200)],
    ],
)
def test_a_bucket_that_we_can_use_afterwards_counts_as_made(server, store, answers):
    server.answers = answers

    store.ensure_bucket("bucket")

    assert server.answers == []


def test_a_bucket_of_someone_else_is_refused(server, store):
    server.answers = [Answer(404), error(409, "BucketAlreadyExists"), Answer(403)]

    with pytest.raises(StoreError, match="belongs to another account"):
        store.ensure_bucket("bucket")


def test_the_region_goes_into_the_creation_of_a_bucket(server):
    store = S3Store(server.host, access_key="a", secret_key="s", use_ssl=False, region="eu-west-3")
    server.answers = [Answer(404), Answer(200)]

    store.ensure_bucket("bucket")

    method, target, headers, body = server.requests[1]
    assert (method, target) == ("PUT", "/bucket")
    assert b"<LocationConstraint>eu-west-3</LocationConstraint>" in body
    assert "/eu-west-3/s3/aws4_request" in headers["authorization"]


def test_no_request_asks_for_a_location(server, store):
    server.answers = [Answer(200, b"x")]

    store.get("bucket", "key")

    assert [request[1] for request in server.requests] == ["/bucket/key"]


# ---- what is sent


@pytest.mark.parametrize("size", [0, 100, 1_000_000])
def test_a_put_is_signed_with_its_md5_and_hashed_no_second_time(server, store, size):
    data = os.urandom(size)
    server.answers = [Answer(200, headers=etag(data))]

    store.put("bucket", "key", data)

    method, target, headers, body = server.requests[0]
    assert (method, target, body) == ("PUT", "/bucket/key", data)
    assert headers["content-length"] == str(size)
    assert "content-md5" in headers["authorization"]
    empty = hashlib.sha256(b"").hexdigest()
    assert headers["x-amz-content-sha256"] in ("UNSIGNED-PAYLOAD", empty)
    assert "transfer-encoding" not in headers


def test_conditions_are_tried_out_once_for_all_puts(server, store):
    trial = [
        Answer(200, headers=etag(b"")),
        error(412, "PreconditionFailed"),
        error(412, "PreconditionFailed"),
        Answer(200, headers=etag(b"")),
        Answer(204),
    ]
    server.answers = [*trial, Answer(200, headers=etag(b"1")), error(412, "PreconditionFailed")]

    store.put("bucket", "lease", b"1", if_absent=True)
    with pytest.raises(PreconditionFailed):
        store.put("bucket", "lease", b"2", if_match="abc")

    assert server.requests[5][2]["if-none-match"] == "*"
    assert server.requests[6][2]["if-match"] == '"abc"'
    assert len(server.requests) == 7


def test_a_missing_object_does_not_match(server, store):
    trial = [
        Answer(200, headers=etag(b"")),
        error(412, "PreconditionFailed"),
        error(412, "PreconditionFailed"),
        Answer(200, headers=etag(b"")),
        Answer(204),
    ]
    server.answers = [*trial, error(404, "NoSuchKey")]  # AWS answers so

    with pytest.raises(PreconditionFailed):
        store.put("bucket", "lease", b"2", if_match="abc")


# ---- what is checked


def test_an_etag_that_is_another_md5_is_a_mismatch(server, store):
    server.answers = [Answer(200, headers=etag(b"other"))]

    with pytest.raises(ChecksumMismatch):
        store.put("bucket", "key", b"sent")


@pytest.mark.parametrize(
    "headers",
    [
        {**etag(b"other"), "x-amz-server-side-encryption": "aws:kms"},
        {**etag(b"other"), "x-amz-server-side-encryption-customer-algorithm": "AES256"},
        {"ETag": '"not-an-md5"'},
        {},
    ],
)
def test_an_etag_that_is_no_md5_is_not_compared(server, store, headers):
    server.answers = [Answer(200, headers=headers)]

    assert store.put("bucket", "key", b"sent") == headers.get("ETag", "").strip('"')


def test_another_range_than_asked_for_is_not_taken(server, store):
    server.answers = [Answer(206, b"01234", {"Content-Range": "bytes 0-4/10"})]

    with pytest.raises(StoreUnavailable):
        store.get("bucket", "key", 2, 7)


def test_a_range_that_ends_too_soon_is_not_taken_for_the_end(server, store):
    server.answers = [Answer(206, b"012", {"Content-Range": "bytes 0-2/10"})]

    with pytest.raises(StoreUnavailable):
        store.get("bucket", "key", 0, 5)


def test_a_server_that_ignores_ranges_is_understood(server, store):
    server.answers = [Answer(200, b"0123456789")]

    assert store.get("bucket", "key", 2, 5) == b"234"


def test_a_compressed_object_is_read_as_it_is(server, store):
    server.answers = [Answer(200, b"\x1f\x8bnot really", {"Content-Encoding": "gzip"})]

    assert store.get("bucket", "key") == b"\x1f\x8bnot really"


def test_an_upload_that_joined_other_parts_is_a_mismatch(server, store):
    server.answers = [completed(f"{'0' * 32}-1")]

    with pytest.raises(ChecksumMismatch):
        store.complete_multipart("bucket", "key", "id", [(1, "a" * 32)])


def test_an_error_document_with_status_200_is_an_error(server, store):
    late = b'<?xml version="1.0"?>\n  \n<Error><Code>InternalError</Code></Error>'
    server.answers = [Answer(200, late), Answer(200, late)]

    with pytest.raises(StoreUnavailable):
        store.complete_multipart("bucket", "key", "id", [(1, "a" * 32)])
    with pytest.raises(StoreUnavailable):
        store.copy("bucket", "key", "bucket", "other")


def test_a_completion_whose_answer_was_lost_is_recognised(server, store):
    whole = composite_etag([bytes.fromhex("a" * 32)])
    server.answers = [error(404, "NoSuchUpload"), Answer(200, headers={"ETag": f'"{whole}"'})]

    assert store.complete_multipart("bucket", "key", "id", [(1, "a" * 32)]) == whole


def test_an_unknown_upload_over_another_object_was_not_completed(server, store):
    other = {"ETag": f'"{"b" * 32}-7"'}
    server.answers = [error(404, "NoSuchUpload"), Answer(200, headers=other)]

    with pytest.raises(StoreError):
        store.complete_multipart("bucket", "key", "id", [(1, "a" * 32)])


def test_a_copy_that_is_too_large_for_one_call_is_made_in_parts(server, store):
    size = 6 << 30
    part = b'<CopyPartResult><ETag>"%s"</ETag></CopyPartResult>' % (b"a" * 32)
    whole = composite_etag([bytes.fromhex("a" * 32)] * 6)
    server.answers = [
        error(400, "InvalidRequest"),
        Answer(200, headers={"Content-Length": str(size), "Content-Type": "video/mp4"}),
        Answer(
            200,
            b"<InitiateMultipartUploadResult><UploadId>id</UploadId>"
            b"</InitiateMultipartUploadResult>",
        ),
        *[Answer(200, part)] * 6,
        completed(whole),
    ]

    assert store.copy("bucket", "big", "bucket", "copy") == whole
    ranges = [request[2].get("x-amz-copy-source-range") for request in server.requests]
    assert ranges[-2] == f"bytes={5 << 30}-{size - 1}"


def test_objects_that_could_not_be_deleted_are_told(server, store):
    body = b"<DeleteResult><Error><Key>a</Key><Code>AccessDenied</Code></Error></DeleteResult>"
    server.answers = [Answer(200, body)]

    with pytest.raises(AccessDenied, match="1 objects could not be deleted"):
        store.delete_many("bucket", ["a", "b"])


def test_a_server_without_bulk_deletion_is_asked_one_by_one(server, store):
    server.answers = [error(501, "NotImplemented"), Answer(204), Answer(204)]

    store.delete_many("bucket", ["a", "b"])

    assert [request[1] for request in server.requests[1:]] == ["/bucket/a", "/bucket/b"]


def test_a_server_that_ignores_the_copy_header_does_not_copy_parts(server, store):
    server.answers = [Answer(200, headers=etag(b""))]

    with pytest.raises(NotSupported):
        store.copy_part("bucket", "key", "id", 1, "bucket", "source", 0, MIN_PART_SIZE)


def test_a_listing_that_goes_round_in_circles_is_stopped(server, store):
    page = (
        b"<ListBucketResult><IsTruncated>true</IsTruncated>"
        b"<NextContinuationToken>t</NextContinuationToken></ListBucketResult>"
    )
    server.answers = [Answer(200, page)] * 3

    with pytest.raises(StoreError, match="repeats"):
        list(store.list("bucket"))


def test_a_put_to_a_missing_bucket_is_not_a_missing_object(server, store):
    server.answers = [error(404, "NoSuchBucket")]

    with pytest.raises(BucketNotFound):
        store.put("bucket", "key", b"x")


# ---- credentials and TLS


@pytest.fixture
def no_credentials(monkeypatch, tmp_path):
    for name in list(os.environ):
        if name.startswith(("AWS_", "MINIO_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_credentials_come_from_the_environment_when_the_url_has_none(
    server, monkeypatch, no_credentials
):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "from-environment")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    server.answers = [Answer(200, b"content")]

    S3Store(server.host, use_ssl=False).get("bucket", "key")

    assert "Credential=from-environment/" in server.requests[0][2]["authorization"]


def test_credentials_come_from_the_aws_file(server, no_credentials):
    (no_credentials / ".aws").mkdir()
    (no_credentials / ".aws/credentials").write_text(
        "[default]\naws_access_key_id = from-file\naws_secret_access_key = x\n"
    )
    server.answers = [Answer(200, b"content")]

    S3Store(server.host, use_ssl=False).get("bucket", "key")

    assert "Credential=from-file/" in server.requests[0][2]["authorization"]


def test_without_any_credentials_the_error_comes_soon_and_says_what_to_do(no_credentials):
    before = time.monotonic()

    with pytest.raises(AccessDenied, match="access_key and secret_key"):
        S3Store("127.0.0.1:1", use_ssl=False).check()

    assert time.monotonic() - before < 10


@pytest.mark.parametrize("option", ["root_ca", "client_cert"])
def test_a_certificate_file_that_is_missing_or_no_pem_is_bad_input(tmp_path, option):
    (tmp_path / "bad.pem").write_text("no certificate")

    for path in (tmp_path / "missing.pem", tmp_path / "bad.pem"):
        with pytest.raises(UsageError):
            S3Store("host", access_key="a", secret_key="s", tls=TlsOptions(**{option: str(path)}))


# ---- memory and connections


def test_a_large_body_is_streamed_not_held(s3_url, server, tmp_path):
    """512 MiB of a sparse file; the child says by how much its memory grew."""
    size = 512 << 20
    with (tmp_path / "staged").open("wb") as staged:
        staged.truncate(size)
    digest = hashlib.md5()
    for _ in range(size >> 20):
        digest.update(bytes(1 << 20))
    script = textwrap.dedent(f"""
        import resource
        from cozyfs.store import FileBody
        from cozyfs.store.s3 import S3Store
        store = S3Store({server.host!r}, access_key="a", secret_key="s", use_ssl=False)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        body = FileBody({str(tmp_path / "staged")!r})
        store.put("bucket", "key", body, md5=bytes.fromhex({digest.hexdigest()!r}))
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """)
    # Not the session's server: moto keeps what it gets in memory.
    received = _count_body(server, digest.digest())

    child = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )

    assert received == [size]
    assert int(child.stdout) < 64 << 10  # KiB


def _count_body(server, md5):
    """Makes *server* throw bodies away as they come; the list gets their sizes."""
    received = []

    class Counting(io.BytesIO):
        pass

    def read(stream):
        line = stream.readline().decode()
        if not line:
            return None
        headers = {}
        while header := stream.readline().decode().strip():
            name, _, value = header.partition(":")
            headers[name.lower()] = value.strip()
        left = size = int(headers["content-length"])
        while left:
            left -= len(stream.read(min(left, 1 << 20)))
        received.append(size)
        return line.split()[0], line.split()[1], headers, b""

    server._read = read
    server.answers = [Answer(200, headers={"ETag": f'"{md5.hex()}"'})]
    return received


def test_connections_are_kept_for_as_many_threads_as_asked(s3_url):
    from cozyfs.store import open_store

    store = open_store(parse_fs_url(s3_url), parallel=8)
    store.ensure_bucket("bucket-of-threads")
    failures = []

    def work(number):
        try:
            for turn in range(10):
                data = b"%d-%d" % (number, turn)
                store.put("bucket-of-threads", f"{number}", data)
                assert store.get("bucket-of-threads", f"{number}") == data
        except Exception as exc:
            failures.append(exc)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    store.delete_prefix("bucket-of-threads", "")
    store.close()
    assert failures == []
