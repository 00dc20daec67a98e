"""Reading by blocks: the right bytes, each block asked for once, no more memory than allowed."""

from __future__ import annotations

import trio
from hypothesis import given
from hypothesis import strategies as st

from cozyfs.joined.blocks import BLOCK, BlockReader, new_blocks

DATA = bytes(range(256)) * (3 * BLOCK // 256) + b"end"


class Source:
    def __init__(self):
        self.asked = []

    async def fetch(self, start, stop):
        self.asked.append(start // BLOCK)
        await trio.lowlevel.checkpoint()
        return DATA[start:stop]


@given(st.lists(st.tuples(st.integers(0, len(DATA) + 10), st.integers(0, 2 * BLOCK)), max_size=5))
def test_any_range_is_what_it_should_be(ranges):
    async def check():
        reader = BlockReader(new_blocks(2 * BLOCK), len(DATA), Source().fetch)
        for offset, size in ranges:
            assert await reader.read(offset, size) == DATA[offset : offset + size]

    trio.run(check)


async def test_requests_at_the_same_time_ask_for_a_block_once():
    source = Source()
    reader = BlockReader(new_blocks(), len(DATA), source.fetch)
    async with trio.open_nursery() as nursery:
        for offset in range(0, BLOCK, BLOCK // 8):
            nursery.start_soon(reader.read, offset, BLOCK // 8)
    assert source.asked == [0]


async def test_what_was_kept_goes_when_the_file_is_closed():
    blocks = new_blocks(2 * BLOCK)
    reader = BlockReader(blocks, len(DATA), Source().fetch)
    await reader.read(0, len(DATA))
    assert 0 < blocks.currsize <= 2 * BLOCK
    await reader.close()
    assert blocks.currsize == 0
