"""Commands that change a run: one at a time, and each on what it has read."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from red_ray.address import Remote
from red_ray.bundle import load_bundle
from red_ray.data.inputs import Inputs, KnownRows, TestRows
from red_ray.data.prepare import HiddenLabels, LabelledRows
from red_ray.errors import DataError, StorageError
from red_ray.labels import Change
from red_ray.labels.of_run import keep, open_run, undo
from red_ray.run_folder import RunFolder
from red_ray.snapshot import Snapshot, read_snapshot, write_snapshot
from tests.unit.cli.running import said, tree, write_rows
from tests.unit.test_run_folder import HOLDS

HALF = ("--goal", "escalate_at_most=0.5")


@pytest.fixture
def unchanged(finished, corpus):
    """A finished run with calibration rows and test rows."""
    train = LabelledRows(corpus.texts, corpus.labels)
    known = KnownRows(LabelledRows(corpus.test[:24], corpus.test_labels[:24]), ())
    test = TestRows(LabelledRows(corpus.test[24:36], corpus.test_labels[24:36]), ("sing",), 0, ())
    inputs = Inputs(train, corpus.pool, HiddenLabels(corpus.hidden), calibration=known)
    write_snapshot(finished.path, Snapshot(inputs, test))
    finished._release()
    return finished


@pytest.fixture
def run(unchanged):
    """The same with a change of its labels behind it."""
    keep_as_it_is(unchanged, "the first")
    return unchanged


@pytest.fixture
def more_tests(tmp_path, corpus):
    rows = [*zip(corpus.test[36:], corpus.test_labels[36:], strict=True)]
    return write_rows(tmp_path / "more.csv", rows, "text", "label")


def keep_as_it_is(folder, what):
    """A change that fits nothing anew and leaves the model as it is."""
    state = open_run(folder)
    keep(state, Change(state.model, None, (), False, None, None, ()), state.rows, what=what)


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    """Where local copies are made."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))


def copied(run, place):
    place.parent.mkdir()
    ours = shutil.ignore_patterns(".lock", "ledger.sqlite")
    return Path(shutil.copytree(run.path, place, ignore=ours))


@pytest.fixture
def there(run, tmp_path):
    """Where the run is, behind an address."""
    return copied(run, tmp_path / "there" / "run")


@pytest.fixture
def plain(unchanged, tmp_path):
    """The same without a change behind it."""
    return copied(unchanged, tmp_path / "there" / "run")


def commands(place, label, more_tests):
    return {
        "thresholds": ("thresholds", place, *HALF),
        "evaluate": ("evaluate", place, "--test", more_tests),
        "rename": ("label", "rename", place, label, "zebra"),
        "undo": ("label", "undo", place),
    }


VERBS = ("thresholds", "evaluate", "rename", "undo")


@pytest.fixture
def held(run):
    command = [sys.executable, "-IS", "-c", HOLDS, str(run.path / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        yield process
        process.stdin.close()
        process.wait(10)


@pytest.mark.parametrize("verb", VERBS)
def test_while_one_command_changes_a_run_another_one_is_refused(
    red_ray, run, held, corpus, more_tests, verb
):
    before = tree(run.path)
    told = "changes it or scores it; wait for it, or stop it"
    result = red_ray(*commands(run.path, corpus.labels[0], more_tests)[verb])
    said(result, 2, "another process is training in", told)
    assert tree(run.path) == before


def test_what_only_reads_is_not_held_up(red_ray, run, held, tmp_path):
    for command in (("thresholds", run.path), ("report", run.path)):
        result = red_ray(*command)
        assert result.exit_code == 0, result.output


def is_held(run):
    """Whether another process would be refused."""
    program = HOLDS.replace("sys.stdin.read()", "")
    command = [sys.executable, "-IS", "-c", program, str(run.path / ".lock")]
    return subprocess.run(command, capture_output=True, check=False).returncode != 0


@pytest.mark.parametrize("verb", ["thresholds", "evaluate", "rename"])
def test_what_a_command_writes_again_it_has_read_under_the_lock(
    red_ray, run, corpus, more_tests, monkeypatch, verb
):
    """Else what another one wrote in between would be lost."""
    seen = []

    def loads(folder):
        seen.append(is_held(run))
        return load_bundle(folder)

    for place in ("red_ray.bundle", "red_ray.labels.of_run"):
        monkeypatch.setattr(f"{place}.load_bundle", loads)
    result = red_ray(*commands(run.path, corpus.labels[0], more_tests)[verb])
    assert result.exit_code == 0, result.output
    assert seen
    assert all(seen)
    assert not is_held(run)


def at_once(monkeypatch, act):
    """Have another command act, once, when the next one is about to say that it writes."""
    claim, left = RunFolder.claim, [act]

    def claims(folder):
        if left:
            left.pop()()
        claim(folder)

    monkeypatch.setattr(RunFolder, "claim", claims)
    return left


@pytest.mark.parametrize("verb", VERBS)
def test_at_an_address_the_first_to_write_wins_and_nothing_is_mixed(
    red_ray, there, corpus, more_tests, monkeypatch, verb
):
    address, after = f"file://{there}", {}

    def other():
        done = red_ray("label", "rename", address, corpus.labels[5], "ocelot")
        assert done.exit_code == 0, done.output
        after.update(tree(there))

    left = at_once(monkeypatch, other)
    result = red_ray(*commands(address, corpus.labels[0], more_tests)[verb])
    assert left == []
    assert result.exit_code == 2, result.output
    assert "since this one read it: nothing was changed; run the command again" in result.stderr
    assert tree(there) == after
    assert "ocelot" in load_bundle(there / "bundle").labels
    # Again, on what is there now.
    again = red_ray(*commands(address, corpus.labels[0], more_tests)[verb])
    assert again.exit_code == 0, again.output


def test_who_writes_later_stops_the_one_that_still_scores(
    red_ray, there, corpus, more_tests, monkeypatch
):
    """The old model's figures do not come into the new one's bundle."""
    from red_ray.cli import evaluate as command

    address, score = f"file://{there}", command.score_rows

    def scores(*arguments):
        done = red_ray("label", "rename", address, corpus.labels[5], "ocelot")
        assert done.exit_code == 0, done.output
        after.update(tree(there))
        return score(*arguments)

    after = {}
    monkeypatch.setattr(command, "score_rows", scores)
    result = red_ray("evaluate", address, "--test", more_tests)
    assert result.exit_code == 2, result.output
    assert "another process has begun to write" in result.stderr
    assert tree(there) == after


@pytest.mark.parametrize("verb", VERBS)
def test_a_run_at_an_address_that_is_perhaps_in_training_is_left_alone(
    red_ray, there, corpus, more_tests, verb
):
    state = json.loads((there / "run.json").read_text())
    (there / "run.json").write_text(json.dumps(state | {"finished": False}))
    before = tree(there)
    result = red_ray(*commands(f"file://{there}", corpus.labels[0], more_tests)[verb])
    said(result, 2, "is being trained, or its training was cut short", "red-ray resume file://")
    assert tree(there) == before


def test_a_run_cut_short_behind_its_bundle_is_scored_but_keeps_its_labels(
    red_ray, run, corpus, more_tests
):
    """`resume` would go on from rows that are no longer those that it began with."""
    state = json.loads((run.path / "run.json").read_text())
    (run.path / "run.json").write_text(json.dumps(state | {"finished": False}))
    before = tree(run.path)
    said(red_ray("label", "rename", run.path, corpus.labels[0], "zebra"), 2, "red-ray resume")
    assert tree(run.path) == before
    assert red_ray("evaluate", run.path, "--test", more_tests).exit_code == 0


def test_a_run_of_other_labels_does_not_go_on_with_another_budget(red_ray, run):
    run.write_json("details.json", run.read_json("details.json") | {"stop_reason": "budget"})
    before = tree(run.path)
    more = ("resume", run.path, "--set", "judge.budget_calls=9")
    said(red_ray(*more), 2, "its labels were changed since (the first)", "red-ray label undo")
    assert tree(run.path) == before


def test_one_undo_goes_back_one_state_though_the_bundles_are_the_same(red_ray, run):
    keep_as_it_is(run, "the second")
    first, second = (red_ray("label", "undo", run.path, "--json") for _ in range(2))
    found = [json.loads(result.stdout) for result in (first, second)]
    assert [one["undone"] for one in found] == ["the second", "the first"]
    assert [one["n_left"] for one in found] == [1, 0]


def test_no_test_row_may_be_left(red_ray, run, corpus):
    rows = read_snapshot(run.path)
    label = corpus.labels[0]
    test = TestRows(LabelledRows(corpus.test[36:38], (label, label)), ("sing",), 0, ())
    write_snapshot(run.path, Snapshot(rows.inputs, test))
    run.write_json("scorecard.json", {"accuracy": 1.0})
    result = red_ray("label", "retire", run.path, label)
    assert result.exit_code == 0, result.output
    assert "the scorecard was of the labels of before; run evaluate again" in result.stderr
    assert not (run.path / "scorecard.json").exists()
    assert read_snapshot(run.path).test.out_of_scope == ("sing",)
    for command in (("thresholds", run.path, *HALF), ("label", "undo", run.path)):
        result = red_ray(*command)
        assert result.exit_code == 0, result.output
    assert read_snapshot(run.path).test == test


class Cut:
    """What is done at an address, file by file, to do the first part of it again."""

    def __init__(self, monkeypatch):
        self.done = []
        send, remove = Remote._send, Remote.remove

        def sends(remote, named):
            self.done.append((named[0], named[1].read_bytes()))
            send(remote, named)

        def removes(remote, name):
            self.done.append((name, None))
            remove(remote, name)

        monkeypatch.setattr("red_ray.address.N_TRANSFERS", 1)
        monkeypatch.setattr(Remote, "_send", sends)
        monkeypatch.setattr(Remote, "remove", removes)

    def parts(self, before, folder):
        """A copy of what was there for each step that may have been the last."""
        for n_done in range(len(self.done) + 1):
            place = Path(shutil.copytree(before, folder / str(n_done)))
            for name, content in self.done[:n_done]:
                path = place / name
                if content is None:
                    path.unlink()
                else:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(content)
            yield place


def rows_and_bundle(folder):
    found = tree(folder)
    names = ("bundle/", "inputs.parquet", "seen.txt", "config.yaml")
    return {name: content for name, content in found.items() if name.startswith(names)}


def undone(folder):
    try:
        return undo(RunFolder(folder))[0].change
    except DataError as error:
        assert "no earlier labels" in str(error)  # noqa: PT017 (both ways are right)
        return None


@pytest.mark.parametrize("verb", ["retire", "rename"])
def test_a_change_that_was_cut_off_on_its_way_to_an_address_can_be_gone_back_from(
    red_ray, plain, corpus, tmp_path, monkeypatch, verb
):
    before = Path(shutil.copytree(plain, tmp_path / "before"))
    cut = Cut(monkeypatch)
    names = (corpus.labels[0], "zebra")[: 2 if verb == "rename" else 1]
    result = red_ray("label", verb, f"file://{plain}", *names)
    assert result.exit_code == 0, result.output
    told = []
    for place in cut.parts(before, tmp_path / "cut"):
        told.append(undone(place))
        assert rows_and_bundle(place) == rows_and_bundle(before), len(told) - 1
        load_bundle(place / "bundle")
    assert told[0] is None
    assert told[-1].startswith(verb)
    # Once a file of the new state is there, there is something to go back from.
    assert told == sorted(told, key=bool)


def test_going_back_that_was_cut_off_can_be_done_again(
    red_ray, plain, corpus, tmp_path, monkeypatch
):
    old = rows_and_bundle(plain)
    assert red_ray("label", "retire", f"file://{plain}", corpus.labels[0]).exit_code == 0
    before = Path(shutil.copytree(plain, tmp_path / "before"))
    cut = Cut(monkeypatch)
    assert red_ray("label", "undo", f"file://{plain}").exit_code == 0
    for n_done, place in enumerate(cut.parts(before, tmp_path / "cut")):
        undone(place)
        assert rows_and_bundle(place) == old, n_done


def test_where_the_copy_failed_undo_mends_the_run_at_its_address(
    red_ray, plain, corpus, monkeypatch
):
    """All but the manifest is there, which goes last."""
    address, old = f"file://{plain}", load_bundle(plain / "bundle").bundle_id
    send = Remote._send

    def breaks(remote, named):
        if named[0] == "bundle/manifest.json":
            raise StorageError("the server cannot be reached")
        send(remote, named)

    with monkeypatch.context() as patch:
        patch.setattr(Remote, "_send", breaks)
        assert red_ray("label", "retire", address, corpus.labels[0]).exit_code != 0
    said(red_ray("thresholds", address), 2, "is damaged")
    found = json.loads(red_ray("label", "undo", address, "--json").stdout)
    assert found["bundle"] == load_bundle(plain / "bundle").bundle_id == old
