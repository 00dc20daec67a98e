"""How much memory a mount needs does not depend on how much goes through it."""

from __future__ import annotations

from mounting import sh

MIB = 1 << 20


def test_writing_a_large_file_takes_a_bounded_amount_of_memory(mounts):
    mount = mounts.start()
    sh('dd if=/dev/zero of="$1/f" bs=1M count=256 status=none', mount.path, timeout_s=90)
    assert sh('stat -c %s "$1/f"', mount.path) == f"{256 * MIB}\n"
    assert mount.peak_memory() < 300 * MIB


def test_reading_a_large_file_takes_a_bounded_amount_of_memory(file_mounts):
    with file_mounts.mounted() as mount:
        sh('dd if=/dev/zero of="$1/f" bs=1M count=256 status=none', mount.path, timeout_s=90)
    mount = file_mounts.start()
    sh('head -c 256M /dev/zero | cmp - "$1/f"', mount.path, timeout_s=90)
    assert mount.peak_memory() < 300 * MIB
