"""How numbers, tables and states are shown to people. Data for programs is ``--json``."""

from __future__ import annotations

import json
import os
import secrets
import stat
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from cozyfs.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

_INDENT = 20

# Fields in bytes whose names do not say so: those of a pool of memory.
_BYTES = frozenset({"used", "limit"})


def size(count: int) -> str:
    """Bytes in binary units: ``0 B``, ``1.5 MiB``."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(amount) < 1024:
            return f"{count} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} PiB"


def duration(seconds: float) -> str:
    """``12 s``, ``3 min``, ``2 h 05 min``, ``4 d 3 h``."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def refuse_terminal(path: Path) -> None:
    """Raises UsageError where a picture for the file *path* would go to a terminal."""
    if os.fspath(path) == "-" and sys.stdout.isatty():
        raise UsageError("a picture is nothing for a terminal; give --output")


@contextmanager
def written(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which is at *path* once it is whole, and synced; else what was there
    stays. ``-`` is the standard output. Raises OSError, which names *path*."""
    if os.fspath(path) == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    target = Path(os.path.realpath(path))
    if os.path.lexists(target) and not target.is_file():
        # What is no file, as /dev/null, must not be replaced by one.
        with target.open("wb") as file:
            yield file
        return
    scratch = target.with_name(f".cozyfs-{secrets.token_hex(8)}")
    try:
        try:
            file = scratch.open("xb")
        except OSError as exc:
            raise type(exc)(exc.errno, exc.strerror, os.fspath(path)) from exc
        with file:
            yield file
            file.flush()
            if target.exists():
                os.fchmod(file.fileno(), stat.S_IMODE(target.stat().st_mode))
            os.fsync(file.fileno())
        scratch.replace(target)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def write_file(path: Path, data: bytes) -> None:
    """*data* to the file *path*, as :func:`written` does."""
    with written(path) as file:
        file.write(data)


def print_json(value: object) -> None:
    """Indented, keys in their order."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_fields(fields: Mapping[str, Any]) -> None:
    """One ``label: value`` a line; the unit is taken from the end of a field's name."""
    for name, value in fields.items():
        label = _label(name) + ":"
        click.echo(f"{label:<{_INDENT}}{_text(name, value)}".rstrip())


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Columns as wide as they need to be; plain text, so that ``cut`` and ``awk`` work."""
    lines = [list(header), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


def _label(name: str) -> str:
    for unit in ("_bytes", "_s"):
        name = name.removesuffix(unit)
    return name.replace("_", " ")


def _text(name: str, value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{_label(key)} {_text(key, item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(_text(name, item) for item in value) or "none"
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name.endswith("_bytes") or name in _BYTES:
        return size(value)
    if name.endswith("_s") and isinstance(value, int | float):
        return duration(value)
    return str(value)
