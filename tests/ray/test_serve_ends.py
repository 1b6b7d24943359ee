"""`red-ray serve` where Ray or the application is gone under it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from ray.exceptions import RayActorError

from red_ray.cli.serve import _check_is_there
from red_ray.errors import RunError

# Ray Serve's own models, at its first import.
pytestmark = pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`")


def serve_not_running():
    from ray.serve.exceptions import RayServeException

    return RayServeException("Serve is\nnot running")


def actor_not_running():
    return RayActorError(error_msg="a trace\nThe actor is not running\n")


def serve_with(applications=None, error=None):
    def status():
        if error is not None:
            raise error
        return SimpleNamespace(applications=applications)

    return SimpleNamespace(status=status)


def test_while_it_is_there_nothing_is_said():
    _check_is_there(serve_with({"red_ray": object()}), "red_ray")


def test_an_application_that_something_else_deleted():
    with pytest.raises(RunError, match=r"something else ended it$"):
        _check_is_there(serve_with({}), "red_ray")


@pytest.mark.parametrize("what", [serve_not_running, actor_not_running])
def test_where_ray_is_gone_its_last_words_are_told(what):
    with pytest.raises(RunError, match=r"something else ended it \(.*not running\)$") as told:
        _check_is_there(serve_with(error=what()), "red_ray")
    assert "\n" not in str(told.value)
