"""Folders at an address: `s3://bucket/runs/tickets`, `gs://…`, `file:///…`.

The file systems are pyarrow's own (local, S3, GCS, Azure); what it does not know goes to fsspec,
where a package for it is installed. Both read what they always read: AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY, AWS_REGION, ~/.aws and a machine's role, AWS_ENDPOINT_URL for a server other
than Amazon's, GOOGLE_APPLICATION_CREDENTIALS. An address may say more behind a `?`, as
`s3://bucket/runs/tickets?endpoint_override=127.0.0.1:9000&scheme=http&region=eu-central-1`.

A file is written as one object: while that lasts, a reader sees what stood there before, and then
all of it. Where it is interrupted or fails, no file is left at an address that is no disk, also
where one stood before: no client here can give up an object without making half a file of it, which
nobody must take for the whole; a copy under another name would be made twice, and S3 copies none
above 5 GB at once.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote_plus, urlsplit

from red_ray.errors import ConfigError, DataError, OutputError, RedRayError, StorageError
from red_ray.storage import writing

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_AS_PATH = re.compile(r"(s3|gs|gcs|abfss?|hdfs|file|https?):/")
_FOLDERS = ("s3", "gs", "gcs", "abfs", "abfss", "hdfs", "file", "memory")
_SECRETS = ("access_key", "account_key", "secret", "token", "sas", "password")
"""Parts of names behind the `?` whose values nobody else may read."""

_SIGNATURE = "sig"
"""Such a name as a whole: of Azure's shared access signatures."""

_AZURE = ("abfs", "abfss")
"""Where a container, no user, stands before the `@`."""

_GCS_LIMIT = "retry_limit_seconds=30"
"""Google's client tries for fifteen minutes by itself."""

N_TRANSFERS = 8
"""Files that are on their way at a time."""

_HALF = re.compile(r"\..+\.[0-9a-f]{8}\.new")
"""Names of files that are being written to a disk, or were when a process was killed."""

_PART_BYTES, _SAID_CHARS = 8 * 2**20, 300

_PLACE_IS_WRONG = (
    *("NO_SUCH_BUCKET", "ACCESS_DENIED", "INVALID_ACCESS_KEY", "SIGNATURE_DOES_NOT"),
    *("UNRECOGNIZED_CLIENT", "INVALID_CLIENT_TOKEN", "HTTP status 401", "HTTP status 403"),
    *("PERMISSION_DENIED", "UNAUTHENTICATED", "Bucket does not exist"),
)
"""What the clients write where another try cannot help; they have no error classes for it."""


def is_address(place: object) -> bool:
    """Whether a place is an address and no path."""
    return isinstance(place, str) and _ADDRESS.match(place) is not None


def was_address(path: object) -> bool:
    """Whether a path was an address: as a path it has one slash less."""
    return _AS_PATH.match(str(path)) is not None


def is_folder(place: str) -> bool:
    """Whether an address is that of a folder for sure, and not of a database."""
    return is_address(place) and urlsplit(place).scheme in _FOLDERS


def shown(address: str) -> str:
    """An address as it may be printed: without a user, a password or a key.

    What else stands behind the `?` stays: without it the address would be of another place.
    """
    parts = urlsplit(address)
    kept = [one for one in parts.query.split("&") if one and not _is_secret(one.partition("=")[0])]
    return _plain(address) + (f"?{'&'.join(kept)}" if kept else "")


def _plain(address: str) -> str:
    """As `shown`, without anything behind the `?`."""
    parts = urlsplit(address)
    user, _, host = parts.netloc.rpartition("@")
    if parts.scheme in _AZURE and user and ":" not in user:
        host = f"{user}@{host}"
    # Not `urlunsplit`, which leaves the slashes away where no host is named.
    return f"{parts.scheme}://{host}{parts.path}"


def name_of(address: str) -> str:
    """The last part of an address, for metrics and logs: of its folder, else of its bucket."""
    parts = urlsplit(_plain(address))
    return parts.path.rstrip("/").rpartition("/")[2] or parts.netloc


def holds_secret(address: str) -> bool:
    """Whether an address holds a password or a key."""
    parts = urlsplit(address)
    names = parse_qs(parts.query, keep_blank_values=True)
    return ":" in parts.netloc.rpartition("@")[0] or any(map(_is_secret, names))


def _is_secret(name: str) -> bool:
    name = unquote_plus(name).lower()
    return name == _SIGNATURE or any(secret in name for secret in _SECRETS)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a file looks like from outside."""

    n_bytes: int
    modified_ns: int


class Remote:
    """A folder at an address, which need not be there yet.

    Attributes:
        address: as it was given; it may hold a secret.
        name: of the folder, for messages: without anything behind the `?`.
    """

    def __init__(self, address: str) -> None:
        """Open the address; nothing is asked of a server yet.

        Raises:
            ConfigError: it cannot be understood, or no file system here knows it.
        """
        self.address = address
        self.name = _plain(address).rstrip("/")
        self._files, path = _opened(address)
        self._path = path.rstrip("/")

    def below(self, name: str) -> Remote:
        """The folder `name` in it."""
        return self.beside(f"/{name}")

    def beside(self, ending: str) -> Remote:
        """The folder beside it whose name ends in `ending`."""
        path, mark, more = self.address.partition("?")
        return Remote(f"{path.rstrip('/')}{ending}{mark}{more}")

    def list(self) -> dict[str, Seen]:
        """All files in it and below it, by their path from here; empty where there is none.

        Raises:
            OutputError: it is denied.
            StorageError: the server cannot be reached.
        """
        from pyarrow.fs import FileSelector, FileType

        selector = FileSelector(self._path, recursive=True, allow_not_found=True)
        with self._telling("list"):
            found = self._files.get_file_info(selector)
        start = len(self._path) + 1
        return {
            one.path[start:]: Seen(one.size or 0, one.mtime_ns or 0)
            for one in found
            if one.type == FileType.File and not _HALF.fullmatch(one.base_name)
        }

    def read(self, name: str) -> bytes | None:
        """The content of a small file; None where there is none.

        Raises:
            OutputError: it is denied.
            StorageError: the server cannot be reached.
        """
        with self._telling("read"):
            try:
                with self._files.open_input_stream(self._at(name)) as stream:
                    return bytes(stream.read())
            except FileNotFoundError:
                return None

    def size(self, name: str) -> int | None:
        """Bytes of a file; None where there is none.

        Raises:
            OutputError: it is denied.
            StorageError: the server cannot be reached.
        """
        return self._size(self._at(name))

    def is_file(self) -> bool:
        """Whether the address is that of a file.

        Raises:
            As `size`.
        """
        return self._size(self._path) is not None

    def _size(self, path: str) -> int | None:
        from pyarrow.fs import FileType

        with self._telling("read"):
            found = self._files.get_file_info(path)
        return int(found.size) if found.type == FileType.File else None

    def put(self, file: Path) -> None:
        """Make the address that of a file with this content.

        Raises:
            As `write`.
        """
        self._send((None, file))

    def copy(self, name: str, to: Remote) -> None:
        """Copy a file of this folder into another one on the same server.

        Raises:
            As `write`.
        """
        with self._telling("copy"):
            if self._is_local:
                self._files.create_dir(to._path)
            self._files.copy_file(self._at(name), to._at(name))

    def write(self, name: str, content: bytes) -> None:
        """Write a small file.

        Raises:
            OutputError: there is no such bucket, or it is denied.
            StorageError: the server cannot be reached.
        """
        with self._telling("write"), self._sink(name) as stream:
            stream.write(content)

    def remove(self, name: str) -> None:
        """Remove a file; one that is not there is no error.

        Raises:
            OutputError: it is denied.
            StorageError: the server cannot be reached.
        """
        with self._telling("remove"):
            try:
                self._files.delete_file(self._at(name))
            except FileNotFoundError:
                return

    def drop_if_empty(self) -> None:
        """Remove the folder where it is empty; only a disk has such."""
        if self._is_local:
            with suppress(OSError):
                os.rmdir(self._path)

    def download(self, names: Iterable[str], folder: Path) -> None:
        """Copy files into a local folder; each is whole or not there.

        Raises:
            DataError: one is not there.
            OutputError: it is denied, or the local folder cannot be written.
            StorageError: the server cannot be reached, or the local disk is full.
        """
        with ThreadPoolExecutor(N_TRANSFERS) as threads:
            for _ in threads.map(lambda name: self._fetch(name, folder / name), names):
                pass

    def upload(self, files: Mapping[str, Path]) -> None:
        """Copy local files here, by their names here, in no order.

        Raises:
            OutputError: there is no such bucket, or it is denied.
            StorageError: the server cannot be reached.
        """
        with ThreadPoolExecutor(N_TRANSFERS) as threads:
            for _ in threads.map(self._send, files.items()):
                pass

    def _fetch(self, name: str, path: Path) -> None:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.new")
        try:
            with self._telling("read"), self._files.open_input_stream(self._at(name)) as stream:
                while part := stream.read(_PART_BYTES):
                    with writing(path), new.open("ab") as file:
                        file.write(part)
            with writing(path):
                new.touch()
                new.replace(path)
        finally:
            new.unlink(missing_ok=True)

    def _send(self, named: tuple[str | None, Path]) -> None:
        name, path = named
        with self._telling("write"), path.open("rb") as file, self._sink(name) as stream:
            while part := file.read(_PART_BYTES):
                stream.write(part)

    @contextmanager
    def _sink(self, name: str | None) -> Iterator[Any]:
        """A file to write, which is there once the block ends well.

        Where it does not, a disk has what stood there before, and another place has no file.
        """
        path = self._at(name)
        if not self._is_local:
            try:
                with self._files.open_output_stream(path) as stream:
                    yield stream
            except BaseException:
                with suppress(OSError):  # closing it may have made half a file of it
                    self._files.delete_file(path)
                raise
            return
        folder, _, last = path.rpartition("/")
        self._files.create_dir(folder)
        new = f"{folder}/.{last}.{uuid.uuid4().hex[:8]}.new"
        try:
            with self._files.open_output_stream(new) as stream:
                yield stream
            self._files.move(new, path)
        finally:
            if os.path.exists(new):
                os.unlink(new)

    @property
    def _is_local(self) -> bool:
        return str(self._files.type_name) == "local"

    def _at(self, name: str | None) -> str:
        return self._path if name is None else f"{self._path}/{name}"

    @contextmanager
    def _telling(self, doing: str) -> Iterator[None]:
        """Turn what a file system says into one line."""
        try:
            yield
        except FileNotFoundError as error:
            if self._is_local and doing == "write":
                raise OutputError(
                    f"cannot write {self.name!r}: no folder can be made there; choose another place"
                ) from error
            raise DataError(
                f"cannot {doing} {self.name!r}: a file is not there (any more); run the command "
                "again"
            ) from error
        except OSError as error:
            raise _told(error, f"cannot {doing} {self.name!r}") from error


def _told(error: OSError, what: str) -> RedRayError:
    said = " ".join((error.strerror or str(error)).split())
    said = re.sub(r" \(Request ID.*", "", said)[:_SAID_CHARS]
    if isinstance(error, NotADirectoryError | FileExistsError):
        return OutputError(f"{what}: {said}; choose another place")
    if any(word in said for word in _PLACE_IS_WRONG) or isinstance(error, PermissionError):
        return OutputError(f"{what}: {said}; check the bucket's name, the region and the keys")
    return StorageError(
        f"{what}: {said}; check the address and the network, and run the command again"
    )


def _opened(address: str) -> tuple[Any, str]:
    import pyarrow as pa
    from pyarrow.fs import FileSystem

    uri = address
    parts = urlsplit(address)
    if parts.scheme in ("gs", "gcs") and "retry_limit_seconds" not in parts.query:
        uri += f"{'&' if parts.query else '?'}{_GCS_LIMIT}"
    try:
        files, path = FileSystem.from_uri(uri)
        return files, str(path)
    except (pa.ArrowException, ValueError, TypeError) as error:
        # Its words may quote the address.
        if "Unrecognized filesystem" not in str(error):
            raise ConfigError(
                f"cannot use the address {_plain(address)!r}; write s3://bucket/folder, "
                "gs://bucket/folder or file:///folder, and check what stands behind the `?`"
            ) from None
    except OSError as error:
        raise _told(error, f"cannot open {shown(address)!r}") from error
    return _by_fsspec(address)


def _by_fsspec(address: str) -> tuple[Any, str]:
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    scheme = urlsplit(address).scheme
    try:
        import fsspec

        files, path = fsspec.core.url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise ConfigError(
            f"no file system here knows {scheme}://; install fsspec's package for it, or use "
            "s3://, gs://, abfs:// or file://"
        ) from error
    return PyFileSystem(FSSpecHandler(files)), str(path)
