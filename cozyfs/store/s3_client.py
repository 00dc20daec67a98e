"""minio-py with three things its public API lacks: one streamed PUT of a known size whose
payload is not hashed a second time, conditional requests, and our own errors.

:class:`Client` overrides the underscored methods through which every call of `minio.Minio`
goes, so signing, addressing (path style, or virtual hosts on AWS) and the rest of minio's API
stay minio's. One attempt per call, no retries, short time-outs. Thread safe; to be built after
the fork to the background, since connections are not shared between processes.
"""

from __future__ import annotations

import configparser
import http.client
import logging
import ssl
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import certifi
import minio
import urllib3
from minio.credentials.providers import (
    AWSConfigProvider,
    ChainedProvider,
    EnvAWSProvider,
    EnvMinioProvider,
    IamAwsProvider,
    MinioClientConfigProvider,
    Provider,
    StaticProvider,
)
from minio.signer import sign_v4_s3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError

from cozyfs.errors import AccessDenied, StoreUnavailable, UsageError
from cozyfs.store.s3_errors import from_answer, from_transport
from cozyfs.store.s3_options import READ_TIMEOUT_S, TlsOptions

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from minio.credentials.credentials import Credentials
    from urllib3.response import BaseHTTPResponse

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 10.0
SEND_TIMEOUT_S = 60.0
"""For each block sent, not for the whole body."""

BLOCK_SIZE = 256 << 10
"""Bytes handed to the socket at once; also the unit that SEND_TIMEOUT_S bounds."""

_EMPTY_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


if TYPE_CHECKING:  # what _Sending is mixed into, twice
    _Mixin = HTTPConnection
else:
    _Mixin = object


class _Sending(_Mixin):
    """What both kinds of connection do about a body, over urllib3.

    urllib3 sends the body under the *connect* time-out; a slow uplink needs a longer one. And a
    body in memory leaves with the headers, in one packet where it fits, not after them.
    """

    _joined = False
    _headers: bytes | None = None

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is not None:
            self.timeout = SEND_TIMEOUT_S
        body = kwargs.get("body")
        self._headers = None
        self._joined = isinstance(body, bytes) and 0 < len(body) <= BLOCK_SIZE
        super().request(*args, **kwargs)

    def send(self, data: Any) -> None:
        if self._joined:
            if self._headers is None:
                self._headers = data
                return
            data = self._headers + data
            self._joined = False
        super().send(data)


class _HTTPConnection(_Sending, HTTPConnection):
    def connect(self) -> None:
        super().connect()
        # Here the first request is under way; with TLS, the handshake has preceded it.
        self.timeout = SEND_TIMEOUT_S
        self.sock.settimeout(SEND_TIMEOUT_S)


class _HTTPSConnection(_Sending, HTTPSConnection):
    pass


class _HTTPPool(HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


def http_pool(
    *, secure: bool, parallel: int, tls: TlsOptions, read_timeout_s: float
) -> urllib3.PoolManager:
    """Connections: as many as calls may run at once, no retries, redirects never followed."""
    _check_files(tls)
    pool = urllib3.PoolManager(
        timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=read_timeout_s),
        maxsize=parallel,
        retries=False,
        blocksize=BLOCK_SIZE,
        # Reading the authorities takes a tenth of a mount's start: not where nobody is asked.
        ssl_context=_ssl_context(tls) if secure else None,
        cert_reqs="CERT_NONE" if tls.insecure_skip_validation else "CERT_REQUIRED",
    )
    pool.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}
    return pool


def _check_files(tls: TlsOptions) -> None:
    for path in (tls.root_ca, tls.client_cert, tls.client_key):
        if path is not None and not Path(path).is_file():
            raise UsageError(f"{path}: no such file (named in the fs section)")


def _ssl_context(tls: TlsOptions) -> ssl.SSLContext:
    """Trusts ``root_ca`` alone where given, else the system's authorities and certifi's."""
    try:
        context = ssl.create_default_context(cafile=tls.root_ca)
        if tls.root_ca is None:
            context.load_verify_locations(certifi.where())
        if tls.client_cert is not None:
            context.load_cert_chain(tls.client_cert, tls.client_key)
    except (ssl.SSLError, OSError) as exc:
        raise UsageError("a certificate or key of the fs section cannot be read as PEM") from exc
    if tls.insecure_skip_validation:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class _Credentials(Provider):
    """Keys from the URL, or from where AWS's and MinIO's tools look for them.

    The metadata service of a cloud machine is asked last, with time-outs of a second, since
    elsewhere nobody answers there.
    """

    def __init__(self, access_key: str, secret_key: str) -> None:
        self._had_some = False
        self._provider: StaticProvider | ChainedProvider
        if access_key:
            self._provider = StaticProvider(access_key, secret_key)
        else:
            metadata_service = urllib3.PoolManager(
                timeout=urllib3.Timeout(connect=1.0, read=2.0), retries=False
            )
            self._provider = ChainedProvider(
                [
                    EnvAWSProvider(),
                    EnvMinioProvider(),
                    AWSConfigProvider(),
                    MinioClientConfigProvider(),
                    IamAwsProvider(http_client=metadata_service),
                ]
            )

    def retrieve(self) -> Credentials:
        try:
            credentials = self._provider.retrieve()
        except (ValueError, KeyError, OSError, HTTPError, configparser.Error) as exc:
            log.debug("no S3 credentials: %s", type(exc).__name__)
            if self._had_some:  # a renewal that failed may work later
                raise StoreUnavailable("the S3 credentials cannot be renewed now") from exc
            raise AccessDenied(
                "no S3 credentials: put access_key and secret_key into fs.url, or set "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            ) from exc
        self._had_some = True
        return credentials


class Client(minio.Minio):
    """See the module. Calls raise only errors of `cozyfs.errors`.

    *region* avoids a request for the bucket's location: without one, ``us-east-1`` is said to
    every server but AWS, where minio finds it out.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        access_key: str = "",
        secret_key: str = "",
        secure: bool = True,
        region: str = "",
        parallel: int = 32,
        read_timeout_s: float = READ_TIMEOUT_S,
        tls: TlsOptions | None = None,
    ) -> None:
        on_aws = ".amazonaws.com" in f"{endpoint.partition(':')[0]}.".lower()
        pool = http_pool(
            secure=secure,
            parallel=parallel,
            tls=tls or TlsOptions(),
            read_timeout_s=read_timeout_s,
        )
        try:
            super().__init__(
                endpoint,
                secure=secure,
                region=region or (None if on_aws else "us-east-1"),
                http_client=pool,
            )
        except ValueError as exc:
            raise UsageError(f"fs.url: {exc}") from exc
        self._keys = _Credentials(access_key, secret_key)
        self._provider = self._keys
        self._pools: dict[str, HTTPConnectionPool] = {}

    @property
    def host(self) -> str:
        """Host and port, for messages."""
        return self._base_url.host

    @property
    def location(self) -> str:
        """The region to create buckets in, "" when it is not known."""
        return self._base_url.region or ""

    def close(self) -> None:
        """Closes idle connections."""
        self._http.clear()
        self._pools.clear()

    def _build_headers(
        self,
        host: str,
        headers: dict[str, Any] | None = None,
        body: Any = None,
        creds: Credentials | None = None,
    ) -> tuple[dict[str, Any], datetime]:
        """As minio's, but a body with a Content-MD5, which is signed, is not hashed again."""
        headers = headers or {}
        if creds is not None and ("Content-MD5" in headers or not body):
            headers["Host"] = host
            headers["User-Agent"] = self._user_agent
            headers["x-amz-content-sha256"] = "UNSIGNED-PAYLOAD" if body else _EMPTY_SHA256
            if isinstance(body, bytes | memoryview):
                headers["Content-Length"] = str(len(body))
            if creds.session_token:
                headers["X-Amz-Security-Token"] = creds.session_token
            now = datetime.now(UTC)
            headers["x-amz-date"] = now.strftime("%Y%m%dT%H%M%SZ")
            return headers, now
        return super()._build_headers(host, headers, body, creds)

    def _url_open(
        self,
        method: str,
        region: str,
        bucket_name: str | None = None,
        object_name: str | None = None,
        body: bytes | Iterable[bytes | memoryview] | None = None,
        headers: dict[str, Any] | None = None,
        query_params: dict[str, Any] | None = None,
        preload_content: bool = True,
        no_body_trace: bool = False,
    ) -> BaseHTTPResponse:
        """One signed request. A body that is not bytes comes with Content-Length and -MD5."""
        creds = self._keys.retrieve()
        url = self._base_url.build(
            method=method,
            region=region,
            bucket_name=bucket_name,
            object_name=object_name,
            query_params=query_params,
        )
        headers, date = self._build_headers(url.netloc, headers, body, creds)
        signed: Any = sign_v4_s3(
            method=method,
            url=url,
            region=region,
            headers=headers,
            credentials=creds,
            content_sha256=headers["x-amz-content-sha256"],
            date=date,
        )
        target = f"{url.path}?{url.query}" if url.query else url.path
        with self.transport_errors():
            response = self._pool_of(url.scheme, url.netloc).urlopen(
                method,
                target,
                body=body,  # type: ignore[arg-type]  # blocks may be memoryviews: sendall takes them
                headers=signed,
                redirect=False,
                assert_same_host=False,
                preload_content=preload_content,
                decode_content=False,
            )
            if response.status in (200, 204, 206):
                return response
            answer = response.read() if not preload_content else response.data
        if not preload_content:
            response.release_conn()
        raise from_answer(
            method, response.status, response.headers, answer or b"", has_key=bool(object_name)
        )

    def _pool_of(self, scheme: str, netloc: str) -> HTTPConnectionPool:
        """urllib3 parses the URL and builds a key for every request; hosts are few here."""
        pool = self._pools.get(netloc)
        if pool is None:
            pool = self._pools[netloc] = self._http.connection_from_url(f"{scheme}://{netloc}")
        return pool

    @contextmanager
    def transport_errors(self) -> Iterator[None]:
        """Translates what urllib3 and the socket raise; also around reading an answer."""
        try:
            yield
        except (HTTPError, http.client.HTTPException, OSError) as exc:
            raise from_transport(exc, self.host) from exc

    def call(
        self,
        method: str,
        bucket: str | None = None,
        key: str | None = None,
        *,
        query: Mapping[str, str] | None = None,
        headers: dict[str, str] | None = None,
        body: bytes | Iterable[bytes | memoryview] | None = None,
        stream: bool = False,
    ) -> BaseHTTPResponse:
        """One request for the store. With *stream* the caller reads and releases the answer."""
        return self._execute(
            method,
            bucket,
            key,
            body=body,  # type: ignore[arg-type]  # see _url_open
            headers=headers,  # type: ignore[arg-type]  # minio's dictionary is invariant
            query_params=dict(query) if query else None,
            preload_content=not stream,
        )
