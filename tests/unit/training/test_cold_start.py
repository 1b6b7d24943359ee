"""A run that begins with the names of its labels alone."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from red_ray.errors import DataError
from red_ray.evaluation.details import run_details
from red_ray.evaluation.predictions import predict_rows
from red_ray.evaluation.scorecard import RunFacts, scorecard
from red_ray.judges import Ledger, ValidatorPool
from red_ray.training import LocalFleet, PoolValidator, Trainer, TrainingJob
from red_ray.types import FIRST_EXAMPLES, Outcome, Question, Reply
from tests.unit.training.fakes import (
    FakeEncoder,
    FakeValidator,
    accuracy,
    fingerprint,
    labelled,
    make_corpus,
    run_config,
    train,
    truth,
)

LOOP = {"first_examples": 3, "max_iterations": 2}


@pytest.fixture(scope="module")
def corpus():
    return make_corpus(8, per_label=1, pool_per_label=12)


def cold_job(corpus, names=None, **overrides) -> TrainingJob:
    config = run_config(**{"loop": LOOP, **overrides})
    return TrainingJob((), (), corpus.pool, {}, config, names or corpus.names)


@pytest.fixture(scope="module")
def validator(corpus):
    return FakeValidator(truth(corpus))


@pytest.fixture(scope="module")
def trained(corpus, validator):
    return asyncio.run(train(cold_job(corpus), validator))


def test_names_and_a_judge_make_a_model(corpus, trained):
    assert trained.model.labels == corpus.names
    assert accuracy(trained, corpus) > 0.8
    assert all(corpus.hidden[text] == label for text, label in labelled(trained))


def test_every_label_gets_its_first_examples_before_the_loop(corpus, trained):
    first = [one for one in trained.iterations if one.phase == FIRST_EXAMPLES]
    rows = labelled(trained)[: first[-1].n_train]
    counts = {name: sum(label == name for _, label in rows) for name in corpus.names}
    assert min(counts.values()) >= LOOP["first_examples"]
    assert max(counts.values()) < 3 * LOOP["first_examples"]
    assert [one.iteration for one in trained.iterations] == [*range(1, len(trained.iterations) + 1)]
    n_loop = len(trained.iterations) - len(first)
    assert (n_loop, trained.stop_reason) == (LOOP["max_iterations"], "max_iterations")


def test_no_text_is_asked_about_twice_with_the_same_candidates(validator):
    asked = [
        (one.text, frozenset(candidate.label for candidate in one.candidates))
        for questions in validator.rounds
        for one in questions
    ]
    assert len(asked) == len(set(asked))


def test_what_rests_on_the_judge_is_marked_so(corpus, trained):
    model = trained.model
    assert (model.n_seed, model.labelled_by, model.unseen) == (0, "judge", ())
    assert len(model.calibration.right) > 0
    details = run_details(trained, "fake")
    assert (details["labelled_by"], details["n_seed"]) == ("judge", 0)
    assert {point["estimated_accuracy"] for point in details["learning_curve"]} == {None}


def test_a_scorecard_has_no_figure_for_rows_that_nobody_labelled(corpus, trained):
    rows = predict_rows(trained.model, corpus.test, corpus.test_labels, (), FakeEncoder())
    card = scorecard(trained.model, rows, RunFacts((), None, n_dropped=0, timing_s={}))
    assert card["baselines"]["flat_seed_rows"] is card["baselines"]["flat_seed_rows_ci"] is None
    assert card["baselines"]["flat"] > 0.5
    assert card["calibration"]["labelled_by"] == "judge"
    assert card["calibration"]["source"] == "cross_fitted"


def test_a_refused_text_counts_for_no_label_and_one_of_another_label_for_that(corpus):
    """The judge knows two labels and says none to all others."""
    known = set(corpus.names[:2])
    say = truth(corpus)
    validator = FakeValidator(lambda one: label if (label := say(one)) in known else None)
    trained = asyncio.run(train(cold_job(corpus), validator))
    assert {label for text, label in labelled(trained) if text in corpus.hidden} == known
    assert set(trained.model.unseen) == set(corpus.names) - known


def test_a_label_without_a_text_is_kept_by_its_name_and_named(corpus):
    async def messages():
        fleet = LocalFleet(FakeEncoder(), n_threads=1)
        job = cold_job(corpus, (*corpus.names, "family9_topic99"))
        trainer = Trainer(job, fleet, FakeValidator(truth(corpus)))
        told = [step.message async for step in trainer.run()]
        fleet.close()
        return told, trainer.result()

    told, trained = asyncio.run(messages())
    assert any("1 label has no example but the name: family9_topic99" in one for one in told)
    assert trained.model.unseen == ("family9_topic99",)
    assert labelled(trained).count(("family9 topic99", "family9_topic99")) == 1
    vectors = FakeEncoder().encode(["family9 topic99 please"])
    best = trained.model.assess(["family9 topic99 please"], vectors).label_proba.argmax()
    assert trained.model.labels[best] == "family9_topic99"


def test_a_text_that_fits_no_likely_label_is_offered_those_that_lack_examples(corpus):
    """The name of one label says nothing of its texts."""
    odd, hidden = corpus.names[3], dict(corpus.hidden)
    names = tuple("xyzzy" if name == odd else name for name in corpus.names)
    hidden = {text: "xyzzy" if name == odd else name for text, name in hidden.items()}
    renamed = replace(corpus, names=names, hidden=hidden, texts=(), labels=())
    judge = {"top_k": 2, "gold_share": 0.0}
    loop = {"first_examples": 3, "max_iterations": 6}
    job = cold_job(renamed, names, judge=judge, loop=loop)
    trained = asyncio.run(train(job, FakeValidator(truth(renamed))))
    assert sum(label == "xyzzy" for _, label in labelled(trained)) >= 3
    assert trained.model.unseen == ()


@pytest.mark.parametrize("budget", [20, 40])
def test_the_budget_is_kept(corpus, budget):
    validator = FakeValidator(truth(corpus), budget=budget)
    trained = asyncio.run(train(cold_job(corpus), validator))
    assert len(validator.asked) == budget
    assert trained.stop_reason == "budget"
    assert sum(one.n_requests for one in trained.iterations) == budget


def test_too_few_answers_to_begin_with_are_told_in_one_line(corpus):
    validator = FakeValidator(truth(corpus), budget=3)
    with pytest.raises(DataError, match=r"found 3 examples .* raise judge\.budget_calls"):
        asyncio.run(train(cold_job(corpus), validator))


def test_without_a_judge_nothing_can_begin(corpus):
    with pytest.raises(DataError, match="8 labels have no row, and no judge finds them any"):
        asyncio.run(train(cold_job(corpus)))


def test_a_failure_says_nothing_about_a_text_the_first_time(corpus):
    failed: set[str] = set()
    say = truth(corpus)

    def answer(question: Question):
        if question.text not in failed and len(failed) < 4:
            failed.add(question.text)
            return Outcome.TIMEOUT
        return say(question)

    validator = FakeValidator(answer)
    trained = asyncio.run(train(cold_job(corpus), validator))
    assert failed <= {text for text, _ in labelled(trained)}
    assert sum(one.n_failed for one in trained.iterations) == 4


class Paid:
    """Tells the truth, and counts what it was paid for."""

    name = "paid"

    def __init__(self, corpus) -> None:
        self.n_asked = 0
        self._say = truth(corpus)

    async def ask(self, question: Question, complaint: str = "") -> Reply:
        self.n_asked += 1
        label = self._say(question)
        return Reply(Outcome.NONE) if label is None else Reply(Outcome.LABEL, label)

    async def close(self) -> None:
        """Nothing to release."""


async def run_until(corpus, judge: Paid, ledger: Ledger, n_rounds: int | None):
    """Train; with `n_rounds` stop after so many of them, as a kill would."""
    job = cold_job(corpus)
    pool = ValidatorPool(judge, ledger, job.config.judge)
    fleet = LocalFleet(FakeEncoder(), n_threads=1)
    trainer = Trainer(job, fleet, PoolValidator(pool, judge.name, "run"))
    n_done = 0
    async for step in trainer.run():
        n_done += step.iteration is not None
        if n_done == n_rounds:
            break
    await pool.close()
    fleet.close()
    return trainer.result() if n_rounds is None else None


@pytest.mark.parametrize("killed_after", [1, 4])
def test_killed_and_resumed_it_comes_to_the_same_and_pays_nothing_twice(
    corpus, tmp_path, killed_after
):
    judges = Paid(corpus), Paid(corpus)
    with_kill, whole = Ledger(tmp_path / "a.sqlite"), Ledger(tmp_path / "b.sqlite")
    asyncio.run(run_until(corpus, judges[0], with_kill, killed_after))
    assert judges[0].n_asked > 0
    resumed = asyncio.run(run_until(corpus, judges[0], with_kill, None))
    undisturbed = asyncio.run(run_until(corpus, judges[1], whole, None))
    assert fingerprint(resumed, corpus) == fingerprint(undisturbed, corpus)
    assert judges[0].n_asked == judges[1].n_asked
    with_kill.close()
    whole.close()


def test_labels_with_rows_are_left_alone_and_the_others_found(corpus):
    """Part of the labels have rows, as after a warm start: the last row a judge gave."""
    rich = make_corpus(8, per_label=4, pool_per_label=12)
    mine = [at for at, label in enumerate(rich.labels) if label in rich.names[:5]]
    job = TrainingJob(
        texts=tuple(rich.texts[at] for at in mine),
        labels=tuple(rich.labels[at] for at in mine),
        pool=rich.pool,
        descriptions={},
        config=run_config(loop=LOOP),
        label_set=rich.names,
        n_judged=1,
    )
    trained = asyncio.run(train(job, FakeValidator(truth(rich))))
    model = trained.model
    assert (model.n_seed, model.labels) == (len(mine) - 1, rich.names)
    assert model.labelled_by == "user and judge"
    first = [one for one in trained.iterations if one.phase == FIRST_EXAMPLES]
    found = labelled(trained)[len(mine) : first[-1].n_train]
    assert {label for _, label in found} >= set(rich.names[5:])
    assert accuracy(trained, rich) > 0.8
