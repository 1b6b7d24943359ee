"""`red-ray up`, `status` and `down` without Ray."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from types import SimpleNamespace

import psutil
import pytest

from red_ray.actors import head as module
from red_ray.actors.environment import HEAD_MARK
from red_ray.actors.head import Head, HeadFolder
from red_ray.errors import RunError
from tests.unit.cli.running import said


@pytest.fixture(autouse=True)
def nowhere(monkeypatch, tmp_path, environment):
    """No cluster is named, Ray cannot be imported, and no process is ended."""
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setattr(module, "end_processes", lambda pid, mark: ended.append(pid) or 0)
    ended.clear()


ended: list[int | None] = []


@pytest.fixture
def up(tmp_path):
    """A head that is a process with its mark, or one whose number another process has by now."""
    started = []

    def make(*, alive=True):
        mark = {HEAD_MARK: "m" if alive else "another"}
        started.append(subprocess.Popen(["sleep", "60"], env=os.environ | mark))
        me = psutil.Process(started[-1].pid)
        until_it_has_begun(me)
        url, place = "http://127.0.0.1:8265", tmp_path / "rr-x" / "ray"
        place.mkdir(parents=True)
        head = Head(
            me.pid, me.create_time(), "m", "127.0.0.1:4", url, "/to ken", str(place), "/log", 2
        )
        with HeadFolder().alone():
            HeadFolder().write(head)
        return head

    yield make
    for one in started:
        one.kill()
        one.wait()


def until_it_has_begun(process):
    """Before that its environment is the parent's."""
    while "sleep" not in process.name():
        pass


def cluster(monkeypatch, busy=(), error=None, endpoints=()):
    """What stands in for the look at a cluster; the jobs that it stopped."""
    stopped = []

    def stop_jobs():
        stopped.append(os.environ["RAY_ADDRESS"])
        return []

    def look():
        if error:
            raise error
        return SimpleNamespace(
            busy=lambda: list(busy), stop_jobs=stop_jobs, end_endpoints=lambda: list(endpoints)
        )

    monkeypatch.setitem(sys.modules, "red_ray.actors.watch", SimpleNamespace(Cluster=look))
    return stopped


def test_up_where_one_is_up_says_how_to_join(red_ray, up):
    up()
    told = red_ray("up")
    assert told.exit_code == 0
    assert "Ray is up already" in told.stdout
    assert "export RAY_ADDRESS=127.0.0.1:4" in told.stdout
    assert told.stderr == ""


def test_up_prints_lines_for_a_shell_alone(red_ray, up):
    up()
    told = red_ray("up", "--export")
    lines = told.stdout.splitlines()
    assert all(line.startswith("export RAY_") for line in lines)
    assert "export RAY_AUTH_TOKEN_PATH='/to ken'" in lines
    assert "export RAY_API_SERVER_ADDRESS=http://127.0.0.1:8265" in lines


def test_up_as_json(red_ray, up):
    head = up()
    told = json.loads(red_ray("up", "--json").stdout)
    assert (told["new"], told["pid"], told["variables"]) == (False, head.pid, head.variables())
    said(red_ray("up", "--json", "--export"), 2, "--export and --json")


def test_up_with_other_settings_leaves_what_is_up(red_ray, up):
    up()
    told = red_ray("up", "--port", 9999)
    assert told.exit_code == 0
    assert "keeps its settings" in told.stderr


def test_up_refuses_a_port_that_is_taken(red_ray):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said(red_ray("up", "--port", port), 2, f"port {port} is taken", "--port")


def test_up_takes_a_free_port_where_the_usual_one_is_taken(red_ray, up, monkeypatch):
    dead = up(alive=False)
    ports = []

    def start(folder, *, port, n_cpus):
        ports.append(port)
        folder.write(dead)
        return dead

    monkeypatch.setattr(module, "start_head", start)
    monkeypatch.setattr(module, "is_free", lambda port: port != 8265)
    told = red_ray("up")
    assert told.exit_code == 0
    assert "had died" in told.stderr
    assert ended == [None]  # it is cleaned up, and nobody else's process is touched
    assert f"port 8265 is taken; the dashboard listens at {ports[0]}" in told.stderr


def test_up_never_starts_one_without_a_token(red_ray, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    said(red_ray("up", "--port", module.free_port()), 2, "RAY_AUTH_MODE='disabled'")


def test_status_where_none_is_up(red_ray):
    told = red_ray("status")
    assert told.exit_code == 0
    assert "`red-ray up` starts one" in told.stderr
    assert json.loads(red_ray("status", "--json").stdout) == {"up": False}


def test_status_of_one_that_died_touches_nothing(red_ray, up):
    head = up(alive=False)
    told = red_ray("status")
    assert f"pid {head.pid} has died" in told.stderr
    assert "/log" in told.stderr
    assert HeadFolder().read() == head


def test_status_of_a_cluster_that_does_not_answer(red_ray, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    cluster(monkeypatch, error=RunError("the cluster does not answer"))
    said(red_ray("status"), 1, "the cluster does not answer")


def looked_at(monkeypatch):
    """What names the cluster, each time that one is looked at."""
    seen = []

    def look():
        seen.append((os.environ.get("RAY_ADDRESS"), os.environ.get("RAY_API_SERVER_ADDRESS")))
        raise RunError("it does not answer")

    monkeypatch.setitem(sys.modules, "red_ray.actors.watch", SimpleNamespace(Cluster=look))
    return seen


def test_status_is_of_the_cluster_that_ray_address_names(red_ray, up, monkeypatch):
    """Whatever else a shell has exported for its head."""
    head, seen = up(), looked_at(monkeypatch)
    for name, value in head.variables().items():
        monkeypatch.setenv(name, value)
    red_ray("status")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    red_ray("status")
    assert seen == [(head.address, head.dashboard), ("127.0.0.1:1", None)]


def test_status_of_the_head_that_is_up(red_ray, up, monkeypatch):
    head, seen = up(), looked_at(monkeypatch)
    red_ray("status")
    # Not by monkeypatch, which would bring back what the command before has set.
    os.environ |= {"RAY_ADDRESS": "", "RAY_API_SERVER_ADDRESS": "http://10.0.0.1:8265"}
    red_ray("status")
    assert seen == [(head.address, head.dashboard), ("", "http://10.0.0.1:8265")]


def test_an_address_that_is_none_is_told_in_one_line(red_ray, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "nonsense")
    said(red_ray("status"), 2, "RAY_ADDRESS='nonsense'")


def test_down_where_none_is_up(red_ray):
    told = red_ray("down")
    assert told.exit_code == 0
    assert "no head is up" in told.stderr


def test_down_refuses_while_something_runs(red_ray, up, monkeypatch):
    head = up()
    stopped = cluster(monkeypatch, busy=("the job raysubmit_1 runs", "the endpoint 'x' answers"))
    said(red_ray("down"), 2, "the job raysubmit_1 runs, the endpoint 'x' answers", "--force")
    assert (ended, stopped) == ([], [])
    assert HeadFolder().read() == head


def test_down_with_force_stops_jobs_first(red_ray, up, monkeypatch):
    head = up()
    stopped = cluster(monkeypatch, busy=("the job raysubmit_1 runs",))
    told = red_ray("down", "--force")
    assert told.exit_code == 0
    assert stopped == ["127.0.0.1:4"]
    assert ended == [head.pid]
    assert HeadFolder().read() is None


def test_down_of_one_that_does_not_answer_takes_force(red_ray, up, monkeypatch):
    head = up()
    cluster(monkeypatch, error=RunError("it hangs"))
    said(red_ray("down"), 1, "cannot see whether jobs run on it (it hangs)", "--force")
    assert red_ray("down", "--force").exit_code == 0
    assert ended == [head.pid]


def test_down_of_one_that_died_cleans_up(red_ray, up):
    up(alive=False)
    told = red_ray("down", "--json")
    assert json.loads(told.stdout)["ended"]
    assert "had died" in told.stderr
    assert ended == [None]
    assert HeadFolder().read() is None


def test_down_of_an_endpoint_alone_leaves_the_head(red_ray, up, monkeypatch):
    head = up()
    cluster(monkeypatch, endpoints=("red_ray",))
    told = red_ray("down", "--endpoint")
    assert told.exit_code == 0
    assert "the endpoint is down" in told.stdout
    assert json.loads(red_ray("down", "--endpoint", "--json").stdout) == {"ended": ["red_ray"]}
    assert (ended, HeadFolder().read()) == ([], head)


def test_down_of_an_endpoint_that_is_not_there(red_ray, up, monkeypatch):
    said(red_ray("down", "--endpoint"), 2, "no head is up")
    up()
    cluster(monkeypatch)
    told = red_ray("down", "--endpoint")
    assert told.exit_code == 0
    assert "no endpoint is up there" in told.stderr
