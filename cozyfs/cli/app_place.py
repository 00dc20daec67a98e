"""Where the commands about apps work: options, store and instance that all of them share."""

from __future__ import annotations

import functools
import signal
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, TypeVar

import click

from cozyfs.cli import stores
from cozyfs.cli.where import where_options

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import trio

    from cozyfs.cli.where import Opened, Where
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
        @functools.wraps(function)
        def callback(instance: str, where: Where, **rest: Any) -> None:
            group = click.get_current_context().parent
            assert group is not None
            with where.opened(instance) as at:
                function(_place(at, str(group.command.name)), **rest)

        # The options of the function itself come after the instance, before the common ones.
        with_instance = click.argument("instance")(where_options(callback))
        return click.command(name, help=help_text, short_help=short_help)(with_instance)

    return decorate


def _place(at: Opened, name: str) -> Place:
    from cozyfs.side.apps import KINDS
    from cozyfs.threads import Caller

    (kind,) = (kind for kind in KINDS if kind.name == name)
    caller = Caller(parallel=stores.PARALLEL)
    return Place(at.store, caller, at.bucket_prefix, at.instance, kind)


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
