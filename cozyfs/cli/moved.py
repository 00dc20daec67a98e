"""What people are told when an instance was moved."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cozyfs.cli import output
from cozyfs.errors import ArchiveError, CozyError

if TYPE_CHECKING:
    from cozyfs.moving.importing import Report
    from cozyfs.store import Settings, Store
    from cozyfs.threads import Caller
    from cozyfs.values import Instance

STDIO = "-"


def tell_export(
    export_id: str, files: int, versions: int, size: int, to: str | None, as_json: bool
) -> None:
    if as_json:
        output.print_json({"id": export_id, "files": files, "versions": versions, "bytes": size})
    elif to is None:
        click.echo(export_id)
    elif to != STDIO:
        click.echo(f"exported {files} files, {versions} versions, {output.size(size)}", err=True)


def tell_missing_apps(
    instance: Instance, store: Store, caller: Caller, settings: Settings
) -> None:
    """Another store may not have the files of what is installed."""
    import trio

    from cozyfs.moving.apps import Apps

    apps = Apps(store, caller, instance)
    try:
        missing = trio.run(apps.missing, settings.url.bucket_prefix)
    except CozyError as exc:  # the import is done all the same
        click.echo(f"cozyfs: whether the files of apps are there is not known: {exc}", err=True)
        return
    for kind, app in missing:
        click.echo(
            f"cozyfs: the store lacks the files of {app.slug} {app.version}:"
            f" cozyfs {kind.name} install {instance.domain} {app.slug} {app.source}",
            err=True,
        )


def tell_report(report: Report, as_json: bool) -> None:
    """Raises ArchiveError where something was left out."""
    left_out = [f"{number} of {doctype}" for doctype, number in report.left_out.items()]
    if as_json:
        output.print_json(
            {
                "directories": report.directories,
                "files": report.files,
                "versions": report.versions,
                "there_already": report.skipped,
                "left_out": report.left_out,
                "problems": report.problems,
            }
        )
    else:
        if left_out:
            # What a Cozy has beside files: nothing here could show it, or give it back.
            click.echo(f"cozyfs: documents without a place here: {', '.join(left_out)}", err=True)
        for problem in report.problems:
            click.echo(f"cozyfs: {problem}", err=True)
        click.echo(f"imported {report.files} files, {report.versions} versions", err=True)
    if report.problems:
        raise ArchiveError(
            f"{len(report.problems)} things were not imported; the rest is there, and the import"
            " can be run again"
        )
