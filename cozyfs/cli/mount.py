"""``cozyfs mount``: what was asked for, checked as far as can be, then mounted.

Options come from the command line, from ``-o`` (so from fstab), from the environment; the
earlier wins. What can be checked without the store is checked before the fork, the rest in
the process that becomes the mount (see :mod:`cozyfs.cli.background`).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from cozyfs import moments
from cozyfs.cli import background, fstab, mountpoints
from cozyfs.cli.parameters import (
    DURATION,
    FILE,
    MOMENT,
    MOUNTPOINT,
    SIZE,
    instance_options,
    log_level_option,
    state_option,
    store_options,
    version_options,
)
from cozyfs.errors import CozyError, InstanceError, StoreUnavailable, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cozyfs.store import Settings, Store
    from cozyfs.values import Instance

T = TypeVar("T")

MIN_WRITE_BUFFER = 16 << 20
"""Bytes: room for three parts of an upload."""

MIN_REFRESH_S = 0.1

TRASH_AGE_S = 30 * 86400.0

START_PATIENCE_S = 3.0

BACKGROUND_LOG_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Request:
    """A mount as asked for: every option in its final form."""

    domain: str
    mountpoint: Path
    settings: Settings
    state_dir: Path
    org: str | None
    db_prefix: str | None
    create: bool
    read_only: bool
    at_ns: int | None
    foreground: bool
    write_buffer: int  # bytes
    cache_size: int  # bytes
    timeout_s: float
    parallel: int
    retention_s: float
    trash_age_s: float | None
    journal_interval_s: float
    refresh_s: float
    force_lease: bool
    accept_loss: bool
    max_versions: int | None
    version_delay_s: float | None
    log_file: Path | None
    log_level: str
    fstab: fstab.FstabOptions


@click.command(short_help="Mount an instance on a folder.")
@click.argument("instance")
@click.argument("mountpoint", type=MOUNTPOINT)
@store_options
@instance_options
@click.option("--create", is_flag=True, help="Create the instance if the store has none.")
@click.option("--read-only", is_flag=True, help="Allow no change; the same as -o ro.")
@click.option(
    "--at",
    type=MOMENT,
    help="Show the tree as it was then, read-only: '2026-11-22 18:00' (local time), '2h ago'.",
)
@click.option("--foreground", "-f", is_flag=True, help="Stay until unmounted; log to stderr.")
@state_option
@click.option(
    "--write-buffer",
    type=SIZE,
    default="64M",
    show_default=True,
    help="Memory for content that is not in the store yet, for the whole mount.",
)
@click.option(
    "--cache-size", type=SIZE, default="96M", show_default=True, help="Memory for content read."
)
@click.option(
    "--timeout",
    type=DURATION,
    metavar="SECONDS",
    default="60",
    show_default=True,
    help="How long a failing request to the store is tried again.",
)
@click.option(
    "--parallel",
    type=click.IntRange(1, 512),
    metavar="N",
    default=32,
    show_default=True,
    help="Requests to the store at one time.",
)
@click.option(
    "--retention",
    type=DURATION,
    default="1d",
    show_default=True,
    help="How long replaced and removed content stays in the store.",
)
@click.option(
    "--trash-age",
    type=DURATION,
    help="How long removed files stay in the trash; 0 for ever. "
    "[default: what the instance or the configuration says, else 30D]",
)
@click.option(
    "--journal-interval",
    type=DURATION,
    metavar="SECONDS",
    default=1.0,
    show_default=True,
    help="How long a change of the tree may take to reach the store.",
)
@click.option(
    "--refresh",
    type=DURATION,
    metavar="SECONDS",
    default=2.0,
    show_default=True,
    help="How often a read-only mount looks for what the writer changed.",
)
@click.option(
    "--force-lease",
    is_flag=True,
    help="Take the instance over from a machine that is gone for good, at once.",
)
@click.option(
    "--accept-loss",
    is_flag=True,
    help="Where the journal in the store is damaged, go on without what cannot be restored.",
)
@version_options
@click.option("--log-file", type=FILE, help="Log to this file; reopened when it was moved away.")
@log_level_option("info")
@click.option(
    "-o",
    "options",
    multiple=True,
    metavar="OPTIONS",
    help="As in fstab: ro, allow_other, uid=, gid=, umask=, ... and the options above, "
    "for example -o ro,config=/etc/cozyfs.yaml.",
)
@click.pass_context
def command(ctx: click.Context, /, instance: str, mountpoint: Path, **values: Any) -> None:
    """Mount INSTANCE, a domain such as alice.example.com, on the folder MOUNTPOINT.

    Returns when the mount works; the mount then runs in the background until it is unmounted
    with "cozyfs umount", SIGINT or SIGTERM, which all wait until everything is stored.

    \b
      cozyfs mount alice.example.com ~/alice
      cozyfs mount --create --fs-url file:///srv/cozy bob.example.com /mnt/bob
      cozyfs mount -o ro,allow_other alice.example.com /mnt/alice
      cozyfs mount --foreground --log-level debug alice.example.com ~/alice
      cozyfs mount --at '2026-11-22 18:00' alice.example.com ~/yesterday
    """
    request = parse_request(ctx, instance, mountpoint, values)
    check_machine()
    check_mountpoint(request.mountpoint, request.state_dir)
    if request.foreground:
        background.run_in_foreground(lambda ready: run_request(request, ready))
    else:
        background.run_in_background(lambda ready: run_request(request, ready))


def parse_request(
    ctx: click.Context, domain: str, mountpoint: Path, values: dict[str, Any]
) -> Request:
    """Join the command line, ``-o`` and the environment. Raises UsageError."""
    from cozyfs import config
    from cozyfs.state import resolve_mountpoint

    options = fstab.parse(values["options"])
    values = values | _settings_behind_o(ctx, options)
    if values["write_buffer"] < MIN_WRITE_BUFFER:
        raise UsageError(f"--write-buffer is at least {MIN_WRITE_BUFFER >> 20}M")
    at_ns = values["at"]
    read_only = values["read_only"] or bool(options.read_only) or at_ns is not None
    if values["accept_loss"] and read_only:
        raise UsageError("--accept-loss is for writing: a read-only mount shows what there is")
    if at_ns is not None:
        _check_past(at_ns, values["create"] or options.create, values["force_lease"])
    log_file = values["log_file"]
    return Request(
        domain=domain,
        mountpoint=resolve_mountpoint(mountpoint),
        settings=config.load_settings(values["fs_url"], values["config"]),
        state_dir=config.state_dir(values["state_dir"]),
        org=values["org"],
        db_prefix=values["db_prefix"],
        create=values["create"] or options.create,
        read_only=read_only,
        at_ns=at_ns,
        foreground=values["foreground"],
        write_buffer=values["write_buffer"],
        cache_size=values["cache_size"],
        timeout_s=values["timeout"],
        parallel=values["parallel"],
        retention_s=values["retention"],
        trash_age_s=values["trash_age"],
        journal_interval_s=values["journal_interval"],
        refresh_s=max(values["refresh"], MIN_REFRESH_S),
        force_lease=values["force_lease"],
        accept_loss=values["accept_loss"],
        max_versions=values["max_versions"],
        version_delay_s=values["version_delay"],
        log_file=log_file.absolute() if log_file else None,
        log_level=values["log_level"],
        fstab=options,
    )


def _settings_behind_o(ctx: click.Context, options: fstab.FstabOptions) -> dict[str, Any]:
    """The values of ``-o name=value``, converted as ``--name value`` is, except where the
    command line has the option itself."""
    parameters = {parameter.name: parameter for parameter in ctx.command.params}
    found = {}
    for name, text in options.settings.items():
        if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            continue
        try:
            found[name] = parameters[name].type_cast_value(ctx, text)
        except click.BadParameter as exc:
            raise UsageError(f"-o {name}: {exc.message}") from exc
    return found


def _check_past(at_ns: int, create: bool, force_lease: bool) -> None:
    if at_ns > time.time_ns():
        raise UsageError(f"--at: {moments.to_text(at_ns)} is in the future")
    for option, given in (("--create", create), ("--force-lease", force_lease)):
        if given:
            raise UsageError(f"{option} is for writing: --at shows what was there")


def check_machine() -> None:
    """Raises CozyError when this machine or this user cannot mount at all."""
    try:
        open_fuse()
    except FileNotFoundError as exc:
        raise CozyError("/dev/fuse is missing: load the kernel module (modprobe fuse)") from exc
    except OSError as exc:
        raise CozyError(f"/dev/fuse cannot be opened: {exc.strerror}") from exc
    if os.geteuid() != 0 and shutil.which("fusermount3") is None:
        raise CozyError("fusermount3 is missing: install fuse3")


def open_fuse() -> None:
    """Raises OSError when this user cannot use FUSE."""
    os.close(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))


def check_mountpoint(path: Path, state_dir: Path) -> None:
    """Raises when nothing can be mounted on *path*. What a mount that died left there is
    cleared away, with a notice."""
    from cozyfs.state import find_mount

    holder = find_mount(state_dir, path)
    if holder is not None and mountpoints.kernel_mount(path) is not None:
        raise InstanceError(
            f"{holder.instance} is mounted at {path} already (pid {holder.pid}); unmount it first"
        )
    if mountpoints.kernel_mount(path) is not None and mountpoints.is_dead(path):
        mountpoints.unmount_lazily(path)
        click.echo(f"cozyfs: cleared away the mount at {path}, whose process had ended", err=True)
    if not path.exists():
        raise CozyError(f"the mount point {path} does not exist")
    if not path.is_dir():
        raise CozyError(f"the mount point {path} is not a folder")
    if not os.access(path, os.W_OK | os.X_OK):
        # fusermount3 asks for the same, and says less.
        raise CozyError(f"the mount point {path} is not writable for you")


def find_instance(store: Store, request: Request) -> Instance:
    """The instance asked for; made now where it is missing and that was asked for as well.
    Raises InstanceError."""
    from cozyfs import instances

    bucket_prefix = request.settings.url.bucket_prefix
    try:
        return instances.find(
            store, bucket_prefix, request.domain, org=request.org, db_prefix=request.db_prefix
        )
    except InstanceError:
        if not request.create:
            raise
    # Where it is there but cannot be used, this refuses it for the same reason.
    return instances.create(
        store,
        bucket_prefix,
        request.domain,
        org=request.org or "",
        db_prefix=request.db_prefix,
    )


def _find(store: Store, request: Request) -> Instance:
    store.check()
    return find_instance(store, request)


def _patiently(call: Callable[[], T], timeout_s: float) -> T:
    """*call*, again for a few seconds while the store does not answer: one that is just starting,
    or busy for a moment, is no reason to fail. A wrong address is told soon all the same."""
    deadline = time.monotonic() + min(timeout_s, START_PATIENCE_S)
    while True:
        try:
            return call()
        except StoreUnavailable:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.5)


def trash_age(request: Request, instance: Instance) -> float:
    """Seconds that things stay in the trash, 0 for ever: as asked for, else as the instance has
    it, else as the configuration says of its context. Raises UsageError."""
    from cozyfs import config

    configured = config.trashed_after(request.settings.section, instance.context)
    for age in (request.trash_age_s, instance.trash_age_s, configured):
        if age is not None:
            return age
    return TRASH_AGE_S


def run_request(request: Request, ready: Callable[[], None]) -> None:
    """Find the instance, take its state, mount until unmounted. Raises CozyError."""
    from cozyfs import logs
    from cozyfs.cli.restoring import RestoreProgress, notice
    from cozyfs.mount import MountOptions, run_mount
    from cozyfs.paststate import PastState
    from cozyfs.state import InstanceState
    from cozyfs.store import open_store
    from cozyfs.versioning import version_rules

    os.umask(0o077)  # what is kept on this machine is the user's alone
    logs.set_up(request.log_level, request.log_file)
    logs.hide(request.settings.url.access_key, request.settings.url.secret_key)
    with contextlib.closing(open_store(request.settings, parallel=1)) as store:
        description = store.description
        instance = _patiently(lambda: _find(store, request), request.timeout_s)
    rules = version_rules(
        request.settings.section,
        instance,
        max_number=request.max_versions,
        min_delay_s=request.version_delay_s,
    )
    state = InstanceState.open(request.state_dir, instance.bucket, instance.db_prefix)
    if request.at_ns is None:
        state.lock(request.mountpoint, instance=instance.domain, store=description)
    else:
        state = PastState.begin(
            state,
            request.mountpoint,
            instance=instance.domain,
            store=description,
            at=moments.to_iso(request.at_ns),
        )
    progress = RestoreProgress()

    def ready_now() -> None:
        progress.end()
        ready()

    try:
        if request.log_file is None and not request.foreground:
            logs.set_up(request.log_level, state.log_path, rotate_bytes=BACKGROUND_LOG_BYTES)
        run_mount(
            MountOptions(
                mountpoint=request.mountpoint,
                instance=instance,
                store=lambda: open_store(
                    request.settings, parallel=request.parallel, timeout_s=request.timeout_s
                ),
                store_description=description,
                state=state,
                bucket_prefix=request.settings.url.bucket_prefix,
                read_only=request.read_only,
                at_ns=request.at_ns,
                fuse_options=request.fstab.fuse_options,
                uid=request.fstab.uid,
                gid=request.fstab.gid,
                umask=request.fstab.umask,
                default_permissions=request.fstab.default_permissions,
                write_buffer=request.write_buffer,
                cache_size=request.cache_size,
                timeout_s=request.timeout_s,
                parallel=request.parallel,
                retention_s=request.retention_s,
                use_trash=request.fstab.trash,
                make_thumbnails=request.fstab.thumbs,
                trash_age_s=trash_age(request, instance),
                journal_interval_s=request.journal_interval_s,
                refresh_s=request.refresh_s,
                force_lease=request.force_lease,
                accept_loss=request.accept_loss,
                version_rules=rules,
                progress=progress,
                notice=notice,
            ),
            ready_now,
        )
    finally:
        progress.end()
        state.unlock()
