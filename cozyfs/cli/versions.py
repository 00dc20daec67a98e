"""``cozyfs versions``: the former contents of files in a mount.

The client asks the kernel what the user may do with the file, then the mount, which the socket
lets only its owner do. A content is read where everybody reads it, in ``/.cozy_versions``.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from cozyfs.cli import output
from cozyfs.cli.mounted import Located, locate
from cozyfs.cli.parameters import json_option, state_option
from cozyfs.errors import CozyError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ANSWER_TIMEOUT_S = 30.0
"""Between two signs of life; while the store works there is one every half second."""

VIEW = ".cozy_versions"


class _File(NamedTuple):
    """A file in a mount, and what to ask."""

    path: str  # as the user wrote it
    ino: int
    place: Located

    def ask(self, op: str, **fields: Any) -> Iterator[dict[str, Any]]:
        """The answers that are not just signs of life. Raises CozyError."""
        answers = self.place.client.stream(op, ANSWER_TIMEOUT_S, file=self.ino, **fields)
        try:
            yield from (answer for answer in answers if "working" not in answer)
        except CozyError as exc:
            raise type(exc)(f"{self.path}: {exc}") from exc

    def do(self, op: str, **fields: Any) -> dict[str, Any]:
        """The one answer. Raises CozyError."""
        for answer in self.ask(op, **fields):
            return answer
        raise CozyError(f"{self.path}: the mount ended before it was done")


@click.group(short_help="List, read, restore and remove former contents of files.")
def command() -> None:
    """The versions of files in a mount: what they held before they were changed. A version is
    called by the time of its content, as "ls" shows it.

    \b
      cozyfs versions ls ~/alice/report.odt
      cozyfs versions cat ~/alice/report.odt 2026-01-31T09:00:00Z > old.odt
      cozyfs versions restore ~/alice/report.odt 2026-01-31T09:00:00Z
    """


@command.command("ls", short_help="List the versions of files.")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@json_option
@state_option
def ls(paths: tuple[str, ...], as_json: bool, state_dir: Path | None) -> None:
    """List the versions of each file PATH, the oldest first: the time of the content, its size,
    when it was replaced, its tags."""
    files = [_find(path, state_dir, os.R_OK) for path in paths]
    found = [(file, [*file.ask("versions")]) for file in files]
    if as_json:
        output.print_json(
            [
                {
                    "path": file.path,
                    "versions": [{"version": v["version"], **v["document"]} for v in versions],
                }
                for file, versions in found
            ]
        )
        return
    rows = [
        (*([file.path] if len(files) > 1 else []), *_row(version))
        for file, versions in found
        for version in versions
    ]
    if rows:
        header = ("VERSION", "SIZE", "REPLACED", "TAGS")
        output.print_table(("FILE", *header) if len(files) > 1 else header, rows)


@command.command("cat", short_help="Print the content of a version.")
@click.argument("path")
@click.argument("version", required=False)
@state_option
def cat(path: str, version: str | None, state_dir: Path | None) -> None:
    """Print what the file PATH held as VERSION, or as its last version."""
    file = _find(path, state_dir, os.R_OK)
    folder = file.place.mountpoint / VIEW / file.place.path.lstrip("/")
    try:
        names = os.listdir(folder)  # the oldest first
    except FileNotFoundError as exc:
        raise CozyError(f"{path}: its versions cannot be seen") from exc
    if version is None and not names:
        raise CozyError(f"{path}: there is no version")
    name = names[-1] if version is None else version
    if name not in names:
        raise CozyError(f"{path}: there is no version {name}")
    with (folder / name).open("rb") as content:
        shutil.copyfileobj(content, sys.stdout.buffer, 1 << 20)


@command.command("restore", short_help="Give a file a former content again.")
@click.argument("path")
@click.argument("version", required=False)
@state_option
def restore(path: str, version: str | None, state_dir: Path | None) -> None:
    """Give the file PATH the content of VERSION, or of its last version, again. What it holds
    now becomes a version, so that this can be undone in the same way."""
    _find(path, state_dir, os.W_OK).do("version-restore", version=version or "")


@command.command("rm", short_help="Remove versions of a file.")
@click.argument("path")
@click.argument("versions", nargs=-1, required=True, metavar="VERSION...")
@state_option
def rm(path: str, versions: tuple[str, ...], state_dir: Path | None) -> None:
    """Remove each VERSION of the file PATH, for good."""
    file = _find(path, state_dir, os.W_OK)
    known = {each["version"] for each in file.ask("versions")}
    for version in versions:
        if version not in known:
            raise CozyError(f"{path}: there is no version {version}")
    # The last of a second first: removing one renames those after it.
    for version in sorted(set(versions), key=_number, reverse=True):
        file.do("version-remove", version=version)


@command.command("clear", short_help="Remove all versions of files.")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@state_option
def clear(paths: tuple[str, ...], state_dir: Path | None) -> None:
    """Remove all versions of each file PATH, those with tags too, for good."""
    files = [_find(path, state_dir, os.W_OK) for path in paths]
    for file in files:
        file.do("versions-clear")


@command.command("import", short_help="Make another file a version of a file.")
@click.argument("path")
@click.argument("source")
@click.option("--date", metavar="DATE", help="Of the content. [default: when SOURCE was changed]")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="A tag of the version.")
@state_option
def import_(
    path: str, source: str, date: str | None, tags: tuple[str, ...], state_dir: Path | None
) -> None:
    """Make the content of the file SOURCE, of this machine, a version of the file PATH; prints
    what it is called. DATE is as 2026-01-31T09:00:00Z."""
    from cozyfs.vfs.documents import parse_time

    file = _find(path, state_dir, os.W_OK)
    found = os.stat(source)
    if not stat.S_ISREG(found.st_mode):
        raise UsageError(f"{source} is not a file")
    if not os.access(source, os.R_OK):
        raise CozyError(f"{source}: permission denied")
    try:
        updated_ns = found.st_mtime_ns if date is None else parse_time(date)
    except CozyError as exc:
        raise UsageError(str(exc)) from exc
    answer = file.do(
        "version-import",
        source=os.path.abspath(source),
        updated_ns=max(updated_ns, 0),
        tags=list(tags),
    )
    click.echo(answer["version"])


@command.command("tag", short_help="Set the tags of a version.")
@click.argument("path")
@click.argument("version")
@click.argument("tags", nargs=-1, metavar="[TAG]...")
@state_option
def tag(path: str, version: str, tags: tuple[str, ...], state_dir: Path | None) -> None:
    """Give VERSION of the file PATH each TAG and no others. A version with tags stays until it
    is removed; without, it stays as long as the rules say."""
    _find(path, state_dir, os.W_OK).do("version-tag", version=version, tags=list(tags))


def _find(path: str, state_dir: Path | None, wanted: int) -> _File:
    """The file *path*, which the user may read or write as *wanted* says. Raises OSError,
    UsageError, CozyError."""
    from cozyfs.config import state_dir as default_state_dir

    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        raise UsageError(f"{path} is not a file")
    place = locate(os.path.realpath(path), default_state_dir(state_dir))
    if not os.access(path, wanted):
        raise CozyError(f"{path}: permission denied")
    return _File(path, found.st_ino, place)


def _row(answer: dict[str, Any]) -> tuple[str, ...]:
    document = answer["document"]
    replaced = str(document.get("cozyMetadata", {}).get("createdAt", "-"))
    return (
        answer["version"],
        output.size(int(document["size"])),
        replaced.partition(".")[0].rstrip("Z") + "Z" if replaced != "-" else replaced,
        ", ".join(document.get("tags") or []) or "-",
    )


def _number(version: str) -> tuple[str, int]:
    """Sorts the versions of one second as they are numbered."""
    name, _, number = version.partition("~")
    return name, int(number) if number.isdecimal() else 1
