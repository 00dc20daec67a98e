"""Which store, and which instance in it: the options that most commands share, as one value."""

from __future__ import annotations

import functools
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from cozyfs.cli import stores
from cozyfs.cli.parameters import instance_options, log_level_option, store_options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cozyfs.store import Settings, Store
    from cozyfs.values import Instance

T = TypeVar("T")


class Opened(NamedTuple):
    """An instance, and its store while it is open."""

    store: Store
    instance: Instance
    settings: Settings

    @property
    def bucket_prefix(self) -> str:
        return self.settings.url.bucket_prefix


class Where(NamedTuple):
    """What the options say."""

    fs_url: str | None
    config: Path | None
    org: str | None
    db_prefix: str | None
    log_level: str

    def settings(self) -> Settings:
        """Which store it is; logging is set up as well. Raises UsageError."""
        return stores.settings(self.fs_url, self.config, self.log_level)

    def find(self, store: Store, settings: Settings, domain: str) -> Instance:
        """Raises InstanceError, StoreError."""
        return stores.find(store, settings, domain, self.org, self.db_prefix)

    @contextmanager
    def opened(self, domain: str, parallel: int = stores.PARALLEL) -> Iterator[Opened]:
        """The instance *domain*; *parallel* requests at once. Raises UsageError, InstanceError,
        StoreError."""
        settings = self.settings()
        with stores.opened(settings, parallel) as store:
            yield Opened(store, self.find(store, settings, domain), settings)


def where_options(command: Callable[..., T]) -> Callable[..., T]:
    """``--fs-url``, ``--config``, ``--org``, ``--db-prefix`` and ``--log-level``, which the
    command gets as ``where``. Below it are only options of its own."""

    @functools.wraps(command)
    def callback(**values: Any) -> T:
        where = Where(*(values.pop(name) for name in Where._fields))
        return command(where=where, **values)

    options = (log_level_option("error"), instance_options, store_options)
    wrapped: Callable[..., T] = callback
    for add in options:
        wrapped = add(wrapped)
    return wrapped
