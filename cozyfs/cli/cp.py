"""``cozyfs cp``: copies of files inside one mount, made by the store.

The client asks the kernel what the user may do (read the source, write into the directory), then
the mount, which the socket lets only its owner do.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from cozyfs.cli.mounted import control_of
from cozyfs.cli.parameters import state_option
from cozyfs.errors import AlreadyExists, CozyError, UsageError

if TYPE_CHECKING:
    from cozyfs.control import ControlClient

ANSWER_TIMEOUT_S = 30.0
"""Between two signs of life; while the store copies there is one every half second."""


class Copy(NamedTuple):
    """What to ask of the mount."""

    source: os.stat_result
    directory: os.stat_result
    name: str


@click.command(short_help="Copy files inside a mount, on the server.")
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.argument("target", metavar="TARGET")
@state_option
def command(sources: tuple[str, ...], target: str, state_dir: Path | None) -> None:
    """Copy each file SOURCE to TARGET, or into it if it is a directory, without moving any
    content over the network: the store makes the copy. All must be in the same mount.

    A file that is there already is not replaced. What was written to SOURCE and is not in the
    store yet is stored first. The copies belong to you and are of now; they keep permissions,
    extended attributes and tags.

    \b
      cozyfs cp ~/alice/film.mkv ~/alice/Archive/
      cozyfs cp ~/alice/report.odt ~/alice/report-2.odt
    """
    from cozyfs.config import state_dir as default_state_dir

    if len(sources) > 1 and not os.path.isdir(target):
        raise UsageError(f"{target} is not a directory")
    # All are looked at before the first is copied.
    planned = [plan(source, target) for source in sources]
    client = control_of(planned[0].source.st_dev, default_state_dir(state_dir), sources[0])
    for copy in planned:
        ask(client, copy)


def plan(source: str, target: str) -> Copy:
    """What ``cp source target`` means. Raises OSError, UsageError, AlreadyExists."""
    found = os.stat(source)
    if not stat.S_ISREG(found.st_mode):
        raise UsageError(f"{source} is not a file")
    path = Path(target)
    if path.is_dir():
        path /= Path(source).name
    elif target.endswith("/"):
        raise UsageError(f"{target} is not a directory")
    directory = os.stat(path.parent)
    if directory.st_dev != found.st_dev:
        raise UsageError(f"{source} and {target} are not in the same mount")
    if os.path.lexists(path):
        raise AlreadyExists(f"{path} exists already")
    for place, mode in ((Path(source), os.R_OK), (path.parent, os.W_OK | os.X_OK)):
        if not os.access(place, mode):
            raise CozyError(f"{place}: permission denied")
    return Copy(found, directory, path.name)


def ask(client: ControlClient, copy: Copy) -> None:
    """Have one copy made, and wait for it. Raises CozyError."""
    for answer in client.stream(
        "copy",
        ANSWER_TIMEOUT_S,
        source=copy.source.st_ino,
        directory=copy.directory.st_ino,
        name=copy.name,
        uid=os.getuid(),
        gid=os.getgid(),
    ):
        if "ino" in answer:
            return
    raise CozyError("the mount ended before the copy was made")
