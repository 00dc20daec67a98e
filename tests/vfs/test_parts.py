"""Plans of copied and sent parts: every byte once, in order, within the rules of S3."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from cozyfs.store.base import MAX_PART_SIZE, MAX_PARTS, MIN_PART_SIZE
from cozyfs.vfs import parts
from cozyfs.vfs.parts import Copy, Send, plan
from cozyfs.vfs.pieces import Kind, PieceTable

MIB = 1 << 20

kinds = st.sampled_from([Kind.BASE, Kind.BASE, Kind.STAGED, Kind.HOLE])
lengths = st.one_of(
    st.integers(1, 20 * MIB),
    st.integers(1, 5 << 30),
    st.sampled_from([MIN_PART_SIZE - 1, MIN_PART_SIZE, MIN_PART_SIZE + 1, 1]),
)
segments = st.lists(st.tuples(kinds, lengths, st.integers(0, 1 << 40)), min_size=1, max_size=30)


def table_of(layout):
    table = PieceTable()
    for kind, length, offset in layout:
        table.append(length, kind, offset)
    return table


def sources(slices):
    """(kind, length, offset in the base), with neighbours joined."""
    found = []
    for start, stop, segment in slices:
        offset = segment.offset + start - segment.start if segment.kind is Kind.BASE else None
        append(found, segment.kind, stop - start, offset)
    return found


def append(found, kind, length, offset):
    if found and found[-1][0] is kind:
        before = found[-1]
        if offset is None or before[2] + before[1] == offset:
            found[-1] = (kind, before[1] + length, before[2])
            return
    found.append((kind, length, offset))


def sources_of_parts(planned):
    found = []
    for part in planned:
        if isinstance(part, Copy):
            append(found, Kind.BASE, part.stop - part.start, part.start)
        else:
            for kind, length, offset in sources(part.slices):
                append(found, kind, length, offset)
    return found


def size_of(part):
    return part.stop - part.start if isinstance(part, Copy) else part.size


@settings(deadline=None, max_examples=400)
@given(segments)
def test_a_plan_has_every_byte_once_in_order_in_parts_that_s3_takes(layout):
    table = table_of(layout)
    slices = table.slice(0, table.size)
    planned = plan(slices)
    if planned is None:
        return
    assert sources_of_parts(planned) == sources(slices)
    sizes = [size_of(part) for part in planned]
    assert all(size >= MIN_PART_SIZE for size in sizes[:-1])
    assert all(0 < size <= MAX_PART_SIZE for size in sizes)
    assert len(planned) <= MAX_PARTS
    sent = [part for part in planned if isinstance(part, Send)]
    assert all(part.size <= 2 * parts.LARGEST_SEND for part in sent)
    assert all(start < stop for part in sent for start, stop, _ in part.slices)


@settings(deadline=None)
@given(segments)
def test_copying_is_planned_exactly_when_it_saves_enough(layout):
    table = table_of(layout)
    planned = plan(table.slice(0, table.size))
    if planned is not None:
        copied = sum(size_of(part) for part in planned if isinstance(part, Copy))
        assert copied >= parts.WORTH_COPYING
    elif len(layout) == 1:
        kind, length, _ = layout[0]
        assert kind is not Kind.BASE or length < parts.WORTH_COPYING


def test_a_short_dirty_range_is_filled_up_with_clean_bytes():
    table = table_of([(Kind.BASE, 20 * MIB, 0), (Kind.STAGED, 10, 0)])
    table.append(20 * MIB, Kind.BASE, 20 * MIB + 10)
    assert [size_of(part) for part in plan(table.slice(0, table.size))] == [
        20 * MIB,
        MIN_PART_SIZE,
        20 * MIB + 10 - MIN_PART_SIZE,
    ]


def test_the_last_part_may_be_short():
    table = table_of([(Kind.BASE, 20 * MIB, 0), (Kind.STAGED, 1, 0)])
    planned = plan(table.slice(0, table.size))
    assert planned[0] == Copy(0, 20 * MIB)
    assert planned[1].size == 1


def test_a_clean_range_too_short_for_a_part_travels():
    table = table_of(
        [(Kind.BASE, 16 * MIB, 0), (Kind.STAGED, 5 * MIB, 0), (Kind.BASE, 4 * MIB, 99 * MIB)]
    )
    planned = plan(table.slice(0, table.size))
    assert [type(part) for part in planned] == [Copy, Send]
    assert planned[1].size == 9 * MIB


def test_a_large_range_is_copied_in_equal_shares():
    table = table_of([(Kind.BASE, (5 << 30) + 1, 7)])
    planned = plan(table.slice(0, table.size))
    assert len(planned) == 6
    assert planned[0].start == 7
    assert planned[-1].stop == 7 + (5 << 30) + 1


def test_more_parts_than_there_may_be_are_not_planned():
    table = PieceTable()
    for i in range(MAX_PARTS // 2 + 1):
        table.append(MIN_PART_SIZE, Kind.BASE, i * 10 * MIB)
        table.append(MIN_PART_SIZE, Kind.STAGED)
    assert plan(table.slice(0, table.size)) is None


def test_little_to_copy_is_sent():
    table = table_of([(Kind.BASE, parts.WORTH_COPYING - 1, 0), (Kind.STAGED, 1, 0)])
    assert plan(table.slice(0, table.size)) is None
