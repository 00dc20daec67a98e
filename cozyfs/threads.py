"""The one door from the event loop to blocking work, and the one place that tries again.

Store calls block on the network, staging files on the disk; both run in worker threads, at
most ``parallel`` at a time. A call in a thread cannot be cancelled, so each attempt is bounded
by the store's own socket time-outs and the pauses between attempts happen here, on the loop,
where cancellation works.
"""

from __future__ import annotations

import logging
import math
import random
from typing import IO, TYPE_CHECKING, ParamSpec, TypeVar

import trio

from cozyfs.errors import ChecksumMismatch, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0


class Caller:
    """Runs blocking calls in threads; :meth:`store` tries again, :meth:`disk` does not.

    *timeout_s* bounds how long failures may go on: counted from the first failed attempt, so
    that a long upload which works is never cut.
    """

    def __init__(self, *, parallel: int = 32, timeout_s: float = 60.0) -> None:
        self.timeout_s = timeout_s
        self.retries = 0
        self._network = trio.CapacityLimiter(parallel)
        self._disk = trio.CapacityLimiter(8)

    async def store(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """*call* in a thread, again after StoreUnavailable or ChecksumMismatch, with growing
        jittered pauses, until ``timeout_s`` have passed since its first failure."""
        deadline = math.inf
        pause = FIRST_PAUSE_S
        while True:
            try:
                return await trio.to_thread.run_sync(
                    lambda: call(*args, **kwargs), limiter=self._network
                )
            except (StoreUnavailable, ChecksumMismatch) as exc:
                now = trio.current_time()
                deadline = min(deadline, now + self.timeout_s)
                # Half fixed, half random: retries of many parts must not come in step.
                wait = pause * (0.5 + random.random() / 2)
                if now + wait > deadline:
                    raise
                self.retries += 1
                log.debug("%s failed (%s), again in %.1f s", _name(call), exc, wait)
                await trio.sleep(wait)
                pause = min(pause * 2, LONGEST_PAUSE_S)

    async def disk(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """*call* in a thread, once."""
        return await trio.to_thread.run_sync(lambda: call(*args, **kwargs), limiter=self._disk)


def _name(call: Callable[..., object]) -> str:
    return getattr(call, "__name__", repr(call))


class Interruptible:
    """*file*, read in a thread of :meth:`Caller.disk`; when whoever waits for that is cancelled,
    the next read raises trio.Cancelled, which ends the work in the thread."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        trio.from_thread.check_cancelled()
        return self._file.read(size)
