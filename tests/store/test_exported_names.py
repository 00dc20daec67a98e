"""The public names of cozyfs.store, and what open_store makes of a URL."""

from __future__ import annotations

import pytest

import cozyfs.store
from cozyfs.store import LocalStore, Settings, open_store, parse_fs_url
from cozyfs.store.s3 import S3Store


def test_every_public_name_is_there():
    assert set(cozyfs.store.__all__) == {
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
    }
    assert all(hasattr(cozyfs.store, name) for name in cozyfs.store.__all__)


def test_a_local_url_opens_a_local_store(tmp_path):
    store = open_store(parse_fs_url(f"file://{tmp_path}/store"))

    assert isinstance(store, LocalStore)
    assert store.description == f"local folder {tmp_path}/store"


@pytest.mark.parametrize("wrap", [Settings, lambda url: url], ids=["settings", "url"])
def test_an_s3_url_opens_an_s3_store_without_any_request(wrap):
    url = parse_fs_url("s3://s3.example.com:9000?access_key=VERY&secret_key=HIDDEN")

    store = open_store(wrap(url))

    assert isinstance(store, S3Store)
    assert store.description == "S3 at s3.example.com:9000"
    store.close()
