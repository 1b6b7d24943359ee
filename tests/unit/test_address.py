"""Folders at an address: what is written is whole, and what goes wrong is one line."""

from __future__ import annotations

import errno
import uuid
from pathlib import Path

import pytest
from pyarrow.fs import FSSpecHandler, PyFileSystem

from red_ray.address import Remote, holds_secret, is_address, is_folder, name_of, shown
from red_ray.errors import ConfigError, DataError, OutputError, StorageError

SECRET = "s3://name:pass-word@bucket/runs/one?secret_key=hidden&region=x"


@pytest.fixture(params=["file", "memory"])
def remote(request, tmp_path):
    """A folder that is not there yet, of pyarrow's own file system and of one of fsspec's."""
    place = f"{tmp_path}/deep" if request.param == "file" else f"/{uuid.uuid4().hex}/deep"
    return Remote(f"{request.param}://{place}")


class Failing(FSSpecHandler):
    """A file system whose server says something."""

    def __init__(self, said):
        import fsspec

        super().__init__(fsspec.filesystem("memory"))
        self.said = said

    def get_file_info_selector(self, selector):
        raise OSError(self.said)


def failing(monkeypatch, said):
    opened = PyFileSystem(Failing(said)), "bucket/runs"
    monkeypatch.setattr("red_ray.address._opened", lambda _: opened)
    return Remote(SECRET)


def test_a_path_is_no_address():
    assert is_address("s3://bucket/x")
    assert is_address("postgresql://host/db")
    assert not any(map(is_address, ("runs/x", "/runs//x", "C:/x", "", Path("s3://x"), None)))
    assert is_folder("gs://bucket/x")
    assert not is_folder("postgresql://host/db")


def test_a_secret_is_never_shown():
    assert shown(SECRET) == "s3://bucket/runs/one?region=x"
    assert holds_secret(SECRET)
    assert holds_secret("s3://bucket/x?access_key=a")
    assert not holds_secret("s3://bucket/x?region=eu&endpoint_override=host:9000")
    assert not holds_secret("gs://anonymous@bucket/x")


@pytest.mark.parametrize(
    "key",
    ["client_secret", "sig", "SIG", "secret%5Fkey", "account_key", "session_token", "password"],
)
def test_a_key_behind_the_question_mark_is_a_secret(key):
    address = f"abfs://container@account/run?{key}=hidden&enable_tls=true"
    assert holds_secret(address)
    assert shown(address) == "abfs://container@account/run?enable_tls=true"


@pytest.mark.parametrize(
    "address",
    [
        "abfs://container@account.dfs.core.windows.net/run",
        "s3://bucket/run?endpoint_override=127.0.0.1:9000&scheme=http",
        "s3://bucket/run?design=x",
        "file:///tmp/run",
    ],
)
def test_what_is_no_secret_is_part_of_the_place(address):
    assert shown(address) == address
    assert not holds_secret(address)


@pytest.mark.parametrize(
    ("address", "name"),
    [
        (SECRET, "one"),
        ("s3://key:secret@bucket?token=hidden", "bucket"),
        ("s3://bucket/runs/?endpoint_override=host:9000", "runs"),
        ("abfs://container@account/", "container@account"),
    ],
)
def test_the_name_of_an_address_is_its_folder_s_or_its_bucket_s(address, name):
    assert name_of(address) == name


def test_what_is_written_comes_back(remote):
    assert remote.list() == {}
    assert remote.read("a") is None
    remote.write("a", b"first")
    remote.write("a", b"second")
    remote.below("sub").write("b", b"")
    assert {name: seen.n_bytes for name, seen in remote.list().items()} == {"a": 6, "sub/b": 0}
    assert remote.read("a") == b"second"
    assert (remote.size("a"), remote.size("no")) == (6, None)
    remote.remove("a")
    remote.remove("a")
    assert list(remote.list()) == ["sub/b"]


def test_files_go_there_and_back(remote, tmp_path):
    files = {f"part/{n}": tmp_path / f"{n}.bin" for n in range(20)}
    for n, path in enumerate(files.values()):
        path.write_bytes(bytes([n]) * n)
    remote.upload(files)
    assert remote.list().keys() == files.keys()
    remote.download(files, tmp_path / "back")
    for name, path in files.items():
        assert (tmp_path / "back" / name).read_bytes() == path.read_bytes()
    assert not list((tmp_path / "back").rglob("*.new"))


def test_a_file_may_be_copied_and_put(remote, tmp_path):
    remote.write("a", b"content")
    other = remote.beside(".parts")
    remote.copy("a", other)
    assert other.read("a") == b"content"
    (tmp_path / "file").write_bytes(b"whole")
    table = remote.below("table.csv")
    assert not table.is_file()
    table.put(tmp_path / "file")
    assert table.is_file()
    assert remote.read("table.csv") == b"whole"


def test_half_a_file_is_never_there(remote):
    def stop():
        with remote._sink("a") as stream:
            stream.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    assert remote.list() == {}


def test_of_a_replacement_that_is_interrupted_no_half_is_left(remote):
    """A disk has the old file; where only whole objects can be written, there is none."""
    remote.write("a", b"old")

    def stop():
        with remote._sink("a") as stream:
            stream.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    assert remote.read("a") == (b"old" if remote.address.startswith("file") else None)


def test_what_a_killed_process_was_writing_is_no_file(tmp_path):
    (tmp_path / ".a.0123abcd.new").write_text("half")
    (tmp_path / ".hidden.new").write_text("whole")
    assert list(Remote(f"file://{tmp_path}").list()) == [".hidden.new"]


def test_a_file_that_is_gone_is_told(remote, tmp_path):
    with pytest.raises(DataError, match="a file is not there"):
        remote.download(["gone"], tmp_path / "here")
    assert not list((tmp_path / "here").iterdir())


def test_a_full_disk_is_told_and_leaves_nothing(remote, tmp_path, monkeypatch):
    remote.write("a", b"content")
    opens = Path.open

    def full(path, mode="r", *args, **kwargs):
        if mode == "ab":
            raise OSError(errno.ENOSPC, "No space left on device")
        return opens(path, mode, *args, **kwargs)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(StorageError, match="no space left for"):
        remote.download(["a"], tmp_path / "here")
    assert not list((tmp_path / "here").iterdir())


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("AWS Error NO_SUCH_BUCKET during ListObjectsV2 operation", OutputError),
        ("AWS Error ACCESS_DENIED during ListObjectsV2 operation", OutputError),
        ("AWS Error UNKNOWN (HTTP status 403) during HeadObject", OutputError),
        ("AWS Error NETWORK_CONNECTION during PutObject: curlCode: 28, Timeout", StorageError),
        ("google::cloud::Status(UNAVAILABLE: Retry policy exhausted)", StorageError),
    ],
)
def test_what_a_server_says_becomes_one_line_with_a_remedy(monkeypatch, said, kind):
    remote = failing(monkeypatch, f"{said}\n (Request ID: abc)")
    with pytest.raises(kind, match="check the") as told:
        remote.list()
    line = str(told.value)
    assert line.startswith("cannot list 's3://bucket/runs/one': ")
    assert said in line
    assert "\n" not in line
    assert "Request ID" not in line
    assert "pass-word" not in line
    assert "hidden" not in line


@pytest.mark.parametrize(
    "address", ["s3://name:pass-word@bucket/x?nonsense=hidden", "abfs://bucket/x?token=hidden"]
)
def test_an_address_that_cannot_be_understood_is_not_quoted(address):
    with pytest.raises(ConfigError, match="write s3://bucket/folder") as told:
        Remote(address)
    assert "pass-word" not in str(told.value)
    assert "hidden" not in str(told.value)


def test_a_file_system_that_nobody_knows_is_told():
    with pytest.raises(ConfigError, match="no file system here knows nonsense://"):
        Remote("nonsense://bucket/x")
