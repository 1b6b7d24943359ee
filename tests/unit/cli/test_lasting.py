"""What a submitted job writes must outlive it."""

from __future__ import annotations

import pytest

from red_ray.actors.environment import JOB_VARIABLE
from red_ray.cli.lasting import check_lasting
from red_ray.errors import ConfigError
from tests.unit.cli.running import said


@pytest.fixture
def job(monkeypatch, tmp_path):
    """The folder of a job that this process is."""
    monkeypatch.setenv(JOB_VARIABLE, "{}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "place", ["runs/x", "x", "../{name}/x", "{here}", "{here}/runs/x", ".", "gs:/x"]
)
def test_a_place_that_goes_with_the_job_is_refused(job, place):
    with pytest.raises(ConfigError, match=r"^--out .* lies in the job's own folder"):
        check_lasting(place.format(here=job, name=job.name), "--out")


@pytest.mark.parametrize("place", ["/shared/x", "s3://bucket/x", "../x"])
def test_a_place_that_stays_is_not(job, place):
    check_lasting(place, "--out")


def test_outside_of_a_job_any_place_will_do(monkeypatch):
    monkeypatch.delenv(JOB_VARIABLE, raising=False)
    check_lasting("runs/x", "--out")


def test_every_command_that_writes_looks(job, red_ray, train_file, finished):
    out = ("--out", "x")
    commands = (
        ("train", "--train", train_file, *out),
        ("demo",),
        ("judge", "audit", "--train", train_file, "--judge", "neighbours"),
        ("ledger", "export", finished.path, "--output", "x.csv"),
        ("classify", finished.path, "--input", train_file, "--output", "x.csv"),
    )
    for command in commands:
        said(red_ray(*command), 2, "the job's own folder", "absolute path")
