"""What a handle reads next, and the checksum of what it read."""

from __future__ import annotations

import hashlib

from hypothesis import given, settings
from hypothesis import strategies as st

from cozyfs.vfs import readahead
from cozyfs.vfs.readahead import (
    CHUNK,
    EARLY,
    FIRST_WINDOW,
    LARGEST_WINDOW,
    ReadAhead,
    SequentialHash,
)

MIB = 1 << 20
KIB = 1 << 10
NO_LIMIT = 1 << 40


def sequential(size, step, limit=NO_LIMIT):
    """(ranges asked for, with the position of the reader) of a reader from start to end."""
    ahead, asked = ReadAhead(), []
    for start in range(0, size, step):
        stop = min(start + step, size)
        asked += [(stop, *found) for found in ahead.advance(start, stop, size, limit)]
    return asked


@settings(deadline=None)
@given(st.integers(1, 200 * MIB), st.integers(64 * KIB, 4 * MIB), st.integers(1, 1 << 30))
def test_a_sequential_reader_is_never_asked_for_a_byte_twice_or_beyond_the_end(size, step, limit):
    position = 0
    for _, start, stop in sequential(size, step, limit):
        assert position <= start < stop <= size
        assert stop - start <= CHUNK
        position = stop


def test_the_window_doubles_up_to_its_limit():
    asked = sequential(300 * MIB, 128 * KIB)
    reach = [stop - reader for reader, _, stop in asked]
    assert reach[0] == FIRST_WINDOW
    assert max(reach) == LARGEST_WINDOW
    assert (
        max(r for r, (reader, _, _) in zip(reach, asked, strict=True) if reader < MIB) <= 4 * MIB
    )


def test_the_window_stays_within_the_share_of_the_cache():
    asked = sequential(100 * MIB, 128 * KIB, limit=3 * MIB)
    assert max(stop - reader for reader, _, stop in asked) <= 3 * MIB


def test_most_of_a_file_is_asked_for_before_it_is_read():
    asked = sequential(100 * MIB, 128 * KIB)
    assert sum(stop - start for _, start, stop in asked) > 98 * MIB
    assert all(start >= reader for reader, start, _ in asked)


def test_a_consumer_that_stops_early_is_asked_again():
    ahead = ReadAhead()
    first = next(iter(ahead.advance(0, MIB, 100 * MIB, NO_LIMIT)))
    again = next(iter(ahead.advance(MIB, MIB + 1, 100 * MIB, NO_LIMIT)))
    assert first[0] == MIB
    assert again[0] == MIB + 1


def test_a_random_reader_has_nothing_fetched():
    ahead = ReadAhead()
    for start in (50 * MIB, 10 * MIB, 90 * MIB, 30 * MIB):
        assert list(ahead.advance(start, start + 4 * KIB, 100 * MIB, NO_LIMIT)) == []


def test_a_jump_closes_the_window_and_going_on_opens_a_new_one():
    ahead = ReadAhead()
    for start in range(0, 20 * MIB, MIB):
        list(ahead.advance(start, start + MIB, 100 * MIB, NO_LIMIT))
    assert list(ahead.advance(60 * MIB, 61 * MIB, 100 * MIB, NO_LIMIT)) == []
    (found,) = ahead.advance(61 * MIB, 62 * MIB, 100 * MIB, NO_LIMIT)
    assert found == (62 * MIB, 62 * MIB + FIRST_WINDOW)


def test_a_small_file_needs_none():
    assert sequential(FIRST_WINDOW, 64 * KIB) == []


@settings(deadline=None)
@given(st.integers(1, 60), st.randoms(use_true_random=False))
def test_reads_that_overtake_each_other_a_little_are_still_sequential(count, random):
    """The kernel sends a few at once and they arrive in any order."""
    step = 128 * KIB
    reads = [(i * step, (i + 1) * step) for i in range(count)]
    for i in range(0, count - 3, 4):
        group = reads[i : i + 4]
        random.shuffle(group)
        reads[i : i + 4] = group
    ahead, seen = ReadAhead(), 0
    for start, stop in reads:
        for begin, end in ahead.advance(start, stop, count * step, NO_LIMIT):
            assert seen <= begin < end <= count * step
            seen = end


# ---- the checksum


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 2000), min_size=1, max_size=40),
    st.integers(1, 6),
    st.randoms(use_true_random=False),
)
def test_reads_that_overtake_each_other_give_the_md5_of_the_whole(lengths, together, random):
    data = bytes(i * 7 % 251 for i in range(sum(lengths)))
    reads, position = [], 0
    for length in lengths:
        reads.append((position, data[position : position + length]))
        position += length
    for i in range(0, len(reads), together):
        group = reads[i : i + together]
        random.shuffle(group)
        reads[i : i + together] = group
    whole = SequentialHash()
    for start, chunk in reads:
        assert not whole.complete(len(data))
        whole.feed(start, chunk)
        if random.random() < 0.3:
            whole.update(whole.take())
    assert whole.complete(len(data))
    assert whole.update(whole.take()) == hashlib.md5(data).digest()


def test_what_waits_to_be_hashed_is_counted():
    whole = SequentialHash()
    whole.feed(10, b"x" * 10)
    assert whole.pending_size == 0
    whole.feed(0, b"x" * 10)
    assert whole.pending_size == 20
    assert whole.take() == [b"x" * 10, b"x" * 10]
    assert whole.pending_size == 0


def test_a_jump_ends_the_attempt():
    whole = SequentialHash()
    whole.feed(0, b"x")
    whole.feed(2 + EARLY, b"x")
    assert not whole.alive
    whole.feed(1, b"x")
    assert not whole.complete(2)


def test_reading_again_ends_the_attempt():
    whole = SequentialHash()
    whole.feed(0, b"x" * 10)
    whole.feed(5, b"x")
    assert not whole.alive


def test_bytes_that_wait_are_bounded():
    whole = SequentialHash()
    for start in range(1, 100 * MIB, readahead.EARLY // 4):
        whole.feed(start, b"x")
    assert not whole.alive
    assert not whole._early
