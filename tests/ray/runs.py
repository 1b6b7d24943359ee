"""Runs over a slice of the demo corpus, on actors or in this process."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from red_ray.bundle import save_bundle
from red_ray.config import RunConfig, parse_config
from red_ray.data.demo import load_demo
from red_ray.data.prepare import HiddenLabels, LabelledRows
from red_ray.encoding import open_encoder
from red_ray.judges import Ledger, ValidatorPool, make_judge
from red_ray.training import LocalFleet, PoolValidator, Trained, Trainer, TrainingJob
from red_ray.types import Progress

N_LABELS = 12
JUDGE = "simulated:0.9"


@dataclass(frozen=True)
class Sample:
    """12 labels, 6 rows each, with a pool and test rows."""

    train: LabelledRows
    pool: tuple[str, ...]
    hidden: HiddenLabels
    test: LabelledRows

    def job(self, **sections: object) -> TrainingJob:
        return TrainingJob(self.train.texts, self.train.labels, self.pool, {}, config(**sections))


@lru_cache(maxsize=1)
def sample() -> Sample:
    corpus = load_demo(0)
    names = set(sorted(set(corpus.train.labels))[:N_LABELS])

    def some(rows: LabelledRows, per_label: int) -> LabelledRows:
        taken = dict.fromkeys(names, 0)
        chosen = []
        for row, label in enumerate(rows.labels):
            if label in names and taken[label] < per_label:
                taken[label] += 1
                chosen.append(row)
        return rows.take(chosen)

    pool = tuple(text for text in corpus.pool if corpus.hidden.of(text) in names)[:80]
    return Sample(some(corpus.train, 6), pool, corpus.hidden, some(corpus.test, 4))


def config(**sections: object) -> RunConfig:
    base: dict[str, dict[str, object]] = {
        "partition": {"subset_size": 6},
        "judge": {"spec": JUDGE},
        "loop": {"max_iterations": 2, "samples_per_iteration": 16},
    }
    for name, section in sections.items():
        base[name] = {**base.get(name, {}), **section}  # type: ignore[dict-item]
    return parse_config(base)


def bundle_id(trained: Trained, folder: Path) -> str:
    return save_bundle(trained.model, folder, {})


def on_actors(
    job: TrainingJob, ledger: Path, *, on_progress: Callable[[Progress], None] = lambda _: None
) -> Trained:
    from red_ray.actors.run import LedgerOfRun, train_on_cluster

    hidden = sample().hidden
    done = train_on_cluster(
        job, ledger=LedgerOfRun(str(ledger)), hidden=hidden, on_progress=on_progress
    )
    return done.trained


def in_process(job: TrainingJob, ledger: Path, *, n_threads: int = 2) -> Trained:
    return asyncio.run(_in_process(job, ledger, n_threads))


async def _in_process(job: TrainingJob, ledger: Path, n_threads: int) -> Trained:
    hidden = sample().hidden.joined(sample().train)
    judge = make_judge(job.config.judge, seed=job.config.seed, hidden=hidden.of)
    encoder = open_encoder(job.config.encoder)
    fleet, kept = LocalFleet(encoder, n_threads=n_threads), Ledger(ledger)
    pool = ValidatorPool(judge, kept, job.config.judge, seed=job.config.seed)
    trainer = Trainer(job, fleet, PoolValidator(pool, judge.name))
    async for _ in trainer.run():
        pass
    await pool.close()
    kept.close()
    fleet.close()
    encoder.close()
    return trainer.result()


def actor_names() -> list[str]:
    from ray.util import list_named_actors

    return sorted(actor["name"] for actor in list_named_actors(all_namespaces=True))


def wait_for_actors_to_end(timeout_s: float = 30.0) -> None:
    """The actors of a run end a moment after the last handle is gone."""
    gc.collect()
    end = time.monotonic() + timeout_s
    while names := actor_names():
        assert time.monotonic() < end, names
        time.sleep(0.05)
