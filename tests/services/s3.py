"""An S3 server of moto on this machine, and a bucket of its own for each test."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from tests.ray.servers import free_port

PATIENCE_S = 120.0


class Unavailable(Exception):
    """Why no server can be started here."""


def variables(url: str) -> dict[str, str]:
    """What a process must find in its environment to speak to the server at `url` only."""
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test-secret",
        "AWS_REGION": "eu-central-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@contextlib.contextmanager
def server(folder: Path) -> Iterator[str]:
    """Start a server on a loopback port of its own; yields its URL.

    Raises:
        Unavailable: it cannot be started.
    """
    program, port = find_program(), free_port()
    log = folder / "moto.log"
    with (
        log.open("wb") as lines,
        subprocess.Popen(
            [str(program), "-H", "127.0.0.1", "-p", str(port)], stdout=lines, stderr=lines
        ) as process,
    ):
        try:
            _wait(port, process, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


def find_program() -> Path:
    """Where moto's server is: in an environment of its own inside ours.

    Of its own since botocore, which it needs, takes no python-dateutil as new as ours; and no other
    one will do, as versions differ in what S3 answers.

    Raises:
        Unavailable: it is not there.
    """
    own = Path(sys.prefix) / "moto" / "bin" / "moto_server"
    if not own.is_file():
        raise Unavailable("moto_server is not here; scripts/install_services.sh installs it")
    return own


def make_bucket(url: str) -> str:
    """A new bucket; its name."""
    from pyarrow.fs import S3FileSystem

    name = f"test-{uuid.uuid4().hex[:12]}"
    files = S3FileSystem(
        access_key="test",
        secret_key="test-secret",
        endpoint_override=url.removeprefix("http://"),
        scheme="http",
        region="eu-central-1",
        allow_bucket_creation=True,
    )
    files.create_dir(name)
    return name


def _wait(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    until_s = time.monotonic() + PATIENCE_S
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5):
            return
        if process.poll() is not None or time.monotonic() > until_s:
            raise Unavailable(f"moto_server did not start: {log.read_text()[-500:]}")
        time.sleep(0.05)
