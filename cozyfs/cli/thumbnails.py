"""``cozyfs thumbnails``: the small pictures of images in a mount.

The mount makes and removes them; one is read where everybody reads it, in ``/.thumbs``.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from cozyfs.cli import output
from cozyfs.cli.mounted import find
from cozyfs.cli.parameters import picture_option, state_option
from cozyfs.errors import CozyError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cozyfs.cli.mounted import Located

ANSWER_TIMEOUT_S = 30.0
"""Between two signs of life; there is one every half second."""

VIEW = ".thumbs"

FORMATS = ("tiny", "small", "medium", "large")


@click.group(short_help="Make, remove and show thumbnails of images.")
def command() -> None:
    """Thumbnails of the images and PDF files in a mount. A mount makes them by itself when an
    image is written through it, unless it was mounted with -o nothumbs.

    \b
      cozyfs thumbnails build ~/alice/Photos
      cozyfs thumbnails show ~/alice/Photos/cat.jpg --format small -o small.jpg
    """


@command.command("build", short_help="Make thumbnails that are missing.")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@state_option
def build(paths: tuple[str, ...], state_dir: Path | None) -> None:
    """Make the thumbnails of each file PATH, where one is missing or shows a former content; of
    a directory, those of all images and PDF files below it. Of a note, make those of the images
    in it that are wider than 768 pixels."""
    places = [find(path, state_dir, os.W_OK) for path in paths]
    made, wrong = 0, False
    for path, place in zip(paths, places, strict=True):
        done = _watch(path, place, "thumbnails-build", "made {made} of {files}")
        made += done["made"]
        wrong |= bool(done["errors"])
        if done["failed"]:
            click.echo(f"{path}: no picture can be made of {_files(done['failed'])}", err=True)
    click.echo(f"made the thumbnails of {_files(made)}")
    if wrong:
        raise CozyError("not all thumbnails could be made")


@command.command("rm", short_help="Remove thumbnails.")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@state_option
def rm(paths: tuple[str, ...], state_dir: Path | None) -> None:
    """Remove the thumbnails of each file PATH; of a directory, those of all images and PDF files
    below it. The files themselves stay, and so do the images in notes."""
    places = [find(path, state_dir, os.W_OK) for path in paths]
    wrong = False
    for path, place in zip(paths, places, strict=True):
        wrong |= bool(_watch(path, place, "thumbnails-remove", "{files} done")["errors"])
    if wrong:
        raise CozyError("not all thumbnails could be removed")


@command.command("show", short_help="Write a thumbnail to a file.")
@click.argument("path")
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    default="small",
    show_default=True,
    help="Which one: at most 96x96, 640x480, 1280x720, 1920x1080 pixels.",
)
@picture_option
@click.option("--image", metavar="ID", help="Of a note: which one of its images.")
@state_option
def show(path: str, form: str, target: Path, image: str | None, state_dir: Path | None) -> None:
    """Write a thumbnail of the file PATH, a JPEG, to a file or to the standard output. Of a note,
    write one of its images, as wide as the note shows it."""
    place = find(path, state_dir, os.R_OK)
    output.refuse_terminal(target)
    note = _images(path, place)
    if note is not None:
        output.write_file(target, _image(path, note, image))
        return
    if image is not None:
        raise UsageError(f"{path} is no note: --image is for the images of notes")
    picture = place.mountpoint / VIEW / form / place.path.lstrip("/")
    try:
        data = picture.read_bytes()
    except (FileNotFoundError, IsADirectoryError) as exc:
        raise CozyError(
            f"{path}: there is no {form} thumbnail ('cozyfs thumbnails build' makes those that"
            " can be made)"
        ) from exc
    output.write_file(target, data)


def _images(path: str, place: Located) -> Path | None:
    """The folder with the images of a note; None of anything else."""
    folder = place.mountpoint / VIEW / "notes" / place.path.lstrip("/")
    return folder if os.path.isfile(path) and folder.is_dir() else None


def _image(path: str, note: Path, image: str | None) -> bytes:
    """Raises UsageError, CozyError."""
    known = sorted(os.listdir(note))
    if image in known:
        return (note / image).read_bytes()
    if not known:
        raise CozyError(f"{path}: the note has no images")
    if image is None:
        raise UsageError(f"{path} is a note; choose with --image: {', '.join(known)}")
    raise CozyError(f"{path}: the note has no such image, but {', '.join(known)}")


def _watch(path: str, place: Located, op: str, form: str) -> dict[str, Any]:
    """Ask, and show how far it is on a terminal; the last answer. Raises CozyError."""
    show = _shown(path, form) if sys.stderr.isatty() else None
    last: dict[str, Any] = {}
    try:
        for last in place.client.stream(op, ANSWER_TIMEOUT_S, path=place.path):
            if show is not None:
                show(last)
    except CozyError as exc:
        raise type(exc)(f"{path}: {exc}") from exc
    finally:
        if show is not None:
            click.echo(err=True)
    if not last.get("done"):
        raise CozyError(f"{path}: the mount ended before it was done")
    for each in last["named"]:
        click.echo(f"{each['path']}: {each['reason']}", err=True)
    return last


def _shown(path: str, form: str) -> Callable[[dict[str, Any]], None]:
    def show(answer: dict[str, Any]) -> None:
        click.echo(f"\r{path}: {form.format(**answer)}", nl=False, err=True)

    return show


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count} files"
