"""Jobs on a real head: train, tune, classify and a benchmark, stopped and gone on with; its end."""

from __future__ import annotations

import csv
import json
import re
import shlex
import stat
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from red_ray.actors.environment import HEAD_MARK
from red_ray.actors.head import free_port, marked
from red_ray.bundle import load_bundle
from red_ray.run_folder import RunFolder
from tests import killing
from tests.killing import PER_ROUND, answers, without_result
from tests.servers import ServerProcess
from tests.services.serving import Place, listeners, place, until
from tests.services.submitting import Jobs

OURS = {"CoordinatorActor", "EncoderActor", "ExpertActor", "RouterActor", "ValidatorPoolActor"}
MARKER = "zqxwordofauser"
ROUNDS = 2
SWEEP = """\
data: {train: train.csv}
config: {router: {gate: false}}
space: {partition.subset_size: [4, 6]}
search: grid
goals: [{escalate_at_most: 0.2}]
assumed_judge_accuracy: 0.9
objective: {escalated_at_most: 0.5}
"""
MATRIX = """\
name: small
seeds: [0]
tasks: {{here: {{path: {folder}}}}}
columns: [{{name: majority, method: majority}}, {{name: prior, method: prior}}]
"""


@dataclass(frozen=True)
class Here:
    """A head that is up, with its place, its job client and a judge."""

    place: Place
    inputs: killing.Place
    facts: dict[str, Any]
    jobs: Jobs
    judge: ServerProcess

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return red_ray(self.place, *arguments)

    def ended(self, job: str, status: str = "SUCCEEDED") -> str:
        """The log of a job, once it has ended in this state."""
        assert self.jobs.wait(job) == status, self.jobs.log(job)
        return self.jobs.log(job)

    def training(self, run: Path) -> str:
        options = {"loop__max_iterations": ROUNDS, "loop__recalibrate_every": ROUNDS}
        arguments = self.inputs.training(run, self.judge.base_url, **options)
        return shlex.join(["red-ray", *arguments])


def red_ray(place: Place, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = str(Path(sys.executable).with_name("red-ray"))
    return subprocess.run(
        [program, *arguments], env=place.environment, capture_output=True, text=True, timeout=300
    )


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    folder = tmp_path_factory.mktemp("jobs")
    with (
        place(folder) as made,
        ServerProcess(folder / "journal", "--delay-ms", "150") as judge,
    ):
        inputs = killing.Place(folder, made.ray, MARKER)
        inputs.write_inputs()
        up = red_ray(made, "up", "--port", str(free_port()), "--num-cpus", "2", "--json")
        assert up.returncode == 0, up.stderr
        facts = json.loads(up.stdout)
        with Jobs(made.environment | facts["variables"]) as jobs:
            yield Here(made, inputs, facts, jobs, judge)


@dataclass(frozen=True)
class Trained:
    run: Path
    log: str
    n_asked: int


@pytest.fixture(scope="module")
def trained(here: Here) -> Trained:
    """A job that nothing disturbed."""
    run = here.place.folder / "run"
    log = here.ended(here.jobs.submit(here.training(run)))
    return Trained(run, log, len(here.judge.served()))


def steps(run: Path) -> list[dict[str, Any]]:
    return [
        {name: getattr(one, name) for name in one.__slots__ if not name.endswith("_s")}
        for one in RunFolder(run).iterations()
    ]


def test_up_says_how_to_join_and_stays_where_it_is_up(here: Here) -> None:
    again = here.run("up", "--export")
    assert again.returncode == 0, again.stderr
    exported = dict(
        re.fullmatch("export ([A-Z_]+)=(.*)", line).groups() for line in again.stdout.splitlines()
    )
    assert exported == here.facts["variables"]
    assert psutil.Process(here.facts["pid"]).is_running()


def test_only_the_user_can_read_what_is_kept_of_it(here: Here) -> None:
    folder = here.place.folder / ".cache" / "red_ray"
    token = Path(here.facts["variables"]["RAY_AUTH_TOKEN_PATH"])
    assert token == folder / "auth_token"
    files = [path for path in (folder / "head").rglob("*") if path.is_file()]
    assert len(files) == 3
    assert {stat.S_IMODE(path.stat().st_mode) for path in (token, *files)} == {0o600}
    # Ray opens its own folder to everybody.
    assert {stat.S_IMODE(one.stat().st_mode) for one in here.place.ray.glob("rr-*")} == {0o700}


def test_who_has_no_token_is_refused(here: Here) -> None:
    own = {"RAY_AUTH_TOKEN": "0" * 64}
    stranger = Place(here.place.folder, here.place.ray, here.place.environment | own)
    told = red_ray(stranger, "status")
    assert told.returncode == 1
    assert told.stderr.startswith("red-ray: the cluster asks for another token")
    assert told.stderr.count("\n") == 1


def test_train_as_a_job_leaves_a_run_and_a_log_that_reads_well(
    here: Here, trained: Trained
) -> None:
    assert load_bundle(trained.run / "bundle").bundle_id
    assert (trained.run / "report.html").is_file()
    assert json.loads((trained.run / "scorecard.json").read_text("utf-8"))["n_test"] > 0
    lines = trained.log.splitlines()
    assert "\x1b" not in trained.log
    assert "\r" not in trained.log
    assert sum(line.startswith("Asking the judge: iteration ") for line in lines) == ROUNDS
    assert f"joining the Ray cluster at {here.facts['address']}" in lines
    assert len(lines) < 80


def test_a_job_is_sent_what_it_needs_and_no_more(here: Here, trained: Trained) -> None:
    (package,) = here.place.ray.glob(
        "rr-*/ray/session_latest/runtime_resources/working_dir_files/_ray_pkg_*/"
    )
    files = [path.relative_to(package) for path in package.rglob("*") if path.is_file()]
    sent = {path.parts[0] for path in files}
    assert {"red_ray", "serve", "tune", "benchmarks"} <= sent
    assert not sent & {".git", ".venv", "docs", "runs", "README.md", ".ci"}
    assert not [path for path in files if path.is_relative_to("benchmarks/results")]
    assert {path.parts[1] for path in files if path.parts[0] == "tests"} == {"servers", "services"}
    assert sum((package / path).stat().st_size for path in files) < 5e6


def test_classify_as_a_job_gives_the_answers_of_the_model(here: Here, trained: Trained) -> None:
    source, target = here.place.folder / "test.csv", here.place.folder / "decided.csv"
    arguments = ["classify", trained.run, "--input", source, "--output", target]
    log = here.ended(here.jobs.submit(shlex.join(["red-ray", *map(str, arguments)])))
    assert f"written to {target}" in log
    with target.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    decisions = load_bundle(trained.run / "bundle").predict([row["text"] for row in rows])
    assert len(rows) == len(decisions) > 40
    assert [row["label"] or None for row in rows] == [one.label for one in decisions]


def test_a_sweep_as_a_job_leaves_the_chosen_run(here: Here, trained: Trained) -> None:
    file, out = here.place.folder / "sweep.yaml", here.place.folder / "sweep"
    file.write_text(SWEEP, "utf-8")
    log = here.ended(here.jobs.submit(f"red-ray tune {file} --out {out}"))
    assert "\x1b" not in log
    assert load_bundle(out / "chosen" / "bundle").bundle_id
    assert len(list((out / "trials").glob("*.json"))) == 2


def test_what_would_vanish_with_the_job_is_refused(here: Here) -> None:
    job = here.jobs.submit("red-ray train --train train.csv --out runs/x")
    assert "red-ray: --out 'runs/x' lies in the job's own folder" in here.ended(job, "FAILED")


def test_a_benchmark_as_a_job(here: Here) -> None:
    results = here.place.folder / "results"
    variables = {"RED_RAY_RESULTS": str(results)}
    entrypoint = "python -m benchmarks.judge_pool --table"
    job = here.jobs.submit(entrypoint, runtime_env={"env_vars": variables})
    assert re.search(r"^0 of \d+ cells$", here.ended(job), re.MULTILINE)


def test_a_matrix_as_a_job(here: Here) -> None:
    file, out = here.place.folder / "matrix.yaml", here.place.folder / "matrix"
    file.write_text(MATRIX.format(folder=here.place.folder), "utf-8")
    entrypoint = f"python -m benchmarks.matrix run --config {file}"
    log = here.ended(here.jobs.submit(f"{entrypoint} --out {out}"))
    assert "2 of 2 are done, 0 are holes" in log
    assert len(list(out.glob("here--*/predictions.parquet"))) == 2
    refused = here.ended(here.jobs.submit(entrypoint), "FAILED")
    assert "with the job: give --out a folder elsewhere" in refused


def test_a_stopped_job_loses_nothing_and_resume_buys_nothing_again(
    here: Here, trained: Trained
) -> None:
    """Looked at in mid-run by `red-ray status`; both trainings are jobs, and so is `resume`."""
    run, n_before = here.place.folder / "stopped", len(here.judge.served())
    job = here.jobs.submit(here.training(run))
    half = n_before + PER_ROUND + PER_ROUND // 2
    until(lambda: len(here.judge.served()) >= half or not here.jobs.is_running(job))
    with here.judge.paused():  # else the run would end before it was looked at
        seen, listening, refused = status(here), listeners(here.place), here.run("down")
        assert here.jobs.stop(job) == "STOPPED", here.jobs.log(job)
    standing = answers(run)

    assert f"`red-ray resume {run}` goes on with it" in here.jobs.log(job)
    assert len(RunFolder(run).iterations()) == 1
    check_seen(here, job, seen)
    assert {address for _, address, _ in listening} <= {"127.0.0.1", "::1"}
    assert refused.returncode == 2
    assert f"the job {job} runs" in refused.stderr
    # Ray Data keeps one of its own, where it has run.
    until(lambda: not {one["kind"] for one in status(here)["actors"]} & OURS)

    here.ended(here.jobs.submit(f"red-ray resume {run}"))
    journal = [line["text"] for line in here.judge.served()[n_before:]]
    doubled = Counter(journal) - Counter(set(journal))
    assert load_bundle(run / "bundle").bundle_id == load_bundle(trained.run / "bundle").bundle_id
    assert steps(run) == steps(trained.run)
    assert answers(run) == answers(trained.run)
    assert standing
    assert standing.items() <= answers(run).items()
    assert doubled <= without_result(run)
    assert len(journal) == trained.n_asked + doubled.total()


def status(here: Here) -> dict[str, Any]:
    told = here.run("status", "--json")
    assert told.returncode == 0, told.stderr
    found: dict[str, Any] = json.loads(told.stdout)
    return found


def check_seen(here: Here, job: str, told: dict[str, Any]) -> None:
    assert (told["up"], told["pid"]) == (True, here.facts["pid"])
    assert [node["cpus"] for node in told["nodes"]] == [2]
    (running,) = [one for one in told["jobs"] if one["status"] == "RUNNING"]
    assert running["id"] == job
    assert running["entrypoint"].startswith("red-ray train")
    assert re.fullmatch(r"Asking the judge: \d+ questions", running["said"])
    actors = {one["name"].partition(":")[0]: one for one in told["actors"]}
    assert {"coordinator", "encoder-00", "expert-00", "router", "validator-pool"} <= actors.keys()
    assert {one["state"] for one in actors.values()} == {"ALIVE"}
    assert all(one["memory_mb"] > 20 for one in actors.values())


def test_down_with_force_stops_what_runs_and_leaves_no_process(here: Here) -> None:
    """The last one: the head is gone then."""
    job = here.jobs.submit("python -c 'import time; print(\"begun\"); time.sleep(600)'")
    until(lambda: "begun" in here.jobs.log(job))
    parent = psutil.Process(here.facts["pid"])
    processes = [parent, *parent.children(recursive=True)]
    assert len(processes) > 10
    mark = parent.environ()[HEAD_MARK]
    down = here.run("down", "--force", "--json")
    assert down.returncode == 0, down.stderr
    told = json.loads(down.stdout)
    assert told["ended"]
    assert told["killed"] == 0
    assert "begun" in (Path(told["logs"]) / f"{job}.log").read_text("utf-8")
    assert not [one for one in processes if killing.lives(one)]
    assert not marked(mark)
    assert not list(here.place.ray.glob("rr-*"))
    assert status(here) == {"up": False}
    assert here.run("down").returncode == 0
