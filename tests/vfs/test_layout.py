"""What the object of a draft holds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cozyfs.vfs import extents
from cozyfs.vfs.extents import MIN_SAVED
from cozyfs.vfs.layout import Layout
from cozyfs.vfs.pieces import Kind, PieceTable

pieces = st.lists(
    st.one_of(
        st.tuples(st.just(Kind.MEMORY), st.binary(min_size=1, max_size=20)),
        st.tuples(st.just(Kind.HOLE), st.integers(1, 9)),
    ),
    max_size=8,
)


def table_of(drawn):
    table = PieceTable()
    for kind, what in drawn:
        if kind is Kind.HOLE:
            table.append(what, kind)
        else:
            table.write(table.size, what)
    return table


def ranges(layout):
    return [(start, stop) for start, stop, _ in layout.slices]


def object_bytes(layout):
    """What the layout stands for, but that a hole is one ``-`` for each of its bytes."""
    found = b""
    for start, stop, segment in layout.slices:
        if segment.kind is Kind.HOLE:
            found += b"-" * (stop - start)
        else:
            found += segment.data[start - segment.start : stop - segment.start]
    return found + layout.trailer


def test_a_content_with_small_holes_is_stored_whole():
    layout = Layout.of(table_of([(Kind.MEMORY, b"abc"), (Kind.HOLE, 5), (Kind.MEMORY, b"d")]))
    assert (ranges(layout), layout.trailer) == ([(0, 3), (3, 8), (8, 9)], b"")


def test_of_a_content_with_large_holes_only_the_data_and_where_they_belong():
    table = table_of([(Kind.MEMORY, b"abc"), (Kind.HOLE, MIN_SAVED), (Kind.MEMORY, b"d")])
    layout = Layout.of(table)
    assert ranges(layout) == [(0, 3), (MIN_SAVED + 3, MIN_SAVED + 4)]
    assert extents.decode(layout.trailer) == ((0, 3), (MIN_SAVED + 3, 1))


def test_one_large_hole_is_nothing_but_a_trailer():
    layout = Layout.of(table_of([(Kind.HOLE, MIN_SAVED)]))
    assert layout == Layout([], extents.encode([]))
    assert layout.trailer


def test_an_empty_content_is_an_empty_object():
    assert Layout.of(PieceTable()) == Layout([], b"")


@given(pieces, st.binary(max_size=20), st.integers(1, 30))
def test_windows_side_by_side_are_the_whole(drawn, trailer, step):
    whole = Layout(Layout.of(table_of(drawn)).slices, trailer)
    data = object_bytes(whole)
    for offset in range(0, len(data), step):
        assert object_bytes(whole.window(offset, step)) == data[offset : offset + step]
