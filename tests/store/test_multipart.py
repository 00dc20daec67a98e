"""The ladder of part sizes, and the ETag of an object of parts."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cozyfs.store import MAX_PART_SIZE, MAX_PARTS, MIN_PART_SIZE, composite_etag, part_size_at
from cozyfs.values import MAX_FILE_SIZE


def test_the_largest_file_fits_in_the_parts_that_s3_allows():
    offset = count = 0
    while offset < MAX_FILE_SIZE:
        offset += part_size_at(offset)
        count += 1

    assert count <= MAX_PARTS


def test_the_first_parts_are_of_8_mib():
    assert part_size_at(0) == part_size_at(1 << 30) == 8 << 20


@given(st.integers(0, MAX_FILE_SIZE))
def test_every_part_has_a_size_that_s3_takes(offset):
    assert MIN_PART_SIZE <= part_size_at(offset) <= MAX_PART_SIZE
    assert part_size_at(offset) % (1 << 20) == 0


@given(st.integers(0, MAX_FILE_SIZE), st.integers(0, MAX_FILE_SIZE))
def test_parts_never_get_smaller_with_the_offset(one, other):
    assert part_size_at(min(one, other)) <= part_size_at(max(one, other))


def test_there_is_no_part_before_the_start():
    with pytest.raises(ValueError, match="-1"):
        part_size_at(-1)


def test_a_composite_etag_is_the_md5_of_the_md5s_and_their_number():
    md5s = [hashlib.md5(part).digest() for part in (b"one", b"two")]

    assert composite_etag(md5s) == hashlib.md5(md5s[0] + md5s[1]).hexdigest() + "-2"
