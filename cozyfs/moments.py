"""Moments as people write and read them: times of this machine's clock and zone.

Inside cozyfs a moment is a number of nanoseconds since 1970 UTC.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from cozyfs.errors import UsageError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_MOMENT = re.compile(
    r"(\d{4}-\d{2}-\d{2})[ T](\d{2}:\d{2})(?::(\d{2})(?:\.(\d{1,9}))?)?"
    r" ?(Z|[+-]\d{2}(?::?\d{2})?)?",
    re.ASCII,
)


def parse(text: str) -> int:
    """``2026-11-22 18:00``, with seconds and a fraction of them, or a ``T`` for the space: local
    time, unless ``Z`` or an offset (``+01:00``) follows, as in ISO 8601. Raises UsageError."""
    match = _MOMENT.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{text!r} is not a moment such as '2026-11-22 18:00', or '2h ago'")
    day, minute, second, fraction, zone = match.groups()
    try:
        when = datetime.fromisoformat(f"{day}T{minute}:{second or '00'}{zone or ''}")
        seconds = when.astimezone(UTC) - _EPOCH
    except (ValueError, OverflowError, OSError) as exc:
        raise UsageError(f"{text!r} is no moment of the calendar") from exc
    return seconds // timedelta(seconds=1) * 10**9 + int((fraction or "").ljust(9, "0"))


def to_text(ns: int) -> str:
    """Local time, to the second, rounded up: what `parse` makes of it is not before *ns*."""
    return _local(-(-ns // 10**9)).strftime("%Y-%m-%d %H:%M:%S")


def to_iso(ns: int) -> str:
    """RFC 3339 in local time, to the millisecond (cut)."""
    whole, rest = divmod(ns, 10**9)
    when = _local(whole).isoformat()
    return f"{when[:19]}.{rest // 10**6:03}{when[19:]}"


def _local(seconds: int) -> datetime:
    return (_EPOCH + timedelta(seconds=seconds)).astimezone()
