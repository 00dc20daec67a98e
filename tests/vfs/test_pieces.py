"""The piece table against a bytearray, with its bookkeeping checked after every step."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from cozyfs.vfs import pieces
from cozyfs.vfs.pieces import Kind, PieceTable

SPAN = 64

positions = st.integers(0, SPAN)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), positions, st.integers(1, 24), st.booleans()),
        st.tuples(st.just("append"), st.integers(1, 8)),
        st.tuples(st.just("mark"), positions, positions, st.sampled_from(list(Kind))),
        st.tuples(st.just("resize"), positions),
        st.tuples(st.just("clear")),
    ),
    max_size=30,
)


class Model:
    """For each byte: which kind of source it has, and its value or its offset in the base."""

    def __init__(self):
        self.cells = []

    def write(self, start, data):
        self.cells.extend([(Kind.HOLE, 0)] * (start - len(self.cells)))
        self.cells[start : start + len(data)] = [(Kind.MEMORY, byte) for byte in data]

    def mark(self, start, stop, kind):
        cells = [(kind, 1000 + i if kind is Kind.BASE else 0) for i in range(stop - start)]
        self.cells[start:stop] = cells

    def resize(self, size):
        del self.cells[size:]
        self.cells.extend([(Kind.HOLE, 0)] * (size - len(self.cells)))


def cells_of(table, start=0, stop=None):
    found = []
    for begin, end, segment in table.slice(start, table.size if stop is None else stop):
        for position in range(begin, end):
            skip = position - segment.start
            if segment.kind is Kind.MEMORY:
                found.append((Kind.MEMORY, segment.data[skip]))
            else:
                base = segment.offset + skip if segment.kind is Kind.BASE else 0
                found.append((segment.kind, base))
    return found


def check(table):
    position = 0
    for segment in table:
        assert segment.start == position < segment.stop
        position = segment.stop
        if segment.kind is Kind.MEMORY:
            assert len(segment.data) == len(segment)
    assert table.size == position
    assert table.memory == sum(len(s.data) for s in table)
    buffers = [id(s.data) for s in table if isinstance(s.data, bytearray)]
    assert len(buffers) == len(set(buffers))  # one owner each


def apply(table, model, step, number):
    kind, *arguments = step
    if kind == "write":
        start, length, mutable = arguments
        data = bytes((number * 31 + i) % 256 for i in range(length))
        model.write(start, data)
        table.write(start, bytearray(data) if mutable else data)
    elif kind == "append":
        data = bytes((number * 17 + i) % 256 for i in range(arguments[0]))
        model.write(table.size, data)
        table.write(table.size, data)
    elif kind == "mark":
        start, stop = sorted(min(a, table.size) for a in arguments[:2])
        if arguments[2] is not Kind.MEMORY:  # memory comes by write alone
            model.mark(start, stop, arguments[2])
            table.mark(start, stop, arguments[2], 1000)
    elif kind == "resize":
        model.resize(arguments[0])
        table.resize(arguments[0])
    else:
        model.cells.clear()
        table.clear()


@settings(deadline=None, max_examples=400)
@given(steps, positions, positions)
def test_a_table_is_the_bytes_that_were_put_in(program, start, stop):
    table, model = PieceTable(), Model()
    for number, step in enumerate(program):
        apply(table, model, step, number)
        check(table)
        assert cells_of(table) == model.cells
    assert cells_of(table, start, stop) == model.cells[start:stop]


def test_small_sequential_writes_share_one_buffer():
    table = PieceTable()
    for i in range(100):
        table.write(i * 10, b"0123456789")
    assert len(list(table)) == 1
    assert table.memory == 1000


def test_a_buffer_is_shared_up_to_its_limit(monkeypatch):
    monkeypatch.setattr(pieces, "COALESCE_LIMIT", 100)
    table = PieceTable()
    for i in range(30):
        table.write(i * 10, b"0123456789")
    assert [len(segment) for segment in table] == [100, 100, 100]


def test_a_large_write_keeps_its_own_buffer_uncopied():
    table = PieceTable()
    data = bytes(pieces.SMALL_WRITE)
    table.write(0, b"x")
    table.write(1, data)
    assert next(reversed(list(table))).data is data


def test_a_body_that_still_looks_at_a_buffer_does_not_stop_the_writer():
    table = PieceTable()
    table.write(0, bytearray(b"abc"))
    (segment,) = table
    view = memoryview(segment.data)
    table.write(3, b"def")
    assert cells_of(table) == [(Kind.MEMORY, b) for b in b"abcdef"]
    assert bytes(view) == b"abc"
    assert table.memory == 6


def test_neighbours_of_one_source_become_one_segment():
    table = PieceTable()
    table.append(10, Kind.BASE, 100)
    table.append(10, Kind.BASE, 110)
    table.append(10, Kind.BASE, 500)
    table.append(5, Kind.HOLE)
    table.append(5, Kind.HOLE)
    assert [repr(s) for s in table] == ["<base 0-20>", "<base 20-30>", "<hole 30-40>"]


def test_writing_nothing_changes_nothing():
    table = PieceTable()
    table.write(10, b"")
    assert table.size == 0
