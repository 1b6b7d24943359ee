"""Asking the judge from the command line: what it answers, what it costs, what is kept."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest

from red_ray.cli.loop_thread import LoopThread
from tests.servers import OpenAIServer, by_text, ok, says, status, steps
from tests.unit.cli.running import said, tree, write_rows, write_run
from tests.unit.test_escalation import with_threshold
from tests.unit.training.fakes import FakeEncoder


@pytest.fixture(scope="session")
def half_escalated(trained, corpus):
    """The trained model with a threshold that half of the test texts reach."""
    assessment = trained.model.assess(corpus.test, FakeEncoder().encode(corpus.test))
    middle = float(np.median(trained.model.answer_risk(assessment)))
    return dataclasses.replace(trained, model=with_threshold(trained.model, middle))


@pytest.fixture
def run(tmp_path, corpus, half_escalated):
    return write_run(tmp_path / "with_goal", corpus, half_escalated)


@pytest.fixture
def server():
    """A server in a thread of its own, whose script a test may change."""
    with LoopThread() as loop:
        served = OpenAIServer(by_text())
        loop.submit(served.__aenter__()).result()
        yield served
        loop.submit(served.__aexit__()).result()


@pytest.fixture
def classified(red_ray, run, test_file, tmp_path):
    """Classifies the test file; the result as JSON and the table."""
    target = tmp_path / "done.csv"

    def go(*args):
        given = ("--input", test_file, "--output", target, "--overwrite", "--json")
        result = red_ray("classify", run.path, *given, *args)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout), pd.read_csv(target), result.stderr

    return go


def asking(server, *args):
    return ("--escalate", "--judge", f"openai:m@{server.base_url}", *args)


# --- classify ----------------------------------------------------------------------------------


def test_without_the_option_nobody_is_asked(classified):
    found, table, _ = classified()
    assert found["escalated"] == 24 == list(table.decision).count("escalate")
    assert set(table.source) == {"model"}
    assert found["escalation"] is None


def test_the_judge_is_asked_about_what_is_escalated_and_paid_once(classified, server):
    _, before, _ = classified()
    first, table, _ = classified(*asking(server))
    doubtful = before.decision == "escalate"
    assert server.n_requests == 24
    assert {one.text for one in server.received} == set(before.text[doubtful])
    assert (table.source == "judge").equals(doubtful)
    pd.testing.assert_frame_equal(table[~doubtful], before[~doubtful])
    assert first["by_judge"] == 24 == first["escalation"]["requests"]
    assert first["accepted"] + first["none"] == first["rows"] == 48
    assert (first["escalated"], first["escalation"]["from_ledger"]) == (0, 0)
    again, same, _ = classified(*asking(server))
    assert server.n_requests == 24
    pd.testing.assert_frame_equal(same, table)
    assert (again["escalation"]["requests"], again["escalation"]["from_ledger"]) == (0, 24)


def test_chunks_are_asked_about_one_after_the_other_and_change_nothing(
    classified, server, monkeypatch
):
    _, whole, _ = classified(*asking(server))
    monkeypatch.setattr("red_ray.batch.shards.CHUNK_ROWS", 7)
    found, table, _ = classified(*asking(server))
    assert server.n_requests == 24
    assert found["rows"] == 48
    exact = ["text", "label", "decision", "source", "expert"]
    pd.testing.assert_frame_equal(table[exact], whole[exact])


def test_rows_without_a_text_keep_their_place(red_ray, run, server, tmp_path, corpus):
    rows = [[""], [corpus.test[0]], [" "], *([text] for text in corpus.test[1:6])]
    source, target = write_rows(tmp_path / "in.csv", rows, "text"), tmp_path / "out.csv"
    args = ("--input", source, "--output", target, "--json", *asking(server))
    found = json.loads(red_ray("classify", run.path, *args).stdout)
    assert (found["rows"], found["errors"]) == (8, 2)
    table = pd.read_csv(target)
    assert list(table.error.notna()) == [True, False, True, *[False] * 5]
    assert table.decision.isna().equals(table.error.notna())


def test_a_budget_leaves_texts_unasked_and_says_so(classified, server):
    found, table, told = classified(*asking(server, "--set", "judge.budget_calls=5"))
    assert server.n_requests == 5
    assert found["escalated"] == 19 == list(table.decision).count("escalate")
    assert "budget is used up: 19 texts" in told
    found, _, told = classified(*asking(server, "--set", "judge.budget_calls=24"))
    assert (found["escalated"], server.n_requests) == (0, 24)
    assert "used up" not in told


@pytest.mark.parametrize(
    ("policy", "decision", "source"),
    [("abstain", "abstain", "judge"), ("answer_best", "accept", "model")],
)
def test_the_policy_for_no_result(classified, server, policy, decision, source):
    server.script = steps(then=says("I would say that it is the first one."))
    sets = ("--set", f"router.on_failure={policy}", "--set", "judge.max_attempts=1")
    _, before, _ = classified()
    found, table, _ = classified(*asking(server, *sets))
    doubtful = before.decision == "escalate"
    assert set(table.decision[doubtful]) == {decision}
    assert set(table.source[doubtful]) == {source}
    assert found["abstained"] == (24 if policy == "abstain" else 0)
    assert found["escalation"]["on_failure"] == policy
    assert server.n_requests == 24
    classified(*asking(server, *sets))
    assert server.n_requests == 24, "what could not be read was paid for all the same"


def test_a_judge_that_nobody_can_read_ends_it(
    red_ray, run, test_file, tmp_path, server, monkeypatch
):
    monkeypatch.setattr("red_ray.cli.escalating.MANY", 10)
    server.script = steps(then=says("the first one"))
    target = tmp_path / "done.csv"
    sets = ("--set", "judge.max_attempts=1")
    args = ("--input", test_file, "--output", target, *asking(server, *sets))
    result = red_ray("classify", run.path, *args)
    assert result.exit_code == 1
    assert "none of the judge's 24 answers could be read" in result.stderr.splitlines()[-1]
    assert not list(tmp_path.glob("*done*"))


def test_what_nobody_could_read_is_asked_again_with_more_room(
    red_ray, run, test_file, classified, tmp_path, server, monkeypatch
):
    monkeypatch.setattr("red_ray.cli.escalating.MANY", 10)
    server.script = steps(then=says("the first one"))
    sets = ("--set", "judge.max_attempts=1")
    given = ("--input", test_file, "--output", tmp_path / "none.csv", *asking(server, *sets))
    for _ in range(2):  # the second time from the ledger
        result = red_ray("classify", run.path, *given)
        assert result.exit_code == 1
        assert "none of the judge's 24 answers could be read" in result.stderr.splitlines()[-1]
        assert server.n_requests == 24
    server.script = by_text()
    found, _, _ = classified(*asking(server, *sets, "--set", "judge.max_answer_tokens=64"))
    assert server.n_requests == 48
    assert (found["by_judge"], found["abstained"]) == (24, 0)


def test_a_failure_keeps_what_was_answered(red_ray, run, test_file, tmp_path, server):
    target = tmp_path / "done.csv"
    args = ("--input", test_file, "--output", target)
    server.script = steps(*[ok()] * 6, then=status(401))
    one_by_one = ("--set", "judge.concurrency=1")
    result = red_ray("classify", run.path, *args, *asking(server, *one_by_one))
    assert result.exit_code == 1
    assert "Traceback" not in result.stderr
    assert "run the same command again" in result.stderr
    assert not list(tmp_path.glob("*done*"))
    assert server.n_requests == 7
    server.script = by_text()
    assert red_ray("classify", run.path, *args, *asking(server)).exit_code == 0
    assert server.n_requests == 7 + 24 - 6


def test_a_simulated_judge_looks_the_label_column_up(classified, corpus, red_ray, run, tmp_path):
    found, table, _ = classified("--escalate")  # the run's own judge, which is always right
    assert found["escalation"]["simulated"]
    asked = table[table.source == "judge"]
    named = asked[asked.decision == "accept"]
    assert len(named) > 12
    assert list(named.label) == list(named.input_label)
    source = write_rows(tmp_path / "bare.csv", [[text] for text in corpus.test], "text")
    target = tmp_path / "bare_done.csv"
    args = ("--input", source, "--output", target, "--escalate")
    line = said(red_ray("classify", run.path, *args), 2, "simulated:1.0", "needs the truth")
    assert "'label'" in line
    assert not target.exists()


def test_the_neighbours_judge_needs_no_label(classified):
    found, _, _ = classified("--escalate", "--judge", "neighbours")
    assert found["by_judge"] + found["abstained"] == 24
    assert not found["escalation"]["simulated"]


def test_what_is_printed_names_a_simulated_judge_and_the_price(red_ray, run, test_file, tmp_path):
    args = ("--input", test_file, "--output", tmp_path / "done.csv", "--escalate")
    result = red_ray("classify", run.path, *args)
    assert result.exit_code == 0
    assert "SIMULATED" in result.stdout
    assert "24 requests" in result.stdout
    assert "0 USD" in result.stdout


# --- evaluate ----------------------------------------------------------------------------------


@pytest.fixture
def evaluated(red_ray, run, test_file):
    def go(*args):
        result = red_ray("evaluate", run.path, "--test", test_file, "--json", *args)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    return go


TIMES = ("timing_s", "escalation")


def test_the_curve_is_added_to_the_scorecard(evaluated, run, server):
    plain = evaluated()
    assert plain["escalation"] is None
    args = ("--escalate-share", 0.25, "--judge", f"openai:m@{server.base_url}")
    card = evaluated(*args)
    assert {k: v for k, v in card.items() if k not in TIMES} == {
        k: v for k, v in plain.items() if k not in TIMES
    }
    found = card["escalation"]
    assert [point["escalated"] for point in found["curve"]] == [
        *(0.0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25)
    ]
    assert found["curve"][0]["accuracy"] == card["accuracy"]
    assert found["curve"][0]["accuracy_ci"] == card["accuracy_ci"]
    assert found["curve"][-1]["calls"] == 12 == server.n_requests == found["requests"]
    assert (found["asked"], found["failed"], found["from_ledger"]) == (12, 0, 0)
    assert run.read_json("scorecard.json")["escalation"] == found
    again = evaluated(*args)["escalation"]
    assert server.n_requests == 12
    assert again["curve"] == found["curve"]
    assert (again["requests"], again["from_ledger"]) == (0, 12)


def test_a_judge_that_knows_the_test_labels_is_told_apart(red_ray, run, test_file):
    args = ("--test", test_file, "--escalate-share", 0.5)
    result = red_ray("evaluate", run.path, *args)
    assert result.exit_code == 0, result.output
    assert "SIMULATED" in result.stdout
    curve = run.read_json("scorecard.json")["escalation"]["curve"]
    assert curve[-1]["accuracy"] > curve[0]["accuracy"]
    assert "Escalation" in (run.path / "report.html").read_text()


def test_a_judge_that_fails_leaves_the_plain_scorecard(red_ray, run, test_file, server, evaluated):
    evaluated()
    server.script = steps(then=status(401))
    args = ("--escalate-share", 0.25, "--judge", f"openai:m@{server.base_url}")
    result = red_ray("evaluate", run.path, "--test", test_file, *args)
    assert result.exit_code == 1
    assert "Traceback" not in result.stderr
    card = run.read_json("scorecard.json")
    assert card["escalation"] is None
    assert card["n_test"] == 48


def test_a_judge_that_nobody_can_read_makes_no_curve(red_ray, run, test_file, server, monkeypatch):
    monkeypatch.setattr("red_ray.cli.escalating.MANY", 10)
    server.script = steps(then=says("the first one"))
    args = ("--escalate-share", 0.25, "--judge", f"openai:m@{server.base_url}")
    for _ in range(2):  # the second time from the ledger
        sets = ("--set", "judge.max_attempts=1")
        result = red_ray("evaluate", run.path, "--test", test_file, *args, *sets)
        assert result.exit_code == 1
        assert "none of the judge's 12 answers could be read" in result.stderr.splitlines()[-1]
        assert server.n_requests == 12
        assert run.read_json("scorecard.json")["escalation"] is None


def test_a_curve_ends_where_the_budget_did_and_says_so(red_ray, run, test_file, server):
    args = ("--escalate-share", 0.3, "--judge", f"openai:m@{server.base_url}", "--json")
    sets = ("--set", "judge.budget_calls=3")
    result = red_ray("evaluate", run.path, "--test", test_file, *args, *sets)
    found = json.loads(result.stdout)["escalation"]
    assert server.n_requests == 3 == found["asked"]
    points = [(point["escalated"], point["calls"]) for point in found["curve"]]
    assert points == [(0.0, 0), (0.01, 0), (0.02, 1), (0.05, 2), (3 / 48, 3)]
    assert "budget is used up: 11 test rows were not asked about" in result.stderr
    assert "judge.budget_calls" in result.stderr
    result = red_ray("evaluate", run.path, "--test", test_file, *args)
    assert json.loads(result.stdout)["escalation"]["curve"][-1]["escalated"] == 0.3
    assert "used up" not in result.stderr


# --- mistakes ----------------------------------------------------------------------------------


@pytest.fixture
def refused(red_ray, run, test_file, tmp_path):
    """Runs a command that must end with one line, write nothing and ask nobody."""
    target = tmp_path / "done.csv"
    needed = {
        "classify": ("--input", test_file, "--output", target),
        "evaluate": ("--test", test_file),
    }

    def check(verb, *args, words, run=run):
        before = tree(run.path)
        line = said(red_ray(verb, run.path, *needed[verb], *args), 2, *words)
        assert not target.exists()
        assert tree(run.path) == before
        return line

    return check


def test_to_escalate_without_a_goal(refused, finished):
    words = ("red-ray thresholds", "--goal catch_errors=0.95")
    refused("classify", "--escalate", words=words, run=finished)


WHERE = [("classify", ("--escalate",)), ("evaluate", ("--escalate-share", 0.2))]


@pytest.mark.parametrize(("verb", "args"), WHERE)
def test_to_escalate_without_a_judge(refused, tmp_path, corpus, half_escalated, verb, args):
    config = half_escalated.model.config
    silent = config.model_copy(update={"judge": config.judge.model_copy(update={"spec": None})})
    model = dataclasses.replace(half_escalated.model, config=silent)
    run = write_run(tmp_path / "silent", corpus, dataclasses.replace(half_escalated, model=model))
    refused(verb, *args, words=("without a judge", "--judge"), run=run)


@pytest.mark.parametrize(("verb", "args"), WHERE)
@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--judge", "oracle"), ("unknown judge 'oracle'",)),
        (("--judge", "simulated:2"), ("from 0 to 1",)),
        (("--set", "seed=1"), ("'seed=1'", "only the judge can change")),
        (("--set", "judge.budget=1"), ("judge.budget", "did you mean")),
        (("--set", "judge.budget_calls=0"), ("judge.budget_calls", "got 0")),
        (("--set", "router.on_failure=guess"), ("router.on_failure", "'guess'")),
    ],
)
def test_a_judge_that_cannot_be_asked(refused, verb, args, more, words):
    refused(verb, *args, *more, words=words)


@pytest.mark.parametrize(("verb", "_args"), WHERE)
@pytest.mark.parametrize("more", [("--judge", "neighbours"), ("--set", "judge.top_k=3")])
def test_a_judge_that_nobody_asks(refused, verb, _args, more):
    refused(verb, *more, words=("--escalate",))
