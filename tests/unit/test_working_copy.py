"""A run at an address: worked on here, copied back whole, and gone on with elsewhere."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from red_ray.address import Remote, Seen
from red_ray.config import RunConfig
from red_ray.errors import DataError, OutputError, StorageError
from red_ray.run_folder import RunFolder
from red_ray.snapshot import Snapshot, write_snapshot
from red_ray.working_copy import N_SNAPSHOTS, OWNER, PlaceTaken, WorkingCopy, at_place, snapshot
from tests.unit.test_run_folder import ITERATION, finish
from tests.unit.test_snapshot import INPUTS


@pytest.fixture
def address(tmp_path):
    return f"file://{tmp_path}/there/run"


@pytest.fixture
def remote(address):
    return Remote(address)


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    """Where local copies are made."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return tmp_path / "tmp"


@pytest.fixture
def sent(monkeypatch):
    """The names of what is uploaded and removed, call by call."""
    calls = []
    upload, remove = Remote.upload, Remote.remove

    def uploaded(remote, files):
        if files:
            calls.append(sorted(files))
        upload(remote, files)

    def removed(remote, name):
        calls.append(f"-{name}")
        remove(remote, name)

    monkeypatch.setattr(Remote, "upload", uploaded)
    monkeypatch.setattr(Remote, "remove", removed)
    return calls


def copy_of(remote, folder):
    folder.mkdir()
    copy = WorkingCopy(remote, folder)
    copy.pull()
    return copy


def write(folder, **files):
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)


def test_only_what_changed_is_copied_back(remote, tmp_path, sent):
    copy = copy_of(remote, tmp_path / "here")
    write(copy.path, a="1", b="2")
    copy.push()
    write(copy.path, b="3", a="1")
    copy.push()
    os.utime(copy.path / "a")
    copy.push()
    assert sent == [["a", "b"], ["b"]]


def test_what_speaks_of_other_files_comes_after_them(remote, tmp_path, sent):
    remote.write("old", b"")
    remote.write("bundle/manifest.json", b"old")
    copy = copy_of(remote, tmp_path / "here")
    write(copy.path, run_json="{}", bundle__manifest_json="{}", bundle__examples_json="[]")
    (copy.path / "old").unlink()
    copy.push()
    assert sent == [["bundle/examples.json"], "-old", ["bundle/manifest.json"], ["run.json"]]


def test_a_bundle_goes_manifest_first(remote, tmp_path, sent):
    remote.write("bundle/manifest.json", b"{}")
    remote.write("bundle/examples.json", b"[]")
    copy = copy_of(remote, tmp_path / "here")
    (copy.path / "bundle" / "manifest.json").unlink()
    (copy.path / "bundle" / "examples.json").unlink()
    copy.push()
    assert sent == ["-bundle/manifest.json", "-bundle/examples.json"]


def test_what_is_of_one_machine_stays_there(remote, tmp_path):
    copy = copy_of(remote, tmp_path / "here")
    for name in (".lock", "ledger.sqlite", "ledger.sqlite-wal", ".run.json.new", "kept"):
        (copy.path / name).write_text("x")
    (copy.path / ".bundle.new").mkdir()
    (copy.path / ".bundle.new" / "manifest.json").write_text("x")
    copy.push()
    assert list(remote.list()) == ["kept"]


def test_who_came_later_writes_and_the_earlier_one_stops(remote, tmp_path):
    first, second = (copy_of(remote, tmp_path / name) for name in ("one", "two"))
    first.claim()
    write(first.path, a="first")
    first.push()
    second.claim()
    write(first.path, a="first again")
    with pytest.raises(OutputError, match="another process has begun to write in 'file://"):
        first.push()
    assert remote.read("a") == b"first"
    write(second.path, a="second")
    second.push()
    assert remote.read("a") == b"second"


def test_a_place_that_keeps_changing_is_told(remote, tmp_path, monkeypatch):
    numbers = iter(range(100))
    monkeypatch.setattr(Remote, "list", lambda _: {OWNER: Seen(1, next(numbers))})
    with pytest.raises(DataError, match="is being written by another process"):
        copy_of(remote, tmp_path / "here")


def test_a_finished_run_is_taken_only_as_it_was_read(remote, tmp_path):
    remote.write("run.json", b"{}")
    first, second, third = (copy_of(remote, tmp_path / name) for name in ("one", "two", "three"))
    second.claim(unchanged=True)
    second.claim(unchanged=True)  # it is ours already
    with pytest.raises(PlaceTaken, match=r"wrote in 'file://.*nothing was changed; run .* again"):
        first.claim(unchanged=True)  # before anything else is there
    assert not first.is_ours
    write(second.path, a="second")
    second.push()
    with pytest.raises(PlaceTaken, match="since this one read it"):
        third.claim(unchanged=True)
    # Who read it afterwards may, and the earlier one stops.
    fourth = copy_of(remote, tmp_path / "four")
    fourth.claim(unchanged=True)
    write(second.path, a="again")
    with pytest.raises(PlaceTaken, match="has begun to write"):
        second.push()
    assert remote.read("a") == b"second"


def test_an_earlier_state_is_there_before_its_entry_and_its_entry_goes_first(
    remote, tmp_path, sent
):
    remote.write("bundle/manifest.json", b"old")
    copy = copy_of(remote, tmp_path / "here")
    earlier = copy.path / "history" / "0001"
    (earlier / "bundle").mkdir(parents=True)
    for name in ("entry.json", "inputs.parquet", "bundle/manifest.json"):
        (earlier / name).write_text("old")
    copy.push()
    kept = ["history/0001/bundle/manifest.json", "history/0001/inputs.parquet"]
    assert sent == [kept, ["history/0001/entry.json"]]
    sent.clear()
    (copy.path / "bundle" / "manifest.json").write_text("new")
    shutil.rmtree(copy.path / "history")
    copy.push()
    gone = ["history/0001/entry.json", *kept]
    assert sent == [["bundle/manifest.json"], *(f"-{name}" for name in gone)]


def test_who_changes_no_labels_copies_nothing_of_what_only_changes_need(address, remote):
    for name in ("run.json", "inputs.parquet", "crossfit.safetensors", "encoders/a.safetensors"):
        remote.write(name, b"x")
    remote.write("history/0001/entry.json", b"x")
    with at_place(address, but="inputs.parquet") as place:
        assert [path.name for path in place.path.iterdir()] == ["run.json"]
    with at_place(address) as place:
        assert (place.path / "encoders" / "a.safetensors").exists()
    assert len(remote.list()) == 5


def test_a_local_folder_is_its_own_place(tmp_path):
    with at_place(str(tmp_path)) as place:
        assert place == tmp_path


def test_a_copy_is_gone_afterwards_and_its_changes_are_there(address, remote, temporary):
    with at_place(address) as place:
        write(place.path, a="1")
    assert remote.read("a") == b"1"
    assert not list(temporary.iterdir())


def test_what_a_failed_command_left_is_copied_back_by_who_claimed_the_place(
    address, remote, temporary
):
    def fail(claims):
        with at_place(address) as place:
            if claims:
                place.claim()
            write(place.path, a="1")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail(claims=False)
    assert remote.read("a") is None
    with pytest.raises(KeyboardInterrupt):
        fail(claims=True)
    assert remote.read("a") == b"1"
    assert not list(temporary.iterdir())


@pytest.mark.parametrize("kind", [StorageError, OutputError, KeyboardInterrupt])
def test_what_cannot_be_copied_stays_here(address, temporary, monkeypatch, kind):
    def away(*_):
        raise kind("cannot write")

    def work():
        with at_place(address) as place:
            write(place.path, a="1")
            monkeypatch.setattr(Remote, "upload", away)

    with pytest.raises(kind, match="cannot write; what could not be copied is in") as told:
        work()
    (kept,) = temporary.iterdir()
    assert str(kept) in str(told.value)
    assert (kept / "a").read_text() == "1"


@pytest.mark.parametrize("kind", [StorageError, OutputError, KeyboardInterrupt])
@pytest.mark.parametrize("first", [OutputError("403"), KeyboardInterrupt()])
def test_what_a_failed_command_cannot_copy_stays_here(address, temporary, monkeypatch, kind, first):
    """As where the keys to the bucket expired while it was trained."""

    def away(*_):
        raise kind("cannot write")

    def work():
        with at_place(address) as place:
            place.claim()
            write(place.path, a="1")
            monkeypatch.setattr(Remote, "upload", away)
            raise type(first)(*first.args)

    said = first.args[0] if first.args else "stopped"
    with pytest.raises(type(first), match=f"^{said}; what could not be copied is in") as told:
        work()
    (kept,) = temporary.iterdir()
    assert f"`red-ray resume {kept}`" in str(told.value)
    assert (kept / "a").read_text() == "1"


def test_of_a_place_that_another_one_took_nothing_is_kept(address, remote, temporary):
    def work(fails):
        with at_place(address) as place:
            place.claim()
            write(place.path, a="1")
            remote.write(OWNER, b"another")
            if fails:
                raise StorageError("first")

    with pytest.raises(PlaceTaken, match="another process has begun to write"):
        work(fails=False)
    with pytest.raises(StorageError, match=r"^first$"):
        work(fails=True)
    assert not list(temporary.iterdir())


def test_a_run_goes_on_where_its_machine_was_lost(address, remote, tmp_path):
    lost = copy_of(remote, tmp_path / "lost")
    run = RunFolder.create(lost, RunConfig())
    write_snapshot(run.path, Snapshot(INPUTS, None))
    run.save()
    run.append(ITERATION)
    with at_place(address) as place:
        again, n_done = RunFolder.resume(place)
        assert again.short_name == address.rpartition("/")[2]
        assert n_done == 1
        assert again.run_id == run.run_id
        assert again.name == address
        finish(again)
        again.save()
    with pytest.raises(OutputError, match="another process has begun to write"):
        run.append(ITERATION)
    with at_place(address) as place:
        assert RunFolder.open(place).iterations() == []
        assert not (place.path / "ledger.sqlite").exists()


def test_a_finished_run_comes_back_where_the_new_one_fails(address, remote):
    with at_place(address) as place:
        run = RunFolder.create(place, RunConfig())
        finish(run)
        run._release()
    before = {name: remote.read(name) for name in remote.list() if name != OWNER}

    def replace_and_stop():
        with at_place(address) as place:
            run = RunFolder.create(place, RunConfig(), overwrite=True)
            with run.replacing():
                run.save()
                assert "bundle/manifest.json" not in remote.list()
                assert ".previous/bundle/manifest.json" in remote.list()
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replace_and_stop()
    assert {name: remote.read(name) for name in remote.list() if name != OWNER} == before


def test_messages_name_the_address(address):
    with at_place(address) as place:
        with pytest.raises(DataError, match=f"'{address}' is no run"):
            RunFolder.resume(place)
        with pytest.raises(DataError, match=f"'{address}' is no finished run"):
            RunFolder.open(place)
        run = RunFolder.create(place, RunConfig())
        write_snapshot(run.path, Snapshot(INPUTS, None))
    goes_on = pytest.raises(OutputError, match=f"`red-ray resume {address}` goes on")
    with at_place(address) as place, goes_on:
        RunFolder.create(place, RunConfig())


def test_a_snapshot_is_made_once_and_never_changes(address, remote, tmp_path):
    remote.write("bundle/manifest.json", b"one")
    first = snapshot(address, tmp_path / "cache")
    assert snapshot(address, tmp_path / "cache") == first
    remote.write("bundle/manifest.json", b"other")
    second = snapshot(address, tmp_path / "cache")
    assert second != first
    assert (first / "bundle" / "manifest.json").read_bytes() == b"one"
    assert (second / "bundle" / "manifest.json").read_bytes() == b"other"
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {first.name, second.name}


def test_old_snapshots_go(address, remote, tmp_path):
    made = []
    for n in range(N_SNAPSHOTS + 2):
        remote.write("bundle/manifest.json", b"x" * n)
        made.append(snapshot(address, tmp_path / "cache"))
        os.utime(made[-1], ns=(n, n))
    left = {path.name for path in (tmp_path / "cache").iterdir()}
    assert left == {path.name for path in made[-N_SNAPSHOTS:]}


def test_a_server_that_is_away_for_a_while_does_not_stop_a_run(
    address, remote, monkeypatch, caplog
):
    def away(*_):
        raise StorageError("cannot write: the server is away")

    with at_place(address) as place:
        run = RunFolder.create(place, RunConfig())
        with monkeypatch.context() as patch:
            patch.setattr(Remote, "upload", away)
            run.append(ITERATION)
        assert "run not copied: cannot write: the server is away" in caplog.text
        run.append(ITERATION)
        assert remote.read("iterations.jsonl").count(b"\n") == 2


def test_a_training_that_is_refused_takes_nothing_over(address, remote, tmp_path):
    run = RunFolder.create(copy_of(remote, tmp_path / "one"), RunConfig())
    write_snapshot(run.path, Snapshot(INPUTS, None))
    run.save()
    with at_place(address) as place, pytest.raises(OutputError, match="holds an unfinished run"):
        RunFolder.create(place, RunConfig())
    run.append(ITERATION)
    assert remote.read("iterations.jsonl").count(b"\n") == 1


def test_what_is_no_run_is_not_copied(address, remote, temporary, monkeypatch):
    remote.write("photos/summer.jpg", b"x")
    remote.write(OWNER, b"x")
    monkeypatch.setattr(Remote, "download", lambda *_: pytest.fail("it was copied"))
    with (
        pytest.raises(OutputError, match=f"'{address}' exists and is no run folder"),
        at_place(address),
    ):
        pass
    assert not list(temporary.iterdir())


@pytest.mark.parametrize("name", ["config.yaml", "run.json", "manifest.json", ".previous/run.json"])
def test_what_may_be_a_run_or_a_bundle_is_copied(address, remote, name):
    remote.write(name, b"x")
    remote.write("seen.txt", b"x")
    with at_place(address) as place:
        assert (place.path / name).exists()


def test_what_another_process_copies_is_no_old_snapshot(address, remote, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    others = [cache / f".{n}.new" for n in range(N_SNAPSHOTS + 1)]
    for other in others:
        other.mkdir(parents=True)
        os.utime(other, ns=(1, 1))
    gone = cache / "gone"
    listed = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda path: iter([*listed(path), gone]))
    remote.write("bundle/manifest.json", b"one")
    found = snapshot(address, cache)
    assert set(listed(cache)) == {found, *others}
