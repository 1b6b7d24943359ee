"""A sweep on Ray: interrupted and gone on with, and one judge that all settings ask."""

from __future__ import annotations

import _thread
import csv
import gc
import json
from contextlib import closing
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from red_ray.cli.app import app
from red_ray.judges import Ledger
from red_ray.run_folder import RunFolder
from red_ray.types import Outcome
from tests.ray.runs import sample
from tests.ray.servers import Live, free_port
from tests.servers.steps import says
from tune.folder import FINISHED, Place, sweep_folder
from tune.rows import marks_of, read_rows
from tune.space import load_sweep
from tune.sweep import SweepStep, run_sweep

BASE = {
    "partition": {"subset_size": 6, "umap_dim": None},
    "router": {"folds": 3},
    "loop": {"max_iterations": 2, "samples_per_iteration": 8, "uncertainty_threshold": 0.0},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    rows, path = sample(), tmp_path_factory.mktemp("sweep")
    write(path / "train.csv", zip(rows.train.texts, rows.train.labels, strict=True))
    write(path / "pool.csv", ((text, rows.hidden.of(text)) for text in rows.pool))
    write(path / "test.csv", zip(rows.test.texts, rows.test.labels, strict=True))
    return path


def write(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *rows])


def sweep_file(folder, name, **keys) -> Path:
    data = {part: f"{part}.csv" for part in ("train", "pool", "test")}
    given = {"data": data, "config": BASE, "goals": [{"escalate_at_most": 0.3}]} | keys
    path = folder / name
    path.write_text(yaml.safe_dump(given))
    return path


def swept(path, out, *, resume, on_step):
    sweep = load_sweep(path)
    inputs, test = read_rows(sweep)
    with sweep_folder(out, path.read_text(), marks_of(sweep, inputs, test), resume=resume) as place:
        return run_sweep(sweep, inputs, place, on_step=on_step)


def kept(out) -> dict[str, bytes]:
    """The records of the settings that have ended."""
    place = Place(out)
    ended = [one.id for one in place.records() if one.has_ended]
    return {one: (out / "trials" / f"{one}.json").read_bytes() for one in ended}


def test_an_interrupted_sweep_goes_on_and_runs_nothing_twice(cluster, folder):
    """As a kill, but that this process stays; a record that is written again has another time."""
    # So many that the interruption, a poll later than the first end, meets most of them undone.
    space = {"partition.strategy": ["similar", "random"], "noise.factor": [*range(1, 10), None]}
    path, out = sweep_file(folder, "grid.yaml", space=space, concurrent=1), folder / "grid"

    def interrupt(step: SweepStep) -> None:
        if step.n_done:
            _thread.interrupt_main()

    with pytest.raises(KeyboardInterrupt):
        swept(path, out, resume=False, on_step=interrupt)
    gc.collect()  # of Tune's handles, so that its actors end
    before = kept(out)
    assert 0 < len(before) < 20
    assert (out / "tune" / "tuner.pkl").exists()
    rows = swept(path, out, resume=True, on_step=lambda step: None)
    after = kept(out)
    assert len(after) == 20
    assert {name: after[name] for name in before} == before
    assert {row.record.state for row in rows} == {FINISHED}
    assert len(rows) == 40


def test_a_setting_whose_record_was_removed_is_run_again(cluster, folder):
    path, out = sweep_file(folder, "two.yaml", space={"noise.factor": [1, None]}), folder / "two"
    swept(path, out, resume=False, on_step=lambda step: None)
    whole = kept(out)
    removed = min(whole)
    (out / "trials" / f"{removed}.json").unlink()
    swept(path, out, resume=True, on_step=lambda step: None)
    again = kept(out)
    assert again.keys() == whole.keys()
    others = whole.keys() - {removed}
    assert {name: again[name] for name in others} == {name: whole[name] for name in others}


def test_a_setting_that_optuna_repeats_is_trained_once_and_counts_as_ended(
    cluster, folder, monkeypatch
):
    keys = {"search": "optuna", "n_trials": 4, "concurrent": 2, "space": {"noise.factor": [1, 2]}}
    path, out = sweep_file(folder, "optuna.yaml", **keys), folder / "optuna"
    first = swept(path, out, resume=False, on_step=lambda step: None)
    before = kept(out)
    assert 0 < len(before) <= 2
    monkeypatch.setattr("tune.sweep.open_encoder", None)  # nothing is left to do
    again = swept(path, out, resume=True, on_step=lambda step: None)
    assert again == first
    assert kept(out) == before


def test_an_answer_that_cannot_be_read_is_paid_for_once(cluster, folder):
    port = free_port()
    judge = {"spec": f"openai:fake@http://127.0.0.1:{port}/v1", "gold_share": 0.0}
    space = {"noise.factor": [1, None], "loop.acquisition": ["random"]}
    config = BASE | {"judge": judge}
    path = sweep_file(folder, "prose.yaml", config=config, space=space, concurrent=1)
    out = folder / "prose"
    with Live(port, lambda number, received: says("I would say neither.")) as server:
        swept(path, out, resume=False, on_step=lambda step: None)
        n_requests = len(server.received)
        texts = {one.text for one in server.received}
    records = Place(out).records()
    assert [one.rounds for one in records] == [2, 2]
    assert len(texts) == 16  # both settings asked about the same
    with closing(Ledger(out / "ledger.sqlite")) as ledger:
        verdicts = list(ledger.verdicts())
    assert {one.outcome for one in verdicts} == {Outcome.UNREADABLE}
    assert n_requests == records[0].calls  # each question's two tries, of the first alone


def test_one_judge_is_asked_by_all_settings_and_no_question_is_paid_twice(cluster, folder):
    port = free_port()
    spec = f"openai:fake@http://127.0.0.1:{port}/v1"
    config = BASE | {"judge": {"spec": spec, "gold_share": 0.0, "total_time_s": 1}}
    space = {"noise.factor": [1, None], "loop.acquisition": ["random"]}
    path = sweep_file(folder, "judge.yaml", config=config, space=space, concurrent=2)
    out = folder / "judge"
    command = ["tune", str(path), "--out", str(out), "--json"]
    away = CliRunner().invoke(app, command)
    assert away.exit_code == 1
    said = away.stderr.splitlines()[-1]
    assert said.startswith(
        "red-ray: 2 of 2 settings failed (the judge's server on this machine does not answer "
    )
    assert said.endswith("--resume tries them again")
    with Live(port) as server:
        done = CliRunner().invoke(app, [*command, "--resume"])
        assert done.exit_code == 0, done.stderr
        asked = [one.messages[-1]["content"] for one in server.received]
    assert len(asked) == len(set(asked)) > 8
    result = json.loads(done.stdout)
    assert result["n_settings"] == 2
    assert [one.calls for one in Place(out).records()] == [16, 16]
    ledger = Ledger(out / "ledger.sqlite")
    assert len(list(ledger.verdicts())) == len(asked)  # the chosen run had no question of its own
    ledger.close()
    assert result["judge"]["calls"] == result["judge"]["from_ledger"] == 16
    assert RunFolder.open(out / "chosen").read_json("scorecard.json")["n_test"] == result["n_test"]
