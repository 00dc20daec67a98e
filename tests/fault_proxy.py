"""A TCP proxy before an S3 server that fails as it is told to.

It understands just enough HTTP/1.1 to tell requests apart. Threads: one accepts, one serves each
client's connection; the methods are for the test's thread, any time. :meth:`FaultProxy.close`
ends them all.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from servers import free_port

if TYPE_CHECKING:
    from collections.abc import Iterable

BLOCK = 64 << 10
IDLE_S = 120.0
"""For a socket that neither sends nor takes anything: no thread stays for ever."""


@dataclass(frozen=True)
class Fault:
    """What happens to one request, in this order; nothing set is no fault."""

    delay_s: float = 0.0
    reset_upload_after: int | None = None
    """Of the request's body so many bytes are taken, then the connection is reset."""
    status: int | None = None
    """The whole request is taken and answered with this; the server never sees it."""
    lose_answer: bool = False
    """The server does what it was asked; its answer is never sent."""
    cut_answer_after: int | None = None
    """Of the answer's body so many bytes are sent, then the connection is reset."""


FINE = Fault()


@dataclass
class _Head:
    """The first line and the headers of a request or an answer, as they came."""

    raw: bytes
    first: str
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def length(self) -> int:
        return int(self.headers.get("content-length", "0"))

    @property
    def chunked(self) -> bool:
        return "chunked" in self.headers.get("transfer-encoding", "").lower()


class _Reset(Exception):
    """End both connections at once."""


class FaultProxy:
    """Listens at ``host``; requests go to *target* ("127.0.0.1:9000") unless told otherwise.

    *requests* has the methods of the requests that came, *faults* how many of them failed.
    """

    def __init__(self, target: str) -> None:
        name, _, port = target.rpartition(":")
        self._target = (name, int(port))
        self._lock = threading.Lock()
        self._script: Iterable[Fault] = iter(())
        self._methods: frozenset[str] | None = None
        self._listener: socket.socket | None = None
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self.requests: list[str] = []
        self.faults = 0
        self._awake = threading.Event()
        self._port = free_port()
        self.restore()
        self.host = f"127.0.0.1:{self._port}"

    # ---- what tests say

    def refuse(self) -> None:
        """The server is stopped: connections are refused, those that exist are reset."""
        with self._lock:
            listener, self._listener = self._listener, None
            sockets = list(self._sockets)
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
            listener.close()
        for sock in sockets:
            _end(sock)

    def restore(self) -> None:
        """The server is back, at the same port."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self._port))
        listener.listen(128)
        with self._lock:
            self._listener = listener
        self._start(self._accept, listener)

    def play(self, faults: Iterable[Fault], *, methods: Iterable[str] | None = None) -> None:
        """One of *faults* for each request to come (of *methods*, e.g. ``PUT``), in order; all
        is fine after the last."""
        with self._lock:
            self._script = iter(faults)
            self._methods = frozenset(methods) if methods is not None else None

    def close(self) -> None:
        self._awake.set()
        self.refuse()
        for thread in self._threads:
            thread.join(10)
        assert not any(thread.is_alive() for thread in self._threads)

    # ---- threads

    def _start(self, work, *args) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)
        with self._lock:
            self._threads = [known for known in self._threads if known.is_alive()] + [thread]
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with self._lock:
                wanted = self._listener is listener
                if wanted:
                    self._sockets.add(client)
            if wanted:
                self._start(self._serve, client)
            else:
                _reset_on_close(client)
                client.close()

    def _serve(self, client: socket.socket) -> None:
        client.settimeout(IDLE_S)
        try:
            with client, socket.create_connection(self._target, timeout=IDLE_S) as server:
                with self._lock:
                    self._sockets.add(server)
                try:
                    with client.makefile("rb") as incoming, server.makefile("rb") as answers:
                        while (request := _read_head(incoming)) is not None:
                            if not self._one(request, client, incoming, server, answers):
                                return
                except _Reset:
                    _reset_on_close(client)
                finally:
                    with self._lock:
                        self._sockets.discard(server)
        except OSError:
            pass
        finally:
            with self._lock:
                self._sockets.discard(client)

    def _one(self, request: _Head, client, from_client, server, from_server) -> bool:
        """One request and its answer; returns whether another may follow."""
        method = request.first.split(" ", 1)[0]
        fault = self._next(method)
        if fault != FINE:
            self.faults += 1
        if fault.delay_s:
            self._awake.wait(fault.delay_s)
        if request.headers.get("expect"):
            client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        if fault.status is not None:
            _pass_on(request, from_client, None)
            client.sendall(_answer(fault.status))
            return True
        server.sendall(request.raw)
        _pass_on(request, from_client, server, fault.reset_upload_after)
        answer = _read_head(from_server)
        while answer is not None and answer.first.split(" ")[1] == "100":
            answer = _read_head(from_server)
        if answer is None or fault.lose_answer:
            raise _Reset
        client.sendall(answer.raw)
        status = answer.first.split(" ")[1]
        if method != "HEAD" and status not in ("204", "304"):
            _pass_on(answer, from_server, client, fault.cut_answer_after)
        return answer.headers.get("connection", "").lower() != "close"

    def _next(self, method: str) -> Fault:
        with self._lock:
            self.requests.append(method)
            if self._methods is not None and method not in self._methods:
                return FINE
            return next(iter(self._script), FINE)


def _read_head(stream) -> _Head | None:
    lines = [stream.readline()]
    if not lines[0]:
        return None
    head = _Head(b"", lines[0].decode("latin-1").strip())
    while (line := stream.readline()).strip():
        lines.append(line)
        name, _, value = line.decode("latin-1").partition(":")
        head.headers[name.strip().lower()] = value.strip()
    head.raw = b"".join([*lines, b"\r\n"])
    return head


def _pass_on(head: _Head, source, sink: socket.socket | None, most: int | None = None) -> None:
    """The body that belongs to *head*; to nobody where *sink* is None. With *most* only so many
    bytes, then a reset."""
    if head.chunked:
        while True:
            line = source.readline()
            size = int(line.split(b";")[0] or b"0", 16)
            data = source.read(size + 2)
            if sink is not None:
                sink.sendall(line + data)
            if size == 0:
                return
    left = head.length if most is None else min(most, head.length)
    while left:
        data = source.read1(min(left, BLOCK))
        if not data:
            raise _Reset
        left -= len(data)
        if sink is not None:
            sink.sendall(data)
    if most is not None and head.length:
        raise _Reset


def _answer(status: int) -> bytes:
    body = b"<Error><Code>SlowDown</Code><Message>Reduce your request rate</Message></Error>"
    head = f"HTTP/1.1 {status} Told\r\nContent-Type: application/xml\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def _reset_on_close(sock: socket.socket) -> None:
    """So that the other side gets ECONNRESET rather than an end of file."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _end(sock: socket.socket) -> None:
    """From another thread than the one that serves it, which wakes up and closes it."""
    _reset_on_close(sock)
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
