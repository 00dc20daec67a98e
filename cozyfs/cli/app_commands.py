"""The commands about apps, which ``cozyfs apps`` and ``cozyfs konnectors`` both have.

A group is built for each; the helps differ in the word for what is installed.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from cozyfs.cli import app_files, output
from cozyfs.cli.app_place import command, run
from cozyfs.cli.parameters import json_option

if TYPE_CHECKING:
    from cozyfs.cli.app_place import Place
    from cozyfs.side.apps import AppDocument


def group(name: str, noun: str) -> click.Group:
    """The group *name*, about what is called *noun*."""
    text = f"""The {noun}s of instances: what is installed, and its files in the store.

    \b
      cozyfs {name} install alice.example.com drive ./drive.tar.gz
      cozyfs {name} ls alice.example.com
      cozyfs {name} uninstall alice.example.com drive
    """
    built = click.Group(name, help=text, short_help=f"Install, list and remove {noun}s.")
    for make in (_install, _ls, _show, _uninstall, *app_files.COMMANDS):
        built.add_command(make(name, noun))
    return built


def _install(name: str, noun: str) -> click.Command:
    help_text = f"""Install the {noun} SLUG on an instance, or put another version in its place.

    SOURCE is a tar file (plain or gzipped), a folder, or an http or https URL of a tar file; a
    URL may end in # and the SHA-256 that the file must have. The version is that of the
    manifest; its files are stored once for all instances.

    \b
      cozyfs {name} install alice.example.com drive ./drive-1.2.3.tar.gz
      cozyfs {name} install alice.example.com drive https://example.com/drive.tar.gz#9f86d0...
    """

    @command("install", help_text, f"Install or upgrade {_a(noun)}.")
    @click.argument("slug")
    @click.argument("source")
    @json_option
    def install(place: Place, slug: str, source: str, as_json: bool) -> None:
        from cozyfs.side.apps import install

        done = run(
            install,
            place.store,
            place.caller,
            place.bucket_prefix,
            place.instance,
            place.kind,
            slug,
            source,
        )
        if as_json:
            output.print_json({**_record(done.document), "copied": done.copied})
            return
        what = f"installed {slug} {done.document.version}"
        if done.copied:
            click.echo(f"{what}: {done.files} files, {output.size(done.size)}")
        else:
            click.echo(f"{what}, whose files are in the store already")

    return install


def _ls(name: str, noun: str) -> click.Command:
    @command("ls", f"List the {noun}s of an instance, by slug.", f"List {noun}s.")
    @json_option
    def ls(place: Place, as_json: bool) -> None:
        found = run(place.documents.list)
        if as_json:
            output.print_json([_record(document) for document in found])
        elif found:
            header = ("SLUG", "VERSION", "STATE", "UPDATED")
            output.print_table(header, (_row(document) for document in found))
        else:
            click.echo(f"{place.instance.domain} has no {noun}s", err=True)

    return ls


def _show(name: str, noun: str) -> click.Command:
    @command("show", f"Show what is known of the {noun} SLUG on an instance.", f"Show {_a(noun)}.")
    @click.argument("slug")
    @json_option
    def show(place: Place, slug: str, as_json: bool) -> None:
        document = run(place.documents.get, slug)
        if as_json:
            output.print_json(_record(document))
        else:
            output.print_fields(_record(document))

    return show


def _uninstall(name: str, noun: str) -> click.Command:
    help_text = f"""Remove the {noun} SLUG from an instance. Its files stay in the store, where
    other instances may use them."""

    @command("uninstall", help_text, f"Remove {_a(noun)} from an instance.")
    @click.argument("slug")
    def uninstall(place: Place, slug: str) -> None:
        document = run(place.documents.remove, slug)
        click.echo(f"uninstalled {slug} {document.version}")

    return uninstall


def _record(document: AppDocument) -> dict[str, Any]:
    return {name: value for name, value in asdict(document).items() if value}


def _row(document: AppDocument) -> tuple[str, ...]:
    return (document.slug, document.version, document.state, document.updated_at)


def _a(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"
