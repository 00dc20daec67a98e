"""What people see while a mount gets its tree back: a bar where it takes long, and what it waits
for. All of it on stderr, before the mount has left the terminal."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.progress import Progress

PATIENCE_S = 1.0
"""Before anything is shown: most trees are there by then."""

PLAIN_INTERVAL_S = 5.0
"""Between lines where there is no terminal."""


class RestoreProgress:
    """Called with the bytes done so far and those there are, maybe from a worker thread. *what*
    is done with them."""

    def __init__(self, what: str = "restoring the tree") -> None:
        self._what = what
        self._began = time.monotonic()
        self._next_line = self._began + PLAIN_INTERVAL_S
        self._bar: Progress | None = None

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if sys.stderr.isatty():
            if now - self._began > PATIENCE_S or self._bar is not None:
                self._show(done, total)
        elif now > self._next_line:
            self._next_line = now + PLAIN_INTERVAL_S
            click.echo(f"{self._what}: {done >> 20} of {total >> 20} MiB", err=True)

    def _show(self, done: int, total: int) -> None:
        if self._bar is None:
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                DownloadColumn,
                Progress,
                TextColumn,
                TimeRemainingColumn,
            )

            self._bar = Progress(
                TextColumn(self._what),
                BarColumn(),
                DownloadColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._bar.add_task("restoring", total=total)
            self._bar.start()
        self._bar.update(self._bar.task_ids[0], completed=done, total=total)

    def end(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def notice(text: str) -> None:
    """One line for people."""
    click.echo(f"cozyfs: {text}", err=True)
