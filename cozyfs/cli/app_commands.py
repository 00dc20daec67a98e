"""The commands about apps, which ``cozyfs apps`` and ``cozyfs konnectors`` both have.

A group is built for each; the helps differ in the word for what is installed.
"""

from __future__ import annotations

import contextlib
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, TypeVar

import click

from cozyfs.cli import output, stores
from cozyfs.cli.parameters import (
    instance_options,
    json_option,
    log_level_option,
    store_options,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from cozyfs.side.apps import AppDocument, Documents, Kind
    from cozyfs.store import Store
    from cozyfs.threads import Caller
    from cozyfs.values import Instance

P = ParamSpec("P")
T = TypeVar("T")


class _Place(NamedTuple):
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


def group(name: str, noun: str) -> click.Group:
    """The group *name*, about what is called *noun*."""
    text = f"""The {noun}s of instances: what is installed, and its files in the store.

    \b
      cozyfs {name} install alice.example.com drive ./drive.tar.gz
      cozyfs {name} ls alice.example.com
      cozyfs {name} uninstall alice.example.com drive
    """
    built = click.Group(name, help=text, short_help=f"Install, list and remove {noun}s.")
    for make in (_install, _ls, _show, _uninstall, _cat):
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

    @_command("install", help_text, f"Install or upgrade {_a(noun)}.")
    @click.argument("slug")
    @click.argument("source")
    @json_option
    def install(place: _Place, slug: str, source: str, as_json: bool) -> None:
        from cozyfs.side.apps import install

        done = _run(
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
    @_command("ls", f"List the {noun}s of an instance, by slug.", f"List {noun}s.")
    @json_option
    def ls(place: _Place, as_json: bool) -> None:
        found = _run(place.documents.list)
        if as_json:
            output.print_json([_record(document) for document in found])
        elif found:
            header = ("SLUG", "VERSION", "STATE", "UPDATED")
            output.print_table(header, (_row(document) for document in found))
        else:
            click.echo(f"{place.instance.domain} has no {noun}s", err=True)

    return ls


def _show(name: str, noun: str) -> click.Command:
    @_command(
        "show", f"Show what is known of the {noun} SLUG on an instance.", f"Show {_a(noun)}."
    )
    @click.argument("slug")
    @json_option
    def show(place: _Place, slug: str, as_json: bool) -> None:
        document = _run(place.documents.get, slug)
        if as_json:
            output.print_json(_record(document))
        else:
            output.print_fields(_record(document))

    return show


def _uninstall(name: str, noun: str) -> click.Command:
    help_text = f"""Remove the {noun} SLUG from an instance. Its files stay in the store, where
    other instances may use them."""

    @_command("uninstall", help_text, f"Remove {_a(noun)} from an instance.")
    @click.argument("slug")
    def uninstall(place: _Place, slug: str) -> None:
        document = _run(place.documents.remove, slug)
        click.echo(f"uninstalled {slug} {document.version}")

    return uninstall


def _cat(name: str, noun: str) -> click.Command:
    help_text = f"""Print the file PATH of a version of the {noun} SLUG, which must be installed on
    the instance. VERSION is any that is in the store; with its checksum, VERSION-CHECKSUM, where
    it has one.

    \b
      cozyfs {name} cat alice.example.com drive 1.2.3 index.html
    """

    @_command("cat", help_text, f"Print a file of {_a(noun)}.")
    @click.argument("slug")
    @click.argument("version")
    @click.argument("path")
    def cat(place: _Place, slug: str, version: str, path: str) -> None:
        _run(_print_file, place, slug, version, path)

    return cat


async def _print_file(place: _Place, slug: str, version: str, path: str) -> None:
    from cozyfs.side.apps import AppFiles

    await place.documents.get(slug)
    files = AppFiles(place.store, place.caller, place.bucket_prefix, place.kind)
    file = await files.open(slug, version, path)
    out = sys.stdout.buffer
    async with contextlib.aclosing(file.chunks()) as chunks:
        async for chunk in chunks:
            await place.caller.disk(out.write, chunk)
    await place.caller.disk(out.flush)


# ---- what they share


def _command(
    name: str, help_text: str, short_help: str
) -> Callable[[Callable[..., None]], click.Command]:
    """A command whose first argument is INSTANCE, and whose function gets a :class:`_Place`."""

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


def _place(store: Store, bucket_prefix: str, instance: Instance, name: str) -> _Place:
    from cozyfs.side.apps import KINDS
    from cozyfs.threads import Caller

    (kind,) = (kind for kind in KINDS if kind.name == name)
    return _Place(store, Caller(parallel=stores.PARALLEL), bucket_prefix, instance, kind)


def _run(function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
    import trio

    async def main() -> T:
        return await function(*args, **kwargs)

    return trio.run(main)


def _record(document: AppDocument) -> dict[str, Any]:
    return {name: value for name, value in asdict(document).items() if value}


def _row(document: AppDocument) -> tuple[str, ...]:
    return (document.slug, document.version, document.state, document.updated_at)


def _a(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"
