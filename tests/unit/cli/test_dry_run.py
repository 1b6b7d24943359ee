"""`train --dry-run` says what the judge would be asked and cost, and leaves everything as it is."""

from __future__ import annotations

import json
import re

import pytest

from red_ray.config import JudgeConfig
from red_ray.judges import Ledger, make_judge, question_key
from red_ray.judges.ledger import Kept
from red_ray.judges.prompts import render
from red_ray.types import Candidate, Outcome, Question, Verdict
from tests.unit.cli.running import said, tree, write_rows

PAID = "openai:m@https://api.example.com/v1"
PRICES = "judge.prices={m: {input_usd: 1.5, output_usd: 6}}"


@pytest.fixture(autouse=True)
def no_tokenizer(monkeypatch):
    monkeypatch.setattr(
        "red_ray.training.plan.open_tokenizer", lambda config: lambda text: len(text.split())
    )


@pytest.fixture
def pool_file(tmp_path, corpus):
    return write_rows(tmp_path / "pool.csv", [[text] for text in corpus.pool], "text")


@pytest.fixture
def dry(red_ray, train_file, pool_file, tmp_path):
    def run(*more, judge=PAID, out=tmp_path / "out"):
        options = ("--train", train_file, "--pool", pool_file, "--out", out, "--dry-run")
        return red_ray("train", *options, "--judge", judge, *more)

    return run


def test_it_says_questions_tokens_price_time_and_a_prompt(dry):
    result = dry("--set", PRICES, "--set", "loop.max_iterations=2")
    assert result.exit_code == 0, result.output
    for words in ("at most 73", "72 about the pool of 72 texts", "1 about rows whose label", "USD"):
        assert words in result.stdout
    assert "You classify one short text." in result.stdout
    assert 'Answer with one JSON object and nothing else: {"answer": "<label>"}' in result.stdout
    assert '"enum": [' in result.stdout
    assert "nobody was asked" in result.stderr


@pytest.mark.parametrize("longest", [None, 100])
def test_only_where_answers_are_cut_is_there_a_most_of_tokens_and_price(dry, longest):
    """The number of questions alone has one by itself."""
    cut = ("--set", f"judge.max_answer_tokens={longest}") if longest else ()
    told, _ = dry("--set", PRICES, *cut).stdout.split("The first prompt")
    n_most = 2 * bool(longest)
    for name in ("tokens", "price", "time"):
        assert re.search(rf"^{name} +about \d", told, re.MULTILINE)
    figures = told[told.index("tokens  ") :]
    assert len(re.findall(r"^ +at most \d", figures, re.MULTILINE)) == n_most
    assert figures.count("at most") == n_most
    assert ("judge.max_answer_tokens=100" in figures) == bool(longest)
    assert re.search(r"^questions +at most 73", told, re.MULTILINE)


def test_a_minute_without_room_for_a_prompt_is_a_mistake(dry):
    result = dry("--set", "judge.tokens_per_minute=5")
    assert result.exit_code == 2
    assert "judge.tokens_per_minute=5 is less than one prompt" in result.stderr


def test_nothing_is_written(dry, tmp_path):
    before = tree(tmp_path)
    assert dry().exit_code == 0
    after = tree(tmp_path)
    assert after == before
    assert not (tmp_path / "out").exists()


def test_as_json_it_is_alone_on_stdout(dry):
    plan = json.loads(dry("--json", "--set", PRICES).stdout)
    assert (plan["judge"], plan["simulated"], plan["tokenizer"]) == (PAID, False, None)
    assert plan["questions"]["total"] == 73
    assert plan["cost_usd"] > 0
    assert [message["role"] for message in plan["messages"]] == ["system", "user"]


def test_no_key_is_needed(dry, monkeypatch):
    for key in (None, "", " "):
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)
        if key is not None:
            monkeypatch.setenv("OPENAI_API_KEY", key)
        assert dry().exit_code == 0


def test_without_a_price_it_says_how_to_give_one(dry):
    assert "unknown: set input_usd and output_usd of the model in judge.prices" in dry().stdout
    said(dry("--set", "judge.budget_usd=1"), 2, "price of 'm' is not known")


def test_a_simulated_judge_is_called_so(red_ray, dry, tmp_path, corpus):
    rows = [[text, corpus.hidden[text]] for text in corpus.pool]
    hidden = write_rows(tmp_path / "hidden.csv", rows, "text", "label")
    result = dry("--pool", hidden, judge="simulated:0.9")
    assert "SIMULATED: no language model is asked" in result.stdout
    assert "0 USD" in result.stdout


def test_what_the_ledger_holds_is_said_and_stays(dry, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    judge = make_judge(JudgeConfig(spec=PAID), seed=0, environ={"OPENAI_API_KEY": "k"})
    question = Question("a text", (Candidate("a"), Candidate("b")))
    key = question_key(question, judge.name)
    ledger = Ledger(out / "ledger.sqlite")
    ledger.write([Kept(Verdict(key, Outcome.LABEL, "a", judge.name, 1, 9.0, 777, 33), question)])
    ledger.close()
    before = tree(out)
    result = dry(out=out)
    assert "1 answers of it are in the ledger" in result.stdout
    assert "measured, and used here: 777 a prompt, 33 an answer" in result.stdout
    assert tree(out) == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "give it --judge and --pool"),
        (("--judge", PAID), "give it --judge and --pool"),
        (("--judge", "openai:m"), "is not complete"),
    ],
)
def test_without_a_judge_or_a_pool_there_is_nothing_to_say(
    red_ray, train_file, pool_file, tmp_path, options, words
):
    if "openai:m" in options:
        options = (*options, "--pool", pool_file)
    result = red_ray("train", "--train", train_file, "--out", tmp_path / "o", "--dry-run", *options)
    said(result, 2, words)


def test_a_loop_that_would_ask_nothing_says_so(dry):
    result = dry("--set", "loop.uncertainty_threshold=1")
    assert result.exit_code == 2
    assert "lower loop.uncertainty_threshold=1.0" in result.stderr


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (("loop.samples_per_iteration=100",), "72 about the pool of 72 texts, at most 72 in a r"),
        (("loop.samples_per_iteration=9", "loop.max_iterations=3"), "texts, in 3 rounds of 9 at"),
    ],
)
def test_rounds_are_named_where_they_bind(dry, settings, told):
    options = (part for setting in settings for part in ("--set", setting))
    assert told in dry(*options).stdout


def test_what_the_ledger_answers_is_not_counted(dry, tmp_path, monkeypatch):
    """Of the first round, about which the dry run knows."""
    asked = []
    monkeypatch.setattr(
        "red_ray.training.plan.render", lambda one, real=render: asked.append(one) or real(one)
    )
    once = json.loads(dry("--json", "--set", PRICES).stdout)
    out = tmp_path / "run"
    out.mkdir()
    judge = make_judge(JudgeConfig(spec=PAID), seed=0, environ={"OPENAI_API_KEY": "k"})
    ledger = Ledger(out / "ledger.sqlite")
    some = list({question_key(one, judge.name): one for one in asked}.items())[:20]
    for key, one in some:
        ledger.write([Kept(Verdict(key, Outcome.NONE, None, judge.name, 1, 9.0), one)])
    ledger.close()
    again = json.loads(dry("--json", "--set", PRICES, out=out).stdout)
    assert (once["questions"]["total"], again["questions"]["total"]) == (73, 53)
    assert again["tokens"]["total"] < once["tokens"]["total"]
    assert again["cost_usd"] < once["cost_usd"]
    told = dry(out=out).stdout
    assert "at most 53 new ones" in told
    assert "20 of the first round's are answered in the ledger, and not counted" in told
