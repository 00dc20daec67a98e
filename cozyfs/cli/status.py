"""``cozyfs status``: what a mount says of itself, and which mounts there are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cozyfs.cli import mountpoints, output
from cozyfs.cli.parameters import MOUNTPOINT, json_option, state_option
from cozyfs.errors import CozyError, InstanceError

if TYPE_CHECKING:
    from pathlib import Path

ANSWER_TIMEOUT_S = 5.0


@click.command(short_help="Show how a mount is doing.")
@click.argument("mountpoint", type=MOUNTPOINT, required=False)
@state_option
@json_option
def command(mountpoint: Path | None, state_dir: Path | None, as_json: bool) -> None:
    """Show what the mount at MOUNTPOINT does: process, instance, store, open files, content
    that is not in the store yet, uploads, cache use, errors since it started.

    Without MOUNTPOINT, list the mounts of this machine. Exit code 1 when MOUNTPOINT is not
    mounted or its mount does not answer within 5 seconds.

    \b
      cozyfs status ~/alice
      cozyfs status --json ~/alice | jq .dirty_bytes
    """
    from cozyfs.config import state_dir as default_state_dir

    folder = default_state_dir(state_dir)
    if mountpoint is None:
        list_mounts(folder, as_json)
    else:
        show_mount(folder, mountpoint, as_json)


def list_mounts(state_dir: Path, as_json: bool) -> None:
    """Every live mount whose state is under *state_dir*."""
    from cozyfs.state import mounts

    fields = ("mountpoint", "instance", "pid", "store", "started_at", "at")
    found = [{name: getattr(record, name) for name in fields} for record in mounts(state_dir)]
    if as_json:
        output.print_json(found)
    elif found:
        header = ("MOUNTPOINT", "INSTANCE", "PID", "STORE", "SINCE", "AT")
        output.print_table(header, ([str(value) for value in row.values()] for row in found))
    else:
        click.echo("nothing is mounted", err=True)


def show_mount(state_dir: Path, mountpoint: Path, as_json: bool) -> None:
    """What the mount at *mountpoint* answers. Raises CozyError when there is none, or none
    that answers."""
    from cozyfs.control import ControlClient, NoAnswer
    from cozyfs.state import find_mount, resolve_mountpoint

    record = find_mount(state_dir, mountpoint)
    if record is None:
        raise not_found(resolve_mountpoint(mountpoint), state_dir)
    known: dict[str, Any] = {
        "mountpoint": record.mountpoint,
        "instance": record.instance,
        "store": record.store,
        "pid": record.pid,
        "started_at": record.started_at,
    }
    try:
        answer = ControlClient(record.control_path).request("status", ANSWER_TIMEOUT_S)
    except NoAnswer as exc:
        raise CozyError(f"{record.mountpoint} (pid {record.pid}): {exc}") from exc
    status = known | answer
    if as_json:
        output.print_json(status)
    else:
        output.print_fields(status)


def not_found(path: Path, state_dir: Path) -> InstanceError:
    """Why no mount was found at *path*, in one line."""
    mounted = mountpoints.kernel_mount(path)
    if mounted is None:
        return InstanceError(f"{path} is not mounted")
    if not mounted.is_cozyfs:
        return InstanceError(f"{path} is a mount of {mounted.fstype}, not of cozyfs")
    if mountpoints.is_dead(path):
        return InstanceError(
            f"the process of the mount at {path} has ended; 'cozyfs umount {path}' clears it away"
        )
    return InstanceError(
        f"{path} is mounted, but not with the state in {state_dir}: give the --state-dir "
        f"that it was mounted with"
    )
