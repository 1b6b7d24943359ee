"""A run's folder: made once, gone on in, never mixed with another run's results."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from red_ray.config import RunConfig, changed, load_config
from red_ray.errors import ConfigError, DataError, OutputError, StorageError
from red_ray.history import commit, entries, new_draft
from red_ray.run_folder import RunFolder
from red_ray.types import Iteration

ITERATION = Iteration(
    1, "informative", 10, 7, 2, 1, 0, 11, 0, 67, 90, (0, 2), 0.5, -0.4, 0.8, None, *[0.1] * 5
)


@pytest.fixture
def run(tmp_path):
    return RunFolder.create(tmp_path / "deep" / "run", RunConfig())


def finish(run):
    run.bundle.mkdir()
    (run.bundle / "manifest.json").write_text("{}")
    for name in ("scorecard.json", "details.json"):
        run.write_json(name, {"accuracy": 1.0})
    (run.path / "report.html").write_text("old")
    run.ledger.write_bytes(b"verdicts")
    run.finish()


def test_it_keeps_the_resolved_configuration(tmp_path):
    config = RunConfig(seed=7)
    assert load_config(RunFolder.create(tmp_path / "run", config).path / "config.yaml") == config


def test_iterations_come_back_as_they_were(run):
    run.append(ITERATION)
    run.append(ITERATION)
    assert run.iterations() == [ITERATION, ITERATION]


def test_seen_keys_come_back(run):
    run.write_seen(["b" * 64, "a" * 64])
    assert run.seen() == {"a" * 64, "b" * 64}


def test_tested_keys_add_up(run):
    assert run.tested() == frozenset()
    run.add_tested(["b" * 64])
    run.add_tested(iter(["a" * 64, "b" * 64]))
    assert run.tested() == {"a" * 64, "b" * 64}


@pytest.mark.parametrize("finished", [False, True])
def test_what_was_tested_goes_with_its_run(run, finished):
    if finished:
        finish(run)
    run.add_tested(["a" * 64])
    again = RunFolder.create(run.path, RunConfig(seed=8), overwrite=True)
    assert again.tested() == frozenset()
    with pytest.raises(KeyboardInterrupt), again.replacing():
        raise KeyboardInterrupt
    assert again.tested() == ({"a" * 64} if finished else frozenset())


def test_a_scorecard_goes_with_what_the_details_say_of_it(run):
    run.write_json("details.json", {"n_train": 3, "labels": []})
    assert not run.drop_scorecard(["labels"])
    assert run.read_json("details.json") == {"n_train": 3, "labels": []}
    run.write_json("scorecard.json", {"accuracy": 1.0})
    assert run.drop_scorecard(["labels"])
    assert run.read_json("details.json") == {"n_train": 3}
    assert not (run.path / "scorecard.json").exists()


def with_rows(run):
    """Without them there is nothing to go on with."""
    (run.path / "inputs.parquet").write_bytes(b"rows")
    return run


def test_a_run_that_was_cut_short_is_not_begun_anew_by_chance(run):
    with_rows(run).append(ITERATION)
    told = "unfinished run: `red-ray resume .*` goes on with it; .* add --overwrite"
    with pytest.raises(OutputError, match=told):
        RunFolder.create(run.path, RunConfig(seed=8))
    assert run.iterations() == [ITERATION]
    assert RunFolder.resume(run.path)[1] == 1


def test_one_that_was_stopped_before_its_rows_were_written_is(run):
    again = RunFolder.create(run.path, RunConfig(seed=8))
    assert load_config(again.path / "config.yaml").seed == 8


def test_a_run_begun_in_place_of_one_that_was_cut_short_has_its_ledger(run):
    with_rows(run).append(ITERATION)
    run.ledger.write_bytes(b"verdicts")
    again = RunFolder.create(run.path, RunConfig(), overwrite=True)
    assert again.ledger.read_bytes() == b"verdicts"
    assert again.iterations() == []  # they are run again, from the ledger


def test_a_run_that_is_gone_on_with_keeps_its_id(run):
    """Under it the ledger counts what the run has cost, and knows its rounds."""
    first = run.run_id
    assert RunFolder.resume(run.path)[0].run_id == first != ""


@pytest.mark.parametrize("is_finished", [True, False])
def test_a_run_in_place_of_another_has_an_id_of_its_own(run, is_finished):
    """Else a replay would find what failed in the rounds of the other."""
    if is_finished:
        finish(run)
    before = run.run_id
    again = RunFolder.create(run.path, RunConfig(), overwrite=True)
    assert again.run_id not in ("", before)


def test_resuming_says_how_many_iterations_were_finished(run):
    run.append(ITERATION)
    run.append(ITERATION)
    again, n_done = RunFolder.resume(run.path)
    assert n_done == 2
    assert again.iterations() == []
    assert again.is_cut_short


def test_what_was_finished_stays_so_though_the_resumed_run_is_cut_short_before_it(run):
    """Else its failed questions would be asked again, and the result be another."""
    for n_rounds, n_done in ((3, 3), (1, 3), (0, 3), (4, 4)):
        for _ in range(n_rounds):
            run.append(ITERATION)
        assert RunFolder.resume(run.path)[1] == n_done


def test_an_iteration_whose_line_was_cut_short_was_not_finished(run):
    run.append(ITERATION)
    history = run.path / "iterations.jsonl"
    history.write_text(history.read_text() + '{"iteration": 2, "pha')
    assert RunFolder.resume(run.path)[1] == 1


def test_resuming_leaves_no_result_but_the_ledger(run):
    """Killed between its bundle and its end."""
    finish(run)
    state = json.loads((run.path / "run.json").read_text())
    (run.path / "run.json").write_text(json.dumps(state | {"finished": False}))
    again, _ = RunFolder.resume(run.path)
    assert sorted(path.name for path in run.path.iterdir()) == [
        ".lock", "config.yaml", "iterations.jsonl", "ledger.sqlite", "run.json",
    ]  # fmt: skip
    assert again.ledger.read_bytes() == b"verdicts"


def test_a_finished_run_is_not_gone_on_with(run):
    finish(run)
    with pytest.raises(ConfigError, match="is finished"):
        RunFolder.resume(run.path)
    assert run.read_json("scorecard.json") == {"accuracy": 1.0}


@pytest.mark.parametrize("made", [False, True])
def test_where_no_run_was_begun_there_is_none_to_go_on_with(tmp_path, made):
    folder = tmp_path / "run"
    if made:
        folder.mkdir()
    with pytest.raises(DataError, match="is no run"):
        RunFolder.resume(folder)
    assert folder.exists() == made
    assert list(tmp_path.rglob("*")) == ([folder] if made else [])


@pytest.mark.parametrize("content", ["", "[]", "null", "{}", '{"id": "a", "x": 1}', "\x00"])
def test_a_damaged_state_is_told_in_one_line(run, content):
    (run.path / "run.json").write_text(content)
    with pytest.raises(DataError, match=r"run\.json' is damaged.*run the training again"):
        RunFolder.resume(run.path)


def test_a_run_that_was_cut_short_after_its_bundle_is_for_resume(run):
    with_rows(run).bundle.mkdir()
    (run.bundle / "manifest.json").write_text("{}")
    with pytest.raises(OutputError, match="unfinished run: `red-ray resume"):
        RunFolder.create(run.path, RunConfig())


HOLDS = """
import fcntl, sys
with open(sys.argv[1], "r+") as lock:
    fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def held(run):
    """Another process that overwrites a finished run, which was set aside."""
    with run.replacing():
        finish(run)
    RunFolder.create(run.path, RunConfig(seed=9), overwrite=True)._release()
    command = [sys.executable, "-IS", "-c", HOLDS, str(run.path / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        yield process
        process.stdin.close()
        process.wait(10)


def test_a_folder_in_which_another_process_trains_is_left_alone(run, held):
    """Neither what it wrote nor what it has set aside is touched."""
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    for overwrite in (False, True):
        with pytest.raises(OutputError, match="another process is training"):
            RunFolder.create(run.path, RunConfig(seed=8), overwrite=overwrite)
    with pytest.raises(OutputError, match="another process is training"):
        RunFolder.resume(run.path)
    assert {p: p.read_bytes() for p in run.path.rglob("*") if p.is_file()} == before


def test_a_process_that_is_killed_holds_nothing(run, held):
    held.kill()
    held.wait(10)
    with pytest.raises(OutputError, match="holds a finished run"):
        RunFolder.create(run.path, RunConfig(seed=8))
    assert RunFolder.open(run.path).read_json("scorecard.json") == {"accuracy": 1.0}


def test_a_lock_that_was_refused_leaves_no_file_open(run, held):
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with pytest.raises(OutputError):
            RunFolder.resume(run.path)
    assert len(os.listdir("/proc/self/fd")) == before


def test_an_empty_folder_that_is_there_is_taken(tmp_path):
    assert load_config(RunFolder.create(tmp_path, RunConfig()).path / "config.yaml") == RunConfig()


def test_a_finished_run_is_not_overwritten_by_chance(run):
    finish(run)
    with pytest.raises(OutputError, match="--overwrite"):
        RunFolder.create(run.path, RunConfig())
    assert run.read_json("scorecard.json") == {"accuracy": 1.0}


def test_overwriting_leaves_no_result_of_the_run_before(run):
    """Else a run without test rows would show the scorecard of another model."""
    finish(run)
    again = RunFolder.create(run.path, RunConfig(seed=8), overwrite=True)
    with again.replacing(), pytest.raises(DataError, match="no finished run"):
        RunFolder.open(run.path)
    assert {path.name for path in run.path.iterdir()} == {
        ".lock", "config.yaml", "iterations.jsonl", "ledger.sqlite", "run.json",
    }  # fmt: skip
    assert again.ledger.read_bytes() == b"verdicts"


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("finished", [False, True])
def test_a_table_that_a_person_filled_in_is_kept_under_another_name(run, finished, keep):
    if finished:
        finish(run)
    (run.path / "disputed.1.csv").write_text("of an earlier time")
    (run.path / "disputed.csv").write_text("filled in")
    again = RunFolder.create(run.path, RunConfig(), overwrite=True, keep_answers=keep)
    with again.replacing():
        pass
    assert again.kept_answers == (run.path / "disputed.2.csv" if keep else None)
    found = [path.read_text() for path in sorted(run.path.glob("disputed*"))]
    assert found == ["of an earlier time"] + ["filled in"] * keep


def test_resuming_keeps_it_too(run):
    (run.path / "disputed.csv").write_text("filled in")
    again, _ = RunFolder.resume(run.path, keep_answers=True)
    assert again.kept_answers.read_text() == "filled in"
    assert not (run.path / "disputed.csv").exists()


def test_a_failed_overwrite_gives_the_finished_run_back(run):
    finish(run)
    before = {path.name: path.stat().st_size for path in run.path.rglob("*") if path.is_file()}
    again = RunFolder.create(run.path, RunConfig(seed=8), overwrite=True)
    with pytest.raises(KeyboardInterrupt), again.replacing():
        raise KeyboardInterrupt
    assert again.was_put_back
    after = {path.name: path.stat().st_size for path in run.path.rglob("*") if path.is_file()}
    assert after == before
    assert RunFolder.open(run.path).read_json("scorecard.json") == {"accuracy": 1.0}


def test_where_no_finished_run_stood_a_failed_one_stays_to_be_resumed(run):
    with pytest.raises(KeyboardInterrupt), run.replacing():
        raise KeyboardInterrupt
    assert not run.was_put_back
    assert RunFolder.resume(run.path)[0].is_cut_short


def test_what_a_killed_overwrite_had_set_aside_is_found_again(run):
    finish(run)
    RunFolder.create(run.path, RunConfig(seed=8), overwrite=True)
    with pytest.raises(OutputError, match="--overwrite"):
        RunFolder.create(run.path, RunConfig(seed=8))
    assert RunFolder.open(run.path).read_json("scorecard.json") == {"accuracy": 1.0}


@pytest.mark.parametrize("n_written", range(4))
def test_an_overwrite_killed_at_any_moment_gives_the_finished_run_back(run, n_written, monkeypatch):
    finish(run)
    write = RunFolder._write
    left = iter(range(n_written))

    def killed(self, name, text):
        if next(left, None) is None:
            raise KeyboardInterrupt
        write(self, name, text)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "_write", killed)
        with contextlib.suppress(KeyboardInterrupt):
            RunFolder.create(run.path, RunConfig(seed=8), overwrite=True)
    with pytest.raises(OutputError, match="holds a finished run"):
        RunFolder.create(run.path, RunConfig(seed=8))
    assert RunFolder.open(run.path).read_json("scorecard.json") == {"accuracy": 1.0}
    assert load_config(run.path / "config.yaml") == RunConfig()


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_other_things_is_left_alone(tmp_path, overwrite):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match="is no run folder"):
        RunFolder.create(tmp_path, RunConfig(), overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("name", ["iterations.jsonl", "details.json"])
@pytest.mark.parametrize("content", ["{", "[1]", '{"x": 1}\n{', "\x00"])
def test_a_damaged_record_is_told_in_one_line(run, name, content):
    (run.path / name).write_text(content)
    with pytest.raises(DataError, match=f"{name}.*is damaged"):
        run.iterations() if name == "iterations.jsonl" else run.read_json(name)


def test_a_missing_record_is_told(run):
    with pytest.raises(DataError, match="cannot read"):
        run.seen()


def test_a_full_disk_keeps_what_was_written(run, monkeypatch):
    run.write_json("scorecard.json", {"accuracy": 0.5})
    run.append(ITERATION)

    def full(self, *args, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for name in ("write_text", "write_bytes", "open"):
        monkeypatch.setattr(Path, name, full)
    with pytest.raises(StorageError, match="no space left"):
        run.write_json("scorecard.json", {"accuracy": 0.9})
    with pytest.raises(StorageError, match="no space left"):
        run.append(ITERATION)
    with pytest.raises(StorageError, match="no space left"):
        run.write_seen(["a"])
    monkeypatch.undo()
    assert run.read_json("scorecard.json") == {"accuracy": 0.5}
    assert run.iterations() == [ITERATION]


def out_of_budget(run):
    with_rows(run).append(ITERATION)
    run.write_seen(["a" * 64])
    finish(run)
    run.write_json("details.json", {"stop_reason": "budget"})
    return run


def more(config=None):
    return changed(config or RunConfig(), {"judge": {"budget_calls": 9}})


def test_a_run_that_its_budget_stopped_goes_on_with_another_one(run):
    first = out_of_budget(run).run_id
    assert run.is_out_of_budget
    with pytest.raises(ConfigError, match=r"--set judge\.budget_calls=…` goes on"):
        RunFolder.resume(run.path)
    again, n_done = RunFolder.resume(run.path, config=more())
    assert (again.run_id, n_done) == (first, 1)
    assert load_config(again.path / "config.yaml") == more()
    assert again.begun_with == more().model_dump(mode="json")
    assert again.is_resumable
    assert again.seen() == {"a" * 64}
    assert not again.bundle.exists()
    assert again.ledger.read_bytes() == b"verdicts"


def test_where_that_fails_the_finished_run_is_back(run):
    out_of_budget(run)
    again, _ = RunFolder.resume(run.path, config=more())
    with pytest.raises(KeyboardInterrupt), again.replacing():
        raise KeyboardInterrupt
    assert again.was_put_back
    assert again.is_out_of_budget
    assert again.iterations() == [ITERATION]
    assert (again.bundle / "manifest.json").exists()
    assert load_config(again.path / "config.yaml") == RunConfig()


def test_another_reason_to_stop_is_no_reason_to_go_on(run):
    out_of_budget(run)
    run.write_json("details.json", {"stop_reason": "plateau"})
    with pytest.raises(ConfigError, match="nothing is left to do"):
        RunFolder.resume(run.path, config=more())


def test_a_finished_run_says_how_many_iterations_it_had(run):
    assert json.loads((out_of_budget(run).path / "run.json").read_text())["n_done"] == 1


def test_a_run_knows_what_it_was_begun_with(run):
    run.write_config(RunConfig(seed=8))
    assert run.begun_with == RunConfig().model_dump(mode="json")
    (run.path / "run.json").write_text('{"id": "x", "finished": false, "n_done": 0}')
    assert run.begun_with is None


def bundle_of(folder, content, **facts):
    (folder / "bundle").mkdir(exist_ok=True)
    (folder / "bundle" / "manifest.json").write_text(content)
    (folder / "bundle" / "provenance.json").write_text(json.dumps(facts))
    (folder / "inputs.parquet").write_text(f"rows {content}")
    return folder / "bundle" / "manifest.json"


def changed_labels(run, between=lambda: None):
    """A finished run whose budget stopped it, after a change of its labels."""
    if not run.is_finished:
        bundle_of(out_of_budget(run).path, "old")
    draft = new_draft(run.path)
    bundle_of(draft, "changed", labels_changed="2026", change="add 'x'")
    for name in ("details.json", "config.yaml", "seen.txt"):
        (draft / name).write_bytes((run.path / name).read_bytes())
    told = {"change": "add 'x'", "bundle": "id", "when": "2026"}
    commit(run.path, draft, **told, between=between)
    return run


@pytest.fixture
def pending(run):
    """The same, killed when the change counted and nothing was in its place yet."""

    def killed():
        raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        changed_labels(run, killed)
    assert (run.path / ".change.new").is_dir()
    run._release()
    return run


def test_a_killed_change_of_labels_does_not_come_over_a_later_training(pending):
    again = RunFolder.create(pending.path, RunConfig(), overwrite=True)
    with again.replacing():
        bundle_of(pending.path, "new training")
        again.finish()
    found = RunFolder.open(pending.path)
    assert (found.bundle / "manifest.json").read_text() == "new training"
    assert (found.path / "inputs.parquet").read_text() == "rows new training"
    assert entries(found.path) == []
    assert not (found.path / ".change.new").exists()


def test_where_that_training_fails_the_changed_run_is_back(pending):
    again = RunFolder.create(pending.path, RunConfig(), overwrite=True)
    with pytest.raises(KeyboardInterrupt), again.replacing():
        raise KeyboardInterrupt
    found = RunFolder.open(pending.path)
    assert (found.bundle / "manifest.json").read_text() == "changed"
    assert [one.change for one in entries(found.path)] == ["add 'x'"]


@pytest.mark.parametrize("act", ["train", "resume", "change"])
def test_whoever_has_the_lock_finds_the_change_in_its_place(pending, act):
    with contextlib.ExitStack() as stack:
        if act == "train":
            stack.enter_context(pytest.raises(OutputError, match="add --overwrite"))
            RunFolder.create(pending.path, RunConfig())
        elif act == "resume":
            stack.enter_context(pytest.raises(ConfigError, match="labels were changed since"))
            RunFolder.resume(pending.path, config=more())
        else:
            stack.enter_context(RunFolder(pending.path).changing())
    assert (pending.bundle / "manifest.json").read_text() == "changed"
    assert not (pending.path / ".change.new").exists()


def test_a_change_that_cannot_be_finished_leaves_no_lock(pending):
    (pending.path / ".change.new" / "entry.json").write_text("{")
    for _ in range(2):
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(DataError, match="is damaged"):
            RunFolder.create(pending.path, RunConfig(), overwrite=True)
        assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("is_finished", [True, False])
def test_a_run_whose_labels_were_changed_is_not_gone_on_with(run, is_finished):
    """Its rounds were about other rows: the ledger would answer questions that nobody asks."""
    state = json.loads((changed_labels(run).path / "run.json").read_text())
    (run.path / "run.json").write_text(json.dumps(state | {"finished": is_finished}))
    before = {p: p.read_bytes() for p in run.path.rglob("*") if p.is_file()}
    told = r"changed since \(add 'x'\); go back first, .*`red-ray label undo .*--overwrite"
    with pytest.raises(ConfigError, match=told):
        RunFolder.resume(run.path, config=more())
    assert {p: p.read_bytes() for p in run.path.rglob("*") if p.is_file()} == before


def test_what_is_left_of_such_a_run_is_to_go_back(run):
    assert "--set judge.budget_calls" in out_of_budget(run).what_is_left
    told = changed_labels(run).what_is_left
    assert "red-ray label undo" in told
    assert "--set" not in told


def test_a_run_that_was_gone_back_to_is_gone_on_with(run):
    bundle_of(changed_labels(run).path, "old", timing_s={})
    assert RunFolder.resume(run.path, config=more())[1] == 1


def test_folders_of_a_failed_run_make_room_for_those_of_the_run_before(run):
    finish(run)
    for name in ("encoders", "history"):
        (run.path / name).mkdir()
        (run.path / name / "one").write_text("old")
    again = RunFolder.create(run.path, RunConfig(), overwrite=True)
    (run.path / "encoders").mkdir()
    (run.path / "encoders" / "two").write_text("new")
    with pytest.raises(KeyboardInterrupt), again.replacing():
        raise KeyboardInterrupt
    assert [path.name for path in (run.path / "encoders").iterdir()] == ["one"]
    assert [path.name for path in (run.path / "history").iterdir()] == ["one"]


def test_a_run_that_is_not_finished_keeps_its_labels(run):
    with pytest.raises(OutputError, match=r"cut short: wait for it, or .* `red-ray resume "):
        run.refuse_unfinished()
    run.finish()
    run.refuse_unfinished()
