"""`red-ray serve` where Ray or the application is gone under it, or never comes up."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest
from ray.exceptions import RayActorError

from red_ray.actors import cluster
from red_ray.cli.serve import _check_is_there, clear_the_way, come_up
from red_ray.errors import OutputError, RunError

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


class Serves:
    """Stands in for `ray.serve`: an application that comes up when it is let."""

    def __init__(self, applications=None, proxies=None, message=""):
        self.applications, self.proxies = applications or {}, proxies or {}
        self.message = message
        self.calls = []
        self.may_come_up = threading.Event()

    def status(self):
        return SimpleNamespace(applications=self.applications, proxies=self.proxies)

    def shutdown(self):
        self.calls.append("shutdown")

    def run(self, deployments, *, name, route_prefix):
        one = SimpleNamespace(message=self.message)
        self.applications = {name: SimpleNamespace(deployments={"Classifier": one})}
        self.calls.append((deployments, name, route_prefix))
        self.may_come_up.wait()


def an(status):
    return {"red_ray": SimpleNamespace(status=status)}


@pytest.mark.parametrize("status", ["RUNNING", "DEPLOYING", "UNHEALTHY"])
def test_nothing_is_deployed_over_an_endpoint_of_somebody(status, monkeypatch):
    monkeypatch.setattr("red_ray.cli.serve._where", lambda: "at http://127.0.0.1:8000")
    there = Serves(an(status), {"node": "HEALTHY"})
    with pytest.raises(
        OutputError, match=r"\(red_ray\) .*:8000.*`red-ray down --endpoint`"
    ) as told:
        clear_the_way(there)
    assert "\n" not in str(told.value)
    assert there.calls == []


@pytest.mark.parametrize("left", [{}, an("DEPLOY_FAILED")])
def test_what_an_earlier_endpoint_left_would_keep_its_port(left):
    there = Serves(left, {"node": "HEALTHY"})
    clear_the_way(there)
    assert there.calls == ["shutdown"]


def test_where_nothing_is_nothing_is_ended():
    nobody = Serves()
    clear_the_way(nobody)
    assert nobody.calls == []


def test_replicas_that_find_no_processor_are_told_of_and_not_waited_for_without_end(monkeypatch):
    monkeypatch.setattr(cluster, "free_cpus", lambda: 0.0)
    monkeypatch.setattr(cluster, "room", lambda: SimpleNamespace(n_cpus=2.0))
    full = Serves(message="2 replicas that have taken more than 30s to be scheduled. Resources …")
    told = []
    with pytest.raises(RunError, match=r"within 1 s: .* 0 of the 2 .*--replicas"):
        come_up(full, "deployments", "red_ray", told.append, limit_s=1)
    full.may_come_up.set()
    assert "starting the endpoint, for 1 s: replicas wait for processors" in told[0]


def test_one_that_comes_up():
    quick = Serves()
    quick.may_come_up.set()
    come_up(quick, "deployments", "red_ray", pytest.fail)
    assert quick.calls == [("deployments", "red_ray", "/")]


def test_what_serve_raises_is_raised():
    failing = SimpleNamespace(run=lambda *_, **__: {}["gone"])
    with pytest.raises(KeyError, match="gone"):
        come_up(failing, "deployments", "red_ray", pytest.fail)
