"""How ``cozyfs umount`` and ``cozyfs status`` speak to a running mount: JSON lines on a socket.

One request per connection: the client sends one line, ``{"op": "status"}``; the mount answers
with one line or several and closes. A line with the field ``error`` is the last and says what
went wrong. Which operations there are is not known here: the mount brings the handler.

The socket is a file of mode 0600 in the instance's state directory. Its path may be longer
than the 108 bytes that fit in a unix address, so both sides reach it through an open directory
(``/proc/self/fd/N/control.sock``).

Server: tasks of the mount's loop; whatever a client sends, leaves out or does not read, only
its own connection ends. Client: blocking, with a time-out for each answer.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any

import trio

from cozyfs.errors import CozyError, InvalidRequest

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)

MAX_LINE = 4 << 20
"""Bytes: no request and no answer comes near; a client that sends more is not one of ours."""

_CHUNK = 64 << 10

REQUEST_TIMEOUT_S = 10.0
"""For the request to come, and for one line of the answer to be taken."""

Send = Callable[[dict[str, Any]], Awaitable[None]]
Handler = Callable[[dict[str, Any], Send], Awaitable[None]]


class NoAnswer(CozyError):
    """The mount does not listen, ended while it answered, or took too long."""


# ---- the mount's side


async def serve_control(
    path: Path,
    handler: Handler,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer requests at *path* with *handler* until cancelled; a file left there by a mount
    that was killed is replaced. *handler* sends each answer with the function it is given."""
    listener = _listen(path)

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            await _serve_client(stream, handler)

    try:
        async with listener:
            task_status.started()
            await trio.serve_listeners(serve, [listener])
    finally:
        _remove(path)


async def _serve_client(stream: trio.SocketStream, handler: Handler) -> None:
    async def send(answer: dict[str, Any]) -> None:
        with trio.fail_after(REQUEST_TIMEOUT_S):
            await stream.send_all(json.dumps(answer).encode() + b"\n")

    try:
        request = await _read_request(stream)
        if request is None:
            return
        try:
            await handler(request, send)
        except CozyError as exc:
            await send({"error": str(exc)})
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            raise
        except Exception:
            log.exception("control request %r failed", request.get("op"))
            await send({"error": "internal error, see the log of the mount"})
    except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError) as exc:
        log.debug("control client gone: %r", exc)
    except Exception:
        # Nothing that one client causes may reach the nursery of the mount.
        log.exception("control connection failed")


async def _read_request(stream: trio.SocketStream) -> dict[str, Any] | None:
    """The client's one line, or None when it sent nothing; a line that makes no sense is
    answered here."""
    received = bytearray()
    with trio.fail_after(REQUEST_TIMEOUT_S):
        while b"\n" not in received and len(received) <= MAX_LINE:
            chunk = await stream.receive_some(_CHUNK)
            if not chunk:
                break
            received += chunk
    if not received:
        return None
    try:
        if len(received) > MAX_LINE:
            raise ValueError
        request = json.loads(received)
        if not isinstance(request, dict):
            raise ValueError
    except (ValueError, RecursionError):
        with trio.move_on_after(REQUEST_TIMEOUT_S):
            await stream.send_all(b'{"error": "a request is one line of JSON, an object"}\n')
        return None
    return request


def _listen(path: Path) -> trio.SocketListener:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # The mode of an unbound socket is the mode that its file gets (net/unix/af_unix.c):
        # there is no moment in which others could connect.
        os.fchmod(sock.fileno(), 0o600)
        _remove(path)
        with _short(path) as address:
            sock.bind(address)
        sock.listen(16)
        sock.setblocking(False)
        return trio.SocketListener(trio.socket.from_stdlib_socket(sock))
    except BaseException:
        sock.close()
        raise


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


# ---- the client's side


class ControlClient:
    """Asks the mount whose socket is at *path*; every call is a connection of its own."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def request(self, op: str, timeout_s: float = 5.0, **fields: Any) -> dict[str, Any]:
        """The one answer to *op*, whose request has these *fields*. Raises NoAnswer, or CozyError
        with what the mount says."""
        for answer in self.stream(op, timeout_s, **fields):
            return answer
        raise NoAnswer("the mount ended before it answered")

    def stream(
        self, op: str, timeout_s: float = 5.0, **fields: Any
    ) -> Generator[dict[str, Any], None, None]:
        """Each answer to *op* as it comes, at most *timeout_s* after the one before; closing it
        ends the request. Raises as :meth:`request` does."""
        with self._connect(timeout_s) as sock:
            try:
                sock.sendall(json.dumps({**fields, "op": op}).encode() + b"\n")
                for line in _lines(sock, timeout_s):
                    answer = json.loads(line)
                    if "error" in answer:
                        raise CozyError(str(answer["error"]))
                    yield answer
            except TimeoutError as exc:
                raise NoAnswer(f"the mount does not answer within {timeout_s:g} s") from exc
            except OSError as exc:
                raise NoAnswer("the mount ended before it answered") from exc
            except ValueError as exc:
                raise NoAnswer("the mount's answer makes no sense") from exc

    def _connect(self, timeout_s: float) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(timeout_s)
        try:
            with _short(self._path) as address:
                sock.connect(address)
        except OSError as exc:
            sock.close()
            if isinstance(exc, TimeoutError | BlockingIOError):
                raise NoAnswer(f"the mount does not answer within {timeout_s:g} s") from exc
            raise NoAnswer("nothing answers for the mount") from exc
        except BaseException:
            sock.close()
            raise
        return sock


def _lines(sock: socket.socket, timeout_s: float) -> Iterator[bytes]:
    received = bytearray()
    deadline = time.monotonic() + timeout_s
    while True:
        sock.settimeout(max(0.001, deadline - time.monotonic()))
        chunk = sock.recv(_CHUNK)
        if not chunk:
            return
        received += chunk
        while b"\n" in received:
            line, _, rest = received.partition(b"\n")
            received = rest
            yield bytes(line)
            deadline = time.monotonic() + timeout_s


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """An address of *path* that fits into ``sun_path`` whatever the length of *path*."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def number_in(request: dict[str, Any], field: str) -> int:
    """A number that is not negative. Raises InvalidRequest."""
    value = request.get(field)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise InvalidRequest(f"the request needs a number as {field}")
    return value


def text_in(request: dict[str, Any], field: str) -> str:
    """Raises InvalidRequest."""
    value = request.get(field)
    if not isinstance(value, str):
        raise InvalidRequest(f"the request needs a text as {field}")
    return value
