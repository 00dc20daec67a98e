"""Tasks beside a piece of work end with it, and an error of the work leaves as it is."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from cozyfs.errors import NotFound
from cozyfs.nurseries import background_tasks


async def test_tasks_end_with_the_body():
    ended = []

    async def task():
        try:
            await trio.sleep_forever()
        finally:
            ended.append(True)

    with trio.fail_after(5):
        async with background_tasks() as nursery:
            nursery.start_soon(task)
            await trio.testing.wait_all_tasks_blocked()
    assert ended == [True]


async def test_an_error_of_the_body_leaves_without_a_group():
    async def body() -> None:
        async with background_tasks() as nursery:
            nursery.start_soon(trio.sleep_forever)
            raise NotFound("gone")

    with pytest.raises(NotFound, match="gone"):
        await body()


async def test_a_task_that_fails_cancels_the_body():
    async def task():
        raise NotFound("gone")

    async def body() -> None:
        async with background_tasks() as nursery:
            nursery.start_soon(task)
            await trio.sleep_forever()

    with trio.fail_after(5), pytest.raises(ExceptionGroup) as caught:
        await body()
    assert caught.group_contains(NotFound)


async def test_a_task_may_end_the_body():
    with trio.fail_after(5):
        async with background_tasks() as nursery:
            nursery.start_soon(lambda: _cancel(nursery))
            await trio.sleep_forever()


async def _cancel(nursery):
    nursery.cancel_scope.cancel()
