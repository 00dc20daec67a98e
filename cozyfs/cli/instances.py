"""``cozyfs instances``: the instances that a store holds."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from cozyfs.cli import output, stores
from cozyfs.cli.exports import exports_group
from cozyfs.cli.moving import copy_command, export_command, import_command
from cozyfs.cli.parameters import (
    DURATION,
    SIZE,
    force_lease_option,
    json_option,
    log_level_option,
    state_option,
    store_options,
    version_options,
)
from cozyfs.cli.where import where_options
from cozyfs.errors import CozyError, InstanceError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from cozyfs.cli.where import Where
    from cozyfs.values import Instance


trash_age_option = click.option(
    "--trash-age", type=DURATION, help="How long removed files stay; 0 for ever. [default: 30D]"
)


@click.group(short_help="List, create, show, move and destroy instances.")
def command() -> None:
    """The instances in a store. Each is one person's Cozy, named by its domain.

    \b
      cozyfs instances add alice.example.com --disk-quota 3GB
      cozyfs instances ls
      cozyfs instances show --json alice.example.com
      cozyfs instances export alice.example.com -o alice.tgz
      cozyfs instances destroy alice.example.com
    """


@command.command("add", short_help="Create an instance.")
@click.argument("domain")
@where_options
@click.option("--context", default="", metavar="NAME", help="Its context. [default: none]")
@click.option("--disk-quota", type=SIZE, default=0, help="Most that it may hold. [default: any]")
@trash_age_option
@json_option
def add(
    domain: str,
    where: Where,
    context: str,
    disk_quota: int,
    trash_age: float | None,
    as_json: bool,
) -> None:
    """Create the instance DOMAIN, empty. Its bucket is made when there is none.

    \b
      cozyfs instances add alice.example.com
      cozyfs instances add bob.example.com --org acme --disk-quota 3GB
    """
    from cozyfs import instances

    settings = where.settings()
    with stores.opened(settings) as store:
        instance = instances.create(
            store,
            settings.url.bucket_prefix,
            domain,
            org=where.org or "",
            db_prefix=where.db_prefix,
            context=context,
            quota=disk_quota,
            trash_age_s=None if trash_age is None else int(trash_age),
        )
    if as_json:
        output.print_json(asdict(instance))


@command.command("ls", short_help="List the instances.")
@store_options
@json_option
@log_level_option("error")
def ls(fs_url: str | None, config: Path | None, as_json: bool, log_level: str) -> None:
    """List the instances of the store, by domain.

    \b
      cozyfs instances ls
      cozyfs instances ls --json | jq -r '.[].domain'
    """
    from cozyfs import instances

    settings = stores.settings(fs_url, config, log_level)
    with stores.opened(settings) as store:
        found = sorted(
            instances.list_instances(store, settings.url.bucket_prefix),
            key=lambda instance: (instance.domain, instance.org),
        )
    if as_json:
        output.print_json([asdict(instance) for instance in found])
    elif found:
        header = ("DOMAIN", "ORG", "QUOTA", "CREATED")
        output.print_table(header, (_row(instance) for instance in found))
    else:
        click.echo("the store has no instances", err=True)


@command.command("show", short_help="Show an instance.")
@click.argument("domain")
@where_options
@json_option
def show(
    domain: str,
    where: Where,
    as_json: bool,
) -> None:
    """Show what is known of the instance DOMAIN."""
    with where.opened(domain) as at:
        instance = at.instance
    if as_json:
        output.print_json(asdict(instance))
    else:
        output.print_fields(_fields(instance))


@command.command("modify", short_help="Change the settings of an instance.")
@click.argument("domain")
@click.option("--context", metavar="NAME", help="Its context; may be empty.")
@click.option("--disk-quota", type=SIZE, help="Most that it may hold; 0 for any.")
@where_options
@version_options
@trash_age_option
@state_option
@json_option
def modify(
    domain: str,
    context: str | None,
    disk_quota: int | None,
    where: Where,
    max_versions: int | None,
    version_delay: float | None,
    trash_age: float | None,
    state_dir: Path | None,
    as_json: bool,
) -> None:
    """Change what is given, for every mount of the instance DOMAIN from its next start on; a quota
    as `set-disk-quota` does. Its organisation cannot change: it names the bucket; copy the
    instance into a new one instead.

    \b
      cozyfs instances modify alice.example.com --max-versions 50 --version-delay 1h
    """
    from cozyfs import instances

    given = {
        "context": context,
        "quota": disk_quota,
        "max_versions": max_versions,
        "version_delay_s": version_delay,
        "trash_age_s": None if trash_age is None else int(trash_age),
    }
    changes = {name: value for name, value in given.items() if value is not None}
    if not changes:
        raise UsageError("say what to change, for example --max-versions 50")
    with where.opened(domain) as at:
        instance = instances.modify(at.store, at.instance, **changes)
    if disk_quota is not None:
        _tell_mounts(instance, state_dir)
    if as_json:
        output.print_json(asdict(instance))


@command.command("set-disk-quota", short_help="Change how much an instance may hold.")
@click.argument("domain")
@click.argument("size", type=SIZE)
@where_options
@state_option
def set_disk_quota(
    domain: str,
    size: int,
    where: Where,
    state_dir: Path | None,
) -> None:
    """Let the instance DOMAIN hold SIZE and no more, such as 3GB; 0 removes the quota. What it
    holds already stays, also where it is more.

    Mounts of this machine follow at once, others within half a minute.

    \b
      cozyfs instances set-disk-quota alice.example.com 3GB
    """
    from cozyfs import instances

    with where.opened(domain) as at:
        instances.modify(at.store, at.instance, quota=size)
    _tell_mounts(at.instance, state_dir)


def _tell_mounts(instance: Instance, state_dir: Path | None) -> None:
    """Those of this machine look at the record again."""
    from cozyfs.config import state_dir as default_state_dir
    from cozyfs.control import ControlClient
    from cozyfs.state import instance_directory, mounts

    folder = default_state_dir(state_dir)
    directory = instance_directory(folder, instance.bucket, instance.db_prefix)
    for record in mounts(folder):
        if record.directory == directory:
            try:
                ControlClient(record.control_path).request("reread")
            except CozyError as exc:
                # It is done all the same, and that mount finds out by itself.
                click.echo(f"cozyfs: {record.mountpoint} was not told: {exc}", err=True)


@command.command("destroy", short_help="Delete an instance with all its files.")
@click.argument("domain")
@where_options
@state_option
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@force_lease_option
def destroy(
    domain: str,
    where: Where,
    state_dir: Path | None,
    yes: bool,
    force_lease: bool,
) -> None:
    """Delete the instance DOMAIN: its files in the store with their versions and exports, all of
    them and for good, and what this machine keeps of it. Asks first. Refused while it is mounted
    on this machine, or for writing on another one.

    When it was interrupted, the instance can be used no more; run it again.

    \b
      cozyfs instances destroy alice.example.com
    """
    import trio

    from cozyfs import instances
    from cozyfs.cli.restoring import notice
    from cozyfs.config import state_dir as default_state_dir
    from cozyfs.state import InstanceState
    from cozyfs.tree import seize

    settings = where.settings()
    prefix = settings.url.bucket_prefix
    with stores.opened(settings) as store:
        instance = instances.find(
            store,
            prefix,
            domain,
            org=where.org,
            db_prefix=where.db_prefix,
            even_deleting=True,
        )
    state = InstanceState.open(default_state_dir(state_dir), instance.bucket, instance.db_prefix)
    state.hold(domain)  # until the end: nothing may mount what is being deleted
    try:
        state.refuse_past_mounts()
        if not yes and not click.confirm(f"Delete {domain} with all its files, for good?"):
            raise InstanceError(f"{domain} was not deleted")
        with stores.opened(settings) as store:
            trio.run(
                partial(seize, instance, store, state, force_lease=force_lease, notice=notice)
            )
            instances.destroy(store, prefix, instance)
            if state.belongs_to(store.description):
                state.remove()
    finally:
        state.unlock()
    click.echo(f"deleted {domain}")


command.add_command(export_command)
command.add_command(import_command)
command.add_command(copy_command)
command.add_command(exports_group)


def _row(instance: Instance) -> tuple[str, ...]:
    quota = output.size(instance.quota) if instance.quota else "none"
    return (instance.domain, instance.org or "-", quota, instance.created_at)


def _fields(instance: Instance) -> dict[str, Any]:
    return {
        "domain": instance.domain,
        "organisation": instance.org or None,
        "context": instance.context or None,
        "quota_bytes": instance.quota or None,
        "max_versions": "as configured"
        if instance.max_versions is None
        else instance.max_versions,
        "version_delay_s": "as configured"
        if instance.version_delay_s is None
        else instance.version_delay_s,
        "trash_age_s": instance.trash_age_s,
        "db_prefix": instance.db_prefix,
        "bucket": instance.bucket,
        "created": instance.created_at,
        "being_deleted": instance.deleting,
    }
