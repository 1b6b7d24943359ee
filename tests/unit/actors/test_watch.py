"""What Ray says of a cluster, as people are told it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobType

from red_ray.actors.watch import Cluster, _told
from red_ray.errors import RunError


def looking_at(*jobs):
    """A look at jobs that Ray knows, without a cluster."""
    cluster = Cluster.__new__(Cluster)
    cluster._client = SimpleNamespace(list_jobs=lambda: list(jobs))
    return cluster._jobs()


def driver(status):
    return JobDetails(type=JobType.DRIVER, job_id="05", status=status, entrypoint="")


def test_of_a_command_that_joined_nobody_knows_how_it_ended():
    (gone,) = looking_at(driver(JobStatus.SUCCEEDED))
    assert (gone.status, gone.is_over, gone.is_submitted) == ("ENDED", True, False)
    (at_work,) = looking_at(driver(JobStatus.RUNNING))
    assert (at_work.status, at_work.is_over) == ("RUNNING", False)


def test_of_a_submitted_job_ray_knows_it():
    job = JobDetails(
        type=JobType.SUBMISSION, submission_id="x", status=JobStatus.SUCCEEDED, entrypoint="red-ray"
    )
    (done,) = looking_at(job)
    assert (done.status, done.is_over) == ("SUCCEEDED", True)


def test_a_shell_without_the_token_is_told_how_to_get_it():
    with pytest.raises(RunError, match=r'another token.*eval "\$\(red-ray up --export\)"'), _told():
        raise AuthenticationError("no")
