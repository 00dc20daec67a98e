"""A store that fails on demand, around any other: errors, slowness, cut answers, lost parts.

Rules are given per call name and for the n-th call of that name from now on; calls run in worker
threads, so everything here is under one lock but the wrapped call itself. A gate that nobody
opens gives way after ``GATE_TIMEOUT_S``: a test may fail by it, never hang.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from cozyfs.errors import StoreUnavailable

GATE_TIMEOUT_S = 60.0

CALLS = frozenset(
    [
        "check",
        "ensure_bucket",
        "list_buckets",
        "head",
        "get",
        "put",
        "create_multipart",
        "upload_part",
        "copy_part",
        "complete_multipart",
        "abort_multipart",
        "list_multipart",
        "copy",
        "delete",
        "delete_many",
        "delete_prefix",
        "list",
        "list_prefixes",
    ]
)


class Gate:
    """Calls that reach it wait until :meth:`open`; ``reached`` is set by the first."""

    def __init__(self):
        self.reached = threading.Event()
        self._opened = threading.Event()

    def open(self):
        self._opened.set()

    def wait(self):
        self.reached.set()
        if not self._opened.wait(GATE_TIMEOUT_S):
            raise AssertionError("nobody opened the gate")


@dataclass
class _Rule:
    first: int  # number of the first call it is for, counted from 1 over the store's life
    times: float
    error: Exception | None = None
    applied: bool = False
    gate: Gate | None = None
    delay_s: float = 0.0
    cut: int | None = None
    before: object = None
    used: int = field(default=0)


class FailingStore:
    """*inner* with rules; without any it behaves as *inner* does."""

    def __init__(self, inner):
        self.inner = inner
        self.calls = Counter()
        self.log = []  # (name, args) of every call that was let through or refused
        self._rules = {}
        self._lock = threading.Lock()

    def __getattr__(self, name):
        attribute = getattr(self.inner, name)
        if name not in CALLS:
            return attribute

        def call(*args, **kwargs):
            return self._call(name, attribute, args, kwargs)

        call.__name__ = name
        return call

    # ---- what tests say

    def fail(self, name, *, nth=1, times=1, error=None, applied=False):
        """The *nth* call of *name* from now on, and *times* in all, raises *error*
        (StoreUnavailable); *applied*: after it was done, as when the answer is lost."""
        error = error or StoreUnavailable(f"{name} was told to fail")
        self._add(name, nth, times, error=error, applied=applied)

    def fail_always(self, *names, error=None):
        for name in names or CALLS:
            self.fail(name, times=float("inf"), error=error)

    def gate(self, name, *, nth=1, times=1):
        """The call waits, before it is made, for the Gate that is returned."""
        gate = Gate()
        self._add(name, nth, times, gate=gate)
        return gate

    def slow(self, name, delay_s, *, nth=1, times=1):
        self._add(name, nth, times, delay_s=delay_s)

    def cut(self, name, size, *, nth=1, times=1):
        """A ``get`` gives at most *size* bytes, as if the object were shorter."""
        self._add(name, nth, times, cut=size)

    def before(self, name, action, *, nth=1, times=1):
        """*action* runs, in the thread of the call, before it is made."""
        self._add(name, nth, times, before=action)

    def lose_uploads(self, bucket):
        """The server forgets every unfinished multipart upload with its parts."""
        for upload in list(self.inner.list_multipart(bucket, "")):
            self.inner.abort_multipart(bucket, upload.key, upload.upload_id)

    def mend(self):
        """No more rules."""
        with self._lock:
            self._rules.clear()

    # ---- inside

    def _add(self, name, nth, times, **what):
        assert name in CALLS, name
        with self._lock:
            rule = _Rule(self.calls[name] + nth, times, **what)
            self._rules.setdefault(name, []).append(rule)

    def _call(self, name, call, args, kwargs):
        with self._lock:
            self.calls[name] += 1
            number = self.calls[name]
            self.log.append((name, args))
            rule = None
            for candidate in self._rules.get(name, ()):
                if number >= candidate.first and candidate.used < candidate.times:
                    candidate.used += 1
                    rule = candidate
                    break
        if rule is None:
            return call(*args, **kwargs)
        if rule.gate is not None:
            rule.gate.wait()
        if rule.delay_s:
            time.sleep(rule.delay_s)
        if rule.before is not None:
            rule.before()
        if rule.error is not None and not rule.applied:
            raise rule.error
        answer = call(*args, **kwargs)
        if rule.error is not None:
            raise rule.error
        return answer if rule.cut is None else answer[: rule.cut]
