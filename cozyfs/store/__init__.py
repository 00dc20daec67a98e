"""Objects in buckets: one contract (`cozyfs.store.base`), on S3 and in a local folder.

:func:`open_store` gives the store that an fs URL names. Key and bucket formulas, bodies and the
arithmetic of multipart uploads are here too; who may use a store from which thread is said in
`cozyfs.store.base`.
"""

from __future__ import annotations

from cozyfs.store.base import (
    MAX_PART_SIZE,
    MAX_PARTS,
    MAX_PUT_SIZE,
    MIN_PART_SIZE,
    Body,
    ObjectInfo,
    PendingUpload,
    Store,
)
from cozyfs.store.body import BytesBody, FileBody, PiecesBody, md5_of
from cozyfs.store.local import LocalStore
from cozyfs.store.multipart import composite_etag, part_size_at
from cozyfs.store.s3_options import READ_TIMEOUT_S, TlsOptions
from cozyfs.store.url import FsUrl, Settings, parse_fs_url

__all__ = [
    "MAX_PARTS",
    "MAX_PART_SIZE",
    "MAX_PUT_SIZE",
    "MIN_PART_SIZE",
    "Body",
    "BytesBody",
    "FileBody",
    "FsUrl",
    "LocalStore",
    "ObjectInfo",
    "PendingUpload",
    "PiecesBody",
    "Settings",
    "Store",
    "TlsOptions",
    "composite_etag",
    "md5_of",
    "open_store",
    "parse_fs_url",
    "part_size_at",
]

SHORTEST_TIMEOUT_S = 5.0
"""A server that works may take this long to answer, however impatient the caller is."""


def open_store(
    source: FsUrl | Settings, *, parallel: int = 32, timeout_s: float = READ_TIMEOUT_S
) -> Store:
    """The store that *source* names; UsageError for a folder that is not ours. No request is
    made yet. To be called after the fork to the background. *timeout_s* is how long its caller
    is ready to wait for a server that is silent."""
    settings = source if isinstance(source, Settings) else Settings(source)
    url = settings.url
    if url.path:
        return LocalStore(url.path)
    from cozyfs.store.s3 import S3Store  # only where it is needed, see s3_options

    return S3Store(
        url.host,
        access_key=url.access_key,
        secret_key=url.secret_key,
        use_ssl=url.use_ssl,
        region=url.region,
        parallel=parallel,
        read_timeout_s=min(max(timeout_s, SHORTEST_TIMEOUT_S), READ_TIMEOUT_S),
        tls=TlsOptions(
            root_ca=settings.root_ca,
            client_cert=settings.client_cert,
            client_key=settings.client_key,
            insecure_skip_validation=settings.insecure_skip_validation,
        ),
    )
