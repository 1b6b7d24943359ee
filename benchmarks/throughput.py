"""Speed on Banking77 at 30 per label: fit and classify from an empty store, and classify alone.

Classify alone is a ratio to the encoder's own throughput on the same texts, batches and threads,
the two alternating in one run.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

import numpy as np

from benchmarks.cells import Benchmark, Cell, Result, main, mean_interval
from benchmarks.data import SEEDS, job_of, load, train_alone
from red_ray.batch import CHUNK_ROWS
from red_ray.config import RunConfig
from red_ray.core.blas import use_one_blas_thread
from red_ray.data.inputs import Inputs, TestRows
from red_ray.encoding import CachedEncoder, EmbeddingStore, SentenceEncoder
from red_ray.training import Trained

REPEATS = 5


def run(cell: Cell) -> Result:
    """One seed, with or without lexical evidence, in this process or on Ray."""
    overrides: dict[str, object] = {"router": {"lexical": cell["lexical"]}}
    config, inputs, test = load("banking77", 30, cell["seed"], overrides)
    if cell["where"] == "ray":
        return on_ray(config, inputs, test)
    use_one_blas_thread()
    with SentenceEncoder.load(config.encoder) as encoder:
        encoder.encode(test.rows.texts[:256])  # the first batches of each length are slower
        result, trained = fit_and_classify(config, inputs, test, encoder)
        return result | classify_alone(trained, test, encoder)


def fit_and_classify(
    config: RunConfig, inputs: Inputs, test: TestRows, encoder: SentenceEncoder
) -> tuple[Result, Trained]:
    """From an empty store to decisions on all test texts; then the same again."""
    with tempfile.TemporaryDirectory() as folder:
        store = EmbeddingStore(Path(folder), encoder.spec)
        cached = CachedEncoder(encoder, store)
        start = perf_counter()
        trained = train_alone(job_of(config, inputs), cached)
        fitted = perf_counter()
        vectors = cached.encode(test.rows.texts)
        trained.model.decide(trained.model.assess(test.rows.texts, vectors))
        ended = perf_counter()
        n_first = cached.n_encoded
        train_alone(job_of(config, inputs), cached)
        cached.encode(test.rows.texts)
    return {
        "fit s": fitted - start,
        "classify s": ended - fitted,
        "fit and classify s": ended - start,
        "encoded": n_first,
        "encoded by the second run": cached.n_encoded - n_first,
    }, trained


def classify_alone(trained: Trained, test: TestRows, encoder: SentenceEncoder) -> Result:
    """Texts a second, and the share of the encoder's own that the whole way reaches."""
    texts = test.rows.texts
    batches = [texts[start : start + CHUNK_ROWS] for start in range(0, len(texts), CHUNK_ROWS)]
    model = trained.model
    object.__setattr__(model, "encoder", encoder)
    model.predict(texts[:64])
    alone, whole = [], []
    for _ in range(REPEATS):
        start = perf_counter()
        for batch in batches:
            encoder.encode(batch)
        middle = perf_counter()
        for assessment in model.assessments(batches):
            model.decide(assessment)
        whole.append(perf_counter() - middle)
        alone.append(middle - start)
    ratios = np.array(alone) / np.array(whole)
    return {
        "encoder texts/s": len(texts) / float(np.median(alone)),
        "classify texts/s": len(texts) / float(np.median(whole)),
        "ratio": float(np.median(ratios)),
    }


def on_ray(config: RunConfig, inputs: Inputs, test: TestRows) -> Result:
    """The same from a driver: actors start, encode, fit, and the driver scores the test rows."""
    from red_ray.actors.environment import prepare_environment

    prepare_environment()
    from red_ray.actors.cluster import ray_session
    from red_ray.actors.run import LedgerOfRun, train_on_cluster

    with tempfile.TemporaryDirectory() as folder:
        encoder = config.encoder.model_copy(update={"store": Path(folder) / "store"})
        fresh = config.model_copy(update={"encoder": encoder})
        with ray_session():
            start = perf_counter()
            done = train_on_cluster(
                job_of(fresh, inputs),
                ledger=LedgerOfRun(""),
                hidden=None,
                on_progress=lambda _: None,
            )
            fitted = perf_counter()
            vectors = done.encoder.encode(test.rows.texts)
            model = done.trained.model
            model.decide(model.assess(test.rows.texts, vectors))
            ended = perf_counter()
    return {
        "fit s": fitted - start,
        "classify s": ended - fitted,
        "fit and classify s": ended - start,
    }


COLUMNS = (
    ("fit s", 1),
    ("classify s", 1),
    ("fit and classify s", 1),
    ("encoded by the second run", 0),
    ("encoder texts/s", 0),
    ("classify texts/s", 0),
    ("ratio", 2),
)


def table(done: Sequence[tuple[Cell, Result]]) -> str:
    """Mean over seeds and 95 % interval."""
    lines = ["| Banking77, 30 per label | " + " | ".join(name for name, _ in COLUMNS) + " |"]
    lines.append("|" + "---|" * (len(COLUMNS) + 1))
    for where, lexical in CASES:
        rows = [r for c, r in done if (c["where"], c["lexical"]) == (where, lexical)]
        if rows:
            name = f"{WHERE[where]}, {'with' if lexical else 'without'} lexical evidence"
            cells = [
                mean_interval([r[n] for r in rows], 1, digits) if n in rows[0] else "–"
                for n, digits in COLUMNS
            ]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


WHERE = {"process": "in one process, model loaded", "ray": "on Ray, actors and model starting"}
CASES = (("process", True), ("process", False), ("ray", True))
CELLS = [
    {"where": where, "lexical": lexical, "seed": seed} for seed in SEEDS for where, lexical in CASES
]

if __name__ == "__main__":
    main(Benchmark("throughput", CELLS, run, table))
