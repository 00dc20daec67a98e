"""Where the commands about apps work: options, store and instance that all of them share."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, TypeVar

import click

from cozyfs.cli import stores
from cozyfs.cli.parameters import instance_options, log_level_option, store_options

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    import trio

    from cozyfs.side.apps import AppFiles, Documents, Kind
    from cozyfs.store import Store
    from cozyfs.threads import Caller
    from cozyfs.values import Instance

P = ParamSpec("P")
T = TypeVar("T")


class Place(NamedTuple):
    """Where a command works."""

    store: Store
    caller: Caller
    bucket_prefix: str
    instance: Instance
    kind: Kind

    @property
    def documents(self) -> Documents:
        from cozyfs.side.apps import Documents

        return Documents(self.store, self.caller, self.instance, self.kind)

    @property
    def files(self) -> AppFiles:
        from cozyfs.side.apps import AppFiles

        return AppFiles(self.store, self.caller, self.bucket_prefix, self.kind)


def command(
    name: str, help_text: str, short_help: str
) -> Callable[[Callable[..., None]], click.Command]:
    """A command whose first argument is INSTANCE, and whose function gets a :class:`Place`."""

    def decorate(function: Callable[..., None]) -> click.Command:
        def callback(
            instance: str,
            fs_url: str | None,
            config: Path | None,
            org: str | None,
            db_prefix: str | None,
            log_level: str,
            **rest: Any,
        ) -> None:
            group = click.get_current_context().parent
            assert group is not None
            settings = stores.settings(fs_url, config, log_level)
            with stores.opened(settings) as store:
                found = stores.find(store, settings, instance, org, db_prefix)
                place = _place(store, settings.url.bucket_prefix, found, str(group.command.name))
                function(place, **rest)

        # The options of the function itself come after the instance, before the common ones.
        callback.__click_params__ = getattr(function, "__click_params__", [])  # type: ignore[attr-defined]  # click's own
        wrapped: Any = callback
        for add in (log_level_option("error"), instance_options, store_options):
            wrapped = add(wrapped)
        wrapped = click.argument("instance")(wrapped)
        return click.command(name, help=help_text, short_help=short_help)(wrapped)

    return decorate


def _place(store: Store, bucket_prefix: str, instance: Instance, name: str) -> Place:
    from cozyfs.side.apps import KINDS
    from cozyfs.threads import Caller

    (kind,) = (kind for kind in KINDS if kind.name == name)
    return Place(store, Caller(parallel=stores.PARALLEL), bucket_prefix, instance, kind)


def run(function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """Its result. Ctrl-C cancels it, also what it does in threads, and waits until it has cleaned
    up; then it raises KeyboardInterrupt."""
    import trio

    from cozyfs.nurseries import background_tasks

    results: list[T] = []

    async def main() -> None:
        with trio.CancelScope() as scope:
            async with background_tasks() as nursery:
                await nursery.start(_cancel_on_interrupt, scope)
                results.append(await function(*args, **kwargs))

    trio.run(main)
    if not results:
        raise KeyboardInterrupt
    return results[0]


async def _cancel_on_interrupt(
    scope: trio.CancelScope, *, task_status: trio.TaskStatus[None]
) -> None:
    import trio

    with trio.open_signal_receiver(signal.SIGINT) as signals:
        task_status.started()
        async for _ in signals:
            scope.cancel()
