"""``cozyfs avatar``: the picture of the person whose Cozy an instance is."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from cozyfs.cli import output
from cozyfs.cli.parameters import (
    SOURCE,
    json_option,
    output_option,
)
from cozyfs.cli.where import where_options
from cozyfs.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from cozyfs.cli.where import Where
    from cozyfs.store import Body


@click.group(short_help="Set, get and remove the avatar of an instance.")
def command() -> None:
    """The avatar of an instance: one picture, that a Cozy shows for its owner.

    \b
      cozyfs avatar set alice.example.com me.jpg
      cozyfs avatar get alice.example.com -o copy.jpg
      cozyfs avatar rm alice.example.com
    """


@command.command("set", short_help="Set the avatar.")
@click.argument("domain", metavar="INSTANCE")
@click.argument("file", type=SOURCE)
@click.option("--type", "mime", metavar="MIME", help="Its type. [default: what its name says]")
@where_options
def set_(
    domain: str,
    file: Path,
    mime: str | None,
    where: Where,
) -> None:
    """Make the image FILE the avatar of INSTANCE, in place of the one that it has. `-` reads
    the standard input, and then needs --type. At most 20,000,000 bytes.

    \b
      cozyfs avatar set alice.example.com me.jpg
      convert me.tiff png:- | cozyfs avatar set alice.example.com - --type image/png
    """
    from cozyfs.side import avatar
    from cozyfs.store import BytesBody, FileBody

    mime = mime or _type_of(file)
    if not mime.startswith("image/"):
        raise UsageError(f"{file} is not an image: its type is {mime}")
    if str(file) == "-":
        # One byte more than is allowed, so that it is found out.
        body: Body = BytesBody(sys.stdin.buffer.read(avatar.MAX_SIZE + 1))
    else:
        body = FileBody(file)
    avatar.check_size(body.size)
    with where.opened(domain) as at:
        avatar.put(at.store, at.instance, body, mime)


def _type_of(file: Path) -> str:
    from cozyfs.vfs.names import media_type

    if str(file) == "-":
        raise UsageError("the type of the standard input is not known; give --type")
    return media_type(file.name)


@command.command("get", short_help="Get the avatar.")
@click.argument("domain", metavar="INSTANCE")
@output_option
@where_options
@json_option
def get(
    domain: str,
    target: Path,
    where: Where,
    as_json: bool,
) -> None:
    """Write the avatar of INSTANCE to a file, or to the standard output. With --json, tell its
    type and its date on the standard output."""
    from cozyfs.side import avatar

    if as_json and str(target) == "-":
        raise click.UsageError("the standard output takes the avatar or the JSON, not both")
    with where.opened(domain) as at:
        found = avatar.get(at.store, at.instance)
    output.write_file(target, found.data)
    if as_json:
        created_at = found.created_at.isoformat() if found.created_at else None
        output.print_json(
            {
                "type": found.content_type,
                "created_at": created_at,
                "etag": found.etag,
                "size": len(found.data),
            }
        )


@command.command("rm", short_help="Remove the avatar.")
@click.argument("domain", metavar="INSTANCE")
@where_options
def rm(
    domain: str,
    where: Where,
) -> None:
    """Remove the avatar of INSTANCE. It is no error that there is none."""
    from cozyfs.side import avatar

    with where.opened(domain) as at:
        avatar.delete(at.store, at.instance)
