"""How numbers, tables and states are shown to people. Data for programs is ``--json``."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from cozyfs.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

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


def write_file(path: Path, data: bytes) -> None:
    """*data* to the file *path*, whole or not at all, or to the standard output for ``-``."""
    # What is there and no file, as /dev/null, must not be replaced by one.
    atomic = path.is_file() or not os.path.lexists(path)
    with click.open_file(os.fspath(path), "wb", atomic=atomic) as file:
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
