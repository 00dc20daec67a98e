"""Moments as people write them."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cozyfs import moments
from cozyfs.errors import UsageError

NOON = 1_795_003_200 * 10**9  # 2026-11-18 12:00 UTC


@pytest.fixture
def in_paris(monkeypatch):
    monkeypatch.setenv("TZ", "Europe/Paris")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-18 13:00", NOON),
        ("2026-11-18T13:00:01", NOON + 10**9),
        ("2026-11-18 13:00:00.5", NOON + 5 * 10**8),
        ("2026-11-18 13:00:00.000000001", NOON + 1),
        ("2026-11-18T12:00Z", NOON),
        ("2026-11-18T07:00:00-05:00", NOON),
        ("2026-11-18 17:30 +05:30", NOON),
        ("2026-07-18 14:00", NOON - 123 * 86400 * 10**9),  # of summer
    ],
)
def test_local_times_and_those_of_a_zone(in_paris, text, expected):
    assert moments.parse(text) == expected


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2026-11-18", "18:00", "2026-13-18 12:00", "2026-11-18 25:00", "9"]
)
def test_anything_else_is_refused(text):
    with pytest.raises(UsageError):
        moments.parse(text)


@given(st.integers(0, 2**62))
def test_what_is_shown_can_be_given_back_and_is_not_before(ns):
    assert 0 <= moments.parse(moments.to_text(ns)) - ns < 10**9
    assert 0 <= ns - moments.parse(moments.to_iso(ns)) < 10**6
