"""MinIO in a container: started, used and removed; and how it is found out that none can run.

What needs a Docker engine is skipped where none answers; every other test of a store has
another server then (tests/servers.py).
"""

from __future__ import annotations

import os
import secrets
import socket
import time

import pytest
import servers

from cozyfs.config import parse_fs_url
from cozyfs.store import open_store


@pytest.fixture
def engine():
    """A Docker engine with the image at hand."""
    if not servers.docker_answers():
        pytest.skip("no Docker engine answers (DOCKER_HOST, or the current context, names it)")
    if (obstacle := servers.image_obstacle()) and servers.IMAGE_VARIABLE not in os.environ:
        pytest.skip(f"a Docker engine answers, but {obstacle}")
    assert obstacle is None

    import docker

    client = docker.from_env()
    yield client
    client.close()


def containers(engine):
    """Of the whole machine: other tests may start and end some at any time."""
    return engine.containers.list(all=True, ignore_removed=True)


def published(container):
    """Its ports on this machine."""
    bindings = [each for of_port in container.ports.values() for each in of_port or ()]
    return {int(binding["HostPort"]) for binding in bindings}


def test_a_container_serves_s3_and_is_gone_afterwards(engine):
    with servers.minio() as server:
        port = int(server.base.host.rpartition(":")[2])
        [started] = [c.id for c in containers(engine) if port in published(c)]
        store = open_store(parse_fs_url(server.url()))
        store.ensure_bucket("a-bucket")
        store.put("a-bucket", "key", b"content")
        content = store.get("a-bucket", "key")
        store.close()

    assert content == b"content"
    assert started not in [container.id for container in containers(engine)]


def test_a_container_that_ends_at_once_is_told_with_its_log_and_removed(engine, monkeypatch):
    command = f"no-such-command-{secrets.token_hex(4)}"
    monkeypatch.setenv(servers.COMMAND_VARIABLE, command)

    with pytest.raises(Exception, match=command), servers.minio():
        pass

    assert command not in str([container.attrs for container in containers(engine)])


@pytest.fixture
def no_engine(tmp_path, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    monkeypatch.delenv(servers.URL_VARIABLE, raising=False)


def test_without_an_engine_the_server_is_motos(no_engine, tmp_path, recwarn):
    with servers.main_server(tmp_path / "server") as server:
        pass

    assert server.name == "moto"
    assert [w for w in recwarn if w.category is UserWarning] == []


def test_that_no_engine_is_there_is_found_out_in_silence(no_engine, capfd, caplog):
    assert not servers.docker_answers()

    assert (*capfd.readouterr(), caplog.text) == ("", "", "")


def test_an_engine_that_never_answers_delays_nothing_for_long(tmp_path, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/mute.sock")
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(f"{tmp_path}/mute.sock")
        mute.listen()
        started = time.monotonic()
        answers = servers.docker_answers()
        took_s = time.monotonic() - started

    assert not answers
    assert took_s < 2
