"""What stops a run on a cluster: one line, the right exit code, and nothing paid for twice."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from red_ray.cli.app import app
from red_ray.errors import EncoderError, OutputError
from red_ray.judges import Ledger
from red_ray.run_folder import RunFolder
from red_ray.types import Outcome
from tests.ray.runs import on_actors, sample, wait_for_actors_to_end
from tests.ray.servers import Live, free_port
from tests.servers import ok

SMALL = ("expert.per_actor=4", "router.gate=false", "partition.subset_size=6")
PER_ROUND = 8


def invoke(*args: object) -> Result:
    return CliRunner().invoke(app, [str(arg) for arg in args])


def ours(result: Result) -> str:
    """The line that says why a command ended; progress may stand before it."""
    lines = [line for line in result.stderr.splitlines() if line.startswith("red-ray: ")]
    assert len(lines) == 1, result.stderr
    assert lines[0] == result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
    return lines[0]


def write_rows(path: Path, rows: list[tuple[str, ...]], *header: str) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


@dataclass
class Story:
    """A worker dies; the same command, told to, begins anew and finds the judge away; `resume`
    finds all well.
    """

    died: Result
    away: Result
    done: Result
    run: Path
    kept: list[tuple[int, int]]
    unfinished: bool
    n_requests: tuple[int, int]


@pytest.fixture(scope="module")
def story(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Story:
    import ray

    folder = tmp_path_factory.mktemp("story")
    run, port = folder / "run", free_port()
    rows = sample()
    train = list(zip(rows.train.texts, rows.train.labels, strict=True))
    test = list(zip(rows.test.texts, rows.test.labels, strict=True))
    settings = [
        *SMALL,
        "loop.max_iterations=3",
        f"loop.samples_per_iteration={PER_ROUND}",
        "judge.concurrency=2",
        "judge.total_time_s=1",
        "judge.max_attempts=8",
    ]
    command = [
        "train",
        "--train",
        write_rows(folder / "train.csv", train, "text", "label"),
        "--pool",
        write_rows(folder / "pool.csv", [(text,) for text in rows.pool], "text"),
        "--test",
        write_rows(folder / "test.csv", test, "text", "label"),
        "--judge",
        f"openai:fake@http://127.0.0.1:{port}/v1",
        "--out",
        run,
        "--json",
        *(part for setting in settings for part in ("--set", setting)),
    ]

    def kill_router_in_the_second_round(number, received):
        if number == PER_ROUND + 1:
            ray.kill(ray.get_actor("router"))
        return ok()

    kept = []
    with Live(port, kill_router_in_the_second_round) as first:
        died = invoke(*command)
    kept.append(what_is_kept(run))
    wait_for_actors_to_end()
    away = invoke(*command, "--overwrite")
    kept.append(what_is_kept(run))
    unfinished = not (run / "bundle").exists()
    wait_for_actors_to_end()
    with Live(port) as second:
        done = invoke("resume", run, "--json")
    return Story(died, away, done, run, kept, unfinished, (first.n_requests, second.n_requests))


def what_is_kept(run: Path) -> tuple[int, int]:
    """Answers in the ledger, and iterations in the history."""
    ledger = Ledger(run / "ledger.sqlite")
    answers = [v for v in ledger.verdicts() if v.outcome in (Outcome.LABEL, Outcome.NONE)]
    ledger.close()
    return len(answers), len((run / "iterations.jsonl").read_text().splitlines())


def test_a_worker_that_dies_is_a_failure_that_keeps_what_was_paid_for(story):
    assert story.died.exit_code == 1
    assert story.died.stdout == ""
    assert re.search("worker of the run died.*`red-ray resume` goes on", ours(story.died))
    assert story.kept[0] == (2 * PER_ROUND, 1)
    assert story.n_requests[0] == 2 * PER_ROUND


def test_a_judge_that_stays_away_is_a_failure_that_keeps_what_was_paid_for(story):
    """Defect 11: silence is no "no"."""
    assert story.away.exit_code == 1
    assert story.away.stdout == ""
    assert "no answer from the judge for 1 s" in ours(story.away)
    assert story.kept[1] == (2 * PER_ROUND, 2)
    assert story.unfinished


def test_resume_then_goes_on_and_pays_for_nothing_twice(story):
    """Defect 17. The history tells what this run has bought from what an earlier one had.

    The second command began a run of its own, to which all of the first one's answers were known.
    """
    assert story.done.exit_code == 0, story.done.stderr
    assert story.n_requests[1] == PER_ROUND
    history = RunFolder(story.run).iterations()
    bought = [(one.n_requests, one.n_cached) for one in history]
    assert bought == [(0, PER_ROUND), (0, PER_ROUND), (PER_ROUND, 0)]


def test_json_stands_alone_on_stdout(story):
    card = json.loads(story.done.stdout)
    assert card["run"] == str(story.run)
    judge = card["judge"]
    assert judge["from_ledger"] == story.n_requests[0]
    # Those that found nobody at home left all the same.
    assert judge["calls"] == sum(story.n_requests) + judge["results"]["unreachable"]
    assert judge["results"]["label"] + judge["results"].get("none", 0) == story.n_requests[1]
    assert card["n_test"] == len(sample().test)


def test_an_encoder_that_cannot_be_found_arrives_as_the_users_mistake(tmp_path):
    job = sample().job(encoder={"model": str(tmp_path / "nowhere"), "store": tmp_path / "store"})
    with pytest.raises(EncoderError, match="cannot find the encoder"):
        on_actors(job, tmp_path / "ledger.sqlite")


def test_a_ledger_that_is_none_arrives_as_the_users_mistake(tmp_path):
    ledger = tmp_path / "ledger.sqlite"
    ledger.write_text("my diary, which is no database at all\n" * 30)
    with pytest.raises(OutputError, match="cannot open the ledger"):
        on_actors(sample().job(), ledger)
    assert ledger.read_text().startswith("my diary")
