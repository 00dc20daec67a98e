"""``cozyfs avatar``: the picture of the person whose Cozy an instance is."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from cozyfs.cli import output, stores
from cozyfs.cli.parameters import (
    SOURCE,
    instance_options,
    json_option,
    log_level_option,
    output_option,
    store_options,
)
from cozyfs.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

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
@store_options
@instance_options
@log_level_option("error")
def set_(
    domain: str,
    file: Path,
    mime: str | None,
    fs_url: str | None,
    config: Path | None,
    org: str | None,
    db_prefix: str | None,
    log_level: str,
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
    settings = stores.settings(fs_url, config, log_level)
    with stores.opened(settings) as store:
        instance = stores.find(store, settings, domain, org, db_prefix)
        avatar.put(store, instance, body, mime)


def _type_of(file: Path) -> str:
    from cozyfs.vfs.names import media_type

    if str(file) == "-":
        raise UsageError("the type of the standard input is not known; give --type")
    return media_type(file.name)


@command.command("get", short_help="Get the avatar.")
@click.argument("domain", metavar="INSTANCE")
@output_option
@store_options
@instance_options
@json_option
@log_level_option("error")
def get(
    domain: str,
    target: Path,
    fs_url: str | None,
    config: Path | None,
    org: str | None,
    db_prefix: str | None,
    as_json: bool,
    log_level: str,
) -> None:
    """Write the avatar of INSTANCE to a file, or to the standard output. With --json, tell its
    type and its date on the standard output."""
    from cozyfs.side import avatar

    if as_json and str(target) == "-":
        raise click.UsageError("the standard output takes the avatar or the JSON, not both")
    settings = stores.settings(fs_url, config, log_level)
    with stores.opened(settings) as store:
        instance = stores.find(store, settings, domain, org, db_prefix)
        found = avatar.get(store, instance)
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
@store_options
@instance_options
@log_level_option("error")
def rm(
    domain: str,
    fs_url: str | None,
    config: Path | None,
    org: str | None,
    db_prefix: str | None,
    log_level: str,
) -> None:
    """Remove the avatar of INSTANCE. It is no error that there is none."""
    from cozyfs.side import avatar

    settings = stores.settings(fs_url, config, log_level)
    with stores.opened(settings) as store:
        instance = stores.find(store, settings, domain, org, db_prefix)
        avatar.delete(store, instance)
