"""The one door to blocking work: what is tried again, for how long, and what is not."""

from __future__ import annotations

import itertools
import threading

import pytest
import trio

from cozyfs.errors import AccessDenied, ChecksumMismatch, ObjectNotFound, StoreUnavailable
from cozyfs.threads import LONGEST_PAUSE_S, Caller


class Failing:
    """A call that fails with each of *errors*, then works."""

    def __init__(self, *errors):
        self.errors = list(errors)
        self.calls = []

    def __call__(self, *args, **kwargs):
        self.calls.append((args, kwargs))
        if self.errors:
            raise self.errors.pop(0)
        return "done"


async def test_a_call_runs_in_a_thread_with_its_arguments(autojump_clock):
    def call(one, *, two):
        return threading.current_thread() is threading.main_thread(), one, two

    assert await Caller().store(call, 1, two=2) == (False, 1, 2)
    assert await Caller().disk(call, 1, two=2) == (False, 1, 2)


async def test_what_may_pass_is_tried_again_with_the_same_arguments(autojump_clock):
    call = Failing(StoreUnavailable("busy"), ChecksumMismatch("bits"), StoreUnavailable("busy"))
    caller = Caller()

    assert await caller.store(call, "key", part=1) == "done"

    assert call.calls == [(("key",), {"part": 1})] * 4
    assert caller.retries == 3


@pytest.mark.parametrize("error", [ObjectNotFound("gone"), AccessDenied("no"), ValueError("bug")])
async def test_what_does_not_pass_is_told_at_once(autojump_clock, error):
    call = Failing(error)

    with pytest.raises(type(error)):
        await Caller().store(call)

    assert len(call.calls) == 1
    assert trio.current_time() == autojump_clock.current_time()


async def test_failures_go_on_for_no_longer_than_the_time_out(autojump_clock):
    call = Failing(*[StoreUnavailable("down")] * 1000)
    before = trio.current_time()

    with pytest.raises(StoreUnavailable):
        await Caller(timeout_s=60).store(call)

    assert 60 - LONGEST_PAUSE_S <= trio.current_time() - before <= 60
    assert len(call.calls) < 60


async def test_pauses_grow_and_are_never_the_same_for_all(autojump_clock):
    times = []

    def call():
        times.append(trio.from_thread.run_sync(trio.current_time))
        raise StoreUnavailable("down")

    with pytest.raises(StoreUnavailable):
        await Caller(timeout_s=60).store(call)

    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert 0.05 <= pauses[0] <= 0.1
    assert max(pauses) <= LONGEST_PAUSE_S
    assert min(pauses[-5:]) >= LONGEST_PAUSE_S / 2
    assert len(set(pauses[-5:])) == 5


async def test_the_time_before_the_first_failure_does_not_count(autojump_clock):
    """A long upload that fails once at its end is not given up for its length."""

    class Slow(Failing):
        def __call__(self):
            if not self.calls:
                trio.from_thread.run(trio.sleep, 3600)
            return super().__call__()

    assert await Caller(timeout_s=10).store(Slow(StoreUnavailable("cut"))) == "done"


async def test_waiting_for_another_attempt_can_be_cancelled(autojump_clock):
    with trio.move_on_after(3) as scope:
        await Caller(timeout_s=1000).store(Failing(*[StoreUnavailable("down")] * 1000))

    assert scope.cancelled_caught


async def test_the_disk_is_not_tried_again(autojump_clock):
    call = Failing(StoreUnavailable("odd"))

    with pytest.raises(StoreUnavailable):
        await Caller().disk(call)

    assert len(call.calls) == 1


async def test_no_more_calls_run_at_once_than_allowed():
    running, most, lock = 0, 0, threading.Lock()
    full = threading.Barrier(3, timeout=10)

    def call():
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        full.wait()
        with lock:
            running -= 1

    caller = Caller(parallel=3)
    async with trio.open_nursery() as nursery:
        for _ in range(9):
            nursery.start_soon(caller.store, call)

    assert most == 3
