"""A tiny HTTP server that answers what a test tells it to, once each, in order."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from dataclasses import dataclass, field


@dataclass
class Answer:
    """One answer; *cut* sends only so many bytes of the body, *reset* none of anything."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    reset: bool = False
    silent: bool = False


def error(status: int, code: str, message: str = "bucket secret-bucket key secret-key") -> Answer:
    body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
    return Answer(status, body, {"Content-Type": "application/xml"})


class FailingServer:
    """*requests* holds (method, target, headers, body) of what came."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads: list[threading.Thread] = []
        self._open: list[socket.socket] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection, connection.makefile("rb") as stream:
            while request := self._read(stream):
                self.requests.append(request)
                answer = self.answers.pop(0)
                if answer.reset:
                    linger = struct.pack("ii", 1, 0)  # close() sends RST
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    stream.close()
                    return
                if answer.silent:
                    stream.read(1)  # until the client gives up
                    return
                connection.sendall(self._head(answer, request[0]) + answer.body[: answer.cut])
                if answer.cut is not None:
                    return

    @staticmethod
    def _read(stream):
        if stream.peek(1)[:1] == b"\x16":  # a TLS handshake
            return None
        line = stream.readline().decode("latin-1")
        if not line:
            return None
        method, target, *_ = [*line.split(), "", ""]
        headers = {}
        while line := stream.readline().decode("latin-1").strip():
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        body = stream.read(int(headers.get("content-length", "0")))
        return method, target, headers, body

    @staticmethod
    def _head(answer: Answer, method: str) -> bytes:
        headers = {"Content-Length": str(len(answer.body)), **answer.headers}
        lines = [f"HTTP/1.1 {answer.status} Reason"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._accepting.join(timeout=5)
