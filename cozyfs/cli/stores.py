"""What commands that work on a store begin with: its settings, the store opened, an instance."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cozyfs.store import Settings, Store
    from cozyfs.values import Instance


def settings(fs_url: str | None, config_file: Path | None, log_level: str) -> Settings:
    """Which store; logging is set up, and knows what it must not show."""
    from cozyfs import config, logs

    found = config.load_settings(fs_url, config_file)
    logs.set_up(log_level)
    logs.hide(found.url.access_key, found.url.secret_key)
    return found


@contextlib.contextmanager
def opened(settings: Settings) -> Iterator[Store]:
    from cozyfs.store import open_store

    with contextlib.closing(open_store(settings, parallel=4)) as store:
        yield store


def find(settings: Settings, domain: str, org: str | None, db_prefix: str | None) -> Instance:
    """Raises InstanceError for an unknown one."""
    from cozyfs import instances

    with opened(settings) as store:
        return instances.find(
            store, settings.url.bucket_prefix, domain, org=org, db_prefix=db_prefix
        )
