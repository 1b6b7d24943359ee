"""Labels that nobody described are described by the judge, once."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from red_ray.judges import Ledger, ValidatorPool
from red_ray.training import LocalFleet, PoolValidator, Trainer
from red_ray.types import Outcome, Question, Reply
from tests.unit.training.fakes import FakeEncoder, make_corpus, truth


class Writer:
    """Describes a label when asked to, else tells the truth; keeps what it was asked."""

    name = "writer"

    def __init__(self, answer) -> None:
        self._answer = answer
        self.asked: list[Question] = []

    async def ask(self, question: Question, complaint: str = "") -> Reply:
        self.asked.append(question)
        if question.mode == "describe":
            return Reply(Outcome.LABEL, f"Texts about {question.text}.")
        label = self._answer(question)
        return Reply(Outcome.NONE) if label is None else Reply(Outcome.LABEL, label)

    async def close(self) -> None:
        """Nothing to release."""

    def of_mode(self, mode: str) -> list[Question]:
        return [question for question in self.asked if question.mode == mode]


@pytest.fixture
def corpus():
    return make_corpus(8)


def run(job, ledger: Ledger, judge: Writer):
    async def to_the_end():
        pool = ValidatorPool(judge, ledger, job.config.judge)
        fleet = LocalFleet(FakeEncoder(), n_threads=1)
        trainer = Trainer(job, fleet, PoolValidator(pool, judge.name, "run"))
        async for _ in trainer.run():
            pass
        await pool.close()
        fleet.close()
        return trainer.result()

    return asyncio.run(to_the_end())


def test_they_are_bought_once_and_stand_in_every_question_and_the_model(corpus, tmp_path):
    """Defect 23: the reference buys them again at every start."""
    job = corpus.job(judge={"describe_labels": True})
    given = {corpus.names[0]: "as the user says"}
    job = replace(job, descriptions=given)
    ledger = Ledger(tmp_path / "ledger.sqlite")
    first, second = Writer(truth(corpus)), Writer(truth(corpus))
    trained, again = run(job, ledger, first), run(job, ledger, second)
    ledger.close()
    assert sorted(q.text for q in first.of_mode("describe")) == sorted(corpus.names[1:])
    assert second.asked == []
    expected = {name: given.get(name, f"Texts about {name}.") for name in corpus.names}
    for question in first.of_mode("choose"):
        assert all(one.description == expected[one.label] for one in question.candidates)
    assert dict(zip(trained.model.labels, trained.model.descriptions, strict=True)) == expected
    assert again.model.descriptions == trained.model.descriptions


def test_their_examples_are_training_rows_of_the_label(corpus, tmp_path):
    ledger, judge = Ledger(tmp_path / "ledger.sqlite"), Writer(truth(corpus))
    run(corpus.job(judge={"describe_labels": True}), ledger, judge)
    ledger.close()
    rows = set(zip(corpus.texts, corpus.labels, strict=True))
    for question in judge.of_mode("describe"):
        (candidate,) = question.candidates
        assert 0 < len(candidate.examples) <= 5
        assert {(text, candidate.label) for text in candidate.examples} <= rows


def test_nobody_is_asked_to_describe_by_default(corpus, tmp_path):
    ledger, judge = Ledger(tmp_path / "ledger.sqlite"), Writer(truth(corpus))
    run(corpus.job(), ledger, judge)
    ledger.close()
    assert judge.of_mode("choose")
    assert not judge.of_mode("describe")
