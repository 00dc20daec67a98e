"""``cozyfs usage``: how much an instance holds, and how much it may."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from cozyfs.cli import output
from cozyfs.cli.mounted import locate
from cozyfs.cli.parameters import (
    json_option,
    state_option,
)
from cozyfs.cli.where import where_options
from cozyfs.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from cozyfs.cli.where import Where
    from cozyfs.control import ControlClient
    from cozyfs.state import InstanceState
    from cozyfs.store import Store
    from cozyfs.values import Instance

ANSWER_TIMEOUT_S = 60.0
"""A trash of a million files is counted once."""


@click.command(short_help="Show how much an instance holds, and may hold.")
@click.argument("what", metavar="PATH|INSTANCE")
@where_options
@state_option
@json_option
def command(
    what: str,
    where: Where,
    state_dir: Path | None,
    as_json: bool,
) -> None:
    """Show the quota of an instance and what counts against it: its files, those in the trash
    among them, and versions. PATH is any path in a mount. An INSTANCE, a domain, need not be
    mounted.

    \b
      cozyfs usage ~/alice
      cozyfs usage --json alice.example.com | jq .used_bytes
    """
    from cozyfs.config import state_dir as default_state_dir

    folder = default_state_dir(state_dir)
    client = _mount_of(what, folder)
    if client is None:
        found = _usage_of(what, where, folder)
    else:
        found = client.request("usage", ANSWER_TIMEOUT_S)
    if as_json:
        output.print_json(found)
    else:
        output.print_fields(found)


def _mount_of(what: str, state_dir: Path) -> ControlClient | None:
    """The mount that the path *what* is in; None where it is a domain. Raises UsageError."""
    is_path = "/" in what or what in (".", "..")
    if not is_path and not os.path.lexists(what):
        return None
    try:
        return locate(what, state_dir).client
    except UsageError:
        if is_path:
            raise
        return None


def _usage_of(domain: str, where: Where, state_dir: Path) -> dict[str, Any]:
    """Of an instance: from its mount on this machine, else from its tree."""
    from cozyfs.control import ControlClient
    from cozyfs.state import InstanceState, instance_directory, mounts

    with where.opened(domain) as at:
        instance = at.instance
        state = InstanceState(instance_directory(state_dir, instance.bucket, instance.db_prefix))
        for record in mounts(state_dir):
            if record.directory == state.directory and state.belongs_to(at.store.description):
                return ControlClient(record.control_path).request("usage", ANSWER_TIMEOUT_S)
        return _unmounted(instance, at.store, state)


def _unmounted(instance: Instance, store: Store, state: InstanceState) -> dict[str, Any]:
    import trio

    from cozyfs.unmounted import newest_tree
    from cozyfs.vfs.quota import report

    async def look() -> dict[str, Any]:
        async with newest_tree(instance, store, state) as index:
            return report(index.usage, instance.quota)

    return trio.run(look)
