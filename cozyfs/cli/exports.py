"""``cozyfs instances exports``: the archives that the store keeps."""

from __future__ import annotations

from pathlib import Path

import click

from cozyfs.cli import output, stores
from cozyfs.cli.output import written
from cozyfs.cli.parameters import (
    instance_options,
    json_option,
    log_level_option,
    store_options,
)


@click.group("exports", short_help="The archives that the store keeps.")
def exports_group() -> None:
    """The archives that `instances export` put into the store."""


@exports_group.command("ls", short_help="List the archives of an instance.")
@click.argument("domain")
@store_options
@instance_options
@json_option
@log_level_option("error")
def ls(
    domain: str,
    fs_url: str | None,
    config: Path | None,
    org: str | None,
    db_prefix: str | None,
    as_json: bool,
    log_level: str,
) -> None:
    """List the archives of the instance DOMAIN in the store, the oldest first."""
    from cozyfs.moving import exports

    settings = stores.settings(fs_url, config, log_level)
    with stores.opened(settings) as store:
        instance = stores.find(store, settings, domain, org, db_prefix)
        found = exports.exports_of(store, settings.url.bucket_prefix, instance.domain)
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
        click.echo(f"the store has no archives of {instance.domain}", err=True)


@exports_group.command("get", short_help="Fetch an archive.")
@click.argument("domain")
@click.argument("export_id", metavar="ID")
@click.option(
    "--output", "-o", metavar="FILE", help="Where to; - for standard output. [default: ID.tgz]"
)
@store_options
@instance_options
@log_level_option("error")
def get(
    domain: str,
    export_id: str,
    output: str | None,
    fs_url: str | None,
    config: Path | None,
    org: str | None,
    db_prefix: str | None,
    log_level: str,
) -> None:
    """Fetch the archive ID of the instance DOMAIN from the store.

    \b
      cozyfs instances exports get alice.example.com ID -o alice.tgz
    """
    from cozyfs.cli.restoring import RestoreProgress
    from cozyfs.moving import exports

    settings = stores.settings(fs_url, config, log_level)
    bar = RestoreProgress("fetching")
    try:
        with stores.opened(settings) as store:
            instance = stores.find(store, settings, domain, org, db_prefix)
            prefix = settings.url.bucket_prefix
            found = exports.find(store, prefix, instance.domain, export_id)
            with written(Path(output or f"{found.id}.tgz")) as file:
                exports.fetch(store, found, file, bar)
    finally:
        bar.end()


@exports_group.command("rm", short_help="Remove archives.")
@click.argument("domain")
@click.argument("export_ids", nargs=-1, required=True, metavar="ID...")
@store_options
@instance_options
@log_level_option("error")
def rm(
    domain: str,
    export_ids: tuple[str, ...],
    fs_url: str | None,
    config: Path | None,
    org: str | None,
    db_prefix: str | None,
    log_level: str,
) -> None:
    """Remove archives of the instance DOMAIN from the store."""
    from cozyfs.moving import exports

    settings = stores.settings(fs_url, config, log_level)
    with stores.opened(settings) as store:
        instance = stores.find(store, settings, domain, org, db_prefix)
        prefix = settings.url.bucket_prefix
        # All are looked for before the first goes.
        wanted = [exports.find(store, prefix, instance.domain, each) for each in export_ids]
        for found in wanted:
            exports.remove(store, found)
