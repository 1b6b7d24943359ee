"""The steps of `benchmarks.scale`, each in a process of its own."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter, process_time, thread_time
from typing import Any, ClassVar

import numpy as np
from scipy.special import logsumexp

from benchmarks.cells import ALGORITHM, source_hash
from benchmarks.scale_data import Labels, labels_of, pool_rows, train_rows
from benchmarks.watched import Tell
from red_ray.bundle import load_bundle, save_bundle
from red_ray.config import RunConfig, changed, load_config
from red_ray.core.blas import use_one_blas_thread
from red_ray.core.router import with_none
from red_ray.encoding import EmbeddingStore, SentenceEncoder, open_encoder
from red_ray.experts import ExpertHost, ExpertSpec, ExpertStack, FitRows
from red_ray.judges.base import question_key
from red_ray.model import RedModel
from red_ray.training import LocalFleet, Trained, Trainer, TrainingJob
from red_ray.training.asking import Asking
from red_ray.training.ensemble import Ensemble
from red_ray.training.loop import ActiveLoop
from red_ray.training.router_host import RouterHost, Scores
from red_ray.types import Outcome, Question, Verdict

PER_LABEL = 20
POOL = 10_000
"""Pool of the one iteration that is run whole at every number of labels."""
N_SCORED = 4_000
"""Texts that are scored to know how many a second."""
N_PREDICTED = 100
N_ENCODED = 2_000


def config_of(store: Path | None, **sections: Mapping[str, object]) -> RunConfig:
    """The defaults without the gate, one iteration."""
    config = load_config(None, {"router": {"gate": False}})
    over: dict[str, Any] = {"loop": {"max_iterations": 1, "recalibrate_every": 1}}
    return changed(config, over | {"encoder": {"store": store}} | sections)


class TimedRouter(RouterHost):
    """Counts the processor time of its thread: other threads fit experts meanwhile."""

    took_s: ClassVar[list[float]] = []

    def calibrate(self, *args):  # type: ignore[no-untyped-def]
        start = thread_time()
        estimate = super().calibrate(*args)
        TimedRouter.took_s.append(thread_time() - start)
        return estimate


class TimedFleet(LocalFleet):
    router_kind = TimedRouter


class KeptTrainer(Trainer):
    """Keeps the ensemble, for an iteration of the loop afterwards."""

    ensemble: Ensemble

    async def _open(self, *args):  # type: ignore[no-untyped-def]
        self.ensemble, strategy = await super()._open(*args)
        return self.ensemble, strategy


class Truth:
    """Answers with the label around whose centre a pool text was made, where it is offered."""

    judge_name = "truth"

    def __init__(self, known: Mapping[str, str]) -> None:
        self._known = known

    async def validate(self, questions: Sequence[Question], round_number: int) -> list[Verdict]:  # noqa: ARG002
        return [self._verdict(question) for question in questions]

    async def stats(self) -> None:
        return None

    def _verdict(self, question: Question) -> Verdict:
        offered = [candidate.label for candidate in question.candidates]
        label = self._known[question.text]
        right = label in offered
        key = question_key(question, self.judge_name)
        outcome = Outcome.LABEL if right else Outcome.NONE
        return Verdict(key, outcome, label if right else None, self.judge_name, 1, 0.0)


def fit(cell: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
    """Train on so many labels in this process; then all that a user does with the model."""
    use_one_blas_thread()
    with tempfile.TemporaryDirectory() as name:
        labels, rows, pool = _made(cell["labels"], POOL)
        config = config_of(Path(name))
        _fill_store(config, [*rows[0], *pool[0]], np.concatenate([rows[1], pool[1]]))
        trained, iteration = asyncio.run(_train(config, labels, rows, pool, tell))
        result: dict[str, Any] = {
            "router s": TimedRouter.took_s[0],
            "accuracy": trained.first_estimate.accuracy,
            "n experts": len(trained.model.subsets),
            "iteration": iteration,
        }
        return result | _use(trained.model, pool, tell)


def _made(n_labels: int, n_pool: int) -> tuple[Labels, Any, Any]:
    labels = labels_of(n_labels)
    texts, truth, vectors = train_rows(labels, PER_LABEL, np.random.default_rng(1))
    pool = pool_rows(labels, n_pool, np.random.default_rng(2))
    return labels, (texts, vectors, truth), pool


def _fill_store(config: RunConfig, texts: Sequence[str], vectors: np.ndarray) -> None:
    """What makes the embeddings cached ones: encoded they would be others, as texts are made."""
    with SentenceEncoder.load(config.encoder) as encoder:
        EmbeddingStore(config.encoder.store, encoder.spec).put(texts, vectors)


def _fill_store_apart(config: RunConfig, texts: Sequence[str], vectors: np.ndarray) -> None:
    """In a process of its own: a driver that trains on a cluster holds no encoder."""
    filling = multiprocessing.get_context("spawn").Process(
        target=_fill_store, args=(config, texts, vectors)
    )
    filling.start()
    filling.join()
    if filling.exitcode:
        raise SystemExit("the store could not be filled")


def _job(config: RunConfig, labels: Labels, rows: Any, pool_texts: Sequence[str]) -> TrainingJob:
    named = tuple(labels.names[label] for label in rows[2])
    return TrainingJob(tuple(rows[0]), named, tuple(pool_texts), {}, config)


async def _train(
    config: RunConfig, labels: Labels, rows: Any, pool: Any, tell: Tell
) -> tuple[Trained, dict[str, float]]:
    encoder = open_encoder(config.encoder)
    job = _job(config, labels, rows, pool[0])
    fleet = TimedFleet(encoder)
    trainer = KeptTrainer(job, fleet)
    async for event in trainer.run():
        tell(event.stage)
    tell("iteration")
    known = dict(zip(pool[0], (labels.names[label] for label in pool[2]), strict=True))
    known |= dict(zip(job.texts, job.labels, strict=True))  # some are planted among the others
    loop = ActiveLoop(
        job, trainer.ensemble, Asking(Truth(known), clock=process_time), clock=process_time
    )
    took = [e.iteration async for e in loop.run() if e.iteration is not None]
    fleet.close()
    (one,) = took
    return trainer.result(), {
        "fit cpu s": one.fit_s,
        "score cpu s": one.score_s,
        "acquire cpu s": one.acquire_s,
        "recalibrate cpu s": one.recalibrate_s,
        "n refitted": len(one.experts_refitted),
    }


def _use(model: RedModel, pool: Any, tell: Tell) -> dict[str, Any]:
    """Keep it, read it, score the pool, and predict one text after another."""
    place = bundle_place(len(model.labels))
    place.parent.mkdir(parents=True, exist_ok=True)
    tell("save")
    save_bundle(model, place, {})
    size = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
    tell("load")
    model = load_bundle(place)
    tell("ready")  # what the first text waits for
    texts, vectors = pool[0][:N_SCORED], pool[1][:N_SCORED]
    model.assess(texts[:1], vectors[:1])
    tell("score")
    start, cpu = perf_counter(), process_time()
    model.assess(texts, vectors)
    scored = {
        "score s": perf_counter() - start,
        "score cpu s": process_time() - cpu,
        "n scored": len(texts),
        "bundle bytes": size,
        "text words": float(np.mean([len(text.split()) for text in texts])),
    }
    tell("predict")
    return scored | _predict(model, texts)


def _predict(model: RedModel, texts: Sequence[str]) -> dict[str, float]:
    """Medians of one text at a time: the encoder alone, what comes after it, and both."""
    encoder = model.loaded_encoder
    model.predict(texts[:1])
    alone, after, after_cpu, whole = [], [], [], []
    for text in texts[:N_PREDICTED]:
        times = [perf_counter()]
        vectors = encoder.encode([text])
        times.append(perf_counter())
        cpu = thread_time()
        model.decide(model.assess([text], vectors))
        after_cpu.append(thread_time() - cpu)
        times.append(perf_counter())
        model.predict([text])
        times.append(perf_counter())
        for kept, taken in zip((alone, after, whole), np.diff(times), strict=True):
            kept.append(1e3 * taken)
    return {
        "encode ms": float(np.median(alone)),
        "after ms": float(np.median(after)),
        "after cpu ms": 1e3 * float(np.median(after_cpu)),
        "predict ms": float(np.median(whole)),
    }


def bundle_place(n_labels: int) -> Path:
    """Where the model of so many labels is between the steps: no result, only a short cut."""
    folder = Path(tempfile.gettempdir()) / "red_ray_scale"
    return folder / f"{n_labels}-{source_hash(ALGORITHM).hex()[:12]}" / "bundle"


def fit_on_ray(cell: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
    """As `red-ray train` does it: actors on this machine, the embeddings in the store."""
    from red_ray.actors.environment import prepare_environment

    os.environ.pop("RAY_ADDRESS", None)  # a cluster of its own
    prepare_environment()
    from red_ray.actors.cluster import ray_session
    from red_ray.actors.run import LedgerOfRun, train_on_cluster

    with tempfile.TemporaryDirectory() as name:
        labels, rows, _ = _made(cell["labels"], 0)
        config = config_of(Path(name))
        _fill_store_apart(config, rows[0], rows[1])
        tell("session")
        with ray_session():
            done = train_on_cluster(
                _job(config, labels, rows, ()),
                ledger=LedgerOfRun(""),
                hidden=None,
                on_progress=lambda event: tell(event.stage),
            )
            tell("end")
    return {"accuracy": done.trained.estimate.accuracy, "timing s": done.trained.timing_s}


def gate(cell: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
    """The gate's fit, which is the flat model's, and its cross-fitting."""
    use_one_blas_thread()
    n_labels = cell["labels"]
    labels = labels_of(n_labels)
    _, truth, vectors = train_rows(labels, PER_LABEL, np.random.default_rng(1))
    everything = tuple(range(n_labels))
    host = ExpertHost([ExpertSpec("gate", everything, "logistic_regression", 0)])
    host.load(vectors)
    nothing = np.zeros(0, dtype=np.int64)
    rows, folds = np.arange(len(truth)), np.arange(len(truth)) % 5
    tell("fit")
    host.fit(0, FitRows(rows, truth, nothing, nothing, np.full(len(truth), -1)))
    tell("crossfit")
    host.crossfit(0, FitRows(rows, truth, nothing, nothing, folds))
    return {}


def encode(cell: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
    """The encoder alone on texts of such a pool, the first batches left out."""
    texts, *_ = pool_rows(labels_of(cell["labels"]), N_ENCODED, np.random.default_rng(3))
    with SentenceEncoder.load(RunConfig().encoder) as encoder:
        encoder.encode(texts[:256])
        tell("encode")
        encoder.encode(texts)
    return {"n encoded": len(texts), "words": float(np.mean([len(t.split()) for t in texts]))}


def pool(cell: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
    """What the router does with a pool of any size: read it, weigh some of it, choose from all."""
    use_one_blas_thread()
    model = _model(cell["labels"])
    n_train, n_pool = len(model.example_texts), cell["pool"]
    tell("make")
    texts, made, _ = pool_rows(labels_of(cell["labels"]), n_pool, np.random.default_rng(4))
    vectors = np.concatenate([model.example_vectors, made])
    del made
    tell("read")
    host = RouterHost(model.config, len(model.labels))
    host.load(vectors, [*model.example_texts, *texts], model.subsets)
    host._router = model.router
    rows = np.arange(n_train)
    at_once = host.follow_pool(n_train + np.arange(n_pool), rows, model.example_labels)
    tell("weigh")
    weighed = _weigh(host, model, vectors[n_train:], at_once)
    tell("select")
    return {"at once": at_once} | weighed | _select(host, model, vectors[n_train:])


def _model(n_labels: int) -> RedModel:
    place = bundle_place(n_labels)
    if not place.exists():
        raise SystemExit(f"run the cell fit-{n_labels}-process first")
    return load_bundle(place)


def _weigh(
    host: RouterHost, model: RedModel, vectors: np.ndarray, at_once: int
) -> dict[str, float]:
    """Score and weigh the first texts as the loop does; a pool that is kept goes in whole."""
    stack, score_s, weigh_s, n_done = ExpertStack(model.experts), 0.0, 0.0, 0
    while n_done < min(N_SCORED, len(vectors)):
        start = process_time()
        scores = Scores(None, stack.score(vectors[n_done : n_done + at_once]))
        middle = process_time()
        host.weigh(n_done, scores)
        score_s, weigh_s = score_s + middle - start, weigh_s + process_time() - middle
        n_done += len(scores.experts[0])
    return {"score cpu s": score_s, "weigh cpu s": weigh_s, "n weighed": n_done}


def _select(host: RouterHost, model: RedModel, vectors: np.ndarray) -> dict[str, float]:
    """Choose from the whole pool, whose scores come some texts at a time and are not counted.

    The scores are the cosines to the labels' centres as logits: made faster than the model's
    own, and of the same kind.
    """
    sums = np.zeros((len(model.labels), vectors.shape[1]), dtype=np.float32)
    np.add.at(sums, model.example_labels, model.example_vectors)
    centres = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    take_s = take_cpu_s = 0.0
    step = max(1, 2**18 // len(model.labels))
    for first in range(0, len(vectors), step):
        given = np.asarray(20 * (vectors[first : first + step] @ centres.T), dtype=np.float64)
        none = np.full(len(given), 0.05)
        start, cpu = perf_counter(), process_time()
        host.take_in(first, with_none(given, logsumexp(given, axis=1), none))
        take_s, take_cpu_s = take_s + perf_counter() - start, take_cpu_s + process_time() - cpu
    start, cpu = perf_counter(), process_time()
    view = host.view_pool(np.ones(len(vectors), dtype=bool), "informative", 0)
    return {
        "select s": take_s + perf_counter() - start,
        "select cpu s": take_cpu_s + process_time() - cpu,
        "n chosen": len(view.chosen),
    }
