"""``cozyfs instances exports``: the archives that the store keeps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cozyfs.cli import output
from cozyfs.cli.output import written
from cozyfs.cli.parameters import (
    json_option,
)
from cozyfs.cli.where import where_options

if TYPE_CHECKING:
    from cozyfs.cli.where import Where


@click.group("exports", short_help="The archives that the store keeps.")
def exports_group() -> None:
    """The archives that `instances export` put into the store."""


@exports_group.command("ls", short_help="List the archives of an instance.")
@click.argument("domain")
@where_options
@json_option
def ls(
    domain: str,
    where: Where,
    as_json: bool,
) -> None:
    """List the archives of the instance DOMAIN in the store, the oldest first."""
    from cozyfs.moving import exports

    with where.opened(domain) as at:
        found = exports.exports_of(at.store, at.bucket_prefix, at.instance.domain)
    dated = [
        (each, each.made_at.isoformat(timespec="seconds") if each.made_at else "")
        for each in found
    ]
    if as_json:
        output.print_json(
            [{"id": each.id, "size": each.size, "made_at": date} for each, date in dated]
        )
    elif found:
        rows = ((each.id, output.size(each.size), date) for each, date in dated)
        output.print_table(("ID", "SIZE", "MADE"), rows)
    else:
        click.echo(f"the store has no archives of {at.instance.domain}", err=True)


@exports_group.command("get", short_help="Fetch an archive.")
@click.argument("domain")
@click.argument("export_id", metavar="ID")
@click.option(
    "--output", "-o", metavar="FILE", help="Where to; - for standard output. [default: ID.tgz]"
)
@where_options
def get(
    domain: str,
    export_id: str,
    output: str | None,
    where: Where,
) -> None:
    """Fetch the archive ID of the instance DOMAIN from the store.

    \b
      cozyfs instances exports get alice.example.com ID -o alice.tgz
    """
    from cozyfs.cli.restoring import RestoreProgress
    from cozyfs.moving import exports

    bar = RestoreProgress("fetching")
    try:
        with where.opened(domain) as at:
            found = exports.find(at.store, at.bucket_prefix, at.instance.domain, export_id)
            with written(Path(output or f"{found.id}.tgz")) as file:
                exports.fetch(at.store, found, file, bar)
    finally:
        bar.end()


@exports_group.command("rm", short_help="Remove archives.")
@click.argument("domain")
@click.argument("export_ids", nargs=-1, required=True, metavar="ID...")
@where_options
def rm(
    domain: str,
    export_ids: tuple[str, ...],
    where: Where,
) -> None:
    """Remove archives of the instance DOMAIN from the store."""
    from cozyfs.moving import exports

    with where.opened(domain) as at:
        name = at.instance.domain
        # All are looked for before the first goes.
        wanted = [exports.find(at.store, at.bucket_prefix, name, each) for each in export_ids]
        for found in wanted:
            exports.remove(at.store, found)
