"""What training must not know changes nothing in what it makes: files in, model out."""

from __future__ import annotations

import asyncio
import hashlib
import random
from dataclasses import dataclass, replace

import numpy as np
import pytest

from red_ray.bundle import save_bundle
from red_ray.data.inputs import read_inputs, read_test
from red_ray.evaluation.predictions import predict_rows
from red_ray.evaluation.scorecard import RunFacts, scorecard
from red_ray.judges import Ledger, ValidatorPool
from red_ray.training import LocalFleet, PoolValidator, Trained, Trainer, TrainingJob
from red_ray.types import Outcome, Question, Reply
from tests.unit.cli.running import write_rows
from tests.unit.training.fakes import FakeEncoder, run_config

NO_FACTS = RunFacts(iterations=(), judge_spec=None, n_dropped=0, timing_s={})


class HashJudge:
    """Answers by the text alone: what it says cannot come from a hidden label."""

    name = "by-hash"

    def __init__(self) -> None:
        self.asked: list[Question] = []

    async def ask(self, question: Question, complaint: str = "") -> Reply:
        self.asked.append(question)
        options = [*sorted(candidate.label for candidate in question.candidates), None]
        digest = hashlib.sha256(question.text.encode()).digest()
        label = options[digest[0] % len(options)]
        return Reply(Outcome.NONE) if label is None else Reply(Outcome.LABEL, label)

    async def close(self) -> None:
        """Nothing to release."""


class Validator(PoolValidator):
    """The real pool over the real ledger; keeps the questions of each round in their order."""

    def __init__(self, pool: ValidatorPool) -> None:
        super().__init__(pool, HashJudge.name)
        self.rounds: list[list[Question]] = []

    async def validate(self, questions, round_number):
        self.rounds.append(list(questions))
        return await super().validate(questions, round_number)


@dataclass(frozen=True)
class Ran:
    trained: Trained
    rounds: list[list[Question]]
    bundle: str
    predictions: list[tuple[str, float]]


@pytest.fixture
def run(tmp_path, corpus):
    """Reads files as `train` does and runs in process."""
    n_runs = 0

    def go(*, hidden=None, test_labels=None, judge=True) -> Ran:
        nonlocal n_runs
        n_runs += 1
        folder = tmp_path / f"run{n_runs}"
        folder.mkdir()
        labels = hidden or [corpus.hidden[text] for text in corpus.pool]
        train = write_rows(folder / "train.csv", rows(corpus.texts, corpus.labels), *COLUMNS)
        pool = write_rows(folder / "pool.csv", rows(corpus.pool, labels), *COLUMNS)
        named = test_labels or corpus.test_labels
        test = write_rows(folder / "test.csv", rows(corpus.test, named), *COLUMNS)
        config = run_config()
        inputs = read_inputs(config, train, pool, None)
        known = frozenset(inputs.train.labels)
        tested = read_test(config, inputs.seen_keys, known, test=test)
        job = TrainingJob(inputs.train.texts, inputs.train.labels, inputs.pool, {}, config)
        trained, rounds = asyncio.run(train_in_process(job, folder, judge=judge))
        decisions = replace(trained.model, encoder=FakeEncoder()).predict(tested.rows.texts)
        predictions = [(str(one.label), one.confidence) for one in decisions]
        return Ran(trained, rounds, save_bundle(trained.model, folder / "bundle", {}), predictions)

    return go


COLUMNS = ("text", "label")


def rows(texts, labels):
    return list(zip(texts, labels, strict=True))


async def train_in_process(job, folder, *, judge):
    fleet, ledger = LocalFleet(FakeEncoder()), Ledger(folder / "ledger.sqlite")
    pool = ValidatorPool(HashJudge(), ledger, job.config.judge)
    validator = Validator(pool)
    trainer = Trainer(job, fleet, validator if judge else None)
    async for _ in trainer.run():
        pass
    await pool.close()
    ledger.close()
    fleet.close()
    return trainer.result(), validator.rounds


def shuffled(values):
    mixed = list(values)
    random.Random(5).shuffle(mixed)
    assert mixed != list(values)
    return mixed


def test_test_labels_change_no_prediction(run, corpus):
    """Defect 1: the true label never chooses an expert."""
    told, mixed = (
        run(judge=False),
        run(judge=False, test_labels=shuffled(corpus.test_labels)),
    )
    assert mixed.trained.model.subsets == told.trained.model.subsets
    assert mixed.predictions == told.predictions
    assert mixed.bundle == told.bundle


def test_the_pools_hidden_labels_change_nothing_that_is_asked(run, corpus):
    told = run()
    mixed = run(hidden=shuffled(corpus.hidden[text] for text in corpus.pool))
    assert told.rounds[0]
    assert mixed.trained.model.subsets == told.trained.model.subsets
    assert mixed.rounds[0] == told.rounds[0]  # texts, candidates with examples, and order


def test_with_a_judge_that_knows_nothing_the_whole_run_is_the_same(run, corpus):
    told = run()
    mixed = run(
        hidden=shuffled(corpus.hidden[text] for text in corpus.pool),
        test_labels=shuffled(corpus.test_labels),
    )
    assert len(told.rounds) == 3
    assert mixed.rounds == told.rounds
    assert mixed.predictions == told.predictions
    assert mixed.bundle == told.bundle


def test_another_answer_does_show_in_the_bundle(run, corpus, monkeypatch):
    """Else the tests above would hold for a judge that is never heard."""
    told = run()
    monkeypatch.setattr(HashJudge, "ask", nothing)
    assert run().bundle != told.bundle


async def nothing(self, question, complaint=""):
    return Reply(Outcome.NONE)


def test_the_true_label_chooses_no_expert(trained, corpus):
    """Defect 1: permuted test labels leave every prediction; only the stated ceiling moves."""
    texts, encoder = corpus.test, FakeEncoder()
    told = predict_rows(trained.model, texts, corpus.test_labels, (), encoder)
    mixed = predict_rows(trained.model, texts, shuffled(corpus.test_labels), (), encoder)
    np.testing.assert_array_equal(told.proba, mixed.proba)
    np.testing.assert_array_equal(told.none, mixed.none)
    for name in ("majority", "flat", "flat_seed_rows", "experts_only"):
        np.testing.assert_array_equal(told.rivals[name], mixed.rivals[name])
    assert (told.rivals["oracle_routed"] != mixed.rivals["oracle_routed"]).any()


def test_the_ceiling_is_another_figure_than_the_accuracy(trained, corpus):
    """Defect 1: with wrong labels the accuracy falls to chance, the oracle's rows do not."""
    texts, encoder = corpus.test, FakeEncoder()
    mixed = predict_rows(trained.model, texts, shuffled(corpus.test_labels), (), encoder)
    card = scorecard(trained.model, mixed, NO_FACTS)
    assert card["accuracy"] < card["baselines"]["oracle_routed"]
    right = mixed.predicted == mixed.true
    ceiling = mixed.rivals["oracle_routed"] == mixed.true
    assert (right != ceiling).any()


def test_the_experts_that_are_scored_are_those_the_loop_refitted(trained, corpus):
    """Defect 2."""
    model = trained.model
    assert len(model.example_labels) > model.n_seed
    scored = predict_rows(model, corpus.test, corpus.test_labels, (), FakeEncoder())
    before = asyncio.run(seed_only(corpus))
    first = predict_rows(before.model, corpus.test, corpus.test_labels, (), FakeEncoder())
    assert (scored.proba != first.proba).any()
    for expert, at_first in zip(model.experts, before.model.experts, strict=True):
        vectors = FakeEncoder().encode(corpus.test)
        assert (expert.score(vectors) != at_first.score(vectors)).any()


async def seed_only(corpus):
    fleet = LocalFleet(FakeEncoder())
    trainer = Trainer(corpus.job(), fleet, None)
    async for _ in trainer.run():
        pass
    fleet.close()
    return trainer.result()


# --- test rows that training saw ---------------------------------------------------------------


@pytest.fixture
def leaky(tmp_path, corpus):
    """Inputs, and a test file in which 3 training rows and 2 pool rows stand, written otherwise."""
    train = write_rows(tmp_path / "train.csv", rows(corpus.texts, corpus.labels), *COLUMNS)
    pool = write_rows(tmp_path / "pool.csv", [[text] for text in corpus.pool], "text")
    copies = [(f"  {text.upper()} ", label) for text, label in rows(corpus.texts, corpus.labels)]
    seen = copies[:3] + [(text, corpus.hidden[text]) for text in corpus.pool[:2]]
    own = rows(corpus.test, corpus.test_labels)
    test = write_rows(tmp_path / "test.csv", own + seen, *COLUMNS)
    config = run_config()
    return read_inputs(config, train, pool, None), config, test


def test_test_rows_that_training_saw_are_dropped_and_counted(leaky, corpus):
    """Defect 3: the test set is not the pool."""
    inputs, config, test = leaky
    tested = read_test(config, inputs.seen_keys, frozenset(inputs.train.labels), test=test)
    assert tested.n_dropped == 5
    assert tested.rows.texts == corpus.test


def test_the_scorecard_would_tell_a_leak(leaky, trained, corpus):
    """Defect 3: `leaks.train_test` looks at the rows, not at what dropped them."""
    inputs, config, test = leaky
    labels = frozenset(inputs.train.labels)

    def leaks(seen_keys):
        tested = read_test(config, seen_keys, labels, test=test)
        found = predict_rows(
            trained.model, tested.rows.texts, tested.rows.labels, (), FakeEncoder()
        )
        facts = replace(NO_FACTS, n_dropped=tested.n_dropped)
        return scorecard(trained.model, found, facts)["leaks"]

    assert leaks(inputs.seen_keys) == {"train_test": 0, "train_test_dropped": 5}
    assert leaks(frozenset())["train_test"] >= 3
