"""A corpus with many labels, an encoder for it, and a validator and a fleet that tell on a run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

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


@lru_cache(maxsize=None)
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
    """A small run; `overrides` are sections, as in a configuration file."""
    sections: dict[str, dict[str, object]] = {
        "partition": {"subset_size": 4},
        "loop": {"samples_per_iteration": 12, "max_iterations": 3, "uncertainty_threshold": 0.0},
    }
    for name, section in overrides.items():
        known = sections.get(name)
        sections[name] = {**known, **section} if known else section  # type: ignore[dict-item]
    return parse_config(sections)
