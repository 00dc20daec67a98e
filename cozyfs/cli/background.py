"""Going to the background: the parent waits until the child says that the mount works.

The fork comes before anything that does not survive one: threads, trio, connections. So the
child makes every check that needs the store, and reports over a pipe: ready, or the one line
that the parent prints and its exit code.

A service manager that asked to be told (``NOTIFY_SOCKET``, see sd_notify(3)) is told as well.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import NoReturn

from cozyfs.errors import CozyError, UsageError

log = logging.getLogger(__name__)

Work = Callable[[Callable[[], None]], None]
"""Mounts until unmounted; calls what it is given once the mount works."""


def run_in_foreground(work: Work) -> None:
    """Do *work*, which calls the function it is given when it is ready."""
    work(_notify_service_manager)


def run_in_background(work: Work) -> None:
    """Do *work* in a child that outlives this process. Returns once it called the function it
    is given; raises what it raised before that, as a CozyError with the same message."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _child(work, writer)
    os.close(writer)
    try:
        with os.fdopen(reader, "rb") as pipe:
            report = pipe.read()
    except KeyboardInterrupt:
        os.kill(pid, signal.SIGTERM)
        raise
    if not report:
        _, status = os.waitpid(pid, 0)
        raise CozyError(f"the mount process ended before it was ready ({_how(status)})")
    outcome = json.loads(report)
    if outcome.get("usage"):
        raise UsageError(outcome["error"])
    if "error" in outcome:
        raise CozyError(outcome["error"])


def _child(work: Work, writer: int) -> NoReturn:
    """Never returns into the caller's stack, whose cleanup belongs to the parent."""
    code = 1
    reported = False

    def report(**outcome: object) -> None:
        nonlocal reported
        if not reported:
            reported = True
            with contextlib.suppress(BrokenPipeError):  # the parent was interrupted
                os.write(writer, json.dumps(outcome).encode())
            os.close(writer)

    def ready() -> None:
        _leave_terminal()
        _notify_service_manager()
        report(ready=True)

    try:
        os.setsid()
        work(ready)
        code = 0
    except CozyError as exc:
        if reported:
            log.error("the mount ended: %s", exc)
        report(error=str(exc), usage=isinstance(exc, UsageError))
    except BaseException as exc:
        log.critical("the mount ended", exc_info=True)
        report(error=f"internal error: {type(exc).__name__}: {exc}")
    finally:
        logging.shutdown()
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _leave_terminal() -> None:
    """Let go of the folder and the terminal that the command was given in. Until here stderr
    stays, so that what goes wrong before is seen."""
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)


def _notify_service_manager() -> None:
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):  # Linux's abstract namespace
        address = "\0" + address[1:]
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock,
    ):
        sock.sendto(f"READY=1\nMAINPID={os.getpid()}\n".encode(), address)


def _how(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
