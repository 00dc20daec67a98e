"""``cozyfs trash``: what was removed in a mount, shown, put back, or removed for good."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cozyfs.cli import output
from cozyfs.cli.mounted import Located, locate
from cozyfs.cli.parameters import DURATION, json_option, state_option
from cozyfs.errors import CozyError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ANSWER_TIMEOUT_S = 30.0
"""Between two signs of life of the mount."""

HERE = click.Path(path_type=Path)


@click.group(short_help="List, restore and remove what was removed.")
def command() -> None:
    """What was removed in a mount lies in .cozy_trash of its root, for 30 days by default.

    \b
      cozyfs trash ls ~/alice
      cozyfs trash restore ~/alice/.cozy_trash/photos
      cozyfs trash empty --older-than 7d ~/alice
    """


@command.command("ls", short_help="List the trash.")
@click.argument("mount", type=HERE, default=".", metavar="[PATH]")
@json_option
@state_option
def ls(mount: Path, as_json: bool, state_dir: Path | None) -> None:
    """List what lies in the trash of the mount that PATH is in, the latest last: when it was
    removed, its size, its name in the trash, where it was.

    \b
      cozyfs trash ls ~/alice
      cozyfs trash ls --json ~/alice | jq -r '.[].path'
    """
    answers = _locate(mount, state_dir).client.stream("trash-list", ANSWER_TIMEOUT_S)
    items = sorted(
        (answer for answer in answers if "name" in answer),
        key=lambda item: (item["trashed_ns"] or 0, item["name"]),
    )
    if as_json:
        output.print_json([_for_programs(item) for item in items])
    elif items:
        header = ("REMOVED", "SIZE", "NAME", "FROM")
        output.print_table(header, (_row(item) for item in items))
    else:
        click.echo("the trash is empty", err=True)


@command.command("restore", short_help="Put back what was removed.")
@click.argument("paths", nargs=-1, required=True, type=HERE, metavar="PATH...")
@state_option
def restore(paths: tuple[Path, ...], state_dir: Path | None) -> None:
    """Put each PATH, something in the trash, back to where it was, under the name that it had;
    where that is taken by now, with a number after it. Prints where it is. Directories that are
    gone are made anew.

    \b
      cozyfs trash restore ~/alice/.cozy_trash/photos
    """
    for path, place in [(path, _locate(path, state_dir)) for path in paths]:
        with _naming(path):
            answer = place.client.request("trash-restore", ANSWER_TIMEOUT_S, path=place.path)
        click.echo(place.mountpoint / str(answer["path"]).lstrip("/"))


@command.command("rm", short_help="Remove from the trash for good.")
@click.argument("paths", nargs=-1, required=True, type=HERE, metavar="PATH...")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@state_option
def rm(paths: tuple[Path, ...], yes: bool, state_dir: Path | None) -> None:
    """Remove each PATH, something in the trash, for good, with all that is in it. Asks first.

    \b
      cozyfs trash rm ~/alice/.cozy_trash/photos
    """
    places = [(path, _locate(path, state_dir)) for path in paths]
    _ask(yes, f"Remove {_counted(len(places))} for good?")
    for path, place in places:
        with _naming(path):
            _last(place, "trash-remove", path=place.path)


@command.command("empty", short_help="Empty the trash.")
@click.argument("mount", type=HERE, default=".", metavar="[PATH]")
@click.option("--older-than", type=DURATION, help="Only what was removed longer ago.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@state_option
def empty(mount: Path, older_than: float | None, yes: bool, state_dir: Path | None) -> None:
    """Remove all that lies in the trash of the mount that PATH is in, for good. Asks first.

    \b
      cozyfs trash empty ~/alice
      cozyfs trash empty --yes --older-than 7d ~/alice
    """
    place = _locate(mount, state_dir)
    _ask(yes, f"Remove what is in the trash of {place.mountpoint} for good?")
    fields = {}
    if older_than is not None:
        fields["before_ns"] = max(0, time.time_ns() - int(older_than * 1e9))
    removed = _last(place, "trash-empty", **fields)["removed"]
    click.echo(f"removed {_counted(removed)}")


def _locate(path: Path, state_dir: Path | None) -> Located:
    from cozyfs.config import state_dir as default_state_dir

    return locate(path, default_state_dir(state_dir))


def _last(place: Located, op: str, **fields: Any) -> dict[str, Any]:
    """The answer after the signs of life. Raises CozyError."""
    for answer in place.client.stream(op, ANSWER_TIMEOUT_S, **fields):
        if "removing" not in answer:
            return answer
    raise CozyError("the mount ended before all was removed")


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Errors inside speak of the path as it was given."""
    try:
        yield
    except CozyError as exc:
        raise CozyError(f"{path}: {exc}") from exc


def _ask(yes: bool, question: str) -> None:
    if not yes and not click.confirm(question):
        raise CozyError("nothing was removed")


def _counted(number: int) -> str:
    return "1 item" if number == 1 else f"{number} items"


def _for_programs(item: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": item["name"],
        "path": item["path"],
        "trashed_at": _date(item["trashed_ns"], "%Y-%m-%dT%H:%M:%SZ", time.gmtime),
        "kind": item["kind"],
        "size": item["size"],
    }


def _row(item: dict[str, Any]) -> Sequence[str]:
    name = item["name"] + ("/" if item["kind"] == "directory" else "")
    when = _date(item["trashed_ns"], "%Y-%m-%d %H:%M", time.localtime)
    return (when or "-", output.size(item["size"]), name, item["path"])


def _date(time_ns: int | None, form: str, convert: Any) -> str | None:
    return None if time_ns is None else time.strftime(form, convert(time_ns / 1e9))
