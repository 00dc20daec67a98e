"""Bodies: the same bytes however they are read, and as often as wanted."""

from __future__ import annotations

import hashlib
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cozyfs.store import BytesBody, FileBody, PiecesBody, md5_of

DATA = os.urandom(3_000_000)


def read_in_steps(body, step):
    reader = body.open()
    got = []
    while data := reader.read(step):
        assert len(data) <= step
        got.append(data)
    reader.close()
    return b"".join(got)


@pytest.fixture(params=["bytes", "memoryview", "file", "descriptor", "pieces"])
def body(request, tmp_path):
    path = tmp_path / "staged"
    path.write_bytes(b"head" + DATA + b"tail")
    fd = os.open(path, os.O_RDONLY)
    yield {
        "bytes": BytesBody(DATA),
        "memoryview": BytesBody(memoryview(DATA)),
        "file": FileBody(path, 4, len(DATA)),
        "descriptor": FileBody(fd, 4, len(DATA)),
        "pieces": PiecesBody([DATA[:10], FileBody(fd, 14, len(DATA) - 20), b"", DATA[-10:]]),
    }[request.param]
    os.close(fd)


def test_a_body_knows_its_size(body):
    assert body.size == len(DATA)


def test_a_body_can_be_read_again_from_its_start(body):
    assert read_in_steps(body, 65_536) == DATA
    assert read_in_steps(body, 1_000_003) == DATA


def test_two_readers_of_one_body_do_not_disturb_each_other(body):
    first, second = body.open(), body.open()

    assert first.read(100) == DATA[:100]
    assert second.read(50) == DATA[:50]
    assert first.read(100) == DATA[100:200]
    first.close()
    second.close()


def test_chunks_are_the_same_bytes_and_not_large(body):
    chunks = list(body.chunks())

    assert b"".join(chunks) == DATA
    assert max(map(len, chunks)) <= 4 << 20


def test_the_md5_of_a_body_is_that_of_its_bytes(body):
    assert md5_of(body) == hashlib.md5(DATA).digest()
    assert md5_of(DATA) == hashlib.md5(DATA).digest()


def test_a_file_without_a_size_is_sent_to_its_end(tmp_path):
    (tmp_path / "f").write_bytes(b"0123456789")

    assert FileBody(tmp_path / "f").size == 10
    assert read_in_steps(FileBody(tmp_path / "f", 7), 100) == b"789"


@given(st.lists(st.binary(max_size=20), max_size=8), st.integers(1, 30))
def test_pieces_are_one_after_the_other(pieces, step):
    body = PiecesBody(pieces)

    assert read_in_steps(body, step) == b"".join(pieces)
    assert body.size == sum(map(len, pieces))
