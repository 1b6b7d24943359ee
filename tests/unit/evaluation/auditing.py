"""Items, answers and audits without a model or a network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from red_ray.config import RunConfig, parse_config
from red_ray.data.prepare import LabelledRows
from red_ray.evaluation.audit import AuditFolder, AuditJob, AuditRows, run_audit
from red_ray.evaluation.audit.figures import Answer
from red_ray.evaluation.audit.suite import Item
from red_ray.types import Candidate, Outcome, Question, Verdict
from tests.unit.training.fakes import Corpus, FakeEncoder, make_corpus

OFFERED = ("a", "b", "c", "d")


def big_corpus(per_label: int = 40, *, wrong_every: int | None = 10) -> Corpus:
    """12 labels; each so many-th row carries the label of another one."""
    corpus = make_corpus(per_label=per_label, pool_per_label=0, test_per_label=0)
    labels = list(corpus.labels)
    for row in range(0, len(labels), wrong_every or len(labels) + 1):
        labels[row] = corpus.names[row % len(corpus.names)]
    return replace(corpus, labels=tuple(labels)) if wrong_every else corpus


def audit_config(
    judge: dict[str, object] | None = None, *, seed: int = 42, **audit: object
) -> RunConfig:
    sections = {"router": {"folds": 3}, "judge": judge or {}, "audit": audit}
    return parse_config({"seed": seed, **sections})


def audit_job(corpus: Corpus, config: RunConfig, *specs: str) -> AuditJob:
    source = AuditRows.of(LabelledRows(corpus.texts, corpus.labels), config)
    return AuditJob(source, {corpus.names[0]: "about the first topic"}, specs, config)


def run(job: AuditJob, out: Path, on_progress: Callable[..., None] = lambda *_: None):
    vectors = FakeEncoder().encode(job.source.rows.texts)
    return run_audit(job, vectors, AuditFolder(out), on_progress)


def item(number: int, label: str = "a", *, guess: str = "a", offered=OFFERED, **more) -> Item:
    candidates = tuple(Candidate(one) for one in offered)
    return Item(
        Question(f"text {number}", candidates), label, guess, more.pop("planted", False), **more
    )


def verdict(outcome: Outcome = Outcome.LABEL, label: str | None = None, **more) -> Verdict:
    told = {"requests": 1, "latency_ms": 10.0, "judge": "fake", "key": "k", **more}
    return Verdict(outcome=outcome, label=label, **told)


def answer(of: Item, label: str | None, presented=None, **more) -> Answer:
    """A readable answer: a label, or None for none."""
    outcome = Outcome.NONE if label is None else Outcome.LABEL
    labels = presented or tuple(one.label for one in of.question.candidates)
    return Answer(of, verdict(outcome, label, **more), labels)


def failed(of: Item, outcome: Outcome, **more) -> Answer:
    return Answer(of, verdict(outcome, **more), ())
