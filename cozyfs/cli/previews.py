"""``cozyfs previews``: icons and previews of files in a mount.

The mount takes them from the cache in the store, or makes them; it gives them on its control
socket.
"""

from __future__ import annotations

import base64
import os
from typing import TYPE_CHECKING

import click

from cozyfs.cli import output
from cozyfs.cli.mounted import find
from cozyfs.cli.parameters import picture_option, state_option
from cozyfs.errors import CozyError

if TYPE_CHECKING:
    from pathlib import Path

    from cozyfs.cli.mounted import Located

ANSWER_TIMEOUT_S = 30.0
"""Between two signs of life; there is one every half second."""


@click.group(short_help="Show icons and previews of files.")
def command() -> None:
    """Small pictures of an image, or of the first page of a PDF file, in a mount. They are made
    when somebody asks, and kept in the store by the MD5 of the content: the same content needs no
    second drawing, in whichever file or instance it is.

    \b
      cozyfs previews show ~/alice/letter.pdf -o page.jpg
      cozyfs previews icon ~/alice/letter.pdf -o icon.jpg
    """


@command.command("icon", short_help="Write the icon of a file.")
@click.argument("path")
@picture_option
@state_option
def icon(path: str, target: Path, state_dir: Path | None) -> None:
    """Write the icon of the file PATH, a JPEG of at most 96x96 pixels, to a file or to the
    standard output."""
    _write("icon", path, target, state_dir)


@command.command("show", short_help="Write the preview of a file.")
@click.argument("path")
@picture_option
@state_option
def show(path: str, target: Path, state_dir: Path | None) -> None:
    """Write the preview of the file PATH, a JPEG of at most 1080x1920 pixels, to a file or to the
    standard output."""
    _write("preview", path, target, state_dir)


def _write(name: str, path: str, target: Path, state_dir: Path | None) -> None:
    place = find(path, state_dir, os.R_OK)
    output.refuse_terminal(target)
    output.write_file(target, _fetched(name, path, place))


def _fetched(name: str, path: str, place: Located) -> bytes:
    """Raises CozyError."""
    picture = bytearray()
    try:
        for answer in place.client.stream("preview", ANSWER_TIMEOUT_S, path=place.path, name=name):
            if "data" in answer:
                picture += base64.b64decode(answer["data"])
            elif answer.get("size") == len(picture):
                return bytes(picture)
    except CozyError as exc:
        raise type(exc)(f"{path}: {exc}") from exc
    raise CozyError(f"{path}: the mount ended before it was done")
