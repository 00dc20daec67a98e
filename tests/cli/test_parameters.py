"""Sizes, durations and mount points as people write them."""

import click
import pytest

from cozyfs.cli.parameters import DURATION, MOUNTPOINT, SIZE


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("512", 512),
        ("1K", 1024),
        ("64M", 64 << 20),
        ("64MiB", 64 << 20),
        ("64mib", 64 << 20),
        ("3GB", 3 * 10**9),
        ("3 GB", 3 * 10**9),
        ("1.5G", 3 << 29),
        ("5TiB", 5 << 40),
        ("10B", 10),
    ],
)
def test_a_size_is_bytes_with_a_unit(text, size):
    assert SIZE.convert(text, None, None) == size


@pytest.mark.parametrize("text", ["", "M", "-1", "3X", "1,5G", "3GBs", "1e9", "٣", "0x10"])
def test_what_is_not_a_size_is_refused(text):
    with pytest.raises(click.BadParameter, match="is not a size"):
        SIZE.convert(text, None, None)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("90", 90),
        ("0.5", 0.5),
        ("90s", 90),
        ("15m", 900),
        ("1h30m", 5400),
        ("1d", 86400),
        ("2w", 1209600),
        ("30D", 30 * 86400),
        ("2W3D", 17 * 86400),
        ("3M", 90 * 86400),
    ],
)
def test_a_duration_is_seconds_or_numbers_with_units(text, seconds):
    assert DURATION.convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "s", "-1", "3x", "1 d", "1h-5m", "inf", "nan"])
def test_what_is_not_a_duration_is_refused(text):
    with pytest.raises(click.BadParameter, match="is not a duration"):
        DURATION.convert(text, None, None)


def test_a_mount_point_is_not_looked_at(monkeypatch):
    monkeypatch.setattr(
        "os.stat", lambda *_, **__: pytest.fail("a mount that hangs would hang us")
    )
    assert str(MOUNTPOINT.convert("/mnt/x", None, None)) == "/mnt/x"
