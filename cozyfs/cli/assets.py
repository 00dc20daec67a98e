"""``cozyfs assets``: the dynamic assets of a Cozy server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cozyfs.cli import output, stores
from cozyfs.cli.parameters import json_option, log_level_option, output_option, store_options

if TYPE_CHECKING:
    from pathlib import Path

    from cozyfs.side.assets import Asset, Listed


@click.group(short_help="Add, list, get and remove dynamic assets.")
def command() -> None:
    """Dynamic assets: files that a Cozy server serves in place of its own, or beside them, to
    the instances of a context; those of the context `default` to all.

    \b
      cozyfs assets add --context acme --name /styles/theme.css theme.css
      cozyfs assets ls --context acme
      cozyfs assets get -o theme.css acme /styles/theme.css
      cozyfs assets rm acme /styles/theme.css
    """


@command.command("add", short_help="Add an asset, or replace one.")
@click.argument("source")
@click.option("--context", required=True, metavar="NAME", help="The context it is for.")
@click.option("--name", required=True, help="What it is asked for by, such as /images/logo.svg.")
@click.option("--shasum", default="", metavar="HEX", help="Its SHA-256, to be compared.")
@store_options
@json_option
@log_level_option("error")
def add(
    source: str,
    context: str,
    name: str,
    shasum: str,
    fs_url: str | None,
    config: Path | None,
    as_json: bool,
    log_level: str,
) -> None:
    """Add the file SOURCE, a path or a URL (http, https, file), as an asset; one of the same
    context and name is replaced. At most 50 MiB.

    \b
      cozyfs assets add --context acme --name /robots.txt robots.txt
    """
    from cozyfs.side.asset_names import asset_key
    from cozyfs.side.asset_source import fetch
    from cozyfs.side.assets import Assets

    settings = stores.settings(fs_url, config, log_level)
    asset_key(context, name)  # refused before anything is fetched
    data = fetch(source)
    with stores.opened(settings) as store:
        assets = Assets(store, settings.url.bucket_prefix)
        added = assets.add(context, name, data, url=source, shasum=shasum)
    if as_json:
        output.print_json(_facts(added))
    else:
        click.echo(f"added {added.name} to {added.context}, SHA-256 {added.shasum}")


@command.command("ls", short_help="List the assets.")
@click.option("--context", metavar="NAME", help="Only those of this context. [default: all]")
@store_options
@json_option
@log_level_option("error")
def ls(
    context: str | None, fs_url: str | None, config: Path | None, as_json: bool, log_level: str
) -> None:
    """List the assets by context and name.

    \b
      cozyfs assets ls --json | jq -r '.acme[].name'
    """
    from cozyfs.side.assets import Assets

    settings = stores.settings(fs_url, config, log_level)
    with stores.opened(settings) as store:
        found = list(Assets(store, settings.url.bucket_prefix).list(context))
    if as_json:
        output.print_json(_by_context(found))
    elif found:
        output.print_table(("CONTEXT", "NAME", "SIZE"), map(_row, found))
    else:
        click.echo("there are no assets", err=True)


@command.command("get", short_help="Get an asset.")
@click.argument("context")
@click.argument("name")
@output_option
@store_options
@json_option
@log_level_option("error")
def get(
    context: str,
    name: str,
    target: Path,
    fs_url: str | None,
    config: Path | None,
    as_json: bool,
    log_level: str,
) -> None:
    """Write the asset NAME of CONTEXT to a file, or to the standard output. With --json, tell
    what it is on the standard output."""
    from cozyfs.side.assets import Assets

    if as_json and str(target) == "-":
        raise click.UsageError("the standard output takes the asset or the JSON, not both")
    settings = stores.settings(fs_url, config, log_level)
    with stores.opened(settings) as store:
        asset = Assets(store, settings.url.bucket_prefix).get(context, name)
    output.write_file(target, asset.data)
    if as_json:
        output.print_json(_facts(asset))


@command.command("rm", short_help="Remove an asset.")
@click.argument("context")
@click.argument("name")
@store_options
@log_level_option("error")
def rm(context: str, name: str, fs_url: str | None, config: Path | None, log_level: str) -> None:
    """Remove the asset NAME of CONTEXT. It is no error that there is none."""
    from cozyfs.side.assets import Assets

    settings = stores.settings(fs_url, config, log_level)
    with stores.opened(settings) as store:
        Assets(store, settings.url.bucket_prefix).remove(context, name)


@command.command("status", short_help="Tell how fast the store answers.")
@store_options
@json_option
@log_level_option("error")
def status(fs_url: str | None, config: Path | None, as_json: bool, log_level: str) -> None:
    """Ask the store for an answer and tell how long it took; the exit code is 1 when it does not
    answer."""
    from cozyfs.side.assets import Assets

    settings = stores.settings(fs_url, config, log_level)
    with stores.opened(settings) as store:
        latency_s = Assets(store, settings.url.bucket_prefix).status()
    if as_json:
        output.print_json({"latency_s": round(latency_s, 6)})
    else:
        click.echo(f"the store answers in {latency_s * 1000:.1f} ms")


def _facts(asset: Asset) -> dict[str, Any]:
    return {
        "name": asset.name,
        "context": asset.context,
        "url": asset.url,
        "shasum": asset.shasum,
        "is_custom": asset.is_custom,
        "etag": asset.etag,
        "name_with_sum": asset.name_with_sum,
        "mime": asset.mime,
        "size": len(asset.data),
    }


def _by_context(found: list[Listed]) -> dict[str, list[dict[str, Any]]]:
    contexts: dict[str, list[dict[str, Any]]] = {}
    for asset in found:
        modified = asset.modified.isoformat() if asset.modified else None
        facts = {"name": asset.name, "size": asset.size, "modified": modified}
        contexts.setdefault(asset.context, []).append(facts)
    return contexts


def _row(asset: Listed) -> tuple[str, ...]:
    return asset.context, asset.name, output.size(asset.size)
