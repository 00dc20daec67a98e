"""The control socket: what a client gets, and that no client hurts the mount."""

import json
import socket
import stat
import threading
import time

import pytest
import trio

from cozyfs.control import ControlClient, NoAnswer, serve_control
from cozyfs.errors import CozyError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "control.sock"


async def handler(request, send):
    match request.get("op"):
        case "status":
            await send({"open_files": 3})
        case "flush":
            for pending in (2, 1, 0):
                await send({"pending": pending, "dirty_bytes": pending * 100})
            await send({"done": True})
        case "refuse":
            raise CozyError("not now")
        case "break":
            raise KeyError("bug")
        case "silent":
            await trio.sleep_forever()
        case "endless":
            while True:
                await send({"text": "x" * 1000})


@pytest.fixture
async def server(path, nursery):
    await nursery.start(serve_control, path, handler)
    return path


async def ask(path, op, timeout_s=5.0):
    return await trio.to_thread.run_sync(ControlClient(path).request, op, timeout_s)


async def stream(path, op, timeout_s=5.0):
    return await trio.to_thread.run_sync(lambda: list(ControlClient(path).stream(op, timeout_s)))


async def talk(path, sent):
    """The answer to raw bytes; None reads nothing."""
    client = await trio.open_unix_socket(str(path))
    async with client:
        await client.send_all(sent)
        await client.send_eof()
        with trio.fail_after(5):
            return b"".join([chunk async for chunk in client])


async def test_a_request_gets_its_answer(server):
    assert await ask(server, "status") == {"open_files": 3}


async def test_a_stream_ends_when_the_mount_is_done(server):
    answers = await stream(server, "flush")
    assert [answer.get("pending") for answer in answers] == [2, 1, 0, None]
    assert answers[-1] == {"done": True}


async def test_an_error_of_the_mount_is_raised_at_the_client(server):
    with pytest.raises(CozyError, match=r"^not now$"):
        await ask(server, "refuse")


async def test_a_bug_in_a_handler_is_logged_and_told_and_the_next_request_works(server, caplog):
    with pytest.raises(CozyError, match="internal error"):
        await ask(server, "break")
    assert "KeyError" in caplog.text
    assert await ask(server, "status") == {"open_files": 3}


async def test_an_operation_without_answer_is_no_answer(server):
    with pytest.raises(NoAnswer, match="ended before it answered"):
        await ask(server, "nonsense")


async def test_a_mount_that_hangs_is_given_up_in_time(server):
    began = time.monotonic()
    with pytest.raises(NoAnswer, match=r"does not answer within 0\.2 s"):
        await ask(server, "silent", 0.2)
    assert time.monotonic() - began < 5


async def test_no_socket_is_no_answer(path):
    with pytest.raises(NoAnswer, match="nothing answers"):
        await ask(path, "status")


async def test_a_socket_nobody_listens_at_is_no_answer(path):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
    with pytest.raises(NoAnswer, match="nothing answers"):
        await ask(path, "status")


@pytest.mark.parametrize(
    "sent",
    [b"\n", b"status\n", b"[1]\n", b"\xff\xfe\n", b'{"op":', b"[" * 60_000 + b"\n"],
    ids=["empty", "word", "list", "bytes", "cut", "deep"],
)
async def test_nonsense_is_answered_and_the_mount_goes_on(server, sent):
    assert "error" in json.loads(await talk(server, sent))
    assert await ask(server, "status") == {"open_files": 3}


async def test_a_request_without_end_is_cut(server):
    client = await trio.open_unix_socket(str(server))
    async with client:
        with trio.fail_after(5), pytest.raises(trio.BrokenResourceError):
            await client.send_all(b"x" * (64 << 20))
    assert await ask(server, "status") == {"open_files": 3}


async def test_a_client_that_goes_away_hurts_nobody(server):
    client = await trio.open_unix_socket(str(server))
    await client.send_all(b'{"op": "endless"}\n')
    await client.receive_some(10)
    await client.aclose()
    assert await talk(server, b"") == b""
    assert await ask(server, "status") == {"open_files": 3}


async def test_a_client_that_does_not_read_holds_up_nobody(server):
    client = await trio.open_unix_socket(str(server))
    async with client:
        await client.send_all(b'{"op": "endless"}\n')
        assert await ask(server, "status") == {"open_files": 3}


async def test_the_socket_is_the_users_alone(server):
    assert stat.S_IMODE(server.stat().st_mode) == 0o600


async def test_a_path_longer_than_a_unix_address_works(tmp_path, nursery):
    folder = tmp_path / ("d" * 120) / ("e" * 120)
    folder.mkdir(parents=True)
    await nursery.start(serve_control, folder / "control.sock", handler)
    assert await ask(folder / "control.sock", "status") == {"open_files": 3}


async def test_the_socket_of_a_killed_mount_is_replaced(path, nursery):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
    await nursery.start(serve_control, path, handler)
    assert await ask(path, "status") == {"open_files": 3}


async def test_the_socket_goes_with_the_server(path):
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_control, path, handler)
        nursery.cancel_scope.cancel()
    assert not path.exists()


def test_an_answer_that_is_not_json_is_no_answer(path):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(1)

    def answer():
        connection, _ = listener.accept()
        with connection:
            connection.recv(100)
            connection.sendall(b"hello\n")

    server = threading.Thread(target=answer)
    server.start()
    with listener, pytest.raises(NoAnswer, match="makes no sense"):
        ControlClient(path).request("status")
    server.join(5)
