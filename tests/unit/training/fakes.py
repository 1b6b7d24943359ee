"""A corpus with many labels, an encoder for it, and a validator and a fleet that tell on a run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from red_ray.config import RunConfig, parse_config
from red_ray.core.partition import Subsets
from red_ray.experts import Expert, ExpertSpec, FitRows
from red_ray.judges.base import question_key
from red_ray.training import LocalFleet, Trained, Trainer, TrainingJob
from red_ray.training.fleet import Crew, ExpertHandle
from red_ray.types import Outcome, Question, Verdict

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

DIM = 24
FILLERS = ("please", "today", "again", "about", "help", "still", "now", "thanks")


@cache
def direction(word: str) -> Floats:
    """A unit vector that belongs to `word`, the same in every process."""
    seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "big")
    vector = np.random.default_rng(seed).standard_normal(DIM)
    return np.asarray(vector / np.linalg.norm(vector), dtype=np.float32)


class FakeEncoder:
    """A text lies where its words lie, and a little beside it."""

    def __init__(self, spread: float = 0.5) -> None:
        self.spread = spread

    def encode(self, texts: Sequence[str]) -> Floats:
        rows = [self._vector(text) for text in texts]
        return np.stack(rows) if rows else np.zeros((0, DIM), dtype=np.float32)

    def _vector(self, text: str) -> Floats:
        words = [direction(word) for word in text.split() if word not in FILLERS]
        vector = np.sum(words, axis=0) + self.spread * direction(f"noise of {text}")
        return np.asarray(vector / np.linalg.norm(vector), dtype=np.float32)


@dataclass(frozen=True)
class Corpus:
    """Labels come in families of four that share a word; `hidden` holds the pool's labels."""

    names: tuple[str, ...]
    texts: tuple[str, ...]
    labels: tuple[str, ...]
    pool: tuple[str, ...]
    hidden: dict[str, str]
    test: tuple[str, ...]
    test_labels: tuple[str, ...]

    def job(self, **overrides: object) -> TrainingJob:
        return TrainingJob(self.texts, self.labels, self.pool, {}, run_config(**overrides))


def make_corpus(
    n_labels: int = 12, *, per_label: int = 5, pool_per_label: int = 6, test_per_label: int = 4
) -> Corpus:
    names = tuple(f"family{i // 4}_topic{i:02d}" for i in range(n_labels))
    rng = np.random.default_rng(7)
    total = per_label + pool_per_label + test_per_label
    made = {name: [_text(name, number, rng) for number in range(total)] for name in names}
    seeds = [(text, name) for name in names for text in made[name][:per_label]]
    end = per_label + pool_per_label
    pool = [(text, name) for name in names for text in made[name][per_label:end]]
    test = [(text, name) for name in names for text in made[name][end:]]
    return Corpus(
        names=names,
        texts=tuple(text for text, _ in seeds),
        labels=tuple(name for _, name in seeds),
        pool=tuple(text for text, _ in pool),
        hidden=dict(pool),
        test=tuple(text for text, _ in test),
        test_labels=tuple(name for _, name in test),
    )


def _text(name: str, number: int, rng: np.random.Generator) -> str:
    """A label's words and fillers; now and then the topic is not named, or a sibling's is."""
    family, topic = name.split("_")
    sibling = f"topic{4 * int(family[6:]) + rng.integers(4):02d}"
    named = topic if rng.random() < 0.8 else f"stray{rng.integers(6)}"
    other = sibling if rng.random() < 0.2 else f"stray{rng.integers(6)}"
    fillers = rng.choice(FILLERS, size=2)
    return f"{fillers[0]} {family} {named} {other} {fillers[1]} {topic}{number % 4} n{number}"


def run_config(**overrides: object) -> RunConfig:
    """A small run of few folds; `overrides` are sections, as in a configuration file."""
    sections: dict[str, dict[str, object]] = {
        "partition": {"subset_size": 4},
        "router": {"folds": 3},
        "judge": {"gold_share": 0.0},
        "loop": {"samples_per_iteration": 12, "max_iterations": 3, "uncertainty_threshold": 0.0},
    }
    for name, section in overrides.items():
        known = sections.get(name)
        sections[name] = {**known, **section} if known else section  # type: ignore[dict-item]
    return parse_config(sections)


Answer = Callable[[Question], str | Outcome | None]


def truth(corpus: Corpus) -> Answer:
    """Names the hidden label, or a seed row's own, where it is offered, else none."""
    known = corpus.hidden | dict(zip(corpus.texts, corpus.labels, strict=True))

    def answer(question: Question) -> str | None:
        offered = {candidate.label for candidate in question.candidates}
        hidden = known[question.text]
        return hidden if hidden in offered else None

    return answer


class FakeValidator:
    """Answers at once by `answer`: a label, None for no label, or a failed outcome.

    Keeps the questions of each round; `budget` is the number of questions it answers at most.
    """

    judge_name = "fake"

    def __init__(
        self,
        answer: Answer,
        *,
        budget: int | None = None,
        arrival: Callable[[list[Verdict]], list[Verdict]] = list,
    ) -> None:
        self.rounds: list[list[Question]] = []
        self._answer = answer
        self._budget = budget
        self._arrival = arrival

    @property
    def asked(self) -> list[str]:
        return [question.text for questions in self.rounds for question in questions]

    async def validate(self, questions: Sequence[Question], round_number: int) -> Sequence[Verdict]:
        left = None if self._budget is None else self._budget - len(self.asked)
        self.rounds.append(list(questions)[:left])
        return self._arrival([self._verdict(question) for question in self.rounds[-1]])

    async def stats(self) -> None:
        return None

    def _verdict(self, question: Question) -> Verdict:
        said = self._answer(question)
        if isinstance(said, Outcome):
            outcome, label = said, None
        else:
            outcome, label = (Outcome.NONE if said is None else Outcome.LABEL), said
        key = question_key(question, self.judge_name)
        return Verdict(key, outcome, label, self.judge_name, requests=1, latency_ms=1.0)


@dataclass
class Told:
    """What an expert was asked to do, in order."""

    fits: list[FitRows] = field(default_factory=list)
    crossfits: list[FitRows] = field(default_factory=list)
    scored: list[Ints] = field(default_factory=list)


class _Recorded:
    """Passes everything on and keeps what was asked."""

    def __init__(self, handle: ExpertHandle, told: Told) -> None:
        self._handle = handle
        self._told = told

    async def fit(self, data: FitRows) -> None:
        self._told.fits.append(data)
        await self._handle.fit(data)

    async def crossfit(self, data: FitRows) -> Floats:
        self._told.crossfits.append(data)
        return await self._handle.crossfit(data)

    async def score(self, rows: Ints) -> Floats:
        self._told.scored.append(rows)
        return await self._handle.score(rows)

    async def export(self) -> Expert:
        return await self._handle.export()


class RecordingFleet(LocalFleet):
    """A local fleet that tells what the experts of its last crew were asked.

    `reductions` holds the calls of UMAP, which is replaced: importing it costs seconds.
    """

    def __init__(self) -> None:
        super().__init__(FakeEncoder(), n_threads=1)
        self.experts: list[Told] = []
        self.gate = Told()
        self.specs: list[ExpertSpec] = []
        self.vectors = np.zeros((0, DIM), dtype=np.float32)
        self.n_opened = 0
        self.reductions: list[tuple[int, int]] = []

    async def open(
        self,
        config: RunConfig,
        vectors: Floats,
        texts: Sequence[str],
        subsets: Subsets,
        specs: Sequence[ExpertSpec],
        gate: ExpertSpec | None,
    ) -> Crew:
        crew = await super().open(config, vectors, texts, subsets, specs, gate)
        self.n_opened += 1
        self.vectors, self.specs = vectors, list(specs)
        self.experts, self.gate = [Told() for _ in specs], Told()
        pairs = zip(crew.experts, self.experts, strict=True)
        experts = tuple(_Recorded(handle, told) for handle, told in pairs)
        recorded_gate = _Recorded(crew.gate, self.gate) if crew.gate is not None else None
        return replace(crew, experts=experts, gate=recorded_gate)

    async def reduce(self, embeddings: Floats, n_dims: int, seed: int) -> Floats:
        self.reductions.append((len(embeddings), n_dims))
        return embeddings[:, :n_dims]


async def train(
    job: TrainingJob,
    validator: FakeValidator | None = None,
    *,
    fleet: LocalFleet | None = None,
    n_threads: int = 1,
) -> Trained:
    fleet = fleet or LocalFleet(FakeEncoder(), n_threads=n_threads)
    trainer = Trainer(job, fleet, validator)
    try:
        async for _ in trainer.run():
            pass
    finally:
        fleet.close()
    return trainer.result()


def labelled(trained: Trained) -> list[tuple[str, str]]:
    """The texts and labels that a run ended with."""
    model = trained.model
    names = [model.labels[label] for label in model.example_labels]
    return list(zip(model.example_texts, names, strict=True))


def fingerprint(trained: Trained, corpus: Corpus) -> str:
    """Changes if a bit of the distributions over the test texts does, or the rows learned."""
    vectors = FakeEncoder().encode(corpus.test)
    digest = hashlib.sha256(repr(labelled(trained)).encode())
    digest.update(repr(trained.model.subsets).encode())
    digest.update(trained.model.assess(corpus.test, vectors).distribution.tobytes())
    return digest.hexdigest()


def accuracy(trained: Trained, corpus: Corpus) -> float:
    """Share of the test texts whose most probable label is true."""
    model = trained.model
    distribution = model.assess(corpus.test, FakeEncoder().encode(corpus.test)).distribution
    best = [model.labels[label] for label in distribution[:, :-1].argmax(axis=1)]
    return float(np.mean([a == b for a, b in zip(best, corpus.test_labels, strict=True)]))
