"""``cozyfs cp``: copies of files in mounts, made by the store.

The client asks the kernel what the user may do (read the source, write into the directory), then
the mount, which the socket lets only its owner do. Directories are made and links are set like
any program does, through the kernel.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from cozyfs.cli.mounted import control_of
from cozyfs.cli.parameters import state_option
from cozyfs.errors import AlreadyExists, CozyError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from cozyfs.control import ControlClient

ANSWER_TIMEOUT_S = 30.0
"""Between two signs of life; while the store copies there is one every half second."""


class Copy(NamedTuple):
    """What to ask of the mounts."""

    source: Path
    found: os.stat_result  # of the source
    directory: os.stat_result
    target: Path


@click.command(short_help="Copy files in mounts, on the server.")
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.argument("target", metavar="TARGET")
@click.option("--recursive", "-r", is_flag=True, help="Copy directories, with all below them.")
@state_option
def command(
    sources: tuple[str, ...], target: str, recursive: bool, state_dir: Path | None
) -> None:
    """Copy each file SOURCE to TARGET, or into it if it is a directory, without moving any
    content over the network: the store makes the copy. All must be in mounts of one store.

    A file that is there already is not replaced. What was written to SOURCE and is not in the
    store yet is stored first. The copies belong to you and are of now; they keep permissions,
    extended attributes and tags.

    \b
      cozyfs cp ~/alice/film.mkv ~/alice/Archive/
      cozyfs cp ~/alice/report.odt ~/alice/report-2.odt
      cozyfs cp -r ~/alice/Photos ~/bob/
    """
    from cozyfs.config import state_dir as default_state_dir

    if len(sources) > 1 and not os.path.isdir(target):
        raise UsageError(f"{target} is not a directory")
    # All are looked at before the first is copied.
    planned = [plan(source, target, recursive=recursive) for source in sources]
    folder = default_state_dir(state_dir)
    mounts = {
        found.st_dev: control_of(found.st_dev, folder, os.fspath(path))
        for copy in planned
        for path, found in ((copy.source, copy.found), (copy.target, copy.directory))
    }
    failed = 0
    for copy in planned:
        if stat.S_ISREG(copy.found.st_mode):
            ask(mounts, copy)
        else:
            for problem in _copy_tree(copy, lambda each: ask(mounts, each)):
                click.echo(f"cozyfs: {problem}", err=True)
                failed += 1
    if failed:
        raise CozyError("not everything was copied")


def plan(source: str, target: str, *, recursive: bool = False) -> Copy:
    """What ``cp source target`` means. Raises OSError, UsageError, AlreadyExists."""
    found = os.stat(source)
    if stat.S_ISDIR(found.st_mode):
        if not recursive:
            raise UsageError(f"{source} is a directory; -r copies it with all below it")
    elif not stat.S_ISREG(found.st_mode):
        raise UsageError(f"{source} is not a file")
    path = Path(target)
    if path.is_dir():
        path /= Path(os.path.abspath(source)).name
    elif target.endswith("/"):
        raise UsageError(f"{target} is not a directory")
    directory = os.stat(path.parent)
    if os.path.lexists(path):
        raise AlreadyExists(f"{path} exists already")
    if stat.S_ISDIR(found.st_mode) and _is_below(path.parent, Path(source)):
        raise UsageError(f"{source} cannot be copied into itself")
    for place, mode in ((Path(source), os.R_OK), (path.parent, os.W_OK | os.X_OK)):
        if not os.access(place, mode):
            raise CozyError(f"{place}: permission denied")
    return Copy(Path(source), found, directory, path)


def ask(mounts: dict[int, ControlClient], copy: Copy) -> None:
    """Have one file copied, and wait for it. *mounts* are by their device. Raises CozyError."""
    ours, theirs = mounts[copy.found.st_dev], mounts[copy.directory.st_dev]
    wanted = {
        "directory": copy.directory.st_ino,
        "name": copy.target.name,
        "uid": os.getuid(),
        "gid": os.getgid(),
    }
    if copy.found.st_dev == copy.directory.st_dev:
        _wait(ours, "copy", source=copy.found.st_ino, **wanted)
        return
    with contextlib.closing(_stream(ours, "lend", source=copy.found.st_ino)) as answers:
        for lent in answers:  # of which there is one, and then signs of life
            _wait(theirs, "copy-in", **lent, **wanted)
            return
    raise CozyError("the mount ended before the copy was made")


def _wait(client: ControlClient, op: str, **fields: Any) -> None:
    for answer in _stream(client, op, **fields):
        if "ino" in answer:
            return
    raise CozyError("the mount ended before the copy was made")


def _stream(
    client: ControlClient, op: str, **fields: Any
) -> Generator[dict[str, Any], None, None]:
    return client.stream(op, ANSWER_TIMEOUT_S, **fields)


def _copy_tree(top: Copy, copy_file: Callable[[Copy], None]) -> Iterator[str]:
    """A directory with all below it; what cannot be copied is told, the rest is copied."""
    stack = [(top.source, top.target)]
    while stack:
        source, target = stack.pop()
        try:
            made = _make_directory(source, target)
            with os.scandir(source) as entries:
                below = sorted(entries, key=lambda entry: entry.name)
        except OSError as exc:
            yield f"{source}: {exc.strerror}"
            continue
        for entry in below:
            path, place = Path(entry.path), target / entry.name
            try:
                found = entry.stat(follow_symlinks=False)
                if found.st_dev != top.found.st_dev:
                    yield f"{path} is in another file system"
                elif stat.S_ISDIR(found.st_mode):
                    stack.append((path, place))
                elif stat.S_ISLNK(found.st_mode):
                    place.symlink_to(path.readlink())
                elif not stat.S_ISREG(found.st_mode):
                    yield f"{path} is neither a file, a directory nor a link"
                elif not os.access(path, os.R_OK):
                    yield f"{path}: permission denied"
                else:
                    copy_file(Copy(path, found, made, place))
            except OSError as exc:
                yield f"{path}: {exc.strerror}"
            except CozyError as exc:
                yield f"{path}: {exc}"


def _make_directory(source: Path, target: Path) -> os.stat_result:
    target.mkdir()
    for name in os.listxattr(source):
        with contextlib.suppress(OSError):  # one that only the system may set
            os.setxattr(target, name, os.getxattr(source, name))
    target.chmod(stat.S_IMODE(source.stat().st_mode) | stat.S_IRWXU)
    return target.stat()


def _is_below(path: Path, directory: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(directory))
