"""Data extents of sparse contents."""

from __future__ import annotations

import itertools
import json

from hypothesis import given
from hypothesis import strategies as st

from cozyfs.vfs import extents
from cozyfs.vfs.extents import MAX_EXTENTS, MIN_HOLE, MIN_SAVED, Extent

gaps = st.integers(0, 3 * MIN_HOLE)
ranges = st.lists(st.tuples(gaps, st.integers(1, 5000)), max_size=20)


def laid_out(pairs):
    """Sorted disjoint (start, stop) from (gap before, length)."""
    position, found = 0, []
    for gap, length in pairs:
        found.append((position + gap, position + gap + length))
        position += gap + length
    return found


@given(ranges, gaps)
def test_extents_and_holes_cover_the_content_once_and_in_order(pairs, rest):
    data = laid_out(pairs)
    size = (data[-1][1] if data else 0) + rest
    made = extents.of_data(data)
    located = extents.located(extents.encode(made), size)
    position = offset = 0
    for start, stop, at in located:
        assert start == position < stop
        position = stop
        if at is not None:
            assert at == offset
            offset += stop - start
    assert position == size
    assert offset == sum(e.length for e in made)
    assert [Extent(a, b - a) for a, b, at in located if at is not None] == made


@given(ranges)
def test_all_data_is_in_an_extent_and_only_short_holes_are(pairs):
    data = laid_out(pairs)
    made = extents.of_data(data)
    for start, stop in data:
        assert any(e.start <= start and stop <= e.start + e.length for e in made)
    for before, after in itertools.pairwise(made):
        assert after.start - (before.start + before.length) >= MIN_HOLE


@given(st.lists(st.builds(Extent, st.integers(0, 1 << 50), st.integers(1, 1 << 50))))
def test_encoded_extents_come_back(made):
    assert list(extents.decode(extents.encode(made))) == made


def test_the_trailer_is_a_json_list_of_starts_and_lengths():
    blob = extents.encode([Extent(0, 5), Extent(1 << 40, 7)])
    assert json.loads(blob) == [[0, 5], [1 << 40, 7]]


def test_a_dense_content_is_one_piece():
    assert extents.located(None, 10) == [(0, 10, 0)]
    assert extents.located(None, 0) == []


def test_a_content_without_data_is_one_hole():
    assert extents.located(extents.encode([]), 10) == [(0, 10, None)]


def test_leaving_holes_out_has_to_save_enough():
    assert extents.worth_it([Extent(0, 10)], MIN_SAVED + 10)
    assert not extents.worth_it([Extent(0, 10)], MIN_SAVED + 9)


def test_too_many_extents_are_not_worth_it():
    many = [Extent(i * 2 * MIN_HOLE, 1) for i in range(MAX_EXTENTS + 1)]
    assert not extents.worth_it(many, 1 << 50)
    assert extents.worth_it(many[:-1], 1 << 50)
