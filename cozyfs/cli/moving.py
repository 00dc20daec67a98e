"""``cozyfs instances export``, ``import`` and ``copy``: whole instances on the move."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cozyfs.cli import stores
from cozyfs.cli.moved import STDIO, tell_export, tell_missing_apps, tell_report
from cozyfs.cli.parameters import (
    force_lease_option,
    json_option,
    log_level_option,
    state_option,
    store_options,
)
from cozyfs.cli.where import where_options
from cozyfs.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cozyfs.cli.restoring import RestoreProgress
    from cozyfs.cli.where import Where
    from cozyfs.moving.importing import Report
    from cozyfs.moving.into import Source
    from cozyfs.store import Settings, Store
    from cozyfs.threads import Caller
    from cozyfs.values import Instance

PARALLEL = 16
TIMEOUT_S = 60.0
FLUSH_S = 600.0

_ZIP = b"PK\3\4"


@click.command("export", short_help="Make an archive of an instance.")
@click.argument("domain")
@click.option(
    "--output",
    "-o",
    metavar="FILE",
    help="Write it here; - for standard output. [default: the exports of the store]",
)
@click.option("--restart", is_flag=True, help="Begin anew instead of going on.")
@where_options
@state_option
@json_option
def export_command(
    domain: str,
    output: str | None,
    restart: bool,
    where: Where,
    state_dir: Path | None,
    as_json: bool,
) -> None:
    """Make one archive of the instance DOMAIN: its directories and files with their versions,
    the trash, links, attributes, owners and times, thumbnails and the avatar. It goes into the
    exports of the store, or to a file.

    What is exported is the tree as the store has it now; a mount on this machine stores what it
    holds first, and goes on undisturbed. An export that was cut goes on where it was when it is
    run again within 20 hours.

    \b
      cozyfs instances export alice.example.com
      cozyfs instances export alice.example.com -o alice.tgz
    """
    import trio

    from cozyfs.config import state_dir as default_state_dir
    from cozyfs.moving.exporting import Destination, export, to_bucket
    from cozyfs.state import InstanceState
    from cozyfs.threads import Caller

    if as_json and output == STDIO:
        raise UsageError("--json and the archive cannot both go to standard output")
    settings = where.settings()
    if output is None:
        destination = to_bucket(settings.url.bucket_prefix)
    elif output == STDIO:
        destination = Destination(stream=sys.stdout.buffer)
    else:
        destination = Destination(path=Path(os.path.abspath(output)))
    folder = default_state_dir(state_dir)
    with stores.opened(settings, PARALLEL) as store, _bar("exporting") as bar:
        instance = where.find(store, settings, domain)
        flush_mount(instance, store, folder)
        state = InstanceState.open(folder, instance.bucket, instance.db_prefix)

        async def run() -> None:
            caller = Caller(parallel=PARALLEL, timeout_s=TIMEOUT_S)
            made = await export(
                instance,
                store,
                caller,
                state.directory,
                destination,
                restart=restart,
                progress=bar,
            )
            bar.end()
            tell_export(made.id, made.files, made.versions, made.bytes, output, as_json)

        trio.run(run)


@click.command("import", short_help="Fill an instance from an archive.")
@click.argument("domain")
@click.argument("archives", nargs=-1, required=True, metavar="ARCHIVE...")
@force_lease_option
@where_options
@state_option
@json_option
def import_command(
    domain: str,
    archives: tuple[str, ...],
    force_lease: bool,
    where: Where,
    state_dir: Path | None,
    as_json: bool,
) -> None:
    """Bring an archive into the instance DOMAIN, which has to be empty and not mounted.

    ARCHIVE is a file that `instances export` made, - for standard input, the id of one in the
    exports of the store ([DOMAIN/]ID), or the zip files of a Cozy server's export, all of them,
    the first one first. An import that was cut is run again: it goes on, and ends the same.

    \b
      cozyfs instances import bob.example.com alice.tgz
      cozyfs instances import bob.example.com 'My Cozy.zip' 'My Cozy - part001.zip'
    """
    with where.opened(domain, PARALLEL) as at, contextlib.ExitStack() as stack:
        store, instance, settings = at
        caller = _caller()
        source = _source(archives, settings, store, instance, caller, stack)
        report = _import(instance, store, caller, source, state_dir, force_lease, "importing")
        tell_missing_apps(instance, store, caller, settings)
    tell_report(report, as_json)


@click.command("copy", short_help="Copy an instance into another one.")
@click.argument("source")
@click.argument("target")
@click.option(
    "--to-fs-url",
    envvar="COZYFS_TO_FS_URL",
    show_envvar=True,
    metavar="URL",
    help="The store of TARGET. [default: the same]",
)
@force_lease_option
@store_options
@state_option
@json_option
@log_level_option("error")
def copy_command(
    source: str,
    target: str,
    to_fs_url: str | None,
    force_lease: bool,
    fs_url: str | None,
    config: Path | None,
    state_dir: Path | None,
    as_json: bool,
    log_level: str,
) -> None:
    """Copy all of the instance SOURCE into the instance TARGET, which has to be empty and not
    mounted, as an export and an import would. On one store the server makes the copies: no
    content travels. A copy that was cut is run again.

    \b
      cozyfs instances copy alice.example.com alice.example.org
      cozyfs instances copy alice.example.com alice.example.com --to-fs-url file:///srv/cozy
    """
    from cozyfs.config import state_dir as default_state_dir
    from cozyfs.moving.into import InstanceSource

    folder = default_state_dir(state_dir)
    settings = stores.settings(fs_url, config, log_level)
    with stores.opened(settings, PARALLEL) as store, contextlib.ExitStack() as stack:
        instance = stores.find(store, settings, source, None, None)
        target_settings, target_store = settings, store
        if to_fs_url is not None:
            target_settings = stores.settings(to_fs_url, None, log_level)
            if target_settings.url != settings.url:
                target_store = stack.enter_context(stores.opened(target_settings, PARALLEL))
        into = stores.find(target_store, target_settings, target, None, None)
        if (target_store, into.bucket, into.db_prefix) == (
            store,
            instance.bucket,
            instance.db_prefix,
        ):
            raise UsageError("an instance cannot be copied into itself")
        flush_mount(instance, store, folder)
        caller = _caller()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        items = InstanceSource(instance, store, caller, folder)
        report = _import(into, target_store, caller, items, state_dir, force_lease, "copying")
        tell_missing_apps(into, target_store, caller, target_settings)
    tell_report(report, as_json)


def flush_mount(instance: Instance, store: Store, folder: Path) -> None:
    """A mount of *instance* on this machine stores what it holds. Raises CozyError."""
    from cozyfs.cli.umount import flush
    from cozyfs.state import instance_directory, mounts

    directory = instance_directory(folder, instance.bucket, instance.db_prefix)
    for record in mounts(folder):
        if record.directory == directory and record.store == store.description:
            flush(record, time.monotonic() + FLUSH_S)


def _import(
    instance: Instance,
    store: Store,
    caller: Caller,
    source: Source,
    state_dir: Path | None,
    force_lease: bool,
    doing: str,
) -> Report:
    import trio

    from cozyfs.cli.restoring import notice
    from cozyfs.config import state_dir as default_state_dir
    from cozyfs.moving.into import import_into
    from cozyfs.state import InstanceState

    folder = default_state_dir(state_dir)
    state = InstanceState.open(folder, instance.bucket, instance.db_prefix)
    state.lock(Path(f"/{doing}"), instance=instance.domain, store=store.description)
    try:
        with _bar(doing) as bar:
            return trio.run(
                partial(
                    import_into,
                    instance,
                    store,
                    caller,
                    state,
                    source,
                    force_lease=force_lease,
                    notice=notice,
                    progress=bar,
                )
            )
    finally:
        state.unlock()


def _source(
    archives: Sequence[str],
    settings: Settings,
    store: Store,
    instance: Instance,
    caller: Caller,
    stack: contextlib.ExitStack,
) -> Source:
    """What ARCHIVE... means. Raises UsageError, ArchiveError, OSError."""
    from cozyfs.moving import exports
    from cozyfs.moving.tar_reader import TarReader, stored_archive
    from cozyfs.moving.zip_reader import ZipReader

    if len(archives) > 1 or (os.path.exists(archives[0]) and _is_zip(archives[0])):
        return ZipReader([Path(name) for name in archives], caller)
    (name,) = archives
    if name == STDIO:
        return TarReader(sys.stdin.buffer, caller, "standard input")
    if os.path.exists(name):
        return TarReader(stack.enter_context(open(name, "rb")), caller, name)
    found = exports.find(store, settings.url.bucket_prefix, instance.domain, name)
    file = stored_archive(store, caller, found.bucket, found.key, found.size)
    return TarReader(file, caller, name)


def _is_zip(path: str) -> bool:
    if not stat.S_ISREG(os.stat(path).st_mode):
        return False
    with open(path, "rb") as file:
        return file.read(len(_ZIP)) == _ZIP


def _caller() -> Caller:
    from cozyfs.threads import Caller

    return Caller(parallel=PARALLEL, timeout_s=TIMEOUT_S)


@contextlib.contextmanager
def _bar(doing: str) -> Iterator[RestoreProgress]:
    from cozyfs.cli.restoring import RestoreProgress

    bar = RestoreProgress(doing)
    try:
        yield bar
    finally:
        bar.end()
