"""The command ``cozyfs``: where it starts, which commands there are, how it ends.

One module per command; each is loaded only when it is run or when the list of commands is
shown, and loads what is heavy (trio, the stores, rich) only when it does its work, so that
``cozyfs --help`` and completion are quick.

Exit codes: 0, 2 for bad input, 130 for Ctrl-C, 1 for all else; `cozyfs.cli.fsck` has those of
fsck(8). What goes wrong is one line on stderr.
"""

from __future__ import annotations

import importlib
import logging
import sys
import traceback
from typing import TYPE_CHECKING, NoReturn

import click

import cozyfs
from cozyfs.errors import CozyError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

COMMANDS = (
    *("mount", "umount", "flush", "status", "usage", "cp", "versions", "trash", "log", "fsck"),
    *("thumbnails", "previews", "instances", "avatar", "apps", "konnectors", "assets"),
    "completion",
)


class LazyGroup(click.Group):
    """Finds the command ``name`` as ``cozyfs.cli.name.command``, when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(f"cozyfs.cli.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(cozyfs.__version__, message="cozyfs %(version)s")
def cli() -> None:
    """Mount the storage of a Cozy instance as a local directory.

    \b
    Try it without any server; files are kept in a folder of this machine:
      mkdir ~/alice
      cozyfs mount --create alice.example.com ~/alice
      cozyfs umount ~/alice

    \b
    On an S3 server:
      export COZYFS_FS_URL='s3://s3.example.com?access_key=...&secret_key=...'
      cozyfs instances ls
      cozyfs mount alice.example.com ~/alice

    See cozyfs(1), cozyfs-semantics(7) and cozyfs-storage(5).
    """


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command line *args* (of this process) and exit."""
    sys.exit(run(args))


def run(args: Sequence[str] | None = None) -> int:
    """Run the command line *args* and return its exit code; what went wrong is on stderr."""
    try:
        result = cli.main(args=args, prog_name="cozyfs", standalone_mode=False)
    except click.UsageError as exc:
        return _fail(_usage_message(exc), exc.exit_code)
    except click.ClickException as exc:
        return _fail(exc.format_message(), EXIT_FAILED)
    except click.Abort as exc:
        if isinstance(exc.__cause__ or exc.__context__, EOFError):
            return _fail("a question was not answered", EXIT_FAILED)
        return EXIT_INTERRUPTED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except CozyError as exc:
        return _fail(str(exc), EXIT_USAGE if isinstance(exc, UsageError) else EXIT_FAILED)
    except OSError as exc:
        where = f"{exc.filename}: " if exc.filename else ""
        return _fail(f"{where}{exc.strerror or exc}", EXIT_FAILED)
    except Exception as exc:
        return _fail(f"internal error: {type(exc).__name__}: {exc}", EXIT_FAILED)
    return result if isinstance(result, int) else 0


def _fail(message: str, code: int) -> int:
    """Report the exception at hand in one line; its traceback only to those who debug."""
    from cozyfs.logs import redact

    if logging.getLogger().isEnabledFor(logging.DEBUG):
        click.echo(redact(traceback.format_exc()), err=True, nl=False)
    click.echo(redact("cozyfs: " + " ".join(message.split())), err=True)
    return code


def _usage_message(exc: click.UsageError) -> str:
    message = exc.format_message().rstrip(".")
    if exc.ctx is None:
        return message
    return f"{message} (see '{exc.ctx.command_path} --help')"
