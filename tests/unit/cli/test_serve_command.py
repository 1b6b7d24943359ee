"""`red-ray serve`: what cannot work is told in one line, before Ray is so much as imported."""

from __future__ import annotations

import socket
import sys
from types import SimpleNamespace

import pytest

from red_ray.cli.console import Output
from red_ray.cli.serve import _print
from red_ray.run_folder import RunFolder
from tests.unit.cli.running import said, write_rows


@pytest.fixture(autouse=True)
def nobody_calls_ray(monkeypatch):
    """An import of Ray fails, and so does the command, with another exit code."""
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delenv("RED_RAY_TOKENS", raising=False)
    monkeypatch.setattr("red_ray.encoding.files.find_model", lambda *_: None)


@pytest.fixture
def refused(red_ray, finished):
    """Serves the run, with a judge that plays, unless a test says otherwise."""

    def check(*args, words=(), run=finished.path, judge="neighbours"):
        options = ("--judge", judge) if judge else ()
        line = said(red_ray("serve", run, *options, *args), 2, *words)
        assert "Traceback" not in line
        return line

    return check


def test_what_is_no_run(refused, tmp_path):
    refused(run=tmp_path / "nowhere", words=("nowhere", "no finished run", "bundle/manifest.json"))


def test_a_damaged_bundle(refused, finished):
    (finished.bundle / "examples.json").write_text("[]")
    refused(words=("is damaged", "examples.json"))


@pytest.mark.parametrize("address", ["", "127.0.0.1:6379"])
def test_a_port_that_is_taken(refused, monkeypatch, address):
    """On a cluster it may be by an endpoint whose command was killed."""
    monkeypatch.setenv("RAY_ADDRESS", address)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        line = refused("--port", port, words=(f"127.0.0.1:{port}", "in use", "--port"))
    assert ("`red-ray down --endpoint`" in line) == bool(address)


def test_a_host_that_is_none(refused, monkeypatch):
    monkeypatch.setenv("RED_RAY_TOKENS", "t" * 32)
    refused("--host", "192.0.2.1", words=("192.0.2.1", "--port"))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_other_machines_need_a_token(refused, host):
    refused("--host", host, words=(repr(host), "RED_RAY_TOKENS", "127.0.0.1"))


def test_a_token_that_is_too_short(refused, monkeypatch):
    monkeypatch.setenv("RED_RAY_TOKENS", "secret")
    line = refused(words=("RED_RAY_TOKENS", "6 characters", "at least 16"))
    assert "secret'" not in line


def test_a_judge_that_nobody_knows(refused):
    refused(judge="oracle:m", words=("oracle:m",))


def test_a_judge_without_its_key(refused, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    refused(judge="openai:m@https://api.example/v1", words=("OPENAI_API_KEY",))


def test_a_simulated_judge_needs_the_truth(refused):
    """The run's own, which played in training, too."""
    refused(judge="simulated:0.9", words=("simulated:0.9", "judge.truth"))
    refused(judge=None, words=("simulated:1.0", "judge.truth"))


def test_a_truth_that_is_none(refused, tmp_path):
    simulated = {"judge": "simulated:0.9"}
    truth = f"judge.truth={tmp_path / 'nowhere.csv'}"
    refused("--set", truth, words=("nowhere.csv",), **simulated)
    table = write_rows(tmp_path / "truth.csv", [["a"]], "text")
    refused("--set", f"judge.truth={table}", words=("label",), **simulated)


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("limits.text_per_call=3", ("'limits.text_per_call'", "'limits.texts_per_call'")),
        ("layuot=sharded", ("'layuot'", "did you mean 'layout'?")),
        ("layout=spread", ("layout", "'packed' or 'sharded'")),
        ("threads=0", ("threads", "got 0")),
        ("threads", ("--set takes key=value",)),
        ("limits={texts_per_call: [}", ("not valid YAML",)),
    ],
)
def test_a_key_that_does_not_fit(refused, assignment, words):
    refused("--set", assignment, words=words)


def test_a_configuration_that_cannot_be_read(refused, tmp_path):
    refused("--config", tmp_path / "nowhere.yaml", words=("nowhere.yaml",))
    bad = tmp_path / "bad.yaml"
    bad.write_text("limits: {texts_per_cal: 2}\n")
    refused("--config", bad, words=("'limits.texts_per_cal'", "did you mean"))


def test_an_encoder_that_is_not_here(refused, monkeypatch):
    from red_ray.errors import EncoderError

    def missing(model, revision):
        raise EncoderError(f"the model {model!r} is not on this machine; download it first")

    monkeypatch.setattr("red_ray.encoding.files.find_model", missing)
    refused(words=("all-MiniLM-L6-v2", "download"))


def test_a_run_whose_configuration_is_damaged(refused, finished):
    (finished.path / "config.yaml").write_text("jugde: {}\n")
    refused(words=("'jugde'", "did you mean 'judge'?"))


@pytest.mark.parametrize("option", [("--port", "0"), ("--port", "65536"), ("--replicas", "0")])
def test_numbers_out_of_range(red_ray, finished, option):
    result = red_ray("serve", finished.path, *option)
    assert result.exit_code == 2
    assert option[0] in result.stderr
    assert "Traceback" not in result.stderr


def test_what_is_fine_gets_as_far_as_ray(red_ray, finished):
    """So that the refusals above are not of something else."""
    result = red_ray("serve", finished.path, "--judge", "neighbours", "--port", _free_port())
    assert result.exit_code == 1
    assert isinstance(result.exception, ImportError)
    assert RunFolder.open(finished.path)


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_the_command_for_a_goal_names_the_run_without_a_secret(capsys):
    run = "s3://key:pass-word@bucket/run?secret_key=hidden&region=x"
    facts = {"url": "http://x", "proxy": "plain", "replicas": 1, "judge": None, "bundle": "b"}
    model = SimpleNamespace(labels=(), thresholds=SimpleNamespace(escalate=None))
    _print(Output(as_json=False), run, facts | {"layout": "packed"}, model)
    told = capsys.readouterr().out
    assert "`red-ray thresholds s3://bucket/run?region=x --goal" in told
    assert "pass-word" not in told
    assert "hidden" not in told
