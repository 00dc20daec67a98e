"""Options that several commands share, and the types of their values.

Every common option has an environment variable; a value on the command line wins over it.
"""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

from cozyfs import moments
from cozyfs.durations import parse_duration
from cozyfs.errors import UsageError
from cozyfs.logs import LEVELS

if TYPE_CHECKING:
    from collections.abc import Callable

    SizeParam = click.ParamType[int]
    DurationParam = click.ParamType[float]
    MomentParam = click.ParamType[int]
    PathParam = click.ParamType[Path]
else:  # not subscriptable in older releases of click
    SizeParam = DurationParam = MomentParam = PathParam = click.ParamType

Command = TypeVar("Command", bound="Callable[..., Any]")

_DECIMAL = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "PB": 10**15}
_BINARY = {letter: 1 << 10 * (power + 1) for power, letter in enumerate("KMGTP")}
_UNITS = {"": 1, "B": 1} | _DECIMAL | _BINARY | {letter + "IB": n for letter, n in _BINARY.items()}


class SizeType(SizeParam):
    """Bytes: ``3GB`` is decimal, as on a disk's label; ``64M`` and ``64MiB`` are binary, as
    everywhere in memory."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", str(value).strip(), re.ASCII)
        unit = match and _UNITS.get(match[2].upper())
        if not match or not unit:
            self.fail(f"{value!r} is not a size such as 64M, 3GB or 100MiB", param, ctx)
        return int(float(match[1]) * unit) if "." in match[1] else int(match[1]) * unit


class DurationType(DurationParam):
    """Seconds: ``90``, ``90s``, ``15m``, ``1h30m``, ``1d``, ``2w``, ``30D``, ``3M``."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if isinstance(value, int | float):
            return float(value)
        seconds = parse_duration(str(value).strip())
        if seconds is None:
            self.fail(f"{value!r} is not a duration such as 90s, 15m, 12h or 1d", param, ctx)
        return seconds


class MomentType(MomentParam):
    """Nanoseconds since 1970: a local time or one of ISO 8601, or a duration before now."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        text = str(value).strip()
        ago = text.removesuffix("ago").rstrip()
        if ago != text or re.fullmatch(r"[0-9.]+[a-z][0-9.a-z]*", text, re.ASCII):
            return time.time_ns() - int(DURATION.convert(ago, param, ctx) * 1e9)
        try:
            return moments.parse(text)
        except UsageError as exc:
            self.fail(str(exc), param, ctx)


class MountpointType(PathParam):
    """A folder that nobody looks at: ``click.Path`` asks stat(2), which never returns for a
    mount that hangs."""

    name = "mountpoint"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Path:
        if not str(value):
            self.fail("the mount point is empty", param, ctx)
        return Path(value)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return [CompletionItem(incomplete, type="dir")]


SIZE = SizeType()
DURATION = DurationType()
MOMENT = MomentType()
MOUNTPOINT = MountpointType()
FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)
SOURCE = click.Path(path_type=Path, dir_okay=False, allow_dash=True)
"""A file, or ``-`` for the standard input or output."""


def state_option(command: Command) -> Command:
    """``--state-dir``."""
    return click.option(
        "--state-dir",
        envvar="COZYFS_STATE_DIR",
        show_envvar=True,
        type=FOLDER,
        help="Where this machine keeps trees and unsent content. "
        "[default: /var/lib/cozyfs for root, else ~/.local/state/cozyfs]",
    )(command)


def store_options(command: Command) -> Command:
    """``--fs-url`` and ``--config``: which store."""
    command = click.option(
        "--config",
        envvar="COZYFS_CONFIG",
        show_envvar=True,
        type=FILE,
        help="YAML file with the key fs.url; a Cozy server's own cozy.yaml works. "
        "[default: ~/.config/cozyfs/cozyfs.yaml]",
    )(command)
    return click.option(
        "--fs-url",
        envvar="COZYFS_FS_URL",
        show_envvar=True,
        metavar="URL",
        help="The store: an S3 server, s3://HOST?access_key=..., or a folder, file:///DIR. "
        "[default: a folder of this machine]",
    )(command)


def _not_empty(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """An empty prefix, of a variable that was not set, must not come to mean the default."""
    if value == "":
        raise click.BadParameter("it is empty", ctx, param)
    return value


def instance_options(command: Command) -> Command:
    """``--org`` and ``--db-prefix``: where in the store."""
    command = click.option(
        "--db-prefix",
        metavar="PREFIX",
        callback=_not_empty,
        help="First part of the instance's object keys. [default: derived from the domain]",
    )(command)
    return click.option(
        "--org", metavar="ORG", help="Organisation, which chooses the bucket. [default: none]"
    )(command)


def version_options(command: Command) -> Command:
    """``--max-versions`` and ``--version-delay``: which former contents of files stay."""
    command = click.option(
        "--version-delay",
        type=DURATION,
        metavar="DURATION",
        help="Least time between two versions of a file. [default: 15m]",
    )(command)
    return click.option(
        "--max-versions",
        type=click.IntRange(0),
        metavar="N",
        help="Contents of a file that are kept, the current one counts. [default: 20]",
    )(command)


def json_option(command: Command) -> Command:
    """``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def force_lease_option(command: Command) -> Command:
    """``--force-lease``."""
    return click.option("--force-lease", is_flag=True, help="Take the lease from whoever has it.")(
        command
    )


def output_option(command: Command) -> Command:
    """``--output``."""
    return _output("The file to write; - is the standard output.", required=True)(command)


def picture_option(command: Command) -> Command:
    """``--output``, for what may go on to another program."""
    return _output("The file to write. [default: the standard output]", default="-")(command)


def _output(text: str, **attributes: Any) -> Callable[[Command], Command]:
    return click.option(
        "--output", "-o", "target", type=SOURCE, metavar="FILE", help=text, **attributes
    )


def log_level_option(default: str) -> Callable[[Command], Command]:
    """``--log-level``; *default* differs between a mount and commands that end."""
    return click.option(
        "--log-level",
        type=click.Choice(LEVELS, case_sensitive=False),
        default=default,
        show_default=True,
        help="What is logged; credentials are at no level.",
    )
