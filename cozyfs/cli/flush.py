"""``cozyfs flush``: everything so far into the store, without unmounting."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import click

from cozyfs.cli.parameters import DURATION, MOUNTPOINT, state_option
from cozyfs.cli.status import not_found
from cozyfs.cli.umount import flush

if TYPE_CHECKING:
    from pathlib import Path


@click.command(short_help="Store what is not stored yet.")
@click.argument("mountpoint", type=MOUNTPOINT)
@state_option
@click.option(
    "--timeout",
    type=DURATION,
    metavar="SECONDS",
    help="Give up waiting after this long. [default: wait for ever]",
)
def command(mountpoint: Path, state_dir: Path | None, timeout: float | None) -> None:
    """Return when all content that was written at MOUNTPOINT, and every change of its tree so
    far, is in the store: losing this machine loses nothing of it.

    Exit code 1 when that could not be done; it is tried again all the same.

    \b
      cozyfs flush ~/alice
    """
    from cozyfs.config import state_dir as default_state_dir
    from cozyfs.state import find_mount, resolve_mountpoint

    path = resolve_mountpoint(mountpoint)
    folder = default_state_dir(state_dir)
    record = find_mount(folder, path)
    if record is None:
        raise not_found(path, folder)
    flush(record, time.monotonic() + timeout if timeout is not None else math.inf)
