"""The commands about the files of apps: list them, print one, take them all as an archive.

Those of ``cozyfs apps`` and ``cozyfs konnectors`` (`cozyfs.cli.app_commands`). VERSION is any that
is in the store, for whichever instance; the app itself must be installed on the one that is named.
"""

from __future__ import annotations

import sys
from contextlib import aclosing
from typing import TYPE_CHECKING, BinaryIO

import click

from cozyfs.cli import output
from cozyfs.cli.app_place import command, run
from cozyfs.cli.parameters import json_option, output_option

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from pathlib import Path

    from cozyfs.cli.app_place import Place
    from cozyfs.side.apps import StoredFile


def _cat(name: str, noun: str) -> click.Command:
    help_text = f"""Print the file PATH of a version of the {noun} SLUG, which must be installed on
    the instance. VERSION is any that is in the store; with its checksum, VERSION-CHECKSUM, where
    it has one.

    \b
      cozyfs {name} cat alice.example.com drive 1.2.3 index.html
    """

    @command("cat", help_text, f"Print a file of the {noun}s.")
    @click.argument("slug")
    @click.argument("version")
    @click.argument("path")
    def cat(place: Place, slug: str, version: str, path: str) -> None:
        run(_print_file, place, slug, version, path)

    return cat


def _files(name: str, noun: str) -> click.Command:
    help_text = f"""List the files of a version of the {noun} SLUG, with the bytes that each takes
    in the store, compressed. SLUG and VERSION are as for cat.

    \b
      cozyfs {name} files alice.example.com drive 1.2.3
    """

    @command("files", help_text, "List the files of a version.")
    @click.argument("slug")
    @click.argument("version")
    @json_option
    def files(place: Place, slug: str, version: str, as_json: bool) -> None:
        found = run(_listed, place, slug, version)
        if as_json:
            output.print_json([{"name": file.name, "stored": file.stored} for file in found])
        else:
            rows = ((output.size(file.stored), file.name) for file in found)
            output.print_table(("STORED", "NAME"), rows)

    return files


def _tarball(name: str, noun: str) -> click.Command:
    help_text = f"""Write all files of a version of the {noun} SLUG to a file, as a tar.gz. It is
    made once, and kept in the store. SLUG and VERSION are as for cat.

    \b
      cozyfs {name} tarball alice.example.com drive 1.2.3 -o drive.tgz
    """

    @command("tarball", help_text, "Write a version as a tar.gz.")
    @click.argument("slug")
    @click.argument("version")
    @output_option
    def tarball(place: Place, slug: str, version: str, target: Path) -> None:
        run(_write_tarball, place, slug, version, target)

    return tarball


COMMANDS: tuple[Callable[[str, str], click.Command], ...] = (_cat, _files, _tarball)
"""Each makes a command for the group with this name, about what is called so."""


async def _print_file(place: Place, slug: str, version: str, path: str) -> None:
    await place.documents.get(slug)
    file = await place.files.open(slug, version, path)
    await _copy(place, file.chunks(), sys.stdout.buffer)
    await place.caller.disk(sys.stdout.buffer.flush)


async def _listed(place: Place, slug: str, version: str) -> list[StoredFile]:
    await place.documents.get(slug)
    return await place.files.list(slug, version)


async def _write_tarball(place: Place, slug: str, version: str, target: Path) -> None:
    from cozyfs.side.apps import Request, code_tarball

    await place.documents.get(slug)
    async with code_tarball(place.files, slug, version, Request()) as answer:
        assert answer.body is not None  # it was no HEAD
        with output.written(target) as file:
            await _copy(place, answer.body, file)


async def _copy(place: Place, body: AsyncGenerator[bytes, None], file: BinaryIO) -> None:
    async with aclosing(body) as pieces:
        async for piece in pieces:
            await place.caller.disk(file.write, piece)
