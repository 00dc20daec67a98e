"""What commands do that work on a store without a mount: open it, and find an instance in it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cozyfs.store import Settings, Store
    from cozyfs.values import Instance

PARALLEL = 8
"""Requests at once."""


def settings(fs_url: str | None, config_file: Path | None, log_level: str) -> Settings:
    """Which store, from the options and what stands behind them; logging is set up as well."""
    from cozyfs import config, logs

    found = config.load_settings(fs_url, config_file)
    logs.set_up(log_level)
    logs.hide(found.url.access_key, found.url.secret_key)
    return found


@contextlib.contextmanager
def opened(settings: Settings, parallel: int = PARALLEL) -> Iterator[Store]:
    """*parallel* requests at once."""
    from cozyfs.store import open_store

    with contextlib.closing(open_store(settings, parallel=parallel)) as store:
        yield store


def find(
    store: Store, settings: Settings, domain: str, org: str | None, db_prefix: str | None
) -> Instance:
    """Raises InstanceError."""
    from cozyfs import instances

    return instances.find(store, settings.url.bucket_prefix, domain, org=org, db_prefix=db_prefix)
