"""A dry run: the questions are the run's own, the figures follow from them, and nobody is asked."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Sequence
from dataclasses import replace

import pytest

from red_ray.config import Price
from red_ray.errors import ConfigError
from red_ray.judges import Ledger, question_key
from red_ray.judges.ledger import Kept, Received, Sent, utc_now
from red_ray.judges.prompts import answer_schema, presented, render
from red_ray.training import TrainingJob, plan
from red_ray.training.plan import Known, Plan, first_round, known_of, make_plan, open_tokenizer
from red_ray.types import Candidate, Outcome, Progress, Question, Verdict
from tests.unit.training.fakes import FakeValidator, RecordingFleet, run_config, train, truth

LABELS = ("a", "b", "long_label")
QUESTION = Question("what now?", tuple(map(Candidate, LABELS)))
FREE = Price(input_usd=0, output_usd=0)


def draw(job: TrainingJob, told: list[Progress] | None = None) -> tuple[Question, ...]:
    fleet = RecordingFleet()
    try:
        steps = [] if told is None else told
        return asyncio.run(first_round(job, fleet, "fake", steps.append))
    finally:
        fleet.close()


@pytest.fixture(scope="module")
def job(corpus):
    return corpus.job(judge={"gold_share": 0.25}, loop={"uncertainty_threshold": 0.1})


@pytest.fixture(scope="module")
def drawn(job):
    return draw(job)


def test_the_questions_are_those_that_the_run_asks_first(job, corpus, drawn):
    """Planted ones among them, and in the order in which a judge is shown the candidates."""
    validator = FakeValidator(truth(corpus))
    asyncio.run(train(job, validator))
    seed = job.config.seed
    asked = [presented(one, question_key(one, "fake"), seed) for one in validator.rounds[0]]
    assert list(drawn) == asked
    assert len(drawn) == 15


def test_it_fits_once_and_ends_with_the_first_questions(job):
    fleet, told = RecordingFleet(), []
    asyncio.run(first_round(job, fleet, "fake", told.append))
    fleet.close()
    assert [len(expert.fits) for expert in fleet.experts] == [1, 1, 1]
    assert [step.stage for step in told] == ["encode", "partition", "fit", "calibrate"]


def test_of_a_large_pool_some_texts_are_looked_at_drawn_by_the_seed(job, monkeypatch):
    monkeypatch.setattr(plan, "MAX_POOL", 20)
    told: list[Progress] = []
    first = draw(job, told)
    assert told[0].total == len(job.texts) + 20
    assert draw(job) == first
    config = job.config.model_copy(update={"seed": 1})
    assert {q.text for q in draw(replace(job, config=config))} != {q.text for q in first}


def test_what_the_loop_would_not_ask_is_not_drawn(corpus):
    assert draw(corpus.job(loop={"uncertainty_threshold": 1.0})) == ()


def test_questions_about_descriptions_are_none_of_the_first_round(corpus):
    asked = draw(corpus.job(judge={"describe_labels": True, "spec": "ollama:m"}))
    assert {one.mode for one in asked} == {"choose"}


def test_paraphrases_are_none_of_the_first_round(corpus):
    judge = {"paraphrases": 8, "spec": "ollama:m"}
    asked = draw(corpus.job(judge=judge))
    assert {one.mode for one in asked} == {"choose"}
    assert asked == draw(corpus.job(judge={"spec": "ollama:m"}))


def a_job(n_pool: int = 1_000, **overrides: object) -> TrainingJob:
    texts = tuple(f"text {i}" for i in range(20))
    labels = (*(LABELS[i % 2] for i in range(19)), "long_label")
    pool = tuple(f"pool {i}" for i in range(n_pool))
    return TrainingJob(texts, labels, pool, {"a": "described"}, run_config(**overrides))


def words(text: str) -> int:
    return len(text.split())


def planned(
    job: TrainingJob,
    asked: Sequence[Question] = (QUESTION,),
    *,
    price: Price | None = FREE,
    known: Known | None = None,
) -> Plan:
    return make_plan(job, asked, count=words, price=price, known=known or Known())


def counts(job: TrainingJob, **given: Known) -> tuple[int, int, int, int]:
    questions = planned(job, **given).questions
    return questions.about_pool, questions.planted, questions.descriptions, questions.total


@pytest.mark.parametrize(
    ("n_pool", "share", "expected"),
    [
        (1_000, 0.0, (36, 0, 0, 36)),
        (30, 0.0, (30, 0, 0, 30)),
        (1_000, 0.25, (36, 9, 0, 45)),
        (1_000, 0.5, (36, 18, 0, 54)),
    ],
)
def test_it_counts_the_rounds_the_pool_and_the_planted_questions(n_pool, share, expected):
    """Three rounds of twelve."""
    assert counts(a_job(n_pool, judge={"gold_share": share})) == expected


def test_no_more_are_planted_than_there_are_rows_for_it():
    """Nineteen of twenty: a label's only row is never asked about."""
    job = a_job(judge={"gold_share": 0.5}, loop={"max_iterations": 99})
    assert counts(job)[1] == 19


def test_labels_that_nobody_described_are_asked_about():
    assert counts(a_job(judge={"describe_labels": True}))[2:] == (2, 38)


@pytest.mark.parametrize(("wanted", "n"), [(0, 0), (2, 1), (12, 6), (99, 20)])
def test_what_poor_labels_lack_is_asked_to_be_written(wanted, n):
    """Ten rows, nine, and one, which can be said again once."""
    questions = planned(a_job(judge={"paraphrases": wanted})).questions
    assert (questions.paraphrases, questions.total) == (n, 36 + n)


def test_of_a_cold_start_as_many_as_there_may_be():
    """A label lacks as many texts as it has where it has half of them."""
    job = replace(a_job(judge={"paraphrases": 7}), label_set=("x", "y"))
    assert planned(job).questions.paraphrases == 3 * 3


HUNDRED = Known(prompt_tokens=90.0, answer_tokens=10.0)
BUDGETS = [
    ({"budget_calls": 30}, Known(), 30, "judge.budget_calls"),
    ({"budget_calls": 30}, Known(requests=12), 18, "judge.budget_calls"),
    ({"budget_calls": 30}, Known(requests=99), 0, "judge.budget_calls"),
    ({"budget_calls": 36}, Known(), 36, ""),
    ({"budget_tokens": 1_000}, HUNDRED, 10, "judge.budget_tokens"),
    ({"budget_tokens": 1_000}, replace(HUNDRED, tokens=250), 7, "judge.budget_tokens"),
    ({"budget_usd": 0.0021}, HUNDRED, 21, "judge.budget_usd"),
    ({"budget_usd": 0.0021}, replace(HUNDRED, cost_usd=0.001), 11, "judge.budget_usd"),
    ({"budget_calls": 9, "budget_tokens": 800}, HUNDRED, 8, "judge.budget_tokens"),
    ({"budget_calls": 8, "budget_tokens": 900}, HUNDRED, 8, "judge.budget_calls"),
]


@pytest.mark.parametrize(("judge", "known", "n_left", "cut_by"), BUDGETS)
def test_a_budget_ends_it_there(judge, known, n_left, cut_by):
    """What earlier runs spent counts: a budget is for the life of the ledger."""
    job = a_job(judge=judge)
    questions = planned(job, known=known, price=Price(input_usd=1, output_usd=1)).questions
    assert (questions.total, questions.cut_by) == (n_left, cut_by)


def test_tokens_are_counted_on_the_prompts_as_sent_and_their_schema():
    longer = replace(QUESTION, text="one two three four five")
    found = planned(a_job(), [QUESTION, longer]).tokens
    sent = [message["content"] for message in render(QUESTION)]
    n_words = sum(map(words, [*sent, json.dumps(answer_schema(QUESTION))]))
    assert (found.prompt, found.longest_prompt) == (n_words + 1.5, n_words + 3)


def test_answers_are_counted_on_every_label_and_none():
    job = replace(a_job(), labels=("a b c d",) + ("e",) * 19)
    found = planned(job).tokens
    assert found.longest_answer == 5
    assert found.answer == pytest.approx((5 + 2 + 2) / 3)


def test_an_answer_of_verify_is_yes_or_no():
    job = a_job(judge={"question": "verify"})
    asked = Question("now", (Candidate("a label of many words"),), "verify")
    assert planned(job, [asked]).tokens.longest_answer == 2


def test_all_tokens_are_those_of_all_questions():
    found = planned(a_job())
    assert found.tokens.total == 36 * (found.tokens.prompt + found.tokens.answer)


def test_what_the_server_measured_is_used_and_the_count_still_told():
    known = Known(prompt_tokens=1_000.0, answer_tokens=50.0)
    found = planned(a_job(), known=known, price=Price(input_usd=2.0, output_usd=8.0))
    assert found.tokens.total == 36 * 1_050
    assert found.cost_usd == pytest.approx(36 * (1_000 * 2 + 50 * 8) / 1e6)
    assert found.tokens.prompt == planned(a_job()).tokens.prompt


def test_without_a_longest_answer_there_is_no_ceiling():
    assert planned(a_job()).ceiling is None


CUT = {"max_answer_tokens": 20}
CENT = Price(input_usd=100.0, output_usd=1_000.0)


@pytest.mark.parametrize(
    ("judge", "known", "prompt", "left"),
    [
        (CUT, Known(), 0, math.inf),
        (CUT, Known(prompt_tokens=999.5, answer_tokens=1.0), 1_000, math.inf),
        (CUT | {"budget_tokens": 5_000}, replace(Known(), tokens=900), 0, 4_100),
        (CUT | {"budget_tokens": 5_000}, replace(Known(), tokens=9_000), 0, 0),
    ],
)
def test_the_ceiling_is_of_the_longest_prompts_and_answers(judge, known, prompt, left):
    longer = replace(QUESTION, text="one two three four five")
    found = planned(a_job(judge=judge), [QUESTION, longer], price=CENT, known=known)
    n, prompt = found.questions.total, prompt or found.tokens.longest_prompt
    assert found.ceiling.tokens == min(n * (prompt + 20), left)
    assert found.ceiling.cost_usd == pytest.approx(n * (prompt * 1e-4 + 20 * 1e-3))


def test_the_ceiling_of_a_price_is_the_budget_or_unknown():
    job = a_job(judge=CUT | {"budget_usd": 0.5})
    assert planned(job, price=CENT, known=Known(cost_usd=0.25)).ceiling.cost_usd == 0.25
    assert planned(job, price=None).ceiling.cost_usd is None


def test_a_minute_that_has_no_room_for_a_prompt_is_refused():
    longest = planned(a_job()).tokens.longest_prompt
    planned(a_job(judge={"tokens_per_minute": longest}))
    narrow = a_job(judge={"tokens_per_minute": longest - 1})
    match = rf"tokens_per_minute={longest - 1} is less than one prompt of {longest} tokens"
    with pytest.raises(ConfigError, match=match):
        planned(narrow)


@pytest.mark.parametrize(("price", "cost_usd"), [(None, None), (FREE, 0.0)])
def test_a_price_may_be_unknown_or_nothing(price, cost_usd):
    assert planned(a_job(), price=price).cost_usd == cost_usd


@pytest.mark.parametrize(
    ("judge", "known", "expected"),
    [
        ({"concurrency": 4}, Known(), (9.0, "latency")),
        ({"concurrency": 4}, Known(latency_s=2.0), (18.0, "latency")),
        ({"requests_per_minute": 6}, Known(), (360.0, "judge.requests_per_minute")),
        (
            {"tokens_per_minute": 600, "requests_per_minute": 6},
            Known(prompt_tokens=150.0, answer_tokens=50.0),
            (720.0, "judge.tokens_per_minute"),
        ),
    ],
)
def test_the_time_is_that_of_the_narrowest_limit(judge, known, expected):
    found = planned(a_job(judge=judge), known=known)
    assert (found.time_s, found.bound_by) == expected


def test_it_shows_the_first_prompt_and_its_schema():
    found = planned(a_job(), [QUESTION, replace(QUESTION, text="another")])
    assert found.messages == render(QUESTION)
    assert found.schema == answer_schema(QUESTION)


@pytest.fixture
def ledger(tmp_path):
    opened = Ledger(tmp_path / "ledger.sqlite")
    yield opened
    opened.close()


def bought(ledger, number: int, outcome: Outcome, tokens=(100, 10), judge="fake", requests=1):
    question = replace(QUESTION, text=f"text {number}")
    key = question_key(question, judge)
    label = "a" if outcome is Outcome.LABEL else None
    verdict = Verdict(key, outcome, label, judge, requests, 1.0, *tokens)
    latency_ms = 100.0 * (number + 1)
    ledger.write(
        [
            Sent(f"{judge}{number}", key, judge, "", utc_now(), sum(tokens), 0.5),
            Received(f"{judge}{number}", outcome.value, *tokens, 0.25, latency_ms),
            Kept(verdict, question),
        ]
    )


def test_a_ledger_tells_what_its_judge_measured(ledger):
    bought(ledger, 0, Outcome.LABEL)
    bought(ledger, 1, Outcome.NONE, (300, 50), requests=2)
    bought(ledger, 2, Outcome.ERROR, (0, 0))
    bought(ledger, 3, Outcome.LABEL, (9_999, 9_999), judge="another")
    found = known_of(ledger, "fake")
    assert found.n_answers == 2
    assert (found.requests, found.cost_usd) == (3, 0.75)
    assert found.prompt_tokens == pytest.approx(400 / 3)
    assert found.answer_tokens == pytest.approx(60 / 3)
    assert found.latency_s == pytest.approx(0.2)


def test_an_empty_ledger_tells_nothing(ledger):
    assert known_of(ledger, "fake") == Known()


def test_a_judge_that_counts_no_tokens_measured_none(ledger):
    bought(ledger, 0, Outcome.LABEL, (0, 0))
    found = known_of(ledger, "fake")
    assert (found.n_answers, found.prompt_tokens, found.answer_tokens) == (1, None, None)


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory):
    """One token a word, and as small a model's limits as there can be."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.enable_truncation(4)
    folder = tmp_path_factory.mktemp("tokenizer")
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="[UNK]", model_max_length=4
    )
    wrapped.save_pretrained(folder)
    return folder


def test_a_tokenizer_of_a_folder_counts_whole_prompts(tokenizer_folder):
    count = open_tokenizer(run_config(judge={"tokenizer": str(tokenizer_folder)}))
    assert count("one two " * 500) == 1_000
    assert count("") == 0


@pytest.mark.parametrize("damage", ["missing", "empty", "broken"])
def test_a_tokenizer_that_cannot_be_loaded_is_told_in_one_line(tmp_path, damage):
    folder = tmp_path / "tokenizer"
    if damage != "missing":
        folder.mkdir()
    if damage == "broken":
        (folder / "tokenizer.json").write_text("{")
    with pytest.raises(ConfigError, match=r"judge\.tokenizer='.*cannot be loaded") as caught:
        open_tokenizer(run_config(judge={"tokenizer": str(folder)}))
    assert "\n" not in str(caught.value)


def test_of_the_first_round_only_what_is_new_is_counted(ledger, monkeypatch):
    asked = [replace(QUESTION, text=f"pool {number}") for number in range(4)]
    for number, text in enumerate(("pool 1", "pool 3", "elsewhere")):
        one = replace(QUESTION, text=text)
        key = question_key(one, "fake")
        ledger.write([Kept(Verdict(key, Outcome.LABEL, "a", "fake", 1, 1.0), one)])
        assert known_of(ledger, "fake", asked).n_answers == number + 1
    known = known_of(ledger, "fake", asked)
    assert known.n_of_first == 2
    questions = planned(a_job(30), asked, known=known).questions
    assert (questions.about_pool, questions.free, questions.total) == (30, 2, 28)
    monkeypatch.setattr(plan, "MAX_POOL", 20)  # then the round is not the run's own
    assert planned(a_job(30), asked, known=known).questions.total == 30
