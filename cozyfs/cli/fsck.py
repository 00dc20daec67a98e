"""``cozyfs fsck``: is an instance whole, and what can be put right.

Where it is mounted with this state directory, the mount does the check; else this process opens
the tree itself, for a repair as the one who may write. Exit codes are those of fsck(8).
"""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from cozyfs.cli import output, stores
from cozyfs.cli.parameters import (
    DURATION,
    json_option,
    state_option,
)
from cozyfs.cli.where import where_options
from cozyfs.errors import CozyError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from rich.progress import Progress as Bar

    from cozyfs.cli.where import Where
    from cozyfs.control import ControlClient
    from cozyfs.state import InstanceState
    from cozyfs.store import Store
    from cozyfs.values import Instance
    from cozyfs.vfs.fsck_findings import Finding

EXIT_CLEAN = 0
EXIT_REPAIRED = 1
EXIT_LEFT = 4
EXIT_FAILED = 8
EXIT_USAGE = 16
EXIT_INTERRUPTED = 32

ANSWER_TIMEOUT_S = 120.0
"""Between two signs of life of a mount; there is one every half second, unless it is busy."""

PROGRESS_PAUSE_S = 0.2

PARALLEL = 32
"""Requests at once while a tree is checked here."""


class _BadUsage(click.UsageError):
    exit_code = EXIT_USAGE


class _Command(click.Command):
    """Bad usage has the exit code of fsck(8)."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        try:
            return super().make_context(*args, **kwargs)
        except click.UsageError as exc:
            raise _BadUsage(exc.format_message(), exc.ctx) from exc


@click.command(cls=_Command, short_help="Check an instance, and repair it.")
@click.argument("instance")
@where_options
@state_option
@json_option
@click.option("--fail-fast", is_flag=True, help="Stop at the first finding.")
@click.option("--deep", is_flag=True, help="Read every content and compare its checksums.")
@click.option("--repair", is_flag=True, help="Put right what can be; deletes no content in use.")
@click.option(
    "--retention",
    type=DURATION,
    default="1d",
    show_default=True,
    help="That of the mounts of this instance: what is to be deleted later than a week after it "
    "was left behind.",
)
def command(
    instance: str,
    where: Where,
    state_dir: Path | None,
    as_json: bool,
    **asked: Any,
) -> int:
    """Check INSTANCE, mounted or not: its tree, whether each file and version has its object and
    each object its file, thumbnails, unfinished uploads, the journal. Each finding is a line.

    Exit codes: 0 nothing found, 1 all repaired, 4 something is left, 8 the check failed, 16 bad
    usage, 32 interrupted.

    \b
      cozyfs fsck alice.example.com
      cozyfs fsck --deep --json alice.example.com | jq -r .type | sort | uniq -c
      cozyfs fsck --repair alice.example.com
    """
    shown = _Shown(as_json)
    try:
        from cozyfs.config import state_dir as default_state_dir

        folder = default_state_dir(state_dir)
        client = find_mount(folder, instance, where)
        if client is not None:
            answers = client.stream(
                "fsck",
                ANSWER_TIMEOUT_S,
                deep=asked["deep"],
                fail_fast=asked["fail_fast"],
                repair=asked["repair"],
                retention_s=int(asked["retention"]),
            )
            for answer in answers:
                shown.answer(answer)
        else:
            check_unmounted(instance, where, folder, asked, shown)
        return shown.exit_code()
    except UsageError as exc:
        return _fail(exc, EXIT_USAGE)
    except (CozyError, OSError) as exc:
        return _fail(exc, EXIT_FAILED | shown.exit_code(done=False))
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED | shown.exit_code(done=False)
    finally:
        shown.end()


def _fail(exc: Exception, code: int) -> int:
    from cozyfs.logs import redact

    click.echo(redact("cozyfs: " + " ".join(str(exc).split())), err=True)
    return code


def find_mount(state_dir: Path, domain: str, where: Where) -> ControlClient | None:
    """The mount of the instance with this state directory. Raises InstanceError, StoreError where
    several instances have the name, and the store has to say which is meant."""
    from cozyfs import instances
    from cozyfs.control import ControlClient
    from cozyfs.state import instance_directory, mounts

    name = instances.normalise_domain(domain)
    found = [record for record in mounts(state_dir) if record.instance == name]
    if len(found) > 1 or (found and (where.org is not None or where.db_prefix is not None)):
        with where.opened(domain) as at:
            directory = instance_directory(state_dir, at.instance.bucket, at.instance.db_prefix)
        found = [record for record in found if record.directory == directory]
    return ControlClient(found[0].control_path) if found else None


def check_unmounted(
    domain: str, where: Where, state_dir: Path, asked: dict[str, Any], shown: _Shown
) -> None:
    """Open the tree here. Raises CozyError: also where the instance is being mounted."""
    import trio

    from cozyfs.state import InstanceState

    settings = where.settings()
    with stores.opened(settings, PARALLEL) as store:
        store.check()
        instance = where.find(store, settings, domain)
        state = InstanceState.open(state_dir, instance.bucket, instance.db_prefix)
        state.hold(instance.domain)
        try:
            state.claim(store.description)
            trio.run(_run, instance, store, state, asked, shown)
        except BaseExceptionGroup as group:
            # Ctrl-C leaves through the nurseries, which wrap it.
            if group.subgroup(KeyboardInterrupt) is None:
                raise
            raise KeyboardInterrupt from group
        finally:
            state.unlock()


async def _run(
    instance: Instance, store: Store, state: InstanceState, asked: dict[str, Any], shown: _Shown
) -> None:
    import trio

    from cozyfs.checking import check_tree
    from cozyfs.nurseries import background_tasks
    from cozyfs.vfs.fsck import Options, Progress

    progress = Progress()

    async def tell(finding: Finding) -> None:
        shown.answer({"finding": finding.to_json()})

    async def show_progress() -> None:
        while True:
            shown.answer({"progress": progress.to_json()})
            await trio.sleep(PROGRESS_PAUSE_S)

    options = Options(
        deep=asked["deep"],
        fail_fast=asked["fail_fast"],
        repair=asked["repair"],
        retention_s=asked["retention"],
    )
    async with background_tasks() as nursery:
        nursery.start_soon(show_progress)
        summary = await check_tree(instance, store, state, options, tell, progress)
        shown.answer({"done": summary.to_json()})


class _Shown:
    """What the terminal gets: a finding a line, and a bar where that is seen."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._bar: Bar | None = None
        self._found = self._left = 0
        self._done: dict[str, Any] | None = None
        self._began = time.monotonic()

    def answer(self, answer: dict[str, Any]) -> None:
        """One of those that `cozyfs.fuse.checks` describes."""
        if "finding" in answer:
            self._finding(answer["finding"])
        elif "progress" in answer:
            self._progress(answer["progress"])
        elif "done" in answer:
            self._done = answer["done"]
            self.end()
            self._summary(answer["done"])

    def exit_code(self, *, done: bool = True) -> int:
        """*done*: the check should have come to its end. Raises CozyError when it has not."""
        if done and self._done is None:
            raise CozyError("the mount ended before the check did")
        code = EXIT_REPAIRED if self._found > self._left else EXIT_CLEAN
        return code | (EXIT_LEFT if self._left else EXIT_CLEAN)

    def end(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _finding(self, finding: dict[str, Any]) -> None:
        from cozyfs.vfs.fsck_findings import as_line

        self._found += 1
        self._left += finding.get("repaired") is not True
        line = json.dumps(finding, ensure_ascii=True) if self._as_json else as_line(finding)
        click.echo(line)

    def _summary(self, done: dict[str, Any]) -> None:
        if self._as_json:
            return
        took = output.duration(time.monotonic() - self._began)
        what = f"{done['objects']} objects looked at in {took}"
        if done["contents_read"]:
            what += f", {done['contents_read']} contents read"
        found = "nothing found"
        if done["findings"]:
            found = f"{done['findings']} found, {done['repaired']} repaired, {done['left']} left"
        click.echo(f"{what}: {found}", err=True)

    def _progress(self, progress: dict[str, Any]) -> None:
        if not sys.stderr.isatty() or (self._done is not None):
            return
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                DownloadColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._bar.add_task("", total=None)
            self._bar.start()
        total = progress["bytes_total"]
        text = f"checking the {progress['phase']}"
        if progress["phase"] == "store":
            text += f": {progress['objects']} objects"
        self._bar.update(
            self._bar.task_ids[0],
            description=text,
            completed=progress["bytes_read"],
            total=total or None,
        )
