"""Earlier states of a run: kept, gone back to, and whole whenever a change is killed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from red_ray import history
from red_ray.errors import DataError
from red_ray.history import commit, entries, forget, is_at, new_draft, put_back, settle
from tests.unit.cli.running import tree

HIDDEN = (".draft.new", ".change.new", "history")


@pytest.fixture
def folder(tmp_path):
    """A run whose bundle holds two files that a change keeps and one that it replaces."""
    run = tmp_path / "run"
    write(run, "one", report="old report")
    (run / "tested.txt").write_text("tested")
    return run


def write(place, content, report=None):
    (place / "bundle" / "experts").mkdir(parents=True)
    (place / "bundle" / "manifest.json").write_text(content)
    (place / "bundle" / "experts" / "expert-00").write_text("the same weights")
    (place / "bundle" / "provenance.json").write_text("made today")
    (place / "inputs.parquet").write_text(f"rows {content}")
    (place / "seen.txt").write_text(f"keys {content}")
    if report:
        (place / "report.html").write_text(report)


def state(folder):
    """What stands in the run, its history aside."""
    return {name: content for name, content in tree(folder).items() if not name.startswith(HIDDEN)}


def change(folder, content, between=lambda: None):
    draft = new_draft(folder)
    write(draft, content)
    old = (folder / "bundle" / "manifest.json").read_text()
    commit(folder, draft, change=f"to {content}", bundle=f"id {old}", when="2026", between=between)


def test_a_change_replaces_what_it_has_and_removes_the_rest(folder):
    change(folder, "two")
    found = state(folder)
    assert found["bundle/manifest.json"] == b"two"
    assert found["inputs.parquet"] == b"rows two"
    assert found["tested.txt"] == b"tested"
    assert "report.html" not in found
    assert not [path for path in folder.iterdir() if path.name.endswith((".new", ".old"))]


def test_the_state_of_before_comes_back_as_it_was(folder):
    before = state(folder)
    change(folder, "two")
    middle = state(folder)
    change(folder, "three")
    assert [(one.change, one.bundle) for one in entries(folder)] == [
        ("to two", "id one"),
        ("to three", "id two"),
    ]
    put_back(folder, entries(folder)[-1])
    assert state(folder) == middle
    put_back(folder, entries(folder)[-1])
    assert state(folder) == before
    assert entries(folder) == []


def test_what_a_change_leaves_as_it_is_takes_no_room(folder):
    change(folder, "two")
    weights = folder / "bundle" / "experts" / "expert-00"
    kept = folder / "history" / "0001" / "bundle" / "experts" / "expert-00"
    assert weights.samefile(kept)
    # What is written in place must not reach back into the history.
    (folder / "bundle" / "provenance.json").write_text("scored")
    told = folder / "history" / "0001" / "bundle" / "provenance.json"
    assert told.read_text() == "made today"


def test_a_disk_without_links_gets_copies(folder, monkeypatch):
    def refused(*_):
        raise PermissionError(1, "no links here")

    monkeypatch.setattr("red_ray.history.os.link", refused)
    before = state(folder)
    change(folder, "two")
    put_back(folder, entries(folder)[0])
    assert state(folder) == before


def test_the_history_is_bounded(folder, monkeypatch):
    monkeypatch.setattr(history, "KEPT", 2)
    for number in range(4):
        change(folder, f"state {number}")
    assert [one.number for one in entries(folder)] == [3, 4]
    forget(folder, entries(folder)[0])
    assert [one.number for one in entries(folder)] == [4]


class Killed(BaseException):
    """As a kill: nothing that follows runs."""


def torn_text(path, text, **_):
    with path.open("w") as file:
        file.write(text[: len(text) // 2])


def torn_copy(source, target):
    content = Path(source).read_bytes()
    with Path(target).open("wb") as file:
        file.write(content[: len(content) // 2])


OPERATIONS = (
    (Path, "rename", None),
    (Path, "replace", None),
    (Path, "mkdir", None),
    (Path, "unlink", None),
    (Path, "write_text", torn_text),
    (shutil, "rmtree", None),
    (shutil, "copyfile", torn_copy),
    (os, "link", None),
)
"""What the history does to files, and what a kill in the middle of it leaves."""


def kill_at(patch, step):
    """Have the `step`-th file operation of the history fail as a kill would; counts them."""
    done, names = [0], set()

    def counted(name, real, torn):
        def operation(*args, **options):
            done[0] += 1
            names.add(name)
            if done[0] == step:
                if torn is not None:
                    torn(*args, **options)
                raise Killed
            return real(*args, **options)

        return operation

    for place, name, torn in OPERATIONS:
        patch.setattr(place, name, counted(name, getattr(place, name), torn))
    return done, names


def n_operations(folder, act):
    with pytest.MonkeyPatch.context() as patch:
        done, names = kill_at(patch, -1)
        act(folder)
    return done[0], names


@pytest.mark.parametrize("act", ["change", "undo"])
def test_a_kill_anywhere_leaves_the_one_state_or_the_other(tmp_path, act):
    def prepared(number):
        run = tmp_path / f"{act}-{number}"
        write(run, "one", report="old report")
        if act == "undo":
            change(run, "two")
        return run

    def acted(run):
        if act == "change":
            change(run, "two")
        else:
            put_back(run, entries(run)[-1])

    whole = prepared(0)
    before = state(whole)
    n_steps, names = n_operations(whole, acted)
    assert {"rename", "replace", "unlink", "rmtree"} <= names
    assert ({"mkdir", "write_text", "copyfile", "link"} <= names) is (act == "change")
    after = state(whole)
    outcomes = set()
    for step in range(1, n_steps + 1):
        run = prepared(step)
        with pytest.MonkeyPatch.context() as patch:
            kill_at(patch, step)
            with pytest.raises(Killed):
                acted(run)
        settle(run)
        found = {k: v for k, v in state(run).items() if not k.startswith(".")}
        assert found in (before, after), step
        outcomes.add(found == after)
        # The next change works, whatever the kill left.
        change(run, "three")
        assert state(run)["bundle/manifest.json"] == b"three"
    assert outcomes == {True, False}
    assert n_steps > 10


def test_nothing_is_replaced_before_the_earlier_state_is_kept(folder):
    seen = []

    def between():
        seen.append((len(entries(folder)), state(folder)["bundle/manifest.json"]))

    change(folder, "two", between)
    assert seen == [(1, b"one")]


def test_a_damaged_entry_is_told(folder):
    change(folder, "two")
    (folder / "history" / "0001" / "entry.json").write_text("{")
    with pytest.raises(DataError, match="0001' is damaged"):
        entries(folder)


def test_what_a_cut_copy_left_is_no_state_and_the_next_takes_its_place(folder):
    change(folder, "two")
    for name in ("0001", "0002"):
        (folder / "history" / name).mkdir(exist_ok=True)
        (folder / "history" / name / "inputs.parquet").write_text("a part")
    (folder / "history" / "0001" / "entry.json").unlink()
    assert entries(folder) == []
    change(folder, "three")
    assert [(one.number, one.bundle) for one in entries(folder)] == [(1, "id two")]
    assert [path.name for path in (folder / "history").iterdir()] == ["0001"]
    put_back(folder, entries(folder)[0])
    assert state(folder)["inputs.parquet"] == b"rows two"


def test_a_killed_writers_draft_goes(folder):
    write(new_draft(folder), "two")
    assert not settle(folder)
    assert not (folder / ".draft.new").exists()
    assert state(folder)["bundle/manifest.json"] == b"one"


def test_a_state_is_known_by_its_bundle_and_rows(folder):
    change(folder, "two")
    entry = entries(folder)[0]
    assert not is_at(folder, entry)
    put_back(folder, entry)
    change(folder, "one")
    (folder / "bundle" / "provenance.json").write_text("scored")
    assert is_at(folder, entries(folder)[0])
    for damage in (
        lambda: (folder / "inputs.parquet").write_text("rows two"),
        lambda: (folder / "bundle" / "experts" / "expert-01").write_text("more"),
        lambda: (folder / "bundle" / "experts" / "expert-00").unlink(),
        lambda: (folder / "inputs.parquet").unlink(),
        lambda: shutil.rmtree(folder / "bundle"),
    ):
        kept = folder.with_name("kept")
        shutil.copytree(folder, kept)
        damage()
        assert not is_at(folder, entries(folder)[0])
        shutil.rmtree(folder)
        kept.rename(folder)
    assert is_at(folder, entries(folder)[0])
